"""A relay: it joins a stream of a dialling peer with one of a peer that has a reservation, and can read neither.

Source: docs/wire.md, "Reach". Both ends do their handshake through it, so it sees only ciphertext, and whom it
joins with whom. `Relay.serve_connection` is the handler of a service, by convention `RELAY_SERVICE`. If that
service has a price, each side pays for its own connection, as for any other service (`dtp.serve`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from dtp.carriers.crowd import source_group
from dtp.errors import DtpError
from dtp.identity import PeerId, PeerIdError
from dtp.limited_log import RateLimitedLog
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.net.stuck import LOOKS, StuckStreams
from dtp.peers.reach.errors import ReachError, ReachRefusal
from dtp.peers.reach.messages import ReachKind, encode, expect, observed_url, read, send_refusal
from dtp.peers.reach.relay_book import RelayBook, RelayLimits
from dtp.tasks import TaskSet, start_task

log = logging.getLogger("dtp.peers")

#: Bytes that are passed on at once.
_PIECE: Final = 64 * 1024
#: Requests that one connection may have in progress. Joined streams are bounded by the book.
_REQUESTS: Final = 16
#: Codes with which the streams of a circuit are reset: its bytes or its time are used up, or it blocked others; and
#: the other side broke off.
CIRCUIT_OVER, CIRCUIT_BROKEN = 2, 3


class Relay:
    """The service. It ends with its connections, which belong to their listener."""

    def __init__(self, limits: RelayLimits | None = None) -> None:
        self.book = RelayBook(limits or RelayLimits())
        #: Counts of bytes passed on, of joined circuits, and of how circuits have ended.
        self.counters: Counter[str] = Counter()
        self._reserved: dict[PeerId, Connection] = {}
        self._requests: Counter[Connection] = Counter()
        self._circuits: dict[Stream, Callable[[], object]] = {}
        self._stuck = StuckStreams(lambda: self._circuits, lambda end: end(), log, others_come=True)
        self._failed_log = RateLimitedLog(log, "relay", "failed requests")
        self._looking: asyncio.Task[None] | None = None
        self._tasks = TaskSet()

    async def serve_connection(self, connection: Connection) -> None:
        """Serve one connection until it ends: the handler of a service."""
        tasks = TaskSet()
        try:
            async for stream in connection:
                tasks.start(self.answer_stream(connection, stream), name="dtp-relay")
        finally:
            await tasks.stop()
            self._release_reservation(connection)

    async def answer_stream(self, connection: Connection, stream: Stream) -> None:
        """Serve one stream until it ends. For programs that accept a connection's streams themselves."""
        if self._requests[connection] >= _REQUESTS:
            send_refusal(stream, ReachRefusal.TOO_OFTEN)
            return
        self._requests[connection] += 1
        await self._serve_request(connection, stream)

    def _release_reservation(self, connection: Connection) -> None:
        """Release the reservation of the connection's peer, if this connection has made it."""
        if self._reserved.get(connection.peer) is connection:
            del self._reserved[connection.peer]
            self.book.release_reservation(connection.peer)

    async def _serve_request(self, connection: Connection, stream: Stream) -> None:
        """Answer one request. It counts for its connection until it is answered or its circuit is joined."""
        waiting = True

        def served() -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                self._requests[connection] -= 1
                if not self._requests[connection]:
                    del self._requests[connection]

        try:
            async with asyncio.timeout(self.book.limits.answer):
                kind, fields = await read(stream)
            if kind is ReachKind.RESERVE and not fields[0]:
                self._release_reservation(connection)
                stream.write(encode(ReachKind.RESERVED, 0, "", 0, 0))
                stream.close()
            elif kind is ReachKind.RESERVE:
                self._grant_reservation(connection, stream)
            elif kind is ReachKind.CONNECT:
                target = PeerId(fields[0])
                source = source_group(connection.source)
                refusal = self.book.open_circuit(target, source, connection.loop.time())
                if refusal is not None:
                    send_refusal(stream, refusal)
                    return
                try:
                    await self._join_circuit(connection, stream, target, served)
                finally:
                    self.book.close_circuit(target, source)
            else:
                send_refusal(stream, ReachRefusal.MALFORMED)
        except (ReachError, PeerIdError, EOFError, TimeoutError):
            self.counters["malformed"] += 1
            send_refusal(stream, ReachRefusal.MALFORMED)
        except DtpError as error:  # the peer is gone
            if self._failed_log.may_log(connection.peer.short):
                log.info("%r: %s", connection, error)
        finally:
            served()

    def _grant_reservation(self, connection: Connection, stream: Stream) -> None:
        limits = self.book.limits
        source = source_group(connection.source)
        refusal = self.book.grant_reservation(connection.peer, source, connection.loop.time())
        if refusal is not None:
            send_refusal(stream, refusal)
            return
        if self._reserved.get(connection.peer) is not connection:
            self._reserved[connection.peer] = connection
            self._tasks.start(self._release_at_end(connection), name="dtp-relay-reserved")
        given = (
            int(limits.lifetime),
            observed_url(connection),
            limits.circuit_bytes,
            int(limits.circuit_time),
        )
        stream.write(encode(ReachKind.RESERVED, *given))
        stream.close()

    async def _release_at_end(self, connection: Connection) -> None:
        await connection.wait_closed()
        self._release_reservation(connection)

    async def _join_circuit(
        self, connection: Connection, stream: Stream, target: PeerId, served: Callable[[], None]
    ) -> None:
        """Ask the target to accept, then forward in both directions until the circuit is over. `served` is called
        once it is joined: from then on the book bounds it.
        """
        there = self._reserved.get(target)
        if there is None:
            self.book.release_reservation(target)
            send_refusal(stream, ReachRefusal.NO_RESERVATION)
            return
        limits = self.book.limits
        try:
            async with asyncio.timeout(limits.answer):
                far = await there.open_stream()
                far.write(encode(ReachKind.INCOMING, connection.peer.key, observed_url(connection)))
                try:
                    await expect(far, ReachKind.ACCEPTED)
                except BaseException:
                    far.reset(CIRCUIT_BROKEN)
                    raise
        except (TimeoutError, DtpError, EOFError):
            send_refusal(stream, ReachRefusal.NOT_TAKEN)
            return
        stream.write(encode(ReachKind.ACCEPTED, observed_url(there)))
        served()
        self.counters["circuits"] += 1
        circuit = _Circuit(self, target, stream, far)
        if self._looking is None or self._looking.done():  # only one task, or it would check too often
            self._looking = self._tasks.start(self._look_for_stuck(), name="dtp-relay-stuck")
        self._circuits |= dict.fromkeys((stream, far), circuit.end)
        try:
            await circuit.run()
        finally:
            del self._circuits[stream], self._circuits[far]

    async def _look_for_stuck(self) -> None:
        while self._circuits:
            await asyncio.sleep(self.book.limits.in_the_way / LOOKS)
            self._stuck.end_stuck()


