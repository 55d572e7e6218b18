"""UDP: each source is a session, whose datagrams are sent as datagrams of the connection and never kept for long.

A session is a stream without data. The near end opens it, the far end may refuse by resetting it, and either ends
it after a period of silence. Datagrams begin with the number of its stream, 8 bytes (docs/decisions/0081).
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
#: Datagrams read in one turn of the loop, so that a flood leaves room for others.
_PER_TURN = 64
#: The most datagrams that wait for their session to open. Those are the first ones, whose loss would cost most.
EARLY = 32
#: The most datagrams that are counted when a socket is closed, more than its buffer can hold.
_UNREAD = 8192
#: The most sources of one forward. The one that was silent longest makes room.
MOST = 4096
#: The most sources that wait for a stream. Datagrams of further ones are dropped, since floods come from ever new
#: sources.
ASKING = 512
#: Seconds of silence after which a session ends: as long as routers keep a UDP mapping (RFC 4787: 2 min or more).
IDLE = 120.0
#: Seconds in which datagrams under way still pass through a session that either end is leaving: programs wait this
#: long for an answer (resolv.conf's `timeout`). With one second, answers from a busy machine found the socket
#: closed.
LATE = 5.0
#: Requested socket buffer, with room for a burst while the loop is busy.
_BUFFER = 1024 * 1024


class _Receiver(Protocol):
    dropped: Dropped

    def receive_datagram(self, data: memoryview) -> None:
        """Receive a datagram for this session."""


class Hub:
    """Distributes a connection's datagrams to its sessions."""

    _hubs: ClassVar[dict[Connection, Hub]] = {}

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sessions: dict[int, _Receiver] = {}
        self._early: deque[tuple[int, memoryview]] = deque()
        #: The counts of the newest session. Sessions of one connection are of one service, except after a reload.
        self._dropped: Dropped | None = None
        #: What the connection had dropped at the last check.
        self._seen = 0
        self._task = start_task(self._run_hub(), name="dtpd-datagrams")

    @classmethod
    def of_connection(cls, connection: Connection) -> Hub:
        """Return the hub of a connection, which is made with the first session."""
        hub = cls._hubs.get(connection)
        if hub is None:
            hub = cls._hubs[connection] = cls(connection)
        return hub

    def add_session(self, number: int, session: _Receiver) -> None:
        """Deliver a session its datagrams from now on, including those that have already come."""
        self._sessions[number] = session
        self._dropped = session.dropped
        early, self._early = self._early, deque()
        for known, data in early:
            if known == number:
                session.receive_datagram(data)
            else:
                self._early.append((known, data))

    def remove_session(self, number: int) -> None:
        """Remove a session that is over."""
        self._sessions.pop(number, None)

    def count_dropped(self) -> None:
        """Count what the connection has dropped since the last check."""
        now = self._connection.datagrams_dropped
        self._note_dropped(Drop.CONNECTION_FULL, now - self._seen)
        self._seen = now

    def _note_dropped(self, why: Drop, count: int = 1) -> None:
        if self._dropped is not None:
            self._dropped.add_dropped(why, count)

    async def _run_hub(self) -> None:
        try:
            await self._receive_datagrams()
        except DtpError:  # the connection is over, and streams tell their sessions
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
    """A session at either end. `send_datagram` sends datagrams into the connection; those from it are passed to
    `deliver`.

    It takes over `stream`, and calls `on_end` once. Datagrams that go no further are counted in `dropped`.
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
        #: True while it only handles what is under way, and new datagrams should use another session.
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
        """Send a datagram. One that is too large or exceeds the rate is dropped, as in any network."""
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
        """Receive a datagram from the other end."""
        if not self._may_pass(len(data)):
            return
        self.counts.received += len(data)
        self._deliver(data)

    def _may_pass(self, size: int) -> bool:
        """Return True if a datagram may go on; otherwise count it as dropped."""
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
        # Datagrams that exceed the rate are dropped and not counted against it, or a flood would block everything.
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
        """Drop the data: nobody sends any on this stream."""
        self.stream.consumed(len(data))

    def stream_eof(self) -> None:
        """End, since the other end has heard nothing for long, or is about to close."""
        self._leave_session()

    def stream_error(self, error: DtpError) -> None:
        """End, since the other end refused or broke off."""
        self._end_session(
            f"{words(error.error_code)} (there)" if isinstance(error, StreamReset) else str(error)
        )

    def stream_writable(self) -> None:
        """Do nothing, since nothing is written."""

    # ---- the end ----------------------------------------------------------------------------------------------

    def abort(self, reason: Reason) -> None:
        """End now, and tell the other end why. Idempotent."""
        if not self.ended:
            self.stream.reset(reason)
            self._end_session(words(reason))

    def finish(self, end: Ending) -> None:
        """End it. UDP has no end of its own, so this is like silence."""
        self._leave_session()

    def _leave_session(self) -> None:
        """Have the other end begin a new session, and end once what is under way has come."""
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
    """Return a UDP socket bound to `place`; with `share`, others may be bound there as well. Raise
    `ListenError`."""
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
    """Return a UDP socket connected to `place`, an IP address and a port. Raise `DialError`, `NoDescriptors`."""
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
    """The far end's socket to a backend, for one session. Datagrams that go no further are counted in `dropped`."""

    def __init__(
        self,
        sock: socket.socket,
        dropped: Dropped,
        watcher: Watcher | None = None,
        *,
        full: BackendDrops | None = None,
    ) -> None:
        """`full` counts what the backend has no room for, where that can be known."""
        self._sock, self._dropped, self._full = sock, dropped, full
        self._kernel = KernelDrops(sock, dropped)
        self._watcher = watcher or socket_watcher(asyncio.get_running_loop())
        self.session: UdpSession | None = None

    def start_reading(self, session: UdpSession) -> None:
        """Start reading."""
        self.session = session
        if not session.ended:
            self._watcher.add_reader(self._sock.fileno(), self._on_readable)

    def deliver_datagram(self, data: memoryview) -> None:
        """Send a datagram to the backend; drop it if the buffer is full."""
        if self._full is not None:
            self._full.look_soon()
        for _ in range(2):
            try:
                self._sock.send(data)
            except ConnectionRefusedError:  # an ICMP error for an earlier datagram; this one wasn't sent
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
            except OSError:  # ICMP says that nobody listens; the caller's program finds out by itself
                self._dropped.add_dropped(Drop.UNREACHABLE)
                continue
            if count == 1:  # a single datagram has left room for more in the buffer
                self._kernel.count_new()
            self.session.send_datagram(data)
            if self.session.ended:
                return

    def close(self) -> None:
        """Stop reading; datagrams that arrive later are dropped."""
        self._dropped.add_dropped(Drop.NO_SESSION, _unread(self._sock))
        self._kernel.count_new()
        self._watcher.remove_reader(self._sock.fileno())
        self._sock.close()


