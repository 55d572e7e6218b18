/* graph/merge.c - frames of others become state: at once, later, or not at all. */
#include "crdt_graph.h"

enum {
    AHEAD = 12, /* how many ops before its turn a cell is fetched */
    FEW = 8     /* ops */
};

/* ---- applying one op ---------------------------------------------------------------------------------------------- */

/* That there is a text or a list, and who edited it last; the edit itself is handed on. */
static int apply_edit(dtp_graph *graph, uint32_t slot, const dtp_op *op)
{
    static const uint8_t there[DTP_SHOWN] = {0xc4, 0x00};
    dtp_bytes mark = {there, sizeof there};
    dtp_edit *edit;
    int code;
    if (dtp_reserve((void **)&graph->edits, &graph->edits_room, graph->edit_count + 1, sizeof *edit) != DTP_OK
        || dtp_buffer_reserve(&graph->edit_bytes, op->value_length) != DTP_OK)
        return DTP_E_MEMORY;
    if (graph->loading) { /* a state has the texts elsewhere, and here whether there is something in them */
        mark.at = op->value;
        mark.length = op->value_length;
        return op->value_length == DTP_SHOWN || op->value_length == DTP_HIDDEN
            ? dtp_slot_write(graph, slot, op->clock, op->author, mark) : DTP_E_FORMAT;
    }
    code = dtp_slot_write(graph, slot, op->clock, op->author, mark);
    if (code < 0)
        return code;
    if (op->value_length == sizeof there)
        return 0; /* no edit at all */
    edit = &graph->edits[graph->edit_count++];
    edit->space = dtp_space_of(dtp_part_of(op));
    edit->soul = op->soul;
    edit->key = op->key;
    edit->offset = graph->edit_bytes.count;
    edit->length = op->value_length;
    return dtp_buffer_put(&graph->edit_bytes, op->value, op->value_length) == DTP_OK ? 1 : DTP_E_MEMORY;
}

int dtp_apply(dtp_graph *graph, const dtp_op *op, const dtp_dot *dots)
{
    const dtp_name *soul = &graph->names[op->soul];
    uint32_t part = dtp_part_of(op), slot;
    uint32_t hash = part == DTP_PART_REGISTER ? op->hash : dtp_slot_hash(graph, op->soul, op->key, part);
    dtp_change *change;
    int code;
    if (op->verdict == DTP_VOID || dtp_is_old_list(op))
        return 0;
    if (!graph->loading && op->verdict != DTP_ALLOWED
        && !dtp_may_write(&graph->authors[op->author], dtp_name_text(graph, soul), soul->length))
        return 0;
    code = dtp_slot_get(graph, op->soul, op->key, part, hash, &slot);
    if (code != DTP_OK)
        return code;
    if (part > DTP_PART_TEXT) {
        code = dtp_entry_apply(graph, slot, op, dots);
    } else if (part >= DTP_PART_LIST) {
        code = apply_edit(graph, slot, op);
    } else {
        dtp_bytes value = {op->value, op->value_length};
        code = dtp_slot_write(graph, slot, op->clock, op->author, value);
    }
    if (code <= 0)
        return code;
    change = &graph->changes[graph->change_count++];
    change->soul = op->soul;
    change->key = op->key;
    change->space = dtp_space_of(part);
    change->author = op->author;
    change->clock = op->clock;
    return 1;
}

/* ---- from the frame's numbers to the graph's -------------------------------------------------------------------------- */

int dtp_map_authors(dtp_graph *graph, uint32_t author)
{
    dtp_parsed *p = &graph->parsed;
    size_t i;
    if (dtp_reserve((void **)&p->authors, &p->authors_room, p->author_count, sizeof *p->authors) != DTP_OK)
        return DTP_E_MEMORY;
    p->authors[0] = author;
    for (i = 1; i < p->author_count; i++)
        if (dtp_author_intern(graph, p->author_ids[i - 1], &p->authors[i]) != DTP_OK)
            return DTP_E_MEMORY;
    return DTP_OK;
}

/* For few ops the loops below have nothing to fetch ahead of; so guess, by hash alone, which names and slots they will
 * touch, and fetch those side by side. What is guessed wrong costs a little time, nothing else. */
