"""Frames opened up: each op as a value, for histories, rules and people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from typing import Any, NamedTuple

from dtp.core import crdt as core
from dtp.core.crdt import GraphCore
from dtp.core.list import facts
from dtp.crdt import values
from dtp.crdt.values import Value, iter_packed, read_value


class Kind(IntEnum):
    """What an op does; docs/graph.md, "Spaces and ops"."""

    REGISTER_PUT = 0
    COUNTER_TOTAL = core.COUNTER_TOTAL
    SET_ADD = core.SET_ADD
    SET_REMOVE = core.SET_REMOVE
    VALUES_PUT = core.VALUES_PUT
    VALUES_REMOVE = core.VALUES_REMOVE
    #: The four of lists before format 4, which do nothing any more.
    OLD_LIST_INSERT = core.OLD_LIST_INSERT
    OLD_LIST_MOVE = core.OLD_LIST_MOVE
    OLD_LIST_ASSIGN = core.OLD_LIST_ASSIGN
    OLD_LIST_REMOVE = core.OLD_LIST_REMOVE
    TEXT_EDIT = core.TEXT_EDIT
    LIST_EDIT = core.LIST_EDIT


#: Kind -> the space it is about, as `Change.space` names it.
SPACE_OF = {kind: kind.name.removeprefix("OLD_").partition("_")[0].lower() for kind in Kind}


class Frame(NamedTuple):
    """Ops of one author, in its order: the clocks after `after` up to `last`. `body` is what docs/graph.md calls a
    frame; the author (32 bytes) travels beside it."""

    author: bytes
    body: bytes
    after: int
    last: int


class Op(NamedTuple):
    """One op: by whom and when, on what, and what of it."""

    kind: Kind
    soul: str
    key: str
    author: bytes
    clock: int
    #: The dots (author, clock) of what it removes. Of an edit of a list: whose elements it moves, assigns or removes,
    #: with clocks of 0.
    dots: tuple[tuple[bytes, int], ...]
    #: Of ops on old lists.
    position: bytes | None
    #: None when it has none, and also for the value None: see `has_value`. Of an edit of a list: the values that it
    #: writes, as a list.
    value: Value
    #: False for what has no value: removals, moves, and a register's deletion.
    has_value: bool
    #: Of an edit of a list: the edit itself.
    edit: bytes = b""

    @property
    def space(self) -> str:
        """What it is about, as `Change.space` names it."""
        return SPACE_OF[self.kind]


def ops_of(handle: GraphCore, author: bytes, body: bytes) -> list[Op]:
    """Return the ops of a frame of `author`, in order. Nothing is merged. Raises `EncodingError`."""
    return list(_ops(author, values.decode(handle.decode_ops(body))))


def read_packed(author: bytes, packed: bytes) -> Iterator[Op]:
    """Yield the ops of the rows that stand one behind the other here, each as `GraphCore.decode_ops` has it. Long
    lists and maps stay packed in them (`read_value`)."""
    return _ops(author, map(read_value, iter_packed(packed)), read_value)


def _ops(
    author: bytes, rows: Iterable[Iterable[Any]], decode: Callable[[bytes], Value] = values.decode
) -> Iterator[Op]:
    for kind, soul, key, clock, dots, position, value in rows:
        known = tuple((author if by is None else by, at) for by, at in dots)
        has_value = bool(value)
        op = Op(Kind(kind), soul, key, author, clock, known, position, next(iter(value), None), has_value)
        yield of_list(op, decode) if op.kind is Kind.LIST_EDIT else op


def of_list(op: Op, decode: Callable[[bytes], Value] = values.decode) -> Op:
    """Return an edit of a list, whose value is bytes, with what it writes and whose elements it touches."""
    written, agents = facts(op.value)
    return op._replace(value=list(map(decode, written)), dots=dots_of(agents), edit=op.value)


def dots_of(agents: Iterable[bytes]) -> tuple[tuple[bytes, int], ...]:
    """Return dots in place of those of elements: whose they are."""
    return tuple((author, 0) for author in sorted({agent[: core.AUTHOR_SIZE] for agent in agents}))
