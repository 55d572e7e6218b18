/* graph/state.c - a graph begins, is saved, loaded, tidied, and ends. docs/graph.md, "States". */
#include "crdt_graph.h"

enum { CHUNK_OPS = 4096, CHUNK_BYTES = 4 << 20, STATE_VERSION = 2 };
static const uint8_t magic[4] = {'d', 't', 'p', 'g'};

#define TRY(call)            \
    do {                     \
        int code_ = (call);  \
        if (code_ != DTP_OK) \
            return code_;    \
    } while (0)

/* ---- beginning and end ------------------------------------------------------------------------------------------------ */

int dtp_graph_open(const uint8_t *author, const uint8_t *seed, dtp_graph **opened)
{
    dtp_graph *graph = dtp_allocate(sizeof *graph);
    int code;
    if (graph == NULL)
        return DTP_E_MEMORY;
    memset(graph, 0, sizeof *graph);
    memcpy(graph->seed, seed, sizeof graph->seed);
    graph->free_entry = DTP_NONE;
    code = dtp_author_intern(graph, author, &graph->self);
    /* so that look-ups need not ask whether there is a table */
    if (code == DTP_OK)
        code = dtp_index_reserve(&graph->by_name, 1);
    if (code == DTP_OK)
        code = dtp_index_reserve(&graph->by_slot, 1);
    if (code != DTP_OK) {
        dtp_graph_close(graph);
        return code;
    }
    *opened = graph;
    return DTP_OK;
}

dtp_merged *dtp_graph_result(dtp_graph *graph)
{
    return &graph->result;
}

void dtp_graph_close(dtp_graph *graph)
{
    size_t i;
    if (graph == NULL)
        return;
    for (i = 0; i < graph->author_count; i++)
        dtp_release(graph->authors[i].seen);
    for (i = 0; i < graph->slot_count; i++)
        if (graph->slots[i].part <= DTP_PART_TEXT)
            dtp_value_clear(&graph->slots[i].value);
    for (i = 0; i < graph->entry_count; i++)
        dtp_value_clear(&graph->entries[i].value);
    for (i = 0; i < graph->deferred_count; i++)
        dtp_release(graph->deferred[i].body);
    dtp_parsed_close(&graph->parsed);
    dtp_parsed_close(&graph->made);
    dtp_release(graph->authors);
    dtp_release(graph->names);
    dtp_release(graph->text);
    dtp_release(graph->slots);
    dtp_release(graph->entries);
    dtp_release(graph->containers);
    dtp_release(graph->deferred);
    dtp_release(graph->verdicts);
    dtp_release(graph->changes);
    dtp_release(graph->edits);
    dtp_release(graph->edit_bytes.bytes);
    dtp_release(graph->out.bytes);
    dtp_release(graph->chunk.bytes);
    dtp_release(graph->sorting);
    dtp_release(graph->by_author.cells);
    dtp_release(graph->by_name.cells);
    dtp_release(graph->by_slot.cells);
    dtp_release(graph->by_dot.cells);
    dtp_release(graph->by_member.cells);
    dtp_release(graph->local.cells);
    dtp_release(graph);
}

uint32_t dtp_graph_authors(const dtp_graph *graph)
{
    return (uint32_t)graph->author_count;
}

int64_t dtp_graph_author(dtp_graph *graph, const uint8_t *id)
{
    uint32_t number;
    int code = dtp_author_intern(graph, id, &number);
    return code == DTP_OK ? (int64_t)number : code;
}

int dtp_graph_set_owner(dtp_graph *graph, uint32_t number, const uint8_t *name, size_t length)
{
    if (number >= graph->author_count || length > DTP_OWNER_BYTES)
        return DTP_E_LIMIT;
    if (length > 0)
        memcpy(graph->authors[number].owner, name, length);
    graph->authors[number].owner_length = length;
    return DTP_OK;
}

