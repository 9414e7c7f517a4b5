/* What a VM tells about itself once it has ended. */
#include "vmm/machine.h"

#include <string.h>

#include "vmm/arch_x86.h"

void minivmm_print_vcpus(const struct minivmm *vm, FILE *out)
{
    for (unsigned i = 0; i < vm->config.cpus; i++) {
        fprintf(out, "vCPU %u:\n", i);
        arch_print_registers(vm->vcpus[i].fd, out);
        vcpu_print_log(&vm->vcpus[i], out);
    }
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
