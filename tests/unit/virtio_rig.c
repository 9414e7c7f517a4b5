#include "tests/unit/virtio_rig.h"

#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/workers.h"
#include "tests/guarded_mem.h"

#define RINGS    RAM_C              /* the entropy device's; a disk's begin behind them */
#define CONTROLS (RAM_C + 0x200000) /* the disk's headers and status bytes */
#define IMAGE    (1u << 20)

void *virtio_rig_at(const struct virtio_rig *rig, uint64_t gpa, uint64_t length)
{
    void *at = guest_mem_at(&rig->mem, gpa, length);
    MUST(at);
    return at;
}

/* What a machine's interrupt controller would take. */
static void take_message(void *arg, uint64_t address, uint32_t data)
{
    struct virtio_rig *rig = arg;
    unsigned slot = (data >> 8) - 1, vector = data & 0xff;

    if (address != MESSAGE_ADDRESS || slot >= RIG_SLOT_COUNT || vector >= RIG_VECTORS ||
        !rig->pci[slot].dev) {
        __atomic_fetch_add(&rig->strays, 1, __ATOMIC_RELAXED);
        return;
    }
    __atomic_fetch_add(&rig->messages[slot][vector], 1, __ATOMIC_RELAXED);
    eventfd_write(rig->pci[slot].dev->call, 1);
}

unsigned virtio_rig_messages(const struct virtio_rig *rig, unsigned slot, unsigned vector)
{
    return __atomic_load_n(&rig->messages[slot][vector], __ATOMIC_RELAXED);
}

static uint64_t reset_read(void *arg, uint64_t offset, unsigned size)
{
    (void)arg, (void)offset, (void)size;
    return 0;
}

static void reset_write(void *arg, uint64_t offset, unsigned size, uint64_t value)
{
    (void)arg, (void)offset, (void)size, (void)value;
}

static void add_pci_bus(struct virtio_rig *rig)
{
    static const struct bus_ops reset = {.read = reset_read, .write = reset_write};
    pci_host_init(&rig->pci_host, &reset, NULL);
    bus_add(&rig->pio, PCI_ADDRESS_PORT, PCI_HOST_PORTS, &pci_host_ops, &rig->pci_host);
}

/* In place of the transport's: as if the local datapath were somebody else's. */
static void interrupt_by_call(struct virtio_dev *dev, const struct virtio_queue *queue)
{
    struct virtio_pci *pci = dev->transport;
    struct virtio_rig *rig = pci->arg;
    unsigned slot = (unsigned)(pci - rig->pci);

    if (queue)
        call_rig_signal(&rig->calls, slot, queue);
    else
        rig->interrupt(dev, queue);
}

static void add_calls(struct virtio_rig *rig, unsigned slot, struct virtio_dev *dev)
{
    call_rig_add(&rig->calls, slot, &rig->pci[slot]);
    rig->interrupt = dev->interrupt;
    dev->interrupt = interrupt_by_call;
}

static void add_function(struct virtio_rig *rig, unsigned slot, struct virtio_dev *dev)
{
    struct virtio_pci *pci = &rig->pci[slot];
    uint32_t memory = RIG_PCI_MEMORY + slot * VIRTIO_PCI_MEMORY_SIZE;
    uint32_t ports = RIG_PCI_PORTS + slot * VIRTIO_PCI_PORTS;
    const struct pci_function function = {
        .read = virtio_pci_config_read, .write = virtio_pci_config_write, .arg = pci};

    virtio_pci_init(pci, dev, memory, ports, take_message, rig);
    pci_host_add(&rig->pci_host, slot + 1, &function);
    bus_add(&rig->bus, memory, VIRTIO_PCI_MEMORY_SIZE, &virtio_pci_memory_ops, pci);
    bus_add(&rig->pio, ports, VIRTIO_PCI_PORTS, &virtio_pci_port_ops, pci);
    rig->pci_drivers[slot] = (struct pci_driver){.mmio = &rig->bus, .pio = &rig->pio};
    if (rig->config.calls)
        add_calls(rig, slot, dev);
}

static void add_slot(struct virtio_rig *rig, unsigned slot, struct virtio_dev *dev)
{
    rig->slots[slot].dev = dev;
    if (rig->config.pci)
        add_function(rig, slot, dev);
    else
        bus_add(&rig->bus, RIG_SLOTS + slot * RIG_SLOT, VIRTIO_MMIO_SIZE, &virtio_mmio_ops,
                &rig->slots[slot]);
}

static struct virtio_driver driver_of(struct virtio_rig *rig, unsigned slot, uint64_t rings)
{
    struct virtio_dev *dev = rig->slots[slot].dev;
    struct virtio_driver driver = {
        .bus = &rig->bus, .mem = &rig->mem, .loop = &rig->loop, .call = dev->call, .rings = rings};
    if (rig->config.pci)
        driver.pci = &rig->pci_drivers[slot];
    MUST(virtio_driver_find(&driver, RIG_SLOTS, RIG_SLOT_COUNT, dev->type->id));
    return driver;
}

