/* fuzz_open.c - dtp_open: any plaintext under a genuine tag, and any bytes in place of records. */
#include "harness.h"

enum { MORE = 8 }; /* list entries beyond the least that the core asks for */

/* Every listed frame must lie in what was opened, in order and apart from each other. */
static void check_spans(const dtp_incoming *frames, const dtp_opened *opened)
{
    size_t at = 0, i;
    for (i = 0; i < opened->frames; i++) {
        CHECK(frames[i].type != DTP_PADDING && frames[i].type != DTP_REKEY);
        CHECK(frames[i].start >= at);
        at = (size_t)frames[i].start + frames[i].length;
        CHECK(at <= opened->consumed);
    }
}

/* Garbage instead of records: nothing may open, nothing may change. */
static void open_garbage(dtp_cipher *opener, choices *c)
{
    size_t length = c->left;
    uint8_t *buffer = exactly(length);
    dtp_incoming frames[MORE];
    dtp_opened opened;
    dtp_cipher before = *opener;
    int code;

    if (length > 0)
        memcpy(buffer, c->data, length);
    code = dtp_open(opener, buffer, length, frames, MORE, &opened);
    CHECK(opened.consumed == 0 && opened.frames == 0 && opened.records == 0);
    CHECK(code == DTP_OK || code == DTP_E_AUTH || code == DTP_E_LENGTH || code == DTP_E_SPACE);
    CHECK(same_cipher(opener, &before));
    release(buffer, length);
}

/* Put one sealed record at `out`: some chosen plaintext. Gives its size. */
static size_t seal_chosen(dtp_cipher *sealer, choices *c, uint8_t *out, size_t length)
{
    memcpy(out + DTP_RECORD_HEADER, c->data, length);
    c->data += length;
    c->left -= length;
    put16(out, length + DTP_TAG);
    CHECK(dtp_cipher_seal(sealer, sealer->counter, out + DTP_RECORD_HEADER, length) == DTP_OK);
    return DTP_RECORD_HEADER + length + DTP_TAG;
}

/* Two records in one buffer, so that joining across them and taking it back are met. */
static int open_two(dtp_cipher *opener, choices *c)
{
    dtp_cipher sealer = *opener, before;
    size_t first = choose_text(c), second = choose_text(c), size, listed;
    uint8_t *buffer;
    dtp_incoming *frames;
    dtp_opened opened;
    int code;

    sealer.context = NULL;
    first = least(first, c->left);
    second = least(second, c->left - first);
    size = 2 * (DTP_RECORD_HEADER + DTP_TAG) + first + second;
    buffer = exactly(size);
    listed = least(first / DTP_FRAME_HEADER, DTP_RECORD_FRAMES) + least(second / DTP_FRAME_HEADER, DTP_RECORD_FRAMES) + 1;
    frames = list_of(listed);

    first = seal_chosen(&sealer, c, buffer, first);
    sealer.counter++; /* a REKEY in the first makes the second a forgery, which is as good a case */
    seal_chosen(&sealer, c, buffer + first, second);
    dtp_cipher_wipe(&sealer);

    before = *opener;
    code = dtp_open(opener, buffer, size, frames, listed, &opened);
    check_spans(frames, &opened);
    CHECK(opener->counter == before.counter + opened.records);
    CHECK(opened.consumed == (opened.records == 0 ? 0 : opened.records == 1 ? first : size));
    CHECK((code == DTP_OK) == (opened.records == 2));
    CHECK(code == DTP_OK || code == DTP_E_FRAME || code == DTP_E_CROWDED || (code == DTP_E_AUTH && opener->rekeys == before.rekeys + 1));
    if (opened.records == 0)
        CHECK(same_cipher(opener, &before));
    free(frames);
    release(buffer, size);
    return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    choices c = {data, size};
    unsigned how = choose8(&c);
    dtp_cipher opener;

    harness_ciphers((int)(how & 1));
    CHECK(dtp_cipher_init(&opener, how & 2 ? DTP_AESGCM : DTP_CHACHAPOLY, harness_key, 0) == DTP_OK);
    if (how % 16 == 12) {
        open_garbage(&opener, &c);
    } else {
        while (c.left > 2 && open_two(&opener, &c) == DTP_OK)
            continue;
    }
    dtp_cipher_wipe(&opener);
    return 0;
}
