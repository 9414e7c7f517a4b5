#include "devices/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/checked.h"

#define WORD_BITS 64u

/* ---- the bitmap ---------------------------------------------------------------------------- */

static bool is_present(const struct overlay *overlay, uint64_t block)
{
    uint64_t word = __atomic_load_n(&overlay->present[block / WORD_BITS], __ATOMIC_ACQUIRE);
    return word >> (block % WORD_BITS) & 1;
}

/* The blocks [first, end) have got their data. With the lock held. */
static void set_present(struct overlay *overlay, uint64_t first, uint64_t end)
{
    while (first < end) {
        unsigned bit = first % WORD_BITS;
        uint64_t count = end - first < WORD_BITS - bit ? end - first : WORD_BITS - bit;
        uint64_t mask = (count == WORD_BITS ? UINT64_MAX : (1ull << count) - 1) << bit;
        __atomic_fetch_or(&overlay->present[first / WORD_BITS], mask, __ATOMIC_RELEASE);
        first += count;
    }
}

/*
 * Where the blocks from `offset` on, up to `end`, are all present or all not; in bytes. Who does
 * not hold the lock has to take *present from here: a block may become present at any time.
 */
static uint64_t run_end(const struct overlay *overlay, uint64_t offset, uint64_t end, bool *present)
{
    uint64_t block = offset / OVERLAY_BLOCK;
    const uint64_t last = (end - 1) / OVERLAY_BLOCK;
    *present = is_present(overlay, block);
    const uint64_t same = *present ? UINT64_MAX : 0;
    while (block < last) {
        const uint64_t *word = &overlay->present[(block + 1) / WORD_BITS];
        if ((block + 1) % WORD_BITS == 0 && last - block >= WORD_BITS &&
            __atomic_load_n(word, __ATOMIC_ACQUIRE) == same)
            block += WORD_BITS;
        else if (is_present(overlay, block + 1) == *present)
            block++;
        else
            return (block + 1) * OVERLAY_BLOCK;
    }
    return end;
}

struct disk_file *overlay_whole(struct overlay *overlay, uint64_t offset, uint64_t length,
                                bool write)
{
    bool present;
    if (run_end(overlay, offset, offset + length, &present) != offset + length)
        return NULL;
    if (present)
        return &overlay->file;
    return write ? NULL : overlay->image;
}

/* ---- requests ------------------------------------------------------------------------------ */

static int read_runs(struct overlay *overlay, struct disk_request *request)
{
    const uint64_t end = request->offset + request->length;
    int rc = 0;
    while (rc == 0 && disk_request_left(request) > 0) {
        uint64_t offset = disk_request_offset(request);
        bool present;
        uint64_t length = run_end(overlay, offset, end, &present) - offset;
        rc =
            disk_file_transfer(present ? overlay->file.fd : overlay->image->fd, request, length, 1);
    }
    return rc;
}

/*
 * Make a block that is about to be changed in part present, with the image's contents. With the
 * lock held.
 */
static int copy_up(struct overlay *overlay, uint64_t block)
{
    uint8_t data[OVERLAY_BLOCK];
    uint64_t start = block * OVERLAY_BLOCK;
    size_t length = overlay->size - start < sizeof(data) ? overlay->size - start : sizeof(data);
    int rc = disk_file_read(overlay->image->fd, data, length, start);
    if (rc == 0)
        rc = disk_file_write(overlay->file.fd, data, length, start);
    if (rc == 0)
        set_present(overlay, block, block + 1);
    return rc;
}

/* The end of the blocks that [offset, end) covers wholly; the image's last one may be short. */
static uint64_t whole_end(const struct overlay *overlay, uint64_t end)
{
    return end == overlay->size ? end : end - end % OVERLAY_BLOCK;
}

/*
 * How far from `offset` a change can go in one step: all that is present, or whole blocks that are
 * not, to be made so by the change itself. A block that is neither is copied up first. Returns
 * bytes or a negative errno. With the lock held.
 */
static int64_t next_step(struct overlay *overlay, uint64_t offset, uint64_t end)
{
    uint64_t block = offset / OVERLAY_BLOCK;
    bool whole = offset % OVERLAY_BLOCK == 0 && whole_end(overlay, end) > offset;
    if (!is_present(overlay, block) && !whole) {
        int rc = copy_up(overlay, block);
        if (rc < 0)
            return rc;
    }
    bool present;
    uint64_t stop = run_end(overlay, offset, end, &present);
    if (!present)
        stop = whole_end(overlay, stop);
    return (int64_t)(stop - offset);
}

