/* Features, status and the start of a device (A9-A11, A13, A14; S1-S8, S23-S26, S28, S52). */
#include <linux/virtio_ids.h>
#include <string.h>

#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"

SUITE(virtio_status);

#define BIT(n)      FEATURE(n)
#define RING_BITS   (BIT(VIRTIO_RING_F_INDIRECT_DESC) | BIT(VIRTIO_RING_F_EVENT_IDX))
#define VERSION_1   BIT(VIRTIO_F_VERSION_1)
#define ACK         STATUS_ACKNOWLEDGE
#define DRIVER      STATUS_DRIVER
#define OK          STATUS_FEATURES_OK
#define RUNS        STATUS_DRIVER_OK
#define FAILED      VIRTIO_CONFIG_S_FAILED
#define NEEDS_RESET STATUS_NEEDS_RESET

static struct virtio_rig rig;
static struct virtio_driver *v;

static void begin(void)
{
    struct minivmm_error err;
    const struct virtio_rig_config config = {0};
    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    v = &rig.blk_driver.v;
}

static void end(void)
{
    cr_expect(virtio_rig_works(&rig), "the canary");
    virtio_rig_finish(&rig);
}

static uint32_t status(void)
{
    return virtio_driver_read(v, VIRTIO_MMIO_STATUS);
}

/* Write statuses one after the other; each has to lead to what stands beside it, and 0 to 0. */
Test(virtio_status, A9_the_status_goes_through_its_steps_and_no_others)
{
    static const struct {
        const char *name;
        struct {
            uint32_t write, read;
        } steps[8];
    } rows[] = {
        {"one after the other", {{ACK, ACK}, {DRIVER, DRIVER}, {OK, OK}, {RUNS, RUNS}}},
        {"two at once", {{DRIVER, DRIVER}, {OK, OK}, {RUNS, RUNS}}},
        {"skips ACKNOWLEDGE", {{2, 0}, {8, 0}, {4, 0}}},
        {"skips DRIVER", {{ACK, ACK}, {ACK | 8, ACK}, {ACK | 4, ACK}}},
        {"skips FEATURES_OK", {{ACK, ACK}, {DRIVER, DRIVER}, {DRIVER | 4, DRIVER}}},
        {"FEATURES_OK and DRIVER_OK at once",
         {{ACK, ACK}, {DRIVER, DRIVER}, {RUNS, DRIVER}, {OK, OK}}},
        {"everything at once", {{RUNS, 0}, {0xff, 0}, {ACK, ACK}}},
        {"clears a bit", {{ACK, ACK}, {DRIVER, DRIVER}, {ACK, DRIVER}, {2, DRIVER}}},
        {"clears FEATURES_OK",
         {{DRIVER, DRIVER}, {OK, OK}, {DRIVER, OK}, {RUNS, RUNS}, {OK, RUNS}}},
        {"reserved bits", {{ACK | 16, 0}, {ACK | 32, 0}, {32, 0}, {16, 0}, {ACK, ACK}}},
        {"above 8 bits", {{0x100, 0}, {0x101, 0}, {UINT32_MAX, 0}, {1u << 31, 0}, {ACK, ACK}}},
        {"DEVICE_NEEDS_RESET from the driver",
         {{64, 0}, {ACK, ACK}, {ACK | 64, ACK}, {DRIVER | 64, ACK}, {DRIVER, DRIVER}}},
        {"FAILED at once", {{FAILED, FAILED}, {FAILED | ACK, FAILED}, {ACK, FAILED}, {0, 0}}},
        {"FAILED and then on",
         {{DRIVER, DRIVER},
          {DRIVER | FAILED, DRIVER | FAILED},
          {OK | FAILED, DRIVER | FAILED},
          {OK, DRIVER | FAILED},
          {0, 0},
          {ACK, ACK}}},
        {"FAILED with DRIVER_OK",
         {{DRIVER, DRIVER},
          {OK, OK},
          {RUNS | FAILED, RUNS | FAILED},
          {RUNS, RUNS | FAILED},
          {0, 0}}},
        {"A13 every step twice",
         {{ACK, ACK},
          {ACK, ACK},
          {DRIVER, DRIVER},
          {DRIVER, DRIVER},
          {OK, OK},
          {OK, OK},
          {RUNS, RUNS},
          {RUNS, RUNS}}},
        {"A14 DRIVER_OK without a queue", {{DRIVER, DRIVER}, {OK, OK}, {RUNS, RUNS}, {0, 0}}},
    };
    begin();
    for (size_t i = 0; i < COUNT(rows); i++) {
        virtio_driver_reset(v);
        for (size_t j = 0; j < COUNT(rows[i].steps); j++) {
            /* Features are accepted as soon as they can be. */
            if (status() == DRIVER)
                virtio_driver_accept(v, VERSION_1);
            virtio_driver_write(v, VIRTIO_MMIO_STATUS, rows[i].steps[j].write);
            cr_expect_eq(status(), rows[i].steps[j].read, "A9 %s: step %zu leads to 0x%x",
                         rows[i].name, j, status());
        }
        virtio_driver_notify(v, 0);
        virtio_driver_settle(v);
        virtio_driver_reset(v);
        cr_expect(virtio_rig_works(&rig), "A9 %s: the canary", rows[i].name);
    }
    end();
}

