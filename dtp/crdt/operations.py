"""Operations that edits of texts and lists tell of, read from their bytes: which, and what of each. docs/text.md."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, islice
from typing import Final, NamedTuple

from dtp.core.errors import EncodingError

#: Bytes that a marker's insertion, and a group's end, are told by; what a mark begins with instead of a character.
_MARKER, _END, _MARK = 0x07, 0x03, 0xFF
#: Bits 0 and 1 of an operation's byte.
_INSERT, _VOID, _DELETE = 0, 1, 2
_LIST: Final = 0xD3
#: Bits of references: none, one number, two, none.
_PREVIOUS, _OWN, _OTHER, _SAME = range(4)

#: An operation's name: whose, and which number.
Id = tuple[bytes, int]


class Span(NamedTuple):
    """Operations of one agent: from `first` up to before `end`."""

    agent: bytes
    first: int
    end: int


class _Told(NamedTuple):
    """`length` operations as they are written: from `id` on. `kind` is 0 for a right child, 1 for a left child, 2
    for a deletion; `at` the parent, or what is deleted (None: the beginning), `right` the right origin (None: the
    end)."""

    id: Id
    length: int
    kind: int
    is_marker: bool
    at: Id | None
    right: Id | None
    has_content: bool
    goes_down: bool

    @property
    def first(self) -> int:
        """Return the number of its first operation."""
        return self.id[1]

    @property
    def end(self) -> int:
        """Return the number behind its last operation."""
        return self.id[1] + self.length

    def at_number(self, number: int) -> tuple[int, bool, Id | None, Id | None]:
        """Return what the operation with a number of it does: kind, whether it inserts a marker, parent or what is
        deleted, right origin."""
        step = number - self.first
        if self.kind == _DELETE and self.at is not None:
            return _DELETE, False, (self.at[0], self.at[1] + (-step if self.goes_down else step)), None
        if step:
            return 0, False, (self.id[0], number - 1), self.right
        return self.kind, self.is_marker, self.at, self.right


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def has_more(self) -> bool:
        return self.at < len(self._data)

    def read_byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def read_number(self) -> int:
        value = shift = 0
        while (byte := self.read_byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
        return value | byte << shift

    def read_bytes(self, size: int) -> bytes:
        self.at += size
        if self.at > len(self._data):
            raise IndexError
        return self._data[self.at - size : self.at]

    def read_character(self) -> bytes:
        """Return a character in UTF-8, or a mark."""
        start, first = self.at, self.read_byte()
        if first == _MARK:
            size = self.read_number()
            self.at += size
        else:
            self.at += 0 if first < 0xC0 else 1 if first < 0xE0 else 2 if first < 0xF0 else 3
        return self._data[start : self.at]

    def read_cell(self) -> bytes:
        """Return an element or a marker of a list."""
        return self.read_bytes(self.read_number())


def spans_of(edit: bytes) -> list[Span]:
    """Return the spans of operations that are in an edit, in order. Raises `EncodingError`."""
    found: list[Span] = []
    for told, _ in _messages(edit):
        for one in told:
            agent, number = one.id
            if found and found[-1][0] == agent and found[-1].end == number:
                found[-1] = found[-1]._replace(end=number + one.length)
            else:
                found.append(Span(agent, number, number + one.length))
    return found


class _Runs:
    """Runs of one agent by their first numbers, to be looked up in."""

    def __init__(self, runs: list[_Told]) -> None:
        self._runs = sorted(runs, key=_first)
        #: How far the runs up to each one reach.
        self._reach = list(accumulate((one.end for one in self._runs), max))

    def merged_spans(self) -> Iterator[tuple[int, int]]:
        """Yield from where to where there are operations, without gaps in between."""
        start: int | None = None
        for one, end in zip(self._runs, [0, *self._reach], strict=False):
            if start is not None and one.first > end:
                yield start, end
                start = None
            if start is None:
                start = one.first
        if start is not None:
            yield start, self._reach[-1]

    def missing_ranges(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield from where to where operations from `first` up to before `end` aren't here."""
        at = bisect_right(self._reach, first)
        while first < end:
            start = self._runs[at].first if at < len(self._runs) else end
            if start > first:
                yield first, min(start, end)
            first = max(first, self._reach[at]) if start < end else end
            at += 1

    def iter_overlapping(self, other: _Runs) -> Iterator[tuple[_Told, _Told]]:
        """Yield those of here and there that tell of the same operations."""
        for two in other._runs:
            for at in range(bisect_right(self._reach, two.first), len(self._runs)):
                one = self._runs[at]
                if one.first >= two.end:
                    break
                if one.end > two.first:
                    yield one, two


