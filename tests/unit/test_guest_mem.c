#include "tests/unit/support.h"
#include "vmm/layout.h"

SUITE(guest_mem);

#define HUGE 0x200000u

/* Two regions side by side, a hole, and a third: sizes that are quick to make. */
static void three_regions(struct guest_mem *mem)
{
    struct minivmm_error err;
    *mem = (struct guest_mem){0};
    cr_assert_eq(guest_mem_add(mem, 0x10000, 0x10000, &err), 0, "%s", err.text);
    cr_assert_eq(guest_mem_add(mem, 0x20000, 0x10000, &err), 0, "%s", err.text);
    cr_assert_eq(guest_mem_add(mem, 0x40000, 0x10000, &err), 0, "%s", err.text);
}

Test(guest_mem, translates_only_what_lies_within_one_region)
{
    static const struct {
        const char *name;
        uint64_t gpa, len;
        int region; /* -1: refused */
    } rows[] = {
        {"the first byte", 0x10000, 1, 0},
        {"the last byte", 0x1ffff, 1, 0},
        {"all of a region", 0x10000, 0x10000, 0},
        {"one byte more than the region", 0x10000, 0x10001, -1},
        {"across two neighbours", 0x1ffff, 2, -1},
        {"all of both neighbours", 0x10000, 0x20000, -1},
        {"the neighbour's first byte", 0x20000, 1, 1},
        {"the byte before the hole", 0x2ffff, 1, 1},
        {"into the hole", 0x2ffff, 2, -1},
        {"the first byte of the hole", 0x30000, 1, -1},
        {"the last byte of the hole", 0x3ffff, 1, -1},
        {"out of the hole", 0x3ffff, 2, -1},
        {"across the whole hole", 0x2f000, 0x12000, -1},
        {"the first byte after the hole", 0x40000, 1, 2},
        {"the last byte of all", 0x4ffff, 1, 2},
        {"one past the last byte of all", 0x50000, 1, -1},
        {"past the end of all", 0x4ffff, 2, -1},
        {"below the first region", 0xffff, 1, -1},
        {"from below into the first region", 0xffff, 2, -1},
        {"address 0", 0, 1, -1},
        {"no bytes", 0x10000, 0, -1},
        {"no bytes at the end", 0x50000, 0, -1},
        {"no bytes nowhere", 0, 0, -1},
        {"the last address", UINT64_MAX, 1, -1},
        {"wraps to the first region", UINT64_MAX - 0xff, 0x10200, -1},
        {"a length that wraps", 0x10001, UINT64_MAX, -1},
        {"a length that wraps to the region's own end", 0x10008, UINT64_MAX - 7, -1},
    };
    struct guest_mem mem;
    three_regions(&mem);
    for (size_t i = 0; i < COUNT(rows); i++) {
        void *want = NULL;
        if (rows[i].region >= 0) {
            const struct guest_region *region = &mem.regions[rows[i].region];
            want = region->host + (rows[i].gpa - region->gpa);
        }
        cr_expect_eq(guest_mem_at(&mem, rows[i].gpa, rows[i].len), want, "%s", rows[i].name);
    }
    guest_mem_finish(&mem);
}

Test(guest_mem, an_empty_one_translates_nothing)
{
    struct guest_mem mem = {0};
    cr_assert_null(guest_mem_at(&mem, 0, 1));
    cr_assert_eq(guest_mem_size(&mem), 0);
    guest_mem_finish(&mem);
}

