/*
 * The interrupts of a datapath outside this process, over PCI: virtio 1.2, section 4.1.5.1.2.
 *
 * Such a datapath knows nothing of vectors: it signals an eventfd, the queue's `call`. What becomes
 * of a signal is the guest's to choose at any time: a message, a bit that waits behind a mask, or
 * nothing. There are two ways for it:
 *
 *   by the loop  which reads the eventfd and raises the queue's vector as any device does (msix.h):
 *                right in all cases, at the price of a thread that wakes up for each interrupt
 *   wired        the kernel turns the signal into the message, and no thread of ours knows of it
 *
 * A call starts by the loop, is wired once PCI_CALL_MANY signals have come that way, and is the
 * loop's again as soon as its vector sends something else, or nothing: before the guest's write has
 * returned. Signals are lost on neither step, for the eventfd keeps them.
 *
 * Why not wired from the start: each step may wait for a grace period of the kernel's. So the guest
 * has to take PCI_CALL_MANY interrupts for each, and one that writes its vectors a million times
 * writes to memory; and a VM whose network does little has none of them in its start-up.
 *
 * Before Linux 5.11 an eventfd wakes the loop even though it is wired; the loop then leaves it
 * alone.
 */
#ifndef VIRTIO_PCI_CALL_H
#define VIRTIO_PCI_CALL_H

#include "virtio/pci.h"

#define PCI_CALL_MANY 64u

/* Who can wire. Called with the lock of msix held, on vCPU threads and on the loop's. */
struct pci_call_wires {
    /*
     * From now on each signal of the eventfd `fd`, and one that is in it already, sends this
     * message. `number` tells the calls of a VM apart. Negative errno: it stays with the loop.
     */
    int (*wire)(void *arg, unsigned number, int fd, uint64_t address, uint32_t data);
    /* No more. When it returns no message is under way, and signals stay in `fd`. */
    void (*unwire)(void *arg, unsigned number, int fd);
    void *arg;
};

/*
 * Give each queue of a device whose datapath is external a call of its own, numbered from `first`
 * on; before its loop runs. `wires` is copied. Negative errno; then virtio_pci_finish cleans up.
 */
int pci_calls_init(struct virtio_pci *pci, const struct pci_call_wires *wires, unsigned first);

/* The loop has stopped, and so has the datapath. What is wired stays so until the VM's end. */
void pci_calls_finish(struct virtio_pci *pci);

/* For pci.c, without the lock of msix. Harmless for a device that has no calls. */

/* A queue may have another vector. */
void pci_calls_follow(struct virtio_pci *pci);

/* The device is reset, its datapath stopped: nobody is told of what was signalled before. */
void pci_calls_forget(struct virtio_pci *pci);

#endif
