#include "tests/unit/net_rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_ids.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/net_stream.h"
#include "devices/tap.h"
#include "tests/guarded_mem.h"

#define SLOT 0xd0001000ull

const uint8_t net_rig_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
const uint8_t net_rig_broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* ---- the scripted backend ------------------------------------------------------------------ */

static struct net_script *script_of(struct net_backend *be)
{
    return (struct net_script *)be;
}

static ssize_t script_receive(struct net_backend *be, unsigned pair, const struct iovec *iov,
                              unsigned count)
{
    struct net_script *s = script_of(be);
    ssize_t rc = -EAGAIN;
    char byte;

    pthread_mutex_lock(&s->lock);
    s->receives++;
    s->first_in = iov[0].iov_base;
    if (s->in_begin[pair] != s->in_end[pair]) {
        struct net_script_packet *in = &s->in[pair][s->in_begin[pair]++ % NET_SCRIPT_MAX];
        if (s->in_begin[pair] == s->in_end[pair])
            MUST(recv(be->fds[pair], &byte, 1, MSG_DONTWAIT) == 1);
        rc = in->error ? in->error : (ssize_t)in->length;
        size_t at = 0;
        for (unsigned i = 0; i < count && rc > 0 && at < in->length; i++) {
            size_t part = in->length - at < iov[i].iov_len ? in->length - at : iov[i].iov_len;
            memcpy(iov[i].iov_base, in->data + at, part);
            at += part;
        }
        MUST(rc < 0 || at == in->length);
        free(in->data);
        in->data = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* Without room the socket's buffer is full, so that it does not poll writable. */
static void set_full(struct net_script *s, bool full)
{
    static char junk[4096];
    for (unsigned i = 0; i < s->be.pairs; i++) {
        int fd = full ? s->be.fds[i] : s->far[i];
        while (full ? send(fd, junk, sizeof(junk), MSG_DONTWAIT) > 0
                    : recv(fd, junk, sizeof(junk), MSG_DONTWAIT) > 0)
            ;
    }
}

static int script_send(struct net_backend *be, unsigned pair, const struct iovec *iov,
                       unsigned count)
{
    struct net_script *s = script_of(be);
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    s->first_out = iov[0].iov_base;
    if (s->send_error_times > 0) {
        s->send_error_times--;
        rc = s->send_error;
    } else if (s->room == 0) {
        rc = -EAGAIN;
    } else {
        struct net_script_packet *out = &s->out[s->out_end++ % NET_SCRIPT_MAX];
        *out = (struct net_script_packet){0};
        for (unsigned i = 0; i < count; i++)
            out->length += iov[i].iov_len;
        out->data = malloc(out->length);
        size_t at = 0;
        for (unsigned i = 0; i < count; at += iov[i++].iov_len)
            memcpy(out->data + at, iov[i].iov_base, iov[i].iov_len);
        s->out_pair = pair;
        s->room -= s->room > 0;
        if (s->room == 0)
            set_full(s, true);
    }
    bool answered = s->answers && rc == 0;
    pthread_mutex_unlock(&s->lock);
    if (answered) {
        uint8_t answer[NET_HEADER_SIZE + 60] = {0};
        net_rig_frame(answer + NET_HEADER_SIZE, 60, net_rig_mac, 0);
        net_script_give(s, pair, answer, sizeof(answer), 0);
    }
    return rc;
}

static int script_set_offloads(struct net_backend *be, uint64_t features)
{
    struct net_script *s = script_of(be);
    if (s->set_fails)
        return -EINVAL;
    s->offloads = features;
    return 0;
}

static int script_set_pairs(struct net_backend *be, unsigned pairs)
{
    struct net_script *s = script_of(be);
    if (s->set_fails)
        return -EIO;
    s->pairs = pairs;
    return 0;
}

static void script_destroy(struct net_backend *be)
{
    struct net_script *s = script_of(be);
    for (unsigned i = 0; i < be->pairs; i++) {
        close(be->fds[i]);
        close(s->far[i]);
    }
    for (unsigned i = 0; i < NET_PAIRS_MAX; i++)
        for (; s->in_begin[i] != s->in_end[i]; s->in_begin[i]++)
            free(s->in[i][s->in_begin[i] % NET_SCRIPT_MAX].data);
    for (; s->out_begin != s->out_end; s->out_begin++)
        free(s->out[s->out_begin % NET_SCRIPT_MAX].data);
    free(s);
}

static const struct net_backend_ops script_ops = {.receive = script_receive,
                                                  .send = script_send,
                                                  .set_offloads = script_set_offloads,
                                                  .set_pairs = script_set_pairs,
                                                  .destroy = script_destroy};

static struct net_backend *create_script(struct net_rig *rig)
{
    struct net_script *s = rig->script = calloc(1, sizeof(*s));
    MUST(s);
    pthread_mutex_init(&s->lock, NULL);
    s->be = (struct net_backend){
        .ops = &script_ops, .features = rig->config.features, .pairs = rig->config.pairs};
    s->room = -1;
    for (unsigned i = 0; i < s->be.pairs; i++) {
        int fds[2];
        MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
        s->be.fds[i] = fds[0];
        s->far[i] = fds[1];
    }
    return &s->be;
}

void net_script_give(struct net_script *s, unsigned pair, const void *packet, size_t length,
                     int error)
{
    pthread_mutex_lock(&s->lock);
    struct net_script_packet *in = &s->in[pair][s->in_end[pair]++ % NET_SCRIPT_MAX];
    MUST(s->in_end[pair] - s->in_begin[pair] <= NET_SCRIPT_MAX);
    *in = (struct net_script_packet){.error = error, .length = length};
    if (!error) {
        in->data = malloc(length ? length : 1);
        memcpy(in->data, packet, length);
    }
    if (s->in_end[pair] - s->in_begin[pair] == 1) /* a byte is there as long as packets are */
        MUST(send(s->far[pair], "", 1, 0) == 1);
    pthread_mutex_unlock(&s->lock);
}

void net_script_room(struct net_script *s, int room)
{
    pthread_mutex_lock(&s->lock);
    s->room = room;
    set_full(s, room == 0);
    pthread_mutex_unlock(&s->lock);
}

/* ---- the other two ------------------------------------------------------------------------- */

static struct net_backend *create_stream(struct net_rig *rig)
{
    struct net_stream_config config = {
        .mtu = rig->config.mtu ? rig->config.mtu : 65535, .allows = rig->config.allows, .arg = rig};
    struct minivmm_error err;
    struct net_backend *be;
    int fds[2];

    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    rig->far = fds[1];
    MUST(net_stream_create(&config, fds[0], 0, &be, &err) == 0);
    return be;
}

bool net_rig_namespace(void)
{
    if (unshare(CLONE_NEWNET) < 0) {
        fprintf(stderr, "skipped: a network namespace: %s\n", strerror(errno));
        return false;
    }
    int fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        MUST(write(fd, "1", 1) == 1);
        close(fd);
    }
    fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        fprintf(stderr, "skipped: /dev/net/tun: %s\n", strerror(errno));
        return false;
    }
    close(fd);
    return true;
}

