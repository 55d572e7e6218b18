/* graph/sort.c - numbers in the order of what they stand for. */
#include "crdt_graph.h"

/* Merge sort, bottom up; runs that are in order already cost one comparison. */
void dtp_sort(const dtp_graph *graph, uint32_t *items, uint32_t *scratch, size_t count, dtp_order order)
{
    uint32_t *from = items, *to = scratch, *swap;
    size_t width, at;
    for (width = 1; width < count; width *= 2) {
        for (at = 0; at < count; at += 2 * width) {
            size_t middle = at + width < count ? at + width : count;
            size_t end = at + 2 * width < count ? at + 2 * width : count;
            size_t left = at, right = middle, out = at;
            if (right == end || order(graph, from[middle - 1], from[middle]) <= 0) {
                memcpy(to + at, from + at, (end - at) * sizeof *to);
                continue;
            }
            while (left < middle || right < end) {
                int take_right = left == middle || (right < end && order(graph, from[right], from[left]) < 0);
                to[out++] = take_right ? from[right++] : from[left++];
            }
        }
        swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, count * sizeof *items);
}

int dtp_name_order(const dtp_graph *graph, uint32_t a, uint32_t b)
{
    const dtp_name *x = &graph->names[a], *y = &graph->names[b];
    dtp_bytes left = {dtp_name_text(graph, x), x->length}, right = {dtp_name_text(graph, y), y->length};
    return dtp_bytes_compare(left, right);
}

int dtp_author_order(const dtp_graph *graph, uint32_t a, uint32_t b)
{
    return memcmp(graph->authors[a].id, graph->authors[b].id, DTP_AUTHOR);
}

/* Slots of one soul: by key, then by part; a counter's totals by author. */
int dtp_slot_order(const dtp_graph *graph, uint32_t a, uint32_t b)
{
    const dtp_slot *x = &graph->slots[a], *y = &graph->slots[b];
    uint32_t left = dtp_space_of(x->part), right = dtp_space_of(y->part);
    if (x->key != y->key)
        return dtp_name_order(graph, x->key, y->key);
    if (left != right)
        return left < right ? -1 : 1;
    return left == DTP_COUNTER ? dtp_author_order(graph, x->part - 1, y->part - 1) : 0;
}

/* Entries by container, then by dot. */
int dtp_entry_order(const dtp_graph *graph, uint32_t a, uint32_t b)
{
    const dtp_entry *x = &graph->entries[a], *y = &graph->entries[b];
    if (x->slot != y->slot) {
        const dtp_slot *left = &graph->slots[x->slot], *right = &graph->slots[y->slot];
        return left->soul != right->soul ? dtp_name_order(graph, left->soul, right->soul)
                                         : dtp_slot_order(graph, x->slot, y->slot);
    }
    return dtp_stamp_compare(graph, x->clock, x->author, y->clock, y->author);
}

int dtp_deferred_order(const dtp_graph *graph, uint32_t a, uint32_t b)
{
    const dtp_deferred *x = &graph->deferred[a], *y = &graph->deferred[b];
    dtp_bytes left = {x->body, x->length}, right = {y->body, y->length};
    int order = dtp_stamp_compare(graph, x->last, x->author, y->last, y->author);
    return order != 0 ? order : dtp_bytes_compare(left, right);
}