int dtp_graph_has(const dtp_graph *graph, uint32_t author, uint64_t from, uint64_t to)
{
    return author < graph->author_count && dtp_seen_covers(&graph->authors[author], from, to);
}

/* ---- authors in order ------------------------------------------------------------------------------------------ */

/* Numbers to be sorted: twice `count` of room behind the states' numbers of authors. */
static int sorting(dtp_graph *graph, size_t count, uint32_t **items)
{
    size_t needed = 2 * graph->author_count + 2 * count;
    TRY(dtp_reserve((void **)&graph->sorting, &graph->sorting_room, needed, sizeof **items));
    *items = graph->sorting + 2 * graph->author_count;
    return DTP_OK;
}

/* The authors of a state, by key: those of whom something was seen, or whose entries wait. Their numbers in it are left at
 * graph->sorting, in order behind those. */
static int sort_authors(dtp_graph *graph, size_t *count)
{
    uint32_t *numbers, *order, author;
    size_t i, used = 0;
    TRY(sorting(graph, graph->author_count, &order));
    numbers = graph->sorting;
    for (author = 0; author < graph->author_count; author++)
        numbers[author] = graph->authors[author].seen_count > 0;
    for (i = 0; i < graph->entry_count; i++)
        if (graph->entries[i].value.spare != DTP_ENTRY_FREE)
            numbers[graph->entries[i].author] = 1;
    for (author = 0; author < graph->author_count; author++)
        if (numbers[author])
            order[used++] = author;
    dtp_sort(graph, order, order + used, used, dtp_author_order);
    for (i = 0; i < used; i++) {
        numbers[order[i]] = (uint32_t)i;
        numbers[graph->author_count + i] = order[i];
    }
    *count = used;
    return DTP_OK;
}

/* ---- what was seen ------------------------------------------------------------------------------------------------------ */

static int put_spans(dtp_buffer *out, const dtp_author *author)
{
    uint64_t at = 0;
    size_t i;
    TRY(dtp_buffer_varint(out, author->seen_count));
    for (i = 0; i < author->seen_count; i++) {
        TRY(dtp_buffer_varint(out, author->seen[i].from - at));
        TRY(dtp_buffer_varint(out, author->seen[i].to - author->seen[i].from));
        at = author->seen[i].to;
    }
    return DTP_OK;
}

static int read_spans(dtp_reader *reader, dtp_author *author)
{
    uint64_t count, gap, length, at = 0, i;
    TRY(dtp_read_varint(reader, &count));
    for (i = 0; i < count; i++) {
        TRY(dtp_read_varint(reader, &gap));
        TRY(dtp_read_varint(reader, &length));
        if (length == 0 || (gap == 0 && i > 0) || gap > INT64_MAX - at || length > INT64_MAX - at - gap)
            return DTP_E_FORMAT;
        TRY(dtp_seen_reserve(author));
        dtp_seen_add(author, at + gap, at + gap + length);
        at += gap + length;
    }
    return DTP_OK;
}

/* ---- saving --------------------------------------------------------------------------------------------------------------- */

static int flush_chunk(dtp_graph *graph)
{
    dtp_parsed *p = &graph->parsed;
    if (p->count == 0)
        return DTP_OK;
    graph->chunk.count = 0;
    p->before = 0;
    TRY(dtp_encode(graph, p, DTP_NONE, &graph->chunk));
    TRY(dtp_buffer_varint(&graph->out, graph->chunk.count));
    TRY(dtp_buffer_put(&graph->out, graph->chunk.bytes, graph->chunk.count));
    p->count = p->dot_count = p->byte_count = 0;
    return DTP_OK;
}

