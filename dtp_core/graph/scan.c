/* graph/scan.c - patterns of queries looked for in the graph itself: nodes by label and properties, and links from one to the
 * next. What can't be told here (a property that is no register, or whose order C doesn't know) is unsure. */
#include "crdt_graph.h"

#define TRY(call)            \
    do {                     \
        int code_ = (call);  \
        if (code_ != DTP_OK) \
            return code_;    \
    } while (0)

enum { NO, YES, UNSURE };
enum { AHEAD = 16 /* nodes */, FEW = 16, NIL = 0xc0, BIN32 = 0xc6, MARK = '%', OWNER = '~', BOOK_KEEPING = '.' };
enum { PART_OF_MAP = 32, PART_OF_LIST = 48 }; /* letters behind the kind of a part */
static const double exact_ints = 9007199254740992.0; /* 2^53: up to there a double has each */

/* A node that a pattern has reached. */
typedef struct reached {
    dtp_bytes soul;
    uint32_t number; /* DTP_NONE: it has only been linked to */
    uint32_t slot;   /* of the link to the next one, */
    uint32_t entry;  /* and where it is in a set */
    uint32_t key;
} reached;

enum pass { ALL, NOTING, SHOWING };

typedef struct scan {
    dtp_graph *graph;
    const dtp_scan *asked;
    enum pass pass;
    uint32_t order;             /* the property that nodes are put in order by, */
    enum dtp_scalar_kind kind;  /* the kind of its values, */
    uint32_t first[DTP_SCAN_MOST]; /* and the nodes that come first: a heap, at its root the last of them */
    uint32_t first_count;
    reached path[DTP_SCAN_NODES];
    uint32_t keys[DTP_SCAN_TESTS][2]; /* of tests: the property's, the other one's; DTP_NONE: nothing has it */
    uint32_t columns[DTP_SCAN_COLUMNS]; /* the keys' numbers */
    uint32_t ahead[2 * AHEAD]; /* hashes of what nodes that come next link to; 0: nothing */
    uint64_t found;
    uint64_t steps;
    int unsure;
} scan;

/* ---- labels --------------------------------------------------------------------------------------------------- */

/* Return what is before the first slash, "" without one. */
static dtp_bytes before_slash(dtp_bytes text)
{
    const uint8_t *slash = text.length > 0 ? memchr(text.at, '/', text.length) : NULL;
    text.length = slash == NULL ? 0 : (size_t)(slash - text.at);
    return text;
}

/* Return a soul's label: `kind_of` of dtp/graph/query/lookup/columns.py. */
static dtp_bytes label_of(dtp_bytes soul)
{
    int is_owned = soul.length > 0 && soul.at[0] == OWNER;
    const uint8_t *colon;
    dtp_bytes label;
    if (is_owned) {
        const uint8_t *slash = memchr(soul.at, '/', soul.length);
        if (slash == NULL) {
            soul.length = 0;
            return soul;
        }
        soul.length -= (size_t)(slash + 1 - soul.at);
        soul.at = slash + 1;
    }
    label = before_slash(soul);
    if (is_owned && label.length > 0 && label.at[0] == BOOK_KEEPING)
        label.length = 0;
    if (label.length > 0 && label.at[0] == MARK) {
        label.at++;
        label.length--;
        colon = label.length > 0 ? memchr(label.at, ':', label.length) : NULL;
        label.length = colon == NULL ? label.length : (size_t)(colon - label.at);
    }
    return label;
}

/* Return whether a soul is the graph's own book-keeping: `is_internal` of dtp/crdt/permission/access.py. */
static int is_book_keeping(dtp_bytes soul)
{
    static const char access_root[] = "%access";
    const uint8_t *slash;
    if (soul.length > 0 && soul.at[0] == OWNER) {
        slash = memchr(soul.at, '/', soul.length);
        return slash != NULL && slash + 1 < soul.at + soul.length && slash[1] == BOOK_KEEPING;
    }
    return soul.length >= sizeof access_root - 1 && memcmp(soul.at, access_root, sizeof access_root - 1) == 0
        && (soul.length == sizeof access_root - 1 || soul.at[sizeof access_root - 1] == '/');
}

