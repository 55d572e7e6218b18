"""Graphs whose owners let others write and take it back, and whose kinds of node have rules: what others see."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from graph_fixtures import ALICE, BOB, CAROL, close, everything, meet, run, three

from dtp.core.crdt import GraphCore
from dtp.core.errors import NotOwner
from dtp.crdt import values
from dtp.graph import (
    Breach,
    EnvelopeError,
    Graph,
    GraphError,
    OffenceError,
    OffenceProof,
    Rule,
    RuleBroken,
    Rules,
    Schema,
)
from dtp.graph.frames import envelope as envelopes
from dtp.identity import Identity

VOTE = Rules("vote", [Rule(path="*", key="{author}", value=Schema(one_of=("yes", "no")), once="soul")])
LUNCH = VOTE.soul("lunch")


def test_granting_and_revoking() -> None:
    async def main() -> None:
        alice, bob, carol = await three("board")
        board = alice.own("board")
        with pytest.raises(NotOwner):
            bob.node(board)["title"] = "Bob's"
        granted = alice.access.grant(BOB.id, "board")
        assert alice.access.grants() == [granted]
        alice.node(board)["title"] = "Alice's"
        await meet(alice, bob, carol)
        bob.node(board)["title"] = "Bob's"
        bob.text(board, "body").insert(0, "by Bob")
        await meet(alice, bob, carol)
        assert carol.node(board)["title"] == "Bob's"
        with pytest.raises(NotOwner):
            carol.node(board)["title"] = "Carol's"

        bob.node(board)["title"] = "too late"  # while he doesn't know
        bob.text(board, "body").append(", too late")
        late = await everything(bob)
        await carol.receive(late)
        versions = await carol.history.versions(board, "title")
        assert [one.op.value for one in versions] == ["Alice's", "Bob's", "too late"]
        assert carol.node(board)["title"] == "too late"
        rows = carol.query("MATCH (n {title: 'too late'}) RETURN n.title")
        assert len(rows) == 1
        alice.access.revoke(granted)
        assert alice.access.grants() == []
        async with carol.watch("~*") as watch:
            await carol.receive(await everything(alice))
            changes = {change[:3] async for change in watch_all(watch)}
        assert {(board, "title", "register"), (board, "body", "text")} <= changes
        assert carol.node(board)["title"] == "Bob's"  # what Alice had seen stays
        assert str(carol.text(board, "body")) == "by Bob"
        assert not carol.query("MATCH (n {title: 'too late'}) RETURN n.title")
        versions = await carol.history.versions(board, "title")
        assert [one.op.value for one in versions] == ["Alice's", "Bob's"]
        await meet(alice, bob, carol)
        assert str(bob.text(board, "body")) == "by Bob"
        with pytest.raises(NotOwner, match="the grant for it has ended or was revoked"):
            bob.node(board)["title"] = "again"
        for graph in (alice, bob, carol):
            await graph.verify()
        with pytest.raises(GraphError, match="only the owner"):
            bob.access.revoke(granted)
        await close(alice, bob, carol)

    async def watch_all(watch: Any) -> Any:
        watch.close()
        async for change in watch:
            yield change

    run(main())


def test_a_file_is_opened_again_with_all_that_verdicts_depend_on(tmp_path: Path) -> None:
    path = str(tmp_path / "graph.db")

    async def main() -> None:
        async with await Graph.open(path, identity=BOB) as bob:
            bob.access.allow(VOTE)
            bob.node(LUNCH)[str(BOB.id)] = "yes"
            async with await Graph.open("memory:", identity=ALICE) as alice:
                alice.access.grant(BOB.id, "board")
                await bob.receive(await everything(alice))
            bob.node(f"~{ALICE.id}/board")["k"] = 1
        async with await Graph.open(path, identity=BOB) as bob:  # by its state
            with pytest.raises(RuleBroken):
                bob.node(LUNCH)[str(BOB.id)] = "no"
            bob.node(f"~{ALICE.id}/board")["k"] = 2
            await bob.commit()
            bob.frames.store.save_state(b"\x92\x01\x02")  # a state of another version
            state = bob.replica.save()
            bob.commits._since_state = 0
        async with await Graph.open(path, identity=BOB) as bob:  # by its frames
            assert bob.replica.save() == state
            with pytest.raises(RuleBroken):
                bob.node(LUNCH)[str(BOB.id)] = "no"

    run(main())


def forge(identity: Identity, name: str, frames: list[list[tuple[Any, ...]]]) -> list[bytes]:
    """What software that knows no rules would sign."""
    maker = GraphCore(identity.id.key)
    found, previous = [], envelopes.NONE_BEFORE
    for number, rows in enumerate(frames, 1):
        with maker.trust_own():
            maker.put_registers(values.encode_rows(rows), (1_000_000 + number) << 16)
        made = maker.commit()
        assert made is not None
        one = envelopes.sign_frame(identity, name, number, previous, made[0])
        previous = one.hash
        found.append(one.encode())
    return found


SHIPS = (VOTE.root, "rules", VOTE.document)


@pytest.mark.parametrize(
    ("frames", "breach", "shown"),
    [
        (
            [[SHIPS, (LUNCH, str(CAROL.id), "yes")], [("a", "k", 1)], [(LUNCH, str(CAROL.id), "no")]],
            Breach.SECOND,
            [1, 3],
        ),
        ([[SHIPS], [(LUNCH, str(BOB.id), "yes")]], Breach.NO_RULE, [1, 2]),
        (
            [[SHIPS, (LUNCH, str(CAROL.id), "yes")], [SHIPS, (LUNCH, str(CAROL.id), "no")]],
            Breach.SECOND,
            [1, 2],
        ),
        ([[SHIPS, (LUNCH, str(CAROL.id), "maybe")]], Breach.VALUE, [1]),
    ],
)
def test_an_offence_is_proved(frames: list[list[tuple[Any, ...]]], breach: Breach, shown: list[int]) -> None:
    async def main() -> None:
        alice, bob, carol = await three("polls")
        made = forge(CAROL, "polls", frames)
        for graph in (alice, bob):
            assert await graph.receive(made) == len(made)  # what isn't forbidden counts
            assert await graph.verify() == len(made)
            (proof,) = await graph.access.offences()
            assert proof.is_valid()
            seen = [one.op.value for one in await graph.history.versions(LUNCH)]
            votes = [row[2] for rows in frames for row in rows if row[:2] == (LUNCH, str(CAROL.id))]
            assert seen == (votes[:1] if breach is Breach.SECOND else [])
            assert len(graph.query("MATCH (v:vote) RETURN v")) == bool(seen)
            assert proof.author == CAROL.id.key
            assert proof.breach is breach
            assert [one.sequence for one in proof.frames] == shown
            again = OffenceProof.decode("polls", proof.encode())
            assert again == proof
            assert again.is_valid()
            refute(proof)
        assert alice.replica.save() == bob.replica.save()
        assert await carol.access.offences() == []
        await close(alice, bob, carol)

    def refute(proof: OffenceProof) -> None:
        """Nothing less is a proof, and none of something else."""
        first = proof.frames[0]
        others = [
            dataclasses.replace(proof, breach=Breach.RATE),
            dataclasses.replace(proof, clocks=proof.clocks[:-1]),
            dataclasses.replace(proof, clocks=proof.clocks[1:]),
            dataclasses.replace(proof, frames=proof.frames[:-1]) if len(proof.frames) > 1 else None,
            dataclasses.replace(proof, document=Rules("vote", [Rule()]).document),
            dataclasses.replace(proof, document=b"none"),
            dataclasses.replace(
                proof, frames=(dataclasses.replace(first, signature=bytes(64)), *proof.frames[1:])
            ),
            dataclasses.replace(
                proof, frames=(dataclasses.replace(first, graph="another"), *proof.frames[1:])
            ),
        ]
        assert not any(one.is_valid() for one in others if one is not None)

    run(main())


def test_honest_authors_can_not_be_accused() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE, name="polls") as alice:
            alice.access.allow(VOTE)
            alice.node(LUNCH)[str(ALICE.id)] = "yes"
            await alice.commit()
            alice.node(VOTE.soul("dinner"))[str(ALICE.id)] = "no"
            data = await everything(alice)
            assert await alice.access.offences() == []
            frames = [envelopes.decode("polls", one) for one in data]
            assert all(isinstance(one, envelopes.Envelope) for one in frames)
            clocks = [alice.replica.core.check_frame(one.body)[1] for one in frames]
            first = alice.replica.core.check_frame(frames[0].body)[0]
            for breach in Breach:
                lie = OffenceProof(breach, VOTE.document, (first + 1, *clocks), tuple(frames))
                assert not lie.is_valid()

    run(main())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        values.encode([1, 2, 3]),
        values.encode([1, "second", b"", [1, 2], [b"none"]]),
        values.encode([2, "a second one, where one may be", b"", [1, 2], [b"none"]]),
        values.encode([2, [], b"", [1, 2], [b"none"]]),
        values.encode([2, "second", b"", [1, 2], []]),
        values.encode([2, "second", b"", [1, 2], [1]]),
    ],
)
def test_what_is_no_proof(data: bytes) -> None:
    with pytest.raises(OffenceError):
        OffenceProof.decode("", data)
    with pytest.raises(EnvelopeError):
        OffenceProof.decode("", values.encode([2, "second", b"", [1, 2], [b"none"]]))


def test_under_rules_nothing_is_left_out_of_what_is_sent() -> None:
    """An author's votes are among what is sent, however much is summed up."""

    async def main() -> None:
        alice, bob, carol = await three("polls")
        alice.access.allow(VOTE)
        for number in range(40):
            alice.node("a")["k"] = "x" * 500 + str(number)
            if number == 20:
                alice.node(LUNCH)[str(ALICE.id)] = "yes"
            await alice.commit()
        from dtp.graph.frames.summaries import own

        sent = [one async for some in own(alice, 1, alice.frames.vector()[ALICE.id.key]) for one in some]
        assert len(sent) < 20
        await bob.receive(sent)
        await carol.receive(await everything(alice))
        assert bob.node(LUNCH).to_dict() == {str(ALICE.id): "yes"}
        assert bob.replica.save() == carol.replica.save() == alice.replica.save()
        await close(alice, bob, carol)

    run(main())


