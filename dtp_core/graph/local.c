/* graph/local.c - ops made here: applied at once, kept until the next commit makes one frame of them. */
#include "crdt_graph.h"

enum { OP_OVERHEAD = 64, DOT_OVERHEAD = 16 + DTP_AUTHOR }; /* bytes in a frame beside names and values */

#define TRY(call)            \
    do {                     \
        int code_ = (call);  \
        if (code_ != DTP_OK) \
            return code_;    \
    } while (0)

/* ---- time ------------------------------------------------------------------------------------------------------------ */

static uint64_t own_last(const dtp_graph *graph)
{
    const dtp_author *self = &graph->authors[graph->self];
    uint64_t last = self->seen_count > 0 ? self->seen[self->seen_count - 1].to : 0;
    return graph->made.count > 0 ? graph->made.last : last;
}

/* The first of `count` clocks for ops made now: above all that was seen, however far the wall clock is behind that. */
static int tick(const dtp_graph *graph, uint64_t now, size_t count, uint64_t *first)
{
    uint64_t last = own_last(graph) > graph->newest ? own_last(graph) : graph->newest;
    *first = last < now ? now : last + 1;
    return *first > INT64_MAX - count ? DTP_E_LIMIT : DTP_OK;
}

/* ---- keeping for the commit ------------------------------------------------------------------------------------------ */

/* Room in the frame to come and in memory. */
static int made_reserve(dtp_graph *graph, size_t ops, size_t dots, size_t bytes, size_t size)
{
    dtp_parsed *made = &graph->made;
    if (made->count + ops > DTP_FRAME_OPS || size > DTP_FRAME_BYTES - 16 - graph->made_size)
        return DTP_E_LIMIT;
    TRY(dtp_reserve((void **)&made->ops, &made->ops_room, made->count + ops, sizeof *made->ops));
    TRY(dtp_reserve((void **)&made->dots, &made->dots_room, made->dot_count + dots, sizeof *made->dots));
    return dtp_reserve((void **)&made->bytes, &made->bytes_room, made->byte_count + bytes, 1);
}

static uint32_t made_bytes(dtp_parsed *made, const uint8_t *bytes, size_t length)
{
    size_t at = made->byte_count;
    if (length > 0)
        memcpy(made->bytes + at, bytes, length);
    made->byte_count += length;
    return (uint32_t)at;
}

/* After a reserve. */
static void made_add(dtp_graph *graph, const dtp_op *op, const dtp_dot *dots)
{
    dtp_parsed *made = &graph->made;
    dtp_op *kept = &made->ops[made->count];
    if (made->count == 0)
        made->before = own_last(graph);
    *kept = *op;
    kept->value_at = made_bytes(made, op->value, op->value_length);
    kept->first_dot = (uint32_t)made->dot_count;
    if (op->dots > 0)
        memcpy(made->dots + made->dot_count, dots + op->first_dot, op->dots * sizeof *dots);
    made->dot_count += op->dots;
    made->last = op->clock;
    made->count++;
}

/* ---- rows ------------------------------------------------------------------------------------------------------------- */

/* An array's head: how many are in it. */
static int read_array(dtp_reader *reader, uint64_t *count)
{
    const uint8_t *at = reader->at;
    uint8_t head;
    size_t width, i;
    if (dtp_left(reader) == 0)
        return DTP_E_FORMAT;
    head = *at;
    if (head >= 0x90 && head <= 0x9f) {
        *count = head & 0x0f;
        reader->at++;
        return DTP_OK;
    }
    width = head == 0xdc ? 2 : head == 0xdd ? 4 : 0;
    if (width == 0 || dtp_left(reader) < 1 + width)
        return DTP_E_FORMAT;
    *count = 0;
    for (i = 1; i <= width; i++)
        *count = *count << 8 | at[i];
    reader->at += 1 + width;
    return DTP_OK;
}

