/* rich/read.c - marks for those who show them: what is over a range, and what changed. */
#include "crdt_text_internal.h"

enum { FORMATS = 1 << 20 /* pieces that changed, before all are told instead */ };

/* ---- what changed ---------------------------------------------------------------------------------------------- */

void rich_touch(dtp_text *t, id first, uint32_t len)
{
    rich *r = t->rich;
    if (r == NULL || r->count == 0 || r->whole)
        return; /* marks that come later tell of themselves */
    if (text_grow(t, &r->touched, &r->touched_room, r->touched_count + 1, sizeof *r->touched) != DTP_TEXT_OK) {
        r->whole = 1;
        return;
    }
    r->touched[r->touched_count].first = first;
    r->touched[r->touched_count++].len = len;
}

void rich_clear(dtp_text *t)
{
    rich *r = t->rich;
    if (r == NULL)
        return;
    r->first_new = r->count;
    r->touched_count = 0;
    r->late = r->whole = 0;
}

void rich_replace(dtp_text *t, const dtp_text *old)
{
    size_t i;
    if ((t->rich == NULL && old->rich == NULL) || rich_ready(t) != DTP_TEXT_OK)
        return;
    for (i = 0; old->rich != NULL && i < old->rich->name_count; i++) {
        size_t size;
        const uint8_t *name = rich_name_at(old, (uint32_t)i, &size);
        if (rich_name_intern(t, name, size) < 0)
            break; /* no memory: the program is not told that this one is gone */
    }
    t->rich->whole = 1;
}

/* ---- telling --------------------------------------------------------------------------------------------------- */

typedef struct told {
    uint32_t *pieces; /* three numbers each */
    size_t count;
    size_t room;
} told;

static int tell(dtp_text *t, told *all, uint32_t start, uint32_t end, uint32_t mark)
{
    uint32_t *at;
    if (start >= end)
        return DTP_TEXT_OK;
    if (text_grow(t, &all->pieces, &all->room, 3 * (all->count + 1), sizeof *all->pieces) != DTP_TEXT_OK)
        return DTP_TEXT_MEMORY;
    at = all->pieces + 3 * all->count++;
    at[0] = start;
    at[1] = end;
    at[2] = mark;
    return DTP_TEXT_OK;
}

/* Return whether a mark takes a name away. */
static int is_nil(dtp_text *t, uint32_t mark)
{
    const uint8_t *value;
    return rich_value(t, mark, &value) == 1 && *value == 0xc0;
}

static int tell_over(dtp_text *t, told *all, uint32_t start, uint32_t end)
{
    rich *r = t->rich;
    size_t i;
    int code = r == NULL ? DTP_TEXT_OK : rich_over(t, start, end, ANY_NAME);
    for (i = 0; r != NULL && i < r->found_count && code == DTP_TEXT_OK; i++)
        if (!is_nil(t, r->found[i].mark))
            code = tell(t, all, (uint32_t)r->found[i].from.low, (uint32_t)r->found[i].to.low, r->found[i].mark);
    return code;
}

/* Where new marks hold. One that is older than others that were here may hold only in part of its level. */
static int tell_new(dtp_text *t, told *all)
{
    rich *r = t->rich;
    size_t i, k;
    int code = r->late ? rich_fold(t) : rich_settle(t);
    if (r->first_new == r->count)
        return code;
    for (i = 0; i < r->level_count && code == DTP_TEXT_OK; i++) {
        const rich_level *l = &r->levels[i];
        for (k = 0; l->newest >= r->first_new && k < l->count && code == DTP_TEXT_OK; k++)
            if (l->items[k].mark >= r->first_new)
                code = tell(t, all, rich_rank(t, l->items[k].start), rich_rank(t, l->items[k].end), l->items[k].mark);
    }
    return code;
}

static int tell_touched(dtp_text *t, told *all)
{
    const rich *r = t->rich;
    size_t i;
    int code = DTP_TEXT_OK;
    for (i = 0; i < r->touched_count && all->count < FORMATS && code == DTP_TEXT_OK; i++) {
        id x = r->touched[i].first;
        uint32_t end = x.seq + r->touched[i].len, some;
        place p;
        for (; x.seq < end && code == DTP_TEXT_OK; x.seq += some) {
            if (!locate(t, x, &p)) {
                some = index_next(t, x) - x.seq;
                continue;
            }
            some = at_place(&p)->len - p.off < end - x.seq ? at_place(&p)->len - p.off : end - x.seq;
            if ((at_place(&p)->who & DEAD) == 0) {
                uint32_t rank = tree_rank(t, &p);
                code = tell_over(t, all, rank, rank + some);
            }
        }
    }
    return code;
}

static int put_number(dtp_text *t, uint32_t number)
{
    int code = bytes_reserve(t, &t->out, sizeof number);
    if (code != DTP_TEXT_OK)
        return code;
    memcpy(t->out.data + t->out.size, &number, sizeof number);
    t->out.size += sizeof number;
    return DTP_TEXT_OK;
}

static int put_data(dtp_text *t, const uint8_t *data, size_t size)
{
    int code = bytes_reserve(t, &t->out, size);
    if (code != DTP_TEXT_OK || size == 0)
        return code;
    memcpy(t->out.data + t->out.size, data, size);
    t->out.size += size;
    return DTP_TEXT_OK;
}

/* A mark's name and value. */
static int put_mark(dtp_text *t, uint32_t mark)
{
    const uint8_t *value, *name;
    size_t size = rich_value(t, mark, &value), name_size;
    int code;
    name = rich_name_at(t, t->rich->marks[mark].name, &name_size);
    code = put_number(t, (uint32_t)name_size);
    if (code == DTP_TEXT_OK)
        code = put_number(t, (uint32_t)size);
    if (code == DTP_TEXT_OK)
        code = put_data(t, name, name_size);
    return code == DTP_TEXT_OK ? put_data(t, value, size) : code;
}

