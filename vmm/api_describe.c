/* A VM in JSON: Firecracker's words for what it has too. */
#include <jansson.h>
#include <linux/virtio_balloon.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/api_request.h"

#define MIB  (1ull << 20)
#define PAGE 4096u

/* Text that may hold anything, a guest's output say. */
static json_t *text_of(const char *text)
{
    json_t *string = json_string(text);
    if (string)
        return string;
    char *ascii = strdup(text);
    for (char *at = ascii; at && *at; at++)
        *at = (char)(*at & 0x80 ? '?' : *at);
    string = ascii ? json_string(ascii) : NULL;
    free(ascii);
    return string;
}

/* The text of a value, which is used up; NULL where memory is out. */
static char *dump(json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    json_decref(value);
    return text;
}

static void set(json_t *object, const char *name, json_t *value)
{
    json_object_set_new(object, name, value);
}

static void set_number(json_t *object, const char *name, uint64_t value)
{
    set(object, name, json_integer((json_int_t)value));
}

const char *api_state_name(enum minivmm_state state)
{
    static const char *const names[] = {
        [MINIVMM_STATE_NOT_STARTED] = "Not started",
        [MINIVMM_STATE_RUNNING] = "Running",
        [MINIVMM_STATE_PAUSED] = "Paused",
        [MINIVMM_STATE_ENDED] = "Ended",
    };
    return names[state];
}

char *api_describe_instance(const struct api_target *target)
{
    json_t *instance = json_object();
    set(instance, "app_name", json_string("minivmm"));
    set(instance, "id", json_sprintf("minivmm-%ld", (long)getpid()));
    set(instance, "state", json_string(api_state_name(target->calls->state(target->vm))));
    set(instance, "vmm_version", json_string(MINIVMM_VERSION));
    return dump(instance);
}

char *api_describe_version(void)
{
    json_t *version = json_object();
    /* The name that Firecracker's clients look for; the version is ours. */
    set(version, "firecracker_version", json_string(MINIVMM_VERSION));
    set(version, "minivmm_version", json_string(MINIVMM_VERSION));
    return dump(version);
}

static json_t *machine(const struct minivmm_config *config)
{
    json_t *object = json_object();
    set_number(object, "vcpu_count", config->cpus);
    set_number(object, "mem_size_mib", config->memory / MIB);
    set(object, "smt", json_false());
    set(object, "track_dirty_pages", json_false());
    return object;
}

char *api_describe_machine(const struct api_target *target)
{
    return dump(machine(target->config));
}

static json_t *drives(const struct minivmm_config *config)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < config->disk_count; i++) {
        const struct minivmm_disk *disk = &config->disks[i];
        json_t *object = json_object();
        set(object, "drive_id", json_sprintf("disk%u", i));
        set(object, "path_on_host", text_of(disk->path));
        set(object, "is_root_device", json_false());
        set(object, "is_read_only", json_boolean(disk->readonly));
        set(object, "cache_type", json_string("Writeback"));
        set(object, "io_engine", json_string("Async"));
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *interfaces(const struct minivmm_config *config)
{
    static const uint8_t none[6];
    json_t *array = json_array();
    for (unsigned i = 0; i < config->net_count; i++) {
        const struct minivmm_net *net = &config->nets[i];
        json_t *object = json_object();
        set(object, "iface_id", json_sprintf("net%u", i));
        set(object, "host_dev_name", text_of(net->tap ? net->tap : net->user ? "user" : "socket"));
        if (memcmp(net->mac, none, sizeof(none)) != 0)
            set(object, "guest_mac",
                json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", net->mac[0], net->mac[1], net->mac[2],
                             net->mac[3], net->mac[4], net->mac[5]));
        json_array_append_new(array, object);
    }
    return array;
}

static json_t *balloon_of(const struct api_target *target, const struct minivmm_balloon *balloon)
{
    json_t *object = json_object();
    set_number(object, "amount_mib", balloon->target / MIB);
    set(object, "deflate_on_oom", json_true());
    set_number(object, "stats_polling_interval_s", target->stats_interval);
    set(object, "free_page_reporting", json_true());
    set(object, "automatic", json_boolean(balloon->automatic));
    return object;
}

char *api_describe_balloon(const struct api_target *target, const struct minivmm_balloon *balloon)
{
    return dump(balloon_of(target, balloon));
}

char *api_describe_config(const struct api_target *target)
{
    const struct minivmm_config *config = target->config;
    struct minivmm_balloon balloon;

    json_t *source = json_object();
    set(source, "kernel_image_path", text_of(config->kernel));
    if (config->initrd)
        set(source, "initrd_path", text_of(config->initrd));
    if (config->cmdline)
        set(source, "boot_args", text_of(config->cmdline));
    json_t *object = json_object();
    set(object, "boot-source", source);
    set(object, "machine-config", machine(config));
    set(object, "drives", drives(config));
    set(object, "network-interfaces", interfaces(config));
    if (config->rng)
        set(object, "entropy", json_object());
    if (target->calls->balloon_get(target->vm, &balloon) == 0)
        set(object, "balloon", balloon_of(target, &balloon));
    return dump(object);
}

