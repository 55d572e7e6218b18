/* text/tree.c - the spans in their order: a B+ tree whose branches count visible characters, so that a position is
 * found, and a place's position told, in logarithmic time, whatever was deleted. */
#include "crdt_text_internal.h"

enum { PACKED = LEAF - LEAF / 4 }; /* spans in a leaf after a rebuild */

static int is_dead(const span *s)
{
    return (s->who & DEAD) != 0;
}


int tree_init(dtp_text *t)
{
    int code = spare_reserve(t, 1, 0);
    if (code != DTP_TEXT_OK)
        return code;
    t->first = t->last = spare_leaf(t);
    t->root = &t->first->head;
    t->hot = t->hint = NULL;
    return DTP_TEXT_OK;
}

static void free_node(dtp_text *t, node *n)
{
    uint32_t i;
    branch *b = (branch *)(void *)n;
    if (n->level == 0) {
        text_give(t, n, sizeof(leaf));
        return;
    }
    for (i = 0; i < n->count; i++)
        free_node(t, b->child[i]); /* as deep as the tree is high */
    text_give(t, b, sizeof *b);
}

void tree_free(dtp_text *t)
{
    if (t->root != NULL)
        free_node(t, t->root);
    t->root = NULL;
    t->first = t->last = t->hot = t->hint = NULL;
}

/* ---- weights --------------------------------------------------------------------------------------------- */

const uint8_t *span_text(const dtp_text *t, const span *s, uint32_t off, uint32_t len, weight *w)
{
    const uint8_t *text = t->pool + s->text;
    memset(w, 0, sizeof *w);
    if ((s->who & WIDE) == 0) {
        w->chars = len;
        return text + off;
    }
    text += units_skip(t, text, off, NULL);
    units_skip(t, text, len, w);
    return text;
}

static void add_weight(weight *sum, const weight *w)
{
    sum->chars += w->chars;
    sum->more8 += w->more8;
    sum->more16 += w->more16;
}

static weight spans_weight(const dtp_text *t, const leaf *l, uint32_t from, uint32_t to)
{
    weight sum = {0, 0, 0}, w;
    for (; from < to; from++) {
        const span *s = &l->spans[from];
        if (is_dead(s))
            continue;
        span_text(t, s, 0, s->len, &w);
        add_weight(&sum, &w);
    }
    return sum;
}

weight leaf_weight(const dtp_text *t, const leaf *l)
{
    return spans_weight(t, l, 0, l->head.count);
}

void tree_count(dtp_text *t, leaf *l, weight w)
{
    node *n = &l->head;
    if (t->hot != l)
        t->hot = NULL;
    for (; n->parent != NULL; n = &n->parent->head) {
        n->parent->chars[n->slot] += w.chars;
        if ((w.more8 | w.more16) != 0) {
            n->parent->more8[n->slot] += w.more8;
            n->parent->more16[n->slot] += w.more16;
        }
    }
    t->state.length = (uint32_t)(t->state.length + w.chars);
    t->state.bytes += (uint64_t)((int64_t)(int32_t)w.chars + (int32_t)w.more8);
    t->state.utf16 += (uint64_t)((int64_t)(int32_t)w.chars + (int32_t)w.more16);
}

static weight negative(weight w)
{
    w.chars = 0 - w.chars;
    w.more8 = 0 - w.more8;
    w.more16 = 0 - w.more16;
    return w;
}

/* ---- partings -------------------------------------------------------------------------------------------- */

static uint32_t node_least(const node *n)
{
    uint32_t least = UINT32_MAX, i;
    if (n->level == 0) {
        const leaf *l = (const leaf *)(const void *)n;
        for (i = 0; i < n->count; i++)
            if (span_least(&l->spans[i]) < least)
                least = span_least(&l->spans[i]);
    } else {
        const branch *b = (const branch *)(const void *)n;
        for (i = 0; i < n->count; i++)
            if (b->least[i] < least)
                least = b->least[i];
    }
    return least;
}

void tree_lower(leaf *l, uint32_t parting)
{
    node *n = &l->head;
    for (; n->parent != NULL && parting < n->parent->least[n->slot]; n = &n->parent->head)
        n->parent->least[n->slot] = parting;
}

void tree_parted(leaf *l)
{
    node *n = &l->head;
    for (; n->parent != NULL; n = &n->parent->head)
        n->parent->least[n->slot] = node_least(n);
}

