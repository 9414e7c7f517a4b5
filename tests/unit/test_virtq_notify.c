/* Who is told what: interrupts (2.7.7) and kicks (2.7.10), with and without EVENT_IDX. */
#include <errno.h>
#include <stdlib.h>

#include "tests/unit/queue.h"
#include "tests/unit/support.h"

SUITE(virtq_notify);

static const struct piece piece = {RAM_A, 8, true};

/* Start at `old` and give `count` requests back; the available ring holds every head once. */
static void complete(struct queue *t, uint16_t old, uint32_t count)
{
    struct virtq_config config = t->driver.config;
    fake_driver_set_avail_idx(&t->driver, (uint16_t)(old + count));
    cr_assert_eq(virtq_start(&t->q, &t->mem, &config, config.size, old), 0);
    for (uint32_t i = 0; i < count; i++)
        queue_serve(t);
}

static void offer_every_head(struct queue *t)
{
    for (uint32_t i = 0; i < t->driver.config.size; i++)
        fake_driver_offer(&t->driver, fake_driver_add(&t->driver, &piece, 1));
}

/* S15, B19: was the entry with index `event` among those written? Counted out. */
static bool model_wants(uint16_t old, uint32_t count, uint16_t event)
{
    for (uint32_t i = 0; i < count; i++)
        if ((uint16_t)(old + i) == event)
            return true;
    return false;
}

static const uint16_t olds[] = {0,     1,     2,     127,   255,   256,   32767, 32768,
                                32769, 65279, 65280, 65281, 65407, 65533, 65534, 65535};

Test(virtq_notify, S15_B19_interrupts_with_event_idx)
{
    struct queue t;
    unsigned wrong = 0, cases = 0;
    queue_init(&t, 256, false, true);
    offer_every_head(&t);
    for (size_t i = 0; i < COUNT(olds); i++) {
        for (uint32_t count = 0; count <= 256; count += count < 8 || count >= 248 ? 1 : 16) {
            const uint16_t old = olds[i], new = (uint16_t)(old + count);
            const uint16_t events[] = {0,
                                       0x7fff,
                                       0x8000,
                                       0xffff,
                                       old,
                                       (uint16_t)(old - 1),
                                       (uint16_t)(old - 2),
                                       (uint16_t)(old + 1),
                                       (uint16_t)(old + count / 2),
                                       (uint16_t)(old + 0x8000),
                                       new,
                                       (uint16_t)(new - 1),
                                       (uint16_t)(new - 2),
                                       (uint16_t)(new + 1),
                                       (uint16_t)(new + 0x7fff)};
            for (size_t j = 0; j < COUNT(events); j++, cases++) {
                complete(&t, old, count);
                fake_driver_set_used_event(&t.driver, events[j]);
                fake_driver_set_avail_flags(&t.driver, j % 2); /* means nothing here */
                wrong += virtq_wants_irq(&t.q) != model_wants(old, count, events[j]);
                wrong += virtq_wants_irq(&t.q); /* nothing new */
            }
        }
    }
    cr_expect_eq(wrong, 0, "of %u", cases);
    queue_finish(&t);
}

/* All distances there can be between an event and one batch: 65536 events, a few batches. */
Test(virtq_notify, S15_every_event)
{
    static const uint32_t counts[] = {1, 2, 31, 32};
    struct queue t;
    unsigned wrong = 0;
    queue_init(&t, 32, false, true);
    offer_every_head(&t);
    for (size_t i = 0; i < COUNT(counts); i++) {
        for (uint32_t event = 0; event < 65536; event++) {
            uint16_t old = (uint16_t)(65520 + 5 * i);
            complete(&t, old, counts[i]);
            fake_driver_set_used_event(&t.driver, (uint16_t)event);
            wrong += virtq_wants_irq(&t.q) != model_wants(old, counts[i], (uint16_t)event);
        }
    }
    cr_expect_eq(wrong, 0);
    queue_finish(&t);
}

Test(virtq_notify, S15_batches_of_the_largest_queue)
{
    static const uint32_t counts[] = {1, 32766, 32767, 32768};
    static const uint16_t starts[] = {0, 1, 32768, 65535};
    struct queue t;
    queue_init(&t, 32768, false, true);
    offer_every_head(&t);
    for (size_t i = 0; i < COUNT(counts) * COUNT(starts); i++) {
        uint16_t old = starts[i % COUNT(starts)];
        uint32_t count = counts[i / COUNT(starts)];
        for (int j = -2; j <= 2; j++) {
            uint16_t event = (uint16_t)((i & 1 ? old : old + count) + (uint32_t)j);
            complete(&t, old, count);
            fake_driver_set_used_event(&t.driver, event);
            cr_expect_eq(virtq_wants_irq(&t.q), model_wants(old, count, event), "%u + %u, event %u",
                         old, count, event);
        }
    }
    queue_finish(&t);
}

/* Several batches: an interrupt for the one with the entry, none for the others. */
Test(virtq_notify, S15_one_batch_of_several)
{
    struct queue t;
    queue_init(&t, 8, false, true);
    offer_every_head(&t);
    for (uint16_t event = 0; event < 8; event++) {
        struct virtq_config config = t.driver.config;
        fake_driver_set_avail_idx(&t.driver, (uint16_t)(65534 + 8));
        cr_assert_eq(virtq_start(&t.q, &t.mem, &config, 8, 65534), 0);
        fake_driver_set_used_event(&t.driver, (uint16_t)(65534 + event));
        for (unsigned batch = 0; batch < 4; batch++) {
            queue_serve(&t);
            queue_serve(&t);
            cr_expect_eq(virtq_wants_irq(&t.q), event / 2 == batch, "%u in %u", event, batch);
        }
    }
    queue_finish(&t);
}

