/*
 * Pause and resume. A paused VM has no vCPU in the guest, no datapath that serves a ring, and
 * clocks that stand still; all its state is where a reader would look for it. What arrives
 * meanwhile waits: packets in their taps, typed keys with the serial port.
 */
#include "vmm/machine.h"

#include <errno.h>

/* With vm->lock held: may the VM be paused, or go on? */
static int check(const struct minivmm *vm)
{
    if (!vm->times.start)
        return -EINVAL;
    return vm->ended ? -ESHUTDOWN : 0;
}

static void each_vcpu(const struct minivmm *vm, int *fds)
{
    for (unsigned i = 0; i < vm->config.cpus; i++)
        fds[i] = vm->vcpus[i].fd;
}

/* Have every vCPU leave the guest and wait at the gate. */
static int park(struct minivmm *vm)
{
    pthread_mutex_lock(&vm->lock);
    int rc = check(vm);
    if (rc == 0) {
        vm->gate = GATE_PARKED;
        for (unsigned i = 0; i < vm->vcpu_threads; i++)
            vcpu_kick(&vm->vcpus[i]);
        while (vm->parked < vm->vcpu_threads && !vm->ended)
            pthread_cond_wait(&vm->changed, &vm->lock);
        rc = check(vm);
    }
    pthread_mutex_unlock(&vm->lock);
    return rc;
}

/* Devices before the clock: whatever their last requests did is still in the guest's time. */
static void halt(struct minivmm *vm)
{
    int fds[MINIVMM_CPUS_MAX];

    vm->deadline_left = event_timer_hold(&vm->deadline);
    vm->grace_left = event_timer_hold(&vm->panic_grace);
    watch_pause(&vm->watch);
    slots_pause(&vm->slots);
    each_vcpu(vm, fds);
    kvm_clock_hold(&vm->clock, &vm->kvm, fds, vm->config.cpus);
}

/* A timer that was due when it was held, and had not been seen to, is due now. */
static void release(struct event_timer *timer, uint64_t left, bool runs)
{
    if (runs)
        event_timer_set(timer, left ? left : 1);
}

static int go_on(struct minivmm *vm)
{
    int fds[MINIVMM_CPUS_MAX];

    slots_resume(&vm->slots);
    each_vcpu(vm, fds);
    kvm_clock_release(&vm->clock, &vm->kvm, fds, vm->config.cpus);
    watch_resume(&vm->watch);
    pthread_mutex_lock(&vm->lock);
    vm->paused = false;
    int rc = check(vm);
    if (rc == 0) {
        release(&vm->deadline, vm->deadline_left, vm->config.timeout > 0);
        release(&vm->panic_grace, vm->grace_left, vm->grace_runs);
        machine_tell(vm, (struct minivmm_event){.kind = MINIVMM_EVENT_RESUMED});
        vm->gate = GATE_OPEN;
        pthread_cond_broadcast(&vm->changed);
    }
    pthread_mutex_unlock(&vm->lock);
    return rc;
}

int minivmm_pause(struct minivmm *vm)
{
    pthread_mutex_lock(&vm->pause_lock);
    int rc = vm->paused ? 0 : park(vm);
    if (rc == 0) {
        if (!vm->paused)
            halt(vm);
        pthread_mutex_lock(&vm->lock);
        bool before = vm->paused;
        vm->paused = true;
        rc = check(vm);
        if (rc == 0 && !before)
            machine_tell(vm, (struct minivmm_event){.kind = MINIVMM_EVENT_PAUSED});
        pthread_mutex_unlock(&vm->lock);
    }
    pthread_mutex_unlock(&vm->pause_lock);
    return rc;
}

int minivmm_resume(struct minivmm *vm)
{
    pthread_mutex_lock(&vm->pause_lock);
    pthread_mutex_lock(&vm->lock);
    int rc = check(vm);
    pthread_mutex_unlock(&vm->lock);
    if (rc == 0 && vm->paused)
        rc = go_on(vm);
    pthread_mutex_unlock(&vm->pause_lock);
    return rc;
}

enum minivmm_state minivmm_state(struct minivmm *vm)
{
    pthread_mutex_lock(&vm->lock);
    enum minivmm_state state = vm->ended          ? MINIVMM_STATE_ENDED
                               : !vm->times.start ? MINIVMM_STATE_NOT_STARTED
                               : vm->paused       ? MINIVMM_STATE_PAUSED
                                                  : MINIVMM_STATE_RUNNING;
    pthread_mutex_unlock(&vm->lock);
    return state;
}
