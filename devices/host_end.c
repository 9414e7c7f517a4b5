#include "devices/host_end.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

/* ---- opening ------------------------------------------------------------------------------- */

static int open_file(struct host_end *end, const char *path, const char *name,
                     struct minivmm_error *err)
{
    /* Non-blocking, so that a pipe without a reader is an error and not a wait. */
    end->out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
    if (end->out < 0)
        return error_set(err, -errno, "%s: file %s: %s", name, path,
                         errno == ENXIO ? "nobody reads this pipe" : strerror(errno));
    end->own = true;
    return 0;
}

/* Is there a socket that nobody listens to? */
static bool is_stale(const struct sockaddr_un *address)
{
    struct stat st;

    if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool stale = fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
                 errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return stale;
}

static int bind_and_listen(int fd, const struct sockaddr_un *address)
{
    /* The name gets the mode that the socket has when it is bound: at no moment is it wider. */
    if (fd < 0 || fchmod(fd, S_IRUSR | S_IWUSR) < 0)
        return -errno;
    int rc = bind(fd, (const struct sockaddr *)address, sizeof(*address));
    if (rc < 0 && errno == EADDRINUSE && is_stale(address)) {
        unlink(address->sun_path);
        rc = bind(fd, (const struct sockaddr *)address, sizeof(*address));
    }
    return rc < 0 || listen(fd, 1) < 0 ? -errno : 0;
}

static void handle_client(struct event_source *source, uint32_t events);

static int open_socket(struct host_end *end, const char *path, const char *name,
                       struct minivmm_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;

    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(err, -ENAMETOOLONG, "%s: socket %s: longer than %zu bytes", name, path,
                         sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    end->arrivals = (struct event_source){.fd = fd, .ready = handle_client, .arg = end};
    int rc = bind_and_listen(fd, &address);
    if (rc < 0)
        return error_set(err, rc, "%s: socket %s: %s%s", name, path, strerror(-rc),
                         rc == -EADDRINUSE ? "; choose another, or remove what is there" : "");
    if (stat(path, &st) == 0) {
        end->device = st.st_dev;
        end->inode = st.st_ino;
        end->path = strdup(path);
    }
    return 0;
}

static void handle_opening(struct event_source *source, uint32_t events);

/* The other side is raw until its user says otherwise: what the guest prints arrives as it is. */
static int make_raw(const char *path)
{
    struct termios settings;

    int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    int rc = fd < 0 || tcgetattr(fd, &settings) < 0 ? -errno : 0;
    if (rc == 0) {
        cfmakeraw(&settings);
        rc = tcsetattr(fd, TCSANOW, &settings) < 0 ? -errno : 0;
    }
    if (fd >= 0)
        close(fd); /* which leaves it hung up until somebody opens it */
    return rc;
}

static int open_terminal(struct host_end *end, const char *name, struct minivmm_error *err)
{
    char path[64];

    end->terminal = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    int rc = end->terminal < 0 || unlockpt(end->terminal) < 0 ? -errno : 0;
    if (rc == 0)
        rc = -ptsname_r(end->terminal, path, sizeof(path));
    if (rc == 0)
        rc = make_raw(path);
    if (rc == 0) {
        end->path = strdup(path);
        int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        end->arrivals = (struct event_source){.fd = fd, .ready = handle_opening, .arg = end};
        rc = !end->path ? -ENOMEM : fd < 0 || inotify_add_watch(fd, path, IN_OPEN) < 0 ? -errno : 0;
    }
    return rc < 0 ? error_set(err, rc, "%s: pseudo terminal: %s", name, strerror(-rc)) : 0;
}

/* A descriptor for both ways serves for what it was opened for. */
static int use_descriptors(struct host_end *end, const struct minivmm_char *config,
                           const char *name, struct minivmm_error *err)
{
    end->in = config->in;
    end->out = config->out;
    if (config->in < 0 || config->in != config->out)
        return 0;
    int flags = fcntl(config->in, F_GETFL);
    if (flags < 0)
        return error_set(err, -errno, "%s: descriptor %d: %s", name, config->in, strerror(errno));
    if ((flags & O_ACCMODE) == O_WRONLY)
        end->in = -1;
    else if ((flags & O_ACCMODE) == O_RDONLY)
        end->out = -1;
    return 0;
}

int host_end_init(struct host_end *end, const struct minivmm_char *config, struct event_loop *loop,
                  const char *name, struct minivmm_error *err)
{
    *end = (struct host_end){
        .kind = config->kind, .in = -1, .out = -1, .loop = loop, .arrivals.fd = -1, .terminal = -1};
    switch (config->kind) {
    case MINIVMM_CHAR_NULL:
        return 0;
    case MINIVMM_CHAR_FDS:
        return use_descriptors(end, config, name, err);
    case MINIVMM_CHAR_FILE:
        return open_file(end, config->path, name, err);
    case MINIVMM_CHAR_UNIX:
        return open_socket(end, config->path, name, err);
    case MINIVMM_CHAR_PTY:
        return open_terminal(end, name, err);
    }
    return error_set(err, -EINVAL, "%s: there is no back end %d", name, (int)config->kind);
}

/* ---- clients ------------------------------------------------------------------------------- */

static void await_client(struct host_end *end, bool await)
{
    if (end->attached)
        event_loop_change(end->loop, &end->arrivals, await ? EPOLLIN : 0);
}

static void handle_client(struct event_source *source, uint32_t events)
{
    struct host_end *end = source->arg;

    (void)events;
    int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return; /* gone again; or no descriptor is left, and it is tried again */
    await_client(end, false);
    if (host_stream_connect(end->stream, fd) < 0)
        await_client(end, true);
}

/* Has somebody the terminal open? */
static bool is_open(const struct host_end *end)
{
    struct pollfd pfd = {.fd = end->terminal};
    return poll(&pfd, 1, 0) == 0;
}

static void connect_terminal(struct host_end *end)
{
    if (end->stream->out_fd >= 0 || !is_open(end))
        return;
    int fd = fcntl(end->terminal, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0)
        host_stream_connect(end->stream, fd);
}

static void handle_opening(struct event_source *source, uint32_t events)
{
    char buffer[sizeof(struct inotify_event) + NAME_MAX + 1];

    (void)events;
    while (read(source->fd, buffer, sizeof(buffer)) > 0)
        ;
    connect_terminal(source->arg);
}

static void handle_gone(void *arg)
{
    struct host_end *end = arg;

    if (end->kind == MINIVMM_CHAR_UNIX)
        await_client(end, true);
}

int host_end_attach(struct host_end *end, struct host_stream *stream)
{
    if (end->arrivals.fd < 0)
        return 0;
    end->stream = stream;
    host_stream_make_transient(stream, handle_gone, end);
    int rc = event_loop_add(end->loop, &end->arrivals, EPOLLIN);
    end->attached = rc == 0;
    return rc;
}

void host_end_finish(struct host_end *end)
{
    struct stat st;

    if (!end->loop)
        return;
    if (end->kind == MINIVMM_CHAR_UNIX && end->path && stat(end->path, &st) == 0 &&
        st.st_dev == end->device && st.st_ino == end->inode)
        unlink(end->path);
    if (end->arrivals.fd >= 0)
        close(end->arrivals.fd);
    if (end->terminal >= 0)
        close(end->terminal);
    if (end->own)
        close(end->out);
    free(end->path);
    *end = (struct host_end){0};
}
