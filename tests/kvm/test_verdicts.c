/* Why a VM ended: every way a guest can bring it about, and the deadline. */
#include <stdlib.h>
#include <string.h>

#include "tests/kvm/guest.h"

SUITE(verdicts);

GUEST(reset_register, "mov $POWER+2, %edx\n"
                      "movb $1, (%rdx)\n"
                      "jmp guest_stop\n");
GUEST(reset_i8042, "outb I8042, 0xfe\n"
                   "jmp guest_stop\n");
GUEST(reset_control, "outb RESET_CONTROL, 2\n" /* chooses the kind, */
                     "outb RESET_CONTROL, 6\n" /* and does it */
                     "jmp guest_stop\n");
GUEST(panic_reset, "outb PANIC, 1\n"
                   "outb I8042, 0xfe\n"
                   "jmp guest_stop\n");
GUEST(panic_poweroff, "outb PANIC, 1\n"
                      "poweroff\n");
GUEST(panic_exit, "outb PANIC, 1\n"
                  "exit 0\n");
GUEST(panic_fault, "outb PANIC, 1\n"
                   "ud2\n");
GUEST(panic_hang, "outb PANIC, 1\n"
                  "jmp .\n");
GUEST(panic_again_and_again, "outb PANIC, 1\n"
                             "1: out %al, %dx\n"
                             "jmp 1b\n");
GUEST(crash_loaded_reset, "outb PANIC, 2\n"
                          "outb I8042, 0xfe\n"
                          "jmp guest_stop\n");
GUEST(warm_reset, "movw $0x1234, 0x472\n"
                  "mov $POWER+2, %edx\n"
                  "movb $1, (%rdx)\n"
                  "jmp guest_stop\n");
GUEST(cold_reset, "movw $0x1235, 0x472\n"
                  "outb RESET_CONTROL, 4\n"
                  "jmp guest_stop\n");
GUEST(warm_poweroff, "movw $0x1234, 0x472\n"
                     "poweroff\n");
GUEST(triple_fault, "ud2\n"); /* the interrupt table is empty */
/*
 * What a KVM that interprets code may not know, and where one without such a lack ends in a triple
 * fault: both are the same exit code.
 */
GUEST(breakpoint, "int3\n"
                  "ud2\n");
GUEST(not_quite_the_end, "mov $POWER, %edx\n"
                         "movb $0x14, (%rdx)\n" /* S5 without the enable bit */
                         "movb $0x30, (%rdx)\n" /* another sleep type */
                         "movw $0x34, (%rdx)\n" /* too wide */
                         "movb $0, 2(%rdx)\n"
                         "movb $0x34, 1(%rdx)\n"
                         "outb I8042, 0xff\n"
                         "outb RESET_CONTROL, 2\n"
                         "outb PANIC, 0\n"
                         "mov $RESET_CONTROL, %edx\n"
                         "mov $6, %eax\n"
                         "out %ax, %dx\n"
                         "exit 5\n");

#define FLAG_WARM 0x1234
_Static_assert(LAYOUT_RESET_FLAG == 0x472 && RESET_FLAG_WARM == FLAG_WARM, "warm_reset");

struct row {
    const char *name;
    const char *entry;
    enum minivmm_end end;
    int exit_code;
    const char *text; /* part of the verdict in words */
    bool no_default_cmdline;
    uint32_t status;  /* guest_exit_with */
    unsigned timeout; /* 0: what guest_config says */
};

static void check(const struct row *row)
{
    struct guest_run run = guest_config();
    run.config.no_default_cmdline = row->no_default_cmdline;
    if (row->timeout)
        run.config.timeout = row->timeout;
    run.parameters[0] = row->status;
    guest_run(&run, row->entry);
    cr_expect_eq(run.verdict.end, row->end, "%s: %s", row->name, run.verdict.text);
    cr_expect_eq(run.verdict.exit_code, row->exit_code, "%s: exit code %d", row->name,
                 run.verdict.exit_code);
    cr_expect_eq(run.verdict.status, row->status, "%s", row->name);
    cr_expect(strstr(run.verdict.text, row->text), "%s: %s", row->name, run.verdict.text);
    cr_expect(!strchr(run.verdict.text, '\n'), "%s", row->name);
    guest_free(&run);
}

