/* Reports as a user meets them: files that are right whatever the end, and never missing. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/kvm/guest.h"
#include "tests/kvm/program.h"

SUITE(report);

GUEST_NUMBER(VIRTIO_SLOT, 0xd0001000, LAYOUT_VIRTIO);

GUEST(report_says, "print \"first\\r\\nsecond ok\\r\\n\"\npoweroff");
GUEST(report_waits, "print \"first\\r\\nsecond ok\\r\\n\"\njmp guest_stop");
GUEST(report_reboots, "outb I8042, 0xfe\njmp guest_stop");
GUEST(report_panics, "outb PANIC, 1\npoweroff");
GUEST(report_warm, "movw $0x1234, 0x472\noutb I8042, 0xfe\njmp guest_stop");
GUEST(report_prints_panic, "print \"Kernel panic - not syncing: x\\r\\n\"\npoweroff");
GUEST(report_status, "exit 7");
GUEST(report_fault, "ud2\n");
GUEST(report_hangs, "cli\njmp .");
/* What no format takes as it is: every byte, 1 to 255, and the ends of CDATA and of a string. */
GUEST(report_nasty, "mov $COM1, %edx\n"
                    "mov $1, %eax\n"
                    "1: out %al, %dx\n"
                    "inc %eax\n"
                    "cmp $256, %eax\n"
                    "jne 1b\n"
                    "xor %eax, %eax\n"
                    "out %al, %dx\n"
                    "print \"]]>\\\"}<a/>&amp;\\r\\n\"\n"
                    "poweroff\n");
/* The first virtio device's driver, as far as DRIVER_OK, three times. */
GUEST(report_driver, "mov $VIRTIO_SLOT, %ebx\n"
                     "mov $3, %ecx\n"
                     "1: movl $0, 0x70(%rbx)\n"
                     "movl $1, 0x70(%rbx)\n"
                     "movl $3, 0x70(%rbx)\n"
                     "movl $1, 0x24(%rbx)\n" /* the upper word of the features: */
                     "movl $1, 0x20(%rbx)\n" /* VERSION_1 */
                     "movl $11, 0x70(%rbx)\n"
                     "movl $15, 0x70(%rbx)\n"
                     "loop 1b\n"
                     "print \"driven\\n\"\n"
                     "poweroff\n");

static char dir[64], json_path[96], xml_path[96], timeline_path[96];

/* A pair of files for each run, so that all can be checked at once. */
static void name_reports(unsigned number)
{
    snprintf(json_path, sizeof(json_path), "%s/%u.json", dir, number);
    snprintf(xml_path, sizeof(xml_path), "%s/%u.xml", dir, number);
}

static void begin(void)
{
    guest_need_kvm();
    scratch_make(dir);
    name_reports(0);
    snprintf(timeline_path, sizeof(timeline_path), "%s/timeline", dir);
}

/* What is left in the directory is what it promises to be. */
static void check_reports(void)
{
    char command[200];
    snprintf(command, sizeof(command), "tests/check-reports %s/*.json %s/*.xml >&2", dir, dir);
    if (system("command -v xmllint >/dev/null && python3 -c 'import jsonschema'") != 0) {
        fprintf(stderr, "xmllint or python3-jsonschema is not installed: not checked\n");
        return; /* a skip would hide what has failed so far */
    }
    cr_expect_eq(system(command), 0, "not valid");
}

static void end(void)
{
    scratch_remove(dir);
}

/* A value out of a document by keys and indices. */
static const json_t *at(const json_t *json, const char *path)
{
    char copy[100], *rest = copy;
    snprintf(copy, sizeof(copy), "%s", path);
    for (char *key; json && (key = strsep(&rest, "/")) != NULL;)
        json = json_is_array(json) ? json_array_get(json, (size_t)atoi(key))
                                   : json_object_get(json, key);
    return json;
}

static const char *text_at(const json_t *json, const char *path)
{
    const char *text = json_string_value(at(json, path));
    return text ? text : "(none)";
}

static double number_at(const json_t *json, const char *path)
{
    const json_t *value = at(json, path);
    return json_is_number(value) ? json_number_value(value) : -1;
}

static json_t *load_report(const char *row)
{
    json_error_t error;
    json_t *json = json_load_file(json_path, 0, &error);
    cr_assert(json, "%s: %s", row, error.text);
    return json;
}

