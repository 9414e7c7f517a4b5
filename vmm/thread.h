/* Threads of the library's own. */
#ifndef VMM_THREAD_H
#define VMM_THREAD_H

#include <pthread.h>
#include <stddef.h>

#include "vmm/error.h"

/*
 * Start a thread that no signal reaches but those that a fault of its own raises: blocked, they
 * would end the program behind the back of its handlers. `stack` is in bytes, `name` at most 15
 * characters. The error's text names the thread; `err` may be NULL. The caller joins.
 */
int thread_start(pthread_t *thread, void *(*function)(void *), void *arg, const char *name,
                 size_t stack, struct minivmm_error *err);

#endif
