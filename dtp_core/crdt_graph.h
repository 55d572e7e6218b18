/* crdt_graph.h - the state of one replica of a graph, as the files crdt_*.c share it. docs/graph.md has the words. */
#ifndef DTP_CRDT_GRAPH_H
#define DTP_CRDT_GRAPH_H

#include "crdt.h"

enum { DTP_NONE = UINT32_MAX }; /* no number: of an author, a name, a slot, an entry */

/* ---- memory that is wanted soon ------------------------------------------------------------------------------- */

static inline void dtp_prefetch(const void *address)
{
#if defined(__GNUC__)
    __builtin_prefetch(address);
#else
    (void)address;
#endif
}

/* A slot or a name may lie across two lines. */
static inline void dtp_prefetch_whole(const void *address, size_t size)
{
    dtp_prefetch(address);
    dtp_prefetch((const uint8_t *)address + size - 1);
}

/* ---- an index: from a hash to a number ---------------------------------------------------------------------- */

/* Open addressing with linear probing. A cell is 0 (free) or `hash << 32 | number + 1`; who is found by hash is
 * then compared by the caller, who knows what the number stands for. */
typedef struct dtp_index {
    uint64_t *cells;
    size_t mask; /* cells - 1 */
    size_t count;
} dtp_index;

static inline uint64_t dtp_cell(uint32_t hash, uint32_t number)
{
    return (uint64_t)hash << 32 | ((uint64_t)number + 1);
}

static inline uint32_t dtp_cell_number(uint64_t cell)
{
    return (uint32_t)cell - 1;
}

/* All candidates for `hash`: `number` takes each in turn until `break`. */
#define DTP_PROBE(index, hash, number)                                                                     \
    for (size_t at_ = (hash) & (index)->mask; (index)->cells[at_] != 0; at_ = (at_ + 1) & (index)->mask)    \
        if ((uint32_t)((index)->cells[at_] >> 32) == (hash)                                                 \
            && ((number) = dtp_cell_number((index)->cells[at_]), 1))

int dtp_index_reserve(dtp_index *index, size_t more); /* DTP_OK or DTP_E_MEMORY */
void dtp_index_put(dtp_index *index, uint32_t hash, uint32_t number); /* after a reserve; never fails */
void dtp_index_remove(dtp_index *index, uint32_t hash, uint32_t number); /* which is in it */

static inline void dtp_index_prefetch(const dtp_index *index, uint32_t hash)
{
    dtp_prefetch(&index->cells[hash & index->mask]);
}

/* ---- values --------------------------------------------------------------------------------------------------- */

/* MessagePack bytes, up to 9 of them in place. `length` 0: none (deleted). */
typedef struct dtp_value {
    uint32_t length : 24;
    uint32_t head : 8; /* the first byte, when in place */
    uint32_t spare;    /* the owner's */
    union {
        uint8_t near[8]; /* the others */
        uint8_t *far;    /* all of them */
        uint32_t container; /* of a slot that is one */
    } as;
} dtp_value;

enum { DTP_VALUE_NEAR = 9, DTP_VALUE_LIMIT = DTP_VALUE_BYTES, DTP_DELETED = 0xc1 };

typedef struct dtp_bytes {
    const uint8_t *at;
    size_t length;
} dtp_bytes;

/* DTP_OK or DTP_E_MEMORY, and then `value` is as it was. */
int dtp_value_set(dtp_value *value, dtp_bytes bytes);
void dtp_value_clear(dtp_value *value);
/* The bytes: of a near value in `room`, of DTP_VALUE_NEAR bytes. */
dtp_bytes dtp_value_get(const dtp_value *value, uint8_t *room);
int dtp_bytes_compare(dtp_bytes a, dtp_bytes b);

/* Read one MessagePack value: well-formed, text in UTF-8, keys of maps text, at most DTP_VALUE_DEPTH deep, extension
 * types from 0 up. DTP_OK or DTP_E_FORMAT with `at` on the byte at fault. */
