/*
 * What a hostile driver puts into the rings of a device, and what it sees of that through the
 * registers (B1 to B24): a used entry, or DEVICE_NEEDS_RESET with an interrupt for a change of
 * configuration; and a reset that mends all.
 */
#include <string.h>

#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"

SUITE(virtio_hostile);

#define SIZE  16u
#define BUF   RIG_FREE
#define TABLE (RIG_FREE + 0x10000)
#define N     VRING_DESC_F_NEXT
#define W     VRING_DESC_F_WRITE
#define I     VRING_DESC_F_INDIRECT

enum outcome { PASS, NEEDS_RESET };

/* The same on each queue of each device: what is no request for a disk is answered with an error.
 */
struct row {
    const char *name;
    struct vring_desc desc[4];
    struct vring_desc table[4]; /* at TABLE */
    unsigned heads;             /* entries offered: 0, 1... */
    uint16_t first, jump;       /* the first head; added to the available index besides */
    enum outcome outcome;
    int rng_length; /* what the entropy device writes; PASS only */
};

static struct virtio_rig rig;

static void begin(void)
{
    struct minivmm_error err;
    const struct virtio_rig_config config = {.blk = {.queues = 2, .queue_size = 64}};
    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
}

static void offer(struct virtio_driver *v, unsigned index, const struct row *row)
{
    struct fake_driver *queue = &v->queues[index];
    for (uint16_t i = 0; i < 4; i++)
        fake_driver_set_desc(queue, i, row->desc[i]);
    fake_driver_write(queue, TABLE, row->table, sizeof(row->table));
    for (unsigned i = 0; i < (row->heads ? row->heads : 1); i++)
        fake_driver_offer(queue, (uint16_t)(row->first + i));
    fake_driver_set_avail_idx(queue, (uint16_t)(queue->offered + row->jump));
    fake_driver_sleep(queue);
    virtio_driver_notify(v, index);
    virtio_driver_settle(v);
}

static void expect_outcome(struct virtio_driver *v, unsigned index, const struct row *row,
                           bool is_rng)
{
    struct fake_driver *queue = &v->queues[index];
    uint32_t status = virtio_driver_read(v, VIRTIO_MMIO_STATUS);
    unsigned heads = row->heads ? row->heads : 1;

    if (row->outcome == NEEDS_RESET) {
        cr_expect_eq(status, STATUS_DRIVER_OK | STATUS_NEEDS_RESET, "%s: status 0x%x", row->name,
                     status);
        cr_expect(virtio_driver_interrupted(v), "%s", row->name);
        cr_expect(v->reasons & VIRTIO_MMIO_INT_CONFIG, "S2 %s", row->name);
        /* It stays so, and says so once; the other queues run. */
        for (int i = 0; i < 3; i++)
            virtio_driver_notify(v, index);
        virtio_driver_settle(v);
        cr_expect_not(virtio_driver_interrupted(v), "%s: once", row->name);
        virtio_driver_write(v, VIRTIO_MMIO_STATUS, STATUS_DRIVER_OK);
        cr_expect(virtio_driver_read(v, VIRTIO_MMIO_STATUS) & STATUS_NEEDS_RESET, "%s", row->name);
    } else {
        cr_expect_eq(status, STATUS_DRIVER_OK, "%s: status 0x%x", row->name, status);
        cr_expect_eq(fake_driver_used_idx(queue), heads, "%s", row->name);
        struct vring_used_elem element = fake_driver_used_element(queue, 0);
        cr_expect_eq(element.id, row->first, "%s", row->name);
        if (is_rng)
            cr_expect_eq((int)element.len, row->rng_length, "%s: %u bytes", row->name, element.len);
    }
}

