"""A relay: a plain socket and a stream, joined. Bytes, ends and errors pass; only what is under way is kept.

Plain non-blocking sockets and the stream's sink, without asyncio's transports and readers between: a message costs
one `recv`, one write into the session and one `send` (docs/decisions/0081), and where nothing has to be measured all
small messages of a turn share those steps (docs/decisions/0081).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dtp.carriers.watch import Watcher, socket_watcher
from dtp.daemon.policies.base import UNBOUNDED, Bounds
from dtp.daemon.reasons import Reason, words
from dtp.daemon.relays.bounds import Meter, StreamBounds
from dtp.daemon.relays.sockets import reset
from dtp.errors import DtpError
from dtp.net.driver import yield_processor
from dtp.net.splices import PIECE, Splice
from dtp.net.stream import Stream, rest_of
from dtp.net.turns.sizes import WIDE
from dtp.pay.errors import UNPAID
from dtp.session.codes import ConnectionClosed, ConnectionLost, StreamRefused, StreamReset

if TYPE_CHECKING:
    from dtp.daemon.relays.ledger import Ending

#: Bytes per read of the socket: small at first, since most messages are; larger while reads come back full.
READ_MIN, READ_MAX = PIECE, WIDE


@dataclass(slots=True)
class Counts:
    """Bytes from the socket into the stream, and from the stream into the socket."""

    sent: int = 0
    received: int = 0


class Follower(Protocol):
    """Decides what the socket gets when."""

    def take_data(self, data: bytes) -> bytes:
        """Return what goes to the socket now that `data` has come; the rest is held back."""

    def take_rest(self) -> bytes:
        """Return what was held back."""


@dataclass(frozen=True, slots=True)
class LeftSocket:
    """A socket that outlives its stream: whoever is told of the end owns it from then on."""

    sock: socket.socket
    #: What it has sent, of which nothing was read: to be sent another way.
    said: bytes = b""
    #: What kept it from being paid for, where it was kept for being told; and what it is to get first.
    unpaid: DtpError | None = None
    unsent: bytes = b""


class Backlog:
    """What waits for a socket; in front of it what never came by the stream, so that no credit is due for it."""

    __slots__ = ("_own", "pieces")

    def __init__(self, data: bytes | memoryview, own: int = 0) -> None:
        self.pieces: deque[bytes | memoryview] = deque([data])
        self._own = own

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def is_own(self) -> bool:
        """True if what is sent next never came by the stream."""
        return bool(self._own)

    @property
    def due(self) -> int:
        """Bytes that credit is due for."""
        return sum(map(len, self.pieces)) - self._own

    def send_next(self, sock: socket.socket) -> int:
        """Send some, and return for how many bytes of it credit is due. Raises `OSError`."""
        piece = self.pieces[0]
        sent = sock.send(piece)
        if sent < len(piece):
            self.pieces[0] = rest_of(piece, sent)
        else:
            self.pieces.popleft()
        if self._own:
            self._own -= sent
            return 0
        return sent


class SocketEvents:
    """Which events of a socket are waited for: by itself, or together with those of other splices."""

    __slots__ = ("_fd", "_splice", "_writing", "loop", "read_size", "reading")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, splice: Splice | None) -> None:
        self.loop, self._fd, self._splice = loop, fd, splice
        #: Bytes that are read at once, and whether anything is.
        self.read_size, self.reading = READ_MIN, False
        self._writing = False

    @property
    def _watcher(self) -> Watcher:
        """For what no splice does; looked up, since most relays never need it."""
        return socket_watcher(self.loop)

    def read_on(self, on_readable: Callable[[], object]) -> None:
        """Read small messages together with those of others; what comes in larger pieces by itself."""
        self.reading = True
        if self._splice is not None and self.read_size == READ_MIN:
            self._splice.start_reading()
        else:
            self._watcher.add_reader(self._fd, on_readable)

    def pause_reading(self) -> None:
        """Stop reading from the socket, until `read_on`. Idempotent."""
        if self.reading:
            self.reading = False
            if self._splice is not None and self._splice.reading:
                self._splice.pause_reading()
            else:
                self._watcher.remove_reader(self._fd)

    def shrink_reads(self, size: int, on_readable: Callable[[], object]) -> None:
        """Read less at once, after little has come of `size` bytes."""
        self.read_size = max(size // 4, READ_MIN)
        if self.read_size == READ_MIN and self.reading and self._splice is not None:
            self.pause_reading()
            self.read_on(on_readable)

    def await_writable(self, on_writable: Callable[[], object]) -> None:
        """Have bytes of the stream go to the owner, who is called when the socket takes more."""
        self._writing = True
        self.divert_splice()
        self._watcher.add_writer(self._fd, on_writable)

    def divert_splice(self) -> None:
        """Have a splice give the owner what comes for the socket."""
        if self._splice is not None:
            self._splice.set_held(True)

    def stop_writing(self) -> None:
        """Wait no more until the socket takes more: nothing waits for it. Idempotent."""
        if self._writing:
            self._writing = False
            self._watcher.remove_writer(self._fd)
            if self._splice is not None:
                self._splice.set_held(False)

    def close(self) -> None:
        """Leave the socket alone."""
        self.pause_reading()
        self.stop_writing()
        if self._splice is not None:
            self._splice.close()
            self._splice = None  # which has its owner: nothing of both is to be left to the collector


def told(error: DtpError) -> str:
    """Return why a stream broke off, in words: those of the other daemon, if it was reset there."""
    return f"{words(error.error_code)} (there)" if isinstance(error, StreamReset) else str(error)


class StreamRelay:
    """Joins `sock` and `stream` until both directions have ended, or one broke off. Owns both from here on.

    - Each direction ends by itself: the end of one side's bytes is passed on, the other direction goes on.
    - An error of one side is one of the other: a reset of the socket is a reset of the stream (with `broken` as
      its code), and the other way round.
    - A side that reads slowly stops the other: at most a stream's window waits here.
    """

    #: See `Session`: what waits here has not been read yet, for those who send it.
    kept = 0

    __slots__ = (
        "_backlog",
        "_bounds",
        "_broken",
        "_events",
        "_follow",
        "_high",
        "_keep",
        "_on_end",
        "_patience",
        "_shut",
        "_sock",
        "_socket_ended",
        "_stream_ended",
        "_turns",
        "_watch",
        "counts",
        "ended",
        "left",
        "stream",
        "why",
    )

    def __init__(
        self,
        stream: Stream,
        sock: socket.socket,
        *,
        broken: Reason,
        on_end: Callable[[StreamRelay], object],
        first: bytes = b"",
        meter: Meter | None = None,
        bounds: Bounds = UNBOUNDED,
        keep: bool = False,
        sent: int = 0,
        watch: Callable[[bytes], object] | None = None,
        follow: Follower | None = None,
        patience: float | None = None,
    ) -> None:
        """`first` goes to the socket before all else; `sent` bytes are in the stream already. `watch` is given what
        the socket sends, before the stream is, and `follow` what comes for the socket. `on_end` is called once, when
        nothing is left open.

        `keep`: when the connection is lost before a byte has moved, or the peer has refused the stream unread, the
        socket stays open, and is `left`; so with `watch` where the money for it is spent. `patience`: seconds that
        the socket has to take any of what waits for it once all else is over; None: as long as it likes.
        """
        connection = stream.connection
        self.stream = stream
        self.counts = Counts(sent)
        #: Why it ended before its time, in words; "" for an orderly end.
        self.why = ""
        self.ended = False
        self.left: LeftSocket | None = None
        self._keep = keep
        self._sock = sock
        self._turns = connection.turns
        self._broken = broken
        self._on_end = on_end
        self._watch, self._follow, self._patience = watch, follow, patience
        self._high = connection.limits.write_low  # what several have queued is to stay in the cache
        self._backlog = Backlog(first, len(first)) if first else None
        self._socket_ended = False  # nothing more comes from the socket
        self._stream_ended = False  # nothing more comes from the stream
        self._shut = False  # the socket takes no more
        self._bounds: StreamBounds | None = None
        if meter is not None or bounds is not UNBOUNDED:
            self._bounds = StreamBounds(connection.loop, stream, self.counts, self.abort, meter, bounds)
        fd, splice = sock.fileno(), None
        if watch is None and (self._bounds is None or not self._bounds.counts_bytes):
            splice = stream.splice_socket(fd, self)
        if splice is None:
            self._turns.allow_widening()
        self._events = SocketEvents(connection.loop, fd, splice)
        if first:
            self._events.await_writable(self._on_writable)
            self._on_writable()
        if not self.ended:
            self._read_on()
            stream.attach_sink(self)
            if stream.write_error is not None:
                self.stream_writable()

    # ---- from the socket to the stream --------------------------------------------------------------------

    def _on_readable(self) -> None:
        events, bounds = self._events, self._bounds
        size = min(events.read_size, self._turns.size)
        try:
            data = self._sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._break_off(self._broken, self._why_broken(error.errno))
            return
        got = len(data)
        if not got:
            self._end_of_socket()
            return
        if bounds is not None and not bounds.may_pass(got):
            return
        self.counts.sent += got
        if self._watch is not None:
            self._watch(data)
        try:
            self.stream.write(data)
        except DtpError as error:
            self.stream_error(error)
            return
        if self.stream.queued > self._high:
            events.pause_reading()
        if got >= READ_MIN and self._turns.note_moved(got, events.loop.time()):
            yield_processor()
        if got == size:
            events.read_size = min(4 * size, READ_MAX)
        elif got < size // 8 and events.read_size > READ_MIN:
            events.shrink_reads(size, self._on_readable)
        if bounds is not None and bounds.hold_reading(got, self.stream_writable):
            events.pause_reading()

    def _read_on(self) -> None:
        self._events.read_on(self._on_readable)

    def splice_full(self) -> None:
        """Read in larger pieces: there is more than a small message."""
        self._events.pause_reading()
        self._events.read_size = 4 * READ_MIN
        if not self.ended and not self._socket_ended and self.stream.queued <= self._high:
            self._read_on()

    def splice_queued(self) -> None:
        """Pause reading where much is queued: the stream has no credit now, or the carrier no room."""
        if self.stream.queued > self._high:
            self._events.pause_reading()

    def splice_ended(self, errno: int) -> None:
        """Do as when reading by itself has found an end, or an error."""
        self._events.reading = False
        if errno:
            self._break_off(self._broken, self._why_broken(errno))
        else:
            self._end_of_socket()

    def _end_of_socket(self) -> None:
        self._socket_ended = True
        self._events.pause_reading()
        self.stream.write_eof()
        self._end_if_done()

    # ---- from the stream to the socket --------------------------------------------------------------------

    def stream_data(self, data: bytes) -> None:
        """Take the next bytes for the socket. Their credit goes back when the kernel has them."""
        size = len(data)
        self.counts.received += size
        bounds = self._bounds
        if self._shut or self.ended or not (bounds is None or bounds.may_pass(size)):
            self.stream.consumed(size)
            return
        if self._follow is None:
            self._pass_to_socket(data)
        elif whole := self._follow.take_data(data):
            self._pass_to_socket(whole)

    def _pass_to_socket(self, data: bytes) -> None:
        size = len(data)
        if self._backlog:
            self._backlog.pieces.append(data)
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self.stream.consumed(size)
            self._socket_takes_no_more(error.errno)
            return
        if sent:
            self._give_credit(sent)
        if sent < size and not self.ended:
            self._wait_with(rest_of(data, sent))

    def _wait_with(self, data: bytes | memoryview) -> None:
        """Keep what comes until the socket takes more."""
        self._backlog = Backlog(data)
        self._events.await_writable(self._on_writable)

    def _wrote_all(self) -> None:
        self._backlog = None
        self._events.stop_writing()

    def splice_rest(self, data: bytes) -> None:
        """Keep the next bytes for the socket, which has not taken them."""
        if self._shut or self.ended:
            self.stream.consumed(len(data))
        elif self._backlog:
            self._backlog.pieces.append(data)
        else:
            self._wait_with(data)

    def splice_broken(self, errno: int) -> None:
        """Do as when sending by itself has failed."""
        if not self._shut and not self.ended:
            self._socket_takes_no_more(errno)

    def _give_credit(self, size: int) -> None:
        """Let the other side send as much more as the socket has got now."""
        if self._bounds is None:
            self.stream.consumed(size)
        else:
            self._bounds.give_credit(size)

    def _on_writable(self) -> None:
        backlog, bounds = self._backlog, self._bounds
        while backlog:
            if not (bounds is None or backlog.is_own or bounds.may_pass(0)):
                return
            try:
                due = backlog.send_next(self._sock)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._socket_takes_no_more(error.errno)
                return
            if due:
                self._give_credit(due)
            if self.ended:
                return
        self._wrote_all()
        if self._stream_ended:
            self._shut_down()

    def _socket_takes_no_more(self, errno: int | None) -> None:
        """End this direction alone: last words of the socket may be there to read. Whether a reset is found by
        reading, too, or an end, as after one that a write was told of, it has broken off."""
        self._shut = True
        self.why = self.why or self._why_broken(errno)
        self._drop_held()
        self._drop_waiting()
        self._wrote_all()
        self._events.divert_splice()
        self.stream.stop(self._broken)
        self._stream_ended = True
        if not self._socket_ended and not self._events.reading:
            self.stream_writable()
        self._end_if_done()

    def stream_eof(self) -> None:
        """End what the socket gets: the stream has ended."""
        if self._follow is not None and not self._shut and (rest := self._follow.take_rest()):
            self._pass_to_socket(rest)
        self._stream_ended = True
        if not self._backlog:
            self._shut_down()

    def _shut_down(self) -> None:
        if not self._shut:
            self._shut = True
            if not self._socket_ended:  # else it is closed now
                try:  # noqa: SIM105 - `suppress` is three calls, for each stream
                    self._sock.shutdown(socket.SHUT_WR)
                except OSError:  # it may be gone already; then reading tells
                    pass
        self._end_if_done()

    def stream_error(self, error: DtpError) -> None:
        """Break off the socket as the stream did, unless it can be joined with another, or told why."""
        left = self._leave_socket(error)
        if left is None:
            self._break_off(self._broken, told(error))
            return
        self.left = left
        self._release_socket()
        self._on_end(self)

    def _leave_socket(self, error: DtpError) -> LeftSocket | None:
        """Return the socket if another stream is as good as this one, or its program hears what it lacks."""
        over = self.ended or self._shut
        if self._keep and isinstance(error, StreamRefused) and error.data is not None:
            if not over and not self._backlog:
                self.counts.sent = 0
                return LeftSocket(self._sock, said=error.data)
        elif self._keep and isinstance(error, ConnectionClosed | ConnectionLost) and self._is_untouched():
            return LeftSocket(self._sock)
        if self._watch is not None and isinstance(error, UNPAID) and not over:
            self.why = str(error)
            unsent = b"".join(self._backlog.pieces) if self._backlog else b""
            return LeftSocket(self._sock, unpaid=error, unsent=unsent)
        return None

    def _is_untouched(self) -> bool:
        """True if neither side has said anything: to both, another stream is as good as this one."""
        moved = self.counts.sent or self.counts.received or self._backlog
        return not (self.ended or moved or self._socket_ended or self._stream_ended or self._shut)

    def stream_writable(self) -> None:
        """Read on, since less waits to be sent; no more, where nobody wants it."""
        if self.ended or self._socket_ended:
            return
        error = self.stream.write_error
        if error is not None:
            # The other end takes no more, but what it has sent is still on its way to the socket.
            self._socket_ended = True
            self._events.pause_reading()
            # Code 0: it has all it wants.
            if isinstance(error, StreamReset) and error.error_code and not self.why:
                self.why = told(error)
            self._end_if_done()
        elif (
            not self._events.reading
            and (self._bounds is None or not self._bounds.held)
            and self.stream.queued <= self._high
        ):
            self._read_on()

    # ---- the end ------------------------------------------------------------------------------------------

    def abort(self, reason: Reason) -> None:
        """End both sides now, and tell the other daemon why. Idempotent."""
        self._break_off(reason, words(reason))

    def finish(self, end: Ending) -> None:
        """Do nothing: nobody but its ends knows when it is finished."""

    def _end_if_done(self) -> None:
        if not (self._socket_ended and self._stream_ended) or self.ended:
            return
        if self._shut:
            self._release_socket()
            self._sock.close()
            self._on_end(self)
        elif self._patience is not None:
            self._give_up_after(self._patience)

    def _give_up_after(self, seconds: float, before: int | None = None) -> None:
        """Break off where the socket has taken nothing since so much waited for it; else look again."""
        if self.ended:
            return
        due = self._backlog.due if self._backlog else 0
        if due == before:
            why = f"it took nothing for {seconds:g} s, and all else is over"
            self._break_off(self._broken, f"{words(self._broken)}: {why}")
        else:
            self._events.loop.call_later(seconds, self._give_up_after, seconds, due)

    def _why_broken(self, errno: int | None) -> str:
        return f"{words(self._broken)}: {os.strerror(errno or 0)}"

    def _break_off(self, reason: Reason, why: str) -> None:
        if self.ended:
            return
        self.why = self.why or why
        self._release_socket()
        self._drop_held()
        reset(self._sock)
        self.stream.reset(reason)
        self._on_end(self)

    def _release_socket(self) -> None:
        self.ended = True
        self._drop_waiting()
        self._events.close()
        if self._bounds is not None:
            self._bounds.close()
            self._bounds = None  # which has this relay, too

    def _drop_held(self) -> None:
        if self._follow is not None:
            self.stream.consumed(len(self._follow.take_rest()))

    def _drop_waiting(self) -> None:
        """Give all credit back, since the socket gets no more: it is also that of the caller's other streams."""
        due = self._backlog.due if self._backlog else 0
        self._backlog = None
        if self._bounds is not None:
            due += self._bounds.take_owed()
        if due:
            self.stream.consumed(due)
