#include "boot/acpi.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "boot/aml.h"
#include "boot/boot_params.h"
#include "vmm/layout.h"

#define OEM_ID     "MINVMM"   /* 6 characters */
#define OEM_TABLE  "MINIVMM " /* 8 characters */
#define CREATOR_ID "MVMM"     /* 4 characters */

/* Table 5.9, offsets in the FADT, and the flags that are used. */
enum {
    FADT_IAPC_BOOT_ARCH = 109,
    FADT_FLAGS = 112,
    FADT_RESET_REG = 116,
    FADT_RESET_VALUE = 128,
    FADT_MINOR_VERSION = 131,
    FADT_X_DSDT = 140,
    FADT_SLEEP_CONTROL_REG = 244,
    FADT_SLEEP_STATUS_REG = 256,
    FADT_HYPERVISOR_ID = 268,
    FADT_SIZE = 276,
};
#define FADT_FLAG_WBINVD     (1u << 0)
#define FADT_FLAG_PWR_BUTTON (1u << 4) /* set: there is no power button in fixed hardware */
#define FADT_FLAG_SLP_BUTTON (1u << 5)
#define FADT_FLAG_RESET_REG  (1u << 10)
#define FADT_FLAG_HW_REDUCED (1u << 20)
/* 5.2.9.3: neither 8042 (bit 1 clear) nor VGA nor CMOS clock: nobody waits for one to answer. */
#define BOOT_ARCH_NO_VGA      (1u << 2)
#define BOOT_ARCH_NO_CMOS_RTC (1u << 5)

#define NOTIFY_BUTTON_PRESSED 0x80 /* table 5.162 */

#define HEADER_LENGTH     4u /* offset of a table's length */
#define HEADER_CHECKSUM   9u
#define RSDP_CHECKSUM     8u
#define RSDP_OLD_SIZE     20u /* what the first checksum covers */
#define RSDP_LENGTH       20u
#define RSDP_EXT_CHECKSUM 32u
#define RSDP_XSDT         24u
#define RSDP_SIZE         36u

static void fix_checksum(uint8_t *bytes, size_t length, size_t at)
{
    uint8_t sum = 0;
    bytes[at] = 0;
    for (size_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + bytes[i]);
    bytes[at] = (uint8_t)-sum;
}

/* 5.2.6: open a table; its length and checksum come at the end. */
static size_t open_table(struct aml *aml, const char *signature, uint8_t revision)
{
    while (aml->size % 16 && !aml->full)
        aml_number(aml, 0, 1);
    size_t start = aml->size;
    aml_bytes(aml, signature, 4);
    aml_number(aml, 0, 4);
    aml_number(aml, revision, 1);
    aml_number(aml, 0, 1);
    aml_bytes(aml, OEM_ID, 6);
    aml_bytes(aml, OEM_TABLE, 8);
    aml_number(aml, 1, 4); /* OEM revision */
    aml_bytes(aml, CREATOR_ID, 4);
    aml_number(aml, 1, 4); /* creator revision */
    return start;
}

/* Returns the table's guest-physical address. */
static uint64_t close_table(struct aml *aml, size_t start, const char *name,
                            struct boot_result *result)
{
    uint64_t gpa = LAYOUT_ACPI + start;
    if (aml->full)
        return gpa;
    uint32_t length = (uint32_t)(aml->size - start);
    memcpy(aml->bytes + start + HEADER_LENGTH, &length, sizeof(length));
    fix_checksum(aml->bytes + start, length, HEADER_CHECKSUM);
    boot_result_add_table(result, name, gpa, length);
    return gpa;
}

static void open_device(struct aml *aml, const char *name, const char *hid, unsigned uid,
                        size_t marks[2])
{
    marks[0] = aml_scope(aml, "\\_SB_");
    marks[1] = aml_device(aml, name);
    aml_name_string(aml, "_HID", hid);
    aml_name_integer(aml, "_UID", uid);
}

static void close_device(struct aml *aml, const size_t marks[2])
{
    aml_close(aml, marks[1]);
    aml_close(aml, marks[0]);
}

/* A device whose registers are I/O ports, with or without an interrupt. */
static void port_device(struct aml *aml, const char *name, const char *hid,
                        const struct platform_fact *fact)
{
    size_t marks[2];
    open_device(aml, name, hid, 0, marks);
    struct aml_resources crs = aml_resources(aml);
    aml_io(aml, (uint16_t)fact->base, (uint8_t)fact->len);
    if (fact->irq)
        aml_interrupt(aml, fact->irq);
    aml_close_resources(aml, crs);
    close_device(aml, marks);
}

