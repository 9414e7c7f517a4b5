/*
 * The end of a tap's interface, for somebody who does not read from it: vhost's kernel workers do,
 * and tell nobody when it is deleted. The kernel announces changes of any interface (rtnetlink(7)),
 * and the descriptor then says whether it was this one.
 */
#ifndef DEVICES_TAP_END_H
#define DEVICES_TAP_END_H

#include <stdbool.h>

#include "vmm/event_loop.h"

struct tap_end {
    int fd; /* a netlink socket; -1: none could be had, and nobody hears of the end */
    int tap;
    struct event_source source;
    void (*gone)(void *arg); /* on the loop's thread, at each announcement from the end on */
    void *arg;
};

/* `tap` is the tap's descriptor, which stays the caller's. Nothing is heard before the start. */
void tap_end_init(struct tap_end *end, int tap, void (*gone)(void *arg), void *arg);
void tap_end_finish(struct tap_end *end);

/* On the loop's thread. */
void tap_end_start(struct tap_end *end, struct event_loop *loop);
void tap_end_stop(struct tap_end *end, struct event_loop *loop);

/* Is the interface behind a tap's descriptor gone? From any thread. */
bool tap_end_reached(int tap);

#endif
