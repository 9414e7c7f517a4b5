/* What a guest prints on virtio-console (E1, E6, E8): arrives once, in order, and is bounded. */
#include <fcntl.h>
#include <linux/virtio_console.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/host_stream.h"
#include "tests/unit/console_rig.h"
#include "tests/unit/support.h"

SUITE(console_output);

static struct console_rig rig;
static int reader; /* our end of the pipe that it prints to */

static void begin(bool threaded)
{
    int out[2];
    cr_assert_eq(pipe2(out, O_CLOEXEC), 0);
    console_rig_console(&rig, -1, out[1], threaded);
    close(out[1]);
    reader = out[0];
}

static void end(void)
{
    cr_expect(console_rig_works(&rig), "the canary");
    console_rig_finish(&rig);
    close(reader);
}

static void expect_output(const char *text, size_t size, const char *row)
{
    static char got[1 << 20];
    for (int i = 0; i < 5; i++) /* the rest of a line goes out after a millisecond */
        event_loop_once(&rig.base.loop, 2);
    size_t length = console_rig_read(reader, got, sizeof(got));
    cr_expect_eq(length, size, "%s: %zu bytes of %zu", row, length, size);
    cr_expect_eq(memcmp(got, text, length < size ? length : size), 0, "%s", row);
}

Test(console_output, S10_E1_chains_of_every_shape)
{
    static char letters[8192];
    static const struct {
        const char *name;
        struct piece pieces[6];
        unsigned count;
        unsigned from, size; /* of the letters */
    } rows[] = {
        {"one byte", {{RAM_A, 1, false}}, 1, 0, 1},
        {"a page and one", {{RAM_A, 4097, false}}, 1, 0, 4097},
        {"three pieces",
         {{RAM_A, 1, false}, {RAM_A + 1, 5, false}, {RAM_A + 6, 94, false}},
         3,
         0,
         100},
        {"empty ones between",
         {{RAM_A, 0, false}, {RAM_A, 10, false}, {RAM_A, 0, false}, {RAM_A + 10, 10, false}},
         4,
         0,
         20},
        {"what may be written is no output", {{RAM_A, 10, false}, {IN_BUF, 4096, true}}, 2, 0, 10},
        {"nothing but that", {{IN_BUF, 4096, true}}, 1, 0, 0},
        {"nothing", {{RAM_A, 0, false}}, 1, 0, 0},
    };
    begin(false);
    for (size_t i = 0; i < sizeof(letters); i++)
        letters[i] = (char)('a' + i % 23);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct vring_used_elem element;
        rig.printed_size = 0;
        fake_driver_write(&rig.v.queues[TX], RAM_A, letters, sizeof(letters));
        cr_assert(virtio_driver_transact(&rig.v, TX, rows[i].pieces, rows[i].count, &element), "%s",
                  rows[i].name);
        cr_expect_eq(element.len, 0, "%s", rows[i].name);
        expect_output(letters + rows[i].from, rows[i].size, rows[i].name);
        cr_expect_eq(rig.printed_size, rows[i].size, "%s: told %zu", rows[i].name,
                     rig.printed_size);
    }
    end();
}

/* 66 pieces of the same MiB: more than any buffer, and all of it goes out. */
Test(console_output, E1_a_huge_chain_goes_out_piece_by_piece)
{
    struct piece pieces[64];
    static char got[1 << 20];
    size_t total = 0;
    begin(false);
    memset(virtio_rig_at(&rig.base, RAM_A, 1 << 20), 'x', 1 << 20);
    for (unsigned i = 0; i < COUNT(pieces); i++)
        pieces[i] = (struct piece){RAM_A, 1 << 20, false};
    fake_driver_send(&rig.v.queues[TX], pieces, COUNT(pieces));
    virtio_driver_notify(&rig.v, TX);
    for (int i = 0; i < 200000 && total < (64u << 20); i++) {
        struct vring_used_elem element;
        cr_assert(!fake_driver_take(&rig.v.queues[TX], &element) ||
                  total + sizeof(got) * 2 > (64u << 20));
        event_loop_once(&rig.base.loop, 2);
        total += console_rig_read(reader, got, sizeof(got));
    }
    cr_expect_eq(total, 64u << 20);
    end();
}

