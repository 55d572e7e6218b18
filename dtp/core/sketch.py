"""Set reconciliation: what two sets of 64-bit hashes don't share, from little more bytes than the difference has.

Rateless invertible Bloom lookup tables: a set gives an endless row of symbols, and some 1.4 symbols for each
difference are enough to read all differences off. docs/graph.md, "Sync".
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from typing import Any, Final

from dtp.core._dtp_core import ffi, lib
from dtp.core.errors import merging_error
from dtp.errors import LocalError

#: Symbols of a set, at most.
SYMBOLS: Final[int] = lib.DTP_SKETCH_SYMBOLS
_WIRE: Final = struct.Struct("<QIB")
#: Bytes of a symbol on the wire: the sum of the items, of their checks, and how many.
SYMBOL_BYTES: Final = _WIRE.size


class Sketch:
    """The symbols of a set of hashes (ints of 64 bits), one after the other."""

    def __init__(self, items: Iterable[int]) -> None:
        self._items = array("Q", items)
        self._walks: Any = ffi.new("dtp_walk[]", len(self._items))
        self._at = 0
        lib.dtp_sketch_begin(ffi.from_buffer("uint64_t[]", self._items), len(self._items), self._walks)

    def __len__(self) -> int:
        return len(self._items)

    def next_raw_symbols(self, count: int) -> Any:
        """Return the next so many symbols, as C has them. Raises `StateLimit` beyond `SYMBOLS`."""
        symbols = ffi.new("dtp_symbol[]", count)
        items = ffi.from_buffer("uint64_t[]", self._items)
        code = lib.dtp_sketch(items, len(self._items), self._walks, self._at, self._at + count, symbols)
        if code < 0:
            raise merging_error(code, message=f"a sketch has at most {SYMBOLS} symbols")
        self._at += count
        return symbols

    def next_symbols(self, count: int) -> bytes:
        """Return the next so many symbols, as they travel."""
        found = ffi.unpack(self.next_raw_symbols(count), count)
        return b"".join(_WIRE.pack(one.items, one.checks, one.count) for one in found)


class Reading:
    """How another set of `size` items differs from `ours`, read from its symbols as they come."""

    def __init__(self, ours: Sketch, size: int) -> None:
        self._ours = ours
        self._surplus = size - len(ours)
        self._symbols: Any = ffi.new("dtp_symbol[]", 0)
        self._count = 0

    def __len__(self) -> int:
        """Return how many symbols there are."""
        return self._count

    def add_symbols(self, theirs: bytes) -> None:
        """Take the next symbols of the other set. Raises `LocalError` when they are not whole ones."""
        more, rest = divmod(len(theirs), SYMBOL_BYTES)
        if rest or not more:
            raise LocalError(f"{len(theirs)} bytes are not whole symbols")
        end = self._count + more
        ours = self._ours.next_raw_symbols(more)
        symbols = ffi.new("dtp_symbol[]", end)
        ffi.memmove(symbols, self._symbols, self._count * ffi.sizeof("dtp_symbol"))
        for at, (items, checks, number) in enumerate(_WIRE.iter_unpack(theirs)):
            one, mine = symbols[self._count + at], ours[at]
            one.items = mine.items ^ items
            one.checks = mine.checks ^ checks
            one.count = (number - mine.count) & 255
        self._symbols, self._count = symbols, end

    def estimate_difference(self) -> int:
        """Return about how many items differ.

        By how far the counts of symbols are from what the larger set's surplus alone would give: that is noise, and
        its variance is in proportion to what differs.
        """
        total = 0.0
        for at in range(1, self._count):
            share = 2 / (2 + at)
            off = (self._symbols[at].count - self._surplus * share + 128) % 256 - 128
            total += off * off / (share * (1 - share))
        return max(abs(self._surplus), round(total / max(1, self._count - 1)))

    def read_difference(self) -> tuple[list[int], list[int]] | None:
        """Return the items that only the other set has, and those that only ours has; None when more symbols are
        needed."""
        symbols = ffi.new("dtp_symbol[]", self._count)
        ffi.memmove(symbols, self._symbols, self._count * ffi.sizeof("dtp_symbol"))
        items, theirs = ffi.new("uint64_t[]", self._count), ffi.new("uint8_t[]", self._count)
        found = ffi.new("size_t *")
        code = lib.dtp_sketch_read(symbols, self._count, items, theirs, found)
        if code < 0:
            raise merging_error(code)
        if not code:
            return None
        sides: tuple[list[int], list[int]] = [], []
        for item, is_theirs in zip(ffi.unpack(items, found[0]), ffi.unpack(theirs, found[0]), strict=True):
            sides[0 if is_theirs else 1].append(item)
        return sides
