/*
 * The virtio transport over PCI: virtio 1.2, section 4.1; linux/virtio_pci.h, linux/pci_regs.h.
 *
 * One interrupt message a queue, and one for the device: a request costs its guest one exit, where
 * virtio-mmio takes three. Two base address registers, placed as a firmware would have done:
 *
 *   0  memory  0x0000  the registers that all devices have    0x1000  MSI-X table
 *              0x0040  interrupt status                       0x1800  MSI-X pending bits
 *              0x0100  configuration space of the device
 *   1  ports   0       notification: a queue's index, 16 bits. An access to a port is decoded by
 *                      the processor, one to memory by KVM's emulation of the instruction
 *
 * They answer only where they were placed: a guest may write other addresses and read them back.
 * There is no interrupt line; a driver without MSI-X gets no interrupts. A device works,
 * and sends messages, while the guest lets it master its bus. Called on vCPU threads, several at
 * once.
 */
#ifndef VIRTIO_PCI_H
#define VIRTIO_PCI_H

#include "virtio/msix.h"
#include "virtio/virtio.h"
#include "vmm/bus.h"

#define VIRTIO_PCI_MEMORY_SIZE 0x2000u
#define VIRTIO_PCI_PORTS       4u

/* As VIRTIO_MMIO_BUSY, for the same reason. */
#define VIRTIO_PCI_BUSY 64u

struct virtio_pci {
    struct virtio_dev *dev;
    pthread_mutex_t config_lock; /* guards the next; taken before virtio_lock and msix's */
    uint8_t config[256];         /* configuration space of the function */
    uint8_t writable[256];       /* which of its bits a guest may change */
    bool mapped[2];              /* atomic: base address registers that answer */
    uint32_t memory;             /* where the base address registers answer */
    uint32_t ports;
    unsigned msix_cap, window_cap; /* where these capabilities stand */

    uint32_t device_word; /* device_feature_select, driver_feature_select, queue_select */
    uint32_t driver_word;
    uint16_t queue;
    uint16_t queue_size[VIRTIO_QUEUES_MAX];   /* as the driver wrote them; all up to here under
                                                 virtio_lock */
    uint16_t config_vector;                   /* atomic, as the next */
    uint16_t queue_vector[VIRTIO_QUEUES_MAX]; /* VIRTIO_MSI_NO_VECTOR: tells nobody */
    uint8_t notified[VIRTIO_QUEUES_MAX];      /* atomic: times, up to VIRTIO_PCI_BUSY */
    struct msix msix;
    struct pci_calls *calls; /* pci_call.h; NULL: the datapath is in this process */

    /* As struct virtio_mmio's; NULL: everything stays as it is. */
    void (*busy)(void *arg, struct virtio_pci *pci, unsigned index);
    void *arg;
};

/*
 * Put a device behind the transport, its registers at `memory` and `ports`, which are multiples of
 * their sizes; `send` as msix_init's. The device interrupts by messages from then on.
 */
void virtio_pci_init(struct virtio_pci *pci, struct virtio_dev *dev, uint32_t memory,
                     uint32_t ports, void (*send)(void *arg, uint64_t address, uint32_t data),
                     void *arg);
void virtio_pci_finish(struct virtio_pci *pci); /* harmless on {0} */

/*
 * Configuration space: aligned accesses of 1, 2 and 4 bytes below 256, several at once. `arg` is
 * the virtio_pci. One through the window of 4.1.4.9 takes as long as the access it stands for.
 */
uint32_t virtio_pci_config_read(void *arg, unsigned offset, unsigned size);
void virtio_pci_config_write(void *arg, unsigned offset, unsigned size, uint32_t value);

/* The base address registers' ranges; dev is the struct virtio_pci. */
extern const struct bus_ops virtio_pci_memory_ops;
extern const struct bus_ops virtio_pci_port_ops;

#endif
