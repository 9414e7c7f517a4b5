/*
 * What is x86 about a vCPU: CPUID, MSRs and the state at its first instruction.
 */
#ifndef VMM_ARCH_X86_H
#define VMM_ARCH_X86_H

#include "boot/boot.h"
#include "vmm/cpuid.h"
#include "vmm/kvm.h"

/* What all vCPUs of a VM have in common. After the first kvm_create_vcpu. */
int arch_cpuid(const struct kvm *kvm, unsigned cpus, struct cpuid *cpuid,
               struct minivmm_error *err);

/*
 * Set up vCPU `index`. Number 0 starts at `entry`; the others wait for INIT and SIPI, as KVM
 * creates them. Changes the APIC ids in `cpuid`.
 */
int arch_vcpu_setup(int vcpu_fd, unsigned index, struct cpuid *cpuid,
                    const struct boot_entry *entry, struct minivmm_error *err);

/* Print the registers of a vCPU that does not run, for a person. */
void arch_print_registers(int vcpu_fd, FILE *out);

#endif
