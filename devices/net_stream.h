/*
 * Network backend: Ethernet frames over a stream socket, each behind its length as a big-endian
 * 32-bit number, as passt and QEMU's stream networking speak it. No offloads: frames come and go
 * whole and with checksums.
 */
#ifndef DEVICES_NET_STREAM_H
#define DEVICES_NET_STREAM_H

#include "devices/net_backend.h"
#include "vmm/error.h"

/* What anybody at the other end can do. */
#define NET_STREAM_MTU 1500u

struct net_stream_config {
    unsigned mtu; /* payload of the largest frame either way; what is larger is dropped */
    /* May this frame of the guest's leave? NULL: all may. On the loop's thread. */
    bool (*allows)(void *arg, const uint8_t *frame, size_t length);
    void (*ended)(void *arg);   /* once: nobody is there any more; NULL: nothing to do */
    void (*destroy)(void *arg); /* the backend is gone; NULL: nothing to do */
    void *arg;
};

/* Over the connected socket `fd`, which the backend owns from here on. */
int net_stream_create(const struct net_stream_config *config, int fd, unsigned index,
                      struct net_backend **backend, struct minivmm_error *err);

/* Connect to the listening socket at `path`; the descriptor, or a negative errno with a text. */
int net_stream_connect(const char *path, unsigned index, struct minivmm_error *err);

#endif
