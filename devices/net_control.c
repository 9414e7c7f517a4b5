#include "devices/net_control.h"

#include <linux/if_ether.h>
#include <linux/virtio_net.h>
#include <string.h>

#define VLAN_TAG_SIZE 4u

void net_filter_init(struct net_filter *filter, const uint8_t *mac)
{
    *filter = (struct net_filter){.promiscuous = true};
    memcpy(filter->mac, mac, ETH_ALEN);
}

static bool in_table(const struct net_mac_table *table, const uint8_t *mac)
{
    for (unsigned i = 0; i < table->count; i++) {
        if (memcmp(table->mac[i], mac, ETH_ALEN) == 0)
            return true;
    }
    return table->overflow;
}

static bool address_passes(const struct net_filter *filter, const uint8_t *mac)
{
    static const uint8_t broadcast[ETH_ALEN] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    if (memcmp(mac, broadcast, ETH_ALEN) == 0)
        return !filter->no_broadcast;
    if (mac[0] & 1)
        return !filter->no_multicast &&
               (filter->all_multicast || in_table(&filter->multicast, mac));
    return !filter->no_unicast && (filter->all_unicast || memcmp(mac, filter->mac, ETH_ALEN) == 0 ||
                                   in_table(&filter->unicast, mac));
}

bool net_filter_passes(const struct net_filter *filter, const uint8_t *frame, size_t size)
{
    /* 5.1.6.5.1.1: promiscuous is everything, VLANs as well. What is no frame is not ours to judge.
     */
    if (filter->promiscuous || size < ETH_HLEN)
        return true;
    unsigned type = (unsigned)frame[12] << 8 | frame[13];
    if (filter->vlan_filter && type == ETH_P_8021Q && size >= ETH_HLEN + VLAN_TAG_SIZE) {
        unsigned vlan = ((unsigned)frame[14] << 8 | frame[15]) % NET_VLANS;
        if (!(filter->vlans[vlan / 8] >> vlan % 8 & 1))
            return false;
    }
    return address_passes(filter, frame);
}

/* ---- commands ------------------------------------------------------------------------------ */

static bool set_receive_mode(struct net_filter *filter, uint64_t features, uint8_t command,
                             const uint8_t *data, size_t size)
{
    bool *const flags[] = {
        [VIRTIO_NET_CTRL_RX_PROMISC] = &filter->promiscuous,
        [VIRTIO_NET_CTRL_RX_ALLMULTI] = &filter->all_multicast,
        [VIRTIO_NET_CTRL_RX_ALLUNI] = &filter->all_unicast,
        [VIRTIO_NET_CTRL_RX_NOMULTI] = &filter->no_multicast,
        [VIRTIO_NET_CTRL_RX_NOUNI] = &filter->no_unicast,
        [VIRTIO_NET_CTRL_RX_NOBCAST] = &filter->no_broadcast,
    };
    bool extra = command > VIRTIO_NET_CTRL_RX_ALLMULTI;

    if (command >= sizeof(flags) / sizeof(flags[0]) || size != 1 || *data > 1 ||
        !(features >> (extra ? VIRTIO_NET_F_CTRL_RX_EXTRA : VIRTIO_NET_F_CTRL_RX) & 1))
        return false;
    *flags[command] = *data;
    return true;
}

/* A table: a count of 32 bits, then addresses. Returns the bytes it takes, or 0 when cut short. */
static size_t read_table(struct net_mac_table *table, const uint8_t *data, size_t size)
{
    uint32_t entries;

    if (size < sizeof(entries))
        return 0;
    memcpy(&entries, data, sizeof(entries));
    if (entries > (size - sizeof(entries)) / ETH_ALEN)
        return 0;
    *table = (struct net_mac_table){.overflow = entries > NET_MAC_TABLE_MAX};
    for (uint32_t i = 0; i < entries && i < NET_MAC_TABLE_MAX; i++)
        memcpy(table->mac[table->count++], data + sizeof(entries) + (size_t)i * ETH_ALEN, ETH_ALEN);
    return sizeof(entries) + (size_t)entries * ETH_ALEN;
}

