/* sockets.h - many sockets in one call: what relays spend most of their time on (docs/decisions/0081).
 *
 * Beside dtp.h and not part of it: the protocol knows no socket. Read by the C compiler, by cffi and by you. All
 * memory is the caller's. Where the system has no epoll, DTP_SOCKETS is 0 and nothing here does anything.
 */
#ifndef DTP_SOCKETS_H
#define DTP_SOCKETS_H

#include <stddef.h>
#include <stdint.h>

/* 1 where dtp_gather and dtp_scatter work, else 0. */
int dtp_sockets_supported(void);

/* What came from one socket: `size` bytes, 0 at its end, or the negative of errno. */
typedef struct dtp_gathered {
    int32_t fd;
    int32_t size;
} dtp_gathered;

/* Read once, without waiting, from every socket that the epoll set has ready, at most `piece` bytes each; the bytes
 * stand one behind the other in `out`. A socket is left for the next call when fewer than `piece` bytes of room are
 * left, or `count` were listed; one that has nothing after all is not listed. The set's data are descriptors. Gives how
 * many were listed, or the negative of errno when the set itself can't be asked. */
int dtp_gather(int epoll, uint8_t *out, size_t capacity, size_t piece, dtp_gathered *found, size_t count);

/* Send buffer[starts[i]] and the lengths[i] - 1 bytes behind it to fds[i], without waiting; spans of one descriptor in
 * their order, and together where they stand near each other in the list. sent[i] is how many bytes the system took, or
 * the negative of errno. Of a descriptor that did not take all, nothing more is sent in this call; nor of a negative one,
 * nor of any once very many did not: 0. Gives how many spans were not sent whole. */
size_t dtp_scatter(const uint8_t *buffer, const int32_t *fds, const uint32_t *starts, const uint32_t *lengths,
                   int32_t *sent, size_t count);

/* Take up to `count` connections that wait at a listening socket, without waiting; what is taken doesn't block and is
 * closed on exec. Up to `ended` of those whose other side has ended already are closed here, and not given: it sends
 * nothing more, so nothing comes of them where an answer is needed. Gives how many descriptors are in `fds`: fewer than
 * `count` when no more wait, or so many had ended. The negative of errno when not one could be taken for another
 * reason, such as EMFILE; then, or after fewer, the next call tells again. */
int dtp_accept(int listener, int32_t *fds, size_t count, size_t ended);

/* Connect to a TCP port of this machine, without waiting: a connection over loopback is there at once, though a socket
 * that doesn't block says so only when asked again. `address` is 4 (IPv4) or 16 (IPv6) bytes in network order, `port` a
 * number, `congestion` the name of a congestion control, taken where the system lets us, or NULL for the system's own
 * choice. Gives the descriptor, which doesn't block, sends small writes at once and is closed on exec; or the
 * negative of errno: EINPROGRESS when it takes time after all. */
int dtp_dial(const uint8_t *address, size_t length, uint16_t port, const char *congestion);

#endif
