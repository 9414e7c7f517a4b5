/* The control queue: where it is, every command good and bad, and what the filters let in (D9). */
#include <errno.h>
#include <string.h>

#include "tests/unit/net_rig.h"
#include "tests/unit/support.h"

SUITE(net_control);

static struct net_rig rig;
static struct net_driver *d = &rig.driver;
static uint8_t frame[NET_PACKET_MAX];

#define F(bit)   FEATURE(VIRTIO_NET_F_##bit)
#define OFFLOADS (F(GUEST_CSUM) | F(GUEST_TSO4) | F(GUEST_TSO6))

static void begin(unsigned pairs, uint64_t without)
{
    net_rig_init(&rig, &(struct net_rig_config){.pairs = pairs, .features = OFFLOADS});
    cr_assert(net_driver_start(d, ~without, 0));
}

static void end(void)
{
    cr_expect(net_rig_works(&rig), "the canary");
    net_rig_finish(&rig);
}

#define RX(name)   VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_##name
#define MAC(name)  VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_##name
#define VLAN(name) VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_##name
#define OFFLOAD    VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET
#define MQ         VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET
#define ANNOUNCE   VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK
#define STATION    "\2\0\0\0\0\1"
#define GROUP      "\1\0\x5e\0\0\1"

/* With three pairs, and what `without` leaves of the features. */
static const struct {
    const char *name;
    uint8_t class, command;
    const char *data;
    uint32_t size;
    bool good;
    uint64_t without;
} commands[] = {
    {"promiscuous", RX(PROMISC), "\1", 1, true, 0},
    {"not promiscuous", RX(PROMISC), "\0", 1, true, 0},
    {"neither", RX(PROMISC), "\2", 1, false, 0},
    {"no byte", RX(PROMISC), "", 0, false, 0},
    {"two bytes", RX(PROMISC), "\1\1", 2, false, 0},
    {"all multicast", RX(ALLMULTI), "\1", 1, true, 0},
    {"all unicast", RX(ALLUNI), "\1", 1, true, 0},
    {"no multicast", RX(NOMULTI), "\1", 1, true, 0},
    {"no unicast", RX(NOUNI), "\1", 1, true, 0},
    {"no broadcast", RX(NOBCAST), "\1", 1, true, 0},
    {"an unknown mode", VIRTIO_NET_CTRL_RX, 6, "\1", 1, false, 0},
    {"mode 255", VIRTIO_NET_CTRL_RX, 255, "\1", 1, false, 0},
    {"promiscuous, not negotiated", RX(PROMISC), "\1", 1, false, F(CTRL_RX)},
    {"extra without CTRL_RX", RX(NOBCAST), "\1", 1, true, F(CTRL_RX)},
    {"extra, not negotiated", RX(ALLUNI), "\1", 1, false, F(CTRL_RX_EXTRA)},
    {"an address", MAC(ADDR_SET), STATION, 6, true, 0},
    {"the address of a group", MAC(ADDR_SET), GROUP, 6, false, 0},
    {"five bytes of one", MAC(ADDR_SET), STATION, 5, false, 0},
    {"seven bytes", MAC(ADDR_SET), STATION "\0", 7, false, 0},
    {"an address, not negotiated", MAC(ADDR_SET), STATION, 6, false, F(CTRL_MAC_ADDR)},
    {"empty tables", MAC(TABLE_SET), "\0\0\0\0\0\0\0\0", 8, true, 0},
    {"one in each table", MAC(TABLE_SET), "\1\0\0\0" STATION "\1\0\0\0" GROUP, 20, true, 0},
    {"one table", MAC(TABLE_SET), "\0\0\0\0", 4, false, 0},
    {"half a count", MAC(TABLE_SET), "\0\0\0\0\0\0", 6, false, 0},
    {"no count", MAC(TABLE_SET), "", 0, false, 0},
    {"fewer than counted", MAC(TABLE_SET), "\2\0\0\0" STATION "\0\0\0\0", 14, false, 0},
    {"more than counted", MAC(TABLE_SET), "\0\0\0\0\0\0\0\0\0", 9, false, 0},
    {"2^32 - 1 counted", MAC(TABLE_SET), "\xff\xff\xff\xff" STATION "\0\0\0\0", 14, false, 0},
    {"as many as wrap at 2^32", MAC(TABLE_SET), "\xab\xaa\xaa\x2a" STATION "\0\0\0\0", 14, false,
     0},
    {"tables, not negotiated", MAC(TABLE_SET), "\0\0\0\0\0\0\0\0", 8, false, F(CTRL_RX)},
    {"an unknown command for addresses", VIRTIO_NET_CTRL_MAC, 2, STATION, 6, false, 0},
    {"VLAN 0", VLAN(ADD), "\0\0", 2, true, 0},
    {"VLAN 4095", VLAN(ADD), "\xff\x0f", 2, true, 0},
    {"VLAN 4095 away", VLAN(DEL), "\xff\x0f", 2, true, 0},
    {"VLAN 4096", VLAN(ADD), "\0\x10", 2, false, 0},
    {"VLAN 65535", VLAN(DEL), "\xff\xff", 2, false, 0},
    {"a byte of a VLAN", VLAN(ADD), "\1", 1, false, 0},
    {"three bytes of a VLAN", VLAN(ADD), "\1\0\0", 3, false, 0},
    {"an unknown command for VLANs", VIRTIO_NET_CTRL_VLAN, 2, "\1\0", 2, false, 0},
    {"VLAN, not negotiated", VLAN(ADD), "\1\0", 2, false, F(CTRL_VLAN)},
    {"announced", ANNOUNCE, "", 0, true, 0},
    {"announced, with data", ANNOUNCE, "\0", 1, false, 0},
    {"an unknown announcement", VIRTIO_NET_CTRL_ANNOUNCE, 1, "", 0, false, 0},
    {"announced, not negotiated", ANNOUNCE, "", 0, false, F(GUEST_ANNOUNCE)},
    {"one pair", MQ, "\1\0", 2, true, 0},
    {"all pairs", MQ, "\3\0", 2, true, 0},
    {"no pair", MQ, "\0\0", 2, false, 0},
    {"a pair more than there are", MQ, "\4\0", 2, false, 0},
    {"65535 pairs", MQ, "\xff\xff", 2, false, 0},
    {"pairs in a byte", MQ, "\1", 1, false, 0},
    {"pairs in four", MQ, "\1\0\0\0", 4, false, 0},
    {"RSS", VIRTIO_NET_CTRL_MQ, 1, "\0\0\0\0\0\0\0\0", 8, false, 0},
    {"pairs, not negotiated", MQ, "\1\0", 2, false, F(MQ)},
    {"no offloads", OFFLOAD, "\0\0\0\0\0\0\0\0", 8, true, 0},
    {"all offloads", OFFLOAD, "\x82\1\0\0\0\0\0\0", 8, true, 0},
    {"one that is not offered", OFFLOAD, "\0\4\0\0\0\0\0\0", 8, false, 0},
    {"one that was not negotiated", OFFLOAD, "\x82\0\0\0\0\0\0\0", 8, false, F(GUEST_TSO4)},
    {"what is no offload", OFFLOAD, "\x20\0\0\0\0\0\0\0", 8, false, 0},
    {"offloads in four bytes", OFFLOAD, "\0\0\0\0", 4, false, 0},
    {"offloads, not negotiated", OFFLOAD, "\0\0\0\0\0\0\0\0", 8, false, F(CTRL_GUEST_OFFLOADS)},
    {"an unknown command for offloads", VIRTIO_NET_CTRL_GUEST_OFFLOADS, 1, "\0\0\0\0\0\0\0\0", 8,
     false, 0},
    {"an unknown class", 6, 0, "\0", 1, false, 0},
    {"class 255", 255, 255, "", 0, false, 0},
};

