#include "vmm/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_mmio.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/net_stream.h"
#include "devices/passt.h"
#include "devices/tap.h"
#include "virtio/pci_call.h"
#include "vmm/clock.h"
#include "vmm/counter.h"

#define LINES_PER_SECOND 10u
#define MACHINE_ID       "/etc/machine-id"

static uint64_t registers_of(const struct slots *slots, const struct virtio_mmio *mmio)
{
    return LAYOUT_VIRTIO + (uint64_t)(mmio - slots->mmio) * LAYOUT_VIRTIO_SIZE;
}

/* A busy queue's notifications stay in the kernel. Where KVM refuses, they arrive as before. */
static void add_kick_doorbell(void *arg, struct virtio_mmio *mmio, unsigned index)
{
    struct slots *slots = arg;
    kvm_add_doorbell(slots->kvm, virtio_queue(mmio->dev, index)->kick,
                     registers_of(slots, mmio) + VIRTIO_MMIO_QUEUE_NOTIFY, index);
}

/*
 * Acknowledgements of used buffers end in the kernel, which leaves one way out of the guest an
 * interrupt: to read its reason.
 */
static void add_ack_doorbell(void *arg, struct virtio_mmio *mmio)
{
    struct slots *slots = arg;
    if (kvm_add_doorbell(slots->kvm, slots->nowhere,
                         registers_of(slots, mmio) + VIRTIO_MMIO_INTERRUPT_ACK,
                         VIRTIO_MMIO_INT_VRING) == 0)
        virtio_acknowledged(mmio->dev);
}

static void add_port_doorbell(void *arg, struct virtio_pci *pci, unsigned index)
{
    struct slots *slots = arg;
    kvm_add_port_doorbell(slots->kvm, virtio_queue(pci->dev, index)->kick, (uint16_t)pci->ports,
                          (uint16_t)index);
}

static void send_message(void *arg, uint64_t address, uint32_t data)
{
    struct slots *slots = arg;
    kvm_send_msi(slots->kvm, address, data);
}

_Static_assert(2 * NET_PAIRS_MAX + 1 <= LAYOUT_SLOT_MESSAGES, "a number for each queue");

static int wire_call(void *arg, unsigned number, int fd, uint64_t address, uint32_t data)
{
    struct slots *slots = arg;
    const struct kvm_msi_route route = {.enabled = true, .address = address, .data = data};
    struct minivmm_error err;

    int rc = kvm_set_route(slots->kvm, LAYOUT_IRQ_MESSAGES + number, &route);
    return rc < 0 ? rc : kvm_add_irqfd(slots->kvm, fd, LAYOUT_IRQ_MESSAGES + number, &err);
}

static void unwire_call(void *arg, unsigned number, int fd)
{
    struct slots *slots = arg;
    kvm_remove_irqfd(slots->kvm, fd, LAYOUT_IRQ_MESSAGES + number);
}

static int place_on_pci(struct slots *slots, struct virtio_dev *dev, unsigned slot,
                        struct minivmm_error *err)
{
    struct virtio_pci *pci = &slots->pci[slot];
    uint32_t memory = LAYOUT_PCI + slot * VIRTIO_PCI_MEMORY_SIZE;
    uint32_t ports = LAYOUT_PCI_PORTS + slot * VIRTIO_PCI_PORTS;
    const struct pci_function function = {
        .read = virtio_pci_config_read, .write = virtio_pci_config_write, .arg = pci};
    const struct pci_call_wires wires = {.wire = wire_call, .unwire = unwire_call, .arg = slots};
    int rc = 0;

    virtio_pci_init(pci, dev, memory, ports, send_message, slots);
    pci->busy = add_port_doorbell;
    if (dev->datapath->external)
        rc = pci_calls_init(pci, &wires, slot * LAYOUT_SLOT_MESSAGES);
    if (rc < 0)
        return error_set(err, rc, "%s: interrupts: %s", dev->type->name, strerror(-rc));
    pci_host_add(slots->pci_host, slot + 1, &function);
    bus_add(slots->mmio_bus, memory, VIRTIO_PCI_MEMORY_SIZE, &virtio_pci_memory_ops, pci);
    bus_add(slots->pio_bus, ports, VIRTIO_PCI_PORTS, &virtio_pci_port_ops, pci);
    return 0;
}

static int place(struct slots *slots, struct virtio_dev *dev, struct minivmm_error *err)
{
    unsigned slot = slots->count++;

    slots->devs[slot] = dev;
    if (slots->pci_host)
        return place_on_pci(slots, dev, slot, err);
    slots->mmio[slot] = (struct virtio_mmio){
        .dev = dev, .busy = add_kick_doorbell, .interrupted = add_ack_doorbell, .arg = slots};
    bus_add(slots->mmio_bus, LAYOUT_VIRTIO + slot * LAYOUT_VIRTIO_SIZE, LAYOUT_VIRTIO_SIZE,
            &virtio_mmio_ops, &slots->mmio[slot]);
    return kvm_add_irqfd(slots->kvm, dev->call, LAYOUT_IRQ_VIRTIO + slot, err);
}

