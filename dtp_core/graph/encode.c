/* graph/encode.c - ops become a frame's columns. docs/graph.md, "Frames". */
#include "crdt_graph.h"

#define TRY(call)            \
    do {                     \
        int code_ = (call);  \
        if (code_ != DTP_OK) \
            return code_;    \
    } while (0)

/* ---- buffers ------------------------------------------------------------------------------------------------------ */

int dtp_buffer_reserve(dtp_buffer *buffer, size_t more)
{
    return dtp_reserve((void **)&buffer->bytes, &buffer->room, buffer->count + more, 1);
}

int dtp_buffer_put(dtp_buffer *buffer, const void *bytes, size_t length)
{
    TRY(dtp_buffer_reserve(buffer, length));
    if (length > 0)
        memcpy(buffer->bytes + buffer->count, bytes, length);
    buffer->count += length;
    return DTP_OK;
}

int dtp_buffer_varint(dtp_buffer *buffer, uint64_t value)
{
    TRY(dtp_buffer_reserve(buffer, DTP_VARINT_MAX));
    buffer->count = (size_t)(dtp_put_varint(buffer->bytes + buffer->count, value) - buffer->bytes);
    return DTP_OK;
}

static int put_byte(dtp_buffer *buffer, unsigned byte)
{
    uint8_t one = (uint8_t)byte;
    return dtp_buffer_put(buffer, &one, 1);
}

/* ---- numbers of the frame's own --------------------------------------------------------------------------------------- */

/* Forget all; room for `count`. */
static int local_clear(dtp_graph *graph, size_t count)
{
    dtp_index *local = &graph->local;
    size_t room = 16;
    while (room / 2 < count)
        room *= 2;
    TRY(dtp_reserve((void **)&local->cells, &graph->local_room, room, sizeof *local->cells));
    memset(local->cells, 0, room * sizeof *local->cells);
    local->mask = room - 1;
    local->count = 0;
    return DTP_OK;
}

/* The number of `outside`; `*is_new` when it got the next one just now. Here a cell is `outside << 32 | number + 1`. */
static uint32_t local_number(dtp_graph *graph, uint32_t outside, int *is_new)
{
    dtp_index *local = &graph->local;
    size_t at = (size_t)dtp_mix(outside, 0) & local->mask;
    for (; local->cells[at] != 0; at = (at + 1) & local->mask) {
        if ((uint32_t)(local->cells[at] >> 32) == outside) {
            *is_new = 0;
            return dtp_cell_number(local->cells[at]);
        }
    }
    *is_new = 1;
    local->cells[at] = dtp_cell(outside, (uint32_t)local->count);
    return (uint32_t)local->count++;
}

/* ---- columns ------------------------------------------------------------------------------------------------------------ */

static int put_text(dtp_buffer *out, dtp_bytes text, dtp_bytes before)
{
    size_t limit = text.length < before.length ? text.length : before.length, shared = 0, more;
    while (shared < limit && text.at[shared] == before.at[shared])
        shared++;
    more = text.length - shared;
    TRY(put_byte(out, (unsigned)(shared < 15 ? shared : 15) << 4 | (unsigned)(more < 15 ? more : 15)));
    if (shared >= 15)
        TRY(dtp_buffer_varint(out, shared - 15));
    if (more >= 15)
        TRY(dtp_buffer_varint(out, more - 15));
    return dtp_buffer_put(out, text.at + shared, more);
}

static int put_names(dtp_graph *graph, const dtp_parsed *ops, int keys, dtp_buffer *out)
{
    uint32_t before = DTP_NONE;
    dtp_bytes text = {graph->near, 0};
    size_t i;
    TRY(local_clear(graph, ops->count));
    for (i = 0; i < ops->count; i++) {
        uint32_t name = keys ? ops->ops[i].key : ops->ops[i].soul, number;
        int is_new;
        if (name == before) {
            TRY(put_byte(out, 0));
            continue;
        }
        before = name;
        number = local_number(graph, name, &is_new);
        if (is_new) {
            dtp_bytes next = {dtp_name_text(graph, &graph->names[name]), graph->names[name].length};
            TRY(put_byte(out, 1));
            TRY(put_text(out, next, text));
            text = next;
        } else {
            TRY(dtp_buffer_varint(out, (uint64_t)number + 2));
        }
    }
    return DTP_OK;
}

static int put_clocks(const dtp_parsed *ops, dtp_buffer *out)
{
    uint64_t clock = ops->before;
    size_t i = 0, run;
    while (i < ops->count) {
        uint64_t next = ops->ops[i].clock;
        for (run = 0; i + run < ops->count && ops->ops[i + run].clock == clock + 1 + run; run++)
            continue;
        if (run > 0) {
            TRY(dtp_buffer_varint(out, (uint64_t)run << 2));
            i += run;
            clock += run;
            continue;
        }
        if (next > clock && (next & 0xffff) == 0)
            TRY(dtp_buffer_varint(out, ((next >> 16) - (clock >> 16)) << 2 | 1));
        else if (next > clock)
            TRY(dtp_buffer_varint(out, (next - clock) << 2 | 2));
        else
            TRY(dtp_buffer_varint(out, (clock - next) << 2 | 3));
        clock = next;
        i++;
    }
    return DTP_OK;
}

