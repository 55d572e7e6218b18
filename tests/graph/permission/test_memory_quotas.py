"""What takes much memory for few bytes of others' frames is counted, and refused beyond a quota."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from graph_fixtures import ALICE, BOB, identity, run

import dtp
from dtp.crdt import Clock
from dtp.crdt.permission.grants import make_grant
from dtp.graph import Graph, Quotas, Rule, Rules, Schema

BOUNDED = Quotas(strangers_memory=2_000_000)
REFUSED = "more than 2000000 bytes of memory, with strangers"


def ship_document(bob: Graph, number: int) -> None:
    """A document of rules of nearly 16 KiB takes 60 times as much once it is read."""
    values = Schema(one_of=tuple([] for _ in range(16_000)))
    document = bob.access.allow(Rules("v", [Rule(path=f"{number}", value=values)]))
    bob.node(document.soul(f"{number}"))["k"] = []


def vote(bob: Graph, number: int) -> None:
    """An op of which one may be takes 5 bytes of a frame, and 460 of memory."""
    votes = bob.access.allow(Rules("vote", [Rule(once="key")]))
    bob.put_many([(votes.soul("a"), f"{number}.{each}", True) for each in range(500)])


def count_rates(bob: Graph, number: int) -> None:
    """What a rate counts takes 1,000 bytes of memory from its first op on."""
    rules = [Rule(path=f"{each}", rate=(9, 1)) for each in range(64)]
    rated = bob.access.allow(Rules(f"r{number}", rules))
    bob.put_many([(rated.soul(f"{each}"), "k", True) for each in range(64)])


def use_grants(bob: Graph, number: int) -> None:
    """A grant takes 200 bytes of a frame, and 1,400 of memory. Owners can be made up."""
    owner = identity(f"owner {number}")
    for each in range(60):
        bob.access.use(make_grant(owner, bob.name, BOB.id.key, f"{each}", 0))


def put_values(bob: Graph, number: int) -> None:
    """A register takes 5 bytes of a frame, and 113 of memory."""
    bob.put_many([(f"n{number}", f"{each}", True) for each in range(2_000)])


FLOODS = [ship_document, vote, count_rates, use_grants, put_values]


@pytest.mark.slow
@pytest.mark.parametrize("flood", FLOODS)
def test_what_verdicts_depend_on_is_counted(flood: Callable[[Graph, int], None]) -> None:
    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(BOUNDED)
        for number in range(30):
            flood(bob, number)
            await bob.commit()
        last = bob.frames.vector()[BOB.id.key]
        for one in await bob.frames.read(BOB.id.key, 1, last):
            await alice.receive([one])
        assert list(alice.admission.refused.reasons) == [REFUSED]
        assert 0 < alice.frames.vector()[BOB.id.key] < last
        memory = alice.replica.core.memory_bytes + alice.replica.access.memory_bytes
        assert 700_000 < memory < 2_500_000
        saved = type(alice.replica).load(ALICE.id.key, alice.replica.save(), graph=alice.name)
        assert saved.access.memory_bytes == alice.replica.access.memory_bytes  # and when it is opened again
        for graph in alice, bob:
            await graph.close()

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("flood", FLOODS)
def test_what_is_dated_ahead_fills_no_memory_when_it_is_due(flood: Callable[[Graph, int], None]) -> None:
    seconds = [1_700_000_000.0]

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB, clock=Clock(lambda: seconds[0] + 600))
        alice = await Graph.open("memory:", identity=ALICE, clock=Clock(lambda: seconds[0]))
        await alice.admission.set_quotas(BOUNDED)
        for number in range(40):
            flood(bob, number)
            await bob.commit()
        for one in await bob.frames.read(BOB.id.key, 1, bob.frames.vector()[BOB.id.key]):
            await alice.receive([one])
        assert list(alice.admission.refused.reasons) == [REFUSED]
        waiting = alice.waiting_frames(BOB.id.key)
        assert 0 < waiting < 30
        seconds[0] += 600
        assert len(list(alice.replica.take_due())) == waiting
        assert alice.replica.core.memory_bytes + alice.replica.access.memory_bytes < 2_500_000
        assert alice.replica.core.waiting_load() == (0, 0, 0, 0, 0, 0)
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_what_is_written_under_rules_counts_as_what_it_is() -> None:
    """A value took 64 times its bytes of what strangers may fill, as a document of rules does."""

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(BOUNDED)
        notes = bob.access.allow(Rules("note", [Rule()]))
        bob.node(notes.soul("a"))["k"] = "x" * 500_000
        await bob.commit()
        await alice.receive(await bob.frames.read(BOB.id.key, 1, 1))
        assert alice.admission.refused.reasons == {}
        assert alice.node(notes.soul("a"))["k"] == "x" * 500_000
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_one_frame_of_documents_fills_no_memory() -> None:
    """It may have 16 MiB of them, which are 1 GB once they are read."""

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(BOUNDED)
        for number in range(3):  # room for none of them
            ship_document(bob, number)
        await bob.commit()
        (one,) = await bob.frames.read(BOB.id.key, 1, 1)
        await alice.receive([one])
        assert list(alice.admission.refused.reasons) == [REFUSED]
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_who_is_known_can_be_bounded_in_memory_too(tmp_path: Path) -> None:
    """100 MB of tiny texts of one of them are 13 GB of memory, and a device may be somebody else's by now."""

    async def main() -> None:
        path = str(tmp_path / "graph.db")
        assert Quotas().authors_memory == 4 << 30
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open(path, identity=ALICE)
        await alice.admission.add_known(BOB.id)
        await alice.admission.set_quotas(Quotas(authors_memory=1_000_000))
        for number in range(10):
            for each in range(50):
                bob.text("t", f"{number}.{each}").append("x")
            await bob.commit()
        made = await bob.frames.read(BOB.id.key, 1, 10)
        for one in made:
            await alice.receive([one])
        assert alice.frames.vector()[BOB.id.key] == 2
        assert list(alice.admission.refused.reasons) == ["more than 1000000 bytes of memory"]
        assert BOB.id.key in alice.admission.unwanted
        alice.text("mine").append("x" * 2_000)  # one's own is never refused
        await alice.close()
        alice = await Graph.open(path, identity=ALICE)  # texts at which nobody looks take 110 bytes then
        assert alice.admission.quotas.authors_memory == 1_000_000
        for one in made:
            await alice.receive([one])
        assert 2 < alice.frames.vector()[BOB.id.key] < 10
        await alice.admission.set_quotas(Quotas())
        assert await alice.receive(made) > 0
        assert alice.frames.vector()[BOB.id.key] == 10
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_who_sends_more_than_is_taken_hears_of_it_in_the_same_sync() -> None:
    """STORED went out before REFUSED, and the sync ended as though all had been taken."""

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(Quotas(stranger_frames=2))
        for number in range(5):
            bob.node("n")["k"] = number
            await bob.commit()
        async with (
            await dtp.listen("memory://refusing", alice.serve, identity=ALICE) as listener,
            dtp.connect(listener.address(), identity=BOB) as connection,
        ):
            exchanged = await bob.sync(connection)
        assert alice.admission.refused.envelopes == 3
        assert exchanged.refused
        for graph in alice, bob:
            await graph.close()

    run(main())
