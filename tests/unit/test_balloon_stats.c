/* A balloon driver's statistics: the table of tags, and what else may be in a buffer (F5). */
#include <linux/virtio_balloon.h>
#include <string.h>

#include "devices/balloon_stats.h"
#include "tests/unit/support.h"

SUITE(balloon_stats);

static bool parse(void *data, size_t size, struct minivmm_balloon_stats *stats)
{
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct virtq_span span = {.iov = &iov, .count = size > 0, .length = size};
    return balloon_stats_parse(&span, stats);
}

Test(balloon_stats, every_tag_has_its_place)
{
#define PLACE(member) offsetof(struct minivmm_balloon_stats, member)
    /* By the numbers of linux/virtio_balloon.h of Linux 6.12. */
    static const size_t places[] = {
        PLACE(swap_in),          PLACE(swap_out),     PLACE(major_faults),
        PLACE(minor_faults),     PLACE(free_memory),  PLACE(total_memory),
        PLACE(available_memory), PLACE(disk_caches),  PLACE(hugetlb_allocations),
        PLACE(hugetlb_failures), PLACE(oom_kills),    PLACE(alloc_stalls),
        PLACE(async_scans),      PLACE(direct_scans), PLACE(async_reclaims),
        PLACE(direct_reclaims),
    };
    for (uint16_t tag = 0; tag < COUNT(places); tag++) {
        struct virtio_balloon_stat stat = {.tag = tag, .val = 0x1122334455667788};
        struct minivmm_balloon_stats stats, should = {.present = 1u << tag};
        memcpy((char *)&should + places[tag], &(uint64_t){0x1122334455667788}, 8);
        cr_assert(parse(&stat, sizeof(stat), &stats));
        cr_expect_arr_eq(&stats, &should, offsetof(struct minivmm_balloon_stats, present) + 4,
                         "tag %u", tag);
    }
}

Test(balloon_stats, F5_odd_buffers)
{
    struct row {
        const char *name;
        struct virtio_balloon_stat stats[3];
        unsigned bytes;
        bool good;
        uint64_t free, total;
        uint32_t present;
    };
    enum { FREE = VIRTIO_BALLOON_S_MEMFREE, TOTAL = VIRTIO_BALLOON_S_MEMTOT };
    static struct row rows[] = {
        {"in any order", {{TOTAL, 9}, {FREE, 4}}, 20, true, 4, 9, 1 << FREE | 1 << TOTAL},
        {"nothing", {{0}}, 0, false, 0, 0, 0},
        {"a byte", {{FREE, 4}}, 1, false, 0, 0, 0},
        {"a tag without its value", {{FREE, 4}}, 2, false, 0, 0, 0},
        {"all but the last byte", {{FREE, 4}}, 9, false, 0, 0, 0},
        {"an odd byte behind", {{FREE, 4}, {TOTAL, 9}}, 11, true, 4, 0, 1 << FREE},
        {"an unknown tag", {{16, 1}, {FREE, 4}}, 20, true, 4, 0, 1 << FREE},
        {"the largest tag", {{0xffff, 1}, {FREE, 4}}, 20, true, 4, 0, 1 << FREE},
        {"only unknown tags", {{100, 1}, {32, 4}}, 20, true, 0, 0, 0},
        {"a tag twice: the last",
         {{FREE, 1}, {TOTAL, 9}, {FREE, 4}},
         30,
         true,
         4,
         9,
         1 << FREE | 1 << TOTAL},
        {"the largest value", {{FREE, UINT64_MAX}}, 10, true, UINT64_MAX, 0, 1 << FREE},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct minivmm_balloon_stats stats;
        cr_expect_eq(parse(rows[i].stats, rows[i].bytes, &stats), rows[i].good, "%s", rows[i].name);
        cr_expect(stats.free_memory == rows[i].free && stats.total_memory == rows[i].total &&
                      stats.present == rows[i].present,
                  "%s", rows[i].name);
    }
}

Test(balloon_stats, F5_no_more_than_256_are_looked_at)
{
    static struct virtio_balloon_stat many[BALLOON_STATS_MAX + 1];
    struct minivmm_balloon_stats stats;
    for (unsigned i = 0; i < BALLOON_STATS_MAX; i++)
        many[i] = (struct virtio_balloon_stat){.tag = VIRTIO_BALLOON_S_MEMFREE, .val = i};
    many[BALLOON_STATS_MAX] =
        (struct virtio_balloon_stat){.tag = VIRTIO_BALLOON_S_MEMTOT, .val = 1};
    cr_expect(parse(many, sizeof(many), &stats));
    cr_expect_eq(stats.free_memory, BALLOON_STATS_MAX - 1);
    cr_expect_eq(stats.total_memory, 0);
}
