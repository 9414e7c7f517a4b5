/* The balloon: pages that go, statistics, free page reporting, configuration space (F4 to F7). */
#include <string.h>
#include <unistd.h>

#include "tests/unit/balloon_rig.h"
#include "tests/unit/support.h"

SUITE(balloon);

#define FILL  0x5a
#define SPAN  (RAM_HOLE - RAM_A)
#define FIRST (RAM_A / PAGE)

static struct balloon_rig r;
static struct virtio_driver *v;

static void begin_with(uint64_t features)
{
    struct minivmm_error err;
    cr_assert(balloon_rig_init(&r, false, &err), "%s", err.text);
    v = &r.v;
    cr_assert(virtio_driver_start(v, features, 0));
    memset(virtio_rig_at(&r.rig, RAM_A, RAM_B - RAM_A), FILL, RAM_B - RAM_A);
    memset(virtio_rig_at(&r.rig, RAM_B, RAM_HOLE - RAM_B), FILL, RAM_HOLE - RAM_B);
}

static void begin(void)
{
    begin_with(UINT64_MAX);
}

static void end(void)
{
    cr_expect(balloon_rig_works(&r), "the canary");
    balloon_rig_finish(&r);
}

/* Is all of a page this byte? */
static bool page_is(uint64_t page, uint8_t byte)
{
    const uint8_t *at = virtio_rig_at(&r.rig, page * PAGE, PAGE);
    for (unsigned i = 0; i < PAGE; i++) {
        if (at[i] != byte)
            return false;
    }
    return true;
}

/* How many pages of [RAM_A, RAM_HOLE) are gone; none is half gone. */
static unsigned gone(void)
{
    unsigned count = 0;
    for (uint64_t page = FIRST; page < RAM_HOLE / PAGE; page++) {
        bool zero = page_is(page, 0);
        cr_assert(zero || page_is(page, FILL), "page %#llx", (unsigned long long)page);
        count += zero;
    }
    return count;
}

Test(balloon, inflated_pages_are_gone_and_no_others)
{
    static const uint32_t pages[] = {FIRST + 7, FIRST + 3, FIRST + 4, FIRST + 200, FIRST + 5};
    begin();
    cr_assert(balloon_rig_list(&r, QUEUE_INFLATE, pages, COUNT(pages)));
    for (size_t i = 0; i < COUNT(pages); i++)
        cr_expect(page_is(pages[i], 0), "page %u", pages[i]);
    cr_expect_eq(gone(), COUNT(pages));
    struct balloon_counts counts = balloon_counts(r.balloon);
    cr_expect_eq(counts.inflated, COUNT(pages));
    cr_expect_eq(counts.calls, 3, "runs: 3 to 5, 7, 200");
    end();
}

Test(balloon, neighbours_in_any_order_are_one_call)
{
    uint32_t pages[256];
    begin();
    for (unsigned order = 0; order < 3; order++) {
        uint64_t before = balloon_counts(r.balloon).calls;
        for (unsigned i = 0; i < 256; i++)
            pages[i] = (uint32_t)FIRST + (order == 0 ? i : order == 1 ? 255 - i : i * 77 % 256);
        cr_assert(balloon_rig_list(&r, QUEUE_INFLATE, pages, 256));
        cr_expect_eq(balloon_counts(r.balloon).calls - before, 1, "order %u", order);
    }
    cr_expect_eq(gone(), 256);
    end();
}

Test(balloon, a_list_in_many_pieces)
{
    static const uint32_t pages[] = {FIRST, FIRST + 2, FIRST + 4, FIRST + 6};
    struct piece pieces[16];
    struct vring_used_elem element;
    begin();
    fake_driver_write(&v->queues[0], BALLOON_LIST, pages, sizeof(pages));
    for (unsigned i = 0; i < COUNT(pieces); i++)
        pieces[i] = (struct piece){BALLOON_LIST + i, 1, false};
    cr_assert(virtio_driver_transact(v, 0, pieces, COUNT(pieces), &element));
    cr_expect_eq(gone(), 4);
    cr_expect(page_is(FIRST + 6, 0));
    end();
}

