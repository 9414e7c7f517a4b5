/* Reports of a run: what each format makes of the same facts, also of those that a guest chose. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/support.h"
#include "vmm/report.h"

SUITE(report);

#define MS 1000000ull
#define T0 (1000 * MS) /* when the program began */

static const char nasty[] =
    "\033[1mred\r\n]]>\001<&\"'\n\xff\xfe\xed\xa0\x80 \xef\xbf\xbf\n# SKIP\0\n";
static const struct minivmm_expect expects[] = {{"^first$", 0}, {"a<b&\"c\" # SKIP \\ \xff", 7}};
static const char *const words[] = {"minivmm", "--kernel", "k\xff\n<&>"};
static const struct report_event events[] = {
    {MINIVMM_EVENT_STARTED, T0 + 3 * MS, 0, 0, "minivmm", ""},
    {MINIVMM_EVENT_OUTPUT, T0 + 5 * MS, 0, 0, "vcpu0", ""},
    {MINIVMM_EVENT_DRIVER_OK, T0 + 6 * MS + 7000, 1, 0, "vcpu1", "net"},
    {MINIVMM_EVENT_EXPECTED, T0 + 8 * MS, 1, 0, "loop", "^first$"},
    {MINIVMM_EVENT_BALLOON, T0 + 9 * MS, 0, 4096, "vcpu7", "\xff\""},
    {MINIVMM_EVENT_ENDED, T0 + 10 * MS, 0, 0, "vcpu0", "guest powered off"},
};

static struct report_facts facts_of(enum minivmm_end end, int code, const char *text)
{
    struct report_facts facts = {
        .kernel = "k\xff\n<&>",
        .kernel_version = "6.1.0 \"x\"",
        .host = "Linux 6.1",
        .words = words,
        .word_count = COUNT(words),
        .cmdline = "console=ttyS0 \"<",
        .cpus = 2,
        .expects = expects,
        .expect_count = COUNT(expects),
        .started_at = {.tv_sec = 1893456000, .tv_nsec = 12999999},
        .begun = T0,
        .finished = T0 + 12 * MS,
        .times = {.create = T0 + MS, .start = T0 + 3 * MS, .run = T0 + 4 * MS, .end = T0 + 10 * MS},
        .verdict = {.end = end, .exit_code = code},
        .devices = {"blk", "net"},
        .device_count = 2,
        .events = events,
        .event_count = COUNT(events),
        .tail = (const uint8_t *)nasty,
        .tail_length = sizeof(nasty) - 1,
        .printed = 70000,
    };
    snprintf(facts.verdict.text, sizeof(facts.verdict.text), "%s", text);
    return facts;
}

/* There was no VM. */
static struct report_facts no_facts(void)
{
    struct report_facts facts = facts_of(MINIVMM_END_ERROR, 125, "kernel k: No such file");
    facts.kernel_version = facts.cmdline = NULL;
    facts.times = (struct minivmm_times){0};
    facts.device_count = facts.event_count = 0;
    facts.tail_length = 0;
    facts.tail = NULL;
    return facts;
}

static char *text_of(int (*write_it)(const struct report_facts *facts, FILE *out),
                     const struct report_facts *facts)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    cr_assert_eq(write_it(facts, out), 0);
    fclose(out);
    return text;
}

/* A text in a file of this name and ending, for tests/check-reports to look at. */
static void keep(const char *dir, const char *name, const char *ending, const char *text)
{
    char path[120];
    snprintf(path, sizeof(path), "%s/%s.%s", dir, name, ending);
    FILE *file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
}