static int put_kinds(const dtp_parsed *ops, dtp_buffer *out)
{
    size_t i = 0, run;
    for (; i < ops->count; i += run) {
        for (run = 1; i + run < ops->count && ops->ops[i + run].kind == ops->ops[i].kind; run++)
            continue;
        TRY(put_byte(out, ops->ops[i].kind));
        TRY(dtp_buffer_varint(out, run));
    }
    return DTP_OK;
}

static int put_authors(const dtp_parsed *ops, dtp_buffer *out)
{
    size_t i = 0, run;
    for (; i < ops->count; i += run) {
        for (run = 1; i + run < ops->count && ops->ops[i + run].author == ops->ops[i].author; run++)
            continue;
        TRY(dtp_buffer_varint(out, ops->ops[i].author));
        TRY(dtp_buffer_varint(out, run));
    }
    return DTP_OK;
}

/* In a frame the authors' numbers are its own, in `graph->local`; in a state they are the graph's. */
static int put_dots(dtp_graph *graph, const dtp_parsed *ops, int state, dtp_buffer *out)
{
    size_t i, j;
    for (i = 0; i < ops->count; i++) {
        const dtp_op *op = &ops->ops[i];
        if (op->kind <= DTP_COUNTER_TOTAL || dtp_is_edit(op))
            continue;
        TRY(dtp_buffer_varint(out, op->dots));
        for (j = 0; j < op->dots; j++) {
            const dtp_dot *dot = &ops->dots[op->first_dot + j];
            int is_new;
            TRY(dtp_buffer_varint(out, state ? dot->author : local_number(graph, dot->author, &is_new)));
            TRY(dtp_buffer_varint(out, op->clock - dot->clock));
        }
    }
    return DTP_OK;
}

static int put_values(const dtp_parsed *ops, dtp_buffer *out)
{
    size_t i;
    for (i = 0; i < ops->count; i++) {
        const dtp_op *op = &ops->ops[i];
        if (op->value_length > 0)
            TRY(dtp_buffer_put(out, ops->bytes + op->value_at, op->value_length));
        else if (op->kind == DTP_REGISTER_PUT)
            TRY(put_byte(out, DTP_DELETED));
    }
    return DTP_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

/* The authors of dots get their numbers: 0 is the frame's own. Gives how many others there are. */
static int number_authors(dtp_graph *graph, const dtp_parsed *ops, uint32_t author, size_t *others)
{
    size_t i;
    int is_new;
    TRY(local_clear(graph, ops->dot_count + 1));
    local_number(graph, author, &is_new);
    for (i = 0; i < ops->dot_count; i++)
        local_number(graph, ops->dots[i].author, &is_new);
    *others = graph->local.count - 1;
    return DTP_OK;
}

static int put_other_authors(dtp_graph *graph, const dtp_parsed *ops, uint32_t author, size_t others, dtp_buffer *out)
{
    size_t i, next = 1;
    int is_new;
    TRY(dtp_buffer_varint(out, others));
    TRY(local_clear(graph, ops->dot_count + 1));
    local_number(graph, author, &is_new);
    for (i = 0; i < ops->dot_count && next <= others; i++) {
        local_number(graph, ops->dots[i].author, &is_new);
        if (is_new) {
            TRY(dtp_buffer_put(out, graph->authors[ops->dots[i].author].id, DTP_AUTHOR));
            next++;
        }
    }
    return DTP_OK;
}

static int only_puts(const dtp_parsed *ops)
{
    size_t i;
    for (i = 0; i < ops->count; i++)
        if (ops->ops[i].kind != DTP_REGISTER_PUT)
            return 0;
    return 1;
}

int dtp_encode(dtp_graph *graph, const dtp_parsed *ops, uint32_t author, dtp_buffer *out)
{
    int state = author == DTP_NONE, plain = only_puts(ops), i;
    size_t others = 0;
    if (!state && ops->dot_count > 0)
        TRY(number_authors(graph, ops, author, &others));
    TRY(put_byte(out, 0x10u | (plain ? 0u : 1u) | (others > 0 ? 2u : 0u) | (state ? 4u : 0u)));
    for (i = 0; !state && i < 8; i++)
        TRY(put_byte(out, (unsigned)(ops->before >> 8 * i) & 0xff));
    TRY(dtp_buffer_varint(out, ops->count));
    if (others > 0)
        TRY(put_other_authors(graph, ops, author, others, out));
    if (state)
        TRY(put_authors(ops, out));
    if (!plain)
        TRY(put_kinds(ops, out));
    TRY(put_names(graph, ops, 0, out));
    TRY(put_names(graph, ops, 1, out));
    TRY(put_clocks(ops, out));
    if (!plain) {
        if (!state && ops->dot_count > 0)
            TRY(number_authors(graph, ops, author, &others));
        TRY(put_dots(graph, ops, state, out));
    }
    return put_values(ops, out);
}
