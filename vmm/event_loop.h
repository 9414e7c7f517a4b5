/*
 * One thread's event loop: descriptors (epoll), timers (timerfd), calls from other threads.
 *
 * Everything but event_loop_stop, event_loop_call and event_timer_set belongs to the loop's thread,
 * or to the time before it runs. Handlers run one after the other and must not block.
 */
#ifndef VMM_EVENT_LOOP_H
#define VMM_EVENT_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

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

/*
 * Work to be done once, after the handler that asks for it: what many steps of a handler ask for is
 * done once for all of them. Lies inside its owner; {0} with `run` set before its first use.
 */
struct event_deferred {
    void (*run)(struct event_deferred *deferred);
    struct event_deferred *next;
    bool pending;
};

/* A function to be run on the loop's thread while another thread waits. Lives on its stack. */
struct event_call {
    void (*run)(struct event_call *call); /* it, or something later on, says event_call_done */
    void *arg;
    struct event_call *next;
    bool done;
};

struct event_loop {
    int epoll_fd;
    struct event_source wake; /* an eventfd that ends epoll_wait */
    bool stopping;            /* atomic */
    int hurry_fd;             /* an eventfd, readable after event_loop_hurry */
    /*
     * A thread other than the caller's runs the loop, or is about to. Set and cleared by who starts
     * and joins it; without one, event_loop_call does everything on the caller's thread.
     */
    bool has_thread;
    struct epoll_event batch[EVENT_LOOP_BATCH];
    int batch_count;
    struct event_deferred *deferred;
    uint64_t bulk_ns; /* when event_loop_bulk was last said; 0: not lately */
    pid_t thread_id;  /* of who is in event_loop_run, if its scheduling is the usual one; or 0 */
    pthread_mutex_t baton; /* held by whoever runs handlers: the loop's thread, or a borrower */

    pthread_mutex_t call_lock;
    pthread_cond_t call_ended;
    struct event_call *calls;
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

/* Call the handlers of what is ready, waiting at most `timeout_ms` for something; -1: for ever. */
void event_loop_once(struct event_loop *loop, int timeout_ms);

/* Run it once, after the handler that is running, or before the next one. */
void event_loop_defer(struct event_loop *loop, struct event_deferred *deferred);

/* Not after all; harmless when it is not pending. */
void event_loop_cancel(struct event_loop *loop, struct event_deferred *deferred);

/*
 * From another thread: if the loop is asleep, be its thread until event_loop_return, which runs
 * what was deferred; false when it is at work. For what is done sooner than a sleeping thread is
 * woken. As a handler must, the borrower does not block, and it removes no source.
 */
bool event_loop_borrow(struct event_loop *loop);
void event_loop_return(struct event_loop *loop);

/*
 * From a handler or a borrower: work was done that gains from coming in batches. For some
 * milliseconds from now the loop's thread does not take the processor away from whoever wakes it
 * (it is SCHED_BATCH): on a processor of its own nothing changes, on a shared one it runs when the
 * other has done what it is at, and finds more to do at a time. Refused by the kernel: it goes on
 * without.
 */
void event_loop_bulk(struct event_loop *loop);

/*
 * From another thread than the loop's: have call->run run there, and wait until event_call_done,
 * which ends the wait from the loop's thread.
 */
void event_loop_call(struct event_loop *loop, struct event_call *call);
void event_call_done(struct event_loop *loop, struct event_call *call);

/*
 * From any thread, once: whatever a handler, or who takes the loop apart, waits for outside of it
 * is given up from now on. Such waits poll `hurry_fd` as well.
 */
void event_loop_hurry(struct event_loop *loop);

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

/*
 * From any thread: disarm, and return how many ns were left; 0 when it was not armed, or is due
 * and has not been seen to yet: then it does not expire either.
 */
uint64_t event_timer_hold(struct event_timer *timer);

#endif
