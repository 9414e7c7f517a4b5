/*
 * Fuzzes requests to the control socket: method, path and body go where libevent hands them on, and
 * what comes back must be an answer.
 *
 * Input: a byte of method, a byte of path (beyond the known ones: a path of the input's, up to the
 * next zero), then the body, which ends where an allocation does.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "vmm/api_request.h"

static const char *const methods[] = {"GET", "PUT", "PATCH", "POST"};
static const char *const paths[] = {
    "/",        "/version", "/machine-config",     "/vm/config", "/vm",
    "/actions", "/balloon", "/balloon/statistics", "/metrics",   "/events"};
#define PATHS (sizeof(paths) / sizeof(paths[0]))

static unsigned changes; /* of the VM */

static enum minivmm_state state(struct minivmm *vm)
{
    (void)vm;
    return MINIVMM_STATE_RUNNING;
}

static void stop(struct minivmm *vm, int signal)
{
    (void)vm, (void)signal;
    changes++;
}

static void metrics(struct minivmm *vm, struct minivmm_metrics *out)
{
    (void)vm;
    *out = (struct minivmm_metrics){.uptime_ns = 1};
}

static int balloon_set(struct minivmm *vm, uint64_t bytes, struct minivmm_error *err)
{
    (void)vm, (void)err;
    MUST(bytes <= 128ull << 20 && bytes % (1u << 20) == 0);
    changes++;
    return 0;
}

static int balloon_get(struct minivmm *vm, struct minivmm_balloon *balloon)
{
    (void)vm;
    *balloon = (struct minivmm_balloon){.target = 1};
    return 0;
}

static int balloon_interval(struct minivmm *vm, unsigned seconds)
{
    (void)vm;
    MUST(seconds <= 3600);
    changes++;
    return 0;
}

static int power_button(struct minivmm *vm)
{
    (void)vm;
    changes++;
    return 0;
}

static const struct api_calls calls = {.state = state,
                                       .stop = stop,
                                       .metrics = metrics,
                                       .balloon_set = balloon_set,
                                       .balloon_get = balloon_get,
                                       .balloon_interval = balloon_interval,
                                       .power_button = power_button};

static void check_answer(const struct api_reply *reply, bool changed)
{
    if (reply->what != API_REPLY) {
        MUST(!reply->body && !changed);
        return;
    }
    MUST(reply->status == 200 || reply->status == 204 || reply->status == 400 ||
         reply->status == 404);
    MUST((reply->body == NULL) == (reply->status == 204));
    MUST(!changed || reply->status == 204);
    if (!reply->body)
        return;
    json_t *body = json_loads(reply->body, 0, NULL);
    MUST(json_is_object(body));
    MUST((reply->status >= 400) == (json_object_get(body, "fault_message") != NULL));
    json_decref(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct minivmm_config config = {.kernel = "k", .cpus = 1, .memory = 128ull << 20};
    struct api_target target = {.calls = &calls, .config = &config};
    char path[200] = "";
    struct api_reply reply;

    if (size < 2)
        return 0;
    const char *method = methods[data[0] % 4];
    size_t known = data[1];
    data += 2;
    size -= 2;
    if (known >= PATHS) {
        size_t length = strnlen((const char *)data, size);
        snprintf(path, sizeof(path), "%.*s", (int)length, (const char *)data);
        data += length;
        size -= length;
    }
    char *body = malloc(size ? size : 1);
    memcpy(body, data, size);
    changes = 0;
    const struct api_request request = {
        .method = method, .path = known < PATHS ? paths[known] : path, .body = body, .size = size};
    api_handle(&target, &request, &reply);
    check_answer(&reply, changes > 0);
    free(reply.body);
    free(body);
    return 0;
}
