/* text/edit.c - a text's life, editing by its own replica, and patches. */
#include "crdt_text_internal.h"

enum {
    SPARE_CHUNKS = 40, SPARE_LEAVES = 2, SPARE_BRANCHES = 4, /* kept between calls, so that they aren't taken anew */
    GARBAGE = 65536,             /* unused bytes in the pool before it is packed, if they are half of it */
    WAITING_CAP = 16 * 1024 * 1024,
    UNDO_DEPTH = 1000
};

/* ---- life ------------------------------------------------------------------------------------------------ */

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
    while (t->spare_leaf_count > SPARE_LEAVES)
        text_give(t, spare_leaf(t), sizeof(leaf));
    while (t->spare_branch_count > SPARE_BRANCHES)
        text_give(t, spare_branch(t), sizeof(branch));
    /* Not before it is a part of all memory: to build it anew is work for all that was deleted, too. */
    if (t->garbage > GARBAGE && t->garbage > t->pool_used / 2 && t->garbage > t->state.memory / 4)
        (void)tree_rebuild(t); /* without memory for it, later */
}

void text_leave(dtp_text *t)
{
    if ((t->spare_chunk_count > SPARE_CHUNKS) | (t->spare_leaf_count > SPARE_LEAVES)
        | (t->spare_branch_count > SPARE_BRANCHES) | (t->garbage > GARBAGE))
        tidy(t);
    t->state.next = t->agents[0].next;
    t->state.patch_count = t->patch_count;
    t->state.patches = t->patches;
    t->state.patch_text = t->patch_text.data;
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
    text_give(t, t->order, t->order_room * sizeof *t->order);
    text_give(t, t->locals, t->locals_room * sizeof *t->locals);
    bytes_free(t, &t->patch_text);
    bytes_free(t, &t->out);
    bytes_free(t, &t->body);
    bytes_free(t, &t->prose);
    bytes_free(t, &t->names);
    history_free(t, &t->undo);
    history_free(t, &t->redo);
    marks_free(t);
    rich_free(t);
}

dtp_text_state *dtp_text_look(dtp_text *t)
{
    return &t->state;
}

/* ---- patches --------------------------------------------------------------------------------------------- */

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

void patches_copy(dtp_text *t, const dtp_text *from)
{
    if (from->patching != PATCHES_WANTED || from->patch_count == 0)
        return;
    if (bytes_reserve(t, &t->patch_text, from->patch_text.size) != DTP_TEXT_OK
        || text_grow(t, &t->patches, &t->patch_room, from->patch_count, sizeof *t->patches) != DTP_TEXT_OK) {
        t->patching = PATCHES_LOST;
        return;
    }
    memcpy(t->patches, from->patches, from->patch_count * sizeof *t->patches);
    t->patch_count = from->patch_count;
    if (from->patch_text.size > 0)
        memcpy(t->patch_text.data, from->patch_text.data, from->patch_text.size);
    t->patch_text.size = from->patch_text.size;
}

int patch_read_all(dtp_text *t, bytes *b)
{
    leaf *l;
    uint32_t i;
    int code = bytes_reserve(t, b, (size_t)t->state.bytes + 1); /* never NULL */
    for (l = t->first; l != NULL && code == DTP_TEXT_OK; l = l->next)
        for (i = 0; i < l->head.count && code == DTP_TEXT_OK; i++) {
            const span *s = &l->spans[i];
            weight w;
            const uint8_t *text;
            if ((s->who & DEAD) != 0)
                continue;
            if (t->is_list) {
                code = mark_values(t, s, b);
                continue;
            }
            text = span_text(t, s, 0, s->len, &w);
            memcpy(b->data + b->size, text, w.chars + w.more8);
            b->size += w.chars + w.more8;
        }
    return code;
}

void patch_whole(dtp_text *t, uint32_t before)
{
    patches_clear(t);
    t->body.size = 0;
    t->patching = patch_read_all(t, &t->body) == DTP_TEXT_OK ? PATCHES_WANTED : PATCHES_LOST;
    if (before > 0)
        patch_delete(t, 0, before);
    if (t->state.length > 0)
        patch_insert(t, 0, t->body.data, t->body.size, (uint32_t)t->state.length);
    t->body.size = 0;
}

/* ---- editing --------------------------------------------------------------------------------------------- */

/* Insert and write it into `h`, if not NULL, which is reserved. */
int insert_noted(dtp_text *t, history *h, uint32_t position, const uint8_t *utf8, size_t size, uint32_t len)
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
    if (t->patching != PATCHES_UNWANTED)
        rich_touch(t, make_id(0, seq), len);
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
    if (code == DTP_TEXT_OK)
        rich_edge(t, (uint32_t)position, (uint32_t)len);
    if (utf8[size - 1] == '\n')
        t->step_ended = !t->step_open;
    return code;
}

/* What deleting visible characters takes: the spans that they are in, and their bytes. */
int reserve_delete_here(dtp_text *t, history *h, uint32_t position, uint32_t count)
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
            code = spare_reserve(t, 2, 4 * (LEAF / 2 + 3));
    }
    return code;
}

/* Delete visible characters, which is reserved, with their text into `h`, if not NULL. */
void delete_noted(dtp_text *t, history *h, uint32_t position, uint32_t count)
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
        op.marker = 0;
        op.a = span_id(s, p.off);
        op.b = make_id(NOBODY, 0);
        if (h != NULL) {
            weight w;
            const uint8_t *text = span_text(t, s, p.off, some, &w);
            rich_deleting(t, me->next, &p, some);
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
