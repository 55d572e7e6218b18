/* graph/sketch.c - set reconciliation by rateless invertible Bloom lookup tables (Yang, Gilad, Alizadeh: "Practical
 * Rateless Set Reconciliation", 2024): the more symbols one side sends of its set, the more differences the other can
 * read off. docs/graph.md, "Sync". */
#include "crdt.h"

/* The largest t with t * t <= value. */
static uint64_t root(uint64_t value)
{
    uint64_t found = 0, bit = UINT64_C(1) << 62;
    while (bit > value)
        bit >>= 2;
    for (; bit != 0; bit >>= 2) {
        if (value >= found + bit) {
            value -= found + bit;
            found = (found >> 1) + bit;
        } else {
            found >>= 1;
        }
    }
    return found;
}

/* Which symbols an item is in: all are in symbol 0, and in symbol i with the probability 1 / (1 + i / 2). */
static inline dtp_walk walk_begin(uint64_t item)
{
    dtp_walk begun = {item | 1, 0};
    return begun;
}

/* The next one; DTP_SKETCH_SYMBOLS when there is none. In whole numbers, so that all machines agree. */
static inline void walk_on(dtp_walk *walking)
{
    uint64_t t, step;
    walking->state *= UINT64_C(0xda942042e4dd58b5);
    t = root(walking->state) + 1;
    step = ((2 * walking->at + 3) * ((UINT64_C(1) << 32) - (t < UINT64_C(1) << 32 ? t : (UINT64_C(1) << 32))) + 2 * t - 1)
        / (2 * t);
    walking->at += step == 0 ? 1 : step;
    if (walking->at > DTP_SKETCH_SYMBOLS)
        walking->at = DTP_SKETCH_SYMBOLS;
}

static inline uint32_t check_of(uint64_t item)
{
    return (uint32_t)(dtp_mix(item, 0) >> 32);
}

static inline void put(dtp_symbol *symbol, uint64_t item, unsigned count)
{
    symbol->items ^= item;
    symbol->checks ^= check_of(item);
    symbol->count = (uint8_t)(symbol->count + count);
}

void dtp_sketch_begin(const uint64_t *items, size_t count, dtp_walk *walks)
{
    size_t i;
    for (i = 0; i < count; i++)
        walks[i] = walk_begin(items[i]);
}

int dtp_sketch(const uint64_t *items, size_t count, dtp_walk *walks, size_t from, size_t to, dtp_symbol *symbols)
{
    size_t i;
    if (from > to || to > DTP_SKETCH_SYMBOLS)
        return DTP_E_LIMIT;
    memset(symbols, 0, (to - from) * sizeof *symbols);
    for (i = 0; i < count; i++)
        for (; walks[i].at < to; walk_on(&walks[i]))
            put(&symbols[walks[i].at - from], items[i], 1);
    return DTP_OK;
}

/* Take the item out of all symbols; those that may have one item alone now are behind `*end` in `queue`. */
static void take(dtp_symbol *symbols, size_t count, uint64_t item, unsigned sign, uint32_t *queue, size_t *end)
{
    dtp_walk walking = walk_begin(item);
    for (; walking.at < count; walk_on(&walking)) {
        dtp_symbol *symbol = &symbols[walking.at];
        put(symbol, item, 0u - sign);
        if ((symbol->count == 1 || symbol->count == 255) && symbol->queued == 0) {
            symbol->queued = 1;
            queue[(*end)++ % count] = (uint32_t)walking.at;
        }
    }
}

int dtp_sketch_read(dtp_symbol *symbols, size_t count, uint64_t *items, uint8_t *theirs, size_t *found)
{
    uint32_t *queue;
    size_t begin = 0, end = 0, i;
    *found = 0;
    if (count == 0 || count > DTP_SKETCH_SYMBOLS)
        return DTP_E_LIMIT;
    queue = dtp_allocate(count * sizeof *queue);
    if (queue == NULL)
        return DTP_E_MEMORY;
    for (i = 0; i < count; i++) {
        symbols[i].queued = symbols[i].count == 1 || symbols[i].count == 255;
        if (symbols[i].queued)
            queue[end++] = (uint32_t)i;
    }
    /* no symbol is in the queue twice, so it has room; whoever sends nonsense gets `count` rounds, no more */
    while (begin < end && *found < count) {
        dtp_symbol *symbol = &symbols[queue[begin++ % count]];
        uint64_t item = symbol->items;
        unsigned sign = symbol->count;
        symbol->queued = 0;
        if ((sign != 1 && sign != 255) || symbol->checks != check_of(item))
            continue;
        items[*found] = item;
        theirs[(*found)++] = sign == 1;
        take(symbols, count, item, sign, queue, &end);
    }
    dtp_release(queue);
    for (i = 0; i < count; i++)
        if (symbols[i].items != 0 || symbols[i].checks != 0 || symbols[i].count != 0)
            return 0;
    return 1;
}