static int write_run(struct overlay *overlay, struct disk_request *request, uint64_t length)
{
    uint64_t offset = disk_request_offset(request);
    int rc = disk_file_transfer(overlay->file.fd, request, length, 1);
    if (rc == 0)
        set_present(overlay, offset / OVERLAY_BLOCK,
                    (offset + length + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK);
    return rc;
}

/* Blocks that are punched out read as zeroes once they are present. */
static int zero_run(struct overlay *overlay, struct disk_request *request, uint64_t length)
{
    uint64_t offset = disk_request_offset(request);
    int rc = disk_file_punch(&overlay->file, offset, length);
    if (rc == -EOPNOTSUPP)
        rc = disk_file_write_zeroes(overlay->file.fd, offset, length);
    if (rc == 0)
        set_present(overlay, offset / OVERLAY_BLOCK,
                    (offset + length + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK);
    request->transferred += length;
    return rc;
}

/* A hint may leave the edges alone: only what is whole blocks is worth a step. */
static int discard(struct overlay *overlay, struct disk_request *request)
{
    uint64_t first, last = whole_end(overlay, request->offset + request->length);
    if (!checked_align_up(request->offset, OVERLAY_BLOCK, &first) || first >= last)
        return 0;
    int rc = disk_file_punch(&overlay->file, first, last - first);
    if (rc == 0)
        set_present(overlay, first / OVERLAY_BLOCK, (last + OVERLAY_BLOCK - 1) / OVERLAY_BLOCK);
    return rc == -EOPNOTSUPP ? 0 : rc;
}

static int change(struct overlay *overlay, struct disk_request *request)
{
    const uint64_t end = request->offset + request->length;
    int64_t step = 0;
    int rc = 0;
    while (rc == 0 && disk_request_left(request) > 0) {
        step = next_step(overlay, disk_request_offset(request), end);
        if (step < 0)
            rc = (int)step;
        else if (request->op == DISK_WRITE)
            rc = write_run(overlay, request, (uint64_t)step);
        else
            rc = zero_run(overlay, request, (uint64_t)step);
    }
    return rc;
}

int overlay_run(struct overlay *overlay, struct disk_request *request)
{
    int rc;
    if (request->op == DISK_READ)
        return read_runs(overlay, request);
    pthread_mutex_lock(&overlay->lock);
    rc = request->op == DISK_DISCARD ? discard(overlay, request) : change(overlay, request);
    pthread_mutex_unlock(&overlay->lock);
    return rc;
}

/* ---- life ---------------------------------------------------------------------------------- */

static int open_unlinked(const char *dir)
{
    char path[PATH_MAX];
    int fd = open(dir, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    /* EISDIR is what a kernel says that knows no O_TMPFILE. */
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
        return fd < 0 ? -errno : fd;
    if (snprintf(path, sizeof(path), "%s/minivmm-XXXXXX", dir) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    unlink(path);
    return fd;
}

int overlay_init(struct overlay *overlay, struct disk_file *image, uint64_t size, const char *dir,
                 const char *what, struct minivmm_error *err)
{
    *overlay = (struct overlay){.image = image, .size = size};
    pthread_mutex_init(&overlay->lock, NULL);
    uint64_t blocks = size / OVERLAY_BLOCK + 1;
    overlay->present_bytes = (blocks / WORD_BITS + 1) * sizeof(uint64_t);

    int fd = open_unlinked(dir);
    disk_file_init(&overlay->file, fd, false);
    if (fd < 0) {
        error_set(err, fd,
                  "%s: ephemeral: cannot make a file in %s: %s; name a directory that "
                  "can be written to",
                  what, dir, strerror(-fd));
        overlay_finish(overlay);
        return fd;
    }
    int rc = 0;
    void *map = mmap(NULL, overlay->present_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        rc = -errno;
    else
        overlay->present = map;
    if (rc == 0 && ftruncate(fd, (off_t)size) < 0)
        rc = -errno;
    if (rc < 0) {
        error_set(err, rc,
                  "%s: ephemeral: an image of %llu bytes is too large for %s: %s; name a "
                  "directory on another file system, or use a smaller image",
                  what, (unsigned long long)size, dir, strerror(-rc));
        overlay_finish(overlay);
    }
    return rc;
}

void overlay_finish(struct overlay *overlay)
{
    if (overlay->present)
        munmap(overlay->present, overlay->present_bytes);
    if (overlay->file.fd >= 0)
        close(overlay->file.fd);
    overlay->present = NULL;
    overlay->file.fd = -1;
    pthread_mutex_destroy(&overlay->lock);
}
