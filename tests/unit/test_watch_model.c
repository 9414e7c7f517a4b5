/* Verdicts about random output, against expressions matched in earnest on every line of it. */
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/watch.h"

SUITE(watch_model);

#define TEXT_MAX 20000u
#define RULES    4u

static const char *const pool[] = {"soft lockup",  "Out of memory", "I/O error$",
                                   "segfault at",  "^Call Trace:",  "FAILED",
                                   "hung|blocked", "login: $",      "[0-9]{4}",
                                   "a.c",          "^ok$",          "Journal|JOURNAL"};

/* What a model of the watch comes to; the rules of one run. */
struct judgement {
    unsigned met;
    int outcome; /* -1: none */
    char text[200];
};
static struct judgement expected, got;
static const char *expects[RULES], *fail_on[RULES], *until;
static unsigned expect_count, fail_on_count;

static void judge(int outcome, const char *text)
{
    if (expected.outcome >= 0)
        return;
    expected.outcome = outcome;
    snprintf(expected.text, sizeof(expected.text), "%.199s", text);
}

/* Expressions are compiled once. */
static const regex_t *compiled(const char *expression)
{
    static struct {
        const char *text;
        regex_t regex;
    } all[32];
    unsigned i = 0;

    while (all[i].text && strcmp(all[i].text, expression) != 0)
        i++;
    if (!all[i].text) {
        cr_assert_eq(regcomp(&all[i].regex, expression, REG_EXTENDED), 0);
        all[i].text = expression;
    }
    return &all[i].regex;
}

static bool matches(const char *expression, const char *line, size_t *end, int flags)
{
    regmatch_t match;

    bool does = regexec(compiled(expression), line, 1, &match, flags) == 0;
    if (does && end)
        *end = (size_t)match.rm_eo;
    return does;
}

#define STAMP "^(\\[ *[0-9]+\\.[0-9]+\\] ?)?"

static void match_line(const char *line)
{
    size_t used = 0, end = 0;

    if (matches(STAMP "Kernel panic - not syncing", line, NULL, 0))
        judge(WATCH_PANIC, line);
    if (matches(STAMP "(BUG: |kernel BUG at |Oops: |Oops\\[|general protection fault|"
                      "Unable to handle kernel )",
                line, NULL, 0))
        judge(WATCH_FORBIDDEN, line);
    for (unsigned i = 0; i < fail_on_count; i++)
        if (matches(fail_on[i], line, NULL, 0))
            judge(WATCH_FORBIDDEN, line);
    while (expected.met < expect_count &&
           matches(expects[expected.met], line + used, &end, used ? REG_NOTBOL : 0)) {
        used += end;
        expected.met++;
    }
    if (until && expected.met == expect_count &&
        matches(until, line + used, NULL, used ? REG_NOTBOL : 0))
        judge(WATCH_UNTIL, until);
}

/* Lines without control characters and escape sequences: what a pattern takes off, not a machine
 * of states. */
static void match_text(const char *text, size_t size)
{
    static char line[TEXT_MAX + 1];
    size_t length = 0;

    for (size_t i = 0; i < size; i++) {
        if (text[i] == 0x1b && i + 1 < size && text[i + 1] == '[') {
            for (i += 2; i < size && text[i] >= ' ' && text[i] < '@';)
                i++;
        } else if (text[i] == 0x1b) {
            i++;
        } else if (text[i] == '\n') {
            line[length] = '\0';
            match_line(line);
            length = 0;
        } else if ((unsigned char)text[i] >= ' ' || text[i] == '\t') {
            line[length++] = text[i];
        }
    }
    line[length] = '\0';
    match_line(line);
}

