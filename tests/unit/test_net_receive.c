/* Packets in: the header, buffers of every size, merging, too few buffers, floods (S31-S33). */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/net_rig.h"
#include "tests/unit/support.h"

SUITE(net_receive);

static struct net_rig rig;
static struct net_driver *d = &rig.driver;
static uint8_t frame[NET_PACKET_MAX];

#define MERGE FEATURE(VIRTIO_NET_F_MRG_RXBUF)

static void begin(enum net_rig_kind kind, bool threaded, uint64_t without, uint32_t size)
{
    net_rig_init(&rig, &(struct net_rig_config){.kind = kind, .threaded = threaded});
    cr_assert(net_driver_start(d, ~without, size));
}

static void end(void)
{
    cr_expect(net_rig_works(&rig), "the canary");
    net_rig_finish(&rig);
}

static void give(size_t length, uint32_t number)
{
    net_rig_frame(frame, length, net_rig_broadcast, number);
    cr_assert(net_rig_far_send(&rig, frame, length));
}

static void expect(size_t length, uint32_t number, const char *name)
{
    int got = net_driver_receive(d, 0, frame);
    cr_expect(net_rig_is_frame(frame, got, length, number), "%s: frame %u: %d bytes, %s", name,
              number, got, d->fault ? d->fault : "");
}

static bool nothing_used(void)
{
    virtio_driver_settle(&d->v);
    return fake_driver_used_idx(&d->v.queues[0]) == d->v.queues[0].used_seen;
}

/* ---- shapes of buffers --------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint64_t without;
    uint32_t ring;
    unsigned count;
    uint32_t length, piece;
    size_t frame;
    int buffers; /* that it takes; 0: it is dropped */
} shapes[] = {
    {"an ordinary one", 0, 0, 1, 2048, 0, 60, 1},
    {"full to the last byte", 0, 0, 1, 72, 0, 60, 1},
    {"a byte over", 0, 0, 2, 71, 0, 60, 2},
    {"the header ends a buffer", 0, 0, 3, 12, 0, 24, 3},
    {"the header over two", 0, 0, 20, 11, 0, 60, 7},
    {"num_buffers over two", 0, 0, 20, 11, 0, 14, 3},
    {"one byte each", 0, 0, 100, 1, 0, 60, 72},
    {"a descriptor a byte", 0, 0, 1, 200, 1, 60, 1},
    {"large, of small buffers", 0, 0, 60, 1526, 0, 65500, 43},
    {"large, in one", 0, 0, 1, 65600, 0, 65500, 1},
    {"large, in one of many descriptors", 0, 0, 1, 65600, 300, 65500, 1},
    {"no merging", MERGE, 0, 3, 2048, 0, 60, 1},
    {"no merging, to the last byte", MERGE, 0, 3, 72, 0, 60, 1},
    {"no merging, many descriptors", MERGE, 0, 1, 200, 1, 60, 1},
    {"no merging, the largest", MERGE, 0, 2, 65600, 0, 65500, 1},
    {"no merging, a byte too small", MERGE, 0, 3, 71, 0, 60, 0},
    {"no merging, no room for the header", MERGE, 0, 3, 11, 0, 60, 0},
    {"no merging, one byte", MERGE, 0, 3, 1, 0, 60, 0},
    {"all that a ring can hold, and too little", 0, 4, 4, 16, 0, 60, 0},
    {"the same of two descriptors each", 0, 4, 2, 16, 8, 60, 0},
    {"the same of one buffer", 0, 4, 1, 40, 10, 60, 0},
};

