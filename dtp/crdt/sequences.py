"""The texts and lists of a replica: edits travel as ops of its frames, `dtp.crdt.text` and `list` merge them."""

from __future__ import annotations

import base64
import functools
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Literal, NamedTuple, Protocol

from dtp.core import crdt as core
from dtp.core.list import CHANGES as LIST_CHANGES
from dtp.core.sequence import (
    TextDiverged,
    TextFormat,
    TextMemory,
    TextReference,
    TextStale,
    TextUnseen,
    TextWaiting,
)
from dtp.core.text import CHANGES as TEXT_CHANGES
from dtp.crdt import values
from dtp.crdt.list import List, ListPatch
from dtp.crdt.marks import Expand, Format, formats_of
from dtp.crdt.recording import EditRecorder
from dtp.crdt.replicated import Replicated, Version
from dtp.crdt.sequence_changes import SequenceChange, SequenceChanges, difference
from dtp.crdt.text import Patch, Text
from dtp.crdt.values import Value
from dtp.errors import DtpError, PeerError

log = logging.getLogger("dtp.crdt")

#: What a message of changes begins with (docs/text.md). A state would replace what is here, so it is not an edit.
_CHANGES: Final = {core.TEXT: bytes((TEXT_CHANGES,)), core.LIST: bytes((LIST_CHANGES,))}

#: Kind of an edit -> what it is of.
EDITED: Final = {core.TEXT_EDIT: core.TEXT, core.LIST_EDIT: core.LIST}

#: Where a text or a list is: `core.TEXT` or `core.LIST`, soul, key.
Name = tuple[int, str, str]
#: Name, text, edits that wait in it for others that they build on; authors that were asked before it was compacted,
#: and the version (encoded) that all of them had.
Saved = tuple[int, str, str, bytes, list[bytes], list[bytes], bytes]


#: What a recorder is told of edits of lists: names of its methods.
_Edit = Literal["record_insert", "record_delete", "record_assign", "record_move"]
_UNRECORDED: Final = nullcontext()


class SequenceOwner(Protocol):
    """What a text or a list asks and tells of edits made here."""

    def check_edit(self, name: Name, written: Sequence[Value] = (), touched: Iterable[bytes] = ()) -> None:
        """Raise what forbids writing these values, and touching what these agents made.

        Who made what is looked up only where it matters: `touched` need not be read.
        """

    def record_edit(self, name: Name) -> None:
        """Note that something was written here."""

    def set_listed(self, name: Name, *, has_something: bool) -> None:
        """Have a text or a list listed among what a soul has, or not."""

    def seen_anew(self, author: bytes) -> int:
        """Return the clock behind which what an author says that it has seen counts; 0: all of it."""

    def next_stamp(self) -> int:
        """Return the clock of a move or an assignment made now."""

    @property
    def recorder(self) -> EditRecorder | None:
        """Who is told of edits of lists, and of a text's own undo, before they are made."""


