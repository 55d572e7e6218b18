"""Frames: what is written is what the specification says; what is wrong is refused whole, and where is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from crdt_replicas import Wall, author, contents, replica
from crdt_second import LIST_EDIT, Model, decode
from hypothesis import given
from hypothesis import strategies as st
from reference import list_reference

from dtp.core import crdt as core
from dtp.core.errors import EncodingError, StateLimit
from dtp.crdt import Replica, clock, values
from dtp.crdt.ops import ops_of
from dtp.crdt.replica import SPACES
from dtp.errors import LocalError

VECTORS = json.loads((Path(__file__).parents[2] / "docs" / "vectors" / "graph.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda vector: vector["name"])
def test_published_frames(vector: dict[str, Any]) -> None:
    """Each is taken and holds what is said; the second reader agrees."""
    body, by = bytes.fromhex(vector["body"]), bytes.fromhex(vector["author"])
    one, model = replica(9), Model()
    one.merge(by, body)
    model.merge(by, body)
    assert contents(one) == model.read()
    after, last, ops = decode(by, body)
    assert (
        one.core.check_frame(body)
        == (after, last, len(ops))
        == (vector["after"], vector["last"], vector["ops"])
    )
    shown = {
        f"{soul} {key} {space}": repr(value) for (soul, key, space), value in sorted(contents(one).items())
    }
    assert shown == vector["holds"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_published_faults(vector: dict[str, Any]) -> None:
    one = replica(9)
    before = one.save()
    with pytest.raises(EncodingError) as caught:
        one.merge(author(0), bytes.fromhex(vector["body"]))
    assert caught.value.place == vector["place"]
    assert one.save() == before


def full_frame() -> bytes:
    one = replica(0)
    one.put("user/alice", "name", "Alice in Wonderland")
    one.put("user/bob", "name", "Bob")
    one.counter("hits").add(5)
    one.set("tags").add("x")
    one.set("tags").add("x")
    one.map("m")["k"] = [1, {"a": None}]
    one.list("l").extend(["a", "b"])
    one.list("l").move(0, 1)
    one.list("l")[0] = "c"
    one.delete("user/bob", "name")
    one.text("note").insert(0, "hello")
    (frame,) = one.commit()
    return frame.body


def test_every_beginning_of_a_frame_is_refused_at_its_end() -> None:
    body = full_frame()
    for length in range(len(body)):
        one = replica(1)
        with pytest.raises(EncodingError) as caught:
            one.merge(author(0), body[:length])
        assert caught.value.place is not None
        assert caught.value.place <= length
        assert one.souls() == []
        assert one.save() == replica(1).save()


@given(st.integers(0, 1 << 16), st.integers(1, 255))
def test_a_damaged_frame_is_refused_whole_or_is_another(at: int, by: int) -> None:
    body = bytearray(full_frame())
    body[at % len(body)] ^= by
    one = replica(1)
    try:
        one.merge(author(0), bytes(body))
    except (EncodingError, StateLimit):
        assert one.souls() == []
        assert one.save() == replica(1).save()
    else:
        model = Model()
        model.merge(author(0), bytes(body))
        if not one.core.is_deferred:
            assert contents(one) == model.read()


def test_a_frame_that_was_seen_is_skipped() -> None:
    one, other = replica(0), replica(1)
    one.put("a", "k", 1)
    (frame,) = one.commit()
    assert other.merge(frame.author, frame.body) == 1
    assert [change[:3] for change in other.take_changes()] == [("a", "k", "register")]
    assert other.take_changes()[0].author == author(0)
    assert other.merge(frame.author, frame.body) == 0
    assert other.take_changes() == []


def test_sizes_on_the_wire() -> None:
    one = replica(0)
    wall = Wall()
    one = replica(0, wall)
    for number in range(1000):
        wall.seconds += 0.003
        one.put(f"node/{number * 7919 % 100_000}", "temperature", number / 7)
    (frame,) = one.commit()
    assert len(frame.body) / 1000 < 23
    one.put("node/12345", "temp", 1.25)
    (frame,) = one.commit()
    assert len(frame.body) <= 42


def test_what_is_too_much_for_one_frame_makes_several() -> None:
    one, other = replica(0), replica(1)
    one.put_many((f"n/{number}", "k", number) for number in range(150_000))
    one.put_many(("big", str(number), b"x" * 1_000_000) for number in range(20))
    with pytest.raises(StateLimit, match="commit"):
        one.save()
    frames = one.commit()
    assert len(frames) >= 4
    assert [frame.after for frame in frames[1:]] == [frame.last for frame in frames[:-1]]
    for frame in frames:
        assert len(frame.body) <= core.FRAME_BYTES
        other.merge(frame.author, frame.body)
    assert other.save() == one.save()
    assert other.get("n/149999", "k") == 149_999


# ---- time -------------------------------------------------------------------------------------------------------


def test_what_is_too_far_ahead_waits_until_it_is_due() -> None:
    ahead, here = Wall(2_000), Wall(1_000)
    fast, one = replica(0, ahead), replica(1, here)
    fast.put("a", "k", "from the future")
    (frame,) = fast.commit()
    assert one.merge(frame.author, frame.body) == 0
    assert one.core.is_deferred
    assert one.get("a", "k") is None
    assert one.core.has_all(one.core.author_number(author(0)), frame.after, frame.last)  # it counts as seen
    one = Replica.load(one.author, one.save(), clock=one.clock)  # and is kept
    one.put("a", "k", "now")
    here.seconds = 1_939.9
    assert list(one.take_due()) == []
    here.seconds = 1_940
    assert list(one.take_due()) == [1]
    assert one.get("a", "k") == "from the future"
    assert list(one.take_due()) == []


def test_how_much_may_wait_is_bounded_for_each_author() -> None:
    ahead = Wall(2_000)
    fast, other, one = replica(0, ahead), replica(1, ahead), replica(2)
    frames = []
    for number in range(core.DEFERRED_FRAMES + 1):
        fast.put("a", "k", number)
        frames += fast.commit()
    for frame in frames[:-1]:
        one.merge(frame.author, frame.body)
    with pytest.raises(StateLimit, match="too far in the future"):
        one.merge(frames[-1].author, frames[-1].body)
    assert not one.core.has_all(one.core.author_number(author(0)), frames[-1].after, frames[-1].last)
    other.put("a", "k", 1)
    (frame,) = other.commit()
    one.merge(frame.author, frame.body)
    assert one.core.is_deferred


@pytest.mark.parametrize("back", [950.0, 100.0, -5.0, math.nan, math.inf, 1e300])
def test_a_clock_that_was_set_back_counts_on(back: float) -> None:
    """Nothing that is made here fails for the wall clock; it is dated behind what was made and seen before."""
    wall = Wall(1_000)
    one, other = replica(0, wall), replica(1, Wall(1_000))
    one.put("a", "k", 1)
    wall.seconds = back
    one.put("a", "k", 2)
    one.counter("c").add(1)
    one.text("t").insert(0, "typed")
    for frame in one.commit():
        assert clock.clock_seconds(frame.last) == 1_000
        other.merge(frame.author, frame.body)
    assert (other.get("a", "k"), other.counter("c").value, str(other.text("t"))) == (2, 1, "typed")


def test_frames_of_an_author_take_effect_in_their_order() -> None:
    """One that came from the future waits; the next comes when the first is due and isn't applied yet."""
    ahead, here = Wall(1_100), Wall(1_000)
    fast, one = replica(0, ahead), replica(1, here)
    fast.put("a", "k", 1)
    fast.put("a", "k", 2)
    (first,) = fast.commit()
    ahead.seconds = 1_101
    fast.put("b", "k", 3)
    (second,) = fast.commit()
    one.merge(first.author, first.body)
    here.seconds = 1_050
    assert one.merge(second.author, second.body) == 0
    assert one.waiting_of(fast.author) == 2
    assert one.souls() == []
    assert list(one.take_due()) == [2, 1]
    assert one.waiting_of(fast.author) == 0
    assert (one.get("a", "k"), one.get("b", "k")) == (2, 3)


