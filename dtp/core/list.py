"""A replicated list in C's memory: typed calls, values as MessagePack. `dtp.crdt.list.List` is what programs use."""

from __future__ import annotations

import struct
from typing import NamedTuple

from dtp.core._dtp_core import ffi, lib
from dtp.core.sequence import SequenceHandle, TextFormat, TextRange

#: First bytes of the two kinds of message.
CHANGES, STATE = int(lib.DTP_LIST_CHANGES), int(lib.DTP_LIST_STATE)

_PATCH = struct.Struct("=4I")
_insert = lib.dtp_list_insert


class EncodedPatch(NamedTuple):
    """One change of a list: at `position`, `deleted` elements go, and the values `inserted` come."""

    position: int
    deleted: int
    #: MessagePack.
    inserted: list[bytes]


class Element(NamedTuple):
    """What names an element of a list, or a move or an assignment of one: its author's agent, and a number."""

    agent: bytes
    number: int


class ElementState(NamedTuple):
    """Where an element is, and what says so of its place and its value: its insertion, a move or an assignment."""

    position: int
    place: Element
    value: Element


class ListHandle(SequenceHandle):
    """A list of which this replica writes as `agent`; see `SequenceHandle`. Values are MessagePack."""

    __slots__ = ()

    def __init__(self, agent: bytes, memory_limit: int = 0, waiting_limit: int = 16 * 1024 * 1024) -> None:
        super().__init__(agent, lib.dtp_list_new, memory_limit, waiting_limit)

    def _check_code(self, code: int) -> None:
        if code:
            raise self._make_error(code)

    def insert_encoded(self, position: int, values: bytes) -> None:
        """Insert values, one behind the other in `values`, before the element at `position`.

        Raises `TextRange`, `TextFormat`, `TextMemory`, `TextFull`.
        """
        try:
            code = _insert(self._text, position, values, len(values))
        except OverflowError as error:
            raise TextRange(f"{position} is not a position within a list") from error
        if code:
            raise self._make_error(code)

    def delete_range(self, position: int, count: int) -> None:
        """Delete `count` elements from `position` on. Raises `TextRange`, `TextMemory`, `TextFull`."""
        self._check_code(lib.dtp_list_delete(self._text, _position(position), _position(count)))

    def move_stamped(self, position: int, to: int, now: int) -> None:
        """Move an element so that it is at `to` then. The stamp is `now`, or above all that are here.

        Raises as `delete_range`.
        """
        self._check_code(lib.dtp_list_move(self._text, _position(position), _position(to), now))

    def assign_encoded(self, position: int, value: bytes, now: int) -> None:
        """Put another value in place of an element's. Raises as `insert_encoded`."""
        self._check_code(lib.dtp_list_assign(self._text, _position(position), value, len(value), now))

    def read_encoded(self, start: int, end: int) -> bytes:
        """Return the values of the elements from `start` to before `end`, one behind the other.

        Raises `TextRange`.
        """
        return self._take_out(lib.dtp_list_read(self._text, _position(start), _position(end), self._out))

    def made_by(self, position: int) -> bytes:
        """Return the agent that inserted the element at `position`. Raises `TextRange`."""
        return self.element_at(position).agent

    def _identify_element(self, position: int) -> tuple[bytes, int]:
        return self.element_at(position)

    def element_at(self, position: int) -> Element:
        """Return what names the element at `position`, wherever it moves. Raises `TextRange`."""
        found = ffi.new("dtp_text_id *")
        self._check_code(lib.dtp_list_identify(self._text, _position(position), found))
        return Element(self._agent_name(found.agent), int(found.seq))

    def look_for(self, element: Element) -> ElementState | None:
        """Return where an element stands and what says so; None for one that is deleted, or not here."""
        agent = lib.dtp_text_agent_find(self._text, element.agent, len(element.agent))
        if agent < 0:
            return None
        found = ffi.new("dtp_list_standing *")
        code = lib.dtp_list_look(self._text, {"agent": agent, "seq": element.number}, found)
        if code == lib.DTP_TEXT_GONE:
            return None
        self._check_code(code)
        place, value = found.place, found.value
        return ElementState(
            int(found.position),
            Element(self._agent_name(place.agent), int(place.seq)),
            Element(self._agent_name(value.agent), int(value.seq)),
        )

    def was_at(self, element: Element) -> int:
        """Return how many elements stand before where an element, or one of its moves, was made.

        Raises `AnchorGone` when that was compacted away.
        """
        return self._found_at(element.agent, element.number, lib.dtp_text_position)[0]

    def _locate_element(self, agent: bytes, number: int) -> tuple[int, bool]:
        # What is tied to an element goes where it is moved.
        return self._found_at(agent, number, lib.dtp_list_position)

    def is_behind(self, one: Element, other: Element) -> bool:
        """Return whether one was made behind the other, also of what is deleted; False if one was compacted away."""
        found = [lib.dtp_text_agent_find(self._text, each.agent, len(each.agent)) for each in (one, other)]
        if min(found) < 0:
            return False
        code = lib.dtp_list_behind(
            self._text, {"agent": found[0], "seq": one.number}, {"agent": found[1], "seq": other.number}
        )
        if code < 0 and code != lib.DTP_TEXT_GONE:
            raise self._make_error(code)
        return bool(code == 1)

    def _read_patches(self) -> list[EncodedPatch]:
        state = self._state
        if not state.patch_count:
            return []
        data = bytes(ffi.buffer(state.patches, state.patch_count * _PATCH.size))
        patches, at = [], 0
        rows = list(_PATCH.iter_unpack(data))
        size = sum(row[3] for row in rows)
        inserted = bytes(ffi.buffer(state.patch_text, size)) if size else b""
        for position, deleted, count, _ in rows:
            values = []
            for _ in range(count):
                value, at = _cell(inserted, at)
                values.append(value)
            patches.append(EncodedPatch(position, deleted, values))
        return patches


def facts(edit: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the values that an edit writes, and the agents whose elements it moves, assigns or removes.

    The edit is one that the core has checked.
    """
    count = ffi.new("size_t[2]")
    out = ffi.new("uint8_t[]", 2 * len(edit) + 1)
    size = lib.dtp_list_facts(edit, len(edit), out, count)
    if size < 0:
        raise TextFormat("not an edit of a list")
    data, at = bytes(ffi.buffer(out, size)), 0
    found: list[bytes] = []
    while at < len(data):
        one, at = _cell(data, at)
        found.append(one)
    return found[: count[0]], found[count[0] :]


def _position(number: int) -> int:
    if not 0 <= number < 1 << 63:
        raise TextRange(f"{number} is neither a position nor a count within a list")
    return number


def _cell(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the content of the cell at `at`, and where it ends: a length (LEB128), and that many bytes."""
    size = shift = 0
    while True:
        byte = data[at]
        at += 1
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return data[at : at + size], at + size
