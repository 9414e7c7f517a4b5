/*
 * A guest's driver of a virtio block device (virtio 1.2, section 5.2): requests in any shape of
 * descriptors, one at a time or many. Header and status byte of a request lie in guest memory that
 * the driver was given; the data lies where the caller says.
 */
#ifndef TESTS_UNIT_BLK_DRIVER_H
#define TESTS_UNIT_BLK_DRIVER_H

#include <linux/virtio_blk.h>

#include "tests/unit/virtio_driver.h"

#define BLK_DRIVER_CONTROLS 1024u /* requests that can be under way, of all queues */
#define BLK_DRIVER_HEADS    4096u /* the largest queue it drives */
#define BLK_DRIVER_NONE     0xffu /* a status byte that no device writes */
#define BLK_DRIVER_PIECES   544u
#define BLK_DRIVER_MEMORY   (BLK_DRIVER_CONTROLS * (64 + 16 * 16) + 16 * 16 * BLK_DRIVER_PIECES)

struct blk_driver {
    struct virtio_driver v;
    uint64_t controls; /* BLK_DRIVER_MEMORY bytes of guest memory */
    uint32_t piece;    /* length of descriptors at most; 0: one for each part */
    bool
        indirect; /* descriptors in a table of their own, a few of more than 16 entries at a time */
    uint16_t control_of[VIRTIO_DRIVER_QUEUES][BLK_DRIVER_HEADS];
    uint64_t taken[BLK_DRIVER_CONTROLS / 64];
    uint32_t used_length; /* of the request that ended last */
};

/* A request: `data` is what it transfers, in as many pieces as one likes. */
struct blk_request {
    uint32_t type;
    uint64_t sector;
    const struct piece *data;
    unsigned data_count;
};

/* Offer and publish it, without a kick. Returns its number until it has ended. */
uint16_t blk_driver_send(struct blk_driver *d, unsigned queue, const struct blk_request *request);

/* A request that has ended: true with its number and status. */
bool blk_driver_take(struct blk_driver *d, unsigned queue, uint16_t *number, uint8_t *status);

/* The same, waited for. */
bool blk_driver_wait(struct blk_driver *d, unsigned queue, uint16_t *number, uint8_t *status);

/* The driver has been started anew: nothing is under way. */
void blk_driver_forget(struct blk_driver *d);

/* On queue 0 from start to end; the status, or BLK_DRIVER_NONE when there was no answer. */
uint8_t blk_driver_do(struct blk_driver *d, const struct blk_request *request);
uint8_t blk_driver_read(struct blk_driver *d, uint64_t sector, uint64_t gpa, uint32_t length);
uint8_t blk_driver_write(struct blk_driver *d, uint64_t sector, uint64_t gpa, uint32_t length);
uint8_t blk_driver_flush(struct blk_driver *d);
uint8_t blk_driver_get_id(struct blk_driver *d, uint64_t gpa, uint32_t length);

/* Discard or write zeroes (`type`): the ranges are put at `gpa` first. */
uint8_t blk_driver_clear(struct blk_driver *d, uint32_t type,
                         const struct virtio_blk_discard_write_zeroes *ranges, unsigned count,
                         uint64_t gpa);

#endif
