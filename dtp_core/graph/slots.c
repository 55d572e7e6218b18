/* graph/slots.c - slots: what is at (soul, key), in parts; registers, and the totals of counters, which are one register
 * for each author. */
#include "crdt_graph.h"

uint32_t dtp_slot_hash(const dtp_graph *graph, uint32_t soul, uint32_t key, uint32_t part)
{
    return dtp_slot_hash_of(graph, graph->names[soul].hash, graph->names[key].hash, part);
}

uint32_t dtp_slot_find(const dtp_graph *graph, uint32_t soul, uint32_t key, uint32_t part, uint32_t hash)
{
    uint32_t candidate;
    if (graph->by_slot.cells == NULL)
        return DTP_NONE;
    DTP_PROBE(&graph->by_slot, hash, candidate)
    {
        const dtp_slot *slot = &graph->slots[candidate];
        if (slot->soul == soul && slot->key == key && slot->part == part)
            return candidate;
    }
    return DTP_NONE;
}

static int is_container(uint32_t part)
{
    return part > DTP_PART_TEXT;
}

int dtp_slot_get(dtp_graph *graph, uint32_t soul, uint32_t key, uint32_t part, uint32_t hash, uint32_t *number)
{
    dtp_slot *slot;
    *number = dtp_slot_find(graph, soul, key, part, hash);
    if (*number != DTP_NONE)
        return DTP_OK;
    if (graph->slot_count >= DTP_NONE
        || dtp_reserve((void **)&graph->slots, &graph->slots_room, graph->slot_count + 1, sizeof *slot) != DTP_OK
        || dtp_index_reserve(&graph->by_slot, 1) != DTP_OK
        || (is_container(part)
            && dtp_reserve((void **)&graph->containers, &graph->containers_room, graph->container_count + 1,
                           sizeof *graph->containers)
                != DTP_OK))
        return DTP_E_MEMORY;
    slot = &graph->slots[graph->slot_count];
    memset(slot, 0, sizeof *slot);
    slot->soul = soul;
    slot->key = key;
    slot->part = part;
    slot->author = DTP_NONE;
    slot->value.spare = graph->names[soul].first;
    *number = (uint32_t)graph->slot_count++;
    graph->names[soul].first = *number;
    dtp_index_put(&graph->by_slot, hash, *number);
    if (is_container(part)) {
        dtp_container *container = &graph->containers[graph->container_count];
        memset(container, 0, sizeof *container);
        container->slot = *number;
        container->first = DTP_NONE;
        slot->value.as.container = (uint32_t)graph->container_count++;
    }
    return DTP_OK;
}

uint32_t dtp_space_of(uint32_t part)
{
    switch (part) {
    case DTP_PART_REGISTER: return DTP_REGISTER;
    case DTP_PART_SET: return DTP_SET;
    case DTP_PART_VALUES: return DTP_VALUES;
    case DTP_PART_LIST: return DTP_LIST;
    case DTP_PART_TEXT: return DTP_TEXT;
    default: return DTP_COUNTER;
    }
}

uint32_t dtp_part_of(const dtp_op *op)
{
    switch (op->kind) {
    case DTP_REGISTER_PUT: return DTP_PART_REGISTER;
    case DTP_COUNTER_TOTAL: return op->author + 1;
    case DTP_SET_ADD:
    case DTP_SET_REMOVE: return DTP_PART_SET;
    case DTP_VALUES_PUT:
    case DTP_VALUES_REMOVE: return DTP_PART_VALUES;
    case DTP_TEXT_EDIT: return DTP_PART_TEXT;
    default: return DTP_PART_LIST; /* LIST_EDIT, and what is void */
    }
}

int dtp_stamp_compare(const dtp_graph *graph, uint64_t a_clock, uint32_t a_author, uint64_t b_clock,
                      uint32_t b_author)
{
    if (a_clock != b_clock)
        return a_clock < b_clock ? -1 : 1;
    if (a_author == b_author)
        return 0;
    if (a_author == DTP_NONE || b_author == DTP_NONE)
        return a_author == DTP_NONE ? -1 : 1;
    return memcmp(graph->authors[a_author].id, graph->authors[b_author].id, DTP_AUTHOR);
}

int dtp_slot_write(dtp_graph *graph, uint32_t number, uint64_t clock, uint32_t author, dtp_bytes value)
{
    dtp_slot *slot = &graph->slots[number];
    int order = clock > slot->clock ? 1 : dtp_stamp_compare(graph, clock, author, slot->clock, slot->author);
    int visible = slot->value.length > 0 || value.length > 0;
    if (order < 0)
        return 0;
    if (order == 0) { /* one author's two ops of one time: the larger bytes, so that replicas agree all the same */
        uint8_t room[DTP_VALUE_NEAR];
        if (dtp_bytes_compare(value, dtp_value_get(&slot->value, room)) <= 0)
            return 0;
    }
    if (dtp_value_set(&slot->value, value) != DTP_OK)
        return DTP_E_MEMORY;
    slot->clock = clock;
    slot->author = author;
    return visible;
}
