/* --tap and --net: their sub-options, and what the configuration check says of them. */
#include <errno.h>
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/config.h"
#include "vmm/guest_load.h"

SUITE(config_nets);

static int parse(const char *option, const char *value, struct options *options,
                 struct minivmm_error *err)
{
    char *argv[] = {(char *)"minivmm", (char *)"--kernel", (char *)"k",
                    (char *)option,    (char *)value,      NULL};
    err->text[0] = '\0';
    return options_parse(5, argv, options, err);
}

#define MAC_A                                                                                      \
    {                                                                                              \
        0x52, 0x54, 0, 0xab, 0xCD, 0xef                                                            \
    }

static const struct {
    const char *option, *value;
    struct minivmm_net net;
} goods[] = {
    {"--tap", "tap0", {.tap = "tap0"}},
    {"--tap", "fd=7", {.tap_fd = 7}},
    {"--tap", "fd=1048576", {.tap_fd = 1048576}},
    {"--tap", "tap0,mac=52:54:00:ab:CD:ef", {.tap = "tap0", .mac = MAC_A}},
    {"--tap", "tap0,mtu=68", {.tap = "tap0", .mtu = 68}},
    {"--tap", "tap0,mtu=65535", {.tap = "tap0", .mtu = 65535}},
    {"--tap", "tap0,queues=1", {.tap = "tap0", .queues = 1}},
    {"--tap", "tap0,queues=8", {.tap = "tap0", .queues = 8}},
    {"--tap", "tap0,vhost", {.tap = "tap0", .vhost = true}},
    {"--tap", "tap0,offload=off", {.tap = "tap0", .no_offload = true}},
    {"--tap", "tap0,offload=on", {.tap = "tap0"}},
    {"--tap", "tap0,pcap=a,,b.pcap", {.tap = "tap0", .pcap = "a,b.pcap"}},
    {"--tap", "fd=3,mtu=1500,pcap=x", {.tap_fd = 3, .mtu = 1500, .pcap = "x"}},
    {"--net", "user", {.user = true}},
    {"--net", "user,deny", {.user = true, .deny = true}},
    {"--net", "user,pcap=x,mac=52:54:00:ab:CD:ef", {.user = true, .pcap = "x", .mac = MAC_A}},
    {"--net",
     "user,forward=tcp:1:2,forward=udp:3:4",
     {.user = true, .forwards = {"tcp:1:2", "udp:3:4"}, .forward_count = 2}},
    {"--net", "socket=/run/a,,b", {.socket = "/run/a,b"}},
    {"--net", "socket=a=b,pcap=x", {.socket = "a=b", .pcap = "x"}},
};

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

Test(config_nets, sub_options_arrive)
{
    for (size_t i = 0; i < COUNT(goods); i++) {
        struct options o;
        struct minivmm_error err;
        cr_expect_eq(parse(goods[i].option, goods[i].value, &o, &err), 0, "%s: %s", goods[i].value,
                     err.text);
        cr_expect_eq(o.vm.net_count, 1, "%s", goods[i].value);
        const struct minivmm_net *is = &o.vm.nets[0], *should = &goods[i].net;
        cr_expect(same(is->tap, should->tap) && same(is->socket, should->socket) &&
                      same(is->pcap, should->pcap),
                  "%s", goods[i].value);
        cr_expect(is->tap_fd == should->tap_fd && is->user == should->user &&
                      is->mtu == should->mtu && is->queues == should->queues &&
                      is->vhost == should->vhost && is->no_offload == should->no_offload &&
                      is->deny == should->deny,
                  "%s", goods[i].value);
        cr_expect_arr_eq(is->mac, should->mac, 6, "%s", goods[i].value);
        cr_expect_eq(is->forward_count, should->forward_count, "%s", goods[i].value);
        for (unsigned k = 0; k < is->forward_count; k++)
            cr_expect(same(is->forwards[k], should->forwards[k]), "%s", goods[i].value);
        options_finish(&o);
    }
}

#define TAPS "none of mac=, mtu=, queues=, vhost, offload=, pcap= (in a name, write , twice)"
#define NETS "none of mac=, pcap=, forward=, deny (in a name, write , twice)"
#define ONE  ": must be the address of one station: "
#define SIX  ONE "six bytes in hexadecimal with colons between them"

