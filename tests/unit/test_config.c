#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/config.h"

SUITE(config);

#define WORDS_MAX 6

/* Parse words after the program's name; the list ends with NULL. */
static int parse(const char *const words[WORDS_MAX], struct options *options,
                 struct minivmm_error *err)
{
    char *argv[WORDS_MAX + 2] = {(char *)"minivmm"};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)words[argc - 1];
    err->text[0] = '\0';
    return options_parse(argc, argv, options, err);
}

Test(config, has_its_defaults)
{
    struct options o;
    struct minivmm_error err;
    cr_assert_eq(parse((const char *const[WORDS_MAX]){"--kernel", "k"}, &o, &err), 0, "%s",
                 err.text);
    cr_expect_str_eq(o.vm.kernel, "k");
    cr_expect_null(o.vm.initrd);
    cr_expect_null(o.vm.cmdline);
    cr_expect_not(o.vm.no_default_cmdline);
    cr_expect_eq(o.vm.cpus, 1);
    cr_expect_eq(o.vm.memory, 256 * MIB);
    cr_expect_eq(o.vm.platform, MINIVMM_PLATFORM_ACPI);
    cr_expect_not(o.vm.debug_exit);
    cr_expect_eq(o.vm.timeout, 0);
    cr_expect_eq(o.vm.serial_in, -1);
    cr_expect_eq(o.vm.serial_out, -1);
    cr_expect_not(o.quiet || o.explain || o.stats || o.help || o.version);
}

/* A value as a number or a string; what an option stores and where. */
struct good {
    const char *name, *value;
    size_t place;
    enum { TEXT, FLAG, UNSIGNED, BYTES, PLATFORM } kind;
    uint64_t number;
};
#define AT(member) offsetof(struct options, member)

static const struct good goods[] = {
    {"--kernel", "/boot/k", AT(vm.kernel), TEXT, 0},
    {"--initrd", "i.img", AT(vm.initrd), TEXT, 0},
    {"--initrd", "", AT(vm.initrd), TEXT, 0},
    {"--cmdline", "root=/dev/vda ro", AT(vm.cmdline), TEXT, 0},
    {"--cmdline", "--looks=like --options", AT(vm.cmdline), TEXT, 0},
    {"--cmdline", "a=b=c", AT(vm.cmdline), TEXT, 0},
    {"--no-default-cmdline", NULL, AT(vm.no_default_cmdline), FLAG, 1},
    {"--rng", NULL, AT(vm.rng), FLAG, 1},
    {"--until", "login: ", AT(vm.until), TEXT, 0},
    {"--silence", "30", AT(vm.silence), UNSIGNED, 30},
    {"--cpus", "1", AT(vm.cpus), UNSIGNED, 1},
    {"--cpus", "254", AT(vm.cpus), UNSIGNED, 254},
    {"--cpus", "007", AT(vm.cpus), UNSIGNED, 7},
    {"--memory", "1", AT(vm.memory), BYTES, 1ull << 20},
    {"--memory", "300", AT(vm.memory), BYTES, 300ull << 20},
    {"--memory", "1M", AT(vm.memory), BYTES, 1ull << 20},
    {"--memory", "2G", AT(vm.memory), BYTES, 2ull << 30},
    {"--memory", "1T", AT(vm.memory), BYTES, 1ull << 40},
    {"--memory", "4T", AT(vm.memory), BYTES, 4ull << 40},
    {"--memory", "4194304", AT(vm.memory), BYTES, 4ull << 40},
    {"--platform", "acpi", AT(vm.platform), PLATFORM, MINIVMM_PLATFORM_ACPI},
    {"--platform", "dtb", AT(vm.platform), PLATFORM, MINIVMM_PLATFORM_DTB},
    {"--platform", "cmdline", AT(vm.platform), PLATFORM, MINIVMM_PLATFORM_CMDLINE},
    {"--timeout", "1", AT(vm.timeout), UNSIGNED, 1},
    {"--timeout", "604800", AT(vm.timeout), UNSIGNED, 604800},
    {"--debug-exit", NULL, AT(vm.debug_exit), FLAG, 1},
    {"--explain", NULL, AT(explain), FLAG, 1},
    {"--stats", NULL, AT(stats), FLAG, 1},
    {"--quiet", NULL, AT(quiet), FLAG, 1},
};

