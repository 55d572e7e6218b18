/* text/encode.c - versions, changes and states as bytes. The same operations give the same bytes on every replica,
 * whatever order they came in. */
#include "crdt_text_internal.h"

enum { LISTS = DTP_LIST_CHANGES - DTP_TEXT_CHANGES, OP_ROOM = 32, KEEP = 65536 /* bytes of scratch that are kept between calls */ };

/* ---- writing --------------------------------------------------------------------------------------------- */

static int put_number(dtp_text *t, bytes *b, uint64_t number)
{
    int code = bytes_reserve(t, b, DTP_VARINT_MAX);
    if (code == DTP_TEXT_OK)
        b->size = (size_t)(dtp_put_varint(b->data + b->size, number) - b->data);
    return code;
}

static int put_bytes(dtp_text *t, bytes *b, const uint8_t *data, size_t size)
{
    int code = bytes_reserve(t, b, size);
    if (code == DTP_TEXT_OK && size > 0) {
        memcpy(b->data + b->size, data, size);
        b->size += size;
    }
    return code;
}

static int put_byte(dtp_text *t, bytes *b, unsigned byte)
{
    uint8_t one = (uint8_t)byte;
    return put_bytes(t, b, &one, 1);
}

static int put_name(dtp_text *t, bytes *b, const agent *a)
{
    int code = put_number(t, b, a->size);
    return code == DTP_TEXT_OK ? put_bytes(t, b, a->name, a->size) : code;
}

/* A message that is being written. */
typedef struct writer {
    dtp_text *t;
    uint32_t agents; /* named so far */
    uint32_t self;   /* author of the open group; NOBODY: none is open */
    uint32_t seq;    /* of the next operation in it */
    id right;
    int any;
    int state; /* characters are told with the spans */
} writer;

static void begin(writer *w, dtp_text *t)
{
    size_t i;
    memset(w, 0, sizeof *w);
    w->t = t;
    w->self = NOBODY;
    t->out.size = t->body.size = t->prose.size = t->names.size = 0;
    for (i = 0; i < t->agent_count; i++)
        t->agents[i].local = 0;
}

/* Index of an author in the message, which names it when it is met for the first time. */
static int local_of(writer *w, uint32_t who, uint32_t *local)
{
    agent *a = &w->t->agents[who];
    if (a->local == 0) {
        int code = put_name(w->t, &w->t->names, a);
        if (code != DTP_TEXT_OK)
            return code;
        a->local = ++w->agents;
    }
    *local = a->local - 1;
    return DTP_TEXT_OK;
}

static int end_group(writer *w)
{
    if (w->self == NOBODY)
        return DTP_TEXT_OK;
    w->self = NOBODY;
    return put_byte(w->t, &w->t->body, OP_END);
}

static int begin_group(writer *w, uint32_t who, uint32_t seq)
{
    uint32_t local;
    int code = end_group(w);
    if (code == DTP_TEXT_OK)
        code = local_of(w, who, &local);
    if (code == DTP_TEXT_OK)
        code = put_number(w->t, &w->t->body, (uint64_t)local + 1);
    if (code == DTP_TEXT_OK)
        code = put_number(w->t, &w->t->body, seq);
    w->self = who;
    w->seq = seq;
    w->any = 0;
    return code;
}

/* How to refer to a character, and the numbers that takes. */
static int reference(writer *w, id x, unsigned *form, uint32_t numbers[2], unsigned *count)
{
    *count = 0;
    if (x.agent != w->self) {
        *form = OP_REF_OTHER;
        *count = 2;
        numbers[1] = x.seq;
        return local_of(w, x.agent, &numbers[0]);
    }
    *form = OP_REF_OWN;
    *count = 1;
    numbers[0] = w->seq - x.seq;
    return DTP_TEXT_OK;
}

