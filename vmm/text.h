/*
 * Bytes from anywhere (a guest, a file name, a command line) as text that a format can take: valid
 * UTF-8 without what the format has no way to write. What cannot stay becomes U+FFFD.
 */
#ifndef VMM_TEXT_H
#define VMM_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum text_kind {
    TEXT_JSON, /* everything but NUL; the JSON writer escapes the rest */
    TEXT_XML,  /* the characters of XML 1.0, section 2.2 */
    TEXT_LINE, /* no control character at all */
};

/* malloc'ed, the caller's; NULL when there is no memory. */
char *text_clean(const void *bytes, size_t length, enum text_kind kind);

/*
 * The start of the last `lines` lines in [bytes, bytes + length); a newline at the very end begins
 * no line.
 */
const uint8_t *text_last_lines(const uint8_t *bytes, size_t length, unsigned lines);

/* One line of [*at, end) without its "\n" or "\r\n"; *at moves on. NULL at the end. */
const uint8_t *text_next_line(const uint8_t **at, const uint8_t *end, size_t *length);

#endif
