/*
 * Races: many short VMs whose ends, stops, deadlines, output and input meet at random moments, and
 * devices used from several threads. A plain program that prints TAP, because it is for
 * ThreadSanitizer, under which Criterion does not start; without it the verdicts are checked all
 * the same.
 *
 * usage: race TAP-FILE [SEED]
 * exit codes: 0 all as it must be, 1 a wrong verdict, 66 ThreadSanitizer's, SIGALRM when it hangs
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/race/run.h"
#include "vmm/clock.h"

#define HANG       60            /* seconds of one round until SIGALRM */
#define SLICE_NS   NS_PER_SECOND /* a scenario is repeated for so long */
#define ECHO_BYTES 600u

/* ---- what is repeated ---------------------------------------------------------------------- */

static void end_by_itself(struct run *base)
{
    for (unsigned cpus = 1; cpus <= 4; cpus += 3) {
        struct run run = run_of(base, guest_exit_7, cpus);
        struct minivmm_times times;
        if (!run_create(&run))
            return;
        minivmm_start(run.vm);
        do /* an owner that looks while the VM runs */
            minivmm_times(run.vm, &times);
        while (!times.end);
        run_wait(&run);
        expect_verdict(&run, MINIVMM_END_STATUS, 7);
        run_finish(&run);
    }
}

static void write_all(struct run *base)
{
    for (unsigned cpus = 1; cpus <= 4; cpus += 3) {
        struct run run = run_of(base, guest_writes, cpus);
        if (!run_create(&run))
            return;
        minivmm_start(run.vm);
        run_wait(&run);
        expect_verdict(&run, MINIVMM_END_POWEROFF, 0);
        run_read_all(&run);
        if (run.length != LINES * strlen(LINE))
            complain(&run, "%zu bytes of output", run.length);
        for (size_t i = 0; i + strlen(LINE) <= run.length; i += strlen(LINE)) {
            if (memcmp(run.text + i, LINE, strlen(LINE)) != 0)
                complain(&run, "wrong output at %zu", i);
        }
        run_finish(&run);
    }
}

static void echo_all(struct run *base)
{
    struct run run = run_of(base, guest_echoes, 1);
    char sent[ECHO_BYTES];

    run.input = true;
    if (!run_create(&run))
        return;
    minivmm_start(run.vm);
    for (unsigned i = 0; i < ECHO_BYTES; i++)
        sent[i] = (char)('A' + i % 26);
    sent[ECHO_BYTES - 1] = 'q';
    for (size_t at = 0; at < ECHO_BYTES;) {
        size_t length = 1 + (size_t)nrand48(run.random) % 100;
        if (length > ECHO_BYTES - at)
            length = ECHO_BYTES - at;
        if (write(run.in, sent + at, length) != (ssize_t)length)
            abort();
        at += length;
        pause_up_to(&run, 200);
    }
    run_wait(&run);
    expect_verdict(&run, MINIVMM_END_STATUS, 7);
    run_read_all(&run);
    if (run.length != ECHO_BYTES || memcmp(run.text, sent, ECHO_BYTES) != 0)
        complain(&run, "%zu bytes came back, or others", run.length);
    run_finish(&run);
}

static void *stop_soon(void *arg)
{
    struct run *run = arg;
    pause_up_to(run, 3000);
    minivmm_stop(run->vm, SIGTERM);
    return NULL;
}

static void stop_any_time(struct run *base)
{
    static const struct {
        const char *entry;
        unsigned cpus;
        bool ends;
    } rows[] = {{guest_spin, 1, false},
                {guest_spin, 4, false},
                {guest_floods, 4, false},
                {guest_exit_7, 1, true},
                {guest_writes, 4, true}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct run run = run_of(base, rows[i].entry, rows[i].cpus), owner = run;
        pthread_t stopper;
        if (!run_create(&run))
            return;
        if (pthread_create(&stopper, NULL, stop_soon, &run) != 0)
            abort();
        pause_up_to(&owner, 2000); /* the stop may come before the start */
        minivmm_start(run.vm);
        run_wait(&run);
        if (!rows[i].ends || run.verdict.end == MINIVMM_END_STOPPED)
            expect_verdict(&run, MINIVMM_END_STOPPED, MINIVMM_EXIT_SIGNAL + SIGTERM);
        else if (run.verdict.end == MINIVMM_END_STATUS)
            expect_verdict(&run, MINIVMM_END_STATUS, 7);
        else
            expect_verdict(&run, MINIVMM_END_POWEROFF, 0);
        pthread_join(stopper, NULL); /* a stop must not overlap with destroy */
        run_finish(&run);
        memcpy(base->random, owner.random, sizeof(base->random));
    }
}

static void destroy_running(struct run *base)
{
    struct run run = run_of(base, guest_floods, 4);
    if (!run_create(&run))
        return;
    minivmm_start(run.vm);
    pause_up_to(&run, 3000);
    run_finish(&run);
    memcpy(base->random, run.random, sizeof(base->random));
}

static uint64_t read_tsc(void)
{
    return __builtin_ia32_rdtsc();
}

static uint64_t tsc_per_second(void)
{
    uint64_t ns = clock_now_ns(), ticks = read_tsc();
    while (clock_now_ns() - ns < NS_PER_SECOND / 100)
        continue;
    return (read_tsc() - ticks) * 100;
}

