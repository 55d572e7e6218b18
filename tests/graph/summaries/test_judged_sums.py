"""Ops that somebody has to let in are summed up as they are: the sum gives what the frames give, also when what was
let in turns void later."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest
from graph_fixtures import ALICE, BOB, CAROL, identity, told
from replaying import alone_of, sum_up

from dtp.core.crdt import GraphCore
from dtp.crdt import Kind, Replica, values
from dtp.crdt.ops import ops_of
from dtp.graph import Envelope, Graph, OffenceProof, Rule, Rules, Schema, Summary
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames import summaries
from dtp.graph.frames.proving import are_contradictory
from dtp.graph.stores import loading
from dtp.identity import Account, Device

KEY, RECOVERY, DAVE = identity("key"), identity("recovery"), identity("dave")
ACCOUNT = Account.create(KEY, RECOVERY.id, [Device(ALICE.id.key, "laptop"), Device(BOB.id.key, "phone")])
THINGS = Rules(
    "thing",
    [
        Rule(path="votes", key="{author}", once="key"),
        Rule(path="few", key="*", rate=(3, 5.0)),
        Rule(path="*", key="*", value=Schema(type="int", min=0)),
        Rule(path="*", key="*", space="set", removes="own"),
        Rule(path="*", key="*", space="values", removes="any"),
        Rule(path="*", key="*", space="counter"),
        Rule(path="*", key="*", space="text"),
        Rule(path="*", key="*", space="list"),
    ],
)
KINDS = ["rules", "account", "granted", "granted to an account"]


async def shared(kind: str, alice: Graph, bob: Graph) -> str:
    """A soul that Bob may write because Alice, rules or a card let him."""
    if kind == "rules":
        bob.access.allow(THINGS)
        return THINGS.soul("board")
    if kind == "granted":
        alice.access.grant(BOB.id, "board")
        await told(alice, ALICE, bob)
        return alice.own("board")
    for graph in (alice, bob):
        graph.accounts.join(ACCOUNT.card)
    if kind == "account":
        return alice.accounts.own("board")
    alice.access.grant(ACCOUNT.card.name, "board")
    await told(alice, ALICE, bob)
    return alice.own("board")


def edit(graph: Graph, soul: str, turn: int) -> None:
    """One of everything, over what was there."""
    graph.node(soul)["k"] = turn
    graph.node("free")["k"] = turn
    match turn % 6:
        case 0:
            graph.set(soul, "s").add(turn % 4)
        case 1:
            graph.set(soul, "s").discard((turn - 1) % 4)
        case 2:
            graph.map(soul)["m"] = turn
            graph.counter(soul, "c").add(turn)
        case 3:
            graph.text(soul, "t").insert(0, f"typed {turn} ")
        case 4:
            graph.text(soul, "t").delete(0, 3)
        case 5:
            graph.list(soul, "l").append(turn)
            graph.list(soul, "l").move(len(graph.list(soul, "l")) - 1, 0)


async def summed(graph: Graph, last: int) -> list[bytes]:
    """What stands for the first frames that the graph's identity made."""
    return [one async for some in summaries.own(graph, 1, last) for one in some]


def replayed(graph: Graph) -> bytes:
    fresh = graph.replica.empty_copy()
    loading.merge_all_stored(graph.frames.store, fresh)
    while fresh.must_rebuild:
        again = fresh.empty_copy()
        loading.merge_all_stored(graph.frames.store, again)
        fresh = again
    return fresh.save()


class People(NamedTuple):
    alice: Graph
    bob: Graph
    #: Has Bob's frames, a sum of them, some frames and then a sum.
    frames: Graph
    sums: Graph
    both: Graph

    @property
    def readers(self) -> tuple[Graph, ...]:
        return self.frames, self.sums, self.both


async def opened(stack: AsyncExitStack) -> People:
    who = (ALICE, BOB, CAROL, DAVE, identity("erin"))
    return People(
        *[await stack.enter_async_context(await Graph.open("memory:", identity=one, name="g")) for one in who]
    )


