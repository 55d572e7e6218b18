/* wire/packet.c - packets for carriers that lose and reorder: u64 counter, then one Noise transport message.
 * docs/wire.md, "Packets". The number of a key is the counter's upper part, so a packet tells its own key. */
#include "internal.h"

enum { OVERHEAD = DTP_PACKET_HEADER + DTP_TAG };

static uint64_t epoch_of(uint64_t counter)
{
    return counter >> DTP_EPOCH_SHIFT;
}

/* ---- seal ----------------------------------------------------------------------------------------------- */

/* The counter of the next packet; UINT64_MAX when there is none left. */
static uint64_t next_counter(const dtp_cipher *cipher, int rekey)
{
    uint64_t counter = cipher->counter;
    if (cipher->rekey_bytes != 0 && cipher->bytes >= cipher->rekey_bytes)
        rekey = 1;
    if (rekey)
        counter = ((uint64_t)cipher->rekeys + 1) << DTP_EPOCH_SHIFT;
    /* `rekeys` has 32 bits; far behind any link's life, but a counter must never come twice. */
    return counter < cipher->counter || epoch_of(counter) > UINT32_MAX ? UINT64_MAX : counter;
}

/* Seal under the key of `counter`'s range, which is the cipher's own or the one after it. */
static int seal_at(dtp_cipher *cipher, uint64_t counter, uint8_t *text, size_t length)
{
    dtp_cipher next = *cipher;
    int code;

    if (cipher->rekeys == epoch_of(counter))
        return dtp_cipher_seal(cipher, counter, text, length);
    next.context = NULL;
    code = dtp_cipher_rekey(&next);
    if (code == DTP_OK)
        code = dtp_cipher_seal(&next, counter, text, length);
    if (code != DTP_OK) {
        dtp_cipher_wipe(&next);
        return code;
    }
    dtp_cipher_wipe(cipher);
    *cipher = next;
    dtp_wipe(&next, sizeof next);
    return DTP_OK;
}

int dtp_seal_packet(dtp_cipher *cipher, const dtp_outgoing *frames, size_t count, int rekey, uint8_t *out,
                    size_t capacity, dtp_sealed *result)
{
    dtp_queue queue = {frames, count, 0, 0};
    uint64_t counter = next_counter(cipher, rekey);
    size_t packed;
    int code;

    memset(result, 0, sizeof *result);
    code = dtp_frames_check(frames, count, DTP_MAX_PLAINTEXT);
    if (code != DTP_OK)
        return code;
    if (counter == UINT64_MAX)
        return DTP_E_EXHAUSTED;
    if (capacity < OVERHEAD)
        return DTP_E_SPACE;
    packed = dtp_frames_pack(&queue, out + DTP_PACKET_HEADER, least(capacity - OVERHEAD, DTP_MAX_PLAINTEXT));
    if (packed == 0 && count > 0)
        return DTP_E_SPACE;
    put64(out, counter);
    code = seal_at(cipher, counter, out + DTP_PACKET_HEADER, packed);
    if (code != DTP_OK)
        return code;
    cipher->counter = counter + 1;
    cipher->bytes += packed;
    result->length = OVERHEAD + packed;
    result->frames = queue.next;
    result->partial = queue.partial;
    result->records = 1;
    return DTP_OK;
}

/* ---- window: a ring of bits as in RFC 6479, but cleared bit by bit, so that all of it counts --------------- */

static int was_seen(const dtp_packet_opener *opener, uint64_t counter)
{
    if (counter > opener->newest)
        return 0;
    if (opener->newest - counter >= DTP_WINDOW_BITS)
        return 1; /* too old to tell */
    return (int)(opener->seen[counter / 64 % 32] >> (counter % 64) & 1);
}

static void mark_seen(dtp_packet_opener *opener, uint64_t counter)
{
    if (counter > opener->newest) {
        uint64_t passed = opener->newest;
        if (counter - passed >= DTP_WINDOW_BITS) {
            memset(opener->seen, 0, sizeof opener->seen);
        } else {
            while (++passed <= counter)
                opener->seen[passed / 64 % 32] &= ~(UINT64_C(1) << (passed % 64));
        }
        opener->newest = counter;
    }
    opener->seen[counter / 64 % 32] |= UINT64_C(1) << (counter % 64);
}

