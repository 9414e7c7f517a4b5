/*
 * The look for literal text. Most of what is printed has none of it, so what counts is how little
 * is done for bytes that are of no interest: tables tell for three bytes in a row whether they may
 * be a key of some group of texts, for 64 or 32 places at a time where the processor can, and only
 * then texts are compared.
 */
#include "vmm/literals.h"

#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define GROUPS_MASK ((1u << LITERAL_GROUPS) - 1)
/* In tables by six bits: a control character but tab and newline, and what may follow it if it is
 * to count; an escape before a newline, which the former leaves out. */
#define SIX_CONTROL (1u << 6)
#define SIX_ESCAPE  (1u << 7)
/* In tables by four bits: control characters from 0x10 on, whatever follows; the others but tab and
 * newline, before what is printable. */
#define FOUR_HIGH (1u << 6)
#define FOUR_LOW  (1u << 7)

_Static_assert(LITERAL_GROUPS == 6, "eight bits");
_Static_assert(LITERAL_KEY == 3, "the look takes three tables");

/* ---- tables -------------------------------------------------------------------------------- */

static uint32_t key_at(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16;
}

/* Keys that begin alike share a group: the fewer first bytes it has, the rarer are false alarms. */
static unsigned group_of(const struct literals *l, uint32_t key)
{
    unsigned before = 0;

    for (unsigned i = 0; i < l->count; i++)
        before += __builtin_bswap32(l->keys[i]) < __builtin_bswap32(key);
    return before * LITERAL_GROUPS / l->count;
}

static void note_controls(struct literals *l)
{
    for (unsigned six = 0; six < 64; six++) {
        l->by_six[0][six] |= six < 32 && six != '\t' && six != '\n' ? SIX_CONTROL : 0;
        l->by_six[0][six] |= six == 0x1b ? SIX_ESCAPE : 0;
        l->by_six[1][six] |= six == '\n' ? SIX_ESCAPE : SIX_CONTROL;
        l->by_six[2][six] |= SIX_ESCAPE | SIX_CONTROL;
    }
    l->by_high[0][0] |= FOUR_LOW;
    l->by_high[0][1] |= FOUR_HIGH;
    for (unsigned four = 0; four < 16; four++) {
        l->by_low[0][four] |= FOUR_HIGH | (four != '\t' && four != '\n' ? FOUR_LOW : 0);
        l->by_low[1][four] |= FOUR_HIGH | FOUR_LOW;
        l->by_high[1][four] |= FOUR_HIGH | (four >= 2 ? FOUR_LOW : 0);
        l->by_low[2][four] |= FOUR_HIGH | FOUR_LOW;
        l->by_high[2][four] |= FOUR_HIGH | FOUR_LOW;
    }
}

static enum literals_way best_way(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi"))
        return LITERALS_AVX512;
    if (__builtin_cpu_supports("avx2"))
        return LITERALS_AVX2;
#endif
    return LITERALS_ONE_BY_ONE;
}

void literals_prepare(struct literals *l)
{
    l->way = best_way();
    memset(l->by_six, 0, sizeof(l->by_six));
    memset(l->by_low, 0, sizeof(l->by_low));
    memset(l->by_high, 0, sizeof(l->by_high));
    for (unsigned i = 0; i < l->count; i++)
        l->keys[i] = key_at((const uint8_t *)l->all[i].text + l->all[i].key);
    for (unsigned i = 0; i < l->count; i++) {
        uint8_t group = (uint8_t)(1u << group_of(l, l->keys[i]));
        for (unsigned p = 0; p < LITERAL_KEY; p++) {
            uint8_t byte = (uint8_t)(l->keys[i] >> 8 * p);
            l->by_six[p][byte & 63] |= group;
            l->by_low[p][byte & 15] |= group;
            l->by_high[p][byte >> 4] |= group;
        }
    }
    note_controls(l);
}

/* ---- a closer look at one place ------------------------------------------------------------ */

static bool control_counts(const uint8_t *at, size_t left)
{
    if (at[0] >= ' ' || at[0] == '\t' || at[0] == '\n')
        return false;
    return at[0] == 0x1b || left == 1 || (at[1] >= ' ' && at[1] < 0x80 && at[1] != 'J');
}

