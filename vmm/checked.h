/*
 * Checked arithmetic for values that a guest or a file chose. Every function answers false on
 * overflow and leaves *out undefined then.
 */
#ifndef VMM_CHECKED_H
#define VMM_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* The next multiple of `align`, a power of two, at or above `value`. */
static inline bool checked_align_up(uint64_t value, uint64_t align, uint64_t *out)
{
    if (__builtin_add_overflow(value, align - 1, out))
        return false;
    *out &= ~(align - 1);
    return true;
}

/* Does [offset, offset + len) lie within [0, size)? */
static inline bool range_within(uint64_t offset, uint64_t len, uint64_t size)
{
    return offset <= size && len <= size - offset;
}

#endif
