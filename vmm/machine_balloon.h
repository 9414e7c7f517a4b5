/*
 * A VM's balloon, between the owner's calls, the device and the policy of --balloon auto. Part of
 * machine.h.
 *
 * Other threads leave their wishes and wake the loop, which alone acts on them. A driver says what
 * it holds as often as it likes, a guest may say it without end: the loop looks at most ten times a
 * second.
 */
#ifndef VMM_MACHINE_BALLOON_H
#define VMM_MACHINE_BALLOON_H

#include "devices/balloon.h"
#include "vmm/balloon_policy.h"
#include "vmm/pressure.h"

struct machine_balloon {
    struct balloon *device; /* NULL: the VM has none */
    struct event_source wake;
    bool moved; /* atomic: the driver said what it holds, and the loop has not looked */

    pthread_mutex_t lock; /* guards what follows, for the length of a copy */
    uint64_t target;
    bool asked; /* `target` is a wish of the owner's that the loop has not seen */
    unsigned interval;
    bool has_stats;
    uint64_t stats_ns; /* when they came */
    struct minivmm_balloon_stats stats;

    /* The loop's. */
    struct event_timer tick;      /* statistics are asked for */
    struct event_timer look;      /* the next look at what the driver holds */
    uint64_t looked_ns;           /* the last look */
    uint64_t told;                /* bytes that it held then */
    uint64_t stats_actual;        /* and when the statistics came */
    enum balloon_reason reason;   /* of the target */
    bool fresh;                   /* statistics came since the last tick */
    struct balloon_policy policy; /* its target is the one in force */
    struct pressure pressure;
    struct minivmm_error notice; /* a line for the owner, not told yet; empty: none */
};

struct minivmm;

/* After the devices, before the threads. Nothing but the lock where there is no balloon. */
int machine_balloon_init(struct minivmm *vm, struct minivmm_error *err);

/* The loop has stopped; before the devices go. Harmless after an init that failed or never was. */
void machine_balloon_finish(struct minivmm *vm);

/* For a person, once nothing runs. */
void machine_balloon_print(const struct minivmm *vm, FILE *out);

#endif
