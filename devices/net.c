#include "devices/net.h"

#include <assert.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "devices/net_rx.h"
#include "devices/pcap.h"
#include "virtio/local.h"
#include "virtio/span.h"
#include "vmm/counter.h"

#ifndef VIRTIO_NET_F_GUEST_USO4 /* Linux 6.2 has these; older headers do not name them */
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#endif

#define BIT(n) (1ull << (n))

#define GUEST_OFFLOADS                                                                             \
    (BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) |  \
     BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_GUEST_UFO) | BIT(VIRTIO_NET_F_GUEST_USO4) |    \
     BIT(VIRTIO_NET_F_GUEST_USO6))

/* Packets that stand for several segments, and are larger than the MTU. */
#define GUEST_SEGMENTS (GUEST_OFFLOADS & ~(BIT(VIRTIO_NET_F_GUEST_CSUM)))

/* In front of what the MTU counts: Ethernet, and two VLAN tags. */
#define FRAME_HEAD_MAX (ETH_HLEN + 2 * 4u)

#define BUDGET 256u /* packets or commands before others have their turn */

/* Pieces of a packet out; with more the driver breaks the queue. Below IOV_MAX. */
#define TX_PIECES_MAX (NET_QUEUE_SIZE + 16)

/* From this mean length on, packets out are bulk; below half of it no more. */
#define TX_BULK      8192u
#define TX_MEAN_PART 4u /* of the mean is the last packet */

/* What the backend left from before the driver was there is thrown away: so many packets at most,
 * more than small ones fit into a socket. */
#define STALE_MAX 32768u

struct pair {
    struct net *net;
    unsigned index;
    struct net_rx rx;
    struct virtio_queue *tx;
    struct event_source source; /* the backend's descriptor */
    bool watched;
    bool lost;        /* the other end is gone: its descriptor means nothing any more */
    uint32_t events;  /* what it is watched for */
    bool rx_waits;    /* for packets: else for buffers of the driver's */
    bool tx_waits;    /* for room */
    uint64_t tx_mean; /* bytes of a packet out, the last ones counting most */
};

struct net {
    struct virtio_dev dev;
    struct virtio_net_config config;
    struct net_backend *be;
    struct net_filter filter;
    struct pcap *pcap;
    uint8_t mac[6];  /* what it is after a reset */
    unsigned active; /* pairs in use */
    bool fresh;      /* negotiated, and not started since */
    struct net_drops drops;
    struct pair *pairs;
};

static struct net *net_of(struct virtio_dev *dev)
{
    return (struct net *)((char *)dev - offsetof(struct net, dev));
}

/* 5.1.2: without MQ there is one pair, and the control queue comes right after it. */
static unsigned pairs_of(const struct net *net)
{
    return virtio_has(&net->dev, VIRTIO_NET_F_MQ) ? net->be->pairs : 1;
}

/* Is this pair, or one half of it, in the driver's hands, and its data path ours and no vhost's? */
static bool is_local(const struct net *net, const struct pair *pair)
{
    return pair->index < pairs_of(net) && (pair->rx.queue->ready || pair->tx->ready) &&
           pair->rx.queue->index >= net->dev.local_first;
}

static void watch(struct pair *pair)
{
    uint32_t events = (pair->rx_waits ? EPOLLIN : 0) | (pair->tx_waits ? EPOLLOUT : 0);

    if (pair->watched && !pair->lost && events != pair->events) {
        pair->events = events;
        event_loop_change(pair->net->dev.loop, &pair->source, events);
    }
}

static void unwatch(struct pair *pair)
{
    if (pair->watched)
        event_loop_remove(pair->net->dev.loop, &pair->source);
    pair->watched = false;
}

/*
 * The other end is gone for good: the cable is out. Its descriptors, which poll as broken for ever,
 * are told of once more and then no more; they are not removed here, because a borrower of the loop
 * may be the one who finds out, and the loop's thread about to call on them.
 */
static void drop_link(struct net *net)
{
    for (unsigned i = 0; i < net->be->pairs; i++) {
        struct pair *pair = &net->pairs[i];
        if (pair->watched && !pair->lost)
            event_loop_change(net->dev.loop, &pair->source, EPOLLET);
        pair->lost = true;
    }
    if (net->config.status & VIRTIO_NET_S_LINK_UP) {
        virtio_config_begin(&net->dev);
        net->config.status &= (uint16_t)~VIRTIO_NET_S_LINK_UP;
        virtio_config_end(&net->dev);
    }
}

void net_lose_link(struct net *net)
{
    drop_link(net);
}

/* ---- packets ------------------------------------------------------------------------------- */

static int serve_rx(struct pair *pair)
{
    int rc = net_rx_drain(&pair->rx);

    pair->rx_waits = rc == -EAGAIN;
    if (rc == -EBADFD) {
        drop_link(pair->net);
        rc = -EAGAIN;
    }
    watch(pair);
    return rc;
}