static int put_operation(writer *w, const run *op, uint32_t len, int dead)
{
    unsigned head, form, count[2] = {0, 0}, i, k;
    uint32_t numbers[2][2];
    bytes *b = &w->t->body;
    int code = bytes_reserve(w->t, b, OP_ROOM);
    uint8_t *at;
    head = op->kind >= DELETE_UP ? OP_DELETE : dead ? OP_VOID : OP_INSERT;
    if (op->kind == INSERT_LEFT || op->kind == DELETE_DOWN)
        head |= OP_OTHER_WAY;
    if (len == 1)
        head |= OP_ONE;
    form = OP_REF_NONE;
    if (w->seq > 0 && same_id(op->a, make_id(w->self, w->seq - 1)))
        form = OP_REF_PREVIOUS;
    else if (op->a.agent != NOBODY && code == DTP_TEXT_OK)
        code = reference(w, op->a, &form, numbers[0], &count[0]);
    head |= form << OP_A;
    if (op->kind == INSERT_RIGHT) {
        form = OP_RIGHT_END;
        if (w->any && same_id(op->b, w->right))
            form = OP_RIGHT_SAME;
        else if (op->b.agent != NOBODY && code == DTP_TEXT_OK)
            code = reference(w, op->b, &form, numbers[1], &count[1]);
        head |= form << OP_B;
    }
    if (code != DTP_TEXT_OK)
        return code;
    if (op->kind < DELETE_UP) {
        w->right = op->b;
        w->any = 1;
    }
    at = b->data + b->size;
    if (op->marker)
        *at++ = OP_MARKER;
    *at++ = (uint8_t)head;
    if (len > 1)
        at = dtp_put_varint(at, len);
    for (i = 0; i < 2; i++)
        for (k = 0; k < count[i]; k++)
            at = dtp_put_varint(at, numbers[i][k]);
    b->size = (size_t)(at - b->data);
    w->seq += len;
    return DTP_TEXT_OK;
}

/* ---- operations ------------------------------------------------------------------------------------------ */

/* Insertions [seq, end) of one run: as many operations as there are stretches of visible and deleted characters. */
static int put_insertions(writer *w, uint32_t who, uint32_t seq, uint32_t end)
{
    dtp_text *t = w->t;
    while (seq < end) {
        uint32_t stretch = 0;
        int dead = 0;
        run op;
        int code = DTP_TEXT_OK;
        while (seq + stretch < end) {
            place p;
            weight sum;
            uint32_t some;
            const span *s;
            const uint8_t *text;
            if (!locate(t, make_id(who, seq + stretch), &p))
                return DTP_TEXT_REFERENCE; /* can't be */
            s = at_place(&p);
            if (stretch > 0 && is_deleted(s) != dead)
                break;
            dead = is_deleted(s);
            some = s->len - p.off < end - seq - stretch ? s->len - p.off : end - seq - stretch;
            stretch += some;
            if (dead)
                continue;
            text = span_text(t, s, p.off, some, &sum);
            code = put_bytes(t, &t->prose, text, sum.chars + sum.more8);
            if (code != DTP_TEXT_OK)
                return code;
        }
        if (!family(t, make_id(who, seq), &op))
            return DTP_TEXT_REFERENCE; /* can't be */
        code = put_operation(w, &op, stretch, dead);
        if (code != DTP_TEXT_OK)
            return code;
        seq += stretch;
    }
    return DTP_TEXT_OK;
}

/* A run's operations [seq, stop), or to its end. */
static int put_run(writer *w, uint32_t who, size_t i, uint32_t seq, uint32_t stop)
{
    agent *a = &w->t->agents[who];
    run op = log_run(a, i);
    uint32_t end = run_end(a, i) < stop ? run_end(a, i) : stop;
    if (op.kind < DELETE_UP && w->state)
        return put_operation(w, &op, end - seq, 0); /* from its first number on */
    if (op.kind < DELETE_UP)
        return put_insertions(w, who, seq, end);
    if (op.kind == DELETE_UP)
        op.a.seq += seq - op.seq;
    else
        op.a.seq -= seq - op.seq;
    if (end - seq == 1)
        op.kind = DELETE_UP;
    return put_operation(w, &op, end - seq, 0);
}

/* Return whether a character is known to whoever has all that was written so far; else its author. */
static int is_written(const dtp_text *t, id x, uint32_t *author)
{
    *author = x.agent;
    return x.agent == NOBODY || x.seq < t->agents[x.agent].mark;
}

/* The author whose operations a run still needs, or NOBODY. */
static uint32_t run_needs(dtp_text *t, uint32_t who, size_t i)
{
    agent *a = &t->agents[who];
    const run r = log_run(a, i);
    uint32_t author;
    if (r.marker) {
        place p;
        if (locate(t, make_id(who, r.seq), &p) && !is_deleted(at_place(&p))) {
            id about[2] = {{NOBODY, 0}, {NOBODY, 0}};
            unsigned k;
            if (t->is_list)
                about[0] = mark_element_at(t, &p);
            else
                rich_ends(t, &p, about);
            for (k = 0; k < 2; k++)
                if (about[k].agent != who && !is_written(t, about[k], &author))
                    return author;
        }
    }
    if (r.kind < DELETE_UP) {
        if (r.a.agent != who && !is_written(t, r.a, &author))
            return author;
        return r.b.agent != who && !is_written(t, r.b, &author) ? author : NOBODY;
    }
    if (r.a.agent != who) {
        uint32_t more = r.kind == DELETE_UP ? run_end(a, i) - r.seq - 1 : 0;
        if (!is_written(t, make_id(r.a.agent, r.a.seq + more), &author))
            return author;
    }
    return NOBODY;
}

