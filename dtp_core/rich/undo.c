/* rich/undo.c - marking and unmarking again: what a mark replaced comes back. As all undoing it makes new marks, and only
 * where the old one still holds. */
#include "crdt_text_internal.h"

static const uint8_t NIL = 0xc0;

/* An own mark, as it is kept to be undone; behind it what it replaced. */
typedef struct made {
    id root;
    id first; /* the characters from here ... */
    id last;  /* ... to here */
    uint32_t name;
    uint32_t sides;
} made;

/* One thing that a mark replaced; the value stands behind it. Nothing between them was marked. */
typedef struct replaced {
    id root; /* of the mark */
    id first; /* the characters from here ... */
    id last;  /* ... to here */
    size_t size;
} replaced;

/* Into `h`, but not yet counted: *size bytes. */
static int note_replaced(dtp_text *t, history *h, const rich_cell *c, uint32_t start, uint32_t end, id root, size_t *size)
{
    rich *r = t->rich;
    size_t i, before = h->text.size;
    int64_t name = rich_name_intern(t, c->name, c->name_size);
    made new;
    int code = name < 0 ? (int)name : rich_over(t, start, end, (uint32_t)name);
    if (code == DTP_TEXT_OK)
        code = bytes_reserve(t, &h->text, sizeof new);
    if (code != DTP_TEXT_OK)
        return code;
    memset(&new, 0, sizeof new);
    new.root = root;
    new.first = rich_visible(t, start);
    new.last = rich_visible(t, end - 1);
    new.name = (uint32_t)name;
    new.sides = c->sides & (RICH_START_AFTER | RICH_END_AFTER);
    memcpy(h->text.data + h->text.size, &new, sizeof new);
    h->text.size += sizeof new;
    for (i = 0; i < r->found_count && code == DTP_TEXT_OK; i++) {
        const rich_piece *one = &r->found[i];
        replaced old;
        const uint8_t *value;
        memset(&old, 0, sizeof old);
        old.root = r->marks[one->mark].root;
        old.size = rich_value(t, one->mark, &value);
        old.first = rich_visible(t, (uint32_t)one->from.low);
        old.last = rich_visible(t, (uint32_t)one->to.low - 1);
        code = bytes_reserve(t, &h->text, sizeof old + old.size);
        if (code != DTP_TEXT_OK)
            break;
        memcpy(h->text.data + h->text.size, &old, sizeof old);
        memcpy(h->text.data + h->text.size + sizeof old, value, old.size);
        h->text.size += sizeof old + old.size;
    }
    *size = h->text.size - before;
    h->text.size = before;
    return code == DTP_TEXT_OK ? history_reserve(t, h, 1, *size) : code;
}

int rich_make(dtp_text *t, history *h, uint32_t start, uint32_t end, rich_cell *c, uint64_t now, id root)
{
    uint32_t seq = t->agents[0].next;
    size_t size = 0;
    int code;
    if (root.agent == NOBODY)
        root = make_id(0, seq);
    code = h == NULL ? DTP_TEXT_OK : note_replaced(t, h, c, start, end, root, &size);
    if (code == DTP_TEXT_OK)
        code = rich_mark_here(t, start, end, c, now);
    if (code == DTP_TEXT_OK)
        t->rich->marks[t->rich->count - 1].root = root;
    if (code == DTP_TEXT_OK && h != NULL)
        note_marked(h, make_id(0, seq), size);
    return code;
}

/* The visible characters from `first` to `last`, as they are now; of those that are compacted away nothing is known. */
static void range_of(dtp_text *t, id first, id last, uint32_t *low, uint32_t *high)
{
    place p;
    *low = *high = 0;
    if (locate(t, first, &p))
        *low = tree_rank(t, &p);
    if (locate(t, last, &p))
        *high = tree_rank(t, &p) + ((at_place(&p)->who & DEAD) == 0);
}

