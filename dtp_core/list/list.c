/* list/list.c - lists: texts whose characters are elements. What is made here by this replica: insertions, and for moves and
 * assignments a marker each, with the one that it replaces deleted. */
#include "crdt_graph.h"
#include "crdt_text_internal.h"

dtp_text *dtp_list_new(const uint8_t *agent_name, size_t size, const uint8_t *seed)
{
    dtp_text *t = dtp_text_new(agent_name, size, seed);
    if (t != NULL) {
        t->is_list = 1;
        t->state.depth = 0;
    }
    return t;
}

static int begin(dtp_text *t)
{
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    t->patching = PATCHES_UNWANTED;
    t->body.size = 0;
    return DTP_TEXT_OK;
}

static int end(dtp_text *t, int code)
{
    text_leave(t);
    return code;
}

/* ---- inserting ---------------------------------------------------------------------------------------------- */

/* The values into t->body as cells: how many, or a code. */
static int64_t make_cells(dtp_text *t, const uint8_t *values, size_t size)
{
    dtp_reader r = {values, values, size > 0 ? values + size : values};
    int64_t count = 0;
    for (; r.at < r.end; count++) {
        dtp_bytes value;
        int code;
        if (dtp_read_value(&r, &value) != DTP_OK) {
            t->state.at = (uint64_t)(r.at - values);
            return DTP_TEXT_FORMAT;
        }
        code = cell_put_value(t, &t->body, value.at, value.length);
        if (code != DTP_TEXT_OK)
            return code;
    }
    return count;
}

int dtp_list_insert(dtp_text *t, uint64_t position, const uint8_t *values, size_t size)
{
    int64_t count;
    run op;
    place p;
    int code = begin(t);
    if (code != DTP_TEXT_OK)
        return code;
    if (position > t->state.length)
        return end(t, DTP_TEXT_RANGE);
    if (size >= DTP_TEXT_SEQUENCE)
        return end(t, DTP_TEXT_FULL);
    count = make_cells(t, values, size);
    if (count <= 0)
        return end(t, (int)count);
    order_local(t, (uint32_t)position, &op, &p);
    return end(t, order_insert(t, 0, op, (uint32_t)count, t->body.data, t->body.size, 0, p));
}

/* ---- deleting ----------------------------------------------------------------------------------------------- */

static int delete_one(dtp_text *t, id x)
{
    run op = {0, DELETE_UP, 0, {0, 0}, {NOBODY, 0}};
    op.a = x;
    return order_delete(t, 0, op, 1);
}

/* Delete the marker that holds, if there is one that isn't deleted. */
static int delete_top(dtp_text *t, id element_id, uint32_t kind)
{
    const marker *top = mark_top(t, element_id, kind);
    return top == NULL ? DTP_TEXT_OK : delete_one(t, top->at);
}

static id visible_at(dtp_text *t, uint64_t position)
{
    place p = tree_find(t, (uint32_t)position);
    return span_id(at_place(&p), p.off);
}

/* The element first: the markers of one that is deleted are only there to be forgotten. */
static int delete_marked(dtp_text *t, uint64_t position)
{
    id x = mark_shown(t, visible_at(t, position));
    int code = delete_one(t, x);
    if (code == DTP_TEXT_OK)
        code = delete_top(t, x, MARK_PLACE);
    return code == DTP_TEXT_OK ? delete_top(t, x, MARK_VALUE) : code;
}

int dtp_list_delete(dtp_text *t, uint64_t position, uint64_t count)
{
    int code = begin(t);
    if (code != DTP_TEXT_OK)
        return code;
    if (position > t->state.length || count > t->state.length - position)
        return end(t, DTP_TEXT_RANGE);
    if (count >= (DTP_TEXT_SEQUENCE - t->agents[0].next) / 3)
        return end(t, DTP_TEXT_FULL);
    if (count > 0 && t->marks.elements == 0) {
        code = reserve_delete_here(t, NULL, (uint32_t)position, (uint32_t)count);
        if (code == DTP_TEXT_OK)
            delete_noted(t, NULL, (uint32_t)position, (uint32_t)count);
        return end(t, code);
    }
    for (; count > 0 && code == DTP_TEXT_OK; count--)
        code = delete_marked(t, position);
    return end(t, code);
}

/* ---- moving and assigning ----------------------------------------------------------------------------------- */

/* Put a marker before the element at `position`, and delete the one that it replaces. */
static int put_marker(dtp_text *t, uint64_t position, id element_id, list_cell *c, uint64_t now)
{
    agent *a = &t->agents[element_id.agent];
    const marker *top = mark_top(t, element_id, c->kind);
    id replaced = top == NULL ? make_id(NOBODY, 0) : top->at, new = make_id(0, t->agents[0].next);
    uint64_t newest = t->marks.newest;
    run op;
    place p;
    int code;
    c->name = a->name;
    c->name_size = a->size;
    c->seq = element_id.seq;
    c->stamp = now > newest ? now : newest + (t->marks.newest_of != 0); /* own ones of one stamp go by number */
    if (c->stamp >> LIST_STAMPS != 0)
        return DTP_TEXT_FULL;
    code = cell_put_marker(t, &t->body, c);
    if (code == DTP_TEXT_OK)
        code = mark_reserve(t, element_id);
    if (code != DTP_TEXT_OK)
        return code;
    order_local(t, (uint32_t)position, &op, &p);
    op.marker = 1;
    code = order_insert(t, 0, op, 1, t->body.data, t->body.size, 0, p);
    if (code != DTP_TEXT_OK)
        return code;
    mark_arrived(t, new);
    return replaced.agent == NOBODY ? DTP_TEXT_OK : delete_one(t, replaced);
}

