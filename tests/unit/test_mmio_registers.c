/* The registers of a virtio-mmio device, and accesses that no driver should make (A1-A7, A15-A19).
 */
#include <linux/virtio_ids.h>
#include <string.h>

#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"

SUITE(mmio_registers);

static struct virtio_rig rig;
static struct virtio_driver *v;

/* Both devices, in service. */
static void begin(void)
{
    struct minivmm_error err;
    const struct virtio_rig_config config = {0};
    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    cr_assert(virtio_rig_start(&rig, UINT64_MAX, 16));
    v = &rig.blk_driver.v;
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_SEL, 0);
}

static void end(const char *name)
{
    cr_expect(virtio_rig_works(&rig), "%s: the canary", name);
    virtio_rig_finish(&rig);
}

static uint64_t read_sized(uint64_t offset, unsigned size)
{
    return bus_read(&rig.bus, v->base + offset, size);
}

static void write_sized(uint64_t offset, unsigned size, uint64_t value)
{
    bus_write(&rig.bus, v->base + offset, size, value);
}

/* What the registers of a device say that is in service and idle. */
struct view {
    uint32_t words[64];
    struct virtio_blk_config config;
};

static struct view look(void)
{
    struct view view;
    for (unsigned i = 0; i < 64; i++)
        view.words[i] = virtio_driver_read(v, 4 * i);
    for (unsigned i = 0; i < sizeof(view.config); i++)
        ((uint8_t *)&view.config)[i] = (uint8_t)virtio_driver_config(v, i, 1);
    return view;
}

static void expect_same(const struct view *before, const char *name)
{
    struct view now = look();
    for (unsigned i = 0; i < 64; i++)
        cr_expect_eq(now.words[i], before->words[i], "%s: register 0x%x: 0x%x, was 0x%x", name,
                     4 * i, now.words[i], before->words[i]);
    cr_expect_eq(memcmp(&now.config, &before->config, sizeof(now.config)), 0, "%s", name);
}

Test(mmio_registers, S22_identity)
{
    begin();
    static const struct {
        const char *name;
        unsigned slot;
        uint32_t id;
    } rows[] = {{"rng", RIG_SLOT_RNG, VIRTIO_ID_RNG}, {"blk", RIG_SLOT_BLK, VIRTIO_ID_BLOCK}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct virtio_driver at = *v;
        at.base = RIG_SLOTS + rows[i].slot * RIG_SLOT;
        cr_expect_eq(virtio_driver_read(&at, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976, "%s",
                     rows[i].name);
        cr_expect_eq(virtio_driver_read(&at, VIRTIO_MMIO_VERSION), 2, "%s", rows[i].name);
        cr_expect_eq(virtio_driver_read(&at, VIRTIO_MMIO_DEVICE_ID), rows[i].id, "%s",
                     rows[i].name);
        cr_expect_neq(virtio_driver_read(&at, VIRTIO_MMIO_VENDOR_ID), 0, "%s", rows[i].name);
    }
    struct virtio_driver none = *v;
    cr_expect_not(virtio_driver_find(&none, RIG_SLOTS, RIG_SLOT_COUNT, VIRTIO_ID_NET));
    end("S22");
}

Test(mmio_registers, A1_control_registers_take_aligned_words_only)
{
    begin();
    struct view before = look();
    static const unsigned sizes[] = {1, 2, 4, 8};
    for (unsigned offset = 0; offset < VIRTIO_MMIO_CONFIG; offset++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            if (sizes[i] == 4 && offset % 4 == 0)
                continue;
            cr_expect_eq(read_sized(offset, sizes[i]), 0, "0x%x, %u bytes", offset, sizes[i]);
            write_sized(offset, sizes[i], 0);
            write_sized(offset, sizes[i], UINT64_MAX);
        }
    }
    expect_same(&before, "A1");
    end("A1");
}

Test(mmio_registers, A1_a_wide_access_before_the_configuration_space_reads_nothing_of_it)
{
    begin();
    static const struct {
        unsigned offset, size;
    } rows[] = {{0xfc, 8}, {0xfd, 4}, {0xfe, 4}, {0xff, 2}, {0xff, 4}, {0xf9, 8}, {0xff, 8}};
    for (size_t i = 0; i < COUNT(rows); i++)
        cr_expect_eq(read_sized(rows[i].offset, rows[i].size), 0, "0x%x, %u bytes", rows[i].offset,
                     rows[i].size);
    end("A1");
}

