"""Pieces of a stream in any order: each byte once and in order, whatever their number, and in few steps."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtp.session import reassembly
from dtp.session.codes import CloseCode, ProtocolError
from dtp.session.reassembly import BLOCK, RUN, Reassembly
from dtp.session.streams import ReceiveHalf, most_runs

WHOLE = bytes((7 * i + i // 251) % 256 for i in range(400))

PIECES = st.lists(
    st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 60)).map(
        lambda each: (each[0], WHOLE[each[0] : each[0] + each[1]])
    ),
    max_size=60,
)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reassembly, "BLOCK", 16)


def check(pieces: list[tuple[int, bytes]]) -> None:
    half = ReceiveHalf(len(WHOLE), len(WHOLE), len(WHOLE))
    got, had = b"", set[int]()
    for offset, data in pieces:
        out, _ = half.receive_piece(offset, data, fin=False)
        got += b"".join(out)
        had.update(range(offset, offset + len(data)))
        following = next(at for at in range(len(WHOLE) + 1) if at not in had)
        assert got == WHOLE[:following]
        assert half.acked == following
        assert half.runs == sum(at > following and at - 1 not in had for at in had)
        if half.early is not None:
            assert size(half.early) <= half.highest - following
            assert min(half.early._blocks) >= following // 16
    out, _ = half.receive_piece(0, WHOLE, fin=True)
    assert got + b"".join(out) == WHOLE
    assert half.ended
    assert half.early is None


@pytest.mark.usefixtures("small_blocks")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # blocks are the same for all examples
@given(PIECES)
def test_pieces_in_any_order_give_each_byte_once(pieces: list[tuple[int, bytes]]) -> None:
    check(pieces)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("seed", range(8))
def test_pieces_a_little_out_of_order_give_each_byte_once(seed: int) -> None:
    random = Random(seed)
    cuts = sorted({0, len(WHOLE), *random.sample(range(len(WHOLE)), 60)})
    pieces = [(start, WHOLE[start:end]) for start, end in pairwise(cuts)]
    check([pieces[at] for at in sorted(range(len(pieces)), key=lambda at: at + 6 * random.random())])


def size(early: Reassembly) -> int:
    return sum(map(len, early._blocks.values()))


def steps(work: Callable[[], object]) -> int:
    """Calls of functions, those in C as well."""
    count = 0

    def seen(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize(
    "offsets",
    [
        range(5000, -1, -1),  # from behind: each touches the one after it
        [*range(5000, 0, -1), 0],
        [*range(1, 2001, 2), *range(2000, 0, -2), 0],  # gaps, then what fills them
        [*range(1, 2001, 2), *range(0, 2001, 2)],  # ... each at the place where the stream stands
    ],
)
def test_a_piece_takes_as_many_steps_however_many_wait(offsets: Iterable[int]) -> None:
    half = ReceiveHalf(1 << 16, 1 << 16, 1 << 16)
    most = 0
    got: list[bytes] = []
    for offset in offsets:
        most = max(most, steps(lambda: got.extend(half.receive_piece(offset, b"x", fin=False)[0])))  # noqa: B023
    assert most < 40
    assert b"".join(got) == bytes(b"x" * half.highest)
    assert half.early is None


@pytest.mark.parametrize(
    "offsets",
    [
        range(5000, -1, -1),
        [*range(1, 5001, 2), *range(5000, 0, -2), 0],
        [at for pair in zip(range(2500, 0, -1), range(2501, 5001), strict=True) for at in pair] + [0],
        [*sorted(range(1, 5001), key=lambda at: (at % 16, at)), 0],  # of each block one, again and again
    ],
)
@pytest.mark.usefixtures("small_blocks")
def test_all_pieces_take_steps_by_their_number_over_many_blocks(offsets: Iterable[int]) -> None:
    half = ReceiveHalf(1 << 24, 1 << 24, 1 << 24)
    got: list[bytes] = []
    taken = steps(
        lambda: got.extend(one for at in offsets for one in half.receive_piece(at, b"x", fin=False)[0])
    )
    assert taken < 40 * 5001
    assert b"".join(got) == b"x" * 5001


def test_a_piece_costs_a_block_at_most_however_far_off_it_is() -> None:
    window = 4 << 20
    half = ReceiveHalf(window, window, window)
    tracemalloc.start()
    try:
        half.receive_piece(window - 1, b"x", fin=False)
        assert tracemalloc.get_traced_memory()[1] < 3 * BLOCK  # the gap's bytes are made, then kept
    finally:
        tracemalloc.stop()
    assert half.early is not None
    assert [len(block) for block in half.early._blocks.values()] == [BLOCK]
    half.receive_piece(1, b"x", fin=False)  # a block reaches no further than it has to
    assert size(half.early) == BLOCK + 2
    for offset in range(BLOCK - 1, window, BLOCK):
        half.receive_piece(offset, b"x", fin=False)
    assert size(half.early) == window  # never more than the credit


@pytest.mark.parametrize("gap", [2, 4096, BLOCK])
def test_runs_take_no_more_than_is_counted(gap: int) -> None:
    half = ReceiveHalf(4 << 20, 4 << 20, 4 << 20)
    tracemalloc.start()
    try:
        for offset in range(gap - 1, min(half.window, 1000 * gap), gap):
            half.receive_piece(offset, b"x", fin=False)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < half.highest + half.runs * RUN


@pytest.mark.parametrize("window", [1 << 16, 1 << 26])
def test_pieces_that_do_not_touch_are_bounded(window: int) -> None:
    half = ReceiveHalf(window, window, window)
    for count in range(1, most_runs(window) + 1):
        half.receive_piece(2 * count, b"x", fin=False)
    with pytest.raises(ProtocolError, match="too many scattered pieces") as refused:
        half.receive_piece(60_000, b"x", fin=False)
    assert refused.value.close_code == CloseCode.LIMIT
