/* The library's calls about a balloon, and a guest that says what it holds without a driver. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tests/kvm/guest.h"

SUITE(balloon);

/* The device is in slot 0; its configuration space begins at 0x100: num_pages, actual. */
GUEST_NUMBER(NUM_PAGES, 0xd0001100, LAYOUT_VIRTIO + 0x100);

/* Holds 8 MiB, when they are asked for; then half, when 12 MiB are; then 12 MiB, for 16. */
GUEST(obeys_and_takes_back, "mov $NUM_PAGES, %ebx\n"
                            "1: cmpl $2048, (%rbx)\n"
                            "jne 1b\n"
                            "movl $2048, 4(%rbx)\n"
                            "1: cmpl $3072, (%rbx)\n"
                            "jne 1b\n"
                            "movl $1024, 4(%rbx)\n"
                            "1: cmpl $4096, (%rbx)\n"
                            "jne 1b\n"
                            "movl $0xffffffff, 4(%rbx)\n"
                            "jmp guest_stop\n");

#define EVENTS 64

struct heard {
    unsigned count; /* atomic */
    struct minivmm_event events[EVENTS];
};

static void hear(void *arg, const struct minivmm_event *event)
{
    struct heard *heard = arg;
    if (event->kind != MINIVMM_EVENT_BALLOON || heard->count == EVENTS)
        return;
    heard->events[heard->count] = *event;
    __atomic_fetch_add(&heard->count, 1, __ATOMIC_RELEASE);
}

/* Wait for an event with these three. */
static bool heard_of(struct heard *heard, uint64_t value, unsigned number, const char *name)
{
    for (uint64_t start = guest_now(); guest_seconds_since(start) < 10; usleep(1000)) {
        unsigned count = __atomic_load_n(&heard->count, __ATOMIC_ACQUIRE);
        for (unsigned i = 0; i < count; i++) {
            const struct minivmm_event *event = &heard->events[i];
            if (event->value == value && event->number == number && !strcmp(event->name, name))
                return true;
        }
    }
    return false;
}

Test(balloon, wishes_and_what_the_guest_makes_of_them)
{
    static struct heard heard;
    const uint64_t mib = 1 << 20;
    struct guest_run run = guest_config();
    struct minivmm_balloon balloon;

    run.config.balloon = true;
    run.config.event = hear;
    run.config.event_arg = &heard;
    guest_start(&run, guest_obeys_and_takes_back);
    cr_expect_eq(minivmm_balloon_set(run.vm, 8 * mib + 4095, NULL), 0);
    cr_expect_eq(minivmm_balloon_get(run.vm, &balloon), 0);
    cr_expect_eq(balloon.target, 8 * mib, "at once, in whole pages");
    cr_expect(heard_of(&heard, 0, 8, "asked for") || heard_of(&heard, 8 * mib, 8, "asked for"));
    cr_expect(heard_of(&heard, 8 * mib, 8, "asked for"), "the guest holds it");
    cr_expect_eq(minivmm_balloon_set(run.vm, 12 * mib, NULL), 0);
    cr_expect(heard_of(&heard, 4 * mib, 12, "the guest took it back"));
    cr_expect_eq(minivmm_balloon_set(run.vm, 16 * mib, NULL), 0);
    cr_expect(heard_of(&heard, 0xffffffffull << 12, 16, "asked for"), "it may say anything");
    cr_expect_eq(minivmm_balloon_get(run.vm, &balloon), 0);
    cr_expect(balloon.target == 16 * mib && balloon.actual == 0xffffffffull << 12 &&
              !balloon.automatic && !balloon.has_stats);
    minivmm_stop(run.vm, 15);
    guest_wait(&run);
    cr_expect_eq(minivmm_balloon_set(run.vm, 0, NULL), 0, "harmless after the end");
    guest_destroy(&run);
    guest_free(&run);
}

Test(balloon, bounds_and_no_balloon)
{
    struct guest_run run = guest_config();
    struct minivmm_balloon balloon;
    struct minivmm_error err;

    guest_start(&run, guest_spin);
    cr_expect_eq(minivmm_balloon_set(run.vm, 0, &err), -ENODEV);
    cr_expect_str_eq(err.text, "balloon: the VM has none");
    cr_expect_eq(minivmm_balloon_get(run.vm, &balloon), -ENODEV);
    cr_expect_eq(minivmm_balloon_interval(run.vm, 1), -ENODEV);
    minivmm_stop(run.vm, 15);
    guest_wait(&run);
    guest_destroy(&run);
    guest_free(&run);

    run = guest_config();
    run.config.balloon = true;
    run.config.balloon_initial = 1 << 20;
    guest_start(&run, guest_spin);
    cr_expect_eq(minivmm_balloon_get(run.vm, &balloon), 0);
    cr_expect_eq(balloon.target, 1 << 20);
    cr_expect_eq(minivmm_balloon_set(run.vm, GUEST_MEMORY - GUEST_MEMORY / 8, &err), 0);
    cr_expect_eq(minivmm_balloon_set(run.vm, GUEST_MEMORY - GUEST_MEMORY / 8 + 1, &err), -EINVAL);
    cr_expect(strstr(err.text, "less than its 4"), "%s", err.text);
    cr_expect_eq(minivmm_balloon_set(run.vm, UINT64_MAX, NULL), -EINVAL);
    cr_expect_eq(minivmm_balloon_interval(run.vm, 1), 0);
    cr_expect_eq(minivmm_balloon_interval(run.vm, 0), 0);
    minivmm_stop(run.vm, 15);
    guest_wait(&run);
    guest_destroy(&run);
    guest_free(&run);
}

Test(balloon, auto_without_a_driver_asks_for_nothing)
{
    struct guest_run run = guest_config();
    struct minivmm_balloon balloon;

    run.config.balloon = run.config.balloon_auto = true;
    guest_start(&run, guest_spin);
    sleep(2);
    cr_expect_eq(minivmm_balloon_get(run.vm, &balloon), 0);
    cr_expect(balloon.automatic && balloon.target == 0);
    minivmm_stop(run.vm, 15);
    guest_wait(&run);
    guest_destroy(&run);
    guest_free(&run);
}