/* E1: the reader stands still. The queue stalls, everything else goes on, nothing is lost. */
Test(console_output, E1_a_slow_reader_stalls_the_queue_and_nothing_else)
{
    static char sent[64 * 4096], got[sizeof(sent)];
    size_t total = 0;
    unsigned taken = 0;
    begin(false);
    for (size_t i = 0; i < sizeof(sent); i++)
        sent[i] = (char)(i * 7 + i / 4096);
    fake_driver_write(&rig.v.queues[TX], RAM_A, sent, sizeof(sent));
    for (unsigned i = 0; i < 64; i++)
        fake_driver_send(&rig.v.queues[TX], &(struct piece){RAM_A + 4096 * i, 4096, false}, 1);
    virtio_driver_notify(&rig.v, TX);
    virtio_driver_settle(&rig.v);
    struct vring_used_elem element;
    while (fake_driver_take(&rig.v.queues[TX], &element))
        taken++;
    cr_expect(taken >= 16 && taken <= 33, "pipe and buffer hold 32 pages: %u", taken);
    cr_expect(virtio_rig_works(&rig.base), "the other device");
    for (int i = 0; i < 1000 && total < sizeof(sent); i++) {
        total += console_rig_read(reader, got + total, sizeof(got) - total);
        event_loop_once(&rig.base.loop, 2);
    }
    while (fake_driver_take(&rig.v.queues[TX], &element))
        taken++;
    cr_expect_eq(taken, 64);
    cr_expect_eq(total, sizeof(sent));
    cr_expect_eq(memcmp(sent, got, sizeof(sent)), 0);
    end();
}

/* E8: reset in the middle of a chain that is half out; the next driver's output begins anew. */
Test(console_output, E8_a_reset_forgets_what_was_half_sent)
{
    static char got[1 << 20];
    struct piece piece = {RAM_A, 1 << 20, false};
    begin(false);
    memset(virtio_rig_at(&rig.base, RAM_A, 1 << 20), 'x', 1 << 20);
    for (int i = 0; i < 10; i++) {
        fake_driver_send(&rig.v.queues[TX], &piece, 1);
        virtio_driver_notify(&rig.v, TX);
        virtio_driver_settle(&rig.v);
        virtio_driver_write(&rig.v, VIRTIO_MMIO_STATUS, 0);
        cr_assert_eq(virtio_driver_read(&rig.v, VIRTIO_MMIO_STATUS), 0);
        cr_assert(virtio_driver_start(&rig.v, UINT64_MAX, 0));
    }
    size_t length = 0, n;
    while ((n = console_rig_read(reader, got, sizeof(got))) > 0) {
        length += n;
        event_loop_once(&rig.base.loop, 5);
    }
    cr_expect_leq(length, 200000, "no more than pipe and buffer: %zu", length);
    cr_assert(console_rig_send(&rig, TX, "fresh\n", 6));
    expect_output("fresh\n", 6, "after the reset");
    end();
}

Test(console_output, S45_E6_emergency_writes)
{
    static const struct {
        const char *name;
        unsigned offset, size;
        uint32_t value;
        const char *out;
    } rows[] = {
        {"1 byte", 8, 1, 'a', "a"},
        {"2 bytes", 8, 2, 0x6200 | 'b', "b"},
        {"4 bytes", 8, 4, 0xffffff00 | 'c', "c"},
        {"8 bytes", 8, 8, 'd', ""},
        {"behind the register", 12, 1, 'e', ""},
        {"inside the register", 9, 1, 'f', ""},
        {"across its end", 10, 4, 'g', ""},
        {"before it", 6, 4, 'h', ""},
        {"columns", 0, 2, 80, ""},
        {"number of ports", 4, 4, 0xffffffff, ""},
        {"the end of the slot", 0xeff, 1, 'i', ""},
    };
    static const char *const states[] = {"never set up", "driver ready", "reset"};
    for (size_t s = 0; s < COUNT(states); s++) {
        begin(false);
        if (s != 1)
            virtio_driver_reset(&rig.v);
        cr_expect(virtio_driver_offered(&rig.v) & FEATURE(VIRTIO_CONSOLE_F_EMERG_WRITE));
        for (size_t i = 0; i < COUNT(rows); i++) {
            char name[80];
            snprintf(name, sizeof(name), "%s, %s", states[s], rows[i].name);
            rig.printed_size = 0;
            bus_write(&rig.base.bus, rig.v.base + VIRTIO_MMIO_CONFIG + rows[i].offset, rows[i].size,
                      rows[i].value);
            expect_output(rows[i].out, strlen(rows[i].out), name);
            cr_expect_eq(rig.printed_size, strlen(rows[i].out), "%s", name);
        }
        cr_expect_eq(virtio_driver_config(&rig.v, 4, 4), 1, "ports");
        end();
    }
}

