#include "tests/unit/virtio_driver.h"

#include <linux/virtio_ring.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

#include "vmm/clock.h"

#define MAGIC    0x74726976u
#define VERSION  2u
#define SLOT     0x1000u
#define SLICE_MS 1

uint32_t virtio_driver_read(const struct virtio_driver *v, unsigned offset)
{
    if (v->pci)
        return pci_driver_read(v->pci, offset);
    return (uint32_t)bus_read(v->bus, v->base + offset, 4);
}

void virtio_driver_write(const struct virtio_driver *v, unsigned offset, uint32_t value)
{
    if (v->pci)
        pci_driver_write(v->pci, offset, value);
    else
        bus_write(v->bus, v->base + offset, 4, value);
}

static uint64_t config_space(const struct virtio_driver *v)
{
    return v->pci ? v->pci->config : v->base + VIRTIO_MMIO_CONFIG;
}

uint64_t virtio_driver_config(const struct virtio_driver *v, unsigned offset, unsigned size)
{
    uint64_t value = 0;
    unsigned width = size < 4 ? size : 4; /* 4.2.2.2: 64-bit fields in two halves */
    for (unsigned at = 0; at < size; at += width)
        value |= bus_read(v->bus, config_space(v) + offset + at, width) << (8 * at);
    return value;
}

void virtio_driver_set_config(const struct virtio_driver *v, unsigned offset, unsigned size,
                              uint32_t value)
{
    bus_write(v->bus, config_space(v) + offset, size, value);
}

bool virtio_driver_find(struct virtio_driver *v, uint64_t first, unsigned slots, uint32_t id)
{
    if (v->pci)
        return pci_driver_find(v->pci, id);
    for (unsigned i = 0; i < slots; i++) {
        v->base = first + (uint64_t)i * SLOT;
        if (virtio_driver_read(v, VIRTIO_MMIO_MAGIC_VALUE) == MAGIC &&
            virtio_driver_read(v, VIRTIO_MMIO_VERSION) == VERSION &&
            virtio_driver_read(v, VIRTIO_MMIO_DEVICE_ID) == id)
            return true;
    }
    return false;
}

uint64_t virtio_driver_offered(const struct virtio_driver *v)
{
    uint64_t offered = 0;
    for (unsigned word = 0; word < 2; word++) {
        virtio_driver_write(v, VIRTIO_MMIO_DEVICE_FEATURES_SEL, word);
        offered |= (uint64_t)virtio_driver_read(v, VIRTIO_MMIO_DEVICE_FEATURES) << (32 * word);
    }
    return offered;
}

void virtio_driver_accept(const struct virtio_driver *v, uint64_t features)
{
    for (unsigned word = 0; word < 2; word++) {
        virtio_driver_write(v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, word);
        virtio_driver_write(v, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> (32 * word)));
    }
}

bool virtio_driver_negotiate(struct virtio_driver *v, uint64_t wanted)
{
    virtio_driver_reset(v);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, STATUS_ACKNOWLEDGE);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, STATUS_DRIVER);
    v->features = virtio_driver_offered(v) & wanted;
    virtio_driver_accept(v, v->features);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, STATUS_FEATURES_OK);
    return virtio_driver_read(v, VIRTIO_MMIO_STATUS) == STATUS_FEATURES_OK;
}

uint32_t virtio_driver_set_queue(const struct virtio_driver *v, unsigned index,
                                 const struct virtq_config *config)
{
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_SEL, index);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_NUM, config->size);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)config->desc);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(config->desc >> 32));
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)config->avail);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(config->avail >> 32));
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)config->used);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(config->used >> 32));
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, 1);
    return virtio_driver_read(v, VIRTIO_MMIO_QUEUE_READY);
}

bool virtio_driver_queue(struct virtio_driver *v, unsigned index, uint32_t size)
{
    bool indirect = v->features & FEATURE(VIRTIO_RING_F_INDIRECT_DESC);
    bool event_idx = v->features & FEATURE(VIRTIO_RING_F_EVENT_IDX);
    uint64_t at = v->rings;

    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_SEL, index);
    uint32_t max = virtio_driver_read(v, VIRTIO_MMIO_QUEUE_NUM_MAX);
    if (index != v->queue_count || index >= VIRTIO_DRIVER_QUEUES || max == 0)
        return false;
    if (size == 0 || size > max)
        size = max;
    if (index > 0) {
        const struct virtq_config *before = &v->queues[index - 1].config;
        at = before->used + 6 + 8ull * before->size;
    }
    struct virtq_config config = fake_driver_layout(at, size, indirect, event_idx);
    fake_driver_init(&v->queues[index], v->mem, &config, 0);
    v->queue_count++;
    return virtio_driver_set_queue(v, index, &config) == 1;
}

