#include "virtio/pci.h"

#include <assert.h>
#include <linux/pci_regs.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <stddef.h>
#include <string.h>

#define VENDOR      0x1af4u /* 4.1.2: all virtio devices */
#define DEVICE_BASE 0x1040u /* plus the device's id */
#define REVISION    1u

#define MEMORY_BAR 0u
#define PORT_BAR   1u

/* In the memory that base address register 0 stands for. */
#define COMMON       0x0000u
#define COMMON_SIZE  0x0040u
#define ISR          0x0040u
#define ISR_SIZE     0x0004u
#define DEVICE       0x0100u
#define DEVICE_SIZE  0x0f00u
#define TABLE        0x1000u
#define PENDING      0x1800u
#define PENDING_SIZE 0x0010u

/* ---- the function's configuration space ---------------------------------------------------- */

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

static void fill_config(struct virtio_pci *pci)
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

/* Does base address register `bar` answer, and where it should? */
static bool is_mapped(const struct virtio_pci *pci, unsigned bar)
{
    uint32_t command = get(pci, PCI_COMMAND, 2);

    if (bar == MEMORY_BAR)
        return (command & PCI_COMMAND_MEMORY) && get(pci, PCI_BASE_ADDRESS_0, 4) == pci->memory;
    return (command & PCI_COMMAND_IO) &&
           get(pci, PCI_BASE_ADDRESS_1, 4) == (pci->ports | PCI_BASE_ADDRESS_SPACE_IO);
}

/* ---- the registers of all devices: 4.1.4.3 ------------------------------------------------- */

/* Fields are accessed whole, those of 64 bits by halves (4.1.3.1). */
static bool is_field(uint64_t offset, unsigned size)
{
    static const uint8_t sizes[COMMON_SIZE] = {
        [VIRTIO_PCI_COMMON_DFSELECT] = 4,  [VIRTIO_PCI_COMMON_DF] = 4,
        [VIRTIO_PCI_COMMON_GFSELECT] = 4,  [VIRTIO_PCI_COMMON_GF] = 4,
        [VIRTIO_PCI_COMMON_MSIX] = 2,      [VIRTIO_PCI_COMMON_NUMQ] = 2,
        [VIRTIO_PCI_COMMON_STATUS] = 1,    [VIRTIO_PCI_COMMON_CFGGENERATION] = 1,
        [VIRTIO_PCI_COMMON_Q_SELECT] = 2,  [VIRTIO_PCI_COMMON_Q_SIZE] = 2,
        [VIRTIO_PCI_COMMON_Q_MSIX] = 2,    [VIRTIO_PCI_COMMON_Q_ENABLE] = 2,
        [VIRTIO_PCI_COMMON_Q_NOFF] = 2,    [VIRTIO_PCI_COMMON_Q_DESCLO] = 4,
        [VIRTIO_PCI_COMMON_Q_DESCHI] = 4,  [VIRTIO_PCI_COMMON_Q_AVAILLO] = 4,
        [VIRTIO_PCI_COMMON_Q_AVAILHI] = 4, [VIRTIO_PCI_COMMON_Q_USEDLO] = 4,
        [VIRTIO_PCI_COMMON_Q_USEDHI] = 4,
    };
    return offset < COMMON_SIZE && sizes[offset] == size;
}

/* The 64-bit address that a register is half of, or NULL. */
static uint64_t *address_of(struct virtq_config *config, uint64_t offset)
{
    switch (offset & ~4ull) {
    case VIRTIO_PCI_COMMON_Q_DESCLO:
        return &config->desc;
    case VIRTIO_PCI_COMMON_Q_AVAILLO:
        return &config->avail;
    case VIRTIO_PCI_COMMON_Q_USEDLO:
        return &config->used;
    default:
        return NULL;
    }
}

