/* list/cells.c - the elements of lists as bytes: values, and markers that say where an element was moved, or what it
 * was assigned. docs/text.md, "Lists". */
#include "crdt_graph.h"
#include "crdt_text_internal.h"

enum { NO_VALUE = 0xc1 /* what no MessagePack begins with */ };

static int read_marker(dtp_reader *r, list_cell *c)
{
    r->at++;
    if (r->at == r->end || *r->at > MARK_VALUE)
        return DTP_TEXT_FORMAT;
    c->kind = *r->at++;
    if (dtp_read_varint(r, &c->stamp) != DTP_OK || c->stamp >> LIST_STAMPS != 0
        || wire_name(r, &c->name, &c->name_size) != DTP_TEXT_OK)
        return DTP_TEXT_FORMAT;
    return wire_number(r, DTP_TEXT_SEQUENCE, &c->seq);
}

int cell_read(dtp_reader *r, list_cell *c)
{
    dtp_reader inside;
    dtp_bytes value = {NULL, 0};
    uint64_t size;
    const uint8_t *at = r->at;
    memset(c, 0, sizeof *c);
    c->kind = MARK_NONE;
    if (dtp_read_varint(r, &size) != DTP_OK)
        return DTP_TEXT_FORMAT;
    inside.start = inside.at = dtp_read_bytes(r, size);
    if (inside.at == NULL || size == 0) {
        r->at = at;
        return DTP_TEXT_FORMAT;
    }
    inside.end = inside.at + size;
    if ((*inside.at == NO_VALUE && read_marker(&inside, c) != DTP_TEXT_OK)
        || (c->kind != MARK_PLACE && dtp_read_value(&inside, &value) != DTP_OK) || inside.at != inside.end) {
        r->at = at;
        return DTP_TEXT_FORMAT;
    }
    c->value = value.at;
    c->value_size = value.length;
    return DTP_TEXT_OK;
}

int64_t cells_count(const uint8_t *cells, size_t size, weight *w, uint64_t *newest)
{
    dtp_reader r = {cells, cells, size > 0 ? cells + size : cells};
    int64_t count = 0;
    list_cell c;
    while (r.at < r.end) {
        if (cell_read(&r, &c) != DTP_TEXT_OK)
            return -1;
        if (c.stamp > *newest)
            *newest = c.stamp;
        count++;
    }
    w->chars = (uint32_t)count;
    w->more8 = (uint32_t)(size - (size_t)count);
    w->more16 = 0;
    return count;
}

/* Length of the cell at `at`, which is valid, and *head the length of what comes before its content. */
static size_t cell_size(const uint8_t *at, size_t *head)
{
    size_t size = 0;
    unsigned shift = 0;
    *head = 0;
    do {
        size |= (size_t)(at[*head] & 0x7f) << shift;
        shift += 7;
    } while (at[(*head)++] >= 0x80);
    return *head + size;
}

size_t cells_skip(const uint8_t *cells, size_t count, weight *w)
{
    size_t at = 0, i, head;
    for (i = 0; i < count; i++)
        at += cells[at] < 0x80 ? 1u + cells[at] : cell_size(cells + at, &head);
    if (w != NULL) {
        w->chars += (uint32_t)count;
        w->more8 += (uint32_t)(at - count);
    }
    return at;
}

int cell_is_marker(const uint8_t *at)
{
    size_t head;
    (void)cell_size(at, &head);
    return at[head] == NO_VALUE;
}

/* Append a length and that many bytes, which the caller fills: NULL when there is no memory. */
static uint8_t *put_sized(dtp_text *t, bytes *b, size_t size)
{
    uint8_t *at;
    if (bytes_reserve(t, b, DTP_VARINT_MAX + size) != DTP_TEXT_OK)
        return NULL;
    at = dtp_put_varint(b->data + b->size, size);
    b->size = (size_t)(at - b->data) + size;
    return at;
}

int cell_put_value(dtp_text *t, bytes *b, const uint8_t *value, size_t size)
{
    uint8_t *at = put_sized(t, b, size);
    if (at == NULL)
        return DTP_TEXT_MEMORY;
    memcpy(at, value, size);
    return DTP_TEXT_OK;
}

int cell_put_marker(dtp_text *t, bytes *b, const list_cell *c)
{
    uint8_t head[2 + 2 * DTP_VARINT_MAX + DTP_TEXT_AGENT + DTP_VARINT_MAX], *end = head, *at;
    *end++ = NO_VALUE;
    *end++ = (uint8_t)c->kind;
    end = dtp_put_varint(end, c->stamp);
    end = dtp_put_varint(end, c->name_size);
    memcpy(end, c->name, c->name_size);
    end = dtp_put_varint(end + c->name_size, c->seq);
    at = put_sized(t, b, (size_t)(end - head) + c->value_size);
    if (at == NULL)
        return DTP_TEXT_MEMORY;
    memcpy(at, head, (size_t)(end - head));
    if (c->value_size > 0)
        memcpy(at + (end - head), c->value, c->value_size);
    return DTP_TEXT_OK;
}
