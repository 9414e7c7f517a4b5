#include "tests/unit/net_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER     sizeof(struct virtio_net_hdr_v1)
#define PIECES_MAX 256u
#define COMMANDS   NET_DRIVER_OUT
#define BUFFERS    (COMMANDS + 0x10000u)

static unsigned cut(struct piece *pieces, unsigned count, struct piece part, uint32_t most)
{
    while (part.len > 0) {
        if (count == PIECES_MAX) {
            fprintf(stderr, "a packet in too many pieces\n");
            abort();
        }
        uint32_t length = most && part.len > most ? most : part.len;
        pieces[count++] = (struct piece){part.gpa, length, part.write};
        part.gpa += length;
        part.len -= length;
    }
    return count;
}

bool net_driver_start(struct net_driver *d, uint64_t wanted, uint32_t size)
{
    memset(d->next_buffer, 0, sizeof(d->next_buffer));
    memset(d->buffers, 0, sizeof(d->buffers));
    d->fault = NULL;
    d->spilled = false;
    if (!virtio_driver_start(&d->v, wanted, size))
        return false;
    d->pairs = d->v.queue_count / 2;
    return true;
}

unsigned net_driver_control_queue(const struct net_driver *d)
{
    return d->v.features & FEATURE(VIRTIO_NET_F_MQ) ? 2 * d->pairs : 2;
}

void net_driver_add(struct net_driver *d, unsigned pair, unsigned count, uint32_t length)
{
    struct fake_driver *queue = &d->v.queues[2 * pair];

    for (unsigned i = 0; i < count; i++) {
        struct piece pieces[PIECES_MAX];
        unsigned slot = d->next_buffer[pair]++ % NET_DRIVER_BUFFERS;
        uint64_t gpa =
            d->memory + BUFFERS + (uint64_t)(pair * NET_DRIVER_BUFFERS + slot) * NET_DRIVER_STRIDE;
        static uint8_t fill[NET_DRIVER_STRIDE];
        memset(fill, NET_DRIVER_FILL, sizeof(fill));
        fake_driver_write(queue, gpa, fill, length < sizeof(fill) ? length : sizeof(fill));
        unsigned n = cut(pieces, 0, (struct piece){gpa, length, true}, d->piece);
        uint16_t head = fake_driver_add(queue, pieces, n);
        d->buffers[pair][head] = (struct net_driver_buffer){gpa, length};
        fake_driver_offer(queue, head);
    }
    fake_driver_publish(queue);
    virtio_driver_kick(&d->v, 2 * pair);
}

/* Copy one used buffer behind what there is of a packet. */
static void gather(struct net_driver *d, unsigned pair, const struct vring_used_elem *element,
                   uint8_t *packet, uint32_t *length)
{
    const struct net_driver_buffer *buffer = &d->buffers[pair][element->id];

    if (element->len > buffer->length) {
        d->fault = "more was written than there is room";
        return;
    }
    if (*length + element->len > NET_PACKET_MAX) {
        d->fault = "a packet larger than there are";
        return;
    }
    fake_driver_read(&d->v.queues[2 * pair], buffer->gpa, packet + *length, element->len);
    for (uint32_t at = element->len; at < buffer->length && at < element->len + 64; at++) {
        uint8_t byte;
        fake_driver_read(&d->v.queues[2 * pair], buffer->gpa + at, &byte, 1);
        if (byte != NET_DRIVER_FILL)
            d->spilled = true;
    }
    *length += element->len;
}