static int read_name(dtp_graph *graph, dtp_reader *reader, size_t least, uint32_t *number)
{
    dtp_parsed *p = &graph->parsed;
    dtp_spelled *name = &p->names[p->name_count];
    const uint8_t *at = reader->at;
    size_t head, length;
    if (dtp_left(reader) < 3 && (dtp_left(reader) == 0 || *at < 0xa0 || *at > 0xbf))
        return DTP_E_FORMAT;
    if (*at >= 0xa0 && *at <= 0xbf) {
        head = 1;
        length = *at & 0x1f;
    } else if (*at == 0xd9) {
        head = 2;
        length = at[1];
    } else if (*at == 0xda) {
        head = 3;
        length = (size_t)at[1] << 8 | at[2];
    } else {
        return DTP_E_FORMAT;
    }
    if (length < least || length > DTP_NAME_BYTES || head + length > dtp_left(reader)
        || !dtp_is_utf8(at + head, length))
        return DTP_E_FORMAT;
    name->offset = (size_t)(at + head - reader->start);
    name->length = (uint32_t)length;
    name->hash = (uint32_t)dtp_hash(graph->seed, at + head, length);
    *number = (uint32_t)p->name_count++;
    reader->at += head + length;
    return DTP_OK;
}

static int read_row(dtp_graph *graph, dtp_reader *reader, dtp_op *op)
{
    const uint8_t *at = reader->at;
    uint64_t columns;
    dtp_bytes value = {NULL, 0};
    const dtp_spelled *soul;
    TRY(read_array(reader, &columns));
    if (columns != 2 && columns != 3) {
        reader->at = at;
        return DTP_E_FORMAT;
    }
    memset(op, 0, sizeof *op);
    op->kind = DTP_REGISTER_PUT;
    TRY(read_name(graph, reader, 1, &op->soul));
    soul = &graph->parsed.names[op->soul];
    if (graph->trusted)
        op->verdict = DTP_ALLOWED;
    else if (!dtp_may_write(&graph->authors[graph->self], reader->start + soul->offset, soul->length))
        return DTP_E_OWNER;
    TRY(read_name(graph, reader, 0, &op->key));
    if (columns == 3)
        TRY(dtp_read_value(reader, &value));
    op->value = value.at;
    op->value_length = (uint32_t)value.length;
    return DTP_OK;
}

static int read_rows(dtp_graph *graph, dtp_reader *reader)
{
    dtp_parsed *p = &graph->parsed;
    uint64_t count;
    size_t i;
    TRY(read_array(reader, &count));
    if (count > DTP_FRAME_OPS)
        return DTP_E_LIMIT;
    TRY(dtp_reserve((void **)&p->ops, &p->ops_room, (size_t)count, sizeof *p->ops));
    TRY(dtp_reserve((void **)&p->names, &p->names_room, 2 * (size_t)count, sizeof *p->names));
    TRY(dtp_reserve((void **)&p->authors, &p->authors_room, 1, sizeof *p->authors));
    p->name_count = p->dot_count = p->byte_count = 0;
    p->authors[0] = graph->self;
    for (i = 0; i < count; i++)
        TRY(read_row(graph, reader, &p->ops[i]));
    p->count = (size_t)count;
    return reader->at == reader->end ? DTP_OK : DTP_E_FORMAT;
}

int dtp_graph_put(dtp_graph *graph, const uint8_t *rows, size_t length, uint64_t now, dtp_merged *result)
{
    dtp_reader reader = {rows, rows, rows + length};
    dtp_parsed *p = &graph->parsed;
    uint64_t clock;
    size_t i, size;
    int code;
    dtp_begin(graph, result);
    code = read_rows(graph, &reader);
    result->place = (size_t)(reader.at - reader.start);
    if (code != DTP_OK)
        return code;
    TRY(tick(graph, now, p->count, &clock));
    size = length + p->count * OP_OVERHEAD;
    TRY(made_reserve(graph, p->count, 0, length, size));
    TRY(dtp_map_names(graph, rows));
    for (i = 0; i < p->count; i++)
        p->ops[i].clock = clock + i;
    TRY(dtp_apply_parsed(graph, 0));
    for (i = 0; i < p->count; i++)
        made_add(graph, &p->ops[i], p->dots);
    graph->made_size += size;
    result->ops = p->count;
    dtp_finish(graph, result);
    return DTP_OK;
}

