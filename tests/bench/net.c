/*
 * Packets through virtio-net, the device's side alone: rings, device, tap and event loop on one
 * thread, with a driver that does as little as one can; beside bare system calls on the same tap in
 * the same run. The tap is in a network namespace of this program's own; packets for it are put
 * there by a packet socket, outside of what is timed.
 *
 * usage: net
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/net.h"
#include "devices/tap.h"
#include "tests/bench/bench.h"
#include "virtio/mmio.h"

#define NAME   "bench0"
#define SIZE   256u /* entries of a ring */
#define BATCH  128u /* packets at a time */
#define ROUNDS 15
#define HEADER sizeof(struct virtio_net_hdr_v1)

/* Guest memory: the rings of each queue, then a buffer for each packet. */
#define RINGS  0x10000u
#define RING   0x10000u
#define AVAIL  0x4000u
#define USED   0x8000u
#define DATA   0x100000u
#define STRIDE 0x11000u

enum { RECEIVE, SEND, QUEUES = 3 };

struct bench {
    struct guest_mem mem;
    struct event_loop loop;
    struct net_backend *be;
    struct net *net;
    struct virtio_mmio mmio;
    struct vring_avail *avail[QUEUES];
    struct vring_used *used[QUEUES];
    uint16_t seen[QUEUES];
    int far;
};