int dtp_list_move(dtp_text *t, uint64_t from, uint64_t to, uint64_t now)
{
    list_cell c;
    int code = begin(t);
    memset(&c, 0, sizeof c);
    c.kind = MARK_PLACE;
    if (code != DTP_TEXT_OK)
        return code;
    if (from >= t->state.length || to >= t->state.length)
        return end(t, DTP_TEXT_RANGE);
    if (from == to)
        return end(t, DTP_TEXT_OK);
    return end(t, put_marker(t, to < from ? to : to + 1, mark_shown(t, visible_at(t, from)), &c, now));
}

int dtp_list_assign(dtp_text *t, uint64_t position, const uint8_t *value, size_t size, uint64_t now)
{
    dtp_reader r = {value, value, size > 0 ? value + size : value};
    dtp_bytes checked;
    list_cell c;
    int code = begin(t);
    memset(&c, 0, sizeof c);
    c.kind = MARK_VALUE;
    if (code != DTP_TEXT_OK)
        return code;
    if (position >= t->state.length)
        return end(t, DTP_TEXT_RANGE);
    if (dtp_read_value(&r, &checked) != DTP_OK || r.at != r.end) {
        t->state.at = (uint64_t)(r.at - value);
        return end(t, DTP_TEXT_FORMAT);
    }
    c.value = checked.at;
    c.value_size = checked.length;
    return end(t, put_marker(t, 0, mark_shown(t, visible_at(t, position)), &c, now));
}

int dtp_list_identify(dtp_text *t, uint64_t position, dtp_text_id *found)
{
    int code = begin(t);
    if (code != DTP_TEXT_OK)
        return code;
    if (position >= t->state.length)
        return end(t, DTP_TEXT_RANGE);
    *found = mark_shown(t, visible_at(t, position));
    return end(t, DTP_TEXT_OK);
}

int dtp_list_look(dtp_text *t, dtp_text_id x, dtp_list_standing *found)
{
    const marker *top;
    place p;
    int code = begin(t);
    if (code != DTP_TEXT_OK)
        return code;
    if (x.agent >= t->agent_count || x.seq >= t->agents[x.agent].next || !locate(t, x, &p)
        || is_deleted(at_place(&p)) || (at_place(&p)->who & MARKER) != 0)
        return end(t, DTP_TEXT_GONE);
    found->place = found->value = x;
    top = mark_top(t, x, MARK_PLACE);
    if (top != NULL)
        found->place = top->at;
    top = mark_top(t, x, MARK_VALUE);
    if (top != NULL)
        found->value = top->at;
    (void)locate(t, found->place, &p);
    found->position = tree_rank(t, &p);
    return end(t, DTP_TEXT_OK);
}

int dtp_list_behind(dtp_text *t, dtp_text_id x, dtp_text_id y)
{
    place p, q;
    int code = begin(t);
    if (code != DTP_TEXT_OK)
        return code;
    if (x.agent >= t->agent_count || x.seq >= t->agents[x.agent].next || y.agent >= t->agent_count
        || y.seq >= t->agents[y.agent].next || !locate(t, x, &p) || !locate(t, y, &q))
        return end(t, DTP_TEXT_GONE);
    return end(t, tree_compare(&p, &q) > 0);
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

/* The values of `count` elements of a span, from `off` on, into t->out. */
static int read_span(dtp_text *t, const span *s, uint32_t off, uint32_t count)
{
    weight w;
    dtp_reader r;
    uint32_t i;
    r.start = r.at = span_text(t, s, off, count, &w);
    r.end = r.at + w.chars + w.more8;
    if (bytes_reserve(t, &t->out, w.more8 + w.chars) != DTP_TEXT_OK)
        return DTP_TEXT_MEMORY;
    for (i = 0; i < count; i++) {
        uint64_t length = 0;
        const uint8_t *value;
        size_t size;
        (void)dtp_read_varint(&r, &length);
        value = dtp_read_bytes(&r, length);
        size = (size_t)length;
        if (t->marks.elements > 0)
            size = mark_value(t, mark_shown(t, span_id(s, off + i)), &value);
        if (bytes_reserve(t, &t->out, size) != DTP_TEXT_OK)
            return DTP_TEXT_MEMORY;
        memcpy(t->out.data + t->out.size, value, size);
        t->out.size += size;
    }
    return DTP_TEXT_OK;
}

int64_t dtp_list_read(dtp_text *t, uint64_t start, uint64_t stop, const uint8_t **out)
{
    uint32_t left;
    place p;
    int code = begin(t);
    if (code != DTP_TEXT_OK)
        return code;
    t->out.size = 0;
    if (start > stop || stop > t->state.length)
        return end(t, DTP_TEXT_RANGE);
    left = (uint32_t)(stop - start);
    if (left > 0)
        p = tree_find(t, (uint32_t)start);
    while (left > 0 && code == DTP_TEXT_OK) {
        const span *s = at_place(&p);
        uint32_t some = s->len - p.off < left ? s->len - p.off : left;
        if ((s->who & DEAD) == 0) {
            code = read_span(t, s, p.off, some);
            left -= some;
        }
        tree_next(&p);
    }
    *out = t->out.data;
    text_leave(t);
    return code < 0 ? code : (int64_t)t->out.size;
}
