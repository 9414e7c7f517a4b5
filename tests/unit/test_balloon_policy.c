/*
 * The policy of --balloon auto in a simulated host: VMs of the model below share its memory, one
 * sample a second. What balloon_policy.h promises is what is checked.
 */
#include <linux/virtio_balloon.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/balloon_policy.h"

SUITE(balloon_policy);

#define SECOND   1000000000ull
#define VMS      8
#define TAG(tag) (1u << VIRTIO_BALLOON_S_##tag)

/* A guest that touched all its memory once: what it does not use is files, and what is in the
 * balloon. */
struct vm {
    uint64_t memory, used, actual;
    uint64_t oom_kills, swap_out;
    bool silent; /* sends no statistics */
    struct balloon_policy policy;
    unsigned changes, turns; /* of the target, and of their direction */
    int direction;
    uint64_t turned;            /* the last change of it that the host was the reason for */
    enum balloon_reason reason; /* of the last sample */
};

struct world {
    uint64_t now;
    uint64_t host, others; /* all memory, and what others than the VMs use of it */
    uint64_t reserve;
    bool stalled;
    unsigned count;
    struct vm vms[VMS];
};

static struct world world_of(uint64_t host, uint64_t others)
{
    return (struct world){.now = 100 * SECOND, .host = host, .others = others};
}

static struct vm *add_vm(struct world *w, uint64_t memory, uint64_t used)
{
    struct vm *vm = &w->vms[w->count++];
    *vm = (struct vm){.memory = memory, .used = used};
    vm->policy =
        (struct balloon_policy){.memory = memory, .floor = memory / 8, .reserve = w->reserve};
    return vm;
}

static uint64_t host_available(const struct world *w)
{
    uint64_t used = w->others;
    for (unsigned i = 0; i < w->count; i++)
        used += w->vms[i].memory - w->vms[i].actual;
    return used < w->host ? w->host - used : 0;
}

/* A second of the guest's life: its driver moves towards the target, 256 MiB at most. */
static void live(struct vm *vm)
{
    uint64_t step = 256 * MIB;
    uint64_t room = vm->memory - vm->used; /* what is not used can be in the balloon */

    if (vm->actual < vm->policy.target)
        vm->actual += vm->policy.target - vm->actual < step ? vm->policy.target - vm->actual : step;
    else
        vm->actual -= vm->actual - vm->policy.target < step ? vm->actual - vm->policy.target : step;
    if (vm->actual > room)
        vm->actual = room; /* deflate on OOM */
}

static uint64_t available(const struct vm *vm)
{
    return vm->memory - vm->used - vm->actual;
}

static void sample(const struct world *w, struct vm *vm, uint64_t host)
{
    uint64_t before = vm->policy.target;
    const struct balloon_sample s = {
        .now_ns = w->now,
        .actual = vm->actual,
        .has_guest = !vm->silent,
        .stats_actual = vm->actual,
        .guest = {.free_memory = available(vm) / 2,
                  .available_memory = available(vm),
                  .total_memory = vm->memory,
                  .oom_kills = vm->oom_kills,
                  .swap_out = vm->swap_out,
                  .present = TAG(MEMFREE) | TAG(AVAIL) | TAG(MEMTOT) | TAG(SWAP_OUT)},
        .has_host = true,
        .host_stalled = w->stalled,
        .host_total = w->host,
        .host_available = host};

    vm->reason = balloon_policy_step(&vm->policy, &s);
    cr_assert_leq(vm->policy.target, vm->memory - vm->policy.floor);
    cr_assert_eq(vm->reason == BALLOON_KEEP, vm->policy.target == before);
    if (vm->policy.target == before)
        return;
    int direction = vm->policy.target > before ? 1 : -1;
    if (vm->reason == BALLOON_HOST_SHORT && direction != vm->direction) {
        cr_assert_geq(w->now - vm->turned, 5 * SECOND, "a turn soon after another");
        vm->turned = w->now;
    }
    if (vm->reason == BALLOON_HOST_EASY && direction != vm->direction)
        vm->turned = w->now;
    vm->changes++;
    vm->turns += vm->direction && direction != vm->direction;
    vm->direction = direction;
}

