"""What others took away stays in sums: it comes back with bans and revocations, wherever frames were summed up."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL, identity, run, told
from replaying import alone_of, check, sum_up

from dtp.crdt import Clock, Replica
from dtp.crdt.permission.grants import Grant
from dtp.crdt.permission.owners import owned_soul
from dtp.graph import Graph
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.envelope import Summary, last_clock
from dtp.identity import Identity

DAVE = identity("dave")
Turn = Callable[[Graph, str], None]


def marked(graph: Graph, soul: str) -> None:
    graph.text(soul, "t").append("the words of Alice")
    graph.text(soul, "t").mark(4, 9, "bold")


def unmarked(graph: Graph, soul: str) -> None:
    graph.text(soul, "t").unmark(0, 18, "bold")


def listed(graph: Graph, soul: str) -> None:
    graph.list(soul, "l").extend(["one", "two", "three", "four"])
    graph.list(soul, "l")[1] = "assigned"
    graph.list(soul, "l").move(2, 0)


def emptied(graph: Graph, soul: str) -> None:
    del graph.list(soul, "l")[:]


def put(key: str, value: Any) -> Turn:
    def turn(graph: Graph, soul: str) -> None:
        graph.node(soul)[key] = value

    return turn


def deleted(graph: Graph, soul: str) -> None:
    del graph.node(soul)["k"]


#: What Alice makes, and how Bob takes it away.
TAKEN: dict[str, tuple[Turn, Turn]] = {
    "a register overwritten": (put("k", "Alice's"), put("k", "Bob's")),
    "a register deleted": (put("k", "Alice's"), deleted),
    "an element of a set": (
        lambda graph, soul: graph.set(soul, "s").add("Alice's"),
        lambda graph, soul: graph.set(soul, "s").discard("Alice's"),
    ),
    "a map's value": (
        lambda graph, soul: graph.map(soul).__setitem__("m", "Alice's"),
        lambda graph, soul: graph.map(soul).__setitem__("m", "Bob's"),
    ),
    "values": (
        lambda graph, soul: graph.multi_value(soul, "v").set("Alice's"),
        lambda graph, soul: graph.multi_value(soul, "v").clear(),
    ),
    "text": (
        lambda graph, soul: graph.text(soul, "t").append("the words that are of Alice"),
        lambda graph, soul: graph.text(soul, "t").delete(3, 19),
    ),
    "a mark": (marked, unmarked),
    "elements of a list": (listed, emptied),
    "an element's value": (listed, lambda graph, soul: graph.list(soul, "l").__setitem__(2, "Bob's")),
    "an element's place": (listed, lambda graph, soul: graph.list(soul, "l").move(0, 3)),
}


def noise(graph: Graph, number: int) -> None:
    """What is overwritten by its author: so that there is something to sum up."""
    graph.node("noise")["k"] = bytes([number]) * 500


@asynccontextmanager
async def opened(*who: Identity, wall: Callable[[], float] = time.time) -> AsyncIterator[list[Graph]]:
    """Graphs in memory of these people, with clocks that show the same time."""
    async with AsyncExitStack() as stack:
        opening = [Graph.open("memory:", identity=one, name="g", clock=Clock(wall)) for one in who]
        yield [await stack.enter_async_context(await each) for each in opening]


async def granted(alice: Graph, bob: Graph) -> tuple[str, Grant]:
    """A soul of Alice's that Bob may write."""
    grant = alice.access.grant(BOB.id, "n")
    await told(alice, ALICE, bob)
    return owned_soul(ALICE.id.key, "n"), grant


def end_early(alice: Graph, grant: Grant) -> None:
    """Revoke a grant from before anything was written by it, as an older backup of Alice's might."""
    alice.node(f"%access/{ALICE.id}")[f"revoke/{grant.id}"] = 1


