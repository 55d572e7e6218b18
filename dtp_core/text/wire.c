/* text/wire.c - the form of messages, without a text: every count, number, reference and byte of UTF-8 is checked
 * before anything is done with them. docs/text.md is the specification. */
#include "crdt_text_internal.h"

/* A varint below `limit`. On failure the reader stands where the number begins. */
int wire_number(dtp_reader *r, uint64_t limit, uint32_t *value)
{
    const uint8_t *at = r->at;
    uint64_t number;
    if (dtp_read_varint(r, &number) != 0 || number >= limit) {
        r->at = at;
        return DTP_TEXT_FORMAT;
    }
    *value = (uint32_t)number;
    return DTP_TEXT_OK;
}

int wire_name(dtp_reader *r, const uint8_t **name, size_t *size)
{
    const uint8_t *at = r->at;
    uint32_t length;
    if (wire_number(r, DTP_TEXT_AGENT + 1, &length) != DTP_TEXT_OK)
        return DTP_TEXT_FORMAT;
    *name = dtp_read_bytes(r, length);
    if (*name == NULL || length == 0) {
        r->at = at;
        return DTP_TEXT_FORMAT;
    }
    *size = length;
    return DTP_TEXT_OK;
}

/* A character: of the group's author below the current number, or of any author. */
static int read_reference(group *g, unsigned form, id *x)
{
    const uint8_t *at = g->r.at;
    uint32_t number;
    switch (form) {
    case OP_REF_PREVIOUS:
        if (g->seq == 0)
            return DTP_TEXT_FORMAT;
        *x = make_id(g->self, g->seq - 1);
        return DTP_TEXT_OK;
    case OP_REF_OWN:
        if (wire_number(&g->r, (uint64_t)g->seq + 1, &number) != DTP_TEXT_OK || number == 0) {
            g->r.at = at;
            return DTP_TEXT_FORMAT;
        }
        *x = make_id(g->self, g->seq - number);
        return DTP_TEXT_OK;
    default:
        if (wire_number(&g->r, g->agents, &x->agent) != DTP_TEXT_OK)
            return DTP_TEXT_FORMAT;
        return wire_number(&g->r, DTP_TEXT_SEQUENCE, &x->seq);
    }
}

static int read_insert(group *g, unsigned head, run *op)
{
    unsigned form = head >> OP_A & 3, right = head >> OP_B & 3;
    op->kind = head & OP_OTHER_WAY ? INSERT_LEFT : INSERT_RIGHT;
    op->a = op->b = make_id(NOBODY, 0);
    if (form != OP_REF_NONE) {
        if (read_reference(g, form, &op->a) != DTP_TEXT_OK)
            return DTP_TEXT_FORMAT;
    } else if (op->kind == INSERT_LEFT) {
        return DTP_TEXT_FORMAT;
    }
    if (op->kind == INSERT_LEFT) {
        if (right != 0)
            return DTP_TEXT_FORMAT;
        op->b = op->a;
    } else if (right == OP_RIGHT_SAME) {
        if (!g->any)
            return DTP_TEXT_FORMAT;
        op->b = g->right;
    } else if (right != OP_RIGHT_END) {
        if (read_reference(g, right, &op->b) != DTP_TEXT_OK)
            return DTP_TEXT_FORMAT;
    }
    g->right = op->b;
    g->any = 1;
    return DTP_TEXT_OK;
}

static int read_delete(group *g, unsigned head, run *op, uint32_t len)
{
    unsigned form = head >> OP_A & 3;
    op->kind = head & OP_OTHER_WAY ? DELETE_DOWN : DELETE_UP;
    op->b = make_id(NOBODY, 0);
    if (form == OP_REF_NONE || head >> OP_B & 3 || read_reference(g, form, &op->a) != DTP_TEXT_OK)
        return DTP_TEXT_FORMAT;
    if (op->kind == DELETE_DOWN)
        return op->a.seq >= len - 1 ? DTP_TEXT_OK : DTP_TEXT_FORMAT;
    return len <= DTP_TEXT_SEQUENCE - op->a.seq ? DTP_TEXT_OK : DTP_TEXT_FORMAT;
}

