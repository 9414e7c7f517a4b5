#include "virtio/pci_call.h"

#include <errno.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct pci_call {
    struct virtio_pci *pci;
    unsigned queue;  /* its index */
    unsigned number; /* of its wire */
    int fd;
    struct event_source source;

    /* Guarded by the lock of msix. */
    bool wired;
    uint64_t address; /* what it is wired to send */
    uint32_t data;
    unsigned signals; /* that came to the loop since it was wired, or was to be, last */
};

struct pci_calls {
    struct pci_call_wires wires;
    struct event_loop *loop;
    unsigned count;
    struct pci_call calls[VIRTIO_QUEUES_MAX];
};

static unsigned vector_of(const struct pci_call *call)
{
    return __atomic_load_n(&call->pci->queue_vector[call->queue], __ATOMIC_RELAXED);
}

/* With the lock held. */
static void unwire(const struct pci_calls *calls, struct pci_call *call)
{
    if (call->wired)
        calls->wires.unwire(calls->wires.arg, call->number, call->fd);
    call->wired = false;
}

/* With the lock held: no call stays wired to what its vector does not send any more. */
static void follow(void *arg)
{
    struct virtio_pci *pci = arg;

    for (unsigned i = 0; i < pci->calls->count; i++) {
        struct pci_call *call = &pci->calls->calls[i];
        uint64_t address;
        uint32_t data;
        if (call->wired && (!msix_message(&pci->msix, vector_of(call), &address, &data) ||
                            address != call->address || data != call->data))
            unwire(pci->calls, call);
    }
}

/* With the lock held: a signal came to the loop. A message that is masked now is wired later. */
static void wire_if_many(const struct pci_calls *calls, struct pci_call *call)
{
    if (call->signals < PCI_CALL_MANY)
        call->signals++;
    if (call->signals < PCI_CALL_MANY ||
        !msix_message(&call->pci->msix, vector_of(call), &call->address, &call->data))
        return;
    call->signals = 0;
    call->wired =
        calls->wires.wire(calls->wires.arg, call->number, call->fd, call->address, call->data) == 0;
}

/*
 * All of it under the lock: a reset, or a vector that is masked or changed meanwhile, is either
 * before it or behind it.
 */
static void handle_call(struct event_source *source, uint32_t events)
{
    struct pci_call *call = source->arg;
    struct virtio_pci *pci = call->pci;
    eventfd_t signals;
    (void)events;

    pthread_mutex_lock(&pci->msix.lock);
    if (!call->wired && eventfd_read(call->fd, &signals) == 0) {
        virtio_called(virtio_queue(pci->dev, call->queue));
        msix_raise_locked(&pci->msix, vector_of(call));
        wire_if_many(pci->calls, call);
    }
    pthread_mutex_unlock(&pci->msix.lock);
}

void pci_calls_follow(struct virtio_pci *pci)
{
    if (!pci->calls)
        return;
    pthread_mutex_lock(&pci->msix.lock);
    follow(pci);
    pthread_mutex_unlock(&pci->msix.lock);
}

void pci_calls_forget(struct virtio_pci *pci)
{
    eventfd_t signals;

    if (!pci->calls)
        return;
    pthread_mutex_lock(&pci->msix.lock);
    for (unsigned i = 0; i < pci->calls->count; i++) {
        struct pci_call *call = &pci->calls->calls[i];
        unwire(pci->calls, call);
        eventfd_read(call->fd, &signals);
    }
    virtio_acknowledge(pci->dev, VIRTIO_MMIO_INT_VRING); /* the loop may have set it just now */
    pthread_mutex_unlock(&pci->msix.lock);
}

/*
 * Edge-triggered, so that an eventfd that is wired, and that nobody reads, does not wake the loop
 * again and again.
 */
static int add_call(struct virtio_pci *pci, unsigned first)
{
    struct pci_calls *calls = pci->calls;
    unsigned index = calls->count;
    struct pci_call *call = &calls->calls[index];

    *call = (struct pci_call){.pci = pci, .queue = index, .number = first + index};
    call->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (call->fd < 0)
        return -errno;
    calls->count++;
    call->source = (struct event_source){.fd = call->fd, .ready = handle_call, .arg = call};
    virtio_queue(pci->dev, index)->call = call->fd;
    return event_loop_add(calls->loop, &call->source, EPOLLIN | EPOLLET);
}

int pci_calls_init(struct virtio_pci *pci, const struct pci_call_wires *wires, unsigned first)
{
    int rc = 0;

    pci->calls = calloc(1, sizeof(*pci->calls));
    if (!pci->calls)
        return -ENOMEM;
    pci->calls->wires = *wires;
    pci->calls->loop = pci->dev->loop;
    for (unsigned i = 0; rc == 0 && i < pci->dev->queue_count; i++)
        rc = add_call(pci, first);
    pci->msix.changed = follow;
    pci->msix.changed_arg = pci;
    return rc;
}

void pci_calls_finish(struct virtio_pci *pci)
{
    for (unsigned i = 0; pci->calls && i < pci->calls->count; i++) {
        event_loop_remove(pci->calls->loop, &pci->calls->calls[i].source);
        close(pci->calls->calls[i].fd);
    }
    free(pci->calls);
    pci->calls = NULL;
}
