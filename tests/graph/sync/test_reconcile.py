"""Vectors of many authors: both sides learn what the other lacks, in few bytes; nonsense ends by itself."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections.abc import Callable, Collection

import msgpack
import pytest
from graph_fixtures import ALICE, BOB, vector
from hypothesis import given, settings
from hypothesis import strategies as st

from dtp.core.errors import StateLimit
from dtp.core.sketch import SYMBOL_BYTES, SYMBOLS, Reading, Sketch
from dtp.errors import LocalError
from dtp.graph import Graph, SyncError
from dtp.graph.frames.vector import MARK, Head, Vector
from dtp.graph.sync import protocol
from dtp.graph.sync.reconcile import FROM_AUTHORS, SymbolReader, Teller, most_symbols

Sequences = dict[bytes, int]
Side = protocol.SyncSide
MASK = (1 << 64) - 1


# ---- sketches -----------------------------------------------------------------------------------------------------


def mix(a: int, b: int) -> int:
    """`dtp_mix` of dtp_core/crdt.h."""
    z = (a ^ (b + 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 32) * 0x94D049BB133111EB & MASK
    z = (z ^ z >> 29) * 0xFF51AFD7ED558CCD & MASK
    return z ^ z >> 32


def places(item: int, end: int) -> list[int]:
    """Which symbols an item is in, by the text of docs/graph.md."""
    found, state, at = [], item | 1, 0
    while at < end:
        found.append(at)
        state = state * 0xDA942042E4DD58B5 & MASK
        root = min(math.isqrt(state) + 1, 1 << 32)
        at += max(1, -((2 * at + 3) * ((1 << 32) - root) // -(2 * (math.isqrt(state) + 1))))
    return found


def second(items: set[int], end: int) -> bytes:
    """The symbols of a set, in plain Python."""
    symbols = [[0, 0, 0] for _ in range(end)]
    for item in items:
        for at in places(item, end):
            symbols[at][0] ^= item
            symbols[at][1] ^= mix(item, 0) >> 32
            symbols[at][2] += 1
    return b"".join(
        one.to_bytes(8, "little") + check.to_bytes(4, "little") + bytes((count & 255,))
        for one, check, count in symbols
    )


@given(st.sets(st.integers(0, MASK), max_size=300), st.integers(1, 200))
def test_symbols_are_those_of_the_specification(items: set[int], end: int) -> None:
    sketch, half = Sketch(items), end // 2
    assert sketch.next_symbols(half) == second(items, end)[: half * SYMBOL_BYTES]
    assert sketch.next_symbols(end - half) == second(items, end)[half * SYMBOL_BYTES :]


@given(st.integers(0, 1 << 32), st.integers(0, 60), st.integers(0, 60))
def test_differences_are_read_off(seed: int, ours: int, theirs: int) -> None:
    rng = random.Random(seed)
    both, a, b = ([rng.getrandbits(64) for _ in range(count)] for count in (300, ours, theirs))
    teller, reading = Sketch(both + b), Reading(Sketch(both + a), 300 + theirs)
    found, used = None, 0
    while found is None:
        assert used < 600
        reading.add_symbols(teller.next_symbols(20))
        used += 20
        found = reading.read_difference()
    assert (sorted(found[0]), sorted(found[1])) == (sorted(b), sorted(a))


@given(st.binary(min_size=13, max_size=13 * 80))
def test_any_symbols_are_read_or_not(data: bytes) -> None:
    reading = Reading(Sketch(range(1, 100)), 50)
    data = data[: len(data) // 13 * 13]
    reading.add_symbols(data)
    assert reading.estimate_difference() >= 49
    found = reading.read_difference()
    assert found is None or sum(map(len, found)) <= len(data) // 13


def test_symbols_that_are_none() -> None:
    with pytest.raises(LocalError):
        Reading(Sketch([]), 0).add_symbols(b"x" * 12)
    with pytest.raises(StateLimit):
        Sketch([1]).next_symbols(SYMBOLS + 1)


# ---- two sides ----------------------------------------------------------------------------------------------------


def key(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def pump(
    ours: Vector, theirs: Vector, change: Callable[[bytes], bytes] | None = None
) -> tuple[Side, Side, int, int]:
    """Let two sides talk until they know; bytes and messages that took. `change`: what comes from the second."""
    rng = random.Random(7)
    sides, have = [Side("g", random=rng.randbytes) for _ in range(2)], (ours, theirs)
    ways = [[sides[0].start(ours)], [sides[1].start(theirs)]]
    size = count = 0
    while ways[0] or ways[1]:
        for at in (0, 1):
            arriving, ways[1 - at] = ways[1 - at], []
            for message in arriving:
                size, count = size + len(message) + 4, count + 1
                assert count < 200
                changed = change(message) if change is not None and at == 0 else message
                ways[at].extend(sides[at].receive(changed, lambda at=at: have[at]).replies)
    one, other = sides
    return one, other, size, count


def missing(ours: Sequences, theirs: Sequences) -> set[tuple[bytes, int, int]]:
    return {(a, theirs.get(a, 0) + 1, n) for a, n in ours.items() if n > theirs.get(a, 0)}


def proving(ours: Sequences, theirs: Sequences, forked: Collection[bytes]) -> set[tuple[bytes, int, int]]:
    return {(a, n, n) for a, n in ours.items() if n == theirs.get(a) and a in forked}


@settings(max_examples=30)
@given(st.integers(0, 1 << 32), *[st.integers(0, 600) for _ in range(4)])
def test_two_strangers_tell_each_other_what_they_lack(
    seed: int, new: int, old: int, other: int, forks: int
) -> None:
    rng = random.Random(seed)
    ours = {rng.randbytes(32): rng.randrange(1, 1000) for _ in range(700)}
    theirs = dict(ours)
    for author in rng.sample(sorted(ours), old):
        (ours if rng.random() < 0.5 else theirs)[author] += rng.randrange(1, 300)
    ours |= {rng.randbytes(32): 1 for _ in range(new)}
    theirs |= {rng.randbytes(32): 5 for _ in range(other)}
    forked = set(rng.sample(sorted(ours), forks))
    a, b = vector(ours), vector(theirs, forked=forked)
    one, two, _, _ = pump(a, b)
    assert one.knows_peer
    assert two.knows_peer
    assert set(one.to_send(a)) == missing(ours, theirs) | proving(ours, theirs, forked)
    assert set(two.to_send(b)) == missing(theirs, ours) | proving(theirs, ours, forked)


@pytest.mark.slow
@pytest.mark.parametrize(("both", "only"), [(1000, 0), (0, 500)])
def test_a_thousand_differences_in_a_hundred_thousand(both: int, only: int) -> None:
    ours = {key(number): 5 for number in range(100_000)}
    theirs = dict(ours)
    for number in range(both):
        (ours if number % 2 else theirs)[key(number)] = 9
    ours |= {key(200_000 + number): 1 for number in range(only)}
    theirs |= {key(300_000 + number): 1 for number in range(only)}
    one, two, size, count = pump(vector(ours), vector(theirs))
    assert set(one.to_send(vector(ours))) == missing(ours, theirs)
    assert set(two.to_send(vector(theirs))) == missing(theirs, ours)
    assert size <= 60_000
    assert count <= 20


def test_what_differs_much_is_told_as_vectors() -> None:
    ours, theirs = ({key(number + at): 1 for number in range(3000)} for at in (0, 100_000))
    one, two, size, _ = pump(vector(ours), vector(theirs))
    assert set(one.to_send(vector(ours))) == missing(ours, theirs)
    assert set(two.to_send(vector(theirs))) == missing(theirs, ours)
    assert size < 2.2 * 2 * (33 + 8) * 3000


@pytest.mark.parametrize("seed", range(30))
def test_nonsense_ends(seed: int) -> None:
    """Some byte of some message of the peer is another: it is refused, or both end without it."""
    rng = random.Random(seed)
    ours = {key(number): 5 for number in range(1000)}
    theirs = ours | {key(5000 + number): 1 for number in range(rng.randrange(1, 400))}
    if seed % 2:
        ours, theirs = theirs, ours

    def change(message: bytes) -> bytes:
        data = bytearray(message)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data) if rng.random() < 0.5 else message

    try:
        one, _, _, _ = pump(vector(ours), vector(theirs), change)
    except SyncError:
        return
    one.to_send(vector(ours))  # a vector that tells something else, or nothing


def many(number: int) -> Vector:
    return vector({key(at): 1 for at in range(number)})


def test_symbols_without_an_end() -> None:
    """Who tells random symbols for ever is told the vector after as many as that has bytes."""
    rng = random.Random(1)
    ours = many(600)
    side = Side("g")
    side.start(ours)
    side.receive(
        msgpack.packb([0, protocol.VERSION, "g", b"\xff" * 16, 600, b"", False, b"", b"", True]), lambda: ours
    )
    start, kinds = 0, []
    for end in (128, 200, 5000):
        message = [5, bytes(16), start, rng.randbytes(13 * (min(end, most_symbols(600)) - start))]
        (reply,) = side.receive(msgpack.packb(message), lambda: ours).replies
        kinds.append(msgpack.unpackb(reply)[0])
        start = min(end, most_symbols(600))
    assert kinds == [protocol.SyncMessage.MORE, protocol.SyncMessage.MORE, protocol.SyncMessage.VECTOR]
    with pytest.raises(SyncError, match="asked"):
        side.receive(msgpack.packb([5, bytes(16), start, bytes(13)]), lambda: ours)


def test_what_no_honest_side_says() -> None:
    ours = many(600)
    teller = Teller(ours, bytes(16))
    for end in (0, 70_000, 1 << 40):
        with pytest.raises(SyncError, match="symbols"):
            teller.next_symbols(end)
    teller.next_symbols(128)
    with pytest.raises(SyncError, match="symbols"):
        teller.next_symbols(128)
    for lacking, having in ((b"x", b""), (bytes(8), b""), (b"", b"x" * 8), (b"", b"x" * 8 + b"\x80")):
        with pytest.raises(SyncError):
            teller.answer_reader(lacking, having)
    reader = SymbolReader(ours, bytes(16), 700)
    with pytest.raises(SyncError, match="other symbols"):
        reader.add_symbols(1, bytes(13))
    with pytest.raises(SyncError, match="not symbols"):
        reader.add_symbols(0, bytes(12))
    absent = bytearray(Sketch(reader._items).next_symbols(20))
    for at in places(5, 20):  # as if the peer lacked what isn't here
        part = int.from_bytes(absent[13 * at : 13 * at + 12], "little") ^ 5 ^ (mix(5, 0) >> 32 << 64)
        absent[13 * at : 13 * at + 13] = part.to_bytes(12, "little") + bytes(
            (absent[13 * at + 12] - 1 & 255,)
        )
    with pytest.raises(SyncError, match="no set"):
        reader.add_symbols(0, bytes(absent))
    with pytest.raises(SyncError, match="more sequences"):
        reader.learn_vector(b"\x01")
    fresh = Side("g")
    hello = [0, protocol.VERSION, "g", b"\xff" * 16, FROM_AUTHORS - 1, b"", False, b"", b"", True]
    fresh.receive(msgpack.packb(hello), lambda: ours)
    with pytest.raises(SyncError, match="where vectors are told"):
        fresh.receive(msgpack.packb([5, bytes(16), 0, bytes(13)]), lambda: ours)


# ---- broken off ---------------------------------------------------------------------------------------------------


async def some_messages(one: Graph, other: Graph, most: int) -> tuple[int, bool]:
    """Sync by value, broken off after so many messages: how many envelopes came over, and whether it was all."""
    graphs, sides = (one, other), (Side(""), Side(""))
    ways = [[sides[0].start(one.frames.heads())], [sides[1].start(other.frames.heads())]]
    came = 0
    while ways[0] or ways[1]:
        for at in (0, 1):
            arriving, ways[1 - at] = ways[1 - at], []
            for message in arriving:
                if most == 0:
                    return came, False
                most -= 1
                step = sides[at].receive(message, graphs[at].frames.heads)
                came += await graphs[at].receive(step.envelopes)
                ways[at] += step.replies
                for author, first, last in sides[at].to_send(graphs[at].frames.heads()) if step.told else ():
                    ways[at] += protocol.encode_frames(await graphs[at].frames.read(author, first, last))
    return came, True


def test_a_sync_broken_off_at_any_message_goes_on_from_there() -> None:
    async def main() -> None:
        async with (
            await Graph.open("memory:", identity=ALICE) as one,
            await Graph.open("memory:", identity=BOB) as other,
        ):
            for graph in (one, other):
                for number in range(40):
                    graph.node(f"n/{number}")["k"] = "x" * (protocol.MESSAGE_BYTES // 6)
                    await graph.commit()
            came, attempts, is_all = 0, 0, False
            while not is_all:
                some, is_all = await some_messages(one, other, 4 + attempts % 3)
                came, attempts = came + some, attempts + 1
            assert came == 80  # each once
            assert attempts > 5
            assert one.replica.save() == other.replica.save()

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(20))
def test_what_comes_between_the_greetings_changes_nothing_of_who_tells(seed: int) -> None:
    """Both sides store something after they have greeted: by another digest each would take itself for the teller."""
    ours, theirs = many(600), many(600)
    theirs[bytes([seed]) * 32] = Head(seed + 1, bytes(MARK))
    one, other = Side("g"), Side("g")
    hello, answer = one.start(dict(ours)), other.start(dict(theirs))
    ours[bytes([100 + seed]) * 32] = Head(7, bytes(MARK))
    theirs[bytes([200 + seed]) * 32] = Head(9, bytes(MARK))
    mine, yours = other.receive(hello, lambda: theirs).replies, one.receive(answer, lambda: ours).replies
    assert len(mine) + len(yours) == 1  # one tells symbols, the other reads them
    while mine or yours:
        mine, yours = (
            [reply for each in yours for reply in other.receive(each, lambda: theirs).replies],
            [reply for each in mine for reply in one.receive(each, lambda: ours).replies],
        )
    assert one.knows_peer
    assert other.knows_peer