/* All subsets of what is offered: S4; and everything that is not: A10. */
Test(virtio_status, S4_every_subset_of_the_offered_features_is_accepted)
{
    begin();
    uint64_t offered = virtio_driver_offered(v);
    unsigned bits[64], count = 0;
    for (unsigned i = 0; i < 64; i++)
        if (offered & ~VERSION_1 & BIT(i))
            bits[count++] = i;
    cr_assert(count > 4 && count < 16, "%u features", count);
    for (unsigned subset = 0; subset < 1u << count; subset++) {
        uint64_t features = VERSION_1;
        for (unsigned i = 0; i < count; i++)
            features |= subset >> i & 1 ? BIT(bits[i]) : 0;
        cr_assert(virtio_driver_negotiate(v, features), "0x%llx", (unsigned long long)features);
        cr_assert(virtio_driver_negotiate(v, features), "S5 again"); /* S5 */
    }
    end();
}

Test(virtio_status, A10_B26_features_that_are_not_offered_are_refused)
{
    begin();
    uint64_t offered = virtio_driver_offered(v);
    for (unsigned bit = 0; bit < 64; bit++) {
        if (offered & BIT(bit))
            continue;
        virtio_driver_reset(v);
        virtio_driver_write(v, VIRTIO_MMIO_STATUS, DRIVER);
        virtio_driver_accept(v, offered | BIT(bit));
        virtio_driver_write(v, VIRTIO_MMIO_STATUS, OK);
        cr_expect_eq(status(), DRIVER, "bit %u", bit);
        virtio_driver_accept(v, offered); /* better so */
        virtio_driver_write(v, VIRTIO_MMIO_STATUS, OK);
        cr_expect_eq(status(), OK, "bit %u, and then without", bit);
    }
    virtio_driver_reset(v);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, DRIVER);
    virtio_driver_accept(v, offered & ~VERSION_1);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, OK);
    cr_expect_eq(status(), DRIVER, "no VERSION_1");
    end();
}

Test(virtio_status, A10_feature_words_above_the_second_are_zero)
{
    static const uint32_t words[] = {2, 3, 4, 31, 32, 64, 0x8000, 1u << 31, UINT32_MAX};
    begin();
    cr_assert(virtio_driver_negotiate(v, 0) == false, "not without VERSION_1");
    for (size_t i = 0; i < COUNT(words); i++) {
        virtio_driver_write(v, VIRTIO_MMIO_DEVICE_FEATURES_SEL, words[i]);
        cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_DEVICE_FEATURES), 0, "word %u", words[i]);
        virtio_driver_accept(v, VERSION_1);
        virtio_driver_write(v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, words[i]);
        virtio_driver_write(v, VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
    }
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, OK);
    cr_expect_eq(status(), OK, "and take nothing");
    end();
}

