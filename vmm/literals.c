#include "vmm/literals.h"

#include <string.h>

_Static_assert(LITERAL_MIN == LITERAL_KEY, "the shortest are a key");

/* ---- expressions --------------------------------------------------------------------------- */

/* Behind a bracket expression that begins at `at`; `end` when it does not end. */
static const char *skip_bracket(const char *at, const char *end)
{
    at++;
    at += at < end && *at == '^';
    at += at < end && *at == ']';
    for (; at < end && *at != ']'; at++) {
        if (*at == '[' && at + 1 < end && strchr(":.=", at[1])) {
            char closing = at[1];
            for (at += 2; at + 1 < end && !(at[0] == closing && at[1] == ']'); at++)
                ;
            at++;
        }
    }
    return at < end ? at + 1 : end;
}

/* Behind what stands at `at`: a group, a bracket expression, an escape, or a character. */
static const char *skip_atom(const char *at, const char *end)
{
    unsigned depth = 0;

    do {
        if (*at == '[') {
            at = skip_bracket(at, end);
            continue;
        }
        if (*at == '(')
            depth++;
        else if (*at == ')' && depth > 0)
            depth--;
        at += *at == '\\' && at + 1 < end ? 2 : 1;
    } while (depth > 0 && at < end);
    return at < end ? at : end;
}

/* Behind the quantifiers at `at`; *optional when what they are for may be left out. */
static const char *skip_quantifiers(const char *at, const char *end, bool *optional)
{
    *optional = false;
    while (at < end && strchr("*+?{", *at)) {
        *optional |= *at != '+';
        if (*at == '{')
            while (at < end && *at != '}')
                at++;
        at += at < end;
    }
    return at;
}

/* The end of the alternative that begins at `at`. */
static const char *end_of_branch(const char *at, const char *end)
{
    while (at < end && *at != '|')
        at = skip_atom(at, end);
    return at;
}

/*
 * The character that the atom at `at` stands for, or 0. Texts are of ASCII, which makes the look
 * cheaper, and without J, which it cannot tell from a newline behind a control character.
 */
static char plain(const char *at, const char *end)
{
    if (*at == '\\')
        return at + 1 < end && strchr(".[]()*+?{}^$|\\/-", at[1]) ? at[1] : 0;
    return *at >= ' ' && *at <= '~' && *at != 'J' && !strchr(".[()*+?{^$|", *at) ? *at : 0;
}

/* The longest run of plain characters of a branch, outside of its groups. */
static struct literal longest_run(const char *at, const char *end)
{
    struct literal best = {.length = 0}, run = {.length = 0};

    while (at < end) {
        const char *behind = skip_atom(at, end), *next;
        bool optional;
        char c = plain(at, end);
        next = skip_quantifiers(behind, end, &optional);
        if (!c || optional)
            run.length = 0;
        else if (run.length < LITERAL_BYTES)
            run.text[run.length++] = c;
        if (run.length > best.length)
            best = run;
        if (next != behind)
            run.length = 0; /* it may be there several times */
        at = next;
    }
    return best;
}

/* How rare the characters from space to DEL are in what kernels print when they boot: each step is
 * half as often. */
static const char rarity[] = "09997997669955361222222222399599"
                             "95656678859675664965666886993994"
                             "92433134528533333722235645799999";

/* The place of its rarest key. */
static unsigned rarest_key(const struct literal *run)
{
    unsigned best = 0, most = 0;

    for (unsigned i = 0; i + LITERAL_KEY <= run->length; i++) {
        unsigned rare = 0;
        for (unsigned k = i; k < i + LITERAL_KEY; k++)
            rare += (unsigned)(rarity[run->text[k] - ' '] - '0');
        if (rare > most) {
            most = rare;
            best = i;
        }
    }
    return best;
}

/* Add the runs of all alternatives; false, with some added perhaps, when one has none. */
static bool add_alternatives(struct literals *literals, const char *at, const char *end)
{
    for (;;) {
        const char *stop = end_of_branch(at, end);
        struct literal run = longest_run(at, stop);
        if (run.length < LITERAL_MIN || literals->count == LITERALS_MAX)
            return false;
        run.key = rarest_key(&run);
        literals->all[literals->count++] = run;
        if (stop == end)
            return true;
        at = stop + 1;
    }
}

/* Add those of the first group of the branch that must be there and has some. */
static bool add_group(struct literals *literals, const char *at, const char *end)
{
    unsigned count = literals->count;

    while (at < end) {
        const char *behind = skip_atom(at, end);
        bool optional;
        const char *next = skip_quantifiers(behind, end, &optional);
        if (*at == '(' && behind - at > 2 && !optional &&
            add_alternatives(literals, at + 1, behind - 1))
            return true;
        literals->count = count;
        at = next;
    }
    return false;
}

bool literals_add(struct literals *literals, const char *expression)
{
    const char *at = expression, *end = at + strlen(at);
    unsigned count = literals->count;
    bool found = true;

    while (found) {
        const char *stop = end_of_branch(at, end);
        unsigned before = literals->count;
        found = add_alternatives(literals, at, stop);
        if (!found) {
            literals->count = before;
            found = add_group(literals, at, stop);
        }
        if (stop == end)
            break;
        at = stop + 1;
    }
    if (!found)
        literals->count = count;
    literals_prepare(literals);
    return found;
}
