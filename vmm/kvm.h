/*
 * /dev/kvm and one VM of it: thin wrappers that know the order of things and give errors a text.
 *
 * Order: all memory slots -> irqchip -> vCPUs -> irqfds -> ioeventfds, and no slot afterwards:
 * adding one once something sits on KVM's I/O bus waits for a grace period of several milliseconds.
 * Documentation: virt/kvm/api.rst of the kernel; linux/kvm.h is included by vmm's KVM files alone.
 */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include <pthread.h>

#include "vmm/guest_mem.h"
#include "vmm/layout.h"

struct kvm {
    int fd; /* /dev/kvm */
    int vm_fd;
    int run_size; /* bytes of a vCPU's shared area */
    uint32_t tsc_khz;
    bool tsc_deadline; /* KVM emulates the TSC deadline timer */

    pthread_mutex_t route_lock;
    struct kvm_msi_route {
        bool enabled;
        uint64_t address;
        uint32_t data;
    } routes[LAYOUT_IRQS]; /* what each line sends */
};

/*
 * Open `path` (/dev/kvm) and check the API version and every capability that minivmm uses. The text
 * of an error says what is the matter and what to do about it.
 */
int kvm_open(struct kvm *kvm, const char *path, struct minivmm_error *err);

/* Create the VM, give it `mem` and the split irqchip. */
int kvm_create_vm(struct kvm *kvm, const struct guest_mem *mem, struct minivmm_error *err);

/* Create vCPU `index`, whose APIC id is the same number; returns its descriptor. */
int kvm_create_vcpu(struct kvm *kvm, unsigned index, struct minivmm_error *err);

/* Let the eventfd `fd` raise line `line`: an edge for each signal. */
int kvm_add_irqfd(struct kvm *kvm, int fd, unsigned line, struct minivmm_error *err);

/*
 * From any thread, in a running VM too: not any more. When it returns, signals that came before
 * have been delivered, and later ones stay in `fd`. Waits for a grace period.
 */
void kvm_remove_irqfd(struct kvm *kvm, int fd, unsigned line);

/*
 * From any thread, in a running VM too: a 32-bit write of `value` to guest-physical address `gpa`,
 * or a 16-bit one to I/O port `port`, signals the eventfd `fd` without leaving the kernel, until
 * kvm_close. Negative errno.
 */
int kvm_add_doorbell(struct kvm *kvm, int fd, uint64_t gpa, uint32_t value);
int kvm_add_port_doorbell(struct kvm *kvm, int fd, uint16_t port, uint16_t value);

/* From any thread: the interrupt that a PCI device asks for by writing `data` to `address`. */
void kvm_send_msi(struct kvm *kvm, uint64_t address, uint32_t data);

/*
 * What line `line`, or number of layout.h's for messages, sends from now on; not `enabled`:
 * nothing. From any thread; waits for a grace period if it is something else than before. Returns a
 * negative errno when KVM refuses, and then it sends what it did.
 */
int kvm_set_route(struct kvm *kvm, unsigned line, const struct kvm_msi_route *route);

/* Close all. Harmless on a struct whose descriptors are -1, and when repeated. */
void kvm_close(struct kvm *kvm);

#endif
