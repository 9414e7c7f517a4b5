#include "vmm/guest_load.h"

#include <errno.h>
#include <sys/sysinfo.h>

#include "vmm/layout.h"

#define PAGE_SIZE 4096u

static int check(const struct minivmm_config *config, struct minivmm_error *err)
{
    struct sysinfo host;

    if (!config->kernel || !*config->kernel)
        return error_set(err, -EINVAL, "kernel: none given");
    if (config->cpus < 1 || config->cpus > MINIVMM_CPUS_MAX)
        return error_set(err, -EINVAL, "cpus: %u is not within 1 to %u", config->cpus,
                         MINIVMM_CPUS_MAX);
    if (config->memory < MINIVMM_MEMORY_MIN || config->memory > MINIVMM_MEMORY_MAX ||
        config->memory % PAGE_SIZE)
        return error_set(err, -EINVAL,
                         "memory: %llu bytes: not a multiple of %u from 1 MiB to 4 TiB",
                         (unsigned long long)config->memory, PAGE_SIZE);
    if (config->timeout > MINIVMM_TIMEOUT_MAX)
        return error_set(err, -EINVAL, "timeout: %u is more than %u seconds", config->timeout,
                         MINIVMM_TIMEOUT_MAX);
    if (config->platform > MINIVMM_PLATFORM_CMDLINE)
        return error_set(err, -EINVAL, "platform: %d is none", (int)config->platform);
    if (sysinfo(&host) == 0) {
        uint64_t total = ((uint64_t)host.totalram + host.totalswap) * host.mem_unit;
        if (config->memory > total)
            return error_set(err, -ENOMEM, "memory: %llu MiB is more than this host's %llu MiB",
                             (unsigned long long)(config->memory >> 20),
                             (unsigned long long)(total >> 20));
    }
    return 0;
}

/* The platform that every VM has. */
static unsigned collect_facts(struct platform_fact *facts)
{
    unsigned n = 0;
    facts[n++] = (struct platform_fact){.kind = PLATFORM_COM1,
                                        .base = LAYOUT_PORT_COM1,
                                        .len = LAYOUT_PORTS_COM1,
                                        .irq = LAYOUT_IRQ_COM1};
    facts[n++] = (struct platform_fact){
        .kind = PLATFORM_POWER, .base = LAYOUT_POWER, .len = LAYOUT_POWER_SIZE};
    facts[n++] =
        (struct platform_fact){.kind = PLATFORM_PVPANIC, .base = LAYOUT_PORT_PANIC, .len = 1};
    return n;
}

int guest_load_init(struct guest_load *load, const struct minivmm_config *config,
                    struct minivmm_error *err)
{
    *load = (struct guest_load){0};
    int rc = check(config, err);
    if (rc == 0)
        rc = guest_mem_init(&load->mem, config->memory, err);
    if (rc < 0)
        return rc;

    load->fact_count = collect_facts(load->facts);
    const struct boot_config boot = {.kernel = config->kernel,
                                     .initrd = config->initrd,
                                     .cmdline = config->cmdline,
                                     .no_default_cmdline = config->no_default_cmdline,
                                     .cpus = config->cpus,
                                     .platform = config->platform,
                                     .facts = load->facts,
                                     .fact_count = load->fact_count};
    rc = boot_load(&load->mem, &boot, &load->boot, err);
    if (rc < 0)
        guest_load_finish(load);
    return rc;
}

void guest_load_finish(struct guest_load *load)
{
    boot_result_finish(&load->boot);
    guest_mem_finish(&load->mem);
}
