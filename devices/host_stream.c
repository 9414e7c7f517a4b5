#include "devices/host_stream.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/clock.h"

#define NS_PER_MS      (NS_PER_SECOND / 1000)
#define FLUSH_DELAY_NS NS_PER_MS
#define INPUT_CHUNK    4096u
#define INPUT_BUDGET   64u /* chunks, before others have their turn */
/* So much at once goes out without a stay in the buffer. */
#define DIRECT_MIN 512u

/*
 * A descriptor of our own for what `fd` refers to. Pipes and terminals are opened again, for only
 * an open file of our own may become non-blocking without changing it under other processes; a
 * regular file is not, because it would lose the common file position.
 */
static int own_descriptor(int fd, int access, bool *nonblocking)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    /* First of all: the end of a pipe that was not given could be opened as well. */
    int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
    if (mode != O_RDWR && mode != access)
        return -EBADF;
    if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
        char path[32];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        int own = open(path, access | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (own >= 0) {
            *nonblocking = true;
            return own;
        }
    }
    /* A regular file never blocks for long; for the rest every transfer is preceded by poll. */
    *nonblocking = S_ISREG(st.st_mode);
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return own < 0 ? -errno : own;
}

/* Would a transfer block now? */
static bool would_block(int fd, short events, bool nonblocking)
{
    if (nonblocking)
        return false;
    struct pollfd pfd = {.fd = fd, .events = events};
    return poll(&pfd, 1, 0) == 0;
}

/* Write what waits until it is gone or the reader is slow. With the lock held. */
static void flush(struct host_stream *stream)
{
    while (stream->out_fd >= 0 && stream->tail != stream->head && !stream->out_error) {
        unsigned start = stream->head % HOST_STREAM_BUFFER;
        size_t length = stream->tail - stream->head;
        if (length > HOST_STREAM_BUFFER - start)
            length = HOST_STREAM_BUFFER - start;
        if (!stream->out_nonblocking) {
            if (would_block(stream->out_fd, POLLOUT, false))
                return;
            if (length > PIPE_BUF) /* what poll promises that a pipe takes at once */
                length = PIPE_BUF;
        }
        ssize_t n = write(stream->out_fd, stream->buffer + start, length);
        if (n > 0)
            stream->head += (unsigned)n;
        else if (n == 0)
            stream->out_error = EIO; /* a driver that takes nothing and says nothing */
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR)
            stream->out_error = errno;
    }
}

/* A transient stream without an other end. With the lock held. */
static bool is_lonely(const struct host_stream *stream)
{
    return stream->gone && stream->out_fd < 0;
}

/* Room for output, as long as it has not failed. With the lock held. */
static size_t room_left(const struct host_stream *stream)
{
    if (is_lonely(stream))
        return HOST_STREAM_BUFFER;
    return stream->out_error ? 0 : HOST_STREAM_BUFFER - (stream->tail - stream->head);
}

/* Is there output that can be written? With the lock held. */
static bool work_waits(const struct host_stream *stream)
{
    return stream->tail != stream->head && stream->out_fd >= 0;
}

/* Is there something the device has to hear? With the lock held. */
static bool news(const struct host_stream *stream)
{
    return (stream->out_error && !stream->error_told) ||
           (stream->was_low && room_left(stream) >= HOST_STREAM_LOW_ROOM);
}

/* ---- the other end goes: on the loop's thread ---------------------------------------------- */

static void close_input(struct host_stream *stream)
{
    if (stream->in_fd < 0)
        return;
    event_loop_remove(stream->loop, &stream->in_source);
    close(stream->in_fd);
    stream->in_fd = -1;
    stream->in_ready = false;
}

/* Input that has arrived may still be taken. */
static void close_output(struct host_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    int fd = stream->out_fd;
    stream->out_fd = -1;
    stream->out_error = 0;
    bool waits = stream->was_low;
    stream->was_low = false;
    pthread_mutex_unlock(&stream->lock);
    if (fd < 0)
        return;
    event_loop_remove(stream->loop, &stream->out_source);
    close(fd);
    if (waits)
        stream->ops->writable(stream->dev);
    stream->gone(stream->gone_arg);
}

