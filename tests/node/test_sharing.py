"""Graphs shared in a topic, between nodes that come and go, on the simulated clock."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from random import Random

import pytest
from shared_worlds import LIMITS, Node, Said, World
from variants import slow_after

import dtp
from dtp.graph import Graph
from dtp.node.heads import Heads, HeadsPlan, ProbeNeighbour
from dtp.node.sharing import GraphShare, ShareError
from dtp.testing.clock import run


def test_what_one_writes_is_soon_everywhere() -> None:
    async def main() -> None:
        async with World("a", "b", "c", "d") as world:
            await world.start()
            for one, other in itertools.pairwise("abcd"):  # a line: d is three hops away from a
                await world.link(one, other)
            await asyncio.sleep(1)
            await world.write("a", 1)
            await asyncio.sleep(5)
            assert world.agree()
            assert world["d"].graph.node("a/1")["text"] == "x" * 20
            assert world.hub.published == 1  # who only passes it on announces nothing

    run(main())


def seen(world: World, name: str) -> list[str]:
    return [str(each.state["name"]) for each in world[name].graph.presence.here() if each.state is not None]


def test_who_is_there_is_told_along_with_a_share_and_through_those_between() -> None:
    async def main() -> None:
        async with World("a", "b", "c") as world:
            await world.start(key="a long enough secret")
            for one, other in itertools.pairwise("abc"):  # a line: c hears of a by b alone
                await world.link(one, other)
            world["a"].graph.presence.set(name="Ada")
            world["c"].graph.presence.set(name="Cy")
            await asyncio.sleep(3)
            assert (seen(world, "c"), sorted(seen(world, "b"))) == (["Ada"], ["Ada", "Cy"])
            assert seen(world, "a") == ["Cy"]
            assert [len(world[name].share.presence) for name in "abc"] == [1, 2, 1]
            assert {len(link.handlers) for name in "abc" for link in world[name].links} == {0}
            await world["a"].stop()
            await asyncio.sleep(1)
            assert seen(world, "c") == []
            assert seen(world, "b") == ["Cy"]

    run(main())


def test_presence_comes_back_with_the_share_and_is_not_told_to_those_without_its_key() -> None:
    async def main() -> None:
        async with World("a", "b", "stranger") as world:
            for name in "ab":
                await world[name].start(key="a long enough secret")
            await world["stranger"].start(key="another secret of theirs")
            for one, other in (("a", "b"), ("stranger", "a"), ("stranger", "b")):
                await world.link(one, other)
            for name in ("a", "b", "stranger"):
                world[name].graph.presence.set(name=name)
            await asyncio.sleep(30)
            assert (seen(world, "a"), seen(world, "b"), seen(world, "stranger")) == (["b"], ["a"], [])
            assert world["b"].share is not None
            await world["b"].share.close()
            await asyncio.sleep(1)
            assert seen(world, "a") == []
            await world["b"].join(key="a long enough secret")
            await asyncio.sleep(30)
            assert (seen(world, "a"), seen(world, "b")) == (["b"], ["a"])

    run(main())


def test_a_late_joiner_gets_all_and_hands_over_what_it_has() -> None:
    async def main() -> None:
        async with World("a", "b") as world:
            await world["a"].start()
            await world.write("a", 30)
            await world["b"].start()
            await world.write("b", 7)
            await world.link("b", "a")
            assert world["b"].share is not None
            await world["b"].share.wait_current()
            await asyncio.sleep(1)
            assert world.agree()
            assert world["b"].share.missing == 0

    run(main())


def test_who_shares_later_than_its_links_came_asks_them_at_once() -> None:
    """Who dialled has asked already, and was told that nobody shares that here."""

    async def main() -> None:
        async with World("a", "b") as world:
            await world["a"].start()
            await world.write("a", 3)
            await world["b"].start(shares=False)
            await world.link("a", "b")
            await asyncio.sleep(1)
            await world["b"].join()
            await asyncio.sleep(1)
            assert world.agree()

    run(main())


def test_whose_frames_were_not_taken_is_asked_next() -> None:
    """While frames come from one, others are told to give none; nobody announces theirs again."""
    plan, same = HeadsPlan(b"o" * 32, limits=LIMITS, random=Random(1)), b"d" * 16
    plan.on_link_up(b"1" * 32, 0.0, outgoing=False)
    assert plan.next_actions({}, same, (), 1.0) == []  # the side that dialled asks
    plan.on_frames_refused(b"1" * 32, 1.0)
    assert plan.next_actions({}, same, (), 1.0) == [ProbeNeighbour(b"1" * 32)]
    plan.on_frames_refused(b"2" * 32, 1.0)  # has gone meanwhile


def test_it_is_asking_until_all_neighbours_have_answered() -> None:
    """One that answers first, and has nothing else, doesn't speak for the others."""
    plan, one, other, same = (
        HeadsPlan(b"o" * 32, limits=LIMITS, random=Random(1)),
        b"1" * 32,
        b"2" * 32,
        b"d" * 16,
    )
    for peer in (one, other):
        plan.on_link_up(peer, 0.0, outgoing=True)
    assert plan.is_asking(0.0)
    assert plan.next_actions({}, same, (), 0.0) == [ProbeNeighbour(one), ProbeNeighbour(other)]
    plan.on_answer(one, Heads(same, {}, True), {}, same, 0.1)
    assert plan.is_asking(0.1)
    plan.on_failed(other, 0.2, for_long=True)
    assert not plan.is_asking(0.2)


