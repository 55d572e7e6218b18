/* graph/read.c - what the graph holds, as MessagePack. */
#include "crdt_graph.h"

#define TRY(call)            \
    do {                     \
        int code_ = (call);  \
        if (code_ != DTP_OK) \
            return code_;    \
    } while (0)

/* ---- MessagePack ------------------------------------------------------------------------------------------------------- */

/* A head byte and a length behind it, big-endian. */
static int pack_head(dtp_buffer *buffer, unsigned head, uint64_t value, unsigned width)
{
    uint8_t bytes[9];
    unsigned i;
    bytes[0] = (uint8_t)head;
    for (i = 1; i <= width; i++)
        bytes[i] = (uint8_t)(value >> 8 * (width - i));
    return dtp_buffer_put(buffer, bytes, 1 + width);
}

int dtp_pack_array(dtp_buffer *buffer, size_t count)
{
    if (count < 16)
        return pack_head(buffer, 0x90u | (unsigned)count, 0, 0);
    return count <= UINT16_MAX ? pack_head(buffer, 0xdc, count, 2) : pack_head(buffer, 0xdd, count, 4);
}

int dtp_pack_map(dtp_buffer *buffer, size_t count)
{
    if (count < 16)
        return pack_head(buffer, 0x80u | (unsigned)count, 0, 0);
    return count <= UINT16_MAX ? pack_head(buffer, 0xde, count, 2) : pack_head(buffer, 0xdf, count, 4);
}

int dtp_pack_uint(dtp_buffer *buffer, uint64_t value)
{
    if (value < 0x80)
        return pack_head(buffer, (unsigned)value, 0, 0);
    if (value <= UINT32_MAX)
        return pack_head(buffer, 0xce, value, 4);
    return pack_head(buffer, 0xcf, value, 8);
}

int dtp_pack_text(dtp_buffer *buffer, const uint8_t *text, size_t length)
{
    if (length < 32)
        TRY(pack_head(buffer, 0xa0u | (unsigned)length, 0, 0));
    else if (length < 256)
        TRY(pack_head(buffer, 0xd9, length, 1));
    else
        TRY(pack_head(buffer, 0xda, length, 2)); /* a name is no longer */
    return dtp_buffer_put(buffer, text, length);
}

int dtp_pack_bin(dtp_buffer *buffer, const uint8_t *bytes, size_t length)
{
    if (length < 256)
        TRY(pack_head(buffer, 0xc4, length, 1));
    else
        TRY(pack_head(buffer, 0xc5, length, 2)); /* a position is no longer */
    return dtp_buffer_put(buffer, bytes, length);
}

static int pack_value(dtp_buffer *buffer, const dtp_value *value)
{
    uint8_t room[DTP_VALUE_NEAR];
    dtp_bytes bytes = dtp_value_get(value, room);
    return dtp_buffer_put(buffer, bytes.at, bytes.length);
}

static int pack_name(dtp_graph *graph, uint32_t number)
{
    const dtp_name *name = &graph->names[number];
    return dtp_pack_text(&graph->out, dtp_name_text(graph, name), name->length);
}

/* ---- looking up ------------------------------------------------------------------------------------------------------- */

static int find_name(const dtp_graph *graph, const uint8_t *text, size_t length, uint32_t *number)
{
    return dtp_name_find(graph, text, length, (uint32_t)dtp_hash(graph->seed, text, length), number);
}

static uint32_t next_slot(const dtp_graph *graph, uint32_t slot)
{
    return graph->slots[slot].value.spare;
}

/* The whole of a counter, of which this slot has one author's total: whether it is another than 0. The sum may need more
 * than 64 bits, so halves of totals are summed. */
static int is_counted(dtp_graph *graph, uint32_t number)
{
    const dtp_slot *one = &graph->slots[number];
    uint32_t slot;
    int64_t high = 0, low = 0, total;
    for (slot = dtp_first_total(graph, one->soul, one->key); slot != DTP_NONE; slot = dtp_next_total(graph, slot)) {
        uint8_t room[DTP_VALUE_NEAR];
        if (dtp_integer_of(dtp_value_get(&graph->slots[slot].value, room), &total) != DTP_OK)
            return 1;
        low += (int64_t)((uint64_t)total & UINT32_MAX);
        high += (total - (int64_t)((uint64_t)total & UINT32_MAX)) / (INT64_C(1) << 32);
    }
    return low % (INT64_C(1) << 32) != 0 || high + low / (INT64_C(1) << 32) != 0;
}