/* The backend takes nothing more for now, or has something that it could not send yet. */
static void wait_for_room(struct pair *pair)
{
    pair->tx_waits = true;
    watch(pair);
}

/* 0 when the packet is gone, whatever became of it; -EAGAIN when it has to wait. */
static int send_packet(struct pair *pair, const struct virtq_span *rd)
{
    struct net *net = pair->net;

    int rc = rd->length < NET_HEADER_SIZE || rd->length > NET_PACKET_MAX
                 ? -EINVAL
                 : net->be->ops->send(net->be, pair->index, rd->iov, rd->count);
    if (rc == -EAGAIN)
        return rc;
    if (rc == -EBADFD)
        drop_link(net);
    if (rc == 1)
        wait_for_room(pair);
    if (rc < 0)
        counter_add(&net->drops.sent, 1);
    else if (net->pcap)
        pcap_add(net->pcap, rd->iov, rd->count, NET_HEADER_SIZE, rd->length);
    return 0;
}

/* Large packets are a stream, in which nobody waits for a single one. */
static void note_length(struct pair *pair, uint64_t length)
{
    pair->tx_mean = pair->tx_mean - pair->tx_mean / TX_MEAN_PART + length / TX_MEAN_PART;
    local_bulk(pair->tx, pair->tx_mean > (pair->tx->bulk ? TX_BULK / 2 : TX_BULK));
}

static int serve_tx(struct pair *pair)
{
    struct iovec iov[TX_PIECES_MAX];
    struct virtq_chain chain = {.iov = iov, .capacity = TX_PIECES_MAX};

    for (unsigned i = 0; i < BUDGET; i++) {
        int rc = virtq_next(&pair->tx->ring, &chain);
        if (rc <= 0)
            return rc;
        if (send_packet(pair, &chain.rd) == -EAGAIN) {
            virtq_undo(&pair->tx->ring, &chain);
            wait_for_room(pair);
            return -EAGAIN;
        }
        note_length(pair, chain.rd.length < NET_PACKET_MAX ? chain.rd.length : NET_PACKET_MAX);
        local_done(pair->tx, &chain, 0);
    }
    return 1;
}

/*
 * What answers bulk is often there when it has been sent: where the other end is this host, its
 * network stack has done all of it within the call. Taken now, one turn of the loop does for both.
 * Not so for small packets, which are sent by a borrower of the loop: its thread is awake for the
 * answer by then, and would wait for the borrower.
 */
static void take_answers(struct pair *pair)
{
    if (pair->rx_waits && !pair->lost && serve_rx(pair) != -EAGAIN)
        local_resume(pair->rx.queue);
}

/* There is room at the backend again. */
static void continue_tx(struct pair *pair)
{
    struct net_backend *be = pair->net->be;

    int rc = be->ops->flush ? be->ops->flush(be, pair->index) : 0;
    if (rc == -EBADFD)
        drop_link(pair->net);
    if (rc == -EAGAIN)
        return;
    pair->tx_waits = false;
    watch(pair);
    local_resume(pair->tx);
}

static void handle_backend(struct event_source *source, uint32_t events)
{
    struct pair *pair = source->arg;

    if (pair->lost)
        return;
    if (pair->tx_waits && (events & ~(uint32_t)EPOLLIN))
        continue_tx(pair);
    /* An error that nobody waits for has to be taken off all the same, or it comes for ever. */
    if (!(events & ~(uint32_t)EPOLLOUT))
        return;
    int rc = pair->rx.chains > 0 || pair->rx_waits ? serve_rx(pair) : 0;
    if (rc == 0 && (events & (EPOLLERR | EPOLLHUP)))
        drop_link(pair->net);
    else if (rc != -EAGAIN)
        local_resume(pair->rx.queue); /* goes on, asks for a kick, or breaks the device */
}

/* ---- control queue ------------------------------------------------------------------------- */

static bool set_pairs(void *arg, unsigned pairs)
{
    struct net *net = arg;

    if (pairs < 1 || pairs > pairs_of(net) || net->be->ops->set_pairs(net->be, pairs) < 0)
        return false;
    net->active = pairs;
    for (unsigned i = 0; i < pairs; i++) {
        if (is_local(net, &net->pairs[i])) {
            local_resume(net->pairs[i].rx.queue);
            local_resume(net->pairs[i].tx);
        }
    }
    return true;
}

/* In which forms packets come from now on; negative errno. */
static int choose_offloads(struct net *net, uint64_t offloads)
{
    uint32_t frame = NET_HEADER_SIZE + FRAME_HEAD_MAX + net->be->mtu;

    int rc = net->be->ops->set_offloads(net->be, offloads);
    bool known = rc == 0 && net->be->mtu && !(offloads & GUEST_SEGMENTS);
    for (unsigned i = 0; i < net->be->pairs; i++)
        net->pairs[i].rx.bound = known && frame < NET_PACKET_MAX ? frame : NET_PACKET_MAX;
    return rc;
}

