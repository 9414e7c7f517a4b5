/*
 * Input of one port of virtio-console, between the host's stream and the driver: a small buffer,
 * with the escape taken out of it. All on the loop's thread.
 */
#ifndef DEVICES_CONSOLE_INPUT_H
#define DEVICES_CONSOLE_INPUT_H

#include "devices/escape.h"
#include "devices/host_stream.h"
#include "virtio/virtio.h"

#define CONSOLE_INPUT_SIZE 16384u

struct console_input {
    bool escape_on; /* it is looked for */
    struct escape escape;
    uint8_t bytes[CONSOLE_INPUT_SIZE]; /* [begin, end) wait for the driver */
    size_t begin, end;
    bool stream_waits; /* it may have more */
    uint64_t taken_ns; /* when the driver last took something, or it began to wait */
};

/* How many bytes it takes; 0: the stream is resumed once the driver has taken all. */
size_t console_input_room(struct console_input *input);

/* At most so many as there is room for; true: the escape was among them. */
bool console_input_add(struct console_input *input, const uint8_t *data, size_t length);

/* Give the driver what waits; as a serve function (virtio/local.h). */
int console_input_serve(struct console_input *input, struct virtio_queue *rx,
                        struct host_stream *stream);

#endif
