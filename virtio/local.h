/*
 * The local datapath: this process serves the rings, on the event loop's thread.
 *
 * A kick makes the loop call the device type's `serve`, which takes chains with virtq_next until
 * there are none, and answers
 *     0        the ring is empty: kicks are asked for again, and the ring is looked at once more
 *     1        enough chains were taken: others have their turn, then it goes on
 *     -EAGAIN  the device cannot take more now; it calls local_resume when it can
 *     -EPROTO  from virtq_next: the driver broke the ring; the device needs a reset
 * Requests may complete later, in any order. Interrupts are given once a drain or a batch of
 * completions, and only where the driver wants them.
 */
#ifndef VIRTIO_LOCAL_H
#define VIRTIO_LOCAL_H

#include "virtio/virtio.h"

extern const struct virtio_datapath local_datapath;

/* A request is done: virtq_done, the interrupt, and the end of a stop that waited for it. */
void local_done(struct virtio_queue *queue, const struct virtq_chain *chain, uint32_t written);

/* The same for what was given back with virtq_put: one request of several chains. */
void local_publish(struct virtio_queue *queue);

/* The device can take requests from this queue again; at once if it runs, else never mind. */
void local_resume(struct virtio_queue *queue);

/*
 * On a vCPU's thread, for a queue whose driver has just notified it: serve it here and now if the
 * loop sleeps and there is little to do. Waking the loop's thread would take several times as long
 * as a request, and the vCPU has left the guest already. More than a little is the loop's, which
 * then works while the guest goes on; so is a queue of bulk.
 */
#define LOCAL_LITTLE 2u /* requests */
enum local_try {
    LOCAL_DONE, /* or handed over to the loop */
    LOCAL_BUSY, /* the loop is at work: it has to be told */
};
enum local_try local_try(struct virtio_queue *queue);

/*
 * From the device's handlers: the requests of this queue are, or are no longer, much data with
 * nobody waiting for each. Serving them one by one as they come makes an answer and an interrupt of
 * each; they are the loop's, and batches (event_loop_bulk). The end of service ends it.
 */
void local_bulk(struct virtio_queue *queue, bool bulk);

#endif
