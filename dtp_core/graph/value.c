/* graph/value.c - MessagePack values: checked when read, small ones kept in place. docs/graph.md, "Values". */
#include "crdt_graph.h"

/* ---- keeping -------------------------------------------------------------------------------------------------- */

void dtp_value_clear(dtp_value *value)
{
    if (value->length > DTP_VALUE_NEAR)
        dtp_release(value->as.far);
    value->length = 0;
}

int dtp_value_set(dtp_value *value, dtp_bytes bytes)
{
    if (bytes.length <= DTP_VALUE_NEAR) {
        uint8_t near[DTP_VALUE_NEAR] = {0}; /* `bytes` may lie in the value itself */
        if (bytes.length > 0)
            memcpy(near, bytes.at, bytes.length);
        dtp_value_clear(value);
        value->head = near[0];
        memcpy(value->as.near, near + 1, sizeof value->as.near);
    } else if (bytes.length == value->length) {
        memmove(value->as.far, bytes.at, bytes.length);
    } else {
        uint8_t *far = dtp_allocate(bytes.length);
        if (far == NULL)
            return DTP_E_MEMORY;
        memcpy(far, bytes.at, bytes.length);
        dtp_value_clear(value);
        value->as.far = far;
    }
    value->length = (uint32_t)bytes.length & 0xffffff;
    return DTP_OK;
}

dtp_bytes dtp_value_get(const dtp_value *value, uint8_t *room)
{
    dtp_bytes bytes = {room, value->length};
    if (value->length > DTP_VALUE_NEAR) {
        bytes.at = value->as.far;
    } else {
        room[0] = (uint8_t)value->head;
        memcpy(room + 1, value->as.near, sizeof value->as.near);
    }
    return bytes;
}

int dtp_bytes_compare(dtp_bytes a, dtp_bytes b)
{
    size_t common = a.length < b.length ? a.length : b.length;
    int order = common == 0 ? 0 : memcmp(a.at, b.at, common);
    return order != 0 ? order : (a.length > b.length) - (a.length < b.length);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static int is_tail(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* The bytes of the character at `p` (not ASCII), 0 when it is none: RFC 3629. */
static size_t character(const uint8_t *p, size_t left)
{
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        return left >= 2 && is_tail(p[1]) ? 2 : 0;
    if (p[0] >= 0xe0 && p[0] <= 0xef) {
        uint8_t low = p[0] == 0xe0 ? 0xa0 : 0x80, high = p[0] == 0xed ? 0x9f : 0xbf;
        return left >= 3 && p[1] >= low && p[1] <= high && is_tail(p[2]) ? 3 : 0;
    }
    if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        uint8_t low = p[0] == 0xf0 ? 0x90 : 0x80, high = p[0] == 0xf4 ? 0x8f : 0xbf;
        return left >= 4 && p[1] >= low && p[1] <= high && is_tail(p[2]) && is_tail(p[3]) ? 4 : 0;
    }
    return 0;
}

int dtp_is_utf8(const uint8_t *text, size_t length)
{
    size_t i = 0;
    while (i < length) {
        uint64_t eight;
        size_t size;
        if (length - i >= sizeof eight) {
            memcpy(&eight, text + i, sizeof eight);
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        size = text[i] < 0x80 ? 1 : character(text + i, length - i);
        if (size == 0)
            return 0;
        i += size;
    }
    return 1;
}

static uint64_t big_endian(const uint8_t *p, size_t bytes)
{
    uint64_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | *p++;
    return value;
}

/* What a head byte says: how many bytes follow it at once, and what is to come behind those. */
typedef struct shape {
    uint64_t bytes;
    uint64_t items; /* values inside */
    int text;
    int map;
} shape;

/* The length that follows a head, in 1, 2 or 4 bytes: -1 when it is cut off. */
static int read_length(dtp_reader *reader, size_t width, uint64_t *length)
{
    const uint8_t *at = dtp_read_bytes(reader, width);
    if (at == NULL)
        return -1;
    *length = big_endian(at, width);
    return 0;
}

/* Heads from 0xc0 to 0xdf. */
static int read_shape_long(dtp_reader *reader, uint8_t head, shape *found)
{
    static const uint8_t fixed[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8}; /* float, uint, int: 0xca..0xd3 */
    if (head == 0xc0 || head == 0xc2 || head == 0xc3)
        return 0;
    if (head >= 0xca && head <= 0xd3) {
        found->bytes = fixed[head - 0xca];
        return 0;
    }
    if (head >= 0xc4 && head <= 0xc6)
        return read_length(reader, (size_t)1 << (head - 0xc4), &found->bytes);
    if (head >= 0xd9 && head <= 0xdb) {
        found->text = 1;
        return read_length(reader, (size_t)1 << (head - 0xd9), &found->bytes);
    }
    if (head >= 0xdc) {
        found->map = head >= 0xde;
        if (read_length(reader, head & 1 ? 4 : 2, &found->items) != 0 || found->items > DTP_VALUE_LIMIT)
            return -1;
        found->items <<= found->map;
        return 0;
    }
    if (head >= 0xd4 && head <= 0xd8)
        found->bytes = (uint64_t)1 << (head - 0xd4);
    else if (head < 0xc7 || read_length(reader, (size_t)1 << (head - 0xc7), &found->bytes) != 0)
        return -1; /* 0xc1 is no value */
    /* an extension's type: those below 0 are MessagePack's own */
    if (dtp_left(reader) == 0 || *reader->at >= 0x80)
        return -1;
    reader->at++;
    return 0;
}

static int read_shape(dtp_reader *reader, shape *found)
{
    uint8_t head;
    memset(found, 0, sizeof *found);
    if (dtp_left(reader) == 0)
        return -1;
    head = *reader->at++;
    if (head < 0x80 || head >= 0xe0)
        return 0;
    if (head >= 0xc0)
        return read_shape_long(reader, head, found);
    if (head >= 0xa0) {
        found->bytes = head & 0x1f;
        found->text = 1;
    } else {
        found->map = head < 0x90;
        found->items = (uint64_t)(head & 0x0f) << found->map;
    }
    return 0;
}

int dtp_read_value(dtp_reader *reader, dtp_bytes *value)
{
    struct {
        uint64_t left;
        int map;
    } stack[DTP_VALUE_DEPTH];
    size_t depth = 0;
    const uint8_t *start = reader->at;

    for (;;) {
        shape found;
        const uint8_t *here = reader->at, *bytes;
        int is_key = depth > 0 && stack[depth - 1].map && stack[depth - 1].left % 2 == 0;
        if (read_shape(reader, &found) != 0 || (is_key && !found.text)
            || (bytes = dtp_read_bytes(reader, found.bytes)) == NULL
            || (found.text && !dtp_is_utf8(bytes, (size_t)found.bytes))
            || (found.items > 0 && depth == DTP_VALUE_DEPTH)
            || (size_t)(reader->at - start) > DTP_VALUE_BYTES) {
            reader->at = here;
            return DTP_E_FORMAT;
        }
        if (depth > 0)
            stack[depth - 1].left--;
        if (found.items > 0) {
            stack[depth].left = found.items;
            stack[depth].map = found.map;
            depth++;
        }
        while (depth > 0 && stack[depth - 1].left == 0)
            depth--;
        if (depth == 0)
            break;
    }
    value->at = start;
    value->length = (size_t)(reader->at - start);
    return DTP_OK;
}
