/* crdt_text.h - the text type of the C core: a replicated sequence of characters.
 *
 * Read by the C compiler, by cffi (beside dtp.h, in the same way) and by you. docs/text.md is the specification of the
 * order, the messages and the saved form; the names are its names.
 *
 * Unlike the rest of the core a text owns its memory, which is counted and can be capped. Positions and lengths are in
 * code points unless a name says otherwise. A function that fails returns a negative dtp_text_code and leaves the text
 * as it was, but for dtp_text_merge, which says what it had done. A text may move between threads, and two threads that
 * call at once get DTP_TEXT_BUSY rather than a broken text.
 */
#ifndef DTP_CRDT_TEXT_H
#define DTP_CRDT_TEXT_H

#include <stddef.h>
#include <stdint.h>

typedef enum dtp_text_code {
    DTP_TEXT_OK = 0,
    DTP_TEXT_BUSY = -64,      /* another thread is inside this text */
    DTP_TEXT_MEMORY = -65,    /* the allocator, or the cap on memory, refused; nothing was done */
    DTP_TEXT_RANGE = -66,     /* a position is behind the end, or a count goes beyond it */
    DTP_TEXT_UTF8 = -67,      /* not UTF-8 as RFC 3629 has it */
    DTP_TEXT_FORMAT = -68,    /* a message, version or saved text is malformed; `at` tells where */
    DTP_TEXT_REFERENCE = -69, /* an operation refers to something that is no character */
    DTP_TEXT_STALE = -70,     /* an operation refers to a character that was compacted away */
    DTP_TEXT_PENDING = -71,   /* too much waits for operations that are missing; the message was not taken */
    DTP_TEXT_FULL = -72,      /* an author's numbers, the authors, the characters or the tree's depth have come to their end */
    DTP_TEXT_UNSEEN = -73,    /* a version names operations that this text does not have */
    DTP_TEXT_DIVERGED = -74,  /* a saved text can't replace one that has operations of its own */
    DTP_TEXT_GONE = -75       /* this character was compacted away, or was never here */
} dtp_text_code;

enum dtp_text_size {
    DTP_TEXT_AGENT = 64,            /* bytes of an author's name, at most; at least 1 */
    DTP_TEXT_AGENTS = 1048575,      /* authors of one text, at most */
    DTP_TEXT_SEQUENCE = 2147483647, /* operations of one author, and characters of one text, fewer than this */
    DTP_TEXT_MARK_NAME = 255,       /* bytes of a mark's name, at most; at least 1 */
    DTP_TEXT_MARK_VALUE = 16384,    /* bytes of its value, at most */
    DTP_TEXT_CHANGES = 0xd1,        /* first byte of a message: changes, version 1 */
    DTP_TEXT_STATE = 0xd2,          /* first byte of a message: a state with changes, version 1 */
    DTP_LIST_CHANGES = 0xd3,        /* the same of lists */
    DTP_LIST_STATE = 0xd4
};

/* One change of the visible text, in terms of the text as the changes before it left it. */
typedef struct dtp_text_patch {
    uint32_t position;
    uint32_t deleted;  /* characters taken away at `position` ... */
    uint32_t inserted; /* ... and characters put there instead, */
    uint32_t bytes;    /* in UTF-8, which stand behind those of the patches before */
} dtp_text_patch;

/* What can be read of a text without a call; only to be read. */
typedef struct dtp_text_state {
    uint64_t length;   /* characters */
    uint64_t bytes;    /* in UTF-8 */
    uint64_t utf16;    /* in UTF-16 code units */
    uint64_t memory;   /* bytes allocated for this text, all told */
    uint64_t cap;      /* on `memory`; 0: none. May be written */
    uint64_t deleted;  /* characters that are deleted and still held */
    uint64_t waiting;  /* operations that wait for others */
    uint64_t waiting_bytes; /* their memory */
    uint64_t waiting_cap;   /* on it. May be written */
    uint64_t next;     /* number of the next operation made here */
    uint64_t undos;    /* steps that can be undone */
    uint64_t redos;    /* steps that can be redone */
    uint64_t depth;    /* steps kept to be undone; 0: none. May be written before the first edit */
    uint64_t at;       /* after DTP_TEXT_FORMAT, _REFERENCE, _STALE: offset of the fault in the input */
    uint64_t merged;   /* by the last dtp_text_merge: operations that were new and took effect */
    uint64_t patch_count; /* what the last merge, undo or redo changed, ... */
    const struct dtp_text_patch *patches;
    const uint8_t *patch_text; /* ... and the text that it inserted */
    uint64_t taken;    /* number of the first own operation that dtp_text_take gives. May be raised, up to `next` */
    uint64_t refused;  /* operations that had waited, and then referred to no character: thrown away */
    uint64_t searched; /* by the last dtp_text_merge: nodes looked at to find places among siblings */
} dtp_text_state;

