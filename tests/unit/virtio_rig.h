/*
 * An entropy device and, on request, a disk behind virtio-mmio or PCI on one event loop, with a
 * driver for each: a machine without processors. Guest RAM has an inner border and a hole, and
 * inaccessible pages round each region, so that a stray access of a device's faults:
 *
 *     RAM_A  1 MiB | RAM_B  1 MiB | RAM_HOLE  1 MiB | RAM_C  4 MiB | RAM_END
 *
 * The rings, requests' headers and status bytes lie in RAM_C below RIG_FREE; all else is the
 * test's. No Criterion: other programs use it too, and end with abort() where a host cannot do
 * this.
 */
#ifndef TESTS_UNIT_VIRTIO_RIG_H
#define TESTS_UNIT_VIRTIO_RIG_H

#include "devices/blk.h"
#include "devices/pci_host.h"
#include "devices/rng.h"
#include "tests/unit/blk_driver.h"
#include "tests/unit/call_rig.h"
#include "tests/unit/resources.h"
#include "virtio/mmio.h"
#include "virtio/pci.h"

#define RAM_A    0x100000ull
#define RAM_B    0x200000ull
#define RAM_HOLE 0x300000ull
#define RAM_C    0x400000ull
#define RAM_END  0x800000ull
#define RIG_FREE 0x680000ull

/* Where the devices are: a slot each, and one more that is empty. */
#define RIG_SLOTS 0xd0001000ull
#define RIG_SLOT  0x1000ull
enum { RIG_SLOT_RNG, RIG_SLOT_NONE, RIG_SLOT_BLK, RIG_SLOT_COUNT };

/* The same over PCI, one device number higher than the slot. */
#define RIG_PCI_MEMORY 0xd0100000u
#define RIG_PCI_PORTS  0x1000u
#define RIG_VECTORS    20u /* of a device, that messages are counted of */

struct virtio_rig_config {
    bool threaded; /* the loop runs on a thread of its own */
    bool no_disk;
    bool pci;   /* also with the environment's MINIVMM_TEST_TRANSPORT=pci */
    bool calls; /* over PCI: used buffers are told of as by a datapath outside of here; also
                   with MINIVMM_TEST_TRANSPORT=pci-calls */
    uint64_t disk_bytes; /* of the image; 0: 1 MiB */
    struct disk_config disk;
    struct blk_config blk; /* all zeroes: one queue of 256 entries */
};

struct virtio_rig {
    struct virtio_rig_config config;
    struct guest_mem mem;
    struct event_loop loop;
    pthread_t thread;
    struct bus bus;
    struct virtio_mmio slots[RIG_SLOT_COUNT];
    struct bus pio; /* this and the rest up to `messages` with PCI */
    struct pci_host pci_host;
    struct virtio_pci pci[RIG_SLOT_COUNT];
    struct pci_driver pci_drivers[RIG_SLOT_COUNT];
    struct call_rig calls;
    void (*interrupt)(struct virtio_dev *dev,
                      const struct virtio_queue *queue); /* the transport's */
    unsigned messages[RIG_SLOT_COUNT][RIG_VECTORS];      /* atomic: sent */
    unsigned strays;                                     /* atomic: of another address or value */
    struct rng rng;
    struct disk *disk; /* NULL without */
    struct blk *blk;
    int image; /* the test's own descriptor of the image, which has no name */
    struct virtio_driver rng_driver;
    struct blk_driver blk_driver;
    struct resources before; /* once all of this was there */
};

/*
 * Build it. Both devices have been found; no driver has been started. False, with a text and
 * nothing to finish, when the disk cannot be opened in this way here.
 */
bool virtio_rig_init(struct virtio_rig *rig, const struct virtio_rig_config *config,
                     struct minivmm_error *err);
void virtio_rig_finish(struct virtio_rig *rig);

/* Both drivers, with these features and queue sizes; false when a device does not go along. */
bool virtio_rig_start(struct virtio_rig *rig, uint64_t features, uint32_t size);

/*
 * The canary: does an ordinary request complete on every device? A device that needs a reset, or
 * that the test has left half set up, is started anew before.
 */
bool virtio_rig_answers(struct virtio_rig *rig);

/* And has the host back what it had at first, with a loop that sleeps? */
bool virtio_rig_works(struct virtio_rig *rig);

/* Messages that the device in this slot has sent by a vector. */
unsigned virtio_rig_messages(const struct virtio_rig *rig, unsigned slot, unsigned vector);

/* Guest memory by address; it must be there. */
void *virtio_rig_at(const struct virtio_rig *rig, uint64_t gpa, uint64_t length);

#endif