/* All see the host as it was when the second began. */
static void pass(struct world *w, unsigned seconds)
{
    for (unsigned i = 0; i < seconds; i++) {
        w->now += SECOND;
        for (unsigned n = 0; n < w->count; n++)
            live(&w->vms[n]);
        uint64_t host = host_available(w);
        for (unsigned n = 0; n < w->count; n++)
            sample(w, &w->vms[n], host);
    }
}

static uint64_t headroom(const struct vm *vm)
{
    return vm->memory / 16;
}

static uint64_t idle(const struct vm *vm)
{
    return vm->memory - vm->used - headroom(vm);
}

/* ---- one VM -------------------------------------------------------------------------------- */

Test(balloon_policy, a_host_with_enough_takes_nothing)
{
    struct world w = world_of(16 * GIB, 8 * GIB);
    struct vm *vm = add_vm(&w, 2 * GIB, 512 * MIB);
    pass(&w, 600);
    cr_expect_eq(vm->policy.target, 0);
    cr_expect_eq(vm->changes, 0);
}

Test(balloon_policy, steady_want_ends_in_a_steady_target)
{
    struct world w = world_of(16 * GIB, 12 * GIB);
    struct vm *vm = add_vm(&w, 2 * GIB, 512 * MIB);
    w.others = 12 * GIB + 512 * MIB;
    pass(&w, 120);
    cr_expect_gt(vm->policy.target, 100 * MIB);
    unsigned changes = vm->changes;
    pass(&w, 600);
    cr_expect_eq(vm->changes, changes, "%u more", vm->changes - changes);
    cr_expect_eq(vm->turns, 0);
}

Test(balloon_policy, all_that_is_idle_goes_where_the_host_has_its_reserve_left_or_less)
{
    struct world w = world_of(16 * GIB, 15 * GIB);
    struct vm *vm = add_vm(&w, 4 * GIB, GIB);
    pass(&w, 300);
    cr_expect_geq(vm->actual, idle(vm) - vm->memory / 64);
    cr_expect_geq(available(vm), headroom(vm));
}

Test(balloon_policy, the_floor_holds)
{
    struct world w = world_of(4 * GIB, 4 * GIB);
    struct vm *vm = add_vm(&w, GIB, 0);
    vm->policy.floor = GIB / 2;
    pass(&w, 300);
    cr_expect_leq(vm->policy.target, GIB / 2);
    cr_expect_geq(vm->policy.target, GIB / 2 - GIB / 64);
}

Test(balloon_policy, the_floor_holds_whatever_was_asked_for)
{
    struct balloon_policy policy = {.memory = GIB, .floor = GIB / 2, .target = GIB};
    const struct balloon_sample s = {.now_ns = SECOND};
    balloon_policy_step(&policy, &s);
    cr_expect_eq(policy.target, GIB / 2);
}

Test(balloon_policy, a_burst_in_the_guest_is_answered_with_the_next_sample)
{
    struct world w = world_of(16 * GIB, 15 * GIB);
    struct vm *vm = add_vm(&w, 4 * GIB, GIB);
    pass(&w, 300);
    uint64_t before = vm->policy.target;
    vm->used += 200 * MIB; /* of the 256 MiB of headroom */
    pass(&w, 1);
    cr_expect_eq(vm->reason, BALLOON_GUEST_NEEDS);
    cr_expect_geq(before - vm->policy.target, 150 * MIB);
    pass(&w, 1);
    cr_expect_geq(available(vm), headroom(vm));
    pass(&w, 4);
    cr_expect_leq(vm->policy.target, idle(vm), "and nothing is taken for a while");
}

Test(balloon_policy, pages_taken_back_are_answered_with_the_next_sample)
{
    struct world w = world_of(16 * GIB, 15 * GIB);
    struct vm *vm = add_vm(&w, 4 * GIB, GIB);
    pass(&w, 300);
    vm->silent = true; /* it has no time for statistics */
    vm->used += 600 * MIB;
    pass(&w, 1);
    cr_expect_eq(vm->reason, BALLOON_GUEST_SHORT);
    cr_expect_leq(vm->policy.target, vm->actual - vm->memory / 8);
}

