/* Packets out: shapes, malformed ones, back-pressure, errors of the backend (D1-D4). */
#include <errno.h>
#include <linux/if_ether.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/net_rig.h"
#include "tests/unit/support.h"

SUITE(net_send);

static struct net_rig rig;
static struct net_driver *d = &rig.driver;
static uint8_t frame[NET_PACKET_MAX];

static void begin(struct net_rig_config config)
{
    net_rig_init(&rig, &config);
    cr_assert(net_driver_start(d, UINT64_MAX, 0));
}

static void end(void)
{
    cr_expect(net_rig_works(&rig), "the canary");
    net_rig_finish(&rig);
}

Test(net_send, every_length_and_every_cut_arrives)
{
    static const size_t lengths[] = {14, 15, 59, 60, 61, 1514, 1518, 9000, 65535, 65553};
    static const uint32_t pieces[] = {0, 1, 11, 12, 13, 4096};
    for (unsigned kind = NET_RIG_SCRIPT; kind <= NET_RIG_STREAM; kind++) {
        begin((struct net_rig_config){.kind = kind, .threaded = kind == NET_RIG_STREAM});
        for (size_t i = 0; i < COUNT(lengths); i++) {
            for (size_t k = 0; k < COUNT(pieces); k++) {
                if (pieces[k] && (lengths[i] + 12) / pieces[k] > 250)
                    continue;
                d->piece = pieces[k];
                uint32_t number = (uint32_t)(100 * i + k);
                net_rig_frame(frame, lengths[i], net_rig_broadcast, number);
                cr_expect(net_driver_send(d, 0, frame, (uint32_t)lengths[i]));
                cr_expect(net_rig_is_frame(frame, net_rig_far_receive(&rig, frame, true),
                                           lengths[i], number),
                          "%zu in %u", lengths[i], pieces[k]);
            }
        }
        cr_expect_eq(net_drops(rig.net).sent, 0);
        end();
    }
}

/* D1, D2: `count` pieces; the packet goes back, is counted, and nothing arrives. */
static const struct {
    const char *name;
    struct piece pieces[64];
    unsigned count;
    unsigned repeat; /* the last piece, so often */
} malformed[] = {
    {"D1: no bytes", {{NET_FREE, 0, false}}, 1, 0},
    {"D1: 1 byte", {{NET_FREE, 1, false}}, 1, 0},
    {"D1: 11 bytes", {{NET_FREE, 11, false}}, 1, 0},
    {"D1: 11 bytes in 11", {{NET_FREE, 1, false}}, 1, 11},
    {"D1: the header alone", {{NET_FREE, 12, false}}, 1, 0},
    {"D1: nothing to read", {{NET_FREE, 100, true}}, 1, 0},
    {"D1: 11 to read, the rest to write", {{NET_FREE, 11, false}, {NET_FREE, 100, true}}, 2, 0},
    {"D2: a byte too long", {{NET_MEMORY, NET_PACKET_MAX + 1, false}}, 1, 0},
    {"D2: 64 segments, aliased", {{NET_MEMORY, 65536, false}}, 1, 64},
    {"D2: 4 GiB in 63", {{NET_RAM_C, (uint32_t)NET_RAM_SIZE, false}}, 1, 63},
};

Test(net_send, D1_D2_malformed_packets_go_back)
{
    for (unsigned kind = NET_RIG_SCRIPT; kind <= NET_RIG_STREAM; kind++) {
        for (size_t i = 0; i < COUNT(malformed); i++) {
            struct piece pieces[64];
            struct vring_used_elem element;
            unsigned count = malformed[i].count;
            begin((struct net_rig_config){.kind = kind, .threaded = i % 2});
            memcpy(pieces, malformed[i].pieces, sizeof(pieces));
            for (; count < malformed[i].repeat; count++)
                pieces[count] = pieces[0];
            cr_expect(virtio_driver_transact(&d->v, 1, pieces, count, &element), "%s",
                      malformed[i].name);
            cr_expect_eq(element.len, 0, "%s", malformed[i].name);
            int got = net_rig_far_receive(&rig, frame, false);
            bool header = strstr(malformed[i].name, "alone") && kind == NET_RIG_SCRIPT;
            cr_expect_eq(got, header ? 0 : -1, "%s: %d", malformed[i].name, got);
            cr_expect_eq(net_drops(rig.net).sent, header ? 0 : 1, "%s", malformed[i].name);
            cr_expect_eq(virtio_driver_read(&d->v, VIRTIO_MMIO_STATUS), STATUS_DRIVER_OK);
            end();
        }
    }
}

