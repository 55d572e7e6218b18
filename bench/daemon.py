"""`python -m bench.daemon`: a pair of `dtpd` beside HAProxy, nginx, stunnel and spiped, under the same programs.

Plaintext goes into the near end, encrypted to the far one, and out as plaintext to Redis or nginx on this machine.
What is not installed is left out and said. Each figure is the median of interleaved rounds; processor time is that
of both ends of the pair, user and system together.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contenders.tunnels import _die_with_parent
from bench.daemon_faults import idle, killed, rules, silent
from bench.daemon_pairs import BULK, PAIRS, Missing, Pair, Scene, need
from bench.machine import default_congestion, facts
from bench.runner import ROOT

#: Idle clients: few for rivals, whose memory and handshakes are many times ours.
IDLE, IDLE_RIVALS = 5000, 500


# ---- what is measured --------------------------------------------------------------------------------------------


def _redis(pair: Pair, clients: int, requests: int, *options: str) -> dict[str, float]:
    """GETs of 64 bytes by redis-benchmark: requests/s and p99 in ms."""
    done = subprocess.run(
        [need("redis-benchmark"), "-p", str(pair.redis), "-c", str(clients), "-n", str(requests), "-t", "get",
         "--csv", "--precision", "3", *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )  # fmt: skip
    names, values = (line.replace('"', "").split(",") for line in done.stdout.strip().splitlines()[-2:])
    row = dict(zip(names, values, strict=True))
    return {"per s": float(row["rps"]), "p99 ms": float(row["p99_latency_ms"])}


def small(pair: Pair, clients: int, requests: int) -> None:
    """Requests of 64 bytes on connections that stay."""
    before = pair.cpu()
    found = _redis(pair, clients, requests)
    pair.note(f"requests/s, {clients}", found["per s"])
    pair.note(f"p99 ms, {clients}", found["p99 ms"])
    pair.note(f"CPU us/request, {clients}", (pair.cpu() - before) / requests * 1e6)


def fresh(pair: Pair, requests: int) -> None:
    """A new connection for each request."""
    before = pair.cpu()
    pair.note("new/s", _redis(pair, 20, requests, "-k", "0")["per s"])
    pair.note("CPU us/new", (pair.cpu() - before) / requests * 1e6)


def bulk(pair: Pair, streams: int, size: int) -> None:
    """A large file by curl, over several connections at once."""
    before, began = pair.cpu(), time.perf_counter()
    done = [_fetch(pair, size) for _ in range(streams)]
    for process in done:
        if process.wait(timeout=300):
            raise RuntimeError(f"curl failed through {pair.name}")
    total = streams * size / 1e9
    pair.note(f"GB/s, {streams}", total / (time.perf_counter() - began))
    pair.note(f"CPU s/GB, {streams}", (pair.cpu() - before) / total)


def _fetch(pair: Pair, size: int) -> subprocess.Popen[bytes]:
    where = f"http://127.0.0.1:{pair.web}/large"
    return subprocess.Popen(
        [need("curl"), "--silent", "--fail", "--range", f"0-{size - 1}", "-o", "/dev/null", where],
        preexec_fn=_die_with_parent,
    )


def beside(pair: Pair, requests: int) -> None:
    """A small request at a time while a bulk transfer runs."""
    load = _fetch(pair, BULK)
    try:
        time.sleep(0.05)
        pair.note("p99 ms beside bulk", _redis(pair, 1, requests)["p99 ms"])
    finally:
        load.kill()
        load.wait()


# ---- the run -----------------------------------------------------------------------------------------------------


#: What `--section` chooses from.
SECTIONS = ("idle", "requests", "new", "bulk", "beside", "rules", "faults")


def _steps(scale: int, sections: Collection[str]) -> list[tuple[str, Callable[[Pair], None]]]:
    steps: list[tuple[str, str, Callable[[Pair], None]]] = [
        ("requests", "50 connections", lambda pair: small(pair, 50, 60_000 // scale)),
        ("requests", "500 connections", lambda pair: small(pair, 500, 40_000 // scale)),
        ("new", "new connections", lambda pair: fresh(pair, 4000 // scale)),
        ("bulk", "bulk, 1", lambda pair: bulk(pair, 1, BULK // scale)),
        ("bulk", "bulk, 8", lambda pair: bulk(pair, 8, BULK // scale // 8)),
        ("beside", "beside bulk", lambda pair: beside(pair, 1000 // scale)),
    ]
    return [(name, step) for section, name, step in steps if section in sections]


def measure(
    pairs: list[Pair], *, quick: bool, rounds: int, budget: float, sections: Collection[str] = SECTIONS
) -> Iterator[str]:
    """Interleaved rounds of `sections`; yields what is going on. No round begins once `budget` seconds are over."""
    began = time.monotonic()
    scale = 10 if quick else 1
    for pair in pairs if "idle" in sections else ():
        yield f"idle, {pair.name}"
        idle(pair, (IDLE if pair.rpc[0] else IDLE_RIVALS) // scale)
    for number in range(rounds):
        if number and time.monotonic() - began > budget * number / (number + 1):
            yield f"{number} of {rounds} rounds: the time is over"
            break
        for name, step in _steps(scale, sections):
            for pair in pairs:
                yield f"round {number + 1}, {name}, {pair.name}"
                try:
                    step(pair)
                except subprocess.SubprocessError as error:  # a rival may refuse so many at once
                    yield f"left out: {error}"
        for pair in pairs if "rules" in sections else ():
            if pair.rpc[0]:
                yield f"round {number + 1}, rules, {pair.name}"
                rules(pair, 4000 // scale)
    for pair in pairs if "faults" in sections else ():
        if not quick or pair.rpc[0]:
            yield f"the far end killed, {pair.name}"
            killed(pair)
        if not quick:
            yield f"a silent end, {pair.name}"
            silent(pair)


# ---- the report --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """A figure of `dtpd`: what it is compared with (the best of those, 0 for itself), and what it should be."""

    name: str
    of: str
    rivals: tuple[str, ...]
    target: float
    at_least: bool = True

    def value(self, medians: dict[str, dict[str, float]]) -> float | None:
        """Of this run; None when it or all rivals were left out."""
        ours = medians.get("dtpd", {}).get(self.of)
        if ours is None or not self.rivals:
            return ours
        theirs = [medians[name][self.of] for name in self.rivals if self.of in medians.get(name, {})]
        if not theirs:
            return None
        best = max(theirs) if self.at_least else min(theirs)
        return ours / best if best else None


_TLS = ("HAProxy", "stunnel", "nginx")
GOALS = (
    Goal("bulk, 1 stream, x the best of the TLS pairs", "GB/s, 1", _TLS, 1.2),
    Goal("bulk, 8 streams, x the best of the TLS pairs", "GB/s, 8", _TLS, 1.2),
    Goal("processor time per GB, 1 stream, x the best", "CPU s/GB, 1", _TLS, 1.0, at_least=False),
    Goal("processor time per GB, 8 streams, x the best", "CPU s/GB, 8", _TLS, 1.0, at_least=False),
    Goal("requests/s at 50, x stunnel", "requests/s, 50", ("stunnel",), 1.0),
    Goal("requests/s at 50, x HAProxy (aim 1.8)", "requests/s, 50", ("HAProxy",), 1.0),
    Goal("requests/s at 500, x HAProxy (aim 2.4)", "requests/s, 500", ("HAProxy",), 1.2),
    Goal("new connections/s, x the better of HAProxy and stunnel", "new/s", ("HAProxy", "stunnel"), 5.0),
    Goal("MiB for 5,000 idle clients, both ends", "MiB for 5,000 idle clients", (), 40.0, at_least=False),
    Goal("p99 of a small request beside bulk, ms", "p99 ms beside bulk", (), 1.0, at_least=False),
    Goal("traffic again after kill -9, ms", "ms until traffic again", (), 250.0, at_least=False),
    Goal("silence noticed after, s", "s until silence is noticed", (), 5.0, at_least=False),
    Goal("share of calls/s that rules cost, %", "% that rules cost", (), 5.0, at_least=False),
)


def medians_of(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """By pair and figure."""
    found = {
        pair.name: {name: statistics.median(samples) for name, samples in pair.figures.items()}
        for pair in pairs
    }
    for figures in found.values():
        without, ruled = (figures.get(f"CPU us/call, {name} rules") for name in ("without", "with"))
        if without and ruled:  # by processor time, which is what bounds calls/s and is steadier
            figures["% that rules cost"] = (1 - without / ruled) * 100
    return found


def table(medians: dict[str, dict[str, float]]) -> str:
    """Markdown: a row for each figure, a column for each pair, medians; then the goals."""
    names = list(dict.fromkeys(name for figures in medians.values() for name in figures))
    lines = [f"| | {' | '.join(medians)} |", f"|---|{'---|' * len(medians)}"]
    for name in names:
        cells = [f"{figures[name]:,.4g}" if name in figures else "" for figures in medians.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| figure | goal | measured | |", "|---|---|---|---|"]
    for goal in GOALS:
        value = goal.value(medians)
        sign = ">=" if goal.at_least else "<="
        if value is None:
            verdict, shown = "not measured", ""
        else:
            met = value >= goal.target if goal.at_least else value <= goal.target
            verdict, shown = "met" if met else "missed", f"{value:,.3g}"
        lines.append(f"| {goal.name} | {sign} {goal.target:g} | {shown} | {verdict} |")
    return "\n".join(lines)


def _save(pairs: Sequence[Pair], text: str, machine: dict[str, object], congestion: str | None) -> None:
    folder = ROOT / "bench" / "results"
    folder.mkdir(exist_ok=True)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    name = f"{date}-daemon-{congestion}" if congestion else f"{date}-daemon"
    record = {"machine": machine, "figures": {pair.name: pair.figures for pair in pairs}}
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    told = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    (folder / f"{name}.md").write_text(
        f"# A pair of tunnel ends, {date}\n\n{told}\n\n{text}\n", encoding="utf-8"
    )


def main() -> None:
    """Measure, print Markdown; with `--save` keep it and the samples as JSON in bench/results."""
    parser = argparse.ArgumentParser(prog="python -m bench.daemon", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of a tenth of everything")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 3)")
    parser.add_argument("--budget", type=float, default=360.0, help="seconds for the rounds (default 360)")
    parser.add_argument(
        "--only", action="append", choices=PAIRS, help="repeatable; default: all that are installed"
    )
    parser.add_argument(
        "--section", action="append", choices=SECTIONS, help="repeatable; default: all of them"
    )
    parser.add_argument(
        "--congestion",
        metavar="NAME",
        help="TCP's congestion control, the machine's default meanwhile (for root): BBR paces loopback, too",
    )
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if arguments.congestion:
            stack.enter_context(default_congestion(arguments.congestion))
        machine = facts()
        scene = Scene(Path(folder), stack)
        try:
            scene.servers()
        except Missing as missing:
            print(f"nothing is measured: {missing} is not installed", file=sys.stderr)
            return
        pairs = []
        for name in arguments.only or PAIRS:
            try:
                pairs.append(PAIRS[name](scene))
            except Missing as missing:
                print(f"{name} is left out: {missing} is not installed", file=sys.stderr)
        fill = [need("redis-benchmark"), "-p", str(scene.redis), "-n", "1", "-t", "set", "-d", "64", "--csv"]
        subprocess.run(fill, check=True, capture_output=True)
        rounds = arguments.rounds or (1 if arguments.quick else 3)
        sections = arguments.section or SECTIONS
        for doing in measure(
            pairs, quick=arguments.quick, rounds=rounds, budget=arguments.budget, sections=sections
        ):
            print(doing, file=sys.stderr, flush=True)
        text = table(medians_of(pairs))
    print(text)
    if arguments.save:
        _save(pairs, text, machine, arguments.congestion)


if __name__ == "__main__":
    main()
