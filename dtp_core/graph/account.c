/* graph/account.c - whether two things that one author signed about the same of its ops can both be true: a summary and a frame
 * that it stands for, or two summaries. docs/graph.md, "Contradictions". */
#include "crdt_graph.h"

struct dtp_account {
    dtp_author author;
    dtp_told told; /* its body is `copy` */
    uint8_t *copy;
    dtp_parsed first; /* of it */
    dtp_parsed second;
};

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

static const uint64_t NO_SEED[2]; /* names are compared, not looked up */

/* Parse the body; a frame tells its clocks itself. */
static int read_told(dtp_parsed *p, dtp_told *told, size_t *place)
{
    int code;
    p->count = 0;
    p->owned = 0;
    if (told->length > 0 || !told->is_summary) {
        code = dtp_parse(p, NO_SEED, told->body, told->length, 0, place);
        if (code != DTP_OK)
            return code;
        if (!told->is_summary) {
            told->after = p->before;
            told->last = p->last;
        } else if (p->before != told->after || p->last > told->last) {
            *place = 0;
            return DTP_E_FORMAT;
        }
    }
    return DTP_OK;
}

int dtp_account_open(const uint8_t *author, const uint8_t *name, size_t name_length, const dtp_told *told,
                     dtp_account **opened, size_t *place)
{
    dtp_account *account;
    int code;
    *place = 0;
    if (name_length > DTP_OWNER_BYTES)
        return DTP_E_LIMIT;
    account = dtp_allocate(sizeof *account);
    if (account == NULL)
        return DTP_E_MEMORY;
    memset(account, 0, sizeof *account);
    memcpy(account->author.id, author, DTP_AUTHOR);
    memcpy(account->author.owner, name, name_length);
    account->author.owner_length = name_length;
    account->told = *told;
    code = DTP_OK;
    if (told->length > 0) {
        account->copy = dtp_allocate(told->length);
        if (account->copy == NULL)
            code = DTP_E_MEMORY;
        else
            memcpy(account->copy, told->body, told->length);
        account->told.body = account->copy;
    }
    if (code == DTP_OK)
        code = read_told(&account->first, &account->told, place);
    if (code != DTP_OK) {
        dtp_account_close(account);
        return code;
    }
    *opened = account;
    return DTP_OK;
}

void dtp_account_close(dtp_account *account)
{
    if (account == NULL)
        return;
    dtp_parsed_close(&account->first);
    dtp_parsed_close(&account->second);
    dtp_release(account->copy);
    dtp_release(account);
}

/* ---- comparing ---------------------------------------------------------------------------------------------------------- */

/* One side: what it tells, and the clock above which dots of the author itself need not be in both. */
typedef struct side {
    const dtp_told *told;
    const dtp_parsed *p;
    const dtp_author *whose;
    const uint8_t *author;
    uint64_t common;
} side;

static const uint8_t *dot_author(const side *s, const dtp_dot *dot)
{
    return dot->author == 0 ? s->author : s->p->author_ids[dot->author - 1];
}

/* A summary has such an op as it is. */
static int is_ruled(const side *s, const dtp_op *op)
{
    return dtp_needs_verdict(s->whose, s->p, op);
}

static int is_void(const dtp_op *op)
{
    return dtp_is_old_list(op);
}

/* Return whether both sides have to have this dot. (A summary has no dot of its author's above `after`: one is never equal.) */
static int is_common(const side *s, const dtp_op *op, const dtp_dot *dot)
{
    if (is_void(op) || is_ruled(s, op) || memcmp(dot_author(s, dot), s->author, DTP_AUTHOR) != 0 || dot->clock <= s->common)
        return 1;
    return s->told->is_summary && dot->clock > s->told->after;
}

/* The first at or behind `at` that both have to have; the number of dots when there is none. */
static uint32_t next_common(const side *s, const dtp_op *op, uint32_t at)
{
    while (at < op->dots && !is_common(s, op, &s->p->dots[op->first_dot + at]))
        at++;
    return at;
}

static int same_dots(const side *a, const dtp_op *x, const side *b, const dtp_op *y)
{
    uint32_t i = 0, j = 0;
    for (;; i++, j++) {
        const dtp_dot *one, *other;
        i = next_common(a, x, i);
        j = next_common(b, y, j);
        if (i == x->dots || j == y->dots)
            return i == x->dots && j == y->dots;
        one = &a->p->dots[x->first_dot + i];
        other = &b->p->dots[y->first_dot + j];
        if (one->clock != other->clock || memcmp(dot_author(a, one), dot_author(b, other), DTP_AUTHOR) != 0)
            return 0;
    }
}

static int same_name(const side *a, uint32_t x, const side *b, uint32_t y)
{
    const dtp_spelled *one = &a->p->names[x], *other = &b->p->names[y];
    return one->length == other->length
        && memcmp(a->p->bytes + one->offset, b->p->bytes + other->offset, one->length) == 0;
}

