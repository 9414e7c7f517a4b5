/* What a guest finds at its first instruction: registers, boot_params, memory. */
#include <asm/bootparam.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "tests/kvm/guest.h"

SUITE(entry_state);

GUEST_NUMBER(HEADER_MAGIC, 0x202, offsetof(struct boot_params, hdr.header));
GUEST_NUMBER(CMDLINE_POINTER, 0x228, offsetof(struct boot_params, hdr.cmd_line_ptr));
GUEST_NUMBER(E820_ENTRIES, 0x1e8, offsetof(struct boot_params, e820_entries));
GUEST_NUMBER(E820_TABLE, 0x2d0, offsetof(struct boot_params, e820_table));
GUEST_NUMBER(E820_SIZE, 20, sizeof(struct boot_e820_entry));

/* rflags, cr0, cr4 and EFER without the bits that a processor may add by itself. */
GUEST(registers, "mov %rsi, %r12\n"
                 "pushf\n"
                 "print \"rsi \"\n"
                 "print_hex %r12\n"
                 "xor %ebx, %ebx\n"
                 "print \" cs \"\n"
                 "mov %cs, %ebx\n"
                 "print_hex %rbx\n"
                 "print \" ds \"\n"
                 "mov %ds, %ebx\n"
                 "print_hex %rbx\n"
                 "print \" ss \"\n"
                 "mov %ss, %ebx\n"
                 "print_hex %rbx\n"
                 "print \" flags \"\n"
                 "pop %rbx\n"
                 "print_hex %rbx\n"
                 "print \" cr0 \"\n"
                 "mov %cr0, %rbx\n"
                 "and $0x80000001, %ebx\n" /* paging, protection */
                 "print_hex %rbx\n"
                 "print \" cr4 \"\n"
                 "mov %cr4, %rbx\n"
                 "and $0x20, %ebx\n" /* physical address extension */
                 "print_hex %rbx\n"
                 "print \" efer \"\n"
                 "mov $0xc0000080, %ecx\n"
                 "rdmsr\n"
                 "and $0x500, %eax\n" /* long mode enabled and active */
                 "mov %rax, %rbx\n"
                 "print_hex %rbx\n"
                 "exit 0\n");

Test(entry_state, is_64_bit_code_with_paging_on_and_interrupts_off)
{
    char *output = guest_output(guest_registers);
    cr_assert_str_eq(output, "rsi 7000 cs 10 ds 18 ss 18 flags 2 cr0 80000001 cr4 20 efer 500");
    free(output);
}

/* The selectors can be loaded again, as every kernel does sooner or later. */
GUEST(reloads, "mov $0x18, %eax\n"
               "mov %eax, %ds\n"
               "mov %eax, %es\n"
               "mov %eax, %ss\n"
               "push $0x10\n"
               "lea 1f(%rip), %rax\n"
               "push %rax\n"
               "lretq\n"
               "1: exit 0\n");

Test(entry_state, gdt_holds_the_selectors)
{
    free(guest_output(guest_reloads));
}

GUEST(magic_and_cmdline, "mov %rsi, %r12\n"
                         "mov HEADER_MAGIC(%r12), %eax\n"
                         "call guest_hex\n"
                         "print \" \"\n"
                         "mov CMDLINE_POINTER(%r12), %edi\n"
                         "call guest_puts\n"
                         "exit 0\n");

Test(entry_state, boot_params_hold_magic_and_command_line)
{
    static const struct {
        const char *cmdline;
        bool no_defaults;
        const char *begins, *ends;
    } rows[] = {
        {"one two", true, "53726448 one two", " two"},
        {"one two", false, "53726448 console=ttyS0 ", " one two"},
        {NULL, true, "53726448 ", " "},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct guest_run run = guest_config();
        run.config.cmdline = rows[i].cmdline;
        run.config.no_default_cmdline = rows[i].no_defaults;
        guest_run(&run, guest_magic_and_cmdline);
        cr_expect_eq(run.verdict.exit_code, 0);
        size_t ends = strlen(rows[i].ends);
        cr_expect_eq(strncmp(run.output, rows[i].begins, strlen(rows[i].begins)), 0, "%zu: %s", i,
                     run.output);
        cr_expect(run.length >= ends && strcmp(run.output + run.length - ends, rows[i].ends) == 0,
                  "%zu: %s", i, run.output);
        guest_free(&run);
    }
}

