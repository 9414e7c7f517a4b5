#include <assert.h>
#include <linux/pci_regs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <stddef.h>
#include <string.h>

#include "virtio/pci_private.h"

#define VENDOR      0x1af4u /* 4.1.2: all virtio devices */
#define DEVICE_BASE 0x1040u /* plus the device's id */
#define REVISION    1u

static void put(struct virtio_pci *pci, unsigned offset, unsigned size, uint32_t value,
                uint32_t writable)
{
    memcpy(pci->config + offset, &value, size);
    memcpy(pci->writable + offset, &writable, size);
}

static uint32_t get(const struct virtio_pci *pci, unsigned offset, unsigned size)
{
    uint32_t value = 0;
    memcpy(&value, pci->config + offset, size);
    return value;
}

/* PCI Code and ID Assignment 1.11: base class and sub-class, the latter "other" where in doubt. */
static uint16_t class_of(uint32_t id)
{
    switch (id) {
    case VIRTIO_ID_NET:
        return 0x0200;
    case VIRTIO_ID_BLOCK:
        return 0x0180;
    case VIRTIO_ID_CONSOLE:
        return 0x0780;
    default:
        return 0xff00;
    }
}

/* Where capabilities go; each is linked to the one before. */
struct capabilities {
    unsigned link, next;
};

static unsigned add_capability(struct virtio_pci *pci, struct capabilities *at, uint8_t id,
                               unsigned size)
{
    unsigned offset = at->next;
    put(pci, at->link, 1, offset, 0);
    put(pci, offset, 1, id, 0);
    at->link = offset + PCI_CAP_LIST_NEXT;
    at->next = (offset + size + 3) & ~3u;
    return offset;
}

/* 4.1.4: where in a base address register's range something is. */
static unsigned add_structure(struct virtio_pci *pci, struct capabilities *at, uint8_t type,
                              unsigned size, uint8_t bar, uint32_t offset, uint32_t length)
{
    unsigned cap = add_capability(pci, at, PCI_CAP_ID_VNDR, size);
    put(pci, cap + VIRTIO_PCI_CAP_LEN, 1, size, 0);
    put(pci, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1, type, 0);
    put(pci, cap + VIRTIO_PCI_CAP_BAR, 1, bar, 0);
    put(pci, cap + VIRTIO_PCI_CAP_OFFSET, 4, offset, 0);
    put(pci, cap + VIRTIO_PCI_CAP_LENGTH, 4, length, 0);
    return cap;
}

