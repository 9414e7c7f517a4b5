/*
 * The interrupt messages of a PCI function: MSI-X (PCI Local Bus Specification 3.0, section 6.8.2;
 * linux/pci_regs.h). A table of vectors, each an address and a value to be written there, and a bit
 * for each that waits behind a mask.
 *
 * The table belongs to vCPU threads, msix_raise to any thread.
 */
#ifndef VIRTIO_MSIX_H
#define VIRTIO_MSIX_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define MSIX_VECTORS_MAX 128u
#define MSIX_ENTRY_SIZE  16u

struct msix {
    pthread_mutex_t lock; /* guards the rest */
    unsigned count;       /* vectors there are */
    bool enabled, masked; /* message control */
    uint32_t table[MSIX_VECTORS_MAX * MSIX_ENTRY_SIZE / sizeof(uint32_t)];
    uint64_t pending[MSIX_VECTORS_MAX / 64];
    /* Sends a message; called with the lock held, so it must not come back. */
    void (*send)(void *arg, uint64_t address, uint32_t data);
    void *arg;
    /* What vectors send may be different from now on; as `send`. NULL: nobody wants to know. */
    void (*changed)(void *arg);
    void *changed_arg;
};

/* All vectors masked, as after reset. `count` is at most MSIX_VECTORS_MAX. */
void msix_init(struct msix *msix, unsigned count,
               void (*send)(void *arg, uint64_t address, uint32_t data), void *arg);
void msix_finish(struct msix *msix); /* harmless on {0} */

/* The function's message control was written: both of its bits. */
void msix_control(struct msix *msix, bool enabled, bool masked);

/* What is pending is not sent any more. */
void msix_forget(struct msix *msix);

/* Something happened that vector `vector` tells of; none such, or MSI-X not enabled: nothing. */
void msix_raise(struct msix *msix, unsigned vector);

/* The same, and what such a vector sends now, false when nothing; with the lock held. */
void msix_raise_locked(struct msix *msix, unsigned vector);
bool msix_message(const struct msix *msix, unsigned vector, uint64_t *address, uint32_t *data);

/*
 * Accesses to the table and to the pending bits, which are read-only: aligned, of 4 or 8 bytes;
 * others read 0 and write nothing. Offsets count from the start of either.
 */
uint64_t msix_table_read(struct msix *msix, uint64_t offset, unsigned size);
void msix_table_write(struct msix *msix, uint64_t offset, unsigned size, uint64_t value);
uint64_t msix_pending_read(struct msix *msix, uint64_t offset, unsigned size);

#endif