static bool set_offloads(void *arg, uint64_t offloads)
{
    struct net *net = arg;
    return (offloads & ~(net->dev.accepted & GUEST_OFFLOADS)) == 0 &&
           choose_offloads(net, offloads) == 0;
}

static bool announced(void *arg)
{
    struct net *net = arg;
    pthread_mutex_lock(&net->dev.config_lock); /* the driver knows: no interrupt */
    net->config.status &= (uint16_t)~VIRTIO_NET_S_ANNOUNCE;
    pthread_mutex_unlock(&net->dev.config_lock);
    return true;
}

static bool set_mac(void *arg, const uint8_t *mac)
{
    struct net *net = arg;
    pthread_mutex_lock(&net->dev.config_lock);
    memcpy(net->config.mac, mac, sizeof(net->config.mac));
    pthread_mutex_unlock(&net->dev.config_lock);
    return true;
}

static const struct net_control_ops control_ops = {.set_pairs = set_pairs,
                                                   .set_offloads = set_offloads,
                                                   .announced = announced,
                                                   .set_mac = set_mac};

static int serve_control(struct net *net, struct virtio_queue *queue)
{
    struct iovec iov[NET_QUEUE_SIZE + 1];
    struct virtq_chain chain = {.iov = iov, .capacity = NET_QUEUE_SIZE + 1};
    uint8_t command[NET_COMMAND_MAX];

    for (unsigned i = 0; i < BUDGET; i++) {
        int rc = virtq_next(&queue->ring, &chain);
        if (rc <= 0)
            return rc;
        struct virtq_span rd = chain.rd, wr = chain.wr;
        size_t size = (size_t)rd.length;
        uint8_t ack = VIRTIO_NET_ERR;
        if (size <= sizeof(command) && wr.length > 0) {
            span_take(&rd, command, size);
            ack = net_control(&net->filter, &control_ops, net, net->dev.accepted, command, size);
        }
        local_done(queue, &chain, (uint32_t)span_put(&wr, &ack, sizeof(ack)));
    }
    return 1;
}

/* ---- the device ---------------------------------------------------------------------------- */

static int serve(struct virtio_queue *queue)
{
    struct net *net = net_of(queue->dev);
    unsigned index = queue->index / 2;

    if (queue->index == 2 * pairs_of(net))
        return serve_control(net, queue);
    if (index >= net->active) /* 5.1.6.5.6.2: not before it is switched on */
        return -EAGAIN;
    if (queue->index % 2 == 0)
        return serve_rx(&net->pairs[index]);
    int rc = serve_tx(&net->pairs[index]);
    if (rc == 0 && queue->bulk)
        take_answers(&net->pairs[index]);
    return rc;
}

/* Packets that arrived before the driver was there are not for it (2.4.1). */
static void throw_stale(struct pair *pair)
{
    struct iovec spare = {.iov_base = pair->rx.spare, .iov_len = NET_PACKET_MAX};
    struct net_backend *be = pair->net->be;

    for (unsigned i = 0; i < STALE_MAX; i++) {
        if (be->ops->receive(be, pair->index, &spare, 1) < 0)
            return;
    }
}

/* Not at every start: the end of one queue is none of what the driver has told about others. */
static void negotiated(struct virtio_dev *dev)
{
    struct net *net = net_of(dev);

    net_filter_init(&net->filter, net->config.mac);
    net->filter.vlan_filter = virtio_has(dev, VIRTIO_NET_F_CTRL_VLAN);
    net->active = 1;
    net->fresh = true;
    net->be->ops->set_pairs(net->be, 1);
    /* A set that the backend cannot do leaves none, and not those of the driver before. */
    if (choose_offloads(net, dev->accepted & GUEST_OFFLOADS) < 0)
        choose_offloads(net, 0);
}

static void started(struct virtio_dev *dev)
{
    struct net *net = net_of(dev);

    for (unsigned i = 0; i < net->be->pairs; i++) {
        struct pair *pair = &net->pairs[i];
        if (net->fresh)
            throw_stale(pair);
        if (!is_local(net, pair))
            continue;
        net_rx_start(&pair->rx, virtio_has(dev, VIRTIO_NET_F_MRG_RXBUF));
        pair->lost = pair->rx_waits = false;
        pair->tx_mean = 0;
        pair->tx_waits = net->be->ops->flush != NULL; /* the end of a packet from before, perhaps */
        pair->events = 0;
        pair->source =
            (struct event_source){.fd = net->be->fds[i], .ready = handle_backend, .arg = pair};
        pair->watched = event_loop_add(dev->loop, &pair->source, 0) == 0;
        watch(pair);
    }
    net->fresh = false;
}

