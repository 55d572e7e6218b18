/* text/undo.c - what this replica did, in steps, and how to take it back and bring it again.
 *
 * Undoing is editing: it makes new operations, which everybody merges like any others. Characters that come back are
 * new ones, so whatever knew the old ones is told. */
#include "crdt_text_internal.h"

enum { PREPEND = 256 /* bytes that a backspace may move in the undo text */ };

/* ---- histories ------------------------------------------------------------------------------------------- */

static void history_clear(history *h)
{
    h->count = h->step_count = h->text.size = 0;
}

void history_free(dtp_text *t, history *h)
{
    text_give(t, h->entries, h->room * sizeof *h->entries);
    text_give(t, h->steps, h->step_room * sizeof *h->steps);
    bytes_free(t, &h->text);
    memset(h, 0, sizeof *h);
}

int history_reserve(dtp_text *t, history *h, size_t entries, size_t size)
{
    int code = text_grow(t, &h->entries, &h->room, h->count + entries, sizeof *h->entries);
    if (code == DTP_TEXT_OK)
        code = text_grow(t, &h->steps, &h->step_room, h->step_count + 1, sizeof *h->steps);
    return code == DTP_TEXT_OK ? bytes_reserve(t, &h->text, size) : code;
}

/* Drop the oldest steps, so that `depth` are left. */
static void history_shorten(history *h, size_t depth)
{
    size_t drop = h->step_count - depth, from, size = 0, i;
    from = h->steps[drop];
    for (i = 0; i < from; i++)
        size += h->entries[i].size;
    memmove(h->entries, h->entries + from, (h->count - from) * sizeof *h->entries);
    h->count -= from;
    memmove(h->steps, h->steps + drop, depth * sizeof *h->steps);
    h->step_count = depth;
    for (i = 0; i < depth; i++)
        h->steps[i] -= from;
    if (size > 0)
        memmove(h->text.data, h->text.data + size, h->text.size - size);
    h->text.size -= size;
}

static void history_step(dtp_text *t, history *h)
{
    if (h->step_count > 0 && h->steps[h->step_count - 1] == h->count)
        return; /* the last one is still empty */
    if (h == &t->undo && h->step_count > t->state.depth + t->state.depth / 2)
        history_shorten(h, t->state.depth);
    h->steps[h->step_count++] = h->count;
}

/* Whether the last entry belongs to the last step and is of this kind. */
static entry *last_entry(history *h, uint32_t kind)
{
    entry *e;
    if (h->count == 0 || h->step_count == 0 || h->steps[h->step_count - 1] == h->count)
        return NULL;
    e = &h->entries[h->count - 1];
    return e->deleted == kind ? e : NULL;
}

void note_inserted(history *h, uint32_t seq, uint32_t len)
{
    entry *e = last_entry(h, INSERTED);
    if (e != NULL && e->first.seq + e->len == seq) {
        e->len += len;
        return;
    }
    e = &h->entries[h->count++];
    e->deleted = INSERTED;
    e->joined = 0;
    e->when = seq;
    e->at = 0;
    e->first = e->place = make_id(0, seq);
    e->len = len;
    e->size = 0;
}

void note_deleted(history *h, uint32_t when, uint32_t at, id first, uint32_t len, const uint8_t *text,
                         size_t size, int joined)
{
    entry *e = last_entry(h, DELETED);
    uint8_t *end = h->text.data + h->text.size;
    h->text.size += size;
    if (e != NULL && e->first.agent == first.agent) {
        if (e->first.seq + e->len == first.seq && at == e->at) {
            memcpy(end, text, size);
            e->len += len;
            e->size += size;
            return;
        }
        /* What is joined has the entry before it on its left. */
        if (!e->joined && first.seq + len == e->first.seq && at + len == e->at && e->size <= PREPEND) {
            memmove(end - e->size + size, end - e->size, e->size);
            memcpy(end - e->size, text, size);
            e->first = e->place = first;
            e->at = at;
            e->len += len;
            e->size += size;
            return;
        }
    }
    memcpy(end, text, size);
    e = &h->entries[h->count++];
    e->deleted = DELETED;
    e->joined = (uint16_t)joined;
    e->when = when;
    e->at = at;
    e->first = e->place = first;
    e->len = len;
    e->size = size;
}

void note_marked(history *h, id x, size_t size)
{
    entry *e = &h->entries[h->count++];
    e->deleted = MARKED;
    e->joined = 0;
    e->when = x.seq;
    e->at = 0;
    e->first = e->place = x;
    e->len = 1;
    e->size = size;
    h->text.size += size;
}

