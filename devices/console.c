#include "devices/console.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "devices/console_control.h"
#include "devices/console_input.h"
#include "devices/console_queue.h"
#include "devices/host_end.h"
#include "virtio/local.h"
#include "virtio/span.h"

#define BIT(n) (1ull << (n))

#define CHUNK      16384u /* bytes of output handed on at a time */
#define CHUNKS_MAX 16u    /* of them, before others have their turn */

/* 5.3.2: which queues there are, and what for. */
enum { QUEUE_RX, QUEUE_TX, QUEUE_CONTROL_RX, QUEUE_CONTROL_TX, QUEUE_PORT_1 };

_Static_assert(CONSOLE_PORTS_MAX == 1 + MINIVMM_PORTS_MAX + 1, "port 0, the named, the status");
_Static_assert(CONSOLE_NAME_MAX == MINIVMM_PORT_NAME, "one limit");
_Static_assert(2 * (CONSOLE_PORTS_MAX + 1) <= VIRTIO_QUEUES_MAX, "two queues a port, and two more");

struct port {
    struct console *console;
    unsigned id;
    char name[MINIVMM_PORT_NAME + 1]; /* "" for one that leads nowhere */
    bool is_status;
    struct virtio_queue *rx, *tx;

    struct host_end end;
    struct host_stream stream;
    bool has_stream;
    pthread_mutex_t out_lock; /* from a look at the stream's room to the use of it */
    uint64_t tx_done;         /* bytes of the next chain that have gone out */

    struct console_input input;
};

struct console {
    struct virtio_dev dev;
    struct virtio_console_config config;
    const struct console_events *events;
    void *arg;
    bool is_console; /* one port, and that a console */
    bool has_size;
    bool size_told; /* to the driver of now */
    struct console_control control;
    unsigned port_count;
    struct port *ports;
};

static struct console *console_of(struct virtio_dev *dev)
{
    return (struct console *)((char *)dev - offsetof(struct console, dev));
}

/* ---- output -------------------------------------------------------------------------------- */

static void hand_on(struct port *port, const uint8_t *chunk, size_t size)
{
    struct console *console = port->console;

    if (port->has_stream)
        host_stream_write(&port->stream, chunk, size);
    else if (port->is_status)
        console->events->status(console->arg, chunk, size);
    if (console->is_console)
        console->events->printed(console->arg, chunk, size);
}

/* One chunk; as a serve function, and -EAGAIN when the stream has no room. */
static int serve_chunk(struct port *port)
{
    uint8_t chunk[CHUNK];
    size_t size;
    unsigned puts;

    pthread_mutex_lock(&port->out_lock);
    size_t room = port->has_stream ? host_stream_space(&port->stream) : CHUNK;
    room = room < CHUNK ? room : CHUNK;
    int rc = room > 0 ? console_queue_gather(port->tx, &port->tx_done, chunk, room, &size, &puts)
                      : -EAGAIN;
    if (rc != -EAGAIN && size > 0)
        hand_on(port, chunk, size);
    pthread_mutex_unlock(&port->out_lock);
    if (rc != -EAGAIN && puts > 0)
        local_publish(port->tx);
    return rc;
}

static int serve_tx(struct port *port)
{
    int rc = 1;

    for (unsigned i = 0; i < CHUNKS_MAX && rc == 1; i++)
        rc = serve_chunk(port);
    return rc;
}

static void stream_writable(void *dev)
{
    struct port *port = dev;
    local_resume(port->tx);
}

static void stream_failed(void *dev, int error)
{
    struct port *port = dev;
    port->console->events->failed(port->console->arg, port->name, error);
}

/* ---- input --------------------------------------------------------------------------------- */

static bool may_receive(const struct port *port)
{
    const struct console *console = port->console;
    return console->is_console || (virtio_has(&console->dev, VIRTIO_CONSOLE_F_MULTIPORT) &&
                                   console->control.ports[port->id].open);
}

static int serve_rx(struct port *port)
{
    return may_receive(port) ? console_input_serve(&port->input, port->rx, &port->stream) : -EAGAIN;
}

static size_t stream_room(void *dev)
{
    struct port *port = dev;
    return console_input_room(&port->input);
}

static void stream_input(void *dev, const uint8_t *data, size_t length)
{
    struct port *port = dev;

    if (console_input_add(&port->input, data, length))
        port->console->events->leave(port->console->arg);
    if (port->rx->served && serve_rx(port) != -EAGAIN)
        local_resume(port->rx); /* goes on, asks for a kick, or breaks the device */
}

static const struct host_stream_ops stream_ops = {.room = stream_room,
                                                  .input = stream_input,
                                                  .writable = stream_writable,
                                                  .failed = stream_failed};

/* ---- control queues ------------------------------------------------------------------------ */

