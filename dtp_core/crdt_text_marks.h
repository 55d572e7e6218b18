/* crdt_text_marks.h - elements of lists and marks of texts, as the files of the text type know of each other.
 * Included by crdt_text_internal.h alone, behind the types. */
#ifndef DTP_CRDT_TEXT_MARKS_H
#define DTP_CRDT_TEXT_MARKS_H

/* ---- list/cells.c: the elements of lists as bytes ----------------------------------------------------- */

enum { MARK_PLACE = 0, MARK_VALUE = 1, MARK_NONE = 2, LIST_STAMPS = 62 /* bits of a stamp */ };

/* An element: its length as a varint and then a value in MessagePack, or what no value begins with and a marker. */
typedef struct list_cell {
    uint32_t kind; /* MARK_NONE: a plain value */
    uint32_t seq;  /* of a marker: of the element that it is about, whose author is `name` */
    const uint8_t *name;
    size_t name_size;
    uint64_t stamp;
    const uint8_t *value; /* none of MARK_PLACE */
    size_t value_size;
} list_cell;

/* As utf8_count and utf8_skip, of elements; *newest becomes the highest stamp if it is above. */
int64_t cells_count(const uint8_t *cells, size_t size, weight *w, uint64_t *newest);
size_t cells_skip(const uint8_t *cells, size_t count, weight *w);
/* Return whether the element there, which is valid, is a marker. */
int cell_is_marker(const uint8_t *at);
/* Read one element: DTP_TEXT_OK or DTP_TEXT_FORMAT. */
int cell_read(dtp_reader *r, list_cell *c);
/* Append a value's cell, or a marker's. */
int cell_put_value(dtp_text *t, bytes *b, const uint8_t *value, size_t size);
int cell_put_marker(dtp_text *t, bytes *b, const list_cell *c);

/* ---- rich/cells.c: the marks of texts as bytes ---------------------------------------------------------- */

enum {
    RICH_CELL = 0xff, /* what a mark among UTF-8 begins with */
    RICH_START_AFTER = 1, RICH_END_AFTER = 2, RICH_FROM_BEGINNING = 4, RICH_TO_END = 8
};
#define RICH_AFTER (UINT32_C(1) << 31)

/* A mark: from before or after one character to before or after another one, each with its author. */
typedef struct rich_cell {
    uint64_t stamp;
    unsigned sides;
    const uint8_t *agent[2];
    size_t agent_size[2]; /* 0: the beginning, or the end, of the text */
    uint32_t seq[2];
    const uint8_t *name;
    size_t name_size;
    const uint8_t *value; /* MessagePack; nil: the mark is taken away */
    size_t value_size;
} rich_cell;

size_t rich_size(const uint8_t *at); /* of the valid cell there */
int rich_read(dtp_reader *r, rich_cell *c); /* DTP_TEXT_OK or DTP_TEXT_FORMAT */
int rich_put(dtp_text *t, bytes *b, const rich_cell *c);

/* ---- rich/index.c: which mark holds where --------------------------------------------------------------- */

/* The place of an anchor, and the visible characters before it. 0: its character isn't held. */
int rich_point(dtp_text *t, id anchor, point *k);
uint32_t rich_rank(dtp_text *t, id anchor);
/* Bring the levels up to date, and make one of all of them. */
int rich_settle(dtp_text *t);
int rich_fold(dtp_text *t);
/* What holds over visible characters [start, end), of one name or of ANY_NAME, into rich.found: by place, from.low and
 * to.low are positions. Also what takes a mark away. */
int rich_over(dtp_text *t, uint32_t start, uint32_t end, uint32_t name);
/* The same over the characters of a span, visible or not, from a place on: from.low and to.low count within the span. */
int rich_over_span(dtp_text *t, const place *p, uint32_t len);
void rich_free(dtp_text *t);

/* ---- rich/rich.c: marks that come, go, and are made here ------------------------------------------------------- */

