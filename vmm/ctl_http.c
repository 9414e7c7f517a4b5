/*
 * One request a connection, in HTTP/1.0: the answer is a status line, headers, and a body up to the
 * end of the connection.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "vmm/api_socket.h"
#include "vmm/ctl.h"

#define LINE_MAX_BYTES 8192u

static long long now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (long long)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Wait until the socket can be used; `deadline` 0: for ever. */
static int wait_for(int fd, short events, long long deadline)
{
    struct pollfd pfd = {.fd = fd, .events = events};
    for (;;) {
        long long left = deadline ? deadline - now_ms() : -1;
        if (deadline && left <= 0)
            return -ETIMEDOUT;
        int rc = poll(&pfd, 1, (int)left);
        if (rc > 0)
            return 0;
        if (rc < 0 && errno != EINTR)
            return -errno;
    }
}

static int send_all(int fd, const char *text, long long deadline)
{
    size_t left = strlen(text);
    while (left > 0) {
        int rc = wait_for(fd, POLLOUT, deadline);
        if (rc < 0)
            return rc;
        ssize_t n = send(fd, text, left, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return -errno;
        text += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Bytes read, 0 at the end. */
static ssize_t receive(int fd, char *to, size_t size, long long deadline)
{
    for (;;) {
        int rc = wait_for(fd, POLLIN, deadline);
        if (rc < 0)
            return rc;
        ssize_t n = recv(fd, to, size, 0);
        if (n >= 0 || (errno != EAGAIN && errno != EINTR))
            return n < 0 ? -errno : n;
    }
}

static int fail(const struct ctl_server *server, int rc, struct minivmm_error *err)
{
    return error_set(err, rc, "%s: %s", server->path,
                     rc == -ETIMEDOUT ? "no answer in time" : strerror(-rc));
}

/* Connect and ask; the socket, or an error. */
static int begin(const struct ctl_server *server, const char *method, const char *path,
                 const char *accept, const char *body, long long deadline,
                 struct minivmm_error *err)
{
    char *request;

    int fd = api_socket_connect(server->path, err);
    if (fd < 0)
        return fd;
    int length = asprintf(&request,
                          "%s %s HTTP/1.0\r\nHost: localhost\r\nAccept: %s\r\n"
                          "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                          method, path, accept ? accept : "application/json",
                          body ? strlen(body) : 0, body ? body : "");
    int rc = length < 0 ? -ENOMEM : send_all(fd, request, deadline);
    if (length >= 0)
        free(request);
    if (rc < 0) {
        close(fd);
        return fail(server, rc, err);
    }
    return fd;
}

/* Take the status line and the headers apart; the body's first byte, or NULL. */
static char *find_body(char *text, int *status)
{
    char *end = strstr(text, "\r\n\r\n");
    if (!end || sscanf(text, "HTTP/1.%*d %d ", status) != 1)
        return NULL;
    return end + 4;
}

int ctl_ask(const struct ctl_server *server, const char *method, const char *path,
            const char *accept, const char *body, struct ctl_answer *answer,
            struct minivmm_error *err)
{
    long long deadline = now_ms() + server->timeout_ms;
    size_t length = 0;
    ssize_t n;

    int fd = begin(server, method, path, accept, body, deadline, err);
    if (fd < 0)
        return fd;
    char *text = malloc(CTL_ANSWER_MAX + 1);
    do {
        n = text ? receive(fd, text + length, CTL_ANSWER_MAX - length, deadline) : -ENOMEM;
        length += n > 0 ? (size_t)n : 0;
    } while (n > 0 && length < CTL_ANSWER_MAX);
    close(fd);
    if (n < 0) {
        free(text);
        return fail(server, (int)n, err);
    }
    text[length] = '\0';
    char *begins = find_body(text, &answer->status);
    if (!begins) {
        free(text);
        return error_set(err, -EPROTO, "%s: what answers there is no minivmm", server->path);
    }
    answer->body = memmove(text, begins, strlen(begins) + 1);
    return 0;
}

int ctl_listen(const struct ctl_server *server, void (*line)(void *arg, const char *text),
               void *arg, struct minivmm_error *err)
{
    long long deadline = now_ms() + server->timeout_ms;
    char text[LINE_MAX_BYTES + 1];
    size_t length = 0;
    bool in_body = false;
    int status;
    ssize_t n;

    int fd = begin(server, "GET", "/events", NULL, NULL, deadline, err);
    if (fd < 0)
        return fd;
    while ((n = receive(fd, text + length, LINE_MAX_BYTES - length, deadline)) > 0) {
        length += (size_t)n;
        text[length] = '\0';
        if (!in_body) {
            char *begins = find_body(text, &status);
            if (!begins)
                continue;
            if (status != 200)
                break;
            length = strlen(begins);
            memmove(text, begins, length + 1);
            in_body = true;
            deadline = 0;
        }
        for (char *end; (end = strchr(text, '\n')) != NULL;) {
            *end = '\0';
            line(arg, text);
            length = strlen(end + 1);
            memmove(text, end + 1, length + 1);
        }
        if (length == LINE_MAX_BYTES)
            length = 0; /* no line of ours */
    }
    close(fd);
    if (n < 0 && n != -ECONNRESET)
        return fail(server, (int)n, err);
    return in_body ? 0 : error_set(err, -EPROTO, "%s: there is no stream of events", server->path);
}
