"""Lists on the sequence core: as Python's own for one replica, alike everywhere for several, for any history."""

from __future__ import annotations

import contextlib
import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import list_reference, text_reference

from dtp.core.sequence import TextFormat, TextMemory, TextRange, TextReference, TextStale, TextWaiting
from dtp.crdt import GraphValueError, Link
from dtp.crdt import values as encoding
from dtp.crdt.list import ELEMENT_BYTES, List, ListPatch
from dtp.crdt.text import Text


def checked(one: List) -> list[Any]:
    one.check_structure()
    return list(one)


def patched(view: list[Any], patches: list[ListPatch]) -> None:
    for position, deleted, inserted in patches:
        view[position : position + deleted] = inserted


def edit(one: List, rng: random.Random, number: int) -> None:
    count = len(one)
    match rng.choice(["insert", "insert", "delete", "move", "assign"]) if count else "insert":
        case "insert":
            at = rng.randint(0, count)
            one[at:at] = [number * 10 + i for i in range(rng.randint(1, 3))]
        case "delete":
            at = rng.randrange(count)
            del one[at : at + rng.randint(1, 3)]
        case "move":
            one.move(rng.randrange(count), rng.randrange(count))
        case _:
            one[rng.randrange(count)] = f"assigned {number}"


@given(st.integers(0, 1 << 32), st.integers(1, 80))
def test_one_replica_is_like_a_list(seed: int, steps: int) -> None:
    rng, one, model = random.Random(seed), List(b"A"), list[Any]()
    for number in range(steps):
        count = len(model)
        at, to = rng.randint(-count - 1, count + 1), rng.randint(-count - 1, count + 1)
        match rng.randrange(7):
            case 0 | 1:
                one.insert(at, number)
                model.insert(at, number)
            case 2:
                one.extend([number, None])
                model.extend([number, None])
            case 3 if -count <= at < count:
                one[at] = [number]
                model[at] = [number]
            case 4 if -count <= at < count and -count <= to < count:
                one.move(at, to)
                model.insert(to % count, model.pop(at))
            case 5:
                del one[at:to]
                del model[at:to]
            case _ if -count <= at < count:
                assert one.pop(at) == model.pop(at)
        assert checked(one) == model
        assert one[at:to] == model[at:to]
        assert one[::-2] == model[::-2]
    loaded = List.load(one.save(), b"B")
    assert checked(loaded) == model
    assert loaded.save() == one.save()


@given(st.integers(0, 1 << 32), st.integers(2, 4), st.integers(1, 60))
def test_any_history_is_shown_as_the_second_implementation_shows_it(
    seed: int, count: int, steps: int
) -> None:
    rng = random.Random(seed)
    now = [0]
    lists = [List(bytes((65 + number,)), clock=lambda: now[0]) for number in range(count)]
    views: list[list[Any]] = [[] for _ in lists]
    sent: list[bytes] = []
    for number in range(steps):
        which = rng.randrange(count)
        now[0] = rng.randint(0, 40)
        if sent and rng.randrange(2):
            patched(views[which], lists[which].apply(rng.choice(sent)))
        else:
            edit(lists[which], rng, number)
            views[which] = list(lists[which])
            if rng.randrange(3) and (changes := lists[which].take_changes()):
                sent.append(changes)
        assert checked(lists[which]) == views[which]
    sent += [changes for one in lists if (changes := one.take_changes())]
    for one, view in zip(lists, views, strict=True):
        rng.shuffle(sent)
        for message in sent:
            patched(view, one.apply(message))
            one.check_structure()
        assert one.waiting == 0
        assert list(one) == view
    expected = [encoding.decode(value) for value in list_reference.shown(list_reference.merge(sent))]
    assert all(view == expected for view in views)
    assert len({one.save() for one in lists}) == 1
    version = lists[0].version
    for one in lists:
        one.compact([version])
        assert checked(one) == expected
    (state,) = {one.save() for one in lists}
    loaded = List.load(state, b"loaded")
    assert checked(loaded) == expected
    assert loaded.save() == state
    for number, one in enumerate(lists):
        edit(one, rng, steps + number)
    late = [changes for one in lists if (changes := one.take_changes())]
    for one in (*lists, loaded):
        for message in late:
            one.merge(message)
    assert len({str(checked(one)) for one in (*lists, loaded)}) == 1


