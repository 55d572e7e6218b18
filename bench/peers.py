"""What nodes cost, and how soon they find each other: hello and mDNS, memory, wake-ups and bytes when idle.

    python -m bench.peers --save

All on this machine's loopback and networks, in one process but for the memory of the first node, which has its own.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench import machine
from bench.runner import ROOT
from dtp.identity import Identity
from dtp.node.node import Node, NodeLimits
from dtp.node.upkeep import UpkeepLimits
from dtp.peers.book import PeerBook
from dtp.peers.lan.multicast import Lan
from dtp.peers.private import PrivateNetwork
from dtp.peers.record import PeerRecord

#: Of this benchmark alone: other nodes may be on this machine.
_PORT = 16884
_HERE = ("tcp://127.0.0.1:0",)
_ALONE: dict[str, Any] = {"listen": _HERE, "discover": ()}
_LAN: dict[str, Any] = {"listen": _HERE, "lan": {"interfaces": ("lo",), "port": _PORT}}

#: Row -> (unit, at least, aim); what issue 21 asks for.
TARGETS = {
    "hello: found by name, p50": ("ms", 50.0, 5.0),
    "hello: found by name, p99": ("ms", 50.0, 5.0),
    "hello: in a private network, p50": ("ms", 50.0, 5.0),
    "node: started, found and linked, p50": ("ms", 50.0, 5.0),
    "mDNS: heard by who is there, p50": ("s", 1.2, 1.2),
    "mDNS: found by a newcomer, p50": ("s", 1.2, 1.2),
    "memory: first node": ("MB", 40.0, 30.0),
    "memory: each further node": ("MB", 0.3, 0.1),
}


def memory() -> dict[str, float]:
    """Return what this process has in memory, MB: all of it (RSS), and what it shares with nobody ("own")."""
    return _memory(Path("/proc/self/smaps_rollup").read_text())


def _memory(rollup: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in rollup.strip().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024 / 1e6
    return {"rss": found["Rss"], "own": found["Private_Dirty"] + found["Private_Clean"]}


def _record(identity: Identity) -> PeerRecord:
    return PeerRecord.sign(identity, now=time.time(), addresses=["tcp://127.0.0.1:9000"])


async def hello(count: int, network: PrivateNetwork | None) -> list[float]:
    """Seconds from an ask to the record, each of another peer."""
    found = []
    for _ in range(count):
        who = Identity.generate()
        here = Lan(PeerBook(), interfaces=("lo",), port=_PORT, network=network)
        there = Lan(PeerBook(), interfaces=("lo",), port=_PORT, network=network)
        async with here, there:
            here.publish_record(_record(who), to_all=False)
            began = time.perf_counter()
            if await there.find_record(who.id) is not None:
                found.append(time.perf_counter() - began)
    return found


async def linking(count: int) -> list[float]:
    """Seconds from the start of a node until another one, that was there, has a link to it."""
    found = []
    async with Node(**_LAN) as stays:
        for _ in range(count):
            linked = asyncio.Event()
            end = stays.links.listen(lambda _, linked=linked: linked.set(), lambda _: None)  # type: ignore[misc]
            began = time.perf_counter()
            async with Node(identity=_smaller(stays.identity), **_LAN):
                await linked.wait()
                found.append(time.perf_counter() - began)
                end()
    return found


def _smaller(than: Identity) -> Identity:
    """Return an identity that dials at once: of a pair the larger one waits."""
    while (made := Identity.generate()).id > than.id:
        pass
    return made


async def mdns(count: int, *, late: bool) -> list[float]:
    """Seconds from a publication to the record at another that listens; `late`: from the beginning of one that comes
    when all has been said."""
    from dtp.peers.lan.mdns import Mdns

    found = []
    for _ in range(count):
        who = Identity.generate()
        async with Mdns(PeerBook(), interfaces=("lo",)) as here, AsyncExitStack() as stack:
            there = Mdns(PeerBook(), interfaces=("lo",))
            if late:
                here.publish_record(_record(who))
                await asyncio.sleep(3)
            began = time.perf_counter()
            await stack.enter_async_context(there)
            if not late:
                began = time.perf_counter()
                here.publish_record(_record(who))
            while await there.find_record(who.id) is None:
                pass
            found.append(time.perf_counter() - began)
    return found


async def further(count: int, links: int) -> dict[str, float]:
    """MB of each of `count` further nodes that want so many links, both ends in this process; links that each has."""
    async with AsyncExitStack() as stack:
        limits = NodeLimits(upkeep=UpkeepLimits(wanted=links))
        await stack.enter_async_context(Node(**_ALONE))  # what the first one loads
        gc.collect()
        before = memory()["own"]
        made = [await stack.enter_async_context(Node(**_ALONE, limits=limits)) for _ in range(count)]
        for number, node in enumerate(made):
            for step in range(1, links // 2 + 1):
                await node.links.connect(made[(number + step) % count].address)
        await asyncio.sleep(2)
        gc.collect()
        had = sum(len(node.links) for node in made) / count
        return {"memory": (memory()["own"] - before) / count, "links": had}


class _Turns:
    """Counts how often a loop wakes up: how often its selector returns."""

    def __init__(self, loop: Any) -> None:
        self.count = 0
        selector = loop._selector
        select = selector.select

        def counted(timeout: float | None = None) -> Any:
            events = select(timeout)
            self.count += timeout is None or timeout > 0
            return events

        selector.select = counted


async def idle(seconds: float, links: int) -> dict[str, float]:
    """Wake-ups a minute and bytes an hour of a node that has nothing to do, with so many links to nodes elsewhere."""
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(Node(**_LAN))
        others = []
        for _ in range(links):
            other = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bench.peers", "--other", str(node.address)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=ROOT,
            )
            assert other.stdout is not None
            await other.stdout.readline()
            others.append(other)
        await asyncio.sleep(6)  # the first hellos are over
        turns = _Turns(asyncio.get_running_loop())
        used, sent = time.process_time(), _bytes(node)
        await asyncio.sleep(seconds)
        count = turns.count
        found = {
            "wake-ups a minute": count * 60 / seconds,
            "bytes an hour, sent and received": (_bytes(node) - sent) * 3600 / seconds,
            "processor, ms a minute": (time.process_time() - used) * 60_000 / seconds,
        }
        for other in others:
            assert other.stdin is not None
            other.stdin.close()
            await other.wait()
        return found


def _bytes(node: Node) -> int:
    """Bytes of links, and of hellos as a period of five minutes has them (12 an hour are said, on one interface)."""
    total = 0
    for link in node.links:
        stats = link.connection.stats
        total += stats.bytes_sent + stats.bytes_received
    return total


async def other(address: str) -> None:
    """A node that links to `address` and stays until its input ends."""
    async with Node(**_ALONE, bootstrap=[address]) as node:
        while not len(node.links):  # noqa: ASYNC110  # a benchmark's side
            await asyncio.sleep(0.01)
        print("linked", flush=True)
        await asyncio.to_thread(sys.stdin.read)


#: A program with one node and nothing of this benchmark: it prints lines of /proc/self/smaps_rollup.
_FIRST = f"""
import asyncio
import dtp

