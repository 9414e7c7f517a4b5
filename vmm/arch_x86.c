#include "vmm/arch_x86.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

/* Intel SDM volume 3, 2.5 and 2.2.1 */
#define CR0_PE   (1ull << 0)
#define CR0_ET   (1ull << 4)
#define CR0_PG   (1ull << 31)
#define CR4_PAE  (1ull << 5)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)

#define RFLAGS_FIXED 2u /* bit 1 is always 1 */

/* Intel SDM volume 4 */
#define MSR_MISC_ENABLE         0x1a0u
#define MISC_ENABLE_FAST_STRING 1u
#define MSR_MTRR_DEF_TYPE       0x2ffu
#define MTRR_ENABLE_WRITE_BACK  (1u << 11 | 6u)

#define SEGMENT_CODE 0xbu /* execute, read, accessed */
#define SEGMENT_DATA 0x3u /* read, write, accessed */
#define SEGMENT_TSS  0xbu /* busy 64-bit TSS, which VM entry demands */

int arch_cpuid(const struct kvm *kvm, unsigned cpus, struct cpuid *cpuid, struct minivmm_error *err)
{
    cpuid->table.nent = CPUID_ENTRIES_MAX - 8; /* what cpuid_adapt may add */
    if (ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, &cpuid->table) < 0)
        return error_set(err, -errno, "KVM: KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
    const struct cpuid_facts facts = {
        .cpus = cpus, .tsc_khz = kvm->tsc_khz, .tsc_deadline = kvm->tsc_deadline};
    cpuid_adapt(cpuid, &facts);
    return 0;
}

/*
 * What firmware leaves in two MSRs and Linux reads: without fast strings it gives up REP MOVSB, and
 * without an enabled MTRR it gives up the page attribute table. A KVM that does not know one of
 * them costs the guest speed, not its life, so the answer is not looked at.
 */
static void set_msrs(int vcpu_fd)
{
    union {
        struct kvm_msrs header;
        char bytes[sizeof(struct kvm_msrs) + 2 * sizeof(struct kvm_msr_entry)];
    } msrs;
    memset(&msrs, 0, sizeof(msrs));
    msrs.header.nmsrs = 2;
    msrs.header.entries[0] =
        (struct kvm_msr_entry){.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE_WRITE_BACK};
    msrs.header.entries[1] =
        (struct kvm_msr_entry){.index = MSR_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING};
    ioctl(vcpu_fd, KVM_SET_MSRS, &msrs);
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool code)
{
    return (struct kvm_segment){.limit = 0xffffffff,
                                .selector = selector,
                                .type = type,
                                .present = 1,
                                .s = 1,
                                .l = code,
                                .db = !code,
                                .g = 1};
}

/* The 64-bit entry of the boot protocol: boot.rst, "64-bit Boot Protocol". */
static int set_entry(int vcpu_fd, const struct boot_entry *entry, struct minivmm_error *err)
{
    struct kvm_sregs sregs;
    if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return error_set(err, -errno, "KVM: KVM_GET_SREGS: %s", strerror(errno));

    sregs.cs = flat_segment(entry->code_selector, SEGMENT_CODE, true);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss =
        flat_segment(entry->data_selector, SEGMENT_DATA, false);
    sregs.tr = (struct kvm_segment){.limit = 0xffff, .type = SEGMENT_TSS, .present = 1};
    sregs.gdt.base = entry->gdt;
    sregs.gdt.limit = entry->gdt_limit;
    sregs.idt.limit = 0;
    sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
    sregs.cr3 = entry->cr3;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
    if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) < 0)
        return error_set(err, -errno, "KVM: KVM_SET_SREGS: %s", strerror(errno));

    const struct kvm_regs regs = {.rip = entry->rip, .rsi = entry->rsi, .rflags = RFLAGS_FIXED};
    if (ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0)
        return error_set(err, -errno, "KVM: KVM_SET_REGS: %s", strerror(errno));
    return 0;
}

int arch_vcpu_setup(int vcpu_fd, unsigned index, struct cpuid *cpuid,
                    const struct boot_entry *entry, struct minivmm_error *err)
{
    cpuid_set_apic_id(cpuid, index);
    if (ioctl(vcpu_fd, KVM_SET_CPUID2, &cpuid->table) < 0)
        return error_set(err, -errno, "KVM: KVM_SET_CPUID2: %s", strerror(errno));
    set_msrs(vcpu_fd);
    return index == 0 ? set_entry(vcpu_fd, entry, err) : 0;
}

static void print_segment(FILE *out, const char *name, const struct kvm_segment *segment)
{
    fprintf(out, "  %s=%04x base %016llx limit %08x type %x%s%s\n", name, segment->selector,
            (unsigned long long)segment->base, segment->limit, segment->type,
            segment->l ? " 64-bit" : "", segment->present ? "" : " absent");
}

void arch_print_registers(int vcpu_fd, FILE *out)
{
    struct kvm_regs r;
    struct kvm_sregs s;

    if (ioctl(vcpu_fd, KVM_GET_REGS, &r) < 0 || ioctl(vcpu_fd, KVM_GET_SREGS, &s) < 0) {
        fprintf(out, "  registers: %s\n", strerror(errno));
        return;
    }
    const struct {
        const char *name;
        unsigned long long value;
    } rows[] = {{"rip", r.rip}, {"rflags", r.rflags}, {"rsp", r.rsp},  {"rbp", r.rbp},
                {"rax", r.rax}, {"rbx", r.rbx},       {"rcx", r.rcx},  {"rdx", r.rdx},
                {"rsi", r.rsi}, {"rdi", r.rdi},       {"r8", r.r8},    {"r9", r.r9},
                {"r10", r.r10}, {"r11", r.r11},       {"r12", r.r12},  {"r13", r.r13},
                {"r14", r.r14}, {"r15", r.r15},       {"cr0", s.cr0},  {"cr2", s.cr2},
                {"cr3", s.cr3}, {"cr4", s.cr4},       {"efer", s.efer}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        fprintf(out, "%s%-6s %016llx%s", i % 3 ? "" : "  ", rows[i].name, rows[i].value,
                i % 3 == 2 || i + 1 == sizeof(rows) / sizeof(rows[0]) ? "\n" : "  ");
    print_segment(out, "cs", &s.cs);
    print_segment(out, "ss", &s.ss);
    fprintf(out, "  gdt %016llx limit %04x  idt %016llx limit %04x\n",
            (unsigned long long)s.gdt.base, s.gdt.limit, (unsigned long long)s.idt.base,
            s.idt.limit);
}
