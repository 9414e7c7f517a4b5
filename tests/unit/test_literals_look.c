/* The look for literal text, in every way this processor has, against a search byte for byte. */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/literals.h"

SUITE(literals_look);

static const char *const expressions[] = {"Kernel panic", "BUG: |Oops\\[", "login: $",
                                          "blocked for more than", "I/O"};

/* Where literals_find has to stop, by its contract. */
static size_t place_by_bytes(const struct literals *l, const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size; at++) {
        bool control = data[at] < ' ' && data[at] != '\t' && data[at] != '\n';
        bool last = at + 1 == size;
        if (control && (data[at] == 0x1b || last ||
                        (data[at + 1] >= ' ' && data[at + 1] < 0x80 && data[at + 1] != 'J')))
            return at;
        for (unsigned i = 0; i < l->count; i++) {
            const struct literal *literal = &l->all[i];
            if (literal->key <= at && at - literal->key + literal->length <= size &&
                memcmp(data + at - literal->key, literal->text, literal->length) == 0)
                return at;
        }
    }
    return size;
}

/* Text with parts of what is looked for in it, and with what may be taken for it. */
static void make_text(uint8_t *data, size_t size, unsigned rare)
{
    static const char *const parts[] = {
        "Kernel panic", "BUG: ",       "Oops[",  "login: ", "blocked for more than",
        "I/O",          "Kernel pani", "BUG:",   "ogin:",   "I/",
        "\r\n",         "\r",          "\n",     "\033",    "\033J",
        "\033\n",       "\aJ",         "\a\n",   "\tJ",     "MJ",
        "[J",           "\xc9\xcf",    "\r\xc3", "\x9b",    "\x7f",
        "\v\f",         "\31",         "\0"};
    size_t at = 0;

    while (at < size) {
        const char *part = parts[(unsigned)rand() % COUNT(parts)];
        size_t length = *part ? strlen(part) : 1;
        if ((unsigned)rand() % rare || length > size - at)
            data[at++] = (uint8_t) "etaoin srhldcumf01.:"[rand() % 20];
        else
            for (size_t i = 0; i < length; i++)
                data[at++] = (uint8_t)part[i];
    }
}

/* In front of memory that is not there, and behind text that must not count. */
Test(literals_look, every_way_finds_the_first_place)
{
    struct literals l = {.count = 0};
    struct guest_mem mem;
    unsigned found = 0, none = 0;

    support_guard_mem(&mem, 4096);
    uint8_t *end = (uint8_t *)guest_mem_at(&mem, 0, 4096) + 4096;
    for (size_t i = 0; i < COUNT(expressions); i++)
        cr_assert(literals_add(&l, expressions[i]));
    const enum literals_way best = l.way;
    srand(1);
    for (unsigned i = 0; i < 60000; i++) {
        size_t size = (unsigned)rand() % (i % 8 ? 400 : 1400);
        make_text(end - size, size, 1u << rand() % 12);
        memcpy(end - size - 2, "bl", 2);
        if (i % 4 == 0 && size >= 19)
            memcpy(end - size, "ocked for more than", 19);
        size_t place = place_by_bytes(&l, end - size, size);
        found += place < size;
        none += place == size;
        for (l.way = LITERALS_ONE_BY_ONE; l.way <= best; l.way++)
            cr_assert_eq(literals_find(&l, end - size, size), place, "way %d, %zu bytes, round %u",
                         (int)l.way, size, i);
        l.way = best;
    }
    cr_expect_gt(found, 10000);
    cr_expect_gt(none, 10000);
    guest_mem_finish(&mem);
}

/* More texts than groups, or room; and one that none of the others hides. */
Test(literals_look, many_texts_are_told_apart)
{
    struct literals l = {.count = 0};
    char text[16];

    for (unsigned i = 0; i < LITERALS_MAX; i++) {
        snprintf(text, sizeof(text), "x%02uword%02u", i, 99 - i);
        cr_assert(literals_add(&l, text));
    }
    cr_expect(!literals_add(&l, "one more"));
    const enum literals_way best = l.way;
    for (l.way = LITERALS_ONE_BY_ONE; l.way <= best; l.way++) {
        for (unsigned i = 0; i < LITERALS_MAX; i++) {
            uint8_t data[100];
            memset(data, '.', sizeof(data));
            memcpy(data + i % 80, text,
                   (size_t)snprintf(text, sizeof(text), "x%02uword%02u", i, 99 - i));
            cr_expect(literals_occur(&l, data, sizeof(data)), "way %d: %s", (int)l.way, text);
            memcpy(data + i % 80, text,
                   (size_t)snprintf(text, sizeof(text), "x%02uword%02u", i, 98 - i));
            cr_expect(!literals_occur(&l, data, sizeof(data)), "way %d: %s", (int)l.way, text);
        }
    }
}
