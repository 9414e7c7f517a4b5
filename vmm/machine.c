/*
 * The composition root: builds a VM out of its parts, starts and ends its threads, and decides the
 * verdict. The only file that knows all layers.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/ioapic.h"
#include "devices/platform_regs.h"
#include "devices/serial.h"
#include "vmm/arch_x86.h"
#include "vmm/clock.h"
#include "vmm/event_loop.h"
#include "vmm/guest_load.h"
#include "vmm/slots.h"
#include "vmm/thread.h"
#include "vmm/vcpu.h"
#include "vmm/verdict.h"
#include "vmm/watch.h"

#define THREAD_STACK   (256u * 1024)
#define POST_CODES_MAX 64u
/* After a report of a panic: time for the guest to finish printing, and to restart by itself. */
#define PANIC_GRACE_NS (2 * NS_PER_SECOND)

enum gate {
    GATE_PARKED, /* vCPU threads wait */
    GATE_OPEN,   /* they run guest code */
    GATE_CLOSED, /* they end */
};

struct minivmm {
    struct minivmm_config config;
    struct guest_load guest;
    struct kvm kvm;
    struct bus pio, mmio;
    struct event_loop loop;
    struct event_timer deadline, panic_grace;

    struct ioapic ioapic;
    struct serial serial;
    int serial_irq;
    struct platform_regs regs;
    struct slots slots;
    struct watch watch;
    struct vcpu *vcpus;

    pthread_t loop_thread;
    bool has_serial, has_ioapic;

    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t changed;
    enum gate gate;
    unsigned vcpu_threads; /* how many run, or have ended and wait to be joined */
    bool panicked;         /* the guest said so; its end is a panic whatever it looks like */
    bool grace_runs;       /* the timer that ends a panicked guest, or a doomed one */
    char doom[200];        /* the guest printed what it must not; empty: it did not */
    bool ended;
    struct minivmm_verdict verdict;
    int end_fd;
    struct minivmm_times times;
    struct minivmm_post_code post[POST_CODES_MAX];
    unsigned post_count;
};

/* ---- verdict ------------------------------------------------------------------------------- */

/*
 * What the end really is, whatever it looks like: a panicked guest has panicked, one that printed
 * what it must not has failed, and so has one that ends well before all was printed that was
 * expected. Only a stop from outside is none of the guest's.
 */
static enum minivmm_end judge(struct minivmm *vm, enum minivmm_end end, uint32_t status)
{
    const size_t size = sizeof(vm->verdict.text);
    unsigned number;

    if (end == MINIVMM_END_STOPPED || end == MINIVMM_END_ERROR)
        return end;
    if (vm->panicked) {
        snprintf(vm->verdict.text, size, "guest kernel panic");
        return MINIVMM_END_PANIC;
    }
    if (vm->doom[0]) {
        snprintf(vm->verdict.text, size, "forbidden text: %s", vm->doom);
        return MINIVMM_END_EXPECTATION;
    }
    bool passes = verdict_exit_code(end, status) == MINIVMM_EXIT_OK;
    const char *unmet = passes ? watch_unmet(&vm->watch, &number) : NULL;
    if (unmet) {
        snprintf(vm->verdict.text, size, "expectation %u was not met: %s", number, unmet);
        return MINIVMM_END_EXPECTATION;
    }
    return end;
}

/*
 * The VM ends for this reason, unless it has ended before. From any thread; returns at once, the
 * vCPUs stop soon after. `status` is the guest's status, or the signal of a stop.
 */
