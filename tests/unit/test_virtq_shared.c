/* What the device writes to memory that both sides see, and what it reads there (S11, S16, B17). */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/queue.h"
#include "tests/unit/support.h"

SUITE(virtq_shared);

#define TABLE (QUEUE_FREE + 0x10000)

static uint8_t *snapshot(const struct queue *t)
{
    uint8_t *copy = malloc(guest_mem_size(&t->mem)), *to = copy;
    for (unsigned i = 0; i < t->mem.count; to += t->mem.regions[i++].size)
        memcpy(to, t->mem.regions[i].host, t->mem.regions[i].size);
    return copy;
}

/* How many bytes of guest RAM differ from the copy outside [gpa, gpa + size). */
static unsigned changed_outside(const struct queue *t, const uint8_t *copy, uint64_t gpa,
                                uint64_t size)
{
    unsigned count = 0;
    for (unsigned i = 0; i < t->mem.count; copy += t->mem.regions[i++].size) {
        const struct guest_region *region = &t->mem.regions[i];
        if (memcmp(copy, region->host, region->size) == 0)
            continue;
        for (uint64_t at = 0; at < region->size; at++)
            count += copy[at] != region->host[at] && region->gpa + at - gpa >= size;
    }
    return count;
}

/* S11. Descriptors, available ring and buffers stay as they are; only the used ring changes. */
Test(virtq_shared, S11_only_the_used_ring_is_written)
{
    for (int event_idx = 0; event_idx < 2; event_idx++) {
        struct queue t;
        queue_init(&t, 8, true, event_idx);
        for (unsigned i = 0; i < 8; i++) {
            const struct piece pieces[] = {{RAM_A + 64 * i, 16, false}, {RAM_B + 64 * i, 16, true}};
            fake_driver_write(&t.driver, RAM_A + 64 * i, "data of the driver", 16);
            fake_driver_offer(&t.driver, i % 2 ? fake_driver_add(&t.driver, pieces, 1)
                                               : fake_driver_add_indirect(&t.driver, pieces, 2, 0,
                                                                          TABLE + 64 * i));
        }
        fake_driver_publish(&t.driver);
        fake_driver_set_avail_flags(&t.driver, 1);
        fake_driver_set_used_event(&t.driver, 3);
        uint8_t *before = snapshot(&t);
        for (unsigned i = 0; i < 8; i++)
            queue_serve(&t);
        cr_expect_eq(queue_next(&t), 0);
        virtq_wants_irq(&t.q);
        virtq_idle(&t.q);
        cr_expect_eq(changed_outside(&t, before, t.driver.config.used, 6 + 8 * 8), 0);
        free(before);
        queue_finish(&t);
    }
}

/* A chain that breaks the queue leaves everything as it was, but for the hint not to kick. */
Test(virtq_shared, B22_a_broken_chain_changes_nothing)
{
    const struct piece pieces[] = {{RAM_A, 8, false}, {RAM_B, 8, true}, {RAM_HOLE, 8, true}};
    struct queue t;
    queue_init(&t, 4, true, false);
    fake_driver_send(&t.driver, pieces, 3);
    uint8_t *before = snapshot(&t);
    cr_expect_eq(queue_next(&t), -EPROTO);
    virtq_wants_irq(&t.q);
    virtq_idle(&t.q);
    cr_expect_eq(changed_outside(&t, before, t.driver.config.used, 2), 0);
    cr_expect_eq(t.q.taken_count, 0);
    free(before);
    queue_finish(&t);
}

/* Requests that were taken before a chain broke the queue can be given back still. */
Test(virtq_shared, B22_what_was_taken_before_completes)
{
    const struct piece good = {RAM_A, 8, true}, bad = {RAM_HOLE, 8, true};
    struct vring_used_elem element;
    struct iovec iov[1];
    struct virtq_chain taken = {.iov = iov, .capacity = 1};
    struct queue t;
    queue_init(&t, 4, false, false);
    fake_driver_send(&t.driver, &good, 1);
    fake_driver_send(&t.driver, &bad, 1);
    cr_assert_eq(virtq_next(&t.q, &taken), 1);
    cr_assert_eq(queue_next(&t), -EPROTO);
    virtq_done(&t.q, &taken, 5);
    cr_assert(fake_driver_take(&t.driver, &element));
    cr_expect_eq(element.id, taken.head);
    cr_expect_eq(element.len, 5);
    cr_expect_not(virtq_wants_irq(&t.q), "the device has to be reset, and says so elsewhere");
    queue_finish(&t);
}

/* S16, B23. Where the used element is, and what it says. */
Test(virtq_shared, S16_used_elements)
{
    const struct piece pieces[] = {{RAM_A, 8, false}, {RAM_B - 4, 8, true}, {RAM_B + 64, 8, true}};
    struct queue t;
    queue_init_at(&t, 4, false, false, 65534);
    for (unsigned i = 0; i <= 16; i++) {
        unsigned slot = (65534 + i) % 4;
        struct vring_used_elem element, other[4];
        uint16_t head = fake_driver_send(&t.driver, pieces, 3);
        for (unsigned j = 0; j < 4; j++)
            other[j] = fake_driver_used_element(&t.driver, j);
        cr_assert_eq(queue_next(&t), 1);
        cr_assert_eq(t.chain.wr.length, 16);
        virtq_done(&t.q, &t.chain, i);
        cr_expect_eq(fake_driver_used_idx(&t.driver), (uint16_t)(65534 + i + 1));
        element = fake_driver_used_element(&t.driver, slot);
        cr_expect_eq(element.id, head);
        cr_expect_eq(element.len, i);
        for (unsigned j = 0; j < 4; j++) {
            element = fake_driver_used_element(&t.driver, j);
            cr_expect(j == slot || memcmp(&element, &other[j], sizeof(element)) == 0);
        }
        cr_expect(fake_driver_take(&t.driver, &element));
    }
    queue_finish(&t);
}

