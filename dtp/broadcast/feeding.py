"""Serve listeners: each gets the stream pushed, from what is held, at its own pace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from dtp.broadcast import frames
from dtp.broadcast import messages as m
from dtp.broadcast.errors import ProducerEquivocated, ShowMessageError
from dtp.broadcast.held import HeldSegment, HeldSegments
from dtp.broadcast.sealed.admission import Refusal, SeatClaim
from dtp.broadcast.tree.ranking import Ranking, ShowListener, Standing
from dtp.broadcast.tree.rooms import Rooms
from dtp.broadcast.tree.sharers import Sharers
from dtp.carriers.crowd import source_group
from dtp.carriers.nearness import Nearness, dialled_as_told
from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.net.address import Address, AddressError, is_dialled_as_told, is_ip_address
from dtp.net.connection import Connection
from dtp.net.stream import Stream
from dtp.tasks import TaskSet, start_task

log = logging.getLogger("dtp.broadcast")

#: The default number of listeners: a tree with 4 at each node has 200 listeners within 4 steps, and costs each node 4
#: times the stream.
FAN_OUT: Final = 4
#: The most segments, and the most heads, in the answer to one request for some of them. Those who make such requests
#: aren't counted as listeners; heads are sent without waiting for a turn.
_MOST_AT_ONCE: Final = 64
_HEADS_AT_ONCE: Final = 8
#: How many such requests are served at a time, and the seconds that each has: most of the upload is for listeners
#: with a place. As many requests for keys are answered at a time, since each may cost a request to the chain. From
#: each source one is served at a time; the others wait.
_ASKS: Final = 8
_ASK: Final = 10.0
#: Seconds of the stream that all of them together may get at once. After that they get as many bytes a second as one
#: listener does, but at least `_LEAST`, also where the stream doesn't say how long its segments last; and as much
#: again for each place that is free, since nobody else uses that upload, and newcomers measure who has a free place.
_BESIDE: Final = 10.0
_LEAST: Final = 128 * 1024
#: Seconds within which a new stream has to say what it wants.
_HELLO: Final = 10.0
#: Streams of one connection: the live one, and some for what it missed.
_STREAMS: Final = 8
#: The least seconds between two reports of free places from a listener: more frequent ones have to wait.
_ROOMS: Final = 0.1
#: Seconds between the states that this side sends to show that it is alive.
_TELL: Final = 1.0
#: Seconds within which a listener that has lost its place has to leave.
_LEAVE: Final = 1.0
#: Seconds within which a listener has to read something at the end of the show. A listener that reads takes some
#: bytes each second, however slow its link, and leaves after 3 s of silence.
_TAKEN: Final = 5.0
#: The most listeners that are measured at a time.
_MEASURED: Final = 4
#: Addresses in their own network that listeners who come from one IP address are told.
_NEARBY: Final = 4

#: Reasons for refusing a key after which the listener may buy one, if keys are sold.
_MAY_BUY: Final = (Refusal.NOT_INVITED, Refusal.NO_TICKET, Refusal.NO_PASS, Refusal.TICKET_IN_USE)
#: Returns the keys of a sealed show's newest epochs, or the reason why this identity gets none.
AskKeys = Callable[[PeerId, Sequence[SeatClaim]], Awaitable[dict[int, bytes] | Refusal]]
#: Sends a segment. Returns False if the segment was lost meanwhile.
_SendSegment = Callable[[Stream, HeldSegment], Awaitable[bool]]
#: Returns whether a listener serves others at these addresses.
Measure = Callable[[PeerId, Sequence[str]], Awaitable[bool]]


class _NoUpload(Exception):
    """There isn't enough upload to answer a request within its time."""


async def _believe(peer: PeerId, addresses: Sequence[str]) -> bool:
    return True


@dataclass(slots=True, eq=False)
class _Served:
    """A listener that has a place."""

    who: ShowListener
    #: The timer for a listener that has lost its place but doesn't leave.
    limit: asyncio.Timeout
    #: Set while it is to be measured.
    doubted: asyncio.Event


