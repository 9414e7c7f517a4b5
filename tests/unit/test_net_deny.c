/* --net user,deny: which frames of a guest's may leave. */
#include <arpa/inet.h>
#include <string.h>

#include "devices/net_deny.h"
#include "tests/unit/support.h"

SUITE(net_deny);

#define FRAME_MAX 256

/* A frame in the making. */
struct frame {
    uint8_t data[FRAME_MAX];
    size_t length;
};

static void put(struct frame *f, const void *data, size_t size)
{
    memcpy(f->data + f->length, data, size);
    f->length += size;
}

static void put16(struct frame *f, unsigned value)
{
    const uint8_t bytes[] = {(uint8_t)(value >> 8), (uint8_t)value};
    put(f, bytes, 2);
}

static void put_ethernet(struct frame *f, unsigned type)
{
    put(f, "\xff\xff\xff\xff\xff\xff\x52\x54\0\x12\x34\x56", 12);
    put16(f, type);
}

/* To 192.0.2.1, or to 2001:db8::1. */
static void put_ip4(struct frame *f, unsigned protocol, unsigned words, unsigned fragment)
{
    const uint8_t head[] = {(uint8_t)(0x40 | words),
                            0,
                            0,
                            60,
                            0,
                            0,
                            (uint8_t)(fragment >> 8),
                            (uint8_t)fragment,
                            64,
                            (uint8_t)protocol,
                            0,
                            0,
                            10,
                            0,
                            2,
                            15,
                            192,
                            0,
                            2,
                            1};
    put_ethernet(f, 0x0800);
    put(f, head, sizeof(head));
    for (unsigned i = 5; i < words && i < 16; i++)
        put(f, "\1\1\1\0", 4);
}

static void put_ip6(struct frame *f, unsigned next)
{
    const uint8_t head[] = {0x60, 0, 0, 0, 0, 40, (uint8_t)next, 255};
    put_ethernet(f, 0x86dd);
    put(f, head, sizeof(head));
    put(f, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\2", 16);
    put(f, "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1", 16);
}

#define FIN 1
#define SYN 2
#define RST 4
#define ACK 16

static void put_tcp(struct frame *f, unsigned flags)
{
    put16(f, 40000);
    put16(f, 443);
    put(f, "\0\0\0\1\0\0\0\1", 8);
    put16(f, 0x5000 | flags);
    put(f, "\x10\0\0\0\0\0", 6);
}

static void put_udp(struct frame *f, unsigned from, unsigned to)
{
    put16(f, from);
    put16(f, to);
    put(f, "\0\x10\0\0abcdefgh", 12);
}

enum { IP4, IP6, OTHER };

static const struct {
    const char *name;
    int net;
    unsigned type; /* protocol; or Ethernet's type */
    unsigned a, b; /* TCP's flags; UDP's ports; ICMP's type */
    bool passes;
    const char *what;
    unsigned words, fragment; /* IPv4 */
} rows[] = {
    {"a connection begins", IP4, 6, SYN, 0, false, "tcp 192.0.2.1:443", 5, 0},
    {"one is answered", IP4, 6, SYN | ACK, 0, true, "", 5, 0},
    {"data", IP4, 6, ACK, 0, true, "", 5, 0},
    {"the end", IP4, 6, FIN | ACK, 0, true, "", 5, 0},
    {"refused", IP4, 6, RST, 0, true, "", 5, 0},
    {"FIN alone", IP4, 6, FIN, 0, false, "tcp 192.0.2.1:443", 5, 0},
    {"no flag at all", IP4, 6, 0, 0, false, "tcp 192.0.2.1:443", 5, 0},
    {"DHCP", IP4, 17, 68, 67, true, "", 5, 0},
    {"DHCP the other way", IP4, 17, 67, 68, false, "udp 192.0.2.1:68", 5, 0},
    {"from DHCP's port", IP4, 17, 68, 53, false, "udp 192.0.2.1:53", 5, 0},
    {"DNS", IP4, 17, 40000, 53, false, "udp 192.0.2.1:53", 5, 0},
    {"an answer from a forwarded port", IP4, 17, 5353, 40000, true, "", 5, 0},
    {"to a forwarded port", IP4, 17, 40000, 5353, false, "udp 192.0.2.1:5353", 5, 0},
    {"ping", IP4, 1, 8, 0, false, "protocol 1 192.0.2.1", 5, 0},
    {"ICMPv6 in IPv4", IP4, 58, 133, 0, false, "protocol 58 192.0.2.1", 5, 0},
    {"SCTP", IP4, 132, 0, 0, false, "protocol 132 192.0.2.1", 5, 0},
    {"an answer with options", IP4, 6, ACK, 0, false, "protocol 6 192.0.2.1", 6, 0},
    {"a header too short", IP4, 6, ACK, 0, false, "protocol 6 192.0.2.1", 4, 0},
    {"a first fragment", IP4, 6, ACK, 0, false, "protocol 6 192.0.2.1", 5, 0x2000},
    {"a later fragment", IP4, 6, ACK, 0, false, "protocol 6 192.0.2.1", 5, 0x0001},
    {"a last fragment", IP4, 6, ACK, 0, false, "protocol 6 192.0.2.1", 5, 0x1fff},
    {"not to be fragmented", IP4, 6, ACK, 0, true, "", 5, 0x4000},
    {"a connection over IPv6", IP6, 6, SYN, 0, false, "tcp 2001:db8::1:443", 0, 0},
    {"an answer over IPv6", IP6, 6, ACK, 0, true, "", 0, 0},
    {"DHCPv6", IP6, 17, 546, 547, true, "", 0, 0},
    {"DNS over IPv6", IP6, 17, 40000, 53, false, "udp 2001:db8::1:53", 0, 0},
    {"router solicitation", IP6, 58, 133, 0, true, "", 0, 0},
    {"neighbour solicitation", IP6, 58, 135, 0, true, "", 0, 0},
    {"redirect", IP6, 58, 137, 0, true, "", 0, 0},
    {"below neighbour discovery", IP6, 58, 132, 0, false, "protocol 58 2001:db8::1", 0, 0},
    {"above it", IP6, 58, 138, 0, false, "protocol 58 2001:db8::1", 0, 0},
    {"multicast listening", IP6, 58, 143, 0, true, "", 0, 0},
    {"ping over IPv6", IP6, 58, 128, 0, false, "protocol 58 2001:db8::1", 0, 0},
    {"a fragment over IPv6", IP6, 44, 6, 0, false, "protocol 44 2001:db8::1", 0, 0},
    {"routing header", IP6, 43, 6, 0, false, "protocol 43 2001:db8::1", 0, 0},
    {"destination options", IP6, 60, 6, 0, false, "protocol 60 2001:db8::1", 0, 0},
    {"ARP", OTHER, 0x0806, 0, 0, true, "", 0, 0},
    {"a VLAN", OTHER, 0x8100, 0, 0, false, "a frame of type 0x8100", 0, 0},
    {"802.3", OTHER, 0x0040, 0, 0, false, "a frame of type 0x0040", 0, 0},
    {"LLDP", OTHER, 0x88cc, 0, 0, false, "a frame of type 0x88cc", 0, 0},
};

static void build(struct frame *f, size_t i)
{
    *f = (struct frame){0};
    if (rows[i].net == IP4)
        put_ip4(f, rows[i].type, rows[i].words, rows[i].fragment);
    else if (rows[i].net == IP6)
        put_ip6(f, rows[i].type);
    else
        put_ethernet(f, rows[i].type);
    if (rows[i].net != OTHER && rows[i].type == 6)
        put_tcp(f, rows[i].a);
    else if (rows[i].net != OTHER && rows[i].type == 17)
        put_udp(f, rows[i].a, rows[i].b);
    else
        put(f, &(uint8_t[28]){(uint8_t)rows[i].a}, 28);
}

static bool passes(const struct frame *f, size_t length, char *what)
{
    static const uint16_t ports[] = {5353};
    /* At the very end of an allocation, for AddressSanitizer. */
    uint8_t *copy = malloc(length ? length : 1);
    memcpy(copy, f->data, length);
    bool pass = net_deny_passes(copy, length, ports, COUNT(ports), what);
    free(copy);
    return pass;
}

Test(net_deny, what_a_guest_begins_stays_in)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        char what[NET_DENY_TEXT];
        struct frame f;
        build(&f, i);
        cr_expect_eq(passes(&f, f.length, what), rows[i].passes, "%s: %s", rows[i].name, what);
        if (!rows[i].passes)
            cr_expect_str_eq(what, rows[i].what, "%s: %s", rows[i].name, what);
    }
}