/* Write what an author did from its mark on, until an operation needs another author's first. */
static int put_author(writer *w, uint32_t who, uint32_t *blocked)
{
    agent *a = &w->t->agents[who];
    size_t i;
    int code = DTP_TEXT_OK, open = 0;
    *blocked = NOBODY;
    if (a->mark >= a->next)
        return DTP_TEXT_OK;
    for (i = log_find(a, a->mark); i < a->run_count; i++) {
        *blocked = run_needs(w->t, who, i);
        if (*blocked != NOBODY)
            break;
        if (!open)
            code = begin_group(w, who, a->mark);
        open = 1;
        if (code == DTP_TEXT_OK)
            code = put_run(w, who, i, a->mark, a->next);
        if (code != DTP_TEXT_OK)
            return code;
        a->mark = run_end(a, i);
    }
    return DTP_TEXT_OK;
}

/* All operations from the marks on, so that each comes behind those that it refers to. */
static int put_all(writer *w)
{
    dtp_text *t = w->t;
    size_t i;
    int code = agents_sorted(t);
    for (i = 0; i < t->agent_count && code == DTP_TEXT_OK; i++) {
        uint32_t first = t->order[i];
        while (code == DTP_TEXT_OK && t->agents[first].mark < t->agents[first].next) {
            uint32_t who = first;
            while (who != NOBODY && code == DTP_TEXT_OK)
                code = put_author(w, who, &who);
        }
    }
    return code;
}

/* ---- spans ----------------------------------------------------------------------------------------------- */

static int put_base_span(writer *w, bytes *b, const span *s, const span *before)
{
    unsigned head = (s->who & DEAD ? SPAN_DEAD : 0u) | (s->who & LEFT ? SPAN_LEFT : 0u)
        | (s->who & RIGHT ? SPAN_RIGHT : 0u) | (s->len == 1 ? SPAN_ONE : 0u);
    uint32_t end = before->seq + before->len, local;
    int code, same = before->len > 0 && span_agent(before) == span_agent(s);
    if (same)
        head |= (unsigned)(end == s->seq ? SPAN_ON : SPAN_OWN) << SPAN_REF;
    else
        head |= SPAN_OTHER << SPAN_REF;
    code = put_byte(w->t, b, head);
    if (code == DTP_TEXT_OK && s->len > 1)
        code = put_number(w->t, b, s->len);
    if (code != DTP_TEXT_OK || (same && end == s->seq))
        return code;
    if (same)
        return put_number(w->t, b, dtp_zigzag((int64_t)s->seq - (int64_t)end));
    code = local_of(w, span_agent(s), &local);
    if (code == DTP_TEXT_OK)
        code = put_number(w->t, b, local);
    return code == DTP_TEXT_OK ? put_number(w->t, b, s->seq) : code;
}

/* A span behind `open`: joined to it, or begun when that is written. */
static int add_span(writer *w, bytes *spans, span s, span *open, span *before, uint32_t *count)
{
    int code = DTP_TEXT_OK;
    s.who = span_agent(&s) | (is_deleted(&s) ? DEAD : 0u) | (s.who & (LEFT | RIGHT));
    if (open->len > 0 && spans_join(open, &s)) {
        open->len += s.len;
        open->who = (open->who & ~(uint32_t)RIGHT) | (s.who & RIGHT);
        return code;
    }
    if (open->len > 0) {
        code = put_base_span(w, spans, open, before);
        *before = *open;
        ++*count;
    }
    *open = s;
    return code;
}

/* All spans into `spans`, and their text. The table begins with those who have a base, in order. */
static int put_spans(writer *w, bytes *spans, uint32_t *count)
{
    dtp_text *t = w->t;
    span open = {0, 0, 0, 0, 0}, before = {0, 0, 0, 0, 0};
    leaf *l;
    uint32_t i, local;
    size_t k;
    int code = agents_sorted(t);
    *count = 0;
    for (k = 0; k < t->agent_count && code == DTP_TEXT_OK; k++)
        if (t->agents[t->order[k]].base > 0)
            code = local_of(w, t->order[k], &local);
    for (l = t->first; l != NULL && code == DTP_TEXT_OK; l = l->next)
        for (i = 0; i < l->head.count && code == DTP_TEXT_OK; i++) {
            const span *s = &l->spans[i];
            weight sum;
            if (!is_deleted(s)) {
                const uint8_t *text = span_text(t, s, 0, s->len, &sum);
                code = put_bytes(t, &t->prose, text, sum.chars + sum.more8);
            }
            if (code == DTP_TEXT_OK)
                code = add_span(w, spans, *s, &open, &before, count);
        }
    if (open.len > 0 && code == DTP_TEXT_OK) {
        code = put_base_span(w, spans, &open, &before);
        ++*count;
    }
    return code;
}

