"""`dtp.listen_to`: a show's segments, checked and in order, with gaps reported; they are passed on to other
listeners."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from dtp.broadcast.by_topic import TopicReceiver
from dtp.broadcast.feeding import FAN_OUT, Feeder
from dtp.broadcast.fetching import Dial, dial_told
from dtp.broadcast.format import Announcement, Flag, Segment
from dtp.broadcast.held import HELD, HeldSegments
from dtp.broadcast.messages import FreePlace
from dtp.broadcast.parents import Parents, Patience
from dtp.broadcast.places import SERVICE, Place, ShowNode, ShowPlace, addresses_of
from dtp.broadcast.receiving import ShowReceiver
from dtp.broadcast.sealed.issuing import ROTATE
from dtp.broadcast.sealed.opening import Claims, KeyAsker, Opener, no_claims
from dtp.broadcast.tree.lateness import Lateness
from dtp.broadcast.tree.measuring import measure_from
from dtp.broadcast.tree.ranking import check_relays
from dtp.carriers.nearness import Nearness
from dtp.errors import LocalError
from dtp.gossip.engines.bridge import Engine
from dtp.gossip.topics import Topic, Validator
from dtp.identity import Identity, PeerId
from dtp.net.address import Address, AddressError
from dtp.net.connection import Connection
from dtp.node.node import ANYWHERE, Node
from dtp.tasks import start_task

#: The place of somebody who only listens.
NOWHERE: Final = Place(listen=())


@dataclass(frozen=True, slots=True)
class HeardSegment:
    """A segment that was heard: it is signed by the producer, and no earlier one will follow it."""

    #: The segment's bytes; empty for keys, and for init data that is the same as before.
    data: bytes
    segment: Segment
    #: The segments before it that nobody had any more; normally empty.
    missed: range
    #: How far it is behind the newest one that is known here, ms by the producer's clock; or how much later it comes
    #: than the soonest of the last hours did, if that is more: over a slow link the newest of all isn't known.
    behind_ms: int
    #: The bytes as the producer signed them; those of a sealed show are sealed.
    carried: bytes

    @property
    def is_init(self) -> bool:
        """True for data that a decoder needs first, and that shows nothing."""
        return Flag.INIT in self.segment.flags


class ShowStream:
    """The segments of a show, as they come: `async for heard in dtp.listen_to(address)`.

    `async with` opens it first, and closes it at the end; iterating without it does both as well.
    """

    def __init__(
        self,
        *addresses: str,
        identity: Identity | None = None,
        producer: PeerId | None = None,
        show: bytes | None = None,
        place: ShowPlace = NOWHERE,
        start: int | None = None,
        back_ms: int = 0,
        fan_out: int = FAN_OUT,
        patience: Patience | None = None,
        limit: int = HELD,
        claims: Claims = no_claims,
        topic: str | None = None,
        buy: Dial | None = None,
        key_lasts: float = ROTATE,
        over: Engine | None = None,
        node_identity: Identity | None = None,
        relays: Collection[PeerId] = (),
        teller: Nearness | None = None,
        lan: bool = False,
    ) -> None:
        """Listen to a show.

        - `addresses` are who has the show; more are learned from them.
        - `producer` is who must have signed it; by default the peer of the first address. `show` is its id, 32 bytes;
          by default whichever is there.
        - `place` with `listen` URLs passes the show on, to `fan_out` listeners at most; `relays` are those of them
          that always have a place.
        - `start` is the number of the first segment; without it, what is live, or `back_ms` before.
        - `patience` is how long it waits: `Patience(lost=60)` raises `ShowLost` when for 60 s no new segment came and
          no neighbour said that it hears the producer. A producer that pauses is heard, and the show isn't lost.
        - `limit` is what is held for others and to go back, in bytes.
        - `claims` signs claims to the seats of a sealed show, for accounts beside the identity's own that hold
          tickets (`dtp.broadcast.money.tickets.seat_claim`). Iterating raises `ShowSealed` where there is no key.
        - `buy` dials the service where the producer sells keys, such as `functools.partial(dtp.connect, wallet=me,
          budget="0.1SUI")`. Iterating raises what that raises, such as `BudgetSpent`: then nothing more is paid.
        - `key_lasts` is how many seconds a key that is bought lasts at least, in the mean: iterating raises
          `KeysTooFast` instead of buying more than eight beyond that.
        - `topic` is that of the producer's feed, which comes by the topics of nodes then. Links begin at the
          addresses, and there it is asked for what is missing. A topic keeps nothing of what was sent before: `start`
          is refused, and so is `back_ms` without a broker. It comes `over` one as well, such as
          `NatsEngine("nats://127.0.0.1:4222", last=3600)`, which has `back_ms` of it where it keeps so much.
        - `node_identity` is who the node is that hears the show and passes it on; by default `identity`, which opens
          it. Nodes are found by their identity, so two devices of one person need two of them.
        - `teller` is how near they are who told of the addresses, where that isn't you: `dtp.carriers.nearness`.
        - `lan` dials private addresses that others tell of, wherever they are themselves.

        Raise `AddressError` for what is not an address.
        """
        given = [_with_service(Address.parse(each)) for each in addresses]
        if not given:
            raise LocalError("a show is listened to at one address at least")
        check_relays(relays, fan_out)
        self._service = given[0].service
        me = identity or Identity.generate()
        self._node_identity = node_identity or me
        self._fan_out, self._relays = fan_out, relays
        self._feeder: Feeder | None = None
        self._stack = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None
        if over is not None and topic is None:
            raise LocalError("a broker carries a topic: give topic")
        if topic is not None and (start is not None or (back_ms and over is None)):
            raise LocalError(
                "a topic keeps nothing of what was sent before: leave it out (--topic, topic=), or go back by a"
                " broker that keeps the feed (--over and --back, over= and back_ms=)"
            )
        self._over, self._back_ms = over, back_ms
        if topic is not None:
            place = _among(place, given)
        self.node: ShowNode = place.node(
            self._node_identity, {self._service: self._serve_connection} if place.listen else {}
        )
        nearest = Nearness.NETWORK if lan else Nearness.ANYWHERE
        kind = ShowReceiver if topic is None else partial(TopicReceiver, self._topic_maker(topic))
        self.receiver = kind(
            self._node_identity.id,
            lambda address: self.node.connect(address),
            Parents(map(str, given), teller, nearest),
            producer=producer or given[0].peer,
            show=show,
            start=start,
            back_ms=back_ms,
            patience=patience,
            limit=limit,
        )
        self._place, self._serves = place, bool(place.listen)
        self._opener = Opener(me)
        ask = (lambda address: self.node.connect(address)) if node_identity is None else _dial_as(me, place)
        ask = dial_told(ask, self._get_teller_of_keys)
        self._asker = KeyAsker(ask, self._key_places, claims, buy, key_lasts, nearest)
        self._init = b""

    def _topic_maker(self, name: str) -> Callable[..., Topic]:
        """Return what makes the topic, once the node is open."""

        def join(validator: Validator) -> Topic:
            assert isinstance(self.node, Node)
            history = 0.0 if self._over is None else self._back_ms / 1000
            return self.node.topic(name, validator=validator, history=history)

        return join

    async def __aenter__(self) -> ShowStream:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.node)
            if self._over is not None and isinstance(self.node, Node):
                await self.node.gossip.attach(self._over, plain=True)
            if self._serves:
                own = addresses_of(self.node, self._service)
                self.receiver.parents.avoid_addresses(own)
                self.receiver.serving = lambda: own
                self.receiver.room = lambda: self._list_room(own)
            self._task = start_task(self.receiver.run(), name="dtp-show-receiver")
            stack.callback(self._task.cancel)
            stack.push_async_callback(self._asker.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening, and refer our listeners to others. Idempotent."""
        await self._stack.aclose()

    async def announcement(self) -> Announcement:
        """Wait until somebody is heard, and return the show's announcement. Raise `ShowUnreachable`,
        `SegmentForeign`."""
        return (await self.receiver.wait_opened()).announcement

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses at which this side passes the show on."""
        return addresses_of(self.node, self._service) if self._serves else ()

    def add_addresses(self, *addresses: str, teller: Nearness = Nearness.ANYWHERE) -> None:
        """Hear the show at these as well, where those that are known don't have it any more; but not at
        places of this machine or through the chain, since somebody else tells of them, nor at what is nearer
        than `teller`. Raise `AddressError`."""
        told = [str(_with_service(Address.parse(each))) for each in addresses]
        self.receiver.parents.learn_addresses(told, teller)

    @property
    def is_heard(self) -> bool:
        """True while somebody sends us the show."""
        return bool(self.receiver.path)

    @property
    def listeners(self) -> int:
        """The number of listeners here."""
        return 0 if self._feeder is None else self._feeder.listeners

    async def wait_drained(self, patience: float = 10.0) -> None:
        """Wait until our listeners have all of a show that has ended, for `patience` seconds at most."""
        if self._feeder is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._feeder.wait_drained()

    def _list_room(self, own: tuple[str, ...]) -> tuple[FreePlace, ...]:
        """Return the free places, here and below."""
        if self._feeder is not None:
            return self._feeder.list_places(own)
        return tuple(FreePlace(each, self._fan_out) for each in own[:1] if self._fan_out)

    async def wait_feeder(self) -> Feeder:
        """Wait until somebody is heard, and return the `Feeder` that serves our listeners. Raise what `announcement`
        raises."""
        if self._feeder is None:
            held = await self.receiver.wait_opened()
            measure = measure_from(self._place, held.announcement)
            feeder = Feeder(
                held, self._node_identity.id, fan_out=self._fan_out, measure=measure, relays=self._relays
            )
            if self._feeder is None:
                self._feeder = feeder
                feeder.know_others(lambda: self.receiver.parents.useful)
                self.receiver.on_path = feeder.come_through
                feeder.come_through(self.receiver.path)
        return self._feeder

    async def _serve_connection(self, connection: Connection) -> None:
        await (await self.wait_feeder()).serve_connection(connection)

    async def __aiter__(self) -> AsyncIterator[HeardSegment]:
        """Yield each segment once it is whole. Raise `ShowUnreachable`, `SegmentForeign`, `ProducerEquivocated`, and
        `ShowLost` after the last one that is here."""
        if self._task is not None:
            async for each in self._iter_segments():
                yield each
            return
        async with self:
            async for each in self._iter_segments():
                yield each

    async def _iter_segments(self) -> AsyncIterator[HeardSegment]:
        async for each in self.iter_sealed():
            yield await self._open_heard(each)

    async def iter_sealed(self) -> AsyncIterator[HeardSegment]:
        """Yield each segment as it came, still sealed if the show is, for programs that pass it on. Raise what
        iterating raises, except `ShowSealed`. The stream has to be open."""
        held = await self.receiver.wait_opened()
        loop = asyncio.get_running_loop()
        order = Order(held, lambda: self.receiver.start, lambda: round(loop.time() * 1000))
        while True:
            for each in order.take_ready():
                yield each
            if held.fault is not None:
                raise held.fault
            if held.ended:
                return
            if self.receiver.fault is not None:
                raise self.receiver.fault
            await held.wait_change()

    def _key_places(self, producer: PeerId) -> list[str]:
        """Return the addresses at which to request the producer's keys: the known ones, otherwise those that can be
        found."""
        here = [each for each in self.receiver.parents.addresses if _is_of(each, producer)]
        return here or [str(Address("dtp", peer=producer, service=self._service))]

    def _get_teller_of_keys(self, place: str) -> Nearness | None:
        """Return how near those are who tell where keys are asked for. Nobody else tells where a producer is that is
        found: it may be anywhere, if that costs nothing."""
        is_told = place in self.receiver.parents.addresses or Address.parse(place).is_direct
        return self.receiver.parents.get_teller(place) if is_told else Nearness.PROCESS

    async def _open_heard(self, heard: HeardSegment) -> HeardSegment:
        """Return a segment opened for the program. Raise `ShowSealed`."""
        segment = heard.segment
        if not self._opener.has_key(segment):
            held = await self.receiver.wait_opened()
            self._opener.add_keys(await self._asker.ask_keys(held.announcement, segment.epoch))
        data = self._opener.open_segment(segment, heard.data)
        if heard.is_init:
            data, self._init = b"" if data == self._init else data, data
        return replace(heard, data=data)

    def open_segment(self, segment: Segment, data: bytes) -> bytes:
        """Return the opened bytes of a held segment. Raise `ShowSealed` if its key hasn't come."""
        return self._opener.open_segment(segment, data)


