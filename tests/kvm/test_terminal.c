/* On a terminal: raw while the guest runs, as before at every end; the escape; signals. */
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "tests/kvm/guest.h"
#include "tests/kvm/program.h"

SUITE(terminal);

static struct program program;

static struct termios settings(void)
{
    struct termios now;
    memset(&now, 0, sizeof(now));
    cr_assert_eq(tcgetattr(program.terminal_other_end, &now), 0);
    return now;
}

static bool is_raw(void)
{
    struct termios now = settings();
    return !(now.c_lflag & (ICANON | ECHO | ISIG)) && !(now.c_oflag & OPOST) &&
           !(now.c_iflag & (ICRNL | IXON));
}

static bool is_as_before(void)
{
    struct termios now = settings(), before = program.terminal_before;
    return now.c_iflag == before.c_iflag && now.c_oflag == before.c_oflag &&
           now.c_cflag == before.c_cflag && now.c_lflag == before.c_lflag &&
           memcmp(now.c_cc, before.c_cc, sizeof(now.c_cc)) == 0;
}

/* Start the guest on a terminal and wait until it has printed `text`. */
static void start(const char *entry, const char *text)
{
    static char kernel[32];
    guest_need_kvm();
    guest_kernel(entry, NULL, kernel);
    program = (struct program){.arguments = {"--debug-exit", "--kernel", kernel},
                               .in = PROGRAM_TERMINAL,
                               .out = PROGRAM_TERMINAL};
    program_start(&program);
    cr_assert(program.terminal_before.c_lflag & ICANON);
    program_await(&program, text);
    cr_expect(is_raw());
}

static void type(const char *keys)
{
    cr_assert_eq(write(program.terminal, keys, strlen(keys)), (ssize_t)strlen(keys));
}

static void expect_end(int exit_code, int signal, const char *errors)
{
    program_finish(&program);
    cr_expect_eq(program.exit_code, exit_code);
    cr_expect_eq(program.signal, signal);
    cr_expect_str_eq(program.err_text, errors);
    cr_expect(is_as_before());
}

Test(terminal, is_raw_while_the_guest_runs_and_restored_after_its_end)
{
    start(guest_echoes_by_interrupt, "ready\n");
    type("abc\r");
    program_await(&program, "abc\r");
    type("q");
    expect_end(0, 0, "minivmm: guest reported status 0 (exit code 0)\n");
}

Test(terminal, is_restored_when_create_fails)
{
    guest_need_kvm();
    program = (struct program){
        .arguments = {"--kernel", "/nonexistent"}, .in = PROGRAM_TERMINAL, .out = PROGRAM_TERMINAL};
    program_start(&program);
    expect_end(125, 0, "minivmm: kernel /nonexistent: No such file or directory\n");
}

Test(terminal, ctrl_c_is_a_byte_for_the_guest)
{
    start(guest_echoes_by_interrupt, "ready\n");
    type("\3\032\034.");
    program_await(&program, "\3\032\034.");
    type("q");
    expect_end(0, 0, "minivmm: guest reported status 0 (exit code 0)\n");
}

Test(terminal, ctrl_a_x_ends_the_vm)
{
    start(guest_echoes_by_interrupt, "ready\n");
    type("\1\1\1a."); /* one Ctrl-A, then another that an a follows */
    program_await(&program, "\1\1a.");
    type("\1");
    type("x");
    expect_end(130, 0, "minivmm: stopped by the user (exit code 130)\n");
}

