/*
 * What is at the other end of a PCI device's calls (pci_call.h): somebody outside this process who
 * signals them, and a KVM that turns the signals of wired ones into messages, at once and on the
 * signaller's thread, as its irqfds do. Both are played here. From any thread. No Criterion.
 */
#ifndef TESTS_UNIT_CALL_RIG_H
#define TESTS_UNIT_CALL_RIG_H

#include <pthread.h>

#include "virtio/pci_call.h"

#define CALL_RIG_WIRES 64u
#define CALL_RIG_SLOT  16u /* numbers of a slot */

struct call_rig {
    pthread_mutex_t lock;
    void (*send)(void *arg, uint64_t address, uint32_t data);
    void *arg;
    struct call_wire {
        bool wired;
        int fd;
        uint64_t address;
        uint32_t data;
    } wires[CALL_RIG_WIRES];
    int refusal;                      /* what `wire` answers instead, if not 0 */
    unsigned wired, unwired, refused; /* how often */
};

void call_rig_init(struct call_rig *calls, void (*send)(void *arg, uint64_t address, uint32_t data),
                   void *arg);
void call_rig_finish(struct call_rig *calls);

/* Give the calls of the device in `slot` this other end. */
void call_rig_add(struct call_rig *calls, unsigned slot, struct virtio_pci *pci);

/* As a datapath outside this process: there are used buffers. */
void call_rig_signal(struct call_rig *calls, unsigned slot, const struct virtio_queue *queue);

#endif
