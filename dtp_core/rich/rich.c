/* rich/rich.c - marks of a text: those that come, those that are made here, and what of them is shown. A mark is a marker
 * among the characters, hidden, that says over which characters what holds (docs/text.md, "Marks"). */
#include "crdt_graph.h"
#include "crdt_text_internal.h"

enum { COLLECT = 64 /* marks that hold nothing, beyond as many as those that do, before they are deleted */ };

static const uint8_t NIL = 0xc0;

/* ---- names ----------------------------------------------------------------------------------------------------- */

const uint8_t *rich_name_at(const dtp_text *t, uint32_t name, size_t *size)
{
    *size = t->rich->names[name].size;
    return t->rich->letters.data + t->rich->names[name].at;
}

static size_t name_cell(const dtp_text *t, uint64_t hash, const uint8_t *name, size_t size)
{
    const rich *r = t->rich;
    size_t cell = (size_t)hash & r->mask;
    for (; r->table[cell] != 0; cell = (cell + 1) & r->mask) {
        const rich_name *n = &r->names[r->table[cell] - 1];
        if (n->hash == hash && n->size == size && memcmp(r->letters.data + n->at, name, size) == 0)
            break;
    }
    return cell;
}

static int names_grow(dtp_text *t)
{
    rich *r = t->rich;
    size_t old = r->table == NULL ? 0 : r->mask + 1, room = old == 0 ? 16 : 2 * old, i;
    uint32_t *table;
    if (2 * (r->name_count + 1) <= old)
        return DTP_TEXT_OK;
    table = text_take(t, room * sizeof *table);
    if (table == NULL)
        return DTP_TEXT_MEMORY;
    memset(table, 0, room * sizeof *table);
    for (i = 0; i < r->name_count; i++) {
        size_t cell = (size_t)r->names[i].hash & (room - 1);
        while (table[cell] != 0)
            cell = (cell + 1) & (room - 1);
        table[cell] = (uint32_t)i + 1;
    }
    text_give(t, r->table, old * sizeof *r->table);
    r->table = table;
    r->mask = room - 1;
    return DTP_TEXT_OK;
}

int64_t rich_name_intern(dtp_text *t, const uint8_t *name, size_t size)
{
    rich *r = t->rich;
    uint64_t hash = dtp_hash(t->seed, name, size);
    rich_name *n;
    size_t cell;
    int code = names_grow(t);
    if (code != DTP_TEXT_OK)
        return code;
    cell = name_cell(t, hash, name, size);
    if (r->table[cell] != 0)
        return r->table[cell] - 1;
    code = text_grow(t, &r->names, &r->name_room, r->name_count + 1, sizeof *r->names);
    if (code == DTP_TEXT_OK)
        code = bytes_reserve(t, &r->letters, size);
    if (code != DTP_TEXT_OK)
        return code;
    n = &r->names[r->name_count++];
    n->hash = hash;
    n->at = r->letters.size;
    n->size = size;
    memcpy(r->letters.data + n->at, name, size);
    r->letters.size += size;
    r->table[cell] = (uint32_t)r->name_count;
    return r->table[cell] - 1;
}

/* ---- cells ----------------------------------------------------------------------------------------------------- */

static void read_at(const dtp_text *t, const place *p, rich_cell *c)
{
    dtp_reader r;
    r.start = r.at = t->pool + at_place(p)->text;
    r.end = r.at + rich_size(r.at);
    (void)rich_read(&r, c); /* checked when it came */
}

/* The character that a mark starts or ends at: agent NOBODY for none, or for one whose author isn't known. */
static int end_of(dtp_text *t, const rich_cell *c, unsigned i, id *x)
{
    int64_t agent_number;
    *x = make_id(NOBODY, 0);
    if (c->agent_size[i] == 0)
        return DTP_TEXT_OK;
    agent_number = agent_lookup(t, c->agent[i], c->agent_size[i]);
    if (agent_number < 0)
        return 1;
    *x = make_id((uint32_t)agent_number, c->seq[i]);
    return DTP_TEXT_OK;
}

