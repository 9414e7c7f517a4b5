#include "tests/unit/console_rig.h"

#include <fcntl.h>
#include <linux/virtio_ids.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/support.h"

#define RINGS (RAM_C + 0x20000)

static void printed(void *arg, const uint8_t *data, size_t size)
{
    struct console_rig *rig = arg;
    for (size_t i = 0; i < size; i++) {
        if (rig->printed_size + i < sizeof(rig->printed))
            rig->printed[rig->printed_size + i] = (char)data[i];
    }
    rig->printed_size += size;
}

static void status(void *arg, const uint8_t *data, size_t size)
{
    struct console_rig *rig = arg;
    cr_assert_leq(rig->status_size + size, sizeof(rig->status));
    memcpy(rig->status + rig->status_size, data, size);
    rig->status_size += size;
}

static void leave(void *arg)
{
    struct console_rig *rig = arg;
    rig->leaves++;
}

static void failed(void *arg, const char *name, int error)
{
    struct console_rig *rig = arg;
    rig->failures++;
    snprintf(rig->failed, sizeof(rig->failed), "%s: %s", name, strerror(error));
}

static const struct console_events events = {
    .printed = printed, .status = status, .leave = leave, .failed = failed};

int console_rig_init(struct console_rig *rig, const struct console_config *given, bool threaded,
                     struct minivmm_error *err)
{
    const struct virtio_rig_config base = {.no_disk = true, .threaded = threaded};
    struct console_config config = *given;
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    memset(rig, 0, sizeof(*rig));
    config.events = &events;
    config.arg = rig;
    cr_assert(virtio_rig_init(&rig->base, &base, err), "%s", err->text);
    int rc = console_create(&config, &rig->base.mem, &rig->base.loop, &rig->console, err);
    if (rc < 0) {
        virtio_rig_finish(&rig->base);
        return rc;
    }
    struct virtio_dev *dev = console_device(rig->console);
    rig->base.slots[RIG_SLOT_NONE].dev = dev;
    bus_add(&rig->base.bus, RIG_SLOTS + RIG_SLOT_NONE * RIG_SLOT, VIRTIO_MMIO_SIZE,
            &virtio_mmio_ops, &rig->base.slots[RIG_SLOT_NONE]);
    rig->v = (struct virtio_driver){.bus = &rig->base.bus,
                                    .mem = &rig->base.mem,
                                    .loop = &rig->base.loop,
                                    .call = dev->call,
                                    .rings = RINGS};
    cr_assert(virtio_driver_find(&rig->v, RIG_SLOTS, RIG_SLOT_COUNT, VIRTIO_ID_CONSOLE));
    resources_take(&rig->base.before); /* the console's too */
    return 0;
}

void console_rig_finish(struct console_rig *rig)
{
    virtio_shutdown(console_device(rig->console));
    if (rig->base.loop.has_thread) {
        event_loop_stop(&rig->base.loop);
        pthread_join(rig->base.thread, NULL);
        rig->base.loop.has_thread = false;
    }
    virtio_driver_finish(&rig->v);
    console_destroy(rig->console);
    virtio_rig_finish(&rig->base);
}

void console_rig_console(struct console_rig *rig, int in, int out, bool threaded)
{
    const struct minivmm_char host = {.kind = MINIVMM_CHAR_FDS, .in = in, .out = out};
    const struct console_config config = {.console = &host};
    struct minivmm_error err;

    cr_assert_eq(console_rig_init(rig, &config, threaded, &err), 0, "%s", err.text);
    cr_assert(virtio_driver_start(&rig->v, UINT64_MAX, 0));
}

void console_rig_ports(struct console_rig *rig, const struct minivmm_port *ports, unsigned count)
{
    const struct console_config config = {.ports = ports, .port_count = count, .status_port = true};
    struct minivmm_error err;

    cr_assert_eq(console_rig_init(rig, &config, false, &err), 0, "%s", err.text);
    cr_assert(virtio_driver_start(&rig->v, UINT64_MAX, 0));
}

bool console_rig_send(struct console_rig *rig, unsigned queue, const void *data, uint32_t size)
{
    struct piece piece = {OUT_BUF, size, false};
    struct vring_used_elem element;

    fake_driver_write(&rig->v.queues[queue], OUT_BUF, data, size);
    return virtio_driver_transact(&rig->v, queue, &piece, 1, &element) && element.len == 0;
}

bool console_rig_control(struct console_rig *rig, uint32_t id, uint16_t event, uint16_t value)
{
    const struct virtio_console_control message = {.id = id, .event = event, .value = value};
    return console_rig_send(rig, CONTROL_TX, &message, sizeof(message));
}

void console_rig_offer(struct console_rig *rig, unsigned queue, unsigned slot, uint32_t size)
{
    struct piece piece = {IN_BUF + 4096ull * slot, size, true};
    fake_driver_send(&rig->v.queues[queue], &piece, 1);
    virtio_driver_notify(&rig->v, queue);
}

int console_rig_received(struct console_rig *rig, unsigned queue, unsigned slot, void *data)
{
    struct vring_used_elem element;

    virtio_driver_settle(&rig->v);
    if (!fake_driver_take(&rig->v.queues[queue], &element))
        return -1;
    fake_driver_read(&rig->v.queues[queue], IN_BUF + 4096ull * slot, data, element.len);
    return (int)element.len;
}

static void expect_message(struct console_rig *rig, uint32_t id, uint16_t event, const char *name)
{
    uint8_t bytes[4096];
    struct virtio_console_control message;

    console_rig_offer(rig, CONTROL_RX, 0, 4096);
    int size = console_rig_received(rig, CONTROL_RX, 0, bytes);
    cr_assert_eq(size, (int)(sizeof(message) + strlen(name)), "event %u: %d bytes", event, size);
    memcpy(&message, bytes, sizeof(message));
    cr_assert_eq(message.id, id);
    cr_assert_eq(message.event, event);
    cr_assert_eq(message.value, 1);
    cr_assert_eq(memcmp(bytes + sizeof(message), name, strlen(name)), 0);
}

void console_rig_open(struct console_rig *rig, uint32_t id, const char *name)
{
    cr_assert(console_rig_control(rig, id, VIRTIO_CONSOLE_PORT_READY, 1));
    expect_message(rig, id, VIRTIO_CONSOLE_PORT_NAME, name);
    expect_message(rig, id, VIRTIO_CONSOLE_PORT_OPEN, "");
    cr_assert(console_rig_control(rig, id, VIRTIO_CONSOLE_PORT_OPEN, 1));
}

bool console_rig_works(struct console_rig *rig)
{
    char byte = '.';

    if (virtio_driver_read(&rig->v, VIRTIO_MMIO_STATUS) != STATUS_DRIVER_OK &&
        !virtio_driver_start(&rig->v, UINT64_MAX, 0))
        return false;
    return console_rig_send(rig, TX, &byte, 1) && virtio_rig_works(&rig->base);
}

size_t console_rig_read(int fd, char *text, size_t size)
{
    size_t length = 0;
    ssize_t n;

    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    while (length < size && (n = read(fd, text + length, size - length)) > 0)
        length += (size_t)n;
    return length;
}