int dtp_read_value(dtp_reader *reader, dtp_bytes *value);
int dtp_is_utf8(const uint8_t *text, size_t length);

/* ---- names: authors, souls, keys -------------------------------------------------------------------------------- */

/* Clocks after `from` up to `to`. */
typedef struct dtp_span {
    uint64_t from;
    uint64_t to;
} dtp_span;

typedef struct dtp_author {
    uint8_t id[32];
    dtp_span *seen; /* sorted, apart from each other */
    size_t seen_count;
    size_t seen_room;
    size_t deferred; /* frames that wait */
    uint8_t owner[DTP_OWNER_BYTES]; /* its name in souls */
    size_t owner_length;
} dtp_author;

enum { DTP_NAME_NEAR = 20 };

/* 32 bytes. Most names are read with it: fetching a text elsewhere would be another miss of the caches. */
typedef struct dtp_name {
    uint32_t length;
    uint32_t first; /* of this soul's slots, DTP_NONE when there is none */
    uint32_t hash;  /* of the text */
    uint8_t near[DTP_NAME_NEAR]; /* the text, or its offset (uint64_t) in the graph's `text` */
} dtp_name;

/* ---- slots: one for each (soul, key, part) ----------------------------------------------------------------------- */

/* Which part: the register itself, the total of author `part - 1`, that there is a text or a list, or a container of entries.
 * No slot has DTP_PART_COUNTER: by it a counter's first total is found. */
enum {
    DTP_PART_REGISTER = 0,
    DTP_PART_COUNTER = UINT32_MAX - 9,
    DTP_PART_LIST,
    DTP_PART_TEXT,
    DTP_PART_SET,
    DTP_PART_VALUES
};

/* Bytes of the value of a text's or a list's slot: of one in which there is something, and of one in which there isn't. */
enum { DTP_SHOWN = 2, DTP_HIDDEN = 3 };

/* 40 bytes. */
typedef struct dtp_slot {
    uint64_t clock;
    uint32_t soul;
    uint32_t key;
    uint32_t part;
    uint32_t author;
    dtp_value value; /* spare: the next slot of the soul */
} dtp_slot;

/* ---- entries of containers, by their dots -------------------------------------------------------------------------- */

enum dtp_entry_state {
    DTP_ENTRY_FREE = 0,
    DTP_ENTRY_LIVE = 1,
    DTP_ENTRY_KILLED = 2, /* its removal came before it did */
    DTP_ENTRY_NEW = 3 /* being made: it isn't in its container yet */
};

typedef struct dtp_stamp {
    uint64_t clock;
    uint32_t author;
} dtp_stamp;

typedef struct dtp_entry {
    uint64_t clock; /* the dot: */
    uint32_t author;
    uint32_t slot; /* the container */
    uint32_t next; /* of the container, or of the free ones */
    uint32_t before;
    dtp_value value; /* spare: the state */
} dtp_entry;

typedef struct dtp_container {
    uint32_t slot;
    uint32_t first;
    uint32_t count;
} dtp_container;

/* ---- ops ------------------------------------------------------------------------------------------------------------ */

typedef struct dtp_dot {
    uint64_t clock;
    uint32_t author;
} dtp_dot;

/* Parsed, not yet applied. Numbers of names and authors are first the frame's own, then the graph's. */
typedef struct dtp_op {
    uint64_t clock;
    uint32_t soul;
    uint32_t key;
    uint32_t author;
    uint32_t first_dot; /* of those it removes */
    uint32_t dots;
    uint32_t position; /* old lists: where in `bytes`, */
    uint32_t position_length;
    uint32_t value_length;
    const uint8_t *value; /* parsed from a frame: NULL when deleted, or none */
    union {
        uint32_t hash;     /* parsed: of its register's slot */
        uint32_t value_at; /* to be written: where the value is in `bytes` */
    };
    uint8_t kind;
    uint8_t verdict; /* dtp_verdict */
} dtp_op;