class _InGraph(Replicated):
    """What a text and a list of a replica have in common: who may edit, who hears of edits."""

    def bind_owner(self, name: Name, owner: SequenceOwner) -> None:
        """Have `owner` asked before each edit made here, and told after it."""
        self.name = name
        self._owner = owner
        self._listeners: set[SequenceChanges] = set()

    @property
    def soul(self) -> str:
        """The soul that it is at."""
        return self.name[1]

    @property
    def key(self) -> str:
        """The key that it is at."""
        return self.name[2]

    def comparable_contents(self) -> Sequence[Any]:
        """Return all of it, to be compared."""
        raise NotImplementedError

    def replace_by(self, other: _InGraph) -> None:
        """Hold what the other does; neither may be used by itself afterwards."""
        before, marked = (self.comparable_contents(), self._formats_of()) if self._listeners else ((), [])
        self._text, self._state = other._text, other._state
        self._out, self._out_chars = other._out, other._out_chars
        if self._listeners:
            gone = [Format(0, len(self), dict.fromkeys(one.attributes)) for one in marked]
            self._notify_readers(self._difference_from(before), [*gone, *self._formats_of()], is_local=False)

    def _difference_from(self, before: Sequence[Any]) -> Sequence[Any]:
        raise NotImplementedError

    def _formats_of(self, start: int = 0, stop: int | None = None) -> list[Format]:
        """Return what marks a range; of a list nothing does."""
        return []

    def _changed_formats(self) -> list[Format]:
        """Return what the last `apply` changed of the marks."""
        return []

    def changes(self) -> SequenceChanges:
        """Return the changes from now on, made here or elsewhere: `async for change in text.changes()`, for editors.

        Start with what it is at this call, and apply `change.patches`, (position, how much goes, what comes) each,
        also of changes that were made here (`change.is_local`): then it stays what it is here.
        """
        changes = SequenceChanges(self._listeners.discard)
        self._listeners.add(changes)
        return changes

    def end_changes(self) -> None:
        """End all that `changes` gave."""
        for changes in list(self._listeners):
            changes.close()

    def merge_edit(self, edit: bytes) -> None:
        """Merge an edit of another author, and tell of it. Raises as `merge`."""
        if not self._listeners:
            self.merge(edit)
            return
        try:
            patches = self.apply(edit)
        except (TextReference, TextStale, TextWaiting) as error:
            self._notify_readers(error.patches, self._changed_formats(), is_local=False)
            raise
        self._notify_readers(patches, self._changed_formats(), is_local=False)

    def _notify_readers(self, patches: Sequence[Any], formats: Sequence[Format], *, is_local: bool) -> None:
        if patches or formats:
            for changes in self._listeners:
                changes.notify_reader(SequenceChange(list(patches), is_local, tuple(formats)))

    def _on_edited(self, patches: Sequence[Any], formats: Sequence[Format] = ()) -> None:
        self._notify_readers(patches, formats, is_local=True)
        self._owner.record_edit(self.name)


class GraphText(_InGraph, Text):
    """A text at (soul, key) of a replica, with all that `dtp.crdt.text.Text` has.

    Don't call `take_changes`, `mark_taken`, `apply` or `merge` on it: the replica does, with its frames.
    """

    def comparable_contents(self) -> str:
        return str(self)

    def _difference_from(self, before: Sequence[Any]) -> list[Patch]:
        return [Patch(*patch) for patch in difference(before, str(self))]

    def insert(self, position: int, text: str) -> None:
        self._owner.check_edit(self.name)
        super().insert(position, text)
        self._on_edited(
            [Patch(position, 0, text)] if text else [], self._formats_of(position, position + len(text))
        )

    def delete(self, position: int, count: int = 1) -> None:
        self._owner.check_edit(self.name)
        super().delete(position, count)
        self._on_edited([Patch(position, count, "")] if count else [])

    def edit(self, edits: Sequence[tuple[int, int, str]]) -> None:
        self._owner.check_edit(self.name)
        before = str(self) if self._listeners else ""
        try:
            super().edit(edits)
        except DtpError:  # those before the one at fault were made
            self._on_edited(self._difference_from(before) if self._listeners else [], self._formats_of())
            raise
        start, stop = (edits[0][0], edits[0][0] + len(edits[0][2])) if len(edits) == 1 else (0, None)
        self._on_edited([Patch(*one) for one in edits if one[1] or one[2]], self._formats_of(start, stop))

    def mark(
        self, start: int, stop: int, name: str, value: Value = True, *, expand: Expand | None = None
    ) -> None:
        self._owner.check_edit(self.name)
        super().mark(start, stop, name, value, expand=expand)
        self._on_edited([], [Format(start, stop - start, {name: value})] if start < stop else [])

    def _next_stamp(self) -> int:
        return self._owner.next_stamp()

    def _formats_of(self, start: int = 0, stop: int | None = None) -> list[Format]:
        if not self._listeners:
            return []
        return formats_of(self.read_marks(start, len(self) if stop is None else stop), len(self))

    def _changed_formats(self) -> list[Format]:
        return self.formats()

    def undo(self) -> list[Patch] | None:
        self._check_undo()
        patches = super().undo()
        self._on_edited(patches or [], [] if patches is None else self.formats())
        return patches

    def _check_undo(self) -> None:
        if self._owner.recorder is not None:
            self._owner.recorder.check_undo()
        self._owner.check_edit(self.name)

    def redo(self) -> list[Patch] | None:
        self._check_undo()
        patches = super().redo()
        self._on_edited(patches or [], [] if patches is None else self.formats())
        return patches


