#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/disk_private.h"

/* Who has a file open. pid 0: nobody that may be looked at. */
struct user {
    long pid;
    bool locks; /* has a lock of it, not only the file */
};

/* Does a process hold a lock through this descriptor? A lock of an open file says so only there. */
static bool holds_lock(int fdinfo_dir, const char *number)
{
    char line[256];
    bool lock = false;
    int fd = openat(fdinfo_dir, number, O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    while (!lock && fgets(line, sizeof(line), file))
        lock = strncmp(line, "lock:", 5) == 0;
    fclose(file);
    return lock;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Look through the descriptors of one process. */
static void look_at(long pid, const struct stat *file, struct user *user)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%ld/fd", pid);
    DIR *dir = opendir(path);
    if (!dir)
        return;
    snprintf(path, sizeof(path), "/proc/%ld/fdinfo", pid);
    int fdinfo = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (struct dirent *entry; !user->locks && (entry = readdir(dir));) {
        struct stat st;
        if (!isdigit((unsigned char)entry->d_name[0]) ||
            fstatat(dirfd(dir), entry->d_name, &st, 0) < 0 || !same_file(&st, file))
            continue;
        bool locks = holds_lock(fdinfo, entry->d_name);
        if (locks || (user->pid == 0 && pid != getpid()))
            *user = (struct user){pid, locks};
    }
    if (fdinfo >= 0)
        close(fdinfo);
    closedir(dir);
}

/* Who holds a lock of the file; failing that, which other process has it open. */
static struct user find_user(int fd)
{
    struct user user = {0};
    struct stat st;
    DIR *proc = opendir("/proc");
    if (!proc)
        return user;
    if (fstat(fd, &st) == 0) {
        for (struct dirent *entry; !user.locks && (entry = readdir(proc));) {
            long pid;
            if (sscanf(entry->d_name, "%ld", &pid) == 1)
                look_at(pid, &st, &user);
        }
    }
    closedir(proc);
    return user;
}

/* "process 1234 (minivmm)" */
static void describe(long pid, char *text, size_t size)
{
    char path[64], name[32] = "?";
    snprintf(path, sizeof(path), "/proc/%ld/comm", pid);
    FILE *file = fopen(path, "re");
    if (file) {
        if (fgets(name, sizeof(name), file))
            name[strcspn(name, "\n")] = '\0';
        fclose(file);
    }
    snprintf(text, size, "process %ld (%s)", pid, name);
}

bool disk_find_user(int fd, char *text, size_t size)
{
    struct user user = find_user(fd);
    if (user.pid == 0 || user.pid == getpid())
        return false;
    describe(user.pid, text, size);
    return true;
}

/* Locks belong to open files, so the kernel cannot say whose the one in the way is. */
static int in_use(const struct disk *disk, int rc, struct minivmm_error *err)
{
    char name[64] = "another process";
    struct user user = find_user(disk->image.fd);
    if (user.pid == getpid() && user.locks)
        return error_set(err, rc,
                         "%s: already given as another disk of this VM; give each its own image, "
                         "or use readonly or ephemeral in both",
                         disk->what);
    if (user.pid != 0)
        describe(user.pid, name, sizeof(name));
    return error_set(err, rc, "%s: in use by %s; stop it, or use readonly or ephemeral in both",
                     disk->what, name);
}

int disk_lock(const struct disk *disk, bool exclusive, struct minivmm_error *err)
{
    struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    if (fcntl(disk->image.fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return in_use(disk, -EBUSY, err);
    int rc = -errno;
    return error_set(err, rc, "%s: cannot be locked: %s; use an image on a file system with locks",
                     disk->what, strerror(-rc));
}
