#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/cmdline.h"
#include "tests/unit/support.h"

SUITE(cmdline);

#define DEFAULTS                                                                                   \
    "console=ttyS0 panic=-1 reboot=panic_warm 8250.nr_uarts=1 no_timer_check "                     \
    "tsc=reliable "                                                                                \
    "cryptomgr.notests random.trust_cpu=on sysctl.kernel.panic_on_io_nmi=1 pci=off"

static const struct platform_fact facts[] = {
    {.kind = PLATFORM_COM1, .base = 0x3f8, .len = 8, .irq = 4},
    {.kind = PLATFORM_VIRTIO, .base = 0xd0001000, .len = 0x1000, .irq = 8},
    {.kind = PLATFORM_POWER, .base = 0xd0000000, .len = 0x1000},
    {.kind = PLATFORM_VIRTIO, .base = 0xd0010000, .len = 0x200, .irq = 23},
};
#define SLOTS "virtio_mmio.device=4096@0xd0001000:8 virtio_mmio.device=512@0xd0010000:23"

Test(cmdline, puts_defaults_first_then_the_platform_then_the_users_words)
{
    static const struct {
        enum minivmm_platform platform;
        bool no_defaults;
        const char *user, *line;
    } rows[] = {
        {MINIVMM_PLATFORM_ACPI, false, NULL, DEFAULTS},
        {MINIVMM_PLATFORM_ACPI, false, "", DEFAULTS},
        {MINIVMM_PLATFORM_ACPI, false, "panic=5 ro", DEFAULTS " panic=5 ro"},
        {MINIVMM_PLATFORM_ACPI, true, NULL, ""},
        {MINIVMM_PLATFORM_ACPI, true, "ro", "ro"},
        {MINIVMM_PLATFORM_ACPI, true, " ro", " ro"},
        {MINIVMM_PLATFORM_ACPI, true, "a=\"b c\" -- x", "a=\"b c\" -- x"},
        {MINIVMM_PLATFORM_DTB, false, "ro", DEFAULTS " acpi=off ro"},
        {MINIVMM_PLATFORM_DTB, true, NULL, "acpi=off"},
        {MINIVMM_PLATFORM_CMDLINE, false, "ro", DEFAULTS " acpi=off " SLOTS " ro"},
        {MINIVMM_PLATFORM_CMDLINE, true, NULL, "acpi=off " SLOTS},
        {MINIVMM_PLATFORM_CMDLINE, true, "\xc3\xa4", "acpi=off " SLOTS " \xc3\xa4"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct boot_config config = {.cmdline = rows[i].user,
                                           .no_default_cmdline = rows[i].no_defaults,
                                           .platform = rows[i].platform,
                                           .facts = facts,
                                           .fact_count = COUNT(facts)};
        struct minivmm_error err;
        char *line;
        cr_assert_eq(cmdline_compose(&config, 2047, &line, &err), 0, "row %zu: %s", i, err.text);
        cr_expect_str_eq(line, rows[i].line, "row %zu: %s", i, line);
        free(line);
    }
}

Test(cmdline, names_the_consoles_that_there_are)
{
    static const char *const consoles[] = {"console=hvc0", "console=ttyS0 console=hvc0"};
    for (size_t i = 0; i < COUNT(consoles); i++) {
        struct boot_config config = {.consoles = consoles[i]};
        struct minivmm_error err;
        char *line;
        cr_assert_eq(cmdline_compose(&config, 2047, &line, &err), 0);
        cr_expect_eq(strncmp(line, consoles[i], strlen(consoles[i])), 0, "%s", line);
        cr_expect_eq(line[strlen(consoles[i])], ' ');
        free(line);
        config.no_default_cmdline = true;
        cr_assert_eq(cmdline_compose(&config, 2047, &line, &err), 0);
        cr_expect_str_eq(line, "");
        free(line);
    }
}

Test(cmdline, is_as_long_as_the_kernel_takes_and_no_longer)
{
    static const uint32_t maxima[] = {255, 2047, 98303};
    for (size_t i = 0; i < COUNT(maxima); i++) {
        const uint32_t max = maxima[i];
        struct boot_config config = {.no_default_cmdline = true};
        struct minivmm_error err;
        char *user = calloc(1, max + 2), *line, text[160];
        config.cmdline = user;
        memset(user, 'a', max);
        cr_expect_eq(cmdline_compose(&config, max, &line, &err), 0, "%u", max);
        cr_expect_str_eq(line, user);
        free(line);
        user[max] = 'b';
        cr_expect_eq(cmdline_compose(&config, max, &line, &err), -E2BIG, "%u", max);
        cr_expect_null(line);
        snprintf(text, sizeof(text),
                 "command line: %u characters, of them %u yours; this kernel takes %u", max + 1,
                 max + 1, max);
        cr_expect_str_eq(err.text, text, "%s", err.text);
        free(user);
    }
}

Test(cmdline, the_defaults_count)
{
    const struct boot_config config = {.cmdline = "ro"};
    struct minivmm_error err;
    char *line, text[160];
    const uint32_t length = sizeof(DEFAULTS " ro") - 1;
    cr_assert_eq(cmdline_compose(&config, length, &line, &err), 0, "%s", err.text);
    free(line);
    cr_assert_eq(cmdline_compose(&config, length - 1, &line, &err), -E2BIG);
    snprintf(text, sizeof(text),
             "command line: %u characters, of them 2 yours; this kernel takes %u", length,
             length - 1);
    cr_assert_str_eq(err.text, text, "%s", err.text);
}

Test(cmdline, takes_no_control_character)
{
    for (unsigned c = 1; c < 256; c++) {
        const char user[] = {'a', (char)c, 'b', 0};
        const struct boot_config config = {.cmdline = user, .no_default_cmdline = true};
        const bool control = c < 0x20 || c == 0x7f;
        struct minivmm_error err;
        char *line;
        cr_expect_eq(cmdline_compose(&config, 100, &line, &err), control ? -EINVAL : 0, "0x%x", c);
        if (control)
            cr_expect_str_eq(err.text, "command line: it contains a control character");
        free(line);
    }
}
