#include "vmm/balloon_policy.h"

#include <errno.h>
#include <linux/virtio_balloon.h>

#define MIB           (1ull << 20)
#define PAGE_MASK     (~4095ull)
#define SECOND        1000000000ull
#define DT_MAX        (4 * SECOND) /* a longer pause counts as that much */
#define ONE           1024u        /* a share of 1 */
#define STALL_ADDS    (ONE / 4)
#define STALL_FADES   (ONE / 32) /* a second */
#define HOLD_NS       (10 * SECOND)
#define HOLD_MAX_NS   (160 * SECOND)
#define HOLD_AGAIN_NS (60 * SECOND) /* so soon after a hold's end a new one is longer */
#define TURN_NS       (5 * SECOND)
#define SWAP_RATE     MIB  /* a second: swapping in earnest */
#define FAULT_RATE    256u /* major faults a second */

uint64_t balloon_floor(const struct minivmm_config *config)
{
    return config->balloon_min ? config->balloon_min : config->memory / 8;
}

int balloon_check(const struct minivmm_config *config, struct minivmm_error *err)
{
    uint64_t floor = balloon_floor(config);

    if (!config->balloon)
        return 0;
    if (floor > config->memory)
        return error_set(
            err, -EINVAL, "balloon: min=%llu MiB is more than the guest's memory, %llu MiB",
            (unsigned long long)(floor >> 20), (unsigned long long)(config->memory >> 20));
    if (config->balloon_initial > config->memory - floor)
        return error_set(err, -EINVAL,
                         "balloon: %llu MiB out of %llu leave the guest less than its %llu; ask "
                         "for less, or give min=SIZE",
                         (unsigned long long)(config->balloon_initial >> 20),
                         (unsigned long long)(config->memory >> 20),
                         (unsigned long long)(floor >> 20));
    return 0;
}

const char *balloon_reason_text(enum balloon_reason reason)
{
    static const char *const texts[BALLOON_REASONS] = {
        [BALLOON_KEEP] = "policy: as it is",
        [BALLOON_ASKED] = "asked for",
        [BALLOON_HOST_SHORT] = "policy: the host is short of memory",
        [BALLOON_HOST_EASY] = "policy: the host has enough, or the guest has less idle",
        [BALLOON_GUEST_NEEDS] = "policy: the guest needs more",
        [BALLOON_GUEST_SHORT] = "policy: the guest is short of memory",
        [BALLOON_GUEST_OOM] = "policy: the guest ran out of memory",
    };
    return texts[reason];
}

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* `value` a second, in `dt` nanoseconds of at most DT_MAX. */
static uint64_t per_second(uint64_t value, uint64_t dt)
{
    return value / 1000 * (dt / 1000000) + value % 1000 * (dt / 1000000) / 1000;
}

static bool has(const struct minivmm_balloon_stats *stats, unsigned tag)
{
    return stats->present >> tag & 1;
}

/* ---- the guest ----------------------------------------------------------------------------- */

/* What the guest can use without swapping; false when it does not say, or cannot be. */
static bool find_available(const struct balloon_policy *p, const struct balloon_sample *sample,
                           uint64_t *available)
{
    const struct minivmm_balloon_stats *guest = &sample->guest;

    if (!sample->has_guest ||
        !(has(guest, VIRTIO_BALLOON_S_AVAIL) || has(guest, VIRTIO_BALLOON_S_MEMFREE)))
        return false;
    *available = has(guest, VIRTIO_BALLOON_S_AVAIL) ? guest->available_memory : guest->free_memory;
    return *available <= p->memory && guest->free_memory <= p->memory &&
           guest->total_memory <= p->memory;
}

static uint64_t headroom(const struct balloon_policy *p)
{
    return max(p->memory / 16, 16 * MIB);
}

static uint64_t find_idle(const struct balloon_policy *p, const struct balloon_sample *sample,
                          uint64_t available)
{
    uint64_t held = min(sample->stats_actual, p->memory); /* it may say anything */
    return min(less(available + held, headroom(p)), p->memory - p->floor);
}

/* How much a counter has grown; one that fell started anew. */
static uint64_t growth(uint64_t now, uint64_t before)
{
    return less(now, before);
}

/* Rule 1: signs of want since the last sample, or BALLOON_KEEP. */
static enum balloon_reason find_shortage(const struct balloon_policy *p,
                                         const struct balloon_sample *sample, bool believed,
                                         uint64_t available, uint64_t dt)
{
    const struct minivmm_balloon_stats *now = &sample->guest, *before = &p->last;

    if (believed && before->present) {
        if (growth(now->oom_kills, before->oom_kills) > 0)
            return BALLOON_GUEST_OOM;
        if (growth(now->swap_in, before->swap_in) > per_second(SWAP_RATE, dt) ||
            growth(now->swap_out, before->swap_out) > per_second(SWAP_RATE, dt))
            return BALLOON_GUEST_SHORT;
        /* With much available these come from something else, a limit within the guest say. */
        if (available < 2 * headroom(p) &&
            (growth(now->alloc_stalls, before->alloc_stalls) > 0 ||
             growth(now->major_faults, before->major_faults) > per_second(FAULT_RATE, dt)))
            return BALLOON_GUEST_SHORT;
    }
    if (p->has_last && sample->actual < p->last_actual && sample->actual < p->target)
        return BALLOON_GUEST_SHORT; /* it took pages back: deflate on OOM */
    return BALLOON_KEEP;
}

