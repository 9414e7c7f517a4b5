/*
 * The I/O APIC, in user space (Intel 82093AA datasheet, section 3; version 0x11).
 *
 * KVM keeps only the local APICs ("split irqchip"): a VM whose I/O APIC lives in the kernel takes
 * 14 ms longer to tear down, because its registers sit on KVM's I/O bus. All lines of this machine
 * are edge-triggered, so a pin is no more than a message: the redirection table is translated to
 * MSIs once, when the guest writes it, and no interrupt passes through here. Trigger mode and
 * polarity are kept for the guest to read and change nothing.
 */
#ifndef DEVICES_IOAPIC_H
#define DEVICES_IOAPIC_H

#include <pthread.h>
#include <stdbool.h>

#include "vmm/bus.h"
#include "vmm/layout.h"

#define IOAPIC_PINS LAYOUT_IRQ_LINES

/* What a pin sends. A masked pin sends nothing. */
struct ioapic_message {
    bool enabled;
    uint64_t address; /* as a PCI device would write it, Intel SDM volume 3, 11.11 */
    uint32_t data;
};

struct ioapic {
    pthread_mutex_t lock;
    uint8_t select; /* index register */
    uint8_t id;
    uint64_t redirection[IOAPIC_PINS];
    struct ioapic_message messages[IOAPIC_PINS];
    /* A pin's message changed. Called with the lock held, on the vCPU that wrote. */
    void (*changed)(void *arg, unsigned pin, const struct ioapic_message *message);
    void *arg;
};

/* All pins masked, as after reset. */
void ioapic_init(struct ioapic *ioapic,
                 void (*changed)(void *arg, unsigned pin, const struct ioapic_message *message),
                 void *arg);
void ioapic_finish(struct ioapic *ioapic);

/* The register page at LAYOUT_IOAPIC; dev is the struct ioapic. */
extern const struct bus_ops ioapic_bus_ops;

#endif
