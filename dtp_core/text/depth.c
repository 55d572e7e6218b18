/* text/depth.c - how deep characters are in their tree, and where its branches begin and end.
 *
 * The order is the in-order walk of a tree, so what is below a node stands together. Between two neighbours there is a
 * parting: twice the depth of the lowest node that has both below it (or is one of them), and 1 more where both are on its
 * left side, itself being the end of that. What is below a node of depth d begins and ends where a parting is less than 2 d,
 * and has none within; between its right children, and before the first one, the partings are 2 d, between its left children,
 * and behind the last one, 2 d + 1. So the next place among siblings is the next small parting, which the tree of spans finds
 * by the least that is below each of its nodes, whatever the siblings have below them.
 *
 * A node that is put in gets a parting and changes at most the one behind it, and depths never change: each span holds the
 * parting before it, from which the depth of its characters follows. Of compacted characters the order is all that is known:
 * they have depth 0, as has the beginning of the text, and what is below two of them parts at 0. */
#include "crdt_text_internal.h"

/* ---- of characters --------------------------------------------------------------------------------------- */

static int is_compacted(const dtp_text *t, id x)
{
    return x.agent == NOBODY || x.seq < t->agents[x.agent].base;
}

/* Of a left child without left children, which begins a span. Its parent is behind it, so what is next behind the span parts from
 * it no higher than there. */
static int64_t left_child_depth(dtp_text *t, const place *p)
{
    const span *s = at_place(p);
    place q = *p;
    run f;
    if (tree_next(&q)) {
        uint32_t parting = at_place(&q)->parting;
        if ((s->who & RIGHT) != 0)
            return (int64_t)(parting / 2) - (s->len - 1); /* at the last character */
        if (parting % 2 == 1)
            return parting / 2 + 1; /* at the parent */
    }
    if (!family(t, span_id(s, 0), &f) || is_compacted(t, f.a) || !locate(t, f.a, &q))
        return 1;
    return at_place(&q)->parting / 2 + 1; /* which has left children */
}

/* The depth of a span's first character. Of compacted ones less than 1, so that the first behind them has 1. */
static int64_t first_depth(dtp_text *t, const place *p)
{
    const span *s = at_place(p);
    id x = span_id(s, 0);
    if (is_compacted(t, x))
        return 1 - (int64_t)(t->agents[x.agent].base - x.seq);
    if ((s->who & LEFT) != 0)
        return s->parting / 2;
    return (s->who & LEFT_CHILD) == 0 ? s->parting / 2 + 1 : left_child_depth(t, p);
}

uint32_t depth_at(dtp_text *t, const place *p)
{
    int64_t depth = first_depth(t, p) + p->off;
    return depth < 0 ? 0 : (uint32_t)depth;
}

uint32_t parting_at(dtp_text *t, const place *p)
{
    int64_t depth;
    if (p->off == 0)
        return at_place(p)->parting;
    depth = first_depth(t, p) + p->off - 1;
    return depth < 0 ? 0 : 2 * (uint32_t)depth;
}

/* ---- in the tree of spans -------------------------------------------------------------------------------- */

static uint32_t slot_least(const node *n, uint32_t i)
{
    return n->level == 0 ? span_least(&((const leaf *)(const void *)n)->spans[i])
                         : ((const branch *)(const void *)n)->least[i];
}

static node *child_of(node *n, uint32_t i)
{
    return ((branch *)(void *)n)->child[i];
}

uint32_t parting_slot(dtp_text *t, const node *n, uint32_t from, uint32_t most)
{
    t->state.searched++;
    while (from < n->count && slot_least(n, from) > most)
        from++;
    return from;
}

/* The same backwards, before `from`: -1 if there is none. */
static int64_t slot_before(dtp_text *t, const node *n, int64_t from, uint32_t most)
{
    t->state.searched++;
    do
        from--;
    while (from >= 0 && slot_least(n, (uint32_t)from) > most);
    return from;
}

place parting_first(dtp_text *t, node *n, uint32_t slot, uint32_t most)
{
    place p;
    while (n->level > 0) {
        n = child_of(n, slot);
        slot = parting_slot(t, n, 0, most);
    }
    p.leaf = (leaf *)(void *)n;
    p.i = slot;
    p.off = at_place(&p)->parting > most;
    return p;
}

int parting_next(dtp_text *t, place *p, uint32_t most)
{
    node *n = &p->leaf->head;
    uint32_t slot = p->i;
    if (++p->off < at_place(p)->len && parting_at(t, p) <= most)
        return 1;
    for (;;) {
        slot = parting_slot(t, n, slot + 1, most);
        if (slot < n->count) {
            *p = parting_first(t, n, slot, most);
            return 1;
        }
        if (n->parent == NULL)
            return 0;
        slot = n->slot;
        n = &n->parent->head;
    }
}

void parting_previous(dtp_text *t, place *p, uint32_t most)
{
    node *n = &p->leaf->head;
    int64_t slot = p->i;
    if (at_place(p)->parting <= most)
        return;
    while ((slot = slot_before(t, n, slot, most)) < 0) {
        if (n->parent == NULL)
            return; /* can't be: before the first character it is 0 */
        slot = n->slot;
        n = &n->parent->head;
    }
    while (n->level > 0) {
        n = child_of(n, (uint32_t)slot);
        slot = slot_before(t, n, n->count, most);
    }
    p->leaf = (leaf *)(void *)n;
    p->i = (uint32_t)slot;
}

/* ---- from the logs --------------------------------------------------------------------------------------- */