class _Turns:
    """Bounds how many requests are answered at a time, with one from each source."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(_ASKS)
        self._sources: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def take_turn(self, source: str) -> AsyncIterator[float]:
        """Wait for a turn, and yield the time by the loop's clock at which it ends. Raise `TimeoutError` at that
        time."""
        turn, ends = self._sources.setdefault(source, asyncio.Lock()), _now() + _ASK
        async with asyncio.timeout_at(ends), turn, self._room:
            yield ends


class _Pace:
    """Limits what is sent to a rate."""

    def __init__(self, burst: float) -> None:
        """`burst` is how much may be sent at once, in seconds at the rate."""
        self._burst, self._due = burst, -math.inf

    def seconds_until_allowed(self, now: float) -> float:
        """Return the seconds until something may be sent; 0 if it may be sent now."""
        return max(self._due - self._burst - now, 0.0)

    def note_sent(self, seconds: float, now: float) -> None:
        """Note that something was sent which takes `seconds` at the rate."""
        self._due = max(self._due, now) + seconds


class Feeder:
    """Serves a stream to those who connect. `serve_connection` is the handler of a service.

    Nothing is queued for a listener that reads slowly: when it falls behind what is held, it is told of the gap, and
    continues with the live show.
    """

    def __init__(
        self,
        held: HeldSegments,
        me: PeerId,
        *,
        fan_out: int = FAN_OUT,
        ask_keys: AskKeys | None = None,
        measure: Measure = _believe,
        relays: Collection[PeerId] = (),
    ) -> None:
        """`ask_keys` is the producer's: others have no keys to give. `measure` says who serves others, where there
        are more listeners than places; without it they are believed. `relays` always have a place: see
        `check_relays`."""
        self.held = held
        self._ask_keys = ask_keys
        #: Where keys are sold to those who get none otherwise; "" where they aren't.
        self.keys_sold_at = ""
        self._open: Counter[Connection] = Counter()
        self._ranking = Ranking[Stream](fan_out, relays)
        self._measure, self._measuring = measure, asyncio.Semaphore(_MEASURED)
        self._asks, self._key_asks = _Turns(), _Turns()
        self._beside, self._next_beside = _Pace(_BESIDE), asyncio.Lock()
        self._me = me
        self._above: tuple[PeerId, ...] = ()
        self._elsewhere: Callable[[], Sequence[str]] = tuple
        self._listeners: dict[Stream, _Served] = {}
        self._rooms = Rooms()
        self._sharers = Sharers[Stream]()
        self._went = asyncio.Event()
        self._finishing = set[Stream]()
        self._leaving = False
        #: Bytes of pieces that were written, to all.
        self.sent = 0

    @property
    def fan_out(self) -> int:
        """How many may listen here; for a moment one more, while a listener is measured."""
        return self._ranking.places

    @fan_out.setter
    def fan_out(self, places: int) -> None:
        self._ranking.places = places

    @property
    def listeners(self) -> int:
        """The number of listeners here."""
        return len(self._listeners)

    async def wait_drained(self) -> None:
        """Wait until all listeners have the show to its end, or are gone."""
        while self._listeners:
            await self._went.wait()
            self._went.clear()

    def finish_stream(self, stream: Stream) -> None:
        """Send a listener what is here, and then end its stream: it hears the show elsewhere. Don't wait for a
        listener that reads nothing for 5 s."""
        self._finishing.add(stream)
        self.held.notify_change()
        self._watch_end(stream, -1)

    def _watch_end(self, stream: Stream, before: int) -> None:
        if stream not in self._finishing:
            return
        if stream.acknowledged == before:
            stream.reset()
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(_TAKEN, self._watch_end, stream, stream.acknowledged)

    def finish_all(self) -> None:
        """Call `finish_stream` for all listeners, also for those who come later."""
        self._leaving = True
        for stream in self._listeners:
            self.finish_stream(stream)
        self.held.notify_change()

    def _is_finishing(self, stream: Stream) -> bool:
        return self._leaving or stream in self._finishing

    @property
    def path(self) -> tuple[PeerId, ...]:
        """The peers through whom the show comes, this side last."""
        return (*self._above, self._me)

    def come_through(self, above: tuple[PeerId, ...]) -> None:
        """Note through whom the show comes now, the producer first, and tell the listeners here."""
        if above != self._above:
            self._above = above
            for stream in self._listeners:
                with contextlib.suppress(DtpError):  # it is gone: its task says so
                    self._say_state(stream)

    def know_others(self, elsewhere: Callable[[], Sequence[str]]) -> None:
        """Set `elsewhere`, which returns further addresses that have the show."""
        self._elsewhere = elsewhere

    async def serve_connection(self, connection: Connection) -> None:
        """Serve one connection, until it ends."""
        tasks = TaskSet(on_error=lambda task, fault: log.info("%s: %s", connection.peer.short, fault))
        try:
            async for stream in connection:
                tasks.start(self.serve_stream(connection, stream), name="dtp-show-feed")
        finally:
            await tasks.stop()

    async def serve_stream(self, connection: Connection, stream: Stream) -> None:
        """Serve a stream of a connection: a listener, or a request for keys. More than a few are refused."""
        if self._open[connection] >= _STREAMS:
            stream.reset()
            return
        self._open[connection] += 1
        try:
            await self._serve_first(connection, stream)
        finally:
            self._finishing.discard(stream)
            self._open[connection] -= 1
            if not self._open[connection]:
                del self._open[connection]

    async def _serve_first(self, connection: Connection, stream: Stream) -> None:
        try:
            async with asyncio.timeout(_HELLO):
                hello = await frames.read(stream)
            if isinstance(hello, m.KeyWanted):
                await self._give_keys(connection, stream, hello)
            elif not isinstance(hello, m.Hello):
                raise ShowMessageError("a listener begins with a hello")
            elif hello.count:
                await self._answer_ask(stream, hello, _describe(connection, hello))
            else:
                await self._serve_listener(stream, hello, _describe(connection, hello))
            stream.write_eof()
            await stream.flush()
        except (ShowMessageError, TimeoutError) as fault:
            log.info("%s is not a listener: %s", connection.peer.short, fault or "too slow")
            stream.reset()
        except DtpError as fault:
            log.debug("%s went: %s", connection.peer.short, fault)
        finally:
            self._forget_listener(stream)

    # ---- who has a place ------------------------------------------------------------------------------------

    async def _serve_listener(self, stream: Stream, hello: m.Hello, who: ShowListener) -> None:
        """Feed a listener for as long as it has a place, if it gets one."""
        now = _now()
        if not self._ranking.may_enter(who, now):
            frames.write(stream, m.Announced(self.held.announcement.encoded))
            self._say_full(stream, who)
            self._doubt_listeners(now)
            return
        self._ranking.add(stream, who)
        self._sharers.add(stream, who)
        async with asyncio.timeout(None) as limit:
            served = self._listeners[stream] = _Served(who, limit, asyncio.Event())
            on_trial = self.listeners > self.fan_out and self._ranking.find_surplus(now) is None
            beside = [
                start_task(self._hear_rooms(stream, who), name="dtp-show-rooms"),
                start_task(self._measure_doubted(stream, served, on_trial), name="dtp-show-measure"),
            ]
            self._hand_on_surplus()
            try:
                self._greet_listener(stream)
                await self._feed_listener(stream, hello, self._send_segment)
            finally:
                for each in beside:
                    each.cancel()
                await asyncio.gather(*beside, return_exceptions=True)

    def _doubt_listeners(self, now: float) -> None:
        """Have those listeners measured that say, without proof, that they serve others: somebody else wants their
        places."""
        for stream in self._ranking.list_doubted(now):
            self._listeners[stream].doubted.set()

    async def _measure_doubted(self, stream: Stream, served: _Served, on_trial: bool) -> None:
        """Measure a listener each time that others want its place; one with a place on trial is measured at once,
        before all others."""
        if on_trial:
            await self._measure_listener(stream, served)
        while True:
            await served.doubted.wait()
            async with self._measuring:
                await self._measure_listener(stream, served)

    async def _measure_listener(self, stream: Stream, served: _Served) -> None:
        who = served.who
        while self.held.live_start(0) is None:  # it has nothing yet that it could send
            await self.held.wait_change()
        with dialled_as_told(who.nearness):
            serves = await self._measure(who.peer, who.addresses)
        served.doubted.clear()  # also for others who wanted its place meanwhile
        self._ranking.note_measured(who, serves, _now())
        if not serves:
            self._rooms.forget_places(stream)
            self._sharers.put_last(stream)
        self._hand_on_surplus()

    def _hand_on_surplus(self) -> None:
        """Tell the surplus listener that somebody else has its place, and where others are."""
        stream = self._ranking.find_surplus(_now())
        if stream is None:
            return
        served = self._listeners[stream]
        with contextlib.suppress(DtpError):  # it is gone: its task says so
            self._say_full(stream, served.who)
        self._forget_listener(stream)
        served.limit.reschedule(_now() + _LEAVE)

    def _say_full(self, stream: Stream, who: ShowListener) -> None:
        sent = self._rooms.choose_places()
        frames.write(stream, m.Full(tuple(dict.fromkeys((*sent, *self._other_addresses(stream, who))))))

    def _forget_listener(self, stream: Stream) -> None:
        self._listeners.pop(stream, None)
        self._ranking.remove(stream)
        self._sharers.remove(stream)
        self._rooms.forget_places(stream)
        self._went.set()

    async def _answer_ask(self, stream: Stream, hello: m.Hello, who: ShowListener) -> None:
        """Answer a request for some segments when it has its turn; heads are small, and are sent at once."""
        self._greet_listener(stream, who)
        if hello.heads:
            async with asyncio.timeout(_ASK):
                wanted = replace(hello, count=min(hello.count, _HEADS_AT_ONCE))
                await self._feed_listener(stream, wanted, self._send_head)
            return
        with contextlib.suppress(_NoUpload):  # the stream ends normally: others may have the segment
            async with self._asks.take_turn(who.source) as ends:
                wanted = replace(hello, count=min(hello.count, _MOST_AT_ONCE))
                await self._feed_listener(stream, wanted, partial(self._send_beside, ends))

    async def _give_keys(self, connection: Connection, stream: Stream, wanted: m.KeyWanted) -> None:
        if self._ask_keys is None:
            raise ShowMessageError("keys are asked of the producer, and of a sealed show")
        answer: dict[int, bytes] | Refusal = Refusal.NOT_NOW
        with contextlib.suppress(TimeoutError):
            async with self._key_asks.take_turn(source_group(connection.source)):
                answer = await self._ask_keys(connection.peer, wanted.claims)
        if isinstance(answer, dict):
            frames.write(stream, m.KeysGiven(answer))
        elif self.keys_sold_at and answer in _MAY_BUY:
            frames.write(stream, m.KeyRefused(Refusal.FOR_SALE, self.keys_sold_at))
        else:
            frames.write(stream, m.KeyRefused(answer))

    async def _hear_rooms(self, stream: Stream, who: ShowListener) -> None:
        """Note the free places that a listener reports. A listener that serves nobody can't know of any."""
        try:
            while (message := await frames.read(stream)) is not None:
                if not isinstance(message, m.RoomReport):
                    raise ShowMessageError("a listener says where there is room, and nothing else")
                if stream in self._listeners and self._is_serving(who):
                    told = [each for each in message.places if is_dialled_as_told(each.address, who.nearness)]
                    self._rooms.set_places(stream, told)
                await asyncio.sleep(_ROOMS)
        except ShowMessageError as fault:
            log.info("a listener is none: %s", fault)
            stream.reset()
        except DtpError as fault:
            log.debug("a listener went: %s", fault)

    def list_places(self, own: Sequence[str]) -> tuple[m.FreePlace, ...]:
        """Return the free places for a listener that serves others, nearest first: here, at the addresses `own`, and
        below."""
        free = self.fan_out - self._ranking.count_serving(_now())
        here = [m.FreePlace(each, free) for each in own[:1]] if free > 0 else []
        return (*here, *self._rooms.list_nearest())[: m.MAX_ADDRESSES]

    def _other_addresses(self, stream: Stream, who: ShowListener | None) -> tuple[str, ...]:
        """Return addresses of others that serve the show, without the one that asks, and no more than it may be
        told."""
        mine = () if who is None else who.addresses
        near = () if who is None else self._sharers.list_nearby(who, _NEARBY)
        found = dict.fromkeys(near)
        for each in self._iter_others(stream):
            if len(found) == m.MAX_ADDRESSES:
                break
            if each not in mine:
                found[each] = None
        return tuple(found)

    def _iter_others(self, stream: Stream) -> Iterator[str]:
        yield from (each.address for each in self._rooms.list_nearest(stream))
        for other, each in self._sharers.iter_listeners():
            if other is not stream and self._is_serving(each):
                yield from each.addresses
        yield from self._elsewhere()

    def _is_serving(self, who: ShowListener) -> bool:
        """Return whether a listener serves others, as far as is known."""
        return self._ranking.get_standing(who, _now()) > Standing.TAKES

    def _say_state(self, stream: Stream, who: ShowListener | None = None) -> None:
        """Return the state of this side, and whether there is a place, for another listener or for `who`."""
        room = self.listeners < self.fan_out if who is None else self._ranking.may_enter(who, _now())
        if who is None and (served := self._listeners.get(stream)) is not None:
            who = served.who
        others = self._other_addresses(stream, who)
        frames.write(stream, m.SenderState(self.path[: m.MAX_PATH], others, room))

    def _greet_listener(self, stream: Stream, who: ShowListener | None = None) -> None:
        frames.write(stream, m.Announced(self.held.announcement.encoded))
        self._say_state(stream, who)

    async def _feed_listener(self, stream: Stream, hello: m.Hello, send: _SendSegment) -> None:
        """Send what a listener wants; with a `count` only that many segments, since it has no place."""
        held = self.held
        try:
            number = (
                hello.start if hello.start is not None else await self._find_live_start(stream, hello.back_ms)
            )
            for each in held.needed_by(number):
                await send(stream, each)
            end = number + hello.count if hello.count else math.inf
            while number < end and (held.last is None or number <= held.last):
                following = await self._send_next(stream, number, send, may_wait=not hello.count)
                if following is None:
                    return
                number = following
        except ProducerEquivocated as fault:
            frames.write(stream, m.ForkProof(fault.proof.encode()))

    async def _find_live_start(self, stream: Stream, back_ms: int) -> int:
        while (start := self.held.live_start(back_ms)) is None:
            if self.held.last is not None:
                return self.held.last
            if self._is_finishing(stream):
                return self.held.edge + 1
            await self._wait_change(stream)
        return start

    async def _send_next(
        self, stream: Stream, number: int, send: _SendSegment, *, may_wait: bool
    ) -> int | None:
        """Send segment `number`, or that it is lost. Return the number of the next one, or None at the end."""
        if self.held.fault is not None:
            raise self.held.fault
        segment = self.held.get_segment(number)
        if segment is not None:
            return number + 1 if await send(stream, segment) else number
        if self.held.is_lost(number):
            following = self.held.find_next(number)
            frames.write(stream, m.Gap(number, following - 1))
            await stream.drain()
            return following
        if not may_wait or self._is_finishing(stream):
            return None
        await self._wait_change(stream)
        return number

    async def _wait_change(self, stream: Stream) -> None:
        """Wait for the next change; meanwhile send the state each second."""
        if stream.write_error is not None:
            raise stream.write_error
        if self.held.fault is not None:
            raise self.held.fault
        try:
            async with asyncio.timeout(_TELL):
                await self.held.wait_change()
        except TimeoutError:
            self._say_state(stream)

    async def _send_segment(self, stream: Stream, segment: HeldSegment) -> bool:
        """Send a segment, each piece when it is here. Return False if the segment was lost meanwhile."""
        number = segment.segment.number
        frames.write(stream, m.Manifest(segment.segment.encoded))
        for index in range(segment.segment.pieces):
            while (piece := segment.get_piece(index)) is None:
                if self.held.get_segment(number) is not segment:
                    return False
                await self._wait_change(stream)
            frames.write(stream, m.Piece(number, index, piece))
            self.sent += len(piece)
            await stream.drain()
        return True

    async def _send_beside(self, ends: float, stream: Stream, segment: HeldSegment) -> bool:
        """Send a segment to somebody without a place, once there is upload for it; otherwise like `_send_segment`.
        Raise `_NoUpload` if that would be after the turn ends, at `ends`."""
        try:
            async with asyncio.timeout_at(ends - _TELL):  # the end of the turn resets the stream
                await self._next_beside.acquire()
        except TimeoutError:
            raise _NoUpload from None
        try:
            while not self.held.ended and (pause := self._beside.seconds_until_allowed(_now())):
                if _now() + pause > ends:
                    raise _NoUpload
                await asyncio.sleep(min(pause, _TELL))
                # the listener has left: nothing was sent, so nothing is counted
                if stream.write_error is not None:
                    raise stream.write_error
            unused = 1 + max(self.fan_out - self.listeners, 0)
            self._beside.note_sent(segment.segment.size / (unused * max(self.held.rate, _LEAST)), _now())
        finally:
            self._next_beside.release()
        return await self._send_segment(stream, segment)

    async def _send_head(self, stream: Stream, segment: HeldSegment) -> bool:
        """Send only a segment's manifest. Always return True."""
        frames.write(stream, m.Manifest(segment.segment.encoded))
        await stream.drain()
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()


def _describe(connection: Connection, hello: m.Hello) -> ShowListener:
    nearness = Nearness.of_source(connection.source)
    own, nearby = list[str](), list[str]()
    for text in hello.addresses:
        with contextlib.suppress(AddressError):
            address = Address.parse(text)
            if address.peer != connection.peer:  # nobody refers others to a third party
                continue
            if is_dialled_as_told(address, nearness):
                own.append(text)
            elif is_dialled_as_told(address, Nearness.NETWORK) and is_ip_address(connection.source):
                nearby.append(text)
    source = source_group(connection.source)
    return ShowListener(connection.peer, source, tuple(own), nearness, tuple(nearby))
