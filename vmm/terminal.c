#include "vmm/terminal.h"

#include <signal.h>
#include <stddef.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved;
static volatile sig_atomic_t taken_fd = -1;

void terminal_leave(void)
{
    int fd = taken_fd;
    taken_fd = -1;
    if (fd >= 0)
        tcsetattr(fd, TCSADRAIN, &saved);
}

/* A fault of our own: restore, then die of it as if nobody had looked. */
static void crash(int signal_number)
{
    terminal_leave();
    raise(signal_number); /* SA_RESETHAND: the default action now */
}

static void catch_crashes(void)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP};
    struct sigaction action = {.sa_handler = crash, .sa_flags = SA_RESETHAND | SA_NODEFER};

    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
        sigaction(crashes[i], &action, NULL);
}

void terminal_enter(int fd)
{
    struct termios raw;

    if (tcgetattr(fd, &saved) < 0 || tcgetpgrp(fd) != getpgrp())
        return;
    catch_crashes();
    raw = saved;
    cfmakeraw(&raw);
    taken_fd = fd;
    tcsetattr(fd, TCSADRAIN, &raw);
}
