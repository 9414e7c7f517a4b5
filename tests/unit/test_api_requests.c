/* Requests to the control socket: what each gets for an answer. Bodies as in firecracker.yaml. */
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/api_rig.h"
#include "tests/unit/support.h"
#include "vmm/api_events.h"

SUITE(api_requests);

static struct api_rig rig;

static void begin(bool balloon)
{
    api_rig_init(&rig, balloon);
}

static struct api_reply ask(const char *method, const char *path, const char *body)
{
    return api_rig_ask(&rig, method, path, body);
}

struct row {
    const char *method, *path, *body;
    int status;
    const char *text; /* that the answer contains; NULL: it has no body */
};

static void check(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct api_reply reply = ask(rows[i].method, rows[i].path, rows[i].body);
        const char *name = rows[i].body ? rows[i].body : rows[i].path;
        cr_expect_eq(reply.what, API_REPLY, "%s", name);
        cr_expect_eq(reply.status, rows[i].status, "%s %s: %d", rows[i].method, name, reply.status);
        if (rows[i].text)
            cr_expect(reply.body && strstr(reply.body, rows[i].text), "%s %s: %s", rows[i].method,
                      name, reply.body);
        else
            cr_expect_null(reply.body, "%s %s: %s", rows[i].method, name, reply.body);
        if (rows[i].status >= 400)
            cr_expect(reply.body && strncmp(reply.body, "{\"fault_message\":\"", 18) == 0, "%s: %s",
                      name, reply.body);
        free(reply.body);
    }
}

Test(api_requests, what_there_is_to_get)
{
    const struct row rows[] = {
        {"GET", "/", NULL, 200, "\"state\":\"Running\",\"vmm_version\":\"" MINIVMM_VERSION "\""},
        {"GET", "/", NULL, 200, "{\"app_name\":\"minivmm\",\"id\":\"minivmm-"},
        {"GET", "/", "", 200, "Running"},
        {"GET", "/version", NULL, 200, "{\"firecracker_version\":\"" MINIVMM_VERSION "\""},
        {"GET", "/machine-config", NULL, 200,
         "{\"vcpu_count\":2,\"mem_size_mib\":128,\"smt\":false,\"track_dirty_pages\":false}"},
        {"GET", "/vm/config", NULL, 200,
         "\"boot-source\":{\"kernel_image_path\":\"vmlinuz\",\"initrd_path\":\"initrd\","
         "\"boot_args\":\"quiet ?\"}"},
        {"GET", "/vm/config", NULL, 200,
         "\"drives\":[{\"drive_id\":\"disk0\",\"path_on_host\":\"a\\\"b.img\","
         "\"is_root_device\":false,\"is_read_only\":true"},
        {"GET", "/vm/config", NULL, 200,
         "[{\"iface_id\":\"net0\",\"host_dev_name\":\"tap0\",\"guest_mac\":\"02:00:00:00:00:1f\"}"
         "]"},
        {"GET", "/vm/config", NULL, 200, "\"entropy\":{},\"balloon\":{\"amount_mib\":64"},
        {"GET", "/balloon", NULL, 200,
         "{\"amount_mib\":64,\"deflate_on_oom\":true,\"stats_polling_interval_s\":0"},
        {"GET", "/balloon/statistics", NULL, 200,
         "{\"target_pages\":16384,\"actual_pages\":8192,\"target_mib\":64,\"actual_mib\":32}"},
        {"GET", "/metrics", NULL, 200,
         "{\"state\":\"Running\",\"uptime_ms\":1500,\"exits\":{\"port I/O\":7,\"MMIO\":8}"},
        {"GET", "/metrics", NULL, 200,
         "{\"slot\":1,\"name\":\"net\",\"breaks\":1,\"external\":false,\"queues\":["
         "{\"requests\":13,\"interrupts\":14},{\"requests\":15,\"interrupts\":16}],"
         "\"drops\":{\"sent\":12,\"received\":0,\"filtered\":0}}"},
    };
    begin(true);
    check(rows, COUNT(rows));
    const struct row states[] = {{"GET", "/", NULL, 200, "\"Paused\""},
                                 {"GET", "/", NULL, 200, "\"Ended\""},
                                 {"GET", "/", NULL, 200, "\"Not started\""}};
    const enum minivmm_state values[] = {MINIVMM_STATE_PAUSED, MINIVMM_STATE_ENDED,
                                         MINIVMM_STATE_NOT_STARTED};
    for (size_t i = 0; i < COUNT(states); i++) {
        rig.state = values[i];
        check(&states[i], 1);
    }
}

