/* Chains that are valid, however odd: what of them a device sees (S10, S12, S13). */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/queue.h"
#include "tests/unit/support.h"

SUITE(virtq_chains);

#define TABLE (QUEUE_FREE + 0x10000)

/* The next request is there and consists of these pieces, readable ones first. */
static bool gives(struct queue *t, const struct piece *pieces, unsigned count)
{
    unsigned rd = 0;
    while (rd < count && !pieces[rd].write)
        rd++;
    if (queue_next(t) != 1)
        return false;
    return queue_span_is(t, &t->chain.rd, pieces, rd) &&
           queue_span_is(t, &t->chain.wr, pieces + rd, count - rd);
}

/* Cut `length` bytes at `gpa` into pieces before each bit set in `cuts`. */
static unsigned cut(struct piece *pieces, uint64_t gpa, unsigned length, unsigned cuts, bool write)
{
    unsigned count = 0;
    for (unsigned i = 0; i < length; i++) {
        if (i == 0 || cuts >> i & 1)
            pieces[count++] = (struct piece){gpa + i, 0, write};
        pieces[count - 1].len++;
    }
    return count;
}

/* S10. Nine bytes to read and three to write, cut in every possible way, direct and indirect. */
Test(virtq_chains, S10_the_cuts_do_not_matter)
{
    const struct piece whole[] = {{RAM_A + 5, 9, false}, {RAM_A + 0x105, 3, true}};
    struct queue t;
    unsigned wrong = 0;
    queue_init(&t, 16, true, false);
    for (unsigned cuts = 0; cuts < 1u << 12; cuts += 2) {
        struct piece pieces[12];
        unsigned count = cut(pieces, whole[0].gpa, 9, cuts & 0x1ff, false);
        count += cut(pieces + count, whole[1].gpa, 3, cuts >> 9, true);
        for (unsigned direct = 0; direct <= count; direct++) {
            struct vring_used_elem element;
            uint16_t head = direct == count
                                ? fake_driver_add(&t.driver, pieces, count)
                                : fake_driver_add_indirect(&t.driver, pieces, count, direct, TABLE);
            fake_driver_offer(&t.driver, head);
            fake_driver_publish(&t.driver);
            if (!gives(&t, whole, 2)) {
                wrong++;
                queue_restart(&t);
                continue;
            }
            virtq_done(&t.q, &t.chain, 3);
            wrong += !fake_driver_take(&t.driver, &element) || element.id != head;
        }
    }
    cr_assert_eq(wrong, 0);
    queue_finish(&t);
}

/* Direct descriptors d, then one that refers to n others: each mix that the size allows (B16). */
Test(virtq_chains, S13_B16_direct_then_indirect)
{
    struct queue t;
    queue_init(&t, 8, true, false);
    for (unsigned direct = 0; direct < 8; direct++) {
        for (unsigned indirect = 1; direct + indirect <= 8; indirect++) {
            for (unsigned readable = 0; readable <= direct + indirect; readable++) {
                struct piece pieces[8];
                for (unsigned i = 0; i < direct + indirect; i++)
                    pieces[i] = (struct piece){RAM_A + 0x1000 * i, 16 + i, i >= readable};
                uint16_t head =
                    fake_driver_add_indirect(&t.driver, pieces, direct + indirect, direct, TABLE);
                fake_driver_offer(&t.driver, head);
                fake_driver_publish(&t.driver);
                cr_assert(gives(&t, pieces, direct + indirect), "%u direct, %u indirect, %u read",
                          direct, indirect, readable);
                queue_restart(&t);
            }
        }
    }
    queue_finish(&t);
}

/* S12. The write flag of a descriptor that refers to a table means nothing (B16). */
Test(virtq_chains, S12_B16_write_flag_of_the_table_is_ignored)
{
    const struct piece rows[][2] = {
        {{RAM_A, 8, false}, {RAM_A + 8, 8, false}},
        {{RAM_A, 8, false}, {RAM_A + 8, 8, true}},
        {{RAM_A, 8, true}, {RAM_A + 8, 8, true}},
    };
    struct queue t;
    queue_init(&t, 4, true, false);
    for (unsigned direct = 0; direct < 2; direct++) {
        for (size_t i = 0; i < COUNT(rows); i++) {
            uint16_t head = fake_driver_add_indirect(&t.driver, rows[i], 2, direct, TABLE);
            t.driver.table[direct].flags |= VRING_DESC_F_WRITE;
            fake_driver_write_desc(&t.driver, (uint16_t)direct);
            fake_driver_offer(&t.driver, head);
            fake_driver_publish(&t.driver);
            cr_expect(gives(&t, rows[i], 2), "%u direct, row %zu", direct, i);
            queue_restart(&t);
        }
    }
    queue_finish(&t);
}

