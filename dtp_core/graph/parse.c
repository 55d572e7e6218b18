/* graph/parse.c - a frame's columns become ops, or nothing does. docs/graph.md, "Frames". */
#include "crdt_graph.h"

enum { FLAG_KINDS = 1, FLAG_AUTHORS = 2, FLAG_STATE = 4, VERSION = 0x10 };

/* What an op of a kind has besides its names and its clock. */
enum { HAS_VALUE = 1, HAS_DOTS = 2, HAS_ITEM = 4, HAS_POSITION = 8, MAY_DELETE = 16, IS_INT = 32, NEEDS_DOTS = 64, IS_BIN = 128 };
static const uint8_t has[DTP_OP_KINDS] = {
    HAS_VALUE | MAY_DELETE,    /* REGISTER_PUT */
    HAS_VALUE | IS_INT,        /* COUNTER_TOTAL */
    HAS_VALUE | HAS_DOTS,      /* SET_ADD */
    HAS_DOTS | NEEDS_DOTS,     /* SET_REMOVE */
    HAS_VALUE | HAS_DOTS,      /* VALUES_PUT */
    HAS_DOTS | NEEDS_DOTS,     /* VALUES_REMOVE */
    HAS_VALUE | HAS_POSITION,  /* OLD_LIST_INSERT */
    HAS_ITEM | HAS_POSITION,   /* OLD_LIST_MOVE */
    HAS_ITEM | HAS_VALUE,      /* OLD_LIST_ASSIGN */
    HAS_DOTS | NEEDS_DOTS,     /* OLD_LIST_REMOVE */
    HAS_VALUE | IS_BIN,        /* TEXT_EDIT */
    HAS_VALUE | IS_BIN,        /* LIST_EDIT */
};

/* Every column may fail on the bytes, or for want of memory. */
#define TRY(call)                 \
    do {                          \
        int code_ = (call);       \
        if (code_ != DTP_OK)      \
            return code_;         \
    } while (0)

static int read_head(dtp_parsed *p, dtp_reader *reader, size_t state_authors, unsigned *flags)
{
    uint64_t count, i;
    const uint8_t *at = dtp_read_bytes(reader, 1);
    if (at == NULL)
        return DTP_E_FORMAT;
    *flags = *at & 0x0fu;
    if ((*at & 0xf0) != VERSION || (*flags & ~7u) != 0 || ((*flags & FLAG_STATE) != 0) != (state_authors > 0)
        || (*flags & FLAG_STATE && *flags & FLAG_AUTHORS)) {
        reader->at--;
        return DTP_E_FORMAT;
    }
    p->before = 0;
    if ((*flags & FLAG_STATE) == 0) {
        if ((at = dtp_read_bytes(reader, 8)) == NULL)
            return DTP_E_FORMAT;
        for (i = 0; i < 8; i++)
            p->before |= (uint64_t)at[i] << 8 * i;
        if (p->before > INT64_MAX) {
            reader->at -= 8;
            return DTP_E_FORMAT;
        }
    }
    at = reader->at;
    TRY(dtp_read_varint(reader, &count));
    if (count == 0 || count > DTP_FRAME_OPS) {
        reader->at = at;
        return DTP_E_FORMAT;
    }
    p->count = (size_t)count;
    TRY(dtp_reserve((void **)&p->ops, &p->ops_room, p->count, sizeof *p->ops));
    p->author_count = state_authors > 0 ? state_authors : 1;
    if (*flags & FLAG_AUTHORS) {
        at = reader->at;
        TRY(dtp_read_varint(reader, &count));
        if (count == 0 || count > DTP_FRAME_OPS || count > dtp_left(reader) / DTP_AUTHOR) {
            reader->at = at;
            return DTP_E_FORMAT;
        }
        TRY(dtp_reserve((void **)&p->author_ids, &p->author_ids_room, (size_t)count, DTP_AUTHOR));
        memcpy(p->author_ids, dtp_read_bytes(reader, count * DTP_AUTHOR), (size_t)count * DTP_AUTHOR);
        p->author_count += (size_t)count;
    }
    return DTP_OK;
}

