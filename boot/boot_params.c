#include "boot/boot_params.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "vmm/checked.h"
#include "vmm/layout.h"

#define LOADER_UNDEFINED 0xff /* type_of_loader of a loader without a number of its own */
#define RNG_SEED_SIZE    32u  /* what Linux's generator takes in at once */

/* asm/e820.h of the kernel; asm/bootparam.h has the entry only. */
#define E820_RAM      1u
#define E820_RESERVED 2u

/* Selectors that the boot protocol prescribes. */
#define BOOT_CS 0x10
#define BOOT_DS 0x18

/* Intel SDM volume 3, 4.5: entries of 4-level paging. */
#define PAGE_PRESENT  (1ull << 0)
#define PAGE_WRITABLE (1ull << 1)
#define PAGE_HUGE     (1ull << 7)
#define PAGE_SIZE     4096u
#define TABLE_ENTRIES 512u
#define IDENTITY_GIB  4u

void boot_result_add_table(struct boot_result *result, const char *name, uint64_t gpa,
                           uint64_t size)
{
    assert(result->table_count < BOOT_TABLES_MAX);
    result->tables[result->table_count++] =
        (struct boot_range){.name = name, .gpa = gpa, .size = size};
}

static void add_e820(struct boot_params *params, uint64_t start, uint64_t end, uint32_t type)
{
    assert(params->e820_entries < BOOT_E820_MAX);
    params->e820_table[params->e820_entries++] =
        (struct boot_e820_entry){.addr = start, .size = end - start, .type = type};
}

static void write_e820(const struct guest_mem *mem, struct boot_params *params)
{
    add_e820(params, 0, LAYOUT_LOW_RESERVED, E820_RAM);
    add_e820(params, LAYOUT_LOW_RESERVED, LAYOUT_HIGH_MEMORY, E820_RESERVED);
    if (mem->regions[0].size > LAYOUT_HIGH_MEMORY)
        add_e820(params, LAYOUT_HIGH_MEMORY, mem->regions[0].size, E820_RAM);
    for (unsigned i = 1; i < mem->count; i++)
        add_e820(params, mem->regions[i].gpa, mem->regions[i].gpa + mem->regions[i].size, E820_RAM);
}

/* Put one node of the setup_data list at *gpa, in front of the list, and move *gpa behind it. */
static int add_setup_data(const struct guest_mem *mem, struct boot_params *params, uint64_t *gpa,
                          uint32_t type, const void *data, uint32_t size, struct minivmm_error *err)
{
    uint64_t end;
    if (!checked_align_up(*gpa + sizeof(struct setup_data) + size, 16, &end) ||
        end > LAYOUT_CMDLINE)
        return error_set(err, -E2BIG, "setup_data: %u bytes do not fit below 0x%x", size,
                         LAYOUT_CMDLINE);
    struct setup_data *node = guest_mem_at(mem, *gpa, end - *gpa);
    node->next = params->hdr.setup_data;
    node->type = type;
    node->len = size;
    memcpy(node->data, data, size);
    params->hdr.setup_data = *gpa;
    *gpa = end;
    return 0;
}

int boot_params_write(const struct guest_mem *mem, const struct boot_params_input *input,
                      struct boot_result *result, struct minivmm_error *err)
{
    struct boot_params *params = guest_mem_at(mem, LAYOUT_BOOT_PARAMS, sizeof(*params));

    memset(params, 0, sizeof(*params));
    params->hdr = input->kernel->header;
    params->hdr.type_of_loader = LOADER_UNDEFINED;
    params->hdr.loadflags |= LOADED_HIGH;
    params->hdr.code32_start = (uint32_t)input->kernel->load;
    params->hdr.cmd_line_ptr = LAYOUT_CMDLINE;
    params->hdr.ramdisk_image = (uint32_t)input->initrd->gpa;
    params->hdr.ramdisk_size = (uint32_t)input->initrd->size;
    params->hdr.setup_data = 0;
    params->acpi_rsdp_addr = input->rsdp;
    write_e820(mem, params);
    boot_result_add_table(result, "boot_params", LAYOUT_BOOT_PARAMS, sizeof(*params));

    uint8_t seed[RNG_SEED_SIZE];
    if (getrandom(seed, sizeof(seed), 0) != sizeof(seed))
        return error_set(err, -EIO, "getrandom: %s", strerror(errno));
    uint64_t gpa = LAYOUT_SETUP_DATA;
    int rc = add_setup_data(mem, params, &gpa, SETUP_RNG_SEED, seed, sizeof(seed), err);
    explicit_bzero(seed, sizeof(seed));
    if (rc < 0)
        return rc;
    boot_result_add_table(result, "setup_data: RNG seed", LAYOUT_SETUP_DATA,
                          gpa - LAYOUT_SETUP_DATA);

    if (input->dtb) {
        uint64_t start = gpa;
        rc = add_setup_data(mem, params, &gpa, SETUP_DTB, input->dtb, input->dtb_size, err);
        if (rc < 0)
            return rc;
        boot_result_add_table(result, "setup_data: device tree", start, gpa - start);
    }
    return 0;
}

static uint64_t segment_descriptor(bool code)
{
    /* Intel SDM volume 3, 3.4.5: flat 4 GiB, present, accessed, ring 0. */
    return code ? 0x00af9b000000ffffull : 0x00cf93000000ffffull;
}

void boot_entry_write(const struct guest_mem *mem, uint64_t rip, struct boot_entry *entry)
{
    const unsigned gdt_entries = BOOT_DS / 8 + 1;
    uint64_t *gdt = guest_mem_at(mem, LAYOUT_GDT, gdt_entries * sizeof(*gdt));
    gdt[BOOT_CS / 8] = segment_descriptor(true);
    gdt[BOOT_DS / 8] = segment_descriptor(false);

    uint64_t *table = guest_mem_at(mem, LAYOUT_PAGE_TABLES, (2 + IDENTITY_GIB) * PAGE_SIZE);
    uint64_t *pdpt = table + TABLE_ENTRIES, *directory = pdpt + TABLE_ENTRIES;
    table[0] = (LAYOUT_PAGE_TABLES + PAGE_SIZE) | PAGE_PRESENT | PAGE_WRITABLE;
    for (unsigned i = 0; i < IDENTITY_GIB; i++)
        pdpt[i] = (LAYOUT_PAGE_TABLES + (2 + i) * PAGE_SIZE) | PAGE_PRESENT | PAGE_WRITABLE;
    for (uint64_t i = 0; i < IDENTITY_GIB * TABLE_ENTRIES; i++)
        directory[i] = i << 21 | PAGE_PRESENT | PAGE_WRITABLE | PAGE_HUGE;

    *entry = (struct boot_entry){.rip = rip,
                                 .rsi = LAYOUT_BOOT_PARAMS,
                                 .cr3 = LAYOUT_PAGE_TABLES,
                                 .gdt = LAYOUT_GDT,
                                 .gdt_limit = (uint16_t)(gdt_entries * sizeof(*gdt) - 1),
                                 .code_selector = BOOT_CS,
                                 .data_selector = BOOT_DS};
}