GUEST(e820, "movzbl E820_ENTRIES(%rsi), %r12d\n"
            "lea E820_TABLE(%rsi), %r13\n"
            "1: print_hex (%r13)\n"
            "print \" \"\n"
            "print_hex 8(%r13)\n"
            "print \" \"\n"
            "mov 16(%r13), %eax\n"
            "call guest_hex\n"
            "print \"\\n\"\n"
            "add $E820_SIZE, %r13\n"
            "dec %r12d\n"
            "jnz 1b\n"
            "exit 0\n");

static void need_host_memory(uint64_t bytes)
{
    struct sysinfo host;
    if (sysinfo(&host) == 0 && ((uint64_t)host.totalram + host.totalswap) * host.mem_unit < bytes)
        cr_skip_test("this host has less memory than the guest wants");
}

Test(entry_state, e820_goes_round_the_hole)
{
    static const struct {
        uint64_t memory;
        const char *map;
    } rows[] = {
        {GUEST_MEMORY, "0 98000 1\n98000 68000 2\n100000 1f00000 1\n"},
        {5ull << 30, "0 98000 1\n98000 68000 2\n100000 bff00000 1\n100000000 80000000 1\n"},
    };
    need_host_memory(5ull << 30);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct guest_run run = guest_config();
        run.config.memory = rows[i].memory;
        guest_run(&run, guest_e820);
        cr_expect_str_eq(run.output, rows[i].map);
        guest_free(&run);
    }
}

/*
 * First and last quadwords of RAM below and above the hole keep what is written. One page directory
 * at 18 MiB maps the first 2 MiB from 4 GiB on and the last 2 MiB up to 6 GiB; the page-directory
 * pointers lie at 0xa000.
 */
GUEST(both_ends, "movq $0x1200003, 0xa020\n"
                 "movq $0x1200003, 0xa028\n"
                 "mov $0x100000083, %rax\n"
                 "mov %rax, 0x1200000\n"
                 "mov $0x17fe00083, %rax\n"
                 "mov %rax, 0x1200ff8\n"
                 "mov %cr3, %rax\n"
                 "mov %rax, %cr3\n"
                 "lea 7f(%rip), %r12\n"
                 "lea 8f(%rip), %r13\n"
                 "mov %r12, %rbx\n"
                 "1: mov (%rbx), %rax\n" /* every place gets its own address */
                 "mov %rax, (%rax)\n"
                 "add $8, %rbx\n"
                 "cmp %r13, %rbx\n"
                 "jb 1b\n"
                 "mov %r12, %rbx\n"
                 "2: mov (%rbx), %rax\n"
                 "cmp %rax, (%rax)\n"
                 "jne 3f\n"
                 "add $8, %rbx\n"
                 "cmp %r13, %rbx\n"
                 "jb 2b\n"
                 "mov $0xc0000000, %eax\n" /* behind the last one nothing answers */
                 "movq $0, (%rax)\n"
                 "cmpq $-1, (%rax)\n"
                 "jne 3f\n"
                 "exit 0\n"
                 "3: exit 1\n"
                 ".balign 8\n"
                 "7: .quad 0, 0x97ff8, 0x100000, 0xbffffff8, 0x100000000, 0x17ffffff8\n"
                 "8:\n");

Test(entry_state, memory_below_and_above_4_gib_is_there_to_the_last_byte)
{
    need_host_memory(5ull << 30);
    struct guest_run run = guest_config();
    run.config.memory = 5ull << 30;
    guest_run(&run, guest_both_ends);
    cr_assert_eq(run.verdict.exit_code, 0, "%s", run.verdict.text);
    guest_free(&run);
}
