/*
 * A 16550A UART: COM1 of a PC. Register layout and bits: linux/serial_reg.h.
 *
 * Bytes move at once, at whatever speed is set. The transmitter is busy (LSR without THRE) only
 * while the host's reader is behind by a whole buffer: a driver that waits for it and then fills
 * the FIFO loses nothing. One interrupt line, edge-triggered: an eventfd is signalled when the
 * first condition arises.
 */
#ifndef DEVICES_SERIAL_H
#define DEVICES_SERIAL_H

#include <pthread.h>

#include "devices/escape.h"
#include "devices/host_stream.h"
#include "vmm/bus.h"

#define SERIAL_RX_SIZE 256u /* a power of two; more than a chip has, so that pasted text flows */

struct serial {
    pthread_mutex_t lock; /* guards the registers; taken before the stream's */
    uint8_t ier, lcr, mcr, fcr, scr, dll, dlm;
    uint8_t rx[SERIAL_RX_SIZE];
    unsigned rx_head, rx_tail; /* free-running */
    unsigned polls;            /* reads of LSR since an access that is not a poll */
    bool input_waits;          /* the stream may have input that waits for room */
    uint64_t taken_ns;         /* when the guest last took a byte, or input began to wait */
    bool tx_full;              /* the stream has no room for a whole FIFO */
    bool thr_event;            /* transmitter empty, not yet reported through IIR */
    bool irq_high;
    int irq_fd;    /* eventfd of the line; not owned */
    uint64_t lost; /* counter.h: bytes the guest wrote while the transmitter was busy */
    struct host_stream stream;
    bool escape_on;
    struct escape escape;
    const struct serial_events *events;
    void *events_arg;
};

/* What the serial port tells its machine. Called on any thread. */
struct serial_events {
    void (*printed)(void *arg, uint8_t byte); /* went out; not what was lost; may be NULL */
    void (*leave)(void *arg);                 /* the escape was typed */
    void (*failed)(void *arg, int error);     /* the output failed for good, errno */
};

/* `in_fd` and `out_fd` as for host_stream_init. `irq_fd` is an eventfd that must outlive the port.
 */
int serial_init(struct serial *serial, struct event_loop *loop, int in_fd, int out_fd, int irq_fd,
                bool escape, const struct serial_events *events, void *events_arg,
                struct minivmm_error *err);
void serial_finish(struct serial *serial);

/* The port's registers: 8 ports, dev is the struct serial. */
extern const struct bus_ops serial_bus_ops;

#endif
