/*
 * Firecracker's API description (src/firecracker/swagger/firecracker.yaml, as of version 1.17) as
 * tables: every request that it lists, with bodies made from its definitions. What we have too is
 * served, with answers of the described form; whatever else a client of Firecracker's may ask for
 * is refused with a fault message, and changes nothing.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/api_rig.h"
#include "tests/unit/support.h"

SUITE(api_firecracker);

/* ---- definitions --------------------------------------------------------------------------- */

enum type { END, STRING, INTEGER, BOOLEAN, ARRAY, OBJECT };

struct property {
    const char *name;
    enum type type;
    bool required;
    const char *values; /* of a string, with | between them; NULL: any */
};
#define NEEDED(name, type)                                                                         \
    {                                                                                              \
        name, type, true, NULL                                                                     \
    }
#define MAY(name, type)                                                                            \
    {                                                                                              \
        name, type, false, NULL                                                                    \
    }
#define LISTED(name, required, values)                                                             \
    {                                                                                              \
        name, STRING, required, values                                                             \
    }
#define LAST                                                                                       \
    {                                                                                              \
        NULL, END, false, NULL                                                                     \
    }

static const struct property error[] = {NEEDED("fault_message", STRING), LAST};
static const struct property instance_info[] = {NEEDED("app_name", STRING), NEEDED("id", STRING),
                                                LISTED("state", true, "Not started|Running|Paused"),
                                                NEEDED("vmm_version", STRING), LAST};
static const struct property version[] = {NEEDED("firecracker_version", STRING), LAST};
static const struct property machine[] = {MAY("cpu_template", STRING),
                                          MAY("smt", BOOLEAN),
                                          NEEDED("mem_size_mib", INTEGER),
                                          MAY("track_dirty_pages", BOOLEAN),
                                          NEEDED("vcpu_count", INTEGER),
                                          LISTED("huge_pages", false, "None|Transparent|2M"),
                                          LAST};
static const struct property full_config[] = {
    MAY("balloon", OBJECT),     MAY("drives", ARRAY),
    MAY("boot-source", OBJECT), MAY("cpu-config", OBJECT),
    MAY("logger", OBJECT),      MAY("machine-config", OBJECT),
    MAY("metrics", OBJECT),     MAY("memory-hotplug", OBJECT),
    MAY("mmds-config", OBJECT), MAY("network-interfaces", ARRAY),
    MAY("pmem", ARRAY),         MAY("vsock", OBJECT),
    MAY("entropy", OBJECT),     LAST};
static const struct property boot_source[] = {NEEDED("kernel_image_path", STRING),
                                              MAY("initrd_path", STRING), MAY("boot_args", STRING),
                                              LAST};
static const struct property drive[] = {
    NEEDED("drive_id", STRING),   NEEDED("is_root_device", BOOLEAN),
    MAY("partuuid", STRING),      LISTED("cache_type", false, "Unsafe|Writeback"),
    MAY("is_read_only", BOOLEAN), MAY("path_on_host", STRING),
    MAY("rate_limiter", OBJECT),  LISTED("io_engine", false, "Sync|Async"),
    MAY("socket", STRING),        LAST};
static const struct property partial_drive[] = {
    NEEDED("drive_id", STRING), MAY("path_on_host", STRING), MAY("rate_limiter", OBJECT), LAST};
static const struct property interface[] = {NEEDED("iface_id", STRING),
                                            NEEDED("host_dev_name", STRING),
                                            MAY("guest_mac", STRING),
                                            MAY("mtu", INTEGER),
                                            MAY("rx_rate_limiter", OBJECT),
                                            MAY("tx_rate_limiter", OBJECT),
                                            LAST};
static const struct property partial_interface[] = {NEEDED("iface_id", STRING),
                                                    MAY("rx_rate_limiter", OBJECT),
                                                    MAY("tx_rate_limiter", OBJECT), LAST};
