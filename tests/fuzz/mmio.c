/*
 * Fuzzes devices through their transport: the input is a sequence of register accesses of any size,
 * guest memory writes and turns of the event loop, with an entropy device and a disk behind them.
 * Each input ends with a reset and an ordinary request on both: whatever went before, they work.
 *
 * Input: steps, each a byte that says what is done, and what that takes. Some steps are whole
 * sequences of a driver's, so that inputs get past the start of a device.
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/blk.h"
#include "devices/rng.h"
#include "tests/fuzz/fuzz.h"
#include "tests/guarded_mem.h"
#include "virtio/mmio.h"

#define PAGE   4096u
#define REGION (8u * PAGE)
#define LOW    0x10000ull /* two regions side by side */
#define HIGH   (LOW + REGION)
#define BASE   0xd0001000ull
#define DISK   (256u << 10)
#define QUEUES 2u /* of the disk */
#define SIZE   16u
#define STEPS  400u
#define TURNS  2000u

static struct guest_mem mem;
static struct event_loop loop;
static struct bus bus;
static struct virtio_mmio slots[2];
static struct rng rng;
static struct disk *disk;
static struct blk *blk;

static struct fuzz_input input;

static uint32_t take(unsigned bytes)
{
    return fuzz_take(&input, bytes);
}

