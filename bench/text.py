"""`python -m bench.text`: replicated text beside pycrdt and Loro, on edits that people made.

The traces are `automerge-paper` (one author, 259,778 edits), `friendsforever` and `clownschool` (two and three at
once) of https://github.com/josephg/editing-traces, in tests/data. Every contender runs in a process of its own, in
turns, some rounds; numbers are medians of processor time. What is measured of each: edits made one call each from
Python; the same merged elsewhere, one message per edit, and as one message with everything; loading what was saved;
its size; memory, as the process sees it.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import gzip
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from bench import machine
from bench.runner import ROOT

TRACES = ROOT / "tests" / "data" / "editing-traces"
#: Column -> what is promised: (number, at least?).
TARGETS: dict[str, tuple[float, bool] | None] = {
    "local s": (0.2, False),
    "one a message M/s": (2.0, True),
    "with patches M/s": None,
    "in bulk M/s": (10.0, True),
    "load ms": (8.0, False),
    "saved KB": (225.0, False),
    "compacted KB": None,
    "memory MB": (6.0, False),
    "two authors M/s": None,
    "three authors M/s": None,
}


class Contender(ABC):
    """A replica of one text."""

    @abstractmethod
    def insert(self, position: int, text: str) -> None:
        """A local edit."""

    @abstractmethod
    def delete(self, position: int, count: int) -> None:
        """A local edit."""

    @abstractmethod
    def record(self, keep: Callable[[bytes], object]) -> None:
        """From now on hand over a message after each local edit (or when `flush` is called)."""

    @abstractmethod
    def flush(self) -> None:
        """The end of one edit, for those that don't notice by themselves."""

    @abstractmethod
    def merge(self, message: bytes) -> None:
        """Take a message."""

    @abstractmethod
    def save(self) -> bytes:
        """Everything."""

    @abstractmethod
    def __str__(self) -> str: ...

    def calls(self) -> tuple[Callable[[int, str], object], Callable[[int, int], object]]:
        """Insert and delete as a program would call them, without this class between."""
        return self.insert, self.delete

    def merging(self) -> Callable[[bytes], object]:
        """The same of `merge`."""
        return self.merge


class Ours(Contender):
    """`dtp.crdt.text.Text`."""

    def __init__(self, agent: int) -> None:
        from dtp.crdt.text import Text

        self.text = Text(bytes([65 + agent]))

    def insert(self, position: int, text: str) -> None:
        self.text.insert(position, text)

    def delete(self, position: int, count: int) -> None:
        self.text.delete(position, count)

    def merge(self, message: bytes) -> None:
        self.text.merge(message)

    def record(self, keep: Callable[[bytes], object]) -> None:
        self.keep = keep

    def flush(self) -> None:
        self.keep(self.text.take_changes())

    def save(self) -> bytes:
        return self.text.save()

    def calls(self) -> tuple[Callable[[int, str], object], Callable[[int, int], object]]:
        return self.text.insert, self.text.delete

    def merging(self) -> Callable[[bytes], object]:
        return self.text.merge

    def __str__(self) -> str:
        return str(self.text)


class Pycrdt(Contender):
    """pycrdt, that is Yrs."""

    def __init__(self, agent: int) -> None:
        import pycrdt

        self.text = pycrdt.Text()
        self.doc = pycrdt.Doc({"text": self.text}, client_id=agent + 1)

    def insert(self, position: int, text: str) -> None:
        self.text.insert(position, text)

    def delete(self, position: int, count: int) -> None:
        del self.text[position : position + count]

    def record(self, keep: Callable[[bytes], object]) -> None:
        self.doc.observe(lambda event: keep(event.update))

    def flush(self) -> None:
        """Each call is a transaction."""

    def merge(self, message: bytes) -> None:
        self.doc.apply_update(message)

    def save(self) -> bytes:
        return bytes(self.doc.get_update())

    def merging(self) -> Callable[[bytes], object]:
        merge: Callable[[bytes], object] = self.doc.apply_update
        return merge

    def __str__(self) -> str:
        return str(self.text)