/* B18. Nothing the driver writes into the used ring reaches the device. */
Test(virtq_shared, B18_the_used_ring_is_never_read)
{
    const struct piece piece = {RAM_A, 8, true};
    for (int event_idx = 0; event_idx < 2; event_idx++) {
        struct queue t;
        queue_init(&t, 4, false, event_idx);
        fake_driver_set_used_event(&t.driver, 0);
        for (unsigned i = 0; i < 100; i++) {
            uint8_t junk[6 + 8 * 4];
            memset(junk, (int)(0xff - i), sizeof(junk));
            uint16_t head = fake_driver_send(&t.driver, &piece, 1);
            fake_driver_write(&t.driver, t.driver.config.used, junk, sizeof(junk));
            cr_assert_eq(queue_next(&t), 1);
            fake_driver_write(&t.driver, t.driver.config.used, junk, sizeof(junk));
            virtq_done(&t.q, &t.chain, 8);
            cr_expect_eq(fake_driver_used_idx(&t.driver), i + 1);
            cr_expect_eq(fake_driver_used_element(&t.driver, i % 4).id, head);
            fake_driver_set_used_idx(&t.driver, (uint16_t)(i * 77));
            fake_driver_set_used_event(&t.driver, (uint16_t)i);
            cr_expect(virtq_wants_irq(&t.q));
            cr_expect_not(virtq_wants_irq(&t.q));
            virtq_idle(&t.q);
            cr_expect_eq(event_idx ? fake_driver_avail_event(&t.driver)
                                   : fake_driver_used_flags(&t.driver),
                         event_idx ? i + 1 : 0);
            struct vring_used_elem element;
            fake_driver_set_used_idx(&t.driver, (uint16_t)(i + 1));
            cr_expect(fake_driver_take(&t.driver, &element));
        }
        queue_finish(&t);
    }
}

/* The geometry is the one that virtq_start was given (A6). */
Test(virtq_shared, the_geometry_is_a_copy)
{
    const struct piece piece = {RAM_A, 8, true};
    struct queue t;
    queue_init(&t, 4, false, false);
    struct virtq_config config = t.driver.config;
    cr_assert_eq(virtq_start(&t.q, &t.mem, &config, 4, 0), 0);
    memset(&config, 0xff, sizeof(config));
    fake_driver_send(&t.driver, &piece, 1);
    queue_serve(&t);
    cr_expect_eq(fake_driver_used_idx(&t.driver), 1);
    queue_finish(&t);
}

struct rewriter {
    struct queue *t;
    bool stop;
};

/* Another vCPU: descriptors and table change between what is valid and what is not. */
static void *rewrite(void *arg)
{
    static const struct vring_desc choices[] = {
        {RAM_A, 64, 0, 0},
        {RAM_END - 64, 64, VRING_DESC_F_NEXT, 1},
        {RAM_END - 1, 0xffffff, VRING_DESC_F_WRITE, 3},
        {TABLE, 32, VRING_DESC_F_INDIRECT, 0},
        {RAM_HOLE - 32, 0x100000, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 2},
        {TABLE + 8, 0xfffffff0, VRING_DESC_F_INDIRECT, 0},
    };
    struct rewriter *r = arg;
    for (unsigned i = 1; !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); i = i * 1103515245 + 12345) {
        struct vring_desc desc = choices[(i >> 8) % COUNT(choices)];
        if (i >> 28 < 8) /* one field of another */
            desc.len = choices[(i >> 16) % COUNT(choices)].len;
        uint64_t at = (i >> 24) % 4 * 16 + (i >> 20 & 1 ? TABLE : r->t->driver.config.desc);
        fake_driver_write(&r->t->driver, at, &desc, sizeof(desc));
    }
    return NULL;
}

/* B17. What a chain says lies in RAM lies there, whatever happens to the descriptors meanwhile. */
Test(virtq_shared, B17_descriptors_that_change)
{
    struct queue t;
    unsigned wrong = 0, accepted = 0, refused = 0;
    queue_init(&t, 4, true, false);
    struct virtq_config config = t.driver.config;
    struct rewriter r = {.t = &t};
    pthread_t thread;
    fake_driver_set_avail_idx(&t.driver, 1);
    cr_assert_eq(pthread_create(&thread, NULL, rewrite, &r), 0);
    /* at least until the other thread has had its turn */
    for (int i = 0; i < 3000000 || accepted == 0 || refused == 0; i++) {
        t.chain.capacity = 8;
        int rc = queue_next(&t);
        refused += rc < 0;
        accepted += rc == 1;
        uint64_t total = 0;
        for (unsigned j = 0; rc == 1 && j < t.chain.rd.count + t.chain.wr.count; j++) {
            const struct iovec *iov = &t.chain.iov[j];
            uint64_t gpa = queue_gpa(&t, iov->iov_base);
            total += iov->iov_len;
            wrong += gpa == 0 || !guest_mem_at(&t.mem, gpa, iov->iov_len);
        }
        wrong += rc == 1 && total != t.chain.rd.length + t.chain.wr.length;
        if (rc < 0)
            virtq_start(&t.q, &t.mem, &config, 4, 0);
        else
            virtq_undo(&t.q, &t.chain);
    }
    __atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    cr_expect_eq(wrong, 0);
    queue_finish(&t);
}