/* An op on a list as there were before format 4: it counts as seen, and does nothing. */
static inline int dtp_is_old_list(const dtp_op *op)
{
    return op->kind >= DTP_OLD_LIST_INSERT && op->kind <= DTP_OLD_LIST_REMOVE;
}

/* An edit of a text or a list, which is merged elsewhere. */
static inline int dtp_is_edit(const dtp_op *op)
{
    return op->kind >= DTP_TEXT_EDIT;
}

/* A name as a frame spells it. */
typedef struct dtp_spelled {
    size_t offset; /* in `bytes` */
    uint32_t length;
    uint32_t hash;
    uint32_t number; /* the graph's */
} dtp_spelled;

/* What parsing gives; kept from frame to frame so that it is allocated seldom. */
typedef struct dtp_parsed {
    dtp_op *ops;
    size_t count;
    size_t ops_room;
    dtp_dot *dots;
    size_t dot_count;
    size_t dots_room;
    uint8_t *bytes; /* names and positions, written out */
    size_t byte_count;
    size_t bytes_room;
    dtp_spelled *names;
    size_t name_count;
    size_t names_room;
    uint8_t (*author_ids)[32]; /* those the frame lists, behind its own */
    uint32_t *authors;         /* the graph's numbers; [0] is the frame's author */
    size_t author_count;
    size_t author_ids_room;
    size_t authors_room;
    uint64_t before; /* the author's clock before this frame */
    uint64_t last;
    size_t edits; /* ops that are edits of texts */
    int owned; /* whether a soul begins with ~ or % */
} dtp_parsed;

/* Parse a frame (`state_authors` 0), or a chunk of a state that has that many, without touching the graph. On
 * DTP_E_FORMAT `*place` is where. */
int dtp_parse(dtp_parsed *parsed, const uint64_t seed[2], const uint8_t *body, size_t length, size_t state_authors,
              size_t *place);
void dtp_parsed_close(dtp_parsed *parsed); /* give its memory back */

/* ---- the graph -------------------------------------------------------------------------------------------------------- */

typedef struct dtp_buffer {
    uint8_t *bytes;
    size_t count;
    size_t room;
} dtp_buffer;

/* Something that is different now. Numbers of names: dtp_graph_name tells them. */
typedef struct dtp_change {
    uint32_t soul;
    uint32_t key;
    uint32_t space;
    uint32_t author; /* of the op that did it: dtp_graph_author_id */
    uint64_t clock;
} dtp_change;

typedef struct dtp_edit {
    uint32_t space; /* DTP_TEXT or DTP_LIST */
    uint32_t soul;
    uint32_t key;
    size_t offset; /* in `edit_bytes` */
    size_t length;
} dtp_edit;

typedef struct dtp_deferred {
    uint64_t before;
    uint64_t last;
    uint32_t author;
    uint8_t *body;
    size_t length;
    dtp_load load;
} dtp_deferred;

struct dtp_graph {
    uint64_t seed[2];
    uint32_t self; /* the author of what is made here */
    uint64_t newest; /* the highest clock there is, of what is applied */

    dtp_author *authors;
    size_t author_count;
    size_t authors_room;
    dtp_index by_author;

    dtp_name *names;
    size_t name_count;
    size_t names_room;
    uint8_t *text;
    size_t text_count;
    size_t text_room;
    dtp_index by_name;

    dtp_slot *slots;
    size_t slot_count;
    size_t slots_room;
    dtp_index by_slot;

    dtp_entry *entries;
    size_t entry_count;
    size_t entries_room;
    uint32_t free_entry;
    dtp_index by_dot;
    dtp_index by_member;

    dtp_container *containers;
    size_t container_count;
    size_t containers_room;

    dtp_deferred *deferred;
    size_t deferred_count;
    size_t deferred_room;
    dtp_load deferred_load; /* of all of them */