static const struct {
    const char *name;
    enum minivmm_end end;
    int code;
    uint32_t status;
} verdicts[] = {
    {"poweroff", MINIVMM_END_POWEROFF, 0, 0},
    {"reboot", MINIVMM_END_REBOOT, 0, 0},
    {"until", MINIVMM_END_UNTIL, 0, 0},
    {"status", MINIVMM_END_STATUS, 119, UINT32_MAX},
    {"panic", MINIVMM_END_PANIC, 120, 0},
    {"triple-fault", MINIVMM_END_TRIPLE_FAULT, 121, 0},
    {"kvm", MINIVMM_END_KVM, 121, 0},
    {"silence", MINIVMM_END_SILENCE, 122, 0},
    {"expectation", MINIVMM_END_EXPECTATION, 123, 0},
    {"timeout", MINIVMM_END_TIMEOUT, 124, 0},
    {"error", MINIVMM_END_ERROR, 125, 0},
    {"stopped", MINIVMM_END_STOPPED, 143, 0},
};

Test(report, every_verdict_is_valid_json_and_xml_whatever_the_guest_printed)
{
    if (!support_has_program("xmllint") || !support_has_program("python3"))
        cr_skip_test("xmllint or python3 is not installed");
    char dir[64], command[160];
    int status;
    support_temp_dir(dir);
    for (size_t i = 0; i < COUNT(verdicts); i++) {
        struct report_facts facts =
            facts_of(verdicts[i].end, verdicts[i].code, "printed: <\"&\xff\001>");
        facts.verdict.status = verdicts[i].status;
        char *json = text_of(report_write_json, &facts);
        char *xml = text_of(report_write_junit, &facts);
        keep(dir, verdicts[i].name, "json", json);
        keep(dir, verdicts[i].name, "xml", xml);
        char end[40];
        snprintf(end, sizeof(end), "\"end\": \"%s\"", verdicts[i].name);
        cr_expect(strstr(json, end), "%s", verdicts[i].name);
        free(json);
        free(xml);
    }
    struct report_facts facts = no_facts();
    char *json = text_of(report_write_json, &facts), *xml = text_of(report_write_junit, &facts);
    keep(dir, "none", "json", json);
    keep(dir, "none", "xml", xml);
    free(json);
    free(xml);
    snprintf(command, sizeof(command), "tests/check-reports %s/*", dir);
    char *said = support_run(command, &status);
    cr_expect_eq(status, 0, "%s", said);
    free(said);
    support_remove_dir(dir);
}

/* A value out of a document by keys and indices, "devices/1/kind" say. */
static const json_t *at(const json_t *json, const char *path)
{
    char copy[100], *rest = copy;
    snprintf(copy, sizeof(copy), "%s", path);
    for (char *key; json && (key = strsep(&rest, "/")) != NULL;)
        json = json_is_array(json) ? json_array_get(json, (size_t)atoi(key))
                                   : json_object_get(json, key);
    return json;
}