/* Cut anywhere before the end of its headers, it does not pass. */
Test(net_deny, what_is_cut_short_stays_in)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        char what[NET_DENY_TEXT];
        struct frame f;
        build(&f, i);
        size_t headers = rows[i].net == OTHER ? 14 : rows[i].net == IP4 ? 34 : 54;
        if (rows[i].net != OTHER)
            headers += rows[i].type == 6 ? 20 : rows[i].type == 17 ? 8 : 1;
        for (size_t length = 0; length <= f.length; length++) {
            bool pass = passes(&f, length, what);
            cr_expect_eq(pass, rows[i].passes && length >= headers, "%s: %zu bytes", rows[i].name,
                         length);
            cr_expect(pass || (*what && strlen(what) < NET_DENY_TEXT), "%s", rows[i].name);
        }
    }
}

Test(net_deny, multicast_listening_has_its_option_and_nothing_else)
{
    static const struct {
        const char *name;
        uint8_t next, length;
        unsigned type;
        bool passes;
    } options[] = {
        {"a report", 58, 0, 143, true},      {"a solicitation", 58, 0, 135, true},
        {"ping", 58, 0, 128, false},         {"TCP behind it", 6, 0, ACK, false},
        {"UDP behind it", 17, 0, 68, false}, {"a long option", 58, 1, 143, false},
        {"twice", 0, 0, 58, false},
    };
    for (size_t i = 0; i < COUNT(options); i++) {
        char what[NET_DENY_TEXT];
        struct frame f = {0};
        const uint8_t option[8] = {options[i].next, options[i].length, 5, 2};
        put_ip6(&f, 0);
        put(&f, option, 8);
        put(&f, &(uint8_t[28]){(uint8_t)options[i].type}, 28);
        cr_expect_eq(passes(&f, f.length, what), options[i].passes, "%s", options[i].name);
        for (size_t length = 0; length < 63; length++)
            cr_expect(!passes(&f, length, what), "%s: %zu bytes", options[i].name, length);
    }
}

/* Version and type have to agree. */
Test(net_deny, a_wrong_version_stays_in)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        char what[NET_DENY_TEXT];
        struct frame f;
        build(&f, i);
        if (rows[i].net == OTHER)
            continue;
        for (unsigned version = 0; version < 16; version++) {
            f.data[14] = (uint8_t)(version << 4 | (f.data[14] & 15));
            bool right = version == (rows[i].net == IP4 ? 4 : 6);
            cr_expect_eq(passes(&f, f.length, what), rows[i].passes && right, "%s: version %u",
                         rows[i].name, version);
        }
    }
}
