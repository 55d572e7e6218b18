"""Authors who sum up their frames falsely: whoever has both sides keeps a proof, and no honest one is accused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from graph_fixtures import ALICE, BOB, CAROL, run
from replaying import alone_of, sum_up

from dtp.core.crdt import CLOCK_END
from dtp.crdt import Clock
from dtp.graph import Envelope, Equivocation, Graph, Proof, Rule, Rules, Schema, Summary
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.proving import are_contradictory
from dtp.graph.stores.store import MemoryStore

VOTE = Rules("vote", [Rule(path="*", key="{author}", value=Schema(one_of=("yes", "no")), once="soul")])


def plain(graph: Graph) -> None:
    """What Alice made: three frames, with all that a lie can be about."""
    graph.node("a")["k"] = "true"
    graph.set("s").add("mine")


def edited(graph: Graph) -> None:
    graph.text("t").insert(0, "said")


def removed(graph: Graph) -> None:
    graph.set("s").discard("bob's")


def removed_another(graph: Graph) -> None:
    graph.set("s").discard("bob's too")


def renamed(graph: Graph) -> None:
    graph.node("a")["other"] = "true"
    graph.set("s").add("mine")


def revalued(graph: Graph) -> None:
    graph.node("a")["k"] = "false"
    graph.set("s").add("mine")


def nothing(graph: Graph) -> None:
    """Not even a frame."""


def quiet(graph: Graph) -> None:
    """A frame of which nothing is left."""
    graph.node("z")["k"] = "first"


def end(graph: Graph) -> None:
    graph.node("z")["k"] = "last"


def voted(graph: Graph) -> None:
    graph.access.allow(VOTE)
    graph.node(VOTE.soul("lunch"))[str(ALICE.id)] = "yes"


Turn = Callable[[Graph], None]


async def made(*turns: Turn) -> tuple[list[bytes], bytes, bytes]:
    """Alice's frames, Bob's, which she has seen, and what still counts of hers, not signed.

    By a clock that goes as told, so that whoever says something else says it at the same time.
    """
    now = [1000.0]
    async with (
        await Graph.open("memory:", identity=BOB, clock=Clock(lambda: 999.0)) as bob,
        await Graph.open("memory:", identity=ALICE, clock=Clock(lambda: now[0])) as alice,
    ):
        bob.set("s").add("bob's")
        bob.set("s").add("bob's too")
        await bob.commit()
        (first,) = await bob.frames.read(BOB.id.key, 1, 1)
        await alice.receive([first])
        for turn in (plain, *turns, end):
            now[0] += 1
            turn(alice)
            await alice.commit()
        frames = await alice.frames.read(ALICE.id.key, 1, 9)
        signed = [opened(one) for one in frames]
        return frames, first, sum_up(alone_of(*signed), *signed)


def opened(data: bytes) -> Envelope:
    one = envelopes.decode("", data)
    assert isinstance(one, Envelope)
    return one


async def summed(frames: list[bytes], body: bytes) -> bytes:
    """A summary of these frames, signed by Alice, that says that."""
    first, last = opened(frames[0]), opened(frames[-1])
    async with await Graph.open("memory:", identity=ALICE) as graph:
        clocks = graph.replica.core.check_frame(first.body)[0], graph.replica.core.check_frame(last.body)[1]
    return envelopes.sum_up(ALICE, first, last, clocks, bytes(16), body).encode()


LIES: dict[str, tuple[Turn, Turn]] = {
    "hides an edit of a text": (edited, nothing),
    "makes up an edit of a text": (quiet, edited),
    "hides the removal of what another added": (removed, nothing),
    "the removal of something else": (removed, removed_another),
    "makes up an op where there is none": (nothing, renamed),
    "another value": (revalued, plain),
    "another name": (renamed, plain),
    "hides what rules decide about": (voted, nothing),
}


async def lie(name: str) -> tuple[list[bytes], bytes, bytes]:
    """Alice's frames, Bob's, and her lie about her own."""
    truth, instead = LIES[name]
    frames, bob, _ = await made(truth)
    _, _, body = await made(instead)
    return frames, bob, await summed(frames, body)


async def caught(graph: Graph, data: list[bytes]) -> Proof:
    with pytest.raises(Equivocation) as raised:
        await graph.receive(data)
    proof = raised.value.proof
    assert proof.is_valid()
    assert proof.author == ALICE.id.key
    return proof


@pytest.mark.parametrize("name", LIES)
def test_frames_behind_a_summary_that_lies_about_them(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / "carol.db")

    async def main() -> None:
        frames, bob, false = await lie(name)
        async with await Graph.open(path, identity=CAROL) as carol:
            assert await carol.receive([bob, false]) == 2
            state = carol.replica.save()
            proof = await caught(carol, frames)
            assert {type(proof.first), type(proof.second)} == {Envelope, Summary}
            assert carol.replica.save() == state  # what came first is kept
        async with await Graph.open(path, identity=CAROL) as carol:
            (kept,) = await carol.frames.proofs()
            assert kept.is_valid()

    run(main())


@pytest.mark.parametrize("name", [name for name, (truth, _) in LIES.items() if truth is not nothing])
def test_a_summary_that_lies_about_frames_that_are_here(name: str) -> None:
    async def main() -> None:
        frames, bob, false = await lie(name)
        async with await Graph.open("memory:", identity=CAROL) as carol:
            await carol.receive([bob, *frames[:-1]])
            await caught(carol, [false])  # although it goes on behind what is here
            assert carol.frames.vector()[ALICE.id.key] == len(frames) - 1
            assert await carol.receive(frames) == 1

    run(main())


@pytest.mark.parametrize("name", LIES)
def test_who_keeps_the_history_keeps_the_frames_and_the_proof(name: str) -> None:
    async def main() -> None:
        frames, bob, false = await lie(name)
        async with await Graph.open("memory:", identity=CAROL, history=True) as carol:
            assert await carol.receive([bob, false]) == 1
            assert await carol.receive(frames) == len(frames)
            (proof,) = await carol.frames.proofs()
            assert proof.is_valid()
            assert carol.frames.gaps() == []

    run(main())


def test_two_summaries_of_which_one_lies() -> None:
    async def main() -> None:
        frames, bob, body = await made(edited)
        _, _, other = await made(nothing)
        true, false = await summed(frames, body), await summed(frames, other)
        for first, second in ((true, false), (false, true)):
            async with await Graph.open("memory:", identity=CAROL) as carol:
                assert await carol.receive([bob, first]) == 2
                proof = await caught(carol, [second])
                assert {type(proof.first), type(proof.second)} == {Summary}

    run(main())


def test_what_may_be_left_out_is_no_lie() -> None:
    """What an author takes back without saying by what: two pieces don't tell all that it made in between."""

    async def main() -> None:
        frames, bob, _ = await made(revalued)
        async with await Graph.open("memory:", identity=CAROL) as carol:
            assert await carol.receive([bob, await summed(frames, b"")]) == 2
            assert await carol.receive(frames) == 0
            assert await carol.frames.proofs() == []

    run(main())


