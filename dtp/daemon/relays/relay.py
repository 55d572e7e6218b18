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
from dtp.daemon.policies.base import Bounds
from dtp.daemon.reasons import Reason, words
from dtp.daemon.relays.sockets import reset
from dtp.errors import DtpError, LimitError
from dtp.net.driver import yield_processor
from dtp.net.splices import PIECE, Splice
from dtp.net.stream import Stream
from dtp.net.turns.sizes import WIDE
from dtp.pay.errors import MoneyNotAdded
from dtp.session.codes import ConnectionClosed, ConnectionLost, StreamRefused, StreamReset

if TYPE_CHECKING:
    from dtp.daemon.relays.ledger import Ending

#: Bytes per read of the socket: small at first, since most messages are; larger while reads come back full.
READ_MIN, READ_MAX = PIECE, WIDE
#: How often within its bound an idle stream is looked at.
_LOOKS = 4

#: What waits for a socket, of all relays for which nothing does: an empty deque each would be 600 bytes.
_NOTHING: deque[bytes | memoryview] = deque(maxlen=0)

#: Told of bytes that came from either side: the seconds until the next ones are wanted, or why the stream must end.
Meter = Callable[[int], "float | Reason"]


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
        "_broken",
        "_data_left",
        "_fd",
        "_follow",
        "_held",
        "_held_until",
        "_high",
        "_keep",
        "_looked",
        "_loop",
        "_meter",
        "_on_end",
        "_ours",
        "_out",
        "_owed",
        "_read_size",
        "_reading",
        "_shut",
        "_sock",
        "_socket_ended",
        "_splice",
        "_stream_ended",
        "_timers",
        "_turns",
        "_watch",
        "_writing",
        "counts",
        "ended",
        "left",
        "said",
        "stream",
        "unpaid",
        "unsent",
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
        bounds: Bounds | None = None,
        keep: bool = False,
        sent: int = 0,
        watch: Callable[[bytes], object] | None = None,
        follow: Follower | None = None,
    ) -> None:
        """`first` goes to the socket before all else; `sent` bytes are in the stream already. `watch` is given what
        the socket sends, before the stream is, and `follow` what comes for the socket. `on_end` is called once, when
        nothing is left open.

        `keep`: when the connection is lost before a byte has moved, or the peer has refused the stream unread, the
        socket stays open, and is `left`, with all that it has `said`; so with `watch` where the money for it is
        spent, with what is `unsent` to it.
        """
        connection = stream.connection
        self.stream = stream
        self.counts = Counts(sent)
        #: Why it ended before its time, in words; "" for an orderly end.
        self.why = ""
        self.ended = False
        #: The socket, where it was kept: whoever is told of the end owns it from then on.
        self.left: socket.socket | None = None
        #: What it has sent, of which nothing was read: to be sent another way.
        self.said = b""
        #: What kept it from being paid for, where the socket was kept for being told; and what it is to get first.
        self.unpaid: DtpError | None = None
        self.unsent = b""
        self._keep = keep
        self._sock = sock
        self._fd = sock.fileno()
        self._loop = connection.loop
        self._turns = connection.turns
        self._broken = broken
        self._on_end = on_end
        self._meter = meter
        self._watch, self._follow = watch, follow
        self._high = connection.limits.write_low  # what several have queued is to stay in the cache
        self._read_size = READ_MIN
        self._reading = False
        self._writing = False  # bytes wait for the socket to take them
        self._held = False  # the meter wants the next bytes later
        self._held_until = 0.0  # what it wants later, of both directions, comes by then
        self._owed = 0  # of what the socket has, credit that the meter wants to be given later
        self._out: deque[bytes | memoryview] = deque([first]) if first else _NOTHING
        self._ours = len(
            first
        )  # of what waits, in front: never came by the stream, so no credit is due for it
        self._socket_ended = False  # nothing more comes from the socket
        self._stream_ended = False  # nothing more comes from the stream
        self._shut = False  # the socket takes no more
        self._data_left = bounds.data if bounds is not None else None
        self._timers: set[asyncio.TimerHandle] | None = None
        self._looked = (0, -1)
        measured = meter is not None or watch is not None or self._data_left is not None
        self._splice: Splice | None = None if measured else stream.splice_socket(self._fd, self)
        if self._splice is None:
            self._turns.allow_widening()
        if bounds is not None:
            if bounds.time is not None:
                self._call_later(bounds.time, lambda: self.abort(Reason.TIME))
            if bounds.idle is not None:
                self._call_later(bounds.idle / _LOOKS, lambda: self._check_idle(bounds.idle))
        if first:
            self._await_writable()
            self._on_writable()
        if not self.ended:
            self._read_on()
            stream.attach_sink(self)
            if stream.write_error is not None:
                self.stream_writable()

    @property
    def _watcher(self) -> Watcher:
        """For what no splice does; looked up, since most relays never need it."""
        return socket_watcher(self._loop)

    # ---- from the socket to the stream --------------------------------------------------------------------

    def _on_readable(self) -> None:
        size = min(self._read_size, self._turns.size)
        try:
            data = self._sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._break_off(self._broken, f"{words(self._broken)}: {error.strerror}")
            return
        got = len(data)
        if not got:
            self._end_of_socket()
            return
        if not self._may_pass(got):
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
            self._pause_reading()
        if got >= READ_MIN and self._turns.note_moved(got, self._loop.time()):
            yield_processor()
        if got == size:
            self._read_size = min(4 * size, READ_MAX)
        elif got < size // 8 and self._read_size > READ_MIN:
            self._read_size = max(size // 4, READ_MIN)
            if self._read_size == READ_MIN and self._reading and self._splice is not None:
                self._pause_reading()
                self._read_on()
        if self._meter is not None or self._data_left is not None:
            delay = self._count_moved(got)
            if delay and not self.ended:
                self._held = True
                self._pause_reading()
                self._call_later(delay, self._release_hold)

    def _release_hold(self) -> None:
        self._held = False
        self.stream_writable()

    def _read_on(self) -> None:
        """Read small messages together with those of others; what comes in larger pieces by itself."""
        self._reading = True
        if self._splice is not None and self._read_size == READ_MIN:
            self._splice.start_reading()
        else:
            self._watcher.add_reader(self._fd, self._on_readable)

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            if self._splice is not None and self._splice.reading:
                self._splice.pause_reading()
            else:
                self._watcher.remove_reader(self._fd)

    def splice_full(self) -> None:
        """There is more to read than a small message."""
        self._pause_reading()
        self._read_size = 4 * READ_MIN
        if not self.ended and not self._socket_ended and self.stream.queued <= self._high:
            self._read_on()

    def splice_queued(self) -> None:
        """Pause reading where much is queued: the stream has no credit now, or the carrier no room."""
        if self.stream.queued > self._high:
            self._pause_reading()

    def splice_ended(self, errno: int) -> None:
        """As when reading by itself."""
        self._reading = False
        if errno:
            self._break_off(self._broken, f"{words(self._broken)}: {os.strerror(errno)}")
        else:
            self._end_of_socket()

    def _end_of_socket(self) -> None:
        self._socket_ended = True
        if self._reading:
            self._pause_reading()
        self.stream.write_eof()
        self._end_if_done()

    # ---- from the stream to the socket --------------------------------------------------------------------

    def stream_data(self, data: bytes) -> None:
        """Take the next bytes for the socket. Their credit goes back when the kernel has them."""
        size = len(data)
        self.counts.received += size
        if self._shut or self.ended or not self._may_pass(size):
            self.stream.consumed(size)
            return
        if self._follow is None:
            self._pass_to_socket(data)
        elif whole := self._follow.take_data(data):
            self._pass_to_socket(whole)

    def _pass_to_socket(self, data: bytes) -> None:
        size = len(data)
        if self._out:
            self._out.append(data)
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.stream.consumed(size)
            self._socket_takes_no_more()
            return
        if sent:
            self._give_credit(sent)
        if sent < size and not self.ended:
            self._wait_with(memoryview(data)[sent:])

    def _wait_with(self, data: bytes | memoryview) -> None:
        """Keep what comes until the socket takes more."""
        self._out = deque([data])
        self._await_writable()

    def _await_writable(self) -> None:
        self._writing = True
        if self._splice is not None:
            self._splice.set_held(True)
        self._watcher.add_writer(self._fd, self._on_writable)

    def _wrote_all(self) -> None:
        if self._writing:
            self._writing = False
            self._out = _NOTHING
            self._watcher.remove_writer(self._fd)
            if self._splice is not None:
                self._splice.set_held(False)

    def splice_rest(self, data: bytes) -> None:
        """Keep the next bytes for the socket, which has not taken them."""
        if self._shut or self.ended:
            self.stream.consumed(len(data))
        elif self._out:
            self._out.append(data)
        else:
            self._wait_with(data)

    def splice_broken(self, errno: int) -> None:
        """As when sending by itself."""
        if not self._shut and not self.ended:
            self._socket_takes_no_more()

    def _give_credit(self, size: int) -> None:
        """Let the other side send as much more: at once, or after as long as the meter says."""
        if self._meter is None and self._data_left is None:
            self.stream.consumed(size)
            return
        delay = self._count_moved(size)
        if delay and not self.ended:
            self._owed += size
            self._call_later(delay, lambda: self._pay_credit(size))
        else:
            self.stream.consumed(size)

    def _pay_credit(self, size: int) -> None:
        """Give credit whose time has come; nothing is owed any more where the socket takes no more."""
        if self._owed:
            self._owed -= size
            self.stream.consumed(size)

    def _on_writable(self) -> None:
        out = self._out
        while out:
            if not (self._ours or self._may_pass(0)):
                return
            try:
                sent = self._sock.send(out[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._socket_takes_no_more()
                return
            if sent < len(out[0]):
                out[0] = memoryview(out[0])[sent:]
            else:
                out.popleft()
            if self._ours:
                self._ours -= sent
            else:
                self._give_credit(sent)
            if self.ended:
                return
        self._wrote_all()
        if self._stream_ended:
            self._shut_down()

    def _socket_takes_no_more(self) -> None:
        """End this direction alone: last words of the socket may be there to read; a reset is found by reading."""
        self._shut = True
        self._drop_held()
        self._drop_waiting()
        self._wrote_all()
        if self._splice is not None:
            self._splice.set_held(True)
        self.stream.stop(self._broken)
        self._stream_ended = True
        if not self._socket_ended and not self._reading:
            self.stream_writable()
        self._end_if_done()

    def stream_eof(self) -> None:
        """End what the socket gets: the stream has ended."""
        if self._follow is not None and not self._shut and (rest := self._follow.take_rest()):
            self._pass_to_socket(rest)
        self._stream_ended = True
        if not self._out:
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
        """Break off the socket as the stream did, unless it can be joined with another."""
        if self._keep and self._may_go_another_way(error):
            self.left = self._sock
            self._release_socket()
            self._on_end(self)
            return
        spent = isinstance(error, LimitError | MoneyNotAdded)
        if self._watch is not None and spent and not (self._shut or self.ended):
            self.left, self.unpaid, self.why = self._sock, error, str(error)
            self.unsent = b"".join(self._out)
            self._release_socket()
            self._on_end(self)
            return
        self._break_off(self._broken, told(error))

    def _may_go_another_way(self, error: DtpError) -> bool:
        """True if another stream is as good as this one, once what was `said` is sent there."""
        if isinstance(error, StreamRefused) and error.data is not None:
            if self.ended or self._shut or self._out:
                return False
            self.said, self.counts.sent = error.data, 0
            return True
        return isinstance(error, ConnectionClosed | ConnectionLost) and self._is_untouched()

    def _is_untouched(self) -> bool:
        """True if neither side has said anything: to both, another stream is as good as this one."""
        moved = self.counts.sent or self.counts.received or self._out
        return not (self.ended or moved or self._socket_ended or self._stream_ended or self._shut)

    def stream_writable(self) -> None:
        """Less waits to be sent, or nobody wants it any more."""
        if self.ended or self._socket_ended:
            return
        error = self.stream.write_error
        if error is not None:
            # The other end takes no more, but what it has sent is still on its way to the socket.
            self._socket_ended = True
            self._pause_reading()
            # Code 0: it has all it wants.
            if isinstance(error, StreamReset) and error.error_code and not self.why:
                self.why = told(error)
            self._end_if_done()
        elif not self._reading and not self._held and self.stream.queued <= self._high:
            self._read_on()

    # ---- bounds -------------------------------------------------------------------------------------------

    def _may_pass(self, size: int) -> bool:
        """True if bytes may go on, which count once they have. False ends the relay: nothing passes a quota that was
        used up by another stream, nor more than a limit of this one."""
        if self._data_left is not None and size > self._data_left:
            self.abort(Reason.SIZE)
        elif self._meter is not None and isinstance(verdict := self._meter(0), Reason):
            self.abort(verdict)
        return not self.ended

    def _count_moved(self, size: int) -> float:
        """Count bytes: the seconds to wait for the next ones. Ends the relay when there may be no more."""
        if self._data_left is not None:
            self._data_left -= size
            if self._data_left < 0:
                self.abort(Reason.SIZE)
                return 0.0
        if self._meter is None:
            return 0.0
        verdict = self._meter(size)
        if isinstance(verdict, Reason):
            self.abort(verdict)
            return 0.0
        if verdict:
            self._held_until = self._loop.time() + verdict
        return verdict

    def _check_idle(self, idle: float | None) -> None:
        """End an idle stream unless a byte has moved since it was looked at first."""
        assert idle is not None
        moved = self.counts.sent + self.counts.received
        looks = self._looked[0] + 1 if self._looked[1] == moved else 0
        # While it is us who hold the bytes back, neither side is silent.
        self._looked = (0, -1) if self._loop.time() < self._held_until else (looks, moved)
        if self._looked[0] >= _LOOKS:
            self.abort(Reason.IDLE)
        else:
            self._call_later(idle / _LOOKS, lambda: self._check_idle(idle))

    def _call_later(self, delay: float, call: Callable[[], object]) -> None:
        timers = self._timers = self._timers or set()

        def run() -> None:
            timers.discard(timer)
            call()

        timer = self._loop.call_later(delay, run)
        timers.add(timer)

    # ---- the end ------------------------------------------------------------------------------------------

    def abort(self, reason: Reason) -> None:
        """End both sides now, and tell the other daemon why. Idempotent."""
        self._break_off(reason, words(reason))

    def finish(self, end: Ending) -> None:
        """Do nothing: nobody but its ends knows when it is finished."""

    def _end_if_done(self) -> None:
        if self._socket_ended and self._stream_ended and self._shut and not self.ended:
            self._release_socket()
            self._sock.close()
            self._on_end(self)

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
        if self._reading:
            self._pause_reading()
        if self._out or self._owed:
            self._drop_waiting()
        if self._writing:
            self._wrote_all()
        if self._splice is not None:
            self._splice.close()
            self._splice = None  # which has this relay: nothing of both is to be left to the collector
        if self._timers is not None:
            for timer in self._timers:
                timer.cancel()
            self._timers = None

    def _drop_held(self) -> None:
        if self._follow is not None:
            self.stream.consumed(len(self._follow.take_rest()))

    def _drop_waiting(self) -> None:
        """Give all credit back, since the socket gets no more: it is also that of the caller's other streams."""
        self.stream.consumed(sum(map(len, self._out)) - self._ours + self._owed)
        self._out, self._ours, self._owed = _NOTHING, 0, 0
