#include "vmm/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/config.h"

#define MIB         (1ull << 20)
#define TIMEOUT     10u /* seconds, unless --timeout says otherwise */
#define TIMEOUT_MAX 3600u

struct ctl {
    struct ctl_server server;
    const char *command;
    const char *size; /* of balloon and keep; NULL: none was given */
    bool json, watch;
};

static int complain(int code, const char *text)
{
    fprintf(stderr, "minivmm ctl: %s\n", text);
    return code;
}

/* A refusal in the VM's own words. */
static int refused(const struct ctl_answer *answer)
{
    char text[64];
    json_t *fault = json_loads(answer->body, 0, NULL);
    const char *message = json_string_value(json_object_get(fault, "fault_message"));
    snprintf(text, sizeof(text), "the VM answered with status %d", answer->status);
    complain(CTL_REFUSED, message ? message : text);
    json_decref(fault);
    return CTL_REFUSED;
}

/* A request whose answer is only yes or no. */
static int change(const struct ctl *ctl, const char *method, const char *path, const char *body)
{
    struct ctl_answer answer;
    struct minivmm_error err;

    if (ctl_ask(&ctl->server, method, path, NULL, body, &answer, &err) < 0)
        return complain(MINIVMM_EXIT_ERROR, err.text);
    int code = answer.status / 100 == 2 ? CTL_OK : refused(&answer);
    if (code == CTL_OK && ctl->json)
        puts("{}");
    free(answer.body);
    return code;
}

/* A GET whose answer is JSON: 0 and *value; or the exit code, having said why unless `may_fail`. */
static int get(const struct ctl *ctl, const char *path, bool may_fail, json_t **value)
{
    struct ctl_answer answer;
    struct minivmm_error err;

    *value = NULL;
    if (ctl_ask(&ctl->server, "GET", path, NULL, NULL, &answer, &err) < 0)
        return may_fail ? MINIVMM_EXIT_ERROR : complain(MINIVMM_EXIT_ERROR, err.text);
    int code = CTL_OK;
    if (answer.status != 200)
        code = may_fail ? CTL_REFUSED : refused(&answer);
    else if (!(*value = json_loads(answer.body, 0, NULL)))
        code = complain(MINIVMM_EXIT_ERROR, "the answer is no JSON");
    free(answer.body);
    return code;
}

static void print_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2));
    putchar('\n');
}

/* ---- commands ------------------------------------------------------------------------------ */

static int run_stop(const struct ctl *ctl)
{
    return change(ctl, "PUT", "/actions", "{\"action_type\": \"Stop\"}");
}

static int run_pause(const struct ctl *ctl)
{
    return change(ctl, "PATCH", "/vm", "{\"state\": \"Paused\"}");
}

static int run_resume(const struct ctl *ctl)
{
    return change(ctl, "PATCH", "/vm", "{\"state\": \"Resumed\"}");
}

static int run_powerdown(const struct ctl *ctl)
{
    return change(ctl, "PUT", "/actions", "{\"action_type\": \"SendCtrlAltDel\"}");
}

static int run_status(const struct ctl *ctl)
{
    json_t *instance, *machine = NULL, *metrics = NULL;

    int code = get(ctl, "/", false, &instance);
    if (code == CTL_OK)
        code = get(ctl, "/machine-config", false, &machine);
    if (code == CTL_OK)
        code = get(ctl, "/metrics", false, &metrics);
    if (code == CTL_OK && ctl->json) {
        json_object_update(instance, machine);
        json_object_set(instance, "uptime_ms", json_object_get(metrics, "uptime_ms"));
        json_object_set(instance, "balloon", json_object_get(metrics, "balloon"));
        print_json(instance);
    } else if (code == CTL_OK) {
        ctl_print_status(stdout, instance, machine, metrics);
    }
    json_decref(instance);
    json_decref(machine);
    json_decref(metrics);
    return code;
}

