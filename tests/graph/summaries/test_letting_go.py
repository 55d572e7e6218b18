"""What others took away long ago its author takes back as well: then sums don't have it any more, and it is gone for
all alike, whoever is banned."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL, identity, run, told
from hypothesis import given
from hypothesis import strategies as st
from replaying import check
from test_taken_away import TAKEN, noise, opened

from dtp.core import crdt as core
from dtp.crdt import Clock, values
from dtp.crdt.operations import Span
from dtp.graph import Graph, GraphError
from dtp.graph.frames.summaries import read_alone
from dtp.graph.permission.policy import REACH
from dtp.graph.upkeep.letting_go import Gone
from dtp.identity import Identity

DAY = 86_400.0
ERIN = identity("erin")
#: What isn't removed, but something newer holds in its place: sums have the last one of each author.
REPLACED = ("a register overwritten", "a register deleted", "a mark")


class Calendar:
    """A clock that goes when told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


async def written(graph: Graph, number: int) -> None:
    for turn in range(30):
        noise(graph, (number * 30 + turn) % 256)
        await graph.commit()


async def stored(graph: Graph) -> bytes:
    return b"".join(await graph.frames.read(ALICE.id.key, 1, 1 << 30))


@pytest.mark.parametrize("days", [29, 31])
@pytest.mark.parametrize("what", [what for what in TAKEN if what not in REPLACED])
def test_what_was_taken_away_long_ago_is_let_go(what: str, days: int) -> None:
    async def main() -> None:
        calendar = Calendar()
        make, take = TAKEN[what]
        async with opened(ALICE, BOB, CAROL, ERIN, wall=calendar) as (alice, bob, carol, erin):
            make(alice, "n")
            await told(alice, ALICE, bob)
            before = bob.everything("n")
            take(bob, "n")
            await told(bob, BOB, alice)
            await told(bob, BOB, carol)
            shown = alice.everything("n")
            await written(alice, 0)
            await alice.upkeep.prune()
            calendar.now += days * DAY
            await written(alice, 1)
            await alice.upkeep.prune()
            assert alice.everything("n") == shown
            await told(alice, ALICE, carol)
            await told(alice, ALICE, erin)
            await told(bob, BOB, erin)
            assert alice.replica.save() == carol.replica.save() == erin.replica.save()
            for one in (alice, carol, erin):
                await one.admission.ban(BOB.id)
                await check(one)
            assert alice.replica.save() == carol.replica.save() == erin.replica.save()
            is_back = alice.everything("n") == before
            assert is_back == (days < 30)

    run(main())


def test_sums_do_not_grow_by_what_others_take_away() -> None:
    """A queue between two, in a set, a map, a list and a text."""

    async def main() -> None:
        calendar = Calendar()
        async with opened(ALICE, BOB, wall=calendar) as (alice, bob):
            sizes = []
            for month in range(4):
                for number in range(30):
                    item = os.urandom(200).hex()
                    alice.set("q", "s").add(item)
                    alice.map("q")[f"{month} {number}"] = item
                    alice.list("q", "l").append(item)
                    alice.text("q", "t").append(item)
                    await told(alice, ALICE, bob)
                    bob.set("q", "s").discard(item)
                    del bob.map("q")[f"{month} {number}"]
                    bob.list("q", "l").clear()
                    bob.text("q", "t").delete(0, 400)
                    await told(bob, BOB, alice)
                await alice.upkeep.prune()
                sizes.append(len(await stored(alice)))
                calendar.now += 31 * DAY
            # what was taken away this month, and what of the one before is told in few bytes
            assert sizes[0] > 30 * 4 * 400
            assert max(sizes[2:]) < sizes[0] * 1.2
            await told(alice, ALICE, bob)
            assert alice.replica.save() == bob.replica.save()
            await check(alice)

    run(main())


