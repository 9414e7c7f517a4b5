#include "devices/blk.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>

#include "virtio/local.h"
#include "virtio/span.h"
#include "vmm/checked.h"

_Static_assert(BLK_SERIAL_MAX == VIRTIO_BLK_ID_BYTES, "5.2.6: the length of a device ID");

#define BIT(n) (1ull << (n))

/*
 * Buffers of data a request may have, of which the driver is told, and pieces it may come in: the
 * header in one-byte descriptors, the status, and splits where memory regions meet besides.
 */
#define SEG_MAX    254u
#define PIECES_MAX (SEG_MAX + sizeof(struct virtio_blk_outhdr) + 18)

/* Requests under way for a queue, however large it is: the rest waits in the ring. */
#define REQUESTS_MAX 1024u

/* Requests taken before other descriptors have their turn. */
#define BUDGET 256u

/* What the driver is told of discards and zeroing; more is an error. */
#define RANGES_MAX          16u
#define DISCARD_SECTORS_MAX (1u << 22) /* 2 GiB */
#define ZERO_SECTORS_MAX    (1u << 17) /* 64 MiB: where a file system cannot, they are written */

#define PHYSICAL_BLOCK 4096u /* what file systems and their disks like best */

struct request {
    struct disk_request disk;
    struct virtq_chain chain;
    struct virtio_queue *queue;
    struct request *next_free;
    uint8_t *status;   /* where the driver wants it */
    uint32_t readable; /* bytes of the chain that a read fills */
    /* Discards and zeroing: the ranges that follow the one under way. */
    unsigned range, range_count;
    struct virtio_blk_discard_write_zeroes ranges[RANGES_MAX];
    struct iovec iov[PIECES_MAX];
};

/* The requests of a queue. */
struct pool {
    struct request *requests;
    struct request *free;
    unsigned used; /* the ones behind this have never been used, nor their memory touched */
    unsigned size;
    bool starved; /* the queue waits for one */
};

struct blk {
    struct virtio_dev dev;
    struct virtio_blk_config config;
    struct disk *disk;
    bool writethrough; /* what the cache mode is after a reset */
    void (*failed)(void *arg, enum disk_op op, int error); /* of the configuration */
    void *failed_arg;
    uint8_t id[VIRTIO_BLK_ID_BYTES];
    struct pool pools[BLK_QUEUES_MAX];
};

static struct blk *blk_of(struct virtio_dev *dev)
{
    return (struct blk *)((char *)dev - offsetof(struct blk, dev));
}

/* ---- requests ------------------------------------------------------------------------------ */

static struct request *get_request(struct pool *pool)
{
    struct request *request = pool->free;

    if (request)
        pool->free = request->next_free;
    else if (pool->used < pool->size)
        request = &pool->requests[pool->used++];
    return request;
}

static void put_request(struct pool *pool, struct request *request)
{
    request->next_free = pool->free;
    pool->free = request;
}

/*
 * Answer a request. `filled` is how many bytes of its writable part, from the start, hold what was
 * asked for; the status byte counts where it follows directly.
 */
static void finish(struct request *request, uint8_t status, uint32_t filled)
{
    struct virtio_queue *queue = request->queue;
    struct pool *pool = &blk_of(queue->dev)->pools[queue->index];

    if (request->status)
        *request->status = status;
    if (request->status && filled == request->readable)
        filled++;
    put_request(pool, request);
    local_done(queue, &request->chain, filled);
    if (pool->starved) {
        pool->starved = false;
        local_resume(queue);
    }
}

static void start_range(struct request *request);

static void handle_done(struct disk_request *disk, int result)
{
    struct request *request = (struct request *)((char *)disk - offsetof(struct request, disk));

    if (result < 0) {
        const struct blk *blk = blk_of(request->queue->dev);
        if (blk->failed)
            blk->failed(blk->failed_arg, disk->op, -result);
        finish(request, VIRTIO_BLK_S_IOERR, 0);
    } else if (++request->range < request->range_count) {
        start_range(request);
        disk_kick(blk_of(request->queue->dev)->disk);
    } else {
        finish(request, VIRTIO_BLK_S_OK, disk->op == DISK_READ ? request->readable : 0);
    }
}

