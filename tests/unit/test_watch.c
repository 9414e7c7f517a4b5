/* What the guest prints: expectations, forbidden text, the end, silence; lines and what is none. */
#include <errno.h>
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/clock.h"
#include "vmm/config.h"
#include "vmm/watch.h"

SUITE(watch);

static struct event_loop loop;
static struct watch watch;
static unsigned reports;
static enum watch_outcome outcome;
static char reported[256];

static void report(void *arg, enum watch_outcome what, const char *text)
{
    cr_expect_eq(arg, &reports);
    reports++;
    outcome = what;
    snprintf(reported, sizeof(reported), "%s", text);
}

/* Words of the command line, up to a NULL. */
static void begin(const char *const *words)
{
    char *argv[32] = {(char *)"minivmm", (char *)"--kernel", (char *)"k"};
    struct options options;
    struct minivmm_error err;
    int argc = 3;

    for (; words[argc - 3]; argc++)
        argv[argc] = (char *)words[argc - 3];
    cr_assert_eq(options_parse(argc, argv, &options, &err), 0, "%s", err.text);
    cr_assert_eq(event_loop_init(&loop, &err), 0);
    cr_assert_eq(watch_init(&watch, &options.vm, &loop, report, &reports, &err), 0, "%s", err.text);
    options_finish(&options);
    reports = 0;
    watch_start(&watch);
}

static void end(void)
{
    watch_finish(&watch);
    event_loop_finish(&loop);
}

static void print(const char *text)
{
    watch_feed(&watch, WATCH_SERIAL, (const uint8_t *)text, strlen(text));
}

/* The guest has ended: the last lines are looked at, and what they come to is told to report. */
static const char *unmet_at_the_end(unsigned *number)
{
    enum watch_outcome what;
    const char *text;

    if (watch_last_lines(&watch, &what, &text))
        report(&reports, what, text);
    cr_expect_not(watch_last_lines(&watch, &what, &text), "once is enough");
    return watch_unmet(&watch, number);
}

/* One row: what is printed on the terminal, and what comes of it. */
#define NOTHING (-1)
struct row {
    const char *name;
    const char *words[10];
    const char *printed;
    int outcome;
    const char *unmet; /* after the end; NULL: all was met */
};

