/*
 * The control queues of virtio-console with VIRTIO_CONSOLE_F_MULTIPORT: virtio 1.2,
 * section 5.3.6.2; linux/virtio_console.h. What the driver says becomes a few bits a port, and what
 * it has to hear is made out of them: however much it says, there is nothing that piles up.
 */
#ifndef DEVICES_CONSOLE_CONTROL_H
#define DEVICES_CONSOLE_CONTROL_H

#include <linux/virtio_console.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONSOLE_PORTS_MAX 18u
#define CONSOLE_NAME_MAX  63u
#define CONSOLE_MESSAGE   (sizeof(struct virtio_console_control) + CONSOLE_NAME_MAX)

struct console_control {
    unsigned count; /* ports; those without a name do not exist */
    const char *names[CONSOLE_PORTS_MAX];
    struct console_port_state {
        bool added;                          /* the driver was told of it */
        bool ready;                          /* and has taken it */
        bool open;                           /* a process of the guest has it open */
        bool tell_add, tell_name, tell_open; /* what the driver has to hear */
    } ports[CONSOLE_PORTS_MAX];
};

/* As after a reset: the driver knows nothing. */
void console_control_reset(struct console_control *control);

/*
 * The driver said this; what makes no sense is ignored. Returns the port whose process came or
 * went, or -1.
 */
int console_control_take(struct console_control *control,
                         const struct virtio_console_control *message);

/* The next message for the driver; returns its size, 0: there is none. It stays the next one until
 * it is said that it was sent. */
size_t console_control_next(struct console_control *control, uint8_t message[CONSOLE_MESSAGE]);
void console_control_sent(struct console_control *control);

#endif