static void check_shape(size_t i, enum net_rig_kind kind, bool threaded)
{
    begin(kind, threaded, shapes[i].without, shapes[i].ring);
    d->piece = shapes[i].piece;
    net_driver_add(d, 0, shapes[i].count, shapes[i].length);
    give(shapes[i].frame, 1);
    if (shapes[i].buffers > 0) {
        expect(shapes[i].frame, 1, shapes[i].name);
        cr_expect_eq(d->header.num_buffers, shapes[i].buffers, "%s: %u", shapes[i].name,
                     d->header.num_buffers);
        struct virtio_net_hdr_v1 none = {.num_buffers = d->header.num_buffers};
        cr_expect(!d->spilled, "%s: bytes behind the packet", shapes[i].name);
        cr_expect_arr_eq(&d->header, &none, sizeof(none), "%s: D12, S33", shapes[i].name);
    } else {
        cr_expect(nothing_used(), "%s: D5", shapes[i].name);
        if (threaded) /* its loop may not have come to it */
            usleep(2000);
        cr_expect_eq(net_drops(rig.net).received, 1, "%s", shapes[i].name);
    }
    cr_expect(nothing_used(), "%s: buffers of nobody's were used", shapes[i].name);
    cr_assert(net_driver_start(d, UINT64_MAX, 0));
    end();
}

Test(net_receive, S31_S32_every_shape_of_buffers)
{
    for (size_t i = 0; i < COUNT(shapes); i++)
        for (unsigned kind = NET_RIG_SCRIPT; kind <= NET_RIG_STREAM; kind++)
            check_shape(i, kind, i % 2);
}

Test(net_receive, D5_a_buffer_too_small_is_kept_for_a_smaller_packet)
{
    begin(NET_RIG_SCRIPT, false, MERGE, 0);
    net_driver_add(d, 0, 1, 80);
    give(100, 1);
    give(60, 2);
    expect(60, 2, "the second");
    cr_expect_eq(net_drops(rig.net).received, 1);
    cr_assert(net_driver_start(d, UINT64_MAX, 4));
    net_driver_add(d, 0, 4, 16); /* 52 bytes of a frame in the whole ring */
    give(60, 1);
    give(40, 2);
    expect(40, 2, "the whole ring");
    cr_expect_eq(d->header.num_buffers, 4);
    cr_assert(net_driver_start(d, UINT64_MAX, 4));
    d->piece = 8;
    net_driver_add(d, 0, 2, 16); /* the whole ring again, by two descriptors each */
    give(60, 1);
    give(20, 2);
    expect(20, 2, "the whole ring in pieces");
    d->piece = 0;
    end();
}

Test(net_receive, D5_what_has_no_writable_byte_goes_back_empty)
{
    begin(NET_RIG_SCRIPT, false, 0, 0);
    const struct piece readable = {NET_FREE, 100, false}, empty = {NET_FREE, 0, true};
    const struct piece mixed[] = {{NET_FREE, 100, false}, {NET_FREE + 4096, 100, true}};
    struct vring_used_elem element;

    uint16_t head = fake_driver_send(&d->v.queues[0], &readable, 1);
    uint16_t second = fake_driver_send(&d->v.queues[0], &empty, 1);
    virtio_driver_kick(&d->v, 0);
    give(60, 1);
    cr_assert(virtio_driver_wait(&d->v, 0, &element));
    cr_expect(element.id == head && element.len == 0);
    cr_assert(virtio_driver_wait(&d->v, 0, &element));
    cr_expect(element.id == second && element.len == 0);
    memset(net_rig_at(&rig, NET_FREE, 100), 0x5a, 100);
    head = fake_driver_send(&d->v.queues[0], mixed, 2);
    virtio_driver_kick(&d->v, 0);
    cr_assert(virtio_driver_wait(&d->v, 0, &element));
    cr_expect(element.id == head && element.len == 72, "%u", element.len);
    const uint8_t *packet = net_rig_at(&rig, NET_FREE + 4096, 72);
    cr_expect(net_rig_is_frame(packet + 12, 60, 60, 1));
    for (unsigned i = 0; i < 100; i++)
        cr_expect_eq(((uint8_t *)net_rig_at(&rig, NET_FREE, 100))[i], 0x5a, "S11");
    end();
}

