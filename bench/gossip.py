"""`python -m bench.gossip`: topics of 30 nodes in two processes, beside py-libp2p's GossipSub.

Every node is linked with every other, over TCP on loopback, and all have one topic. Measured are the time from
publishing a signed message of 256 B until each other node's program has it, the messages a second that every node
gets when two nodes (one in each process) publish without a pause, and the processor time of both processes for each
message and node. By the rule of these benchmarks each side is on a core of its own: each process is held to one (as
`CPUAffinity=` of a service does), of dtp and py-libp2p alike, and what was promised is judged by these rows. Each
contender runs once more where the scheduler puts its processes, which wake each other. Of dtp it is told how many of
the lone messages reached the other process on the core that they were published on: there both take turns, and the
delay is that of one core for all 30 nodes.
py-libp2p runs in the environment whose interpreter $BENCH_LIBP2P_PYTHON names; without it its rows say so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

SIZE = 256
TOPIC = "bench"
RESULTS = Path(__file__).parent / "results"
RIVAL_PYTHON = "BENCH_LIBP2P_PYTHON"
#: Behind the names of rows whose processes may share a core.
_LOOSE = ", placed by the scheduler"
#: What a result says of where its processes ran.
_PLACES = (
    "Each of the two processes is held to a core of its own, of dtp and py-libp2p alike. In rows with\n"
    f'"{_LOOSE[2:]}" they are not held, and may share a core; a machine with one core has only these.'
)
#: What was promised of dtp's own figures and of the ratio: row, column, bound, aim. Of rates the larger is better.
FIGURES = (
    ("dtp", "p50 ms", 3, 1.2),
    ("dtp", "p99 ms", 8, 2.5),
    ("dtp", "delivered %", 100, 100),
    ("dtp", "alone, CPU ms/message/node", 0.34, 0.1),
    ("dtp", "messages/s", 400, 2000),
    ("dtp", "flooded, delivered %", 100, 100),
    ("dtp", "flooded, CPU ms/message/node", 0.34, 0.1),
    ("ratio", "p50 ms", 10, 25),
    ("ratio", "messages/s", 33, 100),
)


# ---- a process with half of the nodes ----------------------------------------------------------------------------


def say(value: object) -> None:
    """Tell the parent."""
    print(json.dumps(value), flush=True)


async def hear() -> Any:
    """Wait for what the parent says."""
    return json.loads(await asyncio.to_thread(sys.stdin.readline) or "null")


def _find_core() -> Callable[[], int]:
    """Return what tells the core that this thread is on; -1 where the system doesn't say."""
    found = getattr(ctypes.PyDLL(None), "sched_getcpu", None)  # nothing else runs meanwhile: it takes no time
    return (lambda: -1) if found is None else found


core = _find_core()


class Group:
    """The nodes of one process, and what they got."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.got = 0
        self.arrivals: list[tuple[int, float, int]] = []
        self.is_timing = False
        self.wanted = self.expected = 0
        self.reached = asyncio.Event()

    def took(self, data: bytes) -> None:
        """A node's program has a message."""
        self.got += 1
        if self.is_timing:
            self.arrivals.append((int.from_bytes(data[:8], "big"), time.monotonic(), core()))
        if self.got >= self.wanted:
            self.reached.set()

    async def wait_for(self, more: int, patience: float) -> bool:
        """Wait until so many more have come, since `begin`; False when they don't within the patience."""
        self.wanted = more
        if self.got >= more:
            return True
        self.reached.clear()
        try:
            await asyncio.wait_for(self.reached.wait(), patience)
        except TimeoutError:
            return False
        return True


