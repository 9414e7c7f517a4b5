/*
 * Counters that one thread writes at a time and any thread may read: no lock, no locked
 * instruction, and no value that never was.
 */
#ifndef VMM_COUNTER_H
#define VMM_COUNTER_H

#include <stdint.h>

static inline void counter_add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline uint64_t counter_get(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

#endif
