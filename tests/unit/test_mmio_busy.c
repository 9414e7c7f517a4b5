/*
 * How much of a notification and of an interrupt leaves the guest: what is served on the spot, what
 * is the loop's, and when a doorbell in the kernel is asked for.
 */
#include <string.h>

#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"
#include "virtio/local.h"

SUITE(mmio_busy);

static struct virtio_rig rig;
static struct virtio_driver *v;
static struct virtio_mmio *mmio;
static unsigned busy_calls, busy_index, interrupted_calls;

static void note_busy(void *arg, struct virtio_mmio *from, unsigned index)
{
    cr_expect_eq(arg, &rig);
    cr_expect_eq(from, mmio);
    busy_calls++;
    busy_index = index;
}

static void note_interrupted(void *arg, struct virtio_mmio *from)
{
    cr_expect_eq(arg, &rig);
    interrupted_calls++;
    virtio_acknowledged(from->dev);
}

static void begin(bool threaded)
{
    struct minivmm_error err;
    const struct virtio_rig_config config = {.no_disk = true, .threaded = threaded};
    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    v = &rig.rng_driver;
    mmio = &rig.slots[RIG_SLOT_RNG];
    mmio->busy = note_busy;
    mmio->interrupted = note_interrupted;
    mmio->arg = &rig;
    busy_calls = interrupted_calls = 0;
    busy_index = UINT32_MAX;
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    virtio_driver_settle(v);
}

static void end(void)
{
    cr_expect(virtio_rig_works(&rig), "the canary");
    virtio_rig_finish(&rig);
}

/* Offer so many requests of a byte each, and notify. */
static void send(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct piece piece = {RIG_FREE + i, 1, true};
        fake_driver_send(&v->queues[0], &piece, 1);
    }
    virtio_driver_notify(v, 0);
}

static unsigned take_all(void)
{
    struct vring_used_elem element;
    unsigned count = 0;
    while (fake_driver_take(&v->queues[0], &element))
        count++;
    return count;
}

Test(mmio_busy, a_little_is_served_before_the_notification_returns)
{
    begin(false); /* nobody runs the loop here */
    for (unsigned i = 0; i < 3 * VIRTIO_MMIO_BUSY; i++) {
        send(1 + i % LOCAL_LITTLE);
        cr_assert_eq(take_all(), 1 + i % LOCAL_LITTLE);
    }
    cr_expect_eq(busy_calls, 0, "no doorbell for what is served on the spot");
    end();
}

Test(mmio_busy, more_than_a_little_is_the_loops)
{
    begin(false);
    send(LOCAL_LITTLE + 1);
    cr_expect_eq(take_all(), 0);
    event_loop_once(&rig.loop, 0);
    cr_expect_eq(take_all(), LOCAL_LITTLE + 1);
    end();
}

Test(mmio_busy, notifications_that_find_the_loop_at_work_ask_for_a_doorbell)
{
    begin(false);
    cr_assert(event_loop_borrow(&rig.loop)); /* it is at work, so far as anybody can tell */
    for (unsigned i = 1; i <= 3 * VIRTIO_MMIO_BUSY; i++) {
        virtio_driver_notify(v, 0);
        cr_assert_eq(busy_calls, i >= VIRTIO_MMIO_BUSY, "%u", i);
    }
    cr_expect_eq(busy_index, 0);
    send(1);
    event_loop_return(&rig.loop);
    cr_expect_eq(take_all(), 0);
    event_loop_once(&rig.loop, 0);
    cr_expect_eq(take_all(), 1, "none of them was lost");
    end();
}

Test(mmio_busy, notifications_that_mean_nothing_ask_for_nothing)
{
    begin(false);
    virtio_driver_reset(v);
    for (unsigned i = 0; i < 3 * VIRTIO_MMIO_BUSY; i++) {
        virtio_driver_notify(v, 0);
        virtio_driver_notify(v, 1);
        virtio_driver_notify(v, UINT32_MAX);
    }
    cr_expect_eq(busy_calls, 0);
    end();
}

Test(mmio_busy, many_interrupts_are_acknowledged_elsewhere)
{
    begin(false);
    for (unsigned i = 1; i <= 2 * VIRTIO_MMIO_BUSY_INTERRUPTS; i++) {
        virtio_driver_write(v, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
        cr_assert_eq(interrupted_calls, i >= VIRTIO_MMIO_BUSY_INTERRUPTS, "%u", i);
    }
    /* from then on nobody clears the bit of used buffers, so it stays; the other one is kept */
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    virtio_config_begin(&rig.rng.dev);
    virtio_config_end(&rig.rng.dev);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_INTERRUPT_STATUS),
                 VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
    virtio_driver_write(v, VIRTIO_MMIO_INTERRUPT_ACK,
                        VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    end();
}

Test(mmio_busy, a_loop_with_a_thread_and_its_borrower_lose_nothing)
{
    enum { REQUESTS = 20000 };
    unsigned sent = 0, done = 0;

    begin(true);
    while (done < REQUESTS) {
        unsigned count = 1 + sent % 5;
        if (sent - done + count <= 40) {
            send(count);
            sent += count;
        }
        struct vring_used_elem element;
        if (sent - done > 30)
            done += virtio_driver_wait(v, 0, &element);
        done += take_all();
    }
    while (done < sent) {
        struct vring_used_elem element;
        cr_assert(virtio_driver_wait(v, 0, &element));
        done++;
    }
    cr_expect_eq(done, sent);
    end();
}