static void part_children(branch *b)
{
    uint32_t i;
    for (i = 0; i < b->head.count; i++) {
        if (b->child[i]->level > 0)
            part_children((branch *)(void *)b->child[i]); /* as deep as the tree is high */
        b->least[i] = node_least(b->child[i]);
    }
}

void tree_parted_all(dtp_text *t)
{
    if (t->root->level > 0)
        part_children((branch *)(void *)t->root);
}

/* ---- splitting nodes ------------------------------------------------------------------------------------- */

static void adopt(branch *b, uint32_t slot, node *child, weight w, uint32_t least)
{
    b->child[slot] = child;
    b->chars[slot] = w.chars;
    b->more8[slot] = w.more8;
    b->more16[slot] = w.more16;
    b->least[slot] = least;
    child->parent = b;
    child->slot = slot;
}

static weight child_weight(const branch *b, uint32_t slot)
{
    weight w;
    w.chars = b->chars[slot];
    w.more8 = b->more8[slot];
    w.more16 = b->more16[slot];
    return w;
}

static void new_root(dtp_text *t, node *left, node *right, weight moved)
{
    branch *b = spare_branch(t);
    weight rest;
    rest.chars = (uint32_t)t->state.length - moved.chars;
    rest.more8 = (uint32_t)(t->state.bytes - t->state.length) - moved.more8;
    rest.more16 = (uint32_t)(t->state.utf16 - t->state.length) - moved.more16;
    b->head.level = (uint16_t)(left->level + 1);
    b->head.count = 2;
    adopt(b, 0, left, rest, node_least(left));
    adopt(b, 1, right, moved, node_least(right));
    t->root = &b->head;
}

/* `right` is new, right behind `left`, and has got `moved` of its weight. Full branches are split as leaves are. */
static void attach(dtp_text *t, node *left, node *right, weight moved)
{
    branch *b = left->parent;
    uint32_t i;
    if (b == NULL) {
        new_root(t, left, right, moved);
        return;
    }
    if (b->head.count == FANOUT) {
        branch *more = spare_branch(t);
        uint32_t cut = left->slot + 1 == FANOUT ? FANOUT - 1 : FANOUT / 2;
        weight sum = {0, 0, 0}, w;
        more->head.level = b->head.level;
        for (i = cut; i < FANOUT; i++) {
            w = child_weight(b, i);
            adopt(more, i - cut, b->child[i], w, b->least[i]);
            add_weight(&sum, &w);
        }
        b->head.count = (uint16_t)cut;
        more->head.count = (uint16_t)(FANOUT - cut);
        attach(t, &b->head, &more->head, sum);
        b = left->parent;
    }
    for (i = b->head.count; i > left->slot + 1; i--)
        adopt(b, i, b->child[i - 1], child_weight(b, i - 1), b->least[i - 1]);
    b->head.count++;
    adopt(b, left->slot + 1, right, moved, node_least(right));
    b->least[left->slot] = node_least(left);
    b->chars[left->slot] -= moved.chars;
    b->more8[left->slot] -= moved.more8;
    b->more16[left->slot] -= moved.more16;
}

static leaf *new_leaf_behind(dtp_text *t, leaf *l)
{
    leaf *more = spare_leaf(t);
    more->previous = l;
    more->next = l->next;
    if (l->next != NULL)
        l->next->previous = more;
    else
        t->last = more;
    l->next = more;
    return more;
}

/* When the leaf is full, move the upper half of its spans to a new one; where something is appended, only the last one, and
 * where something is put in front of all or behind the first one, all but that: one of the two stays full then. */
static void make_room(dtp_text *t, place *p)
{
    leaf *l = p->leaf, *more;
    uint32_t i, cut = p->i == LEAF ? LEAF - 1 : p->i <= 1 && p->off == 0 ? 1 : LEAF / 2;
    if (l->head.count < LEAF)
        return;
    more = new_leaf_behind(t, l);
    memcpy(more->spans, l->spans + cut, (LEAF - cut) * sizeof(span));
    more->head.count = (uint16_t)(LEAF - cut);
    l->head.count = (uint16_t)cut;
    attach(t, &l->head, &more->head, spans_weight(t, l, cut, LEAF));
    for (i = 0; i < more->head.count; i++)
        index_put(t, span_agent(&more->spans[i]), more->spans[i].seq, more->spans[i].len, more);
    if (t->hot == l)
        t->hot = NULL;
    t->hint = NULL;
    if (p->i > cut || (p->i == cut && p->off > 0)) {
        p->leaf = more;
        p->i -= cut;
    }
}