_Static_assert(VIRTIO_PCI_COMMON_Q_DESCLO % 8 == 0 && VIRTIO_PCI_COMMON_Q_AVAILLO % 8 == 0 &&
                   VIRTIO_PCI_COMMON_Q_USEDLO % 8 == 0,
               "bit 2 of an offset tells the halves apart");

static uint32_t read_queue(struct virtio_pci *pci, struct virtio_queue *queue, uint64_t offset)
{
    uint64_t *address = address_of(&queue->config, offset);

    if (address)
        return (uint32_t)(offset & 4 ? *address >> 32 : *address);
    switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE: /* what it takes at most, until the driver writes less */
        return queue->config.size ? queue->config.size : queue->size_max;
    case VIRTIO_PCI_COMMON_Q_MSIX:
        return __atomic_load_n(&pci->queue_vector[queue->index], __ATOMIC_RELAXED);
    case VIRTIO_PCI_COMMON_Q_ENABLE:
        return queue->ready;
    default:
        return 0;
    }
}

static uint32_t read_common(struct virtio_pci *pci, uint64_t offset)
{
    struct virtio_dev *dev = pci->dev;
    struct virtio_queue *queue = virtio_queue(dev, pci->queue);

    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        return pci->device_word;
    case VIRTIO_PCI_COMMON_DF:
        return virtio_offered(dev, pci->device_word);
    case VIRTIO_PCI_COMMON_GFSELECT:
        return pci->driver_word;
    case VIRTIO_PCI_COMMON_GF:
        return pci->driver_word < 2 ? (uint32_t)(dev->accepted >> (32 * pci->driver_word)) : 0;
    case VIRTIO_PCI_COMMON_MSIX:
        return __atomic_load_n(&pci->config_vector, __ATOMIC_RELAXED);
    case VIRTIO_PCI_COMMON_NUMQ:
        return dev->queue_count;
    case VIRTIO_PCI_COMMON_STATUS:
        return virtio_status(dev);
    case VIRTIO_PCI_COMMON_CFGGENERATION:
        return virtio_config_generation(dev) & UINT8_MAX;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        return pci->queue;
    default:
        return queue ? read_queue(pci, queue, offset) : 0;
    }
}

/* 4.1.5.1.2.1: a vector there is not reads back as none. */
static void set_vector(const struct virtio_pci *pci, uint16_t *vector, uint32_t value)
{
    uint16_t is = value < pci->msix.count ? (uint16_t)value : VIRTIO_MSI_NO_VECTOR;
    __atomic_store_n(vector, is, __ATOMIC_RELAXED);
}

static void write_queue(struct virtio_pci *pci, struct virtio_queue *queue, uint64_t offset,
                        uint32_t value)
{
    struct virtq_config *config = &queue->config;
    uint64_t *address = address_of(config, offset);

    if (offset == VIRTIO_PCI_COMMON_Q_MSIX) {
        set_vector(pci, &pci->queue_vector[queue->index], value);
        return;
    }
    if (!virtio_queue_open(queue))
        return;
    if (address && (offset & 4)) {
        *address = (*address & UINT32_MAX) | (uint64_t)value << 32;
    } else if (address) {
        *address = (*address & ~(uint64_t)UINT32_MAX) | value;
    } else if (offset == VIRTIO_PCI_COMMON_Q_SIZE) {
        config->size = value;
    } else if (offset == VIRTIO_PCI_COMMON_Q_ENABLE && value == 1) {
        if (config->size == 0)
            config->size = queue->size_max;
        virtio_queue_set_ready(queue, true);
    }
}

/* 4.1.5.1.2.1 and 4.1.4.3.1: nobody is told of anything after a reset. */
static void forget_vectors(struct virtio_pci *pci)
{
    set_vector(pci, &pci->config_vector, VIRTIO_MSI_NO_VECTOR);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        set_vector(pci, &pci->queue_vector[i], VIRTIO_MSI_NO_VECTOR);
}