/* The place of a character for good: its author as an index of this replica, and its number. */
typedef struct dtp_text_id {
    uint32_t agent;
    uint32_t seq;
} dtp_text_id;

typedef struct dtp_text dtp_text;

/* Return an empty text of which this replica writes as `agent`; `seed`: 16 random bytes for the table of authors. NULL: no memory,
 * or `size` out of range. */
dtp_text *dtp_text_new(const uint8_t *agent, size_t size, const uint8_t *seed);
void dtp_text_free(dtp_text *text); /* NULL is fine */
dtp_text_state *dtp_text_look(dtp_text *text); /* valid as long as the text */

/* ---- editing: each call is an operation of this replica -------------------------------------------------- */

int dtp_text_insert(dtp_text *text, uint64_t position, const uint8_t *utf8, size_t size);
int dtp_text_delete(dtp_text *text, uint64_t position, uint64_t count);

/* `count` edits, each three numbers: position, characters to delete there, bytes of `utf8` to insert there. What fails
 * stops it: `*done` edits took place. */
int dtp_text_edit(dtp_text *text, const uint64_t *edits, size_t count, const uint8_t *utf8, size_t size,
                  size_t *done);

/* End the current undo step: the next edit begins another. While `open` is not 0, all edits are one step. */
int dtp_text_step(dtp_text *text, int open);
int dtp_text_undo(dtp_text *text); /* 1: undone, and the patches tell what changed; 0: nothing to undo */
int dtp_text_redo(dtp_text *text);

/* ---- reading --------------------------------------------------------------------------------------------- */

/* Return bytes of the characters [start, end). */
int64_t dtp_text_measure(dtp_text *text, uint64_t start, uint64_t end);
/* Copy them; `capacity` must be what was measured. */
int64_t dtp_text_read(dtp_text *text, uint64_t start, uint64_t end, uint8_t *out, size_t capacity);

enum dtp_text_unit { DTP_TEXT_POINTS = 0, DTP_TEXT_UTF8_BYTES = 1, DTP_TEXT_UTF16_UNITS = 2 };
/* Return the same place in another unit; one inside a character counts as its beginning. */
int64_t dtp_text_convert(dtp_text *text, uint64_t position, int from, int to);

/* ---- places that stay with their text -------------------------------------------------------------------- */

/* Return the character at `position`. */
int dtp_text_identify(dtp_text *text, uint64_t position, dtp_text_id *id);
/* Return where it was made: characters before it; +2^62 when it is deleted. DTP_TEXT_GONE. */
int64_t dtp_text_position(dtp_text *text, dtp_text_id id);
/* Return the same of where an element of a list was moved to. */
int64_t dtp_list_position(dtp_text *text, dtp_text_id id);
/* The name of an author, copied to `out` (DTP_TEXT_AGENT bytes); its length, or DTP_TEXT_GONE. */
int dtp_text_agent_name(dtp_text *text, uint32_t agent, uint8_t *out);
/* Return the index of an author, or DTP_TEXT_GONE. */
int64_t dtp_text_agent_find(dtp_text *text, const uint8_t *name, size_t size);

/* ---- replicating ----------------------------------------------------------------------------------------- */

/* Merge messages, one behind the other. Their form is checked as a whole before anything is done. With `patches` != 0
 * the state tells what changed. DTP_TEXT_REFERENCE and DTP_TEXT_STALE: the operations before the one at `at` are merged,
 * what is behind it is not. */
int dtp_text_merge(dtp_text *text, const uint8_t *data, size_t size, int patches);

/* Return whether all operations of these messages of changes are merged: 1 or 0, or DTP_TEXT_FORMAT, DTP_TEXT_MEMORY. */
int dtp_text_has(dtp_text *text, const uint8_t *data, size_t size);

/* Encoders: the length, and `*out` is memory of the text until the next call. */
int64_t dtp_text_version(dtp_text *text, const uint8_t **out);
/* Return what a replica at `version` (encoded; size 0: an empty one) lacks. Empty when it lacks nothing. */
int64_t dtp_text_changes(dtp_text *text, const uint8_t *version, size_t size, const uint8_t **out);
/* The own operations from the state's `taken` to before number `stop`. The caller sets `taken` once it has kept them. */
int64_t dtp_text_take(dtp_text *text, uint64_t stop, const uint8_t **out);
/* Return the operations [first, end) of the author of this name, those of characters that are deleted now without their text.
 * Empty when they aren't all here, or are compacted. */
