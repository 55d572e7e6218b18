"""LANs of more nodes than a topic links in full, which a cut parts: whole nodes, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from small_internet import Internet

import dtp
from dtp.carriers.nearness import Nearness
from dtp.node.upkeep import UpkeepLimits
from dtp.testing import clock

LIMITS = UpkeepLimits()
#: Seconds for which the halves are parted: all links between them are given up by then.
APART = 120.0


class Lan:
    """Nodes of one network that have a topic, as two halves of it. Each has heard a hello of each other one."""

    def __init__(self, internet: Internet, nodes: list[dtp.Node], topics: list[Any]) -> None:
        self.internet, self.nodes, self.topics = internet, nodes, topics

    def cut(self) -> None:
        """Have nothing pass between the halves, as where a switch has gone: no machine notices that itself."""
        self.internet.passes = lambda one, other: _half_of(one) == _half_of(other)
        self.internet.cut()

    def heal(self) -> None:
        self.internet.passes = lambda one, other: True

    def reached_from_first(self) -> int:
        """Return to how many nodes links lead from the first, itself counted."""
        by_name = {node.identity.id: node for node in self.nodes}
        reached, more = set[dtp.PeerId](), {self.nodes[0].identity.id}
        while more:
            reached |= more
            more = {link.peer for each in more for link in by_name[each].links} - reached
        return len(reached)

    async def readers_of(self, data: bytes) -> list[int]:
        """Publish from the first node; return how often each other one has read that within 10 s."""
        await self.topics[0].publish(data)
        await asyncio.sleep(10)
        found = []
        for topic in self.topics[1:]:
            read = [(await anext(topic)).data for _ in range(topic.waiting)]
            found.append(read.count(data))
        return found


def _half_of(host: str) -> int:
    return int(host.rpartition(".")[2]) % 2


async def open_lan(stack: AsyncExitStack, count: int) -> Lan:
    internet = Internet()
    nodes, topics = [], []
    for number in range(count):
        node = await stack.enter_async_context(internet.node(f"192.168.1.{number}"))
        nodes.append(node)
        topics.append(await stack.enter_async_context(node.topic("team")))
    for node in nodes:
        for other in nodes:
            node.book.learn_record(other.record, "lan", Nearness.NETWORK)
    return Lan(internet, nodes, topics)


@pytest.mark.parametrize(
    "count", [pytest.param(24, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.long)]
)
def test_a_large_lan_that_was_parted_is_one_mesh_again_and_everybody_reads_all(count: int) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            lan = await open_lan(stack, count)
            await asyncio.sleep(10)
            assert lan.reached_from_first() == count
            assert await lan.readers_of(b"all") == [1] * (count - 1)
            lan.cut()
            await asyncio.sleep(APART)
            half = [1 if number % 2 == 0 else 0 for number in range(1, count)]
            assert await lan.readers_of(b"half") == half
            lan.heal()
            await asyncio.sleep(LIMITS.longest_pause)
            assert lan.reached_from_first() == count
            assert await lan.readers_of(b"again") == [1] * (count - 1)

    clock.run(main())
