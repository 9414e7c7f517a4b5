#include "devices/passt.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/net_deny.h"
#include "devices/net_stream.h"

#define MTU       65520 /* what passt tells the guest, and its largest frame's payload */
#define PASST_FD  3     /* where the child finds its end of the socket pair */
#define SPEC_SIZE 40    /* "127.0.0.1/65535:65535" */

struct passt {
    unsigned index;
    pid_t pid;
    bool deny;
    uint16_t udp_ports[PASST_FORWARDS_MAX]; /* of the guest, that answer to the host */
    unsigned udp_count;
    int words; /* the reading end of its stderr, or -1 */
    void (*denied)(void *arg, unsigned index, const char *what);
    void (*ended)(void *arg, unsigned index, const char *why);
    void *arg;
};

/* passt's argument vector, and the strings that it points to. */
struct command {
    char spec[PASST_FORWARDS_MAX][SPEC_SIZE];
    const char *argv[9 + 2 * PASST_FORWARDS_MAX];
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

/*
 * passt gives up when it cannot have a port, and by then the guest runs. So each is tried before:
 * bound as passt does it, and let go.
 */
static int try_port(unsigned index, const char *forward, bool tcp, unsigned port,
                    struct minivmm_error *err)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int on = 1;
    int rc = 0;

    int fd = socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0; /* it will find out */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        (tcp && listen(fd, 1) < 0))
        rc = error_set(err, -errno, "net %u: forward=%s: port %u of 127.0.0.1: %s", index, forward,
                       port, strerror(errno));
    close(fd);
    return rc;
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
    return try_port(passt->index, forward, tcp, host, err);
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

/* Does a name server of this machine's listen on its loopback only? */
static bool resolves_on_loopback(void)
{
    char line[256];
    bool found = false;

    FILE *file = fopen("/etc/resolv.conf", "re");
    while (file && !found && fgets(line, sizeof(line), file))
        found =
            strncmp(line, "nameserver 127.", 15) == 0 || strncmp(line, "nameserver ::1", 14) == 0;
    if (file)
        fclose(file);
    return found;
}

/* What answers to a datagram from the loopback finds its way back as one to the gateway only. */
static bool forwards_udp(const struct passt_config *config)
{
    for (unsigned i = 0; i < config->forward_count; i++) {
        if (strncmp(config->forwards[i], "udp:", 4) == 0)
            return true;
    }
    return false;
}

/* Its socket is closed: what it said last is why. */
static void tell_end(void *arg)
{
    struct passt *passt = arg;
    char words[65536]; /* a pipe's */
    char *why = words;

    ssize_t n = read(passt->words, words, sizeof(words) - 1);
    words[n > 0 ? n : 0] = 0;
    words[strcspn(words, "\r")] = 0;
    for (char *line; (line = strchr(why, '\n'));) {
        *line = 0;
        if (line[1] == 0)
            break;
        why = line + 1;
    }
    if (passt->ended)
        passt->ended(passt->arg, passt->index, why);
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
    if (passt->words >= 0)
        close(passt->words);
    free(passt);
}

static int spawn(struct passt *passt, const struct command *command, int fd, int words,
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
    posix_spawn_file_actions_adddup2(&actions, words, STDERR_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
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

/* The two wires to it: frames, and what it has to say. It never waits for us to read that. */
static int connect_and_spawn(struct passt *passt, const struct command *command, int *frames,
                             struct minivmm_error *err)
{
    int fds[2] = {-1, -1}, words[2] = {-1, -1}, high = -1;
    int rc = 0;

    if (pipe2(words, O_CLOEXEC | O_NONBLOCK) < 0 ||
        (high = fcntl(words[1], F_DUPFD_CLOEXEC, PASST_FD + 1)) < 0 || /* out of spawn's way */
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        rc = error_set(err, -errno, "net %u: passt: %s", passt->index, strerror(errno));
    passt->words = words[0];
    if (rc == 0)
        rc = spawn(passt, command, fds[1], high, err);
    int ours[] = {words[1], high, fds[1], rc < 0 ? fds[0] : -1};
    for (unsigned i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (ours[i] >= 0)
            close(ours[i]);
    }
    *frames = fds[0];
    return rc;
}

int passt_create(const struct passt_config *config, struct net_backend **backend,
                 struct minivmm_error *err)
{
    struct command command = {.argv = {"passt", "--foreground", "--quiet", "--fd", "3"}, .argc = 5};
    int frames = -1;

    struct passt *passt = calloc(1, sizeof(*passt));
    if (!passt)
        return error_set(err, -ENOMEM, "net %u: out of memory", config->index);
    *passt = (struct passt){.index = config->index,
                            .deny = config->deny,
                            .words = -1,
                            .denied = config->denied,
                            .ended = config->ended,
                            .arg = config->arg};
    if (!resolves_on_loopback() && !forwards_udp(config))
        command.argv[command.argc++] = "--no-map-gw";
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < config->forward_count; i++)
        rc = add_forward(&command, passt, config->forwards[i], i, err);
    if (rc == 0)
        rc = connect_and_spawn(passt, &command, &frames, err);
    if (rc < 0) {
        destroy(passt);
        return rc;
    }
    const struct net_stream_config stream = {
        .mtu = MTU, .allows = allows, .ended = tell_end, .destroy = destroy, .arg = passt};
    return net_stream_create(&stream, frames, config->index, backend, err);
}
