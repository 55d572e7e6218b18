"""What came of a stream ahead of its turn: over several links, some of which are slower than others.

Source: docs/wire.md, "Streams". A piece takes a search in a bounded list, the copying of its own bytes, and a block
for each that it touches first, whatever came before it and wherever it lies; see docs/decisions/0260.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

#: Bytes of a block: what a piece makes anew at most for each that it touches, so one that lies far off costs no more.
#: What one call seals takes few of them.
BLOCK = 16 * 1024
#: Bytes that a run takes besides its block's: where it starts and ends, and what Python has of a block of its own.
RUN = 256


class Reassembly:
    """Bytes with gaps between them, in blocks that are made when touched and reach up to the last byte in each: never
    more than lie between the first gap and the last byte, so the credit that the peer has used up bounds them. Runs
    that touch are one."""

    __slots__ = ("_base", "_blocks", "_ends", "_starts")

    def __init__(self, base: int) -> None:
        self._base = base  # below it all was taken
        self._blocks: dict[int, bytearray] = {}  # by offset // BLOCK; that around `_base` begins there
        self._starts: list[int] = []  # of the runs, sorted; between them is nothing of meaning
        self._ends: list[int] = []

    @property
    def runs(self) -> int:
        """Pieces that don't touch."""
        return len(self._starts)

    def put_piece(self, offset: int, piece: bytes) -> None:
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
        for number in range(offset // BLOCK, (end - 1) // BLOCK + 1):
            start = number * BLOCK
            block = self._blocks.get(number)
            if block is None:
                block = self._blocks[number] = bytearray()
            part = piece[max(0, start - offset) : start + BLOCK - offset]
            at = max(offset, start) - max(self._base, start)
            if at > len(block):
                block += bytes(at + len(part) - len(block))  # at once, or Python takes an eighth more
            block[at : at + len(part)] = part

    def take_ready(self, offset: int) -> bytes:
        """Return the bytes from `offset` to the next gap, maybe none; those below are forgotten."""
        covered = bisect_right(self._starts, offset)
        end = max(offset, self._ends[covered - 1]) if covered else offset
        del self._starts[:covered], self._ends[:covered]
        parts: list[bytearray] = []
        for number in range(self._base // BLOCK, (end - 1) // BLOCK + 1):
            block = self._blocks.get(number)
            if block is None:
                continue
            begin = max(self._base, number * BLOCK)
            parts.append(block[max(0, offset - begin) : end - begin])
            del block[: end - begin]  # moves no bytes
            if not block:
                del self._blocks[number]
        self._base = end
        return b"".join(parts)
