/* What is opened, what is refused and in which words, and who may have it together. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/disk_rig.h"

SUITE(disk_open);

#define SIZE   4096u
#define NOBODY 65534

/* It is refused in one line that begins with the disk and holds both parts. */
static void expect_refused(struct disk_rig *rig, struct disk_config config, int code,
                           const char *part, const char *cure)
{
    struct minivmm_error err = {""};
    char start[128];
    if (!config.path)
        config.path = rig->image;
    config.index = 3;
    snprintf(start, sizeof(start), "disk 3: %s: ", config.path);
    int rc = disk_create(&config, &rig->loop, &rig->disk, &err);
    cr_assert_eq(rc, code, "%s: %d: %s", config.path, rc, err.text);
    cr_assert_null(rig->disk);
    cr_assert_eq(strncmp(err.text, start, strlen(start)), 0, "%s", err.text);
    cr_assert(support_one_line(&err, part), "%s", err.text);
    cr_assert(support_one_line(&err, cure), "%s", err.text);
}

static const char *in_dir(const struct disk_rig *rig, const char *name, char path[128])
{
    snprintf(path, 128, "%s/%s", rig->dir, name);
    return path;
}

static void make_file(const char *path, off_t size)
{
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, size), 0);
    close(fd);
}

Test(disk_open, I6_what_is_no_image_is_refused_with_the_cure)
{
    struct disk_rig rig;
    char path[128];
    rig_init(&rig, "/tmp", SIZE);
    expect_refused(&rig, (struct disk_config){.path = in_dir(&rig, "none", path)}, -ENOENT,
                   "no such file", "truncate -s");
    expect_refused(&rig, (struct disk_config){.path = rig.dir}, -EISDIR, "is a directory",
                   "name an image");
    mkfifo(in_dir(&rig, "fifo", path), 0600);
    expect_refused(&rig, (struct disk_config){.path = path}, -ENOTBLK, "is a FIFO",
                   "name an image");
    expect_refused(&rig, (struct disk_config){.path = path, .readonly = true}, -ENOTBLK,
                   "is a FIFO", "name an image");
    expect_refused(&rig, (struct disk_config){.path = "/dev/zero"}, -ENOTBLK,
                   "is a character device", "name an image");

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", rig.dir);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    expect_refused(&rig, (struct disk_config){.path = address.sun_path}, -ENOTBLK, "is a socket",
                   "name an image");

    expect_refused(&rig, (struct disk_config){.path = "/proc/self/mem"}, -EINVAL,
                   "a file of the kernel's", "name an image");
    expect_refused(&rig, (struct disk_config){.path = "/proc/version", .readonly = true}, -EINVAL,
                   "a file of the kernel's", "name an image");
    expect_refused(&rig, (struct disk_config){.path = "/sys/kernel/mm/ksm/run", .readonly = true},
                   -EINVAL, "a file of the kernel's", "name an image");
    make_file(in_dir(&rig, "empty", path), 0);
    expect_refused(&rig, (struct disk_config){.path = path}, -EINVAL, "has 0 bytes", "truncate -s");
    make_file(in_dir(&rig, "small", path), 511);
    expect_refused(&rig, (struct disk_config){.path = path}, -EINVAL, "has 511 bytes",
                   "truncate -s");
    in_dir(&rig, "loop", path);
    cr_assert_eq(symlink("loop", path), 0);
    expect_refused(&rig, (struct disk_config){.path = path}, -ELOOP, "cannot be opened",
                   "symbolic links");
    rig_finish(&rig);
}

Test(disk_open, options_that_exclude_each_other)
{
    struct disk_rig rig;
    rig_init(&rig, "/tmp", SIZE);
    expect_refused(&rig, (struct disk_config){.ephemeral = true, .readonly = true}, -EINVAL,
                   "ephemeral and readonly", "leave out one");
    expect_refused(&rig, (struct disk_config){.ephemeral = true, .direct = true}, -EINVAL,
                   "ephemeral and direct", "leave out one");
    expect_refused(&rig, (struct disk_config){.ephemeral = true, .overlay_dir = "/none"}, -ENOENT,
                   "/none", "directory");
    expect_refused(&rig, (struct disk_config){.ephemeral = true, .overlay_dir = "/proc"}, -ENOENT,
                   "/proc", "directory");
    rig_finish(&rig);
}

