#include "vmm/terminal.h"

#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved;
static volatile sig_atomic_t taken_fd = -1;

static void leave(int when)
{
    int fd = taken_fd;
    taken_fd = -1;
    if (fd >= 0 && tcgetpgrp(fd) == getpgrp()) /* else its shell has it back already */
        tcsetattr(fd, when, &saved);
}

void terminal_leave(void)
{
    leave(TCSADRAIN);
}

void terminal_abandon(void)
{
    leave(TCSANOW);
}

void terminal_hear_signals(void)
{
    struct termios raw;
    int fd = taken_fd;

    if (fd < 0 || tcgetpgrp(fd) != getpgrp() || tcgetattr(fd, &raw) < 0)
        return;
    raw.c_lflag |= ISIG;
    tcsetattr(fd, TCSANOW, &raw);
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

    if (tcgetattr(fd, &raw) < 0 || tcgetpgrp(fd) != getpgrp())
        return;
    if (taken_fd < 0) { /* else these are our own settings, or those of whoever stopped us */
        saved = raw;
        catch_crashes();
        taken_fd = fd;
    }
    cfmakeraw(&raw);
    tcsetattr(fd, TCSADRAIN, &raw);
}

bool terminal_size(int fd, unsigned *columns, unsigned *rows)
{
    struct winsize size;

    if (ioctl(fd, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0)
        return false;
    *columns = size.ws_col;
    *rows = size.ws_row;
    return true;
}