int net_driver_take(struct net_driver *d, unsigned pair, uint8_t *frame)
{
    static uint8_t packet[NET_PACKET_MAX];
    struct fake_driver *queue = &d->v.queues[2 * pair];
    struct vring_used_elem element;
    uint32_t length = 0;
    unsigned buffers = 0, want = 1;

    while (buffers < want) {
        if (!fake_driver_take(queue, &element)) {
            if (buffers > 0)
                d->fault = "a packet's buffers were not published at once";
            return -1;
        }
        if (buffers > 0 && d->buffers[pair][element.id].length == 0)
            continue;
        gather(d, pair, &element, packet, &length);
        buffers++;
        if (length >= HEADER) {
            memcpy(&d->header, packet, HEADER);
            want = d->header.num_buffers;
        } else {
            want = buffers + 1;
        }
        if (buffers < want && element.len != d->buffers[pair][element.id].length)
            d->fault = "a buffer that is not the last one was not filled";
        if (length >= HEADER && want < buffers)
            d->fault = "num_buffers is less than were used";
        if (d->fault)
            return -1;
    }
    memcpy(frame, packet + HEADER, length - HEADER);
    return (int)(length - HEADER);
}

int net_driver_receive(struct net_driver *d, unsigned pair, uint8_t *frame)
{
    for (;;) {
        int length = net_driver_take(d, pair, frame);
        if (length >= 0 || d->fault)
            return length;
        if (!fake_driver_sleep(&d->v.queues[2 * pair]) && !virtio_driver_wait_interrupt(&d->v))
            return -1;
    }
}

uint16_t net_driver_offer(struct net_driver *d, unsigned pair,
                          const struct virtio_net_hdr_v1 *header, const uint8_t *frame,
                          uint32_t length)
{
    static const struct virtio_net_hdr_v1 none;
    struct fake_driver *queue = &d->v.queues[2 * pair + 1];
    struct piece pieces[PIECES_MAX];
    uint64_t gpa = d->memory + (uint64_t)(d->next_out++ % 15) * NET_DRIVER_STRIDE;

    /* Small ones lie close together, so that a ring can be full of them. */
    if (length <= 256)
        gpa = d->memory + 15ull * NET_DRIVER_STRIDE + 272ull * (d->next_out % 256);
    fake_driver_write(queue, gpa, header ? header : &none, HEADER);
    fake_driver_write(queue, gpa + HEADER, frame, length);
    unsigned n = cut(pieces, 0, (struct piece){gpa, (uint32_t)HEADER + length, false}, d->piece);
    return fake_driver_send(queue, pieces, n);
}

bool net_driver_send(struct net_driver *d, unsigned pair, const uint8_t *frame, uint32_t length)
{
    struct vring_used_elem element;
    uint16_t head = net_driver_offer(d, pair, NULL, frame, length);

    virtio_driver_kick(&d->v, 2 * pair + 1);
    do {
        if (!virtio_driver_wait(&d->v, 2 * pair + 1, &element))
            return false;
    } while (element.id != head);
    return element.len == 0;
}

unsigned net_driver_sent(struct net_driver *d, unsigned pair)
{
    struct vring_used_elem element;
    unsigned count = 0;
    while (fake_driver_take(&d->v.queues[2 * pair + 1], &element))
        count++;
    return count;
}

int net_driver_control(struct net_driver *d, uint8_t class, uint8_t command, const void *data,
                       uint32_t size)
{
    unsigned index = net_driver_control_queue(d);
    struct fake_driver *queue = &d->v.queues[index];
    const struct virtio_net_ctrl_hdr header = {class, command};
    uint64_t gpa = d->memory + COMMANDS;
    struct piece pieces[PIECES_MAX];
    struct vring_used_elem element;
    uint8_t ack = 0x77;

    fake_driver_write(queue, gpa, &ack, 1);
    fake_driver_write(queue, gpa + 16, &header, sizeof(header));
    fake_driver_write(queue, gpa + 16 + sizeof(header), data, size);
    unsigned n = cut(pieces, 0, (struct piece){gpa + 16, sizeof(header), false}, d->piece);
    n = cut(pieces, n, (struct piece){gpa + 16 + sizeof(header), size, false}, d->piece);
    n = cut(pieces, n, (struct piece){gpa, 1, true}, 0);
    if (!virtio_driver_transact(&d->v, index, pieces, n, &element) || element.len != 1)
        return -1;
    fake_driver_read(queue, gpa, &ack, 1);
    return ack;
}