static const struct row rows[] = {
    {"a line", {"--expect", "^hello$"}, "hello\n", NOTHING, NULL},
    {"a line with a return", {"--expect", "^hello$"}, "hello\r\n", NOTHING, NULL},
    {"nothing", {"--expect", "hello"}, "", NOTHING, "hello"},
    {"something else", {"--expect", "hello"}, "hell\no\n", NOTHING, "hello"},
    {"no newline at the end", {"--expect", "login: $"}, "x\nhost login: ", NOTHING, NULL},
    {"extended syntax", {"--expect", "^(a|b)+[0-9]{2}$"}, "abba42\n", NOTHING, NULL},
    {"in order", {"--expect", "a", "--expect", "b"}, "a\nb\n", NOTHING, NULL},
    {"out of order", {"--expect", "a", "--expect", "b"}, "b\na\n", NOTHING, "b"},
    {"two on one line", {"--expect", "a", "--expect", "b"}, "a b\n", NOTHING, NULL},
    {"two on one line, turned round", {"--expect", "a", "--expect", "b"}, "b a\n", NOTHING, "b"},
    {"the same twice", {"--expect", "a", "--expect", "a"}, "a\n", NOTHING, "a"},
    {"the same twice, met", {"--expect", "a", "--expect", "a"}, "aa\n", NOTHING, NULL},
    {"start of line, once", {"--expect", "^a", "--expect", "^a"}, "aa\n", NOTHING, "^a"},
    {"colours", {"--expect", "^ok done$"}, "\033[1;32mok\033[0m done\n", NOTHING, NULL},
    {"a title", {"--expect", "^done$"}, "\033]0;title\adone\n", NOTHING, NULL},
    {"a title, other end", {"--expect", "^done$"}, "\033]0;title\033\\done\n", NOTHING, NULL},
    {"character set", {"--expect", "^done$"}, "\033(Bdone\n", NOTHING, NULL},
    {"control characters", {"--expect", "^done$"}, "\001do\bne\a\n", NOTHING, NULL},
    {"bytes above 127", {"--expect", "^.+done$"}, "\xc3\xa4 done\n", NOTHING, NULL},
    {"panic", {NULL}, "Kernel panic - not syncing: x\n", WATCH_PANIC, NULL},
    {"panic with time",
     {NULL},
     "[   12.345678] Kernel panic - not syncing: x\n",
     WATCH_PANIC,
     NULL},
    {"panic, coloured",
     {NULL},
     "\033[31m[ 1.2] Kernel panic - not syncing\033[0m\n",
     WATCH_PANIC,
     NULL},
    {"somebody writes of a panic",
     {NULL},
     "what is a Kernel panic - not syncing?\n",
     NOTHING,
     NULL},
    {"bug", {NULL}, "[    1.0] BUG: kernel NULL pointer dereference\n", WATCH_FORBIDDEN, NULL},
    {"kernel bug", {NULL}, "[    1.0] kernel BUG at mm/slub.c:1\n", WATCH_FORBIDDEN, NULL},
    {"oops", {NULL}, "[    1.0] Oops: 0002 [#1]\n", WATCH_FORBIDDEN, NULL},
    {"a lockup is none", {NULL}, "[ 1.0] watchdog: BUG: soft lockup - CPU#0\n", NOTHING, NULL},
    {"none", {"--fail-on", "none"}, "Kernel panic - not syncing\nBUG: x\n", NOTHING, NULL},
    {"forbidden", {"--fail-on", "FAILED"}, "a test FAILED here\n", WATCH_FORBIDDEN, NULL},
    {"forbidden, on a line that does not end",
     {"--fail-on", "FAILED"},
     "ok\na test FAILED",
     WATCH_FORBIDDEN,
     NULL},
    {"panic, on a line that does not end", {NULL}, "Kernel panic - not syncing", WATCH_PANIC, NULL},
    {"the beginning of a line only", {"--fail-on", "^FAILED"}, "not FAILED", NOTHING, NULL},
    {"forbidden, and the usual",
     {"--fail-on", "x"},
     "Kernel panic - not syncing\n",
     WATCH_PANIC,
     NULL},
    {"forbidden and no panics",
     {"--fail-on", "none", "--fail-on", "x"},
     "Kernel panic - not sync\nx\n",
     WATCH_FORBIDDEN,
     NULL},
    {"until", {"--until", "^done"}, "well\ndone\n", WATCH_UNTIL, NULL},
    {"until before expectations", {"--expect", "a", "--until", "b"}, "b\n", NOTHING, "a"},
    {"until after expectations", {"--expect", "a", "--until", "b"}, "a b\n", WATCH_UNTIL, NULL},
    {"until and forbidden", {"--until", "x", "--fail-on", "x"}, "x\n", WATCH_FORBIDDEN, NULL},
};

Test(watch, rows)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (int pieces = 0; pieces < 2; pieces++) { /* at once, and byte for byte */
            unsigned number;
            begin(rows[i].words);
            if (pieces == 0)
                print(rows[i].printed);
            for (const char *at = rows[i].printed; pieces == 1 && *at; at++)
                watch_feed(&watch, WATCH_SERIAL, (const uint8_t *)at, 1);
            const char *unmet = unmet_at_the_end(&number);
            cr_expect_eq(reports, rows[i].outcome != NOTHING, "%s", rows[i].name);
            if (reports)
                cr_expect_eq((int)outcome, rows[i].outcome, "%s", rows[i].name);
            cr_expect(rows[i].unmet ? unmet && strcmp(unmet, rows[i].unmet) == 0 : !unmet, "%s: %s",
                      rows[i].name, unmet);
            end();
        }
    }
}

