"""Pieces of a stream in any order: each byte once and in order, whatever their number, and in few steps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtp.session.codes import CloseCode, ProtocolError
from dtp.session.streams import ReceiveHalf, most_runs

WHOLE = bytes((7 * i + i // 251) % 256 for i in range(400))

PIECES = st.lists(
    st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 60)).map(
        lambda each: (each[0], WHOLE[each[0] : each[0] + each[1]])
    ),
    max_size=60,
)


@given(PIECES)
def test_pieces_in_any_order_give_each_byte_once(pieces: list[tuple[int, bytes]]) -> None:
    half = ReceiveHalf(len(WHOLE))
    got, had = b"", set[int]()
    for offset, data in pieces:
        out, _ = half.receive(offset, data, fin=False)
        got += b"".join(out)
        had.update(range(offset, offset + len(data)))
        following = next(at for at in range(len(WHOLE) + 1) if at not in had)
        assert got == WHOLE[:following]
        assert half.acked == following
        assert half.runs == sum(at > following and at - 1 not in had for at in had)
        if half.early is not None:
            assert len(half.early._data) <= half.highest - following
    out, _ = half.receive(0, WHOLE, fin=True)
    assert got + b"".join(out) == WHOLE
    assert half.ended
    assert half.early is None


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
    half = ReceiveHalf(1 << 16)
    most = 0
    got: list[bytes] = []
    for offset in offsets:
        most = max(most, steps(lambda: got.extend(half.receive(offset, b"x", fin=False)[0])))  # noqa: B023
    assert most < 40
    assert b"".join(got) == bytes(b"x" * half.highest)
    assert half.early is None


@pytest.mark.parametrize("window", [1 << 16, 1 << 26])
def test_pieces_that_do_not_touch_are_bounded(window: int) -> None:
    half = ReceiveHalf(window)
    for count in range(1, most_runs(window) + 1):
        half.receive(2 * count, b"x", fin=False)
    with pytest.raises(ProtocolError, match="too many scattered pieces") as refused:
        half.receive(60_000, b"x", fin=False)
    assert refused.value.close_code == CloseCode.LIMIT
