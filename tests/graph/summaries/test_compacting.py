"""Texts in graphs forget what is deleted and seen by all, at whatever times; and stay alike, also with newcomers."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from graph_fixtures import ALICE, BOB, CAROL, close, everything, identity, meet, run, three
from hypothesis import example, given
from hypothesis import strategies as st

from dtp.core.errors import NotOwner
from dtp.crdt import Clock, Replica
from dtp.crdt.permission.owners import owned_soul
from dtp.crdt.replica import Frame
from dtp.graph import Graph
from dtp.graph.frames import envelope as envelopes
from dtp.graph.upkeep.compacting import compact_texts, report_versions

KEYS = [identity.id.key for identity in (ALICE, BOB, CAROL)]


class Member:
    """A replica with the frames that it has, as a graph keeps them."""

    def __init__(self, number: int, seed: int) -> None:
        clock = Clock(lambda: 1_000.0)
        self.replica = Replica(KEYS[number], clock=clock, random=random.Random(f"{seed} {number}").randbytes)
        self.frames: list[Frame] = []

    def commit(self) -> None:
        for each in self.replica.commit():
            self.frames.append(each)

    def take(self, each: Frame) -> bool:
        """Each author's come in order."""
        mine = [frame for frame in self.frames if frame.author == each.author]
        if each.author == self.replica.author or each.after != (mine[-1].last if mine else 0):
            return False
        self.commit()
        self.replica.merge(each.author, each.body)
        self.frames.append(each)
        if self.replica.must_rebuild:
            fresh = self.replica.empty_copy()
            for frame in self.frames:
                fresh.merge(frame.author, frame.body)
            self.replica.replace_by(fresh)
        return True

    def catch_up(self, other: Member) -> None:
        other.commit()
        for each in list(other.frames):
            self.take(each)


def meet_all(members: list[Member]) -> None:
    for _ in range(2):
        for member in members:
            for other in members:
                member.catch_up(other)


STEPS = st.lists(
    st.tuples(
        st.sampled_from("eeeeeddddsrRcu"), st.integers(0, 2), st.integers(0, 2), st.integers(0, 1 << 16)
    ),
    max_size=60,
)


def edit(one: Replica, chance: random.Random) -> None:
    text = one.text("note")
    at = chance.randint(0, len(text))
    text.insert(at, chance.choice(["a", "bc", "déf", "\n"]))


#: Nothing could be forgotten, and yet an edit of somebody who was not asked has another place than it should.
STRANGER = [
    ("e", 1, 2, 14402),
    ("R", 0, 2, 50959),
    ("e", 0, 0, 36725),
    ("s", 2, 1, 21180),
    ("u", 0, 0, 58426),
    ("R", 1, 2, 35141),
    ("d", 2, 2, 12124),
    ("e", 1, 0, 38903),
    ("R", 0, 0, 27869),
    ("e", 2, 0, 46941),
    ("e", 0, 1, 64314),
    ("c", 0, 2, 48744),
]


@example(STRANGER, 8, False)
@given(STEPS, st.integers(0, 1 << 16), st.booleans())
def test_in_whatever_order_and_with_compaction_at_any_time(
    steps: list[tuple[str, int, int, int]], seed: int, everyone_is_asked: bool
) -> None:
    """e: edit, d: delete, s: sync, r: report, R: those who are asked meet and report, c: they compact, u: undo.

    The third, if it isn't asked, is a newcomer with an old copy.
    """
    members = [Member(number, seed) for number in range(3)]
    plain = Member(2, seed + 1)  # reads, and never compacts
    asked = members if everyone_is_asked else members[:2]
    for what, who, whom, number in steps:
        member, chance = members[who], random.Random(number)
        text = member.replica.text("note")
        if what == "e":
            edit(member.replica, chance)
        elif what == "d" and len(text):
            at = chance.randrange(len(text))
            text.delete(at, min(chance.randint(1, 4), len(text) - at))
        elif what == "u":
            text.undo()
        elif what == "s":
            member.catch_up(members[whom])
        elif what == "r":
            report_versions(member.replica)
        elif what == "R":
            meet_all(asked)
            for each in asked:
                report_versions(each.replica)
            if number % 2:
                meet_all(asked)
        elif what == "c" and member in asked:
            for each in asked[: 1 + number % 3]:
                each.commit()
                compact_texts(each.replica, [one.replica.author for one in asked if one is not each])
    meet_all(members)
    plain.replica.author = b"nobody that writes".ljust(32)
    for frame in members[0].frames:
        plain.take(frame)
    texts = {str(member.replica.text("note")) for member in (*members, plain)}
    assert len(texts) == 1
    for member in members:
        member.replica.text("note").check_structure()
        again = Replica.load(member.replica.author, member.replica.save(), clock=member.replica.clock)
        assert str(again.text("note")) in texts
    versions = {bytes(member.replica.text("note").encoded_version()) for member in members}
    assert len(versions) == 1


