/*
 * What a guest prints on virtio-console, from its buffers to a file in memory, through the fake
 * driver of the unit tests; beside write() calls of the same size, and with and without ten
 * expressions that it is matched against. MB/s of processor time.
 *
 * usage: console
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "devices/console.h"
#include "tests/unit/virtio_rig.h"
#include "vmm/watch.h"

#define ROUNDS 21
#define TOTAL  (8u << 20) /* bytes a round */
#define TEXT   65536u     /* bytes that are printed again and again */
#define BATCH  32u        /* buffers the driver hands over at a time */

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "console: %s: failed\n", #condition);                                  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static struct virtio_rig rig;
static struct virtio_driver driver;
static struct console *console;
static struct watch watch;
static bool watched;
static int file;
static size_t printed_size;

static void printed(void *arg, const uint8_t *data, size_t size)
{
    (void)arg;
    printed_size += size;
    if (watched)
        watch_feed(&watch, WATCH_CONSOLE, data, size);
}

static void report(void *arg, enum watch_outcome outcome, const char *text)
{
    (void)arg;
    fprintf(stderr, "console: outcome %d: %s\n", (int)outcome, text);
    exit(1);
}

static void set_up(void)
{
    static const char *const expressions[] = {"soft lockup",
                                              "Out of memory",
                                              "I/O error",
                                              "segfault at [0-9a-f]+",
                                              "^Call Trace:",
                                              "FAILED",
                                              "hung_task|blocked for more than"};
    static const struct minivmm_expect expect = {.pattern = "login: $"};
    static const struct console_events events = {.printed = printed};
    const struct virtio_rig_config base = {.no_disk = true};
    struct minivmm_config config = {.fail_on = expressions,
                                    .fail_on_count = 7, /* and the two that are always there */
                                    .expects = &expect,
                                    .expect_count = 1};
    struct minivmm_error err;

    file = memfd_create("output", MFD_CLOEXEC);
    const struct minivmm_char host = {.kind = MINIVMM_CHAR_FDS, .in = -1, .out = file};
    const struct console_config shape = {.console = &host, .events = &events};
    MUST(file >= 0 && virtio_rig_init(&rig, &base, &err));
    MUST(console_create(&shape, &rig.mem, &rig.loop, &console, &err) == 0);
    struct virtio_dev *dev = console_device(console);
    rig.slots[RIG_SLOT_NONE].dev = dev;
    bus_add(&rig.bus, RIG_SLOTS + RIG_SLOT_NONE * RIG_SLOT, VIRTIO_MMIO_SIZE, &virtio_mmio_ops,
            &rig.slots[RIG_SLOT_NONE]);
    driver = (struct virtio_driver){.bus = &rig.bus,
                                    .mem = &rig.mem,
                                    .loop = &rig.loop,
                                    .call = dev->call,
                                    .rings = RAM_C + 0x20000};
    MUST(virtio_driver_find(&driver, RIG_SLOTS, RIG_SLOT_COUNT, dev->type->id));
    MUST(virtio_driver_start(&driver, UINT64_MAX, 0));
    MUST(watch_init(&watch, &config, &rig.loop, report, NULL, &err) == 0);
    watch_start(&watch);
}

/* What a kernel and an init print. */
static void fill(char *text, size_t size)
{
    static const char *const lines[] = {
        "[    0.%06u] pci 0000:00:1f.2: reg 0x24: [mem 0xfebf1000-0xfebf1fff]\r\n",
        "[    1.%06u] systemd[1]: Started Journal Service, and what belongs to it, in order.\r\n",
        "[  OK  ] Reached target %u - Local File Systems.\r\n",
        "         Starting Create Volatile Files and Directories of unit %u...\r\n",
    };
    size_t at = 0;

    for (unsigned i = 0; at < size; i++) {
        char line[160];
        int length = snprintf(line, sizeof(line), lines[i % 4], i * 7919 % 1000000);
        size_t part = (size_t)length < size - at ? (size_t)length : size - at;
        memcpy(text + at, line, part);
        at += part;
    }
}

/* One round through the device, in chunks of `size`, the text in its order. */
static void print_all(unsigned size)
{
    struct vring_used_elem element;
    unsigned sent = 0, out = 0;

    while (sent < TOTAL / size || out > 0) {
        for (; out < BATCH && sent < TOTAL / size; sent++, out++) {
            const struct piece piece = {RAM_A + (uint64_t)sent * size % TEXT, size, false};
            fake_driver_send(&driver.queues[1], &piece, 1);
        }
        virtio_driver_kick(&driver, 1);
        event_loop_once(&rig.loop, 0);
        while (fake_driver_take(&driver.queues[1], &element))
            out--;
    }
}

static void write_all(const char *text, unsigned size)
{
    for (unsigned sent = 0; sent < TOTAL / size; sent++)
        MUST(write(file, text + sent * size % TEXT, size) == (ssize_t)size);
}

/* The processor's time, the kernel's for us included: everything here is one thread, and waits for
 * nothing. */
static uint64_t cpu_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void row(const char *name, unsigned size, double *samples, double peer, const char *limit)
{
    char what[80];

    qsort(samples, ROUNDS, sizeof(samples[0]), by_value);
    snprintf(what, sizeof(what), "%s, chunks of %u, MB/s", name, size);
    printf("%-52s %8.0f  (%.0f-%.0f)", what, samples[ROUNDS / 2], samples[ROUNDS / 10],
           samples[ROUNDS * 9 / 10]);
    if (limit)
        printf("  ratio %.3f  limit %s", samples[ROUNDS / 2] / peer, limit);
    printf("\n");
}

int main(void)
{
    static const unsigned sizes[] = {64, 1024, 4096};
    static double samples[3][ROUNDS];

    set_up();
    char *text = virtio_rig_at(&rig, RAM_A, TEXT);
    fill(text, TEXT);
    for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        /* The three take turns, so that what disturbs one disturbs all. */
        for (unsigned round = 0; round < 3 * ROUNDS; round++) {
            lseek(file, 0, SEEK_SET);
            watched = round % 3 == 2;
            printed_size = 0;
            uint64_t start = cpu_now_ns();
            if (round % 3 == 0)
                write_all(text, sizes[s]);
            else
                print_all(sizes[s]);
            uint64_t time = cpu_now_ns() - start;
            MUST(round % 3 == 0 || printed_size == TOTAL / sizes[s] * sizes[s]);
            samples[round % 3][round / 3] = (double)TOTAL * 1e3 / (double)time;
        }
        row("write()", sizes[s], samples[0], 1, NULL);
        row("virtio-console", sizes[s], samples[1], samples[0][ROUNDS / 2], "0.8 of write()");
        row("and ten expressions", sizes[s], samples[2], samples[1][ROUNDS / 2], "0.95 of that");
    }
    return 0;
}
