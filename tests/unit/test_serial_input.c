/* From the host to the guest. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/serial_port.h"

SUITE(serial_input);

#define LONG 5000u /* many times the receiver's size */

static void make_input(uint8_t data[LONG])
{
    for (size_t i = 0; i < LONG; i++)
        data[i] = port_pattern(i);
}

/* More than the receiver holds arrives whole. The writing ends are closed before it is read. */
static void expect_whole(int in_fd, bool escape)
{
    uint8_t data[LONG], got[LONG];
    struct port port;
    make_input(data);
    port_open(&port, in_fd, -1, escape);
    cr_assert(port_receive(&port, got, LONG), "the input stopped");
    cr_assert_eq(memcmp(data, got, LONG), 0);
    port_stop(&port);
    cr_assert_not(port_has_data(&port));
    port_close(&port);
}

Test(serial_input, more_than_the_receiver_holds_comes_whole_from_a_pipe)
{
    uint8_t data[LONG];
    int ends[2];
    make_input(data);
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(write(ends[1], data, LONG), LONG);
    close(ends[1]);
    expect_whole(ends[0], false);
    close(ends[0]);
}

Test(serial_input, more_than_the_receiver_holds_comes_whole_from_a_socket)
{
    uint8_t data[LONG];
    int ends[2];
    make_input(data);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    cr_assert_eq(write(ends[1], data, LONG), LONG);
    close(ends[1]);
    expect_whole(ends[0], false);
    close(ends[0]);
}

Test(serial_input, more_than_the_receiver_holds_comes_whole_from_a_file)
{
    uint8_t data[LONG];
    make_input(data);
    struct support_file file = support_file(data, LONG);
    expect_whole(file.fd, false);
    close(file.fd);
}

Test(serial_input, waits_in_the_host_while_the_guest_does_not_read)
{
    uint8_t data[LONG], got[LONG];
    int ends[2];
    struct port port;
    make_input(data);
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, ends[0], -1, false);
    cr_assert_eq(write(ends[1], data, LONG), LONG);
    cr_assert(support_wait(port_has_data, &port));
    cr_assert(port_receive(&port, got, LONG));
    cr_assert_eq(memcmp(data, got, LONG), 0);
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

Test(serial_input, raises_the_receive_interrupt)
{
    int ends[2];
    struct port port;
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, ends[0], -1, false);
    out8(&port, UART_IER, UART_IER_RDI);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(write(ends[1], "k", 1), 1);
        cr_assert(support_wait_readable(port.irq));
        cr_assert_eq(support_take(port.irq), 1);
        cr_assert_eq(in8(&port, UART_IIR) & 0x0f, UART_IIR_RDI);
        cr_assert_eq(in8(&port, UART_RX), 'k');
        cr_assert_eq(in8(&port, UART_IIR) & 0x0f, UART_IIR_NO_INT);
    }
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

static bool input_is_over(void *arg)
{
    struct port *port = arg;
    return __atomic_load_n(&port->serial.stream.in_fd, __ATOMIC_ACQUIRE) < 0;
}

/* Clear the receiver if there is something in it; is the input over? */
static bool clear_until_over(void *arg)
{
    struct port *port = arg;
    if (port_has_data(port))
        out8(port, UART_FCR, UART_FCR_CLEAR_RCVR);
    return input_is_over(port);
}

Test(serial_input, clearing_the_receiver_lets_more_in)
{
    uint8_t data[LONG];
    int ends[2];
    struct port port;
    make_input(data);
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(write(ends[1], data, LONG), LONG);
    close(ends[1]);
    port_open(&port, ends[0], -1, false);
    cr_assert(support_wait(clear_until_over, &port), "the input stopped");
    port_close(&port);
    close(ends[0]);
}

Test(serial_input, its_end_is_no_failure_and_output_goes_on)
{
    int in[2], out[2];
    struct port port;
    char text[8];
    cr_assert_eq(pipe(in), 0);
    cr_assert_eq(pipe(out), 0);
    port_open(&port, in[0], out[1], false);
    close(in[1]);
    cr_assert(support_wait(input_is_over, &port));
    cr_assert(port_send(&port, "on\n", 3, 1));
    cr_assert(support_wait_readable(out[0]));
    cr_assert_eq(read(out[0], text, sizeof(text)), 3);
    cr_assert_eq(port.failures, 0);
    cr_assert_eq(port.leaves, 0);
    port_close(&port);
    close(in[0]);
    close(out[0]);
    close(out[1]);
}

Test(serial_input, dev_null_is_at_its_end_at_once)
{
    struct port port;
    int fd = open("/dev/null", O_RDWR);
    port_open(&port, fd, fd, false);
    cr_assert(support_wait(input_is_over, &port));
    cr_assert(port_send(&port, "gone\n", 5, 1));
    port_stop(&port);
    cr_assert_eq(host_stream_drain(&port.serial.stream, true), 0);
    cr_assert_not(port_has_data(&port));
    cr_assert_eq(port.failures, 0);
    port_close(&port);
    close(fd);
}

static bool has_left(void *arg)
{
    struct port *port = arg;
    return __atomic_load_n(&port->leaves, __ATOMIC_ACQUIRE) > 0;
}

Test(serial_input, the_escape_leaves_when_it_is_on)
{
    int ends[2];
    struct port port;
    char got[3] = "";
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, ends[0], -1, true);
    cr_assert_eq(write(ends[1], "a\x01\x01\x01xb", 6), 6);
    cr_assert(support_wait(has_left, &port));
    cr_assert(port_receive(&port, got, 2));
    cr_assert_str_eq(got, "a\x01");
    port_stop(&port);
    cr_assert_not(port_has_data(&port), "what followed is dropped");
    cr_assert_eq(port.leaves, 1);
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

Test(serial_input, the_escape_is_two_plain_keys_when_it_is_off)
{
    int ends[2];
    struct port port;
    char got[3] = "";
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, ends[0], -1, false);
    cr_assert_eq(write(ends[1], "\x01x", 2), 2);
    cr_assert(port_receive(&port, got, 2));
    cr_assert_str_eq(got, "\x01x");
    cr_assert_eq(port.leaves, 0);
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

Test(serial_input, keys_after_a_held_one_are_not_lost_when_the_receiver_is_nearly_full)
{
    /* Many a Ctrl-A, each followed by another key: the filter holds it and gives it back. */
    static uint8_t data[2 * LONG], got[2 * LONG];
    int ends[2];
    struct port port;
    unsigned seed = 1;
    for (size_t i = 0; i < sizeof(data); i++) {
        bool hold = rand_r(&seed) % 3 == 0 && i + 1 < sizeof(data);
        data[i] = hold && (i == 0 || data[i - 1] != 0x01) ? 0x01 : (uint8_t)('a' + i % 20);
    }
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(write(ends[1], data, sizeof(data)), sizeof(data));
    close(ends[1]);
    port_open(&port, ends[0], -1, true);
    cr_assert(port_receive(&port, got, sizeof(got)));
    cr_assert_eq(memcmp(data, got, sizeof(got)), 0);
    cr_assert_eq(port.leaves, 0);
    port_close(&port);
    close(ends[0]);
}
