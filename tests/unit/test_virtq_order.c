/* The two indices: what is available, what was taken, what was given back, in any order. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/queue.h"
#include "tests/unit/support.h"

SUITE(virtq_order);

static const struct piece piece = {RAM_A, 8, true};

/* B4. `jump` entries beyond the one the device expects next. */
Test(virtq_order, B4_available_index)
{
    static const uint16_t firsts[] = {0, 3, 32768, 65530, 65533, 65535};
    static const struct {
        uint16_t jump;
        bool valid;
    } rows[] = {
        {0, true},      {1, true},      {3, true},      {4, true},      {5, false},
        {6, false},     {8, false},     {256, false},   {32767, false}, {32768, false},
        {65531, false}, {65532, false}, {65533, false}, {65534, false}, {65535, false},
    };
    for (size_t i = 0; i < COUNT(firsts); i++) {
        for (size_t j = 0; j < COUNT(rows); j++) {
            struct queue t;
            queue_init_at(&t, 4, false, false, firsts[i]);
            for (uint16_t k = 0; k < 4; k++)
                fake_driver_offer(&t.driver, fake_driver_add(&t.driver, &piece, 1));
            fake_driver_set_avail_idx(&t.driver, (uint16_t)(firsts[i] + rows[j].jump));
            int want = rows[j].valid ? rows[j].jump > 0 : -EPROTO;
            cr_expect_eq(virtq_idle(&t.q), rows[j].jump > 0);
            cr_expect_eq(queue_next(&t), want, "from %u by %u", firsts[i], rows[j].jump);
            for (int k = 1; want == 1 && k < rows[j].jump; k++)
                cr_expect_eq(queue_next(&t), 1, "from %u by %u", firsts[i], rows[j].jump);
            cr_expect_eq(queue_next(&t), want < 0 ? -EPROTO : 0);
            queue_finish(&t);
        }
    }
}

Test(virtq_order, B4_available_index_goes_back)
{
    static const int backs[] = {1, 2, 3};
    for (size_t i = 0; i < COUNT(backs); i++) {
        struct queue t;
        queue_init(&t, 4, false, false);
        for (int k = 0; k < 3; k++)
            fake_driver_send(&t.driver, &piece, 1);
        for (int k = 0; k < 3; k++)
            queue_serve(&t);
        fake_driver_set_avail_idx(&t.driver, (uint16_t)(3 - backs[i]));
        cr_expect_eq(queue_next(&t), -EPROTO, "back by %d", backs[i]);
        fake_driver_set_avail_idx(&t.driver, 4);
        cr_expect_eq(queue_next(&t), -EPROTO, "and forth");
        queue_finish(&t);
    }
}

Test(virtq_order, B2_heads_beyond_the_table)
{
    static const uint32_t sizes[] = {4, 64, 128};
    for (size_t i = 0; i < 9 * COUNT(sizes); i++) {
        const uint32_t size = sizes[i / 9];
        const uint32_t heads[9] = {size,   size + 1, size + 7, 2 * size, 255 + size,
                                   0x4000, 0x7fff,   0x8000,   0xffff};
        struct queue t;
        queue_init(&t, size, false, false);
        fake_driver_send(&t.driver, &piece, 1);
        fake_driver_offer(&t.driver, (uint16_t)heads[i % 9]);
        fake_driver_publish(&t.driver);
        queue_serve(&t);
        cr_expect_eq(queue_next(&t), -EPROTO, "head %u of %u", heads[i % 9], size);
        queue_restart(&t);
        for (uint32_t j = 0; j < size; j++)
            fake_driver_offer(&t.driver, (uint16_t)heads[i % 9]);
        fake_driver_publish(&t.driver);
        cr_expect_eq(queue_next(&t), -EPROTO, "all of them %u of %u", heads[i % 9], size);
        queue_finish(&t);
    }
}

/* B5. A head is in flight once; when it was given back it may come again. */
Test(virtq_order, B5_the_same_head_twice)
{
    static const uint32_t sizes[] = {2, 4, 64, 128, 32768};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        uint16_t last = (uint16_t)(sizes[i] - 1);
        for (int between = 0; between < 2; between++) {
            struct queue t;
            queue_init(&t, sizes[i], false, false);
            fake_driver_set_desc(&t.driver, last, (struct vring_desc){RAM_A, 8, 0, 0});
            fake_driver_set_desc(&t.driver, 0, (struct vring_desc){RAM_A, 8, 0, 0});
            fake_driver_offer(&t.driver, last);
            if (between && sizes[i] > 2)
                fake_driver_offer(&t.driver, 0);
            fake_driver_offer(&t.driver, last);
            fake_driver_publish(&t.driver);
            for (int j = 0; j < 1 + (between && sizes[i] > 2); j++)
                cr_expect_eq(queue_next(&t), 1);
            cr_expect_eq(queue_next(&t), -EPROTO, "size %u", sizes[i]);
            queue_finish(&t);
        }
    }
}

