/* text/compact.c - forgetting what every replica has seen. docs/text.md, "Compaction", says why this is sound.
 *
 * Given a stable version: operations in it leave the logs, their characters stay without a place in the tree. A gap is
 * what stands between two stable characters that no stable operation deletes. Where nothing in a gap is newer, and
 * nothing newer refers into it, only its first deleted character stays: new insertions are placed by it. */
#include "crdt_text_internal.h"

static int is_stable(const dtp_text *t, const span *s)
{
    return s->seq < t->agents[span_agent(s)].mark;
}

/* Make the character `x` the first of a span. */
static int split_at(dtp_text *t, id x)
{
    place p;
    int code;
    if (!locate(t, x, &p) || p.off == 0)
        return DTP_TEXT_OK;
    code = tree_reserve(t, p.leaf, x.agent, 1);
    if (code == DTP_TEXT_OK)
        tree_split(t, &p);
    return code;
}

/* Split spans where the stable part of an author ends. */
static int split_stable(dtp_text *t)
{
    size_t i;
    int code = DTP_TEXT_OK;
    for (i = 0; i < t->agent_count && code == DTP_TEXT_OK; i++)
        if (t->agents[i].mark < t->agents[i].next)
            code = split_at(t, make_id((uint32_t)i, t->agents[i].mark));
    return code;
}

/* Flag the characters [low, end) as settled, or not. */
static int settle(dtp_text *t, id low, uint32_t end, int settled)
{
    place p;
    int code = split_at(t, low);
    if (code == DTP_TEXT_OK && end < t->agents[low.agent].next)
        code = split_at(t, make_id(low.agent, end));
    if (code != DTP_TEXT_OK)
        return code;
    for (low.seq = next_held(t, low, end, &p); low.seq < end; low.seq = next_held(t, low, end, &p)) {
        span *s = at_place(&p);
        s->who = settled ? s->who | SETTLED : s->who & ~(uint32_t)SETTLED;
        low.seq = s->seq + s->len;
    }
    return DTP_TEXT_OK;
}

/* The same for what the stable, or the other, deletions in the logs deleted. */
static int settle_deletions(dtp_text *t, int stable)
{
    size_t i, k;
    int code = DTP_TEXT_OK;
    for (i = 0; i < t->agent_count; i++) {
        agent *a = &t->agents[i];
        for (k = 0; k < a->run_count && code == DTP_TEXT_OK; k++) {
            run op = log_run(a, k);
            uint32_t end = run_end(a, k), from = op.seq, len;
            if (stable && end > a->mark)
                end = a->mark;
            if (!stable && from < a->mark)
                from = a->mark;
            if (op.kind < DELETE_UP || from >= end)
                continue;
            len = end - from;
            if (op.kind == DELETE_DOWN)
                op.a.seq -= end - op.seq - 1;
            else
                op.a.seq += from - op.seq;
            code = settle(t, op.a, op.a.seq + len, stable);
        }
    }
    return code;
}

/* What is deleted and compacted was deleted by operations that were stable then, unless one in a log did it. */
static int settle_all(dtp_text *t)
{
    leaf *l;
    uint32_t i;
    int code = DTP_TEXT_OK;
    for (i = 0; i < t->agent_count && code == DTP_TEXT_OK; i++)
        if (t->agents[i].base < t->agents[i].next)
            code = split_at(t, make_id(i, t->agents[i].base));
    for (l = t->first; l != NULL; l = l->next)
        for (i = 0; i < l->head.count; i++)
            if (is_deleted(&l->spans[i]) && l->spans[i].seq < t->agents[span_agent(&l->spans[i])].base)
                l->spans[i].who |= SETTLED;
    if (code == DTP_TEXT_OK)
        code = settle_deletions(t, 0);
    return code == DTP_TEXT_OK ? settle_deletions(t, 1) : code;
}

static void need(dtp_text *t, id x)
{
    place p;
    if (x.agent != NOBODY && x.seq < t->agents[x.agent].mark && locate(t, x, &p))
        at_place(&p)->who |= NEEDED;
}

/* Flag what operations that aren't stable refer to. */
static void need_all(dtp_text *t)
{
    size_t i, k;
    for (i = 0; i < t->agent_count; i++) {
        agent *a = &t->agents[i];
        for (k = a->run_count; k-- > 0 && run_end(a, k) > a->mark;) {
            run r = log_run(a, k);
            if (r.kind < DELETE_UP) {
                need(t, r.seq >= a->mark ? r.a : make_id((uint32_t)i, a->mark - 1));
                need(t, r.b);
            }
        }
    }
}

