"""Whom a graph takes in: who is banned is gone here and stays away, who is purged leaves the file, floods end."""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path
from typing import Any

import msgpack
import pytest
from graph_fixtures import ALICE, BOB, CAROL, everything, identity, run, vector

import dtp
from dtp.core.crdt import GraphCore
from dtp.core.errors import NotOwner
from dtp.crdt import Clock, values
from dtp.graph import Graph, GraphError, GraphReadOnly, Quotas, StoreError
from dtp.graph.errors import SyncError
from dtp.graph.frames import envelope as envelopes
from dtp.graph.permission.quotas import MAX_NAMED, Refused
from dtp.graph.sync.protocol import MAX_REFUSED, REFUSED_AT_ONCE, SyncSide
from dtp.identity import Account, Device, Identity

KEY, RECOVERY = identity("account"), identity("recovery")


async def meet(*graphs: Graph) -> None:
    """All get what each has."""
    made = [await everything(graph) for graph in graphs]
    for graph in graphs:
        for some in made:
            await graph.receive(some)
    for graph in graphs:
        await graph.commit()


def signed(who: Identity, count: int, name: str = "", size: int = 1, ops: int = 1) -> list[bytes]:
    """Frames of somebody, each with so many ops of values of this size."""
    maker, made, previous = GraphCore(who.id.key), [], envelopes.NONE_BEFORE
    for number in range(1, count + 1):
        rows = [(f"of/{who.id.short}", f"{number}.{n}", "x" * size) for n in range(ops)]
        maker.put_registers(values.encode_rows(rows), (1_000_000 + 1000 * number) << 16)
        body = maker.commit()
        assert body is not None
        one = envelopes.sign_frame(who, name, number, previous, body[0])
        previous = one.hash
        made.append(one.encode())
    return made


async def sync(one: Graph, other: Graph) -> Any:
    """Sync over a connection, as programs do."""
    async with (
        await dtp.listen(f"memory://{id(other)}", other.serve, identity=other.identity) as listener,
        dtp.connect(listener.address(), identity=one.identity) as connection,
    ):
        return await one.sync(connection)


def test_who_is_banned_is_gone_and_stays_away_and_the_rest_is_synced(tmp_path: Path) -> None:
    path = str(tmp_path / "graph.db")

    async def main() -> None:
        alice = await Graph.open(path, identity=ALICE)
        carol = await Graph.open("memory:", identity=CAROL)
        made = signed(BOB, 6)
        await carol.receive(made[:3])
        carol.node("page")["by"] = "carol"
        await sync(alice, carol)
        bobs = f"of/{BOB.id.short}"
        assert len(alice.node(bobs)) == 3
        assert alice.query("MATCH (n:of) RETURN n") != []
        alice.node(bobs)["1.0"] = "mine"
        await alice.admission.ban(BOB.id)
        assert alice.node(bobs).to_dict() == {"1.0": "mine"}
        assert BOB.id.key not in alice.frames.vector()
        assert [(one.peer, one.here, one.by) for one in alice.admission.banned()] == [(BOB.id, True, ())]
        assert {one.op.author for one in await alice.history.versions(bobs)} == {ALICE.id.key}

        await carol.receive(made[3:])
        carol.node("page")["by"] = "carol again"
        exchanged = await sync(alice, carol)
        assert exchanged.received == 1  # Carol's; of Bob nothing was even sent
        assert alice.node("page")["by"] == "carol again"
        assert alice.admission.refused.envelopes == 0
        assert await alice.receive(made) == 0  # from who doesn't listen
        assert alice.admission.refused.reasons["banned"][0] == 6
        other = await Graph.open("memory:", identity=identity("dave"))
        await sync(other, alice)
        assert set(other.frames.vector()) == {ALICE.id.key, CAROL.id.key}  # it isn't passed on
        assert await alice.verify() == sum(alice.frames.vector().values()) + 3
        await alice.close()

        alice = await Graph.open(path, identity=ALICE)  # by its state
        assert alice.node(bobs).to_dict() == {"1.0": "mine"}
        assert alice.admission.refused.authors[BOB.id.key] == ("banned", 6)
        with pytest.raises(GraphError, match="isn't banned here"):
            await alice.admission.unban(CAROL.id)
        await alice.admission.unban(BOB.id)
        assert len(alice.node(bobs)) == 3
        await sync(alice, carol)
        assert len(alice.node(bobs)) == 6
        assert alice.admission.banned() == []
        await alice.close()
        async with await Graph.open(path, identity=ALICE, read_only=True) as read:
            assert len(read.node(bobs)) == 6
            with pytest.raises(GraphReadOnly):
                await read.admission.ban(BOB.id)
        await carol.close()
        await other.close()

    run(main())


