/* KVM_RUN that fails: the host's lack of something is not the guest's fault. */
#include <errno.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#include "tests/kvm/guest.h"

SUITE(run_errors);

/* The linker sends every ioctl of the library here. */
int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

static struct {
    int error;      /* that KVM_RUN fails with; 0: not at all */
    unsigned times; /* how often; atomic */
} failing;

int __wrap_ioctl(int fd, unsigned long request, ...)
{
    va_list args;
    va_start(args, request);
    void *argument = va_arg(args, void *);
    va_end(args);
    if (request == KVM_RUN && failing.error &&
        __atomic_load_n(&failing.times, __ATOMIC_RELAXED) > 0) {
        __atomic_fetch_sub(&failing.times, 1, __ATOMIC_RELAXED);
        errno = failing.error;
        return -1;
    }
    return __real_ioctl(fd, request, argument);
}

#define FOR_EVER 1000000u

Test(run_errors, of_the_host_are_told_from_those_of_the_guest)
{
    static const struct {
        const char *name;
        int error;
        unsigned times;
        enum minivmm_end end;
        int exit_code;
        const char *text;
    } rows[] = {
        {"no processes left, for ever", EAGAIN, FOR_EVER, MINIVMM_END_ERROR, 125,
         "vCPU 0: KVM_RUN: Resource temporarily unavailable; raise the limit on processes (ulimit "
         "-u)"},
        {"no memory", ENOMEM, FOR_EVER, MINIVMM_END_ERROR, 125,
         "vCPU 0: KVM_RUN: Cannot allocate memory"},
        {"what KVM cannot run", EFAULT, FOR_EVER, MINIVMM_END_KVM, 121,
         "vCPU 0: KVM_RUN: Bad address"},
        {"once, as after SIPI", EAGAIN, 1, MINIVMM_END_POWEROFF, 0, "guest powered off"},
        {"a signal", EINTR, 3, MINIVMM_END_POWEROFF, 0, "guest powered off"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct guest_run run = guest_config();
        failing.error = rows[i].error;
        failing.times = rows[i].times;
        guest_run(&run, guest_power_off);
        cr_expect_eq(run.verdict.end, rows[i].end, "%s: %d", rows[i].name, (int)run.verdict.end);
        cr_expect_eq(run.verdict.exit_code, rows[i].exit_code, "%s: exit code %d", rows[i].name,
                     run.verdict.exit_code);
        cr_expect_str_eq(run.verdict.text, rows[i].text, "%s: %s", rows[i].name, run.verdict.text);
        guest_free(&run);
        failing.error = 0;
    }
}