int dtp_is_there(dtp_graph *graph, uint32_t number)
{
    const dtp_slot *slot = &graph->slots[number];
    switch (slot->part) {
    case DTP_PART_REGISTER: return slot->value.length > 0;
    case DTP_PART_LIST:
    case DTP_PART_TEXT: return slot->value.length == DTP_SHOWN;
    case DTP_PART_SET:
    case DTP_PART_VALUES: return dtp_container_of(graph, number)->count > 0;
    default: return is_counted(graph, number);
    }
}

static void show(dtp_graph *graph, dtp_view *view)
{
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
}

int dtp_graph_get(dtp_graph *graph, const uint8_t *soul, size_t soul_length, const uint8_t *key, size_t key_length,
                  dtp_view *view)
{
    uint32_t soul_number, key_number, slot;
    dtp_bytes value;
    if (!find_name(graph, soul, soul_length, &soul_number) || !find_name(graph, key, key_length, &key_number))
        return 0;
    slot = dtp_slot_find(graph, soul_number, key_number, DTP_PART_REGISTER,
                         dtp_slot_hash(graph, soul_number, key_number, DTP_PART_REGISTER));
    if (slot == DTP_NONE || graph->slots[slot].value.length == 0)
        return 0;
    value = dtp_value_get(&graph->slots[slot].value, graph->near);
    view->bytes = value.at;
    view->length = value.length;
    view->clock = graph->slots[slot].clock;
    view->author = graph->slots[slot].author;
    return 1;
}

/* ---- reading what is at (soul, key) ------------------------------------------------------------------------------------- */

static int read_totals(dtp_graph *graph, uint32_t soul, uint32_t key)
{
    size_t count = 0;
    uint32_t slot;
    for (slot = dtp_first_total(graph, soul, key); slot != DTP_NONE; slot = dtp_next_total(graph, slot))
        count++;
    TRY(dtp_pack_array(&graph->out, count));
    for (slot = dtp_first_total(graph, soul, key); slot != DTP_NONE; slot = dtp_next_total(graph, slot)) {
        TRY(dtp_pack_array(&graph->out, 2));
        TRY(dtp_pack_uint(&graph->out, graph->slots[slot].part - 1));
        TRY(pack_value(&graph->out, &graph->slots[slot].value));
    }
    return DTP_OK;
}

static int pack_entry(dtp_graph *graph, uint32_t number)
{
    const dtp_entry *entry = &graph->entries[number];
    TRY(dtp_pack_array(&graph->out, 3));
    TRY(dtp_pack_uint(&graph->out, entry->author));
    TRY(dtp_pack_uint(&graph->out, entry->clock));
    return pack_value(&graph->out, &entry->value);
}

static int read_entries(dtp_graph *graph, uint32_t slot)
{
    dtp_container *container = dtp_container_of(graph, slot);
    uint32_t number;
    TRY(dtp_pack_array(&graph->out, container->count));
    for (number = container->first; number != DTP_NONE; number = graph->entries[number].next)
        TRY(pack_entry(graph, number));
    return DTP_OK;
}

static const uint32_t parts[DTP_SPACES] = {DTP_PART_REGISTER, DTP_NONE, DTP_PART_SET, DTP_PART_VALUES, DTP_PART_LIST,
                                          DTP_PART_TEXT};

int dtp_graph_read(dtp_graph *graph, uint32_t space, const uint8_t *soul, size_t soul_length, const uint8_t *key,
                   size_t key_length, dtp_view *view)
{
    uint32_t soul_number, key_number, slot;
    graph->out.count = 0;
    if (space == DTP_REGISTER || space >= DTP_LIST)
        return DTP_E_LIMIT;
    if (!find_name(graph, soul, soul_length, &soul_number) || !find_name(graph, key, key_length, &key_number)) {
        TRY(dtp_pack_array(&graph->out, 0));
    } else if (space == DTP_COUNTER) {
        TRY(read_totals(graph, soul_number, key_number));
    } else {
        slot = dtp_slot_find(graph, soul_number, key_number, parts[space],
                             dtp_slot_hash(graph, soul_number, key_number, parts[space]));
        TRY(slot == DTP_NONE ? dtp_pack_array(&graph->out, 0) : read_entries(graph, slot));
    }
    show(graph, view);
    return DTP_OK;
}