/*
 * 5.2.6.2: must a write be on stable storage before it is done? Where the driver cannot ask for
 * flushes, or has been told or told us that it need not.
 */
static bool is_durable(const struct blk *blk)
{
    return !virtio_has(&blk->dev, VIRTIO_BLK_F_FLUSH) ||
           !__atomic_load_n(&blk->config.wce, __ATOMIC_RELAXED);
}

/* Do `sectors` from `sector` on lie within the disk? */
static bool is_within(const struct blk *blk, uint64_t sector, uint64_t sectors)
{
    return range_within(sector, sectors, blk->config.capacity);
}

static void submit(struct blk *blk, struct request *request, enum disk_op op, uint64_t sector,
                   uint64_t length, const struct virtq_span *data)
{
    request->disk = (struct disk_request){.op = op,
                                          .durable = op != DISK_READ && is_durable(blk),
                                          .offset = sector * DISK_SECTOR,
                                          .length = length,
                                          .done = handle_done};
    if (data) {
        request->disk.iov = data->iov;
        request->disk.iov_count = data->count;
    }
    disk_submit(blk->disk, &request->disk);
}

/* Reads and writes: all of the data or nothing of it. */
static void transfer(struct blk *blk, struct request *request, enum disk_op op, uint64_t sector,
                     const struct virtq_span *data)
{
    bool forbidden = op == DISK_WRITE && virtio_offered(&blk->dev, 0) & BIT(VIRTIO_BLK_F_RO);
    if (forbidden || data->length % DISK_SECTOR ||
        !is_within(blk, sector, data->length / DISK_SECTOR))
        finish(request, VIRTIO_BLK_S_IOERR, 0);
    else if (data->length == 0)
        finish(request, VIRTIO_BLK_S_OK, 0);
    else
        submit(blk, request, op, sector, data->length, data);
}

static void give_id(const struct blk *blk, struct request *request, struct virtq_span *wr)
{
    size_t filled = span_put(wr, blk->id, sizeof(blk->id));
    finish(request, VIRTIO_BLK_S_OK, (uint32_t)filled);
}

static void start_range(struct request *request)
{
    struct blk *blk = blk_of(request->queue->dev);
    const struct virtio_blk_discard_write_zeroes *range = &request->ranges[request->range];

    submit(blk, request, request->disk.op, range->sector,
           (uint64_t)range->num_sectors * DISK_SECTOR, NULL);
}

/* 5.2.6.2, and 5.2.6.1's rules for drivers: the status that the ranges of a request deserve. */
static uint8_t check_ranges(const struct blk *blk, const struct request *request, bool zero)
{
    uint32_t known = zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
    uint32_t most = zero ? ZERO_SECTORS_MAX : DISCARD_SECTORS_MAX;

    for (unsigned i = 0; i < request->range_count; i++) {
        if (request->ranges[i].flags & ~known) /* "if any", so before all else */
            return VIRTIO_BLK_S_UNSUPP;
    }
    for (unsigned i = 0; i < request->range_count; i++) {
        const struct virtio_blk_discard_write_zeroes *range = &request->ranges[i];
        if (range->num_sectors == 0 || range->num_sectors > most ||
            !is_within(blk, range->sector, range->num_sectors))
            return VIRTIO_BLK_S_IOERR;
    }
    return VIRTIO_BLK_S_OK;
}