def test_what_is_uncommitted_when_it_is_revoked() -> None:
    async def main() -> None:
        alice, bob, carol = await three()
        board = alice.own("board")
        granted = alice.access.grant(BOB.id, "board")
        await meet(alice, bob, carol)
        bob.text(board).insert(0, "seen")
        await meet(alice, bob, carol)
        alice.access.revoke(granted)
        revocation = await everything(alice)
        text = bob.text(board)
        text.append(" and not seen")
        bob.node(board)["k"] = "not seen"
        bob.node("free")["k"] = "kept"
        await bob.receive(revocation)
        assert str(text) == "seen"
        assert "k" not in bob.node(board)
        assert bob.node("free")["k"] == "kept"
        with pytest.raises(NotOwner):
            text.append("more")
        with pytest.raises(NotOwner):
            await bob.commit()  # tells once of what was taken back
        await meet(alice, bob, carol)
        assert carol.node("free")["k"] == "kept"
        await close(alice, bob, carol)

    run(main())


def test_an_edit_that_breaks_rules_is_taken_back_by_the_commit() -> None:
    notes = Rules("note", [Rule(path="*", space="text", value=Schema(size=(1, 100)))])

    async def main() -> None:
        alice, bob, carol = await three()
        alice.access.allow(notes)
        text = alice.text(notes.soul("1"))
        text.insert(0, "fine")
        await alice.commit()
        text.append("x" * 500)
        alice.node("free")["k"] = "kept"
        with pytest.raises(RuleBroken, match="such a value"):
            await alice.commit()
        assert str(text) == "fine"
        text.append("!")
        await meet(alice, bob, carol)
        assert str(carol.text(notes.soul("1"))) == "fine!"
        assert carol.node("free")["k"] == "kept"
        assert not alice.replica.must_rebuild
        await close(alice, bob, carol)

    run(main())


def test_revoked_while_the_graph_was_closed(tmp_path: Path) -> None:
    """The state has what was void only by frames that came after it was written."""
    path = str(tmp_path / "carol.db")

    async def main() -> None:
        alice, bob, carol = await three()
        await carol.close()
        board = alice.own("board")
        granted = alice.access.grant(BOB.id, "board")
        await bob.receive(await everything(alice))
        bob.node(board)["k"] = "not seen by Alice"
        async with await Graph.open(path, identity=CAROL) as carol:
            await carol.receive(await everything(bob))
            assert carol.node(board)["k"] == "not seen by Alice"
        alice.access.revoke(granted)
        late = [envelopes.decode("", one) for one in await everything(alice)]
        async with await Graph.open(
            path, identity=CAROL
        ) as carol:  # as if killed right after it had stored them
            carol.frames.store.add_frames([one for one in late if one.author == ALICE.id.key], synced=True)
            carol.commits._since_state = 0
        async with await Graph.open(path, identity=CAROL) as carol:
            assert "k" not in carol.node(board)
            await alice.receive(await everything(bob))
            assert carol.replica.save() == alice.replica.save()
        await close(alice, bob)

    run(main())
