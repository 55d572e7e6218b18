/* graph/query.c - what queries look up: souls by what is at them, and all that is there of some of them. What is found may
 * be more than was asked for, never less: who asks checks it exactly. */
#include "crdt_graph.h"

#define TRY(call)            \
    do {                     \
        int code_ = (call);  \
        if (code_ != DTP_OK) \
            return code_;    \
    } while (0)

/* ---- values that can be looked up ---------------------------------------------------------------------------------------- */

enum { EXT_LINK = 1, EXT_BIG_INT = 2, EXT_DATE = 4, EXT_DURATION = 9 }; /* docs/graph.md, "Values" */
static const double int_end = 9223372036854775808.0; /* 2^63 */
static const double largest = 1.7976931348623157e308;

typedef dtp_scalar scalar;

static uint64_t big_endian(const uint8_t *at, size_t width)
{
    uint64_t value = 0;
    size_t i;
    for (i = 0; i < width; i++)
        value = value << 8 | at[i];
    return value;
}

static scalar number(double value)
{
    scalar one = {DTP_SCALAR_NUMBER, value, value, {NULL, 0}};
    if (value != value) /* NaN */
        one.kind = DTP_SCALAR_NONE;
    return one;
}

static scalar other(enum dtp_scalar_kind kind, const uint8_t *at, size_t length)
{
    scalar one = {kind, 0, 0, {at, length}};
    return one;
}

static scalar extension(const uint8_t *at, size_t length)
{
    scalar one = {DTP_SCALAR_NONE, 0, 0, {NULL, 0}};
    if (at[0] == EXT_LINK)
        return other(DTP_SCALAR_LINK, at + 1, length - 1);
    if (at[0] >= EXT_DATE && at[0] <= EXT_DURATION)
        return other(DTP_SCALAR_TEMPORAL, at, length);
    if (at[0] == EXT_BIG_INT && length > 1) {
        one.kind = DTP_SCALAR_NUMBER;
        one.low = at[1] < 0x80 ? int_end : -largest;
        one.high = at[1] < 0x80 ? largest : -int_end;
        if (length <= 9) { /* written longer than need be */
            one.low = -largest;
            one.high = largest;
        }
    }
    return one;
}

static scalar floating(const uint8_t *at, size_t width)
{
    uint64_t bits = big_endian(at, width);
    uint32_t half = (uint32_t)bits;
    double value;
    float narrow;
    if (width == 4) {
        memcpy(&narrow, &half, sizeof narrow);
        return number((double)narrow);
    }
    memcpy(&value, &bits, sizeof value);
    return number(value);
}

/* Of a value that was checked when it was taken. */
scalar dtp_scalar_of(dtp_bytes value)
{
    const uint8_t *at = value.at;
    unsigned head = at[0];
    if (head < 0x80)
        return number(head);
    if (head >= 0xe0)
        return number((int8_t)head);
    if (head >= 0xa0 && head < 0xc0)
        return other(DTP_SCALAR_TEXT, at + 1, value.length - 1);
    switch (head) {
    case 0xc2:
    case 0xc3: return other(DTP_SCALAR_BOOL, at, 1);
    case 0xc4:
    case 0xc5:
    case 0xc6: return other(DTP_SCALAR_BYTES, at + 1 + (1u << (head - 0xc4)), value.length - 1 - (1u << (head - 0xc4)));
    case 0xc7:
    case 0xc8:
    case 0xc9: return extension(at + 1 + (1u << (head - 0xc7)), value.length - 1 - (1u << (head - 0xc7)));
    case 0xca: return floating(at + 1, 4);
    case 0xcb: return floating(at + 1, 8);
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf: return number((double)big_endian(at + 1, (size_t)1 << (head - 0xcc)));
    case 0xd0: return number((int8_t)at[1]);
    case 0xd1: return number((int16_t)big_endian(at + 1, 2));
    case 0xd2: return number((int32_t)big_endian(at + 1, 4));
    case 0xd3: return number((double)(int64_t)big_endian(at + 1, 8));
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8: return extension(at + 1, value.length - 1);
    case 0xd9:
    case 0xda:
    case 0xdb: return other(DTP_SCALAR_TEXT, at + 1 + (1u << (head - 0xd9)), value.length - 1 - (1u << (head - 0xd9)));
    default: return other(DTP_SCALAR_NONE, NULL, 0);
    }
}

