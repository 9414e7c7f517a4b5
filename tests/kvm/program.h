/*
 * The built program as a user meets it: arguments, descriptors, a terminal, signals, what it
 * prints and how it ends. Its path comes from the environment, MINIVMM.
 *
 * A program that does not end within PROGRAM_DEADLINE seconds is killed, and the test fails.
 */
#ifndef TESTS_KVM_PROGRAM_H
#define TESTS_KVM_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <termios.h>

#define PROGRAM_ARGUMENTS 16
#define PROGRAM_TEXT      65536
#define PROGRAM_DEADLINE  100

/* Where a standard descriptor of the program leads. */
enum program_end {
    PROGRAM_DEFAULT, /* /dev/null for input, a pipe to us for the other two */
    PROGRAM_PIPE,
    PROGRAM_CLOSED,
    PROGRAM_FULL,     /* /dev/full */
    PROGRAM_TERMINAL, /* a terminal of its own, the same for all that say so */
};

struct program {
    const char *arguments[PROGRAM_ARGUMENTS]; /* behind argv[0]; NULL ends them */
    enum program_end in, out, err;
    bool nobody;          /* with uid and gid 65534 and no other group */
    int ignored;          /* a signal that is ignored from the start, as nohup has it; 0: none */
    bool among_others;    /* other programs of the test run beside it */
    bool background;      /* another process group has the terminal, see program_foreground */
    bool no_files;        /* none of its files may grow, as after ulimit -f 0 */
    const char *over_kvm; /* this file in place of /dev/kvm; "": an empty /dev */

    pid_t pid;
    int in_fd, out_fd, err_fd; /* our ends of the pipes, else -1 */
    int terminal;              /* our end of the terminal, else -1 */
    int terminal_other_end;    /* the program's, for its settings */
    struct termios terminal_before;

    int exit_code;                                       /* or -1 */
    int signal;                                          /* that it died of, or 0 */
    char out_text[PROGRAM_TEXT], err_text[PROGRAM_TEXT]; /* all that came through the pipes */
    size_t out_length, err_length;
};

/* Skips the test where `nobody` or `over_kvm` need a privilege that we lack. */
void program_start(struct program *program);

/* Read from the program's output, or terminal, until `text` has come; fails after a deadline. */
void program_await(struct program *program, const char *text);

/* Let a program that was started in the background have its terminal. */
void program_foreground(struct program *program);

/* Close the input if it is a pipe, read all output, wait for the end and that no child is left. */
void program_finish(struct program *program);

void program_run(struct program *program);

/*
 * It refused: exit code 125, one line on standard error, nothing on standard output. `pattern` is
 * for fnmatch and stands for the line behind "minivmm: ".
 */
void program_expect_refusal(const struct program *program, const char *row, const char *pattern);

/* The last line of the program's standard error, without its newline; the caller's to free. */
char *program_last_line(const struct program *program);

/* A directory for files of a test; the entries of a directory; remove it with its files. */
void scratch_make(char path[64]);
unsigned scratch_count(const char *path);
void scratch_remove(const char *path);
void scratch_write(const char *path, const void *data, size_t length);

#endif