/* See that t->rich is there. */
int rich_ready(dtp_text *t);
/* Whether what a mark begins and ends at is here: DTP_TEXT_OK, 1 (`lack` isn't yet), DTP_TEXT_REFERENCE or _STALE. */
int rich_refers(dtp_text *t, const uint8_t *text, size_t size, id *lack);
/* Insert a mark of another replica, whose references are here. */
int rich_insert(dtp_text *t, uint32_t who, run op, const uint8_t *text, size_t size);
/* The mark at a place is about to be deleted. */
void rich_killed(dtp_text *t);
/* What the mark at a place refers to: agent NOBODY for nothing. */
void rich_ends(dtp_text *t, const place *p, id ends[2]);
/* Find all marks of a state that was loaded. */
int rich_load(dtp_text *t);
/* Own characters came at a position: what ends there stays what it was. */
void rich_edge(dtp_text *t, uint32_t position, uint32_t len);
/* Where the value of a mark is, and its length; the name of a number. */
size_t rich_value(dtp_text *t, uint32_t mark, const uint8_t **value);
const uint8_t *rich_name_at(const dtp_text *t, uint32_t name, size_t *size);
int64_t rich_name_intern(dtp_text *t, const uint8_t *name, size_t size); /* its number, or a code */
/* The character at a visible position. */
id rich_visible(dtp_text *t, uint32_t position);
/* Mark visible characters with a value; the marker's number is the one that was next. `sides`: of RICH_START_AFTER and
 * RICH_END_AFTER. */
int rich_mark_here(dtp_text *t, uint32_t start, uint32_t end, rich_cell *c, uint64_t now);

/* ---- rich/undo.c ------------------------------------------------------------------------------------------ */

/* rich_mark_here, and note in `h`, if not NULL, what that replaced. `root`: of the mark that it gives back, or NOBODY. */
int rich_make(dtp_text *t, history *h, uint32_t start, uint32_t end, rich_cell *c, uint64_t now, id root);
/* Take back the own mark `x`, where it still holds, or one that gave it back: `data` is what was noted. */
int rich_undo(dtp_text *t, history *to, id x, const uint8_t *data, size_t size);

/* ---- rich/carry.c ----------------------------------------------------------------------------------------- */

/* Note what characters of one span are marked with, which own operations from `when` on delete. */
void rich_deleting(dtp_text *t, uint32_t when, const place *p, uint32_t len);
/* Mark what was put back at `position` as the characters were that `when` deleted. */
int rich_carry(dtp_text *t, id first, uint32_t len, uint32_t position, uint32_t when);

/* ---- rich/read.c ------------------------------------------------------------------------------------------ */

/* Begin to note what changes for dtp_text_formats. */
void rich_clear(dtp_text *t);
/* Characters came while patches are wanted. */
void rich_touch(dtp_text *t, id first, uint32_t len);
/* Everything may have changed: `t` is to replace `old`. */
void rich_replace(dtp_text *t, const dtp_text *old);
int rich_check(dtp_text *t); /* for tests: DTP_TEXT_OK, or a line */

/* Bytes of the first `count` characters of a text's kind of content. */
static inline int unit_is_marker(const dtp_text *t, const uint8_t *text)
{
    return t->is_list ? cell_is_marker(text) : *text == RICH_CELL;
}

static inline size_t units_skip(const dtp_text *t, const uint8_t *text, size_t count, weight *w)
{
    return t->is_list ? cells_skip(text, count, w) : utf8_skip(text, count, w);
}

/* ---- list/marks.c: what markers say of elements ------------------------------------------------------- */

void marks_free(dtp_text *t);
/* Let go of what is held for markers that were deleted. */
void marks_pack(dtp_text *t);
/* The element that a marker is about. DTP_TEXT_OK; 1: it is not here yet; DTP_TEXT_REFERENCE. */
int mark_element(dtp_text *t, const uint8_t *text, size_t size, id *found);
/* The same of a marker that is here, which is known to be about an element. */
id mark_element_at(dtp_text *t, const place *p);
/* Memory for a marker that comes, and for what it changes. */
int mark_reserve(dtp_text *t, id x);
/* The marker at `at` came, visible: what it changes. Reserved. */
void mark_arrived(dtp_text *t, id at);
/* The characters [x, x + count) were deleted. `about`: the element, if it was a marker, else NOBODY. */
void mark_killed(dtp_text *t, id x, uint32_t count, id about);
/* Find all anew, after a state was loaded: everything that isn't deleted is visible. */
int mark_all(dtp_text *t);
/* The marker that holds, or NULL. */
const marker *mark_top(dtp_text *t, id x, uint32_t kind);
/* Where an element stands now: itself, or the marker that moved it. One that is nowhere: itself. */
id mark_stands(dtp_text *t, id x);
/* The element that is shown at a visible character. */
id mark_shown(dtp_text *t, id at);
/* What it is: where its value is, and its length. */
size_t mark_value(dtp_text *t, id x, const uint8_t **value);
/* Append the values of the elements that stand in a visible span, as cells. */
int mark_values(dtp_text *t, const span *s, bytes *b);
/* For tests: DTP_TEXT_OK, or a line. */
int marks_check(dtp_text *t);

#endif