static void insert_at(place *p, span s)
{
    leaf *l = p->leaf;
    memmove(l->spans + p->i + 1, l->spans + p->i, (l->head.count - p->i) * sizeof(span));
    l->spans[p->i] = s;
    l->head.count++;
}

static void remove_at(leaf *l, uint32_t i)
{
    l->head.count--;
    memmove(l->spans + i, l->spans + i + 1, (l->head.count - i) * sizeof(span));
}

int tree_reserve(dtp_text *t, leaf *l, uint32_t who, size_t spans)
{
    uint32_t i;
    size_t leaves = 0;
    int code = index_reserve(t, &t->agents[who], spans);
    if (code == DTP_TEXT_OK && l->head.count + spans > LEAF) {
        leaves = 1 + spans / (LEAF / 2);
        for (i = 0; i < l->head.count && code == DTP_TEXT_OK; i++)
            code = index_reserve(t, &t->agents[span_agent(&l->spans[i])], LEAF * leaves);
    }
    if (code != DTP_TEXT_OK)
        return code;
    return spare_reserve(t, leaves, 2 * (spans + leaves * (LEAF / 2 + 1)));
}

void tree_put(dtp_text *t, place *p, span s)
{
    make_room(t, p);
    insert_at(p, s);
    index_put(t, span_agent(&s), s.seq, s.len, p->leaf);
    tree_lower(p->leaf, span_least(&s));
}

void tree_split(dtp_text *t, place *p)
{
    span *s, tail;
    weight w;
    if (p->off == 0)
        return;
    make_room(t, p);
    s = at_place(p);
    tail = *s;
    tail.parting = parting_at(t, p);
    tail.seq += p->off;
    tail.len -= p->off;
    tail.who &= ~(uint32_t)(LEFT | LEFT_CHILD);
    if (!is_dead(s)) {
        span_text(t, s, 0, p->off, &w);
        tail.text += w.chars + w.more8;
    }
    s->len = p->off;
    s->who |= RIGHT;
    p->i++;
    p->off = 0;
    insert_at(p, tail); /* the index is right as it is: both are in one leaf */
}

/* ---- finding --------------------------------------------------------------------------------------------- */

static leaf *descend(const dtp_text *t, uint32_t *rest)
{
    node *n = t->root;
    while (n->level > 0) {
        branch *b = (branch *)(void *)n;
        uint32_t i = 0;
        while (*rest >= b->chars[i])
            *rest -= b->chars[i++];
        n = b->child[i];
    }
    return (leaf *)(void *)n;
}

place tree_find(dtp_text *t, uint32_t position)
{
    place p;
    uint32_t rest = position;
    if (t->hot != NULL) {
        node *n = &t->hot->head;
        uint32_t held = n->parent == NULL ? (uint32_t)t->state.length : n->parent->chars[n->slot];
        if (position - t->hot_start < held)
            rest = position - t->hot_start;
        else
            t->hot = NULL;
    }
    if (t->hot == NULL) {
        t->hot = descend(t, &rest);
        t->hot_start = position - rest;
    }
    p.leaf = t->hot;
    for (p.i = 0;; p.i++) {
        const span *s = &p.leaf->spans[p.i];
        if (is_dead(s))
            continue;
        if (rest < s->len)
            break;
        rest -= s->len;
    }
    p.off = rest;
    return p;
}

uint32_t tree_rank(const dtp_text *t, const place *p)
{
    const leaf *l = p->leaf;
    const node *n = &l->head;
    uint32_t rank = 0, i;
    if (p->i < l->head.count && !is_dead(&l->spans[p->i]))
        rank = p->off;
    for (i = 0; i < p->i; i++)
        if (!is_dead(&l->spans[i]))
            rank += l->spans[i].len;
    if (t->hot == l)
        return rank + t->hot_start;
    for (; n->parent != NULL; n = &n->parent->head)
        for (i = 0; i < n->slot; i++)
            rank += n->parent->chars[i];
    return rank;
}

int tree_compare(const place *p, const place *q)
{
    const node *x = &p->leaf->head, *y = &q->leaf->head;
    if (x == y) {
        if (p->i != q->i)
            return p->i < q->i ? -1 : 1;
        return p->off < q->off ? -1 : p->off > q->off;
    }
    while (x->parent != y->parent) {
        x = &x->parent->head;
        y = &y->parent->head;
    }
    return x->slot < y->slot ? -1 : 1;
}

