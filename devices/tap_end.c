#include "devices/tap_end.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

bool tap_end_reached(int tap)
{
    struct ifreq request = {0};
    return ioctl(tap, TUNGETIFF, &request) < 0 && errno == EBADFD;
}

static void handle_announcement(struct event_source *source, uint32_t events)
{
    struct tap_end *end = source->arg;
    char nobody_reads_it[64]; /* the rest of a message is dropped */

    (void)events;
    /* An overrun (ENOBUFS) has lost some, which makes no difference. */
    while (recv(end->fd, nobody_reads_it, sizeof(nobody_reads_it), MSG_DONTWAIT) >= 0 ||
           errno == ENOBUFS || errno == EINTR)
        ;
    if (tap_end_reached(end->tap))
        end->gone(end->arg);
}

void tap_end_init(struct tap_end *end, int tap, void (*gone)(void *arg), void *arg)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};

    *end = (struct tap_end){.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE),
                            .tap = tap,
                            .gone = gone,
                            .arg = arg};
    if (end->fd >= 0 && bind(end->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        tap_end_finish(end);
    end->source = (struct event_source){.fd = end->fd, .ready = handle_announcement, .arg = end};
}

void tap_end_finish(struct tap_end *end)
{
    if (end->fd >= 0)
        close(end->fd);
    end->fd = -1;
}

void tap_end_start(struct tap_end *end, struct event_loop *loop)
{
    if (end->fd >= 0)
        event_loop_add(loop, &end->source, EPOLLIN);
    if (tap_end_reached(end->tap)) /* before anybody listened */
        end->gone(end->arg);
}

void tap_end_stop(struct tap_end *end, struct event_loop *loop)
{
    if (end->fd >= 0)
        event_loop_remove(loop, &end->source);
}