/* `lack`, unless it is DTP_TEXT_OK: the character at fault. */
static int cell_refers(dtp_text *t, const rich_cell *c, id *lack)
{
    unsigned i;
    for (i = 0; i < 2; i++) {
        place p;
        int64_t agent_number;
        int code;
        if (c->agent_size[i] == 0)
            continue;
        agent_number = agent_intern(t, c->agent[i], c->agent_size[i]);
        if (agent_number < 0)
            return (int)agent_number;
        *lack = make_id((uint32_t)agent_number, c->seq[i]);
        code = is_character(t, *lack, 1);
        if (code == DTP_TEXT_OK && !locate(t, *lack, &p))
            code = DTP_TEXT_STALE;
        if (code != DTP_TEXT_OK)
            return code;
    }
    return DTP_TEXT_OK;
}

int rich_refers(dtp_text *t, const uint8_t *text, size_t size, id *lack)
{
    dtp_reader r = {text, text, text + size};
    rich_cell c;
    (void)rich_read(&r, &c); /* checked before */
    return cell_refers(t, &c, lack);
}

void rich_ends(dtp_text *t, const place *p, id ends[2])
{
    rich_cell c;
    read_at(t, p, &c);
    (void)end_of(t, &c, 0, &ends[0]);
    (void)end_of(t, &c, 1, &ends[1]);
}

size_t rich_value(dtp_text *t, uint32_t mark, const uint8_t **value)
{
    place p;
    rich_cell c;
    *value = &NIL;
    if (!locate(t, t->rich->marks[mark].at, &p) || is_deleted(at_place(&p)))
        return 1; /* can't be: deleted ones leave the table before it is read */
    read_at(t, &p, &c);
    *value = c.value;
    return c.value_size;
}

/* ---- coming and going ------------------------------------------------------------------------------------------ */

/* Note a marker that is in the tree, visible until now, and hide it. Reserved: a row of marks, and its name. */
static void arrive(dtp_text *t, id at, uint32_t name)
{
    rich *r = t->rich;
    rich_mark *m = &r->marks[r->count];
    rich_cell c;
    place p;
    (void)locate(t, at, &p);
    read_at(t, &p, &c);
    memset(m, 0, sizeof *m);
    m->at = m->root = at;
    (void)end_of(t, &c, 0, &m->start);
    (void)end_of(t, &c, 1, &m->end);
    if (c.sides & RICH_START_AFTER)
        m->start.agent |= RICH_AFTER;
    if (c.sides & RICH_END_AFTER)
        m->end.agent |= RICH_AFTER;
    m->stamp = c.stamp;
    m->sides = c.sides;
    m->name = name;
    r->late |= c.stamp < r->newest || (c.stamp == r->newest && at.agent != r->newest_of);
    if (c.stamp > r->newest || (c.stamp == r->newest && at.agent != r->newest_of)) {
        r->newest_of = c.stamp > r->newest ? at.agent : NOBODY; /* of several */
        r->newest = c.stamp;
    }
    r->count++;
    tree_hide(t, p);
}

int rich_ready(dtp_text *t)
{
    if (t->rich != NULL)
        return DTP_TEXT_OK;
    t->rich = text_take(t, sizeof *t->rich);
    if (t->rich == NULL)
        return DTP_TEXT_MEMORY;
    memset(t->rich, 0, sizeof *t->rich);
    t->rich->newest_of = NOBODY;
    return DTP_TEXT_OK;
}

static int reserve(dtp_text *t, const rich_cell *c, uint32_t *name)
{
    rich *r;
    int64_t found;
    int code = rich_ready(t);
    if (code != DTP_TEXT_OK)
        return code;
    r = t->rich;
    code = r->count >= UINT32_MAX / 4 ? DTP_TEXT_FULL
                                          : text_grow(t, &r->marks, &r->room, r->count + 1, sizeof *r->marks);
    if (code != DTP_TEXT_OK)
        return code;
    found = rich_name_intern(t, c->name, c->name_size);
    *name = (uint32_t)found;
    return found < 0 ? (int)found : DTP_TEXT_OK;
}