Test(balloon, all_that_is_there_is_served_before_the_interrupt)
{
    struct piece piece = {BALLOON_LIST, 4, false};
    uint32_t page = FIRST;
    struct vring_used_elem element;
    begin();
    fake_driver_write(&v->queues[0], BALLOON_LIST, &page, sizeof(page));
    for (unsigned i = 0; i < 32; i++)
        fake_driver_send(&v->queues[0], &piece, 1);
    virtio_driver_kick(v, 0);
    for (unsigned i = 0; i < 32; i++)
        cr_assert(virtio_driver_wait(v, 0, &element));
    cr_expect_leq(balloon_device(r.balloon)->queues[0].interrupts, 2);
    end();
}

/* F4: what was never inflated is deflated without harm, and keeps its content. */
Test(balloon, F4_deflating_touches_nothing)
{
    static const uint32_t pages[] = {FIRST, FIRST + 1, 0xffffffff, 0};
    begin();
    cr_assert(balloon_rig_list(&r, QUEUE_DEFLATE, pages, COUNT(pages)));
    cr_expect_eq(gone(), 0);
    cr_expect_eq(balloon_counts(r.balloon).deflated, COUNT(pages));
    cr_expect_eq(balloon_counts(r.balloon).calls, 0);
    end();
}

/* A ballooned page is there again for whoever touches it: the guest, and other devices. */
Test(balloon, F2_a_disk_reads_into_a_ballooned_page)
{
    static const uint32_t page = FIRST + 9;
    uint8_t data[PAGE];
    begin();
    cr_assert(virtio_rig_start(&r.rig, UINT64_MAX, 0));
    memset(data, 0x77, sizeof(data));
    cr_assert_eq(pwrite(r.rig.image, data, sizeof(data), 0), (ssize_t)sizeof(data));
    cr_assert(balloon_rig_list(&r, QUEUE_INFLATE, &page, 1));
    cr_assert_eq(blk_driver_read(&r.rig.blk_driver, 0, page * PAGE, PAGE), VIRTIO_BLK_S_OK);
    cr_expect(page_is(page, 0x77));
    end();
}

/* ---- reporting ----------------------------------------------------------------------------- */

static void report(unsigned queue, uint64_t gpa, uint32_t length, bool write)
{
    struct piece piece = {gpa, length, write};
    struct vring_used_elem element;
    cr_assert(virtio_driver_transact(v, queue, &piece, 1, &element));
    cr_expect_eq(element.len, 0);
}

