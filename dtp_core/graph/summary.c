/* graph/summary.c - what of an author's frames still counts becomes one frame, and such a frame is taken instead of them.
 * docs/graph.md, "Summaries". */
#include "crdt_graph.h"

enum { OP_OVERHEAD = 64, DOT_OVERHEAD = 16 + DTP_AUTHOR }; /* bytes in a frame beside names and values */

#define TRY(call)            \
    do {                     \
        int code_ = (call);  \
        if (code_ != DTP_OK) \
            return code_;    \
    } while (0)

struct dtp_summary {
    uint32_t author;
    uint64_t covered; /* clock up to which ops were added: what is stored may be frames, and a sum that begins with these */
    size_t size; /* bytes that the frame will not be above */
    dtp_parsed kept;
};

int dtp_summary_open(const dtp_graph *graph, uint32_t author, uint64_t before, dtp_summary **opened)
{
    dtp_summary *summary;
    if (author >= graph->author_count)
        return DTP_E_LIMIT;
    summary = dtp_allocate(sizeof *summary);
    if (summary == NULL)
        return DTP_E_MEMORY;
    memset(summary, 0, sizeof *summary);
    summary->author = author;
    summary->kept.before = before;
    *opened = summary;
    return DTP_OK;
}

void dtp_summary_close(dtp_summary *summary)
{
    if (summary == NULL)
        return;
    dtp_parsed_close(&summary->kept);
    dtp_release(summary);
}

/* ---- what counts ------------------------------------------------------------------------------------------------------ */

/* Return whether the op itself is part of what stands; of removals it is only told by their dots. Names are the graph's. */
static int stands(const dtp_graph *graph, const dtp_op *op, uint32_t author)
{
    uint32_t part = dtp_part_of(op);
    uint32_t slot = dtp_slot_find(graph, op->soul, op->key, part, dtp_slot_hash(graph, op->soul, op->key, part));
    uint32_t number;
    if (slot == DTP_NONE)
        return 0;
    switch (op->kind) {
    case DTP_TEXT_EDIT:
    case DTP_LIST_EDIT: return 1;
    case DTP_REGISTER_PUT:
    case DTP_COUNTER_TOTAL: return graph->slots[slot].clock == op->clock && graph->slots[slot].author == author;
    case DTP_SET_ADD:
    case DTP_VALUES_PUT:
        number = dtp_entry_find(graph, author, op->clock, slot);
        return number != DTP_NONE && graph->entries[number].value.spare == DTP_ENTRY_LIVE;
    default: return 0;
    }
}

/* A dot that the author itself made within what is summed up needs no removal: that it isn't there says it. */
static int is_needed(const dtp_summary *summary, const dtp_dot *dot)
{
    return dot->author != summary->author || dot->clock <= summary->kept.before;
}

/* ---- keeping ------------------------------------------------------------------------------------------------------------ */

static int reserve(dtp_summary *summary, const dtp_op *op, size_t names)
{
    dtp_parsed *kept = &summary->kept;
    size_t bytes = op->value_length;
    summary->size += OP_OVERHEAD + names + bytes + (size_t)op->dots * DOT_OVERHEAD;
    if (kept->count >= DTP_FRAME_OPS || summary->size > DTP_FRAME_BYTES - OP_OVERHEAD)
        return DTP_E_LIMIT;
    TRY(dtp_reserve((void **)&kept->ops, &kept->ops_room, kept->count + 1, sizeof *kept->ops));
    TRY(dtp_reserve((void **)&kept->dots, &kept->dots_room, kept->dot_count + op->dots, sizeof *kept->dots));
    return dtp_reserve((void **)&kept->bytes, &kept->bytes_room, kept->byte_count + bytes + 1, 1);
}

static uint32_t keep_bytes(dtp_parsed *kept, const uint8_t *bytes, size_t length)
{
    size_t at = kept->byte_count;
    if (length > 0)
        memcpy(kept->bytes + at, bytes, length);
    kept->byte_count += length;
    return (uint32_t)at;
}

/* How much of an op is kept: what it removes, if anything; the op, but for own dots that need no removal; all of it. */
enum { ITS_REMOVALS, ITSELF, UNCHANGED };

