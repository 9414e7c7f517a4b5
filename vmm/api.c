/*
 * The control socket's loop: libevent moves bytes and takes HTTP apart, api_request.c answers.
 *
 * libevent tells of a connection once it has sent a whole request, and not of its end. So that
 * neither connections nor their patience are without bound, each bufferevent has a second reference
 * here, until its callbacks, which bufferevent_free takes off, are gone.
 */
#include "vmm/api.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "vmm/api_events.h"
#include "vmm/api_request.h"
#include "vmm/api_socket.h"

#define CONNECTIONS_MAX 48u           /* one more costs the one that has idled longest its place */
#define STREAMS_MAX     16u           /* of them */
#define PATIENCE        10            /* seconds for a request, from the first byte to the last */
#define HEADERS_MAX     8192          /* bytes of a request */
#define BODY_REFUSED    (64 * 1024)   /* beyond it libevent itself says no, and closes */
#define UNREAD_MAX      (256u * 1024) /* bytes that a client leaves unread until it is given up */
#define FAREWELL_MS     500           /* for clients to read the end */
#define HALT_STACK      (64u * 1024)

struct connection {
    struct bufferevent *bev; /* NULL: free */
    uint64_t since;          /* when it was opened, or answered last; ms */
    bool busy;               /* it waits for us, and not we for it */
};

struct api {
    const char *path;
    struct stat file;
    int listener; /* until libevent has it; then -1 */
    struct api_events events;
    struct api_target target;
    void (*signalled)(struct minivmm *vm, int signals);

    struct event_base *base;
    struct evhttp *http;
    struct event *on_end, *on_signal, *on_events, *on_halted, *on_tick, *on_refusal;
    struct connection connections[CONNECTIONS_MAX];
    struct evhttp_request *streams[STREAMS_MAX];

    /* A pause or a resume, on a thread of its own: it waits for I/O. */
    struct evhttp_request *halt_request; /* NULL: none is under way */
    pthread_t halt_thread;
    bool halt_pauses;
    int halt_rc, halt_fd; /* the result, and an eventfd that says it is there */
};

static uint64_t now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

/* ---- what libevent refuses by itself ------------------------------------------------------- */

/*
 * What is no HTTP, or too long, libevent 2.1 refuses before it asks us, with a page for people, and
 * has no way to be told another. The page is in the connection's buffer then, complete and alone,
 * and cannot leave before the loop is back at its descriptors: time to put ours in its place.
 */
static void replace_page(struct evbuffer *output)
{
    char head[256];
    struct api_reply reply;
    int status;

    ssize_t length = evbuffer_copyout(output, head, sizeof(head) - 1);
    head[length > 0 ? length : 0] = '\0';
    if (sscanf(head, "HTTP/1.%*d %d ", &status) != 1 || status < 400 ||
        !strstr(head, "\r\nContent-Type: text/html\r\n"))
        return;
    api_refuse(&reply, status, HEADERS_MAX, BODY_REFUSED);
    if (!reply.body)
        return;
    evbuffer_drain(output, evbuffer_get_length(output));
    evbuffer_add_printf(output,
                        "HTTP/1.1 %d Bad Request\r\nContent-Type: %s\r\nConnection: close\r\n"
                        "Content-Length: %zu\r\n\r\n%s",
                        reply.status, reply.type, strlen(reply.body), reply.body);
    free(reply.body);
}

static void handle_refusal(evutil_socket_t fd, short what, void *arg)
{
    struct api *api = arg;
    (void)fd, (void)what;
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct bufferevent *bev = api->connections[i].bev;
        if (!bev || evbuffer_get_length(bufferevent_get_output(bev)) == 0)
            continue;
        evbuffer_unfreeze(bufferevent_get_output(bev), 1); /* it takes from there itself */
        replace_page(bufferevent_get_output(bev));
        evbuffer_freeze(bufferevent_get_output(bev), 1);
    }
}