/* The deadline of a second, a stop after a second, and a guest that ends after a second. */
static void *all_ends_at_once(void *arg)
{
    struct run *run = arg;
    const struct timespec almost = {.tv_nsec = 998000000};

    if (!run_create(run))
        return NULL;
    minivmm_start(run->vm);
    nanosleep(&almost, NULL);
    pause_up_to(run, 4000);
    minivmm_stop(run->vm, SIGTERM);
    run_wait(run);
    if (run->verdict.end == MINIVMM_END_TIMEOUT)
        expect_verdict(run, MINIVMM_END_TIMEOUT, MINIVMM_EXIT_TIMEOUT);
    else if (run->verdict.end == MINIVMM_END_STATUS)
        expect_verdict(run, MINIVMM_END_STATUS, 7);
    else
        expect_verdict(run, MINIVMM_END_STOPPED, MINIVMM_EXIT_SIGNAL + SIGTERM);
    run_finish(run);
    return NULL;
}

static void three_ends(struct run *base)
{
    enum { PARALLEL = 8 };
    struct run runs[PARALLEL];
    pthread_t threads[PARALLEL];
    uint64_t second = tsc_per_second();

    for (unsigned i = 0; i < PARALLEL; i++) {
        runs[i] = run_of(base, guest_exit_later, 1 + i % 2);
        runs[i].timeout = 1;
        runs[i].wait_ticks = second - second / 500 + second / 1000 * (i % 4);
        runs[i].random[0] = (unsigned short)(base->random[0] + i);
        if (pthread_create(&threads[i], NULL, all_ends_at_once, &runs[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < PARALLEL; i++)
        pthread_join(threads[i], NULL);
    base->random[1]++;
}

static void *parallel_part(void *arg)
{
    struct run *base = arg;
    end_by_itself(base);
    write_all(base);
    stop_any_time(base);
    return NULL;
}

static void two_at_once(struct run *base)
{
    struct run other = *base;
    pthread_t thread;

    other.random[2]++;
    if (pthread_create(&thread, NULL, parallel_part, &other) != 0)
        abort();
    parallel_part(base);
    pthread_join(thread, NULL);
}

static const struct {
    const char *name;
    void (*once)(struct run *base);
    bool no_vm;
} scenarios[] = {
    {"a guest that ends by itself, looked at meanwhile", end_by_itself, false},
    {"output arrives whole", write_all, false},
    {"input comes back whole", echo_all, false},
    {"a stop at any moment", stop_any_time, false},
    {"destroy at any moment", destroy_running, false},
    {"deadline, stop and end of the guest at once", three_ends, false},
    {"two VMs at once", two_at_once, false},
    {"paused, resumed, counted and ended at any moment", pause_any_time, false},
    {"devices without a VM, used and reset at once", devices_without_a_vm, true},
    {"a network device without a VM, bulk and small packets in turn", net_without_a_vm, true},
    {"the same over PCI, with masks", devices_over_pci, true},
    {"the same, interrupted as by datapaths outside", devices_by_calls, true},
    {"a balloon without a VM, pulled at by all", balloon_without_a_vm, true},
    {"a VM's balloon from many threads", balloon_of_a_vm, false},
};

/* Why no VM can be made here, or NULL. */
static const char *unusable(struct minivmm_error *err)
{
    struct run run = {.entry = guest_spin};
    struct minivmm_config config;
    struct minivmm *vm;
    char path[32];

    if (access("/dev/kvm", R_OK | W_OK) < 0) {
        snprintf(err->text, sizeof(err->text), "/dev/kvm: %s", strerror(errno));
        return err->text;
    }
    int kernel = write_kernel(run.entry, 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", kernel);
    minivmm_config_init(&config);
    config.kernel = path;
    config.memory = MEMORY;
    int rc = minivmm_create(&config, &vm, err);
    close(kernel);
    minivmm_destroy(vm);
    return rc == -ENOTSUP || rc == -ENOTTY ? err->text : NULL;
}

int main(int argc, char **argv)
{
    const size_t count = sizeof(scenarios) / sizeof(scenarios[0]);
    struct minivmm_error err;
    unsigned failed = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: race TAP-FILE [SEED]\n");
        return 2;
    }
    FILE *tap = fopen(argv[1], "we");
    if (!tap) {
        fprintf(stderr, "race: %s: %s\n", argv[1], strerror(errno));
        return 2;
    }
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : clock_now_ns();
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(tap, NULL, _IOLBF, 0);
    printf("# seed %llu\n", (unsigned long long)seed);
    fprintf(tap, "TAP version 13\n1..%zu\n", count);
    const char *reason = unusable(&err);
    for (size_t i = 0; i < count; i++) {
        struct run base = {.name = scenarios[i].name, .random = {(unsigned short)seed}};
        unsigned rounds = 0;
        char line[sizeof(err.text) + 100];

        const char *skip = scenarios[i].no_vm ? NULL : reason;
        failures = 0;
        memcpy(base.random, &seed, sizeof(base.random));
        uint64_t start = clock_now_ns();
        for (; !skip && clock_now_ns() - start < SLICE_NS; rounds++) {
            alarm(HANG);
            scenarios[i].once(&base);
        }
        snprintf(line, sizeof(line), "%s %zu - %s%s%s", failures ? "not ok" : "ok", i + 1,
                 scenarios[i].name, skip ? " # SKIP " : "", skip ? skip : "");
        fprintf(tap, "%s\n", line);
        printf("%s\n# %u rounds\n", line, rounds);
        failed += failures;
    }
    fclose(tap);
    return failed ? 1 : 0;
}