static bool stored(const struct options *options, const struct good *good)
{
    const void *at = (const char *)options + good->place;
    switch (good->kind) {
    case TEXT:
        return *(const char *const *)at && strcmp(*(const char *const *)at, good->value) == 0;
    case FLAG:
        return *(const bool *)at;
    case UNSIGNED:
        return *(const unsigned *)at == good->number;
    case BYTES:
        return *(const uint64_t *)at == good->number;
    case PLATFORM:
        return *(const enum minivmm_platform *)at == good->number;
    }
    return false;
}

Test(config, stores_good_values_in_either_spelling)
{
    for (size_t i = 0; i < COUNT(goods); i++) {
        const struct good *good = &goods[i];
        bool kernel = strcmp(good->name, "--kernel") == 0;
        struct options o;
        struct minivmm_error err;
        char joined[64];

        const char *apart[WORDS_MAX] = {good->name};
        unsigned n = 1;
        if (good->value)
            apart[n++] = good->value;
        if (!kernel)
            apart[n++] = "--kernel=k";
        cr_expect_eq(parse(apart, &o, &err), 0, "%s: %s", good->name, err.text);
        cr_expect(stored(&o, good), "%s %s", good->name, good->value ? good->value : "");

        if (!good->value)
            continue;
        snprintf(joined, sizeof(joined), "%s=%s", good->name, good->value);
        const char *together[WORDS_MAX] = {joined, kernel ? NULL : "--kernel=k"};
        cr_expect_eq(parse(together, &o, &err), 0, "%s: %s", joined, err.text);
        cr_expect(stored(&o, good), "%s", joined);
    }
}

Test(config, help_and_version_need_no_kernel)
{
    struct options o;
    struct minivmm_error err;
    cr_assert_eq(parse((const char *const[WORDS_MAX]){"--help"}, &o, &err), 0, "%s", err.text);
    cr_assert(o.help);
    cr_assert_eq(parse((const char *const[WORDS_MAX]){"--version"}, &o, &err), 0, "%s", err.text);
    cr_assert(o.version);
}

#define CPUS      ": must be a number from 1 to 254"
#define SIZES     ": must be a size from 1M to 4T: a number of MiB, or one with the suffix M, G or T"
#define SECONDS   ": must be a number of seconds from 1 to 604800"
#define PLATFORMS ": must be acpi, dtb or cmdline"

