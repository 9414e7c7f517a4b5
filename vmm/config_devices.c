#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/config.h"
#include "vmm/suboptions.h"

#define COUNT(table) ((unsigned)(sizeof(table) / sizeof((table)[0])))

/*
 * Room for one more of a kind of which there are `count`, and a copy of its value that can be taken
 * apart. `what` gets its name, "disk 0" say.
 */
static int add(struct options *o, const char *kind, unsigned count, const char *value, char *what,
               size_t size, char **text, struct minivmm_error *err)
{
    snprintf(what, size, "%s %u", kind, count);
    if (count == MINIVMM_DEVICES_MAX)
        return error_set(err, -EINVAL, "%s: %s: a VM has room for %u virtio devices", what, value,
                         MINIVMM_DEVICES_MAX);
    *text = strdup(value);
    if (!*text)
        return error_set(err, -ENOMEM, "%s: out of memory", what);
    o->texts[o->text_count++] = *text;
    return 0;
}

void options_finish(struct options *options)
{
    for (unsigned i = 0; i < options->text_count; i++)
        free(options->texts[i]);
    *options = (struct options){0};
}

int store_disk(struct options *o, const char *name, const char *value, struct minivmm_error *err)
{
#define DISK(member) offsetof(struct minivmm_disk, member)
    static const struct suboption table[] = {
        {.name = "readonly", .place = DISK(readonly)},
        {.name = "direct", .place = DISK(direct)},
        {.name = "ephemeral", .place = DISK(ephemeral)},
        {"cache", SUBOPTION_CHOICE, DISK(writethrough), .choices = {"writeback", "writethrough"}},
        {"serial", SUBOPTION_TEXT, DISK(serial), .max = MINIVMM_DISK_SERIAL},
        {"queues", SUBOPTION_NUMBER, DISK(queues), .min = 1, .max = MINIVMM_DISK_QUEUES},
        {"queue-size", SUBOPTION_NUMBER, DISK(queue_size), .min = MINIVMM_QUEUE_SIZE_MIN,
         .max = MINIVMM_QUEUE_SIZE_MAX},
    };
#undef DISK
    char what[16], *text;

    int rc = add(o, name, o->vm.disk_count, value, what, sizeof(what), &text, err);
    if (rc < 0)
        return rc;
    struct minivmm_disk *disk = &o->disks[o->vm.disk_count++];
    o->vm.disks = o->disks;
    return suboptions_parse(text, table, COUNT(table), disk, &disk->path, what, err);
}

#define NET(member) offsetof(struct minivmm_net, member)

/* One more interface, its sub-options stored by `table`; *first is what stands before them. */
static int add_net(struct options *o, const char *value, const struct suboption *table,
                   unsigned count, struct minivmm_net **net, const char **first, char *what,
                   size_t size, struct minivmm_error *err)
{
    char *text;

    int rc = add(o, "net", o->vm.net_count, value, what, size, &text, err);
    if (rc < 0)
        return rc;
    *net = &o->nets[o->vm.net_count++];
    o->vm.nets = o->nets;
    return suboptions_parse(text, table, count, *net, first, what, err);
}

/* "fd=3": the descriptor, or -EINVAL. */
static int parse_fd(const char *text)
{
    char *end;

    errno = 0;
    long fd = strtol(text, &end, 10);
    return *text < '0' || *text > '9' || *end || errno || fd < 1 || fd > 1 << 20 ? -EINVAL
                                                                                 : (int)fd;
}

int store_tap(struct options *o, const char *name, const char *value, struct minivmm_error *err)
{
    static const struct suboption table[] = {
        {.name = "mac", .kind = SUBOPTION_MAC, .place = NET(mac)},
        {"mtu", SUBOPTION_NUMBER, NET(mtu), .min = MINIVMM_MTU_MIN, .max = MINIVMM_MTU_MAX},
        {"queues", SUBOPTION_NUMBER, NET(queues), .min = 1, .max = MINIVMM_NET_QUEUES},
        {.name = "vhost", .place = NET(vhost)},
        {"offload", SUBOPTION_CHOICE, NET(no_offload), .choices = {"on", "off"}},
        {"pcap", SUBOPTION_TEXT, NET(pcap), .max = 4095},
    };
    struct minivmm_net *net = NULL;
    const char *first;
    char what[16];

    (void)name;
    int rc = add_net(o, value, table, COUNT(table), &net, &first, what, sizeof(what), err);
    if (rc < 0)
        return rc;
    if (strncmp(first, "fd=", 3) != 0) {
        net->tap = first;
        return 0;
    }
    net->tap_fd = parse_fd(first + 3);
    return net->tap_fd < 0
               ? error_set(err, -EINVAL, "%s: %s: must be the number of an open file", what, first)
               : 0;
}

int store_net(struct options *o, const char *name, const char *value, struct minivmm_error *err)
{
    static const struct suboption table[] = {
        {.name = "mac", .kind = SUBOPTION_MAC, .place = NET(mac)},
        {"pcap", SUBOPTION_TEXT, NET(pcap), .max = 4095},
        {"forward", SUBOPTION_LIST, NET(forwards), .max = MINIVMM_FORWARDS_MAX,
         .count_place = NET(forward_count)},
        {.name = "deny", .place = NET(deny)},
    };
    struct minivmm_net *net = NULL;
    const char *first;
    char what[16];

    (void)name;
    int rc = add_net(o, value, table, COUNT(table), &net, &first, what, sizeof(what), err);
    if (rc < 0)
        return rc;
    net->user = strcmp(first, "user") == 0;
    if (strncmp(first, "socket=", 7) == 0)
        net->socket = first + 7;
    if (!net->user && !net->socket)
        return error_set(err, -EINVAL, "%s: '%s': must be user or socket=PATH", what, first);
    return 0;
}
