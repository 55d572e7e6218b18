"""Frames of which nothing counts any more are dropped; what stands, stays, whatever is done in between."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL, churn, served, told
from postgres import server
from replaying import alone_of, check, replayed, size, sum_up

from dtp.core import crdt as core
from dtp.core.varint import put_varint
from dtp.crdt import Clock, Replica, values
from dtp.crdt.permission.rules import Rule, Rules
from dtp.graph import Graph, GraphError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames import summaries
from dtp.graph.frames.envelope import Envelope, Summary, last_clock
from dtp.graph.stores import loading
from dtp.graph.upkeep.pruning import Pruned
from dtp.identity import Identity


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory:"
    if request.param == "sqlite":
        return str(tmp_path / "graph.db")
    return str(request.getfixturevalue("postgres"))


async def positions(graph: Graph, count: int, at: int = 0) -> None:
    for number in range(at, at + count):
        graph.node(f"thing/{number % 4}").update(x=number, y=-number)
        await graph.commit()


def test_what_was_overwritten_is_dropped(place: str) -> None:
    async def main() -> None:
        name = os.urandom(4).hex()
        async with await Graph.open(place, identity=ALICE, name=name) as alice:
            await positions(alice, 400)
            state, before, heads = alice.replica.save(), await size(alice), alice.frames.heads()
            could = await alice.upkeep.prunable()
            assert could.stored == before
            assert could.overwritten > before * 0.95
            done = await alice.upkeep.prune()
            assert done.frames >= 399
            assert await size(alice) == before - done.bytes < 2000
            assert await alice.upkeep.prune() == Pruned(0, 0)
            assert (await alice.upkeep.prunable()).overwritten < 1000
            assert (alice.replica.save(), alice.frames.heads()) == (state, heads)
            await check(alice)
            await positions(alice, 3, 400)
            await check(alice)
            state = alice.replica.save()
        if place == "memory:":
            return
        async with await Graph.open(place, identity=ALICE, name=name) as alice:
            assert alice.replica.save() == state
            await positions(alice, 100, 403)
            await alice.upkeep.prune()
            await check(alice)
            assert len(await alice.frames.read(ALICE.id.key, 1, 1000)) <= 2

    asyncio.run(main())


async def came_and_went(graph: Graph, count: int, at: int = 0) -> None:
    """Text that is typed and deleted again, and things of a list that are moved about and get other values."""
    text, items = graph.text("draft"), graph.list("things")
    if not items:
        items.extend([0, 1, 2, 3])
    for number in range(at, at + count):
        if len(text) < 50:
            text.append("some words ")
        else:
            text.delete(0, len(text))
        items[number % 4] = number
        items.move(number % 4, number * 3 % 4)
        await graph.commit()


@pytest.mark.slow
def test_text_that_went_and_places_that_were_left_are_dropped(place: str) -> None:
    """What stays of them is that they were there: some bytes each, and not a frame."""

    async def main() -> None:
        name = os.urandom(4).hex()
        async with await Graph.open(place, identity=ALICE, name=name) as alice:
            await came_and_went(alice, 300)
            state, before, heads = alice.replica.save(), await size(alice), alice.frames.heads()
            done = await alice.upkeep.prune()
            assert done.frames >= 299
            left = await size(alice)
            assert left == before - done.bytes < before / 15
            assert (alice.replica.save(), alice.frames.heads()) == (state, heads)
            await check(alice)
            await came_and_went(alice, 300, 300)
            await alice.upkeep.prune()
            assert await size(alice) < left * 2.2
            await check(alice)
            async with await Graph.open("memory:", identity=BOB, name=name) as bob:
                async with served(alice, f"went-{name}") as connection:
                    await bob.sync(connection)
                assert str(bob.text("draft")) == str(alice.text("draft"))
                assert list(bob.list("things")) == list(alice.list("things"))
                bob.text("draft").insert(0, "bob's ")
                bob.list("things").move(0, 3)
                await bob.commit()
                async with served(alice, f"went-again-{name}") as connection:
                    await bob.sync(connection)
                assert bob.replica.save() == alice.replica.save()
                await check(bob)
            state = alice.replica.save()
        if place == "memory:":
            return
        async with await Graph.open(place, identity=ALICE, name=name) as alice:
            assert alice.replica.save() == state
            await came_and_went(alice, 20, 600)
            await alice.upkeep.prune()
            await check(alice)

    asyncio.run(main())


def test_edits_of_two_who_edit_one_text_are_dropped_by_both() -> None:
    """Each drops its own, and of the other's what that summed up; a newcomer gets from either what both show."""

    async def main() -> None:
        alice, bob, carol = [
            await Graph.open("memory:", identity=who, name="g") for who in (ALICE, BOB, CAROL)
        ]
        async with served(bob, "two-prune") as connection:
            for number in range(120):
                for graph in (alice, bob):
                    graph.text("t").insert(0, f"{number} words that go again ")
                    if number % 20 == 0:
                        graph.text("t").mark(0, 3, "bold")
                    if len(graph.text("t")) > 200:
                        graph.text("t").delete(100, len(graph.text("t")) - 100)
                    await graph.commit()
                await alice.sync(connection)
            before = await size(alice)
            for graph in (alice, bob, alice, bob):
                await graph.upkeep.prune()
                await alice.sync(connection)
        for graph in (alice, bob):
            assert await size(graph) < before / 4
            await check(graph)
        async with served(bob, "two-prune-newcomer") as connection:
            await carol.sync(connection)
        assert carol.text("t").spans() == alice.text("t").spans() == bob.text("t").spans()
        assert carol.replica.save() == alice.replica.save() == bob.replica.save()
        for graph in (alice, bob, carol):
            await graph.close()

    asyncio.run(main())


