/* dtp.h - the C core of dtp: records, AEAD, replay window; merging of replicated data.
 *
 * Read by the C compiler, by cffi (lines that start with '#' are dropped for it) and by you: each fact stands
 * here once. Bytes in, bytes out: nothing here knows a socket, a clock or Python (sockets.h is beside it). All memory is the caller's, but
 * for the replicated data's own state, which grows (docs/decisions/0091). Sizes are in bytes. Integers on the wire are big-endian. docs/wire.md is the specification;
 * the names are its names.
 *
 * Every function that can fail returns a `dtp_code`: 0 or above is success. A failure leaves keys, counters and
 * windows as they were before the record or packet that failed, so that genuine input which follows still
 * works; what was opened before it is reported and valid.
 */
#ifndef DTP_H
#define DTP_H

#include <stddef.h>
#include <stdint.h>

typedef enum dtp_code {
    DTP_OK = 0,
    DTP_E_AUTH = -1,      /* the tag does not fit: forged, damaged, or another key */
    DTP_E_LENGTH = -2,    /* a record's length is impossible: below the tag or above the limit */
    DTP_E_FRAME = -3,     /* a frame's length does not fit its record or its type */
    DTP_E_SPACE = -4,     /* the caller's memory can't hold even the next record */
    DTP_E_EXHAUSTED = -5, /* the counter has come to its end: rekeying can't help, the link must end */
    DTP_E_REPLAY = -6,    /* this packet was seen before, or is too old to tell */
    DTP_E_SUITE = -7,     /* no provider for this cipher suite was installed */
    DTP_E_PROVIDER = -8,  /* the provider itself failed, or gives a wrong answer to a known question */
    DTP_E_MEMORY = -9,    /* no memory for more state; what there was is as it was */
    DTP_E_FORMAT = -10,   /* bytes that are not what docs/graph.md says they are; nothing of them was taken */
    DTP_E_LIMIT = -11,    /* a limit of this side would be passed; nothing was taken */
    DTP_E_OWNER = -13,    /* a soul that is another's; nothing was made */
    DTP_E_CLOCK = -12,    /* what came is too far in the future, and may not wait; nothing was taken */
    DTP_E_CROWDED = -15,  /* a record has more frames than DTP_RECORD_FRAMES */
    DTP_E_RULED = -14     /* a frame that needs verdicts (dtp_graph_judge); nothing was taken */
} dtp_code;

typedef enum dtp_suite {
    DTP_AESGCM = 1,    /* AES-256-GCM, nonce: 4 zero bytes, 64-bit big-endian counter */
    DTP_CHACHAPOLY = 2 /* ChaCha20-Poly1305 (RFC 8439), nonce: 4 zero bytes, 64-bit little-endian counter */
} dtp_suite;

enum dtp_size {
    DTP_KEY = 32,
    DTP_TAG = 16,
    DTP_RECORD_HEADER = 2,    /* u16: length of what follows (ciphertext and tag) */
    DTP_PACKET_HEADER = 8,    /* u64: explicit counter */
    DTP_MAX_PLAINTEXT = 65519, /* a Noise message is at most 65,535 */
    DTP_FRAME_HEADER = 4,     /* u8 type, u8 flags, u16 length of the body */
    DTP_STREAM_HEADER = 16,   /* u64 stream, u64 offset: the first part of a STREAM body */
    DTP_RECORDS_OF_FRAME = 8, /* records cost their reader as much as a frame, whatever is in them: each 0.2 to 0.8 us */
    DTP_RECORD_FRAMES = 256,  /* in a record or packet at most, without PADDING and REKEY: what a reader must take at once */
    DTP_STREAM_ROOM = 24,     /* what a STREAM frame adds to its data at most: two headers, and REKEY behind it */
    DTP_RECORD_ROOM = 42,     /* and its record with it */
    DTP_WINDOW_BITS = 2048,   /* how far behind the newest a packet may be */
    DTP_EPOCH_SHIFT = 24,     /* packets: key number = counter >> 24 */
    DTP_MAX_EPOCH_SKIP = 4    /* packets: how many keys ahead of ours one may be */
};

/* Frame types that the core itself looks into; all others pass through (dtp/session/frames.py has the table). */
typedef enum dtp_frame_type {
    DTP_PADDING = 0x00, /* skipped */
    DTP_STREAM = 0x03,  /* DTP_STREAM_HEADER, then data */
    DTP_REKEY = 0x0b,   /* empty, last of its record, not listed; the next record is under the next key, see DTP_FRESH */
    DTP_IGNORABLE = 0x80 /* from here on all that the table doesn't have is skipped, and not listed */
} dtp_frame_type;

