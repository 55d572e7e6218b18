"""UDP: each source that sends is a session; its datagrams go as datagrams of the connection, never kept for long.

A session is a stream that carries no bytes: by opening it the near end asks, by resetting it the far end refuses, and
either ends it after silence. Datagrams name it by the stream's number, in front, 8 bytes (docs/decisions/0081).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import ClassVar, Protocol

from dtp.carriers.errors import ListenError, reason
from dtp.carriers.watch import Watcher, socket_watcher
from dtp.daemon.config.values import LocalPlace
from dtp.daemon.policies import Bounds
from dtp.daemon.reasons import Reason, words
from dtp.daemon.relays.bounds import Meter
from dtp.daemon.relays.dropped import BackendDrops, Drop, Dropped, KernelDrops
from dtp.daemon.relays.ledger import Ending
from dtp.daemon.relays.relay import Counts
from dtp.daemon.relays.sockets import undialled
from dtp.errors import DtpError
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.session.codes import DatagramTooLarge, StreamReset
from dtp.tasks import start_task

_NUMBER = struct.Struct("!Q")
#: The largest payload of UDP over IPv4.
_MOST = 65_507
#: Datagrams read in one turn, so that a flood leaves room for the others.
_PER_TURN = 64
#: Datagrams that wait for their session to be opened: the first ones, which a lost packet would cost most.
EARLY = 32
#: Datagrams that are counted at a socket's end, more than its buffer has room for.
_UNREAD = 8192
#: Sources of one forward at once; the one that was silent longest makes room.
MOST = 4096
#: Sources that wait for a stream at once; datagrams of others are dropped, since who floods names ever new ones.
ASKING = 512
#: Silence after which a session ends, seconds: what routers keep a UDP mapping for (RFC 4787: 2 min or more).
IDLE = 120.0
#: Seconds in which what is under way still passes by a session that either end is about to leave: programs wait
#: so long for an answer (resolv.conf's `timeout`). With one second a busy machine's answers found the socket closed.
LATE = 5.0
#: Asked of the kernel for each socket: room for a burst while the loop is busy.
_BUFFER = 1024 * 1024


class _Receiver(Protocol):
    dropped: Dropped

    def receive_datagram(self, data: memoryview) -> None:
        """Take a datagram that has come for this session."""


class Hub:
    """Hands a connection's datagrams to its sessions."""

    _hubs: ClassVar[dict[Connection, Hub]] = {}

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sessions: dict[int, _Receiver] = {}
        self._early: deque[tuple[int, memoryview]] = deque()
        #: Where the newest session counts; those of one connection are of one service, but for a reload.
        self._dropped: Dropped | None = None
        #: What the connection had dropped when it was last looked at.
        self._seen = 0
        self._task = start_task(self._run_hub(), name="dtpd-datagrams")

    @classmethod
    def of_connection(cls, connection: Connection) -> Hub:
        """Return the hub of a connection; made when the first session needs it."""
        hub = cls._hubs.get(connection)
        if hub is None:
            hub = cls._hubs[connection] = cls(connection)
        return hub

    def add_session(self, number: int, session: _Receiver) -> None:
        """Give a session its datagrams from now on, also those that have come already."""
        self._sessions[number] = session
        self._dropped = session.dropped
        early, self._early = self._early, deque()
        for known, data in early:
            if known == number:
                session.receive_datagram(data)
            else:
                self._early.append((known, data))

    def remove_session(self, number: int) -> None:
        """Forget a session that is over."""
        self._sessions.pop(number, None)

    def count_dropped(self) -> None:
        """Count what the connection has dropped since the last look."""
        now = self._connection.datagrams_dropped
        self._note_dropped(Drop.CONNECTION_FULL, now - self._seen)
        self._seen = now

    def _note_dropped(self, why: Drop, count: int = 1) -> None:
        if self._dropped is not None:
            self._dropped.add_dropped(why, count)

    async def _run_hub(self) -> None:
        try:
            await self._receive_datagrams()
        except DtpError:  # the connection is over, and its streams tell the sessions
            self.count_dropped()
            self._note_dropped(Drop.NO_SESSION, len(self._early))
        finally:
            del self._hubs[self._connection]

    async def _receive_datagrams(self) -> None:
        while True:
            data = memoryview(await self._connection.recv_datagram())
            self.count_dropped()
            if len(data) < _NUMBER.size:
                self._note_dropped(Drop.NO_SESSION)
                continue
            number, payload = _NUMBER.unpack_from(data)[0], data[_NUMBER.size :]
            session = self._sessions.get(number)
            if session is not None:
                session.receive_datagram(payload)
            else:
                self._early.append((number, payload))
                if len(self._early) > EARLY:
                    self._early.popleft()
                    self._note_dropped(Drop.NO_SESSION)


