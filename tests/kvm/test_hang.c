/* The last words of a guest that hangs, and its autopsy, as a user meets them. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/kvm/guest.h"
#include "tests/kvm/program.h"

SUITE(hang);

extern const char __start_guest_code[] __attribute__((visibility("hidden")));

/*
 * An interrupt table at 0x1100000 with `label` for vector 2 alone. The handlers read the reason, as
 * Linux does.
 */
asm(".macro take_nmi label\n"
    "mov $0x1100000, %edi\n"
    "lea \\label(%rip), %rax\n"
    "mov %ax, 0x20(%rdi)\n"
    "movw $0x10, 0x22(%rdi)\n"
    "movw $0x8e00, 0x24(%rdi)\n"
    "shr $16, %rax\n"
    "mov %ax, 0x26(%rdi)\n"
    "movl $0, 0x28(%rdi)\n"
    "movl $0, 0x2c(%rdi)\n"
    "sub $16, %rsp\n"
    "movw $0x2f, (%rsp)\n"
    "mov %rdi, 2(%rsp)\n"
    "lidt (%rsp)\n"
    ".endm\n"
    ".macro nmi_reason\n"
    "in $0x61, %al\n"
    "movzx %al, %eax\n"
    "call guest_hex\n"
    ".endm\n");

GUEST(hang_tells, "take_nmi 77f\n"
                  "outb POST, 0x42\n"
                  "call guest_hang_function\n"
                  "nop\n"
                  ".globl guest_hang_function\n"
                  ".hidden guest_hang_function\n"
                  "guest_hang_function: jmp .\n"
                  "77: print \"NMI \"\n"
                  "nmi_reason\n"
                  "mov $8, %al\n" /* it is taken */
                  "out %al, $0x61\n"
                  "print \" \"\n"
                  "nmi_reason\n"
                  "print \" end\\n\"\n"
                  "iretq\n");
GUEST_SHARED(hang_function);
GUEST(hang_powers_off, "take_nmi 77f\n"
                       "jmp .\n"
                       "77: print \"bye\\n\"\n"
                       "poweroff\n");
GUEST(hang_restarts, "take_nmi 77f\n"
                     "hlt\n"
                     "77: movw $0x1234, 0x472\n"
                     "outb RESET_CONTROL, 6\n"
                     "jmp guest_stop\n");
GUEST(hang_exits, "take_nmi 77f\n"
                  "jmp .\n"
                  "77: exit 0\n");
/* Some milliseconds lie between what it prints and the end of it. */
GUEST(hang_panics, "take_nmi 77f\n"
                   "jmp .\n"
                   "77: outb PANIC, 1\n"
                   "print \"Kernel panic - not syncing: NMI\\nwanted\\n\"\n"
                   "mov $5000, %ecx\n"
                   "88: out %al, $POST\n"
                   "loop 88b\n"
                   "print \"end\\n\"\n"
                   "jmp guest_stop\n");
GUEST(hang_says_wanted, "take_nmi 77f\n"
                        "jmp .\n"
                        "77: print \"wanted\\n\"\n"
                        "mov $5000, %ecx\n"
                        "88: out %al, $POST\n"
                        "loop 88b\n"
                        "print \"end\\n\"\n"
                        "jmp guest_stop\n");
GUEST(hang_talks_for_ever, "take_nmi 77f\n"
                           "jmp .\n"
                           "77: print \"wanted\\n\"\n"
                           "jmp 77b\n");
GUEST(hang_ignores, "take_nmi 77f\n"
                    "jmp .\n"
                    "77: iretq\n");
GUEST(hang_faults, "jmp .\n"); /* it has no handler */

static struct program program;

