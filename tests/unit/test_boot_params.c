#include "boot/boot_params.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/images.h"
#include "vmm/layout.h"

SUITE(boot_params);
SUITE(boot_entry);

/* The specification's numbers, written out once more. */
enum { USABLE = 1, RESERVED = 2, TYPE_DTB = 2, TYPE_RNG_SEED = 9 };

static const struct kernel_image kernel = {
    .load = 0x1000000,
    .header = {.version = 0x20f, .boot_flag = 0xaa55, .header = 0x53726448, .setup_data = 0x1234},
};

static struct boot_params *write_params(const struct guest_mem *mem,
                                        const struct boot_params_input *input,
                                        struct boot_result *result)
{
    struct minivmm_error err;
    *result = (struct boot_result){0};
    cr_assert_eq(boot_params_write(mem, input, result, &err), 0, "%s", err.text);
    return guest_mem_at(mem, LAYOUT_BOOT_PARAMS, sizeof(struct boot_params));
}

Test(boot_params, the_memory_map_follows_the_ram_round_its_hole)
{
    static const struct {
        uint64_t ram, low_end, high_end; /* high_end 0: no RAM above 4 GiB */
    } rows[] = {
        {1 * MIB, 0, 0},
        {1 * MIB + 4096, MIB + 4096, 0},
        {256 * MIB, 256 * MIB, 0},
        {3 * GIB - 4096, 3 * GIB - 4096, 0},
        {3 * GIB, 3 * GIB, 0},
        {3 * GIB + 4096, 3 * GIB, 4 * GIB + 4096},
        {6 * GIB, 3 * GIB, 7 * GIB},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest_mem mem;
        struct minivmm_error err;
        struct boot_result result;
        const struct boot_range none = {0};
        const struct boot_params_input input = {.kernel = &kernel, .initrd = &none};
        cr_assert_eq(guest_mem_init(&mem, rows[i].ram, &err), 0, "%s", err.text);
        const struct boot_params *params = write_params(&mem, &input, &result);

        struct boot_e820_entry want[4] = {{0, 0x98000, USABLE}, {0x98000, 0x68000, RESERVED}};
        unsigned n = 2;
        if (rows[i].low_end)
            want[n++] = (struct boot_e820_entry){MIB, rows[i].low_end - MIB, USABLE};
        if (rows[i].high_end)
            want[n++] = (struct boot_e820_entry){4 * GIB, rows[i].high_end - 4 * GIB, USABLE};
        cr_expect_eq(params->e820_entries, n, "row %zu: %u entries", i, params->e820_entries);
        for (unsigned e = 0; e < n; e++)
            cr_expect_eq(memcmp(&params->e820_table[e], &want[e], sizeof(want[e])), 0,
                         "row %zu entry %u", i, e);
        guest_mem_finish(&mem);
    }
}

Test(boot_params, carries_the_kernels_header_and_what_a_loader_adds)
{
    struct guest_mem mem;
    struct boot_result result;
    support_guard_mem(&mem, MIB);
    const struct boot_range initrd = {.gpa = 0x7654000, .size = 0x12345};
    const struct boot_params_input input = {.kernel = &kernel, .initrd = &initrd, .rsdp = 0xe0000};
    /* What a guest left there does not matter. */
    memset(guest_mem_at(&mem, LAYOUT_BOOT_PARAMS, 4096), 0xff, 4096);
    const struct boot_params *params = write_params(&mem, &input, &result);
    cr_expect_eq(params->hdr.version, 0x20f);
    cr_expect_eq(params->hdr.header, 0x53726448);
    cr_expect_eq(params->hdr.type_of_loader, 0xff);
    cr_expect_eq(params->hdr.loadflags, LOADED_HIGH);
    cr_expect_eq(params->hdr.code32_start, 0x1000000);
    cr_expect_eq(params->hdr.cmd_line_ptr, 0x80000);
    cr_expect_eq(params->hdr.ramdisk_image, 0x7654000);
    cr_expect_eq(params->hdr.ramdisk_size, 0x12345);
    cr_expect_eq(params->acpi_rsdp_addr, 0xe0000);
    cr_expect_eq(params->sentinel, 0, "a kernel clears fields when it is not");
    cr_expect_eq(params->ext_ramdisk_image, 0);
    cr_expect_eq(params->ext_cmd_line_ptr, 0);
    cr_expect_eq(params->screen_info.orig_video_isVGA, 0);
    guest_mem_finish(&mem);
}

