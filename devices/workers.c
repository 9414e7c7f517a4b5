#include "devices/workers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/thread.h"

/* What runs here keeps at most 8 KiB on its stack. */
#define WORKER_STACK (64u * 1024)

void work_list_add(struct work_list *list, struct work *work)
{
    work->next = NULL;
    if (list->head)
        list->last->next = work;
    else
        list->head = work;
    list->last = work;
}

struct work *work_list_take(struct work_list *list)
{
    struct work *work = list->head;
    if (work)
        list->head = work->next;
    return work;
}

static void *worker_main(void *arg)
{
    struct workers *workers = arg;
    pthread_mutex_lock(&workers->lock);
    for (;;) {
        while (!workers->todo.head && !workers->stopping) {
            workers->idle++;
            pthread_cond_wait(&workers->changed, &workers->lock);
            workers->idle--;
        }
        struct work *work = work_list_take(&workers->todo);
        if (!work)
            break;
        workers->queued--;
        pthread_mutex_unlock(&workers->lock);
        workers->run(workers->arg, work);
        pthread_mutex_lock(&workers->lock);
        bool first = !workers->finished.head;
        work_list_add(&workers->finished, work);
        /* One signal for all that end before the loop comes to look. */
        if (first)
            eventfd_write(workers->source.fd, 1);
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

static void finished_ready(struct event_source *source, uint32_t events)
{
    (void)events;
    struct workers *workers = source->arg;
    eventfd_t value;
    eventfd_read(source->fd, &value);
    pthread_mutex_lock(&workers->lock);
    struct work_list finished = workers->finished;
    workers->finished.head = NULL;
    pthread_mutex_unlock(&workers->lock);

    struct work *work;
    while ((work = work_list_take(&finished)))
        workers->done(workers->arg, work);
}

static int start_worker(struct workers *workers, struct minivmm_error *err)
{
    int rc = thread_start(&workers->threads[workers->count], worker_main, workers, workers->name,
                          WORKER_STACK, err);
    workers->count += rc == 0;
    return rc;
}

void workers_submit(struct workers *workers, struct work *work)
{
    pthread_mutex_lock(&workers->lock);
    work_list_add(&workers->todo, work);
    bool busy = ++workers->queued > workers->idle;
    pthread_mutex_unlock(&workers->lock);
    pthread_cond_signal(&workers->changed);
    /* What was refused once stays refused: asking again at every request would only cost. */
    if (busy && workers->count < workers->limit && start_worker(workers, NULL) < 0)
        workers->limit = workers->count;
}

int workers_init(struct workers *workers, struct event_loop *loop, const char *name, unsigned limit,
                 struct minivmm_error *err)
{
    snprintf(workers->name, sizeof(workers->name), "%s", name);
    workers->loop = loop;
    workers->limit = limit;
    workers->count = workers->queued = workers->idle = 0;
    workers->todo = workers->finished = (struct work_list){0};
    workers->stopping = false;
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->changed, NULL);
    workers->source = (struct event_source){
        .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = finished_ready, .arg = workers};
    int rc = workers->source.fd < 0 ? -errno : event_loop_add(loop, &workers->source, EPOLLIN);
    if (rc < 0)
        error_set(err, rc, "%s: eventfd: %s", name, strerror(-rc));
    else
        rc = start_worker(workers, err);
    if (rc < 0)
        workers_finish(workers);
    return rc;
}

void workers_finish(struct workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    workers->stopping = true;
    pthread_mutex_unlock(&workers->lock);
    pthread_cond_broadcast(&workers->changed);
    for (unsigned i = 0; i < workers->count; i++)
        pthread_join(workers->threads[i], NULL);
    if (workers->source.fd >= 0) {
        event_loop_remove(workers->loop, &workers->source);
        close(workers->source.fd);
    }
    pthread_cond_destroy(&workers->changed);
    pthread_mutex_destroy(&workers->lock);
}
