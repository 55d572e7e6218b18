"""What texts and lists in C's memory share: errors, places, replicating, figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from dtp.core._dtp_core import ffi, lib
from dtp.errors import DtpError, LimitError, LocalError, PeerError
from dtp.unicode import TextNotUnicode

#: Bytes of an author's name, at most.
MAX_AGENT = int(lib.DTP_TEXT_AGENT)
_DELETED_PLACE = 1 << 62


class TextRange(LocalError, IndexError):
    """A position is behind the end of the text, or negative, or a count goes beyond the end."""

    code = "text-range"


class TextBusy(LocalError):
    """Two threads used one text at once; nothing happened. Take turns."""

    code = "text-busy"


class TextMemory(LimitError):
    """No memory, or the text's limit on memory is reached."""

    code = "text-memory"


class TextFull(LimitError):
    """A text has 2**31 - 2 characters, and an author as many operations, at most."""

    code = "text-full"


class TextWaiting(LimitError):
    """Too many operations wait for others that are missing: get those first, then give this message again.

    What had not to wait was merged; after `apply`, `patches` says what that changed.
    """

    code = "text-waiting"
    patches: Sequence[Any] = ()


class TextUnseen(LocalError):
    """A version names operations that are not here."""

    code = "text-unseen"


class TextDiverged(LocalError):
    """A state comes without the history that would be needed to merge it with operations that only this text has."""

    code = "text-diverged"


class TextFormat(PeerError):
    """A message, a version or a saved text is malformed; `offset` is the place. Nothing of it was merged."""

    code = "text-format"
    offset = 0


class TextReference(PeerError):
    """An operation refers to something that is not a character. What stood before `offset` was merged.

    After `apply`, `patches` says what that changed.
    """

    code = "text-reference"
    offset = 0
    patches: Sequence[Any] = ()


class TextStale(PeerError):
    """An operation refers to a character that was compacted away, so its author was not among those that were
    asked. It has to load the text again. What stood before `offset` was merged; after `apply`, `patches` says what
    that changed."""

    code = "text-stale"
    offset = 0
    patches: Sequence[Any] = ()


class AnchorGone(LocalError):
    """The character that an anchor is tied to was compacted away, or has not arrived yet."""

    code = "anchor-gone"


_ERRORS: dict[int, tuple[type[DtpError], str]] = {
    lib.DTP_TEXT_BUSY: (TextBusy, "another thread is using this text"),
    lib.DTP_TEXT_MEMORY: (TextMemory, "no memory for this, or the text's limit on memory is reached"),
    lib.DTP_TEXT_RANGE: (TextRange, "beyond the end of the text"),
    lib.DTP_TEXT_UTF8: (TextNotUnicode, "not Unicode"),
    lib.DTP_TEXT_FORMAT: (TextFormat, "malformed"),
    lib.DTP_TEXT_REFERENCE: (TextReference, "an operation refers to something that is not a character"),
    lib.DTP_TEXT_STALE: (TextStale, "an operation refers to a character that was compacted away"),
    lib.DTP_TEXT_PENDING: (TextWaiting, "too many operations wait for others that are missing"),
    lib.DTP_TEXT_FULL: (TextFull, "the text, or an author, has come to its end"),
    lib.DTP_TEXT_UNSEEN: (TextUnseen, "the version names operations that are not here; merge them first"),
    lib.DTP_TEXT_DIVERGED: (
        TextDiverged,
        "the state does not cover what was written here since; take these changes out and insert them again",
    ),
    lib.DTP_TEXT_GONE: (AnchorGone, "the character is not here; it may have been compacted away"),
}
_PLACED = (TextFormat, TextReference, TextStale)

_merge = lib.dtp_text_merge
_take = lib.dtp_text_take
_unpack = ffi.unpack