/* Flag the deleted characters that marks begin or end at, each a span of its own. */
static int pin_all(dtp_text *t)
{
    size_t i;
    unsigned k;
    int code = rich_settle(t); /* without those that are deleted */
    for (i = 0; t->rich != NULL && i < t->rich->count && code == DTP_TEXT_OK; i++)
        for (k = 0; k < 2 && code == DTP_TEXT_OK; k++) {
            id x = k == 0 ? t->rich->marks[i].start : t->rich->marks[i].end;
            place p;
            x.agent &= AGENT_MASK;
            if (x.agent == NOBODY || !locate(t, x, &p) || !is_deleted(at_place(&p)))
                continue;
            code = split_at(t, x);
            x.seq++;
            if (code == DTP_TEXT_OK)
                code = split_at(t, x);
            x.seq--;
            if (code == DTP_TEXT_OK && locate(t, x, &p))
                at_place(&p)->who |= PINNED;
        }
    return code;
}

/* Where a gap begins and what is in it. */
typedef struct gap {
    place first; /* its first settled span */
    int open;    /* there is one */
    int kept;    /* as a whole */
} gap;

/* At its end (`p`, or the end of all): flag all that isn't needed to be dropped. */
static uint32_t close_gap(gap *g, const place *end)
{
    uint32_t dropped = 0;
    place p = g->first;
    if (g->open && !g->kept)
        while (tree_next(&p) && (end == NULL || p.leaf != end->leaf || p.i != end->i))
            if ((at_place(&p)->who & PINNED) == 0) {
                at_place(&p)->who |= DROP;
                dropped += at_place(&p)->len;
            }
    g->open = g->kept = 0;
    return dropped;
}

/* The first character of each gap is a span of its own from now on. */
static int split_gaps(dtp_text *t)
{
    place p = {t->first, 0, 0};
    int open = 0, code = DTP_TEXT_OK, more = t->first->head.count > 0;
    for (; more && code == DTP_TEXT_OK; more = tree_next(&p)) {
        const span *s = at_place(&p);
        if (!is_stable(t, s))
            continue;
        if ((s->who & SETTLED) == 0) {
            open = 0;
            continue;
        }
        if (!open && s->len > 1) {
            code = tree_reserve(t, p.leaf, span_agent(s), 1);
            if (code != DTP_TEXT_OK)
                break;
            p.off = 1;
            tree_split(t, &p);
        }
        open = 1;
    }
    return code;
}

static uint32_t flag_gaps(dtp_text *t)
{
    gap g;
    place p = {t->first, 0, 0};
    uint32_t dropped = 0;
    int more = t->first->head.count > 0;
    memset(&g, 0, sizeof g);
    for (; more; more = tree_next(&p)) {
        const span *s = at_place(&p);
        if (!is_stable(t, s)) {
            g.kept = 1;
        } else if ((s->who & SETTLED) == 0) {
            dropped += close_gap(&g, &p);
        } else if (!g.open) {
            g.open = 1;
            g.first = p;
        } else if ((s->who & NEEDED) != 0) {
            g.kept = 1;
        }
    }
    return dropped + close_gap(&g, NULL);
}

static void clear_flags(dtp_text *t)
{
    leaf *l;
    uint32_t i;
    for (l = t->first; l != NULL; l = l->next)
        for (i = 0; i < l->head.count; i++)
            l->spans[i].who &= AGENT_MASK | FLAGS;
}

/* Deleted text that can be put back was beside what is dropped: from now on it is beside what stays of the gap. */
static void move_history(dtp_text *t, history *h)
{
    size_t i;
    for (i = 0; i < h->count; i++) {
        place p;
        if (!h->entries[i].deleted || !locate(t, h->entries[i].place, &p))
            continue;
        while ((at_place(&p)->who & DROP) != 0 && tree_previous(&p))
            h->entries[i].place = span_id(at_place(&p), 0);
    }
}