async def edited(people: People, kind: str, turns: int = 48) -> tuple[str, list[bytes]]:
    """Bob edits; give the soul and the frames."""
    alice, bob, *_ = people
    soul = await shared(kind, alice, bob)
    await bob.commit()
    for turn in range(turns):
        edit(bob, soul, turn)
        await bob.commit()
        if turn == turns // 2:
            await told(bob, BOB, alice)
    for reader in people.readers:
        await told(alice, ALICE, reader)
    return soul, await bob.frames.read(BOB.id.key, 1, 1 << 40)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_gives_what_the_frames_give(kind: str) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            people = await opened(stack)
            soul, frames = await edited(people, kind)
            sums = await summed(people.bob, len(frames))
            assert sum(map(len, sums)) < sum(map(len, frames)) / 2
            assert len(sums) == 1
            await people.frames.receive(frames)
            await people.sums.receive(sums)
            await people.both.receive(frames[:20])
            await people.both.receive(sums)
            assert people.sums.node(soul)["k"] == 47
            states = {one.replica.save() for one in people.readers}
            assert len(states) == 1
            for one in people.readers:
                assert replayed(one) == one.replica.save()
                versions = [
                    v.op.value for v in await one.history.versions(soul, "k") if v.op.space == "register"
                ]
                assert versions == list(range(48))  # each once
            before = await people.bob.frames.stored_bytes(BOB.id.key, 1, len(frames))
            assert (await people.bob.upkeep.prune()).frames == len(frames) - 1
            assert await people.bob.frames.stored_bytes(BOB.id.key, 1, len(frames)) < before / 2
            assert replayed(people.bob) == people.bob.replica.save()

    asyncio.run(main())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_turns_void_later_turns_void_in_a_sum(kind: str) -> None:
    """Who let Bob in had seen half of it: what stood then is there again, though it had been overwritten."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            people = await opened(stack)
            soul, frames = await edited(people, kind)
            await people.frames.receive(frames)
            await people.sums.receive(await summed(people.bob, len(frames)))
            await people.both.receive(frames[:30])
            await people.bob.upkeep.prune()
            await people.both.receive(await people.bob.frames.read(BOB.id.key, 1, len(frames)))
            if kind == "account":
                people.alice.accounts.revoke(ACCOUNT, BOB.id)
            else:
                people.alice.access.revoke(people.alice.access.grants()[0])
            for reader in people.readers:
                await told(people.alice, ALICE, reader)
                assert reader.node(soul)["k"] == 24
                assert reader.node("free")["k"] == 47
            assert len({one.replica.save() for one in people.readers}) == 1
            assert people.alice.node(soul)["k"] == 24

    asyncio.run(main())


def test_once_and_rates_count_over_a_sum() -> None:
    """A vote that was let in, and those of a rate, are in it, so that the next ones are judged by them."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            people = await opened(stack)
            bob = people.bob
            bob.access.allow(THINGS)
            votes, few = THINGS.soul("votes"), THINGS.soul("few")
            bob.node(votes)[str(BOB.id)] = 1
            for turn in range(3):
                bob.node(few)["k"] = turn
                bob.node("free")["k"] = "x" * 3000
                await bob.commit()
            frames = await bob.frames.read(BOB.id.key, 1, 9)
            sums = await summed(bob, len(frames))
            assert len(sums) == 1
            liar = Replica.load(BOB.id.key, bob.replica.save()).core
            forged = forge(liar, [(votes, str(BOB.id), 2), (few, "k", 9)], bob.replica.clock.wall_clock())
            end = envelopes.decode("g", frames[-1])
            more = envelopes.sign_frame(BOB, "g", len(frames) + 1, end.hash, forged).encode()
            for reader, data in zip(people.readers, (frames, sums, [*frames[:2], *sums]), strict=True):
                await reader.receive(data)
                await reader.receive([more])
                assert reader.node(votes)[str(BOB.id)] == 1
                assert reader.node(few)["k"] == 2
                (proof,) = await reader.access.offences()
                assert proof.is_valid()
                assert OffenceProof.decode("g", proof.encode()) == proof
            assert len({one.replica.save() for one in people.readers}) == 1

    asyncio.run(main())


def forge(maker: GraphCore, rows: list[tuple[str, str, Any]], now: int) -> bytes:
    """A frame that says so, whatever rules say."""
    with maker.trust_own():
        maker.put_registers(values.encode_rows(rows), now)
    made = maker.commit()
    assert made is not None
    return made[0]


