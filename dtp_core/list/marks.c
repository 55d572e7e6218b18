/* list/marks.c - what markers say of a list's elements. An element stands where it was inserted, or at the latest marker
 * of its place; it is what was inserted, or what the latest marker of its value says. Only markers count that are not
 * deleted, and an element whose own insertion was deleted is nowhere, so all of it follows from what is there: in
 * whatever order operations come, replicas that have the same ones show the same. */
#include "crdt_text_internal.h"

enum {
    STALE = 64,        /* markers that were deleted and are still in heaps before they are looked for */
    PATCH_TEXT = 65536 /* bytes that patches of one merge may have beyond twice what is held */
};

/* ---- the table of elements --------------------------------------------------------------------------------- */

static size_t hash_of(const dtp_text *t, id x)
{
    return (size_t)dtp_mix(t->seed[0] ^ x.agent, t->seed[1] ^ x.seq);
}

static list_element *find(const dtp_text *t, id x)
{
    const marks *m = &t->marks;
    size_t i = hash_of(t, x);
    if (m->table == NULL)
        return NULL;
    for (; m->table[i & m->mask].used; i++)
        if (same_id(m->table[i & m->mask].self, x))
            return &m->table[i & m->mask];
    return NULL;
}

static int is_held(dtp_text *t, id x, place *p)
{
    return locate(t, x, p) && !is_deleted(at_place(p));
}

/* Return whether it is an element that isn't deleted. (What others say of markers has no effect.) */
static int is_element(dtp_text *t, id x, place *p)
{
    return is_held(t, x, p) && (at_place(p)->who & MARKER) == 0;
}

/* The element's row, made if need be; there is room. */
static list_element *row_of(dtp_text *t, id x)
{
    marks *m = &t->marks;
    list_element *e = find(t, x);
    size_t i = hash_of(t, x);
    place p;
    if (e != NULL)
        return e;
    while (m->table[i & m->mask].used)
        i++;
    e = &m->table[i & m->mask];
    memset(e, 0, sizeof *e);
    e->used = 1;
    e->self = x;
    e->shown = is_element(t, x, &p) ? x : make_id(NOBODY, 0);
    m->elements++;
    return e;
}

/* Give the table another number of rows, a power of 2. */
static int resize_table(dtp_text *t, size_t room)
{
    marks *m = &t->marks;
    size_t old = m->table == NULL ? 0 : m->mask + 1, i;
    list_element *table = text_take(t, room * sizeof *table);
    if (table == NULL)
        return DTP_TEXT_MEMORY;
    memset(table, 0, room * sizeof *table);
    for (i = 0; i < old; i++) {
        size_t at = hash_of(t, m->table[i].self);
        if (!m->table[i].used)
            continue;
        while (table[at & (room - 1)].used)
            at++;
        table[at & (room - 1)] = m->table[i];
    }
    text_give(t, m->table, old * sizeof *table);
    m->table = table;
    m->mask = room - 1;
    return DTP_TEXT_OK;
}

/* Rows of a table for so many elements. */
static size_t rows_for(size_t elements, size_t room)
{
    while (4 * elements > 3 * room)
        room *= 2;
    return room;
}

/* Room for one more element and one more marker. */
static int reserve_rows(dtp_text *t)
{
    marks *m = &t->marks;
    size_t old = m->table == NULL ? 0 : m->mask + 1, room = rows_for(m->elements + 1, old == 0 ? 16 : old);
    if (m->spare == 0) {
        int code = text_grow(t, &m->markers, &m->room, m->count + 1, sizeof *m->markers);
        if (code != DTP_TEXT_OK)
            return code;
    }
    return room == old ? DTP_TEXT_OK : resize_table(t, room);
}

void marks_free(dtp_text *t)
{
    marks *m = &t->marks;
    text_give(t, m->markers, m->room * sizeof *m->markers);
    text_give(t, m->table, m->table == NULL ? 0 : (m->mask + 1) * sizeof *m->table);
}

/* ---- heaps: the latest marker on top ----------------------------------------------------------------------- */

static marker *at_number(const dtp_text *t, uint32_t number)
{
    return &t->marks.markers[number - 1];
}

static int is_later(const dtp_text *t, const marker *x, const marker *y)
{
    if (x->stamp != y->stamp)
        return x->stamp > y->stamp;
    if (x->at.agent != y->at.agent)
        return agent_before(t, y->at.agent, x->at.agent);
    return x->at.seq > y->at.seq;
}

