/* crdt_text_internal.h - what the files of the text type know of each other. docs/text.md has the words.
 *
 * The characters of all time, deleted ones too unless compacted away, stand in one order. They are held as spans:
 * neighbours of one author with consecutive numbers that are all visible or all deleted. Spans are the leaves of a
 * B+ tree that counts visible characters; an index per author leads from a number to its leaf; a log per author has
 * the operations as runs. */
#ifndef DTP_CRDT_TEXT_INTERNAL_H
#define DTP_CRDT_TEXT_INTERNAL_H

#include "crdt.h"
#include "crdt_text.h"

enum {
    LEAF = 32,        /* spans in a leaf, at most */
    FANOUT = 32,      /* children of a branch, at most */
    CHUNK = 16,       /* entries in a chunk of an index, at most */
    WIDE_SPAN = 512,  /* characters of a span that aren't all ASCII, at most: to find one of them is a scan */
    SLAB = 64,        /* bytes kept free behind what an author wrote last, so that typing goes on in one piece */
    AGENT_MASK = 0xfffff,
    NOBODY = 0xfffff, /* the author of no character: the beginning as a parent, the end as a right origin */
    DEAD = 1 << 20,   /* not visible: deleted, unless HIDDEN */
    LEFT = 1 << 21,   /* the first character has left children */
    RIGHT = 1 << 22,  /* the last character has right children that aren't the rest of this span */
    WIDE = 1 << 23,   /* not all of it is ASCII */
    HIDDEN = 1 << 27, /* DEAD, but not deleted: its bytes are held, and a list's may show again. One element */
    MARKER = 1 << 28, /* one that is no value, or character, but says something of others; not deleted */
    LEFT_CHILD = 1 << 30, /* the first character is a left child, and not compacted */
    /* Only while compacting: */
    DROP = 1 << 24,
    SETTLED = 1 << 25, /* deleted by a stable operation */
    NEEDED = 1 << 26,  /* an operation that isn't stable refers to it */
    PINNED = 1 << 29,  /* a mark that is held begins or ends there */
    FLAGS = DEAD | LEFT | RIGHT | WIDE | HIDDEN | MARKER | LEFT_CHILD
};

typedef dtp_text_id id;

typedef struct span {
    uint32_t who;  /* author and flags */
    uint32_t seq;  /* number of the first character */
    uint32_t len;
    uint32_t text; /* where the first character is in the pool; 0 when deleted */
    uint32_t parting; /* between the character before it and its first one: see crdt_text_depth.c */
} span;

typedef struct branch branch;
typedef struct node {
    branch *parent;
    uint32_t slot; /* in the parent */
    uint16_t count;
    uint16_t level; /* 0: a leaf */
} node;

typedef struct leaf {
    node head;
    struct leaf *next;
    struct leaf *previous;
    span spans[LEAF];
} leaf;

/* Visible characters below each child, what they have beyond one byte and beyond one UTF-16 unit each, and the least
 * parting of its spans. */
struct branch {
    node head;
    node *child[FANOUT];
    uint32_t chars[FANOUT];
    uint32_t more8[FANOUT];
    uint32_t more16[FANOUT];
    uint32_t least[FANOUT];
};

/* Sums of visible text. Differences are added modulo 2^32. */
typedef struct weight {
    uint32_t chars;
    uint32_t more8;
    uint32_t more16;
} weight;

/* From numbers of one author to leaves: each entry holds from its number on until the next. */
typedef struct chunk {
    uint32_t count;
    uint32_t seq[CHUNK];
    leaf *where[CHUNK];
} chunk;

typedef struct chunk_at {
    chunk *chunk;
    uint32_t first; /* its first number */
} chunk_at;

enum { PATCHES_UNWANTED = 0, PATCHES_WANTED = 1, PATCHES_LOST = 2, PATCHES_WHOLE = 3 /* one, at the end */ };
enum { INSERT_RIGHT = 0, INSERT_LEFT = 1, DELETE_UP = 2, DELETE_DOWN = 3 };

/* Operations of one author with consecutive numbers. Insertions: the first character is a child of `a` on its side,
 * each further one a right child of the one before; all have the right origin `b`. Deletions: of `a` and those
 * above or below it, one per number. A run goes up to the next one, or to the author's `next`. */
typedef struct run {
    uint32_t seq;
    uint16_t kind;
    uint16_t marker; /* the insertion of a marker, which is a run by itself */
    id a;
    id b;
} run;

/* A run as its author's log holds it. */
typedef struct packed_run {
    uint32_t seq;
    uint32_t a_seq;
    uint32_t what; /* author of `a`, RUN_MARKER, RUN_ORIGIN, and the kind from RUN_KIND on */
} packed_run;

