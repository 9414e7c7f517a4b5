#include "vmm/pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Some task was stalled for 200 ms within 2 s: a tenth. Without CAP_SYS_RESOURCE windows are
 * multiples of 2 s.
 */
#define TRIGGER "some 200000 2000000"
/* Enough for the lines that matter; they come early. */
#define TEXT_MAX 4096u

/* ---- files --------------------------------------------------------------------------------- */

static int open_in(const char *directory, const char *name, int flags)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/%s", directory, name) >= (int)sizeof(path))
        return -1;
    return open(path, flags | O_CLOEXEC);
}

static bool read_text(int fd, char text[TEXT_MAX])
{
    ssize_t length = fd < 0 ? -1 : pread(fd, text, TEXT_MAX - 1, 0);
    text[length < 0 ? 0 : length] = '\0';
    return length > 0;
}

/* The number behind `key` at the beginning of a line. */
static bool find_number(const char *text, const char *key, uint64_t *number)
{
    size_t length = strlen(key);

    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) != 0)
            continue;
        char *end;
        errno = 0;
        *number = strtoull(line + length, &end, 10);
        return end != line + length && errno == 0;
    }
    return false;
}

/* A file with one number; "max", and a file that is not there, say nothing. */
static bool read_number(int fd, uint64_t *number)
{
    char text[TEXT_MAX];
    return read_text(fd, text) && find_number(text, "", number);
}

/* ---- control groups ------------------------------------------------------------------------ */

static void close_group(struct pressure_group *group)
{
    const int fds[] = {group->current, group->max, group->high, group->stat};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

static void add_group(struct pressure *pressure, const char *directory)
{
    struct pressure_group *group = &pressure->groups[pressure->group_count];

    *group = (struct pressure_group){.current = open_in(directory, "memory.current", O_RDONLY),
                                     .max = open_in(directory, "memory.max", O_RDONLY),
                                     .high = open_in(directory, "memory.high", O_RDONLY),
                                     .stat = open_in(directory, "memory.stat", O_RDONLY)};
    if (group->current < 0 || (group->max < 0 && group->high < 0))
        close_group(group); /* the root, or without the memory controller */
    else
        pressure->group_count++;
}

/* This process's group: its directory, or an empty text. */
static void find_group(const char *procfs, const char *cgroupfs, char directory[PATH_MAX])
{
    char text[TEXT_MAX];
    int fd = open_in(procfs, "self/cgroup", O_RDONLY);

    directory[0] = '\0';
    if (read_text(fd, text)) {
        const char *path = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
        path = path ? strchr(path, '/') : NULL;
        if (path && snprintf(directory, PATH_MAX, "%s%.*s", cgroupfs, (int)strcspn(path, "\n"),
                             path) >= PATH_MAX)
            directory[0] = '\0';
    }
    if (fd >= 0)
        close(fd);
}

/* What this group's limit leaves; false when it has none. */
static bool read_group(const struct pressure_group *group, struct pressure_sample *sample)
{
    uint64_t limit = UINT64_MAX, number, used, cache = 0;
    char text[TEXT_MAX];

    if (read_number(group->max, &number))
        limit = number;
    if (read_number(group->high, &number) && number < limit)
        limit = number;
    if (limit == UINT64_MAX || !read_number(group->current, &used))
        return false;
    /* Files' pages are counted as used, and go as soon as others need the room. */
    if (read_text(group->stat, text)) {
        if (find_number(text, "inactive_file ", &number))
            cache = number;
        if (find_number(text, "active_file ", &number))
            cache += number;
    }
    used = used > cache ? used - cache : 0;
    sample->total = limit;
    sample->available = limit > used ? limit - used : 0;
    return true;
}

/* ---- PSI ----------------------------------------------------------------------------------- */

static void handle_stall(struct event_source *source, uint32_t events)
{
    struct pressure *pressure = source->arg;

    if (events & EPOLLPRI)
        pressure->stalled = true;
    else /* the group is gone: this would come again and again */
        event_loop_remove(pressure->loop, source);
}

static int set_trigger(struct pressure *pressure, const char *directory, const char *name)
{
    struct event_source *source = &pressure->psi;

    source->fd = open_in(directory, name, O_RDWR | O_NONBLOCK);
    if (source->fd < 0)
        return -errno;
    int rc = write(source->fd, TRIGGER, strlen(TRIGGER) + 1) < 0 ? -errno : 0;
    if (rc == 0) {
        source->ready = handle_stall;
        source->arg = pressure;
        rc = event_loop_add(pressure->loop, source, EPOLLPRI);
    }
    if (rc < 0) {
        close(source->fd);
        source->fd = -1;
    }
    return rc;
}

/* ---- all of it ----------------------------------------------------------------------------- */

int pressure_init(struct pressure *pressure, struct event_loop *loop, const char *procfs,
                  const char *cgroupfs, struct minivmm_error *err)
{
    char directory[PATH_MAX], own[PATH_MAX];
    struct pressure_sample sample;

    *pressure = (struct pressure){.loop = loop, .psi = {.fd = -1}};
    pressure->meminfo = open_in(procfs, "meminfo", O_RDONLY);
    if (pressure->meminfo < 0 || !pressure_read(pressure, &sample)) {
        int rc = pressure->meminfo < 0 ? -errno : -ENODATA;
        return error_set(err, rc, "balloon: auto: %s/meminfo: %s", procfs, strerror(-rc));
    }
    find_group(procfs, cgroupfs, directory);
    strcpy(own, directory);
    while (directory[0] && strlen(directory) > strlen(cgroupfs) &&
           pressure->group_count < PRESSURE_GROUPS_MAX) {
        add_group(pressure, directory);
        *strrchr(directory, '/') = '\0';
    }
    /* The group's own stalls count where a limit causes them, everybody's where none does. */
    bool limited = pressure->group_count > 0 && read_group(&pressure->groups[0], &sample);
    int rc = limited ? set_trigger(pressure, own, "memory.pressure") : -ENOENT;
    if (rc < 0)
        rc = set_trigger(pressure, procfs, "pressure/memory");
    if (rc == 0)
        return 0;
    error_set(err, rc,
              "balloon: auto: no trigger on %s/pressure/memory: %s; memory is looked at once a "
              "second only",
              procfs, strerror(-rc));
    return 1;
}

void pressure_finish(struct pressure *pressure)
{
    if (!pressure->loop)
        return;
    if (pressure->meminfo >= 0)
        close(pressure->meminfo);
    for (unsigned i = 0; i < pressure->group_count; i++)
        close_group(&pressure->groups[i]);
    if (pressure->psi.fd >= 0)
        close(pressure->psi.fd);
    *pressure = (struct pressure){0};
}

bool pressure_read(struct pressure *pressure, struct pressure_sample *sample)
{
    struct pressure_sample group;
    char text[TEXT_MAX];

    if (!read_text(pressure->meminfo, text) || !find_number(text, "MemTotal:", &sample->total) ||
        !find_number(text, "MemAvailable:", &sample->available))
        return false;
    sample->total <<= 10;
    sample->available <<= 10;
    for (unsigned i = 0; i < pressure->group_count; i++) {
        if (read_group(&pressure->groups[i], &group) && group.available < sample->available)
            *sample = group;
    }
    sample->stalled = pressure->stalled;
    pressure->stalled = false;
    return true;
}
