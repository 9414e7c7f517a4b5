/*
 * Both sides at the very same moment: one falls asleep while the other publishes. Each stores and
 * then reads what the other stores, so that at least one of them must see the other
 * (2.7.7, 2.7.10).
 */
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "tests/unit/queue.h"
#include "tests/unit/support.h"

SUITE(virtq_races);

#define ROUNDS  1000000u
#define SECONDS 2 /* fewer rounds where the two threads cannot run side by side */

struct race {
    struct queue t;
    unsigned arrived; /* at the barrier, both sides, free-running */
    bool stop;        /* agreed on at the barrier */
    bool device_knows, broken;
};

/* Both go on within nanoseconds of one another, one of them by a few `steps` later. */
static void meet(struct race *r, unsigned steps)
{
    unsigned number = __atomic_add_fetch(&r->arrived, 1, __ATOMIC_ACQ_REL);
    unsigned both = (number + 1) / 2 * 2;
    for (unsigned spins = 0; (int)(__atomic_load_n(&r->arrived, __ATOMIC_ACQUIRE) - both) < 0;)
        if (++spins % 4096 == 0)
            sched_yield();
    for (unsigned i = 0; i < steps; i++)
        __asm__ volatile("" ::: "memory");
}

static void *device_side(void *arg)
{
    struct race *r = arg;
    for (unsigned round = 0;; round++) {
        meet(r, round % 61);
        if (r->stop)
            return NULL;
        r->device_knows = virtq_idle(&r->t.q);
        meet(r, 0);
        if (virtq_next(&r->t.q, &r->t.chain) != 1)
            __atomic_store_n(&r->broken, true, __ATOMIC_RELAXED);
        meet(r, round % 53);
        if (!r->broken)
            virtq_done(&r->t.q, &r->t.chain, round % 7);
        r->device_knows = virtq_wants_irq(&r->t.q);
        meet(r, 0);
    }
}

static void race(uint32_t size, bool event_idx)
{
    const struct piece piece = {RAM_A, 8, true};
    static struct race r;
    struct timespec now, end;
    unsigned rounds = 0, kicks_lost = 0, irqs_lost = 0, stale = 0;
    pthread_t thread;

    memset(&r, 0, sizeof(r));
    queue_init_at(&r.t, size, false, event_idx, 65000);
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += SECONDS;
    cr_assert_eq(pthread_create(&thread, NULL, device_side, &r), 0);
    for (; rounds < ROUNDS; rounds++) {
        struct vring_used_elem element = {.id = size};
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec > end.tv_sec || r.broken)
            break;
        if (!event_idx)
            fake_driver_set_avail_flags(&r.t.driver, VRING_AVAIL_F_NO_INTERRUPT);
        uint16_t head = fake_driver_add(&r.t.driver, &piece, 1);
        fake_driver_offer(&r.t.driver, head);

        meet(&r, rounds % 47); /* the device sleeps, the driver publishes */
        fake_driver_publish(&r.t.driver);
        bool kick = fake_driver_kick_due(&r.t.driver);
        meet(&r, 0);
        kicks_lost += !kick && !r.device_knows;

        meet(&r, rounds % 43); /* the driver sleeps, the device gives back */
        bool driver_knows = fake_driver_sleep(&r.t.driver);
        while (!fake_driver_take(&r.t.driver, &element)) /* S16: it is there with its index */
            if (__atomic_load_n(&r.broken, __ATOMIC_RELAXED))
                break;
        meet(&r, 0);
        irqs_lost += !driver_knows && !r.device_knows;
        stale += element.id != head || element.len != rounds % 7;
    }
    r.stop = true;
    meet(&r, 0);
    pthread_join(thread, NULL);
    cr_expect_not(r.broken);
    cr_expect_eq(kicks_lost, 0, "%u of %u kicks", kicks_lost, rounds);
    cr_expect_eq(stale, 0, "%u of %u elements", stale, rounds);
    cr_expect_eq(irqs_lost, 0, "%u of %u interrupts", irqs_lost, rounds);
    queue_finish(&r.t);
}

Test(virtq_races, B19_none_lost_at_the_same_moment_with_event_idx)
{
    race(4, true); /* all in one cache line */
    race(64, true);
}

Test(virtq_races, B19_none_lost_at_the_same_moment_without_event_idx)
{
    race(4, false);
    race(64, false);
}
