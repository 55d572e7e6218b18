"""A second implementation of the text, from docs/text.md: the tree character by character, and a reader and writer of
messages. Slow and plain; it shares no code with the one in C."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Id: TypeAlias = tuple[bytes, int]
LEFT, RIGHT = "left", "right"
#: What a mark begins with among the characters: no text has it. Its content follows, a character for each byte.
MARK = "\udcff"


@dataclass
class Node:
    """A character: its side of its parent (None: the beginning) and its right origin (None: the end)."""

    id: Id
    side: str
    parent: Id | None
    origin: Id | None
    char: str
    dead: bool = False
    lefts: list[Node] = field(default_factory=list)
    rights: list[Node] = field(default_factory=list)


@dataclass(frozen=True)
class Insert:
    """A character comes: number, side, parent, right origin."""

    number: int
    side: str
    parent: Id | None
    origin: Id | None
    char: str
    #: Whether it says something of others instead of being shown.
    marker: bool = False


@dataclass(frozen=True)
class Delete:
    """A character goes."""

    number: int
    target: Id


Operation: TypeAlias = Insert | Delete


class Model:
    """All characters as the tree that the order is defined by."""

    def __init__(self) -> None:
        self.root = Node((b"", -1), RIGHT, None, None, "", dead=True)
        self.nodes: dict[Id, Node] = {}
        self.next: dict[bytes, int] = {}
        self.log: list[tuple[bytes, Operation]] = []

    def walk(self) -> list[Node]:
        """In order, deleted ones too."""
        out: list[Node] = []
        stack: list[tuple[Node, bool]] = [(self.root, False)]
        while stack:
            node, seen = stack.pop()
            if seen:
                if node is not self.root:
                    out.append(node)
                continue
            stack.extend((child, False) for child in reversed(node.rights))
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(node.lefts))
        return out

    def visible(self) -> list[Node]:
        """The characters that are shown."""
        return [node for node in self.walk() if not node.dead and not node.char.startswith(MARK)]

    def text(self) -> str:
        return "".join(node.char for node in self.visible())

    def apply(self, agent: bytes, operation: Operation) -> None:
        """An operation whose causes are here."""
        assert operation.number == self.next.get(agent, 0)
        self.next[agent] = operation.number + 1
        self.log.append((agent, operation))
        if isinstance(operation, Delete):
            self.nodes[operation.target].dead = True
            return
        order = {node.id: i for i, node in enumerate(self.walk())}
        node = Node(
            (agent, operation.number), operation.side, operation.parent, operation.origin, operation.char
        )
        parent = self.root if operation.parent is None else self.nodes[operation.parent]
        node.dead = not operation.char  # sent without its text: it is deleted further on
        self.nodes[node.id] = node
        if operation.side == LEFT:
            parent.lefts.append(node)
            parent.lefts.sort(key=lambda n: n.id)
        else:
            parent.rights.append(node)
            parent.rights.sort(key=lambda n: (-order[n.origin] if n.origin else -len(order), n.id))

    def insertion(self, agent: bytes, position: int, char: str) -> Insert:
        """What `agent` does to insert at a visible position."""
        everything = self.walk()
        shown = {node.id for node in self.visible()}
        visible = [i for i, node in enumerate(everything) if node.id in shown]
        at = visible[position - 1] if position else -1
        left = everything[at] if position else self.root
        after = everything[at + 1].id if at + 1 < len(everything) else None
        number = self.next.get(agent, 0)
        if left.rights:
            assert after is not None
            return Insert(number, LEFT, after, after, char)
        return Insert(number, RIGHT, left.id if position else None, after, char)

    def deletion(self, agent: bytes, position: int) -> Delete:
        """What `agent` does to delete the character at a visible position."""
        return Delete(self.next.get(agent, 0), self.visible()[position].id)


# ---- messages --------------------------------------------------------------------------------------------------


class Malformed(Exception):
    """Bytes that are no message."""


class Reader:
    """Bytes from the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise Malformed("cut off")
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                if shift > 7 and byte == 0:
                    raise Malformed("not the shortest form")
                return value

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise Malformed("cut off")
        self.at += size
        return self.data[self.at - size : self.at]


@dataclass
class Base:
    """What a state begins with: all characters in order, each with author, number and whether it is deleted."""

    numbers: dict[bytes, int]
    characters: list[tuple[Id, str, bool]]


