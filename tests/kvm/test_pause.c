/* Pause and resume of a VM: nothing runs, nothing is lost, and the guest's clocks stand still. */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "tests/kvm/guest.h"

SUITE(pause_resume);

#define CYCLES 1000u

static void sleep_ms(unsigned ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* Prints numbers, a line each, as fast as it can. */
GUEST(counts, "xor %ebx, %ebx\n"
              "1: inc %rbx\n"
              "print_hex %rbx\n"
              "print \"\\n\"\n"
              "jmp 1b\n");

/* Prints parameter 0 lines with numbers and powers off. */
GUEST(counts_to, "xor %ebx, %ebx\n"
                 "1: inc %rbx\n"
                 "print_hex %rbx\n"
                 "print \"\\n\"\n"
                 "cmp guest_parameters(%rip), %rbx\n"
                 "jb 1b\n"
                 "poweroff\n");

/* Prints the largest step that the TSC made between two looks, when parameter 0 ticks are over. */
GUEST(watches_tsc, "rdtsc\n"
                   "shl $32, %rdx\n"
                   "or %rdx, %rax\n"
                   "mov %rax, %rbx\n" /* last */
                   "mov %rax, %rsi\n" /* first */
                   "xor %ecx, %ecx\n" /* largest step */
                   "1: rdtsc\n"
                   "shl $32, %rdx\n"
                   "or %rdx, %rax\n"
                   "mov %rax, %rdi\n"
                   "sub %rbx, %rdi\n"
                   "mov %rax, %rbx\n"
                   "cmp %rcx, %rdi\n"
                   "jb 2f\n"
                   "mov %rdi, %rcx\n"
                   "2: sub %rsi, %rax\n"
                   "cmp guest_parameters(%rip), %rax\n"
                   "jb 1b\n"
                   "print_hex %rcx\n"
                   "poweroff\n");

/* Takes everything the guest has printed so far. */
static size_t drain(const struct guest_run *run, char *last)
{
    char buffer[4096];
    size_t total = 0;
    struct pollfd pfd = {.fd = run->output_fd, .events = POLLIN};
    while (poll(&pfd, 1, 0) == 1) {
        ssize_t n = read(run->output_fd, buffer, sizeof(buffer));
        cr_assert_gt(n, 0);
        total += (size_t)n;
        *last = buffer[n - 1];
    }
    return total;
}

/* It prints: now, or when this machine has time for it. */
static bool prints(const struct guest_run *run)
{
    struct pollfd pfd = {.fd = run->output_fd, .events = POLLIN};
    return poll(&pfd, 1, 50000) == 1;
}

Test(pause_resume, a_thousand_pauses_of_a_guest_that_prints_lose_no_line)
{
    struct guest_run run = guest_config();
    run.config.cpus = 2;
    run.parameters[0] = 15000;
    guest_start(&run, guest_counts_to);
    unsigned cycles = 0;
    for (; cycles < CYCLES; cycles++) {
        int rc = minivmm_pause(run.vm);
        if (rc == -ESHUTDOWN)
            break;
        cr_assert_eq(rc, 0);
        cr_assert_eq(minivmm_state(run.vm), MINIVMM_STATE_PAUSED);
        cr_assert_eq(minivmm_resume(run.vm), 0);
    }
    guest_wait(&run);
    cr_expect_eq(run.verdict.end, MINIVMM_END_POWEROFF, "%s", run.verdict.text);
    cr_expect_gt(cycles, CYCLES / 10, "%u pauses only", cycles);
    const char *at = run.output;
    for (unsigned i = 1; i <= 15000; i++) {
        char line[16];
        int length = snprintf(line, sizeof(line), "%x\n", i);
        cr_assert_eq(strncmp(at, line, (size_t)length), 0, "line %u", i);
        at += length;
    }
    cr_expect_eq(*at, '\0');
    guest_destroy(&run);
    guest_free(&run);
}

Test(pause_resume, a_paused_guest_does_nothing_and_goes_on_where_it_was)
{
    struct guest_run run = guest_config();
    char last;
    guest_start(&run, guest_counts);
    cr_assert(prints(&run));
    sleep_ms(20);
    cr_assert_eq(minivmm_pause(run.vm), 0);
    cr_assert_eq(minivmm_pause(run.vm), 0, "twice is harmless");
    for (unsigned i = 0; i < 50 && (i == 0 || drain(&run, &last) > 0); i++)
        sleep_ms(100); /* what the loop had still to write */
    struct minivmm_metrics before, after;
    minivmm_metrics(run.vm, &before);
    sleep_ms(100);
    minivmm_metrics(run.vm, &after);
    cr_expect_eq(drain(&run, &last), 0);
    cr_expect_eq(memcmp(before.exits, after.exits, sizeof(before.exits)), 0);
    cr_assert_eq(minivmm_resume(run.vm), 0);
    cr_assert_eq(minivmm_resume(run.vm), 0, "twice is harmless");
    cr_expect(prints(&run));
    minivmm_stop(run.vm, SIGTERM);
    guest_wait(&run);
    guest_destroy(&run);
    guest_free(&run);
}

Test(pause_resume, only_a_vm_between_start_and_end_can_be_paused)
{
    struct guest_run run = guest_config();
    guest_create(&run, guest_power_off);
    cr_expect_eq(minivmm_state(run.vm), MINIVMM_STATE_NOT_STARTED);
    cr_expect_eq(minivmm_pause(run.vm), -EINVAL);
    cr_expect_eq(minivmm_resume(run.vm), -EINVAL);
    minivmm_start(run.vm);
    guest_wait(&run);
    cr_expect_eq(minivmm_state(run.vm), MINIVMM_STATE_ENDED);
    cr_expect_eq(minivmm_pause(run.vm), -ESHUTDOWN);
    cr_expect_eq(minivmm_resume(run.vm), -ESHUTDOWN);
    guest_destroy(&run);
    guest_free(&run);
}

Test(pause_resume, a_paused_vm_can_be_stopped_and_destroyed)
{
    for (unsigned destroy = 0; destroy < 2; destroy++) {
        struct guest_run run = guest_config();
        run.config.cpus = 2;
        guest_start(&run, guest_spin);
        cr_assert_eq(minivmm_pause(run.vm), 0);
        if (!destroy) {
            minivmm_stop(run.vm, SIGTERM);
            guest_wait(&run);
            cr_expect_eq(run.verdict.end, MINIVMM_END_STOPPED);
            cr_expect_eq(minivmm_resume(run.vm), -ESHUTDOWN);
        }
        guest_destroy(&run);
        guest_free(&run);
    }
}

Test(pause_resume, paused_time_does_not_count_for_deadlines)
{
    static const struct minivmm_expect expects[] = {{.pattern = "never", .within = 2}};
    const struct {
        const char *name;
        unsigned timeout, silence, expects;
        enum minivmm_end end;
    } rows[] = {{"timeout", 2, 0, 0, MINIVMM_END_TIMEOUT},
                {"silence", 0, 2, 0, MINIVMM_END_SILENCE},
                {"expectation", 0, 0, 1, MINIVMM_END_EXPECTATION}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct guest_run run = guest_config();
        run.config.timeout = rows[i].timeout;
        run.config.silence = rows[i].silence;
        run.config.expects = expects;
        run.config.expect_count = rows[i].expects;
        uint64_t begun = guest_now();
        guest_start(&run, guest_spin);
        sleep_ms(300);
        cr_assert_eq(minivmm_pause(run.vm), 0, "%s", rows[i].name);
        double ran = guest_seconds_since(begun); /* 0.3, or more on a busy machine */
        sleep_ms(2200);
        cr_expect_eq(minivmm_state(run.vm), MINIVMM_STATE_PAUSED, "%s", rows[i].name);
        uint64_t start = guest_now();
        cr_expect_eq(minivmm_resume(run.vm), 0, "%s", rows[i].name);
        guest_wait(&run);
        cr_expect_eq(run.verdict.end, rows[i].end, "%s: %s", rows[i].name, run.verdict.text);
        cr_expect_gt(guest_seconds_since(start), 1.9 - ran, "%s", rows[i].name);
        cr_expect_lt(guest_seconds_since(start), 5, "%s", rows[i].name);
        guest_destroy(&run);
        guest_free(&run);
    }
}

struct heard {
    unsigned count;
    enum minivmm_event_kind kinds[16];
};

static void hear(void *arg, const struct minivmm_event *event)
{
    struct heard *heard = arg;
    if (heard->count < 16)
        heard->kinds[heard->count++] = event->kind;
}

Test(pause_resume, each_is_told_once)
{
    struct guest_run run = guest_config();
    struct heard heard = {0};
    const enum minivmm_event_kind want[] = {MINIVMM_EVENT_STARTED, MINIVMM_EVENT_PAUSED,
                                            MINIVMM_EVENT_RESUMED, MINIVMM_EVENT_PAUSED,
                                            MINIVMM_EVENT_ENDED};
    run.config.event = hear;
    run.config.event_arg = &heard;
    guest_start(&run, guest_spin);
    minivmm_pause(run.vm);
    minivmm_pause(run.vm);
    minivmm_resume(run.vm);
    minivmm_resume(run.vm);
    minivmm_pause(run.vm);
    minivmm_stop(run.vm, SIGTERM);
    guest_wait(&run);
    cr_assert_eq(heard.count, 5);
    cr_expect_eq(memcmp(heard.kinds, want, sizeof(want)), 0);
    guest_destroy(&run);
    guest_free(&run);
}

static void *stop_it(void *vm)
{
    sleep_ms(1);
    minivmm_stop(vm, SIGTERM);
    return NULL;
}

Test(pause_resume, a_stop_while_pausing_ends_both)
{
    for (unsigned i = 0; i < 30; i++) {
        struct guest_run run = guest_config();
        pthread_t thread;
        run.config.cpus = 2;
        guest_start(&run, guest_spin);
        cr_assert_eq(pthread_create(&thread, NULL, stop_it, run.vm), 0);
        int rc;
        do {
            rc = minivmm_pause(run.vm);
            if (rc == 0)
                rc = minivmm_resume(run.vm);
        } while (rc == 0);
        cr_expect_eq(rc, -ESHUTDOWN);
        guest_wait(&run);
        pthread_join(thread, NULL);
        guest_destroy(&run);
        guest_free(&run);
    }
}

/*
 * Whether this KVM can set a vCPU's counter: it says so, and the processor virtualizes. A KVM
 * without that says so as well, and its guests read the host's counter.
 */
static bool kvm_holds_tsc(void)
{
    const struct kvm_device_attr offset = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET};
    unsigned a, b, c, d;
    bool virtualizes = (__get_cpuid(1, &a, &b, &c, &d) && c & 1u << 5 /* VMX */) ||
                       (__get_cpuid(0x80000001, &a, &b, &c, &d) && c & 1u << 2 /* SVM */);
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = ioctl(kvm, KVM_CREATE_VM, 0);
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    bool holds = virtualizes && ioctl(vcpu, KVM_HAS_DEVICE_ATTR, &offset) == 0;
    close(vcpu);
    close(vm);
    close(kvm);
    return holds;
}

/* A step of a second is the pause; less may be a busy machine's. */
Test(pause_resume, the_time_stamp_counter_stands_still)
{
    struct guest_run run = guest_config();
    uint64_t start = guest_now(), ticks = __builtin_ia32_rdtsc();
    sleep_ms(50);
    double per_second = (double)(__builtin_ia32_rdtsc() - ticks) / guest_seconds_since(start);
    run.parameters[0] = (uint64_t)(per_second * 0.5);
    guest_start(&run, guest_watches_tsc);
    sleep_ms(100);
    cr_assert_eq(minivmm_pause(run.vm), 0);
    sleep_ms(1000);
    cr_assert_eq(minivmm_resume(run.vm), 0);
    guest_wait(&run);
    double step = (double)strtoull(run.output, NULL, 16) / per_second;
    guest_destroy(&run);
    guest_free(&run);
    if (step > 0.9 && !kvm_holds_tsc())
        cr_skip_test("this KVM cannot hold the TSC");
    cr_expect_lt(step, 0.9, "a step of %.3f s", step);
}