def test_what_two_do_to_one_element_at_the_same_time() -> None:
    one, other = List(b"A", clock=lambda: 5), List(b"B", clock=lambda: 7)
    one.extend("abc")
    other.merge(one.take_changes())
    one.move(0, 2)
    one[0] = "B1"
    other.move(0, 1)
    other[2] = "C"
    for here, there in ((one, other), (other, one)):
        here.merge(there.changes_since(here.version))
    assert list(one) == list(other) == ["B1", "a", "C"]  # the later move holds, and both assignments
    del one[1]
    other.move(1, 0)
    other[0] = "again"
    for here, there in ((one, other), (other, one)):
        here.merge(there.changes_since(here.version))
    assert list(one) == list(other) == ["B1", "C"]  # what was removed stays removed


def test_of_equal_clocks_the_greater_author_and_then_what_it_did_last_holds() -> None:
    one, other = List(b"A", clock=lambda: 5), List(b"B", clock=lambda: 5)
    one.append(0)
    other.merge(one.take_changes())
    one[0] = "A"
    for value in range(3):
        other[0] = value
    one.merge(other.take_changes())
    other.merge(one.take_changes())
    assert list(one) == list(other) == [2]
    one[0] = "later"
    other.merge(one.take_changes())
    assert list(other) == ["later"]


@pytest.mark.parametrize("time", [0, 5])
def test_who_edits_last_holds_whoever_had_the_same_clock(time: int) -> None:
    """Of three markers with one stamp the latest is deleted by the next; the other one isn't to come up instead."""
    ends: list[Any] = []
    for order in itertools.permutations(b"ABC"):
        replicas = [List(bytes([name]), clock=lambda: time) for name in order]
        replicas[0].extend([1, 2, 3])
        first = replicas[0].take_changes()
        for one in replicas[1:]:
            one.merge(first)
        for one in replicas:
            one[0] = "at the same time"
            one.move(0, 1)
        sent = [one.take_changes() for one in replicas]
        for one in replicas:
            for message in sent:
                one.merge(message)
        late = List.load(replicas[0].save(), bytes([order[0]]), clock=lambda: time)
        for one in (*replicas, late):
            at = list(one).index("at the same time")
            one[at] = "then"
            one.move(at, 2)
            assert checked(one) == [2, 3, "then"]
        ends.append(list(replicas[0]))
    assert ends == [[2, 3, "then"]] * 6


def test_markers_of_an_element_that_somebody_deleted_meanwhile_are_forgotten_with_it() -> None:
    """No deletion names them: whoever deleted the element did not know them."""
    clock = itertools.count(1).__next__
    replicas = [List(name, clock=clock) for name in (b"A", b"B", b"C")]
    one, other, third = replicas
    one.extend(["x" * 100] * 20)
    base = one.take_changes()
    other.merge(base)
    third.merge(base)
    for at in range(20):
        one[at] = "y" * 100
        third.move(at, 19 - at)
    del other[2:]
    messages = [replica.take_changes() for replica in replicas]
    for replica in replicas:
        replica.merge(b"".join(messages))
    assert len({replica.save() for replica in replicas}) == 1
    assert len(one.save()) > 18 * 100
    versions = [replica.version for replica in replicas]
    for replica in replicas:
        assert replica.compact(versions) >= 18
        assert checked(replica) == ["y" * 100] * 2
        assert len(replica.save()) < 600
    assert len({replica.save() for replica in replicas}) == 1
    again = List.load(one.save(), b"D")
    assert checked(again) == checked(one)
    third[0] = "z"
    del one[1]
    messages = [replica.take_changes() for replica in replicas]
    for replica in (*replicas, again):
        replica.merge(b"".join(messages))
        assert checked(replica) == ["z"]
    assert len({replica.save() for replica in (*replicas, again)}) == 1


def test_memory_of_markers_that_are_gone_is_given_back() -> None:
    """After compaction a list holds no more than one that was loaded from its bytes."""
    one = List(b"A", clock=itertools.count(1).__next__)
    one.extend(range(10))
    for number in range(20_000):
        one[number % 10] = number
    one.take_changes()
    one.compact([])
    assert checked(one) == list(range(19_990, 20_000))
    assert one.memory < List.load(one.save(), b"B").memory
    one[3] = "still a list"
    assert checked(one)[3] == "still a list"


