#include "vmm/api_request.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#define MIB          (1ull << 20)
#define INTERVAL_MAX 3600u /* seconds between statistics */

#define STATUS_OK          200
#define STATUS_NO_CONTENT  204
#define STATUS_BAD_REQUEST 400
#define STATUS_NOT_FOUND   404
#define STATUS_INTERNAL    500

/* What libevent finds; RFC 9110, 15.5 and 15.6. */
#define STATUS_TOO_LARGE    413
#define STATUS_EXPECTATION  417
#define STATUS_NO_SUCH_VERB 501

#define TYPE_JSON "application/json"
#define TYPE_TEXT "text/plain; version=0.0.4"

/* ---- answers ------------------------------------------------------------------------------- */

static void answer(struct api_reply *reply, const char *type, char *body)
{
    reply->status = body ? STATUS_OK : STATUS_INTERNAL;
    reply->type = type;
    reply->body = body;
}

void api_fault(struct api_reply *reply, int status, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    answer(reply, TYPE_JSON, api_describe_fault(text));
    reply->status = status;
}

void api_refuse(struct api_reply *reply, int status, unsigned headers, unsigned body)
{
    *reply = (struct api_reply){.what = API_REPLY};
    switch (status) {
    case STATUS_TOO_LARGE:
        api_fault(reply, STATUS_BAD_REQUEST, "a body of more than %u bytes, or a malformed chunk",
                  body);
        break;
    case STATUS_EXPECTATION:
        api_fault(reply, STATUS_BAD_REQUEST, "Expect: only 100-continue is known");
        break;
    case STATUS_NO_SUCH_VERB:
        api_fault(reply, STATUS_BAD_REQUEST, "invalid request method and/or path: no such method");
        break;
    default:
        api_fault(reply, STATUS_BAD_REQUEST,
                  "malformed: no HTTP/1 request, or headers of more than %u bytes", headers);
    }
}

static void done(struct api_reply *reply)
{
    reply->status = STATUS_NO_CONTENT;
}

/* ---- bodies -------------------------------------------------------------------------------- */

/* The one field that every body of ours consists of: an integer or a string. */
static json_t *take_field(const struct api_request *request, const char *name, json_type type,
                          struct api_reply *reply)
{
    json_error_t error;
    const char *key;
    json_t *value;

    json_t *body = json_loadb(request->body ? request->body : "", request->size,
                              JSON_REJECT_DUPLICATES, &error);
    if (!body) {
        api_fault(reply, STATUS_BAD_REQUEST, "the body is no JSON: line %d: %s", error.line,
                  error.text);
        return NULL;
    }
    json_t *field = json_object_get(body, name);
    if (!json_is_object(body)) {
        api_fault(reply, STATUS_BAD_REQUEST, "the body must be an object: {\"%s\": ...}", name);
        field = NULL;
    } else if (!field) {
        api_fault(reply, STATUS_BAD_REQUEST, "%s: is missing", name);
    } else if (json_typeof(field) != type) {
        api_fault(reply, STATUS_BAD_REQUEST, "%s: must be %s", name,
                  type == JSON_STRING ? "a string" : "a whole number");
        field = NULL;
    }
    if (field) {
        json_object_foreach(body, key, value)
        {
            if (strcmp(key, name) == 0)
                continue;
            api_fault(reply, STATUS_BAD_REQUEST, "unknown field '%.64s'", key);
            field = NULL;
            break;
        }
    }
    json_incref(field);
    json_decref(body);
    return field;
}

/* A whole number from 0 to `max`; -1, and the fault is told. */
static int64_t take_number(const struct api_request *request, const char *name, uint64_t max,
                           struct api_reply *reply)
{
    json_t *field = take_field(request, name, JSON_INTEGER, reply);
    if (!field)
        return -1;
    int64_t number = json_integer_value(field);
    json_decref(field);
    if (number < 0 || (uint64_t)number > max) {
        api_fault(reply, STATUS_BAD_REQUEST, "%s: %" PRId64 ": must be from 0 to %" PRIu64, name,
                  number, max);
        return -1;
    }
    return number;
}