Test(api_requests, what_can_be_changed)
{
    begin(true);
    const struct row rows[] = {
        {"PATCH", "/balloon", "{\"amount_mib\": 96}", 204, NULL},
        {"PATCH", "/balloon/statistics", "{\"stats_polling_interval_s\": 5}", 204, NULL},
        {"PUT", "/actions", "{\"action_type\": \"SendCtrlAltDel\"}", 204, NULL},
        {"PUT", "/actions", "{\"action_type\": \"FlushMetrics\"}", 204, NULL},
        {"PUT", "/actions", "{\"action_type\": \"Stop\"}", 204, NULL},
        {"GET", "/balloon", NULL, 200, "\"stats_polling_interval_s\":5"},
    };
    check(rows, COUNT(rows));
    cr_expect_eq(rig.balloon, 96 * MIB);
    cr_expect_eq(rig.interval, 5);
    cr_expect_eq(rig.pressed, 1);
    cr_expect_eq(rig.stopped, SIGTERM);
    cr_expect_eq(ask("PATCH", "/vm", "{\"state\": \"Paused\"}").what, API_PAUSE);
    cr_expect_eq(ask("PATCH", "/vm", "{\"state\": \"Resumed\"}").what, API_RESUME);
    cr_expect_eq(ask("GET", "/events", NULL).what, API_EVENTS);
}

Test(api_requests, what_is_wrong_is_said_and_changes_nothing)
{
    static char large[API_BODY_MAX + 2];
    memset(large, ' ', API_BODY_MAX + 1);
    const struct row rows[] = {
        {"GET", "/nope", NULL, 404, "GET /nope"},
        {"GET", "/balloon/", NULL, 404, "GET /balloon/"},
        {"GET", "//", NULL, 404, "GET //"},
        {"PUT", "/boot-source", "{}", 404, "PUT /boot-source"},
        {"PUT", "/", "{}", 400, "PUT /"},
        {"DELETE", "/vm", NULL, 400, "DELETE /vm"},
        {"HEAD", "/", NULL, 400, "HEAD /"},
        {"GET", "/vm", NULL, 400, "GET /vm"},
        {"GET", "/", "{}", 400, "a GET has no body"},
        {"PATCH", "/balloon", NULL, 400, "the body is no JSON: line"},
        {"PATCH", "/balloon", "", 400, "the body is no JSON: line"},
        {"PATCH", "/balloon", "junk", 400, "the body is no JSON: line 1"},
        {"PATCH", "/balloon", "{\"amount_mib\": 1", 400, "the body is no JSON: line 1"},
        {"PATCH", "/balloon", "{\"amount_mib\": 1} x", 400, "the body is no JSON: line 1"},
        {"PATCH", "/balloon", "{\"amount_mib\": 1, \"amount_mib\": 2}", 400, "duplicate"},
        {"PATCH", "/balloon", "[1]", 400, "the body must be an object"},
        {"PATCH", "/balloon", "{}", 400, "amount_mib: is missing"},
        {"PATCH", "/balloon", "{\"amount_mib\": 1, \"x\": 2}", 400, "unknown field 'x'"},
        {"PATCH", "/balloon", "{\"amount_mib\": \"1\"}", 400, "must be a whole number"},
        {"PATCH", "/balloon", "{\"amount_mib\": 1.5}", 400, "must be a whole number"},
        {"PATCH", "/balloon", "{\"amount_mib\": null}", 400, "must be a whole number"},
        {"PATCH", "/balloon", "{\"amount_mib\": -1}", 400, "-1: must be from 0 to 128"},
        {"PATCH", "/balloon", "{\"amount_mib\": 129}", 400, "129: must be from 0 to 128"},
        {"PATCH", "/balloon", "{\"amount_mib\": 97}", 400, "balloon: below the floor"},
        {"PATCH", "/balloon", "{\"amount_mib\": 99999999999999999999}", 400, "no JSON"},
        {"PATCH", "/balloon/statistics", "{\"stats_polling_interval_s\": 3601}", 400, "3601"},
        {"PATCH", "/balloon/statistics", "{\"amount_mib\": 1}", 400, "is missing"},
        {"PATCH", "/vm", "{\"state\": \"paused\"}", 400, "state: 'paused': no such value"},
        {"PATCH", "/vm", "{\"state\": 1}", 400, "state: must be a string"},
        {"PATCH", "/vm", "{\"state\": \"Paused\\u0000\"}", 400, "no JSON"},
        {"PUT", "/actions", "{\"action_type\": \"InstanceStart\"}", 400, "started before"},
        {"PUT", "/actions", "{\"action_type\": \"\"}", 400, "action_type: '': no such value"},
        {"PUT", "/actions", large, 400, "a body of 4097 bytes; at most 4096 are taken"},
    };
    begin(true);
    rig.balloon = rig.interval = 77;
    check(rows, COUNT(rows));
    cr_expect(rig.balloon == 77 && rig.interval == 77 && !rig.stopped && !rig.pressed);
}

Test(api_requests, a_vm_without_a_power_button_says_so)
{
    const struct row row = {"PUT", "/actions", "{\"action_type\": \"SendCtrlAltDel\"}", 400,
                            "this VM has no power button"};
    begin(true);
    rig.button = -ENODEV;
    check(&row, 1);
    cr_expect_eq(rig.pressed, 0);
}

