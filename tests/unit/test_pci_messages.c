/* The interrupt messages of a PCI function: virtio 1.2, sections 4.1.5.1.2 and 4.1.4.5. */
#include "tests/unit/pci_rig.h"

SUITE(pci_messages);

Test(pci_messages, a_vector_there_is_not_reads_back_as_none)
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

Test(pci_messages, each_queue_interrupts_by_its_own_vector_or_by_none)
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

Test(pci_messages, a_mask_holds_one_message_back)
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

Test(pci_messages, nothing_is_sent_while_MSI_X_is_off_nor_afterwards)
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

Test(pci_messages, a_reset_forgets_vectors_and_what_waits_behind_masks)
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

Test(pci_messages, reading_the_interrupt_status_clears_it)
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

Test(pci_messages, vectors_are_accessed_by_4_and_8_bytes)
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
