#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "devices/disk_private.h"

/* Say why the image cannot be opened, and what to do. */
static int open_failed(const struct disk *disk, const char *path, int flags, int rc,
                       struct minivmm_error *err)
{
    const bool write = (flags & O_ACCMODE) == O_RDWR;
    switch (-rc) {
    case ENOENT:
        return error_set(err, rc, "%s: no such file; an empty image is made by truncate -s SIZE",
                         disk->what);
    case EACCES:
    case EPERM:
    case EROFS:
        if (write) {
            int fd = open(path, (flags & ~O_ACCMODE & ~O_EXCL) | O_RDONLY);
            if (fd >= 0) {
                close(fd);
                return error_set(err, rc, "%s: can only be read (%s); add ,readonly", disk->what,
                                 strerror(-rc));
            }
        }
        return error_set(err, rc, "%s: permission denied; give user %u the right to read%s it",
                         disk->what, (unsigned)geteuid(), write ? " and write" : "");
    default:
        return error_set(err, rc, "%s: cannot be opened: %s", disk->what, strerror(-rc));
    }
}

/* What is no disk, by kind. Opening some of these already does something: it is not tried. */
static int check_kind(const struct disk *disk, mode_t mode, struct minivmm_error *err)
{
    const char *kind = NULL;
    if (S_ISDIR(mode))
        kind = "directory";
    else if (S_ISCHR(mode))
        kind = "character device";
    else if (S_ISFIFO(mode))
        kind = "FIFO";
    else if (S_ISSOCK(mode))
        kind = "socket";
    if (!kind)
        return 0;
    return error_set(err, S_ISDIR(mode) ? -EISDIR : -ENOTBLK,
                     "%s: is a %s; name an image file or a block device", disk->what, kind);
}

/* A file of the kernel's, that only looks like one. */
static bool is_pseudo_file(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) < 0)
        return false;
    return fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC ||
           fs.f_type == DEBUGFS_MAGIC || fs.f_type == TRACEFS_MAGIC ||
           fs.f_type == CGROUP2_SUPER_MAGIC || fs.f_type == SECURITYFS_MAGIC;
}

/* A number of sysfs about a block device, or about the disk that a partition is of; else 0. */
static unsigned queue_limit(dev_t device, const char *name)
{
    static const char *const places[] = {"", "/.."};
    unsigned long long value = 0;
    for (size_t i = 0; i < 2; i++) {
        char path[128];
        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u%s/queue/%s", major(device),
                 minor(device), places[i], name);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        if (fscanf(file, "%llu", &value) != 1 || value > UINT_MAX)
            value = 0;
        fclose(file);
        break;
    }
    return (unsigned)value;
}

/* Sizes and units. */
static int measure(struct disk *disk, const struct stat *st, struct minivmm_error *err)
{
    uint64_t bytes = (uint64_t)st->st_size;
    disk->block_size = DISK_SECTOR;
    disk->discard_unit = (unsigned)st->st_blksize;
    if (disk->image.block_device) {
        int sector;
        if (ioctl(disk->image.fd, BLKGETSIZE64, &bytes) < 0 ||
            ioctl(disk->image.fd, BLKSSZGET, &sector) < 0) {
            int rc = -errno;
            return error_set(err, rc, "%s: has no size: %s; name another device", disk->what,
                             strerror(-rc));
        }
        disk->block_size = (unsigned)sector;
        disk->discard_unit = queue_limit(st->st_rdev, "discard_granularity");
    }
    if (disk->readonly)
        disk->discard_unit = 0;
    disk->tail = bytes % DISK_SECTOR;
    disk->size = bytes - disk->tail;
    if (disk->size == 0)
        return error_set(err, -EINVAL,
                         "%s: has %llu bytes, less than a sector of 512; give it a size with "
                         "truncate -s SIZE",
                         disk->what, (unsigned long long)bytes);
    return 0;
}

/* A block device that somebody else has for himself, or is mounted. */
static int device_busy(const struct disk *disk, const char *path, struct minivmm_error *err)
{
    char user[64];
    bool known = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0) {
        known = disk_find_user(fd, user, sizeof(user));
        close(fd);
    }
    return error_set(err, -EBUSY,
                     "%s: the device is mounted or in use%s%s; unmount it, or use "
                     "readonly",
                     disk->what, known ? " by " : "", known ? user : "");
}

int disk_open(struct disk *disk, const struct disk_config *config, struct minivmm_error *err)
{
    struct stat st;
    const bool write = !config->readonly && !config->ephemeral;
    int flags = (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    disk->image.fd = -1;
    disk->readonly = config->readonly;
    snprintf(disk->what, sizeof(disk->what), "disk %u: %s", config->index, config->path);

    if (config->ephemeral && (config->readonly || config->direct))
        return error_set(err, -EINVAL, "%s: ephemeral and %s exclude each other; leave out one",
                         disk->what, config->readonly ? "readonly" : "direct");
    if (stat(config->path, &st) < 0)
        return open_failed(disk, config->path, O_RDONLY, -errno, err);
    int rc = check_kind(disk, st.st_mode, err);
    if (rc < 0)
        return rc;
    if (S_ISBLK(st.st_mode) && write)
        flags |= O_EXCL; /* of a block device: the kernel has it for nobody else */
    int fd = open(config->path, flags);
    if (fd < 0 && errno == EBUSY)
        return device_busy(disk, config->path, err);
    if (fd < 0)
        return open_failed(disk, config->path, flags, -errno, err);

    /* What counts is what was opened. */
    rc = fstat(fd, &st) < 0 ? -errno : 0;
    disk_file_init(&disk->image, fd, rc == 0 && S_ISBLK(st.st_mode));
    if (rc == 0)
        rc = check_kind(disk, st.st_mode, err);
    else
        error_set(err, rc, "%s: %s", disk->what, strerror(-rc));
    if (rc == 0 && is_pseudo_file(fd))
        rc = error_set(err, -EINVAL,
                       "%s: is a file of the kernel's; name an image file or a block device",
                       disk->what);
    fcntl(fd, F_SETFL, write ? O_RDWR : O_RDONLY);
    if (rc == 0)
        rc = measure(disk, &st, err);
    return rc;
}
