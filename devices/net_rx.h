/*
 * The receiving half of a network device's queue pair. All on the loop's thread.
 *
 * The next buffers of the driver's are taken off the queue ahead of the packets, so that the
 * backend reads straight into them: the window. How many is guessed from the packets before. What
 * does not fit runs over into memory of our own and is copied from there. A packet that all of the
 * driver's buffers do not hold waits for more of them as long as the driver has descriptors left to
 * offer them with (5.1.6.3 leaves it to the driver how many it offers); when the buffers take up
 * the whole ring it is dropped, for nothing else could ever come through.
 */
#ifndef DEVICES_NET_RX_H
#define DEVICES_NET_RX_H

#include "devices/net.h"
#include "devices/net_control.h"

#define NET_RX_CHAINS_MAX NET_QUEUE_SIZE
#define NET_RX_PIECES_MAX 1023u /* with the overrun's, as many as readv takes */

struct net_rx {
    struct virtio_queue *queue;
    struct net_backend *be;
    unsigned pair;
    bool mergeable; /* VIRTIO_NET_F_MRG_RXBUF: a packet may take several buffers */
    const struct net_filter *filter;
    struct pcap *pcap;
    struct net_drops *drops;

    uint32_t bound;   /* no packet is larger */
    uint32_t want;    /* bytes of buffers to have ready */
    uint64_t window;  /* bytes of buffers that are; one may have 4 GiB */
    uint32_t packet;  /* bytes of a packet that ran over and waits for buffers; 0: none does */
    uint32_t overrun; /* of it, what lay in the window when it came */
    unsigned chains, pieces;
    struct virtq_chain chain[NET_RX_CHAINS_MAX];
    struct iovec iov[NET_RX_PIECES_MAX + 1]; /* of all chains, and the overrun's behind them */
    uint8_t *spare;                          /* NET_PACKET_MAX bytes */
};

/* -ENOMEM. What a start sets is set by net_rx_start. */
int net_rx_init(struct net_rx *rx);
void net_rx_finish(struct net_rx *rx);

void net_rx_start(struct net_rx *rx, bool mergeable);

/* Give the driver back what was taken ahead. */
void net_rx_stop(struct net_rx *rx);

/*
 * Take packets until there are none. 0: the driver has no buffers for more; 1: many were taken,
 * others should have their turn; -EAGAIN: none left; -EPROTO: the driver broke the queue; -EBADFD:
 * the backend is gone.
 */
int net_rx_drain(struct net_rx *rx);

#endif