/* A ring of 4 has room for one more: an indirect table takes up one of its descriptors. */
Test(net_receive, D6_a_packet_waits_while_the_ring_has_room)
{
    begin(NET_RIG_SCRIPT, false, 0, 4);
    struct fake_driver *queue = &d->v.queues[0];
    for (unsigned i = 0; i < 3; i++) {
        const struct piece halves[] = {{NET_FREE + 16 * i, 8, true},
                                       {NET_FREE + 16 * i + 8, 8, true}};
        uint16_t head = fake_driver_add_indirect(queue, halves, 2, 0, NET_FREE + 4096 * (i + 1));
        d->buffers[0][head] = (struct net_driver_buffer){NET_FREE + 16 * i, 16};
        fake_driver_offer(queue, head);
    }
    fake_driver_publish(queue);
    virtio_driver_kick(&d->v, 0);
    virtio_driver_settle(&d->v);
    give(60, 1);
    cr_expect(nothing_used());
    cr_expect_eq(net_drops(rig.net).received, 0);
    net_driver_add(d, 0, 1, 24);
    expect(60, 1, "waited");
    cr_expect_eq(d->header.num_buffers, 4);
    end();
}

/* The buffers of one packet, offered one after the other while it waits. */
Test(net_receive, D6_a_packet_waits_for_the_buffers_it_lacks)
{
    static const uint32_t sizes[] = {1, 7, 11, 12, 13, 100, 499};
    for (unsigned threaded = 0; threaded < 2; threaded++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            unsigned need = (512 + sizes[i] - 1) / sizes[i];
            if (need > 250)
                need = 250;
            begin(i % 2 ? NET_RIG_SCRIPT : NET_RIG_STREAM, threaded, 0, 0);
            size_t length = need == 250 ? 250 - 12 : 500;
            net_driver_add(d, 0, 1, sizes[i]);
            virtio_driver_settle(&d->v);
            give(length, 1);
            give(60, 2);
            for (unsigned k = 1; k < need; k++) {
                cr_expect(nothing_used(), "%u: published too early, after %u", sizes[i], k);
                net_driver_add(d, 0, 1, sizes[i]);
            }
            expect(length, 1, "waited");
            cr_expect_eq(d->header.num_buffers, need);
            cr_expect(nothing_used());
            net_driver_add(d, 0, 1, 200);
            expect(60, 2, "the next");
            cr_expect_eq(net_drops(rig.net).received, 0);
            end();
        }
    }
}

/* 4 GiB of aliased descriptors in one buffer: sums of lengths do not wrap. */
Test(net_receive, D6_buffers_of_4_GiB)
{
    struct piece huge[64];
    begin(NET_RIG_SCRIPT, false, 0, 0);
    for (unsigned i = 0; i < COUNT(huge); i++)
        huge[i] = (struct piece){NET_RAM_C, (uint32_t)NET_RAM_SIZE - (i == 0), true};
    huge[0].gpa = NET_FREE;
    huge[0].len = 4096;
    huge[1] = (struct piece){NET_FREE + 4096,
                             (uint32_t)(NET_RAM_C + NET_RAM_SIZE - NET_FREE - 4096), true};
    static const uint32_t firsts[] = {1, 12, 100, 1529};
    for (size_t i = 0; i < COUNT(firsts); i++) {
        cr_assert(net_driver_start(d, UINT64_MAX, 0));
        const struct piece small = {NET_RAM_A, firsts[i], true};
        struct vring_used_elem element;
        uint64_t total = 0;
        for (unsigned k = 0; k < COUNT(huge); k++)
            total += huge[k].len;
        /* With the first one 2^32 + a little in all. */
        struct piece pieces[COUNT(huge) + 2];
        memcpy(pieces, huge, sizeof(huge));
        unsigned n = COUNT(huge);
        uint64_t left = UINT32_MAX - total;
        cr_assert_leq(total, UINT32_MAX);
        while (left > 0 && n < COUNT(pieces)) {
            uint32_t part = left < NET_RAM_SIZE ? (uint32_t)left : (uint32_t)NET_RAM_SIZE;
            pieces[n++] = (struct piece){NET_RAM_C, part, true};
            left -= part;
        }
        fake_driver_send(&d->v.queues[0], &small, 1);
        fake_driver_send(&d->v.queues[0], pieces, n);
        virtio_driver_kick(&d->v, 0);
        virtio_driver_settle(&d->v);
        give(2000, 1);
        cr_assert(virtio_driver_wait(&d->v, 0, &element));
        cr_expect_eq(element.len, firsts[i]);
        cr_assert(virtio_driver_wait(&d->v, 0, &element));
        cr_expect_eq(element.len, 2012 - firsts[i]);
        cr_expect(nothing_used());
    }
    cr_assert(net_driver_start(d, UINT64_MAX, 0));
    end();
}