/* ---- messages -------------------------------------------------------------------------------------------- */

/* The numbers of the named authors' bases, in the order of their names. */
static int put_base_numbers(writer *w)
{
    dtp_text *t = w->t;
    size_t i;
    uint32_t k;
    int code = text_grow(t, &t->locals, &t->locals_room, t->agent_count, sizeof *t->locals);
    if (code != DTP_TEXT_OK)
        return code;
    for (i = 0; i < t->agent_count; i++)
        if (t->agents[i].local > 0)
            t->locals[t->agents[i].local - 1] = t->agents[i].base;
    for (k = 0; k < w->agents && code == DTP_TEXT_OK; k++)
        code = put_number(t, &t->out, t->locals[k]);
    return code;
}

static void shrink(dtp_text *t, bytes *b)
{
    if (b->room > KEEP)
        bytes_free(t, b);
}

/* Put the parts together. `spans` is NULL for changes. */
static int finish(writer *w, const bytes *spans, uint32_t span_count)
{
    dtp_text *t = w->t;
    bytes *out = &t->out;
    int code = end_group(w);
    if (code == DTP_TEXT_OK)
        code = put_number(t, &t->body, 0);
    if (code == DTP_TEXT_OK)
        code = put_byte(t, out, (spans == NULL ? DTP_TEXT_CHANGES : DTP_TEXT_STATE) + (t->is_list ? LISTS : 0u));
    if (code == DTP_TEXT_OK)
        code = put_number(t, out, w->agents);
    if (code == DTP_TEXT_OK)
        code = put_bytes(t, out, t->names.data, t->names.size);
    if (code == DTP_TEXT_OK && spans != NULL) {
        code = put_base_numbers(w);
        if (code == DTP_TEXT_OK)
            code = put_number(t, out, span_count);
        if (code == DTP_TEXT_OK)
            code = put_bytes(t, out, spans->data, spans->size);
    }
    if (code == DTP_TEXT_OK)
        code = put_bytes(t, out, t->body.data, t->body.size);
    if (code == DTP_TEXT_OK)
        code = put_number(t, out, t->prose.size);
    if (code == DTP_TEXT_OK)
        code = put_bytes(t, out, t->prose.data, t->prose.size);
    return code;
}

static int64_t leave_with(dtp_text *t, int code, const uint8_t **out)
{
    shrink(t, &t->body);
    shrink(t, &t->prose);
    shrink(t, &t->names);
    *out = t->out.data;
    text_leave(t);
    return code < 0 ? code : (int64_t)t->out.size;
}

int version_read(dtp_text *t, const uint8_t *version, size_t size, int strict)
{
    dtp_reader r;
    uint32_t count, i, seq;
    const uint8_t *name, *last = NULL;
    size_t length, last_length = 0, k;
    for (k = 0; k < t->agent_count; k++)
        t->agents[k].mark = 0;
    if (size == 0)
        return DTP_TEXT_OK;
    r.start = r.at = version;
    r.end = version + size;
    if (wire_number(&r, (uint64_t)DTP_TEXT_AGENTS + 1, &count) != DTP_TEXT_OK)
        count = UINT32_MAX;
    for (i = 0; i < count && count != UINT32_MAX; i++) {
        int64_t found;
        t->state.at = (uint64_t)(r.at - version);
        if (wire_name(&r, &name, &length) != DTP_TEXT_OK)
            return DTP_TEXT_FORMAT;
        if (last != NULL) {
            int order = memcmp(last, name, last_length < length ? last_length : length);
            if (order > 0 || (order == 0 && last_length >= length))
                return DTP_TEXT_FORMAT;
        }
        if (wire_number(&r, DTP_TEXT_SEQUENCE, &seq) != DTP_TEXT_OK || seq == 0)
            return DTP_TEXT_FORMAT;
        last = name;
        last_length = length;
        found = agent_lookup(t, name, length);
        if (strict && (found < 0 || t->agents[found].next < seq))
            return DTP_TEXT_UNSEEN;
        if (found >= 0)
            t->agents[found].mark = seq < t->agents[found].next ? seq : t->agents[found].next;
    }
    t->state.at = (uint64_t)(r.at - version);
    return r.at == r.end ? DTP_TEXT_OK : DTP_TEXT_FORMAT;
}