Test(virtq_order, B5_heads_given_back_may_come_again)
{
    struct queue t;
    queue_init(&t, 4, false, false);
    for (unsigned head = 0; head < 4; head++)
        fake_driver_set_desc(&t.driver, (uint16_t)head, (struct vring_desc){RAM_A, 8, 0, 0});
    for (int i = 0; i < 1000; i++) {
        unsigned head = (unsigned)i * 7 % 4;
        fake_driver_offer(&t.driver, (uint16_t)head);
        fake_driver_publish(&t.driver);
        queue_serve(&t);
        cr_assert_eq(fake_driver_used_element(&t.driver, (unsigned)i % 4).id, head);
    }
    queue_finish(&t);
}

/* Two chains may share descriptors behind their heads, and a head may be inside another chain. */
Test(virtq_order, chains_may_share_descriptors)
{
    const struct piece first[] = {{RAM_A, 8, false}, {RAM_B, 4, true}};
    struct queue t;
    queue_init(&t, 4, false, false);
    fake_driver_add(&t.driver, first, 2);
    fake_driver_set_desc(&t.driver, 2, (struct vring_desc){RAM_A, 8, VRING_DESC_F_NEXT, 1});
    for (uint16_t head = 0; head < 3; head++)
        fake_driver_offer(&t.driver, head);
    fake_driver_publish(&t.driver);
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(queue_next(&t), 1);
        cr_expect(queue_span_is(&t, &t.chain.wr, &first[1], 1));
    }
    queue_finish(&t);
}

Test(virtq_order, undo_gives_the_same_again)
{
    struct queue t;
    queue_init_at(&t, 4, true, false, 65534);
    for (int i = 0; i < 16; i++) {
        const struct piece pieces[] = {{RAM_A + (unsigned)i, 8, false}, {RAM_B - 1, 2, true}};
        uint16_t head = fake_driver_send(&t.driver, pieces, 2), used = t.driver.used_seen;
        struct vring_used_elem element;
        for (int j = 0; j < 3; j++) {
            cr_assert_eq(queue_next(&t), 1);
            cr_expect_eq(t.chain.head, head);
            cr_expect(queue_span_is(&t, &t.chain.rd, &pieces[0], 1));
            cr_expect(queue_span_is(&t, &t.chain.wr, &pieces[1], 1));
            cr_expect_eq(queue_next(&t), 0);
            virtq_undo(&t.q, &t.chain);
            cr_expect_eq(fake_driver_used_idx(&t.driver), used);
            cr_expect(virtq_idle(&t.q), "it is there still");
        }
        queue_serve(&t);
        cr_assert(fake_driver_take(&t.driver, &element));
        cr_expect_eq(element.id, head);
    }
    queue_finish(&t);
}

/* Several taken, the last ones put back in reverse. */
Test(virtq_order, undo_of_several)
{
    struct queue t;
    struct virtq_chain chains[4];
    struct iovec iov[4][2];
    queue_init(&t, 4, false, false);
    for (int i = 0; i < 4; i++)
        fake_driver_send(&t.driver, &piece, 1);
    for (int i = 0; i < 4; i++) {
        chains[i] = (struct virtq_chain){.iov = iov[i], .capacity = 2};
        cr_assert_eq(virtq_next(&t.q, &chains[i]), 1);
    }
    virtq_done(&t.q, &chains[0], 0);
    for (int i = 3; i >= 1; i--)
        virtq_undo(&t.q, &chains[i]);
    for (unsigned i = 1; i < 4; i++) {
        cr_assert_eq(queue_next(&t), 1);
        cr_expect_eq(t.chain.head, chains[i].head);
        virtq_done(&t.q, &t.chain, 0);
    }
    for (unsigned i = 0; i < 4; i++)
        cr_expect_eq(fake_driver_used_element(&t.driver, i).id, i);
    cr_expect_eq(queue_next(&t), 0);
    queue_finish(&t);
}

