"""`python -m bench.messaging_matrix`: from sending to reading, beside Matrix (Synapse with SQLite, two nio clients).

Two people are connected to one server on loopback; one writes 256 B, and the next once the other's program has it.
The server is a process of its own, both people are in another. Contenders take turns. Matrix lives in an environment
of its own (`pip install matrix-synapse 'matrix-nio[e2e]'`), whose interpreter $BENCH_MATRIX_PYTHON names.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import machine
from bench.job import percentile
from bench.messaging import TEXT
from bench.runner import ROOT
from dtp.identity import Identity
from dtp.messaging.person.messenger import Messenger

RIVAL_PYTHON = "BENCH_MATRIX_PYTHON"
RESULTS = Path(__file__).parent / "results"
#: Rows, by what each side is told: ours, and Matrix without and with encryption.
KINDS = {"dtp": "", "Matrix, in the clear": "plain", "Matrix, end to end": "sealed"}
#: How many times sooner a message has to be read than by Matrix.
BOUND = 5.0
#: Behind the names of rows whose stores are in memory: what the others take more is the disk.
_MEMORY = ", in memory"
_MEMORY_AT = "/dev/shm"
_PATIENCE = 300
#: What the figures don't show.
DIFFERS = (
    "dtp seals each message by itself (Olm), pads it, and hides who sent it from the mailbox; each end and the "
    "mailbox have it on the disk, synced, before it counts as sent, kept or read, and the reader marks it as read.",
    "Matrix in the clear hides nothing of it from the server; end to end it is Megolm, by the same library, which "
    "seals once for a room and rotates its key each 100 messages. The server writes SQLite with a log ahead, and "
    "syncs each transaction; clients keep keys and the place of the sync on the disk, and no messages.",
    "Synapse has no limits of rate, no presence, no compression and logs warnings alone; both clients wait in a "
    "sync of 30 s. It keeps a history that other servers could join, which a mailbox does not.",
)


async def ours(folder: str, count: int) -> dict[str, Any]:
    """Return seconds from sending until each message is read, and processor seconds of both ends and the mailbox."""
    command = (sys.executable, "-m", "bench.messaging_side", f"{folder}/box")
    server = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert server.stdin is not None
    assert server.stdout is not None
    at = [(await server.stdout.readline()).decode().strip()]
    took, used = [], 0.0
    alice, bob = [
        Messenger(identity=Identity.generate(), store=f"{folder}/{name}", mailboxes=at, read_receipts=False)
        for name in ("alice", "bob")
    ]
    async with alice, bob:
        await alice.wait_reached()
        await bob.wait_reached()
        contact, messages = await alice.add_contact(bob.card), aiter(bob)
        for number in range(count + 1):
            if number == 1:
                used = _processor(server.pid)
            began = time.perf_counter()
            await alice.send(contact, TEXT)
            message = await anext(messages)
            took.append(time.perf_counter() - began)
            await message.mark_read()
        used = _processor(server.pid) - used
    server.stdin.close()
    await server.wait()
    return {"took": took[1:], "cpu": used, "versions": {}}


def _processor(server: int) -> float:
    """Return what this process and the server have used of the processor, seconds."""
    fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_side(kind: str, count: int, disk: str | None) -> dict[str, Any]:
    """Return what one contender measured, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        if kind:
            side = str(Path(__file__).with_name("matrix_side.py"))
            command = [os.environ[RIVAL_PYTHON], "-P", side, folder, str(count), kind]
        else:
            command = [
                sys.executable,
                "-m",
                "bench.messaging_matrix",
                "--side",
                folder,
                "--count",
                str(count),
            ]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=_PATIENCE, check=True, cwd=ROOT
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def summary(found: dict[str, Any]) -> dict[str, float]:
    """Return a round's figures, ms."""
    took, count = found["took"], len(found["took"])
    return {
        "p50 ms": percentile(took, 0.5) * 1000,
        "p99 ms": percentile(took, 0.99) * 1000,
        "CPU ms/message": found["cpu"] * 1000 / count,
    }


def medians(rounds: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the medians of each row over the rounds, and how many times more each Matrix takes than dtp."""
    rows = {
        name: {each: round(statistics.median(one[each] for one in told), 3) for each in told[0]}
        for name, told in rounds.items()
    }
    for name in list(rows):
        mine = rows["dtp" + (_MEMORY if name.endswith(_MEMORY) else "")]
        if not name.startswith("dtp"):
            rows[f"{name} / dtp"] = {each: round(value / mine[each], 2) for each, value in rows[name].items()}
    return rows


def report(rows: dict[str, dict[str, float]]) -> str:
    """Return the tables in Markdown."""
    columns = list(rows["dtp"])
    lines = [f"| send to read, 256 B | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(f'{row[each]:.2f}' for each in columns)} |" for name, row in rows.items()
    ]
    ratios = {name: row["p50 ms"] for name, row in rows.items() if name.endswith("/ dtp")}
    if not ratios:
        return "\n".join([*lines, "", f"Matrix: not measured, ${RIVAL_PYTHON} names no interpreter."])
    lines += ["", "| asked for | bound | measured | |", "|---|---|---|---|"]
    for name, ratio in ratios.items():
        lines.append(f"| {name}, p50 | {BOUND:g} | {ratio} | {'met' if ratio >= BOUND else '**missed**'} |")
    return "\n".join([*lines, "", *(f"- {each}" for each in DIFFERS)])


def main() -> None:
    """Measure, print, and keep with `--save`."""
    parser = argparse.ArgumentParser(prog="python -m bench.messaging_matrix", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="messages of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where stores are; on the disk that is to be measured")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(asyncio.run(ours(options.side, options.count))))
        return
    facts = machine.facts()
    kinds = {name: kind for name, kind in KINDS.items() if not kind or os.environ.get(RIVAL_PYTHON)}
    places = {"": options.folder, **({_MEMORY: _MEMORY_AT} if os.access(_MEMORY_AT, os.W_OK) else {})}
    rounds: dict[str, list[dict[str, float]]] = {name + place: [] for place in places for name in kinds}
    versions: dict[str, str] = {}
    for _ in range(options.rounds):
        for place, folder in places.items():
            for name, kind in kinds.items():
                found = run_side(kind, options.count, folder)
                rounds[name + place].append(summary(found))
                versions |= found["versions"]
    rows = medians(rounds)
    print(report(rows))
    if options.save:
        name = f"{time.strftime('%Y-%m-%d')}-messaging-matrix"
        kept = {"machine": facts, "versions": versions, "rows": rows, "rounds": rounds}
        RESULTS.joinpath(f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
        told = ", ".join(f"{each} {number}" for each, number in versions.items())
        head = (
            f"# Messages beside Matrix, {time.strftime('%Y-%m-%d')}\n\n`python -m bench.messaging_matrix`: "
            f"{facts['cpu']}, {facts['cores usable']} cores, load {facts['load average']} at the beginning, "
            f"{facts['python']}, commit {facts['commit']}, {told}; medians of {options.rounds} rounds of "
            f"{options.count} messages, by turns."
        )
        RESULTS.joinpath(f"{name}.md").write_text(f"{head}\n\n{report(rows)}\n")


if __name__ == "__main__":
    main()
