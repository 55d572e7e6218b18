"""Killed at any point, what was told to be committed is there, and the chain goes on."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
from pathlib import Path

import pytest
from graph_fixtures import ALICE

from dtp.graph import Graph
from dtp.graph.frames import envelope as envelopes

WRITER = """
import asyncio, sys
from graph_fixtures import ALICE
from dtp.graph import Graph

async def main():
    graph = await Graph.open(sys.argv[1], identity=ALICE)
    number = graph.counter("made").value
    while True:
        number += 1
        graph.counter("made").add(1)
        graph.node(f"n/{number}")["text"] = "x" * (number % 5000)
        graph.list("all").append(number)
        await graph.commit()
        print(number, flush=True)
        if number % 20 == 0:
            graph.commits.note_taken(1 << 30)  # keep the state often: that is a write, too
asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_any_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setenv("DTP_HOME", str(tmp_path / "home"))
    rng = random.Random(seed)
    path = str(tmp_path / "notes.db")
    told = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-P", "-c", WRITER, path],
            stdout=subprocess.PIPE,
            text=True,
            env={
                "PYTHONPATH": str(Path(__file__).parents[1]),
                "PATH": "",
                "DTP_HOME": str(tmp_path / "home"),
            },
        ) as child:
            assert child.stdout is not None
            for _ in range(rng.randrange(1, 60)):
                told = int(child.stdout.readline())
            child.kill()
            for line in child.stdout:  # told before it died
                told = int(line) if line.endswith("\n") else told
        asyncio.run(check(path, told))


async def check(path: str, told: int) -> None:
    async with await Graph.open(path, identity=ALICE) as graph:
        made = graph.counter("made").value
        assert told <= made <= told + 1
        assert list(graph.list("all")) == list(range(1, made + 1))
        chain = [envelopes.decode("", one) for one in await graph.frames.read(ALICE.id.key, 1, 1 << 40)]
        assert [one.sequence for one in chain] == list(range(1, made + 1))
        assert all(one.is_genuine() for one in chain)
        assert all(b.previous == a.hash for a, b in itertools.pairwise(chain))
