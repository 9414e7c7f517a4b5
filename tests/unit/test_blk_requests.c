/* Requests of a block device, good and bad (C1-C11, C13, C14, C17; S39-S42). */
#include <string.h>
#include <unistd.h>

#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"

SUITE(blk_requests);

#define SECTORS    2048u /* the image's size */
#define BUF        RIG_FREE
#define OTHER      (RIG_FREE + 0x40000)
#define FILL       0xa5
#define IN         VIRTIO_BLK_T_IN
#define OUT        VIRTIO_BLK_T_OUT
#define FLUSH      VIRTIO_BLK_T_FLUSH
#define ID         VIRTIO_BLK_T_GET_ID
#define DISCARD    VIRTIO_BLK_T_DISCARD
#define ZEROES     VIRTIO_BLK_T_WRITE_ZEROES
#define OK         VIRTIO_BLK_S_OK
#define IOERR      VIRTIO_BLK_S_IOERR
#define UNSUPP     VIRTIO_BLK_S_UNSUPP
#define NONE       BLK_DRIVER_NONE /* no status was written */
#define UNMAP_FLAG VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP

static struct virtio_rig rig;
static struct blk_driver *d;

static void begin_with(struct virtio_rig_config config)
{
    struct minivmm_error err;
    config.blk.serial = config.blk.serial ? config.blk.serial : "serial-0123456789ab";
    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    d = &rig.blk_driver;
    cr_assert(virtio_rig_start(&rig, UINT64_MAX, 0));
}

static void begin(void)
{
    begin_with((struct virtio_rig_config){0});
}

static void end(void)
{
    cr_expect(virtio_rig_works(&rig), "the canary");
    virtio_rig_finish(&rig);
}

/* Fill the image with bytes that say where they are, none of them 0. */
static uint8_t pattern(uint64_t at)
{
    return (uint8_t)(1 + (at * 7 + at / DISK_SECTOR) % 251);
}

