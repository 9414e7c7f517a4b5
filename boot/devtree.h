/*
 * The platform as a flattened device tree. libfdt is used here alone.
 *
 * Linux on x86 reads it if it has CONFIG_OF_EARLY_FLATTREE (which only certain drivers select) and
 * ACPI is off. It finds COM1's port and interrupt only with CONFIG_PCI and SERIAL_OF_PLATFORM, and
 * powers off only with POWER_RESET_SYSCON_POWEROFF.
 */
#ifndef BOOT_DEVTREE_H
#define BOOT_DEVTREE_H

#include "boot/boot.h"

/* Build the blob; *dtb is malloc'ed, its size goes to *size. */
int devtree_build(const struct boot_config *config, void **dtb, uint32_t *size,
                  struct minivmm_error *err);

#endif
