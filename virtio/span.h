/*
 * Taking a span of guest memory apart: headers off its front, a status byte off its end. What lies
 * in how many pieces makes no difference (virtio 1.2, 2.7.4.1).
 */
#ifndef VIRTIO_SPAN_H
#define VIRTIO_SPAN_H

#include "virtio/virtq.h"

/* Copy the first `size` bytes out, once, and drop them from the span. False when it has fewer. */
bool span_take(struct virtq_span *span, void *to, size_t size);

/* Copy into the first bytes and drop them; returns how many there was room for. */
size_t span_put(struct virtq_span *span, const void *from, size_t size);

/* Drop the last byte and return where it is; NULL when the span is empty. */
uint8_t *span_take_last(struct virtq_span *span);

#endif
