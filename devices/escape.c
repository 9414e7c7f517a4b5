#include "devices/escape.h"

#define CTRL_A 0x01

size_t escape_filter(struct escape *escape, const uint8_t *in, size_t length, uint8_t *out,
                     bool *leave)
{
    size_t n = 0;
    *leave = false;
    for (size_t i = 0; i < length; i++) {
        if (!escape->pending && in[i] == CTRL_A) {
            escape->pending = true;
            continue;
        }
        if (escape->pending && (in[i] == 'x' || in[i] == 'X')) {
            *leave = true;
            escape->pending = false;
            break;
        }
        if (escape->pending && in[i] != CTRL_A)
            out[n++] = CTRL_A;
        escape->pending = false;
        out[n++] = in[i];
    }
    return n;
}
