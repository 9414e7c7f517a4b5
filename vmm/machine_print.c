/* What a VM tells about itself once it has ended. */
#include "vmm/machine.h"

#include <stdlib.h>
#include <string.h>

/*
 * States that were taken when the guest hung, or, of one that died at once, those it was left in.
 */
void minivmm_print_vcpus(const struct minivmm *vm, FILE *out)
{
    const struct autopsy *autopsy = &vm->autopsy;
    struct vcpu_state *states = calloc(autopsy->cpus, sizeof(states[0]));

    if (!states) {
        fprintf(out, "vCPUs: out of memory\n");
        return;
    }
    for (unsigned i = 0; i < autopsy->cpus; i++) {
        if (autopsy->states[i].taken)
            states[i] = autopsy->states[i];
        else
            vcpu_state_take(&states[i], &vm->vcpus[i], &vm->guest.mem, i < AUTOPSY_FULL);
    }
    autopsy_print_vcpus(autopsy, states, out);
    for (unsigned i = 0; i < autopsy->cpus; i++) {
        if (!autopsy->states[i].taken)
            vcpu_state_finish(&states[i]);
    }
    free(states);
}

void minivmm_print_autopsy(const struct minivmm *vm, FILE *out)
{
    if (vm->autopsy.began)
        fprintf(out, "as it was when its time was up:\n");
    minivmm_print_vcpus(vm, out);
    if (vm->autopsy.devices)
        fputs(vm->autopsy.devices, out);
}

void minivmm_print_exits(const struct minivmm *vm, FILE *out)
{
    for (uint32_t reason = 0; reason < VCPU_REASONS_MAX; reason++) {
        uint64_t count = 0;
        for (unsigned i = 0; i < vm->config.cpus; i++)
            count += vm->vcpus[i].by_reason[reason];
        if (count)
            fprintf(out, "exits, %s: %llu\n", vcpu_reason_name(reason), (unsigned long long)count);
    }
    if (vm->serial.lost)
        fprintf(out, "serial: %llu bytes written while the transmitter was busy\n",
                (unsigned long long)vm->serial.lost);
    slots_print(&vm->slots, out);
    machine_balloon_print(vm, out);
}

size_t minivmm_post_codes(const struct minivmm *vm, struct minivmm_post_code *codes, size_t max)
{
    size_t count = vm->post_count < max ? vm->post_count : max;
    memcpy(codes, vm->post, count * sizeof(codes[0]));
    return count;
}

void minivmm_times(struct minivmm *vm, struct minivmm_times *times)
{
    pthread_mutex_lock(&vm->lock);
    *times = vm->times;
    pthread_mutex_unlock(&vm->lock);
}

size_t minivmm_console_tail(struct minivmm *vm, uint8_t *to, size_t size, uint64_t *total)
{
    return console_tail_copy(&vm->tail, to, size, total);
}

const char *minivmm_cmdline(const struct minivmm *vm)
{
    return vm->guest.boot.cmdline;
}

const char *minivmm_device(const struct minivmm *vm, unsigned slot)
{
    return slot < vm->slots.count ? vm->slots.devs[slot]->type->name : NULL;
}
