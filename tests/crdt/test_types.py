"""The types one by one: alone they are what Python's own are; together they keep their laws."""

from __future__ import annotations

import functools
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from crdt_replicas import author, exchange, replica
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from dtp.core import crdt as core
from dtp.core.errors import EncodingError, StateLimit
from dtp.crdt import TYPES, GraphValueError, Link, values

VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEY = st.text(max_size=12)


class AloneAsPython(RuleBasedStateMachine):
    """One replica's node, map, list, set and counter beside a dict, a dict, a list, a dict of elements, an int."""

    def __init__(self) -> None:
        super().__init__()
        self.replica = replica(0)
        self.pairs: list[tuple[Any, dict[str, Any]]] = [
            (self.replica.node("n"), {}),
            (self.replica.map("m"), {}),
        ]
        self.items: list[Any] = []
        self.elements: dict[str, Any] = {}
        self.sum = 0

    @rule(which=st.integers(0, 1), key=KEY, value=VALUE)
    def put(self, which: int, key: str, value: Any) -> None:
        ours, model = self.pairs[which]
        ours[key] = model[key] = value
        assert ours[key] == value

    @rule(which=st.integers(0, 1), data=st.data())
    def delete(self, which: int, data: st.DataObject) -> None:
        ours, model = self.pairs[which]
        key = data.draw(st.sampled_from([*model, "never there"]))
        if key in model:
            del ours[key], model[key]
        else:
            with pytest.raises(KeyError):
                del ours[key]
        assert key not in ours
        assert dict(ours) == model
        assert len(ours) == len(model)

    @rule(index=st.integers(-5, 5), value=VALUE)
    def insert(self, index: int, value: Any) -> None:
        self.replica.list("l").insert(index, value)
        self.items.insert(index, value)
        self.check_list()

    @rule(data=st.data(), value=VALUE)
    def edit_list(self, data: st.DataObject, value: Any) -> None:
        ours, count = self.replica.list("l"), len(self.items)
        if not count:
            with pytest.raises(IndexError):
                ours[0] = value
            return
        at = data.draw(st.integers(-count, count - 1))
        kind = data.draw(st.sampled_from(["assign", "delete", "move", "slice"]))
        if kind == "assign":
            ours[at] = self.items[at] = value
        elif kind == "delete":
            del ours[at], self.items[at]
        elif kind == "move":
            to = data.draw(st.integers(-count, count - 1))
            ours.move(at, to)
            item = self.items.pop(at)
            self.items.insert(to % count, item)
        else:
            ours[at:] = self.items[at:] = [value, 1]
        self.check_list()

    def check_list(self) -> None:
        assert list(self.replica.list("l")) == self.items
        self.replica.version += 1  # nothing may be kept from before
        assert self.replica.list("l")[:] == self.items

    @rule(value=st.text(max_size=2), adding=st.booleans())
    def change_set(self, value: str, adding: bool) -> None:
        ours = self.replica.set("s")
        if adding:
            ours.add(value)
            self.elements[value] = value
        else:
            ours.discard(value)
            self.elements.pop(value, None)
        assert set(ours) == set(self.elements)
        assert len(ours) == len(self.elements)
        assert (value in ours) == (value in self.elements)

    @rule(amount=st.integers(-(1 << 62), 1 << 62))
    def count(self, amount: int) -> None:
        ours = self.replica.counter("c")
        if -(1 << 63) <= self.sum + amount < 1 << 63:
            ours.add(amount)
            self.sum += amount
        else:
            with pytest.raises(StateLimit):
                ours.add(amount)
        assert int(ours) == ours.value == self.sum


TestAloneAsPython = AloneAsPython.TestCase