Test(balloon, F6_reported_ranges)
{
    static const struct {
        const char *name;
        uint64_t gpa;
        uint32_t length;
        bool readable;
        unsigned gone;
    } rows[] = {
        {"a page", RAM_A, PAGE, false, 1},
        {"many", RAM_A, 64 * PAGE, false, 64},
        {"across a border of regions", RAM_B - 2 * PAGE, 4 * PAGE, false, 4},
        {"up to the end of a region", RAM_HOLE - PAGE, PAGE, false, 1},
        {"begins within a page", RAM_A + 1, 2 * PAGE - 1, false, 1},
        {"ends within a page", RAM_A, 2 * PAGE - 1, false, 1},
        {"less than a page", RAM_A + 8, PAGE - 8, false, 0},
        {"one byte", RAM_A, 1, false, 0},
        {"nothing", RAM_A, 0, false, 0},
        {"readable", RAM_A, PAGE, true, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        begin();
        report(QUEUE_REPORTING, rows[i].gpa, rows[i].length, !rows[i].readable);
        cr_expect_eq(gone(), rows[i].gone, "%s", rows[i].name);
        end();
    }
}

Test(balloon, F6_poison_keeps_reported_pages)
{
    static const struct {
        const char *name;
        uint64_t features;
        uint32_t poison;
        bool keeps;
    } rows[] = {
        {"none", UINT64_MAX, 0, false},
        {"poison", UINT64_MAX, 0xaaaaaaaa, true},
        {"poison without the feature", ~FEATURE(VIRTIO_BALLOON_F_PAGE_POISON), 0xaaaaaaaa, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        begin_with(rows[i].features);
        virtio_driver_write(v,
                            VIRTIO_MMIO_CONFIG + offsetof(struct virtio_balloon_config, poison_val),
                            rows[i].poison);
        report(QUEUE_REPORTING, RAM_A, 4 * PAGE, true);
        cr_expect_eq(gone(), rows[i].keeps ? 0 : 4, "%s", rows[i].name);
        end();
    }
}

/* F7: a queue's number follows from what was negotiated. */
Test(balloon, F7_queue_numbers)
{
    const uint64_t stats = FEATURE(VIRTIO_BALLOON_F_STATS_VQ);
    const uint64_t reporting = FEATURE(VIRTIO_BALLOON_F_REPORTING);
    static const uint32_t page = FIRST + 500;

    begin_with(~stats);
    report(2, RAM_A, PAGE, true);
    cr_expect_eq(gone(), 1, "without statistics, reporting is queue 2");
    report(3, RAM_A, 2 * PAGE, true);
    cr_expect_eq(gone(), 1, "and 3 is nothing");
    cr_expect_not(balloon_ask_stats(r.balloon));
    end();
    begin_with(~(stats | reporting));
    report(2, RAM_A, PAGE, true);
    report(3, RAM_A, PAGE, true);
    cr_expect_eq(gone(), 0, "without both there is neither");
    cr_assert(balloon_rig_list(&r, QUEUE_INFLATE, &page, 1));
    cr_expect_eq(gone(), 1);
    end();
    begin_with(~reporting);
    report(3, RAM_A, PAGE, true);
    cr_expect_eq(gone(), 0, "without reporting, 3 is nothing");
    cr_expect_eq(r.heard, 0);
    end();
}

Test(balloon, features)
{
    begin();
    uint64_t offered = virtio_driver_offered(v) & 0xffffff;
    cr_expect_eq(offered,
                 FEATURE(VIRTIO_BALLOON_F_STATS_VQ) | FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
                     FEATURE(VIRTIO_BALLOON_F_PAGE_POISON) | FEATURE(VIRTIO_BALLOON_F_REPORTING));
    end();
}

/* ---- statistics: 5.5.6.4 ------------------------------------------------------------------- */

static void send_stats(uint64_t gpa, uint16_t tag, uint64_t value)
{
    struct virtio_balloon_stat stat = {.tag = tag, .val = value};
    struct piece piece = {gpa, sizeof(stat), false};
    fake_driver_write(&v->queues[QUEUE_STATS], gpa, &stat, sizeof(stat));
    fake_driver_send(&v->queues[QUEUE_STATS], &piece, 1);
    virtio_driver_notify(v, QUEUE_STATS);
    virtio_driver_settle(v);
}

Test(balloon, S49_statistics_come_when_asked_for)
{
    struct vring_used_elem element;
    begin();
    cr_expect_not(balloon_ask_stats(r.balloon), "nothing to give back");
    send_stats(BALLOON_LIST, VIRTIO_BALLOON_S_MEMFREE, 1000);
    cr_expect_eq(r.heard, 1);
    cr_expect_eq(r.stats.free_memory, 1000);
    cr_expect_not(fake_driver_take(&v->queues[QUEUE_STATS], &element), "it is kept");
    cr_expect(balloon_ask_stats(r.balloon));
    cr_expect_not(balloon_ask_stats(r.balloon), "a driver that never answers");
    cr_assert(virtio_driver_wait(v, QUEUE_STATS, &element));
    cr_expect_eq(element.len, 0);
    send_stats(BALLOON_LIST, VIRTIO_BALLOON_S_MEMFREE, 2000);
    cr_expect_eq(r.stats.free_memory, 2000);
    end();
}

Test(balloon, F5_a_second_buffer_gives_the_first_one_back)
{
    struct vring_used_elem element;
    begin();
    send_stats(BALLOON_LIST, VIRTIO_BALLOON_S_MEMFREE, 1);
    send_stats(BALLOON_LIST + 64, VIRTIO_BALLOON_S_MEMFREE, 2);
    cr_expect_eq(r.stats.free_memory, 2);
    cr_assert(fake_driver_take(&v->queues[QUEUE_STATS], &element));
    cr_expect_eq(element.id, 0);
    cr_expect_not(fake_driver_take(&v->queues[QUEUE_STATS], &element));
    end();
}

/* ---- configuration space ------------------------------------------------------------------- */

static uint32_t config(size_t field)
{
    return (uint32_t)virtio_driver_config(v, (unsigned)field, 4);
}

Test(balloon, F8_only_its_own_fields_are_the_drivers)
{
    const size_t pages = offsetof(struct virtio_balloon_config, num_pages);
    const size_t actual = offsetof(struct virtio_balloon_config, actual);
    const size_t hint = offsetof(struct virtio_balloon_config, free_page_hint_cmd_id);
    const size_t poison = offsetof(struct virtio_balloon_config, poison_val);
    begin();
    balloon_set_target(r.balloon, 100 * PAGE + 5);
    cr_expect_eq(config(pages), 100, "whole pages");
    for (size_t field = 0; field < 64; field += 4)
        virtio_driver_write(v, VIRTIO_MMIO_CONFIG + (unsigned)field, 0xdeadbeef);
    cr_expect_eq(config(pages), 100);
    cr_expect_eq(config(actual), 0xdeadbeef);
    cr_expect_eq(config(hint), 0);
    cr_expect_eq(config(poison), 0xdeadbeef);
    cr_expect_eq(balloon_actual(r.balloon), 0xdeadbeefull * PAGE, "whatever it says");
    bus_write(v->bus, v->base + VIRTIO_MMIO_CONFIG + actual + 1, 1, 0x12);
    cr_expect_eq(config(actual), 0xdead12ef);
    bus_write(v->bus, v->base + VIRTIO_MMIO_CONFIG + actual - 1, 2, 0xffff);
    cr_expect(config(actual) == 0xdead12ef && config(pages) == 100, "half of it is another's");
    end();
}

Test(balloon, S25_a_new_target_is_told)
{
    begin();
    uint32_t before = virtio_driver_read(v, VIRTIO_MMIO_CONFIG_GENERATION);
    balloon_set_target(r.balloon, 8 * PAGE);
    cr_expect_neq(virtio_driver_read(v, VIRTIO_MMIO_CONFIG_GENERATION), before);
    cr_expect(virtio_driver_interrupted(v));
    cr_expect(v->reasons & VIRTIO_MMIO_INT_CONFIG);
    end();
}

Test(balloon, a_new_driver_holds_nothing_and_is_asked_for_the_same)
{
    begin();
    balloon_set_target(r.balloon, 8 * PAGE);
    virtio_driver_write(v, VIRTIO_MMIO_CONFIG + offsetof(struct virtio_balloon_config, actual), 8);
    cr_expect_eq(balloon_actual(r.balloon), 8 * PAGE);
    unsigned moved = r.moved;
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    cr_expect_eq(balloon_actual(r.balloon), 0);
    cr_expect_eq(config(offsetof(struct virtio_balloon_config, actual)), 0);
    cr_expect_gt(r.moved, moved);
    cr_expect_eq(config(offsetof(struct virtio_balloon_config, num_pages)), 8);
    cr_expect_eq(config(offsetof(struct virtio_balloon_config, poison_val)), 0);
    end();
}
