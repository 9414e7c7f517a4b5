/* The balloon of a VM: who wants what of it, and when. */
#include "vmm/machine_balloon.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/clock.h"
#include "vmm/machine.h"

#define LOOK_NS   (NS_PER_SECOND / 10)
#define PAGE_MASK (~4095ull)

/* ---- on the loop's thread ------------------------------------------------------------------ */

static void tell(struct minivmm *vm, const char *why)
{
    struct machine_balloon *m = &vm->balloon;

    machine_tell(vm, (struct minivmm_event){.kind = MINIVMM_EVENT_BALLOON,
                                            .name = why,
                                            .number = (unsigned)(m->policy.target >> 20),
                                            .value = balloon_actual(m->device)});
}

/* The target is another one now. */
static void apply(struct minivmm *vm, enum balloon_reason reason)
{
    struct machine_balloon *m = &vm->balloon;

    m->reason = reason;
    balloon_set_target(m->device, m->policy.target);
    tell(vm, balloon_reason_text(reason));
}

/* A sample for the policy, from what is known now. */
static void decide(struct minivmm *vm)
{
    struct machine_balloon *m = &vm->balloon;
    struct pressure_sample host = {0};
    struct balloon_sample sample = {.now_ns = clock_now_ns(),
                                    .actual = balloon_actual(m->device),
                                    .stats_actual = m->stats_actual};

    sample.has_host = pressure_read(&m->pressure, &host);
    sample.host_stalled = host.stalled;
    sample.host_total = host.total;
    sample.host_available = host.available;
    sample.has_guest = m->has_stats && sample.now_ns - m->stats_ns < BALLOON_STALE_NS;
    sample.guest = m->stats;
    enum balloon_reason reason = balloon_policy_step(&m->policy, &sample);
    if (reason == BALLOON_KEEP)
        return;
    pthread_mutex_lock(&m->lock);
    bool overruled = m->asked; /* by a wish of the owner's, which comes next */
    if (!overruled)
        m->target = m->policy.target;
    pthread_mutex_unlock(&m->lock);
    if (!overruled)
        apply(vm, reason);
}

static void handle_stats(void *arg, const struct minivmm_balloon_stats *stats)
{
    struct minivmm *vm = arg;
    struct machine_balloon *m = &vm->balloon;

    pthread_mutex_lock(&m->lock);
    m->stats = *stats;
    m->stats_ns = clock_now_ns();
    m->has_stats = true;
    pthread_mutex_unlock(&m->lock);
    m->stats_actual = balloon_actual(m->device);
    /* One sample a tick, however much a driver sends. */
    if (vm->config.balloon_auto && !m->fresh)
        decide(vm);
    m->fresh = true;
}

static void set_tick(struct machine_balloon *m)
{
    pthread_mutex_lock(&m->lock);
    event_timer_set(&m->tick, m->interval * NS_PER_SECOND);
    pthread_mutex_unlock(&m->lock);
}

static void handle_tick(void *arg)
{
    struct minivmm *vm = arg;
    struct machine_balloon *m = &vm->balloon;

    if (m->notice.text[0] && vm->config.log)
        vm->config.log(vm->config.log_arg, m->notice.text);
    m->notice.text[0] = '\0';
    /* Statistics that come bring a sample with them; without, this is one. */
    if (vm->config.balloon_auto && !m->fresh)
        decide(vm);
    m->fresh = false;
    balloon_ask_stats(m->device);
    set_tick(m);
}

static void look(struct minivmm *vm)
{
    struct machine_balloon *m = &vm->balloon;
    uint64_t now = clock_now_ns();

    if (now - m->looked_ns < LOOK_NS) {
        event_timer_set(&m->look, m->looked_ns + LOOK_NS - now);
        return;
    }
    m->looked_ns = now;
    __atomic_store_n(&m->moved, false, __ATOMIC_RELEASE); /* before it is read */
    uint64_t actual = balloon_actual(m->device);
    if (actual == m->told)
        return;
    bool taken_back = actual < m->told && actual < m->policy.target;
    m->told = actual;
    tell(vm, taken_back ? "the guest took it back" : balloon_reason_text(m->reason));
    if (taken_back && vm->config.balloon_auto)
        decide(vm); /* it cannot wait for the next tick */
}

static void handle_look(void *arg)
{
    look(arg);
}

static void handle_wake(struct event_source *source, uint32_t events)
{
    struct minivmm *vm = source->arg;
    struct machine_balloon *m = &vm->balloon;
    eventfd_t count;

    (void)events;
    eventfd_read(source->fd, &count);
    pthread_mutex_lock(&m->lock);
    bool asked = m->asked;
    m->asked = false;
    if (asked)
        m->policy.target = m->target;
    pthread_mutex_unlock(&m->lock);
    if (asked)
        apply(vm, BALLOON_ASKED);
    if (__atomic_load_n(&m->moved, __ATOMIC_ACQUIRE))
        look(vm);
}

/* ---- on any thread ------------------------------------------------------------------------- */

static void handle_moved(void *arg)
{
    struct minivmm *vm = arg;

    if (!__atomic_exchange_n(&vm->balloon.moved, true, __ATOMIC_ACQ_REL))
        eventfd_write(vm->balloon.wake.fd, 1);
}