class Loro(Contender):
    """Loro, loading from a snapshot."""

    def __init__(self, agent: int) -> None:
        import loro

        self.loro = loro
        self.doc = loro.LoroDoc()
        self.doc.peer_id = agent + 1
        self.text = self.doc.get_text("text")

    def insert(self, position: int, text: str) -> None:
        self.text.insert(position, text)

    def delete(self, position: int, count: int) -> None:
        self.text.delete(position, count)

    def record(self, keep: Callable[[bytes], object]) -> None:
        self.subscription = self.doc.subscribe_local_update(lambda update: keep(bytes(update)) is None)

    def flush(self) -> None:
        self.doc.commit()

    def merge(self, message: bytes) -> None:
        self.doc.import_(message)

    def save(self) -> bytes:
        return bytes(self.doc.export(self.loro.ExportMode.Snapshot()))

    def calls(self) -> tuple[Callable[[int, str], object], Callable[[int, int], object]]:
        return self.text.insert, self.text.delete

    def merging(self) -> Callable[[bytes], object]:
        merge: Callable[[bytes], object] = self.doc.import_
        return merge

    def updates(self) -> bytes:
        """Everything as one message."""
        return bytes(self.doc.export(self.loro.ExportMode.Updates(self.loro.VersionVector())))

    def __str__(self) -> str:
        return str(self.text.to_string())


CONTENDERS: dict[str, tuple[type[Contender], str]] = {
    "dtp": (Ours, "dtp"),
    "pycrdt": (Pycrdt, "pycrdt"),
    "Loro": (Loro, "loro"),
}


def _trace(name: str) -> dict[str, Any]:
    with gzip.open(TRACES / f"{name}.json.gz") as file:
        return dict(json.load(file))


def _timed(work: Callable[[], object]) -> float:
    """Processor seconds of the quickest of three."""
    best = float("inf")
    for _ in range(3):
        gc.collect()
        gc.disable()
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
        gc.enable()
    return best


def _resident() -> int:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free is nobody's
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _type(text: Contender, edits: list[tuple[int, int, str]]) -> Contender:
    insert, delete = text.calls()
    for position, deleted, inserted in edits:
        if deleted:
            delete(position, deleted)
        if inserted:
            insert(position, inserted)
    return text


def _merge_all(text: Contender, messages: list[bytes]) -> Contender:
    merge = text.merging()
    for message in messages:
        merge(message)
    return text


def _messages(make: type[Contender], edits: list[tuple[int, int, str]]) -> tuple[Contender, list[bytes]]:
    messages: list[bytes] = []
    author = make(0)  # type: ignore[call-arg]
    author.record(messages.append)
    for edit in edits:
        _type(author, [edit])
        author.flush()
    return author, messages


def _concurrent(make: type[Contender], name: str) -> tuple[list[bytes], str]:
    """Everybody types what was recorded, knowing what they knew then: the messages in order."""
    data = _trace(name)
    steps: list[list[bytes]] = []
    sink: list[bytes] = []
    texts = [make(i) for i in range(data["numAgents"])]  # type: ignore[call-arg]
    for text in texts:
        text.record(lambda update: sink.append(update))
    known: list[set[int]] = [set() for _ in texts]
    for number, step in enumerate(data["txns"]):
        text, seen = texts[step["agent"]], known[step["agent"]]
        todo, missing = [p for p in step["parents"] if p not in seen], []
        while todo:
            parent = todo.pop()
            if parent not in seen:
                seen.add(parent)
                missing.append(parent)
                todo.extend(data["txns"][parent]["parents"])
        for parent in sorted(missing):
            _merge_all(text, steps[parent])
        sink.clear()
        _type(text, step["patches"])
        text.flush()
        steps.append(list(sink))
        seen.add(number)
    return [message for step in steps for message in step], data["endContent"]


