/*
 * Network backend: passt, a program that gives the guest this user's own network, with DHCP and
 * DNS, and needs no privileges (package passt). A child of this process, at the other end of a
 * socket pair, that ends with the backend. The guest cannot reach the services on this user's
 * loopback, but where this machine's name server is one of them, or a udp port is forwarded: then
 * they stand behind the guest's gateway, because that is how passt gets at them.
 */
#ifndef DEVICES_PASST_H
#define DEVICES_PASST_H

#include "devices/net_backend.h"
#include "vmm/error.h"

#define PASST_FORWARDS_MAX 16u

struct passt_config {
    unsigned index;              /* for error texts: "net N" */
    const char *const *forwards; /* "tcp:HOSTPORT:GUESTPORT" or udp; from the host's loopback */
    unsigned forward_count;      /* at most PASST_FORWARDS_MAX */
    /*
     * Let nothing out that the guest begins: no TCP connection, and no datagram but DHCP's and
     * those that come from a forwarded port. What is tried is reported with `denied`, on the loop's
     * thread: a line such as "tcp 192.0.2.1:443".
     */
    bool deny;
    void (*denied)(void *arg, unsigned index, const char *what);
    /* It has ended before us, on the loop's thread; `why` is its own last line, or empty. */
    void (*ended)(void *arg, unsigned index, const char *why);
    void *arg;
};

/*
 * -EINVAL for a forward that cannot be understood, -ENOENT where passt is not installed, and what
 * bind says of a forwarded port that cannot be had.
 */
int passt_create(const struct passt_config *config, struct net_backend **backend,
                 struct minivmm_error *err);

#endif
