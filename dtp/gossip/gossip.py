"""`Gossip`: the router on streams of connections. It processes what comes at once, and sends queued frames once a
turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from dtp.errors import DtpError
from dtp.gossip.channel import NeighbourSink
from dtp.gossip.core import CutOff, Delivered, MembersChanged, RecordsOffered
from dtp.gossip.errors import TopicError
from dtp.gossip.flow import Flow, RouterTimer
from dtp.gossip.frames import PROTOCOL
from dtp.gossip.limits import DEFAULT, DEFAULT_WEIGHTS, GossipLimits, ScoreWeights
from dtp.gossip.named import ConnectPeer, LearnRecord, NetworksOf, RecordExchange, RecordOf
from dtp.gossip.publishing import PublishQueue
from dtp.gossip.router import Router
from dtp.gossip.topics import ROOM, Overflow, Topic, Validator, Validators
from dtp.identity import Identity, PeerId
from dtp.limited_log import RateLimitedLog
from dtp.net.turns.budget import TurnBudget
from dtp.peers.clocks import PeerClocks
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from dtp.gossip.engines.bridge import Bridge, Engine
    from dtp.net.stream import Stream

log = logging.getLogger("dtp.gossip")

#: Seconds until a broken stream is opened again, at first and at most.
_REOPEN: Final = 1.0
_LONGEST_REOPEN: Final = 60.0
#: Seconds for which neighbours may still read what was sent, at the end.
_LAST_WORD: Final = 1.0
#: Steps of busy neighbours in one turn of the loop, so that the turn stays short.
_TURN: Final = 16


class GossipLink(Protocol):
    """A live connection to a node, such as `dtp.peers.links.PeerLink`."""

    @property
    def peer(self) -> PeerId:
        """The peer at the other end."""

    @property
    def outgoing(self) -> bool:
        """True if this side dialled."""

    async def open(self, protocol: str) -> Stream:
        """Open a stream for a protocol."""


class Gossip:
    """Topics over existing connections. Use it within `async with`.

    Add connections with `add_link`, and open streams with `add_stream`; `serve` handles the streams that neighbours
    open. If `exchange_records` was called, peers that neighbours name are connected to as well.
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
        """`clocks` notes what neighbours' messages tell about the time."""
        self.identity = identity
        self._router = Router(
            identity.id.key, random=random.Random(seed), limits=limits, weights=weights, clocks=clocks
        )
        self._timer = RouterTimer(self._router, wall, self._flush_turn)
        self._channels: dict[bytes, NeighbourSink] = {}
        self._topics: dict[bytes, Topic] = {}
        self._bridges: list[Bridge] = []
        self._unsigned = PublishQueue(identity, limits, wall)
        self._flow = Flow(self._router)
        self._records = RecordExchange(identity.id, self._router, self._channels.keys(), self.loop_time)
        self._validators = Validators(self._router, self.loop_time, self.schedule_flush)
        self._tasks = TaskSet()
        #: The turns in which frames of busy neighbours are processed.
        self.turns: TurnBudget
        self._flushing = False
        self._over_log = RateLimitedLog(log, "gossip", "streams that are over", clock=self.loop_time)

    # ---- life ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Gossip:
        self.turns = TurnBudget(_TURN, each=1, keep=0)
        self._timer.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leave all topics. Neighbours get published messages first, as far as they read these within a second."""
        await self.flush()
        await asyncio.gather(*(bridge.wait_sent() for bridge in self._bridges))
        for topic in list(self._topics.values()):
            topic.leave_topic()
        self._flush_turn()
        for bridge in self._bridges:
            await bridge.stop()
        channels = list(self._channels.values())
        for channel in channels:
            channel.finish()
        with contextlib.suppress(TimeoutError):  # links that are closed next would lose what is under way
            async with asyncio.timeout(_LAST_WORD):
                await asyncio.gather(*(each.wait_delivered() for each in channels))
        await self._validators.stop()
        await self._tasks.stop()
        await self._records.stop()
        self._timer.stop()  # at the end, since the calls above may have set it again
        for channel in list(self._channels.values()):  # neighbours may have opened other streams meanwhile
            channel.close()
        self._flow.wake_waiters()

    def loop_time(self) -> float:
        """Return the loop's time. Raise `TopicError` outside of `async with`."""
        return self._timer.loop_time()

    @property
    def is_running(self) -> bool:
        """True within `async with`."""
        return self._timer.loop is not None

    # ---- state --------------------------------------------------------------------------------------------------

    @property
    def limits(self) -> GossipLimits:
        """The limits of this side."""
        return self._router.limits

    @property
    def counts(self) -> Counter[str]:
        """Counts of events by name; docs/gossip.md lists the names. Nothing is dropped without being counted."""
        return self._router.counts

    @property
    def peers(self) -> list[PeerId]:
        """The neighbours."""
        return [PeerId(key) for key in self._channels]

    @property
    def router(self) -> Router:
        """The router, for inspection."""
        return self._router

    def score(self, peer: PeerId) -> float:
        """Return the score of a neighbour; 0 for an unknown one."""
        return self._router.score_of(peer.key)

    def set_application_score(self, peer: PeerId, score: float) -> None:
        """Set what the program adds to the score of a neighbour, until it is gone: with -100 it is no longer read.
        For other peers nothing is kept.
        """
        self._router.set_application_score(peer.key, score)

    # ---- neighbours ---------------------------------------------------------------------------------------------

    async def serve(self, link: GossipLink, stream: Stream) -> None:
        """Serve a stream that a neighbour has opened for `gossip/1`, until it ends. For `PeerLinks.protocols`."""
        channel = self.add_stream(stream, outgoing=link.outgoing)
        if channel is not None:
            await channel.wait_ended()

    def add_link(self, link: GossipLink) -> None:
        """Gossip over a link that this side has dialled, as long as it lasts.

        Do nothing for a link that the peer has dialled, since the peer opens the stream. May be passed to
        `PeerLinks.listen` as it is.
        """
        if link.outgoing:
            self._tasks.start(self._keep_open(link), name="dtp-gossip-link")

    async def _keep_open(self, link: GossipLink) -> None:
        pause = _REOPEN
        while self.is_running:
            try:
                stream = await link.open(PROTOCOL)
            except DtpError as error:
                log.debug("no gossip with %s: %s", link.peer.short, error)
                return  # the link is over, or the other side has no gossip
            began = self.loop_time()
            channel = self.add_stream(stream, outgoing=True)
            if channel is None:
                return
            await channel.wait_ended()
            if not self.is_running or stream.connection.closed:
                return
            lasted = self.loop_time() - began
            pause = _REOPEN if lasted > _LONGEST_REOPEN else min(2 * pause, _LONGEST_REOPEN)
            await asyncio.sleep(pause)

    def add_stream(self, stream: Stream, *, outgoing: bool) -> NeighbourSink | None:
        """Gossip over a stream of a connection, whose other end does so, too. Return None if there are too many
        neighbours.

        A second stream with the same neighbour replaces the first.
        """
        now, peer = self.loop_time(), stream.connection.peer.key
        if (before := self._channels.pop(peer, None)) is not None:
            before.close()
        if peer == self.identity.id.key or not self._router.add_peer(
            peer, now, outgoing=outgoing, source=stream.connection.source
        ):
            stream.reset()
            return None
        channel = self._channels[peer] = NeighbourSink(self, peer, stream)
        channel.attach()
        self.schedule_flush()
        return channel

    def on_channel_over(self, channel: NeighbourSink) -> None:
        """Note that a neighbour's stream has ended."""
        if self._channels.get(channel.peer) is channel:
            del self._channels[channel.peer]
            if self.is_running:
                self._router.remove_peer(channel.peer, self.loop_time(), under_way=channel.most_under_way)
                self.schedule_flush()

    def exchange_records(
        self,
        *,
        record_of: RecordOf | None = None,
        learn: LearnRecord | None = None,
        connect: ConnectPeer | None = None,
        networks_of: NetworksOf | None = None,
    ) -> None:
        """Exchange records of peers: send those of `record_of`, pass received ones to `learn`, and `connect` to the
        peers that they name.

        Up to `limits.full_mesh` members of a topic become neighbours, so that small topics need one hop. Of other
        networks on the internet than those in which a peer is dialled (`networks_of`), few members count.
        """
        self._records.begin_exchange(record_of, learn, connect, networks_of)

    def renew_record(self, peer: PeerId) -> None:
        """Send a neighbour's new record soon to others that share a small topic with it, but have no link to it."""
        if self.is_running:
            self._router.renew_record(peer.key, self.loop_time())
            self._timer.set_due()

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
        """Return a topic, to be joined with `async with`.

        - `key` makes it private: without it nobody can read name or payloads, and others' messages are refused.
        - `overflow` says what happens when `room` messages wait for the program: `"wait"` reads no more from
          neighbours until there is room; `"drop-oldest"` and `"raise"` (`TopicOverrun`) drop messages, and count them
          in `dropped`.
        - `history` asks neighbours for the messages of so many seconds that they hold, at most `GossipLimits.history`
          from each. Nodes hold messages for `held_time` seconds, up to `held` bytes.
        - `validator` returns whether a message is accepted, ignored or rejected, or an awaitable of that.

        Raise `TopicError` for an impossible name, key or policy.
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

    def join_topic(self, topic: Topic) -> None:
        """Join a topic, and tell neighbours. Raise `TopicError` if one of this name is joined already."""
        now = self.loop_time()
        if topic.wire_name in self._topics:
            raise TopicError(f"the topic {topic.name!r} is joined already")
        self._router.join(
            topic.wire_name,
            now,
            validate=self._validators.wrap_validator(topic),
            open=None if topic.key is None else topic.key.open,
            shown=topic.name,
            history=topic.history,
        )
        self._topics[topic.wire_name] = topic
        for bridge in self._bridges:
            bridge.join(topic)
        self.schedule_flush()

    def leave_topic(self, topic: Topic) -> None:
        """Leave a topic, and tell neighbours. Idempotent."""
        if self._topics.get(topic.wire_name) is topic:
            del self._topics[topic.wire_name]
            if self.is_running:
                self._router.leave(topic.wire_name, self.loop_time())
                self.schedule_flush()
            for bridge in self._bridges:
                bridge.leave(topic)
            self.on_room_made()

    # ---- publishing ---------------------------------------------------------------------------------------------

    def members_of(self, topic: Topic) -> frozenset[bytes]:
        """Return the keys of the neighbours that have a topic, without brokers."""
        return self._router.members_of(topic.wire_name) & self._channels.keys()

    def has_members(self, topic: Topic) -> bool:
        """True if a neighbour or a broker has a topic."""
        return self._router.has_members(topic.wire_name)

    def may_publish(self, topic: Topic) -> bool:
        """True if there is room for another message, both here and at neighbours."""
        return not self._unsigned.is_full and self._flow.has_room(topic.wire_name, self.loop_time())

    async def wait_room(self) -> None:
        """Wait until there may be room for a message, or other members of a topic."""
        await self._flow.wait_change()

    def queue_message(self, topic: Topic, data: bytes) -> bytes:
        """Queue a message, which is signed and sent at the end of this turn with others of the turn.
        Return its id.
        """
        self.schedule_flush()
        return self._unsigned.put_message(topic, data)

    async def flush(self) -> None:
        """Wait until published messages are on their way to all neighbours that still read."""
        if not self.is_running:
            return
        self._flush_turn()
        while any(
            self._router.queued_bytes(peer) and not self._router.is_stalled(peer, self.loop_time())
            for peer in self._channels
        ):
            await self.wait_room()

    # ---- a turn -------------------------------------------------------------------------------------------------

    def schedule_flush(self) -> None:
        """Schedule the end of the turn: queued frames are sent, and waiters check again."""
        loop = self._timer.loop
        if not self._flushing and loop is not None:
            self._flushing = True
            loop.call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        """End a turn: sign published messages, deliver received ones, and send what is queued, in one record for
        each link.
        """
        self._flushing = False
        if not self.is_running:
            return
        now = self.loop_time()
        for encoded in self._unsigned.sign_all():
            self._router.publish(encoded, now)
        self._take_events()
        for peer in self._router.take_ready():
            if (channel := self._channels.get(peer)) is not None:
                channel.send()
            else:
                for bridge in self._bridges:
                    if bridge.peer == peer:
                        bridge.wake()
        if self._flow.end_turn(self.loop_time()):
            for channel in list(self._channels.values()):
                channel.resume()
        self._flow.wake_waiters()
        self._timer.set_due()

    @property
    def is_paused(self) -> bool:
        """True while nothing is read: a program reads too slowly and asked to wait, or most neighbours read too
        slowly.
        """
        return self._flow.is_paused

    def on_room_made(self) -> None:
        """Note that a program has read, or left a topic."""
        if self._flow.note_read(self._topics):
            self.schedule_flush()

    def receive_frames(self, peer: bytes, found: list[tuple[int, bytes]]) -> None:
        """Process frames from a neighbour or a broker."""
        self._router.receive(peer, found, self.loop_time())
        self._take_events()
        if self._router.has_ready or self._flow.is_awaited:
            self.schedule_flush()
        else:  # as after most messages: they were for the program, and there is nothing to send
            self._timer.set_due()

    def _take_events(self) -> None:
        for event in self._router.take_events():
            if type(event) is Delivered:
                topic = self._topics.get(event.topic)
                if topic is not None:
                    topic.deliver_message(event.message)
                    if topic.overflow == "wait" and topic.is_full:
                        self._flow.note_full(event.topic)
            elif isinstance(event, CutOff):
                if (channel := self._channels.get(event.peer)) is not None:
                    short = PeerId(event.peer).short
                    if self._over_log.may_log(short):
                        log.info("gossip with %s is over: %s", short, event.reason)
                    channel.close()
            elif isinstance(event, RecordsOffered):
                self._records.take_offered(event)
            elif isinstance(event, MembersChanged):
                self._flow.wake_waiters()

    # ---- brokers ------------------------------------------------------------------------------------------------

    async def attach(self, engine: Engine, *, plain: bool = False, only: str | None = None) -> Bridge:
        """Carry topics over a broker as well: private ones, with `plain` all, or `only` one.

        Messages stay signed as they are, and each is delivered once, whichever way it comes. Raise `EngineError` if
        the broker can't be reached.
        """
        from dtp.gossip.engines.bridge import Bridge

        bridge = Bridge(self, engine, plain=plain, only=only)
        await bridge.start()
        self._bridges.append(bridge)
        for topic in self._topics.values():
            bridge.join(topic)
        self.schedule_flush()
        return bridge

    async def detach(self, bridge: Bridge) -> None:
        """Stop carrying topics over this broker, after sending it what was published. Idempotent."""
        if bridge in self._bridges:
            await self.flush()
            await bridge.wait_sent()
            self._bridges.remove(bridge)
            self._router.remove_peer(bridge.peer, self.loop_time())
            await bridge.stop()