def test_what_was_typed_at_an_earlier_opening_is_joined_too(tmp_path: Path) -> None:
    """Each opening writes texts as an agent of its own."""

    async def main() -> None:
        for opening in range(4):
            async with await Graph.open(str(tmp_path / "a.db"), identity=ALICE) as alice:
                for number in range(30):
                    alice.text("t").append(f"{opening} {number} and more of the same")
                    await alice.commit()
                if opening == 2:
                    alice.text("t").delete(0, len(alice.text("t")))
                    await alice.commit()
        async with await Graph.open(str(tmp_path / "a.db"), identity=ALICE) as alice:
            done = await alice.upkeep.prune()
            assert done.frames >= 119
            assert str(alice.text("t")).startswith("3 0 and more")
            assert await size(alice) < 1500
            await check(alice)

    asyncio.run(main())


def test_a_compacted_text_keeps_its_edits() -> None:
    """What is forgotten here can't be told anew; nothing is lost, and what comes later is joined as ever."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE, name="g") as alice,
            await Graph.open("memory:", identity=BOB, name="g") as bob,
        ):
            await came_and_went(alice, 60)
            await alice.upkeep.compact()
            await came_and_went(alice, 60, 60)
            shown = str(alice.text("draft")), list(alice.list("things"))
            await alice.upkeep.prune()
            await alice.verify()
            fresh = alice.replica.empty_copy()
            loading.merge_all_stored(alice.frames.store, fresh)
            assert (str(fresh.text("draft")), list(fresh.list("things"))) == shown
            sizes = []
            for turn in range(1, 6):
                await alice.upkeep.compact()
                await came_and_went(alice, 60, 60 + turn * 60)
                await told(alice, ALICE, bob)
                await alice.upkeep.prune()
                sizes.append(await size(alice))
            each = (sizes[-1] - sizes[0]) / 4 / 60
            assert each < 20, f"{each} bytes an edit"  # 300 as frames
            shown = str(alice.text("draft")), list(alice.list("things"))
            fresh = alice.replica.empty_copy()
            loading.merge_all_stored(alice.frames.store, fresh)
            assert (str(fresh.text("draft")), list(fresh.list("things"))) == shown
            last = alice.frames.vector()[ALICE.id.key]
            bob.passed.put_summary(ALICE.id.key, last, await alice.frames.read(ALICE.id.key, 1, last))
            assert (await bob.upkeep.prune()).frames > 100
            await check(bob)
            assert (str(bob.text("draft")), list(bob.list("things"))) == shown

    asyncio.run(main())


def on_disk(path: Path) -> int:
    return sum(
        one.stat().st_size
        for one in path.parent.iterdir()
        if one.name.startswith(path.name + "-wal") or one == path
    )


def test_frames_that_are_pruned_while_they_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read first is of the frames, and what is read next of the sum in their place: that is no sum of all."""
    stored, is_pruned, batches = summaries.stored, False, 0

    async def interrupted(graph: Graph, parts: list[tuple[bytes, int, int]]) -> AsyncIterator[list[bytes]]:
        nonlocal is_pruned, batches
        async for some in stored(graph, parts):
            yield some
            batches += parts[0][1:] == (1, 600)
            if batches == 4 and not is_pruned:  # 3 batches are all, which are read twice
                is_pruned = True
                sums = [envelopes.decode("", one) for one in graph.passed.parts_of(ALICE.id.key)]
                assert await graph.replace_stored(sums) > 400

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice:
            await positions(alice, 500)
            await alice.offering.refresh_offer(alice, at_once=True)
            await positions(alice, 100, at=500)
            monkeypatch.setattr(summaries, "stored", interrupted)
            await alice.offering.refresh_offer(alice, at_once=True)
            assert is_pruned
            assert alice.passed.last_of(ALICE.id.key) == 500
            await alice.offering.refresh_offer(alice, at_once=True)
            parts = [envelopes.decode("", one) for one in alice.passed.parts_of(ALICE.id.key)]
            assert alice.passed.last_of(ALICE.id.key) == parts[-1].sequence == 600
            assert [one.first_sequence for one in parts] == [1, *(one.sequence + 1 for one in parts[:-1])]
            await check(alice)

    asyncio.run(main())


