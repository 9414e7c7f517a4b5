/* The exit code that a VM's end deserves: README.md has the table. */
#ifndef VMM_VERDICT_H
#define VMM_VERDICT_H

#include "vmm/minivmm.h"

/* `status` is the guest's status, or the signal of a stop. */
int verdict_exit_code(enum minivmm_end end, uint32_t status);

#endif