static void set_up(void)
{
    struct minivmm_error err;
    char path[32];
    const struct blk_config config = {.serial = "fuzz", .queues = QUEUES, .queue_size = SIZE};

    guarded_mem_add(&mem, LOW, REGION);
    guarded_mem_add(&mem, HIGH, REGION);
    int image = memfd_create("image", MFD_CLOEXEC);
    MUST(image >= 0 && ftruncate(image, DISK) == 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", image);
    const struct disk_config backend = {.path = path};
    MUST(event_loop_init(&loop, &err) == 0);
    MUST(rng_init(&rng, &mem, &loop, &err) == 0);
    MUST(disk_create(&backend, &loop, &disk, &err) == 0);
    MUST(blk_create(&config, disk, &mem, &loop, &blk, &err) == 0);
    slots[0].dev = &rng.dev;
    slots[1].dev = blk_device(blk);
    for (unsigned i = 0; i < 2; i++)
        bus_add(&bus, BASE + i * VIRTIO_MMIO_SIZE, VIRTIO_MMIO_SIZE, &virtio_mmio_ops, &slots[i]);
}

static uint32_t read_word(unsigned slot, unsigned offset)
{
    return (uint32_t)bus_read(&bus, BASE + slot * VIRTIO_MMIO_SIZE + offset, 4);
}

static void write_word(unsigned slot, unsigned offset, uint32_t value)
{
    bus_write(&bus, BASE + slot * VIRTIO_MMIO_SIZE + offset, 4, value);
}

static void put(uint64_t gpa, const void *data, size_t size)
{
    void *at = guest_mem_at(&mem, gpa, size);
    if (at)
        memcpy(at, data, size);
}

/* Where a queue's areas are; a disk's second queue lies in the other region. */
static uint64_t ring_of(unsigned slot, unsigned queue)
{
    return (queue ? HIGH : LOW) + slot * 2 * PAGE;
}
#define AVAIL 0x400u /* after the descriptors */
#define USED  0x800u

/* All that a driver does up to DRIVER_OK. */
static void start(unsigned slot, uint32_t features, uint32_t ring_bits, uint32_t size)
{
    static const uint8_t none[PAGE];
    write_word(slot, VIRTIO_MMIO_STATUS, 0);
    write_word(slot, VIRTIO_MMIO_STATUS, 3);
    write_word(slot, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    features &= read_word(slot, VIRTIO_MMIO_DEVICE_FEATURES);
    write_word(slot, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    write_word(slot, VIRTIO_MMIO_DRIVER_FEATURES, features | (ring_bits & 3) << 28);
    write_word(slot, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    write_word(slot, VIRTIO_MMIO_DRIVER_FEATURES, 1);
    write_word(slot, VIRTIO_MMIO_STATUS, 11);
    for (unsigned queue = 0; queue < QUEUES; queue++) {
        uint64_t ring = ring_of(slot, queue);
        put(ring, none, sizeof(none));
        write_word(slot, VIRTIO_MMIO_QUEUE_SEL, queue);
        write_word(slot, VIRTIO_MMIO_QUEUE_NUM, size);
        write_word(slot, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)ring);
        write_word(slot, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)ring + AVAIL);
        write_word(slot, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)ring + USED);
        write_word(slot, VIRTIO_MMIO_QUEUE_READY, 1);
    }
    write_word(slot, VIRTIO_MMIO_STATUS, 15);
}

/* A chain of up to three descriptors at `index`, and an entry for it. */
static void offer(unsigned slot, unsigned queue, uint16_t index)
{
    uint64_t ring = ring_of(slot, queue);
    struct vring_avail *avail = guest_mem_at(&mem, ring + AVAIL, 4 + 2 * SIZE + 2);
    unsigned count = 1 + take(1) % 3;

    for (unsigned i = 0; i < count; i++) {
        uint32_t word = take(4);
        struct vring_desc desc = {.addr = LOW + word % (2 * REGION + 64),
                                  .len = word >> 17 & 0x7ff,
                                  .flags = (uint16_t)(word >> 28 & 7),
                                  .next = (uint16_t)((index + i + 1) % SIZE)};
        if (word >> 31 == 0) /* mostly a chain that ends where it should */
            desc.flags = (uint16_t)((desc.flags & ~1u) | (i + 1 < count));
        put(ring + 16 * ((index + i) % SIZE), &desc, sizeof(desc));
    }
    avail->ring[avail->idx % SIZE] = index;
    avail->idx++;
}

static void put_header(void)
{
    struct virtio_blk_outhdr header = {.type = take(1) % 16, .sector = take(2) % 520};
    put(LOW + take(2) % (2 * REGION), &header, sizeof(header));
}

static void step(void)
{
    uint32_t what = take(1);
    unsigned slot = what >> 7, size = 1u << (what >> 5 & 3);
    uint64_t at = BASE + slot * VIRTIO_MMIO_SIZE;

    switch (what & 15) {
    case 0:
        bus_write(&bus, at + take(1), 4, take(4));
        break;
    case 1:
        bus_write(&bus, at + take(2) % 0x1008, size, take(4));
        break;
    case 2:
        bus_read(&bus, at + take(2) % 0x1008, size);
        break;
    case 3:
        write_word(slot, 4 * (take(1) & 0x3f), take(4));
        break;
    case 4:
        write_word(slot, VIRTIO_MMIO_STATUS, take(1));
        break;
    case 5:
        start(slot, take(4), what >> 5, 1u << take(1) % 6);
        break;
    case 6:
        start(slot, UINT32_MAX, 3, SIZE);
        break;
    case 7:
        at = LOW + take(2) % (2 * REGION);
        for (unsigned i = 0; i < size; i++) {
            uint8_t byte = (uint8_t)take(1);
            put(at + i, &byte, 1);
        }
        break;
    case 8:
    case 9:
    case 10:
        offer(slot, what >> 6 & 1, (uint16_t)(what >> 4 & 3) * 4);
        write_word(slot, VIRTIO_MMIO_QUEUE_NOTIFY, what >> 6 & 1);
        break;
    case 11:
        put_header();
        break;
    case 12:
        write_word(slot, VIRTIO_MMIO_QUEUE_NOTIFY, take(1));
        break;
    case 13:
        write_word(slot, VIRTIO_MMIO_QUEUE_SEL, take(1) % 4);
        write_word(slot, VIRTIO_MMIO_QUEUE_READY, what >> 5 & 1);
        break;
    default:
        event_loop_once(&loop, 0);
    }
    MUST(read_word(slot, VIRTIO_MMIO_MAGIC_VALUE) == 0x74726976);
    MUST((read_word(slot, VIRTIO_MMIO_STATUS) & 0x30) == 0);
    MUST((read_word(slot, VIRTIO_MMIO_INTERRUPT_STATUS) & ~3u) == 0);
}

/* An ordinary request completes: random bytes, or a read of a sector. */
static void expect_works(unsigned slot)
{
    const uint64_t buffer = HIGH + 6 * PAGE;
    const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN};
    const struct vring_desc desc[3] = {
        {buffer, sizeof(header), VRING_DESC_F_NEXT, 1},
        {buffer + 16, 512, slot ? VRING_DESC_F_NEXT | VRING_DESC_F_WRITE : VRING_DESC_F_WRITE, 2},
        {buffer + 528, 1, VRING_DESC_F_WRITE, 0}};
    const uint8_t status = 0xff;
    uint64_t ring = ring_of(slot, 0);
    eventfd_t count;

    start(slot, UINT32_MAX, 3, SIZE);
    MUST(read_word(slot, VIRTIO_MMIO_STATUS) == 15);
    put(ring, desc, sizeof(desc));
    put(buffer, &header, sizeof(header));
    put(buffer + 528, &status, 1);
    struct vring_avail *avail = guest_mem_at(&mem, ring + AVAIL, 4 + 2 * SIZE + 2);
    const struct vring_used *used = guest_mem_at(&mem, ring + USED, 4 + 8 * SIZE + 2);
    eventfd_read(slots[slot].dev->call, &count);
    avail->idx = 1;
    write_word(slot, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
    for (unsigned i = 0; i < TURNS && *(volatile const uint16_t *)&used->idx == 0; i++)
        event_loop_once(&loop, 1);
    MUST(used->idx == 1 && used->ring[0].id == 0);
    MUST(used->ring[0].len == (slot ? 513 : 512));
    if (slot)
        MUST(*(uint8_t *)guest_mem_at(&mem, buffer + 528, 1) == VIRTIO_BLK_S_OK);
    MUST(eventfd_read(slots[slot].dev->call, &count) == 0);
    MUST(read_word(slot, VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING);
    write_word(slot, VIRTIO_MMIO_STATUS, 0);
    MUST(read_word(slot, VIRTIO_MMIO_STATUS) == 0);
    MUST(read_word(slot, VIRTIO_MMIO_INTERRUPT_STATUS) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (mem.count == 0)
        set_up();
    input = (struct fuzz_input){data, size};
    for (unsigned i = 0; i < 2; i++) {
        memset(mem.regions[i].host, 0, REGION);
        write_word(i, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
        write_word(i, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
        write_word(i, VIRTIO_MMIO_QUEUE_SEL, 0);
    }
    for (unsigned i = 0; i < STEPS && input.left > 0; i++)
        step();
    for (unsigned slot = 0; slot < 2; slot++)
        write_word(slot, VIRTIO_MMIO_STATUS, 0);
    for (unsigned slot = 0; slot < 2; slot++)
        expect_works(slot);
    return 0;
}
