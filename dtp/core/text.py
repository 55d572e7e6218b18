"""A replicated text in C's memory: typed calls and errors. `dtp.crdt.text.Text` is what programs use."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from dtp.core._dtp_core import ffi, lib
from dtp.core.sequence import SequenceHandle, TextRange
from dtp.core.sequence import (
    TextBusy as TextBusy,
)
from dtp.core.sequence import (
    TextDiverged as TextDiverged,
)
from dtp.core.sequence import (
    TextFormat as TextFormat,
)
from dtp.core.sequence import (
    TextFull as TextFull,
)
from dtp.core.sequence import (
    TextMemory as TextMemory,
)
from dtp.core.sequence import (
    TextUnseen as TextUnseen,
)
from dtp.errors import DtpError
from dtp.unicode import not_unicode

#: First bytes of the two kinds of message.
CHANGES, STATE = int(lib.DTP_TEXT_CHANGES), int(lib.DTP_TEXT_STATE)

#: Bytes of a mark's name, and of its value, at most.
MARK_NAME, MARK_VALUE = int(lib.DTP_TEXT_MARK_NAME), int(lib.DTP_TEXT_MARK_VALUE)
#: Bits of what a mark does at its edges.
EXPAND_BEFORE, EXPAND_AFTER = int(lib.DTP_TEXT_EXPAND_BEFORE), int(lib.DTP_TEXT_EXPAND_AFTER)

_PATCH = struct.Struct("=4I")
_HEAD, _PIECE, _SIZES, _SIZE = (struct.Struct(form) for form in ("=4I", "=3I", "=2I", "=I"))
_unpack_patch = _PATCH.unpack


class Patch(NamedTuple):
    """One change of a text: at `position`, `deleted` characters go and `inserted` comes.

    Patches hold one after the other: each is about the text as the patches before it left it.
    """

    position: int
    deleted: int
    inserted: str


class Marked(NamedTuple):
    """What marks a text: (start, end, index of the mark) of each piece, by start, and the marks."""

    pieces: list[tuple[int, int, int]]
    #: Name, and value in MessagePack.
    marks: list[tuple[str, bytes]]
    #: Names that mark nothing but what is told here; None: others stay as they are.
    names: list[str] | None


_buffer = ffi.buffer
_insert, _delete = lib.dtp_text_insert, lib.dtp_text_delete


class TextHandle(SequenceHandle):
    """A text of which this replica writes as `agent` (1 to 64 bytes, never used by two replicas at once).

    Positions and counts are in code points, as in `str`. `undo_depth` is how many steps can be undone at least (0:
    none are kept); the rest as of `SequenceHandle`.
    """

    __slots__ = ()

    def __init__(
        self,
        agent: bytes,
        *,
        undo_depth: int = 1000,
        memory_limit: int = 0,
        waiting_limit: int = 16 * 1024 * 1024,
    ) -> None:
        super().__init__(agent, lib.dtp_text_new, memory_limit, waiting_limit)
        self._state.depth = undo_depth

    # ---- editing

    def insert(self, position: int, text: str) -> None:
        """Insert before the character at `position`.

        Raises `TextRange`, `TextNotUnicode`, `TextMemory`, `TextFull`.
        """
        try:
            data = text.encode()
            code = _insert(self._text, position, data, len(data))
        except (OverflowError, UnicodeEncodeError) as error:
            raise _not_an_edit(error, position) from None
        if code:
            raise self._make_error(code)

    def delete(self, position: int, count: int = 1) -> None:
        """Delete `count` characters from `position` on. Raises `TextRange`, `TextMemory`, `TextFull`."""
        try:
            code = _delete(self._text, position, count)
        except OverflowError as error:
            raise _not_an_edit(error, position) from None
        if code:
            raise self._make_error(code)

    def edit(self, edits: Sequence[tuple[int, int, str]]) -> None:
        """Many edits in one call: (position, characters to delete there, text to insert there), one after the other.

        Raises as `insert` and `delete`; the message says how many edits took place before that.
        """
        try:
            pieces = [text.encode() for _, _, text in edits]
            numbers = ffi.new(
                "uint64_t[]",
                [
                    n
                    for (position, count, _), piece in zip(edits, pieces, strict=True)
                    for n in (position, count, len(piece))
                ],
            )
        except (OverflowError, UnicodeEncodeError) as error:
            raise _not_an_edit(error, "of an edit") from None
        data = b"".join(pieces)
        done = ffi.new("size_t *")
        code = lib.dtp_text_edit(self._text, numbers, len(pieces), data, len(data), done)
        if code:
            fault = self._make_error(code)
            raise type(fault)(f"{fault}; {done[0]} of {len(pieces)} edits took place")

    def _step_undo(self, *, is_open: bool) -> None:
        code = lib.dtp_text_step(self._text, is_open)
        if code:
            raise self._make_error(code)

    def undo(self) -> list[Patch] | None:
        """Undo the last step of this replica's own editing: what changed, or None when there is nothing to undo.

        What others wrote stays. Text that is put back is new text: it stands where the old one was.
        """
        return self._read_undone(lib.dtp_text_undo(self._text))

    def redo(self) -> list[Patch] | None:
        """Undo the last `undo`, unless there were edits since: what changed, or None."""
        return self._read_undone(lib.dtp_text_redo(self._text))

    def _read_undone(self, code: int) -> list[Patch] | None:
        if code < 0:
            raise self._make_error(code)
        return self._read_patches() if code else None

    # ---- marks

    def mark_encoded(self, start: int, stop: int, name: bytes, value: bytes, expand: int, now: int) -> None:
        """Mark the characters from `start` to before `stop` with a value in MessagePack; nil takes the mark away.

        `expand` is a sum of `EXPAND_BEFORE` and `EXPAND_AFTER`. The stamp is `now`, or above all that are here.
        Raises `TextRange`, `TextFormat`, `TextMemory`, `TextFull`.
        """
        if not 0 <= start <= stop <= self._state.length:
            raise TextRange(f"{start}:{stop} is not within a text of {len(self)} characters")
        code = lib.dtp_text_mark(self._text, start, stop, name, len(name), value, len(value), expand, now)
        if code:
            raise self._make_error(code)

    def read_marks(self, start: int, stop: int) -> Marked:
        """Return what marks the characters from `start` to before `stop`. Raises `TextRange`, `TextMemory`."""
        if not 0 <= start <= stop <= self._state.length:
            raise TextRange(f"{start}:{stop} is not within a text of {len(self)} characters")
        return _unpack_marked(self._take_out(lib.dtp_text_marked(self._text, start, stop, self._out)))

    def changed_marks(self) -> Marked:
        """Return what the last `apply`, `undo` or `redo` changed of the marks, in the text as it is now."""
        return _unpack_marked(self._take_out(lib.dtp_text_formats(self._text, self._out)))

    # ---- reading

    def read(self, start: int, end: int) -> str:
        """Return the characters from `start` to before `end`. Raises `TextRange`."""
        if not 0 <= start <= end <= self._state.length:
            raise TextRange(f"{start}:{end} is not within a text of {len(self)} characters")
        size = self._state.bytes
        if end - start < self._state.length:
            size = lib.dtp_text_measure(self._text, start, end)
            if size < 0:
                raise self._make_error(size)
        if not size:
            return ""
        out = bytearray(size)
        size = lib.dtp_text_read(self._text, start, end, ffi.from_buffer(out), size)
        if size < 0:
            raise self._make_error(size)
        return out[:size].decode()

    def __str__(self) -> str:
        return self.read(0, self._state.length)

    def _convert_position(self, position: int, unit: int, to: int) -> int:
        if position < 0:
            raise TextRange(f"{position} is not a position")
        found = lib.dtp_text_convert(self._text, position, unit, to)
        if found < 0:
            raise self._make_error(found)
        return int(found)

    def utf8_offset(self, position: int) -> int:
        """Return the position (in code points) as an offset into the text's UTF-8. Raises `TextRange`."""
        return self._convert_position(position, lib.DTP_TEXT_POINTS, lib.DTP_TEXT_UTF8_BYTES)

    def utf16_offset(self, position: int) -> int:
        """Return the position as an offset in UTF-16 code units, as JavaScript and LSP count. Raises `TextRange`."""
        return self._convert_position(position, lib.DTP_TEXT_POINTS, lib.DTP_TEXT_UTF16_UNITS)

    def from_utf8(self, offset: int) -> int:
        """Return the position of an offset into UTF-8; one inside a character gives that character. Raises
        `TextRange`."""
        return self._convert_position(offset, lib.DTP_TEXT_UTF8_BYTES, lib.DTP_TEXT_POINTS)

    def from_utf16(self, offset: int) -> int:
        """Return the position of an offset in UTF-16 code units; between surrogates: their character. Raises
        `TextRange`."""
        return self._convert_position(offset, lib.DTP_TEXT_UTF16_UNITS, lib.DTP_TEXT_POINTS)

    def _read_patches(self) -> list[Patch]:
        state = self._state
        count = state.patch_count
        if not count:
            return []
        at = state.patch_text
        if count == 1:  # the usual case: somebody typed
            position, deleted, _, size = _unpack_patch(_buffer(state.patches, _PATCH.size))
            return [Patch(position, deleted, str(_buffer(at, size), "utf-8") if size else "")]
        patches = []
        for position, deleted, inserted, size in _PATCH.iter_unpack(
            _buffer(state.patches, count * _PATCH.size)
        ):
            text = ""
            if inserted:
                text = str(_buffer(at, size), "utf-8")
                at += size
            patches.append(Patch(position, deleted, text))
        return patches

    @property
    def undo_steps(self) -> int:
        """Steps that `undo` can undo."""
        return int(self._state.undos)

    @property
    def redo_steps(self) -> int:
        """Steps that `redo` can redo."""
        return int(self._state.redos)


def _unpack_marked(data: bytes) -> Marked:
    whole, pieces, marks, names = _HEAD.unpack_from(data)
    at = _HEAD.size + pieces * _PIECE.size
    rows = list(_PIECE.iter_unpack(data[_HEAD.size : at]))
    found = []
    for _ in range(marks):
        name, value = _SIZES.unpack_from(data, at)
        at += _SIZES.size
        found.append((data[at : at + name].decode(), data[at + name : at + name + value]))
        at += name + value
    known = []
    for _ in range(names):
        (name,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        known.append(data[at : at + name].decode())
        at += name
    return Marked(rows, found, known if whole else None)


def _not_an_edit(error: Exception, place: object) -> DtpError:
    if isinstance(error, UnicodeEncodeError):
        return not_unicode(error)
    return TextRange(f"a position or count {place} is negative, or beyond 64 bits")
