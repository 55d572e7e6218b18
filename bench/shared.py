"""`python -m bench.shared`: a graph that several nodes share and all write: how soon others have each operation.

Each node is a process of its own, linked with all others over TCP on loopback. Each commits so many operations a
second; what it writes is the time, so that whoever gets it knows how long it took.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from bench import machine
from bench.job import percentile
from bench.runner import ROOT
from dtp.graph import Graph
from dtp.identity import Identity
from dtp.node.node import Node

TOPIC: Final = "shared"
#: Seconds in which what was written last may still come.
PATIENCE: Final = 120.0


# ---- one node -----------------------------------------------------------------------------------------------------


def say(value: object) -> None:
    """Tell the parent."""
    print(json.dumps(value), flush=True)


async def hear() -> Any:
    """Wait for what the parent says."""
    return json.loads(await asyncio.to_thread(sys.stdin.readline) or "null")


async def watch(graph: Graph, me: str, found: list[float]) -> None:
    """Note how long each operation of others took to come."""
    async with graph.watch("op/*") as changes:
        async for change in changes:
            at = graph.node(change.soul).get("at")
            if at is not None and not change.soul.startswith(f"op/{me}/"):
                found.append(time.monotonic() - at)


async def write(graph: Graph, me: str, rate: float, count: int) -> list[float]:
    """Commit `count` operations, `rate` a second; return how long each took here."""
    took = []
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        at = time.monotonic()
        graph.node(f"op/{me}/{number}")["at"] = at
        await graph.commit()
        took.append(time.monotonic() - at)
    return took


async def node(number: int) -> None:
    """A node: says where it is, hears of the others, writes and watches, and says what it found."""
    me = Identity.generate()
    async with (
        Node(identity=me, listen="tcp://127.0.0.1:0", discover=()) as made,
        await Graph.open("memory:", identity=me, name=TOPIC) as graph,
    ):
        say(str(made.listener.address()))
        for address in (await hear())[:number]:
            await made.links.connect(address)
        found: list[float] = []
        async with made.share(graph, topic=TOPIC) as share:
            await share.wait_current()
            watching = asyncio.create_task(watch(graph, str(number), found))
            say("ready")
            order = await hear()
            took = await write(graph, str(number), order["rate"], order["count"])
            async with asyncio.timeout(PATIENCE):
                while len(found) < order["expect"]:  # noqa: ASYNC110  # a benchmark's side
                    await asyncio.sleep(0.05)
            liars = share.counts["disbelieved"]
            say({"found": found, "took": took, "cpu": time.process_time(), "liars": liars})
            await hear()
            watching.cancel()


# ---- all of them --------------------------------------------------------------------------------------------------


class Side:
    """The process of one node."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def tell(self, value: object) -> None:
        """Say something to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")

    async def hear(self) -> Any:
        """Wait for what it says. Raise `EOFError` where it has ended."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise EOFError("a node has ended")
        return json.loads(line)

    async def end(self) -> None:
        """Have it end, and wait for that."""
        if self._process.returncode is None:
            self.tell(None)
        await self._process.wait()


@asynccontextmanager
async def sides(count: int) -> AsyncIterator[list[Side]]:
    """Nodes that are linked and share the graph."""
    made = []
    try:
        for number in range(count):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.shared", "--node", str(number)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(ROOT)},  # $PYTHONSAFEPATH keeps the folder itself out
                limit=2**26,
            )
            made.append(Side(process))
        addresses = [await each.hear() for each in made]
        for each in made:
            each.tell(addresses)
        for each in made:
            await each.hear()
        yield made
    finally:
        for each in made:
            await each.end()


async def measure(nodes: int, rate: float, count: int) -> dict[str, float]:
    """Return the figures of so many nodes."""
    async with sides(nodes) as made:
        for each in made:
            each.tell({"rate": rate, "count": count, "expect": count * (nodes - 1)})
        said = [await each.hear() for each in made]
    found = [each for one in said for each in one["found"]]
    took = [each for one in said for each in one["took"]]
    return {
        "nodes": nodes,
        "operations/s, all": nodes * rate,
        "here, p50 ms": 1000 * percentile(took, 0.5),
        "here, p99 ms": 1000 * percentile(took, 0.99),
        "at others, p50 ms": 1000 * percentile(found, 0.5),
        "at others, p99 ms": 1000 * percentile(found, 0.99),
        "arrived %": 100 * len(found) / (nodes * (nodes - 1) * count),
        "taken for liars": sum(one["liars"] for one in said),
        "CPU ms/operation and node": 1000 * sum(one["cpu"] for one in said) / (nodes * nodes * count),
    }


def as_markdown(facts: dict[str, Any], rows: list[dict[str, float]], date: str) -> str:
    """The page of a result."""
    columns = list(rows[0])
    lines = [
        f"# A shared graph that all write, {date}",
        "",
        f"`python -m bench.shared`; {facts['cpu']}, {facts['cores usable']} cores, load {facts['load average']},",
        f"commit {facts['commit']}.",
        "",
        "Each node is a process of its own, and each commits 20 operations a second. *Here* is until its commit is",
        "stored (in memory), *at others* until the program at another node sees it. Processor time is that of the",
        "whole process, its start with it.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    lines += [f"| {' | '.join(f'{row[column]:.4g}' for column in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.shared", description=__doc__)
    parser.add_argument("--nodes", type=int, action="append", help="nodes (default 2, 4, 8, 16)")
    parser.add_argument("--rate", type=float, default=20.0, help="operations a second and node")
    parser.add_argument("--count", type=int, default=200, help="operations of each node")
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results")
    parser.add_argument("--node", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.node is not None:
        asyncio.run(node(arguments.node))
        return 0
    rows = []
    for nodes in arguments.nodes or [2, 4, 8, 16]:
        rows.append(asyncio.run(measure(nodes, arguments.rate, arguments.count)))
        print(rows[-1], file=sys.stderr)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    facts = machine.facts()
    text = as_markdown(facts, rows, date)
    if arguments.save:
        folder = ROOT / "bench" / "results"
        (folder / f"{date}-shared.md").write_text(text, encoding="utf-8")
        kept = {"machine": facts, "rows": rows}
        (folder / f"{date}-shared.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
