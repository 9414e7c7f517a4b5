/*
 * An address space of devices: address ranges with handlers. A machine has two, I/O ports and MMIO.
 *
 * Built before the vCPUs run and fixed from then on, so lookups take no lock. Handlers are called
 * on vCPU threads, several at once: a device with state of its own locks it.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <stdint.h>

#define BUS_RANGES_MAX 48

/*
 * What a device does on an access. `offset` counts from the range's base; `size` is 1, 2, 4 or 8
 * and offset + size never passes the range's end. Values are little-endian numbers, the bytes above
 * `size` ignored on a read and zero on a write.
 */
struct bus_ops {
    uint64_t (*read)(void *dev, uint64_t offset, unsigned size);
    void (*write)(void *dev, uint64_t offset, unsigned size, uint64_t value);
};

struct bus_range {
    uint64_t base;
    uint64_t len;
    const struct bus_ops *ops;
    void *dev;
};

struct bus {
    struct bus_range ranges[BUS_RANGES_MAX]; /* by rising base, disjoint */
    unsigned count;
};

/* Put a device at [base, base + len). Overlap with another is a fault of the caller's. */
void bus_add(struct bus *bus, uint64_t base, uint64_t len, const struct bus_ops *ops, void *dev);

/*
 * Guest accesses. One that no range holds whole reads as all ones and writes nothing, as on a PC
 * where no device answers. `addr` may be anything; `size` is 1 to 8, and a device sees only 1, 2, 4
 * and 8.
 */
uint64_t bus_read(const struct bus *bus, uint64_t addr, unsigned size);
void bus_write(const struct bus *bus, uint64_t addr, unsigned size, uint64_t value);

#endif
