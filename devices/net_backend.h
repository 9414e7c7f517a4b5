/*
 * Where a network device's packets come from and go to: a tap, or a stream socket to a program that
 * plays the network. A contract; tap.h and net_stream.h keep it.
 *
 * A packet is struct virtio_net_hdr_v1 (12 bytes, virtio 1.2, 5.1.6) and an Ethernet frame, in the
 * pieces of an iovec. A backend reads and writes guest memory where it lies. Everything but create
 * belongs to the loop's thread, or to the time when no queue is served.
 */
#ifndef DEVICES_NET_BACKEND_H
#define DEVICES_NET_BACKEND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define NET_PAIRS_MAX   8u
#define NET_HEADER_SIZE 12u
/* The largest packet there is: header, Ethernet with a VLAN tag, and 64 KiB of IP. */
#define NET_PACKET_MAX (NET_HEADER_SIZE + 18u + 65535u)

struct net_backend;

struct net_backend_ops {
    /*
     * One packet into `iov`, which is at least NET_PACKET_MAX bytes in all, or more than a frame of
     * `mtu` takes where packets do not come in the form of several segments. What is larger all the
     * same is cut off, and fills it. Returns its length with the header, -EAGAIN when there is
     * none, or another negative errno: this one was lost, or, if it is -EBADFD, the other end is
     * gone for good. num_buffers of the header is left alone.
     */
    ssize_t (*receive)(struct net_backend *be, unsigned pair, const struct iovec *iov,
                       unsigned count);
    /*
     * One packet out. 0; 1 when it is taken but waits for room to go, which `flush` sees to;
     * -EAGAIN when there is no room; or as above.
     */
    int (*send)(struct net_backend *be, unsigned pair, const struct iovec *iov, unsigned count);
    /* There is room: send on what waits. 0, -EAGAIN or as above. NULL: nothing ever waits. */
    int (*flush)(struct net_backend *be, unsigned pair);
    /* Packets may come in these VIRTIO_NET_F_GUEST_* forms from now on. Negative errno. */
    int (*set_offloads)(struct net_backend *be, uint64_t features);
    /* So many pairs are in use; the others receive nothing. Negative errno. */
    int (*set_pairs)(struct net_backend *be, unsigned pairs);
    void (*destroy)(struct net_backend *be);
};

struct net_backend {
    const struct net_backend_ops *ops;
    uint64_t features;      /* VIRTIO_NET_F_* that depend on the backend, and that it can do */
    unsigned pairs;         /* how many queue pairs it has */
    int fds[NET_PAIRS_MAX]; /* readable: a packet; writable: room after -EAGAIN */
    unsigned mtu;           /* bytes of a frame's payload; 0: not known */
};

#endif
