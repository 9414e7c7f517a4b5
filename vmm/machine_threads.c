/* The threads of a VM: one for the event loop, one for each vCPU. */
#include "vmm/machine.h"

#include <errno.h>
#include <string.h>

#include "vmm/clock.h"
#include "vmm/thread.h"
#include "vmm/verdict.h"

#define THREAD_STACK (256u * 1024)

static void *vcpu_main(void *arg)
{
    struct vcpu *vcpu = arg;
    struct minivmm *vm = vcpu->arg;
    bool alive = true;

    while (alive) {
        pthread_mutex_lock(&vm->lock);
        vm->parked++; /* a pause waits for all of them */
        if (vm->parked == vm->vcpu_threads)
            pthread_cond_broadcast(&vm->changed);
        while (vm->gate == GATE_PARKED)
            pthread_cond_wait(&vm->changed, &vm->lock);
        vm->parked--;
        bool closed = vm->gate == GATE_CLOSED;
        /* The first vCPU alone has something to execute yet. */
        if (!closed && vcpu->index == 0 && vm->times.run == 0)
            vm->times.run = clock_now_ns();
        pthread_mutex_unlock(&vm->lock);
        if (closed)
            break;
        machine_hang_vcpu(vcpu);
        alive = vcpu_run(vcpu);
    }
    return NULL;
}

/* Who wants an end now gets it, however slowly a reader takes the rest. */
static bool may_wait(struct minivmm *vm)
{
    pthread_mutex_lock(&vm->lock);
    bool asked = vm->verdict.end == MINIVMM_END_STOPPED || vm->verdict.end == MINIVMM_END_TIMEOUT;
    pthread_mutex_unlock(&vm->lock);
    return !asked;
}

/* A pass whose output did not arrive is no pass. */
static void note_lost_output(struct minivmm *vm, const char *name, int rc)
{
    pthread_mutex_lock(&vm->lock);
    if (rc == -ETIMEDOUT && vm->impatient &&
        (vm->verdict.exit_code == MINIVMM_EXIT_OK || vm->verdict.end == MINIVMM_END_STOPPED)) {
        vm->verdict = (struct minivmm_verdict){
            .end = MINIVMM_END_STOPPED,
            .exit_code = verdict_exit_code(MINIVMM_END_STOPPED, (uint32_t)vm->impatient)};
        snprintf(vm->verdict.text, sizeof(vm->verdict.text),
                 "stopped by signal %d while its output waited for a reader", vm->impatient);
    } else if (vm->verdict.exit_code == MINIVMM_EXIT_OK) {
        vm->verdict =
            (struct minivmm_verdict){.end = MINIVMM_END_ERROR, .exit_code = MINIVMM_EXIT_ERROR};
        snprintf(vm->verdict.text, sizeof(vm->verdict.text), "%s output: %s", name,
                 rc == -ETIMEDOUT ? "its reader takes no more" : strerror(-rc));
    }
    pthread_mutex_unlock(&vm->lock);
}

/* On the loop's thread: what drivers have handed over to their consoles is output too. */
static void drain_consoles(struct event_call *call)
{
    struct minivmm *vm = call->arg;
    const char *name;

    int rc = slots_drain(&vm->slots, may_wait(vm), &name);
    if (rc < 0)
        note_lost_output(vm, name, rc);
    event_call_done(&vm->loop, call);
}

static void *loop_main(void *arg)
{
    struct minivmm *vm = arg;

    event_loop_run(&vm->loop);
    int rc = host_stream_drain(&vm->serial.stream, may_wait(vm));
    if (rc < 0)
        note_lost_output(vm, "serial", rc);
    return NULL;
}

int machine_start_threads(struct minivmm *vm, struct minivmm_error *err)
{
    vm->loop.has_thread = true;
    int rc = thread_start(&vm->loop_thread, loop_main, vm, "loop", THREAD_STACK, err);
    if (rc < 0)
        vm->loop.has_thread = false;
    for (unsigned i = 0; rc == 0 && i < vm->config.cpus; i++) {
        char name[16];
        snprintf(name, sizeof(name), "vcpu%u", i);
        rc = thread_start(&vm->vcpus[i].thread, vcpu_main, &vm->vcpus[i], name, THREAD_STACK, err);
        pthread_mutex_lock(&vm->lock); /* Ctrl-A x may end the VM already */
        vm->vcpu_threads += rc == 0;
        pthread_mutex_unlock(&vm->lock);
    }
    return rc;
}

static void take_devices(struct event_call *call)
{
    struct minivmm *vm = call->arg;
    autopsy_take_devices(&vm->autopsy, &vm->slots);
    event_call_done(&vm->loop, call);
}

/* After the end: join all threads, the loop last, for vCPUs may still hand it output, and I/O that
 * is under way ends there. */
void machine_join_threads(struct minivmm *vm)
{
    pthread_mutex_lock(&vm->pause_lock); /* a pause that is under way needs the loop */
    for (unsigned i = 0; i < vm->vcpu_threads; i++)
        pthread_join(vm->vcpus[i].thread, NULL);
    vm->vcpu_threads = 0;
    if (vm->loop.has_thread) {
        struct event_call call = {.run = take_devices, .arg = vm};
        if (vm->verdict.exit_code == MINIVMM_EXIT_FAULT) /* before requests in work are ended */
            event_loop_call(&vm->loop, &call);
        struct event_call drain = {.run = drain_consoles, .arg = vm};
        event_loop_call(&vm->loop, &drain);
        slots_shutdown(&vm->slots);
        event_loop_stop(&vm->loop);
        pthread_join(vm->loop_thread, NULL);
        vm->loop.has_thread = false;
    }
    pthread_mutex_unlock(&vm->pause_lock);
}
