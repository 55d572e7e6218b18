"""What texts and lists share as Python knows them: versions, anchors, and being replicated."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from dtp.core.sequence import AnchorGone, SequenceHandle, TextFormat, TextRange, TextUnseen

#: Which neighbour an anchor is tied to.
Side = Literal["left", "right"]


def _put_number(out: bytearray, number: int) -> None:
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


class _Reader:
    """LEB128 numbers and names, strictly: the shortest form, nothing cut off."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def make_error(self, what: str, at: int) -> TextFormat:
        error = TextFormat(f"{what}, at byte {at}")
        error.offset = at
        return error

    def read_number(self) -> int:
        start, value, shift = self.at, 0, 0
        while self.at < len(self.data) and shift < 63:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    break
                return value
            shift += 7
        raise self.make_error("not a number", start)

    def read_name(self) -> bytes:
        start = self.at
        size = self.read_number()
        if not 1 <= size <= 64 or size > len(self.data) - self.at:
            raise self.make_error("not a name", start)
        self.at += size
        return self.data[self.at - size : self.at]

    def expect_end(self) -> None:
        if self.at != len(self.data):
            raise self.make_error("there are bytes behind the end", self.at)


class Version(Mapping[bytes, int]):
    """How far a replica has come: for each author, how many of its operations are known. Never changes.

    `a <= b`: whoever is at `b` knows all that one at `a` does. `a | b` is what both know together, `a & b` what
    each of them knows.
    """

    __slots__ = ("_numbers",)

    def __init__(self, numbers: Mapping[bytes, int] | Iterable[tuple[bytes, int]] = ()) -> None:
        self._numbers = {agent: number for agent, number in dict(numbers).items() if number > 0}

    def __getitem__(self, agent: bytes) -> int:
        return self._numbers[agent]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def __hash__(self) -> int:
        return hash(frozenset(self._numbers.items()))

    def __eq__(self, other: object) -> bool:
        return self._numbers == other._numbers if isinstance(other, Version) else NotImplemented

    def __le__(self, other: Version) -> bool:
        return all(number <= other._numbers.get(agent, 0) for agent, number in self._numbers.items())

    def __ge__(self, other: Version) -> bool:
        return other <= self

    def __or__(self, other: Version) -> Version:
        both = dict(self._numbers)
        for agent, number in other._numbers.items():
            both[agent] = max(number, both.get(agent, 0))
        return Version(both)

    def __and__(self, other: Version) -> Version:
        numbers = other._numbers
        return Version((agent, min(number, numbers.get(agent, 0))) for agent, number in self._numbers.items())

    def __repr__(self) -> str:
        return f"Version({self._numbers})"

    def encode(self) -> bytes:
        """Return the version as docs/text.md has it: the same bytes for the same version."""
        out = bytearray()
        _put_number(out, len(self._numbers))
        for agent in sorted(self._numbers):
            _put_number(out, len(agent))
            out += agent
            _put_number(out, self._numbers[agent])
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> Version:
        """Return the opposite of `encode`; no bytes at all are the version of an empty text. Raises `TextFormat`."""
        if not data:
            return cls()
        reader = _Reader(data)
        numbers: dict[bytes, int] = {}
        last = b""
        for _ in range(reader.read_number()):
            at = reader.at
            agent = reader.read_name()
            number = reader.read_number()
            if agent <= last or not 0 < number < 2**31 - 1:
                raise reader.make_error("authors out of order, or an impossible number", at)
            numbers[agent] = number
            last = agent
        reader.expect_end()
        return cls(numbers)


class Anchor:
    """A place that stays with its text: right behind a character (`left`), or right before one (`right`).

    Tied to no character it is the beginning (`left`) or the end (`right`) of the text. Made by `Text.anchor`; on
    other replicas by `decode`, once the character has arrived there.
    """

    __slots__ = ("__weakref__", "_agent", "_number", "_side")

    def __init__(self, side: Side, agent: bytes = b"", number: int = 0) -> None:
        self._side: Side = side
        self._agent = agent
        self._number = number

    def __repr__(self) -> str:
        place = f"{self._agent!r} {self._number}" if self._agent else "nothing"
        return f"<Anchor {self._side} tied to {place}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Anchor):
            return NotImplemented
        return (self._side, self._agent, self._number) == (other._side, other._agent, other._number)

    __hash__ = (
        object.__hash__
    )  # its place may move on when a text is compacted; a set of anchors must not mind

    def encode(self) -> bytes:
        """Return the anchor as bytes for other replicas, such as a cursor to show or a comment's place."""
        out = bytearray([self._side == "right"])
        if self._agent:
            _put_number(out, len(self._agent))
            out += self._agent
            _put_number(out, self._number)
        return bytes(out)

    @classmethod
    def decode(cls, data: bytes) -> Anchor:
        """Return the opposite of `encode`. Raises `TextFormat`."""
        reader = _Reader(data)
        if not data or data[0] > 1:
            raise reader.make_error("not an anchor", 0)
        reader.at = 1
        side: Side = "right" if data[0] else "left"
        if len(data) == 1:
            return cls(side)
        agent, number = reader.read_name(), reader.read_number()
        if number >= 2**31 - 1:
            raise reader.make_error("an impossible number", reader.at)
        reader.expect_end()
        return cls(side, agent, number)


