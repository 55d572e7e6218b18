/* fuzz_graph.c - the merge core: any bytes in place of frames, states and rows; and ops of all kinds made by two replicas,
 * whose frames arrive in any order, twice or late, and leave both with the same state. */
#include "harness.h"

enum { FRAMES = 24, LIMIT_MS = 1 << 20 };

static const uint8_t keys[2][DTP_AUTHOR] = {"the first author, known to all", "the other author, known to all"};
static const uint8_t seed[16] = "not a secret";
static const uint64_t limit = (uint64_t)LIMIT_MS << 16;

typedef struct kept {
    uint8_t *bytes;
    size_t length;
    int author;
} kept;

static kept keep(const uint8_t *bytes, size_t length, int author)
{
    kept one = {exactly(length), length, author};
    memcpy(one.bytes, bytes, length);
    return one;
}

static dtp_graph *fresh(int author)
{
    dtp_graph *graph;
    CHECK(dtp_graph_open(keys[author], seed, &graph) == DTP_OK);
    return graph;
}

static kept saved(dtp_graph *graph)
{
    dtp_view view;
    CHECK(dtp_graph_save(graph, &view) == DTP_OK);
    return keep(view.bytes, view.length, 0);
}

static void drop(kept one)
{
    release(one.bytes, one.length);
}

static int same(kept a, kept b)
{
    return a.length == b.length && memcmp(a.bytes, b.bytes, a.length) == 0;
}

/* A summary that says what a frame does agrees with itself, and with the frame but for what no summary has; whoever is asked. */
static void any_account(const kept *body, const dtp_frame_facts *facts)
{
    dtp_told summary = {body->bytes, body->length, 1, 1, facts->before, facts->last, 1}, frame = summary, empty = summary;
    dtp_account *account;
    size_t place;
    int whole, nothing, back;
    frame.is_summary = 0;
    empty.length = 0;
    CHECK(dtp_account_open(keys[1], (const uint8_t *)"x", 1, &summary, &account, &place) == DTP_OK);
    whole = dtp_account_agrees(account, &frame, &place);
    nothing = dtp_account_agrees(account, &empty, &place);
    CHECK(whole == 0 || whole == 1);
    CHECK(whole == 0 || dtp_account_agrees(account, &summary, &place) == 1);
    dtp_account_close(account);
    CHECK(dtp_account_open(keys[1], (const uint8_t *)"x", 1, &empty, &account, &place) == DTP_OK);
    back = dtp_account_agrees(account, &summary, &place);
    CHECK(nothing == back && (nothing == 0 || nothing == 1));
    CHECK(dtp_account_agrees(account, &frame, &place) <= nothing);
    dtp_account_close(account);
}

/* What is counted is what is shown, if it can be counted: pairs of linked nodes whose property `k` isn't above 5. */
static void any_scan(dtp_graph *graph)
{
    static const uint8_t five = 0x05;
    static const dtp_scan_test test = {(const uint8_t *)"k", 1, &five, 1, 0, UINT32_MAX, DTP_SCAN_AT_MOST};
    dtp_scan asked = {NULL, 0, NULL, 0, &test, 1, 2, 0, NULL, 0, 0, 0, NULL, 0};
    uint64_t counted = 0, shown = 0;
    dtp_view view;
    int code = dtp_graph_scan(graph, &asked, NULL, 0, SIZE_MAX, &view, &counted);
    CHECK(code == DTP_OK || code == DTP_E_LIMIT);
    asked.shown = 1;
    CHECK(dtp_graph_scan(graph, &asked, NULL, 0, SIZE_MAX, &view, &shown) == DTP_OK);
    CHECK(code == DTP_E_LIMIT || counted == shown);
    CHECK(view.length >= shown * 3);
}

/* The first nodes by the property `k` are among all, and at least as many as are asked for, if there are. */
static void any_first(dtp_graph *graph)
{
    dtp_scan asked = {NULL, 0, NULL, 0, NULL, 0, 1, 1, (const uint8_t *)"k", 1, 0, 0, NULL, 0};
    uint64_t all = 0, first = 0;
    dtp_view view;
    CHECK(dtp_graph_scan(graph, &asked, NULL, 0, SIZE_MAX, &view, &all) == DTP_OK);
    for (asked.most = 1; asked.most < 6; asked.most += 2) {
        asked.down = asked.most == 3;
        CHECK(dtp_graph_scan(graph, &asked, NULL, 0, SIZE_MAX, &view, &first) == DTP_OK);
        CHECK(first <= all && first >= (all < asked.most ? all : asked.most));
    }
    asked.most = DTP_SCAN_MOST + 1;
    CHECK(dtp_graph_scan(graph, &asked, NULL, 0, SIZE_MAX, &view, &first) == DTP_E_LIMIT);
}