/* ---- what there is -------------------------------------------------------------------------------------------------------- */

/* Return whether the slot is to be listed for its key: of a counter's totals one alone. */
static int is_listed(dtp_graph *graph, uint32_t slot, uint32_t space)
{
    return dtp_space_of(graph->slots[slot].part) == space && (space != DTP_COUNTER || dtp_is_first_total(graph, slot))
        && dtp_is_there(graph, slot);
}

int dtp_graph_keys(dtp_graph *graph, uint32_t space, const uint8_t *soul, size_t soul_length, dtp_view *view)
{
    uint32_t number, slot;
    size_t count = 0;
    int is_map = space == DTP_REGISTER;
    graph->out.count = 0;
    if (space >= DTP_SPACES)
        return DTP_E_LIMIT;
    if (!find_name(graph, soul, soul_length, &number)) {
        TRY(is_map ? dtp_pack_map(&graph->out, 0) : dtp_pack_array(&graph->out, 0));
        show(graph, view);
        return DTP_OK;
    }
    for (slot = graph->names[number].first; slot != DTP_NONE; slot = next_slot(graph, slot))
        count += (size_t)is_listed(graph, slot, space);
    TRY(is_map ? dtp_pack_map(&graph->out, count) : dtp_pack_array(&graph->out, count));
    for (slot = graph->names[number].first; slot != DTP_NONE; slot = next_slot(graph, slot)) {
        if (!is_listed(graph, slot, space))
            continue;
        TRY(pack_name(graph, graph->slots[slot].key));
        if (is_map)
            TRY(pack_value(&graph->out, &graph->slots[slot].value));
    }
    show(graph, view);
    return DTP_OK;
}

int dtp_is_soul(dtp_graph *graph, uint32_t number)
{
    uint32_t slot;
    for (slot = graph->names[number].first; slot != DTP_NONE; slot = next_slot(graph, slot))
        if (is_listed(graph, slot, dtp_space_of(graph->slots[slot].part)))
            return 1;
    return 0;
}

static int is_soul(dtp_graph *graph, uint32_t number, const uint8_t *prefix, size_t length)
{
    const dtp_name *name = &graph->names[number];
    if (name->length < length || (length > 0 && memcmp(dtp_name_text(graph, name), prefix, length) != 0))
        return 0;
    return dtp_is_soul(graph, number);
}

int dtp_graph_souls(dtp_graph *graph, const uint8_t *prefix, size_t length, dtp_view *view)
{
    size_t count = 0;
    uint32_t number;
    graph->out.count = 0;
    for (number = 0; number < graph->name_count; number++)
        count += (size_t)is_soul(graph, number, prefix, length);
    TRY(dtp_pack_array(&graph->out, count));
    for (number = 0; number < graph->name_count; number++)
        if (is_soul(graph, number, prefix, length))
            TRY(pack_name(graph, number));
    show(graph, view);
    return DTP_OK;
}

int dtp_graph_show(dtp_graph *graph, uint32_t space, const uint8_t *soul, size_t soul_length, const uint8_t *key,
                   size_t key_length, int has_something)
{
    static const uint8_t marks[2][DTP_HIDDEN] = {{0xc4, 0x01, 0x00}, {0xc4, 0x00}};
    uint32_t part = space == DTP_TEXT ? DTP_PART_TEXT : DTP_PART_LIST, soul_number, key_number, slot;
    dtp_bytes mark = {marks[has_something != 0], has_something ? DTP_SHOWN : DTP_HIDDEN};
    if (space != DTP_TEXT && space != DTP_LIST)
        return DTP_E_LIMIT;
    if (!find_name(graph, soul, soul_length, &soul_number) || !find_name(graph, key, key_length, &key_number))
        return DTP_OK;
    slot = dtp_slot_find(graph, soul_number, key_number, part, dtp_slot_hash(graph, soul_number, key_number, part));
    return slot == DTP_NONE ? DTP_OK : dtp_value_set(&graph->slots[slot].value, mark);
}

int dtp_graph_name(const dtp_graph *graph, uint32_t number, const uint8_t **text, size_t *length)
{
    if (number >= graph->name_count)
        return DTP_E_LIMIT;
    *text = dtp_name_text(graph, &graph->names[number]);
    *length = graph->names[number].length;
    return DTP_OK;
}