@given(VALUE)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    one = replica(0)
    one.put("s", "k", value)
    found = one.get("s", "k")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value", [3, 3.0, True, 1 << 70, -(1 << 70), 0, -1, -33, 255, 256, 1 << 32, (1 << 64) - 1]
)
def test_numbers_keep_their_kind_and_size(value: float) -> None:
    one, other = replica(0), replica(1)
    one.put("s", "k", value)
    exchange(one, other)
    assert other.get("s", "k") == value
    assert type(other.get("s", "k")) is type(value)


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, {1: 2}, {"k": {b"b": 1}}, "\ud800", lambda: 0, b"x" * (1 << 20)],
    ids=["object", "set", "key", "inner key", "surrogate", "function", "long"],
)
def test_what_can_not_be_a_value_is_refused(value: Any) -> None:
    one = replica(0)
    with pytest.raises(GraphValueError):
        one.put("s", "k", value)
    assert one.souls() == []
    assert one.commit() == []
    one.put("s", "k", 1)
    assert one.get("s", "k") == 1


def test_a_value_that_is_too_deep_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(40):
        deep = [deep]
    with pytest.raises(GraphValueError, match="deep"):
        replica(0).put("s", "k", deep)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("", "k", 1), "a soul is not empty"),
        (("x" * 1025, "k", 1), "a soul has at most 1024 bytes of UTF-8, not 1025"),
        (("s", "\u20ac" * 400, 1), "a key has at most 1024 bytes of UTF-8, not 1200"),
        ((5, "k", 1), "a soul is text, not 5"),
        (("s", None, 1), "a key is text, not None"),
        (("s", "k", {1: 2}), "the value at 's' 'k' can't be kept: the keys of dicts are text, not 1"),
        (("s", "k", [{"a": {b"b": 1}}]), "the keys of dicts are text, not b'b'"),
        (
            ("s", "k", b"x" * (1 << 20)),
            "it takes 1048581 bytes, and a value at most 1048576: keep it as a blob",
        ),
        (
            ("s", "k", functools.reduce(lambda inner, _: [inner], range(33), 1)),  # type: ignore[arg-type, return-value]
            "more than 32 lists and dicts deep",
        ),
        (("s", "k", msgpack.Timestamp(1)), "a type of MessagePack's own"),
        (("s",), r"a row is \(soul, key, value\), or \(soul, key\) to delete, not \['s'\]"),
        ("s", "a row is"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_refusal_says_which_name_or_value_is_wrong(row: Any, message: str) -> None:
    """The rows beside it are fine, and none of them is put."""
    one = replica(0)
    with pytest.raises(GraphValueError, match=message):
        one.put_many([("s", "a", 1), row, ("s", "b", 2)])
    assert one.souls() == []


@pytest.mark.parametrize("soul", ["", "x" * 1025, "\udfff"])
def test_names_that_can_not_be(soul: str) -> None:
    one = replica(0)
    with pytest.raises(GraphValueError):
        one.put(soul, "k", 1)
    with pytest.raises(GraphValueError):
        one.counter(soul).add(1)
    assert one.commit() == []


def test_links() -> None:
    one, other = replica(0), replica(1)
    alice = one.node("user/alice")
    alice.link("follows", "user/bob")
    alice.link("follows", "user/carol")
    alice.unlink("follows", "user/bob")
    alice["home"] = Link("place/1")
    exchange(one, other)
    assert other.node("user/alice").links("follows") == ["user/carol"]
    assert other.node("user/alice")["home"] == Link("place/1")


def test_who_wrote_a_value_and_when() -> None:
    one, other = replica(0), replica(1)
    one.put("a", "k", 1)
    exchange(one, other)
    assert other.node("a").written("k") == (author(0), 1_000_000 << 16)
    with pytest.raises(KeyError):
        other.node("a").written("none")


def test_a_removal_leaves_what_is_added_at_the_same_time() -> None:
    one, other = replica(0), replica(1)
    one.set("tags").add("x")
    exchange(one, other)
    one.set("tags").discard("x")
    other.set("tags").add("x")
    exchange(one, other)
    assert set(one.set("tags")) == set(other.set("tags")) == {"x"}
    one.set("tags").discard("x")
    exchange(one, other)
    assert set(other.set("tags")) == set()


def test_values_written_at_the_same_time_are_all_kept_until_one_who_saw_them_writes() -> None:
    one, other = replica(0), replica(1)
    one.map("m")["k"] = "ours"
    other.map("m")["k"] = "theirs"
    exchange(one, other)
    assert one.map("m").conflicts("k") == other.map("m").conflicts("k") == ["theirs", "ours"]
    one.map("m")["k"] = "both"
    exchange(one, other)
    assert other.map("m").conflicts("k") == ["both"]
    del other.map("m")["k"]
    one.map("m")["k"] = "again"
    exchange(one, other)
    assert other.map("m")["k"] == "again"


def test_of_two_moves_the_later_wins_and_the_item_is_there_once() -> None:
    one, other = replica(0), replica(1)
    one.list("l").extend(["a", "b", "c", "d"])
    exchange(one, other)
    one.list("l").move(0, 3)
    other.list("l").move(0, 1)
    exchange(one, other)
    assert list(one.list("l")) == list(other.list("l"))
    assert sorted(one.list("l")) == ["a", "b", "c", "d"]


def test_an_item_that_was_removed_stays_removed() -> None:
    one, other = replica(0), replica(1)
    one.list("l").extend(["a", "b"])
    exchange(one, other)
    del one.list("l")[0]
    other.list("l")[0] = "A"
    other.list("l").move(0, 1)
    exchange(one, other)
    assert list(one.list("l")) == list(other.list("l")) == ["b"]


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.booleans())
def test_runs_written_at_one_place_do_not_mix(before: list[bool], forward: bool) -> None:
    """Both write a run into the same gap, forwards or backwards: each run stays in one piece."""
    one, other = replica(0), replica(1)
    one.list("l").extend(["start", "end"])
    exchange(one, other)
    for number, _ in enumerate(before):
        one.list("l").insert(1 + number if forward else 1, f"a{number}")
        other.list("l").insert(1 + number if forward else 1, f"b{number}")
    exchange(one, other)
    merged = list(one.list("l"))
    assert merged == list(other.list("l"))
    runs = [item[0] for item in merged[1:-1]]
    assert runs in (["a"] * len(before) + ["b"] * len(before), ["b"] * len(before) + ["a"] * len(before))


