/* crdt_text_order.c - where characters go: the Fugue order with right origins (FugueMax), on spans.
 *
 * Each character is a node of a tree: a left or a right child of another one. The order is the tree's in-order walk.
 * Left siblings stand by their identity; right siblings by their right origin, the farther one first, then by
 * identity. Whoever has the same nodes has the same order, however they came. A node without siblings on its side
 * stands right beside its parent, which the flags LEFT and RIGHT tell; only concurrent insertions at one place have
 * to walk over each other. */
#include "crdt_text_internal.h"

enum {
    STEPS = 16, /* siblings that are walked over one by one before larger steps are tried */
    HOPS = 64   /* generations that are looked up then */
};

/* ---- the tree -------------------------------------------------------------------------------------------- */

int family(dtp_text *t, id x, run *f)
{
    agent *a = &t->agents[x.agent];
    if (x.seq < a->base)
        return 0;
    *f = log_run(a, log_find(a, x.seq));
    if (x.seq > f->seq) {
        f->kind = INSERT_RIGHT;
        f->a = make_id(x.agent, x.seq - 1);
        f->seq = x.seq;
    }
    return 1;
}

static int id_before(const dtp_text *t, id x, id y)
{
    return x.agent == y.agent ? x.seq < y.seq : agent_before(t, x.agent, y.agent);
}

/* < 0, 0, > 0 as x stands before, at or behind y. NOBODY is the end. */
static int id_compare(dtp_text *t, id x, id y)
{
    place p, q;
    if (same_id(x, y))
        return 0;
    if (x.agent == NOBODY)
        return 1;
    if (y.agent == NOBODY)
        return -1;
    if (!locate(t, x, &p) || !locate(t, y, &q))
        return 0; /* can't be: what a run refers to is kept */
    return tree_compare(&p, &q);
}

static int right_sibling_before(dtp_text *t, id x, id x_origin, id y, id y_origin)
{
    int order = id_compare(t, x_origin, y_origin);
    return order != 0 ? order > 0 : id_before(t, x, y);
}

/* From a character to the next one that isn't of its run, or isn't beside it: 0 at the end. */
static int skip_run(dtp_text *t, place *p)
{
    const span *s = at_place(p);
    agent *a = &t->agents[span_agent(s)];
    uint32_t seq = s->seq + p->off;
    uint32_t end = run_end(a, log_find(a, seq));
    if (end - seq < s->len - p->off) {
        p->off += end - seq;
        return 1;
    }
    return tree_next(p);
}

/* The child of `parent` on this side whose descendant x is, or is itself; 0: it is none's, or too deep to tell. */
static int child_above(dtp_text *t, id x, id parent, uint32_t side, id *child, run *f)
{
    int hops;
    for (hops = 0; hops < HOPS && family(t, x, f); hops++) {
        if (f->kind == side && same_id(f->a, parent)) {
            *child = x;
            return 1;
        }
        if (f->kind == INSERT_RIGHT) { /* to the first of its run, unless that passes the one looked for */
            agent *a = &t->agents[x.agent];
            uint32_t first = a->runs[log_find(a, x.seq)].seq;
            int passes = parent.agent == x.agent && parent.seq >= first && parent.seq < x.seq;
            if (first < x.seq && !passes) {
                x.seq = first;
                continue;
            }
        }
        if (f->a.agent == NOBODY)
            return 0;
        x = f->a;
    }
    return 0;
}

/* The leaf that begins (or, backwards, ends) the next node of this level under the same branch: NULL when there is
 * none. */
static leaf *leap(leaf *l, uint32_t level, int backwards)
{
    node *n = &l->head;
    for (; level > 0; level--)
        n = &n->parent->head;
    if (backwards ? n->slot == 0 : n->slot + 1u >= n->parent->head.count)
        return NULL;
    n = n->parent->child[backwards ? n->slot - 1 : n->slot + 1];
    while (n->level > 0) {
        branch *b = (branch *)(void *)n;
        n = b->child[backwards ? n->count - 1 : 0];
    }
    return (leaf *)(void *)n;
}

