#include "tests/unit/serial_port.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BASE 0x3f8

static void leave(void *arg)
{
    struct port *port = arg;
    __atomic_add_fetch(&port->leaves, 1, __ATOMIC_ACQ_REL);
}

static void failed(void *arg, int error)
{
    struct port *port = arg;
    port->error = error;
    __atomic_add_fetch(&port->failures, 1, __ATOMIC_ACQ_REL);
}

static const struct serial_events events = {.leave = leave, .failed = failed};

void port_open(struct port *port, int in_fd, int out_fd, bool escape)
{
    struct minivmm_error err;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    *port = (struct port){.irq = eventfd(0, EFD_NONBLOCK)};
    support_loop_init(&port->loop);
    cr_assert_eq(serial_init(&port->serial, &port->loop.loop, in_fd, out_fd, port->irq, escape,
                             &events, port, &err),
                 0, "%s", err.text);
    bus_add(&port->bus, BASE, 8, &serial_bus_ops, &port->serial);
    support_loop_run(&port->loop);
}

void port_stop(struct port *port)
{
    support_loop_stop(&port->loop);
}

void port_close(struct port *port)
{
    port_stop(port);
    serial_finish(&port->serial);
    support_loop_finish(&port->loop);
    close(port->irq);
}

uint8_t in8(struct port *port, unsigned reg)
{
    return (uint8_t)bus_read(&port->bus, BASE + reg, 1);
}

void out8(struct port *port, unsigned reg, uint8_t value)
{
    bus_write(&port->bus, BASE + reg, 1, value);
}

bool port_has_data(void *arg)
{
    return in8(arg, UART_LSR) & UART_LSR_DR;
}

bool port_may_send(void *arg)
{
    return in8(arg, UART_LSR) & UART_LSR_THRE;
}

bool port_has_failed(void *arg)
{
    struct port *port = arg;
    return __atomic_load_n(&port->failures, __ATOMIC_ACQUIRE) > 0;
}

bool port_send(struct port *port, const void *data, size_t length, unsigned burst)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < length; i++) {
        if (i % burst == 0 && !port_may_send(port) && !support_wait(port_may_send, port))
            return false;
        out8(port, UART_TX, bytes[i]);
    }
    return true;
}

bool port_receive(struct port *port, void *data, size_t length)
{
    uint8_t *bytes = data;
    for (size_t i = 0; i < length; i++) {
        if (!port_has_data(port) && !support_wait(port_has_data, port))
            return false;
        bytes[i] = in8(port, UART_RX);
    }
    return true;
}

uint8_t port_pattern(size_t n)
{
    return (uint8_t)(n * 7 + n / 251);
}

/* A sender on its way to fill everything. */
struct filler {
    struct port *port;
    const int *ends;
    size_t sent;
};

/* Is the pipe full, and too little room left in the buffer for the loop to tell of it? */
static bool is_stuck(const struct filler *filler)
{
    int in_pipe;
    struct pollfd pfd = {.fd = filler->ends[1], .events = POLLOUT};
    return !port_may_send(filler->port) && poll(&pfd, 1, 0) == 0 &&
           ioctl(filler->ends[0], FIONREAD, &in_pipe) == 0 &&
           HOST_STREAM_BUFFER - (filler->sent - (size_t)in_pipe) < HOST_STREAM_LOW_ROOM;
}

/* Send what may be sent; true when nothing can change any more unless somebody reads. */
static bool fill_more(void *arg)
{
    struct filler *filler = arg;
    while (port_may_send(filler->port))
        out8(filler->port, UART_TX, port_pattern(filler->sent++));
    if (!is_stuck(filler))
        return false;
    /* The loop may be about to tell of room that it saw before: let it finish, then look again. */
    port_stop(filler->port);
    bool stuck = is_stuck(filler);
    filler->port->loop.loop.stopping = false;
    support_loop_run(&filler->port->loop);
    return stuck;
}

size_t port_fill(struct port *port, const int ends[2])
{
    struct filler filler = {.port = port, .ends = ends};
    cr_assert(support_wait(fill_more, &filler), "the transmitter never gets busy");
    return filler.sent;
}

size_t port_overrun(struct port *port)
{
    size_t taken = 0;
    for (;; taken++) {
        out8(port, UART_TX, '!');
        if (port->serial.lost > 0)
            return taken;
    }
}