/* Walk the list as a kernel does; returns the nodes' number. */
static unsigned walk(const struct guest_mem *mem, const struct boot_params *params,
                     const struct setup_data *nodes[4])
{
    unsigned n = 0;
    for (uint64_t at = params->hdr.setup_data; at; n++) {
        cr_assert_lt(n, 4, "the list does not end");
        const struct setup_data *node = guest_mem_at(mem, at, sizeof(*node));
        cr_assert_not_null(node);
        cr_assert_geq(at, 0x10000);
        cr_assert_leq(at + sizeof(*node) + node->len, 0x80000);
        cr_assert_eq(at % 8, 0);
        nodes[n] = node;
        at = node->next;
    }
    return n;
}

Test(boot_params, setup_data_is_a_list_that_ends)
{
    static uint8_t dtb[1000];
    struct guest_mem mem;
    struct boot_result result;
    const struct setup_data *nodes[4];
    const struct boot_range none = {0};
    struct boot_params_input input = {.kernel = &kernel, .initrd = &none};
    support_guard_mem(&mem, MIB);

    cr_assert_eq(walk(&mem, write_params(&mem, &input, &result), nodes), 1);
    cr_expect_eq(nodes[0]->type, TYPE_RNG_SEED);
    cr_expect_eq(nodes[0]->len, 32);

    for (size_t i = 0; i < sizeof(dtb); i++)
        dtb[i] = image_code(i);
    input.dtb = dtb;
    input.dtb_size = sizeof(dtb);
    cr_assert_eq(walk(&mem, write_params(&mem, &input, &result), nodes), 2);
    const struct setup_data *seed = nodes[nodes[0]->type == TYPE_DTB];
    const struct setup_data *tree = nodes[nodes[0]->type != TYPE_DTB];
    cr_expect_eq(seed->type, TYPE_RNG_SEED);
    cr_expect_eq(seed->len, 32);
    cr_expect_eq(tree->type, TYPE_DTB);
    cr_expect_eq(tree->len, sizeof(dtb));
    cr_expect_eq(memcmp(tree->data, dtb, sizeof(dtb)), 0);
    const uint8_t *a = (const uint8_t *)seed, *b = (const uint8_t *)tree;
    cr_expect(a + sizeof(*seed) + seed->len <= b || b + sizeof(*tree) + tree->len <= a,
              "nodes overlap");
    guest_mem_finish(&mem);
}

Test(boot_params, a_device_tree_fits_up_to_the_command_line_and_no_further)
{
    static uint8_t dtb[0x80000 - 0x10000];
    struct guest_mem mem;
    struct boot_result result = {0};
    struct minivmm_error err;
    const struct setup_data *nodes[4];
    const struct boot_range none = {0};
    const uint32_t most = 0x80000 - 0x10000 - (16 + 32) - 16;
    struct boot_params_input input = {
        .kernel = &kernel, .initrd = &none, .dtb = dtb, .dtb_size = most};
    support_guard_mem(&mem, MIB);
    *(uint8_t *)guest_mem_at(&mem, LAYOUT_CMDLINE, 1) = 'x';
    cr_expect_eq(walk(&mem, write_params(&mem, &input, &result), nodes), 2);
    cr_expect_eq(*(uint8_t *)guest_mem_at(&mem, LAYOUT_CMDLINE, 1), 'x');
    input.dtb_size = most + 1;
    result = (struct boot_result){0};
    cr_expect_eq(boot_params_write(&mem, &input, &result, &err), -E2BIG);
    cr_expect_str_eq(err.text, "setup_data: 458689 bytes do not fit below 0x80000", "%s", err.text);
    guest_mem_finish(&mem);
}

Test(boot_params, no_two_guests_get_the_same_seed)
{
    uint8_t seeds[3][32];
    const uint8_t zero[32] = {0};
    for (unsigned i = 0; i < 3; i++) {
        struct guest_mem mem;
        struct boot_result result;
        const struct setup_data *nodes[4];
        const struct boot_range none = {0};
        const struct boot_params_input input = {.kernel = &kernel, .initrd = &none};
        support_guard_mem(&mem, MIB);
        cr_assert_eq(walk(&mem, write_params(&mem, &input, &result), nodes), 1);
        memcpy(seeds[i], nodes[0]->data, 32);
        cr_expect_neq(memcmp(seeds[i], zero, 32), 0);
        for (unsigned k = 0; k < i; k++)
            cr_expect_neq(memcmp(seeds[i], seeds[k], 32), 0, "loads %u and %u", i, k);
        guest_mem_finish(&mem);
    }
}