#define STATUS(value, code)                                                                        \
    {                                                                                              \
        "status " #value, guest_exit_with, MINIVMM_END_STATUS, code, "status", false, value, 0     \
    }

Test(verdicts, a_status_that_does_not_fit_is_119_and_never_0)
{
    static const struct row rows[] = {
        STATUS(0, 0),           STATUS(1, 1),     STATUS(7, 7),     STATUS(118, 118),
        STATUS(119, 119),       STATUS(120, 119), STATUS(256, 119), STATUS(0x80000000, 119),
        STATUS(0xffffffff, 119)};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        check(&rows[i]);
}

Test(verdicts, say_what_the_guest_did)
{
    static const struct row rows[] = {
        {"power off", guest_power_off, MINIVMM_END_POWEROFF, 0, "powered off", 0, 0, 0},
        {"reset register", guest_reset_register, MINIVMM_END_REBOOT, 0, "restarted", 0, 0, 0},
        {"keyboard controller", guest_reset_i8042, MINIVMM_END_REBOOT, 0, "restarted", 0, 0, 0},
        {"reset control", guest_reset_control, MINIVMM_END_REBOOT, 0, "restarted", 0, 0, 0},
        {"cold reset", guest_cold_reset, MINIVMM_END_REBOOT, 0, "restarted", 0, 0, 0},
        {"almost", guest_not_quite_the_end, MINIVMM_END_STATUS, 5, "status 5", 0, 5, 0},
        {"triple fault", guest_triple_fault, MINIVMM_END_TRIPLE_FAULT, 121, "triple fault", 0, 0,
         0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        check(&rows[i]);
}

Test(verdicts, a_panic_stays_one_whatever_comes_after_it)
{
    static const struct row rows[] = {
        {"reset", guest_panic_reset, MINIVMM_END_PANIC, 120, "panic", 0, 0, 0},
        {"power off", guest_panic_poweroff, MINIVMM_END_PANIC, 120, "panic", 0, 0, 0},
        {"exit 0", guest_panic_exit, MINIVMM_END_PANIC, 120, "panic", 0, 0, 0},
        {"triple fault", guest_panic_fault, MINIVMM_END_PANIC, 120, "panic", 0, 0, 0},
        {"deadline", guest_panic_hang, MINIVMM_END_PANIC, 120, "panic", 0, 0, 1},
        {"without defaults", guest_panic_reset, MINIVMM_END_PANIC, 120, "panic", true, 0, 0},
        {"crash kernel", guest_crash_loaded_reset, MINIVMM_END_PANIC, 120, "panic", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        check(&rows[i]);
}

/* A jump to F000:FFF0 in real mode, in which the second vCPU starts. */
GUEST(reset_vector, "movl $0x00fff0ea, 0x8000\n"
                    "movb $0xf0, 0x8004\n"
                    "mov $LAPIC, %ebx\n"
                    "movl $0x1ff, 0xf0(%rbx)\n"
                    "movl $0xc4500, 0x300(%rbx)\n"
                    "movl $0xc4608, 0x300(%rbx)\n"
                    "movl $0xc4608, 0x300(%rbx)\n"
                    "jmp guest_stop\n");

Test(verdicts, a_jump_to_the_bios_is_a_restart)
{
    struct guest_run run = guest_config();
    run.config.cpus = 2;
    guest_run(&run, guest_reset_vector);
    cr_expect_eq(run.verdict.end, MINIVMM_END_REBOOT, "%s", run.verdict.text);
    cr_expect_eq(run.verdict.exit_code, 0);
    guest_free(&run);
}

/* A panicked guest that hangs gets two seconds to print, not the whole deadline. */
Test(verdicts, a_panic_that_hangs_ends_by_itself)
{
    static const struct row rows[] = {
        {"hang", guest_panic_hang, MINIVMM_END_PANIC, 120, "panic", 0, 0, 0},
        {"again and again", guest_panic_again_and_again, MINIVMM_END_PANIC, 120, "panic", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t start = guest_now();
        check(&rows[i]);
        double seconds = guest_seconds_since(start);
        cr_expect(seconds >= 1 && seconds < 5, "%s: %f s", rows[i].name, seconds);
    }
}

Test(verdicts, the_reset_flag_tells_a_panic_only_with_the_default_command_line)
{
    static const struct row rows[] = {
        {"warm reset", guest_warm_reset, MINIVMM_END_PANIC, 120, "panic", false, 0, 0},
        {"without defaults", guest_warm_reset, MINIVMM_END_REBOOT, 0, "restarted", true, 0, 0},
        {"power off", guest_warm_poweroff, MINIVMM_END_POWEROFF, 0, "powered off", false, 0, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        check(&rows[i]);
}

Test(verdicts, an_instruction_that_kvm_cannot_run_is_a_fault)
{
    struct guest_run run = guest_config();
    guest_run(&run, guest_breakpoint);
    cr_expect_eq(run.verdict.exit_code, MINIVMM_EXIT_FAULT, "%s", run.verdict.text);
    cr_expect(strncmp(run.verdict.text, "vCPU 0: ", 8) == 0, "%s", run.verdict.text);
    guest_free(&run);
}

Test(verdicts, a_triple_fault_leaves_registers_and_last_exits)
{
    static const char *const parts[] = {"vCPU 0:\n", "rip    000000000100", "cr0 ",      "efer ",
                                        "cs=0010",   "last exits, ",        "shutdown\n"};
    struct guest_run run = guest_config();
    char *text;
    size_t length;

    guest_start(&run, guest_triple_fault);
    guest_wait(&run);
    FILE *out = open_memstream(&text, &length);
    minivmm_print_vcpus(run.vm, out);
    fclose(out);
    guest_destroy(&run);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        cr_expect(strstr(text, parts[i]), "%s is not in\n%s", parts[i], text);
    free(text);
    guest_free(&run);
}

GUEST(halts, "cli\n"
             "hlt\n"
             "jmp guest_stop\n");
/* The others start at 0x8000 with a jump to itself, and so does this one. */
GUEST(all_spin, "movw $0xfeeb, 0x8000\n"
                "mov $LAPIC, %ebx\n"
                "movl $0x1ff, 0xf0(%rbx)\n"
                "movl $0xc4500, 0x300(%rbx)\n"
                "movl $0xc4608, 0x300(%rbx)\n"
                "movl $0xc4608, 0x300(%rbx)\n"
                "jmp .\n");

Test(verdicts, the_deadline_ends_every_kind_of_waiting_within_a_second)
{
    static const struct {
        const char *name, *entry;
        unsigned cpus;
    } rows[] = {
        {"spinning", guest_spin, 1},
        {"halted with interrupts off", guest_halts, 1},
        {"all spinning", guest_all_spin, 3},
        {"the others never started", guest_halts, 4},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct guest_run run = guest_config();
        run.config.timeout = 1;
        run.config.cpus = rows[i].cpus;
        uint64_t start = guest_now();
        guest_run(&run, rows[i].entry);
        double seconds = guest_seconds_since(start);
        cr_expect_eq(run.verdict.end, MINIVMM_END_TIMEOUT, "%s: %s", rows[i].name,
                     run.verdict.text);
        cr_expect_eq(run.verdict.exit_code, MINIVMM_EXIT_TIMEOUT);
        cr_expect_str_eq(run.verdict.text, "no end within 1 second");
        cr_expect(seconds >= 1 && seconds < 2, "%s: %f s", rows[i].name, seconds);
        guest_free(&run);
    }
}
