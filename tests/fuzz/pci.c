/*
 * Fuzzes devices through the PCI transport: the input is a sequence of accesses to configuration
 * space, memory and ports of any size, guest memory writes, configuration changes of the host's and
 * turns of the event loop, with an entropy device and a disk behind it. Each input ends with a
 * driver that finds both devices and gets an ordinary request done by them, with an interrupt.
 *
 * Input: steps, each a byte that says what is done, and what that takes.
 */
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/blk.h"
#include "devices/pci_host.h"
#include "devices/rng.h"
#include "tests/fuzz/fuzz.h"
#include "tests/guarded_mem.h"
#include "virtio/pci.h"

#define PAGE    4096u
#define REGION  (8u * PAGE)
#define LOW     0x10000ull /* two regions side by side */
#define HIGH    (LOW + REGION)
#define MEMORY  0xd0100000u
#define PORTS   0x1000u
#define ADDRESS 0xcf8u
#define DATA    0xcfcu
#define DISK    (256u << 10)
#define QUEUES  2u /* of the disk */
#define SIZE    16u
#define STEPS   400u
#define TURNS   2000u
#define MESSAGE 0xfee00000u

static struct guest_mem mem;
static struct event_loop loop;
static struct bus mmio, pio;
static struct pci_host host;
static struct virtio_pci slots[2];
static struct rng rng;
static struct disk *disk;
static struct blk *blk;
static uint32_t last_message;

static struct fuzz_input input;

static uint32_t take(unsigned bytes)
{
    return fuzz_take(&input, bytes);
}

static void send_message(void *arg, uint64_t address, uint32_t data)
{
    (void)arg;
    if (address == MESSAGE)
        last_message = data;
}

static uint64_t no_read(void *arg, uint64_t offset, unsigned size)
{
    (void)arg, (void)offset, (void)size;
    return 0;
}

static void no_write(void *arg, uint64_t offset, unsigned size, uint64_t value)
{
    (void)arg, (void)offset, (void)size, (void)value;
}

static void add(unsigned slot, struct virtio_dev *dev)
{
    struct virtio_pci *pci = &slots[slot];
    const struct pci_function function = {
        .read = virtio_pci_config_read, .write = virtio_pci_config_write, .arg = pci};
    uint32_t memory = MEMORY + slot * VIRTIO_PCI_MEMORY_SIZE;
    uint32_t ports = PORTS + slot * VIRTIO_PCI_PORTS;

    virtio_pci_init(pci, dev, memory, ports, send_message, NULL);
    pci_host_add(&host, slot + 1, &function);
    bus_add(&mmio, memory, VIRTIO_PCI_MEMORY_SIZE, &virtio_pci_memory_ops, pci);
    bus_add(&pio, ports, VIRTIO_PCI_PORTS, &virtio_pci_port_ops, pci);
}

static void set_up(void)
{
    static const struct bus_ops reset = {.read = no_read, .write = no_write};
    const struct blk_config config = {.serial = "fuzz", .queues = QUEUES, .queue_size = SIZE};
    struct minivmm_error err;
    char path[32];

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
    pci_host_init(&host, &reset, NULL);
    bus_add(&pio, ADDRESS, PCI_HOST_PORTS, &pci_host_ops, &host);
    add(0, &rng.dev);
    add(1, blk_device(blk));
}

static void set_config(unsigned slot, unsigned offset, unsigned size, uint32_t value)
{
    bus_write(&pio, ADDRESS, 4, 0x80000000u | (slot + 1) << 11 | (offset & 0xfc));
    bus_write(&pio, DATA + (offset & 3), size, value);
}

static uint32_t get_config(unsigned slot, unsigned offset, unsigned size)
{
    bus_write(&pio, ADDRESS, 4, 0x80000000u | (slot + 1) << 11 | (offset & 0xfc));
    return (uint32_t)bus_read(&pio, DATA + (offset & 3), size);
}

static uint64_t at_memory(unsigned slot, unsigned offset)
{
    return MEMORY + slot * VIRTIO_PCI_MEMORY_SIZE + offset;
}

