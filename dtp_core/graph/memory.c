/* graph/memory.c - the one file of the core that knows an allocator. docs/decisions/0091. */
#include <stdlib.h>

#include "crdt.h"

void *dtp_allocate(size_t bytes)
{
    return malloc(bytes);
}

void *dtp_resize(void *memory, size_t bytes)
{
    return realloc(memory, bytes);
}

void dtp_release(void *memory)
{
    free(memory);
}
