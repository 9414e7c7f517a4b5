#include "vmm/event_loop.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "vmm/clock.h"

/* So long after bulk was last seen the loop's thread is scheduled as others are. */
#define BULK_LASTS_NS (NS_PER_SECOND / 100)

/* Somebody woke the loop: to stop it, or to have something run here. */
static void handle_wake(struct event_source *source, uint32_t events)
{
    (void)events;
    struct event_loop *loop = source->arg;
    eventfd_t value;
    eventfd_read(source->fd, &value);

    pthread_mutex_lock(&loop->call_lock);
    struct event_call *call = loop->calls;
    loop->calls = NULL;
    pthread_mutex_unlock(&loop->call_lock);
    while (call) {
        struct event_call *next = call->next; /* the call may be gone once it has run */
        call->run(call);
        call = next;
    }
}

int event_loop_init(struct event_loop *loop, struct minivmm_error *err)
{
    *loop = (struct event_loop){.epoll_fd = -1,
                                .hurry_fd = -1,
                                .wake = {.fd = -1, .ready = handle_wake, .arg = loop},
                                .baton = PTHREAD_MUTEX_INITIALIZER,
                                .call_lock = PTHREAD_MUTEX_INITIALIZER,
                                .call_ended = PTHREAD_COND_INITIALIZER};
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    loop->hurry_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = loop->epoll_fd < 0 || loop->wake.fd < 0 || loop->hurry_fd < 0 ? -errno : 0;
    if (rc == 0)
        rc = event_loop_add(loop, &loop->wake, EPOLLIN);
    if (rc < 0) {
        event_loop_finish(loop);
        return error_set(err, rc, "event loop: %s", strerror(-rc));
    }
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void event_loop_finish(struct event_loop *loop)
{
    close_fd(&loop->epoll_fd);
    close_fd(&loop->wake.fd);
    close_fd(&loop->hurry_fd);
}

int event_loop_add(struct event_loop *loop, struct event_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

void event_loop_change(struct event_loop *loop, struct event_source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    int rc = epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event);
    assert(rc == 0);
    (void)rc;
}

void event_loop_remove(struct event_loop *loop, struct event_source *source)
{
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
    for (int i = 0; i < loop->batch_count; i++) {
        if (loop->batch[i].data.ptr == source)
            loop->batch[i].data.ptr = NULL;
    }
}

static void run_deferred(struct event_loop *loop)
{
    while (loop->deferred) {
        struct event_deferred *deferred = loop->deferred;
        loop->deferred = deferred->next;
        deferred->pending = false;
        deferred->run(deferred);
    }
}

static void set_policy(pid_t thread, int policy)
{
    const struct sched_param param = {0};
    if (thread)
        sched_setscheduler(thread, policy, &param);
}

void event_loop_bulk(struct event_loop *loop)
{
    if (!loop->bulk_ns)
        set_policy(loop->thread_id, SCHED_BATCH);
    loop->bulk_ns = clock_now_ns();
}

static void end_bulk(struct event_loop *loop)
{
    set_policy(loop->thread_id, SCHED_OTHER);
    loop->bulk_ns = 0;
}

void event_loop_once(struct event_loop *loop, int timeout_ms)
{
    if (!loop->has_thread)
        run_deferred(loop); /* what was put off outside of any handler */
    int n = epoll_wait(loop->epoll_fd, loop->batch, EVENT_LOOP_BATCH, timeout_ms);
    pthread_mutex_lock(&loop->baton);
    loop->batch_count = n;
    if (loop->bulk_ns && clock_now_ns() - loop->bulk_ns > BULK_LASTS_NS)
        end_bulk(loop);
    for (int i = 0; i < n; i++) {
        struct event_source *source = loop->batch[i].data.ptr;
        if (source)
            source->ready(source, loop->batch[i].events);
        run_deferred(loop);
    }
    loop->batch_count = 0;
    pthread_mutex_unlock(&loop->baton);
}

bool event_loop_borrow(struct event_loop *loop)
{
    return pthread_mutex_trylock(&loop->baton) == 0;
}

void event_loop_return(struct event_loop *loop)
{
    run_deferred(loop);
    pthread_mutex_unlock(&loop->baton);
}

void event_loop_run(struct event_loop *loop)
{
    bool usual = sched_getscheduler(0) == SCHED_OTHER; /* else somebody has chosen it */

    pthread_mutex_lock(&loop->baton);
    loop->thread_id = usual ? gettid() : 0;
    pthread_mutex_unlock(&loop->baton);
    while (!__atomic_load_n(&loop->stopping, __ATOMIC_ACQUIRE))
        event_loop_once(loop, -1);
    pthread_mutex_lock(&loop->baton);
    end_bulk(loop);
    loop->thread_id = 0;
    pthread_mutex_unlock(&loop->baton);
}

void event_loop_defer(struct event_loop *loop, struct event_deferred *deferred)
{
    if (deferred->pending)
        return;
    deferred->pending = true;
    deferred->next = loop->deferred;
    loop->deferred = deferred;
}

void event_loop_cancel(struct event_loop *loop, struct event_deferred *deferred)
{
    for (struct event_deferred **at = &loop->deferred; *at; at = &(*at)->next) {
        if (*at == deferred) {
            *at = deferred->next;
            deferred->pending = false;
            return;
        }
    }
}

void event_loop_call(struct event_loop *loop, struct event_call *call)
{
    call->done = false;
    if (!loop->has_thread) {
        call->run(call);
        run_deferred(loop);
        while (!call->done)
            event_loop_once(loop, -1);
        return;
    }
    pthread_mutex_lock(&loop->call_lock);
    call->next = loop->calls;
    loop->calls = call;
    eventfd_write(loop->wake.fd, 1);
    while (!call->done)
        pthread_cond_wait(&loop->call_ended, &loop->call_lock);
    pthread_mutex_unlock(&loop->call_lock);
}

void event_call_done(struct event_loop *loop, struct event_call *call)
{
    pthread_mutex_lock(&loop->call_lock);
    call->done = true;
    pthread_cond_broadcast(&loop->call_ended);
    pthread_mutex_unlock(&loop->call_lock);
}

void event_loop_hurry(struct event_loop *loop)
{
    eventfd_write(loop->hurry_fd, 1);
}

void event_loop_stop(struct event_loop *loop)
{
    __atomic_store_n(&loop->stopping, true, __ATOMIC_RELEASE);
    eventfd_write(loop->wake.fd, 1);
}

static void timer_ready(struct event_source *source, uint32_t events)
{
    (void)events;
    struct event_timer *timer = source->arg;
    uint64_t expirations;
    /* The read fails when the timer was set anew between epoll and here: then it is not due. */
    if (read(source->fd, &expirations, sizeof(expirations)) == sizeof(expirations))
        timer->expired(timer->arg);
}

int event_timer_init(struct event_timer *timer, struct event_loop *loop, void (*expired)(void *arg),
                     void *arg, struct minivmm_error *err)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    *timer = (struct event_timer){
        .source = {.fd = fd, .ready = timer_ready, .arg = timer}, .expired = expired, .arg = arg};
    int rc = fd < 0 ? -errno : event_loop_add(loop, &timer->source, EPOLLIN);
    if (rc < 0) {
        event_timer_finish(timer);
        return error_set(err, rc, "timer: %s", strerror(-rc));
    }
    return 0;
}

void event_timer_finish(struct event_timer *timer)
{
    close_fd(&timer->source.fd);
}

void event_timer_set(struct event_timer *timer, uint64_t ns)
{
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(ns / NS_PER_SECOND),
                                           .tv_nsec = (long)(ns % NS_PER_SECOND)}};
    timerfd_settime(timer->source.fd, 0, &when, NULL);
}

uint64_t event_timer_hold(struct event_timer *timer)
{
    const struct itimerspec never = {0};
    struct itimerspec left = {0};

    timerfd_settime(timer->source.fd, 0, &never, &left);
    return (uint64_t)left.it_value.tv_sec * NS_PER_SECOND + (uint64_t)left.it_value.tv_nsec;
}
