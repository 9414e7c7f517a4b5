/* Guests that mean harm: whatever they do ends in a documented verdict. */
#include <stdlib.h>
#include <string.h>

#include "tests/kvm/guest.h"

SUITE(hostile);

/*
 * Parameters: first port, step, number of ports, value to write. Every port is read and written in
 * 1, 2 and 4 bytes, except that a value other than 0 is not for the two registers that act on
 * single bits, panic and reset control.
 */
GUEST(port_flood, "mov guest_parameters(%rip), %r12d\n"
                  "mov guest_parameters+16(%rip), %r13d\n"
                  "mov guest_parameters+24(%rip), %ebx\n"
                  "1: mov %r12d, %edx\n"
                  "in %dx, %al\n"
                  "in %dx, %ax\n"
                  "in %dx, %eax\n"
                  "test %ebx, %ebx\n"
                  "jz 2f\n"
                  "cmp $PANIC, %edx\n"
                  "je 3f\n"
                  "cmp $RESET_CONTROL, %edx\n"
                  "je 3f\n"
                  "2: mov %ebx, %eax\n"
                  "out %al, %dx\n"
                  "out %ax, %dx\n"
                  "out %eax, %dx\n"
                  "3: add guest_parameters+8(%rip), %r12d\n"
                  "movzwl %r12w, %r12d\n"
                  "dec %r13d\n"
                  "jnz 1b\n"
                  "poweroff\n");

Test(hostile, a_flood_of_port_accesses_of_every_width_harms_nobody)
{
    static const uint64_t rows[][GUEST_PARAMETERS] = {
        {0, 1, 0x600, 0},          /* all that a PC has */
        {0x3f8, 1, 8, 0xffffffff}, /* the serial port, all bits */
        {0, 7, 0x200, 0xffffffff},
        {0xcf0, 1, 0x10, 0},
        {0xcf0, 1, 0x10, 0xffffffff},
        {0x1000, 0x77, 0x200, 0xffffffff}, /* up to the end of the ports */
        {0xfff0, 1, 0x20, 0},              /* and over it */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct guest_run run = guest_config();
        run.config.debug_exit = false;
        memcpy(run.parameters, rows[i], sizeof(rows[i]));
        guest_run(&run, guest_port_flood);
        cr_expect_eq(run.verdict.exit_code, 0, "row %zu: %s", i, run.verdict.text);
        guest_free(&run);
    }
}

/* Parameters: first address, step, number of accesses, value to write; in 1, 2, 4 and 8 bytes. */
GUEST(memory_flood, "mov guest_parameters(%rip), %r12d\n"
                    "mov guest_parameters+16(%rip), %r13d\n"
                    "mov guest_parameters+24(%rip), %rbx\n"
                    "1: mov (%r12), %al\n"
                    "mov (%r12), %ax\n"
                    "mov (%r12), %eax\n"
                    "mov (%r12), %rax\n"
                    "mov %bl, (%r12)\n"
                    "mov %bx, (%r12)\n"
                    "mov %ebx, (%r12)\n"
                    "mov %rbx, (%r12)\n"
                    "add guest_parameters+8(%rip), %r12d\n"
                    "dec %r13d\n"
                    "jnz 1b\n"
                    "poweroff\n");

Test(hostile, a_flood_of_memory_accesses_of_every_width_harms_nobody)
{
    static const uint64_t rows[][GUEST_PARAMETERS] = {
        {LAYOUT_IOAPIC - 8, 1, 0x40, 0},
        {LAYOUT_IOAPIC - 8, 1, 0x40, UINT64_MAX},
        {LAYOUT_IOAPIC, 61, 0x50, UINT64_MAX},
        {LAYOUT_IOAPIC + 0xff0, 1, 0x18, 0x5555555555555555},
        {LAYOUT_POWER - 8, 1, 0x20, 0},
        {LAYOUT_POWER - 8, 1, 0x20, UINT64_MAX},
        {LAYOUT_POWER + 0xff0, 1, 0x18, UINT64_MAX},
        {LAYOUT_VIRTIO, 0x123, 0x100, UINT64_MAX},
        {LAYOUT_LOW_RAM_END - 8, 1, 0x18, UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct guest_run run = guest_config();
        memcpy(run.parameters, rows[i], sizeof(rows[i]));
        guest_run(&run, guest_memory_flood);
        cr_expect_eq(run.verdict.exit_code, 0, "row %zu: %s", i, run.verdict.text);
        guest_free(&run);
    }
}

/*
 * Redirection entries of all pins: every delivery mode, edge and level, physical and logical, and
 * vectors that the architecture reserves. Parameter 0: added to each entry, for the mask bit.
 */
GUEST(every_route, "mov $IOAPIC, %ebx\n"
                   "xor %r12d, %r12d\n"   /* mode, in bits 8 to 10 */
                   "1: mov $0x10, %ecx\n" /* register */
                   "2: mov %cl, (%rbx)\n"
                   "mov %r12d, %eax\n"
                   "shl $8, %eax\n"
                   "and $0x8fff, %eax\n"
                   "or %ecx, %eax\n" /* vectors from 0x10 on */
                   "or guest_parameters(%rip), %eax\n"
                   "mov %eax, 16(%rbx)\n"
                   "lea 1(%rcx), %eax\n"
                   "mov %al, (%rbx)\n"
                   "movl $0xff000000, 16(%rbx)\n"
                   "add $2, %ecx\n"
                   "cmp $0x10+2*24, %ecx\n"
                   "jb 2b\n"
                   "add $0x11, %r12d\n"
                   "cmp $0x88, %r12d\n"
                   "jb 1b\n"
                   "exit 0\n");

Test(hostile, redirection_entries_take_every_delivery_mode)
{
    static const uint64_t rows[] = {0, 0x10000, 0x800, 0x8000};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct guest_run run = guest_config();
        run.parameters[0] = rows[i];
        guest_run(&run, guest_every_route);
        cr_expect_eq(run.verdict.exit_code, 0, "0x%llx: %s", (unsigned long long)rows[i],
                     run.verdict.text);
        guest_free(&run);
    }
}

