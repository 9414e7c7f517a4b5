/* minivmm_explain: print what a guest would find, read back from the memory that was filled. */
#include <asm/bootparam.h>
#include <errno.h>

#include "vmm/guest_load.h"

static void print_range(FILE *out, const char *name, uint64_t gpa, uint64_t size)
{
    fprintf(out, "  0x%09llx-0x%09llx  %s (%llu bytes)\n", (unsigned long long)gpa,
            (unsigned long long)(gpa + size - 1), name, (unsigned long long)size);
}

static void print_memory(FILE *out, const struct guest_load *load)
{
    const struct boot_result *boot = &load->boot;

    fprintf(out, "guest memory:\n");
    for (unsigned i = 0; i < load->mem.count; i++)
        print_range(out, "RAM", load->mem.regions[i].gpa, load->mem.regions[i].size);
    fprintf(out, "loaded:\n");
    print_range(out, boot->format, boot->kernel.gpa, boot->kernel.size);
    if (boot->initrd.size)
        print_range(out, boot->initrd.name, boot->initrd.gpa, boot->initrd.size);
    for (unsigned i = 0; i < boot->table_count; i++)
        print_range(out, boot->tables[i].name, boot->tables[i].gpa, boot->tables[i].size);
    fprintf(out, "  the kernel uses 0x%llx-0x%llx before it reads the memory map\n",
            (unsigned long long)boot->kernel.gpa, (unsigned long long)boot->kernel_needs - 1);
    fprintf(out, "  entry: rip 0x%llx, rsi 0x%llx, cr3 0x%llx\n",
            (unsigned long long)boot->entry.rip, (unsigned long long)boot->entry.rsi,
            (unsigned long long)boot->entry.cr3);
}

static void print_e820(FILE *out, const struct guest_load *load)
{
    const struct boot_params *params =
        guest_mem_at(&load->mem, LAYOUT_BOOT_PARAMS, sizeof(*params));

    fprintf(out, "e820:\n");
    for (unsigned i = 0; i < params->e820_entries; i++) {
        const struct boot_e820_entry *entry = &params->e820_table[i];
        print_range(out, entry->type == 1 ? "usable" : "reserved", entry->addr, entry->size);
    }
}

/* "virtio-mmio slot 0: disk 0 (root.img)"; a control character in a path does not break the line.
 */
static void print_slot(FILE *out, const struct minivmm_config *config,
                       const struct platform_fact *fact)
{
    struct minivmm_error name;
    unsigned slot = (unsigned)((fact->base - LAYOUT_VIRTIO) / LAYOUT_VIRTIO_SIZE);
    char text[sizeof(name.text)];

    if (guest_load_slot(config, slot, text, sizeof(text))) {
        error_set(&name, 0, "%s", text);
        fprintf(out, " slot %u: %s", slot, name.text);
    }
}

static void print_devices(FILE *out, const struct guest_load *load,
                          const struct minivmm_config *config)
{
    static const char *const kinds[] = {
        [PLATFORM_COM1] = "COM1: 16550A serial port",
        [PLATFORM_POWER] = "power: sleep control, sleep status, reset",
        [PLATFORM_PVPANIC] = "panic register",
        [PLATFORM_VIRTIO] = "virtio-mmio",
        [PLATFORM_PCI] = "PCI bus",
    };

    fprintf(out, "devices and interrupt lines:\n");
    print_range(out, "I/O APIC, 24 lines", LAYOUT_IOAPIC, LAYOUT_IOAPIC_SIZE);
    for (unsigned i = 0; i < load->fact_count; i++) {
        const struct platform_fact *fact = &load->facts[i];
        bool ports = fact->kind == PLATFORM_COM1 || fact->kind == PLATFORM_PVPANIC;
        fprintf(out, "  %s 0x%llx, %llu byte%s, ", ports ? "port" : "memory",
                (unsigned long long)fact->base, (unsigned long long)fact->len,
                fact->len == 1 ? "" : "s");
        if (fact->irq)
            fprintf(out, "line %u (edge, active high)", fact->irq);
        else
            fprintf(out, "no line");
        fprintf(out, ": %s", kinds[fact->kind]);
        if (fact->kind == PLATFORM_VIRTIO)
            print_slot(out, config, fact);
        fputc('\n', out);
    }
}

int minivmm_explain(const struct minivmm_config *config, FILE *out, struct minivmm_error *err)
{
    static const char *const platforms[] = {
        [MINIVMM_PLATFORM_ACPI] = "ACPI tables",
        [MINIVMM_PLATFORM_DTB] = "device tree",
        [MINIVMM_PLATFORM_CMDLINE] = "MP table and command line",
    };
    struct guest_load load;

    int rc = guest_load_init(&load, config, err);
    if (rc < 0)
        return rc;
    fprintf(out, "%u vCPU%s, %llu MiB of memory, platform described by %s\n", config->cpus,
            config->cpus == 1 ? "" : "s", (unsigned long long)(config->memory >> 20),
            platforms[config->platform]);
    print_memory(out, &load);
    print_e820(out, &load);
    print_devices(out, &load, config);
    fprintf(out, "command line:\n  %s\n", load.boot.cmdline);
    guest_load_finish(&load);
    return 0;
}
