/*
 * What the guest prints, watched for text: expectations in order, text that must not come, text
 * that ends the VM in order, and silence. POSIX extended regular expressions, matched on lines as
 * they grow, without terminal control sequences.
 *
 * watch_feed may be called on any thread, everything else on the owner's or the loop's. Outcomes
 * are reported without a lock held, on whichever thread finds them.
 */
#ifndef VMM_WATCH_H
#define VMM_WATCH_H

#include <pthread.h>

#include "vmm/event_loop.h"
#include "vmm/watch_rules.h"

#define WATCH_LINE_MAX 4096u /* longer lines are matched in halves */

/* Where text comes from: a line is of one of these. */
enum watch_source { WATCH_SERIAL, WATCH_CONSOLE, WATCH_SOURCES };

struct watch_line {
    enum { WATCH_TEXT, WATCH_ESCAPE, WATCH_CSI, WATCH_STRING, WATCH_STRING_ESCAPE } state;
    char text[WATCH_LINE_MAX + 1];
    unsigned length;
    unsigned looked; /* bytes that a match has used up */
};

struct watch {
    struct watch_rules rules;
    unsigned silence;     /* seconds; 0: may be silent */
    bool fail_on_prompts; /* the user's expressions may be for lines that do not end */
    void (*report)(void *arg, enum watch_outcome outcome, const char *text);
    /* Expectation `number`, from 1, was met: with the lock held. May be set before the start. */
    void (*expected)(void *arg, unsigned number, const char *text);
    void *arg;

    struct event_timer timer;
    uint64_t started; /* CLOCK_MONOTONIC ns, later by the length of all pauses */

    pthread_mutex_t lock; /* guards the rest */
    unsigned met;         /* expectations, in order */
    bool needs_literals;  /* every rule that counts now has some in what it matches */
    bool over;            /* there is an outcome, which stays */
    enum watch_outcome outcome;
    char found[200]; /* its text */
    bool timer_set;  /* for an unfinished line */
    uint64_t last_output;
    uint64_t paused; /* since when; 0: it runs */
    struct watch_line lines[WATCH_SOURCES];
};

/*
 * Take the rules of a configuration; -EINVAL with a text for a bad expression. The configuration
 * need not stay.
 */
int watch_init(struct watch *watch, const struct minivmm_config *config, struct event_loop *loop,
               void (*report)(void *arg, enum watch_outcome outcome, const char *text), void *arg,
               struct minivmm_error *err);
void watch_finish(struct watch *watch); /* harmless on {0} */

/* The guest starts now. */
void watch_start(struct watch *watch);

/* The guest stands still, and prints nothing; it goes on. The time between does not count. */
void watch_pause(struct watch *watch);
void watch_resume(struct watch *watch);

/* The guest has printed this. Expectations may be met in turn by different sources. */
void watch_feed(struct watch *watch, enum watch_source source, const uint8_t *data, size_t size);

/*
 * At the guest's end: what stands on unfinished lines counts. True when that ends the watch; then
 * *outcome and *text are what would have been reported, and the text lives as long as the watch.
 */
bool watch_last_lines(struct watch *watch, enum watch_outcome *outcome, const char **text);

/* The first expectation that was not met so far, or NULL; *number counts from 1. */
const char *watch_unmet(struct watch *watch, unsigned *number);

#endif