/* Return whether the last so many bytes of a soul name a part of a document: `is_part` of dtp/crdt/parts.py. */
static int is_part_of(dtp_bytes soul, size_t letters)
{
    const uint8_t *at;
    size_t i;
    if (soul.length < letters + 3)
        return 0;
    at = soul.at + soul.length - letters;
    if (at[-3] != '/' || at[-2] != '@' || memchr("mltr", at[-1], 4) == NULL)
        return 0;
    for (i = 0; i < letters; i++)
        if ((at[i] < 'a' || at[i] > 'z') && (at[i] < '2' || at[i] > '7'))
            return 0;
    return 1;
}

static int is_hidden(dtp_bytes soul)
{
    return is_book_keeping(soul) || is_part_of(soul, PART_OF_MAP) || is_part_of(soul, PART_OF_LIST);
}

static int is_name(const dtp_scan_name *name, uint32_t node, dtp_bytes text)
{
    return name->node == node && name->length == text.length
        && (text.length == 0 || memcmp(name->text, text.at, text.length) == 0);
}

/* Return whether one of the names is of this node and is the text; of a node without names any is. */
static int has_name(const dtp_scan_name *names, size_t count, uint32_t node, dtp_bytes text)
{
    size_t i;
    int is_any = 1;
    for (i = 0; i < count; i++) {
        if (is_name(&names[i], node, text))
            return 1;
        is_any &= names[i].node != node;
    }
    return is_any;
}

/* ---- properties ------------------------------------------------------------------------------------------------ */

/* A soul's slot. They are mostly side by side, and few: going through them takes fewer misses of the caches than looking one
 * up. */
static uint32_t slot_at(const dtp_graph *graph, uint32_t soul, uint32_t key, uint32_t part)
{
    uint32_t slot = graph->names[soul].first, count;
    for (count = 0; slot != DTP_NONE && count < FEW; count++) {
        if (graph->slots[slot].key == key && graph->slots[slot].part == part)
            return slot;
        slot = graph->slots[slot].value.spare;
    }
    return slot == DTP_NONE ? DTP_NONE : dtp_slot_find(graph, soul, key, part, dtp_slot_hash(graph, soul, key, part));
}

static int is_other(dtp_graph *graph, uint32_t slot)
{
    const dtp_slot *one = &graph->slots[slot];
    return one->part > DTP_PART_TEXT ? dtp_container_of(graph, slot)->count > 0 : one->value.length > 0;
}

/* YES and the value of a register, NO when it is none that counts, or UNSURE. */
static int register_value(const dtp_slot *slot, dtp_scalar *value, uint8_t *room)
{
    dtp_bytes bytes;
    if (slot->value.length == 0)
        return NO;
    bytes = dtp_value_get(&slot->value, room);
    *value = dtp_scalar_of(bytes);
    switch (value->kind) {
    case DTP_SCALAR_NUMBER:
        return value->low == value->high && value->low < exact_ints && value->low > -exact_ints ? YES : UNSURE;
    case DTP_SCALAR_LINK: return NO;
    case DTP_SCALAR_NONE: return bytes.at[0] == NIL ? NO : UNSURE;
    default: return YES;
    }
}

/* YES and a property's value, NO when there is none, or UNSURE. */
static int property(dtp_graph *graph, uint32_t soul, uint32_t key, dtp_scalar *value, uint8_t *room)
{
    uint32_t slot, register_slot, count = 0;
    int others = 0, outcome = NO;
    if (soul == DTP_NONE || key == DTP_NONE)
        return NO;
    for (slot = graph->names[soul].first; slot != DTP_NONE; slot = graph->slots[slot].value.spare) {
        const dtp_slot *one = &graph->slots[slot];
        if (++count == FEW) {
            register_slot = dtp_slot_find(graph, soul, key, DTP_PART_REGISTER,
                                          dtp_slot_hash(graph, soul, key, DTP_PART_REGISTER));
            if (register_slot != DTP_NONE
                && (outcome = register_value(&graph->slots[register_slot], value, room)) != NO)
                return outcome;
        }
        if (one->key != key)
            continue;
        if (one->part != DTP_PART_REGISTER)
            others |= is_other(graph, slot);
        else if ((outcome = register_value(one, value, room)) != NO)
            return outcome;
    }
    return others ? UNSURE : NO;
}

