/* text/log.c - an author's operations as runs, by number: 12 bytes each, and 12 for a right origin that isn't the
 * usual one. */
#include "crdt_text_internal.h"

/* The right origin that isn't told. */
static id usual_origin(const run *r)
{
    return r->kind == INSERT_LEFT ? r->a : make_id(NOBODY, 0);
}

/* The first origin of a number not below `seq`. */
static size_t origin_find(agent *a, uint32_t seq)
{
    size_t low = a->origin_hint, high = a->origin_count;
    for (; low < high && low < a->origin_hint + 2; low++) /* one run after the other is looked at */
        if (a->origins[low].seq == seq)
            return a->origin_hint = low;
    low = 0;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (a->origins[middle].seq < seq)
            low = middle + 1;
        else
            high = middle;
    }
    return a->origin_hint = low;
}

run log_run(agent *a, size_t i)
{
    const packed_run *p = &a->runs[i];
    run r;
    r.seq = p->seq;
    r.kind = (uint16_t)(p->what >> RUN_KIND);
    r.marker = (p->what & RUN_MARKER) != 0;
    r.a = make_id(p->what & AGENT_MASK, p->a_seq);
    r.b = (p->what & RUN_ORIGIN) != 0 ? a->origins[origin_find(a, p->seq)].b : usual_origin(&r);
    return r;
}

static packed_run pack(const run *r)
{
    packed_run p;
    p.seq = r->seq;
    p.a_seq = r->a.seq;
    p.what = r->a.agent | (uint32_t)r->kind << RUN_KIND;
    if (r->marker)
        p.what |= RUN_MARKER;
    if (!same_id(r->b, usual_origin(r)))
        p.what |= RUN_ORIGIN;
    return p;
}

size_t log_find(agent *a, uint32_t seq)
{
    size_t low = 0, high = a->run_count;
    if (high > 0 && a->runs[high - 1].seq <= seq)
        return high - 1;
    if (a->run_hint + 1 < high && a->runs[a->run_hint].seq <= seq) {
        if (a->runs[a->run_hint + 1].seq > seq)
            return a->run_hint;
        low = a->run_hint;
    }
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (a->runs[middle].seq <= seq)
            low = middle;
        else
            high = middle;
    }
    a->run_hint = low;
    return low;
}

int log_reserve(dtp_text *t, agent *a, size_t more)
{
    int code = text_grow(t, &a->runs, &a->run_room, a->run_count + more, sizeof *a->runs);
    if (code == DTP_TEXT_OK)
        code = text_grow(t, &a->origins, &a->origin_room, a->origin_count + 1, sizeof *a->origins);
    return code;
}

static void log_push(agent *a, run op, uint32_t len)
{
    packed_run *p = &a->runs[a->run_count++];
    op.seq = a->next;
    *p = pack(&op);
    if ((p->what & RUN_ORIGIN) != 0) {
        origin *o = &a->origins[a->origin_count++];
        o->seq = op.seq;
        o->b = op.b;
    }
    a->next += len;
}

/* The run's direction is open as long as it has one number; deletions join number by number, so that it does not
 * matter in which pieces they came. */
static void log_append_delete(agent *a, run op, uint32_t len)
{
    run last = {0, DELETE_UP, 0, {NOBODY, 0}, {NOBODY, 0}};
    if (a->run_count > 0)
        last = log_run(a, a->run_count - 1);
    if (last.kind >= DELETE_UP && last.a.agent == op.a.agent) {
        uint32_t had = a->next - last.seq;
        int up = op.a.seq == last.a.seq + had && (had == 1 || last.kind == DELETE_UP);
        int down = last.a.seq >= had && op.a.seq == last.a.seq - had && (had == 1 || last.kind == DELETE_DOWN);
        if (up || down) {
            last.kind = up ? DELETE_UP : DELETE_DOWN;
            a->runs[a->run_count - 1] = pack(&last);
            a->next++;
            if (len == 1)
                return;
            if (op.kind == last.kind) {
                a->next += len - 1;
                return;
            }
            op.a.seq = op.kind == DELETE_UP ? op.a.seq + 1 : op.a.seq - 1;
            len--;
        }
    }
    if (len == 1)
        op.kind = DELETE_UP;
    log_push(a, op, len);
}

void log_append(agent *a, uint32_t self, run op, uint32_t len)
{
    if (op.kind >= DELETE_UP) {
        log_append_delete(a, op, len);
        return;
    }
    if (a->run_count > 0 && op.kind == INSERT_RIGHT && !op.marker && same_id(op.a, make_id(self, a->next - 1))) {
        run last = log_run(a, a->run_count - 1);
        if (last.kind < DELETE_UP && !last.marker && same_id(op.b, last.b)) {
            a->next += len;
            return;
        }
    }
    log_push(a, op, len);
}

/* What is left of a run from `stable` on. */
static run cut_run(agent *a, uint32_t self, size_t i, uint32_t stable)
{
    run r = log_run(a, i);
    uint32_t cut = stable - r.seq;
    if (r.kind < DELETE_UP) {
        r.kind = INSERT_RIGHT;
        r.a = make_id(self, stable - 1);
    } else {
        r.a.seq = r.kind == DELETE_UP ? r.a.seq + cut : r.a.seq - cut;
        if (run_end(a, i) - stable == 1)
            r.kind = DELETE_UP;
    }
    r.seq = stable;
    return r;
}

void log_shorten(agent *a, uint32_t self, uint32_t stable)
{
    size_t from = 0, first;
    run cut;
    int is_cut;
    while (from < a->run_count && run_end(a, from) <= stable)
        from++;
    is_cut = from < a->run_count && a->runs[from].seq < stable;
    if (is_cut)
        cut = cut_run(a, self, from, stable);
    a->run_count -= from;
    memmove(a->runs, a->runs + from, a->run_count * sizeof *a->runs);
    first = origin_find(a, stable);
    a->origin_count -= first;
    memmove(a->origins, a->origins + first, a->origin_count * sizeof *a->origins);
    a->base = stable;
    if (!is_cut)
        return;
    a->runs[0] = pack(&cut);
    if ((a->runs[0].what & RUN_ORIGIN) != 0) {
        memmove(a->origins + 1, a->origins, a->origin_count++ * sizeof *a->origins);
        a->origins[0].seq = stable;
        a->origins[0].b = cut.b;
    }
}

void log_pack(dtp_text *t, agent *a)
{
    array_pack(t, &a->runs, &a->run_room, a->run_count, sizeof *a->runs);
    array_pack(t, &a->origins, &a->origin_room, a->origin_count, sizeof *a->origins);
}

void log_free(dtp_text *t, agent *a)
{
    text_give(t, a->runs, a->run_room * sizeof *a->runs);
    text_give(t, a->origins, a->origin_room * sizeof *a->origins);
}
