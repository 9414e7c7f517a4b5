/*
 * What a hostile driver puts into a ring: virtq_next answers -EPROTO, goes on doing so, and the
 * queue works again once it is started again (B1 to B14, B22, B24).
 */
#include <errno.h>
#include <string.h>

#include "tests/unit/queue.h"
#include "tests/unit/support.h"

SUITE(virtq_broken);

#define SIZE  4u
#define TABLE (QUEUE_FREE + 0x10000)
#define N     VRING_DESC_F_NEXT
#define W     VRING_DESC_F_WRITE
#define I     VRING_DESC_F_INDIRECT

/* The queue is broken, stays it whatever the driver does then, and works after a new start. */
static void expect_broken(struct queue *t, const char *name)
{
    const struct piece piece = {RAM_A, 8, true};
    struct vring_used_elem element;

    uint16_t used_idx = fake_driver_used_idx(&t->driver);
    cr_expect_eq(queue_next(t), -EPROTO, "%s", name);
    cr_expect_eq(fake_driver_used_idx(&t->driver), used_idx, "%s", name);
    for (uint16_t i = 0; i < t->driver.config.size; i++) { /* every rule kept now */
        fake_driver_set_desc(&t->driver, i, (struct vring_desc){RAM_A, 8, W, 0});
        fake_driver_offer(&t->driver, i);
    }
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(queue_next(t), -EPROTO, "%s: it does not last", name);
        cr_expect_not(virtq_idle(&t->q), "%s", name);
        cr_expect_not(virtq_wants_irq(&t->q), "%s", name);
        fake_driver_publish(&t->driver);
    }
    queue_restart(t);
    for (uint16_t i = 0; i < t->driver.config.size; i++)
        fake_driver_send(&t->driver, &piece, 1);
    for (uint16_t i = 0; i < t->driver.config.size; i++) {
        queue_serve(t);
        cr_expect(fake_driver_take(&t->driver, &element) && element.len == 8, "%s", name);
    }
    queue_restart(t);
}

struct row {
    const char *name;
    struct vring_desc desc[SIZE];
    struct vring_desc table[5]; /* at TABLE */
};

static void expect_rows_broken(const struct row *rows, size_t count, bool indirect)
{
    struct queue t;
    queue_init(&t, SIZE, indirect, false);
    for (size_t i = 0; i < count; i++) {
        for (uint16_t j = 0; j < SIZE; j++)
            fake_driver_set_desc(&t.driver, j, rows[i].desc[j]);
        fake_driver_write(&t.driver, TABLE, rows[i].table, sizeof(rows[i].table));
        fake_driver_offer(&t.driver, 0);
        fake_driver_publish(&t.driver);
        expect_broken(&t, rows[i].name);
    }
    queue_finish(&t);
}

#define LAST(gpa, len)                                                                             \
    {                                                                                              \
        gpa, len, 0, 0                                                                             \
    }
#define MORE(next)                                                                                 \
    {                                                                                              \
        RAM_A, 8, N, next                                                                          \
    }
#define TABLE_OF(entries)                                                                          \
    {                                                                                              \
        TABLE, 16 * (entries), I, 0                                                                \
    }

Test(virtq_broken, B1_loops)
{
    static const struct row rows[] = {
        {"B1 to itself", {MORE(0)}, {{0}}},
        {"B1 of two", {MORE(1), MORE(0)}, {{0}}},
        {"B1 of all", {MORE(1), MORE(2), MORE(3), MORE(0)}, {{0}}},
        {"B1 not through the head", {MORE(1), MORE(2), MORE(1)}, {{0}}},
        {"B1 the last to itself", {MORE(1), MORE(2), MORE(3), MORE(3)}, {{0}}},
        {"B1 of no bytes", {{RAM_A, 0, N, 1}, {RAM_A, 0, N, 0}}, {{0}}},
        {"B1 of no bytes to write", {{RAM_A, 0, N | W, 0}}, {{0}}},
        {"B14 in a table, to itself", {TABLE_OF(1)}, {MORE(0)}},
        {"B14 in a table, of two", {TABLE_OF(2)}, {MORE(1), MORE(0)}},
        {"B14 in a table, of all", {TABLE_OF(4)}, {MORE(1), MORE(2), MORE(3), MORE(0)}},
        {"B14 in a table, of no bytes", {TABLE_OF(1)}, {{RAM_A, 0, N, 0}}},
        {"B3 longer than the queue, in a table",
         {MORE(1), MORE(2), MORE(3), TABLE_OF(2)},
         {MORE(1), LAST(RAM_A, 8)}},
        {"B3 longer by one", {MORE(1), TABLE_OF(4)}, {MORE(1), MORE(2), MORE(3), LAST(RAM_A, 8)}},
    };
    expect_rows_broken(rows, COUNT(rows), true);
}

