#include "tests/unit/blk_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTROL 64u /* bytes of a request's header and status */
#define STATUS  32u /* where in them the status is */

#define SMALL        16u /* entries of an indirect table */
#define LARGE_TABLES 16u

/* Cut a part of a request into descriptors. */
static unsigned cut(struct piece *pieces, unsigned count, struct piece part, uint32_t most)
{
    do {
        if (count == BLK_DRIVER_PIECES) {
            fprintf(stderr, "a request in too many pieces\n");
            abort();
        }
        uint32_t length = most && part.len > most ? most : part.len;
        pieces[count++] = (struct piece){part.gpa, length, part.write};
        part.gpa += length;
        part.len -= length;
    } while (part.len > 0);
    return count;
}

static uint16_t get_control(struct blk_driver *d)
{
    for (unsigned i = 0; i < BLK_DRIVER_CONTROLS; i++) {
        if (!(d->taken[i / 64] >> i % 64 & 1)) {
            d->taken[i / 64] |= 1ull << i % 64;
            return (uint16_t)i;
        }
    }
    fprintf(stderr, "too many requests under way\n");
    abort();
}

/* Where a request's indirect table lies: a small one each, and a few large ones. */
static uint64_t table_of(const struct blk_driver *d, uint16_t number, unsigned count)
{
    const uint64_t small = 16 * SMALL, large = 16 * BLK_DRIVER_PIECES;
    uint64_t tables = d->controls + CONTROL * BLK_DRIVER_CONTROLS;

    if (count <= SMALL)
        return tables + small * number;
    if (number >= LARGE_TABLES) {
        fprintf(stderr, "too many large requests under way\n");
        abort();
    }
    return tables + small * BLK_DRIVER_CONTROLS + large * number;
}

void blk_driver_forget(struct blk_driver *d)
{
    memset(d->taken, 0, sizeof(d->taken));
}

uint16_t blk_driver_send(struct blk_driver *d, unsigned queue, const struct blk_request *request)
{
    struct piece pieces[BLK_DRIVER_PIECES];
    struct fake_driver *ring = &d->v.queues[queue];
    uint16_t number = get_control(d);
    uint64_t control = d->controls + CONTROL * number;
    const struct virtio_blk_outhdr header = {.type = request->type, .sector = request->sector};
    const uint8_t none = BLK_DRIVER_NONE;

    fake_driver_write(ring, control, &header, sizeof(header));
    fake_driver_write(ring, control + STATUS, &none, 1);
    unsigned count = cut(pieces, 0, (struct piece){control, sizeof(header), false}, d->piece);
    for (unsigned i = 0; i < request->data_count; i++)
        count = cut(pieces, count, request->data[i], d->piece);
    count = cut(pieces, count, (struct piece){control + STATUS, 1, true}, 0);

    uint16_t head =
        d->indirect ? fake_driver_add_indirect(ring, pieces, count, 0, table_of(d, number, count))
                    : fake_driver_add(ring, pieces, count);
    d->control_of[queue][head] = number;
    fake_driver_offer(ring, head);
    fake_driver_publish(ring);
    return number;
}

static void end(struct blk_driver *d, unsigned queue, const struct vring_used_elem *element,
                uint16_t *number, uint8_t *status)
{
    *number = d->control_of[queue][element->id];
    d->taken[*number / 64] &= ~(1ull << *number % 64);
    d->used_length = element->len;
    fake_driver_read(&d->v.queues[queue], d->controls + CONTROL * *number + STATUS, status, 1);
}

bool blk_driver_take(struct blk_driver *d, unsigned queue, uint16_t *number, uint8_t *status)
{
    struct vring_used_elem element;
    if (!fake_driver_take(&d->v.queues[queue], &element))
        return false;
    end(d, queue, &element, number, status);
    return true;
}

bool blk_driver_wait(struct blk_driver *d, unsigned queue, uint16_t *number, uint8_t *status)
{
    struct vring_used_elem element;
    if (!virtio_driver_wait(&d->v, queue, &element))
        return false;
    end(d, queue, &element, number, status);
    return true;
}

uint8_t blk_driver_do(struct blk_driver *d, const struct blk_request *request)
{
    uint16_t sent = blk_driver_send(d, 0, request), number;
    uint8_t status;

    virtio_driver_kick(&d->v, 0);
    return blk_driver_wait(d, 0, &number, &status) && number == sent ? status : BLK_DRIVER_NONE;
}

static uint8_t transfer(struct blk_driver *d, uint32_t type, uint64_t sector, uint64_t gpa,
                        uint32_t length)
{
    const struct piece data = {gpa, length, type != VIRTIO_BLK_T_OUT};
    const struct blk_request request = {type, sector, &data, length > 0};
    return blk_driver_do(d, &request);
}

uint8_t blk_driver_read(struct blk_driver *d, uint64_t sector, uint64_t gpa, uint32_t length)
{
    return transfer(d, VIRTIO_BLK_T_IN, sector, gpa, length);
}

uint8_t blk_driver_write(struct blk_driver *d, uint64_t sector, uint64_t gpa, uint32_t length)
{
    return transfer(d, VIRTIO_BLK_T_OUT, sector, gpa, length);
}

uint8_t blk_driver_flush(struct blk_driver *d)
{
    return transfer(d, VIRTIO_BLK_T_FLUSH, 0, 0, 0);
}

uint8_t blk_driver_get_id(struct blk_driver *d, uint64_t gpa, uint32_t length)
{
    return transfer(d, VIRTIO_BLK_T_GET_ID, 0, gpa, length);
}

uint8_t blk_driver_clear(struct blk_driver *d, uint32_t type,
                         const struct virtio_blk_discard_write_zeroes *ranges, unsigned count,
                         uint64_t gpa)
{
    const struct piece data = {gpa, count * (uint32_t)sizeof(*ranges), false};
    const struct blk_request request = {type, 0, &data, count > 0};
    fake_driver_write(&d->v.queues[0], gpa, ranges, data.len);
    return blk_driver_do(d, &request);
}
