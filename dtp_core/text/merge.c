/* text/merge.c - operations of others: applied once what they refer to is here. */
#include "crdt_text_internal.h"

/* Note that an author has made more. There is room: for each agent in `waiters` but the last something waits. */
static void made_more(dtp_text *t, uint32_t who)
{
    agent *a = &t->agents[who];
    if ((a->waits == NULL && a->halves == NULL) || a->is_ready)
        return;
    a->is_ready = 1;
    t->waiters[t->waiter_count++] = who;
}

/* ---- applying -------------------------------------------------------------------------------------------- */

/* Leave out the first `skip` characters or deletions, which are here already. */
static void trim_front(const dtp_text *t, uint32_t who, wire_op *op, uint32_t skip, const uint8_t **text, size_t *size)
{
    op->op.seq += skip;
    op->len -= skip;
    if (op->op.kind == DELETE_UP) {
        op->op.a.seq += skip;
    } else if (op->op.kind == DELETE_DOWN) {
        op->op.a.seq -= skip;
    } else {
        op->op.kind = INSERT_RIGHT;
        op->op.a = make_id(who, op->op.seq - 1);
        if (!op->dead) {
            size_t gone = units_skip(t, *text, skip, NULL);
            *text += gone;
            *size -= gone;
        }
    }
}

/* Whether these characters are here: DTP_TEXT_OK, 1 (not yet: `lack` is who has to have made how many for it) or
 * DTP_TEXT_REFERENCE. */
static int has(dtp_text *t, id x, uint32_t len, id *lack)
{
    *lack = make_id(x.agent, x.seq + len);
    return is_character(t, x, len);
}

/* Whether all that the operation refers to is here; likewise. */
static int refers(dtp_text *t, uint32_t who, const wire_op *op, id *lack)
{
    agent *a = &t->agents[who];
    int code = DTP_TEXT_OK;
    if (op->op.kind == INSERT_RIGHT && a->run_count > 0 && same_id(op->op.a, make_id(who, a->next - 1))) {
        const run last = log_run(a, a->run_count - 1);
        if (last.kind < DELETE_UP && same_id(op->op.b, last.b))
            return DTP_TEXT_OK; /* typing goes on */
    }
    if (op->op.kind >= DELETE_UP) {
        uint32_t low = op->op.kind == DELETE_UP ? op->op.a.seq : op->op.a.seq - (op->len - 1);
        code = has(t, make_id(op->op.a.agent, low), op->len, lack);
        if (op->op.kind == DELETE_UP && op->op.a.seq > t->agents[op->op.a.agent].next)
            lack->seq = op->op.a.seq + 1; /* with the first of these the first deletion can be applied */
        return code;
    }
    if (op->op.a.agent != NOBODY)
        code = has(t, op->op.a, 1, lack);
    if (code == DTP_TEXT_OK && op->op.b.agent != NOBODY)
        code = has(t, op->op.b, 1, lack);
    return code;
}

static void note_patch(dtp_text *t, uint32_t who, const wire_op *op, const uint8_t *text, size_t size)
{
    place p;
    if (t->patching != PATCHES_WANTED || op->dead)
        return;
    rich_touch(t, make_id(who, op->op.seq), op->len);
    p.leaf = t->hint; /* where the last of it was put */
    p.i = t->hint_i;
    p.off = at_place(&p)->len - 1;
    patch_insert(t, tree_rank(t, &p) + 1 - op->len, text, size, op->len);
}

static int insert(dtp_text *t, uint32_t who, const wire_op *op, const uint8_t *text, size_t size)
{
    place p;
    int code = order_remote(t, who, &op->op, &p);
    if (code == DTP_TEXT_OK)
        code = order_insert(t, who, op->op, op->len, text, size, op->dead, p);
    if (code == DTP_TEXT_OK)
        note_patch(t, who, op, text, size);
    return code;
}

