/* Ports of virtio-console by name: the control queues (E4, S46), and the status port. */
#include <string.h>

#include "tests/unit/console_rig.h"
#include "tests/unit/support.h"

SUITE(console_control);

#define STATUS_PORT 3 /* behind two others */

static struct console_rig rig;
static const struct minivmm_port two[] = {{.name = "first"}, {.name = "org.example.second"}};

static void begin(void)
{
    console_rig_ports(&rig, two, COUNT(two));
}

static void end(void)
{
    cr_expect(console_rig_works(&rig), "the canary");
    console_rig_finish(&rig);
}

/* The next message of the device's, or -1; a buffer is offered for it. */
static int next(struct virtio_console_control *message)
{
    uint8_t bytes[4096];
    console_rig_offer(&rig, CONTROL_RX, 0, 4096);
    int size = console_rig_received(&rig, CONTROL_RX, 0, bytes);
    if (size >= (int)sizeof(*message))
        memcpy(message, bytes, sizeof(*message));
    return size;
}

static unsigned count_messages(void)
{
    struct virtio_console_control message;
    unsigned count = 0;
    while (count < 200 && next(&message) >= 0)
        count++;
    return count;
}

static void add_all(void)
{
    struct virtio_console_control message;
    cr_assert(console_rig_control(&rig, VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_DEVICE_READY, 1));
    for (unsigned id = 1; id <= STATUS_PORT; id++) {
        cr_assert_eq(next(&message), sizeof(message));
        cr_assert_eq(message.event, VIRTIO_CONSOLE_PORT_ADD);
        cr_assert_eq(message.id, id);
    }
}

Test(console_control, ports_are_added_named_and_opened)
{
    begin();
    cr_expect_eq(virtio_driver_config(&rig.v, 4, 4), 4, "port 0 and three");
    cr_expect_eq(virtio_driver_offered(&rig.v) &
                     (FEATURE(VIRTIO_CONSOLE_F_SIZE) | FEATURE(VIRTIO_CONSOLE_F_EMERG_WRITE)),
                 0);
    add_all();
    console_rig_open(&rig, 1, "first");
    console_rig_open(&rig, 2, "org.example.second");
    console_rig_open(&rig, STATUS_PORT, MINIVMM_STATUS_PORT);
    cr_assert(console_rig_send(&rig, PORT_1_TX + 4, "3\n", 2));
    cr_assert(console_rig_send(&rig, PORT_1_TX + 4, "0", 1));
    cr_expect_eq(rig.status_size, 3);
    cr_expect_eq(memcmp(rig.status, "3\n0", 3), 0);
    cr_expect_eq(rig.printed_size, 0, "ports are no consoles");
    end();
}

/* Each row from a driver that knows the ports, with port 1 ready and nothing open. */
#define MESSAGE(i, e, v)                                                                           \
    {                                                                                              \
        .id = (i), .event = (e), .value = (v)                                                      \
    }
