/*
 * --tap: what is said of interfaces that cannot be used, and a real one behind the device (D3, D4,
 * S33). Each test has a network namespace of its own, and is skipped where it cannot have one.
 */
#include "devices/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "devices/tap_end.h"
#include "tests/unit/net_rig.h"
#include "tests/unit/support.h"

SUITE(tap);

#define F(bit) FEATURE(VIRTIO_NET_F_##bit)

static struct net_rig rig;
static struct net_driver *d = &rig.driver;
static uint8_t frame[NET_PACKET_MAX];

#define NEED_NAMESPACE()                                                                           \
    do {                                                                                           \
        if (!net_rig_namespace())                                                                  \
            cr_skip_test("no network namespace with taps here");                                   \
    } while (0)

static void run(const char *command)
{
    int status;
    char *output = support_run(command, &status);
    cr_assert_eq(status, 0, "%s: %s", command, output);
    free(output);
}

static void expect_error(const struct tap_config *config, int code, const char *text)
{
    struct net_backend *be;
    struct minivmm_error err = {""};
    int rc = tap_create(config, &be, &err);
    cr_expect_eq(rc, code, "%s: %d: %s", text, rc, err.text);
    cr_expect_str_eq(err.text, text, "got: %s", err.text);
    if (rc == 0)
        be->ops->destroy(be);
}

static void begin(struct net_rig_config config)
{
    config.kind = NET_RIG_TAP;
    net_rig_init(&rig, &config);
    cr_assert(net_driver_start(d, UINT64_MAX, 0));
}

static void end(void)
{
    cr_expect(net_rig_works(&rig), "the canary");
    net_rig_finish(&rig);
}

/* ---- errors -------------------------------------------------------------------------------- */

#define ANEW "; make it anew: ip link del "

