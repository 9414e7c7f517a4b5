#include "vmm/guest_mem.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "vmm/layout.h"

#define HUGE_PAGE (2ull << 20)

int guest_mem_add(struct guest_mem *mem, uint64_t gpa, uint64_t size, struct minivmm_error *err)
{
    assert(mem->count < GUEST_MEM_REGIONS_MAX);
    struct guest_region *region = &mem->regions[mem->count];
    assert(mem->count == 0 || gpa >= region[-1].gpa + region[-1].size);

    /* One huge page of slack, so that huge pages of the guest and of the host coincide. */
    uint64_t mapping_size = size + HUGE_PAGE;
    void *mapping = mmap(NULL, mapping_size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) {
        return error_set(err, -errno, "guest memory: cannot map %llu MiB: %s",
                         (unsigned long long)(size >> 20), strerror(errno));
    }
    uint64_t skip = (HUGE_PAGE - (uintptr_t)mapping % HUGE_PAGE + gpa % HUGE_PAGE) % HUGE_PAGE;
    *region = (struct guest_region){.gpa = gpa,
                                    .size = size,
                                    .host = (uint8_t *)mapping + skip,
                                    .mapping = mapping,
                                    .mapping_size = mapping_size};
    mem->count++;

    /*
     * Hints, all three: a kernel without huge pages runs the guest as well, only slower. A core
     * dump without guest RAM is small enough to keep, and a child of an embedding program must not
     * turn every page of the guest into copy-on-write. The first 2 MiB stay in small pages: every
     * boot touches a few of them, and clearing a huge page costs more than those.
     */
    uint64_t small = gpa == 0 && size > HUGE_PAGE ? HUGE_PAGE : 0;
    madvise(region->host + small, size - small, MADV_HUGEPAGE);
    madvise(region->host, size, MADV_DONTDUMP);
    madvise(region->host, size, MADV_DONTFORK);
    return 0;
}

int guest_mem_init(struct guest_mem *mem, uint64_t size, struct minivmm_error *err)
{
    uint64_t low = size < LAYOUT_LOW_RAM_END ? size : LAYOUT_LOW_RAM_END;

    *mem = (struct guest_mem){0};
    int rc = guest_mem_add(mem, 0, low, err);
    if (rc == 0 && size > low)
        rc = guest_mem_add(mem, LAYOUT_HIGH_RAM, size - low, err);
    if (rc < 0)
        guest_mem_finish(mem);
    return rc;
}

void guest_mem_finish(struct guest_mem *mem)
{
    for (unsigned i = 0; i < mem->count; i++)
        munmap(mem->regions[i].mapping, mem->regions[i].mapping_size);
    mem->count = 0;
}

void *guest_mem_at(const struct guest_mem *mem, uint64_t gpa, uint64_t len)
{
    uint64_t run = len;
    void *host = guest_mem_run(mem, gpa, &run);
    return run == len ? host : NULL;
}

uint64_t guest_mem_size(const struct guest_mem *mem)
{
    uint64_t size = 0;
    for (unsigned i = 0; i < mem->count; i++)
        size += mem->regions[i].size;
    return size;
}
