/*
 * What the suites of the PCI transport share: an entropy device and a disk of two queues behind it,
 * a driver of the disk's, and short names for what a guest does to its function.
 */
#ifndef TESTS_UNIT_PCI_RIG_H
#define TESTS_UNIT_PCI_RIG_H

#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stddef.h>

#include "tests/unit/disk_faults.h"
#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"

#define NONE       VIRTIO_MSI_NO_VECTOR
#define QUEUE_SIZE 256u /* of the disk's queues */
#define ANSWERS    (PCI_COMMAND_IO | PCI_COMMAND_MEMORY)

static struct virtio_rig rig;
static struct virtio_driver *v; /* the disk's */
static struct pci_driver *p;

static inline void begin_as(struct virtio_rig_config as)
{
    struct minivmm_error err;

    as.pci = true;
    as.blk = (struct blk_config){.queues = 2, .queue_size = QUEUE_SIZE};
    faults_set(NULL, 0);
    cr_assert(virtio_rig_init(&rig, &as, &err), "%s", err.text);
    v = &rig.blk_driver.v;
    p = &rig.pci_drivers[RIG_SLOT_BLK];
}

static inline void begin(bool threaded)
{
    begin_as((struct virtio_rig_config){.threaded = threaded});
}

/* Whatever a test did: a driver that looks for its devices anew gets work out of them. */
static inline void end(void)
{
    faults_set(NULL, 0);
    for (unsigned slot = 0; slot < RIG_SLOT_COUNT; slot++) {
        if (!rig.pci[slot].dev)
            continue;
        uint32_t id = rig.pci[slot].dev->type->id;
        cr_assert(pci_driver_find(&rig.pci_drivers[slot], id), "device of slot %u", slot);
    }
    virtio_driver_reset(&rig.rng_driver);
    virtio_driver_reset(v);
    blk_driver_forget(&rig.blk_driver);
    cr_expect(virtio_rig_works(&rig), "the canary");
    virtio_rig_finish(&rig);
}

static inline uint32_t config(unsigned offset, unsigned size)
{
    return pci_config_read(p->pio, p->device, offset, size);
}

static inline void set_config(unsigned offset, unsigned size, uint32_t value)
{
    pci_config_write(p->pio, p->device, offset, size, value);
}

static inline unsigned common(unsigned offset, unsigned size)
{
    return (unsigned)pci_common_read(p, offset, size);
}

static inline unsigned messages(unsigned vector)
{
    return virtio_rig_messages(&rig, RIG_SLOT_BLK, vector);
}

static inline bool is_pending(unsigned vector)
{
    return bus_read(p->mmio, p->pending, 8) >> vector & 1;
}

static inline void flush_once(void)
{
    cr_expect_eq(blk_driver_flush(&rig.blk_driver), VIRTIO_BLK_S_OK);
}

/* Configuration changes, as the host sees to it. */
static inline void change_config(void)
{
    virtio_config_begin(blk_device(rig.blk));
    virtio_config_end(blk_device(rig.blk));
}

/* 4.1.4.9: where the window points to. */
static inline void aim(uint8_t bar, uint32_t offset, uint32_t length)
{
    set_config(p->window_cap + VIRTIO_PCI_CAP_BAR, 1, bar);
    set_config(p->window_cap + VIRTIO_PCI_CAP_OFFSET, 4, offset);
    set_config(p->window_cap + VIRTIO_PCI_CAP_LENGTH, 4, length);
}

#define DATA (p->window_cap + (unsigned)offsetof(struct virtio_pci_cfg_cap, pci_cfg_data))

#endif
