/*
 * VMs for the race program: guests of a few instructions, and a VM with a thread that reads what
 * its serial port writes. Nothing here ends the program but a host without pipes and threads.
 */
#ifndef TESTS_RACE_RUN_H
#define TESTS_RACE_RUN_H

#include <pthread.h>

#include "vmm/minivmm.h"

#define MEMORY (32ull << 20)
#define LINE   "0123456789abcdefghijklmnopqrstuvwxyz\n"
#define LINES  40u

/* Where guests start. */
#define GUEST(name) extern const char guest_##name[] __attribute__((visibility("hidden")))
GUEST(exit_7);     /* ends with status 7 */
GUEST(exit_later); /* the same, after wait_ticks of the TSC */
GUEST(spin);
GUEST(writes); /* LINE, LINES times; then power-off */
GUEST(floods); /* all vCPUs at COM1 for ever, the first at the I/O APIC as well */
GUEST(echoes); /* sends what it receives; after a q, status 7 */

struct run {
    const char *name; /* for complaints */
    const char *entry;
    unsigned cpus;
    unsigned timeout;
    uint64_t wait_ticks;
    bool input;
    unsigned short random[3];

    struct minivmm *vm;
    int in, out; /* our ends of the pipes */
    struct minivmm_verdict verdict;
    pthread_t reader;
    bool reads; /* the reader runs */
    size_t length;
    char *text; /* what the serial port wrote */
};

/* How many complaints there were; atomic. */
extern unsigned failures;
void complain(const struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A run like `parent`, whose random numbers it continues. */
struct run run_of(const struct run *parent, const char *entry, unsigned cpus);

/* The kernel that starts at `entry`, in a file without a name; returns its descriptor. */
int write_kernel(const char *entry, uint64_t wait_ticks);

/* Create the VM and the reader; false, with a complaint, when that fails. */
bool run_create(struct run *run);
void run_wait(struct run *run);
/* Destroy the VM and read its output to the end. */
void run_read_all(struct run *run);
/* Destroy what is left. */
void run_finish(struct run *run);

void expect_verdict(const struct run *run, enum minivmm_end end, int exit_code);
/* In devices.c and pauses.c: scenarios of their own. */
void devices_without_a_vm(struct run *base);
void devices_over_pci(struct run *base);
void devices_by_calls(struct run *base);
/* In net.c. */
void net_without_a_vm(struct run *base);
/* In balloon.c. */
void balloon_without_a_vm(struct run *base);
void balloon_of_a_vm(struct run *base);
void pause_any_time(struct run *base);

void pause_up_to(struct run *run, long microseconds);

#endif