/* Two properties of each node that is counted, each a MessagePack value, nil at least. */
static void any_columns(dtp_graph *graph)
{
    static const dtp_scan_name names[2] = {{(const uint8_t *)"k", 1, 0}, {(const uint8_t *)"t", 1, 0}};
    dtp_scan asked = {NULL, 0, NULL, 0, NULL, 0, 1, 0, NULL, 0, 0, 0, names, 2};
    uint64_t found = 0;
    dtp_view view;
    int code = dtp_graph_scan(graph, &asked, NULL, 0, SIZE_MAX, &view, &found);
    CHECK(code == DTP_OK || code == DTP_E_LIMIT);
    CHECK(code == DTP_E_LIMIT || view.length >= 2 * found);
    asked.column_count = DTP_SCAN_COLUMNS + 1;
    CHECK(dtp_graph_scan(graph, &asked, NULL, 0, SIZE_MAX, &view, &found) != DTP_OK);
}

/* Whatever is there: souls by their values are among all souls, and each row can be read. */
static void any_lookups(dtp_graph *graph)
{
    dtp_view view;
    uint32_t *numbers, hash;
    size_t count;
    static const uint8_t low = 0x00, high = 0x7f, text[] = {0xa1, 'a'};
    CHECK(dtp_graph_named(graph, NULL, 0, &view) == DTP_OK);
    count = view.length / sizeof *numbers;
    numbers = malloc(view.length + sizeof *numbers);
    CHECK(numbers != NULL);
    if (count > 0)
        memcpy(numbers, view.bytes, view.length);
    CHECK(dtp_graph_rows(graph, numbers, count, &view) == DTP_OK);
    CHECK(dtp_graph_column(graph, (const uint8_t *)"k", 1, 0, &view) == DTP_OK && (count > 0 || view.length == 0));
    CHECK(dtp_graph_column(graph, (const uint8_t *)"k", 1, 1, &view) == DTP_OK && (count > 0 || view.length == 0));
    CHECK(dtp_graph_opaque(graph, (const uint8_t *)"k", 1, 1, &view) == DTP_OK && view.length / 4 <= 4 * count);
    CHECK(dtp_graph_between(graph, (const uint8_t *)"k", 1, &low, 1, &high, 1, &view) == DTP_OK
          && (count > 0 || view.length == 0));
    any_scan(graph);
    any_first(graph);
    any_columns(graph);
    CHECK(dtp_graph_links(graph, &view) == DTP_OK);
    CHECK(dtp_graph_unmade(graph, NULL, 0, &view) == DTP_OK);
    CHECK(dtp_graph_hash(graph, text, sizeof text, &hash) == 1);
    numbers[0] = UINT32_MAX;
    CHECK(dtp_graph_rows(graph, numbers, 1, &view) == DTP_E_LIMIT);
    free(numbers);
}

static int same_load(dtp_load x, dtp_load y)
{
    return x.ops == y.ops && x.bytes == y.bytes && x.edits == y.edits && x.edit_bytes == y.edit_bytes
        && x.ruled == y.ruled && x.ruled_bytes == y.ruled_bytes;
}

