/* ACPI tables, read back as ACPI 6.5 lays them out and by ACPICA's own compiler. */
#include "boot/acpi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/platform.h"

SUITE(acpi);

/* All tables of a platform, found by the walk that a kernel does. */
struct tables {
    struct guest_mem mem;
    const uint8_t *rsdp, *xsdt, *fadt, *madt, *dsdt;
};

static uint64_t get(const uint8_t *at, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, at, size);
    return value;
}

/* A table at an address: signature, length within guest memory, checksum. */
static const uint8_t *table_at(const struct guest_mem *mem, uint64_t gpa, const char *signature)
{
    const uint8_t *table = guest_mem_at(mem, gpa, 36);
    cr_assert_not_null(table, "%s", signature);
    cr_assert_eq(memcmp(table, signature, 4), 0, "%s: it is %.4s", signature, (const char *)table);
    uint64_t length = get(table + 4, 4);
    cr_assert_not_null(guest_mem_at(mem, gpa, length), "%s", signature);
    cr_assert(platform_sums_to_zero(table, length), "%s", signature);
    cr_assert_geq(gpa, 0xe0000u);
    cr_assert_leq(gpa + length, 0xffff0u, "%s", signature);
    return table;
}

static void tables_make(struct tables *tables, unsigned cpus, unsigned slots)
{
    struct platform platform;
    struct boot_result result = {0};
    struct minivmm_error err;
    uint64_t gpa;
    support_guard_mem(&tables->mem, MIB);
    platform_make(&platform, cpus, slots);
    cr_assert_eq(acpi_write(&tables->mem, &platform.config, &gpa, &result, &err), 0, "%s",
                 err.text);

    const uint8_t *rsdp = tables->rsdp = guest_mem_at(&tables->mem, gpa, 36);
    cr_assert_eq(gpa % 16, 0, "a scan looks on 16-byte boundaries");
    cr_assert_eq(memcmp(rsdp, "RSD PTR ", 8), 0);
    cr_assert_eq(rsdp[15], 2);
    cr_assert_eq(get(rsdp + 20, 4), 36);
    cr_assert(platform_sums_to_zero(rsdp, 20));
    cr_assert(platform_sums_to_zero(rsdp, 36));

    tables->xsdt = table_at(&tables->mem, get(rsdp + 24, 8), "XSDT");
    cr_assert_eq(get(tables->xsdt + 4, 4), 36 + 2 * 8);
    tables->fadt = table_at(&tables->mem, get(tables->xsdt + 36, 8), "FACP");
    tables->madt = table_at(&tables->mem, get(tables->xsdt + 44, 8), "APIC");
    tables->dsdt = table_at(&tables->mem, get(tables->fadt + 140, 8), "DSDT");
}

Test(acpi, can_be_walked_from_the_root_for_any_platform)
{
    for (size_t c = 0; c < COUNT(platform_cpus); c++) {
        for (size_t s = 0; s < COUNT(platform_slots); s++) {
            struct tables tables;
            tables_make(&tables, platform_cpus[c], platform_slots[s]);
            guest_mem_finish(&tables.mem);
        }
    }
}

Test(acpi, fadt_tells_a_hardware_reduced_machine_and_its_power_registers)
{
    static const struct {
        const char *name;
        unsigned at, size;
        uint64_t value;
    } rows[] = {
        {"length", 4, 4, 276},
        {"revision", 8, 1, 6},
        {"minor revision", 131, 1, 5},
        {"32-bit DSDT", 40, 4, 0},
        {"SMI port", 48, 4, 0},
        {"PM1a event block", 56, 4, 0},
        {"boot architecture: no VGA, no CMOS clock, no 8042", 109, 2, 1u << 2 | 1u << 5},
        {"flags: WBINVD, no fixed buttons, reset register, hardware-reduced", 112, 4,
         1u << 0 | 1u << 4 | 1u << 5 | 1u << 10 | 1u << 20},
        {"reset register: one byte of memory", 116, 4, 0x01000800},
        {"reset register: address", 120, 8, 0xd0000002},
        {"reset value", 128, 1, 1},
        {"sleep control: one byte of memory", 244, 4, 0x01000800},
        {"sleep control: address", 248, 8, 0xd0000000},
        {"sleep status: one byte of memory", 256, 4, 0x01000800},
        {"sleep status: address", 260, 8, 0xd0000001},
    };
    struct tables tables;
    tables_make(&tables, 1, 0);
    for (size_t i = 0; i < COUNT(rows); i++)
        cr_expect_eq(get(tables.fadt + rows[i].at, rows[i].size), rows[i].value, "%s: 0x%llx",
                     rows[i].name, (unsigned long long)get(tables.fadt + rows[i].at, rows[i].size));
    guest_mem_finish(&tables.mem);
}