@pytest.mark.parametrize("seed", slow_after(4, range(12)))
def test_random_partitions_come_together(seed: int) -> None:
    """Nodes are cut apart, write, restart and meet again at random; in the end all have all."""

    async def main() -> None:
        random = Random(seed)
        names = [f"n{number}" for number in range(random.randint(3, 7))]
        async with World(*names) as world:
            world.stores = {}
            side = dict.fromkeys(names, 0)
            world.hub.reaches = lambda one, other: (
                side[one.name] == side[other.name] and random.random() < 0.8
            )
            await world.start()
            for _ in range(12):
                step = random.choice(("write", "write", "cut", "link", "link", "wait"))
                name = random.choice(names)
                if step == "write":
                    await world.write(name, random.randint(1, 5))
                elif step == "cut":
                    side |= {each: random.randint(0, 1) for each in names}
                    await cut(world, side)
                elif step == "link":
                    await link_some(world, random, side)
                else:
                    await asyncio.sleep(random.random() * 20)
            side |= dict.fromkeys(names, 0)
            for one, other in itertools.pairwise(names):
                await world.link(one, other)
            await world.settle(240)
            assert world.agree()
            assert sum(len(list(node.graph.souls())) for node in world.nodes.values()) == world.written * len(
                names
            )

    run(main())


async def cut(world: World, side: dict[str, int]) -> None:
    for node in world.nodes.values():
        for link in node.links:
            other = next(each for each in world.nodes.values() if each.identity.id == link.peer)
            if side[other.name] != side[node.name]:
                await node.links.disconnect(link.peer)


async def link_some(world: World, random: Random, side: dict[str, int]) -> None:
    one, other = random.sample(sorted(side), 2)
    if side[one] == side[other]:
        await world.link(one, other)


async def synced_bytes(count: int, size: int) -> int:
    """What one `Graph.sync` of as much costs, both ways."""
    async with World("left", "right") as world:
        await world.start(shares=False)
        for name in ("left", "right"):
            await world.write(name, count, size=size)
        right = world["right"]
        async with (
            await dtp.listen("memory://plain", right.graph.serve, identity=right.identity) as listener,
            dtp.connect(listener.address(), identity=world["left"].identity) as connection,
        ):
            exchanged = await world["left"].graph.sync(connection)
            return exchanged.bytes_received + exchanged.bytes_sent