async def made(alice: Graph, bob: Graph, what: str, soul: str, *others: Graph) -> None:
    """Alice makes something, Bob takes it away, all hear of it, and Alice keeps a sum of her frames alone."""
    make, take = TAKEN[what]
    make(alice, soul)
    for number in range(40):
        noise(alice, number)
        await alice.commit()
    await told(alice, ALICE, bob)
    take(bob, soul)
    await told(bob, BOB, alice)
    for other in others:
        await told(alice, ALICE, other)
        await told(bob, BOB, other)
    noise(alice, 40)
    for other in (bob, *others):
        await told(alice, ALICE, other)
    assert (await alice.upkeep.prune()).frames >= 40
    parts = [envelopes.decode("g", one) for one in await alice.frames.read(ALICE.id.key, 1, 99)]
    assert any(isinstance(one, Summary) for one in parts)


@pytest.mark.parametrize("what", TAKEN)
def test_what_somebody_took_away_comes_back_with_a_ban(what: str) -> None:
    """Where the frames are, where their author or another dropped them, and where only the sum came."""

    async def main() -> None:
        async with opened(ALICE, BOB, CAROL, DAVE, identity("erin")) as people:
            alice, bob, carol, dave, erin = people
            await made(alice, bob, what, "n", carol, dave)
            last = alice.frames.last_of(ALICE.id.key)
            dave.passed.put_summary(ALICE.id.key, last, await alice.frames.read(ALICE.id.key, 1, last))
            assert (await dave.upkeep.prune()).frames >= 40
            await told(alice, ALICE, erin)
            await told(bob, BOB, erin)
            assert len({one.replica.save() for one in people}) == 1
            before = carol.everything("n")
            for one in (alice, carol, dave, erin):
                await one.admission.ban(BOB.id)
                await check(one)
            assert carol.everything("n") != before
            assert {str(one.everything("n")) for one in (alice, dave, erin)} == {str(carol.everything("n"))}
            assert len({one.replica.save() for one in (alice, carol, dave, erin)}) == 1

    run(main())


@pytest.mark.parametrize("what", TAKEN)
def test_what_a_grantee_took_away_comes_back_when_its_grant_ends_before(what: str) -> None:
    async def main() -> None:
        async with opened(ALICE, BOB, CAROL, DAVE) as (alice, bob, carol, dave):
            soul, grant = await granted(alice, bob)
            await made(alice, bob, what, soul, carol)
            await told(alice, ALICE, dave)
            await told(bob, BOB, dave)
            before = carol.everything(soul)
            end_early(alice, grant)
            for one in (bob, carol, dave):
                await told(alice, ALICE, one)
            assert carol.everything(soul) != before
            shown = {str(one.everything(soul)) for one in (alice, bob, carol, dave)}
            assert shown == {str(carol.everything(soul))}
            for one in (alice, bob, carol, dave):
                await check(one)

    run(main())


def test_what_its_author_took_back_goes_all_the_same() -> None:
    """Also where somebody else took it away as well; and it doesn't come back."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE, name="g") as alice,
            await Graph.open("memory:", identity=BOB, name="g") as bob,
        ):
            alice.set("n", "s").add("in a set")
            alice.text("n", "t").append("in a text")
            alice.list("n", "l").append("in a list")
            alice.map("n")["m"] = "in a map"
            alice.node("n")["k"] = "in a register"
            await told(alice, ALICE, bob)
            for one in (alice, bob):
                one.set("n", "s").discard("in a set")
                one.text("n", "t").delete(0, 9)
                one.list("n", "l").clear()
                del one.map("n")["m"]
                del one.node("n")["k"]
            await told(alice, ALICE, bob)
            await told(bob, BOB, alice)
            for number in range(40):
                noise(alice, number)
                await alice.commit()
            assert (await alice.upkeep.prune()).frames > 40
            stored = b"".join(await alice.frames.read(ALICE.id.key, 1, 99))
            assert b"in a" not in stored
            await alice.admission.ban(BOB.id)
            assert alice.everything("n") == {}
            await check(alice)

    run(main())


async def lacking(alice: Graph, what: str) -> bytes:
    """A sum of all of Alice's frames that leaves out what others took away, as though she had done so herself."""
    last = alice.frames.last_of(ALICE.id.key)
    frames = [envelopes.decode("g", one) for one in await alice.frames.read(ALICE.id.key, 1, last)]
    elsewhere = Replica(ALICE.id.key)
    for one in frames:
        elsewhere.merge(ALICE.id.key, one.body)
    TAKEN[what][1](elsewhere, "n")  # type: ignore[arg-type]
    alone = alone_of(*frames)
    for frame in elsewhere.commit():
        alone.add_frame(frame.body)
    clocks = 0, last_clock(alice.replica.core, frames[-1])
    return envelopes.sum_up(ALICE, frames[0], frames[-1], clocks, bytes(16), sum_up(alone, *frames)).encode()


