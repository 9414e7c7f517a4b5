#include "devices/console_input.h"

#include <errno.h>
#include <string.h>

#include "devices/console_queue.h"
#include "virtio/local.h"
#include "virtio/span.h"
#include "vmm/clock.h"

/* A guest that has taken no input for so long is deaf. */
#define DEAF_NS NS_PER_SECOND

/*
 * One byte is kept back for the Ctrl-A that the escape filter may hold. Keys for a guest that has
 * stopped taking them are dropped: the escape among them must be seen.
 */
size_t console_input_room(struct console_input *input)
{
    size_t room = CONSOLE_INPUT_SIZE - (input->end - input->begin);

    room -= input->escape_on && room > 0;
    if (room == 0 && !input->stream_waits) {
        input->stream_waits = true;
        input->taken_ns = clock_now_ns();
    } else if (room == 0 && input->escape_on && clock_now_ns() - input->taken_ns > DEAF_NS) {
        room = CONSOLE_INPUT_SIZE;
    }
    return room;
}

bool console_input_add(struct console_input *input, const uint8_t *data, size_t length)
{
    uint8_t kept[CONSOLE_INPUT_SIZE + 1];
    bool leave = false;

    if (input->escape_on) {
        length = escape_filter(&input->escape, data, length, kept, &leave);
        data = kept;
    }
    if (input->begin > 0)
        memmove(input->bytes, input->bytes + input->begin, input->end - input->begin);
    input->end -= input->begin;
    input->begin = 0;
    size_t room = CONSOLE_INPUT_SIZE - input->end;
    length = length < room ? length : room;
    memcpy(input->bytes + input->end, data, length);
    input->end += length;
    return leave;
}

int console_input_serve(struct console_input *input, struct virtio_queue *rx,
                        struct host_stream *stream)
{
    struct iovec iov[CONSOLE_PIECES];
    struct virtq_chain chain = {.iov = iov, .capacity = CONSOLE_PIECES};

    for (unsigned i = 0; i < CONSOLE_BUDGET && input->begin < input->end; i++) {
        int rc = virtq_next(&rx->ring, &chain);
        if (rc <= 0)
            return rc;
        struct virtq_span wr = chain.wr;
        size_t put = span_put(&wr, input->bytes + input->begin, input->end - input->begin);
        input->begin += put;
        local_done(rx, &chain, (uint32_t)put);
        input->taken_ns = clock_now_ns();
    }
    if (input->begin < input->end)
        return 1;
    input->begin = input->end = 0;
    if (input->stream_waits)
        host_stream_resume_input(stream);
    input->stream_waits = false;
    return -EAGAIN;
}
