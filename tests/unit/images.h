/*
 * Made-up kernel files: small, good, and easy to damage. Their "code" is a byte pattern.
 */
#ifndef TESTS_UNIT_IMAGES_H
#define TESTS_UNIT_IMAGES_H

#include <stddef.h>
#include <stdint.h>

#include "boot/image.h"
#include "tests/unit/support.h"

#define IMAGE_ROOM 4096u

struct image {
    uint8_t bytes[IMAGE_ROOM];
    size_t size;
};

/* A bzImage: a boot sector, one setup sector, BZIMAGE_CODE bytes that want to be at 16 MiB. */
#define BZIMAGE_SETUP     1024u
#define BZIMAGE_CODE      768u
#define BZIMAGE_LOAD      0x1000000u
#define BZIMAGE_INIT_SIZE 0x100000u
void image_make_bzimage(struct image *image);

/* The same with a signature of SIGNATURE bytes behind the code, as a PE file says it. */
#define BZIMAGE_SIGNATURE 40u
void image_make_signed_bzimage(struct image *image);

/* An ELF program of two segments; the first one's memory is longer than its file. */
#define ELF_LOAD      0x1000000u
#define ELF_FIRST     0x80u
#define ELF_FIRST_MEM 0x2000u
#define ELF_SECOND_AT 0x1400000u
#define ELF_SECOND    0x40u
#define ELF_ENTRY     0x1000010u
#define ELF_VIRTUAL   0xffffffff81000000ull
void image_make_elf(struct image *image);

/* Byte `i` of the code. */
uint8_t image_code(size_t i);

/* Put a little-endian number of 0 to 8 bytes somewhere in the file. */
struct image_patch {
    unsigned offset, width; /* width 0: no patch */
    uint64_t value;
};
void image_patch(struct image *image, const struct image_patch *patch);

/* Where a field of the setup header or of the ELF headers lies in the file. */
#define SETUP(field) (0x1f1u + (unsigned)offsetof(struct setup_header, field))
#define EHDR(field)  ((unsigned)offsetof(Elf64_Ehdr, field))
#define PHDR(n, field)                                                                             \
    ((unsigned)(sizeof(Elf64_Ehdr) + (n) * sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, field)))

/* Load it through a file; the text names the path, which changes from file to file. */
int image_load(const struct image *image, const struct guest_mem *mem, struct kernel_image *kernel,
               struct minivmm_error *err);

/* The error of image_load without "kernel PATH: ". */
const char *image_error(const struct minivmm_error *err);

#endif