def test_clocks_rise_though_wall_clocks_stand() -> None:
    wall = Wall(1_000)
    one, other = replica(0, wall), replica(1, Wall(999))
    one.put("a", "k", 1)
    (frame,) = one.commit()
    other.merge(frame.author, frame.body)
    other.put("a", "k", 2)
    (later,) = other.commit()
    assert later.last == frame.last + 1
    assert clock.clock_seconds(frame.last) == 1_000
    assert clock.clock_at(1_000, 1) == later.last


# ---- the handle -------------------------------------------------------------------------------------------------


def test_wrong_calls_are_told() -> None:
    with pytest.raises(LocalError):
        core.GraphCore(b"short")
    handle = core.GraphCore(bytes(32))
    with pytest.raises(LocalError):
        handle.author_number(b"short")
    with pytest.raises(LocalError):
        handle.author_key(7)
    with pytest.raises(StateLimit):
        handle.merge_frame(7, b"", 1)
    with pytest.raises(StateLimit):
        handle.read_space(99, b"a", b"")
    with pytest.raises(EncodingError):
        core.GraphCore.load(bytes(32), b"dtpg\x02")
    handle.put_registers(b"\x91\x93\xa1a\xa1b\x01", 1 << 16)
    with pytest.raises(StateLimit, match="commit"):
        handle.save()


def test_memory_is_given_back() -> None:
    one = replica(0)
    tags = one.set("tags")
    for number in range(2000):
        tags.add(f"a tag of some length {number}")
    full = one.core.memory_bytes
    one.commit()
    for number in range(2000):
        tags.discard(f"a tag of some length {number}")
    one.commit()
    one.core.release_memory()
    assert len(one.save()) < 200  # no tombstone is left
    assert one.core.memory_bytes < full / 2


def test_what_was_changed_last_is_there_when_memory_was_given_back() -> None:
    one, other = replica(0), replica(1)
    for number in range(50):
        one.node("n")[f"k{number}"] = number
        one.text("t").append("a letter")
    (frame,) = one.commit()
    other.merge(frame.author, frame.body)
    other.core.release_memory()
    assert len(values.decode(other.core.read_edits())) == 1
    assert {change.key for change in other.take_changes()} >= {f"k{number}" for number in range(50)}
    assert str(other.text("t")) == "a letter" * 50


# ---- frames opened up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda vector: vector["name"])
def test_ops_of_a_frame_are_those_of_the_second_reader(vector: dict[str, Any]) -> None:
    body, by = bytes.fromhex(vector["body"]), bytes.fromhex(vector["author"])
    found = ops_of(replica(9).core, by, body)
    _, _, expected = decode(by, body)
    for op in expected:
        if op.kind == LIST_EDIT:
            written, touched = list_reference.facts(values.decode(op.value))  # type: ignore[arg-type]
            op.value = values.encode(list(map(values.decode, written)))
            op.dots = [(agent[:32], 0) for agent in sorted(touched)]
    assert [
        (op.kind, op.soul, op.key, op.author, op.clock, list(op.dots), op.position or b"") for op in found
    ] == [(op.kind, op.soul, op.key, op.author, op.clock, op.dots, op.position) for op in expected]
    assert [values.encode(op.value) if op.has_value else None for op in found] == [
        op.value for op in expected
    ]
    assert [SPACES[op.place[2]] for op in expected] == [op.space for op in found]
