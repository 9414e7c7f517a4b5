#include "devices/vhost_net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "devices/tap_end.h"
#include "virtio/local.h"

#define PATH      "/dev/vhost-net"
#define PAIRS_MAX NET_PAIRS_MAX
#define BIT(n)    (1ull << (n))

/* Features that need the kernel's part: the rings' own, and how packets lie in them. */
#define KERNEL_FEATURES                                                                            \
    (BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |   \
     BIT(VIRTIO_NET_F_MRG_RXBUF))

struct vhost_net {
    struct net *net;
    struct virtio_dev *dev;
    unsigned pairs;
    uint64_t features;   /* of KERNEL_FEATURES, what the kernel has */
    int fds[PAIRS_MAX];  /* /dev/vhost-net */
    int taps[PAIRS_MAX]; /* the backend's */
    bool on[PAIRS_MAX];  /* serves its pair now */
    int error;           /* eventfd: the kernel found a ring broken */
    struct event_source source;
    struct tap_end end;
};

static int tell(const struct vhost_net *vhost, unsigned pair, unsigned long request,
                const void *what)
{
    return ioctl(vhost->fds[pair], request, what) < 0 ? -errno : 0;
}

static int set_memory(const struct vhost_net *vhost, unsigned pair, const struct guest_mem *mem)
{
    /* struct vhost_memory ends in a flexible array; this is one with room. */
    union {
        struct vhost_memory header;
        char bytes[sizeof(struct vhost_memory) +
                   GUEST_MEM_REGIONS_MAX * sizeof(struct vhost_memory_region)];
    } table;
    memset(&table, 0, sizeof(table));

    for (unsigned i = 0; i < mem->count; i++) {
        struct vhost_memory_region *region = &table.header.regions[table.header.nregions++];
        region->guest_phys_addr = mem->regions[i].gpa;
        region->memory_size = mem->regions[i].size;
        region->userspace_addr = (uintptr_t)mem->regions[i].host;
    }
    return tell(vhost, pair, VHOST_SET_MEM_TABLE, &table);
}

static void tap_gone(void *arg)
{
    struct vhost_net *vhost = arg;
    net_lose_link(vhost->net);
}

static int open_pair(struct vhost_net *vhost, unsigned pair, const char *what,
                     const struct guest_mem *mem, struct minivmm_error *err)
{
    uint64_t features = 0;

    int fd = vhost->fds[pair] = open(PATH, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "%s: vhost: " PATH ": %s%s", what, strerror(errno),
                         errno == ENOENT || errno == ENODEV ? "; as root: modprobe vhost_net"
                         : errno == EACCES ? "; its group may use it, or leave out vhost"
                                           : "");
    int rc = tell(vhost, pair, VHOST_SET_OWNER, NULL);
    if (rc == 0)
        rc = tell(vhost, pair, VHOST_GET_FEATURES, &features);
    if (rc == 0)
        rc = set_memory(vhost, pair, mem);
    if (rc < 0)
        return error_set(err, rc, "%s: vhost: " PATH ": %s", what, strerror(-rc));
    vhost->features &= features;
    if (!(features & BIT(VIRTIO_F_VERSION_1)))
        return error_set(err, -ENOTSUP, "%s: vhost: " PATH ": knows no virtio 1", what);
    return 0;
}

int vhost_net_create(const char *what, const struct guest_mem *mem, unsigned pairs, const int *taps,
                     struct vhost_net **out, struct minivmm_error *err)
{
    struct vhost_net *vhost = calloc(1, sizeof(*vhost));
    if (!vhost)
        return error_set(err, -ENOMEM, "%s: out of memory", what);
    vhost->features = KERNEL_FEATURES;
    tap_end_init(&vhost->end, taps[0], tap_gone, vhost);
    vhost->error = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc =
        vhost->error < 0 ? error_set(err, -errno, "%s: eventfd: %s", what, strerror(errno)) : 0;
    while (rc == 0 && vhost->pairs < pairs) {
        vhost->taps[vhost->pairs] = taps[vhost->pairs];
        rc = open_pair(vhost, vhost->pairs++, what, mem, err);
    }
    if (rc < 0) {
        vhost_net_destroy(vhost);
        return rc;
    }
    *out = vhost;
    return 0;
}

void vhost_net_destroy(struct vhost_net *vhost)
{
    if (!vhost)
        return;
    for (unsigned i = 0; i < vhost->pairs; i++) {
        if (vhost->fds[i] >= 0)
            close(vhost->fds[i]);
    }
    if (vhost->error >= 0)
        close(vhost->error);
    tap_end_finish(&vhost->end);
    free(vhost);
}

/* ---- the datapath -------------------------------------------------------------------------- */

static int set_queue(const struct vhost_net *vhost, unsigned pair, unsigned index)
{
    const struct virtio_queue *queue = &vhost->dev->queues[2 * pair + index];
    struct vhost_vring_state state = {.index = index, .num = queue->config.size};
    struct vhost_vring_file file = {.index = index};

    int rc = tell(vhost, pair, VHOST_SET_VRING_NUM, &state);
    state.num = queue->ring.next_avail;
    if (rc == 0)
        rc = tell(vhost, pair, VHOST_SET_VRING_BASE, &state);
    /* Virtqueue areas are checked: virtq_start has found them in RAM. */
    struct vhost_vring_addr addr = {.index = index,
                                    .desc_user_addr = (uintptr_t)queue->ring.desc,
                                    .avail_user_addr = (uintptr_t)queue->ring.avail,
                                    .used_user_addr = (uintptr_t)queue->ring.used};
    if (rc == 0)
        rc = tell(vhost, pair, VHOST_SET_VRING_ADDR, &addr);
    file.fd = queue->kick;
    if (rc == 0)
        rc = tell(vhost, pair, VHOST_SET_VRING_KICK, &file);
    file.fd = queue->call;
    if (rc == 0)
        rc = tell(vhost, pair, VHOST_SET_VRING_CALL, &file);
    file.fd = vhost->error;
    if (rc == 0)
        rc = tell(vhost, pair, VHOST_SET_VRING_ERR, &file);
    return rc;
}

