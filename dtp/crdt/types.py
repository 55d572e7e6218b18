"""The data types as Python knows them: mappings and sets over a replica, which has what they show.

Texts and lists are in `dtp.crdt.sequences`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSet
from typing import TYPE_CHECKING, Any

from dtp.core import crdt as core
from dtp.crdt import parts, values
from dtp.crdt.sequences import GraphList
from dtp.crdt.values import Link, Value

if TYPE_CHECKING:
    from dtp.crdt.replica import Replica


class _View:
    """Something at (soul, key) of a replica."""

    __slots__ = ("_replica", "key", "soul")

    def __init__(self, replica: Replica, soul: str, key: str = "") -> None:
        self._replica = replica
        self.soul = soul
        self.key = key

    def _read_space(self, space: int, key: str | None = None) -> list[list[Any]]:
        text = values.encode_name(self.key if key is None else key)
        return values.decode(self._replica.core.read_space(space, values.encode_name(self.soul), text))  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.soul!r}{f' {self.key!r}' if self.key else ''}>"


class Registers(_View, MutableMapping[str, Value]):
    """Keys to values, each a last-writer-wins register. Setting None keeps None; `del` deletes."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Value:
        found = self._replica.core.get_register(values.encode_name(self.soul), values.encode_name(key))
        if found is None:
            raise KeyError(key)
        return values.decode(found)

    def __setitem__(self, key: str, value: Value) -> None:
        self._replica.put(self.soul, key, value)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._replica.delete(self.soul, key)

    def __contains__(self, key: object) -> bool:
        return (
            isinstance(key, str)
            and self._replica.core.get_register(values.encode_name(self.soul), values.encode_name(key))
            is not None
        )

    def _all_values(self) -> dict[str, Value]:
        return values.decode(self._replica.core.read_keys(core.REGISTER, values.encode_name(self.soul)))  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all_values())

    def __len__(self) -> int:
        return len(self._all_values())

    def to_dict(self) -> dict[str, Value]:
        """Return all keys and values, read at once."""
        return self._all_values()

    def update(  # type: ignore[override]
        self, other: Mapping[str, Value] | Iterable[tuple[str, Value]] = (), /, **more: Value
    ) -> None:
        """Put all of these, as `dict.update` does; in one call, so all or nothing up to some thousand keys."""
        self._replica.put_many((self.soul, key, value) for key, value in dict(other, **more).items())

    def written(self, key: str) -> tuple[bytes, int]:
        """Return who wrote the value (public key), and when (clock). Raises `KeyError`."""
        stamp = self._replica.core.stamp_of(values.encode_name(self.soul), values.encode_name(key))
        if stamp is None:
            raise KeyError(key)
        clock, author = stamp
        return self._replica.author_key(author), clock


class Node(Registers):
    """A node of the graph: keys to values, each a last-writer-wins register. Setting None keeps None; `del` deletes.

    Links to other nodes are kept in a set for each key: `link`, `unlink`, `links`. A link may have properties, too.
    """

    __slots__ = ()

    def link(self, key: str, to: str | Node, /, **properties: Value) -> None:
        """Link to another node, given as such or by its soul; set these properties of the link."""
        self._replica.set(self.soul, key).add(_link_to(to))
        if properties:
            self.relationship(key, to).update(properties)

    def unlink(self, key: str, to: str | Node) -> None:
        """Take the link away, and its properties that are there; nothing when there is none."""
        self._replica.set(self.soul, key).discard(_link_to(to))
        self.relationship(key, to).clear()

    def links(self, key: str) -> list[str]:
        """Return the souls that this node links to by `key`, sorted."""
        return sorted(
            {value.soul for _, _, value in self._read_space(core.SET, key) if isinstance(value, Link)}
        )

    def relationship(self, key: str, to: str | Node) -> Relationship:
        """Return the properties of the link to another node, whether or not there is one."""
        return Relationship(self._replica, self.soul, key, _link_to(to).soul)


class Relationship(Registers):
    """The properties of a link: keys to values, each a last-writer-wins register.

    They are shown as long as there is a link from `source` to `target` by `label`.
    """

    __slots__ = ("label", "source", "target")

    def __init__(self, replica: Replica, source: str, label: str, target: str) -> None:
        super().__init__(replica, parts.relationship_soul(source, label, target))
        self.source = source
        self.label = label
        self.target = target

    def clear(self) -> None:
        """Delete all properties that are there."""
        if keys := list(self):
            self._replica.put_many([(self.soul, key) for key in keys])

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.source!r} -{self.label!r}-> {self.target!r}: {self.to_dict()!r}>"
        )


def _link_to(node: str | Node) -> Link:
    if isinstance(node, Node):
        return Link(node.soul)
    if not isinstance(node, str):
        raise values.GraphValueError(f"a link leads to a node or its soul, not to {node!r}")
    return Link(node)


