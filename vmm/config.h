/*
 * The command line of the program: argv to plain data. Pure: opens nothing, prints nothing.
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include "vmm/error.h"

struct options {
    struct minivmm_config vm; /* its strings point into argv, its devices are the next ones */
    struct minivmm_disk disks[MINIVMM_DEVICES_MAX];
    struct minivmm_net nets[MINIVMM_DEVICES_MAX];
    char *texts[2 * MINIVMM_DEVICES_MAX]; /* what the devices' strings point into */
    unsigned text_count;
    bool quiet; /* no verdict in words */
    bool explain;
    bool stats;
    bool help;
    bool version;
};

/*
 * -EINVAL with a text that names option, value and reason. `options` must stay where it is, and
 * options_finish is due afterwards in either case.
 */
int options_parse(int argc, char *const argv[], struct options *options, struct minivmm_error *err);
void options_finish(struct options *options);

/* Values of --disk, --tap and --net, in config_devices.c: one more device of the kind. */
int store_disk(struct options *options, const char *name, const char *value,
               struct minivmm_error *err);
int store_tap(struct options *options, const char *name, const char *value,
              struct minivmm_error *err);
int store_net(struct options *options, const char *name, const char *value,
              struct minivmm_error *err);

/* The help text: every option, from the table that options_parse reads. */
void options_print_help(FILE *out);

#endif
