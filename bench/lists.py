"""`python -m bench.lists`: replicated lists beside pycrdt and Loro (its movable list), by what ages them.

Two replicas append by turns, each message merged by the other, and a third one merges all of it; one inserts at the
front, in one gap, and moves elements about. Every contender runs in a process of its own, in turns, some rounds;
numbers are medians of processor time. Memory is what a process grew by for so many elements, by turns and by one.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import machine

#: Column -> what is promised: (number, at least?).
TARGETS: dict[str, tuple[float, bool] | None] = {
    "by turns K/s": None,
    "merged K/s": (500.0, True),
    "by one K/s": None,
    "front K/s": None,
    "gap K/s": None,
    "moves K/s": None,
    "read M/s": None,
    "load ms": None,
    "saved KB": None,
    "MB by one": (40.0, False),
    "MB by turns": None,
}


class Contender(ABC):
    """A replica of one list."""

    @abstractmethod
    def insert(self, position: int, value: int) -> None:
        """A local insertion."""

    @abstractmethod
    def move(self, old: int, new: int) -> None:
        """A local move."""

    @abstractmethod
    def take(self) -> bytes:
        """What was made here since the last time, as a message."""

    @abstractmethod
    def merge(self, message: bytes) -> None:
        """Take a message."""

    @abstractmethod
    def save(self) -> bytes:
        """Everything."""

    @abstractmethod
    def values(self) -> list[Any]:
        """All values."""


class Ours(Contender):
    """`dtp.crdt.list.List`."""

    def __init__(self, agent: int) -> None:
        from dtp.crdt.list import List

        self.list = List(bytes([65 + agent]) * 40)  # as long as a graph's agents
        self.insert = self.list.insert  # type: ignore[method-assign, assignment]
        self.move = self.list.move  # type: ignore[method-assign]
        self.merge = self.list.merge  # type: ignore[method-assign, assignment]
        self.take = self.list.take_changes  # type: ignore[method-assign]
        self.save = self.list.save  # type: ignore[method-assign]

    def insert(self, position: int, value: int) -> None: ...
    def move(self, old: int, new: int) -> None: ...
    def take(self) -> bytes: ...  # type: ignore[empty-body]
    def merge(self, message: bytes) -> None: ...
    def save(self) -> bytes: ...  # type: ignore[empty-body]

    def values(self) -> list[Any]:
        return list(self.list)


class Pycrdt(Contender):
    """pycrdt, that is Yrs. A move is what its users write: a deletion and an insertion."""

    def __init__(self, agent: int) -> None:
        import pycrdt

        self.list: Any = pycrdt.Array()
        self.doc = pycrdt.Doc({"list": self.list}, client_id=agent + 1)
        self.made: list[bytes] = []
        self.doc.observe(lambda event: self.made.append(event.update))
        self.merge = self.doc.apply_update  # type: ignore[method-assign]

    def insert(self, position: int, value: int) -> None:
        self.list.insert(position, value)

    def move(self, old: int, new: int) -> None:
        self.list.insert(new, self.list.pop(old))

    def take(self) -> bytes:
        return self.made.pop()

    def merge(self, message: bytes) -> None: ...

    def save(self) -> bytes:
        return bytes(self.doc.get_update())

    def values(self) -> list[Any]:
        return list(self.list.to_py())


class Loro(Contender):
    """Loro, loading from a snapshot."""

    def __init__(self, agent: int) -> None:
        import loro

        self.loro = loro
        self.doc = loro.LoroDoc()
        self.doc.peer_id = agent + 1
        self.list = self.doc.get_movable_list("list")
        self.made: list[bytes] = []
        self.subscription = self.doc.subscribe_local_update(self._kept)
        self.insert = self.list.insert  # type: ignore[method-assign]
        self.move = self.list.mov  # type: ignore[method-assign]

    def insert(self, position: int, value: int) -> None: ...
    def move(self, old: int, new: int) -> None: ...

    def _kept(self, update: bytes) -> bool:
        self.made.append(bytes(update))
        return True

    def take(self) -> bytes:
        self.doc.commit()
        return self.made.pop()

    def merge(self, message: bytes) -> None:
        self.doc.import_(message)

    def save(self) -> bytes:
        return bytes(self.doc.export(self.loro.ExportMode.Snapshot()))

    def values(self) -> list[Any]:
        return list(
            self.list.get_value().value if hasattr(self.list.get_value(), "value") else self.list.get_value()
        )


CONTENDERS: dict[str, type[Contender]] = {"dtp": Ours, "pycrdt": Pycrdt, "loro": Loro}


def resident() -> float:
    """MB that the process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def seconds(work: Callable[[], object]) -> float:
    gc.collect()
    gc.disable()
    start = time.process_time()
    work()
    spent = time.process_time() - start
    gc.enable()
    return spent


