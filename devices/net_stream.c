#include "devices/net_stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LENGTH_SIZE sizeof(uint32_t)
#define HEAD_MAX    (ETH_HLEN + 2 * 4u) /* Ethernet, two VLAN tags */
#define FRAME_MAX   (NET_PACKET_MAX - NET_HEADER_SIZE)
#define IN_SIZE     (4u * (LENGTH_SIZE + FRAME_MAX))

struct net_stream {
    struct net_backend be;
    struct net_stream_config config;
    /* What has come: bytes [in_begin, in_end) are not handed on yet. */
    uint8_t *in;
    size_t in_begin, in_end;
    /* The end of a frame that the socket has not taken: bytes [out_begin, out_end). */
    uint8_t *out;
    size_t out_begin, out_end;
    bool ended;
};

static struct net_stream *stream_of(struct net_backend *be)
{
    return (struct net_stream *)be;
}

/* Nobody to speak to. */
static int end(struct net_stream *s)
{
    if (!s->ended && s->config.ended)
        s->config.ended(s->config.arg);
    s->ended = true;
    return -EBADFD;
}

/* ---- in ------------------------------------------------------------------------------------ */

/* Read more; 0, -EAGAIN, or -EBADFD at the end. */
static int fill(struct net_stream *s)
{
    if (s->in_begin > 0) {
        memmove(s->in, s->in + s->in_begin, s->in_end - s->in_begin);
        s->in_end -= s->in_begin;
        s->in_begin = 0;
    }
    ssize_t n = recv(s->be.fds[0], s->in + s->in_end, IN_SIZE - s->in_end, MSG_DONTWAIT);
    if (n > 0) {
        s->in_end += (size_t)n;
        return 0;
    }
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? -EAGAIN : end(s);
}

/* Copy a header of zeroes and the frame into `iov`. */
static void scatter(const struct iovec *iov, unsigned count, const uint8_t *frame, size_t length)
{
    size_t zeroes = NET_HEADER_SIZE;

    for (unsigned i = 0; i < count && zeroes + length > 0; i++) {
        uint8_t *to = iov[i].iov_base;
        size_t room = iov[i].iov_len;
        size_t part = room < zeroes ? room : zeroes;
        memset(to, 0, part);
        zeroes -= part;
        room -= part;
        to += part;
        part = room < length ? room : length;
        memcpy(to, frame, part);
        frame += part;
        length -= part;
    }
}

static ssize_t stream_receive(struct net_backend *be, unsigned pair, const struct iovec *iov,
                              unsigned count)
{
    struct net_stream *s = stream_of(be);

    (void)pair;
    for (;;) {
        uint32_t length = 0;
        size_t there = s->in_end - s->in_begin;
        if (there >= LENGTH_SIZE) {
            memcpy(&length, s->in + s->in_begin, LENGTH_SIZE);
            length = ntohl(length);
            if (length > FRAME_MAX)
                return end(s); /* whatever speaks there, it is not this */
        }
        if (there >= LENGTH_SIZE && there - LENGTH_SIZE >= length) {
            if (length <= HEAD_MAX + s->be.mtu)
                scatter(iov, count, s->in + s->in_begin + LENGTH_SIZE, length);
            s->in_begin += LENGTH_SIZE + length;
            return length <= HEAD_MAX + s->be.mtu ? (ssize_t)(NET_HEADER_SIZE + length) : -EMSGSIZE;
        }
        int rc = fill(s);
        if (rc < 0)
            return rc;
    }
}

/* ---- out ----------------------------------------------------------------------------------- */

static int stream_flush(struct net_backend *be, unsigned pair)
{
    struct net_stream *s = stream_of(be);

    (void)pair;
    while (s->out_begin < s->out_end) {
        ssize_t n = send(s->be.fds[0], s->out + s->out_begin, s->out_end - s->out_begin,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR ? -EAGAIN : end(s);
        s->out_begin += (size_t)n;
    }
    return 0;
}

static int stream_send(struct net_backend *be, unsigned pair, const struct iovec *iov,
                       unsigned count)
{
    struct net_stream *s = stream_of(be);
    size_t skip = NET_HEADER_SIZE, length = 0;

    int rc = stream_flush(be, pair);
    if (rc < 0)
        return rc;
    /* One copy, of a frame that the guest may be changing: what was looked at is what goes out. */
    uint8_t *frame = s->out + LENGTH_SIZE;
    for (unsigned i = 0; i < count; i++) {
        size_t jump = iov[i].iov_len < skip ? iov[i].iov_len : skip;
        size_t part = iov[i].iov_len - jump;
        if (part > FRAME_MAX - length)
            return -EMSGSIZE;
        memcpy(frame + length, (const uint8_t *)iov[i].iov_base + jump, part);
        length += part;
        skip -= jump;
    }
    if (length == 0)
        return -EINVAL;
    if (length > HEAD_MAX + s->be.mtu)
        return -EMSGSIZE;
    if (s->config.allows && !s->config.allows(s->config.arg, frame, length))
        return -EPERM;
    uint32_t prefix = htonl((uint32_t)length);
    memcpy(s->out, &prefix, sizeof(prefix));
    s->out_begin = 0;
    s->out_end = LENGTH_SIZE + length;
    rc = stream_flush(be, pair);
    return rc == -EAGAIN ? 1 : rc;
}

/* ---- life ---------------------------------------------------------------------------------- */

static int stream_set_offloads(struct net_backend *be, uint64_t features)
{
    (void)be;
    return features ? -EINVAL : 0;
}

static int stream_set_pairs(struct net_backend *be, unsigned pairs)
{
    (void)be;
    return pairs == 1 ? 0 : -EINVAL;
}

static void stream_destroy(struct net_backend *be)
{
    struct net_stream *s = stream_of(be);

    close(be->fds[0]);
    if (s->config.destroy)
        s->config.destroy(s->config.arg);
    free(s->in);
    free(s->out);
    free(s);
}

static const struct net_backend_ops stream_ops = {.receive = stream_receive,
                                                  .send = stream_send,
                                                  .flush = stream_flush,
                                                  .set_offloads = stream_set_offloads,
                                                  .set_pairs = stream_set_pairs,
                                                  .destroy = stream_destroy};

int net_stream_create(const struct net_stream_config *config, int fd, unsigned index,
                      struct net_backend **backend, struct minivmm_error *err)
{
    struct net_stream *s = calloc(1, sizeof(*s));
    if (s) { /* from here on it owns what it was given */
        s->be =
            (struct net_backend){.ops = &stream_ops, .pairs = 1, .fds = {fd}, .mtu = config->mtu};
        s->config = *config;
        s->in = malloc(IN_SIZE);
        s->out = malloc(LENGTH_SIZE + FRAME_MAX);
    }
    if (!s || !s->in || !s->out) {
        if (s) {
            stream_destroy(&s->be);
        } else {
            close(fd);
            if (config->destroy)
                config->destroy(config->arg);
        }
        return error_set(err, -ENOMEM, "net %u: out of memory", index);
    }
    *backend = &s->be;
    return 0;
}

int net_stream_connect(const char *path, unsigned index, struct minivmm_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        return error_set(err, -ENAMETOOLONG, "net %u: socket %s: longer than %zu bytes", index,
                         path, sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, -errno, "net %u: socket: %s", index, strerror(errno));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int code = -errno;
        close(fd);
        return error_set(err, code, "net %u: socket %s: %s%s", index, path, strerror(-code),
                         code == -ECONNREFUSED ? "; nobody listens there" : "");
    }
    return fd;
}