char *api_describe_statistics(const struct minivmm_balloon *balloon)
{
    const struct minivmm_balloon_stats *stats = &balloon->stats;
    const struct {
        unsigned tag;
        const char *name;
        uint64_t value;
    } rows[] = {
        {VIRTIO_BALLOON_S_SWAP_IN, "swap_in", stats->swap_in},
        {VIRTIO_BALLOON_S_SWAP_OUT, "swap_out", stats->swap_out},
        {VIRTIO_BALLOON_S_MAJFLT, "major_faults", stats->major_faults},
        {VIRTIO_BALLOON_S_MINFLT, "minor_faults", stats->minor_faults},
        {VIRTIO_BALLOON_S_MEMFREE, "free_memory", stats->free_memory},
        {VIRTIO_BALLOON_S_MEMTOT, "total_memory", stats->total_memory},
        {VIRTIO_BALLOON_S_AVAIL, "available_memory", stats->available_memory},
        {VIRTIO_BALLOON_S_CACHES, "disk_caches", stats->disk_caches},
        {VIRTIO_BALLOON_S_HTLB_PGALLOC, "hugetlb_allocations", stats->hugetlb_allocations},
        {VIRTIO_BALLOON_S_HTLB_PGFAIL, "hugetlb_failures", stats->hugetlb_failures},
        /* Linux 6.12 has these; older headers do not name them. */
        {10, "oom_kill", stats->oom_kills},
        {11, "alloc_stall", stats->alloc_stalls},
        {12, "async_scan", stats->async_scans},
        {13, "direct_scan", stats->direct_scans},
        {14, "async_reclaim", stats->async_reclaims},
        {15, "direct_reclaim", stats->direct_reclaims},
    };

    json_t *object = json_object();
    set_number(object, "target_pages", balloon->target / PAGE);
    set_number(object, "actual_pages", balloon->actual / PAGE);
    set_number(object, "target_mib", balloon->target / MIB);
    set_number(object, "actual_mib", balloon->actual / MIB);
    for (size_t i = 0; balloon->has_stats && i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (stats->present >> rows[i].tag & 1) /* a guest may say more than JSON's integers hold */
            set_number(object, rows[i].name,
                       rows[i].value <= INT64_MAX ? rows[i].value : INT64_MAX);
    }
    if (balloon->has_stats)
        set_number(object, "age_ms", balloon->stats_age_ns / 1000000);
    return dump(object);
}

char *api_describe_fault(const char *text)
{
    json_t *fault = json_object();
    set(fault, "fault_message", text_of(text));
    return dump(fault);
}

/* ---- lines of /events ---------------------------------------------------------------------- */

static char *dump_line(json_t *object)
{
    char *text = dump(object);
    size_t length = text ? strlen(text) : 0;
    char *line = text ? realloc(text, length + 2) : NULL;
    if (!line) {
        free(text);
        return NULL;
    }
    memcpy(line + length, "\n", 2);
    return line;
}

char *api_describe_event(const struct minivmm_event *event, unsigned lost)
{
    static const char *const kinds[] = {
        [MINIVMM_EVENT_STARTED] = "started",     [MINIVMM_EVENT_OUTPUT] = "output",
        [MINIVMM_EVENT_DRIVER_OK] = "driver_ok", [MINIVMM_EVENT_EXPECTED] = "expected",
        [MINIVMM_EVENT_PANIC] = "panic",         [MINIVMM_EVENT_PAUSED] = "paused",
        [MINIVMM_EVENT_RESUMED] = "resumed",     [MINIVMM_EVENT_BALLOON] = "balloon",
        [MINIVMM_EVENT_ENDED] = "ended",
    };
    const size_t count = sizeof(kinds) / sizeof(kinds[0]);

    json_t *object = json_object();
    set(object, "event", json_string(event->kind < count ? kinds[event->kind] : "other"));
    set_number(object, "time_ns", event->time_ns);
    if (event->name)
        set(object, "name", text_of(event->name));
    if (event->kind == MINIVMM_EVENT_DRIVER_OK || event->kind == MINIVMM_EVENT_EXPECTED)
        set_number(object, "number", event->number);
    if (event->kind == MINIVMM_EVENT_BALLOON)
        set_number(object, "bytes", event->value);
    if (lost)
        set_number(object, "lost_before", lost);
    return dump_line(object);
}

char *api_describe_state(enum minivmm_state state)
{
    json_t *object = json_object();
    set(object, "event", json_string("state"));
    set(object, "state", json_string(api_state_name(state)));
    return dump_line(object);
}
