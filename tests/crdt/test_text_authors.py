"""Whose edits of texts are: a frame's author can't put operations in another's name, and copies never share one."""

from __future__ import annotations

import random

import pytest
from crdt_replicas import author, exchange, replica
from hypothesis import given
from hypothesis import strategies as st

from dtp.core import crdt as core
from dtp.core.crdt import GraphCore
from dtp.core.errors import EncodingError
from dtp.crdt import Clock, Replica, values
from dtp.crdt.list import List
from dtp.crdt.text import Text

LIMIT = 1 << 62


def typed(agent: bytes, text: str = "x") -> bytes:
    """An edit by this agent."""
    made = Text(agent)
    made.insert(0, text)
    return made.take_changes()


def frame(edits: list[bytes], number: int = 1) -> bytes:
    """A frame of an author with these edits, and a register that would be taken with them."""
    maker = GraphCore(author(number))
    maker.put_registers(values.encode_rows([("note", "title", "taken")]), 1 << 16)
    for edit in edits:
        maker.write_op(core.TEXT_EDIT, b"note", b"", 1 << 16, value=values.encode(edit))
    made = maker.commit()
    assert made is not None
    return made[0]


def reply(victim: bytes, forger: bytes) -> bytes:
    """An honest edit of the forger's: it names the victim's characters and is the forger's all the same."""
    text = Text(forger)
    text.merge(typed(victim, "hello"))
    text.delete(1, 3)
    text.insert(1, "-")
    return text.take_changes()


def hidden_state() -> bytes:
    text = Text(author(1))
    text.insert(0, "mine alone")
    text.take_changes()
    text.delete(0, 4)
    text.compact([])
    return text.save()


HONEST = {
    "its key": typed(author(1)),
    "its key and a nonce": typed(author(1) + b"replica1"),
    "about another's text": reply(author(0), author(1) + b"replica1"),
    "two messages": typed(author(1)) + typed(author(1) + b"2"),
}
FORGED: dict[str, bytes] = {
    "another's key": typed(author(0)),
    "another's key and a nonce": typed(author(0) + b"replica1"),
    "no key": typed(b"somebody"),
    "a part of the key": typed(author(1)[:31]),
    "behind an honest one": typed(author(1)) + typed(author(0)),
    "a whole text": hidden_state(),
    "a whole text behind a change": typed(author(1)) + hidden_state(),
    "no edit": b"not an edit",
    "nothing": b"",
    "cut off": typed(author(1), "hello")[:-1],
    "something behind": typed(author(1)) + b"\0",
}


def two_groups() -> bytes:
    """One message with a group of each of two authors, as `changes_since` writes it."""
    text = Text(author(1))
    text.merge(typed(author(0), "theirs"))
    text.insert(0, "mine")
    return text.changes_since(None)


FORGED["a group of another behind an honest one"] = two_groups()


@pytest.mark.parametrize("edit", HONEST.values(), ids=HONEST.keys())
def test_edits_of_the_author(edit: bytes) -> None:
    victim = replica(0)
    assert victim.merge(author(1), frame([edit])) == 2
    assert GraphCore(bytes(32)).check_frame(frame([edit]), author(1))[2] == 2


@pytest.mark.parametrize("edit", FORGED.values(), ids=FORGED.keys())
def test_a_frame_with_a_forged_edit_is_refused_whole(edit: bytes) -> None:
    body = frame([typed(author(1), "fine"), edit])
    victim, other = replica(0), replica(2)
    victim.text("note").insert(0, "hello")
    exchange(victim, other)
    before = victim.save(), other.save()
    for one in (victim, other):
        with pytest.raises(EncodingError) as caught:
            one.merge(author(1), body)
        assert caught.value.place is not None
        assert 0 < caught.value.place <= len(body)
        assert "title" not in one.node("note")
        assert str(one.text("note")) == "hello"
    assert (victim.save(), other.save()) == before
    with pytest.raises(EncodingError):
        GraphCore(bytes(32)).check_frame(body, author(1))
    victim.merge(author(1), frame([typed(author(1), "fine")]))  # the genuine one is taken still
    assert "fine" in str(victim.text("note"))