static const struct property balloon[] = {NEEDED("amount_mib", INTEGER),
                                          NEEDED("deflate_on_oom", BOOLEAN),
                                          MAY("stats_polling_interval_s", INTEGER),
                                          MAY("free_page_hinting", BOOLEAN),
                                          MAY("free_page_reporting", BOOLEAN),
                                          LAST};
static const struct property balloon_update[] = {NEEDED("amount_mib", INTEGER), LAST};
static const struct property balloon_stats_update[] = {NEEDED("stats_polling_interval_s", INTEGER),
                                                       LAST};
static const struct property balloon_start[] = {MAY("acknowledge_on_stop", BOOLEAN), LAST};
static const struct property balloon_stats[] = {NEEDED("target_pages", INTEGER),
                                                NEEDED("actual_pages", INTEGER),
                                                NEEDED("target_mib", INTEGER),
                                                NEEDED("actual_mib", INTEGER),
                                                MAY("swap_in", INTEGER),
                                                MAY("swap_out", INTEGER),
                                                MAY("major_faults", INTEGER),
                                                MAY("minor_faults", INTEGER),
                                                MAY("free_memory", INTEGER),
                                                MAY("total_memory", INTEGER),
                                                MAY("available_memory", INTEGER),
                                                MAY("disk_caches", INTEGER),
                                                MAY("hugetlb_allocations", INTEGER),
                                                MAY("hugetlb_failures", INTEGER),
                                                MAY("oom_kill", INTEGER),
                                                MAY("alloc_stall", INTEGER),
                                                MAY("async_scan", INTEGER),
                                                MAY("direct_scan", INTEGER),
                                                MAY("async_reclaim", INTEGER),
                                                MAY("direct_reclaim", INTEGER),
                                                LAST};
static const struct property action[] = {
    LISTED("action_type", true, "FlushMetrics|InstanceStart|SendCtrlAltDel"), LAST};
static const struct property vm_state[] = {LISTED("state", true, "Paused|Resumed"), LAST};
static const struct property pmem[] = {NEEDED("id", STRING),        NEEDED("path_on_host", STRING),
                                       MAY("root_device", BOOLEAN), MAY("read_only", BOOLEAN),
                                       MAY("rate_limiter", OBJECT), LAST};
static const struct property partial_pmem[] = {NEEDED("id", STRING), MAY("rate_limiter", OBJECT),
                                               LAST};
static const struct property logger[] = {
    MAY("level", STRING),       MAY("log_path", STRING),
    MAY("show_level", BOOLEAN), MAY("show_log_origin", BOOLEAN),
    MAY("module", STRING),      LAST};
static const struct property metrics[] = {NEEDED("metrics_path", STRING), LAST};
static const struct property mmds_config[] = {
    NEEDED("network_interfaces", ARRAY), LISTED("version", false, "V1|V2"),
    MAY("ipv4_address", STRING), MAY("imds_compat", BOOLEAN), LAST};
static const struct property hotplug[] = {MAY("total_size_mib", INTEGER),
                                          MAY("slot_size_mib", INTEGER),
                                          MAY("block_size_mib", INTEGER), LAST};
static const struct property hotplug_update[] = {MAY("requested_size_mib", INTEGER), LAST};
static const struct property snapshot_create[] = {
    NEEDED("mem_file_path", STRING), NEEDED("snapshot_path", STRING),
    LISTED("snapshot_type", false, "Full|Diff"), LAST};
static const struct property snapshot_load[] = {
    NEEDED("snapshot_path", STRING), MAY("mem_file_path", STRING), MAY("resume_vm", BOOLEAN), LAST};
static const struct property vsock[] = {NEEDED("guest_cid", INTEGER), NEEDED("uds_path", STRING),
                                        MAY("vsock_id", STRING), LAST};
static const struct property serial[] = {MAY("serial_out_path", STRING),
                                         MAY("rate_limiter", OBJECT), LAST};
