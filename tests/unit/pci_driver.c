#include "tests/unit/pci_driver.h"

#include <stddef.h>

#define VENDOR      0x1af4u
#define DEVICE_BASE 0x1040u
#define CAPS_MAX    48u

static void select_register(const struct bus *pio, unsigned device, unsigned offset)
{
    bus_write(pio, PCI_ADDRESS_PORT, 4, 0x80000000u | device << 11 | (offset & 0xfcu));
}

uint32_t pci_config_read(const struct bus *pio, unsigned device, unsigned offset, unsigned size)
{
    select_register(pio, device, offset);
    return (uint32_t)bus_read(pio, PCI_DATA_PORT + (offset & 3), size);
}

void pci_config_write(const struct bus *pio, unsigned device, unsigned offset, unsigned size,
                      uint32_t value)
{
    select_register(pio, device, offset);
    bus_write(pio, PCI_DATA_PORT + (offset & 3), size, value);
}

static uint32_t config(const struct pci_driver *p, unsigned offset, unsigned size)
{
    return pci_config_read(p->pio, p->device, offset, size);
}

/* The next capability of this id after `cap`, or the first after 0; 0: none. */
static unsigned next_cap(const struct pci_driver *p, unsigned cap, uint8_t id)
{
    for (unsigned i = 0; i < CAPS_MAX; i++) {
        cap = config(p, cap ? cap + PCI_CAP_LIST_NEXT : PCI_CAPABILITY_LIST, 1);
        if (cap == 0 || config(p, cap, 1) == id)
            return cap;
    }
    return 0;
}

unsigned pci_driver_cap(const struct pci_driver *p, uint8_t type)
{
    unsigned cap = 0;
    while ((cap = next_cap(p, cap, PCI_CAP_ID_VNDR)) != 0) {
        if (config(p, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1) == type)
            return cap;
    }
    return 0;
}

static uint64_t bar(const struct pci_driver *p, unsigned number)
{
    uint32_t value = config(p, PCI_BASE_ADDRESS_0 + 4 * number, 4);
    return value & PCI_BASE_ADDRESS_SPACE_IO ? value & ~3u : value & ~15u;
}

uint64_t pci_driver_place(const struct pci_driver *p, unsigned cap)
{
    return bar(p, config(p, cap + VIRTIO_PCI_CAP_BAR, 1)) +
           config(p, cap + VIRTIO_PCI_CAP_OFFSET, 4);
}

static uint64_t structure(const struct pci_driver *p, uint8_t type)
{
    unsigned cap = pci_driver_cap(p, type);
    return cap ? pci_driver_place(p, cap) : 0;
}

static uint64_t in_bar(const struct pci_driver *p, unsigned offset)
{
    uint32_t value = config(p, offset, 4);
    return bar(p, value & PCI_MSIX_TABLE_BIR) + (value & PCI_MSIX_TABLE_OFFSET);
}

