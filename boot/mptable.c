#include "boot/mptable.h"

#include <errno.h>
#include <string.h>

#include "boot/boot_params.h"
#include "vmm/layout.h"

/* Sections 4.1 to 4.3. */
struct mp_pointer {
    char signature[4];
    uint32_t table;
    uint8_t length; /* in 16 bytes */
    uint8_t revision;
    uint8_t checksum;
    uint8_t features[5];
} __attribute__((packed));

struct mp_header {
    char signature[4];
    uint16_t length;
    uint8_t revision;
    uint8_t checksum;
    char oem[8];
    char product[12];
    uint32_t oem_table;
    uint16_t oem_table_size;
    uint16_t entries;
    uint32_t lapic;
    uint16_t extended_length;
    uint8_t extended_checksum;
    uint8_t reserved;
} __attribute__((packed));

struct mp_processor {
    uint8_t type, apic_id, apic_version, flags;
    uint32_t signature, features;
    uint32_t reserved[2];
} __attribute__((packed));

struct mp_bus {
    uint8_t type, id;
    char name[6];
} __attribute__((packed));

struct mp_ioapic {
    uint8_t type, id, version, flags;
    uint32_t address;
} __attribute__((packed));

struct mp_interrupt {
    uint8_t type, kind;
    uint16_t flags;
    uint8_t bus, bus_line, apic_id, apic_pin;
} __attribute__((packed));

enum { MP_PROCESSOR = 0, MP_BUS = 1, MP_IOAPIC = 2, MP_IO_INTERRUPT = 3, MP_LOCAL_INTERRUPT = 4 };
enum { MP_INT = 0, MP_NMI = 1, MP_EXTINT = 3 };
enum { CPU_ENABLED = 1, CPU_BOOT = 2, IOAPIC_ENABLED = 1 };

#define SPEC_REVISION  4    /* 1.4 */
#define APIC_VERSION   0x14 /* an integrated local APIC */
#define IOAPIC_VERSION 0x11
#define ISA_BUS        0
#define IOAPIC_ID      0
#define ALL_APICS      0xff
#define EDGE_HIGH      (1 << 0 | 1 << 2) /* active high, edge-triggered */

static uint8_t checksum(const void *bytes, size_t length)
{
    const uint8_t *at = bytes;
    uint8_t sum = 0;
    for (size_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + at[i]);
    return (uint8_t)-sum;
}

/* Append an entry; the caller has made sure that all of them fit. */
static void append(struct mp_header *header, const void *entry, size_t size)
{
    memcpy((uint8_t *)header + header->length, entry, size);
    header->length = (uint16_t)(header->length + size);
    header->entries++;
}

static void write_entries(struct mp_header *header, unsigned cpus)
{
    for (unsigned i = 0; i < cpus; i++) {
        const struct mp_processor cpu = {.type = MP_PROCESSOR,
                                         .apic_id = (uint8_t)i,
                                         .apic_version = APIC_VERSION,
                                         .flags = CPU_ENABLED | (i == 0 ? CPU_BOOT : 0)};
        append(header, &cpu, sizeof(cpu));
    }
    const struct mp_bus bus = {
        .type = MP_BUS, .id = ISA_BUS, .name = {'I', 'S', 'A', ' ', ' ', ' '}};
    const struct mp_ioapic ioapic = {.type = MP_IOAPIC,
                                     .id = IOAPIC_ID,
                                     .version = IOAPIC_VERSION,
                                     .flags = IOAPIC_ENABLED,
                                     .address = LAYOUT_IOAPIC};
    append(header, &bus, sizeof(bus));
    append(header, &ioapic, sizeof(ioapic));
    for (unsigned line = 0; line < LAYOUT_IRQ_LINES; line++) {
        const struct mp_interrupt interrupt = {.type = MP_IO_INTERRUPT,
                                               .kind = MP_INT,
                                               .flags = EDGE_HIGH,
                                               .bus = ISA_BUS,
                                               .bus_line = (uint8_t)line,
                                               .apic_id = IOAPIC_ID,
                                               .apic_pin = (uint8_t)line};
        append(header, &interrupt, sizeof(interrupt));
    }
    const struct mp_interrupt nmi = {.type = MP_LOCAL_INTERRUPT,
                                     .kind = MP_NMI,
                                     .bus = ISA_BUS,
                                     .apic_id = ALL_APICS,
                                     .apic_pin = 1};
    append(header, &nmi, sizeof(nmi));
}

int mptable_write(const struct guest_mem *mem, const struct boot_config *config,
                  struct boot_result *result, struct minivmm_error *err)
{
    const uint64_t room = LAYOUT_MP_TABLE_END - LAYOUT_MP_TABLE;
    const uint64_t size = sizeof(struct mp_pointer) + sizeof(struct mp_header) +
                          config->cpus * sizeof(struct mp_processor) + sizeof(struct mp_bus) +
                          sizeof(struct mp_ioapic) +
                          (LAYOUT_IRQ_LINES + 1) * sizeof(struct mp_interrupt);
    if (size > room)
        return error_set(err, -E2BIG, "MP table: %u vCPUs do not fit", config->cpus);

    /* Linux looks for the pointer on 16-byte boundaries of the last KiB of base memory first. */
    const uint32_t at = LAYOUT_MP_TABLE_END - 0x400;
    struct mp_pointer *pointer = guest_mem_at(mem, at, sizeof(*pointer));
    *pointer = (struct mp_pointer){.signature = {'_', 'M', 'P', '_'},
                                   .table = LAYOUT_MP_TABLE,
                                   .length = sizeof(*pointer) / 16,
                                   .revision = SPEC_REVISION};
    pointer->checksum = checksum(pointer, sizeof(*pointer));

    struct mp_header *header = guest_mem_at(mem, LAYOUT_MP_TABLE, room);
    *header = (struct mp_header){.signature = {'P', 'C', 'M', 'P'},
                                 .length = sizeof(*header),
                                 .revision = SPEC_REVISION,
                                 .lapic = LAYOUT_LAPIC};
    memcpy(header->oem, "MINIVMM ", sizeof(header->oem));
    memcpy(header->product, "MINIVMM     ", sizeof(header->product));
    write_entries(header, config->cpus);
    header->checksum = checksum(header, header->length);

    boot_result_add_table(result, "MP table", LAYOUT_MP_TABLE, header->length);
    boot_result_add_table(result, "MP pointer", at, sizeof(*pointer));
    return 0;
}