def side(name: str) -> dict[str, float]:
    """All numbers of one contender, in this process."""
    make, _ = CONTENDERS[name]
    data = _trace("automerge-paper")
    edits = [(p, n, s) for step in data["txns"] for p, n, s in step["patches"]]
    found: dict[str, float] = {}
    make(0)  # type: ignore[call-arg]  # loads the library, which isn't the text's memory
    before = _resident()
    typed = _type(make(0), edits)  # type: ignore[call-arg]
    found["memory MB"] = (_resident() - before) / 1e6
    assert str(typed) == data["endContent"]
    author, messages = _messages(make, edits)
    saved = author.save()
    bulk = author.updates() if isinstance(author, Loro) else saved
    found["local s"] = _timed(lambda: _type(make(1), edits))  # type: ignore[call-arg]
    found["one a message M/s"] = len(edits) / _timed(lambda: _merge_all(make(1), messages)) / 1e6  # type: ignore[call-arg]
    found["in bulk M/s"] = len(edits) / _timed(lambda: make(1).merge(bulk)) / 1e6  # type: ignore[call-arg]
    found["load ms"] = _timed(lambda: make(1).merge(saved)) * 1e3  # type: ignore[call-arg]
    found["saved KB"] = len(saved) / 1e3
    for column, trace in (("two authors M/s", "friendsforever"), ("three authors M/s", "clownschool")):
        many, end = _concurrent(make, trace)
        reader = make(9)  # type: ignore[call-arg]
        _merge_all(reader, many)
        assert len(str(reader)) == len(end)
        found[column] = len(many) / _timed(lambda many=many: _merge_all(make(9), many)) / 1e6  # type: ignore[call-arg,misc]
    if isinstance(author, Ours):
        text = author.text
        found["with patches M/s"] = len(edits) / _timed(lambda: _apply_all(messages)) / 1e6
        text.compact([])
        found["compacted KB"] = len(text.save()) / 1e3
    return found


def _apply_all(messages: list[bytes]) -> None:
    apply = Ours(1).text.apply
    for message in messages:
        apply(message)


def report(medians: dict[str, dict[str, float] | str]) -> str:
    """The table, and our verdicts."""
    lines = ["| | " + " | ".join(TARGETS) + " |", "|---" * (len(TARGETS) + 1) + "|"]
    goals = ["" if t is None else f"{'≥' if t[1] else '≤'} {t[0]:g}" for t in TARGETS.values()]
    lines.append("| *promised* | " + " | ".join(goals) + " |")
    for name, found in medians.items():
        if isinstance(found, str):
            lines.append(f"| {name} | {found} |" + " |" * (len(TARGETS) - 1))
            continue
        cells = [f"{found[column]:.3g}" if column in found else "" for column in TARGETS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _measure(name: str) -> dict[str, float] | str:
    command = [sys.executable, "-m", "bench.text", "--side", name]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    except subprocess.TimeoutExpired:
        return "took more than 10 minutes"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1][:100]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _medians(rounds: list[dict[str, float] | str]) -> dict[str, float] | str:
    good = [found for found in rounds if not isinstance(found, str)]
    if not good:
        return str(rounds[0])
    return {column: statistics.median(found[column] for found in good) for column in good[0]}


def main() -> int:
    """The command; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.text", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--side", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", action="append", choices=list(CONTENDERS), help="one contender (repeatable)"
    )
    parser.add_argument("--save", action="store_true", help="keep the table in bench/results")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(side(arguments.side)))
        return 0
    rounds: dict[str, list[dict[str, float] | str]] = {name: [] for name in arguments.only or CONTENDERS}
    for _ in range(arguments.rounds):
        for name, found in rounds.items():
            there = importlib.util.find_spec(CONTENDERS[name][1])
            found.append(_measure(name) if there else f"{CONTENDERS[name][1]} is not installed")
    medians = {name: _medians(found) for name, found in rounds.items()}
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    facts = "\n".join(f"- {fact}: {value}" for fact, value in machine.facts().items())
    text = f"# Replicated text, {today}\n\n{facts}\n\n{report(medians)}\n"
    print(text)
    if arguments.save:
        (ROOT / "bench" / "results" / f"{today}-text.md").write_text(text, encoding="utf-8")
    ours = medians.get("dtp")
    if not isinstance(ours, dict):
        return 1
    goals = {column: goal for column, goal in TARGETS.items() if goal is not None}
    return int(any((ours[c] < goal) if more else (ours[c] > goal) for c, (goal, more) in goals.items()))


if __name__ == "__main__":
    sys.exit(main())