/* Something is added to an output: the status line of a refusal, ours or not? */
static void note_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
    static const size_t digit = sizeof("HTTP/1.1 ") - 1; /* the first of the status */
    struct api *api = arg;
    struct evbuffer_iovec piece;

    if (info->orig_size > 0 || evbuffer_peek(output, -1, NULL, &piece, 1) < 1 ||
        piece.iov_len <= digit)
        return;
    char kind = ((const char *)piece.iov_base)[digit];
    if (kind == '4' || kind == '5')
        event_active(api->on_refusal, EV_TIMEOUT, 0);
}

/* ---- connections --------------------------------------------------------------------------- */

/* Give up the reference: the bufferevent is gone now, or is libevent's to end. */
static void forget(struct connection *connection)
{
    bufferevent_decref(connection->bev);
    *connection = (struct connection){0};
}

/* libevent sees the end, and frees what it has. */
static void hang_up(const struct connection *connection)
{
    int fd = bufferevent_getfd(connection->bev);
    if (fd >= 0)
        shutdown(fd, SHUT_RDWR);
}

static bool is_gone(const struct connection *connection)
{
    bufferevent_event_cb ended;
    bufferevent_getcb(connection->bev, NULL, NULL, &ended, NULL);
    return !ended && bufferevent_getfd(connection->bev) >= 0;
}

static size_t unread(const struct connection *connection)
{
    return evbuffer_get_length(bufferevent_get_output(connection->bev));
}

/* Look after every connection; returns how many there are. */
static unsigned sweep(struct api *api)
{
    unsigned count = 0;

    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *connection = &api->connections[i];
        if (!connection->bev)
            continue;
        if (is_gone(connection)) {
            forget(connection);
            continue;
        }
        count++;
        bool late = now_ms() - connection->since > PATIENCE * 1000;
        if ((late && !connection->busy) || unread(connection) > UNREAD_MAX)
            hang_up(connection);
    }
    return count;
}

static void handle_tick(evutil_socket_t fd, short what, void *arg)
{
    struct api *api = arg;
    (void)fd, (void)what;
    if (sweep(api) == 0)
        event_del(api->on_tick);
}

static struct connection *find_place(struct api *api)
{
    struct connection *oldest = NULL;

    sweep(api);
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        struct connection *connection = &api->connections[i];
        if (!connection->bev)
            return connection;
        if (!connection->busy && (!oldest || connection->since < oldest->since))
            oldest = connection;
    }
    hang_up(oldest); /* there are more places than streams, and one that waits for a pause */
    forget(oldest);
    return oldest;
}

static struct bufferevent *open_connection(struct event_base *base, void *arg)
{
    const struct timeval tick = {.tv_usec = 250000};
    struct api *api = arg;

    struct bufferevent *bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    if (!bev)
        return NULL;
    bufferevent_setwatermark(bev, EV_READ, 0, HEADERS_MAX + BODY_REFUSED);
    evbuffer_add_cb(bufferevent_get_output(bev), note_output, api);
    bufferevent_incref(bev);
    *find_place(api) = (struct connection){.bev = bev, .since = now_ms()};
    event_add(api->on_tick, &tick);
    return bev;
}

/* The request's connection has been waited for long enough, or has us wait now. */
static void set_busy(struct api *api, struct evhttp_request *request, bool busy)
{
    const struct timeval patience = {.tv_sec = PATIENCE};
    struct evhttp_connection *link = evhttp_request_get_connection(request);
    struct bufferevent *bev = link ? evhttp_connection_get_bufferevent(link) : NULL;

    for (unsigned i = 0; bev && i < CONNECTIONS_MAX; i++) {
        struct connection *connection = &api->connections[i];
        if (connection->bev != bev)
            continue;
        connection->since = now_ms();
        connection->busy = busy;
        bufferevent_set_timeouts(bev, busy ? NULL : &patience, &patience);
    }
}

