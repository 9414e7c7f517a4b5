/* No lost wake-up: driver and device asleep at the same time means that nothing is left to do. */
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/unit/queue.h"
#include "tests/unit/support.h"

SUITE(virtq_wakeups);

#define STEPS 1000000u

/* Both sides as little machines that take one step at a time, in any order. */
struct sides {
    struct queue t;
    struct virtq_chain held[3]; /* taken, not yet given back */
    unsigned held_count;
    bool kick, irq;     /* on the wires */
    bool undecided;     /* the driver has published, and not yet looked whether to kick */
    bool unsignalled;   /* the device has given back, and not yet looked whether to interrupt */
    bool device_sleeps; /* until a kick */
    bool driver_sleeps; /* until an interrupt, though it may send */
    unsigned sent, kicks, irqs;
};

static uint32_t random_number(void)
{
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

static void driver_step(struct sides *s)
{
    const struct piece piece = {RAM_A, 8, true};
    struct fake_driver *d = &s->t.driver;
    struct vring_used_elem element;

    if (s->undecided) {
        bool kick = fake_driver_kick_due(d);
        s->kick |= kick;
        s->kicks += kick;
        s->undecided = false;
    } else if (d->free_count > 0 && random_number() % 2) {
        for (uint32_t n = 1 + random_number() % d->free_count; n > 0; n--, s->sent++)
            fake_driver_offer(d, fake_driver_add(d, &piece, 1));
        fake_driver_publish(d);
        s->undecided = true;
    } else if (s->driver_sleeps) {
        if (s->irq && !d->config.event_idx)
            fake_driver_set_avail_flags(d, VRING_AVAIL_F_NO_INTERRUPT);
        s->driver_sleeps = !s->irq;
        s->irq = false;
    } else if (!fake_driver_take(d, &element)) {
        s->driver_sleeps = !fake_driver_sleep(d);
    }
}

static void device_step(struct sides *s)
{
    struct virtq *q = &s->t.q;
    uint32_t choice = random_number() % 4;

    if (s->unsignalled && choice == 0) {
        bool irq = virtq_wants_irq(q);
        s->irq |= irq;
        s->irqs += irq;
        s->unsignalled = false;
    } else if (s->held_count > 0 && (choice == 1 || s->held_count == COUNT(s->held))) {
        uint32_t which = random_number() % s->held_count;
        virtq_done(q, &s->held[which], 8);
        s->held[which] = s->held[--s->held_count];
        s->unsignalled = true;
    } else if (s->device_sleeps) {
        s->device_sleeps = !s->kick;
        s->kick = false;
    } else {
        struct virtq_chain *chain = &s->held[s->held_count];
        static struct iovec iov[COUNT(s->held)];
        *chain = (struct virtq_chain){.iov = &iov[s->held_count], .capacity = 1};
        int rc = virtq_next(q, chain);
        if (rc < 0)
            cr_assert_fail("broken");
        if (rc == 1 && choice == 2)
            virtq_undo(q, chain);
        else if (rc == 1)
            s->held_count++;
        else
            s->device_sleeps = !virtq_idle(q);
    }
}

static void interleave(uint32_t size, bool event_idx, uint16_t first)
{
    struct sides s;
    memset(&s, 0, sizeof(s));
    queue_init_at(&s.t, size, false, event_idx, first);
    virtq_idle(&s.t.q);
    s.device_sleeps = true;
    for (unsigned i = 0; i < STEPS / 4; i++) {
        if (random_number() % 2)
            driver_step(&s);
        else
            device_step(&s);
        if (s.device_sleeps && !s.kick && !s.undecided && s.t.q.next_avail != s.t.driver.published)
            cr_assert_fail("kick lost at step %u", i);
        if (s.driver_sleeps && !s.irq && !s.unsignalled && s.t.q.next_used != s.t.driver.used_seen)
            cr_assert_fail("interrupt lost at step %u", i);
    }
    cr_expect_gt(s.sent, STEPS / 1000);
    cr_expect_lt(s.kicks, s.sent);
    queue_finish(&s.t);
}

Test(virtq_wakeups, B19_none_lost_in_any_order)
{
    static const uint32_t sizes[] = {1, 2, 4, 256};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        interleave(sizes[i], true, (uint16_t)(65000 + i));
        interleave(sizes[i], false, (uint16_t)(65000 + i));
    }
}

