/* fuzz_text.c - texts and lists: replicas edit, undo, compact, exchange true messages and broken ones, and end up alike; and any
 * bytes in place of messages. */
#include "harness.h"

#include "../crdt_text_internal.h"

enum { REPLICAS = 3, KEPT = 8 };

static const uint8_t seed[16];
static int lists; /* instead of texts */

static dtp_text *fresh(const char *name)
{
    dtp_text *t = (lists ? dtp_list_new : dtp_text_new)((const uint8_t *)name, 1, seed);
    CHECK(t != NULL);
    return t;
}

typedef struct message_kept {
    uint8_t *data;
    size_t size;
} message_kept;

static void check(dtp_text *t)
{
    CHECK(dtp_text_check(t) == DTP_TEXT_OK);
}

static int code_is_known(int64_t code)
{
    return code >= 0 || (code <= DTP_TEXT_BUSY && code >= DTP_TEXT_GONE);
}

/* Merge bytes of exactly this size, so that the sanitizers see the first one beyond. */
static int64_t merge_exactly(dtp_text *t, const uint8_t *data, size_t size, int patches)
{
    static const uint8_t nothing[1];
    uint8_t *copy;
    int64_t code;
    if (size == 0)
        return dtp_text_merge(t, nothing, 0, patches);
    copy = exactly(size);
    memcpy(copy, data, size);
    code = dtp_text_merge(t, copy, size, patches);
    CHECK(code_is_known(code));
    CHECK(t->state.at <= size || (code != DTP_TEXT_FORMAT && code != DTP_TEXT_REFERENCE && code != DTP_TEXT_STALE));
    release(copy, size);
    return code;
}

/* What is left of the input, behind a plausible beginning. */
static void merge_garbage(dtp_text *t, choices *c, unsigned how)
{
    uint8_t input[600] = {lists ? DTP_LIST_CHANGES : DTP_TEXT_CHANGES, 2, 1, 'A', 1, 'x'};
    size_t head = how & 1 ? 6 : 0, size = least(c->left, sizeof input - head);
    if (how & 2)
        input[0]++; /* a state */
    memcpy(input + head, c->data, size);
    c->data += size;
    c->left -= size;
    (void)merge_exactly(t, input, head + size, (int)(how & 4));
    check(t);
}

/* Insert, assign or move an element. */
static void insert_element(dtp_text *t, choices *c)
{
    static const char *const values[] = {"\x01", "\x02\xc0", "\xa1z", "\x92\x01\xa1y", "\xc1", "\x81\x01\x01"};
    const char *value = values[choose8(c) % 6];
    uint64_t position = choose8(c) % (t->state.length + 2), to = choose8(c) % (t->state.length + 1), now = choose8(c);
    size_t size = strlen(value);
    int code;
    if (to % 4 == 1)
        code = dtp_list_move(t, position, to, now);
    else if (to % 4 == 2)
        code = dtp_list_assign(t, position, (const uint8_t *)value, size, now);
    else
        code = dtp_list_insert(t, position, (const uint8_t *)value, size);
    CHECK(code == DTP_TEXT_OK || code == DTP_TEXT_RANGE || code == DTP_TEXT_FORMAT || code == DTP_TEXT_MEMORY);
    if (code == DTP_TEXT_OK) {
        const uint8_t *out;
        CHECK(dtp_list_read(t, 0, t->state.length, &out) >= (int64_t)t->state.length);
    }
}

/* What is told of marks: pieces within the text, of one name never two over one character. */
static void check_marked(dtp_text *t)
{
    const uint8_t *out;
    uint32_t head[4], row[3], i;
    int64_t size = dtp_text_marked(t, 0, t->state.length, &out);
    if (size == DTP_TEXT_MEMORY)
        return;
    CHECK(size >= 16);
    memcpy(head, out, sizeof head);
    CHECK(head[0] == 0 && head[3] == 0 && head[2] <= head[1] && 16 + (uint64_t)head[1] * 12 <= (uint64_t)size);
    for (i = 0; i < head[1]; i++) {
        memcpy(row, out + 16 + (size_t)i * 12, sizeof row);
        CHECK(row[0] < row[1] && row[1] <= t->state.length && row[2] < head[2]);
    }
    size = dtp_text_formats(t, &out);
    CHECK(size >= 16 || size == DTP_TEXT_MEMORY);
}

