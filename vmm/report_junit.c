/*
 * The report of a run as JUnit XML, which CI systems show: a test case for each expectation and one
 * for the verdict. tests/junit.xsd says what it is made of.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/report_facts.h"
#include "vmm/text.h"

/* Any bytes as an attribute's value or as text between tags. */
static void put_bytes(FILE *out, const void *bytes, size_t length)
{
    char *clean = text_clean(bytes, length, TEXT_XML);

    for (const char *c = clean; c && *c; c++) {
        switch (*c) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\n': /* a reader makes a space of it in an attribute */
        case '\r':
        case '\t':
            fprintf(out, "&#%d;", *c);
            break;
        default:
            fputc(*c, out);
        }
    }
    free(clean);
}

static void put_attribute(FILE *out, const char *name, const char *value)
{
    fprintf(out, " %s=\"", name);
    put_bytes(out, value, strlen(value));
    fputc('"', out);
}

static double seconds(const struct report_facts *facts, uint64_t from, uint64_t to)
{
    return from && to > from ? (report_ms(facts, to) - report_ms(facts, from)) / 1000.0 : 0;
}

static void put_property(FILE *out, const char *name, const char *value)
{
    if (!value)
        return;
    fputs("      <property", out);
    put_attribute(out, "name", name);
    put_attribute(out, "value", value);
    fputs("/>\n", out);
}

static void put_expectation(const struct report_facts *facts, unsigned index, FILE *out)
{
    const struct minivmm_expect *expect = &facts->expects[index];
    const struct report_event *met = report_find(facts, MINIVMM_EVENT_EXPECTED, index + 1);
    char number[32];

    snprintf(number, sizeof(number), "expectation %u: ", index + 1);
    fprintf(out, "    <testcase classname=\"minivmm\" name=\"%s", number);
    put_bytes(out, expect->pattern, strlen(expect->pattern));
    fprintf(out, "\" time=\"%.3f\"",
            seconds(facts, facts->times.start, met ? met->time_ns : facts->times.end));
    if (met)
        fputs("/>\n", out);
    else if (facts->verdict.end == MINIVMM_END_ERROR)
        fputs(">\n      <skipped/>\n    </testcase>\n", out);
    else
        fputs(">\n      <failure type=\"expectation\" message=\"was not met\"/>\n    </testcase>\n",
              out);
}

static void put_verdict(const struct report_facts *facts, FILE *out)
{
    const struct minivmm_verdict *verdict = &facts->verdict;

    fprintf(out, "    <testcase classname=\"minivmm\" name=\"verdict\" time=\"%.3f\">\n",
            seconds(facts, facts->begun, facts->finished));
    if (verdict->exit_code != MINIVMM_EXIT_OK) {
        fprintf(out, "      <%s", verdict->end == MINIVMM_END_ERROR ? "error" : "failure");
        put_attribute(out, "type", report_end_name(verdict->end));
        put_attribute(out, "message", verdict->text);
        fprintf(out, ">exit code %d</%s>\n", verdict->exit_code,
                verdict->end == MINIVMM_END_ERROR ? "error" : "failure");
    }
    fputs("    </testcase>\n", out);
}

static void put_console(const struct report_facts *facts, FILE *out)
{
    const uint8_t *at = text_last_lines(facts->tail, facts->tail_length, REPORT_LINES_MAX), *line;
    const uint8_t *end = facts->tail + facts->tail_length;
    size_t length;

    fputs("    <system-out>", out);
    while ((line = text_next_line(&at, end, &length)) != NULL) {
        put_bytes(out, line, length);
        fputc('\n', out);
    }
    fputs("</system-out>\n", out);
}

int report_write_junit(const struct report_facts *facts, FILE *out)
{
    bool error = facts->verdict.end == MINIVMM_END_ERROR;
    unsigned unmet = 0;
    char when[32];

    for (unsigned i = 0; i < facts->expect_count; i++)
        unmet += !report_find(facts, MINIVMM_EVENT_EXPECTED, i + 1);
    unsigned failures = error ? 0 : unmet + (facts->verdict.exit_code != MINIVMM_EXIT_OK);
    report_timestamp(&facts->started_at, when);
    when[19] = '\0'; /* xs:dateTime as CI systems take it: whole seconds, UTC */
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n", out);
    fprintf(out,
            "  <testsuite name=\"minivmm\" tests=\"%u\" failures=\"%u\" errors=\"%d\" "
            "skipped=\"%u\" time=\"%.3f\" timestamp=\"%s\">\n    <properties>\n",
            facts->expect_count + 1, failures, error, error ? unmet : 0,
            seconds(facts, facts->begun, facts->finished), when);
    put_property(out, "kernel", facts->kernel);
    put_property(out, "kernel-version", facts->kernel_version);
    put_property(out, "initrd", facts->initrd);
    put_property(out, "guest-command-line", facts->cmdline);
    put_property(out, "minivmm-version", MINIVMM_VERSION);
    put_property(out, "host", facts->host);
    fputs("    </properties>\n", out);
    for (unsigned i = 0; i < facts->expect_count; i++)
        put_expectation(facts, i, out);
    put_verdict(facts, out);
    put_console(facts, out);
    fputs("  </testsuite>\n</testsuites>\n", out);
    return 0;
}