static void warm(const dtp_graph *graph)
{
    const dtp_parsed *p = &graph->parsed;
    uint64_t cell;
    size_t i;
    for (i = 0; i < p->name_count; i++)
        dtp_index_prefetch(&graph->by_name, p->names[i].hash);
    for (i = 0; i < p->count; i++)
        dtp_index_prefetch(&graph->by_slot, p->ops[i].hash);
    for (i = 0; i < p->name_count; i++)
        if ((cell = graph->by_name.cells[p->names[i].hash & graph->by_name.mask]) != 0)
            dtp_prefetch_whole(&graph->names[dtp_cell_number(cell)], sizeof *graph->names);
    for (i = 0; i < p->count; i++)
        if ((cell = graph->by_slot.cells[p->ops[i].hash & graph->by_slot.mask]) != 0)
            dtp_prefetch_whole(&graph->slots[dtp_cell_number(cell)], sizeof *graph->slots);
}

int dtp_map_names(dtp_graph *graph, const uint8_t *base)
{
    dtp_parsed *p = &graph->parsed;
    size_t i;
    if (dtp_index_reserve(&graph->by_name, p->name_count) != DTP_OK)
        return DTP_E_MEMORY;
    for (i = 0; i < p->count; i++) {
        dtp_op *op = &p->ops[i];
        op->hash = dtp_slot_hash_of(graph, p->names[op->soul].hash, p->names[op->key].hash, DTP_PART_REGISTER);
    }
    if (p->count <= FEW)
        warm(graph);
    for (i = 0; i < p->name_count; i++) {
        dtp_spelled *name = &p->names[i];
        if (i + 2 * AHEAD < p->name_count)
            dtp_index_prefetch(&graph->by_name, p->names[i + 2 * AHEAD].hash);
        if (i + AHEAD < p->name_count)
            dtp_name_prefetch(graph, p->names[i + AHEAD].hash);
        if (i + AHEAD / 2 < p->name_count && p->names[i + AHEAD / 2].length > DTP_NAME_NEAR) {
            uint64_t cell = graph->by_name.cells[p->names[i + AHEAD / 2].hash & graph->by_name.mask];
            if (cell != 0)
                dtp_prefetch(dtp_name_text(graph, &graph->names[dtp_cell_number(cell)]));
        }
        if (dtp_name_intern(graph, base + name->offset, name->length, name->hash, &name->number) != DTP_OK)
            return DTP_E_MEMORY;
    }
    return DTP_OK;
}

int dtp_apply_parsed(dtp_graph *graph, int overlap)
{
    dtp_parsed *p = &graph->parsed;
    size_t i;
    for (i = 0; i < p->count; i++) {
        dtp_op *op = &p->ops[i];
        op->soul = p->names[op->soul].number;
        op->key = p->names[op->key].number;
        op->author = p->authors[op->author];
    }
    for (i = 0; i < p->dot_count; i++)
        p->dots[i].author = p->authors[p->dots[i].author];
    if (dtp_index_reserve(&graph->by_slot, p->count) != DTP_OK
        || dtp_reserve((void **)&graph->changes, &graph->changes_room, p->count, sizeof *graph->changes) != DTP_OK
        || dtp_reserve((void **)&graph->slots, &graph->slots_room, graph->slot_count + p->count, sizeof *graph->slots)
            != DTP_OK)
        return DTP_E_MEMORY;
    for (i = 0; i < p->count; i++) {
        const dtp_op *op = &p->ops[i];
        int code;
        if (i + 2 * AHEAD < p->count)
            dtp_index_prefetch(&graph->by_slot, p->ops[i + 2 * AHEAD].hash);
        if (i + AHEAD < p->count) {
            uint64_t cell = graph->by_slot.cells[p->ops[i + AHEAD].hash & graph->by_slot.mask];
            if (cell != 0)
                dtp_prefetch_whole(&graph->slots[dtp_cell_number(cell)], sizeof *graph->slots);
        }
        if (overlap && op->kind > DTP_COUNTER_TOTAL && dtp_applied(graph, op->author, op->clock))
            continue;
        code = dtp_apply(graph, op, p->dots);
        if (code < 0)
            return code;
        if (op->clock > graph->newest)
            graph->newest = op->clock;
    }
    return DTP_OK;
}

void dtp_begin(dtp_graph *graph, dtp_merged *result)
{
    graph->change_count = 0;
    graph->edit_count = 0;
    graph->edit_bytes.count = 0;
    memset(result, 0, sizeof *result);
}

void dtp_finish(dtp_graph *graph, dtp_merged *result)
{
    result->count = graph->change_count;
    result->edits = graph->edit_count;
}

static int overlaps(const dtp_author *author, uint64_t from, uint64_t to)
{
    size_t i;
    for (i = author->seen_count; i-- > 0;) /* most come at the end */
        if (author->seen[i].to <= from)
            return 0;
        else if (author->seen[i].from < to)
            return 1;
    return 0;
}

