"""Operations that edits of texts and lists tell of, read from their bytes: which, and what of each. docs/text.md."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import Final, NamedTuple

from dtp.core.errors import EncodingError
from dtp.core.varint import put_varint

#: Bytes that a marker's insertion, and a group's end, are told by; what a mark begins with instead of a character.
_MARKER, _END, _MARK = 0x07, 0x03, 0xFF
#: Bits 0 and 1 of an operation's byte.
_INSERT, _VOID, _DELETE = 0, 1, 2
_LIST: Final = 0xD3
#: Bits of a mark's sides.
_FROM_BEGINNING, _TO_END = 4, 8
#: Bit 7 of an operation's byte: it is one alone; and the byte of insertions that go on behind the one before.
_ALONE: Final = 0x80
_GOES_ON: Final = 3 << 5
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
        byte = self.read_byte()
        if byte < 0x80:  # most are so small
            return byte
        value, shift = byte & 0x7F, 7
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
    return joined_spans(Span(one.id[0], one.first, one.end) for told, _ in _messages(edit) for one in told)


def joined_spans(spans: Iterable[Span]) -> list[Span]:
    """Return the same operations in the same order, with those of one agent in a row as one span."""
    found: list[Span] = []
    agent, end = b"", -1
    for span in spans:
        if span.first == end and span.agent == agent:
            found[-1] = Span(agent, found[-1].first, span.end)
        else:
            found.append(span)
        agent, end = span.agent, span.end
    return found


class EditStep(NamedTuple):
    """Operations of one agent that an edit tells by one."""

    span: Span
    #: What has to be there for them: what they stand beside, or delete first and last.
    names: tuple[Id, ...]
    #: What a marker says something about, which has to be there as well.
    subjects: tuple[Id, ...]
    #: What they delete.
    deleted: Span | None
    #: Whether they delete the last of it first.
    goes_down: bool


def steps_of(edit: bytes) -> list[EditStep]:
    """Return what an edit tells, in order. Raises `EncodingError`."""
    return [step for told, content in _messages(edit) for step in _steps(told, content)]


def _steps(told: list[_Told], content: Iterator[bytes]) -> Iterator[EditStep]:
    has_markers = any(one.is_marker for one in told)
    for one in told:
        units = list(islice(content, one.length)) if has_markers and one.has_content else ()
        span, at, right = Span(one.id[0], one.id[1], one.end), one.at, one.right
        if one.kind == _DELETE and at is not None:
            last = at[1] + (1 - one.length if one.goes_down else one.length - 1)
            deleted = Span(at[0], min(at[1], last), max(at[1], last) + 1)
            yield EditStep(span, (at, (at[0], last)), (), deleted, one.goes_down)
            continue
        names = (at, right) if at and right else (at,) if at else (right,) if right else ()
        subjects = tuple(id for unit in units for id in _subjects_of(unit)) if one.is_marker else ()
        yield EditStep(span, names, subjects, None, False)


def _subjects_of(marker: bytes) -> Iterator[Id]:
    """Yield what a marker of a list, or a mark of a text, is about. Raises `EncodingError`."""
    reader = _Reader(marker)
    try:
        if reader.read_byte() != _MARK:
            reader.read_byte()  # a list's: its kind
            reader.read_number()  # its stamp
            yield reader.read_bytes(reader.read_number()), reader.read_number()
            return
        reader.read_number()  # its length
        reader.read_number()  # its stamp
        sides = reader.read_byte()
        for is_open in (sides & _FROM_BEGINNING, sides & _TO_END):
            if not is_open:
                yield reader.read_bytes(reader.read_number()), reader.read_number()
    except IndexError as error:
        raise EncodingError("a marker that ends too early") from error


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
    def content_size(self) -> int:
        """Return the bytes of the content that is told."""
        return sum(map(len, (unit for units in self._content.values() for unit in units)))

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


# ---- telling more -----------------------------------------------------------------------------------------------


def overlaps(spans: Sequence[Span], span: Span) -> bool:
    """Return whether one of the spans, which are in order and apart, has any of these operations."""
    at = bisect_left(spans, (span.agent, span.end), key=lambda one: (one.agent, one.first)) - 1
    return at >= 0 and spans[at].agent == span.agent and spans[at].end > span.first


def find_content(edit: bytes, spans: Sequence[Span]) -> Iterator[tuple[Id, bytes]]:
    """Yield the operations of these spans, which are in order and apart, whose content an edit tells, each with that.
    Raises `EncodingError`."""
    for told, content in _messages(edit):
        for one in told:
            for number, unit in enumerate(islice(content, one.length if one.has_content else 0), one.first):
                if overlaps(spans, Span(one.id[0], number, number + 1)):
                    yield (one.id[0], number), unit


class Content:
    """The content of some operations."""

    def __init__(self, units: Mapping[Id, bytes]) -> None:
        self.units = units
        self.ids = sorted(units)

    def put_into(self, edit: bytes) -> bytes:
        """Return an edit that tells it, too, where it tells these operations as deleted further on. Raises
        `EncodingError`."""
        return _FullerEdit(edit, self).tell_edit() if self.ids else edit


class _FullerEdit:
    """An edit in the making that tells more content than the one which is read."""

    def __init__(self, edit: bytes, more: Content) -> None:
        self._edit = edit
        self._reader = _Reader(edit)
        self._more = more
        self._out = bytearray()
        #: Content of the message in its order: of so many operations what is read, or what comes to it.
        self._parts: list[int | bytes] = []

    def tell_edit(self) -> bytes:
        try:
            while self._reader.has_more():
                self._tell_message()
        except (IndexError, StopIteration) as error:
            raise EncodingError("an edit of a text or a list that ends too early") from error
        return bytes(self._out)

    def _tell_message(self) -> None:
        reader, start = self._reader, self._reader.at
        is_list = reader.read_byte() == _LIST
        names = [reader.read_bytes(reader.read_number()) for _ in range(reader.read_number())]
        self._out += self._edit[start : reader.at]
        self._parts.clear()
        self._tell_groups(names)
        read = _content(reader.read_bytes(reader.read_number()), is_list=is_list)
        content = bytearray()
        for part in self._parts:
            for unit in (part,) if isinstance(part, bytes) else islice(read, part):
                if is_list:
                    put_varint(content, len(unit))
                content += unit
        put_varint(self._out, len(content))
        self._out += content

    def _tell_groups(self, names: list[bytes]) -> None:
        reader, start = self._reader, self._reader.at
        while index := reader.read_number():
            agent, number = names[index - 1], reader.read_number()
            self._out += self._edit[start : reader.at]
            right: Id | None = None
            start = reader.at
            while (head := reader.read_byte()) != _END:
                one = _operation(reader, names, (agent, number), right, head)
                if one.kind != _DELETE:
                    right = one.right
                self._tell_operation(one, self._edit[start : reader.at])
                number += one.length
                start = reader.at
            self._out.append(_END)
            start = reader.at
        self._out.append(0)

    def _tell_operation(self, one: _Told, raw: bytes) -> None:
        """Write an operation, whose bytes these are: an insertion without content in several, as they are told."""
        known = self._more.ids
        ids = known[bisect_left(known, one.id) : bisect_left(known, (one.id[0], one.end))]
        if one.kind == _DELETE or one.has_content or not ids:
            self._parts += [one.length] if one.has_content else []
            self._out += raw
            return
        head, references = _split_operation(raw)
        at = one.first
        for told in joined_spans(Span(agent, number, number + 1) for agent, number in ids):
            for what, end in ((_VOID, told.first), (_INSERT, told.end)):
                if end > at:
                    self._put_insertion(head & ~3 | what, end - at, references, one.is_marker)
                    head, references, at = _GOES_ON, b"", end
        if one.end > at:
            self._put_insertion(head | _VOID, one.end - at, references, one.is_marker)
        self._parts += [self._more.units[id] for id in ids]

    def _put_insertion(self, head: int, length: int, references: bytes, is_marker: bool) -> None:
        self._out += bytes((_MARKER,)) if is_marker else b""
        self._out.append(head | (_ALONE if length == 1 else 0))
        if length > 1:
            put_varint(self._out, length)
        self._out += references


def _split_operation(raw: bytes) -> tuple[int, bytes]:
    """Return the first byte of an insertion, without what says that it is one alone, and its references."""
    reader = _Reader(raw)
    head = reader.read_byte()
    if head == _MARKER:
        head = reader.read_byte()
    if not head & _ALONE:
        reader.read_number()
    return head & ~_ALONE, raw[reader.at :]
