#include "vmm/console_check.h"

#include <errno.h>
#include <string.h>

static int check_name(const char *name, unsigned index, struct minivmm_error *err)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

    if (!name || !*name)
        return error_set(err, -EINVAL, "port %u: has no name", index);
    if (strlen(name) > MINIVMM_PORT_NAME)
        return error_set(err, -EINVAL, "port %.20s...: its name has %zu bytes, more than %u", name,
                         strlen(name), MINIVMM_PORT_NAME);
    if (name[strspn(name, allowed)] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return error_set(err, -EINVAL,
                         "port '%s': a name is made of letters, digits, and '.', '_', '-'", name);
    if (strcmp(name, MINIVMM_STATUS_PORT) == 0 || strcmp(name, "serial") == 0 ||
        strcmp(name, "console") == 0)
        return error_set(err, -EINVAL, "port %s: that name is taken", name);
    return 0;
}

static int check_host(const struct minivmm_char *host, const char *what, struct minivmm_error *err)
{
    if (host->kind > MINIVMM_CHAR_PTY)
        return error_set(err, -EINVAL, "%s: there is no back end %d", what, (int)host->kind);
    if ((host->kind == MINIVMM_CHAR_FILE || host->kind == MINIVMM_CHAR_UNIX) &&
        (!host->path || !*host->path))
        return error_set(err, -EINVAL, "%s: no path given", what);
    return 0;
}

/* Two that would take each other's input, or write over each other's output. */
static bool collide(const struct minivmm_char *a, const struct minivmm_char *b)
{
    if (a->kind == MINIVMM_CHAR_FDS && b->kind == MINIVMM_CHAR_FDS)
        return (a->in >= 0 && a->in == b->in) || (a->out >= 0 && a->out == b->out);
    bool paths = a->kind == MINIVMM_CHAR_FILE || a->kind == MINIVMM_CHAR_UNIX;
    return paths && a->kind == b->kind && strcmp(a->path, b->path) == 0;
}

#define ENDS_MAX (2 + MINIVMM_PORTS_MAX)

int console_check(const struct minivmm_config *config, struct minivmm_error *err)
{
    const struct minivmm_char *hosts[ENDS_MAX];
    char names[ENDS_MAX][MINIVMM_PORT_NAME + 8];
    unsigned count = 0;

    if (config->port_count > MINIVMM_PORTS_MAX)
        return error_set(err, -EINVAL, "ports: %u are more than %u", config->port_count,
                         MINIVMM_PORTS_MAX);
    if (config->columns > UINT16_MAX || config->rows > UINT16_MAX)
        return error_set(err, -EINVAL, "console: a terminal of %u columns and %u rows is too large",
                         config->columns, config->rows);
    if (config->serial) {
        snprintf(names[count], sizeof(names[0]), "serial");
        hosts[count++] = config->serial;
    }
    if (config->console) {
        snprintf(names[count], sizeof(names[0]), "console");
        hosts[count++] = config->console;
    }
    for (unsigned i = 0; i < config->port_count; i++) {
        int rc = check_name(config->ports[i].name, i, err);
        if (rc < 0)
            return rc;
        snprintf(names[count], sizeof(names[0]), "port %s", config->ports[i].name);
        hosts[count++] = &config->ports[i].host;
    }
    for (unsigned i = 0; i < count; i++) {
        int rc = check_host(hosts[i], names[i], err);
        if (rc < 0)
            return rc;
        for (unsigned j = 0; j < i; j++) {
            if (strcmp(names[i], names[j]) == 0)
                return error_set(err, -EINVAL, "%s: given twice", names[i]);
            if (collide(hosts[i], hosts[j]))
                return error_set(err, -EINVAL, "%s: %s has the same file", names[i], names[j]);
        }
    }
    return 0;
}

static bool leads_nowhere(const struct minivmm_config *config)
{
    const struct minivmm_char *serial = config->serial;

    if (serial)
        return serial->kind == MINIVMM_CHAR_NULL;
    return config->serial_in < 0 && config->serial_out < 0;
}

const char *console_words(const struct minivmm_config *config)
{
    if (!config->console)
        return "console=ttyS0";
    return leads_nowhere(config) ? "console=hvc0" : "console=ttyS0 console=hvc0";
}
