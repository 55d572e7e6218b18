/* fuzz_sockets.c - dtp_gather and dtp_scatter over socket pairs, and dtp_seal_pieces of what was gathered: every byte
 * that went in comes out once, in order, whatever the sizes, ends and full sockets. */
#define _GNU_SOURCE
#include "harness.h"

#include "../sockets.h"

#ifdef __linux__
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAIRS = 6, MOST = 4096, SPANS = 16 };

typedef struct line {
    int ours, theirs; /* -1: closed */
    size_t put, got;  /* bytes given to the one end, and taken from the other */
} line;

static uint8_t byte_of(size_t number, size_t place)
{
    return (uint8_t)(number * 41 + place * 7);
}

static void open_lines(choices *c, line *lines, size_t count, int epoll)
{
    size_t i;
    for (i = 0; i < count; i++) {
        int ends[2], small = 2048;
        struct epoll_event event;
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
        if (choose8(c) & 1)
            CHECK(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small) == 0);
        lines[i] = (line){ends[0], ends[1], 0, 0};
        memset(&event, 0, sizeof event);
        event.events = EPOLLIN;
        event.data.fd = ends[0];
        CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
    }
}

/* The other ends say something, or end. */
static void speak(choices *c, line *lines, size_t count)
{
    uint8_t data[MOST];
    size_t i, k;
    for (i = 0; i < count; i++) {
        size_t size = least(choose_length(c), MOST);
        if (lines[i].theirs < 0)
            continue;
        for (k = 0; k < size; k++)
            data[k] = byte_of(i, lines[i].put + k);
        if (size > 0) {
            ssize_t sent = send(lines[i].theirs, data, size, MSG_NOSIGNAL);
            lines[i].put += sent > 0 ? (size_t)sent : 0;
        }
        if (choose8(c) == 3) {
            close(lines[i].theirs);
            lines[i].theirs = -1;
        }
    }
}

/* Seal what was gathered as pieces of streams, open it, and find the same bytes. */
static void seal_and_open(const uint8_t *data, size_t length, const uint32_t *starts, const uint32_t *sizes,
                          const uint64_t *streams, size_t count)
{
    static dtp_incoming opened_frames[DTP_MAX_PLAINTEXT / DTP_FRAME_HEADER + 1];
    size_t capacity = length + 64 * (count + 1), i, seen = 0;
    uint8_t *out = exactly(capacity);
    uint64_t offsets[SPANS] = {0};
    dtp_outgoing frames[SPANS];
    dtp_cipher sealer, opener;
    dtp_sealed sealed;
    dtp_opened opened;
    CHECK(dtp_cipher_init(&sealer, DTP_AESGCM, harness_key, 0) == DTP_OK);
    CHECK(dtp_cipher_init(&opener, DTP_AESGCM, harness_key, 0) == DTP_OK);
    CHECK(dtp_seal_pieces(&sealer, frames, streams, offsets, starts, sizes, count, data, length, DTP_MAX_PLAINTEXT, out,
                          capacity, &sealed) == DTP_OK);
    CHECK(sealed.frames == count);
    CHECK(dtp_open(&opener, out, sealed.length, opened_frames, sizeof opened_frames / sizeof *opened_frames, &opened)
          == DTP_OK);
    for (i = 0; i < opened.frames; i++) {
        CHECK(memcmp(out + opened_frames[i].start, data + seen, opened_frames[i].length) == 0);
        seen += opened_frames[i].length;
    }
    CHECK(seen == length);
    if (count > 0) { /* a span that is not within the data is refused, and nothing is sealed */
        dtp_cipher before = sealer;
        CHECK(dtp_seal_pieces(&sealer, frames, streams, offsets, starts, sizes, count, data, length - 1, DTP_MAX_PLAINTEXT,
                              out, capacity, &sealed) == DTP_E_SPACE);
        CHECK(same_cipher(&sealer, &before));
    }
    dtp_cipher_wipe(&sealer);
    dtp_cipher_wipe(&opener);
    release(out, capacity);
}

