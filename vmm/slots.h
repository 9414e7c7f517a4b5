/*
 * The virtio devices of a VM: what the configuration asks for, each in a virtio-mmio slot of the
 * memory map with an interrupt line of its own, or on a PCI bus. Slot numbers are the order of the
 * guest's names.
 */
#ifndef VMM_SLOTS_H
#define VMM_SLOTS_H

#include "devices/balloon.h"
#include "devices/blk.h"
#include "devices/console.h"
#include "devices/net.h"
#include "devices/pcap.h"
#include "devices/pci_host.h"
#include "devices/rng.h"
#include "devices/vhost_net.h"
#include "virtio/mmio.h"
#include "virtio/pci.h"
#include "vmm/kvm.h"
#include "vmm/minivmm.h"

struct slots {
    struct kvm *kvm;
    struct bus *mmio_bus, *pio_bus;
    int nowhere; /* an eventfd that nobody reads, for what need not arrive */
    unsigned count;
    struct virtio_dev *devs[LAYOUT_VIRTIO_SLOTS];
    struct virtio_mmio mmio[LAYOUT_VIRTIO_SLOTS]; /* one of these two is used */
    struct virtio_pci pci[LAYOUT_VIRTIO_SLOTS];
    struct pci_host *pci_host; /* NULL: virtio-mmio */
    unsigned disk_count;
    struct slot_disk {
        struct slots *slots;
        unsigned index;
        struct disk *disk;
        struct blk *blk;
    } disks[LAYOUT_VIRTIO_SLOTS];
    unsigned net_count;
    struct net *nets[LAYOUT_VIRTIO_SLOTS];
    struct pcap *pcaps[LAYOUT_VIRTIO_SLOTS];
    struct vhost_net *vhosts[LAYOUT_VIRTIO_SLOTS];
    struct rng rng;
    struct balloon *balloon;                     /* NULL without */
    struct console *console;                     /* NULL: none */
    struct console *ports;                       /* as well */
    const struct console_events *console_events; /* filled in before slots_create */
    void *console_arg;

    void (*driver_ok)(void *arg, const char *name, unsigned slot); /* see slots_listen */
    void *driver_ok_arg;

    void (*log)(void *arg, const char *line); /* of the configuration */
    void *log_arg;
    uint64_t told_second; /* lines told, and in which second */
    unsigned told;
    uint64_t denied; /* frames */
};

/*
 * Create every device and put it on the buses, and on `pci_host` if there is one, which stays the
 * caller's; `slots` is {0} but for its events. On failure slots_finish cleans up.
 */
int slots_create(struct slots *slots, const struct minivmm_config *config,
                 const struct guest_mem *mem, struct event_loop *loop, struct kvm *kvm,
                 struct bus *mmio, struct bus *pio, struct pci_host *pci_host,
                 struct minivmm_error *err);

/*
 * Before any vCPU runs: `driver_ok` hears of each driver that takes over a device, by the name of
 * its kind and its slot; on a vCPU thread, with the device's lock held.
 */
void slots_listen(struct slots *slots,
                  void (*driver_ok)(void *arg, const char *name, unsigned slot), void *arg);

/* The vCPUs are gone, on the loop's thread: see console_drain. */
int slots_drain(struct slots *slots, bool patient, const char **name);

/* The vCPUs are gone, the loop still runs: end all I/O. Nothing touches guest memory afterwards. */
void slots_shutdown(struct slots *slots);

/* The vCPUs stand still, the loop runs: end all I/O, and go on where it was. */
void slots_pause(struct slots *slots);
void slots_resume(struct slots *slots);

/* The loop has stopped. Harmless on {0}. */
void slots_finish(struct slots *slots);

/* From any thread: add what each device has done. */
void slots_metrics(const struct slots *slots, struct minivmm_metrics *metrics);

/* For a person: what each device has done. Once nothing runs. */
void slots_print(const struct slots *slots, FILE *out);

#endif
