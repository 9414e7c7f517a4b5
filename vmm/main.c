/* The command line: a thin user of the library. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "vmm/api.h"
#include "vmm/config.h"
#include "vmm/ctl.h"
#include "vmm/doctor.h"
#include "vmm/report.h"
#include "vmm/terminal.h"

static int fail(const char *text)
{
    terminal_leave();
    fprintf(stderr, "minivmm: %s\n", text);
    return MINIVMM_EXIT_ERROR;
}

/* Output that a full disk or a closed pipe swallowed is an error, not a success. */
static int finish_stdout(void)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        char text[128];
        snprintf(text, sizeof(text), "standard output: %s", strerror(errno));
        return fail(text);
    }
    return MINIVMM_EXIT_OK;
}

/*
 * Signals that end or suspend us are read from a descriptor, between one moment and the next. Those
 * that we were started to ignore (nohup) are left out: a descriptor would deliver them.
 */
static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    const int watched[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};
    for (size_t i = 0; i < sizeof(watched) / sizeof(watched[0]); i++) {
        struct sigaction action;
        if (sigaction(watched[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(&set, watched[i]);
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* ulimit -f: a file that is full, which has its own error */
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static bool on_terminal; /* the guest has standard input and output */

static void handle_signal(struct minivmm *vm, int signal)
{
    unsigned columns, rows;

    switch (signal) {
    case SIGTSTP: /* the shell gets its terminal back while we are stopped */
        terminal_leave();
        raise(SIGSTOP);
        break;
    case SIGCONT:
        if (on_terminal)
            terminal_enter(STDIN_FILENO);
        break;
    case SIGWINCH:
        if (terminal_size(STDOUT_FILENO, &columns, &rows))
            minivmm_resize(vm, columns, rows);
        break;
    default:
        minivmm_stop(vm, signal);
    }
}

static void take_signal(struct minivmm *vm, int signals)
{
    struct signalfd_siginfo info;
    if (read(signals, &info, sizeof(info)) == sizeof(info))
        handle_signal(vm, (int)info.ssi_signo);
}

static void supervise(struct minivmm *vm, int signals)
{
    struct pollfd fds[] = {{.fd = minivmm_end_fd(vm), .events = POLLIN},
                           {.fd = signals, .events = POLLIN}};
    while (!(fds[0].revents & POLLIN)) {
        if (poll(fds, 2, -1) > 0 && (fds[1].revents & POLLIN))
            take_signal(vm, signals);
    }
}

/* While the main thread waits for the VM's last output. */
struct vigil {
    pthread_t thread;
    struct minivmm *vm;
    int signals;
    int over_fd;  /* an eventfd: the wait is over */
    bool hurried; /* somebody did not want to wait; once the thread is joined */
};

static void *keep_vigil(void *arg)
{
    struct vigil *vigil = arg;
    struct pollfd fds[] = {{.fd = vigil->over_fd, .events = POLLIN},
                           {.fd = vigil->signals, .events = POLLIN}};
    while (!(fds[0].revents & POLLIN)) {
        if (poll(fds, 2, -1) > 0 && (fds[1].revents & POLLIN)) {
            take_signal(vigil->vm, vigil->signals);
            vigil->hurried = true;
        }
    }
    return NULL;
}

/*
 * minivmm_wait, while signals are heard: who asks for an end, or asks again, does not wait for a
 * slow reader. Returns whether somebody did.
 */
static bool wait_heedfully(struct minivmm *vm, int signals, struct minivmm_verdict *verdict)
{
    struct vigil vigil = {
        .vm = vm, .signals = signals, .over_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};

    terminal_hear_signals();
    bool kept = vigil.over_fd >= 0 && pthread_create(&vigil.thread, NULL, keep_vigil, &vigil) == 0;
    minivmm_wait(vm, verdict);
    if (kept) {
        eventfd_write(vigil.over_fd, 1);
        pthread_join(vigil.thread, NULL);
    }
    if (vigil.over_fd >= 0)
        close(vigil.over_fd);
    return vigil.hurried;
}

/* Less than nothing for the start of a VM that was stopped before. */
static double milliseconds(uint64_t from, uint64_t to)
{
    return (double)(int64_t)(to - from) / 1e6;
}

static void print_stats(struct minivmm *vm)
{
    struct minivmm_times times;
    struct minivmm_post_code codes[64];

    minivmm_times(vm, &times);
    fprintf(stderr, "create to start: %.3f ms\nstart to end: %.3f ms\n",
            milliseconds(times.create, times.start), milliseconds(times.start, times.end));
    size_t count = minivmm_post_codes(vm, codes, 64);
    for (size_t i = 0; i < count; i++)
        fprintf(stderr, "port 0x80 = 0x%02x: %.3f ms after start\n", codes[i].code,
                milliseconds(times.start, codes[i].time_ns));
    minivmm_print_exits(vm, stderr);
}

static void print_line(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "minivmm: %s%s\n", line, isatty(STDERR_FILENO) ? "\r" : ""); /* it may be raw */
}

/* Where a person finds the terminals that were made. */
static void print_ptys(const struct options *options, const struct minivmm *vm)
{
    if (minivmm_pty(vm, "serial"))
        fprintf(stderr, "serial: %s\n", minivmm_pty(vm, "serial"));
    if (minivmm_pty(vm, "console"))
        fprintf(stderr, "console: %s\n", minivmm_pty(vm, "console"));
    for (unsigned i = 0; i < options->vm.port_count; i++) {
        if (minivmm_pty(vm, options->ports[i].name))
            fprintf(stderr, "port %s: %s\n", options->ports[i].name,
                    minivmm_pty(vm, options->ports[i].name));
    }
}

/* The exit code, once the reports are written; if they cannot be, that is the last line. */
static int finish_reports(struct report *report, struct minivmm *vm,
                          const struct minivmm_verdict *verdict)
{
    struct minivmm_error err;

    if (report_write(report, vm, verdict, &err) == 0)
        return verdict->exit_code;
    fprintf(stderr, "minivmm: %s (exit code %d)\n", err.text, MINIVMM_EXIT_ERROR);
    return MINIVMM_EXIT_ERROR;
}

/* There is no VM, but there are reports that say why. */
static int refuse(struct report *report, const char *text)
{
    struct minivmm_verdict verdict = {.end = MINIVMM_END_ERROR, .exit_code = MINIVMM_EXIT_ERROR};

    snprintf(verdict.text, sizeof(verdict.text), "%s", text);
    fail(text);
    return finish_reports(report, NULL, &verdict);
}

/* Who wants to hear of events. */
struct listeners {
    struct report *report;
    struct api *api; /* NULL: there is no socket */
};

static void tell_listeners(void *arg, const struct minivmm_event *event)
{
    struct listeners *listeners = arg;

    report_event(listeners->report, event);
    if (listeners->api)
        api_event(listeners->api, event);
}

static int run(struct options *options, struct report *report)
{
    struct minivmm_verdict verdict;
    struct minivmm_error err;
    struct listeners listeners = {.report = report};
    struct minivmm *vm;

    int signals = open_signals();
    if (signals < 0) {
        error_set(&err, -errno, "signalfd: %s", strerror(errno));
        return refuse(report, err.text);
    }
    if (options->api_sock && api_create(options->api_sock, &listeners.api, &err) < 0)
        return refuse(report, err.text);
    options->vm.event = tell_listeners;
    options->vm.event_arg = &listeners;
    if (minivmm_create(&options->vm, &vm, &err) < 0) {
        api_destroy(listeners.api);
        return refuse(report, err.text);
    }
    print_ptys(options, vm);
    if (on_terminal)
        terminal_enter(STDIN_FILENO);
    minivmm_start(vm);
    if (listeners.api)
        api_run(listeners.api, vm, &options->vm, signals, take_signal);
    else
        supervise(vm, signals);
    if (wait_heedfully(vm, signals, &verdict))
        terminal_abandon();
    else
        terminal_leave();

    if (verdict.exit_code == MINIVMM_EXIT_FAULT || verdict.exit_code == MINIVMM_EXIT_TIMEOUT ||
        verdict.exit_code == MINIVMM_EXIT_SILENCE)
        minivmm_print_autopsy(vm, stderr);
    if (options->stats)
        print_stats(vm);
    if (!options->quiet || verdict.exit_code == MINIVMM_EXIT_ERROR)
        fprintf(stderr, "minivmm: %s (exit code %d)\n", verdict.text, verdict.exit_code);
    int code = finish_reports(report, vm, &verdict);
    minivmm_destroy(vm);
    api_destroy(listeners.api);
    return code;
}

/* A VM and the reports about it. */
static int run_reported(struct options *options, int argc, char **argv,
                        const struct report_begin *begin)
{
    struct report report;
    struct minivmm_error err;
    int code;

    on_terminal = options->stdio;
    if (on_terminal) {
        options->stdio->in = fcntl(STDIN_FILENO, F_GETFD) < 0 ? -1 : STDIN_FILENO;
        options->stdio->out = options->tap_output ? STDERR_FILENO : STDOUT_FILENO;
        options->stdio->escape = isatty(STDIN_FILENO);
    }
    if (options->stdio == &options->console)
        terminal_size(options->stdio->out, &options->vm.columns, &options->vm.rows);
    if (!options->quiet)
        options->vm.log = print_line;
    /* Descriptors that are closed now would become someone else's: a guest's output in a file. */
    bool no_stdout = fcntl(STDOUT_FILENO, F_GETFD) < 0;
    bool no_stderr = options->tap_output && fcntl(STDERR_FILENO, F_GETFD) < 0;
    if (report_open(&report, options, argc, argv, begin, &err) < 0)
        code = fail(err.text);
    else if (no_stdout || no_stderr)
        code =
            refuse(&report, no_stdout ? "standard output is closed" : "standard error is closed");
    else
        code = run(options, &report);
    report_close(&report);
    return code;
}

/* What the command line asks for; returns the exit code. */
static int obey(struct options *options, int argc, char **argv, const struct report_begin *begin)
{
    struct minivmm_error err;

    if (options->help || options->version) {
        if (options->help_topic)
            options_print_verdicts(stdout);
        else if (options->help)
            options_print_help(stdout);
        else
            puts("minivmm " MINIVMM_VERSION);
        return finish_stdout();
    }
    if (options->explain) {
        if (minivmm_explain(&options->vm, stdout, &err) < 0)
            return fail(err.text);
        return finish_stdout();
    }
    return run_reported(options, argc, argv, begin);
}

static int consult(int count, char **words)
{
    struct minivmm_error err;

    int code = doctor(count, words, stdout, &err);
    if (code < 0)
        return fail(err.text);
    return finish_stdout() == MINIVMM_EXIT_OK ? code : MINIVMM_EXIT_ERROR;
}

int main(int argc, char **argv)
{
    struct report_begin begin;
    struct options options;
    struct minivmm_error err;

    report_note_begin(&begin);
    if (argc > 1 && strcmp(argv[1], "ctl") == 0)
        return ctl_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "doctor") == 0)
        return consult(argc - 2, argv + 2);
    int code = options_parse(argc, argv, &options, &err) < 0 ? fail(err.text)
                                                             : obey(&options, argc, argv, &begin);
    options_finish(&options);
    return code;
}
