/* crdt_text_wait.c - operations of others that wait until what they refer to is here. */
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

/* Whether one that says as much waits for this author already. */
static int is_hung(const agent *a, const waiting *as)
{
    const waiting *w = a->waits, *found = NULL;
    while (w != NULL) {
        if (wait_order(w, as) >= 0)
            found = w;
        w = wait_order(w, as) >= 0 ? w->left : w->right;
    }
    return found != NULL && found->needs == as->needs && found->who == as->who && found->op.seq == as->op.seq;
}

void wait_hang(dtp_text *t, waiting *w, id lack)
{
    waiting **at = &t->agents[lack.agent].waits, **before = &w->left, **behind = &w->right, *rest;
    w->needs = lack.seq;
    w->rank = (uint32_t)dtp_mix(t->seed[0] ^ ((uint64_t)w->needs << 32 | w->op.seq), t->seed[1] ^ w->who);
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

/* Take out the first that needs no more than `made` of the author's operations; NULL: there is none. */
waiting *wait_take(agent *a, uint32_t made)
{
    waiting **at = &a->waits, *w;
    while (*at != NULL && (*at)->left != NULL)
        at = &(*at)->left;
    w = *at;
    if (w == NULL || w->needs > made)
        return NULL;
    *at = w->right;
    return w;
}

void waits_free(dtp_text *t)
{
    size_t i;
    waiting *w;
    for (i = 0; i < t->agent_count; i++)
        while ((w = wait_take(&t->agents[i], UINT32_MAX)) != NULL)
            wait_free(t, w);
    t->waiter_count = 0;
}

/* Put an operation aside until the author `lack.agent` has made `lack.seq`. */
int wait_put(dtp_text *t, uint32_t who, const wire_op *op, const uint8_t *text, size_t size, id lack)
{
    size_t needed = sizeof(waiting) + size;
    waiting as, *w;
    int code;
    as.needs = lack.seq;
    as.who = who;
    as.op = op->op;
    as.len = op->len;
    if (is_hung(&t->agents[lack.agent], &as))
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
    w->dead = (uint32_t)op->dead;
    w->size = (uint32_t)size;
    if (size > 0)
        memcpy(w->text, text, size);
    wait_hang(t, w, lack);
    t->state.waiting++;
    t->state.waiting_bytes += needed;
    return WAITS;
}