def test_a_summary_that_names_own_dots_which_it_is_about() -> None:
    """What it doesn't have is gone: naming it is another removal, of something that stands, say."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await Graph.open("memory:", identity=CAROL) as carol,
        ):
            alice.set("s").add("x")
            alice.set("s").discard("x")
            await alice.commit()
            frames = await alice.frames.read(ALICE.id.key, 1, 1)
            body = opened(frames[0]).body
            assert await carol.receive([await summed(frames, body)]) == 1
            await caught(carol, frames)

    run(main())


class Noting(MemoryStore):
    """A store that notes which frames it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def find_covering(self, author: bytes, sequence: int) -> bytes | None:
        self.asked.append(sequence)
        return super().find_covering(author, sequence)


def test_what_agreed_is_not_read_again() -> None:
    async def main() -> None:
        frames, bob, body = await made(edited)
        true, store = await summed(frames, body), Noting()
        async with await Graph.open(store, identity=CAROL) as carol:
            await carol.receive([bob, *frames])
        async with await Graph.open(store, identity=CAROL) as carol:  # which has nothing of it at hand
            store.asked.clear()
            assert await carol.receive([true]) == 0
            assert store.asked[-3:] == [1, 2, 3]
            store.asked.clear()
            assert await carol.receive([true, true]) == 0
            assert store.asked == []

    run(main())


