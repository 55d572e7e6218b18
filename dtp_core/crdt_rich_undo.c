/* crdt_rich_undo.c - marking and unmarking again: what a mark replaced, and what deleted text that comes back was marked with.
 * As all undoing it makes new marks, and only where the old one still holds. */
#include "crdt_text_internal.h"

enum { CARRIED = 1 << 20 /* comparisons, before text that comes back keeps what it got from around it */ };

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

/* Give characters [low, high) back what they had: the values of `data`, and nothing between them. */
static int put_back(dtp_text *t, history *to, rich_cell *c, const uint8_t *data, size_t size, uint32_t low, uint32_t high)
{
    size_t at = 0;
    int code = DTP_TEXT_OK;
    unsigned sides = c->sides;
    while (low < high && code == DTP_TEXT_OK) {
        uint32_t first = high, last = high;
        replaced old;
        rich_cell one = *c;
        id root = make_id(NOBODY, 0);
        one.sides = sides;
        one.value = &NIL;
        one.value_size = 1;
        if (at < size) {
            memcpy(&old, data + at, sizeof old);
            range_of(t, old.first, old.last, &first, &last);
            if (last <= low || first >= last) {
                at += sizeof old + old.size;
                continue;
            }
            if (first <= low) {
                one.value = data + at + sizeof old;
                one.value_size = old.size;
                root = old.root;
                at += sizeof old + old.size;
                first = last;
            }
        }
        first = first < high ? first : high;
        code = rich_make(t, to, low, first, &one, 0, root);
        low = first;
    }
    return code;
}

/* The visible characters that a mark is over now: if it was deleted, those of then. */
static void range_now(dtp_text *t, id x, const made *what, uint32_t *low, uint32_t *high)
{
    const rich *r = t->rich;
    size_t i = r->count;
    while (i > 0 && !same_id(r->marks[i - 1].at, x))
        i--;
    range_of(t, what->first, what->last, low, high);
    if (i > 0) {
        *low = rich_rank(t, r->marks[i - 1].start);
        *high = rich_rank(t, r->marks[i - 1].end);
    }
}

int rich_undo(dtp_text *t, history *to, id x, const uint8_t *data, size_t size)
{
    rich *r = t->rich;
    size_t k, count;
    uint32_t *ranges, low, high;
    rich_cell c;
    made what;
    int code = rich_settle(t);
    memcpy(&what, data, sizeof what);
    if (code != DTP_TEXT_OK || what.name >= r->name_count)
        return code;
    range_now(t, x, &what, &low, &high);
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
        code = put_back(t, to, &c, data + sizeof what, size - sizeof what, ranges[2 * k], ranges[2 * k + 1]);
    text_give(t, ranges, 2 * count * sizeof *ranges);
    return code;
}

/* Whether characters [low, high) have this value of a name all over; nil: whether some have another one. */
static int has_value(dtp_text *t, uint32_t low, uint32_t high, uint32_t name, const uint8_t *value, size_t size)
{
    rich *r = t->rich;
    size_t i;
    int nil = size == 1 && *value == NIL;
    if (rich_over(t, low, high, name) != DTP_TEXT_OK)
        return 1;
    for (i = 0; i < r->found_count; i++) {
        const uint8_t *other;
        size_t other_size = rich_value(t, r->found[i].mark, &other);
        if (other_size != size || memcmp(other, value, size) != 0)
            return 0;
        if (!nil && r->found[i].from.low > low)
            return 0;
        low = (uint32_t)r->found[i].to.low;
    }
    return nil || low >= high;
}

/* What marks characters, in positions of the text. */
typedef struct carried {
    uint32_t low;
    uint32_t high;
    uint32_t mark;
    uint32_t name;
} carried;

typedef struct carry {
    carried *items;
    size_t count;
    size_t room;
} carry;

/* Add what was found, `shift` characters further on. */
static int gather(dtp_text *t, carry *all, uint32_t shift)
{
    rich *r = t->rich;
    size_t i;
    int code = text_grow(t, &all->items, &all->room, all->count + r->found_count, sizeof *all->items);
    for (i = 0; i < r->found_count && code == DTP_TEXT_OK; i++) {
        carried *one = &all->items[all->count++];
        one->low = (uint32_t)r->found[i].from.low + shift;
        one->high = (uint32_t)r->found[i].to.low + shift;
        one->mark = r->found[i].mark;
        one->name = r->found[i].name;
    }
    return code;
}

/* What marks the deleted characters, as if they were those at `position`. */
static int gather_deleted(dtp_text *t, carry *all, id x, uint32_t len, uint32_t position)
{
    uint32_t first = x.seq, end = x.seq + len, some;
    place p;
    int code = DTP_TEXT_OK;
    for (; x.seq < end && code == DTP_TEXT_OK; x.seq += some) {
        if (!locate(t, x, &p)) {
            some = index_next(t, x) - x.seq;
            continue;
        }
        some = at_place(&p)->len - p.off < end - x.seq ? at_place(&p)->len - p.off : end - x.seq;
        code = rich_over_span(t, &p, some);
        if (code == DTP_TEXT_OK)
            code = gather(t, all, position + (x.seq - first) - p.off);
    }
    return code;
}

static int carry_value(dtp_text *t, uint32_t low, uint32_t high, uint32_t name, const uint8_t *value, size_t size)
{
    rich_cell c;
    if (low >= high || has_value(t, low, high, name, value, size))
        return DTP_TEXT_OK;
    memset(&c, 0, sizeof c);
    c.sides = RICH_END_AFTER;
    c.value = value;
    c.value_size = size;
    c.name = rich_name_at(t, name, &c.name_size);
    return rich_make(t, NULL, low, high, &c, 0, make_id(NOBODY, 0));
}

/* Take away what marks new characters where the old ones had nothing of that name. */
static int carry_away(dtp_text *t, const carried *one, const carry *wanted)
{
    uint32_t low = one->low;
    size_t i;
    int code = DTP_TEXT_OK;
    for (i = 0; i < wanted->count && code == DTP_TEXT_OK; i++) {
        const carried *w = &wanted->items[i];
        if (w->name != one->name || w->high <= low || w->low >= one->high)
            continue;
        code = carry_value(t, low, w->low, one->name, &NIL, 1);
        low = w->high;
    }
    return code == DTP_TEXT_OK ? carry_value(t, low, one->high, one->name, &NIL, 1) : code;
}

int rich_carry(dtp_text *t, id first, uint32_t len, uint32_t position)
{
    carry wanted = {NULL, 0, 0}, held = {NULL, 0, 0};
    size_t i;
    place p;
    int code;
    if (t->rich == NULL || !locate(t, first, &p))
        return DTP_TEXT_OK; /* what is compacted away comes back as what is around it */
    code = gather_deleted(t, &wanted, first, len, position);
    if (code == DTP_TEXT_OK)
        code = rich_over(t, position, position + len, ANY_NAME);
    if (code == DTP_TEXT_OK)
        code = gather(t, &held, 0);
    for (i = 0; i < held.count && wanted.count <= CARRIED / held.count && code == DTP_TEXT_OK; i++)
        code = carry_away(t, &held.items[i], &wanted);
    for (i = 0; i < wanted.count && code == DTP_TEXT_OK; i++) {
        const uint8_t *value;
        size_t size = rich_value(t, wanted.items[i].mark, &value);
        code = carry_value(t, wanted.items[i].low, wanted.items[i].high, wanted.items[i].name, value, size);
    }
    text_give(t, wanted.items, wanted.room * sizeof *wanted.items);
    text_give(t, held.items, held.room * sizeof *held.items);
    return code;
}