static void fill_image(void)
{
    static uint8_t bytes[SECTORS * DISK_SECTOR];
    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = pattern(i);
    cr_assert_eq(pwrite(rig.image, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
}

/* Do sectors of the image hold the pattern, but for [from, from + count), which is `value`? */
static bool image_is(unsigned from, unsigned count, int value)
{
    static uint8_t bytes[SECTORS * DISK_SECTOR];
    cr_assert_eq(pread(rig.image, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
    for (unsigned i = 0; i < sizeof(bytes); i++) {
        bool changed = i / DISK_SECTOR >= from && i / DISK_SECTOR < from + count;
        if (bytes[i] != (changed ? value : pattern(i)))
            return false;
    }
    return true;
}

static bool memory_is(uint64_t gpa, size_t size, uint8_t value)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t byte;
        fake_driver_read(&d->v.queues[0], gpa + i, &byte, 1);
        if (byte != value)
            return false;
    }
    return true;
}

static void set_memory(uint64_t gpa, size_t size, uint8_t value)
{
    for (size_t i = 0; i < size; i++)
        fake_driver_write(&d->v.queues[0], gpa + i, &value, 1);
}

/* ---- whole requests ------------------------------------------------------------------------ */

/* One piece of data, all of it FILL before; B23: what the device says it has written. */
struct row {
    const char *name;
    uint32_t type;
    uint64_t sector;
    uint32_t length;
    bool write; /* by the device */
    uint8_t status;
    uint32_t used;
    bool moved; /* data was moved */
};

static void run_rows(const struct row *rows, size_t count)
{
    begin();
    fill_image();
    for (size_t i = 0; i < count; i++) {
        const struct row *row = &rows[i];
        const struct piece data = {BUF, row->length, row->write};
        const struct blk_request request = {row->type, row->sector, &data, 1};
        set_memory(BUF - 64, row->length + 128, FILL);
        uint8_t status = blk_driver_do(d, &request);
        cr_expect_eq(status, row->status, "%s: status %u", row->name, status);
        cr_expect_eq(d->used_length, row->used, "B23 %s: used %u", row->name, d->used_length);
        if (!row->moved)
            cr_expect(memory_is(BUF, row->length, FILL), "C10 %s: memory", row->name);
        cr_expect(memory_is(BUF - 64, 64, FILL) && memory_is(BUF + row->length, 64, FILL),
                  "%s: memory around it", row->name);
        if (row->moved && row->type == OUT)
            cr_expect(image_is((unsigned)row->sector, row->length / 512, FILL), "%s", row->name);
        else
            cr_expect(image_is(0, 0, 0), "%s: the image", row->name);
        fill_image();
        cr_expect(virtio_rig_works(&rig), "%s: the canary", row->name);
    }
    end();
}

Test(blk_requests, C1_C2_C11_reads_and_writes)
{
    static const struct row rows[] = {
        {"one sector", IN, 0, 512, true, OK, 513, true},
        {"the last sector", IN, SECTORS - 1, 512, true, OK, 513, true},
        {"many sectors", IN, 3, 64 * 512, true, OK, 64 * 512 + 1, true},
        {"write one sector", OUT, 0, 512, false, OK, 1, true},
        {"write the last sector", OUT, SECTORS - 1, 512, false, OK, 1, true},
        {"write many", OUT, 3, 64 * 512, false, OK, 1, true},
        {"C1 capacity", IN, SECTORS, 512, true, IOERR, 0, false},
        {"C1 capacity - 1, two sectors", IN, SECTORS - 1, 1024, true, IOERR, 0, false},
        {"C1 2^54", IN, 1ull << 54, 512, true, IOERR, 0, false},
        {"C1 2^55", IN, 1ull << 55, 512, true, IOERR, 0, false},
        {"C1 2^55 + 1", IN, (1ull << 55) + 1, 512, true, IOERR, 0, false},
        {"C1 2^64 - 1", IN, UINT64_MAX, 512, true, IOERR, 0, false},
        {"C1 2^64 - 1, two sectors", IN, UINT64_MAX, 1024, true, IOERR, 0, false},
        {"C1 write at capacity", OUT, SECTORS, 512, false, IOERR, 1, false},
        {"C1 write across the end", OUT, SECTORS - 1, 1024, false, IOERR, 1, false},
        {"C1 write at 2^55", OUT, 1ull << 55, 512, false, IOERR, 1, false},
        {"C1 write at 2^64 - 1", OUT, UINT64_MAX, 512, false, IOERR, 1, false},
        {"C2 one byte", IN, 0, 1, true, IOERR, 0, false},
        {"C2 511 bytes", IN, 0, 511, true, IOERR, 0, false},
        {"C2 513 bytes", IN, 0, 513, true, IOERR, 0, false},
        {"C2 no bytes", IN, 0, 0, true, OK, 1, false},
        {"C2 no bytes at the end", IN, SECTORS, 0, true, OK, 1, false},
        {"C2 no bytes beyond the end", IN, SECTORS + 1, 0, true, IOERR, 1, false},
        {"C2 write 511 bytes", OUT, 0, 511, false, IOERR, 1, false},
        {"C2 write 513 bytes", OUT, 0, 513, false, IOERR, 1, false},
        {"C2 write no bytes", OUT, 0, 0, false, OK, 1, false},
        {"B12 a read's data is not writable", IN, 0, 512, false, OK, 1, false},
        {"B12 a write's data is writable", OUT, 0, 512, true, OK, 0, false},
    };
    run_rows(rows, COUNT(rows));
}

Test(blk_requests, C5_C9_other_types)
{
    static const struct row rows[] = {
        {"C9 flush", FLUSH, 0, 0, false, OK, 1, false},
        {"C9 flush at a sector", FLUSH, UINT64_MAX, 0, false, OK, 1, false},
        {"C9 flush with data", FLUSH, 0, 512, false, OK, 1, false},
        {"C9 flush with room for data", FLUSH, 0, 512, true, OK, 0, false},
        {"C5 SCSI command", 2, 0, 512, true, UNSUPP, 0, false},
        {"C5 SCSI command out", 3, 0, 512, false, UNSUPP, 1, false},
        {"C5 old flush out", 5, 0, 0, false, UNSUPP, 1, false},
        {"C5 7", 7, 0, 0, false, UNSUPP, 1, false},
        {"C5 get lifetime", 10, 0, 512, true, UNSUPP, 0, false},
        {"C5 12", 12, 0, 512, true, UNSUPP, 0, false},
        {"C5 secure erase", 14, 0, 16, false, UNSUPP, 1, false},
        {"S44 zone append", 15, 0, 512, false, UNSUPP, 1, false},
        {"S44 zone report", 16, 0, 512, true, UNSUPP, 0, false},
        {"S44 zone open", 18, 0, 0, false, UNSUPP, 1, false},
        {"S44 zone reset all", 26, 0, 0, false, UNSUPP, 1, false},
        {"C5 read with a high bit", IN | 1u << 31, 0, 512, true, UNSUPP, 0, false},
        {"C5 write with a high bit", OUT | 1u << 31, 0, 512, false, UNSUPP, 1, false},
        {"C5 write with bit 8", OUT | 256, 0, 512, false, UNSUPP, 1, false},
        {"C5 all ones", UINT32_MAX, 0, 512, false, UNSUPP, 1, false},
    };
    run_rows(rows, COUNT(rows));
}

Test(blk_requests, C8_the_serial_number)
{
    static const uint32_t lengths[] = {0, 1, 19, 20, 21, 512, 4096};
    static const char *serials[] = {"", "x", "0123456789abcdefghi", "0123456789abcdefghij"};
    for (size_t s = 0; s < COUNT(serials); s++) {
        begin_with((struct virtio_rig_config){.blk = {.serial = serials[s]}});
        for (size_t i = 0; i < COUNT(lengths); i++) {
            uint32_t length = lengths[i], given = length < 20 ? length : 20;
            char want[20] = {0};
            memcpy(want, serials[s], strlen(serials[s]));
            set_memory(BUF, 5000, FILL);
            cr_expect_eq(blk_driver_get_id(d, BUF, length), OK);
            cr_expect_eq(d->used_length, given == length ? given + 1 : given, "B23 %u", length);
            cr_expect_eq(memcmp(virtio_rig_at(&rig, BUF, 20), want, given), 0, "%u bytes", length);
            cr_expect(memory_is(BUF + given, 5000 - given, FILL), "%u bytes: no more", length);
        }
        const struct piece read_only = {BUF, 20, false};
        const struct blk_request request = {ID, 0, &read_only, 1};
        set_memory(BUF, 20, FILL);
        cr_expect_eq(blk_driver_do(d, &request), OK);
        cr_expect(memory_is(BUF, 20, FILL), "not writable");
        end();
    }
}

/* ---- shapes of chains ---------------------------------------------------------------------- */

/* Pieces as they are, a header at BUF of `header` bytes; the status byte is looked for at OTHER. */
Test(blk_requests, C3_C4_headers_and_status_bytes)
{
    static const struct {
        const char *name;
        struct piece pieces[5];
        unsigned count;
        uint8_t status; /* the byte at OTHER */
        uint8_t last;   /* the byte at OTHER + 15 */
        uint32_t used;
    } rows[] = {
        {"whole", {{BUF, 16, false}, {BUF + 512, 512, true}, {OTHER, 1, true}}, 3, OK, FILL, 513},
        {"C3 no header", {{OTHER, 1, true}}, 1, IOERR, FILL, 1},
        {"C3 one byte", {{BUF, 1, false}, {OTHER, 1, true}}, 2, IOERR, FILL, 1},
        {"C3 15 bytes", {{BUF, 15, false}, {OTHER, 1, true}}, 2, IOERR, FILL, 1},
        {"C3 15 bytes and room",
         {{BUF, 15, false}, {BUF + 512, 512, true}, {OTHER, 1, true}},
         3,
         IOERR,
         FILL,
         0},
        {"C3 split",
         {{BUF, 3, false},
          {BUF + 3, 12, false},
          {BUF + 15, 1, false},
          {BUF + 512, 512, true},
          {OTHER, 1, true}},
         5,
         OK,
         FILL,
         513},
        {"C3 oversized: of a read it means nothing",
         {{BUF, 64, false}, {BUF + 512, 512, true}, {OTHER, 1, true}},
         3,
         OK,
         FILL,
         513},
        {"C3 writable: there is none",
         {{BUF, 16, true}, {BUF + 512, 512, true}, {OTHER, 1, true}},
         3,
         IOERR,
         FILL,
         0},
        {"C4 missing", {{BUF, 16, false}}, 1, FILL, FILL, 0},
        {"C4 read-only", {{BUF, 16, false}, {OTHER, 1, false}}, 2, FILL, FILL, 0},
        {"C4 of no bytes", {{BUF, 16, false}, {OTHER, 0, true}}, 2, FILL, FILL, 0},
        {"C4 in the data's last byte",
         {{BUF, 16, false}, {BUF + 512, 512, true}, {OTHER, 0, true}},
         3,
         FILL,
         FILL,
         0},
        {"C4 of 16 bytes: the last one", {{BUF, 16, false}, {OTHER, 16, true}}, 2, FILL, IOERR, 0},
        {"C4 with the data", {{BUF, 16, false}, {OTHER + 15 - 512, 513, true}}, 2, 0, OK, 513},
    };
    begin();
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct virtio_blk_outhdr header = {.type = IN, .sector = 0};
        struct vring_used_elem element;
        set_memory(OTHER - 0x1000, 0x2000, FILL);
        set_memory(BUF, 0x1000, FILL);
        fake_driver_write(&d->v.queues[0], BUF, &header, sizeof(header));
        cr_assert(virtio_driver_transact(&d->v, 0, rows[i].pieces, rows[i].count, &element), "%s",
                  rows[i].name);
        const uint8_t *at = virtio_rig_at(&rig, OTHER, 16);
        cr_expect_eq(at[0], rows[i].status, "%s: %u", rows[i].name, at[0]);
        cr_expect_eq(at[15], rows[i].last, "%s: %u", rows[i].name, at[15]);
        cr_expect_eq(element.len, rows[i].used, "B23 %s: %u", rows[i].name, element.len);
        cr_expect(memory_is(OTHER + 16, 0xf00, FILL), "%s", rows[i].name);
        cr_expect(virtio_rig_works(&rig), "%s: the canary", rows[i].name);
    }
    end();
}

Test(blk_requests, S11_what_is_for_reading_is_not_written)
{
    begin();
    fill_image();
    uint8_t table[16 * BLK_QUEUE_SIZE];
    set_memory(BUF, 4096, FILL);
    cr_expect_eq(blk_driver_write(d, 8, BUF, 4096), OK);
    cr_expect(memory_is(BUF, 4096, FILL));
    fake_driver_read(&d->v.queues[0], d->v.queues[0].config.desc, table, sizeof(table));
    cr_expect_eq(memcmp(table, d->v.queues[0].table, sizeof(table)), 0, "nor a descriptor");
    end();
}

/*
 * S10: every type of request with its parts cut into descriptors of 1 to 17 bytes and more, direct
 * or in a table, with the data across the border of two regions of memory.
 */
Test(blk_requests, S10_any_arrangement_of_descriptors)
{
    static const uint32_t cuts[] = {1, 2, 3, 5, 15, 16, 17, 511, 512, 513, 4096};
    begin_with((struct virtio_rig_config){.blk = {.queues = 1, .queue_size = 1024}});
    for (size_t i = 0; i < COUNT(cuts) * 2; i++) {
        const struct virtio_blk_discard_write_zeroes ranges[2] = {{100, 8, UNMAP_FLAG},
                                                                  {300, 1, 0}};
        uint32_t cut = cuts[i / 2];
        uint32_t length = cut < 17 ? 512 : 4096;
        unsigned sectors = length / 512;
        uint64_t gpa = RAM_B - 1 - length / 3;
        if (length / cut + 20 > 270)
            length = 512 * (cut > 2), sectors = length / 512; /* too many for a request */
        d->piece = cut;
        d->indirect = i % 2;
        fill_image();
        if (length > 0) {
            set_memory(gpa - 1, length + 2, FILL);
            cr_expect_eq(blk_driver_read(d, 5, gpa, length), OK, "cut %u", cut);
            cr_expect_eq(d->used_length, length + 1);
            for (uint32_t at = 0; at < length; at++) {
                uint8_t byte;
                fake_driver_read(&d->v.queues[0], gpa + at, &byte, 1);
                cr_assert_eq(byte, pattern(5 * 512 + at), "cut %u, at %u", cut, at);
            }
            cr_expect(memory_is(gpa - 1, 1, FILL) && memory_is(gpa + length, 1, FILL));
            set_memory(gpa, length, 0x77);
            cr_expect_eq(blk_driver_write(d, 9, gpa, length), OK, "cut %u", cut);
            cr_expect(image_is(9, sectors, 0x77), "cut %u", cut);
            fill_image();
        }
        cr_expect_eq(blk_driver_flush(d), OK, "cut %u", cut);
        set_memory(RAM_B - 3, 21, FILL);
        cr_expect_eq(blk_driver_get_id(d, RAM_B - 3, 20), OK, "cut %u", cut);
        cr_expect_eq(d->used_length, 21);
        cr_expect(memory_is(RAM_B + 16, 1, 0) && memory_is(RAM_B + 17, 1, FILL), "cut %u", cut);
        cr_expect_eq(blk_driver_clear(d, ZEROES, ranges, 1, RAM_B - 7), OK, "cut %u", cut);
        cr_expect(image_is(100, 8, 0), "cut %u", cut);
        fill_image();
        cr_expect_eq(blk_driver_clear(d, DISCARD, &ranges[1], 1, RAM_B - 7), OK, "cut %u", cut);
        fill_image();
        cr_expect_eq(blk_driver_clear(d, 99, ranges, 2, RAM_B - 7), UNSUPP, "cut %u", cut);
    }
    d->piece = 0;
    d->indirect = false;
    end();
}

/* A whole sector in one-byte descriptors is more than seg_max: the driver was told. */
Test(blk_requests, C11_B3_more_segments_than_allowed_break_the_queue)
{
    begin_with((struct virtio_rig_config){.blk = {.queues = 1, .queue_size = 1024}});
    const struct piece data = {BUF, 512, true};
    const struct blk_request request = {IN, 0, &data, 1};
    cr_expect_eq(virtio_driver_config(&d->v, offsetof(struct virtio_blk_config, seg_max), 4), 254);
    d->piece = 1;
    blk_driver_send(d, 0, &request);
    virtio_driver_kick(&d->v, 0);
    virtio_driver_settle(&d->v);
    cr_expect_eq(virtio_driver_read(&d->v, VIRTIO_MMIO_STATUS),
                 STATUS_DRIVER_OK | STATUS_NEEDS_RESET);
    virtio_driver_reset(&d->v);
    blk_driver_forget(d);
    d->piece = 0;
    end();
}

/* seg_max segments, each a sector, header and status: the most that a driver may ask for. */
Test(blk_requests, C11_as_many_segments_as_allowed)
{
    for (unsigned size = BLK_QUEUE_SIZE_MIN; size <= 512; size *= 2) {
        begin_with((struct virtio_rig_config){.blk = {.queues = 1, .queue_size = size}});
        struct piece data[254];
        uint32_t max =
            (uint32_t)virtio_driver_config(&d->v, offsetof(struct virtio_blk_config, seg_max), 4);
        cr_assert_eq(max, size - 2 < 254 ? size - 2 : 254);
        fill_image();
        for (unsigned i = 0; i < max; i++)
            data[i] = (struct piece){RAM_A + 1024 * i, 512, true};
        const struct blk_request request = {IN, 1, data, max};
        cr_expect_eq(blk_driver_do(d, &request), OK, "size %u", size);
        cr_expect_eq(d->used_length, 512 * max + 1);
        for (unsigned i = 0; i < max; i++) {
            const uint8_t *at = virtio_rig_at(&rig, data[i].gpa, 512);
            cr_expect(at[0] == pattern(512 * (i + 1)) && at[511] == pattern(512 * (i + 2) - 1));
        }
        end();
    }
}

Test(blk_requests, C13_the_same_memory_twice_and_the_rings_own)
{
    begin();
    fill_image();
    struct piece twice[2] = {{BUF, 512, true}, {BUF, 512, true}};
    const struct blk_request request = {IN, 0, twice, 2};
    cr_expect_eq(blk_driver_do(d, &request), OK);
    cr_expect_eq(*(uint8_t *)virtio_rig_at(&rig, BUF, 1), pattern(512));
    /* Into the descriptor table: whatever the ring says then is the driver's own doing. */
    const struct piece ring = {d->v.queues[0].config.desc, 4096, true};
    const struct blk_request into = {IN, 0, &ring, 1};
    blk_driver_send(d, 0, &into);
    virtio_driver_notify(&d->v, 0);
    virtio_driver_settle(&d->v);
    virtio_driver_notify(&d->v, 0);
    virtio_driver_settle(&d->v);
    virtio_driver_reset(&d->v);
    blk_driver_forget(d);
    end();
}
