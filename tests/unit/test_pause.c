/* Pause and resume of devices under load: their drivers notice nothing. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/disk_faults.h"
#include "tests/unit/net_rig.h"
#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"

SUITE(pause);

#define CYCLES 1000u
#define BLOCK  4096u
#define BLOCKS 128u
#define WINDOW 12u /* requests at once */

/* ---- a disk -------------------------------------------------------------------------------- */

static struct virtio_rig rig;
static unsigned short random_state[3] = {3, 1, 4};

static unsigned pick(unsigned below)
{
    return (unsigned)(nrand48(random_state) % (long)below);
}

/* What the disk must hold: in each block, the number of the last write to it. */
struct disk_load {
    uint32_t versions[BLOCKS], last;
    struct {
        bool used, write;
        unsigned queue, block;
        uint16_t number;
    } slots[WINDOW];
    unsigned outstanding, done, held_by_pause;
};

static uint64_t buffer(unsigned slot)
{
    return RIG_FREE + (uint64_t)slot * BLOCK;
}

static void fill_words(unsigned slot, uint32_t value)
{
    uint32_t *at = virtio_rig_at(&rig, buffer(slot), BLOCK);
    for (unsigned i = 0; i < BLOCK / sizeof(*at); i++)
        at[i] = value;
}

static bool has_words(unsigned slot, uint32_t value)
{
    const uint32_t *at = virtio_rig_at(&rig, buffer(slot), BLOCK);
    for (unsigned i = 0; i < BLOCK / sizeof(*at); i++)
        if (at[i] != value)
            return false;
    return true;
}

/* One more request, of a block that no other one is about. */
static void send_one(struct disk_load *load, unsigned slot)
{
    unsigned block = pick(BLOCKS);
    for (unsigned i = 0; i < WINDOW; i++)
        if (load->slots[i].used && load->slots[i].block == block)
            return;
    bool write = pick(2);
    const struct piece data = {buffer(slot), BLOCK, !write};
    const struct blk_request request = {write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
                                        block * (BLOCK / 512), &data, 1};
    if (write)
        load->versions[block] = ++load->last;
    fill_words(slot, write ? load->last : UINT32_MAX);
    load->slots[slot].used = true;
    load->slots[slot].write = write;
    load->slots[slot].queue = pick(2);
    load->slots[slot].block = block;
    load->slots[slot].number = blk_driver_send(&rig.blk_driver, load->slots[slot].queue, &request);
    load->outstanding++;
}

static void finish_one(struct disk_load *load, unsigned queue, uint16_t number, uint8_t status)
{
    for (unsigned i = 0; i < WINDOW; i++) {
        if (!load->slots[i].used || load->slots[i].queue != queue ||
            load->slots[i].number != number)
            continue;
        cr_assert_eq(status, VIRTIO_BLK_S_OK);
        cr_assert(has_words(i, load->versions[load->slots[i].block]), "request %u, block %u: %s",
                  load->done, load->slots[i].block, load->slots[i].write ? "buffer" : "data");
        load->slots[i].used = false;
        load->outstanding--;
        load->done++;
        return;
    }
    cr_assert_fail("an answer to nothing");
}

static void take_finished(struct disk_load *load)
{
    uint16_t number;
    uint8_t status;
    for (unsigned queue = 0; queue < 2; queue++)
        while (blk_driver_take(&rig.blk_driver, queue, &number, &status))
            finish_one(load, queue, number, status);
}

static uint16_t used_index(unsigned queue)
{
    return blk_device(rig.blk)->queues[queue].ring.used->idx;
}

/* While the device is paused its memory does not change, and nothing that it took is open. */
static void check_paused(struct disk_load *load)
{
    uint16_t before[2] = {used_index(0), used_index(1)};
    sched_yield();
    for (unsigned queue = 0; queue < 2; queue++) {
        const struct virtq *ring = &blk_device(rig.blk)->queues[queue].ring;
        cr_assert_eq(ring->taken_count, 0);
        cr_assert_eq(used_index(queue), before[queue]);
        load->held_by_pause += (uint16_t)(ring->avail->idx - ring->next_avail);
    }
}

Test(pause, a_thousand_pauses_of_a_loaded_disk_lose_and_change_nothing)
{
    static struct disk_load load;
    const struct fault slow[] = {{.call = CALL_PREADV2, .times = FAULT_ALWAYS, .error = EAGAIN},
                                 {.call = CALL_PWRITEV2, .times = FAULT_ALWAYS, .error = EAGAIN}};

    for (unsigned way = 0; way < 3; way++) { /* served at once; by workers; a loop without thread */
        const struct virtio_rig_config config = {.threaded = way < 2,
                                                 .blk = {.queues = 2, .queue_size = 64}};
        struct minivmm_error err;
        memset(&load, 0, sizeof(load));
        faults_set(NULL, 0);
        cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
        cr_assert(virtio_rig_start(&rig, UINT64_MAX, 0));
        if (way == 1)
            faults_set(slow, COUNT(slow));
        for (unsigned cycle = 0; cycle < CYCLES; cycle++) {
            for (unsigned n = pick(WINDOW); n > 0; n--) {
                unsigned slot = pick(WINDOW);
                if (!load.slots[slot].used)
                    send_one(&load, slot);
            }
            virtio_driver_kick(&rig.blk_driver.v, 0);
            if (pick(2))
                virtio_driver_kick(&rig.blk_driver.v, 1);
            virtio_hold(blk_device(rig.blk), VIRTIO_HOLD_PAUSE);
            if (pick(4) == 0)
                virtio_hold(blk_device(rig.blk), VIRTIO_HOLD_PAUSE);
            check_paused(&load);
            virtio_release(blk_device(rig.blk), VIRTIO_HOLD_PAUSE);
            if (pick(4) == 0)
                virtio_release(blk_device(rig.blk), VIRTIO_HOLD_PAUSE);
            if (!config.threaded)
                virtio_driver_settle(&rig.blk_driver.v);
            take_finished(&load);
        }
        for (unsigned slot = 0; slot < WINDOW; slot++) {
            uint16_t number;
            uint8_t status;
            while (load.slots[slot].used) {
                unsigned queue = load.slots[slot].queue;
                cr_assert(blk_driver_wait(&rig.blk_driver, queue, &number, &status), "it hangs");
                finish_one(&load, queue, number, status);
            }
        }
        cr_expect_gt(load.done, CYCLES);
        cr_expect_gt(load.held_by_pause, 0, "no pause found anything under way");
        faults_set(NULL, 0);
        cr_expect(virtio_rig_works(&rig), "the canary");
        virtio_rig_finish(&rig);
    }
}

