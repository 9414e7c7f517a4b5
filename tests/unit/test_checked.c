#include "tests/unit/support.h"
#include "vmm/checked.h"

SUITE(checked);

Test(checked, adds_up_to_the_last_number_and_no_further)
{
    uint64_t sum;
    cr_assert(checked_add(UINT64_MAX - 1, 1, &sum));
    cr_assert_eq(sum, UINT64_MAX);
    cr_assert(checked_add(0, 0, &sum));
    cr_assert_eq(sum, 0);
    cr_assert_not(checked_add(UINT64_MAX, 1, &sum));
    cr_assert_not(checked_add(UINT64_MAX, UINT64_MAX, &sum));
}

Test(checked, multiplies_up_to_the_last_number_and_no_further)
{
    uint64_t product;
    cr_assert(checked_mul(1ull << 32, (1ull << 32) - 1, &product));
    cr_assert_eq(product, 0xffffffff00000000ull);
    cr_assert(checked_mul(0, UINT64_MAX, &product));
    cr_assert_eq(product, 0);
    cr_assert_not(checked_mul(1ull << 32, 1ull << 32, &product));
    cr_assert_not(checked_mul(UINT64_MAX, 2, &product));
}

Test(checked, aligns_upwards_and_refuses_to_wrap)
{
    static const struct {
        uint64_t value, align, result;
    } rows[] = {
        {0, 4096, 0},
        {1, 4096, 4096},
        {4096, 4096, 4096},
        {4097, 4096, 8192},
        {5, 1, 5},
        {UINT64_MAX, 1, UINT64_MAX},
        {UINT64_MAX - 4095, 4096, UINT64_MAX - 4095},
    };
    uint64_t result;
    for (size_t i = 0; i < COUNT(rows); i++) {
        cr_expect(checked_align_up(rows[i].value, rows[i].align, &result), "row %zu", i);
        cr_expect_eq(result, rows[i].result, "row %zu: %llx", i, (unsigned long long)result);
    }
    cr_expect_not(checked_align_up(UINT64_MAX, 4096, &result));
    cr_expect_not(checked_align_up(UINT64_MAX - 4094, 4096, &result));
}

Test(checked, a_range_is_half_open)
{
    static const struct {
        const char *name;
        uint64_t offset, len, size;
        bool within;
    } rows[] = {
        {"all of it", 0, 10, 10, true},
        {"one too long", 0, 11, 10, false},
        {"the last byte", 9, 1, 10, true},
        {"past the last byte", 9, 2, 10, false},
        {"nothing at the end", 10, 0, 10, true},
        {"one byte at the end", 10, 1, 10, false},
        {"nothing past the end", 11, 0, 10, false},
        {"nothing of nothing", 0, 0, 0, true},
        {"a length that wraps", 5, UINT64_MAX, 10, false},
        {"an offset that wraps", UINT64_MAX, 1, 10, false},
        {"both", UINT64_MAX, UINT64_MAX, UINT64_MAX, false},
        {"everything there is", 0, UINT64_MAX, UINT64_MAX, true},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        cr_expect_eq(range_within(rows[i].offset, rows[i].len, rows[i].size), rows[i].within, "%s",
                     rows[i].name);
}
