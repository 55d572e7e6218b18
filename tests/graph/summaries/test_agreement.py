"""Sums that others have to agree to: newcomers take a history that was pruned when enough of those who were named
say that it has all that stood, and refuse it by name when they don't."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
from graph_fixtures import ALICE, BOB, CAROL, churn, identity, run, told
from replaying import alone_of, sum_up

import dtp
from dtp.core.errors import NotOwner
from dtp.crdt import Clock
from dtp.crdt.permission.owners import owned_soul
from dtp.graph import Graph, GraphError, Part
from dtp.graph.frames import envelope as envelopes
from dtp.graph.frames.envelope import Envelope, Summary
from dtp.graph.permission.agreement import name_of
from dtp.graph.permission.policy import REACH, AdmissionPolicy
from dtp.identity import Identity

DAVE, ERIN = identity("dave"), identity("erin")
#: Who has to agree, in these tests.
WITNESSES = (BOB, CAROL, DAVE)


async def opened(who: Identity, place: str = "memory:", need: int = 2) -> Graph:
    """A graph of somebody who asks for the agreement of two of three."""
    graph = await Graph.open(place, identity=who)
    await graph.admission.set_agreement(need, [one.id for one in WITNESSES])
    return graph


@asynccontextmanager
async def served(graph: Graph, to: Graph) -> AsyncIterator[dtp.Connection]:
    """A connection to a graph that is served: offers are made once to each peer."""
    place = f"memory://{graph.identity.id.short}-{to.identity.id.short}-{id(to)}"
    async with (
        await dtp.listen(place, graph.serve, identity=graph.identity) as listener,
        dtp.connect(listener.address(), identity=to.identity) as client,
    ):
        yield client


async def see_all(author: Graph, others: list[Graph]) -> None:
    """The others take each frame of an author; then its sum of them, and prune."""
    for other in others:
        await told(author, author.identity, other)
        async with served(author, other) as client:
            await other.sync(client)
        await other.upkeep.prune()


async def stored(graph: Graph, who: Identity) -> list[bytes]:
    """What a graph has stored of somebody."""
    return await graph.frames.read(who.id.key, 1, 1 << 30)


def sum_of(data: list[bytes]) -> Summary:
    (one,) = (one for one in (envelopes.decode("", each) for each in data) if isinstance(one, Summary))
    return one


async def pruned(graph: Graph, rounds: int = 100) -> None:
    await churn(graph, rounds)
    await graph.upkeep.prune()


@pytest.mark.parametrize("order", ["words first", "sum first"])
def test_a_newcomer_takes_a_sum_to_which_enough_agree(order: str) -> None:
    async def main() -> None:
        async with (
            await opened(ALICE) as alice,
            await opened(BOB) as bob,
            await opened(CAROL) as carol,
            await opened(ERIN) as erin,
        ):
            await churn(alice, 100)
            await see_all(alice, [bob, carol])
            summed, agreed = await stored(bob, ALICE), [await stored(bob, BOB), await stored(carol, CAROL)]
            assert isinstance(envelopes.decode("", summed[0]), Summary)
            if order == "words first":
                assert [await erin.receive(one) for one in [*agreed, summed]] == [1, 1, 1]
            else:
                assert await erin.receive(summed) == 0
                (left,) = erin.admission.unagreed()
                assert (left.author, left.first, left.last, left.by, left.need) == (ALICE.id, 1, 100, (), 2)
                assert erin.frames.gaps() == [(ALICE.id.key, 1, 100)]
                assert await erin.receive(agreed[0]) == 1
                assert erin.admission.unagreed()[0].by == (BOB.id,)
                assert await erin.receive(agreed[1]) == 2  # and what waited for it
            assert erin.admission.unagreed() == erin.frames.gaps() == []
            assert erin.replica.save() == (await shown(alice, bob, carol))
            assert await erin.verify() == 3

    run(main())


def test_a_shorter_sum_is_taken_beside_a_longer_one_that_waits() -> None:
    async def main() -> None:
        async with (
            await opened(ALICE) as alice,
            await opened(BOB) as bob,
            await opened(CAROL) as carol,
            await opened(ERIN) as erin,
        ):
            await churn(alice, 100)
            await see_all(alice, [bob, carol])
            agreed = [await stored(bob, ALICE), await stored(bob, BOB), await stored(carol, CAROL)]
            await pruned(alice)
            offered = alice.passed.parts_of(ALICE.id.key)
            longer = sum_of(offered)
            assert await erin.receive(offered) == 0
            assert [(one.first, one.last) for one in erin.admission.unagreed()] == [(1, longer.sequence)]
            assert await erin.receive([data for one in agreed for data in one]) == 3
            assert erin.frames.chains.heads[ALICE.id.key].sequence == 100
            assert [(one.first, one.last) for one in erin.admission.unagreed()] == [(1, longer.sequence)]
            assert erin.frames.gaps() == [(ALICE.id.key, 101, longer.sequence)]

    run(main())


async def shown(*graphs: Graph) -> bytes:
    """What all that these have signed gives, by somebody who asks for no agreement."""
    async with await Graph.open("memory:", identity=identity("judge")) as judge:
        for graph in graphs:
            await judge.receive(await stored(graph, graph.identity))
        return judge.replica.save()


def test_by_connections_and_what_is_stored_stays(tmp_path: Path) -> None:
    """Who meets one that agrees lacks the author's frames, until it meets another, or somebody who has them."""
    path = str(tmp_path / "erin.db")

    async def main() -> None:
        async with (
            await opened(ALICE) as alice,
            await opened(BOB) as bob,
            await opened(CAROL) as carol,
            await opened(DAVE) as dave,
        ):
            await churn(alice, 100)
            await see_all(alice, [bob, carol])
            await told(alice, ALICE, dave)  # who has never pruned
            async with await opened(ERIN, path) as erin:
                for other, left in ((bob, 1), (carol, 0)):
                    async with served(other, erin) as client:
                        await erin.sync(client)
                    assert len(erin.admission.unagreed()) == left
                assert erin.frames.vector() == {ALICE.id.key: 100, BOB.id.key: 1, CAROL.id.key: 1}
                state = erin.replica.save()
            async with await Graph.open(path, identity=ERIN) as erin:
                assert erin.admission.agreement == alice.admission.agreement
                assert erin.replica.save() == state
            async with await opened(ERIN) as erin, served(dave, erin) as client:
                assert (await erin.sync(client)).received == 100  # each frame, which needs nobody's word
                assert erin.admission.unagreed() == []

    run(main())