/* What some visible characters are given back: what was replaced, by its place in the data, NOTHING, or KEPT: they stay. */
typedef struct gift {
    uint32_t low;
    uint32_t high;
    size_t what;
} gift;

typedef struct gifts {
    gift *items;
    size_t count;
    size_t room;
} gifts;

/* A mark that is undone: where it is, and what it replaced. */
typedef struct undone {
    id start;
    id end;
    point from; /* of both, until the next mark is made */
    point to;
    const uint8_t *data;
    size_t size;
    size_t at; /* so much of the data is passed */
} undone;

static const size_t NOTHING = SIZE_MAX, KEPT = SIZE_MAX - 1;

/* The place of what an anchor's character stands for; 0 if it is compacted away. */
static int origin_point(dtp_text *t, id anchor, point *k)
{
    uint32_t one = 1, after = anchor.agent & RICH_AFTER;
    id x = text_origin(t, make_id(anchor.agent & AGENT_MASK, anchor.seq), &one);
    x.agent |= after;
    return rich_point(t, x, k);
}

static id behind(id x)
{
    return make_id(x.agent | RICH_AFTER, x.seq);
}

static int is_before(const point *x, const point *y)
{
    return x->high != y->high ? x->high < y->high : x->low < y->low;
}

/* Of `count` characters from `x` on, which are in order, how many stand before a place. */
static uint32_t count_before(dtp_text *t, id x, uint32_t count, const point *k)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        point at;
        if (rich_point(t, make_id(x.agent, x.seq + middle), &at) && is_before(&at, k))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* What the characters from `x` on are given back; *count becomes how many of them are alike. */
static size_t find_gift(dtp_text *t, undone *u, id x, uint32_t *count)
{
    replaced old;
    point first, last;
    uint32_t before = count_before(t, x, *count, &u->from);
    if (before == 0)
        before = count_before(t, x, *count, &u->to);
    else
        u = NULL;
    if (before == 0)
        return KEPT; /* they are behind it */
    *count = before;
    if (u == NULL)
        return KEPT;
    for (; u->at < u->size; u->at += sizeof old + old.size) {
        memcpy(&old, u->data + u->at, sizeof old);
        if (!origin_point(t, old.first, &first) || !origin_point(t, behind(old.last), &last))
            continue; /* of what is compacted away nothing is known */
        before = count_before(t, x, *count, &first);
        if (before > 0) {
            *count = before;
            return NOTHING;
        }
        before = count_before(t, x, *count, &last);
        if (before > 0) {
            *count = before;
            return u->at;
        }
    }
    return NOTHING;
}

/* What was written between characters that came back gets what those get. */
static int add_gift(dtp_text *t, gifts *all, gift one)
{
    gift *last = all->count > 0 ? &all->items[all->count - 1] : NULL;
    int code;
    if (last != NULL && last->what >= KEPT && one.what < last->what && all->count > 1 && last[-1].what == one.what) {
        last--;
        all->count--;
    }
    if (last != NULL && last->what == one.what) {
        last->high = one.high;
        return DTP_TEXT_OK;
    }
    code = text_grow(t, &all->items, &all->room, all->count + 1, sizeof *all->items);
    if (code == DTP_TEXT_OK)
        all->items[all->count++] = one;
    return code;
}

/* What visible characters [low, high) had. They are looked up by the characters that they stand for, since those that came back
 * stand elsewhere in the order than the ones that were marked. */
static int find_gifts(dtp_text *t, gifts *all, undone u, uint32_t low, uint32_t high)
{
    int code = DTP_TEXT_OK;
    if (!origin_point(t, u.start, &u.from) || !origin_point(t, u.end, &u.to))
        return DTP_TEXT_OK; /* where it was is compacted away */
    while (low < high && code == DTP_TEXT_OK) {
        place p = tree_find(t, low);
        uint32_t left = at_place(&p)->len - p.off, count = left < high - low ? left : high - low;
        id x = text_origin(t, span_id(at_place(&p), p.off), &count);
        gift one = {low, low, find_gift(t, &u, x, &count)};
        low = one.high = low + count;
        code = add_gift(t, all, one);
    }
    return code;
}

