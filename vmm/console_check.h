/*
 * What a configuration says of serial port, console and ports: whether it can be, and what the
 * kernel is told of it.
 */
#ifndef VMM_CONSOLE_CHECK_H
#define VMM_CONSOLE_CHECK_H

#include "vmm/error.h"

/* -EINVAL with a text that names what is wrong. */
int console_check(const struct minivmm_config *config, struct minivmm_error *err);

/*
 * The kernel's console= words: the serial port, the console, or both. A serial port that leads
 * nowhere is left out beside a console, because each character of it costs a way out of the guest.
 */
const char *console_words(const struct minivmm_config *config);

#endif