Test(net_control, D9_every_command_is_obeyed_or_refused)
{
    for (size_t i = 0; i < COUNT(commands); i++) {
        uint8_t data[32] = {0};
        begin(3, commands[i].without);
        memcpy(data, commands[i].data, commands[i].size);
        for (unsigned piece = 0; piece < 2; piece++) {
            d->piece = piece;
            int ack = net_driver_control(d, commands[i].class, commands[i].command, data,
                                         commands[i].size);
            cr_expect_eq(ack, commands[i].good ? VIRTIO_NET_OK : VIRTIO_NET_ERR, "%s: %d",
                         commands[i].name, ack);
        }
        end();
    }
}

Test(net_control, the_queue_stands_behind_the_pairs_there_are)
{
    static const struct {
        unsigned pairs;
        uint64_t without;
        unsigned index;
    } rows[] = {{1, 0, 2}, {2, 0, 4}, {2, F(MQ), 2}, {5, 0, 10}, {5, F(MQ), 2}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        begin(rows[i].pairs, rows[i].without);
        cr_expect_eq(net_driver_control_queue(d), rows[i].index);
        cr_expect_eq(d->v.queue_count, 2 * rows[i].pairs + 1);
        cr_expect_eq(net_driver_control(d, RX(PROMISC), "\1", 1), VIRTIO_NET_OK);
        end();
    }
}