/* On failure the reader stands at the fault. */
int wire_operation(group *g, wire_op *w)
{
    unsigned head;
    int code;
    if (g->r.at == g->r.end)
        return DTP_TEXT_FORMAT;
    head = *g->r.at;
    w->end = head == OP_END;
    if (w->end) {
        g->r.at++;
        return DTP_TEXT_OK;
    }
    w->op.marker = head == OP_MARKER;
    if (w->op.marker) {
        if (dtp_left(&g->r) < 2 || (g->r.at[1] & OP_ONE) == 0 || (g->r.at[1] & OP_KIND) > OP_VOID)
            return DTP_TEXT_FORMAT;
        head = *++g->r.at;
    }
    if ((head & OP_KIND) == OP_END)
        return DTP_TEXT_FORMAT;
    g->r.at++;
    w->len = 1;
    if ((head & OP_ONE) == 0) {
        const uint8_t *at = g->r.at;
        if (wire_number(&g->r, DTP_TEXT_SEQUENCE, &w->len) != DTP_TEXT_OK || w->len < 2) {
            g->r.at = at;
            return DTP_TEXT_FORMAT;
        }
    }
    if (w->len >= (uint32_t)DTP_TEXT_SEQUENCE - g->seq)
        return DTP_TEXT_FORMAT;
    w->op.seq = g->seq;
    w->dead = (head & OP_KIND) == OP_VOID;
    if ((head & OP_KIND) == OP_DELETE)
        code = read_delete(g, head, &w->op, w->len);
    else
        code = read_insert(g, head, &w->op);
    g->seq += w->len;
    return code;
}

int wire_group(group *g)
{
    uint32_t number;
    if (wire_number(&g->r, (uint64_t)g->agents + 1, &number) != DTP_TEXT_OK)
        return DTP_TEXT_FORMAT;
    if (number == 0)
        return 0;
    g->self = number - 1;
    g->any = 0;
    return wire_number(&g->r, DTP_TEXT_SEQUENCE, &g->seq) == DTP_TEXT_OK ? 1 : DTP_TEXT_FORMAT;
}

int wire_base_span(dtp_reader *r, uint32_t agents, const wire_span *before, wire_span *s)
{
    uint64_t jump;
    int64_t seq;
    unsigned head;
    const uint8_t *at = r->at;
    if (r->at == r->end)
        return DTP_TEXT_FORMAT;
    head = *r->at++;
    s->flags = head & (SPAN_DEAD | SPAN_LEFT | SPAN_RIGHT);
    s->len = 1;
    if ((head & SPAN_ONE) == 0
        && (wire_number(r, DTP_TEXT_SEQUENCE, &s->len) != DTP_TEXT_OK || s->len < 2))
        return DTP_TEXT_FORMAT;
    s->agent = before->agent;
    s->seq = before->seq + before->len;
    switch (head >> SPAN_REF & 15) {
    case SPAN_ON:
        break;
    case SPAN_OWN:
        if (dtp_read_varint(r, &jump) != 0)
            return DTP_TEXT_FORMAT;
        seq = (int64_t)s->seq + (int64_t)(jump >> 1 ^ (0 - (jump & 1)));
        if (before->agent == NOBODY || jump >> 33 != 0 || seq < 0 || seq >= DTP_TEXT_SEQUENCE)
            break;
        s->seq = (uint32_t)seq;
        return DTP_TEXT_OK;
    case SPAN_OTHER:
        if (wire_number(r, agents, &s->agent) != DTP_TEXT_OK)
            return DTP_TEXT_FORMAT;
        return wire_number(r, DTP_TEXT_SEQUENCE, &s->seq);
    default:
        r->at = at;
        return DTP_TEXT_FORMAT;
    }
    if ((head >> SPAN_REF & 15) == SPAN_ON && before->agent != NOBODY)
        return DTP_TEXT_OK;
    r->at = at;
    return DTP_TEXT_FORMAT;
}

/* The bases and spans of a state; *chars grows by the visible characters, which are all there are. */
static int check_base(dtp_reader *r, const message *m, uint64_t *chars)
{
    wire_span before = {NOBODY, 0, 0, 0}, s;

    uint32_t i, count, base;
    for (i = 0; i < m->agents; i++)
        if (wire_number(r, DTP_TEXT_SEQUENCE, &base) != DTP_TEXT_OK)
            return DTP_TEXT_FORMAT;

    if (wire_number(r, (uint64_t)dtp_left(r) + 1, &count) != DTP_TEXT_OK)
        return DTP_TEXT_FORMAT;
    for (i = 0; i < count; i++) {
        if (wire_base_span(r, m->agents, &before, &s) != DTP_TEXT_OK)
            return DTP_TEXT_FORMAT;
        if ((s.flags & SPAN_DEAD) == 0)
            *chars += s.len;
        before = s;
    }
    return DTP_TEXT_OK;
}

