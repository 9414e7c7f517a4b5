/*
 * What is behind a character device on the host, opened: descriptors of the caller's, a file, a
 * listening socket, a pseudo terminal. It gives a host_stream its descriptors, and where clients
 * come and go it connects them.
 *
 * A socket is created with mode 0600 and removed at the end; one that a process which is gone has
 * left there is replaced. It serves one client at a time, the next waits. A pseudo terminal is raw,
 * and counts as connected while somebody has it open.
 *
 * All on the loop's thread, or while it does not run.
 */
#ifndef DEVICES_HOST_END_H
#define DEVICES_HOST_END_H

#include "devices/host_stream.h"
#include "vmm/minivmm.h"

struct host_end {
    enum minivmm_char_kind kind;
    int in, out; /* for host_stream_init: -1 for none, and where it is connected later */
    bool own;    /* `out` is closed at the end */
    struct event_loop *loop;
    struct host_stream *stream;
    struct event_source arrivals; /* a listening socket, or an inotify of the terminal's openings */
    bool attached;                /* `arrivals` is watched */
    int terminal;                 /* the master's side, -1: none */
    char *path;                   /* of the socket, or of the terminal */
    uint64_t device, inode;       /* of the socket's name: what is removed is what we created */
};

/*
 * Open it; `name` is for error texts. Negative errno with a text. host_end_finish is due in either
 * case, and harmless on {0}.
 */
int host_end_init(struct host_end *end, const struct minivmm_char *config, struct event_loop *loop,
                  const char *name, struct minivmm_error *err);

/* `stream` was initialised with end->in and end->out: let clients come to it. Negative errno. */
int host_end_attach(struct host_end *end, struct host_stream *stream);

void host_end_finish(struct host_end *end);

#endif