/* Every row on every queue of both devices, with and without event indices. */
static void run_rows(const struct row *rows, size_t count)
{
    begin();
    for (size_t i = 0; i < count; i++) {
        for (unsigned where = 0; where < 3; where++) {
            for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
                uint64_t features = event_idx ? UINT64_MAX : ~FEATURE(VIRTIO_RING_F_EVENT_IDX);
                struct virtio_driver *v = where == 0 ? &rig.rng_driver : &rig.blk_driver.v;
                unsigned index = where == 2;
                cr_assert(virtio_rig_start(&rig, features, SIZE));
                blk_driver_forget(&rig.blk_driver);
                offer(v, index, &rows[i]);
                expect_outcome(v, index, &rows[i], where == 0);
                /* Other queues and devices do not notice. */
                struct virtio_driver *other = where == 0 ? &rig.blk_driver.v : &rig.rng_driver;
                cr_expect_eq(virtio_driver_read(other, VIRTIO_MMIO_STATUS), STATUS_DRIVER_OK);
                if (where == 2)
                    cr_expect_eq(blk_driver_read(&rig.blk_driver, 0, BUF, 512), VIRTIO_BLK_S_OK,
                                 "%s: the other queue", rows[i].name);
                virtio_driver_reset(v);
                cr_expect(virtio_rig_works(&rig), "%s: the canary", rows[i].name);
            }
        }
    }
    virtio_rig_finish(&rig);
}

#define IN(length)                                                                                 \
    {                                                                                              \
        BUF, length, W, 0                                                                          \
    }
#define MORE(next)                                                                                 \
    {                                                                                              \
        BUF, 8, N | W, next                                                                        \
    }
#define TABLE_OF(entries)                                                                          \
    {                                                                                              \
        TABLE, 16 * (entries), I, 0                                                                \
    }
#define BAD .outcome = NEEDS_RESET

Test(virtio_hostile, B1_B2_B3_chains_without_an_end)
{
    static const struct row rows[] = {
        {"B1 to itself", {MORE(0)}, BAD},
        {"B1 of two", {MORE(1), MORE(0)}, BAD},
        {"B1 of four", {MORE(1), MORE(2), MORE(3), MORE(0)}, BAD},
        {"B1 of no bytes", {{BUF, 0, N | W, 0}}, BAD},
        {"B2 next is the queue's size", {MORE(SIZE)}, BAD},
        {"B2 next 0xffff", {MORE(0xffff)}, BAD},
        {"B2 head is the queue's size", {IN(8)}, .first = SIZE, BAD},
        {"B2 head 0xffff", {IN(8)}, .first = 0xffff, BAD},
        {"B2 every head", {IN(8)}, .first = SIZE, .heads = SIZE, BAD},
        {"B2 some heads", {IN(8)}, .first = SIZE - 2, .heads = 4, BAD},
        {"B3 the table leads round", {TABLE_OF(2)}, {MORE(1), MORE(0)}, BAD},
    };
    run_rows(rows, COUNT(rows));
}

Test(virtio_hostile, B4_the_available_index)
{
    static const struct row rows[] = {
        {"B4 one more than the size", {IN(8)}, .jump = SIZE, BAD},
        {"B4 half of all", {IN(8)}, .jump = 0x8000, BAD},
        {"B4 goes back by one", {IN(8)}, .jump = 0xfffe, BAD},
        {"B4 goes back by many", {IN(8)}, .jump = 0xfff0, BAD},
    };
    run_rows(rows, COUNT(rows));
}

Test(virtio_hostile, B6_B8_B11_lengths)
{
    static const struct row rows[] = {
        {"B6 no bytes", {IN(0)}, .rng_length = 0},
        {"B6 no bytes to read", {{BUF, 0, 0, 0}}, .rng_length = 0},
        {"B6 none of two", {{BUF, 0, N | W, 1}, IN(0)}, .rng_length = 0},
        {"B6 none in front", {{BUF, 0, N | W, 1}, IN(8)}, .rng_length = 8},
        {"B6 none behind", {{BUF, 8, N | W, 1}, IN(0)}, .rng_length = 8},
        {"B6 none in a table", {TABLE_OF(2)}, {{BUF, 0, N | W, 1}, IN(0)}, .rng_length = 0},
        {"B6 none, nowhere", {{UINT64_MAX, 0, W, 0}}, .rng_length = 0},
        {"B8 up to the end of RAM", {{RAM_END - 8, 8, W, 0}}, .rng_length = 8},
        {"B8 the last byte of RAM", {{RAM_END - 1, 1, W, 0}}, .rng_length = 1},
        {"B8 up to the hole", {{RAM_HOLE - 8, 8, W, 0}}, .rng_length = 8},
        {"B8 from the hole's end", {{RAM_C - 0, 0, W, 0}}, .rng_length = 0},
        {"B7 across the inner border", {{RAM_B - 3, 8, W, 0}}, .rng_length = 8},
        {"B11 the same MiB four times, G1",
         {{RAM_A, 1 << 20, N | W, 1},
          {RAM_A, 1 << 20, N | W, 2},
          {RAM_A, 1 << 20, N | W, 3},
          {RAM_A, 1 << 20, W, 0}},
         .rng_length = RNG_BYTES_MAX},
    };
    run_rows(rows, COUNT(rows));
}