Test(console_output, E6_a_flood_of_emergency_writes_is_bounded)
{
    static char got[1 << 20];
    begin(false);
    for (unsigned i = 0; i < 500000; i++)
        bus_write(&rig.base.bus, rig.v.base + VIRTIO_MMIO_CONFIG + 8, 1, 'z');
    size_t length = console_rig_read(reader, got, sizeof(got));
    event_loop_once(&rig.base.loop, 5);
    length += console_rig_read(reader, got, sizeof(got));
    cr_expect_leq(length, 65536 + HOST_STREAM_BUFFER);
    cr_expect_geq(length, 65536);
    end();
}

Test(console_output, E7_bytes_are_passed_raw)
{
    char bytes[256];
    begin(false);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)i;
    cr_assert(console_rig_send(&rig, TX, bytes, sizeof(bytes)));
    expect_output(bytes, sizeof(bytes), "all bytes");
    cr_expect_eq(memcmp(rig.printed, bytes, sizeof(bytes)), 0);
    end();
}

Test(console_output, E7_a_reader_that_goes_away_is_told_once)
{
    begin(false);
    close(reader);
    for (int i = 0; i < 3; i++)
        console_rig_offer(&rig, RX, 0, 16);
    struct piece piece = {RAM_A, 4096, false};
    for (int i = 0; i < 30; i++)
        fake_driver_send(&rig.v.queues[TX], &piece, 1);
    virtio_driver_notify(&rig.v, TX);
    for (int i = 0; i < 10; i++)
        event_loop_once(&rig.base.loop, 2);
    cr_expect_eq(rig.failures, 1);
    cr_expect_str_eq(rig.failed, "console: Broken pipe");
    cr_expect(virtio_rig_works(&rig.base), "the other device");
    console_rig_finish(&rig);
}

Test(console_output, what_the_driver_has_handed_over_is_drained)
{
    static char sent[64 * 4096];
    const char *name;
    begin(false);
    for (size_t i = 0; i < sizeof(sent); i++)
        sent[i] = (char)(i % 251);
    fake_driver_write(&rig.v.queues[TX], RAM_A, sent, sizeof(sent));
    for (unsigned i = 0; i < 64; i++)
        fake_driver_send(&rig.v.queues[TX], &(struct piece){RAM_A + 4096 * i, 4096, false}, 1);
    virtio_driver_notify(&rig.v, TX);
    virtio_driver_settle(&rig.v);
    if (fork() == 0) { /* a reader, for the drain does not return before all is out */
        static char copy[sizeof(sent)];
        size_t length = 0;
        while (length < sizeof(copy)) {
            ssize_t n = read(reader, copy + length, 1000);
            if (n <= 0)
                _exit(2);
            length += (size_t)n;
        }
        _exit(memcmp(copy, sent, sizeof(sent)) != 0);
    }
    cr_expect_eq(console_drain(rig.console, true, &name), 0);
    int status;
    cr_assert(wait(&status) > 0);
    cr_expect_eq(status, 0);
    struct vring_used_elem element;
    for (unsigned i = 0; i < 64; i++)
        cr_expect(fake_driver_take(&rig.v.queues[TX], &element), "chain %u", i);
    end();
}