Test(acpi, madt_lists_processors_io_apic_and_nmi)
{
    for (size_t c = 0; c < COUNT(platform_cpus); c++) {
        const unsigned cpus = platform_cpus[c];
        struct tables tables;
        tables_make(&tables, cpus, 0);
        const uint8_t *at = tables.madt + 44, *end = tables.madt + get(tables.madt + 4, 4);
        unsigned processors = 0, ioapics = 0, nmis = 0;
        cr_expect_eq(get(tables.madt + 36, 4), 0xfee00000);
        cr_expect_eq(get(tables.madt + 40, 4), 0, "no 8259s");
        while (at < end) {
            switch (at[0]) {
            case 0:
                cr_expect_eq(at[1], 8);
                cr_expect_eq(at[2], processors, "uid");
                cr_expect_eq(at[3], processors, "APIC id");
                cr_expect_eq(get(at + 4, 4), 1, "enabled");
                processors++;
                break;
            case 1:
                cr_expect_eq(at[1], 12);
                cr_expect_eq(get(at + 4, 4), 0xfec00000);
                cr_expect_eq(get(at + 8, 4), 0, "its first line");
                ioapics++;
                break;
            case 4:
                cr_expect_eq(at[1], 6);
                cr_expect_eq(at[2], 0xff, "all processors");
                cr_expect_eq(at[5], 1, "LINT1");
                nmis++;
                break;
            default:
                cr_expect_fail("entry of type %u", at[0]);
            }
            cr_assert_gt(at[1], 0);
            at += at[1];
        }
        cr_expect_eq(at, end);
        cr_expect_eq(processors, cpus);
        cr_expect_eq(ioapics, 1);
        cr_expect_eq(nmis, 1);
        guest_mem_finish(&tables.mem);
    }
}

Test(acpi, more_than_there_is_room_for_is_an_error)
{
    static struct platform_fact facts[4000];
    const struct boot_config config = {.cpus = 1, .facts = facts, .fact_count = COUNT(facts)};
    struct boot_result result = {0};
    struct minivmm_error err;
    struct guest_mem mem;
    uint64_t rsdp;
    support_guard_mem(&mem, MIB);
    for (unsigned i = 0; i < COUNT(facts); i++)
        facts[i] = (struct platform_fact){
            .kind = PLATFORM_VIRTIO, .base = 0xd0000000, .len = 0x1000, .irq = 8};
    memset(guest_mem_at(&mem, LAYOUT_ACPI_END, 4096), 0x77, 4096);
    cr_assert_eq(acpi_write(&mem, &config, &rsdp, &result, &err), -E2BIG);
    cr_assert(support_one_line(&err, "ACPI tables: more than "), "%s", err.text);
    const uint8_t *behind = guest_mem_at(&mem, LAYOUT_ACPI_END, 4096);
    for (unsigned i = 0; i < 4096; i++)
        cr_assert_eq(behind[i], 0x77, "byte %u behind the tables", i);
    guest_mem_finish(&mem);
}

/* Write a table to DIR/NAME.aml. */
static void dump(const char *dir, const char *name, const uint8_t *table)
{
    char path[96];
    snprintf(path, sizeof(path), "%s/%s.aml", dir, name);
    FILE *file = fopen(path, "w");
    size_t length = get(table + 4, 4);
    cr_assert_eq(fwrite(table, 1, length, file), length);
    fclose(file);
}

/* Run iasl in the directory; its output, which is the caller's to free. */
static char *iasl(const char *dir, const char *arguments)
{
    char command[256];
    int status;
    snprintf(command, sizeof(command), "cd %s && iasl %s", dir, arguments);
    char *output = support_run(command, &status);
    cr_expect_eq(status, 0, "iasl %s: %s", arguments, output);
    static const char *const complaints[] = {"Error  ",           "Error:", "Warning",
                                             "ncorrect checksum", "nvalid", "nknown"};
    for (size_t i = 0; i < COUNT(complaints); i++) {
        const char *at = strstr(output, complaints[i]);
        cr_expect(!at || strstr(output, "0 Errors, 0 Warnings"), "iasl %s: %s", arguments, output);
    }
    return output;
}