enum dtp_flag {
    DTP_FIN = 1,  /* on STREAM: the stream ends behind this data */
    DTP_FRESH = 1 /* on REKEY: the next key is that of dtp_cipher_set_fresh, and not REKEY(k) of the one before */
};

/* ---- providers: where the ciphers come from ------------------------------------------------------------- */

/* libsodium's crypto_aead_*_encrypt and _decrypt, as their header declares them. */
typedef int (*dtp_sodium_encrypt)(unsigned char *c, unsigned long long *clen, const unsigned char *m,
                                  unsigned long long mlen, const unsigned char *ad, unsigned long long adlen,
                                  const unsigned char *nsec, const unsigned char *npub, const unsigned char *k);
typedef int (*dtp_sodium_decrypt)(unsigned char *m, unsigned long long *mlen, unsigned char *nsec,
                                  const unsigned char *c, unsigned long long clen, const unsigned char *ad,
                                  unsigned long long adlen, const unsigned char *npub, const unsigned char *k);

/* OpenSSL's EVP functions by name (3.x). `cipher` is what EVP_CIPHER_fetch or EVP_aes_256_gcm() gave. */
typedef struct dtp_evp {
    const void *cipher;
    void *(*ctx_new)(void);
    void (*ctx_free)(void *);
    int (*init)(void *ctx, const void *cipher, void *engine, const unsigned char *key, const unsigned char *iv,
                int enc);
    int (*update)(void *ctx, unsigned char *out, int *outl, const unsigned char *in, int inl);
    int (*final)(void *ctx, unsigned char *out, int *outl);
    int (*ctrl)(void *ctx, int type, int arg, void *ptr);
} dtp_evp;

/* Install a provider for a suite. It must pass a known-answer record (seal, open, refuse a forged one) first;
 * else DTP_E_PROVIDER and the table is as it was. Not to be called once ciphers of that suite exist. */
int dtp_use_sodium(int suite, dtp_sodium_encrypt encrypt, dtp_sodium_decrypt decrypt);
int dtp_use_evp(int suite, const dtp_evp *evp);

/* libsodium's crypto_sign_open, as its header declares it; the first two may be NULL. */
typedef int (*dtp_sodium_sign_open)(unsigned char *m, unsigned long long *mlen, const unsigned char *sm,
                                    unsigned long long smlen, const unsigned char *pk);
/* Return the place of the first signed message that isn't genuine; `count` when all are. Each is a public key (32 bytes), a
 * signature (64), and then the message: `sizes` bytes in all, above 96. */
size_t dtp_first_forged(dtp_sodium_sign_open open, const uint8_t *messages, const uint32_t *sizes, size_t count);

/* libsodium's crypto_sign; the second may be NULL. */
typedef int (*dtp_sodium_sign)(unsigned char *sm, unsigned long long *smlen, const unsigned char *m,
                               unsigned long long mlen, const unsigned char *sk);
/* Sign `count` messages, of `sizes` bytes each, that stand one behind the other, with a secret key (64 bytes: seed and public
 * key): their signatures, 64 bytes each. `room` holds the longest message and 64 bytes. */
void dtp_sign_all(dtp_sodium_sign sign, const uint8_t *secret, const uint8_t *messages, const uint32_t *sizes,
                  size_t count, uint8_t *room, uint8_t *signatures);

typedef struct dtp_cipher dtp_cipher;

/* A function of the caller's that seals or opens one record in place, as a provider does: `length` plaintext bytes with
 * the tag behind them, no associated data, under cipher->key. Gives a dtp_code. */
typedef int (*dtp_record_function)(const dtp_cipher *cipher, const uint8_t *nonce, uint8_t *text, size_t length);

/* Have records of at least `from` plaintext bytes sealed and opened by these, where that is faster than the suite's
 * provider by more than the call costs. They pass the same known-answer record first. NULL, NULL: no more. */
int dtp_use_for_long(int suite, size_t from, dtp_record_function seal, dtp_record_function open);

/* ---- ciphers: one direction of one link ----------------------------------------------------------------- */

struct dtp_cipher {
    uint8_t key[32];
    uint64_t counter;     /* of the next record */
    uint64_t bytes;       /* plaintext under this key so far */
    uint64_t rekey_bytes; /* seal: move to the next key when `bytes` has reached this; 0: never by itself */
    void *context;        /* the provider's, may be NULL */
    uint16_t suite;
    uint16_t padding; /* seal: the least length of a record in bytes, see dtp_seal; 0: none is padded */
    uint32_t rekeys;  /* how many keys came before this one */
    uint8_t *fresh;  /* the key that the next REKEY takes, in the caller's memory; NULL: none */
};

