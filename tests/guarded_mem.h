/* Guest memory with inaccessible bytes round each region: who oversteps it is found out. */
#ifndef TESTS_GUARDED_MEM_H
#define TESTS_GUARDED_MEM_H

#include <sys/mman.h>

#include "tests/must.h"
#include "vmm/guest_mem.h"

#define GUARD (64u << 10)

/* Add a region above all there are; guest_mem_finish unmaps it. */
static inline void guarded_mem_add(struct guest_mem *mem, uint64_t gpa, uint64_t size)
{
    uint8_t *mapping =
        mmap(NULL, size + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST(mapping != MAP_FAILED);
    MUST(mprotect(mapping + GUARD, size, PROT_READ | PROT_WRITE) == 0);
    mem->regions[mem->count++] = (struct guest_region){.gpa = gpa,
                                                       .size = size,
                                                       .host = mapping + GUARD,
                                                       .mapping = mapping,
                                                       .mapping_size = size + 2 * GUARD};
}

#endif
