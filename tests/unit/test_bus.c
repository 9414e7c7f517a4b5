#include "tests/unit/support.h"
#include "vmm/bus.h"

SUITE(bus);

/* A device that notes the last access and answers with a fixed value. */
struct probe {
    char kind; /* 0: none since the last look */
    uint64_t offset, value;
    unsigned size;
};

static uint64_t probe_read(void *dev, uint64_t offset, unsigned size)
{
    *(struct probe *)dev = (struct probe){.kind = 'r', .offset = offset, .size = size};
    return 0x8877665544332211ull;
}

static void probe_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    *(struct probe *)dev =
        (struct probe){.kind = 'w', .offset = offset, .size = size, .value = value};
}

static const struct bus_ops probe_ops = {.read = probe_read, .write = probe_write};

static const unsigned sizes[] = {1, 2, 4, 8};

static uint64_t ones(unsigned size)
{
    return size == 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
}

/* Every access either reaches the device it should, with the right offset, or none. */
static void expect_access(const struct bus *bus, struct probe *probes, size_t count, uint64_t addr,
                          unsigned size, const struct probe *hit, uint64_t offset)
{
    const uint64_t text = 0xfedcba9876543210ull;

    uint64_t value = bus_read(bus, addr, size);
    for (size_t i = 0; i < count; i++) {
        cr_expect_eq(probes[i].kind, &probes[i] == hit ? 'r' : 0, "read 0x%llx/%u, device %zu",
                     (unsigned long long)addr, size, i);
        if (&probes[i] == hit) {
            cr_expect_eq(probes[i].offset, offset);
            cr_expect_eq(probes[i].size, size);
        }
        probes[i].kind = 0;
    }
    cr_expect_eq(value, hit ? 0x8877665544332211ull & ones(size) : ones(size),
                 "read 0x%llx/%u gave 0x%llx", (unsigned long long)addr, size,
                 (unsigned long long)value);

    bus_write(bus, addr, size, text);
    for (size_t i = 0; i < count; i++) {
        cr_expect_eq(probes[i].kind, &probes[i] == hit ? 'w' : 0, "write 0x%llx/%u, device %zu",
                     (unsigned long long)addr, size, i);
        if (&probes[i] == hit) {
            cr_expect_eq(probes[i].offset, offset);
            cr_expect_eq(probes[i].size, size);
            cr_expect_eq(probes[i].value, text & ones(size));
        }
        probes[i].kind = 0;
    }
}

Test(bus, an_access_hits_only_the_range_that_holds_it_whole)
{
    static const struct {
        const char *name;
        uint64_t base, len;
    } ranges[] = {
        {"at zero", 0, 8},
        {"a neighbour", 8, 4},
        {"one byte", 0x64, 1},
        {"a page", 0x1000, 0x1000},
        {"up to the last address but one", UINT64_MAX - 16, 16},
    };
    struct bus bus = {0};
    struct probe probes[COUNT(ranges)] = {{0}};
    for (size_t i = 0; i < COUNT(ranges); i++)
        bus_add(&bus, ranges[i].base, ranges[i].len, &probe_ops, &probes[i]);

    for (size_t i = 0; i < COUNT(ranges); i++) {
        const uint64_t base = ranges[i].base, len = ranges[i].len;
        const uint64_t near[] = {base - 8,       base - 1,       base,           base + 1,
                                 base + 3,       base + 4,       base + len - 8, base + len - 4,
                                 base + len - 2, base + len - 1, base + len,     base + len + 1};
        for (size_t n = 0; n < COUNT(near); n++) {
            for (size_t s = 0; s < COUNT(sizes); s++) {
                /* An independent search, in arithmetic that cannot wrap. */
                const struct probe *hit = NULL;
                uint64_t offset = 0;
                for (size_t k = 0; k < COUNT(ranges); k++) {
                    unsigned __int128 first = near[n], end = first + sizes[s];
                    if (first >= ranges[k].base &&
                        end <= (unsigned __int128)ranges[k].base + ranges[k].len) {
                        hit = &probes[k];
                        offset = near[n] - ranges[k].base;
                    }
                }
                expect_access(&bus, probes, COUNT(ranges), near[n], sizes[s], hit, offset);
            }
        }
    }
}

