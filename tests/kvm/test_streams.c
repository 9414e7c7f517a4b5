/* Standard descriptors that are closed, full, gone, or waited for. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/kvm/guest.h"
#include "tests/kvm/program.h"

SUITE(streams);

GUEST(greets, "print \"hello\\n\"\n"
              "poweroff\n");
GUEST(talks_for_ever, "1: print \"line\\n\"\n"
                      "jmp 1b\n");

static struct program program;

/* Give it a kernel that starts at `entry`; its descriptor stays open until the test ends. */
static void set_kernel(const char *entry)
{
    static char kernel[32];
    unsigned i = 0;
    guest_kernel(entry, NULL, kernel);
    while (program.arguments[i])
        i++;
    program.arguments[i] = "--kernel";
    program.arguments[i + 1] = kernel;
}

Test(streams, output_that_nobody_keeps_is_an_error)
{
    static const struct {
        const char *name, *question;
        enum program_end out, err;
        const char *pattern;
    } rows[] = {
        {"closed", NULL, PROGRAM_CLOSED, PROGRAM_PIPE, "standard output is closed"},
        {"closed", "--help", PROGRAM_CLOSED, PROGRAM_PIPE, "standard output: Bad file descriptor"},
        {"closed", "--version", PROGRAM_CLOSED, PROGRAM_PIPE,
         "standard output: Bad file descriptor"},
        {"closed", "--explain", PROGRAM_CLOSED, PROGRAM_PIPE,
         "standard output: Bad file descriptor"},
        {"full", NULL, PROGRAM_FULL, PROGRAM_PIPE,
         "serial output: No space left on device (exit code 125)"},
        {"full", "--help", PROGRAM_FULL, PROGRAM_PIPE, "standard output: No space left on device"},
        {"full", "--version", PROGRAM_FULL, PROGRAM_PIPE,
         "standard output: No space left on device"},
        {"full", "--explain", PROGRAM_FULL, PROGRAM_PIPE,
         "standard output: No space left on device"},
        {"both closed", NULL, PROGRAM_CLOSED, PROGRAM_CLOSED, NULL},
        {"both closed", "--help", PROGRAM_CLOSED, PROGRAM_CLOSED, NULL},
        {"both closed", "--explain", PROGRAM_CLOSED, PROGRAM_CLOSED, NULL},
        {"both full", NULL, PROGRAM_FULL, PROGRAM_FULL, NULL},
        {"both full", "--help", PROGRAM_FULL, PROGRAM_FULL, NULL},
        {"bad option, errors closed", "--nonsense", PROGRAM_PIPE, PROGRAM_CLOSED, NULL},
    };
    guest_need_kvm();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        program = (struct program){.out = rows[i].out, .err = rows[i].err};
        program.arguments[0] = rows[i].question;
        set_kernel(guest_greets);
        program_run(&program);
        if (rows[i].pattern)
            program_expect_refusal(&program, rows[i].name, rows[i].pattern);
        cr_expect_eq(program.exit_code, 125, "%s, %s", rows[i].name,
                     rows[i].question ? rows[i].question : "run");
    }
}

Test(streams, a_reader_that_goes_away_ends_the_vm)
{
    guest_need_kvm();
    set_kernel(guest_talks_for_ever);
    program_start(&program);
    program_await(&program, "line\nline\n");
    close(program.out_fd);
    program.out_fd = -1;
    program_finish(&program);
    cr_expect_eq(program.exit_code, 125);
    cr_expect_str_eq(program.err_text, "minivmm: serial output: Broken pipe (exit code 125)\n");
}

