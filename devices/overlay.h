/*
 * A copy-on-write overlay: an unlinked file that holds the blocks of an image that were changed,
 * and a bitmap that says which. It ends with its descriptor, whatever happens to the process.
 *
 * A block that is present is read from the overlay, for ever; its bit is set when its data is in
 * place. So reads need no lock, and changes, of which one at a time is under way, take the lock.
 * The bitmap takes 32 KiB of memory a GiB of image that is written to; where nothing is written, it
 * takes none.
 */
#ifndef DEVICES_OVERLAY_H
#define DEVICES_OVERLAY_H

#include <pthread.h>

#include "devices/disk_file.h"

#define OVERLAY_BLOCK 4096u

struct overlay {
    struct disk_file file;
    struct disk_file *image; /* never written */
    uint64_t size;           /* bytes, of both */
    uint64_t *present;       /* a bit a block; atomic words */
    uint64_t present_bytes;  /* of the mapping */
    pthread_mutex_t lock;
};

/*
 * `dir` is where it lies while it lives. An error's text begins with `what` and names the cure.
 * After an error overlay_finish is not needed.
 */
int overlay_init(struct overlay *overlay, struct disk_file *image, uint64_t size, const char *dir,
                 const char *what, struct minivmm_error *err);
void overlay_finish(struct overlay *overlay);

/*
 * The file that a read or write of this range can go to as a whole, or NULL when it takes more than
 * that. On the loop's thread, at any time.
 */
struct disk_file *overlay_whole(struct overlay *overlay, uint64_t offset, uint64_t length,
                                bool write);

/* Do what is left of a request. On a worker's thread. */
int overlay_run(struct overlay *overlay, struct disk_request *request);

#endif