def test_an_author_keeps_its_frames_until_enough_agree_to_their_sum() -> None:
    """Whom it gave the sum alone, it would tell nothing: nobody could agree who has never seen the frames."""

    async def main() -> None:
        async with await opened(ALICE) as alice, await opened(BOB) as bob, await opened(CAROL) as carol:
            await churn(alice, 100)
            assert (await alice.upkeep.prune()).frames == 0
            async with await opened(ERIN) as erin, served(alice, erin) as client:
                assert (await erin.sync(client)).received == 100
            await see_all(alice, [bob, carol])
            for witness in (bob, carol):
                assert (await alice.upkeep.prune()).frames == 0
                await told(witness, witness.identity, alice)
            await churn(alice, 10)  # of which they don't know
            assert (await alice.upkeep.prune()).frames == 99
            assert [
                one.first_sequence for one in map(partial(envelopes.decode, ""), await stored(alice, ALICE))
            ] == [
                1,
                *range(101, 111),
            ]

    run(main())


@pytest.mark.parametrize("need", [0, 1])
def test_what_waited_is_taken_when_fewer_have_to_agree(need: int) -> None:
    async def main() -> None:
        async with (
            await opened(ALICE) as alice,
            await opened(BOB) as bob,
            await opened(ERIN) as erin,
        ):
            await churn(alice, 100)
            await see_all(alice, [bob])
            await churn(alice, 3)
            await told(alice, ALICE, bob)
            async with served(bob, erin) as client:
                await erin.sync(client)
            assert [one.by for one in erin.admission.unagreed()] == [(BOB.id,)]
            await erin.admission.set_agreement(need, [BOB.id, CAROL.id])
            assert erin.admission.unagreed() == erin.frames.gaps() == []
            assert erin.replica.save() == await shown(alice, bob)

    run(main())


async def met(*graphs: Graph) -> None:
    """All sync with all, by connections."""
    for number, one in enumerate(graphs):
        for other in graphs[:number]:
            async with served(other, one) as client:
                await one.sync(client)


