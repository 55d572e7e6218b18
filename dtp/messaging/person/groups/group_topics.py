"""Large groups by topics: what is spread in one goes to the members that are there, from one to the next."""

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

#: The name of each group's topic, which its key tells from others.
TOPIC: Final = "dtp.group"
_KEY: Final = b"dtp.group.topic"
#: Members that a device links to, and seconds between two looks at whether it has as many. As many link to it again,
#: and each link brings each message once: of 1,000 devices with three each all are reached, and what is lost comes by
#: mailbox.
LINKED: Final = 3
_EVERY: Final = 30.0
#: Seconds that publishing waits for a neighbour who reads along, and for which a member is dialled.
_PATIENCE: Final = 1.0
_DIAL: Final = 10.0


class GroupTopics:
    """What messages of large groups are spread by: topics of an open node of the device's own identity."""

    def __init__(
        self, node: Node, *, least: int = 64, patience: float = 60.0, answer_within: float = 10.0
    ) -> None:
        """Groups of `least` devices are large. Who reads along and hasn't said within `patience` seconds that it has
        a message gets it by mailbox; that is said at some time within `answer_within`: not by all at once."""
        self.node = node
        self.least, self.patience, self.answer_within = least, patience, answer_within


def topic_key(group: bytes) -> bytes:
    """Return the key of a group's topic, which nobody can guess without having seen the group's operations or a
    link."""
    return blake2b(group, digest_size=32, person=_KEY).digest()


class TopicSpreader:
    """Reads and publishes in the topics of a messenger's large groups. `start` and `stop` it."""

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
        """Begin, where there is something to spread by."""
        if self._topics is not None:
            self._task.start()

    async def stop(self) -> None:
        """End it: what waits to be spread is given by mailbox the next time."""
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
        """Read along in the topics of the groups where that is to be done now, and in no others."""
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
            overflow="drop-oldest",  # the mailbox has it
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
        """Pass on what members' devices have signed. Others' is nobody's fault: who passes it on may know of more."""
        from dtp.gossip.core import Verdict

        is_members = self._spreading.may_spread(group, message.author.key)
        return Verdict.ACCEPT if is_members else Verdict.IGNORE

    async def _process_message(self, topics: GroupTopics, group: bytes, message: Message) -> None:
        told = (group, message.author.key, message.data, now_ms())
        self._on_notices(await self._delivery.run_in_thread(self._spreading.receive_by_topic, *told))
        self._answer_soon()

    def _answer_soon(self) -> None:
        """Say soon what has come of others' messages, where something has."""
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
        """Keep links to some members who read along, so that what is spread gets everywhere."""
        while True:
            lacking = LINKED - len(topic.members)
            if lacking > 0:
                devices = await self._delivery.run_in_thread(self._spreading.list_linkable, group)
                others = [each for each in map(PeerId, devices) if node.links.get(each) is None]
                chosen = random.sample(others, min(lacking, len(others)))
                await asyncio.gather(*(self._dial_member(node, each) for each in chosen))
            await asyncio.sleep(_EVERY)

    async def _dial_member(self, node: Node, peer: PeerId) -> None:
        with contextlib.suppress(DtpError, TimeoutError):  # who isn't there has a mailbox
            async with asyncio.timeout(_DIAL):
                await node.links.connect(peer)
