/*
 * A disk image on the host: a file or block device that serves reads, writes, flushes, discards and
 * zeroing, asynchronously, for a block device in front of it. Knows nothing of virtio.
 *
 * Requests belong to the loop's thread: they are submitted there, collected until disk_kick, and
 * their `done` is called there, possibly before disk_submit returns. What can be served without
 * waiting is served at once; what cannot goes to libaio (`direct`) or to a few worker threads, so
 * that a slow image delays nothing but itself. A short transfer is continued, EINTR and EAGAIN are
 * handled; everything else reaches `done` as it is. Requests under way together have no order, but
 * never harm a byte outside their own ranges.
 *
 * An image may shrink or vanish while it is in use: what lies past its end is -EIO for a read,
 * while a write there makes it grow again, up to the size it had at first and never beyond. After
 * a flush has failed the kernel may have dropped what was to be written, so all that changes or
 * flushes the disk fails with -EIO from then on, until the disk is opened anew.
 *
 * Opening makes one thread, and more are made only when needed and if allowed: a sandbox may be
 * installed as soon as disk_create has returned. Nothing is opened later, and nothing allocated but
 * stacks of threads and, for `direct`, one ring of libaio and at most WORKERS_MAX bounce buffers.
 */
#ifndef DEVICES_DISK_H
#define DEVICES_DISK_H

#include <sys/uio.h>

#include "devices/workers.h"
#include "vmm/event_loop.h"

#define DISK_SECTOR 512u

enum disk_op {
    DISK_READ,
    DISK_WRITE,
    DISK_FLUSH,      /* every write that was done before is on stable storage */
    DISK_DISCARD,    /* the range is not needed any more: a hint, its contents are undefined */
    DISK_ZERO,       /* the range reads as zeroes; its space stays */
    DISK_ZERO_UNMAP, /* the range reads as zeroes; its space may go */
};

/*
 * A request: lies in its owner's memory, who fills in the first part and leaves all of it alone
 * until `done`, which may submit it anew. Offset and length are multiples of DISK_SECTOR and lie
 * within the disk's size (-EINVAL otherwise). The memory behind `iov` may lie anywhere, in pieces
 * of any length, 0 included; the iov array itself is the disk's to change.
 */
struct disk_request {
    enum disk_op op;
    bool durable;       /* a change that must be on stable storage before it is done */
    uint64_t offset;    /* bytes, unused by a flush */
    uint64_t length;    /* bytes; of a read or write, exactly what the iov holds */
    struct iovec *iov;  /* of a read or write */
    unsigned iov_count; /* may be above IOV_MAX */
    void (*done)(struct disk_request *request, int result); /* 0, or a negative errno */

    /* The disk's own. */
    struct work work;
    uint64_t transferred;
    int result;
};

struct disk_config {
    const char *path;
    unsigned index;          /* for error texts: "disk N" */
    bool readonly;           /* never written, opened so */
    bool direct;             /* O_DIRECT: round the page cache */
    bool ephemeral;          /* writes go to an overlay that nobody else sees and that ends with
                                the disk; neither with readonly nor with direct */
    const char *overlay_dir; /* where the overlay lies while it lives; NULL: /var/tmp */
};

struct disk;

/*
 * Open and lock the image. A writable one is locked against everybody, a read-only or ephemeral one
 * against writers. The text of an error begins with "disk N: PATH: " and names the cure; for a
 * locked image, the process to stop. The strings of `config` need to live only until this returns.
 * On failure *disk is NULL.
 */
int disk_create(const struct disk_config *config, struct event_loop *loop, struct disk **disk,
                struct minivmm_error *err);

/* No request may be under way. NULL is allowed. The loop has stopped, does not run yet, or this is
 * its thread. */
void disk_destroy(struct disk *disk);

/* Bytes that can be addressed: the image's size rounded down to whole sectors, fixed at create. */
uint64_t disk_size(const struct disk *disk);

/* Bytes behind the last whole sector, which nobody can reach: 0 to DISK_SECTOR - 1. */
unsigned disk_tail_bytes(const struct disk *disk);

/*
 * The image's own block size in bytes, a power of two from 512 on: what is not aligned to it is
 * served, but smaller writes cost a read and wait for each other. 512 unless the image is a block
 * device or `direct`.
 */
unsigned disk_block_size(const struct disk *disk);

/*
 * Does discarding return space to the host, and in which unit in bytes? 0: it cannot. Of a file
 * this is a promise of its kind, not tried: a file system that cannot is noticed at the first try,
 * and further discards do nothing.
 */
unsigned disk_discard_unit(const struct disk *disk);

/* 0, or what the flush failed with (a negative errno) that put an end to writing. Any thread. */
int disk_failure(const struct disk *disk);

void disk_submit(struct disk *disk, struct disk_request *request);

/* After a batch of disk_submit, also after one from within `done`: hand on what was collected. */
void disk_kick(struct disk *disk);

#endif
