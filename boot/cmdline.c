#include "boot/cmdline.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Why each is here. All can be undone by the user's own words, or with --no-default-cmdline.
 *   console=ttyS0          the terminal minivmm is started from; console=hvc0 besides or instead,
 *                          where there is such a console
 *   panic=-1               a panic restarts at once instead of hanging for ever
 *   reboot=panic_warm      and leaves a mark in the reset flag that an orderly restart does not
 *                          leave: this is how a panic is told without any driver (layout.h)
 *   8250.nr_uarts=1        no search for serial ports that are not there
 *   pci=off                no search for a PCI bus, where there is none
 *   no_timer_check         no test of the PIT, which is not there
 *   tsc=reliable           no watchdog for a clock that KVM keeps
 *   cryptomgr.notests      no self-tests of ciphers: a third of a stock kernel's start
 *   random.trust_cpu=on    random numbers from the first moment
 *   sysctl.kernel.panic_on_io_nmi=1
 *                          a guest that hangs is sent such an NMI, and prints where it was; there
 *                          is no other source of them here (vmm/machine_hang.c)
 */
static const char default_words[] = "panic=-1 reboot=panic_warm 8250.nr_uarts=1 "
                                    "no_timer_check tsc=reliable cryptomgr.notests "
                                    "random.trust_cpu=on sysctl.kernel.panic_on_io_nmi=1";

static bool has_pci(const struct boot_config *config)
{
    for (unsigned i = 0; i < config->fact_count; i++) {
        if (config->facts[i].kind == PLATFORM_PCI)
            return true;
    }
    return false;
}

static void print_platform(FILE *out, const struct boot_config *config)
{
    if (config->platform != MINIVMM_PLATFORM_ACPI)
        fprintf(out, " acpi=off");
    if (config->platform != MINIVMM_PLATFORM_CMDLINE)
        return;
    for (unsigned i = 0; i < config->fact_count; i++) {
        const struct platform_fact *fact = &config->facts[i];
        if (fact->kind == PLATFORM_VIRTIO)
            fprintf(out, " virtio_mmio.device=%llu@0x%llx:%u", (unsigned long long)fact->len,
                    (unsigned long long)fact->base, fact->irq);
    }
}

static bool has_control_character(const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return true;
    }
    return false;
}

int cmdline_compose(const struct boot_config *config, uint32_t max, char **line,
                    struct minivmm_error *err)
{
    const char *user = config->cmdline ? config->cmdline : "";
    size_t length;

    *line = NULL;
    if (has_control_character(user))
        return error_set(err, -EINVAL, "command line: it contains a control character");
    FILE *out = open_memstream(line, &length);
    if (!out)
        return error_set(err, -errno, "command line: %s", strerror(errno));
    if (!config->no_default_cmdline)
        fprintf(out, "%s %s%s", config->consoles ? config->consoles : "console=ttyS0",
                default_words, has_pci(config) ? "" : " pci=off");
    print_platform(out, config);
    if (*user)
        fprintf(out, " %s", user);
    if (fclose(out) != 0) {
        free(*line);
        *line = NULL;
        return error_set(err, -ENOMEM, "command line: %s", strerror(ENOMEM));
    }
    if (**line == ' ') /* the first word of all brought its separator along */
        memmove(*line, *line + 1, length--);
    if (length > max) {
        free(*line);
        *line = NULL;
        return error_set(err, -E2BIG,
                         "command line: %zu characters, of them %zu yours; this kernel takes %u",
                         length, strlen(user), max);
    }
    return 0;
}