static int insert_marker(dtp_text *t, uint32_t who, run op, const uint8_t *text, size_t size)
{
    uint32_t seq = t->agents[who].next;
    id about;
    place p;
    int code;
    if (!t->is_list)
        return rich_insert(t, who, op, text, size);
    code = mark_element(t, text, size, &about);
    if (code == DTP_TEXT_OK)
        code = mark_reserve(t, about);
    if (code == DTP_TEXT_OK)
        code = order_remote(t, who, &op, &p);
    if (code == DTP_TEXT_OK)
        code = order_insert(t, who, op, 1, text, size, 0, p);
    if (code == DTP_TEXT_OK)
        mark_arrived(t, make_id(who, seq));
    return code;
}

/* What hinders an operation: DTP_TEXT_OK, 1 (it lacks something) or another code. What is here of it is cut off. */
static int hindrance(dtp_text *t, uint32_t who, wire_op *op, const uint8_t **text, size_t *size, id *lack)
{
    uint32_t next = t->agents[who].next;
    int code;
    if (op->op.seq > next) {
        *lack = make_id(who, op->op.seq);
        return 1;
    }
    if (op->op.seq < next)
        trim_front(t, who, op, next - op->op.seq, text, size);
    code = refers(t, who, op, lack);
    if (code == DTP_TEXT_OK && op->op.marker && !op->dead) {
        code = t->is_list ? mark_element(t, *text, *size, lack) : rich_refers(t, *text, *size, lack);
        lack->seq++;
    }
    return code;
}

