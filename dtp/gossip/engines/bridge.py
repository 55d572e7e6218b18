"""A broker as a neighbour of the router: it has the topics that it carries, is sent their messages, and delivers
those of others.

Messages stay as they were signed. Several nodes of a mesh may use the same broker: a node waits for a moment before
it relays a message, and doesn't relay it if the broker has delivered it meanwhile (docs/decisions/0293).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import random
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from dtp.bounded import BoundedDict
from dtp.gossip import frames
from dtp.gossip.errors import EngineError, MessageError
from dtp.gossip.frames import GossipFrameType, split_frames
from dtp.gossip.message import Parsed
from dtp.limited_log import RateLimitedLog
from dtp.tasks import SupervisedTask, TaskSet

if TYPE_CHECKING:
    from dtp.gossip.gossip import Gossip
    from dtp.gossip.topics import Topic

log = logging.getLogger("dtp.gossip")

#: Seconds for which a message of others is held back, at least and at most, in case another node of the mesh relays
#: it to the broker first.
_FIRST: Final = 0.05
_LAST: Final = 0.25
#: Ids of delivered messages that are remembered.
_CAME: Final = 8192
#: Messages that wait to be relayed; beyond this, the oldest is sent at once.
_WAITING: Final = 4096
_AT_ONCE: Final = 64 * 1024
#: Seconds for sending published messages before a broker is left.
_PATIENCE: Final = 5.0
#: Messages of a topic that wait while its history is fetched; beyond this, they don't wait.
_BEHIND: Final = 1024

#: Seconds in which `OF_ONE` failures of a kind are logged: while a broker is away each message fails.
_FAULTS: Final = 60.0

#: Processes messages that a broker has delivered, as they were signed; those that came together in one call.
OnMessages = Callable[[Sequence[bytes]], None]
#: Called when the broker is back, with the time since which it was away (Unix milliseconds).
OnReturn = Callable[[int], None]


def subject_part(topic: bytes) -> str:
    """Return a topic's name in a form for brokers' subjects: Base32 in lower case, without padding."""
    return base64.b32encode(topic).decode().rstrip("=").lower()


class Engine(ABC):
    """Carries encoded messages by topics. All methods are called on the event loop on which `start` ran.

    `on_messages` may be called as soon as `subscribe` has returned, on that loop. Foreign errors are translated to
    `EngineError` here.
    """

    #: For logs and counts.
    name: str

    @abstractmethod
    async def start(self, on_messages: OnMessages, on_return: OnReturn) -> None:
        """Connect. Raise `EngineError` if that fails."""

    @abstractmethod
    async def subscribe(self, topic: bytes) -> None:
        """Begin to deliver the messages of a topic."""

    @abstractmethod
    async def unsubscribe(self, topic: bytes) -> None:
        """Stop delivering the messages of a topic."""

    @abstractmethod
    async def send(self, topic: bytes, message_id: bytes, encoded: bytes) -> None:
        """Send a message to the broker, and wait until it is accepted. Raise `EngineError` if it isn't."""

    async def read_history(self, topic: bytes, since_ms: int, most: int) -> list[bytes]:
        """Return messages that the broker has kept since a time (Unix milliseconds), the oldest first."""
        return []

    def take_dropped(self) -> int:
        """Return how many messages were dropped since the last call, as they came faster than the loop took them."""
        return 0

    @abstractmethod
    async def stop(self) -> None:
        """Disconnect. Idempotent."""