/* A run: how many ops it is for, from 1 to `left`. */
static int read_run(dtp_reader *reader, size_t left, size_t *length)
{
    const uint8_t *at = reader->at;
    uint64_t value;
    TRY(dtp_read_varint(reader, &value));
    if (value == 0 || value > left) {
        reader->at = at;
        return DTP_E_FORMAT;
    }
    *length = (size_t)value;
    return DTP_OK;
}

static int read_authors(dtp_parsed *p, dtp_reader *reader, unsigned flags)
{
    size_t i = 0, run;
    if ((flags & FLAG_STATE) == 0) {
        for (i = 0; i < p->count; i++)
            p->ops[i].author = 0;
        return DTP_OK;
    }
    while (i < p->count) {
        const uint8_t *at = reader->at;
        uint64_t author;
        TRY(dtp_read_varint(reader, &author));
        if (author >= p->author_count) {
            reader->at = at;
            return DTP_E_FORMAT;
        }
        TRY(read_run(reader, p->count - i, &run));
        while (run-- > 0)
            p->ops[i++].author = (uint32_t)author;
    }
    return DTP_OK;
}

static int read_kinds(dtp_parsed *p, dtp_reader *reader, unsigned flags)
{
    size_t i = 0, run;
    if ((flags & FLAG_KINDS) == 0) {
        for (i = 0; i < p->count; i++)
            p->ops[i].kind = DTP_REGISTER_PUT;
        return DTP_OK;
    }
    while (i < p->count) {
        uint8_t kind;
        if (dtp_left(reader) == 0 || *reader->at >= DTP_OP_KINDS)
            return DTP_E_FORMAT;
        kind = *reader->at++;
        TRY(read_run(reader, p->count - i, &run));
        p->edits += kind >= DTP_TEXT_EDIT ? run : 0;
        while (run-- > 0)
            p->ops[i++].kind = kind;
    }
    return DTP_OK;
}

/* How much of the text before is shared, and how much follows: a nibble each, 15 has a varint behind it. */
static int read_spelling(dtp_reader *reader, uint64_t *shared, uint64_t *more)
{
    const uint8_t *at = dtp_read_bytes(reader, 1);
    uint64_t extra;
    if (at == NULL)
        return DTP_E_FORMAT;
    *shared = *at >> 4;
    *more = *at & 15;
    if (*shared == 15) {
        TRY(dtp_read_varint(reader, &extra));
        *shared += extra > DTP_FRAME_BYTES ? DTP_FRAME_BYTES : extra;
    }
    if (*more == 15) {
        TRY(dtp_read_varint(reader, &extra));
        *more += extra > DTP_FRAME_BYTES ? DTP_FRAME_BYTES : extra;
    }
    return DTP_OK;
}

/* A text that shares its beginning with the one that was written out before it, at `before`. Its place is `*offset`. */
static int read_text(dtp_parsed *p, dtp_reader *reader, size_t before, size_t before_length, size_t limit,
                     size_t *offset, uint32_t *length)
{
    const uint8_t *start = reader->at, *at;
    uint64_t shared, more;
    TRY(read_spelling(reader, &shared, &more));
    if (shared > before_length || shared + more > limit || shared + more > DTP_FRAME_BYTES - p->byte_count
        || (at = dtp_read_bytes(reader, more)) == NULL) {
        reader->at = start;
        return DTP_E_FORMAT;
    }
    TRY(dtp_reserve((void **)&p->bytes, &p->bytes_room, p->byte_count + (size_t)(shared + more) + 1, 1));
    *offset = p->byte_count;
    *length = (uint32_t)(shared + more);
    if (shared > 0)
        memcpy(p->bytes + *offset, p->bytes + before, (size_t)shared);
    if (more > 0)
        memcpy(p->bytes + *offset + shared, at, (size_t)more);
    p->byte_count += *length;
    return DTP_OK;
}

