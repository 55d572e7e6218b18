"""Where the tables of a damaged SQLite file begin, found by its pages, for one whose own list of them is damaged.

Source: https://www.sqlite.org/fileformat2.html
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import BinaryIO, Final

from dtp.graph.stores.sqlite_format import prepare, write_part

#: Types of pages, by their first byte.
_INNER_INDEX, _INNER_TABLE, _LEAF_INDEX, _LEAF_TABLE = 2, 5, 10, 13
_INNER: Final = (_INNER_INDEX, _INNER_TABLE)
_TYPES: Final = (_INNER_INDEX, _INNER_TABLE, _LEAF_INDEX, _LEAF_TABLE)
#: Bytes of a file's head, which the first page has in front; where the head has the size of a page and the list of
#: pages that are free; where it says that there is a write-ahead log, and how many pages there are.
_HEAD: Final = 100
_AT_SIZE, _AT_FREE = slice(16, 18), slice(32, 36)
_AT_LOGGED, _AT_PAGES = slice(18, 20), slice(28, 32)
#: How deep a tree is at most, and the bytes of a varint.
_DEPTH: Final = 20
_VARINT: Final = 9
#: What rows have: n nothing (the row's number), i an int, t text, k a key of 32 bytes, b any bytes.
_SHAPES: Final = {
    "authors": "nk",
    "frames": "niibi",
    "graph": "nt",
    "state": "nikb",
    "proofs": "kbb",
    "aside": "kibi",
    "file": "nbii",
    "policy": "nb",
    "part": "nbi",
    "sqlite_autoindex_authors_1": "ki",
    "sqlite_autoindex_frames_1": "iii",
}


class _Pages:
    """The pages of a file. What isn't a page is one of zeros."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        head = file.read(_HEAD)
        self.size = int.from_bytes(head[_AT_SIZE], "big")
        if self.size == 1:
            self.size = 65536
        if not 512 <= self.size <= 65536 or self.size & (self.size - 1):
            raise sqlite3.DatabaseError("the size of a page is lost")
        self.count = file.seek(0, os.SEEK_END) // self.size
        self._first_free = int.from_bytes(head[_AT_FREE], "big")

    def read_page(self, number: int) -> bytes:
        if not 1 < number <= self.count:
            return bytes(self.size)
        self._file.seek((number - 1) * self.size)
        return self._file.read(self.size)

    def free_pages(self) -> set[int]:
        """Return the pages that are in no table."""
        found: set[int] = set()
        trunk = self._first_free
        while 1 < trunk <= self.count and trunk not in found:
            page = self.read_page(trunk)
            found.add(trunk)
            count = min(int.from_bytes(page[4:8], "big"), self.size // 4 - 2)
            found.update(int.from_bytes(page[8 + 4 * at : 12 + 4 * at], "big") for at in range(count))
            trunk = int.from_bytes(page[:4], "big")
        return found


def find_roots(file: BinaryIO, told: Mapping[str, int]) -> dict[str, int]:
    """Return name -> the first page of a table or an index, of those that are found. `told` is what the file says.

    What the file says counts if rows there are the table's, then where it is in a new file, then where there are such
    rows at all, in the largest tree.
    """
    pages = _Pages(file)
    kinds, roots = _read_trees(pages)
    with _new_file(pages.size) as sound:
        usual = dict(sound.execute("SELECT name, rootpage FROM sqlite_master"))
    found: dict[str, int] = {}
    for name, shape in _SHAPES.items():
        fitting = [root for root in sorted(roots, key=roots.__getitem__) if _has_shape(pages, root, shape)]
        at = [one for one in (told.get(name, 0), usual[name]) if one in fitting]
        empty = [
            one
            for one in (told.get(name, 0), usual[name])
            if one in roots and _is_empty(pages.read_page(one), kinds[one], shape)
        ]
        choice = at or fitting[-1:] or (empty if name != "part" else [])
        if choice:
            found[name] = choice[0]
            roots.pop(choice[0])
    return found


def put_tables(file: BinaryIO, roots: Mapping[str, int]) -> None:
    """Write the list of tables that a sound file has into a damaged one, with these roots; others are left out."""
    pages = _Pages(file)
    with _new_file(pages.size) as sound:
        sound.execute("PRAGMA writable_schema = ON")
        for name in _SHAPES:
            if name in roots:
                sound.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = ?", (roots[name], name))
            elif not name.startswith("sqlite_"):
                sound.execute("DELETE FROM sqlite_master WHERE tbl_name = ?", (name,))
        image = bytearray(sound.serialize()[: pages.size])
    if image[_HEAD] != _LEAF_TABLE:
        raise sqlite3.DatabaseError("its pages are too small for the list of tables")
    image[_AT_LOGGED] = b"\2\2"
    image[_AT_PAGES] = pages.count.to_bytes(4, "big")
    file.seek(0)
    file.write(image)


@contextmanager
def _new_file(size: int) -> Iterator[sqlite3.Connection]:
    """Give a new file, in memory, with pages of so many bytes."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sound:
        sound.execute(f"PRAGMA page_size = {size}")
        prepare(sound, ":memory:", "")
        write_part(sound, b"")
        yield sound


def _read_trees(pages: _Pages) -> tuple[dict[int, int], dict[int, int]]:
    """Return page -> its type, and root -> how many pages are in its tree."""
    kinds: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    free = pages.free_pages()
    for number in range(2, pages.count + 1):
        if number not in free and (page := pages.read_page(number))[0] in _TYPES:
            kinds[number] = page[0]
            if page[0] in _INNER:
                children[number] = [*_children(page)]
    below = {one for some in children.values() for one in some}
    roots = {number: _count_pages(number, children) for number in kinds if number not in below}
    return kinds, roots


def _count_pages(root: int, children: Mapping[int, list[int]]) -> int:
    seen, waiting = set[int](), [root]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += children.get(one, ())
    return len(seen)


def _cells(page: bytes) -> Iterator[int]:
    """Yield where the cells of a page are."""
    first = 12 if page[0] in _INNER else 8
    for at in range(min(int.from_bytes(page[3:5], "big"), (len(page) - first) // 2)):
        place = int.from_bytes(page[first + 2 * at : first + 2 * at + 2], "big")
        if first <= place < len(page) - 4:
            yield place


def _children(page: bytes) -> Iterator[int]:
    for place in _cells(page):
        yield int.from_bytes(page[place : place + 4], "big")
    yield int.from_bytes(page[8:12], "big")


def _is_empty(page: bytes, kind: int, shape: str) -> bool:
    """Return whether a page is the root of a table, or an index, of this kind in which there is nothing."""
    return kind == (_LEAF_TABLE if shape.startswith("n") else _LEAF_INDEX) and page[3:5] == bytes(2)


def _has_shape(pages: _Pages, root: int, shape: str) -> bool:
    """Return whether a row in the first leaf of a tree looks so."""
    page = pages.read_page(root)
    for _ in range(_DEPTH):
        if page[0] != _INNER_TABLE:
            break
        page = pages.read_page(next(_children(page)))
    if page[0] not in ((_LEAF_TABLE,) if shape.startswith("n") else (_LEAF_INDEX, _INNER_INDEX)):
        return False
    return any(_is_shaped(_shape_of(page, place), shape) for place in _cells(page))


def _is_shaped(found: str, shape: str) -> bool:
    return len(found) == len(shape) and all(
        one == wanted or (one, wanted) == ("k", "b") for one, wanted in zip(found, shape, strict=True)
    )


def _shape_of(page: bytes, at: int) -> str:
    """Return what the row in a cell has, in the letters of `_SHAPES`."""
    at += 4 if page[0] == _INNER_INDEX else 0
    _, at = _varint(page, at)  # the size of the row
    if page[0] == _LEAF_TABLE:
        _, at = _varint(page, at)  # its number
    begin = at
    size, at = _varint(page, at)
    found = ""
    while at < min(begin + size, len(page)):
        kind, at = _varint(page, at)
        found += _letter(kind)
    return found


def _letter(kind: int) -> str:
    if kind >= 12:
        return "t" if kind % 2 else "k" if kind == 12 + 2 * 32 else "b"
    return "n" if kind == 0 else "i"


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for byte in page[at : at + _VARINT]:
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return value, at