static void gather_some(choices *c, line *lines, size_t count, int epoll)
{
    size_t capacity = choose_length(c), piece = least(choose_length(c), MOST), most = choose8(c) % SPANS, at = 0, i;
    uint8_t *out = exactly(capacity);
    dtp_gathered found[SPANS];
    uint32_t starts[SPANS], sizes[SPANS];
    uint64_t streams[SPANS];
    size_t pieces = 0;
    int listed = dtp_gather(epoll, out, capacity, piece, found, most), k;
    CHECK(listed >= 0 && (size_t)listed <= most);
    for (k = 0; k < listed; k++) {
        size_t number = 0, place;
        while (lines[number].ours != found[k].fd)
            CHECK(++number < count);
        CHECK(found[k].size <= (int)piece);
        if (found[k].size <= 0) {
            CHECK(lines[number].theirs < 0);
            CHECK(found[k].size < 0 || lines[number].got == lines[number].put);
            continue;
        }
        for (place = 0; place < (size_t)found[k].size; place++)
            CHECK(out[at + place] == byte_of(number, lines[number].got + place));
        lines[number].got += (size_t)found[k].size;
        starts[pieces] = (uint32_t)at;
        sizes[pieces] = (uint32_t)found[k].size;
        streams[pieces] = number;
        for (i = 0; i < pieces; i++)
            CHECK(streams[i] != number);
        pieces++;
        at += (size_t)found[k].size;
    }
    CHECK(at <= capacity);
    seal_and_open(out, at, starts, sizes, streams, pieces);
    release(out, capacity);
}

/* Send spans of one buffer to chosen ends, and read there what the result says that they got. */
static void scatter_some(choices *c, line *lines, size_t count)
{
    size_t length = choose_text(c), spans = choose8(c) % SPANS, i, broken = 0, k;
    uint8_t *buffer = exactly(length), back[1 << 16];
    int32_t fds[SPANS] = {0}, sent[SPANS];
    uint32_t starts[SPANS] = {0}, lengths[SPANS] = {0};
    for (i = 0; i < length; i++)
        buffer[i] = (uint8_t)choose8(c);
    for (i = 0; i < spans; i++) {
        size_t number = choose8(c) % (count + 1);
        fds[i] = number < count ? lines[number].ours : -1;
        starts[i] = (uint32_t)(length > 0 ? choose16(c) % length : 0);
        lengths[i] = (uint32_t)(length > 0 ? choose16(c) % (length - starts[i]) + 1 : 0);
    }
    if (length == 0)
        spans = 0; /* nothing is never sent */
    k = dtp_scatter(buffer, fds, starts, lengths, sent, spans);
    for (i = 0; i < spans; i++) {
        size_t number = 0;
        CHECK(sent[i] <= (int32_t)lengths[i]);
        broken += sent[i] < (int32_t)lengths[i];
        CHECK(fds[i] >= 0 || sent[i] == 0);
        if (sent[i] <= 0)
            continue;
        while (lines[number].ours != fds[i])
            number++;
        CHECK(lines[number].theirs >= 0);
        CHECK(recv(lines[number].theirs, back, (size_t)sent[i], 0) == sent[i]);
        CHECK(memcmp(back, buffer + starts[i], (size_t)sent[i]) == 0);
    }
    CHECK(k == broken);
    release(buffer, length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    choices c = {data, size};
    line lines[PAIRS];
    size_t count = 1 + choose8(&c) % PAIRS, turns = choose8(&c) % 8, i;
    int epoll = epoll_create1(0);
    harness_ciphers(0);
    CHECK(epoll >= 0 && dtp_sockets_supported());
    open_lines(&c, lines, count, epoll);
    for (i = 0; i < turns; i++) {
        speak(&c, lines, count);
        gather_some(&c, lines, count, epoll);
        scatter_some(&c, lines, count);
    }
    for (i = 0; i < count; i++) {
        close(lines[i].ours);
        if (lines[i].theirs >= 0)
            close(lines[i].theirs);
    }
    close(epoll);
    CHECK(dtp_gather(-1, NULL, 0, 1, NULL, 1) == -EBADF);
    return 0;
}

#else

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)data, (void)size;
    CHECK(!dtp_sockets_supported());
    return 0;
}

#endif
