/*
 * Small rings in full: every descriptor of a small set in every place, compared with a model that
 * follows the specification byte by byte and knows nothing of how the device does it.
 */
#include <errno.h>
#include <string.h>

#include "tests/unit/queue.h"
#include "tests/unit/support.h"

SUITE(virtq_model);

#define TABLE         QUEUE_FREE
#define TABLE_ENTRIES 5
#define N             VRING_DESC_F_NEXT
#define W             VRING_DESC_F_WRITE
#define I             VRING_DESC_F_INDIRECT

struct bytes {
    unsigned count;
    struct {
        uint64_t gpa;
        bool write;
    } at[64];
};

static bool in_ram(uint64_t gpa)
{
    return (gpa >= RAM_A && gpa < RAM_HOLE) || (gpa >= RAM_C && gpa < RAM_END);
}

/* All of them, none past the last address there is. */
static bool all_in_ram(uint64_t gpa, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        if (gpa + i < gpa || !in_ram(gpa + i))
            return false;
    return true;
}

/* What a chain consists of, as 2.7.5 and 2.7.5.3 put it; false when it breaks a rule. */
static bool model(const struct vring_desc *ring, unsigned size, const struct vring_desc *table,
                  uint16_t head, bool indirect, struct bytes *out)
{
    struct vring_desc list[4];
    unsigned count = 0;
    const struct vring_desc *from = ring;
    unsigned entries = size;

    /* The buffers in their order. */
    for (uint16_t i = head;;) {
        if (i >= entries)
            return false;
        if (from[i].flags & I) {
            if (!indirect)
                return false; /* not negotiated */
            if (from == table)
                return false; /* a table within a table */
            if (from[i].flags & N)
                return false; /* both flags */
            if (from[i].len % 16 != 0 || from[i].len == 0 || from[i].len > 16 * size)
                return false;
            if (!all_in_ram(from[i].addr, from[i].len))
                return false;
            cr_assert_eq(from[i].addr, TABLE); /* no other valid one is in the sets below */
            entries = from[i].len / 16;
            from = table;
            i = 0;
            continue;
        }
        if (count == size)
            return false; /* longer than the queue */
        list[count++] = from[i];
        if (!(from[i].flags & N))
            break;
        i = from[i].next;
    }
    /* Readable before writable, and every byte in RAM. */
    out->count = 0;
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < i; j++)
            if ((list[j].flags & W) && !(list[i].flags & W))
                return false;
        if (!all_in_ram(list[i].addr, list[i].len))
            return false;
        for (uint32_t j = 0; j < list[i].len; j++, out->count++) {
            out->at[out->count].gpa = list[i].addr + j;
            out->at[out->count].write = list[i].flags & W;
        }
    }
    return true;
}

struct set {
    struct vring_desc desc[128];
    unsigned count;
};

static void put(struct set *set, unsigned flags, uint64_t addr, uint32_t len, unsigned next)
{
    cr_assert_lt(set->count, COUNT(set->desc));
    set->desc[set->count++] = (struct vring_desc){addr, len, (uint16_t)flags, (uint16_t)next};
}

static const struct {
    uint64_t addr;
    uint32_t len;
} buffers[] = {
    {RAM_A, 4}, {UINT64_MAX, 0}, {RAM_B - 2, 4}, {RAM_HOLE - 2, 4}, {0 - 2ull, 4},
};

/* Both directions, with every `next`, for the first so many of the buffers. */
static void put_buffers(struct set *set, unsigned size, unsigned last, unsigned more)
{
    for (unsigned write = 0; write <= W; write += W) {
        for (unsigned i = 0; i < last; i++)
            put(set, write, buffers[i].addr, buffers[i].len, 0);
        for (unsigned i = 0; i < more; i++)
            for (unsigned next = 0; next <= size; next++)
                put(set, write | N, buffers[i].addr, buffers[i].len, next);
    }
}

static void put_tables(struct set *set, unsigned size)
{
    for (uint32_t len = 16; len <= 16 * (size + 1); len += 16)
        put(set, I, TABLE, len, 0);
    put(set, I | W, TABLE, 16, 0);
    put(set, I | N, TABLE, 16, 0);
    put(set, I, TABLE, 0, 0);
    put(set, I, TABLE, 24, 0);
    put(set, I, RAM_HOLE - 8, 16, 0);
}

struct run {
    struct queue t;
    struct virtq_config config;
    unsigned cases, accepted, wrong;
    struct vring_desc *ring;  /* in guest memory */
    struct vring_desc *table; /* in guest memory */
};

static bool same(const struct queue *t, const struct bytes *want)
{
    unsigned count = 0;
    for (unsigned i = 0; i < t->chain.rd.count + t->chain.wr.count; i++) {
        const struct iovec *iov =
            i < t->chain.rd.count ? &t->chain.rd.iov[i] : &t->chain.wr.iov[i - t->chain.rd.count];
        for (size_t j = 0; j < iov->iov_len; j++, count++) {
            if (count == want->count || want->at[count].write != (i >= t->chain.rd.count) ||
                want->at[count].gpa != queue_gpa(t, (uint8_t *)iov->iov_base + j))
                return false;
        }
    }
    return count == want->count && t->chain.rd.length + t->chain.wr.length == count;
}

