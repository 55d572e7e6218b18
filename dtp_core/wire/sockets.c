/* wire/sockets.c - reading from and sending to many sockets in one call. The only file that knows sockets. */
#ifdef __linux__
#define _GNU_SOURCE /* accept4, POLLRDHUP, MSG_DONTWAIT and MSG_NOSIGNAL beside -std=c11 */
#endif
#include "sockets.h"

#ifdef __linux__
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

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

static int has_ended(int fd)
{
    struct pollfd asked = {.fd = fd, .events = POLLRDHUP};
    return poll(&asked, 1, 0) > 0;
}

int dtp_accept(int listener, int32_t *fds, size_t count, size_t ended)
{
    size_t taken = 0, closed = 0;
    while (taken < count) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && closed < ended && has_ended(fd)) {
            close(fd);
            if (++closed == ended)
                break;
        } else if (fd >= 0) {
            fds[taken++] = fd;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            break;
        } else if (errno != ECONNABORTED && errno != EINTR) { /* those: it gave up while it waited in the queue */
            if (taken == 0 && closed == 0)
                return -errno;
            break;
        }
    }
    return (int)taken;
}

/* How a connect of a socket that doesn't block went: 0 or the negative of errno. */
static int settle(int fd, const struct sockaddr *address, socklen_t length)
{
    int tries;
    for (tries = 0; tries < 2; tries++) {
        if (connect(fd, address, length) == 0 || errno == EISCONN)
            return 0;
        if (errno != EINPROGRESS && errno != EALREADY && errno != EINTR)
            return -errno;
    }
    return -EINPROGRESS;
}

int dtp_dial(const uint8_t *address, size_t length, uint16_t port, const char *congestion)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    int fd, code, on = 1, is_v6 = length == sizeof v6.sin6_addr;

    if (!is_v6 && length != sizeof v4.sin_addr)
        return -EINVAL;
    fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* Only make it prompter, so a failure is no reason to do without the connection. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (congestion != NULL) /* before connecting: a control that paces leaves its timers to the one that follows */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion));
    if (is_v6) {
        memset(&v6, 0, sizeof v6);
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(port);
        memcpy(&v6.sin6_addr, address, length);
        code = settle(fd, (const struct sockaddr *)&v6, sizeof v6);
    } else {
        memset(&v4, 0, sizeof v4);
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        memcpy(&v4.sin_addr, address, length);
        code = settle(fd, (const struct sockaddr *)&v4, sizeof v4);
    }
    if (code == 0)
        return fd;
    close(fd);
    return code;
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

int dtp_accept(int listener, int32_t *fds, size_t count, size_t ended)
{
    (void)listener, (void)fds, (void)count, (void)ended;
    return 0;
}

int dtp_dial(const uint8_t *address, size_t length, uint16_t port, const char *congestion)
{
    (void)address, (void)length, (void)port, (void)congestion;
    return -1;
}

#endif
