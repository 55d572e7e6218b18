"""What two vectors of many authors don't share, told in little more bytes than that has: set reconciliation.

One side tells symbols of the set of its (author, head) pairs; the other reads off which of them it doesn't have, and
which only it has, and says so. No IO. docs/graph.md, "Sync".
"""

from __future__ import annotations

import hashlib
from typing import Final

from dtp.core.sketch import SYMBOL_BYTES, SYMBOLS, Reading, Sketch
from dtp.core.varint import put_varint, read_varint
from dtp.errors import LocalError
from dtp.graph.errors import SyncError
from dtp.graph.frames.vector import OTHER, Head, Vector, pack_head

#: When both sides know as many authors: below it, whole vectors are as good.
FROM_AUTHORS: Final = 512
SALT: Final = 16
#: Symbols that are told at once, and unasked.
FIRST: Final = 128
_HASH: Final = 8
#: Symbols that may be asked for at once.
_MORE: Final = 65_536
#: Symbols that are asked for, for each difference that is expected. Some 1.4 are needed; but how many differ is only
#: estimated, and the rest comes in small steps, since a symbol too many costs more than a message.
_EXPECTED: Final = 1.25
_STEP: Final = 1 / 20


def _hash(salt: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_HASH, key=salt).digest()


def _items(salt: bytes, vector: Vector) -> dict[int, bytes]:
    """Return the hash of each (author, head) -> the author."""
    return {_item(salt, author, head): author for author, head in vector.items()}


def _item(salt: bytes, author: bytes, head: Head) -> int:
    return int.from_bytes(_hash(salt, author + pack_head(head)), "little")


def most_symbols(authors: int) -> int:
    """Return how many symbols are worth telling: more have more bytes than a vector of so many authors."""
    return min(SYMBOLS, max(FIRST, authors * 42 // SYMBOL_BYTES))


class Teller:
    """The side that tells symbols. `vector` is what it has; what is added later isn't told."""

    def __init__(self, vector: Vector, salt: bytes) -> None:
        self.vector = dict(vector)
        self.salt = salt
        self._items = _items(salt, self.vector)
        self._sketch = Sketch(self._items)
        self._told = 0

    def next_symbols(self, end: int) -> tuple[int, bytes]:
        """Return the next symbols, up to `end`: the first one's number, and they. Raises `SyncError`."""
        start = self._told
        if not start < end <= min(start + _MORE, most_symbols(len(self.vector))):
            raise SyncError(
                f"the peer asks for symbols up to {end} after {start}, which is not what they are for"
            )
        self._told = end
        return start, self._sketch.next_symbols(end - start)

    def answer_reader(self, lacking: bytes, having: bytes) -> tuple[bytes, Vector]:
        """Return what to answer to what the other side has read off, and that side's vector. Raises `SyncError`."""
        theirs = dict(self.vector)
        if len(lacking) % _HASH:
            raise SyncError("the peer names parts of hashes")
        for at in range(0, len(lacking), _HASH):
            author = self._items.get(int.from_bytes(lacking[at : at + _HASH], "little"))
            if author is None:
                raise SyncError("the peer asks for something that was never announced")
            theirs.pop(author, None)
        lasts = bytearray()
        by_hash = {_hash(self.salt, author): author for author in self.vector}
        for key, last in _tagged(having):
            author = by_hash.get(key)
            put_varint(lasts, self.vector[author].sequence if author is not None else 0)
            if author is not None:
                theirs[author] = Head(last, OTHER)
        return bytes(lasts), theirs


class SymbolReader:
    """The side that reads symbols of `authors` authors. `vector` as for `Teller`."""

    def __init__(self, vector: Vector, salt: bytes, authors: int) -> None:
        self.vector = dict(vector)
        self._salt = salt
        self._most = most_symbols(authors)
        self._items = _items(salt, self.vector)
        self._reading = Reading(Sketch(self._items), authors)
        self._only_here: list[bytes] = []

    def add_symbols(self, start: int, symbols: bytes) -> tuple[bytes, bytes] | None:
        """Return the next symbols; what to tell the other side when all is read off. Raises `SyncError`."""
        if start != len(self._reading) or start + len(symbols) // SYMBOL_BYTES > self._most:
            raise SyncError("the peer tells other symbols than it was asked for")
        try:
            self._reading.add_symbols(symbols)
        except LocalError as error:
            raise SyncError(f"not symbols: {error}") from error
        found = self._reading.read_difference()
        if found is None:
            return None
        lacking, having = found
        if not all(item in self._items for item in having):
            raise SyncError("the peer's symbols are of no set")
        self._only_here = [self._items[item] for item in having]
        told = bytearray()
        for author in self._only_here:
            told += _hash(self._salt, author)
            put_varint(told, self.vector[author].sequence)
        return b"".join(item.to_bytes(_HASH, "little") for item in sorted(lacking)), bytes(told)

    def wanted_symbols(self) -> int:
        """Return up to which symbol to ask; 0 if a whole vector has fewer bytes."""
        have = len(self._reading)
        if have >= self._most:
            return 0
        expected = round(self._reading.estimate_difference() * _EXPECTED)
        return min(max(expected, have + int(have * _STEP)), have + _MORE, self._most)

    def learn_vector(self, lasts: bytes) -> Vector:
        """Return the other side's vector, by its answer. Raises `SyncError`."""
        theirs, at = dict(self.vector), 0
        try:
            for author in self._only_here:
                last, at = read_varint(lasts, at)
                theirs[author] = Head(last, OTHER)
        except ValueError as error:
            raise SyncError(f"not sequences: {error}") from error
        if at != len(lasts):
            raise SyncError("the peer tells more sequences than it was asked for")
        return {author: head for author, head in theirs.items() if head.sequence}


def _tagged(data: bytes) -> list[tuple[bytes, int]]:
    """Return (hash of an author, sequence) of each."""
    found, at = [], 0
    try:
        while at < len(data):
            key = data[at : at + _HASH]
            last, at = read_varint(data, at + _HASH)
            found.append((key, last))
    except ValueError as error:
        raise SyncError(f"not sequences of authors: {error}") from error
    return found
