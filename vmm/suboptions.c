#include "vmm/suboptions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 200u /* bytes for the list of what there is, in an error text */

/*
 * End the piece that begins at `piece` at its comma, with doubled commas made single; returns where
 * the next piece begins, or NULL.
 */
static char *cut(char *piece)
{
    char *to = piece;

    for (char *from = piece;; from++) {
        if (*from == ',' && from[1] != ',') {
            *to = '\0';
            return from + 1;
        }
        if (*from == ',')
            from++;
        *to++ = *from;
        if (*from == '\0')
            return NULL;
    }
}

static void list(const struct suboption *table, unsigned count, char *words)
{
    size_t used = 0;

    words[0] = '\0';
    for (unsigned i = 0; i < count && used < WORDS_MAX; i++)
        used += (size_t)snprintf(words + used, WORDS_MAX - used, "%s%s%s", i ? ", " : "",
                                 table[i].name, table[i].kind == SUBOPTION_FLAG ? "" : "=");
}

static int store_number(const struct suboption *option, const char *value, unsigned *to,
                        const char *what, struct minivmm_error *err)
{
    char *end;

    errno = 0;
    unsigned long number = strtoul(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || errno || number < option->min ||
        number > option->max)
        return error_set(err, -EINVAL, "%s: %s=%s: must be a number from %u to %u", what,
                         option->name, value, option->min, option->max);
    *to = (unsigned)number;
    return 0;
}

static int store_mac(const struct suboption *option, const char *value, uint8_t *to,
                     const char *what, struct minivmm_error *err)
{
    uint8_t mac[6], sum = 0;
    int length = 0;

    bool good = sscanf(value, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2],
                       &mac[3], &mac[4], &mac[5], &length) == 6 &&
                length == 17 && value[length] == '\0' &&
                strspn(value, "0123456789abcdefABCDEF:") == 17;
    for (int i = 0; good && i < 6; i++)
        sum |= mac[i];
    if (!good || sum == 0 || (mac[0] & 1))
        return error_set(err, -EINVAL, "%s: %s=%s: must be the address of one station: %s", what,
                         option->name, value,
                         !good ? "six bytes in hexadecimal with colons between them"
                         : sum == 0
                             ? "it is all zero"
                             : "the first byte of this one is odd, which makes it multicast");
    memcpy(to, mac, sizeof(mac));
    return 0;
}

static int store_text(const struct suboption *option, const char *value, const char **to,
                      const char *what, struct minivmm_error *err)
{
    if (!*value || (option->kind == SUBOPTION_TEXT && strlen(value) > option->max))
        return error_set(err, -EINVAL, "%s: %s=%s: must have 1 to %u bytes", what, option->name,
                         value, option->max);
    *to = value;
    return 0;
}

static int store(const struct suboption *option, const char *value, void *place, unsigned *count,
                 const char *what, struct minivmm_error *err)
{
    if ((option->kind == SUBOPTION_FLAG) != !value)
        return error_set(err, -EINVAL, "%s: %s: %s", what, option->name,
                         value ? "takes no value" : "needs a value");
    switch (option->kind) {
    case SUBOPTION_FLAG:
        *(bool *)place = true;
        return 0;
    case SUBOPTION_TEXT:
        return store_text(option, value, place, what, err);
    case SUBOPTION_LIST:
        if (*count == option->max)
            return error_set(err, -EINVAL, "%s: %s=%s: more than %u of them", what, option->name,
                             value, option->max);
        return store_text(option, value, (const char **)place + (*count)++, what, err);
    case SUBOPTION_MAC:
        return store_mac(option, value, place, what, err);
    case SUBOPTION_NUMBER:
        return store_number(option, value, place, what, err);
    case SUBOPTION_CHOICE:
        for (unsigned i = 0; i < 2; i++) {
            if (strcmp(value, option->choices[i]) == 0) {
                *(bool *)place = i;
                return 0;
            }
        }
        return error_set(err, -EINVAL, "%s: %s=%s: must be %s or %s", what, option->name, value,
                         option->choices[0], option->choices[1]);
    }
    return -EINVAL;
}

int suboptions_parse(char *text, const struct suboption *table, unsigned count, void *to,
                     const char **first, const char *what, struct minivmm_error *err)
{
    unsigned long seen = 0;

    *first = text;
    for (char *piece = cut(text), *next; piece; piece = next) {
        next = cut(piece);
        char *value = strchr(piece, '=');
        if (value)
            *value++ = '\0';
        unsigned i = 0;
        while (i < count && strcmp(piece, table[i].name) != 0)
            i++;
        if (i == count) {
            char words[WORDS_MAX];
            list(table, count, words);
            return error_set(err, -EINVAL, "%s: '%s' is none of %s (in a name, write , twice)",
                             what, piece, words);
        }
        if ((seen >> i & 1) && table[i].kind != SUBOPTION_LIST)
            return error_set(err, -EINVAL, "%s: %s: given twice", what, piece);
        seen |= 1ul << i;
        int rc = store(&table[i], value, (char *)to + table[i].place,
                       (unsigned *)((char *)to + table[i].count_place), what, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
