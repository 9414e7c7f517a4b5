#include "virtio/span.h"

#include <string.h>

static void drop(struct virtq_span *span, size_t size)
{
    span->iov->iov_base = (uint8_t *)span->iov->iov_base + size;
    span->iov->iov_len -= size;
    span->length -= size;
    if (span->iov->iov_len == 0) {
        span->iov++;
        span->count--;
    }
}

bool span_take(struct virtq_span *span, void *to, size_t size)
{
    uint8_t *at = to;

    if (span->length < size)
        return false;
    while (size > 0) {
        size_t part = span->iov->iov_len < size ? span->iov->iov_len : size;
        memcpy(at, span->iov->iov_base, part);
        drop(span, part);
        at += part;
        size -= part;
    }
    __asm__ volatile("" ::: "memory"); /* the guest may change it now: it is not read again */
    return true;
}

size_t span_put(struct virtq_span *span, const void *from, size_t size)
{
    const uint8_t *at = from;

    if (size > span->length)
        size = span->length;
    for (size_t left = size; left > 0;) {
        size_t part = span->iov->iov_len < left ? span->iov->iov_len : left;
        memcpy(span->iov->iov_base, at, part);
        drop(span, part);
        at += part;
        left -= part;
    }
    return size;
}

uint8_t *span_take_last(struct virtq_span *span)
{
    if (span->length == 0)
        return NULL;
    struct iovec *last = &span->iov[span->count - 1];
    span->length--;
    last->iov_len--;
    uint8_t *byte = (uint8_t *)last->iov_base + last->iov_len;
    if (last->iov_len == 0)
        span->count--;
    return byte;
}