int dtp_graph_write(dtp_graph *graph, const uint8_t *rows, size_t length, double wall)
{
    /* a time that can't be (a NaN, too) says nothing: what was seen counts on */
    int is_time = wall >= 0 && wall < (double)(INT64_MAX >> 16) / 1000;
    return dtp_graph_put(graph, rows, length, is_time ? (uint64_t)(wall * 1000) << 16 : 0, &graph->result);
}

/* ---- one op of another kind --------------------------------------------------------------------------------------------- */

static int add_dot(dtp_graph *graph, uint32_t entry)
{
    dtp_parsed *p = &graph->parsed;
    TRY(dtp_reserve((void **)&p->dots, &p->dots_room, p->dot_count + 1, sizeof *p->dots));
    p->dots[p->dot_count].author = graph->entries[entry].author;
    p->dots[p->dot_count++].clock = graph->entries[entry].clock;
    return DTP_OK;
}

/* The dots that an op removes, which are those observed here. */
static int observe(dtp_graph *graph, const dtp_op *op)
{
    uint32_t part = dtp_part_of(op), slot, entry;
    dtp_bytes value = {op->value, op->value_length};
    size_t at = 0;
    graph->parsed.dot_count = 0;
    slot = dtp_slot_find(graph, op->soul, op->key, part, dtp_slot_hash(graph, op->soul, op->key, part));
    if (slot == DTP_NONE || part <= DTP_PART_TEXT)
        return DTP_OK;
    if (part == DTP_PART_SET) {
        while ((entry = dtp_entry_member(graph, slot, value, &at)) != DTP_NONE)
            TRY(add_dot(graph, entry));
    } else if (part == DTP_PART_VALUES) {
        for (entry = dtp_container_of(graph, slot)->first; entry != DTP_NONE; entry = graph->entries[entry].next)
            TRY(add_dot(graph, entry));
    }
    return DTP_OK;
}

/* The author's own dots with these clocks, which rise. */
static int name_own(dtp_graph *graph, const dtp_do *what)
{
    dtp_parsed *p = &graph->parsed;
    size_t i;
    p->dot_count = 0;
    if (what->own_count > DTP_FRAME_OPS)
        return DTP_E_LIMIT;
    TRY(dtp_reserve((void **)&p->dots, &p->dots_room, what->own_count, sizeof *p->dots));
    for (i = 0; i < what->own_count; i++) {
        if (what->own[i] > own_last(graph) || what->own[i] <= (i > 0 ? what->own[i - 1] : 0))
            return DTP_E_FORMAT;
        p->dots[i].author = graph->self;
        p->dots[i].clock = what->own[i];
    }
    p->dot_count = what->own_count;
    return DTP_OK;
}

/* An int of MessagePack; DTP_E_LIMIT when it is none or is not within 64 bits with a sign. */
int dtp_integer_of(dtp_bytes bytes, int64_t *value)
{
    uint64_t raw = 0;
    size_t i;
    uint8_t head;
    if (bytes.length == 0)
        return DTP_E_LIMIT;
    head = bytes.at[0];
    for (i = 1; i < bytes.length && i <= 8; i++)
        raw = raw << 8 | bytes.at[i];
    if (head < 0x80)
        *value = head;
    else if (head >= 0xe0)
        *value = (int64_t)head - 256;
    else if (head >= 0xcc && head <= 0xcf && raw <= INT64_MAX)
        *value = (int64_t)raw;
    else if (head == 0xd0)
        *value = (int8_t)raw;
    else if (head == 0xd1)
        *value = (int16_t)raw;
    else if (head == 0xd2)
        *value = (int32_t)raw;
    else if (head == 0xd3)
        *value = (int64_t)raw;
    else
        return DTP_E_LIMIT;
    return DTP_OK;
}

