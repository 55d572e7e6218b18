"""Many sockets in one call: reading all that are ready, and sending a piece to each. For relays.

Only where the system has epoll (`supported()`); everywhere else a relay watches its socket by itself. See
docs/decisions/0081.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
from array import array
from collections.abc import Sequence
from struct import Struct

from dtp.core._dtp_core import ffi, lib
from dtp.core.buffer import Buffer

#: Sockets read by one `gather` at most; more stay ready for the next.
MOST = 256
_GATHERED = Struct("@ii")
_INTS, _UNSIGNED = ffi.typeof("int32_t[]"), ffi.typeof("uint32_t[]")
_gather, _scatter, _from_buffer = lib.dtp_gather, lib.dtp_scatter, ffi.from_buffer
_accept, _dial, _NULL = lib.dtp_accept, lib.dtp_dial, ffi.NULL
_iter_gathered = _GATHERED.iter_unpack
#: What C gives: that it doesn't block is said here, so that Python needs no call to make it so.
_STREAM = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)


def supported() -> bool:
    """Return whether this system can do what is here."""
    return bool(lib.dtp_sockets_supported())


class ReadySet:
    """Sockets to read from when they are ready; its own descriptor can be read from while any of them is.

    Descriptors stay the caller's and must be removed before they are closed.
    """

    __slots__ = ("_epoll", "_fd", "_found", "_view")

    def __init__(self) -> None:
        assert sys.platform == "linux"
        self._epoll = select.epoll()
        self._fd = self._epoll.fileno()
        self._found = ffi.new("dtp_gathered[]", MOST)
        self._view = memoryview(ffi.buffer(self._found))

    def fileno(self) -> int:
        """Return the set's own descriptor."""
        return self._fd

    def add(self, fd: int) -> None:
        """Read from `fd`, too, which is not in the set."""
        self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """Read from `fd`, which is in the set, no more."""
        self._epoll.unregister(fd)

    def gather(self, out: Buffer, piece: int) -> list[tuple[int, int]]:
        """Read once from each socket that is ready, at most `piece` bytes: its descriptor and how many bytes it was.

        The bytes stand one behind the other in `out`, which has room for `piece` at least. 0 bytes: the socket's
        end; a negative number: minus the `errno` of its error. Raises `OSError` when the set is closed.
        """
        count = _gather(self._fd, out.pointer, out.size, piece, self._found, MOST)
        if count < 0:
            raise OSError(-count, "the set of sockets can't be asked")
        return list(_iter_gathered(self._view[: count * _GATHERED.size]))

    def close(self) -> None:
        """Forget all sockets. Idempotent."""
        self._fd = -1
        self._epoll.close()


def accept(listener: socket.socket, most: int, ended: int = 0) -> list[socket.socket]:
    """Return the connections that wait at a listening socket, up to `most`; they don't block. Only where
    `supported()`.

    Up to `ended` of those whose other side has ended already, and sends nothing more, are closed and not given.

    Raises `OSError` when not one could be taken though some may wait, such as for want of descriptors.
    """
    fds = array("i", bytes(4 * most))
    count = _accept(listener.fileno(), _from_buffer(_INTS, fds), most, ended)
    if count < 0:
        raise OSError(-count, os.strerror(-count))
    family = listener.family
    return [_plain(family, fd) for fd in fds[:count]]


def dial(address: bytes, port: int, congestion: bytes | None = None) -> socket.socket | None:
    """Return a socket that doesn't block, connected to a TCP port of this machine; None when that takes time after
    all.

    `address` has 4 or 16 bytes. Small writes are sent at once, by the `congestion` control of that name where the
    system lets us, or by the system's own choice. Raises `OSError`. Only where `supported()`.
    """
    fd = _dial(address, len(address), port, _NULL if congestion is None else congestion)
    if fd >= 0:
        return _plain(socket.AF_INET if len(address) == 4 else socket.AF_INET6, fd)
    if fd == -errno.EINPROGRESS:
        return None
    raise OSError(-fd, os.strerror(-fd))


def _plain(family: int, fd: int) -> socket.socket:
    return socket.socket(family, _STREAM, 0, fd)


def scatter(
    buffer: Buffer, fds: Sequence[int], starts: Sequence[int], lengths: Sequence[int]
) -> array[int] | None:
    """Send `lengths[i]` bytes from `buffer` at `starts[i]` to the socket `fds[i]`, without waiting.

    Spans of one socket go in their order. None when all was sent. Else how many bytes of each, or minus the `errno`
    of a socket that takes no more; a socket that did not take all gets nothing more in this call, nor does a negative
    descriptor. The caller vouches for the spans being within the buffer.
    """
    count = len(fds)
    sent = array("i", bytes(4 * count))
    broken = _scatter(
        buffer.pointer,
        _from_buffer(_INTS, array("i", fds)),
        _from_buffer(_UNSIGNED, array("I", starts)),
        _from_buffer(_UNSIGNED, array("I", lengths)),
        _from_buffer(_INTS, sent),
        count,
    )
    return sent if broken else None
