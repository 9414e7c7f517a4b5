/* What a hostile driver does to a balloon (F1 to F9): it harms itself only, in bounded turns. */
#include <stdlib.h>
#include <string.h>

#include "devices/page_list.h"
#include "tests/unit/balloon_rig.h"
#include "tests/unit/support.h"

SUITE(balloon_hostile);

#define FIRST ((uint32_t)(RAM_A / PAGE))
#define LAST  ((uint32_t)(RAM_HOLE / PAGE - 1))

static struct balloon_rig r;
static struct virtio_driver *v;

static void begin(void)
{
    struct minivmm_error err;
    cr_assert(balloon_rig_init(&r, false, &err), "%s", err.text);
    v = &r.v;
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    memset(virtio_rig_at(&r.rig, RAM_A, RAM_B - RAM_A), 0x5a, RAM_B - RAM_A);
    memset(virtio_rig_at(&r.rig, RAM_B, RAM_HOLE - RAM_B), 0x5a, RAM_HOLE - RAM_B);
}

static void end(void)
{
    cr_expect(balloon_rig_works(&r), "the canary");
    balloon_rig_finish(&r);
}

/* How many pages of [RAM_A, RAM_HOLE) begin with another byte than they were filled with. */
static unsigned gone(void)
{
    unsigned count = 0;
    for (uint64_t at = RAM_A; at < RAM_HOLE; at += PAGE)
        count += *(uint8_t *)virtio_rig_at(&r.rig, at, 1) == 0;
    return count;
}

Test(balloon_hostile, F1_F4_page_numbers)
{
    static const struct {
        const char *name;
        uint32_t pages[8];
        unsigned count;
        unsigned gone, outside, repeated, calls;
    } rows[] = {
        {"F1 just past RAM", {RAM_END / PAGE}, 1, 0, 1, 0, 0},
        {"F1 below RAM", {0}, 1, 0, 1, 0, 0},
        {"F1 in the hole", {RAM_HOLE / PAGE, RAM_C / PAGE - 1}, 2, 0, 2, 0, 0},
        {"F1 registers of devices", {RIG_SLOTS / PAGE, 0xfee00, 0xfec00}, 3, 0, 3, 0, 0},
        {"F1 the largest, whose address needs 44 bits", {0xffffffff}, 1, 0, 1, 0, 0},
        {"F1 a run up to the largest, and the first", {0xfffffffe, 0, 0xffffffff}, 3, 0, 3, 0, 0},
        {"F1 2^20, whose address is 0 in 32 bits", {1 << 20, (1 << 20) + FIRST}, 2, 0, 2, 0, 0},
        {"F1 from RAM into the hole", {LAST - 1, LAST, LAST + 1, LAST + 2}, 4, 2, 2, 0, 1},
        {"F1 from below into RAM", {FIRST - 2, FIRST - 1, FIRST}, 3, 1, 2, 0, 1},
        {"F1 across a border of regions", {RAM_B / PAGE - 1, RAM_B / PAGE}, 2, 2, 0, 0, 2},
        {"F4 the same page thrice", {FIRST, FIRST, FIRST}, 3, 1, 0, 2, 1},
        {"F4 the same twice, among others",
         {FIRST + 1, FIRST, FIRST + 1, FIRST + 2},
         4,
         3,
         0,
         1,
         1},
        {"F4 the same outside twice", {0xffffffff, 0xffffffff}, 2, 0, 1, 1, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        begin();
        cr_assert(balloon_rig_list(&r, QUEUE_INFLATE, rows[i].pages, rows[i].count), "%s",
                  rows[i].name);
        struct balloon_counts counts = balloon_counts(r.balloon);
        cr_expect_eq(gone(), rows[i].gone, "%s", rows[i].name);
        cr_expect_eq(counts.outside, rows[i].outside, "%s", rows[i].name);
        cr_expect_eq(counts.repeated, rows[i].repeated, "%s", rows[i].name);
        cr_expect_eq(counts.calls, rows[i].calls, "%s", rows[i].name);
        cr_expect_eq(counts.refused, 0, "%s", rows[i].name);
        end();
    }
}

/* The list names two pages; what of it counts depends on how it is sent. */
Test(balloon_hostile, F3_shapes_of_lists)
{
    static const struct {
        const char *name;
        struct piece pieces[3];
        unsigned count;
        unsigned gone;
        bool malformed;
    } rows[] = {
        {"whole", {{BALLOON_LIST, 8, false}}, 1, 2, false},
        {"of no bytes", {{BALLOON_LIST, 0, false}}, 1, 0, true},
        {"of one byte", {{BALLOON_LIST, 1, false}}, 1, 0, true},
        {"of three bytes", {{BALLOON_LIST, 3, false}}, 1, 0, true},
        {"of five bytes", {{BALLOON_LIST, 5, false}}, 1, 1, true},
        {"of seven bytes", {{BALLOON_LIST, 7, false}}, 1, 1, true},
        {"a page in two pieces",
         {{BALLOON_LIST, 2, false}, {BALLOON_LIST + 2, 6, false}},
         2,
         2,
         false},
        {"writable", {{BALLOON_LIST, 8, true}}, 1, 0, true},
        {"with a writable part",
         {{BALLOON_LIST, 4, false}, {BALLOON_LIST + 4, 4, true}},
         2,
         1,
         true},
        {"with empty parts",
         {{BALLOON_LIST, 0, false}, {BALLOON_LIST, 8, false}, {BALLOON_LIST, 0, false}},
         3,
         2,
         false},
    };
    static const uint32_t pages[2] = {FIRST + 3, FIRST + 9};
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (unsigned indirect = 0; indirect < 2; indirect++) {
            struct fake_driver *queue;
            struct vring_used_elem element;
            begin();
            queue = &v->queues[QUEUE_INFLATE];
            fake_driver_write(queue, BALLOON_LIST, pages, sizeof(pages));
            uint16_t head = indirect
                                ? fake_driver_add_indirect(queue, rows[i].pieces, rows[i].count, 0,
                                                           BALLOON_LIST + 0x1000)
                                : fake_driver_add(queue, rows[i].pieces, rows[i].count);
            fake_driver_offer(queue, head);
            fake_driver_publish(queue);
            virtio_driver_kick(v, QUEUE_INFLATE);
            cr_assert(virtio_driver_wait(v, QUEUE_INFLATE, &element), "%s", rows[i].name);
            cr_expect_eq(element.len, 0, "%s", rows[i].name);
            cr_expect_eq(gone(), rows[i].gone, "%s", rows[i].name);
            cr_expect_eq(balloon_counts(r.balloon).malformed > 0, rows[i].malformed, "%s",
                         rows[i].name);
            end();
        }
    }
}

