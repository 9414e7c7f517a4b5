/*
 * Faults of the host, by calls that the linker has redirected (--wrap, see the Makefile). Without
 * faults_set everything goes to the real calls.
 */
#ifndef TESTS_UNIT_DISK_FAULTS_H
#define TESTS_UNIT_DISK_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

enum call {
    CALL_PREADV,
    CALL_PWRITEV,
    CALL_PREADV2,
    CALL_PWRITEV2,
    CALL_FDATASYNC,
    CALL_FALLOCATE,
    CALL_IO_SUBMIT,
    CALL_IO_SETUP,
    CALL_PTHREAD_CREATE,
    CALLS,
};

#define FAULT_ALWAYS 1000000u

struct fault {
    enum call call;
    unsigned skip;     /* this many calls go well before */
    unsigned times;    /* this many calls are hit; 0: the end of a table */
    int error;         /* what they fail with, if not 0 */
    size_t limit;      /* bytes, of io_submit requests, that they do at most, if not 0 */
    unsigned sleep_ms; /* before the real call */
    bool held;         /* before the real call, until the next faults_set */
};

#define FAULTS_MAX 4u

/* Replace all faults, let go what they held, and begin to count anew. At most FAULTS_MAX. */
void faults_set(const struct fault *faults, size_t count);

/* How often it was called since faults_set. */
unsigned faults_calls(enum call call);

/* How many requests io_submit was given since faults_set that are to be durable (RWF_DSYNC). */
unsigned faults_durable(void);

/* Wait until it was called that often; false when the deadline has passed. */
bool faults_await(enum call call, unsigned times);

#endif
