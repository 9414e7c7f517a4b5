/* What an autopsy says about vCPUs and queues: bounded, and true whatever the guest has left. */
#include "vmm/autopsy.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"

SUITE(autopsy);

#define LINKED 0xffffffff81000000ull
#define SHIFT  0x1c200000ull

static const char map[] = "ffffffff81000000 T _text\n"
                          "ffffffff81000100 t caller\n"
                          "ffffffff81001000 T entry_SYSCALL_64\n"
                          "ffffffff81002000 T asm_exc_nmi\n"
                          "ffffffff81003000 D data\n";

static void autopsy_make(struct autopsy *autopsy, unsigned cpus, const char *symbols)
{
    struct minivmm_error err = {.text = ""};
    struct support_file file = {.fd = -1};

    *autopsy = (struct autopsy){0};
    if (symbols)
        file = support_file(symbols, strlen(symbols));
    cr_assert_eq(autopsy_init(autopsy, cpus, symbols ? file.path : NULL, &err), 0, "%s", err.text);
    if (symbols)
        close(file.fd);
    for (unsigned i = 0; i < cpus; i++)
        autopsy->states[i] =
            (struct vcpu_state){.taken = true, .activity = "runs", .runs = true, .known = true};
}

static char *print(const struct autopsy *autopsy)
{
    char *text;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    autopsy_print_vcpus(autopsy, autopsy->states, out);
    fclose(out);
    return text;
}

static unsigned count(const char *text, const char *part)
{
    unsigned n = 0;
    while ((text = strstr(text, part)) != NULL)
        n++, text++;
    return n;
}

Test(autopsy, addresses_are_named_where_the_kernel_was_put)
{
    static const struct {
        const char *name;
        uint64_t syscall_entry, nmi_entry, rip;
        bool user;
        const char *parts[2];
    } rows[] = {
        {"where it was linked",
         LINKED + 0x1000,
         0,
         LINKED + 4,
         false,
         {"symbols shifted by 0x0: vCPU 0 has entry_SYSCALL_64 there\n",
          "runs at 0xffffffff81000004, _text+0x4/0x100\n"}},
        {"moved",
         LINKED + SHIFT + 0x1000,
         0,
         LINKED + SHIFT + 0x108,
         false,
         {"symbols shifted by 0x1c200000: vCPU 0 has entry_SYSCALL_64 there\n",
          "runs at 0xffffffff9d200108, caller+0x8/0xf00\n"}},
        {"moved down",
         LINKED - 0x200000 + 0x1000,
         0,
         LINKED - 0x200000,
         false,
         {"symbols shifted by 0xffffffffffe00000: ", ", _text+0x0/0x100\n"}},
        {"before it can be called",
         0,
         LINKED + SHIFT + 0x2000,
         LINKED + SHIFT,
         false,
         {"symbols shifted by 0x1c200000: vCPU 0 has asm_exc_nmi there\n", ", _text+0x0/0x100\n"}},
        {"not moved by whole pieces",
         LINKED + 0x1234,
         LINKED + SHIFT + 0x2000,
         LINKED,
         false,
         {"symbols shifted by 0x1c200000: vCPU 0 has asm_exc_nmi there\n",
          "at 0xffffffff81000000, in no function of the symbols\n"}},
        {"nothing is known",
         0,
         0,
         LINKED,
         false,
         {"symbols not shifted: ", "runs at 0xffffffff81000000, _text+0x0/0x100\n"}},
        {"nothing fits",
         12345,
         54321,
         LINKED,
         false,
         {"symbols not shifted: ", "runs at 0xffffffff81000000, _text+0x0/0x100\n"}},
        {"data",
         0,
         0,
         LINKED + 0x3000,
         false,
         {"symbols not shifted: ", "at 0xffffffff81003000, in no function of the symbols\n"}},
        {"a program",
         0,
         0,
         LINKED,
         true,
         {"symbols not shifted: ", "runs at 0xffffffff81000000, in user mode\n"}},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct autopsy autopsy;
        autopsy_make(&autopsy, 1, map);
        autopsy.states[0].syscall_entry = rows[i].syscall_entry;
        autopsy.states[0].nmi_entry = rows[i].nmi_entry;
        autopsy.states[0].rip = rows[i].rip;
        autopsy.states[0].user = rows[i].user;
        char *text = print(&autopsy);
        for (size_t n = 0; n < 2; n++)
            cr_expect(strstr(text, rows[i].parts[n]), "%s: no \"%s\" in %s", rows[i].name,
                      rows[i].parts[n], text);
        free(text);
        autopsy_finish(&autopsy);
    }
}

Test(autopsy, the_first_vcpu_that_knows_tells_where_the_kernel_is)
{
    struct autopsy autopsy;
    autopsy_make(&autopsy, 3, map);
    autopsy.states[0].known = false;
    autopsy.states[0].syscall_entry = LINKED + 0x1000;
    autopsy.states[2].syscall_entry = LINKED + SHIFT + 0x1000;
    char *text = print(&autopsy);
    cr_expect(strstr(text, "symbols shifted by 0x1c200000: vCPU 2 has "), "%s", text);
    free(text);
    autopsy_finish(&autopsy);
}

