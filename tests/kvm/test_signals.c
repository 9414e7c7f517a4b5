/* Signals to the program, without a terminal. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/kvm/guest.h"
#include "tests/kvm/program.h"

SUITE(signals);

static struct program program;

static void start_spinning(const char *option)
{
    static char kernel[32];
    guest_need_kvm();
    guest_kernel(guest_reports_and_spins, NULL, kernel);
    program = (struct program){.arguments = {"--kernel", kernel, option}};
    program_start(&program);
    program_await(&program, "!");
}

Test(signals, that_ask_for_an_end_get_a_verdict_within_a_second)
{
    static const struct {
        int signal, exit_code;
        const char *verdict;
    } rows[] = {
        {SIGTERM, 143, "minivmm: stopped by signal 15 (Terminated) (exit code 143)\n"},
        {SIGINT, 130, "minivmm: stopped by the user (exit code 130)\n"},
        {SIGHUP, 129, "minivmm: stopped by signal 1 (Hangup) (exit code 129)\n"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        start_spinning(NULL);
        uint64_t sent = guest_now();
        kill(program.pid, rows[i].signal);
        program_finish(&program);
        cr_expect_lt(guest_seconds_since(sent), 1);
        cr_expect_eq(program.exit_code, rows[i].exit_code);
        cr_expect_str_eq(program.err_text, rows[i].verdict);
    }
}

Test(signals, end_a_quiet_run_quietly)
{
    start_spinning("--quiet");
    kill(program.pid, SIGTERM);
    program_finish(&program);
    cr_expect_eq(program.exit_code, 143);
    cr_expect_str_eq(program.err_text, "");
}

Test(signals, about_pipes_do_no_harm)
{
    start_spinning(NULL);
    for (int i = 0; i < 10; i++)
        kill(program.pid, SIGPIPE);
    usleep(50000);
    kill(program.pid, SIGTERM);
    program_finish(&program);
    cr_expect_eq(program.exit_code, 143);
}

/* nohup, and a shell without job control for what it starts in the background. */
Test(signals, ignored_from_the_start_stay_ignored)
{
    static const int rows[] = {SIGHUP, SIGINT, SIGQUIT, SIGTSTP};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static char kernel[32];
        guest_need_kvm();
        guest_kernel(guest_reports_and_spins, NULL, kernel);
        program = (struct program){.arguments = {"--kernel", kernel}, .ignored = rows[i]};
        program_start(&program);
        program_await(&program, "!");
        kill(program.pid, rows[i]);
        usleep(50000);
        kill(program.pid, SIGTERM);
        program_finish(&program);
        cr_expect_eq(program.exit_code, 143, "signal %d: exit code %d", rows[i], program.exit_code);
    }
}

Test(signals, before_the_guest_runs_end_the_program_as_well)
{
    static char kernel[32];
    guest_need_kvm();
    guest_kernel(guest_spin, NULL, kernel);
    for (unsigned microseconds = 0; microseconds < 20000; microseconds += 2500) {
        program = (struct program){.arguments = {"--kernel", kernel}};
        program_start(&program);
        usleep(microseconds);
        kill(program.pid, SIGTERM);
        program_finish(&program);
        cr_expect(program.exit_code == 143 || program.signal == SIGTERM, "exit code %d, signal %d",
                  program.exit_code, program.signal);
    }
}
