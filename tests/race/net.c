/*
 * A network device without a VM: a driver sends packets in bulk and small ones in turn, which are
 * served by the loop's thread and by the driver's, and gets answers to them, while another
 * processor notifies for nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/race/run.h"
#include "tests/unit/net_rig.h"

#define STARTS  4u
#define PACKETS 150u /* after each */
#define STREAK  10u  /* of one length, at most */
#define BUFFERS 32u
#define SMALL   60u
#define LARGE   30000u

struct other {
    struct virtio_driver view; /* of the same device; no queues */
    unsigned short random[3];
    bool stop; /* atomic */
};

static void *notify_for_nothing(void *arg)
{
    struct other *o = arg;

    while (!__atomic_load_n(&o->stop, __ATOMIC_RELAXED)) {
        virtio_driver_notify(&o->view, (uint32_t)(nrand48(o->random) % 4));
        virtio_driver_read(&o->view, VIRTIO_MMIO_STATUS);
    }
    return NULL;
}

/* From a start on: all packets come back and arrive, and so do all answers. */
static void drive(struct run *base, struct net_rig *rig)
{
    static uint8_t frame[NET_PACKET_MAX];
    struct net_driver *d = &rig->driver;
    unsigned answers = 0, streak = 0;
    uint32_t length = SMALL;

    if (!net_driver_start(d, UINT64_MAX, 0))
        complain(base, "the network device does not start");
    net_driver_add(d, 0, BUFFERS, 2048);
    for (unsigned i = 0; i < PACKETS; i++) {
        if (streak-- == 0) {
            streak = (unsigned)(nrand48(base->random) % STREAK);
            length = length == SMALL ? LARGE : SMALL;
        }
        net_rig_frame(frame, length, net_rig_broadcast, i);
        if (!net_driver_send(d, 0, frame, length))
            complain(base, "packet %u does not come back", i);
        if (!net_rig_is_frame(frame, net_rig_far_receive(rig, frame, true), length, i))
            complain(base, "packet %u does not arrive", i);
        for (; net_driver_take(d, 0, frame) >= 0; answers++)
            net_driver_add(d, 0, 1, 2048);
    }
    for (; answers < PACKETS && net_driver_receive(d, 0, frame) >= 0; answers++)
        net_driver_add(d, 0, 1, 2048);
    if (answers != PACKETS || d->fault)
        complain(base, "%u answers, %s", answers, d->fault ? d->fault : "no fault");
}

void net_without_a_vm(struct run *base)
{
    static struct net_rig rig;
    const struct net_rig_config config = {.threaded = true};
    struct other other = {0};
    pthread_t thread;

    net_rig_init(&rig, &config);
    rig.script->answers = true;
    other.view = rig.driver.v;
    memcpy(other.random, base->random, sizeof(other.random));
    if (pthread_create(&thread, NULL, notify_for_nothing, &other) != 0)
        abort();
    for (unsigned i = 0; i < STARTS; i++)
        drive(base, &rig);
    __atomic_store_n(&other.stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    net_rig_finish(&rig);
    base->random[1]++;
}