/* The right origin of the run that begins with a number, where it isn't what most of its kind have: the parent of a left
 * child, else the end of the text. What is appended has none. */
typedef struct origin {
    uint32_t seq;
    id b;
} origin;

enum { RUN_MARKER = 1 << 20, RUN_ORIGIN = 1 << 21, RUN_KIND = 22 };

/* An operation that waits until some author has made as many as it needs: in that author's treap, by what it needs. */
typedef struct waiting {
    struct waiting *left;
    struct waiting *right;
    uint32_t needs; /* of that author */
    uint32_t who;   /* made it */
    uint32_t rank;  /* by chance, above those of its children */
    run op;
    uint32_t len;
    uint32_t dead;
    uint32_t size; /* of `text` */
    uint8_t text[];
} waiting;

/* Where the first character of a run is in the tree, while depths are told anew. */
typedef struct level {
    uint32_t depth; /* 0: not known yet */
    uint32_t right; /* depth of the first above it, or of itself, that is no right child */
    uint32_t left;  /* of the first that is no left child */
    id at; /* the compacted character above it, if `right` is 1 or `left` 0 */
} level;

typedef struct dead_range {
    uint32_t first;
    uint32_t end;
} dead_range;

typedef struct agent {
    uint8_t *name;
    uint32_t size;
    uint32_t next;  /* number of its next operation */
    uint32_t base;  /* below it operations are compacted: characters are known, their place in the tree is not */
    uint32_t mark;  /* scratch of the encoders and of compaction */
    uint32_t local; /* scratch of the encoders: 1 + index in the message, 0: not in it */
    uint32_t slab;  /* where its next text goes in the pool, and ... */
    uint32_t slab_end;
    uint32_t tail;  /* ... 1 + the number of the character that ends there; 0: none */
    packed_run *runs;
    size_t run_hint; /* the run that was looked for last */
    size_t run_count;
    size_t run_room;
    origin *origins; /* of those runs that have RUN_ORIGIN, by number */
    size_t origin_hint; /* the one that was looked for last */
    size_t origin_count;
    size_t origin_room;
    uint32_t held;  /* the index has no character from this number on */
    chunk_at *chunks;
    size_t chunk_count;
    size_t chunk_room;
    dead_range *dead; /* its characters that are known to be deleted, in ranges that don't touch, by number */
    size_t dead_count;
    size_t dead_room;
    level *levels; /* of its runs, while depths are told anew */
    size_t level_room;
    waiting *waits;    /* operations that need more of its own */
    uint32_t is_ready; /* it is in `waiters` */
} agent;

/* Bytes that grow; their memory is the text's. */
typedef struct bytes {
    uint8_t *data;
    size_t size;
    size_t room;
} bytes;

/* What one edit did, to be undone. */
typedef struct entry {
    uint16_t deleted; /* INSERTED: own characters came, DELETED: characters went, MARKED: an own mark came */
    uint16_t joined;  /* went together with those of the entry before, to the right of them */
    id first;
    uint32_t len;
    uint32_t when; /* the first number of the operation */
    uint32_t at;   /* the position that the characters had */
    id place;      /* the character that they were at: `first`, or what stays of its gap */
    size_t size;   /* bytes of deleted text, or of what a mark replaced, at the end of those of the entries before */
} entry;

/* Own characters [seq, seq + len) stand for deleted ones that they brought back. */
typedef struct revival {
    id old;
    uint32_t seq;
    uint32_t len;
} revival;

typedef struct history {
    entry *entries;
    size_t count;
    size_t room;
    size_t *steps; /* where each begins in `entries` */
    size_t step_count;
    size_t step_room;
    bytes text;
} history;

/* A marker of a list that isn't deleted: it says of `element` where it is, or what. In a pairing heap with the others that
 * say the same of that element; the latest is on top. */
typedef struct marker {
    id element;
    id at; /* the marker itself */
    uint64_t stamp;
    uint32_t kind;
    uint32_t child; /* 1 + index in `markers`; 0: none */
    uint32_t next;
} marker;

/* An element of which markers speak. */
typedef struct list_element {
    id self;
    id shown;        /* where it is visible: itself or a marker; NOBODY: nowhere */
    uint32_t top[2]; /* 1 + marker, by kind; 0: none */
    uint32_t used;
} list_element;

typedef struct marks {
    marker *markers;
    size_t count;
    size_t room;
    uint32_t spare;  /* 1 + marker, chained through `next` */
    size_t held;     /* not spare */
    size_t stale;    /* deleted, and not yet taken out of their heaps */
    list_element *table;  /* by hash of `self` */
    size_t mask;     /* 0: no table */
    size_t elements;
    uint64_t newest; /* stamp of all markers that came, and whose it is */
    uint32_t newest_of;
} marks;

