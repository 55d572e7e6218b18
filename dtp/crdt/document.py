"""Documents: maps, lists and texts within one another, each of which merges by its parts."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSequence
from typing import TYPE_CHECKING, Any, Final, overload

from dtp.core import crdt as core
from dtp.crdt import parts, values
from dtp.crdt.list import ELEMENT_BYTES
from dtp.crdt.sequences import GraphText
from dtp.crdt.values import GraphValueError, Link, Value
from dtp.errors import LocalError

if TYPE_CHECKING:
    from dtp.crdt.replica import Replica


class NestingError(LocalError):
    """A path leads to nothing in a document, or through something that has no parts, or too deep."""

    code = "graph-nesting"


class NewText(str):
    """A str that becomes a text in a document, which is edited by all at the same time: `doc["note"] = NewText("")`.

    A plain str is a value, which is replaced as a whole.
    """

    __slots__ = ()


class Nested:
    """A map or a list of a document: at a soul, so many parts deep."""

    __slots__ = ("_depth", "_replica", "soul")

    def __init__(self, replica: Replica, soul: str, depth: int = 1) -> None:
        self._replica = replica
        self._depth = depth
        self.soul = soul

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Nested) and self.soul == other.soul and self._replica is other._replica

    def __hash__(self) -> int:
        return hash(self.soul)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.soul!r}: {self.to_plain()!r}>"

    @abstractmethod
    def to_plain(self) -> Any:
        """Return all of it as dicts, lists and values, texts as `NewText`, which is a str: put elsewhere they become
        texts again. What is deeper than 32 parts stays a link."""

    def at(self, *path: str | int) -> Any:
        """Return what is at a path of keys and indexes: `document.at("columns", 0, "title")`.

        Raises `NestingError` where there is nothing.
        """
        found: Any = self
        for number, step in enumerate(path):
            if not isinstance(found, NestedMap if isinstance(step, str) else NestedList):
                kind = type(found).__name__
                raise NestingError(f"there is no {step!r} at {list(path[:number])}: a {kind} is there")
            one: Any = found
            try:
                found = one[step]
            except LookupError as error:
                raise NestingError(f"there is nothing at {list(path[: number + 1])}") from error
        return found

    def _view_of(self, kind: parts.Kind | None, value: Value) -> Any:
        if kind is None or self._depth >= parts.MAX_DEPTH:
            return value
        if kind == "t":
            return self._replica.text(value.soul)
        return (NestedMap if kind == "m" else NestedList)(self._replica, value.soul, self._depth + 1)

    def _check_value(self, value: Any) -> None:
        """Raise what forbids a value as a part of this, so that nothing is made of one that can't be whole."""
        check_value(value, self._depth)

    def _fill_part(self, soul: str, value: Any) -> None:
        """Put what a part is made of at its soul, where nothing is."""
        replica, depth = self._replica, self._depth + 1
        if isinstance(value, NewText):
            if value:
                replica.text(soul).insert(0, str(value))
        elif isinstance(value, Mapping):
            NestedMap(replica, soul, depth)._put_all(value)
        else:
            NestedList(replica, soul, depth)._insert_all(0, list(value))

    def _empty_part(self, kind: parts.Kind | None, value: Value) -> None:
        """Take out of a part all that is seen of it here."""
        view = self._view_of(kind, value)
        if isinstance(view, GraphText):
            view.delete(0, len(view))
        elif isinstance(view, Nested):
            view.clear()

    @abstractmethod
    def clear(self) -> None:
        """Take out all that is here."""


def part_kind(value: Any) -> parts.Kind | None:
    """Return as what part a value of Python is written, None for one that is a value like any other."""
    if isinstance(value, NewText):
        return "t"
    if isinstance(value, Mapping):
        return "m"
    return "l" if isinstance(value, list | tuple | NestedList) else None


def check_value(value: Any, depth: int) -> None:
    """Raise `GraphValueError` where a value can't be in a document, `NestingError` where it is too deep."""
    kind = part_kind(value)
    if kind is None:
        if len(values.encode(value)) > ELEMENT_BYTES:
            raise GraphValueError(
                f"a value in a document takes at most {ELEMENT_BYTES} bytes: keep it as a blob (Graph.blobs.add)"
            )
        return
    if depth >= parts.MAX_DEPTH:
        raise NestingError(f"a document has at most {parts.MAX_DEPTH} parts within one another")
    if isinstance(value, Mapping):
        for key, one in value.items():
            check_key(key)
            check_value(one, depth + 1)
    elif kind == "l":
        for one in value:
            check_value(one, depth + 1)


