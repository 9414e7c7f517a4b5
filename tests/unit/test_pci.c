/*
 * The PCI transport: virtio 1.2, section 4.1, and what a hostile guest does with it. What is true
 * of every transport is in the suites that make check-unit-pci runs; here is the rest.
 */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "tests/unit/disk_faults.h"
#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"
#include "vmm/clock.h"

SUITE(pci);

#define NONE       VIRTIO_MSI_NO_VECTOR
#define QUEUE_SIZE 256u /* of the disk's queues */
#define ANSWERS    (PCI_COMMAND_IO | PCI_COMMAND_MEMORY)

static struct virtio_rig rig;
static struct virtio_driver *v; /* the disk's */
static struct pci_driver *p;

static void begin(bool threaded)
{
    const struct virtio_rig_config config = {
        .pci = true, .threaded = threaded, .blk = {.queues = 2, .queue_size = QUEUE_SIZE}};
    struct minivmm_error err;

    faults_set(NULL, 0);
    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    v = &rig.blk_driver.v;
    p = &rig.pci_drivers[RIG_SLOT_BLK];
}

/* Whatever a test did: a driver that looks for its devices anew gets work out of them. */
static void end(void)
{
    faults_set(NULL, 0);
    for (unsigned slot = 0; slot < RIG_SLOT_COUNT; slot++) {
        if (!rig.pci[slot].dev)
            continue;
        uint32_t id = rig.pci[slot].dev->type->id;
        cr_assert(pci_driver_find(&rig.pci_drivers[slot], id), "device of slot %u", slot);
    }
    virtio_driver_reset(&rig.rng_driver);
    virtio_driver_reset(v);
    blk_driver_forget(&rig.blk_driver);
    cr_expect(virtio_rig_works(&rig), "the canary");
    virtio_rig_finish(&rig);
}

static uint32_t config(unsigned offset, unsigned size)
{
    return pci_config_read(p->pio, p->device, offset, size);
}

static void set_config(unsigned offset, unsigned size, uint32_t value)
{
    pci_config_write(p->pio, p->device, offset, size, value);
}

static unsigned common(unsigned offset, unsigned size)
{
    return (unsigned)pci_common_read(p, offset, size);
}

static unsigned messages(unsigned vector)
{
    return virtio_rig_messages(&rig, RIG_SLOT_BLK, vector);
}

static bool is_pending(unsigned vector)
{
    return bus_read(p->mmio, p->pending, 8) >> vector & 1;
}

static void flush_once(void)
{
    cr_expect_eq(blk_driver_flush(&rig.blk_driver), VIRTIO_BLK_S_OK);
}

/* Configuration changes, as the host sees to it. */
static void change_config(void)
{
    virtio_config_begin(blk_device(rig.blk));
    virtio_config_end(blk_device(rig.blk));
}

/* ---- what the function says of itself ------------------------------------------------------- */

Test(pci, identity_4_1_2)
{
    begin(false);
    cr_expect_eq(config(PCI_VENDOR_ID, 2), 0x1af4);
    cr_expect_eq(config(PCI_DEVICE_ID, 2), 0x1040 + VIRTIO_ID_BLOCK);
    cr_expect_geq(config(PCI_REVISION_ID, 1), 1);
    cr_expect_geq(config(PCI_SUBSYSTEM_ID, 2), 0x40);
    cr_expect_eq(config(PCI_HEADER_TYPE, 1), PCI_HEADER_TYPE_NORMAL);
    cr_expect(config(PCI_STATUS, 2) & PCI_STATUS_CAP_LIST);
    cr_expect_eq(config(PCI_INTERRUPT_PIN, 1), 0);
    end();
}

