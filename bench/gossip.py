"""`python -m bench.gossip`: topics of 30 nodes in two processes, beside py-libp2p's GossipSub.

Every node is linked with every other, over TCP on loopback, and all have one topic. Measured are the time from
publishing a signed message of 256 B until each other node's program has it, the messages a second that every node
gets when two nodes (one in each process) publish without a pause, and the processor time of both processes for each
message and node.
py-libp2p runs in the environment whose interpreter $BENCH_LIBP2P_PYTHON names; without it its rows say so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SIZE = 256
TOPIC = "bench"
RESULTS = Path(__file__).parent / "results"


# ---- a process with half of the nodes ----------------------------------------------------------------------------


def say(value: object) -> None:
    """Tell the parent."""
    print(json.dumps(value), flush=True)


async def hear() -> Any:
    """Wait for what the parent says."""
    return json.loads(await asyncio.to_thread(sys.stdin.readline) or "null")


class Group:
    """The nodes of one process, and what they got."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.got = 0
        self.arrivals: list[tuple[int, float]] = []
        self.is_timing = False
        self.wanted = self.expected = 0
        self.reached = asyncio.Event()

    def took(self, data: bytes) -> None:
        """A node's program has a message."""
        self.got += 1
        if self.is_timing:
            self.arrivals.append((int.from_bytes(data[:8], "big"), time.monotonic()))
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
        published = []
        if order["publish"]:
            for number in range(order["publish"]):
                data = number.to_bytes(8, "big")
                if order["timing"]:
                    published.append(
                        time.monotonic()
                    )  # told later: waking the parent would cost a node's time
                    await publish(data + bytes(SIZE - 8))
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
                "arrivals": group.arrivals,
            }
        )


# ---- the parent --------------------------------------------------------------------------------------------------


class Half:
    """A process with half of the nodes, as the parent sees it."""

    def __init__(self, python: str, kind: str, count: int, base: int) -> None:
        command = [python, "-m", "bench.gossip", "--half", kind, "--nodes", str(count), "--base", str(base)]
        if kind == "libp2p":
            command[1:3] = [str(Path(__file__).parent / "gossip_libp2p.py")]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if kind == "libp2p" else None,  # it logs a line for each GRAFT
            text=True,
            cwd=Path(__file__).parents[1],
        )

    def say(self, value: object) -> None:
        """Tell it something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """Wait for its next word."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a half of the nodes has ended")
        return json.loads(line)

    def end(self) -> None:
        """Let it end."""
        self._process.kill()
        self._process.wait()


def measure(
    kind: str, python: str, nodes: int, times: int, sustained: int, patience: float
) -> dict[str, float]:
    """Return the figures of one contender."""
    each = nodes // 2
    halves = [Half(python, kind, each, 0), Half(python, kind, each, each)]
    try:
        addresses = [half.hear() for half in halves]
        for half in halves:
            half.say([*addresses[0], *addresses[1]])
        for half in halves:
            assert half.hear() == "ready"
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
    assert halves[1].hear() == "begun"
    halves[0].say(
        _order(timing=True, publish=times, expect=times * (each - 1), patience=patience, pause=0.05)
    )
    assert halves[0].hear() == "begun"
    told = [half.hear() for half in halves]
    began = told[0]["published"]
    delays = sorted((when - began[number]) * 1000 for half in told for number, when in half["arrivals"])
    return {
        "p50 ms": round(statistics.median(delays), 2),
        "p99 ms": round(delays[len(delays) * 99 // 100], 2),
        "delivered %": round(100 * len(delays) / (times * (nodes - 1)), 2),
        "alone, CPU ms/message/node": round(sum(half["cpu"] for half in told) * 1000 / times / nodes, 3),
    }


def _throughput(halves: list[Half], nodes: int, sustained: int, patience: float) -> dict[str, float]:
    each = nodes // 2
    for half in halves:
        half.say(
            _order(publish=sustained, expect=sustained * each + sustained * (each - 1), patience=patience)
        )
    for half in halves:
        assert half.hear() == "begun"
    told = [half.hear() for half in halves]
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
        cells = [str(figures[each]) for each in columns] if isinstance(figures, dict) else [figures]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(name: str, ours_: float, theirs: float) -> float:
    """Return how many times better ours is: of times the smaller is, of rates the larger."""
    better, worse = (ours_, theirs) if " ms" in name or "CPU" in name else (theirs, ours_)
    return round(worse / better, 2) if better else float("nan")


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

    rounds: dict[str, list[dict[str, float]]] = {"dtp": [], "py-libp2p": []}
    rival = os.environ.get("BENCH_LIBP2P_PYTHON")
    for _ in range(options.rounds):
        rounds["dtp"].append(
            measure("ours", sys.executable, options.nodes, options.times, options.sustained, 120.0)
        )
        if rival:
            rounds["py-libp2p"].append(measure("libp2p", rival, options.nodes, 20, 30, 60.0))
    rows: dict[str, dict[str, float] | str] = {}
    for name, found in rounds.items():
        rows[name] = (
            {each: round(statistics.median(one[each] for one in found), 3) for each in found[0]}
            if found
            else "not measured: $BENCH_LIBP2P_PYTHON names no interpreter"
        )
    theirs, ours_ = rows["py-libp2p"], rows["dtp"]
    if isinstance(theirs, dict) and isinstance(ours_, dict):
        rows["ratio"] = {each: _ratio(each, ours_[each], theirs[each]) for each in ours_}
    text = report(rows, options.nodes)
    print(text)
    if options.save:
        facts = machine.facts()
        name = f"{time.strftime('%Y-%m-%d')}-gossip"
        RESULTS.joinpath(f"{name}.json").write_text(
            json.dumps({"machine": facts, "rows": rows, "rounds": rounds}, indent=1) + "\n"
        )
        machine_line = f"{facts['cpu']}, {facts['cores usable']} cores, load {facts['load average']}"
        RESULTS.joinpath(f"{name}.md").write_text(
            f"# Gossip, {time.strftime('%Y-%m-%d')}\n\n{machine_line}, {facts['python']}, medians of "
            f"{options.rounds} interleaved rounds.\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
