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

/* A counter's totals stand one behind the other among its soul's slots, and the first is found by DTP_PART_COUNTER. */
static uint32_t find_counter(const dtp_graph *graph, uint32_t soul, uint32_t key)
{
    uint32_t candidate;
    if (graph->by_slot.cells == NULL)
        return DTP_NONE;
    DTP_PROBE(&graph->by_slot, dtp_slot_hash(graph, soul, key, DTP_PART_COUNTER), candidate)
    {
        const dtp_slot *slot = &graph->slots[candidate];
        if (slot->soul == soul && slot->key == key && dtp_space_of(slot->part) == DTP_COUNTER)
            return candidate;
    }
    return DTP_NONE;
}

/* The slot itself or, if it has no value, the next total that has one. */
static uint32_t with_value(const dtp_graph *graph, uint32_t slot, uint32_t key)
{
    for (; slot != DTP_NONE; slot = graph->slots[slot].value.spare) {
        if (graph->slots[slot].key != key || dtp_space_of(graph->slots[slot].part) != DTP_COUNTER)
            return DTP_NONE;
        if (graph->slots[slot].value.length > 0)
            return slot;
    }
    return DTP_NONE;
}

uint32_t dtp_first_total(const dtp_graph *graph, uint32_t soul, uint32_t key)
{
    return with_value(graph, find_counter(graph, soul, key), key);
}

uint32_t dtp_next_total(const dtp_graph *graph, uint32_t slot)
{
    return with_value(graph, graph->slots[slot].value.spare, graph->slots[slot].key);
}

int dtp_is_first_total(const dtp_graph *graph, uint32_t slot)
{
    const dtp_slot *one = &graph->slots[slot];
    return dtp_space_of(one->part) == DTP_COUNTER && dtp_first_total(graph, one->soul, one->key) == slot;
}

/* Put a new slot among its soul's: a counter's total behind the first one, if there is one. */
static void link_slot(dtp_graph *graph, uint32_t number)
{
    dtp_slot *slot = &graph->slots[number];
    uint32_t first = DTP_NONE;
    if (dtp_space_of(slot->part) == DTP_COUNTER) {
        first = find_counter(graph, slot->soul, slot->key);
        if (first == DTP_NONE)
            dtp_index_put(&graph->by_slot, dtp_slot_hash(graph, slot->soul, slot->key, DTP_PART_COUNTER), number);
    }
    if (first == DTP_NONE) {
        slot->value.spare = graph->names[slot->soul].first;
        graph->names[slot->soul].first = number;
    } else {
        slot->value.spare = graph->slots[first].value.spare;
        graph->slots[first].value.spare = number;
    }
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
        || dtp_index_reserve(&graph->by_slot, 2) != DTP_OK
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
    *number = (uint32_t)graph->slot_count++;
    link_slot(graph, *number);
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