def decode(data: bytes) -> tuple[Base | None, list[tuple[bytes, Operation]]]:
    """One message: its base, if it is a state, and its operations, one per character. `char` is "" if deleted."""
    reader = Reader(data)
    kind = reader.byte()
    if kind not in (0xD1, 0xD2, 0xD3, 0xD4):
        raise Malformed("neither changes nor a state")
    is_list, kind = kind > 0xD2, 0xD2 if kind in (0xD2, 0xD4) else 0xD1
    names = [reader.take(reader.number()) for _ in range(reader.number())]
    bases = [reader.number() for _ in names] if kind == 0xD2 else []
    spans = _spans(reader, names) if kind == 0xD2 else []
    runs: list[tuple[bytes, int, int, int, Id | None, Id | None]] = []
    while author := reader.number():
        runs.extend(_group(reader, names, names[author - 1]))
    raw = reader.take(reader.number())
    text = iter(_cells(raw) if is_list else _characters(raw))
    if reader.at != len(data):
        raise Malformed("something behind the text")
    if kind == 0xD2 and any(head & 3 == 1 for _, _, head, *_ in runs):
        raise Malformed("a state tells with the spans who is deleted")
    characters = [(at, "" if dead else next(text), dead) for at, dead in spans]
    told = {at: char for at, char, _ in characters} if kind == 0xD2 else None
    operations = [operation for run in runs for operation in _expand(*run, text, told)]
    if next(text, None) is not None:
        raise Malformed("more text than operations")
    base = Base(dict(zip(names, bases, strict=True)), characters) if kind == 0xD2 else None
    return base, operations


def _spans(reader: Reader, names: list[bytes]) -> list[tuple[Id, bool]]:
    characters: list[tuple[Id, bool]] = []
    agent, end = b"", 0
    for _ in range(reader.number()):
        head = reader.byte()
        length = 1 if head & 128 else reader.number()
        form = head >> 3 & 15
        if form == 1:
            jump = reader.number()
            end += jump >> 1 if jump % 2 == 0 else -(jump >> 1) - 1
        elif form == 2:
            agent, end = names[reader.number()], reader.number()
        elif form:
            raise Malformed("no such reference")
        characters += [((agent, end + i), bool(head & 1)) for i in range(length)]
        end += length
    return characters


def _cells(raw: bytes) -> list[str]:
    """The elements of a list, each with its length in front, as characters."""
    reader, found = Reader(raw), []
    while reader.at < len(raw):
        start = reader.at
        reader.take(reader.number())
        found.append(raw[start : reader.at].decode("latin-1"))
    return found


def _characters(raw: bytes) -> list[str]:
    """The characters of a text, and marks between them, as characters of their own."""
    found, at = [], 0
    while (mark := raw.find(b"\xff", at)) >= 0:
        found += raw[at:mark].decode()
        reader = Reader(raw)
        reader.at = mark + 1
        found.append(MARK + reader.take(reader.number()).decode("latin-1"))
        at = reader.at
    return found + list(raw[at:].decode())


def unit(char: str) -> bytes:
    """The bytes of a character, or of a mark."""
    if not char.startswith(MARK):
        return char.encode()
    content = char[1:].encode("latin-1")
    return b"\xff" + put(len(content)) + content


def anchors(char: str) -> list[Id | None]:
    """Where a mark starts and ends: the characters that it is tied to."""
    reader = Reader(char[1:].encode("latin-1"))
    reader.number()
    sides = reader.byte()
    return [None if sides & none else (reader.take(reader.number()), reader.number()) for none in (4, 8)]


def _group(
    reader: Reader, names: list[bytes], author: bytes
) -> list[tuple[bytes, int, int, int, Id | None, Id | None]]:
    number, right = reader.number(), None
    runs: list[tuple[bytes, int, int, int, Id | None, Id | None]] = []

    def reference(form: int) -> Id | None:
        if form == 0:
            return author, number - 1
        if form == 1:
            return author, number - reader.number()
        if form == 2:
            return names[reader.number()], reader.number()
        return None

    while (head := reader.byte()) != 3:
        marker = 8 if head == 7 else 0
        if marker:
            head = reader.byte()
        length = 1 if head & 128 else reader.number()
        first = reference(head >> 3 & 3)
        if head & 3 < 2:
            form = head >> 5 & 3
            if head & 4:
                right = first
            elif form != 3:
                right = reference(form) if form else None
        runs.append((author, number, head & 7 | marker, length, first, right))
        number += length
    return runs


