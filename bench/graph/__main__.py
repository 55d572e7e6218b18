"""`python -m bench.graph`: measures merging beside its rivals, prints Markdown, keeps it with `--save`.

Every contender runs in a process of its own, in turn, some rounds; numbers are medians of processor time, so a busy
machine blurs them less. Node's contenders need `npm install @automerge/automerge gun` in the folder that
$BENCH_GRAPH_NODE names.
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

from bench import machine
from bench.graph.contenders import CONTENDERS
from bench.runner import ROOT

HERE = Path(__file__).parent
NODE = {"automerge": "automerge.cjs", "gun": "gun.cjs"}
#: Column -> what is promised: (number, at least?). docs/graph.md has the same as text.
TARGETS = {
    "merge 1000s /s": (3e6, True),
    "merge singles /s": (1.2e6, True),
    "local batch /s": (1e6, True),
    "local single /s": (0.4e6, True),
    "memory/property": (100, False),
    "save ms": (50, False),
    "load ms": (120, False),
    "size MB": (10, False),
    "bytes/update in 1000s": (30, False),
    "bytes/update alone": (42, False),
}


def _command(name: str, nodes: int, updates: int) -> tuple[list[str], dict[str, str]]:
    if name in NODE:
        modules = os.environ.get("BENCH_GRAPH_NODE", "")
        command = ["node", "--expose-gc", str(HERE / NODE[name]), str(nodes), str(updates)]
        return command, {"BENCH_GRAPH_NODE": str(Path(modules).resolve()) if modules else ""}
    return [sys.executable, "-m", "bench.graph.side", name, str(nodes), str(updates)], {
        "PYTHONPATH": str(ROOT)
    }


def _measure(name: str, nodes: int, updates: int, timeout: float) -> dict[str, float] | str:
    """One round of one contender: its numbers, or why there are none."""
    command, env = _command(name, nodes, updates)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)[:100]
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1][:100]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def report(medians: dict[str, dict[str, float] | str]) -> str:
    """The table, ours with verdicts, and the ratios that were promised."""
    lines = ["| | " + " | ".join(TARGETS) + " |", "|---" * (len(TARGETS) + 1) + "|"]
    goals = [f"{'≥' if more else '≤'} {_number(goal)}" for goal, more in TARGETS.values()]
    lines.append("| *promised* | " + " | ".join(goals) + " |")
    for name, found in medians.items():
        if isinstance(found, str):
            lines.append(f"| {name} | not measured: {found} |")
        else:
            shown = [_number(found[column]) if column in found else "-" for column in TARGETS]
            lines.append(f"| {name} | " + " | ".join(shown) + " |")
    ours = medians.get("dtp")
    if isinstance(ours, dict):
        rates = {n: f["merge 1000s /s"] for n, f in medians.items() if isinstance(f, dict) and n != "dtp"}
        plain = rates.pop("dict + msgpack", 0)
        lines.append("")
        if rates:
            best = max(rates, key=lambda name: rates[name])
            lines.append(
                f"{ours['merge 1000s /s'] / rates[best]:.1f} x {best}, the fastest library (promised: 12 x).  "
            )
        if plain:
            lines.append(f"{ours['merge 1000s /s'] / plain:.1f} x a plain dict (promised: 3.5 x).  ")
        missed = [c for c, (goal, more) in TARGETS.items() if (ours[c] < goal if more else ours[c] > goal)]
        lines.append(f"Missed: {', '.join(missed) or 'nothing'}.  ")
        lines.append("A part of the lead: a register here keeps no history; pycrdt, Loro and Automerge do.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.graph", description=__doc__)
    parser.add_argument(
        "--nodes", type=int, default=100_000, help="nodes, of four properties (default 100000)"
    )
    parser.add_argument("--updates", type=int, default=100_000, help="remote updates (default 100000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=[*CONTENDERS, *NODE], help="repeatable")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one contender and round")
    parser.add_argument("--save", action="store_true", help="keep JSON and Markdown in bench/results")
    options = parser.parse_args()
    names = options.only or [*CONTENDERS, *NODE]
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    failures: dict[str, str] = {}
    for _ in range(options.rounds):  # in turn, so that what disturbs one disturbs all
        for name in [name for name in names if name not in failures]:
            found = _measure(name, options.nodes, options.updates, options.timeout)
            if isinstance(found, str):
                failures[name] = found
            else:
                samples[name].append(found)
    medians: dict[str, dict[str, float] | str] = {
        name: {column: statistics.median(one[column] for one in rounds) for column in rounds[0]}
        if (rounds := samples[name])
        else failures.get(name, "no round")
        for name in names
    }
    facts = machine.facts()
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    told = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    what = f"Merging {options.updates:,} updates into {options.nodes:,} nodes"
    text = f"# {what}, {today}\n\n{told}\n\n{report(medians)}\n"
    print(text)
    if options.save:
        results = ROOT / "bench" / "results"
        (results / f"{today}-graph.md").write_text(text, encoding="utf-8")
        everything = {"machine": facts, "samples": samples, "failures": failures}
        (results / f"{today}-graph.json").write_text(
            json.dumps(everything, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