int64_t version_write(dtp_text *t, const uint8_t **out)
{
    size_t i, count = 0;
    int code;
    t->out.size = 0;
    code = waits_settle(t);
    for (i = 0; i < t->agent_count; i++)
        count += t->agents[i].next > 0;
    if (code == DTP_TEXT_OK)
        code = agents_sorted(t);
    if (code == DTP_TEXT_OK)
        code = put_number(t, &t->out, count);
    for (i = 0; i < t->agent_count && code == DTP_TEXT_OK; i++) {
        const agent *a = &t->agents[t->order[i]];
        if (a->next == 0)
            continue;
        code = put_name(t, &t->out, a);
        if (code == DTP_TEXT_OK)
            code = put_number(t, &t->out, a->next);
    }
    *out = t->out.data;
    return code < 0 ? code : (int64_t)t->out.size;
}

int64_t dtp_text_version(dtp_text *t, const uint8_t **out)
{
    int64_t size;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    size = version_write(t, out);
    text_leave(t);
    return size;
}

/* All from the marks on; nothing when there is nothing. */
static int write_changes(dtp_text *t)
{
    writer w;
    bytes spans = {NULL, 0, 0};
    size_t i;
    uint32_t count = 0;
    int code = DTP_TEXT_OK, state = 0, news = 0;
    for (i = 0; i < t->agent_count; i++) {
        state |= t->agents[i].mark < t->agents[i].base;
        news |= t->agents[i].mark < t->agents[i].next;
    }
    begin(&w, t);
    if (!news)
        return DTP_TEXT_OK;
    if (state) {
        for (i = 0; i < t->agent_count; i++)
            t->agents[i].mark = t->agents[i].base;
        w.state = 1;
        code = put_spans(&w, &spans, &count);
    }
    if (code == DTP_TEXT_OK)
        code = put_all(&w);
    if (code == DTP_TEXT_OK)
        code = finish(&w, state ? &spans : NULL, count);
    bytes_free(t, &spans);
    return code;
}

int64_t dtp_text_changes(dtp_text *t, const uint8_t *version, size_t size, const uint8_t **out)
{
    int code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    code = waits_settle(t);
    if (code == DTP_TEXT_OK)
        code = version_read(t, version, size, 0);
    if (code == DTP_TEXT_OK)
        code = write_changes(t);
    return leave_with(t, code, out);
}

/* Operations [first, end) of one author as a message. */
static int write_range(dtp_text *t, uint32_t who, uint32_t first, uint32_t end)
{
    writer w;
    agent *a = &t->agents[who];
    size_t i;
    int code;
    begin(&w, t);
    if (first >= end)
        return DTP_TEXT_OK;
    code = begin_group(&w, who, first);
    for (i = log_find(a, first); i < a->run_count && a->runs[i].seq < end && code == DTP_TEXT_OK; i++)
        code = put_run(&w, who, i, a->runs[i].seq > first ? a->runs[i].seq : first, end);
    return code == DTP_TEXT_OK ? finish(&w, NULL, 0) : code;
}

int64_t dtp_text_changes_of(dtp_text *t, const uint8_t *name, size_t size, uint32_t first, uint32_t end,
                            const uint8_t **out)
{
    int64_t who = dtp_text_agent_find(t, name, size);
    int code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    code = waits_settle(t);
    if (who < 0 || first < t->agents[who].base || end > t->agents[who].next)
        end = first; /* they aren't here, or not any more */
    if (code == DTP_TEXT_OK)
        code = write_range(t, who < 0 ? 0 : (uint32_t)who, first, end);
    return leave_with(t, code, out);
}

int64_t dtp_text_take(dtp_text *t, uint64_t stop, const uint8_t **out)
{
    agent *me = &t->agents[0];
    int code;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    if (t->state.taken < me->base)
        t->state.taken = me->base; /* compacted, so everybody has it */
    code = write_range(t, 0, (uint32_t)t->state.taken, stop < me->next ? (uint32_t)stop : me->next);
    return leave_with(t, code, out);
}

void dtp_text_discard(dtp_text *t)
{
    if (!text_enter(t))
        return;
    bytes_free(t, &t->out);
    text_leave(t);
}