static int keep(dtp_graph *graph, dtp_summary *summary, const dtp_op *op, int much)
{
    const dtp_parsed *p = &graph->parsed;
    dtp_parsed *kept = &summary->kept;
    size_t first = kept->dot_count, i;
    dtp_op *copy;
    TRY(reserve(summary, op, (size_t)graph->names[op->soul].length + graph->names[op->key].length));
    for (i = 0; i < op->dots; i++)
        if (much == UNCHANGED || is_needed(summary, &p->dots[op->first_dot + i]))
            kept->dots[kept->dot_count++] = p->dots[op->first_dot + i];
    if (much == ITS_REMOVALS && kept->dot_count == first)
        return DTP_OK;
    copy = &kept->ops[kept->count++];
    *copy = *op;
    copy->first_dot = (uint32_t)first;
    copy->dots = (uint32_t)(kept->dot_count - first);
    if (much == ITS_REMOVALS) {
        copy->kind = op->kind == DTP_SET_ADD ? DTP_SET_REMOVE : op->kind == DTP_VALUES_PUT ? DTP_VALUES_REMOVE : op->kind;
        copy->value_length = 0;
    }
    copy->value_at = keep_bytes(kept, op->value, copy->value_length);
    return DTP_OK;
}

static int keep_all(dtp_graph *graph, dtp_summary *summary)
{
    dtp_parsed *p = &graph->parsed;
    const dtp_author *author = &graph->authors[summary->author];
    size_t i;
    for (i = 0; i < p->count; i++) {
        dtp_op *op = &p->ops[i];
        const dtp_name *soul;
        int much;
        if (op->clock <= summary->covered)
            continue;
        op->soul = p->names[op->soul].number;
        op->key = p->names[op->key].number;
        op->author = summary->author;
        soul = &graph->names[op->soul];
        if (!dtp_may_write(author, dtp_name_text(graph, soul), soul->length))
            much = UNCHANGED; /* the next verdicts depend on it, and what it wrote may turn void */
        else if (stands(graph, op, summary->author) || !dtp_applied(graph, summary->author, op->clock))
            much = ITSELF;
        else
            much = ITS_REMOVALS;
        if (much == UNCHANGED && !graph->asks)
            continue; /* void, here as everywhere */
        if (!dtp_is_old_list(op))
            TRY(keep(graph, summary, op, much));
    }
    return DTP_OK;
}

int dtp_summary_add(dtp_graph *graph, dtp_summary *summary, const uint8_t *body, size_t length, size_t *place)
{
    dtp_parsed *p = &graph->parsed, *kept = &summary->kept;
    size_t count = kept->count, dots = kept->dot_count, bytes = kept->byte_count, size = summary->size, i;
    int code = dtp_parse(p, graph->seed, body, length, 0, place);
    if (code == DTP_OK && dtp_has_ruled_list(graph, summary->author))
        code = DTP_E_LIMIT; /* a summary has no ops of lists before format 4, and would need these */
    if (code == DTP_OK)
        code = dtp_map_authors(graph, summary->author);
    if (code == DTP_OK)
        code = dtp_map_names(graph, p->bytes);
    if (code != DTP_OK)
        return code;
    for (i = 0; i < p->dot_count; i++)
        p->dots[i].author = p->authors[p->dots[i].author];
    code = keep_all(graph, summary);
    if (code != DTP_OK) {
        kept->count = count;
        kept->dot_count = dots;
        kept->byte_count = bytes;
        summary->size = size;
    } else if (p->count > 0 && p->last > summary->covered) {
        summary->covered = p->last;
    }
    return code;
}

enum { LEFT_OUT = 0xff }; /* no kind of op */

/* The op with this clock in a frame, whose clocks rise; NULL: there is none. */
static dtp_op *find_op(const dtp_parsed *parsed, uint64_t clock)
{
    size_t low = 0, high = parsed->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (parsed->ops[middle].clock < clock)
            low = middle + 1;
        else
            high = middle;
    }
    return low < parsed->count && parsed->ops[low].clock == clock ? &parsed->ops[low] : NULL;
}

int dtp_summary_edit(dtp_summary *summary, uint64_t clock, const uint8_t *value, size_t length)
{
    dtp_parsed *kept = &summary->kept;
    dtp_op *op = find_op(kept, clock);
    if (op == NULL || !dtp_is_edit(op))
        return DTP_E_LIMIT;
    if (length == 0) {
        op->kind = LEFT_OUT;
        return DTP_OK;
    }
    TRY(dtp_reserve((void **)&kept->bytes, &kept->bytes_room, kept->byte_count + length + 1, 1));
    op->value_length = (uint32_t)length;
    op->value_at = keep_bytes(kept, value, length);
    return DTP_OK;
}