    dtp_parsed parsed;
    int asks; /* for verdicts */
    int trusted; /* what is made here */
    uint8_t *verdicts; /* for the next frame */
    size_t verdict_count;
    size_t verdicts_room;
    int loading; /* a state, whose ops were let in before */
    dtp_change *changes;
    size_t change_count;
    size_t changes_room;
    dtp_edit *edits; /* of texts, of the last call */
    size_t edit_count;
    size_t edits_room;
    dtp_buffer edit_bytes;

    uint64_t take_until; /* the limit of dtp_graph_take */
    dtp_merged result; /* of the calls that give but a number */
    dtp_parsed made;  /* ops made here since the last commit */
    size_t made_size; /* bytes that their frame will not be above */
    dtp_index local; /* of what a frame that is written numbers itself */
    size_t local_room;
    dtp_buffer out;
    dtp_buffer chunk;
    uint32_t *sorting; /* while saving: numbers in order, a state's numbers of authors */
    size_t sorting_room;
    uint8_t near[16];
};

/* names (graph/names.c) */
/* The text of a name: valid until another is interned. */
static inline const uint8_t *dtp_name_text(const dtp_graph *graph, const dtp_name *name)
{
    uint64_t offset;
    if (name->length <= DTP_NAME_NEAR)
        return name->near;
    memcpy(&offset, name->near, sizeof offset);
    return graph->text + offset;
}
/* What is all over memory is fetched in three steps, some other work between them: the cell of a name's hash
 * (dtp_index_prefetch), the name that is in it, and the name's first slot. A wrong guess costs a little time, nothing else. */
static inline void dtp_name_prefetch(const dtp_graph *graph, uint32_t hash)
{
    uint64_t cell = graph->by_name.cells[hash & graph->by_name.mask];
    if (cell != 0)
        dtp_prefetch_whole(&graph->names[dtp_cell_number(cell)], sizeof *graph->names);
}
static inline void dtp_first_slot_prefetch(const dtp_graph *graph, uint32_t hash)
{
    uint64_t cell = graph->by_name.cells[hash & graph->by_name.mask];
    uint32_t slot = cell == 0 ? DTP_NONE : graph->names[dtp_cell_number(cell)].first;
    if (slot != DTP_NONE)
        dtp_prefetch_whole(&graph->slots[slot], sizeof *graph->slots);
}
int dtp_name_find(const dtp_graph *graph, const uint8_t *text, size_t length, uint32_t hash, uint32_t *number);
int dtp_name_intern(dtp_graph *graph, const uint8_t *text, size_t length, uint32_t hash, uint32_t *number);
int dtp_author_intern(dtp_graph *graph, const uint8_t *id, uint32_t *number);
/* Return whether the author may write at this soul by itself: it is nobody's, or its own, and under no rules. */
int dtp_may_write(const dtp_author *author, const uint8_t *soul, size_t length);
int dtp_seen_has(const dtp_author *author, uint64_t clock);
int dtp_seen_covers(const dtp_author *author, uint64_t from, uint64_t to);
int dtp_seen_reserve(dtp_author *author); /* so that the next add can't fail */
void dtp_seen_add(dtp_author *author, uint64_t from, uint64_t to);

