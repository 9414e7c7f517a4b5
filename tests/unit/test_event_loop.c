#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/unit/support.h"

SUITE(event_loop);

/* An eventfd on a loop that counts its calls and then does one thing more. */
struct counted {
    struct event_source source;
    struct event_loop *loop;
    unsigned calls;
    uint32_t events;
    struct event_source *remove; /* taken off the loop by the handler */
    unsigned stop_after;         /* this many calls stop the loop */
};

static void counted_ready(struct event_source *source, uint32_t events)
{
    struct counted *counted = source->arg;
    support_take(source->fd);
    counted->events = events;
    if (counted->remove)
        event_loop_remove(counted->loop, counted->remove);
    if (++counted->calls == counted->stop_after)
        event_loop_stop(counted->loop);
}

static void counted_add(struct counted *counted, struct event_loop *loop)
{
    *counted = (struct counted){.loop = loop};
    counted->source = (struct event_source){
        .fd = eventfd(0, EFD_NONBLOCK), .ready = counted_ready, .arg = counted};
    cr_assert_eq(event_loop_add(loop, &counted->source, EPOLLIN), 0);
}

Test(event_loop, calls_the_handler_of_what_is_ready)
{
    struct support_loop loop;
    struct counted a, b;
    support_loop_init(&loop);
    counted_add(&a, &loop.loop);
    counted_add(&b, &loop.loop);
    b.stop_after = 1;
    eventfd_write(b.source.fd, 1);
    event_loop_run(&loop.loop);
    cr_assert_eq(a.calls, 0);
    cr_assert_eq(b.calls, 1);
    cr_assert_eq(b.events, EPOLLIN);
    close(a.source.fd);
    close(b.source.fd);
    support_loop_finish(&loop);
}

Test(event_loop, a_source_removed_by_another_of_the_same_batch_is_not_called)
{
    struct support_loop loop;
    struct counted a, b;
    support_loop_init(&loop);
    counted_add(&a, &loop.loop);
    counted_add(&b, &loop.loop);
    /* Both are ready before the loop looks: whichever comes first removes the other. */
    a.remove = &b.source;
    b.remove = &a.source;
    a.stop_after = b.stop_after = 1;
    eventfd_write(a.source.fd, 1);
    eventfd_write(b.source.fd, 1);
    event_loop_run(&loop.loop);
    cr_assert_eq(a.calls + b.calls, 1, "a %u, b %u", a.calls, b.calls);
    close(a.source.fd);
    close(b.source.fd);
    support_loop_finish(&loop);
}

static unsigned b_seen;

static bool called_more_often(void *arg)
{
    struct counted *counted = arg;
    return __atomic_load_n(&counted->calls, __ATOMIC_ACQUIRE) > b_seen;
}

Test(event_loop, a_handler_may_remove_itself)
{
    struct support_loop loop;
    struct counted a, b;
    support_loop_init(&loop);
    counted_add(&a, &loop.loop);
    counted_add(&b, &loop.loop);
    a.remove = &a.source;
    b.stop_after = 3;
    support_loop_run(&loop);
    for (unsigned i = 0; i < 3; i++) {
        eventfd_write(a.source.fd, 1);
        eventfd_write(b.source.fd, 1);
        b_seen = i;
        cr_assert(support_wait(called_more_often, &b));
    }
    support_loop_stop(&loop);
    cr_assert_eq(a.calls, 1);
    cr_assert_eq(b.calls, 3);
    close(a.source.fd);
    close(b.source.fd);
    support_loop_finish(&loop);
}

Test(event_loop, more_sources_than_a_batch_are_all_served)
{
    enum { SOURCES = 3 * EVENT_LOOP_BATCH };
    struct support_loop loop;
    struct counted sources[SOURCES], last;
    support_loop_init(&loop);
    for (unsigned i = 0; i < SOURCES; i++) {
        counted_add(&sources[i], &loop.loop);
        eventfd_write(sources[i].source.fd, 1);
    }
    counted_add(&last, &loop.loop);
    last.stop_after = 1;
    /* Ready sources queue up in order, so the last one comes after all. */
    eventfd_write(last.source.fd, 1);
    event_loop_run(&loop.loop);
    for (unsigned i = 0; i < SOURCES; i++) {
        cr_expect_eq(sources[i].calls, 1, "source %u: %u calls", i, sources[i].calls);
        close(sources[i].source.fd);
    }
    close(last.source.fd);
    support_loop_finish(&loop);
}

Test(event_loop, a_change_of_events_takes_effect)
{
    struct support_loop loop;
    struct counted a, b;
    support_loop_init(&loop);
    counted_add(&a, &loop.loop);
    counted_add(&b, &loop.loop);
    event_loop_change(&loop.loop, &a.source, 0);
    b.stop_after = 1;
    eventfd_write(a.source.fd, 1);
    eventfd_write(b.source.fd, 1);
    event_loop_run(&loop.loop);
    cr_assert_eq(a.calls, 0);
    loop.loop.stopping = false;
    event_loop_change(&loop.loop, &a.source, EPOLLOUT);
    a.stop_after = 1;
    event_loop_run(&loop.loop);
    cr_assert_eq(a.events, EPOLLOUT);
    close(a.source.fd);
    close(b.source.fd);
    support_loop_finish(&loop);
}

