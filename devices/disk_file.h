/*
 * An open file or block device with what has been learnt about it, and transfers between it and the
 * memory of a request.
 *
 * A request's progress is in the request: `transferred`, and the iov, whose front is cut off as it
 * goes. Results are 0 or a negative errno. But for disk_file_try everything here may block, so it
 * is for the workers' threads.
 */
#ifndef DEVICES_DISK_FILE_H
#define DEVICES_DISK_FILE_H

#include "devices/disk.h"

/* The largest unit in which a file can be addressed. */
#define DISK_FILE_BLOCK_MAX (64u * 1024)

/* How a transfer that must not wait is tried. */
enum disk_file_way {
    DISK_FILE_NOWAIT,  /* with RWF_NOWAIT */
    DISK_FILE_AT_ONCE, /* plainly: it is all memory */
    DISK_FILE_NEVER,   /* the file system knows no RWF_NOWAIT */
};

struct disk_file {
    int fd;
    bool block_device;
    bool in_memory;                           /* tmpfs and the like: there is nothing to wait for */
    enum disk_file_way way[2];                /* of reads and of writes; of the loop's thread */
    bool no_discard, no_punch, no_zero_range; /* atomic: found not to be there */
};

static inline struct disk_request *disk_request_of(struct work *work)
{
    return (struct disk_request *)((char *)work - offsetof(struct disk_request, work));
}

/* Where the rest of a request begins, and how long it is. */
static inline uint64_t disk_request_offset(const struct disk_request *request)
{
    return request->offset + request->transferred;
}

static inline uint64_t disk_request_left(const struct disk_request *request)
{
    return request->length - request->transferred;
}

/* The next `length` bytes have been transferred. */
void disk_request_advance(struct disk_request *request, uint64_t length);

/* Are all addresses and all lengths of its memory multiples of these powers of two? */
bool disk_request_aligned(const struct disk_request *request, unsigned address, unsigned length);

/* `fd` stays the caller's to close. */
void disk_file_init(struct disk_file *file, int fd, bool block_device);

/*
 * Transfer the whole request if that takes no waiting. False: something is left for
 * disk_file_transfer. On the loop's thread.
 */
bool disk_file_try(struct disk_file *file, struct disk_request *request, int *result);

/*
 * Transfer the next `length` bytes. `block` is the unit in which `fd` can be addressed: what ends
 * within one ends with the file. -EIO at the file's end.
 */
int disk_file_transfer(int fd, struct disk_request *request, uint64_t length, unsigned block);

/*
 * The same for all that is left, by way of an aligned buffer, whatever the alignment of memory and
 * offset. `block` is at most DISK_FILE_BLOCK_MAX. A change of a part of a block must not meet
 * another change of it. The file has to end with a whole block, or it may grow.
 */
int disk_file_transfer_bounced(int fd, struct disk_request *request, unsigned block);

/* The range is not needed any more. What is not supported counts as done. */
int disk_file_discard(struct disk_file *file, uint64_t offset, uint64_t length);

/*
 * Make the range read as zeroes, by writing them to `write_fd` if nothing better is supported. The
 * file does not grow. `unmap`: its space may go.
 */
int disk_file_zero(struct disk_file *file, int write_fd, uint64_t offset, uint64_t length,
                   bool unmap);

/* Make the range a hole that reads as zeroes; -EOPNOTSUPP where that is not supported. */
int disk_file_punch(struct disk_file *file, uint64_t offset, uint64_t length);

/* Write zeroes. */
int disk_file_write_zeroes(int fd, uint64_t offset, uint64_t length);

/* Read exactly `length` bytes; -EIO at the file's end. */
int disk_file_read(int fd, void *data, size_t length, uint64_t offset);

/* Write all of it. */
int disk_file_write(int fd, const void *data, size_t length, uint64_t offset);

#endif