int rich_insert(dtp_text *t, uint32_t who, run op, const uint8_t *text, size_t size)
{
    dtp_reader r = {text, text, text + size};
    uint32_t seq = t->agents[who].next, name = 0;
    rich_cell c;
    place p;
    int code;
    (void)rich_read(&r, &c); /* checked before */
    code = reserve(t, &c, &name);
    if (code == DTP_TEXT_OK)
        code = order_remote(t, who, &op, &p);
    if (code == DTP_TEXT_OK)
        code = order_insert(t, who, op, 1, text, size, 0, p);
    if (code == DTP_TEXT_OK)
        arrive(t, make_id(who, seq), name);
    return code;
}

void rich_killed(dtp_text *t)
{
    t->rich->deleted = 1;
    t->rich->whole |= t->patching != PATCHES_UNWANTED;
}

int rich_load(dtp_text *t)
{
    leaf *l;
    uint32_t i, name = 0;
    for (l = t->first; l != NULL; l = l->next)
        for (i = 0; i < l->head.count; i++) {
            place p = {l, i, 0};
            rich_cell c;
            id lack;
            int code;
            if ((l->spans[i].who & MARKER) == 0)
                continue;
            read_at(t, &p, &c);
            if (cell_refers(t, &c, &lack) != DTP_TEXT_OK)
                return DTP_TEXT_FORMAT; /* a mark of what isn't there */
            code = reserve(t, &c, &name);
            if (code != DTP_TEXT_OK)
                return code;
            arrive(t, span_id(&l->spans[i], 0), name);
        }
    return DTP_TEXT_OK;
}

/* ---- made here ------------------------------------------------------------------------------------------------- */

id rich_visible(dtp_text *t, uint32_t position)
{
    place p = tree_find(t, position);
    return span_id(at_place(&p), p.off);
}

/* Where it starts (i 0) or ends (1), for characters [start, end). */
static void tie(dtp_text *t, rich_cell *c, unsigned i, uint32_t start, uint32_t end)
{
    int after = (c->sides & (i == 0 ? RICH_START_AFTER : RICH_END_AFTER)) != 0;
    uint32_t edge = i == 0 ? start : end;
    const agent *a;
    id x;
    if (after ? edge == 0 : edge == t->state.length) {
        c->sides |= i == 0 ? RICH_FROM_BEGINNING : RICH_TO_END;
        return;
    }
    x = rich_visible(t, after ? edge - 1 : edge);
    a = &t->agents[x.agent];
    c->agent[i] = a->name;
    c->agent_size[i] = a->size;
    c->seq[i] = x.seq;
}

int rich_mark_here(dtp_text *t, uint32_t start, uint32_t end, rich_cell *c, uint64_t now)
{
    rich *r = t->rich;
    uint32_t seq = t->agents[0].next, name = 0;
    run op;
    place p;
    int code;
    tie(t, c, 0, start, end);
    tie(t, c, 1, start, end);
    c->stamp = now > r->newest ? now : r->newest + (r->newest_of != 0); /* own ones of one stamp go by number */
    if (c->stamp >> LIST_STAMPS != 0)
        return DTP_TEXT_FULL;
    t->body.size = 0;
    code = rich_put(t, &t->body, c);
    if (code == DTP_TEXT_OK)
        code = reserve(t, c, &name);
    if (code != DTP_TEXT_OK)
        return code;
    order_local(t, 0, &op, &p);
    op.marker = 1;
    code = order_insert(t, 0, op, 1, t->body.data, t->body.size, 0, p);
    if (code == DTP_TEXT_OK)
        arrive(t, make_id(0, seq), name);
    return code;
}

/* Delete the marks that hold nothing any more, once there are more of them than of others. */
static int collect(dtp_text *t)
{
    rich *r = t->rich;
    size_t i, used = 0;
    int code;
    if (r->count <= 2 * r->useful + COLLECT)
        return DTP_TEXT_OK;
    code = rich_fold(t);
    if (code != DTP_TEXT_OK)
        return code;
    for (i = 0; i < r->count; i++)
        r->marks[i].scratch = 0;
    for (i = 0; r->level_count > 0 && i < r->levels[0].count; i++)
        r->marks[r->levels[0].items[i].mark].scratch = 1;
    for (i = 0; i < r->count && code == DTP_TEXT_OK; i++) {
        run op = {0, DELETE_UP, 0, {0, 0}, {NOBODY, 0}};
        op.a = r->marks[i].at;
        if (r->marks[i].scratch)
            used++;
        else
            code = order_delete(t, 0, op, 1);
    }
    r->useful = used;
    return code == DTP_TEXT_OK ? rich_settle(t) : code;
}