def test_the_file_shrinks(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "a.db"
        async with await Graph.open(str(path), identity=ALICE) as alice:
            for number in range(30):
                alice.put_many((f"n/{at}", "k", f"{number} {at}" * 20) for at in range(300))
                await alice.commit()
            before = on_disk(path)
            async with await Graph.open(str(path), identity=BOB, read_only=True) as beside:
                await alice.upkeep.prune()
                assert len(beside.souls()) == 300
            assert on_disk(path) < before / 5
            await check(alice)

    asyncio.run(main())


@asynccontextmanager
async def following(author: Graph, follower: Graph, name: str) -> AsyncIterator[None]:
    async with served(author, name) as client:
        task = asyncio.create_task(follower.replicate(client))
        yield
        task.cancel()


@pytest.mark.slow
def test_a_store_stays_small_as_positions_come(tmp_path: Path) -> None:
    """By the policy alone: the author's store, and that of a replica which only receives; then the author is away."""

    async def main() -> None:
        mine, theirs = str(tmp_path / "mine.db"), str(tmp_path / "theirs.db")
        async with await Graph.open(theirs, identity=BOB, prune=True) as bob:
            async with (
                await Graph.open(mine, identity=ALICE, prune=True) as alice,
                following(alice, bob, "positions"),
            ):
                alice.offering.least = bob.offering.least = 8 * 1024
                alice.upkeep.least = bob.upkeep.least = 8 * 1024
                watch = bob.watch("thing/3")
                most = [0, 0]
                for number in range(0, 1000, 4):
                    await positions(alice, 4, number)
                    change = await anext(watch)
                    while change.key != "y" or bob.replica.get("thing/3", "y") != -number - 3:
                        change = await anext(watch)
                    most = [max(most[0], await size(alice)), max(most[1], await size(bob))]
                assert max(most) < 128 * 1024  # of some 250 KiB that were made, however slow what prunes is
                state = alice.replica.save()
            assert bob.replica.save() == state  # she is away
            await bob.upkeep.prune()
            await check(bob)
            async with (
                await Graph.open("memory:", identity=CAROL) as carol,
                served(bob, "newcomer") as client,
            ):
                await carol.sync(client)
                assert carol.replica.save() == bob.replica.save()
                assert await size(carol) < 24 * 1024

    asyncio.run(main())


def test_history_is_kept_where_it_is_wanted() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE, history=True) as alice:
            await positions(alice, 50)
            with pytest.raises(GraphError, match="keeps its history"):
                await alice.upkeep.prune()
            assert len(await alice.history.versions("thing/1", "x")) > 10
        with pytest.raises(GraphError, match="can't be pruned"):
            await Graph.open("memory:", identity=ALICE, history=True, prune=True)
        with pytest.raises(GraphError, match="can't be pruned"):
            await Graph.open("memory:", identity=ALICE, read_only=True, prune=True)

    asyncio.run(main())