static bool look(struct pci_driver *p)
{
    p->common = structure(p, VIRTIO_PCI_CAP_COMMON_CFG);
    p->isr = structure(p, VIRTIO_PCI_CAP_ISR_CFG);
    p->config = structure(p, VIRTIO_PCI_CAP_DEVICE_CFG);
    p->notify = (uint16_t)structure(p, VIRTIO_PCI_CAP_NOTIFY_CFG);
    p->window_cap = pci_driver_cap(p, VIRTIO_PCI_CAP_PCI_CFG);
    p->msix_cap = next_cap(p, 0, PCI_CAP_ID_MSIX);
    if (!p->common || !p->isr || !p->notify || !p->msix_cap)
        return false;
    p->vectors = (config(p, p->msix_cap + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;
    p->table = in_bar(p, p->msix_cap + PCI_MSIX_TABLE);
    p->pending = in_bar(p, p->msix_cap + PCI_MSIX_PBA);
    return true;
}

bool pci_driver_find(struct pci_driver *p, uint32_t id)
{
    for (p->device = 0; p->device < 32; p->device++) {
        if (config(p, PCI_VENDOR_ID, 4) != ((DEVICE_BASE + id) << 16 | VENDOR))
            continue;
        pci_config_write(p->pio, p->device, PCI_COMMAND, 2,
                         PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        if (!look(p))
            return false;
        pci_driver_enable_vectors(p);
        return true;
    }
    return false;
}

uint32_t pci_driver_message(const struct pci_driver *p, unsigned vector)
{
    return p->device << 8 | vector;
}

void pci_driver_mask(const struct pci_driver *p, unsigned vector, bool mask)
{
    bus_write(p->mmio,
              p->table + (uint64_t)vector * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL, 4,
              mask ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0);
}

void pci_driver_control(const struct pci_driver *p, uint16_t flags)
{
    pci_config_write(p->pio, p->device, p->msix_cap + PCI_MSIX_FLAGS, 2, flags);
}

void pci_driver_enable_vectors(const struct pci_driver *p)
{
    for (unsigned i = 0; i < p->vectors; i++) {
        uint64_t entry = p->table + (uint64_t)i * PCI_MSIX_ENTRY_SIZE;
        bus_write(p->mmio, entry + PCI_MSIX_ENTRY_LOWER_ADDR, 4, MESSAGE_ADDRESS);
        bus_write(p->mmio, entry + PCI_MSIX_ENTRY_UPPER_ADDR, 4, 0);
        bus_write(p->mmio, entry + PCI_MSIX_ENTRY_DATA, 4, pci_driver_message(p, i));
        pci_driver_mask(p, i, false);
    }
    pci_driver_control(p, PCI_MSIX_FLAGS_ENABLE);
}

uint64_t pci_common_read(const struct pci_driver *p, unsigned offset, unsigned size)
{
    return bus_read(p->mmio, p->common + offset, size);
}

void pci_common_write(const struct pci_driver *p, unsigned offset, unsigned size, uint64_t value)
{
    bus_write(p->mmio, p->common + offset, size, value);
}

/* ---- as a page of registers ----------------------------------------------------------------- */

static const struct translation {
    unsigned mmio, pci, size;
} translations[] = {
    {VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_PCI_COMMON_DFSELECT, 4},
    {VIRTIO_MMIO_DEVICE_FEATURES, VIRTIO_PCI_COMMON_DF, 4},
    {VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_PCI_COMMON_GFSELECT, 4},
    {VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_PCI_COMMON_GF, 4},
    {VIRTIO_MMIO_QUEUE_SEL, VIRTIO_PCI_COMMON_Q_SELECT, 2},
    {VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_PCI_COMMON_Q_SIZE, 2},
    {VIRTIO_MMIO_QUEUE_NUM, VIRTIO_PCI_COMMON_Q_SIZE, 2},
    {VIRTIO_MMIO_QUEUE_READY, VIRTIO_PCI_COMMON_Q_ENABLE, 2},
    {VIRTIO_MMIO_STATUS, VIRTIO_PCI_COMMON_STATUS, 1},
    {VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_PCI_COMMON_Q_DESCLO, 4},
    {VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_PCI_COMMON_Q_DESCHI, 4},
    {VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_PCI_COMMON_Q_AVAILLO, 4},
    {VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_PCI_COMMON_Q_AVAILHI, 4},
    {VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_PCI_COMMON_Q_USEDLO, 4},
    {VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_PCI_COMMON_Q_USEDHI, 4},
    {VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_PCI_COMMON_CFGGENERATION, 1},
};

static const struct translation *translate(unsigned reg)
{
    for (size_t i = 0; i < sizeof(translations) / sizeof(translations[0]); i++) {
        if (translations[i].mmio == reg)
            return &translations[i];
    }
    return NULL;
}

uint32_t pci_driver_read(struct pci_driver *p, unsigned reg)
{
    const struct translation *is = translate(reg);

    if (reg == VIRTIO_MMIO_INTERRUPT_STATUS) {
        p->reasons |= (uint32_t)bus_read(p->mmio, p->isr, 1);
        return p->reasons;
    }
    return is ? (uint32_t)pci_common_read(p, is->pci, is->size) : 0;
}

void pci_driver_write(struct pci_driver *p, unsigned reg, uint32_t value)
{
    const struct translation *is = translate(reg);

    /* There is no way to write them over PCI. */
    if ((reg == VIRTIO_MMIO_STATUS && value > UINT8_MAX) ||
        (reg == VIRTIO_MMIO_QUEUE_READY && value > UINT16_MAX))
        return;
    if (reg == VIRTIO_MMIO_INTERRUPT_ACK)
        p->reasons &= ~value;
    else if (reg == VIRTIO_MMIO_QUEUE_NOTIFY)
        bus_write(p->pio, p->notify, 2, value);
    if (reg == VIRTIO_MMIO_QUEUE_READY)
        pci_common_write(p, VIRTIO_PCI_COMMON_Q_MSIX, 2,
                         1 + pci_common_read(p, VIRTIO_PCI_COMMON_Q_SELECT, 2));
    if (is)
        pci_common_write(p, is->pci, is->size, value);
    if (reg == VIRTIO_MMIO_STATUS && value != 0)
        pci_common_write(p, VIRTIO_PCI_COMMON_MSIX, 2, 0);
    else if (reg == VIRTIO_MMIO_STATUS)
        p->reasons = 0;
}
