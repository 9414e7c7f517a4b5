/*
 * Literal text that must occur where regular expressions match, and a fast look for it: what the
 * guest prints is matched in earnest only where such text is.
 */
#ifndef VMM_LITERALS_H
#define VMM_LITERALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LITERALS_MAX  96u
#define LITERAL_MIN   3u
#define LITERAL_BYTES 24u /* a longer one is cut: any part of it has to be there as well */
#define LITERAL_KEY   4u  /* bytes that are looked for at first */

struct literals {
    unsigned count;
    struct literal {
        char text[LITERAL_BYTES];
        unsigned length;
    } all[LITERALS_MAX];
    /* For each byte of a key, by its lower and upper four bits: which groups of texts it may belong
     * to. Last come groups of control characters. */
    uint8_t low[LITERAL_KEY][16], high[LITERAL_KEY][16];
};

/*
 * Add the texts of a POSIX extended expression, one of which is in whatever it matches. False when
 * none can be found, or there is no more room: then nothing is added, and everything has to be
 * matched.
 */
bool literals_add(struct literals *literals, const char *expression);

/*
 * Does one of the texts occur in these bytes, or a control character but tab, newline, and carriage
 * return before what is no text? `size` bytes are looked at, no more.
 */
bool literals_occur(const struct literals *literals, const uint8_t *data, size_t size);

#endif
