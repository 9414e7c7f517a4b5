#include "tests/unit/queue.h"

#include <criterion/criterion.h>
#include <string.h>

void queue_init_at(struct queue *t, uint32_t size, bool indirect, bool event_idx, uint16_t first)
{
    struct minivmm_error err;
    struct virtq_config config = fake_driver_layout(RAM_C, size, indirect, event_idx);

    memset(t, 0, sizeof(*t));
    cr_assert_eq(guest_mem_add(&t->mem, RAM_A, RAM_B - RAM_A, &err), 0, "%s", err.text);
    cr_assert_eq(guest_mem_add(&t->mem, RAM_B, RAM_HOLE - RAM_B, &err), 0, "%s", err.text);
    cr_assert_eq(guest_mem_add(&t->mem, RAM_C, RAM_END - RAM_C, &err), 0, "%s", err.text);
    fake_driver_init(&t->driver, &t->mem, &config, first);
    t->chain = (struct virtq_chain){.iov = t->iov, .capacity = QUEUE_IOV_MAX};
    cr_assert_eq(virtq_init(&t->q, size), 0);
    cr_assert_eq(virtq_start(&t->q, &t->mem, &config, size, first), 0);
}

void queue_init(struct queue *t, uint32_t size, bool indirect, bool event_idx)
{
    queue_init_at(t, size, indirect, event_idx, 0);
}

void queue_finish(struct queue *t)
{
    virtq_finish(&t->q);
    fake_driver_finish(&t->driver);
    guest_mem_finish(&t->mem);
}

void queue_restart(struct queue *t)
{
    struct virtq_config config = t->driver.config;

    fake_driver_finish(&t->driver);
    fake_driver_init(&t->driver, &t->mem, &config, 0);
    cr_assert_eq(virtq_start(&t->q, &t->mem, &config, config.size, 0), 0);
}

int queue_next(struct queue *t)
{
    return virtq_next(&t->q, &t->chain);
}

void queue_serve(struct queue *t)
{
    int rc = queue_next(t);
    if (rc != 1)
        cr_assert_fail("no request where one must be: %d", rc);
    virtq_done(&t->q, &t->chain, (uint32_t)t->chain.wr.length);
}

uint64_t queue_gpa(const struct queue *t, const void *host)
{
    for (unsigned i = 0; i < t->mem.count; i++) {
        const struct guest_region *region = &t->mem.regions[i];
        uintptr_t offset = (uintptr_t)host - (uintptr_t)region->host;
        if (offset < region->size)
            return region->gpa + offset;
    }
    return 0;
}

bool queue_span_is(const struct queue *t, const struct virtq_span *span, const struct piece *want,
                   unsigned count)
{
    uint64_t bytes = 0, total = 0;
    unsigned piece = 0;
    uint32_t offset = 0;

    for (unsigned i = 0; i < count; i++)
        total += want[i].len;
    for (unsigned i = 0; i < span->count; i++) {
        const uint8_t *base = span->iov[i].iov_base;
        if (span->iov[i].iov_len == 0)
            return false;
        for (size_t at = 0; at < span->iov[i].iov_len; at++, bytes++, offset++) {
            while (piece < count && offset == want[piece].len) {
                piece++;
                offset = 0;
            }
            if (piece == count || queue_gpa(t, base + at) != want[piece].gpa + offset)
                return false;
        }
    }
    return bytes == total && span->length == total;
}
