/*
 * A virtqueue with both its sides, in guest RAM that has an inner border and a hole:
 *
 *     RAM_A  1 MiB | RAM_B  1 MiB | RAM_HOLE  1 MiB | RAM_C  4 MiB | RAM_END
 *
 * The rings are at RAM_C; QUEUE_FREE and above are never theirs, whatever the queue's size.
 */
#ifndef TESTS_UNIT_QUEUE_H
#define TESTS_UNIT_QUEUE_H

#include "tests/unit/fake_driver.h"

#define RAM_A      0x100000ull
#define RAM_B      0x200000ull
#define RAM_HOLE   0x300000ull
#define RAM_C      0x400000ull
#define RAM_END    0x800000ull
#define QUEUE_FREE 0x600000ull

#define QUEUE_IOV_MAX 2048

struct queue {
    struct guest_mem mem;
    struct fake_driver driver;
    struct virtq q;
    struct virtq_chain chain; /* what queue_next gave */
    struct iovec iov[QUEUE_IOV_MAX];
};

/* A new queue, in service. */
void queue_init(struct queue *t, uint32_t size, bool indirect, bool event_idx);

/* The same whose indices start at `first`. */
void queue_init_at(struct queue *t, uint32_t size, bool indirect, bool event_idx, uint16_t first);
void queue_finish(struct queue *t);

/* Both sides forget everything and start over. */
void queue_restart(struct queue *t);

/* virtq_next into t->chain. */
int queue_next(struct queue *t);

/* virtq_next and virtq_done of what must be there; every byte of `wr` is said to be written. */
void queue_serve(struct queue *t);

/* The guest-physical address behind a pointer, 0 when it is none of guest RAM. */
uint64_t queue_gpa(const struct queue *t, const void *host);

/* Are the bytes of a span these, in this order? At most 64 KiB. */
bool queue_span_is(const struct queue *t, const struct virtq_span *span, const struct piece *want,
                   unsigned count);

#endif
