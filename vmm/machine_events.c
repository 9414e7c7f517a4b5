/* What happens to a VM, and what its end is called: the guest's doings become a verdict here. */
#include "vmm/machine.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

#include "vmm/clock.h"
#include "vmm/verdict.h"

/* After a report of a panic: time for the guest to finish printing, and to restart by itself. */
#define PANIC_GRACE_NS (2 * NS_PER_SECOND)

/* What the guest must not have printed stands on a line that it did not end. */
static void note_last_lines(struct minivmm *vm)
{
    enum watch_outcome outcome;
    const char *text;

    if (!watch_last_lines(&vm->watch, &outcome, &text))
        return;
    vm->panicked |= outcome == WATCH_PANIC;
    if (outcome == WATCH_FORBIDDEN)
        snprintf(vm->doom, sizeof(vm->doom), "%s", text);
}

/*
 * What the end really is, whatever it looks like: a panicked guest has panicked, one that printed
 * what it must not has failed, and so has one that has said so through its status port, or that
 * ends well before all was printed that was expected. Only a stop from outside is none of the
 * guest's.
 */
static enum minivmm_end judge(struct minivmm *vm, enum minivmm_end end, uint32_t *status)
{
    const size_t size = sizeof(vm->verdict.text);
    unsigned number;

    if (end == MINIVMM_END_STOPPED || end == MINIVMM_END_ERROR)
        return end;
    note_last_lines(vm);
    if (vm->panicked) {
        snprintf(vm->verdict.text, size, "guest kernel panic");
        return MINIVMM_END_PANIC;
    }
    if (vm->doom[0]) {
        snprintf(vm->verdict.text, size, "forbidden text: %s", vm->doom);
        return MINIVMM_END_EXPECTATION;
    }
    bool passes = verdict_exit_code(end, *status) == MINIVMM_EXIT_OK;
    if (passes && guest_status(&vm->status) > 0) { /* however well it ends */
        *status = (uint32_t)guest_status(&vm->status);
        snprintf(vm->verdict.text, size, "guest reported status %u", *status);
        return MINIVMM_END_STATUS;
    }
    const char *unmet = passes ? watch_unmet(&vm->watch, &number) : NULL;
    if (unmet) {
        snprintf(vm->verdict.text, size, "expectation %u was not met: %s", number, unmet);
        return MINIVMM_END_EXPECTATION;
    }
    return end;
}

void machine_tell(struct minivmm *vm, struct minivmm_event event)
{
    if (!vm->config.event)
        return;
    pthread_mutex_lock(&vm->event_lock);
    event.time_ns = clock_now_ns();
    vm->config.event(vm->config.event_arg, &event);
    pthread_mutex_unlock(&vm->event_lock);
}

void machine_decide(struct minivmm *vm, enum minivmm_end end, uint32_t status, const char *format,
                    va_list args)
{
    vsnprintf(vm->verdict.text, sizeof(vm->verdict.text), format, args);
    end = judge(vm, end, &status);
    vm->verdict.end = end;
    vm->verdict.status = end == MINIVMM_END_STATUS ? status : 0;
    vm->verdict.exit_code = verdict_exit_code(end, status);
    vm->times.end = clock_now_ns();
    machine_tell(vm, (struct minivmm_event){.kind = MINIVMM_EVENT_ENDED, .name = vm->verdict.text});
}

void machine_close(struct minivmm *vm)
{
    vm->ended = true;
    vm->gate = GATE_CLOSED;
    pthread_cond_broadcast(&vm->changed);
    eventfd_write(vm->end_fd, 1);
    /* Before the owner, who waits for the lock, can join a thread that is kicked here. */
    for (unsigned i = 0; i < vm->vcpu_threads; i++)
        vcpu_kick(&vm->vcpus[i]);
}

void machine_end(struct minivmm *vm, enum minivmm_end end, uint32_t status, const char *format, ...)
{
    pthread_mutex_lock(&vm->lock);
    if (!vm->ended && !vm->autopsy.hung) {
        va_list args;
        va_start(args, format);
        machine_decide(vm, end, status, format, args);
        va_end(args);
        machine_close(vm);
    } else if (!vm->ended && machine_hang_cut_by(vm, end)) {
        machine_close(vm);
    }
    pthread_mutex_unlock(&vm->lock);
}

/*
 * The guest has panicked, or printed what it must not (`doom`); if `hopeless`, nobody in it takes
 * over and it has not long to live.
 */
static void note_failure(struct minivmm *vm, bool hopeless, const char *doom)
{
    pthread_mutex_lock(&vm->lock);
    if (vm->autopsy.hung) { /* it has its verdict, and panics because we asked where it hangs */
        pthread_mutex_unlock(&vm->lock);
        return;
    }
    if (doom)
        snprintf(vm->doom, sizeof(vm->doom), "%s", doom);
    else if (!vm->panicked)
        machine_tell(vm, (struct minivmm_event){.kind = MINIVMM_EVENT_PANIC});
    vm->panicked |= !doom;
    bool set_timer = hopeless && !vm->grace_runs; /* further reports buy no time */
    vm->grace_runs |= set_timer;
    pthread_mutex_unlock(&vm->lock);
    if (set_timer)
        event_timer_set(&vm->panic_grace, PANIC_GRACE_NS);
}

/*
 * The guest pulled the reset line. The default command line makes Linux set the reset flag to
 * "warm" after a panic, and only then.
 */