/* B15. Tables have no alignment. */
Test(virtq_chains, B15_tables_lie_at_any_address)
{
    const struct piece pieces[] = {{RAM_A, 3, false}, {RAM_A + 9, 5, true}};
    struct queue t;
    queue_init(&t, 4, true, false);
    for (unsigned offset = 0; offset < 64; offset++) {
        fake_driver_offer(&t.driver,
                          fake_driver_add_indirect(&t.driver, pieces, 2, 0, TABLE + offset));
        fake_driver_publish(&t.driver);
        cr_expect(gives(&t, pieces, 2), "offset %u", offset);
        queue_restart(&t);
    }
    queue_finish(&t);
}

/* The entries of a table need not be in order, and it may have more than the chain uses. */
Test(virtq_chains, tables_in_any_order)
{
    const struct piece want[] = {{RAM_A, 1, false}, {RAM_A + 1, 2, false}, {RAM_A + 3, 3, true}};
    const struct vring_desc table[4] = {
        {RAM_A, 1, VRING_DESC_F_NEXT, 3},
        {RAM_A + 3, 3, VRING_DESC_F_WRITE, 9},
        {UINT64_MAX, UINT32_MAX, 0xffff, 0xffff},
        {RAM_A + 1, 2, VRING_DESC_F_NEXT, 1},
    };
    struct queue t;
    queue_init(&t, 4, true, false);
    fake_driver_write(&t.driver, TABLE, table, sizeof(table));
    fake_driver_set_desc(&t.driver, 2,
                         (struct vring_desc){TABLE, sizeof(table), VRING_DESC_F_INDIRECT, 77});
    fake_driver_offer(&t.driver, 2);
    fake_driver_publish(&t.driver);
    cr_expect(gives(&t, want, 3));
    queue_finish(&t);
}

/* B6, B8 and where buffers may lie. */
Test(virtq_chains, B6_B8_buffers_at_every_edge)
{
    static const struct {
        const char *name;
        struct piece pieces[4];
        unsigned count, iovs;
    } rows[] = {
        {"one byte", {{RAM_A, 1, false}}, 1, 1},
        {"the last byte of RAM", {{RAM_END - 1, 1, true}}, 1, 1},
        {"up to the end of RAM", {{RAM_END - PAGE, PAGE, true}}, 1, 1},
        {"a whole region", {{RAM_A, 0xffff, false}}, 1, 1},
        {"up to the inner border", {{RAM_B - 8, 8, false}}, 1, 1},
        {"from the inner border on", {{RAM_B, 8, false}}, 1, 1},
        {"across the inner border", {{RAM_B - 3, 8, false}}, 1, 2},
        {"across it, for writing", {{RAM_B - 1, 2, true}}, 1, 2},
        {"both sides across it", {{RAM_B - 3, 8, false}, {RAM_B - 7, 8, true}}, 2, 4},
        {"up to the hole", {{RAM_HOLE - 8, 8, true}}, 1, 1},
        {"from the hole's end on", {{RAM_C, 8, false}}, 1, 1},
        {"no bytes", {{RAM_A, 0, false}}, 1, 0},
        {"no bytes to write", {{RAM_A, 0, true}}, 1, 0},
        {"no bytes nowhere", {{RAM_HOLE, 0, true}}, 1, 0},
        {"no bytes at the last address", {{UINT64_MAX, 0, false}}, 1, 0},
        {"none, some", {{RAM_A, 0, false}, {RAM_A, 4, true}}, 2, 1},
        {"some, none", {{RAM_A, 4, false}, {RAM_A, 0, true}}, 2, 1},
        {"some, none, some", {{RAM_A, 4, false}, {0, 0, false}, {RAM_B, 4, false}}, 3, 2},
        {"none at all", {{0, 0, false}, {1, 0, false}, {2, 0, true}, {3, 0, true}}, 4, 0},
        {"the same bytes twice", {{RAM_A, 8, false}, {RAM_A, 8, false}}, 2, 2},
        {"the same bytes to read and write", {{RAM_A, 8, false}, {RAM_A, 8, true}}, 2, 2},
        {"the ring itself", {{RAM_C, 64, false}, {RAM_C + 0x2000, 8, true}}, 2, 2},
    };
    struct queue t;
    queue_init(&t, 4, true, false);
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (int indirect = 0; indirect < 2; indirect++) {
            uint16_t head = indirect ? fake_driver_add_indirect(&t.driver, rows[i].pieces,
                                                                rows[i].count, 0, TABLE)
                                     : fake_driver_add(&t.driver, rows[i].pieces, rows[i].count);
            fake_driver_offer(&t.driver, head);
            fake_driver_publish(&t.driver);
            cr_expect(gives(&t, rows[i].pieces, rows[i].count), "%s", rows[i].name);
            cr_expect_eq(t.chain.rd.count + t.chain.wr.count, rows[i].iovs, "%s", rows[i].name);
            queue_restart(&t);
        }
    }
    queue_finish(&t);
}

