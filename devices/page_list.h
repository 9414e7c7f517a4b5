/*
 * A list of page numbers in any order, as runs of pages that follow one another: what turns many
 * small calls into the kernel into few long ones.
 */
#ifndef DEVICES_PAGE_LIST_H
#define DEVICES_PAGE_LIST_H

#include <stdint.h>

#define PAGE_LIST_MAX 1024u

struct page_list {
    uint32_t pages[PAGE_LIST_MAX]; /* the list; sorted by page_list_runs */
    uint32_t spare[PAGE_LIST_MAX];
};

/*
 * Sort the first `count` pages and call `run` for each run of them, by rising number. Returns how
 * many of them were repetitions, which are left out. Work is proportional to `count`.
 */
unsigned page_list_runs(struct page_list *list, unsigned count,
                        void (*run)(void *arg, uint64_t first, uint64_t count), void *arg);

#endif