__attribute__((format(printf, 4, 5))) static void end_vm(struct minivmm *vm, enum minivmm_end end,
                                                         uint32_t status, const char *format, ...)
{
    pthread_mutex_lock(&vm->lock);
    if (!vm->ended) {
        va_list args;
        va_start(args, format);
        vsnprintf(vm->verdict.text, sizeof(vm->verdict.text), format, args);
        va_end(args);
        end = judge(vm, end, status);
        vm->verdict.end = end;
        vm->verdict.status = end == MINIVMM_END_STATUS ? status : 0;
        vm->verdict.exit_code = verdict_exit_code(end, status);
        vm->times.end = clock_now_ns();
        vm->ended = true;
        vm->gate = GATE_CLOSED;
        pthread_cond_broadcast(&vm->changed);
        eventfd_write(vm->end_fd, 1);
        /* Before the owner, who waits for the lock, can join a thread that is kicked here. */
        for (unsigned i = 0; i < vm->vcpu_threads; i++)
            vcpu_kick(&vm->vcpus[i]);
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
    if (doom)
        snprintf(vm->doom, sizeof(vm->doom), "%s", doom);
    else
        vm->panicked = true;
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
    end_vm(vm, MINIVMM_END_REBOOT, 0, "guest restarted");
}

static void add_post_code(struct minivmm *vm, uint8_t code)
{
    pthread_mutex_lock(&vm->lock);
    if (vm->post_count < POST_CODES_MAX)
        vm->post[vm->post_count++] =
            (struct minivmm_post_code){.time_ns = clock_now_ns(), .code = code};
    pthread_mutex_unlock(&vm->lock);
}

static void handle_platform_event(void *arg, enum platform_event event, uint32_t value)
{
    struct minivmm *vm = arg;

    switch (event) {
    case PLATFORM_POWEROFF:
        end_vm(vm, MINIVMM_END_POWEROFF, 0, "guest powered off");
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
        end_vm(vm, MINIVMM_END_STATUS, value, "guest reported status %u", value);
        break;
    case PLATFORM_POST:
        add_post_code(vm, (uint8_t)value);
        break;
    }
}

/* It has failed one way or the other; which, end_vm knows. */
static void panic_grace_over(void *arg)
{
    end_vm(arg, MINIVMM_END_PANIC, 0, "guest kernel panic");
}

static void handle_watch(void *arg, enum watch_outcome outcome, const char *text)
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
        end_vm(vm, MINIVMM_END_UNTIL, 0, "guest printed: %s", text);
        break;
    case WATCH_LATE:
        end_vm(vm, MINIVMM_END_EXPECTATION, 0, "%s", text);
        break;
    case WATCH_SILENCE:
        end_vm(vm, MINIVMM_END_SILENCE, 0, "%s", text);
        break;
    }
}

static void handle_printed(void *arg, uint8_t byte)
{
    struct minivmm *vm = arg;
    watch_feed(&vm->watch, &byte, 1);
}

static void deadline_passed(void *arg)
{
    struct minivmm *vm = arg;
    end_vm(vm, MINIVMM_END_TIMEOUT, 0, "no end within %u second%s", vm->config.timeout,
           vm->config.timeout == 1 ? "" : "s");
}

static void handle_vcpu_end(struct vcpu *vcpu, enum vcpu_end end, const char *text)
{
    end_vm(vcpu->arg, end == VCPU_END_SHUTDOWN ? MINIVMM_END_TRIPLE_FAULT : MINIVMM_END_KVM, 0,
           "%s", text);
}

static void handle_escape(void *arg)
{
    minivmm_stop(arg, SIGINT);
}

static void handle_serial_failure(void *arg, int error)
{
    end_vm(arg, MINIVMM_END_ERROR, 0, "serial output: %s", strerror(error));
}

static const struct serial_events serial_events = {
    .printed = handle_printed, .leave = handle_escape, .failed = handle_serial_failure};

/* ---- threads ------------------------------------------------------------------------------- */

static void *vcpu_main(void *arg)
{
    struct vcpu *vcpu = arg;
    struct minivmm *vm = vcpu->arg;
    bool alive = true;

    while (alive) {
        pthread_mutex_lock(&vm->lock);
        while (vm->gate == GATE_PARKED)
            pthread_cond_wait(&vm->changed, &vm->lock);
        bool closed = vm->gate == GATE_CLOSED;
        pthread_mutex_unlock(&vm->lock);
        if (closed)
            break;
        alive = vcpu_run(vcpu);
    }
    return NULL;
}

static void *loop_main(void *arg)
{
    struct minivmm *vm = arg;

    event_loop_run(&vm->loop);
    pthread_mutex_lock(&vm->lock);
    bool asked = vm->verdict.end == MINIVMM_END_STOPPED || vm->verdict.end == MINIVMM_END_TIMEOUT;
    pthread_mutex_unlock(&vm->lock);
    /* Who wants an end now gets it, however slowly the reader takes the rest. */
    int rc = host_stream_drain(&vm->serial.stream, !asked);
    if (rc < 0) {
        pthread_mutex_lock(&vm->lock);
        if (vm->verdict.exit_code == MINIVMM_EXIT_OK) {
            /* A pass whose output did not arrive is no pass. */
            vm->verdict =
                (struct minivmm_verdict){.end = MINIVMM_END_ERROR, .exit_code = MINIVMM_EXIT_ERROR};
            snprintf(vm->verdict.text, sizeof(vm->verdict.text), "serial output: %s",
                     rc == -ETIMEDOUT ? "its reader takes no more" : strerror(-rc));
        }
        pthread_mutex_unlock(&vm->lock);
    }
    return NULL;
}

