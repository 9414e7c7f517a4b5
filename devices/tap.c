#include "devices/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Linux 6.2 has these; the headers of older systems do not name them. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#ifndef VIRTIO_NET_F_GUEST_USO4
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#define VIRTIO_NET_F_HOST_USO   56
#endif

#define BIT(n)   (1ull << (n))
#define TUN_PATH "/dev/net/tun"

struct tap {
    struct net_backend be;
    char name[IFNAMSIZ];
    unsigned index;
    unsigned attached; /* pairs whose queue the interface uses */
    bool created;      /* the interface is ours, and goes with us */
};

/* What a guest may receive, in both languages. */
static const struct {
    unsigned tun;
    uint64_t feature;
} guest_offloads[] = {
    {TUN_F_CSUM, BIT(VIRTIO_NET_F_GUEST_CSUM)}, {TUN_F_TSO4, BIT(VIRTIO_NET_F_GUEST_TSO4)},
    {TUN_F_TSO6, BIT(VIRTIO_NET_F_GUEST_TSO6)}, {TUN_F_TSO_ECN, BIT(VIRTIO_NET_F_GUEST_ECN)},
    {TUN_F_UFO, BIT(VIRTIO_NET_F_GUEST_UFO)},   {TUN_F_USO4, BIT(VIRTIO_NET_F_GUEST_USO4)},
    {TUN_F_USO6, BIT(VIRTIO_NET_F_GUEST_USO6)},
};
#define GUEST_OFFLOADS (sizeof(guest_offloads) / sizeof(guest_offloads[0]))

/* What a guest may send: the kernel takes it apart, whatever the interface's other end can do. */
#define SEND_FEATURES                                                                              \
    (BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |          \
     BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_HOST_UFO))

static ssize_t tap_receive(struct net_backend *be, unsigned pair, const struct iovec *iov,
                           unsigned count)
{
    /* The kernel is quicker about one piece, which is what most packets come and go in. */
    ssize_t n = count == 1 ? read(be->fds[pair], iov->iov_base, iov->iov_len)
                           : readv(be->fds[pair], iov, (int)count);
    return n < 0 ? -errno : n;
}

static int tap_send(struct net_backend *be, unsigned pair, const struct iovec *iov, unsigned count)
{
    ssize_t n = count == 1 ? write(be->fds[pair], iov->iov_base, iov->iov_len)
                           : writev(be->fds[pair], iov, (int)count);
    return n < 0 ? -errno : 0;
}

static int tap_set_offloads(struct net_backend *be, uint64_t features)
{
    unsigned long flags = 0;

    for (size_t i = 0; i < GUEST_OFFLOADS; i++)
        flags |= features & guest_offloads[i].feature ? guest_offloads[i].tun : 0;
    return ioctl(be->fds[0], TUNSETOFFLOAD, flags) < 0 ? -errno : 0;
}

static int tap_set_pairs(struct net_backend *be, unsigned pairs)
{
    struct tap *tap = (struct tap *)be;

    if (be->pairs == 1)
        return 0; /* an interface with one queue knows no attaching */
    for (; tap->attached != pairs; tap->attached += tap->attached < pairs ? 1 : -1u) {
        bool more = tap->attached < pairs;
        struct ifreq request = {.ifr_flags = (short)(more ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE)};
        if (ioctl(be->fds[more ? tap->attached : tap->attached - 1], TUNSETQUEUE, &request) < 0)
            return -errno;
    }
    return 0;
}

static void tap_destroy(struct net_backend *be)
{
    for (unsigned i = 0; i < be->pairs; i++) {
        if (be->fds[i] >= 0)
            close(be->fds[i]);
    }
    free(be);
}

static const struct net_backend_ops tap_ops = {.receive = tap_receive,
                                               .send = tap_send,
                                               .set_offloads = tap_set_offloads,
                                               .set_pairs = tap_set_pairs,
                                               .destroy = tap_destroy};

/* ---- opening ------------------------------------------------------------------------------- */

