"""The client side of a service: a socket on this machine, and a stream for each program that connects to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from dtp.carriers.socket_io import SocketIO
from dtp.carriers.stream_socket import SocketListener
from dtp.daemon.config.model import BudgetSettings, Forward
from dtp.daemon.patience import PATIENCE, Patience
from dtp.daemon.paying.calls import CallReader, ChargedCalls, reader_of
from dtp.daemon.policies import Clock, Denial, moment
from dtp.daemon.reasons import Reason
from dtp.daemon.relays import sockets, udp
from dtp.daemon.relays.dropped import Dropped
from dtp.daemon.relays.dynamic import GREETINGS, Greeting, Rejected
from dtp.daemon.relays.ledger import Ending, SessionLedger
from dtp.daemon.relays.pool import BACKOFF, Pool, is_at_work, is_given
from dtp.daemon.relays.relay import StreamRelay
from dtp.daemon.relays.telling import tell_program
from dtp.errors import CarrierError, DtpError, LimitError, PeerError
from dtp.limited_log import RateLimitedLog
from dtp.net.address import Address
from dtp.net.stream import Stream
from dtp.pay.errors import UNPAID
from dtp.session.codes import CloseCode, ConnectionClosed, ConnectionRefused
from dtp.tasks import start_task

log = logging.getLogger("dtpd")

#: Seconds for a program to name the service it wants.
GREETING = 10.0
#: Seconds in which the same reason for getting no stream is logged only once.
SAME_REASON = 60.0
#: Seconds between two dials of an unreachable peer while programs wait, who share the dials.
EAGER = 0.1


class Forwarded:
    """A running `[[forward]]`. Its pool may be replaced; open streams keep their connections."""

    def __init__(
        self,
        config: Forward,
        pool: Pool | None,
        dynamic: Callable[[Address], Pool],
        no_room: Callable[[], Denial | None],
        patience: Patience = PATIENCE,
        *,
        clock: Clock = moment,
    ) -> None:
        """`pool` leads to `config.to`. Where programs name the service themselves, `dynamic` returns the pool.
        `no_room` returns why no more programs can be served now, or None."""
        self.config = config
        self.pool = pool
        place, steady = str(config.listen), lambda: clock().steady
        self._broken_log = RateLimitedLog(log, place, "streams that broke off", clock=steady)
        self._refused_log = RateLimitedLog(
            log, place, "programs that got no stream", period=SAME_REASON, of_one=1, clock=steady
        )
        self._dynamic, self._no_room, self._patience = dynamic, no_room, patience
        self.ledger = SessionLedger()
        self.listener: SocketListener | None = None
        self._opening: set[asyncio.Task[None]] = set()

    async def start_listening(self, open_sockets: list[socket.socket] | None = None) -> None:
        """Listen, at open sockets if there are any. Raise `ListenError`."""
        if open_sockets:
            self.listener = sockets.adopt(open_sockets, self._on_socket)
        else:
            self.listener = await sockets.listen(self.config.listen, self._on_socket)

    async def stop_listening(self) -> None:
        """Stop listening; open streams go on."""
        if self.listener is not None:
            await self.listener.close()

    @property
    def sockets(self) -> list[socket.socket]:
        """The listening sockets, which stay owned by the forward."""
        return [] if self.listener is None else self.listener.sockets

    async def hand_over(self) -> None:
        """Stop listening without removing the socket's file: another process listens with copies of the sockets."""
        if self.listener is not None:
            self.listener.keep_place()
        await self.stop_listening()

    @property
    def active(self) -> int:
        """The number of programs being served."""
        return len(self.ledger.open) + len(self._opening)

    @property
    def places(self) -> list[str]:
        """The places at which it listens, with actual ports."""
        return [] if self.listener is None else self.listener.urls

    def get_status(self) -> dict[str, Any]:
        """Return the status for `Daemon.get_status`."""
        pool = self.pool
        connections = [] if pool is None else pool.connections
        return {
            "listen": self.places,
            "mode": self.config.mode,
            "to": [str(address) for address in self.config.to],
            **self.ledger.get_status(),
            # A connection that has lost its carrier is kept to be resumed, but doesn't count as connected.
            "connected": pool is None or any(connection.stats.carriers for connection in connections),
            "trouble": "" if pool is None else pool.trouble,
            "resumes": sum(connection.stats.resumes for connection in connections),
        }

    async def wait_empty(self) -> None:
        """Wait until no program is served or waiting for a stream."""
        await self.ledger.wait_empty(self._opening)

    def abort_streams(self, reason: Reason) -> None:
        """End all streams now."""
        self._cancel_opening()
        self.ledger.abort_sessions(reason)

    def _cancel_opening(self) -> None:
        for task in list(self._opening):
            task.cancel()

    def _on_socket(self, sock: socket.socket) -> None:
        self.ledger.streams += 1
        if denial := self._no_room():
            self._note_refused(LimitError(denial.why))
            self._turn_away_now(sock)
            return
        self._start_serving(self._serve_socket(sock), partial(sockets.reset, sock))

    def _start_serving(self, serving: Coroutine[None, None, None], give_up: Callable[[], None]) -> None:
        def done(task: asyncio.Task[None]) -> None:
            self._opening.discard(task)
            if task.cancelled():  # it may be cancelled before its first step, so it can't do this itself
                give_up()

        task = start_task(serving, name="dtpd-opening")
        self._opening.add(task)
        task.add_done_callback(done)

    async def _serve_socket(self, sock: socket.socket) -> None:
        make = GREETINGS[self.config.mode]
        greeting = None if make is None else make()
        try:
            pool = self.pool if greeting is None else self._dynamic(await self._read_greeting(sock, greeting))
            assert pool is not None
            stream = await self._open_stream(pool)
        except (DtpError, Rejected) as error:
            self._note_refused(error)
            await self._turn_away(sock, greeting, error)
            return
        except (OSError, TimeoutError) as error:
            self._note_refused(error)
            sockets.reset(sock)
            return
        first = b""
        if greeting is not None:
            first = greeting.success_reply()
        self._join_stream(pool, stream, sock, first, rest=b"" if greeting is None else greeting.rest)

    def _join_stream(
        self, pool: Pool, stream: Stream, sock: socket.socket, first: bytes, *, rest: bytes = b""
    ) -> None:
        """Relay between them. `rest` is what the program has already sent."""
        if rest:
            with contextlib.suppress(DtpError):  # the relay is told of the error
                stream.write(rest)
        reader = reader_of(stream.connection)
        ended = partial(self._end_session, pool, reader=reader)
        if reader is not None and rest:
            reader.feed_data(rest)
        watch, follow = (None, None) if reader is None else (reader.feed_data, reader.answers)
        relay = StreamRelay(
            stream,
            sock,
            broken=Reason.CLIENT_GONE,
            on_end=ended,
            first=first,
            keep=True,
            sent=len(rest),
            watch=watch,
            follow=follow,
        )
        self.ledger.add_session(relay)

    async def _serve_again(self, pool: Pool, sock: socket.socket, said: bytes) -> None:
        """Open another stream, at another endpoint if necessary, for a program whose peer was lost before either
        side sent anything, or which has read nothing of what the program `said`."""
        try:
            # Don't ask a peer in a tight loop that accepts connections and loses them.
            await asyncio.sleep(EAGER)
            stream = await self._open_stream(pool)
        except DtpError as error:
            self._note_refused(error)
            if said:
                await tell_program(sock, _read_calls(said), Reason.AWAY, str(error))
            else:
                sockets.reset(sock)
        else:
            self._join_stream(pool, stream, sock, b"", rest=said)

    async def _read_greeting(self, sock: socket.socket, greeting: Greeting) -> Address:
        """Read which service a program wants. Raise `Rejected`, `OSError`, `TimeoutError`."""
        io = SocketIO(sock)
        async with asyncio.timeout(GREETING):
            while True:
                data = await io.read()
                if not data:
                    raise Rejected("the connection ended before the request was complete", b"")
                address = greeting.receive_data(data)
                if greeting.answer:
                    answer, greeting.answer = greeting.answer, b""
                    await io.write(answer)
                if address is not None:
                    return address

    async def _turn_away(
        self, sock: socket.socket, greeting: Greeting | None, error: DtpError | Rejected
    ) -> None:
        """Tell the program why in its protocol, if it uses one; otherwise reset its connection."""
        if greeting is None:
            if _is_unpaid(error, self.config.budget):
                await tell_program(sock, _read_calls(b""), Reason.UNPAID, str(error))
            else:
                sockets.reset(sock)
            return
        refused = Reason.DENIED if isinstance(error, PeerError) else Reason.NO_BACKEND
        answer = error.answer if isinstance(error, Rejected) else greeting.failure_reply(refused)
        with contextlib.closing(sock), contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(GREETING):
                io = SocketIO(sock)
                await io.write(answer)
                await io.finish()

    def _turn_away_now(self, sock: socket.socket) -> None:
        """Tell the program at once that there is no room, if it uses a protocol; otherwise reset its connection."""
        make = GREETINGS[self.config.mode]
        if make is None:
            sockets.reset(sock)
            return
        with contextlib.closing(sock), contextlib.suppress(OSError):
            sock.send(make().full_reply())

    def _note_refused(self, error: Exception) -> None:
        self.ledger.failed += 1
        why = str(error) or type(error).__name__
        if not self._refused_log.may_log(why):
            return
        log.warning(
            "%s: %s",
            self.config.listen,
            why,
            extra={"fields": {"event": "unreachable", "listen": str(self.config.listen), "why": why}},
        )

    async def _open_stream(self, pool: Pool) -> Stream:
        """Return a stream to the service. While its peer can't be reached, try again for as long as that is worth
        waiting for."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience.peer
        attempt = 0
        while True:
            try:
                return await pool.get_stream()
            except DtpError as error:
                if not _may_be_back(error):
                    raise
                pause = BACKOFF[min(attempt, len(BACKOFF) - 1)]
                if not is_at_work(error):
                    pause = min(pause, EAGER)
                if loop.time() + pause > deadline:
                    raise
                await asyncio.sleep(pause)
                attempt += 1

    def _end_session(
        self, pool: Pool, relay: StreamRelay | udp.UdpSession, *, reader: CallReader | None = None
    ) -> None:
        self.ledger.end_session(relay)
        pool.release_stream(relay.stream)
        if isinstance(relay, StreamRelay) and (left := relay.left) is not None:
            if left.unpaid is not None:
                assert reader is not None
                work = tell_program(left.sock, reader, Reason.UNPAID, str(left.unpaid), left.unsent)
            else:  # after a reload the forward may lead elsewhere
                work = self._serve_again(self.pool or pool, left.sock, left.said)
            self._start_serving(work, partial(sockets.reset, left.sock))
        if relay.why and self._broken_log.may_log():
            log.info(
                "%s: a stream broke off: %s",
                self.config.listen,
                relay.why,
                extra={
                    "fields": {
                        "event": "ended",
                        "listen": str(self.config.listen),
                        "sent": relay.counts.sent,
                        "received": relay.counts.received,
                        "why": relay.why,
                    }
                },
            )


class ForwardedUdp(Forwarded):
    """A forward for UDP: a stream for each source, with its datagrams beside it."""

    _end: udp.SourceSocket | None = None
    _name = ""

    def __init__(
        self,
        config: Forward,
        pool: Pool | None,
        dynamic: Callable[[Address], Pool],
        no_room: Callable[[], Denial | None],
        patience: Patience = PATIENCE,
        *,
        clock: Clock = moment,
    ) -> None:
        """Take the arguments of `Forwarded`; the pool's peer has to serve datagrams."""
        super().__init__(config, pool, dynamic, no_room, patience, clock=clock)
        self._dropped = Dropped(config.name)

    async def start_listening(self, open_sockets: list[socket.socket] | None = None) -> None:
        """Listen, at a bound socket if there is one. Raise `ListenError`."""
        sock = open_sockets[0] if open_sockets else udp.bind(self.config.listen)
        sock.setblocking(False)
        self._name = f"udp:{sockets.name_of(sock)}"
        self._end = udp.SourceSocket(sock, udp.Sources(self._on_source, self._dropped), self._dropped)

    async def stop_listening(self) -> None:
        """Accept no new sources; existing ones go on."""
        if self._end is not None:
            self._end.sources.stop_sources()

    @property
    def sockets(self) -> list[socket.socket]:
        """The socket that it reads from, which stays owned by the forward."""
        return [] if self._end is None else [self._end.sock]

    async def hand_over(self) -> None:
        """Stop reading, since two processes can't read from one socket. Sessions begin again there with their next
        datagram, and end here once outstanding answers have come."""
        if self._end is not None:
            self._end.stop_reading()
        await self.stop_listening()
        self.ledger.finish_sessions(Ending())
        self._cancel_opening()

    @property
    def active(self) -> int:
        """1 while it has sources, which share one socket."""
        return 0

    @property
    def places(self) -> list[str]:
        """The place at which it listens, with the actual port."""
        return [] if self._end is None else [self._name]

    def get_status(self) -> dict[str, Any]:
        """Return the status, with dropped datagrams by reason."""
        return {**super().get_status(), "dropped": dict(self._dropped.counts)}

    def _on_source(self, source: tuple[str, int]) -> None:
        assert self._end is not None
        sources = self._end.sources
        self.ledger.streams += 1
        if denial := self._no_room():
            self._note_refused(LimitError(denial.why))
            sources.note_refused(source)
            return
        self._start_serving(self._serve_source(source), partial(sources.note_refused, source))

    async def _serve_source(self, source: tuple[str, int]) -> None:
        assert self._end is not None
        sources, pool = self._end.sources, self.pool
        assert pool is not None
        try:
            stream = await self._open_stream(pool)
        except DtpError as error:
            self._note_refused(error)
            sources.note_refused(source)
            return

        def ended(session: udp.UdpSession) -> None:
            sources.forget_source(source, session)
            self._end_session(pool, session)

        session = udp.UdpSession(
            stream, partial(self._end.answer_source, source), ended, dropped=self._dropped
        )
        self.ledger.add_session(session)
        sources.note_opened(source, session)


def _read_calls(said: bytes) -> CallReader:
    """Return a reader that has read what a program has said; payments don't depend on it."""
    reader = CallReader(ChargedCalls(None, asyncio.get_running_loop().time))
    reader.feed_data(said)
    return reader


def _may_be_back(error: DtpError) -> bool:
    """True if the peer is unreachable, about to be replaced, or has no room for a connection now: it may be back
    soon."""
    if isinstance(error, ConnectionRefused | ConnectionClosed):
        return error.close_code == CloseCode.SHUTDOWN or is_at_work(error) or is_given(error)
    return isinstance(error, CarrierError)


def _is_unpaid(error: DtpError | Rejected, budget: BudgetSettings | None) -> bool:
    """True if a peer can be reached but isn't paid: it demands payment, or the budget is used up."""
    if isinstance(error, ConnectionRefused | ConnectionClosed):
        return error.close_code == CloseCode.PAYMENT
    return budget is not None and isinstance(error, UNPAID)


#: What serves a forward, by its `kind`.
FORWARDS: dict[str, type[Forwarded]] = {"tcp": Forwarded, "udp": ForwardedUdp}
