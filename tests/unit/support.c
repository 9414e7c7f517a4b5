#include "tests/unit/support.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/lsan_interface.h>
#define HAVE_LSAN 1
/* support_end looks for leaks; once more at exit takes as long again, and fails no test. */
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "leak_check_at_exit=0";
}
#else
#define HAVE_LSAN 0
#endif

/* Of one test; Criterion's own --timeout does not end a test that waits for a thread. */
#define TEST_SECONDS_MAX 180

static unsigned descriptors_before;

static unsigned count_descriptors(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        n++;
    closedir(dir);
    return n;
}

void support_begin(void)
{
    alarm(TEST_SECONDS_MAX);
    descriptors_before = count_descriptors();
}

/* Criterion takes no assertion at this point, but a crash fails the run. */
void support_end(void)
{
    unsigned descriptors = count_descriptors();
    if (descriptors != descriptors_before) {
        fprintf(stderr, "%u descriptors were open before the test, %u after it\n",
                descriptors_before, descriptors);
        abort();
    }
#if HAVE_LSAN
    if (__lsan_do_recoverable_leak_check()) {
        fprintf(stderr, "the test has left memory allocated\n");
        abort();
    }
#endif
}

bool support_wait(bool (*condition)(void *arg), void *arg)
{
    const struct timespec pause = {.tv_nsec = 200000};
    struct timespec now, end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += DEADLINE_MS / 1000;
    while (!condition(arg)) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec > end.tv_sec)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

bool support_wait_readable(int fd)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    return poll(&pfd, 1, DEADLINE_MS) == 1;
}

uint64_t support_take(int fd)
{
    eventfd_t value;
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    if (poll(&pfd, 1, 0) != 1 || eventfd_read(fd, &value) < 0)
        return 0;
    return value;
}

struct support_file support_file(const void *data, size_t size)
{
    struct support_file file = {.fd = memfd_create("test", MFD_CLOEXEC)};
    cr_assert_geq(file.fd, 0);
    snprintf(file.path, sizeof(file.path), "/proc/self/fd/%d", file.fd);
    cr_assert_eq(pwrite(file.fd, data, size, 0), (ssize_t)size);
    return file;
}

void support_guard_mem(struct guest_mem *mem, uint64_t size)
{
    const uint64_t guard = 64 * 1024;
    uint8_t *mapping =
        mmap(NULL, size + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert_neq(mapping, MAP_FAILED);
    cr_assert_eq(mprotect(mapping + guard, size, PROT_READ | PROT_WRITE), 0);
    *mem = (struct guest_mem){
        .regions[0] = {.size = size,
                       .host = mapping + guard,
                       .mapping = mapping,
                       .mapping_size = size + 2 * guard},
        .count = 1,
    };
}

bool support_one_line(const struct minivmm_error *err, const char *part)
{
    return err->text[0] && !strpbrk(err->text, "\r\n") && strstr(err->text, part);
}

void support_loop_init(struct support_loop *loop)
{
    struct minivmm_error err;
    *loop = (struct support_loop){0};
    cr_assert_eq(event_loop_init(&loop->loop, &err), 0, "%s", err.text);
}

static void *loop_thread(void *arg)
{
    struct support_loop *loop = arg;
    event_loop_run(&loop->loop);
    return NULL;
}

void support_loop_run(struct support_loop *loop)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    cr_assert_eq(pthread_create(&loop->thread, NULL, loop_thread, loop), 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    loop->running = true;
}

void support_loop_stop(struct support_loop *loop)
{
    if (!loop->running)
        return;
    event_loop_stop(&loop->loop);
    pthread_join(loop->thread, NULL);
    loop->running = false;
}

void support_loop_finish(struct support_loop *loop)
{
    support_loop_stop(loop);
    event_loop_finish(&loop->loop);
}

bool support_has_program(const char *name)
{
    char command[64];
    int status;
    snprintf(command, sizeof(command), "command -v %s", name);
    free(support_run(command, &status));
    return status == 0;
}

char *support_run(const char *command, int *status)
{
    char line[512];
    snprintf(line, sizeof(line), "( %s ) 2>&1", command);
    FILE *pipe = popen(line, "r");
    cr_assert_not_null(pipe);
    const size_t room = 1 << 20;
    char *output = malloc(room);
    size_t size = fread(output, 1, room - 1, pipe);
    output[size] = '\0';
    int rc = pclose(pipe);
    *status = WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
    return output;
}

void support_temp_dir(char path[64])
{
    snprintf(path, 64, "/tmp/minivmm-test-XXXXXX");
    cr_assert_not_null(mkdtemp(path));
}

void support_remove_dir(const char *path)
{
    char command[128];
    int status;
    snprintf(command, sizeof(command), "rm -rf -- %s", path);
    free(support_run(command, &status));
    cr_assert_eq(status, 0);
}
