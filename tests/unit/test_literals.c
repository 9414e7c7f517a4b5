/* Text that must be where an expression matches: found where it is, and never missed. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/literals.h"

SUITE(literals);

static const struct {
    const char *expression;
    const char *texts[4]; /* none: everything has to be matched */
} rows[] = {
    {"hello", {"hello"}},
    {"^hello$", {"hello"}},
    {"a|hello", {NULL}},
    {"world|hello", {"world", "hello"}},
    {"he", {NULL}},
    {"hel", {"hel"}},
    {"hello*", {"hell"}},
    {"hello+", {"hello"}},
    {"hel+o w", {"hel"}},
    {"abc?defg", {"defg"}},
    {"abcd{0}", {"abc"}},
    {"abcd{2,3}efghi", {"efghi"}},
    {"a.b.c.d", {NULL}},
    {"[abc]defg", {"defg"}},
    {"[]abc]defg", {"defg"}},
    {"[^]abcde]fgh", {"fgh"}},
    {"[[:alpha:]abcd]efg", {"efg"}},
    {"(one two)", {"one two"}},
    {"(one two|three)", {"one two", "three"}},
    {"(one two|x)", {NULL}},
    {"(one two)?", {NULL}},
    {"(one two)?three", {"three"}},
    {"(one two)*", {NULL}},
    {"(one two)+", {"one two"}},
    {"((one two))", {NULL}},
    {"abc(x|y)defg", {"defg"}},
    {"a\\.bcd", {"a.bcd"}},
    {"a\\[b\\]", {"a[b]"}},
    {"\\<word\\>", {"word"}},
    {"abc\\wdef1", {"def1"}},
    {"(abc)\\1", {"abc"}},
    {"login: $", {"login: "}},
    {"", {NULL}},
    {"()", {NULL}},
    {"a||b", {NULL}},
    {"\xc3\xa4\xc3\xb6", {NULL}},
    {"stra\xc3\x9f"
     "e here",
     {"e here"}},
    {"a Journey", {"ourney"}},
    {"J", {NULL}},
};

/* A text may be a part of the one that is listed: any part must be there as well. */
Test(literals, are_taken_from_expressions)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct literals l = {.count = 0};
        unsigned count = 0;
        while (count < 4 && rows[i].texts[count])
            count++;
        cr_expect_eq(literals_add(&l, rows[i].expression), count > 0, "%s", rows[i].expression);
        cr_assert_eq(l.count, count, "%s: %u", rows[i].expression, l.count);
        for (unsigned n = 0; n < count; n++)
            cr_expect_not_null(
                memmem(rows[i].texts[n], strlen(rows[i].texts[n]), l.all[n].text, l.all[n].length),
                "%s: '%.*s'", rows[i].expression, (int)l.all[n].length, l.all[n].text);
    }
}

/* At every place of buffers of every length, in front of memory that is not there. */
Test(literals, are_found_wherever_they_are)
{
    static const char *const texts[] = {"abc", "abcd", "panic - not syncing", "xyz"};
    struct guest_mem mem;
    support_guard_mem(&mem, 4096);
    uint8_t *end = (uint8_t *)guest_mem_at(&mem, 0, 4096) + 4096;
    for (size_t t = 0; t < COUNT(texts); t++) {
        struct literals l = {.count = 0};
        size_t length = strlen(texts[t]);
        cr_assert(literals_add(&l, texts[t]) && literals_add(&l, "something else|FAILED"));
        for (size_t size = 0; size < 150; size++) {
            uint8_t *data = end - size;
            memset(data, 'a', size);
            cr_expect(!literals_occur(&l, data, size), "%zu bytes", size);
            for (size_t at = 0; at + length <= size; at++) {
                memset(data, 'a', size);
                memcpy(data + at, texts[t], length);
                cr_expect(literals_occur(&l, data, size), "%s at %zu of %zu", texts[t], at, size);
            }
            if (size >= length) { /* all but its last byte */
                memset(data, 'a', size);
                memcpy(data + size - length + 1, texts[t], length - 1);
                cr_expect(!literals_occur(&l, data, size), "%s cut off at %zu", texts[t], size);
            }
        }
    }
    guest_mem_finish(&mem);
}

Test(literals, control_characters_want_a_closer_look)
{
    struct literals l = {.count = 0};
    cr_assert(literals_add(&l, "needle"));
    for (size_t size = 1; size < 100; size += 7) {
        for (size_t at = 0; at < size; at++) {
            for (unsigned c = 0; c < 256; c++) {
                uint8_t data[100];
                memset(data, '.', sizeof(data));
                data[at] = (uint8_t)c;
                /* A return is harmless before a newline only. */
                bool harmless = c >= ' ' || c == '\t' || c == '\n';
                cr_expect_eq(literals_occur(&l, data, size), !harmless, "0x%02x at %zu of %zu", c,
                             at, size);
            }
        }
    }
    cr_expect(!literals_occur(&l, (const uint8_t *)"a\r\nb\r\n", 6));
    cr_expect(!literals_occur(&l, (const uint8_t *)"a\r\r\nb", 5));
    cr_expect(literals_occur(&l, (const uint8_t *)"nee\rdle", 7));
}

/*
 * Whatever an expression matches has one of its texts in it. In parts, because all of it at once
 * takes a minute under sanitizers.
 */
ParameterizedTestParameters(literals, nothing_that_matches_is_missed)
{
    static unsigned seeds[] = {1, 2, 3, 4};
    return cr_make_param_array(unsigned, seeds, sizeof(seeds) / sizeof(seeds[0]));
}

ParameterizedTest(unsigned *seed, literals, nothing_that_matches_is_missed)
{
    static const char letters[] = "abc |().*+?[]{1}^$\\";
    unsigned found = 0, matched = 0;
    srand(*seed);
    for (unsigned i = 0; i < 30000; i++) {
        struct literals l = {.count = 0};
        char expression[14], text[24];
        regex_t regex;
        unsigned length = 3 + (unsigned)rand() % 10;
        for (unsigned j = 0; j < length; j++)
            expression[j] = letters[(unsigned)rand() % (rand() % 3 ? 4 : sizeof(letters) - 1)];
        expression[length] = '\0';
        if (!literals_add(&l, expression) || regcomp(&regex, expression, REG_EXTENDED) != 0)
            continue;
        found++;
        for (unsigned j = 0; j < 30; j++) {
            unsigned size = (unsigned)rand() % (sizeof(text) - 1);
            for (unsigned k = 0; k < size; k++)
                text[k] = "abc "[rand() % 4];
            text[size] = '\0';
            if (regexec(&regex, text, 0, NULL, 0) == 0) {
                matched++;
                cr_assert(literals_occur(&l, (const uint8_t *)text, size), "'%s' in '%s'",
                          expression, text);
            }
        }
        regfree(&regex);
    }
    cr_expect_gt(found, 2500);
    cr_expect_gt(matched, 250);
}
