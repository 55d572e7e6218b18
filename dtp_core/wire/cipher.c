/* wire/cipher.c - the table of providers, and one direction of a link: its key, its nonces, its rekey. */
#include "internal.h"

static dtp_provider providers[DTP_SUITES];

/* Calling through a volatile pointer: the compiler can't know that it is memset, so it can't drop the call as a
 * dead store. C11's memset_s is optional and missing in glibc and MSVC; this works in all of them. */
static void *(*const volatile wipe_memset)(void *, int, size_t) = memset;

void dtp_wipe(void *memory, size_t length)
{
    wipe_memset(memory, 0, length);
}

static const dtp_provider *provider_of(int suite)
{
    if (suite < 1 || suite >= DTP_SUITES || providers[suite].seal == NULL)
        return NULL;
    return &providers[suite];
}

static void make_nonce(int suite, uint64_t counter, uint8_t *nonce)
{
    int i;
    memset(nonce, 0, 4);
    if (suite == DTP_AESGCM) {
        put64(nonce + 4, counter);
        return;
    }
    for (i = 0; i < 8; i++)
        nonce[4 + i] = (uint8_t)(counter >> (8 * i));
}

int dtp_cipher_init(dtp_cipher *cipher, int suite, const uint8_t *key, uint64_t rekey_bytes)
{
    memset(cipher, 0, sizeof *cipher);
    if (provider_of(suite) == NULL)
        return DTP_E_SUITE;
    cipher->suite = (uint16_t)suite;
    cipher->rekey_bytes = rekey_bytes;
    memcpy(cipher->key, key, DTP_KEY);
    return DTP_OK;
}

static void drop_fresh(dtp_cipher *cipher)
{
    if (cipher->fresh != NULL)
        dtp_wipe(cipher->fresh, DTP_KEY);
    cipher->fresh = NULL;
}

void dtp_cipher_wipe(dtp_cipher *cipher)
{
    const dtp_provider *provider = provider_of((int)cipher->suite);
    if (provider != NULL)
        provider->forget(provider, cipher);
    drop_fresh(cipher);
    dtp_wipe(cipher, sizeof *cipher); /* suite 0 remains: every later use is DTP_E_SUITE */
}

int dtp_cipher_seal(dtp_cipher *cipher, uint64_t counter, uint8_t *text, size_t length)
{
    const dtp_provider *provider = provider_of((int)cipher->suite);
    uint8_t nonce[DTP_NONCE];
    if (provider == NULL)
        return DTP_E_SUITE;
    make_nonce(cipher->suite, counter, nonce);
    if (provider->long_seal != NULL && length >= provider->long_from)
        return provider->long_seal(cipher, nonce, text, length);
    return provider->seal(provider, cipher, nonce, text, length);
}

int dtp_cipher_open(dtp_cipher *cipher, uint64_t counter, uint8_t *text, size_t length)
{
    const dtp_provider *provider = provider_of((int)cipher->suite);
    uint8_t nonce[DTP_NONCE];
    if (provider == NULL)
        return DTP_E_SUITE;
    make_nonce(cipher->suite, counter, nonce);
    if (provider->long_open != NULL && length >= provider->long_from)
        return provider->long_open(cipher, nonce, text, length);
    return provider->open(provider, cipher, nonce, text, length);
}

/* Noise specification, 4.2: REKEY(k) is the first 32 bytes of ENCRYPT(k, 2^64-1, zerolen, zeros). */
int dtp_cipher_rekey(dtp_cipher *cipher)
{
    const dtp_provider *provider = provider_of((int)cipher->suite);
    uint8_t block[DTP_KEY + DTP_TAG] = {0};
    dtp_cipher once = *cipher; /* an opener's context can't seal, so this seals with its own */
    int code;

    if (provider == NULL)
        return DTP_E_SUITE;
    once.context = NULL;
    once.fresh = NULL;
    code = dtp_cipher_seal(&once, UINT64_MAX, block, DTP_KEY);
    dtp_cipher_wipe(&once);
    if (code == DTP_OK) {
        provider->forget(provider, cipher); /* its context holds the old key */
        memcpy(cipher->key, block, DTP_KEY);
        cipher->bytes = 0;
        cipher->rekeys++;
    }
    dtp_wipe(block, sizeof block);
    return code;
}

void dtp_cipher_set_fresh(dtp_cipher *cipher, uint8_t *key)
{
    drop_fresh(cipher);
    cipher->fresh = key;
    if (provider_of((int)cipher->suite) == NULL)
        drop_fresh(cipher); /* the cipher was wiped: it takes no key any more */
}

void dtp_cipher_take_fresh(dtp_cipher *cipher)
{
    const dtp_provider *provider = provider_of((int)cipher->suite);
    if (provider != NULL)
        provider->forget(provider, cipher); /* its context holds the old key */
    memcpy(cipher->key, cipher->fresh, DTP_KEY);
    drop_fresh(cipher);
    cipher->bytes = 0;
    cipher->rekeys++;
}

/* ---- installing ----------------------------------------------------------------------------------------- */

