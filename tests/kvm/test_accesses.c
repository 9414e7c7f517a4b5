/* Port and memory accesses of every width, where a device is and where none is. */
#include <stdlib.h>
#include <string.h>

#include "tests/kvm/guest.h"

SUITE(accesses);

/* Read port `port` in 1, 2 and 4 bytes and print the three values. */
asm(".macro print_port port\n"
    "xor %eax, %eax\n"
    "mov $\\port, %edx\n"
    "in %dx, %al\n"
    "call guest_hex\n"
    "print \" \"\n"
    "xor %eax, %eax\n"
    "mov $\\port, %edx\n"
    "in %dx, %ax\n"
    "call guest_hex\n"
    "print \" \"\n"
    "mov $\\port, %edx\n"
    "in %dx, %eax\n"
    "call guest_hex\n"
    "print \"\\n\"\n"
    ".endm\n"
    /* Read memory in 1, 2, 4 and 8 bytes. */
    ".macro print_memory address\n"
    "mov $\\address, %ebx\n"
    "xor %eax, %eax\n"
    "mov (%rbx), %al\n"
    "call guest_hex\n"
    "print \" \"\n"
    "xor %eax, %eax\n"
    "mov (%rbx), %ax\n"
    "call guest_hex\n"
    "print \" \"\n"
    "mov (%rbx), %eax\n"
    "call guest_hex\n"
    "print \" \"\n"
    "mov (%rbx), %rax\n"
    "call guest_hex\n"
    "print \"\\n\"\n"
    ".endm\n"
    /* Write ones, or zeros, to both in every width. */
    ".macro write_port port value\n"
    "mov $\\port, %edx\n"
    "mov $\\value, %eax\n"
    "out %al, %dx\n"
    "out %ax, %dx\n"
    "out %eax, %dx\n"
    ".endm\n"
    ".macro write_memory address value\n"
    "mov $\\address, %ebx\n"
    "mov $\\value, %rax\n"
    "mov %al, (%rbx)\n"
    "mov %ax, (%rbx)\n"
    "mov %eax, (%rbx)\n"
    "mov %rax, (%rbx)\n"
    ".endm\n");

GUEST(unassigned, "write_port 0x5000, 0\n"
                  "write_port 0xffff, 0x55\n"
                  "write_memory 0xd0100000, 0\n"
                  "write_memory 0xc0000000, 0\n"
                  "write_memory 0xfffffff8, 0\n"
                  "print_port 0x5000\n"
                  "print_port 0xffff\n"
                  "print_memory 0xd0100000\n"
                  "print_memory 0xc0000000\n"
                  "exit 0\n");

Test(accesses, of_nothing_read_ones_and_write_nothing)
{
    char *output = guest_output(guest_unassigned);
    cr_assert_str_eq(output, "ff ffff ffffffff\n"
                             "ff ffff ffffffff\n"
                             "ff ffff ffffffff ffffffffffffffff\n"
                             "ff ffff ffffffff ffffffffffffffff\n");
    free(output);
}

/*
 * The line control register of the serial port keeps a byte. It sits on an 8-bit bus: wider
 * accesses are not for it, nor those that begin in front of a device or reach behind it.
 */
GUEST(widths, "outb COM1+3, 0x1b\n"
              "write_port 0x61, 0\n"
              "mov $COM1+3, %edx\n"
              "mov $0x3f3f, %ax\n"
              "out %ax, %dx\n"
              "out %eax, %dx\n"
              "mov $COM1+7, %edx\n" /* scratch register: the last byte of the device */
              "mov $0x77, %al\n"
              "out %al, %dx\n"
              "out %eax, %dx\n"
              "print_port COM1+3\n"
              "print_port COM1+7\n"
              "print_port COM1-1\n"
              "print_port 0x61\n"
              "print_port 0x64\n"
              "print_port 0x505\n"
              "exit 0\n");

Test(accesses, of_ports_keep_to_a_devices_width_and_range)
{
    char *output = guest_output(guest_widths);
    cr_assert_str_eq(output, "1b ffff ffffffff\n"
                             "77 ffff ffffffff\n"
                             "ff ffff ffffffff\n"
                             "20 ffff ffffffff\n"
                             "fd ffff ffffffff\n"
                             "3 ffff ffffffff\n");
    free(output);
}

/* The I/O APIC: version and a redirection entry, in the widths that it takes. */
GUEST(ioapic_registers, "mov $IOAPIC, %ebx\n"
                        "movb $1, (%rbx)\n"
                        "mov 16(%rbx), %eax\n"
                        "call guest_hex\n"
                        "print \"\\n\"\n"
                        "mov $IOAPIC, %ebx\n"
                        "movl $0x10+2*23+1, (%rbx)\n"
                        "movl $0xab000000, 16(%rbx)\n"
                        "movw $0x1234, 16(%rbx)\n" /* the window takes double words only */
                        "movb $0x12, 16(%rbx)\n"
                        "movq $-1, %rax\n"
                        "mov %rax, 16(%rbx)\n"
                        "mov 16(%rbx), %eax\n"
                        "call guest_hex\n"
                        "print \"\\n\"\n"
                        "print_memory POWER+1\n" /* the sleep status */
                        "print_memory POWER+POWER_PAGE_SIZE-1\n"
                        "exit 0\n");

Test(accesses, of_memory_keep_to_a_devices_width)
{
    char *output = guest_output(guest_ioapic_registers);
    /* The last line begins in a page with a device and ends in one without. */
    const char *begins = "170011\nab000000\n0 0 0 0\n0 ";
    cr_assert_eq(strncmp(output, begins, strlen(begins)), 0, "%s", output);
    free(output);
}

/* Strings: one exit of KVM may carry up to a page of elements. */
GUEST(strings, "lea 1f(%rip), %rsi\n"
               "mov $COM1, %edx\n"
               "mov $26, %ecx\n"
               "rep outsb\n"
               "mov $0x1100000, %edi\n" /* 5000 times 'x' */
               "mov $'x', %al\n"
               "mov $5000, %ecx\n"
               "rep stosb\n"
               "mov $0x1100000, %esi\n"
               "mov $5000, %ecx\n"
               "rep outsb\n"
               "mov $0x1100000, %edi\n" /* words from nowhere, 2 pages of them */
               "mov $4096, %ecx\n"
               "mov $0x5000, %edx\n"
               "rep insw\n"
               "mov $0x1100000, %edi\n"
               "mov $1024, %ecx\n"
               "mov $-1, %rax\n"
               "repe scasq\n"
               "jne 2f\n"
               "exit 0\n"
               "2: exit 1\n"
               "1: .ascii \"abcdefghijklmnopqrstuvwxyz\"\n");

Test(accesses, by_string_instructions_move_every_element_in_order)
{
    char *output = guest_output(guest_strings);
    cr_expect_eq(strlen(output), 5026);
    cr_expect_eq(strncmp(output, "abcdefghijklmnopqrstuvwxyzxxx", 29), 0);
    cr_expect_eq(strspn(output + 26, "x"), 5000);
    free(output);
}
