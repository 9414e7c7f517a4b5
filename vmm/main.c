/* The command line: a thin user of the library. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "vmm/config.h"
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
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static void handle_signal(const struct options *options, struct minivmm *vm, int signal)
{
    unsigned columns, rows;

    switch (signal) {
    case SIGTSTP: /* the shell gets its terminal back while we are stopped */
        terminal_leave();
        raise(SIGSTOP);
        break;
    case SIGCONT:
        if (options->stdio)
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

static void supervise(const struct options *options, struct minivmm *vm, int signals)
{
    struct pollfd fds[] = {{.fd = minivmm_end_fd(vm), .events = POLLIN},
                           {.fd = signals, .events = POLLIN}};
    while (!(fds[0].revents & POLLIN)) {
        struct signalfd_siginfo info;
        if (poll(fds, 2, -1) > 0 && (fds[1].revents & POLLIN) &&
            read(signals, &info, sizeof(info)) == sizeof(info))
            handle_signal(options, vm, (int)info.ssi_signo);
    }
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

static int run(const struct options *options)
{
    struct minivmm_verdict verdict;
    struct minivmm_error err;
    struct minivmm *vm;

    int signals = open_signals();
    if (signals < 0) {
        error_set(&err, -errno, "signalfd: %s", strerror(errno));
        return fail(err.text);
    }
    if (minivmm_create(&options->vm, &vm, &err) < 0)
        return fail(err.text);
    print_ptys(options, vm);
    if (options->stdio)
        terminal_enter(STDIN_FILENO);
    minivmm_start(vm);
    supervise(options, vm, signals);
    minivmm_wait(vm, &verdict);
    terminal_leave();

    if (verdict.exit_code == MINIVMM_EXIT_FAULT || verdict.exit_code == MINIVMM_EXIT_TIMEOUT)
        minivmm_print_vcpus(vm, stderr);
    if (options->stats)
        print_stats(vm);
    if (!options->quiet || verdict.exit_code == MINIVMM_EXIT_ERROR)
        fprintf(stderr, "minivmm: %s (exit code %d)\n", verdict.text, verdict.exit_code);
    minivmm_destroy(vm);
    return verdict.exit_code;
}

/* What the command line asks for; returns the exit code. */
static int obey(struct options *options)
{
    struct minivmm_error err;

    if (options->help || options->version) {
        if (options->help)
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
    /* Descriptors that are closed now would become someone else's: a guest's output in a file. */
    if (fcntl(STDOUT_FILENO, F_GETFD) < 0)
        return fail("standard output is closed");
    if (options->stdio) {
        options->stdio->in = fcntl(STDIN_FILENO, F_GETFD) < 0 ? -1 : STDIN_FILENO;
        options->stdio->escape = isatty(STDIN_FILENO);
    }
    if (options->stdio == &options->console)
        terminal_size(STDOUT_FILENO, &options->vm.columns, &options->vm.rows);
    if (!options->quiet)
        options->vm.log = print_line;
    return run(options);
}

int main(int argc, char **argv)
{
    struct options options;
    struct minivmm_error err;

    int code = options_parse(argc, argv, &options, &err) < 0 ? fail(err.text) : obey(&options);
    options_finish(&options);
    return code;
}