def test_an_old_clock_does_not_make_a_removal_old() -> None:
    """Whoever removes something with a clock of weeks ago has removed it now, by the clock of its author."""

    async def main() -> None:
        calendar, behind = Calendar(), Calendar()
        async with (
            await Graph.open("memory:", identity=ALICE, name="g", clock=Clock(calendar)) as alice,
            await Graph.open("memory:", identity=BOB, name="g", clock=Clock(behind)) as bob,
        ):
            alice.set("n", "s").add("x")
            await told(alice, ALICE, bob)
            await alice.upkeep.prune()  # this looks at it for the first time
            calendar.now += 60 * DAY
            await written(alice, 0)
            bob.set("n", "s").discard("x")
            await told(bob, BOB, alice)
            assert alice.everything("n") == {}
            await alice.upkeep.prune()
            await alice.admission.ban(BOB.id)
            assert list(alice.set("n", "s")) == ["x"]

    run(main())


def test_how_far_bans_reach_back_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        path, calendar = str(tmp_path / "a.db"), Calendar()
        async with opened(BOB, wall=calendar) as (bob,):
            async with await Graph.open(path, identity=ALICE, name="g", clock=Clock(calendar)) as alice:
                assert alice.admission.reach == REACH == 30 * DAY
                with pytest.raises(GraphError):
                    await alice.admission.set_reach(-1.0)
                await alice.admission.set_reach(7 * DAY)
                alice.set("n", "s").add("x")
                await told(alice, ALICE, bob)
                bob.set("n", "s").discard("x")
                await told(bob, BOB, alice)
                await alice.upkeep.prune()
            calendar.now += 8 * DAY
            async with await Graph.open(path, identity=ALICE, name="g", clock=Clock(calendar)) as alice:
                assert alice.admission.reach == 7 * DAY
                last = alice.frames.last_of(ALICE.id.key)
                await alice.upkeep.prune()
                assert alice.frames.last_of(ALICE.id.key) == last + 1
                await alice.admission.set_reach(None)
                calendar.now += 800 * DAY
                await alice.upkeep.prune()
                assert alice.frames.last_of(ALICE.id.key) == last + 1
                await alice.admission.ban(BOB.id)
                assert not alice.set("n", "s")

    run(main())


def test_identities_that_take_turns_at_a_store_let_go_of_their_own(tmp_path: Path) -> None:
    """Each looks at what is its own; none begins anew because another has looked."""

    async def main() -> None:
        path, calendar = str(tmp_path / "shared.db"), Calendar()

        async def prune_as(one: Identity) -> Graph:
            async with await Graph.open(path, identity=one, name="g", clock=Clock(calendar)) as graph:
                await graph.upkeep.prune()
                return graph

        async with opened(CAROL, wall=calendar) as (carol,):
            for one in (ALICE, BOB):
                async with await Graph.open(path, identity=one, name="g", clock=Clock(calendar)) as graph:
                    graph.set("n", "s").add(str(one.id))
                    await told(graph, one, carol)
                    carol.set("n", "s").clear()
                    await told(carol, CAROL, graph)
            for _ in range(2):
                for one in (ALICE, BOB):
                    graph = await prune_as(one)
                    calendar.now += 16 * DAY
            assert {who: graph.frames.last_of(who.id.key) for who in (ALICE, BOB)} == {ALICE: 2, BOB: 2}

    run(main())


def test_a_text_that_others_may_have_compacted_is_left_alone() -> None:
    """Whoever names what they have forgotten makes them build the text again."""

    async def main() -> None:
        calendar = Calendar()
        async with opened(ALICE, BOB, wall=calendar) as (alice, bob):
            await alice.admission.set_reach(0.0)
            alice.text("n", "t").append("all of this goes")
            await told(alice, ALICE, bob)
            bob.text("n", "t").delete(0, 16)
            await told(bob, BOB, alice)
            await alice.upkeep.prune()
            for _ in range(3):
                for one, who, other in ((alice, ALICE, bob), (bob, BOB, alice)):
                    await one.upkeep.compact()
                    await told(one, who, other)
            last = alice.frames.last_of(ALICE.id.key)
            await alice.upkeep.prune()
            assert alice.frames.last_of(ALICE.id.key) == last
            await alice.admission.ban(BOB.id)
            assert str(alice.text("n", "t")) == "all of this goes"

    run(main())