/* ---- answers ------------------------------------------------------------------------------- */

/* Uses reply->body up. */
static void send_reply(struct api *api, struct evhttp_request *request,
                       const struct api_reply *reply)
{
    struct evbuffer *body = reply->body ? evbuffer_new() : NULL;

    set_busy(api, request, false);
    if (body) {
        evbuffer_add(body, reply->body, strlen(reply->body));
        evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", reply->type);
    }
    evhttp_send_reply(request, reply->status, NULL, body);
    if (body)
        evbuffer_free(body);
    free(reply->body);
}

static void stream_line(struct evhttp_request *stream, char *line)
{
    struct evbuffer *chunk = line ? evbuffer_new() : NULL;
    if (chunk) {
        evbuffer_add(chunk, line, strlen(line));
        evhttp_send_reply_chunk(stream, chunk);
        evbuffer_free(chunk);
    }
    free(line);
}

/* A client of /events has gone. */
static void handle_stream_closed(struct evhttp_connection *link, void *arg)
{
    struct api *api = arg;
    for (unsigned i = 0; i < STREAMS_MAX; i++) {
        struct evhttp_request *stream = api->streams[i];
        struct evhttp_connection *of = stream ? evhttp_request_get_connection(stream) : NULL;
        if (!stream || (of && of != link))
            continue;
        api->streams[i] = NULL;
        if (!of)
            evhttp_send_reply_end(stream); /* which frees it */
    }
}

static void open_stream(struct api *api, struct evhttp_request *request, struct api_reply *reply)
{
    for (unsigned i = 0; i < STREAMS_MAX; i++) {
        if (api->streams[i])
            continue;
        api->streams[i] = request;
        evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", reply->type);
        evhttp_connection_set_closecb(evhttp_request_get_connection(request), handle_stream_closed,
                                      api);
        evhttp_send_reply_start(request, reply->status, NULL);
        set_busy(api, request, true);
        stream_line(request, api_describe_state(minivmm_state(api->target.vm)));
        return;
    }
    api_fault(reply, 400, "%u streams of events are open already", STREAMS_MAX);
    send_reply(api, request, reply);
}

/* ---- pause and resume ---------------------------------------------------------------------- */

static void *halt_main(void *arg)
{
    struct api *api = arg;
    api->halt_rc =
        api->halt_pauses ? minivmm_pause(api->target.vm) : minivmm_resume(api->target.vm);
    eventfd_write(api->halt_fd, 1);
    return NULL;
}

static void handle_halted(evutil_socket_t fd, short what, void *arg)
{
    struct api *api = arg;
    struct api_reply reply = {.status = 204};
    eventfd_t value;

    (void)what;
    eventfd_read(fd, &value);
    pthread_join(api->halt_thread, NULL);
    if (api->halt_rc < 0)
        api_fault(&reply, 400, "%s",
                  api->halt_rc == -ESHUTDOWN ? "the VM has ended" : strerror(-api->halt_rc));
    struct evhttp_request *request = api->halt_request;
    api->halt_request = NULL;
    send_reply(api, request, &reply);
}

static void halt(struct api *api, struct evhttp_request *request, struct api_reply *reply)
{
    pthread_attr_t attributes;

    if (api->halt_request) {
        api_fault(reply, 400, "a pause or a resume is under way");
        send_reply(api, request, reply);
        return;
    }
    api->halt_pauses = reply->what == API_PAUSE;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, HALT_STACK);
    int rc = pthread_create(&api->halt_thread, &attributes, halt_main, api);
    pthread_attr_destroy(&attributes);
    if (rc != 0) {
        api_fault(reply, 500, "cannot start a thread: %s", strerror(rc));
        send_reply(api, request, reply);
        return;
    }
    api->halt_request = request;
    set_busy(api, request, true);
}

/* ---- requests ------------------------------------------------------------------------------ */

