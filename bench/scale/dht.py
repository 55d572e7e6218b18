"""`python -m bench.scale.dht`: look-ups of the DHT under churn, loss and liars; simulated, reduced and extrapolated.

Three steps, each said beside its figures: whole nodes by the thousand (`dht_whole`), look-ups alone among up to a
million ids (`dht_reduced`), and a line fitted to those for sizes beyond.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
import time
from dataclasses import asdict, replace
from typing import Any

from bench import machine
from bench.runner import ROOT
from bench.scale import dht_reduced, dht_whole

_COLUMNS = ("gets", "found %", "p50 s", "p99 s", "questions p50")


def run_whole(conditions: dht_whole.Conditions) -> dict[str, Any]:
    """Return the minutes of a whole simulation, and how tables are at its end."""
    began = time.process_time()
    simulation = dht_whole.Simulation(conditions)
    simulation.grow(lambda text: print(f"  {text}, {time.process_time() - began:.0f} s", file=sys.stderr))
    grown = time.process_time() - began
    simulation.publish()
    minutes = []
    for number in range(conditions.minutes):
        minutes.append(simulation.run_minute().summary())
        print(f"  minute {number + 1}: {minutes[-1]}", file=sys.stderr)
    return {
        "conditions": asdict(conditions),
        "minutes": minutes,
        "tables": simulation.tables(),
        "cpu s": time.process_time() - began,
        "cpu s to join": grown,
    }


def fit(rows: list[dict[str, float]], column: str) -> tuple[float, float]:
    """Return a and b of a + b * log2(nodes), by least squares."""
    xs = [math.log2(row["nodes"]) for row in rows]
    ys = [row[column] for row in rows]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)
    return y - slope * x, slope


def run_reduced(sizes: list[int], base: dht_reduced.Conditions) -> list[dict[str, float]]:
    """Return the figures of each size."""
    rows = []
    for nodes in sizes:
        rows.append(dht_reduced.simulate(replace(base, nodes=nodes)))
        print(f"  {rows[-1]}", file=sys.stderr)
    return rows


def as_markdown(result: dict[str, Any], date: str) -> str:
    """Return the result for people."""
    facts = result["machine"]
    lines = [f"# DHT at scale, {date}", "", f"- cpu: {facts['cpu']}", f"- commit: {facts['commit']}", ""]
    for whole in result["whole"]:
        lines += _whole_lines(whole)
    if result["reduced"]:
        lines += _reduced_lines(result)
    return "\n".join(lines) + "\n"


def _whole_lines(whole: dict[str, Any]) -> list[str]:
    told = whole["conditions"]
    slow = 1000 * (told["latency"] + told["spread"])
    lines = [
        f"## Simulated whole: {told['nodes']:,} nodes",
        "",
        "Each node is the `DhtNode` that runs for real, with its datagrams, signatures, tables and timers. Simulated",
        f"are the clock and the network: {1000 * told['latency']:.0f} to {slow:.0f} ms one way,",
        f"{100 * told['loss']:g} % loss, {100 * told['churn']:g} % of the nodes replaced each minute without a word,",
        f"{100 * told['sybils']:g} % sybils that tell of sybils alone and keep nothing, each in a subnet of its own.",
        "Gets are by honest nodes chosen at random, of values whose authors stay.",
        "",
        f"{whole['cpu s']:.0f} s of processor time, {whole['cpu s to join']:.0f} s of them for all to join."
        + _state(whole),
        "",
        f"| minute | {' | '.join((*_COLUMNS, 'datagrams/s and node'))} |",
        "|---" * (len(_COLUMNS) + 2) + "|",
    ]
    for number, minute in enumerate(whole["minutes"], 1):
        cells = [f"{minute[column]:.2f}" for column in (*_COLUMNS, "datagrams/s and node")]
        lines.append(f"| {number} | {' | '.join(cells)} |")
    return [*lines, ""]


def _state(whole: dict[str, Any]) -> str:
    """Return how tables are in the end; where the run was stopped before, that it was."""
    tables = whole.get("tables")
    if tables is None:
        return f" Stopped after {len(whole['minutes'])} of {whole['conditions']['minutes']} minutes."
    parts = f"{tables['dead %']:.0f} % of them dead and {tables['sybils %']:.0f} % sybils"
    return f" In the end a table has {tables['contacts']:.0f} contacts, {parts}."


def _reduced_lines(result: dict[str, Any]) -> list[str]:
    told = result["reduced conditions"]
    lines = [
        "## Simulated with reduced bookkeeping",
        "",
        "Only the look-ups are real (`Lookup`). What a node would answer is worked out from a table drawn for it;",
        f"which entries are dead ({100 * told['dead']:.0f} %), lie ({100 * told['sybils']:.0f} %), or have to prove",
        f"themselves first ({100 * told['strangers']:.0f} %), latency and loss are drawn. No bytes, no signatures,",
        "no upkeep, no storing.",
        "",
        f"| nodes | {' | '.join(_COLUMNS)} | hops p50 | hops p99 |",
        "|---" * (len(_COLUMNS) + 3) + "|",
    ]
    columns = (*_COLUMNS, "hops p50", "hops p99")
    for row in result["reduced"]:
        lines.append(f"| {row['nodes']:,.0f} | {' | '.join(f'{row[column]:.2f}' for column in columns)} |")
    lines += ["", "## Extrapolated", ""]
    lines += [
        "A line over log2 of the size, fitted to the sizes up to 100,000; beside it what a reduced run of that size"
    ]
    lines += ["came to, where there is one. The line knows nothing that the reduced runs don't.", ""]
    lines += ["| nodes | figure | line | run |", "|---|---|---|---|"]
    for row in result["extrapolated"]:
        run = "-" if row["run"] is None else f"{row['run']:.2f}"
        lines.append(f"| {row['nodes']:,} | {row['figure']} | {row['line']:.2f} | {run} |")
    return lines


def extrapolate(
    rows: list[dict[str, float]], sizes: tuple[int, ...] = (1_000_000, 10_000_000)
) -> list[dict[str, Any]]:
    """Return what the lines say of larger sizes, and what runs of them came to."""
    known = [row for row in rows if row["nodes"] <= 100_000]
    found = []
    for nodes in sizes:
        run = next((row for row in rows if row["nodes"] == nodes), None)
        for column in ("p50 s", "p99 s", "questions p50", "hops p50"):
            a, b = fit(known, column)
            line = a + b * math.log2(nodes)
            found.append({"nodes": nodes, "figure": column, "line": line, "run": run and run[column]})
    return found


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale.dht", description=__doc__)
    parser.add_argument(
        "--whole", type=int, action="append", help="nodes of a whole simulation (default 1000; 0: none)"
    )
    parser.add_argument("--minutes", type=int, default=10, help="of a whole simulation")
    parser.add_argument(
        "--reduced", type=int, action="append", help="nodes of a reduced one (default up to 1,000,000)"
    )
    parser.add_argument("--lookups", type=int, default=300, help="of a reduced one")
    parser.add_argument(
        "--dead", type=float, default=0.12, help="part of entries, as a whole simulation has it"
    )
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results")
    arguments = parser.parse_args()
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    whole = [run_whole(dht_whole.Conditions(nodes=nodes, minutes=arguments.minutes))
             for nodes in arguments.whole or [1000] if nodes]  # fmt: skip
    dead = whole[-1]["tables"]["dead %"] / 100 if whole else arguments.dead
    base = dht_reduced.Conditions(nodes=0, lookups=arguments.lookups, dead=dead)
    sizes = arguments.reduced or [1_000, 3_000, 10_000, 30_000, 100_000, 1_000_000]
    rows = run_reduced(sorted(size for size in sizes if size), base)
    result = {"machine": machine.facts(), "whole": whole, "reduced": rows, "reduced conditions": asdict(base)}
    result["extrapolated"] = extrapolate(rows) if len(rows) > 1 else []
    text = as_markdown(result, date)
    if arguments.save:
        folder = ROOT / "bench" / "results"
        (folder / f"{date}-scale-dht.md").write_text(text, encoding="utf-8")
        (folder / f"{date}-scale-dht.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
