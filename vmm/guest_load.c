#include "vmm/guest_load.h"

#include <errno.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "vmm/balloon_policy.h"
#include "vmm/console_check.h"
#include "vmm/layout.h"

#define PAGE_SIZE 4096u

_Static_assert(MINIVMM_DEVICES_MAX == LAYOUT_VIRTIO_SLOTS, "what minivmm.h promises");

void minivmm_config_init(struct minivmm_config *config)
{
    *config = (struct minivmm_config){.cpus = 1,
                                      .memory = 256ull << 20,
                                      .platform = MINIVMM_PLATFORM_ACPI,
                                      .serial_in = -1,
                                      .serial_out = -1};
}

static int check_disk(const struct minivmm_disk *disk, unsigned index, struct minivmm_error *err)
{
    unsigned size = disk->queue_size;

    if (!disk->path || !*disk->path)
        return error_set(err, -EINVAL, "disk %u: no file given", index);
    if (disk->ephemeral && (disk->readonly || disk->direct))
        return error_set(err, -EINVAL, "disk %u: %s: ephemeral and %s exclude each other", index,
                         disk->path, disk->readonly ? "readonly" : "direct");
    if (disk->serial && strlen(disk->serial) > MINIVMM_DISK_SERIAL)
        return error_set(err, -EINVAL, "disk %u: %s: serial %s: has more than %u bytes", index,
                         disk->path, disk->serial, MINIVMM_DISK_SERIAL);
    if (disk->queues > MINIVMM_DISK_QUEUES)
        return error_set(err, -EINVAL, "disk %u: %s: %u queues are more than %u", index, disk->path,
                         disk->queues, MINIVMM_DISK_QUEUES);
    if (size &&
        ((size & (size - 1)) || size < MINIVMM_QUEUE_SIZE_MIN || size > MINIVMM_QUEUE_SIZE_MAX))
        return error_set(err, -EINVAL,
                         "disk %u: %s: queue size %u: must be a power of two from %u to %u", index,
                         disk->path, size, MINIVMM_QUEUE_SIZE_MIN, MINIVMM_QUEUE_SIZE_MAX);
    return 0;
}

static int check_net(const struct minivmm_net *net, unsigned index, struct minivmm_error *err)
{
    int ways = !!net->tap + (net->tap_fd > 0) + net->user + !!net->socket;
    bool is_tap = net->tap || net->tap_fd > 0;

    if (ways != 1 || (net->tap && !*net->tap) || (net->socket && !*net->socket))
        return error_set(err, -EINVAL,
                         "net %u: needs exactly one of a tap, an open tap, user and a socket",
                         index);
    if (net->mac[0] & 1)
        return error_set(err, -EINVAL, "net %u: mac: is the address of a group", index);
    if (net->mtu && (net->mtu < MINIVMM_MTU_MIN || net->mtu > MINIVMM_MTU_MAX))
        return error_set(err, -EINVAL, "net %u: mtu %u is not within %u to %u", index, net->mtu,
                         MINIVMM_MTU_MIN, MINIVMM_MTU_MAX);
    if (net->queues > MINIVMM_NET_QUEUES)
        return error_set(err, -EINVAL, "net %u: %u queues are more than %u", index, net->queues,
                         MINIVMM_NET_QUEUES);
    if (!is_tap && (net->mtu || net->queues > 1 || net->vhost || net->no_offload))
        return error_set(err, -EINVAL, "net %u: mtu, queues, vhost and offload are for taps",
                         index);
    if (net->tap_fd > 0 && net->queues > 1)
        return error_set(err, -EINVAL, "net %u: an open tap has one queue, not %u", index,
                         net->queues);
    if (net->vhost && net->pcap)
        return error_set(err, -EINVAL,
                         "net %u: pcap: with vhost the packets do not pass through here", index);
    if (!net->user && (net->deny || net->forward_count > 0))
        return error_set(err, -EINVAL, "net %u: forward and deny are for user", index);
    if (net->forward_count > MINIVMM_FORWARDS_MAX)
        return error_set(err, -EINVAL, "net %u: more than %u forwards", index,
                         MINIVMM_FORWARDS_MAX);
    return 0;
}