/* One of `words`, which NULL ends: its index, or -1, and the fault is told. */
static int take_word(const struct api_request *request, const char *name, const char *const *words,
                     struct api_reply *reply)
{
    json_t *field = take_field(request, name, JSON_STRING, reply);
    int found = -1;

    if (!field)
        return -1;
    const char *text = json_string_value(field);
    for (int i = 0; words[i] && found < 0; i++)
        found = strcmp(words[i], text) == 0 ? i : -1;
    if (found < 0)
        api_fault(reply, STATUS_BAD_REQUEST, "%s: '%.64s': no such value", name, text);
    json_decref(field);
    return found;
}

/* ---- what there is ------------------------------------------------------------------------- */

static void get_instance(struct api_target *target, const struct api_request *request,
                         struct api_reply *reply)
{
    (void)request;
    answer(reply, TYPE_JSON, api_describe_instance(target));
}

static void get_version(struct api_target *target, const struct api_request *request,
                        struct api_reply *reply)
{
    (void)target;
    (void)request;
    answer(reply, TYPE_JSON, api_describe_version());
}

static void get_machine(struct api_target *target, const struct api_request *request,
                        struct api_reply *reply)
{
    (void)request;
    answer(reply, TYPE_JSON, api_describe_machine(target));
}

static void get_config(struct api_target *target, const struct api_request *request,
                       struct api_reply *reply)
{
    (void)request;
    answer(reply, TYPE_JSON, api_describe_config(target));
}

static void get_metrics(struct api_target *target, const struct api_request *request,
                        struct api_reply *reply)
{
    if (request->accept && strstr(request->accept, "text/plain"))
        answer(reply, TYPE_TEXT, api_metrics_text(target));
    else
        answer(reply, TYPE_JSON, api_metrics_json(target));
}

static void get_events(struct api_target *target, const struct api_request *request,
                       struct api_reply *reply)
{
    (void)target;
    (void)request;
    reply->what = API_EVENTS;
    reply->status = STATUS_OK;
    reply->type = TYPE_JSON;
}

/* ---- the balloon --------------------------------------------------------------------------- */

/* A call of the library's has answered `rc`: tell it if it is an error. */
static bool failed(struct api_reply *reply, int rc, const char *text)
{
    if (rc == -ENODEV)
        api_fault(reply, STATUS_BAD_REQUEST,
                  "this VM has no balloon; it is started with one by --balloon");
    else if (rc < 0)
        api_fault(reply, STATUS_BAD_REQUEST, "%s", text ? text : strerror(-rc));
    return rc < 0;
}

static void get_balloon(struct api_target *target, const struct api_request *request,
                        struct api_reply *reply)
{
    struct minivmm_balloon balloon;

    (void)request;
    if (!failed(reply, target->calls->balloon_get(target->vm, &balloon), NULL))
        answer(reply, TYPE_JSON, api_describe_balloon(target, &balloon));
}

static void get_statistics(struct api_target *target, const struct api_request *request,
                           struct api_reply *reply)
{
    struct minivmm_balloon balloon;

    (void)request;
    if (!failed(reply, target->calls->balloon_get(target->vm, &balloon), NULL))
        answer(reply, TYPE_JSON, api_describe_statistics(&balloon));
}

static void patch_balloon(struct api_target *target, const struct api_request *request,
                          struct api_reply *reply)
{
    struct minivmm_error err = {.text = "it was refused"};

    int64_t mib = take_number(request, "amount_mib", target->config->memory / MIB, reply);
    if (mib >= 0 &&
        !failed(reply, target->calls->balloon_set(target->vm, (uint64_t)mib * MIB, &err), err.text))
        done(reply);
}

