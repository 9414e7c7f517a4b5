/* The place of a control socket in the file system. */
#ifndef VMM_API_SOCKET_H
#define VMM_API_SOCKET_H

#include <sys/stat.h>

#include "vmm/error.h"

/*
 * A listening, non-blocking socket at `path`, mode 0600; *file says which file it is. Replaces a
 * socket that nobody listens at; of several processes that come at once, one has it then.
 * -EADDRINUSE and others with a text.
 */
int api_socket_listen(const char *path, struct stat *file, struct minivmm_error *err);

/*
 * Remove `path` if it is still that file. While the socket listens: afterwards another process may
 * have replaced it, by a file of the same number even.
 */
void api_socket_remove(const char *path, const struct stat *file);

/* Connect, for a client; a negative errno with a text that names the cure. */
int api_socket_connect(const char *path, struct minivmm_error *err);

#endif
