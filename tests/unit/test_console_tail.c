/* The end of what a guest printed: all of it while it is short, the last bytes after that. */
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/console_tail.h"

SUITE(console_tail);

static struct console_tail tail;

static void feed_numbers(uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i++) {
        uint8_t byte = (uint8_t)(i % 251); /* no divisor of the ring */
        console_tail_feed(&tail, &byte, 1);
    }
}

Test(console_tail, holds_the_last_bytes_in_order)
{
    static const struct {
        uint64_t fed;
        size_t asked, got;
    } rows[] = {
        {0, 100, 0},
        {1, 100, 1},
        {100, 100, 100},
        {100, 0, 0},
        {100, 7, 7},
        {CONSOLE_TAIL_SIZE - 1, CONSOLE_TAIL_SIZE, CONSOLE_TAIL_SIZE - 1},
        {CONSOLE_TAIL_SIZE, CONSOLE_TAIL_SIZE, CONSOLE_TAIL_SIZE},
        {CONSOLE_TAIL_SIZE + 1, CONSOLE_TAIL_SIZE, CONSOLE_TAIL_SIZE},
        {CONSOLE_TAIL_SIZE + 1, 3 * CONSOLE_TAIL_SIZE, CONSOLE_TAIL_SIZE},
        {5 * CONSOLE_TAIL_SIZE / 2, 1000, 1000},
    };
    static uint8_t bytes[3 * CONSOLE_TAIL_SIZE];

    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t total;
        console_tail_init(&tail);
        feed_numbers(0, rows[i].fed);
        memset(bytes, 0xff, sizeof(bytes));
        cr_expect_eq(console_tail_copy(&tail, bytes, rows[i].asked, &total), rows[i].got, "%zu", i);
        cr_expect_eq(total, rows[i].fed, "%zu", i);
        for (size_t k = 0; k < rows[i].got; k++)
            cr_expect_eq(bytes[k], (rows[i].fed - rows[i].got + k) % 251, "%zu: byte %zu", i, k);
        cr_expect_eq(bytes[rows[i].got], 0xff, "%zu: one byte more", i);
        console_tail_finish(&tail);
    }
}

Test(console_tail, pieces_of_every_size_are_one_stream)
{
    static const size_t sizes[] = {1,
                                   7,
                                   CONSOLE_TAIL_SIZE - 1,
                                   CONSOLE_TAIL_SIZE,
                                   CONSOLE_TAIL_SIZE + 1,
                                   5000,
                                   3 * CONSOLE_TAIL_SIZE,
                                   100,
                                   0};
    static uint8_t stream[8 * CONSOLE_TAIL_SIZE], bytes[CONSOLE_TAIL_SIZE];
    uint64_t fed = 0, total;

    for (size_t i = 0; i < sizeof(stream); i++)
        stream[i] = (uint8_t)(i % 251);
    console_tail_init(&tail);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        console_tail_feed(&tail, stream + fed, sizes[i]);
        fed += sizes[i];
        size_t there = fed < CONSOLE_TAIL_SIZE ? (size_t)fed : CONSOLE_TAIL_SIZE;
        cr_expect_eq(console_tail_copy(&tail, bytes, sizeof(bytes), &total), there, "%zu", i);
        cr_expect_eq(total, fed, "%zu", i);
        cr_expect_arr_eq(bytes, stream + fed - there, there, "%zu", i);
    }
    console_tail_finish(&tail);
}
