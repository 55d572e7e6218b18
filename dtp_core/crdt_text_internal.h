/* crdt_text_internal.h - what the files of the text type know of each other. docs/text.md has the words.
 *
 * The characters of all time, deleted ones too unless compacted away, stand in one order. They are held as spans:
 * neighbours of one author with consecutive numbers that are all visible or all deleted. Spans are the leaves of a
 * B+ tree that counts visible characters; an index per author leads from a number to its leaf; a log per author has
 * the operations as runs. */
#ifndef DTP_CRDT_TEXT_INTERNAL_H
#define DTP_CRDT_TEXT_INTERNAL_H

#include "crdt_text_types.h"

/* ---- text/memory.c: memory, counted ----------------------------------------------------------------- */

void *text_take(dtp_text *t, size_t size); /* NULL: none, or above the cap */
void text_give(dtp_text *t, void *memory, size_t size);
int text_grow(dtp_text *t, void *array, size_t *room, size_t needed, size_t item); /* array: address of the pointer */
int bytes_reserve(dtp_text *t, bytes *b, size_t more);
void bytes_free(dtp_text *t, bytes *b);
/* Nodes for `leaves` splits of leaves on one path, and chunks for `chunks` new ones. */
int spare_reserve(dtp_text *t, size_t leaves, size_t chunks);
leaf *spare_leaf(dtp_text *t);
branch *spare_branch(dtp_text *t);
chunk *spare_chunk(dtp_text *t);
void chunk_return(dtp_text *t, chunk *c);
void spares_free(dtp_text *t);

/* ---- text/utf8.c ------------------------------------------------------------------------------------ */

/* Characters in valid UTF-8, or -1. The weight is theirs. */
int64_t utf8_count(const uint8_t *text, size_t size, weight *w);
/* The same where marks may stand between them, each as one: *marked of them, and *newest becomes their highest stamp. */
int64_t prose_count(const uint8_t *text, size_t size, weight *w, uint64_t *marked, uint64_t *newest);
/* Bytes of the first `count` characters of valid UTF-8; their weight is added up in *w if not NULL. */
size_t utf8_skip(const uint8_t *text, size_t count, weight *w);

#include "crdt_text_marks.h" /* of the types above */

/* ---- text/tree.c: spans in order -------------------------------------------------------------------- */

int tree_init(dtp_text *t);
void tree_free(dtp_text *t);
/* The character at a visible position below the length. */
place tree_find(dtp_text *t, uint32_t position);
/* Visible characters before a place. */
uint32_t tree_rank(const dtp_text *t, const place *p);
weight leaf_weight(const dtp_text *t, const leaf *l);
/* Which of two places is first: < 0, 0, > 0. */
int tree_compare(const place *p, const place *q);
/* The span behind spans[i], or the one before it: 0 when there is none. */
int tree_next(place *p);
int tree_previous(place *p);
/* Memory for putting `spans` spans of `who` into this leaf, and what they need in the index. */
int tree_reserve(dtp_text *t, leaf *l, uint32_t who, size_t spans);
/* Put a span before spans[p->i]; p then leads to it. Its text must be counted by the caller; its index entry is made. */
void tree_put(dtp_text *t, place *p, span s);
void tree_count(dtp_text *t, leaf *l, weight w);
/* A parting in this leaf became so small; or partings became greater. */
void tree_lower(leaf *l, uint32_t parting);
void tree_parted(leaf *l);
/* All partings changed. */
void tree_parted_all(dtp_text *t);
/* Make p->off the beginning of a span (spans[p->i + 1], off 0) when it isn't; reserved before. */
void tree_split(dtp_text *t, place *p);
/* Whether y, right behind x, may be one span with it, apart from where the text is. What is a left child begins one. */
int spans_join(const span *x, const span *y);
/* Bytes and weight of [off, off + len) of a visible span, and where they are. */
const uint8_t *span_text(const dtp_text *t, const span *s, uint32_t off, uint32_t len, weight *w);
/* Make [off, off + len) of a visible span deleted; reserved before (2 spans). */
void tree_kill(dtp_text *t, place p, uint32_t len);
/* Make a visible character hidden (reserved: 2 spans, unless it is a marker), and a hidden one visible. */
void tree_hide(dtp_text *t, place p);
void tree_show(dtp_text *t, place p);
/* New tree, index and pool, packed: without the spans marked DROP. */
int tree_rebuild(dtp_text *t);