/* How many characters a deletion that is hindered can delete now, from its first one on. */
static uint32_t deletable(dtp_text *t, uint32_t who, const wire_op *op)
{
    uint32_t low = 0, high = op->len;
    if (op->op.kind < DELETE_UP || op->op.seq > t->agents[who].next)
        return 0;
    while (high - low > 1) { /* `low` of them can be deleted, `high` can't */
        uint32_t middle = low + (high - low) / 2;
        uint32_t first = op->op.kind == DELETE_UP ? op->op.a.seq : op->op.a.seq - (middle - 1);
        if (is_character(t, make_id(op->op.a.agent, first), middle) == DTP_TEXT_OK)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Apply an operation whose ids are this replica's, or put it aside: `held` is what it was put aside as before, or NULL. */
static int apply(dtp_text *t, uint32_t who, wire_op op, const uint8_t *text, size_t size, waiting *held)
{
    id lack = make_id(NOBODY, 0);
    uint32_t ready;
    int code;
    if (op.op.seq + op.len <= t->agents[who].next)
        return DTP_TEXT_OK;
    code = hindrance(t, who, &op, &text, &size, &lack);
    ready = code == DTP_TEXT_OK ? 0 : deletable(t, who, &op);
    if (ready > 0) { /* each deletion is an operation: what comes after it in the message doesn't hold it up */
        wire_op front = op;
        front.len = ready;
        code = apply(t, who, front, text, size, NULL);
        return code == DTP_TEXT_OK ? apply(t, who, op, text, size, held) : code;
    }
    if (code == 1) {
        if (held == NULL)
            return wait_put(t, who, &op, text, size, lack);
        if (size == 0) { /* what was applied of it waits no more */
            held->op = op.op;
            held->len = op.len;
        }
        wait_hang(t, held, lack);
        return WAITS;
    }
    if (code != DTP_TEXT_OK)
        return code;
    if (op.op.kind >= DELETE_UP)
        code = order_delete(t, who, op.op, op.len);
    else if (op.op.marker && !op.dead)
        code = insert_marker(t, who, op.op, text, size);
    else
        code = insert(t, who, &op, text, size);
    if (code == DTP_TEXT_OK) {
        t->state.merged += op.len;
        made_more(t, who);
        if (who == 0 && t->state.taken == op.op.seq)
            t->state.taken = t->agents[0].next;
    }
    return code;
}

/* Apply what was taken out of those that wait for this author, or hang it up again. */
static int wait_again(dtp_text *t, uint32_t on, waiting *w)
{
    wire_op op;
    int code;
    op.op = w->op;
    op.len = w->len;
    op.dead = w->dead;
    op.end = 0;
    code = apply(t, w->who, op, w->text, w->size, w);
    if (code == DTP_TEXT_MEMORY)
        wait_back(t, w, on);
    else if (code != WAITS) {
        t->state.refused += code != DTP_TEXT_OK;
        wait_free(t, w);
        code = DTP_TEXT_OK;
    }
    return code;
}

/* Apply whatever no longer has to wait. Only memory can fail: then it waits on. */
static int drain(dtp_text *t)
{
    int code = DTP_TEXT_OK;
    made_more(t, 0); /* maybe here */
    while (t->waiter_count > 0 && code != DTP_TEXT_MEMORY) {
        uint32_t on = t->waiters[t->waiter_count - 1];
        waiting *w = wait_take(&t->agents[on]);
        if (w != NULL) {
            code = wait_again(t, on, w);
        } else {
            t->agents[on].is_ready = 0;
            t->waiter_count--;
        }
    }
    return code == DTP_TEXT_MEMORY ? code : DTP_TEXT_OK;
}

/* Apply all halves of this author as far as it has made what they delete, and hang each up again that ends behind that. */
static int settle(dtp_text *t, uint32_t on)
{
    waiting *rest = t->agents[on].halves, *w;
    uint32_t made = t->agents[on].next;
    int code = DTP_TEXT_OK;
    t->agents[on].halves = NULL;
    while ((w = wait_first(&rest, UINT32_MAX)) != NULL)
        if (w->op.a.seq >= t->agents[on].next)
            wait_hang(t, w, make_id(on, w->needs));
        else if (code == DTP_TEXT_MEMORY)
            wait_back(t, w, on);
        else
            code = wait_again(t, on, w);
    if (code != DTP_TEXT_MEMORY)
        t->agents[on].settled = made;
    made_more(t, on);
    return code;
}

int waits_settle(dtp_text *t)
{
    size_t i;
    int code = DTP_TEXT_OK;
    for (i = 0; i < t->agent_count && code != DTP_TEXT_MEMORY; i++)
        if (t->agents[i].halves != NULL && t->agents[i].settled != t->agents[i].next)
            code = settle(t, (uint32_t)i);
    if (code == DTP_TEXT_MEMORY)
        return code;
    return t->waiter_count == 0 ? DTP_TEXT_OK : drain(t);
}

/* ---- messages -------------------------------------------------------------------------------------------- */

static id translate(const dtp_text *t, id x)
{
    if (x.agent != NOBODY)
        x.agent = t->locals[x.agent];
    return x;
}

/* Read the next operation of a group of a checked message, whose authors are interned; return whether there was one. */
static int next_operation(const dtp_text *t, group *g, wire_op *w)
{
    (void)wire_operation(g, w); /* checked before */
    if (w->end)
        return 0;
    w->op.a = translate(t, w->op.a);
    w->op.b = translate(t, w->op.b);
    return 1;
}

/* The groups of checked changes, whose authors are interned. */
static int merge_groups(dtp_text *t, const message *m, const uint8_t *start)
{
    const uint8_t *text = m->text;
    group g;
    wire_op w;
    int code;
    g.r = m->groups;
    g.agents = m->agents;
    while (wire_group(&g) == 1) {
        uint32_t who = t->locals[g.self];
        for (;;) {
            const uint8_t *at = g.r.at;
            size_t size = 0;
            if (!next_operation(t, &g, &w))
                break;
            if (w.op.kind < DELETE_UP && !w.dead)
                size = m->ascii ? w.len : units_skip(t, text, w.len, NULL);
            code = apply(t, who, w, text, size, NULL);
            if (code < 0) {
                t->state.at = (uint64_t)(at - start);
                return code;
            }
            text += size;
        }
    }
    return DTP_TEXT_OK;
}

/* ---- states ---------------------------------------------------------------------------------------------- */

/* The bases of a state's authors, who are interned, into an empty text; `r` then is at the count of spans. */
static int load_bases(dtp_text *t, const message *m, dtp_reader *r, const uint8_t *start)
{
    uint32_t i, base;
    *r = m->bases;
    for (i = 0; i < m->agents; i++) {
        agent *a = &t->agents[t->locals[i]];
        t->state.at = (uint64_t)(r->at - start);
        if (wire_number(r, DTP_TEXT_SEQUENCE, &base) != DTP_TEXT_OK || a->base != 0)
            return DTP_TEXT_FORMAT; /* an author is there twice */
        a->base = a->next = base;
    }
    return DTP_TEXT_OK;
}

/* The operations of a state into the logs; their characters are not there yet. What an operation refers to must have
 * been told before, so that there are no cycles. */
static int load_logs(dtp_text *t, const message *m, const uint8_t *start)
{
    group g;
    wire_op w;
    id lack;
    int code;
    g.r = m->groups;
    g.agents = m->agents;
    while (wire_group(&g) == 1) {
        uint32_t who = t->locals[g.self];
        agent *a = &t->agents[who];
        for (;;) {
            t->state.at = (uint64_t)(g.r.at - start);
            if (!next_operation(t, &g, &w))
                break;
            if (w.op.seq != a->next || refers(t, who, &w, &lack) != DTP_TEXT_OK)
                return DTP_TEXT_REFERENCE;
            code = log_reserve(t, a, 2);
            if (code != DTP_TEXT_OK)
                return code;
            log_append(a, who, w.op, w.len);
        }
    }
    return DTP_TEXT_OK;
}

/* Append what is in one span of a state, each marker as a span of its own. */
static int append_units(dtp_text *t, uint32_t who, const wire_span *s, uint32_t flags, const uint8_t *text)
{
    uint32_t at = 0;
    int code = DTP_TEXT_OK;
    while (at < s->len && code == DTP_TEXT_OK) {
        uint32_t count = 0, side = (at == 0 ? flags & LEFT : 0);
        size_t size = 0, step;
        int is_marker = unit_is_marker(t, text);
        do {
            step = units_skip(t, text + size, 1, NULL);
            size += step;
            count++;
        } while (!is_marker && at + count < s->len && !unit_is_marker(t, text + size));
        side |= at + count == s->len ? flags & RIGHT : RIGHT;
        code = order_append(t, who, s->seq + at, count, side | (is_marker ? MARKER : 0u), text, size);
        text += size;
        at += count;
    }
    return code;
}

/* The characters of a state in their order, once the logs are there. */
static int load_spans(dtp_text *t, const message *m, dtp_reader r, const uint8_t *start)
{
    wire_span before = {NOBODY, 0, 0, 0}, s;
    const uint8_t *text = m->text;
    uint32_t i, count;
    if (wire_number(&r, UINT32_MAX, &count) != DTP_TEXT_OK)
        return DTP_TEXT_FORMAT;
    for (i = 0; i < count; i++) {
        uint32_t flags, who;
        size_t size = 0;
        place p;
        int code;
        t->state.at = (uint64_t)(r.at - start);
        if (wire_base_span(&r, m->agents, &before, &s) != DTP_TEXT_OK)
            return DTP_TEXT_FORMAT;
        before = s;
        who = t->locals[s.agent];
        if (s.seq + s.len > t->agents[who].next || is_character(t, make_id(who, s.seq), s.len) != DTP_TEXT_OK
            || next_held(t, make_id(who, s.seq), s.seq + s.len, &p) < s.seq + s.len)
            return DTP_TEXT_FORMAT; /* no character, or there twice */
        flags = (s.flags & SPAN_DEAD ? DEAD : 0u) | (s.flags & SPAN_LEFT ? LEFT : 0u)
            | (s.flags & SPAN_RIGHT ? RIGHT : 0u);
        if ((flags & DEAD) == 0)
            size = m->ascii ? s.len : units_skip(t, text, s.len, NULL);
        code = (t->is_list || m->marks > 0) && (flags & DEAD) == 0 ? append_units(t, who, &s, flags, text)
                                                 : order_append(t, who, s.seq, s.len, flags, text, size);
        if (code != DTP_TEXT_OK)
            return code;
        text += size;
    }
    return DTP_TEXT_OK;
}

/* Whether this text has all that the state's bases stand for: then only the groups are news. */
static int has_bases(dtp_text *t, const message *m)
{
    dtp_reader names = m->names, bases = m->bases;
    const uint8_t *name;
    size_t size;
    uint32_t i, base;
    for (i = 0; i < m->agents; i++) {
        int64_t found;
        if (wire_name(&names, &name, &size) != DTP_TEXT_OK
            || wire_number(&bases, DTP_TEXT_SEQUENCE, &base) != DTP_TEXT_OK)
            return 0;
        found = agent_lookup(t, name, size);
        if (base > 0 && (found < 0 || t->agents[found].next < base))
            return 0;
    }
    return 1;
}

/* Whether `fresh` has all that `t` has. */
static int covers(dtp_text *fresh, const dtp_text *t)
{
    size_t i;
    for (i = 0; i < t->agent_count; i++) {
        const agent *a = &t->agents[i];
        int64_t found = agent_lookup(fresh, a->name, a->size);
        if (a->next > 0 && (found < 0 || fresh->agents[found].next < a->next))
            return 0;
    }
    return 1;
}

static uint32_t units(const dtp_text *t, const uint8_t *text, size_t size)
{
    weight w;
    uint64_t newest;
    return (uint32_t)(t->is_list ? cells_count(text, size, &w, &newest) : utf8_count(text, size, &w));
}

/* One patch from the old text to the new one: what both begin and end with stays. */
static int patch_between(dtp_text *old, dtp_text *t)
{
    bytes *x = &old->body, *y = &t->body;
    size_t front = 0, back = 0, small;
    uint32_t start, gone;
    int code;
    x->size = y->size = 0;
    code = patch_read_all(old, x);
    if (code == DTP_TEXT_OK)
        code = patch_read_all(t, y);
    if (code != DTP_TEXT_OK)
        return code;
    small = t->is_list ? 0 : x->size < y->size ? x->size : y->size; /* a list's as a whole */
    while (front < small && x->data[front] == y->data[front])
        front++;
    while (front > 0 && ((front < x->size && (x->data[front] & 0xc0) == 0x80)
                         || (front < y->size && (y->data[front] & 0xc0) == 0x80)))
        front--;
    while (back < small - front && x->data[x->size - 1 - back] == y->data[y->size - 1 - back])
        back++;
    while (back > 0 && (x->data[x->size - back] & 0xc0) == 0x80)
        back--;
    start = units(t, x->data, front);
    gone = units(t, x->data + front, x->size - front - back);
    t->patching = PATCHES_WANTED;
    patches_copy(t, old); /* of messages before the state */
    if (gone > 0)
        patch_delete(t, start, gone);
    if (y->size > front + back)
        patch_insert(t, start, y->data + front, y->size - front - back,
                     units(t, y->data + front, y->size - front - back));
    y->size = 0;
    return t->patching == PATCHES_LOST ? DTP_TEXT_MEMORY : DTP_TEXT_OK;
}

/* Give `t` what `fresh` has, and free what it had. */
static void replace(dtp_text *t, dtp_text *fresh)
{
    dtp_text swapped;
    fresh->state.undos = fresh->state.redos = 0;
    fresh->busy++; /* as `t` is */
    memcpy(&swapped, t, sizeof swapped);
    memcpy(t, fresh, sizeof *t);
    memcpy(fresh, &swapped, sizeof swapped);
    dtp_text_free(fresh);
}

static int merge_message(dtp_text *t, const message *m, const uint8_t *start);

static uint64_t operations(const dtp_text *t)
{
    uint64_t sum = 0;
    size_t i;
    for (i = 0; i < t->agent_count; i++)
        sum += t->agents[i].next;
    return sum;
}

/* A text of its own with what a state says: also its order must agree with its operations. */
static int load_state(dtp_text *fresh, const message *m, const uint8_t *start)
{
    dtp_reader spans;
    int code = names_read(fresh, m, agent_intern);
    if (code == DTP_TEXT_OK)
        code = load_bases(fresh, m, &spans, start);
    if (code == DTP_TEXT_OK)
        code = load_logs(fresh, m, start);
    if (code == DTP_TEXT_OK)
        code = load_spans(fresh, m, spans, start);
    if (code == DTP_TEXT_OK)
        code = fresh->is_list ? mark_all(fresh) : m->marks > 0 ? rich_load(fresh) : DTP_TEXT_OK;
    if (code != DTP_TEXT_OK)
        return code;
    fresh->state.at = (uint64_t)(m->groups.at - start);
    return logs_agree(fresh);
}

/* What `fresh` has and `t`, which knows all that is compacted there, lacks. */
static int merge_from(dtp_text *t, dtp_text *fresh)
{
    const uint8_t *version, *data;
    int64_t size = version_write(t, &version);
    message m;
    dtp_reader r;
    int code;
    if (size >= 0)
        size = dtp_text_changes(fresh, version, (size_t)size, &data);
    if (size <= 0)
        return (int)size;
    r.start = r.at = data;
    r.end = data + size;
    code = wire_check(&r, &m);
    return code == DTP_TEXT_OK ? merge_message(t, &m, data) : code;
}

static int merge_state(dtp_text *t, const message *m, const uint8_t *start)
{
    dtp_text *fresh;
    int known, code = waits_settle(t);
    if (code != DTP_TEXT_OK)
        return code;
    known = has_bases(t, m);
    fresh = (t->is_list ? dtp_list_new : dtp_text_new)(t->agents[0].name, t->agents[0].size, (const uint8_t *)t->seed);
    if (fresh == NULL)
        return DTP_TEXT_MEMORY;
    fresh->state.cap = t->state.cap;
    fresh->state.waiting_cap = t->state.waiting_cap;
    fresh->state.depth = t->state.depth;
    code = load_state(fresh, m, start);
    if (code == DTP_TEXT_OK && !known && !covers(fresh, t))
        code = DTP_TEXT_DIVERGED;
    if (code == DTP_TEXT_OK && !known && t->patching != PATCHES_UNWANTED)
        code = patch_between(t, fresh);
    if (code != DTP_TEXT_OK || known) {
        t->state.at = fresh->state.at;
        if (code == DTP_TEXT_OK)
            code = merge_from(t, fresh);
        dtp_text_free(fresh);
        return code;
    }
    fresh->state.merged = t->state.merged + operations(fresh) - operations(t);
    fresh->state.taken = fresh->agents[0].next;
    fresh->patching = t->patching;
    rich_replace(fresh, t);
    replace(t, fresh);
    return DTP_TEXT_OK;
}

static int merge_message(dtp_text *t, const message *m, const uint8_t *start)
{
    int code;
    if (m->state)
        return merge_state(t, m, start);
    code = names_read(t, m, agent_intern);
    return code == DTP_TEXT_OK ? merge_groups(t, m, start) : code;
}

int dtp_text_merge(dtp_text *t, const uint8_t *data, size_t size, int patches)
{
    dtp_reader r;
    message first, m;
    size_t count = 0;
    uint32_t before;
    int code = DTP_TEXT_OK;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    before = (uint32_t)t->state.length;
    t->state.merged = t->state.searched = 0;
    t->patching = patches ? PATCHES_WANTED : PATCHES_UNWANTED;
    patches_clear(t);
    rich_clear(t);
    r.start = r.at = data;
    r.end = data + size;
    while (r.at < r.end && code == DTP_TEXT_OK) {
        const uint8_t *at = r.at;
        message *next = count++ == 0 ? &first : &m;
        code = wire_check(&r, next);
        if (code == DTP_TEXT_OK && next->list != t->is_list) {
            code = DTP_TEXT_FORMAT;
            r.at = at;
        }
    }
    if (code != DTP_TEXT_OK)
        t->state.at = (uint64_t)(r.at - data);
    if (count > 0 && code == DTP_TEXT_OK)
        code = merge_message(t, &first, data);
    r.at = count > 0 ? first.end : r.end;
    while (r.at < r.end && code == DTP_TEXT_OK) {
        (void)wire_check(&r, &m); /* checked before */
        code = merge_message(t, &m, data);
    }
    if (t->state.waiting > 0) {
        int drained = drain(t);
        code = code == DTP_TEXT_OK ? drained : code;
    }
    if (t->patching == PATCHES_WHOLE)
        patch_whole(t, before);
    if (t->patching == PATCHES_LOST && code == DTP_TEXT_OK)
        code = DTP_TEXT_MEMORY;
    text_leave(t);
    return code;
}
