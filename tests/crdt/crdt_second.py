"""A second implementation of docs/graph.md: frames read, merged and read out in plain Python, from the specification.

It shares no code with the package, but for the spelling of identities. Slow and simple: state is a dict from what
an op is about to the op that stands.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import msgpack
from reference import list_reference

from dtp.identity import bech32

PUT, TOTAL, ADD, SET_REMOVE, VALUES_PUT, VALUES_REMOVE = range(6)
#: Of lists as they were: read, without effect.
INSERT, MOVE, ASSIGN, LIST_REMOVE = range(6, 10)
TEXT_EDIT, LIST_EDIT = 10, 11
WITH_DOTS = {ADD, SET_REMOVE, VALUES_PUT, VALUES_REMOVE, LIST_REMOVE}
WITH_VALUE = {PUT, TOTAL, ADD, VALUES_PUT, INSERT, ASSIGN, TEXT_EDIT, LIST_EDIT}
SPACE = {PUT: 0, TOTAL: 1, ADD: 2, SET_REMOVE: 2, VALUES_PUT: 3, VALUES_REMOVE: 3, LIST_EDIT: 4, TEXT_EDIT: 5}


@dataclass
class Op:
    kind: int = PUT
    soul: str = ""
    key: str = ""
    author: bytes = b""
    clock: int = 0
    value: bytes | None = None
    dots: list[tuple[bytes, int]] = field(default_factory=list)
    position: bytes = b""

    @property
    def place(self) -> tuple[str, str, int]:
        return self.soul, self.key, SPACE.get(self.kind, 4)


class Reader(io.BytesIO):
    def byte(self) -> int:
        return self.read(1)[0]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def text(self, before: bytes) -> bytes:
        head = self.byte()
        shared, more = head >> 4, head & 15
        if shared == 15:
            shared += self.varint()
        if more == 15:
            more += self.varint()
        return before[:shared] + self.read(more)

    def names(self, count: int) -> list[str]:
        known: list[bytes] = []
        found: list[bytes] = []
        for _ in range(count):
            token = self.varint()
            if token == 1:
                known.append(self.text(known[-1] if known else b""))
                found.append(known[-1])
            else:
                found.append(found[-1] if token == 0 else known[token - 2])
        return [name.decode() for name in found]

    def value(self) -> bytes | None:
        start = self.tell()
        if self.byte() == 0xC1:
            return None
        self.seek(start)
        unpacker = msgpack.Unpacker(self, read_size=1)
        unpacker.skip()
        size = unpacker.tell()
        self.seek(start)
        return self.read(size)


def decode(author: bytes, body: bytes) -> tuple[int, int, list[Op]]:
    """A frame: the clocks it covers (after, up to) and its ops."""
    r = Reader(body)
    head = r.byte()
    assert head >> 4 == 1
    assert not head & 0b1100
    before = int.from_bytes(r.read(8), "little")
    ops = [Op(author=author) for _ in range(r.varint())]
    authors = [author]
    if head & 2:
        authors += [r.read(32) for _ in range(r.varint())]
    if head & 1:
        kinds: list[int] = []
        while len(kinds) < len(ops):
            kind = r.byte()
            kinds += [kind] * r.varint()
        for op, kind in zip(ops, kinds, strict=True):
            op.kind = kind
    for op, soul in zip(ops, r.names(len(ops)), strict=True):
        op.soul = soul
    for op, key in zip(ops, r.names(len(ops)), strict=True):
        op.key = key
    clocks: list[int] = []
    clock = before
    while len(clocks) < len(ops):
        token = r.varint()
        step = token >> 2
        if token & 3 == 0:
            clocks += range(clock + 1, clock + 1 + step)
            clock += step
            continue
        clock = ((clock >> 16) + step) << 16 if token & 3 == 1 else clock + step
        clocks.append(clock)
    for op, clock in zip(ops, clocks, strict=True):
        op.clock = clock
    if head & 1:
        for op in ops:
            if op.kind in WITH_DOTS or op.kind in (MOVE, ASSIGN):
                for _ in range(r.varint() if op.kind in WITH_DOTS else 1):
                    op.dots.append((authors[r.varint()], op.clock - r.varint()))
        position = b""
        for op in ops:
            if op.kind in (INSERT, MOVE):
                op.position = position = r.text(position)
    for op in ops:
        if op.kind in WITH_VALUE:
            op.value = r.value()
    assert not r.read()
    return before, clock, ops


class Model:
    """All ops that arrived; what is there is worked out anew from them as a set, so order can't matter."""

    def __init__(self) -> None:
        self.ops: dict[tuple[bytes, int], Op] = {}

    def merge(self, author: bytes, body: bytes) -> None:
        own = "~" + bech32.encode(
            "dtp", author
        )  # which has its own tests, by the vectors of its specification
        for op in decode(author, body)[2]:
            if not op.soul.startswith("~") or op.soul == own or op.soul.startswith(own + "/"):
                self.ops[author, op.clock] = op

    def read(self) -> dict[tuple[str, str, int], Any]:
        """(soul, key, space) -> what is there, without what is empty."""
        removed = {(op.place, dot) for op in self.ops.values() for dot in op.dots}
        found: dict[tuple[str, str, int], Any] = {}
        ordered = sorted(self.ops.values(), key=lambda op: (op.clock, op.author, op.value or b""))
        for op in ordered:
            dot = op.author, op.clock
            if op.kind == PUT:
                found[op.place] = op.value
            elif op.kind == TOTAL:
                found.setdefault(op.place, {})[op.author] = msgpack.unpackb(op.value)
            elif op.kind in (ADD, VALUES_PUT) and (op.place, dot) not in removed:
                found.setdefault(op.place, {})[dot] = op.value
            elif op.kind == LIST_EDIT:
                found.setdefault(op.place, []).append(msgpack.unpackb(op.value))
        told = {place: shown(place[2], value) for place, value in found.items() if value}
        return {place: value for place, value in told.items() if value not in ([], 0)}


def shown(space: int, value: Any) -> Any:
    if space == 1:
        return sum(value.values())
    if space == 4:
        return list_reference.shown(list_reference.merge(value))
    return value
