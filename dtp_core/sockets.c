/* sockets.c - reading from and sending to many sockets in one call. The only file that knows sockets. */
#ifdef __linux__
#define _GNU_SOURCE /* MSG_DONTWAIT and MSG_NOSIGNAL beside -std=c11 */
#endif
#include "sockets.h"

#ifdef __linux__
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    READY = 256, /* asked of the set at once; more stay ready for the next call */
    AHEAD = 64,  /* spans looked at for more of the same socket, so that a long list stays a matter of moments */
    STUCK = 64   /* sockets that did not take all; with more, all that is left is the caller's affair */
};

static const int32_t UNDECIDED = INT32_MIN;

int dtp_sockets_supported(void)
{
    return 1;
}

int dtp_gather(int epoll, uint8_t *out, size_t capacity, size_t piece, dtp_gathered *found, size_t count)
{
    struct epoll_event events[READY];
    size_t used = 0;
    int ready, i, listed = 0;

    if (count == 0 || piece == 0 || piece > INT32_MAX)
        return 0;
    ready = epoll_wait(epoll, events, count < READY ? (int)count : READY, 0);
    if (ready < 0)
        return errno == EINTR ? 0 : -errno;
    for (i = 0; i < ready && capacity - used >= piece; i++) {
        int fd = events[i].data.fd;
        ssize_t got = recv(fd, out + used, piece, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
            continue;
        found[listed].fd = fd;
        found[listed].size = got < 0 ? -errno : (int32_t)got;
        listed++;
        if (got > 0)
            used += (size_t)got;
    }
    return listed;
}

static int is_among(const int32_t *list, size_t count, int32_t fd)
{
    size_t i;
    for (i = 0; i < count; i++) {
        if (list[i] == fd)
            return 1;
    }
    return 0;
}

/* Say how many of `done` bytes (or which error) each of these spans got; gives how many were not sent whole. */
static size_t share(const uint32_t *lengths, const size_t *spans, size_t count, ssize_t done, int32_t *sent)
{
    size_t i, broken = 0, left = done > 0 ? (size_t)done : 0;
    for (i = 0; i < count; i++) {
        size_t length = lengths[spans[i]], took = left < length ? left : length;
        sent[spans[i]] = (int32_t)took;
        broken += took < length;
        left -= took;
    }
    if (done < 0)
        sent[spans[0]] = (int32_t)done;
    return broken;
}

size_t dtp_scatter(const uint8_t *buffer, const int32_t *fds, const uint32_t *starts, const uint32_t *lengths,
                   int32_t *sent, size_t count)
{
    int32_t stuck[STUCK];
    size_t i, stuck_count = 0, broken = 0;
    for (i = 0; i < count; i++)
        sent[i] = UNDECIDED;
    for (i = 0; i < count; i++) {
        struct iovec parts[AHEAD];
        size_t spans[AHEAD], n = 0, j, short_ones;
        struct msghdr message;
        ssize_t done;
        if (sent[i] != UNDECIDED)
            continue;
        if (fds[i] < 0 || stuck_count == STUCK || is_among(stuck, stuck_count, fds[i])) {
            sent[i] = 0;
            broken += lengths[i] > 0;
            continue;
        }
        for (j = i; j < count && j < i + AHEAD; j++) {
            if (fds[j] == fds[i] && sent[j] == UNDECIDED) {
                /* The kernel only reads it, but the type is shared with recvmsg. */
                parts[n].iov_base = (void *)(uintptr_t)(buffer + starts[j]);
                parts[n].iov_len = lengths[j];
                spans[n++] = j;
            }
        }
        memset(&message, 0, sizeof message);
        message.msg_iov = parts;
        message.msg_iovlen = n;
        done = sendmsg(fds[i], &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0)
            done = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -errno;
        short_ones = share(lengths, spans, n, done, sent);
        if (short_ones > 0)
            stuck[stuck_count++] = fds[i];
        broken += short_ones;
    }
    return broken;
}

#else

int dtp_sockets_supported(void)
{
    return 0;
}

int dtp_gather(int epoll, uint8_t *out, size_t capacity, size_t piece, dtp_gathered *found, size_t count)
{
    (void)epoll, (void)out, (void)capacity, (void)piece, (void)found, (void)count;
    return 0;
}

size_t dtp_scatter(const uint8_t *buffer, const int32_t *fds, const uint32_t *starts, const uint32_t *lengths,
                   int32_t *sent, size_t count)
{
    size_t i;
    (void)buffer, (void)fds, (void)starts, (void)lengths;
    for (i = 0; i < count; i++)
        sent[i] = 0;
    return count;
}

#endif
