/*
 * The escape of a serial terminal: Ctrl-A x asks to leave, Ctrl-A Ctrl-A sends one Ctrl-A, and any
 * other key after Ctrl-A goes to the guest together with the Ctrl-A.
 */
#ifndef DEVICES_ESCAPE_H
#define DEVICES_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct escape {
    bool pending; /* the last byte was a Ctrl-A that has not been sent */
};

/*
 * Filter `length` bytes of input into `out`, which has room for length + 1. Returns how many are
 * for the guest; sets *leave when the escape was typed, and drops what follows it.
 */
size_t escape_filter(struct escape *escape, const uint8_t *in, size_t length, uint8_t *out,
                     bool *leave);

#endif