Test(balloon_policy, a_killed_process_empties_the_balloon)
{
    struct world w = world_of(16 * GIB, 15 * GIB);
    struct vm *vm = add_vm(&w, 4 * GIB, GIB);
    pass(&w, 300);
    cr_assert_gt(vm->policy.target, GIB);
    vm->oom_kills++;
    pass(&w, 1);
    cr_expect_eq(vm->reason, BALLOON_GUEST_OOM);
    cr_expect_eq(vm->policy.target, 0);
    pass(&w, 9);
    cr_expect_eq(vm->policy.target, 0, "10 seconds of rest");
    pass(&w, 5);
    cr_expect_gt(vm->policy.target, 0, "and no more");
}

Test(balloon_policy, the_rest_grows_with_each_time_it_is_needed)
{
    struct world w = world_of(16 * GIB, 15 * GIB);
    struct vm *vm = add_vm(&w, 4 * GIB, GIB);
    static const unsigned rests[] = {10, 20, 40, 80, 160, 160};
    pass(&w, 300);
    for (size_t i = 0; i < COUNT(rests); i++) {
        unsigned rest = 0;
        vm->swap_out += GIB;
        pass(&w, 1);
        cr_expect_eq(vm->reason, BALLOON_GUEST_SHORT, "%zu", i);
        for (; vm->reason != BALLOON_HOST_SHORT && rest < 400; rest++)
            pass(&w, 1);
        cr_expect(rest >= rests[i] && rest <= rests[i] + 6, "%zu: %u s", i, rest);
    }
}

Test(balloon_policy, a_ramp_of_want_on_the_host_is_followed)
{
    struct world w = world_of(16 * GIB, 10 * GIB);
    struct vm *vm = add_vm(&w, 4 * GIB, GIB);
    uint64_t last = 0;
    for (unsigned i = 0; i < 60; i++) {
        pass(&w, 2);
        cr_expect_geq(vm->policy.target, last, "it never falls");
        last = vm->policy.target;
        w.others += 64 * MIB;
    }
    cr_expect_gt(last, GIB);
    cr_expect_eq(vm->turns, 0);
    w.others = 8 * GIB; /* all over */
    pass(&w, 300);
    cr_expect_eq(vm->policy.target, 0, "and all is given back");
    cr_expect_eq(vm->turns, 1);
}

Test(balloon_policy, the_rate_is_bounded)
{
    struct world w = world_of(16 * GIB, 12 * GIB + 512 * MIB);
    struct vm *vm = add_vm(&w, 4 * GIB, 0);
    w.others = 11 * GIB;
    for (unsigned i = 0; i < 100; i++) {
        uint64_t before = vm->policy.target;
        pass(&w, 1);
        cr_expect_leq(vm->policy.target - before, vm->memory / 16);
    }
    cr_expect_gt(vm->policy.target, 0);
}

Test(balloon_policy, a_guest_that_does_not_follow_is_not_asked_for_more)
{
    struct world w = world_of(16 * GIB, 15 * GIB);
    struct vm *vm = add_vm(&w, 4 * GIB, GIB);
    for (unsigned i = 0; i < 100; i++) {
        w.now += SECOND;
        sample(&w, vm, host_available(&w)); /* it never lives */
    }
    cr_expect_leq(vm->policy.target, vm->memory / 8);
}

Test(balloon_policy, stalls_count_where_memory_looks_plenty)
{
    struct world w = world_of(16 * GIB, 4 * GIB);
    struct vm *vm = add_vm(&w, 4 * GIB, GIB);
    pass(&w, 10);
    cr_expect_eq(vm->policy.target, 0);
    w.stalled = true;
    pass(&w, 10);
    cr_expect_gt(vm->policy.target, GIB);
    w.stalled = false;
    pass(&w, 120);
    cr_expect_eq(vm->policy.target, 0);
}

/* A host that has want and plenty by turns, whatever the period: few turns. */
Test(balloon_policy, oscillation_is_bounded)
{
    for (unsigned period = 1; period <= 60; period++) {
        struct world w = world_of(16 * GIB, 10 * GIB);
        struct vm *vm = add_vm(&w, 4 * GIB, GIB);
        for (unsigned i = 0; i < 600; i++) {
            w.others = i / period % 2 ? 14 * GIB : 6 * GIB;
            pass(&w, 1);
        }
        cr_expect_leq(vm->turns, 600 / 5, "period %u: %u turns", period, vm->turns);
        cr_expect_leq(vm->turns, 600 / period, "period %u: %u turns", period, vm->turns);
    }
}

