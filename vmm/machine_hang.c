/*
 * The last words of a guest that hangs. Its deadline has passed, or it has been silent for too
 * long: that is the verdict, and nothing changes it any more. Before the VM ends,
 *
 *   1. every vCPU leaves the guest, and its registers, stack and last exits are kept as they are;
 *   2. one of them gets an NMI, with an error of the I/O channel as the reason in port 0x61. On
 *      that Linux prints the registers and backtrace of whatever it interrupts, interrupts off or
 *      not, and for no other reason does it print them unasked. With kernel.panic_on_io_nmi, which
 *      the default command line sets, it panics then, and so brings out at once what it otherwise
 *      keeps until it is back from the NMI;
 *   3. what it prints is waited for, as long as it comes, a few seconds at most.
 *
 * One vCPU, because Linux lets one processor at a time read the reason: the others would wait for
 * their turn inside their NMIs, and the one that panics would wait for them to stop. It is one that
 * runs, if there is one, because one that is halted is idle.
 */
#include "vmm/machine.h"

#include "vmm/clock.h"

#define NS_PER_MS (NS_PER_SECOND / 1000)

#define LOOK_NS    (20 * NS_PER_MS)
#define UNASKED_NS NS_PER_SECOND /* for a guest that does not even ask for the reason */
/*
 * Linux stays in the NMI for 2 s, if it does not panic; if it does, it waits for its other
 * processors, a second or so. Neither is heard meanwhile.
 */
#define ASKED_NS    (5 * NS_PER_SECOND)
#define QUIET_NS    NS_PER_SECOND /* since its last output */
#define ALL_TIME_NS (10 * NS_PER_SECOND)

void machine_hang(struct minivmm *vm, enum minivmm_end end, const char *format, ...)
{
    struct autopsy *autopsy = &vm->autopsy;

    autopsy_take_devices(autopsy, &vm->slots);
    pthread_mutex_lock(&vm->lock);
    if (!vm->ended && !autopsy->hung) {
        va_list args;
        va_start(args, format);
        machine_decide(vm, end, 0, format, args);
        va_end(args);
        if (vm->verdict.end != end) { /* it has panicked, or failed: there is nothing to ask */
            machine_close(vm);
        } else {
            __atomic_store_n(&autopsy->began, clock_now_ns(), __ATOMIC_RELAXED);
            autopsy->hung = true;
            for (unsigned i = 0; i < vm->vcpu_threads; i++)
                vcpu_kick(&vm->vcpus[i]);
            event_timer_set(&autopsy->timer, LOOK_NS);
        }
    }
    pthread_mutex_unlock(&vm->lock);
}

bool machine_hang_cut_by(const struct minivmm *vm, enum minivmm_end end)
{
    (void)vm;
    return end != MINIVMM_END_UNTIL && end != MINIVMM_END_EXPECTATION && end != MINIVMM_END_PANIC;
}

/* All states are taken: who gets the NMI? One that waits for SIPI could not take it. */
static bool choose(const struct autopsy *autopsy, unsigned *victim)
{
    for (unsigned i = 0; i < autopsy->cpus; i++) {
        *victim = i;
        if (autopsy->states[i].runs)
            return true;
    }
    for (unsigned i = 0; i < autopsy->cpus; i++) {
        *victim = i;
        if (autopsy->states[i].halted)
            return true;
    }
    return false;
}

void machine_hang_vcpu(struct vcpu *vcpu)
{
    struct minivmm *vm = vcpu->arg;
    struct autopsy *autopsy = &vm->autopsy;
    struct vcpu_state *state = &autopsy->states[vcpu->index];
    bool inject = false;

    pthread_mutex_lock(&vm->lock);
    bool take = autopsy->hung && !state->taken;
    pthread_mutex_unlock(&vm->lock);
    if (take)
        vcpu_state_take(state, vcpu, &vm->guest.mem, vcpu->index < AUTOPSY_FULL);

    pthread_mutex_lock(&vm->lock);
    if (take && ++autopsy->seen == autopsy->cpus && choose(autopsy, &autopsy->victim)) {
        autopsy->chosen = true;
        __atomic_store_n(&vm->regs.io_check, true, __ATOMIC_RELAXED);
        vcpu_kick(&vm->vcpus[autopsy->victim]);
    }
    if (autopsy->chosen && autopsy->victim == vcpu->index) {
        autopsy->chosen = false;
        inject = true;
    }
    pthread_mutex_unlock(&vm->lock);
    if (inject)
        vcpu_inject_nmi(vcpu); /* one that refuses says nothing */
}

void machine_hang_output(struct minivmm *vm)
{
    if (__atomic_load_n(&vm->autopsy.began, __ATOMIC_RELAXED))
        __atomic_store_n(&vm->autopsy.last_output, clock_now_ns(), __ATOMIC_RELAXED);
}

void machine_hang_look(void *arg)
{
    struct minivmm *vm = arg;
    struct autopsy *autopsy = &vm->autopsy;
    const uint64_t now = clock_now_ns();
    const uint64_t since = now - autopsy->began;
    const uint64_t output = __atomic_load_n(&autopsy->last_output, __ATOMIC_RELAXED);
    bool asked = __atomic_load_n(&vm->regs.reason_read, __ATOMIC_RELAXED);

    bool quiet = output == 0 || (now > output && now - output > QUIET_NS);
    bool over = since > ALL_TIME_NS || (quiet && since > (asked ? ASKED_NS : UNASKED_NS));
    if (!over) {
        event_timer_set(&autopsy->timer, LOOK_NS);
        return;
    }
    pthread_mutex_lock(&vm->lock);
    if (!vm->ended)
        machine_close(vm);
    pthread_mutex_unlock(&vm->lock);
}