def test_a_marker_that_is_deleted_gives_way_to_the_next() -> None:
    """Nobody does that alone here, but any message may; whoever gets it without the marker's bytes shows the same."""
    one, other, third = (List(name, clock=lambda: 9) for name in (b"A", b"B", b"C"))
    one.extend([1, 2, 3])
    first = one.take_changes()
    other.merge(first)
    one.move(0, 1)
    one[0] = "two"
    other.move(0, 2)
    other[0] = "due"
    view = list(one)
    patched(view, one.apply(other.take_changes()))
    assert checked(one) == view == ["due", 3, 1]
    for number, shown in (
        (0, ["due", 1, 3]),
        (1, ["two", 1, 3]),
    ):  # what `other` inserted as its operations 0 and 1
        deleted = b"\xd3" + text_reference.encode([(b"C", text_reference.Delete(number, (b"B", number)))])[1:]
        patched(view, one.apply(deleted))
        assert checked(one) == view == shown
    third.merge(one.save())
    assert checked(third) == view
    assert third.save() == one.save()


@pytest.mark.parametrize("held", [[], [1, 2]])
def test_patches_of_a_state_have_what_is_shown(held: list[Any]) -> None:
    one = List(b"A")
    one.extend([1, 2])
    first = one.take_changes()
    one.extend([3, 4])
    one.move(0, 2)
    one[1] = "x"
    then = one.take_changes()
    del one[-1]
    one.compact([])
    for before in (b"", then):  # also behind a message with patches of its own
        other = List(b"B")
        if held:
            other.merge(first)
        view = list(other)
        assert view == held
        patched(view, other.apply(first + before + one.save()))
        assert checked(other) == view == list(one) == [2, "x", 1]


def test_moves_of_large_values_cost_what_is_sent() -> None:
    """The patches of one edit don't have a large value as often as it is moved, which takes a few bytes."""
    one, other = List(b"A"), List(b"B")
    one.extend([b"x" * 200_000, b"y" * 200_000, 3])
    first = one.take_changes()
    message = b""
    for number in range(1000):
        one.move(number % 2, 2)
        message += one.take_changes()
    assert len(message) < 100_000
    view: list[Any] = []
    patched(view, other.apply(first))
    patches = other.apply(message)
    patched(view, patches)
    assert checked(other) == view == list(one)
    assert len(patches) == 1
    assert other.memory < 4_000_000
    one.move(0, 1)
    patches = other.apply(one.take_changes())
    assert [(patch.position, patch.deleted) for patch in patches] == [(0, 1), (1, 0)]


def test_values_of_all_kinds_and_what_can_be_none() -> None:
    one = List(b"A")
    held = [None, True, 0, -7, 1 << 90, 1.5, "x", b"y", Link("node"), [1, [2]], {"k": [3]}]
    one.extend(held)
    assert list(one) == held
    assert one[3:5] == [-7, 1 << 90]
    for value in (object(), {1: 2}, float, [[object()]]):
        with pytest.raises(GraphValueError):
            one.append(value)
        with pytest.raises(GraphValueError):
            one[0] = value
    with pytest.raises(GraphValueError, match="blob"):
        one.append(b"x" * ELEMENT_BYTES)
    with pytest.raises(GraphValueError):
        one[2:4] = [1, object()]
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    with pytest.raises(GraphValueError, match="deep"):
        one.append(deep)
    assert list(one) == held
    for place in (slice(0, 2), slice(None, 4, 2), slice(3, 1, -1), slice(5, 1)):
        for value in (object(), deep, b"x" * ELEMENT_BYTES):
            with pytest.raises(GraphValueError):
                one[place] = [1, value]
        assert list(one) == held  # nothing of it
    for index in (len(held), -len(held) - 1):
        with pytest.raises(IndexError):
            one[index]
        with pytest.raises(IndexError):
            one[index] = 1
        with pytest.raises(IndexError):
            one.move(0, index)


class Place:
    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


def test_places_are_what_a_list_of_python_takes_for_them() -> None:
    one, model = List(b"A"), list[Any]()
    places: list[Any] = [0, 1, 1, -1, -7, 9, True, Place(2), Place(-1), 1 << 40, -(1 << 40)]
    for number, place in enumerate(places):
        one.insert(place, number)
        model.insert(place, number)
        assert list(one) == model
    for wrong in (1.0, "1"):
        with pytest.raises(TypeError):
            one.insert(wrong, 1)  # type: ignore[arg-type]
    for beyond in (-1, len(model) + 1, 1 << 64):
        with pytest.raises(TextRange):
            one.insert_encoded(beyond, b"\1")
    assert list(one) == model


def test_what_is_read_is_the_readers_own() -> None:
    one = List(b"A")
    given_list = [1]
    one.append(given_list)
    given_list.append(2)
    one[0].append(3)
    assert list(one) == [[1]]