Test(disk_open, I6_permissions)
{
    struct disk_rig rig;
    rig_init(&rig, "/tmp", SIZE);
    cr_assert_eq(chmod(rig.dir, 0777), 0);
    cr_assert_eq(chmod(rig.image, 0444), 0);
    const bool root = geteuid() == 0;
    cr_assert(!root || seteuid(NOBODY) == 0);
    expect_refused(&rig, (struct disk_config){0}, -EACCES, "can only be read", "add ,readonly");
    rig_open(&rig, (struct disk_config){.readonly = true});
    rig_close(&rig);
    rig_open(&rig, (struct disk_config){.ephemeral = true});
    rig_close(&rig);
    cr_assert(!root || seteuid(0) == 0);
    cr_assert_eq(chmod(rig.image, 0), 0);
    cr_assert(!root || seteuid(NOBODY) == 0);
    expect_refused(&rig, (struct disk_config){0}, -EACCES, "permission denied", "read and write");
    expect_refused(&rig, (struct disk_config){.readonly = true}, -EACCES, "permission denied",
                   "right to read it");
    cr_assert(!root || seteuid(0) == 0);
    rig_finish(&rig);
}

Test(disk_open, I6_sizes)
{
    static const struct {
        off_t size;
        uint64_t usable;
        unsigned tail;
    } cases[] = {{512, 512, 0},
                 {513, 512, 1},
                 {1023, 512, 511},
                 {(1ll << 43) + 5, 1ll << 43, 5},
                 {INT64_MAX, INT64_MAX - 511, 511}};
    struct disk_rig rig;
    uint8_t data[1024];
    rig_init(&rig, "/dev/shm", SIZE);
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (truncate(rig.image, cases[i].size) < 0) {
            cr_log_warn("%lld bytes: %s", (long long)cases[i].size, strerror(errno));
            continue;
        }
        rig_open(&rig, (struct disk_config){0});
        const uint64_t size = disk_size(rig.disk);
        cr_assert_eq(size, cases[i].usable);
        cr_assert_eq(disk_tail_bytes(rig.disk), cases[i].tail);
        cr_assert_eq(rig_do(&rig, DISK_READ, size - 512, data, 512), 0);
        cr_assert_eq(rig_do(&rig, DISK_READ, size - 512, data, 1024), -EINVAL);
        cr_assert_eq(rig_do(&rig, DISK_WRITE, size - 512, data, 512), 0);
        cr_assert_eq(rig_do(&rig, DISK_DISCARD, 0, NULL, size), 0);
        cr_assert_eq(rig_do(&rig, DISK_ZERO_UNMAP, 0, NULL, size), 0);
        rig_close(&rig);
    }
    /* More than an overlay can have: a text, no crash. */
    if (truncate(rig.image, INT64_MAX) == 0)
        expect_refused(&rig, (struct disk_config){.ephemeral = true, .overlay_dir = "/tmp"},
                       -ENOMEM, "too large", "smaller image");
    rig_finish(&rig);
}

Test(disk_open, says_what_it_is)
{
    struct disk_rig rig;
    rig_init(&rig, "/tmp", SIZE);
    rig_open(&rig, (struct disk_config){0});
    cr_assert_eq(disk_block_size(rig.disk), 512);
    cr_assert_gt(disk_discard_unit(rig.disk), 0);
    rig_close(&rig);
    rig_open(&rig, (struct disk_config){.readonly = true});
    cr_assert_eq(disk_discard_unit(rig.disk), 0);
    rig_close(&rig);
    rig_open(&rig, (struct disk_config){.ephemeral = true});
    cr_assert_eq(disk_block_size(rig.disk), 512);
    cr_assert_eq(disk_discard_unit(rig.disk), 4096);
    rig_finish(&rig);
}

/* ---- together with others ------------------------------------------------------------------ */

/* A process that has the image open until its pipe is closed. */
struct holder {
    pid_t pid;
    int stop;
};

static struct holder hold(struct disk_rig *rig, struct disk_config config)
{
    int ready[2], stop[2];
    char byte;
    cr_assert_eq(pipe(ready), 0);
    cr_assert_eq(pipe(stop), 0);
    struct holder holder = {.pid = fork()};
    cr_assert_geq(holder.pid, 0);
    if (holder.pid == 0) {
        struct event_loop loop;
        struct disk *disk;
        config.path = rig->image;
        config.overlay_dir = rig->dir;
        close(stop[1]);
        byte = 'r';
        if (event_loop_init(&loop, NULL) < 0 || disk_create(&config, &loop, &disk, NULL) < 0)
            byte = 'f';
        if (write(ready[1], &byte, 1) == 1 && read(stop[0], &byte, 1) == 0)
            _exit(0);
        _exit(1);
    }
    close(ready[1]);
    close(stop[0]);
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_eq(byte, 'r');
    close(ready[0]);
    holder.stop = stop[1];
    return holder;
}

