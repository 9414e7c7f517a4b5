/* --disk: its file, its sub-options, and what the configuration check says of them. */
#include <errno.h>
#include <string.h>

#include "tests/unit/images.h"
#include "tests/unit/support.h"
#include "vmm/config.h"
#include "vmm/guest_load.h"

SUITE(config_disks);

#define WORDS_MAX 40

static int parse(const char *const *words, unsigned count, struct options *options,
                 struct minivmm_error *err)
{
    char *argv[WORDS_MAX + 4] = {(char *)"minivmm", (char *)"--kernel", (char *)"k"};
    for (unsigned i = 0; i < count; i++)
        argv[3 + i] = (char *)words[i];
    err->text[0] = '\0';
    return options_parse((int)(3 + count), argv, options, err);
}

static const struct {
    const char *value;
    struct minivmm_disk disk;
} goods[] = {
    {"a.img", {.path = "a.img"}},
    {"a.img,readonly", {.path = "a.img", .readonly = true}},
    {"a.img,direct", {.path = "a.img", .direct = true}},
    {"a.img,ephemeral", {.path = "a.img", .ephemeral = true}},
    {"a.img,cache=writeback", {.path = "a.img"}},
    {"a.img,cache=writethrough", {.path = "a.img", .writethrough = true}},
    {"a.img,serial=S 1", {.path = "a.img", .serial = "S 1"}},
    {"a.img,serial=12345678901234567890", {.path = "a.img", .serial = "12345678901234567890"}},
    {"a.img,serial=a=b", {.path = "a.img", .serial = "a=b"}},
    {"a.img,queues=1", {.path = "a.img", .queues = 1}},
    {"a.img,queues=16", {.path = "a.img", .queues = 16}},
    {"a.img,queue-size=4", {.path = "a.img", .queue_size = 4}},
    {"a.img,queue-size=32768", {.path = "a.img", .queue_size = 32768}},
    {"a,,b.img,serial=x,,y", {.path = "a,b.img", .serial = "x,y"}},
    {"a.img,,", {.path = "a.img,"}},
    {",,", {.path = ","}},
    {"readonly", {.path = "readonly"}},
    {"a=b.img", {.path = "a=b.img"}},
    {"a.img,queues=2,readonly,cache=writethrough,serial=s,direct",
     {.path = "a.img",
      .queues = 2,
      .readonly = true,
      .writethrough = true,
      .serial = "s",
      .direct = true}},
};

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

Test(config_disks, sub_options_arrive)
{
    for (size_t i = 0; i < COUNT(goods); i++) {
        const char *const words[] = {"--disk", goods[i].value};
        struct options o;
        struct minivmm_error err;
        int rc = parse(words, 2, &o, &err);
        cr_expect_eq(rc, 0, "%s: %s", goods[i].value, err.text);
        cr_expect_eq(o.vm.disk_count, 1, "%s", goods[i].value);
        const struct minivmm_disk *is = &o.vm.disks[0], *should = &goods[i].disk;
        cr_expect(same(is->path, should->path) && same(is->serial, should->serial), "%s: %s, %s",
                  goods[i].value, is->path, is->serial);
        cr_expect(is->readonly == should->readonly && is->direct == should->direct &&
                      is->ephemeral == should->ephemeral &&
                      is->writethrough == should->writethrough && is->queues == should->queues &&
                      is->queue_size == should->queue_size,
                  "%s", goods[i].value);
        options_finish(&o);
    }
}

Test(config_disks, keep_the_order_they_are_given_in)
{
    const char *const words[] = {"--disk", "a", "--cpus", "2", "--disk=b,readonly", "--disk", "c"};
    struct options o;
    struct minivmm_error err;

    cr_assert_eq(parse(words, COUNT(words), &o, &err), 0, "%s", err.text);
    cr_assert_eq(o.vm.disk_count, 3);
    cr_expect_str_eq(o.vm.disks[0].path, "a");
    cr_expect_str_eq(o.vm.disks[1].path, "b");
    cr_expect(o.vm.disks[1].readonly && !o.vm.disks[2].readonly);
    cr_expect_str_eq(o.vm.disks[2].path, "c");
    options_finish(&o);
}

#define KNOWN                                                                                      \
    "none of readonly, direct, ephemeral, cache=, serial=, queues=, queue-size= (in a name, "      \
    "write , twice)"

