/* Bytes from anywhere as text for JSON, XML and lines. */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/text.h"

SUITE(text);

#define BAD "\xef\xbf\xbd" /* U+FFFD */

Test(text, what_a_format_cannot_take_is_replaced)
{
    static const struct {
        const char *name, *bytes;
        size_t length;
        const char *json, *xml, *line;
    } rows[] = {
        {"nothing", "", 0, "", "", ""},
        {"plain", "a<b>&\"'", 7, "a<b>&\"'", "a<b>&\"'", "a<b>&\"'"},
        {"NUL", "a\0b", 3, "a" BAD "b", "a" BAD "b", "a" BAD "b"},
        {"spaces", "\t\r\n ", 4, "\t\r\n ", "\t\r\n ", BAD BAD BAD " "},
        {"escape", "\033[1m", 4, "\033[1m", BAD "[1m", BAD "[1m"},
        {"controls", "\001\b\013\037", 4, "\001\b\013\037", BAD BAD BAD BAD, BAD BAD BAD BAD},
        {"delete", "\177", 1, "\177", "\177", BAD},
        {"C1", "\302\205\302\237\302\240", 6, "\302\205\302\237\302\240",
         "\302\205\302\237\302\240", BAD BAD "\302\240"},
        {"line separator", "\342\200\250", 3, "\342\200\250", "\342\200\250", BAD},
        {"two bytes", "\303\244", 2, "\303\244", "\303\244", "\303\244"},
        {"three bytes", "\342\202\254", 3, "\342\202\254", "\342\202\254", "\342\202\254"},
        {"four bytes", "\360\237\230\200", 4, "\360\237\230\200", "\360\237\230\200",
         "\360\237\230\200"},
        {"the last character", "\364\217\277\275", 4, "\364\217\277\275", "\364\217\277\275",
         "\364\217\277\275"},
        {"past the last", "\364\220\200\200", 4, BAD BAD BAD BAD, BAD BAD BAD BAD, BAD BAD BAD BAD},
        {"Latin 1", "\344x", 2, BAD "x", BAD "x", BAD "x"},
        {"cut off", "x\342\202", 3, "x" BAD BAD, "x" BAD BAD, "x" BAD BAD},
        {"cut off by another", "\342\202x", 3, BAD BAD "x", BAD BAD "x", BAD BAD "x"},
        {"a tail alone", "\200", 1, BAD, BAD, BAD},
        {"too long a form", "\300\257", 2, BAD BAD, BAD BAD, BAD BAD},
        {"three for two", "\340\202\244", 3, BAD BAD BAD, BAD BAD BAD, BAD BAD BAD},
        {"surrogate", "\355\240\200", 3, BAD BAD BAD, BAD BAD BAD, BAD BAD BAD},
        {"U+FFFE", "\357\277\276", 3, "\357\277\276", BAD, "\357\277\276"},
        {"U+FFFF", "\357\277\277", 3, "\357\277\277", BAD, "\357\277\277"},
        {"no byte of UTF-8", "\377\376", 2, BAD BAD, BAD BAD, BAD BAD},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *const expected[] = {
            [TEXT_JSON] = rows[i].json, [TEXT_XML] = rows[i].xml, [TEXT_LINE] = rows[i].line};
        for (unsigned kind = 0; kind < COUNT(expected); kind++) {
            char *exact = malloc(rows[i].length + 1); /* so that ASan sees a byte too many */
            memcpy(exact, rows[i].bytes, rows[i].length);
            exact = realloc(exact, rows[i].length ? rows[i].length : 1);
            char *text = text_clean(exact, rows[i].length, (enum text_kind)kind);
            cr_expect_str_eq(text, expected[kind], "%s, kind %u", rows[i].name, kind);
            free(text);
            free(exact);
        }
    }
}

Test(text, the_last_lines)
{
    static const struct {
        const char *text;
        unsigned lines;
        const char *last, *joined; /* each line in brackets */
    } rows[] = {
        {"", 3, "", ""},
        {"\n", 3, "\n", "[]"},
        {"a", 3, "a", "[a]"},
        {"a\n", 3, "a\n", "[a]"},
        {"a\nb", 1, "b", "[b]"},
        {"a\nb\n", 1, "b\n", "[b]"},
        {"a\r\nb\r\n", 2, "a\r\nb\r\n", "[a][b]"},
        {"a\nb\nc\nd", 3, "b\nc\nd", "[b][c][d]"},
        {"a\n\n\n", 2, "\n\n", "[][]"},
        {"a\rb\r\r\n", 1, "a\rb\r\r\n", "[a\rb]"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const uint8_t *bytes = (const uint8_t *)rows[i].text, *line;
        size_t size = strlen(rows[i].text), length;
        char joined[64] = "";
        const uint8_t *at = text_last_lines(bytes, size, rows[i].lines);
        cr_expect_str_eq((const char *)at, rows[i].last, "%zu", i);
        while ((line = text_next_line(&at, bytes + size, &length)) != NULL) {
            size_t done = strlen(joined);
            snprintf(joined + done, sizeof(joined) - done, "[%.*s]", (int)length,
                     (const char *)line);
        }
        cr_expect_str_eq(joined, rows[i].joined, "%zu", i);
    }
}