/* One op of the state: `value` may be NULL; `dot`: what is removed, or NULL. */
static int add_op(dtp_graph *graph, uint32_t slot, uint8_t kind, dtp_stamp stamp, const dtp_value *value,
                  const dtp_entry *dot)
{
    dtp_parsed *p = &graph->parsed;
    size_t length = value == NULL ? 0 : value->length;
    uint8_t room[DTP_VALUE_NEAR];
    dtp_op *op;
    if (p->count >= CHUNK_OPS || p->byte_count >= CHUNK_BYTES)
        TRY(flush_chunk(graph));
    TRY(dtp_reserve((void **)&p->ops, &p->ops_room, p->count + 1, sizeof *p->ops));
    TRY(dtp_reserve((void **)&p->dots, &p->dots_room, p->dot_count + 1, sizeof *p->dots));
    TRY(dtp_reserve((void **)&p->bytes, &p->bytes_room, p->byte_count + length + 1, 1));
    op = &p->ops[p->count++];
    memset(op, 0, sizeof *op);
    op->kind = kind;
    op->clock = stamp.clock;
    op->author = graph->sorting[stamp.author];
    op->soul = graph->slots[slot].soul;
    op->key = graph->slots[slot].key;
    op->value_at = (uint32_t)p->byte_count;
    op->value_length = (uint32_t)length;
    if (length > 0)
        memcpy(p->bytes + p->byte_count, dtp_value_get(value, room).at, length);
    p->byte_count += length;
    op->first_dot = (uint32_t)p->dot_count;
    if (dot != NULL) {
        p->dots[p->dot_count].author = graph->sorting[dot->author];
        p->dots[p->dot_count++].clock = dot->clock;
        op->dots = 1;
    }
    return DTP_OK;
}

static int add_entry(dtp_graph *graph, const dtp_entry *entry)
{
    static const uint8_t add[] = {DTP_SET_ADD, DTP_VALUES_PUT};
    uint32_t part = graph->slots[entry->slot].part;
    dtp_stamp stamp = {entry->clock, entry->author};
    return add_op(graph, entry->slot, add[part - DTP_PART_SET], stamp, &entry->value, NULL);
}

/* An entry that was removed before it came: the removal, one tick later than the dot, which is all that counts of it. */
static int add_removal(dtp_graph *graph, const dtp_entry *entry)
{
    static const uint8_t remove[] = {DTP_SET_REMOVE, DTP_VALUES_REMOVE};
    dtp_stamp stamp = {entry->clock + 1, entry->author};
    return add_op(graph, entry->slot, remove[graph->slots[entry->slot].part - DTP_PART_SET], stamp, NULL, entry);
}

static int save_slot(dtp_graph *graph, uint32_t number)
{
    const dtp_slot *slot = &graph->slots[number];
    dtp_stamp stamp = {slot->clock, slot->author};
    if (slot->part > DTP_PART_TEXT || slot->clock == 0)
        return DTP_OK;
    return add_op(graph, number,
                  slot->part == DTP_PART_REGISTER ? DTP_REGISTER_PUT
                      : slot->part == DTP_PART_TEXT ? DTP_TEXT_EDIT
                      : slot->part == DTP_PART_LIST ? DTP_LIST_EDIT : DTP_COUNTER_TOTAL,
                  stamp, &slot->value, NULL);
}

/* Registers and totals, by soul and key. */
static int save_slots(dtp_graph *graph)
{
    uint32_t *items, number, slot;
    size_t i, j, souls = 0, most = 0, count;
    TRY(sorting(graph, graph->name_count, &items));
    for (number = 0; number < graph->name_count; number++) {
        if (graph->names[number].first == DTP_NONE)
            continue;
        items[souls++] = number;
        for (count = 0, slot = graph->names[number].first; slot != DTP_NONE; slot = graph->slots[slot].value.spare)
            count++;
        most = count > most ? count : most;
    }
    dtp_sort(graph, items, items + souls, souls, dtp_name_order);
    TRY(sorting(graph, souls + most, &items)); /* which may have moved them */
    for (i = 0; i < souls; i++) {
        uint32_t *slots = items + souls;
        for (count = 0, slot = graph->names[items[i]].first; slot != DTP_NONE; slot = graph->slots[slot].value.spare)
            slots[count++] = slot;
        dtp_sort(graph, slots, slots + count, count, dtp_slot_order);
        for (j = 0; j < count; j++)
            TRY(save_slot(graph, slots[j]));
    }
    return DTP_OK;
}

