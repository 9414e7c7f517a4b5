/*
 * A kernel's symbols, out of System.map, a copy of /proc/kallsyms, or an ELF vmlinux: which
 * function an address is in. The file is untrusted; no more than SYMBOLS_BYTES_MAX of it are kept.
 */
#ifndef VMM_SYMBOLS_H
#define VMM_SYMBOLS_H

#include "vmm/error.h"

#define SYMBOLS_BYTES_MAX (256u << 20)

struct symbols;

/*
 * Read `path`. Negative errno with a text that names the file: for one that is neither, is damaged,
 * or in which no function has an address.
 */
int symbols_create(const char *path, struct symbols **symbols, struct minivmm_error *err);
void symbols_destroy(struct symbols *symbols); /* NULL is allowed */

/*
 * The function that `address` is in: its name, how far from its start the address is, and how far
 * the next symbol is. NULL when it is in none. The text is the symbols'.
 */
const char *symbols_find(const struct symbols *symbols, uint64_t address, uint64_t *offset,
                         uint64_t *size);

/* Where the function of this name starts; false when there is none. */
bool symbols_address(const struct symbols *symbols, const char *name, uint64_t *address);

#endif
