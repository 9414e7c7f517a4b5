/*
 * The rules of a watch on what the guest prints: POSIX extended regular expressions, those of a
 * configuration and those that are always looked for, and the text that must occur where they
 * match.
 */
#ifndef VMM_WATCH_RULES_H
#define VMM_WATCH_RULES_H

#include <regex.h>

#include "vmm/literals.h"
#include "vmm/minivmm.h"

enum watch_outcome {
    WATCH_PANIC,     /* a kernel panic was printed */
    WATCH_FORBIDDEN, /* text that must not come has come; `text` is the line */
    WATCH_UNTIL,     /* the text to wait for has come; `text` is the expression */
    WATCH_LATE,      /* an expectation was not met in time; `text` says which */
    WATCH_SILENCE,   /* nothing was printed for the time given */
};

struct watch_rule {
    regex_t regex; /* once it is compiled */
    bool compiled;
    bool has_literals;     /* text of it is among the literals */
    const char *text;      /* as it was given, a copy */
    unsigned within;       /* seconds from the start; 0: any time */
    enum watch_outcome is; /* of a rule that forbids */
};

struct watch_rules {
    struct watch_rule *expects, *forbids, *until;
    unsigned expect_count, forbid_count, until_count; /* until: one at most */
    struct literals literals;                         /* of all rules that have some */
};

/*
 * -EINVAL with a text for a bad expression. watch_rules_finish is due in either case, and harmless
 * on {0}. The configuration need not stay.
 */
int watch_rules_init(struct watch_rules *rules, const struct minivmm_config *config,
                     struct minivmm_error *err);
void watch_rules_finish(struct watch_rules *rules);

/* Does a rule that forbids match the whole line? One caller at a time. */
bool watch_rule_matches(struct watch_rule *rule, const char *line);

#endif
