#include "devices/net_rx.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "devices/pcap.h"
#include "virtio/local.h"
#include "vmm/counter.h"

#define BUDGET 256u /* packets */

/* Room for an ordinary frame is always wanted. */
#define WANT_MIN (NET_HEADER_SIZE + ETH_HLEN + 4 + ETH_DATA_LEN)
/* So much slower is a large packet forgotten than noticed: by 1/16 of the difference a packet. */
#define WANT_DECAY 16u

/* Pieces of one buffer: as many descriptors as a queue has, and one split between regions. */
#define CHAIN_PIECES (NET_QUEUE_SIZE + 1)

_Static_assert(sizeof(struct virtio_net_hdr_v1) == NET_HEADER_SIZE, "5.1.6");

int net_rx_init(struct net_rx *rx)
{
    rx->spare = malloc(NET_PACKET_MAX);
    return rx->spare ? 0 : -ENOMEM;
}

void net_rx_finish(struct net_rx *rx)
{
    free(rx->spare);
    rx->spare = NULL;
}

void net_rx_start(struct net_rx *rx, bool mergeable)
{
    rx->mergeable = mergeable;
    rx->want = mergeable ? WANT_MIN : 1; /* without merging, one buffer is all a packet gets */
    rx->window = rx->packet = 0;
    rx->chains = rx->pieces = 0;
}

void net_rx_stop(struct net_rx *rx)
{
    while (rx->chains > 0)
        virtq_undo(&rx->queue->ring, &rx->chain[--rx->chains]);
    rx->window = rx->packet = 0;
    rx->pieces = 0;
}

/* Take one more buffer into the window: 1, 0 when there is none or no room, -EPROTO. */
static int take_buffer(struct net_rx *rx)
{
    for (unsigned i = 0; i < NET_QUEUE_SIZE; i++) {
        if (rx->chains == NET_RX_CHAINS_MAX || rx->pieces + CHAIN_PIECES > NET_RX_PIECES_MAX)
            return 0;
        struct virtq_chain *chain = &rx->chain[rx->chains];
        chain->iov = &rx->iov[rx->pieces];
        chain->capacity = CHAIN_PIECES;
        int rc = virtq_next(&rx->queue->ring, chain);
        if (rc <= 0)
            return rc;
        if (chain->wr.length == 0 && rx->chains == 0) {
            /* Nothing can be put there. Behind others it stays in the window, as a buffer of no
             * bytes: what was taken ahead is given back from the end, and has no gaps. */
            local_done(rx->queue, chain, 0);
            continue;
        }
        /* Readable bytes mean nothing here (5.1.6.3); the pieces of the window are all writable. */
        if (chain->rd.count > 0)
            memmove(chain->iov, chain->wr.iov, chain->wr.count * sizeof(struct iovec));
        rx->chains++;
        rx->pieces += chain->wr.count;
        rx->window += chain->wr.length;
        return 1;
    }
    return 0;
}

/* Drop the first `count` buffers from the window: they are the driver's again. */
static void consume(struct net_rx *rx, unsigned count)
{
    unsigned pieces = 0;

    if (count == rx->chains) { /* as a rule: nothing is left to be moved */
        rx->chains = rx->pieces = 0;
        rx->window = 0;
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        pieces += rx->chain[i].wr.count;
        rx->window -= rx->chain[i].wr.length;
    }
    rx->chains -= count;
    rx->pieces -= pieces;
    memmove(rx->chain, rx->chain + count, rx->chains * sizeof(rx->chain[0]));
    memmove(rx->iov, rx->iov + pieces, rx->pieces * sizeof(rx->iov[0]));
}

/* Copy between `pieces`, from `offset` on, and `data`; returns how much there was of it. */
static size_t copy_pieces(const struct net_rx *rx, unsigned pieces, size_t offset, uint8_t *data,
                          size_t size, bool into)
{
    size_t copied = 0;

    for (unsigned i = 0; i < pieces && copied < size; i++) {
        const struct iovec *piece = &rx->iov[i];
        if (offset >= piece->iov_len) {
            offset -= piece->iov_len;
            continue;
        }
        size_t part = piece->iov_len - offset;
        if (part > size - copied)
            part = size - copied;
        uint8_t *there = (uint8_t *)piece->iov_base + offset;
        if (into)
            memcpy(there, data + copied, part);
        else
            memcpy(data + copied, there, part);
        copied += part;
        offset = 0;
    }
    return copied;
}

/* Copy into the window. */
static void put(const struct net_rx *rx, size_t offset, const void *data, size_t size)
{
    copy_pieces(rx, rx->pieces, offset, (uint8_t *)data, size, true);
}