/* Parameter 0: the entry of line 4. Raises the line a few times, with no interrupt table at all. */
GUEST(raises_line, "mov $LAPIC, %ebx\n"
                   "movl $0x1ff, 0xf0(%rbx)\n"
                   "mov $IOAPIC, %ebx\n"
                   "movb $0x10+2*4, (%rbx)\n"
                   "mov guest_parameters(%rip), %eax\n"
                   "mov %eax, 16(%rbx)\n"
                   "mov $8, %ecx\n"
                   "1: outb COM1+1, 2\n" /* transmitter empty */
                   "outb COM1+1, 0\n"
                   "loop 1b\n"
                   "exit 0\n");

Test(hostile, an_interrupt_of_every_delivery_mode_ends_in_a_verdict)
{
    /* Fixed, lowest priority, SMI, reserved, NMI, INIT, reserved, ExtINT; edge and level. */
    for (unsigned mode = 0; mode < 8; mode++) {
        for (unsigned level = 0; level < 2; level++) {
            struct guest_run run = guest_config();
            run.config.timeout = 1;
            run.parameters[0] = mode << 8 | level << 15 | 0x24;
            guest_run(&run, guest_raises_line);
            int code = run.verdict.exit_code;
            cr_expect(code == 0 || code == MINIVMM_EXIT_FAULT || code == MINIVMM_EXIT_TIMEOUT,
                      "mode %u, level %u: %s", mode, level, run.verdict.text);
            guest_free(&run);
        }
    }
}

/* Tables and boot_params are the guest's own: nobody reads them again. Page tables stay. */
GUEST(overwrites_all, "mov $-1, %rax\n"
                      "xor %edi, %edi\n" /* up to the GDT */
                      "mov $0x500/8, %ecx\n"
                      "rep stosq\n"
                      "mov $0x7000, %edi\n" /* boot_params */
                      "mov $0x1000/8, %ecx\n"
                      "rep stosq\n"
                      "mov $0x10000, %edi\n" /* setup_data, command line */
                      "mov $0x90000/8, %ecx\n"
                      "rep stosq\n"
                      "mov $0xe0000, %edi\n" /* ACPI tables */
                      "mov $0x20000/8, %ecx\n"
                      "rep stosq\n"
                      "mov $POWER+2, %edx\n"
                      "movb $1, (%rdx)\n"
                      "jmp guest_stop\n");

Test(hostile, an_overwritten_platform_is_the_guests_loss_alone)
{
    for (int platform = MINIVMM_PLATFORM_ACPI; platform <= MINIVMM_PLATFORM_CMDLINE; platform++) {
        struct guest_run run = guest_config();
        run.config.platform = (enum minivmm_platform)platform;
        guest_run(&run, guest_overwrites_all);
        cr_expect_eq(run.verdict.end, MINIVMM_END_REBOOT, "%s", run.verdict.text);
        cr_expect_eq(run.verdict.exit_code, 0);
        guest_free(&run);
    }
}

/* Start and stop the others all the time, while they spin. */
GUEST(start_storm, "movw $0xfeeb, 0x8000\n"
                   "mov $LAPIC, %ebx\n"
                   "movl $0x1ff, 0xf0(%rbx)\n"
                   "mov $200, %ecx\n"
                   "1: movl $0xc4500, 0x300(%rbx)\n"
                   "movl $0xc4608, 0x300(%rbx)\n"
                   "loop 1b\n"
                   "exit 0\n");

Test(hostile, a_storm_of_init_and_sipi_ends_in_order)
{
    struct guest_run run = guest_config();
    run.config.cpus = 3;
    guest_run(&run, guest_start_storm);
    cr_expect_eq(run.verdict.exit_code, 0, "%s", run.verdict.text);
    guest_free(&run);
}
