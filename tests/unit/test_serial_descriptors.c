/* The descriptors that a serial port is given. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/serial_port.h"

SUITE(serial_descriptors);

Test(serial_descriptors, the_callers_keep_their_blocking_mode_and_stay_open)
{
    int pipes[2][2], sockets[2];
    cr_assert_eq(pipe(pipes[0]), 0);
    cr_assert_eq(pipe(pipes[1]), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    const struct {
        const char *name;
        int in, out;
    } rows[] = {{"pipe", pipes[0][0], pipes[1][1]}, {"socket", sockets[0], sockets[0]}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct port port;
        int in_mode = fcntl(rows[i].in, F_GETFL), out_mode = fcntl(rows[i].out, F_GETFL);
        port_open(&port, rows[i].in, rows[i].out, false);
        cr_expect_eq(fcntl(rows[i].in, F_GETFL), in_mode, "%s", rows[i].name);
        cr_expect_eq(fcntl(rows[i].out, F_GETFL), out_mode, "%s", rows[i].name);
        port_close(&port);
        cr_expect_eq(fcntl(rows[i].in, F_GETFL), in_mode, "%s", rows[i].name);
        cr_expect_eq(fcntl(rows[i].out, F_GETFL), out_mode, "%s", rows[i].name);
    }
    for (unsigned i = 0; i < 2; i++) {
        close(pipes[0][i]);
        close(pipes[1][i]);
        close(sockets[i]);
    }
}

Test(serial_descriptors, of_the_wrong_direction_are_refused)
{
    int ends[2];
    struct minivmm_error err;
    struct support_loop loop;
    static struct serial serial;
    char text[64];
    static const struct serial_events events = {.leave = NULL};

    cr_assert_eq(pipe(ends), 0);
    int read_only = open("/dev/null", O_RDONLY), write_only = open("/dev/null", O_WRONLY);
    int file = open("/proc/self/exe", O_RDONLY);
    const struct {
        const char *name;
        int in, out, bad;
        bool input;
    } rows[] = {
        {"the reading end as output", -1, ends[0], ends[0], false},
        {"the writing end as input", ends[1], -1, ends[1], true},
        {"a device opened for reading as output", -1, read_only, read_only, false},
        {"a device opened for writing as input", write_only, -1, write_only, true},
        {"a file opened for reading as output", -1, file, file, false},
        {"no descriptor at all as output", -1, 999, 999, false},
        {"no descriptor at all as input", 999, -1, 999, true},
        {"input good, output not", ends[0], ends[0], ends[0], false},
        {"output good, input not", ends[1], ends[1], ends[1], true},
    };
    support_loop_init(&loop);
    for (size_t i = 0; i < COUNT(rows); i++) {
        int rc = serial_init(&serial, &loop.loop, rows[i].in, rows[i].out, -1, false, &events, NULL,
                             &err);
        cr_expect_eq(rc, -EBADF, "%s: %d", rows[i].name, rc);
        snprintf(text, sizeof(text), "serial: cannot %s descriptor %d: Bad file descriptor",
                 rows[i].input ? "read" : "write to", rows[i].bad);
        cr_expect_str_eq(err.text, text, "%s: %s", rows[i].name, err.text);
    }
    support_loop_finish(&loop);
    close(ends[0]);
    close(ends[1]);
    close(read_only);
    close(write_only);
    close(file);
}