/* The ring and the table are in place: ask both for the chain that starts at `head`. */
static void compare(struct run *r, uint16_t head)
{
    struct bytes want;
    bool valid = head < r->config.size &&
                 model(r->ring, r->config.size, r->table, head, r->config.indirect, &want);
    uint16_t *avail = guest_mem_at(&r->t.mem, r->config.avail, 8);

    avail[1] = 1;
    avail[2] = head;
    int rc = queue_next(&r->t);
    r->cases++;
    r->accepted += rc == 1;
    if (rc != (valid ? 1 : -EPROTO) || (valid && !same(&r->t, &want)))
        r->wrong++;
    if (rc == 1)
        virtq_undo(&r->t.q, &r->t.chain);
    else
        virtq_start(&r->t.q, &r->t.mem, &r->config, r->config.size, 0);
}

static void run_init(struct run *r, uint32_t size, bool indirect)
{
    memset(r, 0, sizeof(*r));
    queue_init(&r->t, size, indirect, false);
    r->config = r->t.driver.config;
    r->ring = guest_mem_at(&r->t.mem, r->config.desc, 16ull * size);
    r->table = guest_mem_at(&r->t.mem, TABLE, 16 * TABLE_ENTRIES);
}

static void run_finish(struct run *r, unsigned cases_min)
{
    cr_expect_eq(r->wrong, 0, "%u of %u cases differ", r->wrong, r->cases);
    cr_expect_geq(r->cases, cases_min, "%u cases", r->cases);
    cr_expect_gt(r->accepted, 0);
    queue_finish(&r->t);
}

/* The next combination of `places` descriptors out of a set; false after the last one. */
static bool advance(unsigned *choice, unsigned places, const struct set *set,
                    struct vring_desc *out)
{
    for (unsigned i = 0; i < places; i++) {
        choice[i] = choice[i] + 1 < set->count ? choice[i] + 1 : 0;
        out[i] = set->desc[choice[i]];
        if (choice[i] > 0)
            return true;
    }
    return false;
}

static void first(unsigned *choice, unsigned places, const struct set *set, struct vring_desc *out)
{
    for (unsigned i = 0; i < places; i++) {
        choice[i] = 0;
        out[i] = set->desc[0];
    }
}

/* Every ring of these descriptors, and, where it may matter, every table of those. */
static void every_ring(struct run *r, const struct set *set, const struct set *table_set,
                       unsigned table_places, unsigned heads)
{
    unsigned ring_choice[4], table_choice[4];

    first(ring_choice, r->config.size, set, r->ring);
    do {
        bool refers = false;
        for (unsigned i = 0; i < r->config.size; i++)
            refers |= (r->ring[i].flags & I) && r->ring[i].addr == TABLE;
        first(table_choice, table_places, table_set, r->table);
        do {
            for (unsigned head = 0; head < heads; head++)
                compare(r, (uint16_t)head);
        } while (refers && advance(table_choice, table_places, table_set, r->table));
    } while (advance(ring_choice, r->config.size, set, r->ring));
}

Test(virtq_model, rings_of_one)
{
    for (int indirect = 0; indirect < 2; indirect++) {
        static struct run r;
        struct set set = {.count = 0};
        put_buffers(&set, 1, COUNT(buffers), COUNT(buffers));
        put_tables(&set, 1);
        run_init(&r, 1, indirect);
        every_ring(&r, &set, &set, 2, 2);
        run_finish(&r, 10000);
    }
}

Test(virtq_model, rings_of_two)
{
    for (int indirect = 0; indirect < 2; indirect++) {
        static struct run r;
        struct set set = {.count = 0}, table_set = {.count = 0};
        put_buffers(&set, 2, COUNT(buffers), COUNT(buffers));
        put_tables(&set, 2);
        put_buffers(&table_set, 2, 3, 1);
        put(&table_set, I, TABLE, 16, 0);
        put(&table_set, I | N, TABLE, 16, 1);
        run_init(&r, 2, indirect);
        every_ring(&r, &set, &table_set, 2, indirect ? 2 : 3);
        run_finish(&r, 10000);
    }
}

Test(virtq_model, rings_of_four)
{
    static struct run r;
    struct set set = {.count = 0};
    put_buffers(&set, 4, COUNT(buffers) - 1, 1);
    put(&set, N, UINT64_MAX, 0, 2);
    put(&set, N, UINT64_MAX, 0, 1);
    put(&set, I, TABLE, 32, 0);
    put(&set, I | W, TABLE, 32, 0);
    struct set table_set = {.count = 0};
    put(&table_set, W, RAM_A, 4, 0);
    put(&table_set, N, RAM_A + 16, 4, 1);
    run_init(&r, 4, true);
    every_ring(&r, &set, &table_set, 2, 1);
    run_finish(&r, 300000);
}

/* One descriptor that refers to tables of three and four entries. */
Test(virtq_model, tables_of_four)
{
    static struct run r;
    struct set set = {.count = 0}, table_set = {.count = 0};
    put(&set, I, TABLE, 64, 0);
    put(&set, I, TABLE, 48, 0);
    put_buffers(&table_set, 4, COUNT(buffers) - 2, 1);
    run_init(&r, 4, true);
    unsigned table_choice[4];
    for (unsigned i = 0; i < set.count; i++) {
        r.ring[0] = set.desc[i];
        first(table_choice, 4, &table_set, r.table);
        do
            compare(&r, 0);
        while (advance(table_choice, 4, &table_set, r.table));
    }
    run_finish(&r, 100000);
}