/* What is refused changes nothing that is to be seen; what is taken can be read, saved and loaded. */
static void any_frame(choices *c)
{
    dtp_graph *graph = fresh(0);
    kept body = keep(c->data, c->left, 0), before = saved(graph), after, again;
    dtp_merged merged;
    dtp_frame_facts facts;
    dtp_load load, none = {0, 0, 0, 0, 0, 0};
    dtp_view view;
    int64_t author = dtp_graph_author(graph, keys[1]);
    int code = dtp_graph_check(graph, keys[1], body.bytes, body.length, &facts), ops;
    size_t place;
    int taken;
    dtp_graph *copy = fresh(0);

    CHECK(code == DTP_OK || (code == DTP_E_FORMAT && facts.place <= body.length));
    ops = dtp_graph_ops(graph, body.bytes, body.length, &view, &place);
    CHECK(ops == code || (ops == DTP_OK && code == DTP_E_FORMAT)); /* edits of texts in another's name */
    CHECK(dtp_graph_weigh(graph, body.bytes, body.length, &load) == ops);
    taken = dtp_graph_merge(graph, (uint32_t)author, body.bytes, body.length, limit, 1, &merged);
    CHECK(taken == code || (taken == 1 && code == DTP_OK && merged.edits > 0));
    CHECK(same_load(dtp_graph_deferred_load(graph), merged.deferred ? load : none));
    after = saved(graph);
    CHECK(code == DTP_OK || same(before, after));
    CHECK(code != DTP_OK || dtp_graph_merge(graph, (uint32_t)author, body.bytes, body.length, limit, 1, &merged) == DTP_OK);
    CHECK(code != DTP_OK || merged.ops == 0);
    CHECK(dtp_graph_souls(graph, NULL, 0, &view) == DTP_OK);
    any_lookups(graph);
    CHECK(dtp_graph_load(copy, after.bytes, after.length, &place) == DTP_OK);
    again = saved(copy);
    CHECK(same(after, again));
    CHECK(same_load(dtp_graph_deferred_load(graph), dtp_graph_deferred_load(copy)));
    dtp_graph_close(copy);
    while (dtp_graph_due(graph, INT64_MAX, &merged) == DTP_OK && merged.ops > 0)
        continue;
    CHECK(same_load(dtp_graph_deferred_load(graph), none));
    CHECK(dtp_graph_tidy(graph) == DTP_OK);
    dtp_graph_close(graph);
    if (code == DTP_OK)
        any_account(&body, &facts);
    drop(again);
    drop(after);
    drop(before);
    drop(body);
}

/* A frame of any ops under any verdicts: it is refused without them where it needs some, and what is void does nothing. */
static void any_verdicts(choices *c)
{
    static const char *const souls[] = {"a", "~", "~x", "%", "%k:h/p", "%access/x"};
    static const char *const names[] = {"", "k"};
    dtp_graph *maker = fresh(1), *graph = fresh(0), *empty = fresh(0);
    uint32_t author = (uint32_t)dtp_graph_author(graph, keys[1]), other = (uint32_t)dtp_graph_author(empty, keys[1]);
    uint8_t verdicts[16], voids[16];
    size_t count = 1 + choose8(c) % 8, i, needs = 0;
    dtp_committed committed;
    dtp_merged merged;
    kept body, before, after;
    int code;
    dtp_graph_trust(maker, 1);
    for (i = 0; i < count; i++) {
        const char *soul = souls[choose8(c) % 6], *key = names[choose8(c) & 1];
        uint8_t value = (uint8_t)(choose8(c) & 3);
        dtp_do what = {(const uint8_t *)soul, strlen(soul), (const uint8_t *)key, strlen(key), &value, 1, DTP_SET_ADD,
                       NULL, 0};
        CHECK(dtp_graph_do(maker, &what, (uint64_t)(1 + choose8(c)) << 16, &merged) == DTP_OK);
        verdicts[i] = (uint8_t)(choose8(c) % 3);
        voids[i] = DTP_VOID;
        needs += soul[0] != 'a';
    }
    CHECK(dtp_graph_commit(maker, &committed) == DTP_OK);
    body = keep(committed.body, committed.length, 1);
    before = saved(graph);
    dtp_graph_ask(graph);
    dtp_graph_ask(empty);
    code = dtp_graph_merge(graph, author, body.bytes, body.length, limit, 1, &merged);
    CHECK(code == (needs > 0 ? DTP_E_RULED : DTP_OK));
    if (needs > 0) {
        after = saved(graph);
        CHECK(same(before, after));
        drop(after);
        CHECK(dtp_graph_judge(graph, verdicts, count + 1) == DTP_OK);
        CHECK(dtp_graph_merge(graph, author, body.bytes, body.length, limit, 1, &merged) == DTP_E_LIMIT);
        CHECK(dtp_graph_judge(graph, verdicts, count) == DTP_OK);
        CHECK(dtp_graph_merge(graph, author, body.bytes, body.length, limit, 1, &merged) == DTP_OK);
        CHECK(dtp_graph_judge(empty, voids, count) == DTP_OK);
        CHECK(dtp_graph_merge(empty, other, body.bytes, body.length, limit, 1, &merged) == DTP_OK);
        CHECK(merged.count == 0 && merged.ops == count);
    }
    dtp_graph_close(maker);
    dtp_graph_close(graph);
    dtp_graph_close(empty);
    drop(before);
    drop(body);
}

