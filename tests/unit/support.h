/*
 * What several unit tests need: a leak check, waits with a deadline, files that are nowhere on
 * disk, guest memory between guard pages, an event loop on a thread of its own.
 */
#ifndef TESTS_UNIT_SUPPORT_H
#define TESTS_UNIT_SUPPORT_H

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdint.h>

#include "vmm/event_loop.h"
#include "vmm/guest_mem.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define MIB          (1ull << 20)
#define GIB          (1ull << 30)

/* No wait takes longer; what is waited for comes within milliseconds. */
#define DEADLINE_MS 100000

/*
 * A suite whose tests must leave neither an open descriptor nor, which only a build with
 * AddressSanitizer can tell, allocated memory. Criterion ends a test's process without running exit
 * handlers, LeakSanitizer's among them.
 */
void support_begin(void);
void support_end(void);
#define SUITE(name) TestSuite(name, .init = support_begin, .fini = support_end)

/* Poll until condition(arg) holds; false when the deadline has passed. */
bool support_wait(bool (*condition)(void *arg), void *arg);

/* Wait until `fd` is readable; false when the deadline has passed. */
bool support_wait_readable(int fd);

/* The value of an eventfd, which becomes 0; 0 without waiting if nothing signalled it. */
uint64_t support_take(int eventfd);

/* A file in memory with a path; `fd` is the caller's to close. */
struct support_file {
    int fd;
    char path[32];
};
struct support_file support_file(const void *data, size_t size);

/* Guest RAM [0, size) with inaccessible pages on both sides: a stray access faults. */
void support_guard_mem(struct guest_mem *mem, uint64_t size);

/* Is the text one line, not empty, that contains `part`? */
bool support_one_line(const struct minivmm_error *err, const char *part);

/* An event loop on a thread that blocks every signal, as a machine's does. */
struct support_loop {
    struct event_loop loop;
    pthread_t thread;
    bool running;
};
void support_loop_init(struct support_loop *loop);
void support_loop_run(struct support_loop *loop);
void support_loop_stop(struct support_loop *loop); /* stop and join; the loop can still be used */
void support_loop_finish(struct support_loop *loop);

/* Is a program in PATH? */
bool support_has_program(const char *name);

/* Run a shell command; its output, malloc'ed and not longer than 1 MiB, and exit status. */
char *support_run(const char *command, int *status);

/* A new directory under /tmp, and its removal with all that is in it. */
void support_temp_dir(char path[64]);
void support_remove_dir(const char *path);

#endif