static void add_capabilities(struct virtio_pci *pci)
{
    const unsigned size = sizeof(struct virtio_pci_cap);
    struct capabilities at = {.link = PCI_CAPABILITY_LIST, .next = PCI_STD_HEADER_SIZEOF};
    uint32_t config_size = pci->dev->config_size;

    add_structure(pci, &at, VIRTIO_PCI_CAP_COMMON_CFG, size, MEMORY_BAR, COMMON, COMMON_SIZE);
    /* A multiplier of 0, which is what the bytes behind the length are: one place for all queues */
    add_structure(pci, &at, VIRTIO_PCI_CAP_NOTIFY_CFG, sizeof(struct virtio_pci_notify_cap),
                  PORT_BAR, 0, VIRTIO_PCI_PORTS);
    add_structure(pci, &at, VIRTIO_PCI_CAP_ISR_CFG, size, MEMORY_BAR, ISR, ISR_SIZE);
    if (config_size > 0)
        add_structure(pci, &at, VIRTIO_PCI_CAP_DEVICE_CFG, size, MEMORY_BAR, DEVICE,
                      (config_size + 3) & ~3u);

    unsigned cap =
        add_structure(pci, &at, VIRTIO_PCI_CAP_PCI_CFG, sizeof(struct virtio_pci_cfg_cap), 0, 0, 0);
    pci->writable[cap + VIRTIO_PCI_CAP_BAR] = UINT8_MAX;
    put(pci, cap + VIRTIO_PCI_CAP_OFFSET, 4, 0, UINT32_MAX);
    put(pci, cap + VIRTIO_PCI_CAP_LENGTH, 4, 0, UINT32_MAX);
    pci->window_cap = cap;

    cap = add_capability(pci, &at, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
    put(pci, cap + PCI_MSIX_FLAGS, 2, pci->msix.count - 1,
        PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
    put(pci, cap + PCI_MSIX_TABLE, 4, TABLE | MEMORY_BAR, 0);
    put(pci, cap + PCI_MSIX_PBA, 4, PENDING | MEMORY_BAR, 0);
    pci->msix_cap = cap;
    put(pci, at.link, 1, 0, 0);
    assert(at.next <= sizeof(pci->config));
}

static void fill(struct virtio_pci *pci)
{
    uint32_t id = pci->dev->type->id;

    put(pci, PCI_VENDOR_ID, 2, VENDOR, 0);
    put(pci, PCI_DEVICE_ID, 2, DEVICE_BASE + id, 0);
    put(pci, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY,
        PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
    put(pci, PCI_STATUS, 2, PCI_STATUS_CAP_LIST, 0);
    put(pci, PCI_REVISION_ID, 1, REVISION, 0);
    put(pci, PCI_CLASS_DEVICE, 2, class_of(id), 0);
    put(pci, PCI_BASE_ADDRESS_0, 4, pci->memory, ~(VIRTIO_PCI_MEMORY_SIZE - 1));
    put(pci, PCI_BASE_ADDRESS_1, 4, pci->ports | PCI_BASE_ADDRESS_SPACE_IO,
        ~(VIRTIO_PCI_PORTS - 1));
    put(pci, PCI_SUBSYSTEM_VENDOR_ID, 2, VENDOR, 0);
    put(pci, PCI_SUBSYSTEM_ID, 2, DEVICE_BASE + id, 0);
    put(pci, PCI_INTERRUPT_LINE, 1, 0, UINT8_MAX);
    add_capabilities(pci);
}

/*
 * Which base address registers answer: those that the guest has switched on, and left where they
 * are. Accesses to them look here without a lock.
 */
static void map(struct virtio_pci *pci)
{
    uint32_t command = get(pci, PCI_COMMAND, 2);
    bool memory = (command & PCI_COMMAND_MEMORY) && get(pci, PCI_BASE_ADDRESS_0, 4) == pci->memory;
    bool ports = (command & PCI_COMMAND_IO) &&
                 get(pci, PCI_BASE_ADDRESS_1, 4) == (pci->ports | PCI_BASE_ADDRESS_SPACE_IO);

    __atomic_store_n(&pci->mapped[MEMORY_BAR], memory, __ATOMIC_RELAXED);
    __atomic_store_n(&pci->mapped[PORT_BAR], ports, __ATOMIC_RELAXED);
}

static bool is_master(const struct virtio_pci *pci)
{
    return get(pci, PCI_COMMAND, 2) & PCI_COMMAND_MASTER;
}

void pci_config_init(struct virtio_pci *pci)
{
    fill(pci);
    map(pci);
    virtio_hold(pci->dev, VIRTIO_HOLD_BUS);
}

/* A function that is no master of its bus reaches no memory, and a message is a write to memory. */
static void update_messages(struct virtio_pci *pci)
{
    uint32_t control = get(pci, pci->msix_cap + PCI_MSIX_FLAGS, 2);
    msix_control(&pci->msix, control & PCI_MSIX_FLAGS_ENABLE,
                 (control & PCI_MSIX_FLAGS_MASKALL) || !is_master(pci));
}

/* Returns when the device is quiet, as a kernel that starts another must be able to rely on. */
static void update_master(struct virtio_pci *pci)
{
    if (is_master(pci))
        virtio_release(pci->dev, VIRTIO_HOLD_BUS);
    else
        virtio_hold(pci->dev, VIRTIO_HOLD_BUS);
    update_messages(pci);
}

/* ---- accesses ------------------------------------------------------------------------------ */

/* 4.1.4.9: the range that the window capability points to. */
struct window {
    unsigned bar, size;
    uint32_t offset;
};

/* Is it an access through the window, and to somewhere? With config_lock held. */
static bool window(const struct virtio_pci *pci, unsigned offset, struct window *to)
{
    unsigned cap = pci->window_cap;

    if (offset != cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data))
        return false;
    to->bar = get(pci, cap + VIRTIO_PCI_CAP_BAR, 1);
    to->offset = get(pci, cap + VIRTIO_PCI_CAP_OFFSET, 4);
    to->size = get(pci, cap + VIRTIO_PCI_CAP_LENGTH, 4);
    if ((to->size != 1 && to->size != 2 && to->size != 4) || to->offset % to->size)
        return false;
    return (to->bar == MEMORY_BAR && to->offset < VIRTIO_PCI_MEMORY_SIZE) ||
           (to->bar == PORT_BAR && to->offset < VIRTIO_PCI_PORTS);
}

/* 4.1.4.5.1: without MSI-X the status tells whether there is an interrupt to be asked for. */
static uint32_t with_status(const struct virtio_pci *pci, unsigned offset, uint32_t value)
{
    const uint32_t flags = get(pci, pci->msix_cap + PCI_MSIX_FLAGS, 2);

    if ((flags & PCI_MSIX_FLAGS_ENABLE) || !virtio_interrupt_status(pci->dev))
        return value;
    if (offset == PCI_STATUS)
        return value | PCI_STATUS_INTERRUPT;
    return offset == PCI_COMMAND ? value | PCI_STATUS_INTERRUPT << 16 : value;
}

uint32_t virtio_pci_config_read(void *arg, unsigned offset, unsigned size)
{
    struct virtio_pci *pci = arg;
    struct window to;

    pthread_mutex_lock(&pci->config_lock);
    uint32_t value = with_status(pci, offset, get(pci, offset, size));
    bool through = window(pci, offset, &to);
    pthread_mutex_unlock(&pci->config_lock);
    if (through)
        value = to.bar == MEMORY_BAR ? (uint32_t)pci_memory_read(pci, to.offset, to.size) : 0;
    return value;
}

void virtio_pci_config_write(void *arg, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_pci *pci = arg;
    struct window to;

    pthread_mutex_lock(&pci->config_lock);
    bool through = window(pci, offset, &to);
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = pci->writable[offset + i], byte = (uint8_t)(value >> 8 * i);
        pci->config[offset + i] = (uint8_t)((pci->config[offset + i] & ~mask) | (byte & mask));
    }
    map(pci);
    if ((offset & ~3u) == pci->msix_cap) /* the word that holds message control */
        update_messages(pci);
    else if ((offset & ~3u) == PCI_COMMAND)
        update_master(pci);
    pthread_mutex_unlock(&pci->config_lock);
    if (!through)
        return;
    uint32_t masked = to.size == 4 ? value : value & ((1u << 8 * to.size) - 1);
    if (to.bar == MEMORY_BAR)
        pci_memory_write(pci, to.offset, to.size, masked);
    else
        pci_port_write(pci, to.offset, to.size, masked);
}