int dtp_cipher_init(dtp_cipher *cipher, int suite, const uint8_t *key, uint64_t rekey_bytes);
/* Records only: the next REKEY that is sealed is FRESH and takes this key; to open, a FRESH one may come and does. The 32
 * bytes must stay until cipher->fresh is NULL again; they are wiped then. */
void dtp_cipher_set_fresh(dtp_cipher *cipher, uint8_t *key);
void dtp_cipher_wipe(dtp_cipher *cipher); /* forget the key, give back the provider's context; idempotent */

/* ---- frames --------------------------------------------------------------------------------------------- */

/* To seal: `data` is the body (for STREAM: the data, without its header; it may be of any length and is cut
 * into as many frames as needed, DTP_FIN only on the last). */
typedef struct dtp_outgoing {
    const uint8_t *data;
    size_t length;
    uint64_t stream; /* STREAM only */
    uint64_t offset; /* STREAM only: of the first byte of `data` in the stream */
    uint8_t type;
    uint8_t flags;
} dtp_outgoing;

/* Opened: a view into the caller's buffer. 32 bytes, native byte order: Python reads it by struct, so the order of
 * the fields is the order of its tuples. */
typedef struct dtp_incoming {
    uint8_t type;
    uint8_t flags;
    uint8_t zero[6];
    uint64_t stream; /* STREAM only */
    uint64_t offset; /* STREAM only */
    uint32_t start;  /* of the body (for STREAM: of the data) in the buffer */
    uint32_t length;
} dtp_incoming;

/* ---- records: carriers that keep the order -------------------------------------------------------------- */

typedef struct dtp_sealed {
    size_t length;  /* bytes written to `out` */
    size_t frames;  /* outgoing frames wholly sealed */
    size_t partial; /* bytes sealed of the STREAM frame after those */
    size_t records;
} dtp_sealed;

/* Pack frames into as few records as they need, each of at most `record_size` plaintext bytes, and seal them.
 * Stops where `out` is full (see dtp_sealed); DTP_E_SPACE when not even one frame went in. With count == 0 one
 * empty record is made. `rekey` != 0: end with a REKEY frame. A REKEY is also put in by itself when
 * rekey_bytes is reached. A non-STREAM frame above record_size: DTP_E_FRAME.
 * With cipher->padding every record has a PADDING frame that makes it padding, 2 * padding, 4 * padding... bytes long, or as
 * long as a full one. */
int dtp_seal(dtp_cipher *cipher, const dtp_outgoing *frames, size_t count, size_t record_size, int rekey,
             uint8_t *out, size_t capacity, dtp_sealed *result);

/* The usual case made short: one STREAM frame in one record, which needs record_size and capacity for
 * DTP_STREAM_ROOM and DTP_RECORD_ROOM more than `length`. Gives the bytes written to `out`, else a dtp_code. */
int64_t dtp_seal_stream(dtp_cipher *cipher, uint64_t stream, uint64_t offset, const uint8_t *data, size_t length,
                        size_t record_size, uint8_t *out, size_t capacity);

/* Many small ones: seal `count` STREAM frames whose data stand in `data` at starts[i] for sizes[i] bytes. `frames` is room
 * for as many, written by this. As dtp_seal, and DTP_E_SPACE with nothing sealed when a span is not within `length`. */
int dtp_seal_pieces(dtp_cipher *cipher, dtp_outgoing *frames, const uint64_t *streams, const uint64_t *offsets,
                    const uint32_t *starts, const uint32_t *sizes, size_t count, const uint8_t *data, size_t length,
                    size_t record_size, uint8_t *out, size_t capacity, dtp_sealed *result);

typedef struct dtp_opened {
    size_t consumed; /* bytes of whole records behind us */
    size_t wanted;   /* bytes still missing for the next record (0: unknown, its header is not whole) */
    size_t frames;
    uint32_t records;
    uint32_t rekeys; /* how many of them had a REKEY */
} dtp_opened;

/* Open every whole record in the buffer, in place, and list its frames. STREAM frames that continue the one
 * listed before them (same stream, next offset, no FIN between) are joined to it: the data is moved together,
 * so a reader gets one piece. Stops early when `frames` might not hold the next record's frames: `capacity`
 * must be at least DTP_RECORD_FRAMES; call again with the rest. What takes time and lists nothing is counted as frames
 * are: each REKEY, and DTP_RECORDS_OF_FRAME records, whatever is in them. A record with more frames than that: DTP_E_CROWDED.
 * On failure `result` tells what was opened before, and that is valid. */
int dtp_open(dtp_cipher *cipher, uint8_t *buffer, size_t length, dtp_incoming *frames, size_t capacity,
             dtp_opened *result);

/* ---- packets: carriers that lose and reorder ------------------------------------------------------------ */

