/* harness.h - what the harnesses share: choices read from an input, real ciphers, and a check that aborts.
 *
 * A harness is one scenario whose every choice comes from the input; it aborts where the core breaks a promise.
 * libFuzzer finds inputs (run.sh); standalone.c runs the same scenarios on kept and on random ones (sanitize.sh).
 * All memory that the core is given has exactly its size, so that the sanitizers see the first byte beyond. */
#ifndef DTP_HARNESS_H
#define DTP_HARNESS_H

#include <stdio.h>
#include <stdlib.h>

#include "../internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Install both suites by way of EVP or of libsodium's signature, all served by libcrypto.so.3. */
void harness_ciphers(int like_sodium);

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition);       \
            abort();                                                                              \
        }                                                                                         \
    } while (0)

typedef struct choices {
    const uint8_t *data;
    size_t left;
} choices;

static inline unsigned choose8(choices *c)
{
    if (c->left == 0)
        return 0;
    c->left--;
    return *c->data++;
}

static inline unsigned choose16(choices *c)
{
    unsigned high = choose8(c);
    return high << 8 | choose8(c);
}

static inline uint64_t choose64(choices *c)
{
    uint64_t v = 0;
    int i;
    for (i = 0; i < 4; i++)
        v = v << 16 | choose16(c);
    return v;
}

/* A length that is mostly small and sometimes around what matters. */
static inline size_t choose_length(choices *c)
{
    static const size_t marks[] = {0, 1, 4, 16, 17, 18, 20, 21, 38, 39, 40, 255, 256, 4096, 16384, 65519};
    unsigned kind = choose8(c);
    if (kind < 128)
        return kind;
    if (kind < 192)
        return choose16(c);
    return marks[kind % 16] + (kind / 16 % 4);
}

/* A length of plaintext that the input still has. */
static inline size_t choose_text(choices *c)
{
    size_t length = choose_length(c); /* which takes from what is left */
    return least(least(length, DTP_MAX_PLAINTEXT), c->left);
}

/* Memory of exactly this size; never NULL, also for 0. */
static inline uint8_t *exactly(size_t size)
{
    uint8_t *memory = malloc(size > 0 ? size : 1);
    CHECK(memory != NULL);
    return size > 0 ? memory : memory + 1;
}

static inline void release(uint8_t *memory, size_t size)
{
    free(size > 0 ? memory : memory - 1);
}

/* A list for exactly `count` frames; give it back by free. */
static inline dtp_incoming *list_of(size_t count)
{
    dtp_incoming *frames;
    CHECK(count <= DTP_MAX_PLAINTEXT);
    frames = malloc(count > 0 ? count * sizeof *frames : 1);
    CHECK(frames != NULL);
    return frames;
}

/* All that a cipher is, but for the provider's context. */
static inline int same_cipher(const dtp_cipher *a, const dtp_cipher *b)
{
    return memcmp(a->key, b->key, sizeof a->key) == 0 && a->counter == b->counter && a->bytes == b->bytes
        && a->rekey_bytes == b->rekey_bytes && a->suite == b->suite && a->rekeys == b->rekeys
        && a->fresh == b->fresh;
}

static const uint8_t harness_key[DTP_KEY] = "a key of 32 bytes, known to all";

#endif