def test_what_rules_decide_about_stays() -> None:
    """Such ops are in the sum as they are."""
    votes = Rules("vote", [Rule(path="*", key="{author}", once="soul")])

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice:
            alice.access.allow(votes)
            await positions(alice, 60)
            alice.node(votes.soul("lunch"))[str(ALICE.id)] = "yes"
            await positions(alice, 60, 60)
            state = alice.replica.save()
            assert (await alice.upkeep.prune()).frames == 119
            assert alice.replica.save() == state
            await check(alice)

    asyncio.run(main())


# ---- who lies --------------------------------------------------------------------------------------------------


def changed(identity: Identity, one: Summary, **parts: Any) -> bytes:
    unsigned = dataclasses.replace(one, **parts, signature=b"")
    return dataclasses.replace(unsigned, signature=identity.sign(unsigned.signed_bytes)).encode()


@pytest.mark.parametrize("lie", ["leaves out", "makes up", "clocks", "no frame", "other chain", "honest"])
def test_a_summary_that_lies_drops_nothing(lie: str) -> None:
    """The author signs what it likes, also of its own frames that are here."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            await positions(alice, 100)
            await told(alice, ALICE, bob)
            await alice.upkeep.prune()
            (data,) = await alice.frames.read(ALICE.id.key, 1, 1 << 40)
            honest = envelopes.decode("", data)
            assert isinstance(honest, Summary)
            liar = Replica(ALICE.id.key, clock=alice.replica.clock)
            liar.put("thing/0", "x", "made up")
            lies: dict[str, dict[str, Any]] = {
                "leaves out": {"body": b""},
                "makes up": {"body": liar.commit()[0].body},
                "clocks": {"after": honest.after + 1},
                "no frame": {"body": honest.body[:-1]},
                "other chain": {"tip": bytes(32)},
                "honest": {},
            }
            said = changed(ALICE, honest, **lies[lie])
            bob.passed.put_summary(ALICE.id.key, honest.sequence, [said])
            done = await bob.upkeep.prune()
            assert done.frames == (99 if lie == "honest" else 0)
            await check(bob)
            assert bob.replica.save() == alice.replica.save()

    asyncio.run(main())


def test_frames_behind_which_a_sum_of_them_came_are_dropped() -> None:
    """A replica has some frames, and gets a sum that begins with these: what it has of them twice counts once."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
        ):
            alice.node("n/1")["stays"] = 1
            alice.text("t").insert(0, "stays")
            for part in range(2):
                for number in range(100):
                    alice.node("n/1")["k"] = bytes(500) + bytes((part, number))
                    await alice.commit()
                if part == 0:
                    await told(alice, ALICE, bob)
                    alice.node("n/1")["k"] = 0
                    await alice.commit()
                    await alice.upkeep.prune()
                    await bob.receive(await alice.frames.read(ALICE.id.key, 1, 1 << 30))
                    kinds = {
                        type(envelopes.decode("", one))
                        for one in await bob.frames.read(ALICE.id.key, 1, 1 << 30)
                    }
                    assert kinds == {Envelope, Summary}
            for _ in range(2):
                async with served(alice, "alice") as client:
                    await bob.sync(client)
            assert (await bob.upkeep.prune()).frames > 100
            assert bob.replica.save() == alice.replica.save()
            await check(bob)

    asyncio.run(main())


