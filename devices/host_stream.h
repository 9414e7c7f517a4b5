/*
 * A host byte stream behind a character device: a terminal, pipe, socket or file, given as
 * descriptors that may be shared with other processes and therefore keep their blocking mode.
 *
 * Output is buffered, bounded and never blocks the writer: a device asks for room and leaves the
 * rest with the guest, which is how a slow reader slows the guest and nothing else. A line goes out
 * when it is complete, the rest after a millisecond, so that a boot log costs one write a line.
 * Input is taken only as the device has room for it.
 *
 * A transient stream is one whose other end comes and goes: host_stream_connect gives it a new one.
 * While there is none it takes all output, and keeps the last HOST_STREAM_BUFFER bytes.
 */
#ifndef DEVICES_HOST_STREAM_H
#define DEVICES_HOST_STREAM_H

#include <pthread.h>
#include <stddef.h>

#include "vmm/event_loop.h"

#define HOST_STREAM_BUFFER 65536u /* bytes of output; a power of two */
/* With less room than this left, a device is told as soon as there is this much again. */
#define HOST_STREAM_LOW_ROOM 256u

/* What the device at the other end does, all of it on the loop's thread. */
struct host_stream_ops {
    size_t (*room)(void *dev);                                    /* bytes of input it would take */
    void (*input)(void *dev, const uint8_t *data, size_t length); /* never more than its room */
    void (*writable)(void *dev);          /* HOST_STREAM_LOW_ROOM or more after less than that */
    void (*failed)(void *dev, int error); /* the output failed for good, errno; called once */
};

struct host_stream {
    struct event_loop *loop;
    const struct host_stream_ops *ops;
    void *dev;

    /* Of a transient stream, else NULL: its output has no other end any more. On the loop's thread.
     */
    void (*gone)(void *arg);
    void *gone_arg;

    pthread_mutex_t lock; /* guards the output below */
    uint8_t buffer[HOST_STREAM_BUFFER];
    unsigned head, tail; /* free-running: tail - head bytes wait, the first at head */
    int out_fd;          /* our own, non-blocking where that is possible; -1: discard */
    bool out_nonblocking;
    bool flush_set;  /* the flush timer runs */
    bool was_low;    /* room ran low: the device waits for `writable` */
    int out_error;   /* errno that ended the output; nothing is taken any more */
    bool error_told; /* the device has heard of it */
    struct event_source out_source;
    struct event_timer flush_timer;

    int in_fd; /* our own; -1: none, or at its end */
    bool in_ready;
    bool in_nonblocking;
    struct event_source in_source;
    struct event_timer pump_timer;
};

/*
 * Attach to descriptors of the caller's, -1 for none. They are duplicated; the caller's stay as
 * they are. `name` is for error texts. Nothing is read before the loop runs.
 */
int host_stream_init(struct host_stream *stream, struct event_loop *loop, int in_fd, int out_fd,
                     const struct host_stream_ops *ops, void *dev, const char *name,
                     struct minivmm_error *err);

/* From any thread. Returns how many bytes were taken; fewer than asked: wait for `writable`. */
size_t host_stream_write(struct host_stream *stream, const uint8_t *data, size_t length);

/* From any thread: bytes that host_stream_write would take. */
size_t host_stream_space(struct host_stream *stream);

/* From any thread: the device has room for input again. */
void host_stream_resume_input(struct host_stream *stream);

/* Before anything is written: the stream is transient from now on. */
void host_stream_make_transient(struct host_stream *stream, void (*gone)(void *arg), void *arg);

/*
 * A transient stream has a new other end: a non-blocking descriptor, which is the stream's from
 * here on, whatever this returns. What is left of the old one's input is dropped. On the loop's
 * thread, or before it runs.
 */
int host_stream_connect(struct host_stream *stream, int fd);

/*
 * Once no vCPU runs: write out what is left. If `patient`, wait for the reader as long as it takes
 * something every HOST_STREAM_PATIENCE_MS, else for as long as that in all; not at all once the
 * loop was told to hurry. Returns 0, the negative
 * errno that ended the output, or -ETIMEDOUT. What has no other end is not waited for.
 */
int host_stream_drain(struct host_stream *stream, bool patient);
#define HOST_STREAM_PATIENCE_MS 5000

void host_stream_finish(struct host_stream *stream);

#endif
