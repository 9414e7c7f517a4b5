/* Several vCPUs: start-up by INIT and SIPI, and what CPUID tells each of them. */
#include <stdlib.h>
#include <string.h>

#include "tests/kvm/guest.h"

SUITE(smp);

/*
 * Parameter 0: the number of vCPUs. Every vCPU writes a record of 4 double words to 0x10000 +
 * 16 * (order of arrival): APIC id of leaf 1, APIC id of leaf 0xb, threads of a core, logical
 * processors of the package (leaf 0xb again). The others start in real mode at 0x8000, where both
 * the code and the data segment can reach all of this; vCPU 0 prints the records.
 */
GUEST(start_all, "lea 10f(%rip), %rsi\n"
                 "mov $0x8000, %edi\n"
                 "mov $20f-10f, %ecx\n"
                 "rep movsb\n"
                 "movl $0, 0x7ff0\n"
                 "cmpl $1, guest_parameters(%rip)\n"
                 "je 1f\n"
                 "mov $LAPIC, %ebx\n"
                 "movl $0x1ff, 0xf0(%rbx)\n"    /* on */
                 "movl $0xc4500, 0x300(%rbx)\n" /* INIT to all but self */
                 "movl $0xc4608, 0x300(%rbx)\n" /* SIPI twice, vector 8: 0x8000 */
                 "movl $0xc4608, 0x300(%rbx)\n"
                 "1: call 30f\n" /* our own record */
                 "2: pause\n"
                 "mov 0x7ff4, %eax\n"
                 "cmp guest_parameters(%rip), %eax\n"
                 "jne 2b\n"
                 "mov $0x10000, %r12d\n"
                 "mov guest_parameters(%rip), %r13\n"
                 "shl $2, %r13\n"
                 "3: mov (%r12), %eax\n"
                 "call guest_hex\n"
                 "print \" \"\n"
                 "add $4, %r12\n"
                 "dec %r13\n"
                 "jnz 3b\n"
                 "mov 0x7ff0, %eax\n"
                 "call guest_hex\n"
                 "exit 0\n"

                 "30:\n" /* 64-bit form of the code below */
                 "mov $1, %eax\n"
                 "lock xadd %eax, 0x7ff0\n"
                 "shl $4, %eax\n"
                 "lea 0x10000(%rax), %edi\n"
                 "mov $1, %eax\n"
                 "cpuid\n"
                 "shr $24, %ebx\n"
                 "mov %ebx, (%rdi)\n"
                 "mov $0xb, %eax\n"
                 "xor %ecx, %ecx\n"
                 "cpuid\n"
                 "mov %edx, 4(%rdi)\n"
                 "mov %ebx, 8(%rdi)\n"
                 "mov $0xb, %eax\n"
                 "mov $1, %ecx\n"
                 "cpuid\n"
                 "mov %ebx, 12(%rdi)\n"
                 "lock incl 0x7ff4\n"
                 "ret\n"

                 ".code16\n"
                 "10: cli\n"
                 "xor %ax, %ax\n"
                 "mov %ax, %ds\n"
                 "mov $0x1000, %ax\n"
                 "mov %ax, %es\n"
                 "mov $1, %eax\n"
                 "lock xadd %eax, 0x7ff0\n"
                 "shl $4, %eax\n"
                 "mov %ax, %di\n"
                 "mov $1, %eax\n"
                 "cpuid\n"
                 "shr $24, %ebx\n"
                 "mov %ebx, %es:(%di)\n"
                 "mov $0xb, %eax\n"
                 "xor %ecx, %ecx\n"
                 "cpuid\n"
                 "mov %edx, %es:4(%di)\n"
                 "mov %ebx, %es:8(%di)\n"
                 "mov $0xb, %eax\n"
                 "mov $1, %ecx\n"
                 "cpuid\n"
                 "mov %ebx, %es:12(%di)\n"
                 "lock incl 0x7ff4\n"
                 "11: hlt\n"
                 "jmp 11b\n"
                 "20:\n"
                 ".code64\n");

GUEST(max_leaf, "xor %eax, %eax\n"
                "cpuid\n"
                "call guest_hex\n"
                "exit 0\n");

Test(smp, init_and_sipi_start_every_vcpu_with_an_apic_id_of_its_own)
{
    static const unsigned rows[] = {1, 2, 4};

    char *leaf = guest_output(guest_max_leaf);
    bool has_topology = strtoul(leaf, NULL, 16) >= 0xb;
    free(leaf);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned cpus = rows[i], seen = 0;
        struct guest_run run = guest_config();
        run.config.cpus = cpus;
        run.parameters[0] = cpus;
        guest_run(&run, guest_start_all);
        cr_assert_eq(run.verdict.exit_code, 0, "%u vCPUs: %s", cpus, run.verdict.text);
        char *at = run.output;
        for (unsigned cpu = 0; cpu < cpus; cpu++) {
            unsigned long id = strtoul(at, &at, 16), id_b = strtoul(at, &at, 16);
            unsigned long threads = strtoul(at, &at, 16), package = strtoul(at, &at, 16);
            cr_assert_lt(id, cpus);
            seen |= 1u << id;
            if (!has_topology)
                continue;
            cr_expect_eq(id_b, id);
            cr_expect_eq(threads, 1);
            cr_expect_eq(package, cpus);
        }
        cr_expect_eq(seen, (1u << cpus) - 1, "%u vCPUs: %s", cpus, run.output);
        cr_expect_eq(strtoul(at, NULL, 16), cpus, "each one starts once");
        guest_free(&run);
    }
}

/* The three registers of a CPUID leaf's text, or ebx as a number. */
GUEST(signature, "mov $0x40000000, %eax\n"
                 "cpuid\n"
                 "movl $0, 0x700c\n"
                 "mov %ebx, 0x7000\n"
                 "mov %ecx, 0x7004\n"
                 "mov %edx, 0x7008\n"
                 "mov %eax, %r12d\n"
                 "mov $0x7000, %edi\n"
                 "call guest_puts\n"
                 "print \" \"\n"
                 "print_hex %r12\n"
                 "mov $1, %eax\n"
                 "cpuid\n"
                 "shr $31, %ecx\n"
                 "mov %ecx, %r12d\n"
                 "print \" \"\n"
                 "print_hex %r12\n"
                 "mov $0x40000010, %eax\n"
                 "cpuid\n"
                 "mov %eax, %r12d\n"
                 "mov %ebx, %r13d\n"
                 "print \" \"\n"
                 "print_hex %r12\n"
                 "print \" \"\n"
                 "print_hex %r13\n"
                 "exit 0\n");

Test(smp, cpuid_names_kvm_and_the_clocks_frequencies)
{
    char *output = guest_output(guest_signature), *at;
    cr_assert_eq(strncmp(output, "KVMKVMKVM ", 10), 0, "%s", output);
    cr_expect_geq(strtoul(output + 10, &at, 16), 0x40000010);
    cr_expect_eq(strtoul(at, &at, 16), 1, "leaf 1 announces a hypervisor");
    unsigned long tsc_khz = strtoul(at, &at, 16);
    cr_expect(tsc_khz > 100000 && tsc_khz < 10000000, "TSC at %lu kHz", tsc_khz);
    cr_expect_eq(strtoul(at, &at, 16), 1000000, "local APIC timer at 1 GHz");
    free(output);
}
