/*
 * A network device behind virtio-mmio on an event loop, with a driver in front of it and one of
 * three backends behind:
 *
 *     NET_RIG_SCRIPT  a backend of the test's: packets of any length, errors, no room
 *     NET_RIG_STREAM  net_stream.h; the test plays the far end of the socket
 *     NET_RIG_TAP     a real tap in a network namespace of the test's own; the far end is a packet
 *                     socket on the interface
 *
 * Guest RAM has an inner border, a hole and inaccessible pages round each region, and a region of
 * 64 MiB, so that few descriptors make 4 GiB. No Criterion; where the host cannot do what is asked
 * for it ends with abort().
 */
#ifndef TESTS_UNIT_NET_RIG_H
#define TESTS_UNIT_NET_RIG_H

#include "tests/unit/net_driver.h"
#include "tests/unit/resources.h"
#include "virtio/mmio.h"

#define NET_RAM_A    0x100000ull
#define NET_RAM_B    0x200000ull
#define NET_RAM_HOLE 0x300000ull
#define NET_RAM_C    0x400000ull
#define NET_RAM_SIZE (64ull << 20) /* of the region at NET_RAM_C */
#define NET_FREE     0x600000ull   /* the test's, up to NET_MEMORY */
#define NET_MEMORY   0x800000ull   /* the driver's, from here on */

#define NET_RIG_TYPE     0x88b5u /* of the frames: IEEE's for experiments */
#define NET_RIG_TAP_NAME "rig0"

enum net_rig_kind { NET_RIG_SCRIPT, NET_RIG_STREAM, NET_RIG_TAP };

struct net_rig_config {
    enum net_rig_kind kind;
    bool threaded;     /* the loop runs on a thread of its own */
    unsigned pairs;    /* 0: 1 */
    uint64_t features; /* the scripted backend's */
    unsigned mtu;      /* told to the driver; 0: not told */
    bool no_offload, no_filter;
    struct pcap *pcap;
    bool (*allows)(void *arg, const uint8_t *frame, size_t length); /* the stream's */
};

#define NET_SCRIPT_MAX 4096u

/* The scripted backend. Its fields may be set while the loop's thread is at rest. */
struct net_script {
    struct net_backend be;
    pthread_mutex_t lock;
    int far[NET_PAIRS_MAX]; /* the other end of be.fds */
    struct net_script_packet {
        int error; /* a negative errno; 0: a packet */
        size_t length;
        uint8_t *data; /* NULL: zeroes */
    } in[NET_PAIRS_MAX][NET_SCRIPT_MAX], out[NET_SCRIPT_MAX];
    unsigned in_begin[NET_PAIRS_MAX], in_end[NET_PAIRS_MAX], out_begin, out_end;
    int room;       /* packets that may be sent until there is no room; -1: any number */
    int send_error; /* what send answers instead, if not 0, and how often */
    unsigned send_error_times;
    bool answers;   /* each packet out with one of 60 bytes, which is there when send returns */
    bool set_fails; /* so do set_offloads and set_pairs */
    uint64_t offloads;
    unsigned pairs, receives;
    const void *first_in, *first_out; /* the guest memory that the last call was given */
    unsigned out_pair;
};

struct net_rig {
    struct net_rig_config config;
    struct guest_mem mem;
    struct event_loop loop;
    pthread_t thread;
    struct bus bus;
    struct virtio_mmio slot;
    struct net *net;
    struct net_script *script; /* NULL with other backends */
    int far;                   /* the far end: a socket; -1 with the script */
    struct net_driver driver;
    struct resources before; /* once all of this was there */
};

void net_rig_init(struct net_rig *rig, const struct net_rig_config *config);
void net_rig_finish(struct net_rig *rig);

/* A network namespace of this process's own, with IPv6 off; false, and why on stderr. */
bool net_rig_namespace(void);

/* A frame of `length` bytes, 14 at least, that tells its number and length, for address `to`. */
void net_rig_frame(uint8_t *frame, size_t length, const uint8_t *to, uint32_t number);

/* Is it that frame? */
bool net_rig_is_frame(const uint8_t *frame, int length, size_t want, uint32_t number);

extern const uint8_t net_rig_mac[6], net_rig_broadcast[6];

/* From the far end. False when there is no room. */
bool net_rig_far_send(struct net_rig *rig, const uint8_t *frame, size_t length);

/* What arrived there, waited for if `wait`; -1: nothing. Of a tap, frames of NET_RIG_TYPE only. */
int net_rig_far_receive(struct net_rig *rig, uint8_t *frame, bool wait);

/* For a script: a packet (header and all), or an error, for a pair; and room for so many more. */
void net_script_give(struct net_script *script, unsigned pair, const void *packet, size_t length,
                     int error);
void net_script_room(struct net_script *script, int room);

/*
 * The canary: does an ordinary frame pass each way? A device that needs a reset, or has no driver,
 * is started anew before. And has the host back what it had at first, with a loop that sleeps?
 */
bool net_rig_works(struct net_rig *rig);

/* Guest memory by address; it must be there. */
void *net_rig_at(const struct net_rig *rig, uint64_t gpa, uint64_t length);

#endif