Test(api_requests, a_vm_without_a_balloon_says_so)
{
    const struct row rows[] = {
        {"GET", "/balloon", NULL, 400, "this VM has no balloon"},
        {"GET", "/balloon/statistics", NULL, 400, "this VM has no balloon"},
        {"PATCH", "/balloon", "{\"amount_mib\": 1}", 400, "this VM has no balloon"},
        {"PATCH", "/balloon/statistics", "{\"stats_polling_interval_s\": 1}", 400, "no balloon"},
    };
    begin(false);
    check(rows, COUNT(rows));
    struct api_reply reply = ask("GET", "/vm/config", NULL);
    cr_expect_null(strstr(reply.body, "balloon"));
    free(reply.body);
}

Test(api_requests, statistics_that_the_guest_sent_are_told_and_no_others)
{
    begin(true);
    rig.answer.has_stats = true;
    rig.answer.stats_age_ns = 2500000;
    rig.answer.stats = (struct minivmm_balloon_stats){.swap_in = 1,
                                                      .free_memory = UINT64_MAX,
                                                      .oom_kills = 3,
                                                      .direct_reclaims = 4,
                                                      .present = 1u << VIRTIO_BALLOON_S_MEMFREE |
                                                                 1u << 10 | 1u << 15};
    struct api_reply reply = ask("GET", "/balloon/statistics", NULL);
    cr_expect(strstr(reply.body, "\"free_memory\":9223372036854775807,\"oom_kill\":3,"
                                 "\"direct_reclaim\":4,\"age_ms\":2}"),
              "%s", reply.body);
    cr_expect_null(strstr(reply.body, "swap_in"));
    free(reply.body);
}

Test(api_requests, prometheus_gets_text)
{
    const struct api_request request = {
        .method = "GET", .path = "/metrics", .accept = "text/plain;version=0.0.4, */*;q=0.1"};
    const char *const lines[] = {
        "\nminivmm_paused 0\n",
        "\nminivmm_uptime_seconds 1.500\n",
        "\nminivmm_exits_total{reason=\"MMIO\"} 8\n",
        "\nminivmm_queue_requests_total{slot=\"1\",device=\"net\",queue=\"1\"} 15\n",
        "\nminivmm_queue_interrupts_total{slot=\"0\",device=\"blk\",queue=\"0\"} 11\n",
        "\nminivmm_net_drops_total{slot=\"1\",why=\"sent\"} 12\n",
        "\nminivmm_serial_lost_bytes_total 9\n",
        "\nminivmm_balloon_actual_bytes 33554432\n",
    };
    struct api_reply reply;

    begin(true);
    api_handle(&rig.target, &request, &reply);
    cr_expect_eq(strncmp(reply.type, "text/plain", 10), 0);
    for (size_t i = 0; i < COUNT(lines); i++)
        cr_expect(strstr(reply.body, lines[i]), "%s", lines[i]);
    free(reply.body);
}

/* ---- events -------------------------------------------------------------------------------- */

Test(api_requests, events_are_a_line_of_json_each)
{
    const struct {
        struct minivmm_event event;
        unsigned lost;
        const char *line;
    } rows[] = {
        {{.kind = MINIVMM_EVENT_STARTED, .time_ns = 5},
         0,
         "{\"event\":\"started\",\"time_ns\":5}\n"},
        {{.kind = MINIVMM_EVENT_BALLOON, .time_ns = 6, .value = 4096, .name = "asked for"},
         0,
         "{\"event\":\"balloon\",\"time_ns\":6,\"name\":\"asked for\",\"bytes\":4096}\n"},
        {{.kind = MINIVMM_EVENT_DRIVER_OK, .time_ns = 7, .name = "blk", .number = 3},
         2,
         "{\"event\":\"driver_ok\",\"time_ns\":7,\"name\":\"blk\",\"number\":3,"
         "\"lost_before\":2}\n"},
        {{.kind = MINIVMM_EVENT_ENDED, .time_ns = 8, .name = "a\n\"\xff\x1b"},
         0,
         "{\"event\":\"ended\",\"time_ns\":8,\"name\":\"a\\n\\\"?\\u001B\"}\n"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char *line = api_describe_event(&rows[i].event, rows[i].lost);
        cr_expect_str_eq(line, rows[i].line);
        free(line);
    }
}

Test(api_requests, of_too_many_events_the_last_are_kept_and_the_loss_is_told)
{
    static struct api_events events;
    struct api_event_copy copy;
    const unsigned more = 10;

    cr_assert_eq(api_events_init(&events), 0);
    for (unsigned i = 0; i < API_EVENTS_KEPT + more; i++) {
        char name[16];
        snprintf(name, sizeof(name), "%u", i);
        const struct minivmm_event event = {.kind = MINIVMM_EVENT_EXPECTED, .name = name};
        api_events_put(&events, &event);
    }
    cr_expect_gt(support_take(events.fd), 0);
    for (unsigned i = more; i < API_EVENTS_KEPT + more; i++) {
        cr_assert(api_events_take(&events, &copy));
        cr_expect_eq(atoi(copy.event.name), (int)i);
        cr_expect_eq(copy.lost, i == more ? more : 0);
    }
    cr_expect_not(api_events_take(&events, &copy));
    api_events_finish(&events);
}