static const char *method_of(struct evhttp_request *request)
{
    switch (evhttp_request_get_command(request)) {
    case EVHTTP_REQ_GET:
        return "GET";
    case EVHTTP_REQ_PUT:
        return "PUT";
    case EVHTTP_REQ_PATCH:
        return "PATCH";
    case EVHTTP_REQ_POST:
        return "POST";
    case EVHTTP_REQ_HEAD:
        return "HEAD";
    case EVHTTP_REQ_DELETE:
        return "DELETE";
    case EVHTTP_REQ_OPTIONS:
        return "OPTIONS";
    default:
        return "?";
    }
}

static void handle_request(struct evhttp_request *http, void *arg)
{
    struct api *api = arg;
    struct evbuffer *body = evhttp_request_get_input_buffer(http);
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(http);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    const struct api_request request = {
        .method = method_of(http),
        .path = path && *path ? path : "/",
        .accept = evhttp_find_header(evhttp_request_get_input_headers(http), "Accept"),
        .size = evbuffer_get_length(body),
        .body = (const char *)evbuffer_pullup(body, -1)};
    struct api_reply reply;

    api_handle(&api->target, &request, &reply);
    switch (reply.what) {
    case API_REPLY:
        send_reply(api, http, &reply);
        break;
    case API_PAUSE:
    case API_RESUME:
        halt(api, http, &reply);
        break;
    case API_EVENTS:
        open_stream(api, http, &reply);
        break;
    }
}

/* ---- the loop ------------------------------------------------------------------------------ */

void api_event(void *api, const struct minivmm_event *event)
{
    api_events_put(&((struct api *)api)->events, event);
}

static void handle_events(evutil_socket_t fd, short what, void *arg)
{
    struct api *api = arg;
    struct api_event_copy copy;
    eventfd_t value;

    (void)what;
    eventfd_read(fd, &value);
    while (api_events_take(&api->events, &copy)) {
        for (unsigned i = 0; i < STREAMS_MAX; i++)
            if (api->streams[i])
                stream_line(api->streams[i], api_describe_event(&copy.event, copy.lost));
    }
}

static void handle_signal(evutil_socket_t fd, short what, void *arg)
{
    struct api *api = arg;
    (void)what;
    api->signalled(api->target.vm, fd);
}

static void handle_end(evutil_socket_t fd, short what, void *arg)
{
    struct api *api = arg;
    (void)fd, (void)what;
    event_base_loopbreak(api->base);
}

static struct event *add_event(struct api *api, int fd, event_callback_fn handle)
{
    struct event *event = event_new(api->base, fd, EV_READ | EV_PERSIST, handle, api);
    if (event)
        event_add(event, NULL);
    return event;
}

/* Tell all streams of the end, and give clients a moment to take what is theirs. */
static void say_goodbye(struct api *api)
{
    uint64_t deadline = now_ms() + FAREWELL_MS;
    bool waits = true;

    event_del(api->on_end);
    if (api->halt_request)
        handle_halted(api->halt_fd, 0, api);
    handle_events(api->events.fd, 0, api);
    for (unsigned i = 0; i < STREAMS_MAX; i++) {
        if (api->streams[i])
            evhttp_send_reply_end(api->streams[i]);
        api->streams[i] = NULL;
    }
    while (waits && now_ms() < deadline) {
        event_base_loop(api->base, EVLOOP_NONBLOCK);
        waits = false;
        for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
            waits |= api->connections[i].bev && !is_gone(&api->connections[i]) &&
                     unread(&api->connections[i]) > 0;
        if (waits)
            usleep(1000);
    }
}

void api_run(struct api *api, struct minivmm *vm, const struct minivmm_config *config, int signals,
             void (*signalled)(struct minivmm *vm, int signals))
{
    api->target.vm = vm;
    api->target.config = config;
    api->target.stats_interval = config->balloon_auto ? 1 : 0;
    api->signalled = signalled;
    api->on_end = add_event(api, minivmm_end_fd(vm), handle_end);
    api->on_signal = add_event(api, signals, handle_signal);
    evhttp_accept_socket(api->http, api->listener);
    api->listener = -1;
    event_base_dispatch(api->base);
    say_goodbye(api);
}

