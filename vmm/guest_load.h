/*
 * The part of building a VM that needs no KVM: check the configuration, make guest memory and fill
 * it. Serves minivmm_create and minivmm_explain alike, so that the one shows what the other runs.
 */
#ifndef VMM_GUEST_LOAD_H
#define VMM_GUEST_LOAD_H

#include "boot/boot.h"
#include "vmm/layout.h"

#define FACTS_MAX (3 + LAYOUT_VIRTIO_SLOTS)

struct guest_load {
    struct guest_mem mem;
    struct boot_result boot;
    struct platform_fact facts[FACTS_MAX];
    unsigned fact_count;
};

/* Strings of `config` need to live only until this returns. On failure nothing is left. */
int guest_load_init(struct guest_load *load, const struct minivmm_config *config,
                    struct minivmm_error *err);
void guest_load_finish(struct guest_load *load);

/*
 * What the configuration puts into virtio slot `slot`: "disk 0 (root.img)", "net 1 (tap1)". The
 * slots are in the order of slots_create. False, and an empty text, for a slot that has none.
 */
bool guest_load_slot(const struct minivmm_config *config, unsigned slot, char *text, size_t size);

#endif