/* An image without a name, so that nothing is left of it whatever happens. */
static int create_image(uint64_t size, char path[32])
{
    int fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    MUST(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

static bool add_disk(struct virtio_rig *rig, struct minivmm_error *err)
{
    struct disk_config disk = rig->config.disk;
    struct blk_config blk = rig->config.blk;
    char path[32];

    rig->image = create_image(rig->config.disk_bytes ? rig->config.disk_bytes : IMAGE, path);
    disk.path = path;
    blk.readonly = disk.readonly;
    if (blk.queues == 0)
        blk.queues = 1;
    if (blk.queue_size == 0)
        blk.queue_size = BLK_QUEUE_SIZE;
    if (disk_create(&disk, &rig->loop, &rig->disk, err) < 0)
        return false;
    MUST(blk_create(&blk, rig->disk, &rig->mem, &rig->loop, &rig->blk, err) == 0);
    add_slot(rig, RIG_SLOT_BLK, blk_device(rig->blk));
    rig->blk_driver = (struct blk_driver){.v = driver_of(rig, RIG_SLOT_BLK, RINGS + 0x10000),
                                          .controls = CONTROLS};
    return true;
}

static void *loop_thread(void *arg)
{
    event_loop_run(arg);
    return NULL;
}

bool virtio_rig_init(struct virtio_rig *rig, const struct virtio_rig_config *config,
                     struct minivmm_error *err)
{
    const char *transport = getenv("MINIVMM_TEST_TRANSPORT");

    *rig = (struct virtio_rig){.config = *config, .image = -1};
    if (transport && strncmp(transport, "pci", 3) == 0)
        rig->config.pci = true;
    if (transport && strcmp(transport, "pci-calls") == 0)
        rig->config.calls = true;
    if (rig->config.pci)
        add_pci_bus(rig);
    call_rig_init(&rig->calls, take_message, rig);
    guarded_mem_add(&rig->mem, RAM_A, RAM_B - RAM_A);
    guarded_mem_add(&rig->mem, RAM_B, RAM_HOLE - RAM_B);
    guarded_mem_add(&rig->mem, RAM_C, RAM_END - RAM_C);
    MUST(event_loop_init(&rig->loop, err) == 0);
    MUST(rng_init(&rig->rng, &rig->mem, &rig->loop, err) == 0);
    add_slot(rig, RIG_SLOT_RNG, &rig->rng.dev);
    rig->rng_driver = driver_of(rig, RIG_SLOT_RNG, RINGS);
    if (!config->no_disk && !add_disk(rig, err)) {
        virtio_rig_finish(rig);
        return false;
    }
    if (config->threaded) {
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &old);
        rig->loop.has_thread = true;
        MUST(pthread_create(&rig->thread, NULL, loop_thread, &rig->loop) == 0);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    resources_take(&rig->before);
    return true;
}

void virtio_rig_finish(struct virtio_rig *rig)
{
    virtio_shutdown(&rig->rng.dev);
    if (rig->blk)
        virtio_shutdown(blk_device(rig->blk));
    if (rig->loop.has_thread) {
        event_loop_stop(&rig->loop);
        pthread_join(rig->thread, NULL);
        rig->loop.has_thread = false;
    }
    virtio_driver_finish(&rig->rng_driver);
    virtio_driver_finish(&rig->blk_driver.v);
    blk_destroy(rig->blk);
    disk_destroy(rig->disk);
    rng_finish(&rig->rng);
    for (unsigned i = 0; i < RIG_SLOT_COUNT; i++)
        virtio_pci_finish(&rig->pci[i]);
    call_rig_finish(&rig->calls);
    pci_host_finish(&rig->pci_host);
    event_loop_finish(&rig->loop);
    guest_mem_finish(&rig->mem);
    if (rig->image >= 0)
        close(rig->image);
    *rig = (struct virtio_rig){.image = -1};
}

bool virtio_rig_start(struct virtio_rig *rig, uint64_t features, uint32_t size)
{
    return virtio_driver_start(&rig->rng_driver, features, size) &&
           (!rig->disk || virtio_driver_start(&rig->blk_driver.v, features, size));
}

/* Is it in service, all of it? Then its driver goes on where it is. */
static bool in_service(const struct virtio_driver *v)
{
    return v->queue_count > 0 && virtio_driver_read(v, VIRTIO_MMIO_STATUS) == STATUS_DRIVER_OK &&
           v->queues[0].free_count >= 3;
}

static bool rng_works(struct virtio_rig *rig)
{
    static const uint8_t none[16];
    struct piece piece = {RIG_FREE, sizeof(none), true};
    struct vring_used_elem element;

    fake_driver_write(&rig->rng_driver.queues[0], piece.gpa, none, sizeof(none));
    if (!virtio_driver_transact(&rig->rng_driver, 0, &piece, 1, &element))
        return false;
    return element.len == sizeof(none) &&
           memcmp(virtio_rig_at(rig, RIG_FREE, sizeof(none)), none, sizeof(none)) != 0;
}

static bool blk_works(struct virtio_rig *rig)
{
    uint8_t sector[DISK_SECTOR];

    memset(virtio_rig_at(rig, RIG_FREE, sizeof(sector)), 0x5a, sizeof(sector));
    if (pread(rig->image, sector, sizeof(sector), 0) != sizeof(sector))
        return false;
    if (blk_driver_read(&rig->blk_driver, 0, RIG_FREE, sizeof(sector)) != VIRTIO_BLK_S_OK)
        return false;
    return rig->config.disk.ephemeral ||
           memcmp(virtio_rig_at(rig, RIG_FREE, sizeof(sector)), sector, sizeof(sector)) == 0;
}

bool virtio_rig_answers(struct virtio_rig *rig)
{
    if (!in_service(&rig->rng_driver) && !virtio_driver_start(&rig->rng_driver, UINT64_MAX, 0))
        return false;
    if (!rng_works(rig))
        return false;
    if (!rig->disk)
        return true;
    if (!in_service(&rig->blk_driver.v) && !virtio_driver_start(&rig->blk_driver.v, UINT64_MAX, 0))
        return false;
    return blk_works(rig);
}

bool virtio_rig_works(struct virtio_rig *rig)
{
    return virtio_rig_answers(rig) &&
           resources_are_back(&rig->before, WORKERS_MAX, &rig->loop, rig->thread);
}
