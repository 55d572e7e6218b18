"""Whatever needs verdicts that others send, the loop has its turns: a full frame takes seconds to judge."""

from __future__ import annotations

import asyncio

import pytest
from counting import counting_lines, lines_of_longest_turn
from graph_fixtures import ALICE, BOB, identity, run, told

from dtp.crdt import Clock, Link
from dtp.graph import Grant, Graph, Rule, RuleBroken, Rules, Schema
from dtp.graph.frames import summaries
from dtp.identity import Account, Device

OPS = 6_000
#: Lines of this package in one turn of the loop. An op takes 30 to judge, and all of these 180,000.
MOST = 30_000
#: An account of Alice's.
ACCOUNT = Account.create(identity("account"), identity("recovery").id, [Device(ALICE.id.key, "laptop")])
VOTES = Rules("vote", [Rule(path="*")])


async def voted(bob: Graph, ops: int, frames: int = 1) -> list[bytes]:
    """Return frames of Bob's with so many ops under rules."""
    bob.access.allow(VOTES)
    for frame in range(frames):
        each = ops // frames
        bob.put_many([(VOTES.soul(f"{frame}.{number}"), "k", True) for number in range(each)])
        bob.sign()
    await bob.commit()
    return await bob.frames.read(BOB.id.key, 1, frames)


LONG = {
    "ints": ([7] * 100_000, Schema(items=Schema(type="int", min=0, max=9))),
    "lists": ([[[7] * 3] * 25_000], Schema(items=Schema(items=Schema(items=Schema(type="int"))))),
    "maps": (
        [{"a": 7}] * 25_000,
        Schema(items=Schema(fields={"a": Schema(min=0), "b": Schema()}, optional=frozenset({"b"}))),
    ),
    "links": ([Link("a")] * 25_000, Schema(items=Schema(type="link", prefix="a"))),
}


@pytest.mark.parametrize("space", ["register", "list"])
@pytest.mark.parametrize("what", LONG)
def test_a_long_value(what: str, space: str) -> None:
    """One op is judged in a thread, as up to a million values may be in it."""
    value, schema = LONG[what]
    rules = Rules("note", [Rule(path="*", space=space, value=schema)])

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        bob.access.allow(rules)
        soul = rules.soul("a")
        if space == "list":
            bob.list(soul).append(value)
        else:
            bob.node(soul)["k"] = value
        await bob.commit()
        sent = await bob.frames.read(BOB.id.key, 1, 1)
        assert await lines_of_longest_turn(alice.receive(sent)) < 2_000
        assert alice.replica.save() == bob.replica.save()
        for graph in alice, bob:
            await graph.close()

    run(main())


@pytest.mark.parametrize("frames", [1, 100])
def test_frames_that_come(frames: int) -> None:
    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        sent = await voted(bob, OPS, frames)
        assert len(sent) == frames
        assert await lines_of_longest_turn(alice.receive(sent)) < MOST
        assert alice.replica.save() == bob.replica.save()
        for graph in alice, bob:
            await graph.close()

    run(main())


