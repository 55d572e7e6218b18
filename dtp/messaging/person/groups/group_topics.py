"""Spread messages of large groups by topics: each message goes from member to member among those who are
connected."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from dtp.errors import DtpError
from dtp.identity import PeerId
from dtp.messaging.errors import MessageError
from dtp.messaging.person.delivery import Delivery, now_ms
from dtp.messaging.person.notices import Notice
from dtp.tasks import SupervisedTask

if TYPE_CHECKING:
    from dtp.gossip import Message, Topic
    from dtp.gossip.core import Verdict
    from dtp.node.node import Node

log = logging.getLogger("dtp.messaging")

#: The name of every group's topic; the topic's key tells groups apart.
TOPIC: Final = "dtp.group"
_KEY: Final = b"dtp.group.topic"
#: The number of members to which a device links, and the seconds between checks of that number. On average as many
#: members link to the device, and each link carries each message once. With three links each, all of 1,000 devices
#: are reached; messages that are lost come by mailbox.
LINKED: Final = 3
_EVERY: Final = 30.0
#: Seconds for which publishing waits for a neighbour in the topic, and for which a member is dialled.
_PATIENCE: Final = 1.0
_DIAL: Final = 10.0


class GroupTopics:
    """The topics by which messages of large groups are spread: those of an open node with the device's own
    identity."""

    def __init__(
        self, node: Node, *, least: int = 64, patience: float = 60.0, answer_within: float = 10.0
    ) -> None:
        """Groups of at least `least` devices are large. A device that has joined the topic, but hasn't acknowledged a
        message within `patience` seconds, gets it by mailbox. Devices acknowledge at a random time within
        `answer_within` seconds, so that they don't all do it at once."""
        self.node = node
        self.least, self.patience, self.answer_within = least, patience, answer_within


def topic_key(group: bytes) -> bytes:
    """Return the key of a group's topic, which nobody can guess who hasn't seen the group's operations or a link."""
    return blake2b(group, digest_size=32, person=_KEY).digest()


class TopicSpreader:
    """Subscribes to the topics of a messenger's large groups, and publishes in them. `start` and `stop` it."""

    def __init__(
        self, topics: GroupTopics | None, delivery: Delivery, on_notices: Callable[[Iterable[Notice]], None]
    ) -> None:
        """Raise `MessageError` for a node of another identity: members know each other's devices."""
        self._topics, self._delivery, self._on_notices = topics, delivery, on_notices
        self._spreading = delivery.correspondence.spreading
        self._open: dict[bytes, Topic] = {}
        self._reading: dict[bytes, SupervisedTask] = {}
        self._task = SupervisedTask(self._keep_spreading, name="dtp-messages-spread")
        self._answering: asyncio.TimerHandle | None = None
        delivery.on_received = self._answer_soon
        if topics is not None:
            if topics.node.identity.id != delivery.identity.id:
                raise MessageError("the node has to be of this device: give both the same identity")
            self._spreading.least = topics.least
            self._spreading.patience_ms = int(topics.patience * 1000)

    def start(self) -> None:
        """Begin, if topics were given."""
        if self._topics is not None:
            self._task.start()

    async def stop(self) -> None:
        """Stop: what waits to be spread is delivered by mailbox the next time."""
        await self._task.stop()
        for task in self._reading.values():
            await task.stop()
        if self._answering is not None:
            self._answering.cancel()

    async def _keep_spreading(self) -> None:
        assert self._topics is not None
        while True:
            self._delivery.woken.clear()
            await self._join_topics(self._topics)
            for group, _, sealed in await self._delivery.run_in_thread(self._spreading.take_unpublished):
                await self._publish_message(group, sealed)
            await self._delivery.woken.wait()

    async def _join_topics(self, topics: GroupTopics) -> None:
        """Subscribe to the topics of the groups for which that is wanted now, and leave all others."""
        wanted = await self._delivery.run_in_thread(self._spreading.list_read_along)
        for group in self._reading.keys() - wanted:
            await self._reading.pop(group).stop()
        for group in wanted - self._reading.keys():
            reading = SupervisedTask(partial(self._read_topic, topics, group), name="dtp-messages-topic")
            self._reading[group] = reading
            reading.start()

    async def _publish_message(self, group: bytes, sealed: bytes) -> None:
        if (topic := self._open.get(group)) is not None:
            try:
                await topic.publish(sealed, patience=_PATIENCE)
                return
            except DtpError as fault:
                log.info("a group's message goes by mailbox: %s", fault)
        await self._delivery.run_in_thread(self._spreading.hand_over_now, group)
        self._delivery.deliver_soon()

    # ---- one topic ---------------------------------------------------------------------------------------------

    async def _read_topic(self, topics: GroupTopics, group: bytes) -> None:
        topic = topics.node.topic(
            TOPIC,
            key=topic_key(group),
            overflow="drop-oldest",  # it comes by mailbox
            history=topics.patience,
            validator=partial(self._check_author, group),
        )
        linking = SupervisedTask(
            partial(self._keep_linked, topics.node, group, topic), name="dtp-topic-links"
        )
        try:
            async with topic:
                self._open[group] = topic
                self._spreading.joined.add(group)
                self._answer_soon()
                linking.start()
                async for message in topic:
                    await self._process_message(topics, group, message)
        finally:
            self._open.pop(group, None)
            self._spreading.joined.discard(group)
            await linking.stop()

    def _check_author(self, group: bytes, message: Message) -> Verdict:
        """Accept what members' devices have signed. A message of another device is ignored without blame: the
        neighbour that forwards it may know of more members."""
        from dtp.gossip.core import Verdict

        is_members = self._spreading.may_spread(group, message.author.key)
        return Verdict.ACCEPT if is_members else Verdict.IGNORE

    async def _process_message(self, topics: GroupTopics, group: bytes, message: Message) -> None:
        told = (group, message.author.key, message.data, now_ms())
        self._on_notices(await self._delivery.run_in_thread(self._spreading.receive_by_topic, *told))
        self._answer_soon()

    def _answer_soon(self) -> None:
        """Acknowledge other devices' messages soon, if any have come."""
        if self._topics is None or self._answering is not None:
            return
        waiting = tuple(self._spreading.answers)  # the messenger's thread adds to it
        if any(group in self._spreading.joined for group, _ in waiting):
            pause = random.uniform(0.0, self._topics.answer_within)
            self._answering = asyncio.get_running_loop().call_later(pause, self._begin_answer)

    def _begin_answer(self) -> None:
        self._answering = None
        self._delivery.start_task(self._send_answers(), name="dtp-messages-have")

    async def _send_answers(self) -> None:
        answers = await self._delivery.run_in_thread(self._spreading.take_answers, now_ms())
        await asyncio.gather(*(self._delivery.send_signal([device], payload) for device, payload in answers))

    async def _keep_linked(self, node: Node, group: bytes, topic: Topic) -> None:
        """Keep links to some members in the topic, so that messages reach everybody."""
        while True:
            lacking = LINKED - len(topic.members)
            if lacking > 0:
                devices = await self._delivery.run_in_thread(self._spreading.list_linkable, group)
                others = [each for each in map(PeerId, devices) if node.links.get(each) is None]
                chosen = random.sample(others, min(lacking, len(others)))
                await asyncio.gather(*(self._dial_member(node, each) for each in chosen))
            await asyncio.sleep(_EVERY)

    async def _dial_member(self, node: Node, peer: PeerId) -> None:
        with contextlib.suppress(DtpError, TimeoutError):  # members who are away have a mailbox
            async with asyncio.timeout(_DIAL):
                await node.links.connect(peer)
