#include "tests/unit/api_rig.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/support.h"

static struct api_rig *current; /* the calls say no more than "the VM" */

static enum minivmm_state get_state(struct minivmm *vm)
{
    (void)vm;
    return current->state;
}

static void stop(struct minivmm *vm, int signal)
{
    (void)vm;
    current->changes++;
    current->stopped = signal;
}

static void get_metrics(struct minivmm *vm, struct minivmm_metrics *metrics)
{
    (void)vm;
    *metrics = (struct minivmm_metrics){
        .uptime_ns = 1500000000,
        .exit_count = 2,
        .exits = {{"port I/O", 7}, {"MMIO", 8}},
        .serial_lost = 9,
        .device_count = 2,
        .devices = {{.name = "blk", .queue_count = 1, .queues = {{10, 11}}},
                    {.name = "net",
                     .breaks = 1,
                     .has_drops = true,
                     .drops_sent = 12,
                     .queue_count = 2,
                     .queues = {{13, 14}, {15, 16}}}}};
}

static int set_balloon(struct minivmm *vm, uint64_t bytes, struct minivmm_error *err)
{
    (void)vm;
    current->changes++;
    if (!current->has_balloon)
        return -ENODEV;
    if (bytes > 96 * MIB) {
        snprintf(err->text, sizeof(err->text), "balloon: below the floor");
        return -EINVAL;
    }
    current->balloon = bytes;
    return 0;
}

static int get_balloon(struct minivmm *vm, struct minivmm_balloon *balloon)
{
    (void)vm;
    *balloon = current->answer;
    return current->has_balloon ? 0 : -ENODEV;
}

static int set_interval(struct minivmm *vm, unsigned seconds)
{
    (void)vm;
    current->changes++;
    current->interval = seconds;
    return current->has_balloon ? 0 : -ENODEV;
}

static int press_button(struct minivmm *vm)
{
    (void)vm;
    current->changes++;
    current->pressed += current->button == 0;
    return current->button;
}

static const struct api_calls calls = {.state = get_state,
                                       .stop = stop,
                                       .metrics = get_metrics,
                                       .balloon_set = set_balloon,
                                       .balloon_get = get_balloon,
                                       .balloon_interval = set_interval,
                                       .power_button = press_button};
static const struct minivmm_disk disks[] = {{.path = "a\"b.img", .readonly = true}};
static const struct minivmm_net nets[] = {{.tap = "tap0", .mac = {2, 0, 0, 0, 0, 0x1f}}};
static const struct minivmm_config config = {.kernel = "vmlinuz",
                                             .initrd = "initrd",
                                             .cmdline = "quiet \xff",
                                             .cpus = 2,
                                             .memory = 128 * MIB,
                                             .disks = disks,
                                             .disk_count = 1,
                                             .nets = nets,
                                             .net_count = 1,
                                             .rng = true};

void api_rig_init(struct api_rig *rig, bool balloon)
{
    *rig = (struct api_rig){.target = {.calls = &calls, .config = &config},
                            .state = MINIVMM_STATE_RUNNING,
                            .has_balloon = balloon,
                            .answer = {.target = 64 * MIB, .actual = 32 * MIB}};
    current = rig;
}

struct api_reply api_rig_ask(struct api_rig *rig, const char *method, const char *path,
                             const char *body)
{
    const struct api_request request = {
        .method = method, .path = path, .body = body, .size = body ? strlen(body) : 0};
    struct api_reply reply;

    api_handle(&rig->target, &request, &reply);
    return reply;
}
