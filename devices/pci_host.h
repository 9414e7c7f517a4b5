/*
 * A PCI bus of single-function devices, found by configuration mechanism #1: an address register at
 * port 0xcf8 and a window at 0xcfc (PCI Local Bus Specification 3.0, section 3.2.2.3.2). Device 0
 * is the host bridge itself, without which Linux does not take the mechanism for one.
 *
 * A PC's reset control register lies among these ports, at 0xcf9, and takes accesses of one byte;
 * they are handed on. Called on vCPU threads, several at once.
 */
#ifndef DEVICES_PCI_HOST_H
#define DEVICES_PCI_HOST_H

#include <pthread.h>
#include <stdbool.h>

#include "vmm/bus.h"

#define PCI_HOST_PORTS   8u /* from 0xcf8 on */
#define PCI_HOST_DEVICES 32u

/* A function's configuration space: aligned accesses of 1, 2 and 4 bytes below 256, several at
 * once. */
struct pci_function {
    uint32_t (*read)(void *arg, unsigned offset, unsigned size);
    void (*write)(void *arg, unsigned offset, unsigned size, uint32_t value);
    void *arg;
};

struct pci_host {
    pthread_mutex_t lock; /* guards the address */
    uint32_t address;
    struct pci_function functions[PCI_HOST_DEVICES];
    const struct bus_ops *reset; /* what is at 0xcf9 */
    void *reset_dev;
};

void pci_host_init(struct pci_host *host, const struct bus_ops *reset, void *reset_dev);
void pci_host_finish(struct pci_host *host); /* harmless on {0} */

/* Put a function at device number `device`, 1 to 31, before the guest runs. */
void pci_host_add(struct pci_host *host, unsigned device, const struct pci_function *function);

extern const struct bus_ops pci_host_ops; /* PCI_HOST_PORTS ports; dev is the struct pci_host */

#endif
