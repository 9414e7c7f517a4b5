/*
 * A PCI function that may not master its bus, and one that takes long over its reset: who has to
 * wait, and for what.
 */
#include <errno.h>
#include <time.h>

#include "tests/unit/pci_rig.h"
#include "vmm/clock.h"

SUITE(pci_master);

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

/* Each read of the disk takes `ms`. */
static void slow_reads(unsigned ms)
{
    const struct fault faults[] = {{.call = CALL_PREADV2, .times = FAULT_ALWAYS, .error = EAGAIN},
                                   {.call = CALL_PREADV, .times = FAULT_ALWAYS, .sleep_ms = ms}};
    faults_set(faults, COUNT(faults));
}

/* The driver asks for a page of the disk, and as much is done as can be at once. Returns the
 * request's number. */
static uint16_t ask_for_a_page(void)
{
    struct piece piece = {RIG_FREE, 4096, true};
    const struct blk_request read = {.type = VIRTIO_BLK_T_IN, .data = &piece, .data_count = 1};
    uint16_t number = blk_driver_send(&rig.blk_driver, 0, &read);

    virtio_driver_notify(v, 0);
    virtio_driver_settle(v);
    return number;
}

/* As a kernel does it that is about to start another, and as the next one's driver undoes it. */
Test(pci_master, a_function_that_is_no_master_of_its_bus_touches_no_memory_and_sends_nothing)
{
    for (unsigned late = 0; late < 2; late++) { /* whether the driver starts only then */
        begin(false);
        if (late)
            set_config(PCI_COMMAND, 2, ANSWERS);
        cr_assert(virtio_driver_start(v, UINT64_MAX, 0));
        set_config(PCI_COMMAND, 2, ANSWERS);
        unsigned config_messages = messages(0), queue_messages = messages(1);
        uint16_t sent = ask_for_a_page(), number;
        uint8_t status = UINT8_MAX;
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

Test(pci_master, nobody_masters_the_bus_after_power_on)
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

Test(pci_master, what_is_under_way_is_over_when_mastering_the_bus_is_taken_away)
{
    begin(true);
    cr_assert(virtio_rig_start(&rig, UINT64_MAX, 0));
    slow_reads(SLOW_MS / 3);
    uint16_t sent = ask_for_a_page(), number;
    uint8_t status = UINT8_MAX;
    set_config(PCI_COMMAND, 2, ANSWERS);
    cr_assert(blk_driver_take(&rig.blk_driver, 0, &number, &status));
    cr_expect(number == sent && status == VIRTIO_BLK_S_OK);
    end();
}

/* P3, and a guest that masks a vector with its interrupts off. */
Test(pci_master, a_slow_reset_holds_up_neither_the_vectors_nor_other_devices)
{
    for (unsigned by_window = 0; by_window < 2; by_window++) {
        begin(true);
        cr_assert(virtio_rig_start(&rig, UINT64_MAX, 0));
        slow_reads(SLOW_MS);
        ask_for_a_page();
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
