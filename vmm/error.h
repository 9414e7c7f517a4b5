/*
 * Error text, added once, where it is known. Functions return a negative errno; the text travels in
 * a struct minivmm_error that the caller owns.
 */
#ifndef VMM_ERROR_H
#define VMM_ERROR_H

#include "vmm/minivmm.h"

/*
 * Write the text and return `code`, a negative errno, so that a failure is one statement:
 *     return error_set(err, -EINVAL, "kernel %s: not a bzImage", path);
 * `err` may be NULL. Control characters (from file names, say) become '?': it stays one line.
 */
int error_set(struct minivmm_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