static int start_threads(struct minivmm *vm, struct minivmm_error *err)
{
    vm->loop.has_thread = true;
    int rc = thread_start(&vm->loop_thread, loop_main, vm, "loop", THREAD_STACK, err);
    if (rc < 0)
        vm->loop.has_thread = false;
    for (unsigned i = 0; rc == 0 && i < vm->config.cpus; i++) {
        char name[16];
        snprintf(name, sizeof(name), "vcpu%u", i);
        rc = thread_start(&vm->vcpus[i].thread, vcpu_main, &vm->vcpus[i], name, THREAD_STACK, err);
        pthread_mutex_lock(&vm->lock); /* Ctrl-A x may end the VM already */
        vm->vcpu_threads += rc == 0;
        pthread_mutex_unlock(&vm->lock);
    }
    return rc;
}

/* After the end: join all threads, the loop last, for vCPUs may still hand it output, and I/O that
 * is under way ends there. */
static void join_threads(struct minivmm *vm)
{
    for (unsigned i = 0; i < vm->vcpu_threads; i++)
        pthread_join(vm->vcpus[i].thread, NULL);
    vm->vcpu_threads = 0;
    if (vm->loop.has_thread) {
        slots_shutdown(&vm->slots);
        event_loop_stop(&vm->loop);
        pthread_join(vm->loop_thread, NULL);
        vm->loop.has_thread = false;
    }
}

/* ---- parts --------------------------------------------------------------------------------- */

/* A pin of the I/O APIC sends something else from now on. */
static void handle_route(void *arg, unsigned pin, const struct ioapic_message *message)
{
    struct minivmm *vm = arg;
    const struct kvm_msi_route route = {
        .enabled = message->enabled, .address = message->address, .data = message->data};
    int rc = kvm_set_route(&vm->kvm, pin, &route);
    if (rc < 0)
        end_vm(vm, MINIVMM_END_ERROR, 0, "interrupt line %u: KVM_SET_GSI_ROUTING: %s", pin,
               strerror(-rc));
}

static int create_serial(struct minivmm *vm, struct minivmm_error *err)
{
    const struct minivmm_config *config = &vm->config;

    vm->serial_irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vm->serial_irq < 0)
        return error_set(err, -errno, "serial: eventfd: %s", strerror(errno));
    int rc = serial_init(&vm->serial, &vm->loop, config->serial_in, config->serial_out,
                         vm->serial_irq, config->serial_escape, &serial_events, vm, err);
    vm->has_serial = rc == 0;
    if (rc == 0)
        rc = kvm_add_irqfd(&vm->kvm, vm->serial_irq, LAYOUT_IRQ_COM1, err);
    return rc;
}

static void place_devices(struct minivmm *vm)
{
    vm->regs = (struct platform_regs){.event = handle_platform_event, .arg = vm};
    bus_add(&vm->mmio, LAYOUT_POWER, LAYOUT_POWER_SIZE, &power_ops, &vm->regs);
    bus_add(&vm->mmio, LAYOUT_IOAPIC, LAYOUT_IOAPIC_SIZE, &ioapic_bus_ops, &vm->ioapic);
    bus_add(&vm->pio, LAYOUT_PORT_NMI_STATUS, 1, &nmi_status_ops, &vm->regs);
    bus_add(&vm->pio, LAYOUT_PORT_I8042_CMD, 1, &i8042_ops, &vm->regs);
    bus_add(&vm->pio, LAYOUT_PORT_POST, 1, &post_ops, &vm->regs);
    bus_add(&vm->pio, LAYOUT_PORT_COM1, LAYOUT_PORTS_COM1, &serial_bus_ops, &vm->serial);
    bus_add(&vm->pio, LAYOUT_PORT_PANIC, 1, &panic_ops, &vm->regs);
    bus_add(&vm->pio, LAYOUT_PORT_RESET, 1, &reset_control_ops, &vm->regs);
    if (vm->config.debug_exit)
        bus_add(&vm->pio, LAYOUT_PORT_DEBUG_EXIT, 4, &debug_exit_ops, &vm->regs);
}