static scalar scalar_in(const dtp_value *value, uint8_t *room)
{
    return value->length == 0 ? other(DTP_SCALAR_NONE, NULL, 0) : dtp_scalar_of(dtp_value_get(value, room));
}

/* Values that are equal have the same. */
static uint32_t scalar_hash(const dtp_graph *graph, const scalar *one)
{
    uint64_t bits;
    double value = one->low;
    if (one->kind != DTP_SCALAR_NUMBER)
        return (uint32_t)(dtp_hash(graph->seed, one->bytes.at, one->bytes.length)) ^ (uint32_t)(one->kind - DTP_SCALAR_TEXT);
    if (value >= int_end || one->high <= -int_end || one->low != one->high)
        value = largest; /* an int beyond 64 bits, or a float that may equal one */
    value = value == 0 ? 0 : value; /* there are two zeros */
    memcpy(&bits, &value, sizeof bits);
    return (uint32_t)dtp_mix(graph->seed[0] ^ bits, graph->seed[1]);
}

/* Return whether it may be at least `low` and at most `high`; one of DTP_SCALAR_NONE is no bound. */
static int is_between(const scalar *one, const scalar *low, const scalar *high)
{
    enum dtp_scalar_kind kind = low->kind != DTP_SCALAR_NONE ? low->kind : high->kind;
    if (one->kind != kind || (high->kind != DTP_SCALAR_NONE && high->kind != kind))
        return 0;
    if (kind == DTP_SCALAR_TEMPORAL) /* that is told by who knows them */
        return 1;
    if (kind == DTP_SCALAR_NUMBER)
        return (low->kind == DTP_SCALAR_NONE || one->high >= low->low) && (high->kind == DTP_SCALAR_NONE || one->low <= high->high);
    return (low->kind == DTP_SCALAR_NONE || dtp_bytes_compare(one->bytes, low->bytes) >= 0)
        && (high->kind == DTP_SCALAR_NONE || dtp_bytes_compare(one->bytes, high->bytes) <= 0);
}

/* ---- columns ---------------------------------------------------------------------------------------------------------------- */

static int put_cell(dtp_graph *graph, uint32_t hash, uint32_t soul)
{
    uint64_t cell = (uint64_t)hash << 32 | soul;
    return dtp_buffer_put(&graph->out, &cell, sizeof cell);
}

/* Cells in order of their hashes, three times by 11 bits. */
static int sort_cells(dtp_graph *graph)
{
    size_t count = graph->out.count / sizeof(uint64_t), i, starts[2048];
    uint64_t *from, *to, *swap;
    unsigned shift;
    graph->chunk.count = 0;
    TRY(dtp_buffer_reserve(&graph->chunk, graph->out.count));
    from = (uint64_t *)(void *)graph->out.bytes;
    to = (uint64_t *)(void *)graph->chunk.bytes;
    for (shift = 32; shift < 64; shift += 11) {
        size_t sum = 0;
        memset(starts, 0, sizeof starts);
        for (i = 0; i < count; i++)
            starts[from[i] >> shift & 2047]++;
        for (i = 0; i < 2048; i++) {
            size_t here = starts[i];
            starts[i] = sum;
            sum += here;
        }
        for (i = 0; i < count; i++)
            to[starts[from[i] >> shift & 2047]++] = from[i];
        swap = from;
        from = to;
        to = swap;
    }
    memcpy(graph->out.bytes, from, graph->out.count); /* three swaps: they ended in the other one */
    return DTP_OK;
}