static void patch_statistics(struct api_target *target, const struct api_request *request,
                             struct api_reply *reply)
{
    int64_t seconds = take_number(request, "stats_polling_interval_s", INTERVAL_MAX, reply);
    if (seconds < 0 ||
        failed(reply, target->calls->balloon_interval(target->vm, (unsigned)seconds), NULL))
        return;
    target->stats_interval = (unsigned)seconds;
    done(reply);
}

/* ---- the VM -------------------------------------------------------------------------------- */

static void patch_vm(struct api_target *target, const struct api_request *request,
                     struct api_reply *reply)
{
    static const char *const states[] = {"Paused", "Resumed", NULL};

    (void)target;
    switch (take_word(request, "state", states, reply)) {
    case 0:
        reply->what = API_PAUSE;
        break;
    case 1:
        reply->what = API_RESUME;
        break;
    }
}

static void press_power_button(struct api_target *target, struct api_reply *reply)
{
    int rc = target->calls->power_button(target->vm);
    if (rc == -ENODEV)
        api_fault(reply, STATUS_BAD_REQUEST, "this VM has no power button: that takes ACPI");
    else if (!failed(reply, rc, NULL))
        done(reply);
}

static void put_actions(struct api_target *target, const struct api_request *request,
                        struct api_reply *reply)
{
    enum { INSTANCE_START, CTRL_ALT_DEL, FLUSH_METRICS, STOP };
    static const char *const actions[] = {[INSTANCE_START] = "InstanceStart",
                                          [CTRL_ALT_DEL] = "SendCtrlAltDel",
                                          [FLUSH_METRICS] = "FlushMetrics",
                                          [STOP] = "Stop",
                                          [STOP + 1] = NULL};

    switch (take_word(request, "action_type", actions, reply)) {
    case INSTANCE_START:
        api_fault(reply, STATUS_BAD_REQUEST, "the VM was started before");
        break;
    case CTRL_ALT_DEL:
        press_power_button(target, reply);
        break;
    case FLUSH_METRICS: /* GET /metrics is never behind */
        done(reply);
        break;
    case STOP:
        target->calls->stop(target->vm, SIGTERM);
        done(reply);
        break;
    }
}

/* ---- routes -------------------------------------------------------------------------------- */

static const struct {
    const char *path, *method;
    void (*handle)(struct api_target *target, const struct api_request *request,
                   struct api_reply *reply);
} routes[] = {
    {"/", "GET", get_instance},
    {"/version", "GET", get_version},
    {"/machine-config", "GET", get_machine},
    {"/vm/config", "GET", get_config},
    {"/vm", "PATCH", patch_vm},
    {"/actions", "PUT", put_actions},
    {"/balloon", "GET", get_balloon},
    {"/balloon", "PATCH", patch_balloon},
    {"/balloon/statistics", "GET", get_statistics},
    {"/balloon/statistics", "PATCH", patch_statistics},
    {"/metrics", "GET", get_metrics},
    {"/events", "GET", get_events},
};

void api_handle(struct api_target *target, const struct api_request *request,
                struct api_reply *reply)
{
    bool known = false;

    *reply = (struct api_reply){.what = API_REPLY};
    if (request->size > API_BODY_MAX) {
        api_fault(reply, STATUS_BAD_REQUEST, "a body of %zu bytes; at most %u are taken",
                  request->size, API_BODY_MAX);
        return;
    }
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(routes[i].path, request->path) != 0)
            continue;
        known = true;
        if (strcmp(routes[i].method, request->method) != 0)
            continue;
        if (request->size > 0 && strcmp(request->method, "GET") == 0)
            api_fault(reply, STATUS_BAD_REQUEST, "a GET has no body");
        else
            routes[i].handle(target, request, reply);
        return;
    }
    api_fault(reply, known ? STATUS_BAD_REQUEST : STATUS_NOT_FOUND,
              "invalid request method and/or path: %.16s %.128s", request->method, request->path);
}
