#include "virtio/msix.h"

#include <linux/pci_regs.h>
#include <string.h>

#define WORDS (MSIX_ENTRY_SIZE / (unsigned)sizeof(uint32_t)) /* of an entry */

enum {
    ENTRY_LOW = PCI_MSIX_ENTRY_LOWER_ADDR / sizeof(uint32_t),
    ENTRY_HIGH = PCI_MSIX_ENTRY_UPPER_ADDR / sizeof(uint32_t),
    ENTRY_DATA = PCI_MSIX_ENTRY_DATA / sizeof(uint32_t),
    ENTRY_CONTROL = PCI_MSIX_ENTRY_VECTOR_CTRL / sizeof(uint32_t),
};

void msix_init(struct msix *msix, unsigned count,
               void (*send)(void *arg, uint64_t address, uint32_t data), void *arg)
{
    *msix =
        (struct msix){.lock = PTHREAD_MUTEX_INITIALIZER, .count = count, .send = send, .arg = arg};
    for (unsigned i = 0; i < count; i++)
        msix->table[i * WORDS + ENTRY_CONTROL] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
}

void msix_finish(struct msix *msix)
{
    if (msix->send)
        pthread_mutex_destroy(&msix->lock);
    msix->send = NULL;
}

bool msix_message(const struct msix *msix, unsigned vector, uint64_t *address, uint32_t *data)
{
    if (vector >= msix->count || !msix->enabled || msix->masked)
        return false;
    const uint32_t *entry = &msix->table[vector * WORDS];
    if (entry[ENTRY_CONTROL] & PCI_MSIX_ENTRY_CTRL_MASKBIT)
        return false;
    *address = (uint64_t)entry[ENTRY_HIGH] << 32 | entry[ENTRY_LOW];
    *data = entry[ENTRY_DATA];
    return true;
}

/* Send what a vector has pending, if it may. With the lock held. */
static void deliver(struct msix *msix, unsigned vector)
{
    uint64_t bit = 1ull << vector % 64, address;
    uint32_t data;

    if (!(msix->pending[vector / 64] & bit) || !msix_message(msix, vector, &address, &data))
        return;
    msix->pending[vector / 64] &= ~bit;
    msix->send(msix->arg, address, data);
}

static void tell_changed(const struct msix *msix)
{
    if (msix->changed)
        msix->changed(msix->changed_arg);
}

void msix_control(struct msix *msix, bool enabled, bool masked)
{
    pthread_mutex_lock(&msix->lock);
    msix->enabled = enabled;
    msix->masked = masked;
    if (!enabled)
        memset(msix->pending, 0, sizeof(msix->pending));
    tell_changed(msix);
    for (unsigned i = 0; i < msix->count; i++)
        deliver(msix, i);
    pthread_mutex_unlock(&msix->lock);
}

void msix_forget(struct msix *msix)
{
    pthread_mutex_lock(&msix->lock);
    memset(msix->pending, 0, sizeof(msix->pending));
    pthread_mutex_unlock(&msix->lock);
}

void msix_raise_locked(struct msix *msix, unsigned vector)
{
    if (vector < msix->count && msix->enabled) {
        msix->pending[vector / 64] |= 1ull << vector % 64;
        deliver(msix, vector);
    }
}

void msix_raise(struct msix *msix, unsigned vector)
{
    pthread_mutex_lock(&msix->lock);
    msix_raise_locked(msix, vector);
    pthread_mutex_unlock(&msix->lock);
}

/* Is it an access to [0, length) that a device must answer? */
static bool fits(uint64_t offset, unsigned size, uint64_t length)
{
    return (size == 4 || size == 8) && offset % size == 0 && offset < length;
}

uint64_t msix_table_read(struct msix *msix, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    pthread_mutex_lock(&msix->lock);
    if (fits(offset, size, (uint64_t)msix->count * MSIX_ENTRY_SIZE))
        memcpy(&value, (const uint8_t *)msix->table + offset, size);
    pthread_mutex_unlock(&msix->lock);
    return value;
}

void msix_table_write(struct msix *msix, uint64_t offset, unsigned size, uint64_t value)
{
    pthread_mutex_lock(&msix->lock);
    if (fits(offset, size, (uint64_t)msix->count * MSIX_ENTRY_SIZE)) {
        memcpy((uint8_t *)msix->table + offset, &value, size);
        unsigned vector = (unsigned)(offset / MSIX_ENTRY_SIZE);
        msix->table[vector * WORDS + ENTRY_CONTROL] &= PCI_MSIX_ENTRY_CTRL_MASKBIT;
        tell_changed(msix);
        deliver(msix, vector);
    }
    pthread_mutex_unlock(&msix->lock);
}

uint64_t msix_pending_read(struct msix *msix, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    pthread_mutex_lock(&msix->lock);
    if (fits(offset, size, sizeof(msix->pending)))
        memcpy(&value, (const uint8_t *)msix->pending + offset, size);
    pthread_mutex_unlock(&msix->lock);
    return value;
}