static bool has_hung_up(int fd)
{
    struct pollfd pfd = {.fd = fd};
    return poll(&pfd, 1, 0) > 0 && (pfd.revents & (POLLHUP | POLLERR));
}

/* ---- output -------------------------------------------------------------------------------- */

/* Flush, and tell the device what came of it. On the loop's thread, without the lock held. */
static void flush_and_tell(struct host_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    flush(stream);
    if (stream->gone && stream->out_error) {
        pthread_mutex_unlock(&stream->lock);
        close_output(stream);
        return;
    }
    int error = stream->error_told ? 0 : stream->out_error;
    bool room = stream->was_low && room_left(stream) >= HOST_STREAM_LOW_ROOM;
    stream->error_told |= error != 0;
    stream->was_low &= !room;
    pthread_mutex_unlock(&stream->lock);

    if (error)
        stream->ops->failed(stream->dev, error);
    if (room)
        stream->ops->writable(stream->dev);
}

static void out_ready(struct event_source *source, uint32_t events)
{
    struct host_stream *stream = source->arg;

    if (stream->gone && (events & (EPOLLHUP | EPOLLERR)))
        close_output(stream);
    else
        flush_and_tell(stream);
}

static void flush_due(void *arg)
{
    struct host_stream *stream = arg;
    pthread_mutex_lock(&stream->lock);
    stream->flush_set = false;
    pthread_mutex_unlock(&stream->lock);
    flush_and_tell(stream);
}

/*
 * Append to the buffer; returns whether that completed a line. More than there is room for is only
 * given to a stream without an other end, which forgets the oldest. With the lock held.
 */
static bool append(struct host_stream *stream, const uint8_t *data, size_t length)
{
    bool line = memchr(data, '\n', length) != NULL;

    if (length > HOST_STREAM_BUFFER) {
        data += length - HOST_STREAM_BUFFER;
        length = HOST_STREAM_BUFFER;
    }
    size_t start = stream->tail % HOST_STREAM_BUFFER;
    size_t part = length < HOST_STREAM_BUFFER - start ? length : HOST_STREAM_BUFFER - start;
    memcpy(stream->buffer + start, data, part);
    memcpy(stream->buffer, data + part, length - part);
    stream->tail += (unsigned)length;
    if (stream->tail - stream->head > HOST_STREAM_BUFFER)
        stream->head = stream->tail - HOST_STREAM_BUFFER;
    stream->was_low |= room_left(stream) < HOST_STREAM_LOW_ROOM;
    return line;
}

/* Much, and nothing is before it: spare it the buffer. Returns what is gone. With the lock held. */
static size_t write_directly(struct host_stream *stream, const uint8_t *data, size_t length)
{
    if (length < DIRECT_MIN || stream->out_fd < 0 || !stream->out_nonblocking ||
        stream->tail != stream->head || stream->out_error)
        return 0;
    ssize_t n = write(stream->out_fd, data, length);
    return n > 0 ? (size_t)n : 0; /* what went wrong is seen at the flush */
}

size_t host_stream_write(struct host_stream *stream, const uint8_t *data, size_t length)
{
    if (!stream->gone && stream->out_fd < 0)
        return length;

    pthread_mutex_lock(&stream->lock);
    size_t direct = write_directly(stream, data, length);
    size_t space = room_left(stream);
    if (is_lonely(stream))
        space = length;
    size_t taken = length - direct < space ? length - direct : space;
    if (append(stream, data + direct, taken))
        flush(stream);
    /* The rest of a line and whatever the device must hear are for the loop's thread. */
    bool set_timer = !stream->flush_set && (work_waits(stream) || news(stream));
    stream->flush_set |= set_timer;
    pthread_mutex_unlock(&stream->lock);

    if (set_timer)
        event_timer_set(&stream->flush_timer, FLUSH_DELAY_NS);
    return direct + taken;
}

