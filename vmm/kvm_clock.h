/*
 * The guest's clocks while its VM is paused: they stand still.
 *
 * Two clocks of a guest's are KVM's to set. kvmclock, which a guest reads from a page that KVM
 * fills in, is put back to what it was (KVM_SET_CLOCK). The time stamp counter, which Linux prefers
 * where it is reliable and which the local APIC's deadline timer counts by, is put back by as much
 * as it went on, the same for every vCPU, so that they stay in step (KVM_VCPU_TSC_OFFSET, Linux
 * 5.16; on older kernels it goes on, and a guest that keeps time by it sees the pause). Each vCPU's
 * watchdog is told that its guest was stopped (KVM_KVMCLOCK_CTRL). What is not kept is the time of
 * day: a guest's wall clock is behind by the pause afterwards, until it asks somebody.
 */
#ifndef VMM_KVM_CLOCK_H
#define VMM_KVM_CLOCK_H

#include "vmm/kvm.h"

struct kvm_clock {
    bool has_clock, has_tsc; /* what of it could be read */
    uint64_t clock_ns;
    uint64_t tsc; /* of the first vCPU */
};

/* All vCPUs have left the guest: note the time. `fds` are theirs, `count` of them. */
void kvm_clock_hold(struct kvm_clock *clock, const struct kvm *kvm, const int *fds, unsigned count);

/* They are about to go on. */
void kvm_clock_release(const struct kvm_clock *clock, const struct kvm *kvm, const int *fds,
                       unsigned count);

#endif
