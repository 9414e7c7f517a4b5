/*
 * Split virtqueues, device side: virtio 1.2, section 2.7; linux/virtio_ring.h.
 *
 * A device sees a queue as chains of bytes, never as descriptors: `rd`, what it may read, and `wr`,
 * what it may write. Header split over descriptors, one-byte descriptors and indirect tables look
 * the same. Six calls make the data path:
 *
 *     virtq_start(q, ...)                     geometry is checked once and kept
 *     while (virtq_next(q, &chain) == 1) {
 *         ... serve it, or virtq_undo(q, &chain) and stop ...
 *         virtq_done(q, &chain, written);
 *     }
 *     if (virtq_wants_irq(q)) ...signal the call eventfd...
 *     if (virtq_idle(q)) ...go round again: the driver added something meanwhile...
 *
 * The driver is hostile. Whatever lies in shared memory is read once into a local and checked
 * there; a chain that breaks a rule breaks the queue, which then answers -EPROTO until it is
 * started again. What the device wrote into the rings is never read back. Work per call is bounded
 * by the queue's size. All calls belong to the thread that serves the queue.
 */
#ifndef VIRTIO_VIRTQ_H
#define VIRTIO_VIRTQ_H

#include <sys/uio.h>

#include "vmm/guest_mem.h"

#define VIRTQ_SIZE_MAX 32768u /* 2.7: the largest queue there is */

/* Where the driver put a queue, and which rules it negotiated. Untrusted. */
struct virtq_config {
    uint32_t size; /* entries: a power of two */
    uint64_t desc; /* guest-physical addresses of the three areas */
    uint64_t avail;
    uint64_t used;
    bool indirect;  /* VIRTIO_F_INDIRECT_DESC negotiated */
    bool event_idx; /* VIRTIO_F_EVENT_IDX negotiated */
};

/* A run of bytes scattered over guest memory. */
struct virtq_span {
    struct iovec *iov;
    unsigned count;
    uint64_t length; /* bytes in all, below 2^32 */
};

/*
 * A request. The caller provides `iov`, room for `capacity` pieces, and keeps it until virtq_done:
 * the data is used where it lies. virtq_next fills in the rest.
 */
struct virtq_chain {
    struct iovec *iov;
    unsigned capacity;
    uint16_t head; /* index of the first descriptor: the request's number while it is taken */
    struct virtq_span rd, wr; /* what the device may read, and what it may write */
};

struct virtq {
    const struct guest_mem *mem;
    const struct guest_region
        *near; /* where the buffer before lay: the next is sought there first */
    struct virtq_config config;
    /* The three areas in this process. */
    struct vring_desc *desc;
    struct vring_avail *avail;
    struct vring_used *used;
    uint16_t next_avail; /* 2.7.6: of the available ring, free-running */
    uint16_t next_used;  /* of the used ring, free-running; the ring's own copy is never read */
    uint16_t signalled;  /* next_used at the last virtq_wants_irq */
    bool notify_off;     /* the driver has been told not to kick */
    bool broken;
    bool *taken; /* for each head: the device has it; bytes, because bits take longer */
    unsigned taken_count;
};

/* Allocate what a queue of at most `size_max` entries needs; nothing is allocated later. -ENOMEM.
 */
int virtq_init(struct virtq *q, unsigned size_max);
void virtq_finish(struct virtq *q);

/*
 * Take a queue into service at `next_avail` (0 for a new one) with nothing taken. -EINVAL when its
 * size is no power of two or above size_max, or an area is misaligned (2.7), wraps, or is not in
 * RAM whole. `size_max` as for virtq_init.
 */
int virtq_start(struct virtq *q, const struct guest_mem *mem, const struct virtq_config *config,
                unsigned size_max, uint16_t next_avail);

/*
 * The next request: 1 and *chain, 0 when there is none, -EPROTO when the driver broke the queue now
 * or before. A chain of more pieces than chain->capacity breaks it: devices offer limits and give
 * that much.
 */
int virtq_next(struct virtq *q, struct virtq_chain *chain);

/* How many requests the driver has waiting, so far as it tells. */
unsigned virtq_waiting(const struct virtq *q);

/*
 * How many of the queue's descriptors a taken request occupies, from 1 to `most`, where counting
 * ends: an indirect table is one. Read anew from the driver's memory, so this is its word.
 */
unsigned virtq_slots(const struct virtq *q, const struct virtq_chain *chain, unsigned most);

/* Put the request that virtq_next gave last back, untouched: it comes again. */
void virtq_undo(struct virtq *q, const struct virtq_chain *chain);

/*
 * Give a request back, in any order. `written` is how many bytes from the start of chain->wr were
 * written (2.7.8.2), at most its length. The iov is the caller's again.
 */
void virtq_done(struct virtq *q, const struct virtq_chain *chain, uint32_t written);

/*
 * The two halves of virtq_done, for requests that the driver must see all at once: put them one by
 * one, then publish.
 */
void virtq_put(struct virtq *q, const struct virtq_chain *chain, uint32_t written);
void virtq_publish(struct virtq *q);

/* After a batch of virtq_done, 65535 of them at most: must the driver be interrupted (2.7.7.2)? */
bool virtq_wants_irq(struct virtq *q);

/*
 * Nothing left to do: ask for kicks again (2.7.10.2). True when a request arrived meanwhile: then
 * there may be no kick for it.
 */
bool virtq_idle(struct virtq *q);

#endif