static size_t make_text(char *text, unsigned rare)
{
    static const char *const usual[] = {
        "[    0.123456] pci 0000:00:1f.2: reg 0x24: [mem 0xfebf1000]",
        "[  OK  ] Reached target",
        "systemd[1]: Started Journal Service",
        "clocksource: tsc: mask: 0xff",
        " ",
        "abc",
        "J",
        "M"};
    static const char *const special[] = {"soft lockup",
                                          "Out of memory",
                                          "I/O error",
                                          "segfault at 1",
                                          "Call Trace:",
                                          "FAILED",
                                          "hung",
                                          "blocked",
                                          "host login: ",
                                          "ok",
                                          "Journal",
                                          "JOURNAL",
                                          "soft \rlockup",
                                          "soft lo\aJckup",
                                          "FAI\033[1mLED",
                                          "FA\033JILED",
                                          "F\aAILED",
                                          "\033[31mFAILED\033[0m",
                                          "FAI\033\nLED",
                                          "\r",
                                          "\nBUG: ",
                                          "BUG: ",
                                          "\n[ 1.2] Oops: ",
                                          "Oops:",
                                          "\xc3\xa4",
                                          "\nKernel panic - not syncing",
                                          "\033[1m\nKernel panic - not syncing",
                                          "\r\r\n",
                                          "\b",
                                          "\t"};
    size_t size = 0, most = 1 + (unsigned)rand() % (TEXT_MAX - 200);
    unsigned in_line = 0;

    while (size < most) {
        const char *part = (unsigned)rand() % rare ? usual[(unsigned)rand() % COUNT(usual)]
                                                   : special[(unsigned)rand() % COUNT(special)];
        size_t length = strlen(part);
        memcpy(text + size, part, length);
        size += length;
        if (rand() % 3 == 0 || ++in_line > 30) { /* lines are short of what is matched in halves */
            size_t end = rand() % 2 ? 2 : 1;
            memcpy(text + size, end == 2 ? "\r\n" : "\n\n", end);
            size += end;
            in_line = 0;
        }
    }
    return size;
}

static void report(void *arg, enum watch_outcome outcome, const char *text)
{
    (void)arg;
    got.outcome = (int)outcome;
    snprintf(got.text, sizeof(got.text), "%s", text);
}

static void choose_rules(void)
{
    expect_count = (unsigned)rand() % RULES;
    fail_on_count = (unsigned)rand() % RULES;
    for (unsigned i = 0; i < RULES; i++) {
        expects[i] = pool[(unsigned)rand() % COUNT(pool)];
        fail_on[i] = pool[(unsigned)rand() % COUNT(pool)];
    }
    until = rand() % 2 ? pool[(unsigned)rand() % COUNT(pool)] : NULL;
}

/* Through the watch, in pieces of many sizes. */
static void feed(const char *text, size_t size, enum literals_way way)
{
    struct minivmm_expect list[RULES];
    for (unsigned i = 0; i < RULES; i++)
        list[i] = (struct minivmm_expect){.pattern = expects[i]};
    struct minivmm_config config = {.expects = list,
                                    .expect_count = expect_count,
                                    .fail_on = fail_on,
                                    .fail_on_count = fail_on_count,
                                    .until = until};
    static struct watch watch;
    struct event_loop loop;
    struct minivmm_error err;
    unsigned number, most = 1u << rand() % 15;
    enum watch_outcome outcome;
    const char *last;

    cr_assert_eq(event_loop_init(&loop, &err), 0);
    cr_assert_eq(watch_init(&watch, &config, &loop, report, NULL, &err), 0, "%s", err.text);
    if (watch.rules.literals.way > way)
        watch.rules.literals.way = way;
    watch_start(&watch);
    got = (struct judgement){.outcome = -1};
    for (size_t at = 0; at < size;) {
        size_t part = 1 + (unsigned)rand() % most;
        part = part < size - at ? part : size - at;
        watch_feed(&watch, WATCH_CONSOLE, (const uint8_t *)text + at, part);
        at += part;
    }
    if (watch_last_lines(&watch, &outcome, &last))
        report(NULL, outcome, last);
    watch_unmet(&watch, &number);
    got.met = number - 1;
    watch_finish(&watch);
    event_loop_finish(&loop);
}

Test(watch_model, verdicts_are_those_of_every_line_matched)
{
    static char text[TEXT_MAX + 200];
    unsigned outcomes = 0, all_met = 0;

    srand(2);
    for (unsigned i = 0; i < 600; i++) {
        choose_rules();
        size_t size = make_text(text, 1u << rand() % 11);
        expected = (struct judgement){.outcome = -1};
        match_text(text, size);
        feed(text, size, (enum literals_way)(i % 3));
        cr_assert_eq(got.met, expected.met, "round %u: %u met, not %u", i, got.met, expected.met);
        cr_assert(got.outcome == expected.outcome && strcmp(got.text, expected.text) == 0,
                  "round %u: outcome %d '%s', not %d '%s'", i, got.outcome, got.text,
                  expected.outcome, expected.text);
        outcomes += got.outcome >= 0;
        all_met += got.met == expect_count;
    }
    cr_expect(outcomes > 100 && outcomes < 550, "%u", outcomes);
    cr_expect(all_met > 100 && all_met < 580, "%u", all_met);
}
