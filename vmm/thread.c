#include "vmm/thread.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

int thread_start(pthread_t *thread, void *(*function)(void *), void *arg, const char *name,
                 size_t stack, struct minivmm_error *err)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
    pthread_attr_t attr;
    sigset_t all, before;

    sigfillset(&all);
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
        sigdelset(&all, faults[i]);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, stack);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = -pthread_create(thread, &attr, function, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (rc < 0)
        return error_set(err, rc, "cannot start thread %s: %s%s", name, strerror(-rc),
                         rc == -EAGAIN ? "; raise the limit on threads (ulimit -u, pids.max)" : "");
    pthread_setname_np(*thread, name);
    return 0;
}
