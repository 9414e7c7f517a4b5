/*
 * Direct I/O. Three kinds of requests:
 *
 *  - What is aligned goes to libaio as it is: asynchronous, no thread and no copy.
 *  - Memory that is not aligned goes through a bounce buffer, on a worker, which waits: so there
 * are no more such buffers than workers.
 *  - So does an offset or length that is not aligned to the image's blocks (512-byte sectors on a
 *    device of 4096-byte blocks), and a change reads the rest of its blocks before. It must not
 * meet another change, or it would write those back as they were: it waits until no change is under
 *    way, and those that come after it wait for it.
 *
 * The page cache is used in one case: blocks that a file's end cuts, which written whole would make
 * it grow. Elsewhere it is not safe: asynchronous direct writes to block devices do not drop pages
 * that somebody's reading brings in meanwhile, and these would be written back, out of date.
 *
 * Nothing of this waits for ever: when the kernel takes no more requests, the rest is submitted as
 * others end, and what it does not take with none under way goes to a worker, which finds out why.
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/disk_private.h"

/* Requests that the kernel has at a time, and that one io_submit takes. */
#define DEPTH 128u

/* Buffers of our own are aligned to a page; a device that wants more is not known. */
#define ALIGN_MAX 4096u

/* The ring that the kernel maps for completions; its layout is fixed, fs/aio.c. */
struct aio_ring {
    unsigned id;
    unsigned nr;
    unsigned head; /* ours */
    unsigned tail; /* the kernel's */
    unsigned magic;
    unsigned compat_features;
    unsigned incompat_features;
    unsigned header_length;
    struct io_event events[];
};
#define AIO_RING_MAGIC 0xa10a10a1u

struct direct {
    struct disk *disk;
    int fd;
    unsigned block;        /* offsets and lengths are multiples of it */
    unsigned memory_align; /* of memory's addresses */
    unsigned piece_align;  /* of the lengths of its pieces */

    /* Made when the first request comes: to destroy it, or to end with it, takes some 30 ms. */
    io_context_t context;
    bool no_context;            /* the kernel gives none */
    struct event_source source; /* an eventfd that counts completions */

    struct iocb iocbs[DEPTH];
    struct iocb *free[DEPTH];
    unsigned free_count;
    struct iocb *batch[DEPTH]; /* to be submitted */
    unsigned batch_count;
    unsigned in_flight;
    struct work_list waiting; /* for a free iocb */

    unsigned changes;          /* requests under way that change something */
    bool exclusive;            /* the only one of them is not aligned to blocks */
    struct work_list deferred; /* changes that wait for this to be over, or for their turn */
};

static bool on_blocks(const struct direct *direct, uint64_t offset, uint64_t length)
{
    return ((offset | length) & (direct->block - 1)) == 0;
}

int direct_fd(const struct direct *direct, uint64_t offset, uint64_t length)
{
    return on_blocks(direct, offset, length) ? direct->fd : direct->disk->image.fd;
}

int direct_run(struct direct *direct, struct disk_request *request)
{
    const uint64_t left = disk_request_left(request);
    const uint64_t whole = direct->disk->size & ~(uint64_t)(direct->block - 1);
    const bool aligned = on_blocks(direct, disk_request_offset(request), left);
    if (!aligned && disk_request_offset(request) + left > whole)
        return disk_file_transfer(direct->disk->image.fd, request, left, 1);
    if (!aligned || !disk_request_aligned(request, direct->memory_align, direct->piece_align))
        return disk_file_transfer_bounced(direct->fd, request, direct->block);
    return disk_file_transfer(direct->fd, request, left, direct->block);
}

/* ---- libaio -------------------------------------------------------------------------------- */

static void prepare(struct direct *direct, struct iocb *iocb, struct disk_request *request)
{
    int count = (int)(request->iov_count < IOV_MAX ? request->iov_count : IOV_MAX);
    long long offset = (long long)disk_request_offset(request);
    if (request->op == DISK_READ)
        io_prep_preadv(iocb, direct->fd, request->iov, count, offset);
    else
        io_prep_pwritev(iocb, direct->fd, request->iov, count, offset);
    if (request->op == DISK_WRITE && request->durable)
        iocb->aio_rw_flags = RWF_DSYNC;
    io_set_eventfd(iocb, direct->source.fd);
    iocb->data = request;
}

/* Hand what is left of an aligned request to the next batch. */
static void enqueue(struct direct *direct, struct disk_request *request)
{
    if (direct->free_count == 0) {
        work_list_add(&direct->waiting, &request->work);
        return;
    }
    struct iocb *iocb = direct->free[--direct->free_count];
    disk_request_advance(request, 0); /* empty pieces alone would look like the end of the file */
    prepare(direct, iocb, request);
    direct->batch[direct->batch_count++] = iocb;
}

