/*
 * Values of the form "FILE,flag,name=value": what stands behind an option of the command line. A
 * comma that belongs to a value is written twice.
 */
#ifndef VMM_SUBOPTIONS_H
#define VMM_SUBOPTIONS_H

#include <stddef.h>

#include "vmm/error.h"

struct suboption {
    const char *name;
    enum {
        SUBOPTION_FLAG,   /* a bool at `place`, set by its name alone */
        SUBOPTION_TEXT,   /* a const char *, not empty, at most `max` bytes */
        SUBOPTION_NUMBER, /* an unsigned from `min` to `max` */
        SUBOPTION_CHOICE, /* a bool: `choices` are the word for false and the word for true */
        SUBOPTION_MAC,    /* 6 bytes: aa:bb:cc:dd:ee:ff, of a single station, not all zero */
        SUBOPTION_LIST,   /* up to `max` texts, one each time it is given; an unsigned at
                             `count_place` says how many there are */
    } kind;
    size_t place;
    unsigned min, max;
    size_t count_place;
    const char *choices[2];
};

/*
 * Take `text` apart, in place. What comes first, which may be empty, is left in *first; the rest is
 * looked up in `table` and stored into the struct at `to`. -EINVAL with a text that begins with
 * `what`, "disk 0" say.
 */
int suboptions_parse(char *text, const struct suboption *table, unsigned count, void *to,
                     const char **first, const char *what, struct minivmm_error *err);

#endif
