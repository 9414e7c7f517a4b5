/* Host input waits for a driver that listens, and the escape is seen whatever the guest does. */
#include <criterion/criterion.h>
#include <linux/serial_reg.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/serial_port.h"
#include "tests/unit/support.h"

SUITE(serial_listening);

/* A port whose input is `text`, all of it inside the device. */
static void open_with_input(struct port *port, int ends[2], const char *text, bool escape)
{
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(write(ends[1], text, strlen(text)), (ssize_t)strlen(text));
    port_open(port, ends[0], -1, escape);
}

static bool has_input(void *arg)
{
    struct port *port = arg;
    return __atomic_load_n(&port->serial.rx_tail, __ATOMIC_ACQUIRE) > 0;
}

static void close_with_input(struct port *port, int ends[2])
{
    port_close(port);
    close(ends[0]);
    close(ends[1]);
}

/* What Linux's driver does when a port is opened. */
static void open_as_a_driver_does(struct port *port)
{
    out8(port, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR | UART_FCR_CLEAR_XMIT);
    in8(port, UART_LSR);
    in8(port, UART_RX);
    in8(port, UART_IIR);
    out8(port, UART_IER, UART_IER_RDI);
}

Test(serial_listening, input_survives_the_opening_of_the_port)
{
    struct port port;
    int ends[2];
    char got[6] = "";
    open_with_input(&port, ends, "early", false);
    cr_assert(support_wait(has_input, &port));
    cr_assert_eq(in8(&port, UART_LSR) & UART_LSR_DR, 0, "nobody listens yet");
    open_as_a_driver_does(&port);
    cr_assert(port_receive(&port, got, 5));
    cr_assert_str_eq(got, "early");
    close_with_input(&port, ends);
}

Test(serial_listening, a_driver_that_only_polls_gets_its_input)
{
    struct port port;
    int ends[2];
    unsigned polls = 1;
    open_with_input(&port, ends, "p", false);
    cr_assert(support_wait(has_input, &port));
    while (!(in8(&port, UART_LSR) & UART_LSR_DR) && polls < 1000)
        polls++;
    cr_expect(polls > 1, "one look at the status is not listening");
    cr_assert_eq(in8(&port, UART_RX), 'p');
    close_with_input(&port, ends);
}

Test(serial_listening, sending_is_not_listening)
{
    struct port port;
    int ends[2];
    open_with_input(&port, ends, "x", false);
    cr_assert(support_wait(has_input, &port));
    for (unsigned i = 0; i < 100; i++) {
        cr_assert_eq(in8(&port, UART_LSR) & UART_LSR_DR, 0);
        out8(&port, UART_TX, 'o');
    }
    close_with_input(&port, ends);
}

static bool has_left(void *arg)
{
    struct port *port = arg;
    return __atomic_load_n(&port->leaves, __ATOMIC_ACQUIRE) > 0;
}

Test(serial_listening, the_escape_is_seen_though_the_guest_takes_nothing)
{
    struct port port;
    int ends[2];
    char keys[2 * SERIAL_RX_SIZE];
    memset(keys, 'k', sizeof(keys));
    keys[sizeof(keys) - 1] = '\0';
    open_with_input(&port, ends, keys, true);
    cr_assert(support_wait(has_input, &port));
    usleep(1200 * 1000); /* the guest is deaf after a second */
    cr_assert_eq(port.leaves, 0);
    cr_assert_eq(write(ends[1], "\x01x", 2), 2);
    cr_assert(support_wait(has_left, &port));
    close_with_input(&port, ends);
}