static void handle_reset(struct minivmm *vm)
{
    uint16_t flag;
    memcpy(&flag, guest_mem_at(&vm->guest.mem, LAYOUT_RESET_FLAG, sizeof(flag)), sizeof(flag));
    if (flag == RESET_FLAG_WARM && !vm->config.no_default_cmdline)
        note_failure(vm, false, NULL);
    machine_end(vm, MINIVMM_END_REBOOT, 0, "guest restarted");
}

static void add_post_code(struct minivmm *vm, uint8_t code)
{
    pthread_mutex_lock(&vm->lock);
    if (vm->post_count < POST_CODES_MAX)
        vm->post[vm->post_count++] =
            (struct minivmm_post_code){.time_ns = clock_now_ns(), .code = code};
    pthread_mutex_unlock(&vm->lock);
}

void machine_platform_event(void *arg, enum platform_event event, uint32_t value)
{
    struct minivmm *vm = arg;

    switch (event) {
    case PLATFORM_POWEROFF:
        machine_end(vm, MINIVMM_END_POWEROFF, 0, "guest powered off");
        break;
    case PLATFORM_RESET:
        handle_reset(vm);
        break;
    case PLATFORM_PANIC:
        note_failure(vm, true, NULL);
        break;
    case PLATFORM_PANIC_LOADED:
        note_failure(vm, false, NULL);
        break;
    case PLATFORM_DEBUG_EXIT:
        machine_end(vm, MINIVMM_END_STATUS, value, "guest reported status %u", value);
        break;
    case PLATFORM_POST:
        add_post_code(vm, (uint8_t)value);
        break;
    }
}

/* It has failed one way or the other; which, machine_end knows. */
void machine_panic_grace_over(void *arg)
{
    machine_end(arg, MINIVMM_END_PANIC, 0, "guest kernel panic");
}

void machine_watched(void *arg, enum watch_outcome outcome, const char *text)
{
    struct minivmm *vm = arg;

    switch (outcome) {
    case WATCH_PANIC:
        note_failure(vm, true, NULL);
        break;
    case WATCH_FORBIDDEN: /* let it print the rest of its story */
        note_failure(vm, true, text);
        break;
    case WATCH_UNTIL:
        machine_end(vm, MINIVMM_END_UNTIL, 0, "guest printed: %s", text);
        break;
    case WATCH_LATE:
        machine_end(vm, MINIVMM_END_EXPECTATION, 0, "%s", text);
        break;
    case WATCH_SILENCE:
        machine_hang(vm, MINIVMM_END_SILENCE, "%s", text);
        break;
    }
}

void machine_expected(void *arg, unsigned number, const char *text)
{
    machine_tell(arg, (struct minivmm_event){
                          .kind = MINIVMM_EVENT_EXPECTED, .name = text, .number = number});
}

void machine_driver_ok(void *arg, const char *name, unsigned slot)
{
    machine_tell(
        arg, (struct minivmm_event){.kind = MINIVMM_EVENT_DRIVER_OK, .name = name, .number = slot});
}

static void note_output(struct minivmm *vm, enum watch_source source, const uint8_t *data,
                        size_t size)
{
    if (!__atomic_load_n(&vm->printed, __ATOMIC_RELAXED) &&
        !__atomic_exchange_n(&vm->printed, true, __ATOMIC_RELAXED))
        machine_tell(vm, (struct minivmm_event){.kind = MINIVMM_EVENT_OUTPUT});
    console_tail_feed(&vm->tail, data, size); /* first: what is found in it shall be in it */
    machine_hang_output(vm);
    watch_feed(&vm->watch, source, data, size);
}

static void handle_printed(void *arg, uint8_t byte)
{
    note_output(arg, WATCH_SERIAL, &byte, 1);
}

static void handle_console_printed(void *arg, const uint8_t *data, size_t size)
{
    note_output(arg, WATCH_CONSOLE, data, size);
}

/* Written to the status port. */
static void handle_status(void *arg, const uint8_t *data, size_t size)
{
    struct minivmm *vm = arg;
    pthread_mutex_lock(&vm->lock);
    guest_status_feed(&vm->status, data, size);
    pthread_mutex_unlock(&vm->lock);
}

void machine_deadline_passed(void *arg)
{
    struct minivmm *vm = arg;
    machine_hang(vm, MINIVMM_END_TIMEOUT, "no end within %u second%s", vm->config.timeout,
                 vm->config.timeout == 1 ? "" : "s");
}

void machine_vcpu_ended(struct vcpu *vcpu, enum vcpu_end end, const char *text)
{
    static const enum minivmm_end ends[] = {
        [VCPU_END_SHUTDOWN] = MINIVMM_END_TRIPLE_FAULT,
        [VCPU_END_REFUSED] = MINIVMM_END_KVM,
        [VCPU_END_HOST] = MINIVMM_END_ERROR,
    };
    machine_end(vcpu->arg, ends[end], 0, "%s", text);
}

static void handle_escape(void *arg)
{
    minivmm_stop(arg, SIGINT);
}

static void handle_serial_failure(void *arg, int error)
{
    machine_end(arg, MINIVMM_END_ERROR, 0, "serial output: %s", strerror(error));
}

const struct serial_events machine_serial_events = {
    .printed = handle_printed, .leave = handle_escape, .failed = handle_serial_failure};

static void handle_console_failure(void *arg, const char *name, int error)
{
    machine_end(arg, MINIVMM_END_ERROR, 0, "port %s: output: %s", name, strerror(error));
}

const struct console_events machine_console_events = {.printed = handle_console_printed,
                                                      .status = handle_status,
                                                      .leave = handle_escape,
                                                      .failed = handle_console_failure};