/* Discard or write zeroes: ranges one after the other, and none of them if one is wrong. */
static void clear(struct blk *blk, struct request *request, bool zero, struct virtq_span *rd)
{
    size_t size = sizeof(request->ranges[0]);
    uint8_t status = VIRTIO_BLK_S_IOERR;

    if (virtio_offered(&blk->dev, 0) & BIT(VIRTIO_BLK_F_RO))
        status = VIRTIO_BLK_S_IOERR;
    else if (!virtio_has(&blk->dev, zero ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD))
        status = VIRTIO_BLK_S_UNSUPP;
    else if (rd->length > 0 && rd->length % size == 0 && rd->length / size <= RANGES_MAX) {
        request->range_count = (unsigned)(rd->length / size);
        span_take(rd, request->ranges, rd->length);
        status = check_ranges(blk, request, zero);
    }
    if (status != VIRTIO_BLK_S_OK) {
        finish(request, status, 0);
        return;
    }
    /* One that forbids unmapping forbids it for all: keeping space is never wrong. */
    bool unmap = true;
    for (unsigned i = 0; i < request->range_count; i++)
        unmap &= request->ranges[i].flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
    request->disk.op = !zero ? DISK_DISCARD : unmap ? DISK_ZERO_UNMAP : DISK_ZERO;
    start_range(request);
}

static void handle_request(struct blk *blk, struct request *request)
{
    struct virtio_blk_outhdr header;
    struct virtq_span rd = request->chain.rd, wr = request->chain.wr;
    bool has_header = span_take(&rd, &header, sizeof(header));

    request->status = span_take_last(&wr);
    request->readable = (uint32_t)wr.length;
    request->range = request->range_count = 0;
    if (!request->status || !has_header) {
        finish(request, VIRTIO_BLK_S_IOERR, 0);
        return;
    }
    switch (header.type) {
    case VIRTIO_BLK_T_IN:
        transfer(blk, request, DISK_READ, header.sector, &wr);
        break;
    case VIRTIO_BLK_T_OUT:
        transfer(blk, request, DISK_WRITE, header.sector, &rd);
        break;
    case VIRTIO_BLK_T_FLUSH:
        submit(blk, request, DISK_FLUSH, 0, 0, NULL);
        break;
    case VIRTIO_BLK_T_GET_ID:
        give_id(blk, request, &wr);
        break;
    case VIRTIO_BLK_T_DISCARD:
    case VIRTIO_BLK_T_WRITE_ZEROES:
        clear(blk, request, header.type == VIRTIO_BLK_T_WRITE_ZEROES, &rd);
        break;
    default:
        finish(request, VIRTIO_BLK_S_UNSUPP, 0);
    }
}

static int serve(struct virtio_queue *queue)
{
    struct blk *blk = blk_of(queue->dev);
    struct pool *pool = &blk->pools[queue->index];
    int rc = 1;

    for (unsigned i = 0; i < BUDGET && rc == 1; i++) {
        struct request *request = get_request(pool);
        if (!request) {
            pool->starved = true;
            rc = -EAGAIN;
            break;
        }
        request->chain.iov = request->iov;
        request->chain.capacity = PIECES_MAX;
        request->queue = queue;
        rc = virtq_next(&queue->ring, &request->chain);
        if (rc == 1)
            handle_request(blk, request);
        else
            put_request(pool, request);
    }
    disk_kick(blk->disk);
    return rc;
}

/* ---- the device ---------------------------------------------------------------------------- */

/* 5.2.5: the driver switches the cache's mode. All else is not its to write. */
static void config_write(struct virtio_dev *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct blk *blk = blk_of(dev);
    if (offset == offsetof(struct virtio_blk_config, wce) && size == 1 &&
        virtio_has(dev, VIRTIO_BLK_F_CONFIG_WCE) && value <= 1)
        __atomic_store_n(&blk->config.wce, (uint8_t)value, __ATOMIC_RELAXED);
}

/* 5.2.5.2: without flushes there is no write-back mode that a driver could live with. */
static void negotiated(struct virtio_dev *dev)
{
    if (virtio_has(dev, VIRTIO_BLK_F_CONFIG_WCE) && !virtio_has(dev, VIRTIO_BLK_F_FLUSH))
        __atomic_store_n(&blk_of(dev)->config.wce, 0, __ATOMIC_RELAXED);
}

static void reset(struct virtio_dev *dev)
{
    struct blk *blk = blk_of(dev);
    __atomic_store_n(&blk->config.wce, !blk->writethrough, __ATOMIC_RELAXED);
}

