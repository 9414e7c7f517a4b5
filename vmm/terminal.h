/*
 * The terminal of the command line: raw while the guest has it, restored whatever happens.
 * One terminal a process, because signals are a process's. For main.c, not part of the library.
 */
#ifndef VMM_TERMINAL_H
#define VMM_TERMINAL_H

#include <stdbool.h>

/*
 * Hand the terminal on `fd` to the guest: every key goes to it. Nothing happens when `fd` is no
 * terminal or minivmm is in its background; to take it again does no harm. From here on, crashes of
 * our own restore it first.
 */
void terminal_enter(int fd);

/* Give it back as it was. Harmless when it was never taken; may be called in a signal handler. */
void terminal_leave(void);

/* The guest has ended, but the wait for its output has not: let Ctrl-C be a signal again. */
void terminal_hear_signals(void);

/* terminal_leave without waiting for a reader of what was written. */
void terminal_abandon(void);

/* The size of the terminal on `fd`; false where it is none, or has none. */
bool terminal_size(int fd, unsigned *columns, unsigned *rows);

#endif
