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
 * After so many notifications that left the guest for a queue, they are worth a doorbell in the
 * kernel. Not at once: a doorbell makes the VM's end take 14 ms longer, which a disk that is looked
 * at once and never used would pay for nothing.
 */
#define VIRTIO_MMIO_BUSY 64u

struct virtio_mmio {
    struct virtio_dev *dev;
    uint32_t device_word; /* DeviceFeaturesSel, DriverFeaturesSel, QueueSel */
    uint32_t driver_word;
    uint32_t queue;
    uint8_t notified[VIRTIO_QUEUES_MAX]; /* atomic: times, up to VIRTIO_MMIO_BUSY */

    /*
     * Queue `index` is busy: let writes of its index to register QueueNotify signal its kick
     * without leaving the kernel, and let those of VIRTIO_MMIO_INT_VRING to InterruptACK end
     * there, with virtio_acknowledged. Called once a queue, on a vCPU thread, without a lock. NULL:
     * everything stays as it is.
     */
    void (*busy)(void *arg, struct virtio_mmio *mmio, unsigned index);
    void *arg;
};

extern const struct bus_ops virtio_mmio_ops; /* dev is the struct virtio_mmio */

#endif