class GraphList(_InGraph, List):
    """A list at (soul, key) of a replica, with all that `dtp.crdt.list.List` has.

    Don't call `take_changes`, `mark_taken`, `apply` or `merge` on it: the replica does, with its frames.
    """

    def bind_owner(self, name: Name, owner: SequenceOwner) -> None:
        super().bind_owner(name, owner)
        self._clock = owner.next_stamp

    def __repr__(self) -> str:
        return f"<list {self.soul!r}{f' {self.key!r}' if self.key else ''} of {len(self)}>"

    def comparable_contents(self) -> list[bytes]:
        """Return the elements as bytes, by which 1 and True are different."""
        return [values.encode(value) for value in self]

    def _difference_from(self, before: Sequence[Any]) -> list[ListPatch]:
        return [
            ListPatch(position, deleted, list(map(values.decode, inserted)))
            for position, deleted, inserted in difference(before, self.comparable_contents())
        ]

    def _insert_elements(self, position: int, items: list[Value]) -> None:
        self._owner.check_edit(self.name, items)
        with self._record_edit("record_insert", position, len(items)):
            super()._insert_elements(position, items)
        self._on_edited([ListPatch(position, 0, self._as_read(items))] if items else [])

    def _record_edit(self, what: _Edit, *place: int) -> AbstractContextManager[Any]:
        recorder = self._owner.recorder
        return _UNRECORDED if recorder is None else getattr(recorder, what)(self, *place)

    def _as_read(self, items: list[Value]) -> list[Value]:
        """Return values as they are read here, which the caller's own may no longer be; none if nobody listens."""
        return [values.decode(values.encode(value)) for value in items] if self._listeners else []

    def _assign_value(self, position: int, value: Value) -> None:
        self._owner.check_edit(self.name, [value], map(self.made_by, [position]))
        with self._record_edit("record_assign", position):
            super()._assign_value(position, value)
        self._on_edited([ListPatch(position, 1, self._as_read([value]))])

    def _check_permitted(self, places: range, new: list[Value]) -> None:
        super()._check_permitted(places, new)
        self._owner.check_edit(self.name, new, map(self.made_by, places))

    def _delete_elements(self, position: int, count: int) -> None:
        self._owner.check_edit(self.name, (), map(self.made_by, range(position, position + count)))
        with self._record_edit("record_delete", position, count):
            super()._delete_elements(position, count)
        self._on_edited([ListPatch(position, count, [])] if count else [])

    def _move_element(self, old: int, new: int) -> None:
        self._owner.check_edit(self.name, (), map(self.made_by, [old]))
        value = self[old] if self._listeners else None
        with self._record_edit("record_move", old, new):
            super()._move_element(old, new)
        self._on_edited([ListPatch(old, 1, []), ListPatch(new, 0, [value])] if old != new else [])


_CLASSES: Final[dict[int, type[GraphText] | type[GraphList]]] = {core.TEXT: GraphText, core.LIST: GraphList}


#: Random bytes behind the author's key in the name of an agent.
NONCE: Final = 8


def name_in_seen(space: int, soul: str, key: str) -> str:
    """Return where an author says which version of a text or a list it has: BLAKE2b-128 of its soul and key, and a
    list's "list", in base32."""
    name = [soul, key] if space == core.TEXT else [soul, key, "list"]
    digest = hashlib.blake2b(values.encode(name), digest_size=16).digest()
    return base64.b32encode(digest).decode().rstrip("=").lower()


def version_said(data: object) -> Version | None:
    """Return the version that an author says there; None where it says none."""
    try:
        return Version.decode(data) if isinstance(data, bytes) and data else None
    except TextFormat:
        return None


class AskedVersion(NamedTuple):
    """Who was asked before a text was compacted: what they make knows this version."""

    #: Keys of authors; behind that of one who had less at some time (`seen_anew`) since when its word counts.
    authors: frozenset[bytes]
    stable: Version


