#include "vmm/cpuid.h"

#include <string.h>

enum {
    LEAF_VENDOR = 0x0,
    LEAF_FEATURES = 0x1,
    LEAF_CACHES = 0x4,
    LEAF_TOPOLOGY = 0xb,
    LEAF_TSC = 0x15,
    LEAF_TOPOLOGY_V2 = 0x1f,
    LEAF_HYPERVISOR = 0x40000000,
    LEAF_TIMING = 0x40000010,
};
#define LEAF_AMD_SIZES    0x80000008u
#define LEAF_AMD_CACHES   0x8000001du
#define LEAF_AMD_TOPOLOGY 0x8000001eu

#define FEATURE_ECX_TSC_DEADLINE (1u << 24)
/* Says that there is a hypervisor at all; KVM leaves it to us, and guests look for KVM only with
 * it. */
#define FEATURE_ECX_HYPERVISOR (1u << 31)
#define FEATURE_EDX_HTT        (1u << 28)

#define LEVEL_SMT  1u
#define LEVEL_CORE 2u

/* KVM's local APIC timer counts at 1 GHz; leaf 0x15 must agree, for guests derive one from the
 * other. */
#define APIC_BUS_HZ 1000000000u

static struct kvm_cpuid_entry2 *find(struct cpuid *cpuid, uint32_t function)
{
    for (uint32_t i = 0; i < cpuid->table.nent; i++) {
        if (cpuid->table.entries[i].function == function)
            return &cpuid->table.entries[i];
    }
    return NULL;
}

static void drop(struct cpuid *cpuid, uint32_t function)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < cpuid->table.nent; i++) {
        if (cpuid->table.entries[i].function != function)
            cpuid->table.entries[kept++] = cpuid->table.entries[i];
    }
    cpuid->table.nent = kept;
}

static void add(struct cpuid *cpuid, const struct kvm_cpuid_entry2 *entry)
{
    if (cpuid->table.nent < CPUID_ENTRIES_MAX)
        cpuid->table.entries[cpuid->table.nent++] = *entry;
}

static bool is_amd(struct cpuid *cpuid)
{
    const struct kvm_cpuid_entry2 *vendor = find(cpuid, LEAF_VENDOR);
    return vendor && (memcmp(&vendor->ebx, "Auth", 4) == 0 || memcmp(&vendor->ebx, "Hygo", 4) == 0);
}

/* The number of APIC id bits that `cpus` vCPUs take. */
static uint32_t id_bits(unsigned cpus)
{
    uint32_t bits = 0;
    while ((1u << bits) < cpus)
        bits++;
    return bits;
}

/* Leaf 4 and 0x8000001d: caches of levels 1 and 2 belong to a core, those above to the package. */
static void adapt_caches(struct kvm_cpuid_entry2 *entry, unsigned cpus)
{
    uint32_t level = (entry->eax >> 5) & 7;
    uint32_t sharing = level >= 3 ? (1u << id_bits(cpus)) - 1 : 0;
    entry->eax = (entry->eax & ~(0xfffu << 14)) | sharing << 14;
    if (entry->function == LEAF_CACHES) {
        uint32_t cores = cpus < 64 ? cpus - 1 : 63;
        entry->eax = (entry->eax & 0x03ffffffu) | cores << 26;
    }
}

static void add_topology(struct cpuid *cpuid, unsigned cpus)
{
    const struct kvm_cpuid_entry2 smt = {.function = LEAF_TOPOLOGY,
                                         .index = 0,
                                         .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                                         .eax = 0,
                                         .ebx = 1,
                                         .ecx = LEVEL_SMT << 8 | 0};
    const struct kvm_cpuid_entry2 core = {.function = LEAF_TOPOLOGY,
                                          .index = 1,
                                          .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                                          .eax = id_bits(cpus),
                                          .ebx = cpus,
                                          .ecx = LEVEL_CORE << 8 | 1};
    add(cpuid, &smt);
    add(cpuid, &core);
}

static void adapt_entry(struct kvm_cpuid_entry2 *entry, const struct cpuid_facts *facts, bool amd)
{
    unsigned cpus = facts->cpus;

    switch (entry->function) {
    case LEAF_FEATURES:
        entry->ebx = (entry->ebx & 0xff00ffffu) | cpus << 16;
        entry->ecx |= FEATURE_ECX_HYPERVISOR;
        if (facts->tsc_deadline)
            entry->ecx |= FEATURE_ECX_TSC_DEADLINE;
        entry->edx &= ~FEATURE_EDX_HTT;
        if (cpus > 1)
            entry->edx |= FEATURE_EDX_HTT;
        break;
    case LEAF_CACHES:
    case LEAF_AMD_CACHES:
        if (entry->eax & 0x1f) /* a cache type of 0 ends the list */
            adapt_caches(entry, cpus);
        break;
    case LEAF_TSC:
        if (!amd && facts->tsc_khz) {
            /* TSC frequency = crystal * ebx / eax */
            entry->eax = APIC_BUS_HZ / 1000;
            entry->ebx = facts->tsc_khz;
            entry->ecx = APIC_BUS_HZ;
        }
        break;
    case LEAF_HYPERVISOR:
        if (facts->tsc_khz && entry->eax < LEAF_TIMING)
            entry->eax = LEAF_TIMING;
        break;
    case LEAF_AMD_SIZES:
        if (amd)
            entry->ecx = (entry->ecx & ~0xf0ffu) | id_bits(cpus) << 12 | (cpus - 1);
        break;
    case LEAF_AMD_TOPOLOGY:
        entry->ecx = 0; /* node 0 of 1 */
        break;
    default:
        break;
    }
}

void cpuid_adapt(struct cpuid *cpuid, const struct cpuid_facts *facts)
{
    bool amd = is_amd(cpuid);

    const struct kvm_cpuid_entry2 *vendor = find(cpuid, LEAF_VENDOR);
    bool topology = vendor && vendor->eax >= LEAF_TOPOLOGY;
    drop(cpuid, LEAF_TOPOLOGY);
    drop(cpuid, LEAF_TOPOLOGY_V2); /* says the same as 0xb where there are no dies or tiles */
    if (topology)
        add_topology(cpuid, facts->cpus);

    for (uint32_t i = 0; i < cpuid->table.nent; i++)
        adapt_entry(&cpuid->table.entries[i], facts, amd);

    if (facts->tsc_khz && find(cpuid, LEAF_HYPERVISOR) && !find(cpuid, LEAF_TIMING)) {
        const struct kvm_cpuid_entry2 timing = {
            .function = LEAF_TIMING, .eax = facts->tsc_khz, .ebx = APIC_BUS_HZ / 1000};
        add(cpuid, &timing);
    }
}

void cpuid_set_apic_id(struct cpuid *cpuid, uint32_t apic_id)
{
    for (uint32_t i = 0; i < cpuid->table.nent; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->table.entries[i];
        if (entry->function == LEAF_FEATURES)
            entry->ebx = (entry->ebx & 0x00ffffffu) | apic_id << 24;
        else if (entry->function == LEAF_TOPOLOGY)
            entry->edx = apic_id;
        else if (entry->function == LEAF_AMD_TOPOLOGY) {
            entry->eax = apic_id;
            entry->ebx = (entry->ebx & 0xffff0000u) | (apic_id & 0xff); /* 1 thread a core */
        }
    }
}
