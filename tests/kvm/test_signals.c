/* Signals to the program, without a terminal. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
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
        cr_expect_lt(guest_seconds_since(sent), 3); /* not the 5 of patience */
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

/* More than the pipe of the test and our buffer take, many bytes an exit. */
GUEST(says_much, "mov $75000, %ecx\n"
                 "mov $0x1100000, %esi\n"
                 "mov $COM1, %edx\n"
                 "rep outsb\n"
                 "poweroff\n");
GUEST(says_much_for_ever, "mov $COM1, %edx\n"
                          "1: mov $75000, %ecx\n"
                          "mov $0x1100000, %esi\n"
                          "rep outsb\n"
                          "jmp 1b\n");

/* The program has started a vCPU's thread, and has not joined it. */
static bool has_vcpu(pid_t pid)
{
    char path[64], name[300] = "";
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    cr_assert_not_null(tasks);
    for (struct dirent *task; (task = readdir(tasks)) != NULL && !found;) {
        snprintf(name, sizeof(name), "%s/comm", task->d_name);
        int fd = openat(dirfd(tasks), name, O_RDONLY);
        found = fd >= 0 && read(fd, name, 5) == 5 && memcmp(name, "vcpu0", 5) == 0;
        if (fd >= 0)
            close(fd);
    }
    closedir(tasks);
    return found;
}

static bool runs(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}

Test(signals, end_a_wait_for_a_slow_reader_at_once)
{
    static const struct {
        const char *name, *entry;
        int first, signal; /* first: 0, for a guest that ends by itself */
    } rows[] = {
        {"Ctrl-C after a power-off", guest_says_much, 0, SIGINT},
        {"SIGTERM after a power-off", guest_says_much, 0, SIGTERM},
        {"Ctrl-C twice", guest_says_much_for_ever, SIGINT, SIGINT},
        {"SIGTERM, then SIGHUP", guest_says_much_for_ever, SIGTERM, SIGHUP},
    };
    guest_need_kvm();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static char kernel[32];
        char line[100], report[] = "/tmp/minivmm-report-XXXXXX", text[2000] = "";
        int report_fd = mkostemp(report, O_CLOEXEC);
        int fd = guest_kernel(rows[i].entry, NULL, kernel);
        program = (struct program){.arguments = {"--kernel", kernel, "--report", report}};
        program_start(&program);
        cr_assert_eq(fcntl(program.out_fd, F_SETPIPE_SZ, 4096), 4096);
        int waiting = 0; /* bytes in the pipe, which nobody reads */
        while (ioctl(program.out_fd, FIONREAD, &waiting) == 0 && waiting < 4096)
            usleep(1000);
        usleep(200000); /* and more in our buffer */
        if (rows[i].first)
            kill(program.pid, rows[i].first);
        while (has_vcpu(program.pid)) /* until the guest has come to its end */
            usleep(1000);
        usleep(50000);
        cr_expect_eq(kill(program.pid, 0), 0);
        uint64_t sent = guest_now();
        kill(program.pid, rows[i].signal);
        while (runs(program.pid) && guest_seconds_since(sent) < 4)
            usleep(1000);
        double seconds = guest_seconds_since(sent);
        program_finish(&program);
        cr_expect_lt(seconds, 3, "%s: %f s", rows[i].name, seconds);
        cr_expect_eq(program.exit_code, 128 + rows[i].signal, "%s: exit code %d", rows[i].name,
                     program.exit_code);
        snprintf(line, sizeof(line),
                 "minivmm: stopped by signal %d while its output waited for a reader (exit code "
                 "%d)",
                 rows[i].signal, 128 + rows[i].signal);
        char *last = program_last_line(&program);
        cr_expect_str_eq(last, line, "%s", rows[i].name);
        free(last);
        unlink(report);
        cr_expect_gt(read(report_fd, text, sizeof(text) - 1), 0, "%s: no report", rows[i].name);
        snprintf(line, sizeof(line), "\"exit_code\": %d,", 128 + rows[i].signal);
        cr_expect(strstr(text, line), "%s: %s", rows[i].name, text);
        close(report_fd);
        close(fd);
    }
}
