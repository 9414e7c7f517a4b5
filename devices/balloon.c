#include "devices/balloon.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "devices/balloon_stats.h"
#include "devices/page_list.h"
#include "virtio/local.h"
#include "virtio/span.h"

#define BIT(n) (1ull << (n))

#define QUEUES     4u
#define QUEUE_SIZE 128u
/* A buffer that lies across two regions has two pieces. */
#define PIECES (2 * QUEUE_SIZE)

/*
 * A turn of the loop: pages of a list, each of which may cost a call of 2 us; requests; and bytes
 * of reported memory, of which twice as much in 4 KiB pages takes 10 ms to free. Others have their
 * turn then.
 */
#define TURN_PAGES    1024u
#define TURN_REQUESTS 64u
#define TURN_BYTES    (32ull << 20)

#define PAGE_SIZE (1ull << VIRTIO_BALLOON_PFN_SHIFT)

enum role { ROLE_INFLATE, ROLE_DEFLATE, ROLE_STATS, ROLE_REPORTING, ROLE_NONE };

struct balloon {
    struct virtio_dev dev;
    struct virtio_balloon_config config; /* little-endian; guarded by the device's config_lock */
    uint32_t actual;                     /* pages, as in config; atomic */
    uint32_t poison;                     /* as in config; atomic */
    const struct balloon_events *events;
    void *arg;
    struct balloon_counts counts;

    /* For each queue a request that is under way, and what of it is still to be done. */
    struct request {
        bool held;
        struct virtq_chain chain;
        struct virtq_span left;
        struct iovec iov[PIECES];
    } requests[QUEUES];
    struct page_list list;
};

static struct balloon *balloon_of(struct virtio_dev *dev)
{
    return (struct balloon *)((char *)dev - offsetof(struct balloon, dev));
}

/* 5.5.2; only what was negotiated has a number. */
static enum role role_of(const struct virtio_queue *queue)
{
    bool stats = virtio_has(queue->dev, VIRTIO_BALLOON_F_STATS_VQ);
    bool reporting = virtio_has(queue->dev, VIRTIO_BALLOON_F_REPORTING);

    switch (queue->index) {
    case 0:
        return ROLE_INFLATE;
    case 1:
        return ROLE_DEFLATE;
    case 2:
        return stats ? ROLE_STATS : reporting ? ROLE_REPORTING : ROLE_NONE;
    default:
        return stats && reporting ? ROLE_REPORTING : ROLE_NONE;
    }
}

/* Guest memory is private and anonymous: what is dropped reads as zero from then on. */
static void drop(struct balloon *balloon, void *host, uint64_t length)
{
    balloon->counts.calls++;
    if (madvise(host, length, MADV_DONTNEED) < 0)
        balloon->counts.refused++;
}

/* ---- inflate and deflate (5.5.6.1) --------------------------------------------------------- */

/* Pages that follow one another: those that are RAM go back to the host. */
static void drop_run(void *arg, uint64_t first, uint64_t count)
{
    struct balloon *balloon = arg;
    uint64_t gpa = first << VIRTIO_BALLOON_PFN_SHIFT;
    uint64_t end = (first + count) << VIRTIO_BALLOON_PFN_SHIFT;

    while (gpa < end) {
        uint64_t length = end - gpa;
        void *host = guest_mem_run(balloon->dev.mem, gpa, &length);
        if (host) {
            drop(balloon, host, length);
        } else {
            length = PAGE_SIZE;
            balloon->counts.outside++;
        }
        gpa += length;
    }
}

/* Up to `max` pages of a request; returns how many it had. */
static unsigned inflate(struct balloon *balloon, struct virtq_span *left, unsigned max)
{
    uint64_t count = left->length / sizeof(uint32_t);

    if (count > max)
        count = max;
    if (count > PAGE_LIST_MAX)
        count = PAGE_LIST_MAX;
    span_take(left, balloon->list.pages, count * sizeof(uint32_t));
    for (unsigned i = 0; i < count; i++)
        balloon->list.pages[i] = le32toh(balloon->list.pages[i]);
    balloon->counts.inflated += count;
    balloon->counts.repeated += page_list_runs(&balloon->list, (unsigned)count, drop_run, balloon);
    return (unsigned)count;
}

/* ---- free page reporting (5.5.6.7) --------------------------------------------------------- */