static struct net_backend *create_tap(struct net_rig *rig)
{
    const struct tap_config config = {.name = NET_RIG_TAP_NAME,
                                      .fd = -1,
                                      .pairs = rig->config.pairs,
                                      .no_offload = rig->config.no_offload};
    struct minivmm_error err;
    struct net_backend *be;

    if (tap_create(&config, &be, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    struct sockaddr_ll to = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(NET_RIG_TYPE),
                             .sll_ifindex = (int)if_nametoindex(NET_RIG_TAP_NAME)};
    rig->far = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(NET_RIG_TYPE));
    MUST(rig->far >= 0 && bind(rig->far, (struct sockaddr *)&to, sizeof(to)) == 0);
    rig->config.mtu = rig->config.mtu ? rig->config.mtu : be->mtu;
    return be;
}

/* ---- life ---------------------------------------------------------------------------------- */

static void *loop_thread(void *arg)
{
    event_loop_run(arg);
    return NULL;
}

void net_rig_init(struct net_rig *rig, const struct net_rig_config *config)
{
    struct minivmm_error err;
    struct net_backend *be;

    memset(rig, 0, sizeof(*rig));
    rig->config = *config;
    rig->config.pairs = config->pairs ? config->pairs : 1;
    rig->far = -1;
    guarded_mem_add(&rig->mem, NET_RAM_A, NET_RAM_B - NET_RAM_A);
    guarded_mem_add(&rig->mem, NET_RAM_B, NET_RAM_HOLE - NET_RAM_B);
    guarded_mem_add(&rig->mem, NET_RAM_C, NET_RAM_SIZE);
    MUST(event_loop_init(&rig->loop, &err) == 0);
    be = config->kind == NET_RIG_SCRIPT   ? create_script(rig)
         : config->kind == NET_RIG_STREAM ? create_stream(rig)
                                          : create_tap(rig);
    struct net_config net = {
        .mtu = rig->config.mtu, .no_filter = config->no_filter, .pcap = config->pcap};
    memcpy(net.mac, net_rig_mac, sizeof(net.mac));
    MUST(net_create(&net, be, &rig->mem, &rig->loop, &rig->net, &err) == 0);
    rig->slot.dev = net_device(rig->net);
    bus_add(&rig->bus, SLOT, VIRTIO_MMIO_SIZE, &virtio_mmio_ops, &rig->slot);
    rig->driver = (struct net_driver){.v = {.bus = &rig->bus,
                                            .mem = &rig->mem,
                                            .loop = &rig->loop,
                                            .call = rig->slot.dev->call,
                                            .rings = NET_RAM_C},
                                      .memory = NET_MEMORY};
    MUST(virtio_driver_find(&rig->driver.v, SLOT, 1, VIRTIO_ID_NET));
    if (config->threaded) {
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &old);
        rig->loop.has_thread = true;
        MUST(pthread_create(&rig->thread, NULL, loop_thread, &rig->loop) == 0);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    resources_take(&rig->before);
}

