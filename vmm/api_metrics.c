/* What a VM has counted, in JSON and in Prometheus's text format. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "vmm/api_request.h"

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *device_json(unsigned slot, const struct minivmm_device_metrics *device)
{
    json_t *queues = json_array();
    for (unsigned i = 0; i < device->queue_count; i++)
        json_array_append_new(
            queues, json_pack("{s:I, s:I}", "requests", (json_int_t)device->queues[i].requests,
                              "interrupts", (json_int_t)device->queues[i].interrupts));
    json_t *object =
        json_pack("{s:i, s:s, s:I, s:b, s:o}", "slot", (int)slot, "name", device->name, "breaks",
                  (json_int_t)device->breaks, "external", device->external, "queues", queues);
    if (device->has_drops)
        json_object_set_new(object, "drops",
                            json_pack("{s:I, s:I, s:I}", "sent", (json_int_t)device->drops_sent,
                                      "received", (json_int_t)device->drops_received, "filtered",
                                      (json_int_t)device->drops_filtered));
    return object;
}

char *api_metrics_json(const struct api_target *target)
{
    struct minivmm_metrics metrics;
    struct minivmm_balloon balloon;

    target->calls->metrics(target->vm, &metrics);
    json_t *exits = json_object(), *devices = json_array();
    for (unsigned i = 0; i < metrics.exit_count; i++)
        json_object_set_new(exits, metrics.exits[i].name, number(metrics.exits[i].count));
    for (unsigned i = 0; i < metrics.device_count; i++)
        json_array_append_new(devices, device_json(i, &metrics.devices[i]));
    json_t *object = json_pack("{s:s, s:I, s:o, s:o, s:I, s:I}", "state",
                               api_state_name(target->calls->state(target->vm)), "uptime_ms",
                               (json_int_t)(metrics.uptime_ns / 1000000), "exits", exits, "devices",
                               devices, "serial_lost_bytes", (json_int_t)metrics.serial_lost,
                               "denied_frames", (json_int_t)metrics.denied);
    if (target->calls->balloon_get(target->vm, &balloon) == 0)
        json_object_set_new(object, "balloon",
                            json_pack("{s:I, s:I}", "target_bytes", (json_int_t)balloon.target,
                                      "actual_bytes", (json_int_t)balloon.actual));
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text;
}

static void head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP minivmm_%s %s\n# TYPE minivmm_%s %s\n", name, help, name, type);
}

static void queues_text(FILE *out, const struct minivmm_metrics *metrics)
{
    head(out, "queue_requests_total", "counter", "Requests that a device's queue has completed.");
    for (unsigned i = 0; i < metrics->device_count; i++)
        for (unsigned q = 0; q < metrics->devices[i].queue_count; q++)
            fprintf(out,
                    "minivmm_queue_requests_total{slot=\"%u\",device=\"%s\",queue=\"%u\"} %" PRIu64
                    "\n",
                    i, metrics->devices[i].name, q, metrics->devices[i].queues[q].requests);
    head(out, "queue_interrupts_total", "counter", "Interrupts given for a device's queue.");
    for (unsigned i = 0; i < metrics->device_count; i++)
        for (unsigned q = 0; q < metrics->devices[i].queue_count; q++)
            fprintf(out,
                    "minivmm_queue_interrupts_total{slot=\"%u\",device=\"%s\",queue=\"%u\"} "
                    "%" PRIu64 "\n",
                    i, metrics->devices[i].name, q, metrics->devices[i].queues[q].interrupts);
}

static void devices_text(FILE *out, const struct minivmm_metrics *metrics)
{
    head(out, "device_breaks_total", "counter", "How often a device's driver broke a queue.");
    for (unsigned i = 0; i < metrics->device_count; i++)
        fprintf(out, "minivmm_device_breaks_total{slot=\"%u\",device=\"%s\"} %" PRIu64 "\n", i,
                metrics->devices[i].name, metrics->devices[i].breaks);
    head(out, "net_drops_total", "counter", "Packets that an interface has lost.");
    for (unsigned i = 0; i < metrics->device_count; i++) {
        const struct minivmm_device_metrics *device = &metrics->devices[i];
        if (!device->has_drops)
            continue;
        fprintf(out, "minivmm_net_drops_total{slot=\"%u\",why=\"sent\"} %" PRIu64 "\n", i,
                device->drops_sent);
        fprintf(out, "minivmm_net_drops_total{slot=\"%u\",why=\"received\"} %" PRIu64 "\n", i,
                device->drops_received);
        fprintf(out, "minivmm_net_drops_total{slot=\"%u\",why=\"filtered\"} %" PRIu64 "\n", i,
                device->drops_filtered);
    }
}

char *api_metrics_text(const struct api_target *target)
{
    struct minivmm_metrics metrics;
    struct minivmm_balloon balloon;
    char *text = NULL;
    size_t size;

    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    target->calls->metrics(target->vm, &metrics);
    head(out, "paused", "gauge", "1 while the VM is paused.");
    fprintf(out, "minivmm_paused %d\n", target->calls->state(target->vm) == MINIVMM_STATE_PAUSED);
    head(out, "uptime_seconds", "gauge", "Time since the VM was started.");
    fprintf(out, "minivmm_uptime_seconds %.3f\n", (double)metrics.uptime_ns / 1e9);
    head(out, "exits_total", "counter", "How often vCPUs left the guest, by reason.");
    for (unsigned i = 0; i < metrics.exit_count; i++)
        fprintf(out, "minivmm_exits_total{reason=\"%s\"} %" PRIu64 "\n", metrics.exits[i].name,
                metrics.exits[i].count);
    queues_text(out, &metrics);
    devices_text(out, &metrics);
    head(out, "serial_lost_bytes_total", "counter", "Written while the transmitter was busy.");
    fprintf(out, "minivmm_serial_lost_bytes_total %" PRIu64 "\n", metrics.serial_lost);
    head(out, "denied_frames_total", "counter", "Frames that were kept in.");
    fprintf(out, "minivmm_denied_frames_total %" PRIu64 "\n", metrics.denied);
    if (target->calls->balloon_get(target->vm, &balloon) == 0) {
        head(out, "balloon_target_bytes", "gauge", "What the guest is asked to do without.");
        fprintf(out, "minivmm_balloon_target_bytes %" PRIu64 "\n", balloon.target);
        head(out, "balloon_actual_bytes", "gauge", "What its driver says it does without.");
        fprintf(out, "minivmm_balloon_actual_bytes %" PRIu64 "\n", balloon.actual);
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
