/* fuzz_open_packet.c - dtp_open_packet: any order of counters, any plaintext, forgeries, and every packet twice. */
#include "harness.h"

enum { EPOCHS = 8 };

static uint64_t choose_counter(choices *c, const dtp_packet_opener *opener)
{
    unsigned kind = choose8(c);
    uint64_t epoch = choose8(c) % EPOCHS;
    switch (kind % 4) {
    case 0:
        return opener->newest + choose8(c);
    case 1:
        return opener->newest - least((size_t)opener->newest, choose16(c) % 2100);
    case 2:
        return (epoch << DTP_EPOCH_SHIFT) + choose16(c) % 2100;
    default:
        return kind < 16 ? choose64(c) : ((epoch + 1) << DTP_EPOCH_SHIFT) - 1 - choose8(c);
    }
}

/* Seal `text` as packet `counter`, under the key of its range when that is one of those we made. */
static void seal_as(const dtp_cipher *keys, uint64_t counter, uint8_t *packet, size_t length)
{
    uint64_t epoch = counter >> DTP_EPOCH_SHIFT;
    dtp_cipher sealer = keys[epoch < EPOCHS + 1 ? epoch : 0];
    put64(packet, counter);
    CHECK(dtp_cipher_seal(&sealer, counter, packet + DTP_PACKET_HEADER, length) == DTP_OK);
    dtp_cipher_wipe(&sealer);
}

static int same_opener(const dtp_packet_opener *a, const dtp_packet_opener *b)
{
    return same_cipher(&a->current, &b->current) && same_cipher(&a->previous, &b->previous)
        && a->newest == b->newest && memcmp(a->seen, b->seen, sizeof a->seen) == 0;
}

static void one_packet(dtp_packet_opener *opener, const dtp_cipher *keys, choices *c)
{
    uint64_t counter = choose_counter(c, opener);
    unsigned harm = choose8(c);
    size_t text = choose_text(c), size = DTP_PACKET_HEADER + text + DTP_TAG;
    uint8_t *packet = exactly(size), *again = exactly(size);
    dtp_incoming *frames = list_of(least(text / DTP_FRAME_HEADER, DTP_RECORD_FRAMES));
    dtp_packet_opener before = *opener;
    dtp_opened opened;
    size_t i;
    int code;

    if (text > 0)
        memcpy(packet + DTP_PACKET_HEADER, c->data, text);
    c->data += text;
    c->left -= text;
    seal_as(keys, counter, packet, text);
    if (harm >= 224) /* some bit of it, the counter's too */
        packet[(harm * 31u + (unsigned)text) % size] ^= (uint8_t)(1u << harm % 8);
    memcpy(again, packet, size);
    code = dtp_open_packet(opener, packet, size, frames, least(text / DTP_FRAME_HEADER, DTP_RECORD_FRAMES), &opened);
    if (code != DTP_OK) {
        CHECK(code == DTP_E_AUTH || code == DTP_E_REPLAY || code == DTP_E_FRAME || code == DTP_E_CROWDED);
        CHECK(opened.frames == 0 && opened.consumed == 0 && same_opener(opener, &before));
    } else {
        CHECK(harm < 224 && opened.consumed == size && opener->newest >= counter);
        for (i = 0; i < opened.frames; i++)
            CHECK((size_t)frames[i].start + frames[i].length <= size - DTP_TAG);
        before = *opener;
        CHECK(dtp_open_packet(opener, again, size, frames, least(text / DTP_FRAME_HEADER, DTP_RECORD_FRAMES), &opened) == DTP_E_REPLAY);
        CHECK(same_opener(opener, &before));
    }
    free(frames);
    release(packet, size);
    release(again, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    choices c = {data, size};
    unsigned how = choose8(&c);
    int suite = how & 2 ? DTP_AESGCM : DTP_CHACHAPOLY, i;
    dtp_cipher keys[EPOCHS + 1];
    dtp_packet_opener opener;

    harness_ciphers((int)(how & 1));
    CHECK(dtp_packet_opener_init(&opener, suite, harness_key) == DTP_OK);
    CHECK(dtp_cipher_init(&keys[0], suite, harness_key, 0) == DTP_OK);
    for (i = 1; i <= EPOCHS; i++) {
        keys[i] = keys[i - 1];
        CHECK(dtp_cipher_rekey(&keys[i]) == DTP_OK);
    }
    while (c.left > 0)
        one_packet(&opener, keys, &c);
    dtp_packet_opener_wipe(&opener);
    return 0;
}
