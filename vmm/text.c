#include "vmm/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/*
 * The character at `at`, of which `left` bytes are there, and its length; 0 for a byte that begins
 * none (the Unicode Standard, table 3-7).
 */
static unsigned decode(const uint8_t *at, size_t left, uint32_t *character)
{
    static const struct {
        uint8_t mask, lead; /* of the first byte */
        unsigned length;
        uint32_t least; /* a smaller one has a shorter form, which is the right one */
    } forms[] = {{0x80, 0x00, 1, 0},
                 {0xe0, 0xc0, 2, 0x80},
                 {0xf0, 0xe0, 3, 0x800},
                 {0xf8, 0xf0, 4, 0x10000}};

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if ((at[0] & forms[i].mask) != forms[i].lead)
            continue;
        uint32_t value = at[0] & (uint8_t)~forms[i].mask;
        if (forms[i].length > left)
            return 0;
        for (unsigned k = 1; k < forms[i].length; k++) {
            if ((at[k] & 0xc0) != 0x80)
                return 0;
            value = value << 6 | (at[k] & 0x3f);
        }
        bool surrogate = value >= 0xd800 && value < 0xe000;
        *character = value;
        return value < forms[i].least || value > 0x10ffff || surrogate ? 0 : forms[i].length;
    }
    return 0;
}

static bool allowed(uint32_t character, enum text_kind kind)
{
    bool space = character == '\t' || character == '\n' || character == '\r';

    switch (kind) {
    case TEXT_JSON:
        return character != 0;
    case TEXT_XML:
        return (character >= ' ' || space) && character != 0xfffe && character != 0xffff;
    case TEXT_LINE: /* U+0080 to U+009F are control characters, U+2028 and U+2029 end lines */
        return character >= ' ' && (character < 0x7f || character > 0x9f) && character != 0x2028 &&
               character != 0x2029;
    }
    return false;
}

char *text_clean(const void *bytes, size_t length, enum text_kind kind)
{
    static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
    const uint8_t *at = bytes, *end = at + length;
    char *text = malloc(3 * length + 1), *to = text;

    while (text && at < end) {
        uint32_t character;
        unsigned n = decode(at, (size_t)(end - at), &character);
        if (n > 0 && allowed(character, kind)) {
            memcpy(to, at, n);
            to += n;
        } else {
            memcpy(to, replacement, 3);
            to += 3;
        }
        at += n > 0 ? n : 1;
    }
    if (text)
        *to = '\0';
    return text;
}

const uint8_t *text_last_lines(const uint8_t *bytes, size_t length, unsigned lines)
{
    const uint8_t *at = bytes + length;

    if (at > bytes && at[-1] == '\n')
        at--;
    for (; at > bytes; at--) {
        if (at[-1] == '\n' && --lines == 0)
            break;
    }
    return at;
}

const uint8_t *text_next_line(const uint8_t **at, const uint8_t *end, size_t *length)
{
    const uint8_t *line = *at;
    if (line == end)
        return NULL;
    const uint8_t *newline = memchr(line, '\n', (size_t)(end - line));
    *at = newline ? newline + 1 : end;
    *length = (size_t)((newline ? newline : end) - line);
    while (*length > 0 && line[*length - 1] == '\r')
        (*length)--;
    return line;
}