static uint32_t join(dtp_text *t, uint32_t a, uint32_t b)
{
    if (a == 0 || b == 0)
        return a + b;
    if (is_later(t, at_number(t, b), at_number(t, a))) {
        uint32_t c = a;
        a = b;
        b = c;
    }
    at_number(t, b)->next = at_number(t, a)->child;
    at_number(t, a)->child = b;
    return a;
}

/* What is left of a heap without its top. */
static uint32_t without_top(dtp_text *t, uint32_t top)
{
    uint32_t first = at_number(t, top)->child, pairs = 0, rest = 0;
    while (first != 0) { /* pairs, from left to right ... */
        uint32_t a = first, b = at_number(t, a)->next, both;
        first = b == 0 ? 0 : at_number(t, b)->next;
        at_number(t, a)->next = 0;
        if (b != 0)
            at_number(t, b)->next = 0;
        both = join(t, a, b);
        at_number(t, both)->next = pairs;
        pairs = both;
    }
    while (pairs != 0) { /* ... and these from right to left */
        uint32_t next = at_number(t, pairs)->next;
        at_number(t, pairs)->next = 0;
        rest = join(t, rest, pairs);
        pairs = next;
    }
    return rest;
}

static void push(dtp_text *t, const marker *what)
{
    marks *m = &t->marks;
    list_element *e = row_of(t, what->element);
    uint32_t number = m->spare;
    if (number != 0)
        m->spare = at_number(t, number)->next;
    else
        number = (uint32_t)++m->count;
    *at_number(t, number) = *what;
    at_number(t, number)->child = at_number(t, number)->next = 0;
    e->top[what->kind] = join(t, e->top[what->kind], number);
    m->held++;
    if (what->stamp > m->newest || (what->stamp == m->newest && what->at.agent != 0)) {
        m->newest = what->stamp;
        m->newest_of = what->at.agent;
    }
}

const marker *mark_top(dtp_text *t, id x, uint32_t kind)
{
    marks *m = &t->marks;
    list_element *e = find(t, x);
    place p;
    if (e == NULL)
        return NULL;
    while (e->top[kind] != 0 && !is_held(t, at_number(t, e->top[kind])->at, &p)) {
        uint32_t gone = e->top[kind];
        e->top[kind] = without_top(t, gone);
        at_number(t, gone)->next = m->spare;
        m->spare = gone;
        m->held--;
        m->stale -= m->stale > 0;
    }
    return e->top[kind] == 0 ? NULL : at_number(t, e->top[kind]);
}

/* Take deleted markers out of all heaps, and elements of which none speaks out of the table. */
static void sweep(dtp_text *t)
{
    marks *m = &t->marks;
    size_t kept = 0, i;
    uint32_t n;
    place p;
    for (n = m->spare; n != 0; n = at_number(t, n)->next)
        at_number(t, n)->kind = MARK_NONE;
    for (i = 0; i < m->count; i++)
        if (m->markers[i].kind != MARK_NONE && is_held(t, m->markers[i].at, &p))
            m->markers[kept++] = m->markers[i];
    memset(m->table, 0, (m->mask + 1) * sizeof *m->table);
    m->elements = m->held = m->stale = m->count = 0;
    m->spare = 0;
    for (i = 0; i < kept; i++) {
        marker one = m->markers[i]; /* pushed to where it is, or before */
        list_element *e;
        push(t, &one);
        e = find(t, one.element);
        if (one.kind == MARK_PLACE && locate(t, one.at, &p) && (at_place(&p)->who & DEAD) == 0)
            e->shown = one.at;
        else if (same_id(e->shown, e->self) && locate(t, e->self, &p) && (at_place(&p)->who & DEAD) != 0)
            e->shown = make_id(NOBODY, 0);
    }
}

void marks_pack(dtp_text *t)
{
    marks *m = &t->marks;
    size_t room;
    if (m->table == NULL)
        return;
    sweep(t);
    array_pack(t, &m->markers, &m->room, m->count, sizeof *m->markers);
    room = rows_for(m->elements + 1, 16);
    if (room < m->mask + 1)
        (void)resize_table(t, room); /* else it stays as large as it is */
}

/* ---- markers ------------------------------------------------------------------------------------------------ */