/* ---- text/index.c: authors, logs, numbers -> leaves ------------------------------------------------- */

int64_t agent_intern(dtp_text *t, const uint8_t *name, size_t size); /* index or a code */
int64_t agent_lookup(dtp_text *t, const uint8_t *name, size_t size); /* index or DTP_TEXT_GONE */
void agents_free(dtp_text *t);
/* Room for the chunks that `puts` more index_put can make, and so many beyond. */
int index_reserve(dtp_text *t, agent *a, size_t puts);
void index_put(dtp_text *t, uint32_t who, uint32_t seq, uint32_t len, leaf *l);
void index_free(dtp_text *t, agent *a);
/* Where a character is: 0 when there is none of this number. */
int locate(dtp_text *t, id x, place *p);
/* For a number below the base that no character has: a greater one, with none between that has. */
uint32_t index_next(const dtp_text *t, id x);
/* DTP_TEXT_OK: a character (or, below the base, once one); 1: not known yet; DTP_TEXT_REFERENCE. */
int is_character(dtp_text *t, id x, uint32_t len);
/* The end of the range of deleted characters that `seq` is in; `seq` if none is known. */
uint32_t dead_end(const agent *a, uint32_t seq);
/* Note that all characters from `first` to before `end` are deleted, if they are enough to be worth it. */
void dead_note(dtp_text *t, agent *a, uint32_t first, uint32_t end);
void dead_forget(dtp_text *t, agent *a);
/* See that t->order is complete. */
int agents_sorted(dtp_text *t);
int agent_before(const dtp_text *t, uint32_t x, uint32_t y);

/* ---- text/log.c: operations of an author ------------------------------------------------------------ */

run log_run(agent *a, size_t i);
/* The run that has this number; base <= seq < next. */
size_t log_find(agent *a, uint32_t seq);
/* Room for so many more runs, of which one may be an insertion. */
int log_reserve(dtp_text *t, agent *a, size_t more);
/* Append an operation of `len` numbers at a->next, joined to the last run where it continues it. Reserved: 2. */
void log_append(agent *a, uint32_t self, run op, uint32_t len);
/* Take out the operations below `stable`, which is above the base and becomes it; reserved. */
void log_shorten(agent *a, uint32_t self, uint32_t stable);
void log_pack(dtp_text *t, agent *a);
void log_free(dtp_text *t, agent *a);

/* ---- text/depth.c: how deep characters are in their tree, and where its branches begin and end ------- */

/* How many characters are above this one in the tree; 0 for those that are compacted. */
uint32_t depth_at(dtp_text *t, const place *p);
/* The parting between a character and the one before it. */
uint32_t parting_at(dtp_text *t, const place *p);
/* The first slot from `from` on of a node whose least parting is at most `most`: the count if there is none. */
uint32_t parting_slot(dtp_text *t, const node *n, uint32_t from, uint32_t most);
/* The first character, in this slot of a node, before which the parting is at most `most`; there is one. */
place parting_first(dtp_text *t, node *n, uint32_t slot, uint32_t most);
/* Move *p to the first character behind it before which the parting is at most `most`: 0 when there is none. */
int parting_next(dtp_text *t, place *p, uint32_t most);
/* The same backwards, from the beginning of a span to that of one. */
void parting_previous(dtp_text *t, place *p, uint32_t most);
/* Tell from the logs where all runs are in the tree, for which memory is reserved: DTP_TEXT_FULL, too deep. */
int levels_reserve(dtp_text *t);
int levels_tell(dtp_text *t);
void levels_free(dtp_text *t);
/* Set all partings by that, or say whether they are right, and the order possible. */
void partings_set(dtp_text *t);
int partings_agree(dtp_text *t);

/* ---- text/order.c: the order of characters ---------------------------------------------------------- */

/* Where this replica puts characters at a visible position, as an operation. The place may need a split. */
void order_local(dtp_text *t, uint32_t position, run *op, place *p);
/* Where an insertion goes; its parent and right origin are known to be here, else DTP_TEXT_STALE. */
int order_remote(dtp_text *t, uint32_t who, const run *op, place *p);
/* Put `len` characters of agent `who`, from its next number on, and log it. `p` as order_* gave it. Atomic. */
int order_insert(dtp_text *t, uint32_t who, run op, uint32_t len, const uint8_t *text, size_t size, int dead,
                 place p);
