/*
 * How the host is off for memory, as this process sees it: MemAvailable of /proc/meminfo, or what
 * the tightest limit of its control group (version 2) or of one above leaves; and whether tasks
 * there stand still for want of memory, by a trigger on PSI (Documentation/accounting/psi.rst).
 *
 * All files are opened by pressure_init. Where a kernel has no PSI, or lets us set no trigger,
 * `stalled` stays false.
 */
#ifndef VMM_PRESSURE_H
#define VMM_PRESSURE_H

#include "vmm/event_loop.h"

#define PRESSURE_GROUPS_MAX 8u /* control groups, one above the other */

struct pressure {
    int meminfo;
    unsigned group_count;
    struct pressure_group {
        int current, max, high, stat; /* memory.* */
    } groups[PRESSURE_GROUPS_MAX];
    struct event_loop *loop;
    struct event_source psi; /* fd -1: there is none */
    bool stalled;            /* since the last pressure_read */
};

struct pressure_sample {
    uint64_t total, available; /* bytes: of the host, or of the tightest limit */
    bool stalled;              /* tasks were, for a tenth of two seconds, since the last sample */
};

/*
 * `procfs` is "/proc" and `cgroupfs` "/sys/fs/cgroup", but for tests. Before the loop runs.
 * -errno with a text when there is not even meminfo. 1 when there is no PSI, with a text that says
 * why: all else works.
 */
int pressure_init(struct pressure *pressure, struct event_loop *loop, const char *procfs,
                  const char *cgroupfs, struct minivmm_error *err);

/* Once the loop has stopped. Harmless after a pressure_init that failed. */
void pressure_finish(struct pressure *pressure);

/* On the loop's thread. False when the host does not say. */
bool pressure_read(struct pressure *pressure, struct pressure_sample *sample);

#endif
