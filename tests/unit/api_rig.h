/*
 * What stands behind requests to the control socket in a test: a configuration with some of
 * everything, and a VM that only remembers what it was asked.
 */
#ifndef TESTS_UNIT_API_RIG_H
#define TESTS_UNIT_API_RIG_H

#include "vmm/api_request.h"

struct api_rig {
    struct api_target target;

    /* What the VM answers. */
    enum minivmm_state state;
    bool has_balloon;
    struct minivmm_balloon answer;
    int button; /* of the power button; 0: there is one */

    /* What it was asked. */
    unsigned changes; /* how often for one, also for one that it refused */
    int stopped;      /* by which signal */
    unsigned pressed;
    uint64_t balloon;
    unsigned interval;
};

/* One at a time: a running VM that has a power button and, perhaps, a balloon. */
void api_rig_init(struct api_rig *rig, bool balloon);

/* `body` may be NULL. The reply's body is the caller's to free. */
struct api_reply api_rig_ask(struct api_rig *rig, const char *method, const char *path,
                             const char *body);

#endif