static void read_at(const dtp_text *t, const place *p, list_cell *c)
{
    weight w;
    dtp_reader r;
    r.start = r.at = span_text(t, at_place(p), p->off, 1, &w);
    r.end = r.at + w.chars + w.more8;
    (void)cell_read(&r, c); /* checked when it came */
}

int mark_element(dtp_text *t, const uint8_t *text, size_t size, id *found)
{
    dtp_reader r = {text, text, text + size};
    list_cell c;
    int64_t agent_number;
    (void)cell_read(&r, &c); /* checked before */
    agent_number = agent_intern(t, c.name, c.name_size);
    if (agent_number < 0)
        return (int)agent_number;
    *found = make_id((uint32_t)agent_number, c.seq);
    return is_character(t, *found, 1);
}

id mark_element_at(dtp_text *t, const place *p)
{
    list_cell c;
    int64_t agent_number;
    read_at(t, p, &c);
    agent_number = agent_lookup(t, c.name, c.name_size);
    return make_id(agent_number < 0 ? NOBODY : (uint32_t)agent_number, c.seq);
}

int mark_reserve(dtp_text *t, id x)
{
    place p;
    int code = reserve_rows(t);
    if (code != DTP_TEXT_OK || !locate(t, x, &p) || (at_place(&p)->who & DEAD) != 0)
        return code;
    code = tree_reserve(t, p.leaf, x.agent, 2); /* it may be hidden out of the middle of a span */
    return code == DTP_TEXT_OK ? spare_reserve(t, 2, 4 * (LEAF / 2 + 3)) : code;
}

static void patch_shown(dtp_text *t, id x, const place *p)
{
    const uint8_t *value;
    size_t size = mark_value(t, x, &value), before = t->body.size;
    if (t->patching != PATCHES_WANTED)
        return;
    if (cell_put_value(t, &t->body, value, size) == DTP_TEXT_OK)
        patch_insert(t, tree_rank(t, p), t->body.data + before, t->body.size - before, 1);
    else
        t->patching = PATCHES_LOST;
    t->body.size = before;
    if (t->patching == PATCHES_WANTED && t->patch_text.size > (size_t)2 * t->pool_used + PATCH_TEXT) {
        t->patching = PATCHES_WHOLE; /* large values that are moved again and again, by a few bytes each */
        patches_clear(t);
    }
}

/* Show the element where it is to be, and nowhere else. */
static void settle_place(dtp_text *t, list_element *e)
{
    const marker *top = mark_top(t, e->self, MARK_PLACE);
    id wanted = top != NULL ? top->at : e->self;
    place p;
    if (!is_element(t, e->self, &p))
        wanted = make_id(NOBODY, 0);
    if (same_id(wanted, e->shown))
        return;
    if (e->shown.agent != NOBODY && is_held(t, e->shown, &p)) {
        patch_delete(t, tree_rank(t, &p), 1);
        tree_hide(t, p);
    }
    e->shown = wanted;
    if (wanted.agent == NOBODY)
        return;
    (void)locate(t, wanted, &p);
    tree_show(t, p);
    patch_shown(t, e->self, &p);
}

/* Tell of another value of an element, where it is visible. */
static void patch_value(dtp_text *t, const list_element *e)
{
    place p;
    if (e->shown.agent == NOBODY || !locate(t, e->shown, &p))
        return;
    patch_delete(t, tree_rank(t, &p), 1);
    patch_shown(t, e->self, &p);
}

void mark_arrived(dtp_text *t, id at)
{
    marker new = {{0, 0}, {0, 0}, 0, 0, 0, 0};
    list_element *e;
    place p;
    list_cell c;
    (void)locate(t, at, &p);
    read_at(t, &p, &c);
    tree_hide(t, p);
    new.element = mark_element_at(t, &p);
    new.at = at;
    new.stamp = c.stamp;
    new.kind = c.kind;
    push(t, &new);
    e = find(t, new.element);
    settle_place(t, e);
    if (new.kind == MARK_VALUE && same_id(mark_top(t, e->self, MARK_VALUE)->at, at))
        patch_value(t, e);
}