/* The receiving half keeps the newest counter, a window of those seen, and the key before the current one. */
typedef struct dtp_packet_opener {
    dtp_cipher current;
    dtp_cipher previous; /* all zero until there was one */
    uint64_t newest; /* highest counter opened; 0 with seen == {0}: none yet */
    uint64_t seen[32];
} dtp_packet_opener;

int dtp_packet_opener_init(dtp_packet_opener *opener, int suite, const uint8_t *key);
void dtp_packet_opener_wipe(dtp_packet_opener *opener);

/* One packet: counter, then one Noise message with all frames; they must fit `capacity` and DTP_MAX_PLAINTEXT,
 * else as many whole frames as fit are sealed (STREAM frames are cut). `rekey` != 0: start the next key's
 * range of counters with this packet. */
int dtp_seal_packet(dtp_cipher *cipher, const dtp_outgoing *frames, size_t count, int rekey, uint8_t *out,
                    size_t capacity, dtp_sealed *result);
int dtp_open_packet(dtp_packet_opener *opener, uint8_t *packet, size_t length, dtp_incoming *frames,
                    size_t capacity, dtp_opened *result);

/* ---- the replicated graph: registers, counters, sets, multi-values, lists ------------------------------------ */

/* docs/graph.md is the specification. A graph is one replica's state; one thread at a time uses it. Clocks are
 * hybrid logical clocks: milliseconds since 1970 << 16, plus a count. An author is an Ed25519 public key. Results
 * point into the graph's own memory and are valid until the next call with it. */
typedef struct dtp_graph dtp_graph;

enum dtp_graph_size {
    DTP_AUTHOR = 32,
    DTP_FRAME_OPS = 65536,      /* ops in one frame, at most */
    DTP_FRAME_BYTES = 16777216, /* bytes of one frame, at most */
    DTP_NAME_BYTES = 1024,      /* of a soul or a key, at most; a soul has at least 1 */
    DTP_VALUE_BYTES = 1048576,  /* of one value, at most: larger things are blobs */
    DTP_VALUE_DEPTH = 32,       /* lists and maps in one another, at most */
    DTP_POSITION_BYTES = 4096,  /* of a position in an op of old lists, at most */
    DTP_DEFERRED_FRAMES = 64,   /* of one author, that wait for their time */
    DTP_OWNER_BYTES = 96        /* of an author's name in souls, at most */
};

/* Kinds of op, as on the wire. */
typedef enum dtp_op_kind {
    DTP_REGISTER_PUT = 0,  /* value or deleted */
    DTP_COUNTER_TOTAL = 1, /* value: what the author added up to now, an int */
    DTP_SET_ADD = 2,       /* value, dots of the same value that are replaced */
    DTP_SET_REMOVE = 3,    /* dots */
    DTP_VALUES_PUT = 4,    /* value, dots that are replaced */
    DTP_VALUES_REMOVE = 5, /* dots */
    DTP_OLD_LIST_INSERT = 6, /* value, position. These four are of lists before format 4: read, without effect */
    DTP_OLD_LIST_MOVE = 7,   /* dot, position */
    DTP_OLD_LIST_ASSIGN = 8, /* dot, value */
    DTP_OLD_LIST_REMOVE = 9, /* dots */
    DTP_TEXT_EDIT = 10,    /* value: bin, an edit of a text, which is merged elsewhere (crdt_text.h) */
    DTP_LIST_EDIT = 11,    /* the same of a list */
    DTP_OP_KINDS = 12
} dtp_op_kind;

/* What lives at (soul, key), each apart from the others. */
typedef enum dtp_space {
    DTP_REGISTER = 0,
    DTP_COUNTER = 1,
    DTP_SET = 2,
    DTP_VALUES = 3,
    DTP_LIST = 4,
    DTP_TEXT = 5,
    DTP_SPACES = 6
} dtp_space;

typedef struct dtp_merged {
    size_t count;    /* of what is different now: see dtp_graph_changes */
    size_t ops;      /* in the frame; 0 when it was seen before */
    size_t edits;    /* of texts and lists: see dtp_graph_edits */
    size_t deferred; /* 1 when the frame waits for its time */
    uint64_t before; /* the clocks that the frame covers: after `before`, up to `last` */
    uint64_t last;
    size_t place;    /* of the fault, with DTP_E_FORMAT */
} dtp_merged;

/* A view into the graph's memory. */
typedef struct dtp_view {
    const uint8_t *bytes;
    size_t length;
    uint64_t clock; /* of a register */
    uint32_t author;
} dtp_view;

/* `seed`: 16 random bytes for the tables. `author` is who makes what is made here. */
int dtp_graph_open(const uint8_t *author, const uint8_t *seed, dtp_graph **graph);
void dtp_graph_close(dtp_graph *graph);

