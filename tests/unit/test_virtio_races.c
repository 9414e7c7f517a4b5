/*
 * Several processors at a device while its loop serves it: configuration that changes while it is
 * read (A18), memory that changes while it is used (B17), notifications from everywhere (B19, B20).
 */
#include <string.h>
#include <sys/eventfd.h>

#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"
#include "vmm/clock.h"

SUITE(virtio_races);

#define BUF      RIG_FREE
#define SLICE_NS (NS_PER_SECOND / 2)

static struct virtio_rig rig;
static bool stop;

static void begin(struct virtio_rig_config config)
{
    struct minivmm_error err;
    config.threaded = true;
    stop = false;
    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    cr_assert(virtio_rig_start(&rig, UINT64_MAX, 0));
}

static void end(void)
{
    cr_expect(virtio_rig_works(&rig), "the canary");
    virtio_rig_finish(&rig);
}

static bool stopped(void)
{
    return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static void join(pthread_t *threads, unsigned count)
{
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

/* ---- A18 ----------------------------------------------------------------------------------- */

/* The host resizes: both halves of the capacity are the same number at every moment. */
static void *resize(void *arg)
{
    struct virtio_dev *dev = arg;
    for (uint32_t n = 1; !stopped(); n++) {
        virtio_config_begin(dev);
        memcpy(dev->config, &n, 4);
        for (volatile int i = 0; i < 50; i++)
            continue;
        memcpy(dev->config + 4, &n, 4);
        virtio_config_end(dev);
    }
    return NULL;
}

Test(virtio_races, A18_S25_a_read_that_the_generation_vouches_for_is_not_torn)
{
    begin((struct virtio_rig_config){0});
    struct virtio_driver *v = &rig.blk_driver.v;
    struct virtio_dev *dev = blk_device(rig.blk);
    uint64_t capacity = virtio_driver_config(v, 0, 8);
    unsigned vouched = 0, changed = 0;
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, resize, dev), 0);
    while (virtio_driver_config(v, 0, 8) == capacity)
        continue;
    for (uint64_t start = clock_now_ns(); clock_now_ns() - start < SLICE_NS;) {
        uint32_t before = virtio_driver_read(v, VIRTIO_MMIO_CONFIG_GENERATION);
        uint64_t value = virtio_driver_config(v, 0, 8);
        if (virtio_driver_read(v, VIRTIO_MMIO_CONFIG_GENERATION) != before) {
            changed++;
            continue;
        }
        vouched++;
        cr_assert_eq((uint32_t)value, (uint32_t)(value >> 32), "torn");
    }
    join(&thread, 1);
    cr_expect(vouched > 0 && changed > 0, "%u, %u", vouched, changed);
    cr_expect(virtio_driver_interrupted(v), "S25: the driver is told");
    cr_expect(v->reasons & VIRTIO_MMIO_INT_CONFIG);
    memcpy(dev->config, &capacity, sizeof(capacity));
    end();
}

Test(virtio_races, A18_a_change_is_told_once_the_driver_runs)
{
    begin((struct virtio_rig_config){0});
    struct virtio_driver *v = &rig.blk_driver.v;
    struct virtio_dev *dev = blk_device(rig.blk);
    uint32_t generation = virtio_driver_read(v, VIRTIO_MMIO_CONFIG_GENERATION);
    virtio_config_begin(dev);
    virtio_config_end(dev);
    cr_expect_neq(virtio_driver_read(v, VIRTIO_MMIO_CONFIG_GENERATION), generation);
    cr_expect(virtio_driver_interrupted(v) && v->reasons == VIRTIO_MMIO_INT_CONFIG);
    cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
    virtio_config_begin(dev);
    virtio_config_end(dev);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_INTERRUPT_STATUS), 0, "not before DRIVER_OK");
    cr_expect_not(virtio_driver_interrupted(v));
    end();
}

/* The driver is told of a change, which takes its time, while it resets the device. */
static struct told {
    void (*interrupt)(struct virtio_dev *dev, const struct virtio_queue *queue);
    bool begun, reset; /* atomic: it is being told; the reset is over */
    bool late;         /* and was, before it had been told */
} told;

static void tell_slowly(struct virtio_dev *dev, const struct virtio_queue *queue)
{
    __atomic_store_n(&told.begun, true, __ATOMIC_RELEASE);
    for (uint64_t start = clock_now_ns(); clock_now_ns() - start < SLICE_NS / 5;)
        told.late |= __atomic_load_n(&told.reset, __ATOMIC_ACQUIRE);
    if (told.interrupt)
        told.interrupt(dev, queue);
    else
        eventfd_write(dev->call, 1);
}

static void *change_once(void *arg)
{
    virtio_config_begin(arg);
    virtio_config_end(arg);
    return NULL;
}

Test(virtio_races, A18_nobody_is_told_of_a_change_once_a_reset_is_over)
{
    begin((struct virtio_rig_config){0});
    struct virtio_driver *v = &rig.blk_driver.v;
    struct virtio_dev *dev = blk_device(rig.blk);
    pthread_t thread;

    virtio_driver_settle(v);
    told = (struct told){.interrupt = dev->interrupt};
    dev->interrupt = tell_slowly;
    cr_assert_eq(pthread_create(&thread, NULL, change_once, dev), 0);
    while (!__atomic_load_n(&told.begun, __ATOMIC_ACQUIRE))
        continue;
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, 0);
    __atomic_store_n(&told.reset, true, __ATOMIC_RELEASE);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    join(&thread, 1);
    cr_expect_not(told.late, "2.4.1");
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_INTERRUPT_STATUS), 0, "4.2.2.1");
    dev->interrupt = told.interrupt;
    virtio_driver_reset(v);
    end();
}