int tree_next(place *p)
{
    p->off = 0;
    if (p->i + 1 < p->leaf->head.count) {
        p->i++;
        return 1;
    }
    if (p->leaf->next == NULL)
        return 0;
    p->leaf = p->leaf->next;
    p->i = 0;
    return 1;
}

int tree_previous(place *p)
{
    p->off = 0;
    if (p->i > 0) {
        p->i--;
        return 1;
    }
    if (p->leaf->previous == NULL)
        return 0;
    p->leaf = p->leaf->previous;
    p->i = p->leaf->head.count - 1u;
    return 1;
}

/* ---- deleting -------------------------------------------------------------------------------------------- */

int spans_join(const span *x, const span *y)
{
    return ((x->who ^ y->who) & (AGENT_MASK | DEAD)) == 0 && ((x->who | y->who) & (HIDDEN | MARKER)) == 0
        && x->seq + x->len == y->seq && (x->who & RIGHT) != 0 && (y->who & (LEFT | LEFT_CHILD)) == 0;
}

/* Make two deleted neighbours one where they can be. */
static void join_dead(leaf *l, uint32_t i)
{
    span *x = &l->spans[i];
    if (i + 1 >= l->head.count || !is_dead(x) || !spans_join(x, x + 1))
        return;
    x->len += x[1].len;
    x->who = (x->who & ~(uint32_t)RIGHT) | (x[1].who & RIGHT);
    remove_at(l, i + 1);
}

static void kill_whole(dtp_text *t, const place *p, weight w)
{
    leaf *l = p->leaf;
    span *s = at_place(p);
    int visible = !is_dead(s);
    s->who = (s->who & ~(uint32_t)(WIDE | HIDDEN | MARKER)) | DEAD;
    s->text = 0;
    if (visible)
        tree_count(t, l, negative(w));
    join_dead(l, p->i);
    if (p->i > 0)
        join_dead(l, p->i - 1);
}

void tree_kill(dtp_text *t, place p, uint32_t len)
{
    span *s = at_place(&p), *other;
    weight w;
    uint32_t size;
    span_text(t, s, p.off, len, &w);
    size = w.chars + w.more8;
    t->garbage += size;
    t->state.deleted += len;
    if (len == s->len) {
        kill_whole(t, &p, w);
        return;
    }
    other = s - 1;
    if (p.off == 0 && p.i > 0 && is_deleted(other)
        && (other->who & AGENT_MASK) == span_agent(s) && other->seq + other->len == s->seq
        && (other->who & RIGHT) != 0 && (s->who & (LEFT | LEFT_CHILD)) == 0) {
        p.off = len;
        s->parting = parting_at(t, &p);
        other->len += len;
        s->seq += len;
        s->len -= len;
        s->text += size;
        tree_count(t, p.leaf, negative(w));
        return;
    }
    other = s + 1;
    if (p.off + len == s->len && p.i + 1 < p.leaf->head.count && is_deleted(other)
        && (other->who & AGENT_MASK) == span_agent(s) && s->seq + s->len == other->seq && (s->who & RIGHT) != 0
        && (other->who & (LEFT | LEFT_CHILD)) == 0) {
        other->parting = parting_at(t, &p);
        other->seq -= len;
        other->len += len;
        s->len -= len;
        tree_count(t, p.leaf, negative(w));
        return;
    }
    if (p.off + len < s->len) {
        uint32_t off = p.off;
        p.off += len;
        tree_split(t, &p);
        tree_previous(&p);
        p.off = off;
    }
    tree_split(t, &p);
    kill_whole(t, &p, w);
}

void tree_hide(dtp_text *t, place p)
{
    span *s = at_place(&p);
    weight w;
    if (p.off + 1 < s->len) {
        uint32_t off = p.off++;
        tree_split(t, &p);
        tree_previous(&p);
        p.off = off;
    }
    tree_split(t, &p);
    s = at_place(&p);
    span_text(t, s, 0, 1, &w);
    s->who |= DEAD | HIDDEN;
    tree_count(t, p.leaf, negative(w));
}

void tree_show(dtp_text *t, place p)
{
    span *s = at_place(&p);
    weight w;
    span_text(t, s, 0, 1, &w);
    s->who &= ~(uint32_t)(DEAD | HIDDEN);
    tree_count(t, p.leaf, w);
}

/* ---- rebuilding ------------------------------------------------------------------------------------------ */