/* Entries by container and dot; those that wait for their insertion or their add, too. */
static int save_entries(dtp_graph *graph)
{
    uint32_t *items, number;
    size_t i, count = 0;
    TRY(sorting(graph, graph->entry_count, &items));
    for (number = 0; number < graph->entry_count; number++)
        if (graph->entries[number].value.spare != DTP_ENTRY_FREE)
            items[count++] = number;
    dtp_sort(graph, items, items + count, count, dtp_entry_order);
    for (i = 0; i < count; i++) {
        const dtp_entry *entry = &graph->entries[items[i]];
        TRY(entry->value.spare == DTP_ENTRY_KILLED ? add_removal(graph, entry) : add_entry(graph, entry));
    }
    return DTP_OK;
}

static int save_ops(dtp_graph *graph)
{
    dtp_parsed *p = &graph->parsed;
    p->count = p->dot_count = p->byte_count = 0;
    TRY(save_slots(graph));
    TRY(save_entries(graph));
    return flush_chunk(graph);
}

static int save_deferred(dtp_graph *graph)
{
    dtp_buffer *out = &graph->out;
    uint32_t *items, i;
    TRY(sorting(graph, graph->deferred_count, &items));
    for (i = 0; i < graph->deferred_count; i++)
        items[i] = i;
    dtp_sort(graph, items, items + graph->deferred_count, graph->deferred_count, dtp_deferred_order);
    TRY(dtp_buffer_varint(out, graph->deferred_count));
    for (i = 0; i < graph->deferred_count; i++) {
        const dtp_deferred *frame = &graph->deferred[items[i]];
        TRY(dtp_buffer_varint(out, graph->sorting[frame->author]));
        TRY(dtp_buffer_varint(out, frame->length));
        TRY(dtp_buffer_put(out, frame->body, frame->length));
    }
    return DTP_OK;
}

static int save_head(dtp_graph *graph)
{
    dtp_buffer *out = &graph->out;
    uint8_t version = STATE_VERSION;
    size_t i, count;
    TRY(sort_authors(graph, &count));
    TRY(dtp_buffer_put(out, magic, sizeof magic));
    TRY(dtp_buffer_put(out, &version, 1));
    TRY(dtp_buffer_varint(out, graph->newest));
    TRY(dtp_buffer_varint(out, count));
    for (i = 0; i < count; i++) {
        const dtp_author *author = &graph->authors[graph->sorting[graph->author_count + i]];
        TRY(dtp_buffer_put(out, author->id, DTP_AUTHOR));
        TRY(put_spans(out, author));
    }
    return save_deferred(graph);
}

int dtp_graph_save(dtp_graph *graph, dtp_view *view)
{
    int code;
    if (graph->made.count > 0)
        return DTP_E_LIMIT;
    graph->out.count = 0;
    code = save_head(graph);
    if (code == DTP_OK)
        code = save_ops(graph);
    if (code == DTP_OK)
        code = dtp_buffer_varint(&graph->out, 0);
    graph->parsed.count = 0;
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
    return code;
}

/* ---- loading --------------------------------------------------------------------------------------------------------------- */

static int load_authors(dtp_graph *graph, dtp_reader *reader, uint32_t **numbers, size_t *count)
{
    uint64_t authors, i;
    const uint8_t *id;
    size_t room = 0;
    TRY(dtp_read_varint(reader, &authors));
    if (authors > dtp_left(reader) / DTP_AUTHOR)
        return DTP_E_FORMAT;
    TRY(dtp_reserve((void **)numbers, &room, (size_t)authors + 1, sizeof **numbers));
    *count = (size_t)authors;
    for (i = 0; i < authors; i++) {
        id = dtp_read_bytes(reader, DTP_AUTHOR);
        if (id == NULL)
            return DTP_E_FORMAT;
        TRY(dtp_author_intern(graph, id, &(*numbers)[i]));
        TRY(read_spans(reader, &graph->authors[(*numbers)[i]]));
    }
    return DTP_OK;
}