/* slots (graph/slots.c) */
uint32_t dtp_slot_hash(const dtp_graph *graph, uint32_t soul, uint32_t key, uint32_t part);
/* The same from the hashes of the names: it can be had, and its cell fetched, before the names have numbers. */
static inline uint32_t dtp_slot_hash_of(const dtp_graph *graph, uint32_t soul_hash, uint32_t key_hash, uint32_t part)
{
    return (uint32_t)dtp_mix(graph->seed[0] ^ ((uint64_t)soul_hash << 32 | key_hash), graph->seed[1] ^ part);
}
uint32_t dtp_slot_find(const dtp_graph *graph, uint32_t soul, uint32_t key, uint32_t part, uint32_t hash);
int dtp_slot_get(dtp_graph *graph, uint32_t soul, uint32_t key, uint32_t part, uint32_t hash, uint32_t *number);
/* Write it if (clock, author, value) is above what is there: 1 when that is to be seen, 0, or a negative code. */
int dtp_slot_write(dtp_graph *graph, uint32_t number, uint64_t clock, uint32_t author, dtp_bytes value);
uint32_t dtp_space_of(uint32_t part);
/* The totals of a counter, one after the other: slots that have a value, then DTP_NONE. It takes no longer where there is much
 * else at the soul. */
uint32_t dtp_first_total(const dtp_graph *graph, uint32_t soul, uint32_t key);
uint32_t dtp_next_total(const dtp_graph *graph, uint32_t slot);
/* Return whether the slot is the one total of its counter that stands for all of them. */
int dtp_is_first_total(const dtp_graph *graph, uint32_t slot);
/* Values that can be looked up (graph/query.c). A number is between `low` and `high`, which differ for ints beyond 64 bits only;
 * others have `bytes`. */
enum dtp_scalar_kind {
    DTP_SCALAR_NONE,
    DTP_SCALAR_NUMBER,
    DTP_SCALAR_TEXT,
    DTP_SCALAR_BYTES,
    DTP_SCALAR_BOOL,
    DTP_SCALAR_LINK,
    DTP_SCALAR_TEMPORAL /* a date, a time or a duration: its type and bytes, whose order is none */
};
typedef struct dtp_scalar {
    enum dtp_scalar_kind kind;
    double low;
    double high;
    dtp_bytes bytes;
} dtp_scalar;
dtp_scalar dtp_scalar_of(dtp_bytes value); /* of a value that was checked when it was taken */

/* What is at a soul beside registers and links, MessagePack: see dtp_graph_others (graph/properties.c) */
int dtp_pack_others(dtp_graph *graph, uint32_t soul);
uint32_t dtp_latest_entry(dtp_graph *graph, uint32_t slot); /* of a container, which has some */
/* The number that MessagePack bytes stand for: DTP_OK, or another code (graph/local.c) */
int dtp_integer_of(dtp_bytes bytes, int64_t *value);
int dtp_is_there(dtp_graph *graph, uint32_t slot); /* whether there is something to be seen in a slot (graph/read.c) */
int dtp_is_soul(dtp_graph *graph, uint32_t number); /* whether a name is a soul that has something (graph/read.c) */
/* The part that a kind of op is about; a counter's is its author's. */
uint32_t dtp_part_of(const dtp_op *op);
/* How (clock, author) a is to b: below 0, 0 (the same), above 0. */
int dtp_stamp_compare(const dtp_graph *graph, uint64_t a_clock, uint32_t a_author, uint64_t b_clock, uint32_t b_author);

/* entries of containers (graph/entries.c) */
/* 1 when there is something else to be seen now, 0, or a negative code. */
int dtp_entry_apply(dtp_graph *graph, uint32_t slot, const dtp_op *op, const dtp_dot *dots);
uint32_t dtp_entry_find(const dtp_graph *graph, uint32_t author, uint64_t clock, uint32_t slot);
/* Live entries of a set with this value, one after the other: `at` begins with 0. DTP_NONE: no more. */
uint32_t dtp_entry_member(const dtp_graph *graph, uint32_t slot, dtp_bytes value, size_t *at);
void dtp_entry_free(dtp_graph *graph, uint32_t number);
dtp_container *dtp_container_of(dtp_graph *graph, uint32_t slot);
int dtp_container_sort(dtp_graph *graph, dtp_container *container);
/* Return whether the op of this dot was applied here already, or never will be. */
int dtp_applied(const dtp_graph *graph, uint32_t author, uint64_t clock);