def test_what_all_have_seen_is_forgotten(tmp_path: Path) -> None:
    path = str(tmp_path / "alice.db")

    async def main() -> None:
        alice, bob, carol = await three()
        await alice.close()
        alice = await Graph.open(path, identity=ALICE)
        text = alice.text("note")
        text.insert(0, "x" * 5000)
        await meet(alice, bob, carol)
        text.delete(10, 4980)
        carol.text("note").append("!")
        bob.text("note").insert(0, "?")
        await meet(alice, bob, carol)
        assert text.deleted == 4980
        for graph in (alice, bob, carol):
            assert await graph.upkeep.compact() == 0  # nobody has said yet what it has seen
        await bob.receive(await everything(alice))
        assert await bob.upkeep.compact() == 0  # and Carol's word is not here
        for graph in (alice, bob, carol):
            for other in (alice, bob, carol):
                await graph.receive(await everything(other))
        for graph in (alice, bob, carol):
            assert await graph.upkeep.compact() == 4979
            assert graph.text("note").deleted == 1
            assert str(graph.text("note")) == "?" + "x" * 20 + "!"
        text.append(" on we go")
        text.undo()
        text.append(".")
        for graph in (bob, carol):
            await graph.receive(await everything(alice))
            assert str(graph.text("note")) == str(text)
        saved = alice.replica.save()
        await alice.close()
        async with await Graph.open(path, identity=ALICE) as alice:  # also what was compacted is kept
            assert alice.replica.save() == saved
            assert alice.text("note").deleted == 10
        for graph in (bob, carol):
            await graph.close()

    run(main())


def test_someone_new_who_had_an_old_copy() -> None:
    """It was not asked; its edits stand where they stand for those who never forgot anything."""

    async def main() -> None:
        alice, bob, carol = await three()
        alice.text("note").insert(0, "one two three")
        old = await everything(alice)
        await carol.receive(old)
        carol.text("note").insert(6, "and a half")  # in the middle of what is deleted meanwhile
        await bob.receive(old)
        bob.text("note").append(".")
        await alice.receive(await everything(bob))
        alice.text("note").delete(3, 10)
        for graph, other in ((bob, alice), (alice, bob)) * 3:
            await graph.receive(await everything(other))
            await graph.upkeep.compact()
        assert alice.text("note").deleted <= 1
        anchor = alice.text("note").anchor(3)
        late = await everything(carol)
        for graph in (alice, bob):
            opened = graph.text("note")
            await graph.receive(late)
            assert not graph.replica.must_rebuild
            assert str(opened) == "oneand a half."
        assert alice.text("note").position(anchor) == 3
        for graph in (alice, bob):
            await carol.receive(await everything(graph))
        assert str(carol.text("note")) == "oneand a half."
        alice.text("note").append("!")
        await meet(alice, bob, carol)
        for graph in (alice, bob, carol):
            await graph.close()

    run(main())


def test_who_is_gone_for_good_is_not_asked() -> None:
    async def main() -> None:
        alice, bob, carol = await three()
        for graph in (alice, bob, carol):
            graph.text("note").insert(0, "some text ")
        await meet(alice, bob, carol)
        alice.text("note").delete(5, 20)
        await bob.receive(await everything(alice))
        for graph, other in ((bob, alice), (alice, bob)) * 2:
            await graph.receive(await everything(other))
            assert await graph.upkeep.compact() == 0
        assert await alice.upkeep.compact(gone=[CAROL.id]) > 0
        carol.text("note").append("she is back")
        await alice.receive(await everything(carol))
        await meet(alice, bob, carol)
        assert str(alice.text("note")).endswith("she is back")
        for graph in (alice, bob, carol):
            await graph.close()

    run(main())


def test_undo_of_ones_own_edits() -> None:
    async def main() -> None:
        alice, bob, carol = await three()
        text = alice.text("note")
        text.insert(0, "hello")
        text.end_step()
        text.insert(5, " world")
        await meet(alice, bob, carol)
        bob.text("note").insert(0, "Bob: ")
        await meet(alice, bob, carol)
        assert text.undo_steps == 2
        text.undo()
        assert str(text) == "Bob: hello"
        text.redo()
        text.undo()
        text.undo()
        assert str(text) == "Bob: "
        assert text.undo() is None  # what others wrote isn't one's own
        await meet(alice, bob, carol)
        assert str(carol.text("note")) == "Bob: "
        text.redo()
        await meet(alice, bob, carol)
        assert str(bob.text("note")) == "Bob: hello"
        for graph in (alice, bob, carol):
            await graph.close()

    run(main())


async def three_that_forgot(tmp_path: Path, *, alice_deletes: bool = False) -> tuple[Graph, Graph, Graph]:
    """Alice's text was deleted by Bob, who wrote another; all have seen that, and Bob and Carol have forgotten it."""
    alice = await Graph.open(str(tmp_path / "alice.db"), identity=ALICE)
    bob, carol = [await Graph.open("memory:", identity=one) for one in (BOB, CAROL)]
    alice.text("note").insert(0, "xyz")
    alice.list("queue").extend("xyz")
    if alice_deletes:
        alice.text("note").insert(3, "!")
        alice.text("note").delete(3)
        alice.list("queue").append("!")
        del alice.list("queue")[3]
    await meet(alice, bob, carol)
    bob.text("note").delete(0, 3)
    bob.text("note").insert(0, "Bob.")
    del bob.list("queue")[:]
    bob.list("queue").append("Bob")
    for _ in range(2):
        await meet(alice, bob, carol)
        for graph in (alice, bob, carol):
            await graph.upkeep.compact()
    return alice, bob, carol