static void any_state(choices *c)
{
    static const uint8_t head[5] = {'d', 't', 'p', 'g', 1};
    dtp_graph *graph = fresh(0);
    kept state = {exactly(c->left + sizeof head), c->left + sizeof head, 0}, once;
    size_t place;
    int code;
    memcpy(state.bytes, head, sizeof head);
    if (c->left > 0)
        memcpy(state.bytes + sizeof head, c->data, c->left);
    code = dtp_graph_load(graph, state.bytes, state.length, &place);
    CHECK(code == DTP_OK || code == DTP_E_FORMAT || code == DTP_E_LIMIT);
    CHECK(place <= state.length);
    once = saved(graph); /* also of what was loaded in part: memory is whole */
    dtp_graph_close(graph);
    drop(once);
    drop(state);
}

static void any_rows(choices *c)
{
    dtp_graph *graph = fresh(0);
    kept rows = keep(c->data, c->left, 0);
    dtp_merged merged;
    dtp_committed committed;
    int code = dtp_graph_put(graph, rows.bytes, rows.length, 1 << 16, &merged);
    CHECK(code == DTP_OK || code == DTP_E_FORMAT || code == DTP_E_LIMIT || code == DTP_E_OWNER); /* "~": another's soul */
    CHECK(dtp_graph_commit(graph, &committed) == DTP_OK);
    CHECK((committed.length > 0) == (code == DTP_OK && merged.ops > 0));
    dtp_graph_close(graph);
    drop(rows);
}

/* Any bytes as the frame of a summary: taken, and then a second time nothing, or refused, and then nothing is to be seen. */
static void any_summary(choices *c)
{
    dtp_graph *graph = fresh(0), *copy = fresh(0);
    uint64_t last = (uint64_t)choose8(c) << 8 | choose8(c), before = 0;
    kept body = keep(c->data, c->left, 0), empty = saved(graph), after, again;
    uint32_t author = (uint32_t)dtp_graph_author(graph, keys[1]);
    dtp_merged merged;
    size_t place, i;
    int code;
    for (i = 0; body.length > 8 && i < 8; i++)
        before |= (uint64_t)body.bytes[1 + i] << 8 * i;
    last = before < INT64_MAX - (last << 16) ? before + (last << 16) : last;
    code = dtp_summary_merge(graph, author, body.bytes, body.length, before, last, limit, &merged);
    CHECK(code >= DTP_OK || code == DTP_E_FORMAT || code == DTP_E_CLOCK);
    after = saved(graph);
    CHECK(code >= DTP_OK || same(empty, after));
    if (code >= DTP_OK)
        CHECK(dtp_summary_merge(graph, author, body.bytes, body.length, before, last, limit, &merged) == DTP_OK
              && merged.count == 0);
    CHECK(dtp_graph_load(copy, after.bytes, after.length, &place) == DTP_OK);
    again = saved(copy);
    CHECK(same(after, again));
    dtp_graph_close(copy);
    dtp_graph_close(graph);
    drop(again);
    drop(after);
    drop(empty);
    drop(body);
}

/* Any bytes as symbols: no more is read off than there are symbols; and what a set and itself differ in is nothing. */
static void any_symbols(choices *c)
{
    size_t count = c->left / sizeof(dtp_symbol), items = c->left / 8, found, i;
    dtp_symbol *symbols = (dtp_symbol *)(void *)exactly((count + 1) * sizeof *symbols);
    uint64_t *hashes = (uint64_t *)(void *)exactly((items + count + 1) * 8);
    dtp_walk *walks = (dtp_walk *)(void *)exactly((items + 1) * sizeof *walks);
    uint8_t *theirs = exactly(count + 1);
    int code;
    memset(symbols, 0, (count + 1) * sizeof *symbols);
    if (count > 0)
        memcpy(symbols, c->data, count * sizeof *symbols);
    code = dtp_sketch_read(symbols, count, hashes, theirs, &found);
    CHECK(found <= count && (count == 0 ? code == DTP_E_LIMIT : code == 0 || code == 1));
    if (items > 0)
        memcpy(hashes, c->data, items * 8);
    dtp_sketch_begin(hashes, items, walks);
    CHECK(dtp_sketch(hashes, items, walks, 0, count, symbols) == DTP_OK);
    for (i = 0; i < items; i++)
        CHECK(walks[i].at >= count && walks[i].at <= DTP_SKETCH_SYMBOLS);
    release(theirs, count + 1);
    release((uint8_t *)walks, (items + 1) * sizeof *walks);
    release((uint8_t *)hashes, (items + count + 1) * 8);
    release((uint8_t *)symbols, (count + 1) * sizeof *symbols);
}

