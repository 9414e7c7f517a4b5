/* COM1: output arrives whole, input comes by interrupt, the escape ends the VM. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/kvm/guest.h"

SUITE(serial_port);

GUEST(says_hello, "print \"hello, world\\n\"\n"
                  "print \"no newline\"\n"
                  "poweroff\n");

Test(serial_port, output_arrives_whole_before_the_verdict)
{
    char *output = guest_output(guest_says_hello);
    cr_assert_str_eq(output, "hello, world\nno newline");
    free(output);
}

/*
 * Parameter 0: bytes to send, a running alphabet from a to z. After the first five it sends 16 at
 * once, like a driver that knows the chip's FIFO: each time it waits for an empty transmitter.
 */
GUEST(sends_much, "mov guest_parameters(%rip), %r12\n"
                  "mov $0x1100000, %edi\n"
                  "mov %r12, %rcx\n"
                  "mov $'a', %al\n"
                  "1: stosb\n"
                  "inc %al\n"
                  "cmp $'z', %al\n"
                  "jbe 2f\n"
                  "mov $'a', %al\n"
                  "2: loop 1b\n"
                  "mov $0x1100000, %esi\n"
                  "mov $5, %ebx\n"
                  "3: mov $COM1+5, %edx\n"
                  "in %dx, %al\n"
                  "test $0x20, %al\n"
                  "jz 3b\n"
                  "mov $COM1, %edx\n"
                  "mov %rbx, %rcx\n"
                  "rep outsb\n"
                  "sub %rbx, %r12\n"
                  "mov $16, %ebx\n" /* leaves the flags alone */
                  "jnz 3b\n"
                  "poweroff\n");

/* Read until `length` bytes have come; false when they do not come within 50 seconds. */
static bool read_exactly(int fd, char *to, size_t length)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    while (length > 0 && poll(&pfd, 1, 50000) == 1) {
        ssize_t n = read(fd, to, length);
        if (n <= 0)
            return false;
        to += n;
        length -= (size_t)n;
    }
    *to = '\0';
    return length == 0;
}

Test(serial_port, input_raises_line_4_and_is_echoed)
{
    static const char *const pieces[] = {"a", "bc", "over the lazy dog\r", "q"};
    struct guest_run run = guest_config();
    int input[2];
    char got[64];

    cr_assert_eq(pipe2(input, O_CLOEXEC), 0);
    run.config.serial_in = input[0];
    guest_start(&run, guest_echoes_by_interrupt);
    cr_assert(read_exactly(run.output_fd, got, 6));
    cr_expect_str_eq(got, "ready\n");
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        size_t length = strlen(pieces[i]);
        cr_assert_eq(write(input[1], pieces[i], length), (ssize_t)length);
        cr_assert(read_exactly(run.output_fd, got, length), "%s: got %s", pieces[i], got);
        cr_expect_str_eq(got, pieces[i]);
    }
    guest_wait(&run);
    cr_expect_eq(run.verdict.exit_code, 0, "%s", run.verdict.text);
    guest_destroy(&run);
    guest_free(&run);
    close(input[0]);
    close(input[1]);
}

/* A bigger piece than the port can hold waits outside, and nothing of it is lost. */
Test(serial_port, input_of_many_kilobytes_arrives_in_order)
{
    enum { LENGTH = 3000 };
    struct guest_run run = guest_config();
    static char sent[LENGTH], got[LENGTH + 1];
    int input[2];

    for (int i = 0; i < LENGTH; i++)
        sent[i] = (char)('A' + i % 26);
    sent[LENGTH - 1] = 'q';
    cr_assert_eq(pipe2(input, O_CLOEXEC), 0);
    run.config.serial_in = input[0];
    guest_start(&run, guest_echoes_by_interrupt);
    cr_assert(read_exactly(run.output_fd, got, 6));
    cr_assert_eq(write(input[1], sent, LENGTH), LENGTH);
    cr_expect(read_exactly(run.output_fd, got, LENGTH));
    cr_expect_eq(memcmp(got, sent, LENGTH), 0);
    guest_wait(&run);
    cr_expect_eq(run.verdict.exit_code, 0, "%s", run.verdict.text);
    guest_destroy(&run);
    guest_free(&run);
    close(input[0]);
    close(input[1]);
}

/* The end of the input is no event for the guest; it goes on to its own end. */
Test(serial_port, input_that_ends_leaves_the_guest_alone)
{
    struct guest_run run = guest_config();
    int input[2];

    cr_assert_eq(pipe2(input, O_CLOEXEC), 0);
    cr_assert_eq(write(input[1], "abcq", 4), 4);
    close(input[1]);
    run.config.serial_in = input[0];
    guest_run(&run, guest_echoes_by_interrupt);
    cr_expect_eq(run.verdict.exit_code, 0, "%s", run.verdict.text);
    guest_free(&run);
    close(input[0]);
}

struct slow_reader {
    int fd;
    size_t good; /* bytes that continued the alphabet */
    size_t total;
};

/* Let all buffers fill up, then read to the end, an odd piece every millisecond. */
static void *read_slowly(void *arg)
{
    struct slow_reader *reader = arg;
    char piece[1237];
    ssize_t n;

    sleep(3);
    while ((n = read(reader->fd, piece, sizeof(piece))) > 0) {
        for (ssize_t i = 0; i < n; i++)
            reader->good += piece[i] == (char)('a' + reader->good % 26);
        reader->total += (size_t)n;
        usleep(1000);
    }
    return NULL;
}

/* 70 KiB are more than all buffers in between; a driver that fills a FIFO of 16 loses nothing. */
Test(serial_port, output_waits_for_a_slow_reader)
{
    enum { LENGTH = 5 + 70 * 1024 };
    struct guest_run run = guest_config();
    pthread_t thread;

    run.parameters[0] = LENGTH;
    guest_create(&run, guest_sends_much);
    fcntl(run.output_fd, F_SETPIPE_SZ, 4096);
    struct slow_reader reader = {.fd = run.output_fd};
    cr_assert_eq(pthread_create(&thread, NULL, read_slowly, &reader), 0);
    cr_assert_eq(minivmm_start(run.vm), 0);
    cr_assert_eq(minivmm_wait(run.vm, &run.verdict), 0);
    cr_expect_eq(run.verdict.exit_code, 0, "%s", run.verdict.text);
    minivmm_destroy(run.vm);
    pthread_join(thread, NULL);
    cr_expect_eq(reader.total, LENGTH);
    cr_expect_eq(reader.good, LENGTH);
    close(run.output_fd);
}