size_t host_stream_space(struct host_stream *stream)
{
    if (!stream->gone && stream->out_fd < 0)
        return HOST_STREAM_BUFFER;
    pthread_mutex_lock(&stream->lock);
    size_t space = room_left(stream);
    pthread_mutex_unlock(&stream->lock);
    return space;
}

int host_stream_drain(struct host_stream *stream, bool patient)
{
    if (!stream->gone && stream->out_fd < 0)
        return 0;
    pthread_mutex_lock(&stream->lock);
    const uint64_t end = clock_now_ns() + HOST_STREAM_PATIENCE_MS * NS_PER_MS;
    int rc = 0;
    for (;;) {
        flush(stream);
        if (stream->out_error || !work_waits(stream))
            break;
        struct pollfd fds[] = {{.fd = stream->out_fd, .events = POLLOUT},
                               {.fd = stream->loop->hurry_fd, .events = POLLIN}};
        uint64_t now = clock_now_ns();
        uint64_t wait_ms = HOST_STREAM_PATIENCE_MS;
        if (!patient)
            wait_ms = now < end ? (end - now) / NS_PER_MS : 0;
        if (wait_ms == 0 || poll(fds, 2, (int)wait_ms) == 0 || (fds[1].revents & POLLIN)) {
            rc = -ETIMEDOUT;
            break;
        }
    }
    if (stream->out_error && !stream->gone)
        rc = -stream->out_error;
    pthread_mutex_unlock(&stream->lock);
    return rc;
}

/*
 * Is it a terminal that our session still has? Then a read failed with EIO because the terminal was
 * lent to another process group, and will not when we have it back.
 */
static bool is_lent(int fd)
{
    return tcgetpgrp(fd) > 0;
}

/* Move input to the device until it has no room or there is none. On the loop's thread. */
static void pump(struct host_stream *stream)
{
    for (unsigned i = 0; stream->in_fd >= 0 && stream->in_ready; i++) {
        uint8_t data[INPUT_CHUNK];
        if (i == INPUT_BUDGET) {
            event_timer_set(&stream->pump_timer, 1);
            return;
        }
        size_t room = stream->ops->room(stream->dev);
        if (room == 0)
            return; /* the device calls host_stream_resume_input */
        if (would_block(stream->in_fd, POLLIN, stream->in_nonblocking)) {
            stream->in_ready = false;
            return;
        }
        ssize_t n = read(stream->in_fd, data, room < sizeof(data) ? room : sizeof(data));
        if (n > 0) {
            stream->ops->input(stream->dev, data, (size_t)n);
        } else if (n < 0 &&
                   (errno == EAGAIN || (errno == EIO && !stream->gone && is_lent(stream->in_fd)))) {
            stream->in_ready = false;
        } else if (n == 0 || errno != EINTR) {
            /* The end, or a terminal that hung up: the guest goes on without input. A client that
             * has only finished to speak may still listen. */
            bool hung_up = stream->gone && has_hung_up(stream->in_fd);
            close_input(stream);
            if (hung_up)
                close_output(stream);
        }
    }
}

static void in_ready(struct event_source *source, uint32_t events)
{
    (void)events;
    struct host_stream *stream = source->arg;
    stream->in_ready = true;
    pump(stream);
}

static void pump_due(void *arg)
{
    pump(arg);
}

void host_stream_resume_input(struct host_stream *stream)
{
    if (stream->in_source.fd >= 0)
        event_timer_set(&stream->pump_timer, 1);
}

static int attach_output(struct host_stream *stream, int fd)
{
    int own = own_descriptor(fd, O_WRONLY, &stream->out_nonblocking);
    if (own < 0)
        return own;
    stream->out_fd = own;
    stream->out_source = (struct event_source){.fd = own, .ready = out_ready, .arg = stream};
    /* Edge-triggered: a reader that has gone away is told once, not for ever. */
    int rc = event_loop_add(stream->loop, &stream->out_source, EPOLLOUT | EPOLLET);
    return rc == -EPERM ? 0 : rc;
}