static void run_reported(struct program *program, const char *entry, const char *const *words)
{
    static char kernel[32];
    int fd = guest_kernel(entry, NULL, kernel);
    *program = (struct program){
        .arguments = {"--kernel", kernel, "--report", json_path, "--junit", xml_path}};
    for (unsigned i = 0; i < PROGRAM_ARGUMENTS - 6 && words[i]; i++)
        program->arguments[6 + i] = words[i];
    program_run(program);
    close(fd);
}

Test(report, every_verdict_has_its_exit_code_last_line_and_reports)
{
    static const struct {
        const char *name, *kernel;
        const char *words[6];
        int code;
        const char *end, *text;
        int failures; /* of JUnit */
    } rows[] = {
        {"power-off", guest_report_says, {NULL}, 0, "poweroff", "guest powered off", 0},
        {"restart", guest_report_reboots, {NULL}, 0, "reboot", "guest restarted", 0},
        {"status",
         guest_report_status,
         {"--debug-exit"},
         7,
         "status",
         "guest reported status 7",
         1},
        {"panic device", guest_report_panics, {NULL}, 120, "panic", "guest kernel panic", 1},
        {"panic, reset flag", guest_report_warm, {NULL}, 120, "panic", "guest kernel panic", 1},
        {"panic, console",
         guest_report_prints_panic,
         {NULL},
         120,
         "panic",
         "guest kernel panic",
         1},
        {"triple fault",
         guest_report_fault,
         {NULL},
         121,
         "triple-fault",
         "vCPU 0: triple fault",
         1},
        {"silence",
         guest_report_waits,
         {"--silence", "1"},
         122,
         "silence",
         "nothing was printed for 1 s",
         1},
        {"met", guest_report_says, {"--expect", "ok$"}, 0, "poweroff", "guest powered off", 0},
        {"missed",
         guest_report_says,
         {"--expect", "first", "--expect", "third"},
         123,
         "expectation",
         "expectation 2 was not met: third",
         2},
        {"out of order",
         guest_report_says,
         {"--expect", "second", "--expect", "first"},
         123,
         "expectation",
         "expectation 2 was not met: first",
         2},
        {"too late",
         guest_report_waits,
         {"--expect", "third", "--within", "1"},
         123,
         "expectation",
         "expectation 1 was not met within 1 s: third",
         2},
        {"forbidden",
         guest_report_says,
         {"--fail-on", "second"},
         123,
         "expectation",
         "forbidden text: second ok",
         1},
        {"until", guest_report_waits, {"--until", "ok$"}, 0, "until", "guest printed: ok$", 0},
        {"deadline",
         guest_report_hangs,
         {"--timeout", "1"},
         124,
         "timeout",
         "no end within 1 second",
         1},
    };
    begin();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static struct program program;
        char line[200], failures[40], xml[4096] = "";
        name_reports((unsigned)i);
        run_reported(&program, rows[i].kernel, rows[i].words);
        json_t *json = load_report(rows[i].name);
        cr_expect_eq(program.exit_code, rows[i].code, "%s: %d", rows[i].name, program.exit_code);
        snprintf(line, sizeof(line), "minivmm: %s (exit code %d)", rows[i].text, rows[i].code);
        char *last = program_last_line(&program);
        cr_expect_str_eq(last, line, "%s: %s", rows[i].name, last);
        free(last);
        cr_expect_str_eq(text_at(json, "verdict/end"), rows[i].end, "%s", rows[i].name);
        cr_expect_str_eq(text_at(json, "verdict/text"), rows[i].text, "%s", rows[i].name);
        cr_expect_eq(number_at(json, "verdict/exit_code"), rows[i].code, "%s", rows[i].name);
        cr_expect_eq(json_is_string(at(json, "vcpus")),
                     rows[i].code == 121 || rows[i].code == 122 || rows[i].code == 124, "%s",
                     rows[i].name);
        int fd = open(xml_path, O_RDONLY | O_CLOEXEC);
        cr_assert_gt(read(fd, xml, sizeof(xml) - 1), 0);
        close(fd);
        snprintf(failures, sizeof(failures), " failures=\"%d\" errors=\"0\"", rows[i].failures);
        cr_expect(strstr(xml, failures), "%s: %s", rows[i].name, xml);
        json_decref(json);
    }
    check_reports();
    end();
}