/* What is given back appears in that order, each with its own length (B23). */
Test(virtq_order, B23_given_back_in_any_order)
{
    struct queue t;
    struct virtq_chain chains[4];
    struct iovec iov[4][4];
    queue_init_at(&t, 4, false, false, 65533);
    for (unsigned order = 0; order < 256; order++) {
        unsigned at[4] = {order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6 & 3};
        if ((1u << at[0] | 1u << at[1] | 1u << at[2] | 1u << at[3]) != 15)
            continue;
        uint16_t heads[4];
        for (unsigned i = 0; i < 4; i++) {
            const struct piece sized = {RAM_B - 2, 4 + i, true};
            heads[i] = fake_driver_send(&t.driver, &sized, 1);
            chains[i] = (struct virtq_chain){.iov = iov[i], .capacity = 4};
            cr_assert_eq(virtq_next(&t.q, &chains[i]), 1);
            cr_assert_eq(chains[i].head, heads[i]);
        }
        for (unsigned i = 0; i < 4; i++) {
            struct vring_used_elem element;
            cr_expect_not(fake_driver_take(&t.driver, &element));
            virtq_done(&t.q, &chains[at[i]], at[i]);
            cr_expect(fake_driver_take(&t.driver, &element));
            cr_expect_eq(element.id, heads[at[i]]);
            cr_expect_eq(element.len, at[i]);
        }
    }
    cr_expect_eq(t.q.taken_count, 0);
    queue_finish(&t);
}

/* B21. A driver that never looks at the used ring: it holds no more than its entries. */
Test(virtq_order, B21_used_ring_never_read)
{
    struct queue t;
    queue_init(&t, 4, false, false);
    for (uint16_t head = 0; head < 4; head++)
        fake_driver_set_desc(&t.driver, head, (struct vring_desc){RAM_A, 8, 0, 0});
    for (int i = 0; i < 5000; i++) {
        for (uint16_t head = 0; head < 4; head++)
            fake_driver_offer(&t.driver, head);
        fake_driver_publish(&t.driver);
        for (int j = 0; j < 4; j++)
            queue_serve(&t);
        cr_assert_eq(queue_next(&t), 0);
    }
    queue_finish(&t);
}

/* No more is taken than the ring holds: then there is nothing that could come. */
Test(virtq_order, all_taken_at_once)
{
    static const uint32_t sizes[] = {1, 2, 4, 256, 32768};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct queue t;
        unsigned wrong = 0;
        queue_init(&t, sizes[i], false, false);
        for (uint32_t j = 0; j < sizes[i]; j++)
            fake_driver_send(&t.driver, &piece, 1);
        for (uint32_t j = 0; j < sizes[i]; j++)
            wrong += queue_next(&t) != 1 || t.chain.head != j;
        cr_expect_eq(wrong, 0, "size %u", sizes[i]);
        cr_expect_eq(t.q.taken_count, sizes[i]);
        cr_expect_eq(queue_next(&t), 0);
        /* one more can only be a head that is in flight */
        fake_driver_offer(&t.driver, 0);
        fake_driver_publish(&t.driver);
        cr_expect_eq(queue_next(&t), -EPROTO);
        queue_finish(&t);
    }
}

/* More than 65536 requests, so that both indices wrap, with a varying number in flight. */
Test(virtq_order, indices_wrap)
{
    static const uint32_t sizes[] = {1, 2, 4, 256, 32768};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct queue t;
        struct vring_used_elem element;
        unsigned wrong = 0;
        queue_init(&t, sizes[i], false, i % 2);
        for (unsigned n = 0; n < 70001;) {
            unsigned batch = 1 + n % (sizes[i] < 300 ? sizes[i] : 300);
            for (unsigned j = 0; j < batch; j++) {
                const struct piece numbered = {RAM_A + n + j, 1 + (n + j) % 5, true};
                fake_driver_send(&t.driver, &numbered, 1);
            }
            for (unsigned j = 0; j < batch; j++) {
                const struct piece numbered = {RAM_A + n + j, 1 + (n + j) % 5, true};
                wrong += queue_next(&t) != 1 || !queue_span_is(&t, &t.chain.wr, &numbered, 1);
                virtq_done(&t.q, &t.chain, (n + j) % 5);
            }
            for (unsigned j = 0; j < batch; j++)
                wrong += !fake_driver_take(&t.driver, &element) || element.len != (n + j) % 5;
            n += batch;
        }
        wrong += queue_next(&t) != 0;
        cr_expect_eq(wrong, 0, "size %u", sizes[i]);
        queue_finish(&t);
    }
}
