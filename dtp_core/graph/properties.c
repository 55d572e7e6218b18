/* graph/properties.c - what is at a soul beside registers and links, as queries read it. */
#include "crdt_graph.h"

#define TRY(call)            \
    do {                     \
        int code_ = (call);  \
        if (code_ != DTP_OK) \
            return code_;    \
    } while (0)

enum { NIL = 0xc0 };

static uint32_t next_slot(const dtp_graph *graph, uint32_t slot)
{
    return graph->slots[slot].value.spare;
}

static int pack_value(dtp_graph *graph, const dtp_value *value)
{
    uint8_t room[DTP_VALUE_NEAR];
    dtp_bytes bytes = dtp_value_get(value, room);
    return dtp_buffer_put(&graph->out, bytes.at, bytes.length);
}

uint32_t dtp_latest_entry(dtp_graph *graph, uint32_t slot)
{
    uint32_t number = dtp_container_of(graph, slot)->first, latest = number;
    for (; number != DTP_NONE; number = graph->entries[number].next) {
        const dtp_entry *one = &graph->entries[number], *best = &graph->entries[latest];
        if (dtp_stamp_compare(graph, one->clock, one->author, best->clock, best->author) > 0)
            latest = number;
    }
    return latest;
}

static int pack_totals(dtp_graph *graph, uint32_t soul, uint32_t key)
{
    size_t count = 0;
    uint32_t slot;
    for (slot = dtp_first_total(graph, soul, key); slot != DTP_NONE; slot = dtp_next_total(graph, slot))
        count++;
    TRY(dtp_pack_array(&graph->out, count));
    for (slot = dtp_first_total(graph, soul, key); slot != DTP_NONE; slot = dtp_next_total(graph, slot))
        TRY(pack_value(graph, &graph->slots[slot].value));
    return DTP_OK;
}

static int pack_entries(dtp_graph *graph, uint32_t slot)
{
    const dtp_container *container = dtp_container_of(graph, slot);
    uint32_t number;
    TRY(dtp_pack_array(&graph->out, container->count));
    for (number = container->first; number != DTP_NONE; number = graph->entries[number].next)
        TRY(pack_value(graph, &graph->entries[number].value));
    return DTP_OK;
}

/* Return whether a slot stands for something else than a register. */
static int is_other(dtp_graph *graph, uint32_t slot)
{
    const dtp_slot *one = &graph->slots[slot];
    if (one->part == DTP_PART_REGISTER || (dtp_space_of(one->part) == DTP_COUNTER && !dtp_is_first_total(graph, slot)))
        return 0;
    return dtp_is_there(graph, slot);
}

static int pack_other(dtp_graph *graph, uint32_t slot)
{
    const dtp_slot one = graph->slots[slot];
    const dtp_name *key = &graph->names[one.key];
    uint32_t space = dtp_space_of(one.part);
    uint8_t nil = NIL;
    TRY(dtp_pack_text(&graph->out, dtp_name_text(graph, key), key->length));
    TRY(dtp_pack_uint(&graph->out, space));
    switch (space) {
    case DTP_COUNTER: return pack_totals(graph, one.soul, one.key);
    case DTP_SET: return pack_entries(graph, slot);
    case DTP_VALUES: return pack_value(graph, &graph->entries[dtp_latest_entry(graph, slot)].value);
    default: return dtp_buffer_put(&graph->out, &nil, 1);
    }
}

int dtp_pack_others(dtp_graph *graph, uint32_t soul)
{
    size_t count = 0;
    uint32_t slot;
    for (slot = graph->names[soul].first; slot != DTP_NONE; slot = next_slot(graph, slot))
        count += (size_t)is_other(graph, slot);
    TRY(dtp_pack_array(&graph->out, 3 * count));
    for (slot = graph->names[soul].first; slot != DTP_NONE; slot = next_slot(graph, slot))
        if (is_other(graph, slot))
            TRY(pack_other(graph, slot));
    return DTP_OK;
}

int dtp_graph_others(dtp_graph *graph, const uint8_t *soul, size_t length, dtp_view *view)
{
    uint32_t number;
    graph->out.count = 0;
    if (dtp_name_find(graph, soul, length, (uint32_t)dtp_hash(graph->seed, soul, length), &number))
        TRY(dtp_pack_others(graph, number));
    else
        TRY(dtp_pack_array(&graph->out, 0));
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
    return DTP_OK;
}
