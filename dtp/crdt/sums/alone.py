"""What one author's frames give by themselves, as though nobody else had written: what its sums have to keep.

What others overwrote or deleted is there again where they are banned, or their grants revoked. docs/graph.md,
"Summaries".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Final

from dtp.core import crdt as core
from dtp.core.crdt import CLOCK_END, RULED, GraphCore, SummaryCore
from dtp.core.sequence import TextFull, TextMemory, TextWaiting
from dtp.core.varint import put_varint
from dtp.crdt import values
from dtp.crdt.list import List
from dtp.crdt.operations import (
    Content,
    EditStep,
    Operations,
    Span,
    find_content,
    joined_spans,
    overlaps,
    spans_of,
    steps_of,
)
from dtp.crdt.permission.access import needs_verdict
from dtp.crdt.permission.owners import owner_name
from dtp.crdt.replicated import Replicated
from dtp.crdt.sequences import Name
from dtp.crdt.sums.holding import Untold, find_untold, without
from dtp.crdt.text import Text
from dtp.errors import PeerError

#: Whoever reads the author's edits, and makes none.
_READER: Final = b"-"
#: An operation of a message of changes, as docs/text.md has it: an insertion that is deleted further on, to the right
#: of nothing; and that it is one alone.
_STAND_IN, _ALONE = 1 | 3 << 3, 0x80
#: What a message of changes begins with, by space.
CHANGES: Final = {core.TEXT: 0xD1, core.LIST: 0xD3}


class Alone:
    """What an author's frames give alone. Add all of them, in order, before anything is asked."""

    def __init__(self, author: bytes) -> None:
        self.author = author
        #: What is merged of them: registers, counters, sets and values.
        self.core = GraphCore(author)
        self.core.set_owner(0, owner_name(author).encode())
        self.core.ask_verdicts()
        self._edits: dict[Name, list[bytes]] = defaultdict(list)
        self._open: dict[Name, Replicated] = {}
        #: By edit, what it tells of.
        self._spans: dict[Name, dict[bytes, list[Span]]] = {}
        self._untold: dict[Name, Untold] = {}
        #: The content of these.
        self._kept: dict[Name, Content] = {}

    def add_frame(self, body: bytes) -> None:
        """Take a frame. Raises `EncodingError`."""
        if self.core.merge_frame(0, body, CLOCK_END) == RULED:
            self._leave_ruled(body)
            self.core.merge_frame(0, body, CLOCK_END)
        self._take_edits()

    def add_summary(self, body: bytes, after: int, last: int) -> None:
        """Take what the author said before of the ops with clocks above `after`, up to `last`. Raises
        `EncodingError`."""
        if self.core.merge_summary(0, body, after, last, CLOCK_END) == RULED:
            self._leave_ruled(body)
            self.core.merge_summary(0, body, after, last, CLOCK_END)
        self._take_edits()

    def _leave_ruled(self, body: bytes) -> None:
        """Have what needs a verdict count for nothing: it is in a sum as it is."""
        self.core.set_verdicts(bytes(self.core.check_frame(body)[2]))

    def _take_edits(self) -> None:
        if self.core.edited:
            for space, soul, key, edit in values.decode(self.core.read_edits()):
                if not needs_verdict(self.author, soul):
                    self._edits[space, soul, key].append(edit)

    def begin_summary(self, after: int) -> SummaryCore:
        """Return what sums up the author's frames after the clock `after`, which are added in order, as one frame."""
        return self.core.begin_summary(0, after)

    # ---- texts and lists ------------------------------------------------------------------------------------------

    def spans_of(self, name: Name, edit: bytes) -> list[Span]:
        """Return the spans of operations that one of the author's edits tells, in order; also one that has come in
        the place of others since they were added."""
        self._open_sequence(name)
        found = self._spans[name].get(edit)
        return spans_of(edit) if found is None else found

    def changes_of(self, name: Name, span: Span) -> bytes:
        """Return these operations of the author's as a message, without the content that it deleted or replaced
        itself, but with what has to be told all the same; empty if one isn't here, or its text can't take it."""
        changes = self._open_sequence(name).changes_of(*span)
        return self._kept[name].put_into(changes)

    def has_content_of(self, name: Name, span: Span) -> bool:
        """Return whether any of these operations has content that has to be told, as far as is known: a text may not
        have taken it."""
        return self._content_size(name, span) > 0 or not self.changes_of(name, span)

    def sequences(self) -> list[Name]:
        """Return the texts and lists that the author edited."""
        return sorted({*self._edits, *self._open})

    def taken_from(self, name: Name, text: Replicated, *, least: int) -> list[Span]:
        """Return the operations that have content here and none in the whole text, since others took it away, or the
        author did so by operations that may wait: those with at least `least` bytes in a row. Nothing is known of
        what was compacted there."""
        here, there = Operations(), Operations()
        self._open_sequence(name)
        for span in chain.from_iterable(self._spans[name].values()):
            changes = text.changes_of(*span)
            if changes:
                here.add_edit(self.changes_of(name, span))
                there.add_edit(changes)
        gone = without(there.without_content(here), self._untold[name].needed)
        return [span for span in gone if self._content_size(name, span) >= least]

    def _content_size(self, name: Name, span: Span) -> int:
        told = Operations()
        told.add_edit(self.changes_of(name, span))
        return told.content_size

    def open_sequences(self) -> None:
        """Work out what there is to say of all texts and lists, which takes long where they have many edits: then it
        need not be done when the first of each is asked for. Any thread may do so, while no other uses this."""
        for name in self.sequences():
            self._open_sequence(name)

    def _open_sequence(self, name: Name) -> Replicated:
        """Return the text or list of all edits of the author there, on stand-ins for what others made."""
        found = self._open.get(name)
        if found is None:
            found = self._open[name] = Text(_READER) if name[0] == core.TEXT else List(_READER)
            edits = self._edits.pop(name, [])
            told = {edit: steps_of(edit) for edit in edits}
            self._spans[name] = {
                edit: joined_spans(step.span for step in steps) for edit, steps in told.items()
            }
            steps = list(chain.from_iterable(told.values()))
            stand_ins = list(_stand_ins(CHANGES[name[0]], steps))
            untold = self._untold[name] = find_untold(steps) if stand_ins else Untold([], [])
            self._kept[name] = Content(
                {
                    id: unit
                    for edit, spans in self._spans[name].items()
                    for some in untold
                    if any(overlaps(some, span) for span in spans)
                    for id, unit in find_content(edit, some)
                }
            )
            for message in (*stand_ins, *edits):
                with suppress(PeerError, TextFull, TextMemory, TextWaiting):  # a sum has it as it is
                    found.merge(message)
        return found


