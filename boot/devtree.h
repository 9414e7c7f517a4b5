/*
 * The platform as a flattened device tree, for kernels with CONFIG_OF. libfdt is used here alone.
 */
#ifndef BOOT_DEVTREE_H
#define BOOT_DEVTREE_H

#include "boot/boot.h"

/* Build the blob; *dtb is malloc'ed, its size goes to *size. */
int devtree_build(const struct boot_config *config, void **dtb, uint32_t *size,
                  struct minivmm_error *err);

#endif