static int read_new_name(dtp_parsed *p, dtp_reader *reader, const uint64_t seed[2], size_t base, size_t least)
{
    const uint8_t *start = reader->at;
    dtp_spelled *name, *before;
    size_t offset;
    uint32_t length;
    TRY(dtp_reserve((void **)&p->names, &p->names_room, p->name_count + 1, sizeof *p->names));
    before = p->name_count > base ? &p->names[p->name_count - 1] : NULL;
    TRY(read_text(p, reader, before ? before->offset : 0, before ? before->length : 0, DTP_NAME_BYTES, &offset,
                  &length));
    if (length < least || !dtp_is_utf8(p->bytes + offset, length)) {
        reader->at = start;
        return DTP_E_FORMAT;
    }
    name = &p->names[p->name_count++];
    name->offset = offset;
    name->length = length;
    name->hash = (uint32_t)dtp_hash(seed, p->bytes + offset, length);
    p->owned |= length > 0 && (p->bytes[offset] == '~' || p->bytes[offset] == '%');
    return DTP_OK;
}

/* A column of names: 0 the one before, 1 a new one, else the (n - 2)th that was new in this column. */
static int read_names(dtp_parsed *p, dtp_reader *reader, const uint64_t seed[2], int keys)
{
    size_t base = p->name_count, i;
    uint32_t current = DTP_NONE;
    for (i = 0; i < p->count; i++) {
        const uint8_t *at = reader->at;
        uint64_t token;
        TRY(dtp_read_varint(reader, &token));
        if (token == 1) {
            TRY(read_new_name(p, reader, seed, base, keys ? 0 : 1));
            current = (uint32_t)(p->name_count - 1);
        } else if (token >= 2 && token - 2 < p->name_count - base) {
            current = (uint32_t)(base + token - 2);
        } else if (token != 0 || current == DTP_NONE) {
            reader->at = at;
            return DTP_E_FORMAT;
        }
        if (keys)
            p->ops[i].key = current;
        else
            p->ops[i].soul = current;
    }
    return DTP_OK;
}

/* Steps from one clock to the next, in the two lowest bits: 0 a run of +1, 1 that many milliseconds and the count back
 * to 0, 2 that much more, 3 (states only) that much less or the same. */
static int read_clocks(dtp_parsed *p, dtp_reader *reader, int state)
{
    uint64_t clock = p->before, token, step;
    size_t i = 0;
    while (i < p->count) {
        const uint8_t *at = reader->at;
        TRY(dtp_read_varint(reader, &token));
        step = token >> 2;
        if ((token & 3) == 0 && step > 0 && step <= p->count - i && clock <= INT64_MAX - step) {
            while (step-- > 0)
                p->ops[i++].clock = ++clock;
            continue;
        }
        if ((token & 3) == 1 && step > 0 && step <= (UINT64_C(1) << 47) - 1 - (clock >> 16))
            clock = ((clock >> 16) + step) << 16;
        else if ((token & 3) == 2 && step > 0 && step <= INT64_MAX - clock)
            clock += step;
        else if ((token & 3) == 3 && state && step < clock)
            clock -= step;
        else {
            reader->at = at;
            return DTP_E_FORMAT;
        }
        p->ops[i++].clock = clock;
    }
    p->last = clock;
    return DTP_OK;
}

static int read_dot(dtp_parsed *p, dtp_reader *reader, const dtp_op *op)
{
    const uint8_t *at = reader->at;
    uint64_t author, difference;
    dtp_dot *dot;
    TRY(dtp_reserve((void **)&p->dots, &p->dots_room, p->dot_count + 1, sizeof *p->dots));
    TRY(dtp_read_varint(reader, &author));
    TRY(dtp_read_varint(reader, &difference));
    /* what is removed came before what removes it */
    if (author >= p->author_count || difference == 0 || difference >= op->clock) {
        reader->at = at;
        return DTP_E_FORMAT;
    }
    dot = &p->dots[p->dot_count++];
    dot->author = (uint32_t)author;
    dot->clock = op->clock - difference;
    return DTP_OK;
}

static int read_dots(dtp_parsed *p, dtp_reader *reader)
{
    size_t i;
    for (i = 0; i < p->count; i++) {
        dtp_op *op = &p->ops[i];
        const uint8_t *at = reader->at;
        uint64_t count = 1, j;
        op->first_dot = (uint32_t)p->dot_count;
        op->dots = 0;
        if ((has[op->kind] & (HAS_DOTS | HAS_ITEM)) == 0)
            continue;
        if (has[op->kind] & HAS_DOTS)
            TRY(dtp_read_varint(reader, &count));
        /* a dot has two bytes at least, so what is left bounds them */
        if (count > dtp_left(reader) / 2 || (count == 0 && has[op->kind] & NEEDS_DOTS)) {
            reader->at = at;
            return DTP_E_FORMAT;
        }
        for (j = 0; j < count; j++)
            TRY(read_dot(p, reader, op));
        op->dots = (uint32_t)count;
    }
    return DTP_OK;
}