static int show_stats(const struct ctl *ctl, bool may_fail)
{
    json_t *metrics, *statistics = NULL;

    int code = get(ctl, "/metrics", may_fail, &metrics);
    if (code == CTL_OK)
        get(ctl, "/balloon/statistics", true, &statistics); /* not every VM has a balloon */
    if (code == CTL_OK && ctl->watch && isatty(STDOUT_FILENO))
        fputs("\033[H\033[J", stdout);
    if (code == CTL_OK && ctl->json) {
        if (statistics)
            json_object_set(metrics, "balloon", statistics);
        print_json(metrics);
    } else if (code == CTL_OK) {
        ctl_print_stats(stdout, metrics, statistics);
    }
    json_decref(metrics);
    json_decref(statistics);
    return code;
}

static int run_stats(const struct ctl *ctl)
{
    int code = show_stats(ctl, false);
    while (code == CTL_OK && ctl->watch && fflush(stdout) == 0) {
        sleep(1);
        if (show_stats(ctl, true) != CTL_OK)
            break; /* the VM has ended */
    }
    return code;
}

static int run_metrics(const struct ctl *ctl)
{
    struct ctl_answer answer;
    struct minivmm_error err;

    if (ctl_ask(&ctl->server, "GET", "/metrics", ctl->json ? NULL : "text/plain", NULL, &answer,
                &err) < 0)
        return complain(MINIVMM_EXIT_ERROR, err.text);
    int code = answer.status == 200 ? CTL_OK : refused(&answer);
    if (code == CTL_OK)
        printf("%s%s", answer.body, ctl->json ? "\n" : "");
    free(answer.body);
    return code;
}

static void show_event(void *arg, const char *line)
{
    const struct ctl *ctl = arg;
    json_t *event = ctl->json ? NULL : json_loads(line, 0, NULL);

    if (event)
        ctl_print_event(stdout, event);
    else
        puts(line);
    fflush(stdout);
    json_decref(event);
}

static int run_events(const struct ctl *ctl)
{
    struct minivmm_error err;

    if (ctl_listen(&ctl->server, show_event, (void *)ctl, &err) < 0)
        return complain(MINIVMM_EXIT_ERROR, err.text);
    return CTL_OK;
}

static int set_balloon(const struct ctl *ctl, uint64_t mib)
{
    char body[64];
    snprintf(body, sizeof(body), "{\"amount_mib\": %" PRIu64 "}", mib);
    return change(ctl, "PATCH", "/balloon", body);
}

/* Sizes were checked with the arguments. */
static int run_balloon(const struct ctl *ctl)
{
    uint64_t bytes = 0;
    parse_size(ctl->size, &bytes);
    return set_balloon(ctl, bytes / MIB);
}

static int run_keep(const struct ctl *ctl)
{
    uint64_t bytes = 0;
    char text[160];
    json_t *machine;

    parse_size(ctl->size, &bytes);
    int code = get(ctl, "/machine-config", false, &machine);
    if (code != CTL_OK)
        return code;
    uint64_t memory = (uint64_t)json_integer_value(json_object_get(machine, "mem_size_mib"));
    json_decref(machine);
    if (bytes / MIB <= memory)
        return set_balloon(ctl, memory - bytes / MIB);
    snprintf(text, sizeof(text),
             "keep %s: the VM was started with %" PRIu64 " MiB, and a balloon cannot add to that",
             ctl->size, memory);
    return complain(CTL_REFUSED, text);
}

/* ---- arguments ----------------------------------------------------------------------------- */