@given(st.binary(max_size=60), st.integers(0, 1 << 16), st.integers(0, 7))
def test_no_bytes_do_harm(garbage: bytes, at: int, bit: int) -> None:
    one, other = List(b"A", clock=lambda: 4), List(b"B")
    one.extend(["x", "y", "z"])
    one.move(0, 2)
    one[0] = "w"
    message = bytearray(one.take_changes())
    message[at % len(message)] ^= 1 << bit
    for data in (bytes(message), b"\xd3" + garbage, b"\xd4" + garbage, garbage):
        with contextlib.suppress(TextFormat, TextReference, TextStale, TextWaiting):
            other.merge(data)
        checked(other)
    other.append("still")
    assert checked(other)[-1] == "still"


def inserted(number: int, char: str, after: int | None = None) -> tuple[bytes, text_reference.Insert]:
    """An insertion of author Z behind what it inserted as its operation `after`."""
    parent = None if after is None else (b"Z", after)
    return b"Z", text_reference.Insert(number, text_reference.RIGHT, parent, None, char)


SEVEN = list_reference.value_cell(b"\x07")
MOVED = list_reference.marker_cell(0, 5, (b"Z", 0))
ASSIGNED = list_reference.marker_cell(1, 5, (b"Z", 0), b"\x08")


@pytest.mark.parametrize(
    ("cell", "markers"),
    [
        (MOVED, ()),
        (SEVEN, (1,)),
        (list_reference.marker_cell(2, 5, (b"Z", 0)), (1,)),
        (list_reference.marker_cell(0, 1 << 62, (b"Z", 0)), (1,)),
        (list_reference.marker_cell(0, 5, (b"", 0)), (1,)),
        (list_reference.marker_cell(0, 5, (b"x" * 65, 0)), (1,)),
        (list_reference.marker_cell(0, 5, (b"Z", 2**31)), (1,)),
        (list_reference.marker_cell(0, 5, (b"Z", 0), b"\x08"), (1,)),
        (list_reference.marker_cell(1, 5, (b"Z", 0)), (1,)),
        (list_reference.marker_cell(1, 5, (b"Z", 0), b"\x08\x08"), (1,)),
        (list_reference.marker_cell(1, 5, (b"Z", 0), b"\xc1"), (1,)),
        (list_reference.value_cell(b"\xc1"), ()),
        (list_reference.value_cell(b"\x07\x07"), ()),
        (list_reference.value_cell(b"\xa2x"), ()),
        ("\0", ()),
    ],
)
def test_forms_that_no_element_has_are_refused_whole(cell: str, markers: tuple[int, ...]) -> None:
    one = List(b"A")
    one.append("kept")
    before = one.save()
    for good, where in ((MOVED, (1,)), (ASSIGNED, (1,)), (SEVEN, ())):
        told = text_reference.encode([inserted(0, SEVEN), inserted(1, good, 0)], is_list=True, markers=where)
        List(b"B").merge(told)
    with pytest.raises(TextFormat):
        one.merge(
            text_reference.encode([inserted(0, SEVEN), inserted(1, cell, 0)], is_list=True, markers=markers)
        )
    assert one.save() == before
    with pytest.raises(TextFormat):  # no text has markers
        Text(b"A").merge(text_reference.encode([inserted(0, "x")], markers=(0,)))


def test_markers_of_what_is_no_element() -> None:
    """A marker about a marker has no effect, one about what isn't here waits, one about a deletion is a fault."""
    one = List(b"A")
    about_marker = list_reference.marker_cell(0, 9, (b"Z", 1))
    assigns_marker = list_reference.marker_cell(1, 9, (b"Z", 1), b"\x09")
    operations = [
        inserted(0, SEVEN),
        inserted(1, MOVED, 0),
        inserted(2, about_marker, 1),
        inserted(3, assigns_marker, 2),
    ]
    message = text_reference.encode(operations, is_list=True, markers=(1, 2, 3))
    view: list[Any] = []
    patched(view, one.apply(message))
    assert checked(one) == view == [7]
    assert [encoding.decode(value) for value in list_reference.shown(list_reference.merge([message]))] == [7]
    assert checked(List.load(one.save(), b"B")) == [7]
    absent = list_reference.marker_cell(0, 9, (b"Y", 0))
    one.merge(text_reference.encode([inserted(4, absent, 3)], is_list=True, markers=(0,)))
    assert one.waiting == 1
    assert checked(one) == [7]
    told = [
        inserted(0, SEVEN),
        (b"Z", text_reference.Delete(1, (b"Z", 0))),
        inserted(2, list_reference.marker_cell(0, 9, (b"Z", 1)), 0),
    ]
    with pytest.raises(TextReference):
        List(b"C").merge(text_reference.encode(told, is_list=True, markers=(2,)))  # type: ignore[arg-type]


