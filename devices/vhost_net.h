/*
 * A network device's datapath in the host's kernel: linux/vhost.h. Workers of the kernel's move
 * packets between a tap and the rings, and this process sees none of them.
 *
 * A descriptor of /dev/vhost-net serves one pair of queues. What is not a packet, the control
 * queue, stays with the local datapath.
 */
#ifndef DEVICES_VHOST_NET_H
#define DEVICES_VHOST_NET_H

#include "devices/net.h"
#include "virtio/virtio.h"

struct vhost_net;

/*
 * Open vhost for the first 2 * `pairs` queues of a device that does not exist yet; `taps` are the
 * backend's descriptors, one a pair. `what` is for error texts: "net 0".
 */
int vhost_net_create(const char *what, const struct guest_mem *mem, unsigned pairs, const int *taps,
                     struct vhost_net **vhost, struct minivmm_error *err);

/*
 * Have a device served by it: offer what both can do, before the guest runs. The device outlives
 * the datapath's last stop.
 */
void vhost_net_attach(struct vhost_net *vhost, struct net *net);

/* The datapath is stopped. NULL is allowed. */
void vhost_net_destroy(struct vhost_net *vhost);

#endif