/* The batch's first `count` are no longer in it. */
static void drop_from_batch(struct direct *direct, unsigned count)
{
    direct->batch_count -= count;
    memmove(direct->batch, direct->batch + count, direct->batch_count * sizeof(direct->batch[0]));
}

static void start_waiting(struct direct *direct)
{
    while (direct->free_count > 0 && direct->waiting.head)
        enqueue(direct, disk_request_of(work_list_take(&direct->waiting)));
}

void direct_kick(struct direct *direct)
{
    while (direct->batch_count > 0) {
        int n = io_submit(direct->context, (long)direct->batch_count, direct->batch);
        if (n > 0) {
            direct->in_flight += (unsigned)n;
            drop_from_batch(direct, (unsigned)n);
            continue;
        }
        if (n == -EINTR)
            continue;
        if ((n == 0 || n == -EAGAIN) && direct->in_flight > 0)
            return; /* for want of room: the next completion comes back here */
        /* The first one is refused. A worker tries it, and what it gets is the truth. */
        struct iocb *iocb = direct->batch[0];
        drop_from_batch(direct, 1);
        direct->free[direct->free_count++] = iocb;
        workers_submit(&direct->disk->workers, &((struct disk_request *)iocb->data)->work);
        start_waiting(direct);
    }
}

/* Take completions off the ring; returns how many. */
static unsigned reap(struct direct *direct, struct io_event *events, unsigned max)
{
    struct aio_ring *ring = (struct aio_ring *)direct->context;
    unsigned n = 0;
    if (ring->magic != AIO_RING_MAGIC || ring->incompat_features != 0) {
        struct timespec none = {0};
        int got = io_getevents(direct->context, 0, (long)max, events, &none);
        return got > 0 ? (unsigned)got : 0;
    }
    unsigned head = ring->head;
    const unsigned tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
    while (head != tail && n < max) {
        events[n++] = ring->events[head];
        head = head + 1 < ring->nr ? head + 1 : 0;
    }
    __atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
    return n;
}

/*
 * A durable write that fails may have failed in its second half, and other writes with it. What
 * only says that there is no room comes from the first: direct I/O finds its space at once.
 */
static bool may_have_lost(const struct disk_request *request, int result)
{
    return request->durable && request->op == DISK_WRITE && result != -ENOSPC &&
           result != -EDQUOT && result != -EFBIG && result != -EINVAL;
}

static void aio_ended(struct direct *direct, const struct io_event *event)
{
    struct disk_request *request = event->data;
    const long n = (long)event->res;
    direct->free[direct->free_count++] = event->obj;
    direct->in_flight--;

    if (n == -EAGAIN || n == -EINTR) {
        workers_submit(&direct->disk->workers, &request->work);
    } else if (n < 0) {
        if (may_have_lost(request, (int)n))
            disk_fail(direct->disk, (int)n);
        disk_complete(direct->disk, request, (int)n);
    } else if (n < (long)direct->block) {
        disk_complete(direct->disk, request, -EIO); /* the end of the file */
    } else {
        disk_request_advance(request, (uint64_t)n - (uint64_t)n % direct->block);
        if (disk_request_left(request) > 0)
            enqueue(direct, request);
        else
            disk_complete(direct->disk, request, 0);
    }
}

static void aio_ready(struct event_source *source, uint32_t events)
{
    (void)events;
    struct direct *direct = source->arg;
    struct io_event batch[32];
    const unsigned max = sizeof(batch) / sizeof(batch[0]);
    unsigned n;
    eventfd_t value;
    eventfd_read(source->fd, &value);
    do {
        n = reap(direct, batch, max);
        for (unsigned i = 0; i < n; i++)
            aio_ended(direct, &batch[i]);
    } while (n == max);
    start_waiting(direct);
    direct_kick(direct);
}

static bool have_context(struct direct *direct)
{
    if (!direct->context && !direct->no_context)
        direct->no_context = io_setup((int)DEPTH, &direct->context) < 0;
    return !direct->no_context;
}

/* ---- requests ------------------------------------------------------------------------------ */

static void start(struct direct *direct, struct disk_request *request)
{
    bool transfer = request->op == DISK_READ || request->op == DISK_WRITE;
    if (transfer && on_blocks(direct, request->offset, request->length) &&
        disk_request_aligned(request, direct->memory_align, direct->piece_align) &&
        have_context(direct))
        enqueue(direct, request);
    else
        workers_submit(&direct->disk->workers, &request->work);
}

/* May this change be under way together with what is? */
static bool may_start(const struct direct *direct, const struct disk_request *request)
{
    if (direct->exclusive)
        return false;
    return direct->changes == 0 || on_blocks(direct, request->offset, request->length);
}

static void start_change(struct direct *direct, struct disk_request *request)
{
    direct->changes++;
    direct->exclusive = !on_blocks(direct, request->offset, request->length);
    start(direct, request);
}