/* A list of as many pages as fit, many times over: 28 MiB of page numbers in one request. */
static uint64_t send_giant(void)
{
    struct piece pieces[32];
    uint32_t *list = virtio_rig_at(&r.rig, BALLOON_LIST, BALLOON_LIST_BYTES);

    for (unsigned i = 0; i < BALLOON_LIST_BYTES / 4; i++)
        list[i] = FIRST + i * 2 % (LAST - FIRST);
    for (unsigned i = 0; i < COUNT(pieces); i++)
        pieces[i] = (struct piece){BALLOON_LIST, BALLOON_LIST_BYTES, false};
    fake_driver_send(&v->queues[QUEUE_INFLATE], pieces, COUNT(pieces));
    virtio_driver_notify(v, QUEUE_INFLATE);
    return BALLOON_LIST_BYTES / 4 * COUNT(pieces);
}

Test(balloon_hostile, F3_P3_a_giant_list_leaves_others_their_turns)
{
    struct vring_used_elem element;
    begin();
    cr_assert(virtio_rig_start(&r.rig, UINT64_MAX, 0));
    uint64_t pages = send_giant();
    uint64_t before = balloon_counts(r.balloon).inflated;
    cr_expect_leq(before, PAGE_LIST_MAX, "the first turn");
    for (unsigned i = 0; i < 10; i++) {
        event_loop_once(&r.rig.loop, 0);
        uint64_t now = balloon_counts(r.balloon).inflated;
        cr_expect(now > before && now - before <= PAGE_LIST_MAX, "turn %u: %llu pages", i,
                  (unsigned long long)(now - before));
        before = now;
    }
    cr_expect(virtio_rig_answers(&r.rig), "the others meanwhile");
    cr_expect_lt(balloon_counts(r.balloon).inflated, pages);
    balloon_set_target(r.balloon, 4 * PAGE); /* and the target changes under it */
    cr_assert(virtio_driver_wait(v, QUEUE_INFLATE, &element));
    cr_expect_eq(balloon_counts(r.balloon).inflated, pages);
    end();
}

Test(balloon_hostile, A12_reset_in_the_middle)
{
    begin();
    for (unsigned i = 0; i < 20; i++) {
        send_giant();
        for (unsigned turn = 0; turn < i; turn++)
            event_loop_once(&r.rig.loop, 0);
        virtio_driver_write(v, VIRTIO_MMIO_STATUS, 0);
        cr_assert_eq(virtio_driver_read(v, VIRTIO_MMIO_STATUS), 0);
        uint64_t stopped = balloon_counts(r.balloon).inflated;
        virtio_driver_settle(v);
        cr_expect_eq(balloon_counts(r.balloon).inflated, stopped, "nothing after it");
        cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    }
    end();
}

