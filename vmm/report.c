#include "vmm/report.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define TAIL_MAX 16384u

static uint64_t monotonic_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

void report_note_begin(struct report_begin *begin)
{
    begin->monotonic_ns = monotonic_ns();
    clock_gettime(CLOCK_REALTIME, &begin->realtime);
}

/* ---- events -------------------------------------------------------------------------------- */

/* A reset and a new start of a driver, say, is for the guest to repeat as often as it likes. */
static bool told_before(const struct report *report, const struct minivmm_event *event)
{
    const struct report_facts facts = {.events = report->events,
                                       .event_count = report->event_count};
    return event->kind == MINIVMM_EVENT_DRIVER_OK &&
           report_find(&facts, event->kind, event->number);
}

void report_event(struct report *report, const struct minivmm_event *event)
{
    /* The end always has a place. */
    unsigned max = REPORT_EVENTS_MAX - (event->kind != MINIVMM_EVENT_ENDED);
    if (!report->events || report->event_count >= max || told_before(report, event))
        return;
    struct report_event *to = &report->events[report->event_count++];
    *to = (struct report_event){.kind = event->kind,
                                .time_ns = event->time_ns,
                                .number = event->number,
                                .value = event->value};
    snprintf(to->name, sizeof(to->name), "%s", event->name ? event->name : "");
    pthread_getname_np(pthread_self(), to->thread, sizeof(to->thread));
}

/* ---- files --------------------------------------------------------------------------------- */

/* Not in the place of a standard stream that was closed: what goes to that is none of a report's.
 */
static int open_high(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1), error = errno;
    close(fd);
    errno = error;
    return high;
}

static bool same_file(int a, int b)
{
    struct stat first, second;
    return fstat(a, &first) == 0 && fstat(b, &second) == 0 && S_ISREG(first.st_mode) &&
           first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

static int add_file(struct report *report, const char *option, const char *path,
                    int (*write_it)(const struct report_facts *facts, FILE *out),
                    struct minivmm_error *err)
{
    if (!path)
        return 0;
    int fd = open_high(path);
    if (fd < 0)
        return error_set(err, -errno, "--%s %s: %s", option, path, strerror(errno));
    for (unsigned i = 0; i < report->file_count; i++) {
        if (same_file(fd, report->files[i].fd)) {
            close(fd);
            return error_set(err, -EINVAL, "--%s %s: is the file of --%s", option, path,
                             report->files[i].option);
        }
    }
    if (ftruncate(fd, 0) < 0 && errno != EINVAL) { /* EINVAL: a pipe, a device */
        int error = errno;
        close(fd);
        return error_set(err, -error, "--%s %s: %s", option, path, strerror(error));
    }
    report->files[report->file_count++] =
        (struct report_file){.option = option, .path = path, .write = write_it, .fd = fd};
    return 0;
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n == 0 || (n < 0 && errno != EINTR))
            return n == 0 ? -EIO : -errno;
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
    }
    return 0;
}

/* Made in memory first: a file is whole or, if that fails, empty. */
static int write_file(struct report_file *file, const struct report_facts *facts,
                      struct minivmm_error *err)
{
    char *text = NULL;
    size_t size = 0;

    FILE *out = open_memstream(&text, &size);
    int rc = out ? file->write(facts, out) : -ENOMEM;
    if (out && fclose(out) != 0)
        rc = -ENOMEM;
    if (rc == 0)
        rc = write_all(file->fd, text, size);
    if (rc < 0 && ftruncate(file->fd, 0) < 0)
        errno = 0; /* it is not a file, and nothing can be taken back */
    free(text);
    if (close(file->fd) < 0 && rc == 0)
        rc = -errno;
    file->fd = -1;
    return rc < 0 ? error_set(err, rc, "--%s %s: %s", file->option, file->path, strerror(-rc)) : 0;
}

static int flush_stdout(struct minivmm_error *err)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return error_set(err, -EIO, "standard output: %s", strerror(errno));
    return 0;
}

/* ---- all of it ----------------------------------------------------------------------------- */