static void virtio_device(struct aml *aml, unsigned index, const struct platform_fact *fact)
{
    size_t marks[2];
    char name[5];
    snprintf(name, sizeof(name), "VR%02X", index & 0xff);
    open_device(aml, name, "LNRO0005", index, marks);
    aml_name_integer(aml, "_CCA", 1); /* the device sees the processor's caches */
    struct aml_resources crs = aml_resources(aml);
    aml_memory(aml, (uint32_t)fact->base, (uint32_t)fact->len);
    aml_interrupt(aml, fact->irq);
    aml_close_resources(aml, crs);
    close_device(aml, marks);
}

/* The root of a PCI bus 0; what is on it, the guest finds by itself. */
static void pci_root(struct aml *aml, const struct platform_fact *fact)
{
    size_t marks[2];
    open_device(aml, "PCI0", "PNP0A03", 0, marks);
    aml_name_integer(aml, "_CCA", 1);
    struct aml_resources crs = aml_resources(aml);
    aml_bus_window(aml, 0, 1);
    aml_io(aml, LAYOUT_PORT_PCI, LAYOUT_PORTS_PCI);
    aml_io_window(aml, LAYOUT_PCI_PORTS, LAYOUT_PCI_PORTS_SIZE);
    aml_memory_window(aml, (uint32_t)fact->base, (uint32_t)fact->len);
    aml_close_resources(aml, crs);
    close_device(aml, marks);
}

/*
 * A machine without fixed hardware has its power button as a device (4.8.2.2.1.2), whose presses
 * come through the generic event device (5.6.9): an interrupt that runs _EVT.
 */
static void power_button(struct aml *aml, const struct platform_fact *fact)
{
    size_t marks[2];
    open_device(aml, "PWRB", "PNP0C0C", 0, marks);
    close_device(aml, marks);
    open_device(aml, "GED0", "ACPI0013", 0, marks);
    struct aml_resources crs = aml_resources(aml);
    aml_interrupt(aml, fact->irq);
    aml_close_resources(aml, crs);
    aml_method_notify(aml, "_EVT", 1, "PWRB", NOTIFY_BUTTON_PRESSED);
    close_device(aml, marks);
}

static uint64_t write_dsdt(struct aml *aml, const struct boot_config *config,
                           struct boot_result *result)
{
    size_t start = open_table(aml, "DSDT", 2);
    unsigned virtio = 0;

    for (unsigned i = 0; i < config->fact_count; i++) {
        const struct platform_fact *fact = &config->facts[i];
        switch (fact->kind) {
        case PLATFORM_COM1:
            port_device(aml, "COM1", "PNP0501", fact);
            break;
        case PLATFORM_PVPANIC:
            port_device(aml, "PEVT", "QEMU0001", fact);
            break;
        case PLATFORM_VIRTIO:
            virtio_device(aml, virtio++, fact);
            break;
        case PLATFORM_PCI:
            pci_root(aml, fact);
            break;
        case PLATFORM_POWER: {
            /* 7.4.2: what to write into sleep control for S5 */
            const uint8_t s5[] = {POWER_SLEEP_TYPE_S5, 0, 0, 0};
            aml_name_package(aml, "\\_S5_", s5, sizeof(s5));
            if (fact->irq)
                power_button(aml, fact);
            break;
        }
        }
    }
    return close_table(aml, start, "DSDT", result);
}

/* 5.2.3.2: generic address of one byte in memory */
static void put_register(uint8_t *at, uint64_t gpa)
{
    const uint8_t head[4] = {0 /* system memory */, 8 /* bits */, 0 /* offset */,
                             1 /* byte access */};
    memcpy(at, head, sizeof(head));
    memcpy(at + sizeof(head), &gpa, sizeof(gpa));
}

static uint64_t write_fadt(struct aml *aml, const struct boot_config *config, uint64_t dsdt,
                           struct boot_result *result)
{
    size_t start = open_table(aml, "FACP", 6);
    uint8_t fadt[FADT_SIZE] = {0};
    uint16_t boot_arch = BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_CMOS_RTC;
    uint32_t flags =
        FADT_FLAG_WBINVD | FADT_FLAG_PWR_BUTTON | FADT_FLAG_SLP_BUTTON | FADT_FLAG_HW_REDUCED;

