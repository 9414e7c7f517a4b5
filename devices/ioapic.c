#include "devices/ioapic.h"

#include <string.h>

/* Registers in memory, and behind the index register (82093AA, tables 1 and 2). */
enum {
    IOREGSEL = 0x00,
    IOWIN = 0x10,

    IOAPICID = 0x00,
    IOAPICVER = 0x01,
    IOAPICARB = 0x02,
    IOREDTBL = 0x10,
};

#define VERSION 0x11u

/* Fields of a redirection entry (82093AA, section 3.2.4). */
#define RTE_VECTOR(e)        ((uint32_t)(e)&0xff)
#define RTE_DELIVERY_MODE(e) ((uint32_t)((e) >> 8) & 7)
#define RTE_LOGICAL(e)       ((uint32_t)((e) >> 11) & 1)
#define RTE_MASKED           (1ull << 16)
#define RTE_DESTINATION(e)   ((uint64_t)(e) >> 56)
/* Delivery status and remote IRR belong to the chip; edge interrupts leave both clear. */
#define RTE_READ_ONLY (1ull << 12 | 1ull << 14)

#define MSI_ADDRESS 0xfee00000ull

static struct ioapic_message translate(uint64_t entry)
{
    if (entry & RTE_MASKED)
        return (struct ioapic_message){0};
    return (struct ioapic_message){
        .enabled = true,
        .address = MSI_ADDRESS | RTE_DESTINATION(entry) << 12 | RTE_LOGICAL(entry) << 2,
        .data = RTE_DELIVERY_MODE(entry) << 8 | RTE_VECTOR(entry),
    };
}

static bool same(const struct ioapic_message *a, const struct ioapic_message *b)
{
    return a->enabled == b->enabled && a->address == b->address && a->data == b->data;
}

static void set_entry(struct ioapic *ioapic, unsigned pin, uint64_t entry)
{
    ioapic->redirection[pin] = entry & ~RTE_READ_ONLY;
    struct ioapic_message message = translate(entry);
    if (same(&message, &ioapic->messages[pin]))
        return;
    ioapic->messages[pin] = message;
    ioapic->changed(ioapic->arg, pin, &message);
}

static uint32_t read_window(const struct ioapic *ioapic)
{
    if (ioapic->select == IOAPICID || ioapic->select == IOAPICARB)
        return (uint32_t)ioapic->id << 24;
    if (ioapic->select == IOAPICVER)
        return VERSION | (IOAPIC_PINS - 1) << 16;

    unsigned pin = (ioapic->select - IOREDTBL) / 2u;
    if (ioapic->select < IOREDTBL || pin >= IOAPIC_PINS)
        return UINT32_MAX;
    return (uint32_t)(ioapic->redirection[pin] >> (ioapic->select & 1 ? 32 : 0));
}

static void write_window(struct ioapic *ioapic, uint32_t value)
{
    if (ioapic->select == IOAPICID)
        ioapic->id = (value >> 24) & 0x0f;

    unsigned pin = (ioapic->select - IOREDTBL) / 2u;
    if (ioapic->select < IOREDTBL || pin >= IOAPIC_PINS)
        return;
    uint64_t entry = ioapic->redirection[pin];
    if (ioapic->select & 1)
        entry = (entry & UINT32_MAX) | (uint64_t)value << 32;
    else
        entry = (entry & ~(uint64_t)UINT32_MAX) | value;
    set_entry(ioapic, pin, entry);
}

static uint64_t ioapic_read(void *dev, uint64_t offset, unsigned size)
{
    struct ioapic *ioapic = dev;
    uint64_t value = 0;

    if (size > 4)
        return 0;
    pthread_mutex_lock(&ioapic->lock);
    if (offset == IOREGSEL)
        value = ioapic->select;
    else if (offset == IOWIN)
        value = read_window(ioapic);
    pthread_mutex_unlock(&ioapic->lock);
    return value;
}

static void ioapic_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *ioapic = dev;

    if (size > 4 || (offset == IOWIN && size != 4))
        return; /* the window takes whole double words only (82093AA, section 3.1.2) */
    pthread_mutex_lock(&ioapic->lock);
    if (offset == IOREGSEL)
        ioapic->select = (uint8_t)value;
    else if (offset == IOWIN)
        write_window(ioapic, (uint32_t)value);
    pthread_mutex_unlock(&ioapic->lock);
}

const struct bus_ops ioapic_bus_ops = {.read = ioapic_read, .write = ioapic_write};

void ioapic_init(struct ioapic *ioapic,
                 void (*changed)(void *arg, unsigned pin, const struct ioapic_message *message),
                 void *arg)
{
    memset(ioapic, 0, sizeof(*ioapic));
    pthread_mutex_init(&ioapic->lock, NULL);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        ioapic->redirection[pin] = RTE_MASKED;
    ioapic->changed = changed;
    ioapic->arg = arg;
}

void ioapic_finish(struct ioapic *ioapic)
{
    pthread_mutex_destroy(&ioapic->lock);
}