/* Begin a step unless this edit goes on where the last one stopped. */
void step_for(dtp_text *t, uint32_t kind, uint64_t position, uint64_t count)
{
    int joins = !t->step_ended && t->undo.step_count > 0;
    if (joins && !t->step_open)
        joins = t->step_kind == kind
            && (position == t->step_at || (kind == DELETED && position + count == t->step_at));
    if (!joins)
        history_step(t, &t->undo);
    t->step_ended = 0;
    t->step_kind = kind;
    t->step_at = kind == DELETED ? position : position + count;
    history_clear(&t->redo);
}

int dtp_text_step(dtp_text *t, int open)
{
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    t->step_open = open;
    t->step_ended = 1;
    text_leave(t);
    return DTP_TEXT_OK;
}

/* ---- undoing --------------------------------------------------------------------------------------------- */

/* Own characters [from, from + len) came back as [to, to + len): whoever wants to take the old ones away means those. */
static int revive(dtp_text *t, history *h, uint32_t from, uint32_t len, uint32_t to)
{
    size_t i, k;
    for (i = 0; i < h->count; i++) {
        entry e = h->entries[i], part[3];
        uint32_t low, high, end = e.first.seq + e.len;
        size_t parts = 0;
        if (e.deleted || e.first.seq >= from + len || end <= from)
            continue;
        low = e.first.seq > from ? e.first.seq : from;
        high = end < from + len ? end : from + len;
        if (text_grow(t, &h->entries, &h->room, h->count + 2, sizeof *h->entries) != DTP_TEXT_OK)
            return DTP_TEXT_MEMORY;
        part[0] = part[1] = part[2] = e;
        if (e.first.seq < low)
            part[parts++].len = low - e.first.seq;
        part[parts].first.seq = to + (low - from);
        part[parts++].len = high - low;
        if (high < end) {
            part[parts].first.seq = high;
            part[parts++].len = end - high;
        }
        memmove(h->entries + i + parts, h->entries + i + 1, (h->count - i - 1) * sizeof *h->entries);
        memcpy(h->entries + i, part, parts * sizeof *part);
        h->count += parts - 1;
        for (k = 0; k < h->step_count; k++)
            if (h->steps[k] > i)
                h->steps[k] += parts - 1;
        i += parts - 1;
    }
    return DTP_TEXT_OK;
}

/* Take away own characters that are still visible. */
static int undo_inserted(dtp_text *t, history *to, const entry *e)
{
    uint32_t seq = e->first.seq, end = seq + e->len;
    int code = DTP_TEXT_OK;
    while (seq < end && code == DTP_TEXT_OK) {
        place p;
        const span *s;
        uint32_t some;
        if (!locate(t, make_id(0, seq), &p)) {
            seq = index_next(t, make_id(0, seq));
            continue;
        }
        s = at_place(&p);
        some = s->len - p.off < end - seq ? s->len - p.off : end - seq;
        if ((s->who & DEAD) == 0) {
            uint32_t position = tree_rank(t, &p);
            code = reserve_delete_here(t, to, position, some);
            if (code == DTP_TEXT_OK)
                delete_noted(t, to, position, some);
        }
        seq += some;
    }
    return code;
}

/* The revival that own character `x` is of, NULL if it is of none. */
static const revival *find_revival(const dtp_text *t, id x)
{
    size_t low = 0, high = t->revival_count;
    const revival *r;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (t->revivals[middle].seq <= x.seq)
            low = middle + 1;
        else
            high = middle;
    }
    if (x.agent != 0 || low == 0)
        return NULL;
    r = &t->revivals[low - 1];
    return x.seq - r->seq < r->len ? r : NULL;
}

/* What own character `x` was put back for, and how many characters of the same piece are before it. */
static int revived(const dtp_text *t, id *x, uint32_t *before)
{
    const revival *r = find_revival(t, *x);
    if (r == NULL)
        return 0;
    if (*before > x->seq - r->seq)
        *before = x->seq - r->seq;
    *x = make_id(r->old.agent, r->old.seq + (x->seq - r->seq));
    return 1;
}

id text_origin(dtp_text *t, id x, uint32_t *count)
{
    const revival *r;
    while ((r = find_revival(t, x)) != NULL) {
        uint32_t off = x.seq - r->seq, some = r->len - off < *count ? r->len - off : *count;
        id old = make_id(r->old.agent, r->old.seq + off);
        place p;
        if (!locate(t, old, &p))
            break;
        *count = some;
        x = old;
    }
    return x;
}

/* Return whether a character stood behind those of an entry, which were at `p`. Of one that is compacted away its number tells, as
 * far as text is typed forwards. */
static int is_behind(dtp_text *t, id x, const entry *e, const place *p)
{
    place q;
    if (locate(t, x, &q))
        return tree_compare(&q, p) > 0;
    return x.agent == e->first.agent && x.seq > e->first.seq;
}

/* Where to put back what went at `e->when`. New text goes before all that is deleted at its place, so what was put back
 * since then and belongs behind this stands before it now: that is passed over. */
