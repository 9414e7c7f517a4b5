/*
 * A serial port on a bus of its own, with its loop on a thread: what a machine makes of it, and a
 * driver that speaks through bus accesses only.
 */
#ifndef TESTS_UNIT_SERIAL_PORT_H
#define TESTS_UNIT_SERIAL_PORT_H

#include <linux/serial_reg.h>

#include "devices/serial.h"
#include "tests/unit/support.h"

struct port {
    struct support_loop loop;
    struct serial serial;
    struct bus bus;
    int irq;
    unsigned leaves, failures; /* atomic: told on the loop's thread */
    int error;
};

/* As serial_init; the loop runs. A reader that goes away must not end the process. */
void port_open(struct port *port, int in_fd, int out_fd, bool escape);
void port_close(struct port *port);

/* Stop the loop's thread: from then on nothing happens but what the test does. */
void port_stop(struct port *port);

uint8_t in8(struct port *port, unsigned reg);
void out8(struct port *port, unsigned reg, uint8_t value);

/* Is there something to read; may something be written? */
bool port_has_data(void *port);
bool port_may_send(void *port);
bool port_has_failed(void *port);

/*
 * As a driver does: wait for THRE, then write `burst` bytes, at most a FIFO of 16. False when THRE
 * does not come before the deadline.
 */
bool port_send(struct port *port, const void *data, size_t length, unsigned burst);

/* As a driver does: wait for DR, then read. */
bool port_receive(struct port *port, void *data, size_t length);

/*
 * Send numbered bytes while THRE is there and until nothing can change any more, because the pipe
 * is full and nobody reads; returns how many. Both ends as in pipe().
 */
size_t port_fill(struct port *port, const int ends[2]);

/* Then send '!' without looking at THRE until one is lost; returns how many were taken. */
size_t port_overrun(struct port *port);

/* The byte that port_fill sends as number `n`. */
uint8_t port_pattern(size_t n);

#endif
