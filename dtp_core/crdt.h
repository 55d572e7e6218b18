/* crdt.h - what the files of the data types share: memory, growing arrays, varints, a reader that knows where it
 * stands, hashes. Nobody outside dtp_core includes it. */
#ifndef DTP_CRDT_H
#define DTP_CRDT_H

#include <string.h>

#include "dtp.h"

/* ---- memory: the only door to an allocator (graph/memory.c) ------------------------------------------------- */

void *dtp_allocate(size_t bytes);             /* NULL when there is none; never for 0 bytes */
void *dtp_resize(void *memory, size_t bytes); /* NULL: `memory` is as it was */
void dtp_release(void *memory);               /* NULL is fine */

/* A capacity of at least `needed` items that doubles from `now`, or 0 when that many bytes can't be counted. */
static inline size_t dtp_grown(size_t now, size_t needed, size_t item)
{
    size_t next = now < 8 ? 8 : now;
    while (next < needed) {
        if (next > SIZE_MAX / 2)
            return 0;
        next *= 2;
    }
    return next > SIZE_MAX / 2 / item ? 0 : next;
}

/* Room for `needed` items in the array at `*array`, which is moved if need be. DTP_OK or DTP_E_MEMORY, which leaves
 * both as they were. */
static inline int dtp_reserve(void **array, size_t *capacity, size_t needed, size_t item)
{
    size_t next;
    void *moved;
    if (needed <= *capacity)
        return DTP_OK;
    next = dtp_grown(*capacity, needed, item);
    moved = next == 0 ? NULL : dtp_resize(*array, next * item);
    if (moved == NULL)
        return DTP_E_MEMORY;
    *array = moved;
    *capacity = next;
    return DTP_OK;
}

/* ---- varints: LEB128, the shortest form only --------------------------------------------------------------- */

enum { DTP_VARINT_MAX = 10 };

/* Write at `out`, which has DTP_VARINT_MAX bytes; gives what is behind. */
static inline uint8_t *dtp_put_varint(uint8_t *out, uint64_t value)
{
    while (value >= 0x80) {
        *out++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *out++ = (uint8_t)value;
    return out;
}

static inline uint64_t dtp_zigzag(int64_t value)
{
    return ((uint64_t)value << 1) ^ (value < 0 ? UINT64_MAX : 0);
}

static inline int64_t dtp_unzigzag(uint64_t value)
{
    return (int64_t)(value >> 1 ^ (0 - (value & 1)));
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

/* `at` never passes `end`. A failed read moves nothing, so `at - start` is the place of the fault. */
typedef struct dtp_reader {
    const uint8_t *start;
    const uint8_t *at;
    const uint8_t *end;
} dtp_reader;

static inline size_t dtp_left(const dtp_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

/* DTP_OK, or DTP_E_FORMAT: cut off, above 64 bits, or not the shortest form. */
static inline int dtp_read_varint(dtp_reader *reader, uint64_t *value)
{
    const uint8_t *at = reader->at;
    uint64_t sum = 0;
    unsigned shift = 0;
    if (at < reader->end && *at < 0x80) {
        *value = *at;
        reader->at = at + 1;
        return DTP_OK;
    }
    while (at < reader->end) {
        uint8_t byte = *at++;
        if (shift == 63 && byte > 1)
            return DTP_E_FORMAT;
        sum |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            if (byte == 0)
                return DTP_E_FORMAT;
            *value = sum;
            reader->at = at;
            return DTP_OK;
        }
        shift += 7;
    }
    return DTP_E_FORMAT;
}

/* `length` bytes: where they are, or NULL when there are fewer. */
static inline const uint8_t *dtp_read_bytes(dtp_reader *reader, uint64_t length)
{
    const uint8_t *bytes = reader->at;
    if (length > dtp_left(reader))
        return NULL;
    reader->at += length;
    return bytes;
}

/* ---- hashes: for tables in memory, never for names ---------------------------------------------------------- */

/* With a secret seed, so that who chooses the keys can't choose the collisions; which slot is whose is always
 * decided by comparing the keys. */
static inline uint64_t dtp_mix(uint64_t a, uint64_t b)
{
    uint64_t z = (a ^ (b + UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 32) * UINT64_C(0x94d049bb133111eb);
    z = (z ^ z >> 29) * UINT64_C(0xff51afd7ed558ccd);
    return z ^ z >> 32;
}

/* SipHash-1-3 of some bytes under a seed of 16 bytes (graph/hash.c). */
uint64_t dtp_hash(const uint64_t seed[2], const uint8_t *bytes, size_t length);

#endif
