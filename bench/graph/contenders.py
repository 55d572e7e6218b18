"""The contenders in Python: each holds the nodes as its users would, and takes updates as bytes.

A contender is loaded with the initial nodes, writes what the receiver wrote (`put`, one call each), and then merges
what `made` gave. Imports are inside: each is measured in a process of its own.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgpack

from bench.graph.work import Work

Rows = Sequence[tuple[str, str, Any]]


class Contender(ABC):
    """One replica. `made` is called on another one of the same kind, with the same initial nodes."""

    name: str

    @abstractmethod
    def __init__(self, number: int) -> None:
        """An empty one. `number` is its own among those of a run."""

    @abstractmethod
    def load_initial(self, work: Work) -> None:
        """Hold the initial nodes. All replicas do so by the same means, so that they have them in common."""

    @abstractmethod
    def put(self, rows: Rows) -> None:
        """Local writes, one call each."""

    def put_batch(self, rows: Rows) -> None:
        """Local writes, all at once, where the library has a way."""
        self.put(rows)

    @abstractmethod
    def made(self, rows: Rows, size: int) -> list[bytes]:
        """Messages of `size` updates each."""

    @abstractmethod
    def merge(self, messages: list[bytes]) -> None:
        """Take the messages, one call each."""

    @abstractmethod
    def get(self, soul: str, key: str) -> Any:
        """A property."""

    def save(self) -> bytes:
        """The state as bytes."""
        raise NotImplementedError

    def load(self, state: bytes) -> None:
        """The state from bytes, into a new replica."""
        raise NotImplementedError


class Ours(Contender):
    """`dtp.crdt.Replica`: frames without signatures."""

    name = "dtp"

    def __init__(self, number: int) -> None:
        from dtp.crdt import Replica

        self._author = bytes((number + 1,)) * 32
        self.replica = Replica(self._author)

    def load_initial(self, work: Work) -> None:
        from dtp.crdt import Clock, Replica

        seed = Replica(bytes(32), clock=Clock(lambda: 1_000_000.0))
        seed.put_many(
            (soul, key, value) for soul, node in work.initial.items() for key, value in node.items()
        )
        for frame in seed.commit():
            self.replica.merge(frame.author, frame.body)
        self.replica.core.release_memory()

    def put(self, rows: Rows) -> None:
        put = self.replica.put
        for soul, key, value in rows:
            put(soul, key, value)
        self.replica.commit()

    def put_batch(self, rows: Rows) -> None:
        self.replica.put_many(rows)
        self.replica.commit()

    def made(self, rows: Rows, size: int) -> list[bytes]:
        frames = []
        for at in range(0, len(rows), size):
            self.replica.put_many(rows[at : at + size])
            frames += [frame.body for frame in self.replica.commit()]
        return frames

    def merge(self, messages: list[bytes]) -> None:
        author, merge = b"\x02" * 32, self.replica.merge
        for message in messages:
            merge(author, message)

    def get(self, soul: str, key: str) -> Any:
        return self.replica.get(soul, key)

    def save(self) -> bytes:
        return self.replica.save()

    def load(self, state: bytes) -> None:
        from dtp.crdt import Replica

        self.replica = Replica.load(self._author, state)


class Plain(Contender):
    """A dict of (soul, key) -> (clock, author, value), and MessagePack: no types, no checks, no sync."""

    name = "dict + msgpack"

    def __init__(self, number: int) -> None:
        self._author = number
        self._clock = 1 << 40
        self._all: dict[tuple[str, str], tuple[int, int, Any]] = {}

    def load_initial(self, work: Work) -> None:
        for number, (soul, node) in enumerate(work.initial.items()):
            for key, value in node.items():
                self._all[soul, key] = (number, 0, value)

    def put(self, rows: Rows) -> None:
        for soul, key, value in rows:
            self._clock += 1
            self._all[soul, key] = (self._clock, self._author, value)

    def made(self, rows: Rows, size: int) -> list[bytes]:
        clock, messages = 1 << 30, []
        for at in range(0, len(rows), size):
            ops = []
            for soul, key, value in rows[at : at + size]:
                clock += 1
                ops.append((soul, key, clock, self._author, value))
            messages.append(msgpack.packb(ops))
        return messages

    def merge(self, messages: list[bytes]) -> None:
        everything, unpack = self._all, msgpack.unpackb
        for message in messages:
            for soul, key, clock, author, value in unpack(message):
                there = everything.get((soul, key))
                if there is None or (clock, author) > there[:2]:
                    everything[soul, key] = (clock, author, value)

    def get(self, soul: str, key: str) -> Any:
        return self._all[soul, key][2]

    def save(self) -> bytes:
        return msgpack.packb([(*names, *rest) for names, rest in self._all.items()])  # type: ignore[no-any-return]

    def load(self, state: bytes) -> None:
        self._all = {(soul, key): (c, a, v) for soul, key, c, a, v in msgpack.unpackb(state)}


class Pycrdt(Contender):
    """pycrdt (Yrs): a map of maps."""

    name = "pycrdt"

    def __init__(self, number: int) -> None:
        from pycrdt import Doc, Map

        self._doc = Doc(client_id=number + 1)
        self._nodes = self._doc.get("nodes", type=Map)

    def load_initial(self, work: Work) -> None:
        from pycrdt import Doc, Map

        seed = Doc(client_id=1000)
        nodes = seed.get("nodes", type=Map)
        with seed.transaction():
            for soul, node in work.initial.items():
                nodes[soul] = Map(node)
        self._doc.apply_update(seed.get_update())

    def put(self, rows: Rows) -> None:
        for soul, key, value in rows:
            self._nodes[soul][key] = value

    def put_batch(self, rows: Rows) -> None:
        with self._doc.transaction():
            self.put(rows)

    def made(self, rows: Rows, size: int) -> list[bytes]:
        messages: list[bytes] = []
        watch = self._doc.observe(lambda event: messages.append(event.update))
        for at in range(0, len(rows), size):
            with self._doc.transaction():
                self.put(rows[at : at + size])
        self._doc.unobserve(watch)
        return messages

    def merge(self, messages: list[bytes]) -> None:
        apply = self._doc.apply_update
        for message in messages:
            apply(message)

    def get(self, soul: str, key: str) -> Any:
        return self._nodes[soul][key]

    def save(self) -> bytes:
        return self._doc.get_update()  # type: ignore[no-any-return]

    def load(self, state: bytes) -> None:
        self._doc.apply_update(state)


class Loro(Contender):
    """Loro: a map of maps."""

    name = "loro"

    def __init__(self, number: int) -> None:
        from loro import LoroDoc

        self._doc = LoroDoc()
        self._doc.peer_id = number + 1
        self._nodes = self._doc.get_map("nodes")

    def load_initial(self, work: Work) -> None:
        from loro import ExportMode, LoroDoc, LoroMap

        seed = LoroDoc()
        seed.peer_id = 1000
        nodes = seed.get_map("nodes")
        for soul, node in work.initial.items():
            inner = nodes.insert_container(soul, LoroMap())
            for key, value in node.items():
                inner.insert(key, value)
        seed.commit()
        self._doc.import_(seed.export(ExportMode.Snapshot()))

    def put(self, rows: Rows) -> None:
        for soul, key, value in rows:
            self._nodes.get(soul).container.insert(key, value)
        self._doc.commit()

    def made(self, rows: Rows, size: int) -> list[bytes]:
        from loro import ExportMode

        messages = []
        for at in range(0, len(rows), size):
            before = self._doc.oplog_vv
            self.put(rows[at : at + size])
            messages.append(self._doc.export(ExportMode.Updates(before)))
        return messages

    def merge(self, messages: list[bytes]) -> None:
        take = self._doc.import_
        for message in messages:
            take(message)

    def get(self, soul: str, key: str) -> Any:
        return self._nodes.get_deep_value()[soul][key]

    def save(self) -> bytes:
        from loro import ExportMode

        return self._doc.export(ExportMode.Snapshot())  # type: ignore[no-any-return]

    def load(self, state: bytes) -> None:
        self._doc.import_(state)


CONTENDERS: dict[str, type[Contender]] = {one.name: one for one in (Ours, Plain, Pycrdt, Loro)}


def timed(function: Any, *arguments: Any) -> float:
    """Seconds of processor time that the call takes."""
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start
