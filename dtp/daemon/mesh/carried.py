"""Topics that a daemon carries: it passes their messages between its neighbours, and keeps them for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from dtp.daemon.config.model import PrivateTopic
from dtp.gossip.topics import Topic
from dtp.node.node import Node
from dtp.tasks import SupervisedTask


class CarriedTopic:
    """One carried topic, which is joined until `close`. The daemon only counts its messages, and reads none."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.messages = self.size = 0
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Join the topic. Raise `TopicError`."""
        await self._stack.enter_async_context(self.topic)
        reading = SupervisedTask(self._count_messages, name=f"dtpd-topic-{self.topic.name}")
        reading.start()
        self._stack.push_async_callback(reading.stop)

    async def _count_messages(self) -> None:
        async for message in self.topic:
            self.messages += 1
            self.size += len(message.data)

    async def close(self) -> None:
        """Leave the topic. Idempotent."""
        await self._stack.aclose()


class CarriedTopics:
    """All topics that are carried, which may change."""

    def __init__(self, node: Node, history: float) -> None:
        """`history` is how many seconds of kept messages neighbours are asked for."""
        self._node, self._history = node, history
        self._carried: dict[str | PrivateTopic, CarriedTopic] = {}

    async def carry_topics(self, topics: Sequence[str | PrivateTopic]) -> None:
        """Join the topics that aren't carried yet, and leave all others. Raise `TopicError`, or `ConfigError` for a
        key."""
        new = {
            each: CarriedTopic(await self._make_topic(each)) for each in topics if each not in self._carried
        }
        for each in [each for each in self._carried if each not in topics]:
            await self._carried.pop(each).close()
        for each, carried in new.items():
            await carried.open()
            self._carried[each] = carried

    async def _make_topic(self, topic: str | PrivateTopic) -> Topic:
        name, key = topic, None
        if isinstance(topic, PrivateTopic):
            name, key = topic.name, await asyncio.to_thread(topic.read_key)
        return self._node.topic(str(name), key=key, overflow="drop-oldest", history=self._history)

    async def close(self) -> None:
        """Leave all topics. Idempotent."""
        await self.carry_topics(())

    def list_status(self) -> list[dict[str, Any]]:
        """Return the status of each topic."""
        return [
            {
                "topic": each.topic.name,
                "private": isinstance(topic, PrivateTopic),
                "neighbours": len(each.topic.members),
                "messages": each.messages,
                "bytes": each.size,
            }
            for topic, each in self._carried.items()
        ]
