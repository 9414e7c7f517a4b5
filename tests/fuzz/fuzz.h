/* What the fuzzers share: libFuzzer's entry, and an input that is taken bit by bit. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#include "tests/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

/* The next `bytes`, 4 at most, as a little-endian number; zeroes behind the end. */
static inline uint32_t fuzz_take(struct fuzz_input *input, unsigned bytes)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < bytes && input->left > 0; i++, input->left--)
        value |= (uint32_t)*input->at++ << 8 * i;
    return value;
}

#endif
