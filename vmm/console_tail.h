/*
 * The end of what a guest has printed, kept for whoever asks how it went. Of fixed size, whatever
 * the guest prints. Every call may come from any thread.
 */
#ifndef VMM_CONSOLE_TAIL_H
#define VMM_CONSOLE_TAIL_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define CONSOLE_TAIL_SIZE 16384u /* bytes kept; a power of two */

struct console_tail {
    pthread_mutex_t lock;
    uint64_t total; /* bytes ever fed */
    uint8_t ring[CONSOLE_TAIL_SIZE];
};

void console_tail_init(struct console_tail *tail);
void console_tail_finish(struct console_tail *tail);

/* The guest has printed this. */
void console_tail_feed(struct console_tail *tail, const uint8_t *data, size_t size);

/*
 * Copy the last bytes, `size` and CONSOLE_TAIL_SIZE at most; returns how many. *total is how many
 * there ever were.
 */
size_t console_tail_copy(struct console_tail *tail, uint8_t *to, size_t size, uint64_t *total);

#endif