class Replicated(SequenceHandle):
    """A sequence that replicas edit apart and that is the same everywhere once they have exchanged their changes."""

    __slots__ = ("_anchors",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._anchors: weakref.WeakSet[Anchor] = weakref.WeakSet()

    def save(self) -> bytes:
        """Return all of it: the same bytes on every replica that has the same operations and has compacted as far.

        What waits for missing operations is not in it; those that sent it will send it again.
        """
        return self.changes_since(None)

    # ---- places

    def anchor(self, position: int, side: Side = "left") -> Anchor:
        """Return a place that stays with its text, tied to the character before `position` (`left`) or at it
        (`right`).

        What is inserted exactly there comes behind a `left` one and before a `right` one. Raises `TextRange`.
        """
        if not 0 <= position <= len(self):
            raise TextRange(f"{position} is not within a text of {len(self)} characters")
        anchor = Anchor(side)
        self._tie_anchor(anchor, position)
        self._anchors.add(anchor)
        return anchor

    def _tie_anchor(self, anchor: Anchor, position: int) -> None:
        at = position - 1 if anchor._side == "left" else position
        anchor._agent, anchor._number = self._identify_element(at) if 0 <= at < len(self) else (b"", 0)

    def position(self, anchor: Anchor) -> int:
        """Return where an anchor is now: where its character is, or was before it was deleted. Raises `AnchorGone`.

        An anchor that was made here, or was found here before, survives `compact`; one that comes from elsewhere may
        be tied to a character that is gone.
        """
        if not anchor._agent:
            return 0 if anchor._side == "left" else len(self)
        before, visible = self._locate_element(anchor._agent, anchor._number)
        self._anchors.add(anchor)
        return before + (visible and anchor._side == "left")

    def identify_element(self, position: int) -> tuple[bytes, int]:
        """Return who made what is at a position, as the sequence names its author, and its number."""
        if not 0 <= position < len(self):
            raise TextRange(f"{position} is not within a text of {len(self)} characters")
        return self._identify_element(position)

    def find_made(self, agent: bytes, first: int, count: int) -> list[int]:
        """Return where those of an author's elements of these numbers are that are there."""
        if count > len(self):  # however many somebody says that there are
            made = (self._identify_element(at) for at in range(len(self)))
            return [at for at, (who, one) in enumerate(made) if who == agent and first <= one < first + count]
        found = []
        for number in range(first, first + count):
            with contextlib.suppress(AnchorGone):
                before, visible = self._locate_element(agent, number)
                if visible:
                    found.append(before)
        return found

    # ---- replicating

    @property
    def version(self) -> Version:
        """What was merged and made here."""
        return Version.decode(self.encoded_version())

    def changes_since(self, version: Version | bytes | None) -> bytes:
        """Return what a replica at `version` (None: an empty one) lacks, as a message; empty when it lacks nothing.

        To one that lacks what is compacted here the whole text goes, without what was deleted. Raises `TextFormat`.
        """
        if version is None:
            return self._encode_changes(b"")
        return self._encode_changes(version if isinstance(version, bytes) else version.encode())

    def compact(self, reports: Iterable[Version]) -> int:
        """Forget what all replicas have seen; `reports` are the last known versions of all others that may write.

        Deleted characters leave memory, saved texts and messages. A replica that is not asked and has not seen what
        is forgotten can no longer merge (`TextStale`, or `TextDiverged` when it is sent the text): leave out only
        those that are gone for good. Gives how many characters were forgotten. Raises `TextUnseen` when a report
        names operations that are not here: merge them first, they may refer to anything.
        """
        own = stable = self.version
        for report in reports:
            if not report <= own:
                raise TextUnseen(
                    "a report names operations that are not here; merge that replica's changes first"
                )
            stable = stable & report
        places = []
        for anchor in self._anchors:
            with contextlib.suppress(AnchorGone):
                places.append((anchor, self.position(anchor)))
        forgotten = self._compact_history(stable.encode())
        for anchor, position in places:
            try:
                self.position(anchor)
            except AnchorGone:
                self._tie_anchor(anchor, position)
        return forgotten
