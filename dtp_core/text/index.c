/* text/index.c - authors by name, what they did by number, and where their characters are. */
#include "crdt_text_internal.h"

/* ---- authors --------------------------------------------------------------------------------------------- */

static int is_named(const agent *a, const uint8_t *name, size_t size)
{
    return a->size == size && memcmp(a->name, name, size) == 0;
}

static size_t cell_of(const dtp_text *t, const uint8_t *name, size_t size)
{
    size_t cell = (size_t)dtp_hash(t->seed, name, size) & t->table_mask;
    while (t->table[cell] != 0 && !is_named(&t->agents[t->table[cell] - 1], name, size))
        cell = (cell + 1) & t->table_mask;
    return cell;
}

int64_t agent_lookup(dtp_text *t, const uint8_t *name, size_t size)
{
    size_t cell;
    if (t->last_agent < t->agent_count && is_named(&t->agents[t->last_agent], name, size))
        return t->last_agent;
    if (t->table == NULL)
        return DTP_TEXT_GONE;
    cell = cell_of(t, name, size);
    if (t->table[cell] == 0)
        return DTP_TEXT_GONE;
    t->last_agent = t->table[cell] - 1;
    return t->last_agent;
}

/* A table at most half full after one more. */
static int table_reserve(dtp_text *t)
{
    uint32_t *old = t->table;
    size_t cells = t->table == NULL ? 0 : t->table_mask + 1, i;
    size_t next = cells == 0 ? 8 : 2 * cells;
    if (2 * (t->agent_count + 1) <= cells)
        return DTP_TEXT_OK;
    t->table = text_take(t, next * sizeof *t->table);
    if (t->table == NULL) {
        t->table = old;
        return DTP_TEXT_MEMORY;
    }
    memset(t->table, 0, next * sizeof *t->table);
    t->table_mask = next - 1;
    for (i = 0; i < t->agent_count; i++)
        t->table[cell_of(t, t->agents[i].name, t->agents[i].size)] = (uint32_t)i + 1;
    text_give(t, old, cells * sizeof *old);
    return DTP_TEXT_OK;
}

int64_t agent_intern(dtp_text *t, const uint8_t *name, size_t size)
{
    int64_t found = agent_lookup(t, name, size);
    agent *a;
    int code;
    if (found >= 0)
        return found;
    if (t->agent_count >= DTP_TEXT_AGENTS)
        return DTP_TEXT_FULL;
    code = table_reserve(t);
    if (code == DTP_TEXT_OK)
        code = text_grow(t, &t->agents, &t->agent_room, t->agent_count + 1, sizeof *t->agents);
    if (code != DTP_TEXT_OK)
        return code;
    a = &t->agents[t->agent_count];
    memset(a, 0, sizeof *a);
    a->name = text_take(t, size);
    if (a->name == NULL)
        return DTP_TEXT_MEMORY;
    memcpy(a->name, name, size);
    a->size = (uint32_t)size;
    t->table[cell_of(t, name, size)] = (uint32_t)++t->agent_count;
    t->last_agent = (uint32_t)t->agent_count - 1;
    return t->last_agent;
}

int names_read(dtp_text *t, const message *m, int64_t number_of(dtp_text *, const uint8_t *, size_t))
{
    dtp_reader r = m->names;
    const uint8_t *name;
    size_t size;
    uint32_t i;
    int code = text_grow(t, &t->locals, &t->locals_room, m->agents, sizeof *t->locals);
    for (i = 0; i < m->agents && code == DTP_TEXT_OK; i++) {
        int64_t found;
        (void)wire_name(&r, &name, &size); /* checked before */
        found = number_of(t, name, size);
        if (found < 0 && found != DTP_TEXT_GONE)
            return (int)found;
        t->locals[i] = found < 0 ? NOBODY : (uint32_t)found;
    }
    return code;
}

