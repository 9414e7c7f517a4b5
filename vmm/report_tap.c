/*
 * The report of a run in the Test Anything Protocol, version 13: a result for each expectation and
 * one for the verdict; the console's last lines as a comment where it is not a pass.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/report_facts.h"
#include "vmm/text.h"

/* A description; '#' would begin a directive, "# SKIP" say. */
static void put_text(FILE *out, const char *text)
{
    char *clean = text_clean(text, strlen(text), TEXT_LINE);

    for (const char *c = clean; c && *c; c++) {
        if (*c == '#' || *c == '\\')
            fputc('\\', out);
        fputc(*c, out);
    }
    free(clean);
}

static void put_console(const struct report_facts *facts, FILE *out)
{
    const uint8_t *at = text_last_lines(facts->tail, facts->tail_length, REPORT_LINES_MAX), *line;
    const uint8_t *end = facts->tail + facts->tail_length;
    size_t length;

    fputs("# the last lines of the console:\n", out);
    while ((line = text_next_line(&at, end, &length)) != NULL) {
        char *clean = text_clean(line, length, TEXT_LINE);
        fprintf(out, "#   %s\n", clean ? clean : "");
        free(clean);
    }
}

void report_begin_tap(unsigned expect_count, FILE *out)
{
    fprintf(out, "TAP version 13\n1..%u\n", expect_count + 1);
}

int report_write_tap(const struct report_facts *facts, FILE *out)
{
    bool pass = facts->verdict.exit_code == MINIVMM_EXIT_OK;

    for (unsigned i = 0; i < facts->expect_count; i++) {
        bool met = report_find(facts, MINIVMM_EVENT_EXPECTED, i + 1);
        fprintf(out, "%s %u - expectation %u: ", met ? "ok" : "not ok", i + 1, i + 1);
        put_text(out, facts->expects[i].pattern);
        fputc('\n', out);
    }
    fprintf(out, "%s %u - ", pass ? "ok" : "not ok", facts->expect_count + 1);
    put_text(out, facts->verdict.text);
    fprintf(out, " (exit code %d)\n", facts->verdict.exit_code);
    if (!pass && facts->tail_length > 0)
        put_console(facts, out);
    return 0;
}
