/*
 * The virtio devices of a VM: what the configuration asks for, each in a virtio-mmio slot of the
 * memory map with an interrupt line of its own. Slot numbers are the order of the guest's names.
 */
#ifndef VMM_SLOTS_H
#define VMM_SLOTS_H

#include "devices/blk.h"
#include "devices/console.h"
#include "devices/net.h"
#include "devices/pcap.h"
#include "devices/rng.h"
#include "devices/vhost_net.h"
#include "virtio/mmio.h"
#include "vmm/kvm.h"
#include "vmm/minivmm.h"

struct slots {
    struct kvm *kvm;
    int nowhere; /* an eventfd that nobody reads, for what need not arrive */
    unsigned count;
    struct virtio_mmio mmio[LAYOUT_VIRTIO_SLOTS];
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
    struct console *console;                     /* NULL: none */
    struct console *ports;                       /* as well */
    const struct console_events *console_events; /* filled in before slots_create */
    void *console_arg;

    void (*log)(void *arg, const char *line); /* of the configuration */
    void *log_arg;
    uint64_t told_second; /* lines told, and in which second */
    unsigned told;
    uint64_t denied; /* frames */
};

/* Create every device and put it on the bus; `slots` is {0} but for its events. On failure
 * slots_finish cleans up. */
int slots_create(struct slots *slots, const struct minivmm_config *config,
                 const struct guest_mem *mem, struct event_loop *loop, struct kvm *kvm,
                 struct bus *mmio, struct minivmm_error *err);

/* The vCPUs are gone, on the loop's thread: see console_drain. */
int slots_drain(struct slots *slots, bool patient, const char **name);

/* The vCPUs are gone, the loop still runs: end all I/O. Nothing touches guest memory afterwards. */
void slots_shutdown(struct slots *slots);

/* The loop has stopped. Harmless on {0}. */
void slots_finish(struct slots *slots);

/* For a person: what each device has done. Once nothing runs. */
void slots_print(const struct slots *slots, FILE *out);

#endif
