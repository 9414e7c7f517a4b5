/* The entropy device (G1 to G5, S47, B23). */
#include <string.h>

#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"

SUITE(rng);

#define BUF RIG_FREE

static struct virtio_rig rig;
static struct virtio_driver *v;

static void begin(bool threaded)
{
    struct minivmm_error err;
    const struct virtio_rig_config config = {.no_disk = true, .threaded = threaded};
    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    v = &rig.rng_driver;
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
}

static void end(void)
{
    cr_expect(virtio_rig_works(&rig), "the canary");
    virtio_rig_finish(&rig);
}

/* How many of the bytes have changed from 0; about one in 256 random ones has not. */
static unsigned changed(uint64_t gpa, uint32_t length)
{
    unsigned count = 0;
    for (uint32_t i = 0; i < length; i++) {
        uint8_t byte;
        fake_driver_read(&v->queues[0], gpa + i, &byte, 1);
        count += byte != 0;
    }
    return count;
}

Test(rng, S47_G1_lengths)
{
    static const uint32_t lengths[] = {1,     2,     255,   256,     257,    4095,
                                       65535, 65536, 65537, 1 << 17, 1 << 20};
    begin(false);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        struct piece piece = {RAM_A, lengths[i], true};
        struct vring_used_elem element;
        uint32_t given = lengths[i] < RNG_BYTES_MAX ? lengths[i] : RNG_BYTES_MAX;
        memset(virtio_rig_at(&rig, RAM_A, 1 << 20), 0, 1 << 20);
        cr_assert(virtio_driver_transact(v, 0, &piece, 1, &element));
        cr_expect_eq(element.len, given, "%u bytes", lengths[i]);
        cr_expect_geq(changed(RAM_A, given), given * 9 / 10, "%u bytes", lengths[i]);
        cr_expect_eq(changed(RAM_A + given, (1 << 20) - given), 0, "no more than it says");
    }
    end();
}

Test(rng, G1_pieces_share_the_limit)
{
    struct piece pieces[64];
    struct vring_used_elem element;
    begin(false);
    for (unsigned i = 0; i < COUNT(pieces); i++)
        pieces[i] = (struct piece){RAM_A + 2000 * i, 1999, true};
    cr_assert(virtio_driver_transact(v, 0, pieces, COUNT(pieces), &element));
    cr_expect_eq(element.len, RNG_BYTES_MAX);
    for (unsigned i = 0, left = RNG_BYTES_MAX; i < COUNT(pieces); i++) {
        uint32_t part = left < 1999 ? left : 1999;
        cr_expect_geq(changed(pieces[i].gpa, part), part * 9 / 10, "piece %u", i);
        cr_expect_eq(changed(pieces[i].gpa + part, 2000 - part), 0, "piece %u", i);
        left -= part;
    }
    /* The same MiB sixty-four times: 64 MiB asked for, no more given. */
    for (unsigned i = 0; i < COUNT(pieces); i++)
        pieces[i] = (struct piece){RAM_A, 1 << 20, true};
    cr_assert(virtio_driver_transact(v, 0, pieces, COUNT(pieces), &element));
    cr_expect_eq(element.len, RNG_BYTES_MAX);
    end();
}

Test(rng, G2_nothing_to_write_to)
{
    static const struct {
        const char *name;
        struct piece pieces[2];
        unsigned count;
    } rows[] = {
        {"no bytes", {{BUF, 0, true}}, 1},
        {"no bytes twice", {{BUF, 0, true}, {BUF, 0, true}}, 2},
        {"read-only", {{BUF, 4096, false}}, 1},
        {"read-only of no bytes", {{BUF, 0, false}}, 1},
        {"read-only, then no bytes", {{BUF, 64, false}, {BUF, 0, true}}, 2},
    };
    begin(false);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct vring_used_elem element;
        memset(virtio_rig_at(&rig, BUF, 4096), 0, 4096);
        cr_assert(virtio_driver_transact(v, 0, rows[i].pieces, rows[i].count, &element));
        cr_expect_eq(element.len, 0, "%s", rows[i].name);
        cr_expect_eq(changed(BUF, 4096), 0, "%s", rows[i].name);
    }
    end();
}