/* applying (graph/merge.c): 1, 0 or a negative code, as above; a change is listed. There is room for one more. */
int dtp_apply(dtp_graph *graph, const dtp_op *op, const dtp_dot *dots);

/* Begin a call that lists changes, and end it. */
void dtp_begin(dtp_graph *graph, dtp_merged *result);
void dtp_finish(dtp_graph *graph, dtp_merged *result);
/* Give the names of `graph->parsed`, whose places are in `base`, the graph's numbers; then apply its ops. `overlap`: a part of
 * them was seen, so those on entries whose dot was are left out (for registers a second time is harmless). */
int dtp_map_authors(dtp_graph *graph, uint32_t author); /* those that the frame lists; `author` is its own */
int dtp_map_names(dtp_graph *graph, const uint8_t *base);
int dtp_apply_parsed(dtp_graph *graph, int overlap);
int dtp_merge_parsed(dtp_graph *graph, uint32_t author, int overlap); /* all three, of a frame of `author` */
/* Have the frame that was just parsed wait; DTP_E_LIMIT when too many of the author's do. */
int dtp_defer(dtp_graph *graph, uint32_t author, const uint8_t *body, size_t length);

/* who may do what (graph/access.c) */
/* Every edit of a text or a list in the frame `p` must be changes of this author alone: DTP_OK, or DTP_E_FORMAT with the place in
 * `body`. */
int dtp_check_edits(const dtp_parsed *p, const uint8_t *author, const uint8_t *body, size_t *place);
/* Return whether an op of the author, as it is parsed, counts only if somebody lets it in: its soul is another's, or under rules. */
int dtp_needs_verdict(const dtp_author *author, const dtp_parsed *p, const dtp_op *op);
/* Return whether ops of `graph->parsed` need verdicts, which the caller has asked for. */
int dtp_is_ruled(const dtp_graph *graph, uint32_t author);
/* Return whether one of them is of a list before format 4. */
int dtp_has_ruled_list(const dtp_graph *graph, uint32_t author);
/* Give them their verdicts; DTP_E_RULED when they need some and there are none. */
int dtp_take_verdicts(dtp_graph *graph, uint32_t author);

/* orders (graph/sort.c): below 0, 0, above 0 */
typedef int (*dtp_order)(const dtp_graph *graph, uint32_t a, uint32_t b);
void dtp_sort(const dtp_graph *graph, uint32_t *items, uint32_t *scratch, size_t count, dtp_order order);
int dtp_name_order(const dtp_graph *graph, uint32_t a, uint32_t b);
int dtp_author_order(const dtp_graph *graph, uint32_t a, uint32_t b);
int dtp_slot_order(const dtp_graph *graph, uint32_t a, uint32_t b);
int dtp_entry_order(const dtp_graph *graph, uint32_t a, uint32_t b);
int dtp_deferred_order(const dtp_graph *graph, uint32_t a, uint32_t b);

/* writing (graph/encode.c) */
int dtp_buffer_reserve(dtp_buffer *buffer, size_t more);
int dtp_buffer_put(dtp_buffer *buffer, const void *bytes, size_t length);
int dtp_buffer_varint(dtp_buffer *buffer, uint64_t value);
/* MessagePack, shortest forms. */
int dtp_pack_array(dtp_buffer *buffer, size_t count);
int dtp_pack_map(dtp_buffer *buffer, size_t count);
int dtp_pack_uint(dtp_buffer *buffer, uint64_t value);
int dtp_pack_text(dtp_buffer *buffer, const uint8_t *text, size_t length);
int dtp_pack_bin(dtp_buffer *buffer, const uint8_t *bytes, size_t length);
/* Write ops, whose numbers are the graph's and whose values and positions are in `ops->bytes`, as a frame of `author`,
 * or (DTP_NONE) as a chunk of a state. */
int dtp_encode(dtp_graph *graph, const dtp_parsed *ops, uint32_t author, dtp_buffer *out);

#endif
