/* Taking spans of guest memory apart. */
#include <string.h>

#include "tests/unit/support.h"
#include "virtio/span.h"

SUITE(span);

#define TOTAL 24u

/* TOTAL bytes that count from 1, in pieces whose lengths repeat; the last one ends them. */
struct cut {
    const char *name;
    unsigned lengths[4];
};
static const struct cut cuts[] = {
    {"whole", {TOTAL}},        {"one byte each", {1}},   {"two", {10, 14}}, {"five", {5}},
    {"first of one", {1, 23}}, {"last of one", {23, 1}}, {"seven", {7, 3}}, {"sixteen", {16, 8}},
};

struct pieces {
    uint8_t bytes[TOTAL][64]; /* each piece somewhere of its own */
    struct iovec iov[TOTAL + 1];
    struct virtq_span span;
};

static struct pieces *cut(struct pieces *p, const struct cut *cut)
{
    memset(p, 0xee, sizeof(*p));
    unsigned count = 0, lengths = 0;
    while (lengths < 4 && cut->lengths[lengths])
        lengths++;
    for (unsigned at = 0; at < TOTAL; count++) {
        unsigned length = cut->lengths[count % lengths];
        if (length > TOTAL - at)
            length = TOTAL - at;
        p->iov[count] = (struct iovec){p->bytes[count] + 16, length};
        for (unsigned i = 0; i < length; i++)
            p->bytes[count][16 + i] = (uint8_t)++at;
    }
    p->span = (struct virtq_span){p->iov, count, TOTAL};
    return p;
}

/* Are these the bytes that are left? */
static bool holds(const struct virtq_span *span, unsigned first, unsigned last)
{
    uint64_t length = 0;
    for (unsigned i = 0; i < span->count; i++) {
        const uint8_t *at = span->iov[i].iov_base;
        if (span->iov[i].iov_len == 0)
            return false;
        for (size_t j = 0; j < span->iov[i].iov_len; j++, length++)
            if (at[j] != first++)
                return false;
    }
    return first == last + 1 && length == span->length;
}

Test(span, take_copies_the_first_bytes_and_drops_them)
{
    struct pieces p;
    for (size_t c = 0; c < COUNT(cuts); c++) {
        for (unsigned size = 0; size <= TOTAL + 2; size++) {
            uint8_t out[TOTAL + 8];
            memset(out, 0xcc, sizeof(out));
            cut(&p, &cuts[c]);
            bool enough = size <= TOTAL;
            cr_assert_eq(span_take(&p.span, out, size), enough, "%s, %u", cuts[c].name, size);
            cr_assert(holds(&p.span, enough ? size + 1 : 1, TOTAL), "%s, %u", cuts[c].name, size);
            for (unsigned i = 0; i < sizeof(out); i++)
                cr_assert_eq(out[i], enough && i < size ? i + 1 : 0xcc);
        }
    }
}

Test(span, put_copies_what_there_is_room_for)
{
    struct pieces p;
    uint8_t in[TOTAL + 2];
    for (unsigned i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)(200 - i);
    for (size_t c = 0; c < COUNT(cuts); c++) {
        for (unsigned size = 0; size <= TOTAL + 2; size++) {
            cut(&p, &cuts[c]);
            struct virtq_span all = p.span;
            struct iovec iov[TOTAL + 1];
            memcpy(iov, p.iov, sizeof(iov));
            unsigned fits = size < TOTAL ? size : TOTAL;
            cr_assert_eq(span_put(&p.span, in, size), fits, "%s, %u", cuts[c].name, size);
            cr_assert(holds(&p.span, fits + 1, TOTAL), "%s, %u", cuts[c].name, size);
            unsigned at = 0;
            for (unsigned i = 0; i < all.count; i++) {
                const uint8_t *bytes = iov[i].iov_base;
                cr_assert_eq(bytes[-1], 0xee);
                cr_assert_eq(bytes[iov[i].iov_len], 0xee);
                for (size_t j = 0; j < iov[i].iov_len; j++, at++)
                    cr_assert_eq(bytes[j], at < fits ? 200 - at : at + 1);
            }
        }
    }
}

Test(span, take_last_drops_the_last_byte)
{
    struct pieces p;
    for (size_t c = 0; c < COUNT(cuts); c++) {
        cut(&p, &cuts[c]);
        for (unsigned left = TOTAL; left > 0; left--) {
            const uint8_t *last = span_take_last(&p.span);
            cr_assert(last && *last == left, "%s, %u", cuts[c].name, left);
            cr_assert(holds(&p.span, 1, left - 1), "%s, %u", cuts[c].name, left);
        }
        cr_assert_null(span_take_last(&p.span));
        cr_assert_eq(p.span.length, 0);
        cr_assert_eq(p.span.count, 0);
    }
}

Test(span, an_empty_span_has_nothing)
{
    struct virtq_span span = {0};
    uint8_t byte = 7;
    cr_assert_null(span_take_last(&span));
    cr_assert(span_take(&span, &byte, 0));
    cr_assert_not(span_take(&span, &byte, 1));
    cr_assert_eq(span_put(&span, &byte, 1), 0);
    cr_assert_eq(byte, 7);
}

Test(span, front_and_back_may_meet)
{
    struct pieces p;
    uint8_t out[TOTAL];
    for (size_t c = 0; c < COUNT(cuts); c++) {
        cut(&p, &cuts[c]);
        cr_assert_not_null(span_take_last(&p.span));
        cr_assert_not(span_take(&p.span, out, TOTAL));
        cr_assert(span_take(&p.span, out, TOTAL - 1), "%s", cuts[c].name);
        cr_assert_eq(p.span.length, 0);
        cr_assert_eq(p.span.count, 0, "%s", cuts[c].name);
        cr_assert_null(span_take_last(&p.span));
    }
}