/* D9: commands that are no commands; what is answered, and what is written. */
Test(net_control, D9_broken_commands_go_back)
{
    static const struct {
        const char *name;
        struct piece pieces[3];
        unsigned count, length;
    } rows[] = {
        {"nothing", {{NET_FREE, 0, false}}, 1, 0},
        {"no answer wanted", {{NET_FREE, 3, false}}, 1, 0},
        {"no command", {{NET_FREE + 64, 1, true}}, 1, 1},
        {"half a header", {{NET_FREE, 1, false}, {NET_FREE + 64, 1, true}}, 2, 1},
        {"a header alone", {{NET_FREE, 2, false}, {NET_FREE + 64, 1, true}}, 2, 1},
        {"a long answer", {{NET_FREE, 2, false}, {NET_FREE + 64, 100, true}}, 2, 1},
        {"too long", {{NET_FREE, 1 << 20, false}, {NET_FREE + 64, 1, true}}, 2, 1},
        {"4 GiB",
         {{NET_RAM_C, (uint32_t)NET_RAM_SIZE, false},
          {NET_RAM_C, (uint32_t)NET_RAM_SIZE, false},
          {NET_FREE + 64, 1, true}},
         3,
         1},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct vring_used_elem element;
        begin(1, 0);
        uint8_t *at = net_rig_at(&rig, NET_FREE, 256);
        memset(at, 0, 64);
        memset(at + 64, 0x77, 192);
        cr_expect(virtio_driver_transact(&d->v, 2, rows[i].pieces, rows[i].count, &element), "%s",
                  rows[i].name);
        cr_expect_eq(element.len, rows[i].length, "%s: %u", rows[i].name, element.len);
        cr_expect_eq(at[64], rows[i].length ? VIRTIO_NET_ERR : 0x77, "%s", rows[i].name);
        for (unsigned k = 65; k < 192; k++)
            cr_assert_eq(at[k], 0x77, "%s", rows[i].name);
        end();
    }
}

/* ---- filters ------------------------------------------------------------------------------- */

static const uint8_t other[6] = {2, 9, 9, 9, 9, 9}, third[6] = {2, 8, 8, 8, 8, 8},
                     group[6] = {1, 0, 0x5e, 0, 0, 1}, group_2[6] = {1, 0, 0x5e, 0, 0, 2};

struct order {
    uint8_t class, command;
    const char *data;
    uint32_t size;
};
#define NO_PROMISC                                                                                 \
    {                                                                                              \
        RX(PROMISC), "\0", 1                                                                       \
    }

/* Bits of `passes`, lowest first: own, other, third, broadcast, group, group 2. */
static const struct {
    const char *name;
    struct order orders[3];
    unsigned passes;
} filters[] = {
    {"as reset left it", {{0}}, 077},
    {"not promiscuous", {NO_PROMISC}, 011},
    {"all multicast", {NO_PROMISC, {RX(ALLMULTI), "\1", 1}}, 071},
    {"all unicast", {NO_PROMISC, {RX(ALLUNI), "\1", 1}}, 017},
    {"no broadcast", {NO_PROMISC, {RX(NOBCAST), "\1", 1}}, 001},
    {"no unicast", {NO_PROMISC, {RX(NOUNI), "\1", 1}}, 010},
    {"no unicast, all unicast", {NO_PROMISC, {RX(NOUNI), "\1", 1}, {RX(ALLUNI), "\1", 1}}, 010},
    {"no multicast", {NO_PROMISC, {RX(ALLMULTI), "\1", 1}, {RX(NOMULTI), "\1", 1}}, 011},
    {"promiscuous whatever else", {{RX(NOUNI), "\1", 1}, {RX(NOBCAST), "\1", 1}}, 077},
    {"tables",
     {NO_PROMISC, {MAC(TABLE_SET), "\1\0\0\0\2\x9\x9\x9\x9\x9\1\0\0\0\1\0\x5e\0\0\2", 20}},
     053},
    {"tables emptied",
     {NO_PROMISC,
      {MAC(TABLE_SET), "\1\0\0\0\2\x9\x9\x9\x9\x9\1\0\0\0\1\0\x5e\0\0\2", 20},
      {MAC(TABLE_SET), "\0\0\0\0\0\0\0\0", 8}},
     011},
    {"a table that was refused changes nothing",
     {NO_PROMISC, {MAC(TABLE_SET), "\1\0\0\0\2\x9\x9\x9\x9\x9\2\0\0\0", 14}},
     011},
    {"another address", {NO_PROMISC, {MAC(ADDR_SET), "\2\x9\x9\x9\x9\x9", 6}}, 012},
};