void agents_free(dtp_text *t)
{
    size_t i;
    for (i = 0; i < t->agent_count; i++) {
        agent *a = &t->agents[i];
        text_give(t, a->name, a->size);
        log_free(t, a);
        dead_forget(t, a);
        index_free(t, a);
    }
    text_give(t, t->agents, t->agent_room * sizeof *t->agents);
    if (t->table != NULL)
        text_give(t, t->table, (t->table_mask + 1) * sizeof *t->table);
    t->agents = NULL;
    t->table = NULL;
    t->agent_count = t->agent_room = 0;
}

int agent_before(const dtp_text *t, uint32_t x, uint32_t y)
{
    const agent *a = &t->agents[x], *b = &t->agents[y];
    int order = memcmp(a->name, b->name, a->size < b->size ? a->size : b->size);
    return order != 0 ? order < 0 : a->size < b->size;
}

/* Let item `i` sink to its place in a heap of `count` whose top is the last by name. */
static void sink(const dtp_text *t, uint32_t *items, size_t i, size_t count)
{
    for (;;) {
        size_t child = 2 * i + 1;
        uint32_t item = items[i];
        if (child >= count)
            return;
        if (child + 1 < count && agent_before(t, items[child], items[child + 1]))
            child++;
        if (!agent_before(t, item, items[child]))
            return;
        items[i] = items[child];
        items[child] = item;
        i = child;
    }
}

int agents_sorted(dtp_text *t)
{
    size_t n = t->agent_count, i;
    int code;
    if (t->order_count == n)
        return DTP_TEXT_OK;
    code = text_grow(t, &t->order, &t->order_room, n, sizeof *t->order);
    if (code != DTP_TEXT_OK)
        return code;
    for (i = 0; i < n; i++)
        t->order[i] = (uint32_t)i;
    for (i = n / 2; i-- > 0;)
        sink(t, t->order, i, n);
    for (i = n; i-- > 1;) {
        uint32_t top = t->order[0];
        t->order[0] = t->order[i];
        t->order[i] = top;
        sink(t, t->order, 0, i);
    }
    t->order_count = n;
    return DTP_TEXT_OK;
}

/* ---- from numbers to leaves ------------------------------------------------------------------------------ */

int index_reserve(dtp_text *t, agent *a, size_t puts)
{
    size_t new = a->chunk_count + 2 + puts / 4; /* a full one becomes two: all may be full, and eight entries fill one again */
    if (new > 2 * puts + 1)
        new = 2 * puts + 1; /* no put makes more than two entries */
    return text_grow(t, &a->chunks, &a->chunk_room, a->chunk_count + new, sizeof *a->chunks);
}

void index_free(dtp_text *t, agent *a)
{
    while (a->chunk_count > 0)
        text_give(t, a->chunks[--a->chunk_count].chunk, sizeof(chunk));
    text_give(t, a->chunks, a->chunk_room * sizeof *a->chunks);
    a->chunks = NULL;
    a->chunk_room = 0;
}

/* The last entry at or before `seq`: 0 when there is none. */
static int index_seek(const agent *a, uint32_t seq, size_t *c, uint32_t *e)
{
    size_t low = 0, high = a->chunk_count;
    uint32_t first = 0, end;
    const chunk *k;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (a->chunks[middle].first <= seq)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return 0;
    k = a->chunks[low - 1].chunk;
    end = k->count;
    while (end - first > 1) {
        uint32_t middle = (first + end) / 2;
        if (k->seq[middle] <= seq)
            first = middle;
        else
            end = middle;
    }
    *c = low - 1;
    *e = first;
    return 1;
}

static leaf *index_get(const agent *a, uint32_t seq)
{
    size_t c;
    uint32_t e;
    return index_seek(a, seq, &c, &e) ? a->chunks[c].chunk->where[e] : NULL;
}

static void chunk_remove(dtp_text *t, agent *a, size_t c, uint32_t e)
{
    chunk *k = a->chunks[c].chunk;
    k->count--;
    memmove(k->seq + e, k->seq + e + 1, (k->count - e) * sizeof *k->seq);
    memmove(k->where + e, k->where + e + 1, (k->count - e) * sizeof *k->where);
    if (k->count > 0) {
        a->chunks[c].first = k->seq[0];
        return;
    }
    chunk_return(t, k);
    a->chunk_count--;
    memmove(a->chunks + c, a->chunks + c + 1, (a->chunk_count - c) * sizeof *a->chunks);
}