static void write_common(struct virtio_pci *pci, uint64_t offset, uint32_t value)
{
    struct virtio_dev *dev = pci->dev;
    struct virtio_queue *queue = virtio_queue(dev, pci->queue);

    switch (offset) {
    case VIRTIO_PCI_COMMON_DFSELECT:
        pci->device_word = value;
        break;
    case VIRTIO_PCI_COMMON_GFSELECT:
        pci->driver_word = value;
        break;
    case VIRTIO_PCI_COMMON_GF:
        virtio_accept(dev, pci->driver_word, value);
        break;
    case VIRTIO_PCI_COMMON_MSIX:
        set_vector(pci, &pci->config_vector, value);
        break;
    case VIRTIO_PCI_COMMON_STATUS:
        virtio_set_status(dev, value);
        if (value == 0)
            forget_vectors(pci);
        break;
    case VIRTIO_PCI_COMMON_Q_SELECT:
        pci->queue = (uint16_t)value;
        break;
    default:
        if (queue)
            write_queue(pci, queue, offset, value);
    }
}

/* ---- what base address registers stand for ------------------------------------------------- */

/* 4.1.4.5: reading takes the bits away. */
static uint32_t read_isr(struct virtio_dev *dev)
{
    uint32_t status = virtio_interrupt_status(dev);
    virtio_acknowledge(dev, status);
    return status;
}

/* With virtio_lock held, which the MSI-X table does not need but does not mind either. */
static uint64_t memory_read(struct virtio_pci *pci, uint64_t offset, unsigned size)
{
    if (offset >= PENDING)
        return msix_pending_read(&pci->msix, offset - PENDING, size);
    if (offset >= TABLE)
        return msix_table_read(&pci->msix, offset - TABLE, size);
    if (offset >= DEVICE)
        return size <= 4 ? virtio_config_read(pci->dev, offset - DEVICE, size) : 0;
    if (offset == ISR)
        return size == 1 ? read_isr(pci->dev) : 0;
    return is_field(offset, size) ? read_common(pci, offset) : 0;
}

static void memory_write(struct virtio_pci *pci, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset >= TABLE)
        msix_table_write(&pci->msix, offset - TABLE, size, value);
    else if (offset >= DEVICE && size <= 4)
        virtio_config_write(pci->dev, offset - DEVICE, size, (uint32_t)value);
    else if (is_field(offset, size))
        write_common(pci, offset, (uint32_t)value);
}

static uint64_t memory_access_read(void *arg, uint64_t offset, unsigned size)
{
    struct virtio_pci *pci = arg;

    virtio_lock(pci->dev);
    uint64_t value = is_mapped(pci, MEMORY_BAR) ? memory_read(pci, offset, size) : UINT64_MAX;
    virtio_unlock(pci->dev);
    return value;
}

static void memory_access_write(void *arg, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *pci = arg;

    virtio_lock(pci->dev);
    if (is_mapped(pci, MEMORY_BAR))
        memory_write(pci, offset, size, value);
    virtio_unlock(pci->dev);
}

const struct bus_ops virtio_pci_memory_ops = {.read = memory_access_read,
                                              .write = memory_access_write};

static uint64_t port_read(void *arg, uint64_t offset, unsigned size)
{
    (void)arg, (void)offset, (void)size;
    return 0;
}

/* Without virtio_lock: notifications of several queues go side by side. */
static void port_write(void *arg, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *pci = arg;
    uint32_t index = (uint32_t)value;

    if (offset != 0 || size != 2 || !virtio_kick(pci->dev, index) || !pci->busy)
        return;
    if (__atomic_load_n(&pci->notified[index], __ATOMIC_RELAXED) < VIRTIO_PCI_BUSY &&
        __atomic_add_fetch(&pci->notified[index], 1, __ATOMIC_RELAXED) == VIRTIO_PCI_BUSY)
        pci->busy(pci->arg, pci, index);
}

const struct bus_ops virtio_pci_port_ops = {.read = port_read, .write = port_write};