static void mark(dtp_text *t, choices *c)
{
    static const char *const names[] = {"bold", "link", "c:1", "c:2", "\xff", ""};
    static const char *const values[] = {"\xc3", "\xc0", "\x01", "\xa1u", "\xc1", "\x92\x01\xc0"};
    unsigned what = choose8(c), how = choose8(c);
    uint64_t start = choose8(c) % (t->state.length + 2), stop = start + how % 8;
    const char *name = names[what % 6], *value = values[what / 8 % 6];
    int code = dtp_text_mark(t, start, stop, (const uint8_t *)name, strlen(name), (const uint8_t *)value, strlen(value),
                             how / 8 % 4, how & 64 ? how : 0);
    CHECK(code == DTP_TEXT_OK || code == DTP_TEXT_RANGE || code == DTP_TEXT_FORMAT || code == DTP_TEXT_MEMORY);
    check_marked(t);
}

static void insert(dtp_text *t, choices *c)
{
    static const char *const pieces[] = {"a",   "bc", "\n", "\xc3\xa9", "\xe6\xbc\xa2", "\xf0\x9f\x98\x80",
                                         "\x80", "x\xed"};
    const char *piece;
    uint64_t position;
    unsigned how;
    int code;
    if (lists) {
        insert_element(t, c);
        return;
    }
    how = choose8(c);
    if (how >= 160) {
        mark(t, c);
        return;
    }
    piece = pieces[how % 8];
    position = choose8(c) % (t->state.length + 2);
    code = dtp_text_insert(t, position, (const uint8_t *)piece, strlen(piece));
    CHECK(code == DTP_TEXT_OK || code == DTP_TEXT_RANGE || code == DTP_TEXT_UTF8 || code == DTP_TEXT_MEMORY);
}

static void remove_some(dtp_text *t, choices *c)
{
    uint64_t position = choose8(c) % (t->state.length + 1), count = choose8(c) % 9;
    int code = (lists ? dtp_list_delete : dtp_text_delete)(t, position, count);
    CHECK(code == DTP_TEXT_OK || code == DTP_TEXT_MEMORY
          || (code == DTP_TEXT_RANGE && position + count > t->state.length));
}

static void keep(message_kept *kept, const uint8_t *data, int64_t size)
{
    CHECK(size >= 0);
    free(kept->data);
    kept->data = malloc((size_t)size + 1);
    CHECK(kept->data != NULL);
    if (size > 0)
        memcpy(kept->data, data, (size_t)size);
    kept->size = (size_t)size;
}

/* Send `to` what it lacks; with a bit of it turned over when `broken`. `forged`: that has happened to someone. */
static void send_changes(dtp_text *from, dtp_text *to, choices *c, int broken, int forged)
{
    const uint8_t *out;
    message_kept version = {NULL, 0}, changes = {NULL, 0};
    int64_t size = dtp_text_version(to, &out), code;
    keep(&version, out, size);
    size = dtp_text_changes(from, version.data, version.size, &out);
    keep(&changes, out, size);
    if (broken && changes.size > 0) {
        changes.data[choose16(c) % changes.size] ^= (uint8_t)(1u << choose8(c) % 8);
        (void)merge_exactly(to, changes.data, choose8(c) % 4 ? changes.size : changes.size / 2, 1);
        check(to);
    } else {
        code = merge_exactly(to, changes.data, changes.size, 1);
        CHECK(code == DTP_TEXT_OK || forged);
    }
    free(version.data);
    free(changes.data);
}