static int order_of(const dtp_scalar *a, const dtp_scalar *b)
{
    if (a->kind == DTP_SCALAR_NUMBER)
        return (a->low > b->low) - (a->low < b->low);
    return dtp_bytes_compare(a->bytes, b->bytes);
}

/* YES, NO, or UNSURE. */
static int holds(uint32_t comparison, const dtp_scalar *a, const dtp_scalar *b)
{
    int order;
    if (a->kind != b->kind)
        return comparison == DTP_SCAN_DIFFERENT;
    if (a->kind == DTP_SCALAR_TEMPORAL && comparison != DTP_SCAN_EQUAL && comparison != DTP_SCAN_DIFFERENT)
        return UNSURE;
    order = order_of(a, b);
    switch (comparison) {
    case DTP_SCAN_EQUAL: return order == 0;
    case DTP_SCAN_DIFFERENT: return order != 0;
    case DTP_SCAN_BELOW: return order < 0;
    case DTP_SCAN_AT_MOST: return order <= 0;
    case DTP_SCAN_ABOVE: return order > 0;
    default: return order >= 0;
    }
}

/* A test of nodes that are all reached. */
static int passes(scan *one, size_t at)
{
    const dtp_scan_test *test = &one->asked->tests[at];
    uint8_t room[2][DTP_VALUE_NEAR];
    dtp_scalar a, b;
    dtp_bytes given = {test->value, test->value_length};
    int is_there = property(one->graph, one->path[test->node].number, one->keys[at][0], &a, room[0]), is_other_there = YES;
    if (is_there == NO)
        return NO;
    if (test->other == DTP_NONE)
        b = dtp_scalar_of(given);
    else
        is_other_there = property(one->graph, one->path[test->other].number, one->keys[at][1], &b, room[1]);
    if (is_other_there == NO)
        return NO;
    return is_there == UNSURE || is_other_there == UNSURE ? UNSURE : holds(test->comparison, &a, &b);
}

/* Return whether the node that was reached last is one that the pattern has there. */
static int fits(scan *one, uint32_t node)
{
    const dtp_scan *asked = one->asked;
    size_t i;
    int outcome = YES, unsure = 0;
    if (is_hidden(one->path[node].soul))
        return NO;
    if (!has_name(asked->labels, asked->label_count, node, label_of(one->path[node].soul)))
        return NO;
    for (i = 0; i < asked->test_count && outcome != NO; i++) {
        const dtp_scan_test *test = &asked->tests[i];
        if (test->node != node && (test->other != node || test->node > node))
            continue;
        if (test->node == node && test->other != DTP_NONE && test->other > node)
            continue;
        outcome = passes(one, i);
        unsure |= outcome == UNSURE;
    }
    return outcome == NO ? NO : unsure ? UNSURE : YES;
}

/* ---- the first in order ------------------------------------------------------------------------------------------ */

/* YES and the value that a node is put in order by, NO when it has none, or UNSURE. Values of other kinds than the first one
 * that was met are unsure. */
static int place(scan *one, uint32_t soul, dtp_scalar *value, uint8_t *room)
{
    int outcome = property(one->graph, soul, one->order, value, room);
    if (outcome != YES)
        return outcome;
    if (value->kind != DTP_SCALAR_NUMBER && value->kind != DTP_SCALAR_TEXT)
        return UNSURE;
    if (one->kind == DTP_SCALAR_NONE)
        one->kind = value->kind;
    return value->kind == one->kind ? YES : UNSURE;
}

/* Below 0, 0 or above 0, as a value comes before that of a node in the heap. */
static int order_beside(scan *one, const dtp_scalar *value, uint32_t at)
{
    uint8_t room[DTP_VALUE_NEAR];
    dtp_scalar other;
    (void)property(one->graph, one->first[at], one->order, &other, room);
    return one->asked->down ? order_of(&other, value) : order_of(value, &other);
}

static int is_after(scan *one, uint32_t a, uint32_t b)
{
    uint8_t room[DTP_VALUE_NEAR];
    dtp_scalar value;
    (void)property(one->graph, one->first[a], one->order, &value, room);
    return order_beside(one, &value, b) > 0;
}

static void swap(scan *one, uint32_t a, uint32_t b)
{
    uint32_t kept = one->first[a];
    one->first[a] = one->first[b];
    one->first[b] = kept;
}

