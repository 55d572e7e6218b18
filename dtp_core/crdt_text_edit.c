/* crdt_text_edit.c - a text's life, local editing, undo, and patches. */
#include "crdt_text_internal.h"

enum {
    SPARE_CHUNKS = 4,            /* kept between calls */
    GARBAGE = 65536,             /* unused bytes in the pool before it is packed, if they are half of it */
    PREPEND = 256,               /* bytes that a backspace may move in the undo text */
    INSERTED = 0, DELETED = 1,   /* kinds of entry */
    WAITING_CAP = 16 * 1024 * 1024,
    UNDO_DEPTH = 1000
};

/* ---- life ------------------------------------------------------------------------------------------------------- */

int text_enter(dtp_text *t)
{
    if (t->busy++ != 0) {
        t->busy--;
        return 0;
    }
    return 1;
}

static void tidy(dtp_text *t)
{
    while (t->spare_chunk_count > SPARE_CHUNKS)
        text_give(t, spare_chunk(t), sizeof(chunk));
    while (t->spare_leaf_count > 1)
        text_give(t, spare_leaf(t), sizeof(leaf));
    while (t->spare_branch_count > 1)
        text_give(t, spare_branch(t), sizeof(branch));
    if (t->garbage > GARBAGE && t->garbage > t->pool_used / 2)
        (void)tree_rebuild(t); /* without memory for it, later */
}

void text_leave(dtp_text *t)
{
    if ((t->spare_chunk_count > SPARE_CHUNKS) | (t->spare_leaf_count > 1) | (t->spare_branch_count > 1)
        | (t->garbage > GARBAGE))
        tidy(t);
    t->state.next = t->agents[0].next;
    t->state.undos = t->undo.step_count;
    t->state.redos = t->redo.step_count;
    t->busy--;
}

dtp_text *dtp_text_new(const uint8_t *agent_name, size_t size, const uint8_t *seed)
{
    dtp_text *t;
    if (size == 0 || size > DTP_TEXT_AGENT)
        return NULL;
    t = dtp_allocate(sizeof *t);
    if (t == NULL)
        return NULL;
    memset(t, 0, sizeof *t);
    memcpy(t->seed, seed, sizeof t->seed);
    t->state.memory = sizeof *t;
    t->state.depth = UNDO_DEPTH;
    t->state.waiting_cap = WAITING_CAP;
    t->last_agent = UINT32_MAX;
    if (agent_intern(t, agent_name, size) < 0 || tree_init(t) != DTP_TEXT_OK) {
        dtp_text_free(t);
        return NULL;
    }
    return t;
}

void dtp_text_free(dtp_text *t)
{
    if (t == NULL)
        return;
    text_clear(t);
    dtp_release(t);
}

void text_clear(dtp_text *t)
{
    waits_free(t);
    tree_free(t);
    agents_free(t);
    spares_free(t);
    text_give(t, t->pool, t->pool_room);
    text_give(t, t->waiters, t->waiter_room * sizeof *t->waiters);
    text_give(t, t->patches, t->patch_room * sizeof *t->patches);
    text_give(t, t->revivals, t->revival_room * sizeof *t->revivals);
    text_give(t, t->locals, t->locals_room * sizeof *t->locals);
    bytes_free(t, &t->patch_text);
    bytes_free(t, &t->out);
    bytes_free(t, &t->body);
    bytes_free(t, &t->prose);
    bytes_free(t, &t->names);
    history_free(t, &t->undo);
    history_free(t, &t->redo);
}

dtp_text_state *dtp_text_look(dtp_text *t)
{
    return &t->state;
}

int dtp_text_trim(dtp_text *t)
{
    int code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    bytes_free(t, &t->out);
    bytes_free(t, &t->body);
    bytes_free(t, &t->prose);
    bytes_free(t, &t->names);
    bytes_free(t, &t->patch_text);
    text_give(t, t->patches, t->patch_room * sizeof *t->patches);
    t->patches = NULL;
    t->patch_room = t->patch_count = 0;
    code = tree_rebuild(t);
    text_leave(t);
    return code;
}

/* ---- patches ------------------------------------------------------------------------------------------------------ */

void patches_clear(dtp_text *t)
{
    t->patch_count = 0;
    t->patch_text.size = 0;
}

static dtp_text_patch *patch_new(dtp_text *t, uint32_t position)
{
    dtp_text_patch *patch;
    if (text_grow(t, &t->patches, &t->patch_room, t->patch_count + 1, sizeof *t->patches) != DTP_TEXT_OK) {
        t->patching = PATCHES_LOST;
        return NULL;
    }
    patch = &t->patches[t->patch_count++];
    memset(patch, 0, sizeof *patch);
    patch->position = position;
    return patch;
}

void patch_insert(dtp_text *t, uint32_t position, const uint8_t *text, size_t size, uint32_t len)
{
    dtp_text_patch *last = t->patch_count > 0 ? &t->patches[t->patch_count - 1] : NULL;
    if (t->patching != PATCHES_WANTED)
        return;
    if (bytes_reserve(t, &t->patch_text, size) != DTP_TEXT_OK) {
        t->patching = PATCHES_LOST;
        return;
    }
    if (last == NULL || position != last->position + last->inserted) {
        last = patch_new(t, position);
        if (last == NULL)
            return;
    }
    memcpy(t->patch_text.data + t->patch_text.size, text, size);
    t->patch_text.size += size;
    last->inserted += len;
    last->bytes += (uint32_t)size;
}

