/* create, start, stop, wait, destroy: in every order, several at once, and without a trace. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/kvm/guest.h"

SUITE(lifecycle);

static void wait_for_output(const struct guest_run *run)
{
    struct pollfd pfd = {.fd = run->output_fd, .events = POLLIN};
    cr_assert_eq(poll(&pfd, 1, 50000), 1);
}

static void *stop_with_term(void *vm)
{
    minivmm_stop(vm, SIGTERM);
    return NULL;
}

Test(lifecycle, a_stop_from_another_thread_ends_a_spinning_guest)
{
    struct guest_run run = guest_config();
    pthread_t thread;

    run.config.cpus = 2;
    guest_start(&run, guest_reports_and_spins);
    wait_for_output(&run);
    uint64_t start = guest_now();
    cr_assert_eq(pthread_create(&thread, NULL, stop_with_term, run.vm), 0);
    guest_wait(&run);
    cr_expect_lt(guest_seconds_since(start), 1);
    pthread_join(thread, NULL);
    cr_expect_eq(run.verdict.end, MINIVMM_END_STOPPED);
    cr_expect_eq(run.verdict.exit_code, MINIVMM_EXIT_SIGNAL + SIGTERM);
    cr_expect_str_eq(run.verdict.text, "stopped by signal 15 (Terminated)");
    guest_destroy(&run);
    guest_free(&run);
}

Test(lifecycle, the_first_reason_stays_the_verdict)
{
    struct guest_run run = guest_config();
    guest_start(&run, guest_reports_and_spins);
    wait_for_output(&run);
    minivmm_stop(run.vm, SIGINT);
    minivmm_stop(run.vm, SIGTERM);
    guest_wait(&run);
    cr_expect_eq(run.verdict.exit_code, MINIVMM_EXIT_SIGNAL + SIGINT);
    cr_expect_str_eq(run.verdict.text, "stopped by the user");
    guest_destroy(&run);
    guest_free(&run);
}

Test(lifecycle, a_stop_before_the_start_lets_no_instruction_run)
{
    struct guest_run run = guest_config();
    guest_create(&run, guest_reports_and_spins);
    minivmm_stop(run.vm, SIGTERM);
    cr_expect_eq(minivmm_start(run.vm), 0);
    guest_wait(&run);
    cr_expect_eq(run.verdict.exit_code, MINIVMM_EXIT_SIGNAL + SIGTERM);
    cr_expect_str_eq(run.output, "");
    guest_destroy(&run);
    guest_free(&run);
}

Test(lifecycle, wait_needs_a_start_or_a_stop_and_may_be_repeated)
{
    struct guest_run run = guest_config();
    struct minivmm_verdict again;

    run.parameters[0] = 7;
    guest_create(&run, guest_exit_with);
    cr_expect_eq(minivmm_wait(run.vm, &again), -EINVAL);
    cr_expect_eq(minivmm_start(run.vm), 0);
    cr_expect_eq(minivmm_start(run.vm), -EALREADY);
    guest_wait(&run);
    cr_expect_eq(run.verdict.exit_code, 7);
    cr_expect_eq(minivmm_wait(run.vm, &again), 0);
    cr_expect_eq(again.exit_code, 7);
    cr_expect_str_eq(again.text, run.verdict.text);
    cr_expect_eq(minivmm_start(run.vm), -EALREADY);
    minivmm_stop(run.vm, SIGTERM);
    cr_expect_eq(minivmm_wait(run.vm, &again), 0);
    cr_expect_eq(again.exit_code, 7);
    guest_destroy(&run);
    guest_free(&run);
}

Test(lifecycle, the_end_descriptor_and_the_times_tell_the_end)
{
    struct guest_run run = guest_config();
    struct minivmm_times times;

    guest_create(&run, guest_power_off);
    struct pollfd pfd = {.fd = minivmm_end_fd(run.vm), .events = POLLIN};
    cr_expect_eq(poll(&pfd, 1, 0), 0);
    minivmm_times(run.vm, &times);
    cr_expect(times.create > 0 && times.start == 0 && times.end == 0);
    cr_assert_eq(minivmm_start(run.vm), 0);
    cr_expect_eq(poll(&pfd, 1, 50000), 1);
    guest_wait(&run);
    cr_expect_eq(poll(&pfd, 1, 0), 1);
    minivmm_times(run.vm, &times);
    cr_expect(times.create <= times.start && times.start < times.end);
    guest_destroy(&run);
    guest_free(&run);
}

Test(lifecycle, destroy_takes_a_vm_in_every_state)
{
    struct guest_run run = guest_config();
    run.config.cpus = 2;

    minivmm_destroy(NULL);
    guest_create(&run, guest_spin);
    guest_destroy(&run);
    guest_start(&run, guest_reports_and_spins);
    wait_for_output(&run);
    uint64_t start = guest_now();
    guest_destroy(&run);
    cr_expect_lt(guest_seconds_since(start), 1);
    guest_start(&run, guest_spin); /* at once */
    guest_destroy(&run);
}

