#include "vmm/kvm_clock.h"

#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#ifndef KVM_VCPU_TSC_CTRL /* Linux 5.16 has these; older headers do not name them */
#define KVM_VCPU_TSC_CTRL   0
#define KVM_VCPU_TSC_OFFSET 0
#endif

#define MSR_TSC 0x10u /* IA32_TIME_STAMP_COUNTER; SDM volume 4, table 2-2 */

static bool read_tsc(int vcpu_fd, uint64_t *tsc)
{
    /* struct kvm_msrs ends in a flexible array; this is one with room for one. */
    union {
        struct kvm_msrs header;
        char bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } msrs;

    memset(&msrs, 0, sizeof(msrs));
    msrs.header.nmsrs = 1;
    msrs.header.entries[0].index = MSR_TSC;
    if (ioctl(vcpu_fd, KVM_GET_MSRS, &msrs) != 1)
        return false;
    *tsc = msrs.header.entries[0].data;
    return true;
}

void kvm_clock_hold(struct kvm_clock *clock, const struct kvm *kvm, const int *fds, unsigned count)
{
    struct kvm_clock_data data = {0};

    *clock = (struct kvm_clock){0};
    clock->has_clock = ioctl(kvm->vm_fd, KVM_GET_CLOCK, &data) == 0;
    clock->clock_ns = data.clock;
    clock->has_tsc = count > 0 && read_tsc(fds[0], &clock->tsc);
}

/* The vCPU's counter goes back by `ticks`. A KVM that cannot leaves it as it is. */
static void put_tsc_back(int vcpu_fd, uint64_t ticks)
{
    uint64_t offset;
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};

    if (ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attribute) < 0)
        return;
    offset -= ticks;
    ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &attribute);
}

void kvm_clock_release(const struct kvm_clock *clock, const struct kvm *kvm, const int *fds,
                       unsigned count)
{
    uint64_t now;

    /* The counters first: kvmclock is computed from them. */
    if (clock->has_tsc && read_tsc(fds[0], &now)) {
        for (unsigned i = 0; i < count; i++)
            put_tsc_back(fds[i], now - clock->tsc);
    }
    if (clock->has_clock) {
        const struct kvm_clock_data data = {.clock = clock->clock_ns};
        ioctl(kvm->vm_fd, KVM_SET_CLOCK, &data);
    }
    for (unsigned i = 0; i < count; i++)
        ioctl(fds[i], KVM_KVMCLOCK_CTRL, 0); /* -EINVAL from a guest without kvmclock */
}