def test_what_was_summed_up_before_anybody_asked_is_agreed_to() -> None:
    """Whoever asks late takes what it has for what was made; newcomers get it when enough have said so."""

    async def main() -> None:
        graphs = [await Graph.open("memory:", identity=one) for one in (ALICE, BOB, CAROL)]
        alice, bob, carol = graphs
        alice.node("kept")["k"] = 1
        await churn(alice, 100)
        await met(*graphs)
        for graph in graphs:
            await graph.upkeep.prune()
        await met(*graphs)
        assert len(await stored(alice, ALICE)) == len(await stored(bob, ALICE)) == 1
        for graph in graphs:
            await graph.admission.set_agreement(2, [one.id for one in WITNESSES])
        await met(*graphs)
        for graph in (bob, carol):
            await graph.upkeep.prune()
        async with await opened(ERIN) as erin:
            for graph in (bob, carol, alice):
                async with served(graph, erin) as client:
                    await erin.sync(client)
            assert erin.admission.unagreed() == erin.frames.gaps() == []
            assert erin.node("kept")["k"] == 1
        for graph in graphs:
            await graph.close()

    run(main())


def test_those_who_prune_at_the_same_time_drop_all_the_same() -> None:
    """Their words for a sum come when its author has been through its own pruning: it keeps on with that sum."""

    async def main() -> None:
        async with await opened(ALICE) as alice, await opened(BOB) as bob, await opened(CAROL) as carol:
            sizes = []
            for _ in range(8):
                await churn(alice, 40)
                for graph in (alice, bob, carol):
                    await graph.upkeep.prune()
                await met(alice, bob, carol)
                sizes.append(len(await stored(alice, ALICE)))
            assert max(sizes) <= 160
            assert alice.frames.vector()[ALICE.id.key] == 320

    run(main())


