/* `minivmm ctl`: a client of the control socket. */
#ifndef VMM_CTL_H
#define VMM_CTL_H

#include <jansson.h>
#include <stdio.h>

#include "vmm/error.h"

#define CTL_ANSWER_MAX (1u << 20) /* bytes that are taken of an answer */

enum {
    CTL_OK = 0,
    CTL_REFUSED = 1, /* by the VM, or by what it is */
};

/*
 * The whole of it: argv[0] is "ctl". Returns the exit code: CTL_OK, CTL_REFUSED, or
 * MINIVMM_EXIT_ERROR where the socket cannot be reached or the words make no sense.
 */
int ctl_main(int argc, char *const argv[]);

/* ---- ctl_http.c ---------------------------------------------------------------------------- */

struct ctl_server {
    const char *path;
    unsigned timeout_ms; /* for each answer, from the connect to its last byte */
};

struct ctl_answer {
    int status; /* of HTTP */
    char *body; /* malloc'ed, with a zero behind it; never NULL */
};

/* `body` and `accept` may be NULL. A negative errno with a text; then there is nothing to free. */
int ctl_ask(const struct ctl_server *server, const char *method, const char *path,
            const char *accept, const char *body, struct ctl_answer *answer,
            struct minivmm_error *err);

/*
 * Call `line` for each line of GET /events, its newline taken off, until the stream ends, when it
 * returns 0. Only the first line has to come in time.
 */
int ctl_listen(const struct ctl_server *server, void (*line)(void *arg, const char *text),
               void *arg, struct minivmm_error *err);

/* ---- ctl_print.c: for a person. Missing values are left out. -------------------------------- */

void ctl_print_status(FILE *out, const json_t *instance, const json_t *machine,
                      const json_t *metrics);
void ctl_print_stats(FILE *out, const json_t *metrics, const json_t *statistics);
void ctl_print_event(FILE *out, const json_t *event);

#endif
