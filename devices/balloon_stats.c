#include "devices/balloon_stats.h"

#include <endian.h>
#include <linux/virtio_balloon.h>

#include "virtio/span.h"

/* Tags that are newer than some headers: linux/virtio_balloon.h of Linux 6.12. */
#ifndef VIRTIO_BALLOON_S_OOM_KILL
#define VIRTIO_BALLOON_S_OOM_KILL       10
#define VIRTIO_BALLOON_S_ALLOC_STALL    11
#define VIRTIO_BALLOON_S_ASYNC_SCAN     12
#define VIRTIO_BALLOON_S_DIRECT_SCAN    13
#define VIRTIO_BALLOON_S_ASYNC_RECLAIM  14
#define VIRTIO_BALLOON_S_DIRECT_RECLAIM 15
#endif

bool balloon_stats_parse(struct virtq_span *span, struct minivmm_balloon_stats *stats)
{
    *stats = (struct minivmm_balloon_stats){0};
    uint64_t *const places[] = {
        [VIRTIO_BALLOON_S_SWAP_IN] = &stats->swap_in,
        [VIRTIO_BALLOON_S_SWAP_OUT] = &stats->swap_out,
        [VIRTIO_BALLOON_S_MAJFLT] = &stats->major_faults,
        [VIRTIO_BALLOON_S_MINFLT] = &stats->minor_faults,
        [VIRTIO_BALLOON_S_MEMFREE] = &stats->free_memory,
        [VIRTIO_BALLOON_S_MEMTOT] = &stats->total_memory,
        [VIRTIO_BALLOON_S_AVAIL] = &stats->available_memory,
        [VIRTIO_BALLOON_S_CACHES] = &stats->disk_caches,
        [VIRTIO_BALLOON_S_HTLB_PGALLOC] = &stats->hugetlb_allocations,
        [VIRTIO_BALLOON_S_HTLB_PGFAIL] = &stats->hugetlb_failures,
        [VIRTIO_BALLOON_S_OOM_KILL] = &stats->oom_kills,
        [VIRTIO_BALLOON_S_ALLOC_STALL] = &stats->alloc_stalls,
        [VIRTIO_BALLOON_S_ASYNC_SCAN] = &stats->async_scans,
        [VIRTIO_BALLOON_S_DIRECT_SCAN] = &stats->direct_scans,
        [VIRTIO_BALLOON_S_ASYNC_RECLAIM] = &stats->async_reclaims,
        [VIRTIO_BALLOON_S_DIRECT_RECLAIM] = &stats->direct_reclaims,
    };
    struct virtio_balloon_stat stat;
    bool any = false;

    for (unsigned i = 0; i < BALLOON_STATS_MAX && span_take(span, &stat, sizeof(stat)); i++) {
        uint16_t tag = le16toh(stat.tag);
        any = true;
        if (tag >= sizeof(places) / sizeof(places[0]))
            continue;
        *places[tag] = le64toh(stat.val);
        stats->present |= 1u << tag;
    }
    return any;
}