async def places_differ_nowhere(alice: Graph, *others: Graph) -> None:
    """Alice writes what stands beside Bob's text; all show it where those do who never forgot anything."""
    alice.text("note").insert(0, "Alice. ")
    alice.list("queue").insert(0, "Alice")
    await alice.commit()
    async with await Graph.open("memory:", identity=identity("judge")) as judge:
        for graph in (others[0], alice):
            await judge.receive(await everything(graph))
        for graph in others:
            await graph.receive(await everything(alice))
            assert str(graph.text("note")) == str(judge.text("note"))
            assert list(graph.list("queue")) == list(judge.list("queue"))


def test_who_bans_somebody_has_not_seen_what_it_said(tmp_path: Path) -> None:
    async def main() -> None:
        alice, bob, carol = await three_that_forgot(tmp_path)
        await alice.admission.ban(BOB.id)
        assert str(alice.text("note")) == "xyz"
        await places_differ_nowhere(alice, bob, carol)
        await alice.admission.unban(BOB.id)
        assert bob.text("note").deleted == 3
        for graph, other in ((alice, bob), (bob, alice), (carol, alice), (alice, carol), (bob, carol)) * 2:
            await graph.receive(await everything(other))
            await graph.upkeep.compact()
        assert bob.text("note").deleted == 1  # what Alice says now counts
        await places_differ_nowhere(alice, bob, carol)
        await close(alice, bob, carol)

    run(main())


def test_a_ban_tells_nothing_of_whoever_said_nothing() -> None:
    async def main() -> None:
        async with await Graph.open("memory:", identity=ALICE) as alice:
            await alice.admission.ban(BOB.id)
            assert alice.frames.vector() == {}

    run(main())


def test_a_restored_store_has_not_seen_what_it_said(tmp_path: Path) -> None:
    """It hears of its own frames by somebody who hadn't got all that it had seen."""
    path, backup = tmp_path / "alice.db", tmp_path / "backup"

    async def main() -> None:
        async with await Graph.open(str(path), identity=ALICE) as alice:
            alice.node("mine")["k"] = 1
        shutil.copy(path, backup)
        alice, bob, carol = await three_that_forgot(tmp_path)
        own = [one for one in await everything(alice) if envelopes.decode("", one).author == ALICE.id.key]
        await alice.close()
        shutil.copy(backup, path)
        alice = await Graph.open(str(path), identity=ALICE)
        await alice.receive(own)
        await alice.recover()
        assert str(alice.text("note")) == "xyz"
        await places_differ_nowhere(alice, bob, carol)
        await close(alice, bob, carol)

    run(main())


@pytest.mark.parametrize("first_said", [False, True])
def test_a_store_that_lost_frames_of_others_has_not_seen_what_it_said(
    tmp_path: Path, first_said: bool
) -> None:
    """It is written in before it has synced, maybe after it said what is left; nothing else tells of the loss."""

    async def main() -> None:
        alice, bob, carol = await three_that_forgot(tmp_path, alice_deletes=first_said)
        await alice.close()
        with closing(sqlite3.connect(tmp_path / "alice.db", isolation_level=None)) as file:
            file.execute(
                "DELETE FROM frames WHERE author = (SELECT id FROM authors WHERE key = ?)", KEYS[1:2]
            )
            file.execute("DELETE FROM state")
        alice = await Graph.open(str(tmp_path / "alice.db"), identity=ALICE)
        assert str(alice.text("note")) == "xyz"
        if first_said:
            await alice.upkeep.compact()
        await places_differ_nowhere(alice, bob, carol)
        await close(alice, bob, carol)

    run(main())


def test_who_was_killed_when_it_banned_somebody_has_not_seen_what_it_said(tmp_path: Path) -> None:
    """The ban is kept, and it hadn't said yet that less is there."""

    async def main() -> None:
        alice, bob, carol = await three_that_forgot(tmp_path)
        with mock.patch.object(Replica, "take_back_seen"):
            await alice.admission.ban(BOB.id)
        await alice.close()
        alice = await Graph.open(str(tmp_path / "alice.db"), identity=ALICE)
        assert str(alice.text("note")) == "xyz"
        await places_differ_nowhere(alice, bob, carol)
        await close(alice, bob, carol)

    run(main())


def test_what_was_seen_is_said_by_oneself_alone(tmp_path: Path) -> None:
    """Whoever was granted all that is Alice's can't say for her what she has seen."""

    async def main() -> None:
        alice, bob, carol = await three_that_forgot(tmp_path)
        grant = alice.access.grant(BOB.id, "")
        await meet(alice, bob, carol)
        bob.access.use(grant)
        await bob.commit()
        with pytest.raises(NotOwner):
            bob.node(owned_soul(ALICE.id.key, ".seen"))["anew"] = True
        await close(alice, bob, carol)

    run(main())