static int create_vcpus(struct minivmm *vm, struct minivmm_error *err)
{
    struct cpuid cpuid;

    vm->vcpus = calloc(vm->config.cpus, sizeof(vm->vcpus[0]));
    if (!vm->vcpus)
        return error_set(err, -ENOMEM, "vCPUs: out of memory");
    for (unsigned i = 0; i < vm->config.cpus; i++)
        vm->vcpus[i].fd = -1;
    for (unsigned i = 0; i < vm->config.cpus; i++) {
        struct vcpu *vcpu = &vm->vcpus[i];
        int rc = vcpu_init(vcpu, &vm->kvm, i, err);
        if (rc == 0 && i == 0)
            rc = arch_cpuid(&vm->kvm, vm->config.cpus, &cpuid, err);
        if (rc == 0)
            rc = arch_vcpu_setup(vcpu->fd, i, &cpuid, &vm->guest.boot.entry, err);
        if (rc < 0)
            return rc;
        vcpu->pio = &vm->pio;
        vcpu->mmio = &vm->mmio;
        vcpu->ended = handle_vcpu_end;
        vcpu->arg = vm;
    }
    return 0;
}

/* ---- public -------------------------------------------------------------------------------- */

static struct minivmm *allocate(const struct minivmm_config *config)
{
    struct minivmm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return NULL;
    vm->times.create = clock_now_ns();
    vm->config = *config;
    vm->config.kernel = vm->config.initrd = vm->config.cmdline = NULL; /* the caller's */
    vm->config.disks = NULL;
    vm->config.nets = NULL;
    vm->config.expects = NULL;
    vm->config.fail_on = NULL;
    vm->config.until = NULL;
    vm->kvm.fd = vm->kvm.vm_fd = -1;
    vm->loop.epoll_fd = vm->loop.wake.fd = -1;
    vm->deadline.source.fd = vm->panic_grace.source.fd = -1;
    vm->serial_irq = vm->end_fd = -1;
    pthread_mutex_init(&vm->lock, NULL);
    pthread_cond_init(&vm->changed, NULL);
    return vm;
}

/* KVM's order, see kvm.h: memory, irqchip, vCPUs, irqfds, ioeventfds. Threads come last. */
static int build(struct minivmm *vm, const struct minivmm_config *config, struct minivmm_error *err)
{
    int rc = guest_load_init(&vm->guest, config, err);
    if (rc == 0)
        rc = kvm_open(&vm->kvm, "/dev/kvm", err);
    if (rc == 0)
        rc = kvm_create_vm(&vm->kvm, &vm->guest.mem, err);
    if (rc == 0)
        rc = create_vcpus(vm, err);
    if (rc == 0)
        rc = event_loop_init(&vm->loop, err);
    if (rc == 0)
        rc = event_timer_init(&vm->deadline, &vm->loop, deadline_passed, vm, err);
    if (rc == 0)
        rc = event_timer_init(&vm->panic_grace, &vm->loop, panic_grace_over, vm, err);
    if (rc == 0)
        rc = watch_init(&vm->watch, config, &vm->loop, handle_watch, vm, err);
    if (rc == 0) {
        vm->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (vm->end_fd < 0)
            rc = error_set(err, -errno, "eventfd: %s", strerror(errno));
    }
    if (rc == 0) {
        ioapic_init(&vm->ioapic, handle_route, vm);
        vm->has_ioapic = true;
        rc = create_serial(vm, err);
    }
    if (rc == 0) {
        place_devices(vm);
        rc = slots_create(&vm->slots, config, &vm->guest.mem, &vm->loop, &vm->kvm, &vm->mmio, err);
    }
    if (rc == 0)
        rc = start_threads(vm, err);
    return rc;
}

int minivmm_create(const struct minivmm_config *config, struct minivmm **out,
                   struct minivmm_error *err)
{
    *out = NULL;
    struct minivmm *vm = allocate(config);
    if (!vm)
        return error_set(err, -ENOMEM, "out of memory");
    int rc = build(vm, config, err);
    if (rc < 0) {
        minivmm_destroy(vm);
        return rc;
    }
    *out = vm;
    return 0;
}

