/*
 * A guest's driver of a virtio device (virtio 1.2, sections 3.1 and 4.2.3), over virtio-mmio or, by
 * the same names of registers, over PCI (pci_driver.h): it finds a device, negotiates, sets queues
 * up, notifies and takes interrupts, and speaks only through guest memory and bus accesses. What a
 * register must hold is for the tests to say; here a wrong answer shows as `false`.
 *
 * The device's event loop runs on a thread of its own, or nowhere: then each wait here calls its
 * handlers, and a test has the same order every time. No Criterion: other programs use it too.
 */
#ifndef TESTS_UNIT_VIRTIO_DRIVER_H
#define TESTS_UNIT_VIRTIO_DRIVER_H

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include "tests/unit/fake_driver.h"
#include "tests/unit/pci_driver.h"
#include "vmm/bus.h"
#include "vmm/event_loop.h"

#define VIRTIO_DRIVER_QUEUES 16u

/* Status after each step of 3.1.1. */
#define STATUS_ACKNOWLEDGE VIRTIO_CONFIG_S_ACKNOWLEDGE
#define STATUS_DRIVER      (STATUS_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
#define STATUS_FEATURES_OK (STATUS_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define STATUS_DRIVER_OK   (STATUS_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK)
#define STATUS_NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

#define FEATURE(bit) (1ull << (bit))

struct virtio_driver {
    /* Its wires, filled in by the test. */
    const struct bus *bus;
    const struct guest_mem *mem;
    struct event_loop *loop;
    int call;       /* the interrupt line, or message: what signals this eventfd */
    uint64_t rings; /* guest memory for the queues, from here on */

    struct pci_driver *pci; /* NULL: virtio-mmio; the test's */

    uint64_t base; /* of the registers */
    uint64_t features;
    unsigned queue_count; /* that are set up */
    struct fake_driver queues[VIRTIO_DRIVER_QUEUES];
    unsigned interrupts; /* taken */
    uint32_t reasons;    /* all that interrupt statuses have said since the last start */
};

/* Look at [first, first + slots * 0x1000) for a device of this kind; false when there is none. */
bool virtio_driver_find(struct virtio_driver *v, uint64_t first, unsigned slots, uint32_t id);

uint32_t virtio_driver_read(const struct virtio_driver *v, unsigned offset);
void virtio_driver_write(const struct virtio_driver *v, unsigned offset, uint32_t value);
uint64_t virtio_driver_config(const struct virtio_driver *v, unsigned offset, unsigned size);
void virtio_driver_set_config(const struct virtio_driver *v, unsigned offset, unsigned size,
                              uint32_t value);
uint64_t virtio_driver_offered(const struct virtio_driver *v);

/* Reset, and accept those of `wanted` that are offered; false when the device refuses. */
bool virtio_driver_negotiate(struct virtio_driver *v, uint64_t wanted);

/* Write what the driver accepts, whatever is offered. */
void virtio_driver_accept(const struct virtio_driver *v, uint64_t features);

/*
 * Set a queue up with `size` entries, 0: as many as it takes; false when it does not get ready.
 * Queues are set up from 0 on.
 */
bool virtio_driver_queue(struct virtio_driver *v, unsigned index, uint32_t size);

/* Write a queue's size and addresses, and QueueReady; returns what QueueReady reads then. */
uint32_t virtio_driver_set_queue(const struct virtio_driver *v, unsigned index,
                                 const struct virtq_config *config);

/* All of it: negotiate, every queue there is, DRIVER_OK. */
bool virtio_driver_start(struct virtio_driver *v, uint64_t wanted, uint32_t size);

/* Write 0 to the status, and wait until it reads 0 as 3.1.1 says; the queues are forgotten. */
void virtio_driver_reset(struct virtio_driver *v);
void virtio_driver_finish(struct virtio_driver *v); /* harmless when repeated */

/* Notify the device of a queue: always; and when the device asks for it. */
void virtio_driver_notify(const struct virtio_driver *v, uint32_t index);
void virtio_driver_kick(struct virtio_driver *v, unsigned index);

/*
 * The interrupt handler: has the line been signalled? Acknowledges all that the interrupt status
 * says, which is added to `reasons`.
 */
bool virtio_driver_interrupted(struct virtio_driver *v);

/*
 * The next used entry, waited for as a driver does: asleep until an interrupt. False when none
 * comes within VIRTIO_DRIVER_MS.
 */
#define VIRTIO_DRIVER_MS 50000
bool virtio_driver_wait(struct virtio_driver *v, unsigned index, struct vring_used_elem *element);

/* Wait for an interrupt; false as above. */
bool virtio_driver_wait_interrupt(struct virtio_driver *v);

/*
 * Let the device do what it can do at once: everything that was notified before has been seen.
 * With a loop of its own thread, by way of that thread.
 */
void virtio_driver_settle(const struct virtio_driver *v);

/* A request on a queue from start to end: send, kick, wait. False when it does not complete. */
bool virtio_driver_transact(struct virtio_driver *v, unsigned index, const struct piece *pieces,
                            unsigned count, struct vring_used_elem *element);

#endif
