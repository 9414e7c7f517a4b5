/*
 * Tiny guests: a few hundred instructions of 64-bit code, written in the test that runs them.
 *
 * The code of all guests lies in one section of the test program. Guest memory gets a copy of the
 * whole section at GUEST_BASE, as the one segment of a made-up ELF kernel, so code must be
 * position-independent, may call the routines of guest.c, and starts with a stack of its own.
 * 0 to 4 GiB are mapped to themselves, writable; interrupts are off.
 *
 * Routines for guests:
 *   call guest_puts      write the text at rdi to COM1; changes rax, rdx and rdi
 *   call guest_hex       write rax in hexadecimal digits without leading zeros; keeps all
 *   jmp  guest_exit      report eax through the debug exit register
 *   jmp  guest_stop      halt for ever
 *   guest_parameters     4 quadwords, what struct guest_run says
 * and assembler macros, below.
 */
#ifndef TESTS_KVM_GUEST_H
#define TESTS_KVM_GUEST_H

#include "tests/kvm/suite.h"
#include "vmm/layout.h"
#include "vmm/minivmm.h"

#define GUEST_BASE       0x1000000u
#define GUEST_MEMORY     (32ull << 20)
#define GUEST_OUTPUT_MAX (1u << 20)
#define GUEST_PARAMETERS 4

/* A guest: GUEST(name, "instructions\n...") defines it, guest_name is where it starts. */
#define GUEST(name, code)                                                                          \
    GUEST_SHARED(name);                                                                            \
    asm(".pushsection guest_code, \"ax\"\n"                                                        \
        ".globl guest_" #name "\n"                                                                 \
        ".hidden guest_" #name "\n"                                                                \
        "guest_" #name ":\n"                                                                       \
        "mov $STACK, %esp\n" code "\n"                                                             \
        ".popsection")

/* Numbers of layout.h in a form that the assembler takes. */
#define GUEST_NUMBER(name, value, same_as)                                                         \
    asm(".set " #name ", " #value);                                                                \
    _Static_assert((value) == (same_as), #name)

GUEST_NUMBER(COM1, 0x3f8, LAYOUT_PORT_COM1);
GUEST_NUMBER(POST, 0x80, LAYOUT_PORT_POST);
GUEST_NUMBER(DEBUG_EXIT, 0xf4, LAYOUT_PORT_DEBUG_EXIT);
GUEST_NUMBER(PANIC, 0x505, LAYOUT_PORT_PANIC);
GUEST_NUMBER(RESET_CONTROL, 0xcf9, LAYOUT_PORT_RESET);
GUEST_NUMBER(I8042, 0x64, LAYOUT_PORT_I8042_CMD);
GUEST_NUMBER(POWER, 0xd0000000, LAYOUT_POWER);
GUEST_NUMBER(POWER_PAGE_SIZE, 0x1000, LAYOUT_POWER_SIZE);
GUEST_NUMBER(IOAPIC, 0xfec00000, LAYOUT_IOAPIC);
GUEST_NUMBER(LAPIC, 0xfee00000, LAYOUT_LAPIC);
GUEST_NUMBER(STACK, 0x1000000, GUEST_BASE);

/*
 * print "text", print_hex register, exit status, outb port value, poweroff. They change rax, rdx
 * and rdi.
 */
asm(".macro print text\n"
    "lea 8f(%rip), %rdi\n"
    "call guest_puts\n"
    "jmp 9f\n"
    "8: .asciz \"\\text\"\n"
    "9:\n"
    ".endm\n"
    ".macro print_hex register\n"
    "mov \\register, %rax\n"
    "call guest_hex\n"
    ".endm\n"
    ".macro exit status\n"
    "mov $\\status, %eax\n"
    "jmp guest_exit\n"
    ".endm\n"
    ".macro outb port value\n"
    "mov $\\port, %edx\n"
    "mov $\\value, %al\n"
    "out %al, %dx\n"
    ".endm\n"
    ".macro poweroff\n"
    "mov $POWER, %edx\n"
    "movb $0x34, (%rdx)\n"
    "jmp guest_stop\n"
    ".endm\n");
_Static_assert(POWER_SLEEP_CONTROL == 0 && POWER_SLEEP_S5 == 0x34, "poweroff");

/* Guests for more than one test. */
#define GUEST_SHARED(name) extern const char guest_##name[] __attribute__((visibility("hidden")))
GUEST_SHARED(exit_with); /* status: parameter 0 */
GUEST_SHARED(power_off);
GUEST_SHARED(spin);
GUEST_SHARED(reports_and_spins);   /* after a "!" */
GUEST_SHARED(echoes_by_interrupt); /* after a line "ready", until a q; then exit 0 */

/* Skip the test, with the reason, where there is no usable /dev/kvm. */
void guest_need_kvm(void);

/*
 * A kernel that starts at `entry`, without a name in any directory. Returns its descriptor, which
 * a program started from here inherits; `path` is how to open it, here and there.
 */
int guest_kernel(const char *entry, const uint64_t parameters[GUEST_PARAMETERS], char path[32]);

/* A VM to run and how it went. Start from guest_config. */
struct guest_run {
    struct minivmm_config config; /* kernel and serial_out are filled in by guest_start */
    uint64_t parameters[GUEST_PARAMETERS];

    struct minivmm *vm;
    int output_fd; /* the reader's end of what serial_out writes */
    struct minivmm_verdict verdict;
    char *output; /* what the serial port wrote, with a zero behind it */
    size_t length;
};

/* 1 vCPU, GUEST_MEMORY, debug exit, a deadline of 20 seconds. Skips like guest_need_kvm. */
struct guest_run guest_config(void);

void guest_create(struct guest_run *run, const char *entry);
void guest_start(struct guest_run *run, const char *entry);
/* Wait for the end; fills in verdict and output. */
void guest_wait(struct guest_run *run);
/* Destroy the VM; the output stays. */
void guest_destroy(struct guest_run *run);
/* All of it. */
void guest_run(struct guest_run *run, const char *entry);
void guest_free(struct guest_run *run);

/* A guest with the defaults ends with exit code 0; returns its output, the caller's to free. */
char *guest_output(const char *entry);

/* Seconds from `start`, CLOCK_MONOTONIC in ns, to now. */
double guest_seconds_since(uint64_t start);
uint64_t guest_now(void);

#endif
