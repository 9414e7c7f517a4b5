/*
 * The report of a run for programs: one JSON object, as tests/report-schema.json says. A moment
 * that never came is null.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/report_facts.h"
#include "vmm/text.h"

/* A string out of any bytes; null for NULL. */
static json_t *bytes(const void *text, size_t length)
{
    char *clean = text ? text_clean(text, length, TEXT_JSON) : NULL;
    json_t *string = clean ? json_string(clean) : text ? NULL : json_null();
    free(clean);
    return string;
}

static json_t *string(const char *text)
{
    return bytes(text, text ? strlen(text) : 0);
}

static json_t *moment(const struct report_facts *facts, uint64_t time_ns)
{
    return time_ns ? json_real(report_ms(facts, time_ns)) : json_null();
}

static json_t *moment_of(const struct report_facts *facts, enum minivmm_event_kind kind,
                         unsigned number)
{
    const struct report_event *event = report_find(facts, kind, number);
    return moment(facts, event ? event->time_ns : 0);
}

static json_t *verdict(const struct report_facts *facts)
{
    const struct minivmm_verdict *v = &facts->verdict;
    json_t *status =
        v->end == MINIVMM_END_STATUS ? json_integer((json_int_t)v->status) : json_null();
    return json_pack("{s:s, s:o, s:i, s:b, s:o}", "end", report_end_name(v->end), "text",
                     string(v->text), "exit_code", v->exit_code, "passed",
                     v->exit_code == MINIVMM_EXIT_OK, "status", status);
}

/* The first instruction is the kernel's own: no firmware runs before it. */
static json_t *times(const struct report_facts *facts)
{
    const struct minivmm_times *t = &facts->times;
    return json_pack("{s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "exec", 0.0, "create",
                     moment(facts, t->create), "start", moment(facts, t->start),
                     "first_instruction", moment(facts, t->run), "kernel_entry",
                     moment(facts, t->run), "first_output",
                     moment_of(facts, MINIVMM_EVENT_OUTPUT, 0), "panic",
                     moment_of(facts, MINIVMM_EVENT_PANIC, 0), "end", moment(facts, t->end),
                     "finished", moment(facts, facts->finished));
}

static json_t *devices(const struct report_facts *facts)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < facts->device_count; i++)
        json_array_append_new(array, json_pack("{s:i, s:o, s:o}", "slot", (int)i, "kind",
                                               string(facts->devices[i]), "driver_ok",
                                               moment_of(facts, MINIVMM_EVENT_DRIVER_OK, i)));
    return array;
}

static json_t *expectations(const struct report_facts *facts)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < facts->expect_count; i++) {
        const struct minivmm_expect *expect = &facts->expects[i];
        json_array_append_new(array,
                              json_pack("{s:i, s:o, s:o, s:o}", "number", (int)i + 1, "pattern",
                                        string(expect->pattern), "within",
                                        expect->within ? json_integer(expect->within) : json_null(),
                                        "met", moment_of(facts, MINIVMM_EVENT_EXPECTED, i + 1)));
    }
    return array;
}

static json_t *console(const struct report_facts *facts)
{
    const uint8_t *at = text_last_lines(facts->tail, facts->tail_length, REPORT_LINES_MAX), *line;
    const uint8_t *end = facts->tail + facts->tail_length;
    json_t *array = json_array();
    size_t length;

    while ((line = text_next_line(&at, end, &length)) != NULL)
        json_array_append_new(array, bytes(line, length));
    return json_pack("{s:I, s:o}", "bytes", (json_int_t)facts->printed, "last_lines", array);
}

static json_t *words(const struct report_facts *facts)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < facts->word_count; i++)
        json_array_append_new(array, string(facts->words[i]));
    return array;
}

int report_write_json(const struct report_facts *facts, FILE *out)
{
    char when[32];
    report_timestamp(&facts->started_at, when);
    json_t *report = json_pack(
        "{s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:{s:s, s:o, s:o}, s:o, s:o}", "version", 1,
        "started_at", when, "verdict", verdict(facts), "times_ms", times(facts), "devices",
        devices(facts), "expectations", expectations(facts), "console", console(facts), "vcpus",
        string(facts->vcpus), "versions", "minivmm", MINIVMM_VERSION, "kernel",
        string(facts->kernel_version), "host", string(facts->host), "command_line", words(facts),
        "guest_command_line", string(facts->cmdline));
    if (!report)
        return -ENOMEM;
    json_dumpf(report, out, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    fputc('\n', out);
    json_decref(report);
    return 0;
}