/* TUNSETIFF failed: what that means, and which commands help. */
static int refuse(const struct tap *tap, unsigned pairs, int code, struct minivmm_error *err)
{
    bool exists = if_nametoindex(tap->name) != 0;
    const char *multi = pairs > 1 ? " multi_queue" : "";

    if (code == -EPERM || code == -EACCES)
        return error_set(err, code,
                         "net %u: %s: %s; as root: ip tuntap add dev %s mode tap user %u%s && ip "
                         "link set %s up",
                         tap->index, tap->name,
                         exists ? "belongs to somebody else"
                                : "does not exist, and creating it "
                                  "needs CAP_NET_ADMIN",
                         tap->name, (unsigned)geteuid(), multi, tap->name);
    if (code == -EBUSY)
        return error_set(err, code, "net %u: %s: in use by another program, or not a tap",
                         tap->index, tap->name);
    if (code == -EINVAL && exists)
        return error_set(err, code,
                         "net %u: %s: has %s; make it anew: ip link del %s && ip tuntap add dev %s "
                         "mode tap%s",
                         tap->index, tap->name,
                         pairs > 1 ? "a single queue, or is no tap" : "a type that does not fit",
                         tap->name, tap->name, multi);
    return error_set(err, code, "net %u: %s: TUNSETIFF: %s", tap->index, tap->name,
                     strerror(-code));
}

static int open_queue(struct tap *tap, unsigned pair, unsigned pairs, struct minivmm_error *err)
{
    struct ifreq request = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
                                                 (pairs > 1 ? IFF_MULTI_QUEUE : 0))};

    int fd = open(TUN_PATH, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return error_set(err, -errno, "net %u: " TUN_PATH ": %s%s", tap->index, strerror(errno),
                         errno == ENOENT ? "; load the module: modprobe tun" : "");
    tap->be.fds[pair] = fd;
    memcpy(request.ifr_name, tap->name, sizeof(request.ifr_name));
    int rc = ioctl(fd, TUNSETIFF, &request) < 0 ? -errno : 0;
    if (rc == -EINVAL && pairs == 1) {
        /* One made for many queues takes one as well, if it is asked in its own way. */
        request.ifr_flags |= IFF_MULTI_QUEUE;
        rc = ioctl(fd, TUNSETIFF, &request) < 0 ? -errno : 0;
    }
    if (rc < 0)
        return refuse(tap, pairs, rc, err);
    memcpy(tap->name, request.ifr_name, sizeof(tap->name)); /* which the kernel chose for "tap%d" */
    return 0;
}

/* Take over a descriptor of the caller's, which has to be a tap with a header. */
static int adopt(struct tap *tap, int fd, struct minivmm_error *err)
{
    struct ifreq request = {0};

    tap->be.fds[0] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (tap->be.fds[0] < 0)
        return error_set(err, -errno, "net %u: fd=%d: %s", tap->index, fd, strerror(errno));
    if (ioctl(tap->be.fds[0], TUNGETIFF, &request) < 0)
        return error_set(err, -EINVAL, "net %u: fd=%d: is no tap", tap->index, fd);
    if (!(request.ifr_flags & IFF_TAP) || !(request.ifr_flags & IFF_VNET_HDR) ||
        !(request.ifr_flags & IFF_NO_PI))
        return error_set(err, -EINVAL,
                         "net %u: fd=%d: must be opened with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR",
                         tap->index, fd);
    memcpy(tap->name, request.ifr_name, sizeof(tap->name));
    int flags = fcntl(tap->be.fds[0], F_GETFL);
    if (flags < 0 || fcntl(tap->be.fds[0], F_SETFL, flags | O_NONBLOCK) < 0)
        return error_set(err, -errno, "net %u: fd=%d: %s", tap->index, fd, strerror(errno));
    return 0;
}