def test_what_others_overwrote_is_in_a_sum_for_those_who_have_not_heard_of_it() -> None:
    """Its author has seen what overwrote it, and this replica hasn't yet."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=BOB) as bob,
            await Graph.open("memory:", identity=CAROL) as carol,
        ):
            await positions(alice, 100)
            await told(alice, ALICE, bob)
            await told(alice, ALICE, carol)
            carol.node("thing/0").update(x="hers", y="hers")
            await told(carol, CAROL, alice)
            await alice.upkeep.prune()
            parts = await alice.frames.read(ALICE.id.key, 1, 1 << 40)
            bob.passed.put_summary(ALICE.id.key, 100, parts)
            shown = bob.everything("thing/0")
            assert (await bob.upkeep.prune()).frames == 99
            assert bob.everything("thing/0") == shown != alice.everything("thing/0")
            await check(bob)
            await told(carol, CAROL, bob)
            assert bob.replica.save() == alice.replica.save()
            await check(bob)

    asyncio.run(main())


async def edited(graph: Graph) -> None:
    """A text, and a list of two elements, one of them assigned, before frames that don't count."""
    graph.text("t").insert(0, "hers and his" * 50)
    graph.list("l").extend(["first", "second"])
    graph.list("l")[0] = "assigned"
    await positions(graph, 50)


def edits_of(graph: Graph) -> tuple[object, ...]:
    return str(graph.text("t")), list(graph.list("l"))


@pytest.mark.parametrize("is_banned", [False, True], ids=["unheard", "banned"])
@pytest.mark.parametrize("what", ["character", "element", "value"])
def test_what_others_deleted_in_a_text_or_a_list_and_stands_here_is_in_a_sum(
    what: str, is_banned: bool, tmp_path: Path
) -> None:
    """Whoever deleted it is banned here, or the deletion hasn't come."""

    async def main() -> None:
        path = str(tmp_path / "bob.db")
        async with (
            await Graph.open("memory:", identity=ALICE, name="g") as alice,
            await Graph.open("memory:", identity=CAROL, name="g") as carol,
        ):
            await edited(alice)
            await told(alice, ALICE, carol)
            match what:
                case "character":
                    carol.text("t").delete(100, 300)
                case "element":
                    carol.list("l").pop(1)
                case "value":
                    carol.list("l")[0] = "hers"
            await told(carol, CAROL, alice)
            async with await Graph.open(path, identity=BOB, name="g") as bob:
                await told(alice, ALICE, bob)
                shown = edits_of(bob)
                if is_banned:
                    await told(carol, CAROL, bob)
                    await bob.admission.ban(CAROL.id)
                assert edits_of(bob) == shown != edits_of(alice)
                await alice.upkeep.prune()
                last = alice.frames.last_of(ALICE.id.key)
                bob.passed.put_summary(ALICE.id.key, last, await alice.frames.read(ALICE.id.key, 1, last))
                assert (await bob.upkeep.prune()).frames > 40
                await check(bob)
            async with await Graph.open(path, identity=BOB, name="g") as bob:
                assert edits_of(bob) == shown
                await (bob.admission.unban(CAROL.id) if is_banned else told(carol, CAROL, bob))
                assert edits_of(bob) == edits_of(alice)
                await check(bob)

    asyncio.run(main())