/* Whole pages of the request's next piece, or of its beginning; returns how many bytes it took. */
static uint64_t report(struct balloon *balloon, struct virtq_span *left)
{
    struct iovec *piece = left->iov;
    uintptr_t at = (uintptr_t)piece->iov_base;
    uint64_t max = TURN_BYTES - at % PAGE_SIZE; /* a part ends where a page does */
    uint64_t length = piece->iov_len < max ? piece->iov_len : max;
    uintptr_t first = (at + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
    uintptr_t end = (at + length) & ~(PAGE_SIZE - 1);
    bool poisoned = virtio_has(&balloon->dev, VIRTIO_BALLOON_F_PAGE_POISON) &&
                    __atomic_load_n(&balloon->poison, __ATOMIC_RELAXED) != 0;

    /* What is less than a page may have neighbours in use. */
    balloon->counts.kept += (first != at) + (end != at + length);
    if (first < end) {
        uint64_t pages = (end - first) >> VIRTIO_BALLOON_PFN_SHIFT;
        balloon->counts.reported += pages;
        if (poisoned)
            balloon->counts.kept += pages;
        else
            drop(balloon, (void *)first, end - first);
    }
    piece->iov_base = (uint8_t *)piece->iov_base + length;
    piece->iov_len -= length;
    left->length -= length;
    if (piece->iov_len == 0) {
        left->iov++;
        left->count--;
    }
    return length;
}

/* ---- queues -------------------------------------------------------------------------------- */

/* What is left of a turn. */
struct turn {
    unsigned pages, requests;
    uint64_t bytes;
};

static bool is_over(const struct turn *turn)
{
    return turn->pages == 0 || turn->requests == 0 || turn->bytes == 0;
}

/* Take up a request: what of it is to be done. */
static void begin(struct balloon *balloon, struct request *request, enum role role)
{
    const struct virtq_chain *chain = &request->chain;
    bool list = role == ROLE_INFLATE || role == ROLE_DEFLATE;
    /* Lists are readable, reported pages are writable; anything else is not looked at. */
    const struct virtq_span *right = list ? &chain->rd : &chain->wr;
    const struct virtq_span *wrong = list ? &chain->wr : &chain->rd;

    request->left = *right;
    if (right->length == 0 || wrong->length || (list && right->length % sizeof(uint32_t)))
        balloon->counts.malformed++;
    if (role == ROLE_DEFLATE)
        balloon->counts.deflated += right->length / sizeof(uint32_t);
    if (role == ROLE_DEFLATE || role == ROLE_NONE)
        request->left.length = 0; /* nothing to do: a page comes back at its first touch */
}

/* Go on with a request as long as the turn lasts; true when it is done. */
static bool go_on(struct balloon *balloon, struct request *request, enum role role,
                  struct turn *turn)
{
    struct virtq_span *left = &request->left;

    if (role == ROLE_REPORTING) {
        while (left->length > 0 && turn->bytes > 0) {
            uint64_t took = report(balloon, left);
            turn->bytes -= took < turn->bytes ? took : turn->bytes;
        }
        return left->length == 0;
    }
    while (left->length >= sizeof(uint32_t) && turn->pages > 0)
        turn->pages -= inflate(balloon, left, turn->pages);
    return left->length < sizeof(uint32_t);
}

static int serve_requests(struct balloon *balloon, struct virtio_queue *queue, enum role role)
{
    struct turn turn = {.pages = TURN_PAGES, .requests = TURN_REQUESTS, .bytes = TURN_BYTES};
    struct request *request = &balloon->requests[queue->index];

    while (!is_over(&turn)) {
        if (!request->held) {
            request->chain = (struct virtq_chain){.iov = request->iov, .capacity = PIECES};
            int rc = virtq_next(&queue->ring, &request->chain);
            if (rc <= 0)
                return rc;
            request->held = true;
            turn.requests--;
            begin(balloon, request, role);
        }
        if (!go_on(balloon, request, role, &turn))
            break;
        request->held = false;
        local_done(queue, &request->chain, 0);
    }
    return 1;
}

/*
 * 5.5.6.4: a buffer stays here until statistics are wanted again; giving it back is what asks for
 * them. A driver that sends another meanwhile has the first one back.
 */
static int serve_stats(struct balloon *balloon, struct virtio_queue *queue)
{
    struct request *request = &balloon->requests[queue->index];
    struct minivmm_balloon_stats stats;

    for (unsigned i = 0; i < TURN_REQUESTS; i++) {
        struct virtq_chain chain = {.iov = request->iov, .capacity = PIECES};
        int rc = virtq_next(&queue->ring, &chain);
        if (rc <= 0)
            return rc;
        if (request->held)
            local_done(queue, &request->chain, 0);
        request->held = true;
        request->chain = chain;
        struct virtq_span span = chain.rd;
        balloon->counts.stats++;
        if (!balloon_stats_parse(&span, &stats))
            balloon->counts.malformed++;
        else if (balloon->events)
            balloon->events->stats(balloon->arg, &stats);
    }
    return 1;
}

static int serve(struct virtio_queue *queue)
{
    struct balloon *balloon = balloon_of(queue->dev);
    enum role role = role_of(queue);

    return role == ROLE_STATS ? serve_stats(balloon, queue) : serve_requests(balloon, queue, role);
}

bool balloon_ask_stats(struct balloon *balloon)
{
    struct virtio_queue *queue = &balloon->dev.queues[2];
    struct request *request = &balloon->requests[2];

    if (!queue->served || role_of(queue) != ROLE_STATS || !request->held)
        return false;
    request->held = false;
    local_done(queue, &request->chain, 0);
    return true;
}

/* Whatever is held goes back as it was; doing it again later does no harm. */
static void stopping(struct virtio_dev *dev)
{
    struct balloon *balloon = balloon_of(dev);

    for (unsigned i = 0; i < QUEUES; i++) {
        struct request *request = &balloon->requests[i];
        if (request->held)
            virtq_undo(&dev->queues[i].ring, &request->chain);
        request->held = false;
    }
}

/* ---- configuration space (5.5.4) ----------------------------------------------------------- */

static void tell_moved(struct balloon *balloon)
{
    if (balloon->events)
        balloon->events->moved(balloon->arg);
}

/* Does a write of `size` bytes at `offset` fall into the 32-bit field at `field`? */
static bool falls_into(unsigned offset, unsigned size, size_t field)
{
    return offset >= field && offset + size <= field + sizeof(uint32_t);
}

static void config_write(struct virtio_dev *dev, unsigned offset, unsigned size, uint32_t value)
{
    const size_t actual = offsetof(struct virtio_balloon_config, actual);
    const size_t poison = offsetof(struct virtio_balloon_config, poison_val);
    struct balloon *balloon = balloon_of(dev);
    bool moves = falls_into(offset, size, actual);

    if (!moves &&
        !(falls_into(offset, size, poison) && virtio_has(dev, VIRTIO_BALLOON_F_PAGE_POISON)))
        return;
    value = htole32(value);
    /* Not virtio_config_end: the driver knows what it writes. */
    pthread_mutex_lock(&dev->config_lock);
    memcpy((uint8_t *)&balloon->config + offset, &value, size);
    __atomic_store_n(&balloon->actual, le32toh(balloon->config.actual), __ATOMIC_RELAXED);
    __atomic_store_n(&balloon->poison, le32toh(balloon->config.poison_val), __ATOMIC_RELAXED);
    pthread_mutex_unlock(&dev->config_lock);
    if (moves)
        tell_moved(balloon);
}

/* The next driver has nothing in the balloon; what is wished stays. */
static void reset(struct virtio_dev *dev)
{
    struct balloon *balloon = balloon_of(dev);

    pthread_mutex_lock(&dev->config_lock);
    balloon->config.actual = 0;
    balloon->config.poison_val = 0;
    __atomic_store_n(&balloon->actual, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&balloon->poison, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&dev->config_lock);
    tell_moved(balloon);
}

void balloon_set_target(struct balloon *balloon, uint64_t bytes)
{
    virtio_config_begin(&balloon->dev);
    balloon->config.num_pages = htole32((uint32_t)(bytes >> VIRTIO_BALLOON_PFN_SHIFT));
    virtio_config_end(&balloon->dev);
}

uint64_t balloon_actual(const struct balloon *balloon)
{
    return (uint64_t)__atomic_load_n(&balloon->actual, __ATOMIC_RELAXED)
           << VIRTIO_BALLOON_PFN_SHIFT;
}

/* ---- all of it ----------------------------------------------------------------------------- */

static const struct virtio_type balloon_type = {.name = "balloon",
                                                .id = VIRTIO_ID_BALLOON,
                                                .serve = serve,
                                                .stopping = stopping,
                                                .config_write = config_write,
                                                .reset = reset};

int balloon_create(const struct guest_mem *mem, struct event_loop *loop, struct balloon **out,
                   struct minivmm_error *err)
{
    const uint64_t features = BIT(VIRTIO_BALLOON_F_STATS_VQ) |
                              BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
                              BIT(VIRTIO_BALLOON_F_PAGE_POISON) | BIT(VIRTIO_BALLOON_F_REPORTING);
    struct balloon *balloon = calloc(1, sizeof(*balloon));

    *out = NULL;
    if (!balloon)
        return error_set(err, -ENOMEM, "balloon: out of memory");
    int rc = virtio_init(&balloon->dev, &balloon_type, mem, loop, features, QUEUES, QUEUE_SIZE,
                         &balloon->config, sizeof(balloon->config));
    if (rc < 0) {
        free(balloon);
        return error_set(err, rc, "balloon: %s", strerror(-rc));
    }
    *out = balloon;
    return 0;
}

void balloon_destroy(struct balloon *balloon)
{
    if (!balloon)
        return;
    virtio_finish(&balloon->dev);
    free(balloon);
}

struct virtio_dev *balloon_device(struct balloon *balloon)
{
    return &balloon->dev;
}

void balloon_listen(struct balloon *balloon, const struct balloon_events *events, void *arg)
{
    balloon->events = events;
    balloon->arg = arg;
}

struct balloon_counts balloon_counts(const struct balloon *balloon)
{
    return balloon->counts;
}
