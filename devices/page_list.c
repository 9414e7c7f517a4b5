#include "devices/page_list.h"

#include <stdbool.h>

#define DIGIT_BITS 8u
#define DIGITS     (1u << DIGIT_BITS)

static bool is_sorted(const uint32_t *pages, unsigned count)
{
    for (unsigned i = 1; i < count; i++) {
        if (pages[i] < pages[i - 1])
            return false;
    }
    return true;
}

/* One pass of a radix sort; false, with nothing done, when all have the same digit. */
static bool sort_by(const uint32_t *from, uint32_t *to, unsigned count, unsigned shift)
{
    unsigned place[DIGITS] = {0}, sum = 0;

    for (unsigned i = 0; i < count; i++)
        place[from[i] >> shift & (DIGITS - 1)]++;
    if (place[from[0] >> shift & (DIGITS - 1)] == count)
        return false;
    for (unsigned i = 0; i < DIGITS; i++) {
        unsigned here = place[i];
        place[i] = sum;
        sum += here;
    }
    for (unsigned i = 0; i < count; i++)
        to[place[from[i] >> shift & (DIGITS - 1)]++] = from[i];
    return true;
}

/* A radix sort: in time that no order of the pages can make longer, and without allocation. */
static const uint32_t *sort(struct page_list *list, unsigned count)
{
    uint32_t *from = list->pages, *to = list->spare;

    if (is_sorted(from, count))
        return from;
    for (unsigned shift = 0; shift < 32; shift += DIGIT_BITS) {
        if (sort_by(from, to, count, shift)) {
            uint32_t *swap = from;
            from = to;
            to = swap;
        }
    }
    return from;
}

unsigned page_list_runs(struct page_list *list, unsigned count,
                        void (*run)(void *arg, uint64_t first, uint64_t count), void *arg)
{
    const uint32_t *pages = sort(list, count);
    unsigned repeated = 0;

    for (unsigned i = 0; i < count;) {
        uint64_t first = pages[i], end = first + 1;
        for (i++; i < count && pages[i] <= end; i++) {
            if (pages[i] == end)
                end++;
            else
                repeated++;
        }
        run(arg, first, end - first);
    }
    return repeated;
}
