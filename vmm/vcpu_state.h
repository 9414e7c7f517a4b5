/*
 * What a vCPU was doing at one moment, for a person: kept as text and a few numbers, so that it can
 * be told after the vCPU has gone on.
 */
#ifndef VMM_VCPU_STATE_H
#define VMM_VCPU_STATE_H

#include "vmm/vcpu.h"

#define VCPU_STACK_WORDS 512u

struct vcpu_state {
    bool taken;
    const char *activity; /* constant text: "runs", "halted"... */
    bool runs, halted;
    bool known; /* KVM told the registers, and so all that follows */
    uint64_t rip;
    bool user;              /* privilege level 3 */
    uint64_t syscall_entry; /* MSR_LSTAR; 0: not set */
    uint64_t nmi_entry;     /* handler of vector 2 of a 64-bit interrupt table; 0: none */
    char *registers, *log;  /* texts; NULL when only a line is wanted, or there is no memory */
    uint64_t *stack;        /* so many words from RSP up; NULL in user mode, and as above */
    unsigned stack_words;
};

/*
 * Look at a vCPU that does not run: on its own thread, or once that has ended. Not `full`: without
 * texts and stack. What the guest has put into registers and page tables is only looked at by KVM.
 */
void vcpu_state_take(struct vcpu_state *state, const struct vcpu *vcpu, const struct guest_mem *mem,
                     bool full);
void vcpu_state_finish(struct vcpu_state *state); /* harmless on {0} */

/* On the vCPU's own thread: a non-maskable interrupt, taken when it next runs. Negative errno. */
int vcpu_inject_nmi(const struct vcpu *vcpu);

#endif