/* Return how many authors have numbers: those below it. */
uint32_t dtp_graph_authors(const dtp_graph *graph);
/* The number of an author, given one if need be, or a negative code. */
int64_t dtp_graph_author(dtp_graph *graph, const uint8_t *id);
/* The name of an author in souls, not above DTP_OWNER_BYTES: "~name" and what begins with "~name/" are its own, and ops
 * of others on them are void: they count as seen and do nothing. Without a name it owns nothing. */
int dtp_graph_set_owner(dtp_graph *graph, uint32_t number, const uint8_t *name, size_t length);
int dtp_graph_author_id(const dtp_graph *graph, uint32_t number, const uint8_t **id);
int dtp_graph_name(const dtp_graph *graph, uint32_t number, const uint8_t **text, size_t *length);

/* Merge a frame of an author. When its last clock is above `limit`, or one of the author waits already, and it may wait,
 * it does (bounded: DTP_E_LIMIT, and it may come again), and counts as seen; when it may not, DTP_E_CLOCK. Nothing is taken from a frame with a fault.
 * Edits of texts that aren't edits of the frame's author are a fault. 1 instead of DTP_OK: there are edits to be merged. */
int dtp_graph_merge(dtp_graph *graph, uint32_t author, const uint8_t *body, size_t length, uint64_t limit,
                    int may_wait, dtp_merged *result);
/* The same for one who calls for every message: few and plain numbers in and out, no frame waits, and the limit is the one
 * set last (0 at first). Twice the number of changes, plus 1 when there are edits of texts, or a negative code.
 * dtp_graph_result tells the rest. */
int64_t dtp_graph_take(dtp_graph *graph, uint32_t author, const uint8_t *body, size_t length);
void dtp_graph_take_until(dtp_graph *graph, uint64_t limit);
/* Where dtp_graph_take and dtp_graph_write put what they have to tell; it may serve the other calls as well. */
dtp_merged *dtp_graph_result(dtp_graph *graph);
/* Return the last clock of the frame that is due first; 0 when none waits. */
uint64_t dtp_graph_waiting(const dtp_graph *graph);
/* Return how many frames of an author wait. */
uint32_t dtp_graph_deferred(const dtp_graph *graph, uint32_t author);
/* What frames have, by which one can tell how much memory they take once they are merged. */
typedef struct dtp_load {
    size_t ops;
    size_t bytes; /* with names written out */
    size_t edits; /* of texts and lists */
    size_t edit_bytes;
    size_t ruled; /* ops at souls that begin with %: grants, documents of rules, and what is under these */
    size_t ruled_bytes; /* of values of grants and of documents of rules */
} dtp_load;
/* Of all frames that wait. */
dtp_load dtp_graph_deferred_load(const dtp_graph *graph);
/* Of a frame, which isn't merged; DTP_E_FORMAT for one with a fault. */
int dtp_graph_weigh(dtp_graph *graph, const uint8_t *body, size_t length, dtp_load *load);
/* Return the clock up to which nothing of an author waits; 0 when nothing of it was seen. */
uint64_t dtp_graph_let_in(const dtp_graph *graph, uint32_t author);
/* Return whether the op that an author made at this clock was seen, and doesn't wait. */
int dtp_graph_took(const dtp_graph *graph, uint32_t author, uint64_t clock);
/* Apply what waited and is not above `limit` now. Call again while `ops` is not 0. */
int dtp_graph_due(dtp_graph *graph, uint64_t limit, dtp_merged *result);
/* That frame and its author, in `view`; a length of 0 when none is due. */
int dtp_graph_due_frame(const dtp_graph *graph, uint64_t limit, dtp_view *view);

/* What the caller decided about each op of a frame that is on souls of others, or on ones that are under rules
 * (beginning with `%`). Without it ops there are void. */
typedef enum dtp_verdict {
    DTP_AS_OWNED = 0, /* by the owner of the soul */
    DTP_VOID = 1,
    DTP_ALLOWED = 2
} dtp_verdict;

/* From now on give DTP_E_RULED for frames that need verdicts and have none. */
void dtp_graph_ask(dtp_graph *graph);
/* For the next dtp_graph_merge or dtp_graph_due alone: a dtp_verdict for each op. Another number of ops: DTP_E_LIMIT. */
int dtp_graph_judge(dtp_graph *graph, const uint8_t *verdicts, size_t count);
/* While `trusted` is not 0 what is made here is not held to be the owner's: the caller has checked it. */
void dtp_graph_trust(dtp_graph *graph, int trusted);
/* The highest clock there is: of what was applied, or made here. */
uint64_t dtp_graph_newest(const dtp_graph *graph);

/* Make ops here. `now` is the wall clock as an HLC; the ops' clocks are above it and above all that was seen. They are
 * visible at once and leave with the next commit.
 * DTP_E_OWNER for a soul that is another's. put: MessagePack, an array of [soul, key, value], or [soul, key] to delete. */
