/* wire/provider_evp.c - ciphers by OpenSSL's EVP interface, reached by pointers: nothing here includes its headers.
 *
 * The context keeps the expanded key, so a record costs only a new nonce. It is made at the first record, not with
 * the cipher: an idle connection shouldn't pay for it. */
#include "internal.h"

/* From openssl/evp.h; part of its stable ABI. */
enum { EVP_CTRL_AEAD_GET_TAG = 0x10, EVP_CTRL_AEAD_SET_TAG = 0x11, EVP_KEEP_DIRECTION = -1 };

/* The cipher's context with this nonce set, or NULL. */
static void *ready_context(const dtp_evp *evp, dtp_cipher *cipher, const uint8_t *nonce, int encrypt)
{
    void *context = cipher->context;
    if (context != NULL)
        return evp->init(context, NULL, NULL, NULL, nonce, EVP_KEEP_DIRECTION) == 1 ? context : NULL;
    context = evp->ctx_new();
    if (context == NULL)
        return NULL;
    if (evp->init(context, evp->cipher, NULL, cipher->key, nonce, encrypt) != 1) {
        evp->ctx_free(context);
        return NULL;
    }
    cipher->context = context;
    return context;
}

static int transform(const dtp_evp *evp, void *context, uint8_t *text, size_t length)
{
    int made = 0;
    if (length == 0)
        return 1;
    return evp->update(context, text, &made, text, (int)length) == 1 && (size_t)made == length;
}

static int evp_seal(const dtp_provider *self, dtp_cipher *cipher, const uint8_t *nonce, uint8_t *text,
                    size_t length)
{
    const dtp_evp *evp = &self->evp;
    void *context = ready_context(evp, cipher, nonce, 1);
    int rest = 0;
    if (context == NULL || !transform(evp, context, text, length)
        || evp->final(context, text + length, &rest) != 1
        || evp->ctrl(context, EVP_CTRL_AEAD_GET_TAG, DTP_TAG, text + length) != 1)
        return DTP_E_PROVIDER;
    return DTP_OK;
}

static int evp_open(const dtp_provider *self, dtp_cipher *cipher, const uint8_t *nonce, uint8_t *text,
                    size_t length)
{
    const dtp_evp *evp = &self->evp;
    uint8_t rest_out[DTP_TAG]; /* `final` has nothing to write for these ciphers, but it asks for a place */
    void *context = ready_context(evp, cipher, nonce, 0);
    int rest = 0;
    if (context == NULL || evp->ctrl(context, EVP_CTRL_AEAD_SET_TAG, DTP_TAG, text + length) != 1
        || !transform(evp, context, text, length))
        return DTP_E_PROVIDER;
    return evp->final(context, rest_out, &rest) == 1 ? DTP_OK : DTP_E_AUTH;
}

static void evp_forget(const dtp_provider *self, dtp_cipher *cipher)
{
    if (cipher->context != NULL)
        self->evp.ctx_free(cipher->context); /* which wipes the key schedule */
    cipher->context = NULL;
}

int dtp_use_evp(int suite, const dtp_evp *evp)
{
    dtp_provider candidate;
    if (evp->cipher == NULL || evp->ctx_new == NULL || evp->ctx_free == NULL || evp->init == NULL
        || evp->update == NULL || evp->final == NULL || evp->ctrl == NULL)
        return DTP_E_PROVIDER;
    memset(&candidate, 0, sizeof candidate);
    candidate.seal = evp_seal;
    candidate.open = evp_open;
    candidate.forget = evp_forget;
    candidate.evp = *evp;
    return dtp_install(suite, &candidate);
}
