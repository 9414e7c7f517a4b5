#include <string.h>

#include "tests/unit/support.h"
#include "vmm/cpuid.h"

SUITE(cpuid);

#define ECX_HYPERVISOR   (1u << 31)
#define ECX_TSC_DEADLINE (1u << 24)
#define EDX_HTT          (1u << 28) /* topology, not a feature: more than one processor */
#define TSC_KHZ          2900000u

static const unsigned cpu_counts[] = {1, 2, 3, 254};
static const uint32_t id_bits[] = {0, 1, 2, 8};

static void put(struct cpuid *cpuid, uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx,
                uint32_t ecx, uint32_t edx)
{
    cpuid->table.entries[cpuid->table.nent++] = (struct kvm_cpuid_entry2){
        .function = function, .index = index, .eax = eax, .ebx = ebx, .ecx = ecx, .edx = edx};
}

static void put_vendor(struct cpuid *cpuid, const char *vendor, uint32_t leaves)
{
    uint32_t words[3];
    memcpy(words, vendor, sizeof(words));
    put(cpuid, 0, 0, leaves, words[0], words[2], words[1]);
}

/* Made up, as KVM would answer on hosts with many processors and threads. */
static void make_intel(struct cpuid *cpuid)
{
    memset(cpuid, 0, sizeof(*cpuid));
    put_vendor(cpuid, "GenuineIntel", 0x1f);
    put(cpuid, 1, 0, 0x000606a6, 0x07400800, 0x76fa3203, 0x178bfbff);
    put(cpuid, 4, 0, 0xfc004121, 0x02c0003f, 0x3f, 0);   /* L1 data, 64 cores, 2 threads */
    put(cpuid, 4, 2, 0xfc004143, 0x04c0003f, 0x3ff, 0);  /* L2 */
    put(cpuid, 4, 3, 0xfc1fc163, 0x02c0003f, 0xdfff, 4); /* L3, shared by 128 */
    put(cpuid, 4, 4, 0, 0, 0, 0);                        /* the end of the list */
    put(cpuid, 7, 0, 0, 0x209c01a9, 0x40000000, 0xac000400);
    put(cpuid, 0xb, 0, 1, 2, 0x100, 7);
    put(cpuid, 0xb, 1, 7, 128, 0x201, 7);
    put(cpuid, 0xd, 0, 7, 832, 832, 0);
    put(cpuid, 0x15, 0, 2, 232, 25000000, 0);
    put(cpuid, 0x1f, 0, 1, 2, 0x100, 7);
    put(cpuid, 0x1f, 1, 7, 128, 0x201, 7);
    put(cpuid, 0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
    put(cpuid, 0x40000001, 0, 0x01007efb, 0, 0, 0);
    put(cpuid, 0x80000008, 0, 0x302e, 0x100d000, 0xabcd, 0);
}

static void make_amd(struct cpuid *cpuid)
{
    memset(cpuid, 0, sizeof(*cpuid));
    put_vendor(cpuid, "AuthenticAMD", 0x10);
    put(cpuid, 1, 0, 0x00a20f10, 0x05200800, 0x76f83203, 0x178bfbff);
    put(cpuid, 0xb, 0, 1, 2, 0x100, 5);
    put(cpuid, 0xb, 1, 5, 32, 0x201, 5);
    put(cpuid, 0x15, 0, 1, 2, 3, 0);
    put(cpuid, 0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d);
    put(cpuid, 0x80000001, 0, 0x00a20f10, 0x20000000, 0x75c237ff, 0x2fd3fbff);
    put(cpuid, 0x80000008, 0, 0x3030, 0x111ef257, 0x0001501f, 0);
    put(cpuid, 0x8000001d, 0, 0x4121, 0x1c0003f, 0x3f, 0);
    put(cpuid, 0x8000001d, 3, 0x3c163, 0x3c0003f, 0x7fff, 1);
    put(cpuid, 0x8000001e, 0, 5, 0x102, 0x301, 0);
}

static void (*const makers[])(struct cpuid *) = {make_intel, make_amd};
static const char *const vendors[] = {"Intel", "AMD"};

static struct kvm_cpuid_entry2 *leaf(struct cpuid *cpuid, uint32_t function, uint32_t index)
{
    for (uint32_t i = 0; i < cpuid->table.nent; i++) {
        struct kvm_cpuid_entry2 *entry = &cpuid->table.entries[i];
        if (entry->function == function && entry->index == index)
            return entry;
    }
    return NULL;
}

static void adapt(struct cpuid *cpuid, unsigned cpus, bool deadline)
{
    const struct cpuid_facts facts = {.cpus = cpus, .tsc_khz = TSC_KHZ, .tsc_deadline = deadline};
    cpuid_adapt(cpuid, &facts);
}

Test(cpuid, sets_no_feature_that_kvm_does_not_offer)
{
    static const uint32_t features[] = {1, 7, 0xd, 0x40000001, 0x80000001};
    for (unsigned v = 0; v < COUNT(makers); v++) {
        for (unsigned deadline = 0; deadline < 2; deadline++) {
            struct cpuid before, after;
            makers[v](&before);
            after = before;
            adapt(&after, 4, deadline);
            for (size_t i = 0; i < COUNT(features); i++) {
                struct kvm_cpuid_entry2 *old = leaf(&before, features[i], 0);
                struct kvm_cpuid_entry2 want = old ? *old : (struct kvm_cpuid_entry2){0};
                const struct kvm_cpuid_entry2 *now = leaf(&after, features[i], 0);
                if (!old)
                    continue;
                if (features[i] == 1) {
                    want.ecx |= ECX_HYPERVISOR | (deadline ? ECX_TSC_DEADLINE : 0);
                    want.edx |= EDX_HTT;
                    want.ebx = now->ebx; /* counts, below */
                }
                cr_expect_eq(memcmp(&want, now, sizeof(want)), 0, "%s, leaf 0x%x", vendors[v],
                             features[i]);
            }
        }
    }
}

Test(cpuid, tells_one_package_of_single_threaded_cores)
{
    for (unsigned v = 0; v < COUNT(makers); v++) {
        for (size_t i = 0; i < COUNT(cpu_counts); i++) {
            const unsigned cpus = cpu_counts[i];
            struct cpuid cpuid;
            makers[v](&cpuid);
            adapt(&cpuid, cpus, true);
            const struct kvm_cpuid_entry2 *one = leaf(&cpuid, 1, 0);
            cr_expect_eq((one->ebx >> 16) & 0xff, cpus, "%s, %u", vendors[v], cpus);
            cr_expect_eq(one->ebx & 0xffff, 0x0800, "%s, %u: the rest stays", vendors[v], cpus);
            cr_expect_eq(!!(one->edx & EDX_HTT), cpus > 1, "%s, %u", vendors[v], cpus);

            const struct kvm_cpuid_entry2 *smt = leaf(&cpuid, 0xb, 0);
            const struct kvm_cpuid_entry2 *core = leaf(&cpuid, 0xb, 1);
            cr_assert(smt && core && !leaf(&cpuid, 0xb, 2));
            cr_expect_eq(smt->eax, 0, "%s, %u: no bits for threads", vendors[v], cpus);
            cr_expect_eq(smt->ebx, 1, "%s, %u", vendors[v], cpus);
            cr_expect_eq(smt->ecx, 0x100, "%s, %u", vendors[v], cpus);
            cr_expect_eq(core->eax, id_bits[i], "%s, %u", vendors[v], cpus);
            cr_expect_eq(core->ebx, cpus, "%s, %u", vendors[v], cpus);
            cr_expect_eq(core->ecx, 0x201, "%s, %u", vendors[v], cpus);
            cr_expect(smt->flags & core->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
            cr_expect_null(leaf(&cpuid, 0x1f, 0), "%s: the host's", vendors[v]);
            cr_expect_null(leaf(&cpuid, 0x1f, 1), "%s: the host's", vendors[v]);
        }
    }
}

Test(cpuid, without_the_leaf_it_tells_no_topology)
{
    struct cpuid cpuid = {.table.nent = 0};
    put_vendor(&cpuid, "GenuineIntel", 0xa);
    put(&cpuid, 1, 0, 0, 0, 0, 0);
    adapt(&cpuid, 2, false);
    cr_assert_null(leaf(&cpuid, 0xb, 0));
    cr_assert_null(leaf(&cpuid, 0x40000010, 0), "nor does KVM say that it is there");
    cr_assert_eq(leaf(&cpuid, 0, 0)->eax, 0xa);
}

Test(cpuid, shares_the_last_cache_among_all_and_the_others_among_none)
{
    for (size_t i = 0; i < COUNT(cpu_counts); i++) {
        const unsigned cpus = cpu_counts[i];
        struct cpuid intel, amd;
        make_intel(&intel);
        make_amd(&amd);
        adapt(&intel, cpus, true);
        adapt(&amd, cpus, true);
        const uint32_t cores = cpus < 64 ? cpus - 1 : 63, all = (1u << id_bits[i]) - 1;
        cr_expect_eq(leaf(&intel, 4, 0)->eax, cores << 26 | 0x121, "%u", cpus);
        cr_expect_eq(leaf(&intel, 4, 2)->eax, cores << 26 | 0x143, "%u", cpus);
        cr_expect_eq(leaf(&intel, 4, 3)->eax, cores << 26 | all << 14 | 0x163, "%u", cpus);
        cr_expect_eq(leaf(&intel, 4, 3)->ebx, 0x02c0003fu, "the geometry stays");
        cr_expect_eq(leaf(&intel, 4, 4)->eax, 0, "the end of the list stays one");
        cr_expect_eq(leaf(&amd, 0x8000001d, 0)->eax, 0x121, "%u", cpus);
        cr_expect_eq(leaf(&amd, 0x8000001d, 3)->eax, all << 14 | 0x163, "%u", cpus);
    }
}

Test(cpuid, counts_cores_in_amds_own_leaf)
{
    for (size_t i = 0; i < COUNT(cpu_counts); i++) {
        struct cpuid intel, amd;
        make_amd(&amd);
        make_intel(&intel);
        adapt(&amd, cpu_counts[i], true);
        adapt(&intel, cpu_counts[i], true);
        cr_expect_eq(leaf(&amd, 0x80000008, 0)->ecx,
                     0x00010000u | id_bits[i] << 12 | (cpu_counts[i] - 1), "%u", cpu_counts[i]);
        cr_expect_eq(leaf(&amd, 0x80000008, 0)->ebx, 0x111ef257u);
        cr_expect_eq(leaf(&amd, 0x8000001e, 0)->ecx, 0, "one node");
        cr_expect_eq(leaf(&intel, 0x80000008, 0)->ecx, 0xabcdu, "not Intel's");
    }
}

Test(cpuid, gives_each_vcpu_its_own_id_in_every_leaf)
{
    static const uint32_t ids[] = {0, 1, 200, 253, 3};
    struct cpuid intel, amd;
    make_intel(&intel);
    make_amd(&amd);
    adapt(&intel, 254, true);
    adapt(&amd, 254, true);
    for (size_t i = 0; i < COUNT(ids); i++) {
        const uint32_t id = ids[i];
        cpuid_set_apic_id(&intel, id);
        cpuid_set_apic_id(&amd, id);
        cr_expect_eq(leaf(&intel, 1, 0)->ebx, id << 24 | 254u << 16 | 0x0800, "%u", id);
        cr_expect_eq(leaf(&intel, 0xb, 0)->edx, id);
        cr_expect_eq(leaf(&intel, 0xb, 1)->edx, id);
        cr_expect_eq(leaf(&amd, 1, 0)->ebx, id << 24 | 254u << 16 | 0x0800, "%u", id);
        cr_expect_eq(leaf(&amd, 0xb, 1)->edx, id);
        cr_expect_eq(leaf(&amd, 0x8000001e, 0)->eax, id);
        cr_expect_eq(leaf(&amd, 0x8000001e, 0)->ebx, id, "its core, of one thread");
    }
}

Test(cpuid, tells_the_frequencies_where_they_are_known)
{
    struct cpuid intel, amd, unknown;
    make_intel(&intel);
    make_amd(&amd);
    adapt(&intel, 1, true);
    adapt(&amd, 1, true);
    const struct kvm_cpuid_entry2 *tsc = leaf(&intel, 0x15, 0);
    cr_assert(tsc->eax && tsc->ebx);
    cr_expect_eq((uint64_t)tsc->ecx * tsc->ebx / tsc->eax, TSC_KHZ * 1000ull);
    cr_expect_eq(tsc->ecx, 1000000000u, "KVM's APIC timer runs at 1 GHz");
    cr_expect_eq(leaf(&amd, 0x15, 0)->ebx, 2, "AMD has no such leaf");
    cr_expect_eq(leaf(&intel, 0x40000000, 0)->eax, 0x40000010u);
    cr_expect_eq(leaf(&intel, 0x40000010, 0)->eax, TSC_KHZ);
    cr_expect_eq(leaf(&intel, 0x40000010, 0)->ebx, 1000000u);
    cr_expect_eq(leaf(&amd, 0x40000010, 0)->eax, TSC_KHZ);

    make_intel(&unknown);
    const struct cpuid_facts facts = {.cpus = 1};
    cpuid_adapt(&unknown, &facts);
    cr_expect_eq(leaf(&unknown, 0x15, 0)->ebx, 232);
    cr_expect_eq(leaf(&unknown, 0x40000000, 0)->eax, 0x40000001u);
    cr_expect_null(leaf(&unknown, 0x40000010, 0));
}

Test(cpuid, keeps_the_host_s_own_timing_leaf_single)
{
    struct cpuid cpuid;
    make_intel(&cpuid);
    leaf(&cpuid, 0x40000000, 0)->eax = 0x40000020;
    put(&cpuid, 0x40000010, 0, 1, 2, 0, 0);
    adapt(&cpuid, 1, true);
    cr_expect_eq(leaf(&cpuid, 0x40000000, 0)->eax, 0x40000020u, "never fewer leaves");
    unsigned count = 0;
    for (uint32_t i = 0; i < cpuid.table.nent; i++)
        count += cpuid.table.entries[i].function == 0x40000010;
    cr_expect_eq(count, 1);
}

Test(cpuid, never_grows_past_its_room)
{
    for (uint32_t filled = CPUID_ENTRIES_MAX - 4; filled <= CPUID_ENTRIES_MAX; filled++) {
        static union {
            struct cpuid cpuid;
            uint8_t bytes[sizeof(struct cpuid) + 64];
        } room;
        memset(&room, 0, sizeof(room));
        memset(room.bytes + sizeof(struct cpuid), 0xcc, 64);
        put_vendor(&room.cpuid, "GenuineIntel", 0xb);
        put(&room.cpuid, 0x40000000, 0, 0x40000001, 0, 0, 0);
        while (room.cpuid.table.nent < filled)
            put(&room.cpuid, 0x90000000 + room.cpuid.table.nent, 0, 1, 2, 3, 4);
        adapt(&room.cpuid, 2, true);
        uint32_t want = filled + 3 < CPUID_ENTRIES_MAX ? filled + 3 : CPUID_ENTRIES_MAX;
        cr_expect_eq(room.cpuid.table.nent, want, "%u", filled);
        for (size_t i = sizeof(struct cpuid); i < sizeof(room); i++)
            cr_expect_eq(room.bytes[i], 0xcc, "%u: byte %zu", filled, i);
    }
}
