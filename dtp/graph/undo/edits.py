"""What a step of undoing is made of: edits that can each be taken back, as long as what they made still stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final, NamedTuple

from dtp.core import crdt as core
from dtp.crdt import Replica, document, parts, values
from dtp.crdt.sequences import Name
from dtp.crdt.values import Link

#: What an edit takes in memory beside its values: a few objects of Python, roughly.
EDIT_BYTES: Final = 400


class Where(NamedTuple):
    """A place that an edit is about; `space` as `Change.space` names it."""

    soul: str
    key: str
    space: str


class PlaceState:
    """What stands, or stood, at a place: its value as bytes, and by what it is told apart from an equal one."""

    __slots__ = ("__weakref__", "mark", "value")

    def __init__(self, mark: Any, value: bytes | None) -> None:
        self.mark = mark
        self.value = value

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return len(self.value or b"")


class Taken(NamedTuple):
    """What came of taking back an edit: edits that bring it again, none where others changed it; whether any of it
    shows; whether some of it stays, since others changed that."""

    opposite: list[TrackedEdit]
    is_seen: bool
    is_partial: bool = False


class TrackedEdit(ABC):
    """Something made here. `where` is what it is about, `size` what it takes in memory, bytes, roughly."""

    where: Where
    size = EDIT_BYTES

    @abstractmethod
    def take_back(self, replica: Replica) -> Taken:
        """Undo it if what it made still stands, and hides nothing of others."""

    def hidden_parts(self) -> list[str]:
        """Return the souls of parts of documents that nobody would see any more once this is taken back."""
        return []


def is_filled(replica: Replica, part: str) -> bool:
    """True if something is in a part of a document."""
    return bool(document.read_part(replica, part))


# ---- places with one state -------------------------------------------------------------------------------------


class EditPlace(ABC):
    """Somewhere in a graph where one thing stands at a time."""

    where: Where

    @property
    def name(self) -> object:
        """What no other place is called."""
        return self.where

    @abstractmethod
    def identify_state(self, replica: Replica) -> Any:
        """Return a mark that identifies the state that is here now: equal to a `PlaceState`'s if it is that one."""

    @abstractmethod
    def read_value(self, replica: Replica) -> bytes | None:
        """Return the value that stands here, None if there is none."""

    @abstractmethod
    def restore_state(self, replica: Replica, state: PlaceState) -> None:
        """Make the value of a state stand here again. Raises `AnchorGone` where that can't be."""

    def note_state(self, state: PlaceState) -> None:  # noqa: B027
        """Note that a state stands here now, if that matters."""

    def parts_in(self, state: PlaceState) -> list[str]:
        """Return the soul of the part of a document that a state shows, if it is one."""
        return []


class RegisterPlace(EditPlace):
    """A register. What stands is told apart by its author and clock."""

    def __init__(self, soul: str, key: str) -> None:
        self.where = Where(soul, key, "register")
        self._names = values.encode_name(soul), values.encode_name(key)

    def identify_state(self, replica: Replica) -> Any:
        stamp = replica.core.stamp_of(*self._names)
        return stamp and (stamp[0], replica.author_key(stamp[1]))

    def read_value(self, replica: Replica) -> bytes | None:
        return replica.core.get_register(*self._names)

    def restore_state(self, replica: Replica, state: PlaceState) -> None:
        if state.value is None:
            replica.delete(self.where.soul, self.where.key)
        else:
            replica.put(self.where.soul, self.where.key, values.decode(state.value))


class _Dotted(EditPlace):
    """A place of entries with dots: those which stand tell its states apart."""

    _space: int

    def _read_entries(self, replica: Replica) -> list[list[Any]]:
        soul, key, _ = self.where
        found = values.decode(
            replica.core.read_space(self._space, values.encode_name(soul), values.encode_name(key))
        )
        return [[replica.author_key(author), clock, value] for author, clock, value in found]

    def identify_state(self, replica: Replica) -> Any:
        return frozenset((author, clock) for author, clock, _ in self._read_entries(replica))