int64_t dtp_text_changes_of(dtp_text *text, const uint8_t *name, size_t size, uint32_t first, uint32_t end,
                            const uint8_t **out);

void dtp_text_discard(dtp_text *text); /* give back the memory behind `*out` */

/* Forget what only a replica that lacks some of `stable` (an encoded version) would need; see docs/text.md for the
 * conditions. The number of characters forgotten. */
int64_t dtp_text_compact(dtp_text *text, const uint8_t *stable, size_t size);
/* For tests: every promise that the structures make to each other. DTP_TEXT_OK, or the line that found a fault. */
int dtp_text_check(dtp_text *text);

/* ---- marks ------------------------------------------------------------------------------------------------- */

enum dtp_text_expand {
    DTP_TEXT_EXPAND_NONE = 0,
    DTP_TEXT_EXPAND_BEFORE = 1, /* what is inserted right before the marked characters is marked, too */
    DTP_TEXT_EXPAND_AFTER = 2   /* the same of what is inserted right behind them */
};

/* Mark characters [start, end): `value` is one value in MessagePack (docs/graph.md, "Values"), nil takes the mark away. Of two
 * marks of one name over a character the one with the higher stamp holds, then the one of the greater author. The stamp is
 * `now`, or above all that are here. DTP_TEXT_FORMAT: `at` is 0 when the name is at fault, 1 when the value is. */
int dtp_text_mark(dtp_text *text, uint64_t start, uint64_t end, const uint8_t *name, size_t name_size,
                  const uint8_t *value, size_t value_size, unsigned expand, uint64_t now);

/* Return what marks characters [start, end): four numbers of 32 bits (whether what is not told here is not marked any more,
 * pieces, marks, names), for each piece its start, its end and its mark; for each mark the lengths of its name and its value, and
 * these; for each name its length and itself. Pieces are by start. The length; `*out` as of the encoders. */
int64_t dtp_text_marked(dtp_text *text, uint64_t start, uint64_t end, const uint8_t **out);
/* In the same form what the last merge with patches, undo or redo changed, in the text as it is after the patches. */
int64_t dtp_text_formats(dtp_text *text, const uint8_t **out);

/* ---- lists ------------------------------------------------------------------------------------------------- */

/* A list is a text whose characters are elements: values in MessagePack (docs/graph.md, "Values"), which can be moved and
 * assigned. All functions above but those for editing, reading and units take it too; nothing of it can be undone. Of two
 * moves, or assignments, of one element the one with the higher stamp holds, then the one of the greater author. */
dtp_text *dtp_list_new(const uint8_t *agent, size_t size, const uint8_t *seed);
/* Insert values, one behind the other in `values`, before the element at `position`. DTP_TEXT_FORMAT: `at` is the place. */
int dtp_list_insert(dtp_text *list, uint64_t position, const uint8_t *values, size_t size);
int dtp_list_delete(dtp_text *list, uint64_t position, uint64_t count);
/* Move an element so that it is at `to` then. The stamp is `now`, or above all that are here. */
int dtp_list_move(dtp_text *list, uint64_t from, uint64_t to, uint64_t now);
int dtp_list_assign(dtp_text *list, uint64_t position, const uint8_t *value, size_t size, uint64_t now);
/* Return the element at `position`: who inserted it, under which number. */
int dtp_list_identify(dtp_text *list, uint64_t position, dtp_text_id *id);
/* An element that isn't deleted: where it stands, and what says so, a marker or its own insertion; the same of its value. */
typedef struct dtp_list_standing {
    uint64_t position;
    dtp_text_id place, value;
} dtp_list_standing;
/* DTP_TEXT_GONE for one that is deleted, or not here. */
int dtp_list_look(dtp_text *list, dtp_text_id element, dtp_list_standing *found);
/* Return whether `x` is behind `y` in the order of all that was inserted, also of what is deleted: 1 or 0, or DTP_TEXT_GONE. */
int dtp_list_behind(dtp_text *list, dtp_text_id x, dtp_text_id y);
/* Return what messages of changes write and touch: cells (a length as a varint, and so many bytes), count[0] of values and then
 * count[1] of names of agents whose elements are moved, assigned or deleted. `out` has room for 2 * size bytes. The length,
 * DTP_TEXT_FORMAT or DTP_TEXT_MEMORY. */
int64_t dtp_list_facts(const uint8_t *data, size_t size, uint8_t *out, size_t count[2]);
/* Values of the elements [start, end), one behind the other: the length; `*out` as of the encoders. */
int64_t dtp_list_read(dtp_text *list, uint64_t start, uint64_t end, const uint8_t **out);

#endif