void patch_delete(dtp_text *t, uint32_t position, uint32_t len)
{
    dtp_text_patch *last = t->patch_count > 0 ? &t->patches[t->patch_count - 1] : NULL;
    if (t->patching != PATCHES_WANTED)
        return;
    if (last != NULL && last->inserted == 0 && (position == last->position || position + len == last->position)) {
        last->position = position;
        last->deleted += len;
        return;
    }
    last = patch_new(t, position);
    if (last != NULL)
        last->deleted = len;
}

int64_t dtp_text_patches(dtp_text *t, const dtp_text_patch **patches, const uint8_t **utf8)
{
    *patches = t->patches;
    *utf8 = t->patch_text.data;
    return (int64_t)t->patch_count;
}

/* ---- histories ------------------------------------------------------------------------------------------------------ */

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

static int history_reserve(dtp_text *t, history *h, size_t entries, size_t size)
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

static void note_inserted(history *h, uint32_t seq, uint32_t len)
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
    e->first = make_id(0, seq);
    e->len = len;
    e->size = 0;
}

static void note_deleted(history *h, uint32_t when, uint32_t at, id first, uint32_t len, const uint8_t *text,
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
        if (first.seq + len == e->first.seq && at + len == e->at && e->size <= PREPEND) {
            memmove(end - e->size + size, end - e->size, e->size);
            memcpy(end - e->size, text, size);
            e->first = first;
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
    e->first = first;
    e->len = len;
    e->size = size;
}

/* Begin a step unless this edit goes on where the last one stopped. */
static void step_for(dtp_text *t, uint32_t kind, uint64_t position, uint64_t count)
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

/* ---- editing --------------------------------------------------------------------------------------------------------- */

/* Insert and write it into `h`, if not NULL, which is reserved. */
static int insert_noted(dtp_text *t, history *h, uint32_t position, const uint8_t *utf8, size_t size, uint32_t len)
{
    uint32_t seq = t->agents[0].next;
    run op;
    place p;
    int code;
    order_local(t, position, &op, &p);
    code = order_insert(t, 0, op, len, utf8, size, 0, p);
    if (code != DTP_TEXT_OK)
        return code;
    if (h != NULL)
        note_inserted(h, seq, len);
    patch_insert(t, position, utf8, size, len);
    return DTP_TEXT_OK;
}

static int insert_here(dtp_text *t, uint64_t position, const uint8_t *utf8, size_t size)
{
    weight w;
    int64_t len;
    int code;
    history *h = t->state.depth > 0 ? &t->undo : NULL;
    if (position > t->state.length)
        return DTP_TEXT_RANGE;
    if (size >= DTP_TEXT_SEQUENCE)
        return DTP_TEXT_FULL;
    len = utf8_count(utf8, size, &w);
    if (len < 0)
        return DTP_TEXT_UTF8;
    if (len == 0)
        return DTP_TEXT_OK;
    if (h != NULL) {
        code = history_reserve(t, h, 1, 0);
        if (code != DTP_TEXT_OK)
            return code;
        step_for(t, INSERTED, position, (uint64_t)len);
    }
    code = insert_noted(t, h, (uint32_t)position, utf8, size, (uint32_t)len);
    if (utf8[size - 1] == '\n')
        t->step_ended = !t->step_open;
    return code;
}

/* What deleting visible characters takes: the spans that they are in, and their bytes. */
static int reserve_delete_here(dtp_text *t, history *h, uint32_t position, uint32_t count)
{
    place p = tree_find(t, position);
    size_t pieces = 0, size = 0;
    uint32_t left = count;
    int code;
    leaf *first = p.leaf;
    for (;;) {
        const span *s = at_place(&p);
        uint32_t some = s->len - p.off < left ? s->len - p.off : left;
        if ((s->who & DEAD) == 0) {
            weight w;
            span_text(t, s, p.off, some, &w);
            size += w.chars + w.more8;
            pieces++;
            left -= some;
            if (left == 0)
                break;
        }
        tree_next(&p);
    }
    code = log_reserve(t, &t->agents[0], pieces + 1);
    if (code == DTP_TEXT_OK && h != NULL)
        code = history_reserve(t, h, pieces, size);
    if (code == DTP_TEXT_OK)
        code = tree_reserve(t, p.leaf, span_agent(at_place(&p)), 2);
    if (code == DTP_TEXT_OK && first != p.leaf) {
        code = tree_reserve(t, first, 0, 2);
        if (code == DTP_TEXT_OK && t->spare_leaf_count > 0)
            code = spare_reserve(t, 2, 8 * (2 + LEAF));
    }
    return code;
}

/* Delete visible characters, which is reserved, with their text into `h`, if not NULL. */
static void delete_noted(dtp_text *t, history *h, uint32_t position, uint32_t count)
{
    agent *me = &t->agents[0];
    int joined = 0;
    patch_delete(t, position, count);
    while (count > 0) {
        place p = tree_find(t, position);
        const span *s = at_place(&p);
        uint32_t some = s->len - p.off < count ? s->len - p.off : count;
        run op;
        op.seq = 0;
        op.kind = DELETE_UP;
        op.a = span_id(s, p.off);
        op.b = make_id(NOBODY, 0);
        if (h != NULL) {
            weight w;
            const uint8_t *text = span_text(t, s, p.off, some, &w);
            note_deleted(h, me->next, position, op.a, some, text, w.chars + w.more8, joined);
            joined = 1;
        }
        tree_kill(t, p, some);
        log_append(me, 0, op, some);
        count -= some;
    }
}

static int delete_here(dtp_text *t, uint64_t position, uint64_t count)
{
    history *h = t->state.depth > 0 ? &t->undo : NULL;
    int code;
    if (position > t->state.length || count > t->state.length - position)
        return DTP_TEXT_RANGE;
    if (count == 0)
        return DTP_TEXT_OK;
    if (count >= DTP_TEXT_SEQUENCE - t->agents[0].next)
        return DTP_TEXT_FULL;
    code = reserve_delete_here(t, h, (uint32_t)position, (uint32_t)count);
    if (code != DTP_TEXT_OK)
        return code;
    if (h != NULL)
        step_for(t, DELETED, position, count);
    delete_noted(t, h, (uint32_t)position, (uint32_t)count);
    return DTP_TEXT_OK;
}

int dtp_text_insert(dtp_text *t, uint64_t position, const uint8_t *utf8, size_t size)
{
    int code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    t->patching = PATCHES_UNWANTED;
    code = insert_here(t, position, utf8, size);
    text_leave(t);
    return code;
}

int dtp_text_delete(dtp_text *t, uint64_t position, uint64_t count)
{
    int code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    t->patching = PATCHES_UNWANTED;
    code = delete_here(t, position, count);
    text_leave(t);
    return code;
}

int dtp_text_edit(dtp_text *t, const uint64_t *edits, size_t count, const uint8_t *utf8, size_t size, size_t *done)
{
    int code = DTP_TEXT_OK;
    size_t i;
    *done = 0;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    t->patching = PATCHES_UNWANTED;
    for (i = 0; i < count && code == DTP_TEXT_OK; i++, edits += 3) {
        if (edits[2] > size) {
            code = DTP_TEXT_RANGE;
            break;
        }
        if (edits[1] > 0)
            code = delete_here(t, edits[0], edits[1]);
        if (code == DTP_TEXT_OK)
            code = insert_here(t, edits[0], utf8, (size_t)edits[2]);
        if (code == DTP_TEXT_OK)
            ++*done;
        utf8 += edits[2];
        size -= (size_t)edits[2];
    }
    text_leave(t);
    return code;
}

/* ---- undoing ----------------------------------------------------------------------------------------------------------- */

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

/* What own character `seq` was put back for, and how many characters of the same piece are before it. */
static int revived(const dtp_text *t, uint32_t seq, id *old, uint32_t *before)
{
    size_t low = 0, high = t->revival_count;
    const revival *r;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (t->revivals[middle].seq <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return 0;
    r = &t->revivals[low - 1];
    if (seq - r->seq >= r->len)
        return 0;
    *before = seq - r->seq;
    *old = make_id(r->old.agent, r->old.seq + *before);
    return 1;
}

static int is_behind(dtp_text *t, id x, const place *p)
{
    place q;
    return locate(t, x, &q) && tree_compare(&q, p) > 0;
}

/* Where to put back what went at `e->when`. New text goes before all that is deleted at its place, so what was put back
 * since then and belongs behind this stands before it now: that is passed over. */
static uint32_t place_of(dtp_text *t, const entry *e)
{
    place p;
    uint32_t position;
    if (!locate(t, e->first, &p))
        return 0; /* compacted away with all around it */
    position = tree_rank(t, &p);
    while (position > 0) {
        place v = tree_find(t, position - 1);
        id x = span_id(at_place(&v), v.off), old;
        uint32_t low = 0, high, before;
        if (x.agent != 0 || x.seq < e->when || !revived(t, x.seq, &old, &before) || !is_behind(t, old, &p))
            break;
        high = before < v.off ? before : v.off; /* that many more may be, those nearest first */
        while (low < high) {
            uint32_t middle = (low + high + 1) / 2;
            if (is_behind(t, make_id(old.agent, old.seq - middle), &p))
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
    int code = history_reserve(t, to, 1, 0);
    if (code == DTP_TEXT_OK)
        code = reserve_revival(t);
    if (code == DTP_TEXT_OK)
        code = insert_noted(t, to, place_of(t, e), text, e->size, e->len);
    if (code != DTP_TEXT_OK)
        return code;
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
        if (e.deleted)
            code = undo_deleted(t, to, &e, from->text.data + from->text.size - all + size);
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
            memmove(from->text.data + from->text.size - all, from->text.data + from->text.size - all + size, all - size);
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