/* MTU and state of the interface, through any socket. */
static int set_up_interface(struct tap *tap, unsigned mtu, struct minivmm_error *err)
{
    struct ifreq request = {0};
    int rc = 0;

    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0)
        return 0; /* a sandbox without sockets: the guest keeps its own idea of the MTU */
    memcpy(request.ifr_name, tap->name, sizeof(request.ifr_name));
    if (ioctl(sock, SIOCGIFMTU, &request) == 0)
        tap->be.mtu = (unsigned)request.ifr_mtu;
    if (mtu && mtu != tap->be.mtu) {
        request.ifr_mtu = (int)mtu;
        if (ioctl(sock, SIOCSIFMTU, &request) == 0)
            tap->be.mtu = mtu;
        else
            rc = error_set(err, -errno, "net %u: %s: mtu=%u: %s; as root: ip link set %s mtu %u",
                           tap->index, tap->name, mtu, strerror(errno), tap->name, mtu);
    }
    if (rc == 0 && tap->created && ioctl(sock, SIOCGIFFLAGS, &request) == 0) {
        request.ifr_flags |= IFF_UP;
        ioctl(sock, SIOCSIFFLAGS, &request); /* what it is for; who made it may also undo it */
    }
    close(sock);
    return rc;
}

/* Ask what the interface can do with what it hands us, largest set first. */
static void probe_offloads(struct tap *tap)
{
    uint64_t features = 0;
    uint64_t all[GUEST_OFFLOADS];

    for (size_t i = 0; i < GUEST_OFFLOADS; i++) {
        /* All but the checksum need the checksum. */
        all[i] = features | guest_offloads[i].feature;
        if (tap_set_offloads(&tap->be, all[i]) == 0)
            features = all[i];
    }
    /* USO comes in two halves for receiving, which the kernel takes together only. */
    uint64_t uso = BIT(VIRTIO_NET_F_GUEST_USO4) | BIT(VIRTIO_NET_F_GUEST_USO6);
    if (tap_set_offloads(&tap->be, features | uso) == 0)
        features |= uso;
    tap->be.features = features | SEND_FEATURES;
    if (features & uso)
        tap->be.features |= BIT(VIRTIO_NET_F_HOST_USO);
    tap_set_offloads(&tap->be, 0);
}

static int set_up(struct tap *tap, const struct tap_config *config, struct minivmm_error *err)
{
    int size = NET_HEADER_SIZE;

    for (unsigned i = 0; i < tap->be.pairs; i++) {
        if (ioctl(tap->be.fds[i], TUNSETVNETHDRSZ, &size) < 0)
            return error_set(err, -errno, "net %u: %s: TUNSETVNETHDRSZ: %s", tap->index, tap->name,
                             strerror(errno));
    }
    int rc = set_up_interface(tap, config->mtu, err);
    if (rc == 0 && !config->no_offload)
        probe_offloads(tap);
    else if (rc == 0)
        tap_set_offloads(&tap->be, 0);
    if (rc == 0) {
        tap->attached = tap->be.pairs;
        rc = tap_set_pairs(&tap->be, 1);
        if (rc < 0)
            error_set(err, rc, "net %u: %s: TUNSETQUEUE: %s", tap->index, tap->name, strerror(-rc));
    }
    return rc;
}

int tap_create(const struct tap_config *config, struct net_backend **backend,
               struct minivmm_error *err)
{
    int rc = 0;

    if (config->name && strlen(config->name) >= IFNAMSIZ)
        return error_set(err, -EINVAL, "net %u: %s: an interface's name has at most %d bytes",
                         config->index, config->name, IFNAMSIZ - 1);
    struct tap *tap = calloc(1, sizeof(*tap));
    if (!tap)
        return error_set(err, -ENOMEM, "net %u: out of memory", config->index);
    tap->be = (struct net_backend){.ops = &tap_ops, .pairs = config->pairs};
    tap->index = config->index;
    for (unsigned i = 0; i < config->pairs; i++)
        tap->be.fds[i] = -1;
    if (config->fd >= 0) {
        rc = adopt(tap, config->fd, err);
    } else {
        memcpy(tap->name, config->name, strlen(config->name) + 1);
        tap->created = if_nametoindex(tap->name) == 0;
        for (unsigned i = 0; rc == 0 && i < config->pairs; i++)
            rc = open_queue(tap, i, config->pairs, err);
    }
    if (rc == 0)
        rc = set_up(tap, config, err);
    if (rc < 0) {
        tap_destroy(&tap->be);
        return rc;
    }
    *backend = &tap->be;
    return 0;
}