def _unread(sock: socket.socket) -> int:
    """Return the number of datagrams waiting at a socket that is about to be closed."""
    for count in range(_UNREAD):
        try:
            sock.recv(1)
        except OSError:
            return count
    return _UNREAD


def _unsent(error: OSError) -> Drop:
    """Return why the kernel didn't accept a datagram."""
    return Drop.SOCKET_FULL if error.errno in (errno.EAGAIN, errno.ENOBUFS) else Drop.UNREACHABLE


#: The source address of a datagram, as sockets return it.
_Source = tuple[str, int]


class WaitingSource:
    """A source whose stream isn't open yet."""

    def __init__(self) -> None:
        self.datagrams: deque[bytes] = deque()


class Sources:
    """The near end's sources. Datagrams of each go to its session; the number of sources is bounded.

    Datagrams that go no further are counted in `dropped`. `on_new` opens a session for a source; `on_empty` is
    called once `stop_sources` was called and no source is left.
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
        """Receive a datagram from a source."""
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
        """Send on what was waiting for the session, which is open now."""
        self._asking -= 1
        waiting = self._known.get(source)
        if session.ended or not isinstance(waiting, WaitingSource):
            session.abort(Reason.CLIENT_GONE)
            return
        self._known[source] = session
        for data in waiting.datagrams:
            session.send_datagram(data)

    def note_refused(self, source: _Source) -> None:
        """Remove a source that got no session; its next datagram tries again."""
        self._asking -= 1
        self.forget_source(source)

    def forget_source(self, source: _Source, session: UdpSession | None = None) -> None:
        """Remove a source whose session is over; its next datagram begins a new one. If a new session has already
        begun, that one stays."""
        gone = self._known.get(source)
        if session is not None and gone is not session:
            return
        self._known.pop(source, None)
        if isinstance(gone, WaitingSource):
            self._dropped.add_dropped(Drop.NO_SESSION, len(gone.datagrams))
        if self._stopping and not self._known:
            self.on_empty()

    def stop_sources(self) -> None:
        """Accept no new sources. Idempotent."""
        if not self._stopping:
            self._stopping = True
            if not self._known:
                self.on_empty()


def _nothing() -> None:
    """Do nothing: nobody waits for the last source."""


class SourceSocket:
    """Reads for `sources` from a socket, which is closed once they were stopped and the last one is gone."""

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
            except OSError:  # an ICMP error about an answer of ours
                self._dropped.add_dropped(Drop.UNREACHABLE)
                continue
            if count == 1:  # a single datagram has left room for more in the buffer
                self._kernel.count_new()
            self.sources.receive_datagram(data, source)

    def answer_source(self, source: _Source, data: memoryview) -> None:
        """Send a datagram to a program; drop it if it can't be sent now."""
        try:
            self.sock.sendto(data, source)
        except OSError as error:
            self._dropped.add_dropped(_unsent(error))

    def stop_reading(self) -> None:
        """Stop reading, since another process does; outstanding answers are still sent. Idempotent."""
        if self._reading:
            self._reading = False
            self._kernel.count_new()
            self._watcher.remove_reader(self.sock.fileno())

    def close(self) -> None:
        """Stop reading and answering."""
        self.stop_reading()
        self.sock.close()
