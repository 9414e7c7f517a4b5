/*
 * The kernel command line: defaults of minivmm, words that describe the platform, the user's words.
 * Later words win where Linux looks at one word only, so the user's come last.
 */
#ifndef BOOT_CMDLINE_H
#define BOOT_CMDLINE_H

#include "boot/boot.h"

/*
 * Compose the line for a kernel that takes `max` characters. *line is malloc'ed, NULL on
 * failure. -E2BIG with the lengths when it is too long, -EINVAL for a control character in the
 * user's words.
 */
int cmdline_compose(const struct boot_config *config, uint32_t max, char **line,
                    struct minivmm_error *err);

#endif