static const struct {
    const char *name;
    struct virtio_console_control message;
    uint32_t size;    /* of it; longer: zeroes follow */
    unsigned answers; /* messages from the device */
} rows[] = {
    {"nothing", MESSAGE(0, 0, 0), 0, 0},
    {"1 byte", MESSAGE(2, VIRTIO_CONSOLE_PORT_READY, 1), 1, 0},
    {"7 bytes", MESSAGE(2, VIRTIO_CONSOLE_PORT_READY, 1), 7, 0},
    {"9 bytes", MESSAGE(2, VIRTIO_CONSOLE_PORT_READY, 1), 9, 2},
    {"a page", MESSAGE(2, VIRTIO_CONSOLE_PORT_READY, 1), 4096, 2},
    {"8 bytes", MESSAGE(2, VIRTIO_CONSOLE_PORT_READY, 1), 8, 2},
    {"device ready again", MESSAGE(0, VIRTIO_CONSOLE_DEVICE_READY, 1), 8, 0},
    {"device not ready", MESSAGE(0, VIRTIO_CONSOLE_DEVICE_READY, 0), 8, 0},
    {"device ready, 2", MESSAGE(0, VIRTIO_CONSOLE_DEVICE_READY, 2), 8, 0},
    {"ready twice", MESSAGE(1, VIRTIO_CONSOLE_PORT_READY, 1), 8, 0},
    {"not ready", MESSAGE(2, VIRTIO_CONSOLE_PORT_READY, 0), 8, 0},
    {"ready, 2", MESSAGE(2, VIRTIO_CONSOLE_PORT_READY, 2), 8, 0},
    {"port 0 ready, which is none", MESSAGE(0, VIRTIO_CONSOLE_PORT_READY, 1), 8, 0},
    {"port 4, one too many", MESSAGE(4, VIRTIO_CONSOLE_PORT_READY, 1), 8, 0},
    {"port 2^31", MESSAGE(0x80000000, VIRTIO_CONSOLE_PORT_READY, 1), 8, 0},
    {"port 2^32-1", MESSAGE(VIRTIO_CONSOLE_BAD_ID, VIRTIO_CONSOLE_PORT_OPEN, 1), 8, 0},
    {"open, 2", MESSAGE(1, VIRTIO_CONSOLE_PORT_OPEN, 2), 8, 0},
    {"open before it is ready", MESSAGE(2, VIRTIO_CONSOLE_PORT_OPEN, 1), 8, 0},
    {"closed before it is open", MESSAGE(1, VIRTIO_CONSOLE_PORT_OPEN, 0), 8, 0},
    {"open port 0", MESSAGE(0, VIRTIO_CONSOLE_PORT_OPEN, 1), 8, 0},
    {"add, which is for the device to say", MESSAGE(1, VIRTIO_CONSOLE_PORT_ADD, 1), 8, 0},
    {"remove", MESSAGE(1, VIRTIO_CONSOLE_PORT_REMOVE, 1), 8, 0},
    {"console", MESSAGE(1, VIRTIO_CONSOLE_CONSOLE_PORT, 1), 8, 0},
    {"resize", MESSAGE(1, VIRTIO_CONSOLE_RESIZE, 1), 8, 0},
    {"name", MESSAGE(1, VIRTIO_CONSOLE_PORT_NAME, 1), 8, 0},
    {"event 8", MESSAGE(1, 8, 1), 8, 0},
    {"event 65535", MESSAGE(1, 0xffff, 1), 8, 0},
};

Test(console_control, E4_messages)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t bytes[4096] = {0};
        struct virtio_console_control message;
        begin();
        add_all();
        cr_assert(console_rig_control(&rig, 1, VIRTIO_CONSOLE_PORT_READY, 1));
        cr_assert(next(&message) > 0 && next(&message) > 0);
        memcpy(bytes, &rows[i].message, sizeof(rows[i].message));
        cr_assert(console_rig_send(&rig, CONTROL_TX, bytes, rows[i].size), "%s", rows[i].name);
        unsigned answers = count_messages();
        cr_expect_eq(answers, rows[i].answers, "%s: %u answers", rows[i].name, answers);
        end();
    }
}

Test(console_control, E4_ready_before_the_port_was_added)
{
    begin();
    cr_assert(console_rig_control(&rig, 1, VIRTIO_CONSOLE_PORT_READY, 1));
    cr_assert(console_rig_control(&rig, 1, VIRTIO_CONSOLE_PORT_OPEN, 1));
    cr_expect_eq(count_messages(), 0);
    end();
}

/* A message as a chain that cannot hold one: read-only, or writable only. */
Test(console_control, E4_messages_in_buffers_of_the_wrong_direction)
{
    struct piece writable = {IN_BUF, 8, true};
    struct vring_used_elem element;
    begin();
    memset(virtio_rig_at(&rig.base, IN_BUF, 8), 0x5a, 8);
    cr_assert(virtio_driver_transact(&rig.v, CONTROL_TX, &writable, 1, &element));
    cr_expect_eq(element.len, 0);
    cr_expect_eq(*(uint8_t *)virtio_rig_at(&rig.base, IN_BUF, 8), 0x5a, "nothing is written");
    end();
}

