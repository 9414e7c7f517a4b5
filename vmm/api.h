/*
 * The control socket: HTTP/1.1 with JSON bodies on a unix socket, for this user alone. What can be
 * asked for is in api_request.h.
 *
 * It is served by the program's main thread, which has nothing else to do while the VM runs, and
 * touches the VM by the library's calls only. A client that is slow, broken or hostile costs itself
 * its connection: headers, bodies, connections, waiting times and what waits to be read are
 * bounded.
 */
#ifndef VMM_API_H
#define VMM_API_H

#include "vmm/minivmm.h"

struct api;

/*
 * Listen at `path`; a socket that nobody listens at any more is replaced. A negative errno with a
 * text, and nothing to destroy, where that cannot be. Before there are threads: it sets the umask
 * for a moment.
 */
int api_create(const char *path, struct api **api, struct minivmm_error *err);

/* From any thread, at once: struct minivmm_config's `event`, with the api as its argument. */
void api_event(void *api, const struct minivmm_event *event);

/*
 * Serve until the VM has ended, all streams have been told and closed. `config` is what the VM was
 * made of; `signalled` is called when the descriptor `signals` can be read.
 */
void api_run(struct api *api, struct minivmm *vm, const struct minivmm_config *config, int signals,
             void (*signalled)(struct minivmm *vm, int signals));

/* Close all and remove the socket, if it still is ours. NULL is allowed. */
void api_destroy(struct api *api);

#endif
