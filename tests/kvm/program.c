#include "tests/kvm/program.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOBODY 65534
/* What the child says when it cannot even start; no exit code of minivmm's. */
#define EXIT_SKIP 200
#define EXIT_LOST 201

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void open_terminal(struct program *program)
{
    program->terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    cr_assert_geq(program->terminal, 0);
    cr_assert_eq(grantpt(program->terminal), 0);
    cr_assert_eq(unlockpt(program->terminal), 0);
    program->terminal_other_end = open(ptsname(program->terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
    cr_assert_geq(program->terminal_other_end, 0);
    cr_assert_eq(tcgetattr(program->terminal_other_end, &program->terminal_before), 0);
}

/* The program's descriptor for `end`; *ours is the other side of a pipe. */
static int open_end(struct program *program, enum program_end end, bool input, int *ours)
{
    int fds[2];

    *ours = -1;
    if (end == PROGRAM_DEFAULT)
        end = input ? PROGRAM_DEFAULT : PROGRAM_PIPE;
    switch (end) {
    case PROGRAM_DEFAULT:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    case PROGRAM_PIPE:
        cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
        *ours = fds[input];
        return fds[!input];
    case PROGRAM_FULL:
        return open("/dev/full", O_RDWR | O_CLOEXEC);
    case PROGRAM_TERMINAL:
        return fcntl(program->terminal_other_end, F_DUPFD_CLOEXEC, 0);
    case PROGRAM_CLOSED:
        break;
    }
    return -1;
}

static bool hide_kvm(const char *over_kvm)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return false;
    if (*over_kvm)
        return mount(over_kvm, "/dev/kvm", NULL, MS_BIND, NULL) == 0;
    return mount("tmpfs", "/dev", "tmpfs", 0, NULL) == 0;
}

/*
 * A process of another group takes the terminal of our session, until SIGTERM; then it gives it to
 * us, as a shell does.
 */
static void start_in_background(int terminal)
{
    sigset_t set;
    int received, pipe_fds[2];

    if (pipe(pipe_fds) < 0)
        _exit(EXIT_LOST);
    if (fork() == 0) {
        signal(SIGTTOU, SIG_IGN);
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigprocmask(SIG_BLOCK, &set, NULL);
        setpgid(0, 0);
        tcsetpgrp(terminal, getpgrp());
        for (int fd = 0; fd < 1024; fd++) {
            if (fd != terminal)
                close(fd); /* and so lets our parent go on */
        }
        alarm(PROGRAM_DEADLINE);
        sigwait(&set, &received);
        tcsetpgrp(terminal, getpgid(getppid()));
        _exit(0);
    }
    signal(SIGCHLD, SIG_IGN); /* nobody waits for it */
    close(pipe_fds[1]);
    char byte;
    if (read(pipe_fds[0], &byte, 1) != 0)
        _exit(EXIT_LOST);
    close(pipe_fds[0]);
}

static void become(const struct program *program, int binary, const int ends[3])
{
    const struct rlimit none_at_all = {0};
    char name[] = "minivmm", *argv[PROGRAM_ARGUMENTS + 2] = {name};
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int i = 1; i < 32; i++)
        signal(i, SIG_DFL);
    setrlimit(RLIMIT_CORE, &none_at_all);
    if (program->no_files)
        setrlimit(RLIMIT_FSIZE, &none_at_all);
    if (program->terminal >= 0) {
        setsid();
        ioctl(program->terminal_other_end, TIOCSCTTY, 0);
    }
    if (program->background)
        start_in_background(program->terminal_other_end);
    if (program->ignored)
        signal(program->ignored, SIG_IGN);
    if (program->over_kvm && !hide_kvm(program->over_kvm))
        _exit(EXIT_SKIP);
    if (program->nobody && (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0))
        _exit(EXIT_SKIP);
    for (int i = 0; i < 3; i++) {
        if (ends[i] < 0)
            close(i);
        else
            dup2(ends[i], i);
    }
    for (int i = 0; program->arguments[i]; i++)
        argv[i + 1] = (char *)program->arguments[i];
    fexecve(binary, argv, environ);
    _exit(EXIT_LOST);
}