Test(net_send, D4_errors_of_the_backend_lose_one_packet_each)
{
    static const int errors[] = {-EINVAL, -EIO, -ENOBUFS, -ENOMEM, -EMSGSIZE, -EPERM};
    for (size_t i = 0; i < COUNT(errors); i++) {
        begin((struct net_rig_config){.threaded = i % 2});
        rig.script->send_error = errors[i];
        rig.script->send_error_times = 3;
        for (uint32_t k = 0; k < 5; k++) {
            net_rig_frame(frame, 60, net_rig_broadcast, k);
            cr_expect(net_driver_send(d, 0, frame, 60));
        }
        for (uint32_t k = 3; k < 5; k++)
            cr_expect(net_rig_is_frame(frame, net_rig_far_receive(&rig, frame, true), 60, k));
        cr_expect_eq(net_drops(rig.net).sent, 3);
        end();
    }
}

/* Without room packets wait in the ring; with room again they go on, each once and in order. */
Test(net_send, D4_back_pressure_loses_nothing)
{
    enum { PACKETS = 200 };
    for (unsigned threaded = 0; threaded < 2; threaded++) {
        begin((struct net_rig_config){.threaded = threaded});
        unsigned given_back = 0;
        net_script_room(rig.script, 3);
        for (uint32_t i = 0; i < PACKETS; i++) {
            net_rig_frame(frame, 60, net_rig_broadcast, i);
            net_driver_offer(d, 0, NULL, frame, 60);
            if (i % 7 == 0)
                virtio_driver_kick(&d->v, 1);
        }
        virtio_driver_kick(&d->v, 1);
        virtio_driver_settle(&d->v);
        given_back += net_driver_sent(d, 0);
        cr_expect_eq(given_back, 3);
        virtio_driver_notify(&d->v, 1); /* makes no room */
        virtio_driver_settle(&d->v);
        cr_expect_eq(net_driver_sent(d, 0), 0);
        for (unsigned i = 0; i < PACKETS; i++) {
            if (i >= 3 && i % 5 == 3)
                net_script_room(rig.script, i < 150 ? 5 : -1);
            int got = net_rig_far_receive(&rig, frame, true);
            cr_assert(net_rig_is_frame(frame, got, 60, i), "%u: %d", i, got);
        }
        virtio_driver_settle(&d->v);
        given_back += net_driver_sent(d, 0);
        cr_expect_eq(given_back, PACKETS);
        cr_expect_eq(net_drops(rig.net).sent, 0);
        end();
    }
}