def _stand_ins(kind: int, steps: list[EditStep]) -> Iterator[bytes]:
    """Yield messages with something in the place of all that edits refer to and don't tell."""
    told: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    needed: dict[bytes, int] = {}
    for agent, first, end in joined_spans(step.span for step in steps):
        told[agent].append((first, end))
        needed[agent] = max(needed.get(agent, 0), end)
    for step in steps:
        for agent, number in (*step.names, *step.subjects):
            if number >= needed.get(agent, 0):
                needed[agent] = number + 1
    for agent, end in needed.items():
        groups = b"".join(_group(first, stop) for first, stop in _gaps(told.get(agent, ()), end))
        if groups:
            yield bytes((kind, 1, len(agent))) + agent + groups + bytes(2)


def _gaps(spans: Iterable[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """Yield from where to where none of the spans reaches, up to `end`."""
    at = 0
    for first, stop in sorted(spans):
        if first > at:
            yield at, first
        at = max(at, stop)
    if at < end:
        yield at, end


def _group(first: int, end: int) -> bytes:
    """Return a group of the first agent of a message: it inserts something with these numbers, deleted further on."""
    out = bytearray(b"\1")
    put_varint(out, first)
    if end - first == 1:
        out.append(_STAND_IN | _ALONE)
    else:
        out.append(_STAND_IN)
        put_varint(out, end - first)
    return bytes(out) + b"\3"
