#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/config.h"

/* "fd:3". The first three are stdio's. */
static int parse_fd(const char *text)
{
    char *end;

    errno = 0;
    long fd = strtol(text, &end, 10);
    return *text < '0' || *text > '9' || *end || errno || fd < 3 || fd > 1 << 20 ? -EINVAL
                                                                                 : (int)fd;
}

/* Who has standard input and output: `what` is its option. */
static int take_stdio(struct options *o, struct minivmm_char *host, const char *what,
                      struct minivmm_error *err)
{
    if (o->stdio)
        return error_set(err, -EINVAL, "%s and %s: only one can have stdio", o->stdio_user, what);
    o->stdio = host;
    snprintf(o->stdio_user, sizeof(o->stdio_user), "%s", what);
    *host =
        (struct minivmm_char){.kind = MINIVMM_CHAR_FDS, .in = STDIN_FILENO, .out = STDOUT_FILENO};
    return 0;
}

/* `what` is the option as it is written, for error texts. */
static int parse(struct options *o, const char *what, const char *value, struct minivmm_char *host,
                 struct minivmm_error *err)
{
    if (strcmp(value, "stdio") == 0)
        return take_stdio(o, host, what, err);
    *host = (struct minivmm_char){.in = -1, .out = -1};
    if (strcmp(value, "null") == 0) {
        host->kind = MINIVMM_CHAR_NULL;
    } else if (strcmp(value, "pty") == 0) {
        host->kind = MINIVMM_CHAR_PTY;
    } else if (strncmp(value, "file:", 5) == 0 && value[5]) {
        host->kind = MINIVMM_CHAR_FILE;
        host->path = value + 5;
    } else if (strncmp(value, "unix:", 5) == 0 && value[5]) {
        host->kind = MINIVMM_CHAR_UNIX;
        host->path = value + 5;
    } else if (strncmp(value, "fd:", 3) == 0) {
        host->kind = MINIVMM_CHAR_FDS;
        host->in = host->out = parse_fd(value + 3);
        if (host->in < 0)
            return error_set(err, -EINVAL, "%s %s: must be the number of an open file, from 3 on",
                             what, value);
    } else {
        return error_set(err, -EINVAL,
                         "%s %s: must be stdio, null, file:PATH, unix:PATH, pty or fd:N", what,
                         value);
    }
    return 0;
}

int store_serial(struct options *o, const char *name, const char *value, struct minivmm_error *err)
{
    (void)name;
    o->vm.serial = &o->serial;
    return parse(o, "--serial", value, &o->serial, err);
}

int store_console(struct options *o, const char *name, const char *value, struct minivmm_error *err)
{
    (void)name;
    o->vm.console = &o->console;
    return parse(o, "--console", value, &o->console, err);
}

int store_port(struct options *o, const char *name, const char *value, struct minivmm_error *err)
{
    const char *equals = strchr(value, '=');
    char what[MINIVMM_PORT_NAME + 16];

    (void)name;
    if (!equals)
        return error_set(err, -EINVAL, "--port %s: must be NAME=WHERE", value);
    if (o->vm.port_count == MINIVMM_PORTS_MAX)
        return error_set(err, -EINVAL, "--port %s: a VM has room for %u ports", value,
                         MINIVMM_PORTS_MAX);
    char *copy = strdup(value);
    if (!copy)
        return error_set(err, -ENOMEM, "--port: out of memory");
    o->texts[o->text_count++] = copy;
    copy[equals - value] = '\0';
    struct minivmm_port *port = &o->ports[o->vm.port_count++];
    port->name = copy;
    o->vm.ports = o->ports;
    snprintf(what, sizeof(what), "--port %.*s", (int)MINIVMM_PORT_NAME, copy);
    return parse(o, what, copy + (equals - value) + 1, &port->host, err);
}

/* Standard input and output are the serial port's unless somebody else wants them. */
void settle_consoles(struct options *o)
{
    struct minivmm_error none;

    if (!o->vm.serial) {
        o->vm.serial = &o->serial;
        if (o->stdio)
            o->serial = (struct minivmm_char){.kind = MINIVMM_CHAR_NULL, .in = -1, .out = -1};
        else
            take_stdio(o, &o->serial, "--serial", &none);
    }
    o->vm.status_port |= o->vm.console || o->vm.port_count > 0;
}