int dtp_merge_parsed(dtp_graph *graph, uint32_t author, int overlap)
{
    int code = dtp_map_authors(graph, author);
    if (code == DTP_OK)
        code = dtp_map_names(graph, graph->parsed.bytes);
    return code != DTP_OK ? code : dtp_apply_parsed(graph, overlap);
}

/* ---- frames that wait ----------------------------------------------------------------------------------------------- */

/* Whether values at a soul are read for verdicts: a document of rules, or what an author grants and uses. */
static int is_read(const uint8_t *soul, size_t length)
{
    static const uint8_t access[] = {'%', 'a', 'c', 'c', 'e', 's', 's', '/'};
    return memchr(soul, '/', length) == NULL
        || (length > sizeof access && memcmp(soul, access, sizeof access) == 0);
}

static dtp_load count_load(const dtp_parsed *p, size_t length)
{
    dtp_load load = {p->count, length + p->byte_count, 0, 0, 0, 0};
    size_t i;
    for (i = 0; i < p->count; i++) {
        const dtp_op *op = &p->ops[i];
        const dtp_spelled *soul = &p->names[op->soul];
        if (dtp_is_edit(op)) {
            load.edits++;
            load.edit_bytes += op->value_length;
        }
        if (p->owned && soul->length > 0 && p->bytes[soul->offset] == '%') {
            load.ruled++;
            if (is_read(p->bytes + soul->offset, soul->length))
                load.ruled_bytes += op->value_length;
        }
    }
    return load;
}

static void add_load(dtp_load *sum, const dtp_load *load)
{
    sum->ops += load->ops;
    sum->bytes += load->bytes;
    sum->edits += load->edits;
    sum->edit_bytes += load->edit_bytes;
    sum->ruled += load->ruled;
    sum->ruled_bytes += load->ruled_bytes;
}

static void remove_load(dtp_load *sum, const dtp_load *load)
{
    sum->ops -= load->ops;
    sum->bytes -= load->bytes;
    sum->edits -= load->edits;
    sum->edit_bytes -= load->edit_bytes;
    sum->ruled -= load->ruled;
    sum->ruled_bytes -= load->ruled_bytes;
}

int dtp_graph_weigh(dtp_graph *graph, const uint8_t *body, size_t length, dtp_load *load)
{
    size_t place;
    int code = dtp_parse(&graph->parsed, graph->seed, body, length, 0, &place);
    if (code == DTP_OK)
        *load = count_load(&graph->parsed, length);
    return code;
}

int dtp_defer(dtp_graph *graph, uint32_t author, const uint8_t *body, size_t length)
{
    dtp_deferred *frame;
    if (graph->authors[author].deferred >= DTP_DEFERRED_FRAMES)
        return DTP_E_LIMIT;
    if (dtp_reserve((void **)&graph->deferred, &graph->deferred_room, graph->deferred_count + 1, sizeof *frame)
        != DTP_OK)
        return DTP_E_MEMORY;
    frame = &graph->deferred[graph->deferred_count];
    frame->body = dtp_allocate(length);
    if (frame->body == NULL)
        return DTP_E_MEMORY;
    memcpy(frame->body, body, length);
    frame->length = length;
    frame->author = author;
    frame->before = graph->parsed.before;
    frame->last = graph->parsed.last;
    frame->load = count_load(&graph->parsed, length);
    add_load(&graph->deferred_load, &frame->load);
    graph->deferred_count++;
    graph->authors[author].deferred++;
    return DTP_OK;
}

dtp_load dtp_graph_deferred_load(const dtp_graph *graph)
{
    return graph->deferred_load;
}

uint32_t dtp_graph_deferred(const dtp_graph *graph, uint32_t author)
{
    return author < graph->author_count ? (uint32_t)graph->authors[author].deferred : 0;
}

uint64_t dtp_graph_waiting(const dtp_graph *graph)
{
    uint64_t first = 0;
    size_t i;
    for (i = 0; i < graph->deferred_count; i++)
        if (first == 0 || graph->deferred[i].last < first)
            first = graph->deferred[i].last;
    return first;
}

uint64_t dtp_graph_let_in(const dtp_graph *graph, uint32_t author)
{
    const dtp_author *known = author < graph->author_count ? &graph->authors[author] : NULL;
    uint64_t up_to;
    size_t i;
    if (known == NULL || known->seen_count == 0)
        return 0;
    up_to = known->seen[known->seen_count - 1].to;
    for (i = 0; known->deferred > 0 && i < graph->deferred_count; i++)
        if (graph->deferred[i].author == author && graph->deferred[i].before < up_to)
            up_to = graph->deferred[i].before;
    return up_to;
}

