#include "vmm/console_tail.h"

#include <string.h>

_Static_assert((CONSOLE_TAIL_SIZE & (CONSOLE_TAIL_SIZE - 1)) == 0, "places are told by a mask");

void console_tail_init(struct console_tail *tail)
{
    pthread_mutex_init(&tail->lock, NULL);
    tail->total = 0;
}

void console_tail_finish(struct console_tail *tail)
{
    pthread_mutex_destroy(&tail->lock);
}

void console_tail_feed(struct console_tail *tail, const uint8_t *data, size_t size)
{
    /* Only the end of it stays. */
    size_t over = size > CONSOLE_TAIL_SIZE ? size - CONSOLE_TAIL_SIZE : 0;

    pthread_mutex_lock(&tail->lock);
    tail->total += over;
    data += over;
    size -= over;
    size_t at = tail->total & (CONSOLE_TAIL_SIZE - 1);
    size_t first = size < CONSOLE_TAIL_SIZE - at ? size : CONSOLE_TAIL_SIZE - at;
    memcpy(tail->ring + at, data, first);
    memcpy(tail->ring, data + first, size - first);
    tail->total += size;
    pthread_mutex_unlock(&tail->lock);
}

size_t console_tail_copy(struct console_tail *tail, uint8_t *to, size_t size, uint64_t *total)
{
    pthread_mutex_lock(&tail->lock);
    uint64_t there = tail->total < CONSOLE_TAIL_SIZE ? tail->total : CONSOLE_TAIL_SIZE;
    if (size > there)
        size = (size_t)there;
    for (size_t i = 0; i < size; i++)
        to[i] = tail->ring[(tail->total - size + i) & (CONSOLE_TAIL_SIZE - 1)];
    *total = tail->total;
    pthread_mutex_unlock(&tail->lock);
    return size;
}
