/* The host's memory as it is read: files of a made-up /proc and /sys/fs/cgroup. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/unit/support.h"
#include "vmm/pressure.h"

SUITE(pressure);

static char top[64];

static void put(const char *path, const char *text)
{
    char full[256];
    snprintf(full, sizeof(full), "%s/%s", top, path);
    for (char *slash = strchr(full + strlen(top) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(full, 0755);
        *slash = '/';
    }
    FILE *file = fopen(full, "w");
    cr_assert(file && fputs(text, file) >= 0 && fclose(file) == 0, "%s", full);
}

static const char meminfo[] = "MemTotal:       8388608 kB\nMemFree:  1048576 kB\n"
                              "MemAvailable:   4194304 kB\nBuffers: 1 kB\n";

static int begin(struct pressure *p, struct event_loop *loop, struct minivmm_error *err)
{
    char proc[128], group[128];
    snprintf(proc, sizeof(proc), "%s/proc", top);
    snprintf(group, sizeof(group), "%s/cg", top);
    cr_assert_eq(event_loop_init(loop, err), 0);
    return pressure_init(p, loop, proc, group, err);
}

static void end(struct pressure *p, struct event_loop *loop)
{
    pressure_finish(p);
    event_loop_finish(loop);
    support_remove_dir(top);
}

Test(pressure, the_tightest_of_host_and_groups)
{
    static const struct {
        const char *name;
        const char *cgroup, *outer_max, *inner_max, *inner_high, *current, *stat;
        uint64_t total, available;
    } rows[] = {
        {"no groups", "", "max", "max", "max", "0", "", 8 * GIB, 4 * GIB},
        {"groups of version 1 only", "5:memory:/a/b\n", "1", "1", "1", "0", "", 8 * GIB, 4 * GIB},
        {"no limit", "0::/a/b\n", "max\n", "max\n", "max\n", "1073741824\n", "", 8 * GIB, 4 * GIB},
        {"a limit", "0::/a/b\n", "max\n", "2147483648\n", "max\n", "1073741824\n", "", 2 * GIB,
         GIB},
        {"a soft limit below it", "0::/a/b\n", "max\n", "2147483648\n", "1610612736\n",
         "1073741824\n", "", 3 * GIB / 2, GIB / 2},
        {"a limit further up", "0::/a/b\n", "1342177280\n", "2147483648\n", "max\n", "1073741824\n",
         "", 5 * GIB / 4, GIB / 4},
        {"files can go", "0::/a/b\n", "max\n", "2147483648\n", "max\n", "1073741824\n",
         "anon 7\ninactive_file 268435456\nactive_file 268435456\n", 2 * GIB, 3 * GIB / 2},
        {"a limit that the host cannot keep", "0::/a/b\n", "max\n", "107374182400\n", "max\n",
         "1073741824\n", "", 8 * GIB, 4 * GIB},
        {"over its limit", "0::/a/b\n", "max\n", "1048576\n", "max\n", "1073741824\n", "", MIB, 0},
        {"not the only line", "1:name=x:/\n0::/a/b\n", "max\n", "2147483648\n", "max\n",
         "1073741824\n", "", 2 * GIB, GIB},
        {"junk", "0::/a/b\n", "junk\n", "-\n", "\n", "x", "x", 8 * GIB, 4 * GIB},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct pressure p;
        struct event_loop loop;
        struct minivmm_error err = {""};
        struct pressure_sample sample;
        support_temp_dir(top);
        put("proc/meminfo", meminfo);
        put("proc/self/cgroup", rows[i].cgroup);
        put("cg/a/memory.max", rows[i].outer_max);
        put("cg/a/memory.current", rows[i].current);
        put("cg/a/memory.stat", rows[i].stat);
        put("cg/a/b/memory.max", rows[i].inner_max);
        put("cg/a/b/memory.high", rows[i].inner_high);
        put("cg/a/b/memory.current", rows[i].current);
        put("cg/a/b/memory.stat", rows[i].stat);
        cr_expect_eq(begin(&p, &loop, &err), 1, "%s: without PSI it goes on", rows[i].name);
        cr_expect(support_one_line(&err, "no trigger on"), "%s", err.text);
        cr_assert(pressure_read(&p, &sample), "%s", rows[i].name);
        cr_expect(sample.total == rows[i].total && sample.available == rows[i].available &&
                      !sample.stalled,
                  "%s: %llu of %llu MiB", rows[i].name, (unsigned long long)sample.available >> 20,
                  (unsigned long long)sample.total >> 20);
        put("proc/meminfo", "MemTotal: 1 kB\n");
        cr_expect_not(pressure_read(&p, &sample), "%s: a host that says nothing", rows[i].name);
        end(&p, &loop);
    }
}

Test(pressure, a_host_without_meminfo_is_an_error)
{
    struct pressure p;
    struct event_loop loop;
    struct minivmm_error err = {""};
    support_temp_dir(top);
    cr_expect_eq(begin(&p, &loop, &err), -ENOENT);
    cr_expect(support_one_line(&err, "meminfo"), "%s", err.text);
    end(&p, &loop);
}

/* This machine's own files, whatever they say. */
Test(pressure, the_real_files)
{
    struct pressure p;
    struct event_loop loop;
    struct minivmm_error err = {""};
    struct pressure_sample sample = {0};
    cr_assert_eq(event_loop_init(&loop, &err), 0);
    cr_expect_geq(pressure_init(&p, &loop, "/proc", "/sys/fs/cgroup", &err), 0, "%s", err.text);
    cr_expect(pressure_read(&p, &sample));
    cr_expect(sample.total > 0 && sample.available <= sample.total);
    pressure_finish(&p);
    event_loop_finish(&loop);
}
