/*
 * What the guest's CPUID instruction answers: what KVM supports, with the topology of this VM.
 * Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; virt/kvm/x86/cpuid.rst for 0x4000_00xx.
 *
 * No feature bit is ever set that KVM does not offer; the hypervisor bit and HTT, which tell of the
 * VM and its topology, are ours to set. The package has one core a vCPU, one thread a core; APIC
 * ids are the vCPUs' numbers.
 */
#ifndef VMM_CPUID_H
#define VMM_CPUID_H

#include <linux/kvm.h>

#include "vmm/error.h"

#define CPUID_ENTRIES_MAX 256

/* struct kvm_cpuid2 ends in a flexible array; this is one with room. */
struct cpuid {
    union {
        struct kvm_cpuid2 table;
        char bytes[sizeof(struct kvm_cpuid2) + CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2)];
    };
};

struct cpuid_facts {
    unsigned cpus;
    uint32_t tsc_khz;  /* 0: unknown, then no frequency is told */
    bool tsc_deadline; /* KVM_CAP_TSC_DEADLINE_TIMER, which KVM_GET_SUPPORTED_CPUID leaves out */
};

/* Turn KVM_GET_SUPPORTED_CPUID's answer into what every vCPU of the VM has in common. */
void cpuid_adapt(struct cpuid *cpuid, const struct cpuid_facts *facts);

/* Fill in what tells one vCPU from another, before each KVM_SET_CPUID2. */
void cpuid_set_apic_id(struct cpuid *cpuid, uint32_t apic_id);

#endif