Test(bus, an_access_across_the_end_reaches_neither_neighbour)
{
    struct bus bus = {0};
    struct probe probes[2] = {{0}};
    bus_add(&bus, 0x100, 4, &probe_ops, &probes[0]);
    bus_add(&bus, 0x104, 4, &probe_ops, &probes[1]);
    expect_access(&bus, probes, 2, 0x103, 2, NULL, 0);
    expect_access(&bus, probes, 2, 0x102, 4, NULL, 0);
    expect_access(&bus, probes, 2, 0x100, 8, NULL, 0);
    expect_access(&bus, probes, 2, 0x100, 4, &probes[0], 0);
    expect_access(&bus, probes, 2, 0x104, 4, &probes[1], 0);
}

/* KVM splits an access that crosses a page, and one part may be of 3, 5, 6 or 7 bytes. */
Test(bus, a_part_of_an_odd_size_reaches_no_device)
{
    static const unsigned odd[] = {3, 5, 6, 7};
    struct bus bus = {0};
    struct probe probe = {0};
    bus_add(&bus, 0x1000, 0x1000, &probe_ops, &probe);
    for (size_t i = 0; i < COUNT(odd); i++)
        expect_access(&bus, &probe, 1, 0x1000, odd[i], NULL, 0);
}

Test(bus, an_access_that_wraps_hits_nothing)
{
    struct bus bus = {0};
    struct probe probes[2] = {{0}};
    bus_add(&bus, 0, 16, &probe_ops, &probes[0]);
    bus_add(&bus, UINT64_MAX - 15, 15, &probe_ops, &probes[1]);
    for (size_t s = 0; s < COUNT(sizes); s++)
        expect_access(&bus, probes, 2, UINT64_MAX, sizes[s], NULL, 0);
    expect_access(&bus, probes, 2, UINT64_MAX - 1, 1, &probes[1], 14);
    expect_access(&bus, probes, 2, UINT64_MAX - 1, 2, NULL, 0);
    expect_access(&bus, probes, 2, UINT64_MAX - 3, 8, NULL, 0);
}

Test(bus, an_empty_one_reads_as_ones)
{
    struct bus bus = {0};
    static const uint64_t addrs[] = {0, 1, 0xcf8, UINT64_MAX};
    for (size_t i = 0; i < COUNT(addrs); i++) {
        for (size_t s = 0; s < COUNT(sizes); s++)
            expect_access(&bus, NULL, 0, addrs[i], sizes[s], NULL, 0);
    }
}

Test(bus, ranges_are_sorted_in_whatever_order_they_come)
{
    /* All 120 orders of five ranges. */
    for (unsigned order = 0; order < 120; order++) {
        unsigned left[5] = {0, 1, 2, 3, 4}, rest = order;
        struct bus bus = {0};
        struct probe probes[5] = {{0}};
        for (unsigned n = 5; n > 0; n--) {
            unsigned pick = rest % n;
            rest /= n;
            bus_add(&bus, 0x100 * left[pick], 0x100, &probe_ops, &probes[left[pick]]);
            left[pick] = left[n - 1];
        }
        for (unsigned i = 0; i < 5; i++)
            expect_access(&bus, probes, 5, 0x100 * i + 0xff, 1, &probes[i], 0xff);
        expect_access(&bus, probes, 5, 0x500, 1, NULL, 0);
    }
}

Test(bus, takes_as_many_ranges_as_it_promises)
{
    struct bus bus = {0};
    struct probe probes[BUS_RANGES_MAX] = {{0}};
    for (unsigned i = 0; i < BUS_RANGES_MAX; i++)
        bus_add(&bus, 0x10 * i, 0x8, &probe_ops, &probes[i]);
    for (unsigned i = 0; i < BUS_RANGES_MAX; i++) {
        expect_access(&bus, probes, BUS_RANGES_MAX, 0x10 * i, 8, &probes[i], 0);
        expect_access(&bus, probes, BUS_RANGES_MAX, 0x10 * i + 8, 1, NULL, 0);
    }
}