int levels_reserve(dtp_text *t)
{
    size_t i;
    for (i = 0; i < t->agent_count; i++) {
        agent *a = &t->agents[i];
        a->level_room = 0;
        a->levels = NULL;
        if (text_grow(t, &a->levels, &a->level_room, a->run_count, sizeof *a->levels) != DTP_TEXT_OK) {
            levels_free(t);
            return DTP_TEXT_MEMORY;
        }
    }
    return DTP_TEXT_OK;
}

void levels_free(dtp_text *t)
{
    size_t i;
    for (i = 0; i < t->agent_count; i++) {
        agent *a = &t->agents[i];
        text_give(t, a->levels, a->level_room * sizeof *a->levels);
        a->levels = NULL;
        a->level_room = 0;
    }
}

/* Of a character whose run's is known. */
static level level_of(dtp_text *t, id x)
{
    level v = {0, 0, 0, x};
    if (!is_compacted(t, x)) {
        agent *a = &t->agents[x.agent];
        size_t i = log_find(a, x.seq);
        v = a->levels[i];
        if (x.seq > a->runs[i].seq)
            v.left = v.depth += x.seq - a->runs[i].seq;
    }
    return v;
}

/* Of a run whose parent's run is known. DTP_TEXT_FULL: it is too deep. */
static int tell_level(dtp_text *t, uint32_t who, size_t i)
{
    agent *a = &t->agents[who];
    run r = log_run(a, i);
    level above = level_of(t, r.a), *v = &a->levels[i];
    if (above.depth + (uint64_t)(run_end(a, i) - r.seq) >= DTP_TEXT_SEQUENCE)
        return DTP_TEXT_FULL;
    v->depth = above.depth + 1;
    v->right = r.kind == INSERT_RIGHT ? above.right : v->depth;
    v->left = r.kind == INSERT_LEFT ? above.left : v->depth;
    v->at = above.at;
    return DTP_TEXT_OK;
}

/* Of a run and all above it that isn't known. The way back is kept where their levels will be. */
static int tell_levels(dtp_text *t, uint32_t who, size_t i)
{
    uint32_t below = NOBODY;
    size_t below_i = 0;
    while (t->agents[who].levels[i].depth == 0) {
        level *v = &t->agents[who].levels[i];
        run r = log_run(&t->agents[who], i);
        int code;
        v->right = below;
        v->left = (uint32_t)below_i;
        if (!is_compacted(t, r.a)) {
            size_t above = log_find(&t->agents[r.a.agent], r.a.seq);
            if (t->agents[r.a.agent].levels[above].depth == 0) {
                below = who;
                below_i = i;
                who = r.a.agent;
                i = above;
                continue;
            }
        }
        below = v->right;
        below_i = v->left;
        code = tell_level(t, who, i);
        if (code != DTP_TEXT_OK || below == NOBODY)
            return code;
        who = below;
        i = below_i;
        below = t->agents[who].levels[i].right;
        below_i = t->agents[who].levels[i].left;
    }
    return DTP_TEXT_OK;
}

/* The parting before a span, when *last is the level of what is before it, which becomes that of its last character. */
static uint32_t parting_before(dtp_text *t, const span *s, level *last)
{
    level before = *last, v = level_of(t, span_id(s, 0));
    *last = s->len == 1 ? v : level_of(t, span_id(s, s->len - 1));
    if (before.right > v.left)
        return v.left == 0 && before.right == 1 && !same_id(before.at, v.at) ? 0 : 2 * (before.right - 1) + 1;
    return v.left > 0 ? 2 * (v.left - 1) : 0;
}

static int is_left_child(dtp_text *t, id x)
{
    run f;
    return family(t, x, &f) && f.kind == INSERT_LEFT;
}

int levels_tell(dtp_text *t)
{
    uint32_t who;
    size_t i;
    for (who = 0; who < t->agent_count; who++)
        if (t->agents[who].run_count > 0)
            memset(t->agents[who].levels, 0, t->agents[who].run_count * sizeof(level));
    for (who = 0; who < t->agent_count; who++)
        for (i = 0; i < t->agents[who].run_count; i++)
            if (t->agents[who].runs[i].what >> RUN_KIND < DELETE_UP && tell_levels(t, who, i) != DTP_TEXT_OK)
                return DTP_TEXT_FULL;
    return DTP_TEXT_OK;
}

void partings_set(dtp_text *t)
{
    level last = {0, 0, 0, {NOBODY, 0}};
    uint32_t i;
    leaf *l;
    for (l = t->first; l != NULL; l = l->next)
        for (i = 0; i < l->head.count; i++) {
            span *s = &l->spans[i];
            s->parting = parting_before(t, s, &last);
            s->who &= ~(uint32_t)LEFT_CHILD;
            if (is_left_child(t, span_id(s, 0)))
                s->who |= LEFT_CHILD;
        }
    tree_parted_all(t);
}

int partings_agree(dtp_text *t)
{
    level last = {0, 0, 0, {NOBODY, 0}};
    uint32_t above = 0, i; /* 1 + the least parting that may follow, as what is before has right children */
    const leaf *l;
    for (l = t->first; l != NULL; l = l->next)
        for (i = 0; i < l->head.count; i++) {
            const span *s = &l->spans[i];
            id first = span_id(s, 0), end = span_id(s, s->len - 1);
            place p = {(leaf *)(uintptr_t)l, i, 0};
            int64_t depth = first_depth(t, &p);
            if (s->parting != parting_before(t, s, &last) || s->parting + 1 < above)
                return 0;
            if (((s->who & LEFT_CHILD) != 0) != is_left_child(t, first))
                return 0;
            if (!is_compacted(t, first) && depth != level_of(t, first).depth)
                return 0;
            if (!is_compacted(t, end) && depth + s->len - 1 != last.depth)
                return 0;
            above = !is_compacted(t, end) && (s->who & RIGHT) != 0 ? 1 + 2 * last.depth : 0;
        }
    return above == 0;
}
