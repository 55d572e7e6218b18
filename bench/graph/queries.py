"""What queries cost over a graph of many nodes: the first of a process, the second, and one behind a change.

`python -m bench.graph.queries --nodes 1000000` makes a graph in a SQLite file, then asks each query in a process of
its own, in the loop and beside it, and prints a table of medians. Memory is what the process grew by.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dtp.crdt import Link
from dtp.graph import Graph, QueryBudget
from dtp.graph.query.budget import resident_bytes
from dtp.identity import Identity

QUERIES = {
    "value": "MATCH (n:person) WHERE n.age = 7 RETURN count(n) AS n",
    "another value": "MATCH (n:person {name: 'name 77'}) RETURN count(n) AS n",
    "range": "MATCH (n:person) WHERE n.age >= 99 RETURN count(n) AS n",
    "soul": "MATCH (n) WHERE id(n) = 'person/77' RETURN n.name AS n",
    "links out": "MATCH (n:person {name: 'name 77'})-[:knows]->(m) RETURN count(m) AS n",
    "links in": "MATCH (n:person {name: 'name 77'})<-[:knows]-(m) RETURN count(m) AS n",
    "paths": "MATCH (n:person {name: 'name 77'})-[:knows*1..3]-(m) RETURN count(m) AS n",
    "values and links": "MATCH (n:person {age: 7})-[:knows]->(m:person {age: 8}) RETURN count(*) AS n",
    "label": "MATCH (n:person) RETURN count(n) AS n",
    "order": "MATCH (n:person) RETURN n.name AS name ORDER BY n.age DESC, n.name LIMIT 10",
    "groups": "MATCH (n:person) RETURN n.age AS age, count(*) AS n ORDER BY age",
    "everything": "MATCH (n)-[:knows]->(m) WHERE n.age > m.age RETURN count(*) AS n",
}
_ME = Identity(b"\1" * 32, b"\2" * 32)
_NO_LIMIT = QueryBudget(None, None, None, None)


def rows(nodes: int) -> Iterator[tuple[str, str, Any]]:
    """A node each: two properties and a link."""
    rng = random.Random(1)
    for number in range(nodes):
        soul = f"person/{number}"
        yield soul, "age", rng.randrange(100)
        yield soul, "name", f"name {number}"
        yield soul, "knows", Link(f"person/{rng.randrange(nodes)}")


async def made(place: str, nodes: int) -> Graph:
    """A graph with all of them, committed."""
    graph = await Graph.open(place, identity=_ME)
    graph.put_many(rows(nodes))
    await graph.commit()
    graph.replica.core.release_memory()
    return graph


async def late(gaps: list[float]) -> None:
    """Note by how much the loop is late for who sleeps for a millisecond."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        gaps.append(time.perf_counter() - began - 0.001)


async def asked(graph: Graph, text: str, beside: bool) -> dict[str, float]:
    """Seconds of the first and second time, and behind a change; MiB; how late the loop was, in ms, at most."""
    graph.query_budget = _NO_LIMIT
    found: dict[str, float] = {}
    before = resident_bytes()
    gaps: list[float] = []
    for which in ("first", "second", "changed"):
        if which == "changed":
            graph.node("person/5")["age"] = 7
            await graph.commit()
        clock = asyncio.create_task(late(gaps))
        await asyncio.sleep(0.01)
        gaps.clear()
        began, worked = time.perf_counter(), time.process_time()
        await graph.query_async(text) if beside else graph.query(text)
        found[which] = time.perf_counter() - began
        if which == "first":
            found["cpu"] = time.process_time() - worked
            found["MiB"] = (resident_bytes() - before) / (1 << 20)
            found["late ms"] = 1000 * max(gaps, default=found["first"])
        clock.cancel()
    return found


async def child(place: str, nodes: int, name: str, beside: bool) -> None:
    """Print one measurement, of a graph in a file or in memory."""
    graph = await made(place, nodes) if place == "memory:" else await Graph.open(place, identity=_ME)
    print(json.dumps(await asked(graph, QUERIES[name], beside)))
    if place == "memory:":
        await graph.close()


def measured(place: str, nodes: int, name: str, beside: bool, runs: int) -> dict[str, float]:
    """The medians of some runs."""
    command = [sys.executable, "-m", "bench.graph.queries", "--nodes", str(nodes)]
    command += ["--place", place, "--one", name, *(["--beside"] if beside else [])]
    told = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(runs)]
    return {key: statistics.median(one[key] for one in told) for key in told[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=QUERIES, default=list(QUERIES))
    parser.add_argument("--place")
    parser.add_argument("--one", choices=QUERIES)
    parser.add_argument("--beside", action="store_true")
    given = parser.parse_args()
    if given.one:
        asyncio.run(child(given.place, given.nodes, given.one, given.beside))
        return
    print("| where | query | first s | of it CPU s | second s | behind a change s | MiB | loop late ms |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "people.dtpg")

        async def make() -> None:
            await (await made(place, given.nodes)).close()

        asyncio.run(make())
        cases = [(place, name, beside) for beside in (False, True) for name in given.only]
        for where, name, beside in [("memory:", given.only[0], False), *cases]:
            one = measured(where, given.nodes, name, beside, given.runs)
            kind = "memory" if where == "memory:" else "file, beside" if beside else "file"
            times = [f"{one[key]:.3f}" for key in ("first", "cpu", "second", "changed")]
            others = [f"{one[key]:.0f}" for key in ("MiB", "late ms")]
            print(f"| {kind} | {name} | {' | '.join(times + others)} |", flush=True)


if __name__ == "__main__":
    main()