Test(terminal, is_restored_whatever_signal_ends_the_run)
{
    static const struct {
        int signal, exit_code;
        const char *errors;
    } rows[] = {
        {SIGTERM, 143, "minivmm: stopped by signal 15 (Terminated) (exit code 143)\n"},
        {SIGINT, 130, "minivmm: stopped by the user (exit code 130)\n"},
        {SIGHUP, 129, "minivmm: stopped by signal 1 (Hangup) (exit code 129)\n"},
        {SIGQUIT, 131, "minivmm: stopped by signal 3 (Quit) (exit code 131)\n"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        start(guest_reports_and_spins, "!");
        uint64_t sent = guest_now();
        kill(program.pid, rows[i].signal);
        expect_end(rows[i].exit_code, 0, rows[i].errors);
        cr_expect_lt(guest_seconds_since(sent), 3); /* not the 5 of patience */
    }
}

/* A fault of minivmm's own, or somebody who says so. */
Test(terminal, is_restored_after_a_crash_which_stays_one)
{
    static const int rows[] = {SIGABRT, SIGSEGV, SIGBUS};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        start(guest_reports_and_spins, "!");
        kill(program.pid, rows[i]);
        expect_end(-1, rows[i], "");
    }
}

/* The id of a thread of the program's, by its name. */
static pid_t thread_named(const char *name)
{
    char path[300], text[32];
    pid_t found = 0;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)program.pid);
    DIR *dir = opendir(path);
    cr_assert_not_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", (int)program.pid, entry->d_name);
        FILE *comm = fopen(path, "re");
        if (!comm)
            continue;
        if (fscanf(comm, "%31s", text) == 1 && strcmp(text, name) == 0)
            found = atoi(entry->d_name);
        fclose(comm);
    }
    closedir(dir);
    cr_assert_gt(found, 0, "no thread %s", name);
    return found;
}

Test(terminal, is_restored_after_a_crash_in_a_thread_of_the_library)
{
    start(guest_reports_and_spins, "!");
    cr_assert_eq(tgkill(program.pid, thread_named("loop"), SIGSEGV), 0);
    expect_end(-1, SIGSEGV, "");
}

/* Ask every 10 ms until `is` says yes. */
static bool becomes(bool (*is)(void))
{
    for (int i = 0; i < 500 && !is(); i++)
        usleep(10000);
    return is();
}

Test(terminal, is_the_shells_while_the_program_is_suspended)
{
    int status;

    start(guest_echoes_by_interrupt, "ready\n");
    kill(program.pid, SIGTSTP);
    cr_assert_eq(waitpid(program.pid, &status, WUNTRACED), program.pid);
    cr_assert(WIFSTOPPED(status));
    cr_expect(is_as_before());
    kill(program.pid, SIGCONT);
    cr_expect(becomes(is_raw));
    type("q");
    expect_end(0, 0, "minivmm: guest reported status 0 (exit code 0)\n");
}

/* Whoever was stopped by SIGSTOP, or not at all, gets SIGCONT like one that was suspended. */
Test(terminal, survives_any_number_of_sigcont)
{
    start(guest_echoes_by_interrupt, "ready\n");
    for (int i = 0; i < 20; i++) {
        kill(program.pid, SIGCONT);
        usleep(5000);
    }
    type("q");
    expect_end(0, 0, "minivmm: guest reported status 0 (exit code 0)\n");
}

/* What is typed meanwhile is for the shell; afterwards, for the guest. */
Test(terminal, is_left_alone_from_the_background_and_read_from_the_foreground)
{
    static char kernel[32];
    guest_need_kvm();
    guest_kernel(guest_echoes_by_interrupt, NULL, kernel);
    program = (struct program){.arguments = {"--debug-exit", "--kernel", kernel},
                               .in = PROGRAM_TERMINAL,
                               .out = PROGRAM_TERMINAL,
                               .background = true};
    program_start(&program);
    program_await(&program, "ready\r\n");
    cr_expect(is_as_before());
    type("shell\n");
    usleep(100000);
    char line[16];
    cr_expect_eq(read(program.terminal_other_end, line, sizeof(line)), 6);
    program_foreground(&program);
    type("ab\n");
    program_await(&program, "ab\r\nab\r\n"); /* echoed by the terminal, and by the guest */
    type("q\n");
    expect_end(0, 0, "minivmm: guest reported status 0 (exit code 0)\n");
}
