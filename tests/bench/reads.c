/*
 * Random 4 KiB reads with O_DIRECT at a fixed depth, by libaio: the same program in a guest, in its
 * peer's guest, and straight on the host's file.
 *
 * usage: reads FILE COUNT DEPTH...
 * Prints "depth-D NS-PER-READ" a depth. Without O_DIRECT where the file system has none (tmpfs).
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK     4096u
#define DEPTH_MAX 64u

static uint8_t buffers[DEPTH_MAX][BLOCK] __attribute__((aligned(4096)));

static void fail(const char *what, int error)
{
    fprintf(stderr, "reads: %s: %s\n", what, strerror(error));
    exit(1);
}

static double now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static double measure(int fd, uint64_t blocks, unsigned count, unsigned depth)
{
    struct iocb iocbs[DEPTH_MAX], *list[DEPTH_MAX];
    struct io_event events[DEPTH_MAX];
    io_context_t context = NULL;
    uint64_t random = depth;
    unsigned submitted = 0, done = 0, ready = depth;

    int rc = io_setup((int)depth, &context);
    if (rc < 0)
        fail("io_setup", -rc);
    for (unsigned i = 0; i < depth; i++)
        list[i] = &iocbs[i];
    double start = now_ns();
    while (done < count) {
        unsigned n = 0;
        for (; n < ready && submitted + n < count; n++) {
            random = random * 6364136223846793005ull + 1442695040888963407ull;
            io_prep_pread(list[n], fd, buffers[list[n] - iocbs], BLOCK,
                          (long long)((random >> 33) % blocks * BLOCK));
        }
        if (n > 0 && (rc = io_submit(context, (long)n, list)) != (int)n)
            fail("io_submit", rc < 0 ? -rc : EAGAIN);
        submitted += n;
        int got = io_getevents(context, 1, (long)depth, events, NULL);
        if (got < 1)
            fail("io_getevents", -got);
        for (int i = 0; i < got; i++) {
            if (events[i].res != BLOCK)
                fail("read", EIO);
            list[i] = events[i].obj;
        }
        ready = (unsigned)got;
        done += ready;
    }
    double took = (now_ns() - start) / count;
    io_destroy(context);
    return took;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: reads FILE COUNT DEPTH...\n");
        return 2;
    }
    int fd = open(argv[1], O_RDONLY | O_DIRECT);
    if (fd < 0 && errno == EINVAL)
        fd = open(argv[1], O_RDONLY);
    if (fd < 0)
        fail(argv[1], errno);
    uint64_t blocks = (uint64_t)lseek(fd, 0, SEEK_END) / BLOCK;
    for (int i = 3; i < argc; i++) {
        unsigned depth = (unsigned)atoi(argv[i]);
        if (depth < 1 || depth > DEPTH_MAX)
            fail(argv[i], EINVAL);
        measure(fd, blocks, 200, depth);
        printf("depth-%u %.0f\n", depth, measure(fd, blocks, (unsigned)atoi(argv[2]), depth));
        fflush(stdout);
    }
    return 0;
}