@pytest.mark.parametrize(
    "what", [what for what in TAKEN if what != "a mark"]
)  # that is overruled, and still there
def test_nobody_agrees_to_a_sum_that_lacks_what_others_took_away(what: str) -> None:
    """Nor does it replace frames, where these others have been heard of neither."""

    async def main() -> None:
        async with opened(ALICE, BOB, CAROL, DAVE) as (alice, bob, carol, dave):
            TAKEN[what][0](alice, "n")
            for number in range(40):
                noise(alice, number)
                await alice.commit()
            await told(alice, ALICE, bob)
            TAKEN[what][1](bob, "n")
            await told(bob, BOB, alice)
            await told(alice, ALICE, dave)
            lie, last = await lacking(alice, what), alice.frames.last_of(ALICE.id.key)
            for one in (carol, dave):
                await one.admission.set_agreement(1, [CAROL.id, DAVE.id])
                await told(alice, ALICE, one)
                if one is carol:
                    await told(bob, BOB, carol)
                one.passed.put_summary(ALICE.id.key, last, [lie])
                assert (await one.upkeep.prune()).frames == 0
                assert not one.node(owned_soul(one.identity.id.key, ".agreed"))
            assert (await alice.upkeep.prune()).frames >= 39
            true = await alice.frames.read(ALICE.id.key, 1, last)
            carol.passed.put_summary(ALICE.id.key, last, true)
            assert (await carol.upkeep.prune()).frames >= 39
            assert carol.node(owned_soul(CAROL.id.key, ".agreed"))

    run(main())


async def forget(*graphs: Graph) -> None:
    """All say what they have seen, and forget what all have seen deleted."""
    for _ in range(2):
        for one in graphs:
            await one.upkeep.compact()
            for other in graphs:
                if other is not one:
                    await told(one, one.identity, other)


@pytest.mark.parametrize("is_ban", [True, False], ids=["banned", "revoked"])
@pytest.mark.parametrize("first", ["compacted", "pruned"])
@pytest.mark.parametrize("what", ["text", "a mark", "elements of a list", "an element's value"])
def test_what_was_forgotten_comes_back_as_well(what: str, first: str, is_ban: bool) -> None:
    """Behind compaction, whether frames were dropped before it or after it."""

    async def main() -> None:
        async with opened(ALICE, BOB, CAROL, DAVE) as (alice, bob, carol, dave):
            soul, grant = await granted(alice, bob)
            if first == "pruned":
                await made(alice, bob, what, soul, carol)
                await forget(alice, bob, carol)
            else:
                TAKEN[what][0](alice, soul)
                await told(alice, ALICE, bob)
                await told(alice, ALICE, carol)
                TAKEN[what][1](bob, soul)
                await told(bob, BOB, alice)
                await told(bob, BOB, carol)
                await forget(alice, bob, carol)
                for number in range(60):
                    noise(alice, number)
                    await alice.commit()
                assert (await alice.upkeep.prune()).frames > 40
                await told(alice, ALICE, carol)
            last = alice.frames.last_of(ALICE.id.key)
            await dave.receive(await alice.frames.read(ALICE.id.key, 1, last))
            await told(bob, BOB, dave)
            before = carol.everything(soul)
            if not is_ban:
                end_early(alice, grant)
            for one in (carol, dave):
                await told(alice, ALICE, one)
            for one in (alice, carol, dave) if is_ban else ():
                await one.admission.ban(BOB.id)
            assert carol.everything(soul) != before
            assert {str(one.everything(soul)) for one in (alice, dave)} == {str(carol.everything(soul))}

    run(main())
