/* graph/entries.c - entries of sets and multi-values, known by their dots (who made it and when).
 *
 * What is removed is gone: no tombstone stays. An entry that comes after its removal is recognised because that left a
 * mark; when the dot was seen and there is no entry, it was removed. */
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

/* ---- entries ------------------------------------------------------------------------------------------------------ */

static int entry_new(dtp_graph *graph, uint32_t author, uint64_t clock, uint32_t slot, int state, uint32_t *number)
{
    dtp_entry *entry;
    if (dtp_index_reserve(&graph->by_dot, 1) != DTP_OK || dtp_index_reserve(&graph->by_member, 1) != DTP_OK
        || dtp_reserve((void **)&graph->entries, &graph->entries_room, graph->entry_count + 1, sizeof *entry) != DTP_OK)
        return DTP_E_MEMORY;
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
    entry->value.spare = (uint32_t)state;
    dtp_index_put(&graph->by_dot, dot_hash(graph, author, clock), *number);
    return DTP_OK;
}

static void entry_link(dtp_graph *graph, uint32_t number)
{
    dtp_entry *entry = &graph->entries[number];
    dtp_container *container = dtp_container_of(graph, entry->slot);
    uint8_t room[DTP_VALUE_NEAR];
    entry->value.spare = DTP_ENTRY_LIVE;
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
    return 0;
}

/* ---- adding --------------------------------------------------------------------------------------------------------- */

static int entry_add(dtp_graph *graph, uint32_t slot, const dtp_op *op)
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
        code = entry_new(graph, op->author, op->clock, slot, DTP_ENTRY_NEW, &number);
        if (code != DTP_OK)
            return code;
    } else if (dtp_index_reserve(&graph->by_member, 1) != DTP_OK) {
        return DTP_E_MEMORY;
    }
    code = dtp_value_set(&graph->entries[number].value, value);
    if (code < 0) {
        if (state == DTP_ENTRY_FREE)
            dtp_entry_free(graph, number);
        return code;
    }
    entry_link(graph, number);
    return 1;
}

int dtp_entry_apply(dtp_graph *graph, uint32_t slot, const dtp_op *op, const dtp_dot *dots)
{
    int changed = 0, done;
    uint32_t i;
    if (op->kind == DTP_SET_ADD || op->kind == DTP_VALUES_PUT)
        changed = entry_add(graph, slot, op);
    for (i = 0; changed >= 0 && i < op->dots; i++) {
        done = entry_kill(graph, slot, &dots[op->first_dot + i]);
        changed = done < 0 ? done : changed | done;
    }
    return changed;
}