Test(event_loop, refuses_what_cannot_be_watched)
{
    struct support_loop loop;
    struct support_file file = support_file("x", 1);
    support_loop_init(&loop);
    struct event_source regular = {.fd = file.fd}, closed = {.fd = -1};
    cr_assert_eq(event_loop_add(&loop.loop, &regular, EPOLLIN), -EPERM);
    cr_assert_eq(event_loop_add(&loop.loop, &closed, EPOLLIN), -EBADF);
    close(file.fd);
    support_loop_finish(&loop);
}

Test(event_loop, stops_from_another_thread)
{
    struct support_loop loop;
    support_loop_init(&loop);
    support_loop_run(&loop);
    support_loop_stop(&loop); /* joins: a loop that does not stop runs into Criterion's timeout */
    cr_assert(loop.loop.stopping);
    support_loop_finish(&loop);
}

Test(event_loop, a_stop_before_the_start_counts)
{
    struct support_loop loop;
    support_loop_init(&loop);
    event_loop_stop(&loop.loop);
    event_loop_run(&loop.loop);
    support_loop_finish(&loop);
}

Test(event_loop, a_stop_ends_the_loop_after_the_handler_it_is_in)
{
    struct support_loop loop;
    struct counted a;
    support_loop_init(&loop);
    counted_add(&a, &loop.loop);
    event_loop_change(&loop.loop, &a.source, EPOLLOUT); /* always ready */
    a.stop_after = 5;
    event_loop_run(&loop.loop);
    cr_assert_eq(a.calls, 5);
    close(a.source.fd);
    support_loop_finish(&loop);
}

Test(event_loop, finish_may_be_repeated)
{
    struct support_loop loop;
    support_loop_init(&loop);
    event_loop_finish(&loop.loop);
    event_loop_finish(&loop.loop);
    cr_assert_eq(loop.loop.epoll_fd, -1);
}

static void post(void *arg)
{
    eventfd_write(*(int *)arg, 1);
}

/* A timer that reports through an eventfd, on a loop with a thread. */
struct timer_test {
    struct support_loop loop;
    struct event_timer timer;
    int fired;
};

static void timer_test_init(struct timer_test *test)
{
    struct minivmm_error err;
    support_loop_init(&test->loop);
    test->fired = eventfd(0, EFD_NONBLOCK);
    cr_assert_eq(event_timer_init(&test->timer, &test->loop.loop, post, &test->fired, &err), 0);
}

static void timer_test_finish(struct timer_test *test)
{
    support_loop_stop(&test->loop);
    event_timer_finish(&test->timer);
    support_loop_finish(&test->loop);
    close(test->fired);
}

Test(event_timer, expires_once_for_each_time_it_is_set)
{
    struct timer_test test;
    timer_test_init(&test);
    support_loop_run(&test.loop);
    for (unsigned i = 0; i < 3; i++) {
        event_timer_set(&test.timer, 1);
        cr_assert(support_wait_readable(test.fired));
        cr_assert_eq(support_take(test.fired), 1);
    }
    timer_test_finish(&test);
}

Test(event_timer, setting_it_anew_replaces_the_old_time)
{
    struct timer_test test;
    timer_test_init(&test);
    support_loop_run(&test.loop);
    event_timer_set(&test.timer, 3600ull * 1000000000);
    event_timer_set(&test.timer, 1);
    cr_assert(support_wait_readable(test.fired));
    cr_assert_eq(support_take(test.fired), 1);
    timer_test_finish(&test);
}

Test(event_timer, disarmed_it_does_not_expire)
{
    struct timer_test test;
    struct event_timer later;
    int later_fired = eventfd(0, EFD_NONBLOCK);
    struct minivmm_error err;
    timer_test_init(&test);
    cr_assert_eq(event_timer_init(&later, &test.loop.loop, post, &later_fired, &err), 0);
    event_timer_set(&test.timer, 20000000);
    event_timer_set(&later, 60000000);
    event_timer_set(&test.timer, 0);
    support_loop_run(&test.loop);
    cr_assert(support_wait_readable(later_fired)); /* by now it would have expired */
    cr_assert_eq(support_take(test.fired), 0);
    timer_test_finish(&test);
    event_timer_finish(&later);
    close(later_fired);
}

Test(event_timer, an_expiry_that_was_overtaken_by_a_disarm_is_dropped)
{
    struct timer_test test;
    timer_test_init(&test);
    /* The loop has fetched the event, and then the timer is disarmed: as in a race, but surely. */
    event_timer_set(&test.timer, 1);
    cr_assert(support_wait_readable(test.timer.source.fd));
    event_timer_set(&test.timer, 0);
    test.timer.source.ready(&test.timer.source, EPOLLIN);
    cr_assert_eq(support_take(test.fired), 0);
    timer_test_finish(&test);
}
