/*
 * The calls of a datapath outside this process over PCI (pci_call.h): what the guest makes of its
 * vectors holds for them at any time, whether they come by the loop or are wired.
 */
#include <errno.h>
#include <sys/eventfd.h>

#include "tests/unit/pci_rig.h"

SUITE(pci_calls);

#define OTHER 5u /* a vector's number that no queue has, so that its messages are told apart */

static const char *const ways[] = {"by the loop", "wired"};

static struct virtio_queue *queue_of(unsigned index)
{
    return virtio_queue(blk_device(rig.blk), index);
}

static const struct call_wire *wire_of(unsigned index)
{
    return &rig.calls.wires[RIG_SLOT_BLK * CALL_RIG_SLOT + index];
}

/* The datapath has used buffers of this queue; and what can be done about it is done. */
static void call(unsigned index)
{
    call_rig_signal(&rig.calls, RIG_SLOT_BLK, queue_of(index));
}

static void call_and_settle(unsigned index, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        call(index);
        virtio_driver_settle(v);
    }
}

static void get_wired(unsigned index)
{
    call_and_settle(index, PCI_CALL_MANY);
    cr_assert(wire_of(index)->wired);
}

static void start(bool wired)
{
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    virtio_driver_settle(v);
    if (wired)
        get_wired(0);
}

static void begin_calls(bool wired)
{
    begin_as((struct virtio_rig_config){.calls = true});
    start(wired);
}