def insertions(one: Contender, place: Callable[[int], int], count: int) -> float:
    """Seconds for so many insertions."""
    return seconds(lambda: [one.insert(place(turn), 7) for turn in range(count)])


def measure(name: str, count: int, large: int) -> dict[str, float]:
    """One contender's figures; `count` operations of each kind, and `large` elements for memory."""
    kind: Any = CONTENDERS[name]
    found: dict[str, float] = {}
    two, sent = [kind(0), kind(1)], list[bytes]()

    def turns() -> None:
        for turn in range(count):
            two[turn % 2].insert(turn, turn % 100)
            sent.append(two[turn % 2].take())
            two[1 - turn % 2].merge(sent[-1])

    found["by turns K/s"] = count / seconds(turns) / 1e3
    reader = kind(2)
    merged = seconds(lambda: [reader.merge(message) for message in sent])
    found["merged K/s"] = count / merged / 1e3
    assert reader.values() == [turn % 100 for turn in range(count)]
    found["by one K/s"] = count / insertions(kind(0), lambda turn: turn, count) / 1e3
    found["front K/s"] = count / insertions(kind(0), lambda _: 0, count) / 1e3
    found["gap K/s"] = count / insertions(kind(0), lambda turn: min(turn, 1), count) / 1e3
    one = kind(0)
    for turn in range(1000):
        one.insert(turn, turn)
    spent = seconds(lambda: [one.move(turn * 7 % 1000, turn * 13 % 1000) for turn in range(count)])
    found["moves K/s"] = count / spent / 1e3
    one = kind(0)
    for turn in range(large):
        one.insert(turn, turn % 100)
    if name == "loro":
        one.take()
    found["read M/s"] = large / seconds(one.values) / 1e6
    saved = one.save()
    found["saved KB"] = len(saved) / 1e3
    fresh = kind(1)
    found["load ms"] = seconds(lambda: fresh.merge(saved)) * 1e3
    return found


def measure_memory(name: str, large: int, *, turns: bool) -> dict[str, float]:
    """What one replica of a list grew by that one or two wrote, in a process of its own."""
    kind: Any = CONTENDERS[name]
    two = [kind(0), kind(1)]
    before = resident()
    for turn in range(large):
        one = two[turn % 2 if turns else 0]
        one.insert(turn, turn % 100)
        message = one.take()
        if turns:
            two[1 - turn % 2].merge(message)
    grown = resident() - before
    return {"MB by turns": grown / 2} if turns else {"MB by one": grown}


def main() -> None:
    parser = argparse.ArgumentParser(description="replicated lists beside pycrdt and Loro")
    parser.add_argument("--only", action="append", choices=list(CONTENDERS))
    parser.add_argument("--count", type=int, default=10_000, help="operations of each kind (10000)")
    parser.add_argument(
        "--large", type=int, default=100_000, help="elements for memory, told for a million (100000)"
    )
    parser.add_argument(
        "--turns", type=int, default=20_000, help="the same for what two write by turns (20000)"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        name, _, what = options.side.partition(":")
        if what:
            found = measure_memory(
                name, options.turns if what == "turns" else options.large, turns=what == "turns"
            )
        else:
            found = measure(name, options.count, options.large)
        print(json.dumps(found))
        return
    names = options.only or list(CONTENDERS)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            found = {}
            for side in (name, f"{name}:one", f"{name}:turns"):
                command = [sys.executable, "-m", "bench.lists", "--side", side]
                command += [
                    "--count",
                    str(options.count),
                    "--large",
                    str(options.large),
                    "--turns",
                    str(options.turns),
                ]
                found |= json.loads(
                    subprocess.run(command, capture_output=True, check=True, text=True).stdout
                )
            for column in ("MB by one", "saved KB", "load ms"):
                found[column] *= 1_000_000 / options.large
            found["MB by turns"] *= 1_000_000 / options.turns
            samples[name].append(found)
    facts = machine.facts()
    print(f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}, commit {facts['commit']}")
    print(
        f"{options.rounds} rounds, {options.count} operations; memory, size and loading for 1,000,000 elements\n"
    )
    print("| | " + " | ".join(TARGETS) + " |\n|" + "---|" * (len(TARGETS) + 1))
    for name in names:
        cells = [statistics.median(sample[column] for sample in samples[name]) for column in TARGETS]
        print(f"| {name} | " + " | ".join(f"{cell:,.1f}" for cell in cells) + " |")
    promised = [
        f"{column} {number:g}" for column, target in TARGETS.items() if target for number in target[:1]
    ]
    print("\npromised: " + ", ".join(promised))


if __name__ == "__main__":
    main()
