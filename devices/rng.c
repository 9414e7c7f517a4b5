#include "devices/rng.h"

#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/random.h>

#include "virtio/local.h"

#define QUEUE_SIZE 64u
/* Requests served before others have their turn: 1 MiB of random bytes takes some milliseconds. */
#define BUDGET 16u

/* Fill what the driver offers; returns how many bytes from its start are random now. */
static uint32_t fill(const struct virtq_span *span)
{
    uint32_t filled = 0;

    for (unsigned i = 0; i < span->count && filled < RNG_BYTES_MAX; i++) {
        size_t want = span->iov[i].iov_len;
        if (want > RNG_BYTES_MAX - filled)
            want = RNG_BYTES_MAX - filled;
        /* Above 256 bytes a signal may cut it short: 5.4.6.2 asks for one byte at least. */
        ssize_t got = getrandom(span->iov[i].iov_base, want, 0);
        if (got > 0)
            filled += (uint32_t)got;
        if (got < (ssize_t)want)
            break;
    }
    return filled;
}

static int serve(struct virtio_queue *queue)
{
    struct iovec iov[QUEUE_SIZE + 1]; /* one buffer may lie across two regions of memory */
    struct virtq_chain chain = {.iov = iov, .capacity = QUEUE_SIZE + 1};

    for (unsigned i = 0; i < BUDGET; i++) {
        int rc = virtq_next(&queue->ring, &chain);
        if (rc <= 0)
            return rc;
        local_done(queue, &chain, fill(&chain.wr));
    }
    return 1;
}

static const struct virtio_type rng_type = {.name = "rng", .id = VIRTIO_ID_RNG, .serve = serve};

int rng_init(struct rng *rng, const struct guest_mem *mem, struct event_loop *loop,
             struct minivmm_error *err)
{
    int rc = virtio_init(&rng->dev, &rng_type, mem, loop, 0, 1, QUEUE_SIZE, NULL, 0);
    return rc < 0 ? error_set(err, rc, "rng: %s", strerror(-rc)) : 0;
}

void rng_finish(struct rng *rng)
{
    virtio_finish(&rng->dev);
}
