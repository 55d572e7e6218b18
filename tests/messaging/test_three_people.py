"""docs/three-people.md, word for word: each person's commands in order, and what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "three-people.md").read_text()
#: Seconds for anything that has to happen; only a failing test waits so long.
PATIENCE = 240
#: What is another one each time, and how the page writes it.
ALIKE = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d", "2026-11-27 20:00"),
    (r"\b(dtpa?1)(?:[a-z0-9]{20,}|\.\.\.)", r"\1..."),
    (r"safety number [\d ]+", "safety number"),
)
pytestmark = pytest.mark.slow


def blocks() -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """Yield whose each block is, and its commands with what the page says that they print."""
    who = ""
    for bold, code in re.findall(r"\*\*(\w+)\*\*|```console\n(.*?)```", PAGE, re.DOTALL):
        if bold:
            who = bold
            continue
        told: list[tuple[str, list[str]]] = []
        for line in code.splitlines():
            if line.startswith("$ "):
                told.append((line[2:], []))
            else:
                told[-1][1].append(line)
        yield who, told


def alike(text: str) -> list[str]:
    for pattern, written in ALIKE:
        text = re.sub(pattern, written, text)
    return text.splitlines()


class Terminals:
    """One for each person, all in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def environment(self, who: str) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "DTP_HOME": str(self.folder / who), "PATH": path}

    def run(self, who: str, command: str, promised: list[str]) -> None:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment(who),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, (command, done.stderr)
        if promised:
            assert alike(done.stdout) == alike("\n".join(promised)), command


def test_what_the_page_says_happens(tmp_path: Path) -> None:
    terminals = Terminals(tmp_path)
    (_, ((make_folder, _),)), (server, ((serve, _),)), *others = blocks()
    assert make_folder == "mkdir three && cd three"
    command, _, kept = serve.replace(":9700 ", ":0 --until-eof ").partition(" | tee ")
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=terminals.environment(server),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as mailbox:
        assert mailbox.stdin is not None
        assert mailbox.stdout is not None
        try:
            (tmp_path / kept).write_text(
                mailbox.stdout.readline()
            )  # as tee does, but here it is there by now
            for who, told in others:
                for line, promised in told:
                    terminals.run(who, line, promised)
        finally:
            mailbox.stdin.close()
            assert mailbox.wait(PATIENCE) == 0
    assert {who for who, _ in others} == {"alice", "bob", "carol", "phone"}
    assert (tmp_path / "way.txt").read_text() == "left at the mill\n"