/* Append characters that are in the log, and whose depth is told later. `flags`: DEAD, MARKER, LEFT and RIGHT. */
int order_append(dtp_text *t, uint32_t who, uint32_t seq, uint32_t len, uint32_t flags, const uint8_t *text,
                 size_t size);
/* The first held character in [x, end) of an author and its place: `end` when there is none. */
uint32_t next_held(dtp_text *t, id x, uint32_t end, place *p);
/* What made a character: its side, parent and right origin. 0: it is compacted, so older than all that can be met. */
int family(dtp_text *t, id x, run *f);
/* Delete a range of characters that are known to be, by an operation of `who`, and log it. */
int order_delete(dtp_text *t, uint32_t who, run op, uint32_t len);

/* ---- text/edit.c ------------------------------------------------------------------------------------ */

int text_enter(dtp_text *t); /* 0: another thread is in it */
void text_leave(dtp_text *t);
void text_clear(dtp_text *t); /* give back all but the text itself */
void patches_clear(dtp_text *t);
void patch_insert(dtp_text *t, uint32_t position, const uint8_t *text, size_t size, uint32_t len);
void patch_delete(dtp_text *t, uint32_t position, uint32_t len);
/* Take over the patches of the text that `t` is to replace. */
void patches_copy(dtp_text *t, const dtp_text *from);
/* Append all that is visible, a list's as cells of its values. */
int patch_read_all(dtp_text *t, bytes *b);
/* Instead of all patches one that replaces what was there, `before` characters, by what is there. */
void patch_whole(dtp_text *t, uint32_t before);

/* Insert and write it into `h`, if not NULL, which is reserved. */
int insert_noted(dtp_text *t, history *h, uint32_t position, const uint8_t *utf8, size_t size, uint32_t len);
/* Memory for deleting visible characters. */
int reserve_delete_here(dtp_text *t, history *h, uint32_t position, uint32_t count);
/* Delete visible characters, which is reserved, with their text into `h`, if not NULL. */
void delete_noted(dtp_text *t, history *h, uint32_t position, uint32_t count);

/* ---- text/undo.c ------------------------------------------------------------------------------------ */

enum { INSERTED = 0, DELETED = 1, MARKED = 2 }; /* kinds of entry */

void history_free(dtp_text *t, history *h);
int history_reserve(dtp_text *t, history *h, size_t entries, size_t size);
/* Own characters from `seq` on came. */
void note_inserted(history *h, uint32_t seq, uint32_t len);
/* Characters went by own operation `when`: those from `first` on, at position `at`. `joined`: with the entry before. */
void note_deleted(history *h, uint32_t when, uint32_t at, id first, uint32_t len, const uint8_t *text, size_t size,
                  int joined);
/* An own mark came, which replaced what is in the last `size` bytes of the history's text already. */
void note_marked(history *h, id x, size_t size);
/* Begin a step unless this edit goes on where the last one stopped. */
void step_for(dtp_text *t, uint32_t kind, uint64_t position, uint64_t count);
/* The first character that is still there for which `x` was put back, time and again; `x` itself if it never was. *count
 * becomes how many from `x` on, of that many, were put back along with it. */
id text_origin(dtp_text *t, id x, uint32_t *count);

/* ---- text/wire.c: the form of messages -------------------------------------------------------------- */

enum {
    OP_INSERT = 0, OP_VOID = 1, OP_DELETE = 2, OP_END = 3, OP_KIND = 3,
    OP_OTHER_WAY = 4, /* a left child; a deletion downwards */
    OP_MARKER = 7, /* before the insertion of a list's marker */
    OP_REF_PREVIOUS = 0, OP_REF_OWN = 1, OP_REF_OTHER = 2, OP_REF_NONE = 3,
    OP_A = 3, /* shift of the reference to the parent or the first one deleted */
    OP_RIGHT_END = 0, OP_RIGHT_OWN = 1, OP_RIGHT_OTHER = 2, OP_RIGHT_SAME = 3,
    OP_B = 5, /* shift of the right origin */
    OP_ONE = 128,
    SPAN_DEAD = 1, SPAN_LEFT = 2, SPAN_RIGHT = 4, SPAN_REF = 3, SPAN_ONE = 128,
    SPAN_ON = 0, SPAN_OWN = 1, SPAN_OTHER = 2
};

