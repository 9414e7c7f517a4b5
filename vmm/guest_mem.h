/*
 * Guest memory: regions of guest-physical addresses backed by the process's own memory.
 *
 * The regions are fixed once vCPUs run, so any thread may translate without a lock. guest_mem_at
 * and guest_mem_run translate; nothing else turns a guest-physical address into a pointer.
 */
#ifndef VMM_GUEST_MEM_H
#define VMM_GUEST_MEM_H

#include "vmm/error.h"

#define GUEST_MEM_REGIONS_MAX 8

struct guest_region {
    uint64_t gpa;  /* guest-physical address of the first byte, page aligned */
    uint64_t size; /* bytes, a multiple of the page size */
    uint8_t *host; /* where it is in this process */
    void *mapping; /* what mmap returned; host is aligned within it */
    uint64_t mapping_size;
};

struct guest_mem {
    struct guest_region regions[GUEST_MEM_REGIONS_MAX]; /* by rising gpa, disjoint */
    unsigned count;
};

/*
 * RAM of `size` bytes as an x86 machine has it: from 0 up to LAYOUT_LOW_RAM_END and the rest from
 * LAYOUT_HIGH_RAM on. Zeroed, private, not counted as committed, huge pages asked for.
 */
int guest_mem_init(struct guest_mem *mem, uint64_t size, struct minivmm_error *err);

/* Add one region above all there are; an empty guest_mem is {0}. Before any vCPU runs. */
int guest_mem_add(struct guest_mem *mem, uint64_t gpa, uint64_t size, struct minivmm_error *err);

/* Unmap all. Nothing may use the memory any more. Harmless on {0} and when repeated. */
void guest_mem_finish(struct guest_mem *mem);

/*
 * The bytes at `gpa`, for a range that may go on in the next region: how far *len goes within one
 * region is left in *len. NULL when `gpa` is in none, or *len is 0. Inline, because every buffer of
 * every request comes through here.
 */
static inline void *guest_mem_run(const struct guest_mem *mem, uint64_t gpa, uint64_t *len)
{
    for (unsigned i = 0; i < mem->count; i++) {
        const struct guest_region *region = &mem->regions[i];
        /* An address below the region wraps to a huge offset. */
        uint64_t offset = gpa - region->gpa;
        if (offset >= region->size || *len == 0)
            continue;
        if (*len > region->size - offset)
            *len = region->size - offset;
        return region->host + offset;
    }
    return NULL;
}

/*
 * The `len` bytes at `gpa`, or NULL unless [gpa, gpa + len) lies within one region. A length of 0
 * is answered with NULL: there is nothing to point at.
 */
void *guest_mem_at(const struct guest_mem *mem, uint64_t gpa, uint64_t len);

/* All regions added up, in bytes. */
uint64_t guest_mem_size(const struct guest_mem *mem);

#endif
