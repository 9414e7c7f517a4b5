#include <assert.h>
#include <linux/virtio_pci.h>
#include <stddef.h>
#include <string.h>

#include "virtio/pci_call.h"
#include "virtio/pci_private.h"

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

/* 4.1.4.3.1: what the driver wrote instead is presented as 0, and the queue is not enabled. */
static bool is_size(const struct virtio_queue *queue, uint16_t size)
{
    return size > 0 && size <= queue->size_max && (size & (size - 1)) == 0;
}

static uint32_t read_queue(struct virtio_pci *pci, struct virtio_queue *queue, uint64_t offset)
{
    uint64_t *address = address_of(&queue->config, offset);

    if (address)
        return (uint32_t)(offset & 4 ? *address >> 32 : *address);
    switch (offset) {
    case VIRTIO_PCI_COMMON_Q_SIZE:
        return is_size(queue, pci->queue_size[queue->index]) ? pci->queue_size[queue->index] : 0;
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
        pci_calls_follow(pci);
        return;
    }
    if (!virtio_queue_open(queue))
        return;
    if (address && (offset & 4)) {
        *address = (*address & UINT32_MAX) | (uint64_t)value << 32;
    } else if (address) {
        *address = (*address & ~(uint64_t)UINT32_MAX) | value;
    } else if (offset == VIRTIO_PCI_COMMON_Q_SIZE) {
        pci->queue_size[queue->index] = (uint16_t)value;
    } else if (offset == VIRTIO_PCI_COMMON_Q_ENABLE && value == 1 &&
               is_size(queue, pci->queue_size[queue->index])) {
        config->size = pci->queue_size[queue->index];
        virtio_queue_set_ready(queue, true);
    }
}

/*
 * 4.1.5.1.2.1 and 4.1.4.3.1: nobody is told of anything after a reset, not of what waits behind a
 * mask either, and queues have the sizes that they may have at most.
 */
static void forget(struct virtio_pci *pci)
{
    set_vector(pci, &pci->config_vector, VIRTIO_MSI_NO_VECTOR);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        set_vector(pci, &pci->queue_vector[i], VIRTIO_MSI_NO_VECTOR);
    for (unsigned i = 0; i < pci->dev->queue_count; i++)
        pci->queue_size[i] = (uint16_t)pci->dev->queues[i].size_max;
    pci_calls_forget(pci);
    msix_forget(&pci->msix);
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
            forget(pci);
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

static uint64_t read_registers(struct virtio_pci *pci, uint64_t offset, unsigned size)
{
    if (offset >= DEVICE)
        return size <= 4 ? virtio_config_read(pci->dev, offset - DEVICE, size) : 0;
    if (offset == ISR)
        return size == 1 ? read_isr(pci->dev) : 0;
    return is_field(offset, size) ? read_common(pci, offset) : 0;
}

/*
 * The MSI-X table is not under virtio_lock: a guest masks a vector wherever it is, with its own
 * interrupts off, and a reset holds that lock until all I/O is done.
 */
uint64_t pci_memory_read(struct virtio_pci *pci, uint64_t offset, unsigned size)
{
    if (offset >= PENDING)
        return msix_pending_read(&pci->msix, offset - PENDING, size);
    if (offset >= TABLE)
        return msix_table_read(&pci->msix, offset - TABLE, size);
    virtio_lock(pci->dev);
    uint64_t value = read_registers(pci, offset, size);
    virtio_unlock(pci->dev);
    return value;
}

void pci_memory_write(struct virtio_pci *pci, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset >= TABLE) {
        msix_table_write(&pci->msix, offset - TABLE, size, value);
        return;
    }
    virtio_lock(pci->dev);
    if (offset >= DEVICE && size <= 4)
        virtio_config_write(pci->dev, offset - DEVICE, size, (uint32_t)value);
    else if (is_field(offset, size))
        write_common(pci, offset, (uint32_t)value);
    virtio_unlock(pci->dev);
}

static bool is_mapped(const struct virtio_pci *pci, unsigned bar)
{
    return __atomic_load_n(&pci->mapped[bar], __ATOMIC_RELAXED);
}

static uint64_t memory_read(void *arg, uint64_t offset, unsigned size)
{
    struct virtio_pci *pci = arg;
    return is_mapped(pci, MEMORY_BAR) ? pci_memory_read(pci, offset, size) : UINT64_MAX;
}

static void memory_write(void *arg, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *pci = arg;
    if (is_mapped(pci, MEMORY_BAR))
        pci_memory_write(pci, offset, size, value);
}

const struct bus_ops virtio_pci_memory_ops = {.read = memory_read, .write = memory_write};

static uint64_t port_read(void *arg, uint64_t offset, unsigned size)
{
    struct virtio_pci *pci = arg;

    (void)offset, (void)size;
    return is_mapped(pci, PORT_BAR) ? 0 : UINT64_MAX;
}

/* Without virtio_lock: notifications of several queues go side by side. */
void pci_port_write(struct virtio_pci *pci, uint64_t offset, unsigned size, uint64_t value)
{
    uint32_t index = (uint32_t)value;

    if (offset != 0 || size != 2 || !virtio_kick(pci->dev, index) || !pci->busy)
        return;
    if (__atomic_load_n(&pci->notified[index], __ATOMIC_RELAXED) < VIRTIO_PCI_BUSY &&
        __atomic_add_fetch(&pci->notified[index], 1, __ATOMIC_RELAXED) == VIRTIO_PCI_BUSY)
        pci->busy(pci->arg, pci, index);
}

static void port_write(void *arg, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_pci *pci = arg;
    if (is_mapped(pci, PORT_BAR))
        pci_port_write(pci, offset, size, value);
}

const struct bus_ops virtio_pci_port_ops = {.read = port_read, .write = port_write};

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
    *pci = (struct virtio_pci){.dev = dev,
                               .config_lock = PTHREAD_MUTEX_INITIALIZER,
                               .memory = memory,
                               .ports = ports,
                               .arg = arg};
    msix_init(&pci->msix, dev->queue_count + 1, send, arg);
    forget(pci);
    pci_config_init(pci);
    dev->interrupt = interrupt;
    dev->transport = pci;
}

void virtio_pci_finish(struct virtio_pci *pci)
{
    pci_calls_finish(pci);
    msix_finish(&pci->msix);
    if (pci->dev)
        pthread_mutex_destroy(&pci->config_lock);
    pci->dev = NULL;
}
