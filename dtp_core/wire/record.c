/* wire/record.c - records for carriers that keep the order: u16 length, then one Noise transport message.
 * docs/wire.md, "Records". */
#include "internal.h"

enum { OVERHEAD = DTP_RECORD_HEADER + DTP_TAG };

/* The counter 2^64-1 is the rekey's own (Noise 5.1), so no record may have it. */
static int exhausted(const dtp_cipher *cipher)
{
    return cipher->counter == UINT64_MAX;
}

/* ---- seal ----------------------------------------------------------------------------------------------- */

/* What a frame of padding takes at least of a record. */
static size_t padding_header(const dtp_cipher *cipher)
{
    return cipher->padding != 0 ? DTP_FRAME_HEADER : 0;
}

/* The plaintext of a record, `limit` bytes at most, that holds `length` bytes of other frames. */
static size_t padded(const dtp_cipher *cipher, size_t length, size_t limit)
{
    size_t whole = cipher->padding;
    if (whole == 0)
        return length;
    while (whole < OVERHEAD + length + DTP_FRAME_HEADER)
        whole *= 2;
    return least(whole - OVERHEAD, limit);
}

/* Seal `length` bytes that stand behind the header at `out`, with padding and a REKEY frame behind them if asked. There
 * must be room for `limit` bytes, or for what `padded` says. */
static int seal_record(dtp_cipher *cipher, uint8_t *out, size_t length, int rekey, size_t limit, dtp_sealed *result)
{
    size_t rest = rekey ? DTP_FRAME_HEADER : 0;
    int code;
    if (cipher->padding != 0) {
        size_t whole = padded(cipher, length + rest, limit) - rest;
        uint8_t *frame = out + DTP_RECORD_HEADER + length;
        memset(frame, 0, whole - length); /* which is DTP_PADDING, too */
        put16(frame + 2, whole - length - DTP_FRAME_HEADER);
        length = whole;
    }
    if (rekey) {
        uint8_t *frame = out + DTP_RECORD_HEADER + length;
        frame[0] = DTP_REKEY;
        frame[1] = cipher->fresh != NULL ? DTP_FRESH : 0;
        put16(frame + 2, 0);
        length += DTP_FRAME_HEADER;
    }
    put16(out, length + DTP_TAG);
    code = dtp_cipher_seal(cipher, cipher->counter, out + DTP_RECORD_HEADER, length);
    if (code == DTP_OK && rekey && cipher->fresh != NULL)
        dtp_cipher_take_fresh(cipher);
    else if (code == DTP_OK && rekey)
        code = dtp_cipher_rekey(cipher);
    if (code != DTP_OK)
        return code;
    cipher->counter++;
    if (!rekey)
        cipher->bytes += length;
    result->length += OVERHEAD + length;
    result->records++;
    return DTP_OK;
}

/* Pack and seal the next record. `*rekey` asks for REKEY with the last frame and is cleared once it is in. */
static int seal_next(dtp_cipher *cipher, dtp_queue *queue, size_t limit, int *rekey, uint8_t *out, size_t capacity,
                     dtp_sealed *result)
{
    dtp_queue before = *queue;
    size_t packed, room, all, reserved = 0, pad = padding_header(cipher);
    size_t own_record = *rekey ? OVERHEAD + padded(cipher, DTP_FRAME_HEADER, limit) : 0; /* if REKEY needs one */
    uint64_t due = cipher->rekey_bytes;
    int now, code;

    if (exhausted(cipher))
        return DTP_E_EXHAUSTED;
    if (capacity < own_record + OVERHEAD + pad)
        return DTP_E_SPACE;
    all = least(limit, capacity - OVERHEAD) - pad;
    room = least(limit, capacity - OVERHEAD - own_record) - pad;
    /* With bytes == 0 the key is new: a record without REKEY may always come, so tiny limits can't stall us. */
    if (due != 0 && cipher->bytes > 0 && cipher->bytes + room >= due && room >= DTP_FRAME_HEADER)
        reserved = DTP_FRAME_HEADER;
    packed = dtp_frames_pack(queue, out + DTP_RECORD_HEADER, room - reserved);
    if (packed == 0 && reserved == 0 && queue->count > 0)
        return DTP_E_SPACE;
    now = (packed == 0 && reserved > 0) || (due != 0 && cipher->bytes + packed >= due)
       || (*rekey && queue->next == queue->count);
    if (now && all - packed < DTP_FRAME_HEADER)
        now = 0;
    if (cipher->padding != 0
        && padded(cipher, packed + (now ? DTP_FRAME_HEADER : 0), limit) + OVERHEAD
               > capacity - (now && queue->next == queue->count ? 0 : own_record))
        code = DTP_E_SPACE;
    else
        code = seal_record(cipher, out, packed, now, limit, result);
    if (code != DTP_OK)
        *queue = before;
    else if (now && queue->next == queue->count)
        *rekey = 0;
    return code;
}