Test(mmio_registers, A2_configuration_space_ends_where_it_ends)
{
    begin();
    struct view before = look();
    const unsigned last = sizeof(struct virtio_blk_config);
    static const unsigned sizes[] = {1, 2, 4, 8};
    for (unsigned at = 0; at < VIRTIO_MMIO_SIZE - VIRTIO_MMIO_CONFIG; at++) {
        for (size_t i = 0; i < COUNT(sizes); i++) {
            unsigned size = sizes[i];
            uint64_t want = 0;
            if (size <= 4 && at + size <= last)
                memcpy(&want, (const uint8_t *)&before.config + at, size);
            if (VIRTIO_MMIO_CONFIG + at + size > VIRTIO_MMIO_SIZE)
                want = size == 8 ? UINT64_MAX : (1ull << 8 * size) - 1; /* nobody's: no device */
            cr_assert_eq(read_sized(VIRTIO_MMIO_CONFIG + at, size), want, "%u bytes at %u", size,
                         at);
            if (at == offsetof(struct virtio_blk_config, wce) && size == 1)
                continue;
            write_sized(VIRTIO_MMIO_CONFIG + at, size, 0x5a5a5a5a5a5a5a5aull);
        }
    }
    expect_same(&before, "A2");
    end("A2");
}

Test(mmio_registers, A2_a_device_without_configuration_space_reads_zero)
{
    begin();
    v = &rig.rng_driver;
    for (unsigned at = VIRTIO_MMIO_CONFIG; at + 4 <= VIRTIO_MMIO_SIZE; at++) {
        cr_assert_eq(read_sized(at, 1), 0);
        cr_assert_eq(read_sized(at, 4), 0);
        write_sized(at, 4, UINT32_MAX);
    }
    end("A2");
}

Test(mmio_registers, A3_S28_a_queue_that_does_not_exist)
{
    begin();
    static const uint32_t queues[] = {1, 2, 63, 64, 255, 0xffff, 0x10000, 0x7fffffff, UINT32_MAX};
    struct view before = look();
    for (size_t i = 0; i < COUNT(queues); i++) {
        struct virtq_config config = v->queues[0].config;
        cr_expect_eq(virtio_driver_set_queue(v, queues[i], &config), 0, "%u", queues[i]);
        cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_QUEUE_NUM_MAX), 0, "%u", queues[i]);
        virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, 0);
    }
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_SEL, 0);
    expect_same(&before, "A3");
    end("A3");
}

Test(mmio_registers, A5_sizes_that_are_none)
{
    static const struct {
        const char *name;
        uint32_t size;
        bool ready;
    } rows[] = {
        {"A5 0", 0, false},
        {"A5 1", 1, true},
        {"A5 3", 3, false},
        {"A5 QueueSizeMax", BLK_QUEUE_SIZE, true},
        {"A5 QueueSizeMax + 1", BLK_QUEUE_SIZE + 1, false},
        {"A5 twice QueueSizeMax", 2 * BLK_QUEUE_SIZE, false},
        {"A5 0x8000", 0x8000, false},
        {"A5 0x10000", 0x10000, false},
        {"A5 0x10001", 0x10001, false},
        {"A5 2^31", 1u << 31, false},
        {"A5 all ones", UINT32_MAX, false},
    };
    begin();
    for (size_t i = 0; i < COUNT(rows); i++) {
        cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
        struct virtq_config config = fake_driver_layout(v->rings, BLK_QUEUE_SIZE, true, true);
        /* Zeroed rings are what a new driver has: nothing to do, and nothing is done. */
        memset(virtio_rig_at(&rig, v->rings, 0x4000), 0, 0x4000);
        config.size = rows[i].size;
        cr_expect_eq(virtio_driver_set_queue(v, 0, &config), rows[i].ready, "%s", rows[i].name);
        virtio_driver_write(v, VIRTIO_MMIO_STATUS, STATUS_DRIVER_OK);
        virtio_driver_notify(v, 0);
        virtio_driver_settle(v);
        cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_STATUS), STATUS_DRIVER_OK, "%s",
                     rows[i].name);
        cr_expect(virtio_rig_works(&rig), "%s: the canary", rows[i].name);
    }
    end("A5");
}