static char heard[200];

static void hear(void *arg, unsigned number, const char *text)
{
    size_t length = strlen(heard);
    cr_expect_eq(arg, &reports);
    snprintf(heard + length, sizeof(heard) - length, "%u=%s%s ", number, text, reports ? "!" : "");
}

Test(watch, each_expectation_that_is_met_is_told_once_and_before_the_end)
{
    unsigned number;

    begin((const char *const[]){"--expect", "a", "--expect", "b+", "--expect", "c", "--until", "d",
                                NULL});
    heard[0] = '\0';
    watch.expected = hear;
    print("a\nxa\nb");
    cr_expect_str_eq(heard, "1=a ");
    print(" c d\na b c\n");
    cr_expect_str_eq(heard, "1=a 2=b+ 3=c ");
    cr_expect_eq(outcome, WATCH_UNTIL);
    cr_expect_null(unmet_at_the_end(&number));
    cr_expect_str_eq(heard, "1=a 2=b+ 3=c ");
    end();
}

Test(watch, what_is_met_on_the_last_unfinished_line_is_told)
{
    unsigned number;

    begin((const char *const[]){"--expect", "a", "--expect", "b", NULL});
    heard[0] = '\0';
    watch.expected = hear;
    print("a\nno end: b");
    cr_expect_str_eq(heard, "1=a ");
    cr_expect_null(unmet_at_the_end(&number));
    cr_expect_str_eq(heard, "1=a 2=b ");
    end();
}

/* Bytes of two sources do not mix in a line, and each has its own state of control sequences. */
Test(watch, sources_have_lines_of_their_own)
{
    unsigned number;
    begin((const char *const[]){"--expect", "^hello$", "--expect", "^world$", "--fail-on",
                                "wohello", NULL});
    const char *serial = "\033[1mhello\n", *console = "world\n";
    for (int i = 0; serial[i] || *console; i++) {
        if (serial[i])
            watch_feed(&watch, WATCH_SERIAL, (const uint8_t *)&serial[i], 1);
        if (i >= 5 && *console) {
            watch_feed(&watch, WATCH_CONSOLE, (const uint8_t *)console, 1);
            console++;
        }
        if (!serial[i])
            break;
    }
    for (; *console; console++)
        watch_feed(&watch, WATCH_CONSOLE, (const uint8_t *)console, 1);
    cr_expect_null(unmet_at_the_end(&number), "expectation %u", number);
    cr_expect_eq(reports, 0);
    end();
    begin((const char *const[]){"--expect", "ab", NULL});
    watch_feed(&watch, WATCH_SERIAL, (const uint8_t *)"a", 1);
    watch_feed(&watch, WATCH_CONSOLE, (const uint8_t *)"b\n", 2);
    cr_expect_not_null(unmet_at_the_end(&number));
    watch_feed(&watch, WATCH_SERIAL, (const uint8_t *)"b", 1);
    cr_expect_null(unmet_at_the_end(&number), "unfinished lines of every source count");
    end();
}

Test(watch, a_prompt_is_seen_while_it_waits)
{
    static const struct {
        const char *option;
        enum watch_outcome outcome;
        const char *reported;
    } prompts[] = {{"--until", WATCH_UNTIL, "login: $"},
                   {"--fail-on", WATCH_FORBIDDEN, "host login: "}};
    for (unsigned i = 0; i < COUNT(prompts); i++) {
        begin((const char *const[]){prompts[i].option, "login: $", NULL});
        print("Debian\r\nhost login: ");
        cr_expect_eq(reports, 0, "it may go on");
        event_loop_once(&loop, 2000);
        cr_expect_eq(reports, 1, "%s", prompts[i].option);
        cr_expect_eq(outcome, prompts[i].outcome);
        cr_expect_str_eq(reported, prompts[i].reported);
        end();
    }
}

