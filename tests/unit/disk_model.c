#include "tests/unit/disk_model.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEPTH_MAX  64u
#define PIECES_MAX 3000u
#define CANARY     0xc5

struct slot {
    struct rig_request request;
    bool busy;
    uint64_t offset, length;
    enum disk_op op;
    struct iovec iov[PIECES_MAX];  /* the disk's to change */
    struct iovec kept[PIECES_MAX]; /* the same for us */
    unsigned count;
    uint8_t *memory;
    size_t memory_size;
};

struct model {
    const struct model_config *config;
    struct disk_rig *rig;
    uint64_t size;
    uint8_t *data;
    bool *undefined; /* of each sector: it was discarded */
    struct slot slots[DEPTH_MAX];
    unsigned seed;
};

static unsigned pick(struct model *model, unsigned below)
{
    return (unsigned)rand_r(&model->seed) % below;
}

/* Do not ask for an order that nobody promises: what overlaps is not under way together. */
static bool is_free(const struct model *model, uint64_t offset, uint64_t length, bool change)
{
    for (unsigned i = 0; i < DEPTH_MAX; i++) {
        const struct slot *slot = &model->slots[i];
        if (slot->busy && (change || slot->op != DISK_READ) &&
            offset < slot->offset + slot->length && slot->offset < offset + length)
            return false;
    }
    return true;
}

/* Cut `length` bytes into pieces of all sizes with gaps between them, from a random address on. */
static void cut_memory(struct model *model, struct slot *slot)
{
    static const unsigned starts[] = {0, 512, 1, 4096 - 1, 4, 2048};
    const unsigned kind = pick(model, 6); /* 0 and 1: as drivers do it */
    slot->memory_size = slot->length + PIECES_MAX * 8 + 3 * 4096;
    if (posix_memalign((void **)&slot->memory, 4096, slot->memory_size) != 0)
        abort();
    memset(slot->memory, CANARY, slot->memory_size);
    uint8_t *at = slot->memory + (kind < 2 ? 0 : starts[pick(model, COUNT(starts))]);
    uint64_t left = slot->length;
    slot->count = 0;
    while (left > 0) {
        uint64_t n = left;
        if (kind == 1)
            n = 512 * (1 + pick(model, 4));
        else if (kind > 2 && slot->count + 1 < PIECES_MAX)
            n = kind == 3 ? pick(model, 5000) : kind == 4 ? pick(model, 3) : pick(model, 600);
        if (n > left || slot->count + 1 == PIECES_MAX)
            n = left;
        slot->kept[slot->count++] = (struct iovec){at, n};
        at += n + (kind > 2 ? pick(model, 8) : 0);
        left -= n;
    }
    memcpy(slot->iov, slot->kept, sizeof(slot->kept[0]) * slot->count);
}

/* False: there is hardly any room beside what is under way. */
static bool choose_range(struct model *model, struct slot *slot)
{
    unsigned unit = model->config->unit ? model->config->unit : DISK_SECTOR;
    if (model->config->often && pick(model, 2))
        unit = model->config->often;
    const unsigned units = (unsigned)(model->size / unit);
    for (unsigned tries = 0; tries < 50; tries++) {
        unsigned first = pick(model, units);
        unsigned count = 1 + pick(model, pick(model, 8) ? 20 : 1300);
        slot->offset = (uint64_t)first * unit;
        slot->length = (uint64_t)(count < units - first ? count : units - first) * unit;
        if (is_free(model, slot->offset, slot->length, slot->op != DISK_READ))
            return true;
    }
    return false;
}

static bool begin(struct model *model, struct slot *slot)
{
    static const enum disk_op ops[] = {DISK_READ,  DISK_READ,    DISK_READ,  DISK_READ,
                                       DISK_WRITE, DISK_WRITE,   DISK_WRITE, DISK_WRITE,
                                       DISK_FLUSH, DISK_DISCARD, DISK_ZERO,  DISK_ZERO_UNMAP};
    slot->op = ops[pick(model, COUNT(ops))];
    if (slot->op != DISK_FLUSH && !choose_range(model, slot))
        return false;
    slot->count = 0;
    slot->memory = NULL;
    bool transfer = slot->op == DISK_READ || slot->op == DISK_WRITE;
    if (slot->op == DISK_FLUSH)
        slot->offset = slot->length = 0;
    if (transfer)
        cut_memory(model, slot);
    for (unsigned i = 0; slot->op == DISK_WRITE && i < slot->count; i++)
        for (size_t j = 0; j < slot->kept[i].iov_len; j++)
            ((uint8_t *)slot->kept[i].iov_base)[j] = (uint8_t)pick(model, 256);
    slot->busy = true;
    slot->request.request = (struct disk_request){.op = slot->op,
                                                  .durable = model->config->durable,
                                                  .offset = slot->offset,
                                                  .length = slot->length,
                                                  .iov = transfer ? slot->iov : NULL,
                                                  .iov_count = slot->count};
    rig_submit(model->rig, &slot->request);
    return true;
}

