/*
 * Random 4 KiB reads of a file through virtio-blk, the device's side alone: rings, device, disk and
 * event loop on one thread, with a driver that does as little as one can; beside bare system calls
 * on the same file in the same run.
 *
 * usage: disk FILE
 *   FILE   is filled with 256 MiB and removed; where it lies decides what `direct` measures
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices/blk.h"
#include "tests/bench/bench.h"
#include "virtio/mmio.h"

#define FILE_SIZE (256ull << 20)
#define BLOCK     4096u
#define DEPTH     32u
#define SIZE      256u /* entries of the ring */
#define ROUNDS    15

/* Guest memory: the rings, headers and status bytes, then a buffer for each request. */
#define DESC    0x10000u
#define AVAIL   0x20000u
#define USED    0x30000u
#define HEADERS 0x40000u
#define STATUS  0x50000u
#define DATA    0x100000u

struct bench {
    struct guest_mem mem;
    struct event_loop loop;
    struct disk *disk;
    struct blk *blk;
    struct virtio_mmio mmio;
    struct vring_avail *avail;
    struct vring_used *used;
    struct virtio_blk_outhdr *headers;
    uint8_t *status, *data;
    uint16_t seen;
    uint64_t random;
};

static void fail(const char *what)
{
    fprintf(stderr, "disk: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t next_block(uint64_t *random)
{
    *random = *random * 6364136223846793005ull + 1442695040888963407ull;
    return (*random >> 33) % (FILE_SIZE / BLOCK);
}

/* ---- bare system calls --------------------------------------------------------------------- */

static double bare_preadv(int fd, uint8_t *data, unsigned count)
{
    uint64_t random = 1;
    double start = bench_now(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < count; i++) {
        struct iovec iov = {.iov_base = data + (size_t)(i % DEPTH) * BLOCK, .iov_len = BLOCK};
        if (preadv(fd, &iov, 1, (off_t)(next_block(&random) * BLOCK)) != BLOCK)
            fail("preadv");
    }
    return (bench_now(CLOCK_MONOTONIC) - start) / count;
}

static double bare_aio(io_context_t context, int fd, uint8_t *data, unsigned count)
{
    struct iocb iocbs[DEPTH], *list[DEPTH];
    struct io_event events[DEPTH];
    uint64_t random = 1;
    unsigned submitted = 0, done = 0, ready = DEPTH;

    for (unsigned i = 0; i < DEPTH; i++)
        list[i] = &iocbs[i];
    double start = bench_now(CLOCK_MONOTONIC);
    while (done < count) {
        unsigned n = 0;
        for (; n < ready && submitted + n < count; n++) {
            struct iocb *iocb = list[n];
            io_prep_pread(iocb, fd, data + (size_t)(iocb - iocbs) * BLOCK, BLOCK,
                          (long long)(next_block(&random) * BLOCK));
        }
        if (n > 0 && io_submit(context, (long)n, list) != (int)n)
            fail("io_submit");
        submitted += n;
        int got = io_getevents(context, 1, DEPTH, events, NULL);
        if (got < 1)
            fail("io_getevents");
        for (int i = 0; i < got; i++)
            list[i] = events[i].obj;
        ready = (unsigned)got;
        done += ready;
    }
    return (bench_now(CLOCK_MONOTONIC) - start) / count;
}

/* ---- through the device -------------------------------------------------------------------- */

static void write_register(struct bench *b, uint64_t offset, uint32_t value)
{
    virtio_mmio_ops.write(&b->mmio, offset, sizeof(value), value);
}

static void start_driver(struct bench *b)
{
    static const struct {
        uint32_t offset, value;
    } steps[] = {
        {VIRTIO_MMIO_STATUS, 0},
        {VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER},
        {VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1},
        {VIRTIO_MMIO_DRIVER_FEATURES, 1u << (VIRTIO_F_VERSION_1 - 32)},
        {VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0},
        {VIRTIO_MMIO_DRIVER_FEATURES, 1u << VIRTIO_RING_F_EVENT_IDX | 1u << VIRTIO_BLK_F_FLUSH},
        {VIRTIO_MMIO_STATUS,
         VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK},
        {VIRTIO_MMIO_QUEUE_SEL, 0},
        {VIRTIO_MMIO_QUEUE_NUM, SIZE},
        {VIRTIO_MMIO_QUEUE_DESC_LOW, DESC},
        {VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL},
        {VIRTIO_MMIO_QUEUE_USED_LOW, USED},
        {VIRTIO_MMIO_QUEUE_READY, 1},
        {VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |
                                 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK},
    };
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        write_register(b, steps[i].offset, steps[i].value);
}

static void set_up(struct bench *b, const char *path, bool direct)
{
    const struct disk_config disk = {.path = path, .direct = direct};
    const struct blk_config blk = {.queues = 1, .queue_size = SIZE};
    struct minivmm_error err = {""};

    *b = (struct bench){.random = 1};
    if (guest_mem_init(&b->mem, 16 << 20, &err) < 0 || event_loop_init(&b->loop, &err) < 0 ||
        disk_create(&disk, &b->loop, &b->disk, &err) < 0 ||
        blk_create(&blk, b->disk, &b->mem, &b->loop, &b->blk, &err) < 0) {
        fprintf(stderr, "disk: %s\n", err.text);
        exit(1);
    }
    b->mmio.dev = blk_device(b->blk);
    b->avail = guest_mem_at(&b->mem, AVAIL, 6 + 2 * SIZE);
    b->used = guest_mem_at(&b->mem, USED, 6 + 8 * SIZE);
    b->headers = guest_mem_at(&b->mem, HEADERS, sizeof(b->headers[0]) * DEPTH);
    b->status = guest_mem_at(&b->mem, STATUS, DEPTH);
    b->data = guest_mem_at(&b->mem, DATA, (uint64_t)DEPTH * BLOCK);
    struct vring_desc *desc = guest_mem_at(&b->mem, DESC, sizeof(*desc) * SIZE);
    for (unsigned i = 0; i < DEPTH; i++) {
        struct vring_desc *chain = &desc[3 * i];
        chain[0] = (struct vring_desc){.addr = HEADERS + sizeof(b->headers[0]) * i,
                                       .len = sizeof(b->headers[0]),
                                       .flags = VRING_DESC_F_NEXT,
                                       .next = (uint16_t)(3 * i + 1)};
        chain[1] = (struct vring_desc){.addr = DATA + (uint64_t)i * BLOCK,
                                       .len = BLOCK,
                                       .flags = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
                                       .next = (uint16_t)(3 * i + 2)};
        chain[2] = (struct vring_desc){.addr = STATUS + i, .len = 1, .flags = VRING_DESC_F_WRITE};
    }
    start_driver(b);
}

static void tear_down(struct bench *b)
{
    write_register(b, VIRTIO_MMIO_STATUS, 0);
    blk_destroy(b->blk);
    disk_destroy(b->disk);
    event_loop_finish(&b->loop);
    guest_mem_finish(&b->mem);
}

/* Offer requests `first`.. of the list. */
static void offer(struct bench *b, const unsigned *list, unsigned count)
{
    uint16_t index = b->avail->idx;

    for (unsigned i = 0; i < count; i++) {
        b->headers[list[i]].sector = next_block(&b->random) * (BLOCK / DISK_SECTOR);
        b->avail->ring[(uint16_t)(index + i) % SIZE] = (uint16_t)(3 * list[i]);
    }
    __atomic_store_n(&b->avail->idx, (uint16_t)(index + count), __ATOMIC_RELEASE);
    /* A driver interrupts itself once for each batch it takes: used_event is what it has seen. */
    b->avail->ring[SIZE] = b->seen;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint16_t event; /* avail_event, behind the used ring */
    memcpy(&event, &b->used->ring[SIZE], sizeof(event));
    if (vring_need_event(event, (uint16_t)(index + count), index))
        write_register(b, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
}

static double through_device(struct bench *b, unsigned count)
{
    unsigned list[DEPTH], ready = DEPTH, offered = 0, done = 0;

    for (unsigned i = 0; i < DEPTH; i++)
        list[i] = i;
    b->random = 1;
    double start = bench_now(CLOCK_MONOTONIC);
    while (done < count) {
        unsigned n = ready < count - offered ? ready : count - offered;
        if (n > 0)
            offer(b, list, n);
        offered += n;
        ready = 0;
        while (ready == 0) {
            event_loop_once(&b->loop, 1000);
            for (; b->seen != __atomic_load_n(&b->used->idx, __ATOMIC_ACQUIRE); b->seen++) {
                unsigned request = b->used->ring[b->seen % SIZE].id / 3;
                if (b->status[request] != VIRTIO_BLK_S_OK)
                    fail("a request failed");
                list[ready++] = request;
            }
        }
        done += ready;
    }
    return (bench_now(CLOCK_MONOTONIC) - start) / count;
}

/* ---- the table ----------------------------------------------------------------------------- */

static void fill_file(const char *path)
{
    static uint8_t block[1 << 20];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        fail(path);
    for (uint64_t at = 0; at < FILE_SIZE; at += sizeof(block)) {
        memset(block, (int)(at >> 20), sizeof(block));
        if (write(fd, block, sizeof(block)) != sizeof(block))
            fail(path);
    }
    if (fsync(fd) < 0)
        fail(path);
    close(fd);
}

static void measure(const char *path, bool direct, const char *name, unsigned count,
                    const char *limit)
{
    double bare[ROUNDS], ours[ROUNDS];
    struct bench b;
    io_context_t context = NULL;

    int fd = open(path, O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
    if (fd < 0) {
        printf("%-44s skipped: %s\n", name, strerror(errno));
        return;
    }
    if (direct && io_setup(DEPTH, &context) < 0)
        fail("io_setup");
    set_up(&b, path, direct);
    for (int round = -1; round < ROUNDS; round++) { /* one round to warm up */
        double with =
            direct ? bare_aio(context, fd, b.data, count) : bare_preadv(fd, b.data, count);
        double through = through_device(&b, count);
        if (round >= 0)
            bare[round] = with, ours[round] = through;
    }
    bench_compare(name, bare, ours, ROUNDS, limit);
    tear_down(&b);
    if (context)
        io_destroy(context);
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: disk FILE\n");
        return 2;
    }
    fill_file(argv[1]);
    printf("%-44s %8s %8s   %s\n", "random 4 KiB reads at depth 32", "bare ns", "ours ns",
           "bare / ours");
    measure(argv[1], false, "cached, beside preadv", 40000, "  limit 0.85");
    measure(argv[1], true, "O_DIRECT, beside libaio", 8000, "  limit 0.90");
    unlink(argv[1]);
    return 0;
}
