/*
 * The platform as an array of facts: what is where, with which interrupt. ACPI tables, device tree
 * and command line are three ways of printing this one array.
 */
#ifndef BOOT_PLATFORM_H
#define BOOT_PLATFORM_H

#include <stdint.h>

enum platform_kind {
    PLATFORM_COM1,    /* 16550A at I/O port `base` */
    PLATFORM_POWER,   /* sleep control, sleep status and reset registers in memory; the interrupt is
                         that of the power button */
    PLATFORM_PVPANIC, /* panic register at I/O port `base` */
    PLATFORM_VIRTIO,  /* a virtio-mmio slot that holds a device */
    PLATFORM_PCI,     /* a PCI bus with its devices' registers in memory from `base` on */
};

struct platform_fact {
    enum platform_kind kind;
    uint64_t base; /* guest-physical address or I/O port */
    uint64_t len;  /* bytes or ports */
    unsigned irq;  /* interrupt line (GSI), edge-triggered and active high; 0: none */
};

#endif
