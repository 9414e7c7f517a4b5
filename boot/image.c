#include "boot/image.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int image_open(struct image_file *file, const char *what, const char *path,
               struct minivmm_error *err)
{
    struct stat st;

    *file = (struct image_file){.what = what, .path = path, .fd = -1};
    /* Without O_NONBLOCK a FIFO would wait here for a writer. */
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file->fd < 0 || fstat(file->fd, &st) < 0) {
        int code = -errno;
        image_close(file);
        return error_set(err, code, "%s %s: %s", what, path, strerror(-code));
    }
    const char *fault = S_ISDIR(st.st_mode)    ? "is a directory"
                        : !S_ISREG(st.st_mode) ? "is not a regular file"
                        : st.st_size == 0      ? "is empty"
                                               : NULL;
    if (fault) {
        image_close(file);
        return error_set(err, -EINVAL, "%s %s: %s", what, path, fault);
    }
    file->size = (uint64_t)st.st_size;
    return 0;
}

void image_close(struct image_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}

int image_read(const struct image_file *file, uint64_t offset, void *to, uint64_t size,
               struct minivmm_error *err)
{
    uint8_t *at = to;
    while (size > 0) {
        ssize_t n = pread(file->fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, -errno, "%s %s: %s", file->what, file->path, strerror(errno));
        if (n == 0)
            return error_set(err, -ENODATA, "%s %s: truncated: it ends at byte %llu", file->what,
                             file->path, (unsigned long long)offset);
        at += n;
        offset += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return 0;
}

int image_needs_memory(const struct image_file *file, uint64_t end, const struct guest_mem *mem,
                       struct minivmm_error *err)
{
    const uint64_t mib = 1u << 20;
    return error_set(err, -ENOMEM,
                     "%s %s: needs at least %llu MiB of memory below 3 GiB, the guest has %llu MiB",
                     file->what, file->path, (unsigned long long)(end / mib + (end % mib != 0)),
                     (unsigned long long)(mem->regions[0].size / mib));
}

int image_load_kernel(const char *path, const struct guest_mem *mem, struct kernel_image *kernel,
                      struct minivmm_error *err)
{
    struct image_file file;
    uint8_t first[IMAGE_PROBE_SIZE] = {0};

    int rc = image_open(&file, "kernel", path, err);
    if (rc < 0)
        return rc;
    rc = image_read(&file, 0, first, file.size < sizeof(first) ? file.size : sizeof(first), err);
    if (rc == 0) {
        if (elf_probe(first))
            rc = elf_load(&file, first, mem, kernel, err);
        else if (bzimage_probe(first))
            rc = bzimage_load(&file, first, mem, kernel, err);
        else
            rc = error_set(err, -ENOEXEC, "kernel %s: neither a Linux bzImage nor an ELF file%s",
                           path, file.size < sizeof(first) ? ", or truncated" : "");
    }
    image_close(&file);
    return rc;
}
