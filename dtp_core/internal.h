/* internal.h - what the files of the C core know of each other and nobody else does. */
#ifndef DTP_INTERNAL_H
#define DTP_INTERNAL_H

#include <string.h>

#include "dtp.h"

enum { DTP_NONCE = 12, DTP_SUITES = 3 /* suites count from 1 */ };

/* ---- bytes ---------------------------------------------------------------------------------------------- */

static inline void put16(uint8_t *p, size_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline size_t get16(const uint8_t *p)
{
    return (size_t)p[0] << 8 | (size_t)p[1];
}

static inline void put64(uint8_t *p, uint64_t v)
{
    int i;
    for (i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (56 - 8 * i));
}

static inline uint64_t get64(const uint8_t *p)
{
    uint64_t v = 0;
    int i;
    for (i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- providers ------------------------------------------------------------------------------------------ */

/* Where one suite comes from. `seal` and `open` work in place: `length` plaintext bytes with the tag behind them.
 * They return DTP_OK, DTP_E_AUTH (open only) or DTP_E_PROVIDER. `forget` gives cipher->context back; a context is
 * made by the first seal or open and serves that direction only. */
typedef struct dtp_provider dtp_provider;
struct dtp_provider {
    int (*seal)(const dtp_provider *self, dtp_cipher *cipher, const uint8_t *nonce, uint8_t *text, size_t length);
    int (*open)(const dtp_provider *self, dtp_cipher *cipher, const uint8_t *nonce, uint8_t *text, size_t length);
    void (*forget)(const dtp_provider *self, dtp_cipher *cipher);
    dtp_sodium_encrypt sodium_encrypt;
    dtp_sodium_decrypt sodium_decrypt;
    dtp_evp evp;
    size_t long_from; /* plaintext bytes from which on these are called instead; NULL: never */
    dtp_record_function long_seal;
    dtp_record_function long_open;
};

/* Check `candidate` by its known answers, then make it the suite's provider. */
int dtp_install(int suite, const dtp_provider *candidate);

/* ---- ciphers -------------------------------------------------------------------------------------------- */

/* Seal or open in place under the cipher's key at `counter`. Leave cipher->counter and cipher->bytes alone. */
int dtp_cipher_seal(dtp_cipher *cipher, uint64_t counter, uint8_t *text, size_t length);
int dtp_cipher_open(dtp_cipher *cipher, uint64_t counter, uint8_t *text, size_t length);

/* Noise's REKEY(k). The counter goes on; `bytes` starts again. On failure nothing has changed. */
int dtp_cipher_rekey(dtp_cipher *cipher);

/* Take the key of dtp_cipher_set_fresh, else as dtp_cipher_rekey. */
void dtp_cipher_take_fresh(dtp_cipher *cipher);

/* Overwrite with zeros in a way that a compiler may not leave out. */
void dtp_wipe(void *memory, size_t length);

/* ---- frames --------------------------------------------------------------------------------------------- */

/* What a REKEY frame says that the next key is. */
enum { DERIVED_KEY = 1, FRESH_KEY = 2 };

/* Where packing stands in a queue of outgoing frames. */
typedef struct dtp_queue {
    const dtp_outgoing *frames;
    size_t count;
    size_t next;    /* the first frame that isn't wholly packed */
    size_t partial; /* bytes of it (a STREAM frame) that are */
} dtp_queue;

/* Whether every frame can be packed into records of `limit` plaintext bytes: DTP_OK or DTP_E_FRAME. */
int dtp_frames_check(const dtp_outgoing *frames, size_t count, size_t limit);

/* Pack from the queue what fits `room`, at most DTP_RECORD_FRAMES; the bytes written are returned, the queue moves on. */
size_t dtp_frames_pack(dtp_queue *queue, uint8_t *out, size_t room);

/* Parse the plaintext of one record, buffer[start .. start + length), and list its frames behind the `*listed`
 * that are there; the array has room for length / DTP_FRAME_HEADER or DTP_RECORD_FRAMES more, whichever is less. Continuing STREAM frames are joined, also
 * to the last entry that was there: who wants to go back must have kept a copy of it. `*rekey` tells whether REKEY
 * ends the record: 0, DERIVED_KEY or FRESH_KEY (it isn't listed, nor are PADDING and the types from DTP_IGNORABLE on). DTP_E_CROWDED: the record has too many frames. */
int dtp_frames_parse(uint8_t *buffer, size_t start, size_t length, dtp_incoming *frames, size_t *listed,
                     int *rekey);

#endif
