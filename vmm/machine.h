/*
 * A VM, for the files that make it up: machine.c builds it and takes it apart, machine_events.c
 * hears what happens to it and judges its end, machine_threads.c runs it, machine_pause.c halts it,
 * machine_metrics.c counts, machine_print.c tells about it. Nobody else includes this.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <stdarg.h>

#include "devices/host_end.h"
#include "devices/ioapic.h"
#include "devices/platform_regs.h"
#include "devices/serial.h"
#include "vmm/autopsy.h"
#include "vmm/console_tail.h"
#include "vmm/event_loop.h"
#include "vmm/guest_load.h"
#include "vmm/guest_status.h"
#include "vmm/kvm_clock.h"
#include "vmm/machine_balloon.h"
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
    int power_irq; /* the power button's; -1: there is none */
    struct platform_regs regs;
    struct pci_host pci_host; /* with MINIVMM_TRANSPORT_PCI */
    struct slots slots;
    struct machine_balloon balloon;
    struct watch watch;
    struct console_tail tail;
    struct vcpu *vcpus;
    struct autopsy autopsy;

    pthread_t loop_thread;
    bool has_serial, has_ioapic;

    bool printed; /* the guest has; atomic */

    pthread_mutex_t pause_lock; /* one pause, resume or end of the threads at a time; taken first */
    bool paused; /* all stands still; written with pause_lock and lock held, read with either */
    uint64_t deadline_left, grace_left; /* ns of the timers, while paused */
    struct kvm_clock clock;             /* while paused */

    pthread_mutex_t event_lock; /* one event at a time; taken last */
    pthread_mutex_t lock;       /* guards everything below */
    pthread_cond_t changed;
    enum gate gate;
    unsigned vcpu_threads; /* how many run, or have ended and wait to be joined */
    unsigned parked;       /* how many of them wait at the gate */
    bool panicked;         /* the guest said so; its end is a panic whatever it looks like */
    int impatient;         /* the signal of a stop that came after the end; 0: none */
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

/*
 * The two halves of machine_end, with the lock held: the verdict, once and for all, and the end of
 * everything that runs.
 */
__attribute__((format(printf, 4, 0))) void machine_decide(struct minivmm *vm, enum minivmm_end end,
                                                          uint32_t status, const char *format,
                                                          va_list args);
void machine_close(struct minivmm *vm);

/* Tell the configuration's event function. From any thread, with any lock held. */
void machine_tell(struct minivmm *vm, struct minivmm_event event);

/* Handlers of the parts; `arg` is the VM, but for a vCPU's end. */
void machine_platform_event(void *arg, enum platform_event event, uint32_t value);
void machine_watched(void *arg, enum watch_outcome outcome, const char *text);
void machine_expected(void *arg, unsigned number, const char *text);
void machine_driver_ok(void *arg, const char *name, unsigned slot);
void machine_deadline_passed(void *arg);
void machine_panic_grace_over(void *arg);
void machine_vcpu_ended(struct vcpu *vcpu, enum vcpu_end end, const char *text);
extern const struct serial_events machine_serial_events;
extern const struct console_events machine_console_events;

/* ---- machine_hang.c: the last words of a guest that hangs ----------------------------------- */

/*
 * On the loop's thread: the VM ends for this reason, but a guest that hangs is first made to say
 * where, see the file.
 */
__attribute__((format(printf, 3, 4))) void machine_hang(struct minivmm *vm, enum minivmm_end end,
                                                        const char *format, ...);

/* With the lock held: the guest has a verdict; does this cut short what it still has to say? */
bool machine_hang_cut_by(const struct minivmm *vm, enum minivmm_end end);

/* A vCPU's thread, each time before it runs the vCPU; a byte of output; the timer. */
void machine_hang_vcpu(struct vcpu *vcpu);
void machine_hang_output(struct minivmm *vm);
void machine_hang_look(void *arg);

/* ---- machine_threads.c: who runs it -------------------------------------------------------- */

/* The loop's thread and those of the vCPUs, which wait for the gate to open. */
int machine_start_threads(struct minivmm *vm, struct minivmm_error *err);

/* After the end: join them all. Harmless if none was started. */
void machine_join_threads(struct minivmm *vm);

#endif