static void expect_passes(const uint8_t *to, bool passes, const char *name, unsigned which)
{
    static uint32_t number;
    net_rig_frame(frame, 60, to, ++number);
    cr_assert(net_rig_far_send(&rig, frame, 60));
    net_rig_frame(frame, 60, net_rig_broadcast, number + 1000);
    virtio_driver_settle(&d->v);
    int got = net_driver_take(d, 0, frame);
    cr_expect_eq(got, passes ? 60 : -1, "%s: address %u: %d", name, which, got);
}

Test(net_control, filters_let_in_what_they_were_told)
{
    const uint8_t *const to[] = {net_rig_mac, other, third, net_rig_broadcast, group, group_2};
    for (size_t i = 0; i < COUNT(filters); i++) {
        begin(1, 0);
        int wanted = 0;
        for (const struct order *o = filters[i].orders; o < filters[i].orders + 3 && o->data; o++) {
            bool bad = strstr(filters[i].name, "refused") && o->class == VIRTIO_NET_CTRL_MAC;
            int ack = net_driver_control(d, o->class, o->command, o->data, o->size);
            wanted += ack == (bad ? VIRTIO_NET_ERR : VIRTIO_NET_OK) ? 0 : 1;
        }
        cr_expect_eq(wanted, 0, "%s", filters[i].name);
        net_driver_add(d, 0, 20, 200);
        for (unsigned k = 0; k < COUNT(to); k++)
            expect_passes(to[k], filters[i].passes >> k & 1, filters[i].name, k);
        /* S35: a reset forgets it all. */
        cr_assert(net_driver_start(d, UINT64_MAX, 0));
        net_driver_add(d, 0, 20, 200);
        for (unsigned k = 0; k < COUNT(to); k++)
            expect_passes(to[k], true, "after a reset", k);
        end();
    }
}

Test(net_control, a_filter_judges_what_small_buffers_hold)
{
    static const uint32_t lengths[] = {1, 12, 13, 20, 26};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        begin(1, 0);
        cr_assert_eq(net_driver_control(d, RX(PROMISC), "\0", 1), VIRTIO_NET_OK);
        net_driver_add(d, 0, 1, lengths[i]);
        net_rig_frame(frame, 60, other, 1);
        cr_assert(net_rig_far_send(&rig, frame, 60));
        virtio_driver_settle(&d->v);
        cr_expect_eq(net_drops(rig.net).filtered, 1, "a window of %u bytes", lengths[i]);
        cr_assert(net_driver_start(d, UINT64_MAX, 0));
        end();
    }
}

Test(net_control, more_addresses_than_are_kept_let_all_of_their_kind_in)
{
    uint8_t data[2 * 4 + 65 * 6] = {65};
    begin(1, 0);
    cr_assert_eq(net_driver_control(d, RX(PROMISC), "\0", 1), VIRTIO_NET_OK);
    for (unsigned i = 0; i < 65; i++)
        memcpy(data + 4 + 6 * i, "\2\7\7\7\7", 5), data[4 + 6 * i + 5] = (uint8_t)i;
    cr_expect_eq(net_driver_control(d, MAC(TABLE_SET), data, sizeof(data)), VIRTIO_NET_OK);
    net_driver_add(d, 0, 9, 200);
    expect_passes(other, true, "unicast", 0);
    expect_passes(group, false, "multicast", 0);
    data[0] = 64; /* as many as are kept, and no multicast table's count of 64 bits behind */
    memset(data + 4 + 64 * 6, 0, 4);
    cr_expect_eq(net_driver_control(d, MAC(TABLE_SET), data, 8 + 64 * 6), VIRTIO_NET_OK);
    expect_passes(other, false, "64", 0);
    expect_passes((const uint8_t *)"\2\7\7\7\7\x3f", true, "64, the last", 0);
    end();
}