async def ours(count: int, base: int) -> None:
    """Half of the nodes of dtp."""
    import dtp
    from dtp.gossip import PROTOCOL, Gossip
    from dtp.peers.links import NODE_SERVICE, PeerLinks

    group = Group(count)
    made, addresses = [], []
    for _ in range(count):
        me = dtp.Identity.generate()
        gossip, links = Gossip(me), PeerLinks(me)
        links.protocols[PROTOCOL] = gossip.serve
        listener = await dtp.listen("tcp://127.0.0.1:0", {NODE_SERVICE: links.accept}, identity=me)
        await gossip.__aenter__()
        links.listen(gossip.add_link, lambda link: None)
        made.append((gossip, links))
        addresses.append(str(listener.address(NODE_SERVICE)))
    say(addresses)
    everybody = await hear()
    for at, (_, links) in enumerate(made):
        for address in everybody[base + at + 1 :]:
            await links.connect(address)
    topics = []
    for gossip, _ in made:
        topics.append(await gossip.topic(TOPIC, room=100_000).__aenter__())
    readers = [asyncio.ensure_future(_read(topic, group)) for topic in topics]
    while any(len(topic.members) < len(everybody) - 1 for topic in topics):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await asyncio.sleep(2.0)  # all have said whom they send to
    say("ready")
    await _serve(group, topics[0].publish)
    counts = sum((gossip.counts for gossip, _ in made), start=type(made[0][0].counts)())
    say(counts)
    for reader in readers:
        reader.cancel()
    os._exit(0)


async def _read(topic: Any, group: Group) -> None:
    async for message in topic:
        group.took(message.data)


async def _serve(group: Group, publish: Any) -> None:
    """Do what the parent says, and tell what came of it."""
    while (order := await hear()) is not None:
        group.arrivals, group.is_timing = [], order["timing"]
        before, group.expected = group.expected, group.expected + order["expect"]
        cpu, began = time.process_time(), time.monotonic()
        say("begun")
        published, cores = [], []
        if order["publish"]:
            for number in range(order["publish"]):
                data = number.to_bytes(8, "big")
                if order["timing"]:
                    published.append(
                        time.monotonic()
                    )  # told later: waking the parent would cost a node's time
                    await publish(data + bytes(SIZE - 8))
                    cores.append(core())
                    await asyncio.sleep(order["pause"])
                else:
                    await publish(data + bytes(SIZE - 8))
        arrived = await group.wait_for(group.expected, order["patience"])
        say(
            {
                "arrived": group.got - before,
                "all": arrived,
                "seconds": time.monotonic() - began,
                "cpu": time.process_time() - cpu,
                "published": published,
                "cores": cores,
                "arrivals": group.arrivals,
            }
        )


# ---- the parent --------------------------------------------------------------------------------------------------


#: Seconds in which a process has its nodes, has them linked, and has begun with what it was told or told of it; and
#: those that it has for each message.
_MADE, _LINKED, _DONE = 60.0, 300.0, 60.0
_EACH = 0.1


class Failed(RuntimeError):
    """A contender can't be measured."""


class Half:
    """A process with half of the nodes, as the parent sees it."""

    def __init__(self, python: str, kind: str, count: int, base: int, core: int | None) -> None:
        """With a `core` it has no other one."""
        command = [python, "-m", "bench.gossip", "--half", kind, "--nodes", str(count), "--base", str(base)]
        if kind == "libp2p":
            command[1:3] = [str(Path(__file__).parent / "gossip_libp2p.py")]
        self._kind = kind
        self._heard = b""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log if kind == "libp2p" else None,  # it logs a line for each GRAFT
            cwd=Path(__file__).parents[1],
        )
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})  # it has no threads yet that wouldn't follow

    def say(self, value: object) -> None:
        """Tell it something. That it has ended is found by what it doesn't answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), json.dumps(value).encode() + b"\n")

    def hear(self, within: float) -> Any:
        """Return its next word. Raise `Failed` if it ends first, or says nothing for so many seconds."""
        assert self._process.stdout is not None
        until = time.monotonic() + within
        while b"\n" not in self._heard:
            if not select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
                raise Failed(
                    f"half of the nodes of {self._kind} said nothing for {within:g} s{self._last_words()}"
                )
            if not (data := os.read(self._process.stdout.fileno(), 1 << 16)):
                raise Failed(f"half of the nodes of {self._kind} ended{self._last_words()}")
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return json.loads(line)

    def _last_words(self) -> str:
        """Return the last line that it logged, if any."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        last = next((each.strip(" |+-") for each in reversed(lines) if each.strip(" |+-")), "")
        return f"; it logged last: {last[:200]}" if last else ""

    def end(self) -> None:
        """Let it end."""
        with self._process, self._log:
            self._process.kill()


