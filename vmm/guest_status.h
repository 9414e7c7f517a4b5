/*
 * What a guest reports through its status port: lines with a decimal number. The last line counts,
 * so that a test may begin with 1 and end with 0. A line that is no number from 0 to 119 counts as
 * 119: whoever meant something by it did not mean a pass.
 */
#ifndef VMM_GUEST_STATUS_H
#define VMM_GUEST_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero: nothing was reported. */
struct guest_status {
    bool reported;  /* a whole line */
    unsigned value; /* of the last one */
    /* The line that has begun. */
    unsigned length;
    unsigned number; /* above the largest status: too large */
    bool strange;    /* something else than digits, or something behind a carriage return */
    bool returned;   /* a carriage return was the last */
};

void guest_status_feed(struct guest_status *status, const uint8_t *data, size_t size);

/* The status, a line without an end included; 0 as well when nothing was reported. */
int guest_status(const struct guest_status *status);

#endif