/* MessagePack's shortest form, at `room` of 9 bytes; its length. */
static size_t put_int(int64_t value, uint8_t *room)
{
    unsigned width, bits, i;
    if (value >= -32 && value < 128) {
        room[0] = (uint8_t)value;
        return 1;
    }
    for (width = 0; width < 3; width++) {
        bits = 8u << width;
        if (value >= 0 ? (uint64_t)value >> bits == 0 : value >= -(INT64_C(1) << (bits - 1)))
            break;
    }
    room[0] = (uint8_t)((value >= 0 ? 0xcc : 0xd0) + width);
    for (i = 0; i < 1u << width; i++)
        room[1 + i] = (uint8_t)((uint64_t)value >> 8 * ((1u << width) - 1 - i));
    return 1 + ((size_t)1 << width);
}

/* What this author added up to now, and `op`'s difference: its new total, at `room` of 9 bytes. */
static int new_total(dtp_graph *graph, dtp_op *op, uint8_t *room)
{
    uint32_t part = graph->self + 1;
    uint32_t slot = dtp_slot_find(graph, op->soul, op->key, part, dtp_slot_hash(graph, op->soul, op->key, part));
    uint8_t near[DTP_VALUE_NEAR];
    dtp_bytes more = {op->value, op->value_length};
    int64_t total = 0, difference;
    TRY(dtp_integer_of(more, &difference));
    if (slot != DTP_NONE)
        TRY(dtp_integer_of(dtp_value_get(&graph->slots[slot].value, near), &total));
    if (difference > 0 ? total > INT64_MAX - difference : total < INT64_MIN - difference)
        return DTP_E_LIMIT;
    op->value = room;
    op->value_length = (uint32_t)put_int(total + difference, room);
    return DTP_OK;
}

static int do_check(const dtp_do *what, size_t *place)
{
    dtp_reader reader = {what->value, what->value, what->value_length > 0 ? what->value + what->value_length : what->value};
    dtp_bytes value;
    int removes = what->kind == DTP_SET_REMOVE || what->kind == DTP_VALUES_REMOVE;
    int takes_value = what->kind == DTP_COUNTER_TOTAL || what->kind == DTP_SET_ADD
        || (what->kind == DTP_SET_REMOVE && what->own_count == 0) || what->kind == DTP_VALUES_PUT
        || what->kind >= DTP_TEXT_EDIT;
    int is_old = what->kind >= DTP_OLD_LIST_INSERT && what->kind <= DTP_OLD_LIST_REMOVE;
    if (what->kind == DTP_REGISTER_PUT || what->kind >= DTP_OP_KINDS || is_old || what->soul_length == 0
        || what->soul_length > DTP_NAME_BYTES || what->key_length > DTP_NAME_BYTES
        || !dtp_is_utf8(what->soul, what->soul_length) || !dtp_is_utf8(what->key, what->key_length)
        || takes_value != (what->value_length > 0) || (what->own_count > 0 && !removes))
        return DTP_E_FORMAT;
    if (takes_value && (dtp_read_value(&reader, &value) != DTP_OK || reader.at != reader.end)) {
        *place = (size_t)(reader.at - reader.start);
        return DTP_E_FORMAT;
    }
    if (what->kind >= DTP_TEXT_EDIT && (what->value[0] < 0xc4 || what->value[0] > 0xc6))
        return DTP_E_FORMAT;
    return DTP_OK;
}