Test(net_send, waiting_for_room_costs_nothing)
{
    begin((struct net_rig_config){.threaded = true});
    net_script_room(rig.script, 0);
    net_rig_frame(frame, 60, net_rig_broadcast, 1);
    net_driver_offer(d, 0, NULL, frame, 60);
    virtio_driver_kick(&d->v, 1);
    virtio_driver_settle(&d->v);
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    usleep(300000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    int64_t us = (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
    cr_expect_lt(us, 6000, "2 %% of it: %lld us", (long long)us);
    /* Meanwhile the other direction works. */
    net_driver_add(d, 0, 1, 200);
    net_rig_frame(frame, 60, net_rig_broadcast, 2);
    cr_assert(net_rig_far_send(&rig, frame, 60));
    cr_expect(net_rig_is_frame(frame, net_driver_receive(d, 0, frame), 60, 2));
    net_script_room(rig.script, -1);
    cr_expect(net_rig_is_frame(frame, net_rig_far_receive(&rig, frame, true), 60, 1));
    end();
}

Test(net_send, packets_are_sent_from_the_drivers_memory)
{
    begin((struct net_rig_config){0});
    net_rig_frame(frame, 1000, net_rig_broadcast, 1);
    cr_assert(net_driver_send(d, 0, frame, 1000));
    const uint8_t *ram = net_rig_at(&rig, NET_MEMORY, NET_DRIVER_OUT);
    const uint8_t *seen = rig.script->first_out;
    cr_expect(seen >= ram && seen < ram + NET_DRIVER_OUT);
    end();
}

/* D14: what waits when the device is reset is forgotten; nothing of it is sent afterwards. */
Test(net_send, D14_a_reset_with_packets_that_wait_for_room)
{
    for (unsigned threaded = 0; threaded < 2; threaded++) {
        begin((struct net_rig_config){.threaded = threaded});
        net_script_room(rig.script, 0);
        for (uint32_t i = 0; i < 20; i++) {
            net_rig_frame(frame, 60, net_rig_broadcast, i);
            net_driver_offer(d, 0, NULL, frame, 60);
        }
        virtio_driver_kick(&d->v, 1);
        virtio_driver_settle(&d->v);
        virtio_driver_reset(&d->v);
        net_script_room(rig.script, -1);
        virtio_driver_settle(&d->v);
        cr_expect_eq(net_rig_far_receive(&rig, frame, false), -1);
        cr_assert(net_driver_start(d, UINT64_MAX, 0));
        virtio_driver_settle(&d->v);
        cr_expect_eq(net_rig_far_receive(&rig, frame, false), -1);
        end();
    }
}

/* A driver may leave one direction of a pair alone; the other one works, with back-pressure. */
Test(net_send, a_pair_without_its_receive_queue_sends)
{
    net_rig_init(&rig, &(struct net_rig_config){0});
    struct virtq_config config = fake_driver_layout(NET_RAM_C, 64, true, true);
    cr_assert(virtio_driver_negotiate(&d->v, UINT64_MAX));
    fake_driver_init(&d->v.queues[1], &rig.mem, &config, 0);
    cr_assert_eq(virtio_driver_set_queue(&d->v, 1, &config), 1);
    virtio_driver_write(&d->v, VIRTIO_MMIO_STATUS, STATUS_DRIVER_OK);
    net_script_room(rig.script, 1);
    for (uint32_t i = 0; i < 4; i++) {
        net_rig_frame(frame, 60, net_rig_broadcast, i);
        net_driver_offer(d, 0, NULL, frame, 60);
    }
    virtio_driver_notify(&d->v, 1);
    virtio_driver_settle(&d->v);
    net_script_room(rig.script, -1);
    for (uint32_t i = 0; i < 4; i++)
        cr_expect(net_rig_is_frame(frame, net_rig_far_receive(&rig, frame, true), 60, i), "%u", i);
    virtio_driver_settle(&d->v);
    fake_driver_finish(&d->v.queues[1]);
    virtio_driver_reset(&d->v);
    end();
}

/*
 * Large packets are the loop's from the second on, which leaves the guest free to add more; small
 * ones are sent on the spot, and are again soon after the large ones end.
 */
Test(net_send, bulk_is_left_to_the_loop)
{
    begin((struct net_rig_config){0}); /* no thread: what the loop is left, it does when asked */
    memset(frame, 0, sizeof(frame));
    unsigned on_the_spot = 0;
    for (unsigned i = 0; i < 40; i++) {
        uint32_t length = i < 10 ? 60 : i < 20 ? 60000 : 60;
        net_rig_frame(frame, length, net_rig_broadcast, i);
        net_driver_offer(d, 0, NULL, frame, length);
        virtio_driver_kick(&d->v, 1);
        bool sent = net_driver_sent(d, 0) == 1;
        if (i < 11 || i > 32) /* the mean takes a few small ones to come down */
            cr_expect(sent, "%u", i);
        else if (i > 12 && i < 21)
            cr_expect(!sent, "%u", i);
        on_the_spot += sent;
        virtio_driver_settle(&d->v);
        net_driver_sent(d, 0);
        cr_expect(net_rig_is_frame(frame, net_rig_far_receive(&rig, frame, true), length, i));
    }
    cr_expect_lt(on_the_spot, 35, "%u", on_the_spot);
    /* A reset in the middle of bulk ends it. */
    net_rig_frame(frame, 60000, net_rig_broadcast, 1);
    for (unsigned i = 0; i < 4; i++)
        cr_assert(net_driver_send(d, 0, frame, 60000));
    cr_expect(net_device(rig.net)->queues[1].bulk);
    cr_assert(net_driver_start(d, UINT64_MAX, 0));
    cr_expect_not(net_device(rig.net)->queues[1].bulk);
    end();
}

static void offer_one(uint32_t length)
{
    net_rig_frame(frame, length, net_rig_broadcast, length);
    net_driver_offer(d, 0, NULL, frame, length);
    virtio_driver_kick(&d->v, 1);
}

/*
 * Bulk and its answers are one turn of the loop. Who sends a small packet leaves its answer to the
 * loop. Answers that meet no buffers are forgotten by nobody.
 */
Test(net_send, answers_to_bulk_come_with_it)
{
    enum { BUFFERS = 4 };
    begin((struct net_rig_config){0});
    net_driver_add(d, 0, BUFFERS, 2048);
    virtio_driver_settle(&d->v);
    for (unsigned i = 0; i < 4; i++)
        cr_assert(net_driver_send(d, 0, frame, 60000));
    cr_assert(net_device(rig.net)->queues[1].bulk);
    rig.script->answers = true;
    for (unsigned i = 0; i < 2 * BUFFERS; i++) {
        offer_one(60000);
        event_loop_once(d->v.loop, 0); /* the kick is seen, and no more */
        cr_expect_eq(net_driver_sent(d, 0), 1, "%u", i);
        cr_expect_eq(net_driver_take(d, 0, frame), i < BUFFERS ? 60 : -1, "%u", i);
    }
    for (unsigned i = 0; i < 2 * BUFFERS; i++) {
        net_driver_add(d, 0, 1, 2048); /* notifies where it was asked to */
        virtio_driver_settle(&d->v);
        cr_expect_eq(net_driver_take(d, 0, frame), i < BUFFERS ? 60 : -1, "%u", i);
    }
    rig.script->answers = false;
    for (unsigned i = 0; i < 20; i++)
        cr_assert(net_driver_send(d, 0, frame, 60));
    rig.script->answers = true;
    offer_one(60);
    cr_expect_eq(net_driver_sent(d, 0), 1);
    cr_expect_eq(net_driver_take(d, 0, frame), -1);
    virtio_driver_settle(&d->v);
    cr_expect_eq(net_driver_take(d, 0, frame), 60);
    rig.script->answers = false;
    while (net_rig_far_receive(&rig, frame, false) >= 0)
        ;
    end();
}
