#include "tests/unit/resources.h"

#include <dirent.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* A loop that has nothing to do takes none of this; one that spins takes all of it. */
#define WATCH_US  20000
#define TURNS_MAX 100u

static unsigned entries(const char *directory)
{
    unsigned count = 0;
    DIR *dir = opendir(directory);

    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count;
}

void resources_take(struct resources *resources)
{
    struct mallinfo2 info = mallinfo2();
    resources->descriptors = entries("/proc/self/fd");
    resources->threads = entries("/proc/self/task");
    resources->heap = info.uordblks + info.hblkhd;
}

static double cpu_us(clockid_t clock)
{
    struct timespec ts = {0};
    clock_gettime(clock, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* Without a thread: does it come to rest once it has done what was left to do? */
static bool comes_to_rest(struct event_loop *loop)
{
    struct pollfd epoll = {.fd = loop->epoll_fd, .events = POLLIN};

    for (unsigned i = 0; i < TURNS_MAX; i++) {
        if (poll(&epoll, 1, 0) == 0 && !loop->deferred)
            return true;
        event_loop_once(loop, 0);
    }
    return false;
}

static bool sleeps(struct event_loop *loop, pthread_t thread)
{
    clockid_t clock;

    if (!loop->has_thread)
        return comes_to_rest(loop);
    if (pthread_getcpuclockid(thread, &clock) != 0)
        return false;
    double before = cpu_us(clock);
    usleep(WATCH_US);
    return cpu_us(clock) - before < WATCH_US / 4.0;
}

bool resources_are_back(const struct resources *before, unsigned extra_threads,
                        struct event_loop *loop, pthread_t thread)
{
    struct resources now;

    resources_take(&now);
    if (now.descriptors > before->descriptors)
        fprintf(stderr, "%u descriptors, before %u\n", now.descriptors, before->descriptors);
    else if (now.threads > before->threads + extra_threads)
        fprintf(stderr, "%u threads, before %u\n", now.threads, before->threads);
    else if (now.heap > before->heap + RESOURCES_HEAP)
        fprintf(stderr, "%zu bytes of heap, before %zu\n", now.heap, before->heap);
    else if (!sleeps(loop, thread))
        fprintf(stderr, "the event loop does not sleep\n");
    else
        return true;
    return false;
}
