/* Random requests, many at a time, beside an image in memory that says what each must read. */
#ifndef TESTS_UNIT_DISK_MODEL_H
#define TESTS_UNIT_DISK_MODEL_H

#include "tests/unit/disk_rig.h"

struct model_config {
    const char *name;
    struct disk_config disk;
    bool durable; /* all changes */
    unsigned seed;
    unsigned rounds; /* requests */
    unsigned unit;   /* of offsets and lengths, in bytes; 0: DISK_SECTOR */
    unsigned often;  /* a unit that half of them have besides, if not 0 */
    uint64_t size;   /* the part of the disk that is used; 0: all of it */
};

/*
 * Requests on the rig's disk, which it opens and closes, and at the end a look at the whole image
 * through a disk opened anew. The image begins with what is in it.
 */
void model_run(struct disk_rig *rig, const struct model_config *config);

#endif