Test(virtio_hostile, B7_B9_buffers_that_are_no_memory)
{
    static const struct row rows[] = {
        {"B7 wraps", {{0 - 16ull, 32, W, 0}}, BAD},
        {"B7 4 GiB - 1", {{RAM_A, UINT32_MAX, W, 0}}, BAD},
        {"B7 past RAM", {{RAM_END, 8, W, 0}}, BAD},
        {"B7 out of RAM", {{RAM_END - 7, 8, W, 0}}, BAD},
        {"B7 across the hole", {{RAM_HOLE - 4, RAM_C - RAM_HOLE + 8, W, 0}}, BAD},
        {"B7 the second of two", {MORE(1), {RAM_END, 8, W, 0}}, BAD},
        {"B7 to read", {{RAM_END, 8, 0, 0}}, BAD},
        {"B9 its own registers", {{RIG_SLOTS + RIG_SLOT_BLK * RIG_SLOT + 0x100, 8, W, 0}}, BAD},
        {"B9 another device's", {{RIG_SLOTS + RIG_SLOT_RNG * RIG_SLOT + 0x50, 4, 0, 0}}, BAD},
        {"B9 the local APIC", {{0xfee00000, 8, W, 0}}, BAD},
        {"B9 address 0", {{0, 8, W, 0}}, BAD},
    };
    run_rows(rows, COUNT(rows));
}

Test(virtio_hostile, B12_B13_B14_shapes)
{
    static const struct row rows[] = {
        {"B12 readable behind writable", {MORE(1), {BUF, 8, 0, 0}}, BAD},
        {"B12 of no bytes", {{BUF, 0, N | W, 1}, {BUF, 8, 0, 0}}, BAD},
        {"B13 nested", {TABLE_OF(1)}, {TABLE_OF(1)}, BAD},
        {"B13 with NEXT", {{TABLE, 16, I | N, 1}, IN(8)}, {IN(8)}, BAD},
        {"B14 no entry", {TABLE_OF(0)}, {IN(8)}, BAD},
        {"B14 half an entry", {{TABLE, 24, I, 0}}, {MORE(1), IN(8)}, BAD},
        {"B14 longer than the queue", {TABLE_OF(SIZE + 1)}, {IN(8)}, BAD},
        {"B14 huge", {{TABLE, 0xfffffff0, I, 0}}, {IN(8)}, BAD},
        {"B14 past RAM", {{RAM_END - 16, 32, I, 0}}, BAD},
        {"B14 nowhere", {{RAM_END, 16, I, 0}}, BAD},
        {"B14 next past its end", {TABLE_OF(1)}, {MORE(1), IN(8)}, BAD},
        {"B16 WRITE on the table", {{TABLE, 16, I | W, 0}}, {IN(8)}, .rng_length = 8},
        {"B16 direct, then a table", {MORE(1), TABLE_OF(1)}, {IN(8)}, .rng_length = 16},
        {"B16 direct, then a table with WRITE",
         {MORE(1), {TABLE, 16, I | W, 0}},
         {IN(8)},
         .rng_length = 16},
    };
    run_rows(rows, COUNT(rows));
}

/* ---- one by one ---------------------------------------------------------------------------- */

Test(virtio_hostile, B15_a_table_at_an_odd_address_is_valid)
{
    begin();
    struct virtio_driver *v = &rig.rng_driver;
    for (unsigned odd = 1; odd < 16; odd++) {
        struct piece pieces[2] = {{BUF, 8, true}, {BUF + 100, 8, true}};
        struct vring_used_elem element;
        cr_assert(virtio_driver_start(v, UINT64_MAX, SIZE));
        fake_driver_offer(&v->queues[0],
                          fake_driver_add_indirect(&v->queues[0], pieces, 2, 0, TABLE + odd));
        fake_driver_publish(&v->queues[0]);
        virtio_driver_kick(v, 0);
        cr_expect(virtio_driver_wait(v, 0, &element) && element.len == 16, "%u", odd);
    }
    cr_expect(virtio_rig_works(&rig));
    virtio_rig_finish(&rig);
}

