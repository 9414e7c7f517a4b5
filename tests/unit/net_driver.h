/*
 * A guest's driver of a virtio network device (virtio 1.2, section 5.1): packets in any shape of
 * descriptors, receive buffers of any size, commands. What it is given lies in guest memory of its
 * own, in the order
 *
 *     packets out | commands | receive buffers, NET_DRIVER_BUFFERS a pair, a stride apart
 *
 * Where the device breaks a rule for receive buffers, `fault` says which.
 */
#ifndef TESTS_UNIT_NET_DRIVER_H
#define TESTS_UNIT_NET_DRIVER_H

#include <linux/virtio_net.h>

#include "devices/net.h"
#include "tests/unit/virtio_driver.h"

#define NET_DRIVER_BUFFERS 256u
#define NET_DRIVER_STRIDE  0x11000u /* a packet of the largest size, and a page more */
#define NET_DRIVER_OUT     (16 * NET_DRIVER_STRIDE)
#define NET_DRIVER_HEADS   256u
#define NET_DRIVER_FILL    0xee /* what receive buffers hold before */

struct net_driver {
    struct virtio_driver v;
    uint64_t memory;
    unsigned pairs; /* that are set up */
    uint32_t piece; /* cut packets out, receive buffers and commands into descriptors of this size,
                       at most; 0: one each */
    unsigned next_out;
    unsigned next_buffer[8];
    struct net_driver_buffer {
        uint64_t gpa;
        uint32_t length;
    } buffers[8][NET_DRIVER_HEADS];
    struct virtio_net_hdr_v1 header; /* of the packet that came last */
    const char *fault;               /* NULL: none was seen */
    bool spilled;                    /* bytes of a buffer behind its packet have changed */
};

/* Reset, negotiate, set up every queue and go; the queues of the pairs hold `size` entries. */
bool net_driver_start(struct net_driver *d, uint64_t wanted, uint32_t size);

/* The control queue's index, where these features put it (5.1.2). */
unsigned net_driver_control_queue(const struct net_driver *d);

/* `count` receive buffers of `length` bytes, filled; offered, published and kicked. */
void net_driver_add(struct net_driver *d, unsigned pair, unsigned count, uint32_t length);

/* Is there a packet? Its frame is copied; the length, or -1. Waits for nothing. */
int net_driver_take(struct net_driver *d, unsigned pair, uint8_t *frame);

/* The same, waited for. */
int net_driver_receive(struct net_driver *d, unsigned pair, uint8_t *frame);

/* Offer and publish a packet; NULL: a header of zeroes. Returns its head. */
uint16_t net_driver_offer(struct net_driver *d, unsigned pair,
                          const struct virtio_net_hdr_v1 *header, const uint8_t *frame,
                          uint32_t length);

/* Send it from start to end; false when the device does not give it back. */
bool net_driver_send(struct net_driver *d, unsigned pair, const uint8_t *frame, uint32_t length);

/* Packets out that were given back since this was last asked. */
unsigned net_driver_sent(struct net_driver *d, unsigned pair);

/* A command; its ack, or -1 when there was none. */
int net_driver_control(struct net_driver *d, uint8_t class, uint8_t command, const void *data,
                       uint32_t size);

#endif
