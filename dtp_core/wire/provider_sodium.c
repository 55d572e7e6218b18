/* wire/provider_sodium.c - ciphers and signatures by libsodium's one-call functions, which keep nothing between calls. */
#include "internal.h"

static int sodium_seal(const dtp_provider *self, dtp_cipher *cipher, const uint8_t *nonce, uint8_t *text,
                       size_t length)
{
    unsigned long long made = 0;
    if (self->sodium_encrypt(text, &made, text, length, NULL, 0, NULL, nonce, cipher->key) != 0)
        return DTP_E_PROVIDER;
    return made == length + DTP_TAG ? DTP_OK : DTP_E_PROVIDER;
}

static int sodium_open(const dtp_provider *self, dtp_cipher *cipher, const uint8_t *nonce, uint8_t *text,
                       size_t length)
{
    unsigned long long made = 0;
    if (self->sodium_decrypt(text, &made, NULL, text, length + DTP_TAG, NULL, 0, nonce, cipher->key) != 0)
        return DTP_E_AUTH;
    return made == length ? DTP_OK : DTP_E_PROVIDER;
}

static void sodium_forget(const dtp_provider *self, dtp_cipher *cipher)
{
    (void)self;
    cipher->context = NULL;
}

int dtp_use_sodium(int suite, dtp_sodium_encrypt encrypt, dtp_sodium_decrypt decrypt)
{
    dtp_provider candidate;
    if (encrypt == NULL || decrypt == NULL)
        return DTP_E_PROVIDER;
    memset(&candidate, 0, sizeof candidate);
    candidate.seal = sodium_seal;
    candidate.open = sodium_open;
    candidate.forget = sodium_forget;
    candidate.sodium_encrypt = encrypt;
    candidate.sodium_decrypt = decrypt;
    return dtp_install(suite, &candidate);
}

size_t dtp_first_forged(dtp_sodium_sign_open open, const uint8_t *messages, const uint32_t *sizes, size_t count)
{
    enum { KEY = 32 };
    size_t i;
    for (i = 0; i < count && open(NULL, NULL, messages + KEY, sizes[i] - KEY, messages) == 0; i++)
        messages += sizes[i];
    return i;
}

void dtp_sign_all(dtp_sodium_sign sign, const uint8_t *secret, const uint8_t *messages, const uint32_t *sizes,
                  size_t count, uint8_t *room, uint8_t *signatures)
{
    enum { SIGNATURE = 64 };
    size_t i;
    for (i = 0; i < count; i++) {
        sign(room, NULL, messages, sizes[i], secret); /* it has no way to fail */
        memcpy(signatures + i * SIGNATURE, room, SIGNATURE);
        messages += sizes[i];
    }
}
