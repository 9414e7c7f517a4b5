/*
 * The PCI transport: virtio 1.2, section 4.1, and what a hostile guest does with it. What is true
 * of every transport is in the suites that make check-unit-pci runs; here is the rest, but for
 * interrupts (test_pci_messages.c), the calls of datapaths outside (test_pci_calls.c) and bus
 * mastering (test_pci_master.c).
 */
#include <string.h>

#include "tests/unit/pci_rig.h"

SUITE(pci);

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

/* As for a driver whose processor had something else to do between two reads. */
Test(pci, config_generation_does_not_come_round_however_much_changes)
{
    begin(false);
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    unsigned before = common(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
    for (unsigned i = 0; i <= UINT8_MAX; i++)
        change_config();
    cr_expect_neq(common(VIRTIO_PCI_COMMON_CFGGENERATION, 1), before);
    end();
}

/* ---- 4.1.4.9: accesses through configuration space --------------------------------------------
 */

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