int dtp_graph_put(dtp_graph *graph, const uint8_t *rows, size_t length, uint64_t now, dtp_merged *result);

/* put, for one who calls for every property: the time is `wall`, seconds since 1970. */
int dtp_graph_write(dtp_graph *graph, const uint8_t *rows, size_t length, double wall);

/* One op of another kind. `value` is MessagePack. TEXT_EDIT and LIST_EDIT are kept as made, not listed as edits to be
 * merged. SET_ADD and VALUES_PUT replace what is observed; SET_REMOVE removes the observed dots of `value`,
 * VALUES_REMOVE all; with `own`, these two remove the author's own dots with these clocks, ascending, whether they are
 * here or not. COUNTER_TOTAL: the difference is added to the author's own total. */
typedef struct dtp_do {
    const uint8_t *soul;
    size_t soul_length;
    const uint8_t *key;
    size_t key_length;
    const uint8_t *value;
    size_t value_length;
    uint32_t kind;
    const uint64_t *own;
    size_t own_count;
} dtp_do;

int dtp_graph_do(dtp_graph *graph, const dtp_do *op, uint64_t now, dtp_merged *result);

/* MessagePack [[author, clock]...] of the dots that the op would remove if it were made now; `own` isn't looked at. */
int dtp_graph_observed(dtp_graph *graph, const dtp_do *op, dtp_view *view);

/* The frame of all that was made here since the last commit; `length` 0 when there was nothing. */
typedef struct dtp_committed {
    const uint8_t *body;
    size_t length;
    uint64_t before; /* the clocks that the frame covers: after `before`, up to `last` */
    uint64_t last;
} dtp_committed;

int dtp_graph_commit(dtp_graph *graph, dtp_committed *result);

/* What a frame covers, without merging it. */
typedef struct dtp_frame_facts {
    uint64_t before;
    uint64_t last;
    size_t ops;
    size_t place; /* of the fault, with DTP_E_FORMAT */
} dtp_frame_facts;

/* `author`: whose it has to be (DTP_AUTHOR bytes), or NULL when that is of no matter. */
int dtp_graph_check(dtp_graph *graph, const uint8_t *author, const uint8_t *body, size_t length, dtp_frame_facts *facts);

/* A frame's ops as MessagePack: [[kind, soul, key, clock, [[author or nil (the frame's), clock]...], position or nil,
 * [value] or []]...]. */
int dtp_graph_ops(dtp_graph *graph, const uint8_t *body, size_t length, dtp_view *view, size_t *place);

/* What of an author's frames still counts, as one frame (docs/graph.md, "Summaries"). open: for the clocks above `before`.
 * add: a frame that was merged, each in its order; DTP_E_LIMIT when what counts of it doesn't fit any more, and nothing of it
 * was kept. end: the frame; `length` 0 when nothing counts. */
typedef struct dtp_summary dtp_summary;
int dtp_summary_open(const dtp_graph *graph, uint32_t author, uint64_t before, dtp_summary **summary);
void dtp_summary_close(dtp_summary *summary);
int dtp_summary_add(dtp_graph *graph, dtp_summary *summary, const uint8_t *body, size_t length, size_t *place);
/* Instead of the edit of a text or a list with this clock keep another one, `value`; with a length of 0 none.
 * DTP_E_LIMIT when there is no such edit. */
int dtp_summary_edit(dtp_summary *summary, uint64_t clock, const uint8_t *value, size_t length);
int dtp_summary_end(dtp_graph *graph, dtp_summary *summary, dtp_view *view);
/* Take such a frame (`length` may be 0) for all that its author made after `before`, up to `last`. DTP_E_CLOCK when that
 * is above `limit`; otherwise as dtp_graph_merge. */
int dtp_summary_merge(dtp_graph *graph, uint32_t author, const uint8_t *body, size_t length, uint64_t before,
                      uint64_t last, uint64_t limit, dtp_merged *result);

/* What an author signed about its ops: a frame (`first` and `sequence` are the same, and its clocks its own), or a summary of
 * the frames `first` to `sequence` with the clocks above `after`, up to `last`; a summary's body may be empty. */
typedef struct dtp_told {
    const uint8_t *body;
    size_t length;
    uint64_t first;
    uint64_t sequence;
    uint64_t after;
    uint64_t last;
    int is_summary;
} dtp_told;

/* Whether two of these can both be true, of which one at least is a summary (docs/graph.md, "Contradictions"). open: of the
 * author with this key (DTP_AUTHOR bytes) and this name in souls; the body is copied. agrees: 1, or 0 when they contradict each
 * other. DTP_E_FORMAT with the place where a body is none. */