/* ---- how many ------------------------------------------------------------------------------ */

Test(net_receive, bursts_of_any_length_arrive_whole)
{
    static const unsigned bursts[] = {1, 255, 256, 257, 511, 512, 513, 1000};
    for (unsigned threaded = 0; threaded < 2; threaded++) {
        begin(NET_RIG_SCRIPT, threaded, 0, 0);
        unsigned number = 0, seen = 0;
        net_driver_add(d, 0, 256, 128);
        for (size_t i = 0; i < COUNT(bursts); i++) {
            for (unsigned k = 0; k < bursts[i]; k++)
                give(60, number++);
            for (; seen < number; seen++) {
                int got = net_driver_receive(d, 0, frame);
                cr_assert(net_rig_is_frame(frame, got, 60, seen), "%u of %u: %d", seen, number,
                          got);
                net_driver_add(d, 0, 1, 128);
            }
        }
        cr_assert(net_driver_start(d, UINT64_MAX, 0));
        end();
    }
}

Test(net_receive, what_is_dropped_stops_nothing)
{
    static const uint8_t off = 0;
    static const uint8_t other[6] = {2, 9, 9, 9, 9, 9};
    static const struct {
        const char *name;
        int error;
        size_t length;
    } rows[] = {{"for somebody else", 0, 60},
                {"lost", -EIO, 0},
                {"lost: ENOBUFS", -ENOBUFS, 0},
                {"shorter than a header", 0, 11},
                {"empty", 0, 0}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t packet[100] = {0};
        begin(NET_RIG_SCRIPT, i % 2, 0, 0);
        cr_assert_eq(net_driver_control(d, VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, &off, 1),
                     VIRTIO_NET_OK);
        net_driver_add(d, 0, 2, 128);
        net_rig_frame(packet + 12, 60, other, 1);
        for (unsigned k = 0; k < 700; k++)
            net_script_give(rig.script, 0, packet, rows[i].length ? 72 : 0, rows[i].error);
        give(60, 2);
        expect(60, 2, rows[i].name);
        struct net_drops drops = net_drops(rig.net);
        cr_expect_eq(drops.received + drops.filtered, 700, "%s", rows[i].name);
        end();
    }
}

/* D7: with nowhere to put packets, nothing is done at all; with buffers it goes on. */
Test(net_receive, D7_a_flood_without_buffers_costs_nothing)
{
    begin(NET_RIG_SCRIPT, true, 0, 0);
    virtio_driver_settle(&d->v);
    for (unsigned i = 0; i < 2000; i++)
        give(60, i);
    virtio_driver_settle(&d->v);
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    unsigned receives = rig.script->receives;
    usleep(300000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    int64_t us = (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
    cr_expect_lt(us, 6000, "2 %% of it: %lld us", (long long)us);
    cr_expect_eq(rig.script->receives, receives);
    for (unsigned seen = 0; seen < 2000; seen++) {
        net_driver_add(d, 0, 1, 128);
        int got = net_driver_receive(d, 0, frame);
        cr_assert(net_rig_is_frame(frame, got, 60, seen), "%u: %d", seen, got);
    }
    end();
}

/* Nothing is copied that fits: the backend is given the driver's own memory. */
Test(net_receive, packets_are_read_into_the_drivers_memory)
{
    begin(NET_RIG_SCRIPT, false, 0, 0);
    net_driver_add(d, 0, 1, 2048);
    give(60, 1);
    uint64_t gpa = d->buffers[0][0].gpa;
    expect(60, 1, "one");
    net_driver_add(d, 0, 1, 2048);
    virtio_driver_settle(&d->v);
    cr_expect(rig.script->first_in == net_rig_at(&rig, d->buffers[0][0].gpa, 1) ||
                  rig.script->first_in == net_rig_at(&rig, gpa, 1),
              "%p", rig.script->first_in);
    end();
}
