"""A second implementation of a text's marks, from docs/text.md: the order is `text_reference`'s; what holds over a
character is worked out from all marks for each character anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from reference.text_reference import (
    MARK,
    Delete,
    Id,
    Insert,
    Model,
    Operation,
    Reader,
    anchors,
    apply_known,
    decode,
    put,
    references,
)

NIL = b"\xc0"
START_AFTER, END_AFTER, FROM_BEGINNING, TO_END = 1, 2, 4, 8


@dataclass(frozen=True)
class Mark:
    """What one says: from one place to another, with a name and a value in MessagePack."""

    stamp: int
    sides: int
    start: Id | None
    end: Id | None
    name: bytes
    value: bytes


def read_mark(char: str) -> Mark:
    """A mark of its character."""
    reader = Reader(char[1:].encode("latin-1"))
    stamp, sides = reader.number(), reader.byte()
    start, end = anchors(char)
    reader = Reader(char[1:].encode("latin-1"))
    reader.number(), reader.byte()
    for at in (start, end):
        if at is not None:
            reader.take(reader.number()), reader.number()
    name = reader.take(reader.number())
    return Mark(stamp, sides, start, end, name, reader.data[reader.at :])


def mark_char(mark: Mark) -> str:
    """The character of a mark."""
    out = put(mark.stamp) + bytes([mark.sides])
    for at in (mark.start, mark.end):
        out += b"" if at is None else put(len(at[0])) + at[0] + put(at[1])
    out += put(len(mark.name)) + mark.name + mark.value
    return MARK + out.decode("latin-1")


def marking(
    model: Model, agent: bytes, start: int, stop: int, name: bytes, value: bytes, *, before: bool, after: bool
) -> Insert:
    """What `agent` does to mark visible characters [start, stop): what grows at which side."""
    shown = [node.id for node in model.visible()]
    sides = (START_AFTER if before else 0) | (0 if after else END_AFTER)
    first: Id | None = shown[start]
    if before:
        first = shown[start - 1] if start else None
        sides |= 0 if start else FROM_BEGINNING
    last: Id | None = shown[stop - 1]
    if after:
        last = shown[stop] if stop < len(shown) else None
        sides |= 0 if stop < len(shown) else TO_END
    known = [(read_mark(node.char).stamp, node.id[0]) for node in model.walk() if is_mark(node.char)]
    newest = max(known, default=(0, b""))
    stamp = newest[0] + (newest[1] != agent)
    char = mark_char(Mark(stamp, sides, first, last, name, value))
    return replace(model.insertion(agent, 0, char), marker=True)


def is_mark(char: str) -> bool:
    """Whether a character is a mark."""
    return char.startswith(MARK)


def causes(operation: Operation) -> list[Id]:
    """What must be there first."""
    found = references(operation)
    if isinstance(operation, Insert) and is_mark(operation.char):
        found += [at for at in anchors(operation.char) if at is not None]
    return found


def merge(messages: Iterable[bytes]) -> Model:
    """A model with all operations of messages, in whatever order they are given, as far as their causes are there."""
    known: dict[bytes, dict[int, Operation]] = {}
    for message in messages:
        for author, operation in decode(message)[1]:
            before = known.setdefault(author, {}).get(operation.number)
            if before is None or (isinstance(operation, Insert) and operation.char):
                known[author][operation.number] = operation
    return apply_known(known, causes)


def shown(model: Model) -> list[tuple[str, dict[bytes, bytes]]]:
    """Each visible character with what marks it."""
    order = {node.id: 3 * i for i, node in enumerate(model.walk())}
    end = 3 * len(order)
    ranges = []
    for node in model.walk():
        if node.dead or not is_mark(node.char):
            continue
        mark = read_mark(node.char)
        first = -2 if mark.start is None else order[mark.start] + (1 if mark.sides & START_AFTER else -1)
        last = end if mark.end is None else order[mark.end] + (1 if mark.sides & END_AFTER else -1)
        ranges.append((mark.stamp, node.id, first, last, mark))
    found = []
    for node in model.visible():
        attributes: dict[bytes, bytes] = {}
        for _, _, first, last, mark in sorted(ranges, key=lambda one: one[:2]):
            if first < order[node.id] < last:
                attributes[mark.name] = mark.value
        found.append((node.char, {name: value for name, value in attributes.items() if value != NIL}))
    return found


__all__ = ["Delete", "Mark", "causes", "mark_char", "marking", "merge", "read_mark", "shown"]