Test(watch, an_expectation_has_its_time)
{
    begin((const char *const[]){"--expect", "a", "--within", "1", "--expect", "b", "--within", "2",
                                NULL});
    print("a\n");
    uint64_t start = clock_now_ns();
    for (int i = 0; i < 5 && reports == 0; i++)
        event_loop_once(&loop, 3000);
    cr_expect_eq(reports, 1);
    cr_expect_eq(outcome, WATCH_LATE);
    cr_expect_str_eq(reported, "expectation 2 was not met within 2 s: b");
    cr_expect_geq(clock_now_ns() - start, 1900000000ull, "not before its time");
    end();
}

Test(watch, silence_ends_it_and_output_puts_that_off)
{
    begin((const char *const[]){"--silence", "1", NULL});
    uint64_t start = clock_now_ns();
    for (int i = 0; i < 4; i++) {
        event_loop_once(&loop, 300);
        print(".");
    }
    cr_expect_eq(reports, 0);
    for (int i = 0; i < 5 && reports == 0; i++)
        event_loop_once(&loop, 3000);
    cr_expect_eq(outcome, WATCH_SILENCE);
    cr_expect_str_eq(reported, "nothing was printed for 1 s");
    cr_expect_geq(clock_now_ns() - start, 1900000000ull);
    end();
}

Test(watch, one_outcome_is_all)
{
    begin((const char *const[]){"--until", "x", "--silence", "1", NULL});
    print("x\nx\nKernel panic - not syncing\n");
    event_loop_once(&loop, 1500);
    cr_expect_eq(reports, 1);
    end();
}

Test(watch, a_line_that_never_ends_is_matched_all_the_same)
{
    char dots[1000];
    memset(dots, '.', sizeof(dots));
    begin((const char *const[]){"--expect", "needle", "--expect", "end$", NULL});
    for (int i = 0; i < 50; i++) {
        watch_feed(&watch, WATCH_SERIAL, (const uint8_t *)dots, sizeof(dots));
        if (i == 20)
            print("needle");
    }
    print("end");
    unsigned number;
    cr_expect_null(unmet_at_the_end(&number));
    end();
}

Test(watch, a_bad_expression_is_named)
{
    static const struct {
        const char *words[3], *text;
    } bad[] = {
        {{"--expect", "a(b"}, "expect: 'a(b': Unmatched ( or \\( at character 2"},
        {{"--expect", "(ok) a(b c)d("},
         "expect: '(ok) a(b c)d(': Unmatched ( or \\( at character 13"},
        {{"--expect", "(a(b)"}, "expect: '(a(b)': Unmatched ( or \\( at character 1"},
        {{"--expect", "\303\244\303\266[x"},
         "expect: '\303\244\303\266[x': Unmatched [, [^, [:, [., or [= at character 3"},
        {{"--fail-on", "[x"}, "fail-on: '[x': Unmatched [, [^, [:, [., or [= at character 1"},
        {{"--until", "a{2,1}"}, "until: 'a{2,1}': Invalid content of \\{\\} at character 2"},
        {{"--until", "ab\\"}, "until: 'ab\\': Trailing backslash at character 3"},
        {{"--expect", "x[b-a]y"}, "expect: 'x[b-a]y': Invalid range end at character 2"},
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        char *argv[] = {(char *)"minivmm",       (char *)"--kernel",      (char *)"k",
                        (char *)bad[i].words[0], (char *)bad[i].words[1], NULL};
        struct options options;
        struct minivmm_error err;
        cr_assert_eq(event_loop_init(&loop, &err), 0);
        cr_assert_eq(options_parse(5, argv, &options, &err), 0, "%s", err.text);
        cr_expect_eq(watch_init(&watch, &options.vm, &loop, report, &reports, &err), -EINVAL);
        cr_expect_str_eq(err.text, bad[i].text, "got: %s", err.text);
        options_finish(&options);
        end();
    }
}