def test_long_lists_keep_short_places() -> None:
    one = replica(0)
    items = one.list("l")
    items.extend(range(2000))
    for number in range(2000):
        items.insert(0, -number)
    assert len(items) == 4000
    frame = one.commit()[0]
    assert len(frame.body) / 4000 < 16
    other = replica(1)
    other.merge(frame.author, frame.body)
    assert list(other.list("l")) == list(items)


def test_every_type_has_a_name_and_a_door() -> None:
    one = replica(0)
    for name, kind in TYPES.items():
        assert type(getattr(one, name)("soul")) is kind
        assert "soul" in repr(getattr(one, name)("soul"))


def test_what_is_read_is_the_readers_own() -> None:
    one = replica(0)
    given_list = [1]
    one.list("l").append(given_list)
    given_list.append(2)
    one.list("l")[0].append(3)
    view = one.list("l")
    view.append({"k": 1})
    view[1]["k"] = 2
    assert list(view) == [[1], {"k": 1}]


def test_a_counter_tells_who_added_what() -> None:
    one, other = replica(0), replica(1)
    one.counter("hits").add(5)
    other.counter("hits").add(-2)
    exchange(one, other)
    assert one.counter("hits").by_author() == {one.author: 5, other.author: -2}
    assert int(one.counter("hits")) == 3


def test_what_others_removed_is_removed_by_its_author_as_well() -> None:
    """Then it stays away where the others' removal doesn't count."""
    one, other, third = replica(0), replica(1), replica(2)
    one.set("s").add("in a set")
    one.multi_value("v").set("a value")
    first = one.commit()[0]
    clocks = [clock for _, clock, _ in msgpack.unpackb(one.core.read_space(core.SET, b"s", b""))]
    clocks += [clock for _, clock, _ in msgpack.unpackb(one.core.read_space(core.VALUES, b"v", b""))]
    other.merge(first.author, first.body)
    other.set("s").discard("in a set")
    other.multi_value("v").clear()
    removed = other.commit()[0]
    one.merge(removed.author, removed.body)
    one.take_back(core.SET_REMOVE, "s", "", clocks[:1])
    one.take_back(core.VALUES_REMOVE, "v", "", clocks[1:])
    again = one.commit()[0]
    for frame in (first, again):
        third.merge(frame.author, frame.body)
    assert (set(third.set("s")), third.multi_value("v").values) == (set(), [])
    third.merge(removed.author, removed.body)
    one.core.release_memory()
    third.core.release_memory()
    assert one.save() == third.save()


