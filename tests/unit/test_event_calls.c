/* Calls from other threads, and work that a handler puts off. */
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/unit/support.h"

SUITE(event_calls);

/* What ran, in which order, on which thread. */
struct record {
    struct event_loop *loop;
    unsigned count;
    char order[16];
    pthread_t thread;
};

static void note(struct record *r, char what)
{
    if (r->count < sizeof(r->order) - 1)
        r->order[r->count] = what;
    r->count++;
    r->thread = pthread_self();
}

static void run_at_once(struct event_call *call)
{
    struct record *r = call->arg;
    note(r, 'c');
    event_call_done(r->loop, call);
}

Test(event_calls, a_call_runs_on_the_loops_thread_while_its_caller_waits)
{
    struct support_loop loop;
    support_loop_init(&loop);
    loop.loop.has_thread = true;
    support_loop_run(&loop);
    struct record r = {.loop = &loop.loop};
    for (unsigned i = 1; i <= 100; i++) {
        struct event_call call = {.run = run_at_once, .arg = &r};
        event_loop_call(&loop.loop, &call);
        cr_assert_eq(r.count, i, "it has run");
        cr_assert(pthread_equal(r.thread, loop.thread));
    }
    support_loop_finish(&loop);
}

Test(event_calls, without_a_thread_it_runs_on_the_callers)
{
    struct support_loop loop;
    support_loop_init(&loop);
    struct record r = {.loop = &loop.loop};
    struct event_call call = {.run = run_at_once, .arg = &r};
    event_loop_call(&loop.loop, &call);
    cr_assert_eq(r.count, 1);
    cr_assert(pthread_equal(r.thread, pthread_self()));
    support_loop_finish(&loop);
}

/* A call that is done by a later handler. */
struct later {
    struct event_source source;
    struct event_loop *loop;
    struct event_call *call;
    unsigned handled;
};

static void later_ready(struct event_source *source, uint32_t events)
{
    struct later *later = source->arg;
    (void)events;
    support_take(source->fd);
    if (++later->handled == 3) {
        event_loop_remove(later->loop, source);
        event_call_done(later->loop, later->call);
    } else {
        eventfd_write(source->fd, 1);
    }
}

static void run_later(struct event_call *call)
{
    struct later *later = call->arg;
    later->call = call;
    cr_assert_eq(event_loop_add(later->loop, &later->source, EPOLLIN), 0);
    eventfd_write(later->source.fd, 1);
}

Test(event_calls, a_call_may_end_in_a_later_handler)
{
    for (unsigned threaded = 0; threaded < 2; threaded++) {
        struct support_loop loop;
        support_loop_init(&loop);
        struct later later = {.loop = &loop.loop,
                              .source = {.fd = eventfd(0, EFD_NONBLOCK), .ready = later_ready}};
        later.source.arg = &later;
        loop.loop.has_thread = threaded;
        if (threaded)
            support_loop_run(&loop);
        struct event_call call = {.run = run_later, .arg = &later};
        event_loop_call(&loop.loop, &call);
        cr_expect_eq(later.handled, 3);
        support_loop_finish(&loop);
        close(later.source.fd);
    }
}

struct caller {
    pthread_t thread;
    struct record *r;
    unsigned calls;
};

static void *call_often(void *arg)
{
    struct caller *caller = arg;
    for (unsigned i = 0; i < caller->calls; i++) {
        struct event_call call = {.run = run_at_once, .arg = caller->r};
        event_loop_call(caller->r->loop, &call);
    }
    return NULL;
}

Test(event_calls, many_callers_are_all_served_once)
{
    enum { CALLERS = 4, CALLS = 2000 };
    struct support_loop loop;
    struct caller callers[CALLERS];
    support_loop_init(&loop);
    loop.loop.has_thread = true;
    support_loop_run(&loop);
    struct record r = {.loop = &loop.loop};
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.r = &r, .calls = CALLS};
        cr_assert_eq(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    }
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_join(callers[i].thread, NULL);
    cr_expect_eq(r.count, CALLERS * CALLS);
    support_loop_finish(&loop);
}

/* ---- deferred ------------------------------------------------------------------------------ */

struct put_off {
    struct event_deferred deferred;
    struct record *r;
    char name;
    struct put_off *then; /* put off by this one when it runs */
};

static void put_off_runs(struct event_deferred *deferred)
{
    struct put_off *p = (struct put_off *)deferred;
    note(p->r, p->name);
    if (p->then) {
        event_loop_defer(p->r->loop, &p->then->deferred);
        p->then = NULL;
    }
}

static struct put_off put_off(struct record *r, char name)
{
    return (struct put_off){.deferred = {.run = put_off_runs}, .r = r, .name = name};
}

/* A handler that puts the same thing off several times. */
struct handler {
    struct event_source source;
    struct put_off *p;
    char name;
};

static void handler_ready(struct event_source *source, uint32_t events)
{
    struct handler *h = source->arg;
    (void)events;
    support_take(source->fd);
    for (unsigned i = 0; i < 3; i++)
        event_loop_defer(h->p->r->loop, &h->p->deferred);
    note(h->p->r, h->name);
}