Test(virtq_broken, B2_next_beyond_the_table)
{
    static const struct row rows[] = {
        {"B2 size", {MORE(SIZE)}, {{0}}},
        {"B2 size + 1", {MORE(SIZE + 1)}, {{0}}},
        {"B2 0x8000", {MORE(0x8000)}, {{0}}},
        {"B2 0xffff", {MORE(0xffff)}, {{0}}},
        {"B2 later", {MORE(1), MORE(2), MORE(SIZE)}, {{0}}},
        {"B14 one entry, next 1", {TABLE_OF(1)}, {MORE(1), LAST(RAM_A, 8)}},
        {"B14 two entries, next 2", {TABLE_OF(2)}, {MORE(1), MORE(2), LAST(RAM_A, 8)}},
        {"B14 two entries, next 3", {TABLE_OF(2)}, {MORE(3), {0}, {0}, LAST(RAM_A, 8)}},
        {"B14 0xffff", {TABLE_OF(4)}, {MORE(0xffff)}},
    };
    expect_rows_broken(rows, COUNT(rows), true);
}

Test(virtq_broken, B7_B9_buffers_outside_ram)
{
    static const struct {
        const char *name;
        uint64_t gpa;
        uint32_t len;
    } rows[] = {
        {"B7 address 0", 0, 1},
        {"B7 below RAM", RAM_A - 1, 1},
        {"B7 into RAM", RAM_A - 1, 2},
        {"B7 into the hole", RAM_HOLE - 1, 2},
        {"B7 across the inner border into the hole", RAM_B - 1, 0x100002},
        {"B7 the hole", RAM_HOLE, 8},
        {"B7 the hole's last byte", RAM_C - 1, 1},
        {"B7 out of the hole", RAM_C - 1, 2},
        {"B7 across the hole", RAM_HOLE - 8, 0x100010},
        {"B7 one byte too long", RAM_END - 7, 8},
        {"B7 just past RAM", RAM_END, 1},
        {"B7 4 GiB - 1", RAM_A, UINT32_MAX},
        {"B7 4 GiB - 1 at the end", RAM_END - 1, UINT32_MAX},
        {"B7 far past RAM", 1ull << 40, 8},
        {"B7 the last address", UINT64_MAX, 1},
        {"B7 wraps to 0", UINT64_MAX, 2},
        {"B7 wraps into RAM", 0 - 0x10ull, (uint32_t)RAM_A + 0x20},
        {"B7 above 2^63", 1ull << 63 | RAM_A, 8},
        {"B9 the window of devices", 0xd0000000, 4},
        {"B9 the I/O APIC", 0xfec00000, 4},
        {"B9 the local APIC", 0xfee00000, 4},
        {"B9 below 4 GiB", 0xfffffff0, 16},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (unsigned write = 0; write < 2; write++) {
            struct vring_desc bad = {rows[i].gpa, rows[i].len, write ? W : 0, 0};
            struct row four[4] = {
                {rows[i].name, {bad}, {{0}}},
                {rows[i].name, {MORE(1), bad}, {{0}}},
                {rows[i].name, {TABLE_OF(2)}, {MORE(1), bad}},
                {rows[i].name, {bad, LAST(RAM_A, 8)}, {{0}}},
            };
            four[3].desc[0].flags |= N;
            four[3].desc[0].next = 1;
            four[3].desc[1].flags |= write ? W : 0;
            expect_rows_broken(four, 4, true);
        }
    }
}

Test(virtq_broken, B12_readable_after_writable)
{
    static const struct row rows[] = {
        {"B12 two", {{RAM_A, 8, N | W, 1}, LAST(RAM_A, 8)}, {{0}}},
        {"B12 three", {MORE(1), {RAM_A, 8, N | W, 2}, LAST(RAM_A, 8)}, {{0}}},
        {"B12 writable of no bytes", {{RAM_A, 0, N | W, 1}, LAST(RAM_A, 8)}, {{0}}},
        {"B12 readable of no bytes", {{RAM_A, 8, N | W, 1}, LAST(RAM_A, 0)}, {{0}}},
        {"B12 in a table", {TABLE_OF(2)}, {{RAM_A, 8, N | W, 1}, LAST(RAM_A, 8)}},
        {"B12 into a table", {{RAM_A, 8, N | W, 1}, TABLE_OF(1)}, {LAST(RAM_A, 8)}},
    };
    expect_rows_broken(rows, COUNT(rows), true);
}

Test(virtq_broken, B13_tables_not_negotiated)
{
    static const struct row rows[] = {
        {"B13 not negotiated", {TABLE_OF(1)}, {LAST(RAM_A, 8)}},
        {"B13 not negotiated, later", {MORE(1), TABLE_OF(1)}, {LAST(RAM_A, 8)}},
        {"B13 not negotiated, WRITE", {{TABLE, 16, I | W, 0}}, {LAST(RAM_A, 8)}},
    };
    expect_rows_broken(rows, COUNT(rows), false);
}