static int read_positions(dtp_parsed *p, dtp_reader *reader)
{
    size_t i, before = 0;
    uint32_t length = 0;
    for (i = 0; i < p->count; i++) {
        dtp_op *op = &p->ops[i];
        const uint8_t *at = reader->at;
        op->position_length = 0;
        op->position = 0;
        if ((has[op->kind] & HAS_POSITION) == 0)
            continue;
        TRY(read_text(p, reader, before, length, DTP_POSITION_BYTES, &before, &length));
        if (length == 0) {
            reader->at = at;
            return DTP_E_FORMAT;
        }
        op->position = (uint32_t)before;
        op->position_length = length;
    }
    return DTP_OK;
}

static int is_int(uint8_t head)
{
    return head < 0x80 || head >= 0xe0 || (head >= 0xcc && head <= 0xd3);
}

static int read_values(dtp_parsed *p, dtp_reader *reader)
{
    size_t i;
    for (i = 0; i < p->count; i++) {
        dtp_op *op = &p->ops[i];
        dtp_bytes value;
        op->value = NULL;
        op->value_length = 0;
        op->verdict = DTP_AS_OWNED;
        if ((has[op->kind] & HAS_VALUE) == 0)
            continue;
        if (dtp_left(reader) > 0 && *reader->at == DTP_DELETED && has[op->kind] & MAY_DELETE) {
            reader->at++;
            continue;
        }
        if (dtp_left(reader) > 0 && has[op->kind] & IS_INT && !is_int(*reader->at))
            return DTP_E_FORMAT;
        if (dtp_left(reader) > 0 && has[op->kind] & IS_BIN && (*reader->at < 0xc4 || *reader->at > 0xc6))
            return DTP_E_FORMAT;
        TRY(dtp_read_value(reader, &value));
        op->value = value.at;
        op->value_length = (uint32_t)value.length;
    }
    return DTP_OK;
}

static int parse(dtp_parsed *p, const uint64_t seed[2], dtp_reader *reader, size_t state_authors)
{
    unsigned flags;
    TRY(read_head(p, reader, state_authors, &flags));
    TRY(read_authors(p, reader, flags));
    TRY(read_kinds(p, reader, flags));
    TRY(read_names(p, reader, seed, 0));
    TRY(read_names(p, reader, seed, 1));
    TRY(read_clocks(p, reader, state_authors > 0));
    if (flags & FLAG_KINDS) {
        TRY(read_dots(p, reader));
        TRY(read_positions(p, reader));
    } else {
        size_t i;
        for (i = 0; i < p->count; i++)
            p->ops[i].dots = 0;
    }
    TRY(read_values(p, reader));
    return reader->at == reader->end ? DTP_OK : DTP_E_FORMAT;
}

int dtp_parse(dtp_parsed *parsed, const uint64_t seed[2], const uint8_t *body, size_t length, size_t state_authors,
              size_t *place)
{
    dtp_reader reader = {body, body, body + length};
    int code;
    *place = 0;
    parsed->count = parsed->dot_count = parsed->byte_count = parsed->name_count = parsed->edits = 0;
    parsed->owned = 0;
    if (length > DTP_FRAME_BYTES)
        return DTP_E_FORMAT;
    code = parse(parsed, seed, &reader, state_authors);
    if (code != DTP_OK) {
        *place = (size_t)(reader.at - reader.start);
        parsed->count = 0;
    }
    return code;
}

void dtp_parsed_close(dtp_parsed *parsed)
{
    dtp_release(parsed->ops);
    dtp_release(parsed->dots);
    dtp_release(parsed->bytes);
    dtp_release(parsed->names);
    dtp_release(parsed->author_ids);
    dtp_release(parsed->authors);
    memset(parsed, 0, sizeof *parsed);
}
