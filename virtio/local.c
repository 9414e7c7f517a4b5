#include "virtio/local.h"

#include <errno.h>
#include <sys/eventfd.h>

#include "vmm/counter.h"

/*
 * Edge-triggered and never read: each kick is an event of its own, which saves the read. That is
 * also why a handler that leaves something undone has to see to it that it runs again.
 */
#define KICK_EVENTS (EPOLLIN | EPOLLET)

/* Ring looks in a row for a driver that keeps adding while it is served, before others' turn. */
#define ROUNDS_MAX 16

static bool is_stopping(const struct virtio_dev *dev)
{
    return dev->stopping || !__atomic_load_n(&dev->running, __ATOMIC_RELAXED);
}

static void signal_driver(struct virtio_queue *queue)
{
    if (virtq_wants_irq(&queue->ring))
        virtio_interrupt(queue);
}

static void serve(struct virtio_queue *queue)
{
    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        int rc = queue->dev->type->serve(queue);
        signal_driver(queue);
        if (rc == 1)
            break;
        if (rc == -EPROTO)
            virtio_break(queue->dev);
        if (rc < 0 || !virtq_idle(&queue->ring))
            return;
    }
    eventfd_write(queue->kick, 1);
}

enum local_try local_try(struct virtio_queue *queue)
{
    struct event_loop *loop = queue->dev->loop;

    if (__atomic_load_n(&queue->bulk, __ATOMIC_RELAXED)) {
        /* Not as one that found the loop busy: a doorbell would keep the small requests that may
         * come later from being served on the spot. */
        eventfd_write(queue->kick, 1);
        return LOCAL_DONE;
    }
    if (!event_loop_borrow(loop))
        return LOCAL_BUSY;
    if (queue->served && virtq_waiting(&queue->ring) <= LOCAL_LITTLE)
        serve(queue);
    else if (queue->served)
        eventfd_write(queue->kick, 1);
    event_loop_return(loop);
    return LOCAL_DONE;
}

void local_bulk(struct virtio_queue *queue, bool bulk)
{
    __atomic_store_n(&queue->bulk, bulk, __ATOMIC_RELAXED);
    if (bulk)
        event_loop_bulk(queue->dev->loop);
}

static void handle_kick(struct event_source *source, uint32_t events)
{
    struct virtio_queue *queue = source->arg;
    (void)events;
    queue->wakeups++;
    serve(queue);
}

static void handle_signal(struct event_deferred *deferred)
{
    struct virtio_queue *queue =
        (struct virtio_queue *)((char *)deferred - offsetof(struct virtio_queue, signal));
    signal_driver(queue);
}

static void begin(struct event_call *call)
{
    struct virtio_dev *dev = call->arg;

    for (unsigned i = dev->local_first; i < dev->queue_count; i++) {
        struct virtio_queue *queue = &dev->queues[i];
        if (!queue->ready)
            continue;
        queue->source =
            (struct event_source){.fd = queue->kick, .ready = handle_kick, .arg = queue};
        queue->signal.run = handle_signal;
        if (event_loop_add(dev->loop, &queue->source, KICK_EVENTS) < 0)
            virtio_break(dev); /* no memory in the kernel: it cannot be served */
        queue->served = true;
        eventfd_write(queue->kick, 1);
    }
    if (dev->type->started)
        dev->type->started(dev);
    event_call_done(dev->loop, call);
}

static int start(struct virtio_dev *dev)
{
    struct event_call call = {.run = begin, .arg = dev};
    event_loop_call(dev->loop, &call);
    return 0;
}

/* The end of a stop: nothing is taken any more. */
static void end_if_quiet(struct virtio_dev *dev)
{
    for (unsigned i = dev->local_first; i < dev->queue_count; i++) {
        if (dev->queues[i].ready && dev->queues[i].ring.taken_count > 0)
            return;
    }
    struct event_call *call = dev->stopping;
    dev->stopping = NULL;
    for (unsigned i = dev->local_first; i < dev->queue_count; i++) {
        struct virtio_queue *queue = &dev->queues[i];
        if (!queue->ready)
            continue;
        event_loop_cancel(dev->loop, &queue->signal); /* after the end it would be too late */
        signal_driver(queue);
    }
    event_call_done(dev->loop, call);
}

static void end(struct event_call *call)
{
    struct virtio_dev *dev = call->arg;

    for (unsigned i = dev->local_first; i < dev->queue_count; i++) {
        dev->queues[i].served = false;
        local_bulk(&dev->queues[i], false);
        if (dev->queues[i].ready)
            event_loop_remove(dev->loop, &dev->queues[i].source);
    }
    if (dev->type->stopping)
        dev->type->stopping(dev);
    dev->stopping = call;
    end_if_quiet(dev);
}

static void stop(struct virtio_dev *dev)
{
    struct event_call call = {.run = end, .arg = dev};
    event_loop_call(dev->loop, &call);
}

const struct virtio_datapath local_datapath = {.start = start, .stop = stop};

void local_publish(struct virtio_queue *queue)
{
    struct virtio_dev *dev = queue->dev;

    virtq_publish(&queue->ring);
    counter_add(&queue->chains, 1);
    event_loop_defer(dev->loop, &queue->signal);
    if (dev->stopping)
        end_if_quiet(dev);
}

void local_done(struct virtio_queue *queue, const struct virtq_chain *chain, uint32_t written)
{
    virtq_put(&queue->ring, chain, written);
    local_publish(queue);
}

void local_resume(struct virtio_queue *queue)
{
    if (!is_stopping(queue->dev))
        eventfd_write(queue->kick, 1);
}
