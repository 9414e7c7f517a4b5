#include "vmm/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "vmm/clock.h"

/* A line without an end, a prompt say, is looked at when it has rested for so long at most. */
#define PARTIAL_NS (NS_PER_SECOND / 20)

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

/* ---- rules --------------------------------------------------------------------------------- */

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
static int add_rule(struct watch *watch, struct watch_rule *rules, unsigned *count,
                    const char *option, const char *text, struct minivmm_error *err)
{
    struct watch_rule *rule = &rules[*count];

    int rc = option ? compile(rule, option, text, err) : 0;
    if (rc < 0)
        return rc;
    (*count)++; /* it is freed with the others, whatever comes */
    rule->text = strdup(text);
    if (!rule->text)
        return error_set(err, -ENOMEM, "out of memory");
    rule->is = WATCH_FORBIDDEN;
    rule->has_literals = literals_add(&watch->literals, text);
    return 0;
}

/*
 * Does it match the whole line? Our own expressions are compiled only here, when text of theirs has
 * been seen: few guests print any, and all start faster. Where there is no memory for it then, the
 * text is enough: a panic must not pass.
 */
static bool matches(struct watch_rule *rule, const char *line)
{
    if (!rule->compiled && regcomp(&rule->regex, rule->text, REG_EXTENDED) != 0)
        return true;
    rule->compiled = true;
    return regexec(&rule->regex, line, 0, NULL, 0) == 0;
}

static int add_rules(struct watch *watch, const struct minivmm_config *config,
                     struct minivmm_error *err)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < config->expect_count; i++) {
        rc = add_rule(watch, watch->expects, &watch->expect_count, "expect",
                      config->expects[i].pattern, err);
        if (rc == 0)
            watch->expects[i].within = config->expects[i].within;
    }
    for (unsigned i = 0; rc == 0 && i < DEFAULT_FORBIDS && !config->no_default_fail_on; i++) {
        rc = add_rule(watch, watch->forbids, &watch->forbid_count, NULL, default_forbids[i].text,
                      err);
        if (rc == 0)
            watch->forbids[i].is = default_forbids[i].is;
    }
    for (unsigned i = 0; rc == 0 && i < config->fail_on_count; i++)
        rc = add_rule(watch, watch->forbids, &watch->forbid_count, "fail-on", config->fail_on[i],
                      err);
    if (rc == 0 && config->until)
        rc = add_rule(watch, watch->until, &watch->until_count, "until", config->until, err);
    return rc;
}

static void free_rules(struct watch_rule *rules, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (rules[i].compiled)
            regfree(&rules[i].regex);
        free((char *)rules[i].text);
    }
    free(rules);
}

static void note_rules(struct watch *watch);
static void handle_timer(void *arg);

int watch_init(struct watch *watch, const struct minivmm_config *config, struct event_loop *loop,
               void (*report)(void *arg, enum watch_outcome outcome, const char *text), void *arg,
               struct minivmm_error *err)
{
    *watch = (struct watch){.lock = PTHREAD_MUTEX_INITIALIZER,
                            .silence = config->silence,
                            .fail_on_prompts = config->fail_on_count > 0,
                            .report = report,
                            .arg = arg,
                            .timer.source.fd = -1};
    watch->expects = calloc(config->expect_count + 1u, sizeof(struct watch_rule));
    watch->forbids = calloc(config->fail_on_count + DEFAULT_FORBIDS, sizeof(struct watch_rule));
    watch->until = calloc(1, sizeof(struct watch_rule));
    int rc = watch->expects && watch->forbids && watch->until
                 ? add_rules(watch, config, err)
                 : error_set(err, -ENOMEM, "out of memory");
    if (rc == 0)
        rc = event_timer_init(&watch->timer, loop, handle_timer, watch, err);
    note_rules(watch);
    return rc;
}

void watch_finish(struct watch *watch)
{
    if (!watch->report)
        return;
    free_rules(watch->expects, watch->expect_count);
    free_rules(watch->forbids, watch->forbid_count);
    free_rules(watch->until, watch->until_count);
    event_timer_finish(&watch->timer);
    *watch = (struct watch){0};
}

/* ---- matching, with the lock held ---------------------------------------------------------- */

/* Returns whether the watch is over, which leave wants to know. */
static bool enter(struct watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    return watch->over;
}

/* Reports what ended the watch since. */
static void leave(struct watch *watch, bool was_over)
{
    bool ends = watch->over && !was_over;
    pthread_mutex_unlock(&watch->lock);
    if (ends)
        watch->report(watch->arg, watch->outcome, watch->found);
}

static void find(struct watch *watch, enum watch_outcome outcome, const char *text)
{
    if (watch->over)
        return;
    watch->over = true;
    watch->outcome = outcome;
    snprintf(watch->found, sizeof(watch->found), "%.199s", text);
}

