#include "tests/unit/call_rig.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "tests/must.h"

static int wire(void *arg, unsigned number, int fd, uint64_t address, uint32_t data)
{
    struct call_rig *calls = arg;
    eventfd_t waiting;
    int rc = 0;

    pthread_mutex_lock(&calls->lock);
    struct call_wire *to = &calls->wires[number];
    MUST(number < CALL_RIG_WIRES && !to->wired);
    if (calls->refusal) {
        calls->refused++;
        rc = calls->refusal;
    } else {
        *to = (struct call_wire){.wired = true, .fd = fd, .address = address, .data = data};
        calls->wired++;
        if (eventfd_read(fd, &waiting) == 0)
            calls->send(calls->arg, address, data);
    }
    pthread_mutex_unlock(&calls->lock);
    return rc;
}

static void unwire(void *arg, unsigned number, int fd)
{
    struct call_rig *calls = arg;

    pthread_mutex_lock(&calls->lock);
    MUST(number < CALL_RIG_WIRES && calls->wires[number].wired && calls->wires[number].fd == fd);
    calls->wires[number].wired = false;
    calls->unwired++;
    pthread_mutex_unlock(&calls->lock);
}

void call_rig_init(struct call_rig *calls, void (*send)(void *arg, uint64_t address, uint32_t data),
                   void *arg)
{
    *calls = (struct call_rig){.lock = PTHREAD_MUTEX_INITIALIZER, .send = send, .arg = arg};
}

void call_rig_finish(struct call_rig *calls)
{
    if (calls->send)
        pthread_mutex_destroy(&calls->lock);
    calls->send = NULL;
}

void call_rig_add(struct call_rig *calls, unsigned slot, struct virtio_pci *pci)
{
    const struct pci_call_wires wires = {.wire = wire, .unwire = unwire, .arg = calls};
    MUST(pci_calls_init(pci, &wires, slot * CALL_RIG_SLOT) == 0);
}

void call_rig_signal(struct call_rig *calls, unsigned slot, const struct virtio_queue *queue)
{
    pthread_mutex_lock(&calls->lock);
    const struct call_wire *to = &calls->wires[slot * CALL_RIG_SLOT + queue->index];
    if (to->wired)
        calls->send(calls->arg, to->address, to->data);
    else
        eventfd_write(queue->call, 1);
    pthread_mutex_unlock(&calls->lock);
}