@pytest.mark.parametrize("clocks", [[2, 1], [1, 1], [0], [1 << 62]])
def test_only_own_clocks_that_were_made_are_taken_back(clocks: list[int]) -> None:
    one = replica(0)
    one.set("s").add(1)
    one.commit()
    with pytest.raises(EncodingError):
        one.core.take_back(core.SET_REMOVE, b"s", b"", 0, clocks)
    with pytest.raises(EncodingError):
        one.core.take_back(core.SET_ADD, b"s", b"", 0, [1])
    assert one.commit() == []
    assert set(one.set("s")) == {1}


class _Interrupted(str):
    """A soul while whose bytes are made another thread runs, as it may in any of Python's own code."""

    __slots__ = ("meanwhile",)

    meanwhile: threading.Thread

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        self.meanwhile.start()
        self.meanwhile.join()
        return super().encode(encoding, errors)


def test_two_threads_write_at_the_same_time() -> None:
    """As a query beside the loop does: it packs values, too."""
    one, other, soul = replica(1), replica(2), _Interrupted("place/1")
    soul.meanwhile = threading.Thread(target=other.put, args=("n", "k", ["theirs", Link("place/2")]))
    one.put("n", "k", ["ours", Link(soul), "more of ours"])
    assert one.get("n", "k") == ["ours", Link("place/1"), "more of ours"]
    assert other.get("n", "k") == ["theirs", Link("place/2")]


def test_whether_something_is_in_a_set_does_not_depend_on_what_else_is() -> None:
    """All of the set was read: who asked before each of n additions took n^2."""
    one = replica(0)
    few, many = one.set("few"), one.set("many")
    few.add(1)
    for number in range(3_000):
        many.add(number)

    def taken(work: Callable[[], object]) -> int:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        assert 1 in few
        assert taken(lambda: 2_999 in many) < taken(lambda: 1 in few) + 1_000
    finally:
        tracemalloc.stop()
    assert 2_999 in many
    assert 3_000 not in many
    assert 1.0 not in many  # they are told apart by their bytes
    many.discard(2_999)
    assert 2_999 not in many


@pytest.mark.slow
def test_a_soul_with_many_counters() -> None:
    """For each of them all of the others were looked at, so that these took minutes to list."""
    one, other, count = replica(0), replica(1), 200_000
    for number in range(count):
        one.counter("s", str(number)).add(1)
        if number % 10_000 == 9_999:
            exchange(one, other)
    for at in (0, count - 1):
        other.counter("s", str(at)).add(-1)
        other.counter("s", str(at)).add(2)
    other.counter("s", "5").add(-1)
    exchange(one, other)
    for each in (one, other):
        listed = values.decode(each.core.read_keys(core.COUNTER, b"s"))
        assert len(listed) == len(set(listed)) == count - 1  # one comes to 0
        assert each.counter("s", "0").value == 2
        assert each.counter("s", "7").by_author() == {one.author: 1}


def test_totals_of_several_authors_at_one_soul() -> None:
    """Whoever comes first and whatever else is there, each counter has all of its totals."""
    alone = [replica(number) for number in range(4)]
    for number, one in enumerate(alone):
        for key in range(6):
            if (number + key) % 3:
                one.counter("s", str(key)).add(10**number)
            one.node("s")[str(key)] = number
            one.set("s", str(key)).add(number)
    exchange(*alone)
    for one in alone:
        listed = values.decode(one.core.read_keys(core.COUNTER, b"s"))
        assert sorted(listed) == list(map(str, range(6)))
        for key in range(6):
            counter = one.counter("s", str(key))
            assert counter.value == sum(10**number for number in range(4) if (number + key) % 3)
            assert len(counter.by_author()) == sum((number + key) % 3 > 0 for number in range(4))
        assert one.save() == alone[0].save()
