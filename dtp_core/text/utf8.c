/* text/utf8.c - counting in UTF-8: strict where text comes in, quick where it is known to be valid. */
#include "crdt_text_internal.h"

static uint64_t load8(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Length of the sequence at p, or 0: overlong, cut off, a surrogate, beyond U+10FFFF. */
static size_t sequence(const uint8_t *p, size_t left)
{
    uint8_t a = p[0];
    if (a < 0x80)
        return 1;
    if (a >= 0xc2 && a <= 0xdf)
        return left >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
    if (a >= 0xe0 && a <= 0xef) {
        if (left < 3 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80)
            return 0;
        if ((a == 0xe0 && p[1] < 0xa0) || (a == 0xed && p[1] > 0x9f))
            return 0;
        return 3;
    }
    if (a >= 0xf0 && a <= 0xf4) {
        if (left < 4 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80 || (p[3] & 0xc0) != 0x80)
            return 0;
        if ((a == 0xf0 && p[1] < 0x90) || (a == 0xf4 && p[1] > 0x8f))
            return 0;
        return 4;
    }
    return 0;
}

int64_t utf8_count(const uint8_t *text, size_t size, weight *w)
{
    return prose_count(text, size, w, NULL, NULL);
}

/* Return bytes of a valid mark at `text`, or 0. */
static size_t mark_there(const uint8_t *text, size_t size, uint64_t *marked, uint64_t *newest)
{
    dtp_reader r = {text, text, text + size};
    rich_cell c;
    if (marked == NULL || *text != RICH_CELL || rich_read(&r, &c) != DTP_TEXT_OK)
        return 0;
    ++*marked;
    if (c.stamp > *newest)
        *newest = c.stamp;
    return (size_t)(r.at - text);
}

int64_t prose_count(const uint8_t *text, size_t size, weight *w, uint64_t *marked, uint64_t *newest)
{
    size_t at = 0;
    int64_t count = 0;
    memset(w, 0, sizeof *w);
    while (at < size) {
        size_t step;
        while (size - at >= 8 && (load8(text + at) & UINT64_C(0x8080808080808080)) == 0) {
            at += 8;
            count += 8;
        }
        if (at == size)
            break;
        step = sequence(text + at, size - at);
        w->more16 += step == 4;
        if (step == 0)
            step = mark_there(text + at, size - at, marked, newest);
        if (step == 0)
            return -1;
        at += step;
        count++;
        w->more8 += (uint32_t)step - 1;
    }
    w->chars = (uint32_t)count;
    return count;
}

size_t utf8_skip(const uint8_t *text, size_t count, weight *w)
{
    size_t at = 0, i;
    uint32_t astral = 0;
    for (i = 0; i < count; i++) {
        uint8_t a = text[at];
        at += a < 0x80 ? 1 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : a < RICH_CELL ? 4 : rich_size(text + at);
        astral += a >= 0xf0 && a < RICH_CELL;
    }
    if (w != NULL) {
        w->chars += (uint32_t)count;
        w->more8 += (uint32_t)(at - count);
        w->more16 += astral;
    }
    return at;
}