/* A guest at its headroom whose use goes up and down a little. */
Test(balloon_policy, a_guest_that_breathes_is_left_alone)
{
    struct world w = world_of(16 * GIB, 15 * GIB);
    struct vm *vm = add_vm(&w, 4 * GIB, GIB);
    pass(&w, 300);
    vm->turns = vm->changes = 0;
    for (unsigned i = 0; i < 600; i++) {
        vm->used = GIB + (i % 7) * 8 * MIB;
        pass(&w, 1);
    }
    cr_expect_leq(vm->turns, 4, "%u turns", vm->turns);
}

Test(balloon_policy, without_statistics_it_stays_as_it_is)
{
    struct world w = world_of(16 * GIB, 15 * GIB);
    struct vm *vm = add_vm(&w, 4 * GIB, GIB);
    pass(&w, 20);
    vm->silent = true;
    live(vm);
    uint64_t before = vm->policy.target;
    pass(&w, 600);
    cr_expect_eq(vm->policy.target, before);
    cr_expect_gt(before, 0);
}

/* ---- hostile guests ------------------------------------------------------------------------ */

static uint64_t wild(unsigned short random[3], uint64_t memory)
{
    static const uint64_t odd[] = {0, 1, 4095, UINT64_MAX, UINT64_MAX - 4096, 1ull << 63};
    uint64_t number = (uint64_t)jrand48(random) << 32 ^ (uint64_t)jrand48(random);
    switch (nrand48(random) % 4) {
    case 0:
        return odd[nrand48(random) % (long)COUNT(odd)];
    case 1:
        return number;
    default:
        return number % (2 * memory);
    }
}

Test(balloon_policy, F9_whatever_a_guest_says_it_keeps_its_floor)
{
    unsigned short random[3] = {1, 2, 3};
    for (unsigned round = 0; round < 200; round++) {
        uint64_t memory = (1 + (uint64_t)nrand48(random) % 4096) * MIB;
        struct balloon_policy policy = {.memory = memory,
                                        .floor = memory / (1 + (uint64_t)nrand48(random) % 9),
                                        .reserve = round % 2 ? wild(random, memory) : 0};
        struct balloon_sample s = {.now_ns = SECOND};
        for (unsigned i = 0; i < 500; i++) {
            uint64_t *numbers = (uint64_t *)&s.guest;
            for (unsigned n = 0; n < offsetof(struct minivmm_balloon_stats, present) / 8; n++)
                numbers[n] = wild(random, memory);
            s.guest.present = (uint32_t)jrand48(random);
            s.now_ns += (uint64_t)nrand48(random);
            s.actual = wild(random, memory) & ~4095ull;
            s.stats_actual = wild(random, memory);
            s.has_guest = nrand48(random) % 8;
            s.has_host = nrand48(random) % 8;
            s.host_stalled = nrand48(random) % 2;
            s.host_total = wild(random, memory);
            s.host_available = wild(random, memory);
            enum balloon_reason reason = balloon_policy_step(&policy, &s);
            cr_assert_leq(policy.target, memory - policy.floor);
            cr_assert_eq(policy.target % 4096, 0);
            cr_assert(reason < BALLOON_REASONS && balloon_reason_text(reason));
        }
    }
}

