"""A second implementation of lists, from docs/text.md: the order is `text_reference`'s, with an element's bytes as
its character; what stands where, and what it is, is worked out anew from all operations."""

from __future__ import annotations

from collections.abc import Iterable

from reference.text_reference import (
    Id,
    Insert,
    Model,
    Node,
    Operation,
    Reader,
    apply_known,
    decode,
    put,
    references,
)

MARKER, PLACE, VALUE = 0xC1, 0, 1


def read_cell(char: str) -> tuple[int | None, int, Id, bytes]:
    """Kind (None: a value), stamp, element and value of an element's bytes."""
    reader = Reader(char.encode("latin-1"))
    content = reader.take(reader.number())
    if content[0] != MARKER:
        return None, 0, (b"", 0), content
    reader = Reader(content)
    reader.at = 1
    kind, stamp = reader.byte(), reader.number()
    element = reader.take(reader.number()), reader.number()
    return kind, stamp, element, content[reader.at :]


def value_cell(value: bytes) -> str:
    """A value's bytes in a list."""
    return _sized(value)


def marker_cell(kind: int, stamp: int, element: Id, value: bytes = b"") -> str:
    """A marker's bytes in a list."""
    author, number = element
    return _sized(bytes((MARKER, kind)) + put(stamp) + put(len(author)) + author + put(number) + value)


def _sized(content: bytes) -> str:
    return (put(len(content)) + content).decode("latin-1")


def causes(operation: Operation) -> list[Id]:
    """What must be there first."""
    found = references(operation)
    if isinstance(operation, Insert) and operation.char:
        kind, _, element, _ = read_cell(operation.char)
        if kind is not None:
            found.append(element)
    return found


def merge(messages: Iterable[bytes]) -> Model:
    """A model with all operations of messages, in whatever order they are given, as far as their causes are there."""
    known: dict[bytes, dict[int, Operation]] = {}
    for message in messages:
        for author, operation in decode(message)[1]:
            known.setdefault(author, {})[operation.number] = operation
    return apply_known(known, causes)


def facts(edit: bytes) -> tuple[list[bytes], set[bytes]]:
    """The values that an edit writes, and the authors whose elements or markers it touches."""
    written, touched = [], set()
    for _, operation in decode(edit)[1]:
        if not isinstance(operation, Insert):
            touched.add(operation.target[0])
        elif operation.char:
            kind, _, element, value = read_cell(operation.char)
            touched |= set() if kind is None else {element[0]}
            written += [] if kind == PLACE else [value]
    return written, touched


def shown(model: Model) -> list[bytes]:
    """The list's values, as MessagePack."""
    held = {node.id: node for node in model.walk() if not node.dead}
    latest: dict[tuple[Id, int], tuple[tuple[int, Id], Node]] = {}
    for node in held.values():
        kind, stamp, element, _ = read_cell(node.char)
        if kind is not None:
            latest[element, kind] = max(
                latest.get((element, kind), ((-1, node.id), node)),
                ((stamp, node.id), node),
                key=lambda pair: pair[0],
            )
    found = []
    for node in held.values():
        kind, _, element, _ = read_cell(node.char)
        at = node.id if kind is None else element
        stands = latest[at, PLACE][1] if (at, PLACE) in latest else held.get(at)
        if kind == VALUE or at not in held or stands is not node or read_cell(held[at].char)[0] is not None:
            continue  # a marker about a marker has no effect
        value = latest[at, VALUE][1] if (at, VALUE) in latest else held[at]
        found.append(read_cell(value.char)[3])
    return found