Test(report, moments_are_in_their_order)
{
    static const char *const order[] = {"times_ms/exec",       "times_ms/create",
                                        "times_ms/start",      "times_ms/first_instruction",
                                        "devices/0/driver_ok", "times_ms/first_output",
                                        "expectations/0/met",  "times_ms/end",
                                        "times_ms/finished"};
    static const char *const words[] = {"--rng",      "--expect",    "driven",
                                        "--timeline", timeline_path, NULL};
    static struct program program;
    begin();
    run_reported(&program, guest_report_driver, words);
    cr_expect_eq(program.exit_code, 0, "%s", program.err_text);
    json_t *json = load_report("driver"), *timeline = json_load_file(timeline_path, 0, NULL);
    for (size_t i = 1; i < sizeof(order) / sizeof(order[0]); i++)
        cr_expect(number_at(json, order[i]) >= number_at(json, order[i - 1]),
                  "%s is at %f, %s at %f", order[i - 1], number_at(json, order[i - 1]), order[i],
                  number_at(json, order[i]));
    cr_expect_gt(number_at(json, "times_ms/create"), 0);
    cr_expect_str_eq(text_at(json, "devices/0/kind"), "rng");
    cr_expect_eq(json_array_size(at(json, "devices")), 1);
    cr_expect(strstr(text_at(json, "guest_command_line"), "panic=-1"));
    cr_expect_str_eq(text_at(json, "console/last_lines/0"), "driven");

    unsigned driver_ok = 0;
    json_t *event;
    size_t i;
    json_array_foreach(json_object_get(timeline, "traceEvents"), i, event) driver_ok +=
        strcmp(text_at(event, "name"), "DRIVER_OK slot 0: rng") == 0;
    cr_expect_eq(driver_ok, 1, "a guest that repeats itself is told once, not %u times", driver_ok);
    json_decref(json);
    json_decref(timeline);
    check_reports();
    end();
}

Test(report, whatever_the_guest_prints_is_valid)
{
    static const char *const words[] = {"--until", "never\xff\n<&", "--cmdline", "a\xff<\"", NULL};
    static struct program program;
    begin();
    run_reported(&program, guest_report_nasty, words);
    cr_expect_eq(program.exit_code, 0, "%s", program.err_text);
    json_t *json = load_report("nasty");
    size_t last = json_array_size(at(json, "console/last_lines"));
    cr_expect_eq(last, 2);
    cr_expect(strstr(text_at(json, "console/last_lines/1"), "]]>\"}<a/>&amp;"));
    cr_expect_eq(number_at(json, "console/bytes"), 255 + 1 + 16);
    json_decref(json);
    check_reports();
    end();
}

Test(report, a_place_that_cannot_be_written_is_found_before_anything_runs)
{
    static struct program program;
    char kernel[32];
    begin();
    int fd = guest_kernel(guest_report_says, NULL, kernel);
    const struct {
        const char *words[5], *pattern;
    } rows[] = {
        {{"--report", "/nowhere/r.json"}, "--report /nowhere/r.json: No such file or directory"},
        {{"--junit", dir}, "--junit *: Is a directory"},
        {{"--timeline", ""}, "--timeline : No such file or directory"},
        {{"--report", json_path, "--junit", json_path}, "--junit *: is the file of --report"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        program = (struct program){.arguments = {"--kernel", kernel}};
        memcpy(program.arguments + 2, rows[i].words, sizeof(rows[i].words));
        program_run(&program);
        program_expect_refusal(&program, rows[i].words[0], rows[i].pattern);
    }
    close(fd);
    end();
}

/* The guest's own end is told, and then that its report is not there. */
Test(report, a_full_disk_is_an_error_with_a_line_of_its_own)
{
    static struct program program;
    static const struct {
        const char *option, *path, *error;
        bool no_files;
    } rows[] = {
        {"--report", "/dev/full", "No space left on device", false},
        {"--junit", "/dev/full", "No space left on device", false},
        {"--timeline", "/dev/full", "No space left on device", false},
        {"--report", json_path, "File too large", true},
    };
    char kernel[32];
    begin();
    int fd = guest_kernel(guest_report_says, NULL, kernel);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        program = (struct program){.arguments = {"--kernel", kernel, rows[i].option, rows[i].path},
                                   .no_files = rows[i].no_files};
        program_run(&program);
        char line[200], *last = program_last_line(&program);
        snprintf(line, sizeof(line), "minivmm: %s %s: %s (exit code 125)", rows[i].option,
                 rows[i].path, rows[i].error);
        cr_expect_str_eq(last, line);
        cr_expect(strstr(program.err_text, "minivmm: guest powered off (exit code 0)\n"));
        cr_expect_eq(program.exit_code, 125);
        free(last);
    }
    /* The other reports are written all the same. */
    program = (struct program){.arguments = {"--kernel", kernel, "--report", "/dev/full", "--junit",
                                             xml_path, "--timeline", json_path}};
    program_run(&program);
    struct stat st;
    cr_expect(stat(xml_path, &st) == 0 && st.st_size > 0);
    cr_expect(stat(json_path, &st) == 0 && st.st_size > 0);
    close(fd);
    end();
}

