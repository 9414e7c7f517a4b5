#include "virtio/virtio.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "virtio/local.h"
#include "vmm/checked.h"
#include "vmm/counter.h"

#define BIT(n) (1ull << (n))

/* What the rings of virtq.h can do, and 6.2: this is a device of version 1. */
#define RING_FEATURES                                                                              \
    (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC))

int virtio_init(struct virtio_dev *dev, const struct virtio_type *type, const struct guest_mem *mem,
                struct event_loop *loop, uint64_t features, unsigned queue_count,
                unsigned queue_size, void *config, unsigned config_size)
{
    *dev = (struct virtio_dev){.type = type,
                               .datapath = &local_datapath,
                               .loop = loop,
                               .mem = mem,
                               .lock = PTHREAD_MUTEX_INITIALIZER,
                               .offered = features | RING_FEATURES,
                               .config_lock = PTHREAD_MUTEX_INITIALIZER,
                               .config = config,
                               .config_size = config_size,
                               .call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    int rc = dev->call < 0 ? -errno : 0;
    dev->queues = calloc(queue_count, sizeof(dev->queues[0]));
    if (!dev->queues)
        rc = -ENOMEM;
    for (unsigned i = 0; rc == 0 && i < queue_count; i++) {
        struct virtio_queue *queue = &dev->queues[i];
        *queue = (struct virtio_queue){
            .dev = dev, .index = i, .size_max = queue_size, .call = dev->call};
        dev->queue_count++;
        queue->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        rc = queue->kick < 0 ? -errno : virtq_init(&queue->ring, queue_size);
    }
    if (rc < 0)
        virtio_finish(dev);
    return rc;
}

void virtio_finish(struct virtio_dev *dev)
{
    for (unsigned i = 0; i < dev->queue_count; i++) {
        virtq_finish(&dev->queues[i].ring);
        if (dev->queues[i].kick >= 0)
            close(dev->queues[i].kick);
    }
    free(dev->queues);
    if (dev->type && dev->call >= 0)
        close(dev->call);
    *dev = (struct virtio_dev){0};
}

static bool is_running(const struct virtio_dev *dev)
{
    return __atomic_load_n(&dev->running, __ATOMIC_ACQUIRE);
}

static void interrupt(struct virtio_dev *dev, const struct virtio_queue *queue, uint32_t why)
{
    /* The driver reads the reason once it is interrupted, so it is there before. */
    __atomic_fetch_or(&dev->interrupt_status, why, __ATOMIC_RELEASE);
    if (dev->interrupt)
        dev->interrupt(dev, queue);
    else
        eventfd_write(dev->call, 1);
}

void virtio_interrupt(struct virtio_queue *queue)
{
    counter_add(&queue->interrupts, 1);
    interrupt(queue->dev, queue, VIRTIO_MMIO_INT_VRING);
}

void virtio_called(struct virtio_queue *queue)
{
    __atomic_fetch_or(&queue->dev->interrupt_status, VIRTIO_MMIO_INT_VRING, __ATOMIC_RELEASE);
}

void virtio_break(struct virtio_dev *dev)
{
    if (__atomic_exchange_n(&dev->broken, true, __ATOMIC_RELEASE))
        return;
    counter_add(&dev->breaks, 1);
    interrupt(dev, NULL, VIRTIO_MMIO_INT_CONFIG);
}

/* ---- configuration space ------------------------------------------------------------------- */

void virtio_config_begin(struct virtio_dev *dev)
{
    pthread_mutex_lock(&dev->config_lock);
}

void virtio_config_end(struct virtio_dev *dev)
{
    /* 2.5.2: a driver that reads in pieces starts again. Only a number that it saw is changed: so
     * the 8 bits of PCI do not come round between two of its looks, however much changes. */
    dev->config_generation += dev->generation_seen;
    dev->generation_seen = false;
    if (__atomic_load_n(&dev->live, __ATOMIC_ACQUIRE))
        interrupt(dev, NULL, VIRTIO_MMIO_INT_CONFIG);
    pthread_mutex_unlock(&dev->config_lock);
}

/*
 * The device is not live any more: whoever found it so in virtio_config_end has interrupted when
 * this returns, and nobody else does.
 */
static void end_config_interrupts(struct virtio_dev *dev)
{
    pthread_mutex_lock(&dev->config_lock);
    pthread_mutex_unlock(&dev->config_lock);
}

uint32_t virtio_config_read(struct virtio_dev *dev, uint64_t offset, unsigned size)
{
    uint32_t value = 0;

    if (!range_within(offset, size, dev->config_size))
        return 0;
    pthread_mutex_lock(&dev->config_lock);
    memcpy(&value, dev->config + offset, size);
    pthread_mutex_unlock(&dev->config_lock);
    return value;
}

void virtio_config_write(struct virtio_dev *dev, uint64_t offset, unsigned size, uint32_t value)
{
    if (dev->type->config_write && range_within(offset, size, dev->config_size))
        dev->type->config_write(dev, (unsigned)offset, size, value);
}

uint32_t virtio_config_generation(struct virtio_dev *dev)
{
    pthread_mutex_lock(&dev->config_lock);
    uint32_t generation = dev->config_generation;
    dev->generation_seen = true;
    pthread_mutex_unlock(&dev->config_lock);
    return generation;
}

/* ---- status and features (2.1, 2.2, 3.1) --------------------------------------------------- */

uint8_t virtio_status(const struct virtio_dev *dev)
{
    bool broken = __atomic_load_n(&dev->broken, __ATOMIC_ACQUIRE);
    return (uint8_t)(dev->status | (broken ? VIRTIO_CONFIG_S_NEEDS_RESET : 0));
}

static void start(struct virtio_dev *dev)
{
    __atomic_store_n(&dev->running, true, __ATOMIC_RELEASE);
    if (dev->datapath->start(dev) < 0) {
        __atomic_store_n(&dev->running, false, __ATOMIC_RELEASE);
        __atomic_store_n(&dev->live, false, __ATOMIC_RELEASE);
        virtio_break(dev);
    }
}

static void stop(struct virtio_dev *dev)
{
    if (!is_running(dev))
        return;
    dev->datapath->stop(dev);
    __atomic_store_n(&dev->running, false, __ATOMIC_RELEASE);
}

/* The datapath runs while the driver wants it and nobody holds it. */
static void start_or_stop(struct virtio_dev *dev)
{
    bool wanted = dev->live && !dev->holds;
    if (wanted && !is_running(dev))
        start(dev);
    else if (!wanted)
        stop(dev);
}

static void set_live(struct virtio_dev *dev, bool live)
{
    __atomic_store_n(&dev->live, live, __ATOMIC_RELEASE);
    start_or_stop(dev);
}

static void reset(struct virtio_dev *dev)
{
    set_live(dev, false);
    end_config_interrupts(dev);
    for (unsigned i = 0; i < dev->queue_count; i++) {
        dev->queues[i].ready = false;
        dev->queues[i].config = (struct virtq_config){0};
    }
    if (dev->type->reset)
        dev->type->reset(dev);
    dev->accepted = 0;
    dev->status = 0;
    __atomic_store_n(&dev->broken, false, __ATOMIC_RELEASE);
    __atomic_store_n(&dev->interrupt_status, 0, __ATOMIC_RELEASE);
}

void virtio_shutdown(struct virtio_dev *dev)
{
    virtio_lock(dev);
    set_live(dev, false);
    virtio_unlock(dev);
}

void virtio_hold(struct virtio_dev *dev, unsigned hold)
{
    virtio_lock(dev);
    dev->holds |= hold;
    start_or_stop(dev);
    virtio_unlock(dev);
}

void virtio_release(struct virtio_dev *dev, unsigned hold)
{
    virtio_lock(dev);
    dev->holds &= ~hold;
    start_or_stop(dev);
    virtio_unlock(dev);
}

/* Is it a set that this device works with (2.2.2)? */
static bool features_fit(const struct virtio_dev *dev)
{
    return (dev->accepted & ~dev->offered) == 0 && virtio_has(dev, VIRTIO_F_VERSION_1);
}

void virtio_set_status(struct virtio_dev *dev, uint32_t value)
{
    /* Each step, and what must have come before it: the sequence of 3.1.1. */
    static const struct {
        uint8_t bit, needs;
    } steps[] = {
        {VIRTIO_CONFIG_S_ACKNOWLEDGE, 0},
        {VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_ACKNOWLEDGE},
        {VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER},
        {VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK},
        {VIRTIO_CONFIG_S_FAILED, 0},
    };

    if (value == 0) {
        reset(dev);
        return;
    }
    /* A driver that adds a bit writes back what it has read. */
    uint32_t wanted = value & ~(uint32_t)(virtio_status(dev) & VIRTIO_CONFIG_S_NEEDS_RESET);
    uint32_t added = wanted & ~(uint32_t)dev->status;
    if ((dev->status & VIRTIO_CONFIG_S_FAILED) || (dev->status & ~wanted))
        return; /* 2.1.1: no bit is ever cleared, and a failed device must be reset */

    uint32_t status = dev->status;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (!(added & steps[i].bit))
            continue;
        if ((status & steps[i].needs) != steps[i].needs)
            return;
        added &= ~(uint32_t)steps[i].bit;
        status |= steps[i].bit;
    }
    uint32_t both = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
    if (added || ((status & ~dev->status) & both) == both)
        return; /* unknown bits; or the driver does not look whether its features were taken */

    if ((status & ~dev->status & VIRTIO_CONFIG_S_FEATURES_OK) && !features_fit(dev))
        status &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
    uint32_t done = status & ~dev->status;
    dev->status = (uint8_t)status;
    if ((done & VIRTIO_CONFIG_S_FEATURES_OK) && dev->type->negotiated)
        dev->type->negotiated(dev);
    if (status & VIRTIO_CONFIG_S_FAILED)
        set_live(dev, false); /* 2.1: the driver has given up on it */
    else if (done & VIRTIO_CONFIG_S_DRIVER_OK)
        set_live(dev, true);
    if ((done & VIRTIO_CONFIG_S_DRIVER_OK) && dev->driver_ok)
        dev->driver_ok(dev->driver_ok_arg, dev);
}