/* Append a span of the old tree, whose text is in `pool`, to the new one. */
static void append_packed(dtp_text *t, span s, const uint8_t *pool)
{
    leaf *l = t->last;
    span *last = l->head.count > 0 ? &l->spans[l->head.count - 1] : NULL;
    weight w = {0, 0, 0};
    if (!is_deleted(&s)) {
        uint32_t size;
        const uint8_t *from = pool + s.text;
        if ((s.who & WIDE) != 0)
            units_skip(t, from, s.len, &w);
        else
            w.chars = s.len;
        if (w.more8 == 0)
            s.who &= ~(uint32_t)WIDE;
        size = w.chars + w.more8;
        memcpy(t->pool + t->pool_used, from, size);
        s.text = (uint32_t)t->pool_used;
        t->pool_used += size;
        if (is_dead(&s))
            memset(&w, 0, sizeof w);
    } else {
        t->state.deleted += s.len;
    }
    if (last != NULL && spans_join(last, &s)
        && (((last->who | s.who) & WIDE) == 0 || last->len + s.len <= WIDE_SPAN)) {
        last->len += s.len;
        last->who = (last->who & ~(uint32_t)RIGHT) | (s.who & (RIGHT | WIDE));
        tree_lower(l, span_least(last));
    } else {
        place p;
        if (l->head.count == PACKED) {
            weight none = {0, 0, 0};
            leaf *more = new_leaf_behind(t, l);
            attach(t, &l->head, &more->head, none);
            l = more;
        }
        p.leaf = l;
        p.i = l->head.count;
        p.off = 0;
        insert_at(&p, s);
        tree_lower(l, span_least(&s));
    }
    tree_count(t, l, w);
    index_put(t, span_agent(&s), s.seq, s.len, l);
}

/* Memory for all of the new, so that nothing can fail halfway. */
static int reserve_rebuild(dtp_text *t, uint8_t **pool, size_t *room)
{
    size_t spans = 0, i;
    const leaf *l;
    uint32_t k;
    int code = DTP_TEXT_OK;
    *room = (size_t)t->state.bytes;
    *pool = NULL;
    for (i = 0; i < t->agent_count; i++)
        t->agents[i].mark = 0;
    for (l = t->first; l != NULL; l = l->next) {
        spans += l->head.count;
        for (k = 0; k < l->head.count; k++) {
            weight w;
            t->agents[span_agent(&l->spans[k])].mark++;
            if ((l->spans[k].who & HIDDEN) != 0) {
                span_text(t, &l->spans[k], 0, 1, &w);
                *room += w.chars + w.more8;
            }
        }
    }
    for (i = 0; i < t->agent_count && code == DTP_TEXT_OK; i++)
        code = index_reserve(t, &t->agents[i], t->agents[i].mark);
    if (code == DTP_TEXT_OK)
        code = spare_reserve(t, 2 + spans / PACKED, 2 + t->agent_count + 4 * spans / (CHUNK / 2));
    if (code != DTP_TEXT_OK || *room == 0)
        return code;
    *pool = text_take(t, *room);
    return *pool == NULL ? DTP_TEXT_MEMORY : DTP_TEXT_OK;
}

int tree_rebuild(dtp_text *t)
{
    uint8_t *pool, *old_pool = t->pool;
    size_t room, old_room = t->pool_room, i;
    node *old_root = t->root;
    leaf *l = t->first, *next;
    int code = reserve_rebuild(t, &pool, &room);
    if (code != DTP_TEXT_OK) {
        spares_free(t);
        return code;
    }
    for (i = 0; i < t->agent_count; i++) {
        agent *a = &t->agents[i];
        while (a->chunk_count > 0)
            chunk_return(t, a->chunks[--a->chunk_count].chunk);
        a->slab = a->slab_end = a->tail = a->held = 0;
    }
    t->pool = pool;
    t->pool_room = room;
    t->pool_used = t->garbage = 0;
    t->state.length = t->state.bytes = t->state.utf16 = t->state.deleted = 0;
    t->first = t->last = spare_leaf(t);
    t->root = &t->first->head;
    t->hot = t->hint = NULL;
    for (; l != NULL; l = next) {
        uint32_t k;
        for (k = 0; k < l->head.count; k++)
            if ((l->spans[k].who & DROP) == 0) {
                span s = l->spans[k];
                s.who &= AGENT_MASK | FLAGS;
                append_packed(t, s, old_pool);
            }
        next = l->next;
    }
    free_node(t, old_root);
    text_give(t, old_pool, old_room);
    spares_free(t);
    return DTP_TEXT_OK;
}