def measure(
    kind: str,
    python: str,
    nodes: int,
    times: int,
    sustained: int,
    patience: float,
    cores: Sequence[int | None],
) -> dict[str, float]:
    """Return the figures of one contender, whose two processes are held to these cores."""
    each = nodes // 2
    halves = [Half(python, kind, each, base, core) for base, core in zip((0, each), cores, strict=True)]
    try:
        addresses = [half.hear(_MADE) for half in halves]
        for half in halves:
            half.say([*addresses[0], *addresses[1]])
        for half in halves:
            assert half.hear(_LINKED) == "ready"
        figures = _latency(halves, nodes, times, patience)
        figures |= _throughput(halves, nodes, sustained, patience)
        return figures
    finally:
        for half in halves:
            half.end()


def _order(**changes: object) -> dict[str, object]:
    return {"timing": False, "publish": 0, "expect": 0, "patience": 30.0, "pause": 0.0} | changes


def _latency(halves: list[Half], nodes: int, times: int, patience: float) -> dict[str, float]:
    each = nodes // 2
    halves[1].say(_order(timing=True, expect=times * each, patience=patience))
    assert halves[1].hear(_DONE) == "begun"
    halves[0].say(
        _order(timing=True, publish=times, expect=times * (each - 1), patience=patience, pause=0.05)
    )
    assert halves[0].hear(_DONE) == "begun"
    told = [half.hear(patience + _DONE + times * _EACH) for half in halves]
    began = told[0]["published"]
    delays = sorted((when - began[number]) * 1000 for half in told for number, when, *_ in half["arrivals"])
    cores, across = told[0].get("cores"), told[1]["arrivals"]
    shared = {} if not cores else {"on one core %": _share(cores[number] == at for number, _, at in across)}
    return {
        "p50 ms": round(statistics.median(delays), 2),
        "p99 ms": round(delays[len(delays) * 99 // 100], 2),
        "delivered %": round(100 * len(delays) / (times * (nodes - 1)), 2),
        "alone, CPU ms/message/node": round(sum(half["cpu"] for half in told) * 1000 / times / nodes, 3),
        **shared,
    }


def _share(each: Iterable[bool]) -> float:
    """Return how many of a hundred are true."""
    found = list(each)
    return round(100 * sum(found) / max(1, len(found)), 1)


def _throughput(halves: list[Half], nodes: int, sustained: int, patience: float) -> dict[str, float]:
    each = nodes // 2
    for half in halves:
        half.say(
            _order(publish=sustained, expect=sustained * each + sustained * (each - 1), patience=patience)
        )
    for half in halves:
        assert half.hear(_DONE) == "begun"
    told = [half.hear(patience + _DONE + sustained * _EACH) for half in halves]
    seconds = max(half["seconds"] for half in told)  # until the last one came
    messages = 2 * sustained
    arrived = sum(half["arrived"] for half in told)
    share = arrived / (messages * (nodes - 1))
    return {
        "messages/s": round(messages * share / seconds, 1),
        "flooded, delivered %": round(100 * share, 2),
        "flooded, CPU ms/message/node": round(sum(half["cpu"] for half in told) * 1000 / messages / nodes, 4),
    }


def report(rows: dict[str, dict[str, float] | str], nodes: int) -> str:
    """Return the table in Markdown."""
    columns = list(next(each for each in rows.values() if isinstance(each, dict)))
    lines = [
        f"| {nodes} nodes, 2 processes, {SIZE} B | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, figures in rows.items():
        cells = [str(figures.get(each, "")) for each in columns] if isinstance(figures, dict) else [figures]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdicts(rows: dict[str, dict[str, float] | str]) -> str:
    """Return a table in Markdown of what was promised and what came of it."""
    lines = ["| asked for | bound (aim) | measured | |", "|---|---|---|---|"]
    for row, column, bound, aim in FIGURES:
        for place in ("", _LOOSE):
            figures = rows.get(row + place)
            if isinstance(figures, dict):
                sign = -1 if row != "ratio" and (" ms" in column or "CPU" in column) else 1
                found = sign * figures[column]
                word = "aim met" if found >= sign * aim else "met" if found >= sign * bound else "**missed**"
                lines.append(f"| {row}{place}: {column} | {bound} ({aim}) | {figures[column]} | {word} |")
    return "\n".join(lines)


def _ratio(name: str, ours_: float, theirs: float) -> float:
    """Return how many times better ours is: of times the smaller is, of rates the larger."""
    better, worse = (ours_, theirs) if " ms" in name or "CPU" in name else (theirs, ours_)
    return round(worse / better, 2) if better else float("nan")


def _runs(options: argparse.Namespace) -> list[tuple[str, Callable[[], dict[str, float]]]]:
    """Return what a round measures, by the names of the rows: each contender with a core for each process, where the
    machine has two, and where the scheduler puts them."""
    usable = sorted(os.sched_getaffinity(0))
    places: list[tuple[str, Sequence[int | None]]] = [(_LOOSE, (None, None))]
    if len(usable) > 1:
        places.insert(0, ("", usable[:2]))
    contenders = [("dtp", "ours", sys.executable, options.times, options.sustained, 120.0)]
    if rival := os.environ.get(RIVAL_PYTHON):
        contenders.append(("py-libp2p", "libp2p", rival, 20, 30, 60.0))
    return [
        (name + place, partial(measure, kind, python, options.nodes, times, sustained, patience, cores))
        for place, cores in places
        for name, kind, python, times, sustained, patience in contenders
    ]


def _measure_rounds(
    options: argparse.Namespace,
) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    """Return the figures of each round by the names of the rows, and why a rival has none: it isn't tried again."""
    rounds: dict[str, list[dict[str, float]]] = {}
    faults: dict[str, str] = {}
    for _ in range(options.rounds):
        for name, run in _runs(options):
            if name in faults:
                continue
            try:
                rounds.setdefault(name, []).append(run())
            except Failed as fault:
                if name.startswith("dtp"):
                    raise
                faults[name] = str(fault)
                print(f"{name}: {fault}", file=sys.stderr)
                del rounds[name]
    return rounds, faults


def main() -> None:
    """Measure, print, and keep with `--save`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=30)
    parser.add_argument("--times", type=int, default=100, help="messages whose delay is measured")
    parser.add_argument("--sustained", type=int, default=4000, help="messages of each of two publishers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--half", help=argparse.SUPPRESS)
    parser.add_argument("--base", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.half:
        asyncio.run(ours(options.nodes, options.base))
        return
    from bench import machine

    facts = machine.facts()
    rounds, faults = _measure_rounds(options)
    rows: dict[str, dict[str, float] | str] = {
        name: {each: round(statistics.median(one[each] for one in found), 3) for each in found[0]}
        for name, found in rounds.items()
    }
    rows |= {name: f"not measured: {fault}" for name, fault in faults.items()}
    for place in ("", _LOOSE):
        theirs, ours_ = rows.get(f"py-libp2p{place}"), rows.get(f"dtp{place}")
        if isinstance(theirs, dict) and isinstance(ours_, dict):
            rows[f"ratio{place}"] = {each: _ratio(each, ours_[each], theirs[each]) for each in theirs}
    if not os.environ.get(RIVAL_PYTHON):
        rows["py-libp2p"] = f"not measured: ${RIVAL_PYTHON} names no interpreter"
    text = f"{_PLACES}\n\n{report(rows, options.nodes)}\n\n{verdicts(rows)}"
    print(text)
    if options.save:
        _save(text, facts, rows, rounds)


def _save(
    text: str, facts: dict[str, object], rows: object, rounds: dict[str, list[dict[str, float]]]
) -> None:
    """Keep a result, with what the machine was."""
    count = len(next(iter(rounds.values())))
    name = f"{time.strftime('%Y-%m-%d')}-gossip"
    RESULTS.joinpath(f"{name}.json").write_text(
        json.dumps({"machine": facts, "rows": rows, "rounds": rounds}, indent=1) + "\n"
    )
    lines = (
        f"# Gossip, {time.strftime('%Y-%m-%d')}",
        f"`python -m bench.gossip`: {facts['cpu']}, {facts['cores usable']} cores, load {facts['load average']} at "
        f"the beginning, {facts['python']}, commit {facts['commit']}; medians of {count} interleaved rounds.",
        text,
    )
    RESULTS.joinpath(f"{name}.md").write_text("\n\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
