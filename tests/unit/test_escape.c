#include <string.h>

#include "devices/escape.h"
#include "tests/unit/support.h"

SUITE(escape);

#define A "\x01"

static const struct {
    const char *in, *out;
    bool leave;
} rows[] = {
    {"", "", false},
    {"hello\r", "hello\r", false},
    {"x", "x", false},
    {A "x", "", true},
    {A "X", "", true},
    {"ab" A "xcd", "ab", true},
    {A A, A, false},
    {A A A A, A A, false},
    {A A "x", A "x", false},
    {A A A "x", A, true},
    {A "b", A "b", false},
    {A "\r", A "\r", false},
    {"a" A "b" A "c", "a" A "b" A "c", false},
    {A, "", false},
    {"ab" A, "ab", false},
    {"\x02x\x7f\xff", "\x02x\x7f\xff", false},
    {A "c" A "x", A "c", true},
};

Test(escape, filters_by_its_table)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct escape escape = {0};
        uint8_t out[32];
        bool leave = !rows[i].leave;
        size_t length = strlen(rows[i].in);
        size_t n = escape_filter(&escape, (const uint8_t *)rows[i].in, length, out, &leave);
        cr_expect_eq(leave, rows[i].leave, "row %zu", i);
        cr_expect_eq(n, strlen(rows[i].out), "row %zu: %zu", i, n);
        cr_expect_leq(n, length + 1, "row %zu", i);
        cr_expect_eq(memcmp(out, rows[i].out, n), 0, "row %zu", i);
    }
}

Test(escape, does_not_care_how_the_input_is_cut)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t length = strlen(rows[i].in);
        for (size_t cut = 0; cut <= length; cut++) {
            struct escape escape = {0};
            uint8_t out[32];
            bool leave;
            const uint8_t *in = (const uint8_t *)rows[i].in;
            size_t n = escape_filter(&escape, in, cut, out, &leave);
            if (!leave)
                n += escape_filter(&escape, in + cut, length - cut, out + n, &leave);
            cr_expect_eq(leave, rows[i].leave, "row %zu cut at %zu", i, cut);
            cr_expect_eq(n, strlen(rows[i].out), "row %zu cut at %zu: %zu", i, cut, n);
            cr_expect_eq(memcmp(out, rows[i].out, n), 0, "row %zu cut at %zu", i, cut);
        }
    }
}

Test(escape, gives_back_a_kept_key_with_the_next_and_never_more_than_it_promises)
{
    struct escape escape = {0};
    uint8_t out[3] = {0, 0, 0xee};
    bool leave;
    cr_assert_eq(escape_filter(&escape, (const uint8_t *)A, 1, out, &leave), 0);
    cr_assert_eq(escape_filter(&escape, (const uint8_t *)"b", 1, out, &leave), 2);
    cr_assert_eq(memcmp(out, A "b\xee", 3), 0);
}

Test(escape, a_used_escape_is_over)
{
    struct escape escape = {0};
    uint8_t out[8];
    bool leave;
    escape_filter(&escape, (const uint8_t *)A "x", 2, out, &leave);
    cr_assert(leave);
    cr_assert_eq(escape_filter(&escape, (const uint8_t *)"x", 1, out, &leave), 1);
    cr_assert_not(leave);
    cr_assert_eq(out[0], 'x');
}
