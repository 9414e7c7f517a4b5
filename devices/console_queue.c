#include "devices/console_queue.h"

#include <string.h>

/* Copy `size` bytes from `offset` on out of a span; both are within it. */
static void copy_out(const struct virtq_span *span, uint64_t offset, uint8_t *to, size_t size)
{
    for (unsigned i = 0; size > 0; i++) {
        const struct iovec *piece = &span->iov[i];
        if (offset >= piece->iov_len) {
            offset -= piece->iov_len;
            continue;
        }
        size_t part = piece->iov_len - (size_t)offset;
        part = part < size ? part : size;
        memcpy(to, (const uint8_t *)piece->iov_base + offset, part);
        to += part;
        size -= part;
        offset = 0;
    }
}

int console_queue_gather(struct virtio_queue *tx, uint64_t *done, uint8_t *chunk, size_t room,
                         size_t *size, unsigned *puts)
{
    struct iovec iov[CONSOLE_PIECES];
    struct virtq_chain chain = {.iov = iov, .capacity = CONSOLE_PIECES};
    int rc = 1;

    *size = *puts = 0;
    while (*size < room && *puts < CONSOLE_BUDGET && (rc = virtq_next(&tx->ring, &chain)) == 1) {
        uint64_t left = chain.rd.length > *done ? chain.rd.length - *done : 0;
        size_t part = left < room - *size ? (size_t)left : room - *size;
        copy_out(&chain.rd, *done, chunk + *size, part);
        *size += part;
        if (part < left) {
            *done += part;
            virtq_undo(&tx->ring, &chain);
            break;
        }
        *done = 0;
        virtq_put(&tx->ring, &chain, 0);
        (*puts)++;
    }
    return rc;
}