Test(virtio_status, A10_features_are_final_with_FEATURES_OK)
{
    struct vring_desc table = {RIG_FREE, 16, VRING_DESC_F_WRITE, 0};
    begin();
    v = &rig.rng_driver;
    cr_assert(virtio_driver_negotiate(v, VERSION_1));
    virtio_driver_accept(v, VERSION_1 | RING_BITS); /* too late */
    cr_assert(virtio_driver_queue(v, 0, 16));
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, RUNS);
    virtio_driver_accept(v, VERSION_1 | RING_BITS);
    fake_driver_write(&v->queues[0], RIG_FREE + 4096, &table, sizeof(table));
    fake_driver_set_desc(&v->queues[0], 0,
                         (struct vring_desc){RIG_FREE + 4096, 16, VRING_DESC_F_INDIRECT, 0});
    fake_driver_offer(&v->queues[0], 0);
    fake_driver_publish(&v->queues[0]);
    virtio_driver_notify(v, 0);
    virtio_driver_settle(v);
    cr_expect_eq(status(), RUNS | NEEDS_RESET, "indirect tables were not negotiated");
    end();
}

Test(virtio_status, A10_features_are_not_taken_before_DRIVER)
{
    begin();
    virtio_driver_reset(v);
    virtio_driver_accept(v, VERSION_1);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, ACK);
    virtio_driver_accept(v, VERSION_1);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, DRIVER);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, OK);
    cr_expect_eq(status(), DRIVER);
    end();
}

/* A11: without EVENT_IDX the device works by flags, whatever it could do. */
Test(virtio_status, A11_what_was_negotiated_is_what_counts)
{
    begin();
    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        struct piece piece = {RIG_FREE, 16, true};
        struct vring_used_elem element;
        v = &rig.rng_driver;
        cr_assert(virtio_driver_start(
            v, event_idx ? VERSION_1 | BIT(VIRTIO_RING_F_EVENT_IDX) : VERSION_1, 16));
        struct fake_driver *queue = &v->queues[0];
        fake_driver_set_avail_flags(queue, VRING_AVAIL_F_NO_INTERRUPT);
        fake_driver_set_used_event(queue, 0);
        fake_driver_send(queue, &piece, 1);
        virtio_driver_notify(v, 0);
        virtio_driver_settle(v);
        cr_expect_eq(virtio_driver_interrupted(v), event_idx, "S14, S15: %u", event_idx);
        cr_expect(fake_driver_take(queue, &element));
        /* And the other way round. */
        fake_driver_set_avail_flags(queue, 0);
        fake_driver_set_used_event(queue, 0x8000);
        fake_driver_send(queue, &piece, 1);
        virtio_driver_notify(v, 0);
        virtio_driver_settle(v);
        cr_expect_eq(virtio_driver_interrupted(v), !event_idx, "S14, S15: %u", event_idx);
        cr_expect(fake_driver_take(queue, &element));
    }
    end();
}

Test(virtio_status, A13_QueueReady_twice_and_with_other_values)
{
    begin();
    cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
    cr_assert(virtio_driver_queue(v, 0, 16));
    static const uint32_t values[] = {1, 2, 1, 0x100, 0x101, UINT32_MAX, 1};
    for (size_t i = 0; i < COUNT(values); i++) {
        virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, values[i]);
        cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_QUEUE_READY), 1, "after %u", values[i]);
    }
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, 0);
    for (size_t i = 0; !rig.config.pci && i < COUNT(values); i++) {
        if (values[i] == 1)
            continue;
        virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, values[i]);
        cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_QUEUE_READY), 0, "after %u", values[i]);
    }
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, 1);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, RUNS);
    for (size_t i = 0; i < COUNT(values); i++)
        virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, values[i]);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_QUEUE_READY), 1);
    uint16_t seen = v->queues[0].used_seen;
    cr_expect(virtio_rig_works(&rig));
    cr_expect_eq(v->queues[0].used_seen, (uint16_t)(seen + 1), "no new start");
    end();
}