static bool is_there(const struct literals *l, const uint8_t *data, size_t place, size_t size)
{
    const uint8_t *at = data + place;
    size_t left = size - place;

    if (at[0] < ' ' || left < LITERAL_KEY)
        return control_counts(at, left);
    uint32_t key = key_at(at);
    for (unsigned i = 0; i < l->count; i++) {
        const struct literal *literal = &l->all[i];
        if (l->keys[i] == key && literal->key <= place && literal->length - literal->key <= left &&
            memcmp(at - literal->key, literal->text, literal->length) == 0)
            return true;
    }
    return false;
}

/* From `from` on, one at a time. */
static size_t look_at_each(const struct literals *l, const uint8_t *data, size_t from, size_t size)
{
    for (size_t i = from; i < size; i++) {
        unsigned groups = GROUPS_MASK;
        for (unsigned p = 0; p < LITERAL_KEY && i + p < size; p++)
            groups &= l->by_six[p][data[i + p] & 63];
        if ((groups || data[i] < ' ') && is_there(l, data, i, size))
            return i;
    }
    return size;
}

#if defined(__x86_64__)
/* Which of the places, bits of `places`, from `from` on is the first one? `size` if none is. */
static size_t first_of(const struct literals *l, uint64_t places, const uint8_t *data, size_t from,
                       size_t size)
{
    for (; places; places &= places - 1) {
        size_t place = from + (unsigned)__builtin_ctzll(places);
        if (is_there(l, data, place, size))
            return place;
    }
    return size;
}

/* ---- 64 places at a time, by six bits ------------------------------------------------------ */

#define AVX512  __attribute__((target("avx512f,avx512bw,avx512vbmi")))
#define STEP_64 64u
#define BLOCK   (4 * STEP_64)

/* Groups that 64 places may belong to; an upper case letter is no control character. */
AVX512 static inline __m512i groups_64(const __m512i tables[3], __m512i x, __m512i y, __m512i z)
{
    const __m512i other_bits = _mm512_set1_epi8((char)~SIX_CONTROL);
    __m512i first = _mm512_permutexvar_epi8(x, tables[0]);
    first = _mm512_ternarylogic_epi64(first, x, other_bits, 0xb0); /* first & (~x | other_bits) */
    return _mm512_and_si512(_mm512_and_si512(first, _mm512_permutexvar_epi8(y, tables[1])),
                            _mm512_permutexvar_epi8(z, tables[2]));
}

AVX512 static inline __m512i groups_at(const __m512i tables[3], const uint8_t *at)
{
    return groups_64(tables, _mm512_loadu_si512(at), _mm512_loadu_si512(at + 1),
                     _mm512_loadu_si512(at + 2));
}

/* Where in a block, of which some place may be one, is it? `size` if nowhere. */
AVX512 static __attribute__((noinline)) size_t place_in_block(const struct literals *l,
                                                              const __m512i tables[3],
                                                              const uint8_t *data, size_t from,
                                                              size_t size)
{
    size_t place = size;

    for (size_t i = from; place == size && i < from + BLOCK; i += STEP_64) {
        const __m512i groups = groups_at(tables, data + i);
        place = first_of(l, _mm512_test_epi8_mask(groups, groups), data, i, size);
    }
    return place;
}

/* The last bytes: what is behind them reads as 0, and is no place. */
AVX512 static uint64_t places_at_end(const __m512i tables[3], const uint8_t *at, size_t left)
{
    const uint64_t all = left < 64 ? (1ull << left) - 1 : ~0ull;
    const uint64_t behind_1 = left <= 64 ? all >> 1 : ~0ull;
    const uint64_t behind_2 = left <= 65 ? behind_1 >> 1 : ~0ull;
    __m512i x = _mm512_maskz_loadu_epi8(all, at);
    __m512i y = _mm512_maskz_loadu_epi8(behind_1, at + 1);
    __m512i z = _mm512_maskz_loadu_epi8(behind_2, at + 2);
    __m512i groups = groups_64(tables, x, y, z);
    return _mm512_test_epi8_mask(groups, groups) & all;
}