Test(balloon_policy, F9_impossible_statistics_are_none)
{
    static const struct {
        const char *name;
        struct minivmm_balloon_stats stats;
        bool believed;
    } rows[] = {
        {"possible", {.available_memory = GIB, .present = TAG(AVAIL)}, true},
        {"free in place of available", {.free_memory = GIB, .present = TAG(MEMFREE)}, true},
        {"neither", {.available_memory = GIB, .free_memory = GIB, .present = TAG(MEMTOT)}, false},
        {"more available than there is",
         {.available_memory = 3 * GIB, .present = TAG(AVAIL)},
         false},
        {"more free than there is",
         {.available_memory = GIB, .free_memory = 3 * GIB, .present = TAG(AVAIL) | TAG(MEMFREE)},
         false},
        {"more than the VM has",
         {.available_memory = GIB, .total_memory = 3 * GIB, .present = TAG(AVAIL) | TAG(MEMTOT)},
         false},
        {"the largest number", {.available_memory = UINT64_MAX, .present = TAG(AVAIL)}, false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct balloon_policy policy = {.memory = 2 * GIB, .floor = 256 * MIB};
        const struct balloon_sample s = {.now_ns = SECOND,
                                         .has_guest = true,
                                         .guest = rows[i].stats,
                                         .has_host = true,
                                         .host_total = 8 * GIB};
        balloon_policy_step(&policy, &s);
        cr_expect_eq(policy.target > 0, rows[i].believed, "%s", rows[i].name);
    }
}

/* ---- several VMs under one budget ---------------------------------------------------------- */

static void expect_fair(const struct world *w, unsigned percent)
{
    double low = 1, high = 0;
    for (unsigned i = 0; i < w->count; i++) {
        double share = (double)w->vms[i].actual / (double)idle(&w->vms[i]);
        low = share < low ? share : low;
        high = share > high ? share : high;
    }
    cr_expect_geq(low, 0.05);
    cr_expect_leq(high - low, percent / 100.0, "shares from %.3f to %.3f", low, high);
}

Test(balloon_policy, VMs_give_the_same_share_of_what_they_have_idle)
{
    for (unsigned count = 2; count <= VMS; count++) {
        struct world w = world_of(0, 0);
        uint64_t all = 0;
        w.reserve = 2 * GIB;
        for (unsigned i = 0; i < count; i++)
            all += add_vm(&w, (1 + i % 4) * GIB, (100 + 150 * i) * MIB % (512 * MIB))->memory;
        w.host = all + 2 * GIB + 256 * MIB; /* far below twice the reserve */
        pass(&w, 300);
        expect_fair(&w, 10);
        cr_expect_geq(host_available(&w), w.reserve);
        unsigned changes = 0;
        for (unsigned i = 0; i < count; i++)
            changes += w.vms[i].changes;
        pass(&w, 300);
        for (unsigned i = 0; i < count; i++)
            changes -= w.vms[i].changes;
        cr_expect_geq((int)changes, -8 * (int)count, "%u VMs: %d more changes", count,
                      -(int)changes);
    }
}

Test(balloon_policy, VMs_that_join_later_are_as_well_off)
{
    struct world w = world_of(12 * GIB, 2 * GIB);
    w.reserve = 2 * GIB;
    add_vm(&w, 4 * GIB, GIB);
    pass(&w, 200);
    add_vm(&w, 2 * GIB, 256 * MIB);
    pass(&w, 200);
    add_vm(&w, 2 * GIB, 512 * MIB);
    pass(&w, 400);
    expect_fair(&w, 10);
}

/* One of them needs what the others then give. */
Test(balloon_policy, a_VM_in_need_is_served_by_the_others)
{
    struct world w = world_of(12 * GIB, 0);
    w.reserve = GIB;
    for (unsigned i = 0; i < 4; i++)
        add_vm(&w, 3 * GIB, 512 * MIB);
    pass(&w, 300);
    uint64_t before = w.vms[1].actual;
    for (unsigned i = 0; i < 20; i++) { /* 2 GiB in 20 s */
        w.vms[0].used += 100 * MIB;
        pass(&w, 1);
    }
    pass(&w, 300);
    cr_expect_eq(w.vms[0].oom_kills, 0);
    cr_expect_geq(available(&w.vms[0]), headroom(&w.vms[0]));
    cr_expect_gt(w.vms[1].actual, before);
    cr_expect_gt(host_available(&w), GIB / 2);
}

/* A host with far more idle memory in its VMs than its reserve: the loop must not ring. */
Test(balloon_policy, a_small_reserve_among_many_VMs_does_not_ring)
{
    struct world w = world_of(32 * GIB + 128 * MIB, 0);
    w.reserve = 256 * MIB;
    for (unsigned i = 0; i < VMS; i++)
        add_vm(&w, 4 * GIB, 256 * MIB);
    pass(&w, 300);
    for (unsigned i = 0; i < VMS; i++)
        w.vms[i].turns = w.vms[i].changes = 0;
    pass(&w, 600);
    for (unsigned i = 0; i < VMS; i++)
        cr_expect_leq(w.vms[i].turns, 10, "VM %u: %u turns", i, w.vms[i].turns);
}