/* What is saved is what is loaded, whatever is compacted and what isn't. */
static void check_loading(dtp_text *t)
{
    const uint8_t *out;
    message_kept first = {NULL, 0}, second = {NULL, 0};
    dtp_text *copy = fresh("L");
    int64_t size = dtp_text_changes(t, NULL, 0, &out);
    keep(&first, out, size);
    CHECK(merge_exactly(copy, first.data, first.size, 0) == DTP_TEXT_OK);
    check(copy);
    size = dtp_text_changes(copy, NULL, 0, &out);
    keep(&second, out, size);
    CHECK(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
    CHECK(copy->state.length == t->state.length);
    dtp_text_free(copy);
    free(first.data);
    free(second.data);
}

static uint32_t known(dtp_text *t, uint8_t name)
{
    int64_t i = dtp_text_agent_find(t, &name, 1);
    return i < 0 ? 0 : t->agents[i].next;
}

/* Compact by what all have, if nobody has anything that isn't here. */
static void compact_known(dtp_text *t, dtp_text **texts)
{
    uint8_t version[1 + REPLICAS * (2 + DTP_VARINT_MAX)] = {0}, *at = version + 1, name;
    unsigned i;
    for (name = 'A'; name < 'A' + REPLICAS; name++) {
        uint32_t stable = known(t, name);
        for (i = 0; i < REPLICAS; i++) {
            uint32_t there = known(texts[i], name);
            if (there > known(t, name))
                return;
            stable = there < stable ? there : stable;
        }
        if (stable == 0)
            continue;
        *at++ = 1;
        *at++ = name;
        at = dtp_put_varint(at, stable);
        version[0]++;
    }
    CHECK(dtp_text_compact(t, version, (size_t)(at - version)) >= 0);
    check(t);
    check_loading(t);
}

/* Any edits, messages late, twice or never; when nothing is broken all end up alike, also compacted. */
static void live(choices *c, int broken)
{
    dtp_text *texts[REPLICAS];
    message_kept kept[KEPT];
    const uint8_t *out;
    int64_t size;
    unsigned i, k, steps;
    memset(kept, 0, sizeof kept);
    for (i = 0; i < REPLICAS; i++) {
        static const char *const names[REPLICAS] = {"C", "B", "A"};
        texts[i] = fresh(names[i]);
    }
    for (steps = 0; c->left > 0 && steps < 300; steps++) {
        unsigned what = choose8(c);
        dtp_text *t = texts[what % REPLICAS], *other = texts[(what / 8 + what) % REPLICAS];
        message_kept *slot = &kept[what / 16 % KEPT];
        switch (what / REPLICAS % 8) {
        case 0: case 1: case 2:
            insert(t, c);
            break;
        case 3:
            remove_some(t, c);
            break;
        case 4:
            CHECK(code_is_known(what & 64 ? dtp_text_undo(t) : dtp_text_redo(t)));
            break;
        case 5:
            size = dtp_text_take(t, what & 64 ? UINT64_MAX : dtp_text_look(t)->taken + 2, &out);
            if (what & 64)
                dtp_text_look(t)->taken = dtp_text_look(t)->next;
            keep(slot, out, size);
            break;
        case 6:
            if (slot->size > 0)
                CHECK(code_is_known(merge_exactly(t, slot->data, slot->size, (int)(what & 64))));
            break;
        default:
            if (!broken && (what & 64))
                compact_known(t, texts);
            else
                send_changes(other, t, c, broken && (what & 64), broken);
        }
        check(t);
    }
    if (!broken) {
        for (k = 0; k < 2 * REPLICAS * REPLICAS; k++)
            send_changes(texts[k % REPLICAS], texts[k / REPLICAS % REPLICAS], c, 0, 0);
        for (i = 0; i < REPLICAS; i++) {
            size = dtp_text_version(texts[i], &out);
            keep(&kept[0], out, size);
            CHECK(dtp_text_compact(texts[i], kept[0].data, kept[0].size) >= 0);
            check(texts[i]);
            check_loading(texts[i]);
            size = dtp_text_changes(texts[i], NULL, 0, &out);
            keep(&kept[i + 1], out, size);
            CHECK(kept[i + 1].size == kept[1].size);
            CHECK(kept[1].size == 0 || memcmp(kept[i + 1].data, kept[1].data, kept[1].size) == 0);
        }
    }
    for (i = 0; i < REPLICAS; i++)
        dtp_text_free(texts[i]);
    for (k = 0; k < KEPT; k++)
        free(kept[k].data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    choices c = {data, size};
    unsigned how = choose8(&c);
    lists = (how & 4) != 0;
    if (how % 4 < 2) {
        live(&c, (int)(how % 4));
    } else {
        dtp_text *t = fresh("A");
        t->state.cap = how & 8 ? 20000 : 0;
        t->state.waiting_cap = 4096;
        insert(t, &c);
        insert(t, &c);
        remove_some(t, &c);
        merge_garbage(t, &c, how / 16);
        merge_garbage(t, &c, how / 16);
        t->state.cap = 0;
        insert(t, &c); /* whatever was taken, it goes on */
        (void)(lists ? dtp_list_insert : dtp_text_insert)(t, t->state.length, (const uint8_t *)"z", 1);
        check(t);
        check_loading(t);
        dtp_text_free(t);
    }
    return 0;
}