Test(rng, G3_read_only_parts_are_left_alone)
{
    struct piece pieces[2] = {{BUF, 64, false}, {BUF + 4096, 64, true}};
    struct vring_used_elem element;
    begin(false);
    cr_assert(virtio_driver_transact(v, 0, pieces, 2, &element));
    cr_expect_eq(element.len, 64);
    cr_expect_eq(changed(BUF, 64), 0);
    cr_expect_geq(changed(BUF + 4096, 64), 32);
    end();
}

Test(rng, S10_one_byte_descriptors_and_a_border)
{
    struct piece pieces[64];
    struct vring_used_elem element;
    begin(false);
    for (unsigned i = 0; i < COUNT(pieces); i++)
        pieces[i] = (struct piece){RAM_B - 32 + i, 1, true};
    cr_assert(virtio_driver_transact(v, 0, pieces, COUNT(pieces), &element));
    cr_expect_eq(element.len, 64);
    cr_expect_geq(changed(RAM_B - 32, 64), 48);
    pieces[0] = (struct piece){RAM_B - 500, 1000, true};
    memset(virtio_rig_at(&rig, RAM_B, 4096), 0, 4096);
    cr_assert(virtio_driver_transact(v, 0, pieces, 1, &element));
    cr_expect_eq(element.len, 1000);
    cr_expect(changed(RAM_B, 500) > 400 && changed(RAM_B + 500, 100) == 0);
    end();
}

/* G4, A12: a thousand starts, most with requests that the device may or may not have seen. */
Test(rng, G4_A12_a_thousand_starts)
{
    for (unsigned threaded = 0; threaded < 2; threaded++) {
        begin(threaded);
        for (unsigned i = 0; i < 1000; i++) {
            struct piece piece = {BUF, 4096, true};
            struct vring_used_elem element;
            cr_assert(virtio_driver_start(v, UINT64_MAX, 1u << i % 7));
            if (i % 3 == 0)
                cr_assert(virtio_driver_transact(v, 0, &piece, 1, &element), "%u", i);
            fake_driver_send(&v->queues[0], &piece, 1);
            if (i % 2)
                virtio_driver_notify(v, 0);
            virtio_driver_write(v, VIRTIO_MMIO_STATUS, 0);
            cr_assert_eq(virtio_driver_read(v, VIRTIO_MMIO_STATUS), 0);
            /* Nothing is written after it. */
            uint8_t *at = virtio_rig_at(&rig, BUF, 4096);
            memset(at, 0, 4096);
            if (i % 100 == 0)
                virtio_driver_settle(v);
            cr_assert_eq(changed(BUF, 64), 0, "%u", i);
        }
        end();
    }
}

Test(rng, G5_a_break_in_the_middle_leaves_what_was_done)
{
    struct piece piece = {BUF, 8, true};
    begin(false);
    for (unsigned i = 0; i < 3; i++)
        fake_driver_offer(&v->queues[0], fake_driver_add(&v->queues[0], &piece, 1));
    fake_driver_set_desc(&v->queues[0], 2, (struct vring_desc){RAM_END, 8, VRING_DESC_F_WRITE, 0});
    fake_driver_publish(&v->queues[0]);
    virtio_driver_notify(v, 0);
    virtio_driver_settle(v);
    cr_expect(virtio_driver_read(v, VIRTIO_MMIO_STATUS) & STATUS_NEEDS_RESET);
    cr_expect_eq(fake_driver_used_idx(&v->queues[0]), 2);
    for (unsigned i = 0; i < 2; i++)
        cr_expect_eq(fake_driver_used_element(&v->queues[0], i).len, 8);
    end();
}

/* More than is served at a time, and more while it is served: none is forgotten. */
Test(rng, B20_a_full_ring_is_served_to_its_end)
{
    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        begin(true);
        cr_assert(
            virtio_driver_start(v, event_idx ? UINT64_MAX : ~FEATURE(VIRTIO_RING_F_EVENT_IDX), 64));
        for (unsigned round = 0; round < 100; round++) {
            struct piece piece = {BUF, 1 + round * 3, true};
            for (unsigned i = 0; i < 64; i++)
                fake_driver_send(&v->queues[0], &piece, 1);
            virtio_driver_kick(v, 0); /* one for all */
            for (unsigned i = 0; i < 64; i++) {
                struct vring_used_elem element;
                cr_assert(virtio_driver_wait(v, 0, &element), "round %u, lost after %u", round, i);
                cr_expect_eq(element.len, piece.len);
            }
        }
        end();
    }
}