def test_a_ban_while_replicating_and_its_end(tmp_path: Path) -> None:
    """The peer is told at once to send nothing more, and then to send what it has."""

    async def main() -> None:
        alice = await Graph.open("memory:", identity=ALICE)
        carol = await Graph.open("memory:", identity=CAROL)
        made = signed(BOB, 9)
        async with (
            await dtp.listen("memory://ban", carol.serve, identity=CAROL) as listener,
            dtp.connect(listener.address(), identity=ALICE) as connection,
        ):
            live = asyncio.ensure_future(alice.replicate(connection))
            await carol.receive(made[:3])
            await arrived(alice, BOB, 3)
            await alice.admission.ban(BOB.id)
            await carol.receive(made[3:6])
            carol.node("page")["k"] = 1
            await arrived(alice, CAROL, 1)
            assert BOB.id.key not in alice.frames.vector()
            await alice.admission.unban(BOB.id)
            await arrived(alice, BOB, 6)
            live.cancel()
            await asyncio.gather(live, return_exceptions=True)
        await alice.close()
        await carol.close()

    run(main())


async def arrived(graph: Graph, who: Identity, count: int) -> None:
    """Wait until so many frames of somebody are here."""
    changed = asyncio.Event()
    forget = graph.listen(changed.set)
    while graph.frames.vector().get(who.id.key, 0) < count:
        await changed.wait()
        changed.clear()
    forget()


def test_the_graph_s_owner_bans_for_all(tmp_path: Path) -> None:
    name = f"{ALICE.id}/board"

    async def main() -> None:
        alice, carol = [await Graph.open("memory:", identity=who, name=name) for who in (ALICE, CAROL)]
        bob = await Graph.open("memory:", identity=BOB, name=name)
        assert carol.admission.followed() == [str(ALICE.id)]
        bob.node("page")["by"] = "bob"
        alice.access.grant(BOB.id, "")  # of everything, but for whom she bans
        await meet(alice, bob, carol)
        with pytest.raises(GraphError, match="has the say"):
            await carol.admission.ban(BOB.id, shared=True)
        await alice.admission.ban(BOB.id, shared=True)
        await meet(alice, bob, carol)
        for graph in (alice, carol):
            assert graph.node("page").to_dict() == {}
            assert [(str(one.peer), one.here, one.by) for one in graph.admission.banned()] == [
                (str(BOB.id), False, (str(ALICE.id),))
            ]
        assert bob.node("page")["by"] == "bob"  # one's own stays with oneself
        with pytest.raises(GraphError, match="isn't banned here"):
            await carol.admission.unban(BOB.id)
        with pytest.raises(GraphError, match="neither oneself"):
            await carol.admission.ban(ALICE.id)
        with pytest.raises(NotOwner):
            bob.replica.put(f"~{ALICE.id}/.bans", str(CAROL.id), True)
        await alice.admission.unban(BOB.id, shared=True)
        with pytest.raises(GraphError, match="by its owner"):
            await alice.admission.unban(BOB.id, shared=True)
        await meet(alice, bob, carol)
        assert carol.node("page")["by"] == "bob"
        assert len({graph.replica.save() for graph in (alice, bob, carol)}) == 1
        for graph in (alice, bob, carol):
            await graph.close()

    run(main())


