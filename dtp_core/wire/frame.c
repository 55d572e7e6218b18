/* wire/frame.c - frames inside a plaintext: packing, parsing, joining. docs/wire.md, "Frames". */
#include "internal.h"

enum { STREAM_OVERHEAD = DTP_FRAME_HEADER + DTP_STREAM_HEADER };

/* ---- packing -------------------------------------------------------------------------------------------- */

int dtp_frames_check(const dtp_outgoing *frames, size_t count, size_t limit)
{
    size_t i;
    for (i = 0; i < count; i++) {
        const dtp_outgoing *frame = &frames[i];
        if (frame->type == DTP_STREAM) {
            if (limit < STREAM_OVERHEAD + (size_t)(frame->length > 0) || frame->length > UINT64_MAX - frame->offset)
                return DTP_E_FRAME;
        } else if (frame->type == DTP_REKEY || limit < DTP_FRAME_HEADER
                   || frame->length > limit - DTP_FRAME_HEADER) {
            return DTP_E_FRAME; /* REKEY: only the record layer may say when the key changes */
        }
    }
    return DTP_OK;
}

static void put_frame_header(uint8_t *out, uint8_t type, uint8_t flags, size_t body)
{
    out[0] = type;
    out[1] = flags;
    put16(out + 2, body);
}

/* One piece of a STREAM frame; the bytes written, 0 when not one byte of data would fit. */
static size_t pack_stream(dtp_queue *queue, uint8_t *out, size_t room)
{
    const dtp_outgoing *frame = &queue->frames[queue->next];
    size_t left = frame->length - queue->partial;
    size_t piece;
    uint8_t flags = frame->flags;

    if (room < STREAM_OVERHEAD + (size_t)(left > 0))
        return 0;
    piece = least(left, room - STREAM_OVERHEAD);
    if (piece < left)
        flags = (uint8_t)(flags & ~DTP_FIN);
    put_frame_header(out, frame->type, flags, DTP_STREAM_HEADER + piece);
    put64(out + DTP_FRAME_HEADER, frame->stream);
    put64(out + DTP_FRAME_HEADER + 8, frame->offset + queue->partial);
    if (piece > 0)
        memcpy(out + STREAM_OVERHEAD, frame->data + queue->partial, piece);
    if (piece == left) {
        queue->next++;
        queue->partial = 0;
    } else {
        queue->partial += piece;
    }
    return STREAM_OVERHEAD + piece;
}

size_t dtp_frames_pack(dtp_queue *queue, uint8_t *out, size_t room)
{
    size_t used = 0, packed;
    for (packed = 0; queue->next < queue->count && packed < DTP_RECORD_FRAMES; packed++) {
        const dtp_outgoing *frame = &queue->frames[queue->next];
        if (frame->type == DTP_STREAM) {
            size_t made = pack_stream(queue, out + used, room - used);
            used += made;
            if (made == 0)
                break;
            continue;
        }
        if (room - used < DTP_FRAME_HEADER || room - used - DTP_FRAME_HEADER < frame->length)
            break;
        put_frame_header(out + used, frame->type, frame->flags, frame->length);
        if (frame->length > 0)
            memcpy(out + used + DTP_FRAME_HEADER, frame->data, frame->length);
        used += DTP_FRAME_HEADER + frame->length;
        queue->next++;
    }
    return used;
}

/* ---- parsing -------------------------------------------------------------------------------------------- */

/* Of whatever length: moving what was just opened costs less than a piece more costs the reader
 * (docs/decisions/0011). */
static int continues(const dtp_incoming *last, const dtp_incoming *frame)
{
    return last->type == DTP_STREAM && last->stream == frame->stream
        && last->offset + last->length == frame->offset && (last->flags & DTP_FIN) == 0
        && ((last->flags ^ frame->flags) & ~DTP_FIN) == 0;
}

/* List a STREAM frame whose body is `body` bytes at buffer[at]. */
static int list_stream(uint8_t *buffer, size_t at, size_t body, uint8_t flags, dtp_incoming *frames,
                       size_t *listed)
{
    dtp_incoming *next = &frames[*listed];
    if (body < DTP_STREAM_HEADER)
        return DTP_E_FRAME;
    next->type = DTP_STREAM;
    next->flags = flags;
    memset(next->zero, 0, sizeof next->zero);
    next->stream = get64(buffer + at);
    next->offset = get64(buffer + at + 8);
    next->start = (uint32_t)(at + DTP_STREAM_HEADER);
    next->length = (uint32_t)(body - DTP_STREAM_HEADER);
    if (next->length > UINT64_MAX - next->offset)
        return DTP_E_FRAME;
    if (*listed > 0 && continues(next - 1, next)) {
        dtp_incoming *last = next - 1;
        memmove(buffer + last->start + last->length, buffer + next->start, next->length);
        last->length += next->length;
        last->flags = next->flags;
        return DTP_OK;
    }
    ++*listed;
    return DTP_OK;
}

int dtp_frames_parse(uint8_t *buffer, size_t start, size_t length, dtp_incoming *frames, size_t *listed,
                     int *rekey)
{
    size_t at = start, end = start + length, parsed = 0;

    *rekey = 0;
    while (at < end) {
        uint8_t type, flags;
        size_t body;
        if (end - at < DTP_FRAME_HEADER)
            return DTP_E_FRAME;
        type = buffer[at];
        flags = buffer[at + 1];
        body = get16(buffer + at + 2);
        at += DTP_FRAME_HEADER;
        if (body > end - at)
            return DTP_E_FRAME;
        if (type != DTP_PADDING && type != DTP_REKEY && ++parsed > DTP_RECORD_FRAMES)
            return DTP_E_CROWDED;
        if (type == DTP_STREAM) {
            int code = list_stream(buffer, at, body, flags, frames, listed);
            if (code != DTP_OK)
                return code;
        } else if (type == DTP_REKEY) {
            if (at != end)
                return DTP_E_FRAME; /* not empty, or not the last of its record */
            *rekey = flags & DTP_FRESH ? FRESH_KEY : DERIVED_KEY;
        } else if (type != DTP_PADDING && type < DTP_IGNORABLE) {
            dtp_incoming *frame = &frames[(*listed)++];
            memset(frame, 0, sizeof *frame);
            frame->type = type;
            frame->flags = flags;
            frame->start = (uint32_t)at;
            frame->length = (uint32_t)body;
        }
        at += body;
    }
    return DTP_OK;
}
