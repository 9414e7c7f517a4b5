#include "vmm/kernel_unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/checked.h"

#define SECTOR              512u
#define DEFAULT_SETUP_SECTS 4u
#define UNPACKED_MAX        (512u << 20)
#define CONFIG_MAX          (16u << 20)
/* What the kernel's build puts behind every payload but gzip's, which ends so by itself. */
#define SIZE_BEHIND 4u

/* IKCONFIG: kernel/configs.c of the kernel. Between the two is gzip's output. */
static const char config_start[] = "IKCFG_ST", config_end[] = "IKCFG_ED";

struct packer {
    const char *magic;
    size_t length;
    const char *const argv[6];
    unsigned behind;
};

static const struct packer packers[] = {
    {"\x1f\x8b", 2, {"gzip", "-dc"}, 0},
    {"\xfd"
     "7zXZ",
     5,
     {"xz", "-dc", "--single-stream"},
     SIZE_BEHIND},
    {"\x5d\0\0", 3, {"xz", "-dc", "--format=lzma"}, SIZE_BEHIND},
    {"\x28\xb5\x2f\xfd", 4, {"zstd", "-dcq"}, SIZE_BEHIND},
    {"\x02\x21\x4c\x18", 4, {"lz4", "-dcq"}, SIZE_BEHIND},
    {"BZh", 3, {"bzip2", "-dc"}, SIZE_BEHIND},
    {"\x89LZO", 4, {"lzop", "-dcq"}, SIZE_BEHIND},
};

/* ---- a program that turns one thing into another ------------------------------------------- */

/* All that `fd` gives, up to `max`. */
static int read_all(int fd, size_t max, uint8_t **data, size_t *size)
{
    size_t room = 0;

    *data = NULL;
    *size = 0;
    for (;;) {
        if (*size == room) {
            room = room ? 2 * room : 1u << 16;
            uint8_t *larger = room <= max ? realloc(*data, room) : NULL;
            if (!larger)
                return room <= max ? -ENOMEM : -EFBIG;
            *data = larger;
        }
        ssize_t n = read(fd, *data + *size, room - *size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        *size += (size_t)n;
    }
}

static int spawn(const struct packer *packer, int in, int out, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none;

    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int rc =
        -posix_spawnp(pid, packer->argv[0], &actions, &attr, (char *const *)packer->argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* Both ends above the standard streams, one of which may have been closed. */
static int make_pipe(int fds[2])
{
    int low[2];

    if (pipe2(low, O_CLOEXEC) < 0)
        return -errno;
    for (int i = 0; i < 2; i++) {
        fds[i] = fcntl(low[i], F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        close(low[i]);
    }
    return fds[0] < 0 || fds[1] < 0 ? -EMFILE : 0;
}

static int run_packer(const struct packer *packer, int in, size_t max, uint8_t **data, size_t *size,
                      struct minivmm_error *err)
{
    const char *name = packer->argv[0];
    int fds[2] = {-1, -1}, status;
    pid_t pid;

    int rc = make_pipe(fds);
    if (rc < 0)
        return error_set(err, rc, "pipe: %s", strerror(-rc));
    rc = spawn(packer, in, fds[1], &pid);
    close(fds[1]);
    if (rc < 0) {
        close(fds[0]);
        return error_set(err, rc, "it is packed with %s: %s", name,
                         rc == -ENOENT ? "that program is not installed" : strerror(-rc));
    }
    rc = read_all(fds[0], max, data, size);
    close(fds[0]); /* a program that would go on gets SIGPIPE */
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (rc == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        rc = -EILSEQ;
    if (rc < 0) {
        free(*data);
        *data = NULL;
        return error_set(err, rc, "%s cannot unpack it%s%s", name, rc == -EILSEQ ? "" : ": ",
                         rc == -EILSEQ ? "" : strerror(-rc));
    }
    return 0;
}

/* Unpack these bytes; *known is false where no packer's magic begins them. */
static int unpack(const uint8_t *packed, size_t length, size_t max, uint8_t **data, size_t *size,
                  bool *known, struct minivmm_error *err)
{
    const struct packer *packer = NULL;
    int rc = -EILSEQ;

    for (size_t i = 0; i < sizeof(packers) / sizeof(packers[0]); i++) {
        if (length > packers[i].length + SIZE_BEHIND &&
            memcmp(packed, packers[i].magic, packers[i].length) == 0)
            packer = &packers[i];
    }
    *known = packer != NULL;
    if (!packer)
        return error_set(err, rc, "it is packed in a way that is not known here");
    length -= packer->behind;
    int fd = memfd_create("packed", MFD_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "memfd_create: %s", strerror(errno));
    int in = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(fd);
    if (in < 0 || pwrite(in, packed, length, 0) != (ssize_t)length)
        rc = error_set(err, -EIO, "memfd: %s", strerror(errno));
    else
        rc = run_packer(packer, in, max, data, size, err);
    if (in >= 0)
        close(in);
    return rc;
}

/* ---- kernels ------------------------------------------------------------------------------- */

static int map_file(const struct kernel_file *file, uint8_t **map, struct minivmm_error *err)
{
    *map = mmap(NULL, file->size, PROT_READ, MAP_PRIVATE, file->fd, 0);
    if (*map == MAP_FAILED)
        return error_set(err, -errno, "it cannot be mapped: %s", strerror(errno));
    return 0;
}

int kernel_unpack(const struct kernel_file *file, uint8_t **data, size_t *size,
                  struct minivmm_error *err)
{
    const struct setup_header *header = &file->header;
    uint64_t sectors = header->setup_sects ? header->setup_sects : DEFAULT_SETUP_SECTS;
    uint64_t start = (sectors + 1) * SECTOR + header->payload_offset;
    uint8_t *map;
    bool known;

    *data = NULL;
    if (file->format == KERNEL_BZIMAGE && !range_within(start, header->payload_length, file->size))
        return error_set(err, -ENODATA, "its payload is not all there");
    if (file->size == 0 || file->size > UNPACKED_MAX)
        return error_set(err, -EFBIG, "it has %llu bytes", (unsigned long long)file->size);
    int rc = map_file(file, &map, err);
    if (rc < 0)
        return rc;
    if (file->format == KERNEL_BZIMAGE) {
        rc = unpack(map + start, header->payload_length, UNPACKED_MAX, data, size, &known, err);
    } else {
        *size = file->size;
        *data = malloc(*size);
        if (*data)
            memcpy(*data, map, *size);
        else
            rc = error_set(err, -ENOMEM, "out of memory");
    }
    munmap(map, file->size);
    return rc;
}

int kernel_unpack_config(const uint8_t *data, size_t size, char **text, struct minivmm_error *err)
{
    const uint8_t *start = memmem(data, size, config_start, sizeof(config_start) - 1);
    uint8_t *bytes;
    size_t length;
    bool known;

    *text = NULL;
    if (!start)
        return 0;
    start += sizeof(config_start) - 1;
    const uint8_t *end =
        memmem(start, size - (size_t)(start - data), config_end, sizeof(config_end) - 1);
    if (!end)
        return 0;
    int rc = unpack(start, (size_t)(end - start), CONFIG_MAX, &bytes, &length, &known, err);
    if (rc < 0)
        return known ? rc : 0; /* the words alone, in somebody's text */
    *text = malloc(length + 1);
    if (*text) {
        memcpy(*text, bytes, length);
        (*text)[length] = '\0';
    }
    free(bytes);
    return *text ? 0 : error_set(err, -ENOMEM, "out of memory");
}