/*
 * A line for the owner, on the loop's thread. No more than a few a second: a guest may provoke
 * them.
 */
__attribute__((format(printf, 2, 3))) static void tell(struct slots *slots, const char *format, ...)
{
    uint64_t second = clock_now_ns() / NS_PER_SECOND;
    char line[200];
    va_list args;

    if (second != slots->told_second) {
        slots->told_second = second;
        slots->told = 0;
    }
    if (!slots->log || slots->told++ >= LINES_PER_SECOND)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    slots->log(slots->log_arg, line);
}

static void tell_failed(void *arg, enum disk_op op, int error)
{
    static const char *const names[] = {
        [DISK_READ] = "read",
        [DISK_WRITE] = "write",
        [DISK_FLUSH] = "flush",
        [DISK_DISCARD] = "discard",
        [DISK_ZERO] = "write of zeroes",
        [DISK_ZERO_UNMAP] = "write of zeroes",
    };
    struct slot_disk *disk = arg;
    tell(disk->slots, "disk %u: %s failed on the host: %s%s", disk->index, names[op],
         strerror(error),
         disk_failure(disk->disk) ? "; after a failed flush nothing is written any more" : "");
}

static int create_disk(struct slots *slots, const struct minivmm_disk *config,
                       const struct guest_mem *mem, struct event_loop *loop,
                       struct minivmm_error *err)
{
    unsigned index = slots->disk_count++;
    const struct disk_config backend = {.path = config->path,
                                        .index = index,
                                        .readonly = config->readonly,
                                        .direct = config->direct,
                                        .ephemeral = config->ephemeral};
    const struct blk_config frontend = {.readonly = config->readonly,
                                        .writethrough = config->writethrough,
                                        .serial = config->serial,
                                        .queues = config->queues ? config->queues : 1,
                                        .queue_size = config->queue_size ? config->queue_size
                                                                         : BLK_QUEUE_SIZE,
                                        .failed = tell_failed,
                                        .arg = &slots->disks[index]};
    struct slot_disk *disk = &slots->disks[index];

    disk->slots = slots;
    disk->index = index;
    int rc = disk_create(&backend, loop, &disk->disk, err);
    if (rc == 0 && disk_tail_bytes(disk->disk))
        rc = error_set(err, -EINVAL,
                       "disk %u: %s: its last %u bytes do not fill a sector of %u and would be out "
                       "of the guest's reach; fill it up: truncate -s %%%u %s",
                       index, config->path, disk_tail_bytes(disk->disk), DISK_SECTOR, DISK_SECTOR,
                       config->path);
    if (rc == 0)
        rc = blk_create(&frontend, disk->disk, mem, loop, &disk->blk, err);
    return rc;
}

/* ---- network interfaces -------------------------------------------------------------------- */

/*
 * An address that stays the same from boot to boot and differs between interfaces and hosts: a hash
 * (FNV-1a) of the interface's name and this host's machine id, marked as locally administered.
 */
