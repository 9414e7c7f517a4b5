/*
 * virtio-console: virtio 1.2, section 5.3; linux/virtio_console.h. A device comes in two shapes:
 *
 *   a console   one port, hvc0 of the guest, with the terminal's size (VIRTIO_CONSOLE_F_SIZE) and
 *               the register for emergencies (VIRTIO_CONSOLE_F_EMERG_WRITE)
 *   ports       VIRTIO_CONSOLE_F_MULTIPORT: ports by name, from 1 on; port 0, which a driver
 *               without the feature would take for a console, leads nowhere
 *
 * They are two because a console among several ports is told its size by a message whose fields
 * Linux has read in both orders, depending on its version; one that is alone finds it in
 * configuration space, about which all agree, and is told to look there once its driver runs.
 *
 * The path of output: serve_tx() copies what chains hold into a chunk, once, and hands it to the
 * host's stream and to whoever watches. The stream is bounded: when it is full the chains stay with
 * the driver, and nothing is lost. Input waits in a small buffer a port until the driver has room
 * and, for a port with a name, until a process of the guest has it open: Linux throws away what
 * comes before.
 */
#ifndef DEVICES_CONSOLE_H
#define DEVICES_CONSOLE_H

#include "virtio/virtio.h"
#include "vmm/minivmm.h"

struct console_events {
    /* Of a console: this was printed. On the loop's thread or a vCPU's. */
    void (*printed)(void *arg, const uint8_t *data, size_t size);
    /* Written to the status port, before the guest hears that it is. On the loop's thread. */
    void (*status)(void *arg, const uint8_t *data, size_t size);
    void (*leave)(void *arg);                               /* the escape was typed */
    void (*failed)(void *arg, const char *name, int error); /* an output failed for good, errno */
};

struct console_config {
    const struct minivmm_char *console; /* this shape, or NULL: the other one */
    unsigned columns, rows;             /* of the console; 0: not known */
    const struct minivmm_port *ports;   /* at most MINIVMM_PORTS_MAX */
    unsigned port_count;
    bool status_port; /* MINIVMM_STATUS_PORT, behind the others */
    const struct console_events *events;
    void *arg;
};

struct console;

/* Negative errno, with a text that names the port: "console: ...", "port NAME: ...". */
int console_create(const struct console_config *config, const struct guest_mem *mem,
                   struct event_loop *loop, struct console **console, struct minivmm_error *err);
void console_destroy(struct console *console); /* NULL is allowed */

struct virtio_dev *console_device(struct console *console);

/* From any thread: the console's terminal has this size now. Nothing where none was known. */
void console_resize(struct console *console, unsigned columns, unsigned rows);

/* The path of a port's pseudo terminal, or NULL; `name` is "console" for that one. */
const char *console_pty(const struct console *console, const char *name);

/*
 * On the loop's thread, once no vCPU runs and before the device is shut down: what the driver has
 * handed over goes out, up to CONSOLE_LEFT_MAX bytes a port, as for host_stream_drain. On failure
 * *name is the port's.
 */
#define CONSOLE_LEFT_MAX (4u << 20)
int console_drain(struct console *console, bool patient, const char **name);

#endif
