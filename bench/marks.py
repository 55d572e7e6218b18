"""`python -m bench.marks`: marks of a text beside Loro's, and whether both say the same of cases of Peritext's paper.

A text of so many characters gets marks of four kinds at random places, by one author, through Python. Measured is
processor time: marking, reading all of it, merging all of it elsewhere, loading what was saved; marks that come one
by one to a replica that asks what each changed; and marks at one place, each with a name of its own where it can be.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from bench import machine

Spans = list[tuple[str, dict[str, Any]]]
NAMES = ("bold", "italic", "link", "comment")
COLUMNS = ("mark K/s", "read ms", "merge ms", "load ms", "saved KB", "heard K/s", "at one place K/s")


class Contender(ABC):
    """A replica of one text with marks."""

    @abstractmethod
    def insert(self, position: int, text: str) -> None:
        """A local insertion."""

    @abstractmethod
    def delete(self, position: int, count: int) -> None:
        """A local deletion."""

    @abstractmethod
    def mark(self, start: int, stop: int, name: str, value: Any) -> None:
        """A local mark; a value of None takes it away."""

    @abstractmethod
    def take(self) -> bytes:
        """What was made here since the last time."""

    @abstractmethod
    def hear(self, message: bytes) -> object:
        """Take a message, and find out what it changed."""

    @abstractmethod
    def save(self) -> bytes:
        """All of it."""

    @abstractmethod
    def spans(self) -> Spans:
        """The text with its attributes."""


class Ours(Contender):
    """dtp."""

    def __init__(self, agent: int) -> None:
        from dtp.crdt.text import Text

        self.text = Text(b"author %d" % agent)

    def insert(self, position: int, text: str) -> None:
        self.text.insert(position, text)

    def delete(self, position: int, count: int) -> None:
        self.text.delete(position, count)

    def mark(self, start: int, stop: int, name: str, value: Any) -> None:
        self.text.mark(start, stop, name, value)

    def take(self) -> bytes:
        return self.text.take_changes()

    def hear(self, message: bytes) -> object:
        return self.text.apply(message), self.text.formats()

    def save(self) -> bytes:
        return self.text.save()

    def spans(self) -> Spans:
        return self.text.spans()


class Loro(Contender):
    """Loro, with the same edges: links and comments don't grow."""

    def __init__(self, agent: int) -> None:
        import loro

        self.loro = loro
        self.doc = loro.LoroDoc()
        self.doc.peer_id = agent + 1
        styles = loro.StyleConfigMap()
        for name in NAMES:
            grows = loro.ExpandType.After if name in ("bold", "italic") else loro.ExpandType.Null
            styles.insert(name, grows)
        self.doc.config_text_style(styles)
        self.text = self.doc.get_text("text")
        self.heard = 0
        self.subscription = self.doc.subscribe_root(self._note)
        self.known = loro.VersionVector()

    def _note(self, event: Any) -> None:
        self.heard += sum(len(one.diff.diff) for one in event.events)

    def insert(self, position: int, text: str) -> None:
        self.text.insert(position, text)

    def delete(self, position: int, count: int) -> None:
        self.text.delete(position, count)

    def mark(self, start: int, stop: int, name: str, value: Any) -> None:
        if value is None:
            self.text.unmark(start, stop, name)
        else:
            self.text.mark(start, stop, name, value)

    def take(self) -> bytes:
        self.doc.commit()
        made = bytes(self.doc.export(self.loro.ExportMode.Updates(self.known)))
        self.known = self.doc.oplog_vv
        return made

    def hear(self, message: bytes) -> object:
        return self.doc.import_(message)

    def save(self) -> bytes:
        self.doc.commit()
        return bytes(self.doc.export(self.loro.ExportMode.Snapshot()))

    def spans(self) -> Spans:
        self.doc.commit()
        found = []
        for one in self.text.to_delta():
            attributes = {name: value for name, value in (one.attributes or {}).items() if value is not None}
            found.append((one.insert, attributes))
        return found


