/* rich/cells.c - the marks of a text as bytes: markers among its characters, each in one byte that no UTF-8 has, a length,
 * and what it says. docs/text.md, "Marks". */
#include "crdt_graph.h"
#include "crdt_text_internal.h"

size_t rich_size(const uint8_t *at)
{
    size_t size = 0, head = 1;
    unsigned shift = 0;
    do {
        size |= (size_t)(at[head] & 0x7f) << shift;
        shift += 7;
    } while (at[head++] >= 0x80);
    return head + size;
}

/* The sides that there are: a start tied to nothing is the beginning of the text, such an end is its end. */
static int sides_agree(unsigned sides)
{
    return sides < 16 && ((sides & RICH_FROM_BEGINNING) == 0 || (sides & RICH_START_AFTER) != 0)
        && ((sides & RICH_TO_END) == 0 || (sides & RICH_END_AFTER) == 0);
}

static int read_end(dtp_reader *r, rich_cell *c, unsigned i)
{
    if ((c->sides & (i == 0 ? RICH_FROM_BEGINNING : RICH_TO_END)) != 0)
        return DTP_TEXT_OK;
    if (wire_name(r, &c->agent[i], &c->agent_size[i]) != DTP_TEXT_OK)
        return DTP_TEXT_FORMAT;
    return wire_number(r, DTP_TEXT_SEQUENCE, &c->seq[i]);
}

static int read_inside(dtp_reader *r, rich_cell *c)
{
    uint64_t length;
    dtp_bytes value;
    weight w;
    if (dtp_read_varint(r, &c->stamp) != DTP_OK || c->stamp >> LIST_STAMPS != 0 || r->at == r->end)
        return DTP_TEXT_FORMAT;
    c->sides = *r->at++;
    if (!sides_agree(c->sides) || read_end(r, c, 0) != DTP_TEXT_OK || read_end(r, c, 1) != DTP_TEXT_OK
        || dtp_read_varint(r, &length) != DTP_OK || length == 0 || length > DTP_TEXT_MARK_NAME)
        return DTP_TEXT_FORMAT;
    c->name_size = (size_t)length;
    c->name = dtp_read_bytes(r, length);
    if (c->name == NULL || utf8_count(c->name, c->name_size, &w) < 0 || dtp_left(r) > DTP_TEXT_MARK_VALUE
        || dtp_read_value(r, &value) != DTP_OK || r->at != r->end)
        return DTP_TEXT_FORMAT;
    c->value = value.at;
    c->value_size = value.length;
    return DTP_TEXT_OK;
}

int rich_read(dtp_reader *r, rich_cell *c)
{
    dtp_reader inside;
    uint64_t size;
    memset(c, 0, sizeof *c);
    if (r->at == r->end || *r->at++ != RICH_CELL || dtp_read_varint(r, &size) != DTP_OK)
        return DTP_TEXT_FORMAT;
    inside.start = inside.at = dtp_read_bytes(r, size);
    if (inside.at == NULL)
        return DTP_TEXT_FORMAT;
    inside.end = inside.at + size;
    return read_inside(&inside, c);
}

int rich_put(dtp_text *t, bytes *b, const rich_cell *c)
{
    uint8_t head[3 * DTP_VARINT_MAX + 1 + 2 * (2 * DTP_VARINT_MAX + DTP_TEXT_AGENT)], *end = head, *at;
    unsigned i;
    size_t size;
    end = dtp_put_varint(end, c->stamp);
    *end++ = (uint8_t)c->sides;
    for (i = 0; i < 2; i++)
        if (c->agent_size[i] > 0) {
            end = dtp_put_varint(end, c->agent_size[i]);
            memcpy(end, c->agent[i], c->agent_size[i]);
            end = dtp_put_varint(end + c->agent_size[i], c->seq[i]);
        }
    end = dtp_put_varint(end, c->name_size);
    size = (size_t)(end - head) + c->name_size + c->value_size;
    if (bytes_reserve(t, b, 1 + DTP_VARINT_MAX + size) != DTP_TEXT_OK)
        return DTP_TEXT_MEMORY;
    at = b->data + b->size;
    *at++ = RICH_CELL;
    at = dtp_put_varint(at, size);
    memcpy(at, head, (size_t)(end - head));
    memcpy(at + (end - head), c->name, c->name_size);
    memcpy(at + (end - head) + c->name_size, c->value, c->value_size);
    b->size = (size_t)(at - b->data) + size;
    return DTP_TEXT_OK;
}
