/* graph/names.c - tables: hashes to numbers, texts to numbers, authors and what of them was seen. */
#include "crdt_graph.h"

/* ---- an index --------------------------------------------------------------------------------------------------- */

static void place(dtp_index *index, uint64_t cell)
{
    size_t at = (size_t)(cell >> 32) & index->mask;
    while (index->cells[at] != 0)
        at = (at + 1) & index->mask;
    index->cells[at] = cell;
}

int dtp_index_reserve(dtp_index *index, size_t more)
{
    size_t room = index->mask + 1, needed = index->count + more, i;
    dtp_index grown;
    if (index->cells != NULL && needed <= room / 8 * 7)
        return DTP_OK;
    room = index->cells == NULL ? 16 : room;
    while (needed > room / 8 * 7) {
        if (room > SIZE_MAX / 2 / sizeof *grown.cells || room > UINT32_MAX / 2)
            return DTP_E_MEMORY;
        room *= 2;
    }
    grown.cells = dtp_allocate(room * sizeof *grown.cells);
    if (grown.cells == NULL)
        return DTP_E_MEMORY;
    memset(grown.cells, 0, room * sizeof *grown.cells);
    grown.mask = room - 1;
    grown.count = index->count;
    for (i = 0; index->cells != NULL && i <= index->mask; i++)
        if (index->cells[i] != 0)
            place(&grown, index->cells[i]);
    dtp_release(index->cells);
    *index = grown;
    return DTP_OK;
}

void dtp_index_put(dtp_index *index, uint32_t hash, uint32_t number)
{
    place(index, dtp_cell(hash, number));
    index->count++;
}

/* Cells behind the hole that may stand nearer to where they belong are moved up, so no marks of what was stay. */
void dtp_index_remove(dtp_index *index, uint32_t hash, uint32_t number)
{
    size_t hole = hash & index->mask, next;
    while (index->cells[hole] != dtp_cell(hash, number))
        hole = (hole + 1) & index->mask;
    for (next = (hole + 1) & index->mask; index->cells[next] != 0; next = (next + 1) & index->mask) {
        size_t home = (size_t)(index->cells[next] >> 32) & index->mask;
        if (((next - home) & index->mask) >= ((next - hole) & index->mask)) {
            index->cells[hole] = index->cells[next];
            hole = next;
        }
    }
    index->cells[hole] = 0;
    index->count--;
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

int dtp_name_find(const dtp_graph *graph, const uint8_t *text, size_t length, uint32_t hash, uint32_t *number)
{
    uint32_t candidate;
    if (graph->by_name.cells == NULL)
        return 0;
    DTP_PROBE(&graph->by_name, hash, candidate)
    {
        const dtp_name *name = &graph->names[candidate];
        if (name->hash == hash && name->length == length && (length == 0 || memcmp(dtp_name_text(graph, name), text, length) == 0)) {
            *number = candidate;
            return 1;
        }
    }
    return 0;
}

int dtp_name_intern(dtp_graph *graph, const uint8_t *text, size_t length, uint32_t hash, uint32_t *number)
{
    dtp_name *name;
    if (dtp_name_find(graph, text, length, hash, number))
        return DTP_OK;
    if (graph->name_count >= DTP_NONE
        || dtp_reserve((void **)&graph->names, &graph->names_room, graph->name_count + 1, sizeof *name) != DTP_OK
        || (length > DTP_NAME_NEAR
            && dtp_reserve((void **)&graph->text, &graph->text_room, graph->text_count + length, 1) != DTP_OK)
        || dtp_index_reserve(&graph->by_name, 1) != DTP_OK)
        return DTP_E_MEMORY;
    name = &graph->names[graph->name_count];
    name->hash = hash;
    name->length = (uint32_t)length;
    name->first = DTP_NONE;
    if (length > DTP_NAME_NEAR) {
        uint64_t offset = graph->text_count;
        memcpy(name->near, &offset, sizeof offset);
        memcpy(graph->text + offset, text, length);
        graph->text_count += length;
    } else if (length > 0) {
        memcpy(name->near, text, length);
    }
    *number = (uint32_t)graph->name_count++;
    dtp_index_put(&graph->by_name, hash, *number);
    return DTP_OK;
}

/* ---- authors ------------------------------------------------------------------------------------------------------ */

int dtp_author_intern(dtp_graph *graph, const uint8_t *id, uint32_t *number)
{
    uint32_t hash = (uint32_t)dtp_hash(graph->seed, id, DTP_AUTHOR), candidate;
    dtp_author *author;
    if (dtp_index_reserve(&graph->by_author, 1) != DTP_OK)
        return DTP_E_MEMORY;
    DTP_PROBE(&graph->by_author, hash, candidate)
    {
        if (memcmp(graph->authors[candidate].id, id, DTP_AUTHOR) == 0) {
            *number = candidate;
            return DTP_OK;
        }
    }
    /* parts from DTP_PART_COUNTER on are taken, and a part is an author's number plus one */
    if (graph->author_count >= DTP_PART_COUNTER - 1
        || dtp_reserve((void **)&graph->authors, &graph->authors_room, graph->author_count + 1, sizeof *author))
        return DTP_E_MEMORY;
    author = &graph->authors[graph->author_count];
    memset(author, 0, sizeof *author);
    memcpy(author->id, id, DTP_AUTHOR);
    *number = (uint32_t)graph->author_count++;
    dtp_index_put(&graph->by_author, hash, *number);
    return DTP_OK;
}

int dtp_may_write(const dtp_author *author, const uint8_t *soul, size_t length)
{
    size_t owned = author->owner_length;
    if (length == 0 || (soul[0] != '~' && soul[0] != '%'))
        return 1;
    return soul[0] == '~' && owned > 0 && length > owned && memcmp(soul + 1, author->owner, owned) == 0
        && (length == owned + 1 || soul[owned + 1] == '/');
}

/* The first span that ends at or after `clock`. */
static size_t first_from(const dtp_author *author, uint64_t clock)
{
    size_t low = 0, high = author->seen_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (author->seen[middle].to < clock)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int dtp_seen_has(const dtp_author *author, uint64_t clock)
{
    size_t at = first_from(author, clock);
    return at < author->seen_count && author->seen[at].from < clock;
}

int dtp_seen_covers(const dtp_author *author, uint64_t from, uint64_t to)
{
    size_t at = first_from(author, to);
    return at < author->seen_count && author->seen[at].from <= from;
}

int dtp_seen_reserve(dtp_author *author)
{
    return dtp_reserve((void **)&author->seen, &author->seen_room, author->seen_count + 1, sizeof *author->seen);
}

void dtp_seen_add(dtp_author *author, uint64_t from, uint64_t to)
{
    size_t first = first_from(author, from), behind = first, count = author->seen_count;
    dtp_span *seen = author->seen;
    while (behind < count && seen[behind].from <= to) { /* they touch or overlap: one span */
        from = seen[behind].from < from ? seen[behind].from : from;
        to = seen[behind].to > to ? seen[behind].to : to;
        behind++;
    }
    if (behind == first || behind - first > 1)
        memmove(seen + first + 1, seen + behind, (count - behind) * sizeof *seen);
    author->seen_count = count - (behind - first) + 1;
    seen[first].from = from;
    seen[first].to = to;
}
