/*
 * The statistics of a balloon's driver: virtio 1.2, section 5.5.6.4. An array of tagged values, of
 * which the driver sends those it has, in any order.
 */
#ifndef DEVICES_BALLOON_STATS_H
#define DEVICES_BALLOON_STATS_H

#include "virtio/virtq.h"
#include "vmm/minivmm.h"

/* Values looked at in a buffer; more than any driver has tags. */
#define BALLOON_STATS_MAX 256u

/*
 * Take the values out of `span`. Unknown tags are ignored (5.5.6.3.2), of a repeated one the last
 * counts, and so do bytes behind the last whole value. False when there was no whole value at all.
 */
bool balloon_stats_parse(struct virtq_span *span, struct minivmm_balloon_stats *stats);

#endif