Test(mmio_registers, A7_rings_in_places_that_are_none)
{
    static const struct {
        const char *name;
        uint64_t at;
    } rows[] = {
        {"A7 0", 0},
        {"A7 unaligned", RIG_FREE + 1},
        {"A7 below RAM", RAM_A - 16},
        {"A7 from RAM into the hole", RAM_HOLE - 16},
        {"A7 in the hole", RAM_HOLE},
        {"A7 from the hole into RAM", RAM_C - 16},
        {"A7 across an inner border", RAM_B - 16},
        {"A7 past the end of RAM", RAM_END - 16},
        {"A7 beyond RAM", RAM_END},
        {"A7 its own registers", RIG_SLOTS + RIG_SLOT_BLK * RIG_SLOT},
        {"A7 the local APIC", 0xfee00000},
        {"A7 4 GiB", 1ull << 32},
        {"A7 wraps", 0 - 16ull},
        {"A7 the highest half", 1ull << 63 | RIG_FREE},
        {"A7 the last byte", UINT64_MAX},
    };
    begin();
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (unsigned area = 0; area < 3; area++) {
            cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
            struct virtq_config config = fake_driver_layout(RIG_FREE, 16, true, true);
            *(area == 0 ? &config.desc : area == 1 ? &config.avail : &config.used) = rows[i].at;
            cr_expect_eq(virtio_driver_set_queue(v, 0, &config), 0, "%s, area %u", rows[i].name,
                         area);
            virtio_driver_write(v, VIRTIO_MMIO_STATUS, STATUS_DRIVER_OK);
            virtio_driver_notify(v, 0);
            virtio_driver_settle(v);
            cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_STATUS), STATUS_DRIVER_OK);
            cr_expect(virtio_rig_works(&rig), "%s: the canary", rows[i].name);
        }
    }
    end("A7");
}

Test(mmio_registers, A6_a_live_queue_keeps_its_setup)
{
    begin();
    struct virtq_config config = v->queues[0].config, other = config;
    static const struct {
        const char *name;
        uint32_t size;
        int64_t desc, avail, used;
    } rows[] = {
        {"A6 size 0", 0, 0, 0, 0},
        {"A6 a smaller size", 4, 0, 0, 0},
        {"A6 a larger size", 256, 0, 0, 0},
        {"A6 descriptors", 16, 0x100000, 0, 0},
        {"A6 descriptors out of RAM", 16, 0x10000000, 0, 0},
        {"A6 the available ring", 16, 0, 0x100000, 0},
        {"A6 the used ring", 16, 0, 0, 0x100000},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        other = config;
        other.size = rows[i].size;
        other.desc += (uint64_t)rows[i].desc;
        other.avail += (uint64_t)rows[i].avail;
        other.used += (uint64_t)rows[i].used;
        cr_expect_eq(virtio_driver_set_queue(v, 0, &other), 1, "%s: still ready", rows[i].name);
        unsigned before = v->queues[0].used_seen;
        cr_expect(virtio_rig_works(&rig), "%s: the canary", rows[i].name);
        cr_expect_eq(v->queues[0].used_seen, before + 1, "%s: no new start", rows[i].name);
    }
    end("A6");
}

Test(mmio_registers, A6_a_ready_queue_keeps_its_setup_before_DRIVER_OK_too)
{
    begin();
    cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
    cr_assert(virtio_driver_queue(v, 0, 16));
    struct virtq_config other = {.size = 4, .desc = RAM_END, .avail = RAM_END, .used = RAM_END};
    cr_expect_eq(virtio_driver_set_queue(v, 0, &other), 1, "still ready");
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, STATUS_DRIVER_OK);
    uint16_t seen = v->queues[0].used_seen;
    cr_expect(virtio_rig_works(&rig));
    cr_expect_eq(v->queues[0].used_seen, (uint16_t)(seen + 1), "with what it was");
    /* What was written meanwhile is not kept for later either. */
    cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
    cr_assert(virtio_driver_queue(v, 0, 16));
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_NUM, 3);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, 0);
    virtio_driver_write(v, VIRTIO_MMIO_QUEUE_READY, 1);
    cr_expect_eq(virtio_driver_read(v, VIRTIO_MMIO_QUEUE_READY), 1);
    end("A6");
}

Test(mmio_registers, A15_only_writable_registers_can_be_written)
{
    begin();
    static const unsigned offsets[] = {VIRTIO_MMIO_MAGIC_VALUE,
                                       VIRTIO_MMIO_VERSION,
                                       VIRTIO_MMIO_DEVICE_ID,
                                       VIRTIO_MMIO_VENDOR_ID,
                                       VIRTIO_MMIO_QUEUE_NUM_MAX,
                                       VIRTIO_MMIO_DEVICE_FEATURES,
                                       VIRTIO_MMIO_SHM_LEN_LOW,
                                       VIRTIO_MMIO_INTERRUPT_STATUS,
                                       VIRTIO_MMIO_SHM_BASE_LOW,
                                       VIRTIO_MMIO_CONFIG_GENERATION,
                                       0x18,
                                       0x2c,
                                       0x3c,
                                       0x48,
                                       0x58,
                                       0x68,
                                       0x78,
                                       0x88,
                                       0xa8,
                                       0xc8,
                                       0xd0,
                                       0xf8,
                                       VIRTIO_MMIO_QUEUE_NOTIFY + 4};
    struct view before = look();
    for (size_t i = 0; i < COUNT(offsets); i++) {
        virtio_driver_write(v, offsets[i], 0);
        virtio_driver_write(v, offsets[i], UINT32_MAX);
    }
    expect_same(&before, "A15");
    end("A15");
}

