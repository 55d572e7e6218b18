/* crdt_text_types.h - what a text is made of: spans, their tree and index, logs, what waits, marks, undo.
 * Included by crdt_text_internal.h alone, which has what is done with it. */
#ifndef DTP_CRDT_TEXT_TYPES_H
#define DTP_CRDT_TEXT_TYPES_H

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
    uint32_t parting; /* between the character before it and its first one: see text/depth.c */
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

/* An operation that waits until some author has made as many as it needs: in one of that author's treaps, by what it
 * needs. */
typedef struct waiting {
    struct waiting *left;
    struct waiting *right;
    uint32_t needs; /* of that author */
    uint32_t who;   /* made it */
    uint32_t rank;  /* by chance, above those of its children */
    run op;
    uint32_t len;
    uint16_t dead;
    uint16_t half; /* it is among the author's `halves`, or was before it was taken out */
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
    waiting *halves;   /* deletions that begin with its next character, by where they end: see text/wait.c */
    uint32_t settled;  /* all of these have deleted what is below, not just the one that ends last */
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

#endif
