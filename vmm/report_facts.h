/*
 * What a report of a run says, as plain data, and the writers that say it: one format a file.
 */
#ifndef VMM_REPORT_FACTS_H
#define VMM_REPORT_FACTS_H

#include <stddef.h>
#include <stdio.h>
#include <time.h>

#include "vmm/minivmm.h"

#define REPORT_LINES_MAX 64u /* of the console */

struct report_event {
    enum minivmm_event_kind kind;
    uint64_t time_ns; /* CLOCK_MONOTONIC */
    unsigned number;
    uint64_t value;
    char thread[16]; /* where it happened: "vcpu0", "loop"; else the owner's thread */
    char name[200];  /* shortened to this */
};

/* Strings may hold any bytes: the writers clean them. */
struct report_facts {
    const char *kernel, *initrd; /* paths; initrd may be NULL */
    const char *kernel_version;  /* NULL: the file does not say */
    char host[200];              /* the host's kernel */
    const char *const *words;    /* the program's command line */
    unsigned word_count;         /* */
    const char *cmdline;         /* the guest's command line; NULL: there never was a VM */
    unsigned cpus;
    const struct minivmm_expect *expects;
    unsigned expect_count;

    struct timespec started_at; /* CLOCK_REALTIME when the program began */
    uint64_t begun, finished;   /* the same moment in CLOCK_MONOTONIC, and when all was over */
    struct minivmm_times times; /* zeros where there never was a VM */
    struct minivmm_verdict verdict;
    const char *devices[MINIVMM_DEVICES_MAX]; /* kinds, by slot */
    unsigned device_count;
    const struct report_event *events; /* in the order of time */
    unsigned event_count;
    const uint8_t *tail; /* the last bytes that the guest printed */
    size_t tail_length;
    uint64_t printed;  /* bytes in all */
    const char *vcpus; /* registers and last exits, for a person; NULL: not told */
};

/* The event of a kind with this number (any for a kind that has none), or NULL. */
const struct report_event *report_find(const struct report_facts *facts,
                                       enum minivmm_event_kind kind, unsigned number);

/* Milliseconds from the program's begin, to the microsecond. */
double report_ms(const struct report_facts *facts, uint64_t time_ns);

/* "poweroff", "triple-fault"...: one word for programs to compare. */
const char *report_end_name(enum minivmm_end end);

/* UTC, as in RFC 3339: "2030-01-31T12:00:00.123Z". */
void report_timestamp(const struct timespec *time, char text[32]);

/* Each writes one whole document; -ENOMEM, or 0. What `out` could not take, it tells itself. */
int report_write_json(const struct report_facts *facts, FILE *out);     /* report_json.c */
int report_write_timeline(const struct report_facts *facts, FILE *out); /* report_timeline.c */
int report_write_junit(const struct report_facts *facts, FILE *out);    /* report_junit.c */
int report_write_tap(const struct report_facts *facts, FILE *out);      /* report_tap.c */

/* What TAP begins with: it promises so many results, so that a run cut short is seen. */
void report_begin_tap(unsigned expect_count, FILE *out);

#endif