typedef struct dtp_account dtp_account;
int dtp_account_open(const uint8_t *author, const uint8_t *name, size_t name_length, const dtp_told *told,
                     dtp_account **account, size_t *place);
void dtp_account_close(dtp_account *account);
int dtp_account_agrees(dtp_account *account, const dtp_told *other, size_t *place);

/* Return a register's value; 1 when there is one, else 0. */
int dtp_graph_get(dtp_graph *graph, const uint8_t *soul, size_t soul_length, const uint8_t *key, size_t key_length,
                  dtp_view *view);
/* MessagePack of what lives at (soul, key) in a space: COUNTER [[author, total]...]; SET and VALUES
 * [[author, clock, value]...] by dot. */
int dtp_graph_read(dtp_graph *graph, uint32_t space, const uint8_t *soul, size_t soul_length, const uint8_t *key,
                   size_t key_length, dtp_view *view);
/* MessagePack of a soul's keys in a space: {key: value} for REGISTER, [key...] for others. */
int dtp_graph_keys(dtp_graph *graph, uint32_t space, const uint8_t *soul, size_t soul_length, dtp_view *view);
/* Tell of a text or a list, whose edits are merged elsewhere, whether there is something in it: else it isn't listed. */
int dtp_graph_show(dtp_graph *graph, uint32_t space, const uint8_t *soul, size_t soul_length, const uint8_t *key,
                   size_t key_length, int has_something);
/* MessagePack [soul...] of those that have something in any space and begin with `prefix`. */
int dtp_graph_souls(dtp_graph *graph, const uint8_t *prefix, size_t length, dtp_view *view);

/* What queries look up. Souls are numbers of names; there may be some too many, never too few.
 * Cells `hash << 32 | soul` (uint64_t, of this machine), sorted by hash: of registers, counters and multi-values at a key, by the hash of
 * their value (numbers, text, bytes, bools), or (`items`) of sets, by those of their items; and of links in registers and sets, by
 * that of the link's value. */
int dtp_graph_column(dtp_graph *graph, const uint8_t *key, size_t length, int items, dtp_view *view);
/* Souls (uint32_t each) with what such a column doesn't know at a key: a text, or (`items`) a list or an array. */
int dtp_graph_opaque(dtp_graph *graph, const uint8_t *key, size_t length, int items, dtp_view *view);
int dtp_graph_links(dtp_graph *graph, dtp_view *view);
/* Return the hash of a value as columns have it, valid MessagePack: 1, or 0 when they have none such. */
int dtp_graph_hash(const dtp_graph *graph, const uint8_t *value, size_t length, uint32_t *hash);
/* Souls (uint32_t each) whose register, counter or multi-value at a key may be between two values of one kind, both included; 0 bytes: no bound. */
int dtp_graph_between(dtp_graph *graph, const uint8_t *key, size_t length, const uint8_t *low, size_t low_length,
                      const uint8_t *high, size_t high_length, dtp_view *view);
/* Souls (uint32_t each) that begin with `prefix` and have something; */
int dtp_graph_named(dtp_graph *graph, const uint8_t *prefix, size_t length, dtp_view *view);
/* and those with links to what begins with `prefix` and has nothing itself. */
int dtp_graph_unmade(dtp_graph *graph, const uint8_t *prefix, size_t length, dtp_view *view);
/* Return how many numbers there are, of souls and keys. */
size_t dtp_graph_names(const dtp_graph *graph);
int dtp_graph_is_soul(dtp_graph *graph, const uint8_t *soul, size_t length); /* 1 when something is there, else 0 */
/* Return a soul's number: 1, or 0 when there is none. */
int dtp_graph_find(const dtp_graph *graph, const uint8_t *soul, size_t length, uint32_t *number);
/* MessagePack [soul, {key: value}, [key, link...], others...] of the registers, the links in sets, and all else, of `count` numbers;
 * those that have nothing are left out. DTP_E_LIMIT for a number that there is not. */
int dtp_graph_rows(dtp_graph *graph, const uint32_t *numbers, size_t count, dtp_view *view);
/* Return what is at a soul beside registers, MessagePack [key, space, content...]: of COUNTER [total...], of SET [value...], of
 * VALUES the latest, of TEXT and LIST nil. */
int dtp_graph_others(dtp_graph *graph, const uint8_t *soul, size_t length, dtp_view *view);

/* A pattern: nodes in a row, each linked to the next one. A node of which there are labels has one of them, a link of whose first
 * node there are keys one of those. */
enum { DTP_SCAN_NODES = 8, DTP_SCAN_TESTS = 32, DTP_SCAN_STEPS = 16777216, DTP_SCAN_MOST = 1024,
       DTP_SCAN_COLUMNS = 8 };
