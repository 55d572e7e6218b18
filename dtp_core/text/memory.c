/* text/memory.c - the memory of a text: counted, capped, and taken before anything is changed. */
#include "crdt_text_internal.h"

static int allowed(const dtp_text *t, size_t more)
{
    return t->state.cap == 0 || t->state.memory + more <= t->state.cap;
}

void *text_take(dtp_text *t, size_t size)
{
    void *memory = allowed(t, size) ? dtp_allocate(size) : NULL;
    if (memory != NULL)
        t->state.memory += size;
    return memory;
}

void text_give(dtp_text *t, void *memory, size_t size)
{
    if (memory == NULL)
        return;
    t->state.memory -= size;
    dtp_release(memory);
}

enum {
    MANY = 4096, /* items, from which on an array grows by an eighth: half would be megabytes that nothing is in */
    MEGABYTE = 1 << 20, /* of an array, from which on it grows by a sixteenth */
    LARGE = 128  /* bytes of an item, such as an author, of which most texts have one or two */
};

int text_grow(dtp_text *t, void *array, size_t *room, size_t needed, size_t item)
{
    void *old, *moved;
    size_t now = *room, least = item < LARGE ? 8 : 2, next;
    if (needed <= now)
        return DTP_TEXT_OK;
    next = now < least ? least : now + (now < MANY ? now / 2 : now < MEGABYTE / item ? now / 8 : now / 16);
    if (next < needed)
        next = needed;
    if (next > SIZE_MAX / 2 / item || !allowed(t, (next - now) * item))
        return DTP_TEXT_MEMORY;
    memcpy(&old, array, sizeof old);
    moved = dtp_resize(old, next * item);
    if (moved == NULL)
        return DTP_TEXT_MEMORY;
    memcpy(array, &moved, sizeof moved);
    t->state.memory += (next - now) * item;
    *room = next;
    return DTP_TEXT_OK;
}

int bytes_reserve(dtp_text *t, bytes *b, size_t more)
{
    if (more > SIZE_MAX / 4 - b->size)
        return DTP_TEXT_MEMORY;
    return text_grow(t, &b->data, &b->room, b->size + more, 1);
}

void bytes_free(dtp_text *t, bytes *b)
{
    text_give(t, b->data, b->room);
    b->data = NULL;
    b->size = b->room = 0;
}

int spare_reserve(dtp_text *t, size_t leaves, size_t chunks)
{
    size_t branches = leaves == 0 ? 0 : leaves + (t->root != NULL ? t->root->level : 0u) + 1u;
    while (t->spare_leaf_count < leaves) {
        leaf *l = text_take(t, sizeof *l);
        if (l == NULL)
            return DTP_TEXT_MEMORY;
        l->next = t->spare_leaves;
        t->spare_leaves = l;
        t->spare_leaf_count++;
    }
    while (t->spare_branch_count < branches) {
        branch *b = text_take(t, sizeof *b);
        if (b == NULL)
            return DTP_TEXT_MEMORY;
        b->head.parent = t->spare_branches;
        t->spare_branches = b;
        t->spare_branch_count++;
    }
    while (t->spare_chunk_count < chunks) {
        chunk *c = text_take(t, sizeof *c);
        if (c == NULL)
            return DTP_TEXT_MEMORY;
        chunk_return(t, c);
    }
    return DTP_TEXT_OK;
}

leaf *spare_leaf(dtp_text *t)
{
    leaf *l = t->spare_leaves;
    t->spare_leaves = l->next;
    t->spare_leaf_count--;
    memset(&l->head, 0, sizeof l->head);
    l->next = l->previous = NULL;
    return l;
}

branch *spare_branch(dtp_text *t)
{
    branch *b = t->spare_branches;
    t->spare_branches = b->head.parent;
    t->spare_branch_count--;
    memset(&b->head, 0, sizeof b->head);
    return b;
}

chunk *spare_chunk(dtp_text *t)
{
    chunk *c = t->spare_chunks;
    t->spare_chunks = (chunk *)(void *)c->where[0];
    t->spare_chunk_count--;
    c->count = 0;
    return c;
}

void chunk_return(dtp_text *t, chunk *c)
{
    c->where[0] = (leaf *)(void *)t->spare_chunks;
    t->spare_chunks = c;
    t->spare_chunk_count++;
}

void spares_free(dtp_text *t)
{
    while (t->spare_leaf_count > 0)
        text_give(t, spare_leaf(t), sizeof(leaf));
    while (t->spare_branch_count > 0)
        text_give(t, spare_branch(t), sizeof(branch));
    while (t->spare_chunk_count > 0)
        text_give(t, spare_chunk(t), sizeof(chunk));
}