static int end_column(dtp_graph *graph, dtp_view *view)
{
    int code = graph->out.count == 0 ? DTP_OK : sort_cells(graph);
    dtp_release(graph->chunk.bytes); /* as large as the column, and needed seldom */
    memset(&graph->chunk, 0, sizeof graph->chunk);
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
    return code;
}

static int find_name(const dtp_graph *graph, const uint8_t *text, size_t length, uint32_t *number)
{
    return dtp_name_find(graph, text, length, (uint32_t)dtp_hash(graph->seed, text, length), number);
}

/* A counter's value: what its authors' totals come to, which may be beyond 64 bits. */
static scalar total_of(const dtp_graph *graph, uint32_t soul, uint32_t key)
{
    int64_t high = 0, low = 0;
    uint32_t slot;
    uint8_t room[DTP_VALUE_NEAR];
    scalar one = number(0);
    for (slot = dtp_first_total(graph, soul, key); slot != DTP_NONE; slot = dtp_next_total(graph, slot)) {
        int64_t total;
        dtp_bytes value = dtp_value_get(&graph->slots[slot].value, room);
        if (dtp_integer_of(value, &total) != DTP_OK) { /* 64 bits without a sign */
            uint64_t large = big_endian(value.at + 1, value.length - 1);
            low += (int64_t)(large & 0xffffffff);
            high += (int64_t)(large >> 32);
            continue;
        }
        low += total & 0xffffffff;
        high += (total - (total & 0xffffffff)) / ((int64_t)1 << 32);
    }
    high += low / ((int64_t)1 << 32);
    low %= (int64_t)1 << 32;
    if (high >= INT32_MIN && high <= INT32_MAX)
        return number((double)(high * ((int64_t)1 << 32) + low));
    one.low = high > 0 ? int_end : -largest;
    one.high = high > 0 ? largest : -int_end;
    return one;
}

/* The values that a property at a slot may have, or its items, one after the other. */
typedef struct property_walk {
    uint32_t slot;
    int items; /* those of a set, else values by themselves */
    int begun;
    uint32_t entry;
    uint8_t room[DTP_VALUE_NEAR];
} property_walk;

static int next_value(dtp_graph *graph, property_walk *walk, scalar *value)
{
    const dtp_slot *slot = &graph->slots[walk->slot];
    int begun = walk->begun, is_container = slot->part == (walk->items ? DTP_PART_SET : DTP_PART_VALUES);
    walk->begun = 1;
    if (!begun)
        walk->entry = is_container ? dtp_container_of(graph, walk->slot)->first : DTP_NONE;
    if (!begun && !walk->items && slot->part == DTP_PART_REGISTER) {
        *value = scalar_in(&slot->value, walk->room);
        return 1;
    }
    if (!begun && !walk->items && dtp_is_first_total(graph, walk->slot)) {
        *value = total_of(graph, slot->soul, slot->key);
        return 1;
    }
    if (walk->entry == DTP_NONE)
        return 0;
    *value = scalar_in(&graph->entries[walk->entry].value, walk->room);
    walk->entry = graph->entries[walk->entry].next;
    return 1;
}

int dtp_graph_column(dtp_graph *graph, const uint8_t *key, size_t length, int items, dtp_view *view)
{
    uint32_t number, slot, count = (uint32_t)graph->slot_count;
    graph->out.count = 0;
    if (!find_name(graph, key, length, &number))
        count = 0;
    for (slot = 0; slot < count; slot++) {
        property_walk walk = {slot, items, 0, DTP_NONE, {0}};
        scalar value;
        while (graph->slots[slot].key == number && next_value(graph, &walk, &value))
            if (value.kind != DTP_SCALAR_NONE && value.kind != DTP_SCALAR_LINK)
                TRY(put_cell(graph, scalar_hash(graph, &value), graph->slots[slot].soul));
    }
    return end_column(graph, view);
}

