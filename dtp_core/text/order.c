/* text/order.c - where characters go: the Fugue order with right origins (FugueMax), on spans.
 *
 * Each character is a node of a tree: a left or a right child of another one. The order is the tree's in-order walk.
 * Left siblings stand by their identity; right siblings by their right origin, the farther one first, then by
 * identity. Whoever has the same nodes has the same order, however they came. A node without siblings on its side
 * stands right beside its parent, which the flags LEFT and RIGHT tell; among siblings a place is found by halves. */
#include "crdt_text_internal.h"

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

/* ---- among siblings -------------------------------------------------------------------------------------- */

/* For the place of `x` among the children of op->a, of this depth, on its side. */
typedef struct search {
    dtp_text *t;
    id x;
    const run *op;
    uint32_t depth;
    uint32_t most; /* partings beside siblings are no greater, and those within what is below one are */
} search;

/* Whether what stands from *at on is below a sibling, or is one, that stands before x. */
static int sibling_before(const search *s, const place *at)
{
    place p = *at;
    id c;
    run f;
    if (!parting_next(s->t, &p, 2 * s->depth + 2)) { /* the first place behind its left children, and so right behind it */
        p.leaf = s->t->last;
        p.i = p.leaf->head.count - 1u;
        p.off = at_place(&p)->len - 1;
    } else if (p.off > 0) {
        p.off--;
    } else {
        (void)tree_previous(&p);
        p.off = at_place(&p)->len - 1;
    }
    c = span_id(at_place(&p), p.off);
    if (!family(s->t, c, &f) || f.kind != s->op->kind || !same_id(f.a, s->op->a))
        return 0;
    return f.kind == INSERT_LEFT ? id_before(s->t, c, s->x) : !right_sibling_before(s->t, s->x, s->op->b, c, f.b);
}

/* Of the slots of a node behind *slot in which something may begin: move *slot to the last whose first beginning is of a
 * sibling before x. 1: *behind is the first one that isn't. */
static int halve(const search *s, node *n, uint32_t *slot, place *behind)
{
    uint32_t slots[FANOUT], count = 0, low = 0, high, i = *slot;
    while ((i = parting_slot(s->t, n, i + 1, s->most)) < n->count)
        slots[count++] = i;
    for (high = count; low < high;) {
        uint32_t middle = (low + high) / 2;
        place p = parting_first(s->t, n, slots[middle], s->most);
        if (sibling_before(s, &p)) {
            low = middle + 1;
        } else {
            high = middle;
            *behind = p;
        }
    }
    if (low > 0)
        *slot = slots[low - 1];
    return low < count;
}

/* Move *p, where the first sibling begins, to what `x` belongs before: 0 when that is the end. */
static int find_place(const search *s, place *p)
{
    node *n = &p->leaf->head, *within = n;
    uint32_t slot = p->i, last = slot, from;
    place behind = *p;
    int found;
    if (!sibling_before(s, p))
        return 1;
    for (;;) { /* up to where something isn't before x */
        from = slot;
        found = halve(s, n, &slot, &behind);
        if (slot != from) {
            within = n;
            last = slot;
        }
        if (found || n->parent == NULL)
            break;
        slot = n->slot;
        n = &n->parent->head;
    }
    while (within->level > 0) { /* and down into the last that is */
        within = ((branch *)(void *)within)->child[last];
        last = parting_slot(s->t, within, 0, s->most);
        found |= halve(s, within, &last, &behind);
    }
    *p = behind;
    return found;
}

/* Move *p, a character, behind it. 1: it has right children there. */
static int step_behind(place *p)
{
    const span *s = at_place(p);
    place q = *p;
    if (++p->off < s->len)
        return 1;
    p->off = 0;
    p->i++;
    if ((s->who & RIGHT) == 0 || !tree_next(&q))
        return 0;
    *p = q;
    return 1;
}