static int attach_input(struct host_stream *stream, int fd)
{
    int own = own_descriptor(fd, O_RDONLY, &stream->in_nonblocking);
    if (own < 0)
        return own;
    stream->in_fd = own;
    stream->in_source = (struct event_source){.fd = own, .ready = in_ready, .arg = stream};
    int rc = event_loop_add(stream->loop, &stream->in_source, EPOLLIN | EPOLLET);
    if (rc == -EPERM) {
        /* A file or /dev/null cannot be watched: it is ready until its end. */
        stream->in_ready = true;
        stream->in_nonblocking = true;
        event_timer_set(&stream->pump_timer, 1);
        rc = 0;
    }
    return rc;
}

/* ---- its life ------------------------------------------------------------------------------ */

void host_stream_make_transient(struct host_stream *stream, void (*gone)(void *arg), void *arg)
{
    stream->gone = gone;
    stream->gone_arg = arg;
}

int host_stream_connect(struct host_stream *stream, int fd)
{
    pump(stream); /* as much of what the last one said as there is room for */
    close_input(stream);
    int in = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (in < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    stream->out_source = (struct event_source){.fd = fd, .ready = out_ready, .arg = stream};
    stream->in_source = (struct event_source){.fd = in, .ready = in_ready, .arg = stream};
    stream->in_nonblocking = true;
    stream->in_ready = true; /* it may have spoken before */
    stream->in_fd = in;
    pthread_mutex_lock(&stream->lock);
    stream->out_nonblocking = true;
    stream->out_error = 0;
    stream->out_fd = fd;
    pthread_mutex_unlock(&stream->lock);
    /* Adding tells of all that has happened already: room to write, or that it is gone again. */
    int rc = event_loop_add(stream->loop, &stream->out_source, EPOLLOUT | EPOLLET);
    if (rc == 0)
        rc = event_loop_add(stream->loop, &stream->in_source, EPOLLIN | EPOLLET);
    if (rc < 0) {
        close_input(stream);
        close_output(stream);
    }
    return rc;
}

int host_stream_init(struct host_stream *stream, struct event_loop *loop, int in_fd, int out_fd,
                     const struct host_stream_ops *ops, void *dev, const char *name,
                     struct minivmm_error *err)
{
    stream->loop = loop;
    stream->ops = ops;
    stream->dev = dev;
    stream->gone = NULL;
    stream->head = stream->tail = 0;
    stream->in_fd = stream->out_fd = -1;
    stream->in_source.fd = stream->out_source.fd = -1;
    stream->flush_timer.source.fd = stream->pump_timer.source.fd = -1;
    stream->flush_set = stream->was_low = stream->error_told = stream->in_ready = false;
    stream->out_error = 0;
    pthread_mutex_init(&stream->lock, NULL);

    int rc = event_timer_init(&stream->flush_timer, loop, flush_due, stream, err);
    if (rc == 0)
        rc = event_timer_init(&stream->pump_timer, loop, pump_due, stream, err);
    if (rc == 0 && out_fd >= 0) {
        rc = attach_output(stream, out_fd);
        if (rc < 0)
            error_set(err, rc, "%s: cannot write to descriptor %d: %s", name, out_fd,
                      strerror(-rc));
    }
    if (rc == 0 && in_fd >= 0) {
        rc = attach_input(stream, in_fd);
        if (rc < 0)
            error_set(err, rc, "%s: cannot read descriptor %d: %s", name, in_fd, strerror(-rc));
    }
    if (rc < 0)
        host_stream_finish(stream);
    return rc;
}

void host_stream_finish(struct host_stream *stream)
{
    event_timer_finish(&stream->flush_timer);
    event_timer_finish(&stream->pump_timer);
    if (stream->in_fd >= 0)
        close(stream->in_fd);
    if (stream->out_fd >= 0)
        close(stream->out_fd);
    stream->in_fd = stream->out_fd = -1;
    pthread_mutex_destroy(&stream->lock);
}
