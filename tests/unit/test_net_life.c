/* Starts, resets, ends of the backend, configuration space (D3, D8, D10, D11, S29). */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "devices/net_stream.h"
#include "tests/unit/net_rig.h"
#include "tests/unit/support.h"

SUITE(net_life);

static struct net_rig rig;
static struct net_driver *d = &rig.driver;
static uint8_t frame[NET_PACKET_MAX];

#define F(bit)    FEATURE(VIRTIO_NET_F_##bit)
#define AT(field) (unsigned)offsetof(struct virtio_net_config, field)

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

/* ---- configuration space and features ------------------------------------------------------ */

Test(net_life, S29_D11_configuration_space_says_what_there_is_and_takes_nothing)
{
    net_rig_init(&rig, &(struct net_rig_config){.pairs = 3, .mtu = 1400});
    for (unsigned round = 0; round < 2; round++) {
        cr_expect_eq(virtio_driver_config(&d->v, AT(mac), 4), 0x12005452);
        cr_expect_eq(virtio_driver_config(&d->v, 4, 2), 0x5634);
        cr_expect_eq(virtio_driver_config(&d->v, AT(status), 2), VIRTIO_NET_S_LINK_UP);
        cr_expect_eq(virtio_driver_config(&d->v, AT(max_virtqueue_pairs), 2), 3);
        cr_expect_eq(virtio_driver_config(&d->v, AT(mtu), 2), 1400);
        for (unsigned at = 0; at < sizeof(struct virtio_net_config) + 8; at++)
            bus_write(&rig.bus, d->v.base + VIRTIO_MMIO_CONFIG + at, 1, 0xff);
        if (round == 0)
            cr_assert(net_driver_start(d, UINT64_MAX, 0));
    }
    end();
}

Test(net_life, S3_features_are_offered_with_what_they_need)
{
    static const struct {
        const char *name;
        struct net_rig_config config;
        uint64_t there, absent;
    } rows[] = {
        {"plain",
         {0},
         F(MAC) | F(STATUS) | F(MRG_RXBUF) | F(CTRL_VQ) | F(CTRL_RX),
         F(MTU) | F(MQ) | F(CTRL_GUEST_OFFLOADS) | F(CSUM) | F(GUEST_CSUM) | F(RSS)},
        {"MTU", {.mtu = 1500}, F(MTU), F(MQ)},
        {"pairs", {.pairs = 2}, F(MQ) | F(CTRL_VQ), F(MTU)},
        {"offloads",
         {.features = F(GUEST_CSUM) | F(CSUM)},
         F(GUEST_CSUM) | F(CSUM) | F(CTRL_GUEST_OFFLOADS),
         F(GUEST_TSO4)},
        {"sending only", {.features = F(CSUM)}, F(CSUM), F(CTRL_GUEST_OFFLOADS)},
        {"no filter",
         {.no_filter = true},
         F(CTRL_MAC_ADDR) | F(GUEST_ANNOUNCE),
         F(CTRL_RX) | F(CTRL_RX_EXTRA) | F(CTRL_VLAN)},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        net_rig_init(&rig, &rows[i].config);
        uint64_t offered = virtio_driver_offered(&d->v);
        cr_expect_eq(offered & rows[i].there, rows[i].there, "%s", rows[i].name);
        cr_expect_eq(offered & rows[i].absent, 0, "%s", rows[i].name);
        end();
    }
}