@pytest.mark.parametrize("frames", [1, 100])
def test_frames_that_are_committed(frames: int) -> None:
    """What is made here is judged when it is made, and when it is signed, by the clocks that it got."""

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        bob.access.allow(VOTES)
        for frame in range(frames):
            each = range(OPS // frames)
            bob.put_many([(VOTES.soul(f"{frame}.{number}"), "k", True) for number in each])
            bob.sign()
        assert await lines_of_longest_turn(bob.commit()) < MOST
        await alice.receive(await bob.frames.read(BOB.id.key, 1, frames))
        assert alice.replica.save() == bob.replica.save()
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_what_is_signed_counts_at_once() -> None:
    async def main() -> None:
        once = Rules("vote", [Rule(path="*", once="soul")])
        async with await Graph.open("memory:", identity=BOB) as bob:
            bob.access.allow(once)
            bob.node(once.soul("a"))["k"] = True
            bob.sign()
            with pytest.raises(RuleBroken):
                bob.node(once.soul("a"))["k"] = False
            bob.node(once.soul("b"))["k"] = True
            bob.sign()
            assert bob.replica.access.author_state(BOB.id.key).once.keys() >= {
                (once.root, 0, once.soul(path), "") for path in ("a", "b")
            }

    run(main())


def test_a_sum_that_comes() -> None:
    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        for text in "a", "b":
            bob.put_many([(f"n{number}", "k", text * 500) for number in range(1_000)])  # what a sum saves
            await bob.commit()
        await voted(bob, OPS, 2)
        (first,) = await bob.frames.read(BOB.id.key, 3, 3)
        (summed,) = [one async for some in summaries.own(bob, 1, 4) for one in some]
        await alice.receive([*await bob.frames.read(BOB.id.key, 1, 2), first])  # these aren't judged again
        assert await lines_of_longest_turn(alice.receive([summed])) < MOST
        assert alice.replica.save() == bob.replica.save()
        for graph in alice, bob:
            await graph.close()

    run(main())


@pytest.mark.parametrize("frames", [1, 60])
def test_frames_that_are_due(frames: int) -> None:
    seconds = [1_700_000_000.0]

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB, clock=Clock(lambda: seconds[0] + 60.1))
        alice = await Graph.open("memory:", identity=ALICE, clock=Clock(lambda: seconds[0]))
        sent = await voted(bob, OPS, frames)
        await alice.receive(sent)
        assert alice.waiting_frames(BOB.id.key) == frames

        due = asyncio.Event()
        alice.listen(due.set)
        seconds[0] += 1
        assert await lines_of_longest_turn(due.wait()) < MOST
        assert alice.replica.save() == bob.replica.save()
        for graph in alice, bob:
            await graph.close()

    run(main())


async def granted(alice: Graph, bob: Graph) -> tuple[Grant, list[bytes]]:
    """Return a grant of Alice's, and a frame of Bob's by it."""
    grant = alice.access.grant(BOB.id, "board")
    await told(alice, ALICE, bob)
    bob.put_many([(f"{alice.own('board')}/{number}", "k", True) for number in range(OPS)])
    await bob.commit()
    return grant, await bob.frames.read(BOB.id.key, 1, 1)


async def let_judge(lines: int) -> None:
    """Return when so many lines of what finds verdicts were gone through."""
    with counting_lines("dtp/crdt/permission") as gone:
        while True:
            if gone[0] >= lines:
                return
            await asyncio.sleep(0)


@pytest.mark.parametrize("lines", [0, 10_000, 50_000])
def test_a_grant_that_is_revoked_while_what_it_lets_in_is_judged(lines: int) -> None:
    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        grant, sent = await granted(alice, bob)
        receiving = asyncio.ensure_future(alice.receive(sent))
        await let_judge(lines)
        assert not receiving.done()
        alice.access.revoke(grant)
        alice.sign()
        assert await lines_of_longest_turn(receiving) < MOST  # it is judged again, in turns as well
        await alice.commit()
        assert len(alice.souls(alice.own("board"))) == 0
        await told(alice, ALICE, bob)
        assert alice.replica.save() == bob.replica.save()
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_a_device_that_is_put_out_while_what_it_wrote_is_judged() -> None:
    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        account = ACCOUNT.add(BOB.id, "phone")
        alice.accounts.join(account.card)
        bob.accounts.join(account.card)
        board = alice.accounts.own("board")
        bob.put_many([(f"{board}/{number}", "k", True) for number in range(OPS)])
        await bob.commit()
        receiving = asyncio.ensure_future(alice.receive(await bob.frames.read(BOB.id.key, 1, 1)))
        await let_judge(50_000)
        assert not receiving.done()
        alice.accounts.revoke(account, BOB.id)
        alice.sign()
        await receiving
        await alice.commit()
        assert len(alice.souls(board)) == 0
        await told(alice, ALICE, bob)
        assert len(bob.souls(board)) == 0
        assert alice.replica.save() == bob.replica.save()
        for graph in alice, bob:
            await graph.close()

    run(main())


@pytest.mark.parametrize("lines", [0, 10_000, 50_000])
def test_who_takes_what_is_judged_gives_up(lines: int) -> None:
    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        _, sent = await granted(alice, bob)
        before = alice.replica.save()
        receiving = asyncio.ensure_future(alice.receive(sent))
        await let_judge(lines)
        receiving.cancel()
        await asyncio.wait([receiving])
        assert receiving.cancelled()
        assert alice.replica.save() == before
        assert await alice.receive(sent) == 1
        assert alice.replica.save() == bob.replica.save()
        for graph in alice, bob:
            await graph.close()

    run(main())