AVX512 static size_t look_at_64(const struct literals *l, const uint8_t *data, size_t size)
{
    const __m512i tables[] = {_mm512_loadu_si512(l->by_six[0]), _mm512_loadu_si512(l->by_six[1]),
                              _mm512_loadu_si512(l->by_six[2])};
    const size_t last = size - (LITERAL_KEY - 1) - BLOCK; /* block; it overlaps the one before */
    size_t i = 0;

    for (; size >= LITERAL_KEY - 1 + BLOCK; i = i + BLOCK < last ? i + BLOCK : last) {
        const uint8_t *at = data + i;
        const __m512i any =
            _mm512_or_si512(_mm512_or_si512(groups_at(tables, at), groups_at(tables, at + STEP_64)),
                            _mm512_or_si512(groups_at(tables, at + 2 * STEP_64),
                                            groups_at(tables, at + 3 * STEP_64)));
        if (_mm512_test_epi8_mask(any, any) != 0) {
            size_t place = place_in_block(l, tables, data, i, size);
            if (place < size)
                return place;
        }
        if (i == last) {
            i += BLOCK;
            break;
        }
    }
    for (; i < size; i += STEP_64) {
        size_t place = first_of(l, places_at_end(tables, data + i, size - i), data, i, size);
        if (place < size)
            return place;
    }
    return size;
}

/* ---- 32 places at a time, by four bits and four -------------------------------------------- */

#define AVX2     __attribute__((target("avx2")))
#define STEP_32  32u
#define TABLE(t) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(t)))

AVX2 static inline __m256i groups_by_four(__m256i low, __m256i high, __m256i x)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    return _mm256_and_si256(
        _mm256_shuffle_epi8(low, _mm256_and_si256(x, nibble)),
        _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble)));
}

AVX2 static inline __m256i groups_32(const __m256i low[3], const __m256i high[3], const uint8_t *at)
{
    const __m256i x = _mm256_loadu_si256((const __m256i *)at);
    const __m256i y = _mm256_loadu_si256((const __m256i *)(at + 1));
    const __m256i z = _mm256_loadu_si256((const __m256i *)(at + 2));
    return _mm256_and_si256(
        _mm256_and_si256(groups_by_four(low[0], high[0], x), groups_by_four(low[1], high[1], y)),
        groups_by_four(low[2], high[2], z));
}

AVX2 static inline uint64_t places_32(__m256i groups)
{
    const __m256i none = _mm256_cmpeq_epi8(groups, _mm256_setzero_si256());
    return (uint32_t)~_mm256_movemask_epi8(none);
}

/* Returns `size`, or where it is; *looked places were looked at, all but some at the end. */
AVX2 static size_t look_at_32(const struct literals *l, const uint8_t *data, size_t size,
                              size_t *looked)
{
    const __m256i low[] = {TABLE(l->by_low[0]), TABLE(l->by_low[1]), TABLE(l->by_low[2])};
    const __m256i high[] = {TABLE(l->by_high[0]), TABLE(l->by_high[1]), TABLE(l->by_high[2])};
    size_t i = 0;

    for (; i + 2 * STEP_32 + LITERAL_KEY - 1 <= size; i += 2 * STEP_32) {
        const __m256i a = groups_32(low, high, data + i);
        const __m256i b = groups_32(low, high, data + i + STEP_32);
        const __m256i any = _mm256_or_si256(a, b);
        if (_mm256_testz_si256(any, any))
            continue;
        size_t place = first_of(l, places_32(a) | places_32(b) << STEP_32, data, i, size);
        if (place < size)
            return place;
    }
    if (i + STEP_32 + LITERAL_KEY - 1 <= size) {
        size_t place = first_of(l, places_32(groups_32(low, high, data + i)), data, i, size);
        if (place < size)
            return place;
        i += STEP_32;
    }
    *looked = i;
    return size;
}
#endif

size_t literals_find(const struct literals *literals, const uint8_t *data, size_t size)
{
    size_t looked = 0;

#if defined(__x86_64__)
    if (literals->way == LITERALS_AVX512)
        return look_at_64(literals, data, size);
    if (literals->way == LITERALS_AVX2) {
        size_t place = look_at_32(literals, data, size, &looked);
        if (place < size)
            return place;
    }
#endif
    return look_at_each(literals, data, looked, size);
}