Test(virtq_broken, B13_B14_tables)
{
    static const struct row rows[] = {
        {"B13 nested", {TABLE_OF(1)}, {{TABLE + 16, 16, I, 0}, LAST(RAM_A, 8)}},
        {"B13 nested, later", {TABLE_OF(2)}, {MORE(1), {TABLE, 16, I, 0}}},
        {"B13 in itself", {TABLE_OF(1)}, {{TABLE, 16, I, 0}}},
        {"B13 with NEXT", {{TABLE, 16, I | N, 1}, LAST(RAM_A, 8)}, {LAST(RAM_A, 8)}},
        {"B13 with NEXT and WRITE", {{TABLE, 16, I | N | W, 1}, LAST(RAM_A, 8)}, {LAST(RAM_A, 8)}},
        {"B14 no bytes", {{TABLE, 0, I, 0}}, {LAST(RAM_A, 8)}},
        {"B14 one byte", {{TABLE, 1, I, 0}}, {LAST(RAM_A, 8)}},
        {"B14 15 bytes", {{TABLE, 15, I, 0}}, {LAST(RAM_A, 8)}},
        {"B14 17 bytes", {{TABLE, 17, I, 0}}, {LAST(RAM_A, 8)}},
        {"B14 31 bytes", {{TABLE, 31, I, 0}}, {MORE(1), LAST(RAM_A, 8)}},
        {"B14 more than the queue's size", {TABLE_OF(5)}, {LAST(RAM_A, 8)}},
        {"B14 huge", {{TABLE, UINT32_MAX - 15, I, 0}}, {LAST(RAM_A, 8)}},
        {"B14 2^31 bytes", {{TABLE, 1u << 31, I, 0}}, {LAST(RAM_A, 8)}},
        {"B14 1 MiB", {{TABLE, 1u << 20, I, 0}}, {LAST(RAM_A, 8)}},
        {"B14 past RAM", {{RAM_END, 16, I, 0}}, {{0}}},
        {"B14 its last byte past RAM", {{RAM_END - 15, 16, I, 0}}, {{0}}},
        {"B14 its second entry past RAM", {{RAM_END - 16, 32, I, 0}}, {{0}}},
        {"B14 in the hole", {{RAM_HOLE, 16, I, 0}}, {{0}}},
        {"B14 into the hole", {{RAM_HOLE - 16, 32, I, 0}}, {{0}}},
        {"B14 out of the hole", {{RAM_C - 16, 32, I, 0}}, {{0}}},
        {"B14 wraps", {{0 - 16ull, 32, I, 0}}, {{0}}},
        {"B14 address 0", {{0, 16, I, 0}}, {{0}}},
    };
    expect_rows_broken(rows, COUNT(rows), true);
}

/* B10: 4 GiB in all, and more; of memory that is all there. */
Test(virtq_broken, B10_too_many_bytes)
{
    static struct piece pieces[2048];
    struct queue t;
    queue_init(&t, 2048, true, false);
    for (unsigned count = 1024; count <= 2048; count += 512) {
        for (unsigned rd = 0; rd <= count; rd += 256) {
            for (unsigned i = 0; i < count; i++)
                pieces[i] = (struct piece){RAM_C, (uint32_t)(RAM_END - RAM_C), i >= rd};
            fake_driver_send(&t.driver, pieces, count);
            cr_expect_eq(queue_next(&t), -EPROTO, "%u pieces", count);
            queue_restart(&t);
        }
    }
    queue_finish(&t);
}

/* B3: never more pieces than the device has room for; a buffer across a border needs two. */
Test(virtq_broken, B3_more_pieces_than_there_is_room_for)
{
    const struct iovec untouched = {(void *)0x5a5a, 0x5a5a};
    for (unsigned capacity = 0; capacity <= 6; capacity++) {
        for (unsigned count = 1; count <= 6; count++) {
            for (unsigned across = 0; across < 2; across++) {
                struct piece pieces[6];
                struct queue t;
                queue_init(&t, 8, true, false);
                for (unsigned i = 0; i < count; i++)
                    pieces[i] = (struct piece){RAM_A, 8, i >= 2};
                if (across)
                    pieces[count - 1].gpa = RAM_B - 1;
                t.chain.capacity = capacity;
                t.iov[capacity] = untouched;
                fake_driver_send(&t.driver, pieces, count);
                cr_expect_eq(queue_next(&t), count + across <= capacity ? 1 : -EPROTO,
                             "%u of %u, %u across", count, capacity, across);
                cr_expect_eq(memcmp(&t.iov[capacity], &untouched, sizeof(untouched)), 0);
                queue_finish(&t);
            }
        }
    }
}