Test(lifecycle, a_failed_create_leaves_nothing)
{
    static const struct {
        const char *name, *kernel;
        unsigned cpus;
        uint64_t memory;
        int serial_in, error;
    } rows[] = {
        {"no kernel", NULL, 1, GUEST_MEMORY, -1, -EINVAL},
        {"missing kernel", "/nonexistent", 1, GUEST_MEMORY, -1, -ENOENT},
        {"no vCPU", "/dev/null", 0, GUEST_MEMORY, -1, -EINVAL},
        {"too many vCPUs", "/dev/null", MINIVMM_CPUS_MAX + 1, GUEST_MEMORY, -1, -EINVAL},
        {"no memory", "/dev/null", 1, 0, -1, -EINVAL},
        {"odd memory", "/dev/null", 1, GUEST_MEMORY + 1, -1, -EINVAL},
        {"bad descriptor", "", 1, GUEST_MEMORY, 1000000, -EBADF},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct guest_run run = guest_config();
        struct minivmm_error err = {.text = ""};
        struct minivmm *vm = (struct minivmm *)&run;
        char path[32];

        int kernel = guest_kernel(guest_spin, NULL, path);
        run.config.kernel = rows[i].kernel && !*rows[i].kernel ? path : rows[i].kernel;
        run.config.cpus = rows[i].cpus;
        run.config.memory = rows[i].memory;
        run.config.serial_in = rows[i].serial_in;
        cr_expect_eq(minivmm_create(&run.config, &vm, &err), rows[i].error, "%s: %s", rows[i].name,
                     err.text);
        cr_expect_null(vm);
        cr_expect_gt(strlen(err.text), 0);
        close(kernel);
    }
}

Test(lifecycle, two_vms_in_one_process_do_not_meet)
{
    struct guest_run spinning = guest_config(), other = guest_config();

    guest_start(&spinning, guest_reports_and_spins);
    wait_for_output(&spinning);
    other.parameters[0] = 3;
    guest_run(&other, guest_exit_with);
    cr_expect_eq(other.verdict.exit_code, 3);
    struct pollfd pfd = {.fd = minivmm_end_fd(spinning.vm), .events = POLLIN};
    cr_expect_eq(poll(&pfd, 1, 0), 0, "the other's end is not ours");
    minivmm_stop(spinning.vm, SIGHUP);
    guest_wait(&spinning);
    cr_expect_eq(spinning.verdict.exit_code, MINIVMM_EXIT_SIGNAL + SIGHUP);
    guest_destroy(&spinning);
    guest_free(&spinning);
    guest_free(&other);
}

static unsigned count_entries(const char *directory)
{
    unsigned count = 0;
    DIR *dir = opendir(directory);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static unsigned count_mappings(void)
{
    unsigned count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    for (int c; (c = fgetc(maps)) != EOF;)
        count += c == '\n';
    fclose(maps);
    return count;
}

static void run_cycles(unsigned cycles)
{
    for (unsigned i = 0; i < cycles; i++) {
        struct guest_run run = guest_config();
        run.config.cpus = 2;
        guest_run(&run, guest_power_off);
        cr_assert_eq(run.verdict.exit_code, 0, "%s", run.verdict.text);
        guest_free(&run);
    }
}

Test(lifecycle, thirty_vms_leave_no_descriptor_thread_or_mapping)
{
    enum { CYCLES = 30 };

    run_cycles(3); /* the C library keeps a stack and an arena or two */
    unsigned descriptors = count_entries("/proc/self/fd");
    unsigned threads = count_entries("/proc/self/task"), mappings = count_mappings();
    run_cycles(CYCLES);
    cr_expect_eq(count_entries("/proc/self/fd"), descriptors);
    cr_expect_eq(count_entries("/proc/self/task"), threads);
    cr_expect_lt(count_mappings(), mappings + CYCLES / 2, "less than one in two VMs");
}

Test(lifecycle, a_fork_after_create_does_not_disturb)
{
    struct guest_run run = guest_config();
    int status;

    guest_create(&run, guest_power_off);
    pid_t child = fork();
    if (child == 0) {
        usleep(100000); /* alive over the whole run, with copies of all descriptors */
        _exit(0);
    }
    cr_assert_eq(minivmm_start(run.vm), 0);
    guest_wait(&run);
    cr_expect_eq(run.verdict.end, MINIVMM_END_POWEROFF);
    guest_destroy(&run);
    guest_free(&run);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Threads of the library leave signals to the program, which may use any of them. */
Test(lifecycle, signals_of_the_program_stay_its_own)
{
    struct guest_run run = guest_config();
    sigset_t set;
    int got;

    guest_start(&run, guest_reports_and_spins);
    wait_for_output(&run);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    kill(getpid(), SIGUSR1); /* would end the process on any thread that lets it through */
    const struct timespec patience = {.tv_sec = 5};
    got = sigtimedwait(&set, NULL, &patience);
    cr_expect_eq(got, SIGUSR1);
    minivmm_stop(run.vm, SIGTERM);
    guest_wait(&run);
    guest_destroy(&run);
    guest_free(&run);
}