Test(streams, a_good_run_needs_no_input_and_no_errors)
{
    static const struct {
        enum program_end in, err;
    } rows[] = {{PROGRAM_CLOSED, PROGRAM_PIPE},   {PROGRAM_DEFAULT, PROGRAM_PIPE},
                {PROGRAM_PIPE, PROGRAM_PIPE},     {PROGRAM_DEFAULT, PROGRAM_CLOSED},
                {PROGRAM_CLOSED, PROGRAM_CLOSED}, {PROGRAM_DEFAULT, PROGRAM_FULL}};
    guest_need_kvm();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        program = (struct program){.in = rows[i].in, .err = rows[i].err};
        set_kernel(guest_greets);
        program_run(&program);
        cr_expect_eq(program.exit_code, 0, "row %zu: %s", i, program.err_text);
        cr_expect_str_eq(program.out_text, "hello\n");
        if (rows[i].err == PROGRAM_PIPE)
            cr_expect_str_eq(program.err_text, "minivmm: guest powered off (exit code 0)\n");
    }
}

Test(streams, quiet_says_nothing_but_errors)
{
    guest_need_kvm();
    program = (struct program){.arguments = {"--quiet"}};
    set_kernel(guest_greets);
    program_run(&program);
    cr_expect_eq(program.exit_code, 0);
    cr_expect_str_eq(program.err_text, "");
    cr_expect_str_eq(program.out_text, "hello\n");

    program = (struct program){.arguments = {"--quiet"}, .out = PROGRAM_FULL};
    set_kernel(guest_greets);
    program_run(&program);
    program_expect_refusal(&program, "full",
                           "serial output: No space left on device (exit code 125)");
}

/* Whatever else is printed, a script finds the verdict in the last line. */
Test(streams, the_verdict_is_the_last_line_of_the_errors)
{
    static const struct {
        const char *options[3], *entry;
        int exit_code;
        const char *verdict, *before; /* and a part of what comes before it */
    } rows[] = {
        {{"--debug-exit"}, guest_exit_with, 0, "guest reported status 0", ""},
        {{"--stats"}, guest_greets, 0, "guest powered off", "exits, port I/O: "},
        {{"--timeout", "1"}, guest_spin, 124, "no end within 1 second", ""},
    };
    guest_need_kvm();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char line[100];
        program = (struct program){0};
        memcpy(program.arguments, rows[i].options, sizeof(rows[i].options));
        set_kernel(rows[i].entry);
        program_run(&program);
        snprintf(line, sizeof(line), "minivmm: %s (exit code %d)", rows[i].verdict,
                 rows[i].exit_code);
        char *last = program_last_line(&program);
        cr_expect_eq(program.exit_code, rows[i].exit_code);
        cr_expect_str_eq(last, line);
        cr_expect(strstr(program.err_text, rows[i].before), "%s", program.err_text);
        free(last);
    }
}

GUEST(faults, "outb POST, 0x42\n"
              "ud2\n");

Test(streams, a_triple_fault_prints_registers_and_last_exits)
{
    static const char *const parts[] = {"vCPU 0:\n", "  rip    00000000010", "last exits, ",
                                        "port I/O write 0x80, 1 byte: 0x42\n"};
    guest_need_kvm();
    set_kernel(guest_faults);
    program_run(&program);
    cr_expect_eq(program.exit_code, 121);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        cr_expect(strstr(program.err_text, parts[i]), "no %s in %s", parts[i], program.err_text);
    char *last = program_last_line(&program);
    cr_expect_str_eq(last, "minivmm: vCPU 0: triple fault (exit code 121)");
    free(last);
}

/* A pipe is no terminal: Ctrl-A x are two bytes for the guest. */
Test(streams, piped_input_has_no_escape)
{
    guest_need_kvm();
    program = (struct program){.in = PROGRAM_PIPE, .arguments = {"--debug-exit"}};
    set_kernel(guest_echoes_by_interrupt);
    program_start(&program);
    program_await(&program, "ready\n");
    cr_assert_eq(write(program.in_fd, "\1xq", 3), 3);
    program_finish(&program);
    cr_expect_eq(program.exit_code, 0, "%s", program.err_text);
    cr_expect_str_eq(program.out_text, "ready\n\1xq");
}
