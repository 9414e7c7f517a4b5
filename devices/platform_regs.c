#include "devices/platform_regs.h"

#include <misc/pvpanic.h>

#include "vmm/layout.h"

#define I8042_PULSE_RESET 0xfe
#define I8042_IBF         0x02

/* The reset control register of PC chipsets: bit 2 starts a reset, the others choose its kind. */
#define RESET_CONTROL_START 0x04

/* Bit 5 of port 0x61: output of timer 2, which delay loops wait to see high. */
#define NMI_STATUS_TIMER2 0x20
#define NMI_STATUS_IOCHK  0x40 /* an error of the I/O channel */
#define NMI_CLEAR_IOCHK   0x08 /* written: clear and disable it */

static void tell(const struct platform_regs *regs, enum platform_event event, uint64_t value)
{
    regs->event(regs->arg, event, (uint32_t)value);
}

static uint64_t read_zero(void *dev, uint64_t offset, unsigned size)
{
    (void)dev, (void)offset, (void)size;
    return 0;
}

static void power_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    if (size != 1)
        return;
    if (offset == POWER_SLEEP_CONTROL && value == POWER_SLEEP_S5)
        tell(dev, PLATFORM_POWEROFF, 0);
    else if (offset == POWER_RESET && value == POWER_RESET_VALUE)
        tell(dev, PLATFORM_RESET, 0);
}

/* The sleep status reads 0: the machine never wakes, because it never sleeps. */
const struct bus_ops power_ops = {.read = read_zero, .write = power_write};

/*
 * There is no keyboard. Status with every bit set but "input buffer full" makes a driver that
 * probes give up at once (data that never ends), and lets a reboot, which waits for that one bit,
 * pass at once.
 */
static uint64_t i8042_read(void *dev, uint64_t offset, unsigned size)
{
    (void)dev, (void)offset, (void)size;
    return UINT64_MAX & ~(uint64_t)I8042_IBF;
}

static void i8042_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset;
    if (size == 1 && value == I8042_PULSE_RESET)
        tell(dev, PLATFORM_RESET, 0);
}

const struct bus_ops i8042_ops = {.read = i8042_read, .write = i8042_write};

static void reset_control_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset;
    if (size == 1 && (value & RESET_CONTROL_START))
        tell(dev, PLATFORM_RESET, 0);
}

const struct bus_ops reset_control_ops = {.read = read_zero, .write = reset_control_write};

static uint64_t nmi_status_read(void *dev, uint64_t offset, unsigned size)
{
    struct platform_regs *regs = dev;
    (void)offset, (void)size;
    if (!__atomic_load_n(&regs->io_check, __ATOMIC_RELAXED))
        return NMI_STATUS_TIMER2;
    __atomic_store_n(&regs->reason_read, true, __ATOMIC_RELAXED);
    return NMI_STATUS_TIMER2 | NMI_STATUS_IOCHK;
}

static void nmi_status_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct platform_regs *regs = dev;
    (void)offset, (void)size;
    if (value & NMI_CLEAR_IOCHK)
        __atomic_store_n(&regs->io_check, false, __ATOMIC_RELAXED);
}

const struct bus_ops nmi_status_ops = {.read = nmi_status_read, .write = nmi_status_write};

static uint64_t panic_read(void *dev, uint64_t offset, unsigned size)
{
    (void)dev, (void)offset, (void)size;
    return PVPANIC_PANICKED | PVPANIC_CRASH_LOADED;
}

static void panic_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size;
    if (value & PVPANIC_PANICKED)
        tell(dev, PLATFORM_PANIC, 0);
    else if (value & PVPANIC_CRASH_LOADED)
        tell(dev, PLATFORM_PANIC_LOADED, 0);
}

const struct bus_ops panic_ops = {.read = panic_read, .write = panic_write};

static void debug_exit_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    (void)size;
    if (offset == 0)
        tell(dev, PLATFORM_DEBUG_EXIT, value);
}

const struct bus_ops debug_exit_ops = {.read = read_zero, .write = debug_exit_write};

static void post_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    (void)offset, (void)size;
    tell(dev, PLATFORM_POST, value & 0xff);
}

const struct bus_ops post_ops = {.read = read_zero, .write = post_write};
