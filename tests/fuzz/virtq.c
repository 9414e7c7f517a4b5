/*
 * Fuzzes chains: the input fills a small guest memory that has the rings in it, and says which
 * calls the device makes. Whatever a driver can write is thereby written.
 *
 * Input: 8 bytes of options, `CALLS` bytes of calls, then guest memory from its start on. The
 * last write to the available index wins: calls may rewrite it and other words between steps.
 */
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/guarded_mem.h"
#include "virtio/virtq.h"

#define PAGE      4096u
#define REGION    (2u * PAGE)
#define LOW       0x1000ull /* two regions side by side, a hole, one more */
#define MIDDLE    (LOW + REGION)
#define HIGH      (MIDDLE + REGION + PAGE)
#define RAM_SIZE  (3u * REGION)
#define OPTIONS   8u
#define CALLS     64u
#define HELD      40u
#define PIECES    20u
#define QUEUE_MAX 16u

struct held {
    struct virtq_chain chain;
    struct iovec iov[PIECES];
};

static struct guest_mem mem;
static struct held held[HELD]; /* taken chains, oldest first */
static unsigned held_count;

static void set_up(void)
{
    guarded_mem_add(&mem, LOW, REGION);
    guarded_mem_add(&mem, MIDDLE, REGION);
    guarded_mem_add(&mem, HIGH, REGION);
}

static void fill(const uint8_t *data, size_t size)
{
    for (unsigned i = 0; i < mem.count; i++) {
        size_t part = size < REGION ? size : REGION;
        memset(mem.regions[i].host, 0, REGION);
        if (part > 0)
            memcpy(mem.regions[i].host, data, part);
        data += part;
        size -= part;
    }
}

static bool inside(const struct iovec *iov)
{
    for (unsigned i = 0; i < mem.count; i++) {
        uintptr_t offset = (uintptr_t)iov->iov_base - (uintptr_t)mem.regions[i].host;
        if (offset < REGION && iov->iov_len <= REGION - offset)
            return true;
    }
    return false;
}

static void check_span(const struct virtq_span *span)
{
    uint64_t length = 0;
    for (unsigned i = 0; i < span->count; i++) {
        MUST(span->iov[i].iov_len > 0 && inside(&span->iov[i]));
        length += span->iov[i].iov_len;
    }
    MUST(length == span->length);
}

static void check_chain(const struct virtq *q, const struct held *h)
{
    const struct virtq_chain *chain = &h->chain;
    MUST(chain->head < q->config.size);
    MUST(chain->rd.iov == h->iov && chain->wr.iov == h->iov + chain->rd.count);
    MUST(chain->rd.count + chain->wr.count <= chain->capacity);
    MUST(chain->rd.length + chain->wr.length <= UINT32_MAX);
    check_span(&chain->rd);
    check_span(&chain->wr);
    for (unsigned i = 0; i < held_count; i++)
        MUST(held[i].chain.head != chain->head);
}

static void give_back(struct virtq *q, unsigned which, uint32_t written)
{
    struct held *h = &held[which];
    memset(h->chain.wr.count > 0 ? h->chain.wr.iov[0].iov_base : h, 0x5a,
           h->chain.wr.count > 0 ? h->chain.wr.iov[0].iov_len : 0);
    uint64_t length = h->chain.wr.length;
    virtq_done(q, &h->chain, (uint32_t)(written < length ? written : length));
    held_count--;
    memmove(h, h + 1, (held_count - which) * sizeof(*h));
    for (unsigned i = which; i < held_count; i++) {
        held[i].chain.iov = held[i].chain.rd.iov = held[i].iov;
        held[i].chain.wr.iov = held[i].iov + held[i].chain.rd.count;
    }
}

/* One call of the device's, or one word that the driver writes meanwhile. */
static void call(struct virtq *q, uint8_t what, unsigned capacity)
{
    struct held *h = &held[held_count];
    bool was_broken = q->broken;
    uint16_t idx = q->avail->idx;

    switch (what & 7) {
    case 0:
    case 1:
    case 2: /* undo may follow at once */
        h->chain = (struct virtq_chain){.iov = h->iov, .capacity = capacity};
        int rc = virtq_next(q, &h->chain);
        MUST(rc == 0 || rc == 1 || rc == -EPROTO);
        MUST(q->broken == (rc == -EPROTO) && (!was_broken || rc == -EPROTO));
        if (rc != 1)
            break;
        check_chain(q, h);
        if ((what & 7) == 2)
            virtq_undo(q, &h->chain);
        else
            held_count++;
        MUST(held_count <= q->config.size);
        break;
    case 3:
    case 4:
        if (held_count > 0)
            give_back(q, (what >> 3) % held_count, what);
        break;
    case 5:
        MUST(!virtq_wants_irq(q) || !was_broken);
        MUST(!virtq_wants_irq(q));
        break;
    case 6:
        MUST(virtq_idle(q) == (!was_broken && q->avail->idx != q->next_avail));
        break;
    default: /* the driver makes some more available */
        q->avail->idx = (uint16_t)(idx + (what >> 3) % 8);
    }
    MUST(q->taken_count == held_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (mem.count == 0)
        set_up();
    if (size < OPTIONS + CALLS)
        return -1;
    const uint8_t *options = data, *calls = data + OPTIONS;
    struct virtq_config config = {
        .size = options[0] & 0x80 ? options[0] & 0x7f : 1u << options[0] % 5,
        /* wherever an option's bits put it, RAM or not */
        .desc = LOW + 16ull * options[1] * (1 + (options[7] & 7)),
        .avail = LOW + 2ull * options[2] * (1 + (options[7] & 7)),
        .used = LOW + 4ull * options[3] * (1 + (options[7] & 7)) + MIDDLE * (options[5] & 1),
        .indirect = options[4] & 1,
        .event_idx = options[4] & 2,
    };
    uint16_t first = (uint16_t)(options[6] << 8 | options[6]);
    struct virtq q;

    fill(calls + CALLS, size - OPTIONS - CALLS);
    held_count = 0;
    MUST(virtq_init(&q, QUEUE_MAX) == 0);
    int rc = virtq_start(&q, &mem, &config, QUEUE_MAX, first);
    MUST(rc == 0 || rc == -EINVAL);
    if (rc == 0) {
        MUST(config.size > 0 && config.size <= QUEUE_MAX);
        if (options[5] & 2) /* mostly close to the start, or nothing goes on */
            q.avail->idx = (uint16_t)(first + options[5] % 16);
        for (unsigned i = 0; i < CALLS; i++)
            call(&q, calls[i], options[5] & 4 ? PIECES : options[5] >> 3 & 15);
    } else {
        struct virtq_chain none = {.capacity = 0};
        MUST(virtq_next(&q, &none) == -EPROTO && !virtq_idle(&q) && !virtq_wants_irq(&q));
    }
    virtq_finish(&q);
    return 0;
}