enum { DTP_SCAN_EQUAL, DTP_SCAN_DIFFERENT, DTP_SCAN_BELOW, DTP_SCAN_AT_MOST, DTP_SCAN_ABOVE, DTP_SCAN_AT_LEAST };
typedef struct dtp_scan_name {
    const uint8_t *text;
    size_t length;
    uint32_t node;
} dtp_scan_name;
/* A property of a node compared with a value, MessagePack; or with the property `value` of the node `other`, else 0xffffffff. */
typedef struct dtp_scan_test {
    const uint8_t *key;
    size_t key_length;
    const uint8_t *value;
    size_t value_length;
    uint32_t node;
    uint32_t other;
    uint32_t comparison;
} dtp_scan_test;
typedef struct dtp_scan {
    const dtp_scan_name *labels;
    size_t label_count;
    const dtp_scan_name *keys;
    size_t key_count;
    const dtp_scan_test *tests;
    size_t test_count;
    uint32_t nodes;
    int shown;
    const uint8_t *order; /* with `most` above 0: a property of the only node */
    size_t order_length;
    uint32_t most;
    int down;
    const dtp_scan_name *columns; /* properties of the only node */
    size_t column_count;
} dtp_scan;
/* Return how often a pattern is there that begins at one of the `numbers` (NULL: all) from `first` to before `behind`; if it is
 * `shown`, MessagePack texts of each: the souls, the keys of the links. No link is in one twice. Shown are also those of which it
 * can't be told here whether they fit; else that is DTP_E_LIMIT, and so are more than DTP_SCAN_STEPS links. With `most`, at most
 * DTP_SCAN_MOST, nodes may be left out that aren't among the first so many by a property, upwards or `down`: absent is last then.
 * With `columns`, at most DTP_SCAN_COLUMNS, and not `shown`, MessagePack bytes of each node: the values of these properties one
 * behind the other, nil for those that it hasn't. One that it can't be told here is DTP_E_LIMIT. */
int dtp_graph_scan(dtp_graph *graph, const dtp_scan *asked, const uint32_t *numbers, size_t first, size_t behind, dtp_view *view,
                   uint64_t *found);

/* MessagePack of the last call's changes: [[soul, key, space, author, clock]...]. */
int dtp_graph_changes(dtp_graph *graph, dtp_view *view);

/* MessagePack of the last call's edits of texts and lists, in order: [[space, soul, key, edit]...]. */
int dtp_graph_edits(dtp_graph *graph, dtp_view *view);

/* Return 1 if all ops of the author with clocks above `from`, up to `to`, were seen, else 0. */
int dtp_graph_has(const dtp_graph *graph, uint32_t author, uint64_t from, uint64_t to);

/* The whole state as bytes, and back into a graph that is empty still (DTP_E_LIMIT when it isn't; after another failure it
 * must be closed). DTP_E_LIMIT to save while something made here isn't committed. */
int dtp_graph_save(dtp_graph *graph, dtp_view *view);
int dtp_graph_load(dtp_graph *graph, const uint8_t *state, size_t length, size_t *place);

/* Let go of memory that is not needed now, and of removals whose dots were seen. */
int dtp_graph_tidy(dtp_graph *graph);
size_t dtp_graph_memory(const dtp_graph *graph); /* bytes held */

/* ---- set reconciliation ------------------------------------------------------------------------------------------------ */

enum { DTP_SKETCH_SYMBOLS = 1048576 };

/* Of some items of a set: their sum and that of their checks by exclusive or, and how many, modulo 256. */
typedef struct dtp_symbol {
    uint64_t items;
    uint32_t checks;
    uint8_t count;
    uint8_t queued; /* the reader's */
} dtp_symbol;

/* How far an item has come: the next symbol that it is in. */
typedef struct dtp_walk {
    uint64_t state;
    uint64_t at;
} dtp_walk;

/* Write the symbols `from` to `to` - 1 of a set of hashes, after those before `from`: `walks`, as many as items, goes on from there.
 * DTP_E_LIMIT beyond DTP_SKETCH_SYMBOLS. */
void dtp_sketch_begin(const uint64_t *items, size_t count, dtp_walk *walks);
int dtp_sketch(const uint64_t *items, size_t count, dtp_walk *walks, size_t from, size_t to, dtp_symbol *symbols);
/* Read how two sets differ off their symbols' difference (the items and checks by exclusive or, the counts minus), from
 * symbol 0 on, which is used up. 1 when all was read, 0 when more symbols are needed, or a negative code. There is room for `count`
 * items; `theirs` is 1 for those of the set that was subtracted from. */
int dtp_sketch_read(dtp_symbol *symbols, size_t count, uint64_t *items, uint8_t *theirs, size_t *found);

#endif
