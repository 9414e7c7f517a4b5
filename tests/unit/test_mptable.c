/* The MP table, read back as MultiProcessor Specification 1.4, chapter 4, lays it out. */
#include "boot/mptable.h"

#include <string.h>

#include "tests/unit/platform.h"

SUITE(mptable);

#define SCAN 0x9fc00u /* the last KiB of base memory, where a kernel looks */

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static uint16_t get16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

/* Find the pointer as a kernel does, check it, and return the table. */
static const uint8_t *find_table(const struct guest_mem *mem)
{
    for (uint32_t gpa = SCAN; gpa < SCAN + 0x400; gpa += 16) {
        const uint8_t *pointer = guest_mem_at(mem, gpa, 16);
        if (memcmp(pointer, "_MP_", 4) != 0)
            continue;
        cr_expect_eq(pointer[8], 1, "length in 16 bytes");
        cr_expect_eq(pointer[9], 4, "revision 1.4");
        cr_expect(platform_sums_to_zero(pointer, 16));
        cr_expect_eq(pointer[11], 0, "a table, no default configuration");
        cr_expect_eq(pointer[12], 0, "no IMCR");
        return guest_mem_at(mem, get32(pointer + 4), 44);
    }
    return NULL;
}

static void expect_table(unsigned cpus)
{
    struct platform platform;
    struct guest_mem mem;
    struct boot_result result = {0};
    struct minivmm_error err;
    support_guard_mem(&mem, MIB);
    platform_make(&platform, cpus, LAYOUT_VIRTIO_SLOTS);
    cr_assert_eq(mptable_write(&mem, &platform.config, &result, &err), 0, "%s", err.text);

    const uint8_t *table = find_table(&mem);
    cr_assert_not_null(table);
    cr_expect_eq(memcmp(table, "PCMP", 4), 0);
    const uint16_t length = get16(table + 4);
    cr_expect_eq(table[6], 4);
    cr_expect(platform_sums_to_zero(table, length));
    cr_expect_eq(get32(table + 36), 0xfee00000, "local APICs");
    cr_expect_eq(get16(table + 40), 0, "no extended table");
    cr_expect(length <= SCAN - 0x98000, "%u vCPUs: it reaches the pointer", cpus);

    unsigned processors = 0, buses = 0, ioapics = 0, lines = 0, nmis = 0, entries = 0;
    const uint8_t *at = table + 44, *end = table + length;
    while (at < end) {
        cr_assert_leq(at[0], 4, "entry %u has type %u", entries, at[0]);
        entries++;
        switch (at[0]) {
        case 0:
            cr_expect_eq(at[1], processors, "APIC id");
            cr_expect_eq(at[3], processors == 0 ? 3 : 1, "enabled, the first one boots");
            processors++;
            break;
        case 1:
            cr_expect_eq(memcmp(at + 2, "ISA   ", 6), 0);
            buses++;
            break;
        case 2:
            cr_expect_eq(at[2], 0x11);
            cr_expect_eq(at[3], 1, "enabled");
            cr_expect_eq(get32(at + 4), 0xfec00000);
            ioapics++;
            break;
        case 3:
            cr_expect_eq(at[1], 0, "INT");
            cr_expect_eq(get16(at + 2), 5, "edge, active high");
            cr_expect_eq(at[5], lines);
            cr_expect_eq(at[7], lines);
            lines++;
            break;
        case 4:
            cr_expect_eq(at[1], 1, "NMI");
            cr_expect_eq(at[6], 0xff, "of all processors");
            cr_expect_eq(at[7], 1, "at LINT1");
            nmis++;
            break;
        }
        at += at[0] == 0 ? 20 : 8;
    }
    cr_expect_eq(at, end, "the entries fill the table");
    cr_expect_eq(get16(table + 34), entries);
    cr_expect_eq(processors, cpus);
    cr_expect_eq(buses, 1);
    cr_expect_eq(ioapics, 1);
    cr_expect_eq(lines, 24);
    cr_expect_eq(nmis, 1);
    guest_mem_finish(&mem);
}

Test(mptable, reads_back_for_any_number_of_vcpus)
{
    for (size_t i = 0; i < COUNT(platform_cpus); i++)
        expect_table(platform_cpus[i]);
}

Test(mptable, lies_in_memory_that_the_guest_does_not_use)
{
    struct platform platform;
    struct guest_mem mem;
    struct boot_result result = {0};
    struct minivmm_error err;
    support_guard_mem(&mem, MIB);
    platform_make(&platform, 254, 0);
    cr_assert_eq(mptable_write(&mem, &platform.config, &result, &err), 0, "%s", err.text);
    cr_assert_eq(result.table_count, 2);
    for (unsigned i = 0; i < 2; i++) {
        cr_expect_geq(result.tables[i].gpa, LAYOUT_LOW_RESERVED);
        cr_expect_leq(result.tables[i].gpa + result.tables[i].size, 0xa0000u);
    }
    guest_mem_finish(&mem);
}
