/* Which queues go into service (2.7; A5, A7). */
#include <errno.h>

#include "tests/unit/queue.h"
#include "tests/unit/support.h"

SUITE(virtq_start);

#define SIZE_MAX_HERE 256u

/* The areas of a queue of 256: 4096, 518 and 2054 bytes. */
static const struct virtq_config good = {
    .size = 256, .desc = RAM_C, .avail = RAM_C + 0x1000, .used = RAM_C + 0x2000};

static int start(const struct guest_mem *mem, struct virtq_config config, unsigned size_max)
{
    struct virtq q;
    struct virtq_chain chain = {0};
    cr_assert_eq(virtq_init(&q, size_max), 0);
    int rc = virtq_start(&q, mem, &config, size_max, 0);
    /* One that was refused is out of service, one that was not is empty. */
    cr_expect_eq(virtq_next(&q, &chain), rc < 0 ? -EPROTO : 0);
    cr_expect_not(virtq_idle(&q));
    cr_expect_not(virtq_wants_irq(&q));
    virtq_finish(&q);
    return rc;
}

Test(virtq_start, takes_powers_of_two_up_to_the_largest)
{
    struct queue t;
    queue_init(&t, 1, false, false);
    for (uint32_t size = 1; size != 0; size <<= 1) {
        struct virtq_config config = {
            .size = size, .desc = RAM_C, .avail = RAM_C + 0x80000, .used = RAM_C + 0x100000};
        cr_expect_eq(start(&t.mem, config, VIRTQ_SIZE_MAX), size <= 32768 ? 0 : -EINVAL, "size %u",
                     size);
        cr_expect_eq(start(&t.mem, config, 64), size <= 64 ? 0 : -EINVAL, "size %u of 64", size);
    }
    queue_finish(&t);
}

Test(virtq_start, refuses_other_sizes)
{
    static const uint32_t sizes[] = {0,     3,      6,       255,     257,        32767,     512,
                                     32769, 0x8000, 0x10000, 0x10100, 0x80000000, UINT32_MAX};
    struct queue t;
    queue_init(&t, 1, false, false);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct virtq_config config = good;
        config.size = sizes[i];
        cr_expect_eq(start(&t.mem, config, SIZE_MAX_HERE), -EINVAL, "size 0x%x", sizes[i]);
    }
    queue_finish(&t);
}

/* Each area in turn goes to the address; `bytes` is how long that area is. */
enum { DESC, AVAIL, USED, AREAS };

static int start_with(const struct guest_mem *mem, int area, uint64_t gpa)
{
    struct virtq_config config = good;
    *(area == DESC ? &config.desc : area == AVAIL ? &config.avail : &config.used) = gpa;
    return start(mem, config, SIZE_MAX_HERE);
}

Test(virtq_start, refuses_misaligned_areas)
{
    static const uint64_t align[AREAS] = {16, 2, 4};
    struct queue t;
    queue_init(&t, 1, false, false);
    for (int area = 0; area < AREAS; area++)
        for (uint64_t offset = 0; offset <= 32; offset++)
            cr_expect_eq(start_with(&t.mem, area, QUEUE_FREE + offset),
                         offset % align[area] ? -EINVAL : 0, "area %d + %u", area,
                         (unsigned)offset);
    queue_finish(&t);
}

Test(virtq_start, wants_each_area_in_ram_whole)
{
    static const uint64_t bytes[AREAS] = {4096, 6 + 512, 6 + 2048};
    static const uint64_t align[AREAS] = {16, 2, 4};
    struct queue t;
    queue_init(&t, 1, false, false);
    for (int area = 0; area < AREAS; area++) {
        /* as close to the border as alignment lets it */
        uint64_t size = (bytes[area] + align[area] - 1) / align[area] * align[area];
        const struct {
            const char *name;
            uint64_t gpa;
            bool valid;
        } rows[] = {
            {"the first bytes of RAM", RAM_A, true},
            {"below RAM", RAM_A - align[area], false},
            {"address 0", 0, false},
            {"up to the inner border", RAM_B - size, true},
            {"across the inner border", RAM_B - size + align[area], false},
            {"up to the hole", RAM_HOLE - size, true},
            {"into the hole", RAM_HOLE - size + align[area], false},
            {"in the hole", RAM_HOLE + 0x1000, false},
            {"out of the hole", RAM_C - align[area], false},
            {"up to the end of RAM", RAM_END - size, true},
            {"past the end of RAM", RAM_END - size + align[area], false},
            {"at the end of RAM", RAM_END, false},
            {"far away", 1ull << 52, false},
            {"wraps", 0 - align[area], false},
            {"wraps into RAM", 0 - (uint64_t)16, false},
        };
        for (size_t i = 0; i < COUNT(rows); i++)
            cr_expect_eq(start_with(&t.mem, area, rows[i].gpa), rows[i].valid ? 0 : -EINVAL,
                         "area %d: %s", area, rows[i].name);
    }
    queue_finish(&t);
}