static const struct command {
    const char *name, *help;
    int (*run)(const struct ctl *ctl);
    bool takes_size;
} commands[] = {
    {"status", "how the VM is", run_status, false},
    {"stop", "end it now; its exit code is that of SIGTERM", run_stop, false},
    {"pause", "halt it, devices and clocks and all", run_pause, false},
    {"resume", "let it go on", run_resume, false},
    {"powerdown", "press its power button", run_powerdown, false},
    {"balloon", "SIZE: have the guest do without so much memory", run_balloon, true},
    {"keep", "SIZE: have it do with so much", run_keep, true},
    {"stats", "exits, queues, the guest's memory; --watch: every second", run_stats, false},
    {"metrics", "the same for Prometheus", run_metrics, false},
    {"events", "what happens to it, until it ends", run_events, false},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int print_help(void)
{
    puts("usage: minivmm ctl SOCKET COMMAND [--json] [--timeout SECONDS]\n"
         "Talk to the VM that was started with --api-sock SOCKET.\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].help);
    puts("\nSIZE is a number of MiB, or one with the suffix M, G or T.\n"
         "exit code: 0 done; 1 the VM refused; 125 it cannot be reached, or bad usage");
    return fflush(stdout) == 0 ? CTL_OK : complain(MINIVMM_EXIT_ERROR, strerror(errno));
}

static int take_timeout(struct ctl *ctl, const char *value)
{
    char *end;
    unsigned long seconds = value && *value >= '0' && *value <= '9' ? strtoul(value, &end, 10) : 0;
    if (seconds < 1 || seconds > TIMEOUT_MAX || *end)
        return complain(MINIVMM_EXIT_ERROR,
                        "--timeout: must be a number of seconds from 1 to 3600");
    ctl->server.timeout_ms = (unsigned)seconds * 1000;
    return CTL_OK;
}

static int parse(struct ctl *ctl, int argc, char *const argv[], const struct command **command)
{
    const char *words[3] = {NULL}; /* SOCKET COMMAND SIZE */
    char text[160];
    size_t count = 0;

    for (int i = 1; i < argc; i++) {
        int code = CTL_OK;
        if (strcmp(argv[i], "--json") == 0)
            ctl->json = true;
        else if (strcmp(argv[i], "--watch") == 0)
            ctl->watch = true;
        else if (strcmp(argv[i], "--timeout") == 0)
            code = take_timeout(ctl, i + 1 < argc ? argv[++i] : NULL);
        else if (strncmp(argv[i], "--", 2) == 0 || count == 3)
            count = 4;
        else
            words[count++] = argv[i];
        if (count == 4) {
            snprintf(text, sizeof(text), "%.100s: not understood; see minivmm ctl --help", argv[i]);
            code = complain(MINIVMM_EXIT_ERROR, text);
        }
        if (code != CTL_OK)
            return code;
    }
    ctl->server.path = words[0];
    ctl->size = words[2];
    for (size_t i = 0; words[1] && i < COMMANDS; i++)
        if (strcmp(commands[i].name, words[1]) == 0)
            *command = &commands[i];
    if (!*command) {
        snprintf(text, sizeof(text), "%.100s%s; see minivmm ctl --help", words[1] ? words[1] : "",
                 words[1] ? ": no such command" : "SOCKET and COMMAND are needed");
        return complain(MINIVMM_EXIT_ERROR, text);
    }
    return CTL_OK;
}

int ctl_main(int argc, char *const argv[])
{
    struct ctl ctl = {.server = {.timeout_ms = TIMEOUT * 1000}};
    const struct command *command = NULL;
    uint64_t bytes;
    char text[160];

    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0)
            return print_help();
    int code = parse(&ctl, argc, argv, &command);
    if (code != CTL_OK)
        return code;
    if (command->takes_size != (ctl.size != NULL) ||
        (ctl.watch && strcmp(command->name, "stats") != 0) ||
        (ctl.size && !parse_size(ctl.size, &bytes))) {
        snprintf(text, sizeof(text), "%s: %s", command->name,
                 command->takes_size ? "needs a size: MiB, or a suffix M, G or T"
                 : ctl.size          ? "takes no further word"
                                     : "--watch is for stats");
        return complain(MINIVMM_EXIT_ERROR, text);
    }
    code = command->run(&ctl);
    if (fflush(stdout) != 0 || ferror(stdout))
        return complain(MINIVMM_EXIT_ERROR, "standard output: it takes no more");
    return code;
}
