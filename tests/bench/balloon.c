/*
 * Memory that a guest gives back: the device's side of inflating and of free page reporting, driven
 * through registers and rings, on memory that was touched before, beside the bare system calls.
 *
 * usage: balloon
 */
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "devices/balloon.h"
#include "tests/bench/bench.h"
#include "tests/unit/virtio_driver.h"
#include "virtio/mmio.h"

#define MEMORY    (512ull << 20) /* of the guest; its first 64 MiB hold rings and lists */
#define BASE      (64ull << 20)
#define SPAN      (256ull << 20) /* what is given back in a round */
#define PAGES     ((unsigned)(SPAN / PAGE))
#define LIST      256u /* pages in a list, as Linux sends them */
#define BLOCK     (2u << 20)
#define REPORT    32u /* blocks in a report */
#define ROUNDS    9
#define REGISTERS 0xd0001000ull

static struct guest_mem mem;
static struct virtio_driver v;
static uint32_t order[PAGES]; /* page numbers as the driver names them */

__attribute__((noreturn)) static void fail(const char *what)
{
    fprintf(stderr, "balloon: %s\n", what);
    exit(1);
}

static void touch(bool huge)
{
    volatile uint8_t *at = guest_mem_at(&mem, BASE, SPAN);
    madvise((void *)at, SPAN, MADV_DONTNEED);
    madvise((void *)at, SPAN, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    for (uint64_t i = 0; i < SPAN; i += PAGE)
        at[i] = 1;
}

static void expect_gone(void)
{
    unsigned char present[PAGES];
    void *at = guest_mem_at(&mem, BASE, SPAN);
    if (mincore(at, SPAN, present) < 0)
        fail("mincore");
    for (unsigned i = 0; i < PAGES; i++) {
        if (present[i] & 1)
            fail("a page is still there");
    }
}

/* ---- one round of each; seconds ------------------------------------------------------------ */

static double inflate(void)
{
    const uint64_t list_gpa = 32ull << 20;
    uint32_t *lists = guest_mem_at(&mem, list_gpa, sizeof(order));
    for (unsigned i = 0; i < PAGES; i++)
        lists[i] = order[i];
    double start = bench_now(CLOCK_THREAD_CPUTIME_ID);
    for (unsigned i = 0; i < PAGES; i += LIST) {
        struct piece piece = {list_gpa + i * sizeof(order[0]), LIST * sizeof(order[0]), false};
        struct vring_used_elem element;
        if (!virtio_driver_transact(&v, 0, &piece, 1, &element))
            fail("a list does not come back");
    }
    return (bench_now(CLOCK_THREAD_CPUTIME_ID) - start) / 1e9;
}

static double page_by_page(void)
{
    double start = bench_now(CLOCK_THREAD_CPUTIME_ID);
    for (unsigned i = 0; i < PAGES; i++)
        madvise(guest_mem_at(&mem, (uint64_t)order[i] * PAGE, PAGE), PAGE, MADV_DONTNEED);
    return (bench_now(CLOCK_THREAD_CPUTIME_ID) - start) / 1e9;
}

static double report(void)
{
    double start = bench_now(CLOCK_THREAD_CPUTIME_ID);
    for (uint64_t at = 0; at < SPAN; at += (uint64_t)REPORT * BLOCK) {
        struct piece pieces[REPORT];
        struct vring_used_elem element;
        for (unsigned i = 0; i < REPORT; i++)
            pieces[i] = (struct piece){BASE + at + (uint64_t)i * BLOCK, BLOCK, true};
        if (!virtio_driver_transact(&v, 3, pieces, REPORT, &element))
            fail("a report does not come back");
    }
    return (bench_now(CLOCK_THREAD_CPUTIME_ID) - start) / 1e9;
}

static double block_by_block(void)
{
    double start = bench_now(CLOCK_THREAD_CPUTIME_ID);
    for (uint64_t at = 0; at < SPAN; at += BLOCK)
        madvise(guest_mem_at(&mem, BASE + at, BLOCK), BLOCK, MADV_DONTNEED);
    return (bench_now(CLOCK_THREAD_CPUTIME_ID) - start) / 1e9;
}

static const double gibibytes = (double)SPAN / (1 << 30);

/* A way of giving all back, and beside it another; rounds take turns. */
static void compare(const char *name, bool huge, double (*way)(void), double (*bare)(void),
                    const char *limit)
{
    double ours[ROUNDS], theirs[ROUNDS], ratios[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        touch(huge);
        ours[round] = gibibytes / way();
        expect_gone();
        touch(huge);
        theirs[round] = gibibytes / bare();
        ratios[round] = ours[round] / theirs[round];
    }
    struct bench_spread spread = bench_spread(ours, ROUNDS);
    printf("%-52s %8.2f  (%.2f-%.2f)  bare %.2f, ratio %.2f  %s\n", name, spread.median, spread.low,
           spread.high, bench_spread(theirs, ROUNDS).median, bench_spread(ratios, ROUNDS).median,
           limit);
}

static void order_pages(int how)
{
    unsigned short random[3] = {1, 2, 3};
    for (unsigned i = 0; i < PAGES; i++)
        order[i] = (uint32_t)(BASE / PAGE) + (how < 0 ? PAGES - 1 - i : i);
    for (unsigned i = PAGES - 1; how == 0 && i > 0; i--) {
        unsigned other = (unsigned)nrand48(random) % (i + 1);
        uint32_t swap = order[i];
        order[i] = order[other];
        order[other] = swap;
    }
}

int main(void)
{
    struct minivmm_error err;
    struct event_loop loop;
    struct balloon *balloon;
    struct bus bus = {0};
    struct virtio_mmio slot = {0};

    if (guest_mem_init(&mem, MEMORY, &err) < 0 || event_loop_init(&loop, &err) < 0 ||
        balloon_create(&mem, &loop, &balloon, &err) < 0)
        fail(err.text);
    slot.dev = balloon_device(balloon);
    bus_add(&bus, REGISTERS, VIRTIO_MMIO_SIZE, &virtio_mmio_ops, &slot);
    v = (struct virtio_driver){
        .bus = &bus, .mem = &mem, .loop = &loop, .call = slot.dev->call, .rings = 16ull << 20};
    if (!virtio_driver_find(&v, REGISTERS, 1, VIRTIO_ID_BALLOON) ||
        !virtio_driver_start(&v, UINT64_MAX, 0))
        fail("no device");
    order_pages(1);
    compare("inflate, neighbours, 4 KiB pages, GiB/s", false, inflate, page_by_page, "limit 5");
    order_pages(-1);
    compare("inflate, neighbours backwards, GiB/s", false, inflate, page_by_page, "limit 5");
    order_pages(0);
    compare("inflate, random pages, GiB/s", false, inflate, page_by_page, "limit ratio 0.9");
    compare("report, blocks of 2 MiB, huge pages, GiB/s", true, report, block_by_block,
            "limit 100");
    virtio_shutdown(slot.dev);
    virtio_driver_finish(&v);
    balloon_destroy(balloon);
    event_loop_finish(&loop);
    guest_mem_finish(&mem);
    return 0;
}