static void stopping(struct virtio_dev *dev)
{
    struct net *net = net_of(dev);

    for (unsigned i = 0; i < net->be->pairs; i++) {
        unwatch(&net->pairs[i]);
        net_rx_stop(&net->pairs[i].rx);
    }
}

void net_announce(struct net *net)
{
    virtio_config_begin(&net->dev);
    net->config.status |= VIRTIO_NET_S_ANNOUNCE;
    virtio_config_end(&net->dev);
}

static void reset(struct virtio_dev *dev)
{
    struct net *net = net_of(dev);
    pthread_mutex_lock(&dev->config_lock);
    memcpy(net->config.mac, net->mac, sizeof(net->mac));
    net->config.status &= (uint16_t)~VIRTIO_NET_S_ANNOUNCE;
    pthread_mutex_unlock(&dev->config_lock);
}

static const struct virtio_type net_type = {.name = "net",
                                            .id = VIRTIO_ID_NET,
                                            .serve = serve,
                                            .started = started,
                                            .stopping = stopping,
                                            .negotiated = negotiated,
                                            .reset = reset};

static uint64_t features_of(const struct net_config *config, const struct net_backend *be)
{
    uint64_t features = be->features | BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) |
                        BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_CTRL_VQ) |
                        BIT(VIRTIO_NET_F_CTRL_MAC_ADDR) | BIT(VIRTIO_NET_F_GUEST_ANNOUNCE);
    if (!config->no_filter)
        features |= BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_RX_EXTRA) |
                    BIT(VIRTIO_NET_F_CTRL_VLAN);
    if (be->features & GUEST_OFFLOADS)
        features |= BIT(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
    if (config->mtu)
        features |= BIT(VIRTIO_NET_F_MTU);
    if (be->pairs > 1)
        features |= BIT(VIRTIO_NET_F_MQ);
    return features;
}

static int create_pairs(struct net *net)
{
    unsigned count = net->be->pairs;

    net->pairs = calloc(count, sizeof(net->pairs[0]));
    int rc = net->pairs ? 0 : -ENOMEM;
    for (unsigned i = 0; rc == 0 && i < count; i++) {
        struct pair *pair = &net->pairs[i];
        pair->net = net;
        pair->index = i;
        pair->tx = &net->dev.queues[2 * i + 1];
        pair->rx.queue = &net->dev.queues[2 * i];
        pair->rx.be = net->be;
        pair->rx.pair = i;
        pair->rx.filter = &net->filter;
        pair->rx.pcap = net->pcap;
        pair->rx.drops = &net->drops;
        rc = net_rx_init(&pair->rx);
    }
    return rc;
}

int net_create(const struct net_config *config, struct net_backend *be, const struct guest_mem *mem,
               struct event_loop *loop, struct net **out, struct minivmm_error *err)
{
    assert(be->pairs >= 1 && be->pairs <= NET_PAIRS_MAX);
    struct net *net = calloc(1, sizeof(*net));
    if (!net) {
        be->ops->destroy(be);
        return error_set(err, -ENOMEM, "net %u: out of memory", config->index);
    }
    net->be = be;
    net->pcap = config->pcap;
    net->active = 1;
    memcpy(net->mac, config->mac, sizeof(net->mac));
    net->config = (struct virtio_net_config){.status = VIRTIO_NET_S_LINK_UP,
                                             .max_virtqueue_pairs = (uint16_t)be->pairs,
                                             .mtu = (uint16_t)config->mtu};
    memcpy(net->config.mac, config->mac, sizeof(net->config.mac));
    int rc = virtio_init(&net->dev, &net_type, mem, loop, features_of(config, be),
                         2 * be->pairs + 1, NET_QUEUE_SIZE, &net->config, sizeof(net->config));
    if (rc == 0)
        rc = create_pairs(net);
    if (rc < 0) {
        net_destroy(net);
        return error_set(err, rc, "net %u: %s", config->index, strerror(-rc));
    }
    *out = net;
    return 0;
}

void net_destroy(struct net *net)
{
    if (!net)
        return;
    for (unsigned i = 0; net->pairs && i < net->be->pairs; i++)
        net_rx_finish(&net->pairs[i].rx);
    free(net->pairs);
    virtio_finish(&net->dev);
    net->be->ops->destroy(net->be);
    free(net);
}

struct virtio_dev *net_device(struct net *net)
{
    return &net->dev;
}

struct net_drops net_drops(const struct net *net)
{
    return (struct net_drops){.sent = counter_get(&net->drops.sent),
                              .received = counter_get(&net->drops.received),
                              .filtered = counter_get(&net->drops.filtered)};
}
