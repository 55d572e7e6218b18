"""Read the test files of Sui's adapter suite: a `.move` file is a list of tasks, its `.snap` file their results."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path("crates/sui-adapter-transactional-tests/tests")
_TASK = re.compile(r"^task (\d+), lines? [\d-]+:$")
_OPTIONS_WITHOUT_VALUE = frozenset(
    {
        "upgradeable",
        "dry-run",
        "dev-inspect",
        "summarize",
        "hide-contents",
        "simulator",
        "address-balance-gas",
    }
    | {"enable-gasless", "create-random-state", "create-deny-list-state"}
)


@dataclass
class Task:
    """One `//#` command: its words, options, and the lines that follow it."""

    number: int
    line: int
    command: str
    words: list[str]
    options: dict[str, list[str]]
    lines: list[str] = field(default_factory=list)

    def option(self, name: str) -> str | None:
        """Return the first value of an option, None if it is not given."""
        return self.options[name][0] if self.options.get(name) else None

    def number_of(self, name: str, default: int) -> int:
        """Return an option as a number."""
        text = self.option(name)
        return default if text is None else int(text.replace("_", ""))

    def flag(self, name: str) -> bool:
        """True if the option is there."""
        return name in self.options

    @property
    def source(self) -> str:
        """Return the Move source, with the lines before it empty so that line numbers are those of the file."""
        body = [line for line in self.lines if not line.startswith("//>")]
        return "\n" * (self.line - 1) + "\n".join(body)

    @property
    def program(self) -> str:
        """Return the text of a programmable transaction."""
        text = "\n".join(line[3:] for line in self.lines if line.startswith("//>"))
        return re.sub(r"//.*|/\*.*?\*/", " ", text)


@dataclass
class SuiteTest:
    """One test: its tasks, and the genuine result of each by number."""

    name: str
    tasks: list[Task]
    results: dict[int, str]
    text: str


def parse_command(line: str, number: int, at: int) -> Task:
    """Return the task of a `//# command word --option value ...` line."""
    words = line[3:].split()
    task = Task(number, at, words[0], [], {})
    current: list[str] | None = None
    for word in words[1:]:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            current = task.options.setdefault(name, [])
            if equals:
                current.append(value)
            if name in _OPTIONS_WITHOUT_VALUE:
                current = None
        elif current is None:
            task.words.append(word)
        else:
            current.append(word)
    return task


def parse_tasks(text: str) -> list[Task]:
    """Return the tasks of a `.move` file; task 0 is `init`."""
    tasks: list[Task] = []
    for at, line in enumerate(text.splitlines(), 1):
        if line.startswith("//# "):
            tasks.append(parse_command(line, len(tasks), at))
        elif tasks:
            tasks[-1].lines.append(line)
    return tasks


def parse_results(text: str) -> dict[int, str]:
    """Return the output of each task that has one, without the command that is repeated before it."""
    results: dict[int, list[str]] = {}
    current: list[str] | None = None
    repeated = False
    for line in text.splitlines():
        found = _TASK.match(line)
        if found:
            current = results.setdefault(int(found.group(1)), [])
            repeated = True
        elif current is not None and not (repeated and line.startswith("//")):
            repeated = False
            current.append(line)
    return {number: "\n".join(lines).strip() for number, lines in results.items()}


def read_test(source: Path, name: str) -> SuiteTest:
    """Return the test of that name: the path below the suite's folder, without ending."""
    move = (source / FOLDER / f"{name}.move").read_text("utf-8")
    snap = (source / FOLDER / f"{name}.snap").read_text("utf-8")
    return SuiteTest(name, parse_tasks(move), parse_results(snap), move + snap)


def names_of_tests(source: Path) -> list[str]:
    """Return the names of all tests that have both files."""
    folder = source / FOLDER
    found = sorted(folder.rglob("*.move"))
    return [str(p.relative_to(folder))[:-5] for p in found if p.with_suffix(".snap").exists()]