Test(config, says_what_is_wrong_with_a_bad_line)
{
    static const struct {
        const char *words[WORDS_MAX];
        const char *text;
    } rows[] = {
        {{NULL}, "--kernel FILE is needed; see minivmm --help"},
        {{"--cpus", "2"}, "--kernel FILE is needed; see minivmm --help"},
        {{"--kernel"}, "--kernel: needs a value: FILE"},
        {{"--kernel=k", "--memory"}, "--memory: needs a value: SIZE"},
        {{"--kernel=k", "--kernel=k"}, "--kernel: given twice"},
        {{"--kernel=k", "--quiet", "--quiet"}, "--quiet: given twice"},
        {{"--kernel=k", "--cpus", "1", "--cpus=1"}, "--cpus: given twice"},
        {{"--kernel=k", "--quiet=yes"}, "--quiet: takes no value"},
        {{"--kernel=k", "--help="}, "--help: takes no value"},
        {{"--kernel=k", "--bogus"}, "--bogus: no such option; see minivmm --help"},
        {{"--kernel=k", "--bogus=1"}, "--bogus=1: no such option; see minivmm --help"},
        {{"--kern", "k"}, "--kern: no such option; see minivmm --help"},
        {{"--kernels", "k"}, "--kernels: no such option; see minivmm --help"},
        {{"-k", "k"}, "-k: no such option; see minivmm --help"},
        {{"k"}, "k: no such option; see minivmm --help"},
        {{""}, ": no such option; see minivmm --help"},
        {{"--"}, "--: no such option; see minivmm --help"},
        {{"--="}, "--=: no such option; see minivmm --help"},
        {{"kernel=k"}, "kernel=k: no such option; see minivmm --help"},
        {{"--kernel=k", "--a\nb"}, "--a?b: no such option; see minivmm --help"},
        {{"--kernel=k", "--cpus", "0"}, "--cpus 0" CPUS},
        {{"--kernel=k", "--cpus", "255"}, "--cpus 255" CPUS},
        {{"--kernel=k", "--cpus", "-1"}, "--cpus -1" CPUS},
        {{"--kernel=k", "--cpus", "+1"}, "--cpus +1" CPUS},
        {{"--kernel=k", "--cpus", " 1"}, "--cpus  1" CPUS},
        {{"--kernel=k", "--cpus", "1 "}, "--cpus 1 " CPUS},
        {{"--kernel=k", "--cpus", ""}, "--cpus " CPUS},
        {{"--kernel=k", "--cpus="}, "--cpus " CPUS},
        {{"--kernel=k", "--cpus", "1.5"}, "--cpus 1.5" CPUS},
        {{"--kernel=k", "--cpus", "0x1"}, "--cpus 0x1" CPUS},
        {{"--kernel=k", "--cpus", "two"}, "--cpus two" CPUS},
        {{"--kernel=k", "--cpus", "4294967297"}, "--cpus 4294967297" CPUS},
        {{"--kernel=k", "--cpus", "18446744073709551617"}, "--cpus 18446744073709551617" CPUS},
        {{"--kernel=k", "--memory", "0"}, "--memory 0" SIZES},
        {{"--kernel=k", "--memory", "5T"}, "--memory 5T" SIZES},
        {{"--kernel=k", "--memory", "4194305"}, "--memory 4194305" SIZES},
        {{"--kernel=k", "--memory", "-1"}, "--memory -1" SIZES},
        {{"--kernel=k", "--memory", ""}, "--memory " SIZES},
        {{"--kernel=k", "--memory", "M"}, "--memory M" SIZES},
        {{"--kernel=k", "--memory", "1Gx"}, "--memory 1Gx" SIZES},
        {{"--kernel=k", "--memory", "1 G"}, "--memory 1 G" SIZES},
        {{"--kernel=k", "--memory", "1g"}, "--memory 1g" SIZES},
        {{"--kernel=k", "--memory", "1K"}, "--memory 1K" SIZES},
        {{"--kernel=k", "--memory", "1.5G"}, "--memory 1.5G" SIZES},
        {{"--kernel=k", "--memory", "17592186044417"}, "--memory 17592186044417" SIZES},
        {{"--kernel=k", "--memory", "16777217T"}, "--memory 16777217T" SIZES},
        {{"--kernel=k", "--memory", "18446744073709551617M"},
         "--memory 18446744073709551617M" SIZES},
        {{"--kernel=k", "--platform", "ACPI"}, "--platform ACPI" PLATFORMS},
        {{"--kernel=k", "--platform", ""}, "--platform " PLATFORMS},
        {{"--kernel=k", "--platform", "acpi,dtb"}, "--platform acpi,dtb" PLATFORMS},
        {{"--kernel=k", "--timeout", "0"}, "--timeout 0" SECONDS},
        {{"--kernel=k", "--timeout", "604801"}, "--timeout 604801" SECONDS},
        {{"--kernel=k", "--timeout", "1s"}, "--timeout 1s" SECONDS},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct options o;
        struct minivmm_error err;
        cr_expect_eq(parse(rows[i].words, &o, &err), -EINVAL, "%s", rows[i].text);
        cr_expect_str_eq(err.text, rows[i].text, "got: %s", err.text);
    }
}

Test(config, the_help_lists_every_option)
{
    static const char *const others[] = {"--help ",   "--version ", "--disk ",
                                         "--tap ",    "--net ",     "--balloon ",
                                         "--expect ", "--within ",  "--fail-on "};
    char *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    options_print_help(out);
    fclose(out);
    for (size_t i = 0; i < COUNT(goods); i++) {
        char line[40];
        snprintf(line, sizeof(line), "\n  %s ", goods[i].name);
        cr_expect_not_null(strstr(text, line), "%s", goods[i].name);
    }
    for (size_t i = 0; i < COUNT(others); i++)
        cr_expect_not_null(strstr(text, others[i]), "%s", others[i]);
    /* and what it lists is an option: nothing in this test is missing from the tables above */
    unsigned lines = 0;
    for (const char *at = text; (at = strstr(at, "\n  --")); at++)
        lines++;
    unsigned names = COUNT(others);
    for (size_t i = 0; i < COUNT(goods); i++)
        names += i == 0 || strcmp(goods[i].name, goods[i - 1].name) != 0;
    cr_expect_eq(lines, names, "%u lines, %u options", lines, names);
    free(text);
}
