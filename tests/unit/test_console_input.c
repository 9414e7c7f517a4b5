/* What the host says to virtio-console (E2, E3, E8): in order, bounded, and into buffers only. */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/console_rig.h"
#include "tests/unit/support.h"
#include "vmm/clock.h"

SUITE(console_input);

static struct console_rig rig;
static int host; /* our end */

static void begin(bool threaded)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    console_rig_console(&rig, ends[1], ends[1], threaded);
    close(ends[1]);
    host = ends[0];
}

static void end(void)
{
    cr_expect(console_rig_works(&rig), "the canary");
    console_rig_finish(&rig);
    close(host);
}

static void say(const char *text)
{
    cr_assert_eq(write(host, text, strlen(text)), (ssize_t)strlen(text));
    for (int i = 0; i < 5; i++)
        event_loop_once(&rig.base.loop, 1);
}

Test(console_input, arrives_in_the_buffers_that_there_are)
{
    char got[4096];
    begin(false);
    say("abcdefghij"); /* before there is a buffer */
    console_rig_offer(&rig, RX, 0, 4);
    cr_expect_eq(console_rig_received(&rig, RX, 0, got), 4);
    cr_expect_eq(memcmp(got, "abcd", 4), 0);
    console_rig_offer(&rig, RX, 0, 100);
    cr_expect_eq(console_rig_received(&rig, RX, 0, got), 6);
    cr_expect_eq(memcmp(got, "efghij", 6), 0);
    console_rig_offer(&rig, RX, 0, 100); /* before there is input */
    cr_expect_eq(console_rig_received(&rig, RX, 0, got), -1);
    say("kl");
    cr_expect_eq(console_rig_received(&rig, RX, 0, got), 2);
    end();
}

Test(console_input, E3_buffers_that_are_none)
{
    static const struct {
        const char *name;
        struct piece piece;
    } rows[] = {
        {"no bytes", {IN_BUF, 0, true}},
        {"read-only", {IN_BUF, 4096, false}},
        {"read-only of no bytes", {IN_BUF, 0, false}},
    };
    char got[4096];
    begin(false);
    say("input");
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct vring_used_elem element;
        memset(virtio_rig_at(&rig.base, IN_BUF, 16), 0x5a, 16);
        fake_driver_send(&rig.v.queues[RX], &rows[i].piece, 1);
        virtio_driver_notify(&rig.v, RX);
        virtio_driver_settle(&rig.v);
        cr_assert(fake_driver_take(&rig.v.queues[RX], &element), "%s", rows[i].name);
        cr_expect_eq(element.len, 0, "%s", rows[i].name);
        cr_expect_eq(*(uint8_t *)virtio_rig_at(&rig.base, IN_BUF, 1), 0x5a, "%s", rows[i].name);
    }
    console_rig_offer(&rig, RX, 0, 5);
    cr_expect_eq(console_rig_received(&rig, RX, 0, got), 5, "nothing was lost meanwhile");
    /* Out of RAM: the queue is broken. */
    fake_driver_send(&rig.v.queues[RX], &(struct piece){RAM_HOLE, 16, true}, 1);
    virtio_driver_notify(&rig.v, RX);
    say("more");
    cr_expect(virtio_driver_read(&rig.v, VIRTIO_MMIO_STATUS) & STATUS_NEEDS_RESET);
    end();
}

