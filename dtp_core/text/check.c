/* text/check.c - every promise that the structures of a text make to each other: for tests, and what of it a state
 * from elsewhere must keep. */
#include "crdt_text_internal.h"

#define PROMISE(condition)     \
    do {                       \
        if (!(condition))      \
            return __LINE__;   \
    } while (0)

static int check_node(dtp_text *t, const node *n, const branch *parent, weight *sum)
{
    const branch *b = (const branch *)(const void *)n;
    uint32_t i;
    PROMISE(n->parent == parent);
    if (n->level == 0) {
        *sum = leaf_weight(t, (const leaf *)(const void *)n);
        return DTP_TEXT_OK;
    }
    memset(sum, 0, sizeof *sum);
    PROMISE(n->count >= 1 && n->count <= FANOUT);
    for (i = 0; i < n->count; i++) {
        weight w;
        int code;
        PROMISE(b->child[i]->slot == i && b->child[i]->level + 1 == n->level);
        code = check_node(t, b->child[i], b, &w);
        if (code != DTP_TEXT_OK)
            return code;
        PROMISE(w.chars == b->chars[i] && w.more8 == b->more8[i] && w.more16 == b->more16[i]);
        PROMISE(parting_slot(t, b->child[i], 0, b->least[i]) < b->child[i]->count);
        PROMISE(b->least[i] == 0 || parting_slot(t, b->child[i], 0, b->least[i] - 1) == b->child[i]->count);
        sum->chars += w.chars;
        sum->more8 += w.more8;
        sum->more16 += w.more16;
    }
    return DTP_TEXT_OK;
}

static int check_spans(dtp_text *t)
{
    const leaf *l, *previous = NULL;
    uint64_t deleted = 0, held = 0, hidden = 0;
    uint32_t i;
    place p;
    for (l = t->first; l != NULL; previous = l, l = l->next) {
        PROMISE(l->previous == previous && l->head.level == 0 && l->head.count <= LEAF);
        PROMISE(l->head.count > 0 || (t->first == l && t->last == l));
        for (i = 0; i < l->head.count; i++) {
            const span *s = &l->spans[i];
            weight w;
            PROMISE((s->who & ~(uint32_t)(AGENT_MASK | FLAGS)) == 0);
            PROMISE(span_agent(s) < t->agent_count && s->len > 0);
            PROMISE(s->seq + s->len <= t->agents[span_agent(s)].next);
            PROMISE(locate(t, span_id(s, 0), &p) && p.leaf == l && p.i == i && p.off == 0);
            PROMISE(locate(t, span_id(s, s->len - 1), &p) && p.leaf == l && p.i == i && p.off == s->len - 1);
            if (is_deleted(s)) {
                PROMISE((s->who & MARKER) == 0);
                deleted += s->len;
                continue;
            }
            PROMISE((s->who & (HIDDEN | MARKER)) == 0 || s->len == 1);
            PROMISE((s->who & WIDE) == 0 || s->len <= WIDE_SPAN);
            span_text(t, s, 0, s->len, &w);
            *((s->who & HIDDEN) != 0 ? &hidden : &held) += w.chars + w.more8;
            PROMISE(s->text + w.chars + w.more8 <= t->pool_used);
        }
    }
    PROMISE(previous == t->last);
    PROMISE(deleted == t->state.deleted);
    PROMISE(held == t->state.bytes && held + hidden + t->garbage <= t->pool_used);
    return DTP_TEXT_OK;
}

/* All characters of an insertion are there, behind or before their parent as their side says, and it knows of them. */
static int check_insertion(dtp_text *t, uint32_t who, const run *r, uint32_t end)
{
    id x = make_id(who, r->seq);
    place p, q;
    uint32_t seq = r->seq;
    PROMISE(r->kind == INSERT_RIGHT || same_id(r->a, r->b));
    while (seq < end) { /* one behind the other */
        PROMISE(locate(t, make_id(who, seq), &p));
        PROMISE(seq == r->seq || tree_compare(&q, &p) < 0);
        q = p;
        seq += at_place(&p)->len - p.off;
    }
    PROMISE(r->b.agent == NOBODY || locate(t, r->b, &q));
    if (r->a.agent == NOBODY)
        return DTP_TEXT_OK;
    PROMISE(locate(t, x, &p) && locate(t, r->a, &q));
    if (r->kind == INSERT_RIGHT) {
        PROMISE(tree_compare(&q, &p) < 0);
        PROMISE(q.off + 1 < at_place(&q)->len || (at_place(&q)->who & RIGHT) != 0);
    } else {
        PROMISE(tree_compare(&p, &q) < 0);
        PROMISE(q.off == 0 && (at_place(&q)->who & LEFT) != 0);
    }
    return DTP_TEXT_OK;
}

