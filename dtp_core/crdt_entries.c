/* crdt_entries.c - entries of sets, multi-values and lists, known by their dots (who made it and when).
 *
 * What is removed is gone: no tombstone stays. An entry that comes after its removal, or a list's item after its move,
 * is recognised because the earlier one left a mark; when the dot was seen and there is no entry, it was removed. */
#include "crdt_graph.h"

static uint32_t dot_hash(const dtp_graph *graph, uint32_t author, uint64_t clock)
{
    return (uint32_t)dtp_mix(graph->seed[0] ^ clock, graph->seed[1] ^ author);
}

static uint32_t member_hash(const dtp_graph *graph, uint32_t slot, dtp_bytes value)
{
    return (uint32_t)dtp_mix(dtp_hash(graph->seed, value.at, value.length), graph->seed[1] ^ slot);
}

dtp_container *dtp_container_of(dtp_graph *graph, uint32_t slot)
{
    return &graph->containers[graph->slots[slot].value.as.container];
}

uint32_t dtp_entry_find(const dtp_graph *graph, uint32_t author, uint64_t clock, uint32_t slot)
{
    uint32_t hash = dot_hash(graph, author, clock), candidate;
    if (graph->by_dot.cells == NULL)
        return DTP_NONE;
    DTP_PROBE(&graph->by_dot, hash, candidate)
    {
        const dtp_entry *entry = &graph->entries[candidate];
        if (entry->clock == clock && entry->author == author && entry->slot == slot)
            return candidate;
    }
    return DTP_NONE;
}

uint32_t dtp_entry_member(const dtp_graph *graph, uint32_t slot, dtp_bytes value, size_t *at)
{
    const dtp_index *index = &graph->by_member;
    uint32_t hash = member_hash(graph, slot, value);
    for (; index->cells != NULL && index->cells[(hash + *at) & index->mask] != 0; ++*at) {
        uint64_t cell = index->cells[(hash + *at) & index->mask];
        const dtp_entry *entry = &graph->entries[dtp_cell_number(cell)];
        uint8_t room[DTP_VALUE_NEAR];
        if ((uint32_t)(cell >> 32) == hash && entry->slot == slot
            && dtp_bytes_compare(dtp_value_get(&entry->value, room), value) == 0) {
            ++*at;
            return dtp_cell_number(cell);
        }
    }
    return DTP_NONE;
}

int dtp_applied(const dtp_graph *graph, uint32_t author, uint64_t clock)
{
    const dtp_author *known = &graph->authors[author];
    size_t i;
    if (!dtp_seen_has(known, clock))
        return 0;
    for (i = 0; known->deferred > 0 && i < graph->deferred_count; i++) {
        const dtp_deferred *frame = &graph->deferred[i];
        if (frame->author == author && frame->before < clock && clock <= frame->last)
            return 0;
    }
    return 1;
}

/* ---- lists in order --------------------------------------------------------------------------------------------- */