/* E2: the host's bytes stay in the host's socket, but for a small buffer. */
Test(console_input, E2_a_guest_without_buffers_holds_the_host_up)
{
    static char bytes[1 << 20];
    size_t sent = 0, received = 0;
    begin(false);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(i * 13 + i / 5000);
    fcntl(host, F_SETFL, O_NONBLOCK);
    for (int quiet = 0; quiet < 20; quiet++) {
        ssize_t n = write(host, bytes + sent, sizeof(bytes) - sent);
        sent += n > 0 ? (size_t)n : 0;
        event_loop_once(&rig.base.loop, 1);
    }
    cr_expect(sent >= 16384 && sent < sizeof(bytes) - 4096, "%zu bytes", sent);
    cr_expect(virtio_rig_works(&rig.base));
    for (int i = 0; i < 20000 && received < sent; i++) {
        char got[4096];
        console_rig_offer(&rig, RX, 0, 1 + (uint32_t)i % 4096);
        int n = console_rig_received(&rig, RX, 0, got);
        if (n < 0) { /* it has the buffer still: the timer that lets input go on */
            event_loop_once(&rig.base.loop, 5);
            n = console_rig_received(&rig, RX, 0, got);
        }
        cr_assert_geq(n, 0);
        cr_assert_eq(memcmp(got, bytes + received, (size_t)n), 0);
        received += (size_t)n;
    }
    cr_expect_eq(received, sent);
    end();
}

Test(console_input, E8_a_reset_loses_nothing_that_no_driver_has_seen)
{
    char got[4096];
    begin(false);
    say("typed ahead");
    for (int i = 0; i < 10; i++) {
        virtio_driver_write(&rig.v, VIRTIO_MMIO_STATUS, 0);
        cr_assert(virtio_driver_start(&rig.v, UINT64_MAX, 0));
    }
    console_rig_offer(&rig, RX, 0, 5);
    cr_expect_eq(console_rig_received(&rig, RX, 0, got), 5);
    console_rig_offer(&rig, RX, 0, 50);
    virtio_driver_settle(&rig.v);
    cr_assert(virtio_driver_start(&rig.v, UINT64_MAX, 0));
    end();
}

/* Linux throws away what comes for a port that nobody has open. */
Test(console_input, a_port_hears_nothing_before_it_is_open)
{
    int ends[2];
    char got[4096];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    const struct minivmm_port port = {
        .name = "p", .host = {.kind = MINIVMM_CHAR_FDS, .in = ends[1], .out = ends[1]}};
    console_rig_ports(&rig, &port, 1);
    close(ends[1]);
    host = ends[0];
    say("early");
    console_rig_offer(&rig, PORT_1_RX, 8, 4096);
    cr_expect_eq(console_rig_received(&rig, PORT_1_RX, 8, got), -1);
    cr_assert(console_rig_control(&rig, 0, VIRTIO_CONSOLE_DEVICE_READY, 1));
    for (int i = 0; i < 2; i++) {
        console_rig_offer(&rig, CONTROL_RX, 0, 4096);
        cr_assert_eq(console_rig_received(&rig, CONTROL_RX, 0, got), 8);
    }
    console_rig_open(&rig, 1, "p");
    cr_expect_eq(console_rig_received(&rig, PORT_1_RX, 8, got), 5);
    cr_assert(console_rig_control(&rig, 1, VIRTIO_CONSOLE_PORT_OPEN, 0));
    console_rig_offer(&rig, PORT_1_RX, 8, 4096);
    say("late");
    cr_expect_eq(console_rig_received(&rig, PORT_1_RX, 8, got), -1);
    cr_assert(console_rig_control(&rig, 1, VIRTIO_CONSOLE_PORT_OPEN, 1));
    cr_expect_eq(console_rig_received(&rig, PORT_1_RX, 8, got), 4);
    cr_assert(console_rig_control(&rig, 1, VIRTIO_CONSOLE_PORT_OPEN, 2)); /* means nothing */
    console_rig_offer(&rig, PORT_1_RX, 8, 4096);
    say("x");
    cr_expect_eq(console_rig_received(&rig, PORT_1_RX, 8, got), 1);
    end();
}

Test(console_input, the_escape_is_seen_although_the_guest_is_deaf)
{
    static char keys[20000];
    int ends[2];
    struct minivmm_error err;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    const struct minivmm_char given = {
        .kind = MINIVMM_CHAR_FDS, .in = ends[1], .out = -1, .escape = true};
    const struct console_config config = {.console = &given};
    cr_assert_eq(console_rig_init(&rig, &config, false, &err), 0, "%s", err.text);
    close(ends[1]);
    host = ends[0];
    memset(keys, 'k', sizeof(keys) - 1);
    say(keys);
    say("\001x");
    cr_expect_eq(rig.leaves, 0, "they wait behind the others");
    usleep(1100000);
    say("k");
    say("\001x");
    cr_expect_geq(rig.leaves, 1);
    end();
}

