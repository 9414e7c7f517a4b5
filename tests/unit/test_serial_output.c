/* From the guest to the host: nothing lost, nobody blocked. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/serial_port.h"
#include "vmm/clock.h"

SUITE(serial_output);

#define LONG 100000u

static void make_output(uint8_t *data, size_t length)
{
    for (size_t i = 0; i < length; i++)
        data[i] = port_pattern(i);
}

/* Read exactly `length` bytes, waiting no longer than the deadline for each piece. */
static bool read_all(int fd, uint8_t *data, size_t length)
{
    while (length > 0) {
        if (!support_wait_readable(fd))
            return false;
        ssize_t n = read(fd, data, length);
        if (n <= 0)
            return false;
        data += n;
        length -= (size_t)n;
    }
    return true;
}

Test(serial_output, goes_out_without_a_line_end)
{
    int ends[2];
    struct port port;
    uint8_t byte;
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, -1, ends[1], false);
    for (uint8_t i = 0; i < 3; i++) {
        out8(&port, UART_TX, 'a' + i);
        cr_assert(read_all(ends[0], &byte, 1));
        cr_assert_eq(byte, 'a' + i);
    }
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

Test(serial_output, a_line_goes_out_in_one_piece_when_it_is_complete)
{
    int ends[2];
    struct port port;
    char text[16];
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, -1, ends[1], false);
    port_stop(&port); /* no timer can run: the driver's own write does it */
    cr_assert(port_send(&port, "line\nrest", 9, 1));
    cr_assert_eq(read(ends[0], text, sizeof(text)), 5);
    cr_assert_eq(memcmp(text, "line\n", 5), 0);
    cr_assert_eq(host_stream_drain(&port.serial.stream, true), 0);
    cr_assert_eq(read(ends[0], text, sizeof(text)), 4);
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

/* A reader that takes a little at a time. */
struct slow_reader {
    int fd;
    uint8_t data[LONG];
    size_t length;
};

