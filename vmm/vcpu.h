/*
 * One vCPU: its KVM descriptor, its exits, and the loop that runs it.
 *
 * vcpu_run is called on one thread, the vCPU's own, which has SIGRTMIN blocked. vcpu_kick makes
 * it return from any other thread, without a window in which the kick is lost: immediate_exit holds
 * off the next KVM_RUN, and the signal, which only KVM_RUN lets through, ends the one that runs.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <pthread.h>

#include "vmm/bus.h"
#include "vmm/kvm.h"

#define VCPU_LOG_SIZE    32 /* exits kept for a person, a power of two */
#define VCPU_REASONS_MAX 64 /* exit reasons counted one by one; linux/kvm.h, KVM_EXIT_* */

/* One exit from the guest. */
struct vcpu_exit {
    uint32_t reason; /* KVM_EXIT_* */
    uint8_t size;    /* KVM_EXIT_IO, KVM_EXIT_MMIO: bytes; the rest of the fields too */
    bool write;
    uint32_t count; /* of a string instruction */
    uint64_t addr;
    uint64_t value; /* the first one written or read */
};

/* Why a vCPU cannot go on. */
enum vcpu_end {
    VCPU_END_SHUTDOWN, /* triple fault */
    VCPU_END_REFUSED,  /* KVM cannot or will not run it */
    VCPU_END_HOST,     /* the host lacks what KVM needs to run it */
};

struct vcpu {
    unsigned index;
    int fd;
    struct kvm_run *run; /* shared with KVM, run_size bytes */
    int run_size;
    pthread_t thread; /* set by whoever starts it, before the first kick */
    const struct bus *pio, *mmio;

    /* The vCPU ended by itself; `text` says why. Called on its thread; vcpu_run then returns. */
    void (*ended)(struct vcpu *vcpu, enum vcpu_end end, const char *text);
    void *arg;

    struct vcpu_exit log[VCPU_LOG_SIZE];
    uint64_t exits; /* counter.h, as the next: all of them; the last is log[(exits - 1) % VCPU_LOG_SIZE] */
    uint64_t by_reason[VCPU_REASONS_MAX];
};

/* Create vCPU `index` of the VM. The caller sets pio, mmio, ended and arg. */
int vcpu_init(struct vcpu *vcpu, struct kvm *kvm, unsigned index, struct minivmm_error *err);
void vcpu_finish(struct vcpu *vcpu);

/* Run guest code until a kick. Returns false when the vCPU ended by itself. */
bool vcpu_run(struct vcpu *vcpu);

/* From any thread: make vcpu_run return soon, or at once when it is next called. */
void vcpu_kick(struct vcpu *vcpu);

/* For a person, while the vCPU does not run. */
void vcpu_print_log(const struct vcpu *vcpu, FILE *out);
const char *vcpu_reason_name(uint32_t reason);
bool vcpu_reason_known(uint32_t reason); /* it has a name of its own */

#endif
