#include "vmm/api_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG    64
#define LOCK_TRIES 1000u /* a millisecond each; whoever is quick holds it for one at most */

static int fill_address(struct sockaddr_un *address, const char *path, struct minivmm_error *err)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof(address->sun_path))
        return error_set(err, -EINVAL, "%s: a socket's path has 1 to %zu bytes", path,
                         sizeof(address->sun_path) - 1);
    memcpy(address->sun_path, path, strlen(path));
    return 0;
}

/*
 * Between "nobody listens there" and its removal, and between a socket's name and its listener,
 * another process may come. So those who listen and those who leave are alone in the directory
 * meanwhile. The lock is on the directory itself: it leaves no file, and goes with the process.
 * Where there is none, because we may not read the directory or somebody has locked it for other
 * ends, it goes without: -1.
 */
static int lock_directory(const char *path)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) + 1 : 0;

    if (length >= sizeof(directory))
        return -1;
    memcpy(directory, path, length);
    snprintf(directory + length, sizeof(directory) - length, ".");
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; fd >= 0 && i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return fd;
        if (errno != EWOULDBLOCK && errno != EINTR)
            break;
        usleep(1000);
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

static void unlock_directory(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Something is at `path` already: remove it if it is a socket without a listener. */
static int remove_stale(const char *path, const struct sockaddr_un *address,
                        struct minivmm_error *err)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);
    struct stat file;

    if (lstat(path, &file) < 0)
        return errno == ENOENT ? 0 : error_set(err, -errno, "%s: %s", path, strerror(errno));
    if (!S_ISSOCK(file.st_mode))
        return error_set(err, -EEXIST, "%s: is there already, and no socket", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, -errno, "%s: socket: %s", path, strerror(errno));
    int rc = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
    if (rc == 0)
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    close(fd);
    if (rc == -ECONNREFUSED)
        return unlink(path) == 0 || errno == ENOENT
                   ? 0
                   : error_set(err, -errno, "%s: unlink: %s", path, strerror(errno));
    if (rc == 0)
        return error_set(err, -EADDRINUSE, "%s: process %ld listens there", path, (long)peer.pid);
    if (rc == -EAGAIN)
        return error_set(err, -EADDRINUSE, "%s: another process listens there", path);
    return error_set(err, rc, "%s: is there already: %s", path, strerror(-rc));
}

static int bind_private(int fd, const struct sockaddr_un *address)
{
    mode_t before = umask(0177);
    int rc = bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
    umask(before);
    return rc;
}

/* Have `fd` listen at `path`; a negative errno with a text. */
static int take_place(int fd, const char *path, const struct sockaddr_un *address,
                      struct stat *file, struct minivmm_error *err)
{
    int rc = bind_private(fd, address);
    if (rc == -EADDRINUSE) {
        rc = remove_stale(path, address, err);
        if (rc < 0)
            return rc;
        rc = bind_private(fd, address);
    }
    if (rc == 0 && (listen(fd, BACKLOG) < 0 || lstat(path, file) < 0))
        rc = -errno;
    return rc < 0 ? error_set(err, rc, "%s: bind: %s", path, strerror(-rc)) : 0;
}

int api_socket_listen(const char *path, struct stat *file, struct minivmm_error *err)
{
    struct sockaddr_un address;

    int rc = fill_address(&address, path, err);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, -errno, "%s: socket: %s", path, strerror(errno));
    int lock = lock_directory(path);
    rc = take_place(fd, path, &address, file, err);
    unlock_directory(lock);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

void api_socket_remove(const char *path, const struct stat *file)
{
    struct stat now;

    int lock = lock_directory(path);
    if (lstat(path, &now) == 0 && now.st_dev == file->st_dev && now.st_ino == file->st_ino)
        unlink(path);
    unlock_directory(lock);
}

int api_socket_connect(const char *path, struct minivmm_error *err)
{
    struct sockaddr_un address;

    int rc = fill_address(&address, path, err);
    if (rc < 0)
        return rc;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    rc = -errno;
    if (fd >= 0)
        close(fd);
    return error_set(err, rc, "%s: %s%s", path, strerror(-rc),
                     rc == -ECONNREFUSED || rc == -ENOENT ? "; does the VM still run?"
                     : rc == -EACCES ? "; only the user who started the VM may use it"
                     : rc == -EAGAIN ? "; too many clients wait already"
                                     : "");
}
