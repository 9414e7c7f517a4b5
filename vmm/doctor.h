/*
 * `minivmm doctor KERNEL`: reads a kernel's file and says whether it can run here, what of it has
 * to come from an initrd, and with which options. What is not known is called so.
 */
#ifndef VMM_DOCTOR_H
#define VMM_DOCTOR_H

#include "vmm/error.h"

enum {
    DOCTOR_BOOTS = 0,
    DOCTOR_DOES_NOT = 1, /* something that it needs is missing, or not known */
};

/*
 * `words` are those behind "doctor". The answer goes to `out`; returns one of the above, or a
 * negative errno with a text for words or a file that make no sense.
 */
int doctor(int count, char *const words[], FILE *out, struct minivmm_error *err);

#endif
