/*
 * virtio-net's control queue: virtio 1.2, section 5.1.6.5. What the driver asks for is kept here;
 * the device looks at it packet by packet. All on the loop's thread.
 */
#ifndef DEVICES_NET_CONTROL_H
#define DEVICES_NET_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_MAC_TABLE_MAX 64u /* addresses a table keeps; with more, all of its kind are let in */
#define NET_VLANS         4096u

struct net_mac_table {
    bool overflow;
    unsigned count;
    uint8_t mac[NET_MAC_TABLE_MAX][6];
};

/* What the device lets in. */
struct net_filter {
    uint8_t mac[6];
    bool promiscuous;
    bool all_multicast, all_unicast;
    bool no_multicast, no_unicast, no_broadcast;
    struct net_mac_table unicast, multicast;
    bool vlan_filter; /* the driver negotiated it: only VLANs of the set get in */
    uint8_t vlans[NET_VLANS / 8];
};

/* What happens besides: the device's part of a command. Each returns whether it was done. */
struct net_control_ops {
    bool (*set_pairs)(void *arg, unsigned pairs);
    bool (*set_offloads)(void *arg, uint64_t offloads);
    bool (*announced)(void *arg);
    bool (*set_mac)(void *arg, const uint8_t *mac);
};

/* As after a reset: everything gets in until the driver says otherwise. */
void net_filter_init(struct net_filter *filter, const uint8_t *mac);

/* Does a frame that begins with these bytes get in? `size` is at most 18: to a VLAN tag's end. */
bool net_filter_passes(const struct net_filter *filter, const uint8_t *frame, size_t size);

/*
 * Obey a command: header and data as the driver wrote them, `size` bytes that nobody else can
 * change. `features` are those negotiated. Returns VIRTIO_NET_OK or VIRTIO_NET_ERR; on an error
 * nothing has changed.
 */
uint8_t net_control(struct net_filter *filter, const struct net_control_ops *ops, void *arg,
                    uint64_t features, const uint8_t *command, size_t size);

/* The longest command that is looked at: two tables with more entries than are kept. */
#define NET_COMMAND_MAX (2 + 2 * (4 + 6 * 256))

#endif
