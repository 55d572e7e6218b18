/* rich/carry.c - text that was deleted here and comes back is marked as it was: what own deletions took away is noted, and
 * made again over the new characters by marks that are undone as the old ones are. */
#include "crdt_text_internal.h"

enum {
    CARRIED = 1 << 20,     /* comparisons, before text that comes back keeps what it got from around it */
    SHOWN = 1 << 16,       /* pieces of marked text that are noted, */
    SHOWN_BYTES = 16 << 20 /* and bytes of their values; of what was deleted before nothing is known */
};

static const uint8_t NIL = 0xc0;

/* ---- what deleted text showed ----------------------------------------------------------------------------------- */

/* Forget the older half, or all. */
static void forget_shown(rich *r, size_t keep)
{
    size_t drop = r->shown_count - keep, from = keep > 0 ? r->shown[drop].value : r->shown_values.size, i;
    r->shown_since = r->shown[r->shown_count - 1].when + 1;
    if (keep > 0) {
        r->shown_since = r->shown[drop - 1].when + 1;
        memmove(r->shown, r->shown + drop, keep * sizeof *r->shown);
        memmove(r->shown_values.data, r->shown_values.data + from, r->shown_values.size - from);
    }
    r->shown_values.size -= from;
    r->shown_count = keep;
    for (i = 0; i < keep; i++)
        r->shown[i].value -= from;
}

static int note_piece(dtp_text *t, uint32_t when, id first, const rich_piece *one, uint32_t off)
{
    rich *r = t->rich;
    const rich_mark *m = &r->marks[one->mark];
    const uint8_t *value;
    size_t size = rich_value(t, one->mark, &value);
    rich_shown *s;
    int code;
    while (r->shown_count > 0 && (r->shown_count >= SHOWN || r->shown_values.size + size > SHOWN_BYTES))
        forget_shown(r, r->shown_count / 2);
    code = text_grow(t, &r->shown, &r->shown_room, r->shown_count + 1, sizeof *r->shown);
    if (code == DTP_TEXT_OK)
        code = bytes_reserve(t, &r->shown_values, size);
    if (code != DTP_TEXT_OK)
        return code;
    s = &r->shown[r->shown_count++];
    s->when = when;
    s->first = make_id(first.agent, first.seq + (uint32_t)one->from.low - off);
    s->len = (uint32_t)(one->to.low - one->from.low);
    s->name = one->name;
    s->root = m->root;
    s->at = m->at;
    s->stamp = m->stamp;
    s->value = r->shown_values.size;
    s->size = size;
    memcpy(r->shown_values.data + s->value, value, size);
    r->shown_values.size += size;
    return DTP_TEXT_OK;
}

void rich_deleting(dtp_text *t, uint32_t when, const place *p, uint32_t len)
{
    rich *r = t->rich;
    id first = span_id(at_place(p), p->off);
    size_t i;
    int code;
    if (r == NULL || r->count == 0)
        return;
    code = rich_over_span(t, p, len);
    for (i = 0; i < r->found_count && code == DTP_TEXT_OK; i++)
        code = note_piece(t, when, first, &r->found[i], p->off);
    if (code != DTP_TEXT_OK)
        r->shown_since = when + 1; /* no memory: nothing is known of it */
}

/* ---- carrying it over ------------------------------------------------------------------------------------------- */

/* Return whether characters [low, high) have this value of a name all over, and by marks that are undone alike; nil: whether none
 * has another one. `root`: of the mark that gave the value, NOBODY where there was none. Only own marks are ever undone; with
 * `own` it was one, maybe one that gives back a mark of others, and only its like will do. */
static int has_value(dtp_text *t, uint32_t low, uint32_t high, uint32_t name, const uint8_t *value, size_t size, id root,
                     int own)
{
    rich *r = t->rich;
    size_t i;
    int may_miss = size == 1 && *value == NIL && root.agent != 0 && !own;
    if (rich_over(t, low, high, name) != DTP_TEXT_OK)
        return 1;
    for (i = 0; i < r->found_count; i++) {
        const uint8_t *other;
        size_t other_size = rich_value(t, r->found[i].mark, &other);
        id found = r->marks[r->found[i].mark].root;
        if (other_size != size || memcmp(other, value, size) != 0)
            return 0;
        if (root.agent != NOBODY && !same_id(found, root) && (own || root.agent == 0 || found.agent == 0))
            return 0;
        if (!may_miss && r->found[i].from.low > low)
            return 0;
        low = (uint32_t)r->found[i].to.low;
    }
    return may_miss || low >= high;
}

/* What marks characters, in positions of the text. */
typedef struct carried {
    uint32_t low;
    uint32_t high;
    uint32_t name;
    uint32_t mark; /* of one that is there, else ... */
    size_t shown;  /* ... 1 + what is noted */
} carried;

typedef struct carry {
    carried *items;
    size_t count;
    size_t room;
} carry;

/* Add what was found, `shift` characters further on; with `others` only marks of others. */
static int gather(dtp_text *t, carry *all, uint32_t shift, int others)
{
    rich *r = t->rich;
    size_t i;
    int code = text_grow(t, &all->items, &all->room, all->count + r->found_count, sizeof *all->items);
    for (i = 0; i < r->found_count && code == DTP_TEXT_OK; i++) {
        carried *one = &all->items[all->count];
        if (others && r->marks[r->found[i].mark].at.agent == 0)
            continue;
        one->low = (uint32_t)r->found[i].from.low + shift;
        one->high = (uint32_t)r->found[i].to.low + shift;
        one->mark = r->found[i].mark;
        one->name = r->found[i].name;
        one->shown = 0;
        all->count++;
    }
    return code;
}

/* What the deleted characters from `x` on showed when they were deleted, by own operation `when` and later ones, as if they were
 * those at `position`. */