#: What is written once more, and where that is.
AGAIN: dict[str, tuple[Callable[[Graph], None], int, bytes]] = {
    "an element of a set": (lambda graph: graph.set("n", "s").add("the same"), core.SET, b"s"),
    "a map's value": (lambda graph: graph.map("n").__setitem__("m", "the same"), core.VALUES, b"m"),
    "values": (lambda graph: graph.multi_value("n", "v").set("the same"), core.VALUES, b"v"),
}


@pytest.mark.parametrize("what", AGAIN)
def test_what_others_have_written_again_is_not_let_go(what: str) -> None:
    """It shows as before, so nobody notices: a ban of whoever did so took away what everybody had written."""

    async def main() -> None:
        calendar, (write, space, key) = Calendar(), AGAIN[what]
        async with opened(ALICE, BOB, wall=calendar) as (alice, bob):
            for _ in range(3):  # what Alice wrote before is then gone by Bob alone
                for one, who, other in ((alice, ALICE, bob), (bob, BOB, alice)):
                    write(one)
                    await told(one, who, other)
            shown = alice.everything("n")
            for _ in range(2):
                await alice.upkeep.prune()
                calendar.now += 31 * DAY
            assert alice.everything("n") == shown
            alone = await read_alone(alice, ALICE.id.key, 1, alice.frames.last_of(ALICE.id.key))
            assert len(values.decode(alone.core.read_space(space, b"n", key))) == 1
            await alice.admission.ban(BOB.id)
            assert alice.everything("n") == shown

    run(main())


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.sets(st.integers(0, 30))), max_size=4))
def test_what_is_gone_both_times(some: list[tuple[bytes, set[int]]]) -> None:
    """Against sets of numbers."""
    name = (5, "n", "t")
    sides = [
        Gone(edited={name: spans_of(some[at::2])}, added={name: numbers_of(some[at::2])}) for at in (0, 1)
    ]
    both = sides[0].common_with(Gone.decode(sides[1].encode()))
    told = [(span.agent, at) for span in both.edited.get(name, ()) for at in range(span.first, span.end)]
    wanted = [{(agent, at) for agent, numbers in some[at::2] for at in numbers} for at in (0, 1)]
    assert len(told) == len(set(told))
    assert set(told) == wanted[0] & wanted[1]
    assert both.added.get(name, set()) == sides[0].added[name] & sides[1].added[name]


def numbers_of(some: list[tuple[bytes, set[int]]]) -> set[int]:
    return {at for _, numbers in some for at in numbers}


def spans_of(some: list[tuple[bytes, set[int]]]) -> list[Span]:
    """Numbers in a row as spans, in any order."""
    by_agent: dict[bytes, set[int]] = {}
    for agent, numbers in some:
        by_agent.setdefault(agent, set()).update(numbers)
    found = []
    for agent, numbers in by_agent.items():
        for at in sorted(numbers):
            if at - 1 in numbers:
                found[-1] = found[-1]._replace(end=at + 1)
            else:
                found.append(Span(agent, at, at + 1))
    return found[::-1]


class Beside(ThreadPoolExecutor):
    """Threads beside the loop that note what they are given."""

    def __init__(self) -> None:
        super().__init__(1)
        self.given: list[str] = []

    def submit(self, fn: Any, /, *arguments: Any, **named: Any) -> Any:
        self.given += [getattr(one, "__name__", "") for one in getattr(fn, "args", ())]
        return super().submit(fn, *arguments, **named)


def test_texts_are_looked_through_beside_the_loop() -> None:
    """It takes a second and more of many edits, or of some that are made up for that: by whoever sums up own frames,
    lets go, or drops another's."""

    async def main() -> None:
        beside = Beside()
        asyncio.get_running_loop().set_default_executor(beside)
        async with opened(ALICE, BOB) as (alice, bob):
            alice.text("n", "t").append("some words")
            await written(alice, 0)
            await told(alice, ALICE, bob)
            await alice.upkeep.prune()
            assert beside.given.count("open_sequences") == 3
            last = alice.frames.last_of(ALICE.id.key)
            bob.passed.put_summary(ALICE.id.key, last, await alice.frames.read(ALICE.id.key, 1, last))
            assert (await bob.upkeep.prune()).frames == 30 - 1
            assert beside.given.count("open_sequences") == 3 + 2  # Bob's own, and Alice's

    run(main())