/* Among many siblings: pass those that certainly stand before `x` (backwards: behind it) by whole nodes of the tree of
 * spans. `o` is behind (backwards: at) one that was passed, or where it was. */
static void leap_siblings(dtp_text *t, id x, const run *op, int backwards, place *o)
{
    uint32_t level = t->root->level;
    while (level-- > 0)
        for (;;) {
            leaf *l = leap(o->leaf, level, backwards);
            place p;
            id c;
            run f;
            if (l == NULL)
                break;
            p.leaf = l;
            p.i = backwards ? l->head.count - 1u : 0;
            p.off = backwards ? l->spans[p.i].len - 1 : 0;
            if (!child_above(t, span_id(at_place(&p), p.off), op->a, op->kind, &c, &f))
                break;
            if (backwards ? id_before(t, c, x) : right_sibling_before(t, x, op->b, c, f.b))
                break;
            if (!locate(t, c, &p) || (backwards ? tree_compare(&p, o) >= 0 : tree_compare(&p, o) <= 0))
                break; /* a wide family: its top is nearer than this node */
            if (!backwards && !skip_run(t, &p))
                break;
            *o = p;
        }
}

/* `o` is the first character behind the parent. Move it to where `x` belongs among the parent's right children; 0: to
 * the end of all. */
static int scan_right(dtp_text *t, id x, const run *op, place *o)
{
    int steps = 0;
    for (;;) {
        id c = span_id(at_place(o), o->off);
        place p = *o;
        run f;
        int known = family(t, c, &f);
        while (known && f.kind == INSERT_LEFT) {
            c = f.a;
            known = family(t, c, &f);
        }
        if (!known)
            return 1;
        if (same_id(f.a, op->a)) {
            if (right_sibling_before(t, x, op->b, c, f.b))
                return 1;
        } else if (op->a.agent != NOBODY && (f.a.agent == NOBODY || id_compare(t, f.a, op->a) < 0)) {
            return 1; /* the parent's descendants have come to their end */
        }
        if (!locate(t, c, &p) || !skip_run(t, &p))
            return 0;
        *o = p;
        if (++steps == STEPS)
            leap_siblings(t, x, op, 0, o);
    }
}

/* `o` is the parent. Move it to the character that `x`, a left child, belongs before. */
static void scan_left(dtp_text *t, id x, const run *op, place *o)
{
    int steps = 0;
    for (;;) {
        place p = *o;
        id c;
        run f;
        int known;
        if (p.off > 0)
            p.off--;
        else if (tree_previous(&p))
            p.off = at_place(&p)->len - 1;
        else
            return;
        c = span_id(at_place(&p), p.off);
        known = family(t, c, &f);
        while (known && f.kind == INSERT_RIGHT) {
            agent *a = &t->agents[c.agent];
            uint32_t first = a->runs[log_find(a, c.seq)].seq;
            c = first < c.seq ? make_id(c.agent, first) : f.a;
            known = c.agent != NOBODY && family(t, c, &f);
        }
        if (!known)
            return;
        if (same_id(f.a, op->a)) {
            if (id_before(t, c, x))
                return;
        } else if (id_compare(t, f.a, op->a) > 0) {
            return;
        }
        if (!locate(t, c, o))
            return;
        if (++steps == STEPS)
            leap_siblings(t, x, op, 1, o);
    }
}

int order_remote(dtp_text *t, uint32_t who, const run *op, place *p)
{
    id x = make_id(who, t->agents[who].next);
    const span *s;
    if (op->b.agent != NOBODY && op->b.seq < t->agents[op->b.agent].base && !locate(t, op->b, p))
        return DTP_TEXT_STALE;
    if (op->a.agent == NOBODY) {
        p->leaf = t->first;
        p->i = p->off = 0;
        if (t->first->head.count == 0)
            return DTP_TEXT_OK;
    } else {
        if (!locate(t, op->a, p))
            return DTP_TEXT_STALE;
        s = at_place(p);
        if (op->kind == INSERT_LEFT) {
            if (p->off == 0 && (s->who & LEFT) != 0)
                scan_left(t, x, op, p);
            return DTP_TEXT_OK;
        }
        if (++p->off == s->len) {
            int alone = (s->who & RIGHT) == 0;
            p->off = 0;
            p->i++;
            if (alone)
                return DTP_TEXT_OK;
            p->i--;
            if (!tree_next(p)) { /* can't be: its child is there */
                p->i++;
                return DTP_TEXT_OK;
            }
        }
    }
    if (!scan_right(t, x, op, p)) {
        p->leaf = t->last;
        p->i = t->last->head.count;
        p->off = 0;
    }
    return DTP_TEXT_OK;
}