static void set_queue_vector(unsigned queue, uint16_t vector)
{
    pci_common_write(p, VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
    pci_common_write(p, VIRTIO_PCI_COMMON_Q_MSIX, 2, vector);
}

static void set_entry(unsigned vector, unsigned field, uint32_t value)
{
    bus_write(p->mmio, p->table + (uint64_t)vector * PCI_MSIX_ENTRY_SIZE + field, 4, value);
}

static uint32_t data_of(unsigned vector)
{
    return pci_driver_message(p, vector);
}

Test(pci_calls, each_call_sends_its_queues_message)
{
    begin_calls(false);
    unsigned before[3] = {messages(0), messages(1), messages(2)};
    call_and_settle(0, 3);
    call_and_settle(1, 1);
    cr_expect_eq(messages(0), before[0]);
    cr_expect_eq(messages(1), before[1] + 3);
    cr_expect_eq(messages(2), before[2] + 1);
    cr_expect_eq(rig.strays, 0);
    end();
}

Test(pci_calls, a_call_is_wired_after_many_and_then_needs_no_loop)
{
    begin_calls(false);
    unsigned before = messages(1);
    unsigned had = rig.calls.wired;
    for (unsigned i = 1; i < PCI_CALL_MANY; i++) { /* some came with the start */
        if (wire_of(0)->wired)
            break;
        call_and_settle(0, 1);
        cr_expect_eq(messages(1), before + i);
    }
    call_and_settle(0, 1);
    cr_assert(wire_of(0)->wired);
    cr_expect_eq(rig.calls.wired, had + 1, "and no other queue's");
    cr_expect_not(wire_of(1)->wired);
    before = messages(1);
    call(0); /* nobody runs the loop */
    cr_expect_eq(messages(1), before + 1);
    virtio_driver_settle(v);
    cr_expect_eq(messages(1), before + 1, "once");
    flush_once();
    end();
}

Test(pci_calls, little_is_not_wired)
{
    begin_as((struct virtio_rig_config){.calls = true});
    cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
    virtio_driver_settle(v);
    call_and_settle(1, PCI_CALL_MANY - 1);
    cr_expect_not(wire_of(1)->wired);
    call_and_settle(1, 1);
    cr_expect(wire_of(1)->wired);
    end();
}

static void mask_entry(bool mask)
{
    pci_driver_mask(p, 1, mask);
}

static void mask_function(bool mask)
{
    pci_driver_control(p, PCI_MSIX_FLAGS_ENABLE | (mask ? PCI_MSIX_FLAGS_MASKALL : 0));
}

static void drop_mastering(bool mask)
{
    set_config(PCI_COMMAND, 2, ANSWERS | (mask ? 0 : PCI_COMMAND_MASTER));
}

Test(pci_calls, a_mask_holds_one_message_back)
{
    static const struct {
        const char *name;
        void (*set)(bool mask);
    } rows[] = {{"of the vector", mask_entry},
                {"of the function", mask_function},
                {"no bus mastering", drop_mastering}};
    for (size_t i = 0; i < 2 * COUNT(rows); i++) {
        const char *name = rows[i / 2].name, *way = ways[i % 2];
        begin_calls(i % 2);
        unsigned before = messages(1);
        rows[i / 2].set(true);
        cr_expect_not(wire_of(0)->wired, "%s, %s", name, way);
        call_and_settle(0, 3);
        cr_expect_eq(messages(1), before, "%s, %s", name, way);
        cr_expect(is_pending(1), "%s, %s", name, way);
        cr_expect_not(is_pending(2), "%s, %s", name, way);
        rows[i / 2].set(false);
        virtio_driver_settle(v);
        cr_expect_eq(messages(1), before + 1, "%s, %s", name, way);
        cr_expect_not(is_pending(1), "%s, %s", name, way);
        call_and_settle(0, 1);
        cr_expect_eq(messages(1), before + 2, "%s, %s", name, way);
        get_wired(0);
        cr_expect_eq(rig.strays, 0);
        end();
    }
}

/* The loop is about to see it when the mask is written. */
Test(pci_calls, a_call_that_came_just_before_a_mask_is_not_lost)
{
    begin_calls(false);
    unsigned before = messages(1);
    call(0);
    pci_driver_mask(p, 1, true);
    virtio_driver_settle(v);
    cr_expect_eq(messages(1), before);
    pci_driver_mask(p, 1, false);
    cr_expect_eq(messages(1), before + 1);
    end();
}

Test(pci_calls, a_vector_sends_what_the_guest_wrote_last)
{
    for (unsigned wired = 0; wired < 2; wired++) {
        begin_calls(wired);
        unsigned before = messages(1);
        set_entry(1, PCI_MSIX_ENTRY_DATA, data_of(OTHER));
        call_and_settle(0, 1);
        cr_expect_eq(messages(1), before, "%s", ways[wired]);
        cr_expect_eq(messages(OTHER), 1, "%s", ways[wired]);
        get_wired(0);
        unsigned sent = messages(OTHER);
        call(0);
        cr_expect_eq(messages(OTHER), sent + 1, "wired anew");
        set_entry(1, PCI_MSIX_ENTRY_UPPER_ADDR, 1); /* no local APIC is there */
        call_and_settle(0, 1);
        cr_expect_eq(messages(OTHER), sent + 1, "%s", ways[wired]);
        cr_expect_eq(rig.strays, 1, "%s", ways[wired]);
        end();
    }
}

Test(pci_calls, what_does_not_change_a_message_leaves_it_wired)
{
    begin_calls(true);
    set_entry(1, PCI_MSIX_ENTRY_DATA, data_of(1));
    set_entry(2, PCI_MSIX_ENTRY_DATA, data_of(OTHER));
    pci_driver_mask(p, 2, true);
    pci_driver_control(p, PCI_MSIX_FLAGS_ENABLE);
    set_config(PCI_COMMAND, 2, ANSWERS | PCI_COMMAND_MASTER);
    set_queue_vector(0, 1);
    cr_expect(wire_of(0)->wired);
    end();
}

Test(pci_calls, a_queue_goes_by_the_vector_it_has_now_or_by_none)
{
    for (unsigned wired = 0; wired < 2; wired++) {
        begin_calls(wired);
        unsigned before[3] = {messages(0), messages(1), messages(2)};
        set_queue_vector(0, 2);
        call_and_settle(0, 1);
        cr_expect_eq(messages(2), before[2] + 1, "%s", ways[wired]);
        if (wired)
            get_wired(0);
        unsigned sum = messages(0) + messages(1) + messages(2);
        set_queue_vector(0, NONE);
        call_and_settle(0, 2 * PCI_CALL_MANY);
        cr_expect_not(wire_of(0)->wired);
        set_queue_vector(0, 1);
        virtio_driver_settle(v);
        cr_expect_eq(messages(0) + messages(1) + messages(2), sum, "nobody is told, %s",
                     ways[wired]);
        call_and_settle(0, 1);
        cr_expect_eq(messages(1), before[1] + 1, "%s", ways[wired]);
        end();
    }
}

Test(pci_calls, two_queues_share_a_vector)
{
    begin_calls(true);
    set_queue_vector(1, 1);
    get_wired(1);
    unsigned before = messages(1);
    call(0);
    call(1);
    cr_expect_eq(messages(1), before + 2);
    pci_driver_mask(p, 1, true);
    call_and_settle(0, 1);
    call_and_settle(1, 1);
    cr_expect_eq(messages(1), before + 2);
    pci_driver_mask(p, 1, false);
    cr_expect_eq(messages(1), before + 3);
    end();
}

/* 4.1.4.5: then the interrupt status tells a driver that asks. */
Test(pci_calls, without_MSI_X_they_set_the_interrupt_status_and_send_nothing)
{
    static const struct virtio_datapath outside = {.external = true};
    for (unsigned wired = 0; wired < 2; wired++) {
        begin_calls(wired);
        struct virtio_dev *dev = blk_device(rig.blk);
        const struct virtio_datapath *datapath = dev->datapath;
        dev->datapath = &outside; /* which it would be */
        pci_driver_control(p, 0);
        bus_read(p->mmio, p->isr, 1);
        cr_expect_eq(bus_read(p->mmio, p->isr, 1), 0, "it is not always set");
        unsigned before = messages(1);
        call_and_settle(0, 2 * PCI_CALL_MANY);
        cr_expect(config(PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
        cr_expect_eq(bus_read(p->mmio, p->isr, 1), VIRTIO_MMIO_INT_VRING);
        cr_expect_eq(bus_read(p->mmio, p->isr, 1), 0);
        pci_driver_control(p, PCI_MSIX_FLAGS_ENABLE);
        virtio_driver_settle(v);
        cr_expect_eq(messages(1), before, "%s", ways[wired]);
        call_and_settle(0, 1);
        cr_expect_eq(messages(1), before + 1, "%s", ways[wired]);
        dev->datapath = datapath;
        end();
    }
}

Test(pci_calls, a_reset_forgets_calls_that_nobody_has_seen)
{
    for (unsigned wired = 0; wired < 2; wired++) {
        begin_calls(wired);
        if (wired)
            eventfd_write(queue_of(0)->call, 1); /* nobody listens there now */
        else
            call(0);
        virtio_driver_write(v, VIRTIO_MMIO_STATUS, 0);
        cr_expect_not(wire_of(0)->wired, "%s", ways[wired]);
        unsigned before = messages(1);
        set_queue_vector(0, 1); /* the next driver is quick */
        virtio_driver_settle(v);
        cr_expect_eq(messages(1), before, "2.4.1: nothing is told after a reset");
        cr_expect_eq(bus_read(p->mmio, p->isr, 1), 0);
        start(true);
        end();
    }
}

Test(pci_calls, a_call_that_cannot_be_wired_stays_with_the_loop)
{
    begin_as((struct virtio_rig_config){.calls = true});
    rig.calls.refusal = -ENOSPC;
    start(false);
    unsigned before = messages(1);
    call_and_settle(0, 3 * PCI_CALL_MANY);
    cr_expect_eq(messages(1), before + 3 * PCI_CALL_MANY);
    cr_expect_leq(rig.calls.refused, 4, "asked once for as many");
    cr_expect_geq(rig.calls.refused, 3);
    rig.calls.refusal = 0;
    get_wired(0);
    end();
}

/* Before Linux 5.11 the eventfd is readable all the same, see pci_call.h. */
Test(pci_calls, the_loop_leaves_a_wired_call_alone)
{
    begin_calls(true);
    unsigned before = messages(1);
    eventfd_write(queue_of(0)->call, 1);
    virtio_driver_settle(v);
    cr_expect_eq(messages(1), before);
    end();
}

/* Each step is a grace period of the kernel's. */
Test(pci_calls, a_guest_that_rewrites_its_vectors_for_ever_wires_nothing)
{
    begin_calls(true);
    unsigned steps = rig.calls.wired + rig.calls.unwired;
    for (unsigned i = 0; i < 100000; i++) {
        set_entry(1, PCI_MSIX_ENTRY_DATA, data_of(i % 2 ? OTHER : 1));
        pci_driver_mask(p, 1, i % 3);
        set_queue_vector(0, i % 5 ? 1 : 2);
        if (i % 100 == 0)
            call_and_settle(0, 1);
    }
    pci_driver_mask(p, 1, false);
    cr_expect_leq(rig.calls.wired + rig.calls.unwired - steps, 2 + 2 * 1000 / PCI_CALL_MANY);
    set_queue_vector(0, 1);
    get_wired(0);
    end();
}

Test(pci_calls, a_device_without_calls_has_the_device_s_own)
{
    begin(false);
    cr_expect_eq(queue_of(0)->call, blk_device(rig.blk)->call);
    end();
    begin_as((struct virtio_rig_config){.calls = true});
    cr_expect_neq(queue_of(0)->call, queue_of(1)->call);
    cr_expect_neq(queue_of(0)->call, blk_device(rig.blk)->call);
    end();
}