async def main():
    async with dtp.Node(listen={_HERE!r}, lan={_LAN["lan"]!r}):
        print(open("/proc/self/smaps_rollup").read())

asyncio.run(main())
"""


def first() -> dict[str, float]:
    """Return what a process with one node has, `dtp` compiled to bytecode before, as an installation has it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        environment = os.environ | {"PYTHONPYCACHEPREFIX": scratch}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-P", "-c", _FIRST]
        for _ in range(2):  # the first one compiles
            told = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    return _memory(told.stdout)


def _fresh(*arguments: str) -> dict[str, float]:
    """Return what a process of its own prints: memory that was used before is used again."""
    command = [sys.executable, "-m", "bench.peers", *arguments]
    told = subprocess.run(command, capture_output=True, check=True, cwd=ROOT, text=True)
    found: dict[str, float] = json.loads(told.stdout)
    return found


def measure(rounds: int, seconds: float) -> dict[str, float]:
    """All figures."""
    rows: dict[str, float] = {}
    quick = [each * 1000 for each in asyncio.run(hello(rounds * 20, None))]
    rows["hello: found by name, p50"] = statistics.median(quick)
    rows["hello: found by name, p99"] = sorted(quick)[int(len(quick) * 0.99)]
    sealed = [each * 1000 for each in asyncio.run(hello(rounds * 20, PrivateNetwork.generate()))]
    rows["hello: in a private network, p50"] = statistics.median(sealed)
    rows["node: started, found and linked, p50"] = statistics.median(
        each * 1000 for each in asyncio.run(linking(rounds * 4))
    )
    for late, name in ((False, "mDNS: heard by who is there, p50"), (True, "mDNS: found by a newcomer, p50")):
        rows[name] = statistics.median(asyncio.run(mdns(rounds, late=late)))
    told = first()
    rows["memory: first node"], rows["... of it shared with no other process"] = told["rss"], told["own"]
    rows["memory: each further node"] = _fresh("--further", "0")["memory"]
    for links in (2, 8, 20):
        found = _fresh("--further", str(links))
        rows[f"... that wants {links} links, and has {found['links']:.0f}"] = found["memory"]
    for links in (0, 8):
        for name, value in asyncio.run(idle(seconds, links)).items():
            rows[f"idle with {links} links: {name}"] = value
    hellos = 12 * (len(_record(Identity.generate()).encoded) + 6 + 28)
    rows["idle: hellos, bytes an hour on each interface"] = float(hellos)
    return rows


def as_markdown(facts: dict[str, object], rows: dict[str, float], date: str) -> str:
    """The page of a result."""
    lines = [
        f"# Nodes, {date}",
        "",
        "What nodes cost and how soon they find each other; `python -m bench.peers`.",
        "",
    ]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [
        "",
        "Memory of the first node is RSS, while it has no link: OpenSSL comes with the first one, 1.1 MB. Python",
        "with asyncio has 21 MB of it, `cryptography` behind `noiseprotocol`",
        "7.5, `dtp` 8, gossip 1.5, the ciphers 2. Pages of libraries that others have are in it, too.",
        "A further node is what this process then has more of its own, with both ends of all links in it.",
    ]
    lines += ["", "| | measured | at least | aim | |", "|---|---|---|---|---|"]
    for name, value in rows.items():
        unit, least, aim = TARGETS.get(name, ("", 0.0, 0.0))
        verdict = "" if not unit else "aim met" if value <= aim else "met" if value <= least else "missed"
        bounds = f"{least:g} {unit} | {aim:g} {unit}" if unit else " | "
        shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        lines.append(f"| {name} | {shown} {unit} | {bounds} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="how long an idle node is watched")
    parser.add_argument("--save", action="store_true", help="keep the result in bench/results")
    parser.add_argument("--further", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--other", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.further is not None:
        print(json.dumps(asyncio.run(further(40, arguments.further))))
        return 0
    if arguments.other:
        asyncio.run(other(arguments.other))
        return 0
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    facts, rows = machine.facts(), measure(arguments.rounds, arguments.seconds)
    text = as_markdown(facts, rows, date)
    if arguments.save:
        folder = ROOT / "bench" / "results"
        (folder / f"{date}-peers.md").write_text(text, encoding="utf-8")
        kept = {"machine": facts, "rows": rows}
        (folder / f"{date}-peers.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
