#include "devices/disk_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* More than this is copied by a worker even if it is in the page cache: the loop has other work. */
#define AT_ONCE_MAX (256u * 1024)

/* The part of a request that is in a bounce buffer at a time. */
#define BOUNCE_SIZE (256u * 1024)
_Static_assert(BOUNCE_SIZE % DISK_FILE_BLOCK_MAX == 0, "it holds whole blocks");

/* Zeroes are written so many pages at a time, all of them the same one. */
#define ZERO_PAGE  4096u
#define ZERO_PAGES 256u

#define EAGAIN_TRIES 1000u

/* ---- memory of a request ------------------------------------------------------------------- */

void disk_request_advance(struct disk_request *request, uint64_t length)
{
    request->transferred += length;
    while (request->iov_count > 0 && length >= request->iov->iov_len) {
        length -= request->iov->iov_len;
        request->iov++;
        request->iov_count--;
    }
    if (length > 0) {
        request->iov->iov_base = (char *)request->iov->iov_base + length;
        request->iov->iov_len -= length;
    }
}

bool disk_request_aligned(const struct disk_request *request, unsigned address, unsigned length)
{
    uintptr_t addresses = 0;
    size_t lengths = 0;
    for (unsigned i = 0; i < request->iov_count; i++) {
        addresses |= (uintptr_t)request->iov[i].iov_base;
        lengths |= request->iov[i].iov_len;
    }
    return (addresses & (address - 1)) == 0 && (lengths & (length - 1)) == 0;
}

/* How many pieces hold the next `length` bytes; what the last of them holds too much is *excess. */
static unsigned pieces_of(const struct disk_request *request, uint64_t length, uint64_t *excess)
{
    unsigned count = 0;
    uint64_t held = 0;
    while (count < request->iov_count && count < IOV_MAX && held < length)
        held += request->iov[count++].iov_len;
    *excess = held > length ? held - length : 0;
    return count;
}

/* Copy between the request's next pieces and a buffer, in the direction of the request. */
static void copy_pieces(const struct disk_request *request, char *buffer, size_t length)
{
    for (unsigned i = 0; i < request->iov_count && length > 0; i++) {
        const struct iovec *piece = &request->iov[i];
        size_t n = piece->iov_len < length ? piece->iov_len : length;
        if (n == 0)
            continue;
        if (request->op == DISK_READ)
            memcpy(piece->iov_base, buffer, n);
        else
            memcpy(buffer, piece->iov_base, n);
        buffer += n;
        length -= n;
    }
}

/* ---- transfers ----------------------------------------------------------------------------- */

/*
 * Did a blocking call fail only for the moment? Nothing that is opened here should ever answer
 * EAGAIN to one, so a file system that does so for ever is not waited for that long.
 */
static bool passes(int error, unsigned *tries)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    if (error == EINTR)
        return true;
    if (error != EAGAIN || ++*tries > EAGAIN_TRIES)
        return false;
    nanosleep(&pause, NULL);
    return true;
}

/*
 * pread or pwrite as often as it takes to get on, by at least one whole block. Returns bytes, a
 * multiple of `block`, or a negative errno.
 */
static ssize_t transfer_some(int fd, bool write, const struct iovec *iov, unsigned count,
                             uint64_t offset, unsigned block)
{
    unsigned tries = 0;
    for (;;) {
        ssize_t n = write ? pwritev(fd, iov, (int)count, (off_t)offset)
                          : preadv(fd, iov, (int)count, (off_t)offset);
        if (n >= 0) {
            n -= n % block;
            return n > 0 ? n : -EIO;
        }
        if (!passes(errno, &tries))
            return -errno;
    }
}

