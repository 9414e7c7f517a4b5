/*
 * The policy of --balloon auto on what stock guests and a host short of memory really told it: the
 * files of tests/unit/traces, whose headers say how they were recorded.
 *
 * Twice: line by line as it was, where the policy must decide as it did; and with the guest's needs
 * and the host's alone taken from the trace, while the balloon follows the target at a pace of its
 * own, so that decisions have consequences.
 */
#include <linux/virtio_balloon.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/balloon_policy.h"

SUITE(balloon_traces);

#define SECOND      1000000000ull
#define SAMPLES_MAX 1000u
#define KIB         1024ull

static const char *const names[] = {"trixie"};

struct trace {
    const char *name;
    uint64_t memory, floor, reserve;
    unsigned count;
    struct balloon_sample samples[SAMPLES_MAX];
    uint64_t targets[SAMPLES_MAX]; /* what was decided */
    enum balloon_reason reasons[SAMPLES_MAX];
};
static struct trace trace;

static void parse_sample(const char *line)
{
    struct balloon_sample *s = &trace.samples[trace.count];
    struct minivmm_balloon_stats *guest = &s->guest;
    unsigned long long n[19];
    char *end = (char *)line;

    cr_assert_lt(trace.count, SAMPLES_MAX);
    for (size_t i = 0; i < COUNT(n); i++) {
        const char *at = end;
        n[i] = strtoull(at, &end, 10);
        cr_assert_neq(end, at, "%s: column %zu of: %s", trace.name, i, line);
    }
    *s = (struct balloon_sample){.now_ns = n[0] * 1000000,
                                 .actual = n[1] * KIB,
                                 .has_guest = n[2],
                                 .stats_actual = n[4] * KIB,
                                 .has_host = n[13],
                                 .host_stalled = n[14],
                                 .host_total = n[15] * KIB,
                                 .host_available = n[16] * KIB};
    guest->present = (uint32_t)n[3];
    guest->available_memory = n[5] * KIB;
    guest->free_memory = n[6] * KIB;
    guest->total_memory = n[7] * KIB;
    guest->swap_in = n[8];
    guest->swap_out = n[9];
    guest->major_faults = n[10];
    guest->oom_kills = n[11];
    guest->alloc_stalls = n[12];
    trace.targets[trace.count] = n[17] * KIB;
    trace.reasons[trace.count++] = (enum balloon_reason)n[18];
}

static void load(const char *name)
{
    char line[400], path[100];

    memset(&trace, 0, sizeof(trace));
    trace.name = name;
    snprintf(path, sizeof(path), "tests/unit/traces/%s.txt", name);
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file, "%s: cannot be read; tests run in the folder of the Makefile", path);
    while (fgets(line, sizeof(line), file)) {
        if (line[0] == '#')
            continue;
        if (strncmp(line, "vm ", 3) != 0) {
            parse_sample(line);
            continue;
        }
        cr_assert_eq(sscanf(line, "vm %lu %lu %lu", &trace.memory, &trace.floor, &trace.reserve),
                     3);
    }
    fclose(file);
    trace.memory *= KIB;
    trace.floor *= KIB;
    trace.reserve *= KIB;
    cr_assert_gt(trace.count, 100, "%s: %u samples", name, trace.count);
}

static struct balloon_policy policy_of(void)
{
    return (struct balloon_policy){
        .memory = trace.memory, .floor = trace.floor, .reserve = trace.reserve};
}

static uint64_t headroom(void)
{
    return trace.memory / 16 > 16 * MIB ? trace.memory / 16 : 16 * MIB;
}

/* What a run of samples came to. */
struct outcome {
    unsigned turns, given, taken;
    unsigned wants; /* of the guest's, with something in the balloon */
    int direction;
    uint64_t largest;
};

static void note(struct outcome *outcome, uint64_t before, uint64_t target)
{
    if (target == before)
        return;
    int direction = target > before ? 1 : -1;
    outcome->turns += outcome->direction && direction != outcome->direction;
    outcome->direction = direction;
    outcome->taken += direction > 0;
    outcome->given += direction < 0;
    if (target > outcome->largest)
        outcome->largest = target;
}

/* One sample: the floor holds, and a guest in want has more with this very step. */
static void step(struct balloon_policy *policy, const struct balloon_sample *s, unsigned at,
                 struct outcome *outcome)
{
    uint64_t before = policy->target;
    bool short_of = s->has_guest && s->guest.available_memory < headroom();
    bool took_back = at > 0 && s->actual < policy->last_actual && s->actual < before;