Test(report, json_says_what_happened_and_when)
{
    static const struct {
        const char *path;
        double number;
        const char *text; /* NULL: the number; "null": none */
    } rows[] = {
        {"version", 1, NULL},
        {"started_at", 0, "2030-01-01T00:00:00.012Z"},
        {"verdict/end", 0, "status"},
        {"verdict/status", 77, NULL},
        {"verdict/exit_code", 77, NULL},
        {"times_ms/exec", 0, NULL},
        {"times_ms/create", 1, NULL},
        {"times_ms/start", 3, NULL},
        {"times_ms/first_instruction", 4, NULL},
        {"times_ms/kernel_entry", 4, NULL},
        {"times_ms/first_output", 5, NULL},
        {"times_ms/panic", 0, "null"},
        {"times_ms/end", 10, NULL},
        {"times_ms/finished", 12, NULL},
        {"devices/0/kind", 0, "blk"},
        {"devices/0/driver_ok", 0, "null"},
        {"devices/1/slot", 1, NULL},
        {"devices/1/driver_ok", 6.007, NULL},
        {"expectations/0/met", 8, NULL},
        {"expectations/0/within", 0, "null"},
        {"expectations/1/number", 2, NULL},
        {"expectations/1/within", 7, NULL},
        {"expectations/1/met", 0, "null"},
        {"expectations/1/pattern", 0, "a<b&\"c\" # SKIP \\ \xef\xbf\xbd"},
        {"console/bytes", 70000, NULL},
        {"console/last_lines/0", 0, "\033[1mred"},
        {"console/last_lines/1", 0, "]]>\001<&\"'"},
        {"console/last_lines/3", 0, "# SKIP\xef\xbf\xbd"},
        {"versions/kernel", 0, "6.1.0 \"x\""},
        {"versions/host", 0, "Linux 6.1"},
        {"command_line/2", 0, "k\xef\xbf\xbd\n<&>"},
        {"guest_command_line", 0, "console=ttyS0 \"<"},
        {"vcpus", 0, "null"},
    };
    struct report_facts facts = facts_of(MINIVMM_END_STATUS, 77, "guest reported status 77");
    facts.verdict.status = 77;
    char *text = text_of(report_write_json, &facts);
    json_t *json = json_loads(text, 0, NULL);
    cr_assert(json, "%s", text);
    for (size_t i = 0; i < COUNT(rows); i++) {
        const json_t *value = at(json, rows[i].path);
        if (!rows[i].text)
            cr_expect(json_is_number(value) && json_number_value(value) == rows[i].number, "%s: %f",
                      rows[i].path, json_number_value(value));
        else if (strcmp(rows[i].text, "null") == 0)
            cr_expect(json_is_null(value), "%s", rows[i].path);
        else
            cr_expect_str_eq(json_string_value(value), rows[i].text, "%s: %s", rows[i].path,
                             json_string_value(value));
    }
    cr_expect_eq(json_array_size(at(json, "console/last_lines")), 4);
    json_decref(json);
    free(text);
}

Test(report, the_console_is_its_last_64_lines)
{
    struct report_facts facts = facts_of(MINIVMM_END_POWEROFF, 0, "guest powered off");
    char lines[1000], *to = lines;
    for (int i = 0; i < 100; i++)
        to += sprintf(to, "line %d\n", i);
    facts.tail = (const uint8_t *)lines;
    facts.tail_length = (size_t)(to - lines);
    char *text = text_of(report_write_json, &facts);
    json_t *json = json_loads(text, 0, NULL);
    cr_expect_eq(json_array_size(at(json, "console/last_lines")), 64);
    cr_expect_str_eq(json_string_value(at(json, "console/last_lines/0")), "line 36");
    cr_expect_str_eq(json_string_value(at(json, "console/last_lines/63")), "line 99");
    json_decref(json);
    free(text);
}

Test(report, junit_counts_expectations_and_the_verdict)
{
    static const struct {
        const char *name;
        enum minivmm_end end;
        int code;
        const char *parts[4];
    } rows[] = {
        {"missed",
         MINIVMM_END_EXPECTATION,
         123,
         {"tests=\"3\" failures=\"2\" errors=\"0\" skipped=\"0\" time=\"0.012\" "
          "timestamp=\"2030-01-01T00:00:00\"",
          "name=\"expectation 1: ^first$\" time=\"0.005\"/>",
          "name=\"expectation 2: a&lt;b&amp;&quot;c&quot; # SKIP \\ \xef\xbf\xbd\" "
          "time=\"0.007\">\n"
          "      <failure",
          "<failure type=\"expectation\" message=\"text\">exit code 123</failure>"}},
        {"error",
         MINIVMM_END_ERROR,
         125,
         {"tests=\"3\" failures=\"0\" errors=\"1\" skipped=\"1\"", "<skipped/>",
          "<error type=\"error\" message=\"text\">exit code 125</error>", "]]&gt;"}},
        {"pass", MINIVMM_END_POWEROFF, 0, {"name=\"verdict\" time=\"0.012\">\n    </testcase>"}},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct report_facts facts = facts_of(rows[i].end, rows[i].code, "text");
        char *text = text_of(report_write_junit, &facts);
        for (size_t k = 0; k < 4 && rows[i].parts[k]; k++)
            cr_expect(strstr(text, rows[i].parts[k]), "%s: %s is not in\n%s", rows[i].name,
                      rows[i].parts[k], text);
        free(text);
    }
}