/* The packet of `size` bytes lies in the window: give the driver its buffers, all at once. */
static void deliver(struct net_rx *rx, uint32_t size)
{
    unsigned count = 0;

    for (uint64_t covered = 0; covered < size; count++)
        covered += rx->chain[count].wr.length;
    uint16_t buffers = (uint16_t)count; /* 5.1.6.4.1: 1 without merging */
    if (rx->iov[0].iov_len >= NET_HEADER_SIZE) {
        struct virtio_net_hdr_v1 *header = rx->iov[0].iov_base; /* at any address */
        memcpy(&header->num_buffers, &buffers, sizeof(buffers));
    } else {
        put(rx, offsetof(struct virtio_net_hdr_v1, num_buffers), &buffers, sizeof(buffers));
    }
    for (unsigned i = 0; i < count; i++) {
        uint32_t part = (uint32_t)rx->chain[i].wr.length;
        if (part > size)
            part = size;
        virtq_put(&rx->queue->ring, &rx->chain[i], part);
        size -= part;
    }
    local_publish(rx->queue);
    consume(rx, count);
}

/* Do the buffers of the window take up all the ring, so that the driver cannot add one? */
static bool holds_the_ring(const struct net_rx *rx)
{
    unsigned size = rx->queue->config.size, slots = 0;

    for (unsigned i = 0; i < rx->chains && slots < size; i++)
        slots += virtq_slots(&rx->queue->ring, &rx->chain[i], size - slots);
    return slots >= size;
}

/* A packet waits for buffers: true when it is done with, false when it goes on waiting. */
static bool continue_overrun(struct net_rx *rx, int *rc)
{
    while (rx->window < rx->packet) {
        uint32_t before = (uint32_t)rx->window; /* less than a packet has */
        *rc = take_buffer(rx);
        if (*rc == 0 && rx->pieces + CHAIN_PIECES <= NET_RX_PIECES_MAX && !holds_the_ring(rx))
            return false;
        if (*rc != 1) { /* broken, or the driver's buffers can never hold it */
            counter_add(&rx->drops->received, 1);
            rx->packet = 0;
            return true;
        }
        put(rx, before, rx->spare + (before - rx->overrun), rx->packet - before);
    }
    deliver(rx, rx->packet);
    rx->packet = 0;
    return true;
}

/* A packet of `size` bytes has come: is it for this driver? Some of it may be in the spare. */
static bool passes(const struct net_rx *rx, uint32_t size)
{
    uint8_t frame[ETH_HLEN + 4];
    size_t length = size - NET_HEADER_SIZE;

    if (rx->filter->promiscuous)
        return true;
    length = length < sizeof(frame) ? length : sizeof(frame);
    copy_pieces(rx, rx->pieces + 1, NET_HEADER_SIZE, frame, length, false);
    return net_filter_passes(rx->filter, frame, length);
}

/* A packet of `size` bytes has come into the window, and perhaps over it. */
static void accept(struct net_rx *rx, uint32_t size)
{
    if (rx->mergeable && size > rx->want)
        rx->want = size;
    else if (rx->mergeable && rx->want > WANT_MIN)
        rx->want -= (rx->want - (size > WANT_MIN ? size : WANT_MIN)) / WANT_DECAY;
    if (!passes(rx, size)) {
        counter_add(&rx->drops->filtered, 1);
        return;
    }
    if (rx->pcap)
        pcap_add(rx->pcap, rx->iov, rx->pieces + 1, NET_HEADER_SIZE, size);
    if (size <= rx->window) {
        deliver(rx, size);
    } else if (rx->mergeable) {
        rx->packet = size;
        rx->overrun = (uint32_t)rx->window;
    } else {
        counter_add(&rx->drops->received, 1);
    }
}

int net_rx_drain(struct net_rx *rx)
{
    for (unsigned i = 0; i < BUDGET; i++) {
        int rc = 1;
        if (rx->packet > 0 && !continue_overrun(rx, &rc))
            return 0;
        while (rc == 1 && rx->window < rx->want)
            rc = take_buffer(rx);
        if (rc == -EPROTO)
            return rc;
        if (rx->chains == 0)
            return 0;
        rx->iov[rx->pieces] = (struct iovec){.iov_base = rx->spare, .iov_len = NET_PACKET_MAX};
        /* A piece less to look after, where nothing can run over. What fills such a window to the
         * last byte was larger than anything may be, and is cut off. */
        bool cuts = rx->window > rx->bound;
        ssize_t size = rx->be->ops->receive(rx->be, rx->pair, rx->iov, rx->pieces + !cuts);
        if (size == -EAGAIN || size == -EBADFD)
            return (int)size;
        if (size < (ssize_t)NET_HEADER_SIZE || (cuts && (uint64_t)size >= rx->window))
            counter_add(&rx->drops->received, 1);
        else
            accept(rx, (uint32_t)size);
    }
    return 1;
}