def test_an_account_that_owns_a_graph_and_followed_moderators() -> None:
    account = Account.create(KEY, RECOVERY.id, [Device(ALICE.id.key)])
    name = f"{account.card.name}/board"

    async def main() -> None:
        alice, carol = [await Graph.open("memory:", identity=who, name=name) for who in (ALICE, CAROL)]
        with pytest.raises(GraphError, match="has the say"):
            await alice.admission.ban(BOB.id, shared=True)
        alice.accounts.join(account.card)
        await carol.receive(signed(BOB, 1, name))
        await alice.admission.ban(BOB.id, shared=True)
        assert len(carol.souls("of/")) == 1
        await meet(alice, carol)
        assert carol.souls("of/") == []
        assert carol.admission.banned()[0].by == (account.card.name,)
        await alice.admission.unban(BOB.id, shared=True)
        await meet(alice, carol)
        assert len(carol.souls("of/")) == 1
        for graph in (alice, carol):
            await graph.close()
        open_one = await Graph.open("memory:", identity=CAROL)
        mod = await Graph.open("memory:", identity=ALICE)
        assert open_one.admission.followed() == []
        await open_one.receive(signed(BOB, 1))
        await mod.admission.ban(BOB.id, shared=True)
        await meet(mod, open_one)
        assert len(open_one.souls("of/")) == 1
        await open_one.admission.follow(ALICE.id)
        assert open_one.souls("of/") == []
        await open_one.admission.unfollow(ALICE.id)
        assert len(open_one.souls("of/")) == 1
        with pytest.raises(GraphError, match="not a name"):
            await open_one.admission.follow("dtp1nonsense")
        await mod.close()
        await open_one.close()

    run(main())


def test_a_purge_makes_the_file_smaller_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "graph.db"
    marker = b"Z" * 50_000

    async def main() -> None:
        made = signed(BOB, 20, size=1)
        maker, previous = GraphCore(CAROL.id.key), envelopes.NONE_BEFORE
        alice = await Graph.open(str(path), identity=ALICE)
        alice.node("page")["mine"] = 1
        await alice.receive(made)
        big = []
        for number in range(1, 11):
            maker.put_registers(
                values.encode_rows([("big", str(number), marker)]), (1_000_000 + number) << 16
            )
            body = maker.commit()
            assert body is not None
            one = envelopes.sign_frame(CAROL, "", number, previous, body[0])
            previous = one.hash
            big.append(one.encode())
        await alice.receive(big)
        await alice.close()
        size = path.stat().st_size
        alice = await Graph.open(str(path), identity=ALICE)
        with pytest.raises(GraphError, match="ban it first"):
            await alice.admission.purge(CAROL.id)
        await alice.admission.ban(CAROL.id)
        assert await alice.admission.purge(CAROL.id) > 500_000
        assert await alice.admission.purge(CAROL.id) == 0
        alice.node("page")["mine"] = 2
        await alice.receive(big)
        assert CAROL.id.key not in alice.frames.vector()
        await alice.close()
        assert path.stat().st_size < size - 500_000
        assert marker[:1000] not in path.read_bytes()
        alice = await Graph.open(str(path), identity=ALICE)
        assert (alice.node("page")["mine"], len(alice.souls("of/")), alice.souls("big")) == (2, 1, [])
        assert await alice.verify() == sum(alice.frames.vector().values())
        await alice.admission.unban(CAROL.id)  # it comes again from others, from the first frame on
        assert await alice.receive(big) == 10
        assert len(alice.node("big")) == 10
        await alice.close()

    run(main())


# ---- quotas -------------------------------------------------------------------------------------------------------


def test_who_is_made_known_takes_no_room_of_strangers() -> None:
    async def main() -> None:
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(Quotas(strangers_bytes=1000))
        await alice.receive(signed(BOB, 2, size=200))
        await alice.admission.add_known(BOB.id)
        assert await alice.receive(signed(CAROL, 2, size=200)) == 2
        assert alice.admission.refused.envelopes == 0

    run(main())