/* All names that there ever were. */
static int put_names(dtp_text *t)
{
    size_t i, size;
    int code = DTP_TEXT_OK;
    for (i = 0; i < t->rich->name_count && code == DTP_TEXT_OK; i++) {
        const uint8_t *name = rich_name_at(t, (uint32_t)i, &size);
        code = put_number(t, (uint32_t)size);
        if (code == DTP_TEXT_OK)
            code = put_data(t, name, size);
    }
    return code;
}

/* Write it as dtp_text_marked has it. */
static int write(dtp_text *t, told *all, int whole)
{
    uint32_t *shown = NULL;
    size_t count = 0, i;
    int code = put_number(t, (uint32_t)whole);
    if (code == DTP_TEXT_OK)
        code = put_number(t, (uint32_t)all->count);
    if (all->count > 0 && code == DTP_TEXT_OK) {
        shown = text_take(t, all->count * sizeof *shown);
        code = shown == NULL ? DTP_TEXT_MEMORY : DTP_TEXT_OK;
    }
    for (i = 0; i < all->count && code == DTP_TEXT_OK; i++)
        t->rich->marks[all->pieces[3 * i + 2]].scratch = 0;
    for (i = 0; i < all->count && code == DTP_TEXT_OK; i++) {
        rich_mark *m = &t->rich->marks[all->pieces[3 * i + 2]];
        if (m->scratch == 0) {
            shown[count++] = all->pieces[3 * i + 2];
            m->scratch = (uint32_t)count;
        }
        all->pieces[3 * i + 2] = m->scratch - 1;
    }
    if (code == DTP_TEXT_OK)
        code = put_number(t, (uint32_t)count);
    if (code == DTP_TEXT_OK)
        code = put_number(t, whole ? (uint32_t)t->rich->name_count : 0);
    if (code == DTP_TEXT_OK)
        code = put_data(t, (const uint8_t *)all->pieces, 3 * all->count * sizeof *all->pieces);
    for (i = 0; i < count && code == DTP_TEXT_OK; i++)
        code = put_mark(t, shown[i]);
    text_give(t, shown, all->count * sizeof *shown);
    return code == DTP_TEXT_OK && whole ? put_names(t) : code;
}

static int64_t finish(dtp_text *t, told *all, int code, int whole, const uint8_t **out)
{
    t->out.size = 0;
    if (code == DTP_TEXT_OK)
        code = write(t, all, whole);
    text_give(t, all->pieces, all->room * sizeof *all->pieces);
    *out = t->out.data;
    text_leave(t);
    return code < 0 ? code : (int64_t)t->out.size;
}

int64_t dtp_text_marked(dtp_text *t, uint64_t start, uint64_t end, const uint8_t **out)
{
    told all = {NULL, 0, 0};
    int code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    if (t->is_list || start > end || end > t->state.length) {
        text_leave(t);
        return DTP_TEXT_RANGE;
    }
    code = tell_over(t, &all, (uint32_t)start, (uint32_t)end);
    return finish(t, &all, code, 0, out);
}

int64_t dtp_text_formats(dtp_text *t, const uint8_t **out)
{
    told all = {NULL, 0, 0};
    rich *r = t->rich;
    int code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    if (r == NULL)
        return finish(t, &all, DTP_TEXT_OK, 0, out);
    code = rich_settle(t);
    if (!r->whole && code == DTP_TEXT_OK)
        code = tell_touched(t, &all);
    if (!r->whole && code == DTP_TEXT_OK)
        code = tell_new(t, &all);
    r->whole |= all.count >= FORMATS;
    if (r->whole && code == DTP_TEXT_OK) {
        all.count = 0;
        code = tell_over(t, &all, 0, (uint32_t)t->state.length);
    }
    return finish(t, &all, code, r->whole, out);
}

#define PROMISE(condition)     \
    do {                       \
        if (!(condition))      \
            return __LINE__;   \
    } while (0)

int rich_check(dtp_text *t)
{
    rich *r = t->rich;
    size_t held = 0, i, k;
    const leaf *l;
    place p;
    PROMISE(rich_settle(t) == DTP_TEXT_OK && (r == NULL || r->indexed == r->count));
    for (l = t->first; !t->is_list && l != NULL; l = l->next)
        for (i = 0; i < l->head.count; i++) {
            PROMISE(((l->spans[i].who & MARKER) != 0) == ((l->spans[i].who & HIDDEN) != 0));
            held += (l->spans[i].who & MARKER) != 0;
        }
    if (r == NULL)
        return held == 0 ? DTP_TEXT_OK : __LINE__;
    PROMISE(held == r->count);
    for (i = 0; i < r->count; i++) {
        point k1, k2;
        PROMISE(locate(t, r->marks[i].at, &p) && (at_place(&p)->who & MARKER) != 0);
        PROMISE(rich_point(t, r->marks[i].start, &k1) && rich_point(t, r->marks[i].end, &k2));
    }
    for (i = 0; i < r->level_count; i++)
        for (k = 0; k < r->levels[i].count; k++) {
            const rich_stretch *s = &r->levels[i].items[k];
            point from, to, next;
            PROMISE(s->mark < r->count && s->mark <= r->levels[i].newest);
            PROMISE(rich_point(t, s->start, &from) && rich_point(t, s->end, &to));
            PROMISE(from.high < to.high || (from.high == to.high && from.low < to.low));
            PROMISE(k + 1 == r->levels[i].count
                    || (rich_point(t, s[1].start, &next)
                        && (from.high < next.high || (from.high == next.high && from.low <= next.low))));
        }
    return DTP_TEXT_OK;
}