Test(guest_mem, splits_ram_round_the_hole)
{
    static const struct {
        uint64_t size, low, high; /* high: size of the region above 4 GiB */
    } rows[] = {
        {1 * MIB, 1 * MIB, 0}, {256 * MIB, 256 * MIB, 0},       {3 * GIB - 4096, 3 * GIB - 4096, 0},
        {3 * GIB, 3 * GIB, 0}, {3 * GIB + 4096, 3 * GIB, 4096}, {5 * GIB, 3 * GIB, 2 * GIB},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest_mem mem;
        struct minivmm_error err;
        cr_assert_eq(guest_mem_init(&mem, rows[i].size, &err), 0, "%s", err.text);
        cr_expect_eq(mem.count, rows[i].high ? 2 : 1, "row %zu", i);
        cr_expect_eq(mem.regions[0].gpa, 0, "row %zu", i);
        cr_expect_eq(mem.regions[0].size, rows[i].low, "row %zu", i);
        if (rows[i].high) {
            cr_expect_eq(mem.regions[1].gpa, 4 * GIB, "row %zu", i);
            cr_expect_eq(mem.regions[1].size, rows[i].high, "row %zu", i);
            cr_expect_not_null(guest_mem_at(&mem, 4 * GIB + rows[i].high - 1, 1), "row %zu", i);
        }
        cr_expect_null(guest_mem_at(&mem, rows[i].low, 1), "row %zu", i);
        cr_expect_null(guest_mem_at(&mem, rows[i].low - 1, 2), "row %zu", i);
        cr_expect_null(guest_mem_at(&mem, 4 * GIB - 1, 2), "row %zu", i);
        cr_expect_null(guest_mem_at(&mem, 4 * GIB + rows[i].high, 1), "row %zu", i);
        cr_expect_eq(guest_mem_size(&mem), rows[i].size, "row %zu", i);
        guest_mem_finish(&mem);
    }
}

Test(guest_mem, the_hole_ends_where_the_layout_says)
{
    cr_assert_eq(LAYOUT_LOW_RAM_END, 3 * GIB);
    cr_assert_eq(LAYOUT_HIGH_RAM, 4 * GIB);
}

Test(guest_mem, huge_pages_of_guest_and_host_coincide)
{
    static const uint64_t gpas[] = {0, 0x1000, HUGE - 0x1000, HUGE, 3 * GIB - 0x3000, 4 * GIB};
    struct guest_mem mem = {0};
    struct minivmm_error err;
    for (size_t i = 0; i < COUNT(gpas); i++) {
        struct guest_mem one = {0};
        cr_assert_eq(guest_mem_add(&one, gpas[i], 0x3000, &err), 0, "%s", err.text);
        cr_expect_eq((uintptr_t)one.regions[0].host % HUGE, gpas[i] % HUGE, "gpa 0x%llx",
                     (unsigned long long)gpas[i]);
        /* and the region still lies within its mapping */
        uint64_t skip = (uint64_t)(one.regions[0].host - (uint8_t *)one.regions[0].mapping);
        cr_expect_leq(skip + 0x3000, one.regions[0].mapping_size);
        guest_mem_finish(&one);
    }
    guest_mem_finish(&mem);
}

Test(guest_mem, is_zero_and_writable_to_its_last_byte)
{
    struct guest_mem mem;
    struct minivmm_error err;
    cr_assert_eq(guest_mem_init(&mem, 3 * GIB + MIB, &err), 0, "%s", err.text);
    const uint64_t edges[] = {0, 3 * GIB - 1, 4 * GIB, 4 * GIB + MIB - 1};
    for (size_t i = 0; i < COUNT(edges); i++) {
        uint8_t *byte = guest_mem_at(&mem, edges[i], 1);
        cr_assert_not_null(byte);
        cr_expect_eq(*byte, 0);
        *byte = (uint8_t)(i + 1);
    }
    for (size_t i = 0; i < COUNT(edges); i++)
        cr_expect_eq(*(uint8_t *)guest_mem_at(&mem, edges[i], 1), i + 1);
    guest_mem_finish(&mem);
}

Test(guest_mem, finish_may_be_repeated)
{
    struct guest_mem mem;
    struct minivmm_error err;
    cr_assert_eq(guest_mem_init(&mem, MIB, &err), 0, "%s", err.text);
    guest_mem_finish(&mem);
    cr_assert_null(guest_mem_at(&mem, 0, 1));
    guest_mem_finish(&mem);
}

Test(guest_mem, says_how_much_cannot_be_mapped)
{
    struct guest_mem mem;
    struct minivmm_error err;
    cr_assert_lt(guest_mem_init(&mem, 1ull << 50, &err), 0);
    cr_assert(support_one_line(&err, "guest memory: cannot map 1073738752 MiB: "), "%s", err.text);
    cr_assert_eq(mem.count, 0);
}