int dtp_graph_author_id(const dtp_graph *graph, uint32_t number, const uint8_t **id)
{
    if (number >= graph->author_count)
        return DTP_E_LIMIT;
    *id = graph->authors[number].id;
    return DTP_OK;
}

int dtp_graph_changes(dtp_graph *graph, dtp_view *view)
{
    size_t i;
    graph->out.count = 0;
    TRY(dtp_pack_array(&graph->out, graph->change_count));
    for (i = 0; i < graph->change_count; i++) {
        const dtp_change *change = &graph->changes[i];
        TRY(dtp_pack_array(&graph->out, 5));
        TRY(pack_name(graph, change->soul));
        TRY(pack_name(graph, change->key));
        TRY(dtp_pack_uint(&graph->out, change->space));
        TRY(dtp_pack_uint(&graph->out, change->author));
        TRY(dtp_pack_uint(&graph->out, change->clock));
    }
    show(graph, view);
    return DTP_OK;
}

int dtp_graph_edits(dtp_graph *graph, dtp_view *view)
{
    size_t i;
    graph->out.count = 0;
    TRY(dtp_pack_array(&graph->out, graph->edit_count));
    for (i = 0; i < graph->edit_count; i++) {
        const dtp_edit *edit = &graph->edits[i];
        TRY(dtp_pack_array(&graph->out, 4));
        TRY(dtp_pack_uint(&graph->out, edit->space));
        TRY(pack_name(graph, edit->soul));
        TRY(pack_name(graph, edit->key));
        TRY(dtp_buffer_put(&graph->out, graph->edit_bytes.bytes + edit->offset, edit->length));
    }
    show(graph, view);
    return DTP_OK;
}

/* ---- frames ------------------------------------------------------------------------------------------------------------ */

static int pack_dots(dtp_graph *graph, const dtp_op *op)
{
    const dtp_parsed *p = &graph->parsed;
    uint32_t i;
    TRY(dtp_pack_array(&graph->out, op->dots));
    for (i = 0; i < op->dots; i++) {
        const dtp_dot *dot = &p->dots[op->first_dot + i];
        TRY(dtp_pack_array(&graph->out, 2));
        if (dot->author == 0)
            TRY(pack_head(&graph->out, 0xc0, 0, 0)); /* nil: the frame's own author */
        else
            TRY(dtp_pack_bin(&graph->out, p->author_ids[dot->author - 1], DTP_AUTHOR));
        TRY(dtp_pack_uint(&graph->out, dot->clock));
    }
    return DTP_OK;
}

static int pack_op(dtp_graph *graph, const dtp_op *op)
{
    const dtp_parsed *p = &graph->parsed;
    const dtp_spelled *soul = &p->names[op->soul], *key = &p->names[op->key];
    TRY(dtp_pack_array(&graph->out, 7));
    TRY(dtp_pack_uint(&graph->out, op->kind));
    TRY(dtp_pack_text(&graph->out, p->bytes + soul->offset, soul->length));
    TRY(dtp_pack_text(&graph->out, p->bytes + key->offset, key->length));
    TRY(dtp_pack_uint(&graph->out, op->clock));
    TRY(pack_dots(graph, op));
    if (op->kind == DTP_OLD_LIST_INSERT || op->kind == DTP_OLD_LIST_MOVE)
        TRY(dtp_pack_bin(&graph->out, p->bytes + op->position, op->position_length));
    else
        TRY(pack_head(&graph->out, 0xc0, 0, 0));
    /* [value], or [] when there is none: nil is a value */
    TRY(dtp_pack_array(&graph->out, op->value_length > 0));
    return op->value_length > 0 ? dtp_buffer_put(&graph->out, op->value, op->value_length) : DTP_OK;
}

int dtp_graph_ops(dtp_graph *graph, const uint8_t *body, size_t length, dtp_view *view, size_t *place)
{
    size_t i;
    TRY(dtp_parse(&graph->parsed, graph->seed, body, length, 0, place));
    graph->out.count = 0;
    TRY(dtp_pack_array(&graph->out, graph->parsed.count));
    for (i = 0; i < graph->parsed.count; i++)
        TRY(pack_op(graph, &graph->parsed.ops[i]));
    show(graph, view);
    return DTP_OK;
}
