#include "vmm/watch_rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/error.h"

/* The kernel's own lines, with or without a time in front. */
#define KERNEL_LINE "^(\\[ *[0-9]+\\.[0-9]+\\] ?)?"

static const struct {
    const char *text;
    enum watch_outcome is;
} default_forbids[] = {
    {KERNEL_LINE "Kernel panic - not syncing", WATCH_PANIC},
    {KERNEL_LINE "(BUG: |kernel BUG at |Oops: |Oops\\[|general protection fault|"
                 "Unable to handle kernel )",
     WATCH_FORBIDDEN},
};
#define DEFAULT_FORBIDS (sizeof(default_forbids) / sizeof(default_forbids[0]))

/*
 * Where an expression goes wrong, which regcomp keeps to itself: behind its longest beginning that
 * is an expression by itself, so at an unmatched bracket and not at the end of the text. Nothing
 * for an expression so long that the search would take time.
 */
static const char *bad_place(const char *text, char *place, size_t size)
{
    size_t length = strlen(text);
    char beginning[1024];
    unsigned character = 1; /* counted as a reader does: bytes 10xxxxxx of UTF-8 continue one */
    regex_t regex;

    *place = '\0';
    if (length >= sizeof(beginning))
        return place;
    memcpy(beginning, text, length + 1);
    bool found = false;
    while (length > 0 && !found) {
        beginning[--length] = '\0';
        found = regcomp(&regex, beginning, REG_EXTENDED) == 0;
        if (found)
            regfree(&regex);
    }
    for (size_t i = 0; i < length; i++)
        character += ((uint8_t)text[i] & 0xc0) != 0x80;
    snprintf(place, size, " at character %u", character);
    return place;
}

/* An expression of the user's, which may be wrong. */
static int compile(struct watch_rule *rule, const char *option, const char *text,
                   struct minivmm_error *err)
{
    char reason[120], place[40];

    int rc = regcomp(&rule->regex, text, REG_EXTENDED);
    rule->compiled = rc == 0;
    if (rc == 0)
        return 0;
    regerror(rc, &rule->regex, reason, sizeof(reason));
    return error_set(err, -EINVAL, "%s: '%s': %s%s", option, text, reason,
                     bad_place(text, place, sizeof(place)));
}

/* Without `option` the expression is one of ours, and compiled when it is needed. */
static int add_rule(struct watch_rules *rules, struct watch_rule *list, unsigned *count,
                    const char *option, const char *text, struct minivmm_error *err)
{
    struct watch_rule *rule = &list[*count];

    int rc = option ? compile(rule, option, text, err) : 0;
    if (rc < 0)
        return rc;
    (*count)++; /* it is freed with the others, whatever comes */
    rule->text = strdup(text);
    if (!rule->text)
        return error_set(err, -ENOMEM, "out of memory");
    rule->is = WATCH_FORBIDDEN;
    rule->has_literals = literals_add(&rules->literals, text);
    return 0;
}

/*
 * Does it match the whole line? Our own expressions are compiled only here, when text of theirs has
 * been seen: few guests print any, and all start faster. Where there is no memory for it then, the
 * text is enough: a panic must not pass.
 */
bool watch_rule_matches(struct watch_rule *rule, const char *line)
{
    if (!rule->compiled && regcomp(&rule->regex, rule->text, REG_EXTENDED) != 0)
        return true;
    rule->compiled = true;
    return regexec(&rule->regex, line, 0, NULL, 0) == 0;
}

static int add_rules(struct watch_rules *rules, const struct minivmm_config *config,
                     struct minivmm_error *err)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < config->expect_count; i++) {
        rc = add_rule(rules, rules->expects, &rules->expect_count, "expect",
                      config->expects[i].pattern, err);
        if (rc == 0)
            rules->expects[i].within = config->expects[i].within;
    }
    for (unsigned i = 0; rc == 0 && i < DEFAULT_FORBIDS && !config->no_default_fail_on; i++) {
        rc = add_rule(rules, rules->forbids, &rules->forbid_count, NULL, default_forbids[i].text,
                      err);
        if (rc == 0)
            rules->forbids[i].is = default_forbids[i].is;
    }
    for (unsigned i = 0; rc == 0 && i < config->fail_on_count; i++)
        rc = add_rule(rules, rules->forbids, &rules->forbid_count, "fail-on", config->fail_on[i],
                      err);
    if (rc == 0 && config->until)
        rc = add_rule(rules, rules->until, &rules->until_count, "until", config->until, err);
    return rc;
}

static void free_list(struct watch_rule *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (list[i].compiled)
            regfree(&list[i].regex);
        free((char *)list[i].text);
    }
    free(list);
}

int watch_rules_init(struct watch_rules *rules, const struct minivmm_config *config,
                     struct minivmm_error *err)
{
    *rules = (struct watch_rules){
        .expects = calloc(config->expect_count + 1u, sizeof(struct watch_rule)),
        .forbids = calloc(config->fail_on_count + DEFAULT_FORBIDS, sizeof(struct watch_rule)),
        .until = calloc(1, sizeof(struct watch_rule))};
    return rules->expects && rules->forbids && rules->until
               ? add_rules(rules, config, err)
               : error_set(err, -ENOMEM, "out of memory");
}

void watch_rules_finish(struct watch_rules *rules)
{
    free_list(rules->expects, rules->expect_count);
    free_list(rules->forbids, rules->forbid_count);
    free_list(rules->until, rules->until_count);
    *rules = (struct watch_rules){0};
}
