"""`Gossip`: the router on streams of connections. It takes what comes, and sends what is to go once a turn."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

from dtp.errors import DtpError, PeerError
from dtp.gossip.channel import NeighbourSink
from dtp.gossip.core import CutOff, Delivered, MembersChanged, RecordsOffered, Verdict
from dtp.gossip.errors import TopicError
from dtp.gossip.frames import PROTOCOL
from dtp.gossip.limits import DEFAULT, DEFAULT_WEIGHTS, GossipLimits, ScoreWeights
from dtp.gossip.message import ID_SIZE, Message, content_of, hash_content, sign_batch
from dtp.gossip.named import ConnectPeer, Named, NamedPeers, count_members
from dtp.gossip.router import Router
from dtp.gossip.topics import ROOM, Overflow, Topic, Validator
from dtp.identity import Identity, PeerId
from dtp.limited_log import RateLimitedLog
from dtp.net.turns.budget import TurnBudget
from dtp.peers.clocks import PeerClocks
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from dtp.gossip.engines.bridge import Bridge, Engine
    from dtp.net.stream import Stream

log = logging.getLogger("dtp.gossip")

#: Seconds until a stream that broke off is opened again, at first and at most.
_REOPEN: Final = 1.0
_LONGEST_REOPEN: Final = 60.0
#: Seconds that neighbours have at the end to take what was sent.
_LAST_WORD: Final = 1.0
#: Seconds in which `OF_ONE` faults of one topic's validator are told: anybody may write what it fails at.
_FAULTS: Final = 60.0
#: Steps of neighbours that have sent much at once, in a turn of the loop that stays short.
_TURN: Final = 16


class GossipLink(Protocol):
    """A live connection to a node, as `dtp.peers.links.PeerLink` is."""

    @property
    def peer(self) -> PeerId:
        """Who it is."""

    @property
    def outgoing(self) -> bool:
        """True if this side dialled."""

    async def open(self, protocol: str) -> Stream:
        """Open a stream for a protocol."""


#: Learns a signed record, and returns whom it names; None when it isn't to be believed.
LearnRecord = Callable[[bytes, PeerId], PeerId | None]
#: Returns the signed record of a peer for another to hear, if there is one.
RecordOf = Callable[[PeerId, PeerId], bytes | None]
#: Returns in which networks and by which relays a peer is dialled on the internet.
NetworksOf = Callable[[PeerId], frozenset[str]]


class Gossip:
    """Topics over connections that exist. Within `async with`.

    Connections are given by `add_link`, or `add_stream` for streams that are open already; `serve` is what takes the
    streams that neighbours open. Who is named by neighbours is connected by what `find` was given, if anything.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        limits: GossipLimits = DEFAULT,
        weights: ScoreWeights = DEFAULT_WEIGHTS,
        wall: Callable[[], float] = time.time,
        seed: int | None = None,
        clocks: PeerClocks | None = None,
    ) -> None:
        """`clocks` is told what neighbours say of the time."""
        self.identity = identity
        self._wall = wall
        self._router = Router(
            identity.id.key, random=random.Random(seed), limits=limits, weights=weights, clocks=clocks
        )
        self._channels: dict[bytes, NeighbourSink] = {}
        self._topics: dict[bytes, Topic] = {}
        self._bridges: list[Bridge] = []
        self._unsigned: dict[bytes, list[bytes]] = {}
        self._unsigned_count = self._unsigned_size = 0
        self._sequence = 0
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._full: set[bytes] = set()
        self._is_paused = False
        self._room: dict[bytes, bool] = {}
        self._tasks = TaskSet()
        #: The turns in which what neighbours have sent at once is processed.
        self.turns: TurnBudget
        self._loop: asyncio.AbstractEventLoop | None = None
        self._learn: LearnRecord | None = None
        self._networks_of: NetworksOf = lambda peer: frozenset()
        self._named: NamedPeers | None = None
        self._over_log = RateLimitedLog(log, "gossip", "streams that are over", clock=self._loop_time)
        self._fault_log = RateLimitedLog(
            log, "gossip", "faults of validators", period=_FAULTS, clock=self._loop_time
        )

    # ---- life ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Gossip:
        self._loop = asyncio.get_running_loop()
        self.turns = TurnBudget(_TURN, each=1, keep=0)
        self._set_wall()
        self._set_timer()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leave all topics. Neighbours get what was published first, as far as they read within a second."""
        await self.flush()
        await asyncio.gather(*(bridge.wait_sent() for bridge in self._bridges))
        for topic in list(self._topics.values()):
            topic._leave_topic()
        self._flush_turn()
        for bridge in self._bridges:
            await bridge.stop()
        channels = list(self._channels.values())
        for channel in channels:
            channel.finish()
        with contextlib.suppress(TimeoutError):  # whose links end next would lose what is under way
            async with asyncio.timeout(_LAST_WORD):
                await asyncio.gather(*(each.wait_delivered() for each in channels))
        await self._tasks.stop()
        if self._named is not None:
            await self._named.stop()
        self._loop = None
        if self._timer is not None:  # now, since what was done above may have set it again
            self._timer.cancel()
        self._wake_waiters()

    def _loop_time(self) -> float:
        if self._loop is None:
            raise TopicError("gossip isn't running; use it within 'async with'")
        return self._loop.time()

    def _set_wall(self) -> None:
        self._router.set_wall(self._wall() - self._loop_time())

    def _set_timer(self) -> None:
        if self._loop is None:
            return
        due = self._router.next_time()
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._handle_timer)

    def _handle_timer(self) -> None:
        self._timer = None
        self._set_wall()
        self._router.tick(self._loop_time())
        self._flush_turn()

    # ---- what can be asked --------------------------------------------------------------------------------------

    @property
    def limits(self) -> GossipLimits:
        """The limits of this side."""
        return self._router.limits

    @property
    def counts(self) -> Counter[str]:
        """How often what happened, by name; docs/gossip.md lists the names. Nothing is dropped that isn't counted."""
        return self._router.counts

    @property
    def peers(self) -> list[PeerId]:
        """Neighbours."""
        return [PeerId(key) for key in self._channels]

    @property
    def router(self) -> Router:
        """The router: for inspection."""
        return self._router

    def score(self, peer: PeerId) -> float:
        """Return the score of a neighbour; 0 for an unknown one."""
        return self._router.score_of(peer.key)

    def set_application_score(self, peer: PeerId, score: float) -> None:
        """Set what the program adds to the score of a neighbour, until it is gone: with -100 it is no longer read.
        Nothing is kept for a peer that is no neighbour."""
        self._router.set_application_score(peer.key, score)

    # ---- neighbours ---------------------------------------------------------------------------------------------

    async def serve(self, link: GossipLink, stream: Stream) -> None:
        """Take a stream that a neighbour opened for `gossip/1`, until it ends. For `PeerLinks.protocols`."""
        channel = self.add_stream(stream, outgoing=link.outgoing)
        if channel is not None:
            await channel.wait_ended()

    def add_link(self, link: GossipLink) -> None:
        """Gossip over a link that this side dialled, for as long as it is there.

        Nothing for one that the peer dialled: it opens the stream. May be given as it is to `PeerLinks.listen`.
        """
        if link.outgoing:
            self._tasks.start(self._keep_open(link), name="dtp-gossip-link")

    async def _keep_open(self, link: GossipLink) -> None:
        pause = _REOPEN
        while self._loop is not None:
            try:
                stream = await link.open(PROTOCOL)
            except DtpError as error:
                log.debug("no gossip with %s: %s", link.peer.short, error)
                return  # the link is over, or the other side has no gossip
            began = self._loop.time()
            channel = self.add_stream(stream, outgoing=True)
            if channel is None:
                return
            await channel.wait_ended()
            if self._loop is None or stream.connection.closed:
                return
            pause = (
                _REOPEN if self._loop.time() - began > _LONGEST_REOPEN else min(2 * pause, _LONGEST_REOPEN)
            )
            await asyncio.sleep(pause)

    def add_stream(self, stream: Stream, *, outgoing: bool) -> NeighbourSink | None:
        """Gossip over a stream of a connection, whose other end does, too. None if there are too many neighbours.

        A second stream with the same neighbour takes the place of the first.
        """
        now, peer = self._loop_time(), stream.connection.peer.key
        if (before := self._channels.pop(peer, None)) is not None:
            before.close()
        if peer == self.identity.id.key or not self._router.add_peer(
            peer, now, outgoing=outgoing, source=stream.connection.source
        ):
            stream.reset()
            return None
        channel = self._channels[peer] = NeighbourSink(self, peer, stream)
        channel.attach()
        self._schedule_flush()
        return channel

    def _on_channel_over(self, channel: NeighbourSink) -> None:
        if self._channels.get(channel.peer) is channel:
            del self._channels[channel.peer]
            if self._loop is not None:
                self._router.remove_peer(channel.peer, self._loop_time())
                self._schedule_flush()

    def exchange_records(
        self,
        *,
        record_of: RecordOf | None = None,
        learn: LearnRecord | None = None,
        connect: ConnectPeer | None = None,
        networks_of: NetworksOf | None = None,
    ) -> None:
        """Exchange records of peers: give those of `record_of`, take others by `learn`, and `connect` to them.

        Up to `limits.full_mesh` members of a topic become neighbours, so that small topics are one hop; of networks
        on the internet in which somebody isn't dialled, as `networks_of` says, few count.
        """
        self._learn, self._networks_of = learn, networks_of or self._networks_of
        if connect is not None:
            self._named = NamedPeers(
                connect, is_wanted=self._is_wanted, now=self._loop_time, counts=self.counts
            )
        if record_of is not None:
            given = record_of

            def find(peer: bytes, hearer: bytes) -> bytes | None:
                if not {peer, hearer} <= self._channels.keys():  # a broker is a member, and has no record
                    return None
                return given(PeerId(peer), PeerId(hearer))

            self._router.set_records(find)

    def renew_record(self, peer: PeerId) -> None:
        """Send a neighbour's new record to others soon: to those that have a small topic with it, and no link."""
        if self._loop is not None:
            self._router.renew_record(peer.key, self._loop_time())
            self._set_timer()

    def _on_records_offered(self, offered: RecordsOffered) -> None:
        if self._learn is None or self._loop is None:
            return
        for record in offered.records:
            try:
                peer = self._learn(record, PeerId(offered.sender))
            except PeerError as error:
                self.counts["record-refused"] += 1
                self._router.count_bad_record(offered.sender)
                log.debug("a record that %s gave: %s", PeerId(offered.sender).short, error)
                continue
            if peer is not None and self._named is not None:
                self._named.add(Named(peer, offered.topic), self._router.source_of(offered.sender))

    def _is_wanted(self, named: Named) -> bool:
        """Return whether a member of a topic that somebody has named is to become a neighbour."""
        if self._loop is None or named.peer.key in self._channels or named.peer == self.identity.id:
            return False
        sources = [self._router.source_of(each) for each in self._router.members_of(named.topic)]
        limits = self.limits
        count = count_members(sources, self._networks_of(named.peer), limits.per_network)
        return count < limits.full_mesh

    # ---- topics -------------------------------------------------------------------------------------------------

    def topic(
        self,
        name: str,
        *,
        key: bytes | str | None = None,
        overflow: Overflow = "wait",
        history: float = 0.0,
        validator: Validator | None = None,
        room: int = ROOM,
    ) -> Topic:
        """Return a topic, to be joined by `async with`.

        - `key` makes it private: who hasn't got it reads neither name nor payloads, and what they publish is refused.
        - `overflow` says what happens when `room` messages wait for the program: `"wait"` reads no more from
          neighbours until there is room, `"drop-oldest"` and `"raise"` (`TopicOverrun`) drop and count, in `dropped`.
        - `history` asks neighbours for what they hold of so many seconds: `GossipLimits.history` messages of each at
          most. Nodes hold `held_time` seconds, `held` bytes.
        - `validator` says of each message whether it is accepted, ignored or rejected; or awaitably so.

        Raise `TopicError` for a name, key or policy that can't be.
        """
        return Topic(
            self,
            name,
            key=key,
            overflow=overflow,
            history=history,
            validator=validator,
            room=room,
        )

    def _join_topic(self, topic: Topic) -> None:
        now = self._loop_time()
        if topic.wire_name in self._topics:
            raise TopicError(f"the topic {topic.name!r} is joined already")
        validate = None
        if (validator := topic.validator) is not None:
            checked = validator

            def validate(message: Message) -> Verdict | None:
                try:
                    verdict = checked(message)
                    if not inspect.isawaitable(verdict):
                        return _check_verdict(verdict)
                except Exception as error:  # noqa: BLE001 - foreign code: others' messages are still to come
                    self._note_validator_fault(topic, error)
                    return Verdict.IGNORE
                self._tasks.start(self._wait_verdict(topic, message, verdict), name="dtp-gossip-validator")
                return None

        self._router.join(
            topic.wire_name,
            now,
            validate=validate,
            open=None if topic.key is None else topic.key.open,
            shown=topic.name,
            history=topic.history,
        )
        self._topics[topic.wire_name] = topic
        for bridge in self._bridges:
            bridge.join(topic)
        self._schedule_flush()

    def _note_validator_fault(self, topic: Topic, fault: Exception) -> None:
        """Count a message that a topic's validator failed at, and tell the loop's exception handler of some."""
        self.counts["validator-failed"] += 1
        if self._loop is not None and self._fault_log.may_log(topic.name):
            told = {"message": f"the validator of topic {topic.name!r} failed", "exception": fault}
            self._loop.call_exception_handler(told)

    async def _wait_verdict(self, topic: Topic, message: Message, awaited: Awaitable[Verdict]) -> None:
        verdict = Verdict.IGNORE
        try:
            verdict = _check_verdict(await awaited)
        except Exception as error:  # noqa: BLE001 - foreign code
            self._note_validator_fault(topic, error)
        finally:
            if self._loop is not None:
                self._router.set_verdict(message.id, verdict, self._loop_time())
                self._schedule_flush()

    def _leave_topic(self, topic: Topic) -> None:
        if self._topics.get(topic.wire_name) is topic:
            del self._topics[topic.wire_name]
            if self._loop is not None:
                self._router.leave(topic.wire_name, self._loop_time())
                self._schedule_flush()
            self._full.discard(topic.wire_name)
            for bridge in self._bridges:
                bridge.leave(topic)
            self._on_room_made()

    # ---- publishing ---------------------------------------------------------------------------------------------

    def _members_of(self, topic: Topic) -> frozenset[bytes]:
        return self._router.members_of(topic.wire_name) & self._channels.keys()

    def _has_members(self, topic: Topic) -> bool:
        return self._router.has_members(topic.wire_name)

    def _may_publish(self, topic: Topic) -> bool:
        if self._unsigned_count >= self.limits.unsigned or self._unsigned_size >= self.limits.message:
            return False
        has_room = self._room.get(topic.wire_name)
        if has_room is None:
            has_room = self._room[topic.wire_name] = self._router.has_room(topic.wire_name, self._loop_time())
        return has_room

    async def _wait_room(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _queue_message(self, topic: Topic, data: bytes) -> bytes:
        """Queue a message, to be signed and sent at the end of this turn with others of the turn; return its id."""
        wall = self._wall()
        time_ms = int(wall * 1000)
        self._sequence = max(self._sequence + 1, int(wall * 1_000_000))
        key = self.identity.id.key
        if topic.key is not None:
            data = topic.key.seal(key, self._sequence, time_ms, data, os.urandom(24))
        content = content_of(key, topic.wire_name, self._sequence, time_ms, data)
        self._unsigned.setdefault(topic.wire_name, []).append(content)
        self._unsigned_count += 1
        self._unsigned_size += len(content)
        self._schedule_flush()
        return hash_content(content)[:ID_SIZE]

    def _sign_queued(self) -> None:
        now = self._loop_time()
        unsigned, self._unsigned = self._unsigned, {}
        self._unsigned_count = self._unsigned_size = 0
        for contents in unsigned.values():
            for encoded in sign_batch(self.identity, contents):
                self._router.publish(encoded, now)

    async def flush(self) -> None:
        """Wait until what was published is on its way to the neighbours that read at all."""
        if self._loop is None:
            return
        self._flush_turn()
        while any(
            self._router.queued_bytes(peer) and not self._router.is_stalled(peer, self._loop_time())
            for peer in self._channels
        ):
            await self._wait_room()

    # ---- a turn -------------------------------------------------------------------------------------------------

    def _schedule_flush(self) -> None:
        if not self._flushing and self._loop is not None:
            self._flushing = True
            self._loop.call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        """End a turn: sign what was published, deliver what came, send what is queued, in one record a link."""
        self._flushing = False
        if self._loop is None:
            return
        if self._unsigned:
            self._sign_queued()
        self._take_events()
        for peer in self._router.take_ready():
            if (channel := self._channels.get(peer)) is not None:
                channel.send()
            else:
                for bridge in self._bridges:
                    if bridge.peer == peer:
                        bridge.wake()
        self._update_paused()
        self._set_timer()

    def _update_paused(self) -> None:
        self._room.clear()
        paused = bool(self._full) or self._router.is_congested(self._loop_time())
        if paused != self._is_paused:
            self._is_paused = paused
            if not paused:
                for channel in list(self._channels.values()):
                    channel.resume()
        if self._waiters:
            self._wake_waiters()

    @property
    def is_paused(self) -> bool:
        """True while nothing is read: a program reads too slowly and asked to wait, or most neighbours do."""
        return self._is_paused

    def _on_room_made(self) -> None:
        if self._full:
            self._full = {name for name in self._full if name in self._topics and self._topics[name].is_full}
            if not self._full:
                self._schedule_flush()

    def _receive_frames(self, peer: bytes, found: list[tuple[int, bytes]]) -> None:
        self._router.receive(peer, found, self._loop_time())
        self._take_events()
        if self._router.has_ready or self._room or self._waiters or self._is_paused:
            self._schedule_flush()
        else:  # as after most messages: they were for the program, and nothing is to be sent
            self._set_timer()

    def _take_events(self) -> None:
        for event in self._router.take_events():
            if type(event) is Delivered:
                topic = self._topics.get(event.topic)
                if topic is not None:
                    topic._deliver_message(event.message)
                    if topic.overflow == "wait" and topic.is_full:
                        self._full.add(event.topic)
                        self._is_paused = True
            elif isinstance(event, CutOff):
                if (channel := self._channels.get(event.peer)) is not None:
                    short = PeerId(event.peer).short
                    if self._over_log.may_log(short):
                        log.info("gossip with %s is over: %s", short, event.reason)
                    channel.close()
            elif isinstance(event, RecordsOffered):
                self._on_records_offered(event)
            elif isinstance(event, MembersChanged):
                self._wake_waiters()

    # ---- brokers ------------------------------------------------------------------------------------------------

    async def attach(self, engine: Engine, *, plain: bool = False, only: str | None = None) -> Bridge:
        """Carry topics over a broker as well: those that have a key, and with `plain` all of them; or `only` one.

        Messages stay as they are signed; each is delivered once, whichever way it comes. Raise `EngineError` when
        the broker can't be reached.
        """
        from dtp.gossip.engines.bridge import Bridge

        bridge = Bridge(self, engine, plain=plain, only=only)
        await bridge.start()
        self._bridges.append(bridge)
        for topic in self._topics.values():
            bridge.join(topic)
        self._schedule_flush()
        return bridge

    async def detach(self, bridge: Bridge) -> None:
        """Carry nothing over that broker any more, after what was published. Idempotent."""
        if bridge in self._bridges:
            await self.flush()
            await bridge.wait_sent()
            self._bridges.remove(bridge)
            self._router.remove_peer(bridge.peer, self._loop_time())
            await bridge.stop()


def _check_verdict(verdict: object) -> Verdict:
    """Return what a validator returned. Raise `TopicError` where that is no verdict."""
    if not isinstance(verdict, Verdict):
        raise TopicError(f"a validator returned {verdict!r}; return Verdict.ACCEPT, IGNORE or REJECT")
    return verdict
