/*
 * A few threads that do what would block an event loop, and hand each result back to the loop.
 *
 * The first thread is made by workers_init, the others when there is more to do than threads that
 * wait for it: where a sandbox or a limit allows no more of them, work goes on with those there
 * are. Work starts in the order of its submission; nothing is said about the order of its ends.
 */
#ifndef DEVICES_WORKERS_H
#define DEVICES_WORKERS_H

#include <pthread.h>

#include "vmm/event_loop.h"

#define WORKERS_MAX 8u

/* A piece of work: lies inside whatever it is about. */
struct work {
    struct work *next;
};

/* First in, first out. All zeroes: empty. */
struct work_list {
    struct work *head, *last;
};
void work_list_add(struct work_list *list, struct work *work);
struct work *work_list_take(struct work_list *list); /* NULL when it is empty */

struct workers {
    void (*run)(void *arg, struct work *work);  /* on a thread of its own, may block */
    void (*done)(void *arg, struct work *work); /* on the loop's thread, after `run` */
    void *arg;
    char name[16];

    /* Of the loop's thread. */
    struct event_loop *loop;
    struct event_source source; /* an eventfd: `finished` is not empty */
    pthread_t threads[WORKERS_MAX];
    unsigned count, limit;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct work_list todo, finished;
    unsigned queued; /* in todo */
    unsigned idle;   /* threads that wait for it */
    bool stopping;
};

/*
 * `limit` is how many threads there may be, 1 to WORKERS_MAX. `run`, `done` and `arg` are set by
 * the caller before. After an error workers_finish is not needed.
 */
int workers_init(struct workers *workers, struct event_loop *loop, const char *name, unsigned limit,
                 struct minivmm_error *err);

/* Nothing may be under way. The loop has stopped, does not run yet, or this is its thread. */
void workers_finish(struct workers *workers);

/* On the loop's thread. `done` is called later, never from within. */
void workers_submit(struct workers *workers, struct work *work);

#endif