int dtp_graph_between(dtp_graph *graph, const uint8_t *key, size_t length, const uint8_t *low, size_t low_length,
                      const uint8_t *high, size_t high_length, dtp_view *view)
{
    dtp_bytes bounds[2] = {{low, low_length}, {high, high_length}};
    scalar from = low_length > 0 ? dtp_scalar_of(bounds[0]) : other(DTP_SCALAR_NONE, NULL, 0);
    scalar to = high_length > 0 ? dtp_scalar_of(bounds[1]) : other(DTP_SCALAR_NONE, NULL, 0);
    uint32_t number, slot, count = (uint32_t)graph->slot_count;
    graph->out.count = 0;
    if (!find_name(graph, key, length, &number) || (from.kind == DTP_SCALAR_NONE && to.kind == DTP_SCALAR_NONE))
        count = 0;
    for (slot = 0; slot < count; slot++) {
        property_walk walk = {slot, 0, 0, DTP_NONE, {0}};
        scalar value;
        while (graph->slots[slot].key == number && next_value(graph, &walk, &value)) {
            if (!is_between(&value, &from, &to))
                continue;
            TRY(dtp_buffer_put(&graph->out, &graph->slots[slot].soul, sizeof graph->slots[slot].soul));
            break;
        }
    }
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
    return DTP_OK;
}

static int is_array(const dtp_value *value)
{
    uint8_t room[DTP_VALUE_NEAR], head = value->length == 0 ? 0 : dtp_value_get(value, room).at[0];
    return (head >= 0x90 && head < 0xa0) || head == 0xdc || head == 0xdd;
}

/* Return whether a slot has what no column knows. */
static int is_opaque(dtp_graph *graph, uint32_t number, int items)
{
    const dtp_slot *slot = &graph->slots[number];
    if (!items)
        return slot->part == DTP_PART_TEXT && slot->value.length > 0;
    if (slot->part == DTP_PART_REGISTER)
        return is_array(&slot->value);
    if (slot->part == DTP_PART_VALUES)
        return dtp_container_of(graph, number)->count > 0
            && is_array(&graph->entries[dtp_latest_entry(graph, number)].value);
    return slot->part == DTP_PART_LIST && slot->value.length > 0;
}

int dtp_graph_opaque(dtp_graph *graph, const uint8_t *key, size_t length, int items, dtp_view *view)
{
    uint32_t number, slot, count = (uint32_t)graph->slot_count;
    graph->out.count = 0;
    if (!find_name(graph, key, length, &number))
        count = 0;
    for (slot = 0; slot < count; slot++)
        if (graph->slots[slot].key == number && is_opaque(graph, slot, items))
            TRY(dtp_buffer_put(&graph->out, &graph->slots[slot].soul, sizeof graph->slots[slot].soul));
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
    return DTP_OK;
}

int dtp_graph_hash(const dtp_graph *graph, const uint8_t *value, size_t length, uint32_t *hash)
{
    dtp_bytes bytes = {value, length};
    scalar one = length == 0 ? other(DTP_SCALAR_NONE, NULL, 0) : dtp_scalar_of(bytes);
    *hash = one.kind == DTP_SCALAR_NONE ? 0 : scalar_hash(graph, &one);
    return one.kind != DTP_SCALAR_NONE;
}

/* ---- links -------------------------------------------------------------------------------------------------------------------- */

/* Where a walk over all links is: in a slot, and if that is a set, at an entry. */
typedef struct link_walk {
    uint32_t slot;
    uint32_t entry;
    int inside;
    uint8_t room[DTP_VALUE_NEAR];
} link_walk;

