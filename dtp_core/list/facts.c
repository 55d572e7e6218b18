/* list/facts.c - what an edit of a list writes and touches, without a list: for rules. */
#include "crdt_graph.h"
#include "crdt_text_internal.h"

static uint8_t *put(uint8_t *out, const uint8_t *data, size_t size)
{
    out = dtp_put_varint(out, size);
    memcpy(out, data, size);
    return out + size;
}

static uint8_t *put_values(const message *m, uint8_t *out, size_t *count)
{
    dtp_reader cells = {m->text, m->text, m->text + m->text_size};
    list_cell c;
    while (cells.at < cells.end && cell_read(&cells, &c) == DTP_TEXT_OK)
        if (c.kind != MARK_PLACE) {
            out = put(out, c.value, c.value_size);
            ++*count;
        }
    return out;
}

/* The names of those whose elements markers speak of. */
static uint8_t *put_marked(const message *m, uint8_t *out, size_t *count)
{
    dtp_reader cells = {m->text, m->text, m->text + m->text_size};
    list_cell c;
    while (cells.at < cells.end && cell_read(&cells, &c) == DTP_TEXT_OK)
        if (c.kind != MARK_NONE) {
            out = put(out, c.name, c.name_size);
            ++*count;
        }
    return out;
}

/* The names of those whose elements, or markers, are deleted. NULL: no memory. */
static uint8_t *put_deleted(const message *m, uint8_t *out, size_t *count)
{
    uint8_t *touched = dtp_allocate((size_t)m->agents + 1);
    dtp_reader names = m->names;
    group g;
    wire_op w;
    uint32_t i;
    if (touched == NULL)
        return NULL;
    memset(touched, 0, (size_t)m->agents + 1);
    g.r = m->groups;
    g.agents = m->agents;
    while (wire_group(&g) == 1)
        do {
            (void)wire_operation(&g, &w); /* checked before */
            if (!w.end && w.op.kind >= DELETE_UP)
                touched[w.op.a.agent] = 1;
        } while (!w.end);
    for (i = 0; i < m->agents; i++) {
        const uint8_t *name;
        size_t size;
        (void)wire_name(&names, &name, &size);
        if (touched[i]) {
            out = put(out, name, size);
            ++*count;
        }
    }
    dtp_release(touched);
    return out;
}

int64_t dtp_list_facts(const uint8_t *data, size_t size, uint8_t *out, size_t count[2])
{
    uint8_t *at = out;
    dtp_reader r = {data, data, size > 0 ? data + size : data};
    message m;
    count[0] = count[1] = 0;
    while (r.at < r.end) {
        if (wire_check(&r, &m) != DTP_TEXT_OK || !m.list || m.state)
            return DTP_TEXT_FORMAT;
        at = put_values(&m, at, &count[0]);
    }
    for (r.at = data; r.at < r.end;) {
        (void)wire_check(&r, &m); /* checked before */
        at = put_marked(&m, at, &count[1]);
        at = put_deleted(&m, at, &count[1]);
        if (at == NULL)
            return DTP_TEXT_MEMORY;
    }
    return at - out;
}