/* Take stable operations out of the logs. */
static void shorten_logs(dtp_text *t)
{
    size_t i;
    for (i = 0; i < t->agent_count; i++) {
        agent *a = &t->agents[i];
        if (a->mark > a->base)
            log_shorten(a, (uint32_t)i, a->mark);
    }
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

void array_pack(dtp_text *t, void *array, size_t *room, size_t count, size_t item)
{
    void *old, *smaller = NULL;
    if (count == *room)
        return;
    memcpy(&old, array, sizeof old);
    if (count > 0) {
        smaller = text_take(t, count * item);
        if (smaller == NULL)
            return; /* more is held than need be, which is no fault */
        memcpy(smaller, old, count * item);
    }
    text_give(t, old, *room * item);
    memcpy(array, &smaller, sizeof smaller);
    *room = count;
}

void arrays_pack(dtp_text *t)
{
    size_t i;
    for (i = 0; i < t->agent_count; i++) {
        agent *a = &t->agents[i];
        log_pack(t, a);
        array_pack(t, &a->chunks, &a->chunk_room, a->chunk_count, sizeof *a->chunks);
        array_pack(t, &a->dead, &a->dead_room, a->dead_count, sizeof *a->dead);
    }
    if (t->state.waiting == 0)
        array_pack(t, &t->waiters, &t->waiter_room, 0, sizeof *t->waiters);
    marks_pack(t);
}

/* ---- markers of elements that are gone ------------------------------------------------------------------------ */

/* Return whether a stable deletion deleted the element, which may be forgotten already. */
static int is_gone(dtp_text *t, id element)
{
    place p;
    return element.agent != NOBODY && (!locate(t, element, &p) || (at_place(&p)->who & SETTLED) != 0);
}

/* What a stable marker says of such an element nobody will ever ask: it is as good as deleted, at the same time for all. */
static int kill_marker(dtp_text *t, id x, id element)
{
    place p;
    int code;
    if (!locate(t, x, &p))
        return DTP_TEXT_OK;
    code = tree_reserve(t, p.leaf, x.agent, 2);
    if (code != DTP_TEXT_OK)
        return code;
    tree_kill(t, p, 1);
    mark_killed(t, x, 1, element);
    return DTP_TEXT_OK;
}

static int settle_markers(dtp_text *t)
{
    struct found {
        id marker;
        id element;
    } *found = NULL;
    size_t count = 0, room = 0, i;
    leaf *l;
    uint32_t k;
    int code = DTP_TEXT_OK;
    for (l = t->first; t->is_list && l != NULL && code == DTP_TEXT_OK; l = l->next)
        for (k = 0; k < l->head.count && code == DTP_TEXT_OK; k++) {
            place p = {l, k, 0};
            id element;
            if ((l->spans[k].who & MARKER) == 0 || !is_stable(t, &l->spans[k]))
                continue;
            element = mark_element_at(t, &p);
            if (!is_gone(t, element))
                continue;
            code = text_grow(t, &found, &room, count + 1, sizeof *found);
            if (code == DTP_TEXT_OK) {
                found[count].marker = span_id(&l->spans[k], 0);
                found[count++].element = element;
            }
        }
    for (i = 0; i < count && code == DTP_TEXT_OK; i++)
        code = kill_marker(t, found[i].marker, found[i].element);
    if (count > 0 && code == DTP_TEXT_OK)
        code = settle_all(t); /* what was killed may be one span with its neighbours now, and has the flags of one of them */
    for (i = 0; i < count && code == DTP_TEXT_OK; i++)
        code = settle(t, found[i].marker, found[i].marker.seq + 1, 1);
    text_give(t, found, room * sizeof *found);
    return code;
}

static int64_t compact(dtp_text *t, const uint8_t *stable, size_t size)
{
    size_t i;
    uint32_t dropped;
    int code = version_read(t, stable, size, 1);
    if (code != DTP_TEXT_OK)
        return code;
    for (i = 0; i < t->agent_count; i++)
        if (t->agents[i].mark < t->agents[i].base)
            t->agents[i].mark = t->agents[i].base;
    code = split_stable(t);
    if (code == DTP_TEXT_OK)
        code = settle_all(t);
    if (code == DTP_TEXT_OK)
        code = settle_markers(t);
    if (code == DTP_TEXT_OK)
        code = pin_all(t);
    if (code == DTP_TEXT_OK)
        code = split_gaps(t);
    for (i = 0; i < t->agent_count && code == DTP_TEXT_OK; i++)
        code = log_reserve(t, &t->agents[i], 0);
    if (code == DTP_TEXT_OK)
        code = levels_reserve(t);
    if (code != DTP_TEXT_OK) {
        clear_flags(t);
        return code;
    }
    need_all(t);
    dropped = flag_gaps(t);
    move_history(t, &t->undo);
    move_history(t, &t->redo);
    shorten_logs(t);
    (void)levels_tell(t); /* nothing is deeper than before */
    partings_set(t);
    levels_free(t);
    for (i = 0; i < t->agent_count; i++)
        dead_forget(t, &t->agents[i]);
    code = tree_rebuild(t);
    arrays_pack(t);
    if (code == DTP_TEXT_OK)
        return dropped;
    clear_flags(t); /* more is held than need be, which is no fault */
    return code;
}

int64_t dtp_text_compact(dtp_text *t, const uint8_t *stable, size_t size)
{
    int64_t result;
    if (!text_enter(t))
        return DTP_TEXT_BUSY;
    result = waits_settle(t);
    if (result == DTP_TEXT_OK)
        result = compact(t, stable, size);
    text_leave(t);
    return result;
}
