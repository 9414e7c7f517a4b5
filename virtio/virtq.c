#include "virtio/virtq.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/checked.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "virtio 1 rings are little-endian");

/*
 * Copy a descriptor into a local, each byte of it read once: volatile, so that the compiler cannot
 * read it again behind our back. Indirect tables may lie at any address.
 */
static inline struct vring_desc read_desc(const uint8_t *from)
{
    typedef uint64_t __attribute__((aligned(1), may_alias)) word;
    uint64_t low = *(const volatile word *)from;
    uint64_t high = *(const volatile word *)(from + sizeof(word));
    return (struct vring_desc){.addr = low,
                               .len = (uint32_t)high,
                               .flags = (uint16_t)(high >> 32),
                               .next = (uint16_t)(high >> 48)};
}

int virtq_init(struct virtq *q, unsigned size_max)
{
    assert(size_max <= VIRTQ_SIZE_MAX);
    *q = (struct virtq){.broken = true}; /* until it is started */
    q->taken = calloc(size_max, sizeof(q->taken[0]));
    return q->taken ? 0 : -ENOMEM;
}

void virtq_finish(struct virtq *q)
{
    free(q->taken);
    *q = (struct virtq){0};
}

static void *area(const struct guest_mem *mem, uint64_t gpa, uint64_t size, unsigned align)
{
    return gpa % align ? NULL : guest_mem_at(mem, gpa, size);
}

int virtq_start(struct virtq *q, const struct guest_mem *mem, const struct virtq_config *config,
                unsigned size_max, uint16_t next_avail)
{
    bool *taken = q->taken;
    uint32_t size = config->size;

    *q = (struct virtq){.taken = taken, .broken = true};
    if (size == 0 || size > size_max || (size & (size - 1)))
        return -EINVAL;
    /* 2.7: alignment and sizes; both rings end in a word for event indices. */
    q->desc = area(mem, config->desc, sizeof(q->desc[0]) * (uint64_t)size, VRING_DESC_ALIGN_SIZE);
    q->avail = area(mem, config->avail, sizeof(*q->avail) + sizeof(uint16_t) * ((uint64_t)size + 1),
                    VRING_AVAIL_ALIGN_SIZE);
    q->used =
        area(mem, config->used,
             sizeof(*q->used) + sizeof(struct vring_used_elem) * (uint64_t)size + sizeof(uint16_t),
             VRING_USED_ALIGN_SIZE);
    if (!q->desc || !q->avail || !q->used)
        return -EINVAL;
    memset(taken, 0, size * sizeof(taken[0]));
    q->mem = mem;
    q->near = &mem->regions[0];
    q->config = *config;
    q->next_avail = q->next_used = q->signalled = next_avail;
    q->broken = false;
    return 0;
}

static int broken(struct virtq *q)
{
    q->broken = true;
    return -EPROTO;
}

static bool is_taken(const struct virtq *q, uint16_t head)
{
    return q->taken[head];
}

static void set_taken(struct virtq *q, uint16_t head, bool taken)
{
    q->taken[head] = taken;
    q->taken_count += taken ? 1 : -1u;
}

/* 2.7.10: how many requests wait; above the queue's size when the index is impossible. */
static uint16_t waiting(const struct virtq *q)
{
    /* The acquire makes the ring entries and descriptors behind the index visible. */
    return (uint16_t)(__atomic_load_n(&q->avail->idx, __ATOMIC_ACQUIRE) - q->next_avail);
}

unsigned virtq_waiting(const struct virtq *q)
{
    return q->broken ? 0 : waiting(q);
}

/*
 * Add a buffer that does not lie whole in the region q->near, and make the region it begins in the
 * near one; what two adjacent regions hold together becomes two pieces. Returns the next piece, or
 * NULL when the buffer is not all in RAM, or too many pieces. Kept out of line: then the walk
 * needs no more registers than there are.
 */