/* Note a node if it is among the first so far. */
static void note(scan *one, uint32_t soul)
{
    uint8_t room[DTP_VALUE_NEAR];
    dtp_scalar value;
    uint32_t at, next;
    if (place(one, soul, &value, room) != YES)
        return;
    if (one->first_count < one->asked->most) {
        at = one->first_count++;
        one->first[at] = soul;
        for (; at > 0 && is_after(one, at, (at - 1) / 2); at = (at - 1) / 2)
            swap(one, at, (at - 1) / 2);
        return;
    }
    if (order_beside(one, &value, 0) >= 0)
        return;
    one->first[0] = soul;
    for (at = 0; (next = 2 * at + 1) < one->first_count; at = next) {
        if (next + 1 < one->first_count && is_after(one, next + 1, next))
            next++;
        if (!is_after(one, next, at))
            break;
        swap(one, at, next);
    }
}

/* Return whether a node may be among the first. */
static int may_be_first(scan *one, uint32_t soul)
{
    uint8_t room[DTP_VALUE_NEAR];
    dtp_scalar value;
    int outcome;
    if (one->first_count < one->asked->most)
        return 1;
    outcome = place(one, soul, &value, room);
    return outcome == YES ? order_beside(one, &value, 0) <= 0 : outcome == UNSURE || one->asked->down;
}

/* ---- links ------------------------------------------------------------------------------------------------------ */

static int show(scan *one)
{
    uint32_t node;
    dtp_buffer *out = &one->graph->out;
    for (node = 0; node < one->asked->nodes; node++)
        TRY(dtp_pack_text(out, one->path[node].soul.at, one->path[node].soul.length));
    for (node = 0; node + 1 < one->asked->nodes; node++) {
        const dtp_name *key = &one->graph->names[one->path[node].key];
        TRY(dtp_pack_text(out, dtp_name_text(one->graph, key), key->length));
    }
    return DTP_OK;
}

/* Write the columns of a node as one string of bytes. */
static int show_columns(scan *one, uint32_t soul)
{
    static const uint8_t nil[1] = {NIL};
    dtp_graph *graph = one->graph;
    uint8_t room[DTP_SCAN_COLUMNS][DTP_VALUE_NEAR], head[5] = {BIN32};
    dtp_bytes value[DTP_SCAN_COLUMNS];
    size_t i, length = 0;
    for (i = 0; i < one->asked->column_count; i++) {
        dtp_scalar scalar;
        uint32_t slot, key = one->columns[i];
        int outcome = property(graph, soul, key, &scalar, room[i]);
        value[i].at = nil;
        value[i].length = sizeof nil;
        if (outcome == YES) {
            slot = slot_at(graph, soul, key, DTP_PART_REGISTER);
            value[i] = dtp_value_get(&graph->slots[slot].value, room[i]);
        }
        one->unsure |= outcome == UNSURE;
        length += value[i].length;
    }
    for (i = 0; i < 4; i++)
        head[1 + i] = (uint8_t)(length >> (24 - 8 * i));
    TRY(dtp_buffer_put(&graph->out, head, sizeof head));
    for (i = 0; i < one->asked->column_count; i++)
        TRY(dtp_buffer_put(&graph->out, value[i].at, value[i].length));
    return DTP_OK;
}

static int is_walked(const scan *one, uint32_t node)
{
    uint32_t before;
    for (before = 0; before < node; before++)
        if (one->path[before].slot == one->path[node].slot && one->path[before].entry == one->path[node].entry)
            return 1;
    return 0;
}

static int walk(scan *one, uint32_t node, int unsure);

/* Go on from a node that was put into the path. */
static int reach(scan *one, uint32_t node, int unsure)
{
    int outcome = fits(one, node);
    one->steps++;
    if (outcome == NO)
        return DTP_OK;
    unsure |= outcome == UNSURE;
    if (node + 1 < one->asked->nodes)
        return walk(one, node, unsure);
    if (one->pass == NOTING) {
        if (!unsure)
            note(one, one->path[node].number);
        return DTP_OK;
    }
    if (one->pass == SHOWING && !unsure && !may_be_first(one, one->path[node].number))
        return DTP_OK;
    one->unsure |= unsure;
    one->found++;
    if (one->asked->column_count > 0)
        return show_columns(one, one->path[node].number);
    return one->asked->shown ? show(one) : DTP_OK;
}