/* What was deleted is deleted. */
static int check_deletion(dtp_text *t, const run *r, uint32_t count)
{
    id x = r->kind == DELETE_UP ? r->a : make_id(r->a.agent, r->a.seq - (count - 1));
    uint32_t end = x.seq + count;
    place p;
    for (x.seq = next_held(t, x, end, &p); x.seq < end; x.seq = next_held(t, x, end, &p)) {
        PROMISE(is_deleted(at_place(&p)));
        x.seq += at_place(&p)->len - p.off;
    }
    return DTP_TEXT_OK;
}

static int check_logs(dtp_text *t)
{
    size_t i, k;
    for (i = 0; i < t->agent_count; i++) {
        agent *a = &t->agents[i];
        size_t origins = 0;
        PROMISE(a->base <= a->next);
        PROMISE(a->run_count > 0 ? a->runs[0].seq == a->base : a->base == a->next);
        for (k = 0; k < a->run_count; k++) {
            int code = DTP_TEXT_OK;
            run r;
            PROMISE(a->runs[k].seq < run_end(a, k));
            PROMISE((a->runs[k].what & RUN_ORIGIN) == 0
                    || (origins < a->origin_count && a->origins[origins++].seq == a->runs[k].seq));
            r = log_run(a, k);
            if (r.kind < DELETE_UP)
                code = check_insertion(t, (uint32_t)i, &r, run_end(a, k));
            else
                code = check_deletion(t, &r, run_end(a, k) - r.seq);
            if (code != DTP_TEXT_OK)
                return code;
        }
        PROMISE(origins == a->origin_count);
    }
    return DTP_TEXT_OK;
}

int logs_agree(dtp_text *t)
{
    int code = levels_reserve(t);
    if (code == DTP_TEXT_OK)
        code = levels_tell(t);
    if (code == DTP_TEXT_OK) {
        partings_set(t);
        if (check_logs(t) != DTP_TEXT_OK || !partings_agree(t))
            code = DTP_TEXT_FORMAT;
    }
    levels_free(t);
    return code;
}

static int check_partings(dtp_text *t)
{
    uint64_t cap = t->state.cap;
    int code, agree = 0;
    t->state.cap = 0; /* what is needed here doesn't count */
    code = levels_reserve(t);
    t->state.cap = cap;
    if (code == DTP_TEXT_OK && levels_tell(t) == DTP_TEXT_OK)
        agree = partings_agree(t);
    levels_free(t);
    PROMISE(agree || code != DTP_TEXT_OK);
    return code;
}

enum { WAITS_DEEP = 128 }; /* far more than the 2^18 or so that there is room for need, whatever they are */

/* A treap of what waits, which is at most `depth` deep by chance: it is counted, and *farthest becomes the last. */
static int check_treap(const waiting *w, int depth, uint64_t *count, const waiting **farthest)
{
    int code;
    if (w == NULL)
        return DTP_TEXT_OK;
    PROMISE(depth > 0);
    PROMISE((w->left == NULL || w->left->rank <= w->rank) && (w->right == NULL || w->right->rank <= w->rank));
    code = check_treap(w->left, depth - 1, count, farthest);
    PROMISE(code == DTP_TEXT_OK && (*farthest == NULL || (*farthest)->needs <= w->needs));
    *farthest = w;
    ++*count;
    return check_treap(w->right, depth - 1, count, farthest);
}

/* All that waits is counted, and of each author's halves the one that ends last has deleted what is here. */
static int check_waits(dtp_text *t)
{
    uint64_t count = 0;
    size_t i;
    for (i = 0; i < t->agent_count; i++) {
        const agent *a = &t->agents[i];
        const waiting *last = NULL, *farthest = NULL;
        PROMISE(check_treap(a->waits, WAITS_DEEP, &count, &last) == DTP_TEXT_OK);
        PROMISE(check_treap(a->halves, WAITS_DEEP, &count, &farthest) == DTP_TEXT_OK);
        PROMISE(farthest == NULL || (farthest->op.kind == DELETE_UP && farthest->op.a.agent == i
                                     && farthest->needs == farthest->op.a.seq + farthest->len
                                     && (i == 0 || a->is_ready
                                         || (farthest->needs > a->next && farthest->op.a.seq == a->next))));
    }
    PROMISE(count == t->state.waiting);
    return DTP_TEXT_OK;
}

static int check_all(dtp_text *t)
{
    weight sum;
    int code;
    t->hint = NULL; /* so that characters are found by the index alone */
    code = check_node(t, t->root, NULL, &sum);
    if (code != DTP_TEXT_OK)
        return code;
    PROMISE(sum.chars == t->state.length);
    PROMISE(sum.chars + (uint64_t)sum.more8 == t->state.bytes && sum.chars + (uint64_t)sum.more16 == t->state.utf16);
    code = check_spans(t);
    if (code == DTP_TEXT_OK)
        code = check_logs(t);
    if (code == DTP_TEXT_OK)
        code = check_partings(t);
    if (code == DTP_TEXT_OK)
        code = check_waits(t);
    if (code == DTP_TEXT_OK)
        code = rich_check(t);
    return code == DTP_TEXT_OK ? marks_check(t) : code;
}

int dtp_text_check(dtp_text *t)
{
    int code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    code = check_all(t);
    text_leave(t);
    return code;
}
