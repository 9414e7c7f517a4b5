/* --balloon: its value, and what the configuration check says of it. */
#include <errno.h>
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/balloon_policy.h"
#include "vmm/config.h"

SUITE(config_balloon);

static int parse(const char *value, struct options *options, struct minivmm_error *err)
{
    char *argv[] = {(char *)"minivmm", (char *)"--kernel", (char *)"k", (char *)"--balloon",
                    (char *)value};
    err->text[0] = '\0';
    return options_parse(5, argv, options, err);
}

Test(config_balloon, values_arrive)
{
    static const struct {
        const char *value;
        bool balloon, automatic;
        uint64_t initial, min, reserve;
    } rows[] = {
        {"0", true, false, 0, 0, 0},
        {"64", true, false, 64 * MIB, 0, 0},
        {"64M", true, false, 64 * MIB, 0, 0},
        {"1G,min=128M", true, false, GIB, 128 * MIB, 0},
        {"auto", true, true, 0, 0, 0},
        {"auto,min=1G", true, true, 0, GIB, 0},
        {"auto,reserve=2G,min=64", true, true, 0, 64 * MIB, 2 * GIB},
        {"off", false, false, 0, 0, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct options o;
        struct minivmm_error err;
        cr_expect_eq(parse(rows[i].value, &o, &err), 0, "%s: %s", rows[i].value, err.text);
        cr_expect(o.vm.balloon == rows[i].balloon && o.vm.balloon_auto == rows[i].automatic &&
                      o.vm.balloon_initial == rows[i].initial && o.vm.balloon_min == rows[i].min &&
                      o.vm.balloon_reserve == rows[i].reserve,
                  "%s", rows[i].value);
        options_finish(&o);
    }
}

Test(config_balloon, P7_bad_values_are_named_in_one_line)
{
    static const struct {
        const char *value, *part;
    } rows[] = {
        {"", "balloon: : must be a size"},
        {"x", "balloon: x: must be a size"},
        {"-1", "-1: must be"},
        {"1K", "1K: must be"},
        {"64MB", "64MB: must be"},
        {"5T", "5T: must be"},
        {"18446744073709551615T", "must be"},
        {"99999999999999999999999", "must be"},
        {"Auto", "Auto: must be"},
        {"off,min=1M", "off stands alone"},
        {"auto,min=0", "min=0: must be"},
        {"auto,min=x", "min=x: must be"},
        {"auto,min=", "min=: must have"},
        {"auto,min", "min: needs a value"},
        {"auto,reserve=x", "reserve=x: must be"},
        {"64M,reserve=1G", "reserve is for auto"},
        {"auto,max=1G", "'max' is none of min=, reserve="},
        {"auto,min=1M,min=2M", "given twice"},
        {"1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678"
         "901234567890123456789012345678901234567890",
         "too long"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct options o;
        struct minivmm_error err;
        cr_expect_eq(parse(rows[i].value, &o, &err), -EINVAL, "%s", rows[i].value);
        cr_expect(support_one_line(&err, rows[i].part), "%s: %s", rows[i].value, err.text);
        options_finish(&o);
    }
}

Test(config_balloon, P7_the_guest_keeps_its_floor)
{
    static const struct {
        const char *name;
        struct minivmm_config config;
        bool good;
    } rows[] = {
        {"none", {.memory = GIB, .balloon_initial = GIB}, true},
        {"nothing asked for", {.memory = GIB, .balloon = true}, true},
        {"down to an eighth",
         {.memory = GIB, .balloon = true, .balloon_initial = GIB - GIB / 8},
         true},
        {"a page more",
         {.memory = GIB, .balloon = true, .balloon_initial = GIB - GIB / 8 + 4096},
         false},
        {"down to a floor of its own",
         {.memory = GIB, .balloon = true, .balloon_min = GIB / 2, .balloon_initial = GIB / 2},
         true},
        {"below it",
         {.memory = GIB,
          .balloon = true,
          .balloon_min = GIB / 2,
          .balloon_initial = GIB / 2 + 4096},
         false},
        {"a floor of all", {.memory = GIB, .balloon = true, .balloon_min = GIB}, true},
        {"a floor of more", {.memory = GIB, .balloon = true, .balloon_min = GIB + 4096}, false},
        {"more than there is",
         {.memory = GIB, .balloon = true, .balloon_initial = UINT64_MAX},
         false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct minivmm_error err = {""};
        cr_expect_eq(balloon_check(&rows[i].config, &err), rows[i].good ? 0 : -EINVAL, "%s",
                     rows[i].name);
        if (!rows[i].good)
            cr_expect(support_one_line(&err, "balloon: "), "%s: %s", rows[i].name, err.text);
    }
}