/* The next link, and the soul that it is at; 0 when there is none. Begins with all 0. */
static int next_link(dtp_graph *graph, link_walk *walk, uint32_t *soul, scalar *link)
{
    while (walk->slot < graph->slot_count) {
        const dtp_slot *slot = &graph->slots[walk->slot];
        *soul = slot->soul;
        if (slot->part == DTP_PART_REGISTER) {
            walk->slot++;
            *link = scalar_in(&slot->value, walk->room);
            if (link->kind == DTP_SCALAR_LINK)
                return 1;
            continue;
        }
        if (slot->part == DTP_PART_SET && !walk->inside)
            walk->entry = dtp_container_of(graph, walk->slot)->first;
        walk->inside = slot->part == DTP_PART_SET && walk->entry != DTP_NONE;
        if (!walk->inside) {
            walk->slot++;
            continue;
        }
        *link = scalar_in(&graph->entries[walk->entry].value, walk->room);
        walk->entry = graph->entries[walk->entry].next;
        if (link->kind == DTP_SCALAR_LINK)
            return 1;
    }
    return 0;
}

int dtp_graph_links(dtp_graph *graph, dtp_view *view)
{
    link_walk walk = {0};
    uint32_t soul;
    scalar link;
    graph->out.count = 0;
    while (next_link(graph, &walk, &soul, &link))
        TRY(put_cell(graph, scalar_hash(graph, &link), soul));
    return end_column(graph, view);
}

/* Links of which what they lead to is fetched before it is looked at. */
enum { AHEAD = 64 };
typedef struct waiting_link {
    uint32_t soul;
    uint32_t hash;
    size_t length;
    const uint8_t *at;
    uint8_t near[DTP_VALUE_NEAR];
} waiting_link;

static int put_unmade(dtp_graph *graph, const waiting_link *links, size_t count)
{
    size_t i;
    for (i = 0; i < count; i++)
        dtp_name_prefetch(graph, links[i].hash);
    for (i = 0; i < count; i++)
        dtp_first_slot_prefetch(graph, links[i].hash);
    for (i = 0; i < count; i++) {
        const waiting_link *one = &links[i];
        const uint8_t *at = one->at == NULL ? one->near : one->at;
        uint32_t target;
        if (!dtp_name_find(graph, at, one->length, one->hash, &target) || !dtp_is_soul(graph, target))
            TRY(dtp_buffer_put(&graph->out, &one->soul, sizeof one->soul));
    }
    return DTP_OK;
}

int dtp_graph_unmade(dtp_graph *graph, const uint8_t *prefix, size_t length, dtp_view *view)
{
    link_walk walk = {0};
    waiting_link links[AHEAD];
    size_t count = 0;
    uint32_t soul;
    dtp_scalar link;
    graph->out.count = 0;
    while (next_link(graph, &walk, &soul, &link)) {
        waiting_link *one = &links[count];
        if (link.bytes.length < length || (length > 0 && memcmp(link.bytes.at, prefix, length) != 0))
            continue;
        one->soul = soul;
        one->length = link.bytes.length;
        one->hash = (uint32_t)dtp_hash(graph->seed, link.bytes.at, link.bytes.length);
        one->at = link.bytes.at;
        if (link.bytes.length <= DTP_VALUE_NEAR && link.bytes.length > 0) {
            memcpy(one->near, link.bytes.at, link.bytes.length); /* it may lie in the walk's room */
            one->at = NULL;
        }
        dtp_index_prefetch(&graph->by_name, one->hash);
        if (++count == AHEAD) {
            TRY(put_unmade(graph, links, count));
            count = 0;
        }
    }
    TRY(put_unmade(graph, links, count));
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
    return DTP_OK;
}

/* ---- what is there ------------------------------------------------------------------------------------------------------------- */

static int pack_name(dtp_graph *graph, uint32_t number)
{
    const dtp_name *name = &graph->names[number];
    return dtp_pack_text(&graph->out, dtp_name_text(graph, name), name->length);
}

static int pack_value(dtp_graph *graph, const dtp_value *value)
{
    uint8_t room[DTP_VALUE_NEAR];
    dtp_bytes bytes = dtp_value_get(value, room);
    return dtp_buffer_put(&graph->out, bytes.at, bytes.length);
}