static void expect_vlan(unsigned vlan, bool passes, const char *name)
{
    net_rig_frame(frame, 60, net_rig_broadcast, vlan);
    frame[12] = 0x81;
    frame[13] = 0;
    frame[14] = (uint8_t)(0xe0 | vlan >> 8); /* with a priority */
    frame[15] = (uint8_t)vlan;
    cr_assert(net_rig_far_send(&rig, frame, 60));
    virtio_driver_settle(&d->v);
    int got = net_driver_take(d, 0, frame);
    cr_expect_eq(got, passes ? 60 : -1, "%s: VLAN %u: %d", name, vlan, got);
}

Test(net_control, S38_VLANs_are_filtered_only_where_that_was_negotiated)
{
    begin(1, F(CTRL_VLAN));
    cr_assert_eq(net_driver_control(d, RX(PROMISC), "\0", 1), VIRTIO_NET_OK);
    net_driver_add(d, 0, 20, 200);
    expect_vlan(5, true, "not negotiated");
    cr_assert(net_driver_start(d, UINT64_MAX, 0));
    net_driver_add(d, 0, 20, 200);
    /* 5.1.6.5.1.1: promiscuous is all incoming packets, as a bridge in the guest needs it. */
    expect_vlan(5, true, "promiscuous");
    cr_assert_eq(net_driver_control(d, RX(PROMISC), "\0", 1), VIRTIO_NET_OK);
    expect_vlan(5, false, "none added");
    cr_expect_eq(net_driver_control(d, VLAN(ADD), "\5\0", 2), VIRTIO_NET_OK);
    cr_expect_eq(net_driver_control(d, VLAN(ADD), "\xff\x0f", 2), VIRTIO_NET_OK);
    expect_vlan(5, true, "added");
    expect_vlan(4095, true, "added");
    expect_vlan(4, false, "its neighbour");
    expect_vlan(13, false, "the next byte");
    cr_expect_eq(net_driver_control(d, VLAN(DEL), "\5\0", 2), VIRTIO_NET_OK);
    expect_vlan(5, false, "deleted");
    expect_vlan(4095, true, "kept");
    end();
}

/* ---- what happens besides ------------------------------------------------------------------ */

Test(net_control, S35_an_address_stands_in_config_space_before_the_answer)
{
    begin(1, 0);
    cr_expect_eq(net_driver_control(d, MAC(ADDR_SET), STATION, 6), VIRTIO_NET_OK);
    cr_expect_eq(virtio_driver_config(&d->v, 0, 4), 2);
    cr_expect_eq(virtio_driver_config(&d->v, 5, 1), 1);
    virtio_driver_reset(&d->v);
    for (unsigned i = 0; i < 6; i++)
        cr_expect_eq(virtio_driver_config(&d->v, i, 1), net_rig_mac[i], "reset");
    end();
}

Test(net_control, offloads_reach_the_backend)
{
    const uint64_t csum = F(GUEST_CSUM), none = 0;
    begin(1, 0);
    cr_expect_eq(rig.script->offloads, OFFLOADS, "5.1.6.5.6.1: as negotiated, at first");
    cr_expect_eq(net_driver_control(d, OFFLOAD, &csum, 8), VIRTIO_NET_OK);
    cr_expect_eq(rig.script->offloads, csum);
    cr_expect_eq(net_driver_control(d, OFFLOAD, &none, 8), VIRTIO_NET_OK);
    cr_expect_eq(rig.script->offloads, 0);
    rig.script->set_fails = true;
    cr_expect_eq(net_driver_control(d, OFFLOAD, &csum, 8), VIRTIO_NET_ERR);
    rig.script->set_fails = false;
    cr_assert(net_driver_start(d, ~F(GUEST_TSO4), 0));
    cr_expect_eq(rig.script->offloads, OFFLOADS & ~F(GUEST_TSO4));
    end();
}