Test(pause, a_change_of_configuration_while_paused_is_told_after_it)
{
    const struct virtio_rig_config config = {.no_disk = true};
    struct minivmm_error err;

    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    cr_assert(virtio_rig_start(&rig, UINT64_MAX, 0));
    struct virtio_driver *v = &rig.rng_driver;
    while (virtio_driver_interrupted(v))
        continue;
    v->reasons = 0;
    virtio_hold(&rig.rng.dev, VIRTIO_HOLD_PAUSE);
    virtio_config_begin(&rig.rng.dev);
    virtio_config_end(&rig.rng.dev);
    virtio_release(&rig.rng.dev, VIRTIO_HOLD_PAUSE);
    cr_expect(virtio_driver_wait_interrupt(v));
    cr_expect(v->reasons & VIRTIO_MMIO_INT_CONFIG);
    virtio_rig_finish(&rig);
}

Test(pause, a_device_without_a_driver_stays_as_it_is)
{
    const struct virtio_rig_config config = {.no_disk = true};
    struct minivmm_error err;

    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    virtio_hold(&rig.rng.dev, VIRTIO_HOLD_PAUSE);
    virtio_release(&rig.rng.dev, VIRTIO_HOLD_PAUSE);
    cr_expect_not(rig.rng.dev.running);
    cr_expect_eq(virtio_driver_read(&rig.rng_driver, VIRTIO_MMIO_STATUS), 0);
    cr_expect(virtio_rig_works(&rig));
    virtio_rig_finish(&rig);
}

/* ---- a network interface ------------------------------------------------------------------- */

static struct net_rig net;

Test(pause, a_thousand_pauses_of_a_loaded_interface_lose_no_frame)
{
    static uint8_t frame[NET_PACKET_MAX], got[NET_PACKET_MAX];
    const size_t length = 300;

    for (unsigned threaded = 0; threaded < 2; threaded++) {
        const struct net_rig_config config = {.kind = NET_RIG_STREAM, .threaded = threaded};
        uint32_t in_sent = 0, in_got = 0, out_sent = 0, out_got = 0;
        net_rig_init(&net, &config);
        struct net_driver *d = &net.driver;
        cr_assert(net_driver_start(d, UINT64_MAX, 0));
        net_driver_add(d, 0, 64, 2048);
        for (unsigned cycle = 0; cycle < CYCLES; cycle++) {
            for (unsigned n = pick(6); n > 0 && in_sent - in_got < 60; n--) {
                net_rig_frame(frame, length, net_rig_mac, in_sent);
                in_sent += net_rig_far_send(&net, frame, length);
            }
            for (unsigned n = pick(6); n > 0 && out_sent - out_got < 12; n--) {
                net_rig_frame(frame, length, net_rig_broadcast, out_sent++);
                net_driver_offer(d, 0, NULL, frame, (uint32_t)length);
            }
            virtio_driver_kick(&d->v, 1);
            virtio_hold(net_device(net.net), VIRTIO_HOLD_PAUSE);
            cr_assert_eq(net_device(net.net)->queues[0].ring.taken_count, 0, "the window");
            virtio_release(net_device(net.net), VIRTIO_HOLD_PAUSE);
            virtio_driver_settle(&d->v);
            net_driver_sent(d, 0);
            for (int size; (size = net_driver_take(d, 0, got)) >= 0; in_got++) {
                cr_assert(net_rig_is_frame(got, size, length, in_got), "in: frame %u", in_got);
                net_driver_add(d, 0, 1, 2048);
            }
            for (int size; (size = net_rig_far_receive(&net, got, false)) >= 0; out_got++)
                cr_assert(net_rig_is_frame(got, size, length, out_got), "out: frame %u", out_got);
        }
        for (; in_got < in_sent; in_got++) {
            int size = net_driver_receive(d, 0, got);
            cr_assert(net_rig_is_frame(got, size, length, in_got), "in: frame %u", in_got);
        }
        for (; out_got < out_sent; out_got++) {
            int size = net_rig_far_receive(&net, got, true);
            cr_assert(net_rig_is_frame(got, size, length, out_got), "out: frame %u", out_got);
        }
        cr_expect(in_sent > CYCLES && out_sent > CYCLES);
        cr_expect_null(d->fault, "%s", d->fault);
        net_rig_finish(&net);
    }
}