class SequenceHandle:
    """A sequence of which this replica writes as `agent` (1 to 64 bytes, never used by two replicas at once).

    `new` makes it. One thread at a time: a second one gets `TextBusy`. `memory_limit` caps the bytes that C may take
    for this sequence, `waiting_limit` those for operations that wait for others. Raises `LocalError`.
    """

    __slots__ = ("__weakref__", "_out", "_out_chars", "_state", "_text")

    def __init__(self, agent: bytes, new: Callable[..., Any], memory_limit: int, waiting_limit: int) -> None:
        if not 1 <= len(agent) <= MAX_AGENT:
            raise LocalError(f"an author's name has 1 to {MAX_AGENT} bytes, not {len(agent)}")
        text = new(bytes(agent), len(agent), os.urandom(16))
        if text == ffi.NULL:
            raise TextMemory("no memory for a text")
        self._text: Any = ffi.gc(text, lib.dtp_text_free)
        self._state: Any = lib.dtp_text_look(text)
        self._out: Any = ffi.new("uint8_t *[1]")
        self._out_chars: Any = ffi.cast(
            "char **", self._out
        )  # the same pointer: of chars cffi makes bytes sooner
        self._state.cap = memory_limit
        self._state.waiting_cap = waiting_limit

    def _make_error(self, code: int) -> DtpError:
        kind, message = _ERRORS[code]
        if not issubclass(kind, _PLACED):
            return kind(message)
        error = kind(f"{message}, at byte {self._state.at}")
        error.offset = self._state.at
        return error

    def _take_out(self, length: int) -> bytes:
        if length < 0:
            raise self._make_error(length)
        if length == 0:
            return b""
        data: bytes = _unpack(self._out_chars[0], length)
        if length > 65536:
            lib.dtp_text_discard(self._text)
        return data

    def __len__(self) -> int:
        return int(self._state.length)

    # ---- places

    def _identify_element(self, position: int) -> tuple[bytes, int]:
        """Return author and number of the character at a position."""
        found = ffi.new("dtp_text_id *")
        try:
            code = lib.dtp_text_identify(self._text, position, found)
        except OverflowError as error:
            raise TextRange(f"a position {position} is negative, or beyond 64 bits") from error
        if code < 0:
            raise self._make_error(code)
        return self._agent_name(found.agent), int(found.seq)

    def _agent_name(self, agent: int) -> bytes:
        room = ffi.new(f"uint8_t[{MAX_AGENT}]")
        size = lib.dtp_text_agent_name(self._text, agent, room)
        if size < 0:
            raise self._make_error(size)
        return bytes(ffi.buffer(room, size))

    def _locate_element(self, agent: bytes, number: int) -> tuple[int, bool]:
        """Return how many visible characters are before one, and whether it is visible. Raises `AnchorGone`."""
        return self._found_at(agent, number, lib.dtp_text_position)

    def _found_at(self, agent: bytes, number: int, find: Callable[..., int]) -> tuple[int, bool]:
        index = lib.dtp_text_agent_find(self._text, agent, len(agent))
        if index < 0:
            raise self._make_error(index)
        found = find(self._text, {"agent": index, "seq": number})
        if found < 0:
            raise self._make_error(found)
        return int(found % _DELETED_PLACE), found < _DELETED_PLACE

    # ---- replicating

    def merge(self, data: bytes | bytearray | memoryview) -> None:
        """Merge messages of other replicas, one or several behind each other, in any order and however often.

        Operations whose causes are missing wait for them. Raises `TextFormat` (nothing was merged), `TextReference`,
        `TextStale`, `TextWaiting`, `TextDiverged`, `TextMemory`. `apply` also tells what changed; this is faster.
        """
        try:
            code = _merge(self._text, data, len(data), 0)
        except TypeError:  # any other buffer than bytes
            data = bytes(data)
            code = _merge(self._text, data, len(data), 0)
        if code:
            raise self._make_error(code)

    def apply(self, data: bytes | bytearray | memoryview) -> Sequence[Any]:
        """Merge as `merge` does, and return what changed in the visible text. After a `TextMemory` read the text
        again."""
        try:
            code = _merge(self._text, data, len(data), 1)
        except TypeError:
            data = bytes(data)
            code = _merge(self._text, data, len(data), 1)
        if code:
            fault = self._make_error(code)
            if isinstance(fault, TextReference | TextStale | TextWaiting):
                fault.patches = self._read_patches()
            raise fault
        return self._read_patches()

    def has_changes(self, changes: bytes) -> bool:
        """Return whether all operations of a message of changes are merged. Raises `TextFormat`, `TextMemory`."""
        code = lib.dtp_text_has(self._text, changes, len(changes))
        if code < 0:
            raise self._make_error(code)
        return bool(code)

    def _read_patches(self) -> Sequence[Any]:
        """Return what the last merge changed."""
        raise NotImplementedError

    def encoded_version(self) -> bytes:
        """Return what was merged and made here, as bytes for `changes_since` elsewhere."""
        return self._take_out(lib.dtp_text_version(self._text, self._out))

    def _encode_changes(self, version: bytes) -> bytes:
        return self._take_out(lib.dtp_text_changes(self._text, version, len(version), self._out))

    def changes_of(self, agent: bytes, first: int, end: int) -> bytes:
        """Return an author's operations from number `first` up to before `end`, as a message; empty if they aren't
        here, or were compacted. Text that is deleted by now is told without its characters."""
        return self._take_out(lib.dtp_text_changes_of(self._text, agent, len(agent), first, end, self._out))

    def take_changes(self) -> bytes:
        """Return what was written here since the last call, as a message; empty if nothing was."""
        state = self._state
        stop = state.next
        changes = self._take_out(_take(self._text, stop, self._out))
        state.taken = stop
        return changes

    def pending_changes(self, size: int | None = None) -> tuple[bytes, int]:
        """Return what was written here and not yet marked as taken, as a message, and the number to mark it with.

        The message has at most about `size` bytes: then it holds the first part, at least one operation, and the
        rest comes after `mark_taken`. It is empty if nothing was written.
        """
        state = self._state
        stop = state.next
        while True:
            changes = self._take_out(lib.dtp_text_take(self._text, stop, self._out))
            first = state.taken
            if size is None or len(changes) <= size or stop - first == 1:
                return changes, int(stop)
            stop = first + max(1, (stop - first) * size // len(changes) * 9 // 10)

    def mark_taken(self, stop: int) -> None:
        """Have later calls begin at operation `stop`, which `pending_changes` returned."""
        self._state.taken = stop

    def _compact_history(self, stable: bytes) -> int:
        forgotten = lib.dtp_text_compact(self._text, stable, len(stable))
        if forgotten < 0:
            raise self._make_error(forgotten)
        return int(forgotten)

    # ---- figures

    @property
    def memory(self) -> int:
        """Bytes that C has allocated for this text, all told."""
        return int(self._state.memory)

    @property
    def memory_limit(self) -> int:
        """Bytes that C may allocate for this text, 0 for no limit. May be set; what is there already stays."""
        return int(self._state.cap)

    @memory_limit.setter
    def memory_limit(self, limit: int) -> None:
        self._state.cap = limit

    @property
    def deleted(self) -> int:
        """Deleted characters whose places are still held (their text is not); see `compact`."""
        return int(self._state.deleted)

    @property
    def waiting(self) -> int:
        """Operations that wait for others which are missing."""
        return int(self._state.waiting)

    @property
    def merged(self) -> int:
        """Operations that the last `merge` or `apply` brought as news; one per character inserted or deleted."""
        return int(self._state.merged)

    @property
    def searched(self) -> int:
        """How much the last `merge` or `apply` looked at to find places among siblings."""
        return int(self._state.searched)

    def check_structure(self) -> None:
        """Raise `AssertionError` where the structures in the core don't keep their promises to each other."""
        code = lib.dtp_text_check(self._text)
        if code:
            raise AssertionError(f"text/check.c, line {code}")
