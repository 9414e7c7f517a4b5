/* Clearing ranges, read-only disks, the configuration space (C6, C7, C14, C17; S39-S42). */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"

SUITE(blk_features);

#define SECTORS 2048u /* the image's size */
#define BUF     RIG_FREE
#define FIELD(name)                                                                                \
    offsetof(struct virtio_blk_config, name), sizeof(((struct virtio_blk_config *)0)->name)
#define UNMAP   VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
#define OK      VIRTIO_BLK_S_OK
#define IOERR   VIRTIO_BLK_S_IOERR
#define UNSUPP  VIRTIO_BLK_S_UNSUPP
#define DISCARD VIRTIO_BLK_T_DISCARD
#define ZEROES  VIRTIO_BLK_T_WRITE_ZEROES

static struct virtio_rig rig;
static struct blk_driver *d;

static void begin(struct virtio_rig_config config)
{
    struct minivmm_error err;
    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    d = &rig.blk_driver;
    cr_assert(virtio_rig_start(&rig, UINT64_MAX, 0));
}

static void end(void)
{
    cr_expect(virtio_rig_works(&rig), "the canary");
    virtio_rig_finish(&rig);
}

static void set_image(uint8_t value)
{
    static uint8_t bytes[SECTORS * DISK_SECTOR];
    memset(bytes, value, sizeof(bytes));
    cr_assert_eq(pwrite(rig.image, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
}

/* Is the image `value` everywhere, but 0 in [from, from + count)? */
static bool image_is(uint8_t value, uint64_t from, uint64_t count)
{
    static uint8_t bytes[SECTORS * DISK_SECTOR];
    cr_assert_eq(pread(rig.image, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        uint64_t sector = i / DISK_SECTOR;
        if (bytes[i] != (sector >= from && sector - from < count ? 0 : value))
            return false;
    }
    return true;
}

Test(blk_features, C7_S41_ranges_to_discard_or_zero)
{
    static const struct {
        const char *name;
        struct virtio_blk_discard_write_zeroes ranges[3];
        unsigned count;
        uint8_t discard, zeroes; /* statuses */
        uint64_t from, sectors;  /* zeroed */
    } rows[] = {
        {"one", {{8, 8, 0}}, 1, OK, OK, 8, 8},
        {"unmapped", {{8, 8, UNMAP}}, 1, UNSUPP, OK, 8, 8},
        {"three", {{8, 8, 0}, {16, 1, 0}, {17, 7, 0}}, 3, OK, OK, 8, 16},
        {"one of three unmapped", {{8, 8, 0}, {16, 1, UNMAP}, {17, 7, 0}}, 3, UNSUPP, OK, 8, 16},
        {"all of it", {{0, SECTORS, 0}}, 1, OK, OK, 0, SECTORS},
        {"the last sector", {{SECTORS - 1, 1, 0}}, 1, OK, OK, SECTORS - 1, 1},
        {"the same twice", {{8, 8, 0}, {8, 8, 0}}, 2, OK, OK, 8, 8},
        {"C7 none", {{0}}, 0, IOERR, IOERR, 0, 0},
        {"C7 no sectors", {{8, 0, 0}}, 1, IOERR, IOERR, 0, 0},
        {"C7 past the end", {{SECTORS, 1, 0}}, 1, IOERR, IOERR, 0, 0},
        {"C7 across the end", {{SECTORS - 1, 2, 0}}, 1, IOERR, IOERR, 0, 0},
        {"C7 wraps", {{UINT64_MAX, 2, 0}}, 1, IOERR, IOERR, 0, 0},
        {"C7 bytes wrap", {{1ull << 55, 8, 0}}, 1, IOERR, IOERR, 0, 0},
        {"C7 all ones", {{UINT64_MAX, UINT32_MAX, 0}}, 1, IOERR, IOERR, 0, 0},
        {"C7 the second is bad", {{8, 8, 0}, {SECTORS, 8, 0}}, 2, IOERR, IOERR, 0, 0},
        {"S41 unknown flag", {{8, 8, 2}}, 1, UNSUPP, UNSUPP, 0, 0},
        {"S41 unknown flag besides", {{8, 8, UNMAP | 1u << 31}}, 1, UNSUPP, UNSUPP, 0, 0},
        {"S41 unknown flag later", {{8, 8, 0}, {16, 8, 4}}, 2, UNSUPP, UNSUPP, 0, 0},
        {"S41 unknown flag behind a bad range",
         {{SECTORS, 8, 0}, {16, 8, 4}},
         2,
         UNSUPP,
         UNSUPP,
         0,
         0},
        {"S41 unknown flag in a bad range", {{SECTORS, 8, 4}}, 1, UNSUPP, UNSUPP, 0, 0},
    };
    begin((struct virtio_rig_config){0});
    for (size_t i = 0; i < COUNT(rows); i++) {
        set_image(0x5a);
        uint8_t status = blk_driver_clear(d, ZEROES, rows[i].ranges, rows[i].count, BUF);
        cr_expect_eq(status, rows[i].zeroes, "%s: zeroes %u", rows[i].name, status);
        cr_expect(image_is(0x5a, rows[i].from, rows[i].sectors), "S42 %s", rows[i].name);
        set_image(0x5a);
        status = blk_driver_clear(d, DISCARD, rows[i].ranges, rows[i].count, BUF);
        cr_expect_eq(status, rows[i].discard, "%s: discard %u", rows[i].name, status);
        if (status != OK)
            cr_expect(image_is(0x5a, 0, 0), "%s", rows[i].name);
        cr_expect_eq(d->used_length, 1, "B23");
        cr_expect(virtio_rig_works(&rig), "%s: the canary", rows[i].name);
    }
    end();
}

static long long space(void)
{
    struct stat st;
    cr_assert(fsync(rig.image) == 0 && fstat(rig.image, &st) == 0);
    return st.st_blocks;
}

Test(blk_features, C7_space_goes_only_where_every_range_says_so)
{
    static const struct {
        const char *name;
        uint32_t flags[2];
        bool goes;
    } rows[] = {{"both", {UNMAP, UNMAP}, true},
                {"neither", {0, 0}, false},
                {"the first", {UNMAP, 0}, false},
                {"the second", {0, UNMAP}, false}};
    begin((struct virtio_rig_config){0});
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct virtio_blk_discard_write_zeroes ranges[2] = {{0, 512, rows[i].flags[0]},
                                                                  {1024, 512, rows[i].flags[1]}};
        set_image(0x5a);
        long long before = space();
        cr_expect_eq(blk_driver_clear(d, ZEROES, ranges, 2, BUF), OK);
        bool gone = space() < before;
        if (rows[i].goes && !gone)
            cr_skip_test("this file system gives no space back");
        cr_expect_eq(gone, rows[i].goes, "%s", rows[i].name);
    }
    end();
}

Test(blk_features, C7_lengths_that_are_no_ranges)
{
    static const uint32_t lengths[] = {1, 15, 17, 31, 33, 16 * 17, 16 * 64, 4096};
    static const uint32_t types[] = {DISCARD, ZEROES};
    begin((struct virtio_rig_config){0});
    set_image(0x5a);
    struct virtio_blk_discard_write_zeroes *ranges = virtio_rig_at(&rig, BUF, 4096);
    for (unsigned i = 0; i < 256; i++)
        ranges[i] = (struct virtio_blk_discard_write_zeroes){i, 1, 0};
    for (size_t i = 0; i < COUNT(lengths) * 2; i++) {
        const struct piece data = {BUF, lengths[i / 2], false};
        const struct blk_request request = {types[i % 2], 0, &data, 1};
        cr_expect_eq(blk_driver_do(d, &request), IOERR, "%u bytes", data.len);
        cr_expect(image_is(0x5a, 0, 0), "%u bytes", data.len);
    }
    cr_expect_eq(blk_driver_clear(d, ZEROES, ranges, 16, BUF), OK, "as many as allowed");
    cr_expect(image_is(0x5a, 0, 16));
    end();
}

Test(blk_features, C7_more_sectors_than_allowed)
{
    begin((struct virtio_rig_config){.disk_bytes = 4ull << 30});
    uint32_t discard = (uint32_t)virtio_driver_config(&d->v, FIELD(max_discard_sectors));
    uint32_t zero = (uint32_t)virtio_driver_config(&d->v, FIELD(max_write_zeroes_sectors));
    cr_expect(discard > 0 && discard < 8u << 20 && zero > 0 && zero < 8u << 20);
    const struct {
        uint32_t type, sectors;
        uint8_t status;
    } rows[] = {{DISCARD, discard, OK},       {DISCARD, discard + 1, IOERR},
                {ZEROES, zero, OK},           {ZEROES, zero + 1, IOERR},
                {DISCARD, UINT32_MAX, IOERR}, {ZEROES, UINT32_MAX, IOERR}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct virtio_blk_discard_write_zeroes range = {0, rows[i].sectors, 0};
        cr_expect_eq(blk_driver_clear(d, rows[i].type, &range, 1, BUF), rows[i].status, "row %zu",
                     i);
    }
    end();
}

Test(blk_features, C5_clearing_that_was_not_negotiated)
{
    static const uint32_t types[] = {DISCARD, ZEROES};
    const struct virtio_blk_discard_write_zeroes range = {0, 8, 0};
    begin((struct virtio_rig_config){0});
    set_image(0x5a);
    for (unsigned i = 0; i < 2; i++) {
        unsigned bit = i ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD;
        cr_assert(virtio_driver_start(&d->v, ~FEATURE(bit), 0));
        cr_expect_eq(blk_driver_clear(d, types[i], &range, 1, BUF), UNSUPP);
        cr_expect(image_is(0x5a, 0, 0));
    }
    end();
}

Test(blk_features, C6_S40_a_read_only_disk_is_not_written)
{
    const struct virtio_blk_discard_write_zeroes range = {0, 8, 0};
    begin((struct virtio_rig_config){.disk = {.readonly = true}});
    set_image(0x5a);
    for (unsigned declined = 0; declined < 2; declined++) {
        uint64_t features = declined ? ~FEATURE(VIRTIO_BLK_F_RO) : UINT64_MAX;
        cr_assert(virtio_driver_start(&d->v, features, 0));
        cr_expect(virtio_driver_offered(&d->v) & FEATURE(VIRTIO_BLK_F_RO));
        cr_expect_eq(blk_driver_write(d, 0, BUF, 512), IOERR);
        cr_expect_eq(blk_driver_clear(d, DISCARD, &range, 1, BUF), IOERR);
        cr_expect_eq(blk_driver_clear(d, ZEROES, &range, 1, BUF), IOERR);
        cr_expect_eq(blk_driver_flush(d), OK);
        cr_expect_eq(blk_driver_read(d, 0, BUF, 512), OK);
        cr_expect(image_is(0x5a, 0, 0));
    }
    end();
}

Test(blk_features, S39_no_write_back_mode_without_flushes)
{
    const uint64_t wce = FEATURE(VIRTIO_BLK_F_CONFIG_WCE), flush = FEATURE(VIRTIO_BLK_F_FLUSH);
    static const struct {
        bool flush;
        uint64_t mode;
    } rows[] = {{true, 1}, {false, 0}, {true, 1}};

    begin((struct virtio_rig_config){0});
    for (size_t i = 0; i < COUNT(rows); i++) {
        cr_assert(virtio_driver_negotiate(&d->v, FEATURE(VIRTIO_F_VERSION_1) | wce |
                                                     (rows[i].flush ? flush : 0)));
        /* read before DRIVER_OK, as drivers do */
        cr_expect_eq(virtio_driver_config(&d->v, FIELD(wce)), rows[i].mode, "row %zu", i);
    }
    end();
}

Test(blk_features, S39_the_configuration_space)
{
    begin((struct virtio_rig_config){.blk = {.queues = 3, .queue_size = 64}});
    static const struct {
        const char *name;
        unsigned offset, size;
        uint64_t want;
    } rows[] = {
        {"capacity", FIELD(capacity), SECTORS},
        {"seg_max", FIELD(seg_max), 62},
        {"size_max", FIELD(size_max), 0},
        {"geometry", FIELD(geometry.cylinders), 0},
        {"blk_size", FIELD(blk_size), 512},
        {"physical_block_exp", FIELD(physical_block_exp), 3},
        {"alignment_offset", FIELD(alignment_offset), 0},
        {"min_io_size", FIELD(min_io_size), 8},
        {"wce", FIELD(wce), 1},
        {"unused", FIELD(unused), 0},
        {"num_queues", FIELD(num_queues), 3},
        {"max_discard_seg", FIELD(max_discard_seg), 16},
        {"max_write_zeroes_seg", FIELD(max_write_zeroes_seg), 16},
        {"unused1", offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 1, 1, 0},
        {"unused1", offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 2, 2, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        cr_expect_eq(virtio_driver_config(&d->v, rows[i].offset, rows[i].size), rows[i].want, "%s",
                     rows[i].name);
    cr_expect_eq(d->v.queue_count, 3);
    end();
}

Test(blk_features, C14_only_the_cache_mode_can_be_written)
{
    begin((struct virtio_rig_config){0});
    const unsigned wce = offsetof(struct virtio_blk_config, wce);
    for (unsigned at = 0; at < sizeof(struct virtio_blk_config); at++) {
        for (unsigned size = 1; size <= 4; size *= 2) {
            uint64_t before[2] = {virtio_driver_config(&d->v, 0, 8),
                                  virtio_driver_config(&d->v, 8, 8)};
            if (at == wce && size == 1)
                continue;
            virtio_driver_set_config(&d->v, at, size, 0);
            cr_expect_eq(virtio_driver_config(&d->v, 0, 8), before[0]);
            cr_expect_eq(virtio_driver_config(&d->v, 8, 8), before[1]);
            cr_expect_eq(virtio_driver_config(&d->v, wce, 1), 1, "%u bytes at %u", size, at);
        }
    }
    const struct {
        uint8_t write, read;
    } steps[] = {{0, 0}, {1, 1}, {2, 1}, {0, 0}, {255, 0}, {1, 1}, {0, 0}};
    for (size_t i = 0; i < COUNT(steps); i++) {
        virtio_driver_set_config(&d->v, wce, 1, steps[i].write);
        cr_expect_eq(virtio_driver_config(&d->v, wce, 1), steps[i].read, "step %zu", i);
    }
    /* Without CONFIG_WCE it is not the driver's, and a reset forgets what it was. */
    cr_assert(virtio_driver_start(&d->v, ~FEATURE(VIRTIO_BLK_F_CONFIG_WCE), 0));
    cr_expect_eq(virtio_driver_config(&d->v, wce, 1), 1);
    virtio_driver_set_config(&d->v, wce, 1, 0);
    cr_expect_eq(virtio_driver_config(&d->v, wce, 1), 1);
    end();
}

Test(blk_features, C17_one_queue_where_one_is_configured)
{
    begin((struct virtio_rig_config){0});
    cr_expect_not(virtio_driver_offered(&d->v) & FEATURE(VIRTIO_BLK_F_MQ));
    cr_expect_eq(virtio_driver_config(&d->v, FIELD(num_queues)), 1);
    cr_expect_eq(d->v.queue_count, 1);
    virtio_driver_notify(&d->v, 1);
    virtio_driver_settle(&d->v);
    cr_expect_eq(virtio_driver_read(&d->v, VIRTIO_MMIO_STATUS), STATUS_DRIVER_OK);
    end();
}
