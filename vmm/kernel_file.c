#include "vmm/kernel_file.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOOT_FLAG    0xaa55
#define HEADER_MAGIC 0x53726448u /* "HdrS" */
#define HEADER       offsetof(struct boot_params, hdr)
#define VERSION_BASE 0x200u /* boot.rst, kernel_version */

/* At most `size` bytes; zeros past the end of the file. */
static void read_some(int fd, uint64_t offset, void *to, size_t size)
{
    memset(to, 0, size);
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(fd, (char *)to + done, size - done, (off_t)(offset + done));
        if (n <= 0)
            break;
        done += (size_t)n;
    }
}

static void look(struct kernel_file *file)
{
    uint8_t first[HEADER + sizeof(struct setup_header)];

    read_some(file->fd, 0, first, sizeof(first));
    memcpy(&file->header, first + HEADER, sizeof(file->header));
    if (memcmp(first, ELFMAG, SELFMAG) == 0 && first[EI_CLASS] == ELFCLASS64) {
        file->format = KERNEL_ELF;
    } else if (file->header.boot_flag == BOOT_FLAG && file->header.header == HEADER_MAGIC) {
        file->format = KERNEL_BZIMAGE;
        if (file->header.kernel_version)
            read_some(file->fd, VERSION_BASE + (uint64_t)file->header.kernel_version, file->version,
                      sizeof(file->version) - 1);
    }
}

int kernel_file_open(struct kernel_file *file, const char *path, struct minivmm_error *err)
{
    struct stat st;

    *file = (struct kernel_file){.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)};
    if (file->fd < 0)
        return error_set(err, -errno, "kernel %s: %s", path, strerror(errno));
    if (fstat(file->fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        kernel_file_close(file);
        return error_set(err, -EINVAL, "kernel %s: not a regular file", path);
    }
    file->size = (uint64_t)st.st_size;
    look(file);
    return 0;
}

void kernel_file_close(struct kernel_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}