class _Circuit:
    """Two joined streams, and the bytes and the time that they have left."""

    def __init__(self, relay: Relay, target: PeerId, near: Stream, far: Stream) -> None:
        self._relay = relay
        self._target = target
        self._streams = near, far
        self._loop = near.connection.loop
        self._left = relay.book.limits.circuit_bytes
        self._moved_at = self._loop.time()
        self._ended: asyncio.Future[None] = self._loop.create_future()

    def end(self) -> None:
        """End the circuit early, since it blocks others. Idempotent."""
        if not self._ended.done():
            self._ended.set_exception(_HadEnough())

    async def run(self) -> None:
        """Forward in both directions until one breaks off or both have ended, or until the circuit's time or bytes
        are used up.
        """
        near, far = self._streams
        limits = self._relay.book.limits
        both = [
            start_task(self._pass_on(near, far), name="dtp-circuit-there"),
            start_task(self._pass_on(far, near), name="dtp-circuit-back"),
        ]
        code, why = CIRCUIT_BROKEN, "broken"
        try:
            async with asyncio.timeout(limits.circuit_time):
                await self._watch_directions(both)
            code, why = 0, "ended"
        except (_HadEnough, TimeoutError):
            code, why = CIRCUIT_OVER, "over"
        except DtpError as error:
            log.debug("a circuit to %s broke off: %s", self._target.short, error)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._relay.counters[why] += 1
            for stream in self._streams if why != "ended" else ():
                stream.reset(code)

    async def _watch_directions(self, both: list[asyncio.Task[None]]) -> None:
        """Wait for both directions. Raise the error that ends one of them, and `_HadEnough` when nothing has been
        transferred for too long.
        """
        idle = self._relay.book.limits.circuit_idle
        waiting: set[asyncio.Future[None]] = {*both, self._ended}
        while len(waiting) > 1:
            left = self._moved_at + idle - self._loop.time()
            if left <= 0:
                raise _HadEnough
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def _pass_on(self, source: Stream, sink: Stream) -> None:
        """Forward as fast as `sink` accepts it: a peer that doesn't read stops only its own circuit."""
        relay = self._relay
        # In small steps, so that the progress of a slow reader is noticed soon.
        sink.set_low_mark(max(0, sink.connection.limits.write_high - _PIECE))
        while data := await source.read(_PIECE):
            now = self._loop.time()
            self._left -= len(data)
            if not relay.book.count_bytes(self._target, len(data), now) or self._left < 0:
                raise _HadEnough
            self._moved_at = now
            relay.counters["bytes"] += len(data)
            sink.write(data)
            await sink.drain()
        sink.write_eof()


class _HadEnough(Exception):
    """A circuit has used up its bytes, or has been idle for too long."""
