/* What a VM has counted, for any thread and at any time. */
#include "vmm/machine.h"

#include "vmm/clock.h"
#include "vmm/counter.h"

static void add_exits(const struct minivmm *vm, struct minivmm_metrics *metrics)
{
    uint64_t other = 0;

    for (uint32_t reason = 0; reason < VCPU_REASONS_MAX; reason++) {
        uint64_t count = 0;
        for (unsigned i = 0; i < vm->config.cpus; i++)
            count += counter_get(&vm->vcpus[i].by_reason[reason]);
        if (!vcpu_reason_known(reason) || metrics->exit_count + 1 == MINIVMM_EXIT_REASONS)
            other += count;
        else
            metrics->exits[metrics->exit_count++] =
                (struct minivmm_exit_metrics){.name = vcpu_reason_name(reason), .count = count};
    }
    metrics->exits[metrics->exit_count++] =
        (struct minivmm_exit_metrics){.name = "other", .count = other};
}

void minivmm_metrics(struct minivmm *vm, struct minivmm_metrics *metrics)
{
    struct minivmm_times times;

    *metrics = (struct minivmm_metrics){0};
    minivmm_times(vm, &times);
    if (times.start && (!times.end || times.end > times.start))
        metrics->uptime_ns = (times.end ? times.end : clock_now_ns()) - times.start;
    add_exits(vm, metrics);
    metrics->serial_lost = counter_get(&vm->serial.lost);
    slots_metrics(&vm->slots, metrics);
}
