/*
 * Network backend: a tap interface of the host. linux/if_tun.h; Documentation/networking/tuntap.rst
 * of the kernel.
 */
#ifndef DEVICES_TAP_H
#define DEVICES_TAP_H

#include "devices/net_backend.h"
#include "vmm/error.h"

struct tap_config {
    unsigned index;   /* for error texts: "net N" */
    const char *name; /* of the interface: opened, or created if there is none and we may */
    int fd;           /* or an open tap of the caller's, duplicated; -1: use `name` */
    unsigned pairs;   /* 1..NET_PAIRS_MAX */
    unsigned mtu;     /* asked of the interface; 0: what it has */
    bool no_offload;  /* whole frames with checksums only, both ways */
};

/* The text of an error begins with "net N: NAME" and has the commands that help. */
int tap_create(const struct tap_config *config, struct net_backend **backend,
               struct minivmm_error *err);

#endif
