/*
 * Devicetree Specification 0.4, and the bindings that arch/x86/kernel/devicetree.c of Linux reads:
 * x86/ce4100.txt for CPUs, local APIC and I/O APIC, virtio/mmio.yaml for the slots, and
 * power/reset/syscon-{reboot,poweroff}.yaml for the power registers. Linux powers off through them;
 * on x86 it restarts through port 0x64 all the same.
 */
#include "boot/devtree.h"

#include <errno.h>
#include <libfdt.h>
#include <stdlib.h>

#include "vmm/layout.h"

#define DTB_ROOM       65536
#define PHANDLE_IOAPIC 1
#define PHANDLE_POWER  2
/* Second interrupt cell of "intel,ce4100-ioapic": low-to-high edge. */
#define EDGE_RISING 3
/* First address cell of an ISA bus: the address is an I/O port. */
#define ISA_PORT   1
#define ISA_PORTS  0x10000
#define UART_CLOCK 1843200

/* Writer with a sticky error: the first failure of libfdt is kept, the rest does nothing. */
struct writer {
    void *blob;
    int error;
};

static void keep(struct writer *w, int rc)
{
    if (rc < 0 && w->error == 0)
        w->error = rc;
}

static void begin(struct writer *w, const char *name)
{
    keep(w, fdt_begin_node(w->blob, name));
}

static void begin_at(struct writer *w, const char *name, uint64_t address)
{
    char full[32];
    snprintf(full, sizeof(full), "%s@%llx", name, (unsigned long long)address);
    begin(w, full);
}

static void end(struct writer *w)
{
    keep(w, fdt_end_node(w->blob));
}

static void text(struct writer *w, const char *name, const char *value)
{
    keep(w, fdt_property_string(w->blob, name, value));
}

static void flag(struct writer *w, const char *name)
{
    keep(w, fdt_property(w->blob, name, NULL, 0));
}

static void cell(struct writer *w, const char *name, uint32_t value)
{
    keep(w, fdt_property_u32(w->blob, name, value));
}

static void cells(struct writer *w, const char *name, const uint32_t *values, unsigned count)
{
    fdt32_t raw[8];
    for (unsigned i = 0; i < count; i++)
        raw[i] = cpu_to_fdt32(values[i]);
    keep(w, fdt_property(w->blob, name, raw, (int)(count * sizeof(raw[0]))));
}

/* Everything is below 4 GiB, so that one cell holds an address. */
static void reg(struct writer *w, uint64_t base, uint64_t len)
{
    const uint32_t values[] = {(uint32_t)base, (uint32_t)len};
    cells(w, "reg", values, 2);
}

static void interrupt(struct writer *w, unsigned line)
{
    const uint32_t values[] = {line, EDGE_RISING};
    cell(w, "interrupt-parent", PHANDLE_IOAPIC);
    cells(w, "interrupts", values, 2);
}

static void write_cpus(struct writer *w, unsigned count)
{
    begin(w, "cpus");
    cell(w, "#address-cells", 1);
    cell(w, "#size-cells", 0);
    for (unsigned i = 0; i < count; i++) {
        begin_at(w, "cpu", i);
        text(w, "device_type", "cpu");
        text(w, "compatible", "intel,ce4100");
        cell(w, "reg", i); /* the local APIC's id */
        end(w);
    }
    end(w);
}

static void write_apics(struct writer *w)
{
    begin_at(w, "interrupt-controller", LAYOUT_LAPIC);
    text(w, "compatible", "intel,ce4100-lapic");
    reg(w, LAYOUT_LAPIC, 0x1000);
    end(w);

    begin_at(w, "interrupt-controller", LAYOUT_IOAPIC);
    text(w, "compatible", "intel,ce4100-ioapic");
    reg(w, LAYOUT_IOAPIC, LAYOUT_IOAPIC_SIZE);
    flag(w, "interrupt-controller");
    cell(w, "#interrupt-cells", 2);
    cell(w, "#address-cells", 0);
    cell(w, "phandle", PHANDLE_IOAPIC);
    end(w);
}