Test(net_control, S36_an_announcement_until_it_is_acknowledged)
{
    const unsigned at = offsetof(struct virtio_net_config, status);
    begin(1, 0);
    uint32_t generation = virtio_driver_read(&d->v, VIRTIO_MMIO_CONFIG_GENERATION);
    net_announce(rig.net);
    cr_expect_eq(virtio_driver_config(&d->v, at, 2), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
    cr_expect(virtio_driver_wait_interrupt(&d->v));
    cr_expect_neq(d->v.reasons & VIRTIO_MMIO_INT_CONFIG, 0);
    cr_expect_neq(virtio_driver_read(&d->v, VIRTIO_MMIO_CONFIG_GENERATION), generation);
    cr_expect_eq(net_driver_control(d, ANNOUNCE, "", 0), VIRTIO_NET_OK);
    cr_expect_eq(virtio_driver_config(&d->v, at, 2), VIRTIO_NET_S_LINK_UP);
    net_announce(rig.net);
    virtio_driver_reset(&d->v);
    cr_expect_eq(virtio_driver_config(&d->v, at, 2), VIRTIO_NET_S_LINK_UP, "reset");
    end();
}

/* S37: the first pair alone, until the driver asks for more; each pair's packets in its queues. */
Test(net_control, S37_pairs_are_used_once_they_are_asked_for)
{
    uint8_t packet[72] = {0};
    begin(3, 0);
    cr_expect_eq(rig.script->pairs, 1);
    for (unsigned pair = 0; pair < 3; pair++)
        net_driver_add(d, pair, 4, 200);
    for (unsigned pair = 1; pair < 3; pair++) {
        net_rig_frame(frame, 60, net_rig_broadcast, pair);
        net_driver_offer(d, pair, NULL, frame, 60);
        virtio_driver_notify(&d->v, 2 * pair + 1);
    }
    virtio_driver_settle(&d->v);
    for (unsigned i = 2; i < 6; i++)
        cr_expect_eq(fake_driver_used_idx(&d->v.queues[i]), 0, "queue %u", i);
    cr_expect_eq(net_driver_control(d, MQ, "\3\0", 2), VIRTIO_NET_OK);
    cr_expect_eq(rig.script->pairs, 3);
    virtio_driver_settle(&d->v);
    for (unsigned pair = 1; pair < 3; pair++)
        cr_expect_eq(net_driver_sent(d, pair), 1, "what waited goes out");
    for (unsigned pair = 0; pair < 3; pair++) {
        net_rig_frame(packet + 12, 60, net_rig_broadcast, pair);
        net_script_give(rig.script, pair, packet, sizeof(packet), 0);
    }
    for (unsigned pair = 0; pair < 3; pair++)
        cr_expect(net_rig_is_frame(frame, net_driver_receive(d, pair, frame), 60, pair), "%u",
                  pair);
    cr_expect_eq(net_driver_control(d, MQ, "\1\0", 2), VIRTIO_NET_OK);
    cr_expect_eq(rig.script->pairs, 1);
    net_driver_offer(d, 1, NULL, frame, 60);
    virtio_driver_notify(&d->v, 3);
    virtio_driver_settle(&d->v);
    cr_expect_eq(net_driver_sent(d, 1), 0);
    rig.script->set_fails = true;
    cr_expect_eq(net_driver_control(d, MQ, "\2\0", 2), VIRTIO_NET_ERR);
    rig.script->set_fails = false;
    end();
}

/* 4.2.2.1: QueueReady 0 for a queue is no reset of the others. */
Test(net_control, what_was_told_outlives_another_queue)
{
    begin(2, 0);
    cr_assert_eq(net_driver_control(d, RX(PROMISC), "\0", 1), VIRTIO_NET_OK);
    cr_assert_eq(net_driver_control(d, OFFLOAD, "\0\0\0\0\0\0\0\0", 8), VIRTIO_NET_OK);
    net_driver_add(d, 0, 4, 200);
    virtio_driver_write(&d->v, VIRTIO_MMIO_QUEUE_SEL, 3);
    virtio_driver_write(&d->v, VIRTIO_MMIO_QUEUE_READY, 0);
    expect_passes(other, false, "another's", 1);
    expect_passes(net_rig_mac, true, "its own", 0);
    cr_expect_eq(rig.script->offloads, 0);
    end();
}