    for (unsigned i = 0; i < config->fact_count; i++) {
        const struct platform_fact *fact = &config->facts[i];
        if (fact->kind != PLATFORM_POWER)
            continue;
        flags |= FADT_FLAG_RESET_REG;
        put_register(fadt + FADT_RESET_REG, fact->base + POWER_RESET);
        fadt[FADT_RESET_VALUE] = POWER_RESET_VALUE;
        put_register(fadt + FADT_SLEEP_CONTROL_REG, fact->base + POWER_SLEEP_CONTROL);
        put_register(fadt + FADT_SLEEP_STATUS_REG, fact->base + POWER_SLEEP_STATUS);
    }
    memcpy(fadt + FADT_IAPC_BOOT_ARCH, &boot_arch, sizeof(boot_arch));
    memcpy(fadt + FADT_FLAGS, &flags, sizeof(flags));
    fadt[FADT_MINOR_VERSION] = 5;
    memcpy(fadt + FADT_X_DSDT, &dsdt, sizeof(dsdt));
    memcpy(fadt + FADT_HYPERVISOR_ID, OEM_TABLE, 8);

    size_t header = aml->size - start;
    aml_bytes(aml, fadt + header, sizeof(fadt) - header);
    return close_table(aml, start, "FADT", result);
}

/* 5.2.12 */
static uint64_t write_madt(struct aml *aml, const struct boot_config *config,
                           struct boot_result *result)
{
    enum { LOCAL_APIC = 0, IO_APIC = 1, LOCAL_APIC_NMI = 4 };
    const uint32_t enabled = 1;
    size_t start = open_table(aml, "APIC", 5);

    aml_number(aml, LAYOUT_LAPIC, 4);
    aml_number(aml, 0, 4); /* no pair of 8259s */
    for (unsigned i = 0; i < config->cpus; i++) {
        aml_number(aml, LOCAL_APIC | 8 << 8, 2);
        aml_number(aml, i, 1); /* processor uid */
        aml_number(aml, i, 1); /* APIC id */
        aml_number(aml, enabled, 4);
    }
    aml_number(aml, IO_APIC | 12 << 8, 2);
    aml_number(aml, 0, 2); /* id, reserved */
    aml_number(aml, LAYOUT_IOAPIC, 4);
    aml_number(aml, 0, 4); /* first interrupt line */
    aml_number(aml, LOCAL_APIC_NMI | 6 << 8, 2);
    aml_number(aml, 0xff, 1); /* all processors */
    aml_number(aml, 0, 2);    /* polarity and trigger as the bus has them */
    aml_number(aml, 1, 1);    /* LINT1 */
    return close_table(aml, start, "MADT", result);
}

static void write_rsdp(uint8_t *at, uint64_t xsdt)
{
    const uint32_t length = RSDP_SIZE;
    memcpy(at, "RSD PTR ", 8);
    memcpy(at + RSDP_CHECKSUM + 1, OEM_ID, 6);
    at[15] = 2; /* revision */
    memcpy(at + RSDP_LENGTH, &length, sizeof(length));
    memcpy(at + RSDP_XSDT, &xsdt, sizeof(xsdt));
    fix_checksum(at, RSDP_OLD_SIZE, RSDP_CHECKSUM);
    fix_checksum(at, RSDP_SIZE, RSDP_EXT_CHECKSUM);
}

int acpi_write(const struct guest_mem *mem, const struct boot_config *config, uint64_t *rsdp,
               struct boot_result *result, struct minivmm_error *err)
{
    const size_t room = LAYOUT_ACPI_END - LAYOUT_ACPI;
    struct aml aml = {.bytes = guest_mem_at(mem, LAYOUT_ACPI, room), .capacity = room};

    /* The root pointer stands first, where a scan of this area would look for it too. */
    uint8_t *root = aml.bytes;
    aml.size = RSDP_SIZE;
    boot_result_add_table(result, "RSDP", LAYOUT_ACPI, RSDP_SIZE);

    uint64_t dsdt = write_dsdt(&aml, config, result);
    uint64_t fadt = write_fadt(&aml, config, dsdt, result);
    uint64_t madt = write_madt(&aml, config, result);
    size_t start = open_table(&aml, "XSDT", 1);
    aml_number(&aml, fadt, 8);
    aml_number(&aml, madt, 8);
    uint64_t xsdt = close_table(&aml, start, "XSDT", result);
    if (aml.full)
        return error_set(err, -E2BIG, "ACPI tables: more than %zu bytes", room);
    write_rsdp(root, xsdt);
    *rsdp = LAYOUT_ACPI;
    return 0;
}