int dtp_graph_took(const dtp_graph *graph, uint32_t author, uint64_t clock)
{
    return author < graph->author_count && dtp_applied(graph, author, clock);
}

static size_t first_due(const dtp_graph *graph, uint64_t limit)
{
    size_t i, first = graph->deferred_count;
    for (i = 0; i < graph->deferred_count; i++)
        if (graph->deferred[i].last <= limit
            && (first == graph->deferred_count || graph->deferred[i].last < graph->deferred[first].last))
            first = i;
    return first;
}

int dtp_graph_due_frame(const dtp_graph *graph, uint64_t limit, dtp_view *view)
{
    size_t first = first_due(graph, limit);
    memset(view, 0, sizeof *view);
    if (first < graph->deferred_count) {
        view->bytes = graph->deferred[first].body;
        view->length = graph->deferred[first].length;
        view->author = graph->deferred[first].author;
    }
    return DTP_OK;
}

int dtp_graph_due(dtp_graph *graph, uint64_t limit, dtp_merged *result)
{
    size_t first = first_due(graph, limit);
    dtp_deferred frame;
    int code;
    dtp_begin(graph, result);
    if (first == graph->deferred_count)
        return DTP_OK;
    frame = graph->deferred[first];
    code = dtp_parse(&graph->parsed, graph->seed, frame.body, frame.length, 0, &result->place);
    if (code == DTP_OK)
        code = dtp_take_verdicts(graph, frame.author);
    if (code == DTP_OK)
        code = dtp_merge_parsed(graph, frame.author, 0);
    dtp_finish(graph, result);
    if (code != DTP_OK)
        return code; /* no memory, or no verdicts: it still waits */
    result->ops = graph->parsed.count;
    graph->authors[frame.author].deferred--;
    remove_load(&graph->deferred_load, &frame.load);
    graph->deferred[first] = graph->deferred[--graph->deferred_count];
    dtp_release(frame.body);
    return DTP_OK;
}

/* ---- merging ------------------------------------------------------------------------------------------------------------ */

int dtp_graph_merge(dtp_graph *graph, uint32_t author, const uint8_t *body, size_t length, uint64_t limit,
                    int may_wait, dtp_merged *result)
{
    dtp_parsed *p = &graph->parsed;
    int code, waits;
    dtp_begin(graph, result);
    if (author >= graph->author_count)
        return DTP_E_LIMIT;
    code = dtp_parse(p, graph->seed, body, length, 0, &result->place);
    if (code == DTP_OK && p->edits > 0)
        code = dtp_check_edits(p, graph->authors[author].id, body, &result->place);
    if (code != DTP_OK)
        return code;
    result->before = p->before;
    result->last = p->last;
    if (dtp_seen_covers(&graph->authors[author], p->before, p->last))
        return DTP_OK;
    waits = p->last > limit || graph->authors[author].deferred > 0; /* an author's frames take effect in their order */
    if (waits && !may_wait)
        return DTP_E_CLOCK;
    code = waits ? DTP_OK : dtp_take_verdicts(graph, author);
    if (code != DTP_OK)
        return code;
    if (dtp_seen_reserve(&graph->authors[author]) != DTP_OK)
        return DTP_E_MEMORY;
    if (waits) {
        code = dtp_defer(graph, author, body, length);
        result->deferred = code == DTP_OK;
    } else {
        code = dtp_merge_parsed(graph, author, overlaps(&graph->authors[author], p->before, p->last));
    }
    dtp_finish(graph, result);
    if (code != DTP_OK)
        return code;
    result->ops = p->count;
    dtp_seen_add(&graph->authors[author], p->before, p->last);
    return graph->edit_count > 0;
}

void dtp_graph_take_until(dtp_graph *graph, uint64_t limit)
{
    graph->take_until = limit;
}

int64_t dtp_graph_take(dtp_graph *graph, uint32_t author, const uint8_t *body, size_t length)
{
    int code = dtp_graph_merge(graph, author, body, length, graph->take_until, 0, &graph->result);
    return code < 0 ? code : (int64_t)graph->result.count * 2 + code;
}

int dtp_graph_check(dtp_graph *graph, const uint8_t *author, const uint8_t *body, size_t length, dtp_frame_facts *facts)
{
    int code;
    memset(facts, 0, sizeof *facts);
    code = dtp_parse(&graph->parsed, graph->seed, body, length, 0, &facts->place);
    if (code == DTP_OK && author != NULL)
        code = dtp_check_edits(&graph->parsed, author, body, &facts->place);
    if (code == DTP_OK) {
        facts->before = graph->parsed.before;
        facts->last = graph->parsed.last;
        facts->ops = graph->parsed.count;
    }
    return code;
}
