/*
 * The command line of the program: argv to plain data. Pure: opens nothing, prints nothing.
 */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include "vmm/error.h"

#define OPTIONS_RULES_MAX 64u /* --expect, and --fail-on */

struct options {
    struct minivmm_config vm; /* its strings point into argv, its devices are the next ones */
    struct minivmm_disk disks[MINIVMM_DEVICES_MAX];
    struct minivmm_net nets[MINIVMM_DEVICES_MAX];
    struct minivmm_expect expects[OPTIONS_RULES_MAX];
    const char *fail_on[OPTIONS_RULES_MAX];
    struct minivmm_char serial, console;
    struct minivmm_port ports[MINIVMM_PORTS_MAX];
    struct minivmm_char *stdio;              /* who has standard input and output; NULL: nobody */
    char stdio_user[MINIVMM_PORT_NAME + 16]; /* its option, for error texts */
    char *texts[2 * MINIVMM_DEVICES_MAX +
                MINIVMM_PORTS_MAX]; /* what the devices' strings point into */
    unsigned text_count;
    const char *api_sock; /* path of the control socket; NULL: none */
    bool quiet; /* no verdict in words */
    bool explain;
    bool stats;
    const char *report, *junit, *timeline; /* files; NULL: not wanted */
    bool tap_output;
    bool help;
    const char *help_topic; /* the word behind --help; NULL: none */
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

/* Values of --serial, --console and --port, in config_console.c; and once all are known: defaults.
 */
int store_serial(struct options *options, const char *name, const char *value,
                 struct minivmm_error *err);
int store_console(struct options *options, const char *name, const char *value,
                  struct minivmm_error *err);
int store_port(struct options *options, const char *name, const char *value,
               struct minivmm_error *err);
void settle_consoles(struct options *options);

/* Values of --expect, --within, --fail-on and --silence, in config_watch.c. */
int store_expect(struct options *options, const char *name, const char *value,
                 struct minivmm_error *err);
int store_within(struct options *options, const char *name, const char *value,
                 struct minivmm_error *err);
int store_fail_on(struct options *options, const char *name, const char *value,
                  struct minivmm_error *err);
int store_silence(struct options *options, const char *name, const char *value,
                  struct minivmm_error *err);

/* Value of --balloon, in config_balloon.c. */
int store_balloon(struct options *options, const char *name, const char *value,
                  struct minivmm_error *err);

/* "512M": a number of MiB, or one with the suffix M, G or T; false when it is none. */
bool parse_size(const char *text, uint64_t *bytes);

/* A number from 1 to `max`; `unit` is for the error's text: " of seconds", or nothing. */
int store_count(const char *name, const char *value, unsigned max, const char *unit, unsigned *to,
                struct minivmm_error *err);

/* The help text: every option, from the table that options_parse reads. */
void options_print_help(FILE *out);

/* What the exit codes mean, in help_verdicts.c. */
void options_print_verdicts(FILE *out);

#endif
