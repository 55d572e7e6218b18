"""Carriers over stream sockets, and the accept loop: what TCP, Unix and WebSocket carriers have in common.

Plain non-blocking sockets, watched by the event loop; docs/decisions/0002 says why
not asyncio's transports.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial

from dtp.carriers.base import Accept, Carrier, CarrierListener, CarrierState, Receiver
from dtp.carriers.errors import BrokenError, reason
from dtp.carriers.watch import socket_watcher
from dtp.core import accept, sockets_supported
from dtp.errors import CarrierError

log = logging.getLogger("dtp.carriers")

#: Seconds that `close` waits for the other side to take what was written and to end as well. Long enough for
#: a slow link to empty its buffers, short enough that silent peers can't pile up.
LINGER = 10.0

#: Where a read goes while everything that still comes in is thrown away: the same place for all, and nobody looks.
_DISCARDED = memoryview(bytearray(65536))

#: Connections that the kernel holds for us before `accept` (it lowers this to its own limit). Whoever comes when they
#: are as many tries again after a second, and a flood of 20,000 a second fills 1,024 while the processor has others.
BACKLOG = 4096

#: Accepted per turn of the loop, so that a flood of dials leaves room for the connections that are there: each costs
#: 0.1 to 0.2 ms with all that is made for it.
ACCEPTS_PER_TURN = 8

#: ... and of those who are gone already, where nothing comes of them: 5 to 20 us each.
ENDED_PER_TURN = 32

#: Whether one call takes all connections that wait.
_ALL_AT_ONCE = sockets_supported()

#: Seconds until the next try after `accept` failed for want of descriptors or memory.
ACCEPT_RETRY = 0.1


#: `struct linger`: on, for 0 seconds.
_RESET_ON_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


@contextlib.contextmanager
def answering_through(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Close an asyncio connection at the end, with what its client hasn't taken.

    `close()` waits for a client that takes nothing for ever, and keeps its answer. `drain()` waits for all here, so
    that nothing of an answer is lost.
    """
    writer.transport.set_write_buffer_limits(0)
    try:
        yield
    finally:
        writer.transport.abort()


def broken(error: OSError) -> BrokenError:
    """Return what the operating system says about a connection that was working, as this package's error."""
    result = BrokenError(reason(error))
    result.__cause__ = error
    return result


def hand_over(carrier: Carrier, accept: Accept) -> None:
    """Give an accepted carrier to its owner; end it when the owner fails to take it."""
    try:
        accept(carrier)
    except BaseException:
        carrier.abort()
        raise


