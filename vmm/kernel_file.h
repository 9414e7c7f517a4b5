/*
 * What a kernel's file says about itself, for the program to tell; the loaders of boot/ judge it
 * for themselves. Every number in it is untrusted.
 */
#ifndef VMM_KERNEL_FILE_H
#define VMM_KERNEL_FILE_H

#include <asm/bootparam.h>

#include "vmm/error.h"

#define KERNEL_VERSION_MAX 256u

enum kernel_format {
    KERNEL_UNKNOWN,
    KERNEL_BZIMAGE,
    KERNEL_ELF, /* 64-bit */
};

struct kernel_file {
    int fd;
    uint64_t size;
    enum kernel_format format;
    struct setup_header header;       /* bzImage */
    char version[KERNEL_VERSION_MAX]; /* bzImage: as /proc/version has it; "" if it does not say */
};

/* Open it and look; negative errno with a text. A file of another format is KERNEL_UNKNOWN. */
int kernel_file_open(struct kernel_file *file, const char *path, struct minivmm_error *err);
void kernel_file_close(struct kernel_file *file);

#endif
