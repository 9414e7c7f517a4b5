/*
 * Fuzzes the control queue of virtio-console: messages from a driver, looks at what it has to hear,
 * resets.
 *
 * Input: a byte with the number of ports, then pieces of 9 bytes: what to do, and a message.
 */
#include <string.h>

#include "devices/console_control.h"
#include "tests/fuzz/fuzz.h"

static void take(struct console_control *control, const uint8_t *bytes)
{
    struct virtio_console_control message;
    struct console_control before = *control;

    memcpy(&message, bytes, sizeof(message));
    int id = console_control_take(control, &message);
    MUST(id >= -1 && id < (int)control->count);
    for (unsigned i = 0; i < control->count; i++) {
        const struct console_port_state *port = &control->ports[i], *old = &before.ports[i];
        MUST((port->open != old->open) == (id == (int)i));
        MUST(!port->open || port->ready);
        MUST(!port->ready || port->added);
        MUST(port->added == old->added && !(port->added && port->tell_add));
        MUST(control->names[i] || memcmp(port, old, sizeof(*port)) == 0);
    }
}

/* What the driver hears, at most `most` messages; there are never more than three a port. */
static void hear(struct console_control *control, unsigned most)
{
    uint8_t message[CONSOLE_MESSAGE + 8];
    struct virtio_console_control header;
    unsigned count = 0;

    for (; count < most; count++) {
        memset(message, 0x5a, sizeof(message));
        size_t size = console_control_next(control, message);
        if (size == 0)
            return;
        MUST(size >= sizeof(header) && size <= CONSOLE_MESSAGE);
        MUST(message[CONSOLE_MESSAGE] == 0x5a);
        memcpy(&header, message, sizeof(header));
        MUST(header.id < control->count && control->names[header.id] && header.value == 1);
        MUST((header.event == VIRTIO_CONSOLE_PORT_NAME) == (size > sizeof(header)));
        console_control_sent(control);
    }
    MUST(count <= 3 * CONSOLE_PORTS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {NULL, "a", "org.minivmm.status"};
    struct console_control control;

    if (size == 0)
        return 0;
    memset(&control, 0, sizeof(control)); /* with its padding: states are compared as bytes */
    control.count = 1 + data[0] % CONSOLE_PORTS_MAX;
    for (unsigned i = 1; i < control.count; i++)
        control.names[i] = names[1 + i % 2];
    for (data++, size--; size >= 9; data += 9, size -= 9) {
        if (data[0] < 128)
            take(&control, data + 1);
        else if (data[0] < 250)
            hear(&control,
                 data[0] - 128u < 3 * CONSOLE_PORTS_MAX ? data[0] - 128u : 3 * CONSOLE_PORTS_MAX);
        else
            console_control_reset(&control);
    }
    hear(&control, 3 * CONSOLE_PORTS_MAX);
    MUST(console_control_next(&control, (uint8_t[CONSOLE_MESSAGE]){0}) == 0);
    return 0;
}
