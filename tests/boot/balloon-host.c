/*
 * A program with a VM in it, for the balloon's boot tests: it does what its standard input says,
 * line by line, and prints what it sees. The first line that fails ends it.
 *
 * usage: balloon-host KERNEL INITRD DISK MEMORY-MIB none|manual|auto OUT WORDS
 *   OUT      a file that gets the guest's output
 *   WORDS    for the guest's command line
 *
 *   type TEXT        a line for the guest's serial port
 *   await TEXT       until the guest has printed this since the last await
 *   target MIB       minivmm_balloon_set
 *   reach MIB        until the driver says it holds exactly that
 *   grow MIB         until it holds that at least
 *   shrink MIB       until it holds that at most
 *   below MIB        until this program's resident set is no more
 *   rss NAME         print the resident set: @rss NAME KIB
 *   balloon NAME     print minivmm_balloon_get: @balloon NAME target actual free total available
 *   interval SECONDS minivmm_balloon_interval
 *   others MIB       let this program itself have so many in use, in its control group; 0: none
 *   pass SECONDS     wait
 *   end              until the VM has ended
 * Waits take SECONDS at most, from the balloon's last change. Events of the balloon are printed as
 * @event KIB NAME, and what the policy is told and decides (it is linked with
 * --wrap=balloon_policy_step) as @sample and the columns of tests/unit/traces.
 *
 * exit codes: 0 all done, 1 something failed, 2 usage
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vmm/balloon_policy.h"
#include "vmm/minivmm.h"

#define SECONDS 180

struct host {
    struct minivmm *vm;
    int in;  /* of the guest */
    int out; /* the file with its output */
    off_t seen;
    struct timespec started;
};

static double seconds(const struct timespec *since)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - since->tv_sec) + (double)(now.tv_nsec - since->tv_nsec) / 1e9;
}

static unsigned long rss_kib(void)
{
    unsigned long size, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    if (file)
        fclose(file);
    return resident * ((unsigned long)sysconf(_SC_PAGESIZE) >> 10);
}

static bool printed(struct host *host, const char *text)
{
    static char buffer[1 << 20];
    ssize_t got = pread(host->out, buffer, sizeof(buffer) - 1, host->seen);
    if (got <= 0)
        return false;
    char *at = memmem(buffer, (size_t)got, text, strlen(text));
    if (at)
        host->seen += at - buffer + (off_t)strlen(text);
    return at != NULL;
}

static bool ended(struct host *host)
{
    struct minivmm_times times;
    minivmm_times(host->vm, &times);
    return times.end != 0;
}

static bool holds(struct host *host, const char *command, const char *value)
{
    struct minivmm_balloon balloon = {0};
    uint64_t mib = strtoull(value, NULL, 10);

    minivmm_balloon_get(host->vm, &balloon);
    if (strcmp(command, "await") == 0)
        return printed(host, value);
    if (strcmp(command, "reach") == 0)
        return balloon.actual == mib << 20;
    if (strcmp(command, "grow") == 0)
        return balloon.actual >= mib << 20;
    if (strcmp(command, "shrink") == 0)
        return balloon.actual <= mib << 20;
    if (strcmp(command, "below") == 0)
        return rss_kib() <= mib << 10;
    return ended(host);
}

static bool wait_for(struct host *host, const char *command, const char *value)
{
    uint64_t actual = 0;

    for (unsigned i = 0; i < SECONDS * 20; i++) {
        struct minivmm_balloon balloon = {0};
        if (holds(host, command, value))
            return true;
        if (ended(host) && strcmp(command, "end") != 0)
            return holds(host, command, value);
        minivmm_balloon_get(host->vm, &balloon);
        if (balloon.actual != actual)
            i = 0; /* a slow guest is no guest that stands still */
        actual = balloon.actual;
        usleep(50000);
    }
    return false;
}

static void print_balloon(struct host *host, const char *name)
{
    struct minivmm_balloon b = {0};
    minivmm_balloon_get(host->vm, &b);
    printf("@balloon %s target=%llu actual=%llu free=%llu total=%llu available=%llu tags=%x\n",
           name, (unsigned long long)b.target >> 20, (unsigned long long)b.actual >> 20,
           (unsigned long long)b.stats.free_memory >> 20,
           (unsigned long long)b.stats.total_memory >> 20,
           (unsigned long long)b.stats.available_memory >> 20, b.stats.present);
}

enum balloon_reason __real_balloon_policy_step(struct balloon_policy *policy,
                                               const struct balloon_sample *sample);
enum balloon_reason __wrap_balloon_policy_step(struct balloon_policy *policy,
                                               const struct balloon_sample *sample);