Test(console_output, size_is_told_and_told_again)
{
    const struct minivmm_char host = {.kind = MINIVMM_CHAR_NULL};
    const struct console_config with = {.console = &host, .columns = 132, .rows = 50};
    const struct console_config without = {.console = &host};
    struct minivmm_error err;

    cr_assert_eq(console_rig_init(&rig, &with, false, &err), 0);
    cr_expect(virtio_driver_offered(&rig.v) & FEATURE(VIRTIO_CONSOLE_F_SIZE));
    cr_expect(!(virtio_driver_offered(&rig.v) & FEATURE(VIRTIO_CONSOLE_F_MULTIPORT)));
    cr_assert(virtio_driver_start(&rig.v, UINT64_MAX, 0));
    cr_expect_eq(virtio_driver_config(&rig.v, 0, 2), 132);
    cr_expect_eq(virtio_driver_config(&rig.v, 2, 2), 50);
    uint32_t generation = virtio_driver_read(&rig.v, VIRTIO_MMIO_CONFIG_GENERATION);
    console_resize(rig.console, 80, 24);
    cr_expect(virtio_driver_interrupted(&rig.v));
    cr_expect(rig.v.reasons & VIRTIO_MMIO_INT_CONFIG);
    cr_expect_neq(virtio_driver_read(&rig.v, VIRTIO_MMIO_CONFIG_GENERATION), generation);
    cr_expect_eq(virtio_driver_config(&rig.v, 0, 2), 80);
    cr_expect_eq(virtio_driver_config(&rig.v, 2, 2), 24);
    console_rig_finish(&rig);

    cr_assert_eq(console_rig_init(&rig, &without, false, &err), 0);
    cr_expect(!(virtio_driver_offered(&rig.v) & FEATURE(VIRTIO_CONSOLE_F_SIZE)));
    console_resize(rig.console, 80, 24);
    cr_expect_eq(virtio_driver_config(&rig.v, 0, 4), 0);
    console_rig_finish(&rig);
}

/* As a change of it: Debian 12's Linux looks at no other time. */
Test(console_output, size_is_told_to_each_driver_once)
{
    static const struct {
        const char *name;
        unsigned columns, rows;
        uint64_t accepted;
        bool told;
    } rows[] = {
        {"a size", 132, 50, UINT64_MAX, true},
        {"a driver that does not ask for it", 132, 50, ~FEATURE(VIRTIO_CONSOLE_F_SIZE), false},
        {"none", 0, 0, UINT64_MAX, false},
        {"no rows", 132, 0, UINT64_MAX, false},
    };
    const struct minivmm_char host = {.kind = MINIVMM_CHAR_NULL};
    struct minivmm_error err;

    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct console_config config = {
            .console = &host, .columns = rows[i].columns, .rows = rows[i].rows};
        cr_assert_eq(console_rig_init(&rig, &config, false, &err), 0);
        struct virtio_dev *dev = console_device(rig.console);
        for (unsigned driver = 0; driver < 3; driver++) {
            cr_assert(virtio_driver_start(&rig.v, rows[i].accepted, 0));
            virtio_driver_settle(&rig.v);
            cr_expect_eq(virtio_driver_interrupted(&rig.v), rows[i].told, "%s, driver %u",
                         rows[i].name, driver);
            cr_expect_eq(rig.v.reasons, rows[i].told ? VIRTIO_MMIO_INT_CONFIG : 0, "%s, driver %u",
                         rows[i].name, driver);
            rig.v.reasons = 0;
            virtio_hold(dev, VIRTIO_HOLD_PAUSE);
            virtio_release(dev, VIRTIO_HOLD_PAUSE);
            cr_assert(console_rig_send(&rig, TX, "x", 1));
            virtio_driver_interrupted(&rig.v);
            cr_expect_eq(rig.v.reasons & VIRTIO_MMIO_INT_CONFIG, 0, "%s: a pause", rows[i].name);
        }
        cr_expect(console_rig_works(&rig), "the canary");
        console_rig_finish(&rig);
    }
}

/* E5: no control queues where MULTIPORT is not offered. */
Test(console_output, E5_a_console_has_two_queues)
{
    begin(false);
    for (unsigned queue = 0; queue < 8; queue++) {
        virtio_driver_write(&rig.v, VIRTIO_MMIO_QUEUE_SEL, queue);
        cr_expect_eq(virtio_driver_read(&rig.v, VIRTIO_MMIO_QUEUE_NUM_MAX) > 0, queue < 2);
    }
    end();
}