static void let_go(struct holder holder)
{
    int status;
    close(holder.stop);
    cr_assert_eq(waitpid(holder.pid, &status, 0), holder.pid);
    cr_assert_eq(status, 0);
}

Test(disk_open, a_lock_names_the_process)
{
    static const struct disk_config writable = {0}, readonly = {.readonly = true},
                                    ephemeral = {.ephemeral = true};
    static const struct {
        const struct disk_config *first, *second;
        bool together;
    } cases[] = {
        {&writable, &writable, false},  {&writable, &readonly, false},
        {&writable, &ephemeral, false}, {&readonly, &writable, false},
        {&ephemeral, &writable, false}, {&readonly, &readonly, true},
        {&ephemeral, &ephemeral, true}, {&readonly, &ephemeral, true},
    };
    struct disk_rig rig;
    rig_init(&rig, "/tmp", SIZE);
    for (size_t i = 0; i < COUNT(cases); i++) {
        char name[64];
        struct holder holder = hold(&rig, *cases[i].first);
        snprintf(name, sizeof(name), "in use by process %d (", holder.pid);
        if (cases[i].together)
            rig_open(&rig, *cases[i].second);
        else
            expect_refused(&rig, *cases[i].second, -EBUSY, name, "readonly or ephemeral in both");
        rig_close(&rig);
        let_go(holder);
        rig_open(&rig, *cases[i].second); /* the lock has gone with him */
        rig_close(&rig);
    }
    rig_finish(&rig);
}

Test(disk_open, the_same_image_twice)
{
    struct disk_rig rig;
    struct disk *first;
    char path[128];
    rig_init(&rig, "/tmp", SIZE);
    rig_open(&rig, (struct disk_config){0});
    first = rig.disk;
    expect_refused(&rig, (struct disk_config){0}, -EBUSY, "already given as another disk",
                   "readonly or ephemeral in both");
    cr_assert_eq(link(rig.image, in_dir(&rig, "link", path)), 0);
    expect_refused(&rig, (struct disk_config){.path = path}, -EBUSY,
                   "already given as another disk", "its own image");
    disk_destroy(first);
    rig_open(&rig, (struct disk_config){.readonly = true});
    first = rig.disk;
    rig_open(&rig, (struct disk_config){.ephemeral = true});
    disk_destroy(first);
    rig_finish(&rig);
}

Test(disk_open, P6_ephemeral_and_readonly_leave_the_file_as_it_was)
{
    struct disk_rig rig;
    struct stat before, after;
    uint8_t data[SIZE], got[SIZE];
    memset(data, 0xaa, SIZE);
    rig_init(&rig, "/tmp", SIZE);
    cr_assert_eq(stat(rig.image, &before), 0);
    usleep(20000);
    rig_open(&rig, (struct disk_config){.ephemeral = true});
    cr_assert_eq(rig_do(&rig, DISK_WRITE, 512, data, SIZE - 512), 0);
    cr_assert_eq(rig_do(&rig, DISK_FLUSH, 0, NULL, 0), 0);
    cr_assert_eq(rig_do(&rig, DISK_READ, 0, got, SIZE), 0);
    for (unsigned i = 0; i < SIZE; i++)
        cr_assert_eq(got[i], i < 512 ? rig_pattern(i) : 0xaa);
    cr_assert_eq(rig_do(&rig, DISK_ZERO, 0, NULL, SIZE), 0);
    rig_close(&rig);
    rig_open(&rig, (struct disk_config){.readonly = true});
    cr_assert_eq(rig_do(&rig, DISK_WRITE, 0, data, SIZE), -EROFS);
    cr_assert_eq(rig_do(&rig, DISK_READ, 0, got, SIZE), 0);
    for (unsigned i = 0; i < SIZE; i++)
        cr_assert_eq(got[i], rig_pattern(i));
    rig_close(&rig);
    cr_assert_eq(stat(rig.image, &after), 0);
    cr_assert_eq(memcmp(&before.st_mtim, &after.st_mtim, sizeof(before.st_mtim)), 0);
    cr_assert_eq(memcmp(&before.st_ctim, &after.st_ctim, sizeof(before.st_ctim)), 0);
    cr_assert_eq(before.st_size, after.st_size);
    rig_finish(&rig);
}
