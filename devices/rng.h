/*
 * virtio-rng, the entropy device: virtio 1.2, section 5.4. The smallest device there is, and the
 * example to read first: one queue, whose buffers are filled with random bytes of the host's.
 */
#ifndef DEVICES_RNG_H
#define DEVICES_RNG_H

#include "virtio/virtio.h"

/* Bytes given for a request at most, however much it asks for: work on the loop is bounded. */
#define RNG_BYTES_MAX 65536u

struct rng {
    struct virtio_dev dev;
};

/* Negative errno, with a text. */
int rng_init(struct rng *rng, const struct guest_mem *mem, struct event_loop *loop,
             struct minivmm_error *err);
void rng_finish(struct rng *rng); /* harmless on {0} */

#endif