/* Nothing is written past a buffer's end, and a message waits for one that it fits into. */
Test(console_control, E4_tiny_buffers_for_messages)
{
    static const uint32_t sizes[] = {0, 1, 7};
    struct virtio_console_control message;
    uint8_t bytes[4096];
    begin();
    uint8_t *at = virtio_rig_at(&rig.base, IN_BUF, 16);
    cr_assert(console_rig_control(&rig, 0, VIRTIO_CONSOLE_DEVICE_READY, 1));
    for (size_t i = 0; i < COUNT(sizes); i++) {
        memset(at, 0x5a, 16);
        console_rig_offer(&rig, CONTROL_RX, 0, sizes[i]);
        cr_expect_eq(console_rig_received(&rig, CONTROL_RX, 0, bytes), 0, "%u", sizes[i]);
        for (unsigned j = 0; j < 16; j++)
            cr_expect_eq(at[j], 0x5a, "%u bytes, byte %u", sizes[i], j);
    }
    console_rig_offer(&rig, CONTROL_RX, 0, 8);
    cr_expect_eq(console_rig_received(&rig, CONTROL_RX, 0, bytes), 8);
    cr_expect(next(&message) == 8 && next(&message) == 8, "the other two ports");
    cr_assert(console_rig_control(&rig, 1, VIRTIO_CONSOLE_PORT_READY, 1));
    console_rig_offer(&rig, CONTROL_RX, 0, 8); /* too small for the name */
    cr_expect_eq(console_rig_received(&rig, CONTROL_RX, 0, bytes), 0);
    console_rig_offer(&rig, CONTROL_RX, 0, 13);
    cr_expect_eq(console_rig_received(&rig, CONTROL_RX, 0, bytes), 13);
    cr_expect_eq(memcmp(bytes + 8, "first", 5), 0);
    end();
}

/* Nothing piles up: after ten thousand changes there is no more to be told than after one. */
Test(console_control, E4_storms_of_messages)
{
    begin();
    add_all();
    console_rig_open(&rig, 1, "first");
    for (unsigned i = 0; i < 10000; i++) {
        cr_assert(console_rig_control(&rig, 1, VIRTIO_CONSOLE_PORT_OPEN, i % 2));
        cr_assert(console_rig_control(&rig, 0, VIRTIO_CONSOLE_DEVICE_READY, 1));
        cr_assert(console_rig_control(&rig, 1 + i % 3, VIRTIO_CONSOLE_PORT_READY, 1));
    }
    cr_expect_eq(count_messages(), 4, "two ports are new, a name and an opening each");
    end();
}

Test(console_control, E8_a_reset_forgets_what_the_driver_knew)
{
    struct virtio_console_control message;
    begin();
    for (int i = 0; i < 20; i++) {
        add_all();
        console_rig_open(&rig, 1, "first");
        cr_assert(console_rig_control(&rig, 2, VIRTIO_CONSOLE_PORT_READY, 1));
        cr_assert(virtio_driver_start(&rig.v, UINT64_MAX, 0));
        cr_expect_eq(next(&message), -1, "nobody has asked");
        cr_assert(virtio_driver_start(&rig.v, UINT64_MAX, 0));
    }
    end();
}

Test(console_control, E5_without_the_feature_the_control_queues_are_dead)
{
    struct virtio_console_control message = {.event = VIRTIO_CONSOLE_DEVICE_READY, .value = 1};
    struct vring_used_elem element;
    begin();
    cr_assert(virtio_driver_start(&rig.v, ~FEATURE(VIRTIO_CONSOLE_F_MULTIPORT), 0));
    fake_driver_write(&rig.v.queues[CONTROL_TX], OUT_BUF, &message, sizeof(message));
    fake_driver_send(&rig.v.queues[CONTROL_TX], &(struct piece){OUT_BUF, 8, false}, 1);
    virtio_driver_notify(&rig.v, CONTROL_TX);
    console_rig_offer(&rig, CONTROL_RX, 0, 4096);
    virtio_driver_settle(&rig.v);
    cr_expect(!fake_driver_take(&rig.v.queues[CONTROL_TX], &element));
    cr_expect(!fake_driver_take(&rig.v.queues[CONTROL_RX], &element));
    cr_expect(console_rig_send(&rig, TX, "x", 1), "port 0 leads nowhere, and takes all");
    end();
}

/* A broken ring is the device's end until it is reset, and no other device's. */
Test(console_control, B2_a_broken_control_ring)
{
    begin();
    fake_driver_offer(&rig.v.queues[CONTROL_TX], 200); /* there are 64 */
    fake_driver_publish(&rig.v.queues[CONTROL_TX]);
    virtio_driver_notify(&rig.v, CONTROL_TX);
    virtio_driver_settle(&rig.v);
    cr_expect(virtio_driver_read(&rig.v, VIRTIO_MMIO_STATUS) & STATUS_NEEDS_RESET);
    cr_expect(virtio_rig_works(&rig.base));
    end();
}
