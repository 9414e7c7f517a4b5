#include "vmm/vcpu.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/counter.h"

#define KERNEL_SIGSET_SIZE                                                                         \
    8 /* bytes of a signal set at the system call, unlike sizeof(sigset_t)                         \
       */

/* Let KVM_RUN, and nothing else on this thread, be interrupted by the kick. */
static int set_signal_mask(int fd)
{
    union {
        struct kvm_signal_mask header;
        char bytes[sizeof(struct kvm_signal_mask) + KERNEL_SIGSET_SIZE];
    } mask;
    sigset_t all;

    sigfillset(&all);
    sigdelset(&all, SIGRTMIN);
    mask.header.len = KERNEL_SIGSET_SIZE;
    memcpy(mask.header.sigset, &all, KERNEL_SIGSET_SIZE);
    return ioctl(fd, KVM_SET_SIGNAL_MASK, &mask) < 0 ? -errno : 0;
}

int vcpu_init(struct vcpu *vcpu, struct kvm *kvm, unsigned index, struct minivmm_error *err)
{
    *vcpu = (struct vcpu){.index = index, .fd = -1, .run_size = kvm->run_size};
    vcpu->fd = kvm_create_vcpu(kvm, index, err);
    if (vcpu->fd < 0)
        return vcpu->fd;
    void *run = mmap(NULL, (size_t)kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    int rc = run == MAP_FAILED ? -errno : 0;
    if (rc == 0) {
        vcpu->run = run;
        rc = set_signal_mask(vcpu->fd);
    }
    if (rc < 0) {
        error_set(err, rc, "KVM: vCPU %u: %s", index, strerror(-rc));
        vcpu_finish(vcpu);
    }
    return rc;
}

void vcpu_finish(struct vcpu *vcpu)
{
    if (vcpu->run)
        munmap(vcpu->run, (size_t)vcpu->run_size);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    vcpu->run = NULL;
    vcpu->fd = -1;
}

void vcpu_kick(struct vcpu *vcpu)
{
    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    pthread_kill(vcpu->thread, SIGRTMIN);
}

/* After a kick: forget it, so that the next KVM_RUN runs. */
static void take_kick(struct vcpu *vcpu)
{
    const struct timespec now = {0};
    sigset_t kick;

    sigemptyset(&kick);
    sigaddset(&kick, SIGRTMIN);
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    while (sigtimedwait(&kick, NULL, &now) == SIGRTMIN)
        continue;
}

static struct vcpu_exit *log_exit(struct vcpu *vcpu, uint32_t reason)
{
    struct vcpu_exit *entry = &vcpu->log[vcpu->exits % VCPU_LOG_SIZE];
    *entry = (struct vcpu_exit){.reason = reason};
    counter_add(&vcpu->exits, 1);
    counter_add(&vcpu->by_reason[reason < VCPU_REASONS_MAX ? reason : 0], 1);
    return entry;
}

/* A little-endian value of 1 to 8 bytes in KVM's shared area. */
static uint64_t load(const void *from, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, from, size);
    return value;
}

static void handle_io(struct vcpu *vcpu, struct vcpu_exit *entry)
{
    struct kvm_run *run = vcpu->run;
    unsigned size = run->io.size;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    entry->size = (uint8_t)size;
    entry->write = run->io.direction == KVM_EXIT_IO_OUT;
    entry->count = run->io.count; /* KVM bounds a string instruction to a page */
    entry->addr = run->io.port;
    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        uint64_t value;
        if (entry->write) {
            value = load(data, size);
            bus_write(vcpu->pio, run->io.port, size, value);
        } else {
            value = bus_read(vcpu->pio, run->io.port, size);
            memcpy(data, &value, size);
        }
        if (i == 0)
            entry->value = value;
    }
}

static void handle_mmio(struct vcpu *vcpu, struct vcpu_exit *entry)
{
    struct kvm_run *run = vcpu->run;
    unsigned size = run->mmio.len;

    entry->size = (uint8_t)size;
    entry->write = run->mmio.is_write;
    entry->count = 1;
    entry->addr = run->mmio.phys_addr;
    if (entry->write) {
        entry->value = load(run->mmio.data, size);
        bus_write(vcpu->mmio, run->mmio.phys_addr, size, entry->value);
    } else {
        entry->value = bus_read(vcpu->mmio, run->mmio.phys_addr, size);
        memcpy(run->mmio.data, &entry->value, size);
    }
}

static void refuse(struct vcpu *vcpu, const char *what, uint64_t detail)
{
    char text[160];
    snprintf(text, sizeof(text), "vCPU %u: KVM stopped it: %s 0x%llx", vcpu->index, what,
             (unsigned long long)detail);
    vcpu->ended(vcpu, VCPU_END_REFUSED, text);
}