int dtp_seal(dtp_cipher *cipher, const dtp_outgoing *frames, size_t count, size_t record_size, int rekey,
             uint8_t *out, size_t capacity, dtp_sealed *result)
{
    dtp_queue queue = {frames, count, 0, 0};
    size_t limit = least(record_size, DTP_MAX_PLAINTEXT);
    int code;

    memset(result, 0, sizeof *result);
    if (limit < 2 * padding_header(cipher)) /* no room for REKEY beside it */
        return DTP_E_FRAME;
    code = dtp_frames_check(frames, count, limit - padding_header(cipher));
    if (code != DTP_OK)
        return code;
    rekey = rekey != 0;
    do {
        code = seal_next(cipher, &queue, limit, &rekey, out + result->length, capacity - result->length, result);
    } while (code == DTP_OK && queue.next < count);
    if (code == DTP_OK && rekey) { /* there was no room behind the last frame; seal_next kept some for this */
        code = exhausted(cipher) ? DTP_E_EXHAUSTED : seal_record(cipher, out + result->length, 0, 1, limit, result);
    }
    result->frames = queue.next;
    result->partial = queue.partial;
    if (result->records > 0)
        return DTP_OK; /* what stopped us is told by the next call, which has then sealed nothing */
    return code;
}

int64_t dtp_seal_stream(dtp_cipher *cipher, uint64_t stream, uint64_t offset, const uint8_t *data, size_t length,
                        size_t record_size, uint8_t *out, size_t capacity)
{
    const dtp_outgoing frame = {data, length, stream, offset, DTP_STREAM, 0};
    size_t limit = least(record_size, DTP_MAX_PLAINTEXT);
    dtp_sealed result;
    int code;

    if (limit < DTP_STREAM_ROOM || length > limit - DTP_STREAM_ROOM || capacity < DTP_RECORD_ROOM + length)
        return DTP_E_SPACE;
    code = dtp_seal(cipher, &frame, 1, limit, 0, out, capacity, &result);
    return code == DTP_OK ? (int64_t)result.length : code;
}

int dtp_seal_pieces(dtp_cipher *cipher, dtp_outgoing *frames, const uint64_t *streams, const uint64_t *offsets,
                    const uint32_t *starts, const uint32_t *sizes, size_t count, const uint8_t *data, size_t length,
                    size_t record_size, uint8_t *out, size_t capacity, dtp_sealed *result)
{
    size_t i;
    memset(result, 0, sizeof *result);
    for (i = 0; i < count; i++) {
        if (starts[i] > length || sizes[i] > length - starts[i])
            return DTP_E_SPACE;
        frames[i].data = data + starts[i];
        frames[i].length = sizes[i];
        frames[i].stream = streams[i];
        frames[i].offset = offsets[i];
        frames[i].type = DTP_STREAM;
        frames[i].flags = 0;
    }
    return dtp_seal(cipher, frames, count, record_size, 0, out, capacity, result);
}

/* ---- open ----------------------------------------------------------------------------------------------- */

/* Open the whole record at buffer[at], whose plaintext is `length` bytes. */
static int open_record(dtp_cipher *cipher, uint8_t *buffer, size_t at, size_t length, dtp_incoming *frames,
                       dtp_opened *result)
{
    size_t text = at + DTP_RECORD_HEADER;
    size_t listed = result->frames;
    dtp_incoming last; /* joining may lengthen it before a later frame turns out broken */
    int rekey, code;

    memset(&last, 0, sizeof last);
    if (listed > 0)
        last = frames[listed - 1];
    if (exhausted(cipher))
        return DTP_E_EXHAUSTED;
    code = dtp_cipher_open(cipher, cipher->counter, buffer + text, length);
    if (code == DTP_OK)
        code = dtp_frames_parse(buffer, text, length, frames, &listed, &rekey);
    if (code == DTP_OK && rekey == FRESH_KEY && cipher->fresh == NULL)
        code = DTP_E_FRAME; /* no fresh key was agreed on */
    else if (code == DTP_OK && rekey == FRESH_KEY)
        dtp_cipher_take_fresh(cipher);
    else if (code == DTP_OK && rekey)
        code = dtp_cipher_rekey(cipher);
    else if (code == DTP_OK)
        cipher->bytes += length;
    if (code != DTP_OK) {
        if (result->frames > 0)
            frames[result->frames - 1] = last;
        return code;
    }
    cipher->counter++;
    result->frames = listed;
    result->records++;
    result->rekeys += rekey != 0;
    return DTP_OK;
}

int dtp_open(dtp_cipher *cipher, uint8_t *buffer, size_t length, dtp_incoming *frames, size_t capacity,
             dtp_opened *result)
{
    memset(result, 0, sizeof *result);
    length = least(length, UINT32_MAX); /* spans are 32 bits wide */
    while (length - result->consumed >= DTP_RECORD_HEADER) {
        size_t at = result->consumed;
        size_t have = length - at - DTP_RECORD_HEADER;
        size_t need = get16(buffer + at);
        size_t spent = result->frames + result->rekeys + result->records / DTP_RECORDS_OF_FRAME;
        int code;
        if (need < DTP_TAG)
            return DTP_E_LENGTH;
        if (have < need) {
            result->wanted = need - have;
            break;
        }
        if (spent >= capacity || capacity - spent < least((need - DTP_TAG) / DTP_FRAME_HEADER, DTP_RECORD_FRAMES))
            return result->records > 0 ? DTP_OK : DTP_E_SPACE;
        code = open_record(cipher, buffer, at, need - DTP_TAG, frames, result);
        if (code != DTP_OK)
            return code;
        result->consumed = at + DTP_RECORD_HEADER + need;
    }
    return DTP_OK;
}