/* A mark of a text that isn't deleted. Where it starts and ends: at a character, or behind it with RICH_AFTER; at NOBODY
 * the end of the text, behind it the beginning. */
typedef struct rich_mark {
    id at;   /* the marker */
    id root; /* the mark that it gives back, as far as this replica knows: itself if none */
    id start;
    id end;
    uint64_t stamp;
    uint32_t name; /* in the table of names */
    uint32_t sides;
    uint32_t scratch;
} rich_mark;

/* What holds from one place to another. */
typedef struct rich_stretch {
    id start;
    id end;
    uint32_t mark;
    uint32_t far; /* the one that ends last, of the half, quarter, ... of the level in whose middle this is */
} rich_stretch;

typedef struct rich_level {
    rich_stretch *items;
    uint32_t *by_name; /* their places by name, then by start */
    size_t count;
    uint32_t newest; /* the last mark in it */
} rich_level;

/* A place in the order as numbers that compare as places do, as long as the tree doesn't change. */
typedef struct point {
    uint64_t high;
    uint64_t low;
} point;

/* A mark over something, while it is looked for. */
typedef struct rich_piece {
    point from;
    point to;
    id start;
    id end;
    uint32_t mark;
    uint32_t name;
    uint32_t order; /* by name, among those that hold */
} rich_piece;

typedef struct rich_name {
    uint64_t hash;
    size_t at; /* in `letters` */
    size_t size;
} rich_name;

/* Characters that came while patches were wanted. */
typedef struct rich_touched {
    id first;
    uint32_t len;
} rich_touched;

/* What deleted characters were marked with when an own operation deleted them. */
typedef struct rich_shown {
    uint32_t when; /* its number */
    uint32_t len;
    id first;
    id root; /* of the mark, */
    id at;   /* itself, */
    uint64_t stamp;
    uint32_t name;
    size_t value; /* and where its value is */
    size_t size;
} rich_shown;

enum { RICH_LEVELS = 48, ANY_NAME = UINT32_MAX };

typedef struct rich {
    rich_mark *marks;
    size_t count;
    size_t room;
    size_t indexed; /* so many are in levels */
    int deleted;    /* some are deleted, which the levels don't know */
    size_t useful;  /* as many held something when this was last looked at */
    uint64_t newest; /* the highest stamp of all that came, and whose it is */
    uint32_t newest_of;
    rich_level levels[RICH_LEVELS];
    size_t level_count;
    rich_name *names;
    size_t name_count;
    size_t name_room;
    uint32_t *table; /* of 1 + name by hash */
    size_t mask;
    bytes letters;
    rich_piece *found; /* scratch, and what was asked for */
    size_t found_count;
    size_t found_room;
    rich_piece *spare;
    size_t spare_room;
    size_t first_new; /* marks from here on came since the patches were cleared, ... */
    int late;         /* one of them below the stamp of another */
    int whole;        /* more changed than is told one by one */
    rich_touched *touched;
    size_t touched_count;
    size_t touched_room;
    rich_shown *shown; /* by `when` */
    size_t shown_count;
    size_t shown_room;
    bytes shown_values;
    uint32_t shown_since; /* what was deleted before this number is forgotten */
} rich;

struct dtp_text {
    dtp_text_state state;
    int is_list;
    marks marks;
    rich *rich; /* NULL until a mark comes */
    _Atomic int busy;
    uint64_t seed[2];
    agent *agents; /* [0] is this replica */
    size_t agent_count;
    size_t agent_room;
    uint32_t *table; /* of 1 + agent by hash of the name */
    size_t table_mask;
    uint32_t last_agent; /* that a name led to */
    node *root;
    leaf *first;
    leaf *last;
    leaf *hot;          /* where a position was found last ... */
    uint32_t hot_start; /* ... and the visible characters before that leaf */
    leaf *hint;         /* where a character was put or found last */
    uint32_t hint_i;
    uint8_t *pool; /* text of the spans */
    size_t pool_used;
    size_t pool_room;
    size_t garbage; /* bytes of the pool that no span uses */
    leaf *spare_leaves; /* by head.parent's place: chained through `next` */
    branch *spare_branches; /* chained through head.parent */
    chunk *spare_chunks;    /* chained through where[0] */
    size_t spare_leaf_count;
    size_t spare_branch_count;
    size_t spare_chunk_count;
    uint32_t *waiters; /* agents that have made more, and for whom operations wait; room for all that wait */
    size_t waiter_count;
    size_t waiter_room;
    history undo;
    history redo;
    revival *revivals; /* by number */
    size_t revival_count;
    size_t revival_room;
    int step_open;   /* edits join until closed */
    int step_ended;  /* the next edit begins a step */
    uint32_t step_kind; /* of the last edit: 0 inserted, 1 deleted */
    uint64_t step_at;   /* where it ended */
    int patching;       /* patches are wanted */
    dtp_text_patch *patches;
    size_t patch_count;
    size_t patch_room;
    bytes patch_text;
    bytes out;
    bytes body;
    bytes prose;
    bytes names;
    uint32_t *locals; /* scratch: agents of a message */
    size_t locals_room;
    uint32_t *order; /* agents by name, once asked for */
    size_t order_room;
    size_t order_count;
};

