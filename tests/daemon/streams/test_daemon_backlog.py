"""What waits for a backend that reads little keeps about as many bytes in memory as are counted as unread."""

from __future__ import annotations

import socket
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from dtp.daemon.relays.relay import Backlog
from dtp.net.stream import rest_of


def kept(pieces: Any) -> int:
    """Bytes that pieces keep in memory: those of what they are views of."""
    return sum(memoryview(memoryview(each).obj).nbytes for each in pieces)


class SlowSocket:
    """Takes so many bytes at each call, and notes them."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.taken = sizes, bytearray()

    def send(self, data: bytes | memoryview) -> int:
        piece = bytes(data[: self.sizes.pop(0)])
        self.taken += piece
        return len(piece)


@given(st.lists(st.binary(min_size=1, max_size=2000), min_size=1, max_size=4), st.lists(st.integers(1, 900)))
def test_a_backlog_keeps_at_most_twice_what_is_due(pieces: list[bytes], sizes: list[int]) -> None:
    backlog = Backlog(pieces[0])
    backlog.pieces += pieces[1:]
    slow, due = SlowSocket(sizes), 0
    while backlog and slow.sizes:
        due += backlog.send_next(cast("socket.socket", slow))
        assert kept(backlog.pieces) <= 2 * backlog.due
    assert bytes(slow.taken) == b"".join(pieces)[:due]
    assert b"".join(backlog.pieces) == b"".join(pieces)[due:]


@given(st.binary(min_size=1, max_size=5000), st.data())
def test_the_rest_of_a_piece_is_copied_once_it_is_the_lesser_part(piece: bytes, data: st.DataObject) -> None:
    rest: bytes | memoryview = piece
    while len(rest) > 1:
        taken = data.draw(st.integers(1, len(rest) - 1))
        expected = bytes(rest)[taken:]
        rest = rest_of(rest, taken)
        assert bytes(rest) == expected
        assert kept([rest]) <= 2 * len(rest)
