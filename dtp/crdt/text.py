"""A replicated text: what programs hold. The merging is in C, the order and the wire format are in docs/text.md."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, overload

from dtp.core.sequence import (
    AnchorGone,
    TextDiverged,
    TextFormat,
    TextRange,
    TextReference,
    TextStale,
    TextUnseen,
    TextWaiting,
)
from dtp.core.text import Patch, TextHandle
from dtp.crdt import marks
from dtp.crdt.marks import (
    Attributes,
    Expand,
    Format,
    TextDeltaError,
    TextMarkError,
    TextMarksLimit,
)
from dtp.crdt.replicated import Anchor, Replicated, Version
from dtp.crdt.values import Value
from dtp.errors import LocalError

__all__ = [
    "Anchor",
    "AnchorGone",
    "Format",
    "Patch",
    "Text",
    "TextDeltaError",
    "TextDiverged",
    "TextFormat",
    "TextMarkError",
    "TextMarksLimit",
    "TextRange",
    "TextReference",
    "TextStale",
    "TextUnseen",
    "TextWaiting",
    "Version",
]


class Text(Replicated, TextHandle):
    """A text that replicas edit apart and that is the same everywhere once they have exchanged their changes.

    Reads and edits like a sequence of characters; positions are code points, as in `str`. This replica writes as
    `agent` (1 to 64 bytes): never let two running replicas write as the same one. What is written here goes out by
    `take_changes` (since the last time) or `changes_since` (since a version), and comes in elsewhere by `apply` or
    `merge`, in any order and however often.

        >>> here, there = Text(b"here"), Text(b"there")
        >>> here.insert(0, "hello")
        >>> there.apply(here.take_changes())
        [Patch(position=0, deleted=0, inserted='hello')]

    One thread at a time. Raises `dtp.errors.DtpError` only.
    """

    __slots__ = ()

    @classmethod
    def load(
        cls,
        data: bytes,
        agent: bytes,
        *,
        undo_depth: int = 1000,
        memory_limit: int = 0,
        waiting_limit: int = 16 * 1024 * 1024,
    ) -> Text:
        """Return what `save` gave. Raises `TextFormat`, `TextReference`, `TextMemory`."""
        text = cls(agent, undo_depth=undo_depth, memory_limit=memory_limit, waiting_limit=waiting_limit)
        text.merge(data)
        return text

    # ---- as a sequence

    def __repr__(self) -> str:
        shown = self.read(0, min(len(self), 40))
        return f"<Text of {len(self)}: {shown!r}{'...' if len(self) > 40 else ''}>"

    def __iter__(self) -> Iterator[str]:
        return iter(str(self))

    def __contains__(self, piece: str) -> bool:
        return piece in str(self)

    def _slice_bounds(self, piece: slice) -> tuple[int, int]:
        start, end, step = piece.indices(len(self))
        if step != 1:
            raise LocalError("a text has slices without a step only")
        return start, max(start, end)

    def _checked_index(self, position: int) -> int:
        at = position + len(self) if position < 0 else position
        if not 0 <= at < len(self):
            raise TextRange(f"{position} is not within a text of {len(self)} characters")
        return at

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> str: ...
    def __getitem__(self, place: int | slice) -> str:
        if isinstance(place, slice):
            return self.read(*self._slice_bounds(place))
        at = self._checked_index(place)
        return self.read(at, at + 1)

    def __setitem__(self, place: int | slice, text: str) -> None:
        """Replace; characters at the beginning and the end that stay the same are left alone."""
        if isinstance(place, slice):
            start, end = self._slice_bounds(place)
        else:
            start = self._checked_index(place)
            end = start + 1
        self.replace(start, end - start, text)

    def __delitem__(self, place: int | slice) -> None:
        if isinstance(place, slice):
            start, end = self._slice_bounds(place)
            self.delete(start, end - start)
        else:
            self.delete(self._checked_index(place))

    def append(self, text: str) -> None:
        """Insert at the end."""
        self.insert(len(self), text)

    def replace(self, position: int, count: int, text: str) -> None:
        """Put `text` in place of `count` characters, as one undo step, touching only what is different.

        Raises as `insert` and `delete`.
        """
        if position < 0 or count < 0 or position + count > len(self):
            raise TextRange(f"{count} characters from {position} on are not within a text of {len(self)}")
        old = self.read(position, position + count)
        small = min(len(old), len(text))
        front = next((i for i in range(small) if old[i] != text[i]), small)
        back = next((i for i in range(small - front) if old[-1 - i] != text[-1 - i]), small - front)
        with self.step():
            self.edit([(position + front, count - front - back, text[front : len(text) - back])])

    # ---- marks

    def mark(
        self, start: int, stop: int, name: str, value: Value = True, *, expand: Expand | None = None
    ) -> None:
        """Mark the characters from `start` to before `stop`: as bold, as a link to `value`, with a comment.

        Of two marks of one name over a character the later holds; marks of different names hold together, so give
        each comment a name of its own ("comment:17"). `expand` says whether what is inserted right "before" the
        marked characters, right "after" them, on "both" sides or on "none" is marked, too; without it "none" for
        names that are, or begin with, "link" or "comment" and a colon, else "after". A value of None takes the mark
        away, as `unmark` does. Raises `TextRange`, `TextMarkError`, `GraphValueError`, `TextMemory`, `TextFull`.
        """
        encoded, data = marks.encode_mark(name, value)
        bits = marks.expand_bits(name, expand, removing=value is None)
        try:
            self.mark_encoded(start, stop, encoded, data, bits, self._next_stamp())
        except TextFormat as error:
            raise marks.refused_mark(value) from error

    def unmark(self, start: int, stop: int, name: str, *, expand: Expand | None = None) -> None:
        """Take the marks of a name away from the characters from `start` to before `stop`.

        `expand` is that of the marks: what is inserted beside those that stay marked is as it would be without this.
        Raises as `mark`.
        """
        self.mark(start, stop, name, None, expand=expand)

    def _next_stamp(self) -> int:
        """Return the clock of a mark made now, or a number that is below all stamps."""
        return 0

    def spans(self, start: int = 0, stop: int | None = None) -> list[tuple[str, Attributes]]:
        """Return the text, or a part of it, as (string, attributes); neighbours have different attributes.

        Raises `TextRange`, `TextMarksLimit`.
        """
        end = len(self) if stop is None else stop
        text = self.read(start, end)
        found = marks.spans_of(self.read_marks(start, end), start, end)
        return [(text[first - start : last - start], attributes) for first, last, attributes in found]

    def formats(self) -> list[Format]:
        """Return what the last `apply`, `undo` or `redo` changed of the marks, in the text as it is now.

        They hold after its patches, one after the other; of what a patch inserted they tell all that marks it. Ask
        before the next edit.
        """
        return marks.formats_of(self.changed_marks(), len(self))

    def to_delta(self) -> list[dict[str, Any]]:
        """Return the text as a delta of inserts, as the editor Quill has them. Raises `TextMarksLimit`."""
        return [
            {"insert": text, "attributes": attributes} if attributes else {"insert": text}
            for text, attributes in self.spans()
        ]

    def apply_delta(self, delta: list[dict[str, Any]]) -> None:
        """Edit as a delta says: `retain`, `insert` and `delete`, with `attributes`, as one undo step.

        Inserted text has exactly the attributes that are given; an attribute of None is taken away. Lengths are code
        points. Raises `TextDeltaError`, `TextMarkError`, `GraphValueError` (nothing was done), `TextMemory`.
        """
        steps = marks.read_delta(delta, len(self))
        at = 0
        with self.step():
            for step in steps:
                if step.kind == "delete":
                    self.delete(at, step.length)
                    continue
                changed = step.attributes
                if step.kind == "insert":
                    self.insert(at, step.text)
                    changed = self._attributes_to_set(at, step)
                for name, value in changed.items() if step.length else ():
                    self.mark(at, at + step.length, name, value)
                at += step.length

    def _attributes_to_set(self, at: int, step: marks.DeltaStep) -> Attributes:
        """Return what is missing of an insertion's attributes, and as None what it got from around it."""
        found = self.spans(at, at + step.length) if step.length else []
        if len(found) == 1 and marks.same_attributes(found[0][1], step.attributes):
            return {}
        around = {name: None for _, attributes in found for name in attributes}
        return {**around, **step.attributes}

    def marked_ranges(self) -> list[list[Any]]:
        """Return [start, stop, name, value] of all that is marked, by start and name."""
        return marks.ranges_of(self.read_marks(0, len(self)))

    def mark_ranges(self, ranges: list[list[Any]]) -> bool:
        """Have these [start, stop, name, value] marked and nothing else, as one undo step; True if that was another.

        Raises as `mark`.
        """
        before = {
            (start, stop, name, marks.encode_mark(name, value)[1])
            for start, stop, name, value in self.marked_ranges()
        }
        after = {
            (start, stop, name, marks.encode_mark(name, value)[1]): value
            for start, stop, name, value in ranges
        }
        if any(not 0 <= start <= stop <= len(self) for start, stop, _, _ in after):
            raise TextRange(f"a mark is beyond the end of a text of {len(self)} characters")
        with self.step():
            for start, stop, name, _ in sorted(before - after.keys()):
                self.unmark(start, stop, name)
            for start, stop, name, data in sorted(after.keys() - before):
                self.mark(start, stop, name, after[start, stop, name, data])
        return before != after.keys()

    def to_html(self) -> str:
        """Return the text as HTML: bold, italic, underline, strike, code and links; all else as plain text."""
        return marks.to_html(self.spans())

    # ---- undo steps

    def end_step(self) -> None:
        """Begin a new undo step with the next edit.

        By itself a step goes on while typing, or deleting, goes on where it stopped, up to the end of a line.
        """
        self._step_undo(is_open=False)

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Make all edits inside one undo step."""
        self._step_undo(is_open=True)
        try:
            yield
        finally:
            self._step_undo(is_open=False)