static int pack_registers(dtp_graph *graph, uint32_t soul)
{
    size_t count = 0;
    uint32_t slot;
    for (slot = graph->names[soul].first; slot != DTP_NONE; slot = graph->slots[slot].value.spare)
        count += graph->slots[slot].part == DTP_PART_REGISTER && graph->slots[slot].value.length > 0;
    TRY(dtp_pack_map(&graph->out, count));
    for (slot = graph->names[soul].first; slot != DTP_NONE; slot = graph->slots[slot].value.spare) {
        if (graph->slots[slot].part != DTP_PART_REGISTER || graph->slots[slot].value.length == 0)
            continue;
        TRY(pack_name(graph, graph->slots[slot].key));
        TRY(pack_value(graph, &graph->slots[slot].value));
    }
    return DTP_OK;
}

/* The links in a soul's sets: [key, link...]; the entries that are no links are left out. */
static int pack_links(dtp_graph *graph, uint32_t soul)
{
    uint8_t room[DTP_VALUE_NEAR];
    size_t pass, count = 0;
    uint32_t slot, entry;
    for (pass = 0; pass < 2; pass++) {
        if (pass == 1)
            TRY(dtp_pack_array(&graph->out, count));
        for (slot = graph->names[soul].first; slot != DTP_NONE; slot = graph->slots[slot].value.spare) {
            if (graph->slots[slot].part != DTP_PART_SET)
                continue;
            entry = dtp_container_of(graph, slot)->first;
            for (; entry != DTP_NONE; entry = graph->entries[entry].next) {
                if (scalar_in(&graph->entries[entry].value, room).kind != DTP_SCALAR_LINK)
                    continue;
                if (pass == 0) {
                    count += 2;
                    continue;
                }
                TRY(pack_name(graph, graph->slots[slot].key));
                TRY(pack_value(graph, &graph->entries[entry].value));
            }
        }
    }
    return DTP_OK;
}

size_t dtp_graph_names(const dtp_graph *graph)
{
    return graph->name_count;
}

int dtp_graph_find(const dtp_graph *graph, const uint8_t *soul, size_t length, uint32_t *number)
{
    return find_name(graph, soul, length, number);
}

int dtp_graph_is_soul(dtp_graph *graph, const uint8_t *soul, size_t length)
{
    uint32_t number;
    return find_name(graph, soul, length, &number) && dtp_is_soul(graph, number);
}

int dtp_graph_named(dtp_graph *graph, const uint8_t *prefix, size_t length, dtp_view *view)
{
    uint32_t number;
    graph->out.count = 0;
    for (number = 0; number < graph->name_count; number++) {
        const dtp_name *name = &graph->names[number];
        if (name->length >= length && (length == 0 || memcmp(dtp_name_text(graph, name), prefix, length) == 0)
            && dtp_is_soul(graph, number))
            TRY(dtp_buffer_put(&graph->out, &number, sizeof number));
    }
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
    return DTP_OK;
}

int dtp_graph_rows(dtp_graph *graph, const uint32_t *numbers, size_t count, dtp_view *view)
{
    size_t i, there = 0;
    graph->out.count = 0;
    for (i = 0; i < count; i++) {
        if (numbers[i] >= graph->name_count)
            return DTP_E_LIMIT;
        there += (size_t)dtp_is_soul(graph, numbers[i]);
    }
    TRY(dtp_pack_array(&graph->out, 4 * there));
    for (i = 0; i < count; i++) {
        if (!dtp_is_soul(graph, numbers[i]))
            continue;
        TRY(pack_name(graph, numbers[i]));
        TRY(pack_registers(graph, numbers[i]));
        TRY(pack_links(graph, numbers[i]));
        TRY(dtp_pack_others(graph, numbers[i]));
    }
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
    return DTP_OK;
}