/* D10: with VERSION_1 a header has 12 bytes, merging or not. */
Test(net_life, D10_S4_every_subset_of_features_works)
{
    static const uint64_t without[] = {
        0,      F(MRG_RXBUF), F(CTRL_VQ),
        F(MAC), F(CTRL_RX),   F(STATUS),
        F(MTU), F(MQ),        UINT64_MAX & ~FEATURE(VIRTIO_F_VERSION_1)};
    for (size_t i = 0; i < COUNT(without); i++) {
        for (unsigned ring = 0; ring < 4; ring++) {
            uint64_t features = ~without[i];
            if (!(ring & 1))
                features &= ~FEATURE(VIRTIO_RING_F_EVENT_IDX);
            if (!(ring & 2))
                features &= ~FEATURE(VIRTIO_RING_F_INDIRECT_DESC);
            net_rig_init(&rig, &(struct net_rig_config){.pairs = 2, .mtu = 1500});
            cr_assert(net_driver_start(d, features, ring ? 4u << 2 * ring : 0));
            net_driver_add(d, 0, 1, 72);
            net_rig_frame(frame, 60, net_rig_broadcast, 1);
            cr_assert(net_rig_far_send(&rig, frame, 60));
            cr_expect(net_rig_is_frame(frame, net_driver_receive(d, 0, frame), 60, 1), "%zu", i);
            cr_expect(net_driver_send(d, 0, frame, 60));
            cr_expect_eq(net_rig_far_receive(&rig, frame, true), 60);
            end();
        }
    }
}

/* D3: whatever stands in the header of a packet out, a backend without offloads ignores it. */
Test(net_life, D3_S30_headers_out_are_not_trusted)
{
    static const struct virtio_net_hdr_v1 headers[] = {
        {.flags = 0xff},
        {.flags = VIRTIO_NET_HDR_F_DATA_VALID},
        {.gso_type = 0xff},
        {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4},
        {.gso_type = VIRTIO_NET_HDR_GSO_UDP},
        {.gso_type = VIRTIO_NET_HDR_GSO_ECN},
        {.hdr_len = 0xffff},
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .csum_start = 0xffff, .csum_offset = 0xffff},
        {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_TCPV6, .gso_size = 1},
        {.num_buffers = 0xffff}};
    for (size_t i = 0; i < COUNT(headers); i++) {
        begin((struct net_rig_config){.kind = NET_RIG_STREAM});
        net_rig_frame(frame, 100, net_rig_broadcast, 1);
        net_driver_offer(d, 0, &headers[i], frame, 100);
        virtio_driver_kick(&d->v, 1);
        cr_expect(net_rig_is_frame(frame, net_rig_far_receive(&rig, frame, true), 100, 1), "%zu",
                  i);
        end();
    }
}

/* ---- before and after ---------------------------------------------------------------------- */

Test(net_life, D8_nothing_from_before_the_driver_is_delivered)
{
    for (unsigned kind = NET_RIG_SCRIPT; kind <= NET_RIG_STREAM; kind++) {
        net_rig_init(&rig, &(struct net_rig_config){.kind = kind, .threaded = true});
        for (unsigned round = 0; round < 3; round++) {
            unsigned count = 0;
            net_rig_frame(frame, 14, net_rig_broadcast, 7);
            if (kind == NET_RIG_SCRIPT)
                for (; count < 900; count++)
                    net_rig_far_send(&rig, frame, 14);
            /* As many in one go as a socket holds. */
            static uint8_t batch[150000];
            size_t fill = 0;
            const uint32_t prefix = htonl(14);
            while (fill + 18 <= sizeof(batch)) {
                memcpy(batch + fill, &prefix, 4);
                memcpy(batch + fill + 4, frame, 14);
                fill += 18;
            }
            if (kind == NET_RIG_STREAM)
                cr_assert_eq(send(rig.far, batch, fill, MSG_DONTWAIT), (ssize_t)fill);
            cr_assert(net_driver_start(d, UINT64_MAX, 0));
            net_driver_add(d, 0, 4, 100);
            virtio_driver_settle(&d->v);
            cr_expect_eq(net_driver_take(d, 0, frame), -1, "kind %u, round %u", kind, round);
            net_rig_frame(frame, 60, net_rig_broadcast, round);
            cr_assert(net_rig_far_send(&rig, frame, 60));
            int got = net_driver_receive(d, 0, frame);
            cr_expect(net_rig_is_frame(frame, got, 60, round), "kind %u: %d", kind, got);
            virtio_driver_reset(&d->v);
        }
        end();
    }
}