uint32_t virtio_offered(const struct virtio_dev *dev, uint32_t word)
{
    return word < 2 ? (uint32_t)(dev->offered >> (32 * word)) : 0;
}

void virtio_accept(struct virtio_dev *dev, uint32_t word, uint32_t value)
{
    bool negotiating = (dev->status & VIRTIO_CONFIG_S_DRIVER) &&
                       !(dev->status & (VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED));
    if (!negotiating || word >= 2)
        return;
    uint64_t mask = (uint64_t)UINT32_MAX << (32 * word);
    dev->accepted = (dev->accepted & ~mask) | (uint64_t)value << (32 * word);
}

/* ---- queues -------------------------------------------------------------------------------- */

struct virtio_queue *virtio_queue(const struct virtio_dev *dev, uint32_t index)
{
    return index < dev->queue_count ? &dev->queues[index] : NULL;
}

bool virtio_queue_open(const struct virtio_queue *queue)
{
    uint8_t mask = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED;
    return (queue->dev->status & mask) == VIRTIO_CONFIG_S_FEATURES_OK && !queue->ready;
}

void virtio_queue_set_ready(struct virtio_queue *queue, bool ready)
{
    struct virtio_dev *dev = queue->dev;

    if (!ready && queue->ready) {
        bool was_running = is_running(dev);
        stop(dev);
        queue->ready = false;
        if (was_running)
            start(dev);
    } else if (ready && virtio_queue_open(queue)) {
        queue->config.indirect = virtio_has(dev, VIRTIO_RING_F_INDIRECT_DESC);
        queue->config.event_idx = virtio_has(dev, VIRTIO_RING_F_EVENT_IDX);
        queue->ready = virtq_start(&queue->ring, dev->mem, &queue->config, queue->size_max, 0) == 0;
    }
}