/* Give characters [low, high) back what they had, as far as the mark is over them. */
static int put_back(dtp_text *t, history *to, const rich_cell *c, const undone *u, uint32_t low, uint32_t high)
{
    gifts all = {NULL, 0, 0};
    size_t i;
    int code = find_gifts(t, &all, *u, low, high);
    for (i = 0; i < all.count && code == DTP_TEXT_OK; i++) {
        const gift *g = &all.items[i];
        rich_cell one = *c;
        id root = make_id(NOBODY, 0);
        one.value = &NIL;
        one.value_size = 1;
        if (g->what == KEPT)
            continue;
        if (g->what != NOTHING) {
            replaced old;
            memcpy(&old, u->data + g->what, sizeof old);
            one.value = u->data + g->what + sizeof old;
            one.value_size = old.size;
            root = old.root;
        }
        code = rich_make(t, to, g->low, g->high, &one, 0, root);
    }
    text_give(t, all.items, all.room * sizeof *all.items);
    return code;
}

/* Where mark `x` is; if it was deleted, the characters of then. */
static void extent_of(const dtp_text *t, id x, const made *what, undone *u)
{
    const rich *r = t->rich;
    size_t i = r->count;
    u->start = what->first;
    u->end = behind(what->last);
    while (i > 0 && !same_id(r->marks[i - 1].at, x))
        i--;
    if (i > 0) {
        u->start = r->marks[i - 1].start;
        u->end = r->marks[i - 1].end;
    }
}

/* The visible characters that may show a mark: those of then, and those of it and of all marks that give it back, which came
 * after it. */
static void range_now(dtp_text *t, const made *what, uint32_t *low, uint32_t *high)
{
    const rich *r = t->rich;
    size_t i = r->count;
    range_of(t, what->first, what->last, low, high);
    while (i-- > 0) {
        const rich_mark *m = &r->marks[i];
        if (same_id(m->root, what->root)) {
            uint32_t from = rich_rank(t, m->start), to = rich_rank(t, m->end);
            *low = from < *low ? from : *low;
            *high = to > *high ? to : *high;
        }
        if (same_id(m->at, what->root))
            break;
    }
}

int rich_undo(dtp_text *t, history *to, id x, const uint8_t *data, size_t size)
{
    rich *r = t->rich;
    size_t k, count;
    uint32_t *ranges, low, high;
    rich_cell c;
    made what;
    undone u;
    int code = rich_settle(t);
    memcpy(&what, data, sizeof what);
    if (code != DTP_TEXT_OK || what.name >= r->name_count)
        return code;
    memset(&u, 0, sizeof u);
    u.data = data + sizeof what;
    u.size = size - sizeof what;
    extent_of(t, x, &what, &u);
    range_now(t, &what, &low, &high);
    memset(&c, 0, sizeof c);
    c.sides = what.sides;
    c.name = rich_name_at(t, what.name, &c.name_size);
    code = rich_over(t, low, high, what.name);
    for (k = count = 0; k < r->found_count && code == DTP_TEXT_OK; k++)
        if (same_id(r->marks[r->found[k].mark].root, what.root))
            r->found[count++] = r->found[k];
    if (code != DTP_TEXT_OK || count == 0)
        return code;
    ranges = text_take(t, 2 * count * sizeof *ranges); /* what is found changes with each mark */
    if (ranges == NULL)
        return DTP_TEXT_MEMORY;
    for (k = 0; k < count; k++) {
        ranges[2 * k] = (uint32_t)r->found[k].from.low;
        ranges[2 * k + 1] = (uint32_t)r->found[k].to.low;
    }
    for (k = 0; k < count && code == DTP_TEXT_OK; k++)
        code = put_back(t, to, &c, &u, ranges[2 * k], ranges[2 * k + 1]);
    text_give(t, ranges, 2 * count * sizeof *ranges);
    return code;
}
