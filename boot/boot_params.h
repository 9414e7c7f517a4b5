/*
 * boot_params ("zero page"), its memory map and setup_data, and the tables that 64-bit mode needs.
 * Documentation/arch/x86/zero-page.rst and boot.rst; asm/bootparam.h.
 */
#ifndef BOOT_BOOT_PARAMS_H
#define BOOT_BOOT_PARAMS_H

#include "boot/boot.h"
#include "boot/image.h"

/* What boot_params_write puts into boot_params. */
struct boot_params_input {
    const struct kernel_image *kernel;
    const struct boot_range *initrd; /* size 0: none */
    uint64_t rsdp;                   /* 0: none */
    const void *dtb;                 /* device tree blob or NULL */
    uint32_t dtb_size;
};

/*
 * Write boot_params, the RNG seed and the device tree; the command line is at LAYOUT_CMDLINE
 * already. Adds what it wrote to result->tables.
 */
int boot_params_write(const struct guest_mem *mem, const struct boot_params_input *input,
                      struct boot_result *result, struct minivmm_error *err);

/* Write GDT and identity-mapping page tables; the state that uses them goes to *entry. */
void boot_entry_write(const struct guest_mem *mem, uint64_t rip, struct boot_entry *entry);

/* Note a range in result->tables. */
void boot_result_add_table(struct boot_result *result, const char *name, uint64_t gpa,
                           uint64_t size);

#endif