/* Does the rule match what is left of the line? Then that much of it is used up. */
static bool use_up(struct watch_line *line, const struct watch_rule *rule)
{
    regmatch_t match;

    if (regexec(&rule->regex, line->text + line->looked, 1, &match,
                line->looked ? REG_NOTBOL : 0) != 0)
        return false;
    line->looked += (unsigned)match.rm_eo;
    return true;
}

/* The rules that count now are others: must each have some of the literals in what it matches? */
static void note_rules(struct watch *watch)
{
    bool needs = true;

    for (unsigned i = 0; i < watch->forbid_count; i++)
        needs &= watch->forbids[i].has_literals;
    if (watch->met < watch->expect_count)
        needs &= watch->expects[watch->met].has_literals;
    else if (watch->until_count > 0)
        needs &= watch->until[0].has_literals;
    watch->needs_literals = needs;
}

static void look_at_line(struct watch *watch, struct watch_line *line)
{
    if (watch->needs_literals &&
        !literals_occur(&watch->literals, (const uint8_t *)line->text, line->length))
        return;
    line->text[line->length] = '\0';
    for (unsigned i = 0; i < watch->forbid_count && !watch->over; i++) {
        struct watch_rule *rule = &watch->forbids[i];
        if (matches(rule, line->text))
            find(watch, rule->is, line->text);
    }
    while (watch->met < watch->expect_count && use_up(line, &watch->expects[watch->met])) {
        const char *text = watch->expects[watch->met++].text;
        note_rules(watch);
        if (watch->expected)
            watch->expected(watch->arg, watch->met, text);
    }
    if (watch->until_count > 0 && watch->met == watch->expect_count &&
        use_up(line, &watch->until[0]))
        find(watch, WATCH_UNTIL, watch->until[0].text);
}

static void look_at_lines(struct watch *watch)
{
    for (unsigned i = 0; i < WATCH_SOURCES; i++)
        look_at_line(watch, &watch->lines[i]);
}

static void begin_line(struct watch_line *line)
{
    line->length = line->looked = 0;
}

/* A byte that is neither a control character nor part of a control sequence. */
static void add_byte(struct watch *watch, struct watch_line *line, uint8_t byte)
{
    if (line->length == WATCH_LINE_MAX) {
        const unsigned half = WATCH_LINE_MAX / 2;
        look_at_line(watch, line);
        memmove(line->text, line->text + half, line->length - half);
        line->length -= half;
        line->looked = line->looked > half ? line->looked - half : 0;
    }
    line->text[line->length++] = (char)byte;
}

/* ECMA-48: escape sequences, control sequences, and strings that end in BEL or ST. */
static void take_byte(struct watch *watch, struct watch_line *line, uint8_t byte)
{
    switch (line->state) {
    case WATCH_TEXT:
        if (byte == 0x1b) {
            line->state = WATCH_ESCAPE;
        } else if (byte == '\n') {
            look_at_line(watch, line);
            begin_line(line);
        } else if (byte >= ' ' || byte == '\t') {
            add_byte(watch, line, byte);
        }
        break;
    case WATCH_ESCAPE:
        line->state = byte == '['                                                ? WATCH_CSI
                      : byte == ']' || byte == 'P' || byte == '^' || byte == '_' ? WATCH_STRING
                      : byte >= 0x20 && byte < 0x30                              ? WATCH_ESCAPE
                                                                                 : WATCH_TEXT;
        break;
    case WATCH_CSI:
        if (byte >= 0x40 || byte < 0x20)
            line->state = WATCH_TEXT;
        break;
    case WATCH_STRING:
        if (byte == 0x07 || byte == '\n')
            line->state = WATCH_TEXT;
        else if (byte == 0x1b)
            line->state = WATCH_STRING_ESCAPE;
        break;
    case WATCH_STRING_ESCAPE:
        line->state = byte == '\\' ? WATCH_TEXT : WATCH_STRING;
        break;
    }
}

/*
 * Lines from the beginning of `data` on, up to `end`, behind a newline, that need no closer look,
 * because they cannot match: returns how many bytes they are.
 */
static size_t skip_lines(const struct watch *watch, const struct watch_line *line,
                         const uint8_t *data, size_t end)
{
    if (line->state != WATCH_TEXT || line->length > 0 || end == 0 || !watch->needs_literals)
        return 0;
    size_t place = literals_find(&watch->literals, data, end);
    if (place == end)
        return end;
    const uint8_t *before = memrchr(data, '\n', place);
    return before ? (size_t)(before - data) + 1 : 0;
}

/* How many bytes at the beginning of `data` are ordinary characters? */
static size_t count_plain(const uint8_t *data, size_t size)
{
    size_t n = 0;

#if defined(__x86_64__)
    const __m128i space = _mm_set1_epi8(' ');
    for (; n + sizeof(space) <= size; n += sizeof(space)) {
        const __m128i x = _mm_loadu_si128((const __m128i *)(data + n));
        const __m128i plain = _mm_cmpeq_epi8(_mm_max_epu8(x, space), x);
        unsigned others = (unsigned)_mm_movemask_epi8(plain) ^ 0xffff;
        if (others)
            return n + (unsigned)__builtin_ctz(others);
    }
#endif
    while (n < size && data[n] >= ' ')
        n++;
    return n;
}

