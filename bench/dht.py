"""`python -m bench.dht`: puts and gets beside `opendht` and `kademlia`: 20 and 60 nodes, also a quarter dead.

The rivals are in an environment of their own (`pip install opendht kademlia`), whose interpreter $BENCH_DHT_PYTHON
names. Each side is a process with all its nodes; rounds are interleaved.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import machine
from bench.job import percentile
from bench.runner import ROOT

RIVALS_PYTHON = "BENCH_DHT_PYTHON"
SIDE = Path(__file__).with_name("dht_side.py")
KINDS = ("dtp", "opendht", "kademlia")
#: Figure, nodes, operation, part, at most (ms), aim (ms).
FIGURES = (
    ("put, 20 nodes, p50", 20, "put", 0.5, 5.0, 0.8),
    ("get, 20 nodes, p50", 20, "get", 0.5, 5.0, 0.8),
    ("put, 60 nodes, p50", 60, "put", 0.5, 5.0, 0.8),
    ("get, 60 nodes, p50", 60, "get", 0.5, 7.0, 0.8),
    ("get, 60 nodes, a quarter dead, p99", 60, "dead", 0.99, 300.0, 100.0),
)
_PATIENCE = 300.0


def run_side(kind: str, nodes: int, count: int) -> dict[str, Any] | str:
    """Return what a side measured, or why it did not."""
    python = sys.executable if kind == "dtp" else os.environ.get(RIVALS_PYTHON, sys.executable)
    command = [python, "-P", str(SIDE), kind, str(nodes), str(count)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"took longer than {_PATIENCE:g} s"
    if done.returncode or not done.stdout.strip():
        return (done.stderr.strip().splitlines() or ["no output"])[-1]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def summary(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """Return medians over the rounds: p50 and p99 of each operation, CPU, and how many values were missing."""
    found = {}
    for operation in ("put", "get", "dead"):
        for name, part in (("p50", 0.5), ("p99", 0.99)):
            values = [percentile(each[operation], part) for each in rounds]
            found[f"{operation} {name}"] = statistics.median(values)
    for name in ("put cpu", "get cpu"):
        found[name] = statistics.median(each[name] for each in rounds)
    found["missing"] = sum(each["missing"] for each in rounds)
    return found


def measure(sizes: list[int], count: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Return the summary of each kind and size, or why there is none."""
    samples: dict[tuple[str, int], list[dict[str, Any]]] = {}
    missing: dict[tuple[str, int], str] = {}
    for _ in range(rounds):
        for nodes in sizes:
            for kind in KINDS:
                result = run_side(kind, nodes, count)
                if isinstance(result, str):
                    missing[kind, nodes] = result
                else:
                    samples.setdefault((kind, nodes), []).append(result)
    found: dict[str, dict[str, Any]] = {}
    for nodes in sizes:
        for kind in KINDS:
            rows = samples.get((kind, nodes))
            found[f"{kind}, {nodes} nodes"] = summary(rows) if rows else {"failed": missing[kind, nodes]}
    return found


def as_markdown(
    facts: dict[str, object], told: dict[str, object], rows: dict[str, dict[str, Any]], date: str
) -> str:
    """Return the result for people."""
    lines = [f"# DHT beside opendht and kademlia, {date}", ""]
    lines += [f"- {name}: {facts[name]}" for name in ("cpu", "cores usable", "kernel", "python", "commit")]
    lines += [f"- load average before and after: {facts['load average']}, {machine.load()}", f"- {told}", ""]
    lines += [
        "All nodes of a side are in one process on loopback. `dtp` signs and checks what it keeps, and a get waits",
        "for three paths; nodes of one process share what it remembers of signatures it has checked (50 us each).",
        "`opendht` and `kademlia` keep unsigned values. `kademlia` returns what the node itself keeps without",
        "asking, which with 20 nodes is everything; `opendht` is timed until the first value.",
        "",
        "## Figures",
        "",
        "| figure | at most (aim), ms | dtp | opendht | kademlia | |",
        "|---|---|---|---|---|---|",
    ]
    for name, nodes, operation, part, most, aim in FIGURES:
        key = f"{operation} p{round(100 * part)}"
        values = [rows.get(f"{kind}, {nodes} nodes", {}).get(key) for kind in KINDS]
        cells = ["-" if value is None else f"{value:.2f}" for value in values]
        ours = values[0]
        verdict = "-" if ours is None else "aim" if ours <= aim else "met" if ours <= most else "**missed**"
        lines.append(f"| {name} | {most:g} ({aim:g}) | {' | '.join(cells)} | {verdict} |")
    columns = [
        "put p50",
        "put p99",
        "get p50",
        "get p99",
        "dead p50",
        "dead p99",
        "put cpu",
        "get cpu",
        "missing",
    ]
    lines += ["", "## All, ms (CPU: of all nodes for one operation)", ""]
    lines += [f"| | {' | '.join(columns)} |", "|---" * 10 + "|"]
    for name, row in rows.items():
        if "failed" in row:
            lines.append(f"| {name} | {row['failed']} |" + " |" * (len(columns) - 1))
        else:
            lines.append(f"| {name} | {' | '.join(f'{row[column]:.2f}' for column in columns)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.dht", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=200, help="operations of each kind and round")
    parser.add_argument("--nodes", type=int, action="append", help="default: 20 and 60")
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results")
    arguments = parser.parse_args()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    facts = machine.facts()
    sizes = arguments.nodes or [20, 60]
    rows = measure(sizes, arguments.count, arguments.rounds)
    told: dict[str, object] = {"rounds": arguments.rounds, "operations": arguments.count}
    text = as_markdown(facts, told, rows, date)
    if arguments.save:
        folder = ROOT / "bench" / "results"
        (folder / f"{date}-dht.md").write_text(text, encoding="utf-8")
        kept = {"machine": facts, "options": told, "rows": rows}
        (folder / f"{date}-dht.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
