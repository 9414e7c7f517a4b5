/*
 * The control socket: how long an answer takes while the VM is busy, and what it costs to have it.
 *
 * usage: api MINIVMM KERNEL
 *   KERNEL   one that keeps its vCPU in exits for a while
 *
 * Prints the median of GET / with its 10th and 90th percentile, and private memory of the process
 * with and without --api-sock, both before and after requests.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define REQUESTS 2000
#define RUNS     5

static const char *path = "/tmp/minivmm-bench-api";

static pid_t run(const char *minivmm, const char *kernel, int with_socket)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "r", stdin) || !freopen("/dev/null", "w", stdout))
            _exit(1);
        if (with_socket)
            execl(minivmm, minivmm, "--kernel", kernel, "--memory", "64M", "--quiet", "--timeout",
                  "60", "--api-sock", path, NULL);
        else
            execl(minivmm, minivmm, "--kernel", kernel, "--memory", "64M", "--quiet", "--timeout",
                  "60", NULL);
        _exit(1);
    }
    usleep(300000);
    return pid;
}

/* KiB: Private_Clean and Private_Dirty, without what is guest memory in either run. */
static long private_memory(pid_t pid)
{
    char name[64], line[256];
    long sum = 0, kib;

    snprintf(name, sizeof(name), "/proc/%d/smaps_rollup", (int)pid);
    FILE *file = fopen(name, "r");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "Private_Clean: %ld", &kib) == 1 ||
            sscanf(line, "Private_Dirty: %ld", &kib) == 1)
            sum += kib;
    if (file)
        fclose(file);
    return sum;
}

static int ask(double *took)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[4096];
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -1;
    for (unsigned i = 0; i < REQUESTS; i++) {
        double start = bench_now(CLOCK_MONOTONIC);
        if (write(fd, request, sizeof(request) - 1) < 0 || read(fd, answer, sizeof(answer)) <= 0)
            return -1;
        took[i] = (bench_now(CLOCK_MONOTONIC) - start) / 1e3;
    }
    close(fd);
    return 0;
}

static void end(pid_t pid)
{
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
    static double took[REQUESTS];
    long added[RUNS], used[RUNS];

    if (argc != 3) {
        fprintf(stderr, "usage: api MINIVMM KERNEL\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0); /* before the forks: nothing is printed twice */
    printf("control socket, a busy VM\n");
    for (unsigned i = 0; i < RUNS; i++) {
        pid_t without = run(argv[1], argv[2], 0);
        long base = private_memory(without);
        end(without);
        pid_t with = run(argv[1], argv[2], 1);
        added[i] = private_memory(with) - base;
        if (ask(took) < 0) {
            fprintf(stderr, "api: no answer\n");
            end(with);
            return 1;
        }
        used[i] = private_memory(with) - base;
        end(with);
        struct bench_spread us = bench_spread(took, REQUESTS);
        printf(
            "  GET /  %7.1f us median (10-90 %%: %.1f-%.1f)  limit 1000;  private memory %+ld KiB, "
            "%+ld after %u requests  limit 300\n",
            us.median, us.low, us.high, added[i], used[i], REQUESTS);
    }
    return 0;
}
