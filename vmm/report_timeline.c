/*
 * The timeline of a run in the Trace Event Format that Perfetto and chrome://tracing load: a JSON
 * object with "traceEvents". Times and durations are microseconds. "M" names a process or thread,
 * "X" is a phase with a duration, "i" an instant.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/report_facts.h"
#include "vmm/text.h"

#define PROCESS 1

/* Tracks, in the order in which they are shown. */
enum { TRACK_OWNER = 1, TRACK_LOOP, TRACK_VCPU };

static double microseconds(const struct report_facts *facts, uint64_t time_ns)
{
    return (double)(int64_t)(time_ns - facts->begun) / 1000.0;
}

static void name_track(json_t *events, unsigned track, const char *name)
{
    json_array_append_new(events, json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "ph", "M", "name",
                                            "thread_name", "pid", PROCESS, "tid", (int)track,
                                            "args", "name", name));
    json_array_append_new(events, json_pack("{s:s, s:s, s:i, s:i, s:{s:i}}", "ph", "M", "name",
                                            "thread_sort_index", "pid", PROCESS, "tid", (int)track,
                                            "args", "sort_index", (int)track));
}

/* Nothing where one of the moments never came. */
static void add_phase(json_t *events, const struct report_facts *facts, unsigned track,
                      const char *name, uint64_t from, uint64_t to)
{
    if (from == 0 || to == 0 || to < from)
        return;
    json_array_append_new(events, json_pack("{s:s, s:s, s:s, s:i, s:i, s:f, s:f}", "ph", "X", "cat",
                                            "phase", "name", name, "pid", PROCESS, "tid",
                                            (int)track, "ts", microseconds(facts, from), "dur",
                                            (double)(to - from) / 1000.0));
}

static unsigned track_of(const struct report_facts *facts, const char *thread)
{
    unsigned vcpu;
    char rest;

    if (strcmp(thread, "loop") == 0)
        return TRACK_LOOP;
    if (sscanf(thread, "vcpu%u%c", &vcpu, &rest) == 1 && vcpu < facts->cpus)
        return TRACK_VCPU + vcpu;
    return TRACK_OWNER;
}

static void add_instant(json_t *events, const struct report_facts *facts,
                        const struct report_event *event)
{
    static const char *const names[] = {
        [MINIVMM_EVENT_STARTED] = "started",     [MINIVMM_EVENT_OUTPUT] = "first output",
        [MINIVMM_EVENT_DRIVER_OK] = "DRIVER_OK", [MINIVMM_EVENT_EXPECTED] = "expectation",
        [MINIVMM_EVENT_PANIC] = "panic",         [MINIVMM_EVENT_PAUSED] = "paused",
        [MINIVMM_EVENT_RESUMED] = "resumed",     [MINIVMM_EVENT_BALLOON] = "balloon",
        [MINIVMM_EVENT_ENDED] = "ended",
    };
    bool known = (size_t)event->kind < sizeof(names) / sizeof(names[0]) && names[event->kind];
    char text[300] = "event";

    if (event->kind == MINIVMM_EVENT_DRIVER_OK)
        snprintf(text, sizeof(text), "DRIVER_OK slot %u: %s", event->number, event->name);
    else if (event->kind == MINIVMM_EVENT_EXPECTED)
        snprintf(text, sizeof(text), "expectation %u: %s", event->number, event->name);
    else if (known)
        snprintf(text, sizeof(text), "%s%s%s", names[event->kind], event->name[0] ? ": " : "",
                 event->name);
    char *clean = text_clean(text, strlen(text), TEXT_LINE);
    json_array_append_new(events,
                          json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:f, s:{s:I}}", "ph", "i", "s",
                                    "t", "cat", "event", "name", clean ? clean : "", "pid", PROCESS,
                                    "tid", (int)track_of(facts, event->thread), "ts",
                                    microseconds(facts, event->time_ns), "args", "value",
                                    (json_int_t)event->value));
    free(clean);
}

static void add_tracks(json_t *events, const struct report_facts *facts)
{
    const struct minivmm_times *t = &facts->times;

    name_track(events, TRACK_OWNER, "minivmm");
    if (!t->create)
        return;
    name_track(events, TRACK_LOOP, "event loop");
    add_phase(events, facts, TRACK_LOOP, "VM exists", t->create, facts->finished);
    for (unsigned i = 0; i < facts->cpus; i++) {
        char name[24];
        snprintf(name, sizeof(name), "vCPU %u", i);
        name_track(events, TRACK_VCPU + i, name);
        add_phase(events, facts, TRACK_VCPU + i, i == 0 ? "runs" : "may run", t->run, t->end);
    }
}

/* One after the other, so that none overlaps another. */
static void add_phases(json_t *events, const struct report_facts *facts)
{
    const struct minivmm_times *t = &facts->times;
    const struct report_event *output = report_find(facts, MINIVMM_EVENT_OUTPUT, 0);
    uint64_t printed = output && t->run && output->time_ns < t->end ? output->time_ns : 0;
    const uint64_t begun = facts->begun, finished = facts->finished;

    add_phase(events, facts, TRACK_OWNER, "options", begun, t->create ? t->create : finished);
    add_phase(events, facts, TRACK_OWNER, "create", t->create, t->start ? t->start : finished);
    add_phase(events, facts, TRACK_OWNER, "start", t->start, t->run);
    add_phase(events, facts, TRACK_OWNER, "kernel, silent", t->run, printed ? printed : t->end);
    add_phase(events, facts, TRACK_OWNER, "guest", printed, t->end);
    add_phase(events, facts, TRACK_OWNER, "end", t->end, finished);
}

int report_write_timeline(const struct report_facts *facts, FILE *out)
{
    json_t *events = json_array();

    json_array_append_new(events, json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "ph", "M", "name",
                                            "process_name", "pid", PROCESS, "tid", TRACK_OWNER,
                                            "args", "name", "minivmm"));
    add_tracks(events, facts);
    add_phases(events, facts);
    for (unsigned i = 0; i < facts->event_count; i++)
        add_instant(events, facts, &facts->events[i]);
    json_t *trace = json_pack("{s:s, s:o}", "displayTimeUnit", "ms", "traceEvents", events);
    if (!trace)
        return -ENOMEM;
    json_dumpf(trace, out, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
    fputc('\n', out);
    json_decref(trace);
    return 0;
}
