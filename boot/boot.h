/*
 * Everything a guest finds in its memory before its first instruction: the kernel, the initrd, the
 * command line, boot_params, the description of the platform, and a CPU state to start from.
 * Linux x86 boot protocol: Documentation/arch/x86/boot.rst of the kernel; asm/bootparam.h.
 *
 * Runs without KVM. Kernel and initrd files are untrusted: every number in them is checked.
 */
#ifndef BOOT_BOOT_H
#define BOOT_BOOT_H

#include "boot/platform.h"
#include "vmm/guest_mem.h"

#define BOOT_E820_MAX   8
#define BOOT_TABLES_MAX 16

struct boot_config {
    const char *kernel;  /* path */
    const char *initrd;  /* path or NULL */
    const char *cmdline; /* the user's words or NULL */
    bool no_default_cmdline;
    const char *consoles; /* words of the defaults; NULL: "console=ttyS0" */
    unsigned cpus;
    enum minivmm_platform platform;
    const struct platform_fact *facts;
    unsigned fact_count;
};

/* State of the first vCPU at its first instruction: 64-bit mode, paging on, interrupts off. */
struct boot_entry {
    uint64_t rip;
    uint64_t rsi; /* boot_params */
    uint64_t cr3;
    uint64_t gdt;
    uint16_t gdt_limit;
    uint16_t code_selector;
    uint16_t data_selector;
};

/* A part of the guest's memory and what it was filled with. */
struct boot_range {
    const char *name; /* constant text */
    uint64_t gpa;
    uint64_t size;
};

/* What boot_load did, for starting the vCPU and for telling a person. */
struct boot_result {
    struct boot_entry entry;
    const char *format; /* "bzImage", "ELF" */
    struct boot_range kernel;
    uint64_t kernel_needs;    /* first address past what the kernel uses before it reads e820 */
    struct boot_range initrd; /* size 0: none */
    struct boot_range tables[BOOT_TABLES_MAX];
    unsigned table_count;
    char *cmdline; /* malloc'ed */
};

/* Load everything into `mem`, which is all zero. On failure *result needs no finish. */
int boot_load(const struct guest_mem *mem, const struct boot_config *config,
              struct boot_result *result, struct minivmm_error *err);
void boot_result_finish(struct boot_result *result);

#endif