def _is_of(text: str, peer: PeerId) -> bool:
    """Return whether an address is one of `peer`; those that others tell of may be malformed."""
    with contextlib.suppress(AddressError):
        return Address.parse(text).peer == peer
    return False


def _with_service(address: Address) -> Address:
    """Return the address with the default service of shows if it names none."""
    return address if address.service else address.with_service(SERVICE)


def _dial_as(identity: Identity, place: ShowPlace) -> Dial:
    """Return a dialer that dials as `identity` from a place whose node has another identity: for one request, without
    being listed."""
    where = replace(place, listen=()) if isinstance(place, Place) else NOWHERE

    @asynccontextmanager
    async def dial(address: str) -> AsyncIterator[Connection]:
        async with where.node(identity, {}) as node, node.connect(address) as connection:
            yield connection

    return dial


def _among(place: ShowPlace, given: Sequence[Address]) -> Place:
    """Return the place of a listener by topic, which needs links, at first to those who serve the show."""
    if not isinstance(place, Place):
        raise LocalError("a topic takes a node of its own: leave out place, or give a Place")
    first = [each.with_service("") for each in given if each.is_direct]
    return replace(place, listen=place.listen or (ANYWHERE,), bootstrap=(*place.bootstrap, *first))


class Order:
    """Yields segments in order, as they become whole: a value over `HeldSegments`."""

    def __init__(
        self, held: HeldSegments, start: Callable[[], int | None], now_ms: Callable[[], int]
    ) -> None:
        """`start` returns the first segment to hear, once it is known; `now_ms` the time by a monotonic clock."""
        self._held, self._start, self._now_ms = held, start, now_ms
        self._lateness = Lateness()
        self._next: int | None = None
        self._missed_from: int | None = None
        #: The latest init data and keys that were yielded.
        self._given: deque[int] = deque(maxlen=16)

    def take_ready(self) -> Iterable[HeardSegment]:
        """Yield the segments that are next and whole."""
        held = self._held
        if self._next is None:
            self._next = self._start()
        while (number := self._next) is not None:
            each = held.get_segment(number)
            if each is not None and each.whole:
                yield from self._give_ready(each.segment, each.data)
                self._next = number + 1
                continue
            if held.is_lost(number):
                self._next = held.find_next(number)
            elif held.ended and number <= held.edge:
                self._next = held.find_held(number + 1)
            else:
                return
            self._missed_from = number if self._missed_from is None else self._missed_from

    def _give_ready(self, segment: Segment, data: bytes) -> Iterable[HeardSegment]:
        held = self._held
        newest = held.get_segment(held.edge)
        known = 0 if newest is None else newest.segment.time_ms - segment.time_ms
        behind = max(known, self._lateness.measure_lateness(segment.time_ms, self._now_ms()))
        for each in held.needed_by(segment.number):
            if each.whole and each.segment.number not in self._given:
                self._given.append(each.segment.number)
                yield HeardSegment(each.data, each.segment, range(0), behind, each.data)
        if segment.flags & (Flag.INIT | Flag.KEYS):
            self._given.append(segment.number)
        missed = range(0) if self._missed_from is None else range(self._missed_from, segment.number)
        self._missed_from = None
        yield HeardSegment(data, segment, missed, behind, data)


#: Return a show to iterate: `async for heard in dtp.listen_to(address)`. Its arguments are those of `ShowStream`.
listen_to = ShowStream
