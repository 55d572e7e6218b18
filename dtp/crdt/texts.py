"""The texts of a replica: edits travel as ops of its frames, the merging is `dtp.crdt.text`'s."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from dtp.core.text import TextDiverged, TextMemory, TextReference, TextStale, TextUnseen, TextWaiting
from dtp.crdt.text import Patch, Text, Version
from dtp.crdt.text_changes import TextChange, TextChanges, difference
from dtp.errors import DtpError, PeerError

log = logging.getLogger("dtp.crdt")

#: What a message of changes begins with (docs/text.md). A state would replace what is here, so it is no edit.
_CHANGES = b"\xd1"

#: Soul, key, text, edits that wait in it for others that they build on; authors that were asked before it was
#: compacted, and the version (encoded) that all of them had.
Saved = tuple[str, str, bytes, list[bytes], list[bytes], bytes]
Name = tuple[str, str]


class GraphText(Text):
    """A text at (soul, key) of a replica, with all that `dtp.crdt.text.Text` has.

    Don't call `take_changes`, `mark_taken`, `apply` or `merge` on it: the replica does, with its frames.
    """

    __slots__ = ("_allowed", "_listeners", "_touched", "soul_and_key")

    def bind(self, name: Name, allowed: Callable[[str, str], None], touched: Callable[[Name], None]) -> None:
        """Have `allowed` called with the names before each edit made here, and `touched` after it."""
        self.soul_and_key = name
        self._allowed = allowed
        self._touched = touched
        self._listeners: set[TextChanges] = set()

    def become(self, other: GraphText) -> None:
        """Hold what the other does; neither may be used by itself afterwards."""
        before = str(self) if self._listeners else ""
        self._text, self._state, self._out = other._text, other._state, other._out
        if self._listeners:
            self._tell(difference(before, str(self)), is_local=False)

    def changes(self) -> TextChanges:
        """The changes from now on, made here or elsewhere: `async for change in text.changes()`, for editors.

        Start with `str(text)` as it is at this call, and apply `change.patches`, (position, characters that go, text
        that comes) each, also of changes that were made here (`change.is_local`): then it stays what the text is.
        """
        changes = TextChanges(self._listeners.discard)
        self._listeners.add(changes)
        return changes

    def end_changes(self) -> None:
        """End all that `changes` gave."""
        for changes in list(self._listeners):
            changes.close()

    def take(self, edit: bytes) -> None:
        """Merge an edit of another author, and tell of it. Raises as `merge`."""
        if not self._listeners:
            Text.merge(self, edit)
            return
        try:
            patches: Sequence[Patch] = Text.apply(self, edit)
        except (TextReference, TextStale, TextWaiting) as error:
            self._tell(error.patches, is_local=False)
            raise
        self._tell(patches, is_local=False)

    def _tell(self, patches: Sequence[Patch], *, is_local: bool) -> None:
        if patches:
            for changes in self._listeners:
                changes.tell(TextChange(list(patches), is_local))

    def _edited(self, patches: Sequence[Patch]) -> None:
        self._tell(patches, is_local=True)
        self._touched(self.soul_and_key)

    def insert(self, position: int, text: str) -> None:
        self._allowed(*self.soul_and_key)
        super().insert(position, text)
        self._edited([Patch(position, 0, text)] if text else [])

    def delete(self, position: int, count: int = 1) -> None:
        self._allowed(*self.soul_and_key)
        super().delete(position, count)
        self._edited([Patch(position, count, "")] if count else [])

    def edit(self, edits: Sequence[tuple[int, int, str]]) -> None:
        self._allowed(*self.soul_and_key)
        before = str(self) if self._listeners else ""
        try:
            super().edit(edits)
        except DtpError:  # those before the one at fault were made
            self._edited(difference(before, str(self)) if self._listeners else [])
            raise
        self._edited([Patch(*one) for one in edits if one[1] or one[2]])

    def undo(self) -> list[Patch] | None:
        self._allowed(*self.soul_and_key)
        patches = super().undo()
        self._edited(patches or [])
        return patches

    def redo(self) -> list[Patch] | None:
        self._allowed(*self.soul_and_key)
        patches = super().redo()
        self._edited(patches or [])
        return patches


#: Random bytes behind the author's key in the name of an agent.
NONCE: Final = 8


class Asked(NamedTuple):
    """Who was asked before a text was compacted: what they make knows this version."""

    authors: frozenset[bytes]
    stable: Version


class Texts:
    """All texts of a replica that writes as `author`, where `check` lets it. A text is merged when asked for.

    What is written here is by an agent of its own: the author's key and `nonce`, new each time a replica is begun. So
    two copies of a replica never give two characters one name, and what others know of an agent stays true.
    """

    def __init__(self, author: bytes, check: Callable[[str, str], None], nonce: bytes) -> None:
        self._author = author
        self._agent = author + nonce
        self._check = check
        self._open: dict[Name, GraphText] = {}
        self._saved: dict[Name, bytes] = {}
        self._waiting: dict[Name, set[bytes]] = {}
        self._touched: dict[Name, None] = {}
        self._asked: dict[Name, Asked] = {}
        #: Whether an edit came that is about text that was forgotten here: all frames must be taken again.
        self.stale = False
        #: Called after each edit made here.
        self.on_edit: Callable[[], None] | None = None

    def open(self, soul: str, key: str) -> GraphText:
        """The text at (soul, key), the same object each time."""
        name = soul, key
        text = self._open.get(name)
        if text is None:
            text = GraphText(self._agent)
            text.bind(name, self._check, self._touch)
            saved = self._saved.pop(name, None)
            if saved is not None:
                Text.merge(text, saved)
                for edit in self._waiting.get(name, ()):
                    Text.merge(text, edit)
            self._open[name] = text
        return text

    def end_changes(self) -> None:
        """End what tells of changes of texts."""
        for text in self._open.values():
            text.end_changes()

    def _touch(self, name: Name) -> None:
        self._touched[name] = None
        if self.on_edit is not None:
            self.on_edit()

    @property
    def unsent(self) -> bool:
        """Whether something was written here since the last `pending_edits`."""
        return bool(self._touched)

    @property
    def touched(self) -> list[tuple[str, str]]:
        """(soul, key) of what was written here since the last `pending_edits`."""
        return list(self._touched)

    def pending_edits(self, size: int) -> Iterator[tuple[str, str, bytes]]:
        """Yield (soul, key, edit) of all that was written here since the last time, in edits of at most `size` bytes.

        An edit counts as taken when the next one is asked for: if the caller stops before, it comes again.
        """
        for name in self.touched:
            text = self._open[name]
            while True:
                edit, stop = text.pending_changes(size)
                if not edit:
                    break
                yield *name, edit
                text.mark_taken(stop)
            del self._touched[name]

    def apply(self, soul: str, key: str, edit: bytes, author: bytes = b"") -> None:
        """Take an edit of another author. One that is none is left out, here as everywhere.

        One of an author that wasn't asked before the text was compacted makes the text `stale`.
        """
        text, name = self.open(soul, key), (soul, key)
        if name in self._asked and author not in self._asked[name].authors:
            log.info("the text at %r %r must be built again: its author was not asked", soul, key)
            self.stale = True
            return
        if edit[:1] != _CHANGES:
            log.warning(
                "an edit of the text at %r %r was left out: it is no change but a whole text", soul, key
            )
            return
        try:
            text.take(edit)
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

    def compact(self, name: Name, reports: Mapping[bytes, Version]) -> int:
        """Forget what these authors, which are all others that may still write, have seen; how many characters.

        `reports` are versions that they told in their frames, all before which was taken here. Nothing is forgotten
        while one names what is not here yet.
        """
        text = self.open(*name)
        stable = functools.reduce(Version.__and__, reports.values(), text.version)
        before = self._asked.get(name)
        if before is not None:  # nobody may be asked now who doesn't know what was compacted then
            new = [version for author, version in reports.items() if author not in before.authors]
            if not all(before.stable <= version for version in new):
                return 0
            stable |= before.stable
        try:
            forgotten = text.compact(reports.values())
        except TextUnseen:
            return 0
        # also when nothing was forgotten: what the text knows of stable operations may be too little for strangers'
        self._asked[name] = Asked(frozenset((*reports, self._author)), stable)
        return forgotten

    def become(self, fresh: Texts) -> None:
        """Hold what `fresh` does, which is of the same author. Open texts stay open."""
        for name, text in self._open.items():
            text.become(fresh.open(*name))
        self._agent, self._waiting, self._asked = fresh._agent, fresh._waiting, fresh._asked
        self._saved = {name: fresh._bytes(name) for name in fresh.names() if name not in self._open}
        self._touched.clear()
        self.stale = False

    def save(self) -> list[Saved]:
        """All texts in which something was written, in the order of their names."""
        found = [
            (
                *name,
                self._bytes(name),
                sorted(self._waiting.get(name, ())),
                *self._saved_asked(name),
            )
            for name in self.names()
        ]
        return [saved for saved in found if saved[2] or saved[3]]

    def _saved_asked(self, name: Name) -> tuple[list[bytes], bytes]:
        asked = self._asked.get(name)
        return ([], b"") if asked is None else (sorted(asked.authors), asked.stable.encode())

    def names(self) -> list[Name]:
        """(soul, key) of all texts, sorted."""
        return sorted(self._open.keys() | self._saved.keys())

    def _bytes(self, name: Name) -> bytes:
        text = self._open.get(name)
        return self._saved[name] if text is None else text.save()

    def load(self, saved: list[Saved]) -> None:
        """What `save` gave."""
        for soul, key, text, waiting, asked, stable in saved:
            self._saved[soul, key] = text
            if waiting:
                self._waiting[soul, key] = set(waiting)
            if asked:
                self._asked[soul, key] = Asked(frozenset(asked), Version.decode(stable))
