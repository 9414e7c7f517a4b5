/*
 * How big a guest's balloon should be: --balloon auto. A pure function of a state and a sample; it
 * reads nothing and knows no time but the sample's. All sizes are bytes.
 *
 * Known are, about once a second: M, the VM's memory; B, what is in the balloon; `available`, what
 * the guest could use without swapping (MemAvailable, or MemFree); A, what the host, or the control
 * group with the tightest limit, has left; R, the reserve it should have (an eighth of it all, if
 * not given); and whether its tasks were stalled for memory (PSI).
 *
 *     headroom  H = M/16, 16 MiB at least: the guest is to have that much available
 *     idle      I = available + B - H, from 0 to M - floor: what it can do without
 *     share     s = 0 while A >= 2R, 1 when A <= R, and on a line between; each sample with a
 *                   stall adds 1/4, which fades within 8 seconds; never above 1
 *     goal      G = s * I
 *
 * The first of these that applies makes the new target:
 *   1. The guest killed for want of memory: 0. It took pages back unasked, its allocations stalled,
 *      it swaps or reads the same files again and again: M/8 less than there is in the balloon, or
 *      what brings it back to H. At once; and for 10 seconds nothing is taken, for twice as long
 *      each time it happens again soon, up to 160.
 *   2. It has less than H available: I, at once; and for 5 seconds nothing is taken.
 *   3. Statistics are missing, older than 5 seconds or impossible, or the host's figures are: as
 *      it is.
 *   4. G is within M/64 of the target: as it is.
 *   5. A step towards G: an eighth of the way a second, at most M/16. When A < R/2 or tasks were
 *      stalled, half of the way, at most M/4. Upwards never more than M/8 beyond B, so that a guest
 *      that does not follow is not asked for more; a change of direction waits 5 seconds.
 * Never is more asked for than M - floor, whatever the guest says.
 *
 * So a guest's own need comes first, and the host's reserve is kept out of what guests have idle.
 * VMs of one host share without knowing of each other: all see the same A, so all have the same s,
 * and each gives the same part of what it has idle.
 */
#ifndef VMM_BALLOON_POLICY_H
#define VMM_BALLOON_POLICY_H

#include "vmm/error.h"

/* What the guest keeps at least: balloon_min, or an eighth of its memory. */
uint64_t balloon_floor(const struct minivmm_config *config);

/* The balloon's part of a configuration: -EINVAL with a text. */
int balloon_check(const struct minivmm_config *config, struct minivmm_error *err);

#define BALLOON_STALE_NS 5000000000ull /* statistics that old say nothing any more */

struct balloon_sample {
    uint64_t now_ns; /* CLOCK_MONOTONIC */
    uint64_t actual; /* in the balloon now */

    bool has_guest;        /* what follows is known, and is not stale */
    uint64_t stats_actual; /* in the balloon when the statistics were taken */
    struct minivmm_balloon_stats guest;

    bool has_host;
    bool host_stalled; /* since the last sample */
    uint64_t host_total, host_available;
};

/* Why the target is what it is. */
enum balloon_reason {
    BALLOON_KEEP, /* it stays */
    BALLOON_ASKED,
    BALLOON_HOST_SHORT,
    BALLOON_HOST_EASY,
    BALLOON_GUEST_NEEDS,
    BALLOON_GUEST_SHORT,
    BALLOON_GUEST_OOM,
    BALLOON_REASONS,
};
const char *balloon_reason_text(enum balloon_reason reason);

struct balloon_policy {
    uint64_t memory, floor;
    uint64_t reserve; /* 0: an eighth of what the host has */
    uint64_t target;  /* may be set from outside between steps */

    /* What is remembered from step to step. */
    bool has_last; /* of what follows */
    uint64_t last_ns, last_actual;
    struct minivmm_balloon_stats last; /* of the last believed statistics; `present` 0: none */
    uint64_t squeeze;                  /* what stalls add to the share, in 1/1024 */
    uint64_t hold_until_ns;            /* nothing is taken before */
    uint64_t hold_ns;                  /* of the last hold for shortage */
    uint64_t turned_ns;                /* the direction changed */
    int direction;                     /* of the last step: 1 takes, -1 gives */
    uint64_t decisions[BALLOON_REASONS];
};

/* One sample: sets policy->target, and says why; BALLOON_KEEP when it has not changed. */
enum balloon_reason balloon_policy_step(struct balloon_policy *policy,
                                        const struct balloon_sample *sample);

#endif
