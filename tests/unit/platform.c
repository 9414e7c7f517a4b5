#include "tests/unit/platform.h"

void platform_make(struct platform *platform, unsigned cpus, unsigned slots)
{
    unsigned n = 0;
    platform->facts[n++] =
        (struct platform_fact){.kind = PLATFORM_COM1, .base = 0x3f8, .len = 8, .irq = 4};
    platform->facts[n++] =
        (struct platform_fact){.kind = PLATFORM_POWER, .base = 0xd0000000, .len = 0x1000, .irq = 5};
    platform->facts[n++] =
        (struct platform_fact){.kind = PLATFORM_PVPANIC, .base = 0x505, .len = 1};
    for (unsigned i = 0; i < slots; i++)
        platform->facts[n++] = (struct platform_fact){
            .kind = PLATFORM_VIRTIO, .base = 0xd0001000 + i * 0x1000, .len = 0x1000, .irq = 8 + i};
    platform->config =
        (struct boot_config){.cpus = cpus, .facts = platform->facts, .fact_count = n};
}

bool platform_sums_to_zero(const void *bytes, size_t length)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < length; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
    return sum == 0;
}