int order_remote(dtp_text *t, uint32_t who, const run *op, place *p)
{
    search s = {t, make_id(who, t->agents[who].next), op, 0, 0};
    if (op->b.agent != NOBODY && op->b.seq < t->agents[op->b.agent].base && !locate(t, op->b, p))
        return DTP_TEXT_STALE;
    if (op->a.agent == NOBODY) {
        p->leaf = t->first;
        p->i = p->off = 0;
        if (t->first->head.count == 0)
            return DTP_TEXT_OK;
    } else {
        place parent;
        if (!locate(t, op->a, p))
            return DTP_TEXT_STALE;
        parent = *p;
        t->hint = p->leaf; /* its depth is asked for soon */
        t->hint_i = p->i;
        if (op->kind == INSERT_LEFT ? p->off > 0 || (at_place(p)->who & LEFT) == 0 : !step_behind(p))
            return DTP_TEXT_OK;
        s.depth = depth_at(t, &parent);
    }
    s.most = 2 * s.depth;
    if (op->kind == INSERT_LEFT) {
        parting_previous(t, p, s.most); /* to where the first of them begins */
        s.most++;
    }
    if (!find_place(&s, p)) {
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
    t->hint = p->leaf; /* of its parent the depth is asked for soon */
    t->hint_i = p->i;
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

/* One span's worth of characters into the gap at *p, which then is behind them. `flags`: DEAD, LEFT, MARKER, LEFT_CHILD. */
static void put_piece(dtp_text *t, uint32_t who, uint32_t seq, weight w, const uint8_t *text, uint32_t flags,
                      uint32_t parting, place *p)
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
    s.parting = parting;
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
        if ((before->who & LEFT) != 0)
            tree_lower(p->leaf, span_least(before));
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
    if (op->kind != INSERT_RIGHT || !same_id(op->a, make_id(who, a->next - 1)))
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

/* The first has this depth, and `parting` is before it. */
static void put_pieces(dtp_text *t, uint32_t who, uint32_t seq, uint32_t len, uint32_t flags, const uint8_t *text,
                       int wide, uint32_t depth, uint32_t parting, place *p)
{
    while (len > 0) {
        weight w = {0, 0, 0};
        if (wide)
            units_skip(t, text, len < WIDE_SPAN ? len : WIDE_SPAN, &w);
        else
            w.chars = len;
        put_piece(t, who, seq, w, text, flags, parting, p);
        depth += w.chars;
        parting = 2 * (depth - 1);
        seq += w.chars;
        len -= w.chars;
        if (len == 0)
            break;
        text += w.chars + w.more8;
        flags &= ~(uint32_t)(LEFT | LEFT_CHILD);
        p->leaf->spans[p->i - 1].who |= RIGHT; /* the next piece is its child */
    }
}

/* The depth of what is inserted, when `len` characters are. DTP_TEXT_FULL: there is no such depth. */
static int depth_of(dtp_text *t, const run *op, uint32_t len, uint32_t *depth)
{
    place p;
    *depth = 1 + (op->a.agent == NOBODY || !locate(t, op->a, &p) ? 0 : depth_at(t, &p));
    return (uint64_t)*depth + len > DTP_TEXT_SEQUENCE ? DTP_TEXT_FULL : DTP_TEXT_OK;
}

/* Whether no character can be so deep that `len` more below it are too deep. */
static int is_shallow(const dtp_text *t, uint32_t len)
{
    return t->state.length + t->state.deleted + t->pool_used + len < DTP_TEXT_SEQUENCE;
}

/* The parting before what is put into the gap at *p; that behind it changes with it. */
static uint32_t part(const run *op, uint32_t depth, const place *p)
{
    place q = *p;
    uint32_t parting = 2 * (depth - 1);
    if (op->kind == INSERT_LEFT) {
        if (q.i == q.leaf->head.count) {
            q.leaf = q.leaf->next;
            q.i = 0;
        }
        parting = at_place(&q)->parting;
        at_place(&q)->parting = 2 * (depth - 1) + 1;
        if (q.leaf != p->leaf)
            tree_parted(q.leaf); /* else what is put there will have the one that went */
    }
    return parting;
}

int order_insert(dtp_text *t, uint32_t who, run op, uint32_t len, const uint8_t *text, size_t size, int dead,
                 place p)
{
    agent *a = &t->agents[who];
    int wide = !dead && size > len;
    size_t pieces = wide ? len / WIDE_SPAN + 1 : !extends(t, who, &op, len, wide, dead, &p);
    uint32_t flags = (dead ? DEAD : op.marker ? MARKER : 0u) | (op.kind == INSERT_LEFT ? LEFT_CHILD : 0u), depth = 1;
    int code = reserve_insert(t, who, len, size, dead, pieces, p.leaf);
    if (code == DTP_TEXT_OK && (pieces > 0 || !is_shallow(t, len)))
        code = depth_of(t, &op, len, &depth);
    if (code != DTP_TEXT_OK)
        return code;
    tree_split(t, &p);
    tell_parent(&op, &p);
    put_pieces(t, who, a->next, len, flags, text, wide, depth, pieces == 0 ? 0 : part(&op, depth, &p), &p);
    log_append(a, who, op, len);
    return DTP_TEXT_OK;
}

/* The first left child of an author's characters from `seq` to before `end`; `end` if there is none. */
static uint32_t next_left_child(agent *a, uint32_t seq, uint32_t end)
{
    size_t i;
    if (end <= a->base)
        return end;
    for (i = log_find(a, seq < a->base ? a->base : seq); i < a->run_count && a->runs[i].seq < end; i++)
        if (a->runs[i].seq >= seq && a->runs[i].what >> RUN_KIND == INSERT_LEFT)
            return a->runs[i].seq;
    return end;
}

static int append_piece(dtp_text *t, uint32_t who, uint32_t seq, uint32_t len, uint32_t flags, const uint8_t *text,
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
    put_pieces(t, who, seq, len, flags & ~(uint32_t)RIGHT, text, wide, 1, 0, &p);
    p.leaf->spans[p.i - 1].who |= flags & RIGHT;
    return DTP_TEXT_OK;
}

int order_append(dtp_text *t, uint32_t who, uint32_t seq, uint32_t len, uint32_t flags, const uint8_t *text,
                 size_t size)
{
    uint32_t left = next_left_child(&t->agents[who], seq, seq + len);
    int code = DTP_TEXT_OK;
    while (len > 0 && code == DTP_TEXT_OK) {
        uint32_t side = flags | (left == seq ? LEFT_CHILD : 0u), count;
        size_t part_size = size;
        left = next_left_child(&t->agents[who], seq + 1, seq + len);
        count = left - seq;
        if (count < len) {
            side |= RIGHT;
            if (size > 0)
                part_size = units_skip(t, text, count, NULL);
        }
        code = append_piece(t, who, seq, count, side, text, part_size);
        flags &= ~(uint32_t)LEFT;
        text += part_size;
        size -= part_size;
        seq += count;
        len -= count;
    }
    return code;
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
