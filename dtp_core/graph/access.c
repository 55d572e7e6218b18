/* graph/access.c - who may do what: whose the edits of texts and lists in a frame are, and verdicts that the caller gives on ops of souls
 * that others own or that are under rules. docs/graph.md, "Access" and "Rules". */
#include "crdt_graph.h"
#include "crdt_text_internal.h"

/* All groups are of one author: its number in the message's table, NOBODY for a message without groups. */
static int one_writer(const message *m, uint32_t *whose)
{
    group g;
    wire_op w;
    g.r = m->groups;
    g.agents = m->agents;
    *whose = NOBODY;
    while (wire_group(&g) == 1) {
        if (*whose != NOBODY && *whose != g.self)
            return DTP_E_FORMAT;
        *whose = g.self;
        do
            (void)wire_operation(&g, &w); /* its form was checked */
        while (!w.end);
    }
    return DTP_OK;
}

/* A message of changes whose operations are the author's: made as an agent whose name begins with its key. Markers
 * are not of a later time than the op, so that nobody's hold for ever. */
static int check_message(dtp_reader *reader, const uint8_t *author, const dtp_op *op)
{
    dtp_reader start = *reader;
    const uint8_t *name = NULL;
    size_t size = 0;
    uint32_t whose, i;
    message m;
    if (dtp_left(reader) == 0 || *reader->at != (op->kind == DTP_LIST_EDIT ? DTP_LIST_CHANGES : DTP_TEXT_CHANGES)
        || wire_check(reader, &m) != DTP_TEXT_OK)
        return DTP_E_FORMAT;
    if (one_writer(&m, &whose) != DTP_OK || m.newest > op->clock) {
        *reader = start;
        return DTP_E_FORMAT;
    }
    for (i = 0; whose != NOBODY && i <= whose; i++)
        (void)wire_name(&m.names, &name, &size);
    if (whose != NOBODY && (size < DTP_AUTHOR || memcmp(name, author, DTP_AUTHOR) != 0)) {
        *reader = start;
        return DTP_E_FORMAT;
    }
    return DTP_OK;
}

int dtp_check_edits(const dtp_parsed *p, const uint8_t *author, const uint8_t *body, size_t *fault)
{
    size_t i;
    if (p->edits == 0)
        return DTP_OK;
    for (i = 0; i < p->count; i++) {
        const dtp_op *op = &p->ops[i];
        size_t head;
        dtp_reader reader;
        if (!dtp_is_edit(op))
            continue;
        head = op->value[0] == 0xc4 ? 2 : op->value[0] == 0xc5 ? 3 : 5; /* MessagePack's bin 8, 16, 32 */
        reader.start = reader.at = op->value + head;
        reader.end = op->value + op->value_length;
        do {
            if (check_message(&reader, author, op) != DTP_OK) {
                *fault = (size_t)(reader.at - body);
                return DTP_E_FORMAT;
            }
        } while (reader.at < reader.end);
    }
    return DTP_OK;
}

/* ---- verdicts --------------------------------------------------------------------------------------------------------- */

void dtp_graph_ask(dtp_graph *graph)
{
    graph->asks = 1;
}

void dtp_graph_trust(dtp_graph *graph, int trusted)
{
    graph->trusted = trusted;
}

int dtp_graph_judge(dtp_graph *graph, const uint8_t *verdicts, size_t count)
{
    if (dtp_reserve((void **)&graph->verdicts, &graph->verdicts_room, count, 1) != DTP_OK)
        return DTP_E_MEMORY;
    memcpy(graph->verdicts, verdicts, count);
    graph->verdict_count = count;
    return DTP_OK;
}

int dtp_needs_verdict(const dtp_author *author, const dtp_parsed *p, const dtp_op *op)
{
    const dtp_spelled *soul = &p->names[op->soul];
    return p->owned && !dtp_may_write(author, p->bytes + soul->offset, soul->length);
}

static int some_ruled(const dtp_graph *graph, uint32_t author, int of_old_lists)
{
    const dtp_parsed *p = &graph->parsed;
    size_t i;
    for (i = 0; p->owned && graph->asks && i < p->count; i++)
        if ((!of_old_lists || dtp_is_old_list(&p->ops[i]))
            && dtp_needs_verdict(&graph->authors[author], p, &p->ops[i]))
            return 1;
    return 0;
}

int dtp_is_ruled(const dtp_graph *graph, uint32_t author)
{
    return some_ruled(graph, author, 0);
}

int dtp_has_ruled_list(const dtp_graph *graph, uint32_t author)
{
    return some_ruled(graph, author, 1);
}

int dtp_take_verdicts(dtp_graph *graph, uint32_t author)
{
    dtp_parsed *p = &graph->parsed;
    size_t i, count = graph->verdict_count;
    graph->verdict_count = 0;
    if (count == 0)
        return dtp_is_ruled(graph, author) ? DTP_E_RULED : DTP_OK;
    if (count != p->count)
        return DTP_E_LIMIT;
    for (i = 0; i < p->count; i++)
        p->ops[i].verdict = graph->verdicts[i];
    return DTP_OK;
}

uint64_t dtp_graph_newest(const dtp_graph *graph)
{
    const dtp_author *self = &graph->authors[graph->self];
    uint64_t last = self->seen_count > 0 ? self->seen[self->seen_count - 1].to : 0;
    if (graph->made.count > 0)
        last = graph->made.last;
    return last > graph->newest ? last : graph->newest;
}