int minivmm_balloon_set(struct minivmm *vm, uint64_t bytes, struct minivmm_error *err)
{
    struct machine_balloon *m = &vm->balloon;
    uint64_t floor = balloon_floor(&vm->config);

    if (!m->device)
        return error_set(err, -ENODEV, "balloon: the VM has none");
    if (bytes > vm->config.memory - floor)
        return error_set(
            err, -EINVAL, "balloon: %llu MiB out of %llu leave the guest less than its %llu",
            (unsigned long long)(bytes >> 20), (unsigned long long)(vm->config.memory >> 20),
            (unsigned long long)(floor >> 20));
    pthread_mutex_lock(&m->lock);
    m->target = bytes & PAGE_MASK;
    m->asked = true;
    pthread_mutex_unlock(&m->lock);
    eventfd_write(m->wake.fd, 1);
    return 0;
}

int minivmm_balloon_get(struct minivmm *vm, struct minivmm_balloon *balloon)
{
    struct machine_balloon *m = &vm->balloon;

    if (!m->device)
        return -ENODEV;
    *balloon = (struct minivmm_balloon){.actual = balloon_actual(m->device),
                                        .automatic = vm->config.balloon_auto};
    pthread_mutex_lock(&m->lock);
    balloon->target = m->target;
    balloon->has_stats = m->has_stats;
    balloon->stats = m->stats;
    if (m->has_stats)
        balloon->stats_age_ns = clock_now_ns() - m->stats_ns;
    pthread_mutex_unlock(&m->lock);
    return 0;
}

int minivmm_balloon_interval(struct minivmm *vm, unsigned seconds)
{
    struct machine_balloon *m = &vm->balloon;

    if (!m->device)
        return -ENODEV;
    pthread_mutex_lock(&m->lock);
    m->interval = seconds;
    pthread_mutex_unlock(&m->lock);
    set_tick(m);
    return 0;
}

/* ---- its life ------------------------------------------------------------------------------ */

static int create_wake(struct minivmm *vm, struct minivmm_error *err)
{
    struct machine_balloon *m = &vm->balloon;

    m->wake = (struct event_source){
        .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .ready = handle_wake, .arg = vm};
    int rc = m->wake.fd < 0 ? -errno : event_loop_add(&vm->loop, &m->wake, EPOLLIN);
    return rc < 0 ? error_set(err, rc, "balloon: eventfd: %s", strerror(-rc)) : 0;
}

int machine_balloon_init(struct minivmm *vm, struct minivmm_error *err)
{
    static const struct balloon_events events = {.stats = handle_stats, .moved = handle_moved};
    const struct minivmm_config *config = &vm->config;
    struct machine_balloon *m = &vm->balloon;

    pthread_mutex_init(&m->lock, NULL);
    if (!vm->slots.balloon)
        return 0;
    m->wake.fd = m->tick.source.fd = m->look.source.fd = -1;
    m->device = vm->slots.balloon;
    m->target = config->balloon_initial & PAGE_MASK;
    m->interval = config->balloon_auto ? 1 : 0;
    m->reason = BALLOON_ASKED;
    m->policy = (struct balloon_policy){.memory = config->memory,
                                        .floor = balloon_floor(config),
                                        .reserve = config->balloon_reserve,
                                        .target = m->target};
    int rc = create_wake(vm, err);
    if (rc == 0)
        rc = event_timer_init(&m->tick, &vm->loop, handle_tick, vm, err);
    if (rc == 0)
        rc = event_timer_init(&m->look, &vm->loop, handle_look, vm, err);
    if (rc == 0 && config->balloon_auto) {
        rc = pressure_init(&m->pressure, &vm->loop, "/proc", "/sys/fs/cgroup", &m->notice);
        if (rc < 0)
            *err = m->notice;
        else
            rc = 0;
    }
    if (rc == 0) {
        balloon_set_target(m->device, m->target);
        balloon_listen(m->device, &events, vm);
        set_tick(m);
    }
    return rc;
}

void machine_balloon_finish(struct minivmm *vm)
{
    struct machine_balloon *m = &vm->balloon;

    if (!m->device)
        return;
    balloon_listen(m->device, NULL, NULL);
    pressure_finish(&m->pressure);
    event_timer_finish(&m->tick);
    event_timer_finish(&m->look);
    if (m->wake.fd >= 0)
        close(m->wake.fd);
    m->device = NULL;
}

void machine_balloon_print(const struct minivmm *vm, FILE *out)
{
    const struct machine_balloon *m = &vm->balloon;

    if (!m->device)
        return;
    const struct balloon_counts counts = balloon_counts(m->device);
    const struct {
        const char *what;
        uint64_t count;
    } rows[] = {
        {"pages inflated", counts.inflated},      {"pages deflated", counts.deflated},
        {"pages reported", counts.reported},      {"calls", counts.calls},
        {"pages outside of RAM", counts.outside}, {"pages named twice", counts.repeated},
        {"malformed requests", counts.malformed}, {"reported pages kept", counts.kept},
        {"calls refused", counts.refused},        {"statistics", counts.stats},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].count)
            fprintf(out, "balloon, %s: %llu\n", rows[i].what, (unsigned long long)rows[i].count);
    }
    for (unsigned i = 0; i < BALLOON_REASONS; i++) {
        if (m->policy.decisions[i])
            fprintf(out, "balloon, %s: %llu times\n", balloon_reason_text((enum balloon_reason)i),
                    (unsigned long long)m->policy.decisions[i]);
    }
}