static int same_value(const side *a, const dtp_op *x, const side *b, const dtp_op *y)
{
    int placed = x->kind == DTP_OLD_LIST_INSERT || x->kind == DTP_OLD_LIST_MOVE;
    if (x->value_length != y->value_length
        || (x->value_length > 0 && memcmp(x->value, y->value, x->value_length) != 0))
        return 0;
    return !placed
        || (x->position_length == y->position_length
            && memcmp(a->p->bytes + x->position, b->p->bytes + y->position, x->position_length) == 0);
}

/* What is left of an addition of which only the removals count. */
static int is_rest_of(const dtp_op *rest, const dtp_op *addition)
{
    return (rest->kind == DTP_SET_REMOVE && addition->kind == DTP_SET_ADD)
        || (rest->kind == DTP_VALUES_REMOVE && addition->kind == DTP_VALUES_PUT);
}

/* Return whether a later edit of the same text or list may tell what this one of the other side does. */
static int has_later_edit(const side *s, const dtp_op *op, const side *other)
{
    size_t i;
    for (i = other->p->count; i > 0 && other->p->ops[i - 1].clock > op->clock; i--) {
        const dtp_op *one = &other->p->ops[i - 1];
        if (one->kind == op->kind && same_name(s, op->soul, other, one->soul) && same_name(s, op->key, other, one->key))
            return 1;
    }
    return 0;
}

/* Of what one side alone tells: whether the other may have left it out. */
static int may_be_missing(const side *s, const dtp_op *op, const side *other)
{
    if (!other->told->is_summary || is_ruled(s, op))
        return 0;
    if (dtp_is_edit(op))
        return has_later_edit(s, op, other);
    return is_void(op) || next_common(s, op, 0) == op->dots;
}

static int can_both_be(const side *a, const dtp_op *x, const side *b, const dtp_op *y)
{
    if (!same_name(a, x->soul, b, y->soul) || !same_name(a, x->key, b, y->key) || !same_dots(a, x, b, y))
        return 0;
    if (x->kind == y->kind && dtp_is_edit(x) && !is_ruled(a, x))
        return 1; /* one may tell of more: whoever asks compares operations */
    if (x->kind == y->kind)
        return same_value(a, x, b, y);
    if (is_ruled(a, x))
        return 0;
    return (a->told->is_summary && is_rest_of(x, y)) || (b->told->is_summary && is_rest_of(y, x));
}

static size_t first_above(const dtp_parsed *p, uint64_t clock)
{
    size_t low = 0, high = p->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->ops[middle].clock <= clock)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Of the ops with clocks above `low`, up to `high`, which both tell of. */
static int same_ops(const side *a, const side *b, uint64_t low, uint64_t high)
{
    size_t i = first_above(a->p, low), j = first_above(b->p, low);
    for (;;) {
        const dtp_op *x = i < a->p->count && a->p->ops[i].clock <= high ? &a->p->ops[i] : NULL;
        const dtp_op *y = j < b->p->count && b->p->ops[j].clock <= high ? &b->p->ops[j] : NULL;
        if (x == NULL && y == NULL)
            return 1;
        if (y == NULL || (x != NULL && x->clock < y->clock)) {
            if (!may_be_missing(a, x, b))
                return 0;
            i++;
        } else if (x == NULL || y->clock < x->clock) {
            if (!may_be_missing(b, y, a))
                return 0;
            j++;
        } else {
            if (!can_both_be(a, x, b, y))
                return 0;
            i++;
            j++;
        }
    }
}

static int order(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* Each frame has an op at least, and begins at the clock at which the one before it ended. */
static int follows(const dtp_told *earlier, const dtp_told *later)
{
    return later->first - earlier->sequence == 1 ? later->after == earlier->last : later->after > earlier->last;
}

int dtp_account_agrees(dtp_account *account, const dtp_told *other, size_t *place)
{
    dtp_told told = *other;
    const dtp_told *ours = &account->told;
    side a = {ours, &account->first, &account->author, account->author.id, 0};
    side b = {&told, &account->second, &account->author, account->author.id, 0};
    int code;
    *place = 0;
    code = read_told(&account->second, &told, place);
    if (code != DTP_OK)
        return code;
    if (told.first > ours->sequence)
        return follows(ours, &told);
    if (ours->first > told.sequence)
        return follows(&told, ours);
    if (order(told.first, ours->first) != order(told.after, ours->after)
        || order(told.sequence, ours->sequence) != order(told.last, ours->last))
        return 0;
    a.common = b.common = told.after < ours->after ? told.after : ours->after;
    return same_ops(&a, &b, told.after > ours->after ? told.after : ours->after,
                    told.last < ours->last ? told.last : ours->last);
}