class UdpSession:
    """A session, at either end: datagrams from `send_datagram` into the connection, from the connection to
    `deliver_datagram`.

    It takes over `stream`; `on_end` is called once. What goes no further is counted in `dropped`.
    """

    kept = 0

    def __init__(
        self,
        stream: Stream,
        deliver: Callable[[memoryview], None],
        on_end: Callable[[UdpSession], object],
        *,
        dropped: Dropped,
        idle: float | None = None,
        meter: Meter | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self.stream = stream
        self.counts = Counts()
        self.why = ""
        self.ended = False
        #: True while it takes what is under way, and new datagrams are to go by another one.
        self.leaving = False
        self.dropped = dropped
        self._deliver, self._on_end, self._meter = deliver, on_end, meter
        self._connection = stream.connection
        self._mark = _NUMBER.pack(stream.id)
        self._idle = (bounds.idle if bounds is not None else None) or idle or IDLE
        self._left = bounds.data if bounds is not None else None
        self._loop = self._connection.loop
        self._last = self._loop.time()
        self._timers = [self._loop.call_later(self._idle, self._check_idle)]
        if bounds is not None and bounds.time is not None:
            self._timers.append(self._loop.call_later(bounds.time, self.abort, Reason.TIME))
        self._hub = Hub.of_connection(self._connection)
        stream.attach_sink(self)
        if not self.ended:
            self._hub.add_session(stream.id, self)

    # ---- datagrams ------------------------------------------------------------------------------------------

    def send_datagram(self, data: bytes) -> None:
        """Send a datagram. What is too large, or over the rate, is dropped, as networks do."""
        if not self._may_pass(len(data)):
            return
        try:
            self._connection.send_datagram(self._mark + data)
        except DatagramTooLarge:
            self.dropped.add_dropped(Drop.TOO_LARGE)
            return
        except DtpError as error:
            self.dropped.add_dropped(Drop.NO_SESSION)
            self.stream_error(error)
            return
        self._hub.count_dropped()
        self.counts.sent += len(data)

    def receive_datagram(self, data: memoryview) -> None:
        """Take a datagram from the other end."""
        if not self._may_pass(len(data)):
            return
        self.counts.received += len(data)
        self._deliver(data)

    def _may_pass(self, size: int) -> bool:
        """True if a datagram may go on; one that may not is counted."""
        if self.ended:
            self.dropped.add_dropped(Drop.NO_SESSION)
            return False
        if self._is_within_rules(size):
            return True
        self.dropped.add_dropped(Drop.RULE)
        return False

    def _is_within_rules(self, size: int) -> bool:
        self._last = self._loop.time()
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                self.abort(Reason.SIZE)
                return False
        if self._meter is None:
            return True
        # What is over the rate is dropped and not counted, or a flood would let nothing pass.
        for amount in (0, size):
            verdict = self._meter(amount)
            if isinstance(verdict, Reason):
                self.abort(verdict)
                return False
            if verdict and not amount:
                return False
        return True

    def _check_idle(self) -> None:
        left = self._last + self._idle - self._loop.time()
        if left <= 0:
            self._end_session("")
        else:
            self._timers[0] = self._loop.call_later(left, self._check_idle)

    # ---- the stream reports -----------------------------------------------------------------------------------

    def stream_data(self, data: bytes) -> None:
        """Drop bytes, which nobody sends on it."""
        self.stream.consumed(len(data))

    def stream_eof(self) -> None:
        """End: the other end has heard nothing for long, or is about to end."""
        self._leave_session()

    def stream_error(self, error: DtpError) -> None:
        """End: the other end refused or broke off."""
        self._end_session(
            f"{words(error.error_code)} (there)" if isinstance(error, StreamReset) else str(error)
        )

    def stream_writable(self) -> None:
        """Do nothing: nothing is written."""

    # ---- the end ----------------------------------------------------------------------------------------------

    def abort(self, reason: Reason) -> None:
        """End now, and tell the other end why. Idempotent."""
        if not self.ended:
            self.stream.reset(reason)
            self._end_session(words(reason))

    def finish(self, end: Ending) -> None:
        """End it. It has no end of its own: silence is one, and so is this."""
        self._leave_session()

    def _leave_session(self) -> None:
        """Have the other end begin anew, and end once what is under way has come."""
        if not (self.leaving or self.ended):
            self.leaving = True
            self.stream.write_eof()
            self._timers.append(self._loop.call_later(LATE, self._end_session, ""))

    def _end_session(self, why: str) -> None:
        if self.ended:
            return
        self.ended = True
        self.why = why
        for timer in self._timers:
            timer.cancel()
        self._hub.remove_session(self.stream.id)
        self.stream.close()
        self._on_end(self)


# ---- plain sockets -------------------------------------------------------------------------------------------


def bind(place: LocalPlace, *, share: bool = False) -> socket.socket:
    """Return a UDP socket at `place`; `share`: others may be bound beside it. Raises `ListenError`."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((place.host, place.port))
    except OSError as error:
        sock.close()
        raise ListenError(f"udp:{place}: {reason(error, listening=place.port)}") from error
    sock.setblocking(False)
    return sock


def connect(place: LocalPlace) -> socket.socket:
    """Return a UDP socket that leads to `place`, an IP address and a port. Raises `DialError`, `NoDescriptors`."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        raise undialled(f"udp:{place}", error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.connect((place.host, place.port))
    except OSError as error:
        sock.close()
        raise undialled(f"udp:{place}", error) from error
    sock.setblocking(False)
    return sock


class BackendSocket:
    """The far end's socket to a backend, for one session. What goes no further is counted in `dropped`."""

    def __init__(
        self,
        sock: socket.socket,
        dropped: Dropped,
        watcher: Watcher | None = None,
        *,
        full: BackendDrops | None = None,
    ) -> None:
        """`full` counts what the backend has no room for, where that is known."""
        self._sock, self._dropped, self._full = sock, dropped, full
        self._kernel = KernelDrops(sock, dropped)
        self._watcher = watcher or socket_watcher(asyncio.get_running_loop())
        self.session: UdpSession | None = None

    def start_reading(self, session: UdpSession) -> None:
        """Begin to read."""
        self.session = session
        if not session.ended:
            self._watcher.add_reader(self._sock.fileno(), self._on_readable)

    def deliver_datagram(self, data: memoryview) -> None:
        """Send a datagram to the backend; what a full buffer doesn't take is dropped."""
        if self._full is not None:
            self._full.look_soon()
        for _ in range(2):
            try:
                self._sock.send(data)
            except ConnectionRefusedError:  # what ICMP said of an earlier one; this one was not sent
                self._dropped.add_dropped(Drop.UNREACHABLE)
                continue
            except OSError as error:
                self._dropped.add_dropped(_unsent(error))
            return
        self._dropped.add_dropped(Drop.UNREACHABLE)

    def _on_readable(self) -> None:
        assert self.session is not None
        for count in range(_PER_TURN):
            try:
                data = self._sock.recv(_MOST)
            except BlockingIOError:
                return
            except OSError:  # ICMP: nobody is there; the caller's program finds out by itself
                self._dropped.add_dropped(Drop.UNREACHABLE)
                continue
            if count == 1:  # one that was alone has left room
                self._kernel.count_new()
            self.session.send_datagram(data)
            if self.session.ended:
                return

    def close(self) -> None:
        """Read no more; what has come meanwhile goes no further."""
        self._dropped.add_dropped(Drop.NO_SESSION, _unread(self._sock))
        self._kernel.count_new()
        self._watcher.remove_reader(self._sock.fileno())
        self._sock.close()


def _unread(sock: socket.socket) -> int:
    """Return how many datagrams wait at a socket that is about to be closed."""
    for count in range(_UNREAD):
        try:
            sock.recv(1)
        except OSError:
            return count
    return _UNREAD


def _unsent(error: OSError) -> Drop:
    """Return why the kernel did not take a datagram."""
    return Drop.SOCKET_FULL if error.errno in (errno.EAGAIN, errno.ENOBUFS) else Drop.UNREACHABLE


#: Where a datagram comes from, as sockets have it.
_Source = tuple[str, int]


class WaitingSource:
    """A source whose stream is not there yet."""

    def __init__(self) -> None:
        self.datagrams: deque[bytes] = deque()


class Sources:
    """The near end's sources: what comes from each goes to its session, bounded in number.

    What goes no further is counted in `dropped`. `on_new` opens a session for a source, and `on_empty` is called once
    it was stopped and no source is left.
    """

    def __init__(
        self,
        on_new: Callable[[_Source], object],
        dropped: Dropped,
        *,
        most: int = MOST,
        asking: int = ASKING,
    ) -> None:
        self._on_new, self._dropped = on_new, dropped
        self._most, self._most_asking = most, asking
        self.on_empty: Callable[[], object] = _nothing
        self._known: OrderedDict[_Source, UdpSession | WaitingSource] = OrderedDict()
        self._stopping = False
        self._asking = 0

    def __len__(self) -> int:
        return len(self._known)

    def receive_datagram(self, data: bytes, source: _Source) -> None:
        """Take a datagram that has come from a source."""
        known = self._known.get(source)
        if isinstance(known, UdpSession) and known.leaving and not self._stopping:
            del self._known[source]
            known = None
        if known is None and (self._stopping or self._asking >= self._most_asking):
            self._dropped.add_dropped(Drop.NO_SESSION)
            return
        if isinstance(known, UdpSession):
            self._known.move_to_end(source)
            known.send_datagram(data)
            return
        if known is not None:
            known.datagrams.append(data)
            if len(known.datagrams) > EARLY:
                known.datagrams.popleft()
                self._dropped.add_dropped(Drop.NO_SESSION)
            return
        self._asking += 1
        waiting = self._known[source] = WaitingSource()
        waiting.datagrams.append(data)
        if len(self._known) > self._most:
            self._evict_oldest()
        self._on_new(source)

    def _evict_oldest(self) -> None:
        _, oldest = self._known.popitem(last=False)
        if isinstance(oldest, UdpSession):
            oldest.abort(Reason.TOO_MANY)
        else:
            self._dropped.add_dropped(Drop.NO_SESSION, len(oldest.datagrams))

    def note_opened(self, source: _Source, session: UdpSession) -> None:
        """Send on what waits for a session that is there now."""
        self._asking -= 1
        waiting = self._known.get(source)
        if session.ended or not isinstance(waiting, WaitingSource):
            session.abort(Reason.CLIENT_GONE)
            return
        self._known[source] = session
        for data in waiting.datagrams:
            session.send_datagram(data)

    def note_refused(self, source: _Source) -> None:
        """Forget a source for which no session could be had; another datagram begins anew."""
        self._asking -= 1
        self.forget_source(source)

    def forget_source(self, source: _Source, session: UdpSession | None = None) -> None:
        """Forget a source whose session is over; another datagram begins anew. One that has begun by then has a
        session of its own."""
        gone = self._known.get(source)
        if session is not None and gone is not session:
            return
        self._known.pop(source, None)
        if isinstance(gone, WaitingSource):
            self._dropped.add_dropped(Drop.NO_SESSION, len(gone.datagrams))
        if self._stopping and not self._known:
            self.on_empty()

    def stop_sources(self) -> None:
        """Take no new sources. Idempotent."""
        if not self._stopping:
            self._stopping = True
            if not self._known:
                self.on_empty()


def _nothing() -> None:
    """Nobody waits for the last source."""


class SourceSocket:
    """Reads for `sources` from a socket, which is closed when they were stopped and the last one is gone."""

    def __init__(
        self, sock: socket.socket, sources: Sources, dropped: Dropped, watcher: Watcher | None = None
    ) -> None:
        self.sock, self.sources = sock, sources
        self._dropped = dropped
        self._kernel = KernelDrops(sock, dropped)
        self._watcher = watcher or socket_watcher(asyncio.get_running_loop())
        self._reading = True
        self._watcher.add_reader(sock.fileno(), self._on_readable)
        sources.on_empty = self.close

    def _on_readable(self) -> None:
        for count in range(_PER_TURN):
            try:
                data, source = self.sock.recvfrom(_MOST)
            except BlockingIOError:
                return
            except OSError:  # ICMP about an answer of ours
                self._dropped.add_dropped(Drop.UNREACHABLE)
                continue
            if count == 1:  # one that was alone has left room
                self._kernel.count_new()
            self.sources.receive_datagram(data, source)

    def answer_source(self, source: _Source, data: memoryview) -> None:
        """Send a datagram to a program; drop it when it can't be sent now."""
        try:
            self.sock.sendto(data, source)
        except OSError as error:
            self._dropped.add_dropped(_unsent(error))

    def stop_reading(self) -> None:
        """Read no more, as another process does; answers that are under way still go out. Idempotent."""
        if self._reading:
            self._reading = False
            self._kernel.count_new()
            self._watcher.remove_reader(self.sock.fileno())

    def close(self) -> None:
        """Read no more, nor answer."""
        self.stop_reading()
        self.sock.close()
