"""Tiny frames that are allowed, and what they may cost: time of the loop, others' bandwidth, room, small meshes."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
from nodes import WALL, identity, node, until

from dtp.gossip import PROTOCOL, frames
from dtp.gossip.channel import _PIECE, NeighbourSink
from dtp.gossip.core import KNOWN_TOPICS
from dtp.gossip.errors import GossipFrameError
from dtp.gossip.frames import GossipFrameType
from dtp.gossip.limits import DEFAULT
from dtp.gossip.message import content_of, sign_batch
from dtp.peers.links import PeerLinks
from dtp.testing.clock import run
from dtp.testing.swarm import GossipSwarm

T = "weather"
W = T.encode()
NAMED = frames.named(W)
SUBSCRIBE = frames.frame(GossipFrameType.SUBSCRIBE, NAMED)
UNSUBSCRIBE = frames.frame(GossipFrameType.UNSUBSCRIBE, NAMED)


class Counted(bytes):
    """Bytes that count how many of them were copied."""

    copied: list[int]

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(found, bytes):
            self.copied.append(len(found))
            found = Counted(found)
            found.copied = self.copied
        return found


def test_a_frame_of_many_names_is_read_in_one_pass() -> None:
    body = Counted(frames.named(b"t") * 65_536)
    body.copied = []
    assert len(frames.read_topics(body)) == 65_536
    assert sum(body.copied) <= len(body)


@pytest.mark.parametrize("body", [b"\0", b"\2a", b"\1a\0", b"\1a\5abcd", b"\x81" + bytes(129)])
def test_a_frame_with_half_a_name_is_none(body: bytes) -> None:
    with pytest.raises(GossipFrameError):
        frames.read_topics(body)


def test_who_names_topics_without_end_keeps_no_room_from_others() -> None:
    swarm = GossipSwarm(1)
    victim = swarm.add_node(T)
    for number in range(32):
        names = [b"%d %d" % (number, each) for each in range(1024)]
        swarm.add_puppet(victim).send_frames(
            victim, frames.frame(GossipFrameType.SUBSCRIBE, *map(frames.named, names))
        )
    assert victim.router.count_kept()["topics"] >= KNOWN_TOPICS
    honest = swarm.add_node("later")
    swarm.link_nodes(victim, honest)
    swarm.run_for(1)
    victim.join("later")
    swarm.run_for(1)
    assert victim.router.members_of(b"later") == {honest.key}
    honest.publish("later", b"heard")
    swarm.run_for(1)
    assert victim.data == [b"heard"]


def test_one_neighbour_that_names_many_doesn_t_end_a_small_topic_s_full_mesh() -> None:
    swarm = GossipSwarm(2)
    nodes = [swarm.add_node(T) for _ in range(20)]
    swarm.link_all()
    swarm.run_for(5)
    lies = frames.neighbours(W, [number.to_bytes(8) for number in range(51)])
    for each in nodes:
        liar = swarm.add_puppet(each)
        liar.send_frames(each, SUBSCRIBE, frames.graft(W), lies)
    swarm.run_for(5)
    newcomer = swarm.add_node(T)
    for each in nodes:
        swarm.link_nodes(newcomer, each)
    swarm.run_for(5)
    assert all(
        {newcomer.key, *(one.key for one in nodes)} - {each.key} <= each.router.mesh_of(W) for each in nodes
    )


@pytest.mark.parametrize(
    "frames_in_turn",
    [(frames.prune(W, 1),), (UNSUBSCRIBE, SUBSCRIBE), (frames.prune(W, 0), frames.graft(W))],
    ids=["prune", "unsubscribe", "graft"],
)
def test_who_comes_and_goes_makes_a_node_tell_all_others_once_a_second_at_most(
    frames_in_turn: tuple[bytes, ...],
) -> None:
    swarm = GossipSwarm(3)
    victim = swarm.add_node(T)
    others = [swarm.add_puppet(victim) for _ in range(40)]
    restless = swarm.add_puppet(victim)
    for each in (*others, restless):
        each.send_frames(victim, SUBSCRIBE, frames.graft(W))
    swarm.run_for(100)
    for each in others:
        each.frames.clear()
    for number in range(200):
        restless.send_frames(victim, frames_in_turn[number % len(frames_in_turn)])
        swarm.run_for(0.1)
    told = [len(each.list_bodies(GossipFrameType.NEIGHBOURS)) for each in others]
    assert max(told) <= 21


def test_records_that_a_neighbour_gives_are_bounded() -> None:
    swarm = GossipSwarm(4)
    victim = swarm.add_node(T)
    attacker = swarm.add_puppet(victim)
    attacker.send_frames(victim, SUBSCRIBE)
    swarm.run_for(1)
    flood = frames.peers(W, [bytes(100)] * 50)
    attacker.send_frames(victim, *[flood] * 100)
    assert sum(len(each.records) for each in victim.offered) == 0  # they are taken at the end of the turn
    swarm.run_for(0)
    assert sum(len(each.records) for each in victim.offered) == 200
    assert victim.router.counts["records-refused"] == 96


# ---- over connections --------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def raw_stream(name: str, victim: Any) -> Any:
    """The stream of a neighbour that says what a test says."""
    links = PeerLinks(identity(name))
    link = await links.connect(victim.address)
    yield await link.open(PROTOCOL)
    await links.close()


def signed(name: str, count: int) -> bytes:
    """So many frames with messages of somebody."""
    me = identity(name)
    contents = [
        content_of(me.id.key, W, number + 1, int(WALL * 1000), b"%d" % number) for number in range(count)
    ]
    batches = (sign_batch(me, contents[at : at + 64]) for at in range(0, count, 64))
    return b"".join(frames.frame(GossipFrameType.MESSAGE, each) for batch in batches for each in batch)


def test_who_sends_thousands_at_once_is_read_in_turns_with_others() -> None:
    async def main() -> None:
        async with (
            node("victim") as victim,
            raw_stream("flood", victim) as flood,
            raw_stream("other", victim) as other,
            victim.gossip.topic(T, room=10_000) as topic,
        ):
            for stream in (flood, other):
                stream.write(SUBSCRIBE)
            await until(lambda: len(topic.members) == 2)
            flood.write(signed("flood", 4000))
            other.write(signed("other", 1))
            authors = [(await anext(topic)).author async for _ in _times(4001)]
            assert authors.index(identity("other").id) < 3900

    run(main())


async def _times(count: int) -> Any:
    for number in range(count):
        yield number


@pytest.mark.parametrize("room", [10_000, 10])
def test_what_came_before_a_neighbour_finished_is_read_to_its_end(room: int) -> None:
    """Also where the program reads slowly, so that nothing more is read for a while."""

    async def main() -> None:
        async with (
            node("victim") as victim,
            raw_stream("flood", victim) as flood,
            victim.gossip.topic(T, room=room) as topic,
        ):
            flood.write(SUBSCRIBE)
            await until(lambda: len(topic.members) == 1)
            flood.write(signed("flood", 1000))
            flood.write_eof()
            found = []
            async for message in topic:
                found.append(int(message.data))
                await asyncio.sleep(0.001)
                if len(found) == 1000:
                    break
            assert found == list(range(1000))
            await until(lambda: not victim.gossip.peers)

    run(main())


def test_tiny_pieces_that_wait_for_a_slow_program_are_put_together() -> None:
    """A window has four million of a byte: each that was taken moved all others, which took hours."""

    async def main() -> None:
        taken: list[int] = []
        connection = SimpleNamespace(loop=asyncio.get_running_loop())
        stream: Any = SimpleNamespace(connection=connection, consumed=taken.append)
        received: list[tuple[int, bytes]] = []
        gossip: Any = SimpleNamespace(
            is_paused=True,
            limits=DEFAULT,
            receive_frames=lambda _, found: received.extend(found),
        )
        sink = NeighbourSink(gossip, b"peer", stream)
        data = frames.frame(GossipFrameType.MESSAGE, bytes(100_000))
        for at in range(len(data)):
            sink.stream_data(data[at : at + 1])
        gossip.is_paused = False
        sink.resume()
        assert received == [(GossipFrameType.MESSAGE, bytes(100_000))]
        assert (sum(taken), len(taken)) == (len(data), -(-len(data) // _PIECE))

    run(main())


def test_a_flood_of_tiny_frames_loses_none_of_what_is_between_them() -> None:
    async def main() -> None:
        async with (
            node("victim") as victim,
            raw_stream("flood", victim) as flood,
            victim.gossip.topic(T) as topic,
        ):
            empty = frames.frame(GossipFrameType.IDONTWANT)
            one, two = signed("one", 1), signed("two", 1)
            flood.write(SUBSCRIBE + one + empty * 20_000 + two + empty * 100 + frames.frame(200))
            heard = {(await anext(topic)).author for _ in range(2)}
            assert heard == {identity("one").id, identity("two").id}
            await until(lambda: victim.gossip.counts["frame-skipped"] == 1)

    run(main())