Test(pci, structures_4_1_4_lie_in_their_BARs_and_apart)
{
    static const struct {
        uint8_t type;
        uint32_t align, length; /* at least */
    } rows[] = {
        {VIRTIO_PCI_CAP_COMMON_CFG, 4, sizeof(struct virtio_pci_common_cfg)},
        {VIRTIO_PCI_CAP_NOTIFY_CFG, 2, 2},
        {VIRTIO_PCI_CAP_ISR_CFG, 1, 1},
        {VIRTIO_PCI_CAP_DEVICE_CFG, 4, sizeof(struct virtio_blk_config)},
    };
    uint64_t ends[2] = {0, 0};
    begin(false);
    for (size_t i = 0; i < COUNT(rows); i++) {
        unsigned cap = pci_driver_cap(p, rows[i].type);
        cr_assert_neq(cap, 0, "type %u", rows[i].type);
        uint32_t bar = config(cap + VIRTIO_PCI_CAP_BAR, 1);
        uint32_t offset = config(cap + VIRTIO_PCI_CAP_OFFSET, 4);
        uint32_t length = config(cap + VIRTIO_PCI_CAP_LENGTH, 4);
        cr_expect_geq(config(cap + VIRTIO_PCI_CAP_LEN, 1), sizeof(struct virtio_pci_cap));
        cr_assert_lt(bar, 2);
        cr_expect_eq(offset % rows[i].align, 0, "type %u", rows[i].type);
        cr_expect_geq(length, rows[i].length, "type %u", rows[i].type);
        cr_expect_geq(offset, ends[bar], "type %u overlaps", rows[i].type);
        ends[bar] = offset + length;
    }
    unsigned notify = pci_driver_cap(p, VIRTIO_PCI_CAP_NOTIFY_CFG);
    cr_expect_eq(config(notify + VIRTIO_PCI_NOTIFY_CAP_MULT, 4), 0);
    cr_expect_eq(config(notify + VIRTIO_PCI_CAP_LEN, 1), sizeof(struct virtio_pci_notify_cap));
    cr_expect_neq(pci_driver_cap(p, VIRTIO_PCI_CAP_PCI_CFG), 0);
    cr_expect_eq(p->vectors, 3, "one a queue, one for the device");
    uint32_t table = config(p->msix_cap + PCI_MSIX_TABLE, 4) & PCI_MSIX_TABLE_OFFSET;
    uint32_t pending = config(p->msix_cap + PCI_MSIX_PBA, 4) & PCI_MSIX_PBA_OFFSET;
    cr_expect_geq(table, ends[0]);
    cr_expect_geq(pending, table + p->vectors * PCI_MSIX_ENTRY_SIZE);
    cr_expect_leq(pending + 8, VIRTIO_PCI_MEMORY_SIZE);
    end();
}

Test(pci, a_device_without_configuration_has_no_structure_for_it)
{
    begin(false);
    p = &rig.pci_drivers[RIG_SLOT_RNG];
    cr_expect_eq(p->config, 0);
    cr_expect_eq(p->vectors, 2);
    end();
}

/* ---- base address registers ------------------------------------------------------------------ */

Test(pci, BARs_tell_their_size_and_nothing_else_is_there)
{
    static const uint32_t masks[] = {
        ~(VIRTIO_PCI_MEMORY_SIZE - 1), ~(VIRTIO_PCI_PORTS - 1) | 1, 0, 0, 0, 0};
    begin(false);
    for (unsigned i = 0; i < COUNT(masks); i++) {
        uint32_t before = config(PCI_BASE_ADDRESS_0 + 4 * i, 4);
        set_config(PCI_BASE_ADDRESS_0 + 4 * i, 4, UINT32_MAX);
        cr_expect_eq(config(PCI_BASE_ADDRESS_0 + 4 * i, 4), masks[i], "BAR %u", i);
        set_config(PCI_BASE_ADDRESS_0 + 4 * i, 4, before);
        cr_expect_eq(config(PCI_BASE_ADDRESS_0 + 4 * i, 4), before);
    }
    set_config(PCI_ROM_ADDRESS, 4, UINT32_MAX);
    cr_expect_eq(config(PCI_ROM_ADDRESS, 4), 0);
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    flush_once();
    end();
}