/* A System.map of the guests' code; returns its descriptor. */
static int write_map(char path[32])
{
    int fd = memfd_create("System.map", 0);
    cr_assert_geq(fd, 0);
    dprintf(fd, "%016llx T startup\n%016llx t hang_function\n%016llx D data\n",
            (unsigned long long)(GUEST_BASE + (guest_hang_tells - __start_guest_code)),
            (unsigned long long)(GUEST_BASE + (guest_hang_function - __start_guest_code)),
            (unsigned long long)(GUEST_BASE + (guest_hang_function - __start_guest_code) + 2));
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

static void run(const char *entry, const char *const words[6])
{
    static char kernel[32];
    int fd = guest_kernel(entry, NULL, kernel);
    program = (struct program){.arguments = {"--kernel", kernel, "--debug-exit"}};
    for (size_t i = 0; i < 6 && words[i]; i++)
        program.arguments[3 + i] = words[i];
    program_run(&program);
    close(fd);
}

static void expect_parts(const char *row, const char *const parts[], size_t count)
{
    for (size_t i = 0; i < count; i++)
        cr_expect(strstr(program.err_text, parts[i]), "%s: no \"%s\" in\n%s", row, parts[i],
                  program.err_text);
}

Test(hang, a_guest_speaks_and_its_autopsy_names_where_it_was)
{
    static const char *const parts[] = {
        "as it was when its time was up:\n",
        "symbols not shifted: ",
        "vCPU 0:\n  runs at 0x",
        ", hang_function+0x0/0x2\n",
        "on its stack, perhaps callers:\n    ? startup+0x",
        "  rip    0000000001",
        "port I/O write 0x80, 1 byte: 0x42\n",
    };
    char map[32];
    guest_need_kvm();
    int fd = write_map(map);
    run(guest_hang_tells, (const char *[6]){"--timeout", "1", "--symbols", map});
    cr_expect_eq(program.exit_code, 124);
    cr_expect_str_eq(program.out_text, "NMI 60 20 end\n"); /* once */
    expect_parts("autopsy", parts, sizeof(parts) / sizeof(parts[0]));
    /* The last exits are those before the NMI. */
    cr_expect_null(strstr(program.err_text, "0x3f8"), "%s", program.err_text);
    char *last = program_last_line(&program);
    cr_expect_str_eq(last, "minivmm: no end within 1 second (exit code 124)");
    free(last);
    close(fd);
}

Test(hang, nothing_that_the_guest_does_then_changes_the_verdict)
{
    static const struct {
        const char *name, *entry, *words[6], *output;
        int code;
        double seconds; /* at most */
    } rows[] = {
        {"powers off", guest_hang_powers_off, {"--timeout", "1"}, "bye\n", 124, 2},
        {"restarts like a panic", guest_hang_restarts, {"--timeout", "1"}, "", 124, 2},
        {"exits with 0", guest_hang_exits, {"--timeout", "1"}, "", 124, 2},
        {"triple fault", guest_hang_faults, {"--timeout", "1"}, "", 124, 2},
        {"panics and stays",
         guest_hang_panics,
         {"--timeout", "1"},
         "Kernel panic - not syncing: NMI\nwanted\nend\n",
         124,
         4},
        {"prints what is waited for",
         guest_hang_says_wanted,
         {"--timeout", "1", "--until", "wanted"},
         "wanted\nend\n",
         124,
         4},
        {"prints what it must not",
         guest_hang_says_wanted,
         {"--timeout", "1", "--fail-on", "wanted"},
         "wanted\nend\n",
         124,
         4},
        {"ignores it", guest_hang_ignores, {"--timeout", "1"}, "", 124, 3},
        {"silence", guest_hang_powers_off, {"--silence", "1"}, "bye\n", 122, 2},
        {"silence, and it talks",
         guest_hang_panics,
         {"--silence", "1", "--timeout", "2"},
         "Kernel panic - not syncing: NMI\nwanted\nend\n",
         122,
         4},
    };
    guest_need_kvm();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t start = guest_now();
        run(rows[i].entry, rows[i].words);
        double seconds = guest_seconds_since(start);
        cr_expect_eq(program.exit_code, rows[i].code, "%s: %d", rows[i].name, program.exit_code);
        cr_expect_str_eq(program.out_text, rows[i].output, "%s: %s", rows[i].name,
                         program.out_text);
        cr_expect(strstr(program.err_text, "vCPU 0:\n"), "%s: %s", rows[i].name, program.err_text);
        cr_expect(strstr(program.err_text, "  rip "), "%s: %s", rows[i].name, program.err_text);
        cr_expect_lt(seconds, rows[i].seconds, "%s: %f s", rows[i].name, seconds);
    }
}

/* The others start at 0x8000 with a jump to itself; the first one halts. */
GUEST(hang_many, "movw $0xfeeb, 0x8000\n"
                 "mov $LAPIC, %ebx\n"
                 "movl $0x1ff, 0xf0(%rbx)\n"
                 "movl $0xc4500, 0x300(%rbx)\n"
                 "movl $0xc4608, 0x300(%rbx)\n"
                 "movl $0xc4608, 0x300(%rbx)\n"
                 "jmp guest_stop\n");