static bool has_ports(const struct minivmm_config *config)
{
    return config->port_count > 0 || config->status_port;
}

/* How many virtio devices the configuration asks for. */
static unsigned count_devices(const struct minivmm_config *config)
{
    return config->disk_count + config->net_count + config->rng + config->balloon +
           (config->console != NULL) + has_ports(config);
}

bool guest_load_slot(const struct minivmm_config *config, unsigned slot, char *text, size_t size)
{
    text[0] = '\0';
    if (slot < config->disk_count) {
        snprintf(text, size, "disk %u (%s)", slot, config->disks[slot].path);
        return true;
    }
    slot -= config->disk_count;
    if (slot < config->net_count) {
        const struct minivmm_net *net = &config->nets[slot];
        const char *to = net->tap      ? net->tap
                         : net->socket ? net->socket
                         : net->user   ? "user"
                                       : NULL;
        if (to)
            snprintf(text, size, "net %u (%s)", slot, to);
        else
            snprintf(text, size, "net %u (descriptor %d)", slot, net->tap_fd);
        return true;
    }
    slot -= config->net_count;
    const struct {
        const char *name;
        bool there;
    } others[] = {{"rng", config->rng},
                  {"balloon", config->balloon},
                  {"console", config->console != NULL},
                  {"ports", has_ports(config)}};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (others[i].there && slot-- == 0) {
            snprintf(text, size, "%s", others[i].name);
            return true;
        }
    }
    return false;
}

static int check_devices(const struct minivmm_config *config, struct minivmm_error *err)
{
    for (unsigned i = 0; i < config->disk_count; i++) {
        if (i == LAYOUT_VIRTIO_SLOTS)
            return error_set(err, -EINVAL, "disk %u: a VM has room for %u virtio devices", i,
                             LAYOUT_VIRTIO_SLOTS);
        int rc = check_disk(&config->disks[i], i, err);
        if (rc < 0)
            return rc;
    }
    for (unsigned i = 0; i < config->net_count; i++) {
        if (config->disk_count + i >= LAYOUT_VIRTIO_SLOTS)
            return error_set(err, -EINVAL, "net %u: a VM has room for %u virtio devices", i,
                             LAYOUT_VIRTIO_SLOTS);
        int rc = check_net(&config->nets[i], i, err);
        if (rc < 0)
            return rc;
    }
    if (count_devices(config) > LAYOUT_VIRTIO_SLOTS)
        return error_set(err, -EINVAL, "%s: a VM has room for %u virtio devices, and there are %u",
                         config->console || has_ports(config) ? "console"
                         : config->balloon                    ? "balloon"
                                                              : "rng",
                         LAYOUT_VIRTIO_SLOTS, count_devices(config));
    int rc = balloon_check(config, err);
    return rc < 0 ? rc : console_check(config, err);
}

static int check_transport(const struct minivmm_config *config, struct minivmm_error *err)
{
    if (config->transport == MINIVMM_TRANSPORT_MMIO)
        return 0;
    if (config->transport != MINIVMM_TRANSPORT_PCI)
        return error_set(err, -EINVAL, "transport: %d is none", (int)config->transport);
    if (config->platform != MINIVMM_PLATFORM_ACPI)
        return error_set(err, -EINVAL, "transport: pci needs the platform to be acpi");
    return 0;
}