@pytest.mark.parametrize(
    ("quotas", "taken", "reason"),
    [
        (Quotas(stranger_frames=3), 3, "more than 3 frames of a stranger"),
        (Quotas(stranger_ops=9), 4, "more than 9 ops of a stranger"),
        (Quotas(stranger_bytes=1000), None, "more than 1000 bytes of a stranger"),
        (Quotas(strangers_bytes=1000), None, "more than 1000 bytes of all strangers"),
        (Quotas(strangers_memory=1), 0, "more than 1 bytes of memory, with strangers"),
        (Quotas(author_frames=2), 2, "more than 2 frames"),
        (Quotas(new_strangers=0), 0, "more than 0 new strangers in 3600 s"),
        (Quotas(), 6, ""),
    ],
)
def test_a_stranger_is_taken_up_to_its_quota(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, quotas: Quotas, taken: int | None, reason: str
) -> None:
    caplog.set_level(logging.WARNING, logger="dtp.graph")
    path = str(tmp_path / "graph.db")
    made = signed(BOB, 6, ops=2)

    async def main() -> None:
        alice = await Graph.open(path, identity=ALICE)
        await alice.admission.set_quotas(quotas)
        for one in made[:2]:
            await alice.receive([one])
        await alice.receive(made[2:4])  # and in one message
        await alice.close()
        alice = await Graph.open(path, identity=ALICE)  # what is here counts again
        assert alice.admission.quotas == quotas
        carol = await Graph.open("memory:", identity=CAROL)
        await carol.receive(made)
        carol.node("page")["k"] = 1
        await sync(alice, carol)
        assert alice.node("page")["k"] == 1
        count = alice.frames.vector().get(BOB.id.key, 0)
        assert count == taken or (taken is None and 0 < count < 6)
        assert list(alice.admission.refused.reasons) == [reason][: bool(reason)]
        assert (BOB.id.key in alice.admission.unwanted) == bool(reason)
        assert reason in caplog.text
        assert ("takes no more" in caplog.text) == bool(reason)
        received = alice.admission.refused.envelopes
        await sync(alice, carol)
        assert alice.admission.refused.envelopes == received  # Carol was told to send no more
        await alice.admission.set_quotas(Quotas())
        await sync(alice, carol)
        assert alice.frames.vector()[BOB.id.key] == 6
        await alice.close()
        await carol.close()

    run(main())


def test_who_is_known_has_quotas_of_its_own() -> None:
    async def main() -> None:
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(Quotas(stranger_frames=1, new_strangers=0))
        assert alice.admission.is_stranger(BOB.id.key)
        await alice.receive(signed(BOB, 3))
        assert BOB.id.key not in alice.frames.vector()
        await alice.admission.add_known(BOB.id)
        assert not alice.admission.is_stranger(BOB.id.key)
        assert await alice.receive(signed(BOB, 3)) == 3
        alice.access.grant(CAROL.id, "board")
        assert await alice.receive(signed(CAROL, 3)) == 3
        await alice.close()

    run(main())


def test_made_up_authors_end_with_the_hour() -> None:
    seconds = [2_000.0]

    async def main() -> None:
        alice = await Graph.open("memory:", identity=ALICE, clock=Clock(lambda: seconds[0]))
        await alice.admission.set_quotas(Quotas(new_strangers=20, new_strangers_seconds=60))
        crowd = [identity(f"made up {n}") for n in range(50)]
        made = [signed(who, 1)[0] for who in crowd]
        assert await alice.receive(made) == 20
        assert len(alice.frames.vector()) == 20
        assert alice.admission.refused.reasons == {
            "more than 20 new strangers in 60 s": (30, pytest.approx(30 * 50, abs=3000))
        }
        assert len(alice.admission.refused.authors) == 30
        assert await alice.receive(signed(crowd[0], 2)[1:]) == 1  # who was taken goes on
        seconds[0] += 61
        assert await alice.receive(made) == 20
        seconds[0] -= 3600  # a clock that is set back lets nobody wait
        assert await alice.receive(made) == 10
        await alice.close()

    run(main())


def test_what_is_refused_is_counted_in_little_memory() -> None:
    refused = Refused()
    for number in range(1000):
        assert refused.count_refused(number.to_bytes(32, "big"), f"reason {number % 2}", 5) == (number < 2)
    assert refused.envelopes == 1000
    assert refused.reasons == {"reason 0": (500, 2500), "reason 1": (500, 2500)}
    assert len(refused.authors) == MAX_NAMED
    assert Refused.load(values.decode(values.encode(refused.save()))) == refused