/* ---- two threads, two eventfds -------------------------------------------------------------- */

#define REQUESTS   1000000u
#define PATIENCE   100000 /* ms without a wake-up: one was lost */
#define RING       64u
#define SLOT(head) (RAM_A + 64ull * (head))

struct wires {
    struct queue t;
    int kick, call;
    unsigned served, received;
    const char *device_failed, *driver_failed;
};

/* Wait for an eventfd; false when there was nothing for too long. */
static bool wait_for(int fd)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    eventfd_t value;
    return poll(&pfd, 1, PATIENCE) == 1 && eventfd_read(fd, &value) == 0;
}

/* Answers ~n to request n, and expects them in order. */
static void *device_thread(void *arg)
{
    struct wires *w = arg;
    struct virtq *q = &w->t.q;

    while (w->served < REQUESTS) {
        if (!wait_for(w->kick)) {
            w->device_failed = "a kick was lost";
            break;
        }
        do {
            int rc;
            while ((rc = virtq_next(q, &w->t.chain)) == 1) {
                uint64_t number;
                memcpy(&number, w->t.chain.rd.iov[0].iov_base, sizeof(number));
                if (number != w->served++)
                    w->device_failed = "a request is missing, or comes twice";
                number = ~number;
                memcpy(w->t.chain.wr.iov[0].iov_base, &number, sizeof(number));
                virtq_done(q, &w->t.chain, sizeof(number));
                if (w->served % 16 == 0 && virtq_wants_irq(q))
                    eventfd_write(w->call, 1);
            }
            if (rc < 0)
                w->device_failed = "the queue is broken";
            if (virtq_wants_irq(q))
                eventfd_write(w->call, 1);
        } while (virtq_idle(q));
    }
    return NULL;
}

static bool reap(struct wires *w, uint64_t number_of[RING])
{
    struct vring_used_elem element;
    bool any = false;
    for (; fake_driver_take(&w->t.driver, &element); any = true, w->received++) {
        uint64_t answer;
        fake_driver_read(&w->t.driver, SLOT(element.id) + 8, &answer, sizeof(answer));
        if (element.len != 8 || answer != ~number_of[element.id])
            w->driver_failed = "a wrong answer";
        number_of[element.id] = 0;
    }
    return any;
}

static void drive(struct wires *w)
{
    struct fake_driver *d = &w->t.driver;
    uint64_t number_of[RING], sent = 0;

    while (w->received < REQUESTS && !w->driver_failed && !w->device_failed) {
        bool busy = false;
        for (; sent < REQUESTS && d->free_count >= 2; sent++, busy = true) {
            uint64_t slot = SLOT(d->free_head);
            const struct piece pieces[] = {{slot, 8, false}, {slot + 8, 8, true}};
            number_of[d->free_head] = sent;
            fake_driver_write(d, slot, &sent, sizeof(sent));
            fake_driver_offer(d, fake_driver_add(d, pieces, 2));
        }
        if (busy) {
            fake_driver_publish(d);
            if (fake_driver_kick_due(d))
                eventfd_write(w->kick, 1);
        }
        if (reap(w, number_of) || busy || fake_driver_sleep(d))
            continue;
        if (!wait_for(w->call))
            w->driver_failed = "an interrupt was lost";
        if (!d->config.event_idx)
            fake_driver_set_avail_flags(d, VRING_AVAIL_F_NO_INTERRUPT);
    }
}

static void two_threads(bool event_idx)
{
    static struct wires w;
    pthread_t thread;
    queue_init(&w.t, RING, false, event_idx);
    w.kick = eventfd(0, EFD_CLOEXEC);
    w.call = eventfd(0, EFD_CLOEXEC);
    cr_assert_eq(pthread_create(&thread, NULL, device_thread, &w), 0);
    drive(&w);
    pthread_join(thread, NULL);
    cr_expect_null(w.device_failed, "%s", w.device_failed);
    cr_expect_null(w.driver_failed, "%s", w.driver_failed);
    cr_expect_eq(w.served, REQUESTS);
    cr_expect_eq(w.received, REQUESTS);
    close(w.kick);
    close(w.call);
    queue_finish(&w.t);
}

Test(virtq_wakeups, S16_B19_two_threads_with_event_idx)
{
    two_threads(true);
}

Test(virtq_wakeups, S16_B19_two_threads_without_event_idx)
{
    two_threads(false);
}
