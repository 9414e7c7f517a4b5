/*
 * Literal text that must occur where regular expressions match, and a fast look for it: what the
 * guest prints is matched in earnest only where such text is.
 */
#ifndef VMM_LITERALS_H
#define VMM_LITERALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LITERALS_MAX   96u
#define LITERAL_MIN    3u
#define LITERAL_BYTES  24u /* a longer one is cut: any part of it has to be there as well */
#define LITERAL_KEY    3u  /* bytes that are looked for at first */
#define LITERAL_GROUPS 6u  /* that the texts share */

/*
 * A key is the part of a text that is rarest in what is printed. What may be the key's byte 0, 1 or
 * 2 of which groups stands in tables, a bit a group; the two last bits are for control characters
 * that need a closer look. A byte that is not in a key may be taken for one that is, never the
 * other way round.
 */
enum literals_way { LITERALS_ONE_BY_ONE, LITERALS_AVX2, LITERALS_AVX512 };

struct literals {
    enum literals_way way; /* to look, the best this processor has; a lower one does as well */
    unsigned count;
    struct literal {
        char text[LITERAL_BYTES];
        unsigned length;
        unsigned key; /* where in the text */
    } all[LITERALS_MAX];
    uint32_t keys[LITERALS_MAX];     /* their bytes, the first one lowest */
    uint8_t by_six[LITERAL_KEY][64]; /* by the lower six bits of a byte */
    uint8_t by_low[LITERAL_KEY][16], by_high[LITERAL_KEY][16]; /* both, by four bits each */
};

/*
 * Add the texts of a POSIX extended expression, one of which is in whatever it matches. False when
 * none can be found, or there is no more room: then nothing is added, and everything has to be
 * matched.
 */
bool literals_add(struct literals *literals, const char *expression);

/* The look's tables, out of the texts; literals_add calls it. */
void literals_prepare(struct literals *literals);

/*
 * Where the first of the texts is in these bytes, or a control character that changes what is next
 * to each other in a line: an escape, or one that printable characters follow that may be in a
 * text, but tab and newline. The place returned is within the text, or the control character's;
 * `size` when there is none. `size` bytes are looked at, no more; what comes behind them may be
 * anything, so that a control character at the end counts.
 */
size_t literals_find(const struct literals *literals, const uint8_t *data, size_t size);

static inline bool literals_occur(const struct literals *literals, const uint8_t *data, size_t size)
{
    return literals_find(literals, data, size) < size;
}

#endif
