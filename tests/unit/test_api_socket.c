/* The control socket's place: of several who want it, one has it, for as long as it listens. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/support.h"
#include "vmm/api.h"
#include "vmm/api_socket.h"

SUITE(api_socket);

#define RIVALS 6
#define ROUNDS 150

static char directory[32], path[48];

static void begin(void)
{
    snprintf(directory, sizeof(directory), "/tmp/minivmm-test.XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/api", directory);
}

static void end(void)
{
    unlink(path);
    cr_expect_eq(rmdir(directory), 0, "something was left in %s", directory);
}

/* What a VM that was killed leaves: a socket that nobody listens at. */
static void leave_stale(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    unlink(path);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(fd, 1), 0);
    close(fd);
}

/* One of several who start at once; the exit status says how it went. */
enum { HAS_IT, REFUSED, ODD };
static int rival(int start, int hold)
{
    struct minivmm_error err;
    struct stat file;
    struct pollfd pfd = {.fd = start, .events = POLLIN};

    poll(&pfd, 1, -1); /* all at once: nobody reads it */
    int fd = api_socket_listen(path, &file, &err);
    if (fd == -EADDRINUSE)
        return REFUSED;
    if (fd < 0)
        return ODD;
    pfd.fd = hold; /* it goes on listening until all have tried */
    poll(&pfd, 1, -1);
    struct pollfd client = {.fd = fd, .events = POLLIN};
    return poll(&client, 1, 1000) == 1 ? HAS_IT : ODD; /* the client came to us */
}

static void one_round(unsigned round, bool stale)
{
    struct minivmm_error err;
    int start = eventfd(0, EFD_CLOEXEC), hold = eventfd(0, EFD_CLOEXEC);
    int counts[3] = {0}, status, ended = 0;
    pid_t rivals[RIVALS];

    if (stale)
        leave_stale();
    for (unsigned i = 0; i < RIVALS; i++) {
        rivals[i] = fork();
        if (rivals[i] == 0)
            _exit(rival(start, hold));
    }
    eventfd_write(start, 1);
    /* All but one end by themselves; that is waited for here, so that the one is asked after. */
    for (unsigned tries = 0; ended < RIVALS - 1 && tries < 20000; tries++) {
        if (waitpid(-1, &status, WNOHANG) > 0) {
            counts[WIFEXITED(status) ? WEXITSTATUS(status) : ODD]++;
            ended++;
        } else {
            usleep(200);
        }
    }
    int client = api_socket_connect(path, &err);
    eventfd_write(hold, 1);
    for (; ended < RIVALS; ended++) {
        wait(&status);
        counts[WIFEXITED(status) ? WEXITSTATUS(status) : ODD]++;
    }
    cr_assert(client >= 0, "round %u: %s", round, err.text);
    cr_assert(counts[HAS_IT] == 1 && counts[REFUSED] == RIVALS - 1,
              "round %u: %d have it, %d were refused, %d are at odds", round, counts[HAS_IT],
              counts[REFUSED], counts[ODD]);
    close(client);
    close(start);
    close(hold);
    unlink(path);
}

Test(api_socket, of_many_who_replace_a_stale_one_at_once_one_has_it)
{
    begin();
    for (unsigned round = 0; round < ROUNDS; round++)
        one_round(round, true);
    end();
}

Test(api_socket, of_many_who_come_first_at_once_one_has_it)
{
    begin();
    for (unsigned round = 0; round < ROUNDS; round++)
        one_round(round, false);
    end();
}

/* Come and go as fast as possible; the number of times that a socket of ours was not there. */
static int come_and_go(unsigned times)
{
    struct minivmm_error err;
    struct api *api;
    int gone = 0;

    while (times > 0) {
        if (api_create(path, &api, &err) < 0)
            continue;
        times--;
        int fd = api_socket_connect(path, &err);
        gone += fd == -ENOENT || fd == -ECONNREFUSED; /* and not: too many wait */
        if (fd >= 0)
            close(fd);
        api_destroy(api);
    }
    return gone > 0;
}

Test(api_socket, who_goes_takes_nobody_elses_away)
{
    int status;

    begin();
    pid_t others[3];
    for (unsigned i = 0; i < COUNT(others); i++) {
        others[i] = fork();
        if (others[i] == 0)
            _exit(come_and_go(500));
    }
    for (unsigned i = 0; i < COUNT(others); i++) {
        cr_assert_eq(waitpid(others[i], &status, 0), others[i]);
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "one lost its socket");
    }
    end();
}

Test(api_socket, a_directory_that_cannot_be_read_is_no_hindrance)
{
    struct minivmm_error err;
    struct stat file;

    begin();
    leave_stale();
    if (geteuid() == 0) {
        cr_assert_eq(chown(directory, 65534, 65534), 0);
        cr_assert_eq(chown(path, 65534, 65534), 0);
        cr_assert_eq(seteuid(65534), 0);
    }
    cr_assert_eq(chmod(directory, 0300), 0);
    int fd = api_socket_listen(path, &file, &err);
    cr_expect(fd >= 0, "%s", err.text);
    close(fd);
    api_socket_remove(path, &file);
    cr_expect_neq(access(path, F_OK), 0);
    if (getuid() == 0)
        cr_assert_eq(seteuid(0), 0);
    end();
}

Test(api_socket, a_directory_that_somebody_else_has_locked_is_no_hindrance)
{
    struct minivmm_error err;
    struct stat file;
    int up[2];

    begin();
    leave_stale();
    cr_assert_eq(pipe(up), 0);
    pid_t locker = fork();
    if (locker == 0) {
        char command[100];
        snprintf(command, sizeof(command), "exec flock %s sh -c 'echo; exec sleep 60'", directory);
        dup2(up[1], 1);
        execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(1);
    }
    close(up[1]);
    char byte;
    cr_assert_eq(read(up[0], &byte, 1), 1);
    int fd = api_socket_listen(path, &file, &err);
    cr_expect(fd >= 0, "%s", err.text);
    close(fd);
    api_socket_remove(path, &file);
    kill(locker, SIGKILL);
    waitpid(locker, NULL, 0);
    close(up[0]);
    end();
}