def test_many_tiny_texts_of_a_stranger_fill_no_memory() -> None:
    """Each took 56 bytes of a frame, and 7 KB of memory: one stranger's quota was 34 GB."""

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(Quotas(strangers_memory=1_000_000))
        for number in range(10):
            for each in range(50):
                bob.text("t", f"{number}.{each}").append("x")
            await bob.commit()
        for one in await bob.frames.read(BOB.id.key, 1, 10):
            await alice.receive([one])
        assert alice.frames.vector()[BOB.id.key] == 2
        assert alice.replica.sequences.open_count == 100
        assert list(alice.admission.refused.reasons) == ["more than 1000000 bytes of memory, with strangers"]
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_what_a_stranger_sends_at_once_fills_no_memory() -> None:
    """All that came in one message was looked at before any of it was taken: 16 MB are 2 GB of texts."""

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(Quotas(strangers_memory=10_000_000))
        for number in range(30):
            for each in range(300):
                bob.text("t", f"{number}.{each}").append("x")
            await bob.commit()
        await alice.receive(await bob.frames.read(BOB.id.key, 1, 30))
        assert 1_000 < alice.replica.sequences.open_count < 5_000
        assert list(alice.admission.refused.reasons) == ["more than 10000000 bytes of memory, with strangers"]
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_one_frame_of_a_stranger_fills_no_memory() -> None:
    """It may have 65,536 edits, each of another text: 460 MB, though there was room for none of them."""

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(Quotas(strangers_memory=1_000_000))
        for each in range(300):
            bob.text("t", f"t{each}").append("x")
            bob.list("t", f"l{each}").append("x")
            bob.node("t")[f"r{each}"] = each
        await bob.commit()
        await alice.receive(await bob.frames.read(BOB.id.key, 1, 1))
        assert alice.replica.sequences.open_count == 0
        assert list(alice.admission.refused.reasons) == ["more than 1000000 bytes of memory, with strangers"]
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_what_came_too_early_of_a_stranger_fills_no_memory() -> None:
    """64 MiB may wait for the first frame, and came in with it, unasked."""

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(Quotas(strangers_memory=1_000_000))
        for number in range(30):
            for each in range(50):
                bob.text("t", f"{number}.{each}").append("x")
            await bob.commit()
        first, *others = await bob.frames.read(BOB.id.key, 1, 30)
        await alice.receive(others)
        await alice.receive([first])
        assert 0 < alice.replica.sequences.open_count < 150
        assert list(alice.admission.refused.reasons) == ["more than 1000000 bytes of memory, with strangers"]
        await alice.admission.set_quotas(Quotas())
        await alice.receive([first, *others])
        assert alice.replica.sequences.open_count == 1_500
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_what_strangers_date_ahead_fills_no_memory_when_it_is_due() -> None:
    """Only its bytes were counted while it waited, and it came in unasked."""
    seconds = [1_700_000_000.0]

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB, clock=Clock(lambda: seconds[0] + 600))
        alice = await Graph.open("memory:", identity=ALICE, clock=Clock(lambda: seconds[0]))
        await alice.admission.set_quotas(Quotas(strangers_memory=1_000_000))
        for number in range(30):
            for each in range(50):
                bob.text("t", f"{number}.{each}").append("x")
            await bob.commit()
        for one in await bob.frames.read(BOB.id.key, 1, 30):
            await alice.receive([one])
        assert 0 < alice.waiting_frames(BOB.id.key) < 3
        seconds[0] += 600
        assert list(alice.replica.take_due()) != []
        assert 0 < alice.replica.sequences.open_count < 150
        assert list(alice.admission.refused.reasons) == ["more than 1000000 bytes of memory, with strangers"]
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_one_edit_of_a_stranger_fills_no_memory() -> None:
    """It may have 16 MiB, and take 400."""

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(Quotas(strangers_memory=1_000_000))
        text, rng = bob.text("t", "t"), random.Random(1)
        for _ in range(20_000):
            text.insert(rng.randrange(len(text) + 1), "x")
        await bob.commit()
        assert text.memory > 1_000_000
        await alice.receive(await bob.frames.read(BOB.id.key, 1, 1))
        assert list(alice.admission.refused.reasons) == ["more than 1000000 bytes of memory, with strangers"]
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_one_large_text_of_a_stranger_fills_no_memory() -> None:
    """Each edit takes 5 bytes of a frame, and 72 of memory. A text counted as 7 KB, whatever it held."""

    async def main() -> None:
        bob = await Graph.open("memory:", identity=BOB)
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(Quotas(strangers_memory=1_000_000))
        text, rng = bob.text("t", "t"), random.Random(1)
        text.append("x" * 4_000)
        await bob.commit()
        for _ in range(20):
            for _ in range(2_000):
                text.insert(rng.randrange(len(text)), "x")
            await bob.commit()
        for one in await bob.frames.read(BOB.id.key, 1, 21):
            await alice.receive([one])
        assert list(alice.admission.refused.reasons) == ["more than 1000000 bytes of memory, with strangers"]
        assert 500_000 < alice.text("t", "t").memory < 1_200_000
        for graph in alice, bob:
            await graph.close()

    run(main())


