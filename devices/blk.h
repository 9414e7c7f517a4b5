/*
 * virtio-blk, the block device: virtio 1.2, section 5.2; linux/virtio_blk.h.
 *
 * The path of a request: serve() takes a chain off a queue, reads its header, and hands the data's
 * place in guest memory to the disk (disk.h); when that is done, the status byte is written and the
 * chain given back. No data is copied here and nothing is allocated.
 */
#ifndef DEVICES_BLK_H
#define DEVICES_BLK_H

#include "devices/disk.h"
#include "virtio/virtio.h"

#define BLK_QUEUES_MAX     16u
#define BLK_QUEUE_SIZE     256u /* entries, unless the configuration says otherwise */
#define BLK_QUEUE_SIZE_MIN 4u   /* header, data and status, and a power of two */
#define BLK_SERIAL_MAX     20u  /* bytes, VIRTIO_BLK_ID_BYTES */

struct blk_config {
    bool readonly;
    bool writethrough;   /* the driver finds the cache in write-through mode */
    const char *serial;  /* at most BLK_SERIAL_MAX bytes; NULL: none */
    unsigned queues;     /* 1..BLK_QUEUES_MAX */
    unsigned queue_size; /* a power of two from BLK_QUEUE_SIZE_MIN to VIRTQ_SIZE_MAX */
    /* The host could not do it, `error` an errno, and the guest is told so. On the loop's thread.
     * NULL: nobody wants to know. */
    void (*failed)(void *arg, enum disk_op op, int error);
    void *arg;
};

struct blk;

/* In front of `disk`, which stays the caller's and outlives it. Negative errno, with a text. */
int blk_create(const struct blk_config *config, struct disk *disk, const struct guest_mem *mem,
               struct event_loop *loop, struct blk **blk, struct minivmm_error *err);
void blk_destroy(struct blk *blk); /* NULL is allowed */

/* The device that a transport presents. */
struct virtio_dev *blk_device(struct blk *blk);

#endif