Test(autopsy, of_a_stack_so_many_calls_are_shown_and_nothing_else)
{
    static const uint64_t words[] = {0,
                                     UINT64_MAX,
                                     LINKED - 1,
                                     LINKED /* a pointer to a function */,
                                     LINKED + 0x3008 /* data */,
                                     LINKED + 0x105};
    struct autopsy autopsy;
    autopsy_make(&autopsy, 1, map);
    struct vcpu_state *state = &autopsy.states[0];
    state->stack_words = VCPU_STACK_WORDS;
    state->stack = malloc(VCPU_STACK_WORDS * sizeof(state->stack[0]));
    for (unsigned i = 0; i < VCPU_STACK_WORDS; i++)
        state->stack[i] = i < COUNT(words) ? words[i] : LINKED + 0x1004;
    char *text = print(&autopsy);
    cr_expect(strstr(text, "  on its stack, perhaps callers:\n    ? caller+0x5/0xf00\n"
                           "    ? entry_SYSCALL_64+0x4/0x1000\n"),
              "%s", text);
    cr_expect_eq(count(text, "    ? "), AUTOPSY_CALLS, "%s", text);
    free(text);
    autopsy_finish(&autopsy);
}

Test(autopsy, has_a_line_for_each_vcpu_past_the_eighth)
{
    struct autopsy autopsy;
    autopsy_make(&autopsy, MINIVMM_CPUS_MAX, NULL);
    for (unsigned i = 0; i < MINIVMM_CPUS_MAX; i++)
        autopsy.states[i].rip = i;
    autopsy.states[200].known = false;
    char *text = print(&autopsy);
    cr_expect_eq(count(text, "\n"), MINIVMM_CPUS_MAX + AUTOPSY_FULL, "%s", text);
    cr_expect(strstr(text, "vCPU 7:\n  runs at 0x7\nvCPU 8: runs at 0x8\n"), "%s", text);
    cr_expect(strstr(text, "\nvCPU 200: runs \nvCPU 201: "), "%s", text);
    cr_expect(strstr(text, "\nvCPU 253: runs at 0xfd\n"), "%s", text);
    free(text);
    autopsy_finish(&autopsy);
}

/* ---- devices ------------------------------------------------------------------------------- */

static void expect_devices(struct virtio_rig *rig, const char *name, const char *const parts[],
                           size_t parts_count)
{
    static struct slots slots;
    struct autopsy autopsy = {0};

    slots = (struct slots){.count = 2};
    slots.devs[0] = rig->slots[RIG_SLOT_RNG].dev;
    slots.devs[1] = rig->slots[RIG_SLOT_BLK].dev;
    autopsy_take_devices(&autopsy, &slots);
    for (size_t i = 0; i < parts_count; i++)
        cr_expect(strstr(autopsy.devices, parts[i]), "%s: no \"%s\" in\n%s", name, parts[i],
                  autopsy.devices);
    autopsy_finish(&autopsy);
}
#define EXPECT_DEVICES(rig, name, ...)                                                             \
    expect_devices(rig, name, (const char *const[]){__VA_ARGS__},                                  \
                   COUNT(((const char *const[]){__VA_ARGS__})))

Test(autopsy, tells_how_each_queue_stands)
{
    struct virtio_rig rig;
    struct minivmm_error err;
    const struct virtio_rig_config config = {0};
    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    EXPECT_DEVICES(&rig, "before a driver", "slot 0, ", ": status 0x00\n  queue 0: not ready\n",
                   "slot 1, ");

    cr_assert(virtio_rig_start(&rig, FEATURE(VIRTIO_F_VERSION_1), 8));
    cr_assert(virtio_rig_works(&rig));
    struct virtio_queue *queue = virtio_queue(rig.slots[RIG_SLOT_RNG].dev, 0);
    char line[200];
    snprintf(line, sizeof(line),
             "  queue 0: 8 entries, avail idx %u, used idx %u, next_avail %u, next_used %u, 0 in "
             "work; %llu kicks, ",
             queue->ring.next_avail, queue->ring.next_used, queue->ring.next_avail,
             queue->ring.next_used, (unsigned long long)queue->kicks);
    cr_assert_geq(queue->ring.next_used, 1);
    cr_assert_geq(queue->kicks, 1);
    EXPECT_DEVICES(&rig, "after requests", "status 0x0f ACKNOWLEDGE DRIVER FEATURES_OK DRIVER_OK\n",
                   line);

    /* What the guest sees is told as the guest has it, what is ours as we have it. */
    const struct virtq_config rings = queue->config;
    *(uint16_t *)virtio_rig_at(&rig, rings.avail + 2, 2) = 0xfffe;
    *(uint16_t *)virtio_rig_at(&rig, rings.used + 2, 2) = 0x1234;
    EXPECT_DEVICES(&rig, "a hostile driver", "avail idx 65534, used idx 4660, next_avail ");

    queue->config.avail = RAM_HOLE - 3;
    queue->config.used = UINT64_MAX - 1;
    EXPECT_DEVICES(&rig, "rings out of memory", "avail idx -1, used idx -1, next_avail ");
    queue->config = rings;

    /* On the loop's thread there is no waiting for a vCPU that waits for it. */
    virtio_lock(rig.slots[RIG_SLOT_RNG].dev);
    EXPECT_DEVICES(&rig, "a driver at work", ": its driver is at its registers\nslot 1, ");
    virtio_unlock(rig.slots[RIG_SLOT_RNG].dev);
    virtio_rig_finish(&rig);
}