Test(report, tap_cannot_be_talked_into_a_directive)
{
    struct report_facts facts = facts_of(MINIVMM_END_EXPECTATION, 123, "forbidden text: # TODO\n");
    char *text = text_of(report_write_tap, &facts);
    cr_expect_str_eq(text, "ok 1 - expectation 1: ^first$\n"
                           "not ok 2 - expectation 2: a<b&\"c\" \\# SKIP \\\\ \xef\xbf\xbd\n"
                           "not ok 3 - forbidden text: \\# TODO\xef\xbf\xbd (exit code 123)\n"
                           "# the last lines of the console:\n"
                           "#   \xef\xbf\xbd[1mred\n"
                           "#   ]]>\xef\xbf\xbd<&\"'\n"
                           "#   \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd "
                           "\xef\xbf\xbf\n"
                           "#   # SKIP\xef\xbf\xbd\n");
    free(text);
    facts = facts_of(MINIVMM_END_POWEROFF, 0, "guest powered off");
    facts.expect_count = 1;
    text = text_of(report_write_tap, &facts);
    cr_expect_str_eq(text,
                     "ok 1 - expectation 1: ^first$\nok 2 - guest powered off (exit code 0)\n");
    free(text);
}

/* The Trace Event Format: every event has its phase's members; phases of a track do not overlap. */
Test(report, the_timeline_is_a_trace)
{
    struct report_facts facts = facts_of(MINIVMM_END_POWEROFF, 0, "guest powered off");
    char *text = text_of(report_write_timeline, &facts);
    json_t *json = json_loads(text, 0, NULL), *event;
    size_t i;
    double ends[8] = {0}, owner = 0;
    unsigned names = 0, phases = 0, instants = 0;

    cr_assert(json, "%s", text);
    json_array_foreach(json_object_get(json, "traceEvents"), i, event)
    {
        const char *ph = json_string_value(json_object_get(event, "ph"));
        json_int_t tid = json_integer_value(json_object_get(event, "tid"));
        double ts = json_number_value(json_object_get(event, "ts"));
        cr_assert(ph && json_is_string(json_object_get(event, "name")));
        cr_assert(json_is_integer(json_object_get(event, "pid")) && tid > 0 && tid < 8);
        if (*ph == 'M') {
            names++;
            cr_expect(json_is_object(json_object_get(event, "args")));
            continue;
        }
        cr_expect(json_is_number(json_object_get(event, "ts")));
        cr_expect(ts >= 0 && ts <= 12000, "%f", ts);
        if (*ph == 'X') {
            double dur = json_number_value(json_object_get(event, "dur"));
            phases++;
            cr_expect(ts >= ends[tid], "phases of track %d overlap", (int)tid);
            ends[tid] = ts + dur;
            owner += tid == 1 ? dur : 0;
        } else {
            cr_expect_str_eq(ph, "i");
            cr_expect_str_eq(json_string_value(json_object_get(event, "s")), "t");
            instants++;
        }
    }
    cr_expect_eq(names, 1 + 2 * 4, "%u", names);
    cr_expect_eq(phases, 6 + 1 + 2, "%u", phases);
    cr_expect_eq(instants, COUNT(events));
    cr_expect_eq(owner, 12000, "the owner's phases fill the whole time: %f", owner);
    cr_expect(strstr(text, "\"DRIVER_OK slot 1: net\",\n   \"pid\": 1,\n   \"tid\": 4,\n"
                           "   \"ts\": 6007.0"),
              "on its vCPU's track: %s", text);
    json_decref(json);
    free(text);
}