/* S14: flags decide, used_event means nothing. */
Test(virtq_notify, S14_interrupts_without_event_idx)
{
    struct queue t;
    queue_init(&t, 256, false, false);
    offer_every_head(&t);
    for (size_t i = 0; i < COUNT(olds); i++) {
        for (uint32_t count = 0; count <= 256; count += 32) {
            for (unsigned flags = 0; flags < 4; flags++) {
                for (int event = -1; event <= 1; event++) {
                    complete(&t, olds[i], count);
                    fake_driver_set_avail_flags(&t.driver, (uint16_t)flags);
                    fake_driver_set_used_event(&t.driver, (uint16_t)(olds[i] + event));
                    cr_expect_eq(virtq_wants_irq(&t.q), count > 0 && !(flags & 1),
                                 "%u + %u, flags %u", olds[i], count, flags);
                    cr_expect_not(virtq_wants_irq(&t.q));
                }
            }
        }
    }
    queue_finish(&t);
}

/* A driver that turns interrupts off and on again meanwhile. */
Test(virtq_notify, B19_interrupts_toggled)
{
    struct queue t;
    queue_init(&t, 8, false, false);
    offer_every_head(&t);
    fake_driver_publish(&t.driver);
    for (unsigned i = 0; i < 8; i++) {
        fake_driver_set_avail_flags(&t.driver, i % 2);
        queue_serve(&t);
        cr_expect_eq(virtq_wants_irq(&t.q), i % 2 == 0);
    }
    queue_finish(&t);
}

/* S17, without EVENT_IDX: no kicks are wanted from the first request on until virtq_idle. */
Test(virtq_notify, S17_kicks_without_event_idx)
{
    struct queue t;
    queue_init(&t, 8, false, false);
    for (int i = 0; i < 20; i++) {
        struct vring_used_elem element;
        fake_driver_send(&t.driver, &piece, 1);
        cr_expect(fake_driver_kick_due(&t.driver), "idle, so that a kick is due");
        cr_expect_not(fake_driver_kick_due(&t.driver), "once");
        queue_serve(&t);
        cr_expect_eq(fake_driver_used_flags(&t.driver), VRING_USED_F_NO_NOTIFY);
        fake_driver_send(&t.driver, &piece, 1);
        cr_expect_not(fake_driver_kick_due(&t.driver), "busy");
        cr_expect(virtq_idle(&t.q), "it may have come too late for a kick");
        cr_expect_eq(fake_driver_used_flags(&t.driver), 0);
        queue_serve(&t);
        cr_expect_eq(fake_driver_used_flags(&t.driver), VRING_USED_F_NO_NOTIFY);
        cr_expect_eq(queue_next(&t), 0);
        cr_expect_not(virtq_idle(&t.q));
        cr_expect_eq(fake_driver_used_flags(&t.driver), 0);
        cr_expect_eq(fake_driver_avail_event(&t.driver), 0, "not negotiated");
        while (fake_driver_take(&t.driver, &element))
            ;
    }
    queue_finish(&t);
}

/* S17, with EVENT_IDX: the flags stay 0, and a kick is due for the entry that virtq_idle named. */
Test(virtq_notify, S17_kicks_with_event_idx)
{
    struct queue t;
    queue_init_at(&t, 8, false, true, 0);
    for (unsigned i = 0; i < 40000; i++) {
        struct vring_used_elem element;
        fake_driver_send(&t.driver, &piece, 1);
        bool kick = fake_driver_kick_due(&t.driver);
        queue_serve(&t);
        fake_driver_send(&t.driver, &piece, 1);
        bool busy = fake_driver_kick_due(&t.driver);
        bool more = virtq_idle(&t.q);
        uint16_t event = fake_driver_avail_event(&t.driver);
        queue_serve(&t);
        bool rest = virtq_idle(&t.q);
        if (!kick || busy || !more || rest || event != (uint16_t)(2 * i + 1) ||
            fake_driver_avail_event(&t.driver) != (uint16_t)(2 * i + 2) ||
            fake_driver_used_flags(&t.driver) != 0)
            cr_assert_fail("round %u", i);
        while (fake_driver_take(&t.driver, &element))
            ;
    }
    queue_finish(&t);
}

/* S18, B20: kicks for nothing. */
Test(virtq_notify, S18_B20_spurious_kicks)
{
    for (int event_idx = 0; event_idx < 2; event_idx++) {
        struct queue t;
        struct vring_used_elem element;
        queue_init(&t, 4, false, event_idx);
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < 1000; i++) {
                cr_assert_eq(queue_next(&t), 0);
                cr_assert_not(virtq_wants_irq(&t.q));
                cr_assert_not(virtq_idle(&t.q));
            }
            fake_driver_send(&t.driver, &piece, 1);
            cr_expect(fake_driver_kick_due(&t.driver));
            queue_serve(&t);
            cr_expect(fake_driver_take(&t.driver, &element));
            fake_driver_sleep(&t.driver);
            virtq_wants_irq(&t.q);
        }
        queue_finish(&t);
    }
}