Test(net_life, S7_D14_a_reset_under_traffic_touches_nothing_afterwards)
{
    for (unsigned kind = NET_RIG_SCRIPT; kind <= NET_RIG_STREAM; kind++) {
        for (unsigned threaded = 0; threaded < 2; threaded++) {
            net_rig_init(&rig, &(struct net_rig_config){.kind = kind, .threaded = threaded});
            for (unsigned round = 0; round < 200; round++) {
                cr_assert(net_driver_start(d, round % 2 ? UINT64_MAX : ~F(MRG_RXBUF), 64));
                net_driver_add(d, 0, round % 20, 40 + 40 * (round % 3));
                for (unsigned k = 0; k < 8; k++) {
                    net_rig_frame(frame, 60, net_rig_broadcast, k);
                    net_rig_far_send(&rig, frame, 60);
                    net_driver_offer(d, 0, NULL, frame, 60);
                    virtio_driver_kick(&d->v, 1);
                }
                virtio_driver_write(&d->v, VIRTIO_MMIO_STATUS, 0);
                uint8_t *rings = net_rig_at(&rig, NET_RAM_C, 0x10000);
                static uint8_t before[0x10000];
                memset(rings, 0xa5, 0x10000);
                memcpy(before, rings, sizeof(before));
                net_rig_far_send(&rig, frame, 60);
                virtio_driver_notify(&d->v, 0);
                virtio_driver_settle(&d->v);
                cr_assert_arr_eq(rings, before, sizeof(before));
                cr_assert_eq(virtio_driver_read(&d->v, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
                while (net_rig_far_receive(&rig, frame, false) >= 0)
                    ;
            }
            cr_assert(net_driver_start(d, UINT64_MAX, 0));
            end();
        }
    }
}

/* QueueReady 0 of one queue: the window of another is taken up again where it was. */
Test(net_life, another_queues_end_loses_no_buffer)
{
    begin((struct net_rig_config){.pairs = 2});
    const struct piece readable = {NET_FREE, 100, false};
    net_driver_add(d, 0, 1, 60);
    fake_driver_send(&d->v.queues[0], &readable, 1);
    net_driver_add(d, 0, 3, 60);
    virtio_driver_settle(&d->v);
    virtio_driver_write(&d->v, VIRTIO_MMIO_QUEUE_SEL, 3);
    virtio_driver_write(&d->v, VIRTIO_MMIO_QUEUE_READY, 0);
    virtio_driver_settle(&d->v);
    net_rig_frame(frame, 40, net_rig_broadcast, 1);
    for (unsigned i = 0; i < 4; i++)
        cr_assert(net_rig_far_send(&rig, frame, 40));
    virtio_driver_settle(&d->v);
    /* Four buffers and the readable one, each given back once. */
    bool seen[256] = {0};
    struct vring_used_elem element;
    unsigned count = 0;
    while (fake_driver_take(&d->v.queues[0], &element)) {
        cr_expect(!seen[element.id], "%u twice", element.id);
        seen[element.id] = true;
        count++;
    }
    cr_expect_eq(count, 5);
    cr_assert(net_driver_start(d, UINT64_MAX, 0));
    end();
}

/* ---- the stream ---------------------------------------------------------------------------- */

/* The far end reads a byte at a time, with nothing else going on. */
Test(net_life, a_frame_sent_by_half_is_finished)
{
    const uint32_t length = 60000;
    unsigned fit = 12; /* packets that the device can get rid of, the last one by half */

    for (unsigned round = 0; round < 3; round++) {
        begin((struct net_rig_config){.kind = NET_RIG_STREAM, .threaded = true});
        unsigned packets = fit;
        const struct timeval deadline = {.tv_sec = 5};
        setsockopt(rig.far, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof(deadline));
        for (uint32_t i = 0; i < packets; i++) {
            net_rig_frame(frame, length, net_rig_broadcast, i);
            net_driver_offer(d, 0, NULL, frame, length);
        }
        virtio_driver_kick(&d->v, 1);
        virtio_driver_settle(&d->v);
        unsigned done = net_driver_sent(d, 0);
        cr_assert(done > 0 && (done < packets) == (round == 0), "round %u: %u", round, done);
        fit = done;
        if (round == 1) { /* what was given back is sent, and no frame is cut */
            cr_assert(net_driver_start(d, UINT64_MAX, 0));
            packets = done;
        }
        for (uint32_t i = 0; i < packets; i++) {
            uint8_t bytes[4];
            static uint8_t got[NET_PACKET_MAX];
            for (size_t at = 0; at < 4; at++)
                cr_assert_eq(recv(rig.far, bytes + at, 1, MSG_WAITALL), 1);
            cr_assert_eq(bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3], length);
            for (size_t at = 0; at < length;) {
                ssize_t n = recv(rig.far, got + at, length - at < 777 ? length - at : 777, 0);
                cr_assert_gt(n, 0);
                at += (size_t)n;
            }
            cr_assert(net_rig_is_frame(got, (int)length, length, i), "%u", i);
        }
        end();
    }
}

Test(net_life, frames_in_any_pieces_are_put_together)
{
    static const size_t cuts[] = {1, 2, 3, 4, 5, 17, 18, 19, 4096};
    for (size_t i = 0; i < COUNT(cuts); i++) {
        static uint8_t stream[3 * 1100];
        size_t size = 0;
        begin((struct net_rig_config){.kind = NET_RIG_STREAM, .threaded = i % 2});
        net_driver_add(d, 0, 8, 1200);
        for (uint32_t k = 0; k < 3; k++) {
            const uint32_t prefix = htonl(60 + 500 * k);
            memcpy(stream + size, &prefix, 4);
            net_rig_frame(stream + size + 4, 60 + 500 * k, net_rig_broadcast, k);
            size += 64 + 500 * k;
        }
        for (size_t at = 0; at < size; at += cuts[i]) {
            size_t part = size - at < cuts[i] ? size - at : cuts[i];
            cr_assert_eq(send(rig.far, stream + at, part, 0), (ssize_t)part);
            virtio_driver_settle(&d->v);
        }
        for (uint32_t k = 0; k < 3; k++)
            cr_expect(net_rig_is_frame(frame, net_driver_receive(d, 0, frame), 60 + 500 * k, k));
        end();
    }
}

static void expect_link_down(const char *name)
{
    while (virtio_driver_config(&d->v, AT(status), 2) & VIRTIO_NET_S_LINK_UP)
        cr_assert(virtio_driver_wait_interrupt(&d->v), "%s: the link is up", name);
    while (!(d->v.reasons & VIRTIO_MMIO_INT_CONFIG))
        cr_assert(virtio_driver_wait_interrupt(&d->v), "%s: no interrupt", name);
}

/* D4: the other end is gone: link down, told once; packets out go nowhere; nothing spins. */
Test(net_life, D4_the_end_of_the_backend_is_a_link_that_is_down)
{
    static const struct {
        const char *name;
        unsigned buffers;
        bool junk, busy;
    } rows[] = {{"closed, with buffers", 4, false, false},
                {"closed, without", 0, false, false},
                {"closed, sending", 4, false, true},
                {"what is no frame", 4, true, false}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        begin((struct net_rig_config){.kind = NET_RIG_STREAM, .threaded = true});
        uint32_t generation = virtio_driver_read(&d->v, VIRTIO_MMIO_CONFIG_GENERATION);
        if (rows[i].buffers)
            net_driver_add(d, 0, rows[i].buffers, 200);
        net_rig_frame(frame, 60, net_rig_broadcast, 1);
        if (rows[i].buffers)
            cr_assert(net_rig_far_send(&rig, frame, 60));
        if (rows[i].junk)
            cr_assert_eq(send(rig.far, "\xff\xff\xff\xff\xff", 5, 0), 5);
        else
            shutdown(rig.far, SHUT_RDWR);
        if (rows[i].busy)
            net_driver_send(d, 0, frame, 60);
        expect_link_down(rows[i].name);
        cr_expect_neq(virtio_driver_read(&d->v, VIRTIO_MMIO_CONFIG_GENERATION), generation);
        if (rows[i].buffers)
            cr_expect(net_rig_is_frame(frame, net_driver_receive(d, 0, frame), 60, 1),
                      "%s: what came before it", rows[i].name);
        cr_expect(net_driver_send(d, 0, frame, 60) || rows[i].junk, "%s", rows[i].name);
        clock_t before = clock();
        usleep(200000);
        cr_expect_lt(clock() - before, CLOCKS_PER_SEC / 250, "%s: it spins", rows[i].name);
        /* It stays down over a reset. */
        cr_assert(net_driver_start(d, UINT64_MAX, 0));
        net_driver_add(d, 0, 2, 200);
        cr_expect(net_driver_send(d, 0, frame, 60) || rows[i].junk, "%s", rows[i].name);
        virtio_driver_settle(&d->v);
        cr_expect_eq(virtio_driver_config(&d->v, AT(status), 2), 0, "%s", rows[i].name);
        net_rig_finish(&rig);
    }
}

Test(net_life, D4_the_script_says_it_is_gone)
{
    for (unsigned out = 0; out < 2; out++) {
        begin((struct net_rig_config){.pairs = 2});
        net_driver_add(d, 0, 4, 200);
        net_rig_frame(frame, 60, net_rig_broadcast, 1);
        rig.script->send_error = -EBADFD;
        rig.script->send_error_times = out;
        if (out)
            cr_expect(net_driver_send(d, 0, frame, 60));
        else
            net_script_give(rig.script, 0, NULL, 0, -EBADFD);
        expect_link_down("script");
        net_rig_finish(&rig);
    }
}

/* Frames above the MTU of a stream pass neither way, and cost nobody else a frame. */
Test(net_life, a_stream_keeps_its_MTU)
{
    begin((struct net_rig_config){.kind = NET_RIG_STREAM, .threaded = true, .mtu = 1500});
    net_driver_add(d, 0, 100, 3000);
    for (uint32_t length = 1500 + 20; length < 1500 + 26; length++) {
        bool fits = length <= 1500 + 22; /* Ethernet and two VLAN tags */
        net_rig_frame(frame, length, net_rig_broadcast, length);
        cr_assert(net_rig_far_send(&rig, frame, length));
        if (fits)
            cr_expect(net_rig_is_frame(frame, net_driver_receive(d, 0, frame), length, length));
        net_rig_frame(frame, length, net_rig_broadcast, length);
        cr_expect(net_driver_send(d, 0, frame, length));
        if (fits)
            cr_expect(
                net_rig_is_frame(frame, net_rig_far_receive(&rig, frame, true), length, length));
    }
    cr_expect(net_rig_works(&rig));
    cr_expect_eq(net_drops(rig.net).received, 3);
    cr_expect_eq(net_drops(rig.net).sent, 3);
    end();
}

Test(net_life, a_path_nobody_listens_at_is_named)
{
    struct minivmm_error err;
    char path[200];
    cr_expect_eq(net_stream_connect("/nonexistent/socket", 3, &err), -ENOENT);
    cr_expect_str_eq(err.text, "net 3: socket /nonexistent/socket: No such file or directory");
    memset(path, 'x', sizeof(path) - 1);
    path[sizeof(path) - 1] = '\0';
    cr_expect_eq(net_stream_connect(path, 0, &err), -ENAMETOOLONG);
    cr_expect(support_one_line(&err, "longer than 107 bytes"), "%s", err.text);
    cr_expect_lt(net_stream_connect("/dev/null", 0, &err), 0);
    cr_expect(support_one_line(&err, "net 0: socket /dev/null: "), "%s", err.text);
}
