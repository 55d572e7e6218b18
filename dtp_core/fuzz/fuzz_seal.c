/* fuzz_seal.c - dtp_seal and dtp_seal_packet: any frames into any memory, and the way back through dtp_open. */
#include "harness.h"

enum { FRAMES = 12, STREAM_BYTES = 1 << 17 };

/* What came and what must come: data is recognised by its place, so sums and places tell all. */
typedef struct tally {
    size_t bytes, fins, others, other_bytes;
} tally;

static uint8_t byte_at(uint64_t stream, uint64_t position)
{
    return (uint8_t)((stream * 31 + position) * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

/* Small records get little data: a million records of one byte find nothing more, only slower. */
static size_t choose_frames(choices *c, size_t record, dtp_outgoing *frames, tally *expected)
{
    size_t count = choose8(c) % (FRAMES + 1), i, k;
    for (i = 0; i < count; i++) {
        unsigned kind = choose8(c);
        uint8_t *data;
        memset(&frames[i], 0, sizeof frames[i]);
        frames[i].length = least(choose_length(c), 32 * (record + 1));
        frames[i].flags = (uint8_t)choose8(c);
        data = exactly(frames[i].length);
        if (kind % 2) {
            frames[i].type = DTP_STREAM;
            frames[i].stream = kind / 2 % 3;
            frames[i].offset = i > 0 && kind & 64 ? frames[i - 1].offset + frames[i - 1].length : choose16(c);
            expected->bytes += frames[i].length;
            expected->fins += frames[i].flags & DTP_FIN;
        } else {
            frames[i].type = (uint8_t)(kind == 2 * DTP_REKEY ? DTP_REKEY : kind == 0 ? DTP_PADDING : 8);
            expected->others += frames[i].type == 8;
            expected->other_bytes += frames[i].type == 8 ? frames[i].length : 0;
        }
        for (k = 0; k < frames[i].length; k++)
            data[k] = byte_at(frames[i].stream, frames[i].offset + k);
        frames[i].data = data;
    }
    return count;
}

static void count_opened(const uint8_t *buffer, const dtp_incoming *frames, size_t count, tally *got)
{
    size_t i, k;
    for (i = 0; i < count; i++) {
        if (frames[i].type == DTP_STREAM) {
            got->bytes += frames[i].length;
            got->fins += frames[i].flags & DTP_FIN;
        } else {
            got->others++;
            got->other_bytes += frames[i].length;
        }
        for (k = 0; k < frames[i].length; k++)
            CHECK(buffer[frames[i].start + k] == byte_at(frames[i].stream, frames[i].offset + k));
    }
}

/* Open all of `sealed`, in portions of chosen size, the rest of each before the next. */
static void open_all(dtp_cipher *opener, choices *c, const uint8_t *sealed, size_t size, tally *got)
{
    static dtp_incoming frames[DTP_MAX_PLAINTEXT / DTP_FRAME_HEADER + 1];
    size_t at = 0, end = 0;
    while (at < size) {
        uint8_t *buffer;
        dtp_opened opened;
        size_t length;
        end = c->left > 0 ? least(size, end + 1 + choose_length(c) * 8) : size;
        length = end - at;
        buffer = exactly(length);
        memcpy(buffer, sealed + at, length);
        CHECK(dtp_open(opener, buffer, length, frames, sizeof frames / sizeof *frames, &opened) == DTP_OK);
        CHECK(opened.wanted > 0 || opened.records > 0 || length < DTP_RECORD_HEADER);
        count_opened(buffer, frames, opened.frames, got);
        at += opened.consumed;
        release(buffer, length);
    }
}

/* Seal all frames, into memory of chosen sizes; gives the bytes, or DTP_E_FRAME. */
static int seal_all(dtp_cipher *sealer, choices *c, size_t record, dtp_outgoing *frames, size_t count,
                    uint8_t *sealed, size_t *size)
{
    size_t first = 0;
    int rekey = (int)(choose8(c) & 1);
    dtp_sealed result;
    do {
        size_t capacity = choose_length(c);
        dtp_cipher before = *sealer;
        uint8_t *out = exactly(capacity);
        int code = dtp_seal(sealer, frames + first, count - first, record, rekey, out, capacity, &result);
        if (code == DTP_E_SPACE && c->left == 0) { /* no choice left: take what surely holds it */
            release(out, capacity);
            capacity = STREAM_BYTES;
            out = exactly(capacity);
            code = dtp_seal(sealer, frames + first, count - first, record, rekey, out, capacity, &result);
        }
        CHECK(code == DTP_OK || code == DTP_E_FRAME || code == DTP_E_SPACE);
        CHECK(result.length <= capacity && (code == DTP_OK) == (result.records > 0));
        CHECK(sealer->counter == before.counter + result.records);
        if (code != DTP_OK)
            CHECK(same_cipher(sealer, &before));
        if (result.length > 0)
            memcpy(sealed + *size, out, result.length);
        *size += result.length;
        release(out, capacity);
        if (code == DTP_E_FRAME)
            return code;
        first += result.frames;
        if (result.partial > 0) { /* `data` goes on; its memory is given back by its first address */
            frames[first].data += result.partial;
            frames[first].offset += result.partial;
            frames[first].length -= result.partial;
        }
    } while (first < count || result.records == 0);
    return DTP_OK;
}

static void one_packet(choices *c, int suite, const dtp_outgoing *frames, size_t count)
{
    size_t capacity = choose_length(c);
    uint8_t *out = exactly(capacity);
    static dtp_incoming listed[DTP_MAX_PLAINTEXT / DTP_FRAME_HEADER + 1];
    dtp_packet_opener opener;
    dtp_cipher sealer;
    dtp_sealed result;
    dtp_opened opened;
    tally got = {0, 0, 0, 0};

    CHECK(dtp_cipher_init(&sealer, suite, harness_key, 0) == DTP_OK);
    CHECK(dtp_packet_opener_init(&opener, suite, harness_key) == DTP_OK);
    if (dtp_seal_packet(&sealer, frames, count, (int)(choose8(c) & 1), out, capacity, &result) == DTP_OK) {
        CHECK(result.length <= capacity && result.records == 1);
        CHECK(dtp_open_packet(&opener, out, result.length, listed, sizeof listed / sizeof *listed, &opened)
              == DTP_OK);
        count_opened(out, listed, opened.frames, &got);
    }
    dtp_cipher_wipe(&sealer);
    dtp_packet_opener_wipe(&opener);
    release(out, capacity);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t fresh[2][DTP_KEY];
    static uint8_t sealed[FRAMES * STREAM_BYTES];
    choices c = {data, size};
    unsigned how = choose8(&c);
    int suite = how & 2 ? DTP_AESGCM : DTP_CHACHAPOLY;
    dtp_outgoing frames[FRAMES], kept[FRAMES];
    tally expected = {0, 0, 0, 0}, got = {0, 0, 0, 0};
    size_t record, count, length = 0, i;
    dtp_cipher sealer, opener;

    harness_ciphers((int)(how & 1));
    CHECK(dtp_cipher_init(&sealer, suite, harness_key, how & 4 ? choose16(&c) : 0) == DTP_OK);
    CHECK(dtp_cipher_init(&opener, suite, harness_key, 0) == DTP_OK);
    if (how & 32)
        sealer.padding = (uint16_t)choose16(&c);
    if (how & 16) {
        memset(fresh, 77, sizeof fresh);
        dtp_cipher_set_fresh(&sealer, fresh[0]);
        dtp_cipher_set_fresh(&opener, fresh[1]);
    }
    record = choose_length(&c);
    count = choose_frames(&c, record, frames, &expected);
    memcpy(kept, frames, sizeof kept);
    if (how & 8)
        one_packet(&c, suite, frames, count);
    if (seal_all(&sealer, &c, record, frames, count, sealed, &length) == DTP_OK) {
        open_all(&opener, &c, sealed, length, &got);
        CHECK(memcmp(&got, &expected, sizeof got) == 0);
        CHECK(memcmp(sealer.key, opener.key, DTP_KEY) == 0 && sealer.rekeys == opener.rekeys);
        CHECK((sealer.fresh == NULL) == (opener.fresh == NULL) && (sealer.rekeys == 0 || sealer.fresh == NULL));
    }
    for (i = 0; i < count; i++)
        release((uint8_t *)(uintptr_t)kept[i].data, kept[i].length);
    dtp_cipher_wipe(&sealer);
    dtp_cipher_wipe(&opener);
    return 0;
}