enum balloon_reason __wrap_balloon_policy_step(struct balloon_policy *policy,
                                               const struct balloon_sample *sample)
{
    const struct minivmm_balloon_stats *guest = &sample->guest;
    const uint64_t columns[] = {sample->now_ns / 1000000,
                                sample->actual >> 10,
                                sample->has_guest,
                                guest->present,
                                sample->stats_actual >> 10,
                                guest->available_memory >> 10,
                                guest->free_memory >> 10,
                                guest->total_memory >> 10,
                                guest->swap_in,
                                guest->swap_out,
                                guest->major_faults,
                                guest->oom_kills,
                                guest->alloc_stalls,
                                sample->has_host,
                                sample->host_stalled,
                                sample->host_total >> 10,
                                sample->host_available >> 10};

    enum balloon_reason reason = __real_balloon_policy_step(policy, sample);
    flockfile(stdout);
    printf("@sample");
    for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
        printf(" %llu", (unsigned long long)columns[i]);
    printf(" %llu %u\n", (unsigned long long)policy->target >> 10, (unsigned)reason);
    funlockfile(stdout);
    return reason;
}

static bool use_memory(const char *value)
{
    static void *used;
    static size_t size;

    if (used)
        munmap(used, size);
    used = NULL;
    size = strtoull(value, NULL, 10) << 20;
    if (size == 0)
        return true;
    used =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return used != MAP_FAILED;
}

static bool obey(struct host *host, const char *command, const char *value)
{
    struct minivmm_error err = {0};

    if (strcmp(command, "type") == 0)
        return write(host->in, value, strlen(value)) > 0 && write(host->in, "\n", 1) == 1;
    if (strcmp(command, "rss") == 0)
        return printf("@rss %s %lu\n", value, rss_kib()) > 0;
    if (strcmp(command, "interval") == 0)
        return minivmm_balloon_interval(host->vm, (unsigned)atoi(value)) == 0;
    if (strcmp(command, "others") == 0)
        return use_memory(value);
    if (strcmp(command, "pass") == 0)
        return sleep((unsigned)atoi(value)) == 0;
    if (strcmp(command, "balloon") == 0) {
        print_balloon(host, value);
        return true;
    }
    if (strcmp(command, "target") == 0) {
        int rc = minivmm_balloon_set(host->vm, strtoull(value, NULL, 10) << 20, &err);
        if (rc < 0)
            printf("# %s\n", err.text);
        return rc == 0;
    }
    return wait_for(host, command, value);
}

static void handle_event(void *arg, const struct minivmm_event *event)
{
    (void)arg;
    if (event->kind == MINIVMM_EVENT_BALLOON)
        printf("@event %llu %s\n", (unsigned long long)event->value >> 10, event->name);
}

static void handle_log(void *arg, const char *line)
{
    (void)arg;
    printf("# %s\n", line);
}

static int run(struct host *host)
{
    char line[1024];

    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        char *value = strchr(line, ' ');
        if (value)
            *value++ = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        if (!obey(host, line, value ? value : "")) {
            printf("@failed %s %s\n", line, value ? value : "");
            print_balloon(host, "failed");
            printf("@rss failed %lu\n", rss_kib());
            return 1;
        }
        printf("# %.1f s, done: %s %s\n", seconds(&host->started), line, value ? value : "");
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct minivmm_config config;
    struct minivmm_disk disk = {.readonly = true};
    struct minivmm_verdict verdict = {0};
    struct minivmm_error err;
    struct host host;
    int pipes[2];

    if (argc != 8) {
        fprintf(stderr, "usage: balloon-host KERNEL INITRD DISK MEMORY-MIB none|manual|auto OUT "
                        "WORDS\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    host.out = open(argv[6], O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
    host.seen = 0;
    if (host.out < 0 || pipe2(pipes, O_CLOEXEC) < 0) {
        perror(argv[6]);
        return 1;
    }
    host.in = pipes[1];
    disk.path = argv[3];
    minivmm_config_init(&config);
    config.kernel = argv[1];
    config.initrd = argv[2];
    config.disks = &disk;
    config.disk_count = 1;
    config.memory = strtoull(argv[4], NULL, 10) << 20;
    config.balloon = strcmp(argv[5], "none") != 0;
    config.balloon_auto = strcmp(argv[5], "auto") == 0;
    config.cmdline = argv[7];
    config.serial_in = pipes[0];
    config.serial_out = host.out;
    config.timeout = 900;
    config.event = handle_event;
    config.log = handle_log;
    if (minivmm_create(&config, &host.vm, &err) < 0) {
        printf("@failed create: %s\n", err.text);
        return 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &host.started);
    minivmm_start(host.vm);
    int code = run(&host);
    minivmm_stop(host.vm, 15);
    minivmm_wait(host.vm, &verdict);
    printf("# %s\n", verdict.text);
    minivmm_print_exits(host.vm, stdout);
    minivmm_destroy(host.vm);
    return code;
}