def test_a_witness_keeps_no_more_of_an_author_than_it_wrote() -> None:
    """Whoever is asked for its word takes offers that save nothing. They might grow with each frame, for ever."""

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice, await opened(BOB) as bob:
            await churn(alice, 1)
            for number in range(12):
                alice.node("n")["k"] = number
                await told(alice, ALICE, bob)
                frames = [envelopes.decode("", data) for data in await stored(alice, ALICE)]
                size = await bob.frames.stored_bytes(ALICE.id.key, 1, len(frames))
                body = bytes((bob.passed.size_of(ALICE.id.key) or size // 2) * 19 // 10)
                clocks = 0, alice.frames.chains.get_tip(ALICE.id.key).clock
                made = envelopes.sum_up(ALICE, frames[0], frames[-1], clocks, bytes(16), body)
                alice.passed.put_summary(ALICE.id.key, len(frames), [made.encode()])
                async with served(alice, bob) as client:
                    await bob.sync(client)
            assert 0 < bob.passed.size_of(ALICE.id.key) <= 2 * size

    run(main())


def test_a_witness_loads_the_sum_of_an_author_again_as_it_grows() -> None:
    """An author might offer all that it ever made with each frame that it adds, and each witness would load it."""

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice, await opened(BOB) as bob:
            taken = []
            for count in [20, *[1] * 12, 20, *[1] * 12]:
                for number in range(count):
                    alice.node(f"n/{number}")["k"] = bytes(1000 if count > 1 else 1)
                    await alice.commit()
                await told(alice, ALICE, bob)
                frames = [envelopes.decode("", data) for data in await stored(alice, ALICE)]
                clocks = 0, alice.frames.chains.get_tip(ALICE.id.key).clock
                body = bytes(10_000)
                made = envelopes.sum_up(ALICE, frames[0], frames[-1], clocks, bytes(16), body)
                alice.passed.put_summary(ALICE.id.key, len(frames), [made.encode()])
                async with served(alice, bob) as client:
                    await bob.sync(client)
                taken.append(bob.passed.last_of(ALICE.id.key) == len(frames))
            assert taken == [*[True] * 4, *[False] * 9] * 2

    run(main())


def test_a_witness_takes_each_sum_of_an_author_whose_frames_the_last_one_replaced() -> None:
    """Who rewrites the same few things has as much stored each time that it sums them up."""

    async def main() -> None:
        async with await opened(ALICE) as alice, await opened(BOB) as bob, await opened(CAROL) as carol:
            summed = []
            for _ in range(7):
                await churn(alice, 100)
                await see_all(alice, [bob, carol])
                for witness in (bob, carol):
                    await told(witness, witness.identity, alice)
                await alice.upkeep.prune()
                here, last = await stored(bob, ALICE), alice.frames.last_of(ALICE.id.key)
                summed.append((len(here), sum_of(here).sequence == last))
            assert summed == [(1, True)] * 7

    run(main())


def test_waiting_for_words_costs_no_more_the_more_is_stored() -> None:
    """Whoever lives on while those who are asked are away looks at what it signed since, with each commit."""

    async def main() -> None:
        async with await opened(ALICE) as alice, await opened(BOB) as bob, await opened(CAROL) as carol:
            await pruned(alice)
            await churn(alice, 1)
            await alice.offering.refresh_offer(alice)
            with mock.patch.object(alice.frames, "stored_bytes", wraps=alice.frames.stored_bytes) as asked:
                for _ in range(20):
                    await churn(alice, 1)
                    await alice.offering.refresh_offer(alice)
            assert sum(last + 1 - first for _, first, last in (call.args for call in asked.mock_calls)) <= 20
            for witness in (bob, carol):
                await see_all(alice, [witness])
                await met(alice, witness)
            await alice.upkeep.prune()
            await churn(alice, 40)
            await alice.upkeep.prune()  # what it waited for has come, so it offers the next one
            assert alice.passed.last_of(ALICE.id.key) == 161

    run(main())


def test_a_witness_that_is_killed_when_it_drops_has_said_its_word(tmp_path: Path) -> None:
    path, dead = tmp_path / "store", tmp_path / "dead"
    path.mkdir()

    async def main() -> None:
        async with await opened(ALICE) as alice, await opened(BOB, str(path / "bob.db")) as bob:
            await churn(alice, 100)
            replace_stored = bob.replace_stored

            async def killed(parts: list[Envelope | Summary]) -> int:
                dropped = await replace_stored(parts)
                shutil.copytree(path, dead)
                return dropped

            with mock.patch.object(bob, "replace_stored", killed):
                await see_all(alice, [bob])
        async with await Graph.open(str(dead / "bob.db"), identity=BOB) as bob:
            (one,) = await stored(bob, ALICE)
            assert bob.node(owned_soul(BOB.id.key, ".agreed"))[str(ALICE.id)] == [name_of(sum_of([one]))]

    run(main())


def test_a_word_from_the_future_counts_when_it_is_due() -> None:
    async def main() -> None:
        ahead = Clock(lambda: 1_000_120.0)
        bob = await Graph.open("memory:", identity=BOB, clock=ahead)
        now = [1_000_000.0]
        erin = await Graph.open("memory:", identity=ERIN, clock=Clock(lambda: now[0]))
        for graph in (bob, erin):
            await graph.admission.set_agreement(1, [BOB.id])
        async with await Graph.open("memory:", identity=ALICE, clock=Clock(lambda: now[0])) as alice:
            await churn(alice, 100)
            await see_all(alice, [bob])
        await erin.receive([*await stored(bob, BOB), *await stored(bob, ALICE)])
        assert erin.frames.vector() == {BOB.id.key: 1}
        now[0] += 120
        more = asyncio.Event()
        erin.listen(more.set)
        erin.intake.wait_for_due()
        while ALICE.id.key not in erin.frames.vector():
            await more.wait()
            more.clear()
        assert erin.admission.unagreed() == []
        assert erin.frames.vector() == {ALICE.id.key: 100, BOB.id.key: 1}
        for graph in (bob, erin):
            await graph.close()

    run(main())


def test_who_agrees_to_a_later_sum_agrees_to_the_earlier_one_still() -> None:
    """Two of three agree to what Alice has dropped frames for. One goes on to her next sum, the other is away for
    good: what she keeps is taken by newcomers all the same."""

    async def main() -> None:
        async with (
            await opened(ALICE) as alice,
            await opened(BOB) as bob,
            await opened(CAROL) as carol,
            await opened(ERIN) as erin,
        ):
            await churn(alice, 100)
            await see_all(alice, [bob, carol])
            for witness in (bob, carol):
                await told(witness, witness.identity, alice)
            assert (await alice.upkeep.prune()).frames == 99
            await churn(alice, 100)
            await see_all(alice, [bob])
            await told(bob, BOB, alice)
            async with served(alice, erin) as client:
                await erin.sync(client)
            assert erin.admission.unagreed() == erin.frames.gaps() == []
            assert erin.frames.vector()[ALICE.id.key] == 200

    run(main())


def test_of_what_somebody_agreed_to_some_is_kept() -> None:
    async def main() -> None:
        async with await opened(BOB) as bob:
            last = [bytes([n]) * 16 for n in range(70)]
            bob.node(owned_soul(BOB.id.key, ".agreed"))[str(ALICE.id)] = last
            async with await Graph.open("memory:", identity=ALICE) as alice:
                await churn(alice, 100)
                await told(alice, ALICE, bob)
                await alice.upkeep.prune()
                async with served(alice, bob) as client:
                    await bob.sync(client)
                await bob.upkeep.prune()
                (one,) = map(name_of, [sum_of(await stored(alice, ALICE))])
                assert bob.node(owned_soul(BOB.id.key, ".agreed"))[str(ALICE.id)] == [one, *last[:63]]

    run(main())


def test_words_that_wait_have_bounds() -> None:
    """Somebody who is asked says more than anybody keeps, in what can't be merged."""

    async def main() -> None:
        async with await opened(BOB) as bob, await opened(DAVE) as dave:
            await churn(bob, 1)
            for batch in range(3):
                words = [(batch << 16 | n).to_bytes(16, "big") for n in range(3_000)]
                bob.node(owned_soul(BOB.id.key, ".agreed"))[str(ALICE.id)] = [*words, b"short", 7]
                await bob.commit()
            assert await dave.receive((await stored(bob, BOB))[1:]) == 0
            has = partial(dave.admission.pending_statements.has_agreed, BOB.id.key, ALICE.id.key)
            assert [has((batch << 16).to_bytes(16, "big")) for batch in range(3)] == [False, False, True]
            assert not has(b"short")

    run(main())


@pytest.mark.parametrize("order", [0, 1, 2])
def test_witnesses_sums_need_the_others(order: int) -> None:
    """Each of them has pruned its own frames, and agrees to the other's sum behind that: what is signed counts, also
    before it can be merged."""

    async def main() -> None:
        async with (
            await opened(BOB) as bob,
            await opened(CAROL) as carol,
            await opened(ERIN) as erin,
        ):
            for one, other in ((bob, carol), (carol, bob)):
                await churn(one, 100)
                await see_all(one, [other])
            await told(bob, BOB, carol)  # what it agrees to
            for one in (bob, carol):
                await one.upkeep.prune()
            sums = [await stored(one, one.identity) for one in (bob, carol)]
            assert [type(envelopes.decode("", one[0])) for one in sums] == [Summary, Summary]
            if order == 2:  # by connections
                for one in (bob, carol):
                    async with served(one, erin) as client:
                        await erin.sync(client)
            else:
                for each in sums[:: 1 - 2 * order]:
                    await erin.receive(each)
            assert erin.admission.unagreed() == erin.frames.gaps() == []
            assert erin.replica.save() == await shown(bob, carol)

    run(main())


async def lie_of(alice: Graph) -> bytes:
    """A sum of all of Alice's frames that leaves out what stands at one node."""
    data = await stored(alice, ALICE)
    frames = [envelopes.decode("", one) for one in data]
    clocks = 0, alice.replica.core.check_frame(frames[-1].body)[1]
    body = sum_up(alone_of(*frames), *frames[:-1])
    lying = envelopes.sum_up(ALICE, frames[0], frames[-1], clocks, bytes(16), body)
    return lying.encode()


async def agree_to(graph: Graph, one: Summary) -> bytes:
    """Somebody's word for a sum, whatever it is worth."""
    graph.node(owned_soul(graph.identity.id.key, ".agreed"))[str(ALICE.id)] = [name_of(one)]
    await graph.commit()
    return (await stored(graph, graph.identity))[-1]


@pytest.mark.parametrize("liars", [(), (BOB,), (ERIN,), (BOB, ERIN), (BOB, CAROL)])
def test_a_lie_needs_as_many_liars_as_have_to_agree(liars: tuple[Identity, ...]) -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice, await opened(DAVE) as dave:
            alice.node("hidden")["k"] = 1
            await churn(alice, 30, 4)
            alice.node("hidden")["k"] = 2  # the lie ends with 1
            await alice.commit()
            lie = await lie_of(alice)
            for liar in liars:
                async with await opened(liar) as one:
                    await dave.receive([await agree_to(one, sum_of([lie]))])
            is_taken = {BOB, CAROL} <= set(liars)
            assert await dave.receive([lie]) == is_taken
            assert [one.by for one in dave.admission.unagreed()] == (
                [] if is_taken else [(BOB.id,)] if BOB in liars else [()]
            )
            if not is_taken:  # no two pieces prove what was left out; the frames are taken, of whomever
                assert await dave.receive(await stored(alice, ALICE)) == 31
                assert dave.node("hidden")["k"] == 2
                assert dave.admission.unagreed() == dave.frames.gaps() == []

    run(main())


def test_an_honest_witness_agrees_to_no_lie() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice, await opened(BOB) as bob:
            alice.node("hidden")["k"] = 1
            await churn(alice, 100)
            alice.node("hidden")["k"] = 2
            await alice.commit()
            await told(alice, ALICE, bob)
            lie = await lie_of(alice)
            bob.passed.put_summary(ALICE.id.key, alice.frames.vector()[ALICE.id.key], [lie])
            assert (await bob.upkeep.prune()).frames == 0
            assert bob.replica.souls(owned_soul(BOB.id.key)) == []

    run(main())


def test_words_in_anothers_name_and_for_another_sum_count_for_nothing() -> None:
    """Whoever may write at all of a witness's souls can't agree in its place; nor is one sum's word another's."""

    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await opened(BOB) as bob,
            await opened(ERIN) as erin,
            await opened(DAVE, need=1) as dave,
        ):
            await churn(alice, 100)
            honest = await stored(alice, ALICE)
            await alice.upkeep.prune()
            one = sum_of(await stored(alice, ALICE))
            grant = bob.access.grant(ERIN.id, "")
            await told(bob, BOB, erin)
            erin.access.use(grant)
            await erin.commit()
            soul = owned_soul(BOB.id.key, ".agreed")
            with pytest.raises(NotOwner):
                erin.node(soul)[str(ALICE.id)] = [name_of(one)]
            bob.node(soul)[str(ALICE.id)] = [bytes(16), "nonsense", None, 7]
            await bob.commit()
            for graph in (bob, erin):
                await dave.receive(await stored(graph, graph.identity))
            assert await dave.receive([one.encode()]) == 0
            assert dave.admission.unagreed()[0].by == ()
            bob.node(soul)[str(ALICE.id)] = 5
            await told(bob, BOB, dave)
            assert dave.admission.unagreed()[0].by == ()
            await dave.admission.ban(BOB.id)
            assert await dave.receive(honest) == 100

    run(main())


@pytest.mark.parametrize("is_merged", [True, False])
def test_who_is_banned_agrees_to_nothing(is_merged: bool) -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as alice,
            await opened(BOB) as bob,
            await opened(DAVE, need=1) as dave,
        ):
            await pruned(alice)
            await churn(bob, 1)
            one = sum_of(await stored(alice, ALICE))
            word = await agree_to(bob, one)
            await dave.receive(await stored(bob, BOB) if is_merged else [word])
            assert len(dave.frames.gaps()) == (not is_merged)
            await dave.admission.ban(BOB.id)
            assert await dave.receive([one.encode()]) == 0
            await dave.admission.unban(BOB.id)
            assert await dave.receive([one.encode()]) == 1

    run(main())


