"""A part of a graph: which souls it has, told by their names alone. docs/partial.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from dtp.crdt.parts import document_of
from dtp.crdt.permission.access import is_internal
from dtp.graph.errors import GraphError, SyncError
from dtp.graph.query.lookup.columns import kind_of
from dtp.packing import unpack_array

VERSION: Final = 1
#: Prefixes and labels of a part, at most; each is tried for each soul of each frame.
MAX_NAMES: Final = 256
#: Souls that a part names one by one, at most.
MAX_SOULS: Final = 50_000
#: Bytes of each.
MAX_NAME: Final = 1024


def is_common(soul: str) -> bool:
    """Return whether a soul is in every part: what verdicts on ops depend on, and what people say of themselves."""
    return soul.startswith("%") or is_internal(soul) or (soul.startswith("~") and "/" not in soul)


@dataclass(frozen=True, init=False)
class Part:
    """Souls that begin with one of the `prefixes`, have one of the `labels`, or are named: `Part(labels=["note"])`.

    A label is what queries have: what is before a soul's first slash, of an owned one behind its owner. The graph's
    own book-keeping, what is under rules, and the souls of identities themselves (`~name`) are in every part.
    Raises `GraphError` for what can't be one.
    """

    prefixes: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    souls: frozenset[str] = frozenset()
    _starts: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __init__(
        self, prefixes: Iterable[str] = (), labels: Iterable[str] = (), souls: Iterable[str] = ()
    ) -> None:
        for what, names, most in (
            ("prefixes", prefixes, MAX_NAMES),
            ("labels", labels, MAX_NAMES),
            ("souls", souls, MAX_SOULS),
        ):
            if isinstance(names, str):
                raise GraphError(f"{what} are several texts, not one: [{names!r}]")
            found = frozenset(names)
            if len(found) > most or not all(_is_name(name) for name in found):
                raise GraphError(f"a part has at most {most} {what}, each a text of 1 to {MAX_NAME} bytes")
            object.__setattr__(self, what, found)
        object.__setattr__(self, "_starts", tuple(sorted(self.prefixes)))

    def has_soul(self, soul: str) -> bool:
        """Return whether a soul is in it. Parts of a document are where that is."""
        soul = document_of(soul)
        return (
            soul.startswith(self._starts)
            or soul in self.souls
            or (bool(self.labels) and kind_of(soul) in self.labels)
            or is_common(soul)
        )

    def covers_part(self, other: Part) -> bool:
        """Return whether it surely has all that the other one has, whatever souls there are."""
        return (
            other.labels <= self.labels
            and all(one.startswith(self._starts) or self._has_label_of(one) for one in other.prefixes)
            and all(self.has_soul(one) for one in other.souls)
        )

    def _has_label_of(self, prefix: str) -> bool:
        """Return whether all souls that begin so have one of its labels."""
        path = prefix.partition("/")[2] if prefix.startswith("~") else prefix
        return "/" in path and kind_of(prefix) in self.labels

    def union(self, other: Part) -> Part:
        """Return what has both. Raises `GraphError` if that is too much."""
        return Part(self.prefixes | other.prefixes, self.labels | other.labels, self.souls | other.souls)

    def encode(self) -> bytes:
        """Return MessagePack `[1, [prefix...], [label...], [soul...]]`, each sorted."""
        return msgpack.packb(  # type: ignore[no-any-return]
            (VERSION, sorted(self.prefixes), sorted(self.labels), sorted(self.souls))
        )

    @classmethod
    def decode(cls, data: bytes) -> Part:
        """Return the part in `data`. Raises `SyncError`."""
        _, *names = unpack_array(data, SyncError, "a part of a graph", (VERSION, list, list, list))
        if not all(_is_name(name) for some in names for name in some):
            raise SyncError("a part of a graph names something that is not a soul")
        try:
            return cls(*names)
        except GraphError as error:
            raise SyncError(f"no part of a graph: {error}") from error


def _is_name(name: Any) -> bool:
    try:
        return type(name) is str and 1 <= len(name.encode()) <= MAX_NAME
    except UnicodeEncodeError:
        return False