Test(virtio_hostile, B4_indices_wrap_round)
{
    begin();
    cr_assert(virtio_driver_start(&rig.rng_driver, UINT64_MAX, SIZE));
    for (unsigned i = 0; i < 66000; i++) {
        struct piece piece = {BUF, 1, true};
        struct vring_used_elem element;
        cr_assert(virtio_driver_transact(&rig.rng_driver, 0, &piece, 1, &element), "%u", i);
        cr_assert_eq(element.len, 1);
    }
    cr_expect(virtio_rig_works(&rig));
    virtio_rig_finish(&rig);
}

/* B5: a head that the device has done with may come again; one that it still has may not. */
Test(virtio_hostile, B5_a_head_twice)
{
    begin();
    struct virtio_driver *v = &rig.rng_driver;
    cr_assert(virtio_driver_start(v, UINT64_MAX, SIZE));
    fake_driver_set_desc(&v->queues[0], 3, (struct vring_desc){BUF, 8, W, 0});
    for (unsigned i = 0; i < SIZE; i++)
        fake_driver_offer(&v->queues[0], 3);
    fake_driver_publish(&v->queues[0]);
    virtio_driver_notify(v, 0);
    virtio_driver_settle(v);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_STATUS), STATUS_DRIVER_OK);
    cr_expect_eq(fake_driver_used_idx(&v->queues[0]), SIZE);
    virtio_driver_reset(v);

    struct blk_driver *d = &rig.blk_driver;
    const struct blk_request flush = {.type = VIRTIO_BLK_T_FLUSH};
    cr_assert(virtio_driver_start(&d->v, UINT64_MAX, SIZE));
    blk_driver_send(d, 0, &flush);
    fake_driver_offer(&d->v.queues[0], 0); /* a flush takes a while: it is still there */
    fake_driver_publish(&d->v.queues[0]);
    virtio_driver_notify(&d->v, 0);
    event_loop_once(&rig.loop, 0);
    cr_expect(virtio_driver_read(&d->v, VIRTIO_MMIO_STATUS) & STATUS_NEEDS_RESET);
    /* B22: what had been taken before comes to its end once. */
    virtio_driver_write(&d->v, VIRTIO_MMIO_STATUS, 0);
    cr_expect_eq(fake_driver_used_idx(&d->v.queues[0]), 1);
    virtio_driver_reset(&d->v);
    blk_driver_forget(d);
    cr_expect(virtio_rig_works(&rig));
    virtio_rig_finish(&rig);
}

Test(virtio_hostile, B13_a_table_without_the_feature)
{
    static const struct row row = {"B13", {TABLE_OF(1)}, {IN(8)}, BAD};
    begin();
    for (unsigned is_blk = 0; is_blk < 2; is_blk++) {
        struct virtio_driver *v = is_blk ? &rig.blk_driver.v : &rig.rng_driver;
        cr_assert(virtio_rig_start(&rig, ~FEATURE(VIRTIO_RING_F_INDIRECT_DESC), SIZE));
        offer(v, 0, &row);
        expect_outcome(v, 0, &row, !is_blk);
        cr_expect(virtio_rig_works(&rig));
    }
    virtio_rig_finish(&rig);
}

Test(virtio_hostile, B18_what_the_device_wrote_is_not_read_back)
{
    begin();
    struct virtio_driver *v = &rig.rng_driver;
    struct piece piece = {BUF, 8, true};
    cr_assert(virtio_driver_start(v, ~FEATURE(VIRTIO_RING_F_EVENT_IDX), SIZE));
    for (uint16_t i = 0; i < 100; i++) {
        fake_driver_set_used_idx(&v->queues[0], (uint16_t)(0x1234 * i));
        fake_driver_set_used_flags(&v->queues[0], 0xffff);
        memset(virtio_rig_at(&rig, v->queues[0].config.used + 4, 8 * SIZE), 0xff, 8 * SIZE);
        uint16_t head = fake_driver_send(&v->queues[0], &piece, 1);
        virtio_driver_notify(v, 0);
        virtio_driver_settle(v);
        cr_expect_eq(fake_driver_used_idx(&v->queues[0]), i + 1, "%u", i);
        struct vring_used_elem element;
        cr_assert(fake_driver_take(&v->queues[0], &element));
        cr_expect(element.id == head && element.len == 8);
        cr_expect_eq(fake_driver_used_flags(&v->queues[0]), 0, "kicks are wanted");
    }
    cr_expect(virtio_rig_works(&rig));
    virtio_rig_finish(&rig);
}

