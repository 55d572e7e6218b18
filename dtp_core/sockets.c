/* sockets.c - reading from and sending to many sockets in one call. The only file that knows sockets. */
#ifdef __linux__
#define _GNU_SOURCE /* MSG_DONTWAIT and MSG_NOSIGNAL beside -std=c11 */
#endif
#include "sockets.h"

#ifdef __linux__
#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* Asked of the set at once; more stay ready for the next call. */
enum { READY = 256 };

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

/* Whether an earlier span of the same descriptor was not sent whole; only asked once there was one. */
static int stuck(const int32_t *fds, const uint32_t *lengths, const int32_t *sent, size_t at)
{
    size_t i;
    for (i = 0; i < at; i++) {
        if (fds[i] == fds[at] && (sent[i] < 0 || (uint32_t)sent[i] < lengths[i]))
            return 1;
    }
    return 0;
}

size_t dtp_scatter(const uint8_t *buffer, const int32_t *fds, const uint32_t *starts, const uint32_t *lengths,
                   int32_t *sent, size_t count)
{
    size_t i, broken = 0;
    for (i = 0; i < count; i++) {
        ssize_t done = 0;
        if (fds[i] >= 0 && (broken == 0 || !stuck(fds, lengths, sent, i))) {
            done = send(fds[i], buffer + starts[i], lengths[i], MSG_DONTWAIT | MSG_NOSIGNAL);
            if (done < 0)
                done = errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -errno;
        }
        sent[i] = (int32_t)done;
        broken += done < 0 || (size_t)done < lengths[i];
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
