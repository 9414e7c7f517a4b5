/*
 * Reports of a run: what --report, --junit, --timeline and --tap-output ask for. Their files are
 * opened, and emptied, before anything runs: a place that cannot be written is found then, and a
 * run that is killed leaves an empty file and not the report of the one before it. They are
 * written once, at the end, whichever that is.
 */
#ifndef VMM_REPORT_H
#define VMM_REPORT_H

#include "vmm/config.h"
#include "vmm/kernel_file.h"
#include "vmm/report_facts.h"

#define REPORT_FILES_MAX  3u
#define REPORT_EVENTS_MAX 256u /* told; what a guest may repeat is told once */

struct report {
    bool wanted, tap;
    struct report_file {
        const char *option, *path;
        int (*write)(const struct report_facts *facts, FILE *out);
        int fd;
    } files[REPORT_FILES_MAX];
    unsigned file_count;

    struct report_facts facts;
    char kernel_version[KERNEL_VERSION_MAX];
    struct report_event *events; /* written on any thread, one call at a time; heap */
    unsigned event_count;
};

/* When the program began: the earliest thing that main does. */
struct report_begin {
    uint64_t monotonic_ns;
    struct timespec realtime;
};
void report_note_begin(struct report_begin *begin);

/*
 * Open what `options` ask for, which is to hear of the VM's events from now on (report_event).
 * `options` and the words of argv stay. Negative errno with a text; report_close is due either
 * way.
 */
int report_open(struct report *report, struct options *options, int argc, char *const argv[],
                const struct report_begin *begin, struct minivmm_error *err);

/* Part of the VM's event function: on any thread, one call at a time. */
void report_event(struct report *report, const struct minivmm_event *event);

/*
 * Write them all: after minivmm_wait, or with `vm` NULL where there never was one. The first
 * failure's negative errno, with its text; the other files are written all the same.
 */
int report_write(struct report *report, struct minivmm *vm, const struct minivmm_verdict *verdict,
                 struct minivmm_error *err);

void report_close(struct report *report);

#endif