/* Fields that a descriptor does not use, and flags that do not exist, mean nothing. */
Test(virtq_chains, ignores_what_has_no_meaning)
{
    const struct piece want = {RAM_A, 8, true};
    struct queue t;
    queue_init(&t, 4, true, false);
    for (unsigned bit = 3; bit < 16; bit++) {
        fake_driver_set_desc(&t.driver, 0,
                             (struct vring_desc){RAM_A, 8,
                                                 (uint16_t)(VRING_DESC_F_WRITE | 1u << bit),
                                                 (uint16_t)(0xffff >> (bit - 3))});
        fake_driver_offer(&t.driver, 0);
        fake_driver_publish(&t.driver);
        cr_expect(gives(&t, &want, 1), "flag bit %u", bit);
        queue_restart(&t);
    }
    queue_finish(&t);
}

Test(virtq_chains, one_byte_descriptors)
{
    static struct piece pieces[256];
    struct queue t;
    queue_init(&t, 256, true, false);
    for (unsigned i = 0; i < 256; i++)
        pieces[i] = (struct piece){RAM_B - 128 + (i * 37) % 256, 1, i >= 100};
    fake_driver_send(&t.driver, pieces, 256);
    cr_expect(gives(&t, pieces, 256));
    cr_expect_eq(t.chain.rd.count, 100);
    cr_expect_eq(t.chain.wr.count, 156);
    queue_restart(&t);
    fake_driver_offer(&t.driver, fake_driver_add_indirect(&t.driver, pieces, 256, 0, TABLE));
    fake_driver_publish(&t.driver);
    cr_expect(gives(&t, pieces, 256));
    queue_finish(&t);
}

/* The longest chain of each size, direct, indirect and mixed; B11: no bytes are copied. */
Test(virtq_chains, B3_B11_as_long_as_the_queue)
{
    static const uint32_t sizes[] = {1, 2, 4, 256, 32768};
    struct piece *pieces = calloc(32768, sizeof(*pieces));
    struct iovec *iov = calloc(32768, sizeof(*iov));
    for (size_t i = 0; i < COUNT(sizes); i++) {
        uint32_t size = sizes[i];
        const unsigned direct[] = {size, 0, size / 2};
        struct queue t;
        queue_init(&t, size, true, false);
        t.chain.iov = iov;
        t.chain.capacity = size;
        for (uint32_t j = 0; j < size; j++)
            pieces[j] = (struct piece){RAM_A + j % 7, 1 + j % 2, j >= size / 3};
        for (size_t j = 0; j < COUNT(direct); j++) {
            uint16_t head = direct[j] == size ? fake_driver_add(&t.driver, pieces, size)
                                              : fake_driver_add_indirect(&t.driver, pieces, size,
                                                                         direct[j], QUEUE_FREE);
            fake_driver_offer(&t.driver, head);
            fake_driver_publish(&t.driver);
            cr_expect(gives(&t, pieces, size), "size %u, %u direct", size, direct[j]);
            queue_restart(&t);
        }
        queue_finish(&t);
    }
    free(pieces);
    free(iov);
}

/* B10, B11: 4 GiB - 1 in all, of the same 4 MiB over and over, are valid. */
Test(virtq_chains, B10_just_below_4_gib)
{
    static struct piece pieces[1024];
    struct queue t;
    queue_init(&t, 1024, true, false);
    for (unsigned i = 0; i < 1024; i++)
        pieces[i] = (struct piece){RAM_C, (uint32_t)(RAM_END - RAM_C) - (i == 1023), i >= 512};
    fake_driver_send(&t.driver, pieces, 1024);
    cr_expect_eq(queue_next(&t), 1);
    cr_expect_eq(t.chain.rd.length + t.chain.wr.length, UINT32_MAX);
    virtq_done(&t.q, &t.chain, (uint32_t)t.chain.wr.length);
    cr_expect_eq(fake_driver_used_element(&t.driver, 0).len, 0x7fffffffu);
    queue_finish(&t);
}
