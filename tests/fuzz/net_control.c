/*
 * Fuzzes what a network device makes of bytes from its driver: commands of the control queue,
 * frames before its receive filter, and frames before the filter of --net user,deny.
 *
 * Input: a byte of features, then pieces, each a length of 16 bits and so many bytes: a command and
 * a frame in turn. What is looked at ends where an allocation does.
 */
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>

#include "devices/net_control.h"
#include "devices/net_deny.h"
#include "tests/fuzz/fuzz.h"

static const unsigned bits[] = {VIRTIO_NET_F_CTRL_RX,
                                VIRTIO_NET_F_CTRL_RX_EXTRA,
                                VIRTIO_NET_F_CTRL_VLAN,
                                VIRTIO_NET_F_CTRL_MAC_ADDR,
                                VIRTIO_NET_F_MQ,
                                VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
                                VIRTIO_NET_F_GUEST_ANNOUNCE};

static unsigned calls; /* of the device's part */

static bool set_pairs(void *arg, unsigned pairs)
{
    (void)arg;
    calls++;
    return pairs >= 1 && pairs <= 8;
}

static bool set_offloads(void *arg, uint64_t offloads)
{
    (void)arg;
    calls++;
    return offloads % 3 != 0;
}

static bool announced(void *arg)
{
    (void)arg;
    calls++;
    return true;
}

static bool set_mac(void *arg, const uint8_t *mac)
{
    (void)arg;
    calls++;
    MUST(!(mac[0] & 1));
    return mac[5] != 0xff;
}

static const struct net_control_ops ops = {.set_pairs = set_pairs,
                                           .set_offloads = set_offloads,
                                           .announced = announced,
                                           .set_mac = set_mac};

static void obey(struct net_filter *filter, uint64_t features, const uint8_t *command, size_t size)
{
    static struct net_filter before;

    before = *filter;
    calls = 0;
    uint8_t ack = net_control(filter, &ops, NULL, features, command, size);
    MUST(ack == VIRTIO_NET_OK || ack == VIRTIO_NET_ERR);
    MUST(calls <= 1);
    if (ack == VIRTIO_NET_ERR)
        MUST(memcmp(&before, filter, sizeof(before)) == 0);
    MUST(features || ack == VIRTIO_NET_ERR);
    MUST(filter->unicast.count <= NET_MAC_TABLE_MAX);
    MUST(filter->multicast.count <= NET_MAC_TABLE_MAX);
}

static void judge(const struct net_filter *filter, const uint8_t *frame, size_t size)
{
    static const uint16_t ports[] = {53, 5353};
    char what[NET_DENY_TEXT + 8];

    bool in = net_filter_passes(filter, frame, size);
    MUST(in || !filter->promiscuous);
    memset(what, 0x5a, sizeof(what));
    bool out = net_deny_passes(frame, size, ports, 2, what);
    MUST(memchr(what, '\0', NET_DENY_TEXT) && what[NET_DENY_TEXT] == 0x5a);
    MUST(out || what[0]);
    MUST(!out || size >= 14);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct net_filter filter;
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
    uint64_t features = 0;

    if (size == 0)
        return 0;
    for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++)
        features |= (uint64_t)(data[0] >> i & 1) << bits[i];
    net_filter_init(&filter, mac);
    filter.vlan_filter = features >> VIRTIO_NET_F_CTRL_VLAN & 1;
    data++, size--;
    for (bool command = true; size >= 2; command = !command) {
        size_t length = (size_t)(data[0] | data[1] << 8) % (NET_COMMAND_MAX + 1);
        data += 2, size -= 2;
        length = length < size ? length : size;
        uint8_t *copy = malloc(length ? length : 1);
        MUST(copy);
        memcpy(copy, data, length);
        if (command)
            obey(&filter, features, copy, length);
        else
            judge(&filter, copy, length);
        free(copy);
        data += length, size -= length;
    }
    return 0;
}