static int serve_control_rx(struct console *console, struct virtio_queue *queue)
{
    struct iovec iov[CONSOLE_PIECES];
    struct virtq_chain chain = {.iov = iov, .capacity = CONSOLE_PIECES};
    uint8_t message[CONSOLE_MESSAGE];

    for (unsigned i = 0; i < CONSOLE_BUDGET; i++) {
        size_t size = console_control_next(&console->control, message);
        if (size == 0)
            return -EAGAIN;
        int rc = virtq_next(&queue->ring, &chain);
        if (rc <= 0)
            return rc;
        /* Into a buffer that is too small nothing goes: half a message would be another one. */
        struct virtq_span wr = chain.wr;
        bool fits = wr.length >= size;
        if (fits) {
            span_put(&wr, message, size);
            console_control_sent(&console->control);
        }
        local_done(queue, &chain, fits ? (uint32_t)size : 0);
    }
    return 1;
}

static int serve_control_tx(struct console *console, struct virtio_queue *queue)
{
    struct iovec iov[CONSOLE_PIECES];
    struct virtq_chain chain = {.iov = iov, .capacity = CONSOLE_PIECES};
    uint8_t answer[CONSOLE_MESSAGE];
    int rc = 1;

    for (unsigned i = 0; i < CONSOLE_BUDGET && (rc = virtq_next(&queue->ring, &chain)) == 1; i++) {
        struct virtio_console_control message;
        struct virtq_span rd = chain.rd;
        int id = span_take(&rd, &message, sizeof(message))
                     ? console_control_take(&console->control, &message)
                     : -1;
        local_done(queue, &chain, 0);
        if (id >= 0)
            local_resume(console->ports[id].rx);
    }
    if (console_control_next(&console->control, answer) > 0)
        local_resume(&console->dev.queues[QUEUE_CONTROL_RX]);
    return rc;
}

/* ---- the device ---------------------------------------------------------------------------- */

static int serve(struct virtio_queue *queue)
{
    struct console *console = console_of(queue->dev);
    unsigned id = queue->index < QUEUE_CONTROL_RX ? 0 : queue->index / 2 - 1;

    if (!console->is_console && queue->index >= QUEUE_CONTROL_RX &&
        !virtio_has(&console->dev, VIRTIO_CONSOLE_F_MULTIPORT))
        return -EAGAIN; /* 5.3.2: then there are no such queues */
    if (queue->index == QUEUE_CONTROL_RX)
        return serve_control_rx(console, queue);
    if (queue->index == QUEUE_CONTROL_TX)
        return serve_control_tx(console, queue);
    return queue->index % 2 ? serve_tx(&console->ports[id]) : serve_rx(&console->ports[id]);
}

/* 5.3.4: the register for emergencies takes a byte at any time, set up or not. */
static void config_write(struct virtio_dev *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct console *console = console_of(dev);
    struct port *port = &console->ports[0];
    uint8_t byte = (uint8_t)value;

    (void)size;
    if (!console->is_console || offset != offsetof(struct virtio_console_config, emerg_wr))
        return;
    pthread_mutex_lock(&port->out_lock);
    if (host_stream_write(&port->stream, &byte, 1) > 0)
        console->events->printed(console->arg, &byte, 1);
    pthread_mutex_unlock(&port->out_lock);
}

/* What was half sent is gone with the driver that sent it; what the host said waits for the next.
 */
static void reset(struct virtio_dev *dev)
{
    struct console *console = console_of(dev);

    console->size_told = false;
    console_control_reset(&console->control);
    for (unsigned i = 0; i < console->port_count; i++)
        console->ports[i].tx_done = 0;
}

/*
 * Linux 6.1 reads the size when it changes and at no other time (drivers/char/virtio_console.c,
 * config_work_handler): its terminal has none until the user's is resized. So each driver is told
 * once. From DRIVER_OK on it cannot be too early, because Linux keeps what is told before the end
 * of its probe (drivers/virtio/virtio.c, config_change_pending).
 */
static void started(struct virtio_dev *dev)
{
    struct console *console = console_of(dev);

    if (!console->size_told && virtio_has(dev, VIRTIO_CONSOLE_F_SIZE)) {
        virtio_config_begin(dev);
        virtio_config_end(dev);
    }
    console->size_told = true;
}

static const struct virtio_type console_type = {.name = "console",
                                                .id = VIRTIO_ID_CONSOLE,
                                                .serve = serve,
                                                .started = started,
                                                .config_write = config_write,
                                                .reset = reset};

void console_resize(struct console *console, unsigned columns, unsigned rows)
{
    if (!console->has_size)
        return;
    virtio_config_begin(&console->dev);
    console->config.cols = htole16((uint16_t)columns);
    console->config.rows = htole16((uint16_t)rows);
    virtio_config_end(&console->dev);
}

const char *console_pty(const struct console *console, const char *name)
{
    for (unsigned i = 0; i < console->port_count; i++) {
        const struct port *port = &console->ports[i];
        if (port->end.kind == MINIVMM_CHAR_PTY && strcmp(port->name, name) == 0)
            return port->end.path;
    }
    return NULL;
}

