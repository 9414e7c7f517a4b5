/*
 * One thread's event loop: descriptors (epoll) and timers (timerfd).
 *
 * Everything but event_loop_stop and event_timer_set belongs to the loop's thread, or to the time
 * before it runs. Handlers run one after the other and must not block.
 */
#ifndef VMM_EVENT_LOOP_H
#define VMM_EVENT_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "vmm/error.h"

#define EVENT_LOOP_BATCH 16

/*
 * A descriptor to watch. Lies inside its owner, who keeps it until event_loop_remove. `ready` gets
 * the EPOLL* bits that are true; EPOLLERR and EPOLLHUP come unasked.
 */
struct event_source {
    int fd;
    void (*ready)(struct event_source *source, uint32_t events);
    void *arg;
};

struct event_loop {
    int epoll_fd;
    struct event_source wake; /* an eventfd that ends epoll_wait */
    bool stopping;            /* atomic */
    struct epoll_event batch[EVENT_LOOP_BATCH];
    int batch_count;
};

int event_loop_init(struct event_loop *loop, struct minivmm_error *err);
void event_loop_finish(struct event_loop *loop);

/*
 * Watch source->fd for `events` (EPOLLIN, EPOLLOUT, EPOLLET). Returns a negative errno, -EPERM for
 * a regular file: those are always ready and cannot be watched.
 */
int event_loop_add(struct event_loop *loop, struct event_source *source, uint32_t events);

/* Watch for something else from now on; 0 leaves only errors. */
void event_loop_change(struct event_loop *loop, struct event_source *source, uint32_t events);

/* Watch no more. `ready` is not called again, not even for events that were already fetched. */
void event_loop_remove(struct event_loop *loop, struct event_source *source);

/* Call handlers until event_loop_stop. */
void event_loop_run(struct event_loop *loop);

/* From any thread: make event_loop_run return after the handler it is in. */
void event_loop_stop(struct event_loop *loop);

/* A one-shot timer on a loop; `expired` runs on the loop's thread. */
struct event_timer {
    struct event_source source;
    void (*expired)(void *arg);
    void *arg;
};

int event_timer_init(struct event_timer *timer, struct event_loop *loop, void (*expired)(void *arg),
                     void *arg, struct minivmm_error *err);
/* Once the loop has stopped, or before it runs. */
void event_timer_finish(struct event_timer *timer);

/* From any thread: expire once, `ns` nanoseconds from now; 0 disarms. */
void event_timer_set(struct event_timer *timer, uint64_t ns);

#endif
