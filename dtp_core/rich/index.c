/* rich/index.c - which mark holds where. For each name the latest mark over a character holds, so what holds are stretches
 * that don't overlap. They never change by edits of the text, since the order of its characters never does.
 *
 * Stretches are kept in levels, each at most half as long as the one before, sorted by where they start. New marks become a
 * level, together with those that are not much longer; so each mark is sorted anew O(log n) times. In each level the one
 * that ends last of every half, quarter and so on is known, so what is over a place is found without the rest. */
#include "crdt_text_internal.h"

/* ---- places in the order --------------------------------------------------------------------------------------- */

static point place_point(const place *p, int after)
{
    const node *n = &p->leaf->head;
    unsigned shift = 5;
    point k;
    k.high = p->i;
    for (; n->parent != NULL; n = &n->parent->head, shift += 5)
        k.high |= (uint64_t)n->slot << shift;
    k.low = 2 * (uint64_t)p->off + 1 + (after != 0);
    return k;
}

int rich_point(dtp_text *t, id anchor, point *k)
{
    id x = make_id(anchor.agent & AGENT_MASK, anchor.seq);
    int after = (anchor.agent & RICH_AFTER) != 0;
    place p;
    if (x.agent == NOBODY) {
        k->high = after ? 0 : UINT64_MAX;
        k->low = 0;
        return 1;
    }
    if (!locate(t, x, &p))
        return 0;
    *k = place_point(&p, after);
    return 1;
}

uint32_t rich_rank(dtp_text *t, id anchor)
{
    id x = make_id(anchor.agent & AGENT_MASK, anchor.seq);
    int after = (anchor.agent & RICH_AFTER) != 0;
    place p;
    if (x.agent == NOBODY || !locate(t, x, &p))
        return after ? 0 : (uint32_t)t->state.length;
    return tree_rank(t, &p) + (after && (at_place(&p)->who & DEAD) == 0);
}

static int point_before(const point *x, const point *y)
{
    return x->high != y->high ? x->high < y->high : x->low < y->low;
}

/* ---- sorting --------------------------------------------------------------------------------------------------- */

static int by_name(const rich_piece *x, const rich_piece *y)
{
    return x->name != y->name ? x->name < y->name : point_before(&x->from, &y->from);
}

static int by_place(const rich_piece *x, const rich_piece *y)
{
    return point_before(&x->from, &y->from);
}