@pytest.mark.parametrize("ahead", [0, 1, 1 << 40])
def test_markers_of_lists_are_not_later_than_their_op(ahead: int) -> None:
    """Or whoever writes one would hold against all that others do later."""
    now = 1_000_000 << 16
    items = List(author(1) + b"agent", clock=lambda: now + ahead)
    items.extend([1, 2])
    items.move(0, 1)
    items[0] = 3
    maker = GraphCore(author(1))
    maker.write_op(core.LIST_EDIT, b"l", b"", now, value=values.encode(items.take_changes()))
    made = maker.commit()
    assert made is not None
    victim = replica(0)
    before = victim.save()
    if not ahead:
        assert victim.merge(author(1), made[0]) == 1
        assert list(victim.list("l")) == [3, 1]
        return
    with pytest.raises(EncodingError):
        victim.merge(author(1), made[0])
    assert victim.save() == before


@pytest.mark.parametrize("ahead", [0, 1, 1 << 40])
def test_marks_of_texts_are_not_later_than_their_op(ahead: int) -> None:
    now = 1_000_000 << 16
    text = Text(author(1) + b"agent")
    text.insert(0, "abc")
    text.mark_encoded(0, 2, b"bold", b"\xc3", 0, now + ahead)
    maker = GraphCore(author(1))
    maker.write_op(core.TEXT_EDIT, b"t", b"", now, value=values.encode(text.take_changes()))
    made = maker.commit()
    assert made is not None
    victim = replica(0)
    before = victim.save()
    if not ahead:
        assert victim.merge(author(1), made[0]) == 1
        assert victim.text("t").spans() == [("ab", {"bold": True}), ("c", {})]
        return
    with pytest.raises(EncodingError):
        victim.merge(author(1), made[0])
    assert victim.save() == before


def test_a_forged_edit_from_the_future_is_refused_at_once() -> None:
    maker = GraphCore(author(1))
    maker.write_op(core.TEXT_EDIT, b"note", b"", 1 << 60, value=values.encode(typed(author(0))))
    made = maker.commit()
    assert made is not None
    victim = replica(0)
    before = victim.save()
    with pytest.raises(EncodingError):
        victim.merge(author(1), made[0])
    assert victim.core.first_due_clock == 0
    assert victim.save() == before


@given(st.data())
def test_whatever_is_changed_in_an_edit_nobody_else_is_taken_for_its_author(data: st.DataObject) -> None:
    edit = bytearray(reply(author(0), author(1)))
    for _ in range(data.draw(st.integers(1, 4))):
        edit[data.draw(st.integers(0, len(edit) - 1))] = data.draw(st.integers(0, 255))
    victim = replica(2)
    try:
        victim.merge(author(1), frame([bytes(edit)]))
    except EncodingError:
        return
    assert all(agent.startswith(author(1)) for agent in victim.text("note").version)


def test_a_replica_writes_as_an_agent_of_its_own_each_time() -> None:
    one = replica(0)
    one.text("note").insert(0, "abc")
    one.commit()
    again = Replica.load(one.author, one.save(), clock=one.clock)
    again.text("note").append("d")
    again.text("another").append("e")
    agents = set(again.text("note").version) | set(again.text("another").version)
    assert len(agents) == 2
    assert all(agent.startswith(one.author) and len(agent) == 40 for agent in agents)


def copies(seed: int) -> list[Replica]:
    """Three that were made from one saved replica, and write as one author."""
    first = replica(0)
    first.text("note").insert(0, "hello world")
    first.commit()
    saved = first.save()
    return [
        Replica.load(
            first.author, saved, clock=Clock(lambda: 2_000.0), random=random.Random(seed + at).randbytes
        )
        for at in range(3)
    ]


@given(st.integers(0, 1 << 32), st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), max_size=12))
def test_copies_of_one_replica_that_write_do_not_diverge(seed: int, edits: list[tuple[int, int]]) -> None:
    """Whoever gets the edits of both, in whatever order, has one text."""
    ours = copies(seed)
    made: list[bytes] = []
    for which, where in edits:
        text = ours[which].text("note")
        if where % 3 == 0 and len(text) > where:
            text.delete(where, 1)
        else:
            text.insert(min(where, len(text)), "ab"[which])
        made += [edit for _, edit in ours[which].sequences.pending_edits(1 << 20)]
    shuffled = random.Random(seed).sample(made, len(made))
    for one, order in zip(ours, (made, shuffled, made[::-1]), strict=True):
        for edit in order:
            one.sequences.apply_edit((core.TEXT, "note", ""), edit)
    assert len({str(one.text("note")) for one in ours}) == 1
    assert len({one.text("note").save() for one in ours}) == 1