static int load_deferred(dtp_graph *graph, dtp_reader *reader, const uint32_t *numbers, size_t authors)
{
    uint64_t count, author, length, i;
    const uint8_t *body;
    size_t place;
    TRY(dtp_read_varint(reader, &count));
    for (i = 0; i < count; i++) {
        TRY(dtp_read_varint(reader, &author));
        TRY(dtp_read_varint(reader, &length));
        if (author >= authors || length > dtp_left(reader))
            return DTP_E_FORMAT;
        body = reader->at;
        TRY(dtp_parse(&graph->parsed, graph->seed, body, (size_t)length, 0, &place));
        TRY(dtp_check_edits(&graph->parsed, graph->authors[numbers[author]].id, body, &place));
        TRY(dtp_defer(graph, numbers[author], body, (size_t)length));
        reader->at += length;
    }
    return DTP_OK;
}

static int load_chunks(dtp_graph *graph, dtp_reader *reader, const uint32_t *numbers, size_t authors)
{
    dtp_parsed *p = &graph->parsed;
    uint64_t length;
    for (;;) {
        size_t place;
        const uint8_t *body;
        TRY(dtp_read_varint(reader, &length));
        if (length == 0)
            return reader->at == reader->end ? DTP_OK : DTP_E_FORMAT;
        if (length > dtp_left(reader) || authors == 0)
            return DTP_E_FORMAT;
        body = reader->at;
        if (dtp_parse(p, graph->seed, body, (size_t)length, authors, &place) != DTP_OK) {
            reader->at += place;
            return DTP_E_FORMAT;
        }
        TRY(dtp_reserve((void **)&p->authors, &p->authors_room, authors, sizeof *p->authors));
        memcpy(p->authors, numbers, authors * sizeof *numbers);
        graph->change_count = graph->edit_count = graph->edit_bytes.count = 0;
        TRY(dtp_map_names(graph, p->bytes));
        TRY(dtp_apply_parsed(graph, 0));
        reader->at += length;
    }
}

static int load(dtp_graph *graph, dtp_reader *reader, uint32_t **numbers)
{
    const uint8_t *head = dtp_read_bytes(reader, sizeof magic + 1);
    uint64_t newest;
    size_t authors = 0;
    if (head == NULL || memcmp(head, magic, sizeof magic) != 0 || head[sizeof magic] != STATE_VERSION)
        return DTP_E_FORMAT;
    TRY(dtp_read_varint(reader, &newest));
    if (newest > INT64_MAX)
        return DTP_E_FORMAT;
    TRY(load_authors(graph, reader, numbers, &authors));
    TRY(load_deferred(graph, reader, *numbers, authors));
    TRY(load_chunks(graph, reader, *numbers, authors));
    if (newest > graph->newest)
        graph->newest = newest;
    return DTP_OK;
}

int dtp_graph_load(dtp_graph *graph, const uint8_t *state, size_t length, size_t *place)
{
    dtp_reader reader = {state, state, state + length};
    uint32_t *numbers = NULL;
    int code;
    *place = 0;
    if (graph->author_count > 1 || graph->name_count > 0 || graph->authors[graph->self].seen_count > 0)
        return DTP_E_LIMIT;
    graph->loading = 1;
    code = load(graph, &reader, &numbers);
    graph->loading = 0;
    *place = (size_t)(reader.at - reader.start);
    dtp_release(numbers);
    graph->change_count = graph->edit_count = 0;
    return code;
}

/* ---- memory ----------------------------------------------------------------------------------------------------------------- */