static const struct {
    const char *option, *value, *text;
} bads[] = {
    {"--tap", "a,foo", "net 0: 'foo' is " TAPS},
    {"--tap", "a,", "net 0: '' is " TAPS},
    {"--tap", "a,deny", "net 0: 'deny' is " TAPS},
    {"--tap", "a,vhost=on", "net 0: vhost: takes no value"},
    {"--tap", "a,vhost,vhost", "net 0: vhost: given twice"},
    {"--tap", "a,mtu", "net 0: mtu: needs a value"},
    {"--tap", "a,mtu=67", "net 0: mtu=67: must be a number from 68 to 65535"},
    {"--tap", "a,mtu=65536", "net 0: mtu=65536: must be a number from 68 to 65535"},
    {"--tap", "a,queues=0", "net 0: queues=0: must be a number from 1 to 8"},
    {"--tap", "a,queues=9", "net 0: queues=9: must be a number from 1 to 8"},
    {"--tap", "a,offload=yes", "net 0: offload=yes: must be on or off"},
    {"--tap", "a,pcap=", "net 0: pcap=: must have 1 to 4095 bytes"},
    {"--tap", "fd=0", "net 0: fd=0: must be the number of an open file"},
    {"--tap", "fd=", "net 0: fd=: must be the number of an open file"},
    {"--tap", "fd=-1", "net 0: fd=-1: must be the number of an open file"},
    {"--tap", "fd=3x", "net 0: fd=3x: must be the number of an open file"},
    {"--tap", "fd=99999999999999999999",
     "net 0: fd=99999999999999999999: must be the number of an "
     "open file"},
    {"--tap", "a,mac=", "net 0: mac=" SIX},
    {"--tap", "a,mac=52:54:00:ab:cd", "net 0: mac=52:54:00:ab:cd" SIX},
    {"--tap", "a,mac=52:54:00:ab:cd:ef:00", "net 0: mac=52:54:00:ab:cd:ef:00" SIX},
    {"--tap", "a,mac=52:54:00:ab:cd:e", "net 0: mac=52:54:00:ab:cd:e" SIX},
    {"--tap", "a,mac=52-54-00-ab-cd-ef", "net 0: mac=52-54-00-ab-cd-ef" SIX},
    {"--tap", "a,mac=52:54:00:ab:cd:gg", "net 0: mac=52:54:00:ab:cd:gg" SIX},
    {"--tap", "a,mac= 2:54:00:ab:cd:ef", "net 0: mac= 2:54:00:ab:cd:ef" SIX},
    {"--tap", "a,mac=+2:54:00:ab:cd:ef", "net 0: mac=+2:54:00:ab:cd:ef" SIX},
    {"--tap", "a,mac=00:00:00:00:00:00", "net 0: mac=00:00:00:00:00:00" ONE "it is all zero"},
    {"--tap", "a,mac=53:54:00:ab:cd:ef",
     "net 0: mac=53:54:00:ab:cd:ef" ONE
     "the first byte of this one is odd, which makes it multicast"},
    {"--net", "users", "net 0: 'users': must be user or socket=PATH"},
    {"--net", "", "net 0: '': must be user or socket=PATH"},
    {"--net", "tap0", "net 0: 'tap0': must be user or socket=PATH"},
    {"--net", "user,mtu=1500", "net 0: 'mtu' is " NETS},
    {"--net", "user,forward", "net 0: forward: needs a value"},
    {"--net", "user,forward=", "net 0: forward=: must have 1 to 16 bytes"},
    {"--net", "user,deny,deny", "net 0: deny: given twice"},
    {"--net", "user,mac=52:54:00:ab:cd:ef,mac=52:54:00:ab:cd:ef", "net 0: mac: given twice"},
};

Test(config_nets, mistakes_are_named)
{
    for (size_t i = 0; i < COUNT(bads); i++) {
        struct options o;
        struct minivmm_error err;
        cr_expect_eq(parse(bads[i].option, bads[i].value, &o, &err), -EINVAL, "%s", bads[i].value);
        cr_expect_str_eq(err.text, bads[i].text, "%s: got: %s", bads[i].value, err.text);
        options_finish(&o);
    }
}

Test(config_nets, as_many_forwards_as_there_is_room_for)
{
    char value[600] = "user";
    struct options o;
    struct minivmm_error err;
    for (unsigned i = 0; i < MINIVMM_FORWARDS_MAX; i++)
        strcat(value, ",forward=tcp:1:2");
    cr_expect_eq(parse("--net", value, &o, &err), 0, "%s", err.text);
    cr_expect_eq(o.nets[0].forward_count, MINIVMM_FORWARDS_MAX);
    options_finish(&o);
    strcat(value, ",forward=tcp:1:2");
    cr_expect_eq(parse("--net", value, &o, &err), -EINVAL);
    cr_expect_str_eq(err.text, "net 0: forward=tcp:1:2: more than 16 of them");
    options_finish(&o);
}

