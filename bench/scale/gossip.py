"""`python -m bench.scale.gossip`: a topic of a thousand nodes on a simulated clock, with loss, churn and sybils.

What runs is the router that runs for real. Simulated are links: 50 ms a hop (a quarter more or less for each link),
and loss as connections show it. A turn that is lost (1 %) arrives a retransmission later (200 ms, TCP's least; every
further loss doubles it), and what is behind it on that link waits. Churn: each minute a tenth of the nodes goes
without a word, and as many come. Sybils take part in meshes and pass nothing on. Processor time isn't simulated: a
hop is its latency. Signatures are trusted, which changes nothing but the time that this takes.

Counted for a message are honest nodes that had joined before it was published and didn't go before the end.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtp.gossip.limits import DEFAULT
from dtp.testing.swarm import GossipSwarm, SwarmNode

TOPIC = "scale"
RESULTS = Path(__file__).parents[1] / "results"


@dataclass
class Setting:
    """What is simulated. Times in seconds, parts of 1."""

    nodes: int = 1000
    #: Links that a node dials.
    dials: int = 12
    hop: float = 0.05
    loss: float = 0.01
    retransmission: float = 0.2
    churn: float = 0.1
    sybils: float = 0.2
    messages: int = 60
    pause: float = 1.0
    settle: float = 20.0
    seed: int = 1


@dataclass
class Published:
    """A message, and whom it should reach."""

    when: float
    wanted: set[bytes] = field(default_factory=set)
    delays: dict[bytes, float] = field(default_factory=dict)
    hops: dict[bytes, int] = field(default_factory=dict)


class Simulation:
    """A swarm, and what happens to it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.random = random.Random(setting.seed)
        self.swarm = GossipSwarm(setting.seed, carry=self._carry, trusting=True)
        self.swarm.on_message = self._arrived
        self.honest: dict[bytes, SwarmNode] = {}
        self.sybils: set[bytes] = set()
        self.published: dict[bytes, Published] = {}
        self._hops: dict[tuple[bytes, bytes], int] = {}
        self._ways: dict[tuple[bytes, bytes], float] = {}

    def _carry(self, sender: bytes, receiver: bytes, data: bytes, now: float) -> tuple[float, ...]:
        way = (sender, receiver) if sender < receiver else (receiver, sender)
        delay = self._ways.get(way)
        if delay is None:
            delay = self._ways[way] = self.setting.hop * self.random.uniform(0.75, 1.25)
        again = self.setting.retransmission
        while self.random.random() < self.setting.loss:
            delay, again = delay + again, 2 * again
        return (delay,)

    def _arrived(self, node: SwarmNode, delivered: Any) -> None:
        published = self.published.get(delivered.message.id)
        if published is not None and node.key not in self.sybils:
            hops = self._hops.get((delivered.message.id, delivered.sender), 0) + 1
            self._hops[delivered.message.id, node.key] = hops
            published.delays[node.key] = self.swarm.now - published.when
            published.hops[node.key] = hops

    def add(self, *, sybil: bool) -> None:
        """A node comes, and dials some of those that are there."""
        others = list(self.swarm.nodes.values())
        node = self.swarm.add_node(TOPIC)
        if sybil:
            self.sybils.add(node.key)
            # It answers as any does, but has no messages: nothing is held, nothing is passed on.
            core = node.router._core
            core.send_message = lambda *given: None  # type: ignore[method-assign]
            core.held.add = lambda held: None  # type: ignore[method-assign]
        else:
            self.honest[node.key] = node
        for other in self.random.sample(others, min(self.setting.dials, len(others))):
            self.swarm.link_nodes(
                node, other, source=f"8.{self.random.randrange(256)}.{self.random.randrange(256)}.1"
            )

    def remove(self) -> None:
        """A node goes without a word; another comes for it."""
        key = self.random.choice(list(self.swarm.nodes))
        node = self.swarm.nodes[key]
        self.swarm.remove_node(node)
        self.honest.pop(key, None)
        for published in self.published.values():
            published.wanted.discard(key)
        self.add(sybil=key in self.sybils)
        # Those that it left dial somebody else where they have become few.
        for other in list(self.honest.values()):
            if len(other.links & self.swarm.nodes.keys()) < self.setting.dials // 2:
                for peer in self.random.sample(list(self.swarm.nodes.values()), 3):
                    self.swarm.link_nodes(other, peer)

    def run(self) -> None:
        """Build it, let it settle, publish, and let it end."""
        setting, swarm = self.setting, self.swarm
        for number in range(setting.nodes):
            self.add(sybil=number % 100 < 100 * setting.sybils and number > 20)
        swarm.run_for(setting.settle)
        gap = 60 / (setting.churn * setting.nodes) if setting.churn else float("inf")
        end = swarm.now + setting.messages * setting.pause
        when = swarm.now + gap
        while when < end:
            swarm.call_at(when, self.remove)
            when += gap
        for _ in range(setting.messages):
            author = self.random.choice(list(self.honest.values()))
            # Who came a moment ago is linked, and in no mesh yet: it has its second, as users' programs have.
            published = Published(swarm.now, {key for key in self.honest if key != author.key})
            self.published[author.publish(TOPIC, b"x" * 256)] = published
            swarm.run_for(setting.pause)
        swarm.run_for(15.0)


