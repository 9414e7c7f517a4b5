/*
 * What a request to the control socket means: method, path and body in, status and body out. Pure,
 * but for the calls in struct api_calls; a test has calls of its own.
 *
 * Paths and bodies are those of Firecracker's API description (firecracker.yaml) where this program
 * has the thing. Beside them: GET /metrics, GET /events, and the action Stop.
 */
#ifndef VMM_API_REQUEST_H
#define VMM_API_REQUEST_H

#include "vmm/minivmm.h"

#define API_BODY_MAX 4096u

/* What requests do with a VM; the library's functions of the same names. */
struct api_calls {
    enum minivmm_state (*state)(struct minivmm *vm);
    void (*stop)(struct minivmm *vm, int signal);
    void (*metrics)(struct minivmm *vm, struct minivmm_metrics *metrics);
    int (*balloon_set)(struct minivmm *vm, uint64_t bytes, struct minivmm_error *err);
    int (*balloon_get)(struct minivmm *vm, struct minivmm_balloon *balloon);
    int (*balloon_interval)(struct minivmm *vm, unsigned seconds);
    int (*power_button)(struct minivmm *vm);
};

struct api_target {
    const struct api_calls *calls;
    struct minivmm *vm;
    const struct minivmm_config *config; /* with its strings and devices */
    unsigned stats_interval;             /* seconds, as set last */
};

struct api_request {
    const char *method; /* "GET" */
    const char *path;   /* without a query */
    const char *accept; /* of the header; NULL: none */
    const char *body;   /* `size` bytes */
    size_t size;
};

struct api_reply {
    enum {
        API_REPLY,  /* the rest is the answer */
        API_PAUSE,  /* pause the VM, and answer 204 or 400 once that is done */
        API_RESUME, /* the same the other way */
        API_EVENTS, /* a stream of events, until the VM or the client ends */
    } what;
    int status;       /* of HTTP */
    const char *type; /* of the body */
    char *body;       /* malloc'ed, with a zero behind it; NULL: none */
};

/* The caller frees reply->body. */
void api_handle(struct api_target *target, const struct api_request *request,
                struct api_reply *reply);

/* An answer that says what was wrong. */
__attribute__((format(printf, 3, 4))) void api_fault(struct api_reply *reply, int status,
                                                     const char *format, ...);

/*
 * The answer to what came to no request: `status` is what the server found of it, and `headers` and
 * `body` are its limits, in bytes.
 */
void api_refuse(struct api_reply *reply, int status, unsigned headers, unsigned body);

/* Bodies, malloc'ed; NULL where memory is out. In api_describe.c. */
char *api_describe_instance(const struct api_target *target);
char *api_describe_version(void);
char *api_describe_machine(const struct api_target *target);
char *api_describe_config(const struct api_target *target);
char *api_describe_balloon(const struct api_target *target, const struct minivmm_balloon *balloon);
char *api_describe_statistics(const struct minivmm_balloon *balloon);
char *api_describe_fault(const char *text);
const char *api_state_name(enum minivmm_state state);
/* A line of /events, newline included; `lost` events were not told before it. */
char *api_describe_event(const struct minivmm_event *event, unsigned lost);
char *api_describe_state(enum minivmm_state state);

/* The same, in api_metrics.c: as JSON, and in Prometheus's text format. */
char *api_metrics_json(const struct api_target *target);
char *api_metrics_text(const struct api_target *target);

#endif
