#include "devices/passt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/net_deny.h"
#include "devices/net_stream.h"

#define PASST_FD  3  /* where the child finds its end of the socket pair */
#define SPEC_SIZE 40 /* "127.0.0.1/65535:65535" */

struct passt {
    unsigned index;
    pid_t pid;
    bool deny;
    uint16_t udp_ports[PASST_FORWARDS_MAX]; /* of the guest, that answer to the host */
    unsigned udp_count;
    void (*denied)(void *arg, unsigned index, const char *what);
    void *arg;
};

/* passt's argument vector, and the strings that it points to. */
struct command {
    char spec[PASST_FORWARDS_MAX][SPEC_SIZE];
    const char *argv[8 + 2 * PASST_FORWARDS_MAX];
    unsigned argc;
};

static bool parse_port(const char **text, unsigned *port)
{
    char *end;
    if (**text < '0' || **text > '9')
        return false;
    unsigned long value = strtoul(*text, &end, 10);
    *text = end;
    *port = (unsigned)value;
    return value >= 1 && value <= UINT16_MAX;
}

static int add_forward(struct command *command, struct passt *passt, const char *forward,
                       unsigned number, struct minivmm_error *err)
{
    unsigned host, guest;
    bool tcp = strncmp(forward, "tcp:", 4) == 0, udp = strncmp(forward, "udp:", 4) == 0;
    const char *at = forward + 4;

    if ((!tcp && !udp) || !parse_port(&at, &host) || *at++ != ':' || !parse_port(&at, &guest) ||
        *at)
        return error_set(err, -EINVAL,
                         "net %u: forward=%s: must be tcp:HOSTPORT:GUESTPORT or udp:HOSTPORT:"
                         "GUESTPORT",
                         passt->index, forward);
    if (udp)
        passt->udp_ports[passt->udp_count++] = (uint16_t)guest;
    snprintf(command->spec[number], SPEC_SIZE, "127.0.0.1/%u:%u", host, guest);
    command->argv[command->argc++] = tcp ? "-t" : "-u";
    command->argv[command->argc++] = command->spec[number];
    return 0;
}

static bool allows(void *arg, const uint8_t *frame, size_t length)
{
    struct passt *passt = arg;
    char what[NET_DENY_TEXT];

    if (!passt->deny || net_deny_passes(frame, length, passt->udp_ports, passt->udp_count, what))
        return true;
    if (passt->denied)
        passt->denied(passt->arg, passt->index, what);
    return false;
}

/* Its socket is closed already, which ends it; the signal is for one that has lost its way. */
static void destroy(void *arg)
{
    struct passt *passt = arg;

    if (passt->pid > 0) {
        kill(passt->pid, SIGTERM);
        while (waitpid(passt->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    free(passt);
}

static int spawn(struct passt *passt, const struct command *command, int fd,
                 struct minivmm_error *err)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, defaults;
    extern char **environ;

    sigemptyset(&none);
    sigfillset(&defaults);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    /* A group of its own: Ctrl-C on the terminal is for us to understand. */
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                        POSIX_SPAWN_SETPGROUP);
    /* First of all: `fd` is below 3 where this process has its own closed. */
    posix_spawn_file_actions_adddup2(&actions, fd, PASST_FD); /* which clears close-on-exec */
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int rc =
        -posix_spawnp(&passt->pid, "passt", &actions, &attr, (char *const *)command->argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    if (rc < 0) {
        passt->pid = 0;
        error_set(err, rc, "net %u: passt: %s%s", passt->index, strerror(-rc),
                  rc == -ENOENT ? "; install it (Debian: passt)" : "");
    }
    return rc;
}

int passt_create(const struct passt_config *config, struct net_backend **backend,
                 struct minivmm_error *err)
{
    struct command command = {.argv = {"passt", "--foreground", "--quiet", "--fd", "3"}, .argc = 5};
    int fds[2] = {-1, -1};

    struct passt *passt = calloc(1, sizeof(*passt));
    if (!passt)
        return error_set(err, -ENOMEM, "net %u: out of memory", config->index);
    *passt = (struct passt){
        .index = config->index, .deny = config->deny, .denied = config->denied, .arg = config->arg};
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < config->forward_count; i++)
        rc = add_forward(&command, passt, config->forwards[i], i, err);
    if (rc == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        rc = error_set(err, -errno, "net %u: socketpair: %s", config->index, strerror(errno));
    if (rc == 0) {
        rc = spawn(passt, &command, fds[1], err);
        close(fds[1]);
    }
    if (rc < 0) {
        if (fds[0] >= 0)
            close(fds[0]);
        destroy(passt);
        return rc;
    }
    const struct net_stream_config stream = {.allows = allows, .destroy = destroy, .arg = passt};
    return net_stream_create(&stream, fds[0], config->index, backend, err);
}