Test(config_nets, taps_and_nets_keep_the_order_they_are_given_in)
{
    char *argv[] = {
        (char *)"minivmm", (char *)"--kernel",       (char *)"k", (char *)"--net", (char *)"user",
        (char *)"--tap=b", (char *)"--net=socket=c", NULL};
    struct options o;
    struct minivmm_error err;
    cr_assert_eq(options_parse(7, argv, &o, &err), 0, "%s", err.text);
    cr_assert_eq(o.vm.net_count, 3);
    cr_expect(o.vm.nets[0].user && same(o.vm.nets[1].tap, "b") && same(o.vm.nets[2].socket, "c"));
    options_finish(&o);
}

/* What the library checks, whoever made the configuration. */
#define WAYS     "net 0: needs exactly one of a tap, an open tap, user and a socket"
#define TAP_ONLY "net 0: mtu, queues, vhost and offload are for taps"

static const struct {
    const char *text;
    struct minivmm_net net;
} refused[] = {
    {WAYS, {0}},
    {WAYS, {.tap = ""}},
    {WAYS, {.socket = ""}},
    {WAYS, {.tap = "a", .user = true}},
    {WAYS, {.tap = "a", .tap_fd = 3}},
    {WAYS, {.socket = "a", .user = true}},
    {WAYS, {.tap_fd = -1}},
    {"net 0: mac: is the address of a group", {.tap = "a", .mac = {1}}},
    {"net 0: mtu 67 is not within 68 to 65535", {.tap = "a", .mtu = 67}},
    {"net 0: mtu 65536 is not within 68 to 65535", {.tap = "a", .mtu = 65536}},
    {"net 0: 9 queues are more than 8", {.tap = "a", .queues = 9}},
    {TAP_ONLY, {.user = true, .mtu = 1500}},
    {TAP_ONLY, {.user = true, .queues = 2}},
    {TAP_ONLY, {.socket = "a", .vhost = true}},
    {TAP_ONLY, {.socket = "a", .no_offload = true}},
    {"net 0: an open tap has one queue, not 2", {.tap_fd = 3, .queues = 2}},
    {"net 0: pcap: with vhost the packets do not pass through here",
     {.tap = "a", .vhost = true, .pcap = "x"}},
    {"net 0: forward and deny are for user", {.tap = "a", .deny = true}},
    {"net 0: forward and deny are for user",
     {.socket = "a", .forwards = {"tcp:1:2"}, .forward_count = 1}},
    {"net 0: more than 16 forwards", {.user = true, .forward_count = 17}},
};

static int check(struct minivmm_net *nets, unsigned count, unsigned disks,
                 struct minivmm_error *err)
{
    struct minivmm_disk disk[MINIVMM_DEVICES_MAX];
    struct minivmm_config config;
    struct guest_load load;

    for (unsigned i = 0; i < disks; i++)
        disk[i] = (struct minivmm_disk){.path = "a"};
    minivmm_config_init(&config);
    config.kernel = "/nonexistent";
    config.nets = nets;
    config.net_count = count;
    config.disks = disk;
    config.disk_count = disks;
    return guest_load_init(&load, &config, err);
}

Test(config_nets, the_library_checks_them_before_anything_is_opened)
{
    struct minivmm_error err;
    for (size_t i = 0; i < COUNT(refused); i++) {
        struct minivmm_net net = refused[i].net;
        cr_expect_eq(check(&net, 1, 0, &err), -EINVAL, "%s", refused[i].text);
        cr_expect_str_eq(err.text, refused[i].text, "got: %s", err.text);
    }
    for (size_t i = 0; i < COUNT(goods); i++) {
        struct minivmm_net net = goods[i].net;
        cr_expect_eq(check(&net, 1, 0, &err), -ENOENT, "%s: %s", goods[i].value, err.text);
    }
}

Test(config_nets, interfaces_share_the_slots_with_disks)
{
    struct minivmm_net nets[2] = {{.tap = "a"}, {.user = true}};
    struct minivmm_error err;
    cr_expect_eq(check(nets, 2, MINIVMM_DEVICES_MAX - 2, &err), -ENOENT, "%s", err.text);
    cr_expect_eq(check(nets, 2, MINIVMM_DEVICES_MAX - 1, &err), -EINVAL);
    cr_expect_str_eq(err.text, "net 1: a VM has room for 16 virtio devices");
}