int dtp_summary_end(dtp_graph *graph, dtp_summary *summary, dtp_view *view)
{
    dtp_parsed *kept = &summary->kept;
    size_t i, count = 0;
    for (i = 0; i < kept->count; i++)
        if (kept->ops[i].kind != LEFT_OUT)
            kept->ops[count++] = kept->ops[i];
    kept->count = count;
    graph->out.count = 0;
    if (summary->kept.count > 0)
        TRY(dtp_encode(graph, &summary->kept, summary->author, &graph->out));
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
    return DTP_OK;
}

/* ---- taking --------------------------------------------------------------------------------------------------------------- */

/* Return whether the frame that was just merged, whose clocks rise, has an addition at this clock. */
static int is_listed(const dtp_graph *graph, uint64_t clock)
{
    const dtp_op *op = find_op(&graph->parsed, clock);
    return op != NULL && (op->kind == DTP_SET_ADD || op->kind == DTP_VALUES_PUT);
}

/* Entries of the author that the summary is about and doesn't have were removed, although it may not say by what; and
 * what waited for its ops need not wait any more. */
static int drop_others(dtp_graph *graph, uint32_t author, uint64_t before, uint64_t last)
{
    size_t i;
    for (i = 0; i < graph->entry_count; i++) {
        const dtp_entry *entry = &graph->entries[i];
        if (entry->value.spare == DTP_ENTRY_FREE || entry->author != author || entry->clock <= before
            || entry->clock > last || (entry->value.spare == DTP_ENTRY_LIVE && is_listed(graph, entry->clock)))
            continue;
        if (entry->value.spare == DTP_ENTRY_LIVE) {
            dtp_change *change;
            TRY(dtp_reserve((void **)&graph->changes, &graph->changes_room, graph->change_count + 1, sizeof *change));
            change = &graph->changes[graph->change_count++];
            change->soul = graph->slots[entry->slot].soul;
            change->key = graph->slots[entry->slot].key;
            change->space = dtp_space_of(graph->slots[entry->slot].part);
            change->author = author;
            change->clock = last;
        }
        dtp_entry_free(graph, (uint32_t)i);
    }
    return DTP_OK;
}

int dtp_summary_merge(dtp_graph *graph, uint32_t author, const uint8_t *body, size_t length, uint64_t before,
                      uint64_t last, uint64_t limit, dtp_merged *result)
{
    dtp_parsed *p = &graph->parsed;
    int code = DTP_OK;
    dtp_begin(graph, result);
    if (author >= graph->author_count)
        return DTP_E_LIMIT;
    if (before >= last || last > INT64_MAX)
        return DTP_E_FORMAT;
    p->count = 0;
    if (length > 0) {
        code = dtp_parse(p, graph->seed, body, length, 0, &result->place);
        if (code == DTP_OK && (p->before != before || p->last > last))
            code = DTP_E_FORMAT;
        if (code == DTP_OK)
            code = dtp_check_edits(p, graph->authors[author].id, body, &result->place);
        if (code == DTP_OK && dtp_has_ruled_list(graph, author))
            code = DTP_E_FORMAT;
        if (code != DTP_OK)
            return code;
    }
    result->before = before;
    result->last = last;
    if (dtp_seen_covers(&graph->authors[author], before, last))
        return DTP_OK;
    if (last > limit || (length > 0 && graph->authors[author].deferred > 0 && dtp_is_ruled(graph, author)))
        return DTP_E_CLOCK; /* an author's ops are judged in their order */
    if (length > 0)
        code = dtp_take_verdicts(graph, author);
    if (code != DTP_OK)
        return code;
    if (dtp_seen_reserve(&graph->authors[author]) != DTP_OK)
        return DTP_E_MEMORY;
    if (length > 0)
        code = dtp_merge_parsed(graph, author, 1);
    if (code == DTP_OK)
        code = drop_others(graph, author, before, last);
    dtp_finish(graph, result);
    if (code != DTP_OK)
        return code;
    result->ops = p->count;
    dtp_seen_add(&graph->authors[author], before, last);
    if (last > graph->newest)
        graph->newest = last;
    return graph->edit_count > 0;
}
