/*
 * A kernel as it runs: the payload of a bzImage, uncompressed, or an ELF file as it is. Formats are
 * told by their first bytes and left to the host's programs (xz, zstd...): nobody else here needs
 * them.
 */
#ifndef VMM_KERNEL_UNPACK_H
#define VMM_KERNEL_UNPACK_H

#include <stddef.h>

#include "vmm/kernel_file.h"

/* *data is malloc'ed and the caller's. Negative errno with a text, the program's name in it. */
int kernel_unpack(const struct kernel_file *file, uint8_t **data, size_t *size,
                  struct minivmm_error *err);

/*
 * The configuration that a kernel with CONFIG_IKCONFIG carries, as text. *text is malloc'ed; NULL
 * with 0 returned: it carries none.
 */
int kernel_unpack_config(const uint8_t *data, size_t size, char **text, struct minivmm_error *err);

#endif
