/*
 * What was written is what is read: random requests against a model of the disk, through the rings
 * and the real backend, in every mode that a disk has.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"

SUITE(blk_data);

#define SECTORS     2048u
#define SECTORS_MAX 16u /* of a request */
#define ROOM        16384u
#define DEPTH_MAX   (unsigned)((RAM_HOLE - RAM_A) / ROOM)

/* A request under way. */
struct under_way {
    bool active;
    uint32_t type;
    unsigned sector, count;
    uint64_t gpa;
    uint8_t data[SECTORS_MAX * DISK_SECTOR]; /* of a write */
};

struct model {
    struct virtio_rig rig;
    struct blk_driver *d;
    uint8_t image[SECTORS * DISK_SECTOR]; /* what must be read */
    bool unknown[SECTORS];                /* discarded: anything may be read */
    bool busy[SECTORS];                   /* a request is there: others would have no order */
    struct under_way requests[BLK_DRIVER_CONTROLS];
    uint64_t room_taken[DEPTH_MAX];
    unsigned short random[3];
    unsigned done[16]; /* by type */
};

static struct model m;

static unsigned pick(unsigned below)
{
    return (unsigned)(nrand48(m.random) % below);
}

static uint32_t pick_type(void)
{
    static const uint32_t types[] = {
        VIRTIO_BLK_T_IN,    VIRTIO_BLK_T_IN,      VIRTIO_BLK_T_IN,
        VIRTIO_BLK_T_OUT,   VIRTIO_BLK_T_OUT,     VIRTIO_BLK_T_OUT,
        VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
    return types[pick(m.rig.config.disk.readonly ? 3 : COUNT(types))];
}

/* A range of sectors that nobody else is at; false when luck has it otherwise. */
static bool pick_range(struct under_way *r)
{
    r->count = r->type == VIRTIO_BLK_T_FLUSH ? 0 : 1 + pick(SECTORS_MAX);
    r->sector = pick(SECTORS - r->count + 1);
    for (unsigned i = 0; i < r->count; i++)
        if (m.busy[r->sector + i])
            return false;
    for (unsigned i = 0; i < r->count; i++)
        m.busy[r->sector + i] = true;
    return true;
}

/* The room of a request's data in guest memory, at any address, in up to three pieces. */
static unsigned place(const struct under_way *r, unsigned room, struct piece pieces[3])
{
    uint32_t length = r->count * DISK_SECTOR;
    bool write = r->type == VIRTIO_BLK_T_IN;
    unsigned count = 0;
    uint64_t gpa = RAM_A + room * ROOM + (pick(2) ? pick(4096) : 512 * pick(8));

    for (unsigned i = 0; i < 2 && length > 0; i++) {
        uint32_t part = pick(3) ? length / 512 / 2 * 512 : pick(length);
        if (part == 0)
            continue;
        pieces[count++] = (struct piece){gpa, part, write};
        gpa += part;
        length -= part;
    }
    if (length > 0)
        pieces[count++] = (struct piece){gpa, length, write};
    return count;
}

static bool submit(unsigned queue, unsigned room)
{
    struct under_way r = {.active = true, .type = pick_type()};
    struct piece pieces[3];

    if (!pick_range(&r))
        return false;
    unsigned count = place(&r, room, pieces);
    r.gpa = count ? pieces[0].gpa : 0;
    struct blk_request request = {r.type, r.sector, pieces, count};
    if (r.type == VIRTIO_BLK_T_OUT) {
        for (unsigned i = 0; i < r.count * DISK_SECTOR; i++)
            r.data[i] = (uint8_t)nrand48(m.random);
        fake_driver_write(&m.d->v.queues[queue], r.gpa, r.data, r.count * DISK_SECTOR);
    } else if (r.type == VIRTIO_BLK_T_DISCARD || r.type == VIRTIO_BLK_T_WRITE_ZEROES) {
        struct virtio_blk_discard_write_zeroes range = {r.sector, r.count, 0};
        if (r.type == VIRTIO_BLK_T_WRITE_ZEROES && pick(2))
            range.flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        pieces[0] = (struct piece){r.gpa, sizeof(range), false};
        request.data_count = 1;
        fake_driver_write(&m.d->v.queues[queue], r.gpa, &range, sizeof(range));
    }
    m.d->indirect = pick(2);
    m.d->piece = pick(4) == 0 ? 1024 + pick(4096) : 0;
    m.requests[blk_driver_send(m.d, queue, &request)] = r;
    return true;
}

static void check_read(const struct under_way *r)
{
    static uint8_t got[SECTORS_MAX * DISK_SECTOR];
    fake_driver_read(&m.d->v.queues[0], r->gpa, got, r->count * DISK_SECTOR);
    for (unsigned i = 0; i < r->count; i++) {
        const uint8_t *want = &m.image[(r->sector + i) * DISK_SECTOR];
        if (!m.unknown[r->sector + i])
            cr_assert_eq(memcmp(got + i * DISK_SECTOR, want, DISK_SECTOR), 0, "sector %u",
                         r->sector + i);
    }
    cr_assert_eq(m.d->used_length, r->count * DISK_SECTOR + 1);
}

static void complete(uint16_t number, uint8_t status)
{
    struct under_way *r = &m.requests[number];
    uint8_t *image = &m.image[r->sector * DISK_SECTOR];

    cr_assert(r->active);
    cr_assert_eq(status, VIRTIO_BLK_S_OK, "type %u: status %u", r->type, status);
    if (r->type == VIRTIO_BLK_T_IN)
        check_read(r);
    else if (r->type == VIRTIO_BLK_T_OUT)
        memcpy(image, r->data, r->count * DISK_SECTOR);
    else if (r->type == VIRTIO_BLK_T_WRITE_ZEROES)
        memset(image, 0, r->count * DISK_SECTOR);
    for (unsigned i = 0; i < r->count; i++) {
        m.busy[r->sector + i] = false;
        if (r->type != VIRTIO_BLK_T_IN)
            m.unknown[r->sector + i] = r->type == VIRTIO_BLK_T_DISCARD;
    }
    m.done[r->type]++;
    r->active = false;
}

/* `depth` requests on each queue at once, again and again. */
static void run(unsigned depth, unsigned rounds)
{
    unsigned queues = m.d->v.queue_count;

    for (unsigned round = 0; round < rounds; round++) {
        unsigned sent[VIRTIO_DRIVER_QUEUES] = {0};
        unsigned room = 0;
        for (unsigned q = 0; q < queues; q++) {
            for (unsigned i = 0; i < depth && room < DEPTH_MAX; i++, room++) {
                if (m.d->v.queues[q].free_count < 24)
                    break;
                sent[q] += submit(q, room);
                if (pick(3) == 0)
                    virtio_driver_kick(&m.d->v, q);
            }
            virtio_driver_kick(&m.d->v, q);
        }
        for (unsigned q = 0; q < queues; q++) {
            for (unsigned i = 0; i < sent[q]; i++) {
                uint16_t number;
                uint8_t status;
                cr_assert(blk_driver_wait(m.d, q, &number, &status), "lost: queue %u", q);
                complete(number, status);
            }
        }
    }
}

static void verify_image(bool untouched, const uint8_t *before)
{
    static uint8_t now[SECTORS * DISK_SECTOR];
    cr_assert_eq(pread(m.rig.image, now, sizeof(now), 0), (ssize_t)sizeof(now));
    if (untouched) {
        cr_expect_eq(memcmp(now, before, sizeof(now)), 0, "the image was written");
        return;
    }
    for (unsigned i = 0; i < SECTORS; i++) {
        if (!m.unknown[i])
            cr_assert_eq(memcmp(now + i * 512, m.image + i * 512, 512), 0, "sector %u", i);
    }
}

static void run_mode(const char *name, struct virtio_rig_config config, uint64_t features)
{
    static uint8_t before[SECTORS * DISK_SECTOR];
    struct minivmm_error err;

    memset(&m, 0, sizeof(m));
    m.random[0] = 1;
    if (!virtio_rig_init(&m.rig, &config, &err)) {
        cr_assert(config.disk.direct, "%s: %s", name, err.text);
        cr_skip_test("%s", name); /* a file system without O_DIRECT */
    }
    m.d = &m.rig.blk_driver;
    for (unsigned i = 0; i < sizeof(before); i++)
        before[i] = m.image[i] = (uint8_t)(i * 31 + i / 512);
    cr_assert_eq(pwrite(m.rig.image, before, sizeof(before), 0), (ssize_t)sizeof(before));
    for (unsigned depth = 1; depth <= DEPTH_MAX; depth = depth < 4 ? depth + 1 : depth * 2) {
        cr_assert(virtio_rig_start(&m.rig, features, 0), "%s", name);
        run(depth, depth < 16 ? 60 : 12);
        virtio_driver_reset(&m.d->v);
        if (!config.disk.direct && !config.disk.ephemeral)
            verify_image(config.disk.readonly, before);
    }
    cr_expect_gt(m.done[VIRTIO_BLK_T_IN], 100, "%s", name);
    m.d->indirect = false;
    m.d->piece = 0;
    if (config.disk.ephemeral)
        verify_image(true, before);
    cr_expect(virtio_rig_works(&m.rig), "%s", name);
    virtio_rig_finish(&m.rig);
}

#define MODE(name, features, ...)                                                                  \
    Test(blk_data, name)                                                                           \
    {                                                                                              \
        run_mode(#name, (struct virtio_rig_config){__VA_ARGS__}, features);                        \
    }

MODE(through_the_page_cache, UINT64_MAX, .blk = {0})
MODE(on_a_loop_of_its_own_thread, UINT64_MAX, .threaded = true)
MODE(without_event_indices_and_tables_of_its_own,
     FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC) |
         FEATURE(VIRTIO_BLK_F_DISCARD) | FEATURE(VIRTIO_BLK_F_WRITE_ZEROES),
     .threaded = true)
MODE(write_through, UINT64_MAX, .threaded = true, .blk = {.writethrough = true})
MODE(direct, UINT64_MAX, .threaded = true, .disk = {.direct = true})
MODE(direct_and_write_through, UINT64_MAX, .disk = {.direct = true}, .blk = {.writethrough = true})
MODE(ephemeral, UINT64_MAX, .threaded = true, .disk = {.ephemeral = true})
MODE(read_only, UINT64_MAX, .threaded = true, .disk = {.readonly = true})
MODE(four_queues, UINT64_MAX, .threaded = true, .blk = {.queues = 4, .queue_size = 64})
MODE(sixteen_direct_queues, UINT64_MAX, .disk = {.direct = true},
     .blk = {.queues = 16, .queue_size = 32})