/* Merge sort, bottom up; what is in order already costs one comparison a run. */
static void sort(rich_piece *items, rich_piece *scratch, size_t count, int (*before)(const rich_piece *, const rich_piece *))
{
    rich_piece *from = items, *to = scratch, *swap;
    size_t width, at;
    for (width = 1; width < count; width *= 2) {
        for (at = 0; at < count; at += 2 * width) {
            size_t middle = at + width < count ? at + width : count;
            size_t end = at + 2 * width < count ? at + 2 * width : count;
            size_t left = at, right = middle, out = at;
            if (right == end || !before(&from[middle], &from[middle - 1])) {
                memcpy(to + at, from + at, (end - at) * sizeof *to);
                continue;
            }
            while (left < middle || right < end) {
                int take_right = left == middle || (right < end && before(&from[right], &from[left]));
                to[out++] = take_right ? from[right++] : from[left++];
            }
        }
        swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
}

/* ---- from overlapping pieces to those that hold ---------------------------------------------------------------- */

typedef struct sweep {
    const dtp_text *t;
    const rich_piece *in;
    uint32_t *heap; /* of pieces that are open, the latest on top */
    size_t open;
    rich_piece *out;
    size_t count;
    point at; /* up to here it is told */
    id anchor;
} sweep;

static int is_later(const dtp_text *t, uint32_t x, uint32_t y)
{
    const rich_mark *a = &t->rich->marks[x], *b = &t->rich->marks[y];
    if (a->stamp != b->stamp)
        return a->stamp > b->stamp;
    if (a->at.agent != b->at.agent)
        return agent_before(t, b->at.agent, a->at.agent);
    return a->at.seq > b->at.seq;
}

static int heap_later(const sweep *s, uint32_t x, uint32_t y)
{
    return is_later(s->t, s->in[x].mark, s->in[y].mark);
}

static void heap_push(sweep *s, uint32_t x)
{
    size_t i = s->open++;
    while (i > 0 && heap_later(s, x, s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = x;
}

static void heap_pop(sweep *s)
{
    uint32_t x = s->heap[--s->open];
    size_t i = 0, child;
    for (; (child = 2 * i + 1) < s->open; i = child) {
        if (child + 1 < s->open && heap_later(s, s->heap[child + 1], s->heap[child]))
            child++;
        if (!heap_later(s, s->heap[child], x))
            break;
        s->heap[i] = s->heap[child];
    }
    s->heap[i] = x;
}

/* The piece on top holds from where it is told to `to`. */
static void tell(sweep *s, const point *to, id end)
{
    rich_piece one = s->in[s->heap[0]];
    rich_piece *last = s->count > 0 ? &s->out[s->count - 1] : NULL;
    if (!point_before(&s->at, to))
        return;
    one.from = s->at;
    one.start = s->anchor;
    one.to = *to;
    one.end = end;
    s->at = *to;
    s->anchor = end;
    if (last != NULL && last->mark == one.mark && !point_before(&last->to, &one.from)) {
        last->to = one.to;
        last->end = one.end;
        return;
    }
    s->out[s->count++] = one;
}

/* Tell of all that end before `limit`, or of all. */
static void pass(sweep *s, const point *limit)
{
    while (s->open > 0) {
        const rich_piece *top = &s->in[s->heap[0]];
        if (limit != NULL && point_before(limit, &top->to))
            return;
        tell(s, &top->to, top->end);
        heap_pop(s);
    }
}

/* Of `count` pieces by name and place those that hold, at most twice as many. */
static size_t sweep_all(const dtp_text *t, const rich_piece *in, size_t count, uint32_t *heap, rich_piece *out)
{
    sweep s;
    uint32_t i;
    memset(&s, 0, sizeof s);
    s.t = t;
    s.in = in;
    s.heap = heap;
    s.out = out;
    for (i = 0; i < count; i++) {
        pass(&s, i > 0 && in[i - 1].name == in[i].name ? &in[i].from : NULL);
        if (s.open > 0 && is_later(t, in[i].mark, in[s.heap[0]].mark))
            tell(&s, &in[i].from, in[i].start);
        if (s.open == 0 || is_later(t, in[i].mark, in[s.heap[0]].mark)) {
            s.at = in[i].from;
            s.anchor = in[i].start;
        }
        heap_push(&s, i);
    }
    pass(&s, NULL);
    return s.count;
}

/* Sort r->found, and leave what holds, by place. */
static int resolve(dtp_text *t)
{
    rich *r = t->rich;
    size_t count = r->found_count, i;
    uint32_t *heap;
    int code = text_grow(t, &r->found, &r->found_room, 2 * count, sizeof *r->found);
    if (code == DTP_TEXT_OK)
        code = text_grow(t, &r->spare, &r->spare_room, 2 * count, sizeof *r->spare);
    if (code != DTP_TEXT_OK || count == 0)
        return code;
    heap = text_take(t, count * sizeof *heap);
    if (heap == NULL)
        return DTP_TEXT_MEMORY;
    sort(r->found, r->spare, count, by_name);
    memcpy(r->spare, r->found, count * sizeof *r->found);
    r->found_count = sweep_all(t, r->spare, count, heap, r->found);
    for (i = 0; i < r->found_count; i++)
        r->found[i].order = (uint32_t)i;
    sort(r->found, r->spare, r->found_count, by_place);
    text_give(t, heap, count * sizeof *heap);
    return DTP_TEXT_OK;
}

/* ---- levels ---------------------------------------------------------------------------------------------------- */

static int find_add(dtp_text *t, id start, id end, uint32_t mark)
{
    rich *r = t->rich;
    rich_piece one;
    if (!rich_point(t, start, &one.from) || !rich_point(t, end, &one.to) || !point_before(&one.from, &one.to))
        return DTP_TEXT_OK; /* over nothing */
    if (text_grow(t, &r->found, &r->found_room, r->found_count + 1, sizeof *r->found) != DTP_TEXT_OK)
        return DTP_TEXT_MEMORY;
    one.start = start;
    one.end = end;
    one.mark = mark;
    one.name = r->marks[mark].name;
    r->found[r->found_count++] = one;
    return DTP_TEXT_OK;
}

static uint32_t note_far(rich_stretch *items, const rich_piece *pieces, size_t low, size_t high)
{
    size_t middle = low + (high - low) / 2;
    uint32_t far = (uint32_t)middle, other;
    if (low < middle) {
        other = note_far(items, pieces, low, middle);
        if (point_before(&pieces[far].to, &pieces[other].to))
            far = other;
    }
    if (middle + 1 < high) {
        other = note_far(items, pieces, middle + 1, high);
        if (point_before(&pieces[far].to, &pieces[other].to))
            far = other;
    }
    items[middle].far = far;
    return far;
}

static void level_free(dtp_text *t, rich_level *l)
{
    text_give(t, l->items, l->count * sizeof *l->items);
    text_give(t, l->by_name, l->count * sizeof *l->by_name);
    memset(l, 0, sizeof *l);
}

/* Make one level of those from `first` on, and of the marks that are in none. */
static int merge_levels(dtp_text *t, size_t first)
{
    rich *r = t->rich;
    rich_level new = {NULL, NULL, 0, 0};
    size_t i, k;
    int code = DTP_TEXT_OK;
    r->found_count = 0;
    for (i = first; i < r->level_count; i++)
        for (k = 0; k < r->levels[i].count && code == DTP_TEXT_OK; k++)
            code = find_add(t, r->levels[i].items[k].start, r->levels[i].items[k].end, r->levels[i].items[k].mark);
    for (k = r->indexed; k < r->count && code == DTP_TEXT_OK; k++)
        code = find_add(t, r->marks[k].start, r->marks[k].end, (uint32_t)k);
    if (code == DTP_TEXT_OK)
        code = resolve(t);
    if (code == DTP_TEXT_OK && r->found_count > 0) {
        new.count = r->found_count;
        new.items = text_take(t, new.count * sizeof *new.items);
        new.by_name = text_take(t, new.count * sizeof *new.by_name);
        code = new.items == NULL || new.by_name == NULL ? DTP_TEXT_MEMORY : DTP_TEXT_OK;
    }
    if (code != DTP_TEXT_OK) {
        level_free(t, &new);
        return code;
    }
    for (k = 0; k < new.count; k++) {
        const rich_piece *one = &r->found[k];
        new.items[k].start = one->start;
        new.items[k].end = one->end;
        new.items[k].mark = one->mark;
        new.by_name[one->order] = (uint32_t)k;
        if (one->mark > new.newest)
            new.newest = one->mark;
    }
    if (new.count > 0)
        (void)note_far(new.items, r->found, 0, new.count);
    for (i = first; i < r->level_count; i++)
        level_free(t, &r->levels[i]);
    r->level_count = first;
    if (new.count > 0)
        r->levels[r->level_count++] = new;
    r->indexed = r->count;
    return DTP_TEXT_OK;
}

/* Marks that are deleted leave the table: what holds has to be found anew. */
static void drop_deleted(dtp_text *t)
{
    rich *r = t->rich;
    size_t kept = 0, i;
    place p;
    for (i = 0; i < r->count; i++)
        if (locate(t, r->marks[i].at, &p) && !is_deleted(at_place(&p)))
            r->marks[kept++] = r->marks[i];
    for (i = 0; i < r->level_count; i++)
        level_free(t, &r->levels[i]);
    if (r->first_new < r->count)
        r->whole = 1;
    r->count = r->first_new = kept;
    r->level_count = r->indexed = 0;
    r->deleted = 0;
}

int rich_settle(dtp_text *t)
{
    rich *r = t->rich;
    size_t total, depth;
    if (r == NULL)
        return DTP_TEXT_OK;
    if (r->deleted)
        drop_deleted(t);
    if (r->indexed == r->count)
        return DTP_TEXT_OK;
    total = r->count - r->indexed;
    for (depth = r->level_count; depth > 0 && r->levels[depth - 1].count <= 4 * total; depth--)
        total += r->levels[depth - 1].count;
    return merge_levels(t, depth);
}

int rich_fold(dtp_text *t)
{
    int code = rich_settle(t);
    return code == DTP_TEXT_OK && t->rich != NULL && t->rich->level_count > 1 ? merge_levels(t, 0) : code;
}

void rich_free(dtp_text *t)
{
    rich *r = t->rich;
    size_t i;
    if (r == NULL)
        return;
    for (i = 0; i < r->level_count; i++)
        level_free(t, &r->levels[i]);
    text_give(t, r->marks, r->room * sizeof *r->marks);
    text_give(t, r->found, r->found_room * sizeof *r->found);
    text_give(t, r->spare, r->spare_room * sizeof *r->spare);
    text_give(t, r->touched, r->touched_room * sizeof *r->touched);
    text_give(t, r->names, r->name_room * sizeof *r->names);
    text_give(t, r->table, r->table == NULL ? 0 : (r->mask + 1) * sizeof *r->table);
    text_give(t, r->shown, r->shown_room * sizeof *r->shown);
    bytes_free(t, &r->shown_values);
    bytes_free(t, &r->letters);
    text_give(t, r, sizeof *r);
    t->rich = NULL;
}

/* ---- what is over a place -------------------------------------------------------------------------------------- */

typedef struct range {
    point from;
    point to;
    uint32_t name; /* or ANY_NAME */
} range;

static int find_in(dtp_text *t, const rich_level *l, size_t low, size_t high, const range *wanted)
{
    int code = DTP_TEXT_OK;
    while (low < high && code == DTP_TEXT_OK) {
        size_t middle = low + (high - low) / 2;
        const rich_stretch *s = &l->items[middle];
        point k;
        if (!rich_point(t, l->items[s->far].end, &k) || !point_before(&wanted->from, &k))
            break;
        code = find_in(t, l, low, middle, wanted);
        if (code != DTP_TEXT_OK || !rich_point(t, s->start, &k) || !point_before(&k, &wanted->to))
            break;
        if (rich_point(t, s->end, &k) && point_before(&wanted->from, &k))
            code = find_add(t, s->start, s->end, s->mark);
        low = middle + 1;
    }
    return code;
}

/* The same of one name, whose stretches are in the order of their starts and of their ends. */
static int find_named(dtp_text *t, const rich_level *l, const range *wanted)
{
    size_t low = 0, high = l->count;
    int code = DTP_TEXT_OK;
    point k;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const rich_stretch *s = &l->items[l->by_name[middle]];
        uint32_t name = t->rich->marks[s->mark].name;
        if (name < wanted->name
            || (name == wanted->name && rich_point(t, s->end, &k) && !point_before(&wanted->from, &k)))
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < l->count && code == DTP_TEXT_OK; low++) {
        const rich_stretch *s = &l->items[l->by_name[low]];
        if (t->rich->marks[s->mark].name != wanted->name || !rich_point(t, s->start, &k) || !point_before(&k, &wanted->to))
            break;
        code = find_add(t, s->start, s->end, s->mark);
    }
    return code;
}

static int find_range(dtp_text *t, const range *wanted)
{
    rich *r = t->rich;
    size_t i, levels = 0;
    int code = rich_settle(t);
    r->found_count = 0;
    for (i = 0; i < r->level_count && code == DTP_TEXT_OK; i++) {
        size_t before = r->found_count;
        code = wanted->name == ANY_NAME ? find_in(t, &r->levels[i], 0, r->levels[i].count, wanted)
                                        : find_named(t, &r->levels[i], wanted);
        levels += r->found_count > before;
    }
    return code == DTP_TEXT_OK && levels > 1 ? resolve(t) : code;
}

int rich_over(dtp_text *t, uint32_t start, uint32_t end, uint32_t name)
{
    range wanted;
    place p;
    size_t i, kept = 0;
    rich *r = t->rich;
    int code;
    if (start >= end) {
        code = rich_settle(t); /* which leaves there what it sorted */
        r->found_count = 0;
        return code;
    }
    p = tree_find(t, start);
    wanted.from = place_point(&p, 0);
    p = tree_find(t, end - 1);
    wanted.to = place_point(&p, 1);
    wanted.name = name;
    code = find_range(t, &wanted);
    for (i = 0; i < r->found_count && code == DTP_TEXT_OK; i++) { /* in visible characters */
        rich_piece one = r->found[i];
        uint32_t low = rich_rank(t, one.start), high = rich_rank(t, one.end);
        one.from.low = low > start ? low : start;
        one.to.low = high < end ? high : end;
        if (one.from.low < one.to.low)
            r->found[kept++] = one;
    }
    r->found_count = kept;
    return code;
}

int rich_over_span(dtp_text *t, const place *p, uint32_t len)
{
    range wanted;
    rich *r = t->rich;
    size_t i, kept = 0;
    uint32_t start = p->off, end = p->off + len;
    place last = *p;
    int code;
    last.off = end - 1;
    wanted.from = place_point(p, 0);
    wanted.to = place_point(&last, 1);
    wanted.name = ANY_NAME;
    code = find_range(t, &wanted);
    for (i = 0; i < r->found_count && code == DTP_TEXT_OK; i++) {
        rich_piece one = r->found[i];
        uint64_t low = one.from.high == wanted.from.high ? one.from.low / 2 : start;
        uint64_t high = one.to.high == wanted.from.high ? one.to.low / 2 : end;
        if (!point_before(&wanted.from, &one.to) || !point_before(&one.from, &wanted.to))
            continue; /* what others left of a stretch that was over it, before or behind it */
        one.from.low = low > start ? low : start;
        one.to.low = high < end ? high : end;
        if (one.from.low < one.to.low)
            r->found[kept++] = one;
    }
    r->found_count = kept;
    return code;
}
