/*
 * A virtio-console with its driver, beside the entropy device of virtio_rig.h, which is the canary.
 * What it tells its machine is kept.
 */
#ifndef TESTS_UNIT_CONSOLE_RIG_H
#define TESTS_UNIT_CONSOLE_RIG_H

#include "devices/console.h"
#include "devices/console_control.h"
#include "tests/unit/virtio_rig.h"

enum { RX, TX, CONTROL_RX, CONTROL_TX, PORT_1_RX, PORT_1_TX };

/* Guest memory: what is sent, and buffers for what comes. */
#define OUT_BUF RAM_A
#define IN_BUF  RAM_B

struct console_rig {
    struct virtio_rig base;
    struct console *console;
    struct virtio_driver v;

    char printed[4096];
    size_t printed_size; /* of all; what does not fit is counted */
    char status[64];
    size_t status_size;
    unsigned leaves, failures;
    char failed[80];
};

/* `config` without its events. Negative errno with a text, and nothing to finish. */
int console_rig_init(struct console_rig *rig, const struct console_config *config, bool threaded,
                     struct minivmm_error *err);
void console_rig_finish(struct console_rig *rig);

/* A console in front of two descriptors, its driver started with all that is offered. */
void console_rig_console(struct console_rig *rig, int in, int out, bool threaded);

/* Ports as given and the status port, the driver started, no control message sent yet. */
void console_rig_ports(struct console_rig *rig, const struct minivmm_port *ports, unsigned count);

/* Send bytes on a queue and wait until they are taken; false when they are not. */
bool console_rig_send(struct console_rig *rig, unsigned queue, const void *data, uint32_t size);

/* A control message from the driver. */
bool console_rig_control(struct console_rig *rig, uint32_t id, uint16_t event, uint16_t value);

/* Give a queue a buffer to receive into, at IN_BUF + 4096 * slot. */
void console_rig_offer(struct console_rig *rig, unsigned queue, unsigned slot, uint32_t size);

/* The next buffer that came back, with its bytes; -1 when none has. */
int console_rig_received(struct console_rig *rig, unsigned queue, unsigned slot, void *data);

/* Open a port as a guest's driver and process do; the answers are checked. */
void console_rig_open(struct console_rig *rig, uint32_t id, const char *name);

/* Both devices still work, or do once they are started again. */
bool console_rig_works(struct console_rig *rig);

/* All bytes that are in a pipe now. */
size_t console_rig_read(int fd, char *text, size_t size);

#endif
