/*
 * The registers of one or two bytes that make a PC out of a bus: power, keyboard controller, NMI
 * status, panic, debug exit, POST codes. Each writes through to one function of the machine.
 */
#ifndef DEVICES_PLATFORM_REGS_H
#define DEVICES_PLATFORM_REGS_H

#include <stdbool.h>

#include "vmm/bus.h"

/* What a guest can say through them. */
enum platform_event {
    PLATFORM_POWEROFF,     /* sleep control: sleep type S5 with the enable bit */
    PLATFORM_RESET,        /* reset register, or the keyboard controller's reset line */
    PLATFORM_PANIC,        /* panic register: the kernel panicked and nobody takes over */
    PLATFORM_PANIC_LOADED, /* panic register: it panicked and a crash kernel takes over */
    PLATFORM_DEBUG_EXIT,   /* debug exit register; value: what was written */
    PLATFORM_POST,         /* port 0x80; value: the byte */
};

/* `dev` of every one of these. Called on the vCPU that wrote. */
struct platform_regs {
    void (*event)(void *arg, enum platform_event event, uint32_t value);
    void *arg;
    /*
     * Atomic. Port 0x61 gives an error of the I/O channel as the reason for an NMI, until the guest
     * clears it; `reason_read`: it has looked meanwhile.
     */
    bool io_check, reason_read;
};

extern const struct bus_ops power_ops;         /* memory, layout.h's LAYOUT_POWER */
extern const struct bus_ops i8042_ops;         /* port 0x64 */
extern const struct bus_ops reset_control_ops; /* port 0xcf9 */
extern const struct bus_ops nmi_status_ops;    /* port 0x61 */
extern const struct bus_ops panic_ops;         /* the pvpanic protocol, misc/pvpanic.h */
extern const struct bus_ops debug_exit_ops;    /* 4 ports */
extern const struct bus_ops post_ops;          /* port 0x80 */

#endif