bool virtio_kick(struct virtio_dev *dev, uint32_t index)
{
    if (index >= dev->queue_count || !is_running(dev))
        return false;
    __atomic_fetch_add(&dev->queues[index].kicks, 1, __ATOMIC_RELAXED);
    if (index >= dev->local_first) {
        enum local_try tried = local_try(&dev->queues[index]);
        if (tried != LOCAL_BUSY)
            return false;
    }
    eventfd_write(dev->queues[index].kick, 1);
    return true;
}

uint32_t virtio_interrupt_status(const struct virtio_dev *dev)
{
    uint32_t status = __atomic_load_n(&dev->interrupt_status, __ATOMIC_ACQUIRE);
    bool deaf = dev->datapath->external && !dev->interrupt;
    bool always = deaf || __atomic_load_n(&dev->acknowledged, __ATOMIC_ACQUIRE);
    return always ? status | VIRTIO_MMIO_INT_VRING : status;
}

void virtio_acknowledge(struct virtio_dev *dev, uint32_t bits)
{
    __atomic_fetch_and(&dev->interrupt_status, ~bits, __ATOMIC_ACQ_REL);
}

void virtio_acknowledged(struct virtio_dev *dev)
{
    __atomic_store_n(&dev->acknowledged, true, __ATOMIC_RELEASE);
}
