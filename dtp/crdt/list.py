"""A replicated list: what programs hold. The merging is in C; docs/text.md, "Lists", has the order and the format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import Final, NamedTuple, overload

import msgpack

from dtp.core import crdt as core
from dtp.core.list import ListHandle
from dtp.core.sequence import TextFormat
from dtp.crdt import values
from dtp.crdt.replicated import Replicated
from dtp.crdt.values import GraphValueError, Value

#: MessagePack bytes of one element, at most: with what is around it, it is to fit into one edit.
ELEMENT_BYTES: Final = core.VALUE_BYTES - 1024
#: Elements that are read at once while iterating.
_BATCH: Final = 4096


class ListPatch(NamedTuple):
    """One change of a list: at `position`, `deleted` elements go and the values `inserted` come.

    Patches hold one after the other: each is about the list as the patches before it left it. An element that moves
    goes at one place and comes at another; one that is assigned goes and comes at its place.
    """

    position: int
    deleted: int
    inserted: list[Value]


def _no_time() -> int:
    return 0


class List(Replicated, ListHandle, MutableSequence[Value]):
    """A list whose elements can be moved, assigned and removed by anyone at the same time.

    Of two moves, or assignments, of one element the later holds, and it is there once; an element that was removed
    stays removed. Elements that two put at one place in one go each don't mix. What an edit costs doesn't depend on
    what was there before.

    This replica writes as `agent` (1 to 64 bytes): never let two running replicas write as the same one. `clock`
    tells which of two moves or assignments that don't know of each other is later: an int below 2**62 that rises;
    without it the number of moves and assignments that were seen decides. It is replicated as `dtp.crdt.text.Text`.
    """

    __slots__ = ("_clock",)

    def __init__(
        self,
        agent: bytes,
        *,
        clock: Callable[[], int] = _no_time,
        memory_limit: int = 0,
        waiting_limit: int = 16 * 1024 * 1024,
    ) -> None:
        super().__init__(agent, memory_limit=memory_limit, waiting_limit=waiting_limit)
        self._clock = clock

    @classmethod
    def load(cls, data: bytes, agent: bytes, *, clock: Callable[[], int] = _no_time) -> List:
        """Return what `save` gave. Raises `TextFormat`, `TextReference`, `TextMemory`."""
        found = cls(agent, clock=clock)
        found.merge(data)
        return found

    # ---- reading

    def __repr__(self) -> str:
        return f"<List of {len(self)}>"

    def read(self, start: int, end: int) -> list[Value]:
        """Return the values of the elements from `start` to before `end`. Raises `TextRange`."""
        return decode_all(self.read_encoded(start, end))

    def __iter__(self) -> Iterator[Value]:
        at = 0
        while at < len(self):
            batch = self.read(at, min(at + _BATCH, len(self)))
            yield from batch
            at += len(batch)

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> list[Value]: ...
    def __getitem__(self, index: int | slice) -> Value | list[Value]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self.read(start, max(start, stop))
            return self.read(0, len(self))[index]
        at = self._checked_index(index)
        return values.decode(self.read_encoded(at, at + 1))

    def _checked_index(self, index: int) -> int:
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"a list of {count} elements has no {index}")
        return index % count

    # ---- editing

    def insert(self, index: int, value: Value) -> None:
        """Insert before `index`, as `list.insert` does. Raises `GraphValueError`, `TextMemory`, `TextFull`."""
        length = self._state.length
        if type(index) is not int or not 0 <= index <= length:
            index = slice(index, None).indices(length)[0]
        self._insert_elements(index, [value])

    def append(self, value: Value) -> None:
        """Insert at the end."""
        self._insert_elements(len(self), [value])

    def extend(self, values: Iterable[Value]) -> None:
        """Insert all at the end, in one go."""
        self._insert_elements(len(self), list(values))

    def _insert_elements(self, position: int, items: list[Value]) -> None:
        encoded = _encode(items[0]) if len(items) == 1 else b"".join(map(_encode, items))
        try:
            self.insert_encoded(position, encoded)
        except TextFormat as error:
            raise element_error(items) from error

    @overload
    def __setitem__(self, index: int, value: Value) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[Value]) -> None: ...
    def __setitem__(self, index: int | slice, value: Value) -> None:
        if isinstance(index, slice):
            self._set_slice(index, list(value))
        else:
            self._assign_value(self._checked_index(index), value)

    def _assign_value(self, position: int, value: Value) -> None:
        try:
            self.assign_encoded(position, _encode(value), self._clock())
        except TextFormat as error:
            raise element_error([value]) from error

    def _set_slice(self, index: slice, new: list[Value]) -> None:
        start, stop, step = index.indices(len(self))
        places = range(start, max(start, stop) if step == 1 else stop, step)
        if step != 1 and len(places) != len(new):
            raise ValueError(f"{len(new)} values for an extended slice of {len(places)}")
        self._check_permitted(places, new)
        if step == 1:
            self._delete_elements(start, len(places))
            self._insert_elements(start, new)
            return
        for at, value in zip(places, new, strict=True):
            self._assign_value(at, value)

    def __delitem__(self, index: int | slice) -> None:
        if not isinstance(index, slice):
            self._delete_elements(self._checked_index(index), 1)
            return
        start, stop, step = index.indices(len(self))
        if step == 1:
            self._delete_elements(start, max(0, stop - start))
            return
        places = range(start, stop, step)
        self._check_permitted(places, [])
        for at in sorted(places, reverse=True):
            self._delete_elements(at, 1)

    def _check_permitted(self, places: range, new: list[Value]) -> None:
        """Raise what an edit in several steps, of these elements and with these values, would raise half-way."""
        List(b"trial").extend(new)

    def _delete_elements(self, position: int, count: int) -> None:
        self.delete_range(position, count)

    def clear(self) -> None:
        """Remove all elements."""
        self._delete_elements(0, len(self))

    def move(self, old: int, new: int) -> None:
        """Move the element at index `old` so that it is at index `new` then. Raises `IndexError`."""
        self._move_element(self._checked_index(old), self._checked_index(new))

    def _move_element(self, old: int, new: int) -> None:
        self.move_stamped(old, new, self._clock())

    # ---- replicating

    def apply(self, data: bytes | bytearray | memoryview) -> list[ListPatch]:
        """Merge as `merge` does, and return what changed in the list. After a `TextMemory` read the list again."""
        return [decode_patch(patch) for patch in super().apply(data)]


def _encode(value: Value) -> bytes:
    encoded = values.encode(value)
    if len(encoded) > ELEMENT_BYTES:
        raise GraphValueError(
            f"an element of a list takes at most {ELEMENT_BYTES} bytes, not {len(encoded)}: keep it as a blob "
            "(Graph.blobs.add), or as a text if it is edited"
        )
    return encoded


def decode_all(data: bytes) -> list[Value]:
    """Return values that stand one behind the other."""
    unpacker = msgpack.Unpacker(
        ext_hook=values.decode_extension, strict_map_key=False, max_buffer_size=max(1, len(data))
    )
    unpacker.feed(data)
    return list(unpacker)


def decode_patch(patch: tuple[int, int, list[bytes]]) -> ListPatch:
    """Return a patch whose values were MessagePack."""
    position, deleted, inserted = patch
    return ListPatch(position, deleted, list(map(values.decode, inserted)))


def element_error(items: list[Value]) -> GraphValueError:
    """Return the error that says why one of these values can't be an element."""
    return values.row_error([("list", "", item) for item in items])