/* QueueReady 0 for another queue stops the device between two turns: the list comes again. */
Test(balloon_hostile, A12_another_queue_leaves_in_the_middle)
{
    struct vring_used_elem element;
    begin();
    uint64_t pages = send_giant();
    event_loop_once(&r.rig.loop, 0);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_SEL, QUEUE_REPORTING);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, 0);
    cr_assert(virtio_driver_wait(v, QUEUE_INFLATE, &element));
    cr_expect_geq(balloon_counts(r.balloon).inflated, pages);
    cr_expect_not(fake_driver_take(&v->queues[QUEUE_INFLATE], &element), "and once only");
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    end();
}

Test(balloon_hostile, A12_reset_with_statistics_held)
{
    begin();
    for (unsigned i = 0; i < 100; i++) {
        struct virtio_balloon_stat stat = {.tag = VIRTIO_BALLOON_S_MEMFREE, .val = i};
        struct piece piece = {BALLOON_LIST, sizeof(stat), false};
        fake_driver_write(&v->queues[QUEUE_STATS], BALLOON_LIST, &stat, sizeof(stat));
        fake_driver_send(&v->queues[QUEUE_STATS], &piece, 1);
        virtio_driver_notify(v, QUEUE_STATS);
        if (i % 2)
            virtio_driver_settle(v);
        if (i % 3 == 0)
            balloon_ask_stats(r.balloon);
        virtio_driver_write(v, VIRTIO_MMIO_STATUS, 0);
        cr_expect_not(balloon_ask_stats(r.balloon), "no driver");
        cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    }
    end();
}

/* A report of 512 MiB, all of it the same MiB, in turns of bounded length. */
Test(balloon_hostile, F6_P3_a_giant_report_leaves_others_their_turns)
{
    struct piece pieces[120];
    struct vring_used_elem element;
    begin();
    cr_assert(virtio_rig_start(&r.rig, UINT64_MAX, 0));
    for (unsigned i = 0; i < COUNT(pieces); i++)
        pieces[i] = (struct piece){RAM_A, (uint32_t)(RAM_HOLE - RAM_A), true};
    fake_driver_send(&v->queues[QUEUE_REPORTING], pieces, COUNT(pieces));
    virtio_driver_notify(v, QUEUE_REPORTING);
    uint64_t pages = (uint64_t)COUNT(pieces) * (LAST - FIRST + 1);
    cr_expect_lt(balloon_counts(r.balloon).reported, pages);
    cr_expect(virtio_rig_answers(&r.rig), "the others meanwhile");
    cr_assert(virtio_driver_wait(v, QUEUE_REPORTING, &element));
    cr_expect_eq(balloon_counts(r.balloon).reported, pages);
    cr_expect_eq(gone(), LAST - FIRST + 1);
    end();
}

/* F2: the rings themselves; the driver has broken its queue, and a reset mends it. */
Test(balloon_hostile, F2_its_own_rings)
{
    for (unsigned queue = 0; queue < 4; queue++) {
        uint32_t pages[16];
        begin();
        for (uint32_t i = 0; i < COUNT(pages); i++)
            pages[i] = (uint32_t)(BALLOON_RINGS / PAGE) + i;
        struct piece piece = {BALLOON_LIST, sizeof(pages), false};
        fake_driver_write(&v->queues[0], BALLOON_LIST, pages, sizeof(pages));
        fake_driver_send(&v->queues[0], &piece, 1);
        virtio_driver_notify(v, 0);
        virtio_driver_notify(v, queue);
        virtio_driver_settle(v);
        cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
        end();
    }
}

Test(balloon_hostile, F8_the_driver_writes_garbage_at_any_width)
{
    unsigned short random[3] = {1, 2, 3};
    begin();
    balloon_set_target(r.balloon, 3 * PAGE);
    for (unsigned i = 0; i < 20000; i++) {
        unsigned size = 1u << nrand48(random) % 3;
        uint64_t at = v->base + VIRTIO_MMIO_CONFIG + (unsigned)nrand48(random) % 24;
        bus_write(v->bus, at, size, (uint64_t)jrand48(random));
        bus_read(v->bus, at, size);
    }
    cr_expect_eq(virtio_driver_config(v, 0, 4), 3);
    end();
}

Test(balloon_hostile, B2_a_broken_ring_needs_a_reset)
{
    for (unsigned queue = 0; queue < 4; queue++) {
        begin();
        fake_driver_set_desc(&v->queues[queue], 0, (struct vring_desc){RAM_END, 4, 0, 0});
        fake_driver_offer(&v->queues[queue], 0);
        fake_driver_publish(&v->queues[queue]);
        virtio_driver_notify(v, queue);
        virtio_driver_settle(v);
        cr_expect(virtio_driver_read(v, VIRTIO_MMIO_STATUS) & STATUS_NEEDS_RESET, "queue %u",
                  queue);
        end();
    }
}
