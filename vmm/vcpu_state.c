#include "vmm/vcpu_state.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/arch_x86.h"

#define MSR_LSTAR 0xc0000082u /* Intel SDM volume 4: where SYSCALL goes in 64-bit mode */
#define EFER_LMA  (1ull << 10)
#define PAGE_SIZE 4096u

/* Intel SDM volume 3, 6.14.1: a gate of a 64-bit interrupt table. */
struct gate {
    uint16_t offset_low;
    uint16_t selector;
    uint16_t flags;
    uint16_t offset_middle;
    uint32_t offset_high;
    uint32_t reserved;
};
#define VECTOR_NMI 2u

/*
 * Copy from guest-virtual memory as the vCPU sees it; how many bytes could be had. KVM walks the
 * page tables, in whatever mode the vCPU is, and the result is checked like every other address.
 */
static size_t read_virtual(const struct vcpu *vcpu, const struct guest_mem *mem, uint64_t address,
                           void *to, size_t size)
{
    size_t done = 0;

    while (done < size) {
        struct kvm_translation at = {.linear_address = address + done};
        uint64_t run = PAGE_SIZE - at.linear_address % PAGE_SIZE;
        if (run > size - done)
            run = size - done;
        if (ioctl(vcpu->fd, KVM_TRANSLATE, &at) < 0 || !at.valid)
            break;
        const void *from = guest_mem_at(mem, at.physical_address, run);
        if (!from)
            break;
        memcpy((char *)to + done, from, run);
        done += run;
    }
    return done;
}

static void take_activity(struct vcpu_state *state, const struct vcpu *vcpu)
{
    static const char *const names[] = {
        [KVM_MP_STATE_RUNNABLE] = "runs",
        [KVM_MP_STATE_UNINITIALIZED] = "was never started",
        [KVM_MP_STATE_INIT_RECEIVED] = "waits for SIPI",
        [KVM_MP_STATE_HALTED] = "halted",
    };
    struct kvm_mp_state mp;

    state->activity = "in a state of its own";
    if (ioctl(vcpu->fd, KVM_GET_MP_STATE, &mp) < 0)
        return;
    if (mp.mp_state < sizeof(names) / sizeof(names[0]) && names[mp.mp_state])
        state->activity = names[mp.mp_state];
    state->runs = mp.mp_state == KVM_MP_STATE_RUNNABLE;
    state->halted = mp.mp_state == KVM_MP_STATE_HALTED;
}

static uint64_t read_msr(const struct vcpu *vcpu, uint32_t index)
{
    union {
        struct kvm_msrs header;
        char bytes[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } msrs;
    memset(&msrs, 0, sizeof(msrs));
    msrs.header.nmsrs = 1;
    msrs.header.entries[0].index = index;
    return ioctl(vcpu->fd, KVM_GET_MSRS, &msrs) == 1 ? msrs.header.entries[0].data : 0;
}

static uint64_t read_nmi_entry(const struct vcpu *vcpu, const struct guest_mem *mem,
                               const struct kvm_sregs *sregs)
{
    struct gate gate;
    const uint64_t at = VECTOR_NMI * sizeof(gate);

    if (!(sregs->efer & EFER_LMA) || sregs->idt.limit < at + sizeof(gate) - 1 ||
        read_virtual(vcpu, mem, sregs->idt.base + at, &gate, sizeof(gate)) != sizeof(gate))
        return 0;
    return gate.offset_low | (uint64_t)gate.offset_middle << 16 | (uint64_t)gate.offset_high << 32;
}

static void take_stack(struct vcpu_state *state, const struct vcpu *vcpu,
                       const struct guest_mem *mem, uint64_t rsp)
{
    const size_t size = VCPU_STACK_WORDS * sizeof(state->stack[0]);

    state->stack = malloc(size);
    if (state->stack)
        state->stack_words =
            (unsigned)(read_virtual(vcpu, mem, rsp & ~7ull, state->stack, size) / 8);
}

/* What a function prints about the vCPU, as a text; NULL without memory. */
static char *printed(void (*print)(const struct vcpu *vcpu, FILE *out), const struct vcpu *vcpu)
{
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);

    if (!out)
        return NULL;
    print(vcpu, out);
    if (fclose(out) != 0) {
        free(text);
        text = NULL;
    }
    return text;
}

static void print_registers(const struct vcpu *vcpu, FILE *out)
{
    arch_print_registers(vcpu->fd, out);
}

void vcpu_state_take(struct vcpu_state *state, const struct vcpu *vcpu, const struct guest_mem *mem,
                     bool full)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    *state = (struct vcpu_state){.taken = true};
    take_activity(state, vcpu);
    state->known =
        ioctl(vcpu->fd, KVM_GET_REGS, &regs) == 0 && ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) == 0;
    if (state->known) {
        state->rip = regs.rip;
        state->user = (sregs.cs.selector & 3) == 3;
        state->syscall_entry = read_msr(vcpu, MSR_LSTAR);
        state->nmi_entry = read_nmi_entry(vcpu, mem, &sregs);
    }
    if (!full)
        return;
    state->registers = printed(print_registers, vcpu);
    state->log = printed(vcpu_print_log, vcpu);
    if (state->known && !state->user)
        take_stack(state, vcpu, mem, regs.rsp);
}

void vcpu_state_finish(struct vcpu_state *state)
{
    free(state->registers);
    free(state->log);
    free(state->stack);
    *state = (struct vcpu_state){0};
}

int vcpu_inject_nmi(const struct vcpu *vcpu)
{
    return ioctl(vcpu->fd, KVM_NMI) < 0 ? -errno : 0;
}
