/* text/wait.c - operations of others that wait until what they refer to is here.
 *
 * Each waits for one author, in a treap of that author's by how many operations it has to have made (`needs`). When it has
 * made more, those are applied again that need no more than that; each may find that it lacks something else.
 *
 * A deletion of a run of characters, upwards, would be applied each time that the next of these comes. Where many such
 * deletions wait for the same characters, each character would be deleted by all of them, though it is gone with the first.
 * So deletions that begin with the character that the author makes next wait in a treap of their own (`halves`), by where
 * they end. Of these the one that ends last deletes all that the others would. What comes is deleted by that one alone; the
 * others are applied once the author has made the last character of theirs, or in waits_settle, before somebody is told how
 * many operations their authors have made. A deletion that joins the halves when characters have come, and the last one has
 * not deleted them yet, might end farther and take its place: it waits among the rest until that has been done. */
#include "crdt_text_internal.h"

static size_t wait_size(const waiting *w)
{
    return sizeof *w + w->size;
}

void wait_free(dtp_text *t, waiting *w)
{
    t->state.waiting--;
    t->state.waiting_bytes -= wait_size(w);
    text_give(t, w, wait_size(w));
}

/* Below 0, 0 or above 0, as the two stand in a treap. */
static int wait_order(const waiting *x, const waiting *y)
{
    if (x->needs != y->needs)
        return x->needs < y->needs ? -1 : 1;
    if (x->who != y->who)
        return x->who < y->who ? -1 : 1;
    if (x->op.seq != y->op.seq)
        return x->op.seq < y->op.seq ? -1 : 1;
    return (x->len > y->len) - (x->len < y->len);
}

/* Whether it is a deletion that begins with what this author makes next, and lacks nothing else. */
static int is_half(const dtp_text *t, const waiting *w, uint32_t on)
{
    return w->op.kind == DELETE_UP && w->op.a.agent == on && w->op.a.seq == t->agents[on].next
        && w->op.seq <= t->agents[w->who].next;
}

/* Where the half that ends last hangs; *farthest(a) is NULL where there is none. */
static waiting **farthest(agent *a)
{
    waiting **at = &a->halves;
    while (*at != NULL && (*at)->right != NULL)
        at = &(*at)->right;
    return at;
}

/* Whether characters have come that this half has not deleted yet. */
static int lags(const agent *a, const waiting *w)
{
    return w != NULL && w->op.a.seq < a->next;
}

/* The treap for one that waits until this author has made `needs`. One that newly joins the halves while the last of them
 * lags waits among the rest instead, to be taken out when that has deleted what came. */
static waiting **treap_for(dtp_text *t, waiting *w, uint32_t on, uint32_t needs)
{
    agent *a = &t->agents[on];
    int was_half = w->half;
    w->half = (uint16_t)is_half(t, w, on);
    w->needs = needs;
    if (w->half && !was_half && lags(a, *farthest(a))) {
        w->half = 0;
        w->needs = a->next;
    }
    return w->half ? &a->halves : &a->waits;
}

/* Whether one that says as much is there already. */
static int is_hung(const waiting *w, const waiting *as)
{
    const waiting *found = NULL;
    while (w != NULL) {
        if (wait_order(w, as) >= 0)
            found = w;
        w = wait_order(w, as) >= 0 ? w->left : w->right;
    }
    return found != NULL && found->needs == as->needs && found->who == as->who && found->op.seq == as->op.seq;
}

static void hang(const dtp_text *t, waiting *w, waiting **at)
{
    waiting **before = &w->left, **behind = &w->right, *rest;
    w->rank = (uint32_t)dtp_mix(t->seed[0] ^ ((uint64_t)w->needs << 32 | w->op.seq),
                                t->seed[1] ^ ((uint64_t)w->len << 32 | w->who));
    while (*at != NULL && (*at)->rank >= w->rank)
        at = wait_order(w, *at) < 0 ? &(*at)->left : &(*at)->right;
    rest = *at;
    *at = w;
    while (rest != NULL) {
        if (wait_order(rest, w) < 0) {
            *before = rest;
            before = &rest->right;
            rest = rest->right;
        } else {
            *behind = rest;
            behind = &rest->left;
            rest = rest->left;
        }
    }
    *before = *behind = NULL;
}

void wait_hang(dtp_text *t, waiting *w, id lack)
{
    waiting **at = treap_for(t, w, lack.agent, lack.seq);
    if (is_hung(*at, w))
        wait_free(t, w); /* what was applied of it made it the same as another */
    else
        hang(t, w, at);
}

void wait_back(dtp_text *t, waiting *w, uint32_t on)
{
    w->half = 0;
    w->needs = t->agents[on].next;
    hang(t, w, &t->agents[on].waits);
}

waiting *wait_first(waiting **at, uint32_t made)
{
    waiting *w;
    while (*at != NULL && (*at)->left != NULL)
        at = &(*at)->left;
    w = *at;
    if (w == NULL || w->needs > made)
        return NULL;
    *at = w->right;
    return w;
}

waiting *wait_take(agent *a)
{
    waiting **at = farthest(a), *w = *at;
    if (lags(a, w)) {
        *at = w->left;
        return w;
    }
    w = wait_first(&a->halves, a->next);
    return w != NULL ? w : wait_first(&a->waits, a->next);
}

void waits_free(dtp_text *t)
{
    size_t i;
    waiting *w;
    for (i = 0; i < t->agent_count; i++) {
        while ((w = wait_first(&t->agents[i].waits, UINT32_MAX)) != NULL)
            wait_free(t, w);
        while ((w = wait_first(&t->agents[i].halves, UINT32_MAX)) != NULL)
            wait_free(t, w);
    }
    t->waiter_count = 0;
}

/* Put an operation aside until the author `lack.agent` has made `lack.seq`. */
int wait_put(dtp_text *t, uint32_t who, const wire_op *op, const uint8_t *text, size_t size, id lack)
{
    size_t needed = sizeof(waiting) + size;
    waiting as, *w, **at;
    int code;
    as.who = who;
    as.op = op->op;
    as.len = op->len;
    as.half = 0;
    at = treap_for(t, &as, lack.agent, lack.seq);
    if (is_hung(*at, &as))
        return WAITS;
    if (needed > t->state.waiting_cap || t->state.waiting_bytes > t->state.waiting_cap - needed)
        return DTP_TEXT_PENDING;
    code = text_grow(t, &t->waiters, &t->waiter_room, (size_t)t->state.waiting + 2, sizeof *t->waiters);
    if (code != DTP_TEXT_OK)
        return code;
    w = text_take(t, needed);
    if (w == NULL)
        return DTP_TEXT_MEMORY;
    w->who = who;
    w->op = op->op;
    w->len = op->len;
    w->dead = (uint16_t)op->dead;
    w->size = (uint32_t)size;
    if (size > 0)
        memcpy(w->text, text, size);
    w->needs = as.needs;
    w->half = as.half;
    hang(t, w, at);
    t->state.waiting++;
    t->state.waiting_bytes += needed;
    return WAITS;
}
