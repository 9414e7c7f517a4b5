/*
 * A guest's driver of a virtio PCI function (virtio 1.2, section 4.1): it finds one on the bus,
 * reads its capabilities, and speaks only through bus accesses.
 *
 * virtio_driver uses it in place of a register page: it names registers by VIRTIO_MMIO_*, and they
 * are translated here. What interrupts, acknowledges and assigns vectors differs between the two:
 *   - the queue's vector is written before it is enabled, that of the device with each status;
 *   - reading the interrupt status clears it, so what was read is kept until it is acknowledged.
 */
#ifndef TESTS_UNIT_PCI_DRIVER_H
#define TESTS_UNIT_PCI_DRIVER_H

#include <linux/pci_regs.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_pci.h>
#include <stdbool.h>

#include "vmm/bus.h"

#define PCI_ADDRESS_PORT 0xcf8u
#define PCI_DATA_PORT    0xcfcu
#define MESSAGE_ADDRESS  0xfee00000u /* that this driver has messages sent to */

struct pci_driver {
    const struct bus *mmio, *pio; /* filled in by the test */

    unsigned device; /* its number on the bus */
    uint64_t common, isr, config, table, pending;
    uint16_t notify;   /* port */
    unsigned vectors;  /* that MSI-X has */
    unsigned msix_cap; /* where these capabilities are */
    unsigned window_cap;
    uint32_t reasons; /* of interrupts, not acknowledged yet */
};

/* Configuration accesses, `size` 1, 2 or 4. */
uint32_t pci_config_read(const struct bus *pio, unsigned device, unsigned offset, unsigned size);
void pci_config_write(const struct bus *pio, unsigned device, unsigned offset, unsigned size,
                      uint32_t value);

/*
 * Find the function of this virtio device id, and everything its capabilities say. False when there
 * is none, or a structure that Linux does not do without.
 */
bool pci_driver_find(struct pci_driver *p, uint32_t id);

/*
 * Where a structure is: its capability's place in configuration space, or 0; then the address it
 * stands for, base address register and offset.
 */
unsigned pci_driver_cap(const struct pci_driver *p, uint8_t type);
uint64_t pci_driver_place(const struct pci_driver *p, unsigned cap);

/* Vector `vector` sends this value, unmasked; MSI-X is enabled. */
void pci_driver_enable_vectors(const struct pci_driver *p);
uint32_t pci_driver_message(const struct pci_driver *p, unsigned vector);
void pci_driver_mask(const struct pci_driver *p, unsigned vector, bool mask);
void pci_driver_control(const struct pci_driver *p, uint16_t flags); /* PCI_MSIX_FLAGS_* */

/* The registers all devices have, by VIRTIO_PCI_COMMON_*. */
uint64_t pci_common_read(const struct pci_driver *p, unsigned offset, unsigned size);
void pci_common_write(const struct pci_driver *p, unsigned offset, unsigned size, uint64_t value);

/* For virtio_driver: registers by VIRTIO_MMIO_*. */
uint32_t pci_driver_read(struct pci_driver *p, unsigned reg);
void pci_driver_write(struct pci_driver *p, unsigned reg, uint32_t value);

#endif