def test_a_summary_over_other_clocks() -> None:
    async def main() -> None:
        frames, _, _ = await made(revalued)
        first, last = opened(frames[0]), opened(frames[-1])
        async with await Graph.open("memory:", identity=CAROL) as carol:
            final = carol.replica.core.check_frame(last.body)[1]
            ahead = envelopes.sum_up(ALICE, first, last, (0, final + 1), bytes(16), b"")
            assert await carol.receive([ahead.encode()]) == 1
            await caught(carol, frames[-1:])
            middle = opened(frames[1])
            before = envelopes.sum_up(ALICE, first, middle, (0, final), bytes(16), b"")
            assert Proof(before, last).is_valid()
            until = carol.replica.core.check_frame(middle.body)[1]
            assert not Proof(
                envelopes.sum_up(ALICE, first, middle, (0, until), bytes(16), b""), last
            ).is_valid()

    run(main())


def test_a_proof_of_what_can_not_be_read_is_none() -> None:
    async def main() -> None:
        frames, _, _ = await made(revalued)
        first, last = opened(frames[0]), opened(frames[-1])
        false = envelopes.sum_up(ALICE, first, last, (0, 9), bytes(16), b"\x00")
        assert not Proof(false, opened(frames[1])).is_valid()
        async with await Graph.open("memory:", identity=CAROL, history=True) as carol:
            assert await carol.receive([false.encode()]) == 0  # it blames no frame
            assert await carol.receive(frames) == len(frames)
            assert await carol.frames.proofs() == []

    run(main())


def test_edits_that_are_told_otherwise_by_a_summary() -> None:
    """One edit may tell of many, and what was deleted without its text; not with other text, and not less."""

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE, name="g") as alice:
            for number in range(60):
                alice.text("t").append("this stays. ")
                alice.text("t").insert(0, "this goes. ")
                alice.text("t").delete(0, 11)
                alice.list("l").append(["kept", number])
                await alice.commit()
            frames = [envelopes.decode("g", one) for one in await alice.frames.read(ALICE.id.key, 1, 60)]
            await alice.upkeep.prune()
            (stored,) = await alice.frames.read(ALICE.id.key, 1, 60)
        honest = envelopes.decode("g", stored)
        assert isinstance(honest, Summary)
        assert honest.body.count(b"this stays") == 60
        assert b"this goes" not in honest.body
        assert not any(are_contradictory(honest, frame) for frame in frames)

        def told(body: bytes) -> Summary:
            clocks = honest.after, honest.last
            return envelopes.sum_up(ALICE, honest, honest, clocks, honest.seen, body)

        assert not are_contradictory(told(honest.body), frames[0])
        other_text = told(honest.body.replace(b"this stays", b"nobody saw", 1))
        assert Proof(other_text, frames[0]).is_valid()
        assert not are_contradictory(other_text, frames[1])  # which says nothing of it
        assert Proof(honest, other_text).is_valid()
        other_value = told(honest.body.replace(b"kept", b"lost"))
        assert all(Proof(other_value, frame).is_valid() for frame in frames)

        some = frames[:30]
        lacking = sum_up(alone_of(*some), *some[:29])
        first, last = some[0], some[29]
        less = envelopes.sum_up(ALICE, first, last, (0, CLOCK_END - 1), honest.seen, lacking)
        assert are_contradictory(less, last)

    run(main())
