"""Souls that are somebody's own: what others write there is void, everywhere alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from crdt_replicas import Wall, author, exchange, replica

from dtp.core import crdt as core
from dtp.core.errors import NotOwner
from dtp.crdt import Replica, values
from dtp.crdt.list import List
from dtp.crdt.permission.owners import owned_soul
from dtp.crdt.replica import owner_name
from dtp.crdt.text import Text
from dtp.identity import Identity


def test_the_owner_is_named_as_identities_are() -> None:
    me = Identity(bytes(range(32)))
    assert owner_name(me.id.key) == str(me.id)
    assert owned_soul(me.id.key) == f"~{me.id}"
    assert owned_soul(me.id.key, "a/b") == f"~{me.id}/a/b"


def test_the_owner_writes_and_all_read() -> None:
    one, other = replica(0), replica(1)
    mine = owned_soul(one.author, "profile")
    one.put(mine, "name", "A")
    one.put(owned_soul(one.author), "k", 1)
    one.set(mine, "tags").add("x")
    one.text(mine).insert(0, "hello")
    exchange(one, other)
    assert other.get(mine, "name") == "A"
    assert other.get(owned_soul(one.author), "k") == 1
    assert str(other.text(mine)) == "hello"
    assert other.save() == one.save()
    again = Replica.load(other.author, other.save(), clock=other.clock)
    assert again.save() == one.save()
    one.put(mine, "name", "A2")
    (frame,) = one.commit()
    assert again.merge(frame.author, frame.body) == 1


WRITES: list[Callable[[Replica, str], object]] = [
    lambda one, soul: one.put(soul, "k", 1),
    lambda one, soul: one.delete(soul, "k"),
    lambda one, soul: one.put_many([("fine", "k", 1), (soul, "k", 1)]),
    lambda one, soul: one.counter(soul).add(1),
    lambda one, soul: one.set(soul).add(1),
    lambda one, soul: one.map(soul).update(k=1),
    lambda one, soul: one.list(soul).append(1),
    lambda one, soul: one.text(soul).insert(0, "x"),
    lambda one, soul: one.text(soul).edit([(0, 0, "x")]),
]


@pytest.mark.parametrize("number", range(len(WRITES)))
@pytest.mark.parametrize(
    "soul", [owned_soul(author(1), "x"), owned_soul(author(1)), owned_soul(author(0)) + "x", "~", "~x"]
)
def test_nobody_writes_elsewhere(number: int, soul: str) -> None:
    one = replica(0)
    with pytest.raises(NotOwner):
        WRITES[number](one, soul)
    assert one.commit() == []
    assert one.souls() == []


def test_what_is_written_all_the_same_is_void_everywhere() -> None:
    """By a replica whose software doesn't care: it believes to be the owner."""
    owner, one, late = replica(0), replica(2), replica(3)
    mine = owned_soul(owner.author, "x")
    owner.put(mine, "k", "genuine")
    owner.list(mine).append("item")
    (genuine,) = owner.commit()
    forger = core.GraphCore(author(1))
    forger.set_owner(0, owner_name(owner.author).encode())
    number = forger.author_number(owner.author)
    forger.set_owner(number, owner_name(owner.author).encode())
    forger.merge_frame(number, genuine.body, 1 << 62)
    ((*_, item),) = values.decode(forger.read_edits())
    now, soul = 2_000_000 << 16, mine.encode()
    forger.put_registers(values.encode_rows([(mine, "k", "forged"), ("free", "k", "fine")]), now)
    forger.write_op(core.COUNTER_TOTAL, soul, b"", now, value=b"\x05")
    forger.write_op(core.SET_ADD, soul, b"", now, value=b"\x05")
    typed = Text(author(1))
    typed.insert(0, "forged")
    forger.write_op(core.TEXT_EDIT, soul, b"", now, value=values.encode(typed.take_changes()))
    removed = List(author(1))
    removed.merge(item)
    removed.clear()
    assert forger.write_op(core.LIST_EDIT, soul, b"", now, value=values.encode(removed.take_changes()))
    made = forger.commit()
    assert made is not None
    body, after, last = made

    wall = Wall(3_000)
    for each in (owner, one, late):
        each.clock.wall = wall
    one.merge(owner.author, genuine.body)
    one.merge(author(1), body)
    late.merge(author(1), body)
    late.merge(owner.author, genuine.body)
    owner.merge(author(1), body)
    for each in (owner, one, late):
        assert each.get(mine, "k") == "genuine"
        assert list(each.list(mine)) == ["item"]
        assert each.counter(mine).value == 0
        assert len(each.set(mine)) == 0
        assert str(each.text(mine)) == ""
        assert each.get("free", "k") == "fine"
        assert each.core.has_all(each.core.author_number(author(1)), after, last)  # it counts as seen
    assert owner.save() == one.save() == late.save()