def test_an_author_who_has_its_frames_sends_them() -> None:
    """What it would sum up for this one peer nobody could agree to."""

    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice, await opened(ERIN) as erin:
            await churn(alice, 100)
            async with served(alice, erin) as client:
                assert (await erin.sync(client)).received == 100

    run(main())


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "graph.db")
        async with await Graph.open(path, identity=ALICE) as alice:
            for need, of in ((1, []), (3, [BOB, CAROL]), (1, [identity(str(n)) for n in range(65)])):
                with pytest.raises(GraphError, match="can't agree"):
                    await alice.admission.set_agreement(need, [one.id for one in of])
            assert alice.admission.agreement is None
            await alice.admission.set_agreement(1, [BOB.id])
        with pytest.raises(GraphError, match="all of the graph"):
            await Graph.open(path, identity=ALICE, part=Part(prefixes=["a/"]))
        async with await Graph.open(path, identity=ALICE) as alice:
            await alice.admission.set_agreement(0, [])
            assert alice.admission.agreement is None
        async with await Graph.open("memory:", identity=ALICE, history=True) as alice:
            with pytest.raises(GraphError, match="history"):
                await alice.admission.set_agreement(1, [BOB.id])

    run(main())


def test_a_policy_of_before_is_read() -> None:
    import msgpack

    kept = msgpack.unpackb(AdmissionPolicy().encode(), strict_map_key=False)
    assert kept[0] == 3
    for version, fields in ((1, 7), (2, 8)):
        before = AdmissionPolicy.decode(msgpack.packb([version, *kept[1:fields]]))
        assert (before.agreement, before.reach, before.noted_gone) == (None, REACH, {})
