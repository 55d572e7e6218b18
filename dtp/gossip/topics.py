"""`Topic`: a program's end of a topic. Publishing waits for room; reading has a policy for messages that come too
fast.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Literal, get_args

from dtp.gossip.core import Verdict
from dtp.gossip.errors import MessageTooLarge, NoTopicPeers, TopicError, TopicOverrun
from dtp.gossip.message import MAX_DEPTH, Message, check_topic
from dtp.gossip.router import Router
from dtp.gossip.sealing import OVERHEAD, PRIVATE, TopicKey
from dtp.identity import PeerId
from dtp.limited_log import RateLimitedLog
from dtp.tasks import TaskSet

if TYPE_CHECKING:
    from dtp.gossip.gossip import Gossip

log = logging.getLogger("dtp.gossip")

#: What happens when messages come faster than the program reads.
Overflow = Literal["wait", "drop-oldest", "raise"]
#: Returns the verdict on a message, at once or awaitably.
Validator = Callable[[Message], Verdict | Awaitable[Verdict]]

#: Messages, and bytes of payloads, that may wait for the program.
ROOM: Final = 1024
ROOM_BYTES: Final = 8 * 1024 * 1024
#: Seconds that publishing waits for a member of the topic.
PATIENCE: Final = 5.0
#: Seconds in which `OF_ONE` faults of one topic's validator are reported: anybody may send what it fails at.
_FAULTS: Final = 60.0
#: Bytes that a message adds to its payload, at most, without the topic's name.
_OVERHEAD: Final = 50 + 32 * MAX_DEPTH + 66


class Topic:
    """A topic that is joined within `async with`. `Gossip.topic` makes it.

        async with gossip.topic("weather") as topic:
            await topic.publish(b"21.5")
            async for message in topic:
                print(message.author, message.data)

    Own messages aren't read. Several tasks may read: each message goes to one of them.
    """

    def __init__(
        self,
        gossip: Gossip,
        name: str,
        *,
        key: bytes | str | None,
        overflow: Overflow,
        history: float,
        validator: Validator | None,
        room: int,
    ) -> None:
        check_topic(name)
        if name.startswith(PRIVATE):
            raise TopicError(
                f"a topic's name can't begin with {PRIVATE!r}: those are names of private topics"
            )
        if overflow not in get_args(Overflow):
            raise TopicError(f"overflow is one of {', '.join(get_args(Overflow))}, not {overflow!r}")
        if room < 1:
            raise TopicError("a topic needs room for at least one message")
        self.name = name
        self.key = None if key is None else TopicKey(name, key)
        #: The name that neighbours see.
        self.wire_name = (name if self.key is None else self.key.wire_name).encode()
        self.overflow: Overflow = overflow
        self.history = history
        self.validator = validator
        #: Messages that were dropped because the program didn't read them in time.
        self.dropped = 0
        self._gossip = gossip
        self._room = room
        self._waiting: deque[Message] = deque()
        self._size = 0
        self._unsaid = 0  # drops that the program hasn't been told about
        self._readers: deque[asyncio.Future[None]] = deque()
        self._state: Literal["new", "joined", "left"] = "new"

    # ---- joining ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Topic:
        if self._state != "new":
            raise TopicError("a topic can be joined only once: make another one of the same name")
        self._gossip.join_topic(self)
        self._state = "joined"
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leave the topic. Published messages are sent first, as far as neighbours read."""
        if self._state == "joined":
            await self._gossip.flush()
        self.leave_topic()

    def leave_topic(self) -> None:
        """Leave the topic at once, whatever is still to be sent. Idempotent."""
        if self._state == "joined":
            self._gossip.leave_topic(self)
        self._state = "left"
        while self._readers:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)

    # ---- publishing ---------------------------------------------------------------------------------------------

    async def publish(self, data: bytes | bytearray | memoryview, *, patience: float = PATIENCE) -> bytes:
        """Publish a message, and return its id. It has been queued for every neighbour that has the topic.

        Wait while the network has no room. Raise `NoTopicPeers` if no neighbour that has the topic is connected
        within `patience` seconds, `ClockRefused` if all of them refuse messages with this machine's time,
        `MessageTooLarge`, and `TopicError` outside of `async with`.
        """
        payload = bytes(data)
        limits = self._gossip.limits
        size = len(payload) + len(self.wire_name) + _OVERHEAD + (OVERHEAD if self.key else 0)
        if size > limits.message:
            raise MessageTooLarge(
                f"a message has {size} bytes with its frame, above the limit of {limits.message}: publish a "
                "blob's hash instead"
            )
        self._check_joined()
        if not self._gossip.has_members(self):
            await self._wait_for_members(patience)
        while not self._gossip.may_publish(self):
            await self._gossip.wait_room()
            self._check_joined()
        return self._gossip.queue_message(self, payload)

    async def _wait_for_members(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                while not self._gossip.has_members(self):
                    await self._gossip.wait_room()
                    self._check_joined()
        except TimeoutError:
            raise NoTopicPeers(
                f"nobody connected has the topic {self.name!r}; nothing was published in {patience:g} s"
            ) from None

    def _check_joined(self) -> None:
        if self._state != "joined":
            raise TopicError(f"the topic {self.name!r} isn't joined; use it within 'async with'")

    # ---- reading ------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Topic:
        return self

    async def __anext__(self) -> Message:
        """Return the next message. The iteration ends when the topic is left."""
        while not self._waiting:
            if self._state == "left":
                raise StopAsyncIteration
            self._check_joined()
            self._raise_overrun()
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            finally:
                if reader in self._readers:
                    self._readers.remove(reader)
        self._raise_overrun()
        message = self._waiting.popleft()
        self._size -= len(message.data)
        if self._waiting and self._readers:
            self._wake_reader()
        if self.overflow == "wait":
            self._gossip.on_room_made()
        return message

    async def read(self) -> Message:
        """Return the next message. Raise `TopicError` if the topic is left meanwhile."""
        try:
            return await anext(self)
        except StopAsyncIteration:
            raise TopicError(f"the topic {self.name!r} was left") from None

    def _raise_overrun(self) -> None:
        if self._unsaid and self.overflow == "raise":
            dropped, self._unsaid = self._unsaid, 0
            raise TopicOverrun(
                f"{dropped} messages of {self.name!r} came faster than they were read, and are gone; read on",
                dropped,
            )

    @property
    def waiting(self) -> int:
        """The number of messages that wait for the program."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """True if there is no room for another message."""
        return len(self._waiting) >= self._room or self._size >= ROOM_BYTES

    def deliver_message(self, message: Message) -> None:
        """Keep a message until the program reads it, or do what `overflow` says if there is no room."""
        if self.is_full and self.overflow != "wait":
            self._gossip.counts["dropped-by-reader"] += 1
            self.dropped += 1
            self._unsaid += 1
            if self.overflow == "raise":
                self._wake_reader()
                return
            self._size -= len(self._waiting.popleft().data)
        self._waiting.append(message)
        self._size += len(message.data)
        if self._readers:
            self._wake_reader()

    def _wake_reader(self) -> None:
        while self._readers:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)
                return

    # ---- members ------------------------------------------------------------------------------------------------

    @property
    def members(self) -> list[PeerId]:
        """The neighbours that have the topic, without brokers."""
        return [PeerId(peer) for peer in sorted(self._gossip.members_of(self))]

    def __repr__(self) -> str:
        return f"<Topic {self.name!r} {self._state}, {self.waiting} waiting>"


class Validators:
    """Calls programs' validators for the messages of their topics, and passes their verdicts to the router. `stop`
    ends it.
    """

    def __init__(self, router: Router, now: Callable[[], float], schedule_flush: Callable[[], None]) -> None:
        self._router, self._now, self._schedule_flush = router, now, schedule_flush
        self._tasks = TaskSet()
        self._log = RateLimitedLog(log, "gossip", "faults of validators", period=_FAULTS, clock=now)

    def wrap_validator(self, topic: Topic) -> Callable[[Message], Verdict | None] | None:
        """Return the function that the router calls for a topic's messages, which returns None if the verdict
        follows later. Return None if the topic has no validator.
        """
        validator = topic.validator
        if validator is None:
            return None

        def validate(message: Message) -> Verdict | None:
            try:
                verdict = validator(message)
                if not inspect.isawaitable(verdict):
                    return _check_verdict(verdict)
            except Exception as error:  # noqa: BLE001 - foreign code: other messages have to be processed
                self._note_fault(topic, error)
                return Verdict.IGNORE
            self._tasks.start(self._wait_verdict(topic, message, verdict), name="dtp-gossip-validator")
            return None

        return validate

    async def stop(self) -> None:
        """Cancel validators that are still running. Idempotent."""
        await self._tasks.stop()

    async def _wait_verdict(self, topic: Topic, message: Message, awaited: Awaitable[Verdict]) -> None:
        verdict = Verdict.IGNORE
        try:
            verdict = _check_verdict(await awaited)
        except Exception as error:  # noqa: BLE001 - foreign code
            self._note_fault(topic, error)
        finally:
            self._router.set_verdict(message.id, verdict, self._now())
            self._schedule_flush()

    def _note_fault(self, topic: Topic, fault: Exception) -> None:
        """Count a message for which a topic's validator has failed, and report some to the loop's
        exception handler.
        """
        self._router.counts["validator-failed"] += 1
        if self._log.may_log(topic.name):
            told = {"message": f"the validator of topic {topic.name!r} failed", "exception": fault}
            asyncio.get_running_loop().call_exception_handler(told)


def _check_verdict(verdict: object) -> Verdict:
    """Return a validator's verdict. Raise `TopicError` if it isn't one."""
    if not isinstance(verdict, Verdict):
        raise TopicError(f"a validator returned {verdict!r}; return Verdict.ACCEPT, IGNORE or REJECT")
    return verdict