bool virtio_driver_start(struct virtio_driver *v, uint64_t wanted, uint32_t size)
{
    if (!virtio_driver_negotiate(v, wanted))
        return false;
    for (unsigned i = 0; i < VIRTIO_DRIVER_QUEUES; i++) {
        virtio_driver_write(v, VIRTIO_MMIO_QUEUE_SEL, i);
        if (virtio_driver_read(v, VIRTIO_MMIO_QUEUE_NUM_MAX) == 0)
            break;
        if (!virtio_driver_queue(v, i, size))
            return false;
    }
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, STATUS_DRIVER_OK);
    return virtio_driver_read(v, VIRTIO_MMIO_STATUS) == STATUS_DRIVER_OK;
}

void virtio_driver_finish(struct virtio_driver *v)
{
    for (unsigned i = 0; i < v->queue_count; i++)
        fake_driver_finish(&v->queues[i]);
    v->queue_count = 0;
}

void virtio_driver_reset(struct virtio_driver *v)
{
    eventfd_t late;

    virtio_driver_write(v, VIRTIO_MMIO_STATUS, 0);
    while (virtio_driver_read(v, VIRTIO_MMIO_STATUS) != 0)
        virtio_driver_settle(v);
    virtio_driver_finish(v);
    eventfd_read(v->call, &late);
    v->reasons = 0;
}

void virtio_driver_notify(const struct virtio_driver *v, uint32_t index)
{
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_NOTIFY, index);
}

void virtio_driver_kick(struct virtio_driver *v, unsigned index)
{
    if (fake_driver_kick_due(&v->queues[index]))
        virtio_driver_notify(v, index);
}

bool virtio_driver_interrupted(struct virtio_driver *v)
{
    eventfd_t count;

    if (eventfd_read(v->call, &count) < 0)
        return false;
    uint32_t reasons = virtio_driver_read(v, VIRTIO_MMIO_INTERRUPT_STATUS);
    virtio_driver_write(v, VIRTIO_MMIO_INTERRUPT_ACK, reasons);
    v->reasons |= reasons;
    v->interrupts++;
    return true;
}

/* Sleep a little, or let the loop work if nobody else does. */
static void pass_time(const struct virtio_driver *v)
{
    struct pollfd pfd = {.fd = v->call, .events = POLLIN};
    if (v->loop->has_thread)
        poll(&pfd, 1, SLICE_MS);
    else
        event_loop_once(v->loop, SLICE_MS);
}

bool virtio_driver_wait_interrupt(struct virtio_driver *v)
{
    uint64_t end = clock_now_ns() + VIRTIO_DRIVER_MS * (NS_PER_SECOND / 1000);
    while (!virtio_driver_interrupted(v)) {
        if (clock_now_ns() > end)
            return false;
        pass_time(v);
    }
    return true;
}

bool virtio_driver_wait(struct virtio_driver *v, unsigned index, struct vring_used_elem *element)
{
    struct fake_driver *queue = &v->queues[index];
    while (!fake_driver_take(queue, element)) {
        if (!fake_driver_sleep(queue) && !virtio_driver_wait_interrupt(v))
            return false;
    }
    return true;
}

static void pass_by(struct event_call *call)
{
    event_call_done(call->arg, call);
}

void virtio_driver_settle(const struct virtio_driver *v)
{
    /* Handlers run in the order of what woke them, and some wake themselves again. */
    for (int i = 0; i < 8; i++) {
        struct event_call call = {.run = pass_by, .arg = v->loop};
        if (v->loop->has_thread)
            event_loop_call(v->loop, &call);
        else
            event_loop_once(v->loop, 0);
    }
}

bool virtio_driver_transact(struct virtio_driver *v, unsigned index, const struct piece *pieces,
                            unsigned count, struct vring_used_elem *element)
{
    uint16_t head = fake_driver_send(&v->queues[index], pieces, count);
    virtio_driver_kick(v, index);
    return virtio_driver_wait(v, index, element) && element->id == head;
}