class Counter(_View):
    """A number to which everybody adds: the sum of what each author added (a PN-counter).

    An author's own total is within 64 bits with a sign; beyond, `StateLimit`.
    """

    __slots__ = ()

    def add(self, amount: int = 1) -> None:
        """Add, or with a negative amount take away."""
        if isinstance(amount, bool) or not isinstance(amount, int):
            raise values.GraphValueError(f"a counter takes ints, not {amount!r}")
        if not -(1 << 63) <= amount < 1 << 63:
            raise values.GraphValueError(f"a counter takes 64 bits at once, not {amount}")
        if amount:
            self._replica.write_op(core.COUNTER_TOTAL, self.soul, self.key, value=values.encode(amount))

    @property
    def value(self) -> int:
        """The sum."""
        return sum(total for _, total in self._read_space(core.COUNTER))

    def __int__(self) -> int:
        return self.value

    def by_author(self) -> dict[bytes, int]:
        """Return what each author (public key) added."""
        return {self._replica.author_key(author): total for author, total in self._read_space(core.COUNTER)}


class Set(_View, MutableSet[Value]):
    """An observed-remove set: removing takes away what was seen; what others add at the same time stays.

    Elements are told apart by their bytes: 1, 1.0 and True are three. They come in the order of their bytes.
    """

    __slots__ = ()

    def _distinct_values(self) -> dict[bytes, Value]:
        return {values.encode(value): value for _, _, value in self._read_space(core.SET)}

    def __contains__(self, value: object) -> bool:
        names = values.encode_name(self.soul), values.encode_name(self.key)
        found = self._replica.core.observed_dots(core.SET_ADD, *names, value=values.encode(value))
        return bool(values.decode(found))

    def __iter__(self) -> Iterator[Value]:
        return iter([value for _, value in sorted(self._distinct_values().items(), key=lambda pair: pair[0])])

    def __len__(self) -> int:
        return len(self._distinct_values())

    def add(self, value: Value) -> None:
        """Add, also when it is there already: then it outlives removals that others make now."""
        self._replica.write_op(core.SET_ADD, self.soul, self.key, value=values.encode(value))

    def discard(self, value: Value) -> None:
        """Remove what was seen of it; nothing when there is none."""
        self._replica.write_op(core.SET_REMOVE, self.soul, self.key, value=values.encode(value))

    @classmethod
    def _from_iterable(cls, it: Iterable[Value]) -> set[Value]:
        """Return a plain set: so `a | b` and the like give no replicated one."""
        return set(it)


class MultiValue(_View):
    """A register that keeps all values written at the same time, until someone who saw them writes."""

    __slots__ = ()

    def set(self, value: Value) -> None:
        """Replace all that was seen."""
        self._replica.write_op(core.VALUES_PUT, self.soul, self.key, value=values.encode(value))

    def clear(self) -> None:
        """Remove all that was seen."""
        self._replica.write_op(core.VALUES_REMOVE, self.soul, self.key)

    @property
    def values(self) -> list[Value]:
        """All values, the latest first."""
        return _siblings(self._replica, self._read_space(core.VALUES))

    @property
    def value(self) -> Value:
        """The latest, None when there is none."""
        return next(iter(self.values), None)


def _siblings(replica: Replica, entries: list[list[Any]]) -> list[Value]:
    """Return values of entries by clock, then author, downwards: the same everywhere."""
    entries.sort(key=lambda entry: (entry[1], replica.author_key(entry[0])), reverse=True)
    return [value for _, _, value in entries]


class Map(_View, MutableMapping[str, Value]):
    """A mapping whose deletions take away what was seen: what others write at the same time stays.

    `map[key]` is the latest of the values written at the same time, `conflicts` gives all.
    """

    __slots__ = ()

    def __getitem__(self, key: str) -> Value:
        found = self.conflicts(key)
        if not found:
            raise KeyError(key)
        return found[0]

    def __setitem__(self, key: str, value: Value) -> None:
        self._replica.write_op(core.VALUES_PUT, self.soul, key, value=values.encode(value))

    def __delitem__(self, key: str) -> None:
        if not self._replica.write_op(core.VALUES_REMOVE, self.soul, key):
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(values.decode(self._replica.core.read_keys(core.VALUES, values.encode_name(self.soul))))

    def __len__(self) -> int:
        return len(values.decode(self._replica.core.read_keys(core.VALUES, values.encode_name(self.soul))))

    def conflicts(self, key: str) -> list[Value]:
        """Return all values of the key, the latest first; more than one when they were written at the same time."""
        return _siblings(self._replica, self._read_space(core.VALUES, key))


#: Name of a type -> its class.
TYPES: dict[str, type[Any]] = {
    "node": Node,
    "counter": Counter,
    "set": Set,
    "map": Map,
    "multi_value": MultiValue,
    "list": GraphList,
}