@pytest.mark.parametrize("nodes", [6, 12])
def test_partitions_that_meet_cost_what_a_sync_costs(nodes: int) -> None:
    """Each node gets the other half once: all that moves is little more than as many syncs, whatever the mesh."""

    async def main() -> tuple[int, int]:
        plain = await synced_bytes(120, 400)
        names = [f"l{number}" for number in range(nodes // 2)] + [
            f"r{number}" for number in range(nodes // 2)
        ]
        async with World(*names) as world:
            world.hub.reaches = lambda one, other: one.name[0] == other.name[0]
            await world.start()
            for half in (names[: nodes // 2], names[nodes // 2 :]):
                for one, other in itertools.combinations(half, 2):
                    await world.link(one, other)
            await world.write("l0", 120, size=400)
            await world.write("r0", 120, size=400)
            await world.settle()
            assert world.agree(*names[: nodes // 2])
            assert world["l1"].graph.frames.heads() != world["r1"].graph.frames.heads()
            before, heard = sum(node.sent for node in world.nodes.values()), world.hub.delivered
            world.hub.reaches = lambda one, other: True
            for left, right in zip(names[: nodes // 2], names[nodes // 2 :], strict=True):
                await world.link(left, right)  # as many bridges as there are pairs
            await world.settle(20)
            assert world.agree()
            moved = sum(node.sent for node in world.nodes.values()) - before + world.hub.delivered - heard
            return moved, plain * nodes // 2

    moved, ideal = run(main())
    assert ideal < moved < 1.35 * ideal


def test_several_peers_at_once_give_each_author_once() -> None:
    async def main() -> None:
        async with World("a", "b", "c", "late") as world:
            for name in "abc":
                await world[name].start()
            for one, other in itertools.combinations("abc", 2):
                await world.link(one, other)
            for name in "abc":
                await world.write(name, 300)
            await world.settle()
            await world["late"].start()
            before = {name: world[name].sent for name in "abc"}
            await asyncio.gather(*(world.link("late", name) for name in "abc"))
            await world.settle(20)
            assert world.agree()
            share = world["late"].share
            assert share is not None
            gave = [world[name].sent - before[name] for name in "abc"]
            assert min(gave) > max(gave) / 4  # all three have given something
            assert share.exchanged.received == 3  # each author's frames are summed up, and came once

    run(main())


def test_who_has_another_key_gets_nothing_and_learns_nothing() -> None:
    async def main() -> None:
        async with World("a", "b", "spy") as world:
            await world["a"].start(key="secret")
            await world["b"].start(key="secret")
            await world["spy"].start(key="guess")
            world.hub.reaches = lambda one, other: "spy" not in (one.name, other.name)
            await world.write("a", 5)
            await world.link("b", "a")
            await world.link("spy", "a")
            await world.link("b", "spy")
            await world.settle()
            assert world.agree("a", "b")
            assert world["spy"].graph.frames.heads() == {}
            assert world["spy"].share is not None
            assert world["spy"].share.counts["probed"] == 0

    run(main())


def test_somebody_who_is_banned_is_not_taken_and_costs_nothing_for_ever() -> None:
    async def main() -> None:
        async with World("a", "b") as world:
            await world.start()
            await world["a"].graph.admission.ban(world["b"].identity.id)
            await world.link("a", "b")
            await world.write("b", 5)
            await world.write("a", 3)
            await world.settle()
            assert world["b"].identity.id.key not in world["a"].graph.frames.heads()
            assert world["a"].identity.id.key in world["b"].graph.frames.heads()
            assert world["a"].share is not None
            before = world["a"].share.exchanged.bytes_sent
            await world.settle(600)
            assert world["a"].share.exchanged.bytes_sent - before < 12_000
            assert world["a"].share.missing == 0

    run(main())


def test_a_fork_of_the_own_history_ends_the_sharing_and_says_so() -> None:
    async def main() -> None:
        async with World("a", "b") as world:
            await world.start()
            await world.write("a", 2)
            copy = await Graph.open("memory:", identity=world["a"].identity, name="g")
            copy.node("other")["x"] = 1
            await copy.commit()
            key = world["a"].identity.id.key
            await world["b"].graph.receive(await copy.frames.read(key, 1, 1))
            await world.link("a", "b")
            await world.settle()
            assert world["a"].share is not None
            with pytest.raises(dtp.DtpError) as caught:
                await world["a"].share.wait_current()
            assert caught.value.code == "graph-forked"
            assert key in world["b"].graph.forks
            await copy.close()

    run(main())


def test_a_graph_or_a_topic_is_shared_once_and_by_its_own_identity() -> None:
    async def main() -> None:
        async with World("a", "b") as world:
            await world.start()
            node: Node = world["a"]
            with pytest.raises(ShareError, match="is shared already"):
                node.shares.share(node.graph, object(), name="another")  # type: ignore[arg-type]
            with pytest.raises(ShareError, match="own identity"):
                node.shares.share(world["b"].graph, object(), name="another")  # type: ignore[arg-type]

    run(main())


class Directory:
    """Stands for the DHT."""

    def __init__(self, *peers: dtp.PeerId) -> None:
        self.peers = peers
        self.provided: list[bytes] = []

    async def provide(self, content_hash: bytes) -> None:
        self.provided.append(content_hash)

    async def providers(self, content_hash: bytes) -> list[object]:
        return [type("Record", (), {"peer": peer}) for peer in self.peers]


def test_a_blob_is_provided_at_once_whichever_neighbour_gave_it() -> None:
    async def main() -> None:
        async with World("a", "b", "c", "d") as world:
            await world.start()
            world["a"].shares.providers = here = Directory()
            for each in ("b", "c", "d"):
                await world.link("a", each)
            refs = []
            for _ in range(4):
                data = f"photo {len(refs)}".encode() * 1000
                refs = [*refs, await world["b"].graph.blobs.add(data)]
                for each in ("c", "d"):
                    await world[each].graph.blobs.add(data)
                assert world["a"].share is not None
                await world["a"].share.fetch(refs[-1])
            await asyncio.sleep(1)
            assert here.provided == [each.id for each in refs]

    run(main())


def test_nothing_is_provided_any_more_once_a_share_is_closed() -> None:
    class Lingering(Directory):
        """Takes its time to end, so that the next look for blobs comes meanwhile."""

        under_way = 0

        async def provide(self, content_hash: bytes) -> None:
            self.under_way += 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(2 * LIMITS.poll)
                raise
            finally:
                self.under_way -= 1

    async def main() -> None:
        async with World("a") as world:
            await world["a"].start()
            world["a"].shares.providers = here = Lingering()
            await world["a"].graph.blobs.add(b"photo")
            await asyncio.sleep(2 * LIMITS.poll)
            assert here.under_way == 1
            await world["a"].graph.blobs.add(b"another")
            assert world["a"].share is not None
            await world["a"].share.close()
            assert here.under_way == 0

    run(main())


def test_a_blob_that_has_come_once_a_share_is_closed_is_not_provided() -> None:
    """A program that still fetched it had it announced for as long as the node went on."""

    async def main() -> None:
        async with World("a") as world:
            await world["a"].start()
            ref = await world["a"].graph.blobs.add(b"photo")
            share = world["a"].share
            assert share is not None
            await share.close()
            world["a"].shares.providers = here = Directory()
            assert (await share.fetch(ref)).is_here
            await asyncio.sleep(1)
            assert here.provided == []

    run(main())


def test_blobs_come_from_any_neighbour_or_from_who_is_said_to_have_them() -> None:
    async def main() -> None:
        async with World("a", "b", "c") as world:
            await world.start()
            ref = await world["c"].graph.blobs.add(b"photo" * 50_000)
            world["a"].shares.providers = here = Directory(world["a"].identity.id, world["b"].identity.id)
            await world.link("a", "b")
            assert world["a"].share is not None
            with pytest.raises(dtp.DtpError) as caught:
                await world["a"].share.fetch(ref)
            assert caught.value.code == "graph-blob-absent"
            here.peers = (world["c"].identity.id,)
            blob = await world["a"].share.fetch(ref)
            assert await blob.read() == b"photo" * 50_000
            await asyncio.sleep(1)
            assert here.provided == [ref.id]
            assert world["b"].share is not None
            assert (await world["b"].share.fetch(ref)).is_here  # from its neighbour, without a directory

    run(main())


def test_limits_are_what_the_page_says() -> None:
    assert (LIMITS.announced, LIMITS.poll, LIMITS.served_each) == (64, 60.0, 8)


class SilentTopic:
    """A topic in which nobody hears anybody."""

    async def publish(self, data: bytes) -> None:
        pass

    def __aiter__(self) -> SilentTopic:
        return self

    async def __anext__(self) -> Said:
        await asyncio.Event().wait()
        raise AssertionError


def test_many_graphs_of_two_nodes_wait_for_their_turns_and_are_refused_nothing() -> None:
    """Each opened its streams at once: all but four were refused, and waited longer each time."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            world = await stack.enter_async_context(World("a", "b"))
            await world.start(shares=False)
            await world.link("a", "b")
            shared: dict[str, list[GraphShare]] = {"a": [], "b": []}
            for name, shares in shared.items():
                node = world[name]
                for number in range(40):
                    opened = Graph.open("memory:", identity=node.identity, name=f"g{number}")
                    graph = await stack.enter_async_context(await opened)
                    graph.node(name)["text"] = "x"
                    share = node.shares.share(graph, SilentTopic(), name=f"t{number}")
                    shares.append(await stack.enter_async_context(share))
            async with asyncio.timeout(1):
                for share in (*shared["a"], *shared["b"]):
                    await share.wait_current()
            for one, other in zip(*shared.values(), strict=True):
                assert one.graph.frames.heads() == other.graph.frames.heads()
                assert one.counts["failed"] == other.counts["failed"] == 0
                assert len(one.presence) == len(other.presence) == 1

    run(main())