/* What libevent has to say is about clients, and would be in the guest's output. */
static void say_nothing(int severity, const char *text)
{
    (void)severity, (void)text;
}

static int create_loop(struct api *api, struct minivmm_error *err)
{
    event_set_log_callback(say_nothing);
    struct event_config *config = event_config_new();
    if (config) {
        event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV);
        api->base = event_base_new_with_config(config);
        event_config_free(config);
    }
    api->http = api->base ? evhttp_new(api->base) : NULL;
    if (!api->http)
        return error_set(err, -ENOMEM, "%s: libevent: out of memory or descriptors", api->path);
    evhttp_set_bevcb(api->http, open_connection, api);
    evhttp_set_gencb(api->http, handle_request, api);
    evhttp_set_timeout(api->http, PATIENCE);
    evhttp_set_max_headers_size(api->http, HEADERS_MAX);
    evhttp_set_max_body_size(api->http, BODY_REFUSED);
    evhttp_set_allowed_methods(api->http, EVHTTP_REQ_GET | EVHTTP_REQ_PUT | EVHTTP_REQ_PATCH |
                                              EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                              EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS);
    api->on_events = add_event(api, api->events.fd, handle_events);
    api->on_halted = add_event(api, api->halt_fd, handle_halted);
    api->on_tick = event_new(api->base, -1, EV_PERSIST, handle_tick, api);
    api->on_refusal = event_new(api->base, -1, 0, handle_refusal, api);
    if (!api->on_events || !api->on_halted || !api->on_tick || !api->on_refusal)
        return error_set(err, -ENOMEM, "%s: out of memory", api->path);
    return 0;
}

int api_create(const char *path, struct api **out, struct minivmm_error *err)
{
    static const struct api_calls calls = {.state = minivmm_state,
                                           .stop = minivmm_stop,
                                           .metrics = minivmm_metrics,
                                           .balloon_set = minivmm_balloon_set,
                                           .balloon_get = minivmm_balloon_get,
                                           .balloon_interval = minivmm_balloon_interval,
                                           .power_button = minivmm_power_button};
    struct api *api = calloc(1, sizeof(*api));
    if (!api)
        return error_set(err, -ENOMEM, "%s: out of memory", path);
    api->path = path;
    api->target.calls = &calls;
    api->listener = api_socket_listen(path, &api->file, err);
    if (api->listener < 0) {
        int code = api->listener;
        free(api);
        return code;
    }
    int rc = api_events_init(&api->events);
    api->halt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (rc < 0 || api->halt_fd < 0)
        rc = error_set(err, rc < 0 ? rc : -errno, "%s: eventfd: %s", path, strerror(errno));
    if (rc == 0)
        rc = create_loop(api, err);
    if (rc < 0) {
        api_destroy(api);
        return rc;
    }
    *out = api;
    return 0;
}

void api_destroy(struct api *api)
{
    if (!api)
        return;
    struct event *const events[] = {api->on_end,    api->on_signal, api->on_events,
                                    api->on_halted, api->on_tick,   api->on_refusal};
    api_socket_remove(api->path, &api->file); /* while it listens */
    if (api->http)
        evhttp_free(api->http);
    for (unsigned i = 0; i < CONNECTIONS_MAX; i++) {
        if (api->connections[i].bev)
            forget(&api->connections[i]);
    }
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        if (events[i])
            event_free(events[i]);
    }
    if (api->base)
        event_base_free(api->base);
    if (api->listener >= 0)
        close(api->listener);
    if (api->halt_fd >= 0)
        close(api->halt_fd);
    api_events_finish(&api->events);
    free(api);
}
