/*
 * virtio-balloon, the traditional memory balloon: virtio 1.2, section 5.5; linux/virtio_balloon.h.
 *
 * The device asks for pages (num_pages); the driver takes that many from its kernel and names them
 * on the inflate queue, and they go back to the host here: they read as zero when the guest uses
 * them again. Offered are
 *     STATS_VQ        the driver's statistics, whenever balloon_ask_stats is called
 *     DEFLATE_ON_OOM  the driver takes pages back by itself before it kills processes
 *     REPORTING       the driver names free pages unasked, without giving them up
 *     PAGE_POISON     it says what its free pages hold; anything but zero would be lost in a page
 *                     that is given back, so then reported pages stay where they are (5.5.6.7.2)
 * FREE_PAGE_HINT, a help for migration, is not, nor is MUST_TELL_HOST: a page that the driver uses
 * again needs nothing from here. Queues are numbered without gaps by what was negotiated, as
 * Linux's virtio-mmio does.
 *
 * The driver is hostile. A page number that is not RAM, or comes twice, is counted and skipped; a
 * page that another device is about to use, a ring, the kernel itself: the guest harms itself only,
 * the page is there again at the next touch. Work is bounded a turn of the loop: a long list is
 * gone through in parts while other devices have their turns.
 *
 * MADV_DONTNEED takes pages away from running vCPUs: KVM hears of it by its MMU notifier. A 4 KiB
 * page out of a huge one splits that; the host has its memory back when all of it is gone or when
 * the host is short, whereas the resident size falls at once. Lists are sorted and coalesced, so
 * that neighbours go in one call however the driver orders them.
 */
#ifndef DEVICES_BALLOON_H
#define DEVICES_BALLOON_H

#include "virtio/virtio.h"
#include "vmm/minivmm.h"

struct balloon;

struct balloon_events {
    /* On the loop's thread: statistics have come. */
    void (*stats)(void *arg, const struct minivmm_balloon_stats *stats);
    /* On any thread: what balloon_actual says has changed, or may have. Must not block. */
    void (*moved)(void *arg);
};

/* What has passed, for a person. */
struct balloon_counts {
    uint64_t inflated, deflated; /* pages that the driver named */
    uint64_t reported;           /* pages */
    uint64_t calls;              /* madvise */
    uint64_t outside;            /* pages named that are not RAM */
    uint64_t repeated;           /* named twice in a list */
    uint64_t malformed;          /* requests that were no list of pages, whole or in part */
    uint64_t kept;               /* pages reported that hold poison, or not whole */
    uint64_t refused;            /* calls that the host's kernel refused */
    uint64_t stats;              /* buffers of statistics */
};

/* Negative errno, with a text. */
int balloon_create(const struct guest_mem *mem, struct event_loop *loop, struct balloon **balloon,
                   struct minivmm_error *err);
void balloon_destroy(struct balloon *balloon); /* NULL is allowed */

struct virtio_dev *balloon_device(struct balloon *balloon);

/* Who listens. Before the guest runs; both functions or none. */
void balloon_listen(struct balloon *balloon, const struct balloon_events *events, void *arg);

/* From any thread: ask for so many bytes, in whole pages. A lock is held for a moment. */
void balloon_set_target(struct balloon *balloon, uint64_t bytes);

/* From any thread: how many bytes the driver says it does without; it may say anything. */
uint64_t balloon_actual(const struct balloon *balloon);

/* On the loop's thread: the driver is to send statistics; false when it is not ready to. */
bool balloon_ask_stats(struct balloon *balloon);

/* Once nothing runs. */
struct balloon_counts balloon_counts(const struct balloon *balloon);

#endif