Test(mmio_registers, A15_registers_that_are_for_writing_read_zero)
{
    begin();
    static const unsigned offsets[] = {VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_MMIO_DRIVER_FEATURES,
                                       VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_QUEUE_SEL,
                                       VIRTIO_MMIO_QUEUE_NUM,           VIRTIO_MMIO_QUEUE_NOTIFY,
                                       VIRTIO_MMIO_INTERRUPT_ACK,       VIRTIO_MMIO_QUEUE_DESC_LOW,
                                       VIRTIO_MMIO_QUEUE_DESC_HIGH,     VIRTIO_MMIO_QUEUE_AVAIL_LOW,
                                       VIRTIO_MMIO_QUEUE_AVAIL_HIGH,    VIRTIO_MMIO_QUEUE_USED_LOW,
                                       VIRTIO_MMIO_QUEUE_USED_HIGH,     0x0f8};
    for (size_t i = 0; i < COUNT(offsets); i++)
        cr_expect_eq(virtio_driver_read(v, offsets[i]), 0, "0x%x", offsets[i]);
    end("A15");
}

Test(mmio_registers, A16_S28_there_is_no_shared_memory)
{
    begin();
    static const uint32_t ids[] = {0, 1, 255, UINT32_MAX};
    for (size_t i = 0; i < COUNT(ids); i++) {
        virtio_driver_write(v, VIRTIO_MMIO_SHM_SEL, ids[i]);
        for (unsigned at = VIRTIO_MMIO_SHM_LEN_LOW; at <= VIRTIO_MMIO_SHM_BASE_HIGH; at += 4)
            cr_expect_eq(virtio_driver_read(v, at), UINT32_MAX, "region %u, 0x%x", ids[i], at);
    }
    end("A16");
}

Test(mmio_registers, A17_S27_a_queue_cannot_be_reset_without_the_feature)
{
    begin();
    cr_assert_not(virtio_driver_offered(v) & FEATURE(VIRTIO_F_RING_RESET));
    const unsigned queue_reset = 0x0c0; /* not in older headers */
    struct view before = look();
    virtio_driver_write(v, queue_reset, 1);
    virtio_driver_write(v, queue_reset, 0);
    cr_expect_eq(virtio_driver_read(v, queue_reset), 0);
    expect_same(&before, "A17");
    unsigned seen = v->queues[0].used_seen;
    cr_expect(virtio_rig_works(&rig));
    cr_expect_eq(v->queues[0].used_seen, seen + 1, "the queue goes on");
    end("A17");
}

Test(mmio_registers, A19_accesses_between_and_beyond_devices)
{
    begin();
    struct view before = look();
    static const struct {
        const char *name;
        int64_t at; /* from the first slot */
        unsigned size;
    } rows[] = {
        {"A19 before the first", -4, 4},
        {"A19 into the first", -2, 4},
        {"A19 an empty slot", RIG_SLOT, 4},
        {"A19 into an empty slot", RIG_SLOT - 2, 4},
        {"A19 out of an empty slot", 2 * RIG_SLOT - 4, 8},
        {"A19 behind the last", RIG_SLOT_COUNT * RIG_SLOT, 4},
        {"A19 out of the last", RIG_SLOT_COUNT * RIG_SLOT - 1, 2},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t at = RIG_SLOTS + (uint64_t)rows[i].at;
        for (unsigned n = 0; n < 100000; n++) { /* REP with a long count */
            uint64_t ones = rows[i].size == 8 ? UINT64_MAX : (1ull << 8 * rows[i].size) - 1;
            cr_assert_eq(bus_read(&rig.bus, at, rows[i].size), ones, "%s", rows[i].name);
            bus_write(&rig.bus, at, rows[i].size, UINT64_MAX);
        }
    }
    for (unsigned n = 0; n < 100000; n++) { /* and at one register */
        virtio_driver_write(v, VIRTIO_MMIO_MAGIC_VALUE, n);
        cr_assert_eq(virtio_driver_read(v, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
    }
    expect_same(&before, "A19");
    end("A19");
}
