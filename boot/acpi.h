/*
 * ACPI tables of a hardware-reduced machine (ACPI 6.5): RSDP, XSDT, FADT, MADT, DSDT.
 */
#ifndef BOOT_ACPI_H
#define BOOT_ACPI_H

#include "boot/boot.h"

/*
 * Write the tables at LAYOUT_ACPI and note them in result->tables; *rsdp is the address of the
 * root pointer. -E2BIG when the facts need more room than there is.
 */
int acpi_write(const struct guest_mem *mem, const struct boot_config *config, uint64_t *rsdp,
               struct boot_result *result, struct minivmm_error *err);

#endif