/* The first character behind a gap between spans: NOBODY at the end. */
static id first_behind(const place *p)
{
    const leaf *l = p->leaf;
    if (p->i < l->head.count)
        return span_id(&l->spans[p->i], 0);
    return l->next == NULL ? make_id(NOBODY, 0) : span_id(&l->next->spans[0], 0);
}

void order_local(dtp_text *t, uint32_t position, run *op, place *p)
{
    const span *s;
    op->kind = INSERT_LEFT;
    op->marker = 0;
    if (position == 0) {
        p->leaf = t->first;
        p->i = p->off = 0;
        op->a = op->b = first_behind(p);
        if (op->a.agent == NOBODY)
            op->kind = INSERT_RIGHT;
        return;
    }
    *p = tree_find(t, position - 1);
    s = at_place(p);
    if (p->off + 1 < s->len) {
        p->off++;
        op->a = op->b = span_id(s, p->off);
        return;
    }
    p->i++;
    p->off = 0;
    op->a = op->b = first_behind(p);
    if ((s->who & RIGHT) == 0 || op->a.agent == NOBODY) { /* the latter: a state said so, falsely */
        op->kind = INSERT_RIGHT;
        op->a = span_id(s, s->len - 1);
    }
}

/* ---- putting --------------------------------------------------------------------------------------------- */

/* Tell the parent that it has a child on this side, when the gap is right beside it; else it knows. */
static void tell_parent(const run *op, const place *gap)
{
    place p = *gap;
    span *s;
    if (op->a.agent == NOBODY)
        return;
    if (op->kind == INSERT_LEFT) {
        if (p.i == p.leaf->head.count) {
            if (p.leaf->next == NULL)
                return;
            p.leaf = p.leaf->next;
            p.i = 0;
        }
        s = at_place(&p);
        if (s->seq == op->a.seq && span_agent(s) == op->a.agent)
            s->who |= LEFT;
        return;
    }
    if (!tree_previous(&p))
        return;
    s = at_place(&p);
    if (s->seq + s->len - 1 == op->a.seq && span_agent(s) == op->a.agent)
        s->who |= RIGHT;
}

/* Room for `size` bytes behind what the author wrote last, or elsewhere. Reserved: size + SLAB bytes of the pool. */
static void slab_ready(dtp_text *t, agent *a, size_t size)
{
    if (a->slab_end - a->slab >= size)
        return;
    if (a->slab_end != t->pool_used) {
        t->garbage += a->slab_end - a->slab;
        a->slab = (uint32_t)t->pool_used;
        a->tail = 0;
    }
    t->pool_used = a->slab + size + SLAB;
    a->slab_end = (uint32_t)t->pool_used;
}