static int follow(scan *one, uint32_t node, dtp_bytes link, int unsure)
{
    dtp_graph *graph = one->graph;
    reached *next = &one->path[node + 1];
    dtp_scalar target = dtp_scalar_of(link);
    uint32_t hash;
    if (target.kind != DTP_SCALAR_LINK || is_walked(one, node))
        return DTP_OK;
    if (one->steps > DTP_SCAN_STEPS)
        return DTP_E_LIMIT;
    next->soul = target.bytes;
    hash = (uint32_t)dtp_hash(graph->seed, target.bytes.at, target.bytes.length);
    if (!dtp_name_find(graph, target.bytes.at, target.bytes.length, hash, &next->number))
        next->number = DTP_NONE;
    return reach(one, node + 1, unsure);
}

/* Return whether a register's link is in a set at the same key, too: there it is found. */
static int is_in_set(dtp_graph *graph, const dtp_slot *slot, dtp_bytes link)
{
    size_t at = 0;
    uint32_t set = slot_at(graph, slot->soul, slot->key, DTP_PART_SET);
    return set != DTP_NONE && dtp_entry_member(graph, set, link, &at) != DTP_NONE;
}

static int walk_set(scan *one, uint32_t node, uint32_t slot, int unsure)
{
    dtp_graph *graph = one->graph;
    uint32_t entry = dtp_container_of(graph, slot)->first;
    for (; entry != DTP_NONE; entry = graph->entries[entry].next) {
        uint8_t room[DTP_VALUE_NEAR];
        dtp_bytes link = dtp_value_get(&graph->entries[entry].value, room);
        size_t at = 0;
        if (dtp_entry_member(graph, slot, link, &at) != entry) /* added twice */
            continue;
        one->path[node].entry = entry;
        TRY(follow(one, node, link, unsure));
    }
    return DTP_OK;
}

/* Return whether links that the pattern wants from a node on may be in a slot. */
static int has_links(const scan *one, uint32_t node, const dtp_slot *slot)
{
    const dtp_name *key = &one->graph->names[slot->key];
    dtp_bytes text = {dtp_name_text(one->graph, key), key->length};
    return (slot->part == DTP_PART_REGISTER || slot->part == DTP_PART_SET)
        && has_name(one->asked->keys, one->asked->key_count, node, text);
}

static int walk(scan *one, uint32_t node, int unsure)
{
    dtp_graph *graph = one->graph;
    uint32_t soul = one->path[node].number, slot;
    if (soul == DTP_NONE)
        return DTP_OK;
    for (slot = graph->names[soul].first; slot != DTP_NONE; slot = graph->slots[slot].value.spare) {
        const dtp_slot *here = &graph->slots[slot];
        uint8_t room[DTP_VALUE_NEAR];
        if (!has_links(one, node, here))
            continue;
        one->path[node].slot = slot;
        one->path[node].key = here->key;
        one->path[node].entry = DTP_NONE;
        if (here->part == DTP_PART_SET) {
            TRY(walk_set(one, node, slot, unsure));
        } else if (here->value.length > 0) {
            dtp_bytes link = dtp_value_get(&here->value, room);
            if (!is_in_set(graph, here, link))
                TRY(follow(one, node, link, unsure));
        }
    }
    return DTP_OK;
}

/* ---- ahead ------------------------------------------------------------------------------------------------------ */

/* Return the hash of the first soul that a node of the pattern's first kind links to; 0: none. */
static uint32_t hash_of_link(scan *one, uint32_t soul)
{
    dtp_graph *graph = one->graph;
    uint32_t slot;
    for (slot = graph->names[soul].first; slot != DTP_NONE; slot = graph->slots[slot].value.spare) {
        const dtp_value *value = &graph->slots[slot].value;
        uint8_t room[DTP_VALUE_NEAR];
        dtp_scalar target;
        if (!has_links(one, 0, &graph->slots[slot]))
            continue;
        if (graph->slots[slot].part == DTP_PART_SET) {
            uint32_t entry = dtp_container_of(graph, slot)->first;
            if (entry == DTP_NONE)
                continue;
            value = &graph->entries[entry].value;
        }
        if (value->length == 0)
            continue;
        target = dtp_scalar_of(dtp_value_get(value, room));
        if (target.kind == DTP_SCALAR_LINK)
            return (uint32_t)dtp_hash(graph->seed, target.bytes.at, target.bytes.length);
    }
    return 0;
}

