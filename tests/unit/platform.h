/*
 * Made-up platforms to describe: the devices every machine has, with or without virtio slots.
 */
#ifndef TESTS_UNIT_PLATFORM_H
#define TESTS_UNIT_PLATFORM_H

#include "boot/boot.h"
#include "tests/unit/support.h"
#include "vmm/layout.h"

struct platform {
    struct platform_fact facts[3 + LAYOUT_VIRTIO_SLOTS];
    struct boot_config config;
};

void platform_make(struct platform *platform, unsigned cpus, unsigned slots);

static const unsigned platform_cpus[] = {1, 2, 254};
static const unsigned platform_slots[] = {0, LAYOUT_VIRTIO_SLOTS};

/* Do the bytes add up to 0? */
bool platform_sums_to_zero(const void *bytes, size_t length);

#endif