def _expand(
    author: bytes,
    number: int,
    kind: int,
    length: int,
    first: Id | None,
    right: Id | None,
    text: Iterator[str],
    told: dict[Id, str] | None,
) -> Iterator[tuple[bytes, Operation]]:
    for i in range(length):
        if kind & 3 == 2:
            assert first is not None
            yield author, Delete(number + i, (first[0], first[1] - i if kind & 4 else first[1] + i))
            continue
        char = "" if kind & 3 else next(text, None) if told is None else told.get((author, number + i))
        if char is None:
            raise Malformed("less text than operations")
        parent = (author, number + i - 1) if i else first
        side = LEFT if kind & 4 and not i else RIGHT
        yield author, Insert(number + i, side, parent, right, char, marker=bool(kind & 8))


def put(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def encode(
    operations: Sequence[tuple[bytes, Operation]], *, is_list: bool = False, markers: Container[int] = ()
) -> bytes:
    """A message with these operations, each in a group of its own, all references spelled out.

    Of a list, `markers` are the places of operations that are said to insert one.
    """
    names = sorted(
        {name for agent, op in operations for name in (agent, *(ref[0] for ref in references(op)))}
    )
    head = b"".join(put(len(name)) + name for name in names)
    body = b""
    text: list[str] = []

    def spell(at: Id) -> bytes:
        return put(names.index(at[0])) + put(at[1])

    for at, (agent, op) in enumerate(operations):
        body += put(names.index(agent) + 1) + put(op.number)
        if at in markers or (isinstance(op, Insert) and op.marker):
            body += b"\x07"
        if isinstance(op, Delete):
            body += bytes([2 | 2 << 3 | 128]) + spell(op.target) + b"\x03"
            continue
        text.append(op.char)
        flags = 128 | (0 if op.char else 1) | (2 if op.parent else 3) << 3
        if op.side == LEFT:
            flags |= 4
        elif op.origin:
            flags |= 2 << 5
        body += bytes([flags]) + (spell(op.parent) if op.parent else b"")
        body += (spell(op.origin) if op.side == RIGHT and op.origin else b"") + b"\x03"
    raw = "".join(text).encode("latin-1") if is_list else b"".join(map(unit, text))
    kind = b"\xd3" if is_list else b"\xd1"
    return kind + put(len(names)) + head + body + b"\0" + put(len(raw)) + raw


def references(operation: Operation) -> list[Id]:
    """The characters that must be there first."""
    if isinstance(operation, Delete):
        return [operation.target]
    return [at for at in (operation.parent, operation.origin) if at is not None]


def apply_known(
    known: Mapping[bytes, Mapping[int, Operation]], causes: Callable[[Operation], list[Id]]
) -> Model:
    """Return a model with each author's operations by their numbers, as far as what they are caused by is there."""
    model, progress = Model(), True
    while progress:
        progress = False
        for author, operations in known.items():
            while (operation := operations.get(model.next.get(author, 0))) is not None:
                if any(number >= model.next.get(agent, 0) for agent, number in causes(operation)):
                    break
                model.apply(author, operation)
                progress = True
    return model


# ---- the one way to write it: docs/text.md, "Which bytes" ----------------------------------------------------------


@dataclass
class Run:
    """Operations of one author that continue each other."""

    first: Operation
    length: int
    #: Of a deletion of several: +1 upwards, -1 downwards.
    step: int = 1


def runs_of(operations: list[Operation], author: bytes) -> list[Run]:
    """Cut one author's operations into runs."""
    runs: list[Run] = []
    for op in operations:
        last = runs[-1] if runs else None
        if last and isinstance(op, Insert) and isinstance(last.first, Insert):
            origin = last.first.origin
            goes_on = op.side == RIGHT and op.parent == (author, op.number - 1) and op.origin == origin
            if goes_on and not op.marker and not last.first.marker:
                last.length += 1
                continue
        elif last and isinstance(op, Delete) and isinstance(last.first, Delete):
            agent, number = last.first.target
            steps = [1, -1] if last.length == 1 else [last.step]
            step = next((s for s in steps if op.target == (agent, number + s * last.length)), 0)
            if step:
                last.step = step
                last.length += 1
                continue
        runs.append(Run(op, 1))
    return runs


class Writer:
    """One message of changes."""

    def __init__(self, operations: dict[bytes, list[Operation]], version: dict[bytes, int]) -> None:
        self.operations = operations
        self.dead = {op.target for ops in operations.values() for op in ops if isinstance(op, Delete)}
        self.runs = {author: runs_of(ops, author) for author, ops in operations.items()}
        self.done = {author: version.get(author, 0) for author in operations}
        self.names: list[bytes] = []
        self.body = bytearray()
        self.text = bytearray()

    def message(self) -> bytes:
        """All that the version lacks."""
        for author in sorted(self.operations):
            while self.done[author] < len(self.operations[author]):
                current: bytes | None = author
                while current is not None:
                    current = self.stretch(current)
        raw = bytes(self.text)
        table = b"".join(put(len(name)) + name for name in self.names)
        head = b"\xd1" + put(len(self.names)) + table
        return head + bytes(self.body) + b"\0" + put(len(raw)) + raw

    def index(self, name: bytes) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def stretch(self, author: bytes) -> bytes | None:
        """A group of what an author can write: whom it waits for then, None if it is finished."""
        is_open, blocked = False, None
        self.right: Id | str | None = "no insertion yet"
        for run in self.runs[author]:
            if run.first.number + run.length <= self.done[author]:
                continue
            blocked = self.blocked(author, run)
            if blocked is not None:
                break
            if not is_open:
                self.body += put(self.index(author) + 1) + put(self.done[author])
                is_open = True
            self.run(author, run, self.done[author] - run.first.number)
            self.done[author] = run.first.number + run.length
        if is_open:
            self.body.append(3)
        return blocked

    def blocked(self, author: bytes, run: Run) -> bytes | None:
        needed = references(run.first)
        if isinstance(run.first, Insert) and run.first.marker and (author, run.first.number) not in self.dead:
            needed = [at for at in anchors(run.first.char) if at is not None] + needed
        if isinstance(run.first, Delete):
            agent, number = run.first.target
            needed.append((agent, number + run.step * (run.length - 1)))
        for agent, number in needed:
            if agent != author and number >= self.done[agent]:
                return agent
        return None

    def run(self, author: bytes, run: Run, skip: int) -> None:
        ops = self.operations[author][run.first.number + skip : run.first.number + run.length]
        if isinstance(ops[0], Delete):
            head = 2 | (4 if run.step < 0 and len(ops) > 1 else 0)
            form, numbers = self.reference(author, ops[0].number, ops[0].target)
            self.operation(head | form << 3, len(ops), numbers)
            return
        while ops:
            first = ops[0]
            assert isinstance(first, Insert)
            dead = (author, first.number) in self.dead
            length = next(
                (i for i, op in enumerate(ops) if ((author, op.number) in self.dead) != dead), len(ops)
            )
            head = dead | (4 if first.side == LEFT else 0)
            form, numbers = self.reference(author, first.number, first.parent)
            head |= form << 3
            if first.side == RIGHT:
                if self.right == first.origin:
                    head |= 3 << 5
                elif first.origin is not None:
                    form, more = self.reference(author, first.number, first.origin, right=True)
                    head |= form << 5
                    numbers += more
            self.right = first.origin
            if not dead:
                self.text += b"".join(unit(op.char) for op in ops[:length] if isinstance(op, Insert))
            if first.marker:
                self.body.append(7)
            self.operation(head, length, numbers)
            ops = ops[length:]

    def operation(self, head: int, length: int, numbers: bytes) -> None:
        self.body.append(head | (128 if length == 1 else 0))
        self.body += (b"" if length == 1 else put(length)) + numbers

    def reference(
        self, author: bytes, number: int, at: Id | None, *, right: bool = False
    ) -> tuple[int, bytes]:
        if at is None:
            return 3, b""
        if at == (author, number - 1) and not right:
            return 0, b""
        if at[0] == author:
            return 1, put(number - at[1])
        return 2, put(self.index(at[0])) + put(at[1])


def canonical(log: list[tuple[bytes, Operation]], version: dict[bytes, int]) -> bytes:
    """The message with everything in a log that a version lacks; empty if it lacks nothing."""
    operations: dict[bytes, list[Operation]] = {}
    for author, op in log:
        operations.setdefault(author, []).append(op)
    if all(len(ops) <= version.get(author, 0) for author, ops in operations.items()):
        return b""
    return Writer(operations, version).message()


def encode_version(numbers: dict[bytes, int]) -> bytes:
    """A version's bytes."""
    known = {author: number for author, number in numbers.items() if number}
    return put(len(known)) + b"".join(
        put(len(author)) + author + put(known[author]) for author in sorted(known)
    )
