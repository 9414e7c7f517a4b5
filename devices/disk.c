#include "devices/disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "devices/disk_private.h"
#include "vmm/checked.h"

#define OVERLAY_DIR "/var/tmp"

/* ---- on a worker's thread ------------------------------------------------------------------ */

void disk_fail(struct disk *disk, int error)
{
    int none = 0;
    __atomic_compare_exchange_n(&disk->failure, &none, error, false, __ATOMIC_RELEASE,
                                __ATOMIC_RELAXED);
}

int disk_failure(const struct disk *disk)
{
    return __atomic_load_n(&disk->failure, __ATOMIC_ACQUIRE);
}

/*
 * Bring everything that was written before this call to stable storage. One at a time: the kernel
 * reports a failure to one caller, and the others must hear of it. Who has waited for one that
 * began after his own call needs none of his own.
 */
static int sync_image(struct disk *disk)
{
    const uint64_t before = __atomic_load_n(&disk->syncs_started, __ATOMIC_ACQUIRE);
    int rc = 0;
    pthread_mutex_lock(&disk->sync_lock);
    if (disk_failure(disk)) {
        rc = -EIO;
    } else if (disk->synced <= before) {
        uint64_t mine = __atomic_add_fetch(&disk->syncs_started, 1, __ATOMIC_ACQ_REL);
        do
            rc = fdatasync(disk->image.fd) < 0 ? -errno : 0;
        while (rc == -EINTR);
        if (rc == 0)
            disk->synced = mine;
        else
            disk_fail(disk, rc);
    }
    pthread_mutex_unlock(&disk->sync_lock);
    return rc;
}

static int zero(struct disk *disk, const struct disk_request *request)
{
    int fd =
        disk->direct ? direct_fd(disk->direct, request->offset, request->length) : disk->image.fd;
    return disk_file_zero(&disk->image, fd, request->offset, request->length,
                          request->op == DISK_ZERO_UNMAP);
}

static int change_or_read(struct disk *disk, struct disk_request *request)
{
    switch (request->op) {
    case DISK_DISCARD:
        return disk_file_discard(&disk->image, request->offset, request->length);
    case DISK_ZERO:
    case DISK_ZERO_UNMAP:
        return zero(disk, request);
    default:
        if (disk->direct)
            return direct_run(disk->direct, request);
        return disk_file_transfer(disk->image.fd, request, disk_request_left(request), 1);
    }
}

static int run_on_image(struct disk *disk, struct disk_request *request)
{
    if (request->op == DISK_FLUSH)
        return sync_image(disk);
    /* It may have been queued before the flush failed. */
    if (request->op != DISK_READ && disk_failure(disk))
        return -EIO;
    int rc = change_or_read(disk, request);
    if (rc == 0 && request->durable && request->op != DISK_READ)
        rc = sync_image(disk);
    return rc;
}

static void run(void *arg, struct work *work)
{
    struct disk *disk = arg;
    struct disk_request *request = disk_request_of(work);
    request->result =
        disk->has_overlay ? overlay_run(&disk->overlay, request) : run_on_image(disk, request);
}

/* ---- on the loop's thread ------------------------------------------------------------------ */

void disk_complete(struct disk *disk, struct disk_request *request, int result)
{
    if (disk->direct)
        direct_ended(disk->direct, request);
    request->done(request, result);
}

static void done(void *arg, struct work *work)
{
    struct disk_request *request = disk_request_of(work);
    disk_complete(arg, request, request->result);
}

/* Can the answer be given without looking at the image? Then it is *result. */
static bool answered(const struct disk *disk, const struct disk_request *request, int *result)
{
    *result = 0;
    if (request->op == DISK_FLUSH) {
        if (disk_failure(disk))
            *result = -EIO;
        return *result < 0 || disk->readonly || disk->has_overlay;
    }
    if (!range_within(request->offset, request->length, disk->size) ||
        (request->offset | request->length) % DISK_SECTOR != 0)
        *result = -EINVAL;
    else if (request->op == DISK_READ)
        return request->length == 0;
    else if (disk->readonly)
        *result = -EROFS;
    else if (disk_failure(disk))
        *result = -EIO;
    return *result < 0 || request->length == 0;
}