static const struct virtio_type blk_type = {.name = "blk",
                                            .id = VIRTIO_ID_BLOCK,
                                            .serve = serve,
                                            .config_write = config_write,
                                            .negotiated = negotiated,
                                            .reset = reset};

static uint64_t features_of(const struct blk_config *config, const struct disk *disk)
{
    uint64_t features = BIT(VIRTIO_BLK_F_SEG_MAX) | BIT(VIRTIO_BLK_F_BLK_SIZE) |
                        BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_FLUSH) |
                        BIT(VIRTIO_BLK_F_CONFIG_WCE);
    if (config->queues > 1)
        features |= BIT(VIRTIO_BLK_F_MQ);
    if (config->readonly)
        return features | BIT(VIRTIO_BLK_F_RO);
    if (disk_discard_unit(disk))
        features |= BIT(VIRTIO_BLK_F_DISCARD);
    return features | BIT(VIRTIO_BLK_F_WRITE_ZEROES);
}

static void fill_config(struct blk *blk, const struct blk_config *config)
{
    unsigned block = disk_block_size(blk->disk);
    unsigned physical = block > PHYSICAL_BLOCK ? block : PHYSICAL_BLOCK;
    unsigned unit = disk_discard_unit(blk->disk);

    blk->config = (struct virtio_blk_config){
        .capacity = disk_size(blk->disk) / DISK_SECTOR,
        .seg_max = config->queue_size - 2 < SEG_MAX ? config->queue_size - 2 : SEG_MAX,
        .blk_size = block,
        .physical_block_exp = (uint8_t)__builtin_ctz(physical / block),
        .min_io_size = (uint16_t)(physical / block),
        .num_queues = (uint16_t)config->queues,
        .max_discard_sectors = DISCARD_SECTORS_MAX,
        .max_discard_seg = RANGES_MAX,
        .discard_sector_alignment = unit ? unit / DISK_SECTOR : 1,
        .max_write_zeroes_sectors = ZERO_SECTORS_MAX,
        .max_write_zeroes_seg = RANGES_MAX,
        .write_zeroes_may_unmap = unit != 0};
    if (config->serial)
        memcpy(blk->id, config->serial, strnlen(config->serial, sizeof(blk->id)));
    blk->writethrough = config->writethrough;
    blk->failed = config->failed;
    blk->failed_arg = config->arg;
    reset(&blk->dev);
}

int blk_create(const struct blk_config *config, struct disk *disk, const struct guest_mem *mem,
               struct event_loop *loop, struct blk **out, struct minivmm_error *err)
{
    assert(config->queues >= 1 && config->queues <= BLK_QUEUES_MAX);
    assert(config->queue_size >= BLK_QUEUE_SIZE_MIN && config->queue_size <= VIRTQ_SIZE_MAX);
    struct blk *blk = calloc(1, sizeof(*blk));
    int rc = blk ? 0 : -ENOMEM;

    if (rc == 0) {
        blk->disk = disk;
        rc = virtio_init(&blk->dev, &blk_type, mem, loop, features_of(config, disk), config->queues,
                         config->queue_size, &blk->config, sizeof(blk->config));
    }
    for (unsigned i = 0; rc == 0 && i < config->queues; i++) {
        struct pool *pool = &blk->pools[i];
        pool->size = config->queue_size < REQUESTS_MAX ? config->queue_size : REQUESTS_MAX;
        pool->requests = calloc(pool->size, sizeof(pool->requests[0]));
        rc = pool->requests ? 0 : -ENOMEM;
    }
    if (rc < 0) {
        blk_destroy(blk);
        return error_set(err, rc, "block device: %s", strerror(-rc));
    }
    fill_config(blk, config);
    *out = blk;
    return 0;
}

void blk_destroy(struct blk *blk)
{
    if (!blk)
        return;
    for (unsigned i = 0; i < BLK_QUEUES_MAX; i++)
        free(blk->pools[i].requests);
    virtio_finish(&blk->dev);
    free(blk);
}

struct virtio_dev *blk_device(struct blk *blk)
{
    return &blk->dev;
}