def figures(simulation: Simulation, seconds: float) -> dict[str, Any]:
    """Return what came of it."""
    whole: list[float] = []
    last: list[float] = []
    by_hops: dict[int, list[float]] = defaultdict(list)
    wanted = 0
    for published in simulation.published.values():
        wanted += len(published.wanted)
        # Who came later has it as well, from what others still held: it isn't among those that it should reach.
        reached = published.wanted & published.delays.keys()
        if not reached:  # all of those are gone
            continue
        ordered = sorted(published.delays[key] for key in reached)
        last.append(ordered[len(ordered) * 99 // 100])
        whole += ordered
        for key in reached:
            by_hops[published.hops[key]].append(published.delays[key])
    whole.sort()
    counts: Counter[str] = Counter()
    for node in simulation.honest.values():
        counts += node.router.counts
    reach, so_far = {}, 0
    for hop in sorted(by_hops):
        so_far += len(by_hops[hop])
        reach[hop] = round(100 * so_far / len(whole), 2)
    each = len(simulation.honest) * len(simulation.published)
    loads = sorted(
        node.router.counts["sent"] / len(simulation.published) for node in simulation.honest.values()
    )
    return {
        "delivered %": round(100 * len(whole) / wanted, 4),
        "p50 s": round(statistics.median(whole), 3),
        "p99 s": round(whole[len(whole) * 99 // 100], 3),
        "p99.9 s": round(whole[len(whole) * 999 // 1000], 3),
        "most s": round(whole[-1], 3),
        "p99 of a message, median s": round(statistics.median(last), 3),
        "reached within hops, %": reach,
        "p50 s by hops": {hop: round(statistics.median(by_hops[hop]), 3) for hop in sorted(by_hops)},
        "p99 s by hops": {
            hop: round(sorted(delays)[len(delays) * 99 // 100], 3) for hop, delays in sorted(by_hops.items())
        },
        "sent/message, by part of the nodes": {
            part: round(loads[min(len(loads) - 1, len(loads) * part // 100)], 2) for part in range(0, 101, 5)
        },
        "sent/message/node": round(counts["sent"] / each, 2),
        "duplicates/message/node": round(counts["duplicate"] / each, 2),
        "asked for, % of deliveries": round(100 * counts["asked"] / max(1, counts["delivered"]), 3),
        "simulating took s": round(seconds, 1),
    }


CASES: dict[str, dict[str, Any]] = {
    "all of it: loss 1 %, churn 10 %/min, 20 % sybils": {},
    "no sybils": {"sybils": 0.0},
    "nothing goes wrong": {"sybils": 0.0, "loss": 0.0, "churn": 0.0},
}


def main() -> None:
    """Simulate, print, and keep with `--save`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=60)
    parser.add_argument("--case", type=int, help="only this one, from 0")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    found = {}
    for at, (name, changes) in enumerate(CASES.items()):
        if options.case is not None and at != options.case:
            continue
        began = time.process_time()
        simulation = Simulation(Setting(nodes=options.nodes, messages=options.messages, **changes))
        simulation.run()
        found[name] = figures(simulation, time.process_time() - began)
        print(json.dumps({name: found[name]}, indent=1), flush=True)
    if options.save:
        _save(found, options.nodes, options.messages)


def _save(found: dict[str, Any], nodes: int, messages: int) -> None:
    from bench import machine

    day = time.strftime("%Y-%m-%d")
    stem = RESULTS / f"{day}-scale-gossip"
    setting = Setting(nodes=nodes, messages=messages)
    stem.with_suffix(".json").write_text(
        json.dumps(
            {"machine": machine.facts(), "setting": vars(setting), "limits": repr(DEFAULT), "cases": found},
            indent=1,
        )
        + "\n"
    )
    names = [
        each for each in next(iter(found.values())) if not isinstance(next(iter(found.values()))[each], dict)
    ]
    lines = [
        f"# A topic of {nodes} nodes, simulated, {day}",
        "",
        (__doc__ or "").split("\n\n", 1)[1].strip(),
        "",
    ]
    lines += [
        f"| {nodes} nodes, {messages} messages of 256 B | {' | '.join(found)} |",
        "|---" * (len(found) + 1) + "|",
    ]
    lines += [f"| {name} | {' | '.join(str(case[name]) for case in found.values())} |" for name in names]
    hops = sorted({hop for case in found.values() for hop in case["reached within hops, %"]})
    for hop in hops:
        cells = [str(case["reached within hops, %"].get(hop, 100.0)) for case in found.values()]
        lines.append(f"| reached within {hop} hops, % | {' | '.join(cells)} |")
    lines += ["", "Nothing is extrapolated: these are the nodes that were simulated."]
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