Test(tap, interfaces_that_cannot_be_used_are_named_with_the_cure)
{
    NEED_NAMESPACE();
    run("ip tuntap add dev single mode tap vnet_hdr && ip tuntap add dev tunnel mode tun && "
        "ip tuntap add dev busy mode tap vnet_hdr && ip link add v0 type veth peer name v1");
    const struct tap_config busy = {.name = "busy", .fd = -1, .pairs = 1};
    struct net_backend *be;
    struct minivmm_error err;
    cr_assert_eq(tap_create(&busy, &be, &err), 0, "%s", err.text);
    static const struct {
        struct tap_config config;
        int code;
        const char *text;
    } rows[] = {
        {{.name = "sixteen-bytes-xx", .fd = -1, .pairs = 1},
         -EINVAL,
         "net 0: sixteen-bytes-xx: an interface's name has at most 15 bytes"},
        {{.name = "a/b", .fd = -1, .pairs = 1}, -EINVAL, "net 0: a/b: TUNSETIFF: Invalid argument"},
        {{.name = "busy", .fd = -1, .pairs = 1},
         -EBUSY,
         "net 0: busy: in use by another program, or not a tap"},
        {{.name = "single", .fd = -1, .pairs = 2},
         -EINVAL,
         "net 0: single: has a single queue, or is no tap" ANEW
         "single && ip tuntap add dev single mode tap multi_queue"},
        {{.name = "tunnel", .fd = -1, .pairs = 1},
         -EINVAL,
         "net 0: tunnel: has a type that does not fit" ANEW
         "tunnel && ip tuntap add dev tunnel mode tap"},
        {{.name = "v0", .fd = -1, .pairs = 1},
         -EINVAL,
         "net 0: v0: has a type that does not fit" ANEW "v0 && ip tuntap add dev v0 mode tap"},
        {{.name = "single", .fd = -1, .pairs = 1, .mtu = 65535},
         -EINVAL,
         "net 0: single: mtu=65535: Invalid argument; as root: ip link set single mtu 65535"},
        {{.fd = 2000, .pairs = 1}, -EBADF, "net 0: fd=2000: Bad file descriptor"},
        {{.fd = 2, .pairs = 1}, -EINVAL, "net 0: fd=2: is no tap"},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        expect_error(&rows[i].config, rows[i].code, rows[i].text);
    be->ops->destroy(be);
}

static void child_expects(bool exists, const char *text)
{
    const struct tap_config config = {.name = exists ? "owned" : "none", .fd = -1, .pairs = 2};
    struct net_backend *be;
    struct minivmm_error err;
    pid_t child = fork();
    if (child == 0) {
        /* Somebody else, who may open every file and nothing more. */
        struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
        struct __user_cap_data_struct caps[2] = {
            {.effective = 1u << CAP_DAC_OVERRIDE, .permitted = 1u << CAP_DAC_OVERRIDE}};
        if (prctl(PR_SET_KEEPCAPS, 1) < 0 || setresgid(65534, 65534, 65534) < 0 ||
            setresuid(65534, 65534, 65534) < 0 || syscall(SYS_capset, &header, caps) < 0)
            _exit(9);
        int rc = tap_create(&config, &be, &err);
        if (strcmp(err.text, text) != 0)
            fprintf(stderr, "got: %s\n", err.text);
        _exit(rc == -EPERM && strcmp(err.text, text) == 0 ? 0 : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect_eq(status, 0, "%s", text);
}

Test(tap, without_privileges_the_commands_for_root_are_named)
{
    NEED_NAMESPACE();
    run("ip tuntap add dev owned mode tap multi_queue user 0");
    child_expects(false, "net 0: none: does not exist, and creating it needs CAP_NET_ADMIN; as "
                         "root: ip tuntap add dev none mode tap user 65534 multi_queue && ip link "
                         "set none up");
    child_expects(true, "net 0: owned: belongs to somebody else; as root: ip tuntap add dev owned "
                        "mode tap user 65534 multi_queue && ip link set owned up");
}

static int open_tap(const char *name, int flags)
{
    struct ifreq request = {.ifr_flags = (short)flags};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    cr_assert(fd >= 0 && ioctl(fd, TUNSETIFF, &request) == 0);
    return fd;
}

Test(tap, an_open_tap_is_adopted_if_it_has_the_right_flags)
{
    NEED_NAMESPACE();
    static const struct {
        int flags;
        bool good;
    } rows[] = {{IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, true},
                {IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE, true},
                {IFF_TAP | IFF_NO_PI, false},
                {IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, false}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct net_backend *be;
        struct minivmm_error err;
        int fd = open_tap("open0", rows[i].flags);
        const struct tap_config config = {.fd = fd, .pairs = 1};
        int rc = tap_create(&config, &be, &err);
        cr_expect_eq(rc, rows[i].good ? 0 : -EINVAL, "%zu", i);
        if (rc == 0) {
            cr_expect_neq(be->fds[0], fd, "a duplicate");
            cr_expect_eq(be->mtu, 1500);
            be->ops->destroy(be);
        } else {
            cr_expect(
                support_one_line(&err, "must be opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"),
                "%s", err.text);
        }
        cr_expect_neq(fcntl(fd, F_GETFD), -1, "it stays the caller's");
        close(fd);
        usleep(20000); /* the interface goes a little later */
    }
}

Test(tap, names_with_a_number_to_be_chosen_work)
{
    NEED_NAMESPACE();
    const struct tap_config config = {.name = "pick%d", .fd = -1, .pairs = 3, .mtu = 1400};
    struct net_backend *be;
    struct minivmm_error err;
    cr_assert_eq(tap_create(&config, &be, &err), 0, "%s", err.text);
    cr_expect_eq(be->mtu, 1400);
    cr_expect_neq(if_nametoindex("pick0"), 0);
    cr_expect_eq(if_nametoindex("pick1"), 0, "one interface with three queues");
    be->ops->destroy(be);
}

/* ---- in use -------------------------------------------------------------------------------- */

Test(tap, frames_pass_both_ways_with_and_without_offloads)
{
    NEED_NAMESPACE();
    static const struct {
        unsigned pairs;
        bool no_offload, threaded;
        uint64_t without;
    } rows[] = {{1, false, false, 0},
                {1, true, true, 0},
                {3, false, true, 0},
                {3, false, false, F(MQ)},
                {1, false, true, F(MRG_RXBUF)}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        begin((struct net_rig_config){.pairs = rows[i].pairs,
                                      .no_offload = rows[i].no_offload,
                                      .threaded = rows[i].threaded});
        uint64_t offered = virtio_driver_offered(&d->v);
        cr_expect_eq(!(offered & F(CSUM)), rows[i].no_offload);
        cr_expect_eq(!(offered & F(GUEST_TSO4)), rows[i].no_offload);
        cr_expect_eq(!(offered & F(CTRL_GUEST_OFFLOADS)), rows[i].no_offload);
        cr_expect_eq(!(offered & F(MQ)), rows[i].pairs == 1);
        cr_assert(net_driver_start(d, ~rows[i].without, 0));
        net_driver_add(d, 0, 100, 2000);
        for (uint32_t k = 0; k < 50; k++) {
            size_t length = 60 + 29 * k;
            net_rig_frame(frame, length, net_rig_broadcast, k);
            cr_assert(net_rig_far_send(&rig, frame, length));
            cr_expect(net_rig_is_frame(frame, net_driver_receive(d, 0, frame), length, k));
            cr_expect_eq(d->header.flags | d->header.gso_type, 0, "S33");
            cr_expect(net_driver_send(d, 0, frame, (uint32_t)length));
            cr_expect(net_rig_is_frame(frame, net_rig_far_receive(&rig, frame, true), length, k));
        }
        end();
    }
}

/* Pairs that come and go, with packets under way, and a link that stays up. */
Test(tap, S37_pairs_can_be_changed_under_traffic)
{
    NEED_NAMESPACE();
    begin((struct net_rig_config){.pairs = 4, .threaded = true});
    for (unsigned round = 0; round < 12; round++) {
        const uint16_t pairs = (uint16_t)(1 + (round * 3) % 4);
        cr_assert_eq(
            net_driver_control(d, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &pairs, 2),
            VIRTIO_NET_OK);
        for (unsigned k = 0; k < 4; k++) {
            net_driver_add(d, k, 4, 200);
            net_rig_frame(frame, 60, net_rig_broadcast, k);
            frame[11] = (uint8_t)(round * 4 + k); /* another source, another queue */
            cr_assert(net_rig_far_send(&rig, frame, 60));
            frame[11] = 9;
            if (k < pairs) {
                cr_expect(net_driver_send(d, k, frame, 60), "pair %u of %u", k, pairs);
                cr_expect(net_rig_is_frame(frame, net_rig_far_receive(&rig, frame, true), 60, k));
            }
        }
        /* A receive ring that fills up in time is emptied. */
        virtio_driver_settle(&d->v);
        unsigned arrived = 0;
        for (unsigned k = 0; k < 4; k++)
            while (net_driver_take(d, k, frame) >= 0)
                arrived += k < pairs;
        cr_expect_eq(arrived, 4, "of %u pairs: %u", pairs, arrived);
        cr_expect_eq(virtio_driver_config(&d->v, offsetof(struct virtio_net_config, status), 2), 1);
    }
    cr_assert(net_driver_start(d, UINT64_MAX, 0));
    end();
}

/* D3: the kernel refuses what makes no sense; the packet is lost, and nothing else. */
Test(tap, D3_headers_that_make_no_sense_lose_their_packet)
{
    NEED_NAMESPACE();
    static const struct virtio_net_hdr_v1 headers[] = {
        {.gso_type = 0x7f},
        {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 0},
        {.gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = 1000},
        {.flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff},
        {.flags = 1, .csum_start = 90, .csum_offset = 40},
        {.hdr_len = 0xffff},
    };
    begin((struct net_rig_config){.threaded = true});
    for (size_t i = 0; i < COUNT(headers); i++) {
        net_rig_frame(frame, 100, net_rig_broadcast, 1);
        net_driver_offer(d, 0, &headers[i], frame, 100);
        virtio_driver_kick(&d->v, 1);
        virtio_driver_settle(&d->v);
        cr_expect(net_rig_works(&rig), "%zu", i);
        cr_expect_eq(virtio_driver_read(&d->v, VIRTIO_MMIO_STATUS), STATUS_DRIVER_OK);
    }
    end();
}

Test(tap, D4_an_interface_that_is_down_drops)
{
    NEED_NAMESPACE();
    begin((struct net_rig_config){.threaded = true});
    run("ip link set " NET_RIG_TAP_NAME " down");
    net_rig_frame(frame, 60, net_rig_broadcast, 1);
    cr_expect(net_driver_send(d, 0, frame, 60));
    cr_expect_eq(net_drops(rig.net).sent, 1);
    run("ip link set " NET_RIG_TAP_NAME " up");
    char byte[60];
    recv(rig.far, byte, sizeof(byte), MSG_DONTWAIT); /* takes ENETDOWN off the socket */
    end();
}

Test(tap, D4_an_interface_that_is_deleted_is_a_link_that_is_down)
{
    NEED_NAMESPACE();
    for (unsigned buffers = 0; buffers < 2; buffers++) {
        begin((struct net_rig_config){.threaded = true, .pairs = 2});
        if (buffers)
            net_driver_add(d, 0, 4, 200);
        run("ip link del " NET_RIG_TAP_NAME);
        if (!buffers) /* who waits for nothing hears of it with the next packet out */
            cr_expect(net_driver_send(d, 0, frame, 60));
        while (virtio_driver_config(&d->v, offsetof(struct virtio_net_config, status), 2))
            cr_assert(virtio_driver_wait_interrupt(&d->v));
        cr_expect(net_driver_send(d, 0, frame, 60));
        clock_t before = clock();
        usleep(200000);
        cr_expect_lt(clock() - before, CLOCKS_PER_SEC / 250, "it spins");
        net_rig_finish(&rig);
    }
}

static void count_end(void *arg)
{
    ++*(unsigned *)arg;
}

/* What vhost, which reads no packets, hears of: its own interface's end, and nobody else's. */
Test(tap, D4_an_end_is_heard_of_without_reading)
{
    const struct tap_config config = {.fd = -1, .name = NET_RIG_TAP_NAME, .pairs = 1};
    struct minivmm_error err;
    struct net_backend *be;
    struct event_loop loop;
    struct tap_end tap_end;
    unsigned ends = 0;

    NEED_NAMESPACE();
    for (unsigned before = 0; before < 2; before++) { /* the start */
        ends = 0;
        cr_assert_eq(event_loop_init(&loop, &err), 0);
        cr_assert_eq(tap_create(&config, &be, &err), 0, "%s", err.text);
        tap_end_init(&tap_end, be->fds[0], count_end, &ends);
        cr_assert_geq(tap_end.fd, 0);
        if (before)
            run("ip link del " NET_RIG_TAP_NAME);
        tap_end_start(&tap_end, &loop);
        if (!before) {
            run("ip tuntap add dev other mode tap && ip link del other");
            event_loop_once(&loop, 100);
            cr_expect_eq(ends, 0);
            cr_expect_not(tap_end_reached(be->fds[0]));
            run("ip link del " NET_RIG_TAP_NAME);
            event_loop_once(&loop, 1000);
        }
        cr_expect_geq(ends, 1);
        cr_expect(tap_end_reached(be->fds[0]));
        tap_end_stop(&tap_end, &loop);
        tap_end_finish(&tap_end);
        be->ops->destroy(be);
        event_loop_finish(&loop);
    }
}

/* What was sent may arrive or not; a small frame behind it, that has `number`, does. */
static void receive_with_luck(uint32_t number)
{
    int got;
    net_rig_frame(frame, 100, net_rig_broadcast, number);
    cr_assert(net_rig_far_send(&rig, frame, 100));
    while ((got = net_driver_receive(d, 0, frame)) >= 0 &&
           !net_rig_is_frame(frame, got, 100, number))
        net_driver_add(d, 0, 1, 2000);
    cr_assert_geq(got, 0, "after the frame of %u bytes nothing arrives", number);
}

/*
 * The host makes the interface's MTU larger than what the guest was told. A driver that takes
 * segments together gets such frames, in as many buffers as they need; else they are lost, whole,
 * and nothing else is.
 */
Test(tap, D6_frames_above_the_MTU_arrive_whole_or_not_at_all)
{
    NEED_NAMESPACE();
    for (unsigned segments = 0; segments < 2; segments++) {
        begin((struct net_rig_config){.threaded = true});
        cr_assert(net_driver_start(d, segments ? UINT64_MAX : ~(F(GUEST_TSO4) | F(GUEST_TSO6)), 0));
        net_driver_add(d, 0, 20, 2000);
        run("ip link set " NET_RIG_TAP_NAME " mtu 9000");
        for (uint32_t length = 1400; length < 2100; length += 6) {
            bool arrives = segments || length <= 1500 + 22;
            net_rig_frame(frame, length, net_rig_broadcast, length);
            cr_assert(net_rig_far_send(&rig, frame, length));
            if (arrives)
                cr_expect(net_rig_is_frame(frame, net_driver_receive(d, 0, frame), length, length),
                          "%u", length);
            else if (length > 2000 - NET_HEADER_SIZE)
                cr_expect(net_rig_works(&rig), "%u", length);
            else
                receive_with_luck(length);
            cr_assert_null(d->fault, "%s", d->fault);
            net_driver_add(d, 0, 1, 2000);
        }
        cr_expect_eq(net_drops(rig.net).received > 0, !segments);
        end();
    }
}

/* Offloads that the kernel cannot do by halves leave none, and not those of the driver before. */
Test(tap, S33_offloads_that_fit_nobody_are_off)
{
    NEED_NAMESPACE();
    begin((struct net_rig_config){.threaded = true});
    if (!(virtio_driver_offered(&d->v) & FEATURE(54)))
        cr_skip_test("a kernel without USO");
    cr_assert(net_driver_start(d, ~FEATURE(55), 0)); /* USO4 alone */
    net_driver_add(d, 0, 100, 2000);
    run("ip addr add 192.0.2.1/24 dev " NET_RIG_TAP_NAME " && ip neigh add 192.0.2.2 lladdr "
        "52:54:00:12:34:56 dev " NET_RIG_TAP_NAME
        " && bash -c 'head -c 1000 /dev/zero >/dev/udp/192.0.2.2/9'");
    for (;;) {
        int got = net_driver_receive(d, 0, frame);
        cr_assert_geq(got, 0);
        cr_expect_eq(d->header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
        if (frame[23] == 17)
            break;
    }
    cr_assert(net_driver_start(d, UINT64_MAX, 0));
    end();
}