static void new_chunk(dtp_text *t, agent *a, size_t c)
{
    memmove(a->chunks + c + 1, a->chunks + c, (a->chunk_count - c) * sizeof *a->chunks);
    a->chunk_count++;
    a->chunks[c].chunk = spare_chunk(t);
}

/* Put an entry behind entry `e` of chunk `c`; with an empty index, the first one. */
static void chunk_insert(dtp_text *t, agent *a, size_t c, uint32_t e, uint32_t seq, leaf *l)
{
    chunk *k;
    if (a->chunk_count == 0) {
        new_chunk(t, a, 0);
        a->chunks[0].first = seq;
    }
    k = a->chunks[c].chunk;
    if (k->count == CHUNK) {
        /* Numbers mostly grow: then a chunk is left full. */
        uint32_t keep = e + 1 == CHUNK && c + 1 == a->chunk_count ? CHUNK : CHUNK / 2;
        chunk *more;
        new_chunk(t, a, c + 1);
        more = a->chunks[c + 1].chunk;
        more->count = CHUNK - keep;
        memcpy(more->seq, k->seq + keep, more->count * sizeof *k->seq);
        memcpy(more->where, k->where + keep, more->count * sizeof *k->where);
        k->count = keep;
        a->chunks[c + 1].first = more->count > 0 ? more->seq[0] : seq;
        if (e >= keep || keep == CHUNK) {
            k = more;
            c++;
            e -= keep; /* wraps to "before the first" when the new chunk is empty */
        }
    }
    e = k->count == 0 ? 0 : e + 1;
    memmove(k->seq + e + 1, k->seq + e, (k->count - e) * sizeof *k->seq);
    memmove(k->where + e + 1, k->where + e, (k->count - e) * sizeof *k->where);
    k->seq[e] = seq;
    k->where[e] = l;
    k->count++;
    a->chunks[c].first = k->seq[0];
}

/* Put an entry in its order. */
static void index_entry(dtp_text *t, agent *a, uint32_t seq, leaf *l)
{
    size_t c = 0;
    uint32_t e = 0;
    if (a->chunk_count > 0 && !index_seek(a, seq, &c, &e)) {
        /* Before all others: swap places with the first. */
        chunk *k = a->chunks[0].chunk;
        uint32_t first = k->seq[0];
        leaf *where = k->where[0];
        k->seq[0] = a->chunks[0].first = seq;
        k->where[0] = l;
        chunk_insert(t, a, 0, 0, first, where);
        return;
    }
    chunk_insert(t, a, c, e, seq, l);
}

void index_put(dtp_text *t, uint32_t who, uint32_t seq, uint32_t len, leaf *l)
{
    agent *a = &t->agents[who];
    size_t c;
    uint32_t e, end = seq + len;
    leaf *behind;
    int found;
    if (a->chunk_count > 0) { /* typing: the last entry covers it already */
        const chunk *k = a->chunks[a->chunk_count - 1].chunk;
        if (k->seq[k->count - 1] <= seq && k->where[k->count - 1] == l) {
            if (a->held < end)
                a->held = end;
            return;
        }
    }
    found = index_seek(a, end, &c, &e);
    behind = found ? a->chunks[c].chunk->where[e] : NULL;
    while (found && a->chunks[c].chunk->seq[e] >= seq) {
        chunk_remove(t, a, c, e);
        found = index_seek(a, end, &c, &e);
    }
    if (!found || a->chunks[c].chunk->where[e] != l)
        index_entry(t, a, seq, l);
    if (behind != NULL && behind != l && end < a->held)
        index_entry(t, a, end, behind);
    if (a->held < end)
        a->held = end;
}

static int in_leaf(const leaf *l, id x, place *p)
{
    uint32_t i;
    for (i = 0; i < l->head.count; i++) {
        const span *s = &l->spans[i];
        if (x.seq - s->seq < s->len && span_agent(s) == x.agent) {
            p->leaf = (leaf *)(uintptr_t)l;
            p->i = i;
            p->off = x.seq - s->seq;
            return 1;
        }
    }
    return 0;
}

