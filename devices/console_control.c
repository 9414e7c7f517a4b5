#include "devices/console_control.h"

#include <endian.h>
#include <string.h>

void console_control_reset(struct console_control *control)
{
    memset(control->ports, 0, sizeof(control->ports));
}

static void add_ports(struct console_control *control)
{
    for (unsigned i = 0; i < control->count; i++) {
        struct console_port_state *port = &control->ports[i];
        if (control->names[i] && !port->added) /* 5.3.6.2.1: a port is added once */
            port->tell_add = true;
    }
}

int console_control_take(struct console_control *control,
                         const struct virtio_console_control *message)
{
    uint32_t id = le32toh(message->id);
    uint16_t event = le16toh(message->event), value = le16toh(message->value);

    if (event == VIRTIO_CONSOLE_DEVICE_READY) {
        if (value == 1)
            add_ports(control);
        return -1;
    }
    if (id >= control->count)
        return -1;
    struct console_port_state *port = &control->ports[id];
    if (event == VIRTIO_CONSOLE_PORT_READY && value == 1 && port->added && !port->ready) {
        port->ready = port->tell_name = port->tell_open = true;
    } else if (event == VIRTIO_CONSOLE_PORT_OPEN && value <= 1 && port->ready &&
               port->open != (value == 1)) {
        port->open = value == 1;
        return (int)id;
    }
    return -1;
}

/* The port with the next message, and where it says so; NULL when there is none. */
static bool *find(struct console_control *control, unsigned *id, uint16_t *event)
{
    for (unsigned i = 0; i < control->count; i++) {
        struct console_port_state *port = &control->ports[i];
        *id = i;
        *event = port->tell_add    ? VIRTIO_CONSOLE_PORT_ADD
                 : port->tell_name ? VIRTIO_CONSOLE_PORT_NAME
                                   : VIRTIO_CONSOLE_PORT_OPEN;
        bool *told = port->tell_add ? &port->tell_add : port->tell_name ? &port->tell_name : NULL;
        if (told || port->tell_open)
            return told ? told : &port->tell_open;
    }
    return NULL;
}

size_t console_control_next(struct console_control *control, uint8_t message[CONSOLE_MESSAGE])
{
    struct virtio_console_control header;
    unsigned id;
    uint16_t event;

    if (!find(control, &id, &event))
        return 0;
    header = (struct virtio_console_control){
        .id = htole32(id), .event = htole16(event), .value = htole16(1)};
    memcpy(message, &header, sizeof(header));
    if (event != VIRTIO_CONSOLE_PORT_NAME)
        return sizeof(header);
    size_t length = strnlen(control->names[id], CONSOLE_NAME_MAX);
    memcpy(message + sizeof(header), control->names[id], length);
    return sizeof(header) + length;
}

void console_control_sent(struct console_control *control)
{
    unsigned id;
    uint16_t event;
    bool *tell = find(control, &id, &event);

    if (!tell)
        return;
    *tell = false;
    if (event == VIRTIO_CONSOLE_PORT_ADD)
        control->ports[id].added = true;
}
