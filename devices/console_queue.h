/*
 * How the queues of virtio-console are served: their size, how much at a time, and bytes of output
 * out of their chains.
 */
#ifndef DEVICES_CONSOLE_QUEUE_H
#define DEVICES_CONSOLE_QUEUE_H

#include "virtio/virtio.h"

#define CONSOLE_QUEUE_SIZE 64u
#define CONSOLE_PIECES     (CONSOLE_QUEUE_SIZE + 1) /* one buffer may lie across two memory regions */
#define CONSOLE_BUDGET     64u                      /* chains, before others have their turn */

/*
 * Take chains of output until `room` bytes are in `chunk`; *size is how many there are, *puts how
 * many chains came to their end and wait for local_publish. A chain that does not fit stays with
 * the driver, and *done is how many bytes of it were taken: the caller keeps it for the next time,
 * 0 after a reset. Returns what virtq_next said last. Whoever calls serialises the calls.
 */
int console_queue_gather(struct virtio_queue *tx, uint64_t *done, uint8_t *chunk, size_t room,
                         size_t *size, unsigned *puts);

#endif
