/*
 * The MP configuration table (Intel MultiProcessor Specification 1.4, chapter 4): processors, I/O
 * APIC and interrupt lines for kernels that are told of their devices on the command line, and that
 * would know neither a second processor nor an interrupt without it.
 */
#ifndef BOOT_MPTABLE_H
#define BOOT_MPTABLE_H

#include "boot/boot.h"

/* Write the floating pointer and the table at LAYOUT_MP_TABLE; notes them in result->tables. */
int mptable_write(const struct guest_mem *mem, const struct boot_config *config,
                  struct boot_result *result, struct minivmm_error *err);

#endif