static __attribute__((noinline)) struct iovec *add_elsewhere(struct virtq *q, struct iovec *at,
                                                             const struct iovec *end, uint64_t gpa,
                                                             uint32_t length)
{
    for (unsigned i = 0; i < q->mem->count; i++) {
        if (gpa - q->mem->regions[i].gpa < q->mem->regions[i].size)
            q->near = &q->mem->regions[i];
    }
    while (length > 0) {
        uint64_t run = length;
        void *host = guest_mem_run(q->mem, gpa, &run);
        if (!host || at == end)
            return NULL;
        *at++ = (struct iovec){.iov_base = host, .iov_len = run};
        gpa += run;
        length -= (uint32_t)run;
    }
    return at;
}

/* The same for any buffer. Nearly all lie in the region of the one before: no loop, no search. */
static inline struct iovec *add_buffer(struct virtq *q, struct iovec *at, const struct iovec *end,
                                       uint64_t gpa, uint32_t length)
{
    const struct guest_region *near = q->near;
    uint64_t offset = gpa - near->gpa; /* wraps to a huge one below the region */

    if (offset >= near->size || length > near->size - offset || length == 0 || at == end)
        return add_elsewhere(q, at, end, gpa, length);
    *at = (struct iovec){.iov_base = near->host + offset, .iov_len = length};
    return at + 1;
}

/* A table of descriptors: the queue's own, or an indirect one. */
struct table {
    const uint8_t *entries; /* of struct vring_desc; an indirect table need not be aligned */
    uint32_t size;
    bool indirect;
};

/* 2.7.5.3: go on in the indirect table that `desc` refers to. */
static bool enter_indirect(const struct virtq *q, const struct vring_desc *desc,
                           struct table *table)
{
    if (!q->config.indirect || table->indirect || (desc->flags & VRING_DESC_F_NEXT))
        return false;
    uint32_t size = desc->len / sizeof(*desc);
    if (size == 0 || desc->len % sizeof(*desc) || size > q->config.size)
        return false;
    *table = (struct table){
        .entries = guest_mem_at(q->mem, desc->addr, desc->len), .size = size, .indirect = true};
    return table->entries != NULL;
}

/* 2.7.5: follow the chain that starts at chain->head. False when it breaks a rule. */
static bool walk(struct virtq *q, struct virtq_chain *chain)
{
    struct table table = {.entries = (const uint8_t *)q->desc, .size = q->config.size};
    struct iovec *at = chain->iov, *wr = NULL; /* the next piece; the first writable one */
    const struct iovec *end = at + chain->capacity;
    uint64_t length = 0, rd_length = 0; /* in all; of that readable, once `wr` is known */
    uint32_t index = chain->head;

    /* Queue size is the longest chain allowed (2.7.5.3.1), which ends every loop as well. */
    for (uint32_t steps = q->config.size + 1; index < table.size && steps > 0; steps--) {
        struct vring_desc desc = read_desc(table.entries + index * sizeof(desc));
        if (desc.flags & VRING_DESC_F_INDIRECT) {
            if (!enter_indirect(q, &desc, &table))
                return false;
            index = 0; /* the write flag of such a descriptor means nothing (2.7.5.3.2) */
            continue;
        }
        if (desc.flags & VRING_DESC_F_WRITE) {
            if (!wr) {
                wr = at;
                rd_length = length;
            }
        } else if (wr) {
            return false; /* 2.7.4.2: readable parts come first */
        }
        at = add_buffer(q, at, end, desc.addr, desc.len);
        if (!at)
            return false;
        length += desc.len; /* of at most VIRTQ_SIZE_MAX buffers: no overflow */
        if (desc.flags & VRING_DESC_F_NEXT) {
            index = desc.next;
            continue;
        }
        if (length > UINT32_MAX)
            return false;
        if (!wr) {
            wr = at;
            rd_length = length;
        }
        chain->rd = (struct virtq_span){
            .iov = chain->iov, .count = (unsigned)(wr - chain->iov), .length = rd_length};
        chain->wr = (struct virtq_span){
            .iov = wr, .count = (unsigned)(at - wr), .length = length - rd_length};
        return true;
    }
    return false;
}