/* The rings' last words are part of them: event indices. */
Test(virtq_start, counts_the_event_words)
{
    struct queue t;
    struct virtq_config config = {.size = 1, .desc = RAM_C, .avail = RAM_C, .used = RAM_C};
    queue_init(&t, 1, false, false);
    config.avail = RAM_END - 8;
    cr_expect_eq(start(&t.mem, config, 1), 0);
    config.avail = RAM_END - 6; /* flags, idx, one entry, used_event need 8 */
    cr_expect_eq(start(&t.mem, config, 1), -EINVAL);
    config.avail = RAM_C;
    config.used = RAM_END - 16;
    cr_expect_eq(start(&t.mem, config, 1), 0);
    config.used = RAM_END - 12; /* 4 + 8 + 2 */
    cr_expect_eq(start(&t.mem, config, 1), -EINVAL);
    queue_finish(&t);
}

Test(virtq_start, forgets_what_was_taken_and_where_the_queue_was)
{
    const struct piece piece = {RAM_A, 8, false};
    struct queue t;
    queue_init(&t, 256, false, true);
    for (int i = 0; i < 200; i++)
        fake_driver_send(&t.driver, &piece, 1);
    for (int i = 0; i < 200; i++)
        cr_assert_eq(queue_next(&t), 1);
    queue_restart(&t);
    cr_expect_eq(queue_next(&t), 0);
    for (int i = 0; i < 256; i++)
        fake_driver_send(&t.driver, &piece, 1);
    for (int i = 0; i < 256; i++)
        queue_serve(&t);
    cr_expect_eq(fake_driver_used_idx(&t.driver), 256);
    queue_finish(&t);
}

Test(virtq_start, goes_on_where_it_is_told_to)
{
    static const uint16_t firsts[] = {0, 1, 5, 255, 256, 32767, 32768, 65535};
    const struct piece piece = {RAM_A, 8, true};
    for (size_t i = 0; i < COUNT(firsts); i++) {
        struct queue t;
        struct vring_used_elem element;
        queue_init_at(&t, 4, false, false, firsts[i]);
        cr_expect_eq(queue_next(&t), 0, "first %u", firsts[i]);
        fake_driver_send(&t.driver, &piece, 1);
        queue_serve(&t);
        cr_expect_eq(fake_driver_used_idx(&t.driver), (uint16_t)(firsts[i] + 1));
        cr_expect(fake_driver_take(&t.driver, &element));
        cr_expect_eq(element.len, 8);
        queue_finish(&t);
    }
}

/* What is on its way when a queue stops may have left "do not kick" behind (2.7.10.2). */
Test(virtq_start, a_queue_that_goes_on_can_be_kicked)
{
    const struct piece piece = {RAM_A, 8, false};
    struct queue t;
    queue_init(&t, 4, false, false);
    fake_driver_send(&t.driver, &piece, 1);
    queue_serve(&t);
    cr_assert_eq(fake_driver_used_flags(&t.driver), VRING_USED_F_NO_NOTIFY);

    struct virtq_config config = t.driver.config;
    cr_assert_eq(virtq_start(&t.q, &t.mem, &config, 4, 1), 0);
    cr_expect_eq(queue_next(&t), 0);
    cr_expect_not(virtq_idle(&t.q));
    cr_expect_eq(fake_driver_used_flags(&t.driver), 0);
    queue_finish(&t);
}
