/*
 * The command line of the program: argv to plain data. Pure: opens nothing, prints nothing.
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include "vmm/error.h"

struct options {
    struct minivmm_config vm; /* its strings point into argv */
    bool quiet;               /* no verdict in words */
    bool explain;
    bool stats;
    bool help;
    bool version;
};

/* -EINVAL with a text that names option, value and reason. */
int options_parse(int argc, char *const argv[], struct options *options, struct minivmm_error *err);

/* The help text: every option, from the table that options_parse reads. */
void options_print_help(FILE *out);

#endif
