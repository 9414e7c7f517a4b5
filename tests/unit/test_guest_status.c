/* What a guest says of its own end, through its status port. */
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/guest_status.h"

SUITE(guest_status);

static const struct {
    const char *written;
    int status;
} rows[] = {
    {"", 0},
    {"0\n", 0},
    {"3\n", 3},
    {"3", 3},
    {"119\n", 119},
    {"120\n", 119},
    {"4294967296\n", 119},
    {"99999999999999999999999999\n", 119},
    {"007\n", 7},
    {"3\r\n", 3},
    {"3\r", 3},
    {"1\n0\n", 0},
    {"0\n1\n", 1},
    {"1\n0", 0},
    {"0\n1", 1},
    {"\n", 119},
    {"\r\n", 119},
    {"x\n", 119},
    {"0x0\n", 119},
    {"-0\n", 119},
    {"+1\n", 119},
    {" 0\n", 119},
    {"0 \n", 119},
    {"0\r0\n", 119},
    {"0.0", 119},
    {"ok", 119},
    {"0\nok\n", 119},
    {"ok\n0\n", 0},
};

Test(guest_status, the_last_line_counts_and_must_be_a_number)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guest_status whole = {0}, bytes = {0};
        guest_status_feed(&whole, (const uint8_t *)rows[i].written, strlen(rows[i].written));
        for (const char *at = rows[i].written; *at; at++)
            guest_status_feed(&bytes, (const uint8_t *)at, 1);
        cr_expect_eq(guest_status(&whole), rows[i].status, "row %zu: %d", i, guest_status(&whole));
        cr_expect_eq(guest_status(&bytes), rows[i].status, "row %zu, in bytes", i);
    }
}

Test(guest_status, a_nul_byte_is_no_digit)
{
    struct guest_status status = {0};
    guest_status_feed(&status, (const uint8_t *)"0\0\n", 3);
    cr_expect_eq(guest_status(&status), 119);
}

Test(guest_status, a_line_of_4_GiB_stays_what_it_is)
{
    static uint8_t zeroes[1 << 20];
    struct guest_status status = {0};
    memset(zeroes, '0', sizeof(zeroes));
    for (int i = 0; i < 4097 / 16; i++)
        guest_status_feed(&status, zeroes, sizeof(zeroes));
    cr_expect_eq(guest_status(&status), 0);
    guest_status_feed(&status, (const uint8_t *)"5", 1);
    cr_expect_eq(guest_status(&status), 5);
}