static void relieve(struct balloon_policy *p, const struct balloon_sample *sample,
                    enum balloon_reason shortage, bool believed, uint64_t available)
{
    uint64_t held = min(p->target, sample->actual);
    uint64_t lack = believed ? less(headroom(p), available) : 0;
    bool again = p->hold_ns > 0 && sample->now_ns < p->hold_until_ns + HOLD_AGAIN_NS;
    bool holding = p->hold_ns > 0 && sample->now_ns < p->hold_until_ns;

    p->target = shortage == BALLOON_GUEST_OOM ? 0 : less(held, max(p->memory / 8, lack));
    /* One bout of want lasts several samples: it counts once. */
    if (!holding)
        p->hold_ns = again ? min(2 * p->hold_ns, HOLD_MAX_NS) : HOLD_NS;
    p->hold_until_ns = sample->now_ns + p->hold_ns;
}

/* ---- the host ------------------------------------------------------------------------------ */

static uint64_t find_reserve(const struct balloon_policy *p, const struct balloon_sample *sample)
{
    return p->reserve ? p->reserve : sample->host_total / 8;
}

/* s of the header, in 1/ONE. */
static uint64_t find_share(const struct balloon_policy *p, const struct balloon_sample *sample)
{
    uint64_t reserve = find_reserve(p, sample), share = 0;

    if (sample->host_available <= reserve)
        share = ONE;
    else if (sample->host_available - reserve < reserve)
        share = ONE - (sample->host_available - reserve) / (reserve / ONE + 1);
    return min(share + p->squeeze, ONE);
}

static void note_stalls(struct balloon_policy *p, bool stalled, uint64_t dt)
{
    if (stalled)
        p->squeeze = min(p->squeeze + STALL_ADDS, ONE);
    else
        p->squeeze = less(p->squeeze, per_second(STALL_FADES, dt));
}

/* Rules 4 and 5. */
static enum balloon_reason step_towards(struct balloon_policy *p,
                                        const struct balloon_sample *sample, uint64_t goal,
                                        uint64_t dt)
{
    int direction = goal > p->target ? 1 : -1;
    uint64_t distance = direction > 0 ? goal - p->target : p->target - goal;
    bool hurry = direction > 0 &&
                 (sample->host_stalled || sample->host_available < find_reserve(p, sample) / 2);
    uint64_t rate = p->memory / (hurry ? 4 : 16);
    uint64_t step = min(per_second(min(distance / (hurry ? 2 : 8), rate), dt), distance);

    if (distance < p->memory / 64 && !(goal == 0 && p->target > 0))
        return BALLOON_KEEP;
    if (direction > 0 && sample->now_ns < p->hold_until_ns)
        return BALLOON_KEEP;
    if (direction != p->direction) {
        if (p->direction && sample->now_ns - p->turned_ns < TURN_NS)
            return BALLOON_KEEP;
        p->direction = direction;
        p->turned_ns = sample->now_ns;
    }
    /* The last bit goes in one step: an eighth of ever less would never arrive. */
    step = min(max(step, p->memory / 256), distance);
    if (direction > 0) {
        uint64_t reach = max(min(sample->actual, p->memory) + p->memory / 8, p->target);
        p->target = min(p->target + step, reach);
        return BALLOON_HOST_SHORT;
    }
    p->target -= step;
    return BALLOON_HOST_EASY;
}

/* ---- a sample ------------------------------------------------------------------------------ */

static enum balloon_reason decide(struct balloon_policy *p, const struct balloon_sample *sample,
                                  uint64_t dt)
{
    uint64_t available = 0;
    bool believed = find_available(p, sample, &available);

    enum balloon_reason shortage = find_shortage(p, sample, believed, available, dt);
    if (believed)
        p->last = sample->guest;
    if (shortage != BALLOON_KEEP) {
        relieve(p, sample, shortage, believed, available);
        return shortage;
    }
    if (!believed)
        return BALLOON_KEEP;
    uint64_t idle = find_idle(p, sample, available);
    if (idle < p->target) {
        p->target = idle;
        p->hold_until_ns = max(p->hold_until_ns, sample->now_ns + TURN_NS);
        return BALLOON_GUEST_NEEDS;
    }
    if (!sample->has_host)
        return BALLOON_KEEP;
    return step_towards(p, sample, idle * find_share(p, sample) / ONE, dt);
}

enum balloon_reason balloon_policy_step(struct balloon_policy *p,
                                        const struct balloon_sample *sample)
{
    uint64_t before = p->target;
    uint64_t dt = p->has_last ? min(less(sample->now_ns, p->last_ns), DT_MAX) : SECOND;

    note_stalls(p, sample->host_stalled, dt);
    enum balloon_reason reason = decide(p, sample, dt);
    p->target = min(p->target, p->memory - p->floor) & PAGE_MASK;
    p->has_last = true;
    p->last_ns = sample->now_ns;
    p->last_actual = sample->actual;
    if (p->target == before)
        reason = BALLOON_KEEP;
    p->decisions[reason]++;
    return reason;
}