/* Intel SDM volume 3, 4.5: translate by the tables in guest memory; false: not present. */
static bool translate(const struct guest_mem *mem, uint64_t cr3, uint64_t linear, uint64_t *out)
{
    uint64_t table = cr3;
    for (int shift = 39; shift >= 12; shift -= 9) {
        const uint64_t *entry = guest_mem_at(mem, table + (linear >> shift & 511) * 8, 8);
        if (!entry || !(*entry & 1))
            return false;
        cr_expect(*entry & 2, "not writable at 0x%llx", (unsigned long long)linear);
        cr_expect_not(*entry & 4, "open to user mode");
        cr_expect_eq(*entry >> 63, 0, "not executable");
        table = *entry & 0x000ffffffffff000ull;
        if (*entry & 0x80) {
            const uint64_t mask = (1ull << shift) - 1;
            cr_expect_eq(table & mask, 0, "a large page out of line");
            *out = table | (linear & mask);
            return true;
        }
    }
    *out = table | (linear & 4095);
    return true;
}

Test(boot_entry, pages_map_the_first_4_gib_to_themselves_and_nothing_else)
{
    struct guest_mem mem;
    struct boot_entry entry;
    support_guard_mem(&mem, MIB);
    boot_entry_write(&mem, 0x1000200, &entry);
    for (uint64_t page = 0; page < 4 * GIB; page += 2 * MIB) {
        const uint64_t edges[] = {page, page + 0x12345, page + 2 * MIB - 1};
        for (size_t i = 0; i < COUNT(edges); i++) {
            uint64_t physical = ~edges[i];
            cr_assert(translate(&mem, entry.cr3, edges[i], &physical), "0x%llx",
                      (unsigned long long)edges[i]);
            cr_assert_eq(physical, edges[i], "0x%llx", (unsigned long long)edges[i]);
        }
    }
    static const uint64_t nowhere[] = {4 * GIB, 512 * GIB, 1ull << 47, UINT64_MAX - 4095};
    for (size_t i = 0; i < COUNT(nowhere); i++) {
        uint64_t physical;
        cr_expect_not(translate(&mem, entry.cr3, nowhere[i], &physical), "0x%llx",
                      (unsigned long long)nowhere[i]);
    }
    guest_mem_finish(&mem);
}

/* Intel SDM volume 3, 3.4.5: the fields of a segment descriptor. */
static void expect_descriptor(uint64_t d, bool code)
{
    const char *name = code ? "code" : "data";
    cr_expect_eq((d & 0xffff) | (d >> 32 & 0xf0000), 0xfffff, "%s: limit", name);
    cr_expect_eq((d >> 16 & 0xffffff) | (d >> 32 & 0xff000000), 0, "%s: base", name);
    cr_expect_eq(d >> 40 & 0xf, code ? 0xb : 0x3, "%s: type", name);
    cr_expect_eq(d >> 44 & 1, 1, "%s: no system segment", name);
    cr_expect_eq(d >> 45 & 3, 0, "%s: privilege", name);
    cr_expect_eq(d >> 47 & 1, 1, "%s: present", name);
    cr_expect_eq(d >> 53 & 1, code, "%s: 64-bit", name);
    cr_expect_eq(d >> 54 & 1, !code, "%s: default size", name);
    cr_expect_eq(d >> 55 & 1, 1, "%s: granularity", name);
}

Test(boot_entry, the_gdt_has_the_selectors_that_the_protocol_names)
{
    struct guest_mem mem;
    struct boot_entry entry;
    support_guard_mem(&mem, MIB);
    boot_entry_write(&mem, 0x1000200, &entry);
    cr_expect_eq(entry.rip, 0x1000200);
    cr_expect_eq(entry.rsi, LAYOUT_BOOT_PARAMS);
    cr_expect_eq(entry.code_selector, 0x10);
    cr_expect_eq(entry.data_selector, 0x18);
    cr_assert_geq(entry.gdt_limit, 0x1f, "both selectors lie within it");
    const uint64_t *gdt = guest_mem_at(&mem, entry.gdt, entry.gdt_limit + 1u);
    cr_assert_not_null(gdt);
    cr_expect_eq(gdt[0], 0);
    expect_descriptor(gdt[2], true);
    expect_descriptor(gdt[3], false);
    guest_mem_finish(&mem);
}