static void fail(const char *what)
{
    fprintf(stderr, "net: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void write_register(struct bench *b, uint64_t offset, uint32_t value)
{
    virtio_mmio_ops.write(&b->mmio, offset, sizeof(value), value);
}

static void start_driver(struct bench *b)
{
    const uint32_t low = 1u << VIRTIO_RING_F_EVENT_IDX | 1u << VIRTIO_NET_F_MRG_RXBUF |
                         1u << VIRTIO_NET_F_CSUM | 1u << VIRTIO_NET_F_HOST_TSO4;

    write_register(b, VIRTIO_MMIO_STATUS, 0);
    write_register(b, VIRTIO_MMIO_STATUS, 3);
    write_register(b, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    write_register(b, VIRTIO_MMIO_DRIVER_FEATURES, low);
    write_register(b, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    write_register(b, VIRTIO_MMIO_DRIVER_FEATURES, 1u << (VIRTIO_F_VERSION_1 - 32));
    write_register(b, VIRTIO_MMIO_STATUS, 11);
    for (unsigned i = 0; i < 2; i++) {
        uint32_t ring = RINGS + i * RING;
        b->avail[i] = guest_mem_at(&b->mem, ring + AVAIL, 6 + 2 * SIZE);
        b->used[i] = guest_mem_at(&b->mem, ring + USED, 6 + 8 * SIZE);
        write_register(b, VIRTIO_MMIO_QUEUE_SEL, i);
        write_register(b, VIRTIO_MMIO_QUEUE_NUM, SIZE);
        write_register(b, VIRTIO_MMIO_QUEUE_DESC_LOW, ring);
        write_register(b, VIRTIO_MMIO_QUEUE_AVAIL_LOW, ring + AVAIL);
        write_register(b, VIRTIO_MMIO_QUEUE_USED_LOW, ring + USED);
        write_register(b, VIRTIO_MMIO_QUEUE_READY, 1);
    }
    write_register(b, VIRTIO_MMIO_STATUS, 15);
}

static uint8_t *data_of(struct bench *b, unsigned index)
{
    return guest_mem_at(&b->mem, DATA + (uint64_t)index * STRIDE, STRIDE);
}

/* Buffers of `length` bytes, a descriptor each, on a queue. */
static void set_buffers(struct bench *b, unsigned queue, uint32_t length)
{
    struct vring_desc *desc = guest_mem_at(&b->mem, RINGS + queue * RING, sizeof(*desc) * SIZE);
    for (unsigned i = 0; i < BATCH; i++)
        desc[i] = (struct vring_desc){.addr = DATA + (uint64_t)i * STRIDE,
                                      .len = length,
                                      .flags = queue == RECEIVE ? VRING_DESC_F_WRITE : 0};
}

static void offer(struct bench *b, unsigned queue)
{
    uint16_t index = b->avail[queue]->idx, event;

    for (unsigned i = 0; i < BATCH; i++)
        b->avail[queue]->ring[(index + i) % SIZE] = (uint16_t)i;
    __atomic_store_n(&b->avail[queue]->idx, (uint16_t)(index + BATCH), __ATOMIC_RELEASE);
    /* An interrupt at the end of the batch is all that a driver asks for. */
    b->avail[queue]->ring[SIZE] = (uint16_t)(b->seen[queue] + BATCH - 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    memcpy(&event, &b->used[queue]->ring[SIZE], sizeof(event));
    if (vring_need_event(event, (uint16_t)(index + BATCH), index))
        write_register(b, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

static void finish(struct bench *b, unsigned queue)
{
    b->seen[queue] = (uint16_t)(b->seen[queue] + BATCH);
    for (unsigned i = 0; __atomic_load_n(&b->used[queue]->idx, __ATOMIC_ACQUIRE) != b->seen[queue];
         i++) {
        if (i > 10000)
            fail("packets were lost");
        event_loop_once(&b->loop, 1000);
    }
}

/* ---- what is measured ---------------------------------------------------------------------- */

/* Frames to nobody, which the interface drops: the kernel's part is small and always the same. */
static void make_frames(struct bench *b, uint32_t length, bool gso)
{
    static const uint8_t head[] = {2, 0, 0, 0, 0, 9, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 0, 0x45};
    for (unsigned i = 0; i < BATCH; i++) {
        uint8_t *data = data_of(b, i);
        struct virtio_net_hdr_v1 header = {0};
        memset(data, 0, HEADER + length);
        memcpy(data + HEADER, head, sizeof(head));
        uint8_t *ip = data + HEADER + ETH_HLEN;
        ip[2] = (uint8_t)((length - ETH_HLEN) >> 8);
        ip[3] = (uint8_t)(length - ETH_HLEN);
        ip[8] = 64;
        ip[9] = IPPROTO_TCP;
        ip[32] = 0x50;
        if (gso)
            header = (struct virtio_net_hdr_v1){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                                .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                                .hdr_len = ETH_HLEN + 40,
                                                .gso_size = 1448,
                                                .csum_start = ETH_HLEN + 20,
                                                .csum_offset = 16};
        memcpy(data, &header, HEADER);
    }
}

static double bare_send(struct bench *b, unsigned batches, uint32_t length)
{
    double start = bench_now(CLOCK_MONOTONIC);
    for (unsigned k = 0; k < batches; k++) {
        for (unsigned i = 0; i < BATCH; i++) {
            struct iovec iov = {data_of(b, i), HEADER + length};
            if (writev(b->be->fds[0], &iov, 1) != (ssize_t)iov.iov_len)
                fail("writev");
        }
    }
    return (bench_now(CLOCK_MONOTONIC) - start) / (batches * BATCH);
}

static double our_send(struct bench *b, unsigned batches, uint32_t length)
{
    set_buffers(b, SEND, (uint32_t)HEADER + length);
    double start = bench_now(CLOCK_MONOTONIC);
    for (unsigned k = 0; k < batches; k++) {
        offer(b, SEND);
        finish(b, SEND);
    }
    return (bench_now(CLOCK_MONOTONIC) - start) / (batches * BATCH);
}

static void inject(struct bench *b)
{
    static uint8_t frame[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 0x88, 0xb5};
    for (unsigned i = 0; i < BATCH; i++)
        if (send(b->far, frame, sizeof(frame), 0) != sizeof(frame))
            fail("send");
}

static double bare_receive(struct bench *b, unsigned batches, uint32_t length)
{
    double spent = 0;
    for (unsigned k = 0; k < batches; k++) {
        inject(b);
        double start = bench_now(CLOCK_MONOTONIC);
        for (unsigned i = 0; i < BATCH; i++) {
            struct iovec iov = {data_of(b, i), 2048};
            if (readv(b->be->fds[0], &iov, 1) != (ssize_t)(HEADER + length))
                fail("readv");
        }
        spent += bench_now(CLOCK_MONOTONIC) - start;
    }
    return spent / (batches * BATCH);
}

static double our_receive(struct bench *b, unsigned batches, uint32_t length)
{
    double spent = 0;

    (void)length;
    set_buffers(b, RECEIVE, 2048);
    for (unsigned k = 0; k < batches; k++) {
        inject(b);
        double start = bench_now(CLOCK_MONOTONIC);
        offer(b, RECEIVE);
        finish(b, RECEIVE);
        spent += bench_now(CLOCK_MONOTONIC) - start;
    }
    return spent / (batches * BATCH);
}

/* ---- the table ----------------------------------------------------------------------------- */

static void measure(struct bench *b, const char *name, unsigned batches, uint32_t length,
                    double (*bare)(struct bench *, unsigned, uint32_t),
                    double (*ours)(struct bench *, unsigned, uint32_t), const char *limit)
{
    double with[ROUNDS], through[ROUNDS];

    for (int round = -1; round < ROUNDS; round++) { /* one round to warm up */
        double x = bare(b, batches, length), y = ours(b, batches, length);
        if (round >= 0)
            with[round] = x, through[round] = y;
    }
    bench_compare(name, with, through, ROUNDS, limit);
}

static void set_up(struct bench *b)
{
    const struct tap_config tap = {.name = NAME, .fd = -1, .pairs = 1};
    const struct net_config net = {.mac = {0x52, 0x54, 0, 0x12, 0x34, 0x56}};
    struct minivmm_error err = {""};

    if (guest_mem_init(&b->mem, 64 << 20, &err) < 0 || event_loop_init(&b->loop, &err) < 0 ||
        tap_create(&tap, &b->be, &err) < 0 ||
        net_create(&net, b->be, &b->mem, &b->loop, &b->net, &err) < 0) {
        fprintf(stderr, "net: %s\n", err.text);
        exit(1);
    }
    b->mmio.dev = net_device(b->net);
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(NAME)};
    b->far = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); /* receives nothing */
    if (b->far < 0 || bind(b->far, (struct sockaddr *)&to, sizeof(to)) < 0)
        fail("packet socket");
    start_driver(b);
    event_loop_once(&b->loop, 0);
}

int main(void)
{
    static struct bench b;
    int fd;

    if (unshare(CLONE_NEWNET) < 0 || access("/dev/net/tun", R_OK | W_OK) < 0) {
        printf("packets through a tap: skipped: %s\n", strerror(errno));
        return 0;
    }
    fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) { /* nothing but our own packets */
        if (write(fd, "1", 1) != 1)
            fail("disable_ipv6");
        close(fd);
    }
    set_up(&b);
    printf("%-44s %8s %8s   %s\n", "packets through a tap", "bare ns", "ours ns", "bare / ours");
    make_frames(&b, 60, false);
    measure(&b, "60 bytes out, beside writev", 200, 60, bare_send, our_send, "  limit 0.90");
    make_frames(&b, 65000, true);
    measure(&b, "65000 bytes out, GSO, beside writev", 20, 65000, bare_send, our_send,
            "  limit 0.90");
    measure(&b, "60 bytes in, beside readv", 200, 60, bare_receive, our_receive, "  limit 0.90");
    virtio_shutdown(net_device(b.net));
    net_destroy(b.net);
    event_loop_finish(&b.loop);
    guest_mem_finish(&b.mem);
    close(b.far);
    return 0;
}