/* ---- accesses to configuration space ------------------------------------------------------- */

/* 4.1.4.9: the range that the window capability points to; false when it points nowhere. */
static bool window(const struct virtio_pci *pci, unsigned *bar, uint32_t *offset, unsigned *size)
{
    unsigned cap = pci->window_cap;

    *bar = get(pci, cap + VIRTIO_PCI_CAP_BAR, 1);
    *offset = get(pci, cap + VIRTIO_PCI_CAP_OFFSET, 4);
    *size = get(pci, cap + VIRTIO_PCI_CAP_LENGTH, 4);
    if ((*size != 1 && *size != 2 && *size != 4) || *offset % *size)
        return false;
    return (*bar == MEMORY_BAR && *offset < VIRTIO_PCI_MEMORY_SIZE) ||
           (*bar == PORT_BAR && *offset < VIRTIO_PCI_PORTS);
}

static bool is_window(const struct virtio_pci *pci, unsigned offset)
{
    return offset == pci->window_cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
}

uint32_t virtio_pci_config_read(void *arg, unsigned offset, unsigned size)
{
    struct virtio_pci *pci = arg;
    unsigned bar, length;
    uint32_t at;

    virtio_lock(pci->dev);
    uint32_t value = get(pci, offset, size);
    if (is_window(pci, offset) && window(pci, &bar, &at, &length))
        value = bar == MEMORY_BAR ? (uint32_t)memory_read(pci, at, length) : 0;
    virtio_unlock(pci->dev);
    return value;
}

void virtio_pci_config_write(void *arg, unsigned offset, unsigned size, uint32_t value)
{
    struct virtio_pci *pci = arg;
    unsigned bar, length;
    uint32_t at;
    bool notify = false;

    virtio_lock(pci->dev);
    if (is_window(pci, offset) && window(pci, &bar, &at, &length)) {
        uint64_t masked = length == 4 ? value : value & ((1u << 8 * length) - 1);
        notify = bar == PORT_BAR;
        if (!notify)
            memory_write(pci, at, length, masked);
        value = (uint32_t)masked;
    }
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = pci->writable[offset + i], byte = (uint8_t)(value >> 8 * i);
        pci->config[offset + i] = (uint8_t)((pci->config[offset + i] & ~mask) | (byte & mask));
    }
    uint32_t control = get(pci, pci->msix_cap + PCI_MSIX_FLAGS, 2);
    if ((offset & ~3u) == pci->msix_cap) /* the word that holds message control */
        msix_control(&pci->msix, control & PCI_MSIX_FLAGS_ENABLE, control & PCI_MSIX_FLAGS_MASKALL);
    virtio_unlock(pci->dev);
    if (notify)
        port_write(pci, at, length, value);
}

/* ---- the device's side --------------------------------------------------------------------- */

static void interrupt(struct virtio_dev *dev, const struct virtio_queue *queue)
{
    struct virtio_pci *pci = dev->transport;
    const uint16_t *vector = queue ? &pci->queue_vector[queue->index] : &pci->config_vector;
    msix_raise(&pci->msix, __atomic_load_n(vector, __ATOMIC_RELAXED));
}

void virtio_pci_init(struct virtio_pci *pci, struct virtio_dev *dev, uint32_t memory,
                     uint32_t ports, void (*send)(void *arg, uint64_t address, uint32_t data),
                     void *arg)
{
    assert(dev->queue_count < MSIX_VECTORS_MAX && dev->config_size <= DEVICE_SIZE);
    *pci = (struct virtio_pci){.dev = dev, .memory = memory, .ports = ports, .arg = arg};
    msix_init(&pci->msix, dev->queue_count + 1, send, arg);
    forget_vectors(pci);
    fill_config(pci);
    dev->interrupt = interrupt;
    dev->transport = pci;
}

void virtio_pci_finish(struct virtio_pci *pci)
{
    msix_finish(&pci->msix);
}