static int gather_shown(dtp_text *t, carry *all, id x, uint32_t len, uint32_t position, uint32_t when)
{
    const rich *r = t->rich;
    size_t low = 0, high = r->shown_count;
    int code = DTP_TEXT_OK;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->shown[middle].when < when)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < r->shown_count && code == DTP_TEXT_OK; low++) {
        const rich_shown *s = &r->shown[low];
        carried one = {0, 0, 0, 0, 0};
        if (s->first.agent != x.agent || s->first.seq < x.seq || s->first.seq >= x.seq + len)
            break; /* of another deletion */
        one.low = position + (s->first.seq - x.seq);
        one.high = one.low + s->len;
        one.name = s->name;
        one.shown = low + 1;
        code = text_grow(t, &all->items, &all->room, all->count + 1, sizeof *all->items);
        if (code == DTP_TEXT_OK)
            all->items[all->count++] = one;
    }
    return code;
}

/* What marks the deleted characters now, as if they were those at `position`. */
static int gather_deleted(dtp_text *t, carry *all, id x, uint32_t len, uint32_t position, int others)
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
            code = gather(t, all, position + (x.seq - first) - p.off, others);
    }
    return code;
}

static int carry_value(dtp_text *t, uint32_t low, uint32_t high, uint32_t name, const uint8_t *value, size_t size, id root,
                       int own)
{
    rich_cell c;
    if (low >= high || has_value(t, low, high, name, value, size, root, own))
        return DTP_TEXT_OK;
    memset(&c, 0, sizeof c);
    c.sides = RICH_END_AFTER;
    c.value = value;
    c.value_size = size;
    c.name = rich_name_at(t, name, &c.name_size);
    return rich_make(t, NULL, low, high, &c, 0, root);
}

/* Have the new characters from `low` to `high` marked as this says. */
static int carry_over(dtp_text *t, const carried *one, uint32_t low, uint32_t high)
{
    const rich *r = t->rich;
    const rich_shown *s = one->shown == 0 ? NULL : &r->shown[one->shown - 1];
    const uint8_t *value;
    size_t size;
    if (s != NULL)
        return carry_value(t, low, high, one->name, r->shown_values.data + s->value, s->size, s->root, s->at.agent == 0);
    size = rich_value(t, one->mark, &value);
    return carry_value(t, low, high, one->name, value, size, r->marks[one->mark].root, 0);
}

/* Return whether a mark that is there is later than what was shown. */
static int is_newer(const dtp_text *t, const carried *mark, const carried *shown)
{
    const rich_mark *m = &t->rich->marks[mark->mark];
    const rich_shown *s = &t->rich->shown[shown->shown - 1];
    if (m->stamp != s->stamp)
        return m->stamp > s->stamp;
    return m->at.agent != s->at.agent ? agent_before(t, s->at.agent, m->at.agent) : m->at.seq > s->at.seq;
}

/* Carry over a mark of others, but where something later was shown. The first `count` of `all` were shown. */
static int carry_newer(dtp_text *t, const carried *one, const carry *all, size_t count)
{
    uint32_t low = one->low;
    size_t i;
    int code = DTP_TEXT_OK;
    for (i = 0; i < count && code == DTP_TEXT_OK; i++) {
        const carried *s = &all->items[i];
        if (s->name != one->name || s->high <= low || s->low >= one->high || is_newer(t, one, s))
            continue;
        code = carry_over(t, one, low, s->low);
        low = s->high;
    }
    return code == DTP_TEXT_OK ? carry_over(t, one, low, one->high) : code;
}

/* Take away what marks new characters where the old ones had nothing of that name. */
static int carry_away(dtp_text *t, const carried *one, const carry *wanted)
{
    const id none = make_id(NOBODY, 0);
    uint32_t low = one->low;
    size_t i;
    int code = DTP_TEXT_OK;
    for (i = 0; i < wanted->count && code == DTP_TEXT_OK; i++) {
        const carried *w = &wanted->items[i];
        if (w->name != one->name || w->high <= low || w->low >= one->high)
            continue;
        code = carry_value(t, low, w->low, one->name, &NIL, 1, none, 0);
        low = w->high;
    }
    return code == DTP_TEXT_OK ? carry_value(t, low, one->high, one->name, &NIL, 1, none, 0) : code;
}

int rich_carry(dtp_text *t, id first, uint32_t len, uint32_t position, uint32_t when)
{
    carry wanted = {NULL, 0, 0}, held = {NULL, 0, 0};
    size_t i, shown;
    int code, noted;
    if (t->rich == NULL)
        return DTP_TEXT_OK;
    noted = when >= t->rich->shown_since;
    code = noted ? gather_shown(t, &wanted, first, len, position, when) : DTP_TEXT_OK;
    shown = wanted.count;
    if (code == DTP_TEXT_OK)
        code = gather_deleted(t, &wanted, first, len, position, noted);
    if (code == DTP_TEXT_OK)
        code = rich_over(t, position, position + len, ANY_NAME);
    if (code == DTP_TEXT_OK)
        code = gather(t, &held, 0, 0);
    for (i = 0; i < held.count && wanted.count <= CARRIED / held.count && code == DTP_TEXT_OK; i++)
        code = carry_away(t, &held.items[i], &wanted);
    for (i = 0; i < wanted.count && code == DTP_TEXT_OK; i++)
        code = i < shown ? carry_over(t, &wanted.items[i], wanted.items[i].low, wanted.items[i].high)
                         : carry_newer(t, &wanted.items[i], &wanted, shown);
    text_give(t, wanted.items, wanted.room * sizeof *wanted.items);
    text_give(t, held.items, held.room * sizeof *held.items);
    return code;
}
