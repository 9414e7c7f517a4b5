/* Answers of the control socket as tables. */
#include <inttypes.h>
#include <string.h>

#include "vmm/ctl.h"

#define MIB (UINT64_C(1) << 20)

static int64_t number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

/* Text of a VM's, or of whoever answers in its place: no control characters. */
static void print_text(FILE *out, const char *text)
{
    for (; text && *text; text++)
        fputc((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text, out);
}

static void print_row(FILE *out, const char *name, const char *text)
{
    fprintf(out, "%-10s ", name);
    print_text(out, text);
    fputc('\n', out);
}

void ctl_print_status(FILE *out, const json_t *instance, const json_t *machine,
                      const json_t *metrics)
{
    const json_t *balloon = json_object_get(metrics, "balloon");

    print_row(out, "state", json_string_value(json_object_get(instance, "state")));
    print_row(out, "id", json_string_value(json_object_get(instance, "id")));
    print_row(out, "version", json_string_value(json_object_get(instance, "vmm_version")));
    fprintf(out, "%-10s %.1f s\n", "uptime", (double)number(metrics, "uptime_ms") / 1e3);
    fprintf(out, "%-10s %" PRId64 "\n", "vCPUs", number(machine, "vcpu_count"));
    fprintf(out, "%-10s %" PRId64 " MiB", "memory", number(machine, "mem_size_mib"));
    if (balloon)
        fprintf(out, ", the balloon has %" PRIu64 " of %" PRIu64 " MiB asked for",
                (uint64_t)number(balloon, "actual_bytes") / MIB,
                (uint64_t)number(balloon, "target_bytes") / MIB);
    fputc('\n', out);
}

static void print_devices(FILE *out, const json_t *devices)
{
    size_t i, q;
    json_t *device, *queue;

    if (json_array_size(devices) > 0)
        fprintf(out, "\n%-5s %-8s %-6s %14s %14s\n", "slot", "device", "queue", "requests",
                "interrupts");
    json_array_foreach(devices, i, device)
    {
        json_array_foreach(json_object_get(device, "queues"), q, queue)
        {
            fprintf(out, "%-5" PRId64 " ", number(device, "slot"));
            const char *name = json_string_value(json_object_get(device, "name"));
            print_text(out, name);
            fprintf(out, "%*s %-6zu %14" PRId64 " %14" PRId64 "\n",
                    (int)(8 - strnlen(name ? name : "", 8)), "", q, number(queue, "requests"),
                    number(queue, "interrupts"));
        }
    }
}

void ctl_print_stats(FILE *out, const json_t *metrics, const json_t *statistics)
{
    const char *name;
    json_t *value;

    print_row(out, "state", json_string_value(json_object_get(metrics, "state")));
    fprintf(out, "%-10s %.1f s\n", "uptime", (double)number(metrics, "uptime_ms") / 1e3);
    fprintf(out, "\n%-20s %14s\n", "exits", "");
    json_object_foreach(json_object_get(metrics, "exits"), name, value)
    {
        if (json_integer_value(value) > 0)
            fprintf(out, "  %-18.18s %14" PRId64 "\n", name, (int64_t)json_integer_value(value));
    }
    print_devices(out, json_object_get(metrics, "devices"));
    if (!json_is_object(statistics))
        return;
    fprintf(out, "\nballoon\n");
    json_object_foreach((json_t *)statistics, name, value)
    {
        fprintf(out, "  %-18.18s %14" PRId64 "\n", name, (int64_t)json_integer_value(value));
    }
}

void ctl_print_event(FILE *out, const json_t *event)
{
    const char *kind = json_string_value(json_object_get(event, "event"));
    const char *name = json_string_value(json_object_get(event, "name"));
    const json_t *state = json_object_get(event, "state");
    const json_t *bytes = json_object_get(event, "bytes");

    if (json_object_get(event, "time_ns"))
        fprintf(out, "%13.6f  ", (double)number(event, "time_ns") / 1e9);
    else
        fprintf(out, "%13s  ", "");
    print_text(out, kind);
    if (state) {
        fputs(": ", out);
        print_text(out, json_string_value(state));
    }
    if (bytes)
        fprintf(out, ": %.1f MiB", (double)json_integer_value(bytes) / (double)MIB);
    if (name) {
        fputs(": ", out);
        print_text(out, name);
    }
    fputc('\n', out);
    fflush(out);
}