Test(pci, memory_answers_only_where_it_is_and_switched_on)
{
    begin(false);
    uint32_t bar = config(PCI_BASE_ADDRESS_0, 4);
    for (unsigned moved = 0; moved < 2; moved++) {
        if (moved)
            set_config(PCI_BASE_ADDRESS_0, 4, bar + VIRTIO_PCI_MEMORY_SIZE);
        else
            set_config(PCI_COMMAND, 2, PCI_COMMAND_IO);
        cr_expect_eq(common(VIRTIO_PCI_COMMON_STATUS, 1), UINT8_MAX);
        pci_common_write(p, VIRTIO_PCI_COMMON_STATUS, 1, STATUS_ACKNOWLEDGE);
        set_config(PCI_BASE_ADDRESS_0, 4, bar);
        set_config(PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
        cr_expect_eq(common(VIRTIO_PCI_COMMON_STATUS, 1), 0);
    }
    end();
}

Test(pci, ports_notify_only_where_they_are_and_switched_on)
{
    begin(false);
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    const struct blk_request flush = {.type = VIRTIO_BLK_T_FLUSH};
    blk_driver_send(&rig.blk_driver, 0, &flush);
    virtio_driver_settle(v); /* the look at each queue after the start */
    uint16_t before = fake_driver_used_idx(&v->queues[0]);
    blk_driver_send(&rig.blk_driver, 0, &flush);
    set_config(PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
    virtio_driver_notify(v, 0);
    virtio_driver_settle(v);
    cr_expect_eq(fake_driver_used_idx(&v->queues[0]), before, "switched off");
    cr_expect_eq(bus_read(p->pio, p->notify, 2), UINT16_MAX);
    set_config(PCI_COMMAND, 2, PCI_COMMAND_MASTER | ANSWERS);
    virtio_driver_notify(v, 0);
    uint16_t number;
    uint8_t status;
    for (unsigned i = 0; i < 2; i++)
        cr_expect(blk_driver_wait(&rig.blk_driver, 0, &number, &status), "request %u", i);
    end();
}

/* ---- 4.1.4.3: the registers of all devices ----------------------------------------------------
 */

Test(pci, queue_size_is_0_or_a_power_of_2_and_a_wrong_one_enables_nothing)
{
    static const struct {
        uint16_t written, read;
    } rows[] = {{16, 16},    {0, 0},          {3, 0}, {QUEUE_SIZE * 2, 0},     {255, 0},
                {0x8000, 0}, {UINT16_MAX, 0}, {1, 1}, {QUEUE_SIZE, QUEUE_SIZE}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        begin(false);
        struct virtq_config areas = fake_driver_layout(v->rings, 16, false, false);
        cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
        pci_common_write(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
        cr_expect_eq(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), QUEUE_SIZE, "what it takes at most");
        areas.size = rows[i].written;
        cr_expect_eq(virtio_driver_set_queue(v, 1, &areas), rows[i].read != 0, "size %u",
                     rows[i].written);
        cr_expect_eq(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), rows[i].read, "size %u", rows[i].written);
        virtio_driver_reset(v);
        cr_expect_eq(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), QUEUE_SIZE, "after a reset");
        cr_expect_eq(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
        end();
    }
}

Test(pci, a_queue_there_is_not_has_size_0_and_takes_nothing)
{
    static const uint16_t queues[] = {2, 63, 64, 0xffff};
    begin(false);
    cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
    for (size_t i = 0; i < COUNT(queues); i++) {
        pci_common_write(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, queues[i]);
        for (unsigned at = VIRTIO_PCI_COMMON_Q_SIZE; at < 0x40; at += 2) {
            pci_common_write(p, at, 2, 1);
            pci_common_write(p, at, 4, 1);
            cr_expect_eq(common(at, 2), 0, "queue %u at %u", queues[i], at);
            cr_expect_eq(common(at, 4), 0, "queue %u at %u", queues[i], at);
        }
    }
    cr_expect_eq(common(VIRTIO_PCI_COMMON_NUMQ, 2), 2);
    end();
}

Test(pci, queue_enable_takes_1_only_and_is_never_taken_back)
{
    static const uint16_t values[] = {0, 2, 0x100, UINT16_MAX};
    begin(false);
    cr_assert(virtio_driver_negotiate(v, UINT64_MAX));
    cr_assert(virtio_driver_queue(v, 0, 16));
    for (size_t i = 0; i < COUNT(values); i++) {
        pci_common_write(p, VIRTIO_PCI_COMMON_Q_ENABLE, 2, values[i]);
        cr_expect_eq(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1, "after %u", values[i]);
    }
    pci_common_write(p, VIRTIO_PCI_COMMON_Q_SIZE, 2, 4); /* A6: it is live */
    cr_expect_eq(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
    end();
}

Test(pci, fields_are_accessed_whole_4_1_3_1)
{
    begin(false);
    pci_common_write(p, VIRTIO_PCI_COMMON_STATUS, 1, STATUS_ACKNOWLEDGE);
    static const unsigned sizes[] = {2, 4, 8};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        cr_expect_eq(pci_common_read(p, VIRTIO_PCI_COMMON_STATUS & ~(sizes[i] - 1), sizes[i]), 0);
        pci_common_write(p, VIRTIO_PCI_COMMON_STATUS & ~(sizes[i] - 1), sizes[i], 0);
        cr_expect_eq(common(VIRTIO_PCI_COMMON_STATUS, 1), STATUS_ACKNOWLEDGE);
    }
    cr_expect_eq(bus_read(p->mmio, p->config, 8), 0);
    end();
}

Test(pci, config_generation_changes_with_the_configuration)
{
    begin(false);
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    for (unsigned i = 0; i < 257; i++) {
        unsigned before = common(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
        change_config();
        cr_expect_neq(common(VIRTIO_PCI_COMMON_CFGGENERATION, 1), before);
    }
    cr_expect_eq(messages(0), 257, "each is told by the device's vector");
    end();
}

/* ---- interrupts: 4.1.5.1.2, 4.1.4.5 ---------------------------------------------------------- */

Test(pci, a_vector_there_is_not_reads_back_as_none)
{
    static const struct {
        uint16_t written, read;
    } rows[] = {{0, 0}, {2, 2}, {3, NONE}, {1, 1}, {127, NONE}, {128, NONE}, {NONE, NONE}};
    begin(false);
    pci_common_write(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
    cr_expect_eq(common(VIRTIO_PCI_COMMON_MSIX, 2), NONE, "at first");
    cr_expect_eq(common(VIRTIO_PCI_COMMON_Q_MSIX, 2), NONE, "at first");
    for (size_t i = 0; i < COUNT(rows); i++) {
        pci_common_write(p, VIRTIO_PCI_COMMON_MSIX, 2, rows[i].written);
        pci_common_write(p, VIRTIO_PCI_COMMON_Q_MSIX, 2, rows[i].written);
        cr_expect_eq(common(VIRTIO_PCI_COMMON_MSIX, 2), rows[i].read, "row %zu", i);
        cr_expect_eq(common(VIRTIO_PCI_COMMON_Q_MSIX, 2), rows[i].read, "row %zu", i);
    }
    end();
}

Test(pci, each_queue_interrupts_by_its_own_vector_or_by_none)
{
    begin(false);
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    virtio_driver_settle(v);
    unsigned before[3] = {messages(0), messages(1), messages(2)};
    flush_once();
    cr_expect_eq(messages(0), before[0]);
    cr_expect_gt(messages(1), before[1]);
    cr_expect_eq(messages(2), before[2]);
    /* Any event may go by any vector: all by the last. */
    pci_common_write(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
    pci_common_write(p, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
    flush_once();
    cr_expect_gt(messages(2), before[2]);
    unsigned sum = messages(0) + messages(1) + messages(2);
    pci_common_write(p, VIRTIO_PCI_COMMON_Q_MSIX, 2, NONE);
    const struct blk_request flush = {.type = VIRTIO_BLK_T_FLUSH};
    blk_driver_send(&rig.blk_driver, 0, &flush);
    uint16_t number, used = fake_driver_used_idx(&v->queues[0]);
    uint8_t status;
    virtio_driver_notify(v, 0);
    for (unsigned i = 0; i < 1000 && fake_driver_used_idx(&v->queues[0]) == used; i++)
        event_loop_once(&rig.loop, 1);
    cr_expect(blk_driver_take(&rig.blk_driver, 0, &number, &status));
    cr_expect_eq(messages(0) + messages(1) + messages(2), sum, "nobody is told");
    cr_expect_eq(rig.strays, 0);
    end();
}

Test(pci, a_mask_holds_one_message_back)
{
    static const struct {
        const char *name;
        bool entry;
    } rows[] = {{"of the vector", true}, {"of the function", false}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        begin(false);
        cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
        if (rows[i].entry)
            pci_driver_mask(p, 0, true);
        else
            pci_driver_control(p, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
        unsigned before = messages(0);
        for (unsigned n = 0; n < 3; n++)
            change_config();
        cr_expect_eq(messages(0), before, "%s", rows[i].name);
        cr_expect(is_pending(0), "%s", rows[i].name);
        cr_expect_not(is_pending(1), "%s", rows[i].name);
        bus_write(p->mmio, p->pending, 8, 0); /* they are read-only */
        cr_expect(is_pending(0), "%s", rows[i].name);
        if (rows[i].entry)
            pci_driver_mask(p, 0, false);
        else
            pci_driver_control(p, PCI_MSIX_FLAGS_ENABLE);
        cr_expect_eq(messages(0), before + 1, "%s", rows[i].name);
        cr_expect_not(is_pending(0), "%s", rows[i].name);
        end();
    }
}

Test(pci, nothing_is_sent_while_MSI_X_is_off_nor_afterwards)
{
    begin(false);
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    pci_driver_mask(p, 0, true);
    change_config();
    unsigned before = messages(0);
    pci_driver_control(p, 0);
    cr_expect_not(is_pending(0));
    pci_driver_mask(p, 0, false);
    change_config();
    pci_driver_control(p, PCI_MSIX_FLAGS_ENABLE);
    cr_expect_eq(messages(0), before);
    change_config();
    cr_expect_eq(messages(0), before + 1);
    end();
}

Test(pci, a_reset_forgets_vectors_and_what_waits_behind_masks)
{
    begin(false);
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    pci_driver_mask(p, 0, true);
    change_config();
    cr_expect(is_pending(0));
    unsigned before = messages(0);
    virtio_driver_write(v, VIRTIO_MMIO_STATUS, 0);
    cr_expect_not(is_pending(0));
    pci_driver_mask(p, 0, false);
    cr_expect_eq(messages(0), before, "2.4.1: nothing is told after a reset");
    cr_expect_eq(common(VIRTIO_PCI_COMMON_MSIX, 2), NONE);
    for (unsigned queue = 0; queue < 2; queue++) {
        pci_common_write(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
        cr_expect_eq(common(VIRTIO_PCI_COMMON_Q_MSIX, 2), NONE);
    }
    cr_expect_eq(bus_read(p->mmio, p->isr, 1), 0);
    end();
}

Test(pci, reading_the_interrupt_status_clears_it)
{
    begin(false);
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    bus_read(p->mmio, p->isr, 1);
    change_config();
    cr_expect_eq(bus_read(p->mmio, p->isr, 4), 0, "a byte, and no more");
    cr_expect_eq(config(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0, "with MSI-X");
    pci_driver_control(p, 0);
    cr_expect(config(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, "without");
    cr_expect(config(PCI_COMMAND, 4) >> 16 & PCI_STATUS_INTERRUPT);
    cr_expect_eq(bus_read(p->mmio, p->isr, 1), VIRTIO_PCI_ISR_CONFIG);
    cr_expect_eq(bus_read(p->mmio, p->isr, 1), 0);
    cr_expect_eq(config(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
    end();
}

Test(pci, vectors_are_accessed_by_4_and_8_bytes)
{
    begin(false);
    uint64_t entry = p->table + PCI_MSIX_ENTRY_SIZE;
    bus_write(p->mmio, entry, 8, 0x1122334455667788);
    cr_expect_eq(bus_read(p->mmio, entry, 4), 0x55667788);
    cr_expect_eq(bus_read(p->mmio, entry + 4, 4), 0x11223344);
    bus_write(p->mmio, entry + 8, 8, UINT64_MAX);
    cr_expect_eq(bus_read(p->mmio, entry + 8, 8), 0x1ffffffff, "only the mask of vector control");
    bus_write(p->mmio, entry + 8, 8, 5);
    for (unsigned size = 1; size <= 2; size++) {
        bus_write(p->mmio, entry + 8, size, 0x77);
        cr_expect_eq(bus_read(p->mmio, entry + 8, size), 0);
    }
    bus_write(p->mmio, entry + 12, 8, UINT64_MAX); /* across two entries */
    cr_expect_eq(bus_read(p->mmio, entry + 8, 8), 5);
    cr_expect_eq(bus_read(p->mmio, entry + 16, 4), MESSAGE_ADDRESS);
    bus_write(p->mmio, p->table + p->vectors * PCI_MSIX_ENTRY_SIZE, 4, 1); /* behind the last */
    cr_expect_eq(bus_read(p->mmio, p->table + p->vectors * PCI_MSIX_ENTRY_SIZE, 4), 0);
    end();
}

/* ---- 4.1.4.9: accesses through configuration space --------------------------------------------
 */

static void aim(uint8_t bar, uint32_t offset, uint32_t length)
{
    set_config(p->window_cap + VIRTIO_PCI_CAP_BAR, 1, bar);
    set_config(p->window_cap + VIRTIO_PCI_CAP_OFFSET, 4, offset);
    set_config(p->window_cap + VIRTIO_PCI_CAP_LENGTH, 4, length);
}

#define DATA (p->window_cap + (unsigned)offsetof(struct virtio_pci_cfg_cap, pci_cfg_data))

Test(pci, the_window_reaches_registers_and_notifications)
{
    uint16_t number;
    uint8_t status;
    begin(false);
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    set_config(PCI_COMMAND, 2, PCI_COMMAND_MASTER); /* it needs no mapping */
    aim(0, VIRTIO_PCI_COMMON_STATUS, 1);
    cr_expect_eq(config(DATA, 1), STATUS_DRIVER_OK);
    const struct blk_request flush = {.type = VIRTIO_BLK_T_FLUSH};
    virtio_driver_settle(v);
    blk_driver_send(&rig.blk_driver, 1, &flush);
    aim(1, 0, 2);
    set_config(DATA, 2, 1);
    cr_expect_eq(config(DATA, 2), 0);
    set_config(PCI_COMMAND, 2, PCI_COMMAND_MASTER | ANSWERS);
    cr_expect(blk_driver_wait(&rig.blk_driver, 1, &number, &status));
    aim(0, VIRTIO_PCI_COMMON_STATUS, 1);
    set_config(DATA, 4, 0xffffff00); /* as many bytes as the length says */
    cr_expect_eq(common(VIRTIO_PCI_COMMON_STATUS, 1), 0);
    end();
}

Test(pci, a_window_to_nowhere_does_nothing)
{
    static const struct {
        uint8_t bar;
        uint32_t offset, length;
    } rows[] = {{0, 0, 0},     {0, 0, 3},      {0, 0, 8},          {0, 0, UINT32_MAX},
                {0, 2, 4},     {0, 0x2000, 1}, {0, UINT32_MAX, 1}, {0, 0xfffffffe, 2},
                {0, 0x101, 2}, {1, 4, 2},      {1, 0xfffffffc, 4}, {2, 0, 4},
                {5, 0, 4},     {6, 0, 4},      {255, 0, 4},        {255, UINT32_MAX, UINT32_MAX}};
    begin(false);
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    for (size_t i = 0; i < COUNT(rows); i++) {
        aim(rows[i].bar, rows[i].offset, rows[i].length);
        for (unsigned size = 1; size <= 4; size *= 2) {
            cr_expect_eq(config(DATA, size), 0, "row %zu", i);
            set_config(DATA, size, 0);
        }
        cr_expect_eq(common(VIRTIO_PCI_COMMON_STATUS, 1), STATUS_DRIVER_OK, "row %zu", i);
    }
    end();
}

/* ---- hostile guests -----------------------------------------------------------------------------
 */

Test(pci, every_write_to_configuration_space_leaves_what_is_read_only)
{
    static const uint32_t values[] = {UINT32_MAX, 0, 0x55555555, 0xaaaaaaaa};
    begin(false);
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    for (size_t n = 0; n < COUNT(values); n++) {
        for (unsigned size = 1; size <= 4; size *= 2) {
            for (unsigned at = 0; at < 256; at += size) {
                uint32_t caps = config(PCI_CAPABILITY_LIST, 1), id = config(PCI_VENDOR_ID, 4);
                set_config(at, size, values[n]);
                cr_expect_eq(config(PCI_CAPABILITY_LIST, 1), caps);
                cr_expect_eq(config(PCI_VENDOR_ID, 4), id);
                cr_expect_eq(config(PCI_CLASS_REVISION, 4) >> 16, 0x0180);
            }
        }
    }
    for (unsigned i = 0; i < 2; i++) /* as a guest's firmware would place them anew */
        set_config(PCI_BASE_ADDRESS_0 + 4 * i, 4,
                   i ? RIG_PCI_PORTS + RIG_SLOT_BLK * VIRTIO_PCI_PORTS
                     : RIG_PCI_MEMORY + RIG_SLOT_BLK * VIRTIO_PCI_MEMORY_SIZE);
    end();
}

Test(pci, any_access_to_any_place_is_survived)
{
    static const uint64_t values[] = {0, UINT64_MAX, 1, 0x8000000080000001};
    begin(false);
    for (size_t n = 0; n < COUNT(values); n++) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            for (unsigned at = 0; at < VIRTIO_PCI_MEMORY_SIZE; at++) {
                uint64_t where = p->common + at;
                bus_write(p->mmio, where, size, values[n]);
                bus_read(p->mmio, where, size);
            }
            for (unsigned at = 0; at < VIRTIO_PCI_PORTS; at++) {
                bus_write(p->pio, p->notify + at, size, values[n]);
                bus_read(p->pio, p->notify + at, size);
            }
        }
    }
    end();
}

/* ---- a device that takes long over its reset
 * -------------------------------------------------------- */

#define SLOW_MS 600u
#define MS      (NS_PER_SECOND / 1000)

struct resetter {
    pthread_t thread;
    bool by_window;
};

static void *reset_disk(void *arg)
{
    const struct resetter *resetter = arg;
    if (resetter->by_window)
        set_config(DATA, 1, 0);
    else
        pci_common_write(p, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    return NULL;
}

/* P3, and a guest that masks a vector with its interrupts off. */
/* As a kernel does it that is about to start another, and as the next one's driver undoes it. */
Test(pci, a_function_that_is_no_master_of_its_bus_touches_no_memory_and_sends_nothing)
{
    for (unsigned late = 0; late < 2; late++) { /* whether the driver starts only then */
        begin(false);
        if (late)
            set_config(PCI_COMMAND, 2, ANSWERS);
        cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
        set_config(PCI_COMMAND, 2, ANSWERS);
        unsigned config_messages = messages(0), queue_messages = messages(1);
        struct piece piece = {RIG_FREE, 4096, true};
        const struct blk_request read = {.type = VIRTIO_BLK_T_IN, .data = &piece, .data_count = 1};
        uint16_t sent = blk_driver_send(&rig.blk_driver, 0, &read), number;
        uint8_t status = UINT8_MAX;
        virtio_driver_notify(v, 0);
        virtio_driver_settle(v);
        change_config();
        cr_expect_not(blk_driver_take(&rig.blk_driver, 0, &number, &status));
        cr_expect_eq(messages(0), config_messages);

        set_config(PCI_COMMAND, 1, ANSWERS | PCI_COMMAND_MASTER);
        cr_expect_eq(messages(0), config_messages + 1, "what was pending is sent");
        cr_assert(blk_driver_wait(&rig.blk_driver, 0, &number, &status), "without another kick");
        cr_expect(number == sent && status == VIRTIO_BLK_S_OK);
        cr_expect_eq(messages(1), queue_messages + 1);
        end();
    }
}

static void send_nothing(void *arg, uint64_t address, uint32_t data)
{
    (void)arg, (void)address, (void)data;
}

Test(pci, nobody_masters_the_bus_after_power_on)
{
    struct virtio_pci fresh;
    begin(false);
    struct virtio_dev *dev = &rig.rng.dev;
    const struct virtio_dev before = *dev;
    virtio_pci_init(&fresh, dev, VIRTIO_PCI_MEMORY_SIZE, VIRTIO_PCI_PORTS, send_nothing, NULL);
    cr_expect_eq(virtio_pci_config_read(&fresh, PCI_COMMAND, 2), ANSWERS);
    cr_expect(dev->holds & VIRTIO_HOLD_BUS);
    virtio_pci_finish(&fresh);
    dev->interrupt = before.interrupt, dev->transport = before.transport;
    end();
}

Test(pci, what_is_under_way_is_over_when_mastering_the_bus_is_taken_away)
{
    begin(true);
    cr_assert(virtio_rig_start(&rig, UINT64_MAX, 0));
    const struct fault faults[] = {
        {.call = CALL_PREADV2, .times = FAULT_ALWAYS, .error = EAGAIN},
        {.call = CALL_PREADV, .times = FAULT_ALWAYS, .sleep_ms = SLOW_MS / 3}};
    faults_set(faults, COUNT(faults));
    struct piece piece = {RIG_FREE, 4096, true};
    const struct blk_request read = {.type = VIRTIO_BLK_T_IN, .data = &piece, .data_count = 1};
    uint16_t sent = blk_driver_send(&rig.blk_driver, 0, &read), number;
    uint8_t status = UINT8_MAX;
    virtio_driver_notify(v, 0);
    virtio_driver_settle(v);
    set_config(PCI_COMMAND, 2, ANSWERS);
    cr_assert(blk_driver_take(&rig.blk_driver, 0, &number, &status));
    cr_expect(number == sent && status == VIRTIO_BLK_S_OK);
    end();
}

Test(pci, a_slow_reset_holds_up_neither_the_vectors_nor_other_devices)
{
    for (unsigned by_window = 0; by_window < 2; by_window++) {
        begin(true);
        cr_assert(virtio_rig_start(&rig, UINT64_MAX, 0));
        const struct fault faults[] = {
            {.call = CALL_PREADV2, .times = FAULT_ALWAYS, .error = EAGAIN},
            {.call = CALL_PREADV, .times = FAULT_ALWAYS, .sleep_ms = SLOW_MS}};
        faults_set(faults, COUNT(faults));
        struct piece piece = {RIG_FREE, 4096, true};
        const struct blk_request read = {.type = VIRTIO_BLK_T_IN, .data = &piece, .data_count = 1};
        blk_driver_send(&rig.blk_driver, 0, &read);
        virtio_driver_notify(v, 0);
        virtio_driver_settle(v);
        if (by_window)
            aim(0, VIRTIO_PCI_COMMON_STATUS, 1);
        struct resetter resetter = {.by_window = by_window};
        uint64_t start = clock_now_ns();
        cr_assert_eq(pthread_create(&resetter.thread, NULL, reset_disk, &resetter), 0);
        const struct timespec pause = {.tv_nsec = (long)(SLOW_MS / 6 * MS)};
        nanosleep(&pause, NULL);
        pci_driver_mask(p, 0, true);
        pci_driver_mask(p, 0, false);
        config(PCI_VENDOR_ID, 4);
        pci_config_read(p->pio, RIG_SLOT_RNG + 1, PCI_VENDOR_ID, 4);
        uint64_t took = clock_now_ns() - start;
        pthread_join(resetter.thread, NULL);
        cr_expect_gt(clock_now_ns() - start, SLOW_MS / 2 * MS, "it was slow");
        cr_expect_lt(took, SLOW_MS * 2 / 3 * MS, "%s", by_window ? "by the window" : "");
        end();
    }
}