    balloon_policy_step(policy, s);
    cr_assert_leq(policy->target, trace.memory - trace.floor, "%s: sample %u", trace.name, at);
    if (short_of) {
        uint64_t has = s->guest.available_memory + s->stats_actual;
        uint64_t most = has > headroom() ? has - headroom() : 0;
        cr_assert_leq(policy->target, most, "%s: sample %u: a guest in want is asked for %llu KiB",
                      trace.name, at, (unsigned long long)policy->target / KIB);
        outcome->wants += before > 0;
    }
    if (took_back)
        cr_assert(policy->target == 0 || policy->target < s->actual, "%s: sample %u", trace.name,
                  at);
    note(outcome, before, policy->target);
}

Test(balloon_traces, as_it_was_it_decides_as_it_did)
{
    for (size_t n = 0; n < COUNT(names); n++) {
        struct outcome outcome = {0};
        load(names[n]);
        struct balloon_policy policy = policy_of();
        for (unsigned i = 0; i < trace.count; i++) {
            step(&policy, &trace.samples[i], i, &outcome);
            uint64_t then = trace.targets[i], now = policy.target;
            cr_assert_leq(
                now > then ? now - then : then - now, MIB,
                "%s: sample %u: %llu KiB, and %llu when it was recorded; where the policy "
                "was changed, record anew",
                trace.name, i, (unsigned long long)now / KIB, (unsigned long long)then / KIB);
            /* A trace has milliseconds, a thousandth of a second's step: each sample goes on from
             * the target as it was. */
            policy.target = then;
        }
        cr_expect_gt(outcome.taken, 10, "%s: the trace shows no want of the host's", trace.name);
        cr_expect_gt(outcome.given, 2, "%s: nor any of the guest's", trace.name);
    }
}

/*
 * The guest's use of its memory, and `more` of it, and the host's, but for this balloon, are as
 * recorded; what is in the balloon follows the target by `pace` bytes a second, or at once
 * downwards.
 */
static struct outcome live(uint64_t pace, uint64_t more)
{
    struct balloon_policy policy = policy_of();
    struct outcome outcome = {0};
    uint64_t actual = 0;

    for (unsigned i = 0; i < trace.count; i++) {
        struct balloon_sample s = trace.samples[i];
        uint64_t dt = i > 0 ? s.now_ns - trace.samples[i - 1].now_ns : SECOND;
        uint64_t most = pace / 1000 * (dt / 1000000);
        uint64_t left = s.guest.available_memory + s.stats_actual; /* what it could do without */
        left = left > more ? left - more : 0;

        if (actual > policy.target)
            actual = policy.target;
        else
            actual += policy.target - actual < most ? policy.target - actual : most;
        if (s.has_guest && actual > left)
            actual = left; /* deflate on OOM */
        actual &= ~4095ull;
        s.host_available =
            s.host_available + actual > s.actual ? s.host_available + actual - s.actual : 0;
        s.guest.available_memory = left > actual ? left - actual : 0;
        s.guest.free_memory = s.guest.available_memory / 2;
        s.actual = s.stats_actual = actual;
        step(&policy, &s, i, &outcome);
    }
    return outcome;
}

/* Returns how often the guest was in want. */
static unsigned check(uint64_t pace, uint64_t more, uint64_t seconds)
{
    const struct outcome outcome = live(pace, more);

    if (more <= 128 * MIB)
        cr_expect_gt(outcome.largest, 16 * MIB, "%s at %llu MiB a second: %llu KiB at most",
                     trace.name, (unsigned long long)(pace >> 20),
                     (unsigned long long)outcome.largest / KIB);
    cr_expect_leq(outcome.turns, seconds / 20, "%s at %llu MiB a second, %llu more used: %u turns",
                  trace.name, (unsigned long long)(pace >> 20), (unsigned long long)(more >> 20),
                  outcome.turns);
    return outcome.wants;
}

Test(balloon_traces, whatever_the_pace_the_floor_holds_and_it_does_not_swing)
{
    for (size_t n = 0; n < COUNT(names); n++) {
        load(names[n]);
        uint64_t seconds =
            (trace.samples[trace.count - 1].now_ns - trace.samples[0].now_ns) / SECOND;
        for (uint64_t pace = 4 * MIB; pace <= 1024 * MIB; pace *= 2) {
            unsigned wants = 0;
            for (uint64_t more = 0; more <= 320 * MIB; more += 32 * MIB)
                wants += check(pace, more, seconds);
            cr_expect_gt(wants, 3, "%s: no guest was in want: %u", trace.name, wants);
        }
    }
}