/* A character: spans[i] of a leaf, `off` characters into it. As a gap between spans: before spans[i], off == 0. */
typedef struct place {
    leaf *leaf;
    uint32_t i;
    uint32_t off;
} place;

static inline id make_id(uint32_t agent_number, uint32_t seq)
{
    id x;
    x.agent = agent_number;
    x.seq = seq;
    return x;
}

static inline int same_id(id x, id y)
{
    return x.agent == y.agent && x.seq == y.seq;
}

/* Deleted by operations, so that its bytes aren't held; what is merely hidden isn't. */
static inline int is_deleted(const span *s)
{
    return (s->who & (DEAD | HIDDEN)) == DEAD;
}

static inline uint32_t span_agent(const span *s)
{
    return s->who & AGENT_MASK;
}

static inline id span_id(const span *s, uint32_t off)
{
    return make_id(s->who & AGENT_MASK, s->seq + off);
}

static inline span *at_place(const place *p)
{
    return &p->leaf->spans[p->i];
}

/* The least parting before and within a span: within it that of its first two characters. */
static inline uint32_t span_least(const span *s)
{
    return (s->who & LEFT) != 0 && s->len > 1 ? s->parting & ~1u : s->parting;
}

static inline uint32_t run_end(const agent *a, size_t i)
{
    return i + 1 < a->run_count ? a->runs[i + 1].seq : a->next;
}

/* ---- crdt_text_memory.c: memory, counted ----------------------------------------------------------------- */

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

/* ---- crdt_text_utf8.c ------------------------------------------------------------------------------------ */

/* Characters in valid UTF-8, or -1. The weight is theirs. */
int64_t utf8_count(const uint8_t *text, size_t size, weight *w);
/* The same where marks may stand between them, each as one: *marked of them, and *newest becomes their highest stamp. */
int64_t prose_count(const uint8_t *text, size_t size, weight *w, uint64_t *marked, uint64_t *newest);
/* Bytes of the first `count` characters of valid UTF-8; their weight is added up in *w if not NULL. */
size_t utf8_skip(const uint8_t *text, size_t count, weight *w);

#include "crdt_text_marks.h" /* of the types above */

/* ---- crdt_text_tree.c: spans in order -------------------------------------------------------------------- */

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

/* ---- crdt_text_index.c: authors, logs, numbers -> leaves ------------------------------------------------- */

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

/* ---- crdt_text_log.c: operations of an author ------------------------------------------------------------ */

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

/* ---- crdt_text_depth.c: how deep characters are in their tree, and where its branches begin and end ------- */

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

/* ---- crdt_text_order.c: the order of characters ---------------------------------------------------------- */

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

/* ---- crdt_text_edit.c ------------------------------------------------------------------------------------ */

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

/* ---- crdt_text_undo.c ------------------------------------------------------------------------------------ */

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

/* ---- crdt_text_wire.c: the form of messages -------------------------------------------------------------- */

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
 * that it doesn't know. In crdt_text_index.c. */
int names_read(dtp_text *t, const message *m, int64_t number_of(dtp_text *, const uint8_t *, size_t));

/* ---- crdt_text_encode.c ---------------------------------------------------------------------------------- */

/* An encoded version into the agents' marks. `strict`: DTP_TEXT_UNSEEN when it names what isn't here. */
int version_read(dtp_text *t, const uint8_t *version, size_t size, int strict);
/* What dtp_text_version does. */
int64_t version_write(dtp_text *t, const uint8_t **out);

/* ---- crdt_text_check.c -------------------------------------------------------------------------------------- */

/* Tell the depths of all characters, from the logs. DTP_TEXT_FORMAT: their order isn't possible by what those say, or some
 * are missing. */
int logs_agree(dtp_text *t);

/* ---- crdt_text_compact.c ------------------------------------------------------------------------------------ */

/* Give back the room of an array (`array`: address of the pointer) beyond its items. */
void array_pack(dtp_text *t, void *array, size_t *room, size_t count, size_t item);
/* The same for all that grows with operations, and what is held for markers that were deleted. */
void arrays_pack(dtp_text *t);

/* ---- crdt_text_merge.c ----------------------------------------------------------------------------------- */

void waits_free(dtp_text *t);

#endif