/* *marked: markers are inserted. */
static int check_groups(dtp_reader *r, const message *m, uint64_t *chars, int *marked)
{
    group g;
    wire_op w;
    int more;
    g.r = *r;
    g.agents = m->agents;
    while ((more = wire_group(&g)) == 1) {
        do {
            const uint8_t *at = g.r.at;
            if (wire_operation(&g, &w) != DTP_TEXT_OK) {
                r->at = g.r.at;
                return DTP_TEXT_FORMAT;
            }
            if (m->state && !w.end && w.dead) { /* the spans tell who is deleted */
                r->at = at;
                return DTP_TEXT_FORMAT;
            }
            if (w.end || w.op.kind >= DELETE_UP || w.dead)
                continue;
            *marked |= w.op.marker;
            if (!m->state)
                *chars += w.len;
        } while (!w.end);
    }
    r->at = g.r.at;
    return more;
}

/* Read one unit of a message's text: whether it is a marker, or DTP_TEXT_FORMAT. */
static int read_unit(const message *m, dtp_reader *r)
{
    list_cell c;
    int is_marker;
    if (m->list)
        return cell_read(r, &c) != DTP_TEXT_OK ? DTP_TEXT_FORMAT : c.kind != MARK_NONE;
    if (r->at == r->end)
        return DTP_TEXT_FORMAT;
    is_marker = *r->at == RICH_CELL;
    (void)dtp_read_bytes(r, utf8_skip(r->at, 1, NULL)); /* checked before */
    return is_marker;
}

/* Whether each marker of changes is inserted as such, and all else as what it is. */
static int check_markers(const message *m)
{
    dtp_reader cells = {m->text, m->text, m->text + m->text_size};
    group g;
    wire_op w;
    g.r = m->groups;
    g.agents = m->agents;
    while (wire_group(&g) == 1)
        for (;;) {
            uint32_t i;
            (void)wire_operation(&g, &w); /* checked before */
            if (w.end)
                break;
            for (i = 0; w.op.kind < DELETE_UP && !w.dead && i < w.len; i++)
                if (read_unit(m, &cells) != w.op.marker)
                    return DTP_TEXT_FORMAT;
        }
    return DTP_TEXT_OK;
}

int wire_check(dtp_reader *r, message *m)
{
    const uint8_t *name;
    size_t size;
    uint64_t chars = 0, length;
    uint32_t i;
    int64_t found;
    int marked = 0;
    weight w;
    if (r->at == r->end || *r->at < DTP_TEXT_CHANGES || *r->at > DTP_LIST_STATE)
        return DTP_TEXT_FORMAT;
    m->state = *r->at == DTP_TEXT_STATE || *r->at == DTP_LIST_STATE;
    m->list = *r->at++ >= DTP_LIST_CHANGES;
    m->newest = m->marks = 0;
    length = dtp_left(r) / 2 + 1; /* a name has two bytes at least */
    if (wire_number(r, length < DTP_TEXT_AGENTS ? length : DTP_TEXT_AGENTS, &m->agents) != DTP_TEXT_OK)
        return DTP_TEXT_FORMAT;
    m->names = *r;
    for (i = 0; i < m->agents; i++)
        if (wire_name(r, &name, &size) != DTP_TEXT_OK)
            return DTP_TEXT_FORMAT;
    m->bases = *r;
    if (m->state && check_base(r, m, &chars) != DTP_TEXT_OK)
        return DTP_TEXT_FORMAT;
    m->groups = *r;
    if (check_groups(r, m, &chars, &marked) != DTP_TEXT_OK)
        return DTP_TEXT_FORMAT;
    name = r->at;
    if (dtp_read_varint(r, &length) != 0)
        return DTP_TEXT_FORMAT;
    m->text = dtp_read_bytes(r, length);
    if (m->text == NULL) {
        r->at = name;
        return DTP_TEXT_FORMAT;
    }
    m->text_size = (size_t)length;
    found = m->list ? cells_count(m->text, m->text_size, &w, &m->newest)
                    : prose_count(m->text, m->text_size, &w, &m->marks, &m->newest);
    marked |= m->list || m->marks > 0;
    if (found < 0 || (uint64_t)found != chars || (marked && !m->state && check_markers(m) != DTP_TEXT_OK)) {
        r->at = name;
        return DTP_TEXT_FORMAT;
    }
    m->ascii = m->text_size == chars;
    m->end = r->at;
    return DTP_TEXT_OK;
}