static void collect_facts(struct report *report, const struct options *options, int argc,
                          char *const argv[], const struct report_begin *begin)
{
    struct kernel_file kernel;
    struct utsname host;

    report->facts = (struct report_facts){.kernel = options->vm.kernel,
                                          .initrd = options->vm.initrd,
                                          .words = (const char *const *)argv,
                                          .word_count = (unsigned)argc,
                                          .cpus = options->vm.cpus,
                                          .expects = options->vm.expects,
                                          .expect_count = options->vm.expect_count,
                                          .started_at = begin->realtime,
                                          .begun = begin->monotonic_ns};
    if (uname(&host) == 0)
        snprintf(report->facts.host, sizeof(report->facts.host), "%s %s", host.sysname,
                 host.release);
    if (kernel_file_open(&kernel, options->vm.kernel, NULL) == 0) {
        memcpy(report->kernel_version, kernel.version, sizeof(report->kernel_version));
        if (*kernel.version)
            report->facts.kernel_version = report->kernel_version;
        kernel_file_close(&kernel);
    }
}

int report_open(struct report *report, struct options *options, int argc, char *const argv[],
                const struct report_begin *begin, struct minivmm_error *err)
{
    *report = (struct report){.tap = options->tap_output};
    report->wanted = options->report || options->junit || options->timeline || report->tap;
    if (!report->wanted)
        return 0;
    int rc = add_file(report, "report", options->report, report_write_json, err);
    if (rc == 0)
        rc = add_file(report, "junit", options->junit, report_write_junit, err);
    if (rc == 0)
        rc = add_file(report, "timeline", options->timeline, report_write_timeline, err);
    if (rc < 0)
        return rc;
    report->events = calloc(REPORT_EVENTS_MAX, sizeof(report->events[0]));
    if (!report->events)
        return error_set(err, -ENOMEM, "reports: out of memory");
    collect_facts(report, options, argc, argv, begin);
    if (report->tap) {
        report_begin_tap(options->vm.expect_count, stdout);
        rc = flush_stdout(err);
    }
    return rc;
}

/* What those are shown for that ended in a way that the guest did not mean. */
static char *describe_vcpus(const struct minivmm *vm, int exit_code)
{
    char *text = NULL;
    size_t size;

    if (exit_code != MINIVMM_EXIT_FAULT && exit_code != MINIVMM_EXIT_TIMEOUT &&
        exit_code != MINIVMM_EXIT_SILENCE)
        return NULL;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    minivmm_print_vcpus(vm, out);
    fclose(out);
    return text;
}

int report_write(struct report *report, struct minivmm *vm, const struct minivmm_verdict *verdict,
                 struct minivmm_error *err)
{
    struct report_facts *facts = &report->facts;
    uint8_t tail[TAIL_MAX];
    char *vcpus = NULL;
    int rc = 0;

    if (!report->wanted)
        return 0;
    facts->verdict = *verdict;
    facts->finished = monotonic_ns();
    facts->events = report->events;
    facts->event_count = report->event_count;
    if (vm) {
        minivmm_times(vm, &facts->times);
        facts->cmdline = minivmm_cmdline(vm);
        facts->tail = tail;
        facts->tail_length = minivmm_console_tail(vm, tail, sizeof(tail), &facts->printed);
        for (unsigned i = 0; i < MINIVMM_DEVICES_MAX && minivmm_device(vm, i); i++)
            facts->devices[facts->device_count++] = minivmm_device(vm, i);
        facts->vcpus = vcpus = describe_vcpus(vm, verdict->exit_code);
    }
    for (unsigned i = 0; i < report->file_count; i++) {
        int now = write_file(&report->files[i], facts, rc == 0 ? err : NULL);
        rc = rc < 0 ? rc : now;
    }
    if (report->tap) {
        report_write_tap(facts, stdout);
        int now = flush_stdout(rc == 0 ? err : NULL);
        rc = rc < 0 ? rc : now;
    }
    free(vcpus);
    report->wanted = false;
    return rc;
}

void report_close(struct report *report)
{
    for (unsigned i = 0; i < report->file_count; i++) {
        if (report->files[i].fd >= 0)
            close(report->files[i].fd);
    }
    free(report->events);
    *report = (struct report){0};
}