static void set_common(unsigned slot, unsigned offset, unsigned size, uint32_t value)
{
    bus_write(&mmio, at_memory(slot, offset), size, value);
}

static uint32_t get_common(unsigned slot, unsigned offset, unsigned size)
{
    return (uint32_t)bus_read(&mmio, at_memory(slot, offset), size);
}

static void notify(unsigned slot, unsigned queue)
{
    bus_write(&pio, PORTS + slot * VIRTIO_PCI_PORTS, 2, queue);
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
#define TABLE 0x1000u /* of the vectors */

/* The function as a guest's firmware leaves it, all its vectors unmasked. */
static void find(unsigned slot)
{
    unsigned cap = get_config(slot, PCI_CAPABILITY_LIST, 1);

    set_config(slot, PCI_BASE_ADDRESS_0, 4, (uint32_t)at_memory(slot, 0));
    set_config(slot, PCI_BASE_ADDRESS_1, 4, PORTS + slot * VIRTIO_PCI_PORTS);
    set_config(slot, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    for (unsigned i = 0; i < 8 && get_config(slot, cap, 1) != PCI_CAP_ID_MSIX; i++)
        cap = get_config(slot, cap + PCI_CAP_LIST_NEXT, 1);
    MUST(get_config(slot, cap, 1) == PCI_CAP_ID_MSIX);
    set_config(slot, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    for (unsigned i = 0; i <= QUEUES; i++) {
        set_common(slot, TABLE + 16 * i, 4, MESSAGE);
        set_common(slot, TABLE + 16 * i + 4, 4, 0);
        set_common(slot, TABLE + 16 * i + 8, 4, slot << 8 | i);
        set_common(slot, TABLE + 16 * i + 12, 4, 0);
    }
}

/* All that a driver does up to DRIVER_OK. */
static void start(unsigned slot, uint32_t features, uint32_t ring_bits, uint32_t size)
{
    static const uint8_t none[PAGE];
    set_common(slot, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    set_common(slot, VIRTIO_PCI_COMMON_STATUS, 1, 3);
    set_common(slot, VIRTIO_PCI_COMMON_MSIX, 2, 0);
    set_common(slot, VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
    features &= get_common(slot, VIRTIO_PCI_COMMON_DF, 4);
    set_common(slot, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
    set_common(slot, VIRTIO_PCI_COMMON_GF, 4, features | (ring_bits & 3) << 28);
    set_common(slot, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
    set_common(slot, VIRTIO_PCI_COMMON_GF, 4, 1);
    set_common(slot, VIRTIO_PCI_COMMON_STATUS, 1, 11);
    for (unsigned queue = 0; queue < QUEUES; queue++) {
        uint64_t ring = ring_of(slot, queue);
        put(ring, none, sizeof(none));
        set_common(slot, VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
        set_common(slot, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
        set_common(slot, VIRTIO_PCI_COMMON_Q_MSIX, 2, queue + 1);
        set_common(slot, VIRTIO_PCI_COMMON_Q_DESCLO, 4, (uint32_t)ring);
        set_common(slot, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, (uint32_t)ring + AVAIL);
        set_common(slot, VIRTIO_PCI_COMMON_Q_USEDLO, 4, (uint32_t)ring + USED);
        set_common(slot, VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0);
        set_common(slot, VIRTIO_PCI_COMMON_Q_AVAILHI, 4, 0);
        set_common(slot, VIRTIO_PCI_COMMON_Q_USEDHI, 4, 0);
        set_common(slot, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
    }
    set_common(slot, VIRTIO_PCI_COMMON_STATUS, 1, 15);
}

/* A descriptor at `index`, and an entry for it. */
static void offer(unsigned slot, unsigned queue, uint16_t index)
{
    uint64_t ring = ring_of(slot, queue);
    struct vring_avail *avail = guest_mem_at(&mem, ring + AVAIL, 4 + 2 * SIZE + 2);
    uint32_t word = take(4);
    const struct vring_desc desc = {.addr = LOW + word % (2 * REGION + 64),
                                    .len = word >> 17 & 0x7ff,
                                    .flags = (uint16_t)(word >> 28 & 7),
                                    .next = (uint16_t)((index + 1) % SIZE)};
    put(ring + 16 * index, &desc, sizeof(desc));
    avail->ring[avail->idx % SIZE] = index;
    avail->idx++;
}

static void change_config(struct virtio_dev *dev)
{
    virtio_config_begin(dev);
    virtio_config_end(dev);
}

static void step(void)
{
    uint32_t what = take(1);
    unsigned slot = what >> 7, size = 1u << (what >> 5 & 3), offset;

    switch (what & 15) {
    case 0:
        offset = take(1);
        set_config(slot, offset, size, take(4));
        break;
    case 1:
        get_config(slot, take(1), size);
        break;
    case 2:
        bus_write(&pio, ADDRESS, size, take(4));
        break;
    case 3:
        bus_write(&pio, ADDRESS + take(1) % 9, size, take(4));
        break;
    case 4:
        bus_write(&mmio, at_memory(slot, take(2) % 0x2008), size, take(4));
        break;
    case 5:
        bus_read(&mmio, at_memory(slot, take(2) % 0x2008), size);
        break;
    case 6:
        offset = take(1) & 0x3f;
        set_common(slot, offset, size, take(4));
        break;
    case 7:
        offset = take(1) & 0x3f;
        bus_write(&mmio, at_memory(slot, TABLE + offset), size, (uint64_t)take(4) << 32 | take(4));
        break;
    case 8:
        find(slot);
        break;
    case 9:
        start(slot, take(4), what >> 5, 1u << take(1) % 6);
        break;
    case 10:
        find(slot);
        start(slot, UINT32_MAX, 3, SIZE);
        break;
    case 11:
    case 12:
        offer(slot, what >> 6 & 1, (uint16_t)(what >> 4 & 3) * 4);
        notify(slot, what >> 6 & 1);
        break;
    case 13:
        bus_write(&pio, PORTS + take(1) % 9, size, take(2));
        break;
    case 14:
        change_config(slots[slot].dev);
        break;
    default:
        event_loop_once(&loop, 0);
    }
    MUST(get_config(slot, PCI_VENDOR_ID, 2) == 0x1af4);
    MUST(get_config(slot, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);
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

    find(slot);
    start(slot, UINT32_MAX, 3, SIZE);
    MUST(get_common(slot, VIRTIO_PCI_COMMON_STATUS, 1) == 15);
    put(ring, desc, sizeof(desc));
    put(buffer, &header, sizeof(header));
    put(buffer + 528, &status, 1);
    struct vring_avail *avail = guest_mem_at(&mem, ring + AVAIL, 4 + 2 * SIZE + 2);
    const struct vring_used *used = guest_mem_at(&mem, ring + USED, 4 + 8 * SIZE + 2);
    last_message = UINT32_MAX;
    avail->idx = 1;
    notify(slot, 0);
    for (unsigned i = 0; i < TURNS && *(volatile const uint16_t *)&used->idx == 0; i++)
        event_loop_once(&loop, 1);
    MUST(used->idx == 1 && used->ring[0].id == 0);
    MUST(used->ring[0].len == (slot ? 513 : 512));
    if (slot)
        MUST(*(uint8_t *)guest_mem_at(&mem, buffer + 528, 1) == VIRTIO_BLK_S_OK);
    MUST(last_message == (slot << 8 | 1));
    set_common(slot, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    MUST(get_common(slot, VIRTIO_PCI_COMMON_STATUS, 1) == 0);
    set_common(slot, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    MUST(get_common(slot, VIRTIO_PCI_COMMON_Q_MSIX, 2) == VIRTIO_MSI_NO_VECTOR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (mem.count == 0)
        set_up();
    input = (struct fuzz_input){data, size};
    for (unsigned i = 0; i < 2; i++) {
        memset(mem.regions[i].host, 0, REGION);
        find(i);
        set_common(i, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    }
    for (unsigned i = 0; i < STEPS && input.left > 0; i++)
        step();
    for (unsigned slot = 0; slot < 2; slot++)
        expect_works(slot);
    return 0;
}