static const struct {
    const char *value, *text;
} bads[] = {
    {"a,foo", "disk 0: 'foo' is " KNOWN},
    {"a,", "disk 0: '' is " KNOWN},
    {"a,readonly,", "disk 0: '' is " KNOWN},
    {"a,read", "disk 0: 'read' is " KNOWN},
    {"a,readonly=yes", "disk 0: readonly: takes no value"},
    {"a,readonly=", "disk 0: readonly: takes no value"},
    {"a,readonly,readonly", "disk 0: readonly: given twice"},
    {"a,cache", "disk 0: cache: needs a value"},
    {"a,cache=", "disk 0: cache=: must be writeback or writethrough"},
    {"a,cache=none", "disk 0: cache=none: must be writeback or writethrough"},
    {"a,serial", "disk 0: serial: needs a value"},
    {"a,serial=", "disk 0: serial=: must have 1 to 20 bytes"},
    {"a,serial=123456789012345678901",
     "disk 0: serial=123456789012345678901: must have 1 to 20 bytes"},
    {"a,queues=0", "disk 0: queues=0: must be a number from 1 to 16"},
    {"a,queues=17", "disk 0: queues=17: must be a number from 1 to 16"},
    {"a,queues=-1", "disk 0: queues=-1: must be a number from 1 to 16"},
    {"a,queues=1x", "disk 0: queues=1x: must be a number from 1 to 16"},
    {"a,queues= 1", "disk 0: queues= 1: must be a number from 1 to 16"},
    {"a,queues=18446744073709551617",
     "disk 0: queues=18446744073709551617: must be a number from 1 to 16"},
    {"a,queue-size=3", "disk 0: queue-size=3: must be a number from 4 to 32768"},
    {"a,queue-size=65536", "disk 0: queue-size=65536: must be a number from 4 to 32768"},
};

Test(config_disks, mistakes_are_named)
{
    for (size_t i = 0; i < COUNT(bads); i++) {
        const char *const words[] = {"--disk", bads[i].value};
        struct options o;
        struct minivmm_error err;
        cr_expect_eq(parse(words, 2, &o, &err), -EINVAL, "%s", bads[i].value);
        cr_expect_str_eq(err.text, bads[i].text, "%s: got: %s", bads[i].value, err.text);
        options_finish(&o);
    }
}

Test(config_disks, a_mistake_names_its_own_disk)
{
    const char *const words[] = {"--disk", "a", "--disk", "b,foo=1"};
    struct options o;
    struct minivmm_error err;
    cr_expect_eq(parse(words, 4, &o, &err), -EINVAL);
    cr_expect_str_eq(err.text, "disk 1: 'foo' is " KNOWN);
    options_finish(&o);
}

Test(config_disks, more_than_there_is_room_for_are_refused)
{
    const char *words[2 * (MINIVMM_DEVICES_MAX + 1)];
    struct options o;
    struct minivmm_error err;

    for (unsigned i = 0; i <= MINIVMM_DEVICES_MAX; i++) {
        words[2 * i] = "--disk";
        words[2 * i + 1] = "x.img";
    }
    cr_expect_eq(parse(words, 2 * MINIVMM_DEVICES_MAX, &o, &err), 0, "%s", err.text);
    options_finish(&o);
    cr_expect_eq(parse(words, COUNT(words), &o, &err), -EINVAL);
    cr_expect_str_eq(err.text, "disk 16: x.img: a VM has room for 16 virtio devices");
    options_finish(&o);
}

/* What the library checks, whoever made the configuration. */
static const struct {
    const char *text;
    struct minivmm_disk disk;
} refused[] = {
    {"disk 0: no file given", {.path = NULL}},
    {"disk 0: no file given", {.path = ""}},
    {"disk 0: a: ephemeral and readonly exclude each other",
     {.path = "a", .ephemeral = true, .readonly = true}},
    {"disk 0: a: ephemeral and direct exclude each other",
     {.path = "a", .ephemeral = true, .direct = true}},
    {"disk 0: a: serial 123456789012345678901: has more than 20 bytes",
     {.path = "a", .serial = "123456789012345678901"}},
    {"disk 0: a: 17 queues are more than 16", {.path = "a", .queues = 17}},
    {"disk 0: a: queue size 2: must be a power of two from 4 to 32768",
     {.path = "a", .queue_size = 2}},
    {"disk 0: a: queue size 100: must be a power of two from 4 to 32768",
     {.path = "a", .queue_size = 100}},
    {"disk 0: a: queue size 65536: must be a power of two from 4 to 32768",
     {.path = "a", .queue_size = 65536}},
};

Test(config_disks, the_library_checks_them_before_anything_is_opened)
{
    for (size_t i = 0; i < COUNT(refused); i++) {
        struct minivmm_config config;
        struct minivmm_error err;
        struct guest_load load;
        minivmm_config_init(&config);
        config.kernel = "/nonexistent";
        config.disks = &refused[i].disk;
        config.disk_count = 1;
        cr_expect_eq(guest_load_init(&load, &config, &err), -EINVAL);
        cr_expect_str_eq(err.text, refused[i].text, "got: %s", err.text);
    }
}

Test(config_disks, disks_and_other_devices_share_the_slots)
{
    struct minivmm_disk disks[MINIVMM_DEVICES_MAX];
    struct minivmm_config config;
    struct minivmm_error err;
    struct guest_load load;

    for (unsigned i = 0; i < MINIVMM_DEVICES_MAX; i++)
        disks[i] = (struct minivmm_disk){.path = "a"};
    minivmm_config_init(&config);
    config.kernel = "/nonexistent";
    config.disks = disks;
    config.disk_count = MINIVMM_DEVICES_MAX;
    config.rng = true;
    cr_expect_eq(guest_load_init(&load, &config, &err), -EINVAL);
    cr_expect_str_eq(err.text, "rng: a VM has room for 16 virtio devices, and there are 17");
    config.rng = false;
    cr_expect_eq(guest_load_init(&load, &config, &err), -ENOENT, "%s", err.text);
}
