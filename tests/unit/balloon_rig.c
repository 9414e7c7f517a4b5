#include "tests/unit/balloon_rig.h"

#include <linux/virtio_ids.h>
#include <stdlib.h>

static void handle_stats(void *arg, const struct minivmm_balloon_stats *stats)
{
    struct balloon_rig *r = arg;
    r->heard++;
    r->stats = *stats;
}

static void handle_moved(void *arg)
{
    struct balloon_rig *r = arg;
    __atomic_fetch_add(&r->moved, 1, __ATOMIC_RELAXED);
}

bool balloon_rig_init(struct balloon_rig *r, bool threaded, struct minivmm_error *err)
{
    static const struct balloon_events events = {.stats = handle_stats, .moved = handle_moved};
    const struct virtio_rig_config config = {.threaded = threaded};
    const uint64_t at = RIG_SLOTS + RIG_SLOT_COUNT * RIG_SLOT;

    *r = (struct balloon_rig){0};
    if (!virtio_rig_init(&r->rig, &config, err))
        return false;
    if (balloon_create(&r->rig.mem, &r->rig.loop, &r->balloon, err) < 0)
        abort();
    balloon_listen(r->balloon, &events, r);
    struct virtio_dev *dev = balloon_device(r->balloon);
    r->slot.dev = dev;
    bus_add(&r->rig.bus, at, VIRTIO_MMIO_SIZE, &virtio_mmio_ops, &r->slot);
    r->v = (struct virtio_driver){.bus = &r->rig.bus,
                                  .mem = &r->rig.mem,
                                  .loop = &r->rig.loop,
                                  .call = dev->call,
                                  .rings = BALLOON_RINGS};
    if (!virtio_driver_find(&r->v, at, 1, VIRTIO_ID_BALLOON))
        abort();
    resources_take(&r->rig.before); /* the balloon's too */
    return true;
}

void balloon_rig_finish(struct balloon_rig *r)
{
    virtio_shutdown(balloon_device(r->balloon));
    virtio_driver_finish(&r->v);
    struct balloon *balloon = r->balloon;
    virtio_rig_finish(&r->rig);
    balloon_destroy(balloon);
}

bool balloon_rig_list(struct balloon_rig *r, unsigned queue, const uint32_t *pages, unsigned count)
{
    struct piece piece = {BALLOON_LIST, count * (uint32_t)sizeof(pages[0]), false};
    struct vring_used_elem element;

    fake_driver_write(&r->v.queues[queue], BALLOON_LIST, pages, piece.len);
    return virtio_driver_transact(&r->v, queue, &piece, 1, &element) && element.len == 0;
}

bool balloon_rig_works(struct balloon_rig *r)
{
    const uint32_t page = RAM_A / PAGE;
    uint8_t *at = virtio_rig_at(&r->rig, RAM_A, PAGE);

    if ((r->v.queue_count == 0 ||
         virtio_driver_read(&r->v, VIRTIO_MMIO_STATUS) != STATUS_DRIVER_OK) &&
        !virtio_driver_start(&r->v, UINT64_MAX, 0))
        return false;
    at[0] = 0x5a;
    return balloon_rig_list(r, QUEUE_INFLATE, &page, 1) && at[0] == 0 && virtio_rig_works(&r->rig);
}