static uint32_t place_of(dtp_text *t, const entry *e)
{
    place p;
    uint32_t position;
    if (!locate(t, e->place, &p))
        return 0; /* compacted away with all around it */
    position = tree_rank(t, &p);
    while (position > 0) {
        place v = tree_find(t, position - 1);
        id x = span_id(at_place(&v), v.off);
        uint32_t low = 0, high = v.off; /* so many more may have to be passed, those nearest first */
        int since = 0;
        while (x.agent == 0 && x.seq >= e->when && revived(t, &x, &high))
            since = 1;
        if (!since || !is_behind(t, x, e, &p))
            break;
        while (low < high) {
            uint32_t middle = (low + high + 1) / 2;
            if (is_behind(t, make_id(x.agent, x.seq - middle), e, &p))
                low = middle;
            else
                high = middle - 1;
        }
        position -= 1 + low;
    }
    return position;
}

static int reserve_revival(dtp_text *t)
{
    enum { KEPT = 4096 };
    if (t->revival_count >= KEPT) { /* the oldest matter least: they only keep an order among deleted text */
        memmove(t->revivals, t->revivals + KEPT / 2, (t->revival_count - KEPT / 2) * sizeof *t->revivals);
        t->revival_count -= KEPT / 2;
    }
    return text_grow(t, &t->revivals, &t->revival_room, t->revival_count + 1, sizeof *t->revivals);
}

/* Put back what was deleted, where it was. */
static int undo_deleted(dtp_text *t, history *to, const entry *e, const uint8_t *text)
{
    uint32_t seq = t->agents[0].next;
    revival *r;
    uint32_t position = place_of(t, e);
    int code = history_reserve(t, to, 1, 0);
    if (code == DTP_TEXT_OK)
        code = reserve_revival(t);
    if (code == DTP_TEXT_OK)
        code = insert_noted(t, to, position, text, e->size, e->len);
    if (code != DTP_TEXT_OK)
        return code;
    (void)rich_carry(t, e->first, e->len, position, e->when); /* without memory it is as what is around it */
    r = &t->revivals[t->revival_count++];
    r->old = e->first;
    r->seq = seq;
    r->len = e->len;
    if (e->first.agent != 0)
        return DTP_TEXT_OK;
    code = revive(t, &t->undo, e->first.seq, e->len, seq);
    return code == DTP_TEXT_OK ? revive(t, &t->redo, e->first.seq, e->len, seq) : code;
}

/* Undo the last entry, with those that it is joined to, the leftmost first. What is undone is gone, also when the rest
 * fails, which can be tried again. */
static int undo_entries(dtp_text *t, history *from, history *to)
{
    size_t done = 0, size = 0, all = 0, count = 1, i;
    int code = DTP_TEXT_OK;
    while (from->entries[from->count - count].joined)
        count++;
    for (i = 0; i < count; i++)
        all += from->entries[from->count - count + i].size;
    while (done < count) {
        entry e = from->entries[from->count - count + done];
        const uint8_t *text = e.size == 0 ? NULL : from->text.data + from->text.size - all + size;
        if (e.deleted == MARKED)
            code = rich_undo(t, to, e.first, text, e.size);
        else if (e.deleted)
            code = undo_deleted(t, to, &e, text);
        else
            code = undo_inserted(t, to, &e);
        if (code != DTP_TEXT_OK)
            break;
        done++;
        size += e.size;
    }
    if (done < count) {
        entry *rest = from->entries + from->count - count;
        memmove(rest, rest + done, (count - done) * sizeof *rest);
        if (all > size)
            memmove(from->text.data + from->text.size - all, from->text.data + from->text.size - (all - size),
                    all - size);
        rest->joined = 0;
    }
    from->count -= done;
    from->text.size -= size;
    return code;
}

/* Undo the last step of `from`, last edit first, noting in `to` how to undo that. */
static int undo_step(dtp_text *t, history *from, history *to)
{
    int code;
    t->patching = PATCHES_WANTED;
    patches_clear(t);
    rich_clear(t);
    while (from->step_count > 0 && from->steps[from->step_count - 1] == from->count)
        from->step_count--;
    if (from->step_count == 0)
        return 0;
    code = history_reserve(t, to, 1, 0);
    if (code != DTP_TEXT_OK)
        return code;
    history_step(t, to);
    while (from->count > from->steps[from->step_count - 1]) {
        code = undo_entries(t, from, to);
        if (code != DTP_TEXT_OK)
            return code;
    }
    from->step_count--;
    t->step_ended = 1;
    return 1;
}

int dtp_text_undo(dtp_text *t)
{
    int code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    code = undo_step(t, &t->undo, &t->redo);
    text_leave(t);
    return code;
}

int dtp_text_redo(dtp_text *t)
{
    int code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    code = undo_step(t, &t->redo, &t->undo);
    text_leave(t);
    return code;
}
