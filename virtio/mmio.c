#include "virtio/mmio.h"

#include <linux/virtio_mmio.h>

#define MAGIC   0x74726976u /* "virt" */
#define VERSION 2u
#define VENDOR  0x4d564d4du /* "MMVM": 4.2.2 leaves it to the maker */

/* The word of a 64-bit value that a register pair's half holds. */
static void set_half(uint64_t *value, bool high, uint32_t half)
{
    if (high)
        *value = (*value & UINT32_MAX) | (uint64_t)half << 32;
    else
        *value = (*value & ~(uint64_t)UINT32_MAX) | half;
}

static uint32_t read_register(struct virtio_mmio *mmio, uint64_t offset)
{
    struct virtio_dev *dev = mmio->dev;
    const struct virtio_queue *queue = virtio_queue(dev, mmio->queue);

    switch (offset) {
    case VIRTIO_MMIO_MAGIC_VALUE:
        return MAGIC;
    case VIRTIO_MMIO_VERSION:
        return VERSION;
    case VIRTIO_MMIO_DEVICE_ID:
        return dev->type->id;
    case VIRTIO_MMIO_VENDOR_ID:
        return VENDOR;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return virtio_offered(dev, mmio->device_word);
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
        return queue ? queue->size_max : 0;
    case VIRTIO_MMIO_QUEUE_READY:
        return queue && queue->ready;
    case VIRTIO_MMIO_STATUS:
        return virtio_status(dev);
    case VIRTIO_MMIO_CONFIG_GENERATION:
        return virtio_config_generation(dev);
    case VIRTIO_MMIO_SHM_LEN_LOW: /* 4.2.2: no such region */
    case VIRTIO_MMIO_SHM_LEN_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
        return UINT32_MAX;
    default:
        return 0;
    }
}

/* QueueNum and the addresses, which the driver may set while the queue is open to it. */
static void write_queue(struct virtio_queue *queue, uint64_t offset, uint32_t value)
{
    if (!virtio_queue_open(queue))
        return;
    switch (offset) {
    case VIRTIO_MMIO_QUEUE_NUM:
        queue->config.size = value;
        break;
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
    case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        set_half(&queue->config.desc, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
    case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        set_half(&queue->config.avail, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_LOW:
    case VIRTIO_MMIO_QUEUE_USED_HIGH:
        set_half(&queue->config.used, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
        break;
    }
}

static void write_register(struct virtio_mmio *mmio, uint64_t offset, uint32_t value)
{
    struct virtio_dev *dev = mmio->dev;
    struct virtio_queue *queue = virtio_queue(dev, mmio->queue);

    switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        mmio->device_word = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        mmio->driver_word = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        virtio_accept(dev, mmio->driver_word, value);
        break;
    case VIRTIO_MMIO_QUEUE_SEL:
        mmio->queue = value;
        break;
    case VIRTIO_MMIO_QUEUE_READY:
        if (queue && value <= 1)
            virtio_queue_set_ready(queue, value);
        break;
    case VIRTIO_MMIO_STATUS:
        virtio_set_status(dev, value);
        break;
    default:
        if (queue)
            write_queue(queue, offset, value);
    }
}

static void notify(struct virtio_mmio *mmio, uint32_t index)
{
    if (!virtio_kick(mmio->dev, index) || !mmio->busy)
        return;
    /* Two vCPUs at once may lose a count, but only one of them reaches the limit. */
    if (__atomic_load_n(&mmio->notified[index], __ATOMIC_RELAXED) < VIRTIO_MMIO_BUSY &&
        __atomic_add_fetch(&mmio->notified[index], 1, __ATOMIC_RELAXED) == VIRTIO_MMIO_BUSY)
        mmio->busy(mmio->arg, mmio, index);
}

static void acknowledge(struct virtio_mmio *mmio, uint32_t bits)
{
    virtio_acknowledge(mmio->dev, bits);
    if (!mmio->interrupted)
        return;
    const uint32_t many = VIRTIO_MMIO_BUSY_INTERRUPTS;
    if (__atomic_load_n(&mmio->acknowledged, __ATOMIC_RELAXED) < many &&
        __atomic_add_fetch(&mmio->acknowledged, 1, __ATOMIC_RELAXED) == many)
        mmio->interrupted(mmio->arg, mmio);
}

static uint64_t mmio_read(void *arg, uint64_t offset, unsigned size)
{
    struct virtio_mmio *mmio = arg;

    if (offset >= VIRTIO_MMIO_CONFIG)
        return size <= 4 ? virtio_config_read(mmio->dev, offset - VIRTIO_MMIO_CONFIG, size) : 0;
    if (size != 4 || offset % 4)
        return 0;
    if (offset == VIRTIO_MMIO_INTERRUPT_STATUS) /* in every interrupt: no lock */
        return virtio_interrupt_status(mmio->dev);
    virtio_lock(mmio->dev);
    uint32_t value = read_register(mmio, offset);
    virtio_unlock(mmio->dev);
    return value;
}

static void mmio_write(void *arg, uint64_t offset, unsigned size, uint64_t value)
{
    struct virtio_mmio *mmio = arg;
    uint32_t word = (uint32_t)value;

    if (offset < VIRTIO_MMIO_CONFIG && (size != 4 || offset % 4))
        return;
    if (offset == VIRTIO_MMIO_QUEUE_NOTIFY) {
        notify(mmio, word);
        return;
    }
    if (offset == VIRTIO_MMIO_INTERRUPT_ACK) {
        acknowledge(mmio, word);
        return;
    }
    virtio_lock(mmio->dev);
    if (offset < VIRTIO_MMIO_CONFIG)
        write_register(mmio, offset, word);
    else if (size <= 4)
        virtio_config_write(mmio->dev, offset - VIRTIO_MMIO_CONFIG, size, word);
    virtio_unlock(mmio->dev);
}

const struct bus_ops virtio_mmio_ops = {.read = mmio_read, .write = mmio_write};