@pytest.mark.parametrize("is_compacted", [False, True], ids=["whole", "compacted"])
def test_text_that_nobody_deleted_and_a_sum_lacks_keeps_the_frames(is_compacted: bool) -> None:
    """The author says that its characters were deleted, and they are there."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE, name="g") as alice,
            await Graph.open("memory:", identity=BOB, name="g") as bob,
        ):
            alice.text("t").insert(0, "a sentence, and more")
            await positions(alice, 50)
            await told(alice, ALICE, bob)
            alice.text("t").delete(10, 10)
            await told(alice, ALICE, bob)
            await alice.upkeep.compact()
            if is_compacted:
                await told(alice, ALICE, bob)
                await bob.upkeep.compact()
            last = bob.frames.last_of(ALICE.id.key)
            stored = [envelopes.decode("g", one) for one in await bob.frames.read(ALICE.id.key, 1, last)]
            deleting = Replica(ALICE.id.key, clock=Clock(lambda: 1.8e9))
            for one in stored:
                deleting.merge(ALICE.id.key, one.body)
            deleting.text("t").delete(0, 10)
            alone = alone_of(*stored)
            for frame in deleting.commit():
                alone.add_frame(frame.body)
            clocks = 0, last_clock(deleting.core, stored[-1])
            body = sum_up(alone, *stored)
            said = envelopes.sum_up(ALICE, stored[0], stored[-1], clocks, bytes(16), body)
            bob.passed.put_summary(ALICE.id.key, last, [said.encode()])
            assert (await bob.upkeep.prune()).frames == 0
            assert str(bob.text("t")) == "a sentence"

    asyncio.run(main())


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """What was summed up is there at the next start, whatever the clock says then; and nothing is summed up ahead."""

    async def main() -> None:
        path, wall = str(tmp_path / "a.db"), [1_700_000_000.0]
        async with await Graph.open(path, identity=ALICE, clock=Clock(lambda: wall[0])) as alice:
            await positions(alice, 50)
            assert (await alice.upkeep.prune()).frames == 49
            state = alice.replica.save()
        wall[0] -= 86_400
        async with await Graph.open(path, identity=ALICE, clock=Clock(lambda: wall[0])) as alice:
            assert alice.replica.save() == state == replayed(alice)
            await positions(alice, 50, 50)
            assert (await alice.upkeep.prune()).frames == 0
            wall[0] += 90_000
            assert (await alice.upkeep.prune()).frames == 50
            await check(alice)

    asyncio.run(main())


def test_an_edit_beside_what_nobody_can_make_does_not_keep_others_from_being_pruned() -> None:
    """A text ends before the operation that it names. By one such edit nothing was pruned any more, of anybody,
    wherever its author's frames were."""

    async def main() -> None:
        last = (1 << 31) - 2
        edit = bytearray(b"\xd1\2\x20" + ALICE.id.key + b"\x20" + BOB.id.key + b"\1\0\x90\1")
        put_varint(edit, last)
        async with (
            await Graph.open("memory:", identity=ALICE, name="g") as alice,
            await Graph.open("memory:", identity=BOB, name="g") as bob,
            await Graph.open("memory:", identity=CAROL, name="g") as carol,
        ):
            alice.replica.write_op(core.TEXT_EDIT, "n", "t", value=values.encode(bytes(edit) + b"\3\0\1x"))
            for one in (alice, carol):
                await positions(one, 50)
                await told(one, one.identity, bob)
                await one.upkeep.prune()
                upto = one.frames.last_of(one.identity.id.key)
                parts = await one.frames.read(one.identity.id.key, 1, upto)
                bob.passed.put_summary(one.identity.id.key, upto, parts)
            assert (await bob.upkeep.prune()).frames == 98
            await check(bob)

    asyncio.run(main())


def test_no_sum_comes_in_the_place_of_frames_before_it_is_due() -> None:
    """Stored sums are taken whatever the clock says: once a replica had been built again, its own clock was ahead, as
    far as somebody else had dated the last frame."""
    wall = [1_700_000_000.0]

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE, clock=Clock(lambda: wall[0])) as alice,
            await Graph.open("memory:", identity=BOB, clock=Clock(lambda: wall[0])) as bob,
        ):
            await churn(alice, 40)
            wall[0] += 366 * 86_400
            await churn(alice, 2)
            parts = [one async for some in summaries.own(alice, 1, 42) for one in some]
            wall[0] -= 366 * 86_400
            await bob.receive(await alice.frames.read(ALICE.id.key, 1, 42))
            bob.passed.put_summary(ALICE.id.key, 42, parts)
            assert await bob.upkeep.prune() == (0, 0)
            await check(bob)
            wall[0] += 366 * 86_400
            assert list(bob.replica.take_due())
            assert (await bob.upkeep.prune()).frames == 41
            await check(bob)

    asyncio.run(main())