int console_drain(struct console *console, bool patient, const char **name)
{
    for (unsigned i = 0; i < console->port_count; i++) {
        struct port *port = &console->ports[i];
        if (!port->has_stream)
            continue;
        *name = port->name;
        int left = 1;
        for (unsigned n = 0; left == 1 || left == -EAGAIN; n++) {
            left = port->tx->served && n < CONSOLE_LEFT_MAX / CHUNK ? serve_chunk(port) : 0;
            int rc = host_stream_drain(&port->stream, patient);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

/* ---- its life ------------------------------------------------------------------------------ */

static int open_port(struct port *port, const struct minivmm_char *host, struct event_loop *loop,
                     struct minivmm_error *err)
{
    char what[MINIVMM_PORT_NAME + 8];

    snprintf(what, sizeof(what), "%s%s", port->console->is_console ? "" : "port ", port->name);
    int rc = host_end_init(&port->end, host, loop, what, err);
    if (rc < 0)
        return rc;
    rc = host_stream_init(&port->stream, loop, port->end.in, port->end.out, &stream_ops, port, what,
                          err);
    if (rc < 0)
        return rc;
    port->has_stream = true;
    port->input.escape_on = host->kind == MINIVMM_CHAR_FDS && host->escape;
    rc = host_end_attach(&port->end, &port->stream);
    return rc < 0 ? error_set(err, rc, "%s: %s", what, strerror(-rc)) : 0;
}

static int open_ports(struct console *console, const struct console_config *config,
                      struct event_loop *loop, struct minivmm_error *err)
{
    int rc = 0;

    if (config->console) {
        snprintf(console->ports[0].name, sizeof(console->ports[0].name), "console");
        return open_port(&console->ports[0], config->console, loop, err);
    }
    for (unsigned i = 0; rc == 0 && i < config->port_count; i++) {
        struct port *port = &console->ports[1 + i];
        snprintf(port->name, sizeof(port->name), "%s", config->ports[i].name);
        console->control.names[port->id] = port->name;
        rc = open_port(port, &config->ports[i].host, loop, err);
    }
    if (config->status_port) {
        struct port *port = &console->ports[console->port_count - 1];
        snprintf(port->name, sizeof(port->name), "%s", MINIVMM_STATUS_PORT);
        console->control.names[port->id] = port->name;
        port->is_status = true;
    }
    return rc;
}

static int create_device(struct console *console, const struct console_config *config,
                         const struct guest_mem *mem, struct event_loop *loop)
{
    uint64_t features = BIT(VIRTIO_CONSOLE_F_MULTIPORT);

    console->config.max_nr_ports = htole32(console->port_count);
    if (config->console) {
        console->has_size = config->columns && config->rows;
        console->config.cols = htole16((uint16_t)config->columns);
        console->config.rows = htole16((uint16_t)config->rows);
        features = BIT(VIRTIO_CONSOLE_F_EMERG_WRITE);
        if (console->has_size)
            features |= BIT(VIRTIO_CONSOLE_F_SIZE);
    }
    unsigned queues = config->console ? 2 : 2 * (console->port_count + 1);
    int rc = virtio_init(&console->dev, &console_type, mem, loop, features, queues,
                         CONSOLE_QUEUE_SIZE, &console->config, sizeof(console->config));
    for (unsigned i = 0; rc == 0 && i < console->port_count; i++) {
        struct port *port = &console->ports[i];
        unsigned first = i == 0 ? QUEUE_RX : QUEUE_PORT_1 + 2 * (i - 1);
        port->rx = &console->dev.queues[first];
        port->tx = &console->dev.queues[first + 1];
    }
    return rc;
}

int console_create(const struct console_config *config, const struct guest_mem *mem,
                   struct event_loop *loop, struct console **out, struct minivmm_error *err)
{
    assert(config->port_count <= MINIVMM_PORTS_MAX);
    struct console *console = calloc(1, sizeof(*console));
    unsigned count = config->console ? 1 : 1 + config->port_count + config->status_port;
    if (console)
        console->ports = calloc(count, sizeof(console->ports[0]));
    if (!console || !console->ports) {
        free(console);
        return error_set(err, -ENOMEM, "console: out of memory");
    }
    console->events = config->events;
    console->arg = config->arg;
    console->is_console = config->console != NULL;
    console->port_count = console->control.count = count;
    for (unsigned i = 0; i < count; i++) {
        console->ports[i].console = console;
        console->ports[i].id = i;
        pthread_mutex_init(&console->ports[i].out_lock, NULL);
    }
    int rc = create_device(console, config, mem, loop);
    if (rc < 0)
        error_set(err, rc, "console: %s", strerror(-rc));
    else
        rc = open_ports(console, config, loop, err);
    if (rc < 0) {
        console_destroy(console);
        return rc;
    }
    *out = console;
    return 0;
}

void console_destroy(struct console *console)
{
    if (!console)
        return;
    for (unsigned i = 0; i < console->port_count; i++) {
        struct port *port = &console->ports[i];
        if (port->has_stream)
            host_stream_finish(&port->stream);
        host_end_finish(&port->end);
        pthread_mutex_destroy(&port->out_lock);
    }
    virtio_finish(&console->dev);
    free(console->ports);
    free(console);
}

struct virtio_dev *console_device(struct console *console)
{
    return &console->dev;
}
