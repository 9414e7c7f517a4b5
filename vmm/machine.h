/*
 * A VM, for the files that make it up: machine.c builds it and takes it apart, machine_events.c
 * hears what happens to it and judges its end, machine_threads.c runs it, machine_print.c tells
 * about it. Nobody else includes this.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "devices/host_end.h"
#include "devices/ioapic.h"
#include "devices/platform_regs.h"
#include "devices/serial.h"
#include "vmm/event_loop.h"
#include "vmm/guest_load.h"
#include "vmm/guest_status.h"
#include "vmm/slots.h"
#include "vmm/vcpu.h"
#include "vmm/watch.h"

#define POST_CODES_MAX 64u

enum gate {
    GATE_PARKED, /* vCPU threads wait */
    GATE_OPEN,   /* they run guest code */
    GATE_CLOSED, /* they end */
};

struct minivmm {
    struct minivmm_config config;
    struct guest_load guest;
    struct kvm kvm;
    struct bus pio, mmio;
    struct event_loop loop;
    struct event_timer deadline, panic_grace;

    struct ioapic ioapic;
    struct serial serial;
    struct host_end serial_end;
    int serial_irq;
    struct platform_regs regs;
    struct slots slots;
    struct watch watch;
    struct vcpu *vcpus;

    pthread_t loop_thread;
    bool has_serial, has_ioapic;

    bool printed; /* the guest has; atomic */

    pthread_mutex_t event_lock; /* one event at a time; taken last */
    pthread_mutex_t lock;       /* guards everything below */
    pthread_cond_t changed;
    enum gate gate;
    unsigned vcpu_threads; /* how many run, or have ended and wait to be joined */
    bool panicked;         /* the guest said so; its end is a panic whatever it looks like */
    bool grace_runs;       /* the timer that ends a panicked guest, or a doomed one */
    struct guest_status status;
    char doom[200]; /* the guest printed what it must not; empty: it did not */
    bool ended;
    struct minivmm_verdict verdict;
    int end_fd;
    struct minivmm_times times;
    struct minivmm_post_code post[POST_CODES_MAX];
    unsigned post_count;
};

/* ---- machine_events.c: what happens to a VM ------------------------------------------------- */

/*
 * The VM ends for this reason, unless it has ended before. From any thread; returns at once, the
 * vCPUs stop soon after. `status` is the guest's status, or the signal of a stop.
 */
__attribute__((format(printf, 4, 5))) void machine_end(struct minivmm *vm, enum minivmm_end end,
                                                       uint32_t status, const char *format, ...);

/* Tell the configuration's event function. From any thread, with any lock held. */
void machine_tell(struct minivmm *vm, struct minivmm_event event);

/* Handlers of the parts; `arg` is the VM, but for a vCPU's end. */
void machine_platform_event(void *arg, enum platform_event event, uint32_t value);
void machine_watched(void *arg, enum watch_outcome outcome, const char *text);
void machine_deadline_passed(void *arg);
void machine_panic_grace_over(void *arg);
void machine_vcpu_ended(struct vcpu *vcpu, enum vcpu_end end, const char *text);
extern const struct serial_events machine_serial_events;
extern const struct console_events machine_console_events;

/* ---- machine_threads.c: who runs it -------------------------------------------------------- */

/* The loop's thread and those of the vCPUs, which wait for the gate to open. */
int machine_start_threads(struct minivmm *vm, struct minivmm_error *err);

/* After the end: join them all. Harmless if none was started. */
void machine_join_threads(struct minivmm *vm);

#endif