def check_key(key: object) -> None:
    """Raise `GraphValueError` for what can't be a key."""
    if not isinstance(key, str) or len(values.encode_name(key)) > core.NAME_BYTES:
        raise GraphValueError(f"a key must be text of at most {core.NAME_BYTES} bytes of UTF-8, not {key!r}")


# `NestedMap` has a method of this name.
_All = list[Any]


class NestedMap(Nested, MutableMapping[str, Any]):
    """A map whose values may be maps, lists and texts, which merge by their parts. A document is one.

    A dict or a list that is put there becomes a part. Who puts one at the same key at the same time makes the same
    part: it has what both put into it. `map`, `list` and `text` give the part of a key, and make it if need be. Where
    values, or parts of another kind, were written at the same time, the latest is shown and `conflicts` has all.
    Deleting a key takes out what was seen below it; what others write further down meanwhile isn't shown, unless that
    part is made again.
    """

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        found = self._replica.map(self.soul)[key]
        return self._view_of(parts.kind_in_map(self.soul, key, found), found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._replica.map(self.soul))

    def __len__(self) -> int:
        return len(self._replica.map(self.soul))

    def conflicts(self, key: str) -> _All:
        """Return all that was put at the key at the same time, the latest first."""
        found = self._replica.map(self.soul).conflicts(key)
        return [self._view_of(parts.kind_in_map(self.soul, key, one), one) for one in found]

    def __setitem__(self, key: str, value: Any) -> None:
        self._put_all({key: value})

    def update(  # type: ignore[override]
        self, other: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **more: Any
    ) -> None:
        """Put all of these, as `dict.update` does. Nothing is written if one of the values can't be."""
        self._put_all(dict(other, **more))

    def _put_all(self, new: Mapping[str, Any]) -> None:
        new = {key: copy_plain(value) for key, value in new.items()}
        for key, value in new.items():
            check_key(key)
            self._check_value(value)
        for key, value in new.items():
            self._empty_at(key)
            kind = part_kind(value)
            if kind is None:
                self._replica.map(self.soul)[key] = value
            else:
                self._fill_part(parts.in_map(self.soul, key, kind), value)
                self._make_part(key, kind)  # last: under rules the part may be refused

    def _make_part(self, key: str, kind: parts.Kind) -> None:
        self._replica.map(self.soul)[key] = Link(parts.in_map(self.soul, key, kind))

    def _empty_at(self, key: str) -> None:
        for one in self._replica.map(self.soul).conflicts(key):
            self._empty_part(parts.kind_in_map(self.soul, key, one), one)

    def __delitem__(self, key: str) -> None:
        self._empty_at(key)
        del self._replica.map(self.soul)[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Take out what is at a key and return it: of a part what it said; else the default, if one is given."""
        if default and key not in self:
            return default[0]
        found = copy_plain(self[key])
        del self[key]
        return found

    def popitem(self) -> tuple[str, Any]:
        """Take out any key; return it with what `pop` gives."""
        for key in self:
            return key, self.pop(key)
        raise KeyError("this map is empty")

    def clear(self) -> None:
        """Delete all keys."""
        for key in [*self]:
            del self[key]

    def map(self, key: str) -> NestedMap:
        """Return the map at a key, made if there is none; what else was there stays below it in `conflicts`."""
        found = self._open_part(key, "m")
        assert isinstance(found, NestedMap)
        return found

    def list(self, key: str) -> NestedList:
        """Return the list at a key, made if there is none, as `map` does."""
        found = self._open_part(key, "l")
        assert isinstance(found, NestedList)
        return found

    def text(self, key: str) -> GraphText:
        """Return the text at a key, made if there is none, as `map` does."""
        found = self._open_part(key, "t")
        assert isinstance(found, GraphText)
        return found

    def _open_part(self, key: str, kind: parts.Kind) -> Any:
        soul = parts.in_map(self.soul, key, kind)
        if Link(soul) not in self._replica.map(self.soul).conflicts(key):
            check_value(_EMPTY[kind], self._depth)
            self._make_part(key, kind)
        return self._view_of(kind, Link(soul))

    def to_plain(self) -> dict[str, Any]:
        """Return all of it as a dict of dicts, lists and values, texts as `NewText`. What is deeper stays a link."""
        return _map_to_plain(self._replica, self.soul)


class NestedList(Nested, MutableSequence[Any]):
    """A list in a document, whose elements may be maps, lists and texts. They keep their parts when they move."""

    __slots__ = ()

    def _element_list(self) -> Any:
        return self._replica.list(self.soul)

    def _to_shown(self, value: Value) -> Any:
        return self._view_of(parts.kind_in_list(self.soul, value), value)

    def __len__(self) -> int:
        return len(self._element_list())

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        found = self._element_list()[index]
        return [self._to_shown(one) for one in found] if isinstance(index, slice) else self._to_shown(found)

    def insert(self, index: int, value: Any) -> None:
        """Insert before `index`, as `list.insert` does."""
        self._insert_all(slice(index, None).indices(len(self))[0], [value])

    def extend(self, values: Iterable[Any]) -> None:
        """Insert all at the end, in one go."""
        self._insert_all(len(self), list(values))

    def _insert_all(self, position: int, new: list[Any]) -> None:
        new = [copy_plain(value) for value in new]
        for value in new:
            self._check_value(value)
        self._element_list()[position:position] = [self._make_value(value) for value in new]

    def _make_value(self, value: Any) -> Value:
        """Return what stands in the list for a value, which is filled if it is a part."""
        kind = part_kind(value)
        if kind is None:
            return value
        soul = parts.in_list(self.soul, self._replica.random(parts.NONCE), kind)
        self._fill_part(soul, value)
        return Link(soul)

    def __setitem__(self, index: int | slice, value: Any) -> None:
        if isinstance(index, slice):
            raise NestingError("a list in a document has no assignment of slices: insert and delete")
        value = copy_plain(value)
        self._check_value(value)
        old = self._element_list()[index]
        self._element_list()[index] = self._make_value(value)
        self._empty_part(parts.kind_in_list(self.soul, old), old)

    def __delitem__(self, index: int | slice) -> None:
        items = self._element_list()
        old = items[index] if isinstance(index, slice) else [items[index]]
        del items[index]
        for one in old:
            self._empty_part(parts.kind_in_list(self.soul, one), one)

    def clear(self) -> None:
        """Remove all elements."""
        del self[:]

    def pop(self, index: int = -1) -> Any:
        """Take out an element and return it: of a part what it said."""
        found = copy_plain(self[index])
        del self[index]
        return found

    def reverse(self) -> None:
        """Move all elements."""
        for at in range(len(self) - 1):
            self.move(len(self) - 1, at)

    def move(self, old: int, new: int) -> None:
        """Move the element at index `old` so that it is at index `new` then, with all its parts."""
        self._element_list().move(old, new)

    def to_plain(self) -> list[Any]:
        """Return all of it as a list of dicts, lists and values, texts as `NewText`. What is deeper stays a link."""
        return _list_to_plain(self._replica, self.soul)


_EMPTY: Final[dict[parts.Kind, Any]] = {"m": {}, "l": [], "t": NewText()}


def copy_plain(value: Any) -> Any:
    """Return what a value says, where it is a part itself: a copy is put at the other place."""
    if isinstance(value, Nested):
        return value.to_plain()
    return NewText(str(value)) if isinstance(value, GraphText) else value


def read_part(replica: Replica, soul: str) -> dict[str, dict[str, Any]]:
    """Return what a part has at its soul, as `Graph.everything` has it."""
    found: dict[str, dict[str, Any]] = {}
    for key in replica.map(soul):
        found[key] = {"values": replica.map(soul).conflicts(key)}
    if items := list(replica.list(soul)):
        found.setdefault("", {})["list"] = items
    if text := str(replica.text(soul)):
        found.setdefault("", {})["text"] = text
    return found


def read_at(replica: Replica, soul: str, key: str) -> Value:
    """Return what is at a key of a map, parts as dicts, lists and values; None if nothing is."""
    found = parts.read_with_parts(
        soul, lambda at: read_part(replica, at) if at != soul else _at_key(replica, soul, key)
    )
    return next(iter(found.get(key, {}).get("values", [])), None)


def _at_key(replica: Replica, soul: str, key: str) -> dict[str, dict[str, Any]]:
    return {key: {"values": replica.map(soul).conflicts(key)}}


def _map_to_plain(replica: Replica, soul: str) -> dict[str, Any]:
    found = parts.read_with_parts(soul, functools.partial(read_part, replica), as_text=NewText)
    return {key: kinds["values"][0] for key, kinds in found.items() if kinds.get("values")}


def _list_to_plain(replica: Replica, soul: str) -> list[Any]:
    found = parts.read_with_parts(soul, functools.partial(read_part, replica), as_text=NewText)
    return [*found.get("", {}).get("list", [])]