class Bridge:
    """An engine in a node's meshes. `Gossip.attach` makes it."""

    def __init__(self, gossip: Gossip, engine: Engine, *, plain: bool, only: str | None = None) -> None:
        self.engine = engine
        #: The broker's name in the router: no key, since nobody has its secret.
        self.peer = blake2b(
            f"{engine.name} {id(self)}".encode(), digest_size=32, person=b"dtp.bridge"
        ).digest()
        self._gossip = gossip
        self._plain, self._only = plain, only
        self._came: BoundedDict[bytes, None] = BoundedDict(_CAME)
        #: Messages to send: own ones, and those of others with the time when each is due.
        self._own: deque[Parsed] = deque()
        self._kept_back: deque[tuple[float, Parsed]] = deque()
        #: Topics that are to be carried, those that are, and those that are just being changed.
        self._wanted: set[bytes] = set()
        self._topics: set[bytes] = set()
        self._changing: dict[bytes, asyncio.Task[None]] = {}
        #: How many times the history of each topic is being fetched now, and the messages that came meanwhile.
        self._fetching: Counter[bytes] = Counter()
        self._behind: dict[bytes, list[bytes]] = {}
        #: How often the broker has come back.
        self._returns = 0
        self._wake = asyncio.Event()
        #: Set while no messages of this side wait to be sent.
        self._sent = asyncio.Event()
        self._sender = SupervisedTask(self._send_on, name="dtp-gossip-engine")
        self._tasks = TaskSet()
        self._fault_log = RateLimitedLog(
            log, self.engine.name, "failures", period=_FAULTS, clock=gossip.loop_time
        )

    async def start(self) -> None:
        """Connect, and become a neighbour."""
        await self.engine.start(self._on_messages, self._on_return)
        gossip = self._gossip
        gossip.router.add_peer(self.peer, gossip.loop_time(), outgoing=True, is_bridge=True)
        self._sender.start()

    async def stop(self) -> None:
        """Disconnect. A failure to do so is only counted, so that it doesn't hold up anything else."""
        await self._sender.stop()
        await self._tasks.stop()
        try:
            await self.engine.stop()
        except EngineError as error:
            self._note_failure("does not end", error)

    # ---- topics -------------------------------------------------------------------------------------------------

    def join(self, topic: Topic) -> None:
        """Carry a topic, unless the broker would see payloads that it mustn't, or is for another topic."""
        if self._only is not None and topic.name != self._only:
            return
        if topic.key is None and not self._plain:
            self._gossip.counts["engine-not-private"] += 1
            return
        self._wanted.add(topic.wire_name)
        self._change_soon(topic.wire_name)

    def leave(self, topic: Topic) -> None:
        """Stop carrying a topic."""
        self._wanted.discard(topic.wire_name)
        self._change_soon(topic.wire_name)

    def _change_soon(self, topic: bytes) -> None:
        if topic not in self._changing:
            work = self._change_topic(topic)
            self._changing[topic] = self._tasks.start(work, name="dtp-gossip-engine-topic")

    async def wait_carried(self) -> None:
        """Wait until the broker carries the joined topics, except those that it has refused. Messages that are
        published before may not reach it.
        """
        while self._changing:
            await asyncio.wait(self._changing.values())

    async def _change_topic(self, topic: bytes) -> None:
        """Make the engine carry a topic or stop, as is wanted, which may change meanwhile. If the broker refuses,
        try again when it is back.
        """
        try:
            while (is_wanted := topic in self._wanted) != (topic in self._topics):
                returns = self._returns
                try:
                    await (self._carry_topic(topic) if is_wanted else self._drop_topic(topic))
                except EngineError as error:
                    self._note_failure("does not carry a topic, or leave it", error)
                    if is_wanted and returns == self._returns:
                        return
        finally:
            del self._changing[topic]

    async def _carry_topic(self, topic: bytes) -> None:
        self._behind.setdefault(topic, [])
        try:
            await self.engine.subscribe(topic)
            self._topics.add(topic)
            self._tell_router(GossipFrameType.SUBSCRIBE, topic)
            self._take_frames(asyncio.get_running_loop().time())  # with HISTORY, if one was asked for
            self.wake()
        finally:
            if topic not in self._fetching:
                self._pass_behind(topic)

    async def _drop_topic(self, topic: bytes) -> None:
        self._topics.discard(topic)
        self._tell_router(GossipFrameType.UNSUBSCRIBE, topic)
        await self.engine.unsubscribe(topic)

    def _tell_router(self, kind: GossipFrameType, topic: bytes) -> None:
        self._gossip.receive_frames(self.peer, [(kind, frames.named(topic))])

    # ---- messages from the broker -------------------------------------------------------------------------------

    def _on_messages(self, messages: Sequence[bytes]) -> None:
        """Process messages from the broker, which are checked as those of any neighbour."""
        self._gossip.counts["engine-received"] += len(messages)
        if dropped := self.engine.take_dropped():
            self._gossip.counts["engine-dropped"] += dropped
        if self._own or self._kept_back or self._behind:
            messages = [each for each in messages if not self._note_came(each)]
        self._pass_messages(GossipFrameType.MESSAGE, messages)

    def _note_came(self, encoded: bytes) -> bool:
        """Note a message from the broker. Return True if it has to wait for the history of its topic, which would
        otherwise be missed.
        """
        try:
            parsed = Parsed(encoded)
        except MessageError:
            return False
        self._came[parsed.id] = None
        behind = self._behind.get(parsed.topic)
        if behind is None or len(behind) >= _BEHIND:
            return False
        behind.append(encoded)
        return True

    def _pass_messages(self, kind: GossipFrameType, messages: Sequence[bytes]) -> None:
        most = self._gossip.limits.message
        self._gossip.receive_frames(self.peer, [(kind, each) for each in messages if len(each) <= most])

    def _pass_behind(self, topic: bytes) -> None:
        self._pass_messages(GossipFrameType.MESSAGE, self._behind.pop(topic, ()))

    def _on_return(self, since_ms: int) -> None:
        """Fetch what the broker has kept while it was away, and carry the topics that it couldn't carry before."""
        self._returns += 1
        for topic in sorted(self._wanted - self._topics):
            self._change_soon(topic)
        for topic in sorted(self._topics):
            self._gossip.router.expect_past(self.peer, topic, since_ms)
            self._fetch_soon(topic, since_ms, self._gossip.limits.history)

    def _fetch_soon(self, topic: bytes, since_ms: int, most: int) -> None:
        self._fetching[topic] += 1
        self._tasks.start(self._fetch_history(topic, since_ms, most), name="dtp-gossip-engine-past")

    async def _fetch_history(self, topic: bytes, since_ms: int, most: int) -> None:
        try:
            messages = await self.engine.read_history(topic, since_ms, most)
        except EngineError as error:
            self._note_failure("does not give what it kept", error)
        else:
            self._pass_messages(GossipFrameType.PAST, messages)
        finally:
            self._fetching[topic] -= 1
            if not self._fetching[topic]:
                del self._fetching[topic]
                self._pass_behind(topic)

    # ---- messages to the broker ---------------------------------------------------------------------------------

    def wake(self) -> None:
        """Wake the sender: the router has something for the broker."""
        self._wake.set()
        self._sent.clear()

    async def wait_sent(self) -> None:
        """Wait until the broker has accepted or refused what was published here, for some seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._sent.wait()

    async def _send_on(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while (parsed := self._take_due(loop.time())) is not None:
                if parsed.id in self._came:
                    self._gossip.counts["engine-spared"] += 1
                else:
                    await self._send_message(parsed)
            self._wake.clear()
            if not self._take_frames(loop.time()):
                self._sent.set()
                due = self._kept_back[0][0] if self._kept_back else None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await self._wake.wait()

    def _take_due(self, now: float) -> Parsed | None:
        """Return the message to send next, or None: own ones in the order in which they were published, then those
        that were held back.
        """
        if self._own:
            return self._own.popleft()
        if self._kept_back and (self._kept_back[0][0] <= now or len(self._kept_back) > _WAITING):
            return self._kept_back.popleft()[1]
        return None

    def _take_frames(self, now: float) -> bool:
        """Take the router's frames for the broker. Return True if there were any."""
        router = self._gossip.router
        data = router.take_frames(self.peer, _AT_ONCE, now)
        for kind, body in split_frames(data, self._gossip.limits.message)[0]:
            if kind == GossipFrameType.MESSAGE:
                self._queue_message(Parsed(body), now)
            elif kind == GossipFrameType.HISTORY:
                self._fetch_soon(*frames.read_history(body))
        if data:
            self._gossip.schedule_flush()  # there is room again
        return bool(data)

    def _queue_message(self, parsed: Parsed, now: float) -> None:
        if parsed.key == self._gossip.identity.id.key:
            self._own.append(parsed)
        else:
            self._kept_back.append((now + random.uniform(_FIRST, _LAST), parsed))

    async def _send_message(self, parsed: Parsed) -> None:
        try:
            await self.engine.send(parsed.topic, parsed.id, parsed.encoded)
        except EngineError as error:
            self._note_failure("does not take a message", error)
        else:
            self._gossip.counts["engine-sent"] += 1

    def _note_failure(self, what: str, fault: EngineError) -> None:
        self._gossip.counts["engine-failed"] += 1
        if self._fault_log.may_log(what):
            log.warning("%s %s: %s", self.engine.name, what, fault)