class MemberPlace(_Dotted):
    """Whether a value is in a set. The state's value is the value, None where it isn't in."""

    _space = core.SET

    def __init__(self, soul: str, key: str, member: bytes) -> None:
        self.where = Where(soul, key, "set")
        self.member = member

    @property
    def name(self) -> object:
        return (*self.where, self.member)

    def _read_entries(self, replica: Replica) -> list[list[Any]]:
        return [one for one in super()._read_entries(replica) if values.encode(one[2]) == self.member]

    def read_value(self, replica: Replica) -> bytes | None:
        return self.member if self._read_entries(replica) else None

    def restore_state(self, replica: Replica, state: PlaceState) -> None:
        kind = core.SET_REMOVE if state.value is None else core.SET_ADD
        replica.write_op(kind, self.where.soul, self.where.key, value=self.member)


class ValuesPlace(_Dotted):
    """A key of a map, or a multi-value register. Of values written at the same time the latest comes back."""

    _space = core.VALUES

    def __init__(self, soul: str, key: str) -> None:
        self.where = Where(soul, key, "values")

    def read_value(self, replica: Replica) -> bytes | None:
        entries = self._read_entries(replica)
        if not entries:
            return None
        return values.encode(max(entries, key=lambda one: (one[1], one[0]))[2])

    def parts_in(self, state: PlaceState) -> list[str]:
        soul, key, _ = self.where
        value = values.decode(state.value) if state.value else None
        if isinstance(value, Link) and parts.kind_in_map(soul, key, value) is not None:
            return [value.soul]
        return []

    def restore_state(self, replica: Replica, state: PlaceState) -> None:
        kind = core.VALUES_REMOVE if state.value is None else core.VALUES_PUT
        replica.write_op(kind, self.where.soul, self.where.key, value=state.value or b"")


class Swap(TrackedEdit):
    """Something stands at a place instead of what stood there."""

    def __init__(self, place: EditPlace, old: PlaceState, new: PlaceState) -> None:
        self.place = place
        self.where = place.where
        self.old = old
        self.new = new

    @property
    def size(self) -> int:  # type: ignore[override]
        return EDIT_BYTES + self.old.size + self.new.size

    def hidden_parts(self) -> list[str]:
        return self.place.parts_in(self.new)

    def take_back(self, replica: Replica) -> Taken:
        if self.place.identify_state(replica) != self.new.mark:
            return Taken([], is_seen=False)
        if any(is_filled(replica, part) for part in self.hidden_parts()):
            return Taken([], is_seen=False)
        self.place.restore_state(replica, self.old)
        self.old.mark = self.place.identify_state(replica)
        self.place.note_state(self.old)
        return Taken([Swap(self.place, self.new, self.old)], is_seen=True)


class Added(TrackedEdit):
    """An amount was added to a counter."""

    def __init__(self, where: Where, amount: int) -> None:
        self.where = where
        self.amount = amount

    def take_back(self, replica: Replica) -> Taken:
        soul, key, _ = self.where
        if self.amount:
            replica.write_op(core.COUNTER_TOTAL, soul, key, value=values.encode(-self.amount))
        return Taken([Added(self.where, -self.amount)], is_seen=bool(self.amount))


# ---- texts -----------------------------------------------------------------------------------------------------


class TextEdits(TrackedEdit):
    """Steps of a text's own undo, which knows its characters: those from number `before` to `after`."""

    def __init__(self, name: Name, before: int, after: int, *, is_undone: bool = False) -> None:
        _, soul, key = name
        self.name = name
        self.where = Where(soul, key, "text")
        self.before = before
        self.after = after
        self._is_undone = is_undone

    def take_back(self, replica: Replica) -> Taken:
        text = replica.text(self.where.soul, self.where.key)
        expected = self.before if self._is_undone else self.after
        if self.before < 0 or text.undo_steps != expected:  # the text was built again, or forgot them
            return Taken([], is_seen=False)
        is_seen = False
        for _ in range(self.after - self.before):
            patches = text.redo() if self._is_undone else text.undo()
            is_seen = is_seen or bool(patches) or (patches is not None and bool(text.formats()))
        back = TextEdits(self.name, self.before, self.after, is_undone=not self._is_undone)
        return Taken([back], is_seen=is_seen)