/* ---- 100 MB both ways ---------------------------------------------------------------------- */

#define TOTAL (100u << 20)

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 31 + (i >> 12) * 7 + (i >> 20));
}

static void *slow_peer(void *arg)
{
    static uint8_t out[65536], in[65536];
    size_t sent = 0, got = 0, at = 0, size = 0, wrong = 0;
    unsigned turn = 0;
    (void)arg;
    fcntl(host, F_SETFL, O_NONBLOCK);
    while ((sent < TOTAL || got < TOTAL) && !wrong) {
        if (at == size && sent < TOTAL) {
            for (size_t i = 0; i < sizeof(out); i++)
                out[i] = byte_at(sent + i);
            at = 0;
            size = sizeof(out);
        }
        ssize_t n = sent < TOTAL ? write(host, out + at, size - at) : 0;
        if (n > 0)
            at += (size_t)n, sent += (size_t)n;
        ssize_t m = read(host, in, 1 + turn * 977 % sizeof(in));
        for (ssize_t i = 0; i < m; i++)
            wrong += in[i] != byte_at(got + (size_t)i);
        got += m > 0 ? (size_t)m : 0;
        if (++turn % 4096 == 0) /* now and then it stands still */
            usleep(2000);
    }
    return wrong ? out : NULL;
}

Test(console_input, a_hundred_megabytes_both_ways_with_a_slow_reader, .timeout = 60)
{
    static uint8_t bytes[65536];
    size_t sent = 0, received = 0;
    unsigned offered = 0, sending = 0, rx_slot = 0;
    pthread_t thread;
    void *wrong;

    begin(true);
    pthread_create(&thread, NULL, slow_peer, NULL);
    while (sent < TOTAL || received < TOTAL) {
        struct vring_used_elem element;
        while (offered < 32 && received < TOTAL) {
            fake_driver_send(&rig.v.queues[RX],
                             &(struct piece){IN_BUF + 4096ull * (rx_slot++ % 32), 4096, true}, 1);
            offered++;
        }
        virtio_driver_kick(&rig.v, RX);
        if (!sending && sent < TOTAL) {
            for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = byte_at(sent + i);
            fake_driver_write(&rig.v.queues[TX], OUT_BUF, bytes, sizeof(bytes));
            for (unsigned i = 0; i < 16; i++)
                fake_driver_send(&rig.v.queues[TX],
                                 &(struct piece){OUT_BUF + 4096ull * i, 4096, false}, 1);
            sending = 16;
            virtio_driver_kick(&rig.v, TX);
        }
        while (sending && fake_driver_take(&rig.v.queues[TX], &element)) {
            sending--;
            sent += 4096;
        }
        bool some = false;
        while (received < TOTAL && fake_driver_take(&rig.v.queues[RX], &element)) {
            /* Buffers come back in order: this is the oldest that was offered. */
            const uint8_t *at = virtio_rig_at(
                &rig.base, IN_BUF + 4096ull * ((rx_slot - offered) % 32), element.len);
            for (uint32_t i = 0; i < element.len; i++)
                cr_assert_eq(at[i], byte_at(received + i), "byte %zu", received + i);
            received += element.len;
            offered--;
            some = true;
        }
        if (some || (!sending && (sent < TOTAL || received == TOTAL)))
            continue;
        bool came = fake_driver_sleep(&rig.v.queues[RX]);
        came |= fake_driver_sleep(&rig.v.queues[TX]); /* both have to be asked */
        if (!came)
            cr_assert(virtio_driver_wait_interrupt(&rig.v), "sent %zu, received %zu", sent,
                      received);
    }
    pthread_join(thread, &wrong);
    cr_expect_null(wrong);
    end();
}
