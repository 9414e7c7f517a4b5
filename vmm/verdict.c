#include "vmm/verdict.h"

int verdict_exit_code(enum minivmm_end end, uint32_t status)
{
    switch (end) {
    case MINIVMM_END_POWEROFF:
    case MINIVMM_END_REBOOT:
    case MINIVMM_END_UNTIL:
        return MINIVMM_EXIT_OK;
    case MINIVMM_END_STATUS: /* a status that does not fit must not wrap into another, or to 0 */
        return status < MINIVMM_EXIT_STATUS_MAX ? (int)status : MINIVMM_EXIT_STATUS_MAX;
    case MINIVMM_END_PANIC:
        return MINIVMM_EXIT_PANIC;
    case MINIVMM_END_TRIPLE_FAULT:
    case MINIVMM_END_KVM:
        return MINIVMM_EXIT_FAULT;
    case MINIVMM_END_SILENCE:
        return MINIVMM_EXIT_SILENCE;
    case MINIVMM_END_EXPECTATION:
        return MINIVMM_EXIT_EXPECTATION;
    case MINIVMM_END_TIMEOUT:
        return MINIVMM_EXIT_TIMEOUT;
    case MINIVMM_END_STOPPED:
        return MINIVMM_EXIT_SIGNAL + (int)status;
    case MINIVMM_END_ERROR:
        break;
    }
    return MINIVMM_EXIT_ERROR;
}