/* One span's worth of characters into the gap at *p, which then is behind them. `flags`: DEAD, LEFT, MARKER. */
static void put_piece(dtp_text *t, uint32_t who, uint32_t seq, weight w, const uint8_t *text, uint32_t flags,
                      place *p)
{
    int dead = (flags & DEAD) != 0;
    agent *a = &t->agents[who];
    uint32_t size = w.chars + w.more8;
    span *before = p->i > 0 ? &p->leaf->spans[p->i - 1] : NULL;
    span s;
    s.who = who | flags | (uint32_t)(w.more8 > 0 ? WIDE : 0);
    s.seq = seq;
    s.len = w.chars;
    s.text = 0;
    if (dead) {
        t->state.deleted += s.len;
    } else {
        slab_ready(t, a, size);
        s.text = a->slab;
        memcpy(t->pool + a->slab, text, size);
        a->slab += size;
    }
    if (before != NULL && spans_join(before, &s)
        && (dead || (a->tail == seq && seq > 0
                     && (((before->who | s.who) & WIDE) == 0 || before->len + s.len <= WIDE_SPAN)))) {
        before->len += s.len;
        before->who = (before->who & ~(uint32_t)RIGHT) | (s.who & WIDE);
        index_put(t, who, seq, s.len, p->leaf);
        p->i--;
    } else {
        tree_put(t, p, s);
    }
    if (!dead) {
        a->tail = seq + s.len;
        tree_count(t, p->leaf, w);
    }
    t->hint = p->leaf;
    t->hint_i = p->i;
    p->i++;
}

/* Whether the characters will only make the span before the gap longer. */
static int extends(const dtp_text *t, uint32_t who, const run *op, uint32_t len, int wide, int dead, const place *p)
{
    const agent *a = &t->agents[who];
    const span *s;
    if (p->i == 0 || p->off > 0)
        return 0;
    s = &p->leaf->spans[p->i - 1];
    if (span_agent(s) != who || s->seq + s->len != a->next || ((s->who & DEAD) != 0) != dead
        || (s->who & (HIDDEN | MARKER)) != 0)
        return 0;
    if ((s->who & RIGHT) == 0 && (op->kind != INSERT_RIGHT || !same_id(op->a, make_id(who, a->next - 1))))
        return 0;
    if (dead)
        return 1;
    return a->tail == a->next && (a->slab_end - a->slab >= len || a->slab_end == t->pool_used) && !wide
        && (s->who & WIDE) == 0;
}

/* `pieces` 0: no span will be put. */
static int reserve_insert(dtp_text *t, uint32_t who, uint32_t len, size_t size, int dead, size_t pieces, leaf *l)
{
    agent *a = &t->agents[who];
    int code;
    if (len >= (uint32_t)DTP_TEXT_SEQUENCE - a->next)
        return DTP_TEXT_FULL;
    if (!dead && len >= DTP_TEXT_SEQUENCE - t->state.length)
        return DTP_TEXT_FULL;
    code = pieces == 0 ? DTP_TEXT_OK : tree_reserve(t, l, who, pieces + 1);
    if (code == DTP_TEXT_OK)
        code = log_reserve(t, a, 2);
    if (code == DTP_TEXT_OK && !dead) {
        size_t needed = t->pool_used + size + SLAB;
        if (needed > UINT32_MAX)
            return DTP_TEXT_FULL;
        code = text_grow(t, &t->pool, &t->pool_room, needed, 1);
    }
    return code;
}

static void put_pieces(dtp_text *t, uint32_t who, uint32_t seq, uint32_t len, uint32_t flags, const uint8_t *text,
                       int wide, place *p)
{
    while (len > 0) {
        weight w = {0, 0, 0};
        if (wide)
            units_skip(t, text, len < WIDE_SPAN ? len : WIDE_SPAN, &w);
        else
            w.chars = len;
        put_piece(t, who, seq, w, text, flags, p);
        seq += w.chars;
        len -= w.chars;
        if (len == 0)
            break;
        text += w.chars + w.more8;
        flags &= ~(uint32_t)LEFT;
        p->leaf->spans[p->i - 1].who |= RIGHT; /* the next piece is its child */
    }
}

int order_insert(dtp_text *t, uint32_t who, run op, uint32_t len, const uint8_t *text, size_t size, int dead,
                 place p)
{
    agent *a = &t->agents[who];
    int wide = !dead && size > len;
    size_t pieces = wide ? len / WIDE_SPAN + 1 : !extends(t, who, &op, len, wide, dead, &p);
    int code = reserve_insert(t, who, len, size, dead, pieces, p.leaf);
    if (code != DTP_TEXT_OK)
        return code;
    tree_split(t, &p);
    tell_parent(&op, &p);
    put_pieces(t, who, a->next, len, dead ? DEAD : op.marker ? MARKER : 0, text, wide, &p);
    log_append(a, who, op, len);
    return DTP_TEXT_OK;
}

