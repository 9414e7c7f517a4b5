/*
 * What a program holds of its host: taken before a guest misbehaves, and compared afterwards. A
 * device that its guest can make leak, spin or start threads shows here. No Criterion.
 */
#ifndef TESTS_UNIT_RESOURCES_H
#define TESTS_UNIT_RESOURCES_H

#include "vmm/event_loop.h"

struct resources {
    unsigned descriptors;
    unsigned threads;
    size_t heap; /* bytes in use; 0 where a sanitizer has replaced the allocator */
};

#define RESOURCES_HEAP (256u << 10) /* bytes that may come and stay: drivers, queues, caches */

void resources_take(struct resources *resources);

/*
 * Has it all come back, but for `extra_threads` at most, and does the event loop sleep? `thread` is
 * the loop's if it has one. False, with a line on stderr that says what has not.
 */
bool resources_are_back(const struct resources *before, unsigned extra_threads,
                        struct event_loop *loop, pthread_t thread);

#endif