/* Take the pieces' bytes away and leave the canary, which is all that must remain. */
static void take(struct slot *slot, uint8_t *out)
{
    for (unsigned i = 0; i < slot->count; i++) {
        if (slot->kept[i].iov_len == 0)
            continue;
        memcpy(out, slot->kept[i].iov_base, slot->kept[i].iov_len);
        memset(slot->kept[i].iov_base, CANARY, slot->kept[i].iov_len);
        out += slot->kept[i].iov_len;
    }
    for (size_t i = 0; i < slot->memory_size; i++)
        cr_assert_eq(slot->memory[i], CANARY, "byte %zu beside the request's memory", i);
}

static void expect_data(struct model *model, const uint8_t *got, uint64_t offset, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++) {
        uint64_t at = offset + i;
        if (!model->undefined[at / DISK_SECTOR])
            cr_assert_eq(got[i], model->data[at], "%s: offset %llu of [%llu,+%llu): %u, not %u",
                         model->config->name, (unsigned long long)at, (unsigned long long)offset,
                         (unsigned long long)length, got[i], model->data[at]);
    }
}

static void end(struct model *model, struct slot *slot)
{
    cr_assert_eq(slot->request.ended, 1);
    cr_assert_eq(slot->request.result, 0, "%s: op %d: %s", model->config->name, slot->op,
                 strerror(-slot->request.result));
    uint8_t *data = malloc(slot->length + 1);
    if (slot->count)
        take(slot, data);
    if (slot->op == DISK_READ)
        expect_data(model, data, slot->offset, slot->length);
    if (slot->op == DISK_WRITE)
        memcpy(model->data + slot->offset, data, slot->length);
    if (slot->op == DISK_ZERO || slot->op == DISK_ZERO_UNMAP)
        memset(model->data + slot->offset, 0, slot->length);
    if (slot->op != DISK_READ && slot->op != DISK_FLUSH)
        for (uint64_t i = 0; i < slot->length / DISK_SECTOR; i++)
            model->undefined[slot->offset / DISK_SECTOR + i] = slot->op == DISK_DISCARD;
    free(data);
    free(slot->memory);
    slot->busy = false;
}

static void read_all(struct model *model, uint8_t *data)
{
    const uint64_t chunk = 256 * DISK_SECTOR;
    for (uint64_t at = 0; at < model->size; at += chunk)
        cr_assert_eq(rig_do(model->rig, DISK_READ, at, data + at,
                            model->size - at < chunk ? model->size - at : chunk),
                     0);
}

static void requests(struct model *model)
{
    unsigned depth = 1;
    for (unsigned started = 0; started < model->config->rounds;) {
        depth = pick(model, 20) ? depth : 1 + pick(model, DEPTH_MAX);
        for (unsigned i = 0; i < depth; i++) {
            if (!model->slots[i].busy)
                started += begin(model, &model->slots[i]);
        }
        rig_wait(model->rig, model->rig->under_way ? pick(model, model->rig->under_way) : 0);
        for (unsigned i = 0; i < DEPTH_MAX; i++)
            if (model->slots[i].busy && model->slots[i].request.ended)
                end(model, &model->slots[i]);
    }
    rig_wait(model->rig, 0);
    for (unsigned i = 0; i < DEPTH_MAX; i++)
        if (model->slots[i].busy)
            end(model, &model->slots[i]);
}

void model_run(struct disk_rig *rig, const struct model_config *config)
{
    struct model *model = calloc(1, sizeof(*model));
    *model = (struct model){.config = config, .rig = rig, .seed = config->seed};
    rig_open(rig, config->disk);
    model->size = config->size ? config->size : disk_size(rig->disk);
    model->data = malloc(model->size);
    model->undefined = calloc(model->size / DISK_SECTOR, sizeof(bool));
    uint8_t *data = malloc(model->size);
    read_all(model, model->data);
    requests(model);
    read_all(model, data);
    expect_data(model, data, 0, model->size);
    rig_close(rig);
    if (!config->disk.ephemeral) {
        struct disk_config plain = {.path = config->disk.path, .readonly = true};
        rig_open(rig, plain);
        read_all(model, data);
        expect_data(model, data, 0, model->size);
        rig_close(rig);
    }
    free(data);
    free(model->data);
    free(model->undefined);
    free(model);
}