enum { EDIT = 2 + 3 + DTP_AUTHOR + 7 }; /* one more of a list */

/* MessagePack of a message: the agent named as the author inserted one character at the beginning of an empty text. Its
 * length. */
static size_t typed(uint8_t *edit, const uint8_t *author, unsigned number)
{
    const uint8_t head[] = {0xc4, EDIT - 2, 0xd1, 1, DTP_AUTHOR};
    const uint8_t tail[] = {1, (uint8_t)(number & 3), 0x98, 3, 0, 1, 'x'};
    memcpy(edit, head, sizeof head);
    memcpy(edit + sizeof head, author, DTP_AUTHOR);
    memcpy(edit + sizeof head + DTP_AUTHOR, tail, sizeof tail);
    return EDIT;
}

/* The same of a list: one element, the number 7. */
static size_t listed(uint8_t *edit, const uint8_t *author, unsigned number)
{
    size_t size = typed(edit, author, number);
    edit[1]++;
    edit[2] += 2; /* of a list */
    edit[size - 2] = 2;
    edit[size - 1] = 1;
    edit[size] = 7;
    return size + 1;
}

static const uint8_t *own_key(dtp_graph *graph)
{
    const uint8_t *id;
    CHECK(dtp_graph_author_id(graph, 0, &id) == DTP_OK);
    return id;
}

/* One op of a chosen kind. */
static void make(dtp_graph *graph, choices *c)
{
    static const char *souls[] = {"a", "b/long enough", "c"}, *names[] = {"", "k", "key"};
    uint8_t value[12] = {(uint8_t)(choose8(c) & 3)}, edit[EDIT + 1];
    static const uint32_t kinds[] = {DTP_COUNTER_TOTAL, DTP_SET_ADD, DTP_SET_REMOVE, DTP_VALUES_PUT, DTP_VALUES_REMOVE,
                                     DTP_TEXT_EDIT, DTP_LIST_EDIT};
    const char *soul = souls[choose8(c) % 3], *key = names[choose8(c) % 3];
    dtp_do what = {(const uint8_t *)soul, strlen(soul), (const uint8_t *)key, strlen(key), value, 1, 0, NULL, 0};
    static const uint64_t first[] = {1};
    int removes_own = value[0] == 2;
    dtp_merged merged;
    if (value[0] == 3) { /* one that is kept elsewhere */
        value[0] = 0xab;
        memset(value + 1, 'x', 11);
        what.value_length = 12;
    }
    what.kind = kinds[choose8(c) % 7];
    if (what.kind == DTP_COUNTER_TOTAL) {
        value[0] = (uint8_t)choose8(c);
        value[0] = value[0] < 0xc0 && value[0] > 0x7f ? 0x7f : value[0] < 0xe0 && value[0] > 0x7f ? 0xff : value[0];
        what.value_length = 1;
    }
    if (what.kind == DTP_VALUES_REMOVE)
        what.value_length = 0;
    if (what.kind == DTP_TEXT_EDIT || what.kind == DTP_LIST_EDIT) {
        what.value_length = (what.kind == DTP_TEXT_EDIT ? typed : listed)(edit, own_key(graph), choose8(c));
        what.value = edit;
    }
    if (removes_own && (what.kind == DTP_SET_REMOVE || what.kind == DTP_VALUES_REMOVE)) {
        what.own = first; /* whatever it is; none, before anything was made */
        what.own_count = 1;
        what.value_length = 0;
        CHECK(dtp_graph_do(graph, &what, (uint64_t)(1 + choose8(c)) << 16, &merged) != DTP_E_MEMORY);
        return;
    }
    CHECK(dtp_graph_do(graph, &what, (uint64_t)(1 + choose8(c)) << 16, &merged) == DTP_OK);
}

