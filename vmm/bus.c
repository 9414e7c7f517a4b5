#include "vmm/bus.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "vmm/checked.h"

void bus_add(struct bus *bus, uint64_t base, uint64_t len, const struct bus_ops *ops, void *dev)
{
    assert(bus->count < BUS_RANGES_MAX && len > 0 && base + len > base);

    unsigned at = 0;
    while (at < bus->count && bus->ranges[at].base < base)
        at++;
    assert(at == 0 || bus->ranges[at - 1].base + bus->ranges[at - 1].len <= base);
    assert(at == bus->count || base + len <= bus->ranges[at].base);

    memmove(&bus->ranges[at + 1], &bus->ranges[at], (bus->count - at) * sizeof(bus->ranges[0]));
    bus->ranges[at] = (struct bus_range){.base = base, .len = len, .ops = ops, .dev = dev};
    bus->count++;
}

/* The range that holds all of [addr, addr + size), or NULL. */
static const struct bus_range *find(const struct bus *bus, uint64_t addr, unsigned size)
{
    if (size & (size - 1)) /* a part of an access across a page */
        return NULL;
    unsigned low = 0, high = bus->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct bus_range *range = &bus->ranges[middle];
        if (addr < range->base)
            high = middle;
        else if (addr - range->base >= range->len)
            low = middle + 1;
        else
            return range_within(addr - range->base, size, range->len) ? range : NULL;
    }
    return NULL;
}

static uint64_t ones(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
}

uint64_t bus_read(const struct bus *bus, uint64_t addr, unsigned size)
{
    const struct bus_range *range = find(bus, addr, size);
    if (!range)
        return ones(size);
    return range->ops->read(range->dev, addr - range->base, size) & ones(size);
}

void bus_write(const struct bus *bus, uint64_t addr, unsigned size, uint64_t value)
{
    const struct bus_range *range = find(bus, addr, size);
    if (range)
        range->ops->write(range->dev, addr - range->base, size, value & ones(size));
}
