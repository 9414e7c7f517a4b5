#include "devices/net_deny.h"

#include <arpa/inet.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdio.h>
#include <string.h>

/* DHCP's ports: a client asks from the first of a pair at the second. */
#define DHCP_CLIENT   68u
#define DHCP_SERVER   67u
#define DHCP6_CLIENT  546u
#define DHCP6_SERVER  547u
#define FRAGMENT_MASK 0x3fffu /* more fragments, or an offset */

/* ICMPv6 types of neighbour discovery and multicast listening, RFC 4861 and 3810. */
#define ND_FIRST 133u
#define ND_LAST  137u
#define MLD2     143u

struct packet {
    char address[INET6_ADDRSTRLEN]; /* where it goes */
    unsigned protocol;
    const uint8_t *payload;
    size_t size;
};

static bool parse_ip4(const uint8_t *data, size_t size, struct packet *packet)
{
    struct iphdr ip;

    if (size < sizeof(ip))
        return false;
    memcpy(&ip, data, sizeof(ip));
    inet_ntop(AF_INET, &ip.daddr, packet->address, sizeof(packet->address));
    packet->protocol = ip.protocol;
    packet->payload = data + sizeof(ip);
    packet->size = size - sizeof(ip);
    return ip.version == 4 && ip.ihl == sizeof(ip) / 4 && !(ntohs(ip.frag_off) & FRAGMENT_MASK);
}

static bool parse_ip6(const uint8_t *data, size_t size, struct packet *packet)
{
    struct ipv6hdr ip;

    if (size < sizeof(ip))
        return false;
    memcpy(&ip, data, sizeof(ip));
    inet_ntop(AF_INET6, &ip.daddr, packet->address, sizeof(packet->address));
    packet->protocol = ip.nexthdr;
    packet->payload = data + sizeof(ip);
    packet->size = size - sizeof(ip);
    /* Multicast listening has an option in front. */
    if (ip.version == 6 && ip.nexthdr == IPPROTO_HOPOPTS && packet->size >= 8 &&
        packet->payload[1] == 0) {
        packet->protocol = packet->payload[0];
        packet->payload += 8;
        packet->size -= 8;
        return packet->protocol == IPPROTO_ICMPV6;
    }
    return ip.version == 6;
}

static bool tcp_passes(const struct packet *packet, char *what)
{
    struct tcphdr tcp;

    if (packet->size < sizeof(tcp))
        return false;
    memcpy(&tcp, packet->payload, sizeof(tcp));
    snprintf(what, NET_DENY_TEXT, "tcp %s:%u", packet->address, ntohs(tcp.dest));
    return tcp.ack || tcp.rst; /* only what begins a connection has neither */
}

static bool udp_passes(const struct packet *packet, const uint16_t *ports, unsigned count,
                       char *what)
{
    struct udphdr udp;

    if (packet->size < sizeof(udp))
        return false;
    memcpy(&udp, packet->payload, sizeof(udp));
    unsigned from = ntohs(udp.source), to = ntohs(udp.dest);
    snprintf(what, NET_DENY_TEXT, "udp %s:%u", packet->address, to);
    for (unsigned i = 0; i < count; i++) {
        if (ports[i] == from)
            return true;
    }
    return (from == DHCP_CLIENT && to == DHCP_SERVER) ||
           (from == DHCP6_CLIENT && to == DHCP6_SERVER);
}

static bool icmp6_passes(const struct packet *packet)
{
    unsigned type = packet->size > 0 ? packet->payload[0] : 0;
    return (type >= ND_FIRST && type <= ND_LAST) || type == MLD2;
}

bool net_deny_passes(const uint8_t *frame, size_t length, const uint16_t *udp_ports,
                     unsigned udp_count, char *what)
{
    struct packet packet = {.address = "?"};
    bool whole = false;

    snprintf(what, NET_DENY_TEXT, "a frame that is too short");
    if (length < ETH_HLEN)
        return false;
    unsigned type = (unsigned)frame[12] << 8 | frame[13];
    switch (type) {
    case ETH_P_ARP:
        return true;
    case ETH_P_IP:
        whole = parse_ip4(frame + ETH_HLEN, length - ETH_HLEN, &packet);
        break;
    case ETH_P_IPV6:
        whole = parse_ip6(frame + ETH_HLEN, length - ETH_HLEN, &packet);
        break;
    default:
        snprintf(what, NET_DENY_TEXT, "a frame of type 0x%04x", type);
        return false;
    }
    snprintf(what, NET_DENY_TEXT, "protocol %u %s", packet.protocol, packet.address);
    if (!whole)
        return false;
    switch (packet.protocol) {
    case IPPROTO_TCP:
        return tcp_passes(&packet, what);
    case IPPROTO_UDP:
        return udp_passes(&packet, udp_ports, udp_count, what);
    case IPPROTO_ICMPV6:
        return type == ETH_P_IPV6 && icmp6_passes(&packet);
    default:
        return false;
    }
}