int dtp_graph_do(dtp_graph *graph, const dtp_do *what, uint64_t now, dtp_merged *result)
{
    dtp_op op;
    uint8_t total[9];
    size_t size;
    int code;
    dtp_begin(graph, result);
    TRY(do_check(what, &result->place));
    if (!graph->trusted && !dtp_may_write(&graph->authors[graph->self], what->soul, what->soul_length))
        return DTP_E_OWNER;
    memset(&op, 0, sizeof op);
    op.verdict = graph->trusted ? DTP_ALLOWED : DTP_AS_OWNED;
    op.kind = (uint8_t)what->kind;
    op.author = graph->self;
    op.value = what->value;
    op.value_length = (uint32_t)what->value_length;
    TRY(tick(graph, now, 1, &op.clock));
    TRY(dtp_name_intern(graph, what->soul, what->soul_length,
                        (uint32_t)dtp_hash(graph->seed, what->soul, what->soul_length), &op.soul));
    TRY(dtp_name_intern(graph, what->key, what->key_length,
                        (uint32_t)dtp_hash(graph->seed, what->key, what->key_length), &op.key));
    if (op.kind == DTP_COUNTER_TOTAL)
        TRY(new_total(graph, &op, total));
    TRY(what->own_count > 0 ? name_own(graph, what) : observe(graph, &op));
    op.dots = (uint32_t)graph->parsed.dot_count;
    if (op.dots == 0 && op.kind != DTP_COUNTER_TOTAL && op.kind != DTP_SET_ADD && op.kind != DTP_VALUES_PUT
        && !dtp_is_edit(&op))
        return DTP_OK; /* nothing there to be removed */
    if (op.kind == DTP_SET_REMOVE)
        op.value_length = 0;
    size = what->soul_length + what->key_length + op.value_length + OP_OVERHEAD
        + op.dots * (size_t)DOT_OVERHEAD;
    TRY(made_reserve(graph, 1, op.dots, op.value_length, size));
    TRY(dtp_reserve((void **)&graph->changes, &graph->changes_room, 1, sizeof *graph->changes));
    code = dtp_apply(graph, &op, graph->parsed.dots);
    if (code < 0)
        return code;
    graph->newest = op.clock;
    made_add(graph, &op, graph->parsed.dots);
    graph->made_size += size;
    result->ops = 1;
    graph->edit_count = 0; /* whoever made it has it */
    dtp_finish(graph, result);
    return DTP_OK;
}

int dtp_graph_observed(dtp_graph *graph, const dtp_do *what, dtp_view *view)
{
    dtp_parsed *p = &graph->parsed;
    dtp_op op;
    size_t i;
    TRY(do_check(what, &i));
    memset(&op, 0, sizeof op);
    op.kind = (uint8_t)what->kind;
    op.value = what->value;
    op.value_length = (uint32_t)what->value_length;
    graph->out.count = p->dot_count = 0;
    if (dtp_name_find(graph, what->soul, what->soul_length,
                      (uint32_t)dtp_hash(graph->seed, what->soul, what->soul_length), &op.soul)
        && dtp_name_find(graph, what->key, what->key_length,
                         (uint32_t)dtp_hash(graph->seed, what->key, what->key_length), &op.key))
        TRY(observe(graph, &op));
    TRY(dtp_pack_array(&graph->out, p->dot_count));
    for (i = 0; i < p->dot_count; i++) {
        TRY(dtp_pack_array(&graph->out, 2));
        TRY(dtp_pack_uint(&graph->out, p->dots[i].author));
        TRY(dtp_pack_uint(&graph->out, p->dots[i].clock));
    }
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
    return DTP_OK;
}

/* ---- commit ------------------------------------------------------------------------------------------------------------- */

int dtp_graph_commit(dtp_graph *graph, dtp_committed *result)
{
    dtp_parsed *made = &graph->made;
    memset(result, 0, sizeof *result);
    if (made->count == 0)
        return DTP_OK;
    if (dtp_seen_reserve(&graph->authors[graph->self]) != DTP_OK)
        return DTP_E_MEMORY;
    graph->out.count = 0;
    TRY(dtp_encode(graph, made, graph->self, &graph->out));
    dtp_seen_add(&graph->authors[graph->self], made->before, made->last);
    result->body = graph->out.bytes;
    result->length = graph->out.count;
    result->before = made->before;
    result->last = made->last;
    made->count = made->dot_count = made->byte_count = 0;
    graph->made_size = 0;
    return DTP_OK;
}