static void write_serial(struct writer *w, const struct platform_fact *fact)
{
    const uint32_t address[] = {ISA_PORT, (uint32_t)fact->base, (uint32_t)fact->len};
    /* Ports keep their numbers. Not left empty, which means the same only for equal cell counts. */
    const uint32_t ranges[] = {ISA_PORT, 0, 0, ISA_PORTS};

    begin_at(w, "isa", 0);
    text(w, "compatible", "isa");
    cell(w, "#address-cells", 2);
    cell(w, "#size-cells", 1);
    cells(w, "ranges", ranges, 4);
    char name[32];
    snprintf(name, sizeof(name), "serial@i%llx", (unsigned long long)fact->base);
    begin(w, name);
    text(w, "compatible", "ns16550a");
    cells(w, "reg", address, 3);
    cell(w, "clock-frequency", UART_CLOCK);
    interrupt(w, fact->irq);
    end(w);
    end(w);
}

static void write_power(struct writer *w, const struct platform_fact *fact)
{
    begin_at(w, "power", fact->base);
    keep(w, fdt_property(w->blob, "compatible", "syscon\0simple-mfd", 18));
    reg(w, fact->base, fact->len);
    cell(w, "reg-io-width", 1);
    cell(w, "phandle", PHANDLE_POWER);
    begin(w, "reboot");
    text(w, "compatible", "syscon-reboot");
    cell(w, "regmap", PHANDLE_POWER);
    cell(w, "offset", POWER_RESET);
    cell(w, "value", POWER_RESET_VALUE);
    end(w);
    begin(w, "poweroff");
    text(w, "compatible", "syscon-poweroff");
    cell(w, "regmap", PHANDLE_POWER);
    cell(w, "offset", POWER_SLEEP_CONTROL);
    cell(w, "value", POWER_SLEEP_S5);
    end(w);
    end(w);
}

static void write_virtio(struct writer *w, const struct platform_fact *fact)
{
    begin_at(w, "virtio_mmio", fact->base);
    text(w, "compatible", "virtio,mmio");
    reg(w, fact->base, fact->len);
    interrupt(w, fact->irq);
    flag(w, "dma-coherent");
    end(w);
}

static void write_fact(struct writer *w, const struct platform_fact *fact)
{
    switch (fact->kind) {
    case PLATFORM_COM1:
        write_serial(w, fact);
        break;
    case PLATFORM_POWER:
        write_power(w, fact);
        break;
    case PLATFORM_VIRTIO:
        write_virtio(w, fact);
        break;
    case PLATFORM_PVPANIC: /* Linux binds it by ACPI or with registers in memory only */
    case PLATFORM_PCI:     /* comes with ACPI alone */
        break;
    }
}

int devtree_build(const struct boot_config *config, void **dtb, uint32_t *size,
                  struct minivmm_error *err)
{
    struct writer w = {.blob = malloc(DTB_ROOM)};
    if (!w.blob)
        return error_set(err, -ENOMEM, "device tree: out of memory");

    keep(&w, fdt_create(w.blob, DTB_ROOM));
    keep(&w, fdt_finish_reservemap(w.blob));
    begin(&w, "");
    text(&w, "compatible", "minivmm,minivmm");
    text(&w, "model", "minivmm");
    cell(&w, "#address-cells", 1);
    cell(&w, "#size-cells", 1);
    write_cpus(&w, config->cpus);
    begin(&w, "soc");
    text(&w, "compatible", "simple-bus");
    cell(&w, "#address-cells", 1);
    cell(&w, "#size-cells", 1);
    flag(&w, "ranges");
    write_apics(&w);
    for (unsigned i = 0; i < config->fact_count; i++)
        write_fact(&w, &config->facts[i]);
    end(&w);
    end(&w);
    keep(&w, fdt_finish(w.blob));
    if (w.error) {
        free(w.blob);
        return error_set(err, -E2BIG, "device tree: %s", fdt_strerror(w.error));
    }
    *dtb = w.blob;
    *size = fdt_totalsize(w.blob);
    return 0;
}
