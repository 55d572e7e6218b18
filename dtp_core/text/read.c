/* text/read.c - what a text looks like: reading, units of position, places that stay with their text. */
#include "crdt_text_internal.h"

static const int64_t DELETED_PLACE = INT64_C(1) << 62;

int64_t dtp_text_measure(dtp_text *t, uint64_t start, uint64_t end)
{
    int64_t from, to;
    if (start > end || end > t->state.length)
        return DTP_TEXT_RANGE;
    from = dtp_text_convert(t, start, DTP_TEXT_POINTS, DTP_TEXT_UTF8_BYTES);
    to = from < 0 ? from : dtp_text_convert(t, end, DTP_TEXT_POINTS, DTP_TEXT_UTF8_BYTES);
    return to < 0 ? to : to - from;
}

int64_t dtp_text_read(dtp_text *t, uint64_t start, uint64_t end, uint8_t *out, size_t capacity)
{
    size_t used = 0;
    uint32_t left;
    place p;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    if (start > end || end > t->state.length) {
        text_leave(t);
        return DTP_TEXT_RANGE;
    }
    left = (uint32_t)(end - start);
    if (left > 0)
        p = tree_find(t, (uint32_t)start);
    while (left > 0) {
        const span *s = at_place(&p);
        if ((s->who & DEAD) == 0) {
            uint32_t some = s->len - p.off < left ? s->len - p.off : left;
            weight w;
            const uint8_t *text = span_text(t, s, p.off, some, &w);
            size_t size = w.chars + w.more8;
            if (size > capacity - used)
                break;
            memcpy(out + used, text, size);
            used += size;
            left -= some;
        }
        tree_next(&p);
    }
    text_leave(t);
    return left > 0 ? DTP_TEXT_RANGE : (int64_t)used;
}

/* ---- units ----------------------------------------------------------------------------------------------- */

static uint64_t in_unit(uint64_t chars, uint64_t more8, uint64_t more16, int unit)
{
    return unit == DTP_TEXT_UTF8_BYTES ? chars + more8 : unit == DTP_TEXT_UTF16_UNITS ? chars + more16 : chars;
}

/* Walk over whole characters of a span while `rest` units are left; sums grow. */
static void walk_span(const dtp_text *t, const span *s, uint64_t rest, int unit, uint64_t sum[3])
{
    const uint8_t *text = t->pool + s->text;
    uint32_t i;
    if ((s->who & WIDE) == 0) {
        sum[0] += rest;
        return;
    }
    for (i = 0; i < s->len; i++) {
        weight w = {0, 0, 0};
        size_t size = utf8_skip(text, 1, &w);
        uint64_t units = in_unit(1, w.more8, w.more16, unit);
        if (units > rest)
            return;
        rest -= units;
        sum[0]++;
        sum[1] += w.more8;
        sum[2] += w.more16;
        text += size;
    }
}

/* Down to the span in which a place is; what is before it is summed up. */
static void walk(const dtp_text *t, uint64_t rest, int unit, uint64_t sum[3])
{
    const node *n = t->root;
    const leaf *l;
    uint32_t i;
    while (n->level > 0) {
        const branch *b = (const branch *)(const void *)n;
        for (i = 0; i + 1 < n->count; i++) {
            uint64_t units = in_unit(b->chars[i], b->more8[i], b->more16[i], unit);
            if (rest < units)
                break;
            rest -= units;
            sum[0] += b->chars[i];
            sum[1] += b->more8[i];
            sum[2] += b->more16[i];
        }
        n = b->child[i];
    }
    l = (const leaf *)(const void *)n;
    for (i = 0; i < l->head.count; i++) {
        const span *s = &l->spans[i];
        weight w;
        uint64_t units;
        if ((s->who & DEAD) != 0)
            continue;
        span_text(t, s, 0, s->len, &w);
        units = in_unit(w.chars, w.more8, w.more16, unit);
        if (rest < units) {
            walk_span(t, s, rest, unit, sum);
            return;
        }
        rest -= units;
        sum[0] += w.chars;
        sum[1] += w.more8;
        sum[2] += w.more16;
    }
}

int64_t dtp_text_convert(dtp_text *t, uint64_t position, int from, int to)
{
    uint64_t sum[3] = {0, 0, 0};
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    if (position > in_unit(t->state.length, t->state.bytes - t->state.length, t->state.utf16 - t->state.length,
                           from)) {
        text_leave(t);
        return DTP_TEXT_RANGE;
    }
    walk(t, position, from, sum);
    text_leave(t);
    return (int64_t)in_unit(sum[0], sum[1], sum[2], to);
}

/* ---- places ---------------------------------------------------------------------------------------------- */

int dtp_text_identify(dtp_text *t, uint64_t position, dtp_text_id *found)
{
    place p;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    if (position >= t->state.length) {
        text_leave(t);
        return DTP_TEXT_RANGE;
    }
    p = tree_find(t, (uint32_t)position);
    *found = span_id(at_place(&p), p.off);
    text_leave(t);
    return DTP_TEXT_OK;
}

static int64_t position(dtp_text *t, id x)
{
    place p;
    int64_t rank = DTP_TEXT_GONE;
    if (x.agent < t->agent_count && x.seq < t->agents[x.agent].next && locate(t, x, &p)) {
        rank = tree_rank(t, &p);
        if ((at_place(&p)->who & DEAD) != 0)
            rank += DELETED_PLACE;
    }
    return rank;
}

int64_t dtp_text_position(dtp_text *t, dtp_text_id x)
{
    int64_t rank;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    rank = position(t, x);
    text_leave(t);
    return rank;
}

int64_t dtp_list_position(dtp_text *t, dtp_text_id x)
{
    int64_t rank;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    rank = position(t, mark_stands(t, x));
    text_leave(t);
    return rank;
}

int dtp_text_agent_name(dtp_text *t, uint32_t who, uint8_t *out)
{
    int size = DTP_TEXT_GONE;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    if (who < t->agent_count) {
        size = (int)t->agents[who].size;
        memcpy(out, t->agents[who].name, t->agents[who].size);
    }
    text_leave(t);
    return size;
}

int64_t dtp_text_agent_find(dtp_text *t, const uint8_t *name, size_t size)
{
    int64_t found;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    found = agent_lookup(t, name, size);
    text_leave(t);
    return found;
}

/* ---- what is here ------------------------------------------------------------------------------------------ */

static int has_message(dtp_text *t, const message *m)
{
    group g;
    wire_op w;
    int code = names_read(t, m, agent_lookup);
    if (code != DTP_TEXT_OK)
        return code;
    g.r = m->groups;
    g.agents = m->agents;
    while (wire_group(&g) == 1) {
        uint32_t who = t->locals[g.self], first = g.seq;
        do
            (void)wire_operation(&g, &w); /* checked before */
        while (!w.end);
        if (g.seq > first && (who == NOBODY || t->agents[who].next < g.seq))
            return 0;
    }
    return 1;
}

int dtp_text_has(dtp_text *t, const uint8_t *data, size_t size)
{
    dtp_reader r = {data, data, size > 0 ? data + size : data};
    message m;
    int has, code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    code = waits_settle(t);
    has = code == DTP_TEXT_OK ? 1 : code;
    while (r.at < r.end && has == 1)
        has = wire_check(&r, &m) != DTP_TEXT_OK || m.state || m.list != t->is_list ? DTP_TEXT_FORMAT : has_message(t, &m);
    text_leave(t);
    return has;
}