/* A message whose form was checked: where its parts are. Authors are indexes into its own table. */
typedef struct message {
    dtp_reader names;  /* of `agents` names */
    dtp_reader bases;  /* of a state: `agents` numbers, then the count of spans and the spans */
    dtp_reader groups;
    const uint8_t *text;
    size_t text_size;
    const uint8_t *end;
    uint64_t newest; /* stamp of a marker in it */
    uint64_t marks;  /* markers in a text's */
    uint32_t agents;
    int state;
    int list;
    int ascii;
} message;

typedef struct wire_op {
    run op;
    uint32_t len;
    int dead;
    int end; /* of the group */
} wire_op;

/* Reads the operations of a group. */
typedef struct group {
    dtp_reader r;
    uint32_t agents;
    uint32_t self;
    uint32_t seq;
    id right;
    int any; /* insertions so far */
} group;

typedef struct wire_span {
    uint32_t agent;
    uint32_t seq;
    uint32_t len;
    uint32_t flags;
} wire_span;

/* Check the form of the message at r->at, which is behind it then. DTP_TEXT_FORMAT: r->at is the place. */
int wire_check(dtp_reader *r, message *m);
int wire_name(dtp_reader *r, const uint8_t **name, size_t *size);
int wire_number(dtp_reader *r, uint64_t limit, uint32_t *value);
int wire_group(group *g); /* 1: one begins; 0: no more; DTP_TEXT_FORMAT */
int wire_operation(group *g, wire_op *w);
int wire_base_span(dtp_reader *r, uint32_t agents, const wire_span *before, wire_span *s);

/* This replica's numbers of a checked message's authors, by agent_intern or agent_lookup, into t->locals: NOBODY for those
 * that it doesn't know. In text/index.c. */
int names_read(dtp_text *t, const message *m, int64_t number_of(dtp_text *, const uint8_t *, size_t));

/* ---- text/encode.c ---------------------------------------------------------------------------------- */

/* An encoded version into the agents' marks. `strict`: DTP_TEXT_UNSEEN when it names what isn't here. */
int version_read(dtp_text *t, const uint8_t *version, size_t size, int strict);
/* What dtp_text_version does. */
int64_t version_write(dtp_text *t, const uint8_t **out);

/* ---- text/check.c -------------------------------------------------------------------------------------- */

/* Tell the depths of all characters, from the logs. DTP_TEXT_FORMAT: their order isn't possible by what those say, or some
 * are missing. */
int logs_agree(dtp_text *t);

/* ---- text/compact.c ------------------------------------------------------------------------------------ */

/* Give back the room of an array (`array`: address of the pointer) beyond its items. */
void array_pack(dtp_text *t, void *array, size_t *room, size_t count, size_t item);
/* The same for all that grows with operations, and what is held for markers that were deleted. */
void arrays_pack(dtp_text *t);

/* ---- text/wait.c ------------------------------------------------------------------------------------ */

enum { WAITS = 1 }; /* instead of a code: the operation was put aside */

/* Put an operation aside until the author `lack.agent` has made `lack.seq`. */
int wait_put(dtp_text *t, uint32_t who, const wire_op *op, const uint8_t *text, size_t size, id lack);
/* Put one that was taken out aside once more, or free it, where one that says as much waits. */
void wait_hang(dtp_text *t, waiting *w, id lack);
/* Put one that was taken out of those that wait for this author back, to be taken next time. */
void wait_back(dtp_text *t, waiting *w, uint32_t on);
/* Take out the first of a treap that needs no more than `made`; NULL: there is none. */
waiting *wait_first(waiting **at, uint32_t made);
/* Take out one that can do something now that the author has made as many as it has; NULL: there is none. */
waiting *wait_take(agent *a);
void wait_free(dtp_text *t, waiting *w);
void waits_free(dtp_text *t);

/* ---- text/merge.c ------------------------------------------------------------------------------------- */

/* Apply all that waits as far as it can be. What it deletes is gone already, but how many operations each author has made
 * is only right behind this: call it before that is told. Only memory can fail. */
int waits_settle(dtp_text *t);

#endif
