/* ciphers.c - real ciphers for the harnesses: libcrypto by dlopen, once as EVP and once behind libsodium's signatures,
 * so that both provider files of the core are run. */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>

#include "harness.h"

static dtp_evp evp[DTP_SUITES];

/* POSIX promises that a pointer from dlsym can be a function's; ISO C has no cast for it. */
static void load(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    if (symbol == NULL) {
        fprintf(stderr, "libcrypto.so.3 has no %s\n", name);
        exit(2);
    }
    memcpy(function, &symbol, sizeof symbol);
}

static void load_all(void)
{
    void *(*fetch)(void *, const char *, const char *);
    void *library = dlopen("libcrypto.so.3", RTLD_NOW);
    int suite;

    if (library == NULL) {
        fprintf(stderr, "the harnesses need libcrypto.so.3 (Debian: libssl3): %s\n", dlerror());
        exit(2);
    }
    load(library, "EVP_CIPHER_fetch", &fetch);
    for (suite = 1; suite < DTP_SUITES; suite++) {
        load(library, "EVP_CIPHER_CTX_new", &evp[suite].ctx_new);
        load(library, "EVP_CIPHER_CTX_free", &evp[suite].ctx_free);
        load(library, "EVP_CipherInit_ex", &evp[suite].init);
        load(library, "EVP_CipherUpdate", &evp[suite].update);
        load(library, "EVP_CipherFinal_ex", &evp[suite].final);
        load(library, "EVP_CIPHER_CTX_ctrl", &evp[suite].ctrl);
    }
    evp[DTP_AESGCM].cipher = fetch(NULL, "AES-256-GCM", NULL);
    evp[DTP_CHACHAPOLY].cipher = fetch(NULL, "ChaCha20-Poly1305", NULL);
}

/* ---- libsodium's signatures ----------------------------------------------------------------------------- */

static int one_call(const dtp_evp *e, int encrypt, unsigned char *out, const unsigned char *in, size_t length,
                    unsigned char *tag, const unsigned char *nonce, const unsigned char *key)
{
    void *context = e->ctx_new();
    int made = 0, rest = 0, good;
    good = context != NULL && e->init(context, e->cipher, NULL, key, nonce, encrypt) == 1
        && (encrypt || e->ctrl(context, 0x11, DTP_TAG, tag) == 1)
        && (length == 0 || e->update(context, out, &made, in, (int)length) == 1)
        && e->final(context, out + made, &rest) == 1 && (!encrypt || e->ctrl(context, 0x10, DTP_TAG, tag) == 1);
    e->ctx_free(context);
    return good ? 0 : -1;
}

static int encrypt_as(int suite, unsigned char *c, unsigned long long *clen, const unsigned char *m,
                      unsigned long long mlen, const unsigned char *npub, const unsigned char *k)
{
    *clen = mlen + DTP_TAG;
    return one_call(&evp[suite], 1, c, m, (size_t)mlen, c + mlen, npub, k);
}

static int decrypt_as(int suite, unsigned char *m, unsigned long long *mlen, const unsigned char *c,
                      unsigned long long clen, const unsigned char *npub, const unsigned char *k)
{
    unsigned char tag[DTP_TAG];
    *mlen = clen - DTP_TAG;
    memcpy(tag, c + *mlen, DTP_TAG);
    return one_call(&evp[suite], 0, m, c, (size_t)*mlen, tag, npub, k);
}

#define SODIUM(name, suite)                                                                                     \
    static int name##_encrypt(unsigned char *c, unsigned long long *clen, const unsigned char *m,               \
                              unsigned long long mlen, const unsigned char *ad, unsigned long long adlen,       \
                              const unsigned char *nsec, const unsigned char *npub, const unsigned char *k)     \
    {                                                                                                           \
        CHECK(ad == NULL && adlen == 0 && nsec == NULL);                                                        \
        return encrypt_as(suite, c, clen, m, mlen, npub, k);                                                    \
    }                                                                                                           \
    static int name##_decrypt(unsigned char *m, unsigned long long *mlen, unsigned char *nsec,                  \
                              const unsigned char *c, unsigned long long clen, const unsigned char *ad,         \
                              unsigned long long adlen, const unsigned char *npub, const unsigned char *k)      \
    {                                                                                                           \
        CHECK(ad == NULL && adlen == 0 && nsec == NULL);                                                        \
        return decrypt_as(suite, m, mlen, c, clen, npub, k);                                                    \
    }

SODIUM(aes, DTP_AESGCM)
SODIUM(chacha, DTP_CHACHAPOLY)

void harness_ciphers(int like_sodium)
{
    if (evp[DTP_AESGCM].cipher == NULL)
        load_all();
    if (like_sodium) {
        CHECK(dtp_use_sodium(DTP_AESGCM, aes_encrypt, aes_decrypt) == DTP_OK);
        CHECK(dtp_use_sodium(DTP_CHACHAPOLY, chacha_encrypt, chacha_decrypt) == DTP_OK);
        CHECK(dtp_use_sodium(DTP_AESGCM, chacha_encrypt, chacha_decrypt) == DTP_E_PROVIDER);
    } else {
        CHECK(dtp_use_evp(DTP_AESGCM, &evp[DTP_AESGCM]) == DTP_OK);
        CHECK(dtp_use_evp(DTP_CHACHAPOLY, &evp[DTP_CHACHAPOLY]) == DTP_OK);
        CHECK(dtp_use_evp(DTP_CHACHAPOLY, &evp[DTP_AESGCM]) == DTP_E_PROVIDER);
    }
}