int minivmm_start(struct minivmm *vm)
{
    pthread_mutex_lock(&vm->lock);
    int rc = vm->times.start ? -EALREADY : 0;
    if (rc == 0) {
        vm->times.start = clock_now_ns();
        if (vm->gate == GATE_PARKED)
            vm->gate = GATE_OPEN;
        pthread_cond_broadcast(&vm->changed);
    }
    pthread_mutex_unlock(&vm->lock);
    if (rc == 0)
        watch_start(&vm->watch);
    if (rc == 0 && vm->config.timeout)
        event_timer_set(&vm->deadline, vm->config.timeout * NS_PER_SECOND);
    return rc;
}

void minivmm_stop(struct minivmm *vm, int signal)
{
    if (signal == SIGINT)
        end_vm(vm, MINIVMM_END_STOPPED, (uint32_t)signal, "stopped by the user");
    else
        end_vm(vm, MINIVMM_END_STOPPED, (uint32_t)signal, "stopped by signal %d (%s)", signal,
               strsignal(signal));
}

int minivmm_end_fd(const struct minivmm *vm)
{
    return vm->end_fd;
}

int minivmm_wait(struct minivmm *vm, struct minivmm_verdict *verdict)
{
    pthread_mutex_lock(&vm->lock);
    bool never = !vm->times.start && !vm->ended;
    while (!never && !vm->ended)
        pthread_cond_wait(&vm->changed, &vm->lock);
    pthread_mutex_unlock(&vm->lock);
    if (never)
        return -EINVAL;
    join_threads(vm);
    *verdict = vm->verdict;
    return 0;
}

void minivmm_print_vcpus(const struct minivmm *vm, FILE *out)
{
    for (unsigned i = 0; i < vm->config.cpus; i++) {
        fprintf(out, "vCPU %u:\n", i);
        arch_print_registers(vm->vcpus[i].fd, out);
        vcpu_print_log(&vm->vcpus[i], out);
    }
}

void minivmm_print_exits(const struct minivmm *vm, FILE *out)
{
    for (uint32_t reason = 0; reason < VCPU_REASONS_MAX; reason++) {
        uint64_t count = 0;
        for (unsigned i = 0; i < vm->config.cpus; i++)
            count += vm->vcpus[i].by_reason[reason];
        if (count)
            fprintf(out, "exits, %s: %llu\n", vcpu_reason_name(reason), (unsigned long long)count);
    }
    if (vm->serial.lost)
        fprintf(out, "serial: %llu bytes written while the transmitter was busy\n",
                (unsigned long long)vm->serial.lost);
    slots_print(&vm->slots, out);
}

size_t minivmm_post_codes(const struct minivmm *vm, struct minivmm_post_code *codes, size_t max)
{
    size_t count = vm->post_count < max ? vm->post_count : max;
    memcpy(codes, vm->post, count * sizeof(codes[0]));
    return count;
}

void minivmm_times(struct minivmm *vm, struct minivmm_times *times)
{
    pthread_mutex_lock(&vm->lock);
    *times = vm->times;
    pthread_mutex_unlock(&vm->lock);
}

static void close_fd(int fd)
{
    if (fd >= 0)
        close(fd);
}

void minivmm_destroy(struct minivmm *vm)
{
    if (!vm)
        return;
    end_vm(vm, MINIVMM_END_STOPPED, SIGTERM, "destroyed");
    join_threads(vm);
    slots_finish(&vm->slots);
    if (vm->has_serial)
        serial_finish(&vm->serial);
    if (vm->has_ioapic)
        ioapic_finish(&vm->ioapic);
    watch_finish(&vm->watch);
    event_timer_finish(&vm->deadline);
    event_timer_finish(&vm->panic_grace);
    event_loop_finish(&vm->loop);
    for (unsigned i = 0; vm->vcpus && i < vm->config.cpus; i++)
        vcpu_finish(&vm->vcpus[i]);
    kvm_close(&vm->kvm);
    close_fd(vm->serial_irq);
    close_fd(vm->end_fd);
    guest_load_finish(&vm->guest); /* after the VM: nothing can touch guest memory any more */
    free(vm->vcpus);
    pthread_cond_destroy(&vm->changed);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
}