class StreamSocketCarrier(Carrier):
    """A connected stream socket as a carrier. It owns `sock` from here on and makes it non-blocking."""

    def __init__(self, sock: socket.socket, *, source: str, remote: str) -> None:
        sock.setblocking(False)
        self.source = source
        self.remote = remote
        self._loop = asyncio.get_running_loop()
        self._watcher = socket_watcher(self._loop)
        self._sock = sock
        self._fd = self.descriptor = sock.fileno()
        self._receiver: Receiver | None = None
        self._state = CarrierState.OPEN
        self._paused = False
        self._pending = bytearray()  # what the kernel did not take yet
        self._write_error: OSError | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._lost: CarrierError | None = None

        # What a socket with TLS does differently. Bound here: looked up for each message, they would be noticed.
        self._recv_into: Callable[[memoryview], int] = sock.recv_into
        self._send: Callable[[memoryview | bytearray], int] = sock.send

    def _shutdown_writing(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    # The contract.

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        if self._state is CarrierState.OPEN and not self._paused:
            self._watcher.add_reader(self._fd, self._on_readable)
        elif self._state is CarrierState.ENDED:
            self._loop.call_soon(self._tell_lost, self._lost)

    def write(self, data: memoryview) -> bool:
        if self._state is not CarrierState.OPEN or self._write_error is not None:
            return False
        if self._pending:
            self._pending += data
            return False
        try:
            sent = self._send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._write_failed(error)
            return False
        if sent == len(data):
            return True
        self._pending += data[sent:]
        self._watcher.add_writer(self._fd, self._on_writable)
        return False

    def pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            if self._state is CarrierState.OPEN:
                self._watcher.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            if self._state is CarrierState.OPEN and self._receiver is not None:
                self._watcher.add_reader(self._fd, self._on_readable)

    def close(self) -> None:
        if self._state is not CarrierState.OPEN:
            return
        self._state = CarrierState.CLOSING
        self._linger = self._loop.call_later(LINGER, self._end_carrier, None)
        # Closing with unread bytes would make TCP send a reset, which can destroy what was written before it
        # is read; so what comes is read and dropped until the other side has ended too.
        self._watcher.add_reader(self._fd, self._on_discard)
        if not self._pending:
            self._finish_writing()

    def abort(self) -> None:
        if self._state is CarrierState.ENDED:
            return
        if self._sock.family != getattr(socket, "AF_UNIX", None):
            # So that the other side sees a reset, not an orderly end. BSDs refuse it after a reset from
            # there.
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close_socket()
        if self._receiver is not None:
            self._loop.call_soon(self._tell_lost, None)

    def broken_off(self) -> bool:
        if self._state is not CarrierState.OPEN:
            return True
        if self._write_error is None:
            error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not error:
                return False
            self._write_error = OSError(error, os.strerror(error))
        self._loop.call_soon(self._end_carrier, broken(self._write_error))
        return True

    def has_ended(self) -> bool:
        if self.broken_off():
            return True
        try:
            return not socket.socket.recv(
                self._sock, 1, socket.MSG_PEEK
            )  # one with TLS takes no flags itself
        except OSError:  # nothing has come yet, or a reset, which is found when it is read
            return False

    @property
    def held(self) -> int:
        """Bytes received and not read yet."""
        return len(self._pending)

    def detach(self) -> tuple[socket.socket, bytes] | None:
        if self._state is not CarrierState.OPEN or self._write_error is not None:
            return None
        pending = bytes(self._pending)
        self._stop_watching()
        return self._sock, pending

    # Called by the loop.

    def _on_readable(self) -> bool:
        """Read once; True when there may be more."""
        assert self._receiver is not None
        buffer = self._receiver.carrier_buffer()
        try:
            size = self._recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._end_carrier(broken(self._write_error or error))
            return False
        if size:
            self._receiver.carrier_received(size)
            return True
        if self._write_error is None or isinstance(self._write_error, BrokenPipeError):
            # EPIPE on writing means that the end we see now came first, so it is still an orderly one.
            self._end_carrier(None)
        else:
            self._end_carrier(broken(self._write_error))
        return False

    def _on_writable(self) -> None:
        try:
            sent = self._send(self._pending)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._write_failed(error)
            return
        del self._pending[:sent]
        if self._pending:
            return
        self._watcher.remove_writer(self._fd)
        if self._state is CarrierState.CLOSING:
            self._finish_writing()
        elif self._receiver is not None:
            self._receiver.carrier_writable()

    def _is_open(self) -> bool:
        return self._state is CarrierState.OPEN

    def _write_failed(self, error: OSError) -> None:
        """Read the last words of another side that takes nothing more: they may still be waiting here."""
        self._write_error = error
        self._pending.clear()
        self._watcher.remove_writer(self._fd)
        self._loop.call_soon(self._read_the_rest)

    def _read_the_rest(self) -> None:
        if self._receiver is not None:
            while self._state is CarrierState.OPEN and not self._paused and self._on_readable():
                pass
        if self._paused and self._state is CarrierState.OPEN:
            return  # after `resume_reading`, which finds the error again
        if self._state is not CarrierState.ENDED:
            assert self._write_error is not None
            self._end_carrier(broken(self._write_error))

    def _finish_writing(self) -> None:
        try:
            self._shutdown_writing()
        except OSError:  # it is gone already
            self._loop.call_soon(self._end_carrier, None)

    def _on_discard(self) -> None:
        try:
            size = self._recv_into(_DISCARDED)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            size = 0
        if not size:
            self._end_carrier(None)

    def _end_carrier(self, error: CarrierError | None) -> None:
        """End and report it. Only from the loop, never inside a call to this carrier."""
        if self._state is CarrierState.ENDED:
            return
        self._lost = None if self._state is CarrierState.CLOSING else error
        self._close_socket()
        self._tell_lost(self._lost)

    def _tell_lost(self, error: CarrierError | None) -> None:
        """Say that it has ended; behind that nothing is said any more."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.carrier_lost(error)

    def _close_socket(self) -> None:
        self._stop_watching()
        self._sock.close()

    def _stop_watching(self) -> None:
        self._state = CarrierState.ENDED
        self._watcher.remove_reader(self._fd)
        self._watcher.remove_writer(self._fd)
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._pending.clear()


class SocketListener(CarrierListener):
    """Accepts on listening sockets, which it owns from here on, until closed.

    `on_socket(sock)` gets each new connection, non-blocking, and owns it; with `answers`, where whoever comes has to
    say something more when it was answered, not those that have ended before it is their turn (docs/decisions/0198).
    `on_close` runs once, at the end of `close`, to clear away what was made for the listener.
    """

    def __init__(
        self,
        socks: list[socket.socket],
        urls: list[str],
        on_socket: Callable[[socket.socket], None],
        on_close: Callable[[], None] | None = None,
        *,
        answers: bool = False,
    ) -> None:
        self.urls = urls
        self._loop = asyncio.get_running_loop()
        self._watcher = socket_watcher(self._loop)
        self._socks = socks
        self._on_socket = on_socket
        self._on_close = on_close
        self._ended = ENDED_PER_TURN if answers else 0
        self._retries: dict[socket.socket, asyncio.TimerHandle] = {}
        for sock in socks:
            sock.setblocking(False)
            self._watch_socket(sock)

    @property
    def sockets(self) -> list[socket.socket]:
        """The sockets that it listens on, one for each address."""
        return list(self._socks)

    def keep_place(self) -> None:
        """Keep `close` from removing the path of a Unix socket: another process listens there now."""
        self._on_close = None

    async def close(self) -> None:
        socks, self._socks = self._socks, []
        for sock in socks:
            self._watcher.remove_reader(sock.fileno())
            if (retry := self._retries.pop(sock, None)) is not None:
                retry.cancel()
            sock.close()
        if socks and self._on_close is not None:
            self._on_close()

    def _watch_socket(self, sock: socket.socket) -> None:
        self._retries.pop(sock, None)
        self._watcher.add_reader(sock.fileno(), partial(self._on_readable, sock))

    def _on_readable(self, sock: socket.socket) -> None:
        if _ALL_AT_ONCE:
            try:
                found = accept(sock, ACCEPTS_PER_TURN, self._ended)
            except OSError as error:
                self._pause_socket(sock, error)
                return
            for connected in found:
                self._on_socket(connected)
            return
        for _ in range(ACCEPTS_PER_TURN):
            if sock.fileno() < 0:  # closed by the last one's receiver
                return
            try:
                connected, _address = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:  # gave up while it waited in the queue
                continue
            except OSError as error:
                self._pause_socket(sock, error)
                return
            connected.setblocking(False)
            self._on_socket(connected)

    def _pause_socket(self, sock: socket.socket, error: OSError) -> None:
        """Out of descriptors or memory: the connection stays in the kernel's queue, so the loop would
        spin."""
        log.warning("can't accept at %s: %s; next try in %s s", ", ".join(self.urls), error, ACCEPT_RETRY)
        self._watcher.remove_reader(sock.fileno())
        self._retries[sock] = self._loop.call_later(ACCEPT_RETRY, self._watch_socket, sock)