class Operations:
    """All operations of some edits of one text or list, and their content as far as it is told.

    They are held as they are told, in runs: a run of a billion takes no more than one of two. To look up what an edit
    tells takes the time of that edit, however much is here.
    """

    def __init__(self) -> None:
        self._told: dict[bytes, list[_Told]] = {}
        self._content: dict[Id, list[bytes]] = {}
        #: Agent, whether only those told with their content -> its runs, once they were looked up in.
        self._ordered: dict[tuple[bytes, bool], _Runs] = {}

    def add_edit(self, edit: bytes) -> None:
        """Read one more edit. Raises `EncodingError`."""
        self._ordered.clear()
        for told, content in _messages(edit):
            for one in told:
                if one.has_content:
                    units = list(islice(content, one.length))
                    if len(units) < one.length:
                        raise EncodingError("an edit has less text than it says")
                    self._content[one.id] = units
                self._told.setdefault(one.id[0], []).append(one)

    def merge_operations(self, other: Operations) -> None:
        """Add all of the other's operations."""
        self._ordered.clear()
        for agent, told in other._told.items():
            self._told.setdefault(agent, []).extend(told)
        self._content |= other._content

    @property
    def has_content(self) -> bool:
        """True if the content of any of them is told."""
        return bool(self._content)

    def _runs_of(self, agent: bytes, *, with_content: bool = False) -> _Runs:
        runs = self._ordered.get((agent, with_content))
        if runs is None:
            told = [one for one in self._told.get(agent, ()) if one.has_content or not with_content]
            runs = self._ordered[agent, with_content] = _Runs(told)
        return runs

    def has_all_of(self, other: Operations) -> bool:
        """Return whether all operations of the other are here."""
        return not any(
            True
            for agent in other._told
            for first, end in other._runs_of(agent).merged_spans()
            for _ in self._runs_of(agent).missing_ranges(first, end)
        )

    def without_content(self, other: Operations) -> Iterator[Span]:
        """Yield the operations of which the other tells the content, and these don't."""
        for agent in other._told:
            for first, end in other._runs_of(agent, with_content=True).merged_spans():
                for missing in self._runs_of(agent, with_content=True).missing_ranges(first, end):
                    yield Span(agent, *missing)

    def is_consistent(self, other: Operations) -> bool:
        """Return whether both say the same of the operations that are in both. Content is told or not: what was
        deleted since is told without."""
        return all(
            self._say_the_same(one, two, other)
            for agent in other._told
            for one, two in self._runs_of(agent).iter_overlapping(other._runs_of(agent))
        )

    def _say_the_same(self, one: _Told, two: _Told, other: Operations) -> bool:
        first, end = max(one.first, two.first), min(one.end, two.end)
        if one.at_number(first) != two.at_number(first):
            return False
        if end - first > 1 and one.at_number(first + 1) != two.at_number(first + 1):
            return False  # all further ones are told as the second one
        if not (one.has_content and two.has_content):
            return True
        ours = self._content[one.id][first - one.first : end - one.first]
        return ours == other._content[two.id][first - two.first : end - two.first]


def _first(one: _Told) -> int:
    return one.id[1]


def _messages(edit: bytes) -> Iterator[tuple[list[_Told], Iterator[bytes]]]:
    """Yield what each message tells, and the content of what isn't deleted, in order."""
    reader = _Reader(edit)
    try:
        while reader.has_more():
            is_list = reader.read_byte() == _LIST
            names = [reader.read_bytes(reader.read_number()) for _ in range(reader.read_number())]
            told = list(_groups(reader, names))
            size = reader.read_number()
            yield told, _content(reader.read_bytes(size), is_list=is_list)
    except (IndexError, StopIteration) as error:
        raise EncodingError("an edit of a text or a list that ends too early") from error


def _groups(reader: _Reader, names: list[bytes]) -> Iterator[_Told]:
    while index := reader.read_number():
        agent, number = names[index - 1], reader.read_number()
        right: Id | None = None
        while (head := reader.read_byte()) != _END:
            one = _operation(reader, names, (agent, number), right, head)
            if one.kind != _DELETE:
                right = one.right
            number += one.length
            yield one


def _operation(reader: _Reader, names: list[bytes], id: Id, before: Id | None, head: int) -> _Told:
    is_marker = head == _MARKER
    if is_marker:
        head = reader.read_byte()
    what, other_way = head & 3, bool(head & 4)
    count = 1 if head & 0x80 else reader.read_number()
    at = _reference(reader, names, id, head >> 3 & 3, (id[0], id[1] - 1), None)
    if what == _DELETE:
        return _Told(id, count, _DELETE, False, at, None, False, other_way)
    right = at if other_way else _reference(reader, names, id, head >> 5 & 3, None, before)
    return _Told(id, count, int(other_way), is_marker, at, right, what == _INSERT, False)


def _reference(
    reader: _Reader, names: list[bytes], id: Id, form: int, previous: Id | None, same: Id | None
) -> Id | None:
    """Read a reference; `previous` and `same` are what the two forms without numbers mean."""
    if form == _OWN:
        return id[0], id[1] - reader.read_number()
    if form == _OTHER:
        return names[reader.read_number()], reader.read_number()
    return previous if form == _PREVIOUS else same


def _content(data: bytes, *, is_list: bool) -> Iterator[bytes]:
    reader = _Reader(data)
    while reader.has_more():
        yield reader.read_cell() if is_list else reader.read_character()
