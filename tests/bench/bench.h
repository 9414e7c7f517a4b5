/* What the benchmarks share: clocks, and what a row of samples comes to. */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/*
 * Nanoseconds of a clock: CLOCK_MONOTONIC where something is waited for, CLOCK_THREAD_CPUTIME_ID
 * for pure work, which what else the machine does then changes less.
 */
static inline double bench_now(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static inline int bench_by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct bench_spread {
    double median, low, high; /* the latter: 10 and 90 % of the samples are below */
};

/* Sorts the samples. */
static inline struct bench_spread bench_spread(double *samples, size_t count)
{
    qsort(samples, count, sizeof(samples[0]), bench_by_value);
    return (struct bench_spread){
        .median = samples[count / 2], .low = samples[count / 10], .high = samples[count * 9 / 10]};
}

/*
 * A row: the bare way, ours, and the ratio that says how much of the bare way's speed is left. The
 * samples are times, taken in turns; they are sorted. At most 64.
 */
static inline void bench_compare(const char *name, double *bare, double *ours, size_t count,
                                 const char *limit)
{
    double ratios[64];

    for (size_t i = 0; i < count; i++)
        ratios[i] = bare[i] / ours[i];
    struct bench_spread ratio = bench_spread(ratios, count);
    printf("%-44s %8.0f %8.0f   %.2f  (%.2f-%.2f)%s\n", name, bench_spread(bare, count).median,
           bench_spread(ours, count).median, ratio.median, ratio.low, ratio.high, limit);
}

#endif