static void *read_slowly(void *arg)
{
    struct slow_reader *reader = arg;
    const struct timespec pause = {.tv_nsec = 500000};
    while (reader->length < LONG) {
        size_t room = LONG - reader->length;
        if (!support_wait_readable(reader->fd))
            break;
        ssize_t n = read(reader->fd, reader->data + reader->length, room < 3001 ? room : 3001);
        if (n <= 0)
            break;
        reader->length += (size_t)n;
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void expect_whole(int out, int in, unsigned burst)
{
    static struct slow_reader reader;
    static uint8_t data[LONG];
    struct port port;
    pthread_t thread;
    make_output(data, LONG);
    reader.fd = in;
    port_open(&port, -1, out, false);
    cr_assert_eq(pthread_create(&thread, NULL, read_slowly, &reader), 0);
    cr_assert(port_send(&port, data, LONG, burst));
    port_stop(&port);
    cr_assert_eq(host_stream_drain(&port.serial.stream, true), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(reader.length, LONG, "%zu bytes", reader.length);
    cr_assert_eq(memcmp(reader.data, data, LONG), 0);
    cr_assert_eq(port.serial.lost, 0);
    cr_assert_eq(port.failures, 0);
    port_close(&port);
}

static void expect_whole_through_a_pipe(unsigned burst)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    fcntl(ends[1], F_SETPIPE_SZ, 4096); /* the smallest: full most of the time */
    expect_whole(ends[1], ends[0], burst);
    close(ends[0]);
    close(ends[1]);
}

Test(serial_output, comes_whole_through_a_pipe_with_a_slow_reader)
{
    expect_whole_through_a_pipe(1);
}

Test(serial_output, comes_whole_from_a_driver_that_fills_the_fifo)
{
    expect_whole_through_a_pipe(16);
}

Test(serial_output, comes_whole_through_a_socket_with_a_slow_reader)
{
    int ends[2], size = 1;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    expect_whole(ends[1], ends[0], 16);
    close(ends[0]);
    close(ends[1]);
}

Test(serial_output, goes_to_a_file_behind_what_is_there)
{
    static uint8_t data[LONG], got[LONG + 5];
    struct support_file file = support_file("head\n", 5);
    struct port port;
    make_output(data, LONG);
    cr_assert_eq(lseek(file.fd, 5, SEEK_SET), 5);
    port_open(&port, -1, file.fd, false);
    cr_assert(port_send(&port, data, LONG, 1));
    port_stop(&port);
    cr_assert_eq(host_stream_drain(&port.serial.stream, true), 0);
    cr_assert_eq(lseek(file.fd, 0, SEEK_CUR), 5 + LONG, "the file position is common");
    cr_assert_eq(pread(file.fd, got, sizeof(got), 0), sizeof(got));
    cr_assert_eq(memcmp(got, "head\n", 5), 0);
    cr_assert_eq(memcmp(got + 5, data, LONG), 0);
    port_close(&port);
    close(file.fd);
}

Test(serial_output, a_full_buffer_takes_thre_away_and_the_reader_brings_it_back)
{
    static uint8_t got[1 << 20];
    int ends[2];
    struct port port;
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, -1, ends[1], false);
    size_t sent = port_fill(&port, ends);
    cr_assert_lt(sent, sizeof(got));
    cr_expect_eq(in8(&port, UART_LSR) & (UART_LSR_THRE | UART_LSR_TEMT), 0);

    /* Enabled while busy: no interrupt yet. */
    support_take(port.irq);
    out8(&port, UART_IER, UART_IER_THRI);
    cr_expect_eq(support_take(port.irq), 0);
    cr_expect_eq(in8(&port, UART_IIR) & 0x0f, UART_IIR_NO_INT);

    cr_assert(read_all(ends[0], got, 8192));
    cr_assert(support_wait_readable(port.irq));
    cr_expect_eq(support_take(port.irq), 1);
    cr_expect_eq(in8(&port, UART_IIR) & 0x0f, UART_IIR_THRI);
    cr_expect(port_may_send(&port));

    cr_assert(read_all(ends[0], got + 8192, sent - 8192));
    for (size_t i = 0; i < sent; i++)
        cr_assert_eq(got[i], port_pattern(i), "byte %zu", i);
    cr_expect_eq(port.serial.lost, 0);
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

Test(serial_output, a_driver_that_does_not_wait_loses_its_own_bytes_only)
{
    static uint8_t got[1 << 20];
    int ends[2];
    struct port port;
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, -1, ends[1], false);
    size_t sent = port_fill(&port, ends);
    size_t taken = port_overrun(&port);
    for (unsigned i = 0; i < 9; i++)
        out8(&port, UART_TX, '?');
    cr_expect_eq(port.serial.lost, 10);
    cr_expect_not(port_may_send(&port));
    cr_assert(read_all(ends[0], got, sent + taken));
    for (size_t i = 0; i < sent + taken; i++)
        cr_assert_eq(got[i], i < sent ? port_pattern(i) : '!', "byte %zu", i);
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

Test(serial_output, thre_leaves_room_for_a_whole_fifo)
{
    int ends[2];
    struct port port;
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, -1, ends[1], false);
    port_stop(&port);
    size_t sent = 0;
    while (port_may_send(&port))
        out8(&port, UART_TX, 'x'), sent++;
    /* Seen one byte earlier, THRE allowed 16 more. */
    cr_assert_geq(HOST_STREAM_BUFFER - (sent - 1), 16);
    cr_assert_lt(HOST_STREAM_BUFFER - sent, 16);
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

Test(serial_output, news_of_room_that_is_gone_again_does_not_bring_thre_back)
{
    int ends[2];
    struct port port;
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, -1, ends[1], false);
    port_fill(&port, ends);
    port_overrun(&port);
    /* As when the loop's thread is held up between making room and telling of it. */
    port.serial.stream.ops->writable(port.serial.stream.dev);
    cr_assert_not(port_may_send(&port));
    out8(&port, UART_IER, UART_IER_THRI);
    cr_assert_eq(in8(&port, UART_IIR) & 0x0f, UART_IIR_NO_INT);
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

Test(serial_output, a_full_disk_fails_once)
{
    struct port port;
    int fd = open("/dev/full", O_WRONLY);
    cr_assert_geq(fd, 0);
    port_open(&port, -1, fd, false);
    out8(&port, UART_TX, '\n');
    cr_assert(support_wait(port_has_failed, &port));
    cr_assert_eq(port.error, ENOSPC);
    for (unsigned i = 0; i < 100; i++)
        out8(&port, UART_TX, '\n');
    port_stop(&port);
    cr_assert_eq(host_stream_drain(&port.serial.stream, true), -ENOSPC);
    cr_assert_eq(port.failures, 1);
    port_close(&port);
    close(fd);
}

Test(serial_output, a_reader_that_goes_away_fails_without_a_signal)
{
    static const struct {
        const char *name;
        bool socket;
        bool before; /* gone before the first byte */
    } rows[] = {{"pipe", false, false},
                {"pipe, closed before", false, true},
                {"socket", true, false},
                {"socket, closed before", true, true}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        int ends[2];
        struct port port;
        uint8_t byte;
        cr_assert_eq(rows[i].socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends), 0);
        if (rows[i].before)
            close(ends[0]);
        port_open(&port, -1, ends[1], false);
        if (!rows[i].before) {
            cr_assert(port_send(&port, "\n", 1, 1));
            cr_assert(read_all(ends[0], &byte, 1));
            close(ends[0]);
        }
        out8(&port, UART_TX, '\n');
        cr_assert(support_wait(port_has_failed, &port), "%s", rows[i].name);
        cr_assert_eq(port.error, EPIPE, "%s: %s", rows[i].name, strerror(port.error));
        port_stop(&port);
        cr_assert_eq(host_stream_drain(&port.serial.stream, true), -EPIPE, "%s", rows[i].name);
        cr_assert_eq(port.failures, 1, "%s", rows[i].name);
        port_close(&port);
        close(ends[1]);
    }
}

Test(serial_output, a_stuck_reader_ends_the_drain_with_a_timeout)
{
    int ends[2];
    struct port port;
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, -1, ends[1], false);
    port_fill(&port, ends);
    port_stop(&port);
    cr_assert_eq(host_stream_drain(&port.serial.stream, true), -ETIMEDOUT);
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

/* One that takes a little now and then, until it is told to stop. */
struct trickle {
    int fd;
    bool stop; /* atomic */
};

static void *read_a_little(void *arg)
{
    struct trickle *reader = arg;
    char chunk[4096];
    while (!__atomic_load_n(&reader->stop, __ATOMIC_ACQUIRE) &&
           read(reader->fd, chunk, sizeof(chunk)) > 0)
        usleep(400000);
    return NULL;
}

Test(serial_output, an_impatient_drain_leaves_a_slow_reader)
{
    int ends[2];
    pthread_t thread;
    struct port port;
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, -1, ends[1], false);
    port_fill(&port, ends);
    port_stop(&port);
    struct trickle reader = {.fd = ends[0]};
    cr_assert_eq(pthread_create(&thread, NULL, read_a_little, &reader), 0);
    uint64_t start = clock_now_ns();
    cr_assert_eq(host_stream_drain(&port.serial.stream, false), -ETIMEDOUT);
    uint64_t ms = (clock_now_ns() - start) / 1000000;
    cr_assert(ms >= HOST_STREAM_PATIENCE_MS - 10 && ms < HOST_STREAM_PATIENCE_MS + 1000, "%llu ms",
              (unsigned long long)ms);
    __atomic_store_n(&reader.stop, true, __ATOMIC_RELEASE);
    port_close(&port);
    close(ends[1]);
    pthread_join(thread, NULL);
    close(ends[0]);
}

Test(serial_output, without_a_descriptor_it_is_always_ready)
{
    struct port port;
    port_open(&port, -1, -1, false);
    for (unsigned i = 0; i < 2 * HOST_STREAM_BUFFER; i++)
        out8(&port, UART_TX, 'x');
    cr_assert(port_may_send(&port));
    cr_assert_eq(port.serial.lost, 0);
    port_stop(&port);
    cr_assert_eq(host_stream_drain(&port.serial.stream, true), 0);
    port_close(&port);
}