Test(virtio_status, A14_QueueReady_with_nothing_set_up)
{
    begin();
    cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_SEL, 0);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, 1);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_QUEUE_READY), 0);
    end();
}

Test(virtio_status, A14_queues_can_be_set_up_between_FEATURES_OK_and_DRIVER_OK_only)
{
    begin();
    struct virtq_config config = fake_driver_layout(v->rings, 16, true, true);
    static const uint32_t steps[] = {ACK, DRIVER};
    virtio_driver_reset(v);
    cr_expect_eq(virtio_driver_set_queue(v, 0, &config), 0, "after reset");
    for (size_t i = 0; i < COUNT(steps); i++) {
        virtio_driver_write(v, VIRTIO_MMIO_STATUS, steps[i]);
        cr_expect_eq(virtio_driver_set_queue(v, 0, &config), 0, "status %u", steps[i]);
    }
    virtio_driver_accept(v, VERSION_1);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, OK);
    cr_expect_eq(virtio_driver_set_queue(v, 0, &config), 1);
    if (rig.config.pci) { /* 4.1.4.3.2: nothing but a reset takes a queue out of service */
        end();
        cr_skip("PCI");
    }
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, 0);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_QUEUE_READY), 0);
    config.size = 8; /* and set up again */
    cr_expect_eq(virtio_driver_set_queue(v, 0, &config), 1);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, 0);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, RUNS);
    cr_expect_eq(virtio_driver_set_queue(v, 0, &config), 0, "with DRIVER_OK");
    virtio_driver_reset(v);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, DRIVER);
    virtio_driver_accept(v, VERSION_1);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, OK);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, OK | FAILED);
    cr_expect_eq(virtio_driver_set_queue(v, 0, &config), 0, "with FAILED");
    end();
}

/* ---- conformance --------------------------------------------------------------------------- */

/* Offer a request, with all steps but `missing`, kick, and see that nothing has come of it. */
Test(virtio_status, S1_A4_nothing_is_used_before_DRIVER_OK)
{
    struct piece piece = {RIG_FREE, 16, true};
    struct vring_used_elem element;
    begin();
    v = &rig.rng_driver;
    cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
    cr_assert(virtio_driver_queue(v, 0, 16));
    fake_driver_send(&v->queues[0], &piece, 1);
    virtio_driver_notify(v, 0);
    virtio_driver_settle(v);
    cr_expect_eq(fake_driver_used_idx(&v->queues[0]), 0);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    cr_expect_not(virtio_driver_interrupted(v));
    /* An early kick is not needed again. */
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, RUNS);
    cr_expect(virtio_driver_wait(v, 0, &element) && element.len == 16);
    end();
}

Test(virtio_status, S3_features_come_with_what_they_need)
{
    static const struct {
        unsigned slot;
        unsigned bit, needs;
    } rows[] = {{RIG_SLOT_BLK, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH}};
    begin();
    uint64_t offered = virtio_driver_offered(v);
    for (size_t i = 0; i < COUNT(rows); i++)
        cr_expect(!(offered & BIT(rows[i].bit)) || offered & BIT(rows[i].needs));
    end();
}

Test(virtio_status, S6_S20_S21_S52_offered_are_VERSION_1_and_bits_that_are_served)
{
    begin();
    const uint64_t blk_bits = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
                              BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_FLUSH) |
                              BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_DISCARD) |
                              BIT(VIRTIO_BLK_F_WRITE_ZEROES);
    cr_expect_eq(virtio_driver_offered(&rig.rng_driver), VERSION_1 | RING_BITS);
    cr_expect_eq(virtio_driver_offered(v) & ~blk_bits, VERSION_1 | RING_BITS);
    end();
}