/* The file that a request may go to at once, if that takes no waiting. */
static struct disk_file *file_for_now(struct disk *disk, const struct disk_request *request)
{
    const bool write = request->op == DISK_WRITE;
    if (!write && request->op != DISK_READ)
        return NULL;
    if (disk->has_overlay)
        return overlay_whole(&disk->overlay, request->offset, request->length, write);
    return write && request->durable ? NULL : &disk->image;
}

void disk_submit(struct disk *disk, struct disk_request *request)
{
    int result;
    request->transferred = 0;
    if (answered(disk, request, &result)) {
        request->done(request, result);
        return;
    }
    if (disk->direct && request->op != DISK_FLUSH) {
        direct_submit(disk->direct, request);
        return;
    }
    struct disk_file *file = disk->direct ? NULL : file_for_now(disk, request);
    if (file && disk_file_try(file, request, &result))
        request->done(request, result);
    else
        workers_submit(&disk->workers, &request->work);
}

void disk_kick(struct disk *disk)
{
    if (disk->direct)
        direct_kick(disk->direct);
}

/* ---- life ---------------------------------------------------------------------------------- */

uint64_t disk_size(const struct disk *disk)
{
    return disk->size;
}

unsigned disk_tail_bytes(const struct disk *disk)
{
    return disk->tail;
}

unsigned disk_block_size(const struct disk *disk)
{
    return disk->block_size;
}

unsigned disk_discard_unit(const struct disk *disk)
{
    return disk->discard_unit;
}

static int add_overlay(struct disk *disk, const struct disk_config *config,
                       struct minivmm_error *err)
{
    const char *dir = config->overlay_dir ? config->overlay_dir : OVERLAY_DIR;
    int rc = overlay_init(&disk->overlay, &disk->image, disk->size, dir, disk->what, err);
    disk->has_overlay = rc == 0;
    disk->block_size = DISK_SECTOR;
    disk->discard_unit = OVERLAY_BLOCK;
    return rc;
}

static int add_workers(struct disk *disk, unsigned index, struct minivmm_error *err)
{
    struct minivmm_error why;
    char name[16];
    snprintf(name, sizeof(name), "disk%u", index);
    disk->workers.run = run;
    disk->workers.done = done;
    disk->workers.arg = disk;
    int rc = workers_init(&disk->workers, disk->loop, name, WORKERS_MAX, &why);
    disk->has_workers = rc == 0;
    return rc < 0 ? error_set(err, rc, "%s: %s", disk->what, why.text) : 0;
}

int disk_create(const struct disk_config *config, struct event_loop *loop, struct disk **out,
                struct minivmm_error *err)
{
    *out = NULL;
    struct disk *disk = calloc(1, sizeof(*disk));
    if (!disk)
        return error_set(err, -ENOMEM, "disk %u: out of memory", config->index);
    disk->loop = loop;
    pthread_mutex_init(&disk->sync_lock, NULL);
    int rc = disk_open(disk, config, err);
    if (rc == 0)
        rc = disk_lock(disk, !config->readonly && !config->ephemeral, err);
    if (rc == 0 && config->ephemeral)
        rc = add_overlay(disk, config, err);
    if (rc == 0 && config->direct)
        rc = direct_create(disk, config->path, err);
    if (rc == 0)
        rc = add_workers(disk, config->index, err);
    if (rc < 0) {
        disk_destroy(disk);
        return rc;
    }
    *out = disk;
    return 0;
}

void disk_destroy(struct disk *disk)
{
    if (!disk)
        return;
    if (disk->has_workers)
        workers_finish(&disk->workers);
    if (disk->direct)
        direct_destroy(disk->direct);
    if (disk->has_overlay)
        overlay_finish(&disk->overlay);
    if (disk->image.fd >= 0)
        close(disk->image.fd); /* unlocks it, too */
    pthread_mutex_destroy(&disk->sync_lock);
    free(disk);
}