/* DIR/dsdt.dsl without white space and comments, malloc'ed. */
static char *read_squeezed(const char *dir)
{
    char command[160];
    int status;
    snprintf(command, sizeof(command),
             "sed 's,//.*,,; s,/[*].*[*]/,,' %s/dsdt.dsl | tr -d '[:space:]'", dir);
    char *text = support_run(command, &status);
    cr_assert_eq(status, 0);
    return text;
}

#define INTERRUPT        "Interrupt(ResourceConsumer,Edge,ActiveHigh,Exclusive,,,){"
#define IO(port, length) "IO(Decode16," port "," port ",0x01," length ",)"

/* The disassembled DSDT names every device with its resources, and no other device. */
static void expect_devices(const char *text, unsigned slots)
{
    static const char *const always[] = {
        "Device(COM1){Name(_HID,\"PNP0501\")Name(_UID,Zero)Name(_CRS,ResourceTemplate(){" IO(
            "0x03F8", "0x08") INTERRUPT "0x00000004,}})}",
        "Device(PEVT){Name(_HID,\"QEMU0001\")Name(_UID,Zero)Name(_CRS,ResourceTemplate(){" IO(
            "0x0505", "0x01") "})}",
        "Name(\\_S5,Package(0x04){0x05,Zero,Zero,Zero})",
    };
    for (size_t i = 0; i < COUNT(always); i++)
        cr_expect_not_null(strstr(text, always[i]), "%s is not in %s", always[i], text);
    for (unsigned i = 0; i < slots; i++) {
        char uid[8], device[256];
        snprintf(uid, sizeof(uid), i == 0 ? "Zero" : i == 1 ? "One" : "0x%02X", i);
        snprintf(device, sizeof(device),
                 "Device(VR%02X){Name(_HID,\"LNRO0005\")Name(_UID,%s)Name(_CCA,One)Name(_CRS,"
                 "ResourceTemplate(){Memory32Fixed(ReadWrite,0x%08X,0x00001000,)" INTERRUPT
                 "0x%08X,}})}",
                 i, uid, 0xd0001000 + i * 0x1000, 8 + i);
        cr_expect_not_null(strstr(text, device), "%s is not in %s", device, text);
    }
    unsigned devices = 0;
    for (const char *at = text; (at = strstr(at, "Device(")); at++)
        devices++;
    cr_expect_eq(devices, 4 + slots);
    cr_expect_not_null(strstr(text, "Device(PWRB){Name(_HID,\"PNP0C0C\")Name(_UID,Zero)}"),
                       "no button in %s", text);
    cr_expect_not_null(strstr(text, "Device(GED0){Name(_HID,\"ACPI0013\")Name(_UID,Zero)Name(_CRS,"
                                    "ResourceTemplate(){" INTERRUPT "0x00000005,}})"
                                    "Method(_EVT,1,Serialized){Notify(PWRB,0x80)}}"),
                       "no event device in %s", text);
}

static void check_with_iasl(unsigned cpus, unsigned slots)
{
    static const char *const names[] = {"dsdt", "facp", "apic", "xsdt"};
    struct tables tables;
    char dir[64];
    tables_make(&tables, cpus, slots);
    const uint8_t *all[] = {tables.dsdt, tables.fadt, tables.madt, tables.xsdt};
    support_temp_dir(dir);
    for (size_t i = 0; i < COUNT(names); i++) {
        char arguments[64];
        dump(dir, names[i], all[i]);
        snprintf(arguments, sizeof(arguments), "-d %s.aml", names[i]);
        free(iasl(dir, arguments));
        snprintf(arguments, sizeof(arguments), "-p again %s.dsl", names[i]);
        char *output = iasl(dir, arguments);
        cr_expect_not_null(strstr(output, "0 Errors, 0 Warnings"), "%s: %s", names[i], output);
        free(output);
    }
    char *text = read_squeezed(dir);
    expect_devices(text, slots);
    free(text);
    support_remove_dir(dir);
    guest_mem_finish(&tables.mem);
}

Test(acpi, iasl_takes_the_tables_apart_and_puts_them_together_again)
{
    if (!support_has_program("iasl"))
        cr_skip_test("iasl is not installed");
    for (size_t c = 0; c < COUNT(platform_cpus); c++) {
        for (size_t s = 0; s < COUNT(platform_slots); s++)
            check_with_iasl(platform_cpus[c], platform_slots[s]);
    }
}