def test_many_tiny_values_of_strangers_fill_no_memory() -> None:
    """Each took 5 bytes of a frame, and 113 of memory: all strangers' quota was 97 GB."""

    async def main() -> None:
        alice = await Graph.open("memory:", identity=ALICE)
        await alice.admission.set_quotas(Quotas(strangers_memory=1_000_000))
        for _ in range(5):
            for one in signed(Identity.generate(), 4, ops=1_000):
                await alice.receive([one])
        assert 1_000_000 < alice.replica.core.memory_bytes < 2_000_000
        assert list(alice.admission.refused.reasons) == ["more than 1000000 bytes of memory, with strangers"]
        await alice.close()

    run(main())


def test_strangers_are_taken_again_once_memory_is_given_back() -> None:
    """It was measured again behind as many ops as had filled it, of which none were taken."""

    async def main() -> None:
        alice, flooder = await Graph.open("memory:", identity=ALICE), Identity.generate()
        await alice.admission.set_quotas(Quotas(strangers_memory=1_000_000))
        for one in signed(flooder, 20, ops=1_000):
            await alice.receive([one])
        assert alice.admission.refused.authors.keys() == {flooder.id.key}
        await alice.admission.ban(flooder.id)
        await alice.receive(signed(BOB, 1))
        assert alice.frames.vector()[BOB.id.key] == 1
        await alice.close()

    run(main())


@pytest.mark.parametrize("wrong", [{"stranger_bytes": -1}, {"new_strangers": 1.5}, {"stranger_ops": "many"}])
def test_quotas_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(GraphError):
        Quotas(**wrong)


@pytest.mark.parametrize(
    "kept", [b"", b"\xc1", values.encode([2] * 7), values.encode([1, [], [], [], [], {"x": 1}, []])]
)
def test_a_damaged_policy_is_told(tmp_path: Path, kept: bytes) -> None:
    async def main() -> None:
        graph = await Graph.open(str(tmp_path / "graph.db"), identity=ALICE)
        graph.frames.store.save_policy(kept, False)
        await graph.close()
        with pytest.raises(StoreError):
            await Graph.open(str(tmp_path / "graph.db"), identity=ALICE)

    run(main())


# ---- the message ---------------------------------------------------------------------------------------------------


def greeted() -> SyncSide:
    """One side, whose peer has greeted it and has nothing."""
    side = SyncSide("g")
    side.receive(SyncSide("g").start({}), dict)
    return side


def test_of_who_is_refused_nothing_is_sent_until_it_is_wanted_again() -> None:
    side, ours = greeted(), vector({ALICE.id.key: 3, BOB.id.key: 2})
    side.receive(SyncSide("g").encode_refusal([BOB.id.key]), lambda: ours)
    assert side.to_send(ours) == [(ALICE.id.key, 1, 3)]
    side.set_peer_head(ALICE.id.key, ours[ALICE.id.key])
    side.receive(SyncSide("g").encode_again(BOB.id.key, 1), lambda: ours)
    assert side.to_send(ours) == [(BOB.id.key, 2, 2)]


@pytest.mark.parametrize("told", [[b"short"], ["text"], [1], b"", None, [b"x" * 32, b""]])
def test_a_refusal_that_is_none(told: Any) -> None:
    with pytest.raises(SyncError):
        greeted().receive(msgpack.packb([14, told]), dict)


def test_a_peer_can_t_refuse_without_end() -> None:
    side = greeted()

    def refuse(first: int) -> None:
        authors = [n.to_bytes(32, "big") for n in range(first, first + REFUSED_AT_ONCE)]
        side.receive(side.encode_refusal(authors), dict)

    for first in range(0, MAX_REFUSED, REFUSED_AT_ONCE):
        refuse(first)
    refuse(0)  # the same again are no more
    with pytest.raises(SyncError, match="more than"):
        refuse(MAX_REFUSED)
    with pytest.raises(SyncError):
        SyncSide("g").receive(side.encode_refusal([bytes(32)]), dict)  # before HELLO


def test_who_is_banned_by_the_peer_is_told() -> None:
    async def main() -> None:
        alice = await Graph.open("memory:", identity=ALICE)
        bob = await Graph.open("memory:", identity=BOB)
        bob.node("page")["k"] = 1
        await alice.admission.ban(BOB.id)
        alice.node("page")["a"] = 1
        exchanged = await sync(bob, alice)
        assert (exchanged.refused, exchanged.received) == (True, 1)
        assert BOB.id.key not in alice.frames.vector()
        assert not (await sync(alice, bob)).refused
        await alice.close()
        await bob.close()

    run(main())