CONTENDERS: dict[str, Callable[[int], Contender]] = {"dtp": Ours, "loro": Loro}


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(name: str, characters: int, marks: int, few: int) -> dict[str, float]:
    """The figures of one contender."""
    rng, kind = random.Random(1), CONTENDERS[name]
    one = kind(0)
    one.insert(0, ("lorem ipsum dolor sit amet " * (characters // 27 + 1))[:characters])
    places = [(rng.randrange(characters - 200), rng.randrange(1, 200)) for _ in range(marks)]

    def mark_all() -> None:
        for number, (start, count) in enumerate(places):
            one.mark(start, start + count, NAMES[number % 4], number if number % 4 == 3 else True)

    found = {"mark K/s": marks / seconds(mark_all) / 1e3}
    one.spans()  # what is put off is done now, by both
    found["read ms"] = seconds(one.spans) * 1e3
    message, other = one.take(), kind(1)
    found["merge ms"] = seconds(lambda: (other.hear(message), other.spans())) * 1e3
    saved = one.save()
    found["saved KB"] = len(saved) / 1e3
    fresh = kind(2)
    found["load ms"] = seconds(lambda: (fresh.hear(saved), fresh.spans())) * 1e3
    messages = []
    for start, count in places[:few]:
        one.mark(start, start + count, "bold", True)
        messages.append(one.take())
    found["heard K/s"] = few / seconds(lambda: [other.hear(each) for each in messages]) / 1e3
    small = kind(0)
    small.insert(0, "hello world")
    found["at one place K/s"] = (
        few
        / seconds(
            lambda: [small.mark(0, 5, "comment" if name == "loro" else f"comment:{i}", i) for i in range(few)]
        )
        / 1e3
    )
    return found


def cases(kind: Callable[[int], Contender]) -> dict[str, Spans]:
    """What is shown after each case in which two do something at the same time."""
    done: dict[str, tuple[Callable[[Contender], object], Callable[[Contender], object]]] = {
        "overlapping bold": (lambda a: a.mark(0, 7, "bold", True), lambda b: b.mark(4, 14, "bold", True)),
        "bold and italic": (lambda a: a.mark(0, 7, "bold", True), lambda b: b.mark(4, 14, "italic", True)),
        "typed within bold": (lambda a: a.mark(4, 7, "bold", True), lambda b: b.insert(5, "XX")),
        "typed within a link": (lambda a: a.mark(4, 7, "link", True), lambda b: b.insert(5, "XX")),
        "the end deleted": (lambda a: a.mark(4, 7, "bold", True), lambda b: b.delete(6, 2)),
        "all of it deleted": (lambda a: a.mark(4, 7, "bold", True), lambda b: b.delete(3, 6)),
        "typed behind bold": (
            lambda a: (a.mark(4, 7, "bold", True), a.insert(7, "es")),
            lambda b: b.delete(0, 4),
        ),
        "typed behind a link": (
            lambda a: (a.mark(4, 7, "link", True), a.insert(7, "es")),
            lambda b: b.delete(0, 4),
        ),
        "a part taken away": (
            lambda a: (a.mark(0, 10, "bold", True), a.mark(4, 7, "bold", None)),
            lambda b: b.insert(5, "XX"),
        ),
        "typed behind bold meanwhile": (lambda a: a.mark(4, 7, "bold", True), lambda b: b.insert(7, "es")),
        "typed behind a link meanwhile": (lambda a: a.mark(4, 7, "link", True), lambda b: b.insert(7, "es")),
    }
    found = {}
    for name, (first, second) in done.items():
        one, other = kind(0), kind(1)
        one.insert(0, "The fox jumped.")
        other.hear(one.take())
        if isinstance(other, Loro):
            other.take()
        first(one)
        second(other)
        here, there = one.take(), other.take()
        one.hear(there)
        other.hear(here)
        assert one.spans() == other.spans()
        found[name] = one.spans()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="marks of a text beside Loro's")
    parser.add_argument("--characters", type=int, default=1_000_000)
    parser.add_argument("--marks", type=int, default=100_000)
    parser.add_argument("--few", type=int, default=1_000, help="marks that come one by one (1000)")
    parser.add_argument("--only", action="append", choices=list(CONTENDERS))
    parser.add_argument("--side", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps(measure(asked.side, asked.characters, asked.marks, asked.few)))
        return
    print("\n".join(f"- {name}: {value}" for name, value in machine.facts().items()))
    print(f"\n| {asked.characters:,} characters, {asked.marks:,} marks | {' | '.join(COLUMNS)} |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name in asked.only or CONTENDERS:
        sizes = [f"--{what}={getattr(asked, what)}" for what in ("characters", "marks", "few")]
        command = [sys.executable, "-m", "bench.marks", f"--side={name}", *sizes]
        told = json.loads(
            subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
        )
        print(f"| {name} | " + " | ".join(f"{told[column]:,.1f}" for column in COLUMNS) + " |")
    ours, theirs = cases(Ours), cases(Loro)
    print()
    for case, spans in ours.items():
        print(f"- {case}: {'the same' if spans == theirs[case] else f'{spans} here, {theirs[case]} there'}")


if __name__ == "__main__":
    main()
