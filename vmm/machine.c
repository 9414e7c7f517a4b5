/*
 * The composition root: builds a VM out of its parts and takes it apart again. With its sisters
 * (machine.h) the only file that knows all layers.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/arch_x86.h"
#include "vmm/clock.h"

/* ---- parts --------------------------------------------------------------------------------- */

/* A pin of the I/O APIC sends something else from now on. */
static void handle_route(void *arg, unsigned pin, const struct ioapic_message *message)
{
    struct minivmm *vm = arg;
    const struct kvm_msi_route route = {
        .enabled = message->enabled, .address = message->address, .data = message->data};
    int rc = kvm_set_route(&vm->kvm, pin, &route);
    if (rc < 0)
        machine_end(vm, MINIVMM_END_ERROR, 0, "interrupt line %u: KVM_SET_GSI_ROUTING: %s", pin,
                    strerror(-rc));
}

static int create_serial(struct minivmm *vm, struct minivmm_error *err)
{
    const struct minivmm_char given = {.kind = MINIVMM_CHAR_FDS,
                                       .in = vm->config.serial_in,
                                       .out = vm->config.serial_out,
                                       .escape = vm->config.serial_escape};
    const struct minivmm_char *host = vm->config.serial ? vm->config.serial : &given;
    struct host_end *end = &vm->serial_end;

    vm->serial_irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vm->serial_irq < 0)
        return error_set(err, -errno, "serial: eventfd: %s", strerror(errno));
    int rc = host_end_init(end, host, &vm->loop, "serial", err);
    if (rc < 0)
        return rc;
    rc = serial_init(&vm->serial, &vm->loop, end->in, end->out, vm->serial_irq,
                     host->kind == MINIVMM_CHAR_FDS && host->escape, &machine_serial_events, vm,
                     err);
    vm->has_serial = rc == 0;
    if (rc == 0 && host_end_attach(end, &vm->serial.stream) < 0)
        rc = error_set(err, -ENOMEM, "serial: out of memory");
    if (rc == 0)
        rc = kvm_add_irqfd(&vm->kvm, vm->serial_irq, LAYOUT_IRQ_COM1, err);
    return rc;
}

static int create_power_button(struct minivmm *vm, struct minivmm_error *err)
{
    if (vm->config.platform != MINIVMM_PLATFORM_ACPI)
        return 0; /* nothing else could tell the guest of it */
    vm->power_irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (vm->power_irq < 0)
        return error_set(err, -errno, "power button: eventfd: %s", strerror(errno));
    return kvm_add_irqfd(&vm->kvm, vm->power_irq, LAYOUT_IRQ_POWER, err);
}

static void place_devices(struct minivmm *vm)
{
    vm->regs = (struct platform_regs){.event = machine_platform_event, .arg = vm};
    bus_add(&vm->mmio, LAYOUT_POWER, LAYOUT_POWER_SIZE, &power_ops, &vm->regs);
    bus_add(&vm->mmio, LAYOUT_IOAPIC, LAYOUT_IOAPIC_SIZE, &ioapic_bus_ops, &vm->ioapic);
    bus_add(&vm->pio, LAYOUT_PORT_NMI_STATUS, 1, &nmi_status_ops, &vm->regs);
    bus_add(&vm->pio, LAYOUT_PORT_I8042_CMD, 1, &i8042_ops, &vm->regs);
    bus_add(&vm->pio, LAYOUT_PORT_POST, 1, &post_ops, &vm->regs);
    bus_add(&vm->pio, LAYOUT_PORT_COM1, LAYOUT_PORTS_COM1, &serial_bus_ops, &vm->serial);
    bus_add(&vm->pio, LAYOUT_PORT_PANIC, 1, &panic_ops, &vm->regs);
    if (vm->config.transport == MINIVMM_TRANSPORT_PCI) {
        pci_host_init(&vm->pci_host, &reset_control_ops, &vm->regs);
        bus_add(&vm->pio, LAYOUT_PORT_PCI, PCI_HOST_PORTS, &pci_host_ops, &vm->pci_host);
    } else {
        bus_add(&vm->pio, LAYOUT_PORT_RESET, 1, &reset_control_ops, &vm->regs);
    }
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
        vcpu->ended = machine_vcpu_ended;
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
    vm->config.symbols = NULL;
    vm->config.disks = NULL;
    vm->config.nets = NULL;
    vm->config.expects = NULL;
    vm->config.fail_on = NULL;
    vm->config.until = NULL;
    vm->config.console = NULL;
    vm->config.ports = NULL;
    vm->kvm.fd = vm->kvm.vm_fd = -1;
    vm->loop.epoll_fd = vm->loop.wake.fd = vm->loop.hurry_fd = -1;
    vm->deadline.source.fd = vm->panic_grace.source.fd = vm->autopsy.timer.source.fd = -1;
    vm->serial_irq = vm->power_irq = vm->end_fd = -1;
    pthread_mutex_init(&vm->pause_lock, NULL);
    pthread_mutex_init(&vm->event_lock, NULL);
    pthread_mutex_init(&vm->lock, NULL);
    pthread_cond_init(&vm->changed, NULL);
    console_tail_init(&vm->tail);
    return vm;
}

