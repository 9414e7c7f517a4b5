/*
 * The autopsy: what a VM that hung, or died of a fault, is told to have been doing. What is known
 * is taken at the moment of the verdict; machine_hang.c then lets a hung guest speak.
 */
#ifndef VMM_AUTOPSY_H
#define VMM_AUTOPSY_H

#include "vmm/event_loop.h"
#include "vmm/slots.h"
#include "vmm/symbols.h"
#include "vmm/vcpu_state.h"

#define AUTOPSY_FULL  8u  /* vCPUs that are told about in full; of the others a line each */
#define AUTOPSY_CALLS 16u /* words of a stack that look like return addresses */

struct autopsy {
    struct symbols *symbols;   /* NULL: none were given */
    struct vcpu_state *states; /* of each vCPU; taken when it hung */
    unsigned cpus;
    char *devices; /* text, taken at the verdict; NULL: not yet */

    /* machine_hang.c's */
    struct event_timer timer;
    uint64_t began;       /* atomic: CLOCK_MONOTONIC ns, the verdict; 0: none */
    uint64_t last_output; /* atomic: since then; 0: none */
    /* under the machine's lock */
    bool hung;     /* there is a verdict, and the guest may still speak */
    unsigned seen; /* vCPUs whose state is taken */
    bool chosen;   /* one of them is to get the NMI, and has not yet: */
    unsigned victim;
};

/* Allocate for `cpus` vCPUs and read `symbols`, a path or NULL. autopsy_finish is due either way.
 */
int autopsy_init(struct autopsy *autopsy, unsigned cpus, const char *symbols,
                 struct minivmm_error *err);
void autopsy_finish(struct autopsy *autopsy); /* harmless on {0} */

/* On the loop's thread: how the devices' queues stand. */
void autopsy_take_devices(struct autopsy *autopsy, const struct slots *slots);

/*
 * Print vCPU by vCPU. `states` has one for each; names come from the symbols, moved to where this
 * kernel was put.
 */
void autopsy_print_vcpus(const struct autopsy *autopsy, const struct vcpu_state *states, FILE *out);

#endif
