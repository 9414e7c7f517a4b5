/* Lists of pages as runs, against a slow and simple way to do the same. */
#include <stdlib.h>
#include <string.h>

#include "devices/page_list.h"
#include "tests/unit/support.h"

SUITE(page_list);

#define SMALL 4096u

/* Which pages of [0, SMALL) came, and the end of the last run. */
struct seen {
    uint8_t pages[SMALL];
    uint64_t end;
    unsigned runs;
    bool in_order;
};

static void note(void *arg, uint64_t first, uint64_t count)
{
    struct seen *seen = arg;
    seen->in_order &= seen->runs == 0 || first > seen->end; /* runs that touch would be one */
    seen->runs++;
    seen->end = first + count;
    for (uint64_t page = first; page < first + count && page < SMALL; page++)
        seen->pages[page]++;
}

Test(page_list, random_lists)
{
    static struct page_list list;
    unsigned short random[3] = {7, 7, 7};
    for (unsigned round = 0; round < 3000; round++) {
        unsigned count = 1 + (unsigned)nrand48(random) % PAGE_LIST_MAX;
        unsigned range = 1u << (nrand48(random) % 13);
        static uint8_t named[SMALL];
        struct seen seen = {.in_order = true};
        unsigned distinct = 0;
        memset(named, 0, sizeof(named));
        for (unsigned i = 0; i < count; i++) {
            list.pages[i] = (uint32_t)nrand48(random) % range;
            distinct += !named[list.pages[i]];
            named[list.pages[i]] = 1;
        }
        unsigned repeated = page_list_runs(&list, count, note, &seen);
        cr_assert_eq(repeated, count - distinct);
        cr_assert(seen.in_order);
        cr_assert_eq(memcmp(seen.pages, named, SMALL), 0, "round %u", round);
    }
}

Test(page_list, every_digit_counts)
{
    static struct page_list list;
    for (unsigned shift = 0; shift < 32; shift++) {
        struct seen seen = {.in_order = true};
        list.pages[0] = 1u << shift;
        list.pages[1] = 0;
        cr_expect_eq(page_list_runs(&list, 2, note, &seen), 0);
        cr_expect(seen.in_order && seen.runs == (shift == 0 ? 1u : 2u), "bit %u", shift);
    }
}

Test(page_list, nothing_and_the_largest)
{
    static struct page_list list;
    struct seen seen = {.in_order = true};
    cr_expect_eq(page_list_runs(&list, 0, note, &seen), 0);
    cr_expect_eq(seen.runs, 0);
    list.pages[0] = list.pages[1] = UINT32_MAX;
    list.pages[2] = UINT32_MAX - 1;
    cr_expect_eq(page_list_runs(&list, 3, note, &seen), 1);
    cr_expect(seen.runs == 1 && seen.end == 1ull << 32);
}