static const struct property anything[] = {LAST};

/* ---- requests ------------------------------------------------------------------------------ */

enum outcome {
    ANSWERED, /* 200, with a body of the form `answer` */
    DONE,     /* 204 */
    HALTED,   /* pause or resume, which is done elsewhere */
    REFUSED,  /* 400: the path is known, and this cannot be done with it */
    UNKNOWN,  /* 404 */
};

static const struct request {
    const char *method, *path;
    const struct property *body; /* NULL: none */
    enum outcome outcome;
    const struct property *answer; /* NULL: none */
} requests[] = {
    {"GET", "/", NULL, ANSWERED, instance_info},
    {"PUT", "/actions", action, DONE, NULL},
    {"GET", "/balloon", NULL, ANSWERED, balloon},
    {"PUT", "/balloon", balloon, REFUSED, NULL}, /* "This will fail after machine startup" */
    {"PATCH", "/balloon", balloon_update, DONE, NULL},
    {"GET", "/balloon/statistics", NULL, ANSWERED, balloon_stats},
    {"PATCH", "/balloon/statistics", balloon_stats_update, DONE, NULL},
    {"PATCH", "/balloon/hinting/start", balloon_start, UNKNOWN, NULL},
    {"GET", "/balloon/hinting/status", NULL, UNKNOWN, NULL},
    {"PATCH", "/balloon/hinting/stop", NULL, UNKNOWN, NULL},
    {"PUT", "/boot-source", boot_source, UNKNOWN, NULL},
    {"PUT", "/cpu-config", anything, UNKNOWN, NULL},
    {"PUT", "/drives/rootfs", drive, UNKNOWN, NULL},
    {"PATCH", "/drives/rootfs", partial_drive, UNKNOWN, NULL},
    {"PUT", "/pmem/pmem0", pmem, UNKNOWN, NULL},
    {"PATCH", "/pmem/pmem0", partial_pmem, UNKNOWN, NULL},
    {"PUT", "/logger", logger, UNKNOWN, NULL},
    {"GET", "/machine-config", NULL, ANSWERED, machine},
    {"PUT", "/machine-config", machine, REFUSED, NULL},
    {"PATCH", "/machine-config", machine, REFUSED, NULL},
    {"PUT", "/metrics", metrics, REFUSED, NULL},
    {"PUT", "/mmds", anything, UNKNOWN, NULL},
    {"PATCH", "/mmds", anything, UNKNOWN, NULL},
    {"GET", "/mmds", NULL, UNKNOWN, NULL},
    {"PUT", "/mmds/config", mmds_config, UNKNOWN, NULL},
    {"PUT", "/entropy", anything, UNKNOWN, NULL},
    {"PUT", "/serial", serial, UNKNOWN, NULL},
    {"PUT", "/hotplug/memory", hotplug, UNKNOWN, NULL},
    {"PATCH", "/hotplug/memory", hotplug_update, UNKNOWN, NULL},
    {"GET", "/hotplug/memory", NULL, UNKNOWN, NULL},
    {"PUT", "/network-interfaces/eth0", interface, UNKNOWN, NULL},
    {"PATCH", "/network-interfaces/eth0", partial_interface, UNKNOWN, NULL},
    {"PUT", "/snapshot/create", snapshot_create, UNKNOWN, NULL},
    {"PUT", "/snapshot/load", snapshot_load, UNKNOWN, NULL},
    {"GET", "/version", NULL, ANSWERED, version},
    {"PATCH", "/vm", vm_state, HALTED, NULL},
    {"GET", "/vm/config", NULL, ANSWERED, full_config},
    {"PUT", "/vsock", vsock, UNKNOWN, NULL},
};

/* ---- requests ------------------------------------------------------------------------------- */

static struct api_rig rig;
static bool has_stats;

static struct api_reply ask(const struct request *request, json_t *body)
{
    char *text = body ? json_dumps(body, 0) : NULL;

