/*
 * Kernel images: a file on the host, and loaders that put it into guest memory.
 */
#ifndef BOOT_IMAGE_H
#define BOOT_IMAGE_H

#include <asm/bootparam.h>

#include "vmm/guest_mem.h"

/* A regular file opened for reading; its numbers are untrusted, its size is what fstat said. */
struct image_file {
    const char *what; /* "kernel", "initrd": for error texts */
    const char *path;
    int fd;
    uint64_t size;
};

int image_open(struct image_file *file, const char *what, const char *path,
               struct minivmm_error *err);
void image_close(struct image_file *file);

/* Read exactly `size` bytes at `offset`; -ENODATA when the file ends before. */
int image_read(const struct image_file *file, uint64_t offset, void *to, uint64_t size,
               struct minivmm_error *err);

/* What a loader found out about a kernel that it has put into memory. */
struct kernel_image {
    const char *format;         /* constant text */
    uint64_t load;              /* guest-physical address of its first byte */
    uint64_t end;               /* and past its last */
    uint64_t needs;             /* past what it uses before it knows the memory map */
    uint64_t entry;             /* where 64-bit code starts */
    uint64_t initrd_max;        /* highest address an initrd may reach */
    uint32_t cmdline_max;       /* characters, without the terminating zero */
    struct setup_header header; /* for boot_params, asm/bootparam.h */
};

#define IMAGE_PROBE_SIZE 1024u /* bytes of a file's beginning that tell its format */

/*
 * Is it one of these? `first` are the first bytes of the file, zeros past its end. The loaders
 * check that every part lies in the file and in the guest's low RAM.
 */
bool bzimage_probe(const uint8_t first[IMAGE_PROBE_SIZE]);
int bzimage_load(const struct image_file *file, const uint8_t first[IMAGE_PROBE_SIZE],
                 const struct guest_mem *mem, struct kernel_image *kernel,
                 struct minivmm_error *err);

bool elf_probe(const uint8_t first[IMAGE_PROBE_SIZE]);
int elf_load(const struct image_file *file, const uint8_t first[IMAGE_PROBE_SIZE],
             const struct guest_mem *mem, struct kernel_image *kernel, struct minivmm_error *err);

/* Open, tell the format and load. */
int image_load_kernel(const char *path, const struct guest_mem *mem, struct kernel_image *kernel,
                      struct minivmm_error *err);

/* "kernel k: needs 82 MiB of memory, the guest has 64 MiB": one text for both loaders. */
int image_needs_memory(const struct image_file *file, uint64_t end, const struct guest_mem *mem,
                       struct minivmm_error *err);

#endif