void mark_killed(dtp_text *t, id x, uint32_t count, id about)
{
    marks *m = &t->marks;
    list_element *e;
    if (m->elements == 0)
        return;
    if (about.agent != NOBODY) {
        m->stale++;
        e = find(t, about);
        if (e != NULL) {
            uint32_t held = e->top[MARK_VALUE];
            settle_place(t, e);
            if (held != 0 && same_id(at_number(t, held)->at, x))
                patch_value(t, e);
        }
        if (m->stale > STALE && m->stale > m->held / 2)
            sweep(t);
        return;
    }
    for (; count > 0; count--, x.seq++) {
        e = find(t, x);
        if (e != NULL)
            settle_place(t, e);
    }
}

int mark_all(dtp_text *t)
{
    leaf *l;
    uint32_t i;
    size_t k;
    int code = DTP_TEXT_OK;
    for (l = t->first; t->is_list && l != NULL; l = l->next)
        for (i = 0; i < l->head.count; i++)
            if ((l->spans[i].who & MARKER) != 0) {
                place p = {l, i, 0};
                marker one = {{0, 0}, {0, 0}, 0, 0, 0, 0};
                list_cell c;
                code = reserve_rows(t);
                if (code != DTP_TEXT_OK)
                    return code;
                read_at(t, &p, &c);
                one.element = mark_element_at(t, &p);
                if (one.element.agent == NOBODY || is_character(t, one.element, 1) != DTP_TEXT_OK)
                    return DTP_TEXT_FORMAT; /* a marker of nothing */
                one.at = span_id(&l->spans[i], 0);
                one.stamp = c.stamp;
                one.kind = c.kind;
                push(t, &one);
            }
    for (k = 0; k < t->marks.count; k++) {
        place p;
        if (locate(t, t->marks.markers[k].at, &p))
            tree_hide(t, p);
    }
    for (k = 0; k < t->marks.count; k++) {
        id x = t->marks.markers[k].element;
        code = mark_reserve(t, x);
        if (code != DTP_TEXT_OK)
            return code;
        settle_place(t, find(t, x));
    }
    return DTP_TEXT_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

id mark_stands(dtp_text *t, id x)
{
    const list_element *e = find(t, x);
    return e != NULL && e->shown.agent != NOBODY ? e->shown : x;
}

id mark_shown(dtp_text *t, id at)
{
    place p;
    return locate(t, at, &p) && (at_place(&p)->who & MARKER) != 0 ? mark_element_at(t, &p) : at;
}

size_t mark_value(dtp_text *t, id x, const uint8_t **value)
{
    const marker *top = mark_top(t, x, MARK_VALUE);
    place p;
    list_cell c;
    *value = NULL;
    if (!is_held(t, top == NULL ? x : top->at, &p))
        return 0;
    read_at(t, &p, &c);
    *value = c.value;
    return c.value_size;
}

int mark_values(dtp_text *t, const span *s, bytes *b)
{
    uint32_t i;
    int code = DTP_TEXT_OK;
    for (i = 0; i < s->len && code == DTP_TEXT_OK; i++) {
        const uint8_t *value;
        size_t size = mark_value(t, mark_shown(t, span_id(s, i)), &value);
        code = cell_put_value(t, b, value, size);
    }
    return code;
}

#define PROMISE(condition)     \
    do {                       \
        if (!(condition))      \
            return __LINE__;   \
    } while (0)

int marks_check(dtp_text *t)
{
    size_t i;
    leaf *l;
    uint32_t k;
    for (l = t->first; t->is_list && l != NULL; l = l->next)
        for (k = 0; k < l->head.count; k++) {
            const span *s = &l->spans[k];
            place p = {l, k, 0};
            const list_element *e;
            if ((s->who & (MARKER | HIDDEN)) == 0)
                continue;
            e = find(t, (s->who & MARKER) != 0 ? mark_element_at(t, &p) : span_id(s, 0));
            PROMISE(e != NULL);
            PROMISE(((s->who & DEAD) == 0) == same_id(e->shown, span_id(s, 0)));
        }
    for (i = 0; t->marks.table != NULL && i <= t->marks.mask; i++) {
        list_element *e = &t->marks.table[i];
        const marker *top;
        id wanted;
        place p;
        if (!e->used)
            continue;
        top = mark_top(t, e->self, MARK_PLACE);
        wanted = top == NULL ? e->self : top->at;
        PROMISE(is_element(t, e->self, &p) ? same_id(e->shown, wanted) : e->shown.agent == NOBODY);
        PROMISE(e->shown.agent == NOBODY || (locate(t, e->shown, &p) && (at_place(&p)->who & DEAD) == 0));
    }
    return DTP_TEXT_OK;
}