static int check(const struct minivmm_config *config, struct minivmm_error *err)
{
    struct sysinfo host;

    if (!config->kernel || !*config->kernel)
        return error_set(err, -EINVAL, "kernel: none given");
    if (config->cpus < 1 || config->cpus > MINIVMM_CPUS_MAX)
        return error_set(err, -EINVAL, "cpus: %u is not within 1 to %u", config->cpus,
                         MINIVMM_CPUS_MAX);
    if (config->memory < MINIVMM_MEMORY_MIN || config->memory > MINIVMM_MEMORY_MAX ||
        config->memory % PAGE_SIZE)
        return error_set(err, -EINVAL,
                         "memory: %llu bytes: not a multiple of %u from 1 MiB to 4 TiB",
                         (unsigned long long)config->memory, PAGE_SIZE);
    if (config->timeout > MINIVMM_TIMEOUT_MAX)
        return error_set(err, -EINVAL, "timeout: %u is more than %u seconds", config->timeout,
                         MINIVMM_TIMEOUT_MAX);
    if (config->platform > MINIVMM_PLATFORM_CMDLINE)
        return error_set(err, -EINVAL, "platform: %d is none", (int)config->platform);
    if (sysinfo(&host) == 0) {
        uint64_t total = ((uint64_t)host.totalram + host.totalswap) * host.mem_unit;
        if (config->memory > total)
            return error_set(err, -ENOMEM, "memory: %llu MiB is more than this host's %llu MiB",
                             (unsigned long long)(config->memory >> 20),
                             (unsigned long long)(total >> 20));
    }
    int rc = check_devices(config, err);
    return rc < 0 ? rc : check_transport(config, err);
}

/* The platform that every VM has, and a slot for each virtio device or a bus for them all. */
static unsigned collect_facts(const struct minivmm_config *config, struct platform_fact *facts)
{
    unsigned n = 0;
    facts[n++] = (struct platform_fact){.kind = PLATFORM_COM1,
                                        .base = LAYOUT_PORT_COM1,
                                        .len = LAYOUT_PORTS_COM1,
                                        .irq = LAYOUT_IRQ_COM1};
    const bool acpi = config->platform == MINIVMM_PLATFORM_ACPI;
    facts[n++] = (struct platform_fact){.kind = PLATFORM_POWER,
                                        .base = LAYOUT_POWER,
                                        .len = LAYOUT_POWER_SIZE,
                                        .irq = acpi ? LAYOUT_IRQ_POWER : 0};
    facts[n++] =
        (struct platform_fact){.kind = PLATFORM_PVPANIC, .base = LAYOUT_PORT_PANIC, .len = 1};
    if (config->transport == MINIVMM_TRANSPORT_PCI) {
        facts[n++] = (struct platform_fact){
            .kind = PLATFORM_PCI, .base = LAYOUT_PCI, .len = LAYOUT_PCI_SIZE};
        return n;
    }
    for (unsigned i = 0; i < count_devices(config); i++)
        facts[n++] = (struct platform_fact){.kind = PLATFORM_VIRTIO,
                                            .base = LAYOUT_VIRTIO + i * LAYOUT_VIRTIO_SIZE,
                                            .len = LAYOUT_VIRTIO_SIZE,
                                            .irq = LAYOUT_IRQ_VIRTIO + i};
    return n;
}

int guest_load_init(struct guest_load *load, const struct minivmm_config *config,
                    struct minivmm_error *err)
{
    *load = (struct guest_load){0};
    int rc = check(config, err);
    if (rc == 0)
        rc = guest_mem_init(&load->mem, config->memory, err);
    if (rc < 0)
        return rc;

    load->fact_count = collect_facts(config, load->facts);
    const struct boot_config boot = {.kernel = config->kernel,
                                     .initrd = config->initrd,
                                     .cmdline = config->cmdline,
                                     .no_default_cmdline = config->no_default_cmdline,
                                     .consoles = console_words(config),
                                     .cpus = config->cpus,
                                     .platform = config->platform,
                                     .facts = load->facts,
                                     .fact_count = load->fact_count};
    rc = boot_load(&load->mem, &boot, &load->boot, err);
    if (rc < 0)
        guest_load_finish(load);
    return rc;
}

void guest_load_finish(struct guest_load *load)
{
    boot_result_finish(&load->boot);
    guest_mem_finish(&load->mem);
}
