/* A disk on an event loop that the test's own thread runs, and the image behind it. */
#ifndef TESTS_UNIT_DISK_RIG_H
#define TESTS_UNIT_DISK_RIG_H

#include "devices/disk.h"
#include "tests/unit/support.h"

struct disk_rig {
    char dir[64];
    char image[96];
    struct event_loop loop;
    struct disk *disk;
    unsigned under_way; /* requests; the loop stops when it falls to `enough` */
    unsigned enough;
};

/* A request of a rig. The owner sets op to iov_count. */
struct rig_request {
    struct disk_request request;
    struct disk_rig *rig;
    int result;
    unsigned ended; /* how often `done` was called */
};

/* A new directory with a file of so many bytes, of which none is 0, in `parent`. */
void rig_init(struct disk_rig *rig, const char *parent, uint64_t size);
void rig_finish(struct disk_rig *rig);

/* Open the image, or `config->path` if there is one; it has to go well. */
void rig_open(struct disk_rig *rig, struct disk_config config);
void rig_close(struct disk_rig *rig);

void rig_submit(struct disk_rig *rig, struct rig_request *request);

/* Hand on and run the loop until no more than so many requests are under way. */
void rig_wait(struct disk_rig *rig, unsigned under_way);

/* Submit and wait for one request with one piece of memory, and return its result. */
int rig_do(struct disk_rig *rig, enum disk_op op, uint64_t offset, void *data, uint64_t length);

/* The byte that rig_init puts at an offset. */
uint8_t rig_pattern(uint64_t offset);

/* Threads of this process. */
unsigned rig_threads(void);

#endif