Test(event_calls, deferred_work_runs_once_after_the_handler_that_asked)
{
    struct support_loop loop;
    struct handler handlers[2];
    support_loop_init(&loop);
    struct record r = {.loop = &loop.loop};
    struct put_off p = put_off(&r, 'd');
    for (unsigned i = 0; i < 2; i++) {
        handlers[i] =
            (struct handler){.source = {.fd = eventfd(1, EFD_NONBLOCK), .ready = handler_ready},
                             .p = &p,
                             .name = 'h'};
        handlers[i].source.arg = &handlers[i];
        cr_assert_eq(event_loop_add(&loop.loop, &handlers[i].source, EPOLLIN), 0);
    }
    event_loop_once(&loop.loop, 0);
    cr_expect_str_eq(r.order, "hdhd", "%s", r.order);
    event_loop_once(&loop.loop, 0);
    cr_expect_eq(r.count, 4, "and no more");
    for (unsigned i = 0; i < 2; i++)
        close(handlers[i].source.fd);
    support_loop_finish(&loop);
}

Test(event_calls, deferred_work_may_put_off_more)
{
    struct support_loop loop;
    support_loop_init(&loop);
    struct record r = {.loop = &loop.loop};
    struct put_off a = put_off(&r, 'a'), b = put_off(&r, 'b');
    a.then = &b;
    b.then = &a;
    event_loop_defer(&loop.loop, &a.deferred);
    event_loop_once(&loop.loop, 0);
    cr_expect_str_eq(r.order, "aba", "%s", r.order);
    support_loop_finish(&loop);
}

Test(event_calls, cancelled_work_does_not_run_and_can_be_put_off_again)
{
    struct support_loop loop;
    support_loop_init(&loop);
    struct record r = {.loop = &loop.loop};
    struct put_off p[3] = {put_off(&r, 'a'), put_off(&r, 'b'), put_off(&r, 'c')};
    for (unsigned gone = 0; gone < 3; gone++) {
        r = (struct record){.loop = &loop.loop};
        for (unsigned i = 0; i < 3; i++)
            event_loop_cancel(&loop.loop, &p[i].deferred); /* nothing is pending */
        for (unsigned i = 0; i < 3; i++)
            event_loop_defer(&loop.loop, &p[i].deferred);
        event_loop_cancel(&loop.loop, &p[gone].deferred);
        event_loop_cancel(&loop.loop, &p[gone].deferred);
        event_loop_once(&loop.loop, 0);
        cr_expect_eq(r.count, 2, "%u", gone);
        for (unsigned i = 0; i < 2; i++)
            cr_expect_neq(r.order[i], p[gone].name);
        event_loop_defer(&loop.loop, &p[gone].deferred);
        event_loop_once(&loop.loop, 0);
        cr_expect(r.count == 3 && r.order[2] == p[gone].name);
    }
    support_loop_finish(&loop);
}

static void run_and_put_off(struct event_call *call)
{
    struct put_off *p = call->arg;
    event_loop_defer(p->r->loop, &p->deferred);
    note(p->r, 'c');
    event_call_done(p->r->loop, call);
}

Test(event_calls, what_a_call_puts_off_has_run_without_a_thread_when_it_returns)
{
    struct support_loop loop;
    support_loop_init(&loop);
    struct record r = {.loop = &loop.loop};
    struct put_off p = put_off(&r, 'd');
    struct event_call call = {.run = run_and_put_off, .arg = &p};
    event_loop_call(&loop.loop, &call);
    cr_expect_str_eq(r.order, "cd", "%s", r.order);
    support_loop_finish(&loop);
}

static bool has_run(void *arg)
{
    return __atomic_load_n(&((struct record *)arg)->count, __ATOMIC_ACQUIRE) == 2;
}

Test(event_calls, what_a_call_puts_off_runs_soon_on_the_loops_thread)
{
    struct support_loop loop;
    support_loop_init(&loop);
    struct record r = {.loop = &loop.loop};
    struct put_off p = put_off(&r, 'd');
    loop.loop.has_thread = true;
    support_loop_run(&loop);
    struct event_call call = {.run = run_and_put_off, .arg = &p};
    event_loop_call(&loop.loop, &call);
    cr_expect(support_wait(has_run, &r), "without another event");
    support_loop_finish(&loop);
}

/* ---- bulk ---------------------------------------------------------------------------------- */

struct policies {
    struct event_loop *loop;
    bool bulk;
    int before, after;
};

static void look_at_policy(struct event_call *call)
{
    struct policies *p = call->arg;
    p->before = sched_getscheduler(0);
    if (p->bulk)
        event_loop_bulk(p->loop);
    p->after = sched_getscheduler(0);
    event_call_done(p->loop, call);
}

static struct policies policies(struct event_loop *loop, bool bulk)
{
    struct policies p = {.loop = loop, .bulk = bulk};
    struct event_call call = {.run = look_at_policy, .arg = &p};
    event_loop_call(loop, &call);
    return p;
}

Test(event_calls, bulk_makes_way_for_a_while_and_then_no_more)
{
    struct support_loop loop;
    support_loop_init(&loop);
    loop.loop.has_thread = true;
    support_loop_run(&loop);
    if (sched_getscheduler(0) != SCHED_OTHER)
        cr_skip_test("this process is scheduled in another way than usual");
    for (unsigned round = 0; round < 3; round++) {
        struct policies p = policies(&loop.loop, true);
        cr_expect_eq(p.before, SCHED_OTHER, "%u", round);
        cr_expect_eq(p.after, SCHED_BATCH, "%u", round);
        usleep(30000);
        cr_expect_eq(policies(&loop.loop, false).after, SCHED_OTHER, "%u", round);
    }
    /* A borrower changes the loop's thread, and not itself. */
    while (!event_loop_borrow(&loop.loop))
        usleep(100);
    event_loop_bulk(&loop.loop);
    event_loop_return(&loop.loop);
    cr_expect_eq(sched_getscheduler(0), SCHED_OTHER);
    cr_expect_eq(sched_getscheduler(loop.loop.thread_id), SCHED_BATCH);
    support_loop_finish(&loop);
}