void net_rig_finish(struct net_rig *rig)
{
    virtio_shutdown(rig->slot.dev);
    if (rig->loop.has_thread) {
        event_loop_stop(&rig->loop);
        pthread_join(rig->thread, NULL);
    }
    virtio_driver_finish(&rig->driver.v);
    net_destroy(rig->net);
    event_loop_finish(&rig->loop);
    guest_mem_finish(&rig->mem);
    if (rig->far >= 0)
        close(rig->far);
    memset(rig, 0, sizeof(*rig));
}

void *net_rig_at(const struct net_rig *rig, uint64_t gpa, uint64_t length)
{
    void *at = guest_mem_at(&rig->mem, gpa, length);
    MUST(at);
    return at;
}

/* ---- frames -------------------------------------------------------------------------------- */

void net_rig_frame(uint8_t *frame, size_t length, const uint8_t *to, uint32_t number)
{
    static const uint8_t from[6] = {2, 0, 0, 0, 0, 9};

    memcpy(frame, to, 6);
    memcpy(frame + 6, from, 6);
    frame[12] = NET_RIG_TYPE >> 8;
    frame[13] = NET_RIG_TYPE & 0xff;
    for (size_t i = ETH_HLEN; i < length; i++)
        frame[i] = (uint8_t)(i < ETH_HLEN + 4 ? number >> 8 * (i - ETH_HLEN)
                                              : i * 7 + i / 251 + number + length);
}

bool net_rig_is_frame(const uint8_t *frame, int length, size_t want, uint32_t number)
{
    static uint8_t should[NET_PACKET_MAX];
    if (length < 0 || (size_t)length != want)
        return false;
    net_rig_frame(should, want, frame, number);
    return memcmp(frame, should, want) == 0;
}