    api_rig_init(&rig, true);
    rig.answer.has_stats = has_stats;
    rig.answer.stats.present = has_stats ? UINT32_MAX : 0;
    struct api_reply reply = api_rig_ask(&rig, request->method, request->path, text);
    free(text);
    json_decref(body);
    return reply;
}

/* ---- bodies and answers -------------------------------------------------------------------- */

static json_t *value_of(enum type type)
{
    switch (type) {
    case STRING:
        return json_string("text");
    case INTEGER:
        return json_integer(1);
    case BOOLEAN:
        return json_true();
    case ARRAY:
        return json_array();
    default:
        return json_object();
    }
}

static bool is_of(const json_t *value, enum type type)
{
    return type == STRING    ? json_is_string(value)
           : type == INTEGER ? json_is_integer(value)
           : type == BOOLEAN ? json_is_boolean(value)
           : type == ARRAY   ? json_is_array(value)
                             : json_is_object(value);
}

/* The number of the value in the list, or -1. */
static int find_listed(const char *values, const char *value)
{
    const size_t length = strlen(value);
    for (int n = 0; values; n++) {
        const size_t span = strcspn(values, "|");
        if (span == length && memcmp(values, value, span) == 0)
            return n;
        values = values[span] ? values + span + 1 : NULL;
    }
    return -1;
}

static json_t *listed(const char *values, int n)
{
    while (n-- > 0)
        values = strchr(values, '|') + 1;
    return json_stringn(values, strcspn(values, "|"));
}

/* What is required, each a value of its type, the first of those listed; and all else if `whole`.
 */
static json_t *body_of(const struct property *properties, bool whole)
{
    json_t *body = json_object();
    for (const struct property *p = properties; p->name; p++) {
        if (p->required || whole)
            json_object_set_new(body, p->name,
                                p->values ? listed(p->values, 0) : value_of(p->type));
    }
    return body;
}

static void check_form(const char *name, const struct property *properties, const json_t *object)
{
    cr_assert(json_is_object(object), "%s", name);
    for (const struct property *p = properties; p->name; p++) {
        const json_t *value = json_object_get(object, p->name);
        if (!value) {
            cr_expect_not(p->required, "%s: %s is missing", name, p->name);
            continue;
        }
        cr_expect(is_of(value, p->type), "%s: %s", name, p->name);
        if (p->values)
            cr_expect_geq(find_listed(p->values, json_string_value(value)), 0, "%s: %s: %s", name,
                          p->name, json_string_value(value));
    }
}

static json_t *check_answer(const struct request *request, const struct property *properties,
                            struct api_reply *reply)
{
    json_t *object = reply->body ? json_loads(reply->body, 0, NULL) : NULL;
    check_form(request->path, properties, object);
    free(reply->body);
    return object;
}

static void check_refusal(const struct request *request, int status, const char *why,
                          struct api_reply reply)
{
    cr_expect_eq(reply.what, API_REPLY, "%s %s: %s", request->method, request->path, why);
    cr_expect_eq(reply.status, status, "%s %s: %s: %d", request->method, request->path, why,
                 reply.status);
    cr_expect_eq(rig.changes, 0, "%s %s: %s: something changed", request->method, request->path,
                 why);
    json_decref(check_answer(request, error, &reply));
}

/* ---- the rules ----------------------------------------------------------------------------- */

static void check_whole(const struct request *request, bool whole)
{
    struct api_reply reply = ask(request, request->body ? body_of(request->body, whole) : NULL);
    switch (request->outcome) {
    case ANSWERED:
        cr_expect_eq(reply.status, 200, "%s", request->path);
        json_decref(check_answer(request, request->answer, &reply));
        break;
    case DONE:
        cr_expect_eq(reply.status, 204, "%s: %d", request->path, reply.status);
        cr_expect_null(reply.body);
        break;
    case HALTED:
        cr_expect_neq(reply.what, API_REPLY, "%s", request->path);
        break;
    case REFUSED:
        check_refusal(request, 400, "as described", reply);
        break;
    case UNKNOWN:
        check_refusal(request, 404, "as described", reply);
        break;
    }
}