def test_an_offence_in_a_sum_is_proved() -> None:
    async def main() -> None:
        votes = THINGS.soul("votes")
        ships = (votes.partition("/")[0], "rules", THINGS.document)
        maker = GraphCore(BOB.id.key)
        first = forge(maker, [ships, (votes, str(BOB.id), 1)], 1 << 30)
        async with (
            await Graph.open("memory:", identity=CAROL, name="g") as carol,
            await Graph.open("memory:", identity=DAVE, name="g") as dave,
        ):
            one = envelopes.sign_frame(BOB, "g", 1, bytes(32), first)
            again = forge(maker, [(votes, str(BOB.id), 2)], 2 << 30)
            second = envelopes.sign_frame(BOB, "g", 2, one.hash, again)
            await carol.receive([one.encode(), second.encode()])
            clocks = 0, carol.replica.core.check_frame(second.body)[1]
            body = sum_up(alone_of(one, second), one, second)
            both = envelopes.sum_up(BOB, one, second, clocks, bytes(16), body)
            await dave.receive([both.encode()])
            assert carol.replica.save() == dave.replica.save()
            for graph, frames in ((carol, 2), (dave, 1)):
                (proof,) = await graph.access.offences()
                assert len(proof.frames) == frames
                assert proof.is_valid()
                assert OffenceProof.decode("g", proof.encode()) == proof
                assert graph.node(votes)[str(BOB.id)] == 1
            changed = dataclasses.replace(proof, frames=(dataclasses.replace(both, body=first),))
            assert not changed.is_valid()

    asyncio.run(main())


Lie = Callable[[Graph, list[Envelope], str], bytes]


def without(wanted: Callable[[Any], bool]) -> Lie:
    """A sum of the frames but of those with such an op."""

    def lie(graph: Graph, frames: list[Envelope], soul: str) -> bytes:
        left = [
            frame
            for frame in frames
            if not any(
                op.soul == soul and wanted(op) for op in ops_of(graph.replica.core, BOB.id.key, frame.body)
            )
        ]
        return sum_up(alone_of(*frames), *left)

    return lie


def joined(graph: Graph, frames: list[Envelope], soul: str) -> bytes:
    """A sum whose edits of the text are told by one, as may be where nobody has to let them in."""
    summary = alone_of(*frames).begin_summary(0)
    edits = []
    for frame in frames:
        assert summary.add_frame(frame.body)
        ops = ops_of(graph.replica.core, BOB.id.key, frame.body)
        edits += [(op.clock, op.value) for op in ops if op.kind is Kind.TEXT_EDIT]
    for clock, _ in edits[:-1]:
        summary.add_edit(clock, b"")
    summary.add_edit(edits[-1][0], values.encode(b"".join(one for _, one in edits)))
    return summary.finish_frame()


LIES: dict[str, Lie] = {
    "an overwritten register": without(lambda op: op.kind is Kind.REGISTER_PUT and op.value == 5),
    "a removed element": without(lambda op: op.kind is Kind.SET_ADD and op.value == 2),
    "a removal": without(lambda op: op.kind is Kind.SET_REMOVE),
    "an edit": without(lambda op: op.kind is Kind.TEXT_EDIT),
    "edits joined": joined,
    "another value": lambda graph, frames, soul: LIES["nothing"](graph, frames, soul).replace(
        b"typed", b"said "
    ),
    "nothing": without(lambda op: False),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_without_one_of_them_is_a_proof(kind: str, lie: str) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            people = await opened(stack)
            soul, data = await edited(people, kind, 18)
            frames = [
                one for one in (envelopes.decode("g", one) for one in data) if isinstance(one, Envelope)
            ]
            clocks = 0, people.bob.replica.core.check_frame(frames[-1].body)[1]

            def signed(body: bytes) -> Summary:
                one = envelopes.sum_up(BOB, frames[0], frames[-1], clocks, bytes(16), body)
                assert isinstance(one, Summary)
                return one

            honest, said = (
                signed(LIES["nothing"](people.bob, frames, soul)),
                signed(LIES[lie](people.bob, frames, soul)),
            )
            assert not any(
                are_contradictory(honest, frame) or are_contradictory(frame, honest) for frame in frames
            )
            if lie == "nothing":
                assert honest == said
                return
            assert honest.body != said.body
            assert any(are_contradictory(said, frame) for frame in frames)
            assert are_contradictory(said, honest) or lie == "edits joined"
            assert are_contradictory(honest, said) == are_contradictory(said, honest)

    asyncio.run(main())