/* Act on an exit; false when the vCPU cannot go on. */
static bool handle_exit(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    struct vcpu_exit *entry = log_exit(vcpu, run->exit_reason);
    char text[64];

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        handle_io(vcpu, entry);
        return true;
    case KVM_EXIT_MMIO:
        handle_mmio(vcpu, entry);
        return true;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_IOAPIC_EOI: /* of level interrupts, which this machine's lines never are */
        return true;
    case KVM_EXIT_SHUTDOWN:
        snprintf(text, sizeof(text), "vCPU %u: triple fault", vcpu->index);
        vcpu->ended(vcpu, VCPU_END_SHUTDOWN, text);
        return false;
    case KVM_EXIT_FAIL_ENTRY:
        refuse(vcpu, "the processor refused to enter the guest, hardware reason",
               run->fail_entry.hardware_entry_failure_reason);
        return false;
    case KVM_EXIT_INTERNAL_ERROR:
        refuse(vcpu,
               run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION
                   ? "an instruction that it cannot emulate, suberror"
                   : "internal error, suberror",
               run->internal.suberror);
        return false;
    default:
        refuse(vcpu, "unexpected exit, reason", run->exit_reason);
        return false;
    }
}

/*
 * KVM_RUN answered EAGAIN. That is how it wakes a processor that waits for INIT or SIPI; but a host
 * out of something answers so as well, again and again. A processor that could run and twice did
 * not is told by the second time.
 */
static bool is_stuck(struct vcpu *vcpu, bool *could_run)
{
    struct kvm_mp_state state;
    bool before = *could_run;
    *could_run =
        ioctl(vcpu->fd, KVM_GET_MP_STATE, &state) == 0 && state.mp_state == KVM_MP_STATE_RUNNABLE;
    return before && *could_run;
}

static bool kicked(const struct vcpu *vcpu)
{
    return __atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_SEQ_CST);
}

bool vcpu_run(struct vcpu *vcpu)
{
    bool could_run = false;

    for (;;) {
        if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
            could_run = false;
            if (!handle_exit(vcpu))
                return false;
            continue;
        }
        int error = errno;
        if (error == EINTR || (error == EAGAIN && kicked(vcpu))) {
            take_kick(vcpu);
            return true;
        }
        if (error != EAGAIN || is_stuck(vcpu, &could_run)) {
            char text[160];
            snprintf(text, sizeof(text), "vCPU %u: KVM_RUN: %s%s", vcpu->index, strerror(error),
                     error == EAGAIN ? "; raise the limit on processes (ulimit -u)" : "");
            log_exit(vcpu, vcpu->run->exit_reason);
            vcpu->ended(vcpu, error == EAGAIN || error == ENOMEM ? VCPU_END_HOST : VCPU_END_REFUSED,
                        text);
            return false;
        }
    }
}

const char *vcpu_reason_name(uint32_t reason)
{
    static const char *const names[] = {
        [KVM_EXIT_IO] = "port I/O",
        [KVM_EXIT_MMIO] = "MMIO",
        [KVM_EXIT_INTR] = "signal",
        [KVM_EXIT_IRQ_WINDOW_OPEN] = "interrupt window",
        [KVM_EXIT_IOAPIC_EOI] = "IOAPIC EOI",
        [KVM_EXIT_SHUTDOWN] = "shutdown",
        [KVM_EXIT_FAIL_ENTRY] = "failed entry",
        [KVM_EXIT_INTERNAL_ERROR] = "KVM internal error",
    };
    if (reason < sizeof(names) / sizeof(names[0]) && names[reason])
        return names[reason];
    return "other";
}

bool vcpu_reason_known(uint32_t reason)
{
    return strcmp(vcpu_reason_name(reason), "other") != 0;
}

void vcpu_print_log(const struct vcpu *vcpu, FILE *out)
{
    uint64_t first = vcpu->exits > VCPU_LOG_SIZE ? vcpu->exits - VCPU_LOG_SIZE : 0;

    fprintf(out, "  last exits, %llu in all:\n", (unsigned long long)vcpu->exits);
    for (uint64_t i = first; i < vcpu->exits; i++) {
        const struct vcpu_exit *entry = &vcpu->log[i % VCPU_LOG_SIZE];
        fprintf(out, "    %s", vcpu_reason_name(entry->reason));
        if (entry->size) {
            fprintf(out, " %s 0x%llx, %u byte%s: 0x%llx", entry->write ? "write" : "read",
                    (unsigned long long)entry->addr, entry->size, entry->size == 1 ? "" : "s",
                    (unsigned long long)entry->value);
            if (entry->count > 1)
                fprintf(out, " (first of %u)", entry->count);
        }
        fputc('\n', out);
    }
}