int disk_file_transfer(int fd, struct disk_request *request, uint64_t length, unsigned block)
{
    while (length > 0) {
        disk_request_advance(request, 0); /* empty pieces in front are no end of the file */
        uint64_t excess;
        unsigned count = pieces_of(request, length, &excess);
        if (count == 0)
            return -EINVAL; /* it holds less than it says */
        struct iovec *last = &request->iov[count - 1];
        last->iov_len -= excess;
        ssize_t n = transfer_some(fd, request->op == DISK_WRITE, request->iov, count,
                                  disk_request_offset(request), block);
        last->iov_len += excess;
        if (n < 0)
            return (int)n;
        disk_request_advance(request, (uint64_t)n);
        length -= (uint64_t)n;
    }
    return 0;
}

/*
 * Transfer what fits into the buffer, as whole blocks of the file. Of blocks that a write changes
 * in part, the rest is read before.
 */
static int bounce_part(int fd, struct disk_request *request, char *buffer, unsigned block)
{
    const bool write = request->op == DISK_WRITE;
    const uint64_t left = disk_request_left(request);
    const size_t head = disk_request_offset(request) % block;
    const uint64_t start = disk_request_offset(request) - head;
    size_t part = left < BOUNCE_SIZE - head ? left : BOUNCE_SIZE - head;
    struct iovec piece = {buffer, (head + part + block - 1) / block * block};

    if (!write || piece.iov_len != part) {
        ssize_t n = transfer_some(fd, false, &piece, 1, start, block);
        if (n < 0)
            return (int)n;
        piece.iov_len = (size_t)n;
    }
    if (write) {
        if (part > piece.iov_len - head)
            part = piece.iov_len - head;
        copy_pieces(request, buffer + head, part);
        ssize_t n = transfer_some(fd, true, &piece, 1, start, block);
        if (n < 0)
            return (int)n;
        piece.iov_len = (size_t)n;
    }
    if (part > piece.iov_len - head)
        part = piece.iov_len - head;
    if (!write)
        copy_pieces(request, buffer + head, part);
    disk_request_advance(request, part);
    return 0;
}

int disk_file_transfer_bounced(int fd, struct disk_request *request, unsigned block)
{
    int rc = 0;
    /* Not malloc: every thread would get an arena of its own, and keep it. */
    void *buffer =
        mmap(NULL, BOUNCE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED)
        return -errno;
    while (rc == 0 && disk_request_left(request) > 0)
        rc = bounce_part(fd, request, buffer, block);
    munmap(buffer, BOUNCE_SIZE);
    return rc;
}

