/*
 * A balloon behind virtio-mmio, with its driver, beside the devices of virtio_rig.h, which are the
 * canaries. Its rings are at BALLOON_RINGS, its lists of pages at BALLOON_LIST; the rest from RAM_A
 * to RAM_HOLE is the test's. No Criterion: other programs use it too.
 */
#ifndef TESTS_UNIT_BALLOON_RIG_H
#define TESTS_UNIT_BALLOON_RIG_H

#include <linux/virtio_balloon.h>

#include "devices/balloon.h"
#include "tests/unit/virtio_rig.h"

#define BALLOON_RINGS      0x780000ull
#define BALLOON_LIST       0x6a0000ull
#define BALLOON_LIST_BYTES (BALLOON_RINGS - BALLOON_LIST)

/* Queues when everything is negotiated. */
enum { QUEUE_INFLATE, QUEUE_DEFLATE, QUEUE_STATS, QUEUE_REPORTING };

struct balloon_rig {
    struct virtio_rig rig;
    struct balloon *balloon;
    struct virtio_mmio slot;
    struct virtio_driver v;
    unsigned heard; /* how often statistics came; the last are */
    struct minivmm_balloon_stats stats;
    unsigned moved; /* atomic */
};

/* Build it; the driver has found it. False with a text when the rest of the rig cannot be. */
bool balloon_rig_init(struct balloon_rig *r, bool threaded, struct minivmm_error *err);
void balloon_rig_finish(struct balloon_rig *r);

/* A list of page numbers on a queue from start to end; false when it does not come back. */
bool balloon_rig_list(struct balloon_rig *r, unsigned queue, const uint32_t *pages, unsigned count);

/* The canaries, and a balloon that takes a page. */
bool balloon_rig_works(struct balloon_rig *r);

#endif