/* ---- B17 ----------------------------------------------------------------------------------- */

struct scribbler {
    uint64_t gpa;
    unsigned size;
    unsigned short random[3];
};

static void *scribble(void *arg)
{
    struct scribbler *s = arg;
    volatile uint8_t *at = virtio_rig_at(&rig, s->gpa, s->size);
    while (!stopped()) {
        unsigned i = (unsigned)nrand48(s->random) % s->size;
        uint8_t old = at[i];
        at[i] = (uint8_t)nrand48(s->random);
        if (nrand48(s->random) % 4)
            at[i] = old;
    }
    return NULL;
}

/* Another processor writes over what the device is reading; both sides go on for a while. */
static void run_scribbled(bool descriptors)
{
    begin((struct virtio_rig_config){0});
    struct blk_driver *d = &rig.blk_driver;
    uint64_t until = clock_now_ns() + SLICE_NS;
    unsigned starts = 0;

    while (clock_now_ns() < until) {
        const struct virtio_blk_discard_write_zeroes range = {0, 8, 0};
        struct scribbler s = {d->v.queues[0].config.desc, 16 * 12, {(unsigned short)starts, 1, 2}};
        pthread_t thread;
        if (!descriptors)
            s.gpa = d->controls, s.size = 24; /* the header; the status byte lies behind it */
        stop = false;
        cr_assert_eq(pthread_create(&thread, NULL, scribble, &s), 0);
        for (unsigned i = 0; i < 40; i++) {
            const struct piece data = {BUF, 4096, i % 2};
            const struct blk_request requests[] = {{VIRTIO_BLK_T_IN, 0, &data, 1},
                                                   {VIRTIO_BLK_T_OUT, 8, &data, 1},
                                                   {VIRTIO_BLK_T_WRITE_ZEROES, 0, &data, 1},
                                                   {VIRTIO_BLK_T_FLUSH, 0, NULL, 0}};
            fake_driver_write(&d->v.queues[0], BUF, &range, sizeof(range));
            d->indirect = i % 3 == 0;
            blk_driver_forget(d); /* the same header again and again */
            if (d->v.queues[0].free_count < 4)
                break;
            blk_driver_send(d, 0, &requests[i % 4]);
            virtio_driver_notify(&d->v, 0);
        }
        virtio_driver_settle(&d->v);
        join(&thread, 1);
        cr_assert(virtio_driver_start(&d->v, UINT64_MAX, 0));
        blk_driver_forget(d);
        starts++;
    }
    d->indirect = false;
    cr_expect_gt(starts, 1);
    end();
}

Test(virtio_races, B17_descriptors_that_change_while_they_are_read)
{
    run_scribbled(true);
}

Test(virtio_races, B17_headers_that_change_while_they_are_read)
{
    run_scribbled(false);
}

/* ---- B19, B20 ------------------------------------------------------------------------------ */

static void *storm(void *arg)
{
    unsigned short random[3] = {(unsigned short)(uintptr_t)arg, 3, 5};
    while (!stopped()) {
        const struct virtio_driver *v = nrand48(random) % 2 ? &rig.rng_driver : &rig.blk_driver.v;
        virtio_driver_notify(v, (uint32_t)nrand48(random) % 4);
    }
    return NULL;
}

/* From two processors, to every queue there is and some there are not; resets answer meanwhile. */
Test(virtio_races, B20_notifications_without_end)
{
    pthread_t threads[2];
    begin((struct virtio_rig_config){.blk = {.queues = 2, .queue_size = 64}});
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, storm, (void *)(uintptr_t)i), 0);
    uint64_t longest = 0;
    for (unsigned i = 0; i < 20; i++) {
        cr_expect(virtio_rig_answers(&rig), "%u", i);
        uint64_t start = clock_now_ns();
        virtio_driver_reset(&rig.blk_driver.v);
        uint64_t took = clock_now_ns() - start;
        longest = took > longest ? took : longest;
    }
    join(threads, 2);
    cr_expect(virtio_rig_works(&rig));
    cr_expect_lt(longest, NS_PER_SECOND, "P1: %llu us", (unsigned long long)longest / 1000);
    end();
}

/* Both sides fall asleep and wake all the time: a wake-up that is lost is a timeout here. */
Test(virtio_races, B19_no_wakeup_is_lost)
{
    for (unsigned event_idx = 0; event_idx < 2; event_idx++) {
        uint64_t features = event_idx ? UINT64_MAX : ~FEATURE(VIRTIO_RING_F_EVENT_IDX);
        unsigned requests = 0;
        begin((struct virtio_rig_config){.no_disk = true});
        struct virtio_driver *v = &rig.rng_driver;
        cr_assert(virtio_driver_start(v, features, 16));
        for (uint64_t start = clock_now_ns(); clock_now_ns() - start < SLICE_NS; requests++) {
            struct piece piece = {BUF, 1, true};
            struct vring_used_elem element;
            unsigned burst = 1 + requests % 5;
            for (unsigned i = 0; i < burst; i++) {
                fake_driver_send(&v->queues[0], &piece, 1);
                virtio_driver_kick(v, 0);
            }
            for (unsigned i = 0; i < burst; i++)
                cr_assert(virtio_driver_wait(v, 0, &element), "lost after %u", requests);
        }
        cr_expect_gt(requests, 100);
        end();
    }
}
