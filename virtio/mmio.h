/*
 * The virtio-mmio transport, version 2: virtio 1.2, section 4.2; linux/virtio_mmio.h.
 *
 * A page of registers in front of one device. Control registers take aligned 32-bit accesses, the
 * configuration space those of 1, 2 and 4 bytes; anything else reads 0 and changes nothing. Called
 * on vCPU threads, several at once.
 */
#ifndef VIRTIO_MMIO_H
#define VIRTIO_MMIO_H

#include "virtio/virtio.h"
#include "vmm/bus.h"

#define VIRTIO_MMIO_SIZE 0x1000u

/*
 * After so many notifications of a queue that left the guest only to be handed on, they are worth a
 * doorbell in the kernel. Not at once: it makes the VM's end take 14 ms longer, which a disk that
 * is hardly used would pay for nothing. And not for those that are served on the spot, which costs
 * less than waking another thread by a doorbell (local.h).
 */
#define VIRTIO_MMIO_BUSY            64u
#define VIRTIO_MMIO_BUSY_INTERRUPTS 1024u

struct virtio_mmio {
    struct virtio_dev *dev;
    uint32_t device_word; /* DeviceFeaturesSel, DriverFeaturesSel, QueueSel */
    uint32_t driver_word;
    uint32_t queue;
    uint8_t notified[VIRTIO_QUEUES_MAX]; /* atomic: times, up to VIRTIO_MMIO_BUSY */
    uint32_t acknowledged;               /* atomic: times, up to VIRTIO_MMIO_BUSY_INTERRUPTS */

    /*
     * Called once a queue, and once a device, on a vCPU thread, without a lock. NULL: everything
     * stays as it is.
     * Queue `index` is busy: let writes of its index to register QueueNotify signal its kick
     * without leaving the kernel.
     */
    void (*busy)(void *arg, struct virtio_mmio *mmio, unsigned index);
    /*
     * Interrupts are many: let writes of VIRTIO_MMIO_INT_VRING to InterruptACK end in the kernel,
     * and say so with virtio_acknowledged.
     */
    void (*interrupted)(void *arg, struct virtio_mmio *mmio);
    void *arg;
};

extern const struct bus_ops virtio_mmio_ops; /* dev is the struct virtio_mmio */

#endif
