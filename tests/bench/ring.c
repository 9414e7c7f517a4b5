/*
 * A request through a virtqueue, the device's side of it alone: virtq_next with its translation
 * and virtq_done, for the chain of a disk's read: 16 bytes to read, 4096 and 1 to write.
 *
 * usage: ring
 */
#include <linux/virtio_ring.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/bench.h"
#include "virtio/virtq.h"

#define SIZE   256u
#define CHAINS (SIZE / 3)
#define ROUNDS 20
#define LAPS   20000 /* of all chains, each round */
#define LIMIT  "limit 30"

/* The driver's part: chains that stay as they are, and available entries for all of them. */
static void fill(struct guest_mem *mem, const struct virtq_config *config)
{
    static const struct {
        uint32_t len;
        uint16_t flags;
    } parts[3] = {{16, VRING_DESC_F_NEXT},
                  {4096, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE},
                  {1, VRING_DESC_F_WRITE}};
    struct vring_desc *desc = guest_mem_at(mem, config->desc, sizeof(*desc) * SIZE);
    for (unsigned i = 0; i < CHAINS * 3; i++)
        desc[i] = (struct vring_desc){.addr = 0x100000 + 0x2000ull * i,
                                      .len = parts[i % 3].len,
                                      .flags = parts[i % 3].flags,
                                      .next = (uint16_t)(i + 1)};
}

/* Whether all chains came; `lap` counts from 0. */
static bool serve_all(struct virtq *q, struct vring_avail *avail)
{
    struct iovec iov[8];
    struct virtq_chain chain = {.iov = iov, .capacity = 8};

    for (unsigned i = 0; i < CHAINS; i++)
        avail->ring[(uint16_t)(avail->idx + i) % SIZE] = (uint16_t)(3 * i);
    __atomic_store_n(&avail->idx, (uint16_t)(avail->idx + CHAINS), __ATOMIC_RELEASE);
    unsigned count = 0;
    for (; virtq_next(q, &chain) == 1; count++)
        virtq_done(q, &chain, 4097);
    return count == CHAINS;
}

int main(void)
{
    struct guest_mem mem;
    struct minivmm_error err;
    struct virtq q;
    struct virtq_config config = {
        .size = SIZE, .desc = 0x10000, .avail = 0x20000, .used = 0x30000, .event_idx = true};
    double samples[ROUNDS];

    /* Two regions, as a guest with more than 3 GiB has. */
    if (guest_mem_init(&mem, 4ull << 30, &err) < 0 || virtq_init(&q, SIZE) < 0 ||
        virtq_start(&q, &mem, &config, SIZE, 0) < 0) {
        fprintf(stderr, "ring: cannot set up a queue\n");
        return 1;
    }
    fill(&mem, &config);
    struct vring_avail *avail = guest_mem_at(&mem, config.avail, 6 + 2 * SIZE);
    for (int round = 0; round < ROUNDS; round++) {
        double start = bench_now(CLOCK_THREAD_CPUTIME_ID);
        for (int lap = 0; lap < LAPS; lap++) {
            if (!serve_all(&q, avail)) {
                fprintf(stderr, "ring: a request is missing\n");
                return 1;
            }
        }
        samples[round] = (bench_now(CLOCK_THREAD_CPUTIME_ID) - start) / ((double)LAPS * CHAINS);
    }
    struct bench_spread ns = bench_spread(samples, ROUNDS);
    printf("%-52s %8.3f  (%.3f-%.3f)  %s\n", "virtqueue, next + done of 3 descriptors, ns",
           ns.median, ns.low, ns.high, LIMIT);
    virtq_finish(&q);
    guest_mem_finish(&mem);
    return 0;
}