int virtq_next(struct virtq *q, struct virtq_chain *chain)
{
    uint16_t head;

    if (q->broken)
        return -EPROTO;
    uint16_t count = waiting(q);
    if (count == 0)
        return 0;
    if (count > q->config.size)
        return broken(q);
    if (!q->config.event_idx && !q->notify_off) {
        /* With event indices the driver kicks only when it passes the one set by virtq_idle. */
        __atomic_store_n(&q->used->flags, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
        q->notify_off = true;
    }
    head = __atomic_load_n(&q->avail->ring[q->next_avail & (q->config.size - 1)], __ATOMIC_RELAXED);
    if (head >= q->config.size || is_taken(q, head))
        return broken(q);

    chain->head = head;
    if (!walk(q, chain))
        return broken(q);
    set_taken(q, head, true);
    q->next_avail++;
    return 1;
}

unsigned virtq_slots(const struct virtq *q, const struct virtq_chain *chain, unsigned most)
{
    uint32_t index = chain->head;
    unsigned slots = 1;

    for (; slots < most && index < q->config.size; slots++) {
        struct vring_desc desc = read_desc((const uint8_t *)q->desc + index * sizeof(desc));
        if (!(desc.flags & VRING_DESC_F_NEXT)) /* nor has one that refers to a table that flag */
            break;
        index = desc.next;
    }
    return slots;
}

void virtq_undo(struct virtq *q, const struct virtq_chain *chain)
{
    assert(is_taken(q, chain->head));
    set_taken(q, chain->head, false);
    q->next_avail--;
}

static inline void put(struct virtq *q, const struct virtq_chain *chain, uint32_t written)
{
    assert(is_taken(q, chain->head) && written <= chain->wr.length);
    set_taken(q, chain->head, false);
    struct vring_used_elem *element = &q->used->ring[q->next_used & (q->config.size - 1)];
    __atomic_store_n(&element->id, chain->head, __ATOMIC_RELAXED);
    __atomic_store_n(&element->len, written, __ATOMIC_RELAXED);
    q->next_used++;
}

static inline void publish(struct virtq *q)
{
    /* 2.7.8.2: the data and the elements are visible before the index. */
    __atomic_store_n(&q->used->idx, q->next_used, __ATOMIC_RELEASE);
}

void virtq_put(struct virtq *q, const struct virtq_chain *chain, uint32_t written)
{
    put(q, chain, written);
}

void virtq_publish(struct virtq *q)
{
    publish(q);
}

void virtq_done(struct virtq *q, const struct virtq_chain *chain, uint32_t written)
{
    put(q, chain, written);
    publish(q);
}

/* 2.7.10: the words behind the rings that carry event indices. */
static uint16_t *used_event(const struct virtq *q)
{
    return &q->avail->ring[q->config.size];
}

static uint16_t *avail_event(const struct virtq *q)
{
    return (uint16_t *)&q->used->ring[q->config.size];
}

bool virtq_wants_irq(struct virtq *q)
{
    uint16_t before = q->signalled;

    if (q->broken || before == q->next_used)
        return false;
    q->signalled = q->next_used;
    /* The used index is out before the driver's wish is read; the driver does it the other way
     * round. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (q->config.event_idx)
        return vring_need_event(__atomic_load_n(used_event(q), __ATOMIC_RELAXED), q->next_used,
                                before);
    return !(__atomic_load_n(&q->avail->flags, __ATOMIC_RELAXED) & VRING_AVAIL_F_NO_INTERRUPT);
}

bool virtq_idle(struct virtq *q)
{
    if (q->broken)
        return false;
    if (q->config.event_idx)
        __atomic_store_n(avail_event(q), q->next_avail, __ATOMIC_RELAXED);
    else /* whatever notify_off says: a queue that goes on may have been stopped with kicks off */
        __atomic_store_n(&q->used->flags, 0, __ATOMIC_RELAXED);
    q->notify_off = false;
    /* The wish is out before the index is read again, so that one of the two sides sees the other.
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return waiting(q) != 0;
}