void direct_submit(struct direct *direct, struct disk_request *request)
{
    if (request->op == DISK_READ)
        start(direct, request);
    else if (direct->deferred.head || !may_start(direct, request))
        work_list_add(&direct->deferred, &request->work);
    else
        start_change(direct, request);
    if (direct->batch_count == DEPTH)
        direct_kick(direct);
}

void direct_ended(struct direct *direct, const struct disk_request *request)
{
    if (request->op == DISK_READ || request->op == DISK_FLUSH)
        return;
    direct->changes--;
    direct->exclusive = false;
    bool started = false;
    while (direct->deferred.head && may_start(direct, disk_request_of(direct->deferred.head))) {
        start_change(direct, disk_request_of(work_list_take(&direct->deferred)));
        started = true;
    }
    if (started)
        direct_kick(direct);
}

/* ---- life ---------------------------------------------------------------------------------- */

/* The smallest unit that a read works with, found by trying; 0 if none does. */
static unsigned try_blocks(int fd)
{
    void *buffer;
    unsigned block = 0;
    if (posix_memalign(&buffer, ALIGN_MAX, ALIGN_MAX) != 0)
        return 0;
    for (unsigned size = DISK_SECTOR; size <= ALIGN_MAX && block == 0; size *= 2) {
        if (pread(fd, buffer, size, 0) >= 0)
            block = size;
    }
    free(buffer);
    return block;
}

/* Find out which alignment direct I/O needs. */
static int find_alignment(struct direct *direct)
{
    unsigned block = 0, memory = 0;
    int sector;
#ifdef STATX_DIOALIGN
    struct statx st;
    if (statx(direct->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 &&
        (st.stx_mask & STATX_DIOALIGN)) {
        block = st.stx_dio_offset_align;
        memory = st.stx_dio_mem_align;
        if (block == 0)
            return -EINVAL; /* this file knows no direct I/O */
    }
#endif
    if (block == 0 && direct->disk->image.block_device &&
        ioctl(direct->fd, BLKSSZGET, &sector) == 0)
        block = memory = (unsigned)sector;
    if (block == 0)
        block = memory = try_blocks(direct->fd);
    if (block == 0 || memory == 0 || (block & (block - 1)) || (memory & (memory - 1)) ||
        memory > ALIGN_MAX || block > DISK_FILE_BLOCK_MAX)
        return -EINVAL;
    direct->block = block < DISK_SECTOR ? DISK_SECTOR : block;
    direct->memory_align = memory;
    direct->piece_align = memory > direct->block ? memory : direct->block;
    return 0;
}

static int open_again(struct direct *direct, const char *path)
{
    struct stat ours, st;
    int access = direct->disk->readonly ? O_RDONLY : O_RDWR;
    direct->fd = open(path, access | O_DIRECT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (direct->fd < 0 || fstat(direct->fd, &st) < 0 || fstat(direct->disk->image.fd, &ours) < 0)
        return -errno;
    fcntl(direct->fd, F_SETFL, access | O_DIRECT);
    return st.st_dev == ours.st_dev && st.st_ino == ours.st_ino ? 0 : -ESTALE;
}

int direct_create(struct disk *disk, const char *path, struct minivmm_error *err)
{
    struct direct *direct = calloc(1, sizeof(*direct));
    if (!direct)
        return error_set(err, -ENOMEM, "%s: out of memory", disk->what);
    disk->direct = direct;
    direct->disk = disk;
    direct->fd = -1;
    for (unsigned i = 0; i < DEPTH; i++)
        direct->free[direct->free_count++] = &direct->iocbs[i];
    direct->source = (struct event_source){
        .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = aio_ready, .arg = direct};
    int rc = direct->source.fd < 0 ? -errno : 0;
    if (rc == 0)
        rc = event_loop_add(disk->loop, &direct->source, EPOLLIN);
    if (rc < 0)
        return error_set(err, rc, "%s: eventfd: %s", disk->what, strerror(-rc));
    rc = open_again(direct, path);
    if (rc == 0)
        rc = find_alignment(direct);
    if (rc == -EINVAL)
        return error_set(err, rc,
                         "%s: direct: its file system has no direct I/O for this file; "
                         "leave out direct",
                         disk->what);
    if (rc == -ESTALE)
        return error_set(err, rc, "%s: was replaced while it was opened; try again", disk->what);
    if (rc < 0)
        return error_set(err, rc, "%s: direct: %s", disk->what, strerror(-rc));
    disk->block_size = direct->block;
    return 0;
}

void direct_destroy(struct direct *direct)
{
    if (direct->context)
        io_destroy(direct->context);
    if (direct->source.fd >= 0) {
        event_loop_remove(direct->disk->loop, &direct->source);
        close(direct->source.fd);
    }
    if (direct->fd >= 0)
        close(direct->fd);
    free(direct);
}