int locate(dtp_text *t, id x, place *p)
{
    leaf *l = t->hint;
    if (l != NULL && t->hint_i < l->head.count) {
        const span *s = &l->spans[t->hint_i];
        if (x.seq - s->seq < s->len && span_agent(s) == x.agent) {
            p->leaf = l;
            p->i = t->hint_i;
            p->off = x.seq - s->seq;
            return 1;
        }
    }
    l = index_get(&t->agents[x.agent], x.seq);
    return l != NULL && in_leaf(l, x, p);
}

uint32_t index_next(const dtp_text *t, id x)
{
    const agent *a = &t->agents[x.agent];
    uint32_t bound = a->next, best = UINT32_MAX, e = 0, i;
    size_t c = 0;
    const leaf *l;
    if (a->chunk_count == 0)
        return bound;
    if (!index_seek(a, x.seq, &c, &e))
        return a->chunks[0].first;
    if (e + 1 < a->chunks[c].chunk->count)
        bound = a->chunks[c].chunk->seq[e + 1];
    else if (c + 1 < a->chunk_count)
        bound = a->chunks[c + 1].first;
    l = a->chunks[c].chunk->where[e];
    for (i = 0; i < l->head.count; i++)
        if (span_agent(&l->spans[i]) == x.agent && l->spans[i].seq > x.seq && l->spans[i].seq < best)
            best = l->spans[i].seq;
    return best < bound ? best : bound;
}

/* ---- what is deleted ------------------------------------------------------------------------------------- */

enum { DEAD_NOTED = 64 /* characters that are walked over each time they are deleted again */ };

/* The first range that ends behind `seq`. */
static size_t dead_find(const agent *a, uint32_t seq)
{
    size_t low = 0, high = a->dead_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (a->dead[middle].end > seq)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

uint32_t dead_end(const agent *a, uint32_t seq)
{
    size_t i = a->dead_count == 0 ? 0 : dead_find(a, seq);
    return i < a->dead_count && a->dead[i].first <= seq ? a->dead[i].end : seq;
}

void dead_note(dtp_text *t, agent *a, uint32_t first, uint32_t end)
{
    size_t from, to;
    if (end - first < DEAD_NOTED
        || text_grow(t, &a->dead, &a->dead_room, a->dead_count + 1, sizeof *a->dead) != DTP_TEXT_OK)
        return; /* nothing depends on it but time */
    from = to = first == 0 ? 0 : dead_find(a, first - 1);
    while (to < a->dead_count && a->dead[to].first <= end) {
        first = a->dead[to].first < first ? a->dead[to].first : first;
        end = a->dead[to].end > end ? a->dead[to].end : end;
        to++;
    }
    memmove(a->dead + from + 1, a->dead + to, (a->dead_count - to) * sizeof *a->dead);
    a->dead_count += 1 + from - to;
    a->dead[from].first = first;
    a->dead[from].end = end;
}

void dead_forget(dtp_text *t, agent *a)
{
    text_give(t, a->dead, a->dead_room * sizeof *a->dead);
    a->dead = NULL;
    a->dead_count = a->dead_room = 0;
}

int is_character(dtp_text *t, id x, uint32_t len)
{
    agent *a = &t->agents[x.agent];
    uint32_t end = x.seq + len, at = x.seq < a->base ? a->base : x.seq;
    size_t i;
    if (end > a->next)
        return 1;
    if (end <= a->base)
        return DTP_TEXT_OK;
    at = dead_end(a, at);
    for (i = at < end ? log_find(a, at) : 0; at < end; i = at < end ? i + 1 : i) {
        uint32_t stop;
        if (i >= a->run_count)
            break;
        if (log_run(a, i).kind >= DELETE_UP)
            return DTP_TEXT_REFERENCE;
        at = run_end(a, i);
        stop = dead_end(a, at);
        if (stop > at && stop < end)
            i = log_find(a, stop) - 1;
        at = stop;
    }
    return DTP_TEXT_OK;
}
