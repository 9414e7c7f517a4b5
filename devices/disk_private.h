/* What the parts of the disk backend (disk*.c) know of each other. */
#ifndef DEVICES_DISK_PRIVATE_H
#define DEVICES_DISK_PRIVATE_H

#include <pthread.h>

#include "devices/disk_file.h"
#include "devices/overlay.h"
#include "devices/workers.h"

struct direct;

struct disk {
    struct event_loop *loop;
    struct disk_file image;
    uint64_t size;
    unsigned tail;
    unsigned block_size;
    unsigned discard_unit;
    bool readonly;
    char what[288]; /* "disk N: PATH", for error texts; a longer path keeps its beginning */

    struct overlay overlay;
    bool has_overlay;
    struct direct *direct; /* NULL: through the page cache */
    struct workers workers;
    bool has_workers;

    pthread_mutex_t sync_lock;
    uint64_t syncs_started; /* atomic */
    uint64_t synced;        /* the last one of them that has gone well; with the lock held */
    int failure;            /* atomic; see disk_failure */
};

/* ---- disk.c */

/* The request has ended. On the loop's thread; its owner may submit another one from within. */
void disk_complete(struct disk *disk, struct disk_request *request, int result);

/* What has been written may be lost: from now on the disk only reads. Any thread. */
void disk_fail(struct disk *disk, int error);

/* ---- disk_open.c */

/*
 * Open the image and set everything of `disk` down to `what`. On failure image.fd is closed, or
 * still to be closed by the caller.
 */
int disk_open(struct disk *disk, const struct disk_config *config, struct minivmm_error *err);

/* ---- disk_lock.c */

/* Lock the image against writers, or with `exclusive` against everybody. */
int disk_lock(const struct disk *disk, bool exclusive, struct minivmm_error *err);

/* Name a process, other than this one, that has the file open: "process 1 (init)". */
bool disk_find_user(int fd, char *text, size_t size);

/* ---- disk_direct.c */

/*
 * Round the page cache. `path` is opened once more, and has to be what disk->image is. Sets
 * block_size.
 */
int direct_create(struct disk *disk, const char *path, struct minivmm_error *err);
void direct_destroy(struct direct *direct);

/* Start a request that is not a flush. On the loop's thread. */
void direct_submit(struct direct *direct, struct disk_request *request);
void direct_kick(struct direct *direct);

/* A request that was submitted has ended. On the loop's thread, before its owner hears of it. */
void direct_ended(struct direct *direct, const struct disk_request *request);

/* Do what is left of a read or write. On a worker's thread. */
int direct_run(struct direct *direct, struct disk_request *request);

/* The descriptor that a change of this range goes through when it is made by writing. */
int direct_fd(const struct direct *direct, uint64_t offset, uint64_t length);

#endif
