/*
 * A balloon that everybody pulls at: without a VM, a driver, a processor that looks around and the
 * host's threads; and the library's calls from many threads while a VM lives and ends.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/race/run.h"
#include "tests/unit/balloon_rig.h"

#define ROUNDS 150u

struct party {
    struct balloon_rig *r;
    struct minivmm *vm;
    bool stop; /* atomic */
    unsigned short random[3];
    struct virtio_driver view; /* of the same device; no queues */
};

static unsigned pick(struct party *p, unsigned below)
{
    return (unsigned)(nrand48(p->random) % below);
}

/* ---- without a VM -------------------------------------------------------------------------- */

static void send_stats(struct party *p)
{
    struct virtio_balloon_stat stat = {.tag = VIRTIO_BALLOON_S_MEMFREE, .val = pick(p, 1000)};
    struct piece piece = {BALLOON_LIST + 0x10000, sizeof(stat), false};
    struct vring_used_elem element;
    struct fake_driver *queue = &p->r->v.queues[QUEUE_STATS];

    while (fake_driver_take(queue, &element))
        ;
    if (queue->free_count == 0)
        return;
    piece.gpa += 64u * queue->free_head; /* the device may still read the others */
    fake_driver_write(queue, piece.gpa, &stat, sizeof(stat));
    fake_driver_send(queue, &piece, 1);
    virtio_driver_notify(&p->r->v, QUEUE_STATS);
}

static void drive(struct party *p, const struct run *run)
{
    uint32_t pages[300];

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct piece piece = {RAM_A, 1 << 20, true};
        struct vring_used_elem element;
        if (i % 16 == 0 && !virtio_driver_start(&p->r->v, UINT64_MAX, 0))
            complain(run, "the balloon does not start");
        unsigned count = 1 + pick(p, 300);
        for (unsigned n = 0; n < count; n++)
            pages[n] = (uint32_t)(RAM_A / PAGE) + pick(p, 600);
        if (!balloon_rig_list(p->r, pick(p, 2), pages, count))
            complain(run, "no answer to a list");
        send_stats(p);
        if (i % 4 == 0 && !virtio_driver_transact(&p->r->v, QUEUE_REPORTING, &piece, 1, &element))
            complain(run, "no answer to a report");
        virtio_driver_write(&p->r->v, VIRTIO_MMIO_CONFIG + 4, pick(p, 1000));
    }
    virtio_driver_reset(&p->r->v);
}

static void ask(struct event_call *call)
{
    struct balloon_rig *r = call->arg;
    balloon_ask_stats(r->balloon);
    event_call_done(&r->rig.loop, call);
}

static void *look_around(void *arg)
{
    struct party *p = arg;
    const struct virtio_driver *view = &p->view;

    while (!__atomic_load_n(&p->stop, __ATOMIC_RELAXED)) {
        virtio_driver_notify(view, pick(p, 5));
        virtio_driver_config(view, 4 * pick(p, 5), 4);
        bus_write(view->bus, view->base + VIRTIO_MMIO_CONFIG + pick(p, 16), 1u << pick(p, 3), 5);
    }
    return NULL;
}

static void *be_the_host(void *arg)
{
    struct party *p = arg;

    while (!__atomic_load_n(&p->stop, __ATOMIC_RELAXED)) {
        struct event_call call = {.run = ask, .arg = p->r};
        balloon_set_target(p->r->balloon, (uint64_t)pick(p, 1000) * PAGE);
        balloon_actual(p->r->balloon);
        event_loop_call(&p->r->rig.loop, &call);
    }
    return NULL;
}

void balloon_without_a_vm(struct run *base)
{
    static struct balloon_rig r;
    struct minivmm_error err;
    struct party parties[3];
    pthread_t threads[2];

    if (!balloon_rig_init(&r, true, &err)) {
        complain(base, "%s", err.text);
        return;
    }
    for (unsigned i = 0; i < 3; i++) {
        parties[i] = (struct party){.r = &r, .view = r.v};
        memcpy(parties[i].random, base->random, sizeof(base->random));
        parties[i].random[0] = (unsigned short)(base->random[0] + i);
    }
    if (pthread_create(&threads[0], NULL, look_around, &parties[0]) != 0 ||
        pthread_create(&threads[1], NULL, be_the_host, &parties[1]) != 0)
        abort();
    drive(&parties[2], base);
    for (unsigned i = 0; i < 2; i++) {
        __atomic_store_n(&parties[i].stop, true, __ATOMIC_RELAXED);
        pthread_join(threads[i], NULL);
    }
    balloon_rig_finish(&r);
    base->random[1]++;
}

/* ---- with one ------------------------------------------------------------------------------ */

static void *pull(void *arg)
{
    struct party *p = arg;
    struct minivmm_balloon balloon;

    while (!__atomic_load_n(&p->stop, __ATOMIC_RELAXED)) {
        minivmm_balloon_set(p->vm, (uint64_t)pick(p, 28) << 20, NULL);
        minivmm_balloon_get(p->vm, &balloon);
        minivmm_balloon_interval(p->vm, pick(p, 3));
    }
    return NULL;
}

static void ignore(void *arg, const struct minivmm_event *event)
{
    *(uint64_t *)arg += event->value; /* one call at a time: no lock */
}

void balloon_of_a_vm(struct run *base)
{
    struct minivmm_config config;
    struct minivmm_verdict verdict;
    struct minivmm_error err;
    struct party parties[2];
    pthread_t threads[2];
    struct minivmm *vm;
    uint64_t sum = 0;
    char path[32];

    int kernel = write_kernel(guest_spin, 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", kernel);
    minivmm_config_init(&config);
    config.kernel = path;
    config.memory = MEMORY;
    config.balloon = true;
    config.balloon_auto = nrand48(base->random) & 1;
    config.event = ignore;
    config.event_arg = &sum;
    int rc = minivmm_create(&config, &vm, &err);
    close(kernel);
    if (rc < 0) {
        complain(base, "create: %s", err.text);
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        parties[i] = (struct party){.vm = vm, .random = {(unsigned short)i}};
        if (pthread_create(&threads[i], NULL, pull, &parties[i]) != 0)
            abort();
    }
    minivmm_start(vm);
    pause_up_to(base, 20000);
    minivmm_stop(vm, 15);
    minivmm_wait(vm, &verdict);
    for (unsigned i = 0; i < 2; i++) {
        __atomic_store_n(&parties[i].stop, true, __ATOMIC_RELAXED);
        pthread_join(threads[i], NULL);
    }
    minivmm_destroy(vm);
}