Test(report, is_written_when_there_never_was_a_vm)
{
    static struct program program;
    begin();
    const struct {
        const char *name;
        struct program program;
        const char *part;
    } rows[] = {
        {"no kernel",
         {.arguments = {"--kernel", "/nowhere/k", "--report", json_path, "--junit", xml_path,
                        "--expect", "x"}},
         "kernel /nowhere/k: "},
        {"a directory",
         {.arguments = {"--kernel", dir, "--report", json_path, "--junit", xml_path}},
         "kernel "},
        {"closed output",
         {.arguments = {"--kernel", "k", "--report", json_path, "--junit", xml_path},
          .out = PROGRAM_CLOSED},
         "standard output is closed"},
        {"closed errors",
         {.arguments = {"--kernel", "k", "--report", json_path, "--junit", xml_path},
          .err = PROGRAM_CLOSED},
         "kernel k: "},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        name_reports((unsigned)i);
        program = rows[i].program;
        program_run(&program);
        cr_expect_eq(program.exit_code, 125, "%s", rows[i].name);
        json_t *json = load_report(rows[i].name);
        cr_expect_str_eq(text_at(json, "verdict/end"), "error", "%s", rows[i].name);
        cr_expect(strstr(text_at(json, "verdict/text"), rows[i].part), "%s: %s", rows[i].name,
                  text_at(json, "verdict/text"));
        cr_expect(json_is_null(at(json, "times_ms/create")), "%s", rows[i].name);
        cr_expect(json_is_null(at(json, "guest_command_line")), "%s", rows[i].name);
        json_decref(json);
    }
    check_reports();
    end();
}

Test(report, is_written_when_the_vm_is_stopped_and_empty_when_minivmm_is_killed)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGKILL};
    static struct program program;
    char kernel[32];
    begin();
    int fd = guest_kernel(guest_report_waits, NULL, kernel);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct stat st;
        scratch_write(json_path, "old", 3);
        program = (struct program){
            .arguments = {"--kernel", kernel, "--report", json_path, "--junit", xml_path}};
        program_start(&program);
        program_await(&program, "second ok");
        kill(program.pid, signals[i]);
        program_finish(&program);
        if (signals[i] == SIGKILL) {
            cr_expect(stat(json_path, &st) == 0 && st.st_size == 0, "not of an older run");
            continue;
        }
        json_t *json = load_report("stopped");
        cr_expect_str_eq(text_at(json, "verdict/end"), "stopped");
        cr_expect_eq(number_at(json, "verdict/exit_code"), 128 + signals[i]);
        cr_expect_str_eq(text_at(json, "console/last_lines/1"), "second ok");
        json_decref(json);
    }
    close(fd);
    end();
}

Test(report, tap_has_standard_output_for_itself)
{
    static struct program program;
    char kernel[32];
    begin();
    int fd = guest_kernel(guest_report_says, NULL, kernel);
    program = (struct program){.arguments = {"--kernel", kernel, "--tap-output", "--expect",
                                             "first", "--expect", "never"}};
    program_run(&program);
    cr_expect_eq(program.exit_code, 123);
    cr_expect_str_eq(program.out_text,
                     "TAP version 13\n1..3\nok 1 - expectation 1: first\n"
                     "not ok 2 - expectation 2: never\n"
                     "not ok 3 - expectation 2 was not met: never (exit code 123)\n"
                     "# the last lines of the console:\n#   first\n#   second ok\n");
    cr_expect_str_eq(program.err_text, "first\r\nsecond ok\r\nminivmm: expectation 2 was not met: "
                                       "never (exit code 123)\n");
    program =
        (struct program){.arguments = {"--kernel", kernel, "--tap-output"}, .out = PROGRAM_FULL};
    program_run(&program);
    program_expect_refusal(&program, "full", "standard output: No space left on device");
    program = (struct program){.arguments = {"--kernel", "/nowhere", "--tap-output"}};
    program_run(&program);
    cr_expect(strncmp(program.out_text, "TAP version 13\n1..1\nnot ok 1 - kernel /nowhere: ", 47) ==
                  0,
              "%s", program.out_text);
    close(fd);
    end();
}