class Sequences:
    """All texts and lists of a replica that writes as `author`. One is merged when asked for.

    What is written here is by an agent of its own: the author's key and `nonce`, new each time a replica is begun. So
    two copies of a replica never give two characters one name, and what others know of an agent stays true.
    """

    def __init__(self, author: bytes, owner: SequenceOwner, nonce: bytes) -> None:
        self._author = author
        self._agent = author + nonce
        self._owner = owner
        self._open: dict[Name, GraphText | GraphList] = {}
        self._saved: dict[Name, bytes] = {}
        self._waiting: dict[Name, set[bytes]] = {}
        self._touched: dict[Name, None] = {}
        self._asked: dict[Name, AskedVersion] = {}
        #: Whether an edit came that is about text that was forgotten here: all frames must be taken again.
        self.stale = False

    @property
    def open_count(self) -> int:
        """How many texts and lists are in memory as more than their bytes."""
        return len(self._open)

    @property
    def memory_bytes(self) -> int:
        """Bytes held by texts, lists, and edits of them that wait: asked of each."""
        waiting = sum(len(edit) for edits in self._waiting.values() for edit in edits)
        return (
            sum(text.memory for text in self._open.values()) + sum(map(len, self._saved.values())) + waiting
        )

    def open_sequence(self, name: Name) -> GraphText | GraphList:
        """Return the text or list of this name, the same object each time. Raises `GraphValueError`."""
        found = self._open.get(name)
        if found is None:
            values.check_names(*name[1:])  # an edit of it could never be made an op, nor any behind it
            found = self._open[name] = self._merged_sequence(name)
            self._saved.pop(name, None)
        return found

    def read_sequence(self, name: Name) -> str | list[Value]:
        """Return what the text or list of this name holds; one that isn't open stays as it is, without memory."""
        found = self._open[name] if name in self._open else self._merged_sequence(name)
        return str(found) if isinstance(found, GraphText) else list(found)

    def _merged_sequence(self, name: Name) -> GraphText | GraphList:
        found = _CLASSES[name[0]](self._agent)
        found.bind_owner(name, self._owner)
        if name in self._saved:
            found.merge(self._saved[name])
            for edit in self._waiting.get(name, ()):
                found.merge(edit)
        return found

    def end_changes(self) -> None:
        """End what tells of changes of texts."""
        for text in self._open.values():
            text.end_changes()

    def mark_edited(self, name: Name) -> bool:
        """Note that something was written here; return whether it is the first since the last `pending_edits`."""
        is_first = name not in self._touched
        self._touched[name] = None
        return is_first

    @property
    def has_unsent(self) -> bool:
        """Whether something was written here since the last `pending_edits`."""
        return bool(self._touched)

    @property
    def edited_names(self) -> list[Name]:
        """What was written here since the last `pending_edits`."""
        return list(self._touched)

    def pending_edits(self, size: int) -> Iterator[tuple[Name, bytes]]:
        """Yield (name, edit) of all that was written here since the last time, in edits of at most `size` bytes.

        An edit counts as taken when the next one is asked for: if the caller stops before, it comes again.
        """
        for name in self.edited_names:
            text = self._open[name]
            while True:
                edit, stop = text.pending_changes(size)
                if not edit:
                    break
                yield name, edit
                text.mark_taken(stop)
            self._owner.set_listed(name, has_something=len(text) > 0)
            del self._touched[name]

    def apply_edit(self, name: Name, edit: bytes, author: bytes = b"") -> None:
        """Take an edit of another author. Bytes that are not an edit are left out, here as everywhere.

        One of an author that wasn't asked before the text was compacted makes the text `stale`.
        """
        text = self.open_sequence(name)
        was_empty = not len(text)
        try:
            self._apply_to_open(name, text, edit, author)
        finally:
            if was_empty or not len(text):
                self._owner.set_listed(name, has_something=len(text) > 0)

    def _apply_to_open(self, name: Name, text: GraphText | GraphList, edit: bytes, author: bytes) -> None:
        _, soul, key = name
        if name in self._asked and self._as_asked(author) not in self._asked[name].authors:
            log.info("the text at %r %r must be built again: an edit's author was not asked", soul, key)
            self.stale = True
            return
        if edit[:1] != _CHANGES[name[0]]:
            log.warning(
                "an edit of the text at %r %r was left out: it is not a change but a whole text", soul, key
            )
            return
        try:
            text.merge_edit(edit)
        except TextStale as error:  # by someone who wasn't asked before the text was compacted
            log.info("the text at %r %r must be built again: %s", soul, key, error)
            self.stale = True
            return
        except (PeerError, TextDiverged) as error:  # TextDiverged: a whole text hidden behind a change
            log.warning("an edit of the text at %r %r was left out: %s", soul, key, error)
            return
        except (TextWaiting, TextMemory) as error:
            log.warning("an edit of the text at %r %r waits for the next start: %s", soul, key, error)
            self._waiting.setdefault(name, set()).add(edit)
            return
        if text.waiting:
            self._waiting.setdefault(name, set()).add(edit)
        else:
            self._waiting.pop(name, None)

    def _as_asked(self, author: bytes) -> bytes:
        """Return what stands for an author among those who were asked."""
        since = self._owner.seen_anew(author)
        return author + since.to_bytes(8, "big") if since else author

    def compact_sequence(self, name: Name, reports: Mapping[bytes, Version]) -> int:
        """Forget what these authors, which are all others that may still write, have seen; how many characters.

        `reports` are versions that they told in their frames, all before which was taken here. Nothing is forgotten
        while one names what is not here yet.
        """
        text, asked = (
            self.open_sequence(name),
            {self._as_asked(author): version for author, version in reports.items()},
        )
        stable = functools.reduce(Version.__and__, reports.values(), text.version)
        before = self._asked.get(name)
        if before is not None:  # nobody may be asked now who doesn't know what was compacted then
            new = [version for one, version in asked.items() if one not in before.authors]
            if not all(before.stable <= version for version in new):
                return 0
            stable |= before.stable
        try:
            forgotten = text.compact(reports.values())
        except TextUnseen:
            return 0
        # also when nothing was forgotten: what the text knows of stable operations may be too little for strangers'
        self._asked[name] = AskedVersion(frozenset((*asked, self._as_asked(self._author))), stable)
        return forgotten

    def replace_by(self, fresh: Sequences) -> None:
        """Hold what `fresh` does, which is of the same author. Open texts stay open."""
        for name, text in self._open.items():
            text.replace_by(fresh.open_sequence(name))
        self._agent, self._waiting, self._asked = fresh._agent, fresh._waiting, fresh._asked
        self._saved = {
            name: fresh._sequence_bytes(name) for name in fresh.list_names() if name not in self._open
        }
        self._touched.clear()
        self.stale = False

    def save_sequences(self) -> list[Saved]:
        """Return all texts in which something was written, in the order of their names."""
        found = [
            (
                *name,
                self._sequence_bytes(name),
                self._still_waiting(name),
                *self._saved_asked(name),
            )
            for name in self.list_names()
        ]
        return [saved for saved in found if saved[3] or saved[4]]

    def _still_waiting(self, name: Name) -> list[bytes]:
        """Return the edits of which something waits: the same ones wherever the same came, in whatever order."""
        text, kept = self._open.get(name), sorted(self._waiting.get(name, ()))
        return kept if text is None else [edit for edit in kept if not text.has_changes(edit)]

    def _saved_asked(self, name: Name) -> tuple[list[bytes], bytes]:
        asked = self._asked.get(name)
        return ([], b"") if asked is None else (sorted(asked.authors), asked.stable.encode())

    def list_names(self) -> list[Name]:
        """Return what all texts and lists are called, sorted."""
        return sorted(self._open.keys() | self._saved.keys())

    def _sequence_bytes(self, name: Name) -> bytes:
        text = self._open.get(name)
        return self._saved[name] if text is None else text.save()

    def load_sequences(self, saved: list[Saved]) -> None:
        """Take over what `save` gave."""
        for space, soul, key, text, waiting, asked, stable in saved:
            name = space, soul, key
            self._saved[name] = text
            if waiting:
                self._waiting[name] = set(waiting)
            if asked:
                self._asked[name] = AskedVersion(frozenset(asked), Version.decode(stable))