void program_start(struct program *program)
{
    const char *path = getenv("MINIVMM");
    cr_assert_not_null(path, "the environment names no program: MINIVMM");
    int binary = open(path, O_PATH | O_CLOEXEC);
    cr_assert_geq(binary, 0, "%s: %s", path, strerror(errno));
    if ((program->nobody || program->over_kvm) && geteuid() != 0)
        cr_skip_test("only root can take /dev/kvm away from a program");

    program->terminal = program->terminal_other_end = -1;
    if (program->in == PROGRAM_TERMINAL || program->out == PROGRAM_TERMINAL)
        open_terminal(program);
    const int ends[3] = {open_end(program, program->in, true, &program->in_fd),
                         open_end(program, program->out, false, &program->out_fd),
                         open_end(program, program->err, false, &program->err_fd)};
    /* Children that a program leaves behind would become ours, and program_finish would see. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    program->pid = fork();
    cr_assert_geq(program->pid, 0);
    if (program->pid == 0)
        become(program, binary, ends);
    for (int i = 0; i < 3; i++) {
        if (ends[i] >= 0)
            close(ends[i]);
    }
    close(binary);
    signal(SIGPIPE, SIG_IGN);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Append what `fd` has; at its end, close it. */
static void take(int *fd, char *text, size_t *length)
{
    cr_assert_lt(*length, PROGRAM_TEXT - 1u, "too much output");
    ssize_t n = read(*fd, text + *length, PROGRAM_TEXT - 1 - *length);
    if (n > 0)
        *length += (size_t)n;
    else
        close_fd(fd);
    text[*length] = '\0';
}

/* Wait up to a deadline for output of any kind and take it; false when there can be none. */
static bool pump(struct program *program, double deadline)
{
    struct pollfd fds[] = {{.fd = program->out_fd, .events = POLLIN},
                           {.fd = program->err_fd, .events = POLLIN},
                           {.fd = program->terminal, .events = POLLIN}};
    if (program->out_fd < 0 && program->err_fd < 0 && program->terminal < 0)
        return false;
    double left = deadline - now();
    if (left < 0 || poll(fds, 3, (int)(left * 1000) + 1) == 0) {
        kill(program->pid, SIGKILL);
        cr_assert_fail("no end in time; output: %s; errors: %s", program->out_text,
                       program->err_text);
    }
    if (fds[0].revents)
        take(&program->out_fd, program->out_text, &program->out_length);
    if (fds[1].revents)
        take(&program->err_fd, program->err_text, &program->err_length);
    if (fds[2].revents)
        take(&program->terminal, program->out_text, &program->out_length);
    return true;
}

void program_await(struct program *program, const char *text)
{
    double deadline = now() + PROGRAM_DEADLINE;
    while (!strstr(program->out_text, text) && pump(program, deadline))
        continue;
    cr_assert(strstr(program->out_text, text), "no \"%s\" in the output: %s; errors: %s", text,
              program->out_text, program->err_text);
}

void program_foreground(struct program *program)
{
    pid_t other = tcgetpgrp(program->terminal);
    cr_assert_gt(other, 0);
    cr_assert_eq(kill(other, SIGTERM), 0);
    for (int i = 0; i < 500 && tcgetpgrp(program->terminal) == other; i++)
        usleep(10000);
}

static void wait_for_end(struct program *program, double deadline)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(program->pid, &status, WNOHANG)) == 0) {
        if (now() > deadline) {
            kill(program->pid, SIGKILL);
            cr_assert_fail("no end in time; errors: %s", program->err_text);
        }
        usleep(1000);
    }
    cr_assert_eq(pid, program->pid);
    program->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    program->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

void program_finish(struct program *program)
{
    double deadline = now() + PROGRAM_DEADLINE;
    int master = program->terminal;

    close_fd(&program->in_fd);
    program->terminal = -1; /* it has no end as long as we hold the other one */
    while (pump(program, deadline))
        continue;
    wait_for_end(program, deadline);
    program->terminal = master;
    if (program->exit_code == EXIT_SKIP)
        cr_skip_test("this place does not let us take /dev/kvm away from a program");
    cr_assert_neq(program->exit_code, EXIT_LOST, "the program does not start");
    if (!program->among_others)
        cr_expect(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "a process is left behind");
}

void program_run(struct program *program)
{
    program_start(program);
    program_finish(program);
}

void program_expect_refusal(const struct program *program, const char *row, const char *pattern)
{
    static const char prefix[] = "minivmm: ";
    const size_t skip = sizeof(prefix) - 1;
    const char *text = program->err_text;
    size_t length = strcspn(text, "\n");

    cr_expect_eq(program->exit_code, 125, "%s: exit code %d", row, program->exit_code);
    cr_expect_eq(program->signal, 0, "%s: died of signal %d", row, program->signal);
    cr_expect_str_eq(program->out_text, "", "%s: output", row);
    cr_expect(text[length] == '\n' && text[length + 1] == '\0', "%s: not one line: %s", row, text);
    char *line = strndup(text, length);
    cr_expect(strncmp(line, prefix, skip) == 0 && fnmatch(pattern, line + skip, 0) == 0,
              "%s: \"%s\" is not \"%s\"", row, line, pattern);
    free(line);
}

char *program_last_line(const struct program *program)
{
    const char *text = program->err_text;
    size_t end = program->err_length;

    cr_assert(end > 0 && text[end - 1] == '\n', "errors end in a line: %s", text);
    size_t start = --end;
    while (start > 0 && text[start - 1] != '\n')
        start--;
    return strndup(text + start, end - start);
}

void scratch_make(char path[64])
{
    strcpy(path, "/tmp/minivmm-test-XXXXXX");
    cr_assert_not_null(mkdtemp(path));
    cr_assert_eq(chmod(path, 0755), 0);
}

unsigned scratch_count(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    cr_assert_not_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 2; /* "." and ".." */
}

void scratch_remove(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    cr_assert_not_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            unlinkat(dirfd(dir), entry->d_name, 0) < 0)
            unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
    rmdir(path);
}

void scratch_write(const char *path, const void *data, size_t length)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, data, length), (ssize_t)length);
    close(fd);
}