static bool write_all(int fd, const uint8_t *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = send(fd, data + done, size - done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

bool net_rig_far_send(struct net_rig *rig, const uint8_t *frame, size_t length)
{
    static uint8_t packet[NET_PACKET_MAX + 4];

    if (rig->config.kind == NET_RIG_SCRIPT) {
        memset(packet, 0, NET_HEADER_SIZE);
        memcpy(packet + NET_HEADER_SIZE, frame, length);
        net_script_give(rig->script, 0, packet, NET_HEADER_SIZE + length, 0);
        return true;
    }
    if (rig->config.kind == NET_RIG_TAP)
        return send(rig->far, frame, length, 0) == (ssize_t)length;
    uint32_t prefix = htonl((uint32_t)length);
    memcpy(packet, &prefix, sizeof(prefix));
    memcpy(packet + sizeof(prefix), frame, length);
    return write_all(rig->far, packet, sizeof(prefix) + length);
}

static int script_take(struct net_script *s, uint8_t *frame)
{
    int length = -1;
    pthread_mutex_lock(&s->lock);
    if (s->out_begin != s->out_end) {
        struct net_script_packet *out = &s->out[s->out_begin++ % NET_SCRIPT_MAX];
        length = (int)(out->length - NET_HEADER_SIZE);
        memcpy(frame, out->data + NET_HEADER_SIZE, (size_t)length);
        free(out->data);
        out->data = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    return length;
}

/* A frame that has arrived whole; the far end of a stream may have to wait for the rest of it. */
static int stream_take(int fd, uint8_t *frame)
{
    uint32_t prefix;
    if (recv(fd, &prefix, sizeof(prefix), MSG_DONTWAIT | MSG_PEEK) != sizeof(prefix))
        return -1;
    uint32_t length = ntohl(prefix);
    static uint8_t packet[NET_PACKET_MAX + 4];
    MUST(length <= NET_PACKET_MAX);
    if (recv(fd, packet, 4 + length, MSG_DONTWAIT | MSG_PEEK) != (ssize_t)(4 + length))
        return -1;
    MUST(recv(fd, packet, 4 + length, MSG_DONTWAIT) == (ssize_t)(4 + length));
    memcpy(frame, packet + 4, length);
    return (int)length;
}

static int tap_take(int fd, uint8_t *frame)
{
    for (;;) {
        struct sockaddr_ll from;
        socklen_t size = sizeof(from);
        ssize_t n =
            recvfrom(fd, frame, NET_PACKET_MAX, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
        if (n < 0)
            return -1;
        if (from.sll_pkttype != PACKET_OUTGOING)
            return (int)n;
    }
}

int net_rig_far_receive(struct net_rig *rig, uint8_t *frame, bool wait)
{
    for (unsigned i = 0; i < VIRTIO_DRIVER_MS; i++) {
        int length = rig->config.kind == NET_RIG_SCRIPT   ? script_take(rig->script, frame)
                     : rig->config.kind == NET_RIG_STREAM ? stream_take(rig->far, frame)
                                                          : tap_take(rig->far, frame);
        if (length >= 0 || !wait)
            return length;
        if (rig->loop.has_thread)
            usleep(1000);
        else
            event_loop_once(&rig->loop, 1);
    }
    return -1;
}

bool net_rig_works(struct net_rig *rig)
{
    static uint8_t frame[NET_PACKET_MAX];
    static uint32_t number = 1000000;
    struct net_driver *d = &rig->driver;
    uint32_t status = virtio_driver_read(&d->v, VIRTIO_MMIO_STATUS);

    if ((status != STATUS_DRIVER_OK || d->v.queue_count == 0 || d->v.queues[0].free_count < 2 ||
         d->v.queues[1].free_count < 2) &&
        !net_driver_start(d, UINT64_MAX, 0))
        return false;
    while (net_rig_far_receive(rig, frame, false) >= 0)
        ;
    virtio_driver_settle(&d->v);
    while (net_driver_take(d, 0, frame) >= 0)
        ;
    d->piece = 0;
    d->fault = NULL;
    number++;
    net_rig_frame(frame, 100, net_rig_broadcast, number);
    if (!net_driver_send(d, 0, frame, 100) ||
        !net_rig_is_frame(frame, net_rig_far_receive(rig, frame, true), 100, number)) {
        fprintf(stderr, "canary: out\n");
        return false;
    }
    net_driver_add(d, 0, 1, 2048);
    number++;
    net_rig_frame(frame, 100,
                  d->v.features & FEATURE(VIRTIO_NET_F_MAC) ? net_rig_mac : net_rig_broadcast,
                  number);
    if (!net_rig_far_send(rig, frame, 100) ||
        !net_rig_is_frame(frame, net_driver_receive(d, 0, frame), 100, number)) {
        fprintf(stderr, "canary: in: %s\n", d->fault ? d->fault : "");
        return false;
    }
    return resources_are_back(&rig->before, 0, &rig->loop, rig->thread);
}