enum {
    KNOWN_TEXT = 40,
    /* A wrong function may write a longer tag than ours and read a longer nonce: AEGIS-256 has 32 bytes of each. */
    KNOWN_SLACK = 64
};

/* Key 00 01 .. 1f, counter 0x0102030405060708, plaintext 00 01 .. 27; made with an independent implementation,
 * which tests/core/test_core_vectors.py does again. */
static const uint8_t known_records[DTP_SUITES][KNOWN_TEXT + DTP_TAG] = {
    {0},
    {0x04, 0x50, 0x67, 0x0d, 0xd9, 0xe4, 0x0f, 0x99, 0x0b, 0x96, 0xf7, 0xe4, 0x12, 0x6a,
     0x37, 0xff, 0x6a, 0xe8, 0x4e, 0xd1, 0xc3, 0xc0, 0x5e, 0x7b, 0xf1, 0xe2, 0x4e, 0x4b,
     0x77, 0x2a, 0xc1, 0xd2, 0x0f, 0x09, 0x3a, 0xbb, 0xbe, 0x9f, 0xeb, 0x01, 0xa8, 0x6b,
     0x14, 0x0b, 0xf3, 0xd2, 0x2e, 0xcc, 0x4f, 0x5e, 0xd9, 0xf7, 0xdb, 0xa3, 0x1f, 0x49},
    {0xf0, 0x48, 0xaf, 0xe7, 0xaf, 0x3c, 0xec, 0x1f, 0x6c, 0xa2, 0x20, 0xc7, 0x7f, 0x75,
     0x6f, 0xb7, 0xf0, 0x17, 0xe0, 0xd7, 0x9c, 0x51, 0x53, 0x89, 0x4f, 0x2c, 0xbd, 0x46,
     0xf5, 0x1f, 0xb9, 0xc2, 0x79, 0x5d, 0x22, 0x9e, 0xf6, 0x17, 0x2f, 0xde, 0xd5, 0xcc,
     0x36, 0xed, 0x5c, 0x1c, 0x66, 0x5a, 0x4b, 0xfa, 0x46, 0x95, 0x22, 0xd7, 0x36, 0x5c}
};

static int passes_known_answer(int suite, const dtp_provider *provider)
{
    const uint8_t *known = known_records[suite];
    uint8_t record[KNOWN_TEXT + DTP_TAG + KNOWN_SLACK] = {0};
    uint8_t nonce[DTP_NONCE + KNOWN_SLACK] = {0};
    dtp_cipher sealer, opener;
    int i, good;

    memset(&sealer, 0, sizeof sealer);
    sealer.suite = (uint16_t)suite;
    for (i = 0; i < DTP_KEY; i++)
        sealer.key[i] = (uint8_t)i;
    opener = sealer;
    make_nonce(suite, UINT64_C(0x0102030405060708), nonce);
    for (i = 0; i < KNOWN_TEXT; i++)
        record[i] = (uint8_t)i;

    good = provider->seal(provider, &sealer, nonce, record, KNOWN_TEXT) == DTP_OK
        && memcmp(record, known, sizeof known_records[0]) == 0
        && provider->open(provider, &opener, nonce, record, KNOWN_TEXT) == DTP_OK;
    for (i = 0; good && i < KNOWN_TEXT; i++)
        good = record[i] == i;
    if (good) {
        memcpy(record, known, sizeof known_records[0]);
        record[KNOWN_TEXT] ^= 1; /* one bit of the tag */
        good = provider->open(provider, &opener, nonce, record, KNOWN_TEXT) == DTP_E_AUTH;
    }
    provider->forget(provider, &sealer);
    provider->forget(provider, &opener);
    return good;
}

int dtp_install(int suite, const dtp_provider *candidate)
{
    if (suite < 1 || suite >= DTP_SUITES)
        return DTP_E_SUITE;
    if (!passes_known_answer(suite, candidate))
        return DTP_E_PROVIDER;
    providers[suite] = *candidate;
    return DTP_OK;
}

/* ---- long records by the caller's own functions ----------------------------------------------------------- */

static int call_long_seal(const dtp_provider *self, dtp_cipher *cipher, const uint8_t *nonce, uint8_t *text,
                          size_t length)
{
    return self->long_seal(cipher, nonce, text, length);
}

static int call_long_open(const dtp_provider *self, dtp_cipher *cipher, const uint8_t *nonce, uint8_t *text,
                          size_t length)
{
    return self->long_open(cipher, nonce, text, length);
}

int dtp_use_for_long(int suite, size_t from, dtp_record_function seal, dtp_record_function open)
{
    dtp_provider candidate;
    if (provider_of(suite) == NULL)
        return DTP_E_SUITE;
    candidate = providers[suite];
    candidate.long_from = from;
    candidate.long_seal = seal;
    candidate.long_open = open;
    if (seal != NULL && open != NULL) {
        dtp_provider known = candidate; /* asks the two for the known answer, which is shorter than `from` */
        known.seal = call_long_seal;
        known.open = call_long_open;
        if (!passes_known_answer(suite, &known))
            return DTP_E_PROVIDER;
    } else if (seal != NULL || open != NULL) {
        return DTP_E_PROVIDER;
    }
    providers[suite] = candidate;
    return DTP_OK;
}
