#include "vmm/literals.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Groups: texts share five, and three are for characters that need a closer look. */
#define TEXT_GROUPS  5u
#define LONE_RETURN  (1u << 5) /* a carriage return before a printable character */
#define CONTROL_HIGH (1u << 6) /* 0x10 to 0x1f */
#define CONTROL_LOW  (1u << 7) /* 0x00 to 0x0f but tab, newline, carriage return */

#define CONTROLS (LONE_RETURN | CONTROL_HIGH | CONTROL_LOW)

_Static_assert(LITERAL_MIN + 1 == LITERAL_KEY, "the shortest are one byte short");

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

/* The character that the atom at `at` stands for, or 0. */
static char plain(const char *at, const char *end)
{
    if (*at == '\\')
        return at + 1 < end && strchr(".[]()*+?{}^$|\\/-", at[1]) ? at[1] : 0;
    return (unsigned char)*at >= ' ' && !strchr(".[()*+?{^$|", *at) ? *at : 0;
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

/*
 * The part of a run that begins with its rarest key: most of what is printed is small letters,
 * digits and spaces.
 */
static struct literal rarest_part(const struct literal *run)
{
    struct literal part = {.length = 0};
    unsigned best = 0, most = 0;

    for (unsigned i = 0; i + LITERAL_KEY <= run->length; i++) {
        unsigned rare = 0;
        for (unsigned k = i; k < i + LITERAL_KEY; k++)
            rare += (run->text[k] < 'a' || run->text[k] > 'z') && run->text[k] != ' ' &&
                    (run->text[k] < '0' || run->text[k] > '9');
        if (rare > most) {
            most = rare;
            best = i;
        }
    }
    part.length = run->length - best;
    memcpy(part.text, run->text + best, part.length);
    return part;
}

/* Add the runs of all alternatives; false, with some added perhaps, when one has none. */
static bool add_alternatives(struct literals *literals, const char *at, const char *end)
{
    for (;;) {
        const char *stop = end_of_branch(at, end);
        struct literal run = longest_run(at, stop);
        if (run.length < LITERAL_MIN || literals->count == LITERALS_MAX)
            return false;
        literals->all[literals->count++] = rarest_part(&run);
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

static void note(struct literals *literals, unsigned position, uint8_t byte, unsigned groups)
{
    literals->low[position][byte & 15] |= (uint8_t)groups;
    literals->high[position][byte >> 4] |= (uint8_t)groups;
}

static void fill_tables(struct literals *literals)
{
    memset(literals->low, 0, sizeof(literals->low));
    memset(literals->high, 0, sizeof(literals->high));
    for (unsigned i = 0; i < literals->count; i++) {
        const struct literal *literal = &literals->all[i];
        for (unsigned p = 0; p < LITERAL_KEY && p < literal->length; p++)
            note(literals, p, (uint8_t)literal->text[p], 1u << i % TEXT_GROUPS);
        for (unsigned byte = 0; byte < 256 && literal->length < LITERAL_KEY; byte++)
            note(literals, LITERAL_KEY - 1, (uint8_t)byte, 1u << i % TEXT_GROUPS);
    }
    for (unsigned nibble = 0; nibble < 16; nibble++) {
        bool harmless = nibble == '\t' || nibble == '\n' || nibble == '\r';
        literals->low[0][nibble] |= CONTROL_HIGH | (harmless ? 0 : CONTROL_LOW);
        for (unsigned p = 1; p < LITERAL_KEY; p++) {
            literals->low[p][nibble] |= CONTROLS;
            literals->high[p][nibble] |= p == 1 && nibble == 0 ? CONTROLS & ~LONE_RETURN : CONTROLS;
        }
    }
    note(literals, 0, '\r', LONE_RETURN);
    literals->high[0][0] |= CONTROL_LOW;
    literals->high[0][1] |= CONTROL_HIGH;
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
    fill_tables(literals);
    return found;
}

/* ---- the look ------------------------------------------------------------------------------ */

/* Groups that what stands at `at` may belong to, by its key. */
static unsigned groups_at(const struct literals *l, const uint8_t *at, size_t size)
{
    unsigned groups = l->low[0][at[0] & 15] & l->high[0][at[0] >> 4];

    for (unsigned p = 1; p < LITERAL_KEY && groups; p++) {
        if (p < size)
            groups &= l->low[p][at[p] & 15] & l->high[p][at[p] >> 4];
        else /* the end: nothing printable comes, and only the shortest text can be there */
            groups &= p == LITERAL_MIN ? ~0u : CONTROLS;
    }
    return groups;
}

static bool is_there(const struct literals *l, unsigned groups, const uint8_t *at, size_t size)
{
    if (groups & CONTROLS)
        return true;
    for (; groups; groups &= groups - 1) {
        for (unsigned i = (unsigned)__builtin_ctz(groups); i < l->count; i += TEXT_GROUPS) {
            const struct literal *literal = &l->all[i];
            if (at[0] == (uint8_t)literal->text[0] && at[1] == (uint8_t)literal->text[1] &&
                literal->length <= size && memcmp(at, literal->text, literal->length) == 0)
                return true;
        }
    }
    return false;
}

static bool look_at_each(const struct literals *l, const uint8_t *data, size_t from, size_t size)
{
    for (size_t i = from; i < size; i++) {
        unsigned groups = groups_at(l, data + i, size - i);
        if (groups && is_there(l, groups, data + i, size - i))
            return true;
    }
    return false;
}

#if defined(__x86_64__)
#define STEP 32u

#define TABLE(t) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(t)))
#define AVX2     __attribute__((target("avx2")))
#define LOOK(p, x)                                                                                 \
    _mm256_and_si256(                                                                              \
        _mm256_shuffle_epi8(low[p], _mm256_and_si256(x, nibble)),                                  \
        _mm256_shuffle_epi8(high[p], _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble)))

/* 32 places at a time: for each, the groups of its key. `size` is STEP + LITERAL_KEY - 1 at least.
 */
AVX2 static bool look_at_many(const struct literals *l, const uint8_t *data, size_t size)
{
    const __m256i low[] = {TABLE(l->low[0]), TABLE(l->low[1]), TABLE(l->low[2]), TABLE(l->low[3])};
    const __m256i high[] = {TABLE(l->high[0]), TABLE(l->high[1]), TABLE(l->high[2]),
                            TABLE(l->high[3])};
    const __m256i nibble = _mm256_set1_epi8(15), zero = _mm256_setzero_si256();
    const size_t last = size - STEP - (LITERAL_KEY - 1);

    for (size_t i = 0;; i = i + STEP < last ? i + STEP : last) {
        const __m256i x = _mm256_loadu_si256((const __m256i *)(data + i));
        const __m256i y = _mm256_loadu_si256((const __m256i *)(data + i + 1));
        const __m256i z = _mm256_loadu_si256((const __m256i *)(data + i + 2));
        const __m256i w = _mm256_loadu_si256((const __m256i *)(data + i + 3));
        const __m256i all = _mm256_and_si256(_mm256_and_si256(LOOK(0, x), LOOK(1, y)),
                                             _mm256_and_si256(LOOK(2, z), LOOK(3, w)));
        unsigned places = ~(unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(all, zero));
        for (; places; places &= places - 1) {
            size_t at = i + (unsigned)__builtin_ctz(places);
            if (is_there(l, groups_at(l, data + at, size - at), data + at, size - at))
                return true;
        }
        if (i == last)
            return false;
    }
}
#endif

bool literals_occur(const struct literals *literals, const uint8_t *data, size_t size)
{
    size_t looked = 0;

#if defined(__x86_64__)
    if (size >= STEP + LITERAL_KEY - 1 && __builtin_cpu_supports("avx2")) {
        if (look_at_many(literals, data, size))
            return true;
        looked = size - (LITERAL_KEY - 1);
    }
#endif
    return look_at_each(literals, data, looked, size);
}
