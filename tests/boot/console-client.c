/*
 * A client of a Unix socket: standard input goes to it, what it says to standard output.
 *
 * usage: console-client PATH [TEXT]
 *   TEXT   end as soon as this was heard; else at the other's end
 * exit codes: 0 heard it, or the other's end; 1 nobody there, or an end without it; 124 after 300
 * s, which is longer than a guest may run
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char heard[65536];

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char buffer[4096];
    size_t length = 0;

    if (argc < 2)
        return 2;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", argv[1]);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        perror(argv[1]);
        return 1;
    }
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = fd, .events = POLLIN}};
    while (poll(fds, 2, 300 * 1000) > 0) {
        if (fds[0].revents) {
            ssize_t n = read(STDIN_FILENO, buffer, sizeof(buffer));
            if (n <= 0)
                fds[0].fd = -1;
            else if (write(fd, buffer, (size_t)n) != n)
                return 1;
        }
        if (fds[1].revents) {
            ssize_t n = read(fd, heard + length, sizeof(heard) - 1 - length);
            if (n <= 0)
                return argc > 2;
            if (write(STDOUT_FILENO, heard + length, (size_t)n) != n)
                return 1;
            length += (size_t)n;
            if (argc > 2 && strstr(heard, argv[2]))
                return 0;
        }
    }
    return 124;
}