int disk_file_read(int fd, void *data, size_t length, uint64_t offset)
{
    while (length > 0) {
        struct iovec piece = {data, length};
        ssize_t n = transfer_some(fd, false, &piece, 1, offset, 1);
        if (n < 0)
            return (int)n;
        data = (char *)data + n;
        length -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int disk_file_write(int fd, const void *data, size_t length, uint64_t offset)
{
    while (length > 0) {
        struct iovec piece = {(void *)(uintptr_t)data, length};
        ssize_t n = transfer_some(fd, true, &piece, 1, offset, 1);
        if (n < 0)
            return (int)n;
        data = (const char *)data + n;
        length -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

void disk_file_init(struct disk_file *file, int fd, bool block_device)
{
    struct statfs fs;
    *file = (struct disk_file){.fd = fd, .block_device = block_device};
    file->in_memory = !block_device && fstatfs(fd, &fs) == 0 &&
                      (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

bool disk_file_try(struct disk_file *file, struct disk_request *request, int *result)
{
    const bool write = request->op == DISK_WRITE;
    if (request->length > AT_ONCE_MAX || request->iov_count > IOV_MAX)
        return false;
    while (file->way[write] != DISK_FILE_NEVER) {
        int flags = file->way[write] == DISK_FILE_NOWAIT ? RWF_NOWAIT : 0;
        int count = (int)request->iov_count;
        off_t offset = (off_t)request->offset;
        ssize_t n;
        if (flags)
            n = write ? pwritev2(file->fd, request->iov, count, offset, flags)
                      : preadv2(file->fd, request->iov, count, offset, flags);
        else
            n = write ? pwritev(file->fd, request->iov, count, offset)
                      : preadv(file->fd, request->iov, count, offset);
        if (n == (ssize_t)request->length) {
            *result = 0;
            return true;
        }
        if (n >= 0) { /* the rest is not at hand, or the file ends here: a worker finds out */
            disk_request_advance(request, (uint64_t)n);
            return false;
        }
        if (errno == EAGAIN || errno == EINTR)
            return false;
        if (!flags || (errno != EOPNOTSUPP && errno != ENOSYS)) {
            *result = -errno;
            return true;
        }
        file->way[write] = file->in_memory ? DISK_FILE_AT_ONCE : DISK_FILE_NEVER;
    }
    return false;
}

/* ---- ranges -------------------------------------------------------------------------------- */

/* fallocate, unless it is known as unsupported. */
static int allocate(const struct disk_file *file, bool *unsupported, int mode, uint64_t offset,
                    uint64_t length)
{
    unsigned tries = 0;
    if (__atomic_load_n(unsupported, __ATOMIC_RELAXED))
        return -EOPNOTSUPP;
    while (fallocate(file->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) < 0) {
        if (passes(errno, &tries))
            continue;
        /* EINVAL: a block device in larger blocks than ours; another range may go well. */
        if (errno == EINVAL)
            return -EOPNOTSUPP;
        if (errno != EOPNOTSUPP && errno != ENOSYS)
            return -errno;
        __atomic_store_n(unsupported, true, __ATOMIC_RELAXED);
        return -EOPNOTSUPP;
    }
    return 0;
}

int disk_file_punch(struct disk_file *file, uint64_t offset, uint64_t length)
{
    return allocate(file, &file->no_punch, FALLOC_FL_PUNCH_HOLE, offset, length);
}

int disk_file_discard(struct disk_file *file, uint64_t offset, uint64_t length)
{
    int rc;
    if (file->block_device) {
        uint64_t range[2] = {offset, length};
        if (__atomic_load_n(&file->no_discard, __ATOMIC_RELAXED))
            return 0;
        rc = ioctl(file->fd, BLKDISCARD, range) < 0 ? -errno : 0;
        if (rc == -EOPNOTSUPP || rc == -ENOTTY)
            __atomic_store_n(&file->no_discard, true, __ATOMIC_RELAXED);
        if (rc == -EINVAL || rc == -ENOTTY)
            rc = 0;
    } else {
        rc = disk_file_punch(file, offset, length);
    }
    return rc == -EOPNOTSUPP ? 0 : rc;
}

int disk_file_write_zeroes(int fd, uint64_t offset, uint64_t length)
{
    static const uint8_t page[ZERO_PAGE] __attribute__((aligned(ZERO_PAGE)));
    struct iovec iov[ZERO_PAGES];
    while (length > 0) {
        uint64_t part = length < sizeof(page) * ZERO_PAGES ? length : sizeof(page) * ZERO_PAGES;
        unsigned count = 0;
        for (uint64_t rest = part; rest > 0; rest -= iov[count++].iov_len)
            iov[count] =
                (struct iovec){(void *)(uintptr_t)page, rest < sizeof(page) ? rest : sizeof(page)};
        ssize_t n = transfer_some(fd, true, iov, count, offset, DISK_SECTOR);
        if (n < 0)
            return (int)n;
        offset += (uint64_t)n;
        length -= (uint64_t)n;
    }
    return 0;
}

int disk_file_zero(struct disk_file *file, int write_fd, uint64_t offset, uint64_t length,
                   bool unmap)
{
    int rc = -EOPNOTSUPP;
    if (unmap)
        rc = disk_file_punch(file, offset, length);
    if (rc == -EOPNOTSUPP)
        rc = allocate(file, &file->no_zero_range, FALLOC_FL_ZERO_RANGE, offset, length);
    if (rc == -EOPNOTSUPP)
        rc = disk_file_write_zeroes(write_fd, offset, length);
    return rc;
}
