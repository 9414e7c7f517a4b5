/*
 * The driver's side of a split virtqueue (virtio 1.2, section 2.7), as a guest would have it: it
 * speaks only through guest memory and trusts nothing it finds there but the used ring. It does
 * what it is told, rules or no rules.
 *
 * Descriptors come from a free list, lowest first in a new driver, and return to it when
 * fake_driver_take finds their chain in the used ring. What it wrote stays in `table`; a test that
 * wants something odd changes an entry there and calls fake_driver_write_desc. One thread a driver.
 */
#ifndef TESTS_UNIT_FAKE_DRIVER_H
#define TESTS_UNIT_FAKE_DRIVER_H

#include <linux/virtio_ring.h>

#include "virtio/virtq.h"

#define PAGE 4096u

/* A buffer, or a part of one. */
struct piece {
    uint64_t gpa;
    uint32_t len;
    bool write; /* by the device */
};

struct fake_driver {
    const struct guest_mem *mem;
    struct virtq_config config;
    struct vring_desc *table; /* the descriptor table as this side wrote it */
    uint16_t *next_free;      /* links of the free list, by descriptor */
    uint16_t *chain_length;   /* direct descriptors of the chain that starts here; 0: none does */
    uint16_t free_head;
    unsigned free_count;
    uint16_t offered;   /* entries written to the available ring, free-running */
    uint16_t published; /* the available index as last written */
    uint16_t decided;   /* `published` at the last fake_driver_kick_due */
    uint16_t used_seen; /* entries taken out of the used ring, free-running */
};

/* The three areas one after the other from `gpa` on, each on a page of its own. */
struct virtq_config fake_driver_layout(uint64_t gpa, uint32_t size, bool indirect, bool event_idx);

/* Zero the rings, which lie in RAM whole; both indices start at `first`. */
void fake_driver_init(struct fake_driver *d, const struct guest_mem *mem,
                      const struct virtq_config *config, uint16_t first);
void fake_driver_finish(struct fake_driver *d);

/* Guest memory by address, across adjacent regions too. */
void fake_driver_write(const struct fake_driver *d, uint64_t gpa, const void *data, size_t size);
void fake_driver_read(const struct fake_driver *d, uint64_t gpa, void *data, size_t size);

/* Write table[index] to guest memory. */
void fake_driver_write_desc(struct fake_driver *d, uint16_t index);
void fake_driver_set_desc(struct fake_driver *d, uint16_t index, struct vring_desc desc);

/*
 * Build a chain and return its head. In the second, all pieces after the first `direct` ones are
 * in a table of their own at `table_gpa`.
 */
uint16_t fake_driver_add(struct fake_driver *d, const struct piece *pieces, unsigned count);
uint16_t fake_driver_add_indirect(struct fake_driver *d, const struct piece *pieces, unsigned count,
                                  unsigned direct, uint64_t table_gpa);

/* Put a head into the next entry of the available ring; make all entries so far visible. */
void fake_driver_offer(struct fake_driver *d, uint16_t head);
void fake_driver_publish(struct fake_driver *d);

/* All three steps: add, offer, publish. */
uint16_t fake_driver_send(struct fake_driver *d, const struct piece *pieces, unsigned count);

/* Must the device be told of what was published since this was last asked (2.7.10.1)? */
bool fake_driver_kick_due(struct fake_driver *d);

/* The next entry of the used ring; false when there is none. */
bool fake_driver_take(struct fake_driver *d, struct vring_used_elem *element);

/*
 * Ask for an interrupt at the next used entry, as a driver does before it sleeps. True when there
 * is one already: then there may be no interrupt for it.
 */
bool fake_driver_sleep(struct fake_driver *d);

/* Words of the rings. The first five the driver writes, the others belong to the device. */
void fake_driver_set_avail_idx(struct fake_driver *d, uint16_t idx);
void fake_driver_set_avail_flags(struct fake_driver *d, uint16_t flags);
void fake_driver_set_used_event(struct fake_driver *d, uint16_t event);
void fake_driver_set_used_idx(struct fake_driver *d, uint16_t idx);
void fake_driver_set_used_flags(struct fake_driver *d, uint16_t flags);
uint16_t fake_driver_used_idx(const struct fake_driver *d);
uint16_t fake_driver_used_flags(const struct fake_driver *d);
uint16_t fake_driver_avail_event(const struct fake_driver *d);
struct vring_used_elem fake_driver_used_element(const struct fake_driver *d, unsigned slot);

#endif
