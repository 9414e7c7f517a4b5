/*
 * virtio-net, the network device: virtio 1.2, section 5.1; linux/virtio_net.h.
 *
 * The path of a packet out: serve() takes a chain off the transmit queue and hands its pieces to
 * the backend (net_backend.h), header and all. The path in: the receive queue's next buffers are
 * kept ready in a window, the backend reads a packet straight into them, and as many as it fills
 * are given to the driver at once. Packets are copied only where they overrun the window.
 */
#ifndef DEVICES_NET_H
#define DEVICES_NET_H

#include "devices/net_backend.h"
#include "virtio/virtio.h"

#define NET_QUEUE_SIZE 256u
#define NET_MTU_MIN    68u
#define NET_MTU_MAX    65535u

struct pcap;

struct net_config {
    unsigned index; /* for error texts: "net N" */
    uint8_t mac[6];
    unsigned mtu;      /* told to the driver; 0: it is not told one */
    bool no_filter;    /* packets do not pass through here, so that none can be kept out */
    struct pcap *pcap; /* gets a copy of what passes; NULL: nothing does. Stays the caller's */
};

struct net;

/*
 * In front of `backend`, which the device owns from here on, whatever this returns. Negative errno,
 * with a text.
 */
int net_create(const struct net_config *config, struct net_backend *backend,
               const struct guest_mem *mem, struct event_loop *loop, struct net **net,
               struct minivmm_error *err);
void net_destroy(struct net *net); /* NULL is allowed */

struct virtio_dev *net_device(struct net *net);

/* On the loop's thread: the backend's interface is gone. The driver is told that its link is down. */
void net_lose_link(struct net *net);

/* From any thread: have the guest tell its network where it is (5.1.6.5.4). */
void net_announce(struct net *net);

/* Packets that were lost, for statistics. From any thread. */
struct net_drops {
    uint64_t sent;     /* the backend would not have them, or they were malformed */
    uint64_t received; /* too large for the driver's buffers */
    uint64_t filtered; /* addressed to somebody else */
};
struct net_drops net_drops(const struct net *net);

#endif