static bool set_address(struct net_filter *filter, const struct net_control_ops *ops, void *arg,
                        uint64_t features, uint8_t command, const uint8_t *data, size_t size)
{
    if (command == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
        if (!(features >> VIRTIO_NET_F_CTRL_MAC_ADDR & 1) || size != ETH_ALEN || (data[0] & 1) ||
            !ops->set_mac(arg, data))
            return false;
        memcpy(filter->mac, data, ETH_ALEN);
        return true;
    }
    if (command != VIRTIO_NET_CTRL_MAC_TABLE_SET || !(features >> VIRTIO_NET_F_CTRL_RX & 1))
        return false;
    struct net_mac_table unicast, multicast;
    size_t first = read_table(&unicast, data, size);
    size_t second = first ? read_table(&multicast, data + first, size - first) : 0;
    if (!second || first + second != size)
        return false;
    filter->unicast = unicast;
    filter->multicast = multicast;
    return true;
}

static bool set_vlan(struct net_filter *filter, uint64_t features, uint8_t command,
                     const uint8_t *data, size_t size)
{
    uint16_t vlan;

    if (!(features >> VIRTIO_NET_F_CTRL_VLAN & 1) || size != sizeof(vlan) ||
        command > VIRTIO_NET_CTRL_VLAN_DEL)
        return false;
    memcpy(&vlan, data, sizeof(vlan));
    if (vlan >= NET_VLANS)
        return false;
    uint8_t bit = (uint8_t)(1u << vlan % 8);
    if (command == VIRTIO_NET_CTRL_VLAN_ADD)
        filter->vlans[vlan / 8] |= bit;
    else
        filter->vlans[vlan / 8] &= (uint8_t)~bit;
    return true;
}

static bool set_pairs(const struct net_control_ops *ops, void *arg, uint64_t features,
                      uint8_t command, const uint8_t *data, size_t size)
{
    uint16_t pairs;

    if (!(features >> VIRTIO_NET_F_MQ & 1) || command != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
        size != sizeof(pairs))
        return false;
    memcpy(&pairs, data, sizeof(pairs));
    return ops->set_pairs(arg, pairs);
}

static bool set_offloads(const struct net_control_ops *ops, void *arg, uint64_t features,
                         uint8_t command, const uint8_t *data, size_t size)
{
    uint64_t offloads;

    if (!(features >> VIRTIO_NET_F_CTRL_GUEST_OFFLOADS & 1) ||
        command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET || size != sizeof(offloads))
        return false;
    memcpy(&offloads, data, sizeof(offloads));
    return ops->set_offloads(arg, offloads);
}

uint8_t net_control(struct net_filter *filter, const struct net_control_ops *ops, void *arg,
                    uint64_t features, const uint8_t *command, size_t size)
{
    bool done = false;

    if (size < sizeof(struct virtio_net_ctrl_hdr))
        return VIRTIO_NET_ERR;
    uint8_t class = command[0], verb = command[1];
    const uint8_t *data = command + sizeof(struct virtio_net_ctrl_hdr);
    size -= sizeof(struct virtio_net_ctrl_hdr);
    switch (class) {
    case VIRTIO_NET_CTRL_RX:
        done = set_receive_mode(filter, features, verb, data, size);
        break;
    case VIRTIO_NET_CTRL_MAC:
        done = set_address(filter, ops, arg, features, verb, data, size);
        break;
    case VIRTIO_NET_CTRL_VLAN:
        done = set_vlan(filter, features, verb, data, size);
        break;
    case VIRTIO_NET_CTRL_ANNOUNCE:
        done = features >> VIRTIO_NET_F_GUEST_ANNOUNCE & 1 &&
               verb == VIRTIO_NET_CTRL_ANNOUNCE_ACK && size == 0 && ops->announced(arg);
        break;
    case VIRTIO_NET_CTRL_MQ:
        done = set_pairs(ops, arg, features, verb, data, size);
        break;
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        done = set_offloads(ops, arg, features, verb, data, size);
        break;
    }
    return done ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
}