Test(virtio_status, S8_configuration_can_be_read_at_every_step)
{
    struct virtio_blk_config first;
    static const uint32_t steps[] = {ACK, DRIVER, OK, RUNS};
    begin();
    for (unsigned at = 0; at < sizeof(first); at++)
        ((uint8_t *)&first)[at] = (uint8_t)virtio_driver_config(v, at, 1);
    cr_expect_eq(first.capacity, 2048);
    for (size_t i = 0; i < COUNT(steps); i++) {
        virtio_driver_write(v, VIRTIO_MMIO_STATUS, steps[i]);
        if (steps[i] == DRIVER)
            virtio_driver_accept(v, virtio_driver_offered(v));
        cr_expect_eq(status(), steps[i]);
        for (unsigned at = 0; at < sizeof(first); at++)
            cr_expect_eq(virtio_driver_config(v, at, 1), ((uint8_t *)&first)[at], "byte %u", at);
    }
    end();
}

/* S2, S23: each bit of the interrupt status lasts until it is acknowledged, by itself. */
Test(virtio_status, S23_A15_interrupt_status_lasts_until_it_is_acknowledged)
{
    const unsigned reg = VIRTIO_MMIO_INTERRUPT_STATUS;
    struct piece piece = {RIG_FREE, 16, true};
    begin();
    v = &rig.rng_driver;
    cr_assert(virtio_driver_start(v, VERSION_1, 16));
    cr_expect_eq(virtio_driver_read(v, reg), 0);
    fake_driver_send(&v->queues[0], &piece, 1);
    virtio_driver_notify(v, 0);
    virtio_driver_settle(v);
    cr_expect_eq(virtio_driver_read(v, reg), VIRTIO_MMIO_INT_VRING);
    cr_expect_eq(virtio_driver_read(v, reg), VIRTIO_MMIO_INT_VRING, "reading changes nothing");
    static const uint32_t wrong[] = {0, VIRTIO_MMIO_INT_CONFIG, 4, ~VIRTIO_MMIO_INT_VRING};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        virtio_driver_write(v, VIRTIO_MMIO_INTERRUPT_ACK, wrong[i]);
        cr_expect_eq(virtio_driver_read(v, reg), VIRTIO_MMIO_INT_VRING, "0x%x", wrong[i]);
    }
    /* Never acknowledged: the next one interrupts all the same. */
    cr_expect_eq(support_take(v->call), 1);
    fake_driver_send(&v->queues[0], &piece, 1);
    virtio_driver_notify(v, 0);
    virtio_driver_settle(v);
    cr_expect_eq(support_take(v->call), 1);
    virtio_config_begin(&rig.rng.dev);
    virtio_config_end(&rig.rng.dev);
    cr_expect_eq(virtio_driver_read(v, reg), VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
    virtio_driver_write(v, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
    cr_expect_eq(virtio_driver_read(v, reg), VIRTIO_MMIO_INT_CONFIG);
    virtio_driver_write(v, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
    cr_expect_eq(virtio_driver_read(v, reg), 0);
    virtio_driver_reset(v);
    end();
}

Test(virtio_status, S7_S24_S26_reset_leaves_nothing)
{
    struct piece piece = {RIG_FREE, 16, true};
    begin();
    v = &rig.rng_driver;
    cr_assert(virtio_driver_start(v, VERSION_1, 16));
    struct fake_driver old = v->queues[0];
    fake_driver_send(&v->queues[0], &piece, 1);
    virtio_driver_notify(v, 0);
    virtio_driver_settle(v);
    cr_expect_neq(virtio_driver_read(v, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, 0);
    cr_expect_eq(status(), 0);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_SEL, 0);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_QUEUE_READY), 0);
    cr_expect_gt(virtio_driver_read(v, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);

    /* Requests, kicks and changes of configuration after it: nothing is touched, nobody is told. */
    support_take(v->call);
    uint16_t used = fake_driver_used_idx(&old);
    fake_driver_send(&v->queues[0], &piece, 1);
    for (int i = 0; i < 3; i++)
        virtio_driver_notify(v, 0);
    virtio_config_begin(&rig.rng.dev);
    virtio_config_end(&rig.rng.dev);
    virtio_driver_settle(v);
    cr_expect_eq(fake_driver_used_idx(&old), used);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    cr_expect_eq(support_take(v->call), 0);
    end();
}

Test(virtio_status, S26_A4_a_queue_that_is_not_ready_is_not_looked_at)
{
    struct piece piece = {RIG_FREE, 16, true};
    begin();
    if (rig.config.pci) {
        end();
        cr_skip("PCI: 4.1.4.3.2");
    }
    v = &rig.rng_driver;
    cr_assert(virtio_driver_start(v, VERSION_1, 16));
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_SEL, 0);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, 0);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_QUEUE_READY), 0);
    fake_driver_send(&v->queues[0], &piece, 1);
    virtio_driver_notify(v, 0);
    virtio_driver_settle(v);
    cr_expect_eq(fake_driver_used_idx(&v->queues[0]), 0);
    cr_expect_eq(status(), RUNS);
    cr_expect_not(virtio_driver_interrupted(v));
    virtio_driver_reset(v);
    end();
}

