"""Frames opened up: each op as a value, for histories, rules and people."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from dtp.core import crdt as core
from dtp.core.crdt import GraphCore
from dtp.crdt import values
from dtp.crdt.values import Value


class Kind(IntEnum):
    """What an op does; docs/graph.md, "Spaces and ops"."""

    REGISTER_PUT = 0
    COUNTER_TOTAL = core.COUNTER_TOTAL
    SET_ADD = core.SET_ADD
    SET_REMOVE = core.SET_REMOVE
    VALUES_PUT = core.VALUES_PUT
    VALUES_REMOVE = core.VALUES_REMOVE
    LIST_INSERT = core.LIST_INSERT
    LIST_MOVE = core.LIST_MOVE
    LIST_ASSIGN = core.LIST_ASSIGN
    LIST_REMOVE = core.LIST_REMOVE
    TEXT_EDIT = core.TEXT_EDIT


#: Kind -> the space it is about, as `Change.space` names it.
SPACE_OF = {kind: kind.name.partition("_")[0].lower() for kind in Kind}


class Op(NamedTuple):
    """One op: by whom and when, on what, and what of it."""

    kind: Kind
    soul: str
    key: str
    author: bytes
    clock: int
    #: The dots (author, clock) of what it removes, or of the item it is about.
    dots: tuple[tuple[bytes, int], ...]
    position: bytes | None
    #: None when it has none, and also for the value None: see `has_value`.
    value: Value
    #: False for what has no value: removals, moves, and a register's deletion.
    has_value: bool

    @property
    def space(self) -> str:
        """What it is about, as `Change.space` names it."""
        return SPACE_OF[self.kind]


def ops_of(handle: GraphCore, author: bytes, body: bytes) -> list[Op]:
    """The ops of a frame of `author`, in order. Nothing is merged. Raises `EncodingError`."""
    found = []
    for kind, soul, key, clock, dots, position, value in values.decode(handle.ops(body)):
        known = tuple((author if by is None else by, at) for by, at in dots)
        has_value = bool(value)
        found.append(
            Op(
                Kind(kind),
                soul,
                key,
                author,
                clock,
                known,
                position,
                value[0] if has_value else None,
                has_value,
            )
        )
    return found