static void make_mac(uint8_t *mac, const char *name, unsigned index)
{
    char text[128] = {0};
    uint64_t hash = 0xcbf29ce484222325ull;

    int fd = open(MACHINE_ID, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, 32);
    if (fd >= 0)
        close(fd);
    length = length < 0 ? 0 : length;
    length += snprintf(text + length, sizeof(text) - (size_t)length, "%s %u", name, index);
    for (ssize_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3ull;
    memcpy(mac, &hash, 6);
    mac[0] = (uint8_t)((mac[0] & ~1u) | 2u);
}

/* A frame that --net user,deny kept in. */
static void tell_denied(void *arg, unsigned index, const char *what)
{
    struct slots *slots = arg;
    counter_add(&slots->denied, 1);
    tell(slots, "net %u: denied %s", index, what);
}

static void tell_passt_ended(void *arg, unsigned index, const char *why)
{
    tell(arg, "net %u: passt has ended%s%s", index, *why ? ": " : "", why);
}

static int create_backend(struct slots *slots, const struct minivmm_net *config, unsigned index,
                          struct net_backend **backend, struct minivmm_error *err)
{
    if (config->user) {
        const struct passt_config passt = {.index = index,
                                           .forwards = config->forwards,
                                           .forward_count = config->forward_count,
                                           .deny = config->deny,
                                           .denied = tell_denied,
                                           .ended = tell_passt_ended,
                                           .arg = slots};
        return passt_create(&passt, backend, err);
    }
    if (config->socket) {
        const struct net_stream_config stream = {.mtu = NET_STREAM_MTU};
        int fd = net_stream_connect(config->socket, index, err);
        return fd < 0 ? fd : net_stream_create(&stream, fd, index, backend, err);
    }
    const struct tap_config tap = {.index = index,
                                   .name = config->tap,
                                   .fd = config->tap_fd > 0 ? config->tap_fd : -1,
                                   .pairs = config->queues ? config->queues : 1,
                                   .mtu = config->mtu,
                                   .no_offload = config->no_offload};
    return tap_create(&tap, backend, err);
}

static int create_net(struct slots *slots, const struct minivmm_net *config,
                      const struct guest_mem *mem, struct event_loop *loop,
                      struct minivmm_error *err)
{
    static const uint8_t no_mac[6];
    unsigned index = slots->net_count++;
    struct net_config frontend = {.index = index, .no_filter = config->vhost};
    struct net_backend *backend;
    char what[16];

    if (memcmp(config->mac, no_mac, sizeof(no_mac)) != 0)
        memcpy(frontend.mac, config->mac, sizeof(frontend.mac));
    else
        make_mac(frontend.mac, config->tap ? config->tap : "", index);
    int rc = config->pcap ? pcap_create(config->pcap, index, &slots->pcaps[index], err) : 0;
    if (rc == 0)
        rc = create_backend(slots, config, index, &backend, err);
    if (rc < 0)
        return rc;
    frontend.pcap = slots->pcaps[index];
    frontend.mtu = backend->mtu;
    snprintf(what, sizeof(what), "net %u", index);
    if (config->vhost)
        rc = vhost_net_create(what, mem, backend->pairs, backend->fds, &slots->vhosts[index], err);
    if (rc < 0) {
        backend->ops->destroy(backend);
        return rc;
    }
    rc = net_create(&frontend, backend, mem, loop, &slots->nets[index], err);
    if (rc == 0 && config->vhost)
        vhost_net_attach(slots->vhosts[index], slots->nets[index]);
    return rc;
}

/* ---- consoles ------------------------------------------------------------------------------ */

/* The console is a device of its own, see console.h. */
static int create_consoles(struct slots *slots, const struct minivmm_config *config,
                           const struct guest_mem *mem, struct event_loop *loop,
                           struct minivmm_error *err)
{
    const struct console_config console = {.console = config->console,
                                           .columns = config->columns,
                                           .rows = config->rows,
                                           .events = slots->console_events,
                                           .arg = slots->console_arg};
    const struct console_config ports = {.ports = config->ports,
                                         .port_count = config->port_count,
                                         .status_port = config->status_port,
                                         .events = slots->console_events,
                                         .arg = slots->console_arg};
    int rc = 0;

    if (config->console) {
        rc = console_create(&console, mem, loop, &slots->console, err);
        if (rc == 0)
            rc = place(slots, console_device(slots->console), err);
    }
    if (rc == 0 && (config->port_count > 0 || config->status_port)) {
        rc = console_create(&ports, mem, loop, &slots->ports, err);
        if (rc == 0)
            rc = place(slots, console_device(slots->ports), err);
    }
    return rc;
}

int slots_drain(struct slots *slots, bool patient, const char **name)
{
    int rc = slots->console ? console_drain(slots->console, patient, name) : 0;
    return rc == 0 && slots->ports ? console_drain(slots->ports, patient, name) : rc;
}

/* ---- all of them --------------------------------------------------------------------------- */

int slots_create(struct slots *slots, const struct minivmm_config *config,
                 const struct guest_mem *mem, struct event_loop *loop, struct kvm *kvm,
                 struct bus *mmio, struct bus *pio, struct pci_host *pci_host,
                 struct minivmm_error *err)
{
    int rc = 0;

    slots->kvm = kvm;
    slots->mmio_bus = mmio;
    slots->pio_bus = pio;
    slots->pci_host = pci_host;
    slots->log = config->log;
    slots->log_arg = config->log_arg;
    slots->nowhere = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (slots->nowhere < 0)
        return error_set(err, -errno, "eventfd: %s", strerror(errno));
    for (unsigned i = 0; rc == 0 && i < config->disk_count; i++) {
        rc = create_disk(slots, &config->disks[i], mem, loop, err);
        if (rc == 0)
            rc = place(slots, blk_device(slots->disks[i].blk), err);
    }
    for (unsigned i = 0; rc == 0 && i < config->net_count; i++) {
        rc = create_net(slots, &config->nets[i], mem, loop, err);
        if (rc == 0)
            rc = place(slots, net_device(slots->nets[i]), err);
    }
    if (rc == 0 && config->rng) {
        rc = rng_init(&slots->rng, mem, loop, err);
        if (rc == 0)
            rc = place(slots, &slots->rng.dev, err);
    }
    if (rc == 0 && config->balloon) {
        rc = balloon_create(mem, loop, &slots->balloon, err);
        if (rc == 0)
            rc = place(slots, balloon_device(slots->balloon), err);
    }
    if (rc == 0)
        rc = create_consoles(slots, config, mem, loop, err);
    return rc;
}

static void tell_driver_ok(void *arg, const struct virtio_dev *dev)
{
    struct slots *slots = arg;

    for (unsigned i = 0; i < slots->count; i++) {
        if (slots->devs[i] == dev)
            slots->driver_ok(slots->driver_ok_arg, dev->type->name, i);
    }
}

void slots_listen(struct slots *slots,
                  void (*driver_ok)(void *arg, const char *name, unsigned slot), void *arg)
{
    slots->driver_ok = driver_ok;
    slots->driver_ok_arg = arg;
    for (unsigned i = 0; i < slots->count; i++) {
        slots->devs[i]->driver_ok = tell_driver_ok;
        slots->devs[i]->driver_ok_arg = slots;
    }
}

void slots_shutdown(struct slots *slots)
{
    for (unsigned i = 0; i < slots->count; i++)
        virtio_shutdown(slots->devs[i]);
}

void slots_pause(struct slots *slots)
{
    for (unsigned i = 0; i < slots->count; i++)
        virtio_hold(slots->devs[i], VIRTIO_HOLD_PAUSE);
}

void slots_resume(struct slots *slots)
{
    for (unsigned i = 0; i < slots->count; i++)
        virtio_release(slots->devs[i], VIRTIO_HOLD_PAUSE);
}

void slots_finish(struct slots *slots)
{
    for (unsigned i = 0; i < slots->disk_count; i++) {
        blk_destroy(slots->disks[i].blk);
        disk_destroy(slots->disks[i].disk);
    }
    for (unsigned i = 0; i < slots->net_count; i++) {
        net_destroy(slots->nets[i]);
        vhost_net_destroy(slots->vhosts[i]);
        pcap_destroy(slots->pcaps[i]);
    }
    rng_finish(&slots->rng);
    balloon_destroy(slots->balloon);
    for (unsigned i = 0; i < slots->count; i++)
        virtio_pci_finish(&slots->pci[i]);
    console_destroy(slots->console);
    console_destroy(slots->ports);
    if (slots->kvm && slots->nowhere >= 0)
        close(slots->nowhere);
    *slots = (struct slots){0};
}

void slots_print(const struct slots *slots, FILE *out)
{
    for (unsigned i = 0; i < slots->count; i++) {
        const struct virtio_dev *dev = slots->devs[i];
        for (unsigned q = 0; q < dev->queue_count; q++) {
            const struct virtio_queue *queue = &dev->queues[q];
            fprintf(out, "slot %u, %s, queue %u: %llu requests, %llu interrupts\n", i,
                    dev->type->name, q, (unsigned long long)queue->chains,
                    (unsigned long long)queue->interrupts);
        }
        if (dev->breaks)
            fprintf(out, "slot %u, %s: its driver broke a queue %llu time%s\n", i, dev->type->name,
                    (unsigned long long)dev->breaks, dev->breaks == 1 ? "" : "s");
    }
    for (unsigned i = 0; i < slots->net_count; i++) {
        struct net_drops drops = net_drops(slots->nets[i]);
        if (drops.sent || drops.received || drops.filtered)
            fprintf(out, "net %u: dropped %llu sent, %llu received; %llu not addressed to it\n", i,
                    (unsigned long long)drops.sent, (unsigned long long)drops.received,
                    (unsigned long long)drops.filtered);
    }
    if (slots->denied)
        fprintf(out, "denied: %llu frames\n", (unsigned long long)slots->denied);
}

void slots_metrics(const struct slots *slots, struct minivmm_metrics *metrics)
{
    for (unsigned i = 0; i < slots->count && i < MINIVMM_DEVICES_MAX; i++) {
        const struct virtio_dev *dev = slots->devs[i];
        struct minivmm_device_metrics *device = &metrics->devices[metrics->device_count++];
        device->name = dev->type->name;
        device->breaks = counter_get(&dev->breaks);
        device->external = dev->datapath->external;
        for (unsigned n = 0; n < slots->net_count; n++) {
            if (dev != net_device(slots->nets[n]))
                continue;
            struct net_drops drops = net_drops(slots->nets[n]);
            device->has_drops = true;
            device->drops_sent = drops.sent;
            device->drops_received = drops.received;
            device->drops_filtered = drops.filtered;
        }
        for (unsigned q = 0; q < dev->queue_count && q < MINIVMM_DEVICE_QUEUES; q++) {
            struct minivmm_queue_metrics *queue = &device->queues[device->queue_count++];
            queue->requests = counter_get(&dev->queues[q].chains);
            queue->interrupts = counter_get(&dev->queues[q].interrupts);
        }
    }
    metrics->denied = counter_get(&slots->denied);
}
