/*
 * Devices without a VM: four threads play processors that use, reset, start and look at an entropy
 * device and a disk, while the loop's thread serves them and the disk's threads do its work.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/race/run.h"
#include "tests/unit/virtio_rig.h"

#define ROUNDS 300u
#define BUF    RIG_FREE

struct processor {
    struct virtio_rig *rig;
    const struct run *run;
    bool stop; /* atomic */
    unsigned short random[3];
    struct virtio_driver views[2]; /* of both devices; no queues */
    struct pci_driver pci[2];      /* for the views, over PCI */
};

static unsigned pick(struct processor *p, unsigned below)
{
    return (unsigned)(nrand48(p->random) % below);
}

static void use_rng(struct processor *p)
{
    struct virtio_driver *v = &p->rig->rng_driver;

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct piece piece = {RAM_A, 1 + pick(p, 4096), true};
        struct vring_used_elem element;
        if (i % 16 == 0 && !virtio_driver_start(v, UINT64_MAX, 1u << pick(p, 7)))
            complain(p->run, "the entropy device does not start");
        if (!virtio_driver_transact(v, 0, &piece, 1, &element) || element.len != piece.len)
            complain(p->run, "no random bytes");
        fake_driver_send(&v->queues[0], &piece, 1); /* for the next start to forget */
        if (pick(p, 2))
            virtio_driver_kick(v, 0);
        if (i % 16 != 15 && !virtio_driver_wait(v, 0, &element) && pick(p, 2))
            continue;
    }
    virtio_driver_reset(v);
}

static uint8_t one_transfer(struct processor *p, unsigned round)
{
    struct blk_driver *d = &p->rig->blk_driver;
    uint64_t sector = pick(p, 1024);
    uint32_t length = 512 * (1 + pick(p, 64));

    switch (round % 3) {
    case 0:
        return blk_driver_read(d, sector, BUF, length);
    case 1:
        return blk_driver_write(d, sector, BUF, length);
    default:
        return blk_driver_flush(d);
    }
}

static void *use_disk(void *arg)
{
    struct processor *p = arg;
    struct blk_driver *d = &p->rig->blk_driver;
    const struct blk_request flush = {.type = VIRTIO_BLK_T_FLUSH};

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (i % 8 == 0 && !virtio_driver_start(&d->v, UINT64_MAX, 0))
            complain(p->run, "the disk does not start");
        blk_driver_forget(d);
        if (one_transfer(p, i) != VIRTIO_BLK_S_OK)
            complain(p->run, "no transfer in round %u", i);
        for (unsigned n = i % 8 == 7 ? pick(p, 8) : 0; n > 0; n--)
            blk_driver_send(d, 1, &flush); /* under way when it is reset */
        virtio_driver_notify(&d->v, 1);
        if (i % 32 == 7) {
            virtio_driver_write(&d->v, VIRTIO_MMIO_QUEUE_SEL, 1);
            virtio_driver_write(&d->v, VIRTIO_MMIO_QUEUE_READY, 0);
        }
    }
    virtio_driver_reset(&d->v);
    return NULL;
}

/*
 * Masks of vectors and of the function come and go; nothing stays masked, so that no driver waits
 * for ever. A guest locks its accesses to configuration space, which are two each.
 */
static void shake_vectors(struct processor *p, const struct pci_driver *pci)
{
    static pthread_mutex_t config_space = PTHREAD_MUTEX_INITIALIZER;
    unsigned vector = pick(p, pci->vectors);

    pci_driver_mask(pci, vector, true);
    bus_read(pci->mmio, pci->pending, 8);
    pci_driver_mask(pci, vector, false);
    pthread_mutex_lock(&config_space);
    pci_config_read(pci->pio, pci->device, 4 * pick(p, 64), 4);
    if (pick(p, 4) == 0) {
        pci_driver_control(pci, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
        pci_driver_control(pci, PCI_MSIX_FLAGS_ENABLE);
    }
    pthread_mutex_unlock(&config_space);
}

/* Everything that any processor may do at any time to devices that others use. */
static void *look_around(void *arg)
{
    struct processor *p = arg;
    const unsigned wce = offsetof(struct virtio_blk_config, wce);

    while (!__atomic_load_n(&p->stop, __ATOMIC_RELAXED)) {
        const struct virtio_driver *one = &p->views[pick(p, 2)];
        virtio_driver_notify(one, pick(p, 3));
        virtio_driver_read(one, 4 * pick(p, 64));
        virtio_driver_config(one, 4 * pick(p, 8), 4);
        virtio_driver_config(one, wce, 1);
        virtio_driver_set_config(one, wce, 1, pick(p, 2));
        if (one->pci)
            shake_vectors(p, one->pci);
        if (pick(p, 4) == 0)
            virtio_driver_write(one, VIRTIO_MMIO_INTERRUPT_ACK, pick(p, 4));
        struct virtio_dev *dev = pick(p, 2) ? &p->rig->rng.dev : blk_device(p->rig->blk);
        if (pick(p, 16) == 0) { /* the host, not a processor */
            virtio_config_begin(dev);
            virtio_config_end(dev);
        }
    }
    return NULL;
}

static void use_devices(struct run *base, bool pci, bool calls)
{
    static struct virtio_rig rig;
    const struct virtio_rig_config config = {
        .threaded = true, .pci = pci, .calls = calls, .blk = {.queues = 2, .queue_size = 64}};
    struct minivmm_error err;
    struct processor processors[4];
    pthread_t threads[3];

    if (!virtio_rig_init(&rig, &config, &err)) {
        complain(base, "%s", err.text);
        return;
    }
    for (unsigned i = 0; i < 4; i++) {
        processors[i] = (struct processor){
            .rig = &rig, .run = base, .views = {rig.rng_driver, rig.blk_driver.v}};
        memcpy(processors[i].random, base->random, sizeof(base->random));
        processors[i].random[0] = (unsigned short)(base->random[0] + i);
        for (unsigned n = 0; pci && n < 2; n++) {
            processors[i].pci[n] = *processors[i].views[n].pci;
            processors[i].views[n].pci = &processors[i].pci[n];
        }
    }
    if (pthread_create(&threads[0], NULL, use_disk, &processors[0]) != 0 ||
        pthread_create(&threads[1], NULL, look_around, &processors[1]) != 0 ||
        pthread_create(&threads[2], NULL, look_around, &processors[2]) != 0)
        abort();
    use_rng(&processors[3]);
    pthread_join(threads[0], NULL);
    for (unsigned i = 1; i <= 2; i++) {
        __atomic_store_n(&processors[i].stop, true, __ATOMIC_RELAXED);
        pthread_join(threads[i], NULL);
    }
    if (calls && rig.calls.wired == 0)
        complain(base, "no call was ever wired");
    virtio_rig_finish(&rig);
    base->random[1]++;
}

void devices_without_a_vm(struct run *base)
{
    use_devices(base, false, false);
}

void devices_over_pci(struct run *base)
{
    use_devices(base, true, false);
}

void devices_by_calls(struct run *base)
{
    use_devices(base, true, true);
}
