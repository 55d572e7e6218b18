"""What came of a stream ahead of its turn: over several links, some of which are slower than others.

Source: docs/wire.md, "Streams". A piece takes a search in a bounded list and the copying of its own bytes, whatever
came before it; see docs/decisions/0172.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class Reassembly:
    """Bytes with gaps between them, kept where they belong: as many as lie between the first gap and the last byte,
    so the credit that the peer has used up bounds them. Runs that touch are one."""

    __slots__ = ("_base", "_data", "_ends", "_starts")

    def __init__(self, base: int) -> None:
        self._base = base  # offset of the first byte of `_data`
        self._data = bytearray()
        self._starts: list[int] = []  # of the runs, sorted; between them is nothing of meaning
        self._ends: list[int] = []

    @property
    def runs(self) -> int:
        """Pieces that don't touch."""
        return len(self._starts)

    def put(self, offset: int, piece: bytes) -> None:
        """Keep a piece, which isn't empty, of bytes not below those that were taken."""
        starts, ends = self._starts, self._ends
        end = offset + len(piece)
        first = bisect_left(ends, offset)  # the first run that touches the piece, and the one behind the last
        last = bisect_right(starts, end, first)
        if first < last:
            starts[first:last] = [min(offset, starts[first])]
            ends[first:last] = [max(end, ends[last - 1])]
        else:
            starts.insert(first, offset)
            ends.insert(first, end)
        data, at = self._data, offset - self._base
        if at > len(data):
            data += bytes(at - len(data))
        data[at : at + len(piece)] = piece

    def take(self, offset: int) -> bytes:
        """The bytes from `offset` to the next gap, maybe none; those below are forgotten."""
        covered = bisect_right(self._starts, offset)
        end = max(offset, self._ends[covered - 1]) if covered else offset
        del self._starts[:covered], self._ends[:covered]
        with memoryview(self._data) as view:
            piece = bytes(view[offset - self._base : end - self._base])
        del self._data[: end - self._base]  # moves no bytes
        self._base = end
        return piece