Test(virtio_hostile, B21_a_full_ring_that_nobody_empties)
{
    begin();
    struct virtio_driver *v = &rig.rng_driver;
    cr_assert(virtio_driver_start(v, UINT64_MAX, 64));
    for (uint16_t i = 0; i < 64; i++)
        fake_driver_set_desc(&v->queues[0], i, (struct vring_desc){BUF, 8, W, 0});
    for (unsigned round = 0; round < 50; round++) {
        for (uint16_t i = 0; i < 64; i++)
            fake_driver_offer(&v->queues[0], i);
        fake_driver_publish(&v->queues[0]);
        virtio_driver_notify(v, 0);
        virtio_driver_settle(v);
        cr_expect_eq(fake_driver_used_idx(&v->queues[0]), (uint16_t)(64 * (round + 1)));
    }
    virtio_driver_reset(v);
    cr_expect(virtio_rig_works(&rig));
    virtio_rig_finish(&rig);
}

Test(virtio_hostile, A8_rings_on_top_of_each_other)
{
    static const struct {
        const char *name;
        uint64_t desc, avail, used;
    } rows[] = {
        {"A8 all at once", BUF, BUF, BUF},
        {"A8 available in the table", BUF, BUF + 16, BUF + 0x1000},
        {"A8 used in the table", BUF, BUF + 0x1000, BUF + 4},
        {"A8 used over available", BUF + 0x1000, BUF, BUF},
    };
    begin();
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (unsigned is_blk = 0; is_blk < 2; is_blk++) {
            struct virtio_driver *v = is_blk ? &rig.blk_driver.v : &rig.rng_driver;
            struct virtq_config config = {
                .size = SIZE, .desc = rows[i].desc, .avail = rows[i].avail, .used = rows[i].used};
            cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
            uint16_t *words = virtio_rig_at(&rig, BUF, 0x2000);
            for (unsigned j = 0; j < 0x1000; j++)
                words[j] = (uint16_t)(j % 7);
            cr_expect_eq(virtio_driver_set_queue(v, 0, &config), 1, "%s", rows[i].name);
            virtio_driver_write(v, VIRTIO_MMIO_STATUS, STATUS_DRIVER_OK);
            for (unsigned n = 0; n < 20; n++) {
                virtio_driver_notify(v, 0);
                virtio_driver_settle(v);
            }
            virtio_driver_reset(v);
            blk_driver_forget(&rig.blk_driver);
            cr_expect(virtio_rig_works(&rig), "%s: the canary", rows[i].name);
        }
    }
    virtio_rig_finish(&rig);
}

Test(virtio_hostile, A8_random_bytes_into_the_rings)
{
    begin();
    for (unsigned is_blk = 0; is_blk < 2; is_blk++) {
        struct virtio_driver *v = is_blk ? &rig.blk_driver.v : &rig.rng_driver;
        cr_assert(virtio_driver_start(v, UINT64_MAX, SIZE));
        /* The device's own bytes land on the descriptors it works from. */
        for (uint16_t i = 0; i < SIZE; i++) {
            fake_driver_set_desc(&v->queues[0], i,
                                 (struct vring_desc){v->queues[0].config.desc, 4096, W, 0});
            fake_driver_offer(&v->queues[0], i);
        }
        fake_driver_publish(&v->queues[0]);
        virtio_driver_notify(v, 0);
        virtio_driver_settle(v);
        virtio_driver_reset(v);
        cr_expect(virtio_rig_works(&rig));
    }
    virtio_rig_finish(&rig);
}

Test(virtio_hostile, B10_more_than_4_GiB)
{
    cr_skip_test("a queue of these devices takes too few pieces for that: see virtq_broken");
}

Test(virtio_hostile, B25_packed_rings)
{
    cr_skip_test("not offered");
}