/* KVM's order, see kvm.h: memory, irqchip, vCPUs, irqfds, ioeventfds. Threads come last. */
static int build(struct minivmm *vm, const struct minivmm_config *config, struct minivmm_error *err)
{
    int rc = guest_load_init(&vm->guest, config, err);
    if (rc == 0)
        rc = autopsy_init(&vm->autopsy, config->cpus, config->symbols, err);
    if (rc == 0)
        rc = kvm_open(&vm->kvm, "/dev/kvm", err);
    if (rc == 0)
        rc = kvm_create_vm(&vm->kvm, &vm->guest.mem, err);
    if (rc == 0)
        rc = create_vcpus(vm, err);
    if (rc == 0)
        rc = event_loop_init(&vm->loop, err);
    if (rc == 0)
        rc = event_timer_init(&vm->deadline, &vm->loop, machine_deadline_passed, vm, err);
    if (rc == 0)
        rc = event_timer_init(&vm->panic_grace, &vm->loop, machine_panic_grace_over, vm, err);
    if (rc == 0)
        rc = event_timer_init(&vm->autopsy.timer, &vm->loop, machine_hang_look, vm, err);
    if (rc == 0)
        rc = watch_init(&vm->watch, config, &vm->loop, machine_watched, vm, err);
    vm->watch.expected = machine_expected;
    if (rc == 0) {
        vm->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (vm->end_fd < 0)
            rc = error_set(err, -errno, "eventfd: %s", strerror(errno));
    }
    if (rc == 0) {
        ioapic_init(&vm->ioapic, handle_route, vm);
        vm->has_ioapic = true;
        rc = create_serial(vm, err);
        vm->config.serial = NULL; /* the caller's */
    }
    if (rc == 0)
        rc = create_power_button(vm, err);
    if (rc == 0) {
        place_devices(vm);
        vm->slots.console_events = &machine_console_events;
        vm->slots.console_arg = vm;
        rc = slots_create(&vm->slots, config, &vm->guest.mem, &vm->loop, &vm->kvm, &vm->mmio,
                          &vm->pio,
                          config->transport == MINIVMM_TRANSPORT_PCI ? &vm->pci_host : NULL, err);
    }
    if (rc == 0)
        slots_listen(&vm->slots, machine_driver_ok, vm);
    if (rc == 0)
        rc = machine_balloon_init(vm, err);
    if (rc == 0)
        rc = machine_start_threads(vm, err);
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
        machine_tell(vm, (struct minivmm_event){.kind = MINIVMM_EVENT_STARTED});
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
    pthread_mutex_lock(&vm->lock);
    bool ended = vm->ended;
    if (ended)
        vm->impatient = signal;
    pthread_mutex_unlock(&vm->lock);
    if (ended) {
        event_loop_hurry(&vm->loop);
        return;
    }
    if (signal == SIGINT)
        machine_end(vm, MINIVMM_END_STOPPED, (uint32_t)signal, "stopped by the user");
    else
        machine_end(vm, MINIVMM_END_STOPPED, (uint32_t)signal, "stopped by signal %d (%s)", signal,
                    strsignal(signal));
}

int minivmm_power_button(struct minivmm *vm)
{
    if (vm->power_irq < 0)
        return -ENODEV;
    enum minivmm_state state = minivmm_state(vm);
    if (state != MINIVMM_STATE_RUNNING && state != MINIVMM_STATE_PAUSED)
        return state == MINIVMM_STATE_ENDED ? -ESHUTDOWN : -EINVAL;
    eventfd_write(vm->power_irq, 1);
    return 0;
}

void minivmm_resize(struct minivmm *vm, unsigned columns, unsigned rows)
{
    if (vm->slots.console)
        console_resize(vm->slots.console, columns, rows);
}

const char *minivmm_pty(const struct minivmm *vm, const char *port)
{
    const char *path = NULL;

    if (strcmp(port, "serial") == 0)
        return vm->serial_end.kind == MINIVMM_CHAR_PTY ? vm->serial_end.path : NULL;
    if (vm->slots.console)
        path = console_pty(vm->slots.console, port);
    if (!path && vm->slots.ports)
        path = console_pty(vm->slots.ports, port);
    return path;
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
    machine_join_threads(vm);
    *verdict = vm->verdict;
    return 0;
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
    machine_end(vm, MINIVMM_END_STOPPED, SIGTERM, "destroyed");
    machine_join_threads(vm);
    machine_balloon_finish(vm);
    slots_finish(&vm->slots);
    pci_host_finish(&vm->pci_host);
    if (vm->has_serial)
        serial_finish(&vm->serial);
    host_end_finish(&vm->serial_end);
    if (vm->has_ioapic)
        ioapic_finish(&vm->ioapic);
    watch_finish(&vm->watch);
    event_timer_finish(&vm->deadline);
    event_timer_finish(&vm->panic_grace);
    event_timer_finish(&vm->autopsy.timer);
    autopsy_finish(&vm->autopsy);
    event_loop_finish(&vm->loop);
    for (unsigned i = 0; vm->vcpus && i < vm->config.cpus; i++)
        vcpu_finish(&vm->vcpus[i]);
    kvm_close(&vm->kvm);
    close_fd(vm->serial_irq);
    close_fd(vm->power_irq);
    close_fd(vm->end_fd);
    guest_load_finish(&vm->guest); /* after the VM: nothing can touch guest memory any more */
    free(vm->vcpus);
    console_tail_finish(&vm->tail);
    pthread_cond_destroy(&vm->changed);
    pthread_mutex_destroy(&vm->lock);
    pthread_mutex_destroy(&vm->event_lock);
    pthread_mutex_destroy(&vm->pause_lock);
    free(vm);
}