/* Fetch what nodes link to while those before them are looked at. */
static void look_ahead(scan *one, const uint32_t *numbers, size_t i, size_t behind)
{
    const dtp_graph *graph = one->graph;
    size_t next = i + 2 * AHEAD;
    uint32_t soul = next >= behind ? DTP_NONE : numbers != NULL ? numbers[next] : (uint32_t)next;
    uint32_t *hash = &one->ahead[next % (2 * AHEAD)];
    *hash = soul < graph->name_count ? hash_of_link(one, soul) : 0;
    if (*hash != 0)
        dtp_index_prefetch(&graph->by_name, *hash);
    hash = &one->ahead[(i + AHEAD) % (2 * AHEAD)];
    if (*hash != 0)
        dtp_name_prefetch(graph, *hash);
    hash = &one->ahead[(i + AHEAD / 2) % (2 * AHEAD)];
    if (*hash != 0)
        dtp_first_slot_prefetch(graph, *hash);
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static uint32_t number_of(const dtp_graph *graph, const uint8_t *text, size_t length)
{
    uint32_t number;
    return dtp_name_find(graph, text, length, (uint32_t)dtp_hash(graph->seed, text, length), &number) ? number : DTP_NONE;
}

/* Look for the pattern from each of the names on. */
static int from_each(scan *one, const uint32_t *numbers, size_t first, size_t behind)
{
    dtp_graph *graph = one->graph;
    size_t i;
    if (numbers == NULL && behind > graph->name_count)
        behind = graph->name_count;
    for (i = first; i < behind; i++) {
        uint32_t number = numbers == NULL ? (uint32_t)i : numbers[i];
        if (number >= graph->name_count)
            return DTP_E_LIMIT;
        if (one->asked->nodes > 1)
            look_ahead(one, numbers, i, behind);
        one->path[0].number = number;
        one->path[0].soul.at = dtp_name_text(graph, &graph->names[number]);
        one->path[0].soul.length = graph->names[number].length;
        if (graph->names[number].first != DTP_NONE && dtp_is_soul(graph, number))
            TRY(reach(one, 0, 0));
        if (one->unsure && !one->asked->shown)
            return DTP_E_LIMIT;
    }
    return DTP_OK;
}

int dtp_graph_scan(dtp_graph *graph, const dtp_scan *asked, const uint32_t *numbers, size_t first, size_t behind,
                   dtp_view *view, uint64_t *found)
{
    scan one;
    size_t i;
    memset(&one, 0, sizeof one);
    one.graph = graph;
    one.asked = asked;
    graph->out.count = 0;
    if (asked->nodes < 1 || asked->nodes > DTP_SCAN_NODES || asked->test_count > DTP_SCAN_TESTS)
        return DTP_E_LIMIT;
    if (asked->column_count > DTP_SCAN_COLUMNS || (asked->column_count > 0 && (asked->nodes > 1 || asked->shown)))
        return DTP_E_LIMIT;
    for (i = 0; i < asked->column_count; i++)
        one.columns[i] = number_of(graph, asked->columns[i].text, asked->columns[i].length);
    if (asked->most > DTP_SCAN_MOST || (asked->most > 0 && (asked->nodes > 1 || !asked->shown)))
        return DTP_E_LIMIT;
    for (i = 0; i < asked->test_count; i++) {
        const dtp_scan_test *test = &asked->tests[i];
        if (test->node >= asked->nodes || (test->other != DTP_NONE && test->other >= asked->nodes))
            return DTP_E_LIMIT;
        one.keys[i][0] = number_of(graph, test->key, test->key_length);
        one.keys[i][1] = test->other == DTP_NONE ? DTP_NONE : number_of(graph, test->value, test->value_length);
    }
    if (asked->most > 0) {
        one.order = number_of(graph, asked->order, asked->order_length);
        one.kind = DTP_SCALAR_NONE;
        one.pass = NOTING;
        TRY(from_each(&one, numbers, first, behind));
        one.pass = SHOWING;
    }
    TRY(from_each(&one, numbers, first, behind));
    *found = one.found;
    view->bytes = graph->out.bytes;
    view->length = graph->out.count;
    return DTP_OK;
}