/* ---- open ----------------------------------------------------------------------------------------------- */

int dtp_packet_opener_init(dtp_packet_opener *opener, int suite, const uint8_t *key)
{
    memset(opener, 0, sizeof *opener);
    return dtp_cipher_init(&opener->current, suite, key, 0);
}

void dtp_packet_opener_wipe(dtp_packet_opener *opener)
{
    dtp_cipher_wipe(&opener->current);
    dtp_cipher_wipe(&opener->previous);
    dtp_wipe(opener, sizeof *opener);
}

/* Copies of keys that lie ahead: `key` of the wanted range and `before` of the one before it. */
typedef struct ahead {
    dtp_cipher key;
    dtp_cipher before;
} ahead;

static int look_ahead(const dtp_packet_opener *opener, uint64_t epoch, ahead *keys)
{
    keys->key = opener->current;
    keys->key.context = NULL; /* the copy must not use up what belongs to the original */
    memset(&keys->before, 0, sizeof keys->before);
    while (keys->key.rekeys < epoch) {
        int code;
        keys->before = keys->key;
        code = dtp_cipher_rekey(&keys->key);
        if (code != DTP_OK)
            return code;
    }
    return DTP_OK;
}

static void forget_ahead(ahead *keys)
{
    dtp_cipher_wipe(&keys->key);
    dtp_cipher_wipe(&keys->before);
}

static void move_ahead(dtp_packet_opener *opener, ahead *keys)
{
    dtp_cipher_wipe(&opener->previous);
    dtp_cipher_wipe(&opener->current);
    opener->previous = keys->before;
    opener->current = keys->key;
    dtp_wipe(keys, sizeof *keys);
}

/* Open and parse under `cipher`, changing nothing but the packet and `frames`. */
static int try_open(dtp_cipher *cipher, uint64_t counter, uint8_t *packet, size_t length, dtp_incoming *frames,
                    size_t *listed)
{
    int rekey = 0;
    int code = dtp_cipher_open(cipher, counter, packet + DTP_PACKET_HEADER, length);
    if (code == DTP_OK)
        code = dtp_frames_parse(packet, DTP_PACKET_HEADER, length, frames, listed, &rekey);
    if (code == DTP_OK && rekey)
        code = DTP_E_FRAME; /* a packet's key is told by its counter */
    return code;
}

int dtp_open_packet(dtp_packet_opener *opener, uint8_t *packet, size_t length, dtp_incoming *frames,
                    size_t capacity, dtp_opened *result)
{
    dtp_cipher *cipher = &opener->current;
    size_t text, listed = 0;
    uint64_t counter, epoch;
    ahead keys;
    int is_ahead, code = DTP_OK;

    memset(result, 0, sizeof *result);
    if (length < OVERHEAD || length > OVERHEAD + DTP_MAX_PLAINTEXT)
        return DTP_E_LENGTH;
    text = length - OVERHEAD;
    if (capacity < least(text / DTP_FRAME_HEADER, DTP_RECORD_FRAMES))
        return DTP_E_SPACE;
    counter = get64(packet);
    epoch = epoch_of(counter);
    if (was_seen(opener, counter))
        return DTP_E_REPLAY;
    if (epoch > (uint64_t)opener->current.rekeys + DTP_MAX_EPOCH_SKIP || epoch > UINT32_MAX)
        return DTP_E_AUTH; /* no key of ours could open it */

    is_ahead = epoch > opener->current.rekeys;
    if (is_ahead) {
        code = look_ahead(opener, epoch, &keys);
        cipher = &keys.key;
    } else if (epoch < opener->current.rekeys) {
        cipher = &opener->previous; /* the window, narrower than a range, has sorted out what is older */
    }
    if (code == DTP_OK)
        code = try_open(cipher, counter, packet, text, frames, &listed);
    if (code != DTP_OK) {
        if (is_ahead)
            forget_ahead(&keys);
        return code;
    }
    cipher->bytes += text;
    if (is_ahead)
        move_ahead(opener, &keys);
    mark_seen(opener, counter);
    result->consumed = length;
    result->frames = listed;
    result->records = 1;
    return DTP_OK;
}