static void shrink(void **array, size_t *room, size_t count, size_t item)
{
    void *moved;
    if (count == 0) {
        dtp_release(*array);
        *array = NULL;
        *room = 0;
    } else if (*room > count && (moved = dtp_resize(*array, count * item)) != NULL) {
        *array = moved;
        *room = count;
    }
}

int dtp_graph_tidy(dtp_graph *graph)
{
    size_t i;
    for (i = 0; i < graph->entry_count; i++) {
        const dtp_entry *entry = &graph->entries[i];
        if (entry->value.spare == DTP_ENTRY_KILLED
            && dtp_applied(graph, entry->author, entry->clock))
            dtp_entry_free(graph, (uint32_t)i);
    }
    dtp_parsed_close(&graph->parsed);
    if (graph->made.count == 0)
        dtp_parsed_close(&graph->made);
    shrink((void **)&graph->changes, &graph->changes_room, graph->change_count, sizeof *graph->changes);
    shrink((void **)&graph->edits, &graph->edits_room, graph->edit_count, sizeof *graph->edits);
    shrink((void **)&graph->edit_bytes.bytes, &graph->edit_bytes.room, graph->edit_bytes.count, 1);
    shrink((void **)&graph->out.bytes, &graph->out.room, 0, 1);
    shrink((void **)&graph->chunk.bytes, &graph->chunk.room, 0, 1);
    shrink((void **)&graph->sorting, &graph->sorting_room, 0, sizeof *graph->sorting);
    shrink((void **)&graph->local.cells, &graph->local_room, 0, sizeof *graph->local.cells);
    shrink((void **)&graph->text, &graph->text_room, graph->text_count, 1);
    shrink((void **)&graph->names, &graph->names_room, graph->name_count, sizeof *graph->names);
    shrink((void **)&graph->slots, &graph->slots_room, graph->slot_count, sizeof *graph->slots);
    shrink((void **)&graph->entries, &graph->entries_room, graph->entry_count, sizeof *graph->entries);
    return DTP_OK;
}

static size_t index_memory(const dtp_index *index)
{
    return index->cells == NULL ? 0 : (index->mask + 1) * sizeof *index->cells;
}

size_t dtp_graph_memory(const dtp_graph *graph)
{
    const dtp_parsed *p[] = {&graph->parsed, &graph->made};
    size_t i, sum = sizeof *graph + graph->text_room + graph->out.room + graph->chunk.room + graph->edit_bytes.room
        + graph->edits_room * sizeof *graph->edits
        + graph->authors_room * sizeof *graph->authors + graph->names_room * sizeof *graph->names
        + graph->slots_room * sizeof *graph->slots + graph->entries_room * sizeof *graph->entries
        + graph->containers_room * sizeof *graph->containers + graph->deferred_room * sizeof *graph->deferred
        + graph->changes_room * sizeof *graph->changes + graph->local_room * sizeof *graph->local.cells
        + graph->sorting_room * sizeof *graph->sorting;
    sum += index_memory(&graph->by_author) + index_memory(&graph->by_name) + index_memory(&graph->by_slot)
        + index_memory(&graph->by_dot) + index_memory(&graph->by_member);
    for (i = 0; i < 2; i++)
        sum += p[i]->ops_room * sizeof *p[i]->ops + p[i]->dots_room * sizeof *p[i]->dots + p[i]->bytes_room
            + p[i]->names_room * sizeof *p[i]->names + p[i]->authors_room * sizeof *p[i]->authors;
    for (i = 0; i < graph->author_count; i++)
        sum += graph->authors[i].seen_room * sizeof *graph->authors[i].seen;
    for (i = 0; i < graph->deferred_count; i++)
        sum += graph->deferred[i].length;
    for (i = 0; i < graph->slot_count; i++)
        sum += graph->slots[i].value.length > DTP_VALUE_NEAR ? graph->slots[i].value.length : 0;
    for (i = 0; i < graph->entry_count; i++) {
        sum += graph->entries[i].value.length > DTP_VALUE_NEAR ? graph->entries[i].value.length : 0;
    }
    return sum;
}