static int start_pair(struct vhost_net *vhost, unsigned pair)
{
    uint64_t features = vhost->dev->accepted & KERNEL_FEATURES;

    int rc = tell(vhost, pair, VHOST_SET_FEATURES, &features);
    for (unsigned index = 0; rc == 0 && index < 2; index++)
        rc = set_queue(vhost, pair, index);
    for (unsigned index = 0; rc == 0 && index < 2; index++) {
        struct vhost_vring_file backend = {.index = index, .fd = vhost->taps[pair]};
        rc = tell(vhost, pair, VHOST_NET_SET_BACKEND, &backend);
    }
    vhost->on[pair] = true; /* or half on: stop undoes what there is */
    /* A driver that kicked before, or was told not to, does not kick again. */
    for (unsigned index = 0; rc == 0 && index < 2; index++)
        eventfd_write(vhost->dev->queues[2 * pair + index].kick, 1);
    return rc;
}

static void stop_pair(struct vhost_net *vhost, unsigned pair)
{
    for (unsigned index = 0; index < 2; index++) {
        struct vhost_vring_file backend = {.index = index, .fd = VHOST_FILE_UNBIND};
        tell(vhost, pair, VHOST_NET_SET_BACKEND, &backend);
    }
    for (unsigned index = 0; index < 2; index++) {
        struct virtq *ring = &vhost->dev->queues[2 * pair + index].ring;
        struct vhost_vring_state state = {.index = index};
        struct vhost_vring_file none = {.index = index, .fd = VHOST_FILE_UNBIND};
        if (tell(vhost, pair, VHOST_GET_VRING_BASE, &state) == 0) {
            ring->next_avail = (uint16_t)state.num;
            ring->next_used = ring->signalled = (uint16_t)state.num;
        }
        tell(vhost, pair, VHOST_SET_VRING_KICK, &none);
        tell(vhost, pair, VHOST_SET_VRING_CALL, &none);
    }
    vhost->on[pair] = false;
}

/* The kernel could not go on with a ring: the driver broke it, or the tap is gone. */
static void handle_error(struct event_source *source, uint32_t events)
{
    (void)events;
    struct vhost_net *vhost = source->arg;
    eventfd_t value;
    eventfd_read(vhost->error, &value);
    if (tap_end_reached(vhost->taps[0]))
        net_lose_link(vhost->net);
    else
        virtio_break(vhost->dev);
}

static void watch_error(struct event_call *call)
{
    struct vhost_net *vhost = call->arg;
    vhost->source = (struct event_source){.fd = vhost->error, .ready = handle_error, .arg = vhost};
    event_loop_add(vhost->dev->loop, &vhost->source, EPOLLIN);
    tap_end_start(&vhost->end, vhost->dev->loop);
    event_call_done(vhost->dev->loop, call);
}

static void unwatch_error(struct event_call *call)
{
    struct vhost_net *vhost = call->arg;
    event_loop_remove(vhost->dev->loop, &vhost->source);
    tap_end_stop(&vhost->end, vhost->dev->loop);
    event_call_done(vhost->dev->loop, call);
}

static void vhost_stop(struct virtio_dev *dev)
{
    struct vhost_net *vhost = dev->datapath_arg;
    struct event_call call = {.run = unwatch_error, .arg = vhost};

    for (unsigned pair = 0; pair < vhost->pairs; pair++) {
        if (vhost->on[pair])
            stop_pair(vhost, pair);
    }
    event_loop_call(dev->loop, &call);
    local_datapath.stop(dev);
}

static int vhost_start(struct virtio_dev *dev)
{
    struct vhost_net *vhost = dev->datapath_arg;
    struct event_call call = {.run = watch_error, .arg = vhost};
    /* 5.1.2: without MQ one pair of queues, and the control queue behind it. */
    unsigned pairs = virtio_has(dev, VIRTIO_NET_F_MQ) ? vhost->pairs : 1;

    dev->local_first = 2 * pairs;
    int rc = local_datapath.start(dev); /* which sets the backend up before packets flow */
    event_loop_call(dev->loop, &call);
    for (unsigned pair = 0; rc == 0 && pair < pairs; pair++) {
        if (dev->queues[2 * pair].ready && dev->queues[2 * pair + 1].ready)
            rc = start_pair(vhost, pair);
    }
    if (rc < 0)
        vhost_stop(dev);
    return rc;
}

static const struct virtio_datapath vhost_datapath = {
    .start = vhost_start, .stop = vhost_stop, .external = true};

void vhost_net_attach(struct vhost_net *vhost, struct net *net)
{
    struct virtio_dev *dev = net_device(net);

    vhost->net = net;
    vhost->dev = dev;
    dev->datapath = &vhost_datapath;
    dev->datapath_arg = vhost;
    dev->offered &= vhost->features | ~KERNEL_FEATURES;
}