void rich_edge(dtp_text *t, uint32_t position, uint32_t len)
{
    rich *r = t->rich;
    uint32_t end = position + len;
    size_t i, count = 0;
    place p;
    if (r == NULL || r->count == 0)
        return;
    p = tree_find(t, end - 1);
    if (p.off + 1 < at_place(&p)->len || !tree_next(&p) || (at_place(&p)->who & DEAD) == 0)
        return; /* nothing deleted is right behind it */
    if (rich_over(t, position, end, ANY_NAME) != DTP_TEXT_OK)
        return;
    for (i = 0; i < r->found_count; i++) { /* those that end behind a character that is deleted, right behind this */
        const rich_mark *m = &r->marks[r->found[i].mark];
        if ((m->sides & RICH_END_AFTER) != 0 && rich_rank(t, m->end) == end)
            r->found[count++] = r->found[i];
    }
    for (i = 0; i < count; i++) {
        rich_cell c;
        const uint8_t *value;
        if (rich_value(t, r->found[i].mark, &value) == 1 && *value == NIL)
            continue;
        memset(&c, 0, sizeof c);
        c.name = rich_name_at(t, r->found[i].name, &c.name_size);
        c.value = &NIL;
        c.value_size = 1;
        if (rich_mark_here(t, position, end, &c, 0) != DTP_TEXT_OK)
            return; /* no memory: it is marked, as if it had been written further inside */
    }
}

static int begin(dtp_text *t)
{
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    t->patching = PATCHES_UNWANTED;
    return DTP_TEXT_OK;
}

static int end_with(dtp_text *t, int code)
{
    text_leave(t);
    return code;
}

/* The form of a name and a value from here. */
static int check_cell(dtp_text *t, const rich_cell *c)
{
    dtp_reader r = {c->value, c->value, c->value + c->value_size};
    dtp_bytes value;
    weight w;
    t->state.at = 0;
    if (c->name_size == 0 || c->name_size > DTP_TEXT_MARK_NAME || utf8_count(c->name, c->name_size, &w) < 0)
        return DTP_TEXT_FORMAT;
    t->state.at = 1;
    return c->value_size <= DTP_TEXT_MARK_VALUE && dtp_read_value(&r, &value) == DTP_OK && r.at == r.end
        ? DTP_TEXT_OK : DTP_TEXT_FORMAT;
}

int dtp_text_mark(dtp_text *t, uint64_t start, uint64_t stop, const uint8_t *name, size_t name_size,
                  const uint8_t *value, size_t value_size, unsigned expand, uint64_t now)
{
    history *h = t->state.depth > 0 ? &t->undo : NULL;
    rich_cell c;
    int code = begin(t);
    if (code != DTP_TEXT_OK)
        return code;
    memset(&c, 0, sizeof c);
    c.name = name;
    c.name_size = name_size;
    c.value = value;
    c.value_size = value_size;
    c.sides = (expand & DTP_TEXT_EXPAND_BEFORE ? RICH_START_AFTER : 0u)
        | (expand & DTP_TEXT_EXPAND_AFTER ? 0u : (unsigned)RICH_END_AFTER);
    if (t->is_list || start > stop || stop > t->state.length)
        return end_with(t, DTP_TEXT_RANGE);
    code = check_cell(t, &c);
    if (code == DTP_TEXT_OK)
        code = rich_ready(t);
    if (code != DTP_TEXT_OK || start == stop)
        return end_with(t, code);
    if (h != NULL) {
        code = history_reserve(t, h, 1, 0);
        if (code != DTP_TEXT_OK)
            return end_with(t, code);
        step_for(t, MARKED, start, stop - start);
    }
    code = rich_make(t, h, (uint32_t)start, (uint32_t)stop, &c, now, make_id(NOBODY, 0));
    if (h != NULL)
        t->step_ended = !t->step_open;
    if (code == DTP_TEXT_OK)
        (void)collect(t); /* without memory for it, later */
    return end_with(t, code);
}