/* Ordinary characters at the beginning of `data` go into the line; returns how many. */
static size_t take_plain(struct watch_line *line, const uint8_t *data, size_t size)
{
    size_t room = WATCH_LINE_MAX - line->length;

    if (line->state != WATCH_TEXT)
        return 0;
    size_t n = count_plain(data, size < room ? size : room);
    memcpy(line->text + line->length, data, n);
    line->length += (unsigned)n;
    return n;
}

/* ---- time ---------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* When the watch must look at the clock next; 0: never. */
static uint64_t next_time(const struct watch *watch)
{
    uint64_t next = 0;

    if (watch->over || watch->paused)
        return 0;
    if (watch->met < watch->expect_count && watch->expects[watch->met].within)
        next = watch->started + watch->expects[watch->met].within * NS_PER_SECOND;
    if (watch->silence)
        next = earlier(next, watch->last_output + watch->silence * NS_PER_SECOND);
    return next;
}

static void look_at_clock(struct watch *watch)
{
    uint64_t now = clock_now_ns();
    char text[160];

    if (watch->paused)
        return;
    if (watch->met < watch->expect_count) {
        const struct watch_rule *rule = &watch->expects[watch->met];
        snprintf(text, sizeof(text), "expectation %u was not met within %u s: %s", watch->met + 1,
                 rule->within, rule->text);
        if (rule->within && now >= watch->started + rule->within * NS_PER_SECOND)
            find(watch, WATCH_LATE, text);
    }
    if (watch->silence && now >= watch->last_output + watch->silence * NS_PER_SECOND) {
        snprintf(text, sizeof(text), "nothing was printed for %u s", watch->silence);
        find(watch, WATCH_SILENCE, text);
    }
    uint64_t next = next_time(watch);
    if (next)
        event_timer_set(&watch->timer, next > now ? next - now : 1);
}

static void handle_timer(void *arg)
{
    struct watch *watch = arg;
    bool was_over = enter(watch);
    if (watch->timer_set) {
        watch->timer_set = false;
        look_at_lines(watch);
    }
    look_at_clock(watch);
    leave(watch, was_over);
}

void watch_start(struct watch *watch)
{
    bool was_over = enter(watch);
    watch->started = watch->last_output = clock_now_ns();
    look_at_clock(watch);
    leave(watch, was_over);
}

void watch_pause(struct watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    watch->paused = clock_now_ns();
    pthread_mutex_unlock(&watch->lock);
}

void watch_resume(struct watch *watch)
{
    bool was_over = enter(watch);
    uint64_t length = clock_now_ns() - watch->paused;
    watch->started += length;
    watch->last_output += length;
    watch->paused = 0;
    look_at_clock(watch);
    if (watch->timer_set)
        event_timer_set(&watch->timer, PARTIAL_NS);
    leave(watch, was_over);
}

void watch_feed(struct watch *watch, enum watch_source source, const uint8_t *data, size_t size)
{
    struct watch_line *line = &watch->lines[source];
    bool was_over = enter(watch);

    const uint8_t *last = size > 1 ? memrchr(data, '\n', size) : NULL;
    const size_t end = last ? (size_t)(last - data) + 1 : 0;
    for (size_t i = skip_lines(watch, line, data, end); i < size;) {
        i += take_plain(line, data + i, size - i);
        if (i == size)
            break;
        bool ends = data[i] == '\n';
        take_byte(watch, line, data[i++]);
        if (ends)
            i += skip_lines(watch, line, data + i, end > i ? end - i : 0);
    }
    if (watch->silence)
        watch->last_output = clock_now_ns();
    /* Prompts do not end in a newline; none of our own expressions is for one. */
    bool waits = watch->met < watch->expect_count || watch->until_count > 0;
    if ((waits || watch->fail_on_prompts) && line->length > 0 && !watch->timer_set && !watch->over) {
        watch->timer_set = true;
        event_timer_set(&watch->timer, PARTIAL_NS);
    }
    leave(watch, was_over);
}

bool watch_last_lines(struct watch *watch, enum watch_outcome *outcome, const char **text)
{
    bool was_over = enter(watch);
    look_at_lines(watch);
    bool ends = watch->over && !was_over;
    pthread_mutex_unlock(&watch->lock);
    *outcome = watch->outcome;
    *text = watch->found;
    return ends;
}

const char *watch_unmet(struct watch *watch, unsigned *number)
{
    enter(watch);
    bool unmet = watch->met < watch->expect_count;
    *number = watch->met + 1;
    const char *text = unmet ? watch->expects[watch->met].text : NULL;
    pthread_mutex_unlock(&watch->lock);
    return text;
}