/* Where the entry is in the sorted list, or belongs. */
static size_t item_place(const dtp_graph *graph, const dtp_container *container, size_t count, uint32_t number)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (dtp_item_order(graph, container->sorted[middle], number) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* `container->count` doesn't count it yet. */
static void sorted_insert(dtp_graph *graph, dtp_container *container, uint32_t number)
{
    size_t at;
    if (graph->bulk || container->dirty
        || dtp_reserve((void **)&container->sorted, &container->sorted_room, (size_t)container->count + 1,
                       sizeof *container->sorted)
            != DTP_OK) {
        container->dirty = 1;
        return;
    }
    at = item_place(graph, container, container->count, number);
    memmove(container->sorted + at + 1, container->sorted + at, (container->count - at) * sizeof *container->sorted);
    container->sorted[at] = number;
}

/* `container->count` still counts it. */
static void sorted_remove(dtp_graph *graph, dtp_container *container, uint32_t number)
{
    size_t at;
    if (graph->bulk)
        container->dirty = 1;
    if (container->dirty)
        return;
    at = item_place(graph, container, container->count, number);
    memmove(container->sorted + at, container->sorted + at + 1,
            (container->count - at - 1) * sizeof *container->sorted);
}

int dtp_container_sort(dtp_graph *graph, dtp_container *container)
{
    size_t count = container->count, at = 0;
    uint32_t number;
    if (!container->dirty)
        return DTP_OK;
    if (dtp_reserve((void **)&container->sorted, &container->sorted_room, 2 * count, sizeof number) != DTP_OK)
        return DTP_E_MEMORY;
    for (number = container->first; number != DTP_NONE; number = graph->entries[number].next)
        container->sorted[at++] = number;
    dtp_sort(graph, container->sorted, container->sorted + count, count, dtp_item_order);
    container->dirty = 0;
    return DTP_OK;
}

/* ---- entries ------------------------------------------------------------------------------------------------------ */

static int entry_new(dtp_graph *graph, uint32_t author, uint64_t clock, uint32_t slot, int state, uint32_t *number)
{
    dtp_entry *entry;
    dtp_item *item = NULL;
    if (dtp_index_reserve(&graph->by_dot, 1) != DTP_OK || dtp_index_reserve(&graph->by_member, 1) != DTP_OK
        || dtp_reserve((void **)&graph->entries, &graph->entries_room, graph->entry_count + 1, sizeof *entry) != DTP_OK)
        return DTP_E_MEMORY;
    if (graph->slots[slot].part == DTP_PART_LIST && state != DTP_ENTRY_KILLED) {
        item = dtp_allocate(sizeof *item);
        if (item == NULL)
            return DTP_E_MEMORY;
        memset(item, 0, sizeof *item);
        item->placed.author = item->assigned.author = DTP_NONE;
    }
    if (graph->free_entry != DTP_NONE) {
        *number = graph->free_entry;
        graph->free_entry = graph->entries[*number].next;
    } else {
        *number = (uint32_t)graph->entry_count++;
    }
    entry = &graph->entries[*number];
    memset(entry, 0, sizeof *entry);
    entry->author = author;
    entry->clock = clock;
    entry->slot = slot;
    entry->item = item;
    entry->value.spare = (uint32_t)state;
    dtp_index_put(&graph->by_dot, dot_hash(graph, author, clock), *number);
    return DTP_OK;
}

static void item_free(dtp_entry *entry)
{
    if (entry->item != NULL) {
        dtp_release(entry->item->position);
        dtp_release(entry->item);
        entry->item = NULL;
    }
}

static void entry_link(dtp_graph *graph, uint32_t number)
{
    dtp_entry *entry = &graph->entries[number];
    dtp_container *container = dtp_container_of(graph, entry->slot);
    uint8_t room[DTP_VALUE_NEAR];
    entry->value.spare = DTP_ENTRY_LIVE;
    if (entry->item != NULL)
        sorted_insert(graph, container, number);
    entry->before = DTP_NONE;
    entry->next = container->first;
    if (container->first != DTP_NONE)
        graph->entries[container->first].before = number;
    container->first = number;
    container->count++;
    if (graph->slots[entry->slot].part == DTP_PART_SET)
        dtp_index_put(&graph->by_member, member_hash(graph, entry->slot, dtp_value_get(&entry->value, room)), number);
}

static void entry_unlink(dtp_graph *graph, uint32_t number)
{
    dtp_entry *entry = &graph->entries[number];
    dtp_container *container = dtp_container_of(graph, entry->slot);
    uint8_t room[DTP_VALUE_NEAR];
    if (graph->slots[entry->slot].part == DTP_PART_SET)
        dtp_index_remove(&graph->by_member, member_hash(graph, entry->slot, dtp_value_get(&entry->value, room)), number);
    if (entry->item != NULL)
        sorted_remove(graph, container, number);
    if (entry->before != DTP_NONE)
        graph->entries[entry->before].next = entry->next;
    else
        container->first = entry->next;
    if (entry->next != DTP_NONE)
        graph->entries[entry->next].before = entry->before;
    container->count--;
}

void dtp_entry_free(dtp_graph *graph, uint32_t number)
{
    dtp_entry *entry = &graph->entries[number];
    if (entry->value.spare == DTP_ENTRY_LIVE)
        entry_unlink(graph, number);
    dtp_index_remove(&graph->by_dot, dot_hash(graph, entry->author, entry->clock), number);
    dtp_value_clear(&entry->value);
    item_free(entry);
    entry->value.spare = DTP_ENTRY_FREE;
    entry->next = graph->free_entry;
    graph->free_entry = number;
}

static int entry_kill(dtp_graph *graph, uint32_t slot, const dtp_dot *dot)
{
    uint32_t number = dtp_entry_find(graph, dot->author, dot->clock, slot);
    dtp_entry *entry;
    if (number == DTP_NONE)
        return dtp_applied(graph, dot->author, dot->clock)
            ? 0
            : entry_new(graph, dot->author, dot->clock, slot, DTP_ENTRY_KILLED, &number);
    entry = &graph->entries[number];
    if (entry->value.spare == DTP_ENTRY_LIVE) {
        dtp_entry_free(graph, number);
        return 1;
    }
    if (entry->value.spare == DTP_ENTRY_AWAITED) {
        dtp_value_clear(&entry->value);
        item_free(entry);
        entry->value.spare = DTP_ENTRY_KILLED;
    }
    return 0;
}

/* ---- a list's item: two registers, where it is and what it is ------------------------------------------------------ */

/* 1 written, 0 not above what is there, or a negative code. */
static int item_place_at(dtp_graph *graph, uint32_t number, const dtp_op *op, const uint8_t *position)
{
    dtp_entry *entry = &graph->entries[number];
    dtp_item *item = entry->item;
    dtp_bytes there = {item->position, item->length}, new = {position, op->position_length};
    int order = dtp_stamp_compare(graph, op->clock, op->author, item->placed.clock, item->placed.author);
    int live = entry->value.spare == DTP_ENTRY_LIVE;
    uint8_t *copy;
    if (order < 0 || (order == 0 && dtp_bytes_compare(new, there) <= 0))
        return 0;
    copy = dtp_allocate(new.length);
    if (copy == NULL)
        return DTP_E_MEMORY;
    memcpy(copy, new.at, new.length);
    if (live) {
        dtp_container *container = dtp_container_of(graph, entry->slot);
        sorted_remove(graph, container, number);
        container->count--;
        dtp_release(item->position);
        item->position = copy;
        item->length = new.length;
        sorted_insert(graph, container, number);
        container->count++;
    } else {
        dtp_release(item->position);
        item->position = copy;
        item->length = new.length;
    }
    item->placed.clock = op->clock;
    item->placed.author = op->author;
    return 1;
}

static int item_assign(dtp_graph *graph, uint32_t number, const dtp_op *op)
{
    dtp_entry *entry = &graph->entries[number];
    dtp_bytes new = {op->value, op->value_length};
    uint8_t room[DTP_VALUE_NEAR];
    int order = dtp_stamp_compare(graph, op->clock, op->author, entry->item->assigned.clock, entry->item->assigned.author);
    if (order < 0 || (order == 0 && dtp_bytes_compare(new, dtp_value_get(&entry->value, room)) <= 0))
        return 0;
    if (dtp_value_set(&entry->value, new) != DTP_OK)
        return DTP_E_MEMORY;
    entry->item->assigned.clock = op->clock;
    entry->item->assigned.author = op->author;
    return 1;
}

/* MOVE and ASSIGN. */
static int item_change(dtp_graph *graph, uint32_t slot, const dtp_op *op, const dtp_dot *dot, const uint8_t *positions)
{
    uint32_t number = dtp_entry_find(graph, dot->author, dot->clock, slot);
    int state, done;
    if (number == DTP_NONE) {
        if (dtp_applied(graph, dot->author, dot->clock))
            return 0; /* it was removed: that wins */
        done = entry_new(graph, dot->author, dot->clock, slot, DTP_ENTRY_AWAITED, &number);
        if (done != DTP_OK)
            return done;
    }
    state = (int)graph->entries[number].value.spare;
    if (state == DTP_ENTRY_KILLED)
        return 0;
    done = op->kind == DTP_LIST_MOVE ? item_place_at(graph, number, op, positions + op->position)
                                     : item_assign(graph, number, op);
    return done < 0 || state == DTP_ENTRY_LIVE ? done : 0;
}

/* ---- adding --------------------------------------------------------------------------------------------------------- */

static int entry_add(dtp_graph *graph, uint32_t slot, const dtp_op *op, const uint8_t *positions)
{
    uint32_t number = dtp_entry_find(graph, op->author, op->clock, slot);
    dtp_bytes value = {op->value, op->value_length};
    int state = number == DTP_NONE ? DTP_ENTRY_FREE : (int)graph->entries[number].value.spare, code;
    if (state == DTP_ENTRY_LIVE)
        return 0;
    if (state == DTP_ENTRY_KILLED) {
        dtp_entry_free(graph, number);
        return 0;
    }
    if (number == DTP_NONE) {
        code = entry_new(graph, op->author, op->clock, slot, DTP_ENTRY_AWAITED, &number);
        if (code != DTP_OK)
            return code;
    } else if (dtp_index_reserve(&graph->by_member, 1) != DTP_OK) {
        return DTP_E_MEMORY;
    }
    if (graph->entries[number].item != NULL) {
        code = item_place_at(graph, number, op, positions + op->position);
        code = code < 0 ? code : item_assign(graph, number, op);
    } else {
        code = dtp_value_set(&graph->entries[number].value, value);
    }
    if (code < 0) {
        if (state == DTP_ENTRY_FREE)
            dtp_entry_free(graph, number);
        return code;
    }
    entry_link(graph, number);
    return 1;
}

int dtp_entry_apply(dtp_graph *graph, uint32_t slot, const dtp_op *op, const dtp_dot *dots, const uint8_t *positions)
{
    int changed = 0, done;
    uint32_t i;
    switch (op->kind) {
    case DTP_LIST_MOVE:
    case DTP_LIST_ASSIGN: return item_change(graph, slot, op, &dots[op->first_dot], positions);
    case DTP_SET_ADD:
    case DTP_VALUES_PUT:
    case DTP_LIST_INSERT:
        changed = entry_add(graph, slot, op, positions);
        break;
    default: break;
    }
    for (i = 0; changed >= 0 && i < op->dots; i++) {
        done = entry_kill(graph, slot, &dots[op->first_dot + i]);
        changed = done < 0 ? done : changed | done;
    }
    return changed;
}