Test(virtio_status, A4_notifications_that_mean_nothing)
{
    static const uint32_t values[] = {1,   2,      63,      64,       255,
                                      256, 0xffff, 0x10000, 1u << 31, UINT32_MAX};
    begin();
    cr_assert(virtio_rig_start(&rig, UINT64_MAX, 16));
    for (unsigned device = 0; device < 2; device++) {
        v = device ? &rig.blk_driver.v : &rig.rng_driver;
        for (size_t i = 0; i < COUNT(values); i++) {
            for (unsigned n = 0; n < 200; n++)
                virtio_driver_notify(v, values[i]);
            virtio_driver_settle(v);
            cr_expect_eq(status(), RUNS, "%u", values[i]);
            cr_expect_not(virtio_driver_interrupted(v));
        }
    }
    end();
}

Test(virtio_status, A4_a_failed_driver_is_not_served)
{
    struct piece piece = {RIG_FREE, 16, true};
    begin();
    v = &rig.rng_driver;
    for (unsigned late = 0; late < 2; late++) {
        cr_assert(virtio_driver_negotiate(v, VERSION_1));
        cr_assert(virtio_driver_queue(v, 0, 16));
        if (late)
            virtio_driver_write(v, VIRTIO_MMIO_STATUS, RUNS);
        virtio_driver_write(v, VIRTIO_MMIO_STATUS, RUNS | FAILED);
        cr_expect_eq(status(), RUNS | FAILED);
        fake_driver_send(&v->queues[0], &piece, 1);
        virtio_driver_notify(v, 0);
        virtio_driver_settle(v);
        cr_expect_eq(fake_driver_used_idx(&v->queues[0]), 0, "late %u", late);
        cr_expect_not(virtio_driver_interrupted(v));
    }
    end();
}

static unsigned taken_over;
static const struct virtio_dev *taken;

static void note_driver_ok(void *arg, const struct virtio_dev *dev)
{
    cr_expect_eq(arg, &taken_over);
    taken_over++;
    taken = dev;
}

/* Whoever listens hears of each driver that gets there, once. */
Test(virtio_status, a_driver_that_takes_over_is_told)
{
    begin();
    v = &rig.rng_driver;
    rig.rng.dev.driver_ok = note_driver_ok;
    rig.rng.dev.driver_ok_arg = &taken_over;
    taken_over = 0;
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, RUNS);
    cr_expect_eq(taken_over, 0, "not by skipping steps");
    cr_assert(virtio_driver_negotiate(v, VERSION_1));
    cr_expect_eq(taken_over, 0, "not yet");
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, RUNS);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, RUNS);
    cr_expect_eq(taken_over, 1, "%u", taken_over);
    cr_expect_eq(taken, &rig.rng.dev);
    cr_assert(virtio_driver_negotiate(v, VERSION_1));
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, RUNS);
    cr_expect_eq(taken_over, 2, "after a reset once more");
    end();
}