static void deliver(dtp_graph *graph, kept frame)
{
    dtp_merged merged;
    uint32_t author = (uint32_t)dtp_graph_author(graph, keys[frame.author]);
    CHECK(dtp_graph_merge(graph, author, frame.bytes, frame.length, limit, 1, &merged) >= DTP_OK);
}

/* What graphs[who], which has everything, sums up of that author's frames from the `start`th on. */
static void deliver_summary(dtp_graph *to, dtp_graph *from, const kept *frames, size_t count, int who, size_t start)
{
    uint32_t author = (uint32_t)dtp_graph_author(to, keys[who]);
    uint64_t before = 0, last = 0;
    dtp_summary *summary = NULL;
    dtp_frame_facts facts;
    dtp_merged merged;
    dtp_view view;
    size_t i, place;
    for (i = 0; i < count; i++) {
        if (frames[i].author != who || start-- > 0)
            continue;
        start = 0;
        CHECK(dtp_graph_check(from, NULL, frames[i].bytes, frames[i].length, &facts) == DTP_OK);
        before = summary == NULL ? facts.before : before;
        last = facts.last;
        if (summary == NULL)
            CHECK(dtp_summary_open(from, 0, before, &summary) == DTP_OK);
        CHECK(dtp_summary_add(from, summary, frames[i].bytes, frames[i].length, &place) == DTP_OK);
    }
    if (summary == NULL)
        return;
    CHECK(dtp_summary_end(from, summary, &view) == DTP_OK);
    CHECK(dtp_summary_merge(to, author, view.bytes, view.length, before, last, limit, &merged) >= DTP_OK);
    dtp_summary_close(summary);
}

static void two_replicas(choices *c)
{
    enum { GRAPHS = 4 };
    dtp_graph *graphs[GRAPHS] = {fresh(0), fresh(1), fresh(0), fresh(0)};
    kept frames[FRAMES], states[GRAPHS];
    int who;
    size_t count = 0, i;
    while (count < FRAMES && c->left > 0) {
        unsigned ops = 1 + choose8(c) % 4;
        dtp_committed committed;
        who = (int)(choose8(c) & 1);
        while (ops-- > 0)
            make(graphs[who], c);
        CHECK(dtp_graph_commit(graphs[who], &committed) == DTP_OK);
        if (committed.length > 0)
            frames[count++] = keep(committed.body, committed.length, who);
        if (count > 0 && choose8(c) & 1) /* some arrive early, in whatever order */
            deliver(graphs[choose8(c) & 1], frames[choose8(c) % count]);
    }
    for (i = 0; i < count; i++) {
        deliver(graphs[0], frames[i]);
        deliver(graphs[1], frames[count - 1 - i]);
        deliver(graphs[2], frames[(i * 7 + 3) % count]);
        deliver(graphs[2], frames[i]);
    }
    for (who = 0; who < 2; who++) { /* the last has some of the frames, and a summary that may begin before their end */
        size_t known = choose8(c) % (count + 1), seen = 0;
        for (i = 0; i < known; i++) {
            if (frames[i].author == who) {
                deliver(graphs[3], frames[i]);
                seen++;
            }
        }
        deliver_summary(graphs[3], graphs[who], frames, count, who, choose8(c) % (seen + 1));
    }
    for (i = 0; i < GRAPHS; i++) {
        CHECK(dtp_graph_tidy(graphs[i]) == DTP_OK);
        states[i] = saved(graphs[i]);
    }
    CHECK(same(states[0], states[1]));
    CHECK(same(states[0], states[2]));
    CHECK(same(states[0], states[3]));
    for (i = 0; i < GRAPHS; i++) {
        dtp_graph_close(graphs[i]);
        drop(states[i]);
    }
    for (i = 0; i < count; i++)
        drop(frames[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    choices c = {data, size};
    switch (choose8(&c) % 8) {
    case 0:
    case 1:
    case 2: any_frame(&c); break;
    case 3: any_state(&c); break;
    case 4: any_rows(&c); break;
    case 5: any_verdicts(&c); break;
    case 6:
        if (choose8(&c) & 1)
            any_summary(&c);
        else
            any_symbols(&c);
        break;
    default: two_replicas(&c); break;
    }
    return 0;
}