def test_texts_and_lists_refuse_each_others_messages() -> None:
    text, items = Text(b"A"), List(b"B")
    text.insert(0, "a")
    items.append("a")
    for data in (text.save(), text.take_changes()):
        with pytest.raises(TextFormat):
            items.merge(data)
    for data in (items.save(), items.take_changes()):
        with pytest.raises(TextFormat):
            text.merge(data)
    assert (str(text), list(items)) == ("a", ["a"])


@pytest.mark.parametrize("seed", range(4))
def test_without_memory_nothing_is_lost(seed: int) -> None:
    """Every refusal leaves a list that goes on, and that merges all once there is memory again."""
    rng, source = random.Random(seed), List(b"A", clock=lambda: 1)
    sent = []
    for number in range(120):
        edit(source, rng, number)
        sent.append(source.take_changes())
    target = List(b"B")
    refused = 0
    for message in sent:
        target.memory_limit = target.memory + rng.randint(0, 600)
        try:
            target.merge(message)
        except TextMemory:
            refused += 1
            target.memory_limit = 0  # reading takes some, too
            checked(target)
            target.merge(message)
        target.memory_limit = 0
        checked(target)
    assert refused
    target.memory_limit = 0
    assert list(target) == list(source)
    assert target.save() == source.save()


def by_turns(turns: int) -> float:
    """Bytes of memory for each element that five append by turns."""
    five = [List(bytes((65 + number,)) * 40) for number in range(5)]
    for turn in range(turns):
        one = five[turn % 5]
        one.append(turn % 100)
        message = one.take_changes()
        for other in five:
            if other is not one:
                other.merge(message)
    memory = five[0].memory  # saving takes some, too
    assert len({one.save() for one in five}) == 1
    assert list(five[0]) == [turn % 100 for turn in range(turns)]
    return memory / turns


def of_age(turns: int) -> dict[str, float]:
    """Bytes of memory for each operation of histories that ended lists before."""
    front, gap, queue = List(b"A"), List(b"B"), List(b"C")
    gap.extend([0, 0])
    for turn in range(turns):
        front.insert(0, 1)
        gap.insert(1, 1)
        queue.append(1)
        if turn >= 10:
            del queue[0]
    assert (len(front), len(gap), len(queue)) == (turns, turns + 2, 10)
    found = {"front": front.memory / turns, "gap": gap.memory / turns, "queue": queue.memory / turns}
    moved = List(b"D" * 40)
    moved.extend(range(100))
    for turn in range(turns):
        moved.move(turn * 7 % 100, turn * 13 % 100)
        moved[turn * 11 % 100] = turn
    assert len(moved) == 100
    found["move and assign"] = moved.memory / turns / 2
    return found


#: Bytes for each operation, whatever was before: places are ids, and what is deleted is forgotten by `compact`.
BYTES = {"front": 45, "gap": 45, "queue": 60, "move and assign": 150}


def test_lists_do_not_age() -> None:
    assert all(size < BYTES[name] for name, size in of_age(3000).items())


@pytest.mark.long
def test_lists_do_not_age_in_a_million_operations() -> None:
    assert all(size < BYTES[name] for name, size in of_age(1_000_000).items())


def test_an_anchor_goes_with_its_element() -> None:
    one, other = List(b"A"), List(b"B")
    one.extend("abcdef")
    other.merge(one.take_changes())
    left, right = one.anchor(2), one.anchor(4, "right")  # behind "b", before "e"
    one.move(1, 4)
    one.move(3, 0)
    assert "".join(one) == "eacdbf"
    assert (one.position(left), one.position(right)) == (5, 0)
    other.merge(one.take_changes())
    there = other.anchor(5)
    assert there.encode() == left.encode()
    other.move(4, 0)
    one.merge(other.take_changes())
    assert "".join(one) == "beacdf"
    assert one.position(left) == other.position(there) == 1
    for items in (one, other):
        items.compact([one.version])
        items.check_structure()
        assert items.position(left if items is one else there) == 1
    del one[0]
    assert "".join(one) == "eacdf"
    assert one.position(left) == 2  # where it was inserted: behind "a"


def test_what_is_appended_fills_its_memory() -> None:
    """Leaves and branches stay full, arrays grow by little: 30,000 elements by turns took 41.7 bytes each."""
    assert by_turns(30_000) < 41


@pytest.mark.long
def test_a_million_elements_by_five_take_40_megabytes() -> None:
    assert by_turns(1_000_000) < 40