Test(api_firecracker, every_request_of_its_description_is_served_or_refused)
{
    for (unsigned stats = 0; stats < 2; stats++) {
        has_stats = stats;
        for (size_t i = 0; i < COUNT(requests); i++) {
            check_whole(&requests[i], false);
            check_whole(&requests[i], true);
        }
    }
}

Test(api_firecracker, every_value_that_is_listed_is_known)
{
    static const struct {
        const char *path, *value;
        int what, status;
    } rows[] = {
        {"/vm", "Paused", API_PAUSE, 0},
        {"/vm", "Resumed", API_RESUME, 0},
        {"/actions", "FlushMetrics", API_REPLY, 204},
        {"/actions", "SendCtrlAltDel", API_REPLY, 204},
        {"/actions", "InstanceStart", API_REPLY, 400}, /* it is started already */
    };
    unsigned found = 0;

    for (size_t i = 0; i < COUNT(requests); i++) {
        for (size_t n = 0; n < COUNT(rows); n++) {
            if (strcmp(requests[i].path, rows[n].path) != 0)
                continue;
            cr_assert_geq(find_listed(requests[i].body->values, rows[n].value), 0);
            found++;
            struct api_reply reply =
                ask(&requests[i], json_pack("{s:s}", requests[i].body->name, rows[n].value));
            cr_expect_eq((int)reply.what, rows[n].what, "%s", rows[n].value);
            cr_expect_eq(reply.status, rows[n].status, "%s: %d", rows[n].value, reply.status);
            free(reply.body);
        }
    }
    cr_expect_eq(found, COUNT(rows));
}

Test(api_firecracker, a_body_that_is_not_as_described_is_refused)
{
    static const enum type types[] = {STRING, INTEGER, BOOLEAN, ARRAY, OBJECT};

    for (size_t i = 0; i < COUNT(requests); i++) {
        const struct request *request = &requests[i];
        if (request->outcome != DONE && request->outcome != HALTED)
            continue;
        const char *name = request->body->name;
        check_refusal(request, 400, "no body", ask(request, NULL));
        check_refusal(request, 400, "an empty one", ask(request, json_object()));
        json_t *more = body_of(request->body, true);
        json_object_set_new(more, "more", json_true());
        check_refusal(request, 400, "more than is described", ask(request, more));
        for (size_t t = 0; t < COUNT(types); t++) {
            if (types[t] == request->body->type && types[t] != STRING)
                continue; /* and of strings only those listed are known */
            json_t *body = json_object();
            json_object_set_new(body, name, value_of(types[t]));
            check_refusal(request, 400, "another type", ask(request, body));
        }
        check_refusal(request, 400, "null", ask(request, json_pack("{s:n}", name)));
        check_refusal(request, 400, "an array", ask(request, json_pack("[{s:i}]", name, 1)));
    }
}

Test(api_firecracker, the_configuration_s_parts_are_as_described)
{
    static const struct {
        const char *name;
        const struct property *form;
        bool many;
    } parts[] = {
        {"machine-config", machine, false},
        {"boot-source", boot_source, false},
        {"balloon", balloon, false},
        {"entropy", anything, false},
        {"drives", drive, true},
        {"network-interfaces", interface, true},
    };
    const struct request request = {"GET", "/vm/config", NULL, ANSWERED, full_config};
    struct api_reply reply = ask(&request, NULL);
    json_t *object = check_answer(&request, full_config, &reply);

    for (size_t i = 0; i < COUNT(parts); i++) {
        json_t *part = json_object_get(object, parts[i].name);
        check_form(parts[i].name, parts[i].form, parts[i].many ? json_array_get(part, 0) : part);
    }
    json_decref(object);
}