Test(hang, of_many_vcpus_eight_are_told_in_full)
{
    static const char *const parts[] = {
        "vCPU 0:\n  halted at 0x", "vCPU 7:\n  runs at 0x0\n  rip  ", "\nvCPU 8: runs at 0x0\n",
        "\nvCPU 11: runs at 0x0\nminivmm: no end"};
    guest_need_kvm();
    run(guest_hang_many, (const char *[6]){"--timeout", "1", "--cpus", "12"});
    cr_expect_eq(program.exit_code, 124);
    expect_parts("12 vCPUs", parts, sizeof(parts) / sizeof(parts[0]));
}

GUEST(hang_dies, "outb POST, 0x42\n"
                 "ud2\n");

/* Nobody is asked: it is dead. Its queues are those of that moment all the same. */
Test(hang, a_triple_fault_has_an_autopsy_too)
{
    static const char *const parts[] = {"vCPU 0:\n  runs at 0x", "  rip ", "shutdown\n", "slot 0, ",
                                        ": status 0x00\n  queue 0: not ready\n"};
    char map[32];
    guest_need_kvm();
    int fd = write_map(map);
    run(guest_hang_dies, (const char *[6]){"--symbols", map, "--rng"});
    cr_expect_eq(program.exit_code, 121);
    cr_expect_null(strstr(program.err_text, "as it was"), "%s", program.err_text);
    expect_parts("autopsy", parts, sizeof(parts) / sizeof(parts[0]));
    close(fd);
}

Test(hang, a_guest_that_ends_in_order_has_none)
{
    guest_need_kvm();
    run(guest_power_off, (const char *[6]){"--timeout", "5"});
    cr_expect_eq(program.exit_code, 0);
    cr_expect_str_eq(program.err_text, "minivmm: guest powered off (exit code 0)\n");
}

/* A signal ends the wait for its last words, and leaves the verdict. */
Test(hang, last_words_are_cut_short_by_a_signal)
{
    static char kernel[32];
    guest_need_kvm();
    guest_kernel(guest_hang_talks_for_ever, NULL, kernel);
    program = (struct program){.arguments = {"--kernel", kernel, "--timeout", "1"}};
    program_start(&program);
    program_await(&program, "wanted\n");
    uint64_t sent = guest_now();
    kill(program.pid, SIGTERM);
    program_finish(&program);
    cr_expect_lt(guest_seconds_since(sent), 3);
    cr_expect_eq(program.exit_code, 124);
}

Test(hang, bad_symbols_are_refused_before_anything_runs)
{
    static const struct {
        const char *name, *text, *pattern;
    } rows[] = {
        {"no symbols", "hello\n", "symbols /proc/self/fd/*: line 1 is not an address,*"},
        {"cut off", "\177ELF", "symbols /proc/self/fd/*: truncated within its ELF header"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char path[32];
        guest_need_kvm();
        int fd = memfd_create("symbols", 0);
        dprintf(fd, "%s", rows[i].text);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        run(guest_power_off, (const char *[6]){"--symbols", path});
        program_expect_refusal(&program, rows[i].name, rows[i].pattern);
        close(fd);
    }
    run(guest_power_off, (const char *[6]){"--symbols", "/nonexistent"});
    program_expect_refusal(&program, "none", "symbols /nonexistent: No such file or directory");
}

/* What the guest is told to have done. */
static unsigned told[MINIVMM_EVENT_ENDED + 1];

static void count_event(void *arg, const struct minivmm_event *event)
{
    (void)arg;
    told[event->kind]++;
}

/* Its panic is our doing: nobody hears of it. */
Test(hang, a_panic_on_the_nmi_is_no_event)
{
    struct guest_run run_of = guest_config();
    run_of.config.timeout = 1;
    run_of.config.event = count_event;
    guest_run(&run_of, guest_hang_panics);
    cr_expect_eq(run_of.verdict.end, MINIVMM_END_TIMEOUT);
    cr_expect_eq(told[MINIVMM_EVENT_PANIC], 0);
    cr_expect_eq(told[MINIVMM_EVENT_ENDED], 1);
    guest_free(&run_of);
}
