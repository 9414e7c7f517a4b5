/*
 * The two halves of a virtio PCI function: its configuration space (pci_config.c), and what its
 * base address registers stand for (pci.c).
 */
#ifndef VIRTIO_PCI_PRIVATE_H
#define VIRTIO_PCI_PRIVATE_H

#include "virtio/pci.h"

#define MEMORY_BAR 0u
#define PORT_BAR   1u

/* In the memory that base address register 0 stands for. */
#define COMMON      0x0000u
#define COMMON_SIZE 0x0040u
#define ISR         0x0040u
#define ISR_SIZE    0x0004u
#define DEVICE      0x0100u
#define DEVICE_SIZE 0x0f00u
#define TABLE       0x1000u
#define PENDING     0x1800u

/* The configuration space as after power-on, but with the base address registers in place. */
void pci_config_init(struct virtio_pci *pci);

/* Accesses to the registers, whether or not the guest has them mapped. Without a lock held. */
uint64_t pci_memory_read(struct virtio_pci *pci, uint64_t offset, unsigned size);
void pci_memory_write(struct virtio_pci *pci, uint64_t offset, unsigned size, uint64_t value);
void pci_port_write(struct virtio_pci *pci, uint64_t offset, unsigned size, uint64_t value);

#endif