int order_append(dtp_text *t, uint32_t who, uint32_t seq, uint32_t len, uint32_t flags, const uint8_t *text,
                 size_t size)
{
    int dead = (flags & DEAD) != 0, wide = !dead && size > len;
    place p;
    int code = reserve_insert(t, who, 0, size, dead, wide ? len / WIDE_SPAN + 1 : 1, t->last);
    if (code != DTP_TEXT_OK)
        return code;
    if (!dead && len >= DTP_TEXT_SEQUENCE - t->state.length)
        return DTP_TEXT_FULL;
    p.leaf = t->last;
    p.i = t->last->head.count;
    p.off = 0;
    put_pieces(t, who, seq, len, flags & (DEAD | LEFT | MARKER), text, wide, &p);
    p.leaf->spans[p.i - 1].who |= flags & RIGHT;
    return DTP_TEXT_OK;
}

/* ---- deleting -------------------------------------------------------------------------------------------- */

/* Memory to split the spans in which the first and the last character of a range are. */
static int reserve_delete(dtp_text *t, uint32_t who, id first, uint32_t len)
{
    place p, q;
    int code = log_reserve(t, &t->agents[who], 2);
    if (code != DTP_TEXT_OK)
        return code;
    if (!locate(t, first, &p))
        p.leaf = NULL;
    if (!locate(t, make_id(first.agent, first.seq + len - 1), &q))
        q.leaf = NULL;
    if (p.leaf != NULL)
        code = tree_reserve(t, p.leaf, first.agent, 2);
    if (code == DTP_TEXT_OK && q.leaf != NULL && q.leaf != p.leaf) {
        code = tree_reserve(t, q.leaf, first.agent, 2);
        if (code == DTP_TEXT_OK && p.leaf != NULL && t->spare_leaf_count > 0)
            code = spare_reserve(t, 2, 4 * (LEAF / 2 + 3));
    }
    return code;
}

uint32_t next_held(dtp_text *t, id x, uint32_t end, place *p)
{
    while (x.seq < end && !locate(t, x, p))
        x.seq = index_next(t, x); /* compacted */
    return x.seq < end ? x.seq : end;
}

/* The first that may have to be deleted. */
static uint32_t next_alive(dtp_text *t, id x, uint32_t end, place *p)
{
    x.seq = dead_end(&t->agents[x.agent], x.seq);
    return next_held(t, x, end, p);
}

int order_delete(dtp_text *t, uint32_t who, run op, uint32_t len)
{
    id x = op.kind == DELETE_UP ? op.a : make_id(op.a.agent, op.a.seq - (len - 1));
    uint32_t end = x.seq + len;
    place p;
    int code;
    if (len >= (uint32_t)DTP_TEXT_SEQUENCE - t->agents[who].next)
        return DTP_TEXT_FULL;
    code = reserve_delete(t, who, x, len);
    if (code != DTP_TEXT_OK)
        return code;
    for (x.seq = next_alive(t, x, end, &p); x.seq < end; x.seq = next_alive(t, x, end, &p)) {
        const span *s = at_place(&p);
        uint32_t count = s->len - p.off;
        if (count > end - x.seq)
            count = end - x.seq;
        if ((s->who & (DEAD | HIDDEN)) != DEAD) {
            id about = make_id(NOBODY, 0);
            if ((s->who & MARKER) != 0 && t->is_list)
                about = mark_element_at(t, &p);
            else if ((s->who & MARKER) != 0)
                rich_killed(t);
            if (t->patching && (s->who & DEAD) == 0)
                patch_delete(t, tree_rank(t, &p), count);
            tree_kill(t, p, count);
            if (t->is_list)
                mark_killed(t, x, count, about);
        }
        x.seq += count;
    }
    dead_note(t, &t->agents[x.agent], end - len, end);
    log_append(&t->agents[who], who, op, len);
    return DTP_TEXT_OK;
}
